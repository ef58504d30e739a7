// Source: Intel SDM volume 2, CPUID; volume 1 §13.3 for the states that XCR0 names.
#include <cpuid.h>

#include "simd/ops.h"

static uint64_t xcr0(void) {
  uint32_t a, d;
  __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return (uint64_t)d << 32 | a;
}

static bool has(uint32_t reg, uint32_t bits) {
  return (reg & bits) == bits;
}

unsigned aes_cpu(void) {
  uint32_t a, b, c, d, b7 = 0, c7 = 0, d7 = 0;
  unsigned cpu = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d))
    return 0;
  if (has(c, 1u << 25 | 1u << 19 | 1u << 9)) // AES, SSE4.1, SSSE3
    cpu |= AES_CPU_AESNI;
  if (!has(c, 1u << 28 | 1u << 27)) // AVX, OSXSAVE
    return cpu;
  uint64_t state = xcr0();
  if ((state & 6) != 6) // SSE and AVX registers
    return cpu;
  cpu |= AES_CPU_AVX;
  __get_cpuid_count(7, 0, &a, &b7, &c7, &d7);
  if (!has(b7, 1u << 5 | 1u << 8) || !has(c7, 1u << 9)) // AVX2, BMI2, VAES
    return cpu;
  cpu |= AES_CPU_VAES256;
  // AVX-512 F, DQ, BW, VL, VBMI; opmask and upper registers
  if (has(b7, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) && has(c7, 1u << 1) && (state & 0xe6) == 0xe6)
    cpu |= AES_CPU_VAES512;
  return cpu;
}
