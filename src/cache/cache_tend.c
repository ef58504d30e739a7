// Emptying regions ahead of need, and the pages behind them: one thread.
#include "cache/cache_int.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 // Linux 6.1; glibc 2.36 does not know it
#endif

static int dequeue(struct cache *c, struct queue *q) {
  int region = q->first;
  q->first = c->regions[region].next;
  q->num--;
  return region;
}

// Copies a block to the main part. The old place stays readable till its region has left.
static bool promote(struct cache *c, struct cache_node *old) {
  pthread_mutex_lock(&c->lock);
  struct cache_node *n = cache_place(c, MAIN, old->len, true);
  pthread_mutex_unlock(&c->lock);
  if (!n)
    return false;
  n->source_id = old->source_id;
  n->segment = old->segment;
  memcpy(n->data, old->data, old->len);
  pthread_mutex_lock(&c->lock);
  // Main regions are left as often as a block was used meanwhile, at most FREQ_MAX times.
  uint8_t freq = atomic_load_explicit(&old->freq, memory_order_relaxed);
  bool from_main = c->regions[old->region].part == MAIN;
  atomic_store_explicit(&n->freq, from_main ? (uint8_t)(freq - 1) : 0, memory_order_relaxed);
  atomic_store_explicit(&n->state, NODE_READY, memory_order_relaxed);
  c->regions[n->region].filling--;
  cache_link(c, cache_hash(n->source_id, n->segment), n);
  cache_unlink(c, old);
  c->counts.promoted++;
  pthread_mutex_unlock(&c->lock);
  return true;
}

static void forget(struct cache *c, struct cache_node *n) {
  pthread_mutex_lock(&c->lock);
  cache_unlink(c, n);
  c->counts.evicted++;
  c->counts.bytes -= n->len;
  c->counts.blocks--;
  uint64_t hash = cache_hash(n->source_id, n->segment);
  if (c->regions[n->region].part == PROBATION)
    c->ghosts[hash >> 32 & c->ghost_mask] = (uint32_t)(hash | 1);
  pthread_mutex_unlock(&c->lock);
}

// The pages of a region that nobody may see any more.
static bool drop_pages(struct cache *c, struct region *r) {
  if (c->fd >= 0)
    return !fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, r->base - c->memory, (off_t)c->region_len);
  if (r->give_up && c->give_up)
    c->give_up(c->give_up_ctx, (unsigned)(r - c->regions));
  return !r->give_up || !madvise(r->base, c->region_len, MADV_DONTNEED);
}

void cache_on_give_up(struct cache *c, void (*fn)(void *ctx, unsigned region), void *ctx) {
  c->give_up = fn;
  c->give_up_ctx = ctx;
}

static void region_left(struct quiet_item *item) {
  struct region *r = (struct region *)item;
  struct cache *c = r->cache;
  bool empty = drop_pages(c, r);
  pthread_mutex_lock(&c->lock);
  c->num_leaving--;
  r->ready = false;
  r->collapses = 0;
  if (r->give_up)
    c->budget->returning -= cache_region_cost(c);
  if (empty && r->give_up) {
    r->state = REGION_NONE;
    c->num_granted--;
    budget_give(c->budget, cache_region_cost(c));
  } else if (empty) { // else its pages may be in flight: better to lose it than to write on them
    r->state = REGION_FREE;
    c->num_free++;
  }
  r->give_up = false;
  pthread_mutex_unlock(&c->lock);
}

// The region to empty next, taken out of its queue; NONE when none can go (all empty, or fills under way).
static int victim(struct cache *c) {
  int probation = c->full[PROBATION].num + (c->open[PROBATION] != NONE);
  bool small_first = c->full[PROBATION].num && (probation > c->num_regions / PROBATION_PARTS || !c->full[MAIN].num);
  for (int turn = 0; turn < 2; turn++) {
    struct queue *q = &c->full[small_first == (turn == 0) ? PROBATION : MAIN];
    for (int tries = q->num; tries > 0; tries--) {
      int i = dequeue(c, q);
      if (!c->regions[i].filling)
        return i;
      cache_enqueue(c, q, i);
    }
  }
  return NONE;
}

// How much of a region is in use: the bytes of its blocks that were asked for again since they were placed.
static size_t worth(struct cache *c, int region) {
  const struct region *r = &c->regions[region];
  size_t bytes = 0;
  for (uint32_t k = 0; k < r->num_nodes; k++)
    if (atomic_load_explicit(&r->nodes[k].state, memory_order_relaxed) == NODE_READY &&
        atomic_load_explicit(&r->nodes[k].freq, memory_order_relaxed))
      bytes += r->nodes[k].len;
  return bytes;
}

static int take_victim(struct cache *c) {
  pthread_mutex_lock(&c->lock);
  int i = victim(c);
  pthread_mutex_unlock(&c->lock);
  return i;
}

static void put_victim_back(struct cache *c, int region) {
  pthread_mutex_lock(&c->lock);
  struct queue *q = &c->full[c->regions[region].part];
  c->regions[region].next = q->first;
  q->first = region;
  if (!q->num++)
    q->last = region;
  pthread_mutex_unlock(&c->lock);
}

// Regions that `c` has, without those that are leaving.
static int num_held(struct cache *c) {
  pthread_mutex_lock(&c->lock);
  int n = c->num_granted - c->num_leaving;
  pthread_mutex_unlock(&c->lock);
  return n;
}

static bool has_all(struct cache *c) {
  pthread_mutex_lock(&c->lock);
  bool all = c->num_granted == c->num_regions;
  pthread_mutex_unlock(&c->lock);
  return all;
}

// The region to empty for `c`, out of its queue: its own, or that of a cache of the same budget that holds less of use for
// its size.
static struct region *cheapest(struct cache *c) {
  struct cache_budget *b = c->budget;
  int mine = take_victim(c);
  if (has_all(c))
    return mine == NONE ? NULL : &c->regions[mine];
  struct region *best = mine == NONE ? NULL : &c->regions[mine];
  bool aging = ++b->contests % AGING == 0;
  double least = best ? (double)worth(c, mine) / (double)c->region_len : 2;
  for (unsigned m = 0; m < b->num_members; m++) {
    struct cache *o = b->member[m];
    int other = o == c || num_held(o) <= KEPT ? NONE : take_victim(o);
    if (other == NONE)
      continue;
    double share = aging ? -1 : (double)worth(o, other) / (double)o->region_len;
    struct region *loser = share < least ? best : &o->regions[other];
    if (loser)
      put_victim_back(loser->cache, (int)(loser - loser->cache->regions));
    if (share < least) {
      best = &o->regions[other];
      least = share;
    }
  }
  return best;
}

// Regions that `c` has or can have without anything being emptied.
static int obtainable(struct cache *c) {
  struct cache_budget *b = c->budget;
  uint64_t used = atomic_load_explicit(&b->used, memory_order_relaxed), free_bytes = b->limit - used + b->returning;
  uint64_t more = free_bytes / cache_region_cost(c), cap = (uint64_t)(c->num_regions - c->num_granted);
  return c->num_free + c->num_leaving + (int)(more < cap ? more : cap);
}

static void empty_region(struct region *r) {
  struct cache *c = r->cache;
  for (uint32_t k = 0; k < r->num_nodes; k++) {
    struct cache_node *n = &r->nodes[k];
    if (atomic_load_explicit(&n->state, memory_order_relaxed) != NODE_READY)
      continue;
    if (!atomic_load_explicit(&n->freq, memory_order_relaxed) || !promote(c, n))
      forget(c, n);
  }
  quiet_retire(c->quiet, &r->leaving, region_left);
}

static int free_wanted(const struct cache *c) { return SPARE + 1 + c->num_granted / 16; }

bool cache_wants_tending(const struct cache *c) {
  return atomic_load_explicit(&c->starved, memory_order_relaxed);
}

// Huge pages for regions of a memory file: sendfile from 2 MB pages costs a fifth less than from 4 KB pages, and a worker
// that fills a block takes no page fault. MADV_COLLAPSE is what works whatever shmem_enabled says; where it fails, pages
// come one by one as they are written.
static bool collapse(struct cache *c, struct region *r) {
  r->collapses++;
  return !madvise(r->base, c->region_len, MADV_COLLAPSE);
}

// The free regions that come next get their pages ahead of use.
static void prepare_free(struct cache *c) {
  enum { AHEAD = 2 };
  for (int have = 0; have < AHEAD;) {
    struct region *next = NULL;
    have = 0;
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < c->num_regions && have < AHEAD; i++) {
      struct region *r = &c->regions[i];
      have += r->state == REGION_FREE && r->ready;
      if (r->state == REGION_FREE && !r->ready && !next)
        next = r;
    }
    if (have < AHEAD && next) {
      next->state = REGION_LEAVING; // nobody else's for the moment
      c->num_free--;
    }
    pthread_mutex_unlock(&c->lock);
    if (have >= AHEAD || !next)
      return;
    for (size_t i = 0; i + HUGE_PAGE <= c->region_len; i += HUGE_PAGE)
      next->base[i] = 0; // collapsing wants one page to be there
    (void)collapse(c, next);
    pthread_mutex_lock(&c->lock);
    next->state = REGION_FREE;
    next->ready = true;
    c->num_free++;
    pthread_mutex_unlock(&c->lock);
  }
}

// A region that filled up before it had huge pages gets them now, one in each call. Pages that the network holds cannot
// move: such a region is tried again. Returns whether there may be another.
static bool collapse_used(struct cache *c) {
  enum { TRIES = 4 };
  for (int i = 0; i < c->num_regions; i++) {
    struct region *r = &c->regions[i];
    pthread_mutex_lock(&c->lock);
    bool now = r->state == REGION_FULL && !r->ready && r->collapses < TRIES;
    pthread_mutex_unlock(&c->lock);
    if (!now)
      continue;
    r->ready = collapse(c, r); // only this thread empties regions: it stays where it is
    return true;
  }
  return false;
}

bool cache_tend(struct cache *c) {
  bool more = false;
  if (c->fd >= 0 && c->huge_pages) {
    prepare_free(c);
    more = collapse_used(c);
  }
  bool starved = atomic_exchange_explicit(&c->starved, false, memory_order_relaxed);
  for (int round = 0; round < c->num_regions; round++) {
    pthread_mutex_lock(&c->lock);
    bool enough = obtainable(c) >= free_wanted(c), leaving = c->num_leaving > 0 || c->budget->returning;
    pthread_mutex_unlock(&c->lock);
    struct region *r = enough ? NULL : cheapest(c);
    if (!r)
      return leaving || starved || more;
    struct cache *from = r->cache;
    pthread_mutex_lock(&from->lock);
    r->state = REGION_LEAVING;
    from->num_leaving++;
    if (from != c) {
      r->give_up = true;
      c->budget->returning += cache_region_cost(from);
    }
    pthread_mutex_unlock(&from->lock);
    empty_region(r);
  }
  return true;
}

// A block of the same bytes may be asked for again: it is filled anew.
void cache_forget(struct cache *c, uint64_t source_id, uint32_t segment, uint32_t len) {
  pthread_mutex_lock(&c->lock);
  struct cache_node *n = cache_find(c, cache_hash(source_id, segment), source_id, segment, len);
  if (n && atomic_load_explicit(&n->state, memory_order_relaxed) == NODE_READY) {
    atomic_store_explicit(&n->state, NODE_DEAD, memory_order_release);
    cache_unlink(c, n);
    c->counts.bytes -= n->len;
    c->counts.blocks--;
  }
  pthread_mutex_unlock(&c->lock);
}
