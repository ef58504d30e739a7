// epoll behind net/io.h: for kernels and containers that forbid io_uring. Level-triggered; what is armed for a
// descriptor stands in a table by its number, taken at start.
#include "net/socket.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum { OP_ACCEPT = 1, OP_RECV, OP_POLL };
enum { EVENTS_PER_TURN = 256, ACCEPTS_PER_TURN = 64, MAX_FDS = 1 << 20 };

struct fd_slot {
  struct io_op *in, *out; // what waits for readable, for writable
  uint32_t interest;      // what the kernel was told; 0: nothing
  uint32_t next_put_off;  // a descriptor + 1; 0: none
  bool put_off;
};

struct epoll {
  struct io io;
  int ep, wake_fd;
  struct fd_slot *fds;
  uint32_t num_fds;
  uint8_t *recv_mem;
  uint16_t *free_bufs;
  uint32_t num_free, recv_buffers, recv_size;
  struct io_op *starved, *cancelled;
  uint32_t put_off; // descriptor + 1 of the first whose interest the kernel had no memory for; 0: none
  int failed;       // errno, or 0
  int num_events;
  struct epoll_event events[EVENTS_PER_TURN];
};

static struct epoll *self(struct io *io) { return (struct epoll *)(void *)io; }

static void put_off(struct epoll *e, int fd) {
  struct fd_slot *s = &e->fds[fd];
  if (s->put_off)
    return;
  s->put_off = true;
  s->next_put_off = e->put_off;
  e->put_off = (uint32_t)fd + 1;
}

static void update(struct epoll *e, int fd) {
  struct fd_slot *s = &e->fds[fd];
  uint32_t want = (s->in && !s->in->queued ? EPOLLIN | EPOLLRDHUP : 0u) | (s->out ? (uint32_t)EPOLLOUT : 0u);
  if (want == s->interest)
    return;
  struct epoll_event ev = {.events = want, .data.fd = fd};
  int how = s->interest == 0 ? EPOLL_CTL_ADD : want == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  if (epoll_ctl(e->ep, how, fd, &ev) == 0)
    s->interest = want;
  else if (errno == ENOMEM || errno == ENOSPC) // as long as memory or max_user_watches are used up
    put_off(e, fd);
  else
    e->failed = errno;
}

static void tell_kernel_again(struct epoll *e) {
  uint32_t at = e->put_off;
  e->put_off = 0;
  while (at) {
    struct fd_slot *s = &e->fds[at - 1];
    int fd = (int)at - 1;
    at = s->next_put_off;
    s->put_off = false;
    update(e, fd);
  }
}

static void arm(struct io *io, struct io_op *op, int fd, uint8_t kind, bool out) {
  struct epoll *e = self(io);
  op->fd = fd;
  op->kind = kind;
  op->armed = 1;
  op->queued = 0;
  if ((uint32_t)fd >= e->num_fds) { // nobody can wait for it
    op->next = e->cancelled;
    e->cancelled = op;
    return;
  }
  op->next = NULL;
  struct fd_slot *s = &e->fds[fd];
  if (out)
    s->out = op;
  else
    s->in = op;
  update(e, fd);
}

static void ep_accept(struct io *io, struct io_op *op, int fd) { arm(io, op, fd, OP_ACCEPT, false); }
static void ep_recv(struct io *io, struct io_op *op, int fd) { arm(io, op, fd, OP_RECV, false); }

static void ep_poll(struct io *io, struct io_op *op, int fd, unsigned events) {
  op->events = (uint8_t)events;
  arm(io, op, fd, OP_POLL, (events & IO_POLL_OUT) != 0);
}

static void ep_recv_done(struct io *io, uint16_t buf) {
  struct epoll *e = self(io);
  e->free_bufs[e->num_free++] = buf;
}

static void ep_close(struct io *io, int fd) {
  struct epoll *e = self(io);
  if ((uint32_t)fd < e->num_fds) {
    struct fd_slot *s = &e->fds[fd];
    s->in = s->out = NULL;
    s->interest = 0; // closing takes it out of the kernel's set
  }
  close(fd);
}

static void disarm(struct epoll *e, struct io_op *op) {
  struct fd_slot *s = &e->fds[op->fd];
  if (s->in == op)
    s->in = NULL;
  if (s->out == op)
    s->out = NULL;
  op->armed = 0;
  update(e, op->fd);
}

static void ep_cancel(struct io *io, struct io_op *op) {
  struct epoll *e = self(io);
  if (!op->armed)
    return;
  for (struct io_op *c = e->cancelled; c; c = c->next)
    if (c == op)
      return;
  for (struct io_op **at = &e->starved; *at; at = &(*at)->next) {
    if (*at == op) {
      *at = op->next;
      break;
    }
  }
  disarm(e, op);
  op->armed = 1; // until it was told
  op->queued = 0;
  op->next = e->cancelled;
  e->cancelled = op;
}

static void tell(struct epoll *e, struct io_op *op, const struct io_event *ev) {
  if (!ev->more)
    disarm(e, op);
  op->done(&e->io, op, ev);
}

static void do_accept(struct epoll *e, struct io_op *op) {
  for (int i = 0; i < ACCEPTS_PER_TURN && op->armed; i++) {
    int fd = accept4(op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
      return;
    tell(e, op, &(struct io_event){.res = fd < 0 ? -errno : fd, .more = fd >= 0});
    if (fd < 0)
      return;
  }
}

static void do_recv(struct epoll *e, struct io_op *op) {
  if (e->num_free == 0) {
    op->queued = 1;
    op->next = e->starved;
    e->starved = op;
    update(e, op->fd);
    return;
  }
  uint16_t buf = e->free_bufs[--e->num_free];
  uint8_t *p = e->recv_mem + (size_t)buf * e->recv_size;
  ssize_t n = recv(op->fd, p, e->recv_size, MSG_DONTWAIT);
  int err = errno;
  if (n <= 0)
    e->free_bufs[e->num_free++] = buf;
  if (n < 0 && (err == EAGAIN || err == EINTR))
    return;
  struct io_event ev = {.res = n < 0 ? -err : (int32_t)n, .more = n > 0, .buf = buf};
  if (n > 0)
    ev.data = bytes_of(p, (size_t)n);
  tell(e, op, &ev);
}

static void on_event(struct epoll *e, int fd, uint32_t events) {
  struct fd_slot *s = &e->fds[fd];
  const uint32_t in = EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP, out = EPOLLOUT | EPOLLHUP | EPOLLERR;
  if ((events & out) && s->out)
    tell(e, s->out, &(struct io_event){.res = 1});
  if (!(events & in) || !s->in || s->in->queued)
    return;
  if (s->in->kind == OP_ACCEPT)
    do_accept(e, s->in);
  else if (s->in->kind == OP_RECV)
    do_recv(e, s->in);
  else
    tell(e, s->in, &(struct io_event){.res = 1});
}

static void complete_cancelled(struct epoll *e) {
  struct io_op *op = e->cancelled;
  e->cancelled = NULL;
  while (op) {
    struct io_op *next = op->next;
    op->armed = 0;
    op->next = NULL;
    op->done(&e->io, op, &(struct io_event){.res = -ECANCELED});
    op = next;
  }
}

static void feed_starved(struct epoll *e) {
  while (e->num_free && e->starved) {
    struct io_op *op = e->starved;
    e->starved = op->next;
    op->next = NULL;
    op->queued = 0;
    update(e, op->fd);
  }
}

static bool ep_wait(struct io *io, int64_t timeout_ns) {
  struct epoll *e = self(io);
  tell_kernel_again(e);
  if (e->put_off && (timeout_ns < 0 || timeout_ns > IO_RETRY_NS))
    timeout_ns = IO_RETRY_NS;
  if (e->cancelled)
    timeout_ns = 0;
  int timeout_ms = timeout_ns < 0 ? -1 : timeout_ns > 3600000000000 ? 3600000 : (int)((timeout_ns + 999999) / 1000000);
  e->num_events = epoll_wait(e->ep, e->events, EVENTS_PER_TURN, timeout_ms);
  if (e->failed)
    errno = e->failed;
  return !e->failed && (e->num_events >= 0 || errno == EINTR);
}

static bool ep_run(struct io *io) {
  struct epoll *e = self(io);
  complete_cancelled(e);
  for (int i = 0; i < e->num_events; i++) {
    int fd = e->events[i].data.fd;
    if (fd == e->wake_fd) {
      uint64_t v;
      ssize_t r = read(fd, &v, sizeof v);
      (void)r;
    } else {
      on_event(e, fd, e->events[i].events);
    }
  }
  e->num_events = 0;
  feed_starved(e);
  if (e->failed)
    errno = e->failed;
  return !e->failed;
}

static void ep_wake(struct io *io) { socket_wake(self(io)->wake_fd); }

static void ep_free(struct io *io) {
  struct epoll *e = self(io);
  if (e->ep >= 0)
    close(e->ep);
  if (e->wake_fd >= 0)
    close(e->wake_fd);
  free(e->fds);
  free(e->recv_mem);
  free(e->free_bufs);
  free(e);
}

static const struct io_ops ops = {
    .name = "epoll", .listen = socket_listen, .accept = ep_accept, .recv = ep_recv, .recv_done = ep_recv_done,
    .send = socket_send, .sendfile = socket_sendfile, .push = socket_push, .poll = ep_poll, .shutdown = socket_shutdown, .close = ep_close,
    .cancel = ep_cancel, .wait = ep_wait, .run = ep_run, .wake = ep_wake, .now_ns = clock_now, .wall_ns = clock_wall,
    .random = random_fill, .free = ep_free,
};

static bool setup(struct epoll *e, const struct io_options *o) {
  struct rlimit lim;
  e->recv_buffers = o->recv_buffers ? o->recv_buffers : 64;
  e->recv_size = o->recv_size ? o->recv_size : 4096;
  e->num_fds = getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur > MAX_FDS ? MAX_FDS : (uint32_t)lim.rlim_cur;
  e->fds = calloc(e->num_fds, sizeof *e->fds);
  e->recv_mem = malloc((size_t)e->recv_buffers * e->recv_size);
  e->free_bufs = calloc(e->recv_buffers, sizeof *e->free_bufs);
  if (!e->fds || !e->recv_mem || !e->free_bufs) {
    errno = ENOMEM;
    return false;
  }
  for (uint32_t i = 0; i < e->recv_buffers; i++)
    e->free_bufs[e->num_free++] = (uint16_t)i;
  e->ep = epoll_create1(EPOLL_CLOEXEC);
  e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (e->ep < 0 || e->wake_fd < 0)
    return false;
  struct epoll_event ev = {.events = EPOLLIN, .data.fd = e->wake_fd};
  return epoll_ctl(e->ep, EPOLL_CTL_ADD, e->wake_fd, &ev) == 0;
}

struct io *io_epoll_new(const struct io_options *o, char *why, size_t why_cap) {
  struct epoll *e = calloc(1, sizeof *e);
  if (e) {
    e->io.v = &ops;
    e->ep = e->wake_fd = -1;
    if (setup(e, o))
      return &e->io;
  }
  snprintf(why, why_cap, "epoll cannot be used here: %s", strerror(errno));
  if (e)
    ep_free(&e->io);
  return NULL;
}

struct io *io_new(const char *name, const struct io_options *o, char *why, size_t why_cap) {
  if (strcmp(name, "epoll") == 0)
    return io_epoll_new(o, why, why_cap);
  struct io *io = io_uring_new(o, why, why_cap);
  return io || strcmp(name, "auto") != 0 ? io : io_epoll_new(o, why, why_cap);
}
