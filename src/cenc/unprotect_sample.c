// One sample, four schemes. Whole samples of cenc and of cbcs without a pattern, which is all audio that is made
// today, go to the kernels in batches; the rest is done where it stands.
#include "cenc/unprotect_parts.h"

#define CC(a, b, c, d) FOURCC(a, b, c, d)

enum { STREAM_BLOCKS = 32 };

void batch_flush(struct batch *b, const struct aes_ops *ops) {
  if (!b->num)
    return;
  if (b->cbc)
    ops->cbc_decrypt(
        b->key, b->cbc_iv,
        &(struct aes_cbc_seg){.src = b->at, .dst = b->at, .lanes = b->lanes, .num_lanes = b->num}, 1);
  else
    ops->ctr(b->key,
             &(struct aes_ctr_seg){.src = b->at,
                                   .dst = b->at,
                                   .sizes32 = b->sizes,
                                   .num = b->num,
                                   .ivs = (const uint8_t(*)[16])b->ivs},
             1, NULL);
  b->num = 0;
}

// batch_add takes samples that lie back to back.
static void batch_add(struct batch *b, const struct aes_ops *ops, bool cbc, uint8_t *at, uint32_t len, const struct sample_crypt *c) {
  bool same = b->num && b->num < BATCH_SAMPLES && b->cbc == cbc && b->key == c->key && b->at + b->len == at &&
              b->len + len <= UINT32_MAX && (!cbc || memcmp(b->cbc_iv, c->iv, 16) == 0);
  if (!same) {
    batch_flush(b, ops);
    b->cbc = cbc;
    b->key = c->key;
    b->at = at;
    b->len = 0;
    memcpy(b->cbc_iv, c->iv, 16);
  }
  b->lanes[b->num] = (struct aes_lane){(uint32_t)b->len, len};
  b->sizes[b->num] = len;
  memcpy(b->ivs[b->num], c->iv, 16);
  b->len += len;
  b->num++;
}

// A CTR stream over the protected bytes of a sample, wherever they are: bytes 8-15 of the counter block count
// blocks and wrap without a carry into bytes 0-7. Source: ISO/IEC 23001-7 §9.3.
struct stream {
  const struct sample_crypt *c;
  const struct aes_ops *ops;
  uint64_t at; // bytes done
};

static void stream_xor(struct stream *s, uint8_t *at, uint64_t len) {
  uint8_t ks[STREAM_BLOCKS * 16];
  while (len) {
    uint64_t block = s->at / 16, skip = s->at % 16;
    for (uint64_t i = 0; i < STREAM_BLOCKS; i++) {
      memcpy(ks + 16 * i, s->c->iv, 8);
      store_be64(ks + 16 * i + 8, load_be64(s->c->iv + 8) + block + i);
    }
    s->ops->ecb_encrypt(s->c->key, ks, ks, STREAM_BLOCKS);
    uint64_t n = sizeof ks - skip < len ? sizeof ks - skip : len;
    for (uint64_t i = 0; i < n; i++)
      at[i] ^= ks[skip + i];
    at += n, len -= n, s->at += n;
  }
}

static bool has_pattern(struct aes_pattern p) { return p.skip != 0; }

// decrypt_range does one protected range: a whole sample, or what one subsample protects. `iv` and `s` carry the
// chain and the counter over to the next range where the scheme says so.
static void decrypt_range(const struct sample_crypt *c, const struct aes_ops *ops, uint8_t *at, uint32_t len, uint8_t iv[16],
                          struct stream *s) {
  struct aes_pattern pattern = c->tenc->pattern;
  struct aes_lane lane = {0, len};
  struct aes_cbc_seg seg = {.src = at, .dst = at, .lanes = &lane, .num_lanes = 1};
  uint32_t blocks = len / 16;
  switch (c->scheme) {
  case CC('c', 'e', 'n', 'c'):
    stream_xor(s, at, len);
    break;
  case CC('c', 'e', 'n', 's'):
    if (has_pattern(pattern)) {
      aes_ctr_pattern(ops, c->key, pattern, (const uint8_t(*)[16])iv, &seg);
      uint32_t cycle = (uint32_t)pattern.crypt + pattern.skip, rest = blocks % cycle;
      store_be64(iv + 8, load_be64(iv + 8) + (uint64_t)(blocks / cycle) * pattern.crypt +
                             (rest < pattern.crypt ? rest : pattern.crypt));
    } else { // whole blocks only, unlike cenc
      stream_xor(s, at, len & ~15u);
    }
    break;
  case CC('c', 'b', 'c', '1'):
    if (blocks)
      ops->cbc_chain(c->key, false, iv, at, at, blocks);
    break;
  default: // cbcs: every range begins anew
    if (has_pattern(pattern))
      aes_cbc_pattern(ops, c->key, false, pattern, c->iv, &seg);
    else
      ops->cbc_decrypt(c->key, c->iv, &seg, 1);
    break;
  }
}

enum err sample_check(uint32_t len, const struct sample_crypt *c) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < c->num_subs; i++)
    sum += (uint64_t)load_be16(c->subs + 6 * (size_t)i) + load_be32(c->subs + 6 * (size_t)i + 2);
  return c->num_subs && sum != len ? ERR_MALFORMED : ERR_OK;
}

enum err sample_decrypt(struct batch *b, const struct aes_ops *ops, uint8_t *at, uint32_t len, const struct sample_crypt *c) {
  if (c->num_subs == 0) {
    bool no_carry = load_be64(c->iv + 8) <= UINT64_MAX - len / 16 - 1; // the kernels count over 128 bits
    if (c->scheme == CC('c', 'e', 'n', 'c') && no_carry) {
      batch_add(b, ops, false, at, len, c);
      return ERR_OK;
    }
    if (c->scheme == CC('c', 'b', 'c', 's') && !has_pattern(c->tenc->pattern)) {
      batch_add(b, ops, true, at, len, c);
      return ERR_OK;
    }
  }
  uint8_t iv[16];
  memcpy(iv, c->iv, 16);
  struct stream s = {.c = c, .ops = ops};
  if (c->num_subs == 0) {
    decrypt_range(c, ops, at, len, iv, &s);
    return ERR_OK;
  }
  enum err e = sample_check(len, c);
  if (e)
    return e;
  for (uint32_t i = 0; i < c->num_subs; i++) {
    uint32_t clear = load_be16(c->subs + 6 * (size_t)i), n = load_be32(c->subs + 6 * (size_t)i + 2);
    if (clear > len || n > len - clear) // the sample lay over its own subsamples
      return ERR_MALFORMED;
    at += clear;
    if (n)
      decrypt_range(c, ops, at, n, iv, &s);
    at += n;
    len -= clear + n;
  }
  return ERR_OK;
}
