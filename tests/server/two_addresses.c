// A resolver that knows two addresses of two.test, 127.0.0.2 and 127.0.0.1, and takes a moment to say so; of many.test 127.0.0.1, thirty
// times. To be loaded in front of the C library.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **out) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
  int num = !name ? 0 : !strcmp(name, "two.test") ? 2 : !strcmp(name, "many.test") ? 30 : 0, e = 0;
  if (!num)
    return real(name, port, hints, out);
  if (num == 2)
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL); // whoever asks meanwhile waits for the same answer
  for (int i = 0; i < num && !e; i++) {
    e = real(num == 2 && i == 0 ? "127.0.0.2" : "127.0.0.1", port, hints, out);
    out = e ? out : &(*out)->ai_next;
  }
  return e;
}
