// The half of the catalogue that runs on workers: lookups, ranges and pieces. Nothing here blocks, allocates or reads a file.
#include "server/catalog.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "keys/clearkey_license.h"
#include "server/catalog_int.h"

enum {
  SOFT_FACTOR = 8, // a name not looked at for so many intervals is looked at before it is served
  FILL_TRIES = 3,
};

// The part of the path that names what is asked for; all of a track's resources share one.
static struct bytes key_of(struct route *canon, const struct route *r) {
  *canon = *r;
  const uint8_t *end;
  if (r->track.n) {
    end = r->track.p + r->track.n;
    if (r->kind == ROUTE_SEGMENT || r->kind == ROUTE_FILE)
      canon->kind = ROUTE_INIT;
    canon->segment = 0;
  } else {
    end = r->asset.p + r->asset.n + 1 + strlen(scheme_name(r->scheme));
  }
  return bytes_of(r->asset.p, (size_t)(end - r->asset.p));
}

uint64_t entry_hash(const struct catalog *c, struct bytes key, enum route_kind kind) {
  return XXH3_64bits_withSeed(key.p, key.n, c->hash_seed + (uint64_t)kind);
}

struct entry *entry_find(struct catalog *c, uint64_t hash, enum route_kind kind, struct bytes key) {
  struct entry *e = atomic_load_explicit(&c->buckets[hash % ENTRY_BUCKETS], memory_order_acquire);
  for (; e; e = atomic_load_explicit(&e->next, memory_order_acquire))
    if (e->hash == hash && e->route.kind == kind && e->key_len == key.n && !memcmp(e->key, key.p, key.n))
      return e;
  return NULL;
}

// Whether what an entry says holds under the rules and settings of now, whatever storage may say.
static bool holds(const struct catalog *c, const struct entry *e, uint64_t now_ms) {
  return atomic_load_explicit(&e->status, memory_order_acquire) != 0 &&
         atomic_load_explicit(&e->generation, memory_order_acquire) == atomic_load_explicit(&c->generation, memory_order_acquire) &&
         now_ms < atomic_load_explicit(&e->until_ms, memory_order_acquire);
}

static uint64_t ms_since(const _Atomic uint64_t *then, uint64_t now_ms) {
  uint64_t at = atomic_load_explicit(then, memory_order_acquire);
  return now_ms > at ? now_ms - at : 0; // another thread's clock may have been read later
}

bool entry_outlives(const struct catalog *c, const struct entry *e, uint64_t now_ms) {
  uint64_t limit = atomic_load_explicit(&c->revalidate_ms, memory_order_relaxed) * SOFT_FACTOR;
  return holds(c, e, now_ms) && atomic_load_explicit(&e->status, memory_order_relaxed) == CAT_OK &&
         ms_since(&e->checked_ms, now_ms) <= limit + atomic_load_explicit(&c->stale_ms, memory_order_relaxed);
}

bool entry_failed_lately(const struct catalog *c, const struct entry *e, uint64_t now_ms) {
  return atomic_load_explicit(&e->failed_ms, memory_order_relaxed) &&
         ms_since(&e->failed_ms, now_ms) <= atomic_load_explicit(&c->revalidate_ms, memory_order_relaxed);
}

// What an entry is comes after this, in the other order than it is published in.
enum freshness entry_freshness(struct catalog *c, struct entry *e, uint64_t now_ms) {
  if (!holds(c, e, now_ms))
    return STALE;
  uint64_t age = ms_since(&e->checked_ms, now_ms), limit = atomic_load_explicit(&c->revalidate_ms, memory_order_relaxed);
  if (age <= limit)
    return FRESH;
  bool failed = atomic_load_explicit(&e->failed_ms, memory_order_acquire) && ms_since(&e->failed_ms, now_ms) <= limit * SOFT_FACTOR;
  return age <= limit * SOFT_FACTOR || (failed && entry_outlives(c, e, now_ms)) ? AGING : STALE;
}

// Copies a route with its names moved to a copy of its key.
void route_rebase(struct route *r, const struct route *from, const char *key) {
  ptrdiff_t track = from->track.n ? from->track.p - from->asset.p : 0;
  *r = *from;
  r->asset.p = (const uint8_t *)key;
  r->track.p = (const uint8_t *)key + track;
}

uint64_t entry_retry(const struct entry *e, uint64_t now_ms) {
  uint64_t at = atomic_load_explicit(&e->retry_ms, memory_order_relaxed);
  return at > now_ms ? at - now_ms : 0;
}

bool catalog_push(struct catalog *c, enum job_kind kind, const struct route *r, struct bytes key, const struct job *rest) {
  pthread_mutex_lock(&c->queue_lock);
  bool room = c->queue_len < QUEUE_JOBS && !c->stop;
  if (room) {
    struct job *j = &c->queue[(c->queue_head + c->queue_len++) % QUEUE_JOBS];
    j->kind = kind;
    j->wait = rest->wait;
    j->since_ms = clock_mono_ms();
    j->track = rest->track;
    j->op = rest->op;
    j->ref = rest->ref;
    j->src_off = rest->src_off;
    j->src_len = rest->src_len;
    j->key_len = (uint16_t)key.n;
    if (key.n)
      memcpy(j->key, key.p, key.n);
    if (r)
      route_rebase(&j->route, r, j->key);
    pthread_cond_signal(&c->queue_wake);
  }
  pthread_mutex_unlock(&c->queue_lock);
  return room;
}

static int lookup(struct catalog *c, void **out, const struct route *r, uint64_t now_ms, _Atomic uint64_t *hits,
                  _Atomic uint64_t *misses, struct cat_wait *w) {
  struct route canon;
  struct bytes key = key_of(&canon, r);
  uint64_t hash = entry_hash(c, key, canon.kind);
  struct entry *e = entry_find(c, hash, canon.kind, key);
  enum freshness f = e ? entry_freshness(c, e, now_ms) : STALE;
  metric_inc(f == STALE ? misses : hits);
  if (f == STALE && catalog_push(c, JOB_ENTRY, &canon, key, &(struct job){.wait = w}))
    return CAT_WAIT;
  if (f == STALE && !(e && entry_outlives(c, e, now_ms))) // else as if storage did not answer, which may be why the queue is full
    return CAT_UNAVAILABLE;
  if (!atomic_load_explicit(&e->used, memory_order_relaxed))
    atomic_store_explicit(&e->used, true, memory_order_relaxed);
  if (f == AGING && !entry_failed_lately(c, e, now_ms) && !atomic_exchange_explicit(&e->refreshing, true, memory_order_relaxed) &&
      !catalog_push(c, JOB_ENTRY, &canon, key, &(struct job){0}))
    atomic_store_explicit(&e->refreshing, false, memory_order_relaxed);
  int status = atomic_load_explicit(&e->status, memory_order_acquire);
  *out = atomic_load_explicit(&e->value, memory_order_acquire);
  w->retry_ms = status == CAT_UNAVAILABLE ? entry_retry(e, now_ms) : 0;
  w->why = atomic_load_explicit(&e->why, memory_order_relaxed);
  if (status != CAT_OK || *out)
    return status;
  // It is being replaced by an error at this moment: a helper says by which.
  return catalog_push(c, JOB_ENTRY, &canon, key, &(struct job){.wait = w}) ? CAT_WAIT : CAT_UNAVAILABLE;
}

int catalog_track(struct catalog *c, struct protected_track **out, const struct route *r, uint64_t now_ms,
                  struct obs_worker *m, struct cat_wait *w) {
  void *value = NULL;
  int status = lookup(c, &value, r, now_ms, &m->track_hits, &m->track_misses, w);
  *out = value;
  if (status == CAT_OK && atomic_load_explicit(&(*out)->source->changed, memory_order_relaxed)) {
    struct route canon;
    struct bytes key = key_of(&canon, r);
    return catalog_push(c, JOB_ENTRY, &canon, key, &(struct job){.wait = w}) ? CAT_WAIT : CAT_UNAVAILABLE;
  }
  return status;
}

int catalog_text(struct catalog *c, struct text_doc **out, const struct route *r, uint64_t now_ms, struct obs_worker *m,
                 struct cat_wait *w) {
  void *value = NULL;
  int status = lookup(c, &value, r, now_ms, &m->text_hits, &m->text_misses, w);
  *out = value;
  return status;
}

bool track_resource(const struct protected_track *t, const struct route *r, struct plan_range *out) {
  if (r->kind == ROUTE_INIT) {
    *out = plan_init_range(&t->plan);
  } else if (r->kind == ROUTE_FILE) {
    *out = (struct plan_range){0, t->plan.total_len};
  } else {
    if (r->segment == 0 || r->segment > t->plan.segs->num)
      return false;
    *out = plan_segment_range(&t->plan, r->segment - 1);
  }
  return true;
}

static uint64_t head_len(const struct plan *p) { return (uint64_t)p->init_len + p->sidx_len; }

struct plan_range track_piece(const struct protected_track *t, uint64_t off) {
  if (off < head_len(&t->plan))
    return (struct plan_range){0, head_len(&t->plan)};
  struct plan_range r = plan_segment_range(&t->plan, plan_segment_at(&t->plan, off));
  if (r.len <= TRACK_SEGMENT_MAX)
    return r;
  uint64_t start = (off - r.off) / TRACK_PIECE_MAX * TRACK_PIECE_MAX, left = r.len - start;
  return (struct plan_range){r.off + start, left < TRACK_PIECE_MAX ? left : TRACK_PIECE_MAX};
}

static void cache_ready(struct cache_waiter *cw) {
  struct cat_wait *w = (struct cat_wait *)(void *)((char *)cw - offsetof(struct cat_wait, cache));
  w->status = CAT_OK;
  w->block = NULL;
  w->wake(w);
}

static int read_aside(struct catalog *c, struct protected_track *t, struct plan_range src, struct cat_wait *w) {
  // Counted before it is queued: what waits in the queue will take its memory too.
  if (src.len > BYPASS_BYTES)
    return CAT_UNAVAILABLE;
  if (atomic_fetch_add_explicit(&c->bypass_bytes, src.len, memory_order_relaxed) > BYPASS_BYTES - src.len) {
    atomic_fetch_sub_explicit(&c->bypass_bytes, src.len, memory_order_relaxed);
    return CAT_UNAVAILABLE;
  }
  track_hold(t);
  if (catalog_push(c, JOB_BYPASS, NULL, (struct bytes){0},
               &(struct job){.wait = w, .track = t, .src_off = src.off, .src_len = (uint32_t)src.len}))
    return CAT_WAIT;
  atomic_fetch_sub_explicit(&c->bypass_bytes, src.len, memory_order_relaxed);
  track_drop(c, t);
  return CAT_UNAVAILABLE;
}

// The source bytes of a segment, and whether they go through the cache.
static bool segment_source(const struct protected_track *t, uint32_t seg, struct plan_range *src) {
  const struct ix_frag *first = &t->plan.ix->frags[t->plan.segs->first_frag[seg]];
  const struct ix_frag *last = &t->plan.ix->frags[t->plan.segs->first_frag[seg + 1] - 1];
  *src = (struct plan_range){first->src_off, last->src_off + last->src_len - first->src_off};
  return plan_segment_range(&t->plan, seg).len <= TRACK_SEGMENT_MAX && src->len <= 2 * TRACK_SEGMENT_MAX;
}

struct bytes track_ahead(struct catalog *c, const struct protected_track *t, uint64_t off) {
  struct plan_range src;
  struct cache_ref ref;
  if (off < head_len(&t->plan) || t->prot.scheme == SCHEME_CLEAR)
    return (struct bytes){0};
  uint32_t seg = plan_segment_at(&t->plan, off);
  if (!segment_source(t, seg, &src) || catalog_is_hot(c, t, plan_segment_range(&t->plan, seg)) ||
      !cache_look(c->cache, &ref, t->source_id, seg, (uint32_t)src.len))
    return (struct bytes){0};
  return bytes_of(ref.data, (size_t)src.len);
}

void track_ask(const struct catalog *c, const struct protected_track *t, uint64_t off) {
  if (off < head_len(&t->plan) || t->prot.scheme == SCHEME_CLEAR || atomic_load_explicit(&t->is_hot, memory_order_relaxed))
    return;
  uint32_t seg = plan_segment_at(&t->plan, off);
  cache_ask(c->cache, t->source_id, seg);
  plan_ask(&t->plan, seg);
}

int track_source(struct catalog *c, struct protected_track *t, struct bytes *out, uint64_t *src_off, uint64_t off,
                 struct obs_worker *m, struct cat_wait *w) {
  *out = (struct bytes){0};
  *src_off = 0;
  if (off < head_len(&t->plan))
    return CAT_OK;
  if (atomic_load_explicit(&t->source->changed, memory_order_relaxed)) {
    w->why = OBS_err_source_changed;
    return CAT_UNAVAILABLE;
  }
  uint32_t seg = plan_segment_at(&t->plan, off);
  struct plan_range src;
  if (!segment_source(t, seg, &src))
    return read_aside(c, t, plan_source(&t->plan, track_piece(t, off)), w);
  if (w->tries++ >= FILL_TRIES)
    return read_aside(c, t, src, w);
  struct cache_ref ref;
  w->cache.ready = cache_ready;
  switch (cache_get(c->cache, &ref, t->source_id, seg, (uint32_t)src.len, &w->cache)) {
  case CACHE_HIT:
    metric_inc(&m->cache_hits);
    *out = bytes_of(ref.data, (size_t)src.len);
    *src_off = src.off;
    return CAT_OK;
  case CACHE_WAIT:
    metric_inc(&m->cache_misses);
    return CAT_WAIT;
  case CACHE_BYPASS:
    metric_inc(&m->cache_misses);
    return read_aside(c, t, src, w);
  case CACHE_FILL: break;
  }
  metric_inc(&m->cache_misses);
  track_hold(t);
  if (catalog_fill(c, &(struct job){.wait = w, .track = t, .ref = ref, .src_off = src.off, .src_len = (uint32_t)src.len}))
    return CAT_WAIT;
  cache_fill_done(c->cache, &ref, false);
  track_drop(c, t);
  return CAT_UNAVAILABLE;
}

// A key for a licence. Those of key servers are here when their manifest was asked for here; else they are fetched for the
// player's next attempt.
static enum err licence_key(struct catalog *c, struct key_record *out, const struct settings *st, const struct key_query *q) {
  const struct key_remote *r = keys_remote(st->keyring->set, q->asset);
  struct exchange *x = atomic_load(&c->exchange);
  if (!r)
    return keys_lookup(out, st->keyring->set, q);
  struct drm_settings set;
  char la_url[KEYRING_URL_MAX];
  keyring_drm(&set, la_url, st->keyring, atomic_load(&c->own_url), q->asset);
  struct key_ask a = x ? exchange_ask(x, st->keyring, r, q, &set) : (struct key_ask){.got = KEY_REFUSED};
  if (a.got == KEY_FLYING)
    exchange_unpin(x, a.slot);
  enum err e = a.issued ? exchange_label(out, a.issued, q) : ERR_STALE; // not yet
  if (!e)
    out->given = NULL;
  issued_drop(a.issued);
  return e;
}

int catalog_licence(struct catalog *c, struct writer *out, const struct route *r, struct bytes body, struct obs_worker *m) {
  static const struct bytes labels[] = {{NULL, 0}, BYTES_LIT("lossless")};
  struct key_record keys[2];
  struct clearkey_request req;
  struct diag diag = {0};
  uint32_t num = 0;
  bool later = false;
  // Anyone may ask: where nothing is handed out, neither locks nor the epochs' are for them.
  if (!atomic_load_explicit(c->published, memory_order_acquire)->insecure_clearkey)
    return CAT_FORBIDDEN;
  struct settings *st = settings_get(c);
  int status = CAT_OK;
  enum epoch_status es = epoch_store_status(c->epochs, r->asset, r->epoch, clock_unix_ms(), NULL);
  if (!st->keyring->insecure || !(config_schemes(st->config, r->asset) & 1u << r->scheme))
    status = CAT_FORBIDDEN;
  else if (es == EPOCH_EXPIRED || es == EPOCH_REVOKED)
    status = CAT_GONE;
  else if (es == EPOCH_UNKNOWN || r->scheme == SCHEME_CLEAR)
    status = CAT_NOT_FOUND;
  else if (clearkey_parse(&req, body, &diag))
    status = CAT_BAD_REQUEST;
  for (int i = 0; status == CAT_OK && i < 2; i++) {
    struct key_query q = {.asset = r->asset, .epoch = r->epoch, .scheme = r->scheme, .label = labels[i]};
    enum err e = licence_key(c, &keys[num], st, &q);
    num += !e;
    later |= e == ERR_STALE;
  }
  uint32_t given = status == CAT_OK ? clearkey_answer(out, &req, keys, num) : 0;
  if (status == CAT_OK && !given)
    status = later ? CAT_UNAVAILABLE : CAT_NOT_FOUND;
  metric_add(&m->licences, given);
  for (uint32_t i = 0; i < num; i++)
    key_record_wipe(&keys[i]);
  settings_put(st);
  return status;
}

