// Instruction sets beyond x86-64's own: one list for what the processor is asked and for what a kernel is compiled for.
// Private to simd/. Source: Intel SDM volume 2, CPUID; volume 1 §13.3 for the states that XCR0 names.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { XCR0_NONE = 0, XCR0_YMM = 0x06, XCR0_ZMM = 0xe6 }; // SSE and AVX registers; with opmask and the upper ones
enum aes_cpu_word { LEAF1_C, LEAF7_B, LEAF7_C, EXT1_C, AES_CPU_WORDS };

// X(name, the macro that compilers define where they use it, word of CPUID, bit, registers that the system must save)
#define AES_CPU_SETS(X)                                                                                                  \
  X(SSE3, __SSE3__, LEAF1_C, 0, XCR0_NONE)                                                                               \
  X(SSSE3, __SSSE3__, LEAF1_C, 9, XCR0_NONE)                                                                             \
  X(SSE4_1, __SSE4_1__, LEAF1_C, 19, XCR0_NONE)                                                                          \
  X(SSE4_2, __SSE4_2__, LEAF1_C, 20, XCR0_NONE)                                                                          \
  X(CRC32, __CRC32__, LEAF1_C, 20, XCR0_NONE)                                                                            \
  X(POPCNT, __POPCNT__, LEAF1_C, 23, XCR0_NONE)                                                                          \
  X(AES, __AES__, LEAF1_C, 25, XCR0_NONE)                                                                                \
  X(XSAVE, __XSAVE__, LEAF1_C, 26, XCR0_NONE)                                                                            \
  X(FMA, __FMA__, LEAF1_C, 12, XCR0_YMM)                                                                                 \
  X(AVX, __AVX__, LEAF1_C, 28, XCR0_YMM)                                                                                 \
  X(F16C, __F16C__, LEAF1_C, 29, XCR0_YMM)                                                                               \
  X(BMI, __BMI__, LEAF7_B, 3, XCR0_NONE)                                                                                 \
  X(AVX2, __AVX2__, LEAF7_B, 5, XCR0_YMM)                                                                                \
  X(BMI2, __BMI2__, LEAF7_B, 8, XCR0_NONE)                                                                               \
  X(AVX512F, __AVX512F__, LEAF7_B, 16, XCR0_ZMM)                                                                         \
  X(AVX512DQ, __AVX512DQ__, LEAF7_B, 17, XCR0_ZMM)                                                                       \
  X(AVX512BW, __AVX512BW__, LEAF7_B, 30, XCR0_ZMM)                                                                       \
  X(AVX512VL, __AVX512VL__, LEAF7_B, 31, XCR0_ZMM)                                                                       \
  X(AVX512VBMI, __AVX512VBMI__, LEAF7_C, 1, XCR0_ZMM)                                                                    \
  X(VAES, __VAES__, LEAF7_C, 9, XCR0_YMM)                                                                                \
  X(LZCNT, __LZCNT__, EXT1_C, 5, XCR0_NONE)                                                                              \
  X(PRFCHW, __PRFCHW__, EXT1_C, 8, XCR0_NONE)

enum aes_cpu_index {
#define X(name, macro, word, bit, state) AES_CPU_##name,
  AES_CPU_SETS(X)
#undef X
  AES_CPU_NUM
};

// 1 where a macro is defined as 1, 0 where it is not defined: what stands behind the comma that only AES_CPU_IS_1 has.
#define AES_CPU_IS_1 0,
#define AES_CPU_SECOND(a, b, ...) b
#define AES_CPU_PICK(x) AES_CPU_SECOND(x 1, 0, 0)
#define AES_CPU_JOIN(x) AES_CPU_PICK(AES_CPU_IS_##x)
#define AES_CPU_DEFINED(macro) AES_CPU_JOIN(macro)

// All that the file at hand is compiled for, as a mask of 1 << AES_CPU_…
#define AES_CPU_BIT_HERE(name, macro, word, bit, state) | (uint32_t)AES_CPU_DEFINED(macro) << AES_CPU_##name
#define AES_CPU_HERE (0u AES_CPU_SETS(AES_CPU_BIT_HERE))

struct aes_cpuid {
  uint32_t word[AES_CPU_WORDS];
  uint64_t xcr0; // 0 where it cannot be read
};

// aes_cpu_of gives the sets that both the processor and the operating system offer.
uint32_t aes_cpu_of(const struct aes_cpuid *id);

// aes_cpu_runs says whether this machine has all of `sets`. In a file for every processor: a check that stood among the kernels could
// itself be compiled to what it is to check.
bool aes_cpu_runs(uint32_t sets);

// aes_cpu_two_wide says whether the processor starts two AES rounds of 512 bits a cycle, by its maker's name and family: AMD's
// 1Ah (Zen 5) and later. No bit of CPUID says so. Source: AMD APM volume 3, CPUID 0000_0000 and 0000_0001 EAX.
bool aes_cpu_two_wide(void);

// The same of made-up answers: the words EBX, ECX and EDX of leaf 0, and EAX of leaf 1.
bool aes_cpu_two_wide_of(uint32_t b, uint32_t c, uint32_t d, uint32_t version);
