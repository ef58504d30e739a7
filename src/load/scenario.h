// A scenario: what a run of the load generator does, read from a small YAML file. Everything random in it comes from
// `seed`, so that a run can be replayed. bench/scenarios/ holds the set that ships; docs/load.md explains the fields.
#pragma once
#include "load/arrivals.h"
#include "load/popularity.h"

enum { SCENARIO_MAX_PIECES = 64, SCENARIO_MAX_ASSETS = 4096, SCENARIO_MAX_NAME = 256, SCENARIO_MAX_PATH = 1024 };

#define SCENARIO_MAX_SEED UINT64_C(9000000000000000) // what JavaScript can read in a report

enum load_mode {
  LOAD_LISTENERS, // partly open: sessions arrive, requests inside a session depend on each other
  LOAD_RATE,      // open: single requests at a constant rate, for saturation curves
  LOAD_SATURATE,  // closed: every connection asks again at once, the highest throughput; latencies mean little
  LOAD_IDLE,      // connections that ask once and then stay
  LOAD_CAPACITY,  // probes in LOAD_RATE for the highest rate that meets the level, then a spike
  LOAD_MODES
};

extern const char *const load_modes[LOAD_MODES]; // their names

enum load_protocol { LOAD_HLS, LOAD_DASH, LOAD_MIX };

struct scenario {
  char name[64];
  uint64_t seed; // up to SCENARIO_MAX_SEED
  enum load_mode mode;
  double seconds;           // of a LOAD_RATE, LOAD_SATURATE or LOAD_IDLE run; listeners: sum of pieces, then drain
  double drain_s;           // listeners: sessions still running after the shape get this long
  // arrivals
  struct rate_piece pieces[SCENARIO_MAX_PIECES];
  double poll_s[SCENARIO_MAX_PIECES]; // > 0: who arrives in that piece polls that often until the release
  uint32_t num_pieces;
  double end_s;             // listeners: by their own clock they ask nothing from here on
  double rate;              // LOAD_RATE: requests per second
  struct {
    double from, to;        // LOAD_CAPACITY: rates between which the limit is looked for
    uint32_t probes;
    double spike, spike_s;  // the spike after the search: so many times the capacity, for so long
  } search;
  uint32_t connections;     // LOAD_RATE, LOAD_SATURATE, LOAD_IDLE
  uint32_t max_listeners;   // of all processes, at once; arrivals beyond are counted as lost and fail the run
  // what is asked for
  struct {
    char (*names)[SCENARIO_MAX_NAME];
    const char *const *manifests; // where each one's manifest lies; NULL: where sluice has those of `names`
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
  double timeout_s;         // every mode: a request without its whole answer by then has failed; slow readers have no limit
  double token_ttl_s;       // 0: no token parameter
  // clients that misbehave: probability per session
  double slow_reader, abort_body, half_close, range, conditional, head;
  double reconnect;         // sessions that open a connection for every request
  double storm_at_s, storm; // >= 0: when this share of all sessions loses its connection and reconnects at once
  uint32_t slow_bytes_per_s;
  // checks
  double verify_share;      // of sessions, or of requests without listeners, whose every byte is decrypted and compared
  uint32_t verify_epoch;    // the epoch that manifests must name; 0: any
  char media[SCENARIO_MAX_PATH], keys[SCENARIO_MAX_PATH]; // for verifying; relative to the scenario's folder
  // service level; a negative value is not checked
  struct {
    double startup_p99_ms, latency_p99_ms, deadline_miss_share, rebuffer_share, error_share, lag_p99_ms;
  } level;
};

// scenario_parse reads the text into `out`. Unknown fields, wrong types and values out of range are errors with a line.
// Errors: ERR_SYNTAX, ERR_ARGUMENT, ERR_LIMIT, ERR_NO_MEMORY; diag->at is the line.
MUST_USE enum err scenario_parse(struct scenario *out, struct alloc *mem, struct bytes yaml, struct diag *diag);

// scenario_is_mpd says of a scenario with catalogue.manifests whether that of an asset is an MPD: by its path, or else by `protocol`.
bool scenario_is_mpd(const struct scenario *s, uint32_t asset);

// scenario_check completes and judges a scenario as a whole, once what the command line says is in it. Errors: ERR_ARGUMENT, with no line.
MUST_USE enum err scenario_check(struct scenario *s, struct diag *diag);
