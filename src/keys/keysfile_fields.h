// Inside of keys/: the tables of options that the keys file is read against, where in it something stands, and how it is read.
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
  K_GRACE,    // the same, of EPOCH_MAX_GRACE_DAYS at most
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

struct keyset;
struct input {
  yaml_parser_t yaml;
  yaml_event_t ev; // the event at hand; wiped and freed by kf_next
  struct bytes text;
  struct alloc *mem;
  struct keyset *ks;
  struct diag *diag;
  uint64_t drm_seen; // options of the drm section so far
  uint64_t epochs_seen;
  const char *section; // that the mapping at hand is the value of: "drm.playready", "" around all
};

// kf_next goes on to the next event. kf_fail is about the event at hand, or what libyaml could not read; kf_fail_at about an
// entry that began there.
enum err kf_next(struct input *in);
enum err kf_fail(struct input *in, enum err e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
enum err kf_fail_at(struct input *in, enum err e, yaml_mark_t at, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

// kf_read_map reads a mapping whose start has been seen. seen: bit n for fields[n], for callers that need to know.
enum err kf_read_map(struct input *in, const struct field *fields, void *base, uint64_t *seen);

// kf_grow makes a list hold one more; what was there is wiped, for it may be keys. NULL: no memory.
void *kf_grow(struct input *in, void *list, uint32_t num, uint32_t *cap, size_t size);

// kf_check_match looks at the match of an entry of that section, which began at `at`.
enum err kf_check_match(struct input *in, struct bytes match, yaml_mark_t at, const char *section);

// The section `epochs`, over struct keys_info; its list; what follows from it once all is read.
extern const struct field kf_epochs_fields[];
enum err kf_read_schedules(struct input *in);
enum err kf_settle_epochs(struct input *in);

// Options of one entry of `providers`, into struct key_remote; what it is before any of them.
extern const struct field remote_fields[];
extern const struct key_remote remote_defaults;

// remote_settle finds the provider and fits what was not given. `seen`: bit n for remote_fields[n]. What is wrong with the
// entry as a whole, or NULL.
const char *remote_settle(struct key_remote *r, uint64_t seen);
