// Fragments that no preset of synth.c has: their boxes, where their data stands, times that do not ascend.
#include "edited.h"

#include "mp4/frag.h"
#include "mp4/init.h"
#include "mp4/limits.h"
#include "mp4/window.h"

// A moof of one traf that `boxes` fill, over data at its end.
static enum err parse_moof(struct frag_moof *m, struct frag_samples *s, struct alloc_heap *heap, struct bytes in_moof, struct bytes in_traf,
                           uint64_t next_time, struct diag *d) {
  static uint8_t moof[1 << 18];
  memcpy(moof + 4, "moof", 4);
  memcpy(moof + 8, in_moof.p, in_moof.n);
  size_t traf = 8 + in_moof.n, n = traf + 8 + in_traf.n;
  memcpy(moof + traf + 4, "traf", 4);
  memcpy(moof + traf + 8, in_traf.p, in_traf.n);
  store_be32(moof, (uint32_t)n);
  store_be32(moof + traf, (uint32_t)(n - traf));
  struct frag_defaults defaults = {.track_id = 1, .num_entries = 1, .description_index = 1, .sample_duration = 10, .sample_size = 4};
  *m = (struct frag_moof){0};
  *s = (struct frag_samples){0};
  *d = (struct diag){0};
  alloc_heap_init(heap, 1 << 22);
  return frag_parse(m, s, &heap->base, &defaults, bytes_of(moof, n), (struct frag_place){.source_len = 1 << 20, .next_time = next_time}, d);
}

#define TFHD "\0\0\0\x10tfhd\0\2\0\0\0\0\0\1"
#define TFHD_LASTS(ticks) "\0\0\0\x14tfhd\0\2\0\x08\0\0\0\1\0\0\0" ticks
#define TFDT "\0\0\0\x10tfdt\0\0\0\0\0\0\0\5"
#define TRUN(num) "\0\0\0\x14trun\0\0\0\1\0\0\0" num "\0\x0f\0\0"
#define TRAF "\0\0\0\x3ctraf" TFHD TFDT "\0\0\0\x14trun\0\0\0\1\0\0\0\1\0\x0e\0\0"
#define LATE_TRAF(end) \
  "\0\0\0\x40traf" TFHD "\0\0\0\x14tfdt\1\0\0\0\xff\xff\xff\xff\xff\xff\xff" end "\0\0\0\x14trun\0\0\0\1\0\0\0\1\0\x0e\0\0"
#define PIFF "\xa2\x39\x4f\x52\x5a\x9b\x4f\x14\xa2\x44\x6c\x42\x7c\x64\x8d\xf4"

Test(edges, trafs) {
  static const struct {
    struct bytes in_moof, in_traf;
    enum err want;
    int64_t delta;
  } rows[] = {
      {BYTES_LIT(""), BYTES_LIT(TFHD TFDT TRUN("\1")), ERR_OK, 0},
      {BYTES_LIT(""), BYTES_LIT(TFHD TFHD TFDT TRUN("\1")), ERR_MALFORMED, 0},
      {BYTES_LIT(""), BYTES_LIT(TFHD TFDT TFDT TRUN("\1")), ERR_MALFORMED, 0},
      {BYTES_LIT(""), BYTES_LIT(TFHD TFDT "\0\0\0\x14trun\2\0\0\1\0\0\0\1\0\0\x10\0"), ERR_UNSUPPORTED, 0},
      {BYTES_LIT(""), BYTES_LIT("\0\0\0\x11tfhd\0\2\0\0\0\0\0\1\0" TFDT TRUN("\1")), ERR_MALFORMED, 0}, // a byte too many
      {BYTES_LIT(""), BYTES_LIT(TFHD "\0\0\0\x14sbgp\0\0\0\0seig\0\0\0\0" TRUN("\1")), ERR_PROTECTED, 0},
      {BYTES_LIT(""), BYTES_LIT(TFHD "\0\0\0\x14sgpd\0\0\0\0seig\0\0\0\0" TRUN("\1")), ERR_PROTECTED, 0},
      {BYTES_LIT(""), BYTES_LIT(TFHD TRUN("\1") "\0\0\0\x20uuid" PIFF "\0\0\0\0\0\0\0\0"), ERR_PROTECTED, 0},
      {BYTES_LIT(""), BYTES_LIT(TFHD TRUN("\1") "\0\0\0\x19saiz\0\0\0\1" "cens\0\0\0\0\x8\0\0\0\1"), ERR_PROTECTED, 0},
      {BYTES_LIT(""), BYTES_LIT("\0\0\0\x14tfhd\0\2\0\2\0\0\0\1\0\0\0\1" TFDT TRUN("\1")), ERR_OK, 0},
      {BYTES_LIT(""), BYTES_LIT("\0\0\0\x14tfhd\0\2\0\2\0\0\0\1\0\0\0\0" TFDT TRUN("\1")), ERR_MALFORMED, 0}, // no description
      {BYTES_LIT(TRAF), BYTES_LIT(TFHD "\0\0\0\x14tfdt\1\0\0\0\xff\xff\xff\xff\xff\xff\xff\xf5" TRUN("\1")), ERR_OK, 0}, // 10 ticks
      {BYTES_LIT(TRAF), BYTES_LIT(TFHD "\0\0\0\x14tfdt\1\0\0\0\xff\xff\xff\xff\xff\xff\xff\xf6" TRUN("\1")), ERR_OVERFLOW, 0},
      {BYTES_LIT(LATE_TRAF("\xeb")), BYTES_LIT(TFHD TFDT TRUN("\1")), ERR_OK, 0}, // the times of both, from the first one's
      {BYTES_LIT(LATE_TRAF("\xec")), BYTES_LIT(TFHD TFDT TRUN("\1")), ERR_OVERFLOW, 0},
      {BYTES_LIT("\0\0\0\x0cpssh\0\0\0\0"), BYTES_LIT(TFHD TFDT TRUN("\1")), ERR_OK, -12},
      {BYTES_LIT("\0\0\0\x0c" "free\0\0\0\0"), BYTES_LIT(TFHD TRUN("\1")), ERR_OK, 20}, // a tfdt is inserted
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct alloc_heap heap;
    struct frag_moof m;
    struct frag_samples s;
    struct diag d;
    enum err e = parse_moof(&m, &s, &heap, rows[i].in_moof, rows[i].in_traf, 0, &d);
    cr_expect_eq(e, rows[i].want, "row %zu: %s %s", i, err_name(e), d.what);
    if (!e) {
      const struct ix_edit *size = m.edits.p;
      cr_expect_eq(m.delta, rows[i].delta, "row %zu: %lld", i, (long long)m.delta);
      cr_expect_eq((int64_t)size->value, 8 + 8 + (int64_t)(rows[i].in_moof.n + rows[i].in_traf.n) + m.delta, "row %zu: moof's size", i);
    }
    alloc_heap_free(&heap);
  }
}

// Whether a fragment begins with a sync sample: by trex, which says yes here, by tfhd, or by its first trun with samples, which may
// say it of each sample or of the first. ISO/IEC 14496-12 8.8.3.1, 8.8.7, 8.8.8.
Test(edges, first_samples) {
#define YES "\2\0\0\0"
#define NOT "\1\1\0\0"
#define TFHD_SAYS(flags) "\0\0\0\x14tfhd\0\2\0\x20\0\0\0\1" flags
#define TRUN_SAYS(flags) "\0\0\0\x18trun\0\0\0\5\0\0\0\1\0\x0f\0\0" flags
#define TRUN_EACH(first, second) \
  "\0\0\0\x34trun\0\0\x0f\1\0\0\0\2\0\x0e\0\0" "\0\0\0\x0a\0\0\0\4" first "\0\0\0\0" "\0\0\0\x0a\0\0\0\4" second "\0\0\0\0"
  static const struct {
    struct bytes in_traf;
    bool not_sync;
  } rows[] = {
      {BYTES_LIT(TFHD TFDT TRUN("\1")), false},
      {BYTES_LIT(TFHD_SAYS(NOT) TFDT TRUN("\1")), true},
      {BYTES_LIT(TFHD_SAYS(NOT) TFDT TRUN_SAYS(YES)), false},
      {BYTES_LIT(TFHD_SAYS(YES) TFDT TRUN_SAYS(NOT)), true},
      {BYTES_LIT(TFHD TFDT TRUN_EACH(NOT, YES)), true},
      {BYTES_LIT(TFHD TFDT TRUN_EACH(YES, NOT)), false},
      {BYTES_LIT(TFHD TFDT "\0\0\0\x14trun\0\0\0\4\0\0\0\0" NOT TRUN("\1")), false}, // of no sample
      {BYTES_LIT(TFHD TFDT TRUN("\1") "\0\0\0\x14trun\0\0\0\4\0\0\0\1" NOT), false}, // of the second
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct alloc_heap heap;
    struct frag_moof m;
    struct frag_samples s;
    struct diag d;
    enum err e = parse_moof(&m, &s, &heap, BYTES_LIT(""), rows[i].in_traf, 0, &d);
    cr_expect_eq(e, ERR_OK, "row %zu: %s %s", i, err_name(e), d.what);
    cr_expect_eq(m.not_sync, rows[i].not_sync, "row %zu", i);
    alloc_heap_free(&heap);
  }
}

Test(edges, an_inserted_tfdt_has_64_bits) {
  struct alloc_heap heap;
  struct frag_moof m;
  struct frag_samples s;
  struct diag d;
  uint32_t high = 0, low = 0;
  cr_assert_eq(parse_moof(&m, &s, &heap, BYTES_LIT(""), BYTES_LIT(TFHD TRUN("\1")), 0x300000007, &d), ERR_OK);
  const struct ix_edit *e = m.edits.p;
  for (uint32_t k = 0; k + 3 < m.edits.num; k++)
    if (e[k].kind == IX_WORD && e[k].value == FOURCC('t', 'f', 'd', 't'))
      high = e[k + 2].value, low = e[k + 3].value;
  cr_expect(high == 3 && low == 7, "%u %u", high, low);
  alloc_heap_free(&heap);
}

// Of 3 samples that last 10, 4 that last 20 and 2 that last 10, most last 10.
Test(edges, the_most_frequent_duration) {
  struct alloc_heap heap;
  struct frag_moof m;
  struct frag_samples s;
  struct diag d;
  cr_assert_eq(parse_moof(&m, &s, &heap, BYTES_LIT("\0\0\0\x30traf" TFHD_LASTS("\xa") TRUN("\3") "\0\0\0\x30traf" TFHD_LASTS("\x14") TRUN("\4")),
                          BYTES_LIT(TFHD TRUN("\2")), 0, &d),
               ERR_OK, "%s", d.what);
  cr_expect_eq(s.duration, 10);
  alloc_heap_free(&heap);
  cr_assert_eq(parse_moof(&m, &s, &heap, BYTES_LIT(""),
                          BYTES_LIT(TFHD_LASTS("\x14") TFDT TRUN("\4") "\0\0\0\x20trun\0\0\1\1\0\0\0\3\0\x0f\0\0\0\0\0\xa\0\0\0\xa\0\0\0\xa"), 0, &d),
               ERR_OK, "%s", d.what);
  cr_expect_eq(s.duration, 20);
  alloc_heap_free(&heap);
}

Test(edges, how_many_trafs_a_fragment_may_have) {
  enum { LEN = 8 + sizeof TFHD - 1 + sizeof TRUN("\1") - 1 };
  static uint8_t trafs[IX_MAX_FRAG_TRAFS * LEN];
  for (size_t i = 0; i < IX_MAX_FRAG_TRAFS; i++)
    memcpy(trafs + i * LEN, "\0\0\0\x2ctraf" TFHD TRUN("\1"), LEN);
  for (size_t num = IX_MAX_FRAG_TRAFS - 1; num <= IX_MAX_FRAG_TRAFS; num++) {
    struct alloc_heap heap;
    struct frag_moof m;
    struct frag_samples s;
    struct diag d;
    enum err e = parse_moof(&m, &s, &heap, bytes_of(trafs, num * LEN), BYTES_LIT(TFHD TRUN("\1")), 0, &d), want = num < IX_MAX_FRAG_TRAFS ? ERR_OK : ERR_LIMIT;
    cr_expect_eq(e, want, "%zu: %s", num, d.what);
    alloc_heap_free(&heap);
  }
}

Test(edges, data_beside_its_mdat) {
  static const struct {
    int32_t by; // what is added to the second fragment's data offset
    enum err want;
    const char *what;
  } rows[] = {{0, ERR_OK, ""},
              {-1, ERR_MALFORMED, "outside of mdat"}, // the mdat's head
              {1, ERR_MALFORMED, "outside of mdat"},  // the mdat's end, with a box behind
              {-400, ERR_UNSUPPORTED, "another fragment"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    static struct text t;
    struct diag d;
    make(&t, &small);
    splice(&t, t.n, 0, BYTES_LIT("\0\0\0\x0c" "free\0\0\0\0"), "");
    size_t moof = find(&t, "moof", find(&t, "mdat", 0));
    add32(&t, find(&t, "trun", moof) + 16, rows[i].by);
    enum err e = index_of(&t, &d);
    cr_expect_eq(e, rows[i].want, "row %zu: %s %s", i, err_name(e), d.what);
    cr_expect_not_null(strstr(d.what, rows[i].what), "row %zu: %s", i, d.what);
  }
}

// The second fragment begins when the first does, or before.
Test(edges, times_that_do_not_ascend) {
  static struct text t;
  struct diag d;
  make(&t, &small);
  size_t second = find(&t, "tfdt", find(&t, "mdat", 0)) + 16;
  add32(&t, find(&t, "tfdt", 0) + 16, 4096);
  cr_expect_eq(index_of(&t, &d), ERR_OK, "%s", d.what);
  add32(&t, second, -1);
  cr_expect_eq(index_of(&t, &d), ERR_UNSUPPORTED);
}

// One mdat for each trun, in the order of the truns or not: the last byte of the fragment's data is not that of its last trun.
// A fragment without samples has the time of what follows, and so has the track that begins with it.
Test(edges, an_empty_fragment_first) {
  static struct text t;
  struct diag d;
  make(&t, &small);
  size_t first = find(&t, "tfdt", 0), second = find(&t, "tfdt", first + 8);
  add32(&t, first + 16, 100);
  add32(&t, second + 16, 100);
  splice(&t, find(&t, "moof", 0), 0, BYTES_LIT("\0\0\0\x30moof\0\0\0\x28traf" TFHD TFDT), "");
  cr_expect_eq(index_of(&t, &d), ERR_OK, "%s", d.what);
}

Test(edges, two_mdats_of_one_fragment) {
  for (int reversed = 0; reversed < 2; reversed++) {
    static struct text t;
    struct diag d;
    struct synth_options o = {.num_frags = 2, .samples_per_trun = 1, .truns_per_traf = 2, .min_size = 64, .max_size = 64, .gap = 8, .reversed = reversed};
    make(&t, &o);
    for (size_t at = find(&t, "mdat", 0), n = 0; n < 2; n++) {
      uint32_t first = load_be32(t.p + at) - 8; // payload
      size_t moof = n ? find(&t, "moof", find(&t, "mdat", 0)) : find(&t, "moof", 0);
      uint32_t a = load_be32(t.p + find(&t, "trun", moof) + 16), b = load_be32(t.p + find(&t, "trun", find(&t, "trun", moof) + 8) + 16);
      uint32_t lo = a < b ? a : b, hi = a < b ? b : a;
      cr_assert_eq(hi - lo, 72);
      size_t cut = moof + hi - 8;
      store_be32(t.p + cut, (uint32_t)(at + 8 + first - cut));
      memcpy(t.p + cut + 4, "mdat", 4);
      store_be32(t.p + at, (uint32_t)(cut - at));
      at = n ? at : find(&t, "mdat", find(&t, "moof", moof + 8));
    }
    cr_expect_eq(index_of(&t, &d), ERR_OK, "%d: %s", reversed, d.what);
  }
}

// The first trun's data behind the next moof, the second's before it.
Test(edges, data_behind_the_next_moof) {
  static struct text t;
  struct diag d;
  make(&t, &(struct synth_options){.num_frags = 2, .samples_per_trun = 1, .truns_per_traf = 2, .min_size = 64, .max_size = 64});
  size_t trun = find(&t, "trun", 0), mdat = find(&t, "mdat", find(&t, "moof", find(&t, "mdat", 0)));
  store_be32(t.p + trun + 16, (uint32_t)(mdat + 8 - find(&t, "moof", 0)));
  cr_expect_eq(index_of(&t, &d), ERR_UNSUPPORTED);
  cr_expect_not_null(strstr(d.what, "behind this moof"), "%s", d.what);
}

Test(edges, index_boxes_do_not_come_through) {
  static const char *const types[] = {"sidx", "ssix", "mfra"};
  struct synth s;
  struct diag d = {0};
  struct track_index ix;
  struct alloc_heap heap;
  synth_make(&s, &(struct synth_options){.num_frags = 3, .samples_per_trun = 4, .min_size = 40, .max_size = 60, .sidx_each = true, .ssix = true, .mfra = true});
  struct bytes file = bytes_of(s.file, s.len), blob;
  struct mp4_source src = memory_source(&file, NULL, 0);
  alloc_heap_init(&heap, 1 << 26);
  cr_assert_eq(ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &d), ERR_OK, "%s", d.what);
  cr_assert_eq(ix_open(&ix, blob, &d), ERR_OK);
  struct bytes out = rewrite(&ix, file, NULL);
  for (size_t i = 0; i < 3; i++)
    cr_expect(memmem(file.p, file.n, types[i], 4) && !memmem(out.p, out.n, types[i], 4), "%s", types[i]);
  free((void *)(uintptr_t)out.p);
  alloc_heap_free(&heap);
  synth_free(&s);
}

Test(edges, truns_out_of_order_are_limited) {
  for (uint32_t num = 1 << 13; num <= (1 << 13) + 1; num++) {
    struct synth s;
    struct diag d = {0};
    struct alloc_heap heap;
    synth_make(&s, &(struct synth_options){.num_frags = 1, .samples_per_trun = 1, .truns_per_traf = num, .min_size = 1, .max_size = 1, .reversed = true});
    struct bytes file = bytes_of(s.file, s.len), blob;
    struct mp4_source src = memory_source(&file, NULL, 0);
    alloc_heap_init(&heap, 1 << 26);
    enum err want = num == 1 << 13 ? ERR_OK : ERR_LIMIT;
    cr_expect_eq(ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &d), want, "%u: %s", num, d.what);
    alloc_heap_free(&heap);
    synth_free(&s);
  }
}

// What the data of many truns stands in: item i is the place of trun i's.
enum { SHUFFLED = 2999, ORDERS = 4 };

static void order_of(uint32_t place[SHUFFLED], int order) {
  uint64_t seed = 1;
  for (uint32_t i = 0; i < SHUFFLED; i++)
    place[i] = order == 1 ? SHUFFLED - 1 - i : order == 2 ? (i < SHUFFLED / 2 ? 2 * i + 1 : 2 * (i - SHUFFLED / 2)) : i; // 2: two tracks that take turns
  for (uint32_t i = SHUFFLED; order == 3 && i-- > 1;) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    uint32_t k = (uint32_t)(seed >> 33) % (i + 1), moved = place[i];
    place[i] = place[k];
    place[k] = moved;
  }
}

// One sample for each trun, all of one size, so that their data can change places. `trun` gets where each box is.
static void make_ordered(struct text *t, const uint32_t place[SHUFFLED], size_t trun[SHUFFLED]) {
  static uint32_t offset[SHUFFLED];
  make(t, &(struct synth_options){.num_frags = 1, .samples_per_trun = 1, .truns_per_traf = SHUFFLED, .min_size = 7, .max_size = 7, .gap = 5});
  trun[0] = find(t, "trun", 0);
  for (uint32_t i = 0; i < SHUFFLED; i++) {
    cr_assert(!memcmp(t->p + trun[i] + 4, "trun", 4));
    offset[i] = load_be32(t->p + trun[i] + 16);
    if (i + 1 < SHUFFLED)
      trun[i + 1] = trun[i] + load_be32(t->p + trun[i]);
  }
  for (uint32_t i = 0; i < SHUFFLED; i++)
    store_be32(t->p + trun[i] + 16, offset[place[i]]);
}

// Runs stand in the order of the data, each with the samples whose data it is.
Test(edges, truns_in_any_order) {
  static struct text t;
  static uint32_t place[SHUFFLED], pos[SHUFFLED];
  static size_t trun[SHUFFLED];
  for (int order = 0; order < ORDERS; order++) {
    struct diag d = {0};
    struct bytes blob;
    struct alloc_heap heap;
    struct track_index ix;
    order_of(place, order);
    make_ordered(&t, place, trun);
    cr_expect_eq(index_of(&t, &d), ERR_OK, "%d: %s", order, d.what);
    struct bytes file = bytes_of(t.p, t.n);
    struct mp4_source src = memory_source(&file, NULL, 0);
    alloc_heap_init(&heap, 1 << 26);
    cr_assert_eq(ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &d), ERR_OK, "%d: %s", order, d.what);
    cr_assert_eq(ix_open(&ix, blob, &d), ERR_OK, "%d: %s", order, d.what);
    cr_assert_eq(ix.h->num_runs, SHUFFLED);
    for (uint32_t i = 0; i < SHUFFLED; i++) {
      const struct ix_run *r = &ix.runs[place[i]];
      pos[i] = order ? pos[i] : ix.runs[i].pos;
      cr_assert(r->first_sample == i && r->num_samples == 1 && r->len == 7, "%d: trun %u", order, i);
      cr_assert_eq(ix.runs[i].pos, pos[i], "%d: run %u", order, i);
    }
    alloc_heap_free(&heap);
  }
}

Test(edges, truns_that_share_data_in_any_order) {
  static struct text t;
  static uint32_t place[SHUFFLED];
  static size_t trun[SHUFFLED];
  static const int32_t by[] = {-6, -12, 6}; // a byte of the one before, all of it, a byte of the one behind
  for (int order = 0; order < ORDERS; order++)
    for (size_t i = 0; i < sizeof by / sizeof *by; i++) {
      struct diag d;
      uint32_t which = 0;
      order_of(place, order);
      make_ordered(&t, place, trun);
      while (place[which] != SHUFFLED / 2)
        which++;
      add32(&t, trun[which] + 16, by[i]);
      cr_expect_eq(index_of(&t, &d), ERR_MALFORMED, "%d, %d", order, by[i]);
      cr_expect_not_null(strstr(d.what, "two truns share sample data"), "%d, %d: %s", order, by[i], d.what);
    }
}

// Sizes around the one from which lanes are sorted otherwise; ix_open looks at their order.
Test(edges, samples_of_many_blocks) {
  static struct text t;
  static const uint32_t sizes[] = {16368, 16383, 16384, 16400};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct diag d;
    make(&t, &(struct synth_options){.num_frags = 1, .samples_per_trun = 3, .min_size = sizes[i], .max_size = sizes[i]});
    cr_expect_eq(index_of(&t, &d), ERR_OK, "%u: %s", sizes[i], d.what);
  }
}
