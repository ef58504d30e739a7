// Which tickets open.
#include "tls_world.h"

#include <criterion/criterion.h>
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
