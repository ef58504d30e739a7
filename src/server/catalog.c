#include "server/catalog.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/mem.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "keys/clearkey_license.h"
#include "obs/log.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"

enum {
  KEEPER_BUSY_MS = 2,
  KEEPER_IDLE_MS = 100,
  SOFT_FACTOR = 8,     // a name not looked at for so many intervals is looked at before it is served
  EVICT_STEPS = 4096,  // buckets the clock's hand moves in one turn
  FILL_TRIES = 3,
  TRACK_MEMORY = 1 << 30,
};

uint64_t clock_mono_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

uint64_t clock_unix_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

// ---- settings

static struct settings *settings_get(struct catalog *c) {
  pthread_mutex_lock(&c->lock);
  struct settings *st = c->settings;
  atomic_fetch_add_explicit(&st->refs, 1, memory_order_relaxed);
  pthread_mutex_unlock(&c->lock);
  return st;
}

void settings_put(struct settings *st) {
  if (atomic_fetch_sub_explicit(&st->refs, 1, memory_order_acq_rel) != 1)
    return;
  config_free(st->config);
  keyring_put(st->keyring);
  free(st);
}

static void settings_quiet(struct quiet_item *item) { settings_put((struct settings *)item); }

static struct settings *settings_new(struct config *config, struct keyring *keyring) {
  struct settings *st = calloc(1, sizeof *st);
  if (!st)
    return NULL;
  st->config = config;
  st->keyring = keyring;
  atomic_store(&st->refs, 1);
  return st;
}

void catalog_changed(struct catalog *c) { atomic_fetch_add(&c->generation, 1); }

void catalog_reload(struct catalog *c, struct config *config, struct keyring *keyring) {
  struct settings *st = settings_new(config, keyring);
  if (!st) {
    config_free(config);
    keyring_put(keyring);
    return;
  }
  pthread_mutex_lock(&c->lock);
  struct settings *old = c->settings;
  c->settings = st;
  pthread_mutex_unlock(&c->lock);
  atomic_store(&c->revalidate_ms, config->revalidate);
  atomic_store(c->published, config);
  catalog_changed(c);
  quiet_retire(c->quiet, &old->item, settings_quiet);
}

struct epoch_store *catalog_epochs(struct catalog *c) { return c->epochs; }

struct keyring *catalog_keyring(struct catalog *c) {
  struct settings *st = settings_get(c);
  struct keyring *k = keyring_ref(st->keyring);
  settings_put(st);
  return k;
}

// ---- tracks and texts

#define OUTER(ptr, type) ((struct type *)(void *)((char *)(ptr) - offsetof(struct type, pub)))

struct full_track *track_alloc(struct catalog *c) {
  pthread_mutex_lock(&c->lock);
  struct full_track *f = c->free_tracks;
  if (f)
    c->free_tracks = f->next_free;
  else
    f = c->track_memory.base.get(&c->track_memory.base, sizeof *f);
  if (f) {
    memset((void *)f, 0, sizeof *f);
    f->catalog = c;
    f->pub.generation = ++c->next_generation;
    atomic_store(&f->pub.holds, 1);
  }
  pthread_mutex_unlock(&c->lock);
  return f;
}

void track_retire_now(struct full_track *f) {
  struct catalog *c = f->catalog;
  if (f->pub.source)
    source_put(c->sources, f->pub.source);
  free(f->pssh);
  free(atomic_load(&f->pub.net));
  OPENSSL_cleanse(f, sizeof *f);
  pthread_mutex_lock(&c->lock);
  f->next_free = c->free_tracks;
  c->free_tracks = f;
  pthread_mutex_unlock(&c->lock);
}

static void track_quiet(struct quiet_item *item) { track_retire_now((struct full_track *)item); }

void track_drop(struct catalog *c, struct protected_track *t) {
  if (atomic_fetch_sub_explicit(&t->holds, 1, memory_order_acq_rel) == 1)
    quiet_retire(c->quiet, &OUTER(t, full_track)->item, track_quiet);
}

static void text_free(struct full_text *t) {
  for (unsigned i = 0; i < t->num_sources; i++)
    source_put(t->catalog->sources, t->sources[i]);
  pthread_mutex_lock(&t->catalog->lock);
  t->catalog->text_bytes -= t->bytes;
  pthread_mutex_unlock(&t->catalog->lock);
  free(t);
}

static void text_quiet(struct quiet_item *item) { text_free((struct full_text *)item); }

void text_drop(struct catalog *c, struct text_doc *d) {
  if (atomic_fetch_sub_explicit(&d->holds, 1, memory_order_acq_rel) == 1)
    quiet_retire(c->quiet, &OUTER(d, full_text)->item, text_quiet);
}

static void drop_value(struct catalog *c, enum route_kind kind, void *value) {
  if (value && kind == ROUTE_INIT)
    track_drop(c, value);
  else if (value)
    text_drop(c, value);
}

// An entry's hold on a value that was replaced: workers may have picked the pointer up without one of their own.
struct late_drop {
  struct quiet_item item;
  struct catalog *catalog;
  enum route_kind kind;
  void *value;
};

static void late_drop_quiet(struct quiet_item *item) {
  struct late_drop *d = (struct late_drop *)item;
  drop_value(d->catalog, d->kind, d->value);
  free(d);
}

static void drop_later(struct catalog *c, enum route_kind kind, void *value) {
  struct late_drop *d = value ? calloc(1, sizeof *d) : NULL;
  if (!d)
    return; // out of memory: the value stays for good, which is safe
  *d = (struct late_drop){.catalog = c, .kind = kind, .value = value};
  quiet_retire(c->quiet, &d->item, late_drop_quiet);
}

// ---- the table

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

static uint64_t hash_key(struct bytes key, enum route_kind kind) { return XXH3_64bits_withSeed(key.p, key.n, (uint64_t)kind); }

static struct entry *find(struct catalog *c, uint64_t hash, enum route_kind kind, struct bytes key) {
  struct entry *e = atomic_load_explicit(&c->buckets[hash % ENTRY_BUCKETS], memory_order_acquire);
  for (; e; e = atomic_load_explicit(&e->next, memory_order_acquire))
    if (e->hash == hash && e->route.kind == kind && e->key_len == key.n && !memcmp(e->key, key.p, key.n))
      return e;
  return NULL;
}

enum freshness { STALE, AGING, FRESH };

static enum freshness freshness(struct catalog *c, struct entry *e, uint64_t now_ms) {
  if (atomic_load_explicit(&e->status, memory_order_acquire) == 0 ||
      atomic_load_explicit(&e->generation, memory_order_relaxed) != atomic_load_explicit(&c->generation, memory_order_relaxed) ||
      now_ms >= atomic_load_explicit(&e->until_ms, memory_order_relaxed))
    return STALE;
  uint64_t checked = atomic_load_explicit(&e->checked_ms, memory_order_relaxed);
  uint64_t age = now_ms > checked ? now_ms - checked : 0, limit = atomic_load_explicit(&c->revalidate_ms, memory_order_relaxed);
  if (age <= limit)
    return FRESH;
  return age <= limit * SOFT_FACTOR ? AGING : STALE;
}

// Copies a route with its names moved to a copy of its key.
static void rebase(struct route *r, const struct route *from, const char *key) {
  ptrdiff_t track = from->track.n ? from->track.p - from->asset.p : 0;
  *r = *from;
  r->asset.p = (const uint8_t *)key;
  r->track.p = (const uint8_t *)key + track;
}

// ---- jobs

static bool push_job(struct catalog *c, enum job_kind kind, const struct route *r, struct bytes key, const struct job *rest) {
  pthread_mutex_lock(&c->queue_lock);
  bool room = c->queue_len < QUEUE_JOBS && !c->stop;
  if (room) {
    struct job *j = &c->queue[(c->queue_head + c->queue_len++) % QUEUE_JOBS];
    j->kind = kind;
    j->wait = rest->wait;
    j->track = rest->track;
    j->ref = rest->ref;
    j->src_off = rest->src_off;
    j->src_len = rest->src_len;
    j->key_len = (uint16_t)key.n;
    if (key.n)
      memcpy(j->key, key.p, key.n);
    if (r)
      rebase(&j->route, r, j->key);
    pthread_cond_signal(&c->queue_wake);
  }
  pthread_mutex_unlock(&c->queue_lock);
  return room;
}

static int lookup(struct catalog *c, void **out, const struct route *r, uint64_t now_ms, _Atomic uint64_t *hits,
                  _Atomic uint64_t *misses, struct cat_wait *w) {
  struct route canon;
  struct bytes key = key_of(&canon, r);
  uint64_t hash = hash_key(key, canon.kind);
  struct entry *e = find(c, hash, canon.kind, key);
  enum freshness f = e ? freshness(c, e, now_ms) : STALE;
  if (f == STALE) {
    metric_inc(misses);
    return push_job(c, JOB_ENTRY, &canon, key, &(struct job){.wait = w}) ? CAT_WAIT : CAT_UNAVAILABLE;
  }
  metric_inc(hits);
  if (!atomic_load_explicit(&e->used, memory_order_relaxed))
    atomic_store_explicit(&e->used, true, memory_order_relaxed);
  if (f == AGING && !atomic_exchange_explicit(&e->refreshing, true, memory_order_relaxed) &&
      !push_job(c, JOB_ENTRY, &canon, key, &(struct job){0}))
    atomic_store_explicit(&e->refreshing, false, memory_order_relaxed);
  int status = atomic_load_explicit(&e->status, memory_order_acquire);
  *out = atomic_load_explicit(&e->value, memory_order_acquire);
  return status == CAT_OK && !*out ? CAT_UNAVAILABLE : status;
}

int catalog_track(struct catalog *c, struct protected_track **out, const struct route *r, uint64_t now_ms,
                  struct obs_worker *m, struct cat_wait *w) {
  void *value = NULL;
  int status = lookup(c, &value, r, now_ms, &m->track_hits, &m->track_misses, w);
  *out = value;
  if (status == CAT_OK && atomic_load_explicit(&(*out)->source->changed, memory_order_relaxed)) {
    struct route canon;
    struct bytes key = key_of(&canon, r);
    return push_job(c, JOB_ENTRY, &canon, key, &(struct job){.wait = w}) ? CAT_WAIT : CAT_UNAVAILABLE;
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

// Under the lock: hands an entry's result to one who waits.
static void hand_over(const struct entry *e, struct cat_wait *w) {
  w->status = atomic_load_explicit(&e->status, memory_order_relaxed);
  if (w->status != CAT_OK)
    return;
  void *value = atomic_load_explicit(&e->value, memory_order_relaxed);
  if (e->route.kind == ROUTE_INIT) {
    w->track = value;
    track_hold(w->track);
  } else {
    w->text = value;
    text_hold(w->text);
  }
}

static struct entry *entry_new(const struct job *j, uint64_t hash) {
  struct entry *e = calloc(1, sizeof *e + j->key_len);
  if (!e)
    return NULL;
  e->hash = hash;
  e->key_len = j->key_len;
  memcpy(e->key, j->key, j->key_len);
  rebase(&e->route, &j->route, e->key);
  atomic_store(&e->used, true);
  return e;
}

static void publish(struct catalog *c, struct entry *e, const struct made *made, uint64_t generation, uint64_t now_ms,
                    uint64_t negative_ms) {
  void *old = atomic_load_explicit(&e->value, memory_order_relaxed);
  uint64_t until = made->until_ms;
  if (made->status != CAT_OK && until > now_ms + negative_ms)
    until = now_ms + negative_ms;
  atomic_store_explicit(&e->value, made->value, memory_order_release);
  atomic_store_explicit(&e->until_ms, until, memory_order_relaxed);
  atomic_store_explicit(&e->checked_ms, now_ms, memory_order_relaxed);
  atomic_store_explicit(&e->generation, generation, memory_order_relaxed);
  atomic_store_explicit(&e->status, made->status, memory_order_release);
  atomic_store_explicit(&e->refreshing, false, memory_order_relaxed);
  drop_later(c, e->route.kind, old);
}

static void wake_all(struct cat_wait *w) {
  while (w) {
    struct cat_wait *next = w->next;
    w->wake(w);
    w = next;
  }
}

static bool source_is_changed(const struct entry *e) {
  const struct protected_track *t = atomic_load_explicit(&e->value, memory_order_relaxed);
  return e->route.kind == ROUTE_INIT && t && atomic_load_explicit(&t->source->changed, memory_order_relaxed);
}

// Makes or refreshes one entry, unless that is under way or was just done.
static void do_entry(struct catalog *c, const struct job *j) {
  struct bytes key = bytes_of(j->key, j->key_len);
  uint64_t hash = hash_key(key, j->route.kind);
  struct cat_wait *w = j->wait;
  pthread_mutex_lock(&c->lock);
  struct entry *e = find(c, hash, j->route.kind, key);
  if (!e && c->num_entries < ENTRIES_MAX && (e = entry_new(j, hash))) {
    struct entry *_Atomic *b = &c->buckets[hash % ENTRY_BUCKETS];
    atomic_store_explicit(&e->next, atomic_load_explicit(b, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(b, e, memory_order_release);
    c->num_entries++;
  }
  bool done = !e || (!e->making && freshness(c, e, clock_mono_ms()) == FRESH && !source_is_changed(e));
  if (done && e)
    atomic_store_explicit(&e->refreshing, false, memory_order_relaxed);
  if (done && w) {
    w->status = CAT_UNAVAILABLE;
    if (e)
      hand_over(e, w);
    w->next = NULL;
  }
  if (!done && w) {
    w->next = e->waiters;
    e->waiters = w;
  }
  bool mine = !done && !e->making;
  if (mine)
    e->making = true;
  void *old = mine ? atomic_load_explicit(&e->value, memory_order_relaxed) : NULL;
  pthread_mutex_unlock(&c->lock);
  if (done && w)
    wake_all(w);
  if (!mine)
    return;
  struct settings *st = settings_get(c);
  uint64_t generation = atomic_load(&c->generation), negative_ms = st->config->negative_ttl;
  struct made made;
  build_entry(c, &made, st, &e->route, old);
  settings_put(st);
  pthread_mutex_lock(&c->lock);
  publish(c, e, &made, generation, clock_mono_ms(), negative_ms);
  e->making = false;
  w = e->waiters;
  e->waiters = NULL;
  for (struct cat_wait *i = w; i; i = i->next)
    hand_over(e, i);
  pthread_mutex_unlock(&c->lock);
  wake_all(w);
}

// ---- source bytes

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

static uint32_t segment_at(const struct plan *p, uint64_t off) {
  uint32_t frag = plan_frag_at(p, off), lo = 0, hi = p->segs->num - 1;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo + 1) / 2;
    if (p->segs->first_frag[mid] <= frag)
      lo = mid;
    else
      hi = mid - 1;
  }
  return lo;
}

static uint64_t head_len(const struct plan *p) { return (uint64_t)p->init_len + p->sidx_len; }

struct plan_range track_piece(const struct protected_track *t, uint64_t off) {
  if (off < head_len(&t->plan))
    return (struct plan_range){0, head_len(&t->plan)};
  struct plan_range r = plan_segment_range(&t->plan, segment_at(&t->plan, off));
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
  if (src.len > BYPASS_BYTES || atomic_load_explicit(&c->bypass_bytes, memory_order_relaxed) > BYPASS_BYTES - src.len)
    return CAT_UNAVAILABLE;
  track_hold(t);
  if (push_job(c, JOB_BYPASS, NULL, (struct bytes){0},
               &(struct job){.wait = w, .track = t, .src_off = src.off, .src_len = (uint32_t)src.len}))
    return CAT_WAIT;
  track_drop(c, t);
  return CAT_UNAVAILABLE;
}

int track_source(struct catalog *c, struct protected_track *t, struct bytes *out, uint64_t *src_off, uint64_t off,
                 struct obs_worker *m, struct cat_wait *w) {
  *out = (struct bytes){0};
  *src_off = 0;
  if (off < head_len(&t->plan))
    return CAT_OK;
  if (atomic_load_explicit(&t->source->changed, memory_order_relaxed))
    return CAT_UNAVAILABLE;
  uint32_t seg = segment_at(&t->plan, off);
  const struct ix_frag *first = &t->plan.ix->frags[t->plan.segs->first_frag[seg]];
  const struct ix_frag *last = &t->plan.ix->frags[t->plan.segs->first_frag[seg + 1] - 1];
  struct plan_range src = {first->src_off, last->src_off + last->src_len - first->src_off};
  if (plan_segment_range(&t->plan, seg).len > TRACK_SEGMENT_MAX || src.len > 2 * TRACK_SEGMENT_MAX)
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
  if (push_job(c, JOB_FILL, NULL, (struct bytes){0},
               &(struct job){.wait = w, .track = t, .ref = ref, .src_off = src.off, .src_len = (uint32_t)src.len}))
    return CAT_WAIT;
  cache_fill_done(c->cache, &ref, false);
  track_drop(c, t);
  return CAT_UNAVAILABLE;
}

static int read_status(struct catalog *c, const struct job *j, enum err e) {
  if (!e)
    return CAT_OK;
  metric_add_shared(e == ERR_STALE ? &c->metrics->err_source_changed : &c->metrics->err_source_io, 1);
  log_line(LOG_WARN, "%s: %s", j->track->source->path,
           e == ERR_STALE ? "changed while it was served; it will be opened anew" : "cannot be read");
  return e == ERR_STALE ? CAT_UNAVAILABLE : CAT_FAILED;
}

int catalog_licence(struct catalog *c, struct writer *out, const struct route *r, struct bytes body, struct obs_worker *m) {
  static const struct bytes labels[] = {{NULL, 0}, BYTES_LIT("lossless")};
  struct key_record keys[2];
  struct clearkey_request req;
  struct diag diag = {0};
  uint32_t num = 0;
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
    num += !keys_lookup(&keys[num], st->keyring->set, &q);
  }
  uint32_t given = status == CAT_OK ? clearkey_answer(out, &req, keys, num) : 0;
  if (status == CAT_OK && !given)
    status = CAT_NOT_FOUND;
  metric_add(&m->licences, given);
  for (uint32_t i = 0; i < num; i++)
    key_record_wipe(&keys[i]);
  settings_put(st);
  return status;
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void wake_keeper(struct catalog *c) {
  pthread_mutex_lock(&c->keeper_lock);
  pthread_cond_signal(&c->keeper_wake);
  pthread_mutex_unlock(&c->keeper_lock);
}

static void do_fill(struct catalog *c, const struct job *j) {
  uint64_t start = now_ns();
  enum err e = source_read(j->track->source, j->src_off, j->ref.data, j->src_len);
  struct cache_ref ref = j->ref;
  j->wait->status = read_status(c, j, e);
  j->wait->block = NULL;
  cache_fill_done(c->cache, &ref, !e);
  if (!e) {
    metric_add_shared(&c->metrics->cache_fills, 1);
    metric_add_shared(&c->metrics->cache_fill_bytes, j->src_len);
    histogram_add_shared(&c->metrics->fill, now_ns() - start);
  }
  track_drop(c, j->track);
  j->wait->wake(j->wait);
}

struct own_block {
  struct block pub;
  struct catalog *catalog;
};

void block_free(struct block *b) {
  if (!b)
    return;
  struct own_block *o = (struct own_block *)(void *)b;
  atomic_fetch_sub_explicit(&o->catalog->bypass_bytes, b->n, memory_order_relaxed);
  free(o);
}

static void do_bypass(struct catalog *c, const struct job *j) {
  struct own_block *o = malloc(sizeof *o + j->src_len);
  j->wait->block = NULL;
  j->wait->status = CAT_UNAVAILABLE;
  if (o) {
    uint8_t *bytes = (uint8_t *)(o + 1);
    atomic_fetch_add_explicit(&c->bypass_bytes, j->src_len, memory_order_relaxed);
    *o = (struct own_block){{bytes, j->src_len, j->src_off}, c};
    enum err e = source_read(j->track->source, j->src_off, bytes, j->src_len);
    j->wait->status = read_status(c, j, e);
    if (e)
      block_free(&o->pub);
    else
      j->wait->block = &o->pub;
  }
  track_drop(c, j->track);
  j->wait->wake(j->wait);
}

static void *help(void *arg) {
  struct catalog *c = arg;
  struct job *j = malloc(sizeof *j);
  if (!j)
    return NULL;
  for (;;) {
    pthread_mutex_lock(&c->queue_lock);
    while (!c->queue_len && !c->stop)
      pthread_cond_wait(&c->queue_wake, &c->queue_lock);
    if (!c->queue_len) {
      pthread_mutex_unlock(&c->queue_lock);
      free(j);
      return NULL;
    }
    const struct job *q = &c->queue[c->queue_head];
    memcpy(j, q, offsetof(struct job, key) + q->key_len);
    rebase(&j->route, &j->route, j->key);
    c->queue_head = (c->queue_head + 1) % QUEUE_JOBS;
    c->queue_len--;
    pthread_mutex_unlock(&c->queue_lock);
    switch (j->kind) {
    case JOB_ENTRY: do_entry(c, j); break;
    case JOB_FILL: do_fill(c, j); break;
    case JOB_BYPASS: do_bypass(c, j); break;
    }
    if (cache_wants_tending(c->cache))
      wake_keeper(c);
  }
}

// ---- keeping house

static void entry_quiet(struct quiet_item *item) {
  struct entry *e = (struct entry *)item;
  free(e);
}

// One step of the clock: unused entries of some buckets leave. Under the lock.
static void evict_some(struct catalog *c, uint64_t excess_entries, bool over_bytes) {
  for (unsigned step = 0; step < EVICT_STEPS && (excess_entries || over_bytes); step++) {
    struct entry *_Atomic *at = &c->buckets[c->hand++ % ENTRY_BUCKETS];
    for (struct entry *e; (e = atomic_load_explicit(at, memory_order_relaxed));) {
      if (e->making || atomic_exchange_explicit(&e->used, false, memory_order_relaxed)) {
        at = &e->next;
        continue;
      }
      atomic_store_explicit(at, atomic_load_explicit(&e->next, memory_order_relaxed), memory_order_release);
      c->num_entries--;
      excess_entries -= excess_entries > 0;
      drop_later(c, e->route.kind, atomic_load_explicit(&e->value, memory_order_relaxed));
      quiet_retire(c->quiet, &e->item, entry_quiet);
    }
  }
}

void catalog_usage(struct catalog *c, struct catalog_usage *out) {
  sources_usage(c->sources, &out->tracks, &out->index_bytes);
  cache_stats(c->cache, &out->cache);
  pthread_mutex_lock(&c->lock);
  out->entries = c->num_entries;
  out->text_bytes = c->text_bytes;
  pthread_mutex_unlock(&c->lock);
}

static void set_gauges(struct catalog *c, const struct catalog_usage *u) {
  struct obs_worker *m = c->metrics;
  atomic_store_explicit(&m->cache_bytes, (int64_t)u->cache.bytes, memory_order_relaxed);
  atomic_store_explicit(&m->cache_blocks, (int64_t)u->cache.blocks, memory_order_relaxed);
  atomic_store_explicit(&m->cache_evicted, u->cache.evicted, memory_order_relaxed);
  atomic_store_explicit(&m->cache_rejected, u->cache.bypassed, memory_order_relaxed);
  atomic_store_explicit(&m->tracks_open, (int64_t)u->tracks, memory_order_relaxed);
  atomic_store_explicit(&m->entries_open, (int64_t)u->entries, memory_order_relaxed);
  atomic_store_explicit(&m->entry_bytes, (int64_t)(u->index_bytes + u->text_bytes), memory_order_relaxed);
}

static bool keep_house(struct catalog *c) {
  struct catalog_usage u;
  bool busy = cache_tend(c->cache);
  catalog_usage(c, &u);
  set_gauges(c, &u);
  pthread_mutex_lock(&c->lock);
  uint64_t limit = ENTRIES_MAX / 8 * 7;
  bool over = u.index_bytes + u.text_bytes > c->settings->config->index_size;
  if (u.entries > limit || over)
    evict_some(c, u.entries > limit ? u.entries - limit : 0, over);
  pthread_mutex_unlock(&c->lock);
  return quiet_reclaim(c->quiet) || busy || over;
}

static void *keeper(void *arg) {
  struct catalog *c = arg;
  pthread_mutex_lock(&c->keeper_lock);
  while (!c->keeper_stop) {
    pthread_mutex_unlock(&c->keeper_lock);
    bool busy = keep_house(c);
    uint64_t at = now_ns() + (busy ? KEEPER_BUSY_MS : KEEPER_IDLE_MS) * 1000000ULL;
    pthread_mutex_lock(&c->keeper_lock);
    struct timespec until = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)};
    if (!c->keeper_stop)
      pthread_cond_timedwait(&c->keeper_wake, &c->keeper_lock, &until);
  }
  pthread_mutex_unlock(&c->keeper_lock);
  return NULL;
}

// ---- start and end

static bool open_folders(struct catalog *c, const struct config *config, struct config_error *error) {
  c->root_fd = open(config->media, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (c->root_fd < 0)
    return config_fail(error, "%s: cannot open the media folder: %s", config->media, strerror(errno));
  if (faccessat(c->root_fd, ".", R_OK | X_OK, AT_EACCESS))
    return config_fail(error, "%s: the media folder is not readable: %s", config->media, strerror(errno));
  if (!*config->cache_dir)
    return true;
  c->cache_fd = open(config->cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return c->cache_fd >= 0 || config_fail(error, "%s: cannot open the cache folder: %s", config->cache_dir, strerror(errno));
}

static bool start_threads(struct catalog *c, const struct config *config, struct config_error *error) {
  for (unsigned i = 0; i < config->helper_threads; i++) {
    if (pthread_create(&c->helpers[i], NULL, help, c))
      return config_fail(error, "cannot start helper threads: %s", strerror(errno));
    c->num_helpers++;
  }
  if (pthread_create(&c->keeper, NULL, keeper, c))
    return config_fail(error, "cannot start helper threads: %s", strerror(errno));
  c->keeper_runs = true;
  return true;
}

static void *reserve(size_t n) {
  void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

struct catalog *catalog_new(const struct catalog_options *o, struct config_error *error) {
  struct catalog *c = calloc(1, sizeof *c);
  if (!c) {
    config_fail(error, "out of memory");
    return NULL;
  }
  pthread_condattr_t mono;
  pthread_condattr_init(&mono);
  pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
  pthread_mutex_init(&c->lock, NULL);
  pthread_mutex_init(&c->queue_lock, NULL);
  pthread_mutex_init(&c->keeper_lock, NULL);
  pthread_cond_init(&c->queue_wake, NULL);
  pthread_cond_init(&c->keeper_wake, &mono);
  pthread_condattr_destroy(&mono);
  c->root_fd = c->cache_fd = -1;
  c->quiet = o->quiet;
  c->ops = o->ops;
  c->metrics = o->metrics;
  c->published = o->published;
  secret_alloc_init(&c->track_memory, TRACK_MEMORY);
  atomic_store(&c->generation, 1);
  atomic_store(&c->revalidate_ms, o->config->revalidate);
  bool ok = open_folders(c, o->config, error);
  if (ok) {
    c->cache = cache_new(o->config->cache_clear, o->quiet);
    c->buckets = reserve(ENTRY_BUCKETS * sizeof *c->buckets);
    c->queue = reserve(QUEUE_JOBS * sizeof *c->queue);
    c->sources = sources_new(c->root_fd);
    c->settings = settings_new(o->config, o->keyring);
    ok = (c->cache && c->buckets && c->queue && c->sources && c->settings) || config_fail(error, "out of memory");
  }
  ok = ok && start_threads(c, o->config, error);
  if (ok) {
    c->epochs = o->epochs;
    atomic_store(c->published, o->config);
    return c;
  }
  if (c->settings) { // given back to the caller
    free(c->settings);
    c->settings = NULL;
  }
  catalog_free(c);
  return NULL;
}

static void stop_threads(struct catalog *c) {
  pthread_mutex_lock(&c->queue_lock);
  c->stop = true;
  pthread_cond_broadcast(&c->queue_wake);
  pthread_mutex_unlock(&c->queue_lock);
  for (unsigned i = 0; i < c->num_helpers; i++)
    pthread_join(c->helpers[i], NULL);
  if (!c->keeper_runs)
    return;
  pthread_mutex_lock(&c->keeper_lock);
  c->keeper_stop = true;
  pthread_cond_signal(&c->keeper_wake);
  pthread_mutex_unlock(&c->keeper_lock);
  pthread_join(c->keeper, NULL);
}

void catalog_free(struct catalog *c) {
  if (!c)
    return;
  stop_threads(c);
  for (size_t i = 0; c->buckets && i < ENTRY_BUCKETS; i++)
    for (struct entry *e = atomic_load(&c->buckets[i]), *next; e; e = next) {
      next = atomic_load(&e->next);
      drop_value(c, e->route.kind, atomic_load(&e->value));
      free(e);
    }
  while (c->sources && quiet_reclaim(c->quiet)) {
  }
  if (c->settings)
    settings_put(c->settings);
  sources_free(c->sources);
  cache_free(c->cache);
  epoch_store_close(c->epochs);
  secret_alloc_free(&c->track_memory);
  if (c->buckets)
    munmap((void *)(uintptr_t)c->buckets, ENTRY_BUCKETS * sizeof *c->buckets);
  if (c->queue)
    munmap(c->queue, QUEUE_JOBS * sizeof *c->queue);
  if (c->root_fd >= 0)
    close(c->root_fd);
  if (c->cache_fd >= 0)
    close(c->cache_fd);
  pthread_cond_destroy(&c->queue_wake);
  pthread_cond_destroy(&c->keeper_wake);
  pthread_mutex_destroy(&c->lock);
  pthread_mutex_destroy(&c->queue_lock);
  pthread_mutex_destroy(&c->keeper_lock);
  free(c);
}
