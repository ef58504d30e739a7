// VAES in 512-bit registers with AVX-512: four blocks per instruction.
//
// CBC encryption takes 24 samples at once, or 32 in the table for processors that start two such rounds a cycle, see
// cbc_wide.h. That table also has a CTR of its own, see ctr_wide.h. All else is the same in both.
//
// CTR. The counters of 256 blocks differ in one byte, and what the first round makes of it, an xor, does not depend on
// the others: a table of the key and one round for all of the 256 replace whitening, counting, swapping and the first
// of ten rounds. A sample is cut into groups of four registers. The rest is handled by masks, and half a register costs
// half: units of 32 bytes, told apart by compares (meson.build), since a jump through a table is predicted worse. Groups
// depend on nothing but the counter, and out-of-order execution overlaps them across samples and wrong predictions,
// which are known early because they depend on sizes alone.
#include <immintrin.h>

#include "simd/jobs.h"
#include "simd/ops.h"

#define INLINE __attribute__((always_inline)) static inline

enum {
  GROUP = 4,      // registers of a group in CTR, decryption and of last blocks
  CTR_PART = 16 * 256, // bytes within which only the counter's last byte changes
  SRC_AHEAD = 4096, // bytes between what CTR reads and the source line asked for: the next page, where the processor stops
};

struct keys {
  __m512i k[11];
};

INLINE void load_keys(struct keys *k, const uint8_t rk[11][16]) {
  for (int r = 0; r < 11; r++)
    k->k[r] = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)rk[r]));
}

// As explicit_bzero, without a call.
INLINE void wipe(void *p, size_t lines) {
  for (size_t i = 0; i < lines; i++)
    _mm512_store_si512((uint8_t *)p + 64 * i, _mm512_setzero_si512());
  __asm__ volatile("" ::"r"(p) : "memory");
}

// Loops that store samples work with a copy of such keys that is given to nobody: what is here any of their stores might change, and
// they would read each key anew for each round (a third slower on short samples).
INLINE void wipe_keys(struct keys *k) {
  wipe(k, sizeof *k / 64);
}

INLINE void rounds(__m512i *x, int n, const struct keys *k) {
  UNROLL for (int r = 1; r < 10; r++)
    UNROLL for (int i = 0; i < n; i++)
      x[i] = _mm512_aesenc_epi128(x[i], k->k[r]);
}

INLINE void prefetch_ahead(uint64_t p) {
  __builtin_prefetch((const void *)p, 0, 2);
}

#include "simd/cbc_wide.h"

// ---- CBC decryption: blocks are independent given the ciphertext; `iv` is in the highest block.

INLINE __m512i decrypt_group(const struct keys *k, __m512i iv, uint8_t *dst, const uint8_t *src, const int n,
                             __mmask8 last) {
  __m512i c[GROUP], x[GROUP];
  for (int i = 0; i < n; i++) {
    c[i] = i + 1 < n ? _mm512_loadu_si512(src + 64 * i) : _mm512_maskz_loadu_epi64(last, src + 64 * i);
    x[i] = _mm512_xor_si512(c[i], k->k[0]);
  }
  UNROLL for (int r = 1; r < 10; r++)
    for (int i = 0; i < n; i++)
      x[i] = _mm512_aesdec_epi128(x[i], k->k[r]);
  for (int i = 0; i < n; i++) {
    __m512i prev = _mm512_alignr_epi64(c[i], i ? c[i - 1] : iv, 6);
    x[i] = _mm512_aesdeclast_epi128(x[i], _mm512_xor_si512(prev, k->k[10]));
  }
  for (int i = 0; i < n; i++)
    if (i + 1 < n)
      _mm512_storeu_si512(dst + 64 * i, x[i]);
    else
      _mm512_mask_storeu_epi64(dst + 64 * i, last, x[i]);
  return c[n - 1];
}

// Returns the last ciphertext block.
INLINE __m128i decrypt_chain(const struct keys *k, __m128i start, uint8_t *dst, const uint8_t *src, size_t blocks) {
  __m512i iv = _mm512_inserti32x4(_mm512_setzero_si512(), start, 3);
  for (; blocks >= 4 * GROUP; blocks -= 4 * GROUP, src += 64 * GROUP, dst += 64 * GROUP)
    iv = decrypt_group(k, iv, dst, src, GROUP, 0xff);
  if (!blocks)
    return _mm512_extracti32x4_epi32(iv, 3);
  __m128i end = _mm_loadu_si128((const __m128i *)(src + 16 * blocks - 16));
  __mmask8 last = (__mmask8)_bzhi_u32(0xff, (unsigned)(blocks - 1) % 4 * 2 + 2);
  switch ((blocks + 3) / 4) {
  case 1: decrypt_group(k, iv, dst, src, 1, last); break;
  case 2: decrypt_group(k, iv, dst, src, 2, last); break;
  case 3: decrypt_group(k, iv, dst, src, 3, last); break;
  default: decrypt_group(k, iv, dst, src, 4, last); break;
  }
  return end;
}

static void cbc_decrypt(const struct aes_key *key, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num) {
  struct keys kept;
  load_keys(&kept, key->dec);
  const __m128i start = _mm_loadu_si128((const __m128i *)iv);
  struct aes_jobs it;
  struct aes_job job;
  aes_jobs_init(&it, segs, num);
  while (aes_jobs_next(&it, &job)) {
    const struct keys k = kept;
    decrypt_chain(&k, start, job.dst, job.src, job.blocks);
  }
  wipe_keys(&kept);
}

// ---- CTR

// What round 1 makes of the last byte of a counter: its result is that for a zero there, xored with x[byte]. A table
// of the key, made as far as the samples need it. What it is indexed by is public.
struct first {
  _Alignas(64) uint8_t x[256 + 4][16];
  unsigned num; // blocks made, a multiple of 4
};

__attribute__((noinline)) static void first_extend(struct first *f, const struct keys *k, unsigned num) {
  const __m512i zero = _mm512_aesenc_epi128(k->k[0], k->k[1]);
  for (; f->num < num; f->num += 4) {
    __m512i x = _mm512_add_epi64(_mm512_set_epi64(3, 0, 2, 0, 1, 0, 0, 0), _mm512_set1_epi64(f->num));
    x = _mm512_xor_si512(k->k[0], _mm512_maskz_slli_epi64(0xaa, x, 56));
    _mm512_store_si512(f->x[f->num], _mm512_xor_si512(_mm512_aesenc_epi128(x, k->k[1]), zero));
  }
}

// `whole` registers and half a one where `half`; `last` has the bytes of the last of them. All loads come before the
// first store: in place, stores would hold up the loads behind them.
INLINE void ctr_group(const struct keys *k, __m512i base, const uint8_t (*first)[16], uint8_t *dst, const uint8_t *src,
                      const int whole, const bool half, __mmask64 last) {
  const __mmask64 all = ~(__mmask64)0;
  __m512i x[GROUP];
  __m256i y = _mm512_castsi512_si256(base);
  UNROLL for (int i = 0; i < whole + half; i++)
    __builtin_prefetch(src + 64 * i + SRC_AHEAD);
  UNROLL for (int i = 0; i < whole; i++)
    x[i] = _mm512_xor_si512(base, _mm512_loadu_si512(first[4 * i]));
  if (half)
    y = _mm256_xor_si256(y, _mm256_loadu_si256((const __m256i *)first[4 * whole]));
  UNROLL for (int r = 2; r < 10; r++) {
    UNROLL for (int i = 0; i < whole; i++)
      x[i] = _mm512_aesenc_epi128(x[i], k->k[r]);
    if (half)
      y = _mm256_aesenc_epi128(y, _mm512_castsi512_si256(k->k[r]));
  }
  UNROLL for (int i = 0; i < whole; i++) {
    __m512i data = _mm512_maskz_loadu_epi8(half || i + 1 < whole ? all : last, src + 64 * i);
    x[i] = _mm512_aesenclast_epi128(x[i], _mm512_xor_si512(data, k->k[10]));
  }
  if (half) {
    __m256i data = _mm256_maskz_loadu_epi8((__mmask32)last, src + 64 * whole);
    y = _mm256_aesenclast_epi128(y, _mm256_xor_si256(data, _mm512_castsi512_si256(k->k[10])));
  }
  UNROLL for (int i = 0; i < whole; i++)
    _mm512_mask_storeu_epi8(dst + 64 * i, half || i + 1 < whole ? all : last, x[i]);
  if (half)
    _mm256_mask_storeu_epi8(dst + 64 * whole, (__mmask32)last, y);
}

// A part of a sample within which only the counter's last byte changes, from the one that `first` stands for.
INLINE void ctr_part(const struct keys *k, __m512i base, const uint8_t (*first)[16], uint8_t *dst, const uint8_t *src,
                     size_t len) {
  for (; len >= 64 * GROUP; len -= 64 * GROUP, src += 64 * GROUP, dst += 64 * GROUP, first += 4 * GROUP)
    ctr_group(k, base, first, dst, src, GROUP, false, ~(__mmask64)0);
  unsigned halves = (unsigned)(len + 31) / 32;
  __mmask64 last = _bzhi_u64(~UINT64_C(0), (unsigned)(len - 1) % 64 + 1);
  switch (halves) {
  case 0: break;
  case 1: ctr_group(k, base, first, dst, src, 0, true, last); break;
  case 2: ctr_group(k, base, first, dst, src, 1, false, last); break;
  case 3: ctr_group(k, base, first, dst, src, 1, true, last); break;
  case 4: ctr_group(k, base, first, dst, src, 2, false, last); break;
  case 5: ctr_group(k, base, first, dst, src, 2, true, last); break;
  case 6: ctr_group(k, base, first, dst, src, 3, false, last); break;
  case 7: ctr_group(k, base, first, dst, src, 3, true, last); break;
  default: ctr_group(k, base, first, dst, src, 4, false, last); break;
  }
}

INLINE __m512i ctr_base(const struct keys *k, uint64_t high, uint64_t low) {
  __m128i base = _mm_set_epi64x((long long)__builtin_bswap64(low), (long long)__builtin_bswap64(high));
  base = _mm_aesenc_si128(_mm_xor_si128(base, _mm512_castsi512_si128(k->k[0])), _mm512_castsi512_si128(k->k[1]));
  return _mm512_broadcast_i32x4(base);
}

// Any sample: a part for each 256 counters.
__attribute__((noinline)) static void ctr_sample(const struct keys *k, struct first *f, uint64_t high, uint64_t low, uint8_t *dst,
                                                 const uint8_t *src, size_t len) {
  while (len) {
    unsigned byte = low & 255, room = 256 - byte;
    size_t part = len < 16 * room ? len : 16 * room;
    unsigned need = byte + (unsigned)((part + 15) / 16) + 3; // whole registers are read
    if (need > f->num)
      first_extend(f, k, need);
    ctr_part(k, ctr_base(k, high, low - byte), f->x + byte, dst, src, part);
    low += room;
    high += low == 0;
    src += part;
    dst += part;
    len -= part;
  }
}

// Asks for what comes next up to where ctr_group's own asking takes over.
static void ask_ahead(struct aes_ahead *ahead) {
  if (!ahead)
    return;
  size_t n = ahead->n < SRC_AHEAD ? ahead->n : SRC_AHEAD;
  for (size_t i = 0; i < n; i += 64)
    prefetch_ahead((uint64_t)ahead->p + i);
}

static void ctr(const struct aes_key *key, const struct aes_ctr_seg *segs, size_t num, struct aes_ahead *ahead) {
  struct keys kept, k; // k: copied anew after every call, or the compiler would keep it over the call in a place of its own
  load_keys(&kept, key->enc);
  struct first f;
  f.num = 0;
  for (size_t s = 0; s < num; s++) {
    const struct aes_ctr_seg *seg = &segs[s];
    const uint8_t *src = seg->src;
    uint8_t *dst = seg->dst;
    uint32_t longest = 0;
    for (size_t i = 0; i < seg->num; i++)
      longest = aes_ctr_size(seg, i) > longest ? aes_ctr_size(seg, i) : longest;
    // Nearly all samples begin at counter 0 and end within the table: it is made for them at once.
    const size_t most = seg->ivs ? 0 : CTR_PART;
    unsigned need = (unsigned)((longest < most ? longest : most) + 15) / 16 + 3;
    if (need > f.num)
      first_extend(&f, &kept, need);
    k = kept;
    for (size_t i = 0; i < seg->num; i++) {
      size_t len = aes_ctr_size(seg, i);
      if (__builtin_expect(len - 1 < most, 1))
        ctr_part(&k, ctr_base(&k, seg->iv + i, 0), f.x, dst, src, len);
      else {
        if (seg->ivs)
          ctr_sample(&kept, &f, load_be64(seg->ivs[i]), load_be64(seg->ivs[i] + 8), dst, src, len);
        else
          ctr_sample(&kept, &f, seg->iv + i, 0, dst, src, len);
        k = kept;
      }
      src += len;
      dst += len;
    }
  }
  ask_ahead(ahead);
  explicit_bzero(f.x, f.num * sizeof *f.x);
  wipe_keys(&kept);
}

#include "simd/ctr_wide.h"

// ---- One chain, and blocks

static void cbc_chain(const struct aes_key *key, bool encrypt, uint8_t iv[16], uint8_t *dst, const uint8_t *src,
                      size_t num_blocks) {
  __m128i x = _mm_loadu_si128((const __m128i *)iv);
  if (!encrypt) {
    struct keys k;
    load_keys(&k, key->dec);
    x = decrypt_chain(&k, x, dst, src, num_blocks);
    _mm_storeu_si128((__m128i *)iv, x);
    return;
  }
  const __m128i *rk = (const __m128i *)key->enc;
  for (; num_blocks; num_blocks--, src += 16, dst += 16) {
    x = _mm_ternarylogic_epi64(x, _mm_loadu_si128((const __m128i *)src), rk[0], 0x96);
    for (int r = 1; r < 10; r++)
      x = _mm_aesenc_si128(x, rk[r]);
    x = _mm_aesenclast_si128(x, rk[10]);
    _mm_storeu_si128((__m128i *)dst, x);
  }
  _mm_storeu_si128((__m128i *)iv, x);
}

INLINE void blocks_group(const struct keys *k, uint8_t *dst, const uint8_t *src, const int n, __mmask8 last) {
  __m512i x[GROUP];
  for (int i = 0; i < n; i++)
    x[i] = _mm512_xor_si512(k->k[0], i + 1 < n ? _mm512_loadu_si512(src + 64 * i)
                                               : _mm512_maskz_loadu_epi64(last, src + 64 * i));
  rounds(x, n, k);
  for (int i = 0; i < n; i++) {
    x[i] = _mm512_aesenclast_epi128(x[i], k->k[10]);
    if (i + 1 < n)
      _mm512_storeu_si512(dst + 64 * i, x[i]);
    else
      _mm512_mask_storeu_epi64(dst + 64 * i, last, x[i]);
  }
}

static void ecb_encrypt(const struct aes_key *key, uint8_t *dst, const uint8_t *src, size_t num_blocks) {
  struct keys k;
  load_keys(&k, key->enc);
  for (; num_blocks >= 4 * GROUP; num_blocks -= 4 * GROUP, src += 64 * GROUP, dst += 64 * GROUP)
    blocks_group(&k, dst, src, GROUP, 0xff);
  for (; num_blocks >= 4; num_blocks -= 4, src += 64, dst += 64)
    blocks_group(&k, dst, src, 1, 0xff);
  if (num_blocks)
    blocks_group(&k, dst, src, 1, (__mmask8)_bzhi_u32(0xff, 2 * (unsigned)num_blocks));
}

static void key_init(struct aes_key *out, const uint8_t key[16]) {
  aes_ops_aesni_vex.key_init(out, key);
}

static bool usable(void) {
  return aes_cpu_runs(AES_CPU_HERE);
}

const struct aes_ops aes_ops_vaes512 = {
    .name = "vaes512",
    .usable = usable,
    .key_init = key_init,
    .cbc_encrypt = cbc_encrypt_6,
    .cbc_decrypt = cbc_decrypt,
    .ctr = ctr,
    .cbc_chain = cbc_chain,
    .ecb_encrypt = ecb_encrypt,
};

const struct aes_ops aes_ops_vaes512_x2 = {
    .name = "vaes512-x2",
    .usable = usable,
    .fits = aes_cpu_two_wide,
    .key_init = key_init,
    .cbc_encrypt = cbc_encrypt_8,
    .cbc_decrypt = cbc_decrypt,
    .ctr = ctr_two_wide,
    .cbc_chain = cbc_chain,
    .ecb_encrypt = ecb_encrypt,
};
