// io_uring behind net/io.h. What was measured (docs/internals/hot-path.md): SINGLE_ISSUER, DEFER_TASKRUN and
// COOP_TASKRUN with a registered ring descriptor; multishot accept and receive over one ring of provided buffers;
// sends go to the socket directly, because a response that fits needs no completion at all.
#include "net/socket.h"
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { OP_ACCEPT = 1, OP_RECV, OP_POLL, OP_WAKE };
enum { BUFFER_GROUP = 1 };
enum { STARVED = 1, PUT_OFF_START, PUT_OFF_CANCEL, CANCELLED }; // op->queued: which list it is in

struct uring {
  struct io io;
  struct io_uring ring;
  struct io_uring_buf_ring *bufs;
  size_t bufs_len;
  uint8_t *recv_mem;
  uint32_t recv_buffers, recv_size;
  uint32_t linger_ns;
  uint32_t recv_free;                     // buffers that the kernel has
  struct io_op *starved, **starved_tail;  // receives that found no buffer, in order
  struct io_op *put_off, **put_off_tail;  // what the kernel did not take, in order
  struct io_op *cancelled;                // of both, what was cancelled: to complete in the next run
  struct io_op wake_op;
  uint64_t wake_value;
  int wake_fd;
  bool enabled, have_ring;
};

static struct uring *self(struct io *io) { return (struct uring *)(void *)io; }

// NULL: the queue is full and the kernel takes nothing of it now, for want of memory or because completions have to be taken first.
static struct io_uring_sqe *get_sqe(struct uring *u) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
  if (!sqe && io_uring_submit(&u->ring) >= 0)
    sqe = io_uring_get_sqe(&u->ring);
  return sqe;
}

// What could not be handed over is handed over before the next wait: an operation to start, or the cancellation of one under way.
static void put_off(struct uring *u, struct io_op *op, uint8_t what) {
  op->queued = what;
  op->next = NULL;
  *u->put_off_tail = op;
  u->put_off_tail = &op->next;
}

static void start(struct uring *u, struct io_op *op) {
  struct io_uring_sqe *sqe = get_sqe(u);
  if (!sqe) {
    put_off(u, op, PUT_OFF_START);
    return;
  }
  switch (op->kind) {
  case OP_ACCEPT:
    // non-blocking for sendfile, which has no flag of its own
    io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    break;
  case OP_RECV:
    io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    break;
  case OP_POLL:
    io_uring_prep_poll_add(sqe, op->fd, (op->events & IO_POLL_OUT ? POLLOUT : 0u) | (op->events & IO_POLL_IN ? POLLIN : 0u));
    break;
  default:
    io_uring_prep_read(sqe, u->wake_fd, &u->wake_value, sizeof u->wake_value, 0);
  }
  io_uring_sqe_set_data(sqe, op);
}

static void arm(struct io *io, struct io_op *op, int fd, uint8_t kind) {
  op->fd = fd;
  op->kind = kind;
  op->armed = 1;
  op->queued = op->cancelling = 0;
  op->next = NULL;
  start(self(io), op);
}

static int ur_listen(struct io *io, const struct io_listen *l) {
  int fd = socket_listen(io, l);
  if (fd >= 0) // the ring waits by itself; a non-blocking descriptor would make it answer -EAGAIN
    (void)fcntl(fd, F_SETFL, 0);
  return fd;
}

static void ur_accept(struct io *io, struct io_op *op, int fd) { arm(io, op, fd, OP_ACCEPT); }
static void ur_recv(struct io *io, struct io_op *op, int fd) { arm(io, op, fd, OP_RECV); }

static void ur_poll(struct io *io, struct io_op *op, int fd, unsigned events) {
  op->events = (uint8_t)events;
  arm(io, op, fd, OP_POLL);
}

static void give_buffer(struct uring *u, uint16_t buf) {
  io_uring_buf_ring_add(u->bufs, u->recv_mem + (size_t)buf * u->recv_size, u->recv_size, buf,
                        io_uring_buf_ring_mask(u->recv_buffers), 0);
  io_uring_buf_ring_advance(u->bufs, 1);
  u->recv_free++;
}

static void ur_recv_done(struct io *io, uint16_t buf) { give_buffer(self(io), buf); }

static void ur_close(struct io *io, int fd) {
  (void)io;
  close(fd);
}

static void starve(struct uring *u, struct io_op *op) {
  op->queued = STARVED;
  op->next = NULL;
  *u->starved_tail = op;
  u->starved_tail = &op->next;
}

static void unlink_op(struct io_op **at, struct io_op ***tail, struct io_op *op) {
  while (*at != op)
    at = &(*at)->next;
  *at = op->next;
  if (!op->next)
    *tail = at;
  op->next = NULL;
  op->queued = 0;
}

static void complete_soon(struct uring *u, struct io_op *op) {
  op->queued = CANCELLED;
  op->next = u->cancelled;
  u->cancelled = op;
}

static void cancel_in_kernel(struct uring *u, struct io_op *op) {
  if (op->queued) // put off: `cancelling` is seen there
    return;
  struct io_uring_sqe *sqe = get_sqe(u);
  if (!sqe) {
    put_off(u, op, PUT_OFF_CANCEL);
    return;
  }
  io_uring_prep_cancel(sqe, op, 0);
  io_uring_sqe_set_data(sqe, NULL);
}

static void ur_cancel(struct io *io, struct io_op *op) {
  struct uring *u = self(io);
  if (!op->armed)
    return;
  if (op->queued == STARVED || op->queued == PUT_OFF_START) {
    if (op->queued == STARVED)
      unlink_op(&u->starved, &u->starved_tail, op);
    else
      unlink_op(&u->put_off, &u->put_off_tail, op);
    complete_soon(u, op);
    return;
  }
  if (op->queued) // cancelled already
    return;
  op->cancelling = 1;
  cancel_in_kernel(u, op);
}

// on_cqe turns a completion into an event. An operation that stopped for the ring's own reasons is started again and
// its owner sees `more`.
static void on_cqe(struct uring *u, struct io_op *op, int32_t res, uint32_t flags) {
  struct io_event ev = {.res = res, .more = (flags & IORING_CQE_F_MORE) != 0};
  if (op->kind == OP_WAKE) {
    start(u, op);
    return;
  }
  if (op->queued == PUT_OFF_CANCEL && !ev.more)
    unlink_op(&u->put_off, &u->put_off_tail, op);
  if (flags & IORING_CQE_F_BUFFER) {
    ev.buf = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
    u->recv_free--;
    if (res > 0)
      ev.data = bytes_of(u->recv_mem + (size_t)ev.buf * u->recv_size, (size_t)res);
    else
      give_buffer(u, ev.buf);
  }
  // A receive on a non-blocking socket may end with -EAGAIN where it lost a race; it waits for readiness when started again.
  if (!ev.more && op->kind == OP_RECV && (res == -ENOBUFS || res == -EAGAIN)) {
    if (!op->cancelling) {
      (res == -ENOBUFS ? starve : start)(u, op);
      return;
    }
    ev.res = -ECANCELED; // the cancellation finds nothing any more: this is the end
  }
  if (!ev.more && ((op->kind == OP_RECV && res > 0) || (op->kind == OP_ACCEPT && res >= 0))) {
    start(u, op);
    ev.more = true;
  }
  if (ev.more && op->cancelling) // the cancellation found nothing, or was for the run that has just ended
    cancel_in_kernel(u, op);
  op->armed = ev.more;
  op->done(&u->io, op, &ev);
}

static void complete_cancelled(struct uring *u) {
  struct io_op *op = u->cancelled;
  u->cancelled = NULL;
  while (op) {
    struct io_op *next = op->next;
    op->armed = op->queued = 0;
    op->next = NULL;
    op->done(&u->io, op, &(struct io_event){.res = -ECANCELED});
    op = next;
  }
}

// As many as there are buffers: more would only fail again, millions of times a second.
static void feed_starved(struct uring *u) {
  for (uint32_t n = u->recv_free; n && u->starved; n--) {
    struct io_op *op = u->starved;
    u->starved = op->next;
    if (!u->starved)
      u->starved_tail = &u->starved;
    op->queued = 0;
    op->next = NULL;
    start(u, op);
  }
}

static void hand_over_put_off(struct uring *u) {
  struct io_op *op = u->put_off;
  u->put_off = NULL;
  u->put_off_tail = &u->put_off;
  while (op) {
    struct io_op *next = op->next;
    bool cancel = op->queued == PUT_OFF_CANCEL;
    op->next = NULL;
    op->queued = 0;
    if (cancel)
      cancel_in_kernel(u, op);
    else if (op->cancelling)
      complete_soon(u, op);
    else
      start(u, op);
    op = next;
  }
}

static bool enable(struct uring *u) {
  // liburing 2.3 declares io_uring_enable_rings but does not export it.
  int r = io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
  if (r < 0) {
    errno = -r;
    return false;
  }
  (void)io_uring_register_ring_fd(&u->ring); // a little faster where it works
  u->enabled = true;
  // Operations started before belong to this thread from now on.
  u->wake_op = (struct io_op){.kind = OP_WAKE, .armed = 1};
  start(u, &u->wake_op);
  return true;
}

// linger hands over what was started and looks for completions without a call, for as long as they are worth not sleeping for.
static void linger(struct uring *u, int64_t timeout_ns) {
  if (io_uring_submit(&u->ring) < 0)
    return; // the wait that follows says why
  uint64_t most = timeout_ns >= 0 && timeout_ns < u->linger_ns ? (uint64_t)timeout_ns : u->linger_ns;
  uint64_t until = clock_now(&u->io) + most;
  while (!io_uring_cq_ready(&u->ring) && !(IO_URING_READ_ONCE(*u->ring.sq.kflags) & IORING_SQ_TASKRUN) && clock_now(&u->io) < until)
    continue;
}

static bool ur_wait(struct io *io, int64_t timeout_ns) {
  struct uring *u = self(io);
  if (!u->enabled && !enable(u))
    return false;
  hand_over_put_off(u);
  if (u->cancelled)
    timeout_ns = 0;
  if (u->put_off && (timeout_ns < 0 || timeout_ns > IO_RETRY_NS))
    timeout_ns = IO_RETRY_NS;
  if (u->linger_ns && timeout_ns)
    linger(u, timeout_ns);
  struct io_uring_cqe *cqe = NULL;
  struct __kernel_timespec ts = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
  int r = timeout_ns < 0 ? io_uring_submit_and_wait(&u->ring, 1)
                         : io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
  if (r == -EAGAIN || r == -ENOMEM) // the kernel has no memory for what was started; it stays in the queue
    nanosleep(&(struct timespec){.tv_nsec = IO_RETRY_NS}, NULL);
  else if (r < 0 && r != -ETIME && r != -EINTR && r != -EBUSY) {
    errno = -r;
    return false;
  }
  return true;
}

static bool ur_run(struct io *io) {
  struct uring *u = self(io);
  struct io_uring_cqe *cqe = NULL;
  complete_cancelled(u);
  unsigned ready = io_uring_cq_ready(&u->ring);
  while (ready--) {
    if (io_uring_peek_cqe(&u->ring, &cqe) || !cqe)
      break;
    struct io_op *op = io_uring_cqe_get_data(cqe);
    int32_t res = cqe->res;
    uint32_t flags = cqe->flags;
    io_uring_cqe_seen(&u->ring, cqe);
    if (op)
      on_cqe(u, op, res, flags);
  }
  feed_starved(u);
  return true;
}

static void ur_wake(struct io *io) { socket_wake(self(io)->wake_fd); }

static void ur_free(struct io *io) {
  struct uring *u = self(io);
  if (u->have_ring)
    io_uring_queue_exit(&u->ring);
  if (u->bufs)
    munmap(u->bufs, u->bufs_len);
  if (u->wake_fd >= 0)
    close(u->wake_fd);
  free(u->recv_mem);
  free(u);
}

static const struct io_ops ops = {
    .name = "io_uring", .listen = ur_listen, .accept = ur_accept, .recv = ur_recv, .recv_done = ur_recv_done,
    .send = socket_send, .sendfile = socket_sendfile, .push = socket_push, .poll = ur_poll, .shutdown = socket_shutdown, .close = ur_close,
    .cancel = ur_cancel, .wait = ur_wait, .run = ur_run, .wake = ur_wake, .now_ns = clock_now, .wall_ns = clock_wall,
    .random = random_fill, .free = ur_free,
};

static int setup_ring(struct uring *u, uint32_t entries) {
  struct io_uring_params p = {
      .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
               IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
      .cq_entries = entries * 8,
  };
  if (u->linger_ns) // somebody looks at the flag: the kernel is to raise it
    p.flags |= IORING_SETUP_TASKRUN_FLAG;
  int r = io_uring_queue_init_params(entries, &u->ring, &p);
  if (r < 0)
    return r;
  u->have_ring = true;
  u->bufs_len = (u->recv_buffers * sizeof(struct io_uring_buf) + 4095) & ~(size_t)4095;
  void *m = mmap(NULL, u->bufs_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (m == MAP_FAILED)
    return -errno;
  u->bufs = m;
  struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)m, .ring_entries = u->recv_buffers, .bgid = BUFFER_GROUP};
  r = io_uring_register_buf_ring(&u->ring, &reg, 0);
  if (r < 0)
    return r;
  io_uring_buf_ring_init(u->bufs);
  for (uint32_t i = 0; i < u->recv_buffers; i++)
    give_buffer(u, (uint16_t)i);
  return 0;
}

struct io *io_uring_new(const struct io_options *o, char *why, size_t why_cap) {
  struct uring *u = calloc(1, sizeof *u);
  int r = -ENOMEM;
  if (!u)
    goto out;
  u->io.v = &ops;
  u->recv_buffers = o->recv_buffers ? o->recv_buffers : 64;
  u->recv_size = o->recv_size ? o->recv_size : 4096;
  u->linger_ns = o->linger_ns;
  u->starved_tail = &u->starved;
  u->put_off_tail = &u->put_off;
  u->recv_mem = aligned_alloc(4096, ((size_t)u->recv_buffers * u->recv_size + 4095) & ~(size_t)4095);
  u->wake_fd = eventfd(0, EFD_CLOEXEC);
  if (u->wake_fd < 0)
    r = -errno;
  if (u->wake_fd < 0 || !u->recv_mem)
    goto out;
  r = setup_ring(u, o->entries ? o->entries : 1024);
  if (r == 0)
    return &u->io;
out:
  snprintf(why, why_cap, "io_uring cannot be used here: %s", strerror(-r));
  if (u)
    ur_free(&u->io);
  return NULL;
}
