// For kernels with registers of one block: CBC decryption, which finds independent blocks within a sample, single chains,
// and blocks on their own. rounds_narrow.h comes first; of blocks it takes load and store.
#pragma once

enum { BLOCKS = 8 }; // in flight where they are independent

INLINE void decrypt_group(const struct aes_key *k, vec iv, uint8_t *dst, const uint8_t *src, const int n) {
  vec c[BLOCKS], x[BLOCKS], first = v_key(k->dec[0]);
  UNROLL for (int i = 0; i < n; i++) {
    c[i] = load(src + 16 * i);
    x[i] = v_open(c[i], first);
  }
  inv_rounds(k->dec, x, n);
  UNROLL for (int i = 0; i < n; i++)
    store(dst + 16 * i, v_xor(x[i], i ? c[i - 1] : iv));
}

// Returns the last ciphertext block.
static vec decrypt_chain(const struct aes_key *k, vec iv, uint8_t *dst, const uint8_t *src, size_t blocks) {
  for (; blocks >= BLOCKS; blocks -= BLOCKS, src += 16 * BLOCKS, dst += 16 * BLOCKS) {
    vec next = load(src + 16 * BLOCKS - 16);
    decrypt_group(k, iv, dst, src, BLOCKS);
    iv = next;
  }
  for (; blocks; blocks--, src += 16, dst += 16) {
    vec next = load(src);
    decrypt_group(k, iv, dst, src, 1);
    iv = next;
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
  vec x = load(iv);
  if (!encrypt) {
    store(iv, decrypt_chain(k, x, dst, src, num_blocks));
    return;
  }
  for (; num_blocks; num_blocks--, src += 16, dst += 16) {
    x = v_close(x, load(src), v_key(k->enc[0]));
    rounds(k->enc, &x, 1);
    store(dst, x);
  }
  store(iv, x);
}

INLINE void encrypt_group(const struct aes_key *k, uint8_t *dst, const uint8_t *src, const int n) {
  vec x[BLOCKS], first = v_key(k->enc[0]);
  UNROLL for (int i = 0; i < n; i++)
    x[i] = v_open(load(src + 16 * i), first);
  rounds(k->enc, x, n);
  UNROLL for (int i = 0; i < n; i++)
    store(dst + 16 * i, x[i]);
}

static void ecb_encrypt(const struct aes_key *k, uint8_t *dst, const uint8_t *src, size_t num_blocks) {
  for (; num_blocks >= BLOCKS; num_blocks -= BLOCKS, src += 16 * BLOCKS, dst += 16 * BLOCKS)
    encrypt_group(k, dst, src, BLOCKS);
  for (; num_blocks; num_blocks--, src += 16, dst += 16)
    encrypt_group(k, dst, src, 1);
}
