// Inside of net/: where private keys and ticket keys lie.
#pragma once
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

// tls_secret_new takes zeroed memory that is locked and left out of core images; tls_secret_free overwrites it and gives it back.
// NULL: no memory.
void *tls_secret_new(size_t n);
void tls_secret_free(void *p);

// tls_use_key reads a private key in PEM into a context, and signs once: what signing keeps of a key is made then. All of it lies
// in such memory. false: the reason is in the error queue.
bool tls_use_key(SSL_CTX *ctx, const char *file);
