// The half of the catalogue that may block: helper threads make entries and read segments, one keeper evicts and reclaims.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "obs/log.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "server/crash.h"

enum {
  KEEPER_BUSY_MS = 2,
  KEEPER_IDLE_MS = 100,
  EVICT_STEPS = 4096, // buckets the clock's hand moves in one turn
  KEY_WAITS = 4,      // fetches that one making waits for: an epoch or a configuration may change in between
  LOOK_MS = 1000,     // for storage to answer, before what is in memory is given to who waits
  OLD_LOG_MS = 60000,
  OLD_WAITS = 64,     // in the queue, and names looked at, to whom that is given in one turn of the keeper
  AGAIN_MAX = 8,      // rotations or changes in a row during each of which a making was under way; then it is 503
};

// Under the lock: hands an entry's result to one who waits.
static void hand_over(const struct entry *e, struct cat_wait *w) {
  w->status = atomic_load_explicit(&e->status, memory_order_relaxed);
  w->retry_ms = w->status == CAT_UNAVAILABLE ? entry_retry(e, clock_mono_ms()) : 0;
  w->why = atomic_load_explicit(&e->why, memory_order_relaxed);
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
  route_rebase(&e->route, &j->route, e->key);
  atomic_store(&e->used, true);
  return e;
}

// What an error is counted as, where its status does not say it: a 503 for want of a key or of a file is nobody's load.
static uint8_t reason(const struct made *made, const struct settings *st, struct bytes asset) {
  if (made->status != CAT_UNAVAILABLE || !made->no_key)
    return made->why;
  return keys_remote(st->keyring->set, asset) ? OBS_err_upstream : OBS_err_no_key;
}

// Workers look without the lock: what says until when and under which rules an answer holds comes after it, so that nobody takes
// an answer from before for one of now.
static void publish(struct catalog *c, struct entry *e, const struct made *made, uint64_t now_ms, uint64_t negative_ms) {
  void *old = atomic_load_explicit(&e->value, memory_order_relaxed);
  uint64_t until = made->until_ms;
  if (made->status != CAT_OK && until > now_ms + negative_ms)
    until = now_ms + negative_ms;
  atomic_store_explicit(&e->value, made->value, memory_order_release);
  atomic_store_explicit(&e->why, made->why, memory_order_relaxed);
  atomic_store_explicit(&e->retry_ms, made->retry_ms ? now_ms + made->retry_ms : 0, memory_order_relaxed);
  atomic_store_explicit(&e->status, made->status, memory_order_release);
  atomic_store_explicit(&e->failed_ms, 0, memory_order_release);
  atomic_store_explicit(&e->checked_ms, now_ms, memory_order_release);
  atomic_store_explicit(&e->until_ms, until, memory_order_release);
  atomic_store_explicit(&e->generation, e->making_generation, memory_order_release);
  atomic_store_explicit(&e->refreshing, false, memory_order_relaxed);
  entry_value_drop_later(c, e->route.kind, old);
}

static void wake_all(struct cat_wait *w) {
  while (w) {
    struct cat_wait *next = w->next;
    w->wake(w);
    w = next;
  }
}

static bool is_changed(const struct entry *e, const void *value) {
  const struct protected_track *t = value;
  return e->route.kind == ROUTE_INIT && t && atomic_load_explicit(&t->source->changed, memory_order_relaxed);
}

static bool source_is_changed(const struct entry *e) { return is_changed(e, atomic_load_explicit(&e->value, memory_order_relaxed)); }

// Whether a rotation, a reload, the end of a grace window or a change of the file has come since the making began. That something
// passing is in the way is true of either state.
static bool is_outdated(struct catalog *c, const struct entry *e, const struct made *made, uint64_t now_ms) {
  return made->status != CAT_UNAVAILABLE &&
         (e->making_generation != atomic_load(&c->generation) || now_ms >= made->until_ms || is_changed(e, made->value));
}

// A line about storage, for after the lock: whoever does not read the log holds up who writes it.
struct old_line {
  char asset[ROUTE_PATH_MAX]; // the entry may be gone by then
  size_t n; // 0: no line
  bool silent;
};

// Under the lock: storage cannot be looked at now, and the entry goes on as it was.
static void look_failed(struct catalog *c, struct entry *e, uint64_t now_ms, bool silent, struct old_line *line) {
  uint64_t due = atomic_load(&c->old_log_due_ms);
  if (!atomic_load_explicit(&e->failed_ms, memory_order_relaxed) || !silent) // a silence is counted once
    metric_add_shared(silent ? &c->metrics->looks_silent : &c->metrics->looks_failed, 1);
  atomic_store_explicit(&e->failed_ms, now_ms, memory_order_relaxed);
  if (now_ms < due || !atomic_compare_exchange_strong(&c->old_log_due_ms, &due, now_ms + OLD_LOG_MS))
    return;
  line->n = e->route.asset.n;
  line->silent = silent;
  memcpy(line->asset, e->route.asset.p, line->n);
}

static void say_old(struct catalog *c, const struct old_line *line) {
  if (line->n)
    log_line(LOG_ERROR, "%.*s: storage %s: what is in memory is served as it was, for at most %llu s (stale_if_error)", (int)line->n, line->asset,
             line->silent ? "does not answer" : "fails", (unsigned long long)atomic_load(&c->stale_ms) / 1000);
}

// Under the lock: all who wait, with what there is.
static struct cat_wait *take_waiters(struct entry *e) {
  struct cat_wait *w = e->waiters;
  e->waiters = NULL;
  for (struct cat_wait *i = w; i; i = i->next)
    hand_over(e, i);
  return w;
}

static void look_begins(struct catalog *c, struct entry *e) {
  if (e->look_ms) // it goes on, after a source was waited for
    return;
  e->look_ms = clock_mono_ms();
  e->look_next = c->looks;
  c->looks = e;
}

static void look_ends(struct catalog *c, struct entry *e) {
  if (!e->look_ms)
    return;
  struct entry **at = &c->looks;
  while (*at != e)
    at = &(*at)->look_next;
  *at = e->look_next;
  e->look_ms = 0;
}

// False, and nothing done: it is outdated, and among those who wait may be some who have asked since.
static bool finish_entry(struct catalog *c, struct entry *e, const struct made *made, uint64_t negative_ms) {
  struct old_line line;
  line.n = 0;
  pthread_mutex_lock(&c->lock);
  uint64_t now = clock_mono_ms(); // later than whoever waits has asked
  look_ends(c, e);
  if (e->waiters && is_outdated(c, e, made, now)) {
    pthread_mutex_unlock(&c->lock);
    return false;
  }
  if (made->status == CAT_UNAVAILABLE && made->why == OBS_err_source_io && entry_outlives(c, e, now) && !source_is_changed(e)) {
    look_failed(c, e, now, false, &line);
    atomic_store_explicit(&e->refreshing, false, memory_order_relaxed);
  } else {
    publish(c, e, made, now, negative_ms);
  }
  e->making = false;
  struct cat_wait *w = take_waiters(e);
  pthread_mutex_unlock(&c->lock);
  wake_all(w);
  say_old(c, &line);
  return true;
}

// The keeper's: who has waited for storage for LOOK_MS gets what is in memory, where that may be. Looks go on meanwhile. Whether
// there may be more of them.
static bool give_old(struct catalog *c) {
  struct {
    struct entry *e;
    struct cat_wait *w;
  } queued[OLD_WAITS];
  struct cat_wait *ready[OLD_WAITS];
  unsigned num_queued = 0, num_ready = 0;
  struct old_line line;
  line.n = 0;
  pthread_mutex_lock(&c->queue_lock);
  uint64_t now = clock_mono_ms();
  for (unsigned i = 0; i < c->queue_len && num_queued < OLD_WAITS; i++) {
    struct job *j = &c->queue[(c->queue_head + i) % QUEUE_JOBS];
    if (now < j->since_ms + LOOK_MS) // none behind it has waited longer
      break;
    if (j->kind != JOB_ENTRY)
      continue;
    struct bytes key = bytes_of(j->key, j->key_len);
    struct entry *e = entry_find(c, entry_hash(c, key, j->route.kind), j->route.kind, key); // stays: this thread evicts
    if (!e || (!j->wait && entry_failed_lately(c, e, now)) || !entry_outlives(c, e, now) || source_is_changed(e))
      continue;
    queued[num_queued].e = e;
    queued[num_queued++].w = j->wait;
    j->wait = NULL;
  }
  pthread_mutex_unlock(&c->queue_lock);
  pthread_mutex_lock(&c->lock);
  now = clock_mono_ms(); // later than whoever waits has asked
  for (unsigned i = 0; i < num_queued; i++) {
    look_failed(c, queued[i].e, now, true, &line);
    if (queued[i].w)
      hand_over(queued[i].e, queued[i].w);
  }
  for (struct entry *e = c->looks; e && num_ready < OLD_WAITS; e = e->look_next) {
    if (now < e->look_ms + LOOK_MS || !entry_outlives(c, e, now) || source_is_changed(e))
      continue;
    look_failed(c, e, now, true, &line);
    if (e->waiters)
      ready[num_ready++] = take_waiters(e);
  }
  pthread_mutex_unlock(&c->lock);
  for (unsigned i = 0; i < num_queued; i++)
    if (queued[i].w)
      queued[i].w->wake(queued[i].w);
  for (unsigned i = 0; i < num_ready; i++)
    wake_all(ready[i]);
  say_old(c, &line);
  return num_queued == OLD_WAITS || num_ready == OLD_WAITS;
}

static void keep(struct catalog *c, struct entry *e, struct kept *k) {
  kept_drop(c, e->kept);
  e->kept = k;
}

// What the making of an entry waits for is there, or will not come.
static void make_again(struct entry *e) {
  struct catalog *c = e->catalog;
  pthread_mutex_lock(&c->queue_lock);
  bool stop = c->stop;
  if (!stop) {
    e->again_next = NULL;
    *(c->again ? c->again_end : &c->again) = e;
    c->again_end = &e->again_next;
    pthread_cond_signal(&c->queue_wake);
  }
  pthread_mutex_unlock(&c->queue_lock);
  if (!stop)
    return;
  keep(c, e, NULL);
  (void)finish_entry(c, e, &(struct made){.status = CAT_UNAVAILABLE, .until_ms = UINT64_MAX}, 0);
}

// On the exchange's thread.
static void keys_ready(struct key_wait *w) { make_again((struct entry *)(void *)((char *)w - offsetof(struct entry, keys))); }

// On the helper's that has opened it.
static void source_ready(struct source_wait *w) { make_again((struct entry *)(void *)((char *)w - offsetof(struct entry, source))); }

// Makes an entry that is `making` for this thread. Leaves it so when keys have to be fetched, or another thread opens a source of it,
// which may have to be read whole: keys_ready or source_ready goes on, and this thread is free meanwhile.
static void make_entry(struct catalog *c, struct entry *e) {
  for (unsigned again = 0;; again++) {
    pthread_mutex_lock(&c->lock);
    void *old = atomic_load_explicit(&e->value, memory_order_relaxed);
    look_begins(c, e);
    // First of all: what is made under settings that a reload replaces meanwhile must count as stale.
    e->making_generation = atomic_load(&c->generation);
    pthread_mutex_unlock(&c->lock);
    struct settings *st = settings_get(c);
    uint64_t negative_ms = st->config->negative_ttl;
    struct made made;
    build_entry(c, &made, st, &e->route, old);
    made.why = reason(&made, st, e->route.asset);
    settings_put(st);
    keep(c, e, made.kept); // it has opened them itself by now
    e->catalog = c;
    if (made.status == CAT_WAIT && made.opening) { // its look goes on: storage may not answer who opens it
      e->source.ready = source_ready;
      if (sources_park(c->sources, made.opening, &e->source))
        return;
      continue; // it is open
    }
    if (made.status == CAT_WAIT && e->key_waits++ < KEY_WAITS) {
      e->keys.ready = keys_ready;
      pthread_mutex_lock(&c->lock);
      look_ends(c, e);
      pthread_mutex_unlock(&c->lock);
      if (exchange_park(atomic_load(&c->exchange), made.keys, &e->keys))
        return;
      continue; // they have come meanwhile
    }
    if (made.status == CAT_WAIT) {
      exchange_unpin(atomic_load(&c->exchange), made.keys);
      made.status = CAT_UNAVAILABLE;
      made.why = OBS_err_upstream;
    }
    e->key_waits = 0;
    keep(c, e, NULL);
    if (finish_entry(c, e, &made, negative_ms))
      return;
    entry_value_drop_later(c, e->route.kind, made.value);
    if (again >= AGAIN_MAX) {
      (void)finish_entry(c, e, &(struct made){.status = CAT_UNAVAILABLE, .until_ms = UINT64_MAX}, negative_ms);
      return;
    }
  }
}

// Makes or refreshes one entry, unless that is under way or was just done.
static void do_entry(struct catalog *c, const struct job *j) {
  struct bytes key = bytes_of(j->key, j->key_len);
  uint64_t hash = entry_hash(c, key, j->route.kind);
  struct cat_wait *w = j->wait;
  pthread_mutex_lock(&c->lock);
  struct entry *e = entry_find(c, hash, j->route.kind, key);
  if (!e && c->num_entries < ENTRIES_MAX && (e = entry_new(j, hash))) {
    struct entry *_Atomic *b = &c->buckets[hash % ENTRY_BUCKETS];
    atomic_store_explicit(&e->next, atomic_load_explicit(b, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(b, e, memory_order_release);
    c->num_entries++;
    c->entry_bytes += sizeof *e + e->key_len;
  }
  uint64_t now = clock_mono_ms();
  bool lately = e && entry_failed_lately(c, e, now) && entry_outlives(c, e, now);
  bool done = !e || (!e->making && (lately || entry_freshness(c, e, now) == FRESH) && !source_is_changed(e));
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
  pthread_mutex_unlock(&c->lock);
  if (done && w)
    wake_all(w);
  if (mine)
    make_entry(c, e);
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void catalog_wake_keeper(struct catalog *c) {
  pthread_mutex_lock(&c->keeper_lock);
  pthread_cond_signal(&c->keeper_wake);
  pthread_mutex_unlock(&c->keeper_lock);
}

// After a job: the keeper's turn may have come early.
static void tend(struct catalog *c) {
  uint64_t tracks, index_bytes;
  sources_usage(c->sources, &tracks, &index_bytes);
  if (index_bytes > c->index_most || cache_wants_tending(c->cache) || (c->hot && cache_wants_tending(c->hot)))
    catalog_wake_keeper(c);
}

void *catalog_help(void *arg) {
  struct catalog *c = arg;
  pthread_setname_np(pthread_self(), "helper");
  crash_thread();
  struct job j;
  for (;;) {
    pthread_mutex_lock(&c->queue_lock);
    while (!c->again && !c->queue_len && !c->stop)
      pthread_cond_wait(&c->queue_wake, &c->queue_lock);
    struct entry *again = c->again;
    if (again) {
      c->again = again->again_next;
      pthread_mutex_unlock(&c->queue_lock);
      make_entry(c, again);
      tend(c);
      continue;
    }
    if (!c->queue_len) {
      pthread_mutex_unlock(&c->queue_lock);
      return NULL;
    }
    const struct job *q = &c->queue[c->queue_head];
    memcpy(&j, q, offsetof(struct job, key) + q->key_len);
    route_rebase(&j.route, &j.route, j.key);
    c->queue_head = (c->queue_head + 1) % QUEUE_JOBS;
    c->queue_len--;
    pthread_mutex_unlock(&c->queue_lock);
    switch (j.kind) {
    case JOB_ENTRY: do_entry(c, &j); break;
    case JOB_FILL: do_fill(c, &j); break;
    case JOB_BYPASS: do_bypass(c, &j); break;
    case JOB_OPEN: do_open(c, &j); break;
    case JOB_FIND: do_find(c); break;
    }
    tend(c);
  }
}

static void entry_quiet(struct quiet_item *item) {
  struct entry *e = (struct entry *)item;
  free(e);
}

struct excess {
  uint64_t entries, bytes;
};

// What will be free without an entry, more or less: two tracks may share an index.
static uint64_t value_bytes(const struct entry *e) {
  const void *v = atomic_load_explicit(&e->value, memory_order_relaxed);
  uint64_t own = sizeof *e + e->key_len;
  if (!v)
    return own;
  return own + (e->route.kind == ROUTE_INIT ? sizeof(struct full_track) + ((const struct protected_track *)v)->source->bytes
                                            : ((const struct text_doc *)v)->body.n);
}

// One step of the clock: unused entries of some buckets leave. Under the lock.
static void evict_some(struct catalog *c, struct excess *left) {
  for (unsigned step = 0; step < EVICT_STEPS && (left->entries || left->bytes); step++) {
    struct entry *_Atomic *at = &c->buckets[c->hand++ % ENTRY_BUCKETS];
    for (struct entry *e; (e = atomic_load_explicit(at, memory_order_relaxed));) {
      if (e->making || atomic_exchange_explicit(&e->used, false, memory_order_relaxed)) {
        at = &e->next;
        continue;
      }
      atomic_store_explicit(at, atomic_load_explicit(&e->next, memory_order_relaxed), memory_order_release);
      c->num_entries--;
      c->entry_bytes -= sizeof *e + e->key_len;
      left->entries -= left->entries > 0;
      uint64_t bytes = value_bytes(e);
      left->bytes -= bytes < left->bytes ? bytes : left->bytes;
      entry_value_drop_later(c, e->route.kind, atomic_load_explicit(&e->value, memory_order_relaxed));
      quiet_retire(c->quiet, &e->item, entry_quiet);
    }
  }
}

void catalog_usage(struct catalog *c, struct catalog_usage *out) {
  sources_usage(c->sources, &out->tracks, &out->index_bytes);
  cache_stats(c->cache, &out->cache);
  if (c->hot)
    cache_stats(c->hot, &out->hot);
  pthread_mutex_lock(&c->lock);
  out->entries = c->num_entries;
  out->entry_bytes = c->entry_bytes;
  out->text_bytes = c->text_bytes;
  pthread_mutex_unlock(&c->lock);
}

static void set_gauges(struct catalog *c, const struct catalog_usage *u) {
  struct obs_worker *m = c->metrics;
  atomic_store_explicit(&m->cache_bytes, (int64_t)u->cache.bytes, memory_order_relaxed);
  atomic_store_explicit(&m->hot_bytes, (int64_t)u->hot.bytes, memory_order_relaxed);
  atomic_store_explicit(&m->hot_blocks, (int64_t)u->hot.blocks, memory_order_relaxed);
  atomic_store_explicit(&m->cache_granted, (int64_t)(u->cache.granted + u->hot.granted), memory_order_relaxed);
  atomic_store_explicit(&m->cache_blocks, (int64_t)u->cache.blocks, memory_order_relaxed);
  atomic_store_explicit(&m->cache_evicted, u->cache.evicted, memory_order_relaxed);
  atomic_store_explicit(&m->cache_rejected, u->cache.bypassed, memory_order_relaxed);
  atomic_store_explicit(&m->tracks_open, (int64_t)u->tracks, memory_order_relaxed);
  atomic_store_explicit(&m->entries_open, (int64_t)u->entries, memory_order_relaxed);
  atomic_store_explicit(&m->entry_bytes, (int64_t)(u->index_bytes + u->text_bytes + u->entry_bytes), memory_order_relaxed);
}

// Evicts until both bounds hold, at most twice round the clock: an entry in use is spared once. Returns whether they did not.
static bool evict(struct catalog *c, const struct catalog_usage *u) {
  uint64_t most = c->index_most, bytes = u->index_bytes + u->text_bytes + u->entry_bytes;
  enum { MOST_ENTRIES = ENTRIES_MAX / 8 * 7, STEPS = 2 * ENTRY_BUCKETS / EVICT_STEPS };
  bool over = bytes > most;
  struct excess left = {u->entries > MOST_ENTRIES ? u->entries - MOST_ENTRIES : 0, over ? bytes - most + most / 16 : 0};
  for (unsigned step = 0; step < STEPS && (left.entries || left.bytes); step++) {
    pthread_mutex_lock(&c->lock);
    evict_some(c, &left);
    pthread_mutex_unlock(&c->lock);
  }
  return over;
}

static bool keep_house(struct catalog *c) {
  struct catalog_usage u = {0};
  bool busy = cache_tend(c->cache);
  if (c->hot) {
    busy |= cache_tend(c->hot);
    hot_keep(c);
  }
  busy |= give_old(c);
  catalog_usage(c, &u);
  set_gauges(c, &u);
  bool over = evict(c, &u);
  return quiet_reclaim(c->quiet) || busy || over;
}

void *catalog_keep(void *arg) {
  struct catalog *c = arg;
  pthread_setname_np(pthread_self(), "keeper");
  crash_thread();
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

