// Indexes made by hand: random edits, runs, trafs and samples over random bytes, together with the output that a
// plan over them must have, computed the slow way with libcrypto's block function.
#pragma once
#include "cenc/plan.h"

struct handmade {
  struct ix_header h;
  struct track_index ix;
  struct ix_segments segs;
  struct protection prot;
  uint8_t *src;   // all of the source address space
  size_t src_len;
  uint8_t *want;  // the whole output but for sidx', which is zero here
  size_t want_len, init_len, sidx_len;
  uint64_t rng;
  uint32_t max_sample; // sample sizes are mostly small, at most this
};

// handmade_init makes one from a seed. `wide` uses 32-bit sample sizes.
void handmade_init(struct handmade *m, uint64_t seed, enum scheme scheme, bool wide, const struct aes_ops *ops);
void handmade_free(struct handmade *m);

uint64_t rng_next(uint64_t *state);
static inline uint32_t rng_below(uint64_t *state, uint32_t n) { return n ? (uint32_t)(rng_next(state) >> 32) % n : 0; }
