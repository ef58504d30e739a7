// A kernel that has no memory to tell that something can be read: every poll for that fails. To be loaded in front of the C library.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>

int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned n, struct __kernel_timespec *ts, sigset_t *mask) {
  int (*real)(struct io_uring *, struct io_uring_cqe **, unsigned, struct __kernel_timespec *, sigset_t *);
  struct io_uring_cqe *c;
  unsigned head;
  *(void **)&real = dlsym(RTLD_NEXT, "io_uring_submit_and_wait_timeout");
  int r = real(ring, cqe, n, ts, mask);
  io_uring_for_each_cqe(ring, head, c) {
    if (c->res == POLLIN && io_uring_cqe_get_data(c)) // no count of bytes: nobody here sends a single one
      c->res = -ENOMEM;
  }
  return r;
}
