#include "net/http_client.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { S_CLOSED, S_CONNECTING, S_HANDSHAKE, S_OPEN, S_CLOSING };

static uint64_t now_ms(const struct http_client *c) { return c->net->io->v->now_ns(c->net->io) / 1000000u; }

static void wipe(const struct http_client *c, const void *p, size_t n) {
  if (c->net->wipe && n)
    explicit_bzero((void *)(uintptr_t)p, n);
}

static void on_timer(struct timer *t, void *ctx);

// The timer stands for whichever bound comes first, and for a failure that waits to be told.
static void set_timer(struct http_client *c, uint32_t phase_ms) {
  uint64_t now = now_ms(c), until = c->total_until_ms;
  c->phase_until_ms = phase_ms ? now + phase_ms : UINT64_MAX;
  until = c->phase_until_ms < until ? c->phase_until_ms : until;
  c->timer.fire = on_timer;
  if (until == UINT64_MAX)
    timer_clear(c->net->timers, &c->timer);
  else
    timer_set(c->net->timers, &c->timer, now, until > now ? until - now : 0);
}

static void start(struct http_client *c);

static void let_go(struct http_client *c) {
  if (c->fd >= 0)
    c->net->io->v->close(c->net->io, c->fd);
  c->fd = -1;
  c->state = S_CLOSED;
}

// What was armed has ended: the descriptor can go, and a request that waited for it can start.
static void after_drop(struct http_client *c) {
  if (c->state != S_CLOSING || io_armed(&c->recv_op) || io_armed(&c->poll_op))
    return;
  let_go(c);
  if (c->busy && !c->failed)
    start(c);
}

static void drop(struct http_client *c) {
  struct io *io = c->net->io;
  if (c->state == S_CLOSED || c->state == S_CLOSING)
    return;
  if (c->tls && c->state == S_OPEN && c->rest_len == 0) {
    struct tls_io t = {.out = c->net->sealed, .out_cap = TLS_FLIGHT};
    tls_close(c->tls, &t);
    if (t.out_len)
      (void)io->v->send(io, c->fd, t.out, t.out_len, false);
  }
  tls_free(c->tls);
  free(c->rest);
  c->tls = NULL;
  c->rest = NULL;
  c->rest_off = c->rest_len = 0;
  c->served = 0;
  c->conn++;
  c->state = S_CLOSING;
  if (io_armed(&c->recv_op))
    io->v->cancel(io, &c->recv_op);
  if (io_armed(&c->poll_op))
    io->v->cancel(io, &c->poll_op);
  if (c->fd >= 0)
    io->v->shutdown(io, c->fd, SHUT_RDWR);
  if (!io_armed(&c->recv_op) && !io_armed(&c->poll_op))
    let_go(c);
}

// Ends the request under way; the connection stays only after a whole response that allows it.
static void finish(struct http_client *c, enum http_client_end end, bool keep) {
  struct http_client_result r = {.end = end, .status = c->response.head_done ? c->response.status : 0,
                                 .reused = c->served > 0, .connected_ns = c->connected_ns, .sent_ns = c->sent_ns,
                                 .first_byte_ns = c->first_byte_ns, .why = c->why};
  bool busy = c->busy;
  c->busy = false;
  c->failed = 0;
  timer_clear(c->net->timers, &c->timer);
  if (keep)
    c->served++;
  else
    drop(c);
  if (busy)
    c->done(c, &r);
}

static void fail(struct http_client *c, enum http_client_end end, const char *why) {
  snprintf(c->why, sizeof c->why, "%s", why);
  finish(c, end, false);
}

// For what fails inside a call of the owner's: told by the timer.
static void fail_later(struct http_client *c, enum http_client_end end, const char *why) {
  snprintf(c->why, sizeof c->why, "%s", why);
  c->failed = (uint8_t)end;
  drop(c);
  c->timer.fire = on_timer;
  timer_set(c->net->timers, &c->timer, now_ms(c), 0);
}

static void on_timer(struct timer *t, void *ctx) {
  struct http_client *c = (struct http_client *)(void *)((char *)t - offsetof(struct http_client, timer));
  (void)ctx;
  const struct http_client_times *times = &c->target->times;
  if (c->failed) {
    finish(c, (enum http_client_end)c->failed, false);
    return;
  }
  bool total = c->total_until_ms <= c->phase_until_ms;
  const char *what = c->state == S_CONNECTING || c->state == S_CLOSING ? "no connection"
                     : c->state == S_HANDSHAKE ? "no TLS"
                     : c->first_byte_ns        ? "no whole answer"
                                               : "no answer";
  uint32_t bound = total                        ? times->total_ms
                   : c->state == S_CONNECTING ? times->connect_ms
                   : c->state == S_HANDSHAKE  ? times->tls_ms
                                              : times->first_byte_ms;
  snprintf(c->why, sizeof c->why, "%s within %u ms", what, bound);
  finish(c, HTTP_CLIENT_TIMEOUT, false);
}

static void on_poll(struct io *io, struct io_op *op, const struct io_event *ev);
static void on_recv(struct io *io, struct io_op *op, const struct io_event *ev);

static void wait_writable(struct http_client *c) {
  if (io_armed(&c->poll_op))
    return;
  c->poll_op.done = on_poll;
  c->net->io->v->poll(c->net->io, &c->poll_op, c->fd, IO_POLL_OUT);
}

static void arm_recv(struct http_client *c) {
  if (io_armed(&c->recv_op) || c->state < S_HANDSHAKE || c->state == S_CLOSING)
    return;
  c->recv_op.done = on_recv;
  c->net->io->v->recv(c->net->io, &c->recv_op, c->fd);
}

// flush sends what was sealed before. True when nothing is left; false: waiting, or broken (the receive tells).
static bool flush(struct http_client *c) {
  struct io *io = c->net->io;
  while (c->rest_off < c->rest_len) {
    ssize_t n = io->v->send(io, c->fd, c->rest + c->rest_off, c->rest_len - c->rest_off, false);
    if (n == -EAGAIN)
      wait_writable(c);
    if (n < 0)
      return false;
    c->rest_off += (size_t)n;
  }
  free(c->rest);
  c->rest = NULL;
  c->rest_off = c->rest_len = 0;
  return true;
}

// Sends records, keeping what the socket does not take. False: no memory for that.
static bool put_sealed(struct http_client *c, const struct tls_io *t) {
  struct io *io = c->net->io;
  size_t at = 0;
  while (c->rest_len == 0 && at < t->out_len) {
    ssize_t n = io->v->send(io, c->fd, t->out + at, t->out_len - at, false);
    if (n < 0 && n != -EAGAIN)
      return true; // broken: the receive ends with the reason, or with what the peer still had to say
    if (n < 0)
      break;
    at += (size_t)n;
  }
  if (at == t->out_len)
    return true;
  uint8_t *more = realloc(c->rest, c->rest_len + t->out_len - at);
  if (!more)
    return false;
  memcpy(more + c->rest_len, t->out + at, t->out_len - at);
  c->rest = more;
  c->rest_len += t->out_len - at;
  wait_writable(c);
  return true;
}

// The part of the request that comes next, as one slice.
static struct bytes unsent(const struct http_client *c) {
  if (c->sent < c->head.n)
    return bytes_of(c->head.p + c->sent, c->head.n - c->sent);
  size_t at = c->sent - c->head.n;
  return at < c->body.n ? bytes_of(c->body.p + at, c->body.n - at) : (struct bytes){0};
}

static bool send_plain(struct http_client *c) {
  struct io *io = c->net->io;
  for (struct bytes b; (b = unsent(c)).n;) {
    ssize_t n = io->v->send(io, c->fd, b.p, b.n, c->sent + b.n < c->head.n + c->body.n);
    if (n == -EAGAIN)
      wait_writable(c);
    if (n < 0)
      return false; // broken: the receive tells
    c->sent += (size_t)n;
  }
  return true;
}

static bool send_sealed(struct http_client *c) {
  for (struct bytes b; flush(c) && (b = unsent(c)).n;) {
    struct tls_io t = {.out = c->net->sealed, .out_cap = TLS_FLIGHT};
    size_t n = tls_write(c->tls, &t, b.p, b.n);
    if (!n || !put_sealed(c, &t))
      return false;
    c->sent += n;
  }
  return !unsent(c).n;
}

static void send_request(struct http_client *c) {
  if (!c->busy || c->sent_ns || !(c->tls ? send_sealed(c) : send_plain(c)))
    return;
  c->sent_ns = c->net->io->v->now_ns(c->net->io);
  set_timer(c, c->target->times.first_byte_ms);
}

// `behind`: the same read has more than these bytes. Behind a whole answer that is another one nobody asked for, and must not become
// the next request's.
static void feed(struct http_client *c, struct bytes b, bool behind) {
  size_t used;
  if (!c->busy) { // nobody asked
    drop(c);
    return;
  }
  if (!c->first_byte_ns) {
    c->first_byte_ns = c->net->io->v->now_ns(c->net->io);
    set_timer(c, 0);
  }
  switch (http_response_feed(&c->response, &used, b)) {
  case HTTP_RESPONSE_MORE: return;
  case HTTP_RESPONSE_WHOLE: finish(c, HTTP_CLIENT_OK, c->response.keep_alive && used == b.n && !behind && !unsent(c).n); return;
  case HTTP_RESPONSE_BAD: fail(c, HTTP_CLIENT_BAD, "the answer is not HTTP/1.1"); return;
  case HTTP_RESPONSE_LIMIT: fail(c, HTTP_CLIENT_LIMIT, "the answer is too long"); return;
  case HTTP_RESPONSE_STOPPED: fail(c, HTTP_CLIENT_STOPPED, "given up"); return;
  }
}

// `clean`: the peer said that it ends. Without that a TLS stream that just stops may have been cut by somebody else.
static void ended(struct http_client *c, bool clean, const char *why) {
  if (c->state == S_CLOSED || c->state == S_CLOSING)
    return;
  if (!c->busy) {
    drop(c);
    return;
  }
  if (c->first_byte_ns && clean && http_response_ended(&c->response) == HTTP_RESPONSE_WHOLE)
    finish(c, HTTP_CLIENT_OK, false);
  else
    fail(c, c->state == S_HANDSHAKE ? HTTP_CLIENT_TLS : HTTP_CLIENT_CUT, why);
}

static void tls_failed(struct http_client *c, struct tls_io *t) {
  char why[160];
  tls_why(c->tls, why, sizeof why);
  if (t->out_len) // the alert that says so
    (void)c->net->io->v->send(c->net->io, c->fd, t->out, t->out_len, false);
  if (c->busy)
    fail(c, c->first_byte_ns ? HTTP_CLIENT_CUT : HTTP_CLIENT_TLS, why);
  else
    drop(c);
}

static bool shake(struct http_client *c, struct tls_io *t) {
  enum tls_result r = tls_handshake(c->tls, t);
  if (r == TLS_FAILED || r == TLS_ENDED || !put_sealed(c, t)) {
    tls_failed(c, t);
    return false;
  }
  t->out_len = 0;
  if (r != TLS_OK)
    return false;
  c->state = S_OPEN;
  set_timer(c, c->target->times.first_byte_ms);
  send_request(c);
  return c->state == S_OPEN;
}

static void open_records(struct http_client *c, struct bytes data) {
  struct tls_io t = {.in = data.p, .in_len = data.n, .out = c->net->sealed, .out_cap = TLS_FLIGHT};
  uint32_t conn = c->conn;
  if (c->state == S_HANDSHAKE && !shake(c, &t))
    return;
  while (c->conn == conn && c->state == S_OPEN) {
    size_t n = 0;
    t.out_len = 0;
    enum tls_result r = tls_read(c->tls, &t, c->net->plain, TLS_RECORD, &n);
    if (r != TLS_FAILED && t.out_len && !put_sealed(c, &t))
      r = TLS_FAILED;
    if (r == TLS_OK) {
      feed(c, bytes_of(c->net->plain, n), t.in_len > 0);
      wipe(c, c->net->plain, n);
    } else if (r == TLS_ENDED) {
      ended(c, true, "the server closed the connection");
      return;
    } else if (r == TLS_FAILED) {
      tls_failed(c, &t);
      return;
    } else {
      return;
    }
  }
}

static void on_recv(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct http_client *c = (struct http_client *)(void *)((char *)op - offsetof(struct http_client, recv_op));
  if (ev->res > 0) {
    uint32_t conn = c->conn;
    if (c->state != S_CLOSING && c->tls)
      open_records(c, ev->data);
    else if (c->state == S_OPEN)
      feed(c, ev->data, false);
    if (!c->tls || conn != c->conn)
      wipe(c, ev->data.p, ev->data.n);
    io->v->recv_done(io, ev->buf);
  }
  if (c->state == S_CLOSING) {
    after_drop(c);
    return;
  }
  if (ev->more || io_armed(&c->recv_op))
    return;
  if (ev->res == 0)
    ended(c, !c->tls, "the server closed the connection");
  else if (ev->res < 0 && ev->res != -EAGAIN && ev->res != -EINTR && ev->res != -ECANCELED)
    ended(c, false, strerror(-ev->res));
  else
    arm_recv(c);
}

static void begin_tls(struct http_client *c) {
  c->tls = tls_connect(c->target->tls, c->target->host);
  c->state = S_HANDSHAKE;
  if (!c->tls) {
    fail(c, HTTP_CLIENT_TLS, "TLS: no memory, or not a host's name");
    return;
  }
  set_timer(c, c->target->times.tls_ms);
  arm_recv(c);
  struct tls_io t = {.out = c->net->sealed, .out_cap = TLS_FLIGHT};
  (void)shake(c, &t);
}

static void connected(struct http_client *c) {
  int error = 0;
  socklen_t len = sizeof error;
  if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error) {
    fail(c, HTTP_CLIENT_CONNECT, strerror(error ? error : errno));
    return;
  }
  (void)fcntl(c->fd, F_SETFL, 0); // the ring waits by itself
  c->connected_ns = c->net->io->v->now_ns(c->net->io);
  if (c->target->tls) {
    begin_tls(c);
    return;
  }
  c->state = S_OPEN;
  set_timer(c, c->target->times.first_byte_ms);
  arm_recv(c);
  send_request(c);
}

static void on_poll(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct http_client *c = (struct http_client *)(void *)((char *)op - offsetof(struct http_client, poll_op));
  (void)io, (void)ev;
  if (c->state == S_CLOSING)
    after_drop(c);
  else if (c->state == S_CONNECTING)
    connected(c);
  else if (flush(c) && c->state == S_OPEN)
    send_request(c);
}

// Opens the socket when there is none and sends. Runs again when an old connection had to go first.
static void start(struct http_client *c) {
  const struct http_client_target *t = c->target;
  if (c->state == S_CLOSING)
    return;
  if (c->state == S_OPEN) {
    set_timer(c, t->times.first_byte_ms);
    arm_recv(c);
    send_request(c);
    return;
  }
  int one = 1;
  c->fd = socket(t->addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  c->state = S_CONNECTING;
  c->connected_ns = 0;
  if (c->fd < 0) {
    fail_later(c, HTTP_CLIENT_CONNECT, strerror(errno));
    return;
  }
  (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (c->recv_buffer)
    (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &c->recv_buffer, sizeof c->recv_buffer);
  if (c->send_buffer)
    (void)setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &c->send_buffer, sizeof c->send_buffer);
  if (connect(c->fd, t->addr, t->addr_len) && errno != EINPROGRESS) {
    fail_later(c, HTTP_CLIENT_CONNECT, strerror(errno));
    return;
  }
  set_timer(c, t->times.connect_ms);
  wait_writable(c);
}

void http_client_init(struct http_client *c, const struct http_client_net *net, http_client_done *done, void *owner) {
  *c = (struct http_client){.net = net, .done = done, .owner = owner, .fd = -1, .total_until_ms = UINT64_MAX};
}

void http_client_send(struct http_client *c, const struct http_client_target *target, struct bytes head, struct bytes body,
                      bool no_body) {
  if (c->target != target)
    drop(c);
  c->target = target;
  c->head = head;
  c->body = body;
  c->sent = 0;
  c->sent_ns = c->first_byte_ns = 0;
  c->busy = true;
  c->failed = 0;
  c->why[0] = 0;
  c->total_until_ms = target->times.total_ms ? now_ms(c) + target->times.total_ms : UINT64_MAX;
  http_response_begin(&c->response, no_body);
  if (c->state == S_CLOSING)
    set_timer(c, 0);
  start(c);
}

void http_client_close(struct http_client *c) {
  c->busy = false;
  c->failed = 0;
  timer_clear(c->net->timers, &c->timer);
  drop(c);
}

bool http_client_idle(const struct http_client *c) { return c->state == S_CLOSED && !c->busy; }
