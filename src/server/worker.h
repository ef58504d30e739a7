// Workers: one thread per core, each with its own world (net/io.h), listening socket, buffers, timers and
// connections. They share the site and nothing else.
#pragma once
#include "base/writer.h"
#include "net/io.h"
#include <netinet/in.h>

struct site;
struct workers;
struct obs_worker;

struct worker_options {
  unsigned num_workers;       // 0: one per online CPU
  const char *io;             // "auto", "io_uring", "epoll"
  struct sockaddr_storage listen; // address and port; port 0: any, see workers_port
  const char *congestion;     // NULL: the system's
  int backlog;                // 0: 4096
  bool pin;                   // each worker to one CPU
  uint32_t max_connections;   // per worker; 0: 16384
  uint32_t out_buffers;       // per worker; 0: 64
  uint32_t out_size;          // bytes of each, head included; 0: 256 KiB
  uint32_t keepalive_ms, header_ms, stall_ms, drain_ms; // 0: 75 s, 15 s, 30 s, 30 s
  uint32_t keepalive_requests; // 0: unlimited
  bool has_admin;
  struct sockaddr_storage admin;
  struct admin_handler *admin_handler;
  struct obs_worker **metrics; // num_workers of them, or NULL
  const char *server_name;     // Server header, NULL: none
};

// Admin requests run on worker 0's thread. `handle` writes the body and returns the status.
struct admin_handler {
  void *ctx;
  unsigned (*handle)(void *ctx, struct bytes method, struct bytes path, struct bytes query, struct bytes body,
                     struct writer *out, const char **content_type);
};

// workers_start listens and starts the threads. NULL on failure, with one sentence in `why`.
struct workers *workers_start(const struct worker_options *o, struct site *site, char *why, size_t why_cap);
uint16_t workers_port(const struct workers *ws);       // what was bound
uint16_t workers_admin_port(const struct workers *ws);
unsigned workers_count(const struct workers *ws);
bool workers_ready(const struct workers *ws);          // all accept, none drains
// workers_drain stops accepting, lets running responses end within drain_ms; workers_join waits for that and frees.
void workers_drain(struct workers *ws);
void workers_join(struct workers *ws);
