#include <criterion/criterion.h>
#include <openssl/hmac.h>

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
