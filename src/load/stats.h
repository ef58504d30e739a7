// What a run measured. One per thread, in memory that processes share, merged by addition.
#pragma once
#include "load/hist.h"
#include <stdatomic.h>

enum { LOAD_MAX_SECONDS = 7200, LOAD_HEAT_ROWS = 48, LOAD_MAX_WINDOWS = 36000 };
#define LOAD_WINDOW_S 0.1
// heat rows: latency in half powers of two from 1 us

enum load_error {
  LOAD_ERR_CONNECT, // no response at all
  LOAD_ERR_CUT,     // response shorter than announced, or than a head
  LOAD_ERR_4XX,
  LOAD_ERR_5XX,
  LOAD_ERR_PARSE, // playlist
  LOAD_ERR_TIMEOUT, // no whole answer in time
  LOAD_ERR_STATUS,  // another status than was to come: a redirection, 200 for a range
  LOAD_ERR_PROTOCOL, // what came is not HTTP/1.1: a head or a chunk that cannot be read
  LOAD_ERR_LARGE, // more than can be kept, of a manifest or of what is compared: above BODY_MAX, or no memory
  LOAD_ERR_COUNT,
  LOAD_ERR_NONE = LOAD_ERR_COUNT
};

struct load_second {
  uint32_t requests, errors, misses, active;
  uint32_t heat[LOAD_HEAT_ROWS]; // responses by latency
};

// Requests by when they were due, and how many of them failed or took longer than level.latency_p99_ms.
struct load_window {
  uint32_t requests, late;
};

struct load_stats {
  struct hist latency; // from the intended send time to the last byte
  struct hist service; // from the actual send time
  struct hist lag;     // the generator's own: actual minus intended where nothing but the generator was in the way
  struct hist startup; // listeners: from the press of play to sound
  _Atomic uint64_t requests, bytes, errors, active, misses; // also read by the live view
  uint64_t by_error[LOAD_ERR_COUNT];
  uint64_t sessions, sessions_lost, sessions_unheard, segments; // unheard: ended before any sound
  uint64_t aborted, not_modified, ranges, heads, polls;
  uint64_t resent;     // a connection at rest had ended when it was used again
  uint64_t unanswered; // requests still open when the run ended
  uint64_t connects, tls_failures, storms; // storms: connections that a reconnect storm broke
  uint64_t ended_at_rest; // connections without a request that the other side ended
  uint64_t unasked_bytes; // that came behind a response's end
  uint64_t unopened;      // connections that this machine could not begin (unopened_errno: why)
  uint64_t verified, wrong; // segments compared; segments that differed. Mode capacity: in all probes
  uint64_t decrypted;       // of the compared ones; the others had the bytes of one of these (by process, in its first thread)
  uint64_t queued;          // mode rate: requests that were due while all connections were taken
  double rebuffer_s, played_s, cpu_s, cpu_wait_s, elapsed_s; // cpu_wait_s: threads could run and had no core
  uint64_t peak_active; // of one thread; a sum over threads that peak apart is an upper bound
  uint64_t base_bytes;  // resident memory of the process before the first arrival
  uint64_t grown_bytes; // and what it gained until its peak (in its first thread only)
  uint64_t redirects;       // followed; each is part of the request that it answered
  char first_refused[512]; // the first answer that could not be used, and why: a manifest, a redirection, a status, what is not HTTP
  char first_wrong[512]; // URL, offset, sample of the first wrong byte
  int unopened_errno;
  bool interrupted; // the run was ended before it was over
  uint32_t num_seconds;
  struct load_second second[LOAD_MAX_SECONDS];
  struct load_window window[LOAD_MAX_WINDOWS];
};

// stats_add adds `from` into `into`; text is kept from whoever had it first.
void stats_add(struct load_stats *into, const struct load_stats *from);

// stats_heat_row maps a latency to its row; stats_heat_us gives a row's lower edge.
uint32_t stats_heat_row(uint64_t us);
double stats_heat_us(uint32_t row);

struct scenario;

// The verdict over the service levels: one line per level in `out`, "ok" or "MISSED" first. Returns false when one is missed.
bool stats_verdict(const struct load_stats *s, const struct scenario *sc, struct writer *out);

// stats_compared is the part of it that is of the comparison: nothing was wrong, and something was compared where that was asked for.
bool stats_compared(const struct load_stats *s, const struct scenario *sc, struct writer *out);

// stats_crowded writes a line where requests of mode rate waited for a free connection while all of these threads had hardly a moment
// without work: nothing tells then whether the server or the generator was at its limit.
void stats_crowded(const struct load_stats *s, const struct scenario *sc, unsigned threads, struct writer *out);

// stats_valid says whether the generator itself was in time; when not, the numbers are not to be used.
bool stats_valid(const struct load_stats *s, const struct scenario *sc, struct writer *why);
