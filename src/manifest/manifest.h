// HLS playlists and DASH MPDs from indexes, plans and keys. Every function appends to the caller's writer and
// allocates nothing: call it with wr_of(NULL, 0) to measure, then with a buffer of that many bytes.
//
// URIs are relative, as in docs (Paths), and percent-encoded: names are arbitrary bytes.
//   /<asset>/<scheme>/master.m3u8        man_hls_master, MAN_SEGMENTS
//   /<asset>/<scheme>/byterange.m3u8     man_hls_master, MAN_RANGES
//   /<asset>/<scheme>/manifest.mpd       man_dash, MAN_SEGMENTS
//   /<asset>/<scheme>/ondemand.mpd       man_dash, MAN_RANGES
//   /<asset>/<scheme>/<epoch>/<track>/media.m3u8       man_hls_media, MAN_SEGMENTS
//   /<asset>/<scheme>/<epoch>/<track>/byterange.m3u8   man_hls_media, MAN_RANGES: ranges of ../<track>.mp4
//   /<asset>/<scheme>/<epoch>/<track>/key              the 16 raw bytes of `identity` (--insecure-clearkey only)
//   /<asset>/<scheme>/<epoch>/license                  ClearKey licences (--insecure-clearkey only)
#pragma once
#include "base/writer.h"
#include "cenc/plan.h"
#include "drm/drm.h"

// One track (Representation, rendition). `plan` was made from `ix`, `segs` and the key's protection.
struct man_track {
  struct bytes name; // the track's file or folder name, any bytes but '/' and NUL
  const struct track_index *ix;
  const struct ix_segments *segs;
  const struct plan *plan;
  const struct key_record *key; // NULL for SCHEME_CLEAR
};

struct man_asset {
  struct bytes name;
  enum scheme scheme;
  uint32_t epoch;
  const struct man_track *tracks; // any order; each document orders them itself
  uint32_t num_tracks;            // at most MAN_MAX_TRACKS; 0 gives an empty document
  const struct drm_settings *drm;
};

enum { MAN_MAX_TRACKS = 64 };

// How media is addressed.
enum man_form {
  MAN_SEGMENTS, // init.mp4 and <n>.m4s
  MAN_RANGES,   // byte ranges of the whole virtual file
};

// man_hls_master writes the multivariant playlist: one variant for each track, or each rung where there are languages.
void man_hls_master(struct writer *w, const struct man_asset *a, enum man_form form);

// man_hls_media writes the media playlist of a->tracks[track].
void man_hls_media(struct writer *w, const struct man_asset *a, uint32_t track, enum man_form form);

// man_dash writes the MPD: SegmentTemplate with SegmentTimeline, or SegmentBase with the sidx.
void man_dash(struct writer *w, const struct man_asset *a, enum man_form form);
