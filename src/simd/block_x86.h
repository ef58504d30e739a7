// One block in an SSE register: what the kernels for x86-64 share, and of it what ctr_narrow.h asks for.
#pragma once
#include <immintrin.h>

#include "simd/aes.h"

typedef __m128i block;
#define b_xor _mm_xor_si128
#define b_add _mm_add_epi8
enum { KEY_FIRST = 0 }; // AESENC adds its key at the end of a round

static inline block load(const void *p) {
  return _mm_loadu_si128((const __m128i *)p);
}

static inline void store(void *p, block v) {
  _mm_storeu_si128((__m128i *)p, v);
}

static inline block b_counter(uint64_t high, uint64_t low) {
  return _mm_set_epi64x((long long)__builtin_bswap64(low), (long long)__builtin_bswap64(high));
}

static inline block b_first(block x, const struct aes_key *k) {
  return _mm_aesenc_si128(_mm_xor_si128(x, load(k->enc[0])), load(k->enc[1]));
}
