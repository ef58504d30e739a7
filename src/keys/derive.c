// Derivation of content keys from a master secret: HKDF-SHA256 (RFC 5869), one expansion for each purpose.
//   PRK  = HKDF-Extract(salt "sluice keys v1", secret)
//   info = "sluice kid v1" | "sluice key v1" | "sluice iv v1", then asset, epoch, scheme, label, where text is
//          be32(length) ‖ bytes and the epoch is be32
// The scheme is part of the input, so that no key is ever derived for two of them. Test vectors: docs/keys.md.
#include "keys/derive.h"

#include <openssl/digest.h>
#include <openssl/hkdf.h>
#include <openssl/mem.h>
#include <openssl/sha.h>

bool keys_equal(const void *a, const void *b, size_t n) { return CRYPTO_memcmp(a, b, n) == 0; }

bool keys_equal_text(struct bytes a, struct bytes b) {
  uint8_t x[SHA256_DIGEST_LENGTH], y[SHA256_DIGEST_LENGTH];
  SHA256(a.p, a.n, x);
  SHA256(b.p, b.n, y);
  return keys_equal(x, y, sizeof x);
}

void keys_digest_more(uint8_t digest[32], struct bytes more) {
  SHA256_CTX h;
  uint64_t n = more.n;
  SHA256_Init(&h);
  SHA256_Update(&h, digest, SHA256_DIGEST_LENGTH);
  SHA256_Update(&h, &n, sizeof n);
  SHA256_Update(&h, more.p, more.n);
  SHA256_Final(digest, &h);
  OPENSSL_cleanse(&h, sizeof h);
}

static void text(struct writer *w, struct bytes b) {
  wr_u32(w, (uint32_t)b.n);
  wr_bytes(w, b);
}

// Purpose and query as one byte string; at most PURPOSE_MAX + the limits of a query.
enum { INFO_MAX = 32 + 4 + KEYS_MAX_ASSET + 4 + 4 + 8 + 4 + KEYS_MAX_LABEL };

static struct bytes info_of(uint8_t buf[INFO_MAX], const char *purpose, const struct key_query *q) {
  struct writer w = wr_of(buf, INFO_MAX);
  wr_str(&w, purpose);
  text(&w, q->asset);
  wr_u32(&w, q->epoch);
  text(&w, bytes_str(scheme_name(q->scheme)));
  text(&w, q->label);
  return bytes_of(buf, w.n);
}

bool key_query_ok(const struct key_query *q) {
  return q->asset.n && q->asset.n <= KEYS_MAX_ASSET && q->label.n <= KEYS_MAX_LABEL && q->epoch &&
         (q->scheme == SCHEME_CENC || q->scheme == SCHEME_CBCS);
}

void derive_prk(uint8_t prk[32], struct bytes secret) {
  static const char salt[] = "sluice keys v1";
  size_t n;
  int ok = HKDF_extract(prk, &n, EVP_sha256(), secret.p, secret.n, (const uint8_t *)salt, sizeof salt - 1);
  (void)ok; // fails for unknown digests only
}

static void expand(uint8_t out[16], const uint8_t prk[32], const char *purpose, const struct key_query *q) {
  uint8_t buf[INFO_MAX];
  struct bytes info = info_of(buf, purpose, q);
  int ok = HKDF_expand(out, 16, EVP_sha256(), prk, 32, info.p, info.n);
  (void)ok; // fails for more than 255 blocks only
}

// A version 8 UUID (RFC 9562 §5.8): the KID looks like any other to systems that insist on UUIDs.
static void uuid8(uint8_t id[16]) {
  id[6] = (uint8_t)(0x80 | (id[6] & 0x0f));
  id[8] = (uint8_t)(0x80 | (id[8] & 0x3f));
}

void derive_record(struct key_record *out, const uint8_t prk[32], const struct key_query *q) {
  *out = (struct key_record){.scheme = q->scheme, .epoch = q->epoch, .asset = q->asset, .label = q->label};
  expand(out->kid, prk, "sluice kid v1", q);
  uuid8(out->kid);
  expand(out->key, prk, "sluice key v1", q);
  if (q->scheme == SCHEME_CBCS) {
    expand(out->iv, prk, "sluice iv v1", q);
    out->has_iv = true;
  }
}

void keys_kid(uint8_t out[16], const struct key_query *q) {
  uint8_t buf[INFO_MAX], digest[SHA256_DIGEST_LENGTH];
  struct bytes info = info_of(buf, "sluice public kid v1", q);
  SHA256(info.p, info.n, digest);
  memcpy(out, digest, 16);
  uuid8(out);
}
