#include "keys/wiping.h"

#include <jansson.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Blocks know their length, so that freeing can overwrite them.
struct block {
  _Alignas(max_align_t) size_t n;
};

void *wiping_malloc(size_t n) {
  struct block *b = n < SIZE_MAX - sizeof *b ? malloc(sizeof *b + n) : NULL;
  if (!b)
    return NULL;
  b->n = n;
  return b + 1;
}

void wiping_free(void *p) {
  if (!p)
    return;
  struct block *b = (struct block *)p - 1;
  explicit_bzero(p, b->n);
  free(b);
}

void *wiping_realloc(void *p, size_t n) {
  void *q = wiping_malloc(n);
  if (q && p) {
    size_t old = ((struct block *)p - 1)->n;
    memcpy(q, p, old < n ? old : n);
    wiping_free(p);
  }
  return q;
}

static void set_json(void) { json_set_alloc_funcs(wiping_malloc, wiping_free); }

void wiping_json(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, set_json);
}
