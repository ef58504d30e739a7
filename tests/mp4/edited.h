// Good files that are changed by hand. A header, so that each file of tests/mp4/test_edges_*.c has its own.
#pragma once

#include <criterion/criterion.h>
#include <stdlib.h>

#include "mp4/index.h"
#include "rewrite.h"
#include "synth.h"

// A file that boxes are put into and taken out of.
struct text {
  uint8_t p[1 << 18];
  size_t n;
};

static inline size_t find(const struct text *t, const char *type, size_t from) {
  for (size_t i = from + 4; i + 4 <= t->n; i++)
    if (!memcmp(t->p + i, type, 4))
      return i - 4;
  cr_assert_fail("no %s", type);
  return 0;
}

// Replaces bytes; the boxes around them, the first ones of the types that `up` lists, get their new sizes.
static inline void splice(struct text *t, size_t at, size_t del, struct bytes put, const char *up) {
  for (; *up; up += up[4] ? 5 : 4) {
    size_t box = find(t, (char[5]){up[0], up[1], up[2], up[3]}, 0);
    store_be32(t->p + box, (uint32_t)(load_be32(t->p + box) + put.n - del));
  }
  cr_assert_leq(t->n + put.n, sizeof t->p);
  memmove(t->p + at + put.n, t->p + at + del, t->n - at - del);
  if (put.n)
    memcpy(t->p + at, put.p, put.n);
  t->n += put.n - del;
}

static inline void make(struct text *t, const struct synth_options *o) {
  struct synth s;
  synth_make(&s, o);
  cr_assert_leq(s.len, sizeof t->p);
  memcpy(t->p, s.file, s.len);
  t->n = s.len;
  synth_free(&s);
}

static inline void add32(struct text *t, size_t at, int32_t by) { store_be32(t->p + at, load_be32(t->p + at) + (uint32_t)by); }

// ix_build and rewrite_check of a file.
static inline enum err index_of(const struct text *t, struct diag *d) {
  struct bytes file = bytes_of(t->p, t->n), blob;
  struct mp4_source src = memory_source(&file, NULL, 0);
  struct alloc_heap heap;
  struct track_index ix;
  *d = (struct diag){0};
  alloc_heap_init(&heap, 1 << 26);
  enum err e = ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, d);
  if (!e) {
    cr_assert_eq(ix_open(&ix, blob, d), ERR_OK, "%s", d->what);
    const char *bad = rewrite_check(&ix, file);
    cr_expect_null(bad, "%s", bad);
  }
  alloc_heap_free(&heap);
  return e;
}

static const struct synth_options small = {.num_frags = 2, .samples_per_trun = 4, .min_size = 40, .max_size = 60};
