// BoringSSL's low-level functions, one call per sample. Built as a shared object that exports nothing but the
// table below, so that its libcrypto and OpenSSL's live in one process.
#include <openssl/aes.h>

#include "bench.h"

static AES_KEY expanded;

static uint8_t iv0[16];

static bool init(const uint8_t key[16], const uint8_t iv[16]) {
  memcpy(iv0, iv, 16);
  return AES_set_encrypt_key(key, 128, &expanded) == 0;
}

static void cbc(const struct workload *w, const struct list *l) {
  for (uint32_t i = 0; i < l->num; i++) {
    uint8_t iv[16];
    uint32_t off = l->offsets[i], whole = l->sizes[i] & ~15u;
    memcpy(iv, iv0, 16);
    AES_cbc_encrypt(w->src + off, w->dst + off, whole, &expanded, iv, AES_ENCRYPT);
    memcpy(w->dst + off + whole, w->src + off + whole, l->sizes[i] - whole);
  }
}

static void ctr(const struct workload *w, const struct list *l) {
  for (uint32_t i = 0; i < l->num; i++) {
    uint8_t iv[16] = {0}, stream[16];
    unsigned used = 0;
    store_be64(iv, 1000 + i);
    AES_ctr128_encrypt(w->src + l->offsets[i], w->dst + l->offsets[i], l->sizes[i], &expanded, iv, stream, &used);
  }
}

__attribute__((visibility("default"))) const struct peer peer_boringssl = {"boringssl", init, cbc, ctr};
