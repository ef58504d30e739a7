#include "keys/wrap.h"

#include "base/text.h"

#include <openssl/aes.h>

static const char magic[] = "sluice-wrapped-secret ", algorithm[] = "A256KWP ";
enum { MAGIC = sizeof magic - 1, ALGORITHM = sizeof algorithm - 1, WRAPPED_MAX = KEYS_MAX_SECRET + 16 };

bool secret_is_wrapped(struct bytes file) { return file.n > MAGIC && memcmp(file.p, magic, MAGIC) == 0; }

static struct bytes without_line_end(struct bytes b) {
  while (b.n && (b.p[b.n - 1] == '\n' || b.p[b.n - 1] == '\r'))
    b.n--;
  return b;
}

enum err kek_read(uint8_t kek[KEK_BYTES], struct bytes file, struct diag *diag) {
  struct bytes text = without_line_end(file);
  if (file.n == KEK_BYTES)
    memcpy(kek, file.p, KEK_BYTES);
  else if (text.n != (size_t)2 * KEK_BYTES || hex_read(kek, KEK_BYTES, text))
    return diag_say(diag, ERR_ARGUMENT, "a key encryption key is %d bytes, or %d hex digits", KEK_BYTES, 2 * KEK_BYTES);
  return ERR_OK;
}

enum err secret_wrap(struct writer *w, struct bytes secret, const uint8_t kek[KEK_BYTES], struct diag *diag) {
  uint8_t out[WRAPPED_MAX];
  size_t n;
  AES_KEY key;
  if (secret.n < KEYS_MIN_SECRET || secret.n > KEYS_MAX_SECRET)
    return diag_say(diag, ERR_ARGUMENT, "the master secret has %zu bytes: it must have %d to %d", secret.n, KEYS_MIN_SECRET,
                    KEYS_MAX_SECRET);
  bool ok = !AES_set_encrypt_key(kek, 8 * KEK_BYTES, &key) && AES_wrap_key_padded(&key, out, &n, sizeof out, secret.p, secret.n);
  explicit_bzero(&key, sizeof key);
  if (!ok)
    return diag_say(diag, ERR_ARGUMENT, "the secret cannot be wrapped");
  wr_str(w, magic);
  wr_str(w, algorithm);
  base64_write(w, bytes_of(out, n));
  wr_str(w, "\n");
  return ERR_OK;
}

enum err secret_unwrap(uint8_t out[KEYS_MAX_SECRET], size_t *out_len, struct bytes file, const uint8_t kek[KEK_BYTES],
                       struct diag *diag) {
  uint8_t in[WRAPPED_MAX], secret[WRAPPED_MAX];
  size_t n = sizeof in, len = 0;
  AES_KEY key;
  struct bytes text = without_line_end(file);
  if (!secret_is_wrapped(text) || text.n < MAGIC + ALGORITHM || memcmp(text.p + MAGIC, algorithm, ALGORITHM) != 0)
    return diag_say(diag, ERR_SYNTAX, "this is not a secret wrapped with %s", algorithm);
  if (base64_read(in, &n, bytes_of(text.p + MAGIC + ALGORITHM, text.n - MAGIC - ALGORITHM)))
    return diag_set(diag, ERR_SYNTAX, MAGIC + ALGORITHM, "the wrapped secret is not base64");
  bool ok = !AES_set_decrypt_key(kek, 8 * KEK_BYTES, &key) && AES_unwrap_key_padded(&key, secret, &len, sizeof secret, in, n);
  explicit_bzero(&key, sizeof key);
  enum err e = ERR_OK;
  if (!ok)
    e = diag_say(diag, ERR_CHECKSUM, "the wrapped secret was wrapped with another key encryption key, or is damaged");
  else if (len < KEYS_MIN_SECRET || len > KEYS_MAX_SECRET)
    e = diag_say(diag, ERR_ARGUMENT, "the wrapped secret has %zu bytes: it must have %d to %d", len, KEYS_MIN_SECRET,
                 KEYS_MAX_SECRET);
  if (!e) {
    memcpy(out, secret, len);
    *out_len = len;
  }
  explicit_bzero(secret, sizeof secret);
  return e;
}
