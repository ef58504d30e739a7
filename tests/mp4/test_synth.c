// Every synthesised structure: the index tells the samples, and the rewritten file tells them too.
#include <criterion/criterion.h>
#include <stdlib.h>

#include "rewrite.h"
#include "synth.h"

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

static const struct synth_options *preset(const char *name) {
  for (const struct synth_options *o = synth_presets; o->name; o++)
    if (!strcmp(o->name, name))
      return o;
  cr_assert_fail("no preset %s", name);
  return NULL;
}

// One case for each preset, so that a failure has its name.
#define X_PRESETS(X)                                                                                             \
  X(plain, "plain") X(absolute, "absolute-base") X(absolute_none, "absolute-base-no-offsets")                    \
  X(implied, "implied-base") X(implied_none, "implied-base-no-offsets") X(trafs, "several-trafs")                \
  X(negative, "negative-offsets") X(negative_absolute, "negative-offsets-absolute") X(wide, "wide-boxes")        \
  X(wide_absolute, "wide-boxes-absolute") X(to_end, "last-mdat-to-end") X(offsets, "implied-offsets")            \
  X(empty_truns, "empty-truns") X(empty_implied, "empty-truns-implied") X(empty_places, "empty-truns-name-places") X(empty_traf, "empty-traf")              \
  X(reversed, "reversed-data") X(gaps, "gaps") X(before, "prft-emsg-styp") X(sidx, "sidx")                       \
  X(sidx_each, "sidx-each") X(groups, "groups") X(no_tfdt, "no-tfdt") X(no_tfdt_absolute, "no-tfdt-absolute")    \
  X(version_0, "version-0") X(version_1, "version-1-offsets") X(tfhd, "sizes-in-tfhd") X(trex, "sizes-in-trex")  \
  X(small, "sizes-0-to-33") X(zero, "sizes-0") X(one_each, "one-sample-each") X(big, "big-samples")              \
  X(many, "many-truns") X(many_reversed, "many-truns-reversed") X(folder, "folder")                              \
  X(folder_absolute, "folder-absolute") X(day, "24-hours")
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
