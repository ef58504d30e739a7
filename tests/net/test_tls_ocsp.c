// Which OCSP responses are stapled, and what is said of certificates and responses that end.
#include "tls_world.h"

#include <criterion/criterion.h>
#include <openssl/bytestring.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <unistd.h>

// OCSP responses, made by hand. Source: RFC 6960 §4.2.1.

struct shape {
  struct bytes issuer, serial;
  unsigned error, verdict; // responseStatus; tag of certStatus
  int64_t from, until;     // relative to now; until 0: none
  bool is_other_kind, about_others_first, more_behind_until;
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
    if (s->more_behind_until)
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
  s = good();
  s.more_behind_until = true;
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

// Whichever stands first in the file.
Test(tls, the_first_authority_to_end_counts) {
  char both[4096];
  for (int hours = 20; hours <= 300; hours += 280) {
    unsigned num;
    make_client(-HOUR, hours * HOUR); // the file holds it, whatever it is
    FILE *f = fopen(w.cert, "r"), *g = fopen(w.client_cert, "r+");
    size_t n = f ? fread(both, 1, sizeof both, f) : 0;
    cr_assert(g && n > 100 && !fseek(g, 0, SEEK_END) && fwrite(both, 1, n, g) == n && !fclose(f) && !fclose(g));
    cr_assert_null(load_for(NULL, w.client_cert));
    const struct tls_end *ends = tls_ends(w.set, &num);
    cr_assert(num == 2 && ends[1].kind == TLS_END_AUTHORITY);
    int64_t left = ends[1].until - time(NULL), want = hours < 100 ? hours * HOUR : 100 * HOUR;
    cr_expect(left <= want && left > want - HOUR, "%d hours: %lld", hours, (long long)left);
    cr_expect_eq(strcmp(ends[1].what, hours < 100 ? "/CN=client.test" : "/CN=one.test"), 0, "%s", ends[1].what);
  }
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
