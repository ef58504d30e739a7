// Bodies that are kept, and playlists that sessions share once parsed.
#include "load/session.h"

#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

struct body *body_take(struct engine *e) {
  struct body *b = e->pool;
  if (!b)
    return calloc(1, sizeof *b);
  e->pool = b->next;
  b->n = 0;
  return b;
}

void body_give(struct engine *e, struct body *b) {
  b->next = e->pool;
  e->pool = b;
}

bool body_add(struct body *b, struct bytes piece) {
  if (piece.n > b->cap - b->n) {
    size_t cap = b->cap ? b->cap : 16384;
    while (cap - b->n < piece.n)
      cap *= 2;
    uint8_t *p = cap <= (size_t)64 << 20 ? realloc(b->p, cap) : NULL;
    if (!p)
      return false;
    b->p = p;
    b->cap = cap;
  }
  memcpy(b->p + b->n, piece.p, piece.n);
  b->n += piece.n;
  return true;
}

// Finds the list parsed from exactly this text at this path, or a free entry for it.
static struct list_entry *entry_of(struct engine *e, const char *path, uint32_t choose, struct bytes text) {
  XXH128_hash_t h = XXH3_128bits_withSeed(text.p, text.n, XXH3_64bits_withSeed(path, strcspn(path, "?"), choose));
  for (uint32_t i = 0; i < ENGINE_LISTS; i++) {
    struct list_entry *at = &e->lists[(h.low64 + i) % ENGINE_LISTS];
    if (at->used && at->hash[0] == h.low64 && at->hash[1] == h.high64)
      return at;
    if (!at->used) {
      at->hash[0] = h.low64;
      at->hash[1] = h.high64;
      return e->num_lists < ENGINE_LISTS / 2 ? at : NULL;
    }
  }
  return NULL;
}

enum err engine_parse(struct engine *e, struct session *s, struct listener_got *got, struct diag *diag) {
  struct bytes text = bytes_of(s->body->p, s->body->n);
  enum err err;
  if (s->l.step == STEP_MASTER && !s->l.dash) {
    err = hls_read_multivariant(&e->renditions, text, s->next.path, diag);
    got->renditions = &e->renditions;
    return err;
  }
  uint32_t choose = 0;
  struct alloc_heap scratch;
  if (s->l.step == STEP_MASTER) {
    alloc_heap_init(&scratch, (size_t)64 << 20);
    err = mpd_read(&e->renditions, NULL, 0, &scratch.base, text, s->next.path, diag);
    alloc_heap_free(&scratch);
    if (err)
      return err;
    choose = listener_pick(&s->l, e->renditions.num) % e->renditions.num;
  }
  struct list_entry *at = entry_of(e, s->next.path, choose, text);
  if (!at)
    return diag_set(diag, ERR_LIMIT, 0, "more than %d different playlists", ENGINE_LISTS / 2);
  if (!at->used) {
    err = s->l.dash ? mpd_read(&e->renditions, &at->list, choose, &e->mem.base, text, s->next.path, diag)
                    : hls_read_media(&at->list, &e->mem.base, text, s->next.path, diag);
    if (err)
      return err;
    at->used = true;
    e->num_lists++;
  }
  got->list = &at->list;
  return ERR_OK;
}
