#include <criterion/criterion.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "base/writer.h"
#include "cenc/plan.h"

static const uint8_t key[16] = "0123456789abcdef";

// The rule as documented, spelled out byte for byte.
Test(iv, cenc_base_is_the_documented_hmac) {
  uint8_t text[17 + 32 + 4], mac[32], iv[8], digest[32];
  unsigned len = 32;
  for (uint8_t i = 0; i < 32; i++)
    digest[i] = i;
  memcpy(text, "sluice cenc iv v1", 17);
  memcpy(text + 17, digest, 32);
  memcpy(text + 49, "\0\1\2\3", 4);
  HMAC(EVP_sha256(), key, 16, text, sizeof text, mac, &len);
  cenc_iv_base(iv, key, digest, 0x00010203);
  cr_assert_arr_eq(iv, mac, 8);
}

Test(iv, cbcs_is_the_documented_hmac) {
  uint8_t mac[32], iv[16];
  unsigned len = 32;
  HMAC(EVP_sha256(), key, 16, (const uint8_t *)"sluice cbcs iv v1", 17, mac, &len);
  cbcs_iv(iv, key);
  cr_assert_arr_eq(iv, mac, 16);
}

// Entity tags of versions that render other bytes differ: both versions are of what is hashed. Numbers are big-endian, those of
// the inner digest as in memory.
Test(iv, plan_tag_is_of_all_that_the_bytes_depend_on) {
  const uint8_t pssh[] = "pssh";
  const uint32_t first[] = {0, 2, 5};
  struct ix_header h = {.track_id = 7, .identity = {.digest = {1, 2, 3}}};
  struct track_index ix = {.h = &h};
  struct ix_segments segs = {2, first};
  struct protection prot = {.scheme = SCHEME_CBCS, .kid = {4}, .iv = {5}, .no_senc = true, .pssh = bytes_of(pssh, 4)};
  struct plan p = {.ix = &ix, .segs = &segs, .prot = &prot, .total_len = 0x123456789a};
  uint8_t inner[20], digest[32], text[18 + 8 + 32 + 4 + 8 + 4 + 1 + 32 + 32], mac[32], tag[16];
  unsigned len = 32;
  memcpy(prot.key.enc[0], key, 16);
  memcpy(inner, (uint64_t[]){4}, 8);
  memcpy(inner + 8, pssh, 4);
  memcpy(inner + 12, first, 8);
  SHA256(inner, sizeof inner, digest);
  struct writer w = wr_of(text, sizeof text);
  wr_str(&w, "sluice plan tag v1");
  wr_u32(&w, 3); // PLAN_VERSION
  wr_u32(&w, IX_VERSION);
  wr_raw(&w, h.identity.digest, 32);
  wr_u32(&w, 7);
  wr_u64(&w, 0x123456789a);
  wr_u32(&w, SCHEME_CBCS);
  wr_u8(&w, 1);
  wr_raw(&w, prot.kid, 16);
  wr_raw(&w, prot.iv, 16);
  wr_raw(&w, digest, 32);
  cr_assert(wr_ok(&w) && w.n == sizeof text);
  HMAC(EVP_sha256(), key, 16, text, sizeof text, mac, &len);
  plan_tag(&p, tag);
  cr_assert_arr_eq(tag, mac, 16);
  // The same of cenc with 16-byte IVs.
  text[18 + 8 + 32 + 4 + 8 + 3] = SCHEME_CENC;
  text[18 + 8 + 32 + 4 + 8 + 4] = 2;
  prot.scheme = SCHEME_CENC;
  prot.no_senc = false;
  prot.wide_iv = true;
  HMAC(EVP_sha256(), key, 16, text, sizeof text, mac, &len);
  plan_tag(&p, tag);
  cr_assert_arr_eq(tag, mac, 16);
}
