#include "load/client.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

enum { H_NONE, H_ETAG };

static int on_status_head(llhttp_t *p) {
  struct client *c = p->data;
  c->response.status = (unsigned)p->status_code;
  c->response.content_length = p->flags & F_CONTENT_LENGTH ? p->content_length : UINT64_MAX;
  return c->was_head ? 1 : 0; // 1: no body follows
}

static int on_field(llhttp_t *p, const char *at, size_t n) {
  struct client *c = p->data;
  c->header = n == 4 && strncasecmp(at, "etag", 4) == 0 ? H_ETAG : H_NONE;
  return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n) {
  struct client *c = p->data;
  if (c->header == H_ETAG && n < sizeof c->response.etag) {
    memcpy(c->response.etag, at, n);
    c->response.etag[n] = 0;
  }
  return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n) {
  struct client *c = p->data;
  c->response.body_len += n;
  if (c->body)
    c->body(c, bytes_of(at, n));
  return c->stop ? HPE_USER : 0;
}

static int on_complete(llhttp_t *p) {
  struct client *c = p->data;
  c->response.whole = true;
  return HPE_PAUSED; // the rest, if any, is not ours: one request at a time
}

static const llhttp_settings_t settings = {.on_headers_complete = on_status_head,
                                           .on_header_field = on_field,
                                           .on_header_value = on_value,
                                           .on_body = on_body,
                                           .on_message_complete = on_complete};

void client_init(struct client *c, struct io *io, const struct sockaddr *addr, socklen_t addr_len, char *out, uint32_t out_cap) {
  *c = (struct client){.io = io, .addr = addr, .addr_len = addr_len, .fd = -1, .out = out, .out_cap = out_cap};
}

static void drop(struct client *c) {
  if (c->fd < 0)
    return;
  if (c->recv_armed)
    c->io->v->cancel(c->io, &c->recv_op);
  if (c->poll_armed)
    c->io->v->cancel(c->io, &c->poll_op);
  c->closing = c->recv_armed || c->poll_armed;
  c->io->v->shutdown(c->io, c->fd, SHUT_RDWR);
  if (!c->closing) {
    c->io->v->close(c->io, c->fd);
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
  c->io->v->close(c->io, c->fd);
  c->fd = -1;
  if (c->busy)
    start(c);
}

static void finish(struct client *c) {
  bool again = c->response.whole && llhttp_should_keep_alive(&c->parser);
  struct client_response r = c->response;
  c->busy = false;
  if (!again)
    drop(c);
  c->done(c, &r);
}

static void feed(struct client *c, struct bytes b) {
  if (!c->busy || c->closing)
    return;
  if (!c->response.first_byte_ns)
    c->response.first_byte_ns = c->io->v->now_ns(c->io);
  enum llhttp_errno e = llhttp_execute(&c->parser, (const char *)b.p, b.n);
  if (c->response.whole || (e != HPE_OK && e != HPE_PAUSED))
    finish(c);
}

// The peer's end, or a failure. A response that runs to the end of the connection is whole now.
static void ended(struct client *c) {
  bool busy = c->busy;
  if (busy && c->response.first_byte_ns && llhttp_finish(&c->parser) == HPE_OK && c->response.status)
    c->response.whole = true;
  drop(c);
  if (!busy)
    return;
  struct client_response r = c->response;
  c->busy = false;
  c->done(c, &r);
}

static void on_recv(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct client *c = (struct client *)((char *)op - offsetof(struct client, recv_op));
  c->recv_armed = ev->more;
  if (ev->res > 0) {
    feed(c, ev->data);
    io->v->recv_done(io, ev->buf);
  }
  if (c->closing) {
    after_drop(c);
    return;
  }
  if (ev->res == 0 || (ev->res < 0 && ev->res != -ENOBUFS && ev->res != -EAGAIN && ev->res != -EINTR)) {
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
  c->io->v->recv(c->io, &c->recv_op, c->fd);
}

static void send_some(struct client *c);

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
  if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0 || err) {
    ended(c);
    return;
  }
  arm_recv(c);
  send_some(c);
}

static void wait_writable(struct client *c) {
  c->poll_op.done = on_poll;
  c->poll_armed = true;
  c->io->v->poll(c->io, &c->poll_op, c->fd, IO_POLL_OUT);
}

static void send_some(struct client *c) {
  while (c->out_sent < c->out_len) {
    ssize_t n = c->io->v->send(c->io, c->fd, c->out + c->out_sent, c->out_len - c->out_sent, false);
    if (n == -EAGAIN || n == -ENOTCONN) {
      wait_writable(c);
      return;
    }
    if (n < 0) {
      ended(c);
      return;
    }
    c->out_sent += (uint32_t)n;
  }
  if (c->half && c->out_len)
    c->io->v->shutdown(c->io, c->fd, SHUT_WR);
}

// Opens the socket when there is none and sends. Runs again when an old connection had to go first.
static void start(struct client *c) {
  if (c->closing)
    return;
  if (c->fd < 0) {
    int one = 1;
    c->fd = socket(c->addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
      wait_writable(c); // fails through its completion, like every other failure
      return;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->slow_bytes) {
      int small = 4096;
      setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
    int r = connect(c->fd, c->addr, c->addr_len);
    if (r != 0) {
      wait_writable(c);
      return;
    }
  }
  arm_recv(c);
  send_some(c);
}

void client_send(struct client *c, uint32_t len, bool head) {
  c->out_len = len;
  c->out_sent = 0;
  c->busy = true;
  c->was_head = head;
  c->header = H_NONE;
  c->stop = c->half = false;
  c->response = (struct client_response){.content_length = UINT64_MAX};
  llhttp_init(&c->parser, HTTP_RESPONSE, &settings);
  c->parser.data = c;
  start(c);
}

void client_close(struct client *c) {
  c->busy = false;
  drop(c);
}

bool client_idle(const struct client *c) { return c->fd < 0 && !c->closing; }

void client_read_slowly(struct client *c) {
  uint8_t buf[16384];
  if (c->fd < 0 || c->closing || !c->busy)
    return;
  ssize_t n = recv(c->fd, buf, c->slow_bytes < sizeof buf ? c->slow_bytes : sizeof buf, MSG_DONTWAIT);
  if (n > 0)
    feed(c, bytes_of(buf, (size_t)n));
  else if (n == 0 || (errno != EAGAIN && errno != EINTR))
    ended(c);
}

void client_half_close(struct client *c) {
  c->half = true;
  if (c->fd >= 0 && !c->closing && c->busy && c->out_sent == c->out_len)
    c->io->v->shutdown(c->io, c->fd, SHUT_WR);
}
