// Rotating keys: what the admin listener orders and what schedules do, over the epochs' journal. Blocks.
#pragma once
#include "server/keyring.h"

struct rotation_rules {
  struct epoch_store *epochs;
  const struct keyset *keys;
  const struct keys_info *info;
  uint64_t grace_ms; // of the configuration; the keys file's goes before it
};

struct rotation_order {
  struct bytes scope; // "": everything
  uint64_t grace_ms;  // valid where has_grace, else the rules'; 0 with revoke
  bool has_grace, revoke;
};

// rotation_grace is the grace of an order.
uint64_t rotation_grace(const struct rotation_rules *r, const struct rotation_order *o);

// rotation_order makes a new epoch for a scope, durable when it returns. Errors: ERR_NO_KEY (an asset with records has none
// for its next epoch, or when the old ones are revoked the same again: it is named), those of epoch_store_rotate.
MUST_USE enum err rotation_order(const struct rotation_rules *r, const struct rotation_order *o, uint64_t now_ms,
                                 struct diag *diag);

// rotation_schedule does what the schedules of the keys file demand at now_ms (Unix). What fails is said in the log, and tried again
// in a minute: `retry_ms` is where it keeps when, one for each schedule, zeros at first and once the rules are others. Returns when
// to be called again, UINT64_MAX when there is no schedule; `rotated` is called for each scope.
uint64_t rotation_schedule(const struct rotation_rules *r, uint64_t retry_ms[KEYS_MAX_SCHEDULES], uint64_t now_ms,
                           void (*rotated)(void *ctx, struct bytes scope), void *ctx);
