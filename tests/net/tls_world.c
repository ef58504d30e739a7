#include "tls_world.h"

#include <criterion/criterion.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
struct world w;

// The clocks.
int64_t passed;

time_t __real_time(time_t *t);
time_t __wrap_time(time_t *t);
int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);

time_t __wrap_time(time_t *t) {
  time_t now = __real_time(NULL) + passed;
  if (t)
    *t = now;
  return now;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *t) {
  int r = __real_clock_gettime(id, t);
  t->tv_sec += id == CLOCK_BOOTTIME ? passed : 0;
  return r;
}

int64_t aged;

int __real_gettimeofday(struct timeval *t, void *zone);
int __wrap_gettimeofday(struct timeval *t, void *zone);

int __wrap_gettimeofday(struct timeval *t, void *zone) {
  int r = __real_gettimeofday(t, zone);
  t->tv_sec += aged;
  return r;
}

bool no_leaf, no_names;

X509 *__real_SSL_CTX_get0_certificate(const SSL_CTX *ctx);
X509 *__wrap_SSL_CTX_get0_certificate(const SSL_CTX *ctx);
void *__real_X509_get_ext_d2i(const X509 *x, int nid, int *critical, int *idx);
void *__wrap_X509_get_ext_d2i(const X509 *x, int nid, int *critical, int *idx);

X509 *__wrap_SSL_CTX_get0_certificate(const SSL_CTX *ctx) { return no_leaf ? NULL : __real_SSL_CTX_get0_certificate(ctx); }

void *__wrap_X509_get_ext_d2i(const X509 *x, int nid, int *critical, int *idx) {
  void *all = __real_X509_get_ext_d2i(x, nid, critical, idx);
  if (!no_names)
    return all;
  GENERAL_NAMES_free(all);
  return NULL;
}

static int on_session(SSL *ssl, SSL_SESSION *s) {
  (void)ssl;
  SSL_SESSION_free(w.session);
  w.session = s;
  return 1;
}

// One of an authority, or of its own: then it is one.
static X509 *make(const char *cert, const char *key_file, const char *common_name, int64_t from, int64_t until, X509 *authority, EVP_PKEY *authority_key) {
  EVP_PKEY *key = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  X509 *x = X509_new();
  BASIC_CONSTRAINTS is = {.ca = authority ? 0 : 0xff};
  cr_assert(EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(key, ec));
  cr_assert(X509_set_version(x, X509_VERSION_3) && ASN1_INTEGER_set_int64(X509_get_serialNumber(x), SERIAL) && X509_set_pubkey(x, key));
  X509_NAME *name = X509_get_subject_name(x);
  cr_assert(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)common_name, -1, -1, 0) &&
            X509_set_issuer_name(x, authority ? X509_get_subject_name(authority) : name) && X509_add1_ext_i2d(x, NID_basic_constraints, &is, 1, 0));
  X509_EXTENSION *alt = X509V3_EXT_nconf_nid(NULL, NULL, NID_subject_alt_name, "DNS:two.test");
  cr_assert(alt && X509_add_ext(x, alt, -1));
  X509_EXTENSION_free(alt);
  cr_assert(X509_gmtime_adj(X509_getm_notBefore(x), from) && X509_gmtime_adj(X509_getm_notAfter(x), until) &&
            X509_sign(x, authority ? authority_key : key, EVP_sha256()));
  FILE *f = fopen(cert, "w"), *g = fopen(key_file, "w");
  cr_assert(f && g && PEM_write_X509(f, x) && PEM_write_PrivateKey(g, key, NULL, NULL, 0, NULL, NULL));
  fclose(f);
  fclose(g);
  EVP_PKEY_free(key);
  return x;
}

void make_certificate(int64_t from, int64_t until) {
  static uint8_t serial[] = {SERIAL >> 8, SERIAL & 255};
  uint8_t *issuer = NULL;
  X509 *x = make(w.cert, w.key, "one.test", from, until, NULL, NULL);
  int n = i2d_X509_NAME(X509_get_subject_name(x), &issuer);
  w.issuer = bytes_of(issuer, (size_t)n);
  w.serial = bytes_of(serial, sizeof serial);
  X509_free(x);
}

void make_client(int64_t from, int64_t until) {
  FILE *f = fopen(w.cert, "r"), *g = fopen(w.key, "r");
  cr_assert(f && g);
  X509 *authority = PEM_read_X509(f, NULL, NULL, NULL);
  EVP_PKEY *key = PEM_read_PrivateKey(g, NULL, NULL, NULL);
  cr_assert(authority && key);
  X509_free(make(w.client_cert, w.client_key, "client.test", from, until, authority, key));
  cr_assert(SSL_CTX_use_certificate_file(w.client, w.client_cert, SSL_FILETYPE_PEM) && SSL_CTX_use_PrivateKey_file(w.client, w.client_key, SSL_FILETYPE_PEM));
  fclose(f);
  fclose(g);
  X509_free(authority);
  EVP_PKEY_free(key);
}

static void begin(void) {
  char folder[] = "tls-XXXXXX";
  cr_assert(mkdtemp(folder));
  snprintf(w.cert, sizeof w.cert, "%s/cert", folder);
  snprintf(w.key, sizeof w.key, "%s/key", folder);
  snprintf(w.ocsp, sizeof w.ocsp, "%s/ocsp", folder);
  snprintf(w.client_cert, sizeof w.client_cert, "%s/client", folder);
  snprintf(w.client_key, sizeof w.client_key, "%s/client.key", folder);
  make_certificate(-HOUR, 100 * HOUR);
  w.client = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_session_cache_mode(w.client, SSL_SESS_CACHE_CLIENT);
  SSL_CTX_sess_set_new_cb(w.client, on_session);
  SSL_CTX_enable_ocsp_stapling(w.client);
  w.tickets = tls_tickets_new();
}

static void end(void) {
  char folder[64];
  snprintf(folder, sizeof folder, "%.*s", (int)strlen("tls-XXXXXX"), w.cert);
  unlink(w.cert);
  unlink(w.key);
  unlink(w.ocsp);
  unlink(w.client_cert);
  unlink(w.client_key);
  cr_expect_eq(rmdir(folder), 0);
  SSL_SESSION_free(w.session);
  SSL_CTX_free(w.client);
  tls_set_free(w.set);
  tls_tickets_free(w.tickets);
  OPENSSL_free((void *)(uintptr_t)w.issuer.p);
}

const char *load_for(const char *ocsp, const char *client_ca) {
  static char why[300];
  tls_set_free(w.set);
  w.set = tls_set_new(&(struct tls_files){w.cert, w.key, ocsp}, 1, client_ca, w.tickets, why, sizeof why);
  return w.set ? NULL : why;
}

const char *load(const char *ocsp) { return load_for(ocsp, NULL); }

static void to_client(SSL *c, struct tls_io *io) {
  if (io->out_len)
    cr_assert_eq(BIO_write(SSL_get_rbio(c), io->out, (int)io->out_len), (int)io->out_len);
  io->out_len = 0;
}

struct meeting meet(int version, SSL_SESSION *session) {
  static uint8_t out[TLS_FLIGHT], in[TLS_FLIGHT];
  SSL *c = SSL_new(w.client);
  struct tls_conn *s = tls_accept(w.set);
  struct tls_io io = {.out = out, .out_cap = sizeof out};
  enum tls_result r = TLS_WANT;
  char byte;
  SSL_set_bio(c, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  BIO_set_mem_eof_return(SSL_get_rbio(c), -1);
  cr_assert(SSL_set_min_proto_version(c, (uint16_t)version) && SSL_set_max_proto_version(c, (uint16_t)version));
  if (session)
    cr_assert(SSL_set_session(c, session));
  for (int turn = 0; turn < 8 && r != TLS_FAILED && (r != TLS_OK || SSL_in_init(c)); turn++) {
    (void)SSL_connect(c);
    int n = BIO_read(SSL_get_wbio(c), in, sizeof in);
    io.in = in;
    io.in_len = n > 0 ? (size_t)n : 0;
    if (r != TLS_OK)
      r = tls_handshake(s, &io);
    to_client(c, &io);
  }
  if (r == TLS_FAILED) {
    SSL_free(c);
    tls_free(s);
    return (struct meeting){.refused = true};
  }
  cr_assert(r == TLS_OK && !SSL_in_init(c), "the handshake: %d", r);
  cr_assert_eq(tls_write(s, &io, (const uint8_t *)"x", 1), 1);
  to_client(c, &io);
  cr_assert_eq(SSL_read(c, &byte, 1), 1);
  const uint8_t *staple;
  size_t len;
  SSL_get0_ocsp_response(c, &staple, &len);
  struct meeting m = {.resumed = SSL_session_reused(c) == 1, .stapled = len > 0, .suite = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(c))};
  cr_assert_eq(m.resumed, tls_resumed(s));
  SSL_free(c);
  tls_free(s);
  return m;
}

SSL_SESSION *take_session(void) {
  SSL_SESSION *s = w.session;
  cr_assert(s, "no ticket came");
  w.session = NULL;
  return s;
}

TestSuite(tls, .init = begin, .fini = end);
