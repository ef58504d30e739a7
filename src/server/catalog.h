// The catalogue: from names in a URL to something that can be rendered. Workers ask without locks and never wait: what is
// not at hand is made by helper threads, once for everybody who asks, and the asker is woken.
//
// Lifetime. Pointers that a lookup returns are good until the worker's next quiet point (cache/quiet.h); who keeps one
// longer (a response in pieces) takes a hold. After a wake the result stands in the wait with a hold of its own.
#pragma once
#include "cache/cache.h"
#include "cache/quiet.h"
#include "cenc/plan.h"
#include "obs/metrics.h"
#include "server/options.h"
#include "server/route.h"

struct catalog;
struct source; // one clear track: identity, index, reading (server/source.h)

// A track under one scheme and epoch. Immutable. A file that changed gets a new one.
struct protected_track {
  struct plan plan;
  struct protection prot;
  struct source *source;
  uint64_t source_id;   // unique in this process for one state of one source: key of the segment cache
  uint64_t generation;  // unique in this process for this struct: a key for caches of rendered bytes
  uint32_t epoch;
  char etag[17];        // 16 hex digits, equal on every node; entity tags are "<etag>-<n>", "<etag>-i", "<etag>-f"
  _Atomic bool is_hot;  // some of it was put in the cache of encrypted segments
  _Atomic uint32_t holds;
};

// A playlist or MPD. Immutable.
struct text_doc {
  struct bytes body;
  const char *content_type;
  bool immutable;       // below an epoch: cache for a year; else config manifest_max_age
  bool no_store;        // a key
  char etag[17];        // the entity tag
  _Atomic uint32_t holds;
};

// Bytes of a source in memory of their own: what the segment cache did not take.
struct block {
  const uint8_t *p;
  size_t n;
  uint64_t src_off;     // source address of p[0]
};

// What a lookup answers: an HTTP status, or that the asker will be woken.
enum {
  CAT_WAIT = 0,         // `w` is taken: wake will be called once, from another thread
  CAT_OK = 200,
  CAT_BAD_REQUEST = 400,
  CAT_FORBIDDEN = 403,  // scheme not allowed for this asset
  CAT_NOT_FOUND = 404,  // also media that cannot be served: manifests leave them out
  CAT_GONE = 410,       // epoch past its grace or revoked
  CAT_UNAVAILABLE = 503 // no key, storage that cannot be read, or too much work queued, now: Retry-After
};

// Embedded in a request, zeroed before its first use for one lookup. It must stay until `wake` was called, even when its
// connection is gone; there is no cancel. `wake` runs on a helper thread: it hands the wait to its worker (a queue and an
// eventfd), no more. The worker then looks at `status`, never CAT_WAIT, and with CAT_OK at the result:
//   catalog_track, catalog_text: `track` or `text`, with a hold to drop;
//   track_source: `block` to block_free after use, or, when it is NULL, the call is to be made again with the same wait.
struct cat_wait {
  void (*wake)(struct cat_wait *w);
  int status;
  uint8_t why;       // with an error, also when it is the call's own answer: enum obs_error; 0: the status says it
  uint64_t retry_ms; // with CAT_UNAVAILABLE, also when it is the call's own answer: how long until asking may help; 0: not known
  struct protected_track *track;
  struct text_doc *text;
  struct block *block;
  struct cat_wait *next; // the rest is the catalogue's
  struct cache_waiter cache;
  unsigned tries;
};

// catalog_track: `r` is ROUTE_INIT, ROUTE_SEGMENT or ROUTE_FILE. now_ms: CLOCK_MONOTONIC (coarse is fine).
int catalog_track(struct catalog *c, struct protected_track **out, const struct route *r, uint64_t now_ms,
                  struct obs_worker *m, struct cat_wait *w);

// catalog_text: `r` is a playlist, an MPD (those above the epoch are of the epoch that is current now) or ROUTE_KEY.
int catalog_text(struct catalog *c, struct text_doc **out, const struct route *r, uint64_t now_ms, struct obs_worker *m,
                 struct cat_wait *w);

// track_resource gives the output range of ROUTE_INIT, ROUTE_SEGMENT (false: no such segment) or ROUTE_FILE.
bool track_resource(const struct protected_track *t, const struct route *r, struct plan_range *out);

// Large responses are rendered in pieces: pieces tile the output. Header (init and sidx) is one, a segment is one unless
// it is huge: then each TRACK_PIECE_MAX of it. track_piece gives the one that holds output offset `off` < plan.total_len.
enum { TRACK_PIECE_MAX = 1 << 20, TRACK_SEGMENT_MAX = 4 << 20 };
struct plan_range track_piece(const struct protected_track *t, uint64_t off);

// track_source gives source bytes for rendering any range inside the piece that holds `off`:
// plan_render(&t->plan, ops, range, *out, *src_off, buffer). The header piece needs none: CAT_OK with an empty slice.
// `*out` is good until the next quiet point.
int track_source(struct catalog *c, struct protected_track *t, struct bytes *out, uint64_t *src_off, uint64_t off,
                 struct obs_worker *m, struct cat_wait *w);

// track_ahead gives the source bytes of the piece at `off`, if they are in the cache and will be needed: empty when they are
// not, when a request for the piece would not read them (clear, or encrypted already), and for pieces that track_source reads
// aside. Counts nothing. Good until the next quiet point.
struct bytes track_ahead(struct catalog *c, const struct protected_track *t, uint64_t off);

// track_ask asks memory for what rendering the piece at `off` reads besides its source: of the index, and of the cache's table.
// To be called when a request for it is known, some hundred nanoseconds before it is answered or more.
void track_ask(const struct catalog *c, const struct protected_track *t, uint64_t off);

// The cache of encrypted segments, for what many ask for at the same time: a piece in a memory file, ready for sendfile.
struct hot {
  struct protected_track *track;
  int fd;
  uint64_t off;
  struct cache_ref ref;
};
enum hot_got {
  HOT_NONE, // render as always
  HOT_SEND, // the piece's bytes are at `off` of `fd`, and at ref.data, until the next quiet point
  HOT_FILL, // asked for often: render the piece to ref.data, then catalog_hot_done; then as HOT_SEND
};
enum hot_got catalog_hot(struct catalog *c, struct hot *out, struct protected_track *t, struct plan_range piece,
                         bool may_fill, struct obs_worker *m);
void catalog_hot_done(struct catalog *c, struct hot *h, bool ok);
bool catalog_is_hot(struct catalog *c, const struct protected_track *t, struct plan_range piece); // HOT_SEND is to come

// Holds. Drops may be called from any thread; the last one retires the thing.
static inline void track_hold(struct protected_track *t) { atomic_fetch_add_explicit(&t->holds, 1, memory_order_relaxed); }
static inline void text_hold(struct text_doc *d) { atomic_fetch_add_explicit(&d->holds, 1, memory_order_relaxed); }
void track_drop(struct catalog *c, struct protected_track *t);
void text_drop(struct catalog *c, struct text_doc *d);
void block_free(struct block *b);

// blocks_are_scarce: half of the memory for blocks is taken. Who waits for a client that takes nothing gives its own back soon then, and
// asks for it again.
bool blocks_are_scarce(const struct catalog *c);

// catalog_stop ends the helper threads, having woken everybody: for when workers have ended but their memory is still there.
void catalog_stop(struct catalog *c); // twice is fine, NULL too

// catalog_licence answers a W3C ClearKey licence request (JSON, ROUTE_LICENCE) into `out`: CAT_OK, 400, 403 (not under
// --insecure-clearkey), 404, 410, 503 (the key is being fetched). It reads no file.
int catalog_licence(struct catalog *c, struct writer *out, const struct route *r, struct bytes body, struct obs_worker *m);
