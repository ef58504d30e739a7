// Runs without listeners: a constant rate (open), saturation (closed), an idle herd.
#include <stdlib.h>
#include <stdio.h>

#include "load/session.h"

struct plain {
  struct engine *e;
  struct session *idle; // connections without a request
  uint64_t next;        // number of the next request of this thread
  double begun_s;
  uint64_t done;
  struct rng rng;
};

// The path of request `n`: cycling for saturation, like wrk with a list; drawn for the rate mode.
static void choose_path(struct plain *p, struct session *s, uint64_t n) {
  const struct load_run *run = p->e->run;
  uint64_t i = run->sc->mode == LOAD_RATE ? rng_below(&p->rng, run->num_paths) : n % run->num_paths;
  snprintf(s->next.path, sizeof s->next.path, "%s", run->paths[i]);
}

static void ask(struct plain *p, struct session *s, double due_s, double now_s) {
  s->next.at_s = due_s;
  s->sent_s = now_s;
  choose_path(p, s, p->next++);
  hist_record(&p->e->st->lag, now_s > due_s ? (uint64_t)((now_s - due_s) * 1e6) : 0);
  client_send(&s->c, engine_write_request(s), false);
}

// When request `n` of this thread is due: requests of all threads interleave to the whole rate.
static double due_of(const struct plain *p, uint64_t n) {
  const struct load_run *run = p->e->run;
  return ((double)n * run->num_threads + run->thread) / run->sc->rate;
}

static void on_done(struct client *c, const struct client_response *r) {
  struct session *s = c->owner;
  struct plain *p = s->plain;
  struct engine *e = p->e;
  double now = engine_now(e);
  engine_count(e, r, r->whole && r->status == 200, s->next.at_s, s->sent_s, now);
  p->done++;
  if (e->run->sc->mode == LOAD_SATURATE && now < e->run->sc->seconds && !*e->run->stop) {
    ask(p, s, now, now);
    return;
  }
  s->next_free = p->idle;
  p->idle = s;
}

static void ask_what_is_due(struct plain *p, double now_s) {
  const struct scenario *sc = p->e->run->sc;
  while (p->idle) {
    double due = sc->mode == LOAD_RATE ? due_of(p, p->next) : now_s;
    if (sc->mode == LOAD_RATE && (due > now_s || due >= sc->seconds))
      return;
    if (sc->mode != LOAD_RATE && p->next >= p->e->num_sessions)
      return; // the first request of each connection; saturation goes on from its completions
    struct session *s = p->idle;
    p->idle = s->next_free;
    ask(p, s, due, now_s);
  }
}

enum err engine_run_plain(struct engine *e, struct diag *diag) {
  const struct scenario *sc = e->run->sc;
  struct plain p = {.e = e, .rng = rng_of(sc->seed, e->run->thread)};
  for (uint32_t i = 0; i < e->num_sessions; i++) {
    struct session *s = &e->sessions[i];
    client_init(&s->c, e->io, (const struct sockaddr *)&e->run->addr, e->run->addr_len, s->out, sizeof s->out);
    s->c.done = on_done;
    s->c.owner = s;
    s->plain = &p;
    s->next_free = p.idle;
    p.idle = s;
  }
  atomic_store_explicit(&e->st->active, e->num_sessions, memory_order_relaxed);
  double now = engine_now(e);
  // A rate run ends when all that was due has been answered, so that a slow server cannot shorten it; bounded by the drain.
  while (!*e->run->stop) {
    now = engine_now(e);
    ask_what_is_due(&p, now);
    bool all = sc->mode != LOAD_RATE || (due_of(&p, p.next) >= sc->seconds && p.done == p.next);
    if (now > sc->seconds && (all || now > sc->seconds + sc->drain_s))
      break;
    double wake = now + 0.05;
    if (sc->mode == LOAD_RATE && p.idle && due_of(&p, p.next) < wake)
      wake = due_of(&p, p.next);
    int64_t wait_ns = (int64_t)((wake - engine_now(e)) * 1e9);
    if (!engine_wait(e, wait_ns > 0 ? wait_ns : 0))
      return diag_set(diag, ERR_IO, 0, "the I/O backend failed");
  }
  if (sc->mode == LOAD_RATE) { // what was never even asked is late by what it has waited
    for (; due_of(&p, p.next) < sc->seconds; p.next++) {
      hist_record(&e->st->latency, (uint64_t)((now - due_of(&p, p.next)) * 1e6));
      e->st->by_error[LOAD_ERR_CONNECT]++;
      atomic_fetch_add_explicit(&e->st->errors, 1, memory_order_relaxed);
    }
  }
  e->st->elapsed_s = now < sc->seconds || sc->mode == LOAD_RATE ? now : sc->seconds;
  for (uint32_t i = 0; i < e->num_sessions; i++)
    client_close(&e->sessions[i].c);
  return ERR_OK;
}
