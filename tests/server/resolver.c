// A resolver that knows names that end in .test as 127.0.0.1, stands still as long as the file RESOLVER_HANGS is there, and fails while
// RESOLVER_FAILS is; two.test it knows once, as 127.0.0.2 and 127.0.0.1, and fails then. And a clock that is a minute ahead once
// MINUTE_LATER is there. To be loaded in front of the C library.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static int is_there(const char *name) {
  const char *file = getenv(name);
  struct stat st;
  return file && !stat(file, &st);
}

int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **out) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
  const char *end = name ? strrchr(name, '.') : NULL;
  if (!end || strcmp(end, ".test") || (hints && hints->ai_flags & AI_NUMERICHOST))
    return real(name, port, hints, out);
  while (is_there("RESOLVER_HANGS"))
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
  static atomic_bool asked;
  bool two = !strcmp(name, "two.test");
  if (is_there("RESOLVER_FAILS") || (two && atomic_exchange(&asked, true)))
    return EAI_AGAIN;
  int e = two ? real("127.0.0.2", port, hints, out) : 0;
  return e ? e : real("127.0.0.1", port, hints, two ? &(*out)->ai_next : out);
}

int clock_gettime(clockid_t clock, struct timespec *t) {
  int (*real)(clockid_t, struct timespec *);
  *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
  int r = real(clock, t);
  if (!r && clock == CLOCK_MONOTONIC && is_there("MINUTE_LATER"))
    t->tv_sec += 61;
  return r;
}
