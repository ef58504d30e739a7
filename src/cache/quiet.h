// Quiet points: how immutable things that workers read without locks are reclaimed. A worker announces, once per turn of
// its loop, that it holds no pointer it got before; a thing taken out of its table is freed when every worker has announced
// after that. It says that it is away before it may block, and that it is back after.
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { QUIET_MAX_WORKERS = 256 };

struct quiet_slot {
  _Atomic uint64_t seen; // the era it has seen, or QUIET_AWAY
} __attribute__((aligned(128)));

#define QUIET_AWAY UINT64_MAX

// A retired thing: embedded in its owner.
struct quiet_item {
  struct quiet_item *next;
  void (*free)(struct quiet_item *item); // runs on the thread that calls quiet_reclaim
  uint64_t era;
};

struct quiet {
  _Atomic uint64_t era; // starts at 1
  unsigned num;
  struct quiet_item *_Atomic incoming; // retired, era not yet stamped
  struct quiet_item *waiting;          // stamped; touched by the reclaiming thread only
  struct quiet_slot slots[QUIET_MAX_WORKERS];
};

void quiet_init(struct quiet *q, unsigned num_workers); // all workers away

// By worker `w`, on its thread: the two together are a quiet point.
static inline void quiet_leave(struct quiet *q, unsigned w) { // before blocking
  atomic_store_explicit(&q->slots[w].seen, QUIET_AWAY, memory_order_release);
}
static inline void quiet_enter(struct quiet *q, unsigned w) { // after
  atomic_store_explicit(&q->slots[w].seen, atomic_load_explicit(&q->era, memory_order_acquire), memory_order_seq_cst);
  atomic_thread_fence(memory_order_seq_cst);
}

// quiet_retire hands over a thing that is no longer reachable from any table. Any thread.
void quiet_retire(struct quiet *q, struct quiet_item *item, void (*free_it)(struct quiet_item *));

// quiet_reclaim frees what nobody can hold any more and returns whether something is still waiting. One thread at a time.
bool quiet_reclaim(struct quiet *q);
