// The client's side of TLS: whom to believe, and what to say when one cannot.
#include "net/tls_memory.h"
#include "net/tls_set.h"
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <unistd.h>

const char *tls_system_ca(void) {
  static const char *const files[] = {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                                      "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
    if (!access(files[i], R_OK))
      return files[i];
  return NULL;
}

static bool trust(SSL_CTX *ctx, const struct tls_client_files *f, char *why, size_t cap) {
  const char *ca = f->ca && *f->ca ? f->ca : tls_system_ca();
  if (f->no_verify) {
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    return true;
  }
  if (!ca) {
    snprintf(why, cap, "the system has no bundle of certificate authorities: name a file");
    return false;
  }
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
  return SSL_CTX_load_verify_locations(ctx, ca, NULL) || tls_fail(why, cap, "certificate authorities", ca, TLS_WANT_AUTHORITIES);
}

static bool identify(SSL_CTX *ctx, const struct tls_client_files *f, char *why, size_t cap) {
  if (!f->cert || !*f->cert)
    return true;
  if (!SSL_CTX_use_certificate_chain_file(ctx, f->cert))
    return tls_fail(why, cap, "client certificate", f->cert, TLS_WANT_CHAIN);
  return tls_use_key(ctx, f->key) || tls_fail_key(why, cap, "client key", f->key, f->cert);
}

struct tls_set *tls_set_client(const struct tls_client_files *f, char *why, size_t why_cap) {
  static const uint8_t alpn[] = "\x08http/1.1";
  struct tls_set *s = tls_set_alloc();
  SSL_CTX *ctx = s ? SSL_CTX_new(TLS_client_method()) : NULL;
  snprintf(why, why_cap, ctx ? "TLS cannot be set up" : "TLS: out of memory");
  if (ctx)
    s->ctx[s->num++] = ctx;
  // set_alpn_protos answers 0 for success.
  bool ok = ctx && tls_bind(ctx, s) && SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) && SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) &&
            SSL_CTX_set_strict_cipher_list(ctx, TLS_AES_12 ":" TLS_CHACHA_12) && tls_use_signatures(ctx) && !SSL_CTX_set_alpn_protos(ctx, alpn, 9);
  if (ok) {
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    ok = trust(ctx, f, why, why_cap) && identify(ctx, f, why, why_cap);
  }
  if (ok)
    return s;
  tls_set_free(s);
  return NULL;
}

static bool name_peer(SSL *ssl, const char *host) {
  struct in6_addr a;
  X509_VERIFY_PARAM *p = SSL_get0_param(ssl);
  if (inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1)
    return X509_VERIFY_PARAM_set1_ip_asc(p, host);
  X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return X509_VERIFY_PARAM_set1_host(p, host, strlen(host)) && SSL_set_tlsext_host_name(ssl, host);
}

struct tls_conn *tls_connect(struct tls_set *s, const char *host) {
  SSL *ssl = tls_conn_new(s, s->ctx[0]);
  struct tls_conn *c = (struct tls_conn *)(uintptr_t)ssl;
  if (!ssl)
    return NULL;
  SSL_set_connect_state(ssl);
  if (name_peer(ssl, host))
    return c;
  tls_free(c);
  return NULL;
}

void tls_why(const struct tls_conn *c, char *out, size_t cap) {
  const SSL *ssl = (const SSL *)(uintptr_t)c;
  long verify = SSL_get_verify_result(ssl);
  uint32_t e = ERR_peek_error();
  const char *reason = e ? ERR_reason_error_string(e) : NULL;
  if (verify != X509_V_OK && e && ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED)
    snprintf(out, cap, "the certificate is refused: %s", X509_verify_cert_error_string(verify));
  else if (reason)
    snprintf(out, cap, "TLS: %s", reason);
  else
    snprintf(out, cap, "TLS: the connection is broken");
}
