// A cursor over bounded bytes with a sticky error: read, read, then check `err` before a value is used
// as a count, size or offset. Reads past the end give 0 and set ERR_TRUNCATED.
#pragma once
#include "base/err.h"

struct reader {
  const uint8_t *p, *end;
  const uint8_t *start; // what rd_pos counts from
  enum err err;
};

// rd_of reads `b` from its start; of no bytes `p` may be NULL, to which nothing may be added.
static inline struct reader rd_of(struct bytes b) { return (struct reader){b.p, b.n ? b.p + b.n : b.p, b.p, ERR_OK}; }

static inline size_t rd_left(const struct reader *r) { return (size_t)(r->end - r->p); }

static inline size_t rd_pos(const struct reader *r) { return (size_t)(r->p - r->start); }

// rd_take returns the next n bytes and steps over them; NULL (and the sticky error) when fewer are left.
static inline const uint8_t *rd_take(struct reader *r, size_t n) {
  if (r->err || n > rd_left(r)) {
    if (!r->err)
      r->err = ERR_TRUNCATED;
    r->p = r->end;
    return NULL;
  }
  const uint8_t *p = r->p;
  r->p += n;
  return p;
}

static inline void rd_skip(struct reader *r, size_t n) { (void)rd_take(r, n); }

static inline uint8_t rd_u8(struct reader *r) {
  const uint8_t *p = rd_take(r, 1);
  return p ? p[0] : 0;
}

static inline uint16_t rd_u16(struct reader *r) {
  const uint8_t *p = rd_take(r, 2);
  return p ? load_be16(p) : 0;
}

static inline uint32_t rd_u32(struct reader *r) {
  const uint8_t *p = rd_take(r, 4);
  return p ? load_be32(p) : 0;
}

static inline uint64_t rd_u64(struct reader *r) {
  const uint8_t *p = rd_take(r, 8);
  return p ? load_be64(p) : 0;
}

static inline struct bytes rd_bytes(struct reader *r, size_t n) {
  const uint8_t *p = rd_take(r, n);
  return p ? (struct bytes){p, n} : (struct bytes){0};
}

// rd_sub gives a child reader over the next n bytes and steps over them. Positions in the child count
// from the same `start` as in the parent.
static inline struct reader rd_sub(struct reader *r, size_t n) {
  const uint8_t *p = rd_take(r, n);
  if (!p)
    return (struct reader){r->end, r->end, r->start, r->err};
  return (struct reader){p, p + n, r->start, ERR_OK};
}
