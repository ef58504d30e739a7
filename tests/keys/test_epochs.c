#include "base/text.h"
#include "keys/epochs.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct alloc_heap heap;
static struct diag diag;

static void setup(void) { alloc_heap_init(&heap, 256 << 20); }
static void teardown(void) { alloc_heap_free(&heap); }

TestSuite(epochs, .init = setup, .fini = teardown);

static void rotate(struct epochs *e, const char *scope, uint64_t t, uint64_t grace, bool revoke) {
  struct epoch_event ev = {epochs_next_seq(e), t, grace, bytes_str(scope), revoke, 0};
  diag = (struct diag){0};
  cr_assert_eq(epochs_apply(e, &ev, &diag), ERR_OK, "%s", diag.what);
}

static uint32_t current(const struct epochs *e, const char *asset) { return epochs_current(e, bytes_str(asset)); }

static enum epoch_status status(const struct epochs *e, const char *asset, uint32_t epoch, uint64_t now) {
  return epochs_status(e, bytes_str(asset), epoch, now, NULL);
}

Test(epochs, scopes_add_up) {
  struct epochs *e = epochs_new(&heap.base, 1);
  cr_assert_eq(current(e, "a/b/c"), 1);
  rotate(e, "", 100, 10, false);
  rotate(e, "a/", 200, 10, false);
  rotate(e, "a/b/c", 300, 10, false);
  rotate(e, "a/b/", 400, 10, false);
  rotate(e, "a/b", 500, 10, false);
  cr_assert_eq(current(e, "a/b/c"), 5);
  cr_assert_eq(current(e, "a/b/d"), 4);
  cr_assert_eq(current(e, "a/b"), 4);
  cr_assert_eq(current(e, "a/bb/c"), 3);
  cr_assert_eq(current(e, "ab"), 2);
  cr_assert_eq(current(e, "a"), 2);
}

Test(epochs, an_epoch_lives_until_its_own_grace_is_over) {
  struct epochs *e = epochs_new(&heap.base, 1);
  rotate(e, "", 1000, 500, false);     // ends epoch 1: until 1500
  rotate(e, "a/x", 1100, 100, false);  // ends epoch 2 of a/x: until 1200
  rotate(e, "a/", 1150, 0, false);     // ends epoch 3 of a/x at once
  uint64_t until;
  cr_assert_eq(epochs_status(e, bytes_str("a/x"), 1, 1199, &until), EPOCH_GRACE);
  cr_assert_eq(until, 1500);
  cr_assert_eq(status(e, "a/x", 1, 1500), EPOCH_EXPIRED);
  cr_assert_eq(status(e, "a/x", 2, 1199), EPOCH_GRACE);
  cr_assert_eq(status(e, "a/x", 2, 1200), EPOCH_EXPIRED);
  cr_assert_eq(status(e, "a/x", 3, 1150), EPOCH_EXPIRED);
  cr_assert_eq(status(e, "a/x", 4, 1150), EPOCH_CURRENT);
  cr_assert_eq(status(e, "a/x", 5, 1150), EPOCH_UNKNOWN);
  cr_assert_eq(status(e, "a/x", 0, 1150), EPOCH_UNKNOWN);
  cr_assert_eq(status(e, "z", 1, 1499), EPOCH_GRACE);
  cr_assert_eq(status(e, "z", 2, 9999), EPOCH_CURRENT);
}

Test(epochs, revoke_stops_everything_before_it_at_once) {
  struct epochs *e = epochs_new(&heap.base, 1);
  rotate(e, "", 1000, 100000, false);
  rotate(e, "a/", 1100, 100000, false);
  rotate(e, "a/", 1200, 100000, true);
  rotate(e, "", 1300, 100000, false);
  cr_assert_eq(status(e, "a/x", 1, 1300), EPOCH_REVOKED);
  cr_assert_eq(status(e, "a/x", 2, 1300), EPOCH_REVOKED);
  cr_assert_eq(status(e, "a/x", 3, 1300), EPOCH_REVOKED);
  cr_assert_eq(status(e, "a/x", 4, 1300), EPOCH_GRACE);
  cr_assert_eq(status(e, "a/x", 5, 1300), EPOCH_CURRENT);
  cr_assert_eq(status(e, "b", 1, 1300), EPOCH_GRACE);
}

Test(epochs, a_scope_covers_what_its_rotation_changes) {
  static const char *const scopes[] = {"", "a", "a/", "a/b", "a/b/", "ab", "b/", "a/b/c"}, *const assets[] = {"a", "a/b", "a/b/c", "ab", "b", "b/a", "a/bc", "c"};
  struct epochs *e = epochs_new(&heap.base, 1);
  for (size_t s = 0; s < sizeof scopes / sizeof *scopes; s++)
    for (size_t i = 0; i < sizeof assets / sizeof *assets; i++) {
      uint32_t before = current(e, assets[i]);
      rotate(e, scopes[s], 100, 10, false);
      cr_expect_eq(epochs_covers(bytes_str(scopes[s]), bytes_str(assets[i])), current(e, assets[i]) != before, "\"%s\", %s", scopes[s], assets[i]);
    }
}

Test(epochs, bad_scopes_and_order_change_nothing) {
  struct epochs *e = epochs_new(&heap.base, 1);
  rotate(e, "a", 1, 1, false);
  static const char *const bad[] = {"/", "/a", "a//b", "a/../b", ".", "a/.", "..//"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct epoch_event ev = {epochs_next_seq(e), 1, 1, bytes_str(bad[i]), false, 0};
    diag = (struct diag){0};
    cr_assert_eq(epochs_apply(e, &ev, &diag), ERR_ARGUMENT, "%s", bad[i]);
  }
  char deep[200];
  memset(deep, 'a', sizeof deep);
  for (size_t i = 1; i < sizeof deep; i += 2)
    deep[i] = '/';
  struct epoch_event ev = {epochs_next_seq(e), 1, 1, bytes_of(deep, 2 * EPOCH_MAX_DEPTH + 3), false, 0};
  diag = (struct diag){0};
  cr_assert_eq(epochs_apply(e, &ev, &diag), ERR_LIMIT);
  ev = (struct epoch_event){1, 1, 1, BYTES_LIT("a"), false, 0};
  diag = (struct diag){0};
  cr_assert_eq(epochs_apply(e, &ev, &diag), ERR_ARGUMENT);
  cr_assert_eq(current(e, "a"), 2);
  cr_assert_eq(epochs_next_seq(e), 2);
}

static struct bytes lines_of(const struct epochs *e, uint64_t now) {
  struct writer w = wr_of(NULL, 0);
  cr_assert_eq(epochs_write_all(&w, e, now, &heap.base), ERR_OK);
  uint8_t *p = heap.base.get(&heap.base, w.n + 1);
  struct writer out = wr_of(p, w.n);
  cr_assert_eq(epochs_write_all(&out, e, now, &heap.base), ERR_OK);
  cr_assert_eq(out.n, w.n);
  return bytes_of(p, w.n);
}

static struct epochs *replay(struct bytes text, uint32_t base) {
  struct epochs *e = epochs_new(&heap.base, base);
  while (text.n) {
    const uint8_t *nl = memchr(text.p, '\n', text.n);
    size_t n = (size_t)(nl - text.p) + 1;
    diag = (struct diag){0};
    cr_assert_eq(epochs_read_line(e, bytes_of(text.p, n), &diag), ERR_OK, "%s: %.*s", diag.what, (int)n, text.p);
    text = bytes_of(text.p + n, text.n - n);
  }
  return e;
}

// A model of what the rules mean: the list of all events, asked naively.
struct model {
  struct {
    char scope[16];
    uint64_t t, grace;
    bool revoke;
  } ev[400];
  size_t num;
};

static bool covers(const char *scope, const char *asset) {
  size_t n = strlen(scope);
  return !n || (scope[n - 1] == '/' ? strncmp(scope, asset, n) == 0 && asset[n] : strcmp(scope, asset) == 0);
}

static enum epoch_status model_status(const struct model *m, const char *asset, uint32_t epoch, uint64_t now) {
  uint32_t at = 1;
  for (size_t i = 0; i < m->num; i++) {
    if (!covers(m->ev[i].scope, asset) || at++ != epoch)
      continue;
    for (size_t k = i; k < m->num; k++)
      if (covers(m->ev[k].scope, asset) && m->ev[k].revoke)
        return EPOCH_REVOKED;
    return now < m->ev[i].t + m->ev[i].grace ? EPOCH_GRACE : EPOCH_EXPIRED;
  }
  return epoch == at ? EPOCH_CURRENT : EPOCH_UNKNOWN;
}

Test(epochs, agrees_with_the_naive_model_also_after_compaction) {
  static const char *const scopes[] = {"", "a/", "a/b/", "a/b/c", "a/b/d", "x", "x/", "a"};
  static const char *const assets[] = {"a/b/c", "a/b/d", "a/b/e", "a/f", "x", "x/y", "a", "q"};
  static struct model m;
  srand(7);
  struct epochs *e = epochs_new(&heap.base, 1);
  uint64_t now = 1000;
  for (size_t i = 0; i < 400; i++, now += (uint64_t)rand() % 50) {
    const char *s = scopes[rand() % 8];
    uint64_t grace = (uint64_t)rand() % 600;
    bool revoke = rand() % 20 == 0;
    rotate(e, s, now, grace, revoke);
    snprintf(m.ev[m.num].scope, sizeof m.ev[0].scope, "%s", s);
    m.ev[m.num].t = now, m.ev[m.num].grace = grace, m.ev[m.num++].revoke = revoke;
    if (i % 40 == 39)
      e = replay(lines_of(e, now), 1);
    for (size_t a = 0; a < 8; a++) {
      uint32_t cur = current(e, assets[a]);
      for (uint32_t ep = 1; ep <= cur + 1; ep++) {
        enum epoch_status want = model_status(&m, assets[a], ep, now), got = status(e, assets[a], ep, now);
        // What was compacted away is expired or revoked: both are 410, and which is no longer known.
        bool gone = got == EPOCH_EXPIRED && want == EPOCH_REVOKED;
        cr_assert(got == want || gone, "%s epoch %u at %zu: %d, not %d", assets[a], ep, i, got, want);
      }
    }
  }
}

// Numbers ascend; none need follow the one before at once.
Test(epochs, a_gap_in_numbers_is_compacted_too) {
  struct epochs *e = epochs_new(&heap.base, 1);
  struct epoch_event ev = {1, 1000, 500, BYTES_LIT("a"), false, 0};
  cr_assert_eq(epochs_apply(e, &ev, &diag), ERR_OK);
  ev.seq = 5;
  cr_assert_eq(epochs_apply(e, &ev, &diag), ERR_OK);
  e = replay(lines_of(e, 1200), 1);
  cr_assert(current(e, "a") == 3 && epochs_next_seq(e) == 6);
  cr_assert_eq(status(e, "a", 2, 1200), EPOCH_GRACE);
}

Test(epochs, a_compacted_journal_is_short) {
  struct epochs *e = epochs_new(&heap.base, 1);
  for (uint64_t i = 0; i < 10000; i++)
    rotate(e, i % 2 ? "" : "a/", 1000 * i, 5000, false);
  struct bytes text = lines_of(e, 1000 * 10000);
  cr_assert_lt(text.n, 1000);
  struct epochs *f = replay(text, 1);
  cr_assert_eq(current(f, "a/x"), 10001);
  cr_assert_eq(current(f, "b"), 5001);
  cr_assert_eq(epochs_next_seq(f), epochs_next_seq(e));
}

Test(epochs, journal_lines_check_themselves) {
  static const uint8_t odd[] = {'%', ' ', '\n', 0xff, '*'};
  struct epoch_event ev = {1, 123, 456, {odd, sizeof odd}, true, 0};
  char line[512], copy[512];
  struct writer w = wr_of(line, sizeof line);
  epochs_write_event(&w, &ev);
  struct epochs *e = epochs_new(&heap.base, 3);
  for (size_t n = 0; n < w.n - 1; n++)
    cr_assert_eq(epochs_read_line(e, bytes_of(line, n), &diag), ERR_CHECKSUM, "%zu", n);
  for (size_t i = 0; i < w.n - 1; i++) {
    memcpy(copy, line, w.n);
    copy[i] ^= 4;
    cr_assert_eq(epochs_read_line(e, bytes_of(copy, w.n), &diag), ERR_CHECKSUM, "%zu", i);
  }
  cr_assert_eq(epochs_current(e, ev.scope), 3);
  cr_assert_eq(epochs_read_line(e, bytes_of(line, w.n - 1), &diag), ERR_OK);
  cr_assert_eq(epochs_current(e, ev.scope), 4);
  cr_assert_eq(epochs_status(e, ev.scope, 3, 123, NULL), EPOCH_REVOKED);
  diag = (struct diag){0};
  cr_assert_eq(epochs_read_line(e, bytes_of(line, w.n), &diag), ERR_ARGUMENT); // twice
  ev.scope = (struct bytes){0}, ev.seq = 2;
  w = wr_of(line, sizeof line);
  epochs_write_event(&w, &ev);
  cr_assert(strstr(line, " * "));
  cr_assert_eq(epochs_read_line(e, bytes_of(line, w.n), &diag), ERR_OK);
  cr_assert_eq(current(e, "anything"), 4);
}

static void sum(void *ctx, struct bytes scope, uint64_t n) {
  (void)scope;
  *(uint64_t *)ctx += n;
}

Test(epochs, many_rules_are_found_and_walked) {
  struct epochs *e = epochs_new(&heap.base, 1);
  char name[32];
  for (unsigned i = 0; i < 50000; i++) {
    snprintf(name, sizeof name, "album%u/track%u", i / 10, i);
    rotate(e, name, 5, 5, false);
  }
  for (unsigned i = 0; i < 50000; i += 777) {
    snprintf(name, sizeof name, "album%u/track%u", i / 10, i);
    cr_assert_eq(current(e, name), 2);
  }
  uint64_t n = 0;
  epochs_walk(e, sum, &n);
  cr_assert_eq(n, 50000);
}

static enum err apply(struct epochs *e, struct bytes scope, uint64_t seq) {
  struct epoch_event ev = {seq, 1, 1, scope, false, 0};
  diag = (struct diag){0};
  return epochs_apply(e, &ev, &diag);
}

Test(epochs, names_up_to_their_limits) {
  struct epochs *e = epochs_new(&heap.base, 1);
  uint8_t name[EPOCH_MAX_SCOPE + 1];
  memset(name, 'a', sizeof name);
  cr_assert_eq(apply(e, bytes_of(name, EPOCH_MAX_SCOPE), 1), ERR_OK);
  cr_assert_eq(apply(e, bytes_of(name, EPOCH_MAX_SCOPE + 1), 2), ERR_LIMIT);
  cr_assert_eq(apply(e, BYTES_LIT("a\0b"), 2), ERR_ARGUMENT);
  for (size_t i = 1; i < 2 * EPOCH_MAX_DEPTH + 2; i += 2)
    name[i] = '/';
  cr_assert_eq(apply(e, bytes_of(name, 2 * EPOCH_MAX_DEPTH + 2), 2), ERR_LIMIT);
  // The deepest name: each prefix of it and it itself rotate it.
  for (size_t depth = 1; depth <= EPOCH_MAX_DEPTH; depth++)
    cr_assert_eq(apply(e, bytes_of(name, 2 * depth), depth + 1), ERR_OK, "%s", diag.what);
  struct bytes deepest = bytes_of(name, 2 * EPOCH_MAX_DEPTH + 1);
  cr_assert_eq(apply(e, deepest, EPOCH_MAX_DEPTH + 2), ERR_OK);
  cr_assert_eq(apply(e, (struct bytes){0}, EPOCH_MAX_DEPTH + 3), ERR_OK);
  cr_assert_eq(epochs_current(e, deepest), EPOCH_MAX_DEPTH + 3);
}

Test(epochs, numbers_up_to_their_limits) {
  struct epochs *e = epochs_new(&heap.base, 5);
  cr_assert_eq(status(e, "a", 4, 0), EPOCH_UNKNOWN);
  cr_assert_eq(apply(e, BYTES_LIT("a"), (uint64_t)INT32_MAX + 1), ERR_ARGUMENT);
  rotate(e, "a", UINT64_MAX - 5, 10, false); // in grace for ever
  uint64_t until;
  cr_assert_eq(epochs_status(e, bytes_str("a"), 5, UINT64_MAX - 1, &until), EPOCH_GRACE);
  cr_assert_eq(until, UINT64_MAX);
  cr_assert_eq(status(e, "a", 4, 0), EPOCH_UNKNOWN);
}

// A clock that is set back is no reason to forget a rotation; one that reaches the end of the grace is.
Test(epochs, what_compaction_folds) {
  static const struct {
    uint64_t now;
    enum epoch_status want;
    const char *line;
  } rows[] = {{900, EPOCH_GRACE, "rotate 1 "}, {1000, EPOCH_GRACE, "rotate 1 "}, {1499, EPOCH_GRACE, "rotate 1 "}, {1500, EPOCH_EXPIRED, "base 1 1 0 a "}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct epochs *e = epochs_new(&heap.base, 1);
    rotate(e, "a", 1000, 500, false);
    struct bytes text = lines_of(e, rows[i].now);
    cr_assert(memmem(text.p, text.n, rows[i].line, strlen(rows[i].line)), "row %zu: %.*s", i, (int)text.n, text.p);
    cr_assert_eq(status(replay(text, 1), "a", 1, rows[i].now), rows[i].want, "row %zu", i);
  }
  // The rotations of one scope are folded, the revocation behind them is not.
  struct epochs *e = epochs_new(&heap.base, 1);
  rotate(e, "a", 1000, 0, true);
  rotate(e, "a", 1001, 10000, true);
  e = replay(lines_of(e, 2000), 1);
  cr_assert_eq(status(e, "a", 1, 2000), EPOCH_EXPIRED);
  cr_assert_eq(status(e, "a", 2, 2000), EPOCH_REVOKED);
  cr_assert_eq(status(e, "a", 3, 2000), EPOCH_CURRENT);
}

// Ends a line with its checksum, as a journal's writer would.
static enum err read_words(struct epochs *e, const char *words) {
  uint8_t line[EPOCH_MAX_LINE + 100], sum[8];
  struct writer w = wr_of(line, sizeof line);
  wr_str(&w, words);
  wr_str(&w, " ");
  store_be64(sum, XXH3_64bits(line, w.n));
  hex_write(&w, bytes_of(sum, 8));
  diag = (struct diag){0};
  return epochs_read_line(e, bytes_of(line, w.n), &diag);
}

// Lines whose checksum is right and whose numbers are not.
Test(epochs, lines_that_contradict_themselves) {
  static const struct {
    const char *first, *words;
    enum err want;
  } rows[] = {
      {NULL, "sluice1 base 5 5 5 a", ERR_OK},
      {NULL, "sluice1 base 5 6 0 a", ERR_SYNTAX},
      {NULL, "sluice1 base 5 1 6 a", ERR_SYNTAX},
      {NULL, "sluice1 base 5 0 0 a", ERR_SYNTAX}, // written again it would be lost, and its 5 given once more
      {"sluice1 base 5 4 0 a", "sluice1 base 5 1 0 b", ERR_OK},
      {"sluice1 base 5 4 0 a", "sluice1 base 5 2 0 b", ERR_SYNTAX},
      {NULL, "sluice1 base 2147483647 1 0 a", ERR_SYNTAX},
      {NULL, "sluice1 base 5 1 0 a b", ERR_SYNTAX},
      {"sluice1 base 5 1 0 a", "sluice1 base 5 1 0 b", ERR_OK},
      {"sluice1 base 5 1 0 a", "sluice1 base 5 1 0 a", ERR_ARGUMENT},
      {"sluice1 base 5 1 0 a", "sluice1 base 6 1 0 b", ERR_ARGUMENT},
      {"sluice1 rotate 1 1 1 0 a", "sluice1 base 5 1 0 b", ERR_ARGUMENT},
      {"sluice1 base 5 1 0 a", "sluice1 rotate 5 1 1 0 a", ERR_ARGUMENT},
      {"sluice1 base 5 1 0 a", "sluice1 rotate 6 1 1 0 a", ERR_OK},
      {NULL, "sluice1 rotate 1 1 1 2 a", ERR_SYNTAX},
      {NULL, "sluice1 rotate 1 1 1 0 a%4", ERR_SYNTAX},
      {NULL, "sluice1 rotate 1 1 1 0 a%41", ERR_OK},
      {NULL, "sluice1 scheduled 1 1 1 3600000 a", ERR_OK},
      {NULL, "sluice1 slot 1 a b", ERR_SYNTAX},
      {NULL, "sluice1 turn 1 1 1 0 a", ERR_SYNTAX},
      {NULL, "sluice2 rotate 1 1 1 0 a", ERR_SYNTAX},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct epochs *e = epochs_new(&heap.base, 1);
    cr_assert(!rows[i].first || read_words(e, rows[i].first) == ERR_OK, "row %zu: %s", i, diag.what);
    enum err got = read_words(e, rows[i].words);
    cr_expect_eq(got, rows[i].want, "row %zu: %s %s", i, err_name(got), diag.what);
  }
  // Counts come before all rotations.
  struct epochs *late = epochs_new(&heap.base, 1);
  cr_assert_eq(read_words(late, "sluice1 base 5 1 0 a"), ERR_OK);
  cr_assert_eq(read_words(late, "sluice1 rotate 6 1 1 0 a"), ERR_OK);
  cr_assert_eq(read_words(late, "sluice1 base 5 1 0 b"), ERR_ARGUMENT);
  // A scheduled rotation revokes nothing, whatever the number of its slot.
  struct epochs *e = epochs_new(&heap.base, 1);
  cr_assert_eq(read_words(e, "sluice1 scheduled 1 1000 500 1 a"), ERR_OK);
  cr_assert_eq(status(e, "a", 1, 1100), EPOCH_GRACE);
  char words[EPOCH_MAX_LINE + 1];
  snprintf(words, sizeof words, "sluice1 rotate 2 1 1 0 %0*d", EPOCH_MAX_SCOPE, 0);
  cr_assert_eq(read_words(e, words), ERR_OK, "%s", diag.what);
  snprintf(words, sizeof words, "sluice1 rotate 3 1 1 0 %0*d", EPOCH_MAX_SCOPE + 1, 0);
  cr_assert_eq(read_words(e, words), ERR_SYNTAX, "%s", diag.what);
  snprintf(words, sizeof words, "sluice1 rotate 3 1 1 0 a%0*d", EPOCH_MAX_LINE - 24, 0);
  cr_assert_eq(read_words(e, words), ERR_LIMIT);
  cr_assert(strstr(diag.what, "line of the journal"), "%s", diag.what);
}

static void count(void *ctx, struct bytes scope, uint64_t n) {
  (void)scope, (void)n;
  ++*(uint64_t *)ctx;
}

Test(epochs, scopes_that_only_have_a_slot_are_not_walked) {
  struct epochs *e = epochs_new(&heap.base, 1);
  uint64_t n = 0;
  cr_assert_eq(epochs_set_slot(e, BYTES_LIT("idle/"), 7, &diag), ERR_OK);
  rotate(e, "a", 1, 1, false);
  epochs_walk(e, count, &n);
  cr_assert_eq(n, 1);
}

Test(epochs, an_ordered_rotation_leaves_the_schedule_where_it_stands) {
  struct epochs *e = epochs_new(&heap.base, 1);
  cr_assert_eq(epochs_set_slot(e, BYTES_LIT("a/"), 7000, &diag), ERR_OK);
  rotate(e, "a/", 1, 1, false);
  cr_assert_eq(epochs_slot(e, BYTES_LIT("a/")), 7000);
}
