#include "mp4/window.h"

enum { WINDOW_MIN = 4096 }; // a moof of two seconds with the heads around it, in most files

static enum err grow(struct window *w, size_t n) {
  size_t cap = w->cap ? w->cap : WINDOW_MIN;
  while (cap < n)
    cap *= 2;
  if (cap == w->cap)
    return ERR_OK;
  uint8_t *buf = w->mem->get(w->mem, cap);
  if (!buf)
    return ERR_NO_MEMORY;
  w->buf = buf;
  w->cap = cap;
  return ERR_OK;
}

enum err window_get(struct window *w, const uint8_t **out, uint64_t off, size_t n) {
  if (off > w->src->size || n > w->src->size - off)
    return ERR_TRUNCATED;
  if (off < w->off || off - w->off > w->len || n > w->len - (size_t)(off - w->off)) {
    enum err e = grow(w, n);
    if (e)
      return e;
    size_t want = n > WINDOW_MIN ? n : WINDOW_MIN;
    if (want > w->src->size - off)
      want = (size_t)(w->src->size - off);
    w->len = 0;
    e = w->src->read(w->src->ctx, off, w->buf, want);
    if (e)
      return e;
    w->off = off;
    w->len = want;
  }
  *out = w->buf + (size_t)(off - w->off);
  return ERR_OK;
}
