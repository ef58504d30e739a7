#include "net/tls_memory.h"
#include "net/tls_set.h"
#include "obs/log.h"
#include "obs/told.h"
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
  MAX_OCSP = 16 << 10,         // of a flight, see tls_chain.c
  MAX_CLIENT_CHAIN = 32 << 10, // a client that nobody knows yet can make the server keep so much
};

// A connection's state is BoringSSL's. The struct exists only as a type of our own.
static SSL *ssl_of(const struct tls_conn *c) { return (SSL *)(uintptr_t)c; }

static int set_index = -1; // of the set in an SSL_CTX

bool tls_index_made(int *index, tls_new_index *new_index, CRYPTO_EX_free *give) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&lock);
  if (*index < 0)
    *index = new_index(0, NULL, NULL, NULL, give);
  bool ok = *index >= 0;
  pthread_mutex_unlock(&lock);
  return ok;
}

struct tls_set *tls_set_of(const SSL *ssl) { return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), set_index); }

// The certificate was chosen before (tls_names.c); here is said whether for its name.
static int on_name(SSL *ssl, int *alert, void *arg) {
  (void)alert;
  (void)arg;
  const struct tls_set *s = tls_set_of(ssl);
  const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  for (unsigned i = 0; name && i < s->num; i++)
    if (s->ctx[i] == SSL_get_SSL_CTX(ssl))
      return tls_names_cover(&s->names[i], name) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
  return SSL_TLSEXT_ERR_NOACK;
}

// Ciphers in our order: AES-128-GCM is the cheapest here. Clients that name ChaCha20 first of all have no AES instructions;
// for them it is the other way round.
static const uint16_t suites_13[] = {SSL_CIPHER_AES_128_GCM_SHA256, SSL_CIPHER_CHACHA20_POLY1305_SHA256, SSL_CIPHER_AES_256_GCM_SHA384};
static const uint16_t suites_13_chacha[] = {SSL_CIPHER_CHACHA20_POLY1305_SHA256, SSL_CIPHER_AES_128_GCM_SHA256, SSL_CIPHER_AES_256_GCM_SHA384};

// No SHA-1, which BoringSSL still takes where a peer names nothing else (RFC 9155); of peers every kind of key that our
// certificates may have.
static const uint16_t sign_with[] = {
    SSL_SIGN_ED25519,
    SSL_SIGN_ECDSA_SECP256R1_SHA256, SSL_SIGN_RSA_PSS_RSAE_SHA256, SSL_SIGN_RSA_PKCS1_SHA256,
    SSL_SIGN_ECDSA_SECP384R1_SHA384, SSL_SIGN_RSA_PSS_RSAE_SHA384, SSL_SIGN_RSA_PKCS1_SHA384,
    SSL_SIGN_ECDSA_SECP521R1_SHA512, SSL_SIGN_RSA_PSS_RSAE_SHA512, SSL_SIGN_RSA_PKCS1_SHA512,
};

bool tls_use_signatures(SSL_CTX *ctx) {
  size_t n = sizeof sign_with / sizeof *sign_with;
  return SSL_CTX_set_signing_algorithm_prefs(ctx, sign_with, n) && SSL_CTX_set_verify_algorithm_prefs(ctx, sign_with, n);
}

static enum ssl_select_cert_result_t on_hello(const SSL_CLIENT_HELLO *hello) {
  const struct tls_set *s = tls_set_of(hello->ssl);
  unsigned chosen = s->num > 1 ? tls_names_choose(s, hello) : 0;
  if (chosen && !SSL_set_SSL_CTX(hello->ssl, s->ctx[chosen]))
    return ssl_select_cert_error;
  const uint8_t *p = hello->cipher_suites;
  size_t n = hello->cipher_suites_len;
  if (n >= 4 && (p[0] & 0x0f) == 0x0a && p[0] == p[1]) // GREASE, RFC 8701
    p += 2;
  if (n < 4 || !((p[0] == 0x13 && p[1] == 0x03) || (p[0] == 0xcc && (p[1] == 0xa8 || p[1] == 0xa9))))
    return ssl_select_cert_success;
  bool ok = SSL_set1_tls13_ciphers(hello->ssl, suites_13_chacha, NULL, 3) && SSL_set_strict_cipher_list(hello->ssl, TLS_CHACHA_12 ":" TLS_AES_12);
  return ok ? ssl_select_cert_success : ssl_select_cert_error;
}

static int on_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in, unsigned in_len, void *arg) {
  (void)ssl;
  (void)arg;
  static const uint8_t ours[] = "\x08http/1.1";
  for (unsigned i = 0; i < in_len; i += 1u + in[i]) {
    if (in_len - i >= 9 && memcmp(in + i, ours, 9) == 0) {
      *out = in + i + 1;
      *out_len = 8;
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL; // RFC 7301 §3.2: no_application_protocol
}

static int bio_read(BIO *b, char *out, int n) {
  struct tls_io *io = BIO_get_data(b);
  BIO_clear_retry_flags(b);
  if (!io || io->in_len == 0) {
    BIO_set_retry_read(b);
    return -1;
  }
  size_t take = (size_t)n < io->in_len ? (size_t)n : io->in_len;
  memcpy(out, io->in, take);
  io->in += take;
  io->in_len -= take;
  return (int)take;
}

static int bio_write(BIO *b, const char *in, int n) {
  struct tls_io *io = BIO_get_data(b);
  BIO_clear_retry_flags(b);
  if (!io || (size_t)n > io->out_cap - io->out_len)
    return -1; // callers leave room: a connection that says more than that is broken
  memcpy(io->out + io->out_len, in, (size_t)n);
  io->out_len += (size_t)n;
  return n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr) {
  (void)b;
  (void)num;
  (void)ptr;
  return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *make_bio(void) {
  BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice");
  if (m && BIO_meth_set_read(m, bio_read) && BIO_meth_set_write(m, bio_write) && BIO_meth_set_ctrl(m, bio_ctrl))
    return m;
  BIO_meth_free(m);
  return NULL;
}

bool tls_fail(char *why, size_t cap, const char *what, const char *file, const char *want) {
  uint32_t e = ERR_peek_error(); // the first is the cause; later ones name the functions that passed it on
  const char *reason = e ? ERR_reason_error_string(e) : NULL;
  if (e && ERR_GET_LIB(e) == ERR_LIB_SYS)
    snprintf(why, cap, "%s %s: %s", what, TOLD(file), strerror(ERR_GET_REASON(e)));
  else if (e && ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE) // of keys' memory too, which old connections' certificates hold
    snprintf(why, cap, "%s %s: out of memory", what, file);
  else if (e && ERR_GET_REASON(e) == EVP_R_UNSUPPORTED_ALGORITHM && ERR_GET_LIB(e) == ERR_LIB_EVP)
    snprintf(why, cap, "%s %s: cannot be used: its kind of key is not supported, use RSA, ECDSA on P-256, P-384 or P-521, or Ed25519", what, file);
  else
    snprintf(why, cap, "%s %s: cannot be used: %s%s%s%s", what, file, want, reason ? " [" : "", reason ? reason : "", reason ? "]" : "");
  ERR_clear_error();
  return false;
}

bool tls_fail_key(char *why, size_t cap, const char *what, const char *file, const char *cert) {
  uint32_t e = ERR_peek_error();
  char want[256];
  bool other = ERR_GET_LIB(e) == ERR_LIB_X509 && (ERR_GET_REASON(e) == X509_R_KEY_VALUES_MISMATCH || ERR_GET_REASON(e) == X509_R_KEY_TYPE_MISMATCH);
  if (other)
    snprintf(want, sizeof want, "it is not the key of the certificate in %s", cert);
  else
    snprintf(want, sizeof want, "give a PEM file: the private key of that certificate, without a passphrase");
  return tls_fail(why, cap, what, file, want);
}

// The file's bytes, to free; NULL: `why_not` says why.
static uint8_t *read_response(const char *file, size_t *n, const char **why_not) {
  static const char mode[] = "rbe";
  uint8_t *der = malloc(MAX_OCSP);
  FILE *f = der ? fopen(file, mode) : NULL;
  *n = f ? fread(der, 1, MAX_OCSP, f) : 0;
  bool ok = f && !ferror(f) && *n < MAX_OCSP;
  *why_not = f && *n == MAX_OCSP ? "too long" : strerror(errno);
  if (f)
    fclose(f);
  if (ok)
    return der;
  free(der);
  return NULL;
}

static const char *read_status(struct ocsp_status *out, struct bytes der, const X509 *leaf) {
  uint8_t *serial = NULL, *issuer = NULL;
  int serial_len = i2d_ASN1_INTEGER(X509_get0_serialNumber(leaf), &serial), issuer_len = i2d_X509_NAME(X509_get_issuer_name(leaf), &issuer);
  CBS in, number = {0};
  const char *why_not = "of a certificate that cannot be read";
  CBS_init(&in, serial, serial_len > 0 ? (size_t)serial_len : 0);
  if (issuer_len > 0 && CBS_get_asn1(&in, &number, CBS_ASN1_INTEGER))
    why_not = ocsp_read(out, der, &(struct ocsp_cert){bytes_of(CBS_data(&number), CBS_len(&number)), bytes_of(issuer, (size_t)issuer_len)});
  OPENSSL_free(serial);
  OPENSSL_free(issuer);
  return why_not;
}

static bool is_in_force(const struct ocsp_status *s) {
  int64_t now = time(NULL);
  return s->from <= now && now < s->until;
}

static void warn_of_status(struct tls_staple *s) {
  bool over = s->status.from <= time(NULL);
  if (s->status.verdict != OCSP_GOOD)
    log_line(LOG_WARN, "OCSP response %s: the certificate is %s: it is not stapled", s->file, s->status.verdict == OCSP_REVOKED ? "revoked" : "unknown");
  else if (!is_in_force(&s->status) && !(over && atomic_exchange(&s->told, true)))
    log_line(LOG_WARN, "OCSP response %s: %s: it is not stapled", s->file, over ? "expired" : "not valid yet");
}

// Clients refuse a response outside of its time, and the time of one may end while it is loaded: said once.
static int on_status(SSL *ssl, void *arg) {
  (void)ssl;
  struct tls_staple *s = arg;
  if (is_in_force(&s->status))
    return SSL_TLSEXT_ERR_OK;
  if (s->status.from <= time(NULL))
    warn_of_status(s);
  return SSL_TLSEXT_ERR_NOACK;
}

// What stands here is checked to be of this certificate; who signed it, clients check.
static bool load_ocsp(SSL_CTX *ctx, struct tls_staple *staple, const char *file, char *why, size_t cap) {
  const char *why_not;
  size_t n;
  uint8_t *der = read_response(file, &n, &why_not);
  if (der)
    why_not = read_status(&staple->status, bytes_of(der, n), SSL_CTX_get0_certificate(ctx));
  if (!why_not && !(staple->file = strdup(file)))
    why_not = "out of memory";
  bool ok = der && !why_not;
  if (!ok)
    snprintf(why, cap, "OCSP response %s: %s", der ? file : TOLD(file), why_not);
  else
    warn_of_status(staple);
  if (ok && staple->status.verdict == OCSP_GOOD) {
    SSL_CTX_set_tlsext_status_cb(ctx, on_status);
    SSL_CTX_set_tlsext_status_arg(ctx, staple);
    ok = SSL_CTX_set_ocsp_response(ctx, der, n) || tls_fail(why, cap, "OCSP response", file, "give a response in DER");
  }
  free(der);
  return ok;
}

static bool load_cert(SSL_CTX *ctx, const struct tls_files *f, struct tls_staple *staple, char *why, size_t cap) {
  if (!SSL_CTX_use_certificate_chain_file(ctx, f->cert))
    return tls_fail(why, cap, "certificate", f->cert, TLS_WANT_CHAIN);
  if (!SSL_CTX_get0_certificate(ctx)) // is made when it is first asked for, and then kept
    return tls_fail(why, cap, "certificate", f->cert, TLS_WANT_CHAIN);
  if (!tls_use_key(ctx, f->key))
    return tls_fail_key(why, cap, "private key", f->key, f->cert);
  tls_look_at_chain(ctx, f->cert);
  return !f->ocsp || !f->ocsp[0] || load_ocsp(ctx, staple, f->ocsp, why, cap);
}

// A resumed session shows no certificate again: tickets must not outlive the authorities they were given under. The
// session context is a digest of their file, so a reload that changes them makes clients show one anew.
static bool bind_sessions(SSL_CTX *ctx, const char *file) {
  static const char mode[] = "rbe";
  uint8_t chunk[4096], digest[SHA256_DIGEST_LENGTH];
  FILE *f = fopen(file, mode);
  if (!f)
    return false;
  SHA256_CTX sha;
  SHA256_Init(&sha);
  for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
    SHA256_Update(&sha, chunk, n);
  bool ok = !ferror(f);
  fclose(f);
  SHA256_Final(digest, &sha);
  return ok && SSL_CTX_set_session_id_context(ctx, digest, sizeof digest);
}

// Nor the certificate: a session, however often its ticket is renewed, ends with every certificate that it began with.
static int on_client_cert(int ok, X509_STORE_CTX *chain) {
  SSL_SESSION *session = SSL_get_session(X509_STORE_CTX_get_ex_data(chain, SSL_get_ex_data_X509_STORE_CTX_idx()));
  const X509 *cert = X509_STORE_CTX_get_current_cert(chain);
  int64_t end, now = time(NULL);
  if (!ok || !session || !cert)
    return ok;
  if (!ASN1_TIME_to_posix(X509_get0_notAfter(cert), &end))
    return 0;
  uint32_t left = SSL_SESSION_get_timeout(session);
  SSL_SESSION_set_timeout(session, end <= now ? 0 : end - now < left ? (uint32_t)(end - now) : left);
  return 1;
}

static bool load_client_ca(SSL_CTX *ctx, const char *file, char *why, size_t cap) {
  STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(file);
  if (!names || !SSL_CTX_load_verify_locations(ctx, file, NULL) || !bind_sessions(ctx, file)) {
    sk_X509_NAME_pop_free(names, X509_NAME_free);
    return tls_fail(why, cap, "client authorities", file, TLS_WANT_AUTHORITIES);
  }
  SSL_CTX_set_client_CA_list(ctx, names);
  SSL_CTX_set_max_cert_list(ctx, MAX_CLIENT_CHAIN);
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_client_cert);
  return true;
}

static SSL_CTX *make_ctx(struct tls_set *s) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
  if (!ctx)
    return NULL;
  static const uint8_t session_context[] = "sluice";
  // TLS 1.2 with forward secrecy and AEAD only; 1.3's suites are all of that kind.
  if (!SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) || !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) ||
      !SSL_CTX_set_strict_cipher_list(ctx, TLS_AES_12 ":" TLS_CHACHA_12) || !SSL_CTX_set1_tls13_ciphers(ctx, suites_13, NULL, 3) ||
      !SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") || !tls_use_signatures(ctx) ||
      !SSL_CTX_set_session_id_context(ctx, session_context, sizeof session_context - 1) || !tls_bind(ctx, s)) {
    SSL_CTX_free(ctx);
    return NULL;
  }
  SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); // tickets only: nothing to share between workers or nodes
  tls_tickets_use(ctx);
  SSL_CTX_set_select_certificate_cb(ctx, on_hello);
  SSL_CTX_set_tlsext_servername_callback(ctx, on_name);
  SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
  return ctx;
}

struct tls_set *tls_set_alloc(void) {
  struct tls_set *s = tls_index_made(&set_index, SSL_CTX_get_ex_new_index, NULL) ? calloc(1, sizeof *s) : NULL;
  if (s && !(s->bio = make_bio())) {
    free(s);
    return NULL;
  }
  if (s)
    s->refs = 1;
  return s;
}

bool tls_bind(SSL_CTX *ctx, struct tls_set *s) { return SSL_CTX_set_ex_data(ctx, set_index, s); }

struct tls_set *tls_set_new(const struct tls_files *files, unsigned num, const char *client_ca, struct tls_tickets *tickets,
                            char *why, size_t why_cap) {
  struct tls_set *s = tls_set_alloc();
  bool ok = s && num && num <= TLS_MAX_CERTS;
  if (!s)
    snprintf(why, why_cap, "TLS: out of memory");
  else if (!ok)
    snprintf(why, why_cap, num ? "more than %d certificates" : "no certificate: TLS needs 1 to %d", TLS_MAX_CERTS);
  else
    s->tickets = tickets;
  for (unsigned i = 0; ok && i < num; i++) {
    s->ctx[i] = make_ctx(s);
    s->num = i + 1;
    ok = s->ctx[i] ? load_cert(s->ctx[i], &files[i], &s->staple[i], why, why_cap) : tls_fail(why, why_cap, "certificate", files[i].cert, "TLS cannot be set up");
    ok = ok && (!client_ca || !client_ca[0] || load_client_ca(s->ctx[i], client_ca, why, why_cap));
    ok = ok && (tls_names_read(&s->names[i], SSL_CTX_get0_certificate(s->ctx[i])) || tls_fail(why, why_cap, "certificate", files[i].cert, "its names cannot be read"));
    s->names[i].as_first = tls_names_cover_all(&s->names[i], &s->names[0]);
    ok = ok && tls_fits_flight(s->ctx[i], files[i].cert, client_ca, why, why_cap);
    ok = ok && (tls_ends_read(s, i, files[i].cert, client_ca) || tls_fail(why, why_cap, "certificate", files[i].cert, "out of memory"));
  }
  if (ok)
    return s;
  tls_set_free(s);
  return NULL;
}

void tls_set_free(struct tls_set *s) {
  if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
    return;
  for (unsigned i = 0; i < s->num; i++) {
    SSL_CTX_free(s->ctx[i]);
    free(s->staple[i].file);
    tls_names_free(&s->names[i]);
  }
  tls_ends_free(s);
  BIO_meth_free(s->bio);
  free(s);
}

struct tls_set *tls_set_hold(struct tls_set *s) {
  atomic_fetch_add(&s->refs, 1);
  return s;
}

SSL *tls_conn_new(struct tls_set *s, SSL_CTX *ctx) {
  SSL *ssl = SSL_new(ctx);
  BIO *bio = BIO_new(s->bio);
  if (!ssl || !bio) {
    SSL_free(ssl);
    BIO_free(bio);
    return NULL;
  }
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);
  (void)tls_set_hold(s);
  return ssl;
}

struct tls_conn *tls_accept(struct tls_set *s) {
  SSL *ssl = tls_conn_new(s, s->ctx[0]);
  if (ssl)
    SSL_set_accept_state(ssl);
  return (struct tls_conn *)(uintptr_t)ssl;
}

void tls_free(struct tls_conn *c) {
  if (!c)
    return;
  struct tls_set *s = tls_set_of(ssl_of(c));
  SSL_free(ssl_of(c));
  tls_set_free(s);
}

static SSL *attach(const struct tls_conn *c, struct tls_io *io) {
  SSL *ssl = ssl_of(c);
  BIO_set_data(SSL_get_wbio(ssl), io);
  return ssl;
}

static enum tls_result result_of(const SSL *ssl, int r) {
  switch (SSL_get_error(ssl, r)) {
  case SSL_ERROR_NONE:
    return TLS_OK;
  case SSL_ERROR_WANT_READ:
    return TLS_WANT;
  case SSL_ERROR_ZERO_RETURN:
    return TLS_ENDED;
  default: // the library's next call clears the queue of errors; until then tls_why can tell
    return TLS_FAILED;
  }
}

enum tls_result tls_handshake(struct tls_conn *c, struct tls_io *io) {
  SSL *ssl = attach(c, io);
  enum tls_result r = result_of(ssl, SSL_do_handshake(ssl));
  // BoringSSL keeps TLS 1.3's tickets for the first write. Sent now they acknowledge the client's Finished: one that waits for
  // that before it sends more (Nagle's algorithm) would wait for a delayed acknowledgement, 40 ms.
  if (r == TLS_OK)
    (void)SSL_write(ssl, "", 0);
  return r;
}

enum tls_result tls_read(struct tls_conn *c, struct tls_io *io, uint8_t *p, size_t cap, size_t *n) {
  SSL *ssl = attach(c, io);
  int r = SSL_read(ssl, p, (int)(cap < TLS_RECORD ? cap : TLS_RECORD));
  *n = r > 0 ? (size_t)r : 0;
  return result_of(ssl, r);
}

bool tls_is_http(void) {
  uint32_t e = ERR_peek_error();
  return ERR_GET_LIB(e) == ERR_LIB_SSL && (ERR_GET_REASON(e) == SSL_R_HTTP_REQUEST || ERR_GET_REASON(e) == SSL_R_HTTPS_PROXY_REQUEST);
}

size_t tls_write(struct tls_conn *c, struct tls_io *io, const uint8_t *p, size_t n) {
  SSL *ssl = attach(c, io);
  int r = SSL_write(ssl, p, (int)(n < TLS_RECORD ? n : TLS_RECORD));
  return r > 0 ? (size_t)r : 0;
}

void tls_close(struct tls_conn *c, struct tls_io *io) { (void)SSL_shutdown(attach(c, io)); }

bool tls_resumed(const struct tls_conn *c) { return SSL_session_reused(ssl_of(c)); }
