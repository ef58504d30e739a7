// Preloaded into wrk: bodies are taken from the socket and not read (MSG_TRUNC, tcp(7)), heads are. The server's memory then stays in its
// own core's caches, as with a network card, which reads memory without owning it. For plain HTTP/1.1 responses with a Content-Length,
// one at a time on a connection; whatever else is read as ever.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_FDS = 65536, HEAD = 640 }; // a whole head of either server, and little of the body

static long left[MOST_FDS]; // of the body, by descriptor

#define EXPORT __attribute__((visibility("default")))
EXPORT ssize_t read(int fd, void *to, size_t n);
EXPORT int close(int fd);

static long body_left(const char *head, size_t n) {
  static const char field[] = "\r\nContent-Length: ";
  const char *end = memmem(head, n, "\r\n\r\n", 4);
  const char *length = end ? memmem(head, (size_t)(end - head), field, sizeof field - 1) : NULL;
  if (!length || memcmp(head, "HTTP/1.1 ", 9) != 0)
    return 0;
  long whole = strtol(length + sizeof field - 1, NULL, 10), had = (long)n - (end + 4 - head);
  return whole > had ? whole - had : 0;
}

ssize_t read(int fd, void *to, size_t n) {
  if (fd < 0 || fd >= MOST_FDS)
    return syscall(SYS_read, fd, to, n);
  if (left[fd]) {
    ssize_t got = recv(fd, to, (size_t)left[fd] < n ? (size_t)left[fd] : n, MSG_TRUNC);
    left[fd] = got > 0 ? left[fd] - got : got < 0 && errno == EAGAIN ? left[fd] : 0;
    return got;
  }
  ssize_t got = recv(fd, to, n < HEAD ? n : HEAD, 0);
  if (got < 0 && errno == ENOTSOCK)
    return syscall(SYS_read, fd, to, n);
  if (got > 0)
    left[fd] = body_left(to, (size_t)got);
  return got;
}

int close(int fd) {
  if (fd >= 0 && fd < MOST_FDS)
    left[fd] = 0;
  return (int)syscall(SYS_close, fd);
}
