// Paths of the outward interface, parsed without allocation. Names are percent-decoded before they get here.
#pragma once
#include "cenc/plan.h"

enum route_kind {
  ROUTE_OTHER,    // none of these: the site decides (licence endpoint, player page) or 404
  ROUTE_MASTER,   // /<asset>/<scheme>/master.m3u8
  ROUTE_MPD,      // /<asset>/<scheme>/manifest.mpd
  ROUTE_PLAYLIST, // /<asset>/<scheme>/<epoch>/<track>/media.m3u8
  ROUTE_INIT,     // /<asset>/<scheme>/<epoch>/<track>/init.mp4
  ROUTE_SEGMENT,  // /<asset>/<scheme>/<epoch>/<track>/<n>.m4s
  ROUTE_WHOLE,    // /<asset>/<scheme>/<epoch>/<track>.mp4
};

struct route {
  enum route_kind kind;
  enum scheme scheme;
  uint32_t epoch;      // 0 for manifests of the current epoch
  uint32_t segment;    // from 0; SEGMENT only
  struct bytes path;   // all of it, without the query
  struct bytes asset;  // several path segments possible, no leading or trailing slash
  struct bytes track;  // one path segment, without extension
  uint64_t track_hash; // XXH3-64 of the path up to and including <track>: one number for (asset, scheme, epoch, track)
  uint64_t asset_hash; // XXH3-64 of the asset
};

// route_parse never fails: what does not fit is ROUTE_OTHER. Empty, "." and ".." path segments never match.
void route_parse(struct route *out, struct bytes path);
