// Which certificate a client gets: by the name it asks for, and by what it can verify.
#include "net/tls_set.h"
#include <openssl/bytestring.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { P256 = 1, P384 = 2, P521 = 4, ED25519 = 8, RSA_KEY = 16, ANY_EC = P256 | P384 | P521 };

static unsigned kind_of(const EVP_PKEY *key) {
  switch (key ? EVP_PKEY_id(key) : EVP_PKEY_NONE) {
  case EVP_PKEY_RSA:
    return RSA_KEY;
  case EVP_PKEY_ED25519:
    return ED25519;
  case EVP_PKEY_EC:
    return EVP_PKEY_bits(key) == 256 ? P256 : EVP_PKEY_bits(key) == 384 ? P384 : P521;
  default:
    return 0;
  }
}

static bool add_name(struct tls_names *to, const uint8_t *p, size_t n) {
  if (!n || memchr(p, 0, n))
    return true;
  char *name = strndup((const char *)p, n);
  if (!name)
    return false;
  to->name[to->num++] = name;
  return true;
}

// The subject's common name counts where no DNS name is given.
static bool add_common_name(struct tls_names *to, const X509 *cert) {
  const X509_NAME *subject = X509_get_subject_name(cert);
  int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  const ASN1_STRING *s = at < 0 ? NULL : X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
  return !s || add_name(to, ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

bool tls_names_read(struct tls_names *to, const X509 *cert) {
  int critical; // below 0: there is none, or more than one
  GENERAL_NAMES *all = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);
  size_t n = all ? sk_GENERAL_NAME_num(all) : 0;
  to->kind = kind_of(X509_get0_pubkey(cert));
  to->name = calloc(n + 1, sizeof *to->name);
  bool ok = to->name != NULL && (all || critical < 0);
  for (size_t i = 0; ok && i < n; i++) {
    const GENERAL_NAME *g = sk_GENERAL_NAME_value(all, i);
    if (g->type == GEN_DNS)
      ok = add_name(to, ASN1_STRING_get0_data(g->d.dNSName), (size_t)ASN1_STRING_length(g->d.dNSName));
  }
  GENERAL_NAMES_free(all);
  return ok && (to->num || add_common_name(to, cert));
}

void tls_names_free(struct tls_names *n) {
  for (size_t i = 0; i < n->num; i++)
    free(n->name[i]);
  free(n->name);
}

enum cover { COVER_NOT, COVER_WILDCARD, COVER_NAME };

// "*." stands for one label.
static enum cover covers(const struct tls_names *n, const char *name) {
  const char *parent = strchr(name, '.');
  enum cover got = COVER_NOT;
  for (size_t i = 0; i < n->num; i++) {
    const char *own = n->name[i];
    if (!strcasecmp(own, name))
      return COVER_NAME;
    if (parent && parent != name && own[0] == '*' && !strcasecmp(own + 1, parent))
      got = COVER_WILDCARD;
  }
  return got;
}

bool tls_names_cover(const struct tls_names *n, const char *name) { return covers(n, name) != COVER_NOT; }

bool tls_names_cover_all(const struct tls_names *n, const struct tls_names *of) {
  for (size_t i = 0; i < of->num; i++)
    if (!tls_names_cover(n, of->name[i]))
      return false;
  return of->num > 0;
}

static bool extension(CBS *out, const SSL_CLIENT_HELLO *hello, uint16_t type) {
  const uint8_t *p;
  size_t n;
  if (!SSL_early_callback_ctx_extension_get(hello, type, &p, &n))
    return false;
  CBS_init(out, p, n);
  return true;
}

static bool speaks_13(const SSL_CLIENT_HELLO *hello) {
  CBS in, list;
  uint16_t v;
  if (!extension(&in, hello, TLSEXT_TYPE_supported_versions) || !CBS_get_u8_length_prefixed(&in, &list))
    return false;
  while (CBS_get_u16(&list, &v))
    if (v == TLS1_3_VERSION)
      return true;
  return false;
}

// In TLS 1.2 a signature with ECDSA names a digest and no curve.
static unsigned kinds_of_signature(uint16_t s, bool is_13) {
  switch (s) {
  case SSL_SIGN_ECDSA_SECP256R1_SHA256:
    return is_13 ? P256 : ANY_EC;
  case SSL_SIGN_ECDSA_SECP384R1_SHA384:
    return is_13 ? P384 : ANY_EC;
  case SSL_SIGN_ECDSA_SECP521R1_SHA512:
    return is_13 ? P521 : ANY_EC;
  case SSL_SIGN_ED25519:
    return ED25519;
  case SSL_SIGN_RSA_PSS_RSAE_SHA256:
  case SSL_SIGN_RSA_PSS_RSAE_SHA384:
  case SSL_SIGN_RSA_PSS_RSAE_SHA512:
    return RSA_KEY;
  case SSL_SIGN_RSA_PKCS1_SHA256:
  case SSL_SIGN_RSA_PKCS1_SHA384:
  case SSL_SIGN_RSA_PKCS1_SHA512:
    return is_13 ? 0 : RSA_KEY;
  default:
    return 0;
  }
}

// TLS 1.2 has the kind in its cipher suites too.
static unsigned kinds_of_suites(const SSL_CLIENT_HELLO *hello) {
  CBS in;
  uint16_t suite;
  unsigned kinds = 0;
  CBS_init(&in, hello->cipher_suites, hello->cipher_suites_len);
  while (CBS_get_u16(&in, &suite)) {
    const SSL_CIPHER *c = SSL_get_cipher_by_value(suite);
    int auth = c && SSL_CIPHER_is_aead(c) ? SSL_CIPHER_get_auth_nid(c) : NID_undef;
    if (auth == NID_auth_ecdsa)
      kinds |= ANY_EC | ED25519;
    else if (auth == NID_auth_rsa && SSL_CIPHER_get_kx_nid(c) == NID_kx_ecdhe)
      kinds |= RSA_KEY;
  }
  return kinds;
}

// And the curves of ECDSA among its groups. Source: RFC 8422 §5.1.
static unsigned kinds_of_groups(const SSL_CLIENT_HELLO *hello) {
  CBS in, list;
  uint16_t group;
  unsigned kinds = RSA_KEY | ED25519;
  if (!extension(&in, hello, TLSEXT_TYPE_supported_groups) || !CBS_get_u16_length_prefixed(&in, &list))
    return kinds | ANY_EC;
  while (CBS_get_u16(&list, &group))
    kinds |= group == SSL_GROUP_SECP256R1 ? P256 : group == SSL_GROUP_SECP384R1 ? P384 : group == SSL_GROUP_SECP521R1 ? P521 : 0;
  return kinds;
}

static unsigned kinds_of_client(const SSL_CLIENT_HELLO *hello) {
  CBS in, list;
  uint16_t s;
  bool is_13 = speaks_13(hello);
  unsigned kinds = 0;
  if (!extension(&in, hello, TLSEXT_TYPE_signature_algorithms) || !CBS_get_u16_length_prefixed(&in, &list))
    return 0;
  while (CBS_get_u16(&list, &s))
    kinds |= kinds_of_signature(s, is_13);
  return is_13 ? kinds : kinds & kinds_of_suites(hello) & kinds_of_groups(hello);
}

// What the client can verify comes before what it cannot, a certificate with its very name before a wildcard; then the order.
unsigned tls_names_choose(const struct tls_set *s, const SSL_CLIENT_HELLO *hello) {
  const char *name = SSL_get_servername(hello->ssl, TLSEXT_NAMETYPE_host_name);
  unsigned kinds = kinds_of_client(hello), best = 0, best_at = 0;
  enum { VERIFIES = 4 };
  for (unsigned i = 0; name && i < s->num; i++) {
    unsigned fits = covers(&s->names[i], name);
    if (fits && s->names[i].kind & kinds)
      fits += VERIFIES;
    if (fits > best) {
      best = fits;
      best_at = i;
    }
  }
  for (unsigned i = 0; !best && i < s->num; i++)
    if (s->names[i].as_first && s->names[i].kind & kinds)
      return i;
  return best_at;
}
