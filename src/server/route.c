#include "server/route.h"

#include "base/text.h"
#include "keys/epochs.h"

// An asset's name has as many segments as one that can be rotated; four more stand behind it: scheme, epoch, track, leaf.
enum { MAX_ASSET = EPOCH_MAX_DEPTH + 1, MAX_SEGMENTS = MAX_ASSET + 4 };

bool route_fits(struct bytes asset, struct bytes track) {
  static const char most[] = "//cbcs/4294967295//4294967295.m4s"; // as long as /byterange.m3u8
  return asset.n + track.n + sizeof most - 1 <= ROUTE_PATH_MAX;
}

bool route_names(struct bytes s) { return !url_name_fault(s); }

// A decimal number from 1 without leading zeros.
static bool number(uint32_t *out, struct bytes s) {
  uint64_t v;
  if (s.n == 0 || s.n > 10 || s.p[0] == '0' || parse_u64(&v, s) || v > UINT32_MAX)
    return false;
  *out = (uint32_t)v;
  return true;
}

static bool strip(struct bytes *s, struct bytes suffix) {
  if (s->n <= suffix.n || memcmp(s->p + s->n - suffix.n, suffix.p, suffix.n) != 0)
    return false;
  s->n -= suffix.n;
  return true;
}

static const struct {
  struct bytes name;
  enum route_kind kind;
} below_scheme[] = {
    {BYTES_LIT("master.m3u8"), ROUTE_MASTER},
    {BYTES_LIT("byterange.m3u8"), ROUTE_MASTER_RANGES},
    {BYTES_LIT("manifest.mpd"), ROUTE_MPD},
    {BYTES_LIT("ondemand.mpd"), ROUTE_MPD_RANGES},
}, below_track[] = {
    {BYTES_LIT("init.mp4"), ROUTE_INIT},
    {BYTES_LIT("media.m3u8"), ROUTE_MEDIA},
    {BYTES_LIT("byterange.m3u8"), ROUTE_MEDIA_RANGES},
    {BYTES_LIT("key"), ROUTE_KEY},
};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static enum route_kind track_leaf(struct route *r, struct bytes leaf) {
  for (size_t i = 0; i < COUNT(below_track); i++)
    if (bytes_eq(leaf, below_track[i].name))
      return below_track[i].kind;
  if (strip(&leaf, BYTES_LIT(".m4s")) && number(&r->segment, leaf))
    return ROUTE_SEGMENT;
  return ROUTE_NONE;
}

// Everything in front of segment `i`, without slashes at its ends.
static struct bytes before(struct bytes path, const struct bytes *seg, unsigned i) {
  return bytes_of(path.p + 1, (size_t)(seg[i].p - path.p) - 2);
}

// The forms are told apart from the right: <scheme>/<leaf>, <scheme>/<epoch>/<leaf>, <scheme>/<epoch>/<track>/<leaf>.
static void classify(struct route *r, struct bytes path, const struct bytes *seg, unsigned n) {
  struct bytes leaf = seg[n - 1];
  if (n >= 4 && n - 3 <= MAX_ASSET && number(&r->epoch, seg[n - 2]) && !scheme_parse(&r->scheme, seg[n - 3])) {
    r->asset = before(path, seg, n - 3);
    if (bytes_eq(leaf, BYTES_LIT("license"))) {
      r->kind = ROUTE_LICENCE;
    } else if (strip(&leaf, BYTES_LIT(".mp4"))) {
      r->track = leaf;
      r->kind = ROUTE_FILE;
    }
    if (r->kind != ROUTE_NONE)
      return;
  }
  if (n >= 5 && number(&r->epoch, seg[n - 3]) && !scheme_parse(&r->scheme, seg[n - 4])) {
    r->asset = before(path, seg, n - 4);
    r->track = seg[n - 2];
    r->kind = track_leaf(r, leaf);
    if (r->kind != ROUTE_NONE)
      return;
  }
  r->epoch = 0; // that was part of a name, as in /artist/clear/7/cbcs/master.m3u8
  r->track = (struct bytes){0};
  if (n >= 3 && n - 2 <= MAX_ASSET && !scheme_parse(&r->scheme, seg[n - 2])) {
    r->asset = before(path, seg, n - 2);
    for (size_t i = 0; i < COUNT(below_scheme); i++)
      if (bytes_eq(leaf, below_scheme[i].name))
        r->kind = below_scheme[i].kind;
  }
}

void route_parse(struct route *out, struct bytes path) {
  struct bytes seg[MAX_SEGMENTS];
  unsigned n = 0;
  *out = (struct route){.kind = ROUTE_NONE};
  if (path.n < 2 || path.n > ROUTE_PATH_MAX || path.p[0] != '/')
    return;
  for (size_t start = 1, i = 1; i <= path.n; i++) {
    if (i < path.n && path.p[i] != '/')
      continue;
    struct bytes s = bytes_of(path.p + start, i - start);
    if (n == MAX_SEGMENTS || !route_names(s))
      return;
    seg[n++] = s;
    start = i + 1;
  }
  classify(out, path, seg, n);
  if (out->kind == ROUTE_NONE)
    *out = (struct route){.kind = ROUTE_NONE};
}
