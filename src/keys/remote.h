// Inside of keys/: the rows of key_providers, and what they share.
#pragma once
#include "keys/keys.h"
#include "keys/keyset.h"

extern const struct key_provider speke20_provider, speke21_provider, json_provider;

// remote_finish ends an answer that was read with `e`: on failure every record is wiped.
MUST_USE enum err remote_finish(struct key_record *out, const struct key_doc *doc, enum err e);
