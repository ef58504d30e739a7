// What the workers answer from: the seam between transport (worker.c, request.c) and content (configuration,
// catalogue, keys, manifests, cache). Functions here are called on a worker's thread, never block, never
// allocate; what would take long is a job for the site's own threads.
//
// Lifetime: pointers handed out stay valid until the worker's next site_quiet; a response that outlives that takes a
// reference with ptrack_ref / doc_ref (atomic, slow path only) and gives it back.
#pragma once
#include "base/writer.h"
#include "server/route.h"
#include <stdatomic.h>

struct cache;
struct site;
struct track_files;

// A track under one (scheme, epoch): everything that its responses need. Immutable but for refs and cached sources.
struct ptrack {
  struct plan plan;
  const struct track_files *source; // files and their identity (storage/source.h)
  uint64_t etag;               // changes when any output byte could: digest, scheme, epoch, key, IV, format version
  uint64_t source_id;          // cache key of the clear bytes: same for all schemes and epochs of one source identity
  _Atomic uint32_t refs;
};

// A small immutable body: manifest, playlist, key, page.
struct doc {
  struct bytes body;
  uint64_t etag;            // 0: none
  const char *content_type;
  uint32_t max_age_s;       // 0: no-cache
  bool immutable, no_store;
  _Atomic uint32_t refs;
};

enum found_kind {
  FOUND_STATUS, // answer with `status`
  FOUND_TRACK,  // bytes `range` of the plan of `track`
  FOUND_DOC,
  FOUND_LATER,  // not at hand: site_prepare, then ask again
};

struct found {
  enum found_kind kind;
  uint16_t status;        // 403, 404, 405, 410, 451, 500, 503
  uint16_t retry_after_s; // 503
  const struct ptrack *track;
  struct plan_range range;
  const struct doc *doc;
};

// site_find is the lookup of every request: lock-free, a hash or two.
void site_find(struct site *s, struct found *out, const struct route *r);

// site_prepare has the site's threads load what `route` needs (sidecar, keys, manifest). `done` is called exactly once
// from one of those threads and may only post. The path is copied before the call returns.
struct site_job {
  struct route route;
  char path[1024];
  void (*done)(struct site_job *job);
  struct site_job *next; // the site's
};
void site_prepare(struct site *s, struct site_job *job);

// site_post answers a POST (ClearKey licence) from its body into `out`; returns the status, 404 when there is no such
// endpoint, 405 when the path exists without POST.
unsigned site_post(struct site *s, const struct route *r, struct bytes body, struct writer *out, const char **content_type);

// site_quiet: worker `n` holds no pointer from before. site_offline while it sleeps, true, and when it wakes, false.
void site_quiet(struct site *s, unsigned worker);
void site_offline(struct site *s, unsigned worker, bool offline);

// A fill found that the source is no longer what the index describes: forget the track, look again.
void site_source_changed(struct site *s, const struct ptrack *t);

// The cache of clear segments: key (ptrack.source_id, segment).
struct cache *site_cache(struct site *s);

void ptrack_ref(const struct ptrack *t);
void ptrack_unref(struct site *s, const struct ptrack *t);
void doc_ref(const struct doc *d);
void doc_unref(struct site *s, const struct doc *d);
