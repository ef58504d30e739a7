// A socket that takes the first nine bytes of "HTTP/1.1 100 Continue", as one whose buffer is nearly full does: to be loaded in front of the C
// library.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/socket.h>

ssize_t send(int fd, const void *p, size_t n, int flags) {
  ssize_t (*real)(int, const void *, size_t, int) = (ssize_t(*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
  return real(fd, p, n > 12 && !memcmp(p, "HTTP/1.1 100", 12) ? 9 : n, flags);
}
