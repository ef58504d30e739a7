// Both backends, the same checks.
#include "net/io.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

struct world {
  struct io *io;
  struct io_op accept, recv, poll;
  int listener, port, conn, peer;
  size_t num_accepted, num_recv, num_polls;
  size_t bytes;
  uint64_t sum;
  bool ended, cancelled, hold;
  uint16_t held[256];
  size_t num_held;
  int32_t poll_res;
};

static struct world *w_of(void *op, size_t off) { return (struct world *)(void *)((char *)op - off); }

static void on_accept(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct world *w = w_of(op, offsetof(struct world, accept));
  cr_assert_geq(ev->res, 0);
  if (w->num_accepted++ == 0)
    w->conn = ev->res;
  else
    io->v->close(io, ev->res);
}

static void on_recv(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct world *w = w_of(op, offsetof(struct world, recv));
  if (ev->res > 0) {
    w->num_recv++;
    w->bytes += ev->data.n;
    for (size_t i = 0; i < ev->data.n; i++)
      w->sum += ev->data.p[i];
    if (w->hold)
      w->held[w->num_held++] = ev->buf;
    else
      io->v->recv_done(io, ev->buf);
    cr_assert(ev->more);
    return;
  }
  cr_assert_not(ev->more);
  if (ev->res == -ECANCELED)
    w->cancelled = true;
  else
    w->ended = true;
}

static void on_poll(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct world *w = w_of(op, offsetof(struct world, poll));
  (void)io;
  w->num_polls++;
  w->poll_res = ev->res;
}

static void open_world(struct world *w, const char *backend, const struct io_options *o) {
  char why[200];
  *w = (struct world){.conn = -1, .accept.done = on_accept, .recv.done = on_recv, .poll.done = on_poll};
  w->io = io_new(backend, o, why, sizeof why);
  cr_assert(w->io, "%s", why);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof a;
  w->listener = w->io->v->listen(w->io, &(struct io_listen){.addr = (struct sockaddr *)&a, .addr_len = len, .backlog = 64, .reuseport = true});
  cr_assert_geq(w->listener, 0);
  getsockname(w->listener, (struct sockaddr *)&a, &len);
  w->port = ntohs(a.sin_port);
  w->io->v->accept(w->io, &w->accept, w->listener);
}

static bool turn(const struct world *w, int64_t timeout_ns) {
  return w->io->v->wait(w->io, timeout_ns) && w->io->v->run(w->io);
}

static int dial(const struct world *w) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)w->port)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
  return fd;
}

#define RUN_UNTIL(w, cond)                                                                                       \
  for (int turn_ = 0; !(cond); turn_++) {                                                                        \
    cr_assert_lt(turn_, 2000, "never: %s", #cond);                                                               \
    cr_assert(turn(w, 5000000));                                                                \
  }

static void connect_pair(struct world *w) {
  w->peer = dial(w);
  RUN_UNTIL(w, w->conn >= 0);
  w->io->v->recv(w->io, &w->recv, w->conn);
}

static void close_world(struct world *w) {
  w->io->v->cancel(w->io, &w->accept);
  io_free(w->io);
  close(w->listener);
  if (w->conn >= 0)
    close(w->conn);
  close(w->peer);
}

static const char *const backends[] = {"io_uring", "epoll"};
#define EACH_BACKEND(b) for (size_t b = 0; b < sizeof backends / sizeof *backends; b++)

Test(io, accepts_receives_and_sees_the_end) {
  EACH_BACKEND(b) {
    struct world w;
    open_world(&w, backends[b], &(struct io_options){0});
    connect_pair(&w);
    uint8_t data[10000];
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof data; i++)
      sum += data[i] = (uint8_t)(i * 7);
    for (int i = 0; i < 50; i++) {
      cr_assert_eq(write(w.peer, data, sizeof data), (ssize_t)sizeof data);
      RUN_UNTIL(&w, w.bytes == sizeof data * (size_t)(i + 1));
    }
    cr_assert_eq(w.sum, sum * 50);
    for (int i = 0; i < 5; i++)
      close(dial(&w));
    RUN_UNTIL(&w, w.num_accepted == 6);
    shutdown(w.peer, SHUT_WR);
    RUN_UNTIL(&w, w.ended);
    cr_assert_not(io_armed(&w.recv));
    close_world(&w);
  }
}

Test(io, receiving_pauses_without_buffers_and_goes_on_when_they_return) {
  EACH_BACKEND(b) {
    struct world w;
    open_world(&w, backends[b], &(struct io_options){.recv_buffers = 4, .recv_size = 512});
    connect_pair(&w);
    w.hold = true;
    uint8_t data[8192] = {1};
    cr_assert_eq(write(w.peer, data, sizeof data), (ssize_t)sizeof data);
    RUN_UNTIL(&w, w.num_held == 4);
    for (int i = 0; i < 5; i++)
      turn(&w, 1000000);
    cr_assert_eq(w.num_held, 4);
    w.hold = false;
    while (w.num_held)
      w.io->v->recv_done(w.io, w.held[--w.num_held]);
    RUN_UNTIL(&w, w.bytes == sizeof data);
    close_world(&w);
  }
}

Test(io, cancel_ends_an_operation_once) {
  EACH_BACKEND(b) {
    struct world w;
    open_world(&w, backends[b], &(struct io_options){.recv_buffers = 2, .recv_size = 512});
    connect_pair(&w);
    turn(&w, 0);
    w.io->v->cancel(w.io, &w.recv);
    w.io->v->cancel(w.io, &w.recv);
    cr_assert(io_armed(&w.recv));
    RUN_UNTIL(&w, w.cancelled);
    cr_assert_not(io_armed(&w.recv));
    // Starved ones too, and receiving starts again after it.
    w.cancelled = false;
    w.hold = true;
    w.io->v->recv(w.io, &w.recv, w.conn);
    uint8_t data[4096] = {1};
    cr_assert_eq(write(w.peer, data, sizeof data), (ssize_t)sizeof data);
    RUN_UNTIL(&w, w.num_held == 2);
    turn(&w, 1000000);
    w.io->v->cancel(w.io, &w.recv);
    RUN_UNTIL(&w, w.cancelled);
    w.hold = false;
    w.io->v->recv(w.io, &w.recv, w.conn);
    while (w.num_held)
      w.io->v->recv_done(w.io, w.held[--w.num_held]);
    RUN_UNTIL(&w, w.bytes == sizeof data);
    close_world(&w);
  }
}

// What a cancelled receive ends with where the cancellation finds it between two turns, as the kernel may choose: set below.
static int32_t instead_of_cancelled;

int __real_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned n, struct __kernel_timespec *ts, sigset_t *mask);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned n, struct __kernel_timespec *ts, sigset_t *mask);
int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);

// A kernel that takes nothing, for want of memory.
static bool takes_nothing;
int __wrap_io_uring_submit(struct io_uring *ring) { return takes_nothing ? -EAGAIN : __real_io_uring_submit(ring); }

// Cancellations that find nothing: they ask for what is not there.
static bool cancels_nothing;

static void miss_cancellations(const struct io_uring_sq *sq) {
  for (unsigned at = sq->sqe_head; at != sq->sqe_tail; at++) {
    struct io_uring_sqe *sqe = &sq->sqes[at & *sq->kring_mask];
    if (sqe->opcode == IORING_OP_ASYNC_CANCEL)
      sqe->addr = 1;
  }
}

int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned n, struct __kernel_timespec *ts, sigset_t *mask) {
  if (takes_nothing)
    return -EAGAIN;
  if (cancels_nothing)
    miss_cancellations(&ring->sq);
  int r = __real_io_uring_submit_and_wait_timeout(ring, cqe, n, ts, mask);
  unsigned head;
  struct io_uring_cqe *done;
  io_uring_for_each_cqe(ring, head, done) if (instead_of_cancelled && done->user_data && done->res == -ECANCELED)
    done->res = instead_of_cancelled;
  return r;
}

enum { MANY = 40 };

struct many {
  struct io_op op[MANY];
  int fd[MANY][2];
  int32_t res[MANY];
  unsigned done;
};

static struct many many;

static void on_one_of_many(struct io *io, struct io_op *op, const struct io_event *ev) {
  (void)io;
  many.res[op - many.op] = ev->res;
  many.done += !ev->more;
}

// Every third was cancelled; the others end when something can be read.
static void third_was_cancelled(struct world *w) {
  for (int i = 0; i < MANY; i++)
    if (i % 3)
      cr_assert_eq(write(many.fd[i][1], "", 1), 1);
  RUN_UNTIL(w, many.done == MANY);
  for (int i = 0; i < MANY; i++) {
    cr_expect_eq(many.res[i] == -ECANCELED, i % 3 == 0, "operation %d: %d", i, many.res[i]);
    cr_expect_not(io_armed(&many.op[i]));
    close(many.fd[i][0]);
    close(many.fd[i][1]);
  }
  close_world(w);
}

int __real_epoll_ctl(int ep, int how, int fd, struct epoll_event *ev);
int __wrap_epoll_ctl(int ep, int how, int fd, struct epoll_event *ev);

static int refused; // errno of a kernel that takes no interest more
int __wrap_epoll_ctl(int ep, int how, int fd, struct epoll_event *ev) {
  if (refused && how != EPOLL_CTL_DEL) {
    errno = refused;
    return -1;
  }
  return __real_epoll_ctl(ep, how, fd, ev);
}

// epoll has no memory, or no watches, for a while: what was started waits for it; what was cancelled or closed meanwhile does not.
Test(io, interest_that_the_kernel_refuses_is_told_again) {
  static const int why[] = {ENOSPC, ENOMEM};
  for (size_t k = 0; k < 2; k++) {
    struct world w;
    open_world(&w, "epoll", &(struct io_options){0});
    connect_pair(&w);
    struct io *io = w.io;
    many = (struct many){.done = 0};
    for (int i = 0; i < MANY; i++) {
      cr_assert_eq(pipe(many.fd[i]), 0);
      many.op[i].done = on_one_of_many;
    }
    refused = why[k];
    for (int i = 0; i < MANY; i++)
      io->v->poll(io, &many.op[i], many.fd[i][0], IO_POLL_IN);
    for (int i = 0; i < MANY; i += 3)
      io->v->cancel(io, &many.op[i]);
    for (int i = 0; i < 5; i++)
      cr_assert(turn(&w, 5000000), "ended by %d", why[k]);
    for (int i = 0; i < MANY; i += 6) { // closed, and its number used again, while it is still to be told of
      cr_assert_not(io_armed(&many.op[i]));
      io->v->close(io, many.fd[i][0]);
      many.fd[i][0] = dup(many.fd[i + 1][0]);
    }
    refused = 0;
    third_was_cancelled(&w);
  }
}

// More is started, and some of it cancelled, than the queue has room for, while the kernel takes nothing: nothing of it is lost.
Test(io, what_the_kernel_does_not_take_is_put_off) {
  struct world w;
  open_world(&w, "io_uring", &(struct io_options){.entries = 4});
  connect_pair(&w);
  struct io *io = w.io;
  many = (struct many){.done = 0};
  for (int i = 0; i < MANY; i++) {
    cr_assert_eq(pipe(many.fd[i]), 0);
    many.op[i].done = on_one_of_many;
  }
  for (int i = 0; i < MANY / 2; i++) // in the kernel
    io->v->poll(io, &many.op[i], many.fd[i][0], IO_POLL_IN);
  cr_assert(turn(&w, 0));
  takes_nothing = true;
  for (int i = MANY / 2; i < MANY; i++)
    io->v->poll(io, &many.op[i], many.fd[i][0], IO_POLL_IN);
  for (int i = 0; i < MANY; i += 3) // of both kinds
    io->v->cancel(io, &many.op[i]);
  io->v->cancel(io, &many.op[0]); // again
  for (int i = 0; i < 5; i++)
    cr_assert(turn(&w, 5000000));
  takes_nothing = false;
  third_was_cancelled(&w);
}

Test(io, a_cancelled_receive_ends_so_whatever_the_ring_says) {
  for (instead_of_cancelled = -EAGAIN; instead_of_cancelled; instead_of_cancelled = instead_of_cancelled == -EAGAIN ? -ENOBUFS : 0) {
    struct world w;
    open_world(&w, "io_uring", &(struct io_options){0});
    connect_pair(&w);
    cr_assert(turn(&w, 1000000));
    w.io->v->cancel(w.io, &w.recv);
    RUN_UNTIL(&w, w.cancelled || w.ended);
    cr_assert_not(w.ended);
    cr_assert_not(io_armed(&w.recv));
    w.io->v->recv(w.io, &w.recv, w.conn);
    cr_assert_eq(write(w.peer, "x", 1), 1);
    RUN_UNTIL(&w, w.bytes == 1);
    close_world(&w);
  }
}

// Who still hears something of what was cancelled need not ask again.
Test(io, a_cancellation_that_finds_nothing_is_repeated) {
  struct world w;
  open_world(&w, "io_uring", &(struct io_options){0});
  connect_pair(&w);
  cr_assert(turn(&w, 1000000));
  cancels_nothing = true;
  w.io->v->cancel(w.io, &w.recv);
  cr_assert(turn(&w, 1000000));
  cancels_nothing = false;
  cr_assert_not(w.cancelled);
  cr_assert_eq(write(w.peer, "x", 1), 1);
  RUN_UNTIL(&w, w.cancelled);
  cr_expect_eq(w.bytes, 1);
  cr_assert_not(io_armed(&w.recv));
  close_world(&w);
}

// epoll's table has a place for each descriptor that could be when it was made: a limit that is raised later gives others.
Test(io, a_descriptor_beyond_the_table_is_told_at_once) {
  struct rlimit was, few;
  struct world w;
  int most = dup(0) + 16;
  close(most - 16);
  cr_assert_eq(getrlimit(RLIMIT_NOFILE, &was), 0);
  few = (struct rlimit){(rlim_t)most, was.rlim_max};
  cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
  open_world(&w, "epoll", &(struct io_options){0});
  connect_pair(&w);
  cr_assert_eq(setrlimit(RLIMIT_NOFILE, &was), 0);
  for (int fd = most - 1; fd <= most; fd++) {
    w.num_polls = 0;
    cr_assert_eq(dup2(w.conn, fd), fd);
    w.io->v->poll(w.io, &w.poll, fd, IO_POLL_OUT);
    RUN_UNTIL(&w, w.num_polls);
    cr_expect_eq(w.poll_res, fd < most ? 1 : -ECANCELED);
    cr_expect_not(io_armed(&w.poll));
    w.io->v->close(w.io, fd);
  }
  close_world(&w);
}

Test(io, poll_tells_when_a_full_socket_takes_more) {
  EACH_BACKEND(b) {
    struct world w;
    open_world(&w, backends[b], &(struct io_options){0});
    connect_pair(&w);
    static uint8_t block[65536];
    ssize_t r;
    size_t sent = 0, got = 0;
    while ((r = w.io->v->send(w.io, w.conn, block, sizeof block, false)) > 0)
      sent += (size_t)r;
    cr_assert_eq(r, -EAGAIN);
    w.io->v->poll(w.io, &w.poll, w.conn, IO_POLL_OUT);
    for (int i = 0; i < 5; i++)
      turn(&w, 1000000);
    cr_assert_eq(w.num_polls, 0);
    while (got < sent) {
      r = read(w.peer, block, sizeof block);
      cr_assert_gt(r, 0);
      got += (size_t)r;
    }
    RUN_UNTIL(&w, w.num_polls == 1);
    cr_assert_gt(w.poll_res, 0);
    cr_assert_gt(w.io->v->send(w.io, w.conn, block, sizeof block, false), 0);
    // A poll that is cancelled completes too.
    while (w.io->v->send(w.io, w.conn, block, sizeof block, false) > 0)
      ;
    w.io->v->poll(w.io, &w.poll, w.conn, IO_POLL_OUT);
    w.io->v->cancel(w.io, &w.poll);
    RUN_UNTIL(&w, w.num_polls == 2);
    close_world(&w);
  }
}

// What is missing is named, not memory.
Test(io, without_descriptors_it_says_so) {
  EACH_BACKEND(b) {
    char why[200] = "";
    struct rlimit was, none;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &was), 0);
    int next = dup(0);
    close(next);
    none = (struct rlimit){(rlim_t)next, was.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct io *io = io_new(backends[b], &(struct io_options){0}, why, sizeof why);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &was), 0);
    cr_expect_null(io);
    cr_expect(strstr(why, "cannot be used here: Too many open files"), "%s: %s", backends[b], why);
  }
}

static void *wake_later(void *arg) {
  struct world *w = arg;
  usleep(50000);
  w->io->v->wake(w->io);
  return NULL;
}

Test(io, wake_returns_from_a_run_without_end, .timeout = 10) {
  EACH_BACKEND(b) {
    struct world w;
    open_world(&w, backends[b], &(struct io_options){0});
    connect_pair(&w);
    for (int i = 0; i < 3; i++) {
      pthread_t t;
      uint64_t before = w.io->v->now_ns(w.io), waited = 0;
      pthread_create(&t, NULL, wake_later, &w);
      while (waited < 40000000) { // what is under way from connecting may return first
        cr_assert(turn(&w, -1));
        waited = w.io->v->now_ns(w.io) - before;
      }
      pthread_join(t, NULL);
    }
    close_world(&w);
  }
}

Test(io, what_is_held_back_leaves_when_it_is_pushed) {
  EACH_BACKEND(b) {
    struct world w;
    char in[16];
    open_world(&w, backends[b], &(struct io_options){0});
    connect_pair(&w);
    for (int i = 0; i < 3; i++) {
      cr_assert_eq(w.io->v->send(w.io, w.conn, "abc", 3, true), 3);
      cr_assert_eq(w.io->v->send(w.io, w.conn, "de", 2, true), 2);
      cr_assert_eq(recv(w.peer, in, sizeof in, MSG_DONTWAIT), -1, "%s: it lies in the socket", backends[b]);
      if (i == 1)
        cr_assert_eq(w.io->v->send(w.io, w.conn, "f", 1, false), 1);
      else
        w.io->v->push(w.io, w.conn);
      cr_assert_eq(poll(&(struct pollfd){.fd = w.peer, .events = POLLIN}, 1, 150), 1, "%s: not pushed", backends[b]); // by itself: 200 ms
      cr_assert_eq(recv(w.peer, in, sizeof in, MSG_DONTWAIT), i == 1 ? 6 : 5, "%s: %s", backends[b], strerror(errno));
      cr_assert_eq(memcmp(in, "abcdef", i == 1 ? 6 : 5), 0);
    }
    w.io->v->push(w.io, w.conn); // nothing is
    cr_assert_eq(recv(w.peer, in, sizeof in, MSG_DONTWAIT), -1);
    close_world(&w);
  }
}

Test(io, sendfile_does_not_wait_either) {
  EACH_BACKEND(b) {
    struct world w;
    open_world(&w, backends[b], &(struct io_options){0});
    connect_pair(&w);
    FILE *f = tmpfile();
    static uint8_t block[1 << 20];
    fwrite(block, 1, sizeof block, f);
    fflush(f);
    ssize_t r;
    int calls = 0;
    while ((r = w.io->v->sendfile(w.io, w.conn, fileno(f), 1, sizeof block - 1)) > 0)
      cr_assert_lt(calls++, 1000);
    cr_assert_eq(r, -EAGAIN);
    cr_assert_eq(write(w.peer, "x", 1), 1); // receiving still works beside it
    RUN_UNTIL(&w, w.bytes == 1);
    fclose(f);
    close_world(&w);
  }
}
