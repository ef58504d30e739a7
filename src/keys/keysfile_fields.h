// Inside of keys/: the tables of options that the keys file is read against, and where in it something stands.
#pragma once
#include "keys/keys.h"

#include <yaml.h>

// yaml_place_of gives where a mark of libyaml's stands, which counts characters; yaml_problem_of where it could not go on.
struct yaml_place {
  size_t line, byte;
};
struct yaml_place yaml_place_of(struct bytes text, yaml_mark_t m);
struct yaml_place yaml_problem_of(struct bytes text, const yaml_parser_t *y);

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
