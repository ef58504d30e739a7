// Right answers of a server under load, for the load generator to judge: small tracks in each scheme, with their playlists. The process
// ends where one cannot be made.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cenc/plan.h"
#include "load/verify.h"
#include "rewrite.h"
#include "synth.h"

enum { NUM_TRACKS = 9, MAX_SEGMENTS = 8, MEMORY = 16 << 20 };

#define SMALL .num_frags = 3, .samples_per_trun = 3, .max_size = 40
static const struct synth_options options[NUM_TRACKS] = {
    {SMALL, .name = "plain"},
    {SMALL, .truns_per_traf = 2, .trafs_per_frag = 2, .name = "several"},
    {SMALL, .base = SYNTH_BASE_ABSOLUTE, .truns_per_traf = 2, .styp = true, .prft = true, .emsg = true, .free_boxes = true, .name = "boxes"},
    {SMALL, .mdat_first = true, .groups = true, .name = "data first"},
    {SMALL, .wide = true, .sidx_each = true, .gap = 5, .name = "wide"},
    {SMALL, .min_size = 17, .sizes = SYNTH_SIZES_TREX, .aux = true, .no_tfdt = true, .name = "sizes in trex"},
    {SMALL, .min_size = 17, .sizes = SYNTH_SIZES_TFHD, .reversed = true, .truns_per_traf = 3, .offsets = true, .name = "reversed"},
    {SMALL, .empty_truns = true, .empty_traf = true, .terminator = true, .trun_v0 = true, .tfdt_v0 = true, .name = "empty"},
    {SMALL, .sizes = SYNTH_SIZES_TREX, .aux = true, .no_tfdt = true, .name = "samples without bytes"},
};

// A track in a scheme: its plan, the playlist, all of its output.
struct world {
  struct synth s;
  struct alloc_heap heap;
  struct track_index ix;
  struct ix_segments segs;
  struct protection prot;
  struct plan plan;
  struct verify_track track;
  struct media_list list;
  char init_path[PLAYLIST_MAX_URI];
  double start_s[MAX_SEGMENTS + 1];
  uint32_t uri_off[MAX_SEGMENTS], first_frag[MAX_SEGMENTS + 1];
  char uris[MAX_SEGMENTS * 32];
  uint8_t pssh[96];
  uint8_t *out;
};

static void answers_need(bool made) {
  if (!made)
    abort();
}

static const uint8_t key_bytes[16] = "sixteen byte key", kid_bytes[16] = {1, 2, 3};

static const struct aes_ops *ops(void) {
  const char *why;
  return aes_ops_best(NULL, &why);
}

static enum err read_source(void *ctx, uint64_t off, void *buf, size_t n) {
  const struct synth *s = ctx;
  if (off > s->len || n > s->len - off)
    return ERR_TRUNCATED;
  memcpy(buf, s->file + off, n);
  return ERR_OK;
}

static const struct verify_track *track_of(void *ctx, const char *asset, const char *track) {
  (void)asset, (void)track;
  return &((const struct world *)ctx)->track;
}

static bool key_of(void *ctx, const char *asset, const char *scheme, uint32_t epoch, const uint8_t kid[16], uint8_t key[16]) {
  (void)ctx, (void)asset, (void)scheme;
  memcpy(key, key_bytes, 16);
  return epoch == 7 && !memcmp(kid, kid_bytes, 16);
}

// As a key set with two systems in band says: with a KID and no data, and with data alone.
static const uint8_t pssh_bytes[2][56] = {
    {0, 0, 0, 52, 'p', 's', 's', 'h', 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 1, 1, 2, 3},
    {0, 0, 0, 36, 'p', 's', 's', 'h', 0, 0, 0, 0, 9, 9, 9, 9, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 4, 'd', 'a', 't', 'a'},
};

static struct bytes pssh_box(unsigned n) { return bytes_of(pssh_bytes[n], load_be32(pssh_bytes[n])); }

static bool pssh_of(void *ctx, const char *asset, const char *scheme, uint32_t epoch, const uint8_t kid[16], unsigned n, struct writer *w, bool *needed) {
  (void)ctx, (void)asset, (void)scheme, (void)epoch, (void)kid;
  *needed = true;
  if (n < 2)
    wr_bytes(w, pssh_box(n));
  return n < 2;
}

static void write_list(struct world *w, const char *asset) {
  uint64_t ticks = 0;
  size_t used = 0;
  const char *scheme = scheme_name(w->prot.scheme);
  w->list = (struct media_list){.num = w->segs.num, .start_s = w->start_s, .uri_off = w->uri_off, .uris = w->uris};
  for (uint32_t i = 0; i <= w->segs.num; i++) {
    w->start_s[i] = (double)ticks / w->ix.h->timescale;
    for (uint32_t f = w->first_frag[i]; i < w->segs.num && f < w->first_frag[i + 1]; f++)
      ticks += w->ix.frags[f].duration_ticks;
    if (i == w->segs.num)
      break;
    w->uri_off[i] = (uint32_t)used;
    used += (size_t)snprintf(w->uris + used, sizeof w->uris - used, "/%s/%s/7/t/%u.m4s", asset, scheme, i + 1) + 1;
  }
  snprintf(w->init_path, sizeof w->init_path, "/%s/%s/7/t/init.mp4", asset, scheme);
  w->list.init = w->init_path;
}

// Renders all of the output under w->prot, for paths of this asset.
static void answer_as(struct world *w, const char *asset) {
  answers_need(!plan_init(&w->plan, &w->ix, &w->segs, &w->prot, NULL));
  w->out = malloc(w->plan.total_len);
  answers_need(w->out);
  plan_render(&w->plan, ops(), (struct plan_range){0, w->plan.total_len}, bytes_of(w->s.file, w->s.len), 0, w->out);
  write_list(w, asset);
}

static struct world *world_of(unsigned track, enum scheme scheme) {
  static struct world *all[NUM_TRACKS][SCHEME_COUNT];
  struct bytes blob, file;
  struct diag d = {0};
  if (all[track][scheme])
    return all[track][scheme];
  struct world *w = all[track][scheme] = calloc(1, sizeof *w);
  answers_need(w);
  synth_make(&w->s, &options[track]);
  alloc_heap_init(&w->heap, MEMORY);
  file = bytes_of(w->s.file, w->s.len);
  struct mp4_source src = memory_source(&file, w->s.part_ends, w->s.num_parts);
  answers_need(!ix_build(&w->heap.base, &blob, &src, &(struct ix_identity){.size = w->s.len}, &d) && !ix_open(&w->ix, blob, &d));
  w->segs.num = ix_segment_count(&w->ix, 0);
  answers_need(w->segs.num <= MAX_SEGMENTS);
  ix_segment_fill(&w->ix, 0, w->first_frag);
  w->segs.first_frag = w->first_frag;
  w->prot = (struct protection){.scheme = scheme, .iv = {9, 8, 7}};
  memcpy(w->prot.kid, kid_bytes, 16);
  struct writer both = wr_of(w->pssh, sizeof w->pssh);
  for (unsigned n = 0; n < 2; n++)
    wr_bytes(&both, pssh_box(n));
  answers_need(wr_ok(&both));
  w->prot.pssh = bytes_of(w->pssh, scheme == SCHEME_CLEAR ? 0 : both.n);
  ops()->key_init(&w->prot.key, key_bytes);
  w->track = (struct verify_track){&w->ix, read_source, &w->s};
  answer_as(w, "a");
  return w;
}

static struct bytes part_of(const struct world *w, uint32_t which) {
  struct plan_range r = which ? plan_segment_range(&w->plan, which - 1) : plan_init_range(&w->plan);
  return bytes_of(w->out + r.off, r.len);
}
