// Benchmarks of the core: one row per case; C does the work, main.cc hands it to Google Benchmark.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct bench_case {
  const char *name;
  void (*run)(const struct bench_case *c); // one iteration
  uint64_t bytes, items;                   // that an iteration handles; items may be 0
  const char *counter;                     // a figure that does not depend on time, or NULL
  double value;
  int arg[3];                              // of the case's own
};

// cases_init makes the inputs and fills the table; cases_num rows.
const struct bench_case *cases_init(size_t *num);
