// What the builder notes of a file, what samples and boxes look like to who inspects them.
#include "edited.h"

#include "mp4/samples.h"
#include "mp4/tree.h"
#include "mp4/window.h"

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
      while (part + 1 < s.num_parts && s.part_ends[part] <= at)
        part++;
      cr_assert_eq(box_head(&b, bytes_of(s.file + at, s.len - at), s.part_ends[part] - at, true), ERR_OK);
      struct bytes raw = bytes_of(s.file + at, (size_t)b.len);
      if (b.type == FOURCC('m', 'o', 'o', 'v'))
        samples_tracks(&f, raw);
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
  static const uint32_t sizes[] = {4, 5, 0}, durations[] = {10, 20, 0}; // the third is not in moov
  make(&t, &(struct synth_options){.num_frags = 1, .samples_per_trun = 1, .min_size = 10, .max_size = 10, .sizes = SYNTH_SIZES_TREX});
  size_t moof = find(&t, "moof", 0);
  for (uint32_t i = 0; i < 3; i++) {
    struct samples_file f = {.source_len = 1000, .num_tracks = 2, .tracks = {{1, 10, 4, 0, true}, {2, 20, 5, 0, true}}};
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
    struct samples_file f = {.source_len = rows[i].source_len, .num_tracks = 1, .tracks = {{1, 1024, rows[i].size, 0, true}}};
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
    cr_expect(ix.h->avg_bitrate && ix.h->max_bitrate == ix.h->avg_bitrate); // less than a second
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
