#include "load/capacity.h"

#include <math.h>

// The limit of grid row `i`, as a logarithm.
static double limit_of(const struct capacity *c, uint32_t i) {
  return log(c->from) + log(c->to / c->from) * ((double)i + 0.5) / CAPACITY_RATES;
}

// Widths from 0.5 % to 24 % of the rate.
static double width_of(uint32_t k) { return 0.005 * pow(24 / 0.5, (double)k / (CAPACITY_WIDTHS - 1)); }

void capacity_init(struct capacity *c, double from, double to) {
  c->from = from;
  c->to = to;
  for (uint32_t i = 0; i < CAPACITY_RATES; i++)
    for (uint32_t k = 0; k < CAPACITY_WIDTHS; k++)
      c->p[i][k] = 1.0 / (CAPACITY_RATES * CAPACITY_WIDTHS);
}

void capacity_observe(struct capacity *c, double rate, bool passed) {
  enum { SURPRISE = 50 }; // one probe in so many goes wrong for reasons of its own
  double sum = 0;
  for (uint32_t i = 0; i < CAPACITY_RATES; i++) {
    for (uint32_t k = 0; k < CAPACITY_WIDTHS; k++) {
      double pass = 1 / (1 + exp((log(rate) - limit_of(c, i)) / width_of(k)));
      double likely = passed ? pass : 1 - pass;
      c->p[i][k] *= likely * (1 - 2.0 / SURPRISE) + 1.0 / SURPRISE;
      sum += c->p[i][k];
    }
  }
  for (uint32_t i = 0; i < CAPACITY_RATES; i++)
    for (uint32_t k = 0; k < CAPACITY_WIDTHS; k++)
      c->p[i][k] /= sum;
}

// The rate below which the share `q` of the distribution of the limit lies, interpolated within a row.
static double quantile(const struct capacity *c, double q) {
  double below = 0;
  for (uint32_t i = 0; i < CAPACITY_RATES; i++) {
    double row = 0;
    for (uint32_t k = 0; k < CAPACITY_WIDTHS; k++)
      row += c->p[i][k];
    if (below + row >= q && row > 0)
      return exp(limit_of(c, i) + log(c->to / c->from) / CAPACITY_RATES * ((q - below) / row - 0.5));
    below += row;
  }
  return c->to;
}

struct capacity_estimate capacity_estimate(const struct capacity *c) {
  return (struct capacity_estimate){quantile(c, 0.5), quantile(c, 0.025), quantile(c, 0.975)};
}
