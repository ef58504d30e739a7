// Sorting in place: O(n log n) whatever is given, without memory, without recursion. Not stable.
#pragma once
#include <stdbool.h>
#include <stddef.h>

// What is sorted, by the numbers of its items.
struct heap_sort {
  void *ctx;
  bool (*before)(const void *ctx, size_t a, size_t b);
  void (*swap)(void *ctx, size_t a, size_t b);
};

// Lets item `i` sink to where none below it in the heap of `num` belongs behind it.
static inline void heap_sink(const struct heap_sort *h, size_t i, size_t num) {
  for (size_t child; (child = 2 * i + 1) < num; i = child) {
    if (child + 1 < num && h->before(h->ctx, child, child + 1))
      child++;
    if (!h->before(h->ctx, i, child))
      return;
    h->swap(h->ctx, i, child);
  }
}

static inline void heap_sort(const struct heap_sort *h, size_t num) {
  for (size_t i = num / 2; i-- > 0;)
    heap_sink(h, i, num);
  for (size_t n = num; n > 1; n--) {
    h->swap(h->ctx, 0, n - 1);
    heap_sink(h, 0, n - 1);
  }
}
