#include "net/socket.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static int set_int(int fd, int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); }

static int configure(int fd, const struct io_listen *l) {
  if (set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1) || (l->reuseport && set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1)))
    return -errno;
  if (l->recv_buffer && set_int(fd, SOL_SOCKET, SO_RCVBUF, l->recv_buffer))
    return -errno;
  if (l->addr->sa_family == AF_UNIX)
    return 0;
  if (set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1))
    return -errno;
  if (l->unsent && set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, l->unsent))
    return -errno;
  if (l->congestion && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, l->congestion, (socklen_t)strlen(l->congestion)))
    return -errno;
  return 0;
}

int socket_listen(const struct io_listen *l) {
  int fd = socket(l->addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return -errno;
  int e = configure(fd, l);
  if (!e && (bind(fd, l->addr, l->addr_len) || listen(fd, l->backlog)))
    e = -errno;
  if (e) {
    close(fd);
    return e;
  }
  return fd;
}

ssize_t socket_send(int fd, const void *p, size_t n, bool more) {
  ssize_t r = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
  return r < 0 ? -errno : r;
}

uint64_t clock_ns(int clock_id) {
  struct timespec ts;
  clock_gettime(clock_id, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void random_fill(void *p, size_t n) {
  uint8_t *at = p;
  while (n) {
    ssize_t r = getrandom(at, n, 0);
    if (r < 0 && errno != EINTR)
      abort(); // no kernel that sluice runs on lacks it
    if (r > 0) {
      at += r;
      n -= (size_t)r;
    }
  }
}
