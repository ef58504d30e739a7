// AES-NI kernels, compiled twice: aesni.c (two-operand SSE encoding) and aesni_vex.c (three-operand VEX encoding,
// which saves register copies). The including file defines AESNI_OPS and AESNI_NAME.
//
// An AES round has a latency of 3-4 cycles and two start per cycle, so eight independent blocks keep the units
// busy. CTR (ctr_narrow.h) and CBC decryption find them within a sample; CBC encryption takes twelve samples, see cbc_narrow.h.
#include "simd/block_x86.h"
#include "simd/jobs.h"
#include "simd/ops.h"

// One step of FIPS 197 §5.2: `assist` holds SubWord(RotWord(w3)) ^ rcon in its highest word.
static inline __m128i expand(__m128i key, __m128i assist) {
  key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
  key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
  return _mm_xor_si128(key, _mm_shuffle_epi32(assist, 0xff));
}

static void key_init(struct aes_key *out, const uint8_t key[16]) {
  __m128i k[11];
  k[0] = load(key);
#define STEP(i, rcon) k[i] = expand(k[(i) - 1], _mm_aeskeygenassist_si128(k[(i) - 1], rcon))
  STEP(1, 0x01);
  STEP(2, 0x02);
  STEP(3, 0x04);
  STEP(4, 0x08);
  STEP(5, 0x10);
  STEP(6, 0x20);
  STEP(7, 0x40);
  STEP(8, 0x80);
  STEP(9, 0x1b);
  STEP(10, 0x36);
#undef STEP
  for (int i = 0; i < 11; i++) {
    store(out->enc[i], k[i]);
    store(out->dec[10 - i], i % 10 ? _mm_aesimc_si128(k[i]) : k[i]);
  }
}

// What rounds_narrow.h, cbc_narrow.h and ctr_narrow.h ask for.
#define WIDTH 1
typedef __m128i vec;
#define v_and _mm_and_si128
#define v_xor _mm_xor_si128
#define v_round _mm_aesenc_si128
#define v_unround _mm_aesdec_si128

static inline vec v_key(const void *p) {
  return _mm_load_si128((const __m128i *)p);
}

static inline vec v_last(vec x, vec ninth, vec tenth) {
  (void)ninth;
  return _mm_aesenclast_si128(x, tenth);
}

static inline vec v_unlast(vec x, vec ninth, vec tenth) {
  (void)ninth;
  return _mm_aesdeclast_si128(x, tenth);
}

static inline vec v_mask(unsigned m) {
  return _mm_set1_epi32(-(int)(m & 1));
}

static inline vec v_gather(const uint64_t *src, uint64_t t, const bool odd) {
  return load((const void *)(src[0] + t + (odd ? 16 : 0)));
}

static inline void v_scatter(const uint64_t *dst, uint64_t t, vec x, vec *even, const bool odd) {
  (void)even;
  store((void *)(dst[0] + t + (odd ? 16 : 0)), x);
}

static inline void v_blocks(const uint64_t *dst, vec x) {
  store((void *)dst[0], x);
}

#define v_pin(x) __asm__ volatile("" : "+x"(x))

static inline uint32_t v_ended(const uint8_t bytes[32], uint8_t x) {
  return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(load(bytes), _mm_set1_epi8((char)x)));
}

#define v_load load
#define v_store store
#define v_all

#include "simd/rounds_narrow.h"
#include "simd/cbc_narrow.h"
#include "simd/ctr_narrow.h"
#include "simd/chain_narrow.h"

static bool usable(void) {
  return aes_cpu_runs(AES_CPU_HERE);
}

const struct aes_ops AESNI_OPS = {
    .name = AESNI_NAME,
    .usable = usable,
    .key_init = key_init,
    .cbc_encrypt = cbc_encrypt,
    .cbc_decrypt = cbc_decrypt,
    .ctr = ctr,
    .cbc_chain = cbc_chain,
    .ecb_encrypt = ecb_encrypt,
};
