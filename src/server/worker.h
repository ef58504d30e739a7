// Workers: one thread per core, each with its own world (net/io.h), listening sockets, buffers, timers and
// connections. They share struct server, which is immutable or lock-free for them, and nothing else.
#pragma once
#include "server/server.h"
#include <signal.h>

// workers_listen binds and listens on every address for every worker in the caller's thread, so that an occupied port is
// one error before any thread runs, and takes all memory. Clients may connect from then on. workers_start starts the
// s->num_workers threads, once catalogue and access log are there. false: `e` says why; nothing is left.
bool workers_listen(struct server *s, struct config_error *e);
bool workers_start(struct server *s, struct config_error *e);

// workers_port gives the port bound for the n-th address of `listen`, then of `tls_listen` (they may ask for port 0).
uint16_t workers_port(const struct server *s, unsigned n);

// workers_io names what drives the sockets: "io_uring" or "epoll".
const char *workers_io(const struct server *s);

// workers_check says whether the certificates and keys of a configuration can be used.
bool workers_check(const struct config *c, struct config_error *e);

// workers_prepare reads the certificates of a configuration that is to come into force; false: `e` says why. workers_take has them
// served from now on, workers_forget gives them up. NULL: none are served.
struct next_certificates;
bool workers_prepare(struct server *s, const struct config *fresh, struct next_certificates **out, struct config_error *e);
void workers_take(struct server *s, struct next_certificates *next);
void workers_forget(struct next_certificates *next);

// workers_drain stops accepting, closes idle connections, lets running responses end (Connection: close), cuts what is left
// after timeout_ms, or at a SIGTERM or SIGINT where `signals` (blocked; NULL: none) are waited for; joins the threads. workers_end ends the
// helpers, which storage may hold up, and frees everything.
void workers_drain(struct server *s, uint64_t timeout_ms, const sigset_t *signals);
void workers_end(struct server *s);
