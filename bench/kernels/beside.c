// What an instruction costs beside AES: loops of 60 rounds in 512-bit registers, six chains, as a step of the CBC
// kernel has them, with 0 to 60 of another instruction spread evenly between them; the same of 100 rounds in ten chains, which
// two AES units need. Prints cycles a loop, the best of many. An instruction that finds a pipe of its own costs nothing until that
// pipe is full.
//
// Then what it costs to move blocks as CBC does, without any AES: some bytes of each of 32 samples in turn, from source to destination.
//
//   ninja -C build-release bench/kernels/beside && build-release/bench/kernels/beside
#include <immintrin.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench.h"

enum { LOOPS = 2000, REPEATS = 25 };

// Results go to some registers in turn, which no round uses; loads and stores stay in one or two cache lines each.
#define R(i) "vaesenc %%zmm16, %%zmm" #i ", %%zmm" #i "\n"
#define TEN(x) x x x x x x x x x x
#define LOOP(name, per_turn)                                                                                      \
  __attribute__((target("avx512f,avx512dq,avx512vl,vaes"))) static void name(uint64_t n, uint8_t *p) {                    \
    __asm__ volatile("kmovw %k2, %%k1\n.p2align 6\n1:\n" TEN(per_turn) "dec %0\njnz 1b\n"                         \
                     : "+r"(n)                                                                                   \
                     : "r"(p), "r"(0x33)                                                                         \
                     : "k1", "k2", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                       "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "memory");                                                      \
  }

#define WITH(name, X)                                                                                            \
  LOOP(name##_0, R(0) R(1) R(2) R(3) R(4) R(5))                                                                  \
  LOOP(name##_10, R(0) R(1) R(2) R(3) R(4) R(5) X("20"))                                                         \
  LOOP(name##_20, R(0) R(1) R(2) X("20") R(3) R(4) R(5) X("21"))                                                 \
  LOOP(name##_30, R(0) R(1) X("20") R(2) R(3) X("21") R(4) R(5) X("22"))                                         \
  LOOP(name##_40, R(0) X("20") R(1) R(2) X("21") R(3) X("22") R(4) R(5) X("23"))                                 \
  LOOP(name##_60, R(0) X("20") R(1) X("21") R(2) X("22") R(3) X("23") R(4) X("24") R(5) X("25"))                  \
  LOOP(name##_ten_0, R(0) R(1) R(2) R(3) R(4) R(5) R(6) R(7) R(8) R(9))                                          \
  LOOP(name##_ten_20, R(0) R(1) R(2) R(3) R(4) X("20") R(5) R(6) R(7) R(8) R(9) X("21"))                         \
  LOOP(name##_ten_40, R(0) R(1) X("20") R(2) R(3) R(4) X("21") R(5) R(6) X("22") R(7) R(8) R(9) X("23"))         \
  LOOP(name##_ten_60, R(0) X("20") R(1) R(2) X("21") R(3) R(4) X("22") R(5) X("23") R(6) R(7) X("24") R(8) R(9) X("25")) \
  LOOP(name##_ten_80, R(0) X("20") R(1) X("21") R(2) X("22") R(3) X("23") R(4) R(5) X("24") R(6) X("25") R(7) X("20") R(8) X("21") R(9))

#define INSERT(r) "vinserti32x4 $1, 64(%1), %%zmm" r ", %%zmm" r "\n"
#define INSERT_HALF(r) "vinserti64x4 $1, 64(%1), %%zmm" r ", %%zmm" r "\n"
#define BROADCAST(r) "vbroadcasti64x2 64(%1), %%zmm" r "%{%%k1%}\n"
#define BROADCAST_ALL(r) "vbroadcasti64x2 64(%1), %%zmm" r "\n"
#define PERMUTE(r) "vpermq $0x4e, %%zmm26, %%zmm" r "%{%%k1%}\n"
#define UNPACK(r) "vpunpcklqdq %%zmm26, %%zmm27, %%zmm" r "\n"
#define EXTRACT_HALF(r) "vextracti64x4 $1, %%zmm" r ", 128(%1)\n"
#define EXTRACT_YMM(r) "vextracti64x2 $1, %%ymm" r ", 128(%1)\n"
#define MOVE(r) "vmovdqa64 %%zmm26, %%zmm" r "%{%%k1%}\n"
#define LOAD(r) "vmovdqu64 64(%1), %%zmm" r "%{%%k1%}\n"
#define LOAD_TWO(r) "vmovdqu64 24(%1), %%zmm" r "\n"
#define XOR3(r) "vpternlogq $0x96, %%zmm26, %%zmm27, %%zmm" r "\n"
#define EXPAND(r) "vpexpandq 64(%1), %%zmm" r "%{%%k1%}\n"
#define COMPARE(r) "vpcmpeqd %%zmm" r ", %%zmm26, %%k2\n"
#define STORE_XMM(r) "vmovdqu64 %%xmm" r ", 128(%1)\n"
#define STORE_YMM(r) "vmovdqu64 %%ymm" r ", 128(%1)\n"
#define STORE_ZMM(r) "vmovdqu64 %%zmm" r ", 128(%1)\n"
#define STORE_TWO(r) "vmovdqu64 %%zmm" r ", 152(%1)\n"

#define EACH(X)                                                                                                  \
  X(insert, "insert a quarter, from memory", INSERT)                                                             \
  X(insert_half, "insert a half, from memory", INSERT_HALF)                                                      \
  X(broadcast, "broadcast a quarter under a mask", BROADCAST)                                                    \
  X(broadcast_all, "broadcast a quarter, no mask", BROADCAST_ALL)                                                \
  X(unpack, "unpack within blocks", UNPACK)                                                                      \
  X(permute, "permute under a mask", PERMUTE)                                                                    \
  X(extract_half, "extract a half, to memory", EXTRACT_HALF)                                                     \
  X(extract_ymm, "extract half of 256 bits, to memory", EXTRACT_YMM)                                             \
  X(move, "move under a mask", MOVE)                                                                             \
  X(load, "load 512 bits under a mask", LOAD)                                                                    \
  X(load_two, "load 512 bits across two lines", LOAD_TWO)                                                        \
  X(xor3, "three-way exclusive or", XOR3)                                                                        \
  X(expand, "expand, from memory", EXPAND)                                                                       \
  X(compare, "compare into a mask", COMPARE)                                                                     \
  X(store_xmm, "store 128 bits", STORE_XMM)                                                                      \
  X(store_ymm, "store 256 bits", STORE_YMM)                                                                      \
  X(store_zmm, "store 512 bits", STORE_ZMM)                                                                      \
  X(store_two, "store 512 bits across two lines", STORE_TWO)
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

// Moving without AES.

enum { MOVED = 32, ROOM = MOVED * (2048 + 64) }; // samples; bytes of all of them at the most

#define MOVE_LOOP(name, type, load, store)                                                                       \
  __attribute__((target("avx512f"), noinline)) static void name(const uint64_t *src, const uint64_t *dst, uint64_t len) { \
    for (uint64_t t = 0; t < len; t += sizeof(type))                                                             \
      for (int i = 0; i < MOVED; i++) {                                                                          \
        type x = load;                                                                                           \
        __asm__ volatile("" : "+v"(x));                                                                          \
        store;                                                                                                   \
      }                                                                                                          \
  }
#define LOAD_YMM _mm256_loadu_si256((const __m256i *)(src[i] + t))
#define LOAD_ZMM _mm512_loadu_si512((const void *)(src[i] + t))
MOVE_LOOP(move_ymm, __m256i, LOAD_YMM, _mm256_storeu_si256((__m256i *)(dst[i] + t), x))
MOVE_LOOP(move_zmm, __m512i, LOAD_ZMM, _mm512_storeu_si512((void *)(dst[i] + t), x))
MOVE_LOOP(load_ymm_only, __m256i, LOAD_YMM, (void)dst)
MOVE_LOOP(store_ymm_only, __m256i, _mm256_set1_epi8((char)src[0]), _mm256_storeu_si256((__m256i *)(dst[i] + t), x))

// Cycles for 16 bytes of each sample, of samples of `len` bytes that lie `gap` bytes apart.
static double moved(void (*run)(const uint64_t *, const uint64_t *, uint64_t), uint64_t len, unsigned gap) {
  static _Alignas(4096) uint8_t from[ROOM], to[ROOM];
  uint64_t src[MOVED], dst[MOVED];
  double least = 1;
  memset(from, 1, sizeof from);
  memset(to, 2, sizeof to);
  for (unsigned i = 0; i < MOVED; i++) {
    src[i] = (uint64_t)from + i * (len + gap);
    dst[i] = (uint64_t)to + i * (len + gap);
  }
  for (int i = 0; i < 20 * REPEATS; i++) {
    double start = now();
    for (int j = 0; j < 8; j++)
      run(src, dst, len);
    double took = (now() - start) / 8;
    least = took < least ? took : least;
  }
  return least / (best(clock_steps, 100000, NULL, 3) / 100000) / ((double)len / 16);
}

static void print_moves(void) {
  static const struct {
    const char *what;
    void (*run)(const uint64_t *, const uint64_t *, uint64_t);
    unsigned gap;
  } rows[] = {{"32 bytes at odd addresses", move_ymm, 47},
              {"64 bytes at odd addresses", move_zmm, 47},
              {"32 bytes, loads only", load_ymm_only, 47},
              {"32 bytes, stores only", store_ymm_only, 47},
              {"32 bytes of whole cache lines", move_ymm, 64},
              {"64 bytes of whole cache lines", move_zmm, 64}};
  static const unsigned lens[] = {384, 768, 2048};
  printf("\n%-39s", "cycles to move 16 bytes of 32 samples of:");
  for (size_t l = 0; l < sizeof lens / sizeof *lens; l++)
    printf(" %5u", lens[l]);
  puts(" bytes");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    printf("%-41s", rows[i].what);
    for (size_t l = 0; l < sizeof lens / sizeof *lens; l++)
      printf(" %5.1f", moved(rows[i].run, lens[l], rows[i].gap));
    puts("");
  }
}

int main(void) {
  typedef void loop(uint64_t, uint8_t *);
  enum { SIX = 6, TEN_CHAINS = 5 };
  struct {
    const char *what;
    loop *six[SIX], *ten[TEN_CHAINS];
  } rows[] = {
#define ROW(name, what, x)                                                     \
  {what,                                                                       \
   {name##_0, name##_10, name##_20, name##_30, name##_40, name##_60},          \
   {name##_ten_0, name##_ten_20, name##_ten_40, name##_ten_60, name##_ten_80}},
      EACH(ROW)};
  static const int six[SIX] = {0, 10, 20, 30, 40, 60}, ten[TEN_CHAINS] = {0, 20, 40, 60, 80};
  _Alignas(64) uint8_t lines[256];
  memset(lines, 0, sizeof lines);
  if (!probe_has("vaes512")) {
    puts("beside: this processor has no VAES with AVX-512");
    return 77;
  }
  for (int chains = 6; chains <= 10; chains += 4) {
    const int *counts = chains == 6 ? six : ten, num = chains == 6 ? SIX : TEN_CHAINS;
    printf("%scycles of %3d rounds, with as many more:", chains == 6 ? "" : "\n", 10 * chains);
    for (int c = 0; c < num; c++)
      printf(" %5d", counts[c]);
    puts("");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
      printf("%-39s", rows[i].what);
      for (int c = 0; c < num; c++) {
        double cycle = best(clock_steps, 100000, NULL, 3) / 100000;
        printf(" %5.1f", best(chains == 6 ? rows[i].six[c] : rows[i].ten[c], LOOPS, lines, REPEATS) / LOOPS / cycle);
      }
      puts("");
    }
  }
  print_moves();
  return 0;
}
