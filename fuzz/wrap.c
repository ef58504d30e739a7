// The files of the master secret: the input is read as a key encryption key, as a wrapped secret, and as a secret that is
// wrapped, unwrapped, and damaged. Source: RFC 5649 (AES key wrap with padding); keys/wrap.h (the line of text).
#include "base/text.h"
#include "keys/wrap.h"
#include "fuzz.h"

static const uint8_t kek[KEK_BYTES] = "thirty-two bytes of a wrapping k";

static void check_kek(struct bytes file) {
  uint8_t out[KEK_BYTES], again[KEK_BYTES], hex[2 * KEK_BYTES];
  struct diag d = {0};
  enum err e = kek_read(out, file, &d);
  if (e) {
    MUST(e == ERR_ARGUMENT && d.err == e);
    return;
  }
  struct writer w = wr_of(hex, sizeof hex);
  hex_write(&w, bytes_of(out, sizeof out));
  MUST(!kek_read(again, bytes_of(hex, sizeof hex), &d) && !memcmp(out, again, sizeof out));
}

static void check_wrapped(struct bytes file) {
  static uint8_t out[KEYS_MAX_SECRET], again[KEYS_MAX_SECRET], text[WRAPPED_MAX_FILE];
  size_t n = 0, num_again = 0;
  struct diag d = {0};
  memset(out, 0xa5, sizeof out);
  enum err e = secret_unwrap(out, &n, file, kek, &d);
  if (e) {
    MUST((e == ERR_SYNTAX || e == ERR_CHECKSUM || e == ERR_ARGUMENT) && d.err == e && d.at <= file.n);
    for (size_t i = 0; i < sizeof out; i++)
      MUST(out[i] == 0xa5);
    MUST(n == 0);
    return;
  }
  MUST(secret_is_wrapped(file) && n >= KEYS_MIN_SECRET && n <= KEYS_MAX_SECRET);
  struct writer w = wr_of(text, sizeof text);
  MUST(!secret_wrap(&w, bytes_of(out, n), kek, &d) && wr_ok(&w));
  MUST(!secret_unwrap(again, &num_again, bytes_of(text, w.n), kek, &d) && n == num_again && !memcmp(out, again, n));
}

static void check_wrapping(struct bytes secret) {
  static uint8_t out[KEYS_MAX_SECRET], text[WRAPPED_MAX_FILE];
  size_t n = 0;
  struct diag d = {0};
  struct writer w = wr_of(text, sizeof text);
  enum err e = secret_wrap(&w, secret, kek, &d);
  if (secret.n < KEYS_MIN_SECRET || secret.n > KEYS_MAX_SECRET) {
    MUST(e == ERR_ARGUMENT && w.n == 0);
    return;
  }
  MUST(!e && wr_ok(&w) && secret_is_wrapped(bytes_of(text, w.n)));
  MUST(!secret_unwrap(out, &n, bytes_of(text, w.n), kek, &d) && bytes_eq(bytes_of(out, n), secret));
  // Another letter of the base64, or another KEK, and nothing comes out.
  size_t from = w.n / 2;
  text[from] = text[from] == 'A' ? 'B' : 'A';
  MUST(secret_unwrap(out, &n, bytes_of(text, w.n), kek, &d));
  uint8_t other[KEK_BYTES];
  memcpy(other, kek, sizeof other);
  other[secret.p[0] % KEK_BYTES] ^= 1;
  w = wr_of(text, sizeof text);
  MUST(!secret_wrap(&w, secret, kek, &d) && secret_unwrap(out, &n, bytes_of(text, w.n), other, &d) == ERR_CHECKSUM);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct bytes in = bytes_of(data, size);
  check_kek(in);
  check_wrapped(in);
  check_wrapping(in);
  return 0;
}
