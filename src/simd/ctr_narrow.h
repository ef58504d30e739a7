// CTR for kernels with registers of one or two blocks (WIDTH). The including file defines vec, WIDTH and the v_ functions
// used here, as for cbc_narrow.h, which comes first, and v_load, v_store (any address); of single blocks the type `block`,
// load, store, b_xor, b_add (bytes), b_counter (two halves, big-endian) and b_first, all of round 1.
//
// The counters of 256 blocks differ in their last byte, and what the first round makes of that byte is an exclusive or that
// does not depend on the others: a table of the key and one round for all of the 256 replace whitening, counting, swapping
// and the first of ten rounds. What the table is indexed by is public.
//
// A sample is cut into groups of eight registers, which keep two AES units with a latency of four cycles busy; the rest
// is a group of as many as it needs. Its last register is whole, too: where the sample ends inside of it, the
// source's own bytes are written behind the end. They are the next sample's, which comes after and covers them (in place
// they are what is there already). Only where a segment ends is the rest taken through a buffer. So no branch depends on
// the last bytes but those for the number of registers (compares, meson.build: a jump through a table is predicted worse). They are
// decided long before the data, and out-of-order execution overlaps groups across samples.
#pragma once

enum {
  CTR_GROUP = 8,
  CTR_BYTES = 16 * WIDTH, // of a register
  CTR_PART = 16 * 256, // bytes within which only the counter's last byte changes
  CTR_AHEAD = 4096, // between what is read and the source line asked for: the next page, where the processor stops
};

struct ctr_first {
  _Alignas(64) uint8_t x[256 + WIDTH][16];
  unsigned num; // blocks made
};

__attribute__((noinline)) static void ctr_extend(struct ctr_first *f, const struct aes_key *k, unsigned num) {
  const block zero = b_first(b_counter(0, 0), k), one = b_counter(0, 1);
  for (block byte = b_counter(0, f->num); f->num < num; byte = b_add(byte, one), f->num++)
    store(f->x[f->num], b_xor(b_first(byte, k), zero));
}

// n registers (a constant); of the last one's stream only what is in `last`, where that is not NULL. All loads come before
// the first store: in place, stores would hold up the loads behind them.
INLINE void ctr_group(const struct aes_key *k, vec base, const uint8_t (*first)[16], uint8_t *dst, const uint8_t *src,
                      const int n, const vec *last) {
  vec x[CTR_GROUP];
  UNROLL for (int i = 0; i < n; i += 4 / WIDTH)
    __builtin_prefetch((const void *)((uintptr_t)src + CTR_BYTES * (unsigned)i + CTR_AHEAD));
  UNROLL for (int i = 0; i < n; i++)
    x[i] = v_xor(base, v_load(first[WIDTH * i]));
  UNROLL for (int r = 2; r < 10; r++) {
    vec key = v_round_key(k->enc, r);
    UNROLL for (int i = 0; i < n; i++)
      x[i] = v_round(x[i], key);
  }
  vec key = v_round_key(k->enc, 10), end = v_key(k->enc[10]);
  UNROLL for (int i = 0; i < n; i++) {
    vec data = v_load(src + CTR_BYTES * i);
    if (last && i + 1 == n)
      x[i] = v_xor(v_and(v_last(x[i], key, end), *last), data);
    else
      x[i] = v_last(x[i], key, v_xor(data, end));
  }
  UNROLL for (int i = 0; i < n; i++)
    v_store(dst + CTR_BYTES * i, x[i]);
}

// 1 to CTR_GROUP registers, `num`.
INLINE void ctr_rest(const struct aes_key *k, vec base, const uint8_t (*first)[16], uint8_t *dst, const uint8_t *src,
                     unsigned num, vec last) {
  switch (num) {
  case 1: ctr_group(k, base, first, dst, src, 1, &last); break;
  case 2: ctr_group(k, base, first, dst, src, 2, &last); break;
  case 3: ctr_group(k, base, first, dst, src, 3, &last); break;
  case 4: ctr_group(k, base, first, dst, src, 4, &last); break;
  case 5: ctr_group(k, base, first, dst, src, 5, &last); break;
  case 6: ctr_group(k, base, first, dst, src, 6, &last); break;
  case 7: ctr_group(k, base, first, dst, src, 7, &last); break;
  default: ctr_group(k, base, first, dst, src, CTR_GROUP, &last); break;
  }
}

// The rest of a segment, `len` bytes: whole registers would go beyond its end.
__attribute__((noinline)) static void ctr_end(const struct aes_key *k, vec base, const uint8_t (*first)[16], uint8_t *dst,
                                              const uint8_t *src, size_t len, vec last) {
  uint8_t part[CTR_GROUP * CTR_BYTES] = {0};
  memcpy(part, src, len);
  ctr_rest(k, base, first, part, part, (unsigned)(len + CTR_BYTES - 1) / CTR_BYTES, last);
  memcpy(dst, part, len);
}

// A part of a sample, at least a byte, within which only the counter's last byte changes, from the one that `first` stands
// for. `room`: bytes from src to the segment's end.
INLINE void ctr_part(const struct aes_key *k, vec base, const uint8_t (*first)[16], uint8_t *dst, const uint8_t *src,
                     size_t len, size_t room) {
  static const uint8_t ends[64] = {
      255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
      255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
  };
  for (; len > CTR_GROUP * CTR_BYTES; len -= CTR_GROUP * CTR_BYTES, room -= CTR_GROUP * CTR_BYTES) {
    ctr_group(k, base, first, dst, src, CTR_GROUP, NULL);
    first += CTR_GROUP * WIDTH;
    src += CTR_GROUP * CTR_BYTES;
    dst += CTR_GROUP * CTR_BYTES;
  }
  unsigned num = (unsigned)(len + CTR_BYTES - 1) / CTR_BYTES;
  vec last = v_load(ends + 32 - (len - CTR_BYTES * (num - 1)));
  if (__builtin_expect(CTR_BYTES * num > room, 0))
    ctr_end(k, base, first, dst, src, len, last);
  else
    ctr_rest(k, base, first, dst, src, num, last);
}

// Any sample: a part for each 256 counters.
__attribute__((noinline)) static void ctr_sample(const struct aes_key *k, struct ctr_first *f, uint64_t high, uint64_t low, uint8_t *dst,
                                                 const uint8_t *src, size_t len, size_t room) {
  while (len) {
    unsigned byte = low & 255, left = 256 - byte;
    size_t part = len < 16 * left ? len : 16 * left;
    unsigned need = byte + (unsigned)((part + 15) / 16) + WIDTH - 1; // whole registers are read
    if (need > f->num)
      ctr_extend(f, k, need);
    ctr_part(k, v_all(b_first(b_counter(high, low - byte), k)), f->x + byte, dst, src, part, room);
    low += left;
    high += low == 0;
    src += part;
    dst += part;
    len -= part;
    room -= part;
  }
}

static void ctr(const struct aes_key *k, const struct aes_ctr_seg *segs, size_t num, struct aes_ahead *ahead) {
  struct ctr_first f;
  f.num = 0;
  for (size_t s = 0; s < num; s++) {
    const struct aes_ctr_seg *seg = &segs[s];
    const uint8_t *src = seg->src;
    uint8_t *dst = seg->dst;
    size_t room = 0;
    uint32_t longest = 0;
    for (size_t i = 0; i < seg->num; i++) {
      uint32_t len = aes_ctr_size(seg, i);
      room += len;
      longest = len > longest ? len : longest;
    }
    // Nearly all samples begin at counter 0 and end within the table: it is made for them at once.
    const size_t most = seg->ivs ? 0 : CTR_PART;
    unsigned need = (unsigned)((longest < most ? longest : most) + 15) / 16 + WIDTH - 1;
    if (need > f.num)
      ctr_extend(&f, k, need);
    for (size_t i = 0; i < seg->num; i++) {
      size_t len = aes_ctr_size(seg, i);
      if (__builtin_expect(len - 1 < most, 1))
        ctr_part(k, v_all(b_first(b_counter(seg->iv + i, 0), k)), f.x, dst, src, len, room);
      else if (seg->ivs)
        ctr_sample(k, &f, load_be64(seg->ivs[i]), load_be64(seg->ivs[i] + 8), dst, src, len, room);
      else
        ctr_sample(k, &f, seg->iv + i, 0, dst, src, len, room);
      src += len;
      dst += len;
      room -= len;
    }
  }
  // What comes next, up to where ctr_group's own asking takes over.
  for (size_t i = 0; ahead && i < ahead->n && i < CTR_AHEAD; i += 64)
    __builtin_prefetch(ahead->p + i, 0, 2);
  explicit_bzero(f.x, f.num * sizeof *f.x);
}
