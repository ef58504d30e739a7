#include "load/client.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

enum { H_NONE, H_ETAG, H_LOCATION, H_ENCODING, H_RANGE };

struct client_out {
  struct client_out *next;
  uint32_t len, sent;
  uint8_t bytes[CLIENT_REQUEST_MAX];
};

bool client_world_ready(struct client_world *w) {
  if (!w->tls)
    return true;
  w->sealed = malloc(TLS_FLIGHT);
  w->opened = malloc(TLS_RECORD);
  return w->sealed && w->opened;
}

void client_world_free(struct client_world *w) {
  while (w->free_outs) {
    struct client_out *next = w->free_outs->next;
    free(w->free_outs);
    w->free_outs = next;
  }
  free(w->sealed);
  free(w->opened);
  w->sealed = w->opened = NULL;
}

// ---- requests that wait for their connection

static bool keep_out(struct client *c, struct bytes b) {
  struct client_out *o = c->w->free_outs;
  if (o)
    c->w->free_outs = o->next;
  else if (!(o = malloc(sizeof *o)))
    return false;
  o->len = b.n < sizeof o->bytes ? (uint32_t)b.n : (uint32_t)sizeof o->bytes;
  o->sent = 0;
  memcpy(o->bytes, b.p, o->len);
  c->out = o;
  return true;
}

static void drop_out(struct client *c) {
  if (!c->out)
    return;
  c->out->next = c->w->free_outs;
  c->w->free_outs = c->out;
  c->out = NULL;
}

// ---- parsing

// Ends the answer as one that is not HTTP/1.1.
static int refuse(struct client *c, const char *why) {
  c->response.malformed = why;
  return HPE_USER;
}

static int on_status_head(llhttp_t *p) {
  struct client *c = p->data;
  if (p->http_major != 1 || p->status_code < 100)
    return refuse(c, "No status line of HTTP/1.1");
  c->response.status = (uint16_t)p->status_code;
  c->response.content_length = p->flags & F_CONTENT_LENGTH ? p->content_length : UINT64_MAX;
  return c->was_head ? 1 : 0; // 1: no body follows
}

// Names and values come in pieces, as they arrive.
static int on_field(llhttp_t *p, const char *at, size_t n) {
  struct client *c = p->data;
  for (size_t i = 0; i < n && c->name_len < sizeof c->name; i++)
    c->name[c->name_len++] = at[i];
  return 0;
}

static bool is_moved(unsigned status) { return status == 301 || status == 302 || status == 303 || status == 307 || status == 308; }

static bool is_named(const struct client *c, const char *name) {
  return c->name_len == strlen(name) && strncasecmp(c->name, name, c->name_len) == 0;
}

// Several of one name are a list. What there is no room for makes no difference to what is known.
static void add_encoding(struct client_response *r, struct bytes piece) {
  size_t have = strlen(r->encoding);
  for (size_t i = 0; i < piece.n && have + 1 < sizeof r->encoding; i++)
    if (piece.p[i] != ' ' && piece.p[i] != '\t')
      r->encoding[have++] = (char)piece.p[i];
}

static void add_range(struct client_response *r, struct bytes piece) {
  size_t have = strlen(r->range), n = piece.n < sizeof r->range - 1 - have ? piece.n : sizeof r->range - 1 - have;
  memcpy(r->range + have, piece.p, n);
}

static int on_value(llhttp_t *p, const char *at, size_t n) {
  struct client *c = p->data;
  if (!c->in_value) { // what an interim answer says is not about this one (RFC 9110 §15.2); nothing counts from trailers
    c->header = c->response.status || p->status_code < 200                      ? H_NONE
                : is_named(c, "etag")                                           ? H_ETAG
                : is_named(c, "location") && is_moved((unsigned)p->status_code) ? H_LOCATION
                : is_named(c, "content-encoding")                               ? H_ENCODING
                : is_named(c, "content-range")                                  ? H_RANGE
                                                                                : H_NONE;
    if (c->header == H_ENCODING && c->response.encoding[0])
      add_encoding(&c->response, BYTES_LIT(","));
    if (c->header == H_RANGE && c->response.range[0])
      add_range(&c->response, BYTES_LIT(",")); // no list: two of them are none that is right
  }
  c->in_value = true;
  if (c->header == H_ETAG && c->w->etag)
    c->w->etag(c, bytes_of(at, n));
  if (c->header == H_LOCATION && c->w->location)
    c->w->location(c, bytes_of(at, n));
  if (c->header == H_ENCODING)
    add_encoding(&c->response, bytes_of(at, n));
  if (c->header == H_RANGE)
    add_range(&c->response, bytes_of(at, n));
  return 0;
}

static int on_value_complete(llhttp_t *p) {
  struct client *c = p->data;
  if (!c->name_len) // a name is a token (RFC 9110 §5.1)
    return refuse(c, "A field without a name");
  char *range = c->response.range;
  size_t n = strlen(range);
  if (n + 1 < sizeof c->response.range) // else there may be more of it
    while (n && (range[n - 1] == ' ' || range[n - 1] == '\t')) // no part of it (RFC 9110 §5.5)
      range[--n] = 0;
  c->name_len = 0;
  c->in_value = false;
  return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n) {
  struct client *c = p->data;
  c->response.body_len += n;
  if (c->w->body)
    c->w->body(c, bytes_of(at, n));
  return c->stop ? HPE_USER : 0;
}

static int on_complete(llhttp_t *p) {
  struct client *c = p->data;
  if (p->status_code < 200 && p->status_code != 101) { // the answer is still to come (RFC 9110 §15.2)
    c->response = (struct client_response){.content_length = UINT64_MAX};
    return 0;
  }
  c->response.whole = true;
  return HPE_PAUSED; // the rest, if any, is not ours: one request at a time
}

static const llhttp_settings_t settings = {.on_headers_complete = on_status_head,
                                           .on_header_field = on_field,
                                           .on_header_value = on_value,
                                           .on_header_value_complete = on_value_complete,
                                           .on_body = on_body,
                                           .on_message_complete = on_complete};

// ---- the connection

void client_init(struct client *c, struct client_world *w, void *owner) {
  *c = (struct client){.w = w, .owner = owner, .fd = -1};
}

static void drop(struct client *c) {
  struct io *io = c->w->io;
  drop_out(c);
  if (c->fd < 0 || c->closing)
    return;
  tls_free(c->tls);
  c->tls = NULL;
  c->connected = c->secured = c->served = c->broken = false;
  if (c->recv_armed)
    io->v->cancel(io, &c->recv_op);
  if (c->poll_armed)
    io->v->cancel(io, &c->poll_op);
  c->closing = c->recv_armed || c->poll_armed;
  io->v->shutdown(io, c->fd, SHUT_RDWR);
  if (!c->closing) {
    io->v->close(io, c->fd);
    c->fd = -1;
  }
}

static void start(struct client *c);
static void arm_recv(struct client *c);

// What was armed has ended: the descriptor can go, and a request that waited for it can start.
static void after_drop(struct client *c) {
  if (!c->closing || c->recv_armed || c->poll_armed)
    return;
  c->closing = false;
  c->w->io->v->close(c->w->io, c->fd);
  c->fd = -1;
  if (c->busy || c->reopen)
    start(c);
}

static void report(struct client *c) {
  struct client_response r = c->response;
  r.begun = c->any;
  c->busy = false;
  c->w->done(c, &r);
}

static void finish(struct client *c) {
  bool again = c->response.whole && llhttp_should_keep_alive(&c->parser);
  c->served = true;
  if (!again)
    drop(c);
  report(c);
}

static void feed(struct client *c, struct bytes b) {
  if (c->closing)
    return;
  if (!c->busy) { // a 408 that says goodbye is no part of a response that is longer than it said
    c->w->unasked_bytes += b.n && memcmp(b.p, "HTTP/", b.n < 5 ? b.n : 5) != 0 ? b.n : 0;
    return;
  }
  c->any = true;
  enum llhttp_errno e = llhttp_execute(&c->parser, (const char *)b.p, b.n);
  if (c->response.whole && e == HPE_PAUSED)
    c->w->unasked_bytes += (uint64_t)((const char *)b.p + b.n - llhttp_get_error_pos(&c->parser));
  bool failed = e != HPE_OK && e != HPE_PAUSED && !c->response.whole;
  if (failed && !c->stop && !c->response.malformed)
    c->response.malformed = llhttp_get_error_reason(&c->parser);
  if (c->response.whole || failed)
    finish(c);
}

// The peer's end, or a failure. A response that runs to the end of the connection is whole now, an interim one is none.
static void ended(struct client *c) {
  bool busy = c->busy;
  if (busy && c->any && c->response.status)
    (void)llhttp_finish(&c->parser); // calls on_complete where the end of the connection ends the body
  c->response.stale = busy && !c->any && c->served;
  c->w->ended_at_rest += !busy && c->connected;
  drop(c);
  if (busy)
    report(c);
}

static void send_request(struct client *c);

static bool send_sealed(struct client *c, const struct tls_io *t) {
  ssize_t n = t->out_len ? c->w->io->v->send(c->w->io, c->fd, t->out, t->out_len, false) : 0;
  return n == (ssize_t)t->out_len; // a few hundred bytes into an empty socket buffer: less is a broken connection
}

// Records: the handshake goes on, then what they hold goes to the parser. False: the connection has failed or is another.
static bool feed_sealed(struct client *c, struct bytes b) {
  struct client_world *w = c->w;
  struct tls_io t = {.in = b.p, .in_len = b.n, .out = w->sealed, .out_cap = TLS_FLIGHT};
  uint32_t which = c->opened;
  if (!c->secured) {
    enum tls_result r = tls_handshake(c->tls, &t);
    if (!send_sealed(c, &t) || (r != TLS_OK && r != TLS_WANT)) {
      w->tls_failures++;
      return false;
    }
    if (r == TLS_WANT)
      return true;
    c->secured = true;
    send_request(c);
  }
  while (c->opened == which && c->tls && !c->closing) {
    size_t n = 0;
    t.out_len = 0;
    enum tls_result r = tls_read(c->tls, &t, w->opened, TLS_RECORD, &n);
    if (!send_sealed(c, &t) || r == TLS_FAILED || r == TLS_ENDED)
      return false;
    if (r == TLS_WANT)
      return true;
    feed(c, bytes_of(w->opened, n));
  }
  return true;
}

static bool received(struct client *c, struct bytes b) {
  if (c->closing)
    return true;
  if (c->tls)
    return feed_sealed(c, b);
  feed(c, b);
  return true;
}

static void on_recv(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct client *c = (struct client *)((char *)op - offsetof(struct client, recv_op));
  uint32_t which = c->opened;
  bool good = true;
  c->recv_armed = ev->more;
  if (ev->res > 0) {
    good = received(c, ev->data);
    io->v->recv_done(io, ev->buf);
  }
  if (c->closing) {
    after_drop(c);
    return;
  }
  if (c->opened != which || c->fd < 0)
    return; // this connection is over, and another may have begun
  if (!good || ev->res == 0 || (ev->res < 0 && ev->res != -ENOBUFS && ev->res != -EAGAIN && ev->res != -EINTR)) {
    ended(c);
    return;
  }
  arm_recv(c);
}

static void arm_recv(struct client *c) {
  if (c->recv_armed || c->slow_bytes || c->fd < 0 || c->closing)
    return;
  c->recv_op.done = on_recv;
  c->recv_armed = true;
  c->w->io->v->recv(c->w->io, &c->recv_op, c->fd);
}

static bool begin_tls(struct client *c) {
  struct client_world *w = c->w;
  struct tls_io t = {.out = w->sealed, .out_cap = TLS_FLIGHT};
  c->tls = tls_connect(w->tls, w->tls_host);
  return c->tls && tls_handshake(c->tls, &t) == TLS_WANT && send_sealed(c, &t);
}

static void on_poll(struct io *io, struct io_op *op, const struct io_event *ev) {
  (void)io, (void)ev;
  struct client *c = (struct client *)((char *)op - offsetof(struct client, poll_op));
  c->poll_armed = false;
  if (c->closing) {
    after_drop(c);
    return;
  }
  int err = 0;
  socklen_t len = sizeof err;
  bool fresh = !c->connected;
  if (c->broken || getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0 || err) {
    ended(c);
    return;
  }
  c->connected = true;
  if (fresh && c->w->tls && !begin_tls(c)) {
    ended(c);
    return;
  }
  arm_recv(c);
  send_request(c);
}

static void wait_writable(struct client *c) {
  if (c->poll_armed)
    return;
  c->poll_op.done = on_poll;
  c->poll_armed = true;
  c->w->io->v->poll(c->w->io, &c->poll_op, c->fd, IO_POLL_OUT);
}

// Sends what waits in c->out, when the connection is ready for it.
static void send_request(struct client *c) {
  struct client_out *o = c->out;
  if (!o || !c->connected || (c->tls && !c->secured))
    return;
  if (c->tls) {
    struct tls_io t = {.out = c->w->sealed, .out_cap = TLS_FLIGHT};
    bool good = tls_write(c->tls, &t, o->bytes, o->len) == o->len && send_sealed(c, &t);
    c->broken = !good;
    if (good)
      drop_out(c);
    else
      wait_writable(c); // reported from its completion, never from inside a call
    return;
  }
  while (o->sent < o->len) {
    ssize_t n = c->w->io->v->send(c->w->io, c->fd, o->bytes + o->sent, o->len - o->sent, false);
    if (n < 0) {
      c->broken = n != -EAGAIN;
      wait_writable(c);
      return;
    }
    o->sent += (uint32_t)n;
  }
  drop_out(c);
  if (c->half)
    c->w->io->v->shutdown(c->w->io, c->fd, SHUT_WR);
}

static void open_socket(struct client *c) {
  int one = 1;
  c->reopen = false;
  c->opened++;
  c->w->connects++;
  c->fd = socket(c->w->addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd >= 0) {
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->slow_bytes) {
      int small = 4096;
      setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
  }
  // No descriptor, no port: what this machine lacks is no fault of the server's. Other failures come like success, in the completion.
  if (c->fd < 0 || (connect(c->fd, c->w->addr, c->w->addr_len) && errno == EADDRNOTAVAIL)) {
    c->w->unopened_errno = errno;
    c->w->unopened++;
  }
  wait_writable(c);
}

// Opens the socket when there is none and sends. Runs again when an old connection had to go first.
static void start(struct client *c) {
  if (c->closing)
    return;
  if (c->fd < 0) {
    open_socket(c);
    return;
  }
  if (c->connected) {
    arm_recv(c);
    send_request(c);
  }
}

void client_send(struct client *c, struct bytes request, bool head) {
  c->busy = true;
  c->was_head = head;
  c->header = H_NONE;
  c->in_value = false;
  c->name_len = 0;
  c->stop = c->half = c->any = false;
  c->response = (struct client_response){.content_length = UINT64_MAX};
  llhttp_init(&c->parser, HTTP_RESPONSE, &settings);
  c->parser.lenient_flags = LENIENT_VERSION; // a higher minor version is taken for ours (RFC 9110 §2.5)
  c->parser.data = c;
  if (c->connected && !c->closing && !c->tls && !c->out) { // the usual case needs no buffer
    arm_recv(c);
    ssize_t n = c->w->io->v->send(c->w->io, c->fd, request.p, request.n, false);
    if (n == (ssize_t)request.n)
      return;
    c->broken = n < 0 && n != -EAGAIN;
    n = n < 0 ? 0 : n;
    request = bytes_of(request.p + n, request.n - (size_t)n);
    if (!keep_out(c, request))
      c->broken = true;
    wait_writable(c);
    return;
  }
  drop_out(c);
  if (keep_out(c, request))
    start(c);
}

void client_open(struct client *c) {
  c->reopen = c->closing;
  if (c->fd < 0 && !c->closing)
    open_socket(c);
}

void client_close(struct client *c) {
  c->busy = c->reopen = false;
  drop(c);
}

bool client_idle(const struct client *c) { return c->fd < 0 && !c->closing; }

void client_read_slowly(struct client *c) {
  uint8_t buf[16384];
  if (c->fd < 0 || c->closing || !c->busy || !c->connected)
    return;
  ssize_t n = recv(c->fd, buf, c->slow_bytes < sizeof buf ? c->slow_bytes : sizeof buf, MSG_DONTWAIT);
  uint32_t which = c->opened;
  if (n > 0) {
    if (!received(c, bytes_of(buf, (size_t)n)) && c->opened == which && !c->closing)
      ended(c);
  } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
    ended(c);
  }
}

void client_half_close(struct client *c) {
  if (c->w->tls)
    return;
  c->half = true;
  if (c->connected && !c->closing && c->busy && !c->out)
    c->w->io->v->shutdown(c->w->io, c->fd, SHUT_WR);
}
