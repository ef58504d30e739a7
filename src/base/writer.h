// A cursor that writes into the caller's buffer. With `p` NULL, or past `cap`, it only counts: write twice,
// first to measure. `n` is always the length that was asked for; wr_ok says whether all of it fitted.
#pragma once
#include "base/bytes.h"

struct writer {
  uint8_t *p;
  size_t cap;
  size_t n;
};

static inline struct writer wr_of(void *p, size_t cap) { return (struct writer){(uint8_t *)p, p ? cap : 0, 0}; }

static inline bool wr_ok(const struct writer *w) { return w->n <= w->cap; }

static inline void wr_raw(struct writer *w, const void *p, size_t n) {
  if (w->n <= w->cap && n <= w->cap - w->n && n)
    memcpy(w->p + w->n, p, n);
  w->n += n;
}

static inline void wr_bytes(struct writer *w, struct bytes b) { wr_raw(w, b.p, b.n); }
static inline void wr_str(struct writer *w, const char *s) { wr_raw(w, s, strlen(s)); }
static inline void wr_u8(struct writer *w, uint8_t v) { wr_raw(w, &v, 1); }

static inline void wr_u16(struct writer *w, uint16_t v) {
  uint8_t b[2];
  store_be16(b, v);
  wr_raw(w, b, 2);
}

static inline void wr_u32(struct writer *w, uint32_t v) {
  uint8_t b[4];
  store_be32(b, v);
  wr_raw(w, b, 4);
}

static inline void wr_u64(struct writer *w, uint64_t v) {
  uint8_t b[8];
  store_be64(b, v);
  wr_raw(w, b, 8);
}

// wr_fmt appends formatted text (at most 1023 bytes a call; longer text is cut there).
void wr_fmt(struct writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// wr_dec appends a decimal number without going through printf.
void wr_dec(struct writer *w, uint64_t v);
