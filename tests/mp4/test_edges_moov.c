// Init segments that no preset of synth.c has: entry heads, edit lists, many entries and tracks, pssh boxes.
#include "edited.h"

#include "mp4/init.h"
#include "mp4/limits.h"

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
// 8.9.3: version, grouping, length of a description, which of them goes for all samples that no sbgp speaks of.
#define SGPD(version, grouping, all) "\0\0\0\x30" "sgpd" version "\0\0\0" grouping "\0\0\0\x14" all "\0\0\0\1" "\0\0\0\0" "0123456789abcdef"

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
      {"hdlr", false, BYTES_LIT("\0\0\0\x0f" "elng" "\0\0\0\0" "de-"), "moov trak mdia", ERR_OK, 0, 48000, "en"},
      {"minf", false, BYTES_LIT("\0\0\0\x08" "minf"), "moov trak mdia", ERR_MALFORMED, 0, 0, ""},
      {"tkhd", true, BYTES_LIT("\0\0\0\x18" "tkhd" "\2\0\0\0" "\0\0\0\0\0\0\0\0\0\0\0\1"), "moov trak", ERR_MALFORMED, 0, 0, ""},
      {"mdhd", true, BYTES_LIT("\0\0\0\x20" "mdhd" "\2\0\0\0" "\0\0\0\0\0\0\0\0" "\0\0\xac\x44" "\0\0\0\0" "\x10\xb5\0\0"), "moov trak mdia",
       ERR_MALFORMED, 0, 0, ""},
      {"stsz", true, BYTES_LIT("\0\0\0\x14" "stz2" "\0\0\0\0" "\0\0\0\x10" "\0\0\0\0"), "moov trak mdia minf stbl", ERR_OK, 0, 48000, "en"},
      {"stsz", true, BYTES_LIT("\0\0\0\x14" "stz2" "\0\0\0\0" "\0\0\0\x10" "\0\0\0\1"), "moov trak mdia minf stbl", ERR_PROGRESSIVE, 0, 0, ""},
      {"stts", false, BYTES_LIT(SGPD("\2", "seig", "\0\0\0\1")), "moov trak mdia minf stbl", ERR_PROTECTED, 0, 0, ""},
      {"stts", false, BYTES_LIT(SGPD("\3", "seig", "\0\0\0\1")), "moov trak mdia minf stbl", ERR_PROTECTED, 0, 0, ""},
      {"stts", false, BYTES_LIT(SGPD("\2", "seig", "\0\0\0\0")), "moov trak mdia minf stbl", ERR_OK, 0, 48000, "en"},
      {"stts", false, BYTES_LIT(SGPD("\1", "seig", "\0\0\0\1")), "moov trak mdia minf stbl", ERR_OK, 0, 48000, "en"},
      {"stts", false, BYTES_LIT(SGPD("\2", "roll", "\0\0\0\1")), "moov trak mdia minf stbl", ERR_OK, 0, 48000, "en"},
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
  memcpy(t.p + at + len + 4, "twos", 4); // the first one is told
  store_be32(t.p + at - 4, 2);
  cr_expect_eq(parse_moov(&info, &edits, &heap, &t, 20, &d), ERR_OK, "%s", d.what);
  cr_expect(info.format == FOURCC('m', 'p', '4', 'a') && !strcmp(info.codec.codecs, "mp4a.40.2"), "%s", info.codec.codecs);
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

// What a folder's parts may be: init.mp4 has one moov; an empty part, of an upload that has just begun, is passed over.
Test(edges, parts_of_a_folder) {
  static struct text t, copy;
  make(&copy, &small);
  size_t moov = find(&copy, "moov", 0), len = load_be32(copy.p + moov);
  for (int two = 0; two < 2; two++) {
    struct alloc_heap heap;
    struct diag d = {0};
    t = copy;
    if (two)
      splice(&t, moov + len, 0, bytes_of(copy.p + moov, len), "");
    size_t init = moov + len + (two ? len : 0);
    const uint64_t ends[] = {init, init, t.n};
    struct bytes file = bytes_of(t.p, t.n), blob;
    struct mp4_source src = memory_source(&file, ends, 3);
    alloc_heap_init(&heap, 1 << 22);
    enum err e = ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &d), want = two ? ERR_MALFORMED : ERR_OK;
    cr_expect_eq(e, want, "%s %s", err_name(e), d.what);
    cr_expect(!two || strstr(d.what, "second moov"), "%s", d.what);
    struct track_index ix;
    if (!e)
      cr_expect(!ix_open(&ix, blob, &d) && ix.h->num_parts == 3 && ix.h->num_frags == 2, "%s", d.what);
    alloc_heap_free(&heap);
  }
}
