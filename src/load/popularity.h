// What is listened to: ranks 0 … n-1 drawn by a cumulative table. Zipf: weight (rank+1)^-alpha. Stretched exponential:
// weight of the rank's expected count in a catalogue whose counts follow exp(-(x/x0)^c). A release takes a fixed share first.
#pragma once
#include "base/alloc.h"
#include "base/err.h"
#include "load/rng.h"

enum popularity_kind { POPULARITY_ZIPF, POPULARITY_STRETCHED };

struct popularity {
  uint32_t num;
  double release_share; // of all draws go to rank 0 before the table is asked
  double *cumulative;   // num values, last is 1
};

// popularity_init builds the table. `shape` is alpha for Zipf, c (0 < c <= 1) for the stretched exponential.
// Errors: ERR_ARGUMENT, ERR_NO_MEMORY.
MUST_USE enum err popularity_init(struct popularity *p, struct alloc *mem, enum popularity_kind kind, uint32_t num,
                                  double shape, double release_share);
uint32_t popularity_draw(const struct popularity *p, struct rng *r);
