// VAES and AVX-512 for processors that have neither: what vaes256.c and vaes512.c use of them, made of AVX2, AES-NI and loops, so that
// checkasm can run these kernels, and valgrind follow them, wherever tests run. Meant to be included by the compiler (-include) in
// front of a kernel that is compiled without these instruction sets; stands in their place by name. What each does is Intel's
// "Operation" in the Intrinsics Guide. It proves the kernels' own logic; that the real instructions do what is written here is
// shown where checkasm runs without it.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#if defined(__VAES__) || defined(__AVX512F__)
#error "the kernel is compiled for the real instructions"
#endif

// Those that compilers' own headers have as macros, some of them when nothing is optimized.
#undef _mm512_alignr_epi64
#undef _mm512_cmpeq_epi32_mask
#undef _mm512_cmplt_epu32_mask
#undef _mm512_extracti32x4_epi32
#undef _mm512_extracti64x4_epi64
#undef _mm512_inserti32x4
#undef _mm512_inserti64x4
#undef _mm512_mask_cmplt_epu64_mask
#undef _mm512_mask_permutex_epi64
#undef _mm512_maskz_slli_epi64
#undef _mm512_shuffle_epi32
#undef _mm512_shuffle_i64x2
#undef _mm512_srli_epi64
#undef _mm512_ternarylogic_epi64
#undef _mm_ternarylogic_epi64

#define EMULATED __attribute__((always_inline)) static inline
#define PIN(x) ((void)0) // there is no such register

typedef uint64_t emulated_u64 __attribute__((vector_size(64)));
typedef uint32_t emulated_u32 __attribute__((vector_size(64)));

// Blocks of a vector.
EMULATED __m128i emulated_block(__m512i x, int i) {
  return (__m128i){x[2 * i], x[2 * i + 1]};
}

EMULATED __m512i emulated_join(__m128i a, __m128i b, __m128i c, __m128i d) {
  return (__m512i){a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]};
}

#define EMULATED_AES(name, one)                                                                                          \
  EMULATED __m256i emulated_256_##name(__m256i x, __m256i key) {                                                         \
    __m128i low = one(_mm256_castsi256_si128(x), _mm256_castsi256_si128(key));                                           \
    return _mm256_set_m128i(one(_mm256_extracti128_si256(x, 1), _mm256_extracti128_si256(key, 1)), low);                 \
  }                                                                                                                      \
  EMULATED __m512i emulated_512_##name(__m512i x, __m512i key) {                                                         \
    return emulated_join(one(emulated_block(x, 0), emulated_block(key, 0)), one(emulated_block(x, 1), emulated_block(key, 1)), \
                         one(emulated_block(x, 2), emulated_block(key, 2)), one(emulated_block(x, 3), emulated_block(key, 3)));  \
  }
EMULATED_AES(aesenc, _mm_aesenc_si128)
EMULATED_AES(aesenclast, _mm_aesenclast_si128)
EMULATED_AES(aesdec, _mm_aesdec_si128)
EMULATED_AES(aesdeclast, _mm_aesdeclast_si128)
#define _mm256_aesenc_epi128 emulated_256_aesenc
#define _mm256_aesenclast_epi128 emulated_256_aesenclast
#define _mm256_aesdec_epi128 emulated_256_aesdec
#define _mm256_aesdeclast_epi128 emulated_256_aesdeclast
#define _mm512_aesenc_epi128 emulated_512_aesenc
#define _mm512_aesenclast_epi128 emulated_512_aesenclast
#define _mm512_aesdec_epi128 emulated_512_aesdec
#define _mm512_aesdeclast_epi128 emulated_512_aesdeclast

// Whole registers.
EMULATED __m512i emulated_loadu(const void *p) {
  __m512i x;
  memcpy(&x, p, sizeof x);
  return x;
}

EMULATED void emulated_storeu(void *p, __m512i x) {
  memcpy(p, &x, sizeof x);
}

// Aligned ones; the processor would fault.
EMULATED __m512i emulated_load(const void *p) {
  if ((uintptr_t)p % 64)
    __builtin_trap();
  return emulated_loadu(p);
}

EMULATED void emulated_store(void *p, __m512i x) {
  if ((uintptr_t)p % 64)
    __builtin_trap();
  emulated_storeu(p, x);
}

#define _mm512_loadu_si512 emulated_loadu
#define _mm512_storeu_si512 emulated_storeu
#define _mm512_load_si512 emulated_load
#define _mm512_store_si512 emulated_store

// Bytes under a mask; what it leaves out is not touched.
EMULATED void emulated_load_bytes(void *x, uint64_t mask, const void *p, int size) {
  for (int i = 0; i < size; i++)
    if (mask >> i & 1)
      ((uint8_t *)x)[i] = ((const uint8_t *)p)[i];
}

EMULATED __m512i emulated_512_maskz_loadu_epi8(uint64_t mask, const void *p) {
  __m512i x = {0};
  emulated_load_bytes(&x, mask, p, 64);
  return x;
}

EMULATED __m256i emulated_256_maskz_loadu_epi8(uint32_t mask, const void *p) {
  __m256i x = {0};
  emulated_load_bytes(&x, mask, p, 32);
  return x;
}

EMULATED __m128i emulated_128_maskz_loadu_epi8(uint16_t mask, const void *p) {
  __m128i x = {0};
  emulated_load_bytes(&x, mask, p, 16);
  return x;
}

EMULATED void emulated_512_mask_storeu_epi8(void *p, uint64_t mask, __m512i x) {
  emulated_load_bytes(p, mask, &x, 64);
}

EMULATED void emulated_256_mask_storeu_epi8(void *p, uint32_t mask, __m256i x) {
  emulated_load_bytes(p, mask, &x, 32);
}

EMULATED void emulated_128_mask_storeu_epi8(void *p, uint16_t mask, __m128i x) {
  emulated_load_bytes(p, mask, &x, 16);
}

#define _mm512_maskz_loadu_epi8 emulated_512_maskz_loadu_epi8
#define _mm256_maskz_loadu_epi8 emulated_256_maskz_loadu_epi8
#define _mm_maskz_loadu_epi8 emulated_128_maskz_loadu_epi8
#define _mm512_mask_storeu_epi8 emulated_512_mask_storeu_epi8
#define _mm256_mask_storeu_epi8 emulated_256_mask_storeu_epi8
#define _mm_mask_storeu_epi8 emulated_128_mask_storeu_epi8

// 64-bit elements under a mask.
EMULATED __m512i emulated_maskz_loadu_epi64(uint8_t mask, const void *p) {
  __m512i x = {0};
  for (int i = 0; i < 8; i++)
    if (mask >> i & 1)
      memcpy((char *)&x + 8 * i, (const char *)p + 8 * i, 8);
  return x;
}

EMULATED void emulated_mask_storeu_epi64(void *p, uint8_t mask, __m512i x) {
  for (int i = 0; i < 8; i++)
    if (mask >> i & 1)
      memcpy((char *)p + 8 * i, (const char *)&x + 8 * i, 8);
}

EMULATED __m512i emulated_mask_mov_epi64(__m512i otherwise, uint8_t mask, __m512i x) {
  for (int i = 0; i < 8; i++)
    otherwise[i] = mask >> i & 1 ? x[i] : otherwise[i];
  return otherwise;
}

EMULATED __m512i emulated_mask_sub_epi64(__m512i otherwise, uint8_t mask, __m512i a, __m512i b) {
  return emulated_mask_mov_epi64(otherwise, mask, (__m512i)((emulated_u64)a - (emulated_u64)b));
}

EMULATED __m512i emulated_maskz_slli_epi64(uint8_t mask, __m512i x, unsigned n) {
  return emulated_mask_mov_epi64((__m512i){0}, mask, (__m512i)((emulated_u64)x << n));
}

EMULATED __m512i emulated_mask_expandloadu_epi64(__m512i x, uint8_t mask, const void *p) {
  for (int i = 0, n = 0; i < 8; i++)
    if (mask >> i & 1)
      memcpy((char *)&x + 8 * i, (const char *)p + 8 * n++, 8);
  return x;
}

EMULATED __m512i emulated_maskz_expandloadu_epi32(uint16_t mask, const void *p) {
  __m512i x = {0};
  for (int i = 0, n = 0; i < 16; i++)
    if (mask >> i & 1)
      memcpy((char *)&x + 4 * i, (const char *)p + 4 * n++, 4);
  return x;
}

EMULATED __m512i emulated_maskz_compress_epi64(uint8_t mask, __m512i x) {
  __m512i out = {0};
  for (int i = 0, n = 0; i < 8; i++)
    if (mask >> i & 1)
      out[n++] = x[i];
  return out;
}

// Blocks of two elements within a half, chosen four times by two bits of `order`.
EMULATED __m512i emulated_mask_permutex_epi64(__m512i otherwise, uint8_t mask, __m512i x, int order) {
  __m512i out;
  for (int i = 0; i < 8; i++)
    out[i] = x[(i & 4) | (order >> 2 * (i & 3) & 3)];
  return emulated_mask_mov_epi64(otherwise, mask, out);
}

#define _mm512_maskz_loadu_epi64 emulated_maskz_loadu_epi64
#define _mm512_mask_storeu_epi64 emulated_mask_storeu_epi64
#define _mm512_mask_mov_epi64 emulated_mask_mov_epi64
#define _mm512_mask_sub_epi64 emulated_mask_sub_epi64
#define _mm512_maskz_slli_epi64 emulated_maskz_slli_epi64
#define _mm512_mask_expandloadu_epi64 emulated_mask_expandloadu_epi64
#define _mm512_maskz_expandloadu_epi32 emulated_maskz_expandloadu_epi32
#define _mm512_maskz_compress_epi64 emulated_maskz_compress_epi64
#define _mm512_mask_permutex_epi64 emulated_mask_permutex_epi64

// Compares.
EMULATED uint16_t emulated_cmpeq_epi32_mask(__m512i a, __m512i b) {
  unsigned mask = 0;
  for (int i = 0; i < 16; i++)
    mask |= (unsigned)(((emulated_u32)a)[i] == ((emulated_u32)b)[i]) << i;
  return (uint16_t)mask;
}

EMULATED uint16_t emulated_cmplt_epu32_mask(__m512i a, __m512i b) {
  unsigned mask = 0;
  for (int i = 0; i < 16; i++)
    mask |= (unsigned)(((emulated_u32)a)[i] < ((emulated_u32)b)[i]) << i;
  return (uint16_t)mask;
}

EMULATED uint8_t emulated_mask_cmplt_epu64_mask(uint8_t mask, __m512i a, __m512i b) {
  unsigned out = 0;
  for (int i = 0; i < 8; i++)
    out |= (unsigned)((uint64_t)a[i] < (uint64_t)b[i]) << i;
  return (uint8_t)(out & mask);
}

EMULATED uint8_t emulated_mask_test_epi64_mask(uint8_t mask, __m512i a, __m512i b) {
  unsigned out = 0;
  for (int i = 0; i < 8; i++)
    out |= (unsigned)((a[i] & b[i]) != 0) << i;
  return (uint8_t)(out & mask);
}

EMULATED uint8_t emulated_test_epi64_mask(__m512i a, __m512i b) {
  return emulated_mask_test_epi64_mask(0xff, a, b);
}

#define _mm512_cmpeq_epi32_mask emulated_cmpeq_epi32_mask
#define _mm512_cmplt_epu32_mask emulated_cmplt_epu32_mask
#define _mm512_mask_cmplt_epu64_mask emulated_mask_cmplt_epu64_mask
#define _mm512_mask_test_epi64_mask emulated_mask_test_epi64_mask
#define _mm512_test_epi64_mask emulated_test_epi64_mask

// Arithmetic.
EMULATED __m512i emulated_xor(__m512i a, __m512i b) {
  return a ^ b;
}

EMULATED __m512i emulated_and(__m512i a, __m512i b) {
  return a & b;
}

EMULATED __m512i emulated_andnot(__m512i a, __m512i b) {
  return ~a & b;
}

EMULATED __m512i emulated_add_epi64(__m512i a, __m512i b) {
  return (__m512i)((emulated_u64)a + (emulated_u64)b);
}

EMULATED __m512i emulated_sub_epi64(__m512i a, __m512i b) {
  return (__m512i)((emulated_u64)a - (emulated_u64)b);
}

EMULATED __m512i emulated_sub_epi32(__m512i a, __m512i b) {
  return (__m512i)((emulated_u32)a - (emulated_u32)b);
}

EMULATED __m512i emulated_mask_add_epi32(__m512i otherwise, uint16_t mask, __m512i a, __m512i b) {
  emulated_u32 sum = (emulated_u32)a + (emulated_u32)b, out = (emulated_u32)otherwise;
  for (int i = 0; i < 16; i++)
    out[i] = mask >> i & 1 ? sum[i] : out[i];
  return (__m512i)out;
}

EMULATED __m512i emulated_min_epu32(__m512i a, __m512i b) {
  emulated_u32 x = (emulated_u32)a, y = (emulated_u32)b;
  for (int i = 0; i < 16; i++)
    x[i] = x[i] < y[i] ? x[i] : y[i];
  return (__m512i)x;
}

EMULATED int emulated_cvtsi512_si32(__m512i x) {
  return (int)((emulated_u32)x)[0];
}

EMULATED __m512i emulated_shuffle_epi32(__m512i x, int order) {
  emulated_u32 out;
  for (int i = 0; i < 16; i++)
    out[i] = ((emulated_u32)x)[(i & 12) | (order >> 2 * (i & 3) & 3)];
  return (__m512i)out;
}

EMULATED __m512i emulated_shuffle_i64x2(__m512i a, __m512i b, int order) {
  return emulated_join(emulated_block(a, order & 3), emulated_block(a, order >> 2 & 3), emulated_block(b, order >> 4 & 3),
                       emulated_block(b, order >> 6 & 3));
}

EMULATED __m512i emulated_srli_epi64(__m512i x, unsigned n) {
  return (__m512i)((emulated_u64)x >> n);
}

EMULATED __m256i emulated_cvtepi64_epi32(__m512i x) {
  return _mm256_setr_epi32((int)x[0], (int)x[1], (int)x[2], (int)x[3], (int)x[4], (int)x[5], (int)x[6], (int)x[7]);
}

// Only a ^ b ^ c.
EMULATED __m512i emulated_512_ternarylogic(__m512i a, __m512i b, __m512i c, int table) {
  if (table != 0x96)
    __builtin_trap();
  return a ^ b ^ c;
}

EMULATED __m128i emulated_128_ternarylogic(__m128i a, __m128i b, __m128i c, int table) {
  if (table != 0x96)
    __builtin_trap();
  return _mm_xor_si128(_mm_xor_si128(a, b), c);
}

#define _mm512_xor_si512 emulated_xor
#define _mm512_and_si512 emulated_and
#define _mm512_andnot_si512 emulated_andnot
#define _mm512_add_epi64 emulated_add_epi64
#define _mm512_sub_epi64 emulated_sub_epi64
#define _mm512_sub_epi32 emulated_sub_epi32
#define _mm512_mask_add_epi32 emulated_mask_add_epi32
#define _mm512_min_epu32 emulated_min_epu32
#define _mm512_cvtsi512_si32 emulated_cvtsi512_si32
#define _mm512_shuffle_epi32 emulated_shuffle_epi32
#define _mm512_shuffle_i64x2 emulated_shuffle_i64x2
#define _mm512_srli_epi64 emulated_srli_epi64
#define _mm512_cvtepi64_epi32 emulated_cvtepi64_epi32
#define _mm512_ternarylogic_epi64 emulated_512_ternarylogic
#define _mm_ternarylogic_epi64 emulated_128_ternarylogic

// Constants and parts.
EMULATED __m512i emulated_set1_epi64(long long x) {
  return (__m512i){x, x, x, x, x, x, x, x};
}

EMULATED __m512i emulated_set1_epi32(int x) {
  return emulated_set1_epi64((long long)((uint64_t)(uint32_t)x << 32 | (uint32_t)x));
}

EMULATED __m512i emulated_set_epi64(long long h, long long g, long long f, long long e, long long d, long long c, long long b,
                                    long long a) {
  return (__m512i){a, b, c, d, e, f, g, h};
}

EMULATED __m512i emulated_setzero(void) {
  return (__m512i){0};
}

EMULATED __m512i emulated_broadcast_i32x4(__m128i x) {
  return emulated_join(x, x, x, x);
}

EMULATED __m128i emulated_cast_128(__m512i x) {
  return emulated_block(x, 0);
}

EMULATED __m256i emulated_extracti64x4(__m512i x, int half) {
  return (__m256i){x[4 * half], x[4 * half + 1], x[4 * half + 2], x[4 * half + 3]};
}

EMULATED __m256i emulated_cast_256(__m512i x) {
  return emulated_extracti64x4(x, 0);
}

// What a cast leaves undefined is not zero here, so that nothing can rely on it.
EMULATED __m512i emulated_cast_512(__m256i x) {
  return (__m512i){x[0], x[1], x[2], x[3], 0x5a5a, 0x5a5a, 0x5a5a, 0x5a5a};
}

EMULATED __m128i emulated_extracti32x4(__m512i x, int i) {
  return emulated_block(x, i);
}

EMULATED __m512i emulated_inserti32x4(__m512i x, __m128i y, int i) {
  x[2 * i] = y[0];
  x[2 * i + 1] = y[1];
  return x;
}

EMULATED __m512i emulated_inserti64x4(__m512i x, __m256i y, int half) {
  for (int i = 0; i < 4; i++)
    x[4 * half + i] = y[i];
  return x;
}

// Bytes of each block, chosen by the other's.
EMULATED __m512i emulated_512_shuffle_epi8(__m512i x, __m512i order) {
  __m128i out[4];
  for (int i = 0; i < 4; i++)
    out[i] = _mm_shuffle_epi8(emulated_block(x, i), emulated_block(order, i));
  return emulated_join(out[0], out[1], out[2], out[3]);
}

// The elements from `n` on of `low` with `high` behind it.
EMULATED __m512i emulated_alignr_epi64(__m512i high, __m512i low, int n) {
  __m512i out;
  for (int i = 0; i < 8; i++)
    out[i] = i + n < 8 ? low[i + n] : high[i + n - 8];
  return out;
}

#define _mm512_set1_epi64 emulated_set1_epi64
#define _mm512_set1_epi32 emulated_set1_epi32
#define _mm512_set_epi64 emulated_set_epi64
#define _mm512_setzero_si512 emulated_setzero
#define _mm512_broadcast_i32x4 emulated_broadcast_i32x4
#define _mm512_castsi512_si128 emulated_cast_128
#define _mm512_castsi512_si256 emulated_cast_256
#define _mm512_castsi256_si512 emulated_cast_512
#define _mm512_extracti64x4_epi64 emulated_extracti64x4
#define _mm512_extracti32x4_epi32 emulated_extracti32x4
#define _mm512_inserti32x4 emulated_inserti32x4
#define _mm512_inserti64x4 emulated_inserti64x4
#define _mm512_shuffle_epi8 emulated_512_shuffle_epi8
#define _mm512_alignr_epi64 emulated_alignr_epi64
