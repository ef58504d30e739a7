// The running server: what all threads share.
#pragma once
#include <pthread.h>

#include "cache/quiet.h"
#include "obs/access.h"
#include "net/steer.h"
#include "obs/metrics.h"
#include "server/catalog.h"
#include "server/options.h"
#include "simd/aes.h"

enum server_state { SERVER_STARTING, SERVER_READY, SERVER_DRAINING };

struct workers; // worker.c
struct admin;   // admin_http.c
struct schedules; // schedules.c
struct reloads;   // reloads.c

struct server {
  struct config *_Atomic config; // swapped by SIGHUP; good until the next quiet point
  const struct config *first;    // the one at start, never freed: for what cannot change
  const struct aes_ops *ops;
  struct catalog *catalog;
  struct access_log *access;     // NULL when off
  unsigned num_workers;          // decided: config workers, or the CPUs (cpus.h)
  bool cpus_limited;             // a quota allows less than the CPUs' time: others have the same CPUs
  struct obs_worker *metrics;    // num_workers sets, then metrics[num_workers] for helpers and admin (shared adds)
  _Atomic int state;             // enum server_state
  uint64_t started_ns;           // CLOCK_MONOTONIC
  const char *io;                // what drives the sockets: "io_uring" or "epoll"
  unsigned kept_fds;             // not for clients; workers_listen says how many
  struct steer_turns turns;      // for workers_listen; loaded before system calls are confined
  struct workers *workers;
  struct admin *admin;
  struct schedules *schedules;
  struct reloads *reloads;
  bool had_secret;               // keys have come from the secret in state_dir; of the reloads alone, once it is started
  struct {
    pthread_mutex_t lock;
    struct tls_set *set; // NULL: none
  } served;              // certificates.c
  struct quiet quiet;
};

static inline const struct config *server_config(const struct server *s) {
  return atomic_load_explicit(&s->config, memory_order_acquire);
}

// server_addresses says whether what is listened on are addresses, not names, which sluice rotate takes for `admin`. False:
// `error` says which is none.
bool server_addresses(const struct config *c, struct config_error *error);

// server_check says whether folders are there, the access log can be written and the congestion
// control be had, without making anything: what `--check` looks at beside keys and certificates. False: `error` says why.
bool server_check(const struct config *c, struct config_error *error);

// server_warn_machine says what does not fit what is here: a media folder with tracks in it itself, or nothing, so that every URL
// is a 404; caches that are larger than the memory.
void server_warn_machine(const struct config *c);

// server_warn_insecure says what a configuration hands out to anyone.
void server_warn_insecure(const struct config *c);

// server_hold_signals, before the configuration is loaded, has SIGHUP and SIGUSR1 wait for server_run: by their own action they
// would end the process. SIGTERM and SIGINT end it at once until it serves.
void server_hold_signals(void);

// server_run serves until SIGTERM or SIGINT and returns an exit status: 0 drained, 1 could not start. Takes over `config`,
// which was loaded with `file` and `flags`; these are read again on SIGHUP.
int server_run(struct config *config, const char *file, const struct config_flags *flags, const struct aes_ops *ops);
