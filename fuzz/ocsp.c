// OCSP responses, about the certificate with serial number 1 of the authority CN=a: what is accepted has its fields in their
// domain, and is a sequence to its end.
#include "net/tls_ocsp.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const uint8_t serial[] = {1}, other[] = {2};
  static const uint8_t issuer[] = {0x30, 0x0c, 0x31, 0x0a, 0x30, 0x08, 6, 3, 0x55, 4, 3, 0x0c, 1, 'a'};
  struct bytes der = bytes_of(data, size), name = bytes_of(issuer, sizeof issuer);
  struct ocsp_status s = {0}, t = {0};
  const char *why = ocsp_read(&s, der, &(struct ocsp_cert){bytes_of(serial, sizeof serial), name});
  const char *not_two = ocsp_read(&t, der, &(struct ocsp_cert){bytes_of(other, sizeof other), name});
  if (why) {
    MUST(*why != 0);
    return 0;
  }
  MUST(s.verdict <= OCSP_UNKNOWN && size > 2 && data[0] == 0x30);
  // Years 0 to 9999.
  MUST(s.from >= -62167219200 && s.from <= 253402300799 && s.until >= -62167219200 && (s.until <= 253402300799 || s.until == INT64_MAX));
  // Refused for its form it would be so for everybody.
  MUST(!not_two || not_two[0] == 'a');
  MUST(ocsp_read(&t, bytes_of(data, size - 1), &(struct ocsp_cert){bytes_of(serial, sizeof serial), name}) != NULL);
  return 0;
}
