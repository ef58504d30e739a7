// Sessions: listeners that arrive, ask, wait, and leave, each over a connection of its own.
#include <stdio.h>
#include <stdlib.h>

#include "load/session.h"
#include "load/verify.h"

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

// ---- asking

static struct bytes write_request(struct session *s, char *out, size_t cap) {
  struct writer w = wr_of(out, cap);
  const struct listener_next *next = &s->next;
  wr_str(&w, next->head ? "HEAD " : "GET ");
  if (s->moved && s->moved->path[0])
    wr_str(&w, s->moved->path);
  else
    listener_path(&w, &s->l, next);
  wr_str(&w, " HTTP/1.1\r\nHost: ");
  wr_str(&w, s->e->run->host);
  wr_str(&w, "\r\nUser-Agent: sluice-load\r\n");
  if (next->part.len && !next->head) // of a part there is no open range
    wr_fmt(&w, "Range: bytes=%lu-%lu\r\n", next->part.from + (next->range ? next->range_from : 0),
           next->part.from + (next->range ? next->range_to : next->part.len - 1));
  else if (next->range == RANGE_CLOSED)
    wr_fmt(&w, "Range: bytes=%lu-%lu\r\n", next->range_from, next->range_to);
  else if (next->range == RANGE_OPEN)
    wr_fmt(&w, "Range: bytes=%lu-\r\n", next->range_from);
  else if (next->range == RANGE_SUFFIX)
    wr_fmt(&w, "Range: bytes=-%lu\r\n", next->range_to + 1 - next->range_from);
  if (next->if_none_match && s->etag && s->etag[0])
    wr_fmt(&w, "If-None-Match: %s\r\n", s->etag);
  wr_str(&w, "\r\n");
  return bytes_of(out, wr_ok(&w) ? w.n : 0);
}

// Hands the request to the connection. `again`: it was lost with its connection and is no new one.
static void hand_over(struct session *s, bool again) {
  char out[CLIENT_REQUEST_MAX];
  struct bytes request = write_request(s, out, sizeof out);
  if (!again)
    engine_log(s->e, s->l.id, s->ordinal++, request);
  s->waiting = true;
  s->etag_new = true;
  s->aborting = s->no_memory = false;
  if (s->moved)
    s->moved->n = 0; // what came of a Location before the connection broke
  body_give(s->e, s->body);
  s->body = NULL;
  client_send(&s->c, request, s->next.head);
  s->half_closed = s->l.half_close && s->next.step == STEP_SEGMENT;
  if (s->half_closed)
    client_half_close(&s->c);
}

static void send_request(struct session *s, double now_s) {
  const struct listener_next *next = &s->next;
  free(s->moved);
  s->moved = NULL;
  hist_record(&s->e->st->lag, now_s > next->at_s ? (uint64_t)((now_s - next->at_s) * 1e6) : 0);
  s->sent_s = now_s;
  s->keep = next->step != STEP_SEGMENT || s->l.verified;
  s->abort_after = UINT64_MAX;
  if (s->l.aborts && next->step == STEP_SEGMENT && !next->range && !next->head && rng_unit(&s->l.rng) < 0.2)
    s->abort_after = rng_below(&s->l.rng, 32768);
  hand_over(s, false);
}

// ---- what arrives

static void on_body(struct client *c, struct bytes piece) {
  struct session *s = c->owner;
  if (s->keep && !session_keep(s, piece))
    s->no_memory = c->stop = true;
  if (c->response.body_len >= s->abort_after)
    s->aborting = c->stop = true;
}

static void on_etag(struct client *c, struct bytes piece) {
  struct session *s = c->owner;
  if (!s->l.conditional || (!s->etag && !(s->etag = calloc(1, SESSION_ETAG))))
    return;
  size_t have = s->etag_new ? 0 : strlen(s->etag);
  s->etag_new = false;
  if (have + piece.n < SESSION_ETAG) {
    memcpy(s->etag + have, piece.p, piece.n);
    s->etag[have + piece.n] = 0;
  } else {
    s->etag[0] = 0; // longer than we keep: not used
  }
}

static void on_location(struct client *c, struct bytes piece) {
  struct session *s = c->owner;
  if (s->moved || (s->moved = calloc(1, sizeof *s->moved)))
    moved_add(s->moved, piece);
}

static void end_session(struct session *s, double now_s) {
  struct engine *e = s->e;
  struct load_stats *st = e->st;
  client_close(&s->c);
  listener_cut(&s->l, now_s);
  body_give(e, s->body);
  body_give(e, s->whole);
  free(s->moved);
  s->moved = NULL;
  s->body = s->whole = NULL;
  st->rebuffer_s += s->l.rebuffer_s;
  st->played_s += s->l.played_s;
  st->sessions_unheard += s->l.startup_s < 0 && !s->l.slow;
  s->in_use = s->waiting = false;
  e->num_active--;
  atomic_fetch_sub_explicit(&st->active, 1, memory_order_relaxed);
  s->next_free = e->free;
  e->free = s;
}

static bool right_part(struct session *s, const struct client_response *r, const char *path) {
  const struct listener_next *next = &s->next;
  uint64_t from = next->part.from, to = from + next->part.len - 1;
  if (next->range) {
    to = from + next->range_to;
    from += next->range_from;
  }
  return engine_right_part(s->e, path, r->range, from, to, next->part.len ? 0 : next->range_of);
}

// A part against what was asked for, and against the whole.
static void compare_range(struct session *s, const struct client_response *r, const char *path) {
  struct engine *e = s->e;
  char what[sizeof e->st->first_wrong];
  uint64_t asked = s->next.range_to + 1 - s->next.range_from;
  if (r->body_len != asked) {
    engine_wrong(e, "%.300s: a range of %lu bytes brought %lu", path, asked, r->body_len);
    return;
  }
  if (!e->run->verifier || !s->l.verified || !s->whole)
    return;
  e->st->verified++;
  if (!verify_range(path, session_body(s), bytes_of(s->whole->p, s->whole->n), s->next.range_from, what, sizeof what))
    engine_wrong(e, "%s", what);
}

// Compares what arrived with the clear source, and with what else is known of it.
static void compare(struct session *s, const struct client_response *r, const char *path) {
  struct engine *e = s->e;
  char what[sizeof e->st->first_wrong];
  struct verify_response v = {.asset = s->l.sc->catalogue.names[s->l.asset], .scheme = s->l.sc->scheme, .path = path,
                              .body = session_body(s), .init = s->init, .list = s->l.list};
  if (s->next.head) {
    s->head_len = s->next.part.len ? UINT64_MAX : r->content_length; // of a part: it is asked for without a range, and says the whole's
    return;
  }
  if (s->next.range) {
    compare_range(s, r, path);
    return;
  }
  uint64_t announced = s->head_len;
  if (s->next.step == STEP_SEGMENT)
    s->head_len = UINT64_MAX;
  if (s->next.step == STEP_SEGMENT && announced != UINT64_MAX && announced != r->body_len) {
    engine_wrong(e, "%.300s: HEAD announced %lu bytes, GET brought %lu", path, announced, r->body_len);
    return;
  }
  if (!e->run->verifier || !s->l.verified)
    return;
  if (s->next.step == STEP_SEGMENT && s->init) // behind a wrong init segment there is nothing to decrypt by
    engine_compare(e, &v);
  else if (s->next.step == STEP_INIT && !(s->init = verify_init(e->run->verifier, &v, what, sizeof what)))
    engine_wrong(e, "%s", what);
}

// A media playlist or MPD points to the epoch asked for.
static void compare_epoch(struct session *s, const struct media_list *list) {
  char what[sizeof s->e->st->first_wrong];
  if (!engine_right_epoch(what, sizeof what, s->l.sc, s->l.sc->catalogue.names[s->l.asset], list))
    engine_wrong(s->e, "%s", what);
}

static void schedule(struct session *s) { due_push(s->e, s->next.at_s, (uint32_t)(s - s->e->sessions)); }

// Keeps the first reason why nothing could be made of an answer.
static void refuse(struct session *s, const struct diag *diag) {
  struct load_stats *st = s->e->st;
  char path[PLAYLIST_MAX_URI];
  if (st->first_refused[0])
    return;
  session_place(path, s);
  const char *what = diag->what[0] ? diag->what : err_text(diag->err);
  if (diag->at)
    snprintf(st->first_refused, sizeof st->first_refused, "%.320s: line %lu: %s", path, diag->at, what);
  else
    snprintf(st->first_refused, sizeof st->first_refused, "%.320s: %s", path, what);
  engine_plain(st->first_refused);
}

// What the response was, in the listener's terms.
static struct listener_got judge(struct session *s, const struct client_response *r, double now_s, enum load_error *failed) {
  struct engine *e = s->e;
  struct diag diag = {0};
  char path[PLAYLIST_MAX_URI];
  bool manifest = s->next.step == STEP_MASTER || s->next.step == STEP_MEDIA || s->next.step == STEP_POLL || s->next.step == STEP_INDEX;
  bool part = s->next.part.len && !s->next.head;
  bool unchanged = r->status == 304 && s->next.if_none_match;
  struct listener_got got = {.now_s = now_s, .body_len = r->body_len};
  got.ok = r->whole && (r->status == (s->next.range || part ? 206 : 200) || unchanged) && !s->no_memory;
  bool cut = got.ok && part && !s->next.range && !unchanged && r->body_len != s->next.part.len;
  got.ok &= !cut;
  e->st->not_modified += unchanged;
  e->st->ranges += s->next.range != RANGE_NONE;
  e->st->heads += s->next.head;
  e->st->polls += s->next.step == STEP_POLL;
  listener_place(path, &s->l, &s->next);
  bool right = got.ok && !unchanged && (r->status != 206 || right_part(s, r, path));
  if (right && !manifest)
    compare(s, r, path); // wrong bytes fail the run, not the session
  if (got.ok && manifest && !unchanged) {
    got.ok = (!s->body || body_unpack(s->body, r->encoding, &diag) == ERR_OK) && engine_parse(e, s, &got, &diag) == ERR_OK;
    *failed = LOAD_ERR_PARSE;
    if (!got.ok)
      refuse(s, &diag);
    if (got.ok && (s->next.step == STEP_MEDIA || (s->next.step == STEP_MASTER && s->l.dash)))
      compare_epoch(s, got.list);
  } else {
    *failed = cut ? LOAD_ERR_CUT : s->no_memory ? LOAD_ERR_LARGE : engine_failure(r);
    if (s->no_memory && diag_say(&diag, ERR_LIMIT, "it has more than %d MB, or there is no memory for it", BODY_MAX >> 20))
      refuse(s, &diag);
    if (r->malformed && diag_say(&diag, ERR_SYNTAX, "the answer is not HTTP/1.1: %s", r->malformed))
      refuse(s, &diag);
    bool is_status = *failed == LOAD_ERR_4XX || *failed == LOAD_ERR_5XX || *failed == LOAD_ERR_STATUS;
    if (!got.ok && is_status && diag_say(&diag, ERR_UNSUPPORTED, "answered with %u%s", r->status, r->status == 200 && (part || s->next.range) ? ", and a range was asked for" : ""))
      refuse(s, &diag);
  }
  if (got.ok)
    *failed = LOAD_ERR_NONE;
  return got;
}

// What later answers will be compared with: the whole for a range of it, also when that is asked for again; what HEAD announced
// until its GET has come or was given up.
static void keep_for_later(struct session *s, bool ok) {
  bool first = s->next.range && ok; // a range follows a whole
  if (first || !s->next.range) {
    body_give(s->e, s->whole);
    s->whole = first ? s->body : NULL;
  }
  if (!first)
    body_give(s->e, s->body);
  s->body = NULL;
  if (s->next.step != STEP_SEGMENT)
    s->head_len = UINT64_MAX;
}

// The answer was a redirection: the same request there, whose time runs on. False: it is not followed.
static bool follow(struct session *s) {
  struct diag diag = {0};
  char path[PLAYLIST_MAX_URI];
  session_place(path, s);
  if (!moved_on(s->moved, s->e->run->origin, path, &diag)) {
    refuse(s, &diag);
    return false;
  }
  s->e->st->redirects++;
  hand_over(s, false);
  return true;
}

static void on_done(struct client *c, const struct client_response *r) {
  struct session *s = c->owner;
  struct engine *e = s->e;
  struct load_stats *st = e->st;
  double now = engine_now(e);
  s->waiting = false;
  if (s->aborting) { // a client that changed its mind: the same request again
    st->aborted++;
    s->next.at_s = now;
    due_push(e, now, (uint32_t)(s - e->sessions));
    return;
  }
  if (r->stale) {
    st->resent++;
    hand_over(s, true);
    return;
  }
  if (s->moved && s->moved->n && follow(s))
    return;
  enum load_error failed;
  struct listener_got got = judge(s, r, now, &failed);
  engine_count(e, r->body_len, failed, s->next.at_s, s->sent_s, now);
  if (s->half_closed || s->l.reconnects)
    client_close(c);
  uint32_t misses = s->l.misses, segments = s->l.segments;
  bool playing = s->l.playing;
  listener_on_response(&s->l, e->run->pop, &got, &s->next);
  if (!playing && s->l.segments > segments)
    hist_record(&st->startup, (uint64_t)(s->l.startup_s * 1e6));
  st->segments += s->l.segments - segments;
  keep_for_later(s, got.ok);
  atomic_fetch_add_explicit(&st->misses, s->l.misses - misses, memory_order_relaxed);
  engine_second(e, now)->misses += s->l.misses - misses;
  schedule(s);
}

// ---- sessions

// A place that nobody has: one that was left, unless its old connection is still closing, or the next new one.
static struct session *take_place(struct engine *e) {
  for (struct session **from = &e->free; *from; from = &(*from)->next_free) {
    struct session *s = *from;
    if (client_idle(&s->c)) {
      *from = s->next_free;
      return s;
    }
  }
  return e->num_used < e->num_sessions ? &e->sessions[e->num_used++] : NULL;
}

static void begin_session(struct engine *e, uint64_t id, double at_s) {
  struct session *s = take_place(e);
  e->st->sessions++;
  if (!s) {
    e->st->sessions_lost++;
    return;
  }
  char *etag = s->etag;
  if (etag)
    etag[0] = 0;
  *s = (struct session){.e = e, .in_use = true, .etag = etag, .head_len = UINT64_MAX};
  e->num_active++;
  atomic_fetch_add_explicit(&e->st->active, 1, memory_order_relaxed);
  client_init(&s->c, &e->clients, s);
  listener_begin(&s->l, e->run->sc, e->run->pop, id, at_s, &s->next);
  s->c.slow_bytes = s->l.slow ? e->run->sc->slow_bytes_per_s / 10 + 1 : 0;
  schedule(s);
}

static void slow_readers_read(struct engine *e, double now_s) {
  if (now_s < e->slow_tick_s + 0.1)
    return;
  e->slow_tick_s = now_s;
  for (uint32_t i = 0; i < e->num_used; i++)
    if (e->sessions[i].in_use && e->sessions[i].c.slow_bytes)
      client_read_slowly(&e->sessions[i].c);
}

static void time_out(struct session *s, double now_s) {
  struct engine *e = s->e;
  struct listener_got got = {.now_s = now_s};
  client_close(&s->c);
  s->waiting = false;
  engine_count(e, 0, LOAD_ERR_TIMEOUT, s->next.at_s, s->sent_s, now_s);
  listener_on_response(&s->l, e->run->pop, &got, &s->next);
  keep_for_later(s, false);
  schedule(s);
}

// Everybody's connection breaks at once, and everybody comes back at once.
static void storm(struct engine *e) {
  const struct scenario *sc = e->run->sc;
  e->stormed = true;
  for (uint32_t i = 0; i < e->num_used; i++) {
    struct session *s = &e->sessions[i];
    struct rng r = rng_of(sc->seed ^ 0x73746f726d, s->l.id);
    if (!s->in_use || rng_unit(&r) >= sc->storm)
      continue;
    bool waiting = s->waiting;
    e->st->storms++;
    client_close(&s->c);
    if (waiting)
      hand_over(s, true);
    else
      client_open(&s->c);
  }
}

static void run_once(struct engine *e, double now_s, double *sampled) {
  const struct scenario *sc = e->run->sc;
  while (e->num_due && e->heap[0].at_s <= now_s) {
    struct session *s = &e->sessions[due_pop(e).session];
    if (s->next.act == ACT_END)
      end_session(s, now_s);
    else
      send_request(s, engine_now(e));
  }
  for (; now_s >= *sampled; *sampled += 1)
    engine_second(e, *sampled)->active = e->num_active;
  e->st->peak_active = e->num_active > e->st->peak_active ? e->num_active : e->st->peak_active;
  if (sc->slow_reader > 0)
    slow_readers_read(e, now_s);
  if (!e->stormed && sc->storm_at_s >= 0 && now_s >= sc->storm_at_s)
    storm(e);
  engine_sweep(e, e->num_used, time_out, now_s);
}

enum err engine_run_listeners(struct engine *e, struct diag *diag) {
  const struct scenario *sc = e->run->sc;
  struct arrivals arrivals;
  double next_s = 0, sampled = 0;
  uint64_t id = 0;
  e->clients.done = on_done;
  e->clients.body = on_body;
  e->clients.etag = on_etag;
  e->clients.location = on_location;
  arrivals_init(&arrivals, sc->pieces, sc->num_pieces, sc->seed);
  bool more = arrivals_next(&arrivals, &next_s);
  for (;;) {
    double now = engine_now(e);
    while (more && next_s <= now) {
      if (id % e->run->num_threads == e->run->thread)
        begin_session(e, id, next_s);
      id++;
      more = arrivals_next(&arrivals, &next_s);
    }
    run_once(e, now, &sampled);
    // Listeners end by their own clocks; who still waits for an answer then gets as long as a request may take.
    bool over = (!more && !e->num_active) || now > sc->end_s + sc->timeout_s;
    e->st->interrupted = !over && *e->run->stop;
    if (over || e->st->interrupted)
      break;
    double wake = now + 0.1;
    wake = more && next_s < wake ? next_s : wake;
    wake = e->num_due && e->heap[0].at_s < wake ? e->heap[0].at_s : wake;
    int64_t wait_ns = (int64_t)((wake - engine_now(e)) * 1e9);
    if (!engine_wait(e, wait_ns > 0 ? wait_ns : 0))
      return engine_failed(e, diag);
  }
  double now = engine_now(e);
  e->st->elapsed_s = now;
  for (uint32_t i = 0; i < e->num_used; i++) {
    struct session *s = &e->sessions[i];
    if (!s->in_use)
      continue;
    if (s->waiting)
      engine_unanswered(e, s->next.at_s, s->sent_s, now);
    end_session(s, now);
  }
  return ERR_OK;
}
