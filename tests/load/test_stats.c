// Statistics of threads and processes added together, against one that saw everything.
#include "load/rng.h"
#include "load/session.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARTS = 5, VALUES = 20000 };

Test(stats, parts_add_up_to_what_one_would_have_counted) {
  struct load_stats *part = calloc(PARTS, sizeof *part), *whole = calloc(1, sizeof *whole), *sum = calloc(1, sizeof *sum);
  struct rng r = rng_of(3, 1);
  cr_assert(part && whole && sum);
  for (uint32_t i = 0; i < VALUES; i++) {
    struct load_stats *to[] = {&part[rng_below(&r, PARTS)], whole};
    uint64_t us = (uint64_t)(exp(rng_unit(&r) * 24));
    uint32_t t = (uint32_t)rng_below(&r, 50), w = (uint32_t)rng_below(&r, 500);
    for (int k = 0; k < 2; k++) {
      hist_record(&to[k]->latency, us);
      hist_record(&to[k]->service, us / 2);
      hist_record(&to[k]->lag, us / 1000);
      hist_record(&to[k]->startup, us * 2);
      to[k]->requests++;
      to[k]->bytes += us;
      to[k]->errors += i % 7 == 0;
      to[k]->by_error[i % LOAD_ERR_COUNT]++;
      to[k]->segments += 2;
      to[k]->played_s += 0.5;
      to[k]->second[t].requests++;
      to[k]->second[t].heat[stats_heat_row(us)]++;
      to[k]->num_seconds = to[k]->num_seconds > t + 1 ? to[k]->num_seconds : t + 1;
      to[k]->window[w].requests++;
      to[k]->window[w].late += us > 1000;
    }
  }
  for (int i = 0; i < PARTS; i++)
    stats_add(sum, &part[i]);
  cr_assert(memcmp(&sum->latency, &whole->latency, sizeof sum->latency) == 0);
  cr_assert(memcmp(&sum->service, &whole->service, sizeof sum->service) == 0);
  cr_assert(memcmp(&sum->lag, &whole->lag, sizeof sum->lag) == 0);
  cr_assert(memcmp(&sum->startup, &whole->startup, sizeof sum->startup) == 0);
  cr_assert(memcmp(sum->second, whole->second, sizeof sum->second) == 0);
  cr_assert(memcmp(sum->window, whole->window, sizeof sum->window) == 0);
  cr_assert(memcmp(sum->by_error, whole->by_error, sizeof sum->by_error) == 0);
  cr_assert_eq(sum->requests, VALUES);
  cr_assert_eq(sum->bytes, whole->bytes);
  cr_assert_eq(sum->errors, whole->errors);
  cr_assert_eq(sum->segments, 2 * VALUES);
  cr_assert_eq(sum->num_seconds, whole->num_seconds);
  cr_assert(sum->played_s == whole->played_s);
  cr_assert_gt(sum->latency.clamped, 0, "values beyond the last bucket are among them");
  free(part);
  free(whole);
  free(sum);
}

Test(stats, verdicts_name_every_level) {
  static struct load_stats s;
  static struct scenario sc = {.level = {10, 5, 0.1, 0.1, 0, 20}};
  char text[2048];
  struct writer w = wr_of(text, sizeof text);
  s.requests = 1000;
  s.segments = 100;
  s.sessions = 10;
  s.played_s = 9;
  hist_record(&s.startup, 9000);
  hist_record(&s.latency, 4000);
  hist_record(&s.lag, 19000);
  cr_assert(stats_verdict(&s, &sc, &w));
  cr_assert(stats_valid(&s, &sc, &w));
  struct {
    const char *name;
    _Atomic uint64_t *count;
  } v[] = {{"segments late", &s.misses}, {"requests failed", &s.errors}};
  for (int i = 0; i < 2; i++) {
    w = wr_of(text, sizeof text - 1);
    *v[i].count = 11;
    cr_assert_not(stats_verdict(&s, &sc, &w));
    text[w.n] = 0;
    char want[64];
    snprintf(want, sizeof want, "MISSED  %s", v[i].name);
    cr_assert(strstr(text, want) != NULL, "%s", text);
    *v[i].count = 0;
  }
  s.wrong = 1;
  w = wr_of(text, sizeof text);
  cr_assert_not(stats_verdict(&s, &sc, &w), "one wrong byte");
  s.wrong = 0;
  for (int i = 0; i < 99; i++)
    hist_record(&s.lag, 25000);
  w = wr_of(text, sizeof text);
  cr_assert_not(stats_valid(&s, &sc, &w), "late");
}

Test(stats, a_server_that_answers_nothing_has_failed_everything) {
  static struct load_stats s;
  struct scenario sc = {.mode = LOAD_RATE, .level = {-1, -1, -1, -1, 0, 20}};
  char text[2048];
  struct writer w = wr_of(text, sizeof text - 1);
  s.unanswered = s.errors = 100;
  cr_assert_not(stats_verdict(&s, &sc, &w));
  text[w.n] = 0;
  cr_assert(strstr(text, "requests failed                     1.000 of all"), "%s", text);
  w = wr_of(text, sizeof text);
  cr_assert(stats_valid(&s, &sc, &w), "asked it was");
  s.unopened = 1;
  s.unopened_errno = EMFILE;
  w = wr_of(text, sizeof text - 1);
  cr_assert_not(stats_valid(&s, &sc, &w), "not the server's fault");
  text[w.n] = 0;
  cr_assert(strstr(text, "1 connections could not be begun on this machine: Too many open files: more --processes"), "%s", text);
}

// Only where requests queued and the generator was busy all the time it cannot be told whose limit it was.
Test(stats, a_busy_generator_whose_requests_queue_is_told) {
  static const struct {
    enum load_mode mode;
    uint64_t queued;
    double cpu_s, cpu_wait_s;
    bool said;
  } v[] = {{LOAD_RATE, 9, 36, 1, true}, {LOAD_RATE, 9, 3, 34, true}, {LOAD_RATE, 0, 36, 1, false}, {LOAD_RATE, 9, 34, 1, false}, {LOAD_SATURATE, 9, 36, 1, false}};
  static struct load_stats s;
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    struct scenario sc = {.mode = v[i].mode};
    char text[512] = "";
    struct writer w = wr_of(text, sizeof text - 1);
    s.queued = v[i].queued;
    s.cpu_s = v[i].cpu_s;
    s.cpu_wait_s = v[i].cpu_wait_s;
    s.elapsed_s = 10;
    stats_crowded(&s, &sc, 4, &w);
    cr_expect_eq(strstr(text, "9 requests were due while all connections were taken, and the generator was busy for 92 % of the time: ") != NULL, v[i].said, "case %zu: %s", i, text);
    cr_expect_eq(w.n > 0, v[i].said);
  }
}

// What a server says is shown as text, whatever bytes it has.
Test(stats, what_was_wrong_is_plain_text) {
  static struct load_stats st;
  struct engine e = {.st = &st};
  engine_wrong(&e, "/a: %s", "moov \x1b[2J\xe9\x7f~");
  engine_wrong(&e, "/b: another");
  cr_expect_str_eq(st.first_wrong, "/a: moov ?[2J??~");
  cr_expect_eq(st.wrong, 2);
}

Test(stats, a_comparison_of_nothing_is_none) {
  static struct load_stats s;
  struct scenario sc = {.verify_share = 0.01, .level = {-1, -1, -1, -1, 0, 20}};
  char text[2048];
  struct writer w = wr_of(text, sizeof text);
  s.requests = 1000;
  cr_assert_not(stats_verdict(&s, &sc, &w));
  s.verified = 1;
  cr_assert(stats_verdict(&s, &sc, &w));
}

Test(stats, what_comes_after_the_last_second_is_not_the_last_second) {
  static struct load_stats st;
  static struct engine e = {.st = &st};
  engine_second(&e, 1.5)->requests++;
  engine_second(&e, LOAD_MAX_SECONDS - 0.5)->requests++;
  for (int i = 0; i < 10; i++)
    engine_second(&e, LOAD_MAX_SECONDS + i)->requests++;
  cr_assert_eq(st.num_seconds, LOAD_MAX_SECONDS);
  cr_assert_eq(st.second[1].requests, 1);
  cr_assert_eq(st.second[LOAD_MAX_SECONDS - 1].requests, 1);
}
