// An asset without files, and what its manifests are. A header, so that each test has its own.
#pragma once

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "manifest/manifest.h"
#include "mp4/codec.h"

// An index by hand: one fragment a segment, sizes and times as asked. Only what manifests read is filled.
struct asset {
  struct ix_header h[12];
  struct track_index ix[12];
  struct ix_frag *frags[12];
  struct ix_segments segs[12];
  uint32_t *first[12];
  struct protection prot[12];
  struct plan plan[12];
  struct key_record key[12];
  struct man_track tracks[12];
  struct drm_settings set;
  struct man_asset a;
};

static inline void add(struct asset *s, const char *name, const char *codecs, uint32_t timescale, uint32_t num,
                const uint32_t *ticks, const uint32_t *bytes, uint64_t start) {
  uint32_t t = s->a.num_tracks++;
  s->frags[t] = calloc(num + 1, sizeof(struct ix_frag));
  s->first[t] = calloc(num + 1, sizeof(uint32_t));
  uint64_t at = start, off = 0;
  for (uint32_t i = 0; i <= num; i++) {
    s->first[t][i] = i;
    s->frags[t][i] = (struct ix_frag){.out_off = off, .time_ticks = i < num ? at : 0, .first_sample = i};
    if (i == num)
      break;
    s->frags[t][i].out_len = bytes[i % 8];
    s->frags[t][i].duration_ticks = ticks[i % 8];
    off += bytes[i % 8];
    at += ticks[i % 8];
  }
  s->h[t] = (struct ix_header){.timescale = timescale, .format = FOURCC('m', 'p', '4', 'a'), .sample_rate = timescale,
                               .channels = 2, .num_frags = num, .avg_bitrate = bytes[0], .language = "und"};
  snprintf(s->h[t].codecs, sizeof s->h[t].codecs, "%s", codecs);
  s->ix[t] = (struct track_index){.h = &s->h[t], .frags = s->frags[t]};
  s->segs[t] = (struct ix_segments){num, s->first[t]};
  s->plan[t] = (struct plan){.ix = &s->ix[t], .segs = &s->segs[t], .prot = &s->prot[t], .init_len = 700, .sidx_len = 44};
  s->tracks[t] = (struct man_track){bytes_str(name), &s->ix[t], &s->segs[t], &s->plan[t], NULL};
  s->a.tracks = s->tracks;
  s->a.epoch = 1;
  s->a.drm = &s->set;
}

static inline void drop(struct asset *s) {
  for (uint32_t t = 0; t < s->a.num_tracks; t++) {
    free(s->frags[t]);
    free(s->first[t]);
  }
}

static char out[1 << 16];

static inline const char *hls(const struct asset *s, uint32_t track, enum man_form form) {
  struct writer w = wr_of(out, sizeof out - 1);
  man_hls_media(&w, &s->a, track, form);
  out[w.n] = 0;
  return out;
}

static inline const char *mpd(const struct asset *s, enum man_form form) {
  struct writer w = wr_of(out, sizeof out - 1);
  man_dash(&w, &s->a, form);
  out[w.n] = 0;
  return out;
}

static inline const char *master(const struct asset *s) {
  struct writer w = wr_of(out, sizeof out - 1);
  man_hls_master(&w, &s->a, MAN_SEGMENTS);
  out[w.n] = 0;
  return out;
}

static const uint32_t even[8] = {96000, 96000, 96000, 96000, 96000, 96000, 96000, 96000};
static const uint32_t sizes[8] = {1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000};

static inline bool has(const char *text, const char *part) { return strstr(text, part) != NULL; }

static inline unsigned count(const char *text, const char *part) {
  unsigned n = 0;
  for (; (text = strstr(text, part)); text++)
    n++;
  return n;
}

static inline unsigned sets(const char *x) { return count(x, "<AdaptationSet "); }

// An hour without samples behind the first of three segments. RFC 8216bis 4.4.4.1: EXTINF is what the segment lasts.
static inline void add_with_gap(struct asset *s) {
  uint32_t t = s->a.num_tracks;
  add(s, t ? "b" : "a", "mp4a.40.2", 48000, 3, even, sizes, 0);
  s->h[t].frame_samples = 1024;
  s->frags[t][1].time_ticks += 3600ull * 48000;
  s->frags[t][2].time_ticks += 3600ull * 48000;
}

// A track of 2 s segments at so many kilobits a second.
static inline void add_spoken(struct asset *s, const char *name, const char *codecs, const char *language, uint32_t kbits) {
  uint32_t bytes[8], t = s->a.num_tracks;
  for (int i = 0; i < 8; i++)
    bytes[i] = kbits * 250;
  add(s, name, codecs, 48000, 4, even, bytes, 0);
  s->h[t].avg_bitrate = kbits * 1000;
  snprintf(s->h[t].language, sizeof s->h[t].language, "%s", language);
  s->h[t].format = !strcmp(codecs, "flac") ? FOURCC('f', 'L', 'a', 'C') : !strcmp(codecs, "ec-3") ? FOURCC('e', 'c', '-', '3')
                                                                                             : FOURCC('m', 'p', '4', 'a');
}
