#include "net/timer.h"
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdlib.h>

struct probe {
  struct timer t;
  uint64_t fired_ms; // 0: not yet
  uint64_t *now_ms;
  struct probe *clears;
  struct timers *again;
};

static void fire(struct timer *t, void *ctx) {
  struct probe *p = (struct probe *)(void *)t;
  (void)ctx;
  cr_assert_not(timer_is_set(t));
  cr_assert_eq(p->fired_ms, 0, "fired twice");
  p->fired_ms = *p->now_ms;
  if (p->clears)
    timer_clear(p->again, &p->clears->t);
}

Test(timer, never_early_and_at_most_two_ticks_late) {
  enum { N = 500 };
  static struct probe probes[N];
  static struct timers ts;
  static uint64_t due[N];
  uint64_t now = 123456;
  timers_init(&ts, now);
  srand(1);
  for (int i = 0; i < N; i++) {
    uint64_t after = (uint64_t)(rand() % 200000); // up to three turns of the wheel
    probes[i] = (struct probe){.t.fire = fire, .now_ms = &now};
    due[i] = now + after;
    timer_set(&ts, &probes[i].t, now, after);
  }
  for (int i = 0; i < N; i += 5)
    timer_clear(&ts, &probes[i].t);
  uint64_t step = 0;
  while (ts.num) {
    uint64_t wait = timers_wait_ms(&ts, now);
    cr_assert_leq(wait, 17 * TIMER_TICK_MS);
    now += step++ % 3 ? wait : 1; // as a loop does, with early returns
    timers_run(&ts, now, NULL);
    cr_assert_lt(step, 100000u);
  }
  for (int i = 0; i < N; i++) {
    if (i % 5 == 0) {
      cr_assert_eq(probes[i].fired_ms, 0);
      continue;
    }
    cr_assert_geq(probes[i].fired_ms, due[i]);
    cr_assert_leq(probes[i].fired_ms, due[i] + 2 * TIMER_TICK_MS);
  }
  cr_assert_eq(timers_wait_ms(&ts, now), UINT64_MAX);
}

// A loop that wakes at the very tick that it was told has nothing to wait for any more.
Test(timer, one_tick_is_enough) {
  static struct timers ts;
  static struct probe p;
  uint64_t now = 100 * TIMER_TICK_MS;
  timers_init(&ts, now);
  p = (struct probe){.t.fire = fire, .now_ms = &now};
  timer_set(&ts, &p.t, now, TIMER_TICK_MS);
  cr_assert_eq(timers_wait_ms(&ts, now), TIMER_TICK_MS);
  now += TIMER_TICK_MS;
  timers_run(&ts, now, NULL);
  cr_assert_eq(p.fired_ms, now);
}

Test(timer, a_long_sleep_fires_everything_due) {
  static struct timers ts;
  static struct probe probes[3];
  uint64_t now = 1000;
  timers_init(&ts, now);
  for (int i = 0; i < 3; i++) {
    probes[i] = (struct probe){.t.fire = fire, .now_ms = &now};
    timer_set(&ts, &probes[i].t, now, (uint64_t)(i + 1) * 70000);
  }
  now += 150000;
  timers_run(&ts, now, NULL);
  cr_assert(probes[0].fired_ms && probes[1].fired_ms && !probes[2].fired_ms);
  cr_assert_eq(ts.num, 1);
}

Test(timer, one_firing_may_clear_another_of_the_same_slot) {
  static struct timers ts;
  static struct probe a, b, c;
  uint64_t now = 5;
  timers_init(&ts, now);
  a = b = c = (struct probe){.t.fire = fire, .now_ms = &now, .again = &ts};
  c.clears = &b; // the last set runs first
  timer_set(&ts, &a.t, now, 100);
  timer_set(&ts, &b.t, now, 100);
  timer_set(&ts, &c.t, now, 100);
  now += 1000;
  timers_run(&ts, now, NULL);
  cr_assert(a.fired_ms && !b.fired_ms && c.fired_ms);
  cr_assert_eq(ts.num, 0);
}
