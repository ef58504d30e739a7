#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD = 64 }; // room for the link, keeps the block aligned

static void *heap_get(struct alloc *self, size_t n) {
  struct alloc_heap *h = (struct alloc_heap *)self;
  if (n > h->limit || h->used > h->limit - n)
    return NULL;
  void *p;
  if (n > SIZE_MAX - HEAD - 63)
    return NULL;
  size_t size = (HEAD + n + 63) & ~(size_t)63;
  if (posix_memalign(&p, 64, size))
    return NULL;
  memset(p, 0, size);
  memcpy(p, &h->blocks, sizeof h->blocks);
  h->blocks = p;
  h->used += n;
  return (char *)p + HEAD;
}

void alloc_heap_init(struct alloc_heap *h, size_t limit) {
  *h = (struct alloc_heap){.base.get = heap_get, .limit = limit};
}

void alloc_heap_rewind(struct alloc_heap *h, const struct alloc_heap *then) {
  while (h->blocks != then->blocks) {
    void *next;
    memcpy(&next, h->blocks, sizeof next);
    free(h->blocks);
    h->blocks = next;
  }
  h->used = then->used;
}

void alloc_heap_free(struct alloc_heap *h) { alloc_heap_rewind(h, &(struct alloc_heap){0}); }
