// The rotation journal, as the server reads it at its start: each good line counts once, what is cut off behind the last good
// one is no more than one line, which a crash has torn. A journal that a crash cut anywhere in its last line is read, and says
// what it said before that line. Written whole and read again every epoch is what it was. Reading is internal to
// src/server/epoch_store.c, so that file is part of this one. Source: keys/epochs.h (the lines).
// Checksums are repaired: of a line whose last word has 16 digits it is what its other words make it, as long as bit 0 of the
// first byte of the input is not set.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "server/epoch_store.c" // NOLINT(bugprone-suspicious-include)

#include <stdio.h>

#include "fuzz.h"

enum { MEMORY = 64 << 20, CHECKSUM = 16 };

// What a text comes to.
struct outcome {
  struct epoch_store s;
  uint64_t whole;
  unsigned line;
  enum err e;
};

static void read_text(struct outcome *o, struct bytes text) {
  struct diag d = {0};
  *o = (struct outcome){0};
  alloc_heap_init(&o->s.mem, MEMORY);
  o->s.rules = epochs_new(&o->s.mem.base, 1);
  MUST(o->s.rules);
  o->e = replay(&o->s, text, &o->whole, &o->line, &d);
  MUST(o->whole <= text.n);
  MUST(o->line == o->s.lines + (o->whole < text.n));
  const uint8_t *end = o->whole < text.n ? memchr(text.p + o->whole, '\n', text.n - o->whole) : NULL;
  MUST(o->e ? d.err == o->e : !end || end + 1 == text.p + text.n);
}

static void forget(struct outcome *o) { alloc_heap_free(&o->s.mem); }

static struct bytes written(struct outcome *o) {
  struct writer w = wr_of(NULL, 0);
  if (epochs_write_all(&w, o->s.rules, 1000, &o->s.mem.base))
    return (struct bytes){0};
  uint8_t *p = o->s.mem.base.get(&o->s.mem.base, w.n + 1);
  MUST(p);
  struct writer out = wr_of(p, w.n);
  MUST(!epochs_write_all(&out, o->s.rules, 1000, &o->s.mem.base));
  return bytes_of(p, out.n);
}

// Of the lines, in whatever order.
static uint64_t sum_of(struct bytes text) {
  uint64_t sum = 0;
  for (size_t at = 0, n; at < text.n; at += n) {
    n = (size_t)((const uint8_t *)memchr(text.p + at, '\n', text.n - at) - (text.p + at)) + 1;
    sum += XXH3_64bits(text.p + at, n);
  }
  return sum;
}

static void check_cut(struct bytes text, const struct outcome *all, uint32_t seed) {
  size_t start = text.n; // of the last line
  while (start && (start == text.n || text.p[start - 1] != '\n'))
    start--;
  static struct outcome before, cut;
  read_text(&before, bytes_of(text.p, start));
  MUST(!before.e && before.whole == start && before.s.lines + 1 == all->s.lines);
  size_t n = text.n - start - 1;
  read_text(&cut, bytes_of(text.p, start + seed % (n + 1)));
  MUST(!cut.e && cut.whole >= start);
  if (cut.whole == start)
    MUST(sum_of(written(&before)) == sum_of(written(&cut)));
  forget(&before);
  forget(&cut);
}

static void check_same(const struct epochs *a, const struct epochs *b, struct bytes asset) {
  uint32_t now = epochs_current(a, asset);
  MUST(epochs_next_seq(a) == epochs_next_seq(b) && epochs_current(b, asset) == now && now >= 1);
  for (uint32_t k = now > 8 ? now - 8 : 1; k <= now + 1; k++) {
    uint64_t until_a = 0, until_b = 0;
    enum epoch_status is = epochs_status(a, asset, k, 1000, &until_a), other = epochs_status(b, asset, k, 1000, &until_b);
    MUST(is == other ? until_a == until_b : is == EPOCH_REVOKED && other == EPOCH_EXPIRED);
  }
}

static void repair(uint8_t *p, size_t n) {
  for (size_t at = 0, len; at < n; at += len) {
    const uint8_t *end = memchr(p + at, '\n', n - at);
    len = end ? (size_t)(end - (p + at)) + 1 : n - at;
    size_t text = len - (end != NULL);
    if (text <= CHECKSUM || p[at + text - CHECKSUM - 1] != ' ')
      continue;
    char hex[CHECKSUM + 1];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)XXH3_64bits(p + at, text - CHECKSUM));
    memcpy(p + at + text - CHECKSUM, hex, CHECKSUM);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct outcome o, again;
  if (size < 2)
    return 0;
  size_t n = size - 1;
  uint8_t *text = malloc(n);
  MUST(text);
  memcpy(text, data + 1, n);
  if (!(data[0] & 1))
    repair(text, n);
  read_text(&o, bytes_of(text, n));
  if (!o.e && o.whole && o.whole == n)
    check_cut(bytes_of(text, n), &o, data[0] >> 1);
  struct bytes out = written(&o);
  read_text(&again, out);
  MUST(!again.e && again.whole == out.n && sum_of(out) == sum_of(written(&again)));
  static const struct bytes assets[] = {BYTES_LIT("a/b"), BYTES_LIT("a/ b"), BYTES_LIT("a/b/c"), BYTES_LIT("x")};
  for (size_t i = 0; i < sizeof assets / sizeof *assets; i++)
    check_same(o.s.rules, again.s.rules, assets[i]);
  forget(&o);
  forget(&again);
  free(text);
  return 0;
}
