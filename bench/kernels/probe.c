// The limits of a core: how fast AES rounds can start in each register width, and its clock.
#include <immintrin.h>
#include <string.h>

#include "bench.h"

bool probe_has(const char *kernel) {
  size_t num;
  const struct aes_ops *const *all = aes_ops_all(&num);
  for (size_t i = 0; i < num; i++)
    if (strcmp(all[i]->name, kernel) == 0)
      return all[i]->usable();
  return false;
}

// Ten rounds on each of sixteen independent registers; `key` comes from memory so that nothing folds.
#define PROBE(name, vec, width, set, round, isa)                                                                 \
  __attribute__((target(isa))) void name(uint64_t blocks) {                                                      \
    vec x0 = set(0), x1 = set(1), x2 = set(2), x3 = set(3), x4 = set(4), x5 = set(5), x6 = set(6), x7 = set(7);   \
    vec x8 = set(8), x9 = set(9), xa = set(10), xb = set(11), key = set(12);                                     \
    for (uint64_t i = 0; i < blocks; i += 12 * width)                                                            \
      for (int r = 0; r < 10; r++) {                                                                             \
        x0 = round(x0, key), x1 = round(x1, key), x2 = round(x2, key), x3 = round(x3, key);                      \
        x4 = round(x4, key), x5 = round(x5, key), x6 = round(x6, key), x7 = round(x7, key);                      \
        x8 = round(x8, key), x9 = round(x9, key), xa = round(xa, key), xb = round(xb, key);                      \
      }                                                                                                          \
    __asm__ volatile("" ::"x"(x0), "x"(x1), "x"(x2), "x"(x3), "x"(x4), "x"(x5));                                 \
    __asm__ volatile("" ::"x"(x6), "x"(x7), "x"(x8), "x"(x9), "x"(xa), "x"(xb));                                 \
  }

PROBE(probe_xmm, __m128i, 1, _mm_set1_epi32, _mm_aesenc_si128, "aes,avx")
PROBE(probe_ymm, __m256i, 2, _mm256_set1_epi32, _mm256_aesenc_epi128, "vaes,avx2")
PROBE(probe_zmm, __m512i, 4, _mm512_set1_epi32, _mm512_aesenc_epi128, "vaes,avx512f")

// Multiplications of 64 bits take three cycles on every core since Nehalem and Zen. Not additions, which newer cores do
// while renaming, nor rotations by one, which cost more than a cycle there (they showed a clock 8 % too low).
void probe_clock(uint64_t steps) {
  uint64_t x = 1;
  for (uint64_t i = 0; i < steps; i += 24)
    __asm__ volatile("imulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\t"
                     "imulq %0, %0\n\timulq %0, %0\n\timulq %0, %0\n\timulq %0, %0"
                     : "+r"(x));
}
