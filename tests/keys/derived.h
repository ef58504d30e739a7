// The documented derivation (docs/keys.md) of one key, by the way that the server takes: of a keys file with nothing but a secret.
#pragma once
#include "keys/keyset.h"

static inline enum err derived(struct key_record *out, struct bytes secret, const struct key_query *q) {
  struct keyset ks = {0};
  struct diag diag = {0};
  enum err e = keys_set_secret(&ks, secret, &diag);
  e = e ? e : keys_lookup(out, &ks, q);
  keyset_wipe(&ks);
  return e;
}
