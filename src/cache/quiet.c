#include "cache/quiet.h"

#include <string.h>

void quiet_init(struct quiet *q, unsigned num_workers) {
  memset((void *)q, 0, sizeof *q);
  atomic_store(&q->era, 1);
  q->num = num_workers;
  for (unsigned i = 0; i < num_workers; i++)
    atomic_store(&q->slots[i].seen, QUIET_AWAY);
}

void quiet_retire(struct quiet *q, struct quiet_item *item, void (*free_it)(struct quiet_item *)) {
  item->free = free_it;
  struct quiet_item *head = atomic_load_explicit(&q->incoming, memory_order_relaxed);
  do
    item->next = head;
  while (!atomic_compare_exchange_weak_explicit(&q->incoming, &head, item, memory_order_acq_rel, memory_order_relaxed));
}

// Everything retired so far is stamped with the era that ends now: a worker that has seen a later one announced after
// the thing had left its table.
bool quiet_reclaim(struct quiet *q) {
  struct quiet_item *in = atomic_exchange_explicit(&q->incoming, NULL, memory_order_acq_rel);
  if (in) {
    uint64_t era = atomic_fetch_add_explicit(&q->era, 1, memory_order_seq_cst);
    while (in) {
      struct quiet_item *next = in->next;
      in->era = era;
      in->next = q->waiting;
      q->waiting = in;
      in = next;
    }
  }
  atomic_thread_fence(memory_order_seq_cst);
  uint64_t oldest = QUIET_AWAY;
  for (unsigned i = 0; i < q->num; i++) {
    uint64_t seen = atomic_load_explicit(&q->slots[i].seen, memory_order_seq_cst);
    oldest = seen < oldest ? seen : oldest;
  }
  for (struct quiet_item **at = &q->waiting; *at;) {
    struct quiet_item *item = *at;
    if (item->era < oldest) {
      *at = item->next;
      item->free(item);
    } else {
      at = &item->next;
    }
  }
  return q->waiting || atomic_load_explicit(&q->incoming, memory_order_relaxed);
}
