// A connection's life: bytes come in, requests are cut out of them and answered in order, time runs out, it closes.
#include "server/conn_int.h"
#include <errno.h>
#include <netinet/in.h>
#include <strings.h>
#include <sys/socket.h>

#include "obs/log.h"

static void serve(struct conn *c, const uint8_t *base, size_t n);

static const struct config *config_of(const struct conn *c) { return server_config(c->w->s); }

// How long the head of a request may take.
static uint64_t head_time(const struct conn *c) {
  uint64_t ms = config_of(c)->header_timeout;
  return c->w->draining && ms > DRAIN_HEAD_MS ? DRAIN_HEAD_MS : ms;
}

void conn_deadline(struct conn *c, uint64_t after_ms) {
  struct worker *w = c->w;
  c->deadline_ms = w->now_ms + after_ms;
  // A timer that fires too early looks at the deadline and goes back to sleep: moving it on every request costs more.
  if (!timer_is_set(&c->timer) || c->timer.due_tick * TIMER_TICK_MS > c->deadline_ms + TIMER_TICK_MS)
    timer_set(&w->timers, &c->timer, w->now_ms, after_ms);
}

static void conn_free(struct conn *c) {
  struct worker *w = c->w;
  tls_free(c->tls);
  w->io->v->close(w->io, c->fd);
  c->state = CONN_FREE;
  c->next = w->free_conns;
  w->free_conns = c;
  w->num_used--;
}

static void free_if_quiet(struct conn *c) {
  if (!io_armed(&c->recv) && !io_armed(&c->poll))
    conn_free(c);
}

// For a request, the first or another.
static void begin_wait(struct conn *c) {
  c->idle_ms = c->w->now_ms;
  line_join(&c->w->idle, &c->idle);
}

static void end_wait(struct conn *c) { line_leave(&c->w->idle, &c->idle); }

// What an answer held back for the next one: there is none yet.
static void push(struct conn *c) {
  if (c->held_back)
    c->w->io->v->push(c->w->io, c->fd);
  c->held_back = false;
}

// At once; the connection is free when nothing is armed any more.
void conn_close(struct conn *c) {
  struct worker *w = c->w;
  if (c->state == CONN_CLOSING)
    return;
  c->state = CONN_CLOSING;
  push(c);
  end_wait(c);
  w->num_open--;
  *c->prev = c->next;
  if (c->next)
    c->next->prev = c->prev;
  timer_clear(&w->timers, &c->timer);
  obs_conn_close(w->m);
  struct request *rq = c->rq;
  if (rq && rq->head_sent) // cut off: counted and logged with what was sent
    request_done(rq);
  c->rq = NULL;
  if (rq && rq->waiting) {
    pump_abandon(rq); // others need the buffers before that
    rq->conn = NULL;  // goes back to the pool when the catalogue is done with it
  } else {
    if (rq)
      request_give(w, rq);
    gauge_add(&w->m->connections_idle, -1);
  }
  w->io->v->cancel(w->io, &c->recv);
  w->io->v->cancel(w->io, &c->poll);
  free_if_quiet(c);
}

// The answer is out, but the client may still be sending: closing now would reset the connection and could destroy the
// answer on its way.
void conn_linger(struct conn *c) {
  struct worker *w = c->w;
  if (c->peer_ended || w->io->v->shutdown(w->io, c->fd, SHUT_WR)) {
    conn_close(c);
    return;
  }
  if (c->rq) {
    request_give(w, c->rq);
    c->rq = NULL;
  }
  end_wait(c);
  c->state = CONN_LINGER;
  if (!io_armed(&c->recv)) {
    c->recv_stopped = false;
    w->io->v->recv(w->io, &c->recv, c->fd);
  }
  conn_deadline(c, LINGER_MS);
}

// leave closes between two requests. What the client has sent and nobody has read would reset the connection.
static void leave(struct conn *c) {
  conn_say_goodbye(c);
  if (c->peer_ended || !(c->gap || c->recv_stopped))
    conn_close(c);
  else
    conn_linger(c);
}

static void stop_receiving(struct conn *c) {
  if (!c->recv_stopped && io_armed(&c->recv)) {
    c->recv_stopped = true;
    c->w->io->v->cancel(c->w->io, &c->recv);
  }
}

static void resume_receiving(struct conn *c) {
  if (!c->recv_stopped || io_armed(&c->recv)) // still being cancelled: its end starts it again
    return;
  c->recv_stopped = false;
  c->w->io->v->recv(c->w->io, &c->recv, c->fd);
}

// keep_bytes moves the request being worked on, and what follows it, to memory of its own: what comes in at once fits there.
static void keep_bytes(struct request *rq, size_t n) {
  _Static_assert(RECV_SIZE <= REQ_IN && (int)TLS_RECORD <= (int)REQ_IN, "a piece of input fits");
  memmove(rq->in, rq->base, n);
  rq->base = rq->in;
  rq->in_len = (uint32_t)n;
}

static void go_idle(struct conn *c) {
  struct worker *w = c->w;
  if (c->rq) {
    request_give(w, c->rq);
    c->rq = NULL;
  }
  if (c->peer_ended || c->gap || w->draining) {
    leave(c);
    return;
  }
  push(c);
  c->state = CONN_IDLE;
  begin_wait(c);
  conn_deadline(c, config_of(c)->idle_timeout);
  resume_receiving(c);
}

// finished: the response is out. true: go on with the next request.
static bool finished(struct conn *c, struct request *rq, size_t left) {
  request_done(rq);
  if (rq->keep_alive) {
    if (c->offload) { // everything that was sealed here is on its way
      c->offload = false;
      c->offloaded = ktls_start(c->tls, c->fd);
    }
    request_release(rq);
    http_begin(&rq->parser);
    return true;
  }
  conn_say_goodbye(c);
  if (left || c->gap || c->recv_stopped || rq->status >= 400)
    conn_linger(c);
  else
    conn_close(c);
  return false;
}

enum step { STEP_NEXT, STEP_MORE, STEP_BLOCKED, STEP_CLOSED };

// Bytes that have to be rendered wait until the turn's other requests are known, so that the source of the next one can be
// fetched from memory while one is being encrypted. Not with requests behind it: these go on at once.
static bool wait_for_turn(struct conn *c, struct request *rq, size_t n) {
  struct worker *w = c->w;
  if (rq->body != BODY_TRACK || !rq->num_ranges || rq->used < n || rq->behind || w->num_ready == READY_MAX)
    return false;
  if (rq->base != rq->in)
    keep_bytes(rq, n);
  c->state = CONN_BUSY;
  w->ready[w->num_ready++] = rq;
  rq->ready = (uint8_t)w->num_ready;
  if (w->num_ready > 1) // others are answered before
    push(c);
  track_ask(w->s->catalog, rq->track, rq->ranges[rq->range].off);
  return true;
}

static enum step answer(struct conn *c, struct request *rq, enum req_result ready, size_t n) {
  // Answers to what was sent at once leave together, in few packets. TLS has records of its own for each.
  rq->followed = !c->tls && rq->keep_alive && (n > rq->used || rq->behind);
  if (ready == REQ_READY) {
    switch (pump(rq)) {
    case PUMP_DONE:
      return finished(c, rq, n - rq->used) ? STEP_NEXT : STEP_CLOSED;
    case PUMP_FAILED:
      conn_close(c);
      return STEP_CLOSED;
    case PUMP_BLOCKED:
    default:
      break;
    }
  }
  push(c);
  c->state = CONN_BUSY;
  request_hold(rq);
  if (rq->base != rq->in)
    keep_bytes(rq, n);
  return STEP_BLOCKED;
}

static enum step refuse(struct conn *c, struct request *rq, unsigned status, size_t n) {
  rq->used = (uint32_t)n;
  rq->start_ns = c->w->io->v->now_ns(c->w->io);
  rq->first_ns = rq->sent = 0; // request_start has not run: nothing of the request before may show
  rq->method = rq->parser.method;
  rq->head_only = rq->method == HTTP_M_HEAD;
  rq->head_sent = rq->keep_alive = false;
  rq->source_status = 0;
  rq->why = 0;
  rq->retry_ms = 0;
  request_count(rq);
  respond_status(rq, status);
  return answer(c, rq, REQ_READY, n);
}

// A head with a body to come: small ones are taken in, so that the connection can go on.
static enum step body_follows(struct conn *c, struct request *rq, size_t n) {
  const struct http_parser *p = &rq->parser;
  if (p->body_len > REQ_BODY_MAX)
    return refuse(c, rq, 413, n);
  struct bytes expect = http_text(rq->base, p->header[HTTP_H_EXPECT]);
  static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n", want[] = "100-continue";
  // Not to HTTP/1.0; who expects something else gets the answer alone. Source: RFC 9110 §10.1.1.
  if (n == p->fed && !p->http10 && expect.n == sizeof want - 1 && !strncasecmp((const char *)expect.p, want, expect.n) &&
      !conn_say(c, interim, sizeof interim - 1)) { // the answer would come behind a part of it, or behind a record that is missing
    conn_close(c);
    return STEP_CLOSED;
  }
  return STEP_NEXT;
}

static enum step one_request(struct conn *c, struct request *rq, size_t n) {
  size_t used = 0;
  enum req_result ready;
  for (;;) {
    switch (http_feed(&rq->parser, rq->base, n, &used)) {
    case HTTP_PARSE_COMPLETE:
      rq->used = (uint32_t)used;
      ready = request_start(rq);
      if (ready == REQ_READY && wait_for_turn(c, rq, n))
        return STEP_BLOCKED;
      return answer(c, rq, ready, n);
    case HTTP_PARSE_BAD:
      return refuse(c, rq, rq->parser.fail, n);
    case HTTP_PARSE_HEAD:
      if (body_follows(c, rq, n) != STEP_NEXT)
        return c->state == CONN_BUSY ? STEP_BLOCKED : STEP_CLOSED;
      continue;
    case HTTP_PARSE_MORE:
    default:
      return STEP_MORE;
    }
  }
}

// serve answers the requests in [base, base + n), one after the other.
static void serve(struct conn *c, const uint8_t *base, size_t n) {
  struct request *rq = c->rq;
  size_t had;
  while (n || rq->behind) {
    if (!n) {
      base = rq->in;
      n = request_catch_up(rq, 0);
    }
    rq->base = base;
    switch (one_request(c, rq, n)) {
    case STEP_NEXT:
      base += rq->used;
      n -= rq->used;
      c->state = CONN_IDLE;
      continue;
    case STEP_MORE:
      had = n;
      keep_bytes(rq, n);
      if (rq->behind && (n = request_catch_up(rq, n)) == had) {
        (void)refuse(c, rq, 413, n);
        return;
      }
      if (n > had) {
        base = rq->in;
        continue;
      }
      if (c->peer_ended || c->gap) {
        leave(c);
        return;
      }
      push(c);
      if (c->state != CONN_READING) // the whole head has one deadline, however it trickles in
        conn_deadline(c, head_time(c));
      c->state = CONN_READING;
      resume_receiving(c);
      return;
    case STEP_BLOCKED:
    case STEP_CLOSED:
    default:
      return;
    }
  }
  go_idle(c);
}

// progress: a response that was blocked may go on.
static void progress(struct conn *c, enum req_result ready) {
  struct request *rq = c->rq;
  size_t n = rq->in_len;
  if (answer(c, rq, ready, n) != STEP_NEXT)
    return;
  c->state = CONN_IDLE;
  rq->in_len = 0;
  serve(c, rq->in + rq->used, n - rq->used);
}

void conn_answer_ready(struct worker *w) {
  for (uint32_t i = 0; i < w->num_ready; i++) {
    struct request *rq = w->ready[i];
    if (!rq)
      continue;
    rq->ready = 0;
    pump_next(w, i + 1 < w->num_ready ? w->ready[i + 1] : NULL);
    progress(rq->conn, REQ_READY);
  }
  w->num_ready = 0;
  w->now.of = w->next.of = NULL;
}

// More comes in for a request that waits for its turn: it is answered first, so that what is sent ahead never piles up.
static void answer_now(struct conn *c) {
  if (c->state != CONN_BUSY || !c->rq->ready)
    return;
  c->w->ready[c->rq->ready - 1] = NULL;
  c->rq->ready = 0;
  progress(c, REQ_READY);
}

// No place for its request: those of clients that left are still with the catalogue.
static void shed(struct conn *c) {
  char busy[RESPOND_SHORT];
  obs_error(c->w->m, OBS_err_overload);
  metric_inc(&c->w->m->status_5xx);
  (void)conn_say(c, busy, respond_busy(c->w, busy));
  conn_say_goodbye(c);
  conn_linger(c);
}

void conn_input(struct conn *c, struct bytes data) {
  answer_now(c);
  struct request *rq = c->rq;
  switch (c->state) {
  case CONN_IDLE:
    if (!rq && !request_take(c)) {
      shed(c);
      return;
    }
    end_wait(c);
    serve(c, data.p, data.n);
    return;
  case CONN_READING:
    if (data.n > REQ_IN - rq->in_len) {
      (void)refuse(c, rq, 413, rq->in_len);
      return;
    }
    memcpy(rq->in + rq->in_len, data.p, data.n);
    rq->in_len += (uint32_t)data.n;
    serve(c, rq->in, rq->in_len);
    return;
  case CONN_BUSY: // sent ahead: it waits its turn, and nothing more is taken meanwhile
    stop_receiving(c);
    if (!c->gap && !request_keep_ahead(rq, data))
      c->gap = true;
    return;
  default:
    return;
  }
}

// The client's address, for logs.
void conn_note_peer(struct conn *c) {
  struct sockaddr_storage a;
  socklen_t len = sizeof a;
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
  if (getpeername(c->fd, (struct sockaddr *)&a, &len)) // gone: what was noted before stands
    return;
  memset(c->ip, 0, sizeof c->ip);
  if (a.ss_family == AF_INET6)
    memcpy(c->ip, &((struct sockaddr_in6 *)(void *)&a)->sin6_addr, 16);
  if (a.ss_family == AF_INET) {
    memcpy(c->ip, mapped, 12);
    memcpy(c->ip + 12, &((struct sockaddr_in *)(void *)&a)->sin_addr, 4);
  }
}

static void on_recv(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct conn *c = OWNER(struct conn, recv, op);
  if (ev->res > 0) {
    metric_add(&c->w->m->bytes_received, ev->data.n);
    if (c->tls && c->state != CONN_CLOSING)
      conn_tls_input(c, ev->data);
    else
      conn_input(c, ev->data);
    io->v->recv_done(io, ev->buf);
    return;
  }
  if (c->state == CONN_CLOSING) {
    free_if_quiet(c);
    return;
  }
  if (ev->res == -ECANCELED && c->recv_stopped) {
    if (c->state != CONN_BUSY)
      resume_receiving(c);
    return;
  }
  if (ev->res == 0 && c->state == CONN_BUSY) { // it may have shut down its side only: finish the answer
    c->peer_ended = true;
    return;
  }
  if (ev->res < 0 && c->state != CONN_IDLE && c->state != CONN_LINGER)
    obs_error(c->w->m, OBS_err_reset);
  if (c->state != CONN_LINGER)
    conn_handshake_ended(c, "the client went away");
  conn_close(c);
}

static void on_poll(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct conn *c = OWNER(struct conn, poll, op);
  (void)io;
  (void)ev; // an error shows when sending
  if (c->state == CONN_CLOSING)
    free_if_quiet(c);
  else if (c->state == CONN_BUSY)
    progress(c, REQ_READY);
}

void conn_woken(struct request *rq) {
  struct worker *w = rq->w;
  enum wait_kind kind = rq->waiting;
  rq->waiting = WAIT_NONE;
  w->num_waiting--;
  if (!rq->conn) {
    if (rq->wait.status == CAT_OK && kind == WAIT_LOOKUP) {
      if (rq->wait.track)
        track_drop(w->s->catalog, rq->wait.track);
      if (rq->wait.text)
        text_drop(w->s->catalog, rq->wait.text);
    }
    if (rq->wait.status == CAT_OK && kind == WAIT_SOURCE && rq->wait.block)
      block_free(rq->wait.block);
    request_give(w, rq);
    return;
  }
  enum req_result ready = REQ_READY;
  if (kind == WAIT_LOOKUP)
    ready = request_resolved(rq);
  else if (rq->wait.status == CAT_OK) {
    rq->block = rq->wait.block;
    rq->ask_again = !rq->block;
  } else
    rq->source_status = (uint16_t)rq->wait.status;
  if (!io_armed(&rq->conn->poll))
    progress(rq->conn, ready);
}

static void on_busy_timeout(struct conn *c) {
  struct request *rq = c->rq;
  const struct config *cfg = config_of(c);
  if (rq->waiting && !io_armed(&c->poll)) { // the server's own time
    conn_deadline(c, cfg->write_timeout);
    return;
  }
  if (!rq->stalled) { // a buffer and a block can be had again
    if (rq->out)
      pump_release_buffer(rq);
    block_free(rq->block);
    rq->block = NULL;
    rq->stalled = true;
    conn_deadline(c, cfg->write_timeout > rq->stall_ms ? cfg->write_timeout - rq->stall_ms : 1);
    return;
  }
  obs_error(c->w->m, OBS_err_timeout);
  conn_close(c);
}

static void on_timer(struct timer *t, void *ctx) {
  struct conn *c = OWNER(struct conn, timer, t);
  struct worker *w = ctx;
  if (c->deadline_ms > w->now_ms) {
    timer_set(&w->timers, t, w->now_ms, c->deadline_ms - w->now_ms);
    return;
  }
  if (c->state == CONN_BUSY) {
    on_busy_timeout(c);
    return;
  }
  if (c->state == CONN_READING)
    obs_error(w->m, OBS_err_timeout);
  if (c->state != CONN_LINGER)
    conn_handshake_ended(c, "it was not done within header_timeout");
  conn_say_goodbye(c);
  conn_close(c);
}

// Nobody can wait for the client's end here. What it has sent already is read away: unread it would make a reset of the end, which
// could destroy the answer on its way.
static void refuse_connection(struct worker *w, int fd, bool tls) {
  char busy[RESPOND_SHORT], unread[HTTP_HEAD_MAX];
  obs_conn_refused(w->m);
  if (!tls) {
    (void)w->io->v->send(w->io, fd, busy, respond_busy(w, busy), false);
    (void)w->io->v->shutdown(w->io, fd, SHUT_WR);
    (void)recv(fd, unread, sizeof unread, MSG_DONTWAIT);
  }
  w->io->v->close(w->io, fd);
}

// Idle connections must not keep others out: crowds hold them for nothing. Not those of a moment, which are about to ask.
static bool make_room(struct worker *w) {
  if (w->num_used == w->num_places)
    return false;
  if (w->num_open < w->num_conns)
    return true;
  struct conn *c = w->idle.first ? OWNER(struct conn, idle, w->idle.first) : NULL;
  if (!c || w->now_ms - c->idle_ms < MOMENT_MS)
    return false;
  metric_inc(&w->m->connections_displaced);
  conn_handshake_ended(c, "its place was needed");
  conn_say_goodbye(c);
  conn_close(c);
  return true;
}

void conn_accepted(struct worker *w, int fd, bool tls) {
  struct tls_conn *secure = NULL;
  if (!make_room(w) || (tls && !(secure = tls_accept(atomic_load_explicit(w->certificates, memory_order_acquire))))) {
    refuse_connection(w, fd, tls);
    return;
  }
  struct conn *c = w->free_conns;
  if (c)
    w->free_conns = c->next;
  else
    c = &w->conns[w->conns_cut++];
  w->num_used++;
  w->num_open++;
  *c = (struct conn){.recv.done = on_recv, .poll.done = on_poll, .timer.fire = on_timer, .w = w, .tls = secure, .fd = fd, .state = CONN_IDLE};
  c->next = w->open_conns;
  c->prev = &w->open_conns;
  if (c->next)
    c->next->prev = &c->next;
  w->open_conns = c;
  obs_conn_open(w->m);
  if (w->access || (tls && log_enabled(LOG_DEBUG)))
    conn_note_peer(c);
  w->io->v->recv(w->io, &c->recv, fd);
  begin_wait(c);
  conn_deadline(c, head_time(c)); // what was accepted before the listener closed may come after draining began
}

// Who has connected and not asked yet is about to: as long as half a request is waited for. A connection that is answered already
// ends by itself, within LINGER_MS: closed now, what its client still sends would reset it and could destroy the answer on its way.
void conn_drain(struct worker *w) {
  for (struct conn *c = w->open_conns, *next; c; c = next) {
    next = c->next;
    if (c->state == CONN_IDLE && c->num_requests) {
      conn_say_goodbye(c);
      conn_close(c);
    } else if (c->state == CONN_IDLE || c->state == CONN_READING) // also: a reset right behind half a request raises no event in a multishot receive
      conn_deadline(c, DRAIN_HEAD_MS);
  }
}

void conn_close_all(struct worker *w) {
  while (w->open_conns)
    conn_close(w->open_conns);
}
