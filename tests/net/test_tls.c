// A server's side of TLS at times of our choosing (--wrap of the clocks): which tickets open, which OCSP responses are stapled.
// The client is BoringSSL itself, over memory.
#include "net/tls_memory.h"
#include "net/tls_set.h"
#include <criterion/criterion.h>
#include <openssl/bytestring.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { HOUR = 3600, SERIAL = 0x5a17 };
static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

// The clocks.

static int64_t passed; // seconds beyond what the system's clocks show

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

// BoringSSL's for the age of sessions. It stands still unless a test is about that.
static int64_t aged;

int __real_gettimeofday(struct timeval *t, void *zone);
int __wrap_gettimeofday(struct timeval *t, void *zone);

int __wrap_gettimeofday(struct timeval *t, void *zone) {
  int r = __real_gettimeofday(t, zone);
  t->tv_sec += aged;
  return r;
}

// A server with a certificate of its own, and a client.

struct world {
  char cert[64], key[64], ocsp[64];
  struct bytes issuer, serial;
  struct tls_tickets *tickets;
  struct tls_set *set;
  SSL_CTX *client;
  SSL_SESSION *session; // the newest that the client was given
};

static struct world w;

static int on_session(SSL *ssl, SSL_SESSION *s) {
  (void)ssl;
  SSL_SESSION_free(w.session);
  w.session = s;
  return 1;
}

static void make_certificate(int64_t from, int64_t until) {
  static uint8_t serial[] = {SERIAL >> 8, SERIAL & 255};
  EVP_PKEY *key = EVP_PKEY_new();
  EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
  X509 *x = X509_new();
  uint8_t *issuer = NULL;
  cr_assert(EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(key, ec));
  cr_assert(X509_set_version(x, X509_VERSION_3) && ASN1_INTEGER_set_int64(X509_get_serialNumber(x), SERIAL) && X509_set_pubkey(x, key));
  X509_NAME *name = X509_get_subject_name(x);
  cr_assert(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"one.test", -1, -1, 0) && X509_set_issuer_name(x, name));
  cr_assert(X509_gmtime_adj(X509_getm_notBefore(x), from) && X509_gmtime_adj(X509_getm_notAfter(x), until) && X509_sign(x, key, EVP_sha256()));
  int n = i2d_X509_NAME(name, &issuer);
  w.issuer = bytes_of(issuer, (size_t)n);
  w.serial = bytes_of(serial, sizeof serial);
  FILE *f = fopen(w.cert, "w"), *g = fopen(w.key, "w");
  cr_assert(f && g && PEM_write_X509(f, x) && PEM_write_PrivateKey(g, key, NULL, NULL, 0, NULL, NULL));
  fclose(f);
  fclose(g);
  X509_free(x);
  EVP_PKEY_free(key);
}

static void begin(void) {
  char folder[] = "tls-XXXXXX";
  cr_assert(mkdtemp(folder));
  snprintf(w.cert, sizeof w.cert, "%s/cert", folder);
  snprintf(w.key, sizeof w.key, "%s/key", folder);
  snprintf(w.ocsp, sizeof w.ocsp, "%s/ocsp", folder);
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
  cr_expect_eq(rmdir(folder), 0);
  SSL_SESSION_free(w.session);
  SSL_CTX_free(w.client);
  tls_set_free(w.set);
  tls_tickets_free(w.tickets);
  OPENSSL_free((void *)(uintptr_t)w.issuer.p);
}

static const char *load_for(const char *ocsp, const char *client_ca) {
  static char why[300];
  tls_set_free(w.set);
  w.set = tls_set_new(&(struct tls_files){w.cert, w.key, ocsp}, 1, client_ca, w.tickets, why, sizeof why);
  return w.set ? NULL : why;
}

static const char *load(const char *ocsp) { return load_for(ocsp, NULL); }

struct meeting {
  bool resumed, stapled, refused;
};

static void to_client(SSL *c, struct tls_io *io) {
  if (io->out_len)
    cr_assert_eq(BIO_write(SSL_get_rbio(c), io->out, (int)io->out_len), (int)io->out_len);
  io->out_len = 0;
}

// One connection, from the handshake to the first byte of the server, by which tickets have come.
static struct meeting meet(int version, SSL_SESSION *session) {
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
  struct meeting m = {.resumed = SSL_session_reused(c) == 1, .stapled = len > 0};
  cr_assert_eq(m.resumed, tls_resumed(s));
  SSL_free(c);
  tls_free(s);
  return m;
}

static SSL_SESSION *take_session(void) {
  SSL_SESSION *s = w.session;
  cr_assert(s, "no ticket came");
  w.session = NULL;
  return s;
}

// Whose key sealed it: a ticket begins with the key's name.
static bool same_key(const SSL_SESSION *a, const SSL_SESSION *b) {
  const uint8_t *p, *q;
  size_t n, m;
  SSL_SESSION_get0_ticket(a, &p, &n);
  SSL_SESSION_get0_ticket(b, &q, &m);
  cr_assert(n > 16 && m > 16);
  return memcmp(p, q, 16) == 0;
}

TestSuite(tls, .init = begin, .fini = end);

Test(tls, a_ticket_of_the_key_before_opens_and_is_renewed) {
  cr_assert_null(load(NULL));
  for (size_t i = 0; i < 2; i++) {
    cr_assert_not(meet(versions[i], NULL).resumed);
    SSL_SESSION *first = take_session();
    cr_expect(meet(versions[i], first).resumed);
    SSL_SESSION_free(w.session);
    w.session = NULL;
    passed += 13 * HOUR;
    cr_expect(meet(versions[i], first).resumed, "the key before opens");
    SSL_SESSION *renewed = take_session();
    cr_expect_not(same_key(first, renewed), "a new ticket, under the new key");
    passed += 12 * HOUR;
    cr_expect_not(meet(versions[i], first).resumed, "the key before that: a full handshake");
    SSL_SESSION *fresh = take_session();
    cr_expect_not(same_key(first, fresh) || same_key(renewed, fresh));
    cr_expect(meet(versions[i], renewed).resumed, "the renewed one goes on");
    SSL_SESSION_free(first);
    SSL_SESSION_free(renewed);
    SSL_SESSION_free(fresh);
  }
}

Test(tls, no_key_outlives_two_periods_however_long_nobody_asked) {
  static const struct {
    int first, then; // hours after the ticket was given
    bool opens;
  } cases[] = {{0, 11, true}, {0, 23, true}, {0, 25, false}, {0, 30, false}, {0, 1000, false}, {23, 25, false}, {13, 25, false}};
  for (size_t v = 0; v < 2; v++)
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
      tls_tickets_free(w.tickets);
      w.tickets = tls_tickets_new(); // periods begin now
      cr_assert_null(load(NULL));
      (void)meet(versions[v], NULL);
      SSL_SESSION *s = take_session();
      if (cases[i].first) { // somebody else comes by
        passed += cases[i].first * HOUR;
        (void)meet(versions[v], NULL);
      }
      passed += (cases[i].then - cases[i].first) * HOUR;
      cr_expect_eq(meet(versions[v], s).resumed, cases[i].opens, "after %d and %d hours", cases[i].first, cases[i].then);
      SSL_SESSION_free(s);
    }
}

// A ticket of `n` bytes that is not one.
static void expect_full_handshake(int version, SSL_SESSION *session, const uint8_t *ticket, size_t n, const char *what, size_t at) {
  cr_assert(SSL_SESSION_set_ticket(session, ticket, n));
  struct meeting m = meet(version, session);
  cr_expect(!m.resumed && !m.refused, "%x, %s at %zu", (unsigned)version, what, at);
}

Test(tls, an_altered_ticket_is_as_none) {
  cr_assert_null(load(NULL));
  for (size_t v = 0; v < 2; v++) {
    uint8_t good[2048], bad[2049] = {0};
    const uint8_t *p;
    size_t n;
    (void)meet(versions[v], NULL);
    SSL_SESSION *session = take_session();
    cr_expect_not(SSL_SESSION_early_data_capable(session), "no early data, which could be sent again");
    SSL_SESSION_get0_ticket(session, &p, &n);
    cr_assert(n > 64 && n <= sizeof good);
    memcpy(good, p, n);
    memcpy(bad, p, n);
    for (size_t i = 0; i < n; i++) {
      bad[i] ^= (uint8_t)(1 << i % 8);
      expect_full_handshake(versions[v], session, bad, n, "a bit", i);
      bad[i] = good[i];
    }
    for (size_t cut = 1; cut < n; cut += cut < 80 ? 1 : 7)
      expect_full_handshake(versions[v], session, bad, cut, "cut", cut);
    expect_full_handshake(versions[v], session, bad, n + 1, "a byte more", n);
    cr_assert(SSL_SESSION_set_ticket(session, good, n));
    cr_expect(meet(versions[v], session).resumed, "as it was");
    struct tls_tickets *ours = w.tickets;
    w.tickets = tls_tickets_new();
    cr_assert_null(load(NULL));
    expect_full_handshake(versions[v], session, good, n, "another server", 0);
    tls_set_free(w.set);
    w.set = NULL;
    tls_tickets_free(w.tickets);
    w.tickets = ours;
    cr_assert_null(load(NULL));
    SSL_SESSION_free(session);
  }
}

static void pass(int64_t seconds) {
  passed += seconds;
  aged += seconds;
}

Test(tls, a_ticket_is_no_longer_good_than_the_certificate_that_it_was_given_for) {
  cr_assert_null(load_for(NULL, w.cert));
  cr_assert(SSL_CTX_use_certificate_file(w.client, w.cert, SSL_FILETYPE_PEM) && SSL_CTX_use_PrivateKey_file(w.client, w.key, SSL_FILETYPE_PEM));
  pass(99 * HOUR); // of 100
  for (size_t v = 0; v < 2; v++) {
    struct meeting first = meet(versions[v], NULL);
    cr_assert(!first.resumed && !first.refused);
    SSL_SESSION *session = take_session();
    pass(HOUR / 2);
    cr_expect(meet(versions[v], session).resumed, "within its time");
    SSL_SESSION *renewed = w.session; // of TLS 1.3 alone: the ticket's key is still the same
    w.session = NULL;
    pass(HOUR / 2 + 2);
    cr_expect(meet(versions[v], NULL).refused, "the certificate is out of date");
    cr_expect(meet(versions[v], session).refused, "and so is the ticket");
    cr_expect(!renewed || meet(versions[v], renewed).refused, "and what it was renewed to");
    SSL_SESSION_free(session);
    SSL_SESSION_free(renewed);
    pass(-HOUR - 2);
  }
}

// OCSP responses, made by hand. Source: RFC 6960 §4.2.1.

struct shape {
  struct bytes issuer, serial;
  unsigned error, verdict; // responseStatus; tag of certStatus
  int64_t from, until;     // relative to now; until 0: none
  bool is_other_kind, about_others_first;
};

static void add_time(CBB *to, int64_t relative) {
  time_t at = (time_t)(time(NULL) + relative);
  struct tm tm;
  char text[32];
  gmtime_r(&at, &tm);
  strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &tm);
  cr_assert(CBB_add_asn1_element(to, CBS_ASN1_GENERALIZEDTIME, (const uint8_t *)text, strlen(text)));
}

static void add_single(CBB *to, const struct shape *s, struct bytes serial) {
  static const uint8_t key_hash[20] = {0};
  CBB single, id, tagged;
  uint8_t hash[SHA256_DIGEST_LENGTH];
  SHA256(s->issuer.p, s->issuer.n, hash);
  cr_assert(CBB_add_asn1(to, &single, CBS_ASN1_SEQUENCE) && CBB_add_asn1(&single, &id, CBS_ASN1_SEQUENCE) &&
            EVP_marshal_digest_algorithm(&id, EVP_sha256()) && CBB_add_asn1_octet_string(&id, hash, sizeof hash) &&
            CBB_add_asn1_octet_string(&id, key_hash, sizeof key_hash) && CBB_add_asn1_element(&id, CBS_ASN1_INTEGER, serial.p, serial.n));
  cr_assert(CBB_add_asn1(&single, &tagged, CBS_ASN1_CONTEXT_SPECIFIC | (s->verdict == 1 ? CBS_ASN1_CONSTRUCTED : 0) | s->verdict));
  if (s->verdict == 1)
    add_time(&tagged, -HOUR);
  cr_assert(CBB_flush(&single));
  add_time(&single, s->from);
  if (s->until) {
    cr_assert(CBB_add_asn1(&single, &tagged, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0));
    add_time(&tagged, s->until);
  }
  cr_assert(CBB_flush(to));
}

static void add_data(CBB *to, const struct shape *s) {
  static const uint8_t other[] = {7};
  CBB data, tagged, responses;
  cr_assert(CBB_add_asn1(to, &data, CBS_ASN1_SEQUENCE) && CBB_add_asn1(&data, &tagged, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 1) &&
            CBB_add_bytes(&tagged, s->issuer.p, s->issuer.n) && CBB_flush(&data));
  add_time(&data, 0);
  cr_assert(CBB_add_asn1(&data, &responses, CBS_ASN1_SEQUENCE));
  if (s->about_others_first)
    add_single(&responses, s, bytes_of(other, sizeof other));
  add_single(&responses, s, s->serial);
  cr_assert(CBB_flush(to));
}

static size_t make_response(uint8_t *out, size_t cap, const struct shape *s) {
  static const uint8_t basic_oid[] = {0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1}, other_oid[] = {0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2}, signature[] = {0, 1};
  CBB cbb, response, tagged, bytes, octets, basic, algorithm;
  size_t n;
  cr_assert(CBB_init_fixed(&cbb, out, cap) && CBB_add_asn1(&cbb, &response, CBS_ASN1_SEQUENCE));
  uint8_t error = (uint8_t)s->error;
  cr_assert(CBB_add_asn1_element(&response, CBS_ASN1_ENUMERATED, &error, 1));
  if (!s->error) {
    cr_assert(CBB_add_asn1(&response, &tagged, CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0) &&
              CBB_add_asn1(&tagged, &bytes, CBS_ASN1_SEQUENCE) &&
              CBB_add_asn1_element(&bytes, CBS_ASN1_OBJECT, s->is_other_kind ? other_oid : basic_oid, sizeof basic_oid) &&
              CBB_add_asn1(&bytes, &octets, CBS_ASN1_OCTETSTRING) && CBB_add_asn1(&octets, &basic, CBS_ASN1_SEQUENCE));
    add_data(&basic, s);
    cr_assert(CBB_add_asn1(&basic, &algorithm, CBS_ASN1_SEQUENCE) && CBB_add_asn1_element(&basic, CBS_ASN1_BITSTRING, signature, sizeof signature));
  }
  cr_assert(CBB_finish(&cbb, NULL, &n));
  return n;
}

static struct shape good(void) { return (struct shape){.issuer = w.issuer, .serial = w.serial, .from = -HOUR, .until = HOUR}; }

static const char *read_shape(struct ocsp_status *status, const struct shape *s) {
  uint8_t der[4096];
  size_t n = make_response(der, sizeof der, s);
  return ocsp_read(status, bytes_of(der, n), &(struct ocsp_cert){w.serial, w.issuer});
}

static const char *staple(const struct shape *s) {
  uint8_t der[4096];
  size_t n = make_response(der, sizeof der, s);
  FILE *f = fopen(w.ocsp, "w");
  cr_assert(f && fwrite(der, 1, n, f) == n);
  fclose(f);
  return load(w.ocsp);
}

Test(tls, what_a_response_says) {
  static const enum ocsp_verdict verdicts[] = {OCSP_GOOD, OCSP_REVOKED, OCSP_UNKNOWN}; // by tag
  struct ocsp_status got;
  struct shape s = good();
  int64_t now = time(NULL);
  cr_assert_null(read_shape(&got, &s));
  cr_expect(got.verdict == OCSP_GOOD && got.from - now >= -HOUR && got.from - now < 60 - HOUR && got.until - got.from == 2 * HOUR);
  s.until = 0;
  cr_assert_null(read_shape(&got, &s));
  cr_expect_eq(got.until, INT64_MAX);
  for (unsigned v = 0; v < 3; v++) {
    s.verdict = v;
    s.about_others_first = v == 1;
    cr_assert_null(read_shape(&got, &s));
    cr_expect_eq(got.verdict, verdicts[v]);
  }
}

static void expect_refused(struct shape s, const char *text) {
  struct ocsp_status got;
  const char *why = read_shape(&got, &s);
  cr_expect(why && strstr(why, text), "%s: %s", text, why ? why : "taken");
  why = staple(&s);
  cr_expect(why && strstr(why, text) && strstr(why, w.ocsp), "%s: %s", text, why ? why : "loaded");
}

Test(tls, responses_that_are_refused) {
  static const uint8_t more[] = {0, SERIAL >> 8, SERIAL & 255}, other[] = {SERIAL >> 8, 1 + (SERIAL & 255)}, name[] = {0x30, 0};
  struct shape s = good();
  s.error = 3; // tryLater
  expect_refused(s, "error instead");
  s = good();
  s.is_other_kind = true;
  expect_refused(s, "not a basic response");
  s = good();
  s.serial = bytes_of(other, sizeof other);
  expect_refused(s, "another certificate");
  s.serial = bytes_of(more, sizeof more);
  expect_refused(s, "another certificate");
  s = good();
  s.issuer = bytes_of(name, sizeof name); // the same serial by another authority
  expect_refused(s, "another certificate");
  s = good();
  s.verdict = 3;
  expect_refused(s, "not an OCSP response");
}

Test(tls, damaged_responses) {
  uint8_t der[4096];
  struct shape s = good();
  struct ocsp_status got;
  struct ocsp_cert cert = {w.serial, w.issuer};
  s.about_others_first = true;
  size_t n = make_response(der, sizeof der, &s);
  cr_assert_null(ocsp_read(&got, bytes_of(der, n), &cert));
  for (size_t i = 0; i < n; i++) {
    uint8_t *exact = malloc(i + 1);
    cr_assert(exact);
    memcpy(exact, der, i);
    cr_expect(ocsp_read(&got, bytes_of(exact, i), &cert), "cut at %zu", i);
    free(exact);
    for (unsigned bit = 0; bit < 8; bit++) { // one that is still taken must be so by its rules; here: that it reads no further
      exact = malloc(n);
      cr_assert(exact);
      memcpy(exact, der, n);
      exact[i] ^= (uint8_t)(1 << bit);
      (void)ocsp_read(&got, bytes_of(exact, n), &cert);
      free(exact);
    }
  }
  der[n] = 0;
  cr_expect(ocsp_read(&got, bytes_of(der, n + 1), &cert), "a byte too many");
}

// What `run` writes to the log.
static const char *logged(void (*run)(void)) {
  static char text[1000];
  int was = dup(STDERR_FILENO);
  FILE *f = tmpfile();
  cr_assert(f && was >= 0 && dup2(fileno(f), STDERR_FILENO) >= 0);
  run();
  cr_assert(dup2(was, STDERR_FILENO) >= 0);
  close(was);
  rewind(f);
  text[fread(text, 1, sizeof text - 1, f)] = 0;
  fclose(f);
  return text;
}

static void three_clients(void) {
  for (size_t i = 0; i < 3; i++)
    meet(versions[i % 2], NULL);
}

Test(tls, the_end_of_a_loaded_response_is_logged_once) {
  struct shape s = good();
  s.from = 100;
  s.until = 2 * HOUR;
  cr_assert_null(staple(&s));
  cr_expect_str_empty(logged(three_clients), "that it has not begun was said when it was loaded");
  passed += HOUR;
  cr_expect_str_empty(logged(three_clients));
  passed += 2 * HOUR;
  const char *text = logged(three_clients), *line = strstr(text, w.ocsp);
  cr_expect(line && strstr(line, "expired: it is not stapled"), "%s", text);
  cr_expect(line && !strstr(line + 1, w.ocsp), "once: %s", text);
}

Test(tls, a_response_is_stapled_within_its_time_alone) {
  struct shape s = good();
  for (size_t v = 0; v < 2; v++) {
    s.from = 100;
    s.until = 2 * HOUR;
    cr_assert_null(staple(&s));
    cr_expect_not(meet(versions[v], NULL).stapled, "not yet");
    passed += 101;
    cr_expect(meet(versions[v], NULL).stapled, "it has begun while loaded");
    passed += HOUR;
    cr_expect(meet(versions[v], NULL).stapled);
    passed += HOUR;
    cr_expect_not(meet(versions[v], NULL).stapled, "it has ended while loaded");
    cr_assert_null(load(w.ocsp), "an expired one is no reason not to start");
    cr_expect_not(meet(versions[v], NULL).stapled);
    for (s.verdict = 0; s.verdict < 3; s.verdict++) {
      s.from = -HOUR;
      cr_assert_null(staple(&s));
      cr_expect_eq(meet(versions[v], NULL).stapled, s.verdict == 0, "verdict %u", s.verdict);
    }
    s.verdict = 0;
  }
}

static unsigned next_look;

static void look(void) { next_look = tls_say_ends(w.set, false); }

// What is said when `after` more seconds have passed.
static const char *said(int64_t after) {
  passed += after;
  return logged(look);
}

static void renew(int64_t from, int64_t until) {
  OPENSSL_free((void *)(uintptr_t)w.issuer.p);
  make_certificate(from, until);
  cr_assert_null(load(NULL));
}

Test(tls, that_a_certificate_ends_is_said_two_weeks_ahead_and_then_each_day) {
  enum { DAY = 24 * HOUR };
  renew(-HOUR, 90 * DAY);
  cr_expect_str_empty(said(0), "ninety days");
  cr_expect_eq(next_look, HOUR, "for the clock may be set: %u", next_look);
  cr_expect_str_empty(said(75 * DAY), "fifteen days");
  cr_expect_str_empty(said(DAY - 60));
  cr_expect_leq(next_look, 60u);
  const char *text = said(61);
  cr_expect(strstr(text, w.cert) && strstr(text, "number 1 in it ends at 20") && strstr(text, "in 13 days") && strstr(text, "renew it") && strstr(text, "SIGHUP"), "%s", text);
  cr_expect_str_empty(said(DAY - 60));
  cr_expect(strstr(text = said(60), "in 12 days"), "a day later: %s", text);
  cr_expect_str_empty(said(0));
  cr_expect(strstr(text = said(13 * DAY - HOUR), "in 59 minutes"), "%s", text);
  text = said(HOUR + 2);
  cr_expect(strstr(text, "number 1 in it has expired, at 20") && strstr(text, "clients refuse it"), "at its end: %s", text);
  cr_expect_str_empty(said(HOUR));
  cr_expect(strstr(text = said(DAY), "has expired"), "%s", text);
  passed -= 5 * DAY; // the clock is set back
  (void)said(0);
  cr_expect_str_empty(said(0));
  cr_expect_leq(tls_say_ends(w.set, true), (unsigned)HOUR);
  cr_assert_null(load(NULL));
  cr_expect(strstr(text = said(0), "ends at"), "loaded anew: %s", text);
  cr_assert_null(load(NULL));
  (void)tls_say_ends(w.set, true);
  cr_expect_str_empty(said(0), "it was just said");
}

Test(tls, what_lives_shorter_is_said_later) {
  renew(0, 6 * HOUR);
  cr_expect_str_empty(said(4 * HOUR - 60));
  cr_expect_leq(next_look, 60u);
  const char *text = said(61);
  cr_expect(strstr(text, "in 119 minutes"), "%s", text);
  cr_expect(next_look == HOUR, "%u", next_look);
  cr_expect(strstr(text = said(2 * HOUR), "has expired"), "%s", text);
  renew(HOUR, 0); // ends before it begins
  cr_expect(strstr(text = said(1), "has expired"), "%s", text);
}

static void load_with_authority(void) { cr_assert_null(load_for(NULL, w.cert)); }

Test(tls, authorities_and_responses_end_too) {
  struct shape s = good();
  unsigned num;
  s.from = -HOUR;
  s.until = 2 * HOUR;
  cr_assert_null(staple(&s));
  const struct tls_end *ends = tls_ends(w.set, &num);
  cr_assert_eq(num, 2u);
  cr_expect(ends[0].kind == TLS_END_CERTIFICATE && !strcmp(ends[0].file, w.cert) && ends[0].until - time(NULL) > 99 * HOUR);
  cr_expect(ends[1].kind == TLS_END_STAPLE && !strcmp(ends[1].file, w.ocsp) && ends[1].until - time(NULL) <= 2 * HOUR);
  cr_expect_str_empty(said(HOUR), "a response is renewed when it is");
  const char *text = said(HOUR + 1);
  cr_expect(strstr(text, w.ocsp) && strstr(text, "expired at 20") && strstr(text, "it is not stapled"), "%s", text);
  cr_expect_str_empty(logged(three_clients), "that was said");
  cr_expect_str_empty(said(12 * HOUR));
  cr_expect(strstr(text = said(12 * HOUR), "it is not stapled"), "each day: %s", text);
  (void)logged(load_with_authority);
  ends = tls_ends(w.set, &num);
  cr_assert_eq(num, 2u);
  cr_expect(ends[1].kind == TLS_END_AUTHORITY && !strcmp(ends[1].file, w.cert));
  text = said(50 * HOUR);
  cr_expect(strstr(text, "client authorities ") && strstr(text, "/CN=one.test ends at 20") && strstr(text, "will be refused"), "%s", text);
  struct tls_set *set = tls_set_new((struct tls_files[]){{w.cert, w.key, NULL}, {w.cert, w.key, NULL}}, 2, NULL, w.tickets, (char[300]){0}, 300);
  cr_assert(set);
  (void)tls_ends(set, &num);
  cr_expect_eq(num, 1u, "a file counts once");
  tls_set_free(set);
}

Test(tls, files_that_are_no_responses) {
  static const char text[] = "good until tomorrow\n";
  FILE *f = fopen(w.ocsp, "w");
  cr_assert(f && fwrite(text, 1, sizeof text, f) == sizeof text);
  fclose(f);
  const char *why = load(w.ocsp);
  cr_expect(why && strstr(why, "not an OCSP response") && strstr(why, w.ocsp), "%s", why ? why : "loaded");
  cr_assert_eq(truncate(w.ocsp, 1 << 20), 0);
  why = load(w.ocsp);
  cr_expect(why && strstr(why, "too long"), "%s", why ? why : "loaded");
  cr_assert_eq(truncate(w.ocsp, 0), 0);
  why = load(w.ocsp);
  cr_expect(why && strstr(why, "not an OCSP response"), "%s", why ? why : "loaded");
  why = load("no/such/file");
  cr_expect(why && strstr(why, "no/such/file: No such file"), "%s", why ? why : "loaded");
}

// A set of certificates lives as long as a connection that began with it: many reloads hold many of them at once.
Test(tls, keys_of_many_reloads_have_room_and_none_is_said) {
  static const size_t sizes[] = {1 << 20, 1 << 16, 1 << 12, 64};
  void **held = NULL, **piece;
  size_t most = 0;
  cr_assert_null(load(NULL));
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (; (piece = tls_secret_new(sizes[i])); most += sizes[i]) {
      *piece = (void *)held;
      held = piece;
    }
  cr_expect_gt(most, (size_t)60 << 20);
  struct tls_set *before = w.set;
  w.set = NULL;
  const char *why = load(NULL);
  cr_assert(why && strstr(why, w.key) && strstr(why, ": out of memory"), "%s", why ? why : "loaded");
  while ((piece = held)) {
    held = *piece;
    tls_secret_free((void *)piece);
  }
  tls_set_free(before);
  cr_assert_null(load(NULL));
}
