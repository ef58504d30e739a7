// A scenario: what a run of the load generator does, read from a small YAML file. Everything random in it comes from
// `seed`, so that a run can be replayed. bench/scenarios/ holds the set that ships; docs/load.md explains the fields.
#pragma once
#include "load/arrivals.h"
#include "load/popularity.h"

enum { SCENARIO_MAX_PIECES = 64, SCENARIO_MAX_ASSETS = 4096, SCENARIO_MAX_NAME = 256 };

enum load_mode {
  LOAD_LISTENERS, // partly open: sessions arrive, requests inside a session depend on each other
  LOAD_RATE,      // open: single requests at a constant rate, for saturation curves
  LOAD_SATURATE,  // closed: every connection asks again at once, the highest throughput; latencies mean little
  LOAD_IDLE,      // connections that ask once and then stay
};

enum load_protocol { LOAD_HLS, LOAD_DASH, LOAD_MIX };

struct scenario {
  char name[64];
  uint64_t seed;
  enum load_mode mode;
  double seconds;           // of a LOAD_RATE, LOAD_SATURATE or LOAD_IDLE run; listeners: sum of pieces, then drain
  double drain_s;           // listeners: sessions still running after the shape get this long
  // arrivals
  struct rate_piece pieces[SCENARIO_MAX_PIECES];
  uint32_t num_pieces;
  double rate;              // LOAD_RATE: requests per second
  uint32_t connections;     // LOAD_RATE, LOAD_SATURATE, LOAD_IDLE
  uint32_t max_listeners;   // of one process, at once; arrivals beyond are counted as lost and fail the run
  // what is asked for
  struct {
    char (*names)[SCENARIO_MAX_NAME];
    uint32_t num;
    enum popularity_kind kind;
    double shape, release_share;
  } catalogue;
  char scheme[8];           // "cenc", "cbcs", "clear"
  enum load_protocol protocol;
  // listeners
  uint32_t ahead;           // segments fetched ahead of the playhead
  uint32_t tracks;          // played in a session, at most
  double skip_scale;        // 1: the measured skip shape; 0: nobody skips
  double seek, pause, switch_rendition; // probability per segment
  double pause_s;           // mean
  uint32_t retries;         // of one request, with backoff doubling from retry_s
  double retry_s;
  double token_ttl_s;       // 0: no token parameter
  // clients that misbehave: probability per session
  double slow_reader, abort_body, half_close, range, conditional, head;
  uint32_t slow_bytes_per_s;
  bool tls;
  // checks
  double verify_share;      // of sessions whose every byte is decrypted and compared
  char media[SCENARIO_MAX_NAME], keys[SCENARIO_MAX_NAME]; // for verifying; relative to the scenario's folder
  // service level; a negative value is not checked
  struct {
    double startup_p99_ms, latency_p99_ms, deadline_miss_share, rebuffer_share, error_share, lag_p99_ms;
  } level;
};

// scenario_parse reads the text into `out`. Unknown fields, wrong types and values out of range are errors with a line.
// Errors: ERR_SYNTAX, ERR_ARGUMENT, ERR_LIMIT, ERR_NO_MEMORY; diag->at is the line.
MUST_USE enum err scenario_parse(struct scenario *out, struct alloc *mem, struct bytes yaml, struct diag *diag);
