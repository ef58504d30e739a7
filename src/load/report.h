// What a run leaves behind: versioned JSON, an HdrHistogram interval log, one self-contained HTML page.
#pragma once
#include "load/scenario.h"
#include "load/stats.h"
#include <stdio.h>

// What mode capacity found.
struct load_probe {
  double rate, p99_us;
  bool passed;
  bool late; // the generator itself was late: the probe says that it, not the server, is at its end
};

enum { LOAD_MAX_PROBES = 1000 };

struct load_capacity {
  bool found;           // some probe passed and some did not, for the server's reasons
  double rate, low, high; // requests per second, the ends of its 95 % interval
  double recovery_s;    // from the spike's end until requests were in time again; negative: not before the run ended
  double base_rate, spike_rate, spike_at_s, spike_s;
  uint32_t num_probes;
  struct load_probe probes[LOAD_MAX_PROBES];
};

struct report_context {
  const struct scenario *sc;
  const char *target, *version;
  unsigned threads, processes;
  double wall_start_s;     // since 1970
  bool valid, levels_met;
  const struct load_capacity *capacity; // NULL: another mode
  double bytes_per_listener; // resident memory added per place; 0: not measured
};

// Each returns false when writing failed (errno says why).
bool report_json(FILE *to, const struct load_stats *s, const struct report_context *c);
bool report_hdr(FILE *to, const struct load_stats *s, const struct report_context *c);

// report_html writes one page for several runs: `runs` are the texts that report_json wrote.
bool report_html(FILE *to, const struct bytes *runs, size_t num);
