// The cache of keys in virtual time: who fetches, who waits, what is answered while the key server is away.
#include "server/key_cache.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>

static struct key_cache *cache;
static const struct key_times times = {.lifetime = 1000, .refresh = 200, .stale = 5000};

static void setup(void) { cache = key_cache_new(4); }
static void teardown(void) { key_cache_free(cache); }

TestSuite(key_cache, .init = setup, .fini = teardown);

static struct key_question of(const char *asset) {
  return (struct key_question){.server = 7, .asset = bytes_str(asset), .epoch = 1, .systems = 3, .num_labels = 1, .scheme = SCHEME_CBCS};
}

static struct key_ask ask(const char *asset, uint64_t now) {
  struct key_question q = of(asset);
  return key_cache_ask(cache, &q, now, true);
}

static struct issued *make(uint8_t key) {
  char asset[] = "asset", label[] = "label";
  struct drm_given given[DRM_SYSTEM_COUNT] = {[DRM_WIDEVINE] = {.pssh = BYTES_LIT("pssh"), .hls_media = BYTES_LIT("#EXT\n")}};
  struct key_record r = {.scheme = SCHEME_CBCS, .epoch = 1, .kid = {1}, .key = {key}, .iv = {2}, .has_iv = true,
                         .asset = bytes_str(asset), .label = bytes_str(label), .given = given};
  struct issued *i = issued_new(cache, &r, 1);
  cr_assert(i);
  memset(asset, 0, sizeof asset);
  memset(label, 0, sizeof label);
  cr_assert_eq(r.key[0], 0, "the original is wiped");
  return i;
}

static void land(struct key_slot *s, struct issued *fresh, uint64_t now) { key_cache_landed(cache, s, fresh, &times, 100, 0, now, 0); }

static void expect(struct key_ask a, enum key_got got, bool fetch) {
  cr_assert_eq(a.got, got, "%d", a.got);
  cr_assert_eq(a.fetch, fetch);
  issued_drop(a.issued);
}

static unsigned woken;
static void on_ready(struct key_wait *w) {
  (void)w;
  woken++;
}

Test(key_cache, one_fetches_and_the_rest_wait) {
  struct key_wait w[3] = {{.ready = on_ready}, {.ready = on_ready}, {.ready = on_ready}};
  struct key_ask first = ask("a", 0);
  expect(first, KEY_FLYING, true);
  cr_assert(key_cache_park(cache, first.slot, &w[0]));
  for (int i = 1; i < 3; i++) {
    struct key_ask a = ask("a", 1);
    expect(a, KEY_FLYING, false);
    cr_assert(key_cache_park(cache, a.slot, &w[i]));
  }
  struct key_ask late = ask("a", 2);
  woken = 0;
  land(first.slot, make(9), 5);
  cr_assert_eq(woken, 3);
  cr_assert(!key_cache_park(cache, late.slot, &w[0]), "the fetch has ended: ask again");
  struct key_ask hit = ask("a", 6);
  cr_assert_eq(hit.got, KEY_HIT);
  const struct key_record *r = &hit.issued->records[0];
  cr_assert_eq(r->key[0], 9);
  cr_assert(bytes_eq(r->asset, BYTES_LIT("asset")) && bytes_eq(r->label, BYTES_LIT("label")));
  cr_assert(bytes_eq(r->given[DRM_WIDEVINE].pssh, BYTES_LIT("pssh")) && bytes_eq(r->given[DRM_WIDEVINE].hls_media, BYTES_LIT("#EXT\n")));
  cr_assert_eq(r->given[DRM_PLAYREADY].pssh.n, 0);
  issued_drop(hit.issued);
}

Test(key_cache, renewed_ahead_used_beyond_and_refused_at_the_end) {
  struct key_ask a = ask("a", 0);
  key_cache_unpin(cache, a.slot);
  land(a.slot, make(1), 0);
  expect(ask("a", 799), KEY_HIT, false);
  a = ask("a", 800);
  expect(a, KEY_HIT, true);
  expect(ask("a", 801), KEY_HIT, false);
  land(a.slot, NULL, 810); // failed: not asked again for 100 ms
  expect(ask("a", 909), KEY_HIT, false);
  a = ask("a", 1001);
  expect(a, KEY_STALE, true);
  land(a.slot, NULL, 1002); // the second failure in a row: 200 ms
  expect(ask("a", 1201), KEY_STALE, false);
  a = ask("a", 1202);
  expect(a, KEY_STALE, true);
  land(a.slot, make(1), 1203);
  expect(ask("a", 1204), KEY_HIT, false);
  struct key_question q = of("a");
  expect(key_cache_ask(cache, &q, 1203 + 999, false), KEY_HIT, false);
  expect(key_cache_ask(cache, &q, 1203 + 1000, false), KEY_STALE, false);
  expect(key_cache_ask(cache, &q, 1203 + 1000 + 4999, false), KEY_STALE, false);
  expect(key_cache_ask(cache, &q, 1203 + 1000 + 5000, false), KEY_REFUSED, false);
  a = ask("a", 1203 + 6001);
  expect(a, KEY_FLYING, true);
  key_cache_unpin(cache, a.slot);
  land(a.slot, NULL, 8000); // the first one in a row, since an answer was between
  expect(ask("a", 8099), KEY_REFUSED, false);
  a = ask("a", 8100);
  expect(a, KEY_FLYING, true);
  key_cache_unpin(cache, a.slot);
  land(a.slot, NULL, 9000);
}

Test(key_cache, what_came_together_does_not_go_together) {
  struct key_ask a = ask("a", 0);
  key_cache_unpin(cache, a.slot);
  key_cache_landed(cache, a.slot, make(1), &times, 100, 0, 0, 255); // an eighth of the time in which it is not asked for anew
  expect(ask("a", 699), KEY_HIT, false);
  a = ask("a", 700);
  expect(a, KEY_HIT, true);
  key_cache_landed(cache, a.slot, NULL, &times, 100, 0, 700, 255); // a quarter of the pause
  expect(ask("a", 774), KEY_HIT, false);
  a = ask("a", 775);
  expect(a, KEY_HIT, true);
  land(a.slot, NULL, 775);
}

Test(key_cache, a_refusal_is_remembered_for_a_while) {
  struct key_ask a = ask("a", 0);
  key_cache_unpin(cache, a.slot);
  land(a.slot, NULL, 10);
  a = ask("a", 50);
  expect(a, KEY_REFUSED, false);
  cr_assert_eq(a.retry_ms, 60);
  a = ask("a", 110);
  expect(a, KEY_FLYING, true);
  key_cache_unpin(cache, a.slot);
  for (int i = 0; i < 50; i++) { // the pause grows, to a bound
    land(a.slot, NULL, 200);
    expect(ask("a", 200), KEY_REFUSED, false);
    a = ask("a", 200 + 6 * 100);
    expect(a, KEY_FLYING, true);
    key_cache_unpin(cache, a.slot);
  }
  key_cache_landed(cache, a.slot, NULL, &times, 100, 5000, 1000, 255);
  a = ask("a", 5999);
  expect(a, KEY_REFUSED, false);
  cr_assert_eq(a.retry_ms, 1, "what the key server says itself is kept to, without anything at random");
}

static void counted(uint32_t places, uint32_t answers) {
  uint32_t p, a;
  key_cache_count(cache, &p, &a);
  cr_assert(p == places && a == answers, "%u places, %u answers", p, a);
}

// The metric says answers: of a key server that refuses everything there are none.
Test(key_cache, a_place_without_an_answer_is_none) {
  struct key_ask a = ask("a", 0);
  key_cache_unpin(cache, a.slot);
  counted(1, 0);
  land(a.slot, NULL, 0);
  counted(1, 0);
  a = ask("a", 1000);
  key_cache_unpin(cache, a.slot);
  land(a.slot, make(1), 1000);
  counted(1, 1);
}

Test(key_cache, nothing_is_begun_while_the_server_is_away) {
  struct key_question q = of("a");
  struct key_ask a = key_cache_ask(cache, &q, 0, false);
  expect(a, KEY_REFUSED, false);
  cr_assert_null(a.slot);
  counted(0, 0); // and no place is taken
}

Test(key_cache, every_part_of_a_question_counts) {
  struct key_question q[6] = {of("a"), of("a"), of("a"), of("a"), of("a"), of("b")};
  struct key_cache *big = key_cache_new(100);
  q[1].server = 8;
  q[2].epoch = 2;
  q[3].systems = 1;
  q[4].scheme = SCHEME_CENC;
  for (int i = 0; i < 6; i++) {
    struct key_ask a = key_cache_ask(big, &q[i], 0, true);
    cr_assert(a.fetch, "%d", i);
    key_cache_unpin(big, a.slot);
    key_cache_landed(big, a.slot, NULL, &times, 100, 0, 0, 0);
  }
  q[0].num_labels = 2;
  struct key_ask a = key_cache_ask(big, &q[0], 0, true);
  cr_assert(a.fetch);
  key_cache_unpin(big, a.slot);
  key_cache_landed(big, a.slot, NULL, &times, 100, 0, 0, 0);
  key_cache_free(big);
}

Test(key_cache, one_key_whatever_systems_and_labels_are_asked_for) {
  struct key_question q[4] = {of("a"), of("a"), of("a"), of("a")};
  struct key_cache *big = key_cache_new(100);
  struct key_ask a[4];
  q[1].systems = 1;
  q[2].num_labels = 2;
  q[3].epoch = 2;
  for (int i = 0; i < 4; i++) {
    a[i] = key_cache_ask(big, &q[i], 0, true);
    cr_assert(a[i].fetch, "%d", i);
    key_cache_unpin(big, a[i].slot);
  }
  struct key_record fresh[2] = {{.scheme = SCHEME_CBCS, .epoch = 1, .kid = {1}, .key = {6}, .iv = {2}, .has_iv = true, .asset = BYTES_LIT("asset")},
                                {.scheme = SCHEME_CBCS, .epoch = 1, .kid = {3}, .key = {4}, .asset = BYTES_LIT("asset")}};
  cr_assert(key_cache_agrees(big, a[1].slot, fresh, 1), "nothing is there yet");
  struct key_record first = fresh[0];
  struct issued *i = issued_new(big, &first, 1);
  key_cache_landed(big, a[0].slot, i, &times, 100, 0, 0, 0);
  for (int n = 0; n < 3; n++)
    cr_assert(key_cache_agrees(big, a[n].slot, fresh, q[n].num_labels), "the same, %d", n);
  fresh[1].key[0] = 5;
  cr_assert(key_cache_agrees(big, a[2].slot, fresh, 2), "another label is not known yet");
  fresh[0].key[0] = 7;
  for (int n = 0; n < 3; n++)
    cr_assert_not(key_cache_agrees(big, a[n].slot, fresh, q[n].num_labels), "another, %d", n);
  cr_assert(key_cache_agrees(big, a[3].slot, fresh, 1), "in another epoch");
  fresh[0].key[0] = 6, fresh[0].has_iv = false;
  cr_assert_not(key_cache_agrees(big, a[1].slot, fresh, 1), "without an IV");
  fresh[0].has_iv = true, fresh[0].iv[15] = 1;
  cr_assert_not(key_cache_agrees(big, a[1].slot, fresh, 1), "with another IV");
  fresh[0].iv[15] = 0, fresh[0].kid[0] = 2;
  cr_assert_not(key_cache_agrees(big, a[1].slot, fresh, 1), "under another KID");
  fresh[0].kid[0] = 1;
  struct key_record both[2] = {fresh[0], fresh[1]};
  key_cache_landed(big, a[2].slot, issued_new(big, both, 2), &times, 100, 0, 0, 0);
  cr_assert(key_cache_agrees(big, a[2].slot, fresh, 2));
  fresh[1].key[0] = 4;
  cr_assert_not(key_cache_agrees(big, a[2].slot, fresh, 2), "another for the second label");
  for (int n = 1; n < 4; n += 2)
    key_cache_landed(big, a[n].slot, NULL, &times, 100, 0, 0, 0);
  key_cache_free(big);
}

Test(key_cache, bounded_the_least_used_leave_but_none_that_is_in_use) {
  static const char *const names[] = {"a", "b", "c", "d"};
  struct key_ask flying = ask("a", 0);
  for (int i = 1; i < 4; i++) {
    struct key_ask a = ask(names[i], 0);
    key_cache_unpin(cache, a.slot);
    land(a.slot, make((uint8_t)i), 0);
  }
  struct key_ask held = ask("b", 1); // and so "c" is the least lately used that may go
  struct key_ask e = ask("e", 2);
  expect(e, KEY_FLYING, true);
  counted(4, 2); // two are being fetched
  cr_assert_eq(held.issued->records[0].key[0], 1);
  expect(ask("b", 3), KEY_HIT, false);
  expect(ask("d", 3), KEY_HIT, false);
  struct key_ask more[2] = {ask("f", 4), ask("g", 4)}; // in the places of b and d
  expect(more[0], KEY_FLYING, true);
  expect(more[1], KEY_FLYING, true);
  cr_assert_eq(held.issued->records[0].key[0], 1, "what is held stays");
  expect(ask("h", 5), KEY_FULL, false);
  issued_drop(held.issued);
  struct key_ask all[] = {flying, e, more[0], more[1]};
  for (int i = 0; i < 4; i++) {
    key_cache_unpin(cache, all[i].slot);
    land(all[i].slot, NULL, 9);
  }
}

// Memory for secrets is locked, of which there is little: what is dropped is used again, all of it.
Test(key_cache, places_of_keys_are_used_again) {
  struct issued *i[3];
  struct key_record *was[3];
  for (int k = 0; k < 3; k++) {
    i[k] = make((uint8_t)k);
    was[k] = i[k]->records;
  }
  for (int k = 0; k < 3; k++) {
    was[k]->key[15] = 1;
    issued_drop(i[k]);
    for (int n = 0; n < 16; n++)
      cr_expect_eq(was[k]->key[n], 0, "the key is wiped");
  }
  for (int k = 0; k < 3; k++) {
    i[k] = make((uint8_t)k);
    cr_expect(i[k]->records == was[0] || i[k]->records == was[1] || i[k]->records == was[2], "%d has a new place", k);
    cr_expect(!k || i[k]->records != i[k - 1]->records);
  }
  for (int k = 0; k < 3; k++)
    issued_drop(i[k]);
}

Test(key_cache, who_has_waited_holds_no_place) {
  static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
  struct key_wait w[8] = {0};
  for (int k = 0; k < 8; k++) { // twice as many as there are places
    w[k].ready = on_ready;
    struct key_ask a = ask(names[k], 0);
    expect(a, KEY_FLYING, true);
    cr_assert(key_cache_park(cache, a.slot, &w[k]));
    land(a.slot, make(1), 0);
  }
  counted(4, 4);
}

static _Atomic unsigned fetches, answers;

static void *crowd(void *arg) {
  for (uint64_t now = 0; now < 20000; now += 7) {
    struct key_question q = of(now % 2 ? "x" : "y");
    struct key_ask a = key_cache_ask(arg, &q, now, true);
    if (a.got == KEY_FLYING)
      key_cache_unpin(arg, a.slot);
    if (a.fetch) {
      atomic_fetch_add(&fetches, 1);
      key_cache_landed(arg, a.slot, now % 3 ? make(5) : NULL, &times, 1, 0, now, (uint8_t)now);
    }
    if (a.issued) {
      cr_assert_eq(a.issued->records[0].key[0], 5);
      atomic_fetch_add(&answers, 1);
    }
    issued_drop(a.issued);
  }
  return NULL;
}

Test(key_cache, threads) {
  pthread_t t[4];
  for (int i = 0; i < 4; i++)
    pthread_create(&t[i], NULL, crowd, cache);
  for (int i = 0; i < 4; i++)
    pthread_join(t[i], NULL);
  cr_assert(atomic_load(&fetches) && atomic_load(&answers));
}
