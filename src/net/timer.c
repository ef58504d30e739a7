#include "net/timer.h"

static struct timer **slot_of(struct timers *ts, uint64_t tick) { return &ts->wheel[tick % TIMER_SLOTS]; }

static void link_at(struct timer **slot, struct timer *t) {
  t->next = *slot;
  if (t->next)
    t->next->prev = &t->next;
  *slot = t;
  t->prev = slot;
}

static void unlink_timer(struct timer *t) {
  *t->prev = t->next;
  if (t->next)
    t->next->prev = t->prev;
  t->next = NULL;
  t->prev = NULL;
}

void timers_init(struct timers *ts, uint64_t now_ms) {
  memset(ts, 0, sizeof *ts);
  ts->tick = now_ms / TIMER_TICK_MS;
}

void timer_set(struct timers *ts, struct timer *t, uint64_t now_ms, uint64_t after_ms) {
  timer_clear(ts, t);
  uint64_t due = (now_ms + after_ms + TIMER_TICK_MS - 1) / TIMER_TICK_MS;
  t->due_tick = due > ts->tick ? due : ts->tick + 1;
  link_at(slot_of(ts, t->due_tick), t);
  ts->num++;
}

void timer_clear(struct timers *ts, struct timer *t) {
  if (!t->prev)
    return;
  unlink_timer(t);
  ts->num--;
}

// One slot: its list is taken off the wheel first, so that what firing functions set never runs in the same pass;
// `prev` of the first one points at the local head, which keeps timer_clear right for those still waiting here.
static void run_slot(struct timers *ts, uint64_t tick, void *ctx) {
  struct timer **slot = slot_of(ts, tick), *head = *slot;
  *slot = NULL;
  if (head)
    head->prev = &head;
  while (head) {
    struct timer *t = head;
    unlink_timer(t);
    if (t->due_tick > ts->tick) {
      link_at(slot, t);
      continue;
    }
    ts->num--;
    t->fire(t, ctx);
  }
}

void timers_run(struct timers *ts, uint64_t now_ms, void *ctx) {
  uint64_t now = now_ms / TIMER_TICK_MS, from = ts->tick + 1;
  if (now < from)
    return;
  if (now - from >= TIMER_SLOTS) // every slot once is enough
    from = now - TIMER_SLOTS + 1;
  ts->tick = now;
  for (uint64_t tick = from; tick <= now; tick++)
    run_slot(ts, tick, ctx);
}

uint64_t timers_wait_ms(const struct timers *ts, uint64_t now_ms) {
  enum { LOOK_AHEAD = 16 };
  if (ts->num == 0)
    return UINT64_MAX;
  uint64_t ahead = 1;
  while (ahead < LOOK_AHEAD && !ts->wheel[(ts->tick + ahead) % TIMER_SLOTS])
    ahead++;
  uint64_t at_ms = (ts->tick + ahead) * TIMER_TICK_MS;
  return at_ms > now_ms ? at_ms - now_ms : 0;
}
