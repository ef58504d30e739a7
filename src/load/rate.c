// Runs without listeners: a constant rate (open), saturation (closed), an idle herd.
#include <math.h>

#include "load/session.h"
#include "load/verify.h"

struct plain {
  struct engine *e;
  struct session *idle; // connections without a request
  uint64_t next;        // number of the next request of this thread
  bool queueing;        // requests that are due may be waiting for a connection,
  double queue_s;       // since then
  double compared_s;    // how long answers of this turn were compared
  uint64_t done;
  struct rng rng;
};

// The path of request `n`: cycling for saturation, like wrk with a list; drawn for the rate mode.
static const struct load_path *choose_path(struct plain *p, uint64_t n) {
  const struct load_run *run = p->e->run;
  return &run->paths[run->sc->mode == LOAD_RATE ? rng_below(&p->rng, run->num_paths) : n % run->num_paths];
}

// Hands the request to the connection. `again`: it was lost with its connection and is no new one.
static void hand_over(struct plain *p, struct session *s, bool again) {
  char out[CLIENT_REQUEST_MAX];
  struct writer w = wr_of(out, sizeof out);
  wr_str(&w, "GET ");
  wr_str(&w, s->what->path);
  wr_str(&w, " HTTP/1.1\r\nHost: ");
  wr_str(&w, p->e->run->host);
  wr_str(&w, "\r\nUser-Agent: sluice-load\r\n");
  if (s->what->range.len)
    wr_fmt(&w, "Range: bytes=%lu-%lu\r\n", s->what->range.from, s->what->range.from + s->what->range.len - 1);
  wr_str(&w, "\r\n");
  if (!again)
    engine_log(p->e, p->e->run->thread, s->ordinal, bytes_of(out, w.n));
  client_send(&s->c, bytes_of(out, w.n), false);
}

// The generator's own lag: what lies between the moment at which the request could have been sent, because it was due and a
// connection was free, and the moment at which it was. While requests queue for connections only the time before the queue
// began is the generator's.
static double lag_of(const struct plain *p, const struct session *s, double due_s, double now_s) {
  if (p->queueing)
    return due_s < p->queue_s ? p->queue_s - due_s : now_s - fmax(due_s, s->free_s);
  return now_s - fmax(due_s, s->free_s);
}

// Whether request `n` of this thread is in the share that is compared: by the seed and its number among those of all threads.
static bool is_compared(const struct plain *p, uint64_t n) {
  const struct load_run *run = p->e->run;
  if (!run->verifier || run->sc->verify_share >= 1)
    return run->verifier != NULL;
  struct rng r = rng_of(run->sc->seed ^ 0x636f6d70617265, n * run->num_threads + run->thread);
  return rng_unit(&r) < run->sc->verify_share;
}

static void ask(struct plain *p, struct session *s, double due_s, double now_s) {
  double lag_s = lag_of(p, s, due_s, now_s);
  s->next.at_s = due_s;
  s->what = choose_path(p, p->next);
  s->keep = is_compared(p, p->next);
  s->sent_s = now_s;
  s->waiting = true;
  s->no_memory = false;
  s->ordinal = (uint32_t)p->next++;
  p->e->st->queued += p->queueing && p->e->run->sc->mode == LOAD_RATE;
  hist_record(&p->e->st->lag, lag_s > 0 ? (uint64_t)(lag_s * 1e6) : 0);
  hand_over(p, s, false);
}

// When request `n` of this thread is due: requests of all threads interleave to the whole rate, or follow the shape.
static double due_of(const struct plain *p, uint64_t n) {
  const struct load_run *run = p->e->run;
  const struct scenario *sc = run->sc;
  double number = (double)n * run->num_threads + run->thread;
  if (!sc->num_pieces)
    return number / sc->rate;
  double at = arrivals_time_of(sc->pieces, sc->num_pieces, number);
  return at < 0 ? sc->seconds : at;
}

static void ask_what_is_due(struct plain *p, double now_s) {
  const struct scenario *sc = p->e->run->sc;
  while (p->idle) {
    double due = sc->mode == LOAD_RATE ? due_of(p, p->next) : now_s;
    if (sc->mode == LOAD_RATE && (due > now_s || due >= sc->seconds)) {
      p->queueing = false;
      return;
    }
    if (sc->mode != LOAD_RATE && p->next >= p->e->num_sessions)
      return; // the first request of each connection; saturation goes on from its completions
    struct session *s = p->idle;
    p->idle = s->next_free;
    ask(p, s, due, now_s);
    if (!p->idle && !p->queueing) {
      p->queueing = true;
      p->queue_s = now_s;
    }
  }
}

// The request of `s` has ended, in whatever way: its connection is free, since s->free_s.
static void settle(struct plain *p, struct session *s, double now_s) {
  const struct load_run *run = p->e->run;
  s->waiting = false;
  p->done++;
  body_give(p->e, s->body);
  s->body = NULL;
  if (run->sc->mode == LOAD_SATURATE && now_s < run->sc->seconds && !*run->stop) {
    ask(p, s, s->free_s, now_s);
    return;
  }
  s->next_free = p->idle;
  p->idle = s;
  if (p->queueing) // it was due before a connection was free: no waiting for the rest of the turn
    ask_what_is_due(p, now_s);
}

// Nobody waits for ever: the connection goes, and the next request has a new one.
static void time_out(struct session *s, double now_s) {
  client_close(&s->c);
  engine_count(s->e, 0, LOAD_ERR_TIMEOUT, s->next.at_s, s->sent_s, now_s);
  s->free_s = now_s;
  settle(s->plain, s, now_s);
}

static void on_body(struct client *c, struct bytes piece) {
  struct session *s = c->owner;
  s->no_memory = c->stop = s->keep && !session_keep(s, piece);
}

// Compares what arrived with the clear source. What that takes is the generator's lag, also of what comes meanwhile.
static void compare(struct session *s) {
  const struct load_path *what = s->what;
  const struct load_track *of = what->of;
  engine_compare(s->e, &(struct verify_response){.asset = of->asset, .scheme = s->e->run->sc->scheme, .body = session_body(s),
                                                 .path = of->list.uris + of->list.uri_off[what->segment], .init = of->init, .list = &of->list});
}

static void on_done(struct client *c, const struct client_response *r) {
  struct session *s = c->owner;
  struct plain *p = s->plain;
  struct engine *e = p->e;
  double arrived = engine_now(e);
  if (r->stale) {
    e->st->resent++;
    hand_over(p, s, true);
    return;
  }
  struct byte_range part = s->what->range;
  bool cut = part.len && r->status == 206 && r->body_len != part.len;
  bool ok = r->whole && r->status == (part.len ? 206 : 200) && !cut;
  if (ok && part.len)
    (void)engine_right_part(e, s->what->path, r->range, part.from, part.from + part.len - 1, 0);
  engine_count(e, r->body_len, ok ? LOAD_ERR_NONE : cut ? LOAD_ERR_CUT : s->no_memory ? LOAD_ERR_LARGE : engine_failure(r), s->next.at_s, s->sent_s, arrived);
  s->free_s = arrived - p->compared_s; // it may have lain here as long
  double now = arrived;
  if (ok && s->keep) {
    compare(s);
    now = engine_now(e);
    p->compared_s += now - arrived;
  }
  settle(p, s, now);
}

static void init_sessions(struct plain *p) {
  struct engine *e = p->e;
  e->clients.done = on_done;
  e->clients.body = e->run->verifier ? on_body : NULL;
  for (uint32_t i = 0; i < e->num_sessions; i++) {
    struct session *s = &e->sessions[i];
    *s = (struct session){.e = e, .plain = p, .next_free = p->idle};
    client_init(&s->c, &e->clients, s);
    p->idle = s;
  }
  atomic_store_explicit(&e->st->active, e->num_sessions, memory_order_relaxed);
}

// What is still open, and what was never even asked, is late by what it has waited: a server that hangs cannot hide.
static void count_the_rest(struct plain *p, double now_s) {
  struct engine *e = p->e;
  const struct scenario *sc = e->run->sc;
  uint64_t before = e->st->unanswered;
  if (sc->mode == LOAD_SATURATE)
    return; // closed: it ends with requests under way
  for (uint32_t i = 0; i < e->num_sessions; i++)
    if (e->sessions[i].waiting)
      engine_unanswered(e, e->sessions[i].next.at_s, e->sessions[i].sent_s, now_s);
  for (; sc->mode == LOAD_RATE && due_of(p, p->next) < sc->seconds && due_of(p, p->next) <= now_s; p->next++)
    engine_unanswered(e, due_of(p, p->next), due_of(p, p->next), now_s);
  uint64_t more = e->st->unanswered - before;
  e->st->by_error[LOAD_ERR_TIMEOUT] += more;
  atomic_fetch_add_explicit(&e->st->errors, more, memory_order_relaxed);
}

enum err engine_run_plain(struct engine *e, struct diag *diag) {
  const struct scenario *sc = e->run->sc;
  struct plain p = {.e = e, .rng = rng_of(sc->seed, e->run->thread)};
  init_sessions(&p);
  double now = engine_now(e);
  // A rate run ends when all that was due has been answered, so that a slow server cannot shorten it; bounded by the drain.
  for (;;) {
    now = engine_now(e);
    engine_sweep(e, e->num_sessions, time_out, now);
    if (now >= 0)
      ask_what_is_due(&p, now);
    bool all = sc->mode != LOAD_RATE || (due_of(&p, p.next) >= sc->seconds && p.done == p.next);
    bool over = now > sc->seconds && (all || now > sc->seconds + sc->drain_s);
    e->st->interrupted = !over && *e->run->stop;
    if (over || e->st->interrupted)
      break;
    double wake = now < 0 ? 0 : now + 0.05;
    if (sc->mode == LOAD_RATE && p.idle && due_of(&p, p.next) < wake)
      wake = due_of(&p, p.next);
    p.compared_s = 0;
    int64_t wait_ns = (int64_t)((wake - engine_now(e)) * 1e9);
    if (!engine_wait(e, wait_ns > 0 ? wait_ns : 0))
      return engine_failed(e, diag);
  }
  count_the_rest(&p, now);
  e->st->peak_active = e->num_sessions;
  e->st->elapsed_s = now < sc->seconds || sc->mode == LOAD_RATE ? now : sc->seconds;
  for (uint32_t i = 0; i < e->num_sessions; i++) {
    client_close(&e->sessions[i].c);
    body_give(e, e->sessions[i].body);
  }
  return ERR_OK;
}
