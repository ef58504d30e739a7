// Inside of keys/epochs: the rules as they are kept.
#pragma once
#include "keys/epochs.h"

struct epoch_past {
  uint64_t seq, time_ms, grace_ms;
};

// What one scope has seen. `folded` of its rotations are at or before epochs.fold_seq and no longer listed.
struct epoch_rule {
  struct bytes scope;
  uint64_t hash;
  uint64_t folded;
  uint64_t revoke_seq; // its last revocation; 0 when none
  uint64_t slot_ms;    // of its schedule; 0: none was acted on
  struct epoch_past *past; // ascending seq
  uint32_t num, cap;
};

struct epochs {
  struct alloc *mem;
  uint32_t base;
  uint64_t next_seq, fold_seq;
  uint64_t folded; // of all rules together: at most fold_seq
  struct epoch_rule **slots; // open addressing, a power of two of them, at most half full
  uint32_t num_slots, num_rules;
};

// epochs_rule finds the rule of a scope, making it where `make`. NULL when there is none, or no memory.
struct epoch_rule *epochs_rule(struct epochs *e, struct bytes scope, bool make);

// epochs_rule_num counts a rule's rotations.
static inline uint64_t epochs_rule_num(const struct epoch_rule *r) { return r->folded + r->num; }

