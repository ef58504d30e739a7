// A resolver that knows two addresses of two.test, 127.0.0.2 and 127.0.0.1, and takes a moment to say so: to be loaded in front of the C
// library.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **out) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
  if (!name || strcmp(name, "two.test") != 0)
    return real(name, port, hints, out);
  nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL); // whoever asks meanwhile waits for the same answer
  int e = real("127.0.0.2", port, hints, out);
  return e ? e : real("127.0.0.1", port, hints, &(*out)->ai_next);
}
