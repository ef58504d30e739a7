// Names to addresses without blocking the thread that asks: a helper thread calls getaddrinfo.
#pragma once
#include "net/io.h"
#include <netinet/in.h>

enum { RESOLVE_MAX = 8 };

struct resolve_addr {
  socklen_t len;
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } u;
};

// One question, embedded in its owner; it stays in place until `done` was called.
struct resolve {
  const char *host; // a name or an address
  uint16_t port;
  void (*done)(struct resolve *q); // from resolver_run
  int error;                       // of getaddrinfo (gai_strerror), 0: num > 0 addresses
  unsigned num;
  struct resolve_addr addr[RESOLVE_MAX];
  struct resolve *next; // private
  char name[256];       // private
};

// resolve_numeric answers at once where `host` is an address, which nobody has to be asked for. False: it is a name.
bool resolve_numeric(struct resolve *q);

struct resolver;
// resolver_new starts a helper thread for the thread of `io`. NULL: no memory or threads.
struct resolver *resolver_new(struct io *io);
void resolver_ask(struct resolver *r, struct resolve *q);
// resolver_run gives what was answered to who asked. After each wait of io, which answers wake.
void resolver_run(struct resolver *r);
// resolver_free: before io's. Questions are forgotten; one that the system is still at is left to it.
void resolver_free(struct resolver *r);
