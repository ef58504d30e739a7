// AES-NI kernels, compiled twice: aesni.c (two-operand SSE encoding) and aesni_vex.c (three-operand VEX encoding,
// which saves register copies). The including file defines AESNI_OPS and AESNI_NAME.
//
// An AES round has a latency of 3-4 cycles and two start per cycle, so eight independent blocks keep the units
// busy. CTR (ctr_narrow.h) and CBC decryption find them within a sample; CBC encryption takes twelve samples, see cbc_narrow.h.
#include <immintrin.h>

#include "simd/jobs.h"
#include "simd/ops.h"

static inline __m128i load(const void *p) {
  return _mm_loadu_si128((const __m128i *)p);
}

static inline void store(void *p, __m128i v) {
  _mm_storeu_si128((__m128i *)p, v);
}

static inline __m128i rk(const struct aes_key *k, int round) {
  return _mm_load_si128((const __m128i *)k->enc[round]);
}

static inline __m128i dk(const struct aes_key *k, int round) {
  return _mm_load_si128((const __m128i *)k->dec[round]);
}

// Rounds 1 to 10 of `n` blocks (a constant) that round key 0 is already in.
__attribute__((always_inline)) static inline void rounds(const struct aes_key *k, __m128i *x, int n) {
  for (int r = 1; r < 10; r++) {
    __m128i key = rk(k, r);
    for (int i = 0; i < n; i++)
      x[i] = _mm_aesenc_si128(x[i], key);
  }
  for (int i = 0; i < n; i++)
    x[i] = _mm_aesenclast_si128(x[i], rk(k, 10));
}

__attribute__((always_inline)) static inline void inv_rounds(const struct aes_key *k, __m128i *x, int n) {
  for (int r = 1; r < 10; r++) {
    __m128i key = dk(k, r);
    for (int i = 0; i < n; i++)
      x[i] = _mm_aesdec_si128(x[i], key);
  }
  for (int i = 0; i < n; i++)
    x[i] = _mm_aesdeclast_si128(x[i], dk(k, 10));
}

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

// What cbc_narrow.h asks for.
#define WIDTH 1
typedef __m128i vec;
#define v_and _mm_and_si128
#define v_xor _mm_xor_si128
#define v_round _mm_aesenc_si128
#define v_last _mm_aesenclast_si128
#define v_key load

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

#include "simd/cbc_narrow.h"
#include "simd/ctr_narrow.h"

enum { BLOCKS = 8 }; // in flight where blocks are independent

static __m128i decrypt_chain(const struct aes_key *k, __m128i iv, uint8_t *dst, const uint8_t *src, size_t blocks) {
  for (; blocks >= BLOCKS; blocks -= BLOCKS, src += 16 * BLOCKS, dst += 16 * BLOCKS) {
    __m128i c[BLOCKS], x[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
      c[i] = load(src + 16 * i);
      x[i] = _mm_xor_si128(c[i], dk(k, 0));
    }
    inv_rounds(k, x, BLOCKS);
    for (int i = 0; i < BLOCKS; i++)
      store(dst + 16 * i, _mm_xor_si128(x[i], i ? c[i - 1] : iv));
    iv = c[BLOCKS - 1];
  }
  for (; blocks; blocks--, src += 16, dst += 16) {
    __m128i c = load(src), x = _mm_xor_si128(c, dk(k, 0));
    inv_rounds(k, &x, 1);
    store(dst, _mm_xor_si128(x, iv));
    iv = c;
  }
  return iv;
}

static void cbc_decrypt(const struct aes_key *k, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num) {
  struct aes_jobs it;
  struct aes_job job;
  aes_jobs_init(&it, segs, num);
  while (aes_jobs_next(&it, &job))
    decrypt_chain(k, load(iv), job.dst, job.src, job.blocks);
}

static void cbc_chain(const struct aes_key *k, bool encrypt, uint8_t iv[16], uint8_t *dst, const uint8_t *src,
                      size_t num_blocks) {
  __m128i x = load(iv);
  if (!encrypt) {
    store(iv, decrypt_chain(k, x, dst, src, num_blocks));
    return;
  }
  for (; num_blocks; num_blocks--, src += 16, dst += 16) {
    x = _mm_xor_si128(x, _mm_xor_si128(load(src), rk(k, 0)));
    rounds(k, &x, 1);
    store(dst, x);
  }
  store(iv, x);
}

static void ecb_encrypt(const struct aes_key *k, uint8_t *dst, const uint8_t *src, size_t num_blocks) {
  for (; num_blocks >= BLOCKS; num_blocks -= BLOCKS, src += 16 * BLOCKS, dst += 16 * BLOCKS) {
    __m128i x[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
      x[i] = _mm_xor_si128(load(src + 16 * i), rk(k, 0));
    rounds(k, x, BLOCKS);
    for (int i = 0; i < BLOCKS; i++)
      store(dst + 16 * i, x[i]);
  }
  for (; num_blocks; num_blocks--, src += 16, dst += 16) {
    __m128i x = _mm_xor_si128(load(src), rk(k, 0));
    rounds(k, &x, 1);
    store(dst, x);
  }
}

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
