// Structures and limits that no preset of synth.c has: good files that are changed by hand, sources of gigabytes that are mostly
// holes, sources that change while they are read.
#include <criterion/criterion.h>
#include <stdlib.h>

#include "mp4/frag.h"
#include "mp4/init.h"
#include "mp4/limits.h"
#include "mp4/samples.h"
#include "mp4/tree.h"
#include "mp4/window.h"
#include "rewrite.h"
#include "synth.h"

// A file that boxes are put into and taken out of.
struct text {
  uint8_t p[1 << 18];
  size_t n;
};

static size_t find(const struct text *t, const char *type, size_t from) {
  for (size_t i = from + 4; i + 4 <= t->n; i++)
    if (!memcmp(t->p + i, type, 4))
      return i - 4;
  cr_assert_fail("no %s", type);
  return 0;
}

// Replaces bytes; the boxes around them, the first ones of the types that `up` lists, get their new sizes.
static void splice(struct text *t, size_t at, size_t del, struct bytes put, const char *up) {
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

static void make(struct text *t, const struct synth_options *o) {
  struct synth s;
  synth_make(&s, o);
  cr_assert_leq(s.len, sizeof t->p);
  memcpy(t->p, s.file, s.len);
  t->n = s.len;
  synth_free(&s);
}

// ix_build and rewrite_check of a file.
static enum err index_of(const struct text *t, struct diag *d) {
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

Test(edges, entry_heads) {
  static const struct {
    unsigned stsd_version, version;
    size_t len, want;
    enum err err;
  } rows[] = {
      {0, 0, 28, 28, ERR_OK},          {0, 0, 27, 0, ERR_TRUNCATED}, {0, 1, 44, 44, ERR_OK},          {0, 1, 43, 0, ERR_TRUNCATED},
      {0, 2, 64, 64, ERR_OK},          {0, 2, 63, 0, ERR_TRUNCATED}, {0, 3, 99, 0, ERR_UNSUPPORTED},  {1, 0, 28, 28, ERR_OK},
      {1, 1, 28, 28, ERR_OK},          {1, 2, 99, 0, ERR_UNSUPPORTED}, {2, 0, 99, 0, ERR_UNSUPPORTED},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    uint8_t body[99] = {[9] = (uint8_t)rows[i].version};
    size_t n = 0;
    cr_expect_eq(box_entry_head(&n, bytes_of(body, rows[i].len), rows[i].stsd_version), rows[i].err, "row %zu", i);
    cr_expect_eq(n, rows[i].want, "row %zu: %zu", i, n);
  }
}

// A moov with something in it that no preset has. ISO/IEC 14496-12 8.6.6 (elst), 8.4.2 (mdhd), 8.4.6 (elng).
#define EDTS_1 "\0\0\0\x24" "edts" "\0\0\0\x1c" "elst" "\0\0\0\0" "\0\0\0\1"
#define EDTS_2 "\0\0\0\x30" "edts" "\0\0\0\x28" "elst" "\0\0\0\0" "\0\0\0\2"
#define EDTS_2_V1 "\0\0\0\x40" "edts" "\0\0\0\x38" "elst" "\1\0\0\0" "\0\0\0\2"
#define EDIT(time) "\0\0\0\7" time "\0\1\0\0"
#define EDIT_V1(time) "\0\0\0\0\0\0\0\7" time "\0\1\0\0"
#define EMPTY "\xff\xff\xff\xff"

Test(edges, moov) {
  static const struct {
    const char *before; // the box that `put` stands before, or takes the place of
    bool replace;
    struct bytes put;
    const char *up;
    enum err want;
    int64_t media_time;
    uint32_t timescale;
    const char *language;
  } rows[] = {
      {"mdia", false, BYTES_LIT(EDTS_1 EDIT("\0\0\4\0")), "moov trak", ERR_OK, 1024, 48000, "en"},
      {"mdia", false, BYTES_LIT(EDTS_2 EDIT(EMPTY) EDIT("\0\0\x08\x40")), "moov trak", ERR_OK, 2112, 48000, "en"},
      {"mdia", false, BYTES_LIT(EDTS_2 EDIT("\0\0\0\0") EDIT("\0\0\4\0")), "moov trak", ERR_OK, 0, 48000, "en"},
      {"mdia", false, BYTES_LIT(EDTS_2 EDIT("\0\0\4\0") EDIT("\0\0\0\5")), "moov trak", ERR_OK, 1024, 48000, "en"},
      {"mdia", false, BYTES_LIT(EDTS_2_V1 EDIT_V1(EMPTY EMPTY) EDIT_V1("\0\0\0\1\0\0\1\x38")), "moov trak", ERR_OK, 0x100000138, 48000, "en"},
      {"mdia", false, BYTES_LIT("\0\0\0\x24" "edts" "\0\0\0\x1c" "elst" "\0\0\0\0" "\0\0\0\2" EDIT("\0\0\4\0")), "moov trak", ERR_MALFORMED, 0, 0, ""},
      {"mdia", false, BYTES_LIT("\0\0\0\x24" "edts" "\0\0\0\x1c" "elst" "\2\0\0\0" "\0\0\0\1" EDIT("\0\0\4\0")), "moov trak", ERR_MALFORMED, 0, 0, ""},
      {"mdhd", true, BYTES_LIT("\0\0\0\x2c" "mdhd" "\1\0\0\0" "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" "\0\0\xac\x44" "\0\0\0\0\0\0\0\0" "\x10\xb5\0\0"),
       "moov trak mdia", ERR_OK, 0, 44100, "de"},
      {"hdlr", false, BYTES_LIT("\0\0\0\x12" "elng" "\0\0\0\0" "de-CH\0"), "moov trak mdia", ERR_OK, 0, 48000, "de-CH"},
      {"hdlr", false, BYTES_LIT("\0\0\0\x17" "elng" "\0\0\0\0" "de-abcdefgh"), "moov trak mdia", ERR_OK, 0, 48000, "de-abcdefgh"},
      {"hdlr", false, BYTES_LIT("\0\0\0\x18" "elng" "\0\0\0\0" "de-abcdefghi"), "moov trak mdia", ERR_OK, 0, 48000, "en"},
      {"hdlr", false, BYTES_LIT("\0\0\0\x1b" "elng" "\0\0\0\0" "de-1234-5678-12"), "moov trak mdia", ERR_OK, 0, 48000, "de-1234-5678-12"},
      {"hdlr", false, BYTES_LIT("\0\0\0\x1c" "elng" "\0\0\0\0" "de-1234-5678-123"), "moov trak mdia", ERR_OK, 0, 48000, "en"},
      {"minf", false, BYTES_LIT("\0\0\0\x08" "minf"), "moov trak mdia", ERR_MALFORMED, 0, 0, ""},
      {"trak", false, BYTES_LIT("\0\0\0\x08" "trak"), "moov", ERR_UNSUPPORTED, 0, 0, ""},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    static struct text t;
    struct alloc_heap heap;
    struct list edits = {0};
    struct init_info info = {0};
    struct diag d = {0};
    make(&t, &small);
    size_t at = find(&t, rows[i].before, 0), moov = find(&t, "moov", 0);
    splice(&t, at, rows[i].replace ? load_be32(t.p + at) : 0, rows[i].put, rows[i].up);
    alloc_heap_init(&heap, 1 << 20);
    enum err e = init_parse(&info, &edits, &heap.base, bytes_of(t.p + moov, load_be32(t.p + moov)), moov, &d);
    cr_expect_eq(e, rows[i].want, "row %zu: %s %s", i, err_name(e), d.what);
    cr_expect_eq(info.edit_media_time, rows[i].media_time, "row %zu: %lld", i, (long long)info.edit_media_time);
    cr_expect(info.timescale == rows[i].timescale && !strcmp(info.language, rows[i].language), "row %zu: %u, %s", i, info.timescale,
              info.language);
    alloc_heap_free(&heap);
  }
}

// ISO/IEC 14496-12 8.6.6, and 8.2.2 for the timescale that edits last in: empty edits delay the track, but not beyond all time.
Test(edges, empty_edits) {
#define MVHD_1(timescale) "\0\0\0\x78" "mvhd" "\1\0\0\0" "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" timescale
  static const struct {
    struct bytes mvhd; // in place of one of version 0 with 1000 ticks a second
    struct bytes edits;
    uint64_t delay;
    enum err want;
  } rows[] = {
      {{0}, BYTES_LIT(EDTS_1 EDIT("\0\0\4\0")), 0, ERR_OK},
      {{0}, BYTES_LIT(EDTS_1 EDIT(EMPTY)), 0, ERR_OK}, // presents nothing
      {{0}, BYTES_LIT(EDTS_2 EDIT(EMPTY) EDIT("\0\0\4\0")), 336, ERR_OK},
      {{0}, BYTES_LIT(EDTS_2 EDIT("\0\0\4\0") EDIT(EMPTY)), 0, ERR_OK},
      {{0}, BYTES_LIT(EDTS_2_V1 EDIT_V1(EMPTY EMPTY) EDIT_V1("\0\0\0\0\0\0\0\0")), 336, ERR_OK},
      {BYTES_LIT(MVHD_1("\0\1\x5f\x90")), BYTES_LIT(EDTS_2 EDIT(EMPTY) EDIT("\0\0\4\0")), 4, ERR_OK}, // 3.73
      {{0}, BYTES_LIT(EDTS_2_V1 "\xff\xff\xff\xff\xff\xff\xff\xff" EMPTY EMPTY "\0\1\0\0" EDIT_V1("\0\0\0\0\0\0\0\0")), 0, ERR_OVERFLOW},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    static struct text t;
    struct diag d;
    make(&t, &small);
    splice(&t, find(&t, "mdia", 0), 0, rows[i].edits, "moov trak");
    if (rows[i].mvhd.n) {
      uint8_t rest[120] = {0};
      size_t mvhd = find(&t, "mvhd", 0);
      memcpy(rest, rows[i].mvhd.p, rows[i].mvhd.n);
      splice(&t, mvhd, load_be32(t.p + mvhd), bytes_of(rest, sizeof rest), "moov");
    }
    enum err e = index_of(&t, &d);
    cr_expect_eq(e, rows[i].want, "row %zu: %s %s", i, err_name(e), d.what);
    if (e)
      cr_expect(d.at == find(&t, "elst", 0) && strstr(d.what, "empty edits"), "row %zu: at %zu", i, (size_t)d.at);
    else
      cr_expect_eq(init_delay(bytes_of(t.p, t.n), 48000), rows[i].delay, "row %zu", i);
  }
}

static enum err parse_moov(struct init_info *info, struct list *edits, struct alloc_heap *heap, const struct text *t, uint64_t pos, struct diag *d) {
  size_t moov = find(t, "moov", 0);
  *edits = (struct list){0};
  *d = (struct diag){0};
  alloc_heap_init(heap, 1 << 20);
  return init_parse(info, edits, &heap->base, bytes_of(t->p + moov, load_be32(t->p + moov)), pos, d);
}

Test(edges, many_sample_entries_and_tracks) {
  static struct text t, copy;
  struct alloc_heap heap;
  struct list edits;
  struct init_info info;
  struct diag d;
  make(&t, &small);
  size_t at = find(&t, "mp4a", 0), len = load_be32(t.p + at);
  copy = t;
  splice(&t, at, 0, bytes_of(copy.p + at, len), "moov trak mdia minf stbl stsd");
  cr_expect_eq(parse_moov(&info, &edits, &heap, &t, 20, &d), ERR_MALFORMED); // two, one is announced
  alloc_heap_free(&heap);
  for (uint32_t num = 2; num <= IX_MAX_SINF + 1; num++) {
    if (num > 2)
      splice(&t, at, 0, bytes_of(copy.p + at, len), "moov trak mdia minf stbl stsd");
    store_be32(t.p + at - 4, num);
    enum err want = num <= IX_MAX_SINF ? ERR_OK : ERR_LIMIT;
    cr_expect_eq(parse_moov(&info, &edits, &heap, &t, 20, &d), want, "%u: %s", num, d.what);
    cr_expect(want || info.num_sinf == num);
    alloc_heap_free(&heap);
  }
  t = copy;
  for (uint32_t num = 2; num <= 65; num++) {
    splice(&t, find(&t, "trak", 0), 0, BYTES_LIT("\0\0\0\x08trak"), "moov");
    enum err want = num <= 64 ? ERR_UNSUPPORTED : ERR_LIMIT;
    cr_expect_eq(parse_moov(&info, &edits, &heap, &t, 20, &d), want, "%u: %s", num, d.what);
    alloc_heap_free(&heap);
  }
}

Test(edges, how_long_an_init_segment_may_be) {
  static struct text t;
  struct alloc_heap heap;
  struct list edits;
  struct init_info info;
  struct diag d;
  make(&t, &small);
  uint64_t last = IX_MAX_INIT - load_be32(t.p + find(&t, "moov", 0));
  cr_expect_eq(parse_moov(&info, &edits, &heap, &t, last, &d), ERR_OK, "%s", d.what);
  alloc_heap_free(&heap);
  cr_expect_eq(parse_moov(&info, &edits, &heap, &t, last + 1, &d), ERR_LIMIT);
  alloc_heap_free(&heap);
}

// What a protection left in a clear moov goes, wherever it stands, and moov's size says so.
Test(edges, pssh_in_a_clear_moov) {
  static const char *const before[] = {"trak", "mvex"};
  static struct text t;
  struct alloc_heap heap;
  struct list edits;
  struct init_info info;
  struct diag d;
  make(&t, &small);
  for (int i = 0; i < 2; i++)
    splice(&t, find(&t, before[i], 0), 0, BYTES_LIT("\0\0\0\x20pssh\0\0\0\0ssssssssssssssss\0\0\0\0"), "moov");
  cr_assert_eq(parse_moov(&info, &edits, &heap, &t, 0, &d), ERR_OK, "%s", d.what);
  const struct ix_edit *e = edits.p;
  uint32_t dropped = 0, pos = 0;
  for (uint32_t i = 0; i < edits.num; i++) {
    cr_expect_geq(e[i].pos, pos);
    pos = e[i].pos + e[i].del;
    dropped += e[i].kind == IX_DELETE ? e[i].del : 0;
  }
  cr_expect_eq(dropped, 64);
  cr_expect(e->kind == IX_SIZE32 && e->scope == IX_SCOPE_MOOV && e->arg == 1);
  cr_expect_eq(e->value, load_be32(t.p + find(&t, "moov", 0)) - 64);
  alloc_heap_free(&heap);
  cr_expect_eq(index_of(&t, &d), ERR_OK, "%s", d.what);
}

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

static void add32(struct text *t, size_t at, int32_t by) { store_be32(t->p + at, load_be32(t->p + at) + (uint32_t)by); }

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

// samples_of_moof finds what the synthesiser wrote, whatever offsets, sizes and times count from.
struct seen {
  const struct synth *s;
  uint32_t num;
  const char *preset;
};

static void see(void *ctx, const struct sample_info *i) {
  struct seen *seen = ctx;
  cr_assert_lt(seen->num, seen->s->num_samples);
  const struct synth_sample *want = &seen->s->samples[seen->num];
  cr_expect(i->size == want->len && (!i->size || i->offset == want->pos), "%s: sample %u: %u bytes at %zu", seen->preset, seen->num, i->size,
            (size_t)i->offset);
  cr_expect(i->track_id == 1 && i->duration == 1024 && i->time == 1024ull * seen->num, "%s: sample %u: time %zu", seen->preset, seen->num,
            (size_t)i->time);
  seen->num++;
}

Test(edges, samples_for_inspection) {
  for (const struct synth_options *o = synth_presets; o->name; o++) {
    struct synth s;
    struct diag d = {0};
    if (o->num_frags > 1000)
      continue;
    synth_make(&s, o);
    struct samples_file f = {.source_len = s.len};
    struct seen seen = {&s, 0, o->name};
    struct samples_visitor v = {&seen, see};
    uint32_t part = 0;
    for (size_t at = 0; at < s.len;) {
      struct box b = {.pos = at};
      cr_assert_eq(box_head(&b, bytes_of(s.file + at, s.len - at), s.len - at, true), ERR_OK);
      while (part + 1 < s.num_parts && s.part_ends[part] <= at)
        part++;
      struct bytes raw = bytes_of(s.file + at, (size_t)b.len);
      if (b.type == FOURCC('m', 'o', 'o', 'v'))
        samples_trex(&f, raw);
      else if (b.type == FOURCC('m', 'o', 'o', 'f'))
        cr_expect_eq(samples_of_moof(&v, &f, raw, at, part && o->folder ? s.part_ends[part - 1] : 0, &d), ERR_OK, "%s: %s", o->name, d.what);
      at += (size_t)b.len;
    }
    cr_expect_eq(seen.num, s.num_samples, "%s", o->name);
    synth_free(&s);
  }
}

static void take(void *ctx, const struct sample_info *i) { *(struct sample_info *)ctx = *i; }

Test(edges, samples_have_the_defaults_of_their_track) {
  static struct text t;
  static const uint32_t sizes[] = {4, 5, 0}, durations[] = {10, 20, 0};
  make(&t, &(struct synth_options){.num_frags = 1, .samples_per_trun = 1, .min_size = 10, .max_size = 10, .sizes = SYNTH_SIZES_TREX});
  size_t moof = find(&t, "moof", 0);
  for (uint32_t i = 0; i < 3; i++) {
    struct samples_file f = {.source_len = 1000, .num_tracks = 2, .tracks = {{1, 10, 4, 0}, {2, 20, 5, 0}}};
    struct sample_info got = {0};
    struct samples_visitor v = {&got, take};
    struct diag d = {0};
    store_be32(t.p + find(&t, "tfhd", 0) + 12, i + 1);
    cr_assert_eq(samples_of_moof(&v, &f, bytes_of(t.p + moof, load_be32(t.p + moof)), 0, 0, &d), ERR_OK, "%s", d.what);
    cr_expect(got.size == sizes[i] && got.duration == durations[i], "track %u: %u bytes, %u ticks", i + 1, got.size, got.duration);
  }
}

static void ignore(void *ctx, const struct sample_info *i) { (void)ctx, (void)i; }

Test(edges, samples_that_are_only_counted) {
  static struct text t;
  static const struct {
    uint32_t size, num, source_len;
    enum err want;
  } rows[] = {{10, 90, 1000, ERR_OK},
              {10, 91, 1000, ERR_TRUNCATED}, // the data begins at 100
              {0, 1 << 16, 1000, ERR_OK},
              {0, (1 << 16) + 1, 1000, ERR_LIMIT}};
  make(&t, &(struct synth_options){.num_frags = 1, .samples_per_trun = 1, .min_size = 10, .max_size = 10, .sizes = SYNTH_SIZES_TREX});
  size_t moof = find(&t, "moof", 0);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct samples_file f = {.source_len = rows[i].source_len, .num_tracks = 1, .tracks = {{1, 1024, rows[i].size, 0}}};
    struct samples_visitor v = {NULL, ignore};
    struct diag d = {0};
    store_be32(t.p + find(&t, "trun", 0) + 12, rows[i].num);
    store_be32(t.p + find(&t, "trun", 0) + 16, 100);
    struct bytes raw = bytes_of(t.p + moof, load_be32(t.p + moof));
    cr_expect_eq(samples_of_moof(&v, &f, raw, 0, 0, &d), rows[i].want, "row %zu: %s", i, d.what);
    if (i == 0) // the same bytes again: more of them than the source has
      cr_expect_eq(samples_of_moof(&v, &f, raw, 0, 0, &d), ERR_MALFORMED, "%s", d.what);
  }
}

// tree_walk's boxes, as text.
static enum err enter(void *ctx, const struct box *b, uint32_t depth, uint32_t parent) {
  (void)depth, (void)parent;
  uint8_t type[4];
  store_be32(type, b->type);
  strncat(ctx, (const char *)type, 4);
  return ERR_OK;
}

static void leave(void *ctx, const struct box *b, uint32_t depth) {
  (void)b, (void)depth;
  strcat(ctx, ".");
}

Test(edges, trees) {
#define NEST(len) "\0\0\0" len "moov"
  static const struct {
    struct bytes file;
    const char *want;
  } rows[] = {
      {BYTES_LIT("\0\0\0\x14moov\0\0\0\x08" "free\0\0\0\0"), "moovfree.."}, // a 32-bit 0 ends the list
      {BYTES_LIT("\0\0\0\x3cstsd\1\0\0\0\0\0\0\1\0\0\0\x2cmp4a\0\0\0\0\0\0\0\1\0\1\0\0\0\0\0\0\0\2\0\x10\0\0\0\0\0\0\0\0\0\0\0\x08" "free"),
       "stsdmp4afree..."}, // version 1 of a version 1 stsd is not QuickTime's
      {BYTES_LIT("\0\0\0\x08stsd"), "stsd."}, // too short to have any
      {BYTES_LIT(NEST("\x70") NEST("\x68") NEST("\x60") NEST("\x58") NEST("\x50") NEST("\x48") NEST("\x40") NEST("\x38") NEST("\x30") NEST("\x28")
                     NEST("\x20") NEST("\x18") NEST("\x10") NEST("\x08")),
       "moovmoovmoovmoovmoovmoovmoovmoovmoovmoovmoovmoovmoov............."}, // the last one is not looked into
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char text[200] = "";
    struct bytes file = rows[i].file;
    struct mp4_source src = memory_source(&file, NULL, 0);
    struct alloc_heap heap;
    struct diag d = {0};
    alloc_heap_init(&heap, 1 << 20);
    struct window w = {.src = &src, .mem = &heap.base};
    struct tree_visitor v = {text, enter, leave};
    cr_expect_eq(tree_walk(&w, &v, &d), ERR_OK, "row %zu: %s", i, d.what);
    cr_expect_str_eq(text, rows[i].want, "row %zu: %s", i, text);
    alloc_heap_free(&heap);
  }
}

// What is skipped may be all of the first segment's fragments but no more.
Test(edges, priming) {
  static const struct {
    int64_t media_time;
    uint64_t want;
  } rows[] = {{-5, 0}, {0, 0}, {1, 1}, {199, 199}, {200, 0}, {201, 0}};
  struct ix_frag frags[4] = {{.duration_ticks = 100}, {.duration_ticks = 100}, {.duration_ticks = 100}};
  struct ix_header h = {.num_frags = 3};
  struct track_index ix = {.h = &h, .frags = frags};
  uint32_t first[] = {0, 2, 3};
  struct ix_segments segs = {2, first};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    h.edit_media_time = rows[i].media_time;
    cr_expect_eq(ix_skipped(&ix, &segs), rows[i].want, "row %zu", i);
  }
}

// What the builder notes of a file, at the bounds of its fields.
Test(edges, header) {
  static struct text t;
  struct alloc_heap heap;
  struct bytes blob;
  struct track_index ix;
  struct diag d = {0};
  for (uint32_t size = UINT16_MAX; size <= UINT16_MAX + 1; size++) {
    make(&t, &(struct synth_options){.num_frags = 1, .samples_per_trun = 2, .min_size = size, .max_size = size});
    struct bytes file = bytes_of(t.p, t.n);
    struct mp4_source src = memory_source(&file, NULL, 0);
    alloc_heap_init(&heap, 1 << 26);
    cr_assert_eq(ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &d), ERR_OK, "%s", d.what);
    cr_assert_eq(ix_open(&ix, blob, &d), ERR_OK);
    cr_expect_eq(ix.h->flags, (size > UINT16_MAX ? IX_WIDE_SIZES : 0u) | IX_NO_DIGEST);
    ix_set_digest(blob, (const uint8_t *)"thirty-two bytes of a digest ...");
    cr_assert_eq(ix_open(&ix, blob, &d), ERR_OK);
    cr_expect_eq(ix.h->flags & IX_NO_DIGEST, 0);
    cr_expect_arr_eq(ix.h->identity.digest, "thirty-two bytes of a digest ...", 32);
    cr_expect_eq(ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size + 1}, &d), ERR_STALE);
    alloc_heap_free(&heap);
  }
  // Fragments of one second each, every one longer than the one before: the last is the peak.
  make(&t, &(struct synth_options){.num_frags = 3, .samples_per_trun = 4, .min_size = 10, .max_size = 1000, .timescale = 1000, .frame_ticks = 250});
  struct bytes file = bytes_of(t.p, t.n);
  struct mp4_source src = memory_source(&file, NULL, 0);
  alloc_heap_init(&heap, 1 << 26);
  cr_assert_eq(ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &d), ERR_OK);
  cr_assert_eq(ix_open(&ix, blob, &d), ERR_OK);
  cr_expect_eq(ix.h->max_bitrate, ix.frags[2].src_len * 8);
  cr_expect_eq(ix.h->avg_bitrate, (uint32_t)((ix.frags[0].src_len + ix.frags[1].src_len + ix.frags[2].src_len) * 8 / 3));
  alloc_heap_free(&heap);
}

Test(edges, identities) {
  struct ix_header h = {.identity = {.size = 1, .mtime_ns = 2, .stamp = 3}};
  struct track_index ix = {.h = &h};
  struct ix_identity now = h.identity;
  now.digest[0] = 9; // not looked at
  cr_expect(ix_identity_is(&ix, &now));
  uint64_t *fields[] = {&now.size, &now.mtime_ns, &now.stamp};
  for (size_t i = 0; i < 3; i++) {
    (*fields[i])++;
    cr_expect(!ix_identity_is(&ix, &now), "field %zu", i);
    (*fields[i])--;
  }
}
