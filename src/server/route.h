// What a request path asks for (docs: "Paths"). Pure: decides by form alone, touches no table and no file.
#pragma once
#include "cenc/plan.h"

enum route_kind {
  ROUTE_NONE,           // 404
  ROUTE_MASTER,         // <asset>/<scheme>/master.m3u8
  ROUTE_MASTER_RANGES,  // <asset>/<scheme>/byterange.m3u8: the same tracks as byte ranges of whole files
  ROUTE_MPD,            // <asset>/<scheme>/manifest.mpd
  ROUTE_MPD_RANGES,     // <asset>/<scheme>/ondemand.mpd
  ROUTE_MEDIA,          // <asset>/<scheme>/<epoch>/<track>/media.m3u8
  ROUTE_MEDIA_RANGES,   // <asset>/<scheme>/<epoch>/<track>/byterange.m3u8
  ROUTE_INIT,           // <asset>/<scheme>/<epoch>/<track>/init.mp4
  ROUTE_SEGMENT,        // <asset>/<scheme>/<epoch>/<track>/<n>.m4s
  ROUTE_FILE,           // <asset>/<scheme>/<epoch>/<track>.mp4
  ROUTE_KEY,            // <asset>/<scheme>/<epoch>/<track>/key: GET, only under --insecure-clearkey
  ROUTE_LICENCE,        // <asset>/<scheme>/<epoch>/license: POST (and OPTIONS), only under --insecure-clearkey
};

enum { ROUTE_PATH_MAX = 1024 };

struct route {
  enum route_kind kind;
  enum scheme scheme;
  uint32_t epoch;     // 0: current (manifests)
  uint32_t segment;   // ROUTE_SEGMENT: from 1
  struct bytes asset; // "album/track": slices of `path`
  struct bytes track; // without ".mp4"
};

// route_parse reads an absolute path: percent-decoded, without query. Nothing but the forms above is accepted: empty
// segments, ".", "..", names starting with '.', NUL and control bytes, numbers with leading zeros give ROUTE_NONE.
void route_parse(struct route *out, struct bytes path);

// route_fits says whether every URL of a track is short enough.
bool route_fits(struct bytes asset, struct bytes track);

// route_names says whether a segment of a path can be this name, so that a URL can have it.
bool route_names(struct bytes name);
