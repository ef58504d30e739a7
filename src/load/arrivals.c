#include "load/arrivals.h"

void arrivals_init(struct arrivals *a, const struct rate_piece *pieces, size_t num_pieces, uint64_t seed) {
  *a = (struct arrivals){.pieces = pieces, .num_pieces = num_pieces, .rng = rng_of(seed, 0x617272697661)};
}

// The rate inside a piece, `t` seconds after the piece's start.
static double slope(const struct rate_piece *p) { return (p->to_per_s - p->from_per_s) / p->seconds; }

// Arrivals expected between `t` and the piece's end.
static double area_left(const struct rate_piece *p, double t) {
  double rate = p->from_per_s + slope(p) * t;
  return (rate + p->to_per_s) / 2 * (p->seconds - t);
}

// Solves area(t, t + x) = need inside one piece: need = rate x + slope x² / 2, in the form that does not cancel.
static double solve(const struct rate_piece *p, double t, double need) {
  double rate = p->from_per_s + slope(p) * t, k = slope(p);
  double root = rate * rate + 2 * k * need;
  return 2 * need / (rate + sqrt(root > 0 ? root : 0));
}

bool arrivals_next(struct arrivals *a, double *at_s) {
  double need = rng_exp(&a->rng);
  while (a->at < a->num_pieces) {
    const struct rate_piece *p = &a->pieces[a->at];
    double t = a->now_s - a->piece_start_s;
    double left = p->seconds > 0 ? area_left(p, t) : 0;
    if (need < left) {
      a->now_s += solve(p, t, need);
      *at_s = a->now_s;
      return true;
    }
    need -= left;
    a->piece_start_s += p->seconds;
    a->now_s = a->piece_start_s;
    a->at++;
  }
  return false;
}

double arrivals_time_of(const struct rate_piece *pieces, size_t num_pieces, double num) {
  double start = 0;
  for (size_t i = 0; i < num_pieces; i++) {
    double area = pieces[i].seconds > 0 ? area_left(&pieces[i], 0) : 0;
    if (num < area)
      return start + solve(&pieces[i], 0, num);
    num -= area;
    start += pieces[i].seconds;
  }
  return -1;
}
