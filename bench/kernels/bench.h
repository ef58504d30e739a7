// What a kernel benchmark is: a function that encrypts one segment's samples, by one library.
#pragma once
#include "simd/aes.h"

enum { NUM_LISTS = 256 }; // size lists cycled through, so that no branch predictor learns one

// A segment: samples back to back, and what a server keeps of them in its index.
struct list {
  uint32_t num;
  uint32_t total;          // bytes
  uint16_t *sizes;         // in order
  uint32_t *offsets;
  struct aes_lane *lanes;  // in aes_lane_order
};

struct workload {
  const char *name, *what;
  uint32_t low, high, num; // sizes and samples
  bool bell;               // sizes gather around the middle, else uniform
  uint32_t constant;       // all samples are exactly this long (low, high unused)
  struct list lists[NUM_LISTS];
  uint8_t *src, *dst;      // room for two segments each
};

extern struct workload workloads[];
extern const size_t num_workloads;
void workloads_init(void);

extern const uint8_t bench_key[16], bench_iv[16];

// One call encrypts the samples of `list`. Peers have their keys expanded and their contexts made before.
typedef void bench_fn(const struct workload *w, const struct list *list);

struct peer {
  const char *name; // NULL ends a table
  bool (*init)(const uint8_t key[16], const uint8_t iv[16]);
  bench_fn *cbc, *ctr;
};

extern const struct peer peer_openssl, peer_boringssl, peer_ipsec, peer_ipsec_anew;

// Limits: `blocks` 16-byte blocks through nothing but ten AES rounds, with enough of them in flight.
void probe_xmm(uint64_t blocks);
void probe_ymm(uint64_t blocks);
void probe_zmm(uint64_t blocks);
bool probe_has(const char *kernel); // whether this processor runs that kernel, and so its registers' probe

// As many cycles as `steps`, for the clock.
void probe_clock(uint64_t steps);
