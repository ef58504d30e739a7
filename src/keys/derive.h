// Inside of keys/: derivation with an extracted secret, and the limits of a query.
#pragma once
#include "keys/keys.h"

// key_query_ok says whether a query is inside the limits of keys.h and its scheme is one that has keys.
bool key_query_ok(const struct key_query *q);

void derive_prk(uint8_t prk[32], struct bytes secret);
void derive_record(struct key_record *out, const uint8_t prk[32], const struct key_query *q);
