// Kernel benchmarks, run by Google Benchmark; the measured functions are C.
//
// Every row runs interleaved with all others in random order. One measurement is the best of a few passes over all
// size lists, in time of the thread; the clock is measured around it by a chain of multiplications.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#define _Alignas alignas // the headers are C
#define _Static_assert static_assert
extern "C" {
#include "bench.h"
}

namespace {

int passes = 7;
const uint64_t first_iv = 1000; // of CTR, as the peers have it

// The thread's own time: what other programs take of the core is not the kernel's.
double now() {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double wall() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double clock_ghz() {
  const uint64_t steps = 100000;
  double best = 1;
  for (int i = 0; i < 3; i++) {
    double start = now();
    probe_clock(steps);
    best = std::min(best, now() - start);
  }
  return steps / best / 1e9;
}

void report(benchmark::State &state, double seconds, double bytes, double ghz) {
  state.SetIterationTime(seconds);
  state.counters["GB/s"] = bytes / seconds / 1e9;
  state.counters["cycles/byte"] = seconds * ghz * 1e9 / bytes;
  state.counters["GHz"] = ghz;
}

template <typename Fn> void measure(benchmark::State &state, double bytes, Fn pass) {
  for (auto _ : state) {
    double best = 1e9, before = clock_ghz(), cpu = now(), real = wall();
    pass();
    for (int i = 0; i < passes; i++) {
      double start = now();
      pass();
      best = std::min(best, now() - start);
    }
    state.counters["wall/cpu"] = (wall() - real) / (now() - cpu);
    report(state, best, bytes, std::max(before, clock_ghz()));
  }
}

void add(const std::string &name, double bytes, std::function<void()> pass, int repetitions) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State &s) { measure(s, bytes, pass); })
      ->UseManualTime()
      ->Iterations(1)
      ->Repetitions(repetitions);
}

void add_lists(const std::string &name, const struct workload *w, bench_fn *fn, int repetitions) {
  double bytes = 0;
  for (int i = 0; i < NUM_LISTS; i++)
    bytes += w->lists[i].total;
  add(
      name, bytes,
      [=] {
        for (const list &l : w->lists)
          fn(w, &l);
      },
      repetitions);
}

struct kernel {
  const struct aes_ops *ops;
  struct aes_key key;
};

void add_kernel(const struct workload *w, const struct aes_ops *ops, int repetitions) {
  auto k = std::make_shared<kernel>(kernel{ops, {}});
  ops->key_init(&k->key, bench_key);
  std::string suffix = std::string("/") + w->name + "/" + ops->name;
  double bytes = 0;
  for (int i = 0; i < NUM_LISTS; i++)
    bytes += w->lists[i].total;
  auto cbc = [=](int segments, bool ordered) {
    for (int i = 0; i < NUM_LISTS; i += segments) {
      struct aes_cbc_seg segs[4];
      std::vector<aes_lane> lanes;
      size_t off = 0;
      for (int s = 0; s < segments; s++) {
        const struct list *l = &w->lists[i + s];
        segs[s] = {w->src + off, w->dst + off, l->lanes, l->num};
        off += l->total + 77;
      }
      if (!ordered) {
        const struct list *l = &w->lists[i];
        struct aes_lane v[128];
        for (uint32_t n = 0; n < l->num; n++)
          v[n] = {l->offsets[n], l->sizes[n]};
        aes_lane_order(v, l->num);
        segs[0].lanes = v;
        k->ops->cbc_encrypt(&k->key, bench_iv, segs, 1, NULL);
        continue;
      }
      k->ops->cbc_encrypt(&k->key, bench_iv, segs, (size_t)segments, NULL);
    }
  };
  add("cbc" + suffix, bytes, [=] { cbc(1, true); }, repetitions);
  if (w->constant || std::string(w->name).rfind("rand", 0) == 0)
    return;
  add("cbc-2seg" + suffix, bytes, [=] { cbc(2, true); }, repetitions);
  add("cbc-unplanned" + suffix, bytes, [=] { cbc(1, false); }, repetitions);
  add(
      "cbc-decrypt" + suffix, bytes,
      [=] {
        for (const list &l : w->lists) {
          struct aes_cbc_seg seg = {w->src, w->dst, l.lanes, l.num};
          k->ops->cbc_decrypt(&k->key, bench_iv, &seg, 1);
        }
      },
      repetitions);
  auto ctr = [=](const uint8_t *src) {
    for (const list &l : w->lists) {
      struct aes_ctr_seg seg = {src, w->dst, l.sizes, nullptr, l.num, first_iv, nullptr};
      k->ops->ctr(&k->key, &seg, 1, NULL);
    }
  };
  add("ctr" + suffix, bytes, [=] { ctr(w->src); }, repetitions);
  add("ctr-in-place" + suffix, bytes, [=] { ctr(w->dst); }, repetitions);
  add(
      "cbc-in-place" + suffix, bytes,
      [=] {
        for (const list &l : w->lists) {
          struct aes_cbc_seg seg = {w->dst, w->dst, l.lanes, l.num};
          k->ops->cbc_encrypt(&k->key, bench_iv, &seg, 1, NULL);
        }
      },
      repetitions);
}

void add_probe(const char *name, void (*probe)(uint64_t), int repetitions) {
  const uint64_t blocks = 240000;
  add(std::string("limit/") + name, 16.0 * blocks, [=] { probe(blocks); }, repetitions);
}

// A peer that did other work than ours would be no peer: the first list of each workload, byte by byte.
void check_peer(const struct peer *p) {
  const char *why;
  kernel ours = {aes_ops_best("ref", &why), {}};
  ours.ops->key_init(&ours.key, bench_key);
  for (size_t i = 0; i < num_workloads; i++) {
    const struct workload *w = &workloads[i];
    const list &l = w->lists[0];
    if (w->constant || w->name[1])
      continue;
    for (bool cbc : {true, false}) {
      std::vector<uint8_t> want(l.total);
      struct aes_cbc_seg cbc_seg = {w->src, want.data(), l.lanes, l.num};
      struct aes_ctr_seg ctr_seg = {w->src, want.data(), l.sizes, nullptr, l.num, first_iv, nullptr};
      if (cbc)
        ours.ops->cbc_encrypt(&ours.key, bench_iv, &cbc_seg, 1, NULL);
      else
        ours.ops->ctr(&ours.key, &ctr_seg, 1, NULL);
      memset(w->dst, 0, l.total);
      (cbc ? p->cbc : p->ctr)(w, &l);
      if (memcmp(want.data(), w->dst, l.total) != 0) {
        fprintf(stderr, "kernels: %s/%s/%s encrypts otherwise than the reference does: no peer to compare with\n", cbc ? "cbc" : "ctr", w->name, p->name);
        exit(1);
      }
    }
  }
}

} // namespace

int main(int argc, char **argv) {
  int repetitions = 25;
  std::vector<char *> args;
  for (int i = 0; i < argc; i++) {
    std::string a = argv[i];
    if (a.rfind("--rounds=", 0) == 0)
      repetitions = std::stoi(a.substr(9));
    else if (a.rfind("--passes=", 0) == 0)
      passes = std::stoi(a.substr(9));
    else
      args.push_back(argv[i]);
  }
  std::string interleave = "--benchmark_enable_random_interleaving=true";
  args.push_back(interleave.data());
  int num = (int)args.size();
  benchmark::Initialize(&num, args.data());
  workloads_init();
  std::vector<const struct peer *> peers;
  auto add_peer = [&](const struct peer *p) {
    if (!p->init(bench_key, bench_iv))
      return;
    check_peer(p);
    peers.push_back(p);
  };
#ifdef HAVE_OPENSSL
  add_peer(&peer_openssl);
#endif
#ifdef HAVE_BORINGSSL
  add_peer(&peer_boringssl);
#endif
#ifdef HAVE_IPSEC
  add_peer(&peer_ipsec);
  add_peer(&peer_ipsec_anew);
#endif
  size_t num_ops;
  const struct aes_ops *const *all = aes_ops_all(&num_ops);
  add_probe("xmm", probe_xmm, repetitions);
  if (probe_has("vaes256"))
    add_probe("ymm", probe_ymm, repetitions);
  if (probe_has("vaes512"))
    add_probe("zmm", probe_zmm, repetitions);
  for (size_t i = 0; i < num_workloads; i++) {
    const struct workload *w = &workloads[i];
    if (w->constant || w->name[1]) { // about addresses, not about instruction sets
      const char *why;
      add_kernel(w, aes_ops_best(nullptr, &why), repetitions);
      continue;
    }
    for (size_t n = 1; n < num_ops; n++) // the reference is no rival
      if (all[n]->usable())
        add_kernel(w, all[n], repetitions);
    for (const struct peer *p : peers) {
      add_lists(std::string("cbc/") + w->name + "/" + p->name, w, p->cbc, repetitions);
      add_lists(std::string("ctr/") + w->name + "/" + p->name, w, p->ctr, repetitions);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
