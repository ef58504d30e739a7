// Known-answer vectors from FIPS 197 (appendices A.1, B, C.1) and NIST SP 800-38A (appendix F), for every operation.
#include <stdio.h>

#include "checkasm/checkasm.h"

static void hex(uint8_t *out, const char *text) {
  for (; text[0]; text += 2) {
    unsigned v;
    sscanf(text, "%2x", &v);
    *out++ = (uint8_t)v;
  }
}

// SP 800-38A, F: the key and the four blocks that its AES-128 examples share.
static const char nist_key[] = "2b7e151628aed2a6abf7158809cf4f3c";
static const char nist_text[] = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
                                "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";
static const char nist_ecb[] = "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf" // F.1.1
                               "43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4";
static const char nist_cbc[] = "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2" // F.2.1
                               "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7";
static const char nist_ctr[] = "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff" // F.5.1
                               "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee";

static void same(struct check *c, const char *what, const uint8_t *got, const char *want, size_t n) {
  uint8_t v[64];
  hex(v, want);
  if (memcmp(got, v, n) != 0) {
    printf("# %s: %s is wrong\n", c->ops->name, what);
    c->failures++;
  }
}

static void fips197(struct check *c) {
  static const struct {
    const char *key, *text, *cipher;
  } v[] = {
      {"2b7e151628aed2a6abf7158809cf4f3c", "3243f6a8885a308d313198a2e0370734", "3925841d02dc09fbdc118597196a0b32"},
      {"000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"},
  };
  for (size_t i = 0; i < 2; i++) {
    uint8_t key[16], text[16], out[16], iv[16] = {0};
    struct aes_key k;
    hex(key, v[i].key);
    hex(text, v[i].text);
    c->ops->key_init(&k, key);
    c->ops->ecb_encrypt(&k, out, text, 1);
    same(c, "FIPS 197 block", out, v[i].cipher, 16);
    c->ops->cbc_chain(&k, false, iv, out, out, 1);
    same(c, "FIPS 197 inverse block", out, v[i].text, 16);
    if (i == 0)
      same(c, "FIPS 197 A.1 last round key", k.enc[10], "d014f9a8c9ee2589e13f0cc8b6630ca6", 16);
    if (i == 0)
      same(c, "FIPS 197 A.1 first round key", k.enc[1], "a0fafe1788542cb123a339392a6c7605", 16);
  }
}

void check_known_answers(struct check *c) {
  fips197(c);
  uint8_t key[16], text[64], out[64], iv[16], chain[16];
  struct aes_key k;
  hex(key, nist_key);
  hex(text, nist_text);
  hex(iv, "000102030405060708090a0b0c0d0e0f");
  c->ops->key_init(&k, key);
  c->ops->ecb_encrypt(&k, out, text, 4);
  same(c, "SP 800-38A F.1.1", out, nist_ecb, 64);

  struct aes_lane lane = {0, 64};
  struct aes_cbc_seg seg = {text, out, &lane, 1};
  c->ops->cbc_encrypt(&k, iv, &seg, 1, NULL);
  same(c, "SP 800-38A F.2.1", out, nist_cbc, 64);
  memcpy(chain, iv, 16);
  c->ops->cbc_chain(&k, true, chain, out, text, 4);
  same(c, "SP 800-38A F.2.1 as a chain", out, nist_cbc, 64);
  aes_cbc_pattern(c->ops, &k, true, (struct aes_pattern){1, 0}, iv, &seg);
  same(c, "SP 800-38A F.2.1 as a pattern", out, nist_cbc, 64);

  seg = (struct aes_cbc_seg){out, out, &lane, 1};
  c->ops->cbc_decrypt(&k, iv, &seg, 1);
  same(c, "SP 800-38A F.2.2", out, nist_text, 64);

  uint8_t counter[1][16];
  uint32_t size = 64;
  hex(counter[0], "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
  struct aes_ctr_seg ctr = {.src = text, .dst = out, .sizes32 = &size, .num = 1, .ivs = counter};
  c->ops->ctr(&k, &ctr, 1, NULL);
  same(c, "SP 800-38A F.5.1", out, nist_ctr, 64);
  ctr.src = out;
  c->ops->ctr(&k, &ctr, 1, NULL);
  same(c, "SP 800-38A F.5.2", out, nist_text, 64);
}

// A textbook key expansion would only repeat the reference: all eleven keys of both directions are compared with it.
void check_key_init(struct check *c) {
  for (int i = 0; i < 1000; i++) {
    uint8_t key[16];
    struct aes_key a, b;
    check_fill(c, key, sizeof key);
    c->ops->key_init(&a, key);
    aes_ops_ref.key_init(&b, key);
    if (memcmp(a.enc, b.enc, sizeof a.enc) != 0 || memcmp(a.dec, b.dec, sizeof a.dec) != 0)
      c->failures++;
  }
  aes_key_wipe(&c->ref_key);
  for (size_t i = 0; i < sizeof c->ref_key; i++)
    if (((const uint8_t *)&c->ref_key)[i])
      c->failures++;
  // the same key again for the sections to come
  uint8_t key[16];
  memcpy(key, c->key.enc[0], 16);
  aes_ops_ref.key_init(&c->ref_key, key);
}
