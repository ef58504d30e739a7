// Which tickets open.
#include "tls_world.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <openssl/mem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

// Whose key sealed it: a ticket begins with the key's name.
static bool same_key(const SSL_SESSION *a, const SSL_SESSION *b) {
  const uint8_t *p, *q;
  size_t n, m;
  SSL_SESSION_get0_ticket(a, &p, &n);
  SSL_SESSION_get0_ticket(b, &q, &m);
  cr_assert(n > 16 && m > 16);
  return memcmp(p, q, 16) == 0;
}

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
  } cases[] = {{0, 11, true}, {0, 23, true}, {0, 25, false}, {0, 30, false}, {0, 1000, false}, {23, 25, false}, {13, 25, false}, {13, 40, false}};
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

Test(tls, nor_than_the_authority_that_stands_for_it) {
  OPENSSL_free((void *)(uintptr_t)w.issuer.p);
  make_certificate(-HOUR, 2 * HOUR);
  make_client(-HOUR, 100 * HOUR);
  cr_assert_null(load_for(NULL, w.cert));
  for (size_t v = 0; v < 2; v++) {
    cr_assert_not(meet(versions[v], NULL).refused);
    SSL_SESSION *session = take_session();
    pass(HOUR);
    cr_expect(meet(versions[v], session).resumed, "within its time");
    pass(HOUR + 2);
    cr_expect(meet(versions[v], session).refused, "the authority is out of date");
    SSL_SESSION_free(session);
    pass(-2 * HOUR - 2);
  }
}

Test(tls, a_ticket_is_good_under_the_very_authorities_that_it_was_given_under) {
  make_client(-HOUR, 100 * HOUR);
  cr_assert_null(load_for(NULL, w.cert));
  for (size_t v = 0; v < 2; v++) {
    cr_assert_not(meet(versions[v], NULL).refused);
    SSL_SESSION *session = take_session();
    cr_assert_null(load_for(NULL, w.cert));
    cr_expect(meet(versions[v], session).resumed, "loaded anew, the same");
    FILE *f = fopen(w.cert, "a+"); // one more of them, as where some are taken away
    char text[4096];
    size_t n = f ? fread(text, 1, sizeof text, f) : 0;
    cr_assert(n > 100 && fwrite(text, 1, n, f) == n && !fclose(f));
    cr_assert_null(load_for(NULL, w.cert));
    struct meeting m = meet(versions[v], session);
    cr_expect(!m.resumed && !m.refused, "others: the certificate is shown again");
    SSL_SESSION_free(session);
  }
}

// Workers and nodes share keys of tickets and no memory of sessions.
Test(tls, a_client_without_tickets_resumes_nothing) {
  SSL_CTX_set_options(w.client, SSL_OP_NO_TICKET);
  cr_assert_null(load(NULL));
  cr_assert_not(meet(TLS1_2_VERSION, NULL).resumed);
  cr_expect(!w.session || !meet(TLS1_2_VERSION, w.session).resumed);
}

Test(tls, each_ticket_is_sealed_anew) {
  cr_assert_null(load(NULL));
  for (size_t v = 0; v < 2; v++) {
    const uint8_t *p, *q;
    size_t n, m;
    (void)meet(versions[v], NULL);
    SSL_SESSION *first = take_session();
    (void)meet(versions[v], NULL);
    SSL_SESSION *second = take_session();
    SSL_SESSION_get0_ticket(first, &p, &n);
    SSL_SESSION_get0_ticket(second, &q, &m);
    cr_assert(n > 32 && m > 32 && same_key(first, second));
    cr_expect(memcmp(p + 16, q + 16, 16) != 0, "%x: two tickets with one initialization vector", (unsigned)versions[v]);
    SSL_SESSION_free(first);
    SSL_SESSION_free(second);
  }
}

static unsigned descriptors(void) {
  unsigned n = 0;
  DIR *d = opendir("/proc/self/fd");
  cr_assert(d);
  while (readdir(d))
    n++;
  closedir(d);
  return n;
}

Test(tls, what_is_loaded_or_refused_leaves_no_descriptor_and_no_reason_behind) {
  cr_assert_null(load(NULL));
  FILE *f = fopen(w.ocsp, "w");
  cr_assert(f && fputs("no response\n", f) >= 0 && !fclose(f));
  unsigned before = descriptors();
  for (int i = 0; i < 3; i++) {
    const char *why = load(w.ocsp);
    cr_expect(why && strstr(why, "not an OCSP response"), "%s", why ? why : "loaded");
    why = load_for(NULL, w.ocsp);
    cr_expect(why && strstr(why, "client authorities"), "%s", why ? why : "loaded");
    char why_not[300] = "loaded";
    tls_set_free(tls_set_new(&(struct tls_files){w.cert, w.ocsp, NULL}, 1, NULL, w.tickets, why_not, sizeof why_not));
    cr_expect(strstr(why_not, "private key") && strstr(why_not, "give a PEM file"), "%s", why_not);
    tls_set_free(tls_set_new(&(struct tls_files){w.cert, "no/such/file", NULL}, 1, NULL, w.tickets, why_not, sizeof why_not));
    cr_expect(strstr(why_not, "no/such/file: No such file"), "%s", why_not);
    tls_set_free(tls_set_new(&(struct tls_files){w.cert, ".", NULL}, 1, NULL, w.tickets, why_not, sizeof why_not));
    cr_expect(strstr(why_not, "/.: Is a directory"), "%s", why_not);
    cr_assert_null(load_for(NULL, w.cert));
  }
  cr_expect_eq(descriptors(), before);
}

// As `openssl pkcs12` writes them, with what it says of each in front.
Test(tls, a_key_behind_much_text) {
  char key[4096];
  FILE *f = fopen(w.key, "r");
  size_t n = f ? fread(key, 1, sizeof key, f) : 0;
  cr_assert(n > 100 && !fclose(f));
  for (int lines = 1000; lines <= 20000; lines += 19000) {
    f = fopen(w.key, "w");
    cr_assert(f);
    for (int i = 0; i < lines; i++)
      fputs("friendlyName: one.test\n", f);
    cr_assert(fwrite(key, 1, n, f) == n && !fclose(f));
    const char *why = load(NULL);
    if (lines == 1000)
      cr_expect_null(why, "%s", why);
    else
      cr_expect(why && strstr(why, w.key) && strstr(why, "File too large"), "%s", why ? why : "loaded");
  }
}

Test(tls, what_was_secret_is_overwritten_when_it_is_given_back) {
  for (size_t n = 40; n < 20000; n *= 3) {
    uint8_t *p = tls_secret_new(n);
    cr_assert(p);
    memset(p, 0x5a, n);
    tls_secret_free(p); // its place stays mapped, for the next one
    for (size_t i = 0; i < n; i++)
      cr_assert_eq(p[i], 0, "byte %zu of %zu", i, n);
  }
}

static uint8_t *watched; // when it is freed: whether it holds only zeros
static size_t watched_len;
static bool was_wiped;
void __real_free(void *p);
void __wrap_free(void *p);

void __wrap_free(void *p) {
  if (p && p == watched) {
    was_wiped = true;
    for (size_t i = 0; i < watched_len; i++)
      was_wiped &= watched[i] == 0;
    watched = NULL;
  }
  __real_free(p);
}

Test(tls, so_is_all_that_the_library_frees) {
  watched_len = 1000;
  uint8_t *p = OPENSSL_malloc(watched_len);
  cr_assert(p);
  memset(p, 0x5a, watched_len);
  watched = p;
  OPENSSL_free(p);
  cr_expect(!watched && was_wiped);
}

// A name with a zero byte in it is no name: the part in front of it may be somebody else's.
Test(tls, names_of_a_certificate) {
  static const struct {
    const char *name;
    int len;
    size_t num;
  } cases[] = {{"one.test", 8, 1}, {"one.test\0.evil.test", 19, 0}, {"", 0, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct tls_names names = {0};
    X509 *x = X509_new();
    GENERAL_NAMES *all = GENERAL_NAMES_new();
    GENERAL_NAME *one = GENERAL_NAME_new();
    ASN1_IA5STRING *dns = ASN1_IA5STRING_new();
    cr_assert(x && all && one && dns && ASN1_STRING_set(dns, cases[i].name, cases[i].len));
    GENERAL_NAME_set0_value(one, GEN_DNS, dns);
    cr_assert(sk_GENERAL_NAME_push(all, one) && X509_add1_ext_i2d(x, NID_subject_alt_name, all, 0, 0));
    cr_assert(tls_names_read(&names, x));
    cr_expect_eq(names.num, cases[i].num, "%s: %zu", cases[i].name, names.num);
    cr_expect_eq(tls_names_cover(&names, "one.test"), cases[i].num == 1);
    tls_names_free(&names);
    GENERAL_NAMES_free(all);
    X509_free(x);
  }
}

// Without AES instructions ChaCha20 is what is cheap: such clients name it first of all, some behind GREASE (RFC 8701).
Test(tls, a_client_that_names_chacha_first_has_it) {
  static const uint16_t suites[2][2] = {{SSL_CIPHER_AES_128_GCM_SHA256, SSL_CIPHER_CHACHA20_POLY1305_SHA256},
                                        {SSL_CIPHER_CHACHA20_POLY1305_SHA256, SSL_CIPHER_AES_128_GCM_SHA256}};
  static const char *const suites_12[2] = {"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"};
  static const uint16_t want[2][2] = {{SSL_CIPHER_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, SSL_CIPHER_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
                                      {SSL_CIPHER_AES_128_GCM_SHA256, SSL_CIPHER_CHACHA20_POLY1305_SHA256}};
  cr_assert_null(load(NULL));
  for (size_t v = 0; v < 2; v++)
    for (int chacha = 0; chacha < 2; chacha++)
      for (int grease = 0; grease < 2; grease++) {
        SSL_CTX_set_grease_enabled(w.client, grease);
        cr_assert(SSL_CTX_set1_tls13_ciphers(w.client, suites[chacha], NULL, 2) && SSL_CTX_set_strict_cipher_list(w.client, suites_12[chacha]));
        struct meeting m = meet(versions[v], NULL);
        cr_expect_eq(m.suite, want[v][chacha], "%x, chacha first: %d, grease: %d: %x", (unsigned)versions[v], chacha, grease, m.suite);
      }
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

// A reload while memory is short is refused: it neither ends the server nor leaves names out.
Test(tls, a_certificate_without_memory_for_it_is_refused) {
  no_leaf = true;
  const char *why = load(NULL);
  cr_expect(why && strstr(why, w.cert), "%s", why ? why : "loaded");
  no_leaf = false;
  no_names = true;
  why = load(NULL);
  cr_expect(why && strstr(why, w.cert), "%s", why ? why : "loaded");
  no_names = false;
  cr_assert_null(load(NULL));
  cr_expect(w.set->names[0].num == 1 && !strcmp(w.set->names[0].name[0], "two.test"));
}

static unsigned allocations, fail_at; // 0: none fails

void *__real_malloc(size_t n);
void *__real_calloc(size_t num, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t num, size_t n);
void *__wrap_malloc(size_t n) { return ++allocations == fail_at ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t num, size_t n) { return ++allocations == fail_at ? NULL : __real_calloc(num, n); }

// The first set of a process makes what the library keeps for all of them; the next one makes it where that failed.
Test(tls, without_memory_there_is_no_set_but_a_word) {
  unsigned n = 0, failed = 0;
  for (bool all = false; !all; failed += !all) {
    char why[200] = "";
    allocations = 0;
    fail_at = ++n;
    struct tls_set *s = tls_set_client(&(struct tls_client_files){.no_verify = true}, why, sizeof why);
    all = allocations < n;
    fail_at = 0;
    cr_assert(s || *why, "allocation %u: no word", n);
    cr_assert(s || !all, "%s", why);
    tls_set_free(s);
  }
  cr_expect(failed > 20, "%u of %u", failed, n);
}
