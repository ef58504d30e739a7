#include "base/text.h"
#include "derived.h"
#include "keys/wrap.h"

#include <criterion/criterion.h>
#include <openssl/aes.h>
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
    cr_assert_eq(derived(&r, bytes_of(secret, 32), &q), ERR_OK);
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
  cr_assert_eq(derived(&a, secret, &base), ERR_OK);
  for (size_t i = 0; i < 4; i++) {
    cr_assert_eq(derived(&b, secret, &other[i]), ERR_OK);
    cr_assert_neq(memcmp(a.key, b.key, 16), 0, "%zu", i);
    cr_assert_neq(memcmp(a.kid, b.kid, 16), 0, "%zu", i);
    uint8_t ka[16], kb[16];
    keys_kid(ka, &base);
    keys_kid(kb, &other[i]);
    cr_assert_neq(memcmp(ka, kb, 16), 0, "%zu", i);
  }
  cr_assert_eq(derived(&b, BYTES_LIT("0123456789abcde"), &base), ERR_ARGUMENT);
  static uint8_t most[KEYS_MAX_SECRET + 1], label[KEYS_MAX_LABEL + 1];
  cr_assert_eq(derived(&b, bytes_of(most, KEYS_MAX_SECRET), &base), ERR_OK);
  cr_assert_eq(derived(&b, bytes_of(most, KEYS_MAX_SECRET + 1), &base), ERR_ARGUMENT);
  base.label = bytes_of(label, KEYS_MAX_LABEL);
  cr_assert_eq(derived(&b, secret, &base), ERR_OK);
  base.label.n++;
  cr_assert_eq(derived(&b, secret, &base), ERR_ARGUMENT);
  base.label.n = 1;
  base.epoch = 0;
  cr_assert_eq(derived(&b, secret, &base), ERR_ARGUMENT);
}

static const uint8_t kek[KEK_BYTES] = "a key encryption key, of 32 byte";

// The line of a secret of `n` bytes, whatever its length, by libcrypto alone.
static struct bytes wrapped(char line[2048], const char *algorithm, size_t n) {
  static const uint8_t secret[KEYS_MAX_SECRET + 1] = "0123456789abcdef";
  uint8_t raw[KEYS_MAX_SECRET + 17];
  size_t len;
  AES_KEY key;
  cr_assert_eq(AES_set_encrypt_key(kek, 256, &key), 0);
  cr_assert(AES_wrap_key_padded(&key, raw, &len, sizeof raw, secret, n));
  struct writer w = wr_of(line, 2048);
  wr_str(&w, "sluice-wrapped-secret ");
  wr_str(&w, algorithm);
  base64_write(&w, bytes_of(raw, len));
  wr_str(&w, "\n");
  cr_assert(wr_ok(&w));
  return bytes_of(line, w.n);
}

// A wrapped secret (RFC 5649) is as long as one that is not, and its line says how it is wrapped.
Test(wrap, secrets_up_to_their_limits) {
  static const struct {
    const char *algorithm;
    size_t n;
    enum err want;
  } rows[] = {{"A256KWP ", KEYS_MIN_SECRET, ERR_OK},           {"A256KWP ", KEYS_MIN_SECRET - 1, ERR_ARGUMENT},
              {"A256KWP ", KEYS_MAX_SECRET, ERR_OK},           {"A256KWP ", KEYS_MAX_SECRET + 1, ERR_ARGUMENT},
              {"A256GCM ", KEYS_MIN_SECRET, ERR_SYNTAX},       {"", KEYS_MIN_SECRET, ERR_SYNTAX}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char line[2048], again[2048];
    uint8_t secret[KEYS_MAX_SECRET];
    size_t n = 0;
    struct diag diag = {0};
    struct bytes file = wrapped(line, rows[i].algorithm, rows[i].n);
    enum err e = secret_unwrap(secret, &n, file, kek, &diag);
    cr_expect_eq(e, rows[i].want, "row %zu: %s %s", i, err_name(e), diag.what);
    if (e)
      continue;
    cr_expect(n == rows[i].n && memcmp(secret, "0123456789abcdef", KEYS_MIN_SECRET) == 0, "row %zu", i);
    struct writer w = wr_of(again, sizeof again);
    cr_expect(!secret_wrap(&w, bytes_of(secret, n), kek, &diag) && bytes_eq(bytes_of(again, w.n), file), "row %zu", i);
    cr_expect_eq(secret_unwrap(secret, &n, file, (const uint8_t *)"another key encryption key, of 3", &diag), ERR_CHECKSUM, "row %zu", i);
  }
}
