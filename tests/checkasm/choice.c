// Which kernel runs: compared with what the operating system says about the processor, which dispatch never reads.
#include <stdio.h>
#include <stdlib.h>

#include "checkasm/checkasm.h"
#include "simd/ops.h"

// The first line of /proc/cpuinfo that begins with one of two words, or "".
static char *cpu_line(const char *a, const char *b) {
  static char line[16384];
  FILE *f = fopen("/proc/cpuinfo", "r");
  bool found = false;
  while (f && !found && fgets(line, sizeof line, f))
    found = strncmp(line, a, strlen(a)) == 0 || strncmp(line, b, strlen(b)) == 0;
  if (f)
    fclose(f);
  if (!found)
    line[0] = 0;
  return line;
}

// Looks for ` word ` in the line that lists the processor's features.
static bool cpu_says(const char *word) {
  bool found = false;
  for (char *p = cpu_line("flags", "Features"); (p = strstr(p, word)) && !found; p++)
    found = p[-1] == ' ' && (p[strlen(word)] == ' ' || p[strlen(word)] == '\n');
  return found;
}

#if defined(__x86_64__)
static bool two_wide(void) {
  if (!strstr(cpu_line("vendor_id", "vendor_id"), "AuthenticAMD"))
    return false;
  const char *family = strchr(cpu_line("cpu family", "cpu family"), ':');
  return family && strtol(family + 1, NULL, 10) >= 26;
}
#endif

static const char *expected(void) {
#if defined(__x86_64__)
  if (!cpu_says("aes"))
    return "ref";
  if (!cpu_says("avx") || !cpu_says("popcnt"))
    return "aesni";
  if (!cpu_says("vaes") || !cpu_says("avx2") || !cpu_says("bmi1") || !cpu_says("bmi2") || !cpu_says("abm"))
    return "aesni-vex";
  if (!cpu_says("avx512bw") || !cpu_says("avx512vbmi") || !cpu_says("3dnowprefetch"))
    return "vaes256";
  return two_wide() ? "vaes512-x2" : "vaes512";
#else
  return cpu_says("aes") ? "armv8" : "ref";
#endif
}

const char *check_choice(void) {
  static char text[200];
  const char *why = NULL;
  size_t num;
  const struct aes_ops *const *all = aes_ops_all(&num);
  const struct aes_ops *best = aes_ops_best(NULL, &why);
  if (strcmp(best->name, expected()) != 0) {
    snprintf(text, sizeof text, "chose %s, the processor calls for %s", best->name, expected());
    return text;
  }
  if (aes_ops_best("no-such-kernel", &why) || !why)
    return "an unknown name was accepted";
  for (size_t i = 0; i < num; i++) {
    const struct aes_ops *got = aes_ops_best(all[i]->name, &why);
    if (got != (all[i]->usable() ? all[i] : NULL))
      return "a name did not give its own table";
    // Two tables must not share code, or a test of one would pass for the other; vaes512-x2 differs in one function.
    for (size_t j = 0; j < i; j++)
      if (all[i]->cbc_encrypt == all[j]->cbc_encrypt || (all[i]->ctr == all[j]->ctr && !all[i]->fits))
        return "two kernels share their functions";
  }
  return NULL;
}

// Made-up processors: one bit of CPUID, or one state of XCR0, is missing at a time.
const char *check_cpu_sets(void) {
#if defined(__x86_64__)
  static char text[100];
  static const struct {
    const char *name;
    unsigned word, bit;
    uint64_t state;
  } sets[] = {
#define X(name, macro, word, bit, state) {#name, word, bit, state},
      AES_CPU_SETS(X)
#undef X
  };
  const struct aes_cpuid all = {.word = {~0u, ~0u, ~0u, ~0u}, .xcr0 = ~0ull};
  if (aes_cpu_of(&all) != (uint32_t)((1ull << AES_CPU_NUM) - 1) || aes_cpu_of(&(struct aes_cpuid){0}))
    return "all of a processor is not all sets, or nothing of it not none";
  for (unsigned i = 0; i < AES_CPU_NUM; i++) {
    struct aes_cpuid id = all;
    id.word[sets[i].word] &= ~(1u << sets[i].bit);
    bool without = aes_cpu_of(&id) >> i & 1;
    snprintf(text, sizeof text, "%s is taken for there without its bit, or its state", sets[i].name);
    for (unsigned s = 0; s < 64; s++) {
      id = all;
      id.xcr0 &= ~(1ull << s);
      without |= (aes_cpu_of(&id) >> i & 1) != !(sets[i].state >> s & 1);
    }
    if (without)
      return text;
  }
  // Source: Intel SDM volume 1 §13.3, §15.2: AVX needs bits 1 and 2 of XCR0, AVX-512 5 to 7 as well.
  uint32_t zmm = 1u << AES_CPU_AVX512F | 1u << AES_CPU_AVX512DQ | 1u << AES_CPU_AVX512BW | 1u << AES_CPU_AVX512VL | 1u << AES_CPU_AVX512VBMI;
  uint32_t ymm = 1u << AES_CPU_AVX | 1u << AES_CPU_AVX2 | 1u << AES_CPU_VAES | 1u << AES_CPU_FMA | 1u << AES_CPU_F16C;
  struct aes_cpuid id = all;
  id.xcr0 = 0x07;
  if (aes_cpu_of(&id) != (aes_cpu_of(&all) & ~zmm))
    return "without the upper registers it is just AVX-512 that cannot be had";
  id.xcr0 = 0;
  if (aes_cpu_of(&id) != (aes_cpu_of(&all) & ~(zmm | ymm)))
    return "where the system saves nothing, it is just AVX and AVX-512 that cannot be had";
  // Leaf 0 of AMD and of Intel; leaf 1 of EPYC 9005 (Zen 5), EPYC 9004 (Zen 4), Xeon 6, and of an older AMD whose extended family does not count.
  static const uint32_t amd[] = {0x68747541, 0x444d4163, 0x69746e65}, intel[] = {0x756e6547, 0x6c65746e, 0x49656e69};
  if (!aes_cpu_two_wide_of(amd[0], amd[1], amd[2], 0x00b00f21) || aes_cpu_two_wide_of(amd[0], amd[1], amd[2], 0x00a10f11) ||
      aes_cpu_two_wide_of(intel[0], intel[1], intel[2], 0x00b00f21) || aes_cpu_two_wide_of(intel[0], intel[1], intel[2], 0x000a06d1) ||
      aes_cpu_two_wide_of(amd[0], amd[1], amd[2], 0x00b00e21) || aes_cpu_two_wide_of(amd[0], intel[1], amd[2], 0x00b00f21) ||
      aes_cpu_two_wide_of(amd[0], amd[1], intel[2], 0x00b00f21))
    return "two wide AES rounds a cycle are AMD's, from family 1Ah on";
#endif
  return NULL;
}

const char *check_lane_order(void) {
  struct aes_lane v[300] = {0}, w[300];
  uint32_t x = 12345;
  for (size_t n = 0; n <= 300; n += 7) {
    for (size_t i = 0, off = 0; i < n; i++) {
      x = x * 1664525 + 1013904223;
      v[i] = (struct aes_lane){(uint32_t)off, x >> 20};
      off += v[i].len;
    }
    memcpy(w, v, sizeof v);
    aes_lane_order(w, n);
    for (size_t i = 1; i < n; i++)
      if (w[i - 1].len / 16 < w[i].len / 16 || (w[i - 1].len / 16 == w[i].len / 16 && w[i - 1].off > w[i].off))
        return "not by whole blocks, longest first, then by offset";
    for (size_t i = 0; i < n; i++) {
      size_t j = 0;
      while (j < n && (w[j].off != v[i].off || w[j].len != v[i].len))
        j++;
      if (j == n)
        return "a lane was lost";
    }
  }
  return NULL;
}
