// The W3C ClearKey licence exchange, for demos and tests behind --insecure-clearkey.
// Source: W3C Encrypted Media Extensions §9.1.3 (licence request), §9.1.4 (licence).
#pragma once
#include "base/err.h"
#include "base/writer.h"
#include "drm/drm.h"

enum { CLEARKEY_MAX_KIDS = 32, CLEARKEY_MAX_REQUEST = 16384 };

struct clearkey_request {
  uint8_t kids[CLEARKEY_MAX_KIDS][16];
  uint32_t num_kids;
  bool persistent; // "type": "persistent-license"
};

// clearkey_parse reads {"kids":["<base64url>", …],"type":"temporary"}.
// Errors: ERR_SYNTAX, ERR_LIMIT.
MUST_USE enum err clearkey_parse(struct clearkey_request *out, struct bytes body, struct diag *diag);

// clearkey_answer appends {"keys":[{"kty":"oct","k":…,"kid":…}],"type":…} with those of `keys` that were asked for.
// Returns how many: 0 should be answered with 404.
uint32_t clearkey_answer(struct writer *w, const struct clearkey_request *req, const struct key_record *keys,
                         uint32_t num_keys);
