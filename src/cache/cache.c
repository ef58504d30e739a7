#include "cache/cache_int.h"

#include <string.h>

uint64_t cache_hash(uint64_t source_id, uint32_t segment) {
  uint64_t h = (source_id ^ ((uint64_t)segment * 0x9e3779b97f4a7c15u)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ h >> 29) * 0x94d049bb133111ebu;
  return h ^ h >> 32;
}

struct cache_node *cache_find(struct cache *c, uint64_t hash, uint64_t source_id, uint32_t segment, uint32_t len) {
  struct cache_node *n = atomic_load_explicit(&c->buckets[hash & c->bucket_mask], memory_order_acquire);
  for (; n; n = atomic_load_explicit(&n->next, memory_order_acquire))
    if (n->source_id == source_id && n->segment == segment && n->len == len &&
        atomic_load_explicit(&n->state, memory_order_acquire) != NODE_DEAD)
      return n;
  return NULL;
}

void cache_link(struct cache *c, uint64_t hash, struct cache_node *n) {
  struct cache_node *_Atomic *b = &c->buckets[hash & c->bucket_mask];
  atomic_store_explicit(&n->next, atomic_load_explicit(b, memory_order_relaxed), memory_order_relaxed);
  atomic_store_explicit(b, n, memory_order_release);
}

void cache_unlink(struct cache *c, struct cache_node *n) {
  struct cache_node *_Atomic *at = &c->buckets[cache_hash(n->source_id, n->segment) & c->bucket_mask];
  for (struct cache_node *i; (i = atomic_load_explicit(at, memory_order_relaxed)); at = &i->next)
    if (i == n) {
      atomic_store_explicit(at, atomic_load_explicit(&n->next, memory_order_relaxed), memory_order_release);
      return;
    }
}

static bool look(struct cache_ref *out, struct cache_node *n) {
  if (atomic_load_explicit(&n->state, memory_order_acquire) != NODE_READY)
    return false;
  *out = (struct cache_ref){n->data, n};
  return true;
}

static bool use(struct cache_ref *out, struct cache_node *n) {
  if (!look(out, n))
    return false;
  uint8_t freq = atomic_load_explicit(&n->freq, memory_order_relaxed);
  if (freq < FREQ_MAX)
    atomic_store_explicit(&n->freq, (uint8_t)(freq + 1), memory_order_relaxed);
  return true;
}

void cache_enqueue(struct cache *c, struct queue *q, int region) {
  c->regions[region].next = NONE;
  if (q->num++)
    c->regions[q->last].next = region;
  else
    q->first = region;
  q->last = region;
}

// A free region, one with its pages ready first; there is one. Taking it makes the next one worth preparing.
static struct region *free_region(struct cache *c) {
  struct region *any = NULL;
  for (int i = 0; i < c->num_regions; i++) {
    if (c->regions[i].state != REGION_FREE)
      continue;
    any = &c->regions[i];
    if (any->ready)
      break;
  }
  if (c->fd >= 0)
    atomic_store_explicit(&c->starved, true, memory_order_relaxed);
  return any;
}

bool budget_take(struct cache_budget *b, uint64_t n) {
  uint64_t used = atomic_load_explicit(&b->used, memory_order_relaxed);
  do {
    if (n > b->limit || used > b->limit - n)
      return false;
  } while (!atomic_compare_exchange_weak_explicit(&b->used, &used, used + n, memory_order_relaxed, memory_order_relaxed));
  return true;
}

void budget_give(struct cache_budget *b, uint64_t n) { atomic_fetch_sub_explicit(&b->used, n, memory_order_relaxed); }

bool cache_grant(struct cache *c) {
  if (c->num_granted == c->num_regions || !budget_take(c->budget, cache_region_cost(c)))
    return false;
  struct region *r = c->regions;
  while (r->state != REGION_NONE)
    r++;
  r->state = REGION_FREE;
  c->num_granted++;
  c->num_free++;
  return true;
}

struct cache_node *cache_place(struct cache *c, enum part part, uint32_t len, bool spare) {
  size_t want = ((size_t)len + c->align - 1) & ~(c->align - 1);
  int i = c->open[part];
  if (i != NONE && (c->region_len - c->regions[i].used < want || c->regions[i].num_nodes == c->region_nodes)) {
    c->regions[i].state = REGION_FULL;
    cache_enqueue(c, &c->full[part], i);
    i = c->open[part] = NONE;
  }
  if (i == NONE) {
    if (c->num_free <= (spare ? 0 : SPARE) && !cache_grant(c))
      return NULL;
    struct region *r = free_region(c);
    i = (int)(r - c->regions);
    r->state = REGION_OPEN;
    r->part = part;
    r->used = 0;
    r->num_nodes = r->filling = 0;
    c->num_free--;
    c->open[part] = i;
  }
  struct region *r = &c->regions[i];
  struct cache_node *n = &r->nodes[r->num_nodes++];
  memset((void *)n, 0, sizeof *n);
  n->data = r->base + r->used;
  n->len = len;
  n->region = i;
  r->used += want;
  r->filling++;
  return n;
}

static bool was_here(const struct cache *c, uint64_t hash) {
  return c->ghosts[hash >> 32 & c->ghost_mask] == (uint32_t)(hash | 1);
}

bool cache_peek(struct cache *c, struct cache_ref *out, uint64_t source_id, uint32_t segment, uint32_t len) {
  struct cache_node *n = cache_find(c, cache_hash(source_id, segment), source_id, segment, len);
  return n && use(out, n);
}

bool cache_look(struct cache *c, struct cache_ref *out, uint64_t source_id, uint32_t segment, uint32_t len) {
  struct cache_node *n = cache_find(c, cache_hash(source_id, segment), source_id, segment, len);
  return n && look(out, n);
}

void cache_ask(const struct cache *c, uint64_t source_id, uint32_t segment) {
  __builtin_prefetch(&c->buckets[cache_hash(source_id, segment) & c->bucket_mask]);
}

int cache_fd(const struct cache *c) { return c->fd; }

uint64_t cache_offset(const struct cache *c, const struct cache_ref *ref) { return (uint64_t)(ref->data - c->memory); }

enum cache_got cache_get(struct cache *c, struct cache_ref *out, uint64_t source_id, uint32_t segment, uint32_t len,
                         struct cache_waiter *w) {
  uint64_t hash = cache_hash(source_id, segment);
  struct cache_node *n = cache_find(c, hash, source_id, segment, len);
  if (n && use(out, n))
    return CACHE_HIT;
  enum cache_got got;
  pthread_mutex_lock(&c->lock);
  n = cache_find(c, hash, source_id, segment, len);
  if (n && use(out, n)) {
    got = CACHE_HIT;
  } else if (n && !w) {
    got = CACHE_BYPASS;
  } else if (n) {
    w->next = n->waiters;
    n->waiters = w;
    got = CACHE_WAIT;
  } else if (len == 0 || len > c->region_len / 2 ||
             !(n = cache_place(c, was_here(c, hash) ? MAIN : PROBATION, len, false))) {
    c->counts.bypassed++;
    atomic_store_explicit(&c->starved, true, memory_order_relaxed);
    got = CACHE_BYPASS;
  } else {
    n->source_id = source_id;
    n->segment = segment;
    cache_link(c, hash, n);
    *out = (struct cache_ref){n->data, n};
    got = CACHE_FILL;
  }
  pthread_mutex_unlock(&c->lock);
  return got;
}

void cache_fill_done(struct cache *c, struct cache_ref *ref, bool ok) {
  struct cache_node *n = ref->node;
  pthread_mutex_lock(&c->lock);
  struct cache_waiter *w = n->waiters;
  n->waiters = NULL;
  c->regions[n->region].filling--;
  if (ok) {
    c->counts.fills++;
    c->counts.bytes += n->len;
    c->counts.blocks++;
    atomic_store_explicit(&n->state, NODE_READY, memory_order_release);
  } else {
    atomic_store_explicit(&n->state, NODE_DEAD, memory_order_release);
    cache_unlink(c, n);
  }
  pthread_mutex_unlock(&c->lock);
  while (w) {
    struct cache_waiter *next = w->next; // `ready` may reuse the waiter at once
    w->ready(w);
    w = next;
  }
}

unsigned cache_num_regions(const struct cache *c) { return (unsigned)c->num_regions; }

unsigned cache_region(const struct cache *c, const struct cache_ref *ref, uint8_t **base, size_t *len) {
  const struct region *r = &c->regions[ref->node->region];
  *base = r->base;
  *len = c->region_len;
  return (unsigned)ref->node->region;
}

void cache_stats(struct cache *c, struct cache_counts *out) {
  pthread_mutex_lock(&c->lock);
  *out = c->counts;
  out->granted = c->table_bytes + (uint64_t)c->num_granted * cache_region_cost(c);
  pthread_mutex_unlock(&c->lock);
}
