// The load generator's models against what theory says of them; bounds are five standard errors wide.
#include "load/arrivals.h"
#include "load/hist.h"
#include "load/popularity.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(hist, every_value_falls_into_a_bucket_that_contains_it) {
  for (uint64_t v = 0; v <= HIST_MAX; v = v < 5000 ? v + 1 : v + v / 777) {
    uint32_t i = hist_index(v);
    cr_assert_lt(i, HIST_COUNTS);
    cr_assert(hist_lowest(i) <= v && v < hist_lowest(i) + hist_width(i), "%lu", v);
    cr_assert(hist_width(i) <= 1 + v / 1000, "three digits at %lu", v);
  }
}

Test(hist, percentiles_merge_and_clamp) {
  static struct hist a, b;
  for (uint64_t i = 1; i <= 1000; i++)
    hist_record(i % 2 ? &a : &b, i);
  hist_add(&a, &b);
  cr_assert_eq(a.total, 1000);
  cr_assert_eq(hist_percentile(&a, 50), 500);
  cr_assert_eq(hist_percentile(&a, 99), 990);
  cr_assert_eq(hist_percentile(&a, 100), 1000);
  cr_assert_eq(a.min, 1);
  cr_assert_eq(a.max, 1000);
  hist_record(&a, (uint64_t)HIST_MAX + 1);
  cr_assert_eq(a.clamped, 1);
}

Test(hist, encodes_and_stays_in_its_scratch) {
  static struct hist h;
  uint8_t *scratch = malloc(HIST_SCRATCH);
  for (uint64_t v = 1; v < HIST_MAX; v += v / 50 + 1)
    hist_record_n(&h, v, v % 7 ? 1 : UINT32_MAX);
  static char text[1 << 20];
  struct writer w = wr_of(text, sizeof text);
  cr_assert_eq(hist_encode(&w, &h, scratch), ERR_OK);
  cr_assert(wr_ok(&w));
  cr_assert(memcmp(text, "HISTFAAA", 8) == 0, "the cookie every HdrHistogram reader looks for");
  free(scratch);
}

Test(arrivals, same_seed_same_times_other_seed_other_times) {
  const struct rate_piece shape[] = {{10, 5, 5}, {5, 5, 100}, {0, 0, 0}, {10, 50, 0}};
  struct arrivals a, b, c;
  arrivals_init(&a, shape, 4, 42);
  arrivals_init(&b, shape, 4, 42);
  arrivals_init(&c, shape, 4, 43);
  double x, y, z, last = 0;
  bool differs = false;
  while (arrivals_next(&a, &x)) {
    cr_assert(arrivals_next(&b, &y));
    cr_assert(x == y);
    cr_assert(x >= last && x <= 25);
    last = x;
    differs |= !arrivals_next(&c, &z) || z != x;
  }
  cr_assert_not(arrivals_next(&b, &y));
  cr_assert(differs);
}

Test(arrivals, counts_follow_the_rate_in_every_piece) {
  const struct rate_piece shape[] = {{100, 20, 20}, {100, 20, 120}, {50, 0, 0}, {100, 100, 0}};
  const double mean[] = {2000, 7000, 0, 5000};
  double num[4] = {0}, t;
  struct arrivals a;
  arrivals_init(&a, shape, 4, 7);
  while (arrivals_next(&a, &t))
    num[t < 100 ? 0 : t < 200 ? 1 : t < 250 ? 2 : 3]++;
  for (int i = 0; i < 4; i++)
    cr_assert(fabs(num[i] - mean[i]) <= 5 * sqrt(mean[i]), "piece %d: %g of %g", i, num[i], mean[i]);
  cr_assert(fabs(arrivals_expected(shape, 4) - 14000) < 1e-9);
}

Test(arrivals, gaps_are_exponential) {
  // Kolmogorov-Smirnov against 1 - exp(-x): D sqrt(n) stays below 1.95 with probability 0.999.
  const struct rate_piece shape[] = {{20000, 1, 1}};
  enum { N = 10000 };
  static double bins[1001];
  struct arrivals a;
  arrivals_init(&a, shape, 1, 3);
  double last = 0, t;
  for (int i = 0; i < N; i++) {
    cr_assert(arrivals_next(&a, &t));
    double u = 1 - exp(-(t - last));
    bins[(int)(u * 1000)]++;
    last = t;
  }
  double d = 0, sum = 0;
  for (int i = 0; i < 1000; i++) {
    sum += bins[i];
    d = fmax(d, fabs(sum / N - (i + 1) / 1000.0));
  }
  cr_assert(d * sqrt(N) < 1.95, "%g", d * sqrt(N));
}

Test(popularity, zipf_and_release_share) {
  struct alloc_heap mem;
  alloc_heap_init(&mem, 1 << 20);
  struct popularity p;
  cr_assert_eq(popularity_init(&p, &mem.base, POPULARITY_ZIPF, 100, 1.0, 0.6), ERR_OK);
  struct rng r = rng_of(1, 2);
  enum { N = 100000 };
  static uint32_t num[100];
  for (int i = 0; i < N; i++)
    num[popularity_draw(&p, &r)]++;
  double harmonic = 0;
  for (int i = 1; i <= 100; i++)
    harmonic += 1.0 / i;
  for (uint32_t i = 0; i < 100; i++) {
    double share = 0.4 / (i + 1) / harmonic + (i == 0 ? 0.6 : 0);
    cr_assert(fabs(num[i] - N * share) <= 5 * sqrt(N * share), "rank %u: %u of %g", i, num[i], N * share);
  }
  cr_assert_eq(popularity_init(&p, &mem.base, POPULARITY_STRETCHED, 10, 0.5, 0), ERR_OK);
  for (uint32_t i = 0; i < 20000; i++)
    num[popularity_draw(&p, &r)]++;
  cr_assert_eq(popularity_init(&p, &mem.base, POPULARITY_ZIPF, 0, 1, 0), ERR_ARGUMENT);
  cr_assert_eq(popularity_init(&p, &mem.base, POPULARITY_STRETCHED, 10, 1.5, 0), ERR_ARGUMENT);
  cr_assert_eq(popularity_init(&p, &mem.base, POPULARITY_ZIPF, 10, 1, 1.5), ERR_ARGUMENT);
  alloc_heap_free(&mem);
}
