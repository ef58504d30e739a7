// What the files of `sluice load` share: its options, one run over all processes and threads, what is written of it.
#pragma once
#include "cli/output.h"
#include "load/engine.h"
#include "load/report.h"

enum { LOAD_MAX_WORKERS = 256, LOAD_MAX_REPORTS = 16 };

struct load_args {
  const char *scenario, *target, *json, *hdr, *html, *log, *paths, *io, *mode, *report, *ca, *verify, *keys;
  unsigned threads, processes;
  double rate, seconds, shorten, share; // share: 0 when not given
  uint64_t seed, connections;
  bool has_seed, insecure, of_a_load; // of_a_load: some option but --report was given
};

// Set by SIGINT and SIGTERM: the run ends, and reports what it has.
extern _Atomic bool load_stop;

struct load_outcome {
  int status; // exit status; EXIT_DONE when every process ended well
  double bytes_per_listener;
};

// load_run_all forks the processes, shows progress on a terminal and waits. `stats` lies in shared memory, one for each thread
// of each process, and is filled anew. `label` stands before the live view's line.
struct load_outcome load_run_all(struct load_run *proto, struct load_stats *stats, const struct load_args *a, const char *label);

// load_target reads http[s]://HOST[:PORT] into address, Host header and TLS; an exit status, after one line on standard error.
int load_target(struct load_run *run, const struct load_args *a);

// load_search is mode capacity: the probes, the estimate, the spike. `sum` gets the spike's statistics (or the last probe's).
int load_search(struct load_run *run, struct load_stats *stats, struct load_stats *sum, struct scenario *sc,
                const struct load_args *a, struct load_capacity *out);

// Where results go. They are opened before the load, so that an hour of it is not lost for want of a place, and have their
// names only when they are whole. load_results_open prints one line and returns false when one cannot be written.
struct load_results {
  struct output json, hdr, html;
};
bool load_results_open(struct load_results *r, const struct load_args *a);
bool load_results_write(struct load_results *r, const struct load_args *a, const struct load_stats *s, const struct report_context *c);
void load_results_drop(struct load_results *r); // what was not written

// load_takes_stdout says whether a result goes to standard output, where nothing else may stand then.
bool load_takes_stdout(const struct load_args *a);

// load_compare is --report. load_summary prints what people read.
int load_compare(const char *out, int num, char **files);
void load_summary(FILE *to, const struct load_stats *s, const struct report_context *c, const char *verdict);

// load_file reads a whole file, NUL-terminated, to free; NULL after one line on standard error.
char *load_file(const char *path, size_t *n);
