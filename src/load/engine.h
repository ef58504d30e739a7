// The generator's threads: each owns a world (net/io.h), its share of the sessions and one struct load_stats.
#pragma once
#include "load/playlist.h"
#include "load/scenario.h"
#include "load/stats.h"
#include <netinet/in.h>

struct verifier;
struct verify_init;
struct tls_set;

// A track that is asked for without listeners.
struct load_track {
  const char *asset;
  struct media_list list;
  const struct verify_init *init; // NULL: nothing is compared
};

// One resource, or a part of it.
struct load_path {
  const char *path;
  struct byte_range range;
  const struct load_track *of; // NULL: not known, nothing is compared
  uint32_t segment;            // of its list
};

struct load_run {
  const struct scenario *sc;
  const struct popularity *pop;
  struct sockaddr_storage addr;
  socklen_t addr_len;
  char host[300];                 // Host header
  char origin[PLAYLIST_MAX_ORIGIN]; // "http://HOST:PORT", as the target was given
  struct tls_set *tls;            // NULL: plain
  char tls_host[256];             // whom the certificate is to name
  const char *io;                 // "auto", "io_uring", "epoll"
  unsigned thread, num_threads;   // this one, of all threads of all processes
  uint64_t start_ns;              // CLOCK_MONOTONIC when second 0 is
  struct verifier *verifier;      // NULL: nothing is verified
  const struct load_path *paths;  // LOAD_RATE, LOAD_SATURATE, LOAD_IDLE: what is asked for
  uint32_t num_paths;
  int log_fd;                     // request log, -1: none
  _Atomic bool *stop;             // set from outside: end now
  struct load_stats *stats;
};

// engine_run runs until the scenario has ended. Errors: ERR_NO_MEMORY, ERR_IO with a diag.
MUST_USE enum err engine_run(const struct load_run *run, struct diag *diag);

// engine_paths reads the manifests of every asset and lists its segments, for the modes without listeners, with what they are compared
// with; where `*paths` has some already, these are kept. `why` says what failed, or cannot be compared, with the path and line.
MUST_USE enum err engine_paths(const struct load_run *run, struct alloc *mem, struct load_path **paths, uint32_t *num_paths,
                               char *why, size_t cap);
