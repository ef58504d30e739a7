// Certificates of the server: which names they cover, and when they end. The first byte of the input chooses what follows: 0 a PEM file
// as somebody gave it, else lines that certificates are made from (make_chain()), and a line "O" and an OCSP response behind them; or lines
// of a client's hello among them (hello_line()): then they are a server's certificates, of which the client gets one.
// Names are those that stand in the certificate, found there as bytes, or those it was made from; what a client takes for the
// certificate's is covered; the end is the earliest; an end is said in its time, once a day, and when it is there. Source: RFC 5280
// §4.1.2.5, §4.2.1.6, RFC 6125 §6.4. tls_ends.c is part of this file, with a clock and a log of the target's.
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "net/tls_set.h"
#include "obs/log.h"
#include "fuzz.h"

static int64_t world_now;
static void world_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define time(t) ((time_t)world_now)
#define log_line(level, ...) world_log(__VA_ARGS__)
#include "net/tls_ends.c" // NOLINT(bugprone-suspicious-include)
#undef time
#undef log_line

enum { MAX_CHAIN = 6, MAX_NAMES = 32, MAX_LINE = 256 };
enum kind { KIND_ED25519, KIND_P256, KIND_P384, KIND_P521, KIND_RSA, NUM_KINDS };

// One certificate to be made, as its lines say.
struct wanted {
  enum kind kind; // of its key
  char names[MAX_NAMES][MAX_LINE];
  unsigned num;
  char common[MAX_LINE];
  int64_t from, until;
};

// What a client's hello says, where it says it: numbers of two bytes each, or a name.
enum list { LIST_VERSIONS, LIST_SIGNATURES, LIST_GROUPS, LIST_SUITES, NUM_LISTS };
struct said {
  char name[MAX_LINE];
  uint8_t list[NUM_LISTS][MAX_LINE / 2];
  size_t len[NUM_LISTS];
  bool there[NUM_LISTS], named, any;
};

static struct wanted chain[MAX_CHAIN];
static struct said hello;
static unsigned said_lines;

static void world_log(const char *fmt, ...) {
  char line[8192];
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(line, sizeof line, fmt, args);
  va_end(args);
  MUST(n > 0 && (size_t)n < sizeof line);
  said_lines++;
}

// Files.

static const char *file_of(unsigned n) {
  static char path[3][32];
  static int fds[3] = {-1, -1, -1};
  if (fds[n] < 0) {
    MUST((fds[n] = memfd_create("file", MFD_CLOEXEC)) >= 0);
    snprintf(path[n], sizeof path[n], "/proc/self/fd/%d", fds[n]);
  }
  return path[n];
}

static const char *put_file(unsigned n, struct bytes b) {
  FILE *f = fopen(file_of(n), "we");
  MUST(f && fwrite(b.p, 1, b.n, f) == b.n && !fclose(f));
  return file_of(n);
}

static EVP_PKEY *key_of_test(void) {
  static const uint8_t seed[32] = {1};
  static EVP_PKEY *key;
  if (!key) {
    key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
    FILE *f = fopen(file_of(1), "we");
    MUST(key && f && PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) && !fclose(f));
  }
  return key;
}

// Making certificates.

// A key that nobody can sign with: what is looked at is its kind.
static EVP_PKEY *public_key(enum kind kind) {
  static const int curves[NUM_KINDS] = {[KIND_P256] = NID_X9_62_prime256v1, [KIND_P384] = NID_secp384r1, [KIND_P521] = NID_secp521r1};
  static EVP_PKEY *keys[NUM_KINDS];
  if (kind == KIND_ED25519)
    return key_of_test();
  if (keys[kind])
    return keys[kind];
  MUST((keys[kind] = EVP_PKEY_new()) != NULL);
  if (kind == KIND_RSA) {
    BIGNUM *n = BN_new(), *e = BN_new();
    MUST(n && e && BN_set_bit(n, 2047) && BN_set_bit(n, 0) && BN_set_word(e, 65537));
    RSA *rsa = RSA_new_public_key(n, e);
    MUST(rsa && EVP_PKEY_assign_RSA(keys[kind], rsa));
    BN_free(n);
    BN_free(e);
  } else {
    EC_KEY *ec = EC_KEY_new_by_curve_name(curves[kind]);
    MUST(ec && EC_KEY_set_public_key(ec, EC_GROUP_get0_generator(EC_KEY_get0_group(ec))) && EVP_PKEY_assign_EC_KEY(keys[kind], ec));
  }
  return keys[kind];
}

static bool add_name_to(GENERAL_NAMES *all, int kind, const char *text) {
  GENERAL_NAME *one = GENERAL_NAME_new();
  ASN1_IA5STRING *s = ASN1_IA5STRING_new();
  MUST(one && s && ASN1_STRING_set(s, text, (ossl_ssize_t)strlen(text)));
  GENERAL_NAME_set0_value(one, kind, s);
  return sk_GENERAL_NAME_push(all, one) != 0;
}

static X509 *make_one(const struct wanted *c) {
  static const uint8_t issuer[] = "a"; // of the responses of corpus/ocsp; their serial number is 1
  X509 *cert = X509_new();
  GENERAL_NAMES *names = GENERAL_NAMES_new();
  X509_NAME *by = X509_NAME_new();
  EVP_PKEY *key = key_of_test();
  MUST(cert && names && by && add_name_to(names, GEN_EMAIL, "someone@example"));
  for (unsigned i = 0; i < c->num; i++)
    MUST(add_name_to(names, GEN_DNS, c->names[i]));
  bool ok = X509_set_version(cert, X509_VERSION_3) && ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) &&
            X509_NAME_add_entry_by_NID(by, NID_commonName, V_ASN1_UTF8STRING, issuer, 1, -1, 0) && X509_set_issuer_name(cert, by) &&
            ASN1_TIME_set_posix(X509_getm_notBefore(cert), c->from) && ASN1_TIME_set_posix(X509_getm_notAfter(cert), c->until) &&
            X509_set_pubkey(cert, public_key(c->kind)) && X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) &&
            (!*c->common || X509_NAME_add_entry_by_NID(X509_get_subject_name(cert), NID_commonName, MBSTRING_UTF8, (const uint8_t *)c->common,
                                                       -1, -1, 0)) &&
            X509_sign(cert, key, NULL);
  GENERAL_NAMES_free(names);
  X509_NAME_free(by);
  if (ok)
    return cert;
  X509_free(cert);
  ERR_clear_error();
  return NULL;
}

// s the name that is asked for, v, a, g and x versions, signature algorithms, groups and cipher suites in hexadecimal digits.
static void hello_line(uint8_t what, const char *text) {
  static const char lists[NUM_LISTS] = {[LIST_VERSIONS] = 'v', [LIST_SIGNATURES] = 'a', [LIST_GROUPS] = 'g', [LIST_SUITES] = 'x'};
  if (what == 's') {
    memcpy(hello.name, text, sizeof hello.name);
    hello.named = hello.any = true;
  }
  const char *at = memchr(lists, what, NUM_LISTS);
  if (!at)
    return;
  size_t l = (size_t)(at - lists), n = strlen(text) / 2;
  if (hex_read(hello.list[l], n, bytes_of((const uint8_t *)text, 2 * n)))
    return;
  hello.len[l] = n;
  hello.there[l] = hello.any = true;
}

// d a DNS name, c the common name, f and u from and until when, k the kind of the key, n another certificate, of the chain. Gives how many,
// and what follows "O".
static unsigned make_chain(struct bytes *ocsp, struct bytes in) {
  unsigned n = 0;
  memset(chain, 0, sizeof chain);
  memset(&hello, 0, sizeof hello);
  for (unsigned i = 0; i < MAX_CHAIN; i++)
    chain[i].until = 2000000000 + i;
  *ocsp = (struct bytes){0};
  while (in.n) {
    const uint8_t *end = memchr(in.p, '\n', in.n);
    size_t len = end ? (size_t)(end - in.p) : in.n, text_len = len ? len - 1 : 0;
    char text[MAX_LINE] = "";
    uint64_t number = 0;
    memcpy(text, in.p + (len > 0), text_len < MAX_LINE ? text_len : MAX_LINE - 1);
    size_t minus = text[0] == '-';
    bool is_number = !parse_u64(&number, bytes_str(text + minus)) && number < (uint64_t)1 << 40;
    struct wanted *c = &chain[n];
    uint8_t what = len ? in.p[0] : 0;
    if (what == 'd' && c->num < MAX_NAMES)
      memcpy(c->names[c->num++], text, sizeof text);
    else if (what == 'c')
      memcpy(c->common, text, sizeof text);
    else if ((what == 'f' || what == 'u') && is_number)
      *(what == 'f' ? &c->from : &c->until) = minus ? -(int64_t)number : (int64_t)number;
    else if (what == 'k')
      c->kind = (uint8_t)(text[0] - '0') % NUM_KINDS;
    else if (what == 'n' && n + 1 < MAX_CHAIN)
      n++;
    else
      hello_line(what, text);
    in = bytes_of(in.p + len + (end != NULL), in.n - len - (end != NULL));
    if (what == 'O') {
      *ocsp = in;
      break;
    }
  }
  return n + 1;
}

// Checks.

static bool in_der(const X509 *cert, const char *name) {
  uint8_t *der = NULL;
  int n = i2d_X509((X509 *)(uintptr_t)cert, &der);
  bool there = n > 0 && memmem(der, (size_t)n, name, strlen(name));
  OPENSSL_free(der);
  return there;
}

static void check_made_names(const struct tls_names *n, const struct wanted *c) {
  size_t k = 0;
  for (unsigned i = 0; i < c->num; i++)
    if (*c->names[i])
      MUST(k < n->num && !strcmp(n->name[k++], c->names[i]));
  if (!k && *c->common)
    MUST(k < n->num && !strcmp(n->name[k++], c->common));
  MUST(k == n->num);
}

// `name` and one that has another first label: what a client accepts is covered; covered by a wildcard is one label.
static void check_cover(const struct tls_names *n, X509 *cert, const char *name) {
  char other[MAX_LINE + 8];
  const char *parent = strchr(name, '.');
  bool takes = *name && X509_check_host(cert, name, strlen(name), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
  MUST(!takes || tls_names_cover(n, name));
  size_t len = strlen(name);
  for (size_t i = 0; i <= len && len <= MAX_LINE; i++)
    other[i] = (char)(name[i] >= 'a' && name[i] <= 'z' ? name[i] - 'a' + 'A' : name[i]);
  MUST(len > MAX_LINE || tls_names_cover(n, other));
  if (!parent || strlen(parent) >= MAX_LINE)
    return;
  snprintf(other, sizeof other, "xq%s", parent);
  takes = X509_check_host(cert, other, strlen(other), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
  MUST(!takes || tls_names_cover(n, other));
  if (!tls_names_cover(n, other))
    return;
  bool found = false; // its own, or the wildcard's
  for (size_t i = 0; i < n->num; i++)
    found |= !strcasecmp(n->name[i], other) || (!strncmp(n->name[i], "*.", 2) && !strcasecmp(n->name[i] + 2, parent + 1));
  MUST(found);
  snprintf(other, sizeof other, "xq.yq%s", parent);
  if (strlen(other) < MAX_LINE && tls_names_cover(n, other)) {
    found = false;
    for (size_t i = 0; i < n->num; i++)
      found |= !strcasecmp(n->name[i], other) || (!strncmp(n->name[i], "*.yq", 4) && !strcasecmp(n->name[i] + 4, parent));
    MUST(found);
  }
}

static void check_names(const struct tls_names *n, X509 *cert) {
  for (size_t i = 0; i < n->num; i++) {
    MUST(*n->name[i] && in_der(cert, n->name[i]) && tls_names_cover(n, n->name[i]));
    if (i < 8)
      check_cover(n, cert, n->name[i]);
  }
  MUST(tls_names_cover_all(n, n) == (n->num > 0));
  MUST(!tls_names_cover(n, "no.such.name.invalid") || n->num);
}

// No certificate ends before; one does then.
static void check_end(const struct tls_end *e, X509 *const *certs, size_t num) {
  bool found = false;
  for (size_t i = 0; i < num; i++) {
    const ASN1_TIME *until = X509_get0_notAfter(certs[i]);
    int64_t from;
    if (!ASN1_TIME_to_posix(X509_get0_notBefore(certs[i]), &from))
      continue;
    MUST(X509_cmp_time_posix(until, e->until - 1) >= 0);
    found |= X509_cmp_time_posix(until, e->until) < 0 && X509_cmp_time_posix(until, e->until - 1) > 0;
  }
  MUST(found && e->kind == TLS_END_CERTIFICATE && !strncmp(e->what, "number ", 7));
}

// From three weeks before an end until two days after it, in steps of up to half a day.
static void check_said(struct tls_set *s, const struct tls_end *e, uint32_t seed) {
  int64_t began = e->until - 21 * DAY, last = INT64_MIN;
  bool after = false;
  for (unsigned i = 0; i < s->num_ends; i++)
    s->ends[i].said = 0;
  if (s->num_ends != 1 || e->kind != TLS_END_CERTIFICATE || began < DAY)
    return;
  for (world_now = began; world_now < e->until + 2 * DAY;) {
    said_lines = 0;
    unsigned wait = tls_say_ends(s, false);
    MUST(wait >= 1 && wait <= HOUR && said_lines <= 1);
    if (said_lines) {
      MUST(world_now >= e->until - SOON && (last == INT64_MIN || world_now - last >= DAY || (last < e->until && world_now >= e->until)));
      last = world_now;
    }
    after |= said_lines && world_now >= e->until;
    MUST(world_now < e->until || after);
    MUST(last == INT64_MIN || world_now - last < DAY + DAY / 2);
    seed = seed * 1664525 + 1013904223;
    world_now += wait + (seed >> 8) % (DAY / 2 - HOUR);
  }
  MUST(after);
}

static uint32_t seed_of(struct bytes b) {
  uint32_t seed = (uint32_t)b.n;
  for (size_t i = 0; i < b.n; i++)
    seed = seed * 31 + b.p[i];
  return seed;
}

static void check_set(struct tls_set *s, uint32_t seed) {
  STACK_OF(X509) *rest = NULL;
  X509 *certs[64];
  size_t num = 0;
  certs[num++] = SSL_CTX_get0_certificate(s->ctx[0]);
  MUST(SSL_CTX_get0_chain_certs(s->ctx[0], &rest));
  for (size_t i = 0; i < sk_X509_num(rest) && num < 64; i++)
    certs[num++] = sk_X509_value(rest, i);
  check_names(&s->names[0], certs[0]);
  unsigned ends;
  const struct tls_end *e = tls_ends(s, &ends);
  if (ends && e->kind == TLS_END_CERTIFICATE) {
    check_end(e, certs, num);
    check_said(s, e, seed);
  }
}

// Reads names; false where a certificate has some that cannot be decoded, and only there.
static bool read_names(struct tls_names *to, const X509 *cert) {
  int critical;
  GENERAL_NAMES *all = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);
  bool read = tls_names_read(to, cert);
  MUST(read == (all || critical < 0));
  GENERAL_NAMES_free(all);
  return read;
}

static void read_pem(struct bytes pem) {
  struct tls_set *s = tls_set_alloc();
  char why[400] = "";
  MUST(s && (s->ctx[0] = SSL_CTX_new(TLS_server_method())));
  s->num = 1;
  const char *path = put_file(0, pem);
  if (SSL_CTX_use_certificate_chain_file(s->ctx[0], path)) {
    tls_look_at_chain(s->ctx[0], path);
    (void)read_names(&s->names[0], SSL_CTX_get0_certificate(s->ctx[0]));
    MUST(tls_fits_flight(s->ctx[0], path, NULL, why, sizeof why) || !strncmp(why, "certificate ", 12));
    MUST(tls_ends_read(s, 0, path, NULL));
    check_set(s, seed_of(pem));
  } else {
    MUST(!tls_fail(why, sizeof why, "certificate", path, TLS_WANT_CHAIN) && !strncmp(why, "certificate /", 13));
  }
  ERR_clear_error();
  tls_set_free(s);
}

// Whether the response may go with the certificate, as the parser of responses says.
static void check_staple(const struct tls_set *s, const char *why, struct bytes der) {
  static const uint8_t serial[] = {1};
  static const uint8_t issuer[] = {0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 6, 3, 0x55, 4, 3, 0x0c, 1, 'a'};
  struct ocsp_status status = {0};
  const char *why_not = ocsp_read(&status, der, &(struct ocsp_cert){bytes_of(serial, 1), bytes_of(issuer, sizeof issuer)});
  MUST(!s == (why_not != NULL));
  if (!s) {
    MUST(!strncmp(why, "OCSP response /", 15) && strstr(why, why_not));
    return;
  }
  unsigned num;
  const struct tls_end *e = tls_ends(s, &num);
  bool good = status.verdict == OCSP_GOOD && status.until != INT64_MAX, found = false;
  for (unsigned i = 0; i < num; i++)
    found |= e[i].kind == TLS_END_STAPLE && e[i].from == status.from && e[i].until == status.until;
  MUST(found == good);
}

// The certificate for a client: what it can verify before what it cannot, its very name before a wildcard, then the order; where none has
// the name, the first that has all names of the first and that it can verify. Source: RFC 8446 §4.2.3, RFC 8422 §5.1, RFC 6066 §3.

static bool says(enum list l, unsigned number) {
  for (size_t i = 0; i + 1 < hello.len[l]; i += 2)
    if (hello.list[l][i] == number >> 8 && hello.list[l][i + 1] == (number & 255))
      return true;
  return false;
}

static bool says_any(enum list l, const uint16_t *numbers, size_t num) {
  for (size_t i = 0; i < num; i++)
    if (says(l, numbers[i]))
      return true;
  return false;
}
#define SAYS(list, ...) says_any(list, (const uint16_t[]){__VA_ARGS__}, sizeof((const uint16_t[]){__VA_ARGS__}) / sizeof(uint16_t))

static bool can_verify(enum kind kind) {
  static const uint16_t ecdsa[NUM_KINDS] = {[KIND_P256] = 0x0403, [KIND_P384] = 0x0503, [KIND_P521] = 0x0603};
  static const uint16_t curve[NUM_KINDS] = {[KIND_P256] = 23, [KIND_P384] = 24, [KIND_P521] = 25};
  bool is_13 = says(LIST_VERSIONS, 0x0304), pss = SAYS(LIST_SIGNATURES, 0x0804, 0x0805, 0x0806);
  bool ec_suite = SAYS(LIST_SUITES, 0xc02b, 0xc02c, 0xcca9), rsa_suite = SAYS(LIST_SUITES, 0xc02f, 0xc030, 0xcca8);
  if (kind == KIND_RSA)
    return is_13 ? pss : rsa_suite && (pss || SAYS(LIST_SIGNATURES, 0x0401, 0x0501, 0x0601));
  if (kind == KIND_ED25519)
    return says(LIST_SIGNATURES, 0x0807) && (is_13 || ec_suite);
  return is_13 ? says(LIST_SIGNATURES, ecdsa[kind])
               : SAYS(LIST_SIGNATURES, 0x0403, 0x0503, 0x0603) && ec_suite && (!hello.there[LIST_GROUPS] || says(LIST_GROUPS, curve[kind]));
}

// 2 its very name, 1 a wildcard, 0 neither.
static unsigned match(const struct tls_names *n, const char *name) {
  size_t label = strcspn(name, ".");
  unsigned best = 0;
  for (size_t i = 0; i < n->num; i++) {
    if (!strcasecmp(n->name[i], name))
      return 2;
    if (label && name[label] && n->name[i][0] == '*' && !strcasecmp(n->name[i] + 1, name + label))
      best = 1;
  }
  return best;
}

static void check_choice(const struct tls_set *s, unsigned got) {
  unsigned best = 0, want = 0;
  MUST(got < s->num);
  for (unsigned i = 0; i < s->num && hello.named; i++) {
    unsigned m = match(&s->names[i], hello.name), rank = m ? m + 2 * can_verify(chain[i].kind) : 0;
    if (rank > best) {
      best = rank;
      want = i;
    }
  }
  for (unsigned i = 0; i < s->num && !best; i++)
    if (can_verify(chain[i].kind) && tls_names_cover_all(&s->names[i], &s->names[0])) {
      want = i;
      break;
    }
  MUST(got == want);
}

static void put_be(uint8_t **p, size_t number, unsigned bytes) {
  for (; bytes; bytes--)
    *(*p)++ = (uint8_t)(number >> 8 * (bytes - 1));
}

static void put_bytes(uint8_t **p, const void *from, size_t n) {
  if (n)
    memcpy(*p, from, n);
  *p += n;
}

// Source: RFC 8446 §4.1.2, §5.1.
static size_t write_hello(uint8_t *to) {
  static const struct {
    uint16_t type;
    unsigned prefix;
  } extensions[] = {[LIST_VERSIONS] = {43, 1}, [LIST_SIGNATURES] = {13, 2}, [LIST_GROUPS] = {10, 2}};
  uint8_t *p = to;
  size_t name = strlen(hello.name), total = 0;
  for (unsigned l = 0; l < LIST_SUITES; l++)
    total += hello.there[l] ? 4 + extensions[l].prefix + hello.len[l] : 0;
  total += hello.named ? 9 + name : 0;
  size_t body = 2 + 32 + 1 + 2 + hello.len[LIST_SUITES] + 2 + 2 + total;
  put_be(&p, 0x160301, 3);
  put_be(&p, 4 + body, 2);
  put_be(&p, 1, 1);
  put_be(&p, body, 3);
  put_be(&p, 0x0303, 2);
  memset(p, 7, 32);
  p += 32;
  put_be(&p, 0, 1);
  put_be(&p, hello.len[LIST_SUITES], 2);
  put_bytes(&p, hello.list[LIST_SUITES], hello.len[LIST_SUITES]);
  put_be(&p, 0x0100, 2);
  put_be(&p, total, 2);
  for (unsigned l = 0; l < LIST_SUITES; l++) {
    if (!hello.there[l])
      continue;
    put_be(&p, extensions[l].type, 2);
    put_be(&p, extensions[l].prefix + hello.len[l], 2);
    put_be(&p, hello.len[l], extensions[l].prefix);
    put_bytes(&p, hello.list[l], hello.len[l]);
  }
  if (hello.named) {
    put_be(&p, 0, 2);
    put_be(&p, 5 + name, 2);
    put_be(&p, 3 + name, 2);
    put_be(&p, 0, 1);
    put_be(&p, name, 2);
    put_bytes(&p, hello.name, name);
  }
  MUST((size_t)(p - to) == 9 + body);
  return (size_t)(p - to);
}

static const struct tls_set *asked;
static unsigned answers;

static enum ssl_select_cert_result_t on_made_hello(const SSL_CLIENT_HELLO *h) {
  check_choice(asked, tls_names_choose(asked, h));
  answers++;
  return ssl_select_cert_error; // and that is all of this handshake
}

static void choose_of(unsigned num) {
  static SSL_CTX *ctx;
  uint8_t record[2048];
  struct tls_set *s = tls_set_alloc();
  MUST(s && (ctx || (ctx = SSL_CTX_new(TLS_server_method()))));
  SSL_CTX_set_select_certificate_cb(ctx, on_made_hello);
  if (!hello.there[LIST_SUITES]) { // no hello is without
    memcpy(hello.list[LIST_SUITES], "\x13\x01", 2);
    hello.len[LIST_SUITES] = 2;
  }
  for (s->num = 0; s->num < num; s->num++) {
    X509 *cert = make_one(&chain[s->num]);
    if (!cert)
      break;
    bool read = read_names(&s->names[s->num], cert);
    X509_free(cert);
    if (!read) {
      tls_names_free(&s->names[s->num]);
      break;
    }
    s->names[s->num].as_first = tls_names_cover_all(&s->names[s->num], &s->names[0]);
  }
  SSL *ssl = SSL_new(ctx);
  size_t n = write_hello(record);
  BIO *in = BIO_new_mem_buf(record, (ossl_ssize_t)n), *out = BIO_new(BIO_s_mem());
  MUST(ssl && in && out);
  SSL_set_bio(ssl, in, out);
  asked = s;
  answers = 0;
  if (s->num == num)
    MUST(SSL_accept(ssl) != 1 && answers <= 1);
  // A hello that BoringSSL takes is answered: one with whole suites, and a name where one is said.
  bool plain = hello.len[LIST_SUITES] >= 2 && hello.len[LIST_SUITES] % 2 == 0 && (!hello.named || *hello.name);
  MUST(s->num < num || answers || !plain);
  SSL_free(ssl);
  ERR_clear_error();
  tls_set_free(s);
}

static void read_made(struct bytes in) {
  static struct tls_tickets *tickets;
  struct bytes ocsp;
  char why[400] = "";
  unsigned num = make_chain(&ocsp, in);
  if (hello.any) {
    choose_of(num);
    return;
  }
  for (unsigned i = 0; i < num; i++)
    chain[i].kind = KIND_ED25519; // which a set has the key of
  int64_t first = INT64_MAX;
  FILE *f = fopen(file_of(0), "we");
  bool ok = f != NULL;
  MUST(ok);
  for (unsigned i = 0; ok && i < num; i++) {
    X509 *cert = make_one(&chain[i]);
    ok = cert && PEM_write_X509(f, cert);
    first = chain[i].until < first ? chain[i].until : first;
    X509_free(cert);
  }
  fclose(f);
  if (!ok) // a time or a name that no certificate can have
    return;
  if (!tickets)
    MUST((tickets = tls_tickets_new()) != NULL);
  struct tls_files files = {.cert = file_of(0), .key = file_of(1), .ocsp = ocsp.n ? put_file(2, ocsp) : NULL};
  struct tls_set *s = tls_set_new(&files, 1, NULL, tickets, why, sizeof why);
  if (ocsp.n)
    check_staple(s, why, ocsp);
  else
    require(s != NULL, why);
  if (!s)
    return;
  check_made_names(&s->names[0], &chain[0]);
  MUST(s->num_ends && s->ends[0].until == first);
  check_set(s, seed_of(in));
  tls_set_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  log_set_level(LOG_ERROR);
  world_now = 1000000000;
  if (!size)
    return 0;
  if (data[0])
    read_made(bytes_of(data + 1, size - 1));
  else
    read_pem(bytes_of(data + 1, size - 1));
  return 0;
}
