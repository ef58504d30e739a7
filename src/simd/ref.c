// AES-128 in portable C without a table, a branch or an index that depends on a key or on data.
//
// Four blocks are worked on at once, bit-sliced: plane k holds bit k of all 64 bytes. Bit 16*b + i of a plane
// belongs to byte i of block b; byte i stands in row i % 4, column i / 4 of the state (FIPS 197 §3.4). In this
// form SubBytes is a circuit of 113 gates over the eight planes, ShiftRows a rotation of nibbles within 16 bits,
// MixColumns a rotation of bits within nibbles.
//
// It serves machines without AES instructions, and it is what every other kernel is compared with.
#include "simd/jobs.h"
#include "simd/ops.h"

enum { LANES = 4 };

struct planes {
  uint64_t p[8];
};

// S-box by composite fields. Source: Boyar, Peralta, "A new combinational logic minimization technique with
// applications to cryptology", 2009, figures 2-4, with their names; x0 is the most significant bit.
static void sub_bytes(struct planes *s) {
  uint64_t x0 = s->p[7], x1 = s->p[6], x2 = s->p[5], x3 = s->p[4];
  uint64_t x4 = s->p[3], x5 = s->p[2], x6 = s->p[1], x7 = s->p[0];

  uint64_t y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2;
  uint64_t y1 = t0 ^ x7, y4 = y1 ^ x3, y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6, y3 = y5 ^ y8;
  uint64_t t1 = x4 ^ y12, y15 = t1 ^ x5, y20 = t1 ^ x1, y6 = y15 ^ x7, y10 = y15 ^ t0, y11 = y20 ^ y9;
  uint64_t y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8, y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;

  uint64_t t2 = y12 & y15, t3 = y3 & y6, t4 = t3 ^ t2, t5 = y4 & x7, t6 = t5 ^ t2, t7 = y13 & y16;
  uint64_t t8 = y5 & y1, t9 = t8 ^ t7, t10 = y2 & y7, t11 = t10 ^ t7, t12 = y9 & y11, t13 = y14 & y17;
  uint64_t t14 = t13 ^ t12, t15 = y8 & y10, t16 = t15 ^ t12, t17 = t4 ^ t14, t18 = t6 ^ t16;
  uint64_t t19 = t9 ^ t14, t20 = t11 ^ t16, t21 = t17 ^ y20, t22 = t18 ^ y19, t23 = t19 ^ y21, t24 = t20 ^ y18;
  uint64_t t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t28 = t25 & t27, t29 = t28 ^ t22;
  uint64_t t30 = t23 ^ t24, t31 = t22 ^ t26, t32 = t31 & t30, t33 = t32 ^ t24, t34 = t23 ^ t33;
  uint64_t t35 = t27 ^ t33, t36 = t24 & t35, t37 = t36 ^ t34, t38 = t27 ^ t36, t39 = t29 & t38, t40 = t25 ^ t39;
  uint64_t t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40, t44 = t33 ^ t37, t45 = t42 ^ t41;
  uint64_t z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1, z5 = t29 & y7;
  uint64_t z6 = t42 & y11, z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4;
  uint64_t z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14, z17 = t41 & y8;

  uint64_t t46 = z15 ^ z16, t47 = z10 ^ z11, t48 = z5 ^ z13, t49 = z9 ^ z10, t50 = z2 ^ z12, t51 = z2 ^ z5;
  uint64_t t52 = z7 ^ z8, t53 = z0 ^ z3, t54 = z6 ^ z7, t55 = z16 ^ z17, t56 = z12 ^ t48, t57 = t50 ^ t53;
  uint64_t t58 = z4 ^ t46, t59 = z3 ^ t54, t60 = t46 ^ t57, t61 = z14 ^ t57, t62 = t52 ^ t58, t63 = t49 ^ t58;
  uint64_t t64 = z4 ^ t59, t65 = t61 ^ t62, t66 = z1 ^ t63, t67 = t64 ^ t65;
  uint64_t s3 = t53 ^ t66;
  s->p[7] = t59 ^ t63;
  s->p[6] = t64 ^ ~s3;
  s->p[5] = t55 ^ ~t67;
  s->p[4] = s3;
  s->p[3] = t51 ^ t66;
  s->p[2] = t47 ^ t65;
  s->p[1] = t56 ^ ~t62;
  s->p[0] = t48 ^ ~t60;
}

// The inverse of the S-box's affine part (FIPS 197 §5.3.2): subtract 0x63, then the inverse bit matrix.
static void inv_affine(struct planes *s) {
  uint64_t q0 = ~s->p[0], q1 = ~s->p[1], q2 = s->p[2], q3 = s->p[3];
  uint64_t q4 = s->p[4], q5 = ~s->p[5], q6 = ~s->p[6], q7 = s->p[7];
  s->p[7] = q1 ^ q4 ^ q6;
  s->p[6] = q0 ^ q3 ^ q5;
  s->p[5] = q7 ^ q2 ^ q4;
  s->p[4] = q6 ^ q1 ^ q3;
  s->p[3] = q5 ^ q0 ^ q2;
  s->p[2] = q4 ^ q7 ^ q1;
  s->p[1] = q3 ^ q6 ^ q0;
  s->p[0] = q2 ^ q5 ^ q7;
}

// S = A∘I, so I∘A⁻¹ = A⁻¹∘S∘A⁻¹: the forward circuit between two inverse affine maps.
static void inv_sub_bytes(struct planes *s) {
  inv_affine(s);
  sub_bytes(s);
  inv_affine(s);
}

#define ROW(r) (UINT64_C(0x1111111111111111) << (r))

// Row r rotates left by r columns; `left` columns of 4 bits each, for all four blocks.
static void shift_rows(struct planes *s) {
  for (int k = 0; k < 8; k++) {
    uint64_t x = s->p[k];
    s->p[k] = (x & ROW(0)) | (x >> 4 & UINT64_C(0x0222022202220222)) | (x << 12 & UINT64_C(0x2000200020002000)) |
              (x >> 8 & UINT64_C(0x0044004400440044)) | (x << 8 & UINT64_C(0x4400440044004400)) |
              (x >> 12 & UINT64_C(0x0008000800080008)) | (x << 4 & UINT64_C(0x8880888088808880));
  }
}

static void inv_shift_rows(struct planes *s) {
  for (int k = 0; k < 8; k++) {
    uint64_t x = s->p[k];
    s->p[k] = (x & ROW(0)) | (x << 4 & UINT64_C(0x2220222022202220)) | (x >> 12 & UINT64_C(0x0002000200020002)) |
              (x >> 8 & UINT64_C(0x0044004400440044)) | (x << 8 & UINT64_C(0x4400440044004400)) |
              (x << 12 & UINT64_C(0x8000800080008000)) | (x >> 4 & UINT64_C(0x0888088808880888));
  }
}

// Every byte becomes the one `1` or `2` rows below it in its column.
static uint64_t below1(uint64_t x) {
  return (x >> 1 & UINT64_C(0x7777777777777777)) | (x << 3 & UINT64_C(0x8888888888888888));
}

static uint64_t below2(uint64_t x) {
  return (x >> 2 & UINT64_C(0x3333333333333333)) | (x << 2 & UINT64_C(0xcccccccccccccccc));
}

// Multiplication of every byte by x modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197 §4.2.1).
static struct planes xtime(const struct planes *a) {
  const uint64_t *p = a->p;
  return (struct planes){{p[7], p[0] ^ p[7], p[1], p[2] ^ p[7], p[3] ^ p[7], p[4], p[5], p[6]}};
}

static void mix_columns(struct planes *s) {
  struct planes one, sum; // the byte below; a byte and the one below it
  for (int k = 0; k < 8; k++) {
    one.p[k] = below1(s->p[k]);
    sum.p[k] = s->p[k] ^ one.p[k];
  }
  struct planes twice = xtime(&sum);
  for (int k = 0; k < 8; k++)
    s->p[k] = twice.p[k] ^ one.p[k] ^ below2(sum.p[k]);
}

// InvMixColumns is MixColumns after a(x) ^= 4·(a(x) ^ the byte two below): {0e,0b,0d,09} = {02,03,01,01}∘{05,00,04,00}.
static void inv_mix_columns(struct planes *s) {
  struct planes d;
  for (int k = 0; k < 8; k++)
    d.p[k] = s->p[k] ^ below2(s->p[k]);
  d = xtime(&d);
  d = xtime(&d);
  for (int k = 0; k < 8; k++)
    s->p[k] ^= d.p[k];
  mix_columns(s);
}

static void add_key(struct planes *s, const struct planes *k) {
  for (int i = 0; i < 8; i++)
    s->p[i] ^= k->p[i];
}

// 8×8 bit matrix transposition: bit c of byte r becomes bit r of byte c.
static uint64_t transpose_bits(uint64_t x) {
  uint64_t t = (x ^ x >> 7) & UINT64_C(0x00aa00aa00aa00aa);
  x ^= t ^ t << 7;
  t = (x ^ x >> 14) & UINT64_C(0x0000cccc0000cccc);
  x ^= t ^ t << 14;
  t = (x ^ x >> 28) & UINT64_C(0x00000000f0f0f0f0);
  return x ^ t ^ t << 28;
}

static void slice(struct planes *out, const uint8_t in[16 * LANES]) {
  *out = (struct planes){0};
  for (int w = 0; w < 8; w++) {
    uint64_t x;
    memcpy(&x, in + 8 * w, 8);
    x = transpose_bits(x);
    for (int k = 0; k < 8; k++)
      out->p[k] |= (x >> 8 * k & 0xff) << 8 * w;
  }
}

static void unslice(uint8_t out[16 * LANES], const struct planes *s) {
  for (int w = 0; w < 8; w++) {
    uint64_t x = 0;
    for (int k = 0; k < 8; k++)
      x |= (s->p[k] >> 8 * w & 0xff) << 8 * k;
    x = transpose_bits(x);
    memcpy(out + 8 * w, &x, 8);
  }
}

// Round keys, sliced, the same in all four blocks.
struct schedule {
  struct planes rk[11];
};

static void schedule_init(struct schedule *s, const uint8_t rk[11][16]) {
  for (int r = 0; r < 11; r++) {
    uint8_t four[16 * LANES];
    for (int b = 0; b < LANES; b++)
      memcpy(four + 16 * b, rk[r], 16);
    slice(&s->rk[r], four);
    explicit_bzero(four, sizeof four);
  }
}

static void encrypt4(const struct schedule *k, uint8_t x[16 * LANES]) {
  struct planes s;
  slice(&s, x);
  add_key(&s, &k->rk[0]);
  for (int r = 1; r < 10; r++) {
    sub_bytes(&s);
    shift_rows(&s);
    mix_columns(&s);
    add_key(&s, &k->rk[r]);
  }
  sub_bytes(&s);
  shift_rows(&s);
  add_key(&s, &k->rk[10]);
  unslice(x, &s);
}

// The equivalent inverse cipher, FIPS 197 §5.3.5, with the keys of `dec`.
static void decrypt4(const struct schedule *k, uint8_t x[16 * LANES]) {
  struct planes s;
  slice(&s, x);
  add_key(&s, &k->rk[0]);
  for (int r = 1; r < 10; r++) {
    inv_sub_bytes(&s);
    inv_shift_rows(&s);
    inv_mix_columns(&s);
    add_key(&s, &k->rk[r]);
  }
  inv_sub_bytes(&s);
  inv_shift_rows(&s);
  add_key(&s, &k->rk[10]);
  unslice(x, &s);
}

// FIPS 197 §5.2, key expansion, and §5.3.5 for the decryption keys. Four S-boxes go through the circuit at once.
static void ref_key_init(struct aes_key *out, const uint8_t key[16]) {
  uint8_t rcon = 1;
  memcpy(out->enc[0], key, 16);
  for (int r = 1; r < 11; r++) {
    const uint8_t *prev = out->enc[r - 1];
    uint8_t *rk = out->enc[r];
    uint8_t word[16 * LANES] = {prev[13], prev[14], prev[15], prev[12]};
    struct planes s;
    slice(&s, word);
    sub_bytes(&s);
    unslice(word, &s);
    word[0] ^= rcon;
    rcon = (uint8_t)(rcon << 1 ^ (0x1b & -(rcon >> 7)));
    for (int i = 0; i < 16; i++)
      rk[i] = (uint8_t)(prev[i] ^ (i < 4 ? word[i] : rk[i - 4]));
    explicit_bzero(word, sizeof word);
  }
  memcpy(out->dec[0], out->enc[10], 16);
  memcpy(out->dec[10], out->enc[0], 16);
  for (int r = 1; r < 10; r++) {
    uint8_t four[16 * LANES] = {0};
    memcpy(four, out->enc[10 - r], 16);
    struct planes s;
    slice(&s, four);
    inv_mix_columns(&s);
    unslice(four, &s);
    memcpy(out->dec[r], four, 16);
    explicit_bzero(four, sizeof four);
  }
}

static void xor16(uint8_t *d, const uint8_t *a, const uint8_t *b) {
  for (int i = 0; i < 16; i++)
    d[i] = a[i] ^ b[i];
}

// Four lanes side by side; a lane that ends takes the next job, and one without a job runs along unseen.
static void ref_cbc_encrypt(const struct aes_key *key, const uint8_t iv[16], const struct aes_cbc_seg *segs,
                            size_t num, struct aes_ahead *ahead) {
  (void)ahead;
  struct schedule k;
  schedule_init(&k, key->enc);
  struct aes_jobs it;
  aes_jobs_init(&it, segs, num);
  struct aes_job lane[LANES] = {0};
  uint8_t x[16 * LANES] = {0};
  for (;;) {
    unsigned live = 0;
    for (int l = 0; l < LANES; l++) {
      if (!lane[l].blocks && aes_jobs_next(&it, &lane[l]))
        memcpy(x + 16 * l, iv, 16);
      if (!lane[l].blocks)
        continue;
      xor16(x + 16 * l, x + 16 * l, lane[l].src);
      live++;
    }
    if (!live)
      break;
    encrypt4(&k, x);
    for (int l = 0; l < LANES; l++) {
      if (!lane[l].blocks)
        continue;
      memcpy(lane[l].dst, x + 16 * l, 16);
      lane[l].src += 16;
      lane[l].dst += 16;
      lane[l].blocks--;
    }
  }
  explicit_bzero(&k, sizeof k);
}

static void decrypt_chain(const struct schedule *k, uint8_t iv[16], uint8_t *dst, const uint8_t *src, size_t blocks) {
  while (blocks) {
    size_t n = blocks < LANES ? blocks : LANES;
    uint8_t in[16 * LANES] = {0}, x[16 * LANES];
    memcpy(in, src, 16 * n);
    memcpy(x, in, sizeof x);
    decrypt4(k, x);
    for (size_t i = 0; i < n; i++)
      xor16(dst + 16 * i, x + 16 * i, i ? in + 16 * (i - 1) : iv);
    memcpy(iv, in + 16 * (n - 1), 16);
    src += 16 * n;
    dst += 16 * n;
    blocks -= n;
  }
}

static void ref_cbc_decrypt(const struct aes_key *key, const uint8_t iv[16], const struct aes_cbc_seg *segs,
                            size_t num) {
  struct schedule k;
  schedule_init(&k, key->dec);
  struct aes_jobs it;
  struct aes_job job = {0};
  aes_jobs_init(&it, segs, num);
  while (aes_jobs_next(&it, &job)) {
    uint8_t chain[16];
    memcpy(chain, iv, 16);
    decrypt_chain(&k, chain, job.dst, job.src, job.blocks);
  }
  explicit_bzero(&k, sizeof k);
}

static void ref_cbc_chain(const struct aes_key *key, bool encrypt, uint8_t iv[16], uint8_t *dst, const uint8_t *src,
                          size_t num_blocks) {
  struct schedule k;
  schedule_init(&k, encrypt ? key->enc : key->dec);
  if (!encrypt) {
    decrypt_chain(&k, iv, dst, src, num_blocks);
  } else {
    uint8_t x[16 * LANES] = {0};
    memcpy(x, iv, 16);
    for (size_t i = 0; i < num_blocks; i++) {
      xor16(x, x, src + 16 * i);
      encrypt4(&k, x);
      memcpy(dst + 16 * i, x, 16);
    }
    memcpy(iv, x, 16);
  }
  explicit_bzero(&k, sizeof k);
}

static void ref_ecb_encrypt(const struct aes_key *key, uint8_t *dst, const uint8_t *src, size_t num_blocks) {
  struct schedule k;
  schedule_init(&k, key->enc);
  uint8_t x[16 * LANES] = {0}; // key stream where the blocks are counters
  while (num_blocks) {
    size_t n = num_blocks < LANES ? num_blocks : LANES;
    memcpy(x, src, 16 * n);
    encrypt4(&k, x);
    memcpy(dst, x, 16 * n);
    src += 16 * n;
    dst += 16 * n;
    num_blocks -= n;
  }
  explicit_bzero(&k, sizeof k);
  explicit_bzero(x, sizeof x);
}

// One list of counter blocks over all samples, encrypted four at a time wherever samples end.
static void ref_ctr(const struct aes_key *key, const struct aes_ctr_seg *segs, size_t num, struct aes_ahead *ahead) {
  (void)ahead;
  struct schedule k;
  schedule_init(&k, key->enc);
  uint8_t x[16 * LANES] = {0};
  struct aes_job part[LANES]; // `blocks` holds bytes here
  unsigned n = 0;
  for (size_t s = 0; s < num; s++) {
    const uint8_t *src = segs[s].src;
    uint8_t *dst = segs[s].dst;
    for (size_t i = 0; i < segs[s].num; i++) {
      uint8_t counter[16];
      aes_ctr_first(counter, &segs[s], i);
      for (uint32_t left = aes_ctr_size(&segs[s], i); left;) {
        uint32_t piece = left < 16 ? left : 16;
        memcpy(x + 16 * n, counter, 16);
        part[n++] = (struct aes_job){src, dst, piece};
        if (n == LANES) {
          encrypt4(&k, x);
          aes_xor_parts(part, x, n);
          n = 0;
        }
        aes_counter_add128(counter, 1);
        src += piece;
        dst += piece;
        left -= piece;
      }
    }
  }
  if (n) {
    encrypt4(&k, x);
    aes_xor_parts(part, x, n);
  }
  explicit_bzero(&k, sizeof k);
  explicit_bzero(x, sizeof x);
}

static bool always(void) {
  return true;
}

const struct aes_ops aes_ops_ref = {
    .name = "ref",
    .usable = always,
    .key_init = ref_key_init,
    .cbc_encrypt = ref_cbc_encrypt,
    .cbc_decrypt = ref_cbc_decrypt,
    .ctr = ref_ctr,
    .cbc_chain = ref_cbc_chain,
    .ecb_encrypt = ref_ecb_encrypt,
};
