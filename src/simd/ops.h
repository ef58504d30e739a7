// The tables that are built in, and what the processor has. Private to simd/.
#pragma once
#include "simd/aes.h"

extern const struct aes_ops aes_ops_ref;
#if defined(__x86_64__)
extern const struct aes_ops aes_ops_aesni, aes_ops_aesni_vex, aes_ops_vaes256, aes_ops_vaes512;

// Instruction sets that both the processor and the operating system (XCR0) offer.
enum aes_cpu {
  AES_CPU_AESNI = 1,   // AES-NI, SSE4.1, SSSE3
  AES_CPU_AVX = 2,     // AVX
  AES_CPU_VAES256 = 4, // VAES, AVX2, BMI2
  AES_CPU_VAES512 = 8, // VAES, AVX-512 F, BW, DQ, VL, VBMI
};
unsigned aes_cpu(void);
#elif defined(__aarch64__)
extern const struct aes_ops aes_ops_armv8;
#endif
