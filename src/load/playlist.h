// What a player reads before it plays: HLS multivariant and media playlists, and DASH MPDs in the SegmentTimeline form.
// Parsed for real from the response's bytes into compact lists of paths. Source: RFC 8216bis, ISO/IEC 23009-1.
#pragma once
#include "base/alloc.h"
#include "base/err.h"

enum { PLAYLIST_MAX_RENDITIONS = 32, PLAYLIST_MAX_SEGMENTS = 200000, PLAYLIST_MAX_URI = 512, PLAYLIST_MAX_SECONDS = 1000000000 };

// One rendition that can be chosen. HLS: `uri` is its media playlist; DASH: the whole list is known already.
struct rendition {
  uint32_t bandwidth; // bits per second
  char codecs[32];
  char uri[PLAYLIST_MAX_URI]; // absolute path
};

struct renditions {
  uint32_t num;
  struct rendition r[PLAYLIST_MAX_RENDITIONS];
};

// The KIDs that a playlist says for one track. There is one, whoever it is said to; a second one that differs is enough to see that.
struct playlist_kids {
  uint32_t num;
  uint8_t kid[2][16];
};

// A media playlist: paths and durations of its segments. `uris` holds the paths NUL-terminated, back to back.
struct media_list {
  char init[PLAYLIST_MAX_URI];
  struct playlist_kids kids;
  uint32_t num;
  bool has_gaps;   // it can say that nothing plays for a time (MPD); else its segments follow each other, whatever their decode times
  double *start_s; // num + 1: when each segment starts; the last is the end
  uint32_t *uri_off;
  char *uris;
};

static inline void playlist_kids_add(struct playlist_kids *k, const uint8_t kid[16]) {
  if (k->num < 2 && (!k->num || memcmp(k->kid[0], kid, 16) != 0))
    memcpy(k->kid[k->num++], kid, 16);
}

// hls_read_multivariant and hls_read_media parse a playlist fetched from the absolute path `base`.
// Errors: ERR_SYNTAX, ERR_LIMIT, ERR_NO_MEMORY; diag->at is the line.
MUST_USE enum err hls_read_multivariant(struct renditions *out, struct bytes text, const char *base, struct diag *diag);
MUST_USE enum err hls_read_media(struct media_list *out, struct alloc *mem, struct bytes text, const char *base, struct diag *diag);

// mpd_read lists the renditions of an MPD; with `media` not NULL it also expands representation number `choose`.
MUST_USE enum err mpd_read(struct renditions *out, struct media_list *media, uint32_t choose, struct alloc *mem, struct bytes text,
                           const char *base, struct diag *diag);

// uri_resolve joins a reference to the absolute path of the document it stands in: RFC 3986 §5.2 for the forms that
// playlists use (relative, absolute path, full URL of any host: its path is taken). What no URI may hold, as a blank, is
// percent-encoded, as browsers do. Errors: ERR_LIMIT.
MUST_USE enum err uri_resolve(char out[PLAYLIST_MAX_URI], const char *base, struct bytes ref);

// uri_of_asset writes "/ASSET/REST" with the asset's name, which is arbitrary bytes, percent-encoded. Errors: ERR_LIMIT.
MUST_USE enum err uri_of_asset(char out[PLAYLIST_MAX_URI], const char *asset, const char *rest);
