#include "cache/cache.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 // Linux 6.1; glibc 2.36 does not know it
#endif

// Memory is a log in regions. A block is placed behind the last one of the open region of its part; a full region waits in
// its part's queue; emptying one means copying what earned it to the main part and handing the region back as a whole
// when no worker can still read from it. So there is no free list, no fragmentation, and reclaiming costs one
// quiet_item a region.

enum {
  REGION_MIN = 256 << 10,
  REGION_MAX = 32 << 20,
  REGIONS_WANTED = 48,
  BYTES_A_NODE = 4096, // a region has one node for so many bytes: smaller blocks fill its nodes first
  FREQ_MAX = 3,
  SPARE = 1,           // free regions that only promotion may take
  HUGE_PAGE = 2 << 20,
  PAGE = 4096,
  PROBATION_PARTS = 8, // one in so many regions is for blocks seen once
  NONE = -1,
};

enum node_state { NODE_FILLING, NODE_READY, NODE_DEAD };
enum part { PROBATION, MAIN, NUM_PARTS };
enum region_state { REGION_FREE, REGION_OPEN, REGION_FULL, REGION_LEAVING };

struct cache_node {
  struct cache_node *_Atomic next; // in its bucket
  uint64_t source_id;
  uint32_t segment, len;
  uint8_t *data;
  _Atomic uint8_t state, freq;
  int region;
  struct cache_waiter *waiters; // under the lock
};

struct region {
  struct quiet_item leaving; // first: its address is the region's
  struct cache *cache;
  uint8_t *base;
  struct cache_node *nodes;
  size_t used;
  uint32_t num_nodes, filling;
  enum region_state state;
  enum part part;
  int next;   // in its part's queue
  bool ready; // memory files: its pages are there, huge where that could be had
  uint8_t collapses;
};

struct queue {
  int first, last, num;
};

struct cache {
  pthread_mutex_t lock;
  struct quiet *quiet;
  uint8_t *memory;
  int fd; // of the memory file, or -1
  size_t memory_len, region_len, align; // blocks begin at multiples of `align`
  uint32_t region_nodes;
  struct region *regions;
  struct cache_node *nodes;
  int num_regions, num_free, num_leaving;
  int open[NUM_PARTS];
  struct queue full[NUM_PARTS];
  _Atomic bool starved; // somebody found no room
  uint32_t bucket_mask, ghost_mask;
  struct cache_node *_Atomic *buckets;
  uint32_t *ghosts; // fingerprints of what left probation unused
  struct cache_counts counts; // under the lock
};

static uint64_t hash_of(uint64_t source_id, uint32_t segment) {
  uint64_t h = (source_id ^ ((uint64_t)segment * 0x9e3779b97f4a7c15u)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ h >> 29) * 0x94d049bb133111ebu;
  return h ^ h >> 32;
}

static struct cache_node *find(struct cache *c, uint64_t hash, uint64_t source_id, uint32_t segment, uint32_t len) {
  struct cache_node *n = atomic_load_explicit(&c->buckets[hash & c->bucket_mask], memory_order_acquire);
  for (; n; n = atomic_load_explicit(&n->next, memory_order_acquire))
    if (n->source_id == source_id && n->segment == segment && n->len == len &&
        atomic_load_explicit(&n->state, memory_order_acquire) != NODE_DEAD)
      return n;
  return NULL;
}

static void link_node(struct cache *c, uint64_t hash, struct cache_node *n) {
  struct cache_node *_Atomic *b = &c->buckets[hash & c->bucket_mask];
  atomic_store_explicit(&n->next, atomic_load_explicit(b, memory_order_relaxed), memory_order_relaxed);
  atomic_store_explicit(b, n, memory_order_release);
}

static void unlink_node(struct cache *c, struct cache_node *n) {
  struct cache_node *_Atomic *at = &c->buckets[hash_of(n->source_id, n->segment) & c->bucket_mask];
  for (struct cache_node *i; (i = atomic_load_explicit(at, memory_order_relaxed)); at = &i->next)
    if (i == n) {
      atomic_store_explicit(at, atomic_load_explicit(&n->next, memory_order_relaxed), memory_order_release);
      return;
    }
}

static bool use(struct cache_ref *out, struct cache_node *n) {
  if (atomic_load_explicit(&n->state, memory_order_acquire) != NODE_READY)
    return false;
  uint8_t freq = atomic_load_explicit(&n->freq, memory_order_relaxed);
  if (freq < FREQ_MAX)
    atomic_store_explicit(&n->freq, (uint8_t)(freq + 1), memory_order_relaxed);
  *out = (struct cache_ref){n->data, n};
  return true;
}

static void enqueue(struct cache *c, struct queue *q, int region) {
  c->regions[region].next = NONE;
  if (q->num++)
    c->regions[q->last].next = region;
  else
    q->first = region;
  q->last = region;
}

static int dequeue(struct cache *c, struct queue *q) {
  int region = q->first;
  q->first = c->regions[region].next;
  q->num--;
  return region;
}

// A free region, one with its pages ready first; there is one. Taking it makes the next one worth preparing.
static int free_region(struct cache *c) {
  int any = NONE;
  for (int i = 0; i < c->num_regions; i++) {
    if (c->regions[i].state != REGION_FREE)
      continue;
    any = i;
    if (c->regions[i].ready)
      break;
  }
  if (c->fd >= 0)
    atomic_store_explicit(&c->starved, true, memory_order_relaxed);
  return any;
}

// A place of `len` bytes in `part`, in its open region or a free one. `spare`: whether the spare regions may be taken.
static struct cache_node *place(struct cache *c, enum part part, uint32_t len, bool spare) {
  size_t want = ((size_t)len + c->align - 1) & ~(c->align - 1);
  int i = c->open[part];
  if (i != NONE && (c->region_len - c->regions[i].used < want || c->regions[i].num_nodes == c->region_nodes)) {
    c->regions[i].state = REGION_FULL;
    enqueue(c, &c->full[part], i);
    i = c->open[part] = NONE;
  }
  if (i == NONE) {
    if (c->num_free <= (spare ? 0 : SPARE))
      return NULL;
    i = free_region(c);
    struct region *r = &c->regions[i];
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
  struct cache_node *n = find(c, hash_of(source_id, segment), source_id, segment, len);
  return n && use(out, n);
}

int cache_fd(const struct cache *c) { return c->fd; }

uint64_t cache_offset(const struct cache *c, const struct cache_ref *ref) { return (uint64_t)(ref->data - c->memory); }

enum cache_got cache_get(struct cache *c, struct cache_ref *out, uint64_t source_id, uint32_t segment, uint32_t len,
                         struct cache_waiter *w) {
  uint64_t hash = hash_of(source_id, segment);
  struct cache_node *n = find(c, hash, source_id, segment, len);
  if (n && use(out, n))
    return CACHE_HIT;
  enum cache_got got;
  pthread_mutex_lock(&c->lock);
  n = find(c, hash, source_id, segment, len);
  if (n && use(out, n)) {
    got = CACHE_HIT;
  } else if (n && !w) {
    got = CACHE_BYPASS;
  } else if (n) {
    w->next = n->waiters;
    n->waiters = w;
    got = CACHE_WAIT;
  } else if (len == 0 || len > c->region_len / 2 ||
             !(n = place(c, was_here(c, hash) ? MAIN : PROBATION, len, false))) {
    c->counts.bypassed++;
    atomic_store_explicit(&c->starved, true, memory_order_relaxed);
    got = CACHE_BYPASS;
  } else {
    n->source_id = source_id;
    n->segment = segment;
    link_node(c, hash, n);
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
    c->counts.fill_bytes += n->len;
    c->counts.bytes += n->len;
    c->counts.blocks++;
    atomic_store_explicit(&n->state, NODE_READY, memory_order_release);
  } else {
    atomic_store_explicit(&n->state, NODE_DEAD, memory_order_release);
    unlink_node(c, n);
  }
  pthread_mutex_unlock(&c->lock);
  while (w) {
    struct cache_waiter *next = w->next; // `ready` may reuse the waiter at once
    w->ready(w);
    w = next;
  }
}

// Copies a block to the main part. The old place stays readable till its region has left.
static bool promote(struct cache *c, struct cache_node *old) {
  pthread_mutex_lock(&c->lock);
  struct cache_node *n = place(c, MAIN, old->len, true);
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
  link_node(c, hash_of(n->source_id, n->segment), n);
  unlink_node(c, old);
  c->counts.promoted++;
  pthread_mutex_unlock(&c->lock);
  return true;
}

static void forget(struct cache *c, struct cache_node *n) {
  pthread_mutex_lock(&c->lock);
  unlink_node(c, n);
  c->counts.evicted++;
  c->counts.bytes -= n->len;
  c->counts.blocks--;
  uint64_t hash = hash_of(n->source_id, n->segment);
  if (c->regions[n->region].part == PROBATION)
    c->ghosts[hash >> 32 & c->ghost_mask] = (uint32_t)(hash | 1);
  pthread_mutex_unlock(&c->lock);
}

static void region_left(struct quiet_item *item) {
  struct region *r = (struct region *)item;
  struct cache *c = r->cache;
  bool empty = c->fd < 0 || !fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, r->base - c->memory, (off_t)c->region_len);
  pthread_mutex_lock(&c->lock);
  c->num_leaving--;
  r->ready = false;
  r->collapses = 0;
  if (!empty) { // its pages may be in flight: better to lose it than to write on them
    r->state = REGION_LEAVING;
    pthread_mutex_unlock(&c->lock);
    return;
  }
  r->state = REGION_FREE;
  c->num_free++;
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
      enqueue(c, q, i);
    }
  }
  return NONE;
}

static int free_wanted(const struct cache *c) { return SPARE + 1 + c->num_regions / 16; }

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
  if (c->fd >= 0) {
    prepare_free(c);
    more = collapse_used(c);
  }
  bool starved = atomic_exchange_explicit(&c->starved, false, memory_order_relaxed);
  for (int round = 0; round < c->num_regions; round++) {
    pthread_mutex_lock(&c->lock);
    int i = c->num_free + c->num_leaving < free_wanted(c) ? victim(c) : NONE;
    if (i != NONE) {
      c->regions[i].state = REGION_LEAVING;
      c->num_leaving++;
    }
    bool leaving = c->num_leaving > 0;
    pthread_mutex_unlock(&c->lock);
    if (i == NONE)
      return leaving || starved || more;
    struct region *r = &c->regions[i];
    for (uint32_t k = 0; k < r->num_nodes; k++) {
      struct cache_node *n = &r->nodes[k];
      if (atomic_load_explicit(&n->state, memory_order_relaxed) != NODE_READY)
        continue;
      if (!atomic_load_explicit(&n->freq, memory_order_relaxed) || !promote(c, n))
        forget(c, n);
    }
    quiet_retire(c->quiet, &r->leaving, region_left);
  }
  return true;
}

void cache_stats(struct cache *c, struct cache_counts *out) {
  pthread_mutex_lock(&c->lock);
  *out = c->counts;
  pthread_mutex_unlock(&c->lock);
}

static void *reserve(size_t n) {
  void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

static uint32_t power_of_two(uint64_t n) {
  uint32_t p = 1024;
  while (p < n && p < 1u << 30)
    p *= 2;
  return p;
}

// Address space of n bytes over a memory file, where huge pages can be mapped.
static void *reserve_file(size_t n, int *fd) {
  *fd = memfd_create("sluice-segments", MFD_CLOEXEC);
  if (*fd < 0 || ftruncate(*fd, (off_t)n))
    return NULL;
  uint8_t *around = reserve(n + HUGE_PAGE);
  if (!around)
    return NULL;
  size_t before = -(uintptr_t)around & (HUGE_PAGE - 1);
  void *p = mmap(around + before, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, *fd, 0);
  if (before)
    munmap(around, before);
  munmap(around + before + n, HUGE_PAGE - before);
  return p == MAP_FAILED ? NULL : p;
}

static struct cache *make(uint64_t size, struct quiet *q, bool file) {
  size_t len = size / REGIONS_WANTED;
  len &= ~(size_t)((file && len >= HUGE_PAGE ? HUGE_PAGE : REGION_MIN) - 1);
  len = len < REGION_MIN ? REGION_MIN : len > REGION_MAX ? REGION_MAX : len;
  int num = size / len < 4 ? 4 : (int)(size / len);
  struct cache *c = calloc(1, sizeof *c);
  if (!c)
    return NULL;
  uint32_t region_nodes = (uint32_t)(len / BYTES_A_NODE);
  uint64_t num_nodes = (uint64_t)num * region_nodes;
  uint32_t buckets = power_of_two(num_nodes / 2);
  *c = (struct cache){.quiet = q, .memory_len = len * (size_t)num, .region_len = len, .region_nodes = region_nodes,
                      .num_regions = num, .num_free = num, .open = {NONE, NONE}, .bucket_mask = buckets - 1,
                      .ghost_mask = buckets - 1, .fd = -1, .starved = file};
  // sendfile moves 16 pages at a time: a block that begins on a page takes the fewest turns, and so the fewest pushes
  // onto the wire, each of which a pacing congestion control may answer with a timer.
  c->align = file ? PAGE : 64;
  pthread_mutex_init(&c->lock, NULL);
  c->memory = file ? reserve_file(c->memory_len, &c->fd) : reserve(c->memory_len);
  c->nodes = reserve(num_nodes * sizeof *c->nodes);
  c->regions = calloc((size_t)num, sizeof *c->regions);
  c->buckets = reserve(buckets * sizeof *c->buckets);
  c->ghosts = reserve(buckets * sizeof *c->ghosts);
  if (!c->memory || !c->nodes || !c->regions || !c->buckets || !c->ghosts) {
    cache_free(c);
    return NULL;
  }
  madvise(c->memory, c->memory_len, MADV_HUGEPAGE); // where the machine offers them
  madvise(c->memory, c->memory_len, MADV_DONTDUMP);
  for (int i = 0; i < num; i++)
    c->regions[i] = (struct region){.cache = c, .base = c->memory + len * (size_t)i,
                                    .nodes = c->nodes + (size_t)region_nodes * (size_t)i, .next = NONE};
  return c;
}

struct cache *cache_new(uint64_t size, struct quiet *q) { return make(size, q, false); }
struct cache *cache_new_file(uint64_t size, struct quiet *q) { return make(size, q, true); }

void cache_free(struct cache *c) {
  if (!c)
    return;
  uint64_t buckets = (uint64_t)c->bucket_mask + 1;
  if (c->memory)
    munmap(c->memory, c->memory_len);
  if (c->nodes)
    munmap(c->nodes, (size_t)c->num_regions * c->region_nodes * sizeof *c->nodes);
  if (c->buckets)
    munmap(c->buckets, buckets * sizeof *c->buckets);
  if (c->ghosts)
    munmap(c->ghosts, buckets * sizeof *c->ghosts);
  if (c->fd >= 0)
    close(c->fd);
  free(c->regions);
  pthread_mutex_destroy(&c->lock);
  free(c);
}
