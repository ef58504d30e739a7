// A write that does not wait, where the kernel can do so for what is no file of a disk: pipes since Linux 6.5, sockets.
#pragma once
#include <errno.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

// write_nowait is write(2), on a descriptor that others may share and that is therefore not to be made non-blocking: EAGAIN where it
// would wait. Where that cannot be had it is write(2) itself: poll first.
static inline ssize_t write_nowait(int fd, const void *p, size_t n) {
  const struct iovec one = {(void *)(uintptr_t)p, n};
  ssize_t r = pwritev2(fd, &one, 1, -1, RWF_NOWAIT);
  return r < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL || errno == EPERM) ? write(fd, p, n) : r;
}
