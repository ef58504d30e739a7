// Sizes up to their limits, in sources of gigabytes that are mostly holes; sources that change while they are read.
#include "edited.h"

#include "mp4/limits.h"
#include "mp4/window.h"

// A file with zeros, which nothing stores, from `hole` on.
struct sparse {
  const struct text *t;
  uint64_t hole, len;
};

static enum err sparse_read(void *ctx, uint64_t off, void *buf, size_t n) {
  const struct sparse *s = ctx;
  for (size_t i = 0; i < n; i++, off++)
    ((uint8_t *)buf)[i] = off < s->hole ? s->t->p[off] : off < s->hole + s->len ? 0 : s->t->p[off - s->len];
  return ERR_OK;
}

// In parts where part_ends is not NULL.
static enum err index_sparse_parts(struct sparse s, const uint64_t *part_ends, uint32_t num_parts, struct diag *d) {
  struct mp4_source src = {.ctx = &s, .read = sparse_read, .size = s.t->n + s.len, .part_ends = part_ends, .num_parts = num_parts};
  struct alloc_heap heap;
  struct bytes blob;
  *d = (struct diag){0};
  alloc_heap_init(&heap, 1 << 28);
  enum err e = ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, d);
  alloc_heap_free(&heap);
  return e;
}

static enum err index_sparse(struct sparse s, struct diag *d) { return index_sparse_parts(s, NULL, 0, d); }

static const struct synth_options single = {.num_frags = 1, .samples_per_trun = 1, .min_size = 64, .max_size = 64};
enum { ROOM = IX_MAX_TRAF_GROWTH + IX_MAX_SAMPLE_GROWTH }; // for the protection of one sample

// The data offset of the last byte of 2 GiB, less what a protection adds before it.
Test(edges, data_far_behind_its_moof) {
  static struct text t;
  struct diag d;
  for (uint32_t more = 0; more < 2; more++) {
    make(&t, &single);
    size_t mdat = find(&t, "mdat", 0), offset = find(&t, "trun", 0) + 16;
    uint32_t by = (uint32_t)(INT32_MAX - ROOM) - load_be32(t.p + offset) + more;
    add32(&t, offset, (int32_t)by);
    add32(&t, mdat, (int32_t)by);
    enum err want = more ? ERR_LIMIT : ERR_OK;
    cr_expect_eq(index_sparse((struct sparse){&t, mdat + 8, by}, &d), want, "%u: %s", more, d.what);
  }
}

Test(edges, data_far_before_its_moof) {
  static struct text t;
  struct diag d;
  make(&t, &(struct synth_options){.num_frags = 1, .samples_per_trun = 1, .min_size = 64, .max_size = 64, .mdat_first = true, .base = SYNTH_BASE_ABSOLUTE});
  size_t mdat = find(&t, "mdat", 0), moof = find(&t, "moof", 0);
  for (uint32_t more = 0; more < 2; more++) {
    uint32_t by = (uint32_t)INT32_MAX + 1 - (uint32_t)(moof - mdat - 8) + more;
    struct text far = t;
    add32(&far, mdat, (int32_t)by);
    enum err want = more ? ERR_LIMIT : ERR_OK;
    cr_expect_eq(index_sparse((struct sparse){&far, moof, by}, &d), want, "%u: %s", more, d.what);
  }
}

Test(edges, a_fragment_of_4_gib) {
  static struct text t;
  struct diag d;
  for (uint32_t more = 0; more < 2; more++) {
    make(&t, &single);
    size_t mdat = find(&t, "mdat", 0), moof = find(&t, "moof", 0);
    uint32_t by = UINT32_MAX - (uint32_t)ROOM - (uint32_t)(t.n - moof) + more;
    add32(&t, mdat, (int32_t)by);
    enum err want = more ? ERR_LIMIT : ERR_OK;
    cr_expect_eq(index_sparse((struct sparse){&t, t.n, by}, &d), want, "%u: %s", more, d.what);
  }
}

Test(edges, a_sample_of_16_mib) {
  static struct text t;
  struct diag d;
  for (uint32_t more = 0; more < 2; more++) {
    make(&t, &single);
    store_be32(t.p + find(&t, "trun", 0) + 20, (uint32_t)IX_MAX_SAMPLE + more);
    add32(&t, find(&t, "mdat", 0), IX_MAX_SAMPLE);
    enum err want = more ? ERR_LIMIT : ERR_OK;
    cr_expect_eq(index_sparse((struct sparse){&t, t.n, IX_MAX_SAMPLE}, &d), want, "%u: %s", more, d.what);
  }
}

Test(edges, a_moof_of_256_mib) {
  static struct text t;
  struct diag d;
  make(&t, &single);
  size_t moof = find(&t, "moof", 0), end = moof + load_be32(t.p + moof);
  uint32_t by = LIMIT_MOOF + 1 - (uint32_t)(end - moof);
  add32(&t, moof, (int32_t)by);
  cr_expect_eq(index_sparse((struct sparse){&t, end, by}, &d), ERR_LIMIT);
  cr_expect_not_null(strstr(d.what, "moof is too long"), "%s", d.what);
}

// Boxes that are dropped belong to a fragment, and are no longer than that may be.
Test(edges, a_sidx_of_4_gib) {
  static struct text t;
  struct diag d;
  make(&t, &single);
  size_t moof = find(&t, "moof", 0);
  splice(&t, moof, 0, BYTES_LIT("\0\0\0\1sidx\0\0\0\1\0\0\0\0"), "");
  cr_expect_eq(index_sparse((struct sparse){&t, moof + 16, (1ull << 32) - 16}, &d), ERR_LIMIT);
}

// All of a folder's init.mp4 is kept, what stands behind moov too.
Test(edges, an_init_segment_of_16_mib) {
  static struct text t;
  struct diag d;
  for (uint32_t more = 0; more < 2; more++) {
    make(&t, &single);
    size_t moof = find(&t, "moof", 0);
    uint32_t len = (uint32_t)IX_MAX_INIT - (uint32_t)moof + more;
    uint8_t head[8] = "\0\0\0\0free";
    store_be32(head, len);
    splice(&t, moof, 0, bytes_of(head, 8), "");
    const uint64_t ends[] = {moof + len, t.n + len - 8};
    enum err want = more ? ERR_LIMIT : ERR_OK;
    cr_expect_eq(index_sparse_parts((struct sparse){&t, moof + 8, len - 8}, ends, 2, &d), want, "%u: %s", more, d.what);
  }
}

// An mdat without data belongs to the fragment that it stands behind, one with data that nobody names to the next.
Test(edges, an_mdat_between_fragments) {
  for (int data = 0; data < 2; data++) {
    static struct text t;
    struct alloc_heap heap;
    struct track_index ix;
    struct bytes blob, put = data ? BYTES_LIT("\0\0\0\x09mdat\0") : BYTES_LIT("\0\0\0\x08mdat");
    struct diag d = {0};
    make(&t, &small);
    size_t moof = find(&t, "moof", find(&t, "mdat", 0));
    splice(&t, moof, 0, put, "");
    struct bytes file = bytes_of(t.p, t.n);
    struct mp4_source src = memory_source(&file, NULL, 0);
    alloc_heap_init(&heap, 1 << 26);
    cr_assert_eq(ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &d), ERR_OK, "%s", d.what);
    cr_assert_eq(ix_open(&ix, blob, &d), ERR_OK);
    cr_expect_eq(ix.frags[1].src_off, data ? moof : moof + put.n);
    alloc_heap_free(&heap);
  }
}

// Each of two truns has few enough samples, both together too many.
Test(edges, how_many_samples_a_fragment_may_have) {
  static struct text t;
  struct diag d;
  make(&t, &(struct synth_options){.num_frags = 1, .samples_per_trun = 1, .truns_per_traf = 2, .min_size = 1, .max_size = 1, .sizes = SYNTH_SIZES_TREX});
  uint32_t half = (uint32_t)IX_MAX_FRAG_SAMPLES / 2 + 1;
  size_t one = find(&t, "trun", 0), two = find(&t, "trun", one + 8);
  store_be32(t.p + one + 12, half);
  store_be32(t.p + two + 12, half);
  add32(&t, two + 16, (int32_t)half);
  add32(&t, find(&t, "mdat", 0), (int32_t)(2 * half));
  cr_expect_eq(index_sparse((struct sparse){&t, t.n, 2 * half}, &d), ERR_LIMIT, "%s", d.what);
}

// A source that is another one when it is read from its start for the second time.
struct changing {
  const struct text *first, *then;
  uint32_t starts;
};

static enum err changing_read(void *ctx, uint64_t off, void *buf, size_t n) {
  struct changing *c = ctx;
  c->starts += off == 0;
  memcpy(buf, (c->starts > 1 ? c->then : c->first)->p + off, n);
  return ERR_OK;
}

static void changes(const struct text *first, const struct text *then, const char *how) {
  struct changing c = {first, then, 0};
  struct mp4_source src = {.ctx = &c, .read = changing_read, .size = first->n};
  struct alloc_heap heap;
  struct bytes blob;
  struct diag d = {0};
  cr_assert_eq(first->n, then->n);
  cr_assert_gt(first->n, 8192); // more than what is read at once
  alloc_heap_init(&heap, 1 << 26);
  enum err e = ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &d);
  cr_expect_eq(e, ERR_STALE, "%s: %s %s", how, err_name(e), d.what);
  alloc_heap_free(&heap);
}

Test(edges, a_source_that_changes_while_it_is_read) {
  static struct text a, b;
  struct synth_options o = {.num_frags = 3, .samples_per_trun = 20, .truns_per_traf = 2, .min_size = 100, .max_size = 100, .gap = 500};
  size_t trun;
  make(&a, &o);
  b = a;
  trun = find(&b, "trun", 0);
  store_be32(b.p + trun + 20, 70000);
  changes(&a, &b, "a sample's size");
  b = a; // the second run of each fragment follows the first at once, or with a gap
  trun = find(&b, "trun", find(&b, "trun", 0) + 8);
  store_be32(b.p + trun + 16, load_be32(b.p + find(&b, "trun", 0) + 16) + 2000);
  changes(&a, &b, "fewer runs");
  changes(&b, &a, "more runs");
  o.sizes = SYNTH_SIZES_TFHD;
  make(&a, &o);
  b = a;
  store_be32(b.p + find(&b, "tfhd", 0) + 16, 70000);
  changes(&a, &b, "a default size");
  b = a;
  for (size_t at = 0, n = 0; n < 3; n++, at += 8) { // the last fragment's second trun
    at = find(&b, "trun", at);
    at = trun = find(&b, "trun", at + 8);
  }
  add32(&b, trun + 12, -1);
  changes(&a, &b, "fewer samples");
  changes(&b, &a, "more samples");
  o.free_boxes = true;
  make(&a, &o);
  b = a;
  memcpy(b.p + find(&b, "free", find(&b, "moof", 0)) + 4, "ssix", 4);
  changes(&a, &b, "more edits");
  changes(&b, &a, "fewer edits");
  splice(&a, a.n, 0, BYTES_LIT("\0\0\0\x08" "free"), "");
  b = a;
  memcpy(b.p + b.n - 4, "moof", 4);
  changes(&a, &b, "more fragments");
  changes(&b, &a, "fewer fragments");
  make(&a, &(struct synth_options){.num_frags = 1, .samples_per_trun = 40000, .min_size = 1, .max_size = 1});
  b = a;
  memcpy(a.p + find(&a, "trun", 0) + 4, "free", 4);
  changes(&a, &b, "no samples, then many");
}
