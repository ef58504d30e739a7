// Inside of keys/: what a loaded keys file is. Filled by keysfile.c, asked by keyset.c.
#pragma once
#include "keys/keys.h"

// One rule of the drm section: settings for a prefix ending in '/', or for one asset.
struct drm_rule {
  struct drm_settings set;
  struct bytes match;
};

// What records are found by: a digest of the key, or the KID.
struct mark {
  uint8_t id[16];
  uint32_t record;
};

struct keyset {
  struct key_remote *remotes; // sorted by match
  uint32_t num_remotes, cap_remotes;
  struct mark *marks, *kids; // of the records' keys and KIDs, sorted
  struct key_record *records; // sorted by asset, epoch, scheme, label
  uint32_t num_records, cap_records;
  struct drm_rule *rules; // sorted by match
  uint32_t num_rules, cap_rules;
  struct drm_settings drm;
  struct key_schedule *schedules;
  uint32_t num_schedules, cap_schedules;
  struct keys_info info;
  bool has_secret;
  uint8_t prk[32];
};

// keyset_seal sorts records and rules and makes the checks that need all of them.
// Errors: ERR_KEY_REUSE, ERR_SYNTAX, ERR_NO_MEMORY.
MUST_USE enum err keyset_seal(struct keyset *ks, struct alloc *mem, struct diag *diag);

// key_name writes an asset's name for an error text: printable ASCII as it is, at most 60 bytes of it.
const char *key_name(char out[64], struct bytes name);
