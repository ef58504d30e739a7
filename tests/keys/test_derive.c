#include "base/text.h"
#include "keys/keys.h"

#include <criterion/criterion.h>
#include <string.h>

// docs/keys.md, test vectors. Computed independently with Python's hmac module (tests/keys/vectors.py).
Test(derive, vectors) {
  static const struct {
    const char *asset, *label, *kid, *key, *iv;
    uint32_t epoch;
    enum scheme scheme;
  } v[] = {
#include "vectors.inc"
  };
  uint8_t secret[32];
  for (int i = 0; i < 32; i++)
    secret[i] = (uint8_t)i;
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
    struct key_record r;
    struct key_query q = {bytes_str(v[i].asset), v[i].epoch, v[i].scheme, bytes_str(v[i].label)};
    uint8_t want[16];
    cr_assert_eq(keys_derive(&r, bytes_of(secret, 32), &q), ERR_OK);
    cr_assert_eq(hex_read(want, 16, bytes_str(v[i].kid)), ERR_OK);
    cr_assert_arr_eq(r.kid, want, 16, "kid %zu", i);
    cr_assert_eq(hex_read(want, 16, bytes_str(v[i].key)), ERR_OK);
    cr_assert_arr_eq(r.key, want, 16, "key %zu", i);
    cr_assert_eq(r.has_iv, v[i].scheme == SCHEME_CBCS);
    if (r.has_iv) {
      cr_assert_eq(hex_read(want, 16, bytes_str(v[i].iv)), ERR_OK);
      cr_assert_arr_eq(r.iv, want, 16, "iv %zu", i);
    }
  }
}

Test(derive, every_part_of_the_query_counts) {
  struct key_record a, b;
  struct bytes secret = BYTES_LIT("0123456789abcdef");
  struct key_query base = {BYTES_LIT("ab"), 1, SCHEME_CBCS, BYTES_LIT("c")}, other[] = {base, base, base, base};
  other[0].asset = BYTES_LIT("a"), other[0].label = BYTES_LIT("bc");
  other[1].epoch = 2;
  other[2].scheme = SCHEME_CENC;
  other[3].label = BYTES_LIT("");
  cr_assert_eq(keys_derive(&a, secret, &base), ERR_OK);
  for (size_t i = 0; i < 4; i++) {
    cr_assert_eq(keys_derive(&b, secret, &other[i]), ERR_OK);
    cr_assert_neq(memcmp(a.key, b.key, 16), 0, "%zu", i);
    cr_assert_neq(memcmp(a.kid, b.kid, 16), 0, "%zu", i);
    uint8_t ka[16], kb[16];
    keys_kid(ka, &base);
    keys_kid(kb, &other[i]);
    cr_assert_neq(memcmp(ka, kb, 16), 0, "%zu", i);
  }
  cr_assert_eq(keys_derive(&b, BYTES_LIT("0123456789abcde"), &base), ERR_ARGUMENT);
  static uint8_t most[KEYS_MAX_SECRET + 1], label[KEYS_MAX_LABEL + 1];
  cr_assert_eq(keys_derive(&b, bytes_of(most, KEYS_MAX_SECRET), &base), ERR_OK);
  cr_assert_eq(keys_derive(&b, bytes_of(most, KEYS_MAX_SECRET + 1), &base), ERR_ARGUMENT);
  base.label = bytes_of(label, KEYS_MAX_LABEL);
  cr_assert_eq(keys_derive(&b, secret, &base), ERR_OK);
  base.label.n++;
  cr_assert_eq(keys_derive(&b, secret, &base), ERR_ARGUMENT);
  base.label.n = 1;
  base.epoch = 0;
  cr_assert_eq(keys_derive(&b, secret, &base), ERR_ARGUMENT);
}
