// When sessions start: a Poisson process whose rate follows a shape. Open, never closed-loop: the next arrival does not
// wait for anything. Exact by inversion of the cumulative rate, not by thinning, so the same seed gives the same times
// whatever else is drawn.
#pragma once
#include "base/bytes.h"
#include "load/rng.h"

// The rate changes linearly from `from_per_s` to `to_per_s` over `seconds`. A step is two pieces.
struct rate_piece {
  double seconds, from_per_s, to_per_s;
};

struct arrivals {
  const struct rate_piece *pieces;
  size_t num_pieces, at; // `at`: the piece that `now_s` is in
  double now_s;          // the last arrival, seconds from the start
  double piece_start_s;
  struct rng rng;
};

void arrivals_init(struct arrivals *a, const struct rate_piece *pieces, size_t num_pieces, uint64_t seed);

// arrivals_next gives the next arrival in seconds from the start; false when the shape has ended.
bool arrivals_next(struct arrivals *a, double *at_s);

// arrivals_time_of gives when `num` arrivals are expected to have come: the inverse of the cumulative rate. A negative value:
// the shape ends before. For evenly spaced requests that follow a shape.
double arrivals_time_of(const struct rate_piece *pieces, size_t num_pieces, double num);
