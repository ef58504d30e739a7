#include "obs/metrics.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct obs_worker sets[2];

static char *scrape(void) {
  static char text[1 << 17];
  const struct obs_worker *const all[] = {&sets[0], &sets[1]};
  struct writer w = wr_of(text, sizeof text - 1);
  metrics_write(&w, all, (const char *const[]){"0", "shared"}, 2);
  cr_assert(wr_ok(&w), "%zu bytes", w.n);
  text[w.n] = 0;
  return text;
}

// Is there a line "# TYPE <name> " in front of `end`? How many of them.
static int typed(const char *text, const char *end, const char *name, size_t len) {
  int num = 0;
  for (const char *p = text; (p = strstr(p, "# TYPE ")) && p < end; p += 7)
    num += !strncmp(p + 7, name, len) && p[7 + len] == ' ';
  return num;
}

Test(metrics, every_sample_belongs_to_a_typed_metric_of_ours) {
  static const char *const tails[] = {"", "_bucket", "_sum", "_count"};
  const char *text = scrape();
  int samples = 0;
  for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
    size_t n = strcspn(line, "{ ");
    int types = 0;
    if (line[0] == '#')
      continue;
    cr_assert_eq(strncmp(line, "sluice_", 7), 0, "%.40s", line);
    for (int i = 0; i < 4; i++) {
      size_t t = strlen(tails[i]);
      if (n > t && !strncmp(line + n - t, tails[i], t))
        types += typed(text, line, line, n - t);
    }
    cr_assert_eq(types, 1, "%d types before: %.60s", types, line);
    samples++;
  }
  cr_assert_gt(samples, 200);
}

Test(metrics, histograms_are_cumulative_and_in_seconds) {
  uint64_t durations[] = {0, 8191, 8192, 1000000, 4000000000, 400000000000};
  for (int i = 0; i < 6; i++)
    histogram_add(&sets[0].ttfb, durations[i]);
  char *t = scrape();
  cr_assert(strstr(t, "sluice_time_to_first_byte_seconds_bucket{worker=\"0\",le=\"8.192e-06\"} 2\n"));
  cr_assert(strstr(t, "sluice_time_to_first_byte_seconds_bucket{worker=\"0\",le=\"1.6384e-05\"} 3\n"));
  cr_assert(strstr(t, "sluice_time_to_first_byte_seconds_bucket{worker=\"0\",le=\"0.001048576\"} 4\n"));
  cr_assert(strstr(t, "sluice_time_to_first_byte_seconds_bucket{worker=\"0\",le=\"+Inf\"} 6\n"));
  cr_assert(strstr(t, "sluice_time_to_first_byte_seconds_count{worker=\"0\"} 6\n"));
  cr_assert(strstr(t, "sluice_time_to_first_byte_seconds_sum{worker=\"0\"} 404.001016383\n"));
}

Test(metrics, requests_and_errors_are_counted_where_they_belong) {
  obs_request(&sets[0], 206, 1000, 1, 2);
  obs_request(&sets[1], 404, 10, 1, 2);
  obs_error(&sets[1], OBS_err_not_found);
  struct obs_worker sum;
  metrics_sum(&sum, (const struct obs_worker *const[]){&sets[0], &sets[1]}, 2);
  cr_assert_eq(sum.status_2xx, 1);
  cr_assert_eq(sum.status_4xx, 1);
  cr_assert_eq(sum.bytes_sent, 1010);
  cr_assert_eq(sum.ttfb.sum_ns, 2);
  cr_assert_eq(sum.latency.sum_ns, 4);
  cr_assert_eq(sum.err_not_found, 1);
  char *t = scrape();
  cr_assert(strstr(t, "sluice_errors_total{worker=\"shared\",reason=\"not_found\"} 1\n"));
  cr_assert(strstr(t, "sluice_sent_bytes_total{worker=\"0\"} 1000\n"));
}

Test(metrics, a_status_is_of_its_class) {
  static const unsigned statuses[] = {200, 299, 304, 399, 400, 499, 500, 503};
  static struct obs_worker one;
  for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
    obs_request(&one, statuses[i], 1, 1, 1);
  cr_assert(one.status_2xx == 2 && one.status_3xx == 2 && one.status_4xx == 2 && one.status_5xx == 2);
}

// As many as there are with 256 workers.
Test(metrics, room_for_whatever_every_set_holds) {
  enum { NUM = 257 };
  static struct obs_worker full;
  static const struct obs_worker *all[NUM];
  const char *names[NUM];
  for (uint64_t *v = (void *)&full; v + 1 <= (uint64_t *)(void *)(&full + 1); v++)
    *v = (uint64_t)INT64_MIN; // 19 digits as a counter, 20 bytes as a gauge
  for (unsigned i = 0; i < NUM; i++)
    all[i] = &full, names[i] = "shared";
  for (unsigned num = 1; num <= NUM; num += 64) {
    struct writer w = wr_of(NULL, 0);
    metrics_write(&w, all, names, num);
    cr_assert(metrics_room(num) >= w.n && metrics_room(num) - w.n < w.n / 10, "%u sets: %zu of %zu bytes", num, w.n, metrics_room(num));
  }
}
