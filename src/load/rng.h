// Reproducible randomness for the load generator: xoshiro256** seeded by splitmix64 (Blackman and Vigna, public
// domain algorithms). Every session owns one, seeded from (scenario seed, session number), so that what a session does
// never depends on what the others did or on timing.
#pragma once
#include <math.h>
#include <stdint.h>

struct rng {
  uint64_t s[4];
};

static inline uint64_t rng_splitmix(uint64_t *x) {
  uint64_t z = (*x += 0x9e3779b97f4a7c15u);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static inline struct rng rng_of(uint64_t seed, uint64_t stream) {
  uint64_t x = seed;
  x = rng_splitmix(&x) ^ stream * 0xd1342543de82ef95u;
  struct rng r;
  for (int i = 0; i < 4; i++)
    r.s[i] = rng_splitmix(&x);
  return r;
}

static inline uint64_t rng_u64(struct rng *r) {
  uint64_t *s = r->s, out = s[1] * 5, t = s[1] << 17;
  out = (out << 7 | out >> 57) * 9;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = s[3] << 45 | s[3] >> 19;
  return out;
}

// rng_unit is uniform in [0, 1).
static inline double rng_unit(struct rng *r) { return (double)(rng_u64(r) >> 11) * 0x1p-53; }

// rng_exp has mean 1.
static inline double rng_exp(struct rng *r) { return -log1p(-rng_unit(r)); }

// rng_below is uniform in [0, n), n > 0; the bias of the multiply is below n / 2^64.
static inline uint64_t rng_below(struct rng *r, uint64_t n) {
  return (uint64_t)((unsigned __int128)rng_u64(r) * n >> 64);
}
