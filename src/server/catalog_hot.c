// The cache of encrypted segments: what many ask for at the same moment is rendered once into a memory file and sent from
// there. Lookups run on workers; cooling and flushing on the keeper.
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "server/catalog_int.h"

enum {
  HEAT_ADMIT = 4, // requests, halved every second, that make a piece worth keeping encrypted: about two a second
  COOL_MS = 1000,
  SWEEP_MS = 5000,      // grace windows end without anybody saying so
};

static bool is_hot(struct catalog *c, uint64_t id, uint32_t segment) {
  _Atomic uint8_t *h = &c->heat[XXH3_64bits_withSeed(&id, sizeof id, segment) % HEAT_SLOTS];
  uint8_t heat = atomic_load_explicit(h, memory_order_relaxed);
  if (heat < HEAT_ADMIT)
    atomic_store_explicit(h, (uint8_t)(heat + 1), memory_order_relaxed);
  return heat + 1 >= HEAT_ADMIT;
}

// A track's generation stands for (source identity, epoch, scheme) under one set of keys, and is never used again: with the
// piece's place it names bytes. Lengths tell apart what the 48 bits of an offset beyond 4 GiB would not.
static uint64_t hot_id(const struct protected_track *t, struct plan_range piece) { return t->generation << 16 ^ piece.off >> 32; }

enum hot_got catalog_hot(struct catalog *c, struct hot *out, struct protected_track *t, struct plan_range piece,
                         bool may_fill, struct obs_worker *m) {
  if (!c->hot || piece.len > TRACK_SEGMENT_MAX)
    return HOT_NONE;
  uint64_t id = hot_id(t, piece);
  uint32_t segment = (uint32_t)piece.off;
  enum cache_got got = cache_peek(c->hot, &out->ref, id, segment, (uint32_t)piece.len) ? CACHE_HIT : CACHE_BYPASS;
  if (got != CACHE_HIT && may_fill && is_hot(c, id, segment)) {
    got = cache_get(c->hot, &out->ref, id, segment, (uint32_t)piece.len, NULL);
    if (got == CACHE_FILL)
      atomic_store_explicit(&t->is_hot, true, memory_order_relaxed);
  }
  metric_inc(got == CACHE_HIT ? &m->hot_hits : &m->hot_misses);
  if (got != CACHE_HIT && got != CACHE_FILL)
    return HOT_NONE;
  out->track = t;
  out->fd = cache_fd(c->hot);
  out->off = cache_offset(c->hot, &out->ref);
  return got == CACHE_HIT ? HOT_SEND : HOT_FILL;
}

bool catalog_is_hot(struct catalog *c, const struct protected_track *t, struct plan_range piece) {
  struct cache_ref ref;
  return c->hot && cache_look(c->hot, &ref, hot_id(t, piece), (uint32_t)piece.off, (uint32_t)piece.len);
}

void catalog_hot_done(struct catalog *c, struct hot *h, bool ok) {
  cache_fill_done(c->hot, &h->ref, ok);
  if (ok) // it may have been flushed meanwhile, and what is being filled stays
    atomic_store_explicit(&h->track->is_hot, true, memory_order_relaxed);
}

void hot_flush(struct catalog *c, struct protected_track *t) {
  if (!c->hot || !atomic_exchange_explicit(&t->is_hot, false, memory_order_relaxed))
    return;
  for (uint64_t off = 0; off < t->plan.total_len;) {
    struct plan_range piece = track_piece(t, off);
    cache_forget(c->hot, hot_id(t, piece), (uint32_t)piece.off, (uint32_t)piece.len);
    off = piece.off + piece.len;
  }
}

// Under the lock. Tracks of epochs that may not be asked for any more leave the cache, whether or not anybody asks again.
static void sweep_bucket(struct catalog *c, unsigned bucket, uint64_t now_unix) {
  struct entry *e = atomic_load_explicit(&c->buckets[bucket], memory_order_relaxed);
  for (; e; e = atomic_load_explicit(&e->next, memory_order_relaxed)) {
    struct protected_track *t = e->route.kind == ROUTE_INIT ? atomic_load_explicit(&e->value, memory_order_relaxed) : NULL;
    if (!t || !atomic_load_explicit(&t->is_hot, memory_order_relaxed))
      continue;
    enum epoch_status es = epoch_store_status(c->epochs, e->route.asset, e->route.epoch, now_unix, NULL);
    if (es == EPOCH_EXPIRED || es == EPOCH_REVOKED)
      hot_flush(c, t);
  }
}

void hot_keep(struct catalog *c) {
  uint64_t now = clock_mono_ms(), generation = atomic_load_explicit(&c->generation, memory_order_relaxed);
  if (now - c->cooled_ms >= COOL_MS) {
    c->cooled_ms = now;
    for (unsigned i = 0; i < HEAT_SLOTS; i++)
      atomic_store_explicit(&c->heat[i], atomic_load_explicit(&c->heat[i], memory_order_relaxed) / 2, memory_order_relaxed);
  }
  if (generation == c->swept_generation && now - c->swept_ms < SWEEP_MS)
    return;
  c->swept_generation = generation;
  c->swept_ms = now;
  uint64_t now_unix = clock_unix_ms();
  for (unsigned first = 0; first < ENTRY_BUCKETS; first += BUCKETS_AT_ONCE) {
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < BUCKETS_AT_ONCE; i++)
      sweep_bucket(c, first + i, now_unix);
    pthread_mutex_unlock(&c->lock);
  }
}
