#include "net/tls_ocsp.h"
#include <openssl/bytestring.h>
#include <openssl/digest.h>
#include <openssl/err.h>
#include <openssl/posix_time.h>
#include <time.h>

static const char not_ocsp[] = "not an OCSP response in DER";

#define EXPLICIT(n) (CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | (n))

// OCSPResponse and ResponseBytes, RFC 6960 §4.2.1. Gives the BasicOCSPResponse.
static const char *open_response(CBS *basic, struct bytes der) {
  static const uint8_t id_pkix_ocsp_basic[] = {0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1};
  CBS in, response, status, tagged, bytes, type;
  CBS_init(&in, der.p, der.n);
  if (!CBS_get_asn1(&in, &response, CBS_ASN1_SEQUENCE) || CBS_len(&in) || !CBS_get_asn1(&response, &status, CBS_ASN1_ENUMERATED) ||
      CBS_len(&status) != 1)
    return not_ocsp;
  if (CBS_data(&status)[0]) // successful is 0
    return "the responder gave an error instead of a status";
  if (!CBS_get_asn1(&response, &tagged, EXPLICIT(0)) || CBS_len(&response) || !CBS_get_asn1(&tagged, &bytes, CBS_ASN1_SEQUENCE) ||
      CBS_len(&tagged) || !CBS_get_asn1(&bytes, &type, CBS_ASN1_OBJECT) || !CBS_get_asn1(&bytes, basic, CBS_ASN1_OCTETSTRING) || CBS_len(&bytes))
    return not_ocsp;
  return CBS_mem_equal(&type, id_pkix_ocsp_basic, sizeof id_pkix_ocsp_basic) ? NULL : "not a basic response";
}

// BasicOCSPResponse: tbsResponseData, signatureAlgorithm, signature and certs [0]. Gives the ResponseData.
static bool open_basic(CBS *data, CBS basic) {
  CBS in, tagged, certs;
  int given;
  return CBS_get_asn1(&basic, &in, CBS_ASN1_SEQUENCE) && CBS_len(&basic) == 0 && CBS_get_asn1(&in, data, CBS_ASN1_SEQUENCE) &&
         CBS_get_asn1(&in, NULL, CBS_ASN1_SEQUENCE) && CBS_get_asn1(&in, NULL, CBS_ASN1_BITSTRING) &&
         CBS_get_optional_asn1(&in, &tagged, &given, EXPLICIT(0)) && CBS_len(&in) == 0 &&
         (!given || (CBS_get_asn1(&tagged, &certs, CBS_ASN1_SEQUENCE) && CBS_len(&tagged) == 0));
}

// ResponseData: version [0] DEFAULT v1, responderID, producedAt, responses, responseExtensions [1]. Gives the responses.
static bool open_data(CBS *responses, CBS data) {
  CBS responder;
  CBS_ASN1_TAG tag;
  return CBS_get_optional_asn1(&data, NULL, NULL, EXPLICIT(0)) && CBS_get_any_asn1(&data, &responder, &tag) &&
         (tag == EXPLICIT(1) || tag == EXPLICIT(2)) && CBS_get_asn1(&data, NULL, CBS_ASN1_GENERALIZEDTIME) &&
         CBS_get_asn1(&data, responses, CBS_ASN1_SEQUENCE) && CBS_get_optional_asn1(&data, NULL, NULL, EXPLICIT(1)) && CBS_len(&data) == 0;
}

static bool read_time(int64_t *out, CBS *in) {
  CBS text;
  struct tm tm;
  return CBS_get_asn1(in, &text, CBS_ASN1_GENERALIZEDTIME) && CBS_parse_generalized_time(&text, &tm, 0) && OPENSSL_tm_to_posix(&tm, out);
}

// The rest of a SingleResponse: certStatus, thisUpdate, nextUpdate [0], singleExtensions [1].
static bool read_single(struct ocsp_status *out, CBS in) {
  CBS status, tagged;
  CBS_ASN1_TAG tag;
  int given;
  if (!CBS_get_any_asn1(&in, &status, &tag))
    return false;
  if (tag == (CBS_ASN1_CONTEXT_SPECIFIC | 0) && CBS_len(&status) == 0)
    out->verdict = OCSP_GOOD;
  else if (tag == EXPLICIT(1))
    out->verdict = OCSP_REVOKED;
  else if (tag == (CBS_ASN1_CONTEXT_SPECIFIC | 2) && CBS_len(&status) == 0)
    out->verdict = OCSP_UNKNOWN;
  else
    return false;
  out->until = INT64_MAX;
  return read_time(&out->from, &in) && CBS_get_optional_asn1(&in, &tagged, &given, EXPLICIT(0)) &&
         (!given || (read_time(&out->until, &tagged) && CBS_len(&tagged) == 0)) &&
         CBS_get_optional_asn1(&in, NULL, NULL, EXPLICIT(1)) && CBS_len(&in) == 0;
}

// CertID: hashAlgorithm, issuerNameHash, issuerKeyHash, serialNumber. The issuer's key is nowhere but in its certificate, which
// need not be at hand.
static bool read_cert_id(bool *is_it, CBS *single, const struct ocsp_cert *cert) {
  CBS id, algorithm, name_hash, key_hash, serial;
  if (!CBS_get_asn1(single, &id, CBS_ASN1_SEQUENCE) || !CBS_get_asn1_element(&id, &algorithm, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&id, &name_hash, CBS_ASN1_OCTETSTRING) || !CBS_get_asn1(&id, &key_hash, CBS_ASN1_OCTETSTRING) ||
      !CBS_get_asn1(&id, &serial, CBS_ASN1_INTEGER) || CBS_len(&id))
    return false;
  const EVP_MD *md = EVP_parse_digest_algorithm(&algorithm);
  uint8_t hash[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  ERR_clear_error(); // an unknown algorithm is no fault, it only cannot be compared
  *is_it = md && CBS_mem_equal(&serial, cert->serial.p, cert->serial.n) &&
           EVP_Digest(cert->issuer.p, cert->issuer.n, hash, &n, md, NULL) && CBS_mem_equal(&name_hash, hash, n);
  return true;
}

const char *ocsp_read(struct ocsp_status *out, struct bytes der, const struct ocsp_cert *cert) {
  CBS basic, data, responses, single;
  bool found = false;
  const char *why = open_response(&basic, der);
  if (why)
    return why;
  if (!open_basic(&data, basic) || !open_data(&responses, data))
    return not_ocsp;
  while (CBS_len(&responses)) {
    struct ocsp_status s;
    bool is_it;
    if (!CBS_get_asn1(&responses, &single, CBS_ASN1_SEQUENCE) || !read_cert_id(&is_it, &single, cert) || !read_single(&s, single))
      return not_ocsp;
    if (is_it && !found)
      *out = s;
    found |= is_it;
  }
  return found ? NULL : "about another certificate";
}
