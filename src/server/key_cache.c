#include "server/key_cache.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "server/keyring.h"

struct key_slot {
  struct key_slot *chain;        // of its bucket
  struct key_slot *newer, *older; // by last use
  uint64_t hash;
  struct issued *issued;
  struct key_wait *waiters;
  uint64_t refresh_at, expires_at, stale_until, retry_at;
  uint32_t pins, failures;
  bool flying;
  struct key_question q; // its asset is `asset`
  uint8_t asset[];
};

struct spare { // a freed piece of the memory for secrets
  struct spare *next;
};

struct key_cache {
  pthread_mutex_t lock;
  struct key_slot **buckets;
  uint32_t mask, num, max, answers;
  struct key_slot *newest, *oldest;
  struct secret_alloc memory;
  struct spare *spare;
};

enum { RECORDS = KEY_LABELS_MAX * sizeof(struct key_record), MAX_BACKOFF = 6 };

struct key_cache *key_cache_new(uint32_t max_slots) {
  struct key_cache *c = calloc(1, sizeof *c);
  uint32_t n = 64;
  while (n < max_slots && n < 1u << 24)
    n *= 2;
  if (!c || !(c->buckets = calloc(n, sizeof(struct key_slot *)))) {
    free(c);
    return NULL;
  }
  pthread_mutex_init(&c->lock, NULL);
  c->mask = n - 1;
  c->max = max_slots;
  secret_alloc_init(&c->memory, (size_t)1 << 32);
  return c;
}

// Of what a key belongs to: questions that differ in systems and labels alone share a bucket.
static uint64_t hash_of(const struct key_question *q) {
  uint64_t parts[3] = {q->server, q->epoch, (uint64_t)q->scheme};
  return XXH3_64bits_withSeed(q->asset.p, q->asset.n, XXH3_64bits(parts, sizeof parts));
}

static bool same_keys(const struct key_question *a, const struct key_question *b) {
  return a->server == b->server && a->epoch == b->epoch && a->scheme == b->scheme && bytes_eq(a->asset, b->asset);
}

static bool same(const struct key_question *a, const struct key_question *b) {
  return a->systems == b->systems && a->num_labels == b->num_labels && same_keys(a, b);
}

static void unlink_use(struct key_cache *c, struct key_slot *s) {
  *(s->newer ? &s->newer->older : &c->newest) = s->older;
  *(s->older ? &s->older->newer : &c->oldest) = s->newer;
  s->newer = s->older = NULL;
}

static void link_newest(struct key_cache *c, struct key_slot *s) {
  s->older = c->newest;
  s->newer = NULL;
  *(c->newest ? &c->newest->newer : &c->oldest) = s;
  c->newest = s;
}

// Under the lock, except that the last hold's free takes it: so issued things are dropped outside.
static struct issued *remove_slot(struct key_cache *c, struct key_slot *s) {
  struct key_slot **at = &c->buckets[s->hash & c->mask];
  while (*at != s)
    at = &(*at)->chain;
  *at = s->chain;
  unlink_use(c, s);
  c->num--;
  struct issued *was = s->issued;
  c->answers -= was != NULL;
  free(s);
  return was;
}

static struct key_slot *find(struct key_cache *c, uint64_t hash, const struct key_question *q) {
  struct key_slot *s = c->buckets[hash & c->mask];
  while (s && (s->hash != hash || !same(&s->q, q)))
    s = s->chain;
  return s;
}

static struct key_slot *add_slot(struct key_cache *c, uint64_t hash, const struct key_question *q) {
  struct key_slot *s = calloc(1, sizeof *s + q->asset.n);
  if (!s)
    return NULL;
  memcpy(s->asset, q->asset.p, q->asset.n);
  s->q = *q;
  s->q.asset = bytes_of(s->asset, q->asset.n);
  s->hash = hash;
  s->chain = c->buckets[hash & c->mask];
  c->buckets[hash & c->mask] = s;
  link_newest(c, s);
  c->num++;
  return s;
}

// Makes room for one more: the least lately used that nobody is at. What it held is left in *was.
static bool make_room(struct key_cache *c, struct issued **was) {
  if (c->num < c->max)
    return true;
  struct key_slot *s = c->oldest;
  while (s && s->pins)
    s = s->newer;
  if (!s)
    return false;
  *was = remove_slot(c, s);
  return true;
}

static struct issued *issued_hold(struct issued *i) {
  atomic_fetch_add_explicit(&i->refs, 1, memory_order_relaxed);
  return i;
}

static struct key_ask ask(struct key_slot *s, uint64_t now, bool may_fetch) {
  struct key_ask a = {.got = KEY_REFUSED, .slot = s};
  bool usable = s->issued && now < s->stale_until, may = may_fetch && now >= s->retry_at && !s->flying;
  a.fetch = may && (!usable || now >= s->refresh_at);
  if (a.fetch) {
    s->flying = true;
    s->pins++;
  }
  if (usable) {
    a.got = now < s->expires_at ? KEY_HIT : KEY_STALE;
    a.issued = issued_hold(s->issued);
  } else if (s->flying) {
    a.got = KEY_FLYING;
    s->pins++;
  } else if (now < s->retry_at) {
    a.retry_ms = s->retry_at - now;
  }
  return a;
}

struct key_ask key_cache_ask(struct key_cache *c, const struct key_question *q, uint64_t now_ms, bool may_fetch) {
  struct key_ask a = {.got = KEY_REFUSED};
  struct issued *was = NULL;
  uint64_t hash = hash_of(q);
  pthread_mutex_lock(&c->lock);
  struct key_slot *s = find(c, hash, q);
  if (s && c->newest != s) {
    unlink_use(c, s);
    link_newest(c, s);
  }
  if (!s && may_fetch && (!make_room(c, &was) || !(s = add_slot(c, hash, q))))
    a.got = KEY_FULL;
  if (s)
    a = ask(s, now_ms, may_fetch);
  pthread_mutex_unlock(&c->lock);
  issued_drop(was);
  return a;
}

bool key_cache_park(struct key_cache *c, struct key_slot *s, struct key_wait *w) {
  pthread_mutex_lock(&c->lock);
  bool flying = s->flying;
  if (flying) {
    w->next = s->waiters;
    s->waiters = w;
  }
  s->pins--;
  pthread_mutex_unlock(&c->lock);
  return flying;
}

void key_cache_unpin(struct key_cache *c, struct key_slot *s) {
  pthread_mutex_lock(&c->lock);
  s->pins--;
  pthread_mutex_unlock(&c->lock);
}

static void take(struct key_slot *s, const struct key_times *t, uint64_t now, uint8_t spread) {
  uint64_t early = t->refresh + (t->lifetime - t->refresh) / 8 * spread / 255;
  s->expires_at = now + t->lifetime;
  s->refresh_at = s->expires_at - early;
  s->stale_until = s->expires_at + t->stale;
  s->failures = 0;
}

void key_cache_landed(struct key_cache *c, struct key_slot *s, struct issued *fresh, const struct key_times *t, uint64_t retry_ms,
                      uint64_t told_ms, uint64_t now_ms, uint8_t spread) {
  struct issued *was = NULL;
  pthread_mutex_lock(&c->lock);
  if (fresh) {
    was = s->issued;
    c->answers += was == NULL;
    s->issued = fresh;
    take(s, t, now_ms, spread);
  } else {
    s->failures += s->failures < MAX_BACKOFF;
    uint64_t pause = retry_ms * s->failures;
    pause -= pause / 4 * spread / 255;
    s->retry_at = now_ms + (pause > told_ms ? pause : told_ms);
  }
  s->flying = false;
  struct key_wait *w = s->waiters;
  s->waiters = NULL;
  s->pins--;
  pthread_mutex_unlock(&c->lock);
  issued_drop(was);
  while (w) {
    struct key_wait *next = w->next;
    w->ready(w);
    w = next;
  }
}

static bool is_key(const struct key_record *a, const struct key_record *b) {
  return keys_equal(a->key, b->key, 16) && !memcmp(a->kid, b->kid, 16) && a->has_iv == b->has_iv && !memcmp(a->iv, b->iv, 16);
}

// Labels of a question are always the first of the same list.
static bool agree(const struct issued *old, const struct key_record *fresh, uint32_t num) {
  bool all = true;
  for (uint32_t i = 0; i < num && i < old->num; i++)
    all = all && is_key(&old->records[i], &fresh[i]);
  return all;
}

bool key_cache_agrees(struct key_cache *c, struct key_slot *s, const struct key_record *fresh, uint32_t num) {
  bool all = true;
  pthread_mutex_lock(&c->lock);
  for (const struct key_slot *o = c->buckets[s->hash & c->mask]; o && all; o = o->chain)
    all = !o->issued || o->hash != s->hash || !same_keys(&o->q, &s->q) || agree(o->issued, fresh, num);
  pthread_mutex_unlock(&c->lock);
  return all;
}

struct bytes key_slot_asset(const struct key_slot *s) { return s->q.asset; }

static void put(struct bytes *to, const struct bytes *from, uint8_t **at) {
  *to = bytes_of(*at, from->n);
  if (from->n)
    memcpy(*at, from->p, from->n);
  *at += from->n;
}

static void copy_given(struct drm_given *to, const struct drm_given *from, uint8_t **at) {
  put(&to->pssh, &from->pssh, at);
  put(&to->mpd, &from->mpd, at);
  put(&to->hls_media, &from->hls_media, at);
  put(&to->hls_master, &from->hls_master, at);
}

struct issued *issued_new(struct key_cache *c, struct key_record *records, uint32_t num) {
  size_t n = records[0].asset.n;
  for (uint32_t k = 0; k < num; k++) {
    n += records[k].label.n;
    for (unsigned s = 0; records[k].given && s < DRM_SYSTEM_COUNT; s++) {
      const struct drm_given *g = &records[k].given[s];
      n += g->pssh.n + g->mpd.n + g->hls_media.n + g->hls_master.n;
    }
  }
  struct issued *i = calloc(1, sizeof *i + n);
  pthread_mutex_lock(&c->lock);
  struct spare *piece = i ? c->spare : NULL;
  if (piece)
    c->spare = piece->next;
  else if (i)
    piece = c->memory.base.get(&c->memory.base, RECORDS);
  pthread_mutex_unlock(&c->lock);
  if (!piece) {
    free(i);
    return NULL;
  }
  *i = (struct issued){.num = num, .records = (struct key_record *)(void *)piece, .cache = c};
  atomic_store(&i->refs, 1);
  uint8_t *at = i->text;
  struct bytes asset;
  put(&asset, &records[0].asset, &at);
  for (uint32_t k = 0; k < num; k++) {
    struct key_record *r = &i->records[k];
    *r = records[k];
    r->asset = asset;
    put(&r->label, &records[k].label, &at);
    for (unsigned s = 0; records[k].given && s < DRM_SYSTEM_COUNT; s++)
      copy_given(&i->given[k][s], &records[k].given[s], &at);
    r->given = records[k].given ? i->given[k] : NULL;
    key_record_wipe(&records[k]);
  }
  return i;
}

void issued_drop(struct issued *i) {
  if (!i || atomic_fetch_sub_explicit(&i->refs, 1, memory_order_acq_rel) != 1)
    return;
  struct key_cache *c = i->cache;
  struct spare *piece = (struct spare *)(void *)i->records;
  explicit_bzero(piece, RECORDS);
  free(i);
  pthread_mutex_lock(&c->lock);
  piece->next = c->spare;
  c->spare = piece;
  pthread_mutex_unlock(&c->lock);
}

void key_cache_count(struct key_cache *c, uint32_t *places, uint32_t *answers) {
  pthread_mutex_lock(&c->lock);
  *places = c->num;
  *answers = c->answers;
  pthread_mutex_unlock(&c->lock);
}

void key_cache_free(struct key_cache *c) {
  if (!c)
    return;
  while (c->oldest)
    issued_drop(remove_slot(c, c->oldest));
  secret_alloc_free(&c->memory);
  pthread_mutex_destroy(&c->lock);
  free(c->buckets);
  free(c);
}
