// Everything a worker asks of the outside world: sockets, the clock, randomness, being woken by another thread.
// One narrow table of functions with io_uring behind it, epoll as the second implementation, and room for a
// simulated world as a third. One `struct io` belongs to one thread; only `wake` may be called from others.
//
// An operation is a struct embedded in its owner; its address identifies it. It is *armed* from the call that
// starts it until its last completion, and must stay in place that long. Completions run from `run` only,
// never from inside a call that starts something, so an owner's state is never changed under its feet.
#pragma once
#include "base/bytes.h"
#include "base/err.h"
#include <sys/socket.h>
#include <sys/types.h>

struct io;
struct io_op;

// What a completion tells. `res` is a count, a descriptor or -errno.
struct io_event {
  int32_t res;
  bool more;         // the operation stays armed (accept and recv repeat until cancelled or failed)
  struct bytes data; // recv: the bytes, in a buffer of the backend, valid until io_recv_done(io, buf)
  uint16_t buf;      // recv with res > 0: which buffer; the owner gives every one back
};

typedef void io_done(struct io *io, struct io_op *op, const struct io_event *ev);

struct io_op {
  io_done *done;
  // private to the backend
  struct io_op *next;
  int32_t fd;
  uint8_t kind, armed, queued, events, cancelling;
};

// A listening socket's properties; what accepted sockets inherit is set here once.
struct io_listen {
  const struct sockaddr *addr;
  socklen_t addr_len;
  int backlog;
  const char *congestion; // TCP_CONGESTION name, NULL: the system's
  int recv_buffer;        // SO_RCVBUF: what a client may send ahead of being read; 0: the system's
  int unsent;             // TCP_NOTSENT_LOWAT: bytes not yet sent at which a socket takes no more; 0: the system's
  bool reuseport;
  bool v6_only;           // [::] leaves version 4 to another socket
};

enum { IO_POLL_OUT = 1, IO_POLL_IN = 2 };

struct io_ops {
  const char *name; // "io_uring", "epoll"
  // Sockets. listen returns a descriptor or -errno; it may be called from the starting thread, before the first wait.
  int (*listen)(struct io *io, const struct io_listen *l);
  void (*accept)(struct io *io, struct io_op *op, int fd); // repeats; res = a non-blocking descriptor
  void (*recv)(struct io *io, struct io_op *op, int fd);   // repeats; res 0 at the peer's end, then disarmed
  void (*recv_done)(struct io *io, uint16_t buf);
  // send and sendfile do not wait: bytes taken or -errno (-EAGAIN: use poll, then again). `more`: further bytes follow, at once, or
  // push. What does not fill a packet lies in the socket until then, for a retransmission's time, 0.2 s at least, if nothing else is
  // under way. push is for TCP without TLS in the kernel.
  ssize_t (*send)(struct io *io, int fd, const void *p, size_t n, bool more);
  ssize_t (*sendfile)(struct io *io, int fd, int in_fd, uint64_t off, size_t n);
  void (*push)(struct io *io, int fd);
  void (*poll)(struct io *io, struct io_op *op, int fd, unsigned events); // once
  int (*shutdown)(struct io *io, int fd, int how);
  void (*close)(struct io *io, int fd); // no operation of the descriptor may be armed
  // cancel makes an armed operation complete for the last time soon: -ECANCELED unless it ended otherwise first.
  void (*cancel)(struct io *io, struct io_op *op);
  // wait hands over what was started and sleeps until something completes, the timeout passed (0: no sleep, negative:
  // no end) or wake was called; run then runs the completions. Both return false, with errno, when the backend failed for good.
  bool (*wait)(struct io *io, int64_t timeout_ns);
  bool (*run)(struct io *io);
  void (*wake)(struct io *io); // any thread, any time; several calls may give one return of wait
  uint64_t (*now_ns)(struct io *io);  // monotonic
  uint64_t (*wall_ns)(struct io *io); // since 1970 UTC
  void (*random)(struct io *io, void *p, size_t n);
  void (*free)(struct io *io);
};

struct io {
  const struct io_ops *v;
};

struct io_options {
  uint32_t entries;      // started operations that are handed to the kernel at once; 0: 1024
  uint32_t recv_buffers; // power of two; 0: 64
  uint32_t recv_size;    // bytes of each; 0: 4096
  uint32_t linger_ns;    // io_uring: how long wait looks for something to come before it sleeps; 0: not at all
};

// io_uring_new, io_epoll_new build a world; NULL when it cannot be had, with one sentence in `why`.
// io_uring's belongs to the thread that first calls wait.
struct io *io_uring_new(const struct io_options *o, char *why, size_t why_cap);
struct io *io_epoll_new(const struct io_options *o, char *why, size_t why_cap);

// io_new picks by name ("io_uring", "epoll", or "auto": io_uring where it is allowed, else epoll).
struct io *io_new(const char *name, const struct io_options *o, char *why, size_t why_cap);

static inline void io_free(struct io *io) {
  if (io)
    io->v->free(io);
}

static inline bool io_armed(const struct io_op *op) { return op->armed; }
