// What an instruction costs beside AES: loops of 60 rounds in 512-bit registers, six chains, as a step of the CBC
// kernel has them, with 0 to 60 of another instruction spread evenly between them. Prints cycles a loop, the best of many.
// An instruction that finds a pipe of its own costs nothing until that pipe is full.
//
//   ninja -C build-release bench/kernels/beside && build-release/bench/kernels/beside
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench.h"

enum { LOOPS = 2000, REPEATS = 25 };

// Results go to six registers in turn, which no round uses; loads and stores stay in one cache line each.
#define R(i) "vaesenc %%zmm16, %%zmm" #i ", %%zmm" #i "\n"
#define TEN(x) x x x x x x x x x x
#define LOOP(name, per_six)                                                                                      \
  __attribute__((target("avx512f,avx512dq,avx512vl,vaes"))) static void name(uint64_t n, uint8_t *p) {                    \
    __asm__ volatile("kmovw %k2, %%k1\n.p2align 6\n1:\n" TEN(per_six) "dec %0\njnz 1b\n"                         \
                     : "+r"(n)                                                                                   \
                     : "r"(p), "r"(0x33)                                                                         \
                     : "k1", "k2", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm20", "xmm21", "xmm22",       \
                       "xmm23", "xmm24", "xmm25", "memory");                                                      \
  }

#define WITH(name, X)                                                                                            \
  LOOP(name##_0, R(0) R(1) R(2) R(3) R(4) R(5))                                                                  \
  LOOP(name##_10, R(0) R(1) R(2) R(3) R(4) R(5) X("20"))                                                         \
  LOOP(name##_20, R(0) R(1) R(2) X("20") R(3) R(4) R(5) X("21"))                                                 \
  LOOP(name##_30, R(0) R(1) X("20") R(2) R(3) X("21") R(4) R(5) X("22"))                                         \
  LOOP(name##_40, R(0) X("20") R(1) R(2) X("21") R(3) X("22") R(4) R(5) X("23"))                                 \
  LOOP(name##_60, R(0) X("20") R(1) X("21") R(2) X("22") R(3) X("23") R(4) X("24") R(5) X("25"))

#define INSERT(r) "vinserti32x4 $1, 64(%1), %%zmm" r ", %%zmm" r "\n"
#define INSERT_HALF(r) "vinserti64x4 $1, 64(%1), %%zmm" r ", %%zmm" r "\n"
#define BROADCAST(r) "vbroadcasti64x2 64(%1), %%zmm" r "%{%%k1%}\n"
#define PERMUTE(r) "vpermq $0x4e, %%zmm26, %%zmm" r "%{%%k1%}\n"
#define EXTRACT_HALF(r) "vextracti64x4 $1, %%zmm" r ", 128(%1)\n"
#define EXTRACT_YMM(r) "vextracti64x2 $1, %%ymm" r ", 128(%1)\n"
#define MOVE(r) "vmovdqa64 %%zmm26, %%zmm" r "%{%%k1%}\n"
#define LOAD(r) "vmovdqu64 64(%1), %%zmm" r "%{%%k1%}\n"
#define XOR3(r) "vpternlogq $0x96, %%zmm26, %%zmm27, %%zmm" r "\n"
#define EXPAND(r) "vpexpandq 64(%1), %%zmm" r "%{%%k1%}\n"
#define COMPARE(r) "vpcmpeqd %%zmm" r ", %%zmm26, %%k2\n"
#define STORE_XMM(r) "vmovdqu64 %%xmm" r ", 128(%1)\n"
#define STORE_YMM(r) "vmovdqu64 %%ymm" r ", 128(%1)\n"
#define STORE_ZMM(r) "vmovdqu64 %%zmm" r ", 128(%1)\n"

#define EACH(X)                                                                                                  \
  X(insert, "insert a quarter, from memory", INSERT)                                                             \
  X(insert_half, "insert a half, from memory", INSERT_HALF)                                                      \
  X(broadcast, "broadcast a quarter under a mask", BROADCAST)                                                    \
  X(permute, "permute under a mask", PERMUTE)                                                                    \
  X(extract_half, "extract a half, to memory", EXTRACT_HALF)                                                     \
  X(extract_ymm, "extract half of 256 bits, to memory", EXTRACT_YMM)                                             \
  X(move, "move under a mask", MOVE)                                                                             \
  X(load, "load 512 bits under a mask", LOAD)                                                                    \
  X(xor3, "three-way exclusive or", XOR3)                                                                        \
  X(expand, "expand, from memory", EXPAND)                                                                       \
  X(compare, "compare into a mask", COMPARE)                                                                     \
  X(store_xmm, "store 128 bits", STORE_XMM)                                                                      \
  X(store_ymm, "store 256 bits", STORE_YMM)                                                                      \
  X(store_zmm, "store 512 bits", STORE_ZMM)
#define DEFINE(name, what, x) WITH(name, x)
EACH(DEFINE)

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Seconds of the fastest of a few calls.
static double best(void (*run)(uint64_t, uint8_t *), uint64_t n, uint8_t *p, int repeats) {
  double least = 1;
  for (int i = 0; i < repeats; i++) {
    double start = now();
    run(n, p);
    double took = now() - start;
    least = took < least ? took : least;
  }
  return least;
}

static void clock_steps(uint64_t n, uint8_t *p) {
  (void)p;
  probe_clock(n);
}

int main(void) {
  typedef void loop(uint64_t, uint8_t *);
  struct {
    const char *what;
    loop *with[6];
  } rows[] = {
#define ROW(name, what, x) {what, {name##_0, name##_10, name##_20, name##_30, name##_40, name##_60}},
      EACH(ROW)};
  static const int counts[6] = {0, 10, 20, 30, 40, 60};
  _Alignas(64) uint8_t lines[256];
  memset(lines, 0, sizeof lines);
  if (!probe_has("vaes512")) {
    puts("beside: this processor has no VAES with AVX-512");
    return 77;
  }
  printf("%-38s", "cycles of 60 rounds, with as many more:");
  for (int c = 0; c < 6; c++)
    printf(" %5d", counts[c]);
  puts("");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    printf("%-39s", rows[i].what);
    for (int c = 0; c < 6; c++) {
      double cycle = best(clock_steps, 100000, NULL, 3) / 100000;
      printf(" %5.1f", best(rows[i].with[c], LOOPS, lines, REPEATS) / LOOPS / cycle);
    }
    puts("");
  }
  return 0;
}
