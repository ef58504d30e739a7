// ARMv8 Cryptography Extensions: AESE adds a key, then substitutes and shifts; AESMC mixes columns; cores fuse the
// pair. Written with a zero key and the real one added after, so that rounds look as on x86 and CBC encryption can
// come from cbc_narrow.h: twelve samples, one per register. The exclusive or runs on other pipes than AES.
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
typedef uint8x16_t vec;
#define v_and vandq_u8
#define v_xor veorq_u8
#define v_key vld1q_u8

static inline vec v_round(vec x, vec key) {
  return veorq_u8(vaesmcq_u8(vaeseq_u8(x, vdupq_n_u8(0))), key);
}

static inline vec v_last(vec x, vec key) {
  return veorq_u8(vaeseq_u8(x, vdupq_n_u8(0)), key);
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

#include "simd/cbc_narrow.h"

enum { BLOCKS = 8 }; // in flight where they are independent

INLINE void rounds(const struct aes_key *k, vec *x, const int n) {
  vec first = v_key(k->enc[0]);
  UNROLL for (int i = 0; i < n; i++)
    x[i] = v_xor(x[i], first);
  for (int r = 1; r < 10; r++) {
    vec key = v_key(k->enc[r]);
    UNROLL for (int i = 0; i < n; i++)
      x[i] = v_round(x[i], key);
  }
  vec key = v_key(k->enc[10]);
  UNROLL for (int i = 0; i < n; i++)
    x[i] = v_last(x[i], key);
}

INLINE void inv_rounds(const struct aes_key *k, vec *x, const int n) {
  const vec zero = vdupq_n_u8(0);
  vec key = v_key(k->dec[0]);
  UNROLL for (int i = 0; i < n; i++)
    x[i] = v_xor(x[i], key);
  for (int r = 1; r < 10; r++) {
    key = v_key(k->dec[r]);
    UNROLL for (int i = 0; i < n; i++)
      x[i] = v_xor(vaesimcq_u8(vaesdq_u8(x[i], zero)), key);
  }
  key = v_key(k->dec[10]);
  UNROLL for (int i = 0; i < n; i++)
    x[i] = v_xor(vaesdq_u8(x[i], zero), key);
}

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

static vec decrypt_chain(const struct aes_key *k, vec iv, uint8_t *dst, const uint8_t *src, size_t blocks) {
  vec c[BLOCKS], x[BLOCKS];
  for (; blocks >= BLOCKS; blocks -= BLOCKS, src += 16 * BLOCKS, dst += 16 * BLOCKS) {
    UNROLL for (int i = 0; i < BLOCKS; i++)
      x[i] = c[i] = vld1q_u8(src + 16 * i);
    inv_rounds(k, x, BLOCKS);
    UNROLL for (int i = 0; i < BLOCKS; i++)
      vst1q_u8(dst + 16 * i, v_xor(x[i], i ? c[i - 1] : iv));
    iv = c[BLOCKS - 1];
  }
  for (; blocks; blocks--, src += 16, dst += 16) {
    x[0] = c[0] = vld1q_u8(src);
    inv_rounds(k, x, 1);
    vst1q_u8(dst, v_xor(x[0], iv));
    iv = c[0];
  }
  return iv;
}

static void cbc_decrypt(const struct aes_key *k, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num) {
  struct aes_jobs it;
  struct aes_job job;
  aes_jobs_init(&it, segs, num);
  while (aes_jobs_next(&it, &job))
    decrypt_chain(k, vld1q_u8(iv), job.dst, job.src, job.blocks);
}

static void cbc_chain(const struct aes_key *k, bool encrypt, uint8_t iv[16], uint8_t *dst, const uint8_t *src,
                      size_t num_blocks) {
  vec x = vld1q_u8(iv);
  if (!encrypt) {
    vst1q_u8(iv, decrypt_chain(k, x, dst, src, num_blocks));
    return;
  }
  for (; num_blocks; num_blocks--, src += 16, dst += 16) {
    x = v_xor(x, vld1q_u8(src));
    rounds(k, &x, 1);
    vst1q_u8(dst, x);
  }
  vst1q_u8(iv, x);
}

static void ecb_encrypt(const struct aes_key *k, uint8_t *dst, const uint8_t *src, size_t num_blocks) {
  vec x[BLOCKS];
  for (; num_blocks >= BLOCKS; num_blocks -= BLOCKS, src += 16 * BLOCKS, dst += 16 * BLOCKS) {
    UNROLL for (int i = 0; i < BLOCKS; i++)
      x[i] = vld1q_u8(src + 16 * i);
    rounds(k, x, BLOCKS);
    UNROLL for (int i = 0; i < BLOCKS; i++)
      vst1q_u8(dst + 16 * i, x[i]);
  }
  for (; num_blocks; num_blocks--, src += 16, dst += 16) {
    x[0] = vld1q_u8(src);
    rounds(k, x, 1);
    vst1q_u8(dst, x[0]);
  }
}

// Key stream of `n` blocks (a constant) from high ‖ low on, carried into `high`.
INLINE void stream(const struct aes_key *k, vec *x, const int n, uint64_t high, uint64_t low) {
  UNROLL for (int i = 0; i < n; i++) {
    uint64_t lo = low + (unsigned)i, hi = high + (lo < low);
    x[i] = vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(__builtin_bswap64(hi)), vcreate_u64(__builtin_bswap64(lo))));
  }
  rounds(k, x, n);
}

static void ctr_sample(const struct aes_key *k, const uint8_t counter[16], uint8_t *dst, const uint8_t *src, size_t n) {
  uint64_t high = load_be64(counter), low = load_be64(counter + 8);
  vec x[BLOCKS];
  for (; n >= 16 * BLOCKS; n -= 16 * BLOCKS, src += 16 * BLOCKS, dst += 16 * BLOCKS) {
    stream(k, x, BLOCKS, high, low);
    UNROLL for (int i = 0; i < BLOCKS; i++)
      x[i] = v_xor(x[i], vld1q_u8(src + 16 * i));
    UNROLL for (int i = 0; i < BLOCKS; i++)
      vst1q_u8(dst + 16 * i, x[i]);
    high += low + BLOCKS < low;
    low += BLOCKS;
  }
  if (!n)
    return;
  stream(k, x, BLOCKS, high, low);
  const vec *s = x;
  for (; n >= 16; n -= 16, src += 16, dst += 16, s++)
    vst1q_u8(dst, v_xor(*s, vld1q_u8(src)));
  uint8_t rest[16] = {0};
  if (n)
    vst1q_u8(rest, *s);
  for (size_t i = 0; i < n; i++)
    dst[i] = src[i] ^ rest[i];
}

static void ctr(const struct aes_key *k, const struct aes_ctr_seg *segs, size_t num, struct aes_ahead *ahead) {
  (void)ahead;
  aes_ctr_each(k, segs, num, ctr_sample);
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
