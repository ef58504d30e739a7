// A sliding view of a source: small reads of heads and whole moofs from few calls of `read`.
#pragma once
#include "base/alloc.h"
#include "mp4/index.h"

struct window {
  const struct mp4_source *src;
  struct alloc *mem;
  uint8_t *buf;
  size_t cap, len;
  uint64_t off; // source address of buf[0]
};

// window_get points *out at n source bytes; they stay until the next call. Errors: ERR_TRUNCATED (behind the end of
// the source), ERR_NO_MEMORY, and those of the source's read.
MUST_USE enum err window_get(struct window *w, const uint8_t **out, uint64_t off, size_t n);
