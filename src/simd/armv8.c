// ARMv8 Cryptography Extensions: AESE adds a key, then substitutes and shifts; AESMC mixes columns; cores fuse the
// pair. So a round is these two and takes the key of the round before (KEY_FIRST). CBC encryption comes from cbc_narrow.h,
// twelve samples, one per register; CTR from ctr_narrow.h.
#include <arm_neon.h>
#include <sys/auxv.h>

#include "simd/jobs.h"
#include "simd/ops.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("aes"))), apply_to = function)
#else
#pragma GCC target("+crypto")
#endif

#define WIDTH 1
typedef uint8x16_t vec, block;
enum { KEY_FIRST = 1 };
#define v_and vandq_u8
#define v_xor veorq_u8
#define v_key vld1q_u8

static inline vec v_round(vec x, vec key) {
  return vaesmcq_u8(vaeseq_u8(x, key));
}

static inline vec v_last(vec x, vec ninth, vec tenth) {
  return veorq_u8(vaeseq_u8(x, ninth), tenth);
}

static inline vec v_unround(vec x, vec key) {
  return vaesimcq_u8(vaesdq_u8(x, key));
}

static inline vec v_unlast(vec x, vec ninth, vec tenth) {
  return veorq_u8(vaesdq_u8(x, ninth), tenth);
}

static inline vec v_mask(unsigned m) {
  return vdupq_n_u8((uint8_t)-(m & 1));
}

static inline vec v_gather(const uint64_t *src, uint64_t t, const bool odd) {
  return vld1q_u8((const uint8_t *)(src[0] + t + (odd ? 16 : 0)));
}

static inline void v_scatter(const uint64_t *dst, uint64_t t, vec x, vec *even, const bool odd) {
  (void)even;
  vst1q_u8((uint8_t *)(dst[0] + t + (odd ? 16 : 0)), x);
}

static inline void v_blocks(const uint64_t *dst, vec x) {
  vst1q_u8((uint8_t *)dst[0], x);
}

#define v_pin(x) __asm__ volatile("" : "+w"(x))

static inline uint32_t v_ended(const uint8_t bytes[32], uint8_t x) {
  const uint8x16_t bits = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  uint8x16_t m = vandq_u8(vceqq_u8(vld1q_u8(bytes), vdupq_n_u8(x)), bits);
  return vaddv_u8(vget_low_u8(m)) | (uint32_t)vaddv_u8(vget_high_u8(m)) << 8;
}

#define load vld1q_u8
#define store vst1q_u8
#define b_xor veorq_u8
#define b_add vaddq_u8
#define v_load load
#define v_store store
#define v_all

static inline block b_counter(uint64_t high, uint64_t low) {
  return vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(__builtin_bswap64(high)), vcreate_u64(__builtin_bswap64(low))));
}

static inline block b_first(block x, const struct aes_key *k) {
  return v_round(x, load(k->enc[0]));
}

#include "simd/rounds_narrow.h"
#include "simd/cbc_narrow.h"
#include "simd/ctr_narrow.h"
#include "simd/chain_narrow.h"

// SubWord(RotWord(w)) without a table: AESE on four copies of a column substitutes it and shifts nothing apart.
static uint32_t sub_rot(uint32_t w) {
  vec x = vaeseq_u8(vreinterpretq_u8_u32(vdupq_n_u32(w)), vdupq_n_u8(0));
  w = vgetq_lane_u32(vreinterpretq_u32_u8(x), 0);
  return w >> 8 | w << 24;
}

static void key_init(struct aes_key *out, const uint8_t key[16]) {
  uint32_t w[44], rcon = 1;
  memcpy(w, key, 16);
  for (int i = 4; i < 44; i++) {
    uint32_t t = w[i - 1];
    if (i % 4 == 0) {
      t = sub_rot(t) ^ rcon;
      rcon = (rcon << 1) ^ (0x11b & -(rcon >> 7));
    }
    w[i] = w[i - 4] ^ t;
  }
  memcpy(out->enc, w, sizeof out->enc);
  explicit_bzero(w, sizeof w);
  for (int r = 0; r < 11; r++) {
    vec k = v_key(out->enc[r]);
    vst1q_u8(out->dec[10 - r], r % 10 ? vaesimcq_u8(k) : k);
  }
}

static bool usable(void) {
  return getauxval(AT_HWCAP) & 1u << 3; // HWCAP_AES
}

#if defined(__clang__)
#pragma clang attribute pop
#endif

const struct aes_ops aes_ops_armv8 = {
    .name = "armv8",
    .usable = usable,
    .key_init = key_init,
    .cbc_encrypt = cbc_encrypt,
    .cbc_decrypt = cbc_decrypt,
    .ctr = ctr,
    .cbc_chain = cbc_chain,
    .ecb_encrypt = ecb_encrypt,
};
