// Memory comes from the caller: the core asks this for every byte it keeps.
#pragma once
#include <stddef.h>
#include <stdint.h>

// get returns `n` bytes aligned to 64 and zeroed, or NULL when the caller's limit is reached. The caller frees all of it at
// once in its own way (an arena reset, free of a list): the core never gives a piece back.
struct alloc {
  void *(*get)(struct alloc *self, size_t n);
};

// An allocator over malloc for programs that may use it (command line, tests, fuzzers), bounded by `limit` bytes.
struct alloc_heap {
  struct alloc base;
  void *blocks; // list of what was given
  size_t used, limit;
};

void alloc_heap_init(struct alloc_heap *h, size_t limit);
void alloc_heap_free(struct alloc_heap *h); // frees everything given; safe on a zeroed struct and twice

// alloc_heap_rewind frees what was given since `then`, a copy of the heap, was taken.
void alloc_heap_rewind(struct alloc_heap *h, const struct alloc_heap *then);
