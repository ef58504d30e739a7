// What all kernels share about a burst: the order of its chains, trailing bytes, counters. Private to simd/.
#pragma once
#include "simd/aes.h"

// One chain: whole blocks from src to dst.
struct aes_job {
  const uint8_t *src;
  uint8_t *dst;
  uint64_t blocks;
};

// For loops of a constant few rounds whose arrays are meant to be registers.
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { AES_WINDOW = 16 }; // segments among which the next is chosen

// Walks the lanes of one segment after the other; of the next sixteen, the one with the longest first lane.
struct aes_jobs {
  const struct aes_cbc_seg *seg; // the lanes from `at` are still to come; NULL at first
  size_t at;
  const struct aes_cbc_seg *open[AES_WINDOW];
  size_t num_open;
  const struct aes_cbc_seg *segs; // not yet opened
  size_t num_segs;
};

void aes_jobs_init(struct aes_jobs *it, const struct aes_cbc_seg *segs, size_t num);

// aes_jobs_seg makes `seg` one with lanes to come, false when there is none.
bool aes_jobs_seg(struct aes_jobs *it);

// aes_jobs_next gives the next chain of at least one block, false when there is none. Copies the trailing bytes of
// the lanes it passes.
bool aes_jobs_next(struct aes_jobs *it, struct aes_job *out);

// aes_stagger returns 0, or a distance in bytes by which groups of four lanes should start apart, for `num` samples in order
// of length, of which the first has `longest` bytes of whole blocks and the last `shortest`. It is for samples that are equally
// long, a multiple of a good part of the L1 cache's period, and more than the lanes: lanes that start together would share
// the cache's sets for ever. A cache line is enough where the samples themselves start in several sets. Where they all start
// in the same one, lanes must not meet what others have asked for ahead either, two lines and what the processor adds.
static inline unsigned aes_stagger(uint32_t longest, uint32_t shortest, size_t num, size_t lanes) {
  if (num <= lanes || longest != shortest || longest % 512)
    return 0;
  return longest % 4096 ? 64 : 192;
}

// aes_lane_tail copies the bytes after the last whole block of a lane. To be called before the lane's blocks are
// written: where there is a whole block it copies 16 bytes at once and relies on the cipher to overwrite the rest.
static inline void aes_lane_tail(uint8_t *dst, const uint8_t *src, size_t len) {
  if (len >= 16)
    memcpy(dst + len - 16, src + len - 16, 16);
  else
    for (size_t i = 0; i < len; i++)
      dst[i] = src[i];
}

// Counter blocks, big-endian: over the low 64 bits and over all 128.
static inline void aes_counter_add64(uint8_t c[16], uint64_t n) {
  store_be64(c + 8, load_be64(c + 8) + n);
}

static inline void aes_counter_add128(uint8_t c[16], uint64_t n) {
  uint64_t low = load_be64(c + 8) + n;
  store_be64(c, load_be64(c) + (low < n));
  store_be64(c + 8, low);
}

static inline uint32_t aes_ctr_size(const struct aes_ctr_seg *s, size_t i) {
  return s->sizes16 ? s->sizes16[i] : s->sizes32[i];
}

static inline void aes_ctr_first(uint8_t c[16], const struct aes_ctr_seg *s, size_t i) {
  if (s->ivs) {
    memcpy(c, s->ivs[i], 16);
  } else {
    store_be64(c, s->iv + i);
    store_be64(c + 8, 0);
  }
}

// aes_xor_parts xors key stream block i into part i (`blocks` is its length in bytes, up to 16).
void aes_xor_parts(const struct aes_job *parts, const uint8_t *stream, size_t num);
