// The tables of options that the keys file is read against.
#pragma once
#include "keys/keys.h"

enum kind {
  K_TEXT,     // struct bytes
  K_TEMPLATE, // struct bytes, with {…}
  K_CUSTOM,   // struct bytes, XML inside a PlayReady header's CUSTOMATTRIBUTES
  K_HEX16,    // uint8_t[16]
  K_U32,      // uint32_t, from 1
  K_TIME,     // uint64_t ms: "24h", "90s"
  K_PERIOD,   // the same, from 1s
  K_BOOL,
  K_SCHEME,   // enum scheme, not clear
  K_SYSTEMS,  // uint32_t mask of drm_bit
  K_SCHEMES,  // uint32_t mask of 1 << scheme
  K_MAP,      // an inner mapping, over the part of the struct at `off`
  K_RECORDS,  // the lists
  K_RULES,
  K_REMOTES,
  K_SCHEDULES,
};

struct field {
  const char *name;
  enum kind kind;
  size_t off;
  const struct field *sub; // K_MAP
};

// Options of one entry of `providers`, into struct key_remote; what it is before any of them.
extern const struct field remote_fields[];
extern const struct key_remote remote_defaults;

// remote_settle finds the provider and fits what was not given. `seen`: bit n for remote_fields[n]. What is wrong with the
// entry as a whole, or NULL.
const char *remote_settle(struct key_remote *r, uint64_t seen);
