// OpenSSL 3 through EVP, one operation per sample: its only interface for this.
#include <openssl/evp.h>
#include <stdlib.h>

#include "bench.h"

static EVP_CIPHER_CTX *cbc_ctx, *ctr_ctx;

static uint8_t iv0[16];

static bool init(const uint8_t key[16], const uint8_t iv[16]) {
  memcpy(iv0, iv, 16);
  cbc_ctx = EVP_CIPHER_CTX_new();
  ctr_ctx = EVP_CIPHER_CTX_new();
  return cbc_ctx && ctr_ctx && EVP_EncryptInit_ex(cbc_ctx, EVP_aes_128_cbc(), NULL, key, iv0) &&
         EVP_CIPHER_CTX_set_padding(cbc_ctx, 0) &&
         EVP_EncryptInit_ex(ctr_ctx, EVP_aes_128_ctr(), NULL, key, iv0);
}

static void cbc(const struct workload *w, const struct list *l) {
  for (uint32_t i = 0; i < l->num; i++) {
    int n;
    uint32_t off = l->offsets[i], whole = l->sizes[i] & ~15u;
    EVP_EncryptInit_ex(cbc_ctx, NULL, NULL, NULL, iv0);
    EVP_EncryptUpdate(cbc_ctx, w->dst + off, &n, w->src + off, (int)whole);
    memcpy(w->dst + off + whole, w->src + off + whole, l->sizes[i] - whole);
  }
}

static void ctr(const struct workload *w, const struct list *l) {
  uint8_t iv[16] = {0};
  for (uint32_t i = 0; i < l->num; i++) {
    int n;
    store_be64(iv, 1000 + i);
    EVP_EncryptInit_ex(ctr_ctx, NULL, NULL, NULL, iv);
    EVP_EncryptUpdate(ctr_ctx, w->dst + l->offsets[i], &n, w->src + l->offsets[i], l->sizes[i]);
  }
}

const struct peer peer_openssl = {"openssl-evp", init, cbc, ctr};
