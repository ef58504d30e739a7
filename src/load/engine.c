#include "load/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "load/session.h"
#include "load/verify.h"

double engine_now(const struct engine *e) {
  uint64_t now = e->io->v->now_ns(e->io);
  return ((double)now - (double)e->run->start_ns) * 1e-9;
}

bool engine_wait(struct engine *e, int64_t timeout_ns) {
  return e->io->v->wait(e->io, timeout_ns) && e->io->v->run(e->io);
}

struct load_second *engine_second(struct engine *e, double now_s) {
  uint32_t i = now_s <= 0 ? 0 : now_s < LOAD_MAX_SECONDS - 1 ? (uint32_t)now_s : LOAD_MAX_SECONDS - 1;
  if (i >= e->st->num_seconds)
    e->st->num_seconds = i + 1;
  return &e->st->second[i];
}

// ---- the heap of what is due

static void due_push(struct engine *e, double at_s, uint32_t session) {
  uint32_t i = e->num_due++;
  while (i && e->heap[(i - 1) / 2].at_s > at_s) {
    e->heap[i] = e->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  e->heap[i] = (struct due){at_s, session};
}

static struct due due_pop(struct engine *e) {
  struct due top = e->heap[0], last = e->heap[--e->num_due];
  uint32_t i = 0;
  for (;;) {
    uint32_t k = 2 * i + 1;
    if (k >= e->num_due)
      break;
    if (k + 1 < e->num_due && e->heap[k + 1].at_s < e->heap[k].at_s)
      k++;
    if (e->heap[k].at_s >= last.at_s)
      break;
    e->heap[i] = e->heap[k];
    i = k;
  }
  e->heap[i] = last;
  return top;
}

// ---- counting

void engine_count(struct engine *e, const struct client_response *r, bool ok, double due_s, double sent_s, double now_s) {
  struct load_stats *st = e->st;
  uint64_t us = now_s > due_s ? (uint64_t)((now_s - due_s) * 1e6) : 0;
  struct load_second *sec = engine_second(e, now_s);
  hist_record(&st->latency, us);
  hist_record(&st->service, now_s > sent_s ? (uint64_t)((now_s - sent_s) * 1e6) : 0);
  atomic_fetch_add_explicit(&st->requests, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&st->bytes, r->body_len, memory_order_relaxed);
  sec->requests++;
  sec->heat[stats_heat_row(us)]++;
  if (ok)
    return;
  atomic_fetch_add_explicit(&st->errors, 1, memory_order_relaxed);
  sec->errors++;
  st->by_error[!r->status          ? LOAD_ERR_CONNECT
               : !r->whole         ? LOAD_ERR_CUT
               : r->status >= 500  ? LOAD_ERR_5XX
               : r->status >= 400  ? LOAD_ERR_4XX
                                   : LOAD_ERR_PARSE]++;
}

// ---- requests of listeners

uint32_t engine_write_request(struct session *s) {
  struct writer w = wr_of(s->out, sizeof s->out);
  wr_str(&w, s->next.head ? "HEAD " : "GET ");
  wr_str(&w, s->next.path);
  wr_str(&w, " HTTP/1.1\r\nHost: ");
  wr_str(&w, s->e->run->host);
  wr_str(&w, "\r\nUser-Agent: sluice-load\r\n");
  if (s->next.ranged)
    wr_fmt(&w, "Range: bytes=%lu-%lu\r\n", s->next.range_from, s->next.range_to);
  else if (s->l.conditional && s->etag[0] && s->next.step == STEP_SEGMENT && s->l.tries)
    wr_fmt(&w, "If-None-Match: %s\r\n", s->etag);
  wr_str(&w, "\r\n");
  return wr_ok(&w) ? (uint32_t)w.n : 0;
}

static void log_request(struct session *s) {
  if (s->e->run->log_fd < 0)
    return;
  char line[PLAYLIST_MAX_URI + 64];
  int n = snprintf(line, sizeof line, "%lu %u %s %s %lu-%lu\n", s->l.id, s->ordinal, s->next.head ? "HEAD" : "GET", s->next.path,
                   s->next.ranged ? s->next.range_from : 0, s->next.ranged ? s->next.range_to : 0);
  if (n > 0 && write(s->e->run->log_fd, line, (size_t)n) < 0)
    s->e->st->by_error[LOAD_ERR_PARSE]++; // shows up as a failed run rather than a short log
}

static void send_request(struct session *s, double now_s) {
  struct engine *e = s->e;
  bool keep = s->next.step != STEP_SEGMENT || s->l.verified;
  log_request(s);
  s->ordinal++;
  hist_record(&e->st->lag, now_s > s->next.at_s ? (uint64_t)((now_s - s->next.at_s) * 1e6) : 0);
  s->sent_s = now_s;
  if (keep && !s->body)
    s->body = body_take(e);
  if (s->body)
    s->body->n = 0;
  s->no_memory = keep && !s->body;
  s->aborting = false;
  s->abort_after = UINT64_MAX;
  if (s->l.aborts && s->next.step == STEP_SEGMENT && !s->next.ranged && rng_unit(&s->l.rng) < 0.2)
    s->abort_after = rng_below(&s->l.rng, 32768);
  client_send(&s->c, engine_write_request(s), s->next.head);
  s->half_closed = s->l.half_close && s->next.step == STEP_SEGMENT;
  if (s->half_closed)
    client_half_close(&s->c);
}

static void on_body(struct client *c, struct bytes piece) {
  struct session *s = c->owner;
  if (s->body && !body_add(s->body, piece))
    s->no_memory = c->stop = true;
  if (c->response.body_len >= s->abort_after)
    s->aborting = c->stop = true;
}

static void end_session(struct session *s) {
  struct engine *e = s->e;
  struct load_stats *st = e->st;
  client_close(&s->c);
  if (s->body)
    body_give(e, s->body);
  if (s->init)
    body_give(e, s->init);
  if (s->whole)
    body_give(e, s->whole);
  s->body = s->init = s->whole = NULL;
  st->rebuffer_s += s->l.rebuffer_s;
  st->played_s += s->l.played_s;
  st->sessions_unheard += s->l.startup_s < 0;
  s->in_use = false;
  e->num_active--;
  atomic_fetch_sub_explicit(&st->active, 1, memory_order_relaxed);
  s->next_free = e->free;
  e->free = s;
}

static void verify(struct session *s) {
  struct engine *e = s->e;
  char what[sizeof e->st->first_wrong];
  if (!e->run->verifier || !s->l.verified || !s->body)
    return;
  if (s->l.step == STEP_INIT && !s->next.ranged) {
    if (!s->init)
      s->init = body_take(e);
    if (s->init) {
      s->init->n = 0;
      s->no_memory |= !body_add(s->init, bytes_of(s->body->p, s->body->n));
    }
  } else if (s->l.step == STEP_SEGMENT && !s->next.head && s->init) {
    struct verify_response v = {.asset = s->l.sc->catalogue.names[s->l.asset], .path = s->next.path,
                                .init = bytes_of(s->init->p, s->init->n), .body = bytes_of(s->body->p, s->body->n),
                                .list = s->l.list, .ranged = s->next.ranged, .range_from = s->next.range_from,
                                .whole = s->whole ? bytes_of(s->whole->p, s->whole->n) : (struct bytes){0}};
    bool right = verify_response(e->run->verifier, &v, what, sizeof what);
    e->st->verified++;
    e->st->wrong += !right;
    if (!right && !e->st->first_wrong[0])
      memcpy(e->st->first_wrong, what, sizeof what);
  }
}

static void schedule(struct session *s) {
  if (s->next.act == ACT_END)
    end_session(s);
  else
    due_push(s->e, s->next.at_s, (uint32_t)(s - s->e->sessions));
}

static void on_done(struct client *c, const struct client_response *r) {
  struct session *s = c->owner;
  struct engine *e = s->e;
  struct diag diag = {0};
  double now = engine_now(e);
  if (s->aborting) { // a client that changed its mind: the same request again
    e->st->aborted++;
    due_push(e, now, (uint32_t)(s - e->sessions));
    s->next.at_s = now;
    return;
  }
  struct listener_got got = {.now_s = now, .body_len = r->body_len};
  unsigned want = s->next.ranged ? 206 : 200;
  got.ok = r->whole && (r->status == want || (r->status == 304 && s->l.conditional)) && !s->no_memory;
  e->st->not_modified += r->status == 304;
  e->st->ranges += s->next.ranged;
  e->st->heads += s->next.head;
  if (got.ok && r->status != 304)
    verify(s);
  if (got.ok && (s->l.step == STEP_MASTER || s->l.step == STEP_MEDIA))
    got.ok = engine_parse(e, s, &got, &diag) == ERR_OK;
  engine_count(e, r, got.ok, s->next.at_s, s->sent_s, now);
  memcpy(s->etag, r->etag, sizeof s->etag);
  if (s->half_closed)
    client_close(c);
  uint32_t misses = s->l.misses, segments = s->l.segments;
  bool playing = s->l.playing;
  listener_on_response(&s->l, e->run->pop, &got, &s->next);
  if (!playing && s->l.segments > segments)
    hist_record(&e->st->startup, (uint64_t)(s->l.startup_s * 1e6));
  e->st->segments += s->l.segments - segments;
  if (s->next.ranged && s->body) { // what the range will be compared with
    struct body *b = s->whole;
    s->whole = s->body;
    s->body = b;
  }
  atomic_fetch_add_explicit(&e->st->misses, s->l.misses - misses, memory_order_relaxed);
  engine_second(e, now)->misses += s->l.misses - misses;
  schedule(s);
}

static void begin_session(struct engine *e, uint64_t id, double at_s) {
  struct session *s = e->free;
  e->st->sessions++;
  // A place whose old connection is still closing is skipped; there is one soon.
  struct session **from = &e->free;
  while (s && !client_idle(&s->c)) {
    from = &s->next_free;
    s = s->next_free;
  }
  if (!s) {
    e->st->sessions_lost++;
    return;
  }
  *from = s->next_free;
  s->in_use = true;
  s->ordinal = 0;
  s->etag[0] = 0;
  e->num_active++;
  atomic_fetch_add_explicit(&e->st->active, 1, memory_order_relaxed);
  listener_begin(&s->l, e->run->sc, e->run->pop, id, at_s, &s->next);
  client_init(&s->c, e->io, (const struct sockaddr *)&e->run->addr, e->run->addr_len, s->out, sizeof s->out);
  s->c.done = on_done;
  s->c.body = on_body;
  s->c.owner = s;
  s->c.slow_bytes = s->l.slow ? e->run->sc->slow_bytes_per_s / 10 + 1 : 0;
  due_push(e, at_s, (uint32_t)(s - e->sessions));
}

static void slow_readers_read(struct engine *e, double now_s) {
  if (now_s < e->slow_tick_s + 0.1)
    return;
  e->slow_tick_s = now_s;
  for (uint32_t i = 0; i < e->num_sessions; i++)
    if (e->sessions[i].in_use && e->sessions[i].c.slow_bytes)
      client_read_slowly(&e->sessions[i].c);
}

static enum err run_listeners(struct engine *e) {
  const struct scenario *sc = e->run->sc;
  struct arrivals arrivals;
  arrivals_init(&arrivals, sc->pieces, sc->num_pieces, sc->seed);
  double next_s = 0, shape_s = 0;
  uint64_t id = 0;
  for (uint32_t i = 0; i < sc->num_pieces; i++)
    shape_s += sc->pieces[i].seconds;
  bool more = arrivals_next(&arrivals, &next_s);
  uint32_t sampled = 0; // seconds whose `active` is written
  for (;;) {
    double now = engine_now(e);
    while (more && next_s <= now) {
      if (id % e->run->num_threads == e->run->thread)
        begin_session(e, id, next_s);
      id++;
      more = arrivals_next(&arrivals, &next_s);
    }
    while (e->num_due && e->heap[0].at_s <= now) {
      struct due d = due_pop(e);
      send_request(&e->sessions[d.session], engine_now(e));
    }
    for (; now >= sampled; sampled++)
      engine_second(e, sampled)->active = e->num_active;
    if (sc->slow_reader > 0)
      slow_readers_read(e, now);
    if ((!more && !e->num_active) || now > shape_s + sc->drain_s || *e->run->stop)
      break;
    double wake = now + 0.1;
    wake = more && next_s < wake ? next_s : wake;
    wake = e->num_due && e->heap[0].at_s < wake ? e->heap[0].at_s : wake;
    int64_t wait_ns = (int64_t)((wake - engine_now(e)) * 1e9);
    if (!engine_wait(e, wait_ns > 0 ? wait_ns : 0))
      return ERR_IO;
  }
  e->st->elapsed_s = engine_now(e);
  for (uint32_t i = 0; i < e->num_sessions; i++)
    if (e->sessions[i].in_use)
      end_session(&e->sessions[i]);
  return ERR_OK;
}

static void free_bodies(struct engine *e) {
  while (e->pool) {
    struct body *next = e->pool->next;
    free(e->pool->p);
    free(e->pool);
    e->pool = next;
  }
}

enum err engine_run(const struct load_run *run, struct diag *diag) {
  char why[160] = "";
  struct engine e = {.run = run, .st = run->stats};
  struct io_options o = {.recv_buffers = 128, .recv_size = 65536};
  bool plain = run->sc->mode != LOAD_LISTENERS;
  uint32_t places = plain ? run->sc->connections : run->sc->max_listeners;
  e.num_sessions = places / run->num_threads + (run->thread < places % run->num_threads);
  e.io = io_new(run->io, &o, why, sizeof why);
  if (!e.io)
    return diag_set(diag, ERR_IO, 0, "%s", why);
  alloc_heap_init(&e.mem, (size_t)1 << 30);
  e.sessions = calloc(e.num_sessions ? e.num_sessions : 1, sizeof *e.sessions);
  e.heap = calloc(e.num_sessions ? e.num_sessions : 1, sizeof *e.heap);
  e.lists = calloc(ENGINE_LISTS, sizeof *e.lists);
  enum err err = e.sessions && e.heap && e.lists ? ERR_OK : diag_set(diag, ERR_NO_MEMORY, 0, NULL);
  for (uint32_t i = e.num_sessions; !err && i-- > 0;) {
    e.sessions[i].e = &e;
    e.sessions[i].c.fd = -1;
    e.sessions[i].next_free = e.free;
    e.free = &e.sessions[i];
  }
  if (!err)
    err = plain ? engine_run_plain(&e, diag) : run_listeners(&e);
  // connections that are still closing need their last completions before the memory goes
  for (int i = 0; i < 50 && !err; i++)
    engine_wait(&e, 1000000);
  struct rusage u;
  if (getrusage(RUSAGE_THREAD, &u) == 0)
    e.st->cpu_s = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
  io_free(e.io);
  free_bodies(&e);
  alloc_heap_free(&e.mem);
  free(e.sessions);
  free(e.heap);
  free(e.lists);
  return err;
}
