#include "net/socket.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <time.h>
#include <unistd.h>

static int set_int(int fd, int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); }

static int configure(int fd, const struct io_listen *l) {
  if (set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1) || (l->reuseport && set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1)))
    return -errno;
  if (l->recv_buffer && set_int(fd, SOL_SOCKET, SO_RCVBUF, l->recv_buffer))
    return -errno;
  if (l->v6_only && set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1))
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

int socket_listen(struct io *io, const struct io_listen *l) {
  (void)io;
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

ssize_t socket_send(struct io *io, int fd, const void *p, size_t n, bool more) {
  (void)io;
  ssize_t r = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
  return r < 0 ? -errno : r;
}

ssize_t socket_sendfile(struct io *io, int fd, int in_fd, uint64_t off, size_t n) {
  (void)io;
  off_t at = (off_t)off;
  ssize_t r = sendfile(fd, in_fd, &at, n);
  return r < 0 ? -errno : r;
}

// Setting the option anew has this effect. Source: Linux, net/ipv4/tcp.c, __tcp_sock_set_nodelay.
void socket_push(struct io *io, int fd) {
  (void)io;
  (void)set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1); // a Unix socket holds nothing back
}

int socket_shutdown(struct io *io, int fd, int how) {
  (void)io;
  return shutdown(fd, how) ? -errno : 0;
}

void socket_wake(int event_fd) {
  uint64_t one = 1;
  ssize_t r = write(event_fd, &one, sizeof one);
  (void)r; // full means that a wake is pending already
}

static uint64_t clock_ns(clockid_t id) {
  struct timespec ts;
  clock_gettime(id, &ts);
  return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clock_now(struct io *io) {
  (void)io;
  return clock_ns(CLOCK_MONOTONIC);
}

uint64_t clock_wall(struct io *io) {
  (void)io;
  return clock_ns(CLOCK_REALTIME);
}

void random_fill(struct io *io, void *p, size_t n) {
  (void)io;
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
