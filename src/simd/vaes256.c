// VAES in 256-bit registers with AVX2: two blocks per instruction, for processors without AVX-512 and for those on
// which it is not wanted. CBC encryption takes 24 samples, see cbc_narrow.h; CTR see ctr_narrow.h. CBC decryption works on
// up to eight registers, sixteen blocks, of a sample.
#include "simd/block_x86.h"
#include "simd/jobs.h"
#include "simd/ops.h"

static inline __m256i load2(const void *p) {
  return _mm256_loadu_si256((const __m256i *)p);
}

static inline void store2(void *p, __m256i v) {
  _mm256_storeu_si256((__m256i *)p, v);
}

// What rounds_narrow.h, cbc_narrow.h and ctr_narrow.h ask for.
#define WIDTH 2
typedef __m256i vec;
#define v_and _mm256_and_si256
#define v_xor _mm256_xor_si256
#define v_round _mm256_aesenc_epi128
#define v_unround _mm256_aesdec_epi128

static inline vec v_key(const void *p) {
  return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)p));
}

static inline vec v_last(vec x, vec ninth, vec tenth) {
  (void)ninth;
  return _mm256_aesenclast_epi128(x, tenth);
}

static inline vec v_unlast(vec x, vec ninth, vec tenth) {
  (void)ninth;
  return _mm256_aesdeclast_epi128(x, tenth);
}

static inline vec v_mask(unsigned m) {
  return _mm256_set_m128i(_mm_set1_epi32(-(int)(m >> 1 & 1)), _mm_set1_epi32(-(int)(m & 1)));
}

static inline vec v_gather(const uint64_t *src, uint64_t t, const bool odd) {
  t += odd ? 16 : 0;
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load((const void *)(src[0] + t))),
                                 load((const void *)(src[1] + t)), 1);
}

// The first lane's blocks go out one by one, the second's in pairs: of a pair's first block, the way through `even` costs
// no shuffle, which AES would have to wait for.
static inline void v_scatter(const uint64_t *dst, uint64_t t, vec x, vec *even, const bool odd) {
  store((void *)(dst[0] + t + (odd ? 16 : 0)), _mm256_castsi256_si128(x));
  if (odd)
    store2((void *)(dst[1] + t), _mm256_blend_epi32(_mm256_castsi128_si256(load((const uint8_t *)even + 16)), x, 0xf0));
  else
    *even = x;
}

static inline void v_blocks(const uint64_t *dst, vec x) {
  store((void *)dst[0], _mm256_castsi256_si128(x));
  store((void *)dst[1], _mm256_extracti128_si256(x, 1));
}

#define v_pin(x) __asm__ volatile("" : "+x"(x))

static inline uint32_t v_ended(const uint8_t bytes[32], uint8_t x) {
  return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(load2(bytes), _mm256_set1_epi8((char)x)));
}

#define v_load load2
#define v_store store2
#define v_all _mm256_broadcastsi128_si256

#include "simd/rounds_narrow.h"
#include "simd/cbc_narrow.h"
#include "simd/ctr_narrow.h"

enum { WIDE = 8 }; // registers in flight where blocks are independent

// ---- CBC decryption

// n registers of ciphertext, the last of them `last` bytes from the first: where it overlaps, both give the same. The block
// before each comes from memory again, which is cheaper than shuffles. In place the blocks are read before the first of
// them is written.
INLINE void decrypt_group(const struct aes_key *k, __m128i iv, uint8_t *dst, const uint8_t *src, const int n, size_t last) {
  vec x[WIDE], prev[WIDE], first = v_key(k->dec[0]);
  UNROLL for (int i = 0; i < n; i++) {
    const uint8_t *at = src + (i + 1 < n ? 32 * (size_t)i : last);
    prev[i] = i ? load2(at - 16) : _mm256_inserti128_si256(_mm256_castsi128_si256(iv), load(src), 1);
    x[i] = v_xor(load2(at), first);
  }
  inv_rounds(k->dec, x, n);
  UNROLL for (int i = 0; i < n; i++)
    store2(dst + (i + 1 < n ? 32 * (size_t)i : last), v_xor(x[i], prev[i]));
}

static __m128i decrypt_chain(const struct aes_key *k, __m128i iv, uint8_t *dst, const uint8_t *src, size_t blocks) {
  if (!blocks)
    return iv;
  const __m128i end = load(src + 16 * blocks - 16);
  for (; blocks > 2 * WIDE; blocks -= 2 * WIDE, src += 32 * WIDE, dst += 32 * WIDE) {
    __m128i next = load(src + 32 * WIDE - 16);
    decrypt_group(k, iv, dst, src, WIDE, 32 * (WIDE - 1));
    iv = next;
  }
  if (blocks == 1) {
    vec x = v_xor(_mm256_castsi128_si256(end), v_key(k->dec[0]));
    inv_rounds(k->dec, &x, 1);
    store(dst, _mm_xor_si128(_mm256_castsi256_si128(x), iv));
    return end;
  }
  const size_t last = 16 * blocks - 32;
  switch ((blocks + 1) / 2) {
  case 1: decrypt_group(k, iv, dst, src, 1, last); break;
  case 2: decrypt_group(k, iv, dst, src, 2, last); break;
  case 3: decrypt_group(k, iv, dst, src, 3, last); break;
  case 4: decrypt_group(k, iv, dst, src, 4, last); break;
  case 5: decrypt_group(k, iv, dst, src, 5, last); break;
  case 6: decrypt_group(k, iv, dst, src, 6, last); break;
  case 7: decrypt_group(k, iv, dst, src, 7, last); break;
  default: decrypt_group(k, iv, dst, src, WIDE, last); break;
  }
  return end;
}

static void cbc_decrypt(const struct aes_key *k, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num) {
  struct aes_jobs it;
  struct aes_job job;
  aes_jobs_init(&it, segs, num);
  while (aes_jobs_next(&it, &job))
    decrypt_chain(k, load(iv), job.dst, job.src, job.blocks);
}

// ---- One chain, and blocks

static void cbc_chain(const struct aes_key *k, bool encrypt, uint8_t iv[16], uint8_t *dst, const uint8_t *src,
                      size_t num_blocks) {
  if (encrypt)
    aes_ops_aesni_vex.cbc_chain(k, true, iv, dst, src, num_blocks);
  else
    store(iv, decrypt_chain(k, load(iv), dst, src, num_blocks));
}

static void ecb_encrypt(const struct aes_key *k, uint8_t *dst, const uint8_t *src, size_t num_blocks) {
  vec x[WIDE], first = v_key(k->enc[0]);
  for (; num_blocks >= 2 * WIDE; num_blocks -= 2 * WIDE, src += 32 * WIDE, dst += 32 * WIDE) {
    UNROLL for (int i = 0; i < WIDE; i++)
      x[i] = v_xor(load2(src + 32 * i), first);
    rounds(k->enc, x, WIDE);
    UNROLL for (int i = 0; i < WIDE; i++)
      store2(dst + 32 * i, x[i]);
  }
  aes_ops_aesni_vex.ecb_encrypt(k, dst, src, num_blocks);
}

static void key_init(struct aes_key *out, const uint8_t key[16]) {
  aes_ops_aesni_vex.key_init(out, key);
}

static bool usable(void) {
  return aes_cpu_runs(AES_CPU_HERE);
}

const struct aes_ops aes_ops_vaes256 = {
    .name = "vaes256",
    .usable = usable,
    .key_init = key_init,
    .cbc_encrypt = cbc_encrypt,
    .cbc_decrypt = cbc_decrypt,
    .ctr = ctr,
    .cbc_chain = cbc_chain,
    .ecb_encrypt = ecb_encrypt,
};
