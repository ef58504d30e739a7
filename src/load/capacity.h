// The search for the highest rate that meets a service level, from probes that pass or fail. A probe near the limit may go
// either way, so the limit is not bisected but estimated: passing is taken to be logistic in the logarithm of the rate, with
// unknown limit and unknown width; the distribution of both is kept on a grid and updated by every probe (Bayes), and the
// next probe stands where it says most: at the median of the limit. Probes that agree narrow the interval at once, noisy
// ones do so slowly. The interval holds 95 % of the distribution of the limit.
// Source: Watson and Pelli, "QUEST: a Bayesian adaptive psychometric method", 1983; Kontsevich and Tyler, 1999 (the width).
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { CAPACITY_RATES = 400, CAPACITY_WIDTHS = 8 };

struct capacity {
  double from, to; // rates, from > 0, to > from
  double p[CAPACITY_RATES][CAPACITY_WIDTHS];
};

struct capacity_estimate {
  double rate, low, high; // median, and the ends of the 95 % interval
};

// capacity_init: every limit between `from` and `to` is as likely as another, on the logarithmic scale.
void capacity_init(struct capacity *c, double from, double to);
void capacity_observe(struct capacity *c, double rate, bool passed);
struct capacity_estimate capacity_estimate(const struct capacity *c);
