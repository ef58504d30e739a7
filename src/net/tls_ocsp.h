// What an OCSP response says of one certificate: as much as a server needs that staples one. Signatures are the clients' to
// check, who know the authority.
#pragma once
#include "base/bytes.h"

enum ocsp_verdict { OCSP_GOOD, OCSP_REVOKED, OCSP_UNKNOWN };

struct ocsp_status {
  enum ocsp_verdict verdict;
  int64_t from, until; // seconds since 1970; until: INT64_MAX when the response names no end
};

// Whose status is looked for.
struct ocsp_cert {
  struct bytes serial; // contents of its DER INTEGER
  struct bytes issuer; // DER of the issuer's Name
};

// ocsp_read reads `der`. NULL, or why it cannot be used, in words that go on from "OCSP response FILE: ".
const char *ocsp_read(struct ocsp_status *out, struct bytes der, const struct ocsp_cert *cert);
