#include "load/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "load/session.h"

double engine_now(const struct engine *e) {
  uint64_t now = e->clients.io->v->now_ns(e->clients.io);
  return ((double)now - (double)e->run->start_ns) * 1e-9;
}

bool engine_wait(struct engine *e, int64_t timeout_ns) {
  struct io *io = e->clients.io;
  return io->v->wait(io, timeout_ns) && io->v->run(io);
}

enum err engine_failed(const struct engine *e, struct diag *diag) {
  return diag_say(diag, ERR_IO, "%s failed: %s", e->clients.io->v->name, strerror(errno));
}

struct load_second *engine_second(struct engine *e, double now_s) {
  if (now_s >= LOAD_MAX_SECONDS)
    return &e->beyond;
  uint32_t i = now_s <= 0 ? 0 : (uint32_t)now_s;
  if (i >= e->st->num_seconds)
    e->st->num_seconds = i + 1;
  return &e->st->second[i];
}

static uint64_t us_between(double from_s, double to_s) { return to_s > from_s ? (uint64_t)((to_s - from_s) * 1e6) : 0; }

// By when a request was due it belongs to a window of the run; `late` windows are what recovery is read from.
static void count_window(struct engine *e, double due_s, uint64_t us, bool ok) {
  double bound_ms = e->run->sc->level.latency_p99_ms;
  double at = due_s / LOAD_WINDOW_S;
  if (at < 0 || at >= LOAD_MAX_WINDOWS)
    return;
  struct load_window *w = &e->st->window[(uint32_t)at];
  w->requests++;
  w->late += !ok || (bound_ms >= 0 && (double)us > bound_ms * 1e3);
}

enum load_error engine_failure(const struct client_response *r) {
  return r->malformed                ? LOAD_ERR_PROTOCOL
         : !r->status && !r->begun ? LOAD_ERR_CONNECT
         : !r->whole               ? LOAD_ERR_CUT
         : r->status >= 500        ? LOAD_ERR_5XX
         : r->status >= 400        ? LOAD_ERR_4XX
                                   : LOAD_ERR_STATUS;
}

void engine_count(struct engine *e, uint64_t body_len, enum load_error failed, double due_s, double sent_s, double now_s) {
  struct load_stats *st = e->st;
  uint64_t us = us_between(due_s, now_s);
  struct load_second *sec = engine_second(e, now_s);
  hist_record(&st->latency, us);
  hist_record(&st->service, us_between(sent_s, now_s));
  atomic_fetch_add_explicit(&st->requests, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&st->bytes, body_len, memory_order_relaxed);
  sec->requests++;
  sec->heat[stats_heat_row(us)]++;
  count_window(e, due_s, us, failed == LOAD_ERR_NONE);
  if (failed == LOAD_ERR_NONE)
    return;
  atomic_fetch_add_explicit(&st->errors, 1, memory_order_relaxed);
  sec->errors++;
  st->by_error[failed]++;
}

void engine_unanswered(struct engine *e, double due_s, double sent_s, double now_s) {
  uint64_t us = us_between(due_s, now_s);
  e->st->unanswered++;
  hist_record(&e->st->latency, us);
  hist_record(&e->st->service, us_between(sent_s, now_s));
  engine_second(e, now_s)->heat[stats_heat_row(us)]++;
  count_window(e, due_s, us, false);
}

void engine_sweep(struct engine *e, uint32_t num, void (*late)(struct session *s, double now_s), double now_s) {
  if (now_s < e->sweep_s + 0.01 || !num)
    return;
  double share = (now_s - e->sweep_s) / 0.5;
  e->sweep_s = now_s;
  for (uint32_t n = share < 1 ? (uint32_t)(num * share) + 1 : num; n; n--) {
    struct session *s = &e->sessions[e->swept++ % num];
    if (s->waiting && !s->l.slow && now_s - s->sent_s > e->run->sc->timeout_s)
      late(s, now_s);
  }
}

// ---- a thread's life

static void free_bodies(struct engine *e) {
  while (e->pool) {
    struct body *next = e->pool->next;
    free(e->pool->p);
    free(e->pool);
    e->pool = next;
  }
}

static uint64_t resident(void) {
  unsigned long size = 0, pages = 0;
  FILE *f = fopen("/proc/self/statm", "re");
  if (f && fscanf(f, "%lu %lu", &size, &pages) != 2)
    pages = 0;
  if (f)
    fclose(f);
  return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

// Who measures a server's limit on the server's own machine charges it for being woken, which a client elsewhere does not:
// a moment passes before sleep, about what sleeping costs. Longer ones cost more and measure another server (docs/load.md).
#define LINGER_NS 400

static enum err set_up(struct engine *e, struct diag *diag) {
  const struct load_run *run = e->run;
  char why[160] = "";
  // Received bytes wait in no socket's own buffer: this is all the memory there is for them. It is to stay in a core's L2.
  struct io_options o = {.recv_buffers = 32, .recv_size = 32768};
  if (run->sc->mode == LOAD_RATE || run->sc->mode == LOAD_SATURATE)
    o.linger_ns = LINGER_NS;
  uint32_t places = run->sc->mode != LOAD_LISTENERS ? run->sc->connections : run->sc->max_listeners;
  e->num_sessions = places / run->num_threads + (run->thread < places % run->num_threads);
  e->clients = (struct client_world){.io = io_new(run->io, &o, why, sizeof why),
                                     .addr = (const struct sockaddr *)&run->addr, .addr_len = run->addr_len,
                                     .tls = run->tls, .tls_host = run->tls_host};
  if (!e->clients.io)
    return diag_say(diag, ERR_IO, "%s", why);
  e->sessions = calloc(e->num_sessions ? e->num_sessions : 1, sizeof *e->sessions);
  e->heap = calloc(e->num_sessions ? e->num_sessions : 1, sizeof *e->heap);
  e->lists = calloc(ENGINE_LISTS, sizeof *e->lists);
  e->num_slots = ENGINE_LISTS;
  e->log = run->log_fd >= 0 ? malloc(ENGINE_LOG) : NULL;
  if (!e->sessions || !e->heap || !e->lists || !client_world_ready(&e->clients) || (run->log_fd >= 0 && !e->log))
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  // What the run needs whatever its size is touched now, so that what listeners add can be told apart.
  memset(e->st, 0, sizeof *e->st);
  e->st->base_bytes = resident();
  return ERR_OK;
}

// How long this thread could have run and had no core, as Linux counts it; 0 where it does not.
static double waited_for_core(void) {
  unsigned long ran, waited = 0;
  FILE *f = fopen("/proc/thread-self/schedstat", "re");
  if (f && fscanf(f, "%lu %lu", &ran, &waited) != 2)
    waited = 0;
  if (f)
    fclose(f);
  return (double)waited * 1e-9;
}

static void tear_down(struct engine *e) {
  struct rusage u;
  if (getrusage(RUSAGE_THREAD, &u) == 0)
    e->st->cpu_s = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
  e->st->cpu_wait_s = waited_for_core();
  e->st->connects = e->clients.connects;
  e->st->tls_failures = e->clients.tls_failures;
  e->st->ended_at_rest = e->clients.ended_at_rest;
  e->st->unasked_bytes = e->clients.unasked_bytes;
  e->st->unopened = e->clients.unopened;
  e->st->unopened_errno = e->clients.unopened_errno;
  // connections that are still closing need their last completions before the memory goes
  for (int i = 0; i < 50; i++)
    if (!e->clients.io || !engine_wait(e, 1000000))
      break;
  for (uint32_t i = 0; e->sessions && i < e->num_sessions; i++)
    free(e->sessions[i].etag), free(e->sessions[i].moved);
  engine_log_flush(e);
  io_free(e->clients.io);
  client_world_free(&e->clients);
  free_bodies(e);
  engine_lists_free(e);
  free(e->sessions);
  free(e->heap);
  free(e->log);
}

enum err engine_run(const struct load_run *run, struct diag *diag) {
  struct engine e = {.run = run, .st = run->stats};
  enum err err = set_up(&e, diag);
  if (!err)
    err = run->sc->mode != LOAD_LISTENERS ? engine_run_plain(&e, diag) : engine_run_listeners(&e, diag);
  tear_down(&e);
  if (!err && e.log_errno)
    err = diag_say(diag, ERR_IO, "the request log cannot be written: %s", strerror(e.log_errno));
  return err;
}
