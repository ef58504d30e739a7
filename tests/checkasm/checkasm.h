// checkasm: every kernel, every operation, against the portable reference, between guard pages.
#pragma once
#include "simd/aes.h"

// Memory with an inaccessible page directly before `p` and directly after `p + len`.
struct arena {
  uint8_t *p;
  size_t len;
};

enum {
  ARENA = 1 << 22, // bytes of each arena
  LONGEST = 4096,  // sweeps take every length up to this one
  CANARY = 64,     // bytes around each output that must stay as they were
};

struct check {
  const struct aes_ops *ops;       // under test
  struct aes_key key, ref_key;     // the same key, expanded by `ops` and by the reference
  uint8_t iv[16];
  struct arena src, dst, want;
  uint8_t *text;                   // LONGEST random bytes, the source of sweeps
  uint64_t rng;
  unsigned align_step, len_step;   // 1: everything; more under an emulator
  const char *section;
  char what[200];                  // the case being run, for messages
  unsigned failures;
};

extern const struct aes_ops aes_ops_ref;

uint64_t check_random(struct check *c);
uint32_t check_below(struct check *c, uint32_t bound); // 0 … bound - 1
void check_fill(struct check *c, uint8_t *p, size_t n);

// check_describe names the case at hand.
void check_describe(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// check_same compares n bytes of both arenas at `at`, plus the canaries around, and records a failure.
bool check_same(struct check *c, size_t at, size_t n);

// check_canary prepares [at - CANARY, at + n + CANARY) of `dst` and `want`, as far as the arenas reach.
void check_canary(struct check *c, size_t at, size_t n);

// check_src_writable allows or forbids writing to the source: forbidden while a kernel runs out of place.
void check_src_writable(struct check *c, bool yes);

void check_known_answers(struct check *c);
void check_key_init(struct check *c);
void check_cbc_encrypt(struct check *c);
void check_cbc_decrypt(struct check *c);
void check_cbc_bursts(struct check *c);
void check_ctr(struct check *c);
void check_ctr_bursts(struct check *c);
void check_cbc_pattern(struct check *c);
void check_ctr_pattern(struct check *c);
void check_pattern_bursts(struct check *c);
void check_chain(struct check *c);
void check_large(struct check *c);
void check_many(struct check *c);
void check_stack(struct check *c);

// The choice of a table (checkasm/choice.c): returns NULL or what is wrong.
const char *check_choice(void);
const char *check_lane_order(void);
const char *check_cpu_sets(void);
