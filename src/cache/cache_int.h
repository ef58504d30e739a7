// Inside the cache: shared by cache.c (lookups and fills), cache_tend.c (emptying regions) and cache_open.c.
//
// Memory is a log in regions. A block is placed behind the last one of the open region of its part; a full region waits in
// its part's queue; emptying one means copying what earned it to the main part and handing the region back as a whole
// when no worker can still read from it. So there is no free list, no fragmentation, and reclaiming costs one
// quiet_item a region.

#pragma once
#include <pthread.h>

#include "cache/cache.h"

enum {
  REGION_STEP = 64 << 10,
  REGION_MIN = 256 << 10, // of caches that have room for REGIONS_LEAST of them
  REGION_MAX = 32 << 20,
  HUGE_PAGE = 2 << 20,
  REGIONS_WANTED = 48,
  REGIONS_LEAST = 12,
  BYTES_A_NODE = 4096, // a region has one node for so many bytes: smaller blocks fill its nodes first
  FREQ_MAX = 3,
  SPARE = 1,           // free regions that only promotion may take
  PAGE = 4096,
  PROBATION_PARTS = 8, // one in so many regions is for blocks seen once
  KEPT = 3,            // regions that a cache never gives to another
  AGING = 8,           // one in so many times the other cache gives, whatever it holds: what it holds must earn its place anew
  NONE = -1,
};

enum node_state { NODE_FILLING, NODE_READY, NODE_DEAD };
enum part { PROBATION, MAIN, NUM_PARTS };
enum region_state { REGION_NONE, REGION_FREE, REGION_OPEN, REGION_FULL, REGION_LEAVING };

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
  enum region_state state; // NONE: not granted
  enum part part;
  bool give_up; // goes back to the budget once it has left
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
  struct cache_budget *budget, own;
  uint64_t table_bytes; // of the budget, besides the regions
  bool huge_pages;
  uint8_t *map, *memory; // memory: where the regions begin
  int fd; // of the memory file, or -1
  size_t map_len, memory_len, region_len, align; // blocks begin at multiples of `align`
  uint32_t region_nodes;
  struct region *regions;
  struct cache_node *nodes;
  int num_regions, num_granted, num_free, num_leaving;
  int open[NUM_PARTS];
  struct queue full[NUM_PARTS];
  _Atomic bool starved; // somebody found no room
  uint32_t bucket_mask, ghost_mask;
  struct cache_node *_Atomic *buckets;
  uint32_t *ghosts; // fingerprints of what left probation unused
  void (*give_up)(void *ctx, unsigned region);
  void *give_up_ctx;
  struct cache_counts counts; // under the lock
};

uint64_t cache_hash(uint64_t source_id, uint32_t segment);

// Under the lock: the table.
struct cache_node *cache_find(struct cache *c, uint64_t hash, uint64_t source_id, uint32_t segment, uint32_t len);
void cache_link(struct cache *c, uint64_t hash, struct cache_node *n);
void cache_unlink(struct cache *c, struct cache_node *n);

// Under the lock: a place of `len` bytes in `part`, in its open region or a free one. `spare`: whether the spare regions may
// be taken. NULL: no room.
struct cache_node *cache_place(struct cache *c, enum part part, uint32_t len, bool spare);

// Under the lock: one more region out of the budget.
bool cache_grant(struct cache *c);

// Under the lock: a region behind the others of its queue.
void cache_enqueue(struct cache *c, struct queue *q, int region);

// What a region costs: its memory and its nodes.
static inline uint64_t cache_region_cost(const struct cache *c) { return c->region_len + c->region_nodes * sizeof *c->nodes; }

bool budget_take(struct cache_budget *b, uint64_t n);
void budget_give(struct cache_budget *b, uint64_t n);
