// Coarse timers of one worker: a wheel of lists, O(1) to set and to clear, exact to one tick (late by at most that).
#pragma once
#include "base/bytes.h"

struct timer;
typedef void timer_fire(struct timer *t, void *ctx);

struct timer {
  struct timer *next, **prev; // prev: what points here; NULL while unset
  uint64_t due_tick;
  timer_fire *fire;
};

enum { TIMER_TICK_MS = 64, TIMER_SLOTS = 1024 };

struct timers {
  uint64_t tick;   // last one run
  uint64_t num;    // set
  struct timer *wheel[TIMER_SLOTS];
};

void timers_init(struct timers *ts, uint64_t now_ms);
// timer_set (re)arms for `after_ms` from now; timer_clear on an unset one is a no-op.
void timer_set(struct timers *ts, struct timer *t, uint64_t now_ms, uint64_t after_ms);
void timer_clear(struct timers *ts, struct timer *t);
static inline bool timer_is_set(const struct timer *t) { return t->prev != NULL; }
// timers_run fires what is due. A firing timer is unset already and may be set again or freed by its function.
void timers_run(struct timers *ts, uint64_t now_ms, void *ctx);
// timers_wait_ms says how long nothing is due: at most one tick while any timer is set, UINT64_MAX when none is.
uint64_t timers_wait_ms(const struct timers *ts, uint64_t now_ms);
