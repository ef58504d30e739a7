// What is said of certificates when they are loaded: what would make clients refuse them, and what no handshake could carry.
#include "net/tls_set.h"
#include "obs/log.h"
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <time.h>

// The rest of TLS_FLIGHT is for the other messages. A socket that is new takes this at once, too.
enum { FLIGHT_MAX = 40 << 10, RSA_MIN = 2048 };

// What has ended is said again and again (tls_ends.c).
static void look_at_begin(const X509 *cert, const char *file, unsigned n) {
  int64_t from;
  if (ASN1_TIME_to_posix(X509_get0_notBefore(cert), &from) && time(NULL) < from)
    log_line(LOG_WARN, "certificate %s: number %u in it is not valid yet: clients refuse it", file, n);
}

void tls_look_at_chain(const SSL_CTX *ctx, const char *file) {
  X509 *cert = SSL_CTX_get0_certificate(ctx);
  STACK_OF(X509) *chain = NULL;
  look_at_begin(cert, file, 1);
  const EVP_PKEY *key = X509_get0_pubkey(cert);
  if (key && EVP_PKEY_id(key) == EVP_PKEY_RSA && EVP_PKEY_bits(key) < RSA_MIN)
    log_line(LOG_WARN, "certificate %s: its RSA key has %d bits: many clients refuse less than %d", file, EVP_PKEY_bits(key), RSA_MIN);
  if (!SSL_CTX_get0_chain_certs(ctx, &chain))
    return;
  for (size_t i = 0; i < sk_X509_num(chain); i++) {
    X509 *issuer = sk_X509_value(chain, i);
    look_at_begin(issuer, file, (unsigned)i + 2);
    if (X509_check_issued(issuer, cert) != X509_V_OK)
      log_line(LOG_WARN, "certificate %s: number %zu in it is not the issuer of the one before: clients may refuse the chain", file, i + 2);
    cert = issuer;
  }
}

static size_t size_of_chain(const SSL_CTX *ctx) {
  STACK_OF(X509) *chain = NULL;
  int n = i2d_X509(SSL_CTX_get0_certificate(ctx), NULL);
  size_t sum = n > 0 ? (size_t)n : 0;
  if (!SSL_CTX_get0_chain_certs(ctx, &chain))
    return sum;
  for (size_t i = 0; i < sk_X509_num(chain); i++) {
    n = i2d_X509(sk_X509_value(chain, i), NULL);
    sum += n > 0 ? (size_t)n : 0;
  }
  return sum;
}

static size_t size_of_names(const SSL_CTX *ctx) {
  const STACK_OF(X509_NAME) *names = SSL_CTX_get_client_CA_list(ctx);
  size_t sum = 0;
  for (size_t i = 0; i < sk_X509_NAME_num(names); i++) {
    int n = i2d_X509_NAME(sk_X509_NAME_value(names, i), NULL);
    sum += n > 0 ? (size_t)n + 2 : 0;
  }
  return sum;
}

bool tls_fits_flight(const SSL_CTX *ctx, const char *cert, const char *client_ca, char *why, size_t cap) {
  size_t chain = size_of_chain(ctx), names = size_of_names(ctx);
  if (chain + names <= FLIGHT_MAX)
    return true;
  if (chain > FLIGHT_MAX)
    snprintf(why, cap, "certificate %s: %zu bytes with its chain, no handshake has room for more than %d: name less in it, or make several", cert, chain, FLIGHT_MAX);
  else
    snprintf(why, cap, "client authorities %s: the names of all take %zu bytes, beside the certificate %s a handshake has room for %zu: give fewer", client_ca,
             names, cert, FLIGHT_MAX - chain);
  return false;
}
