// Every synthesised structure: the index tells the samples, and the rewritten file tells them too.
#include <criterion/criterion.h>
#include <stdlib.h>

#include "preset.h"
#include "rewrite.h"

struct built {
  struct synth s;
  struct bytes file;
  struct alloc_heap heap;
  struct track_index ix;
};

static void index_it(struct built *b, const struct synth_options *o) {
  struct diag diag = {0};
  struct bytes blob;
  char text[400];
  b->file = bytes_of(b->s.file, b->s.len);
  struct mp4_source src = memory_source(&b->file, b->s.part_ends, b->s.num_parts);
  alloc_heap_init(&b->heap, (size_t)1 << 30);
  enum err e = ix_build(&b->heap.base, &blob, &src, &(struct ix_identity){.size = src.size, .digest = {1}}, &diag);
  e = e ? e : ix_open(&b->ix, blob, &diag);
  diag_format(&diag, text, sizeof text);
  cr_assert_eq(e, ERR_OK, "%s: %s", o->name, text);
}

static void build(struct built *b, const struct synth_options *o) {
  synth_make(&b->s, o);
  index_it(b, o);
}

static void drop(struct built *b) {
  alloc_heap_free(&b->heap);
  synth_free(&b->s);
}

static void check(const struct synth_options *o) {
  struct built b;
  build(&b, o);
  const struct ix_header *h = b.ix.h;
  cr_assert_eq(h->num_samples, b.s.num_samples);
  cr_assert_eq(h->num_frags, b.s.num_frags);
  uint64_t *pos = sample_positions(&b.ix);
  for (uint32_t n = 0; n < b.s.num_samples; n++) {
    cr_assert_eq(ix_sample_size(&b.ix, n), b.s.samples[n].len, "%s: size of sample %u", o->name, n);
    if (b.s.samples[n].len)
      cr_assert_eq(pos[n], b.s.samples[n].pos, "%s: place of sample %u", o->name, n);
  }
  free(pos);
  for (uint32_t f = 1; f < b.s.num_frags; f++) // the first begins where moov ends
    cr_expect_eq(b.ix.frags[f].src_off, b.s.frag_starts[f], "%s: start of fragment %u", o->name, f);
  uint64_t ticks = o->frame_ticks ? o->frame_ticks : 1024;
  cr_assert_eq(h->duration_ticks, ticks * b.s.num_samples);
  cr_assert_eq(h->frame_samples, ticks);
  cr_assert_str_eq(h->codecs, "mp4a.40.2");
  cr_assert_eq(b.ix.layout, 2);
  cr_assert_str_eq(h->language, "en");
  const char *bad = rewrite_check(&b.ix, b.file);
  cr_assert_null(bad, "%s: %s", o->name, bad);
  drop(&b);
}

// One case for each preset, so that a failure has its name.
#define X_PRESETS(X)                                                                                             \
  X(plain, "plain") X(absolute, "absolute-base") X(absolute_none, "absolute-base-no-offsets")                    \
  X(implied, "implied-base") X(implied_none, "implied-base-no-offsets") X(trafs, "several-trafs")                \
  X(negative, "negative-offsets") X(negative_absolute, "negative-offsets-absolute") X(wide, "wide-boxes")        \
  X(wide_absolute, "wide-boxes-absolute") X(to_end, "last-mdat-to-end") X(offsets, "implied-offsets")            \
  X(empty_truns, "empty-truns") X(empty_implied, "empty-truns-implied") X(empty_places, "empty-truns-name-places") X(empty_traf, "empty-traf")              \
  X(reversed, "reversed-data") X(gaps, "gaps") X(before, "prft-emsg-styp") X(sidx, "sidx")                       \
  X(prft, "prft") X(emsg, "emsg") X(folder_to_end, "folder-to-end")                                              \
  X(sidx_each, "sidx-each") X(groups, "groups") X(no_tfdt, "no-tfdt") X(no_tfdt_absolute, "no-tfdt-absolute")    \
  X(version_0, "version-0") X(version_1, "version-1-offsets") X(tfhd, "sizes-in-tfhd") X(trex, "sizes-in-trex")  \
  X(fields, "fields-of-trafs") X(first_fields, "fields-of-first-samples") X(each, "fields-of-samples")            \
  X(small, "sizes-0-to-33") X(zero, "sizes-0") X(one_each, "one-sample-each") X(big, "big-samples")              \
  X(many, "many-truns") X(many_reversed, "many-truns-reversed") X(terminator, "terminator")                      \
  X(foreign_aux, "foreign-aux")                                                                                  \
  X(folder, "folder") X(folder_absolute, "folder-absolute") X(day, "24-hours")
#define X(id, name)                                                                                              \
  Test(synth, id, .timeout = 60) { check(preset(name)); }
X_PRESETS(X)
#undef X

Test(synth, every_preset_has_a_case) {
  uint32_t num = 0, cases = 0;
  for (const struct synth_options *o = synth_presets; o->name; o++)
    num++;
#define X(id, name) cases++;
  X_PRESETS(X)
#undef X
  cr_assert_eq(num, cases);
}

Test(segments, a_gap_that_makes_one_long_ends_it) {
  enum { FRAGS = 6, LENGTH = 1000, FRAME = 20 };
  static const struct {
    uint64_t gap, target; // before fragment 3
    uint32_t want, first[FRAGS];
  } rows[] = {{0, 2000, 3, {0, 2, 4}},    {FRAME - 1, 2000, 3, {0, 2, 4}}, {FRAME, 2000, 3, {0, 2, 4}},
              {999, 2000, 3, {0, 2, 4}},  {1000, 2000, 4, {0, 2, 3, 5}},   {50000, 2000, 4, {0, 2, 3, 5}},
              {50000, 60000, 1, {0}},     {50000, 52999, 2, {0, 3}},       {FRAME - 1, 1018, 3, {0, 2, 4}},
              {FRAME, 1018, 4, {0, 2, 3, 5}},
              {50000, 0, 6, {0, 1, 2, 3, 4, 5}}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct ix_header h = {.num_frags = FRAGS, .frame_samples = FRAME};
    struct ix_frag frags[FRAGS] = {0};
    uint32_t first[FRAGS + 1];
    for (uint32_t f = 0; f < FRAGS; f++) {
      frags[f].time_ticks = (1ull << 40) + f * LENGTH + (f >= 3 ? rows[i].gap : 0);
      frags[f].duration_ticks = LENGTH;
    }
    struct track_index ix = {.h = &h, .frags = frags};
    cr_assert_eq(ix_segment_count(&ix, rows[i].target), rows[i].want, "row %zu", i);
    ix_segment_fill(&ix, rows[i].target, first);
    cr_expect_eq(memcmp(first, rows[i].first, rows[i].want * sizeof *first), 0, "row %zu", i);
    h.flags = IX_HAD_SIDX; // the source's own segments stay as they are
    frags[5].flags = IX_FRAG_SUBSEGMENT;
    cr_expect_eq(ix_segment_count(&ix, rows[i].target), 2, "row %zu", i);
  }
}

// Fragments at the end that last no time (a sample of duration 0, or none) are no segment of their own: players that have played what
// lasts would wait in it; nor are they behind a gap. As a source or a target of 0 says they stay as they are.
Test(segments, what_lasts_no_time_ends_the_one_before) {
  enum { FRAGS = 5 };
  static const struct {
    uint32_t ticks[FRAGS];
    uint64_t target;
    uint32_t want, first[FRAGS];
  } rows[] = {{{1000, 1000, 1000, 1000, 0}, 2000, 2, {0, 2}},    {{1000, 1000, 1000, 0, 0}, 1000, 3, {0, 1, 2}},
              {{1000, 1000, 1000, 1000, 1}, 2000, 3, {0, 2, 4}}, {{1000, 0, 0, 1000, 0}, 1000, 2, {0, 1}},
              {{0, 0, 0, 0, 0}, 1000, 1, {0}},                   {{1000, 1000, 1000, 1000, 0}, 0, 5, {0, 1, 2, 3, 4}}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct ix_header h = {.num_frags = FRAGS, .frame_samples = 20};
    struct ix_frag frags[FRAGS + 1] = {0};
    uint32_t first[FRAGS + 1];
    for (uint32_t f = 0; f < FRAGS; f++) {
      frags[f].duration_ticks = rows[i].ticks[f];
      frags[f + 1].time_ticks = frags[f].time_ticks + rows[i].ticks[f];
    }
    struct track_index ix = {.h = &h, .frags = frags};
    for (int gap = 0; gap < 2; gap++) {
      if (gap && rows[i].ticks[4])
        break; // what lasts begins a segment there
      frags[4].time_ticks += gap ? 9000 : 0;
      cr_assert_eq(ix_segment_count(&ix, rows[i].target), rows[i].want, "row %zu, gap %d", i, gap);
      ix_segment_fill(&ix, rows[i].target, first);
      cr_expect_eq(memcmp(first, rows[i].first, rows[i].want * sizeof *first), 0, "row %zu, gap %d", i, gap);
    }
    h.flags = IX_HAD_SIDX;
    frags[4].flags = IX_FRAG_SUBSEGMENT;
    cr_expect_eq(ix_segment_count(&ix, rows[i].target), 2, "row %zu", i);
  }
}

Test(segments, follow_sidx_or_target_or_parts) {
  static const struct {
    const char *name;
    uint64_t target;
    uint32_t want;
  } rows[] = {{"sidx", 96000, 3},  {"sidx-each", 96000, 3},        {"plain", 0, 3},
              {"plain", 40960, 2}, {"plain", UINT64_MAX, 1},       {"folder", UINT64_MAX, 3},
              {"one-sample-each", 10 * 1024, 4}, {"24-hours", 0, 43200}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct built b;
    build(&b, preset(rows[i].name));
    uint32_t num = ix_segment_count(&b.ix, rows[i].target);
    cr_expect_eq(num, rows[i].want, "%s: %u segments", rows[i].name, num);
    uint32_t *first = calloc(num + 1, sizeof *first);
    cr_assert_not_null(first);
    ix_segment_fill(&b.ix, rows[i].target, first);
    cr_expect_eq(first[0], 0);
    cr_expect_eq(first[num], b.ix.h->num_frags);
    for (uint32_t k = 0; k < num; k++)
      cr_expect_lt(first[k], first[k + 1]);
    free(first);
    drop(&b);
  }
}

// A sidx before fragment `before` of ten: references to fragments [first, end), and to `next` bytes that begin with
// another sidx (0: none), which stand first or last. The first reference is longer by `skew`, the last one shorter.
struct sidx_row {
  uint32_t before, first, end, next;
  bool next_first;
  uint32_t skew;
};

enum { SIDX_FRAGS = 10, SIDX_HEAD = 32, SIDX_REF = 12 };

static uint32_t refs_of(const struct sidx_row *r) { return r->end - r->first + (r->next != 0); }

static uint64_t frag_end(const struct synth *s, uint32_t f) { return f + 1 < s->num_frags ? s->frag_starts[f + 1] : s->len; }

static uint8_t *put_ref(uint8_t *p, uint32_t ref) {
  store_be32(p, ref);
  return p + SIDX_REF;
}

static uint8_t *put_sidx(uint8_t *p, const struct synth *s, const struct sidx_row *r) {
  uint32_t num = refs_of(r);
  memset(p, 0, SIDX_HEAD + SIDX_REF * num);
  store_be32(p, SIDX_HEAD + SIDX_REF * num);
  memcpy(p + 4, "sidx", 4);
  store_be32(p + 12, 1);
  store_be32(p + 16, 48000);
  store_be32(p + 28, num);
  p += SIDX_HEAD;
  if (r->next_first)
    p = put_ref(p, 1u << 31 | r->next);
  for (uint32_t f = r->first; f < r->end; f++)
    p = put_ref(p, (uint32_t)(frag_end(s, f) - s->frag_starts[f]) + (f == r->first ? r->skew : 0) - (f + 1 == r->end ? r->skew : 0));
  return r->next && !r->next_first ? put_ref(p, 1u << 31 | r->next) : p;
}

// How many segments ten fragments have with these boxes before them, which end with a row of zeros.
static uint32_t segments_with(const struct sidx_row *rows, uint64_t target) {
  struct built b;
  synth_make(&b.s, &(struct synth_options){.num_frags = SIDX_FRAGS, .samples_per_trun = 20, .min_size = 100, .max_size = 200});
  uint8_t *file = malloc(b.s.len + 4096), *p = file;
  cr_assert_not_null(file);
  memcpy(p, b.s.file, b.s.init_len);
  p += b.s.init_len;
  for (uint32_t f = 0; f < SIDX_FRAGS; f++) {
    for (const struct sidx_row *r = rows; refs_of(r); r++)
      if (r->before == f)
        p = put_sidx(p, &b.s, r);
    memcpy(p, b.s.file + b.s.frag_starts[f], frag_end(&b.s, f) - b.s.frag_starts[f]);
    p += frag_end(&b.s, f) - b.s.frag_starts[f];
  }
  free(b.s.file);
  b.s.file = file;
  b.s.len = (size_t)(p - file);
  b.s.part_ends[0] = b.s.len;
  index_it(&b, &(struct synth_options){.name = "sidx"});
  uint32_t num = ix_segment_count(&b.ix, target);
  drop(&b);
  return num;
}

Test(segments, follow_every_shape_of_sidx) {
  struct synth s;
  synth_make(&s, &(struct synth_options){.num_frags = SIDX_FRAGS, .samples_per_trun = 20, .min_size = 100, .max_size = 200});
  uint32_t half = (uint32_t)(s.frag_starts[5] - s.frag_starts[0]), rest = (uint32_t)(s.len - s.frag_starts[5]);
  synth_free(&s);
  uint32_t child = SIDX_HEAD + 5 * SIDX_REF;
  const struct {
    const char *name;
    uint32_t want; // with a target that no fragments reach
    struct sidx_row rows[4];
  } cases[] = {
      {"flat", 10, {{0, 0, 10, 0, false, 0}}},
      {"daisy chain", 10, {{0, 0, 5, child + rest, false, 0}, {5, 5, 10, 0, false, 0}}},
      {"a child first, then fragments", 10, {{0, 5, 10, child + half, true, 0}, {0, 0, 5, 0, false, 0}}},
      {"children that cover all", 10, {{0, 0, 0, child + half, false, 0}, {0, 0, 5, 0, false, 0}, {5, 5, 10, 0, false, 0}}},
      {"one for each half, none above", 10, {{0, 0, 5, 0, false, 0}, {5, 5, 10, 0, false, 0}}},
      {"the first three only", 1, {{0, 0, 3, 0, false, 0}}},
      {"a child that is not there", 1, {{0, 0, 5, child + rest, false, 0}}},
      {"a hole", 1, {{0, 0, 3, 0, false, 0}, {5, 5, 10, 0, false, 0}}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint32_t num = segments_with(cases[i].rows, UINT64_MAX);
    cr_expect_eq(num, cases[i].want, "%s: %u segments", cases[i].name, num);
  }
  const struct sidx_row partial[] = {{0, 0, 3, 0, false, 0}, {0}};
  cr_expect_eq(segments_with(partial, 40 * 1024), 5, "a sidx of a part: groups of the target's duration");
  for (uint32_t skew = 20; skew < 2000; skew += 980) { // in the moof, in the mdat
    const struct sidx_row inside[] = {{0, 0, 10, 0, false, skew}, {0}};
    cr_expect_eq(segments_with(inside, 40 * 1024), 5, "subsegments that begin %u bytes inside of fragments", skew);
  }
}

// A box between an index and what it refers to: first_offset leads over it. ISO/IEC 14496-12 8.16.3.
Test(segments, follow_a_sidx_over_what_stands_behind_it) {
  for (uint32_t wide = 0; wide < 2; wide++)
    for (uint32_t first = 0; first <= 16; first += 16) {
      struct built b;
      synth_make(&b.s, &(struct synth_options){.num_frags = SIDX_FRAGS, .samples_per_trun = 20, .min_size = 100, .max_size = 200});
      uint32_t head = SIDX_HEAD + (wide ? 8 : 0), len = head + SIDX_REF * SIDX_FRAGS;
      uint8_t *file = calloc(1, b.s.len + len + 16), *p = file + b.s.init_len;
      cr_assert_not_null(file);
      memcpy(file, b.s.file, b.s.init_len);
      const struct sidx_row all = {0, 0, SIDX_FRAGS, 0, false, 0};
      memcpy(put_sidx(p + head - SIDX_HEAD, &b.s, &all), "\0\0\0\x10" "free", 8);
      store_be32(p, len);
      memcpy(p + 4, wide ? "sidx\1" : "sidx", 5);
      memcpy(p + 12, "\0\0\0\1\0\0\xbb\x80\0\0\0", 12);
      store_be32(p + head - 8, first);
      memset(p + 20, 0, head - 28);
      memcpy(p + len + 16, b.s.file + b.s.init_len, b.s.len - b.s.init_len);
      free(b.s.file);
      b.s.file = file;
      b.s.part_ends[0] = b.s.len += len + 16;
      index_it(&b, &(struct synth_options){.name = "first_offset"});
      cr_expect_eq(ix_segment_count(&b.ix, UINT64_MAX), first ? SIDX_FRAGS : 1, "version %u, %u", wide, first);
      drop(&b);
    }
}

// A part of a folder is a segment, however many fragments it has.
Test(segments, follow_parts_of_several_fragments) {
  struct built b;
  synth_make(&b.s, preset("folder"));
  b.s.num_parts--;
  memmove(b.s.part_ends + 1, b.s.part_ends + 2, (b.s.num_parts - 1) * sizeof *b.s.part_ends);
  index_it(&b, preset("folder"));
  cr_expect_eq(b.ix.h->num_frags, 3);
  cr_expect_eq(ix_segment_count(&b.ix, 0), 2);
  drop(&b);
}

Test(index, bytes_per_sample_and_memory_stay_small) {
  struct built b;
  build(&b, preset("24-hours"));
  cr_expect_leq(b.ix.h->blob_len, b.s.num_samples * 14);
  cr_expect_leq(b.heap.used, b.ix.h->blob_len + (1 << 20));
  drop(&b);
}

// The layout of channels comes from the AudioSpecificConfig in the index's copy of the init segment.
Test(synth, layouts_of_eight_channels) {
  static const uint8_t stereo[] = {5, 2, 0x11, 0x90}; // DecoderSpecificInfo: LC, 48 kHz, channelConfiguration 2
  static const uint8_t configurations[] = {7, 12, 14};
  for (size_t i = 0; i < sizeof configurations; i++) {
    struct built b;
    synth_make(&b.s, preset("plain"));
    uint8_t *at = memmem(b.s.file, b.s.len, stereo, sizeof stereo);
    cr_assert_not_null(at);
    at[3] = (uint8_t)(0x80 | configurations[i] << 3);
    index_it(&b, preset("plain"));
    cr_assert_eq(b.ix.h->channels, 8);
    cr_assert_eq(b.ix.layout, configurations[i]);
    drop(&b);
  }
}
