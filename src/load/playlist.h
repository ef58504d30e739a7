// What a player reads before it plays: HLS multivariant and media playlists, DASH MPDs, the sidx of a file.
// Parsed for real from the response's bytes into compact lists of paths. Source: RFC 8216bis, ISO/IEC 23009-1, ISO/IEC 14496-12 §8.16.3.
#pragma once
#include "base/alloc.h"
#include "base/err.h"

enum {
  PLAYLIST_MAX_RENDITIONS = 32,
  PLAYLIST_MAX_SEGMENTS = 200000,
  PLAYLIST_MAX_URI = 512,
  PLAYLIST_MAX_SECONDS = 1000000000,
  PLAYLIST_MAX_ORIGIN = 320,
  PLAYLIST_MAX_URL = PLAYLIST_MAX_ORIGIN + PLAYLIST_MAX_URI
};

// The renditions that can be chosen. HLS: `uri` is the media playlist of each, an absolute path; DASH: only their number, the whole
// list is known already.
struct renditions {
  uint32_t num;
  char uri[PLAYLIST_MAX_RENDITIONS][PLAYLIST_MAX_URI];
};

// The KIDs that a playlist says for one track. There is one, whoever it is said to; a second one that differs is enough to see that.
struct playlist_kids {
  uint32_t num;
  uint8_t kid[2][16];
};

// A part of a resource; all of it where `len` is 0.
struct byte_range {
  uint64_t from, len;
};

// Segments from `first` on need this init segment, up to the next part.
struct media_part {
  uint32_t first;
  const char *init; // its path; "": none (MPEG-TS, packed audio, files that hold their own)
  struct byte_range range;
};

// A media playlist: paths and durations of its segments. `uris` holds the paths NUL-terminated, back to back; one that comes
// again next stands there once.
struct media_list {
  const char *init; // of the first part
  struct media_part *parts;
  struct playlist_kids kids;
  uint32_t num, num_parts;
  bool has_gaps;   // it can say that nothing plays for a time (MPD); else its segments follow each other, whatever their decode times
  double *start_s; // num + 1: when each segment starts; the last is the end
  uint32_t *uri_off;
  char *uris;
  struct byte_range *ranges; // of the segments; NULL: each is a whole resource
  // An MPD that leaves its segments to a sidx: where that lies. `num` is 0, and sidx_read makes the list. NULL: there is none.
  const char *index;
  struct byte_range index_range;
};

static inline void playlist_kids_add(struct playlist_kids *k, const uint8_t kid[16]) {
  if (k->num < 2 && (!k->num || memcmp(k->kid[0], kid, 16) != 0))
    memcpy(k->kid[k->num++], kid, 16);
}

// media_part_of gives the part that segment `seg` belongs to.
const struct media_part *media_part_of(const struct media_list *l, uint32_t seg);

// `base` is below where a document was fetched from: its URL ("http://HOST:PORT/PATH", percent-encoded), or its absolute path alone where no
// origin is known; a reference to another origin than that is ERR_UNSUPPORTED.

// hls_read_multivariant and hls_read_media parse a playlist. Errors: ERR_SYNTAX, ERR_LIMIT, ERR_UNSUPPORTED, ERR_NO_MEMORY;
// diag->at is the line. hls_is_media tells a media playlist from a multivariant one.
MUST_USE enum err hls_read_multivariant(struct renditions *out, struct bytes text, const char *base, struct diag *diag);
MUST_USE enum err hls_read_media(struct media_list *out, struct alloc *mem, struct bytes text, const char *base, struct diag *diag);
bool hls_is_media(struct bytes text);

// mpd_read lists the renditions of an MPD, the audio of its first Period that has some; with `media` not NULL it also expands
// representation number `choose`, through all Periods. Errors as above.
MUST_USE enum err mpd_read(struct renditions *out, struct media_list *media, uint32_t choose, struct alloc *mem, struct bytes text,
                           const char *base, struct diag *diag);

// sidx_read makes the list of segments of `mpd`, whose `index` was answered with `body`. Errors: ERR_SYNTAX, ERR_LIMIT, ERR_NO_MEMORY.
MUST_USE enum err sidx_read(struct media_list *out, struct alloc *mem, struct bytes body, const struct media_list *mpd, struct diag *diag);

// uri_resolve joins a reference to `base` and gives the absolute path: RFC 3986 §5.2, without the fragment. What no URI may
// hold, as a blank, is percent-encoded, as browsers do. Errors: ERR_LIMIT; ERR_UNSUPPORTED: it leads to another origin.
MUST_USE enum err uri_resolve(char out[PLAYLIST_MAX_URI], const char *base, struct bytes ref);

// uri_refused says why uri_resolve did not take `ref`.
enum err uri_refused(struct diag *diag, enum err e, uint64_t line, struct bytes ref);

// uri_is_absolute says whether a reference names its host.
bool uri_is_absolute(struct bytes ref);

// uri_of_asset writes "/ASSET/REST" with the asset's name, which is arbitrary bytes, percent-encoded. Errors: ERR_LIMIT.
MUST_USE enum err uri_of_asset(char out[PLAYLIST_MAX_URI], const char *asset, const char *rest);

// content_range_wrong says what is wrong with a Content-Range ("": there is none) where these bytes were asked for, the first and the
// last, of so many (0: nobody knows). "": nothing is. Source: RFC 9110 §14.4, §15.3.7.
enum { CONTENT_RANGE_WHY = 240 };
void content_range_wrong(char why[CONTENT_RANGE_WHY], const char *text, uint64_t from, uint64_t to, uint64_t of);

// byte_range_read reads "FROM-TO" (DASH). False: it is something else, or empty.
bool byte_range_read(struct byte_range *out, struct bytes text);
