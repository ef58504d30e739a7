// What a run leaves behind: versioned JSON, an HdrHistogram interval log, one self-contained HTML page.
#pragma once
#include "load/scenario.h"
#include "load/stats.h"
#include <stdio.h>

struct report_context {
  const struct scenario *sc;
  const char *target, *version;
  unsigned threads, processes;
  double wall_start_s;     // since 1970
  bool valid, levels_met;
  double bytes_per_listener; // resident memory added per place; 0: not measured
};

// Each returns false when writing failed (errno says why).
bool report_json(FILE *to, const struct load_stats *s, const struct report_context *c);
bool report_hdr(FILE *to, const struct load_stats *s, const struct report_context *c);

// report_html writes one page for several runs: `runs` are the texts that report_json wrote.
bool report_html(FILE *to, const struct bytes *runs, size_t num);
