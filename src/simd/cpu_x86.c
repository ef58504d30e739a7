#include <cpuid.h>

#include "simd/ops.h"

static uint64_t xcr0(void) {
  uint32_t a, d;
  __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  return (uint64_t)d << 32 | a;
}

uint32_t aes_cpu_of(const struct aes_cpuid *id) {
  uint32_t sets = 0;
#define X(name, macro, place, bit, state) \
  sets |= (uint32_t)((id->word[place] >> (bit) & 1) && (id->xcr0 & (state)) == (state)) << AES_CPU_##name;
  AES_CPU_SETS(X)
#undef X
  return sets;
}

bool aes_cpu_runs(uint32_t sets) {
  struct aes_cpuid id = {0};
  uint32_t a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d)) {
    id.word[LEAF1_C] = c;
    id.xcr0 = c >> 27 & 1 ? xcr0() : 0; // OSXSAVE
  }
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    id.word[LEAF7_B] = b;
    id.word[LEAF7_C] = c;
  }
  if (__get_cpuid(0x80000001, &a, &b, &c, &d))
    id.word[EXT1_C] = c;
  return (aes_cpu_of(&id) & sets) == sets;
}

bool aes_cpu_two_wide_of(uint32_t b, uint32_t c, uint32_t d, uint32_t version) {
  uint32_t base = version >> 8 & 15, family = base < 15 ? base : 15 + (version >> 20 & 255);
  return b == signature_AMD_ebx && c == signature_AMD_ecx && d == signature_AMD_edx && family >= 0x1a;
}

bool aes_cpu_two_wide(void) {
  uint32_t a, b, c, d, version, other[3];
  return __get_cpuid(0, &a, &b, &c, &d) && __get_cpuid(1, &version, &other[0], &other[1], &other[2]) &&
         aes_cpu_two_wide_of(b, c, d, version);
}
