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

// Every counter is a sum, but for the elapsed time, which is the longest; text is the first there is.
Test(stats, every_counter_is_a_sum) {
  static struct load_stats a, b;
#define COUNT(name) offsetof(struct load_stats, name)
  static const size_t counts[] = {
      COUNT(requests), COUNT(bytes), COUNT(errors), COUNT(active), COUNT(misses), COUNT(sessions), COUNT(sessions_lost), COUNT(sessions_unheard),
      COUNT(segments), COUNT(aborted), COUNT(not_modified), COUNT(ranges), COUNT(heads), COUNT(polls), COUNT(resent), COUNT(unanswered),
      COUNT(connects), COUNT(tls_failures), COUNT(storms), COUNT(ended_at_rest), COUNT(unasked_bytes), COUNT(unopened), COUNT(verified),
      COUNT(wrong), COUNT(decrypted), COUNT(queued), COUNT(peak_active), COUNT(grown_bytes), COUNT(redirects)};
  enum { N = sizeof counts / sizeof *counts };
  for (size_t i = 0; i < N; i++) {
    *(uint64_t *)(void *)((char *)&a + counts[i]) = 100;
    *(uint64_t *)(void *)((char *)&b + counts[i]) = i + 1;
  }
  b.rebuffer_s = 1, b.played_s = 2, b.cpu_s = 3, b.cpu_wait_s = 4, b.elapsed_s = 5;
  a.rebuffer_s = a.played_s = a.cpu_s = a.cpu_wait_s = a.elapsed_s = 10;
  b.unopened_errno = EMFILE;
  snprintf(b.first_wrong, sizeof b.first_wrong, "wrong");
  snprintf(b.first_refused, sizeof b.first_refused, "refused");
  stats_add(&a, &b);
  for (size_t i = 0; i < N; i++)
    cr_expect_eq(*(uint64_t *)(void *)((char *)&a + counts[i]), 100 + i + 1, "counter %zu", i);
  cr_expect(a.rebuffer_s == 11 && a.played_s == 12 && a.cpu_s == 13 && a.cpu_wait_s == 14 && a.elapsed_s == 10);
  cr_expect(a.unopened_errno == EMFILE && !strcmp(a.first_wrong, "wrong") && !strcmp(a.first_refused, "refused"));
  snprintf(b.first_wrong, sizeof b.first_wrong, "another");
  b.elapsed_s = 20;
  stats_add(&a, &b);
  cr_expect(a.elapsed_s == 20 && !strcmp(a.first_wrong, "wrong"));
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
  s.unasked_bytes = 1;
  w = wr_of(text, sizeof text);
  cr_assert_not(stats_verdict(&s, &sc, &w), "a byte behind a response's end");
  s.unasked_bytes = 0;
  s.wrong = 1;
  w = wr_of(text, sizeof text);
  cr_assert_not(stats_verdict(&s, &sc, &w), "one wrong byte");
  s.wrong = 0;
  for (int i = 0; i < 99; i++)
    hist_record(&s.lag, 25000);
  w = wr_of(text, sizeof text);
  cr_assert_not(stats_valid(&s, &sc, &w), "late");
  sc.mode = LOAD_SATURATE;
  cr_assert(stats_valid(&s, &sc, &w), "closed: the next request is due when it is asked for");
}

Test(stats, a_server_that_answers_nothing_has_failed_everything) {
  static struct load_stats s;
  struct scenario sc = {.mode = LOAD_RATE, .level = {-1, -1, -1, -1, 0, 20}};
  char text[2048];
  struct writer w = wr_of(text, sizeof text - 1);
  s.unanswered = 100;
  s.errors = 100;
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
  } v[] = {{LOAD_RATE, 9, 36, 1, true}, {LOAD_RATE, 9, 3, 34, true}, {LOAD_RATE, 0, 36, 1, false},
           {LOAD_RATE, 9, 34, 1, false}, {LOAD_SATURATE, 9, 36, 1, false}};
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

// What one answer, and one that never came, is counted as.
Test(stats, an_answer_is_counted_by_when_it_was_due_and_what_it_was) {
  static struct load_stats st;
  struct scenario sc = {.level = {-1, 5, -1, -1, 0, 20}};
  struct load_run run = {.sc = &sc};
  static struct engine e = {.st = &st};
  e.run = &run;
  engine_count(&e, 7, LOAD_ERR_NONE, 1.0, 1.003, 1.004); // in time
  engine_count(&e, 7, LOAD_ERR_NONE, 1.01, 1.015, 1.016); // late
  engine_count(&e, 7, LOAD_ERR_5XX, 1.02, 1.02, 1.021); // failed
  engine_unanswered(&e, 1.03, 1.5, 2.03);
  cr_expect(st.requests == 3 && st.bytes == 21 && st.errors == 1 && st.by_error[LOAD_ERR_5XX] == 1 && st.unanswered == 1);
  cr_expect(st.second[1].requests == 3 && st.second[1].errors == 1);
  cr_expect(st.window[10].requests == 4 && st.window[10].late == 3, "%u of %u", st.window[10].late, st.window[10].requests);
  cr_expect(st.latency.total == 4 && st.latency.max / 100 - 9999 <= 1 && st.latency.min / 100 - 9 <= 1);
  cr_expect(st.service.total == 4 && st.service.max / 100 - 5299 <= 1 && hist_percentile(&st.service, 75) / 100 - 9 <= 1, "%lu", st.service.max);
  engine_count(&e, 0, LOAD_ERR_NONE, LOAD_MAX_WINDOWS * LOAD_WINDOW_S + 1, 0, 0); // beyond the windows
  engine_count(&e, 0, LOAD_ERR_NONE, -1, 0, 0);
  cr_expect(st.requests == 5 && st.window[LOAD_MAX_WINDOWS - 1].requests == 0 && st.window[0].requests == 0);
}

static uint32_t late_ones;

static void note_late(struct session *s, double now_s) {
  (void)now_s;
  s->waiting = false;
  late_ones++;
}

// All who wait are looked at within half a second, however few they are; slow readers have no limit.
Test(stats, who_waits_too_long_is_found) {
  for (uint32_t num = 1; num <= 100; num += 99) {
    struct session *sessions = calloc(num, sizeof *sessions);
    struct scenario sc = {.timeout_s = 10};
    struct load_run run = {.sc = &sc};
    struct engine e = {.run = &run, .sessions = sessions};
    cr_assert(sessions);
    late_ones = 0;
    for (uint32_t i = 0; i < num; i++)
      sessions[i] = (struct session){.waiting = true, .sent_s = 1, .l.slow = num > 1 && i % 2};
    for (double now = 11; now < 11.6; now += 0.02)
      engine_sweep(&e, num, note_late, now);
    cr_expect_eq(late_ones, num > 1 ? num / 2 : 1, "%u of %u", late_ones, num);
    free(sessions);
  }
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
