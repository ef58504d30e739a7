// Hands the C cases to Google Benchmark.
#include <benchmark/benchmark.h>

extern "C" {
#include "cases.h"
}

int main(int argc, char **argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 2;
  size_t num;
  const bench_case *cases = cases_init(&num);
  for (size_t i = 0; i < num; i++) {
    const bench_case *c = &cases[i];
    benchmark::RegisterBenchmark(c->name, [c](benchmark::State &state) {
      for (auto _ : state)
        c->run(c);
      const double n = static_cast<double>(state.iterations());
      if (c->bytes)
        state.SetBytesProcessed(static_cast<int64_t>(n * static_cast<double>(c->bytes)));
      if (c->items)
        state.counters["per_item"] =
            benchmark::Counter(n * static_cast<double>(c->items), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
      if (c->counter)
        state.counters[c->counter] = c->value;
    });
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
