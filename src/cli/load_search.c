// Mode capacity: probes at a constant rate, an estimate of the limit, then a spike beyond it and how long it takes to recover.
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/load_run.h"
#include "load/capacity.h"

// The figures are the last run's, but for what was compared: that is of all of them. What is wrong ends the search.
static void add_up(struct load_stats *sum, const struct load_stats *stats, const struct load_args *a) {
  uint64_t verified = sum->verified, decrypted = sum->decrypted;
  memset(sum, 0, sizeof *sum);
  sum->verified = verified;
  sum->decrypted = decrypted;
  for (unsigned i = 0; i < a->threads * a->processes; i++)
    stats_add(sum, &stats[i]);
}

static int run_rate(struct load_run *run, struct load_stats *stats, struct load_stats *sum, const struct scenario *sc,
                    const struct load_args *a, const char *label) {
  struct load_run one = *run;
  one.sc = sc;
  struct load_outcome o = load_run_all(&one, stats, a, label);
  add_up(sum, stats, a);
  return o.status;
}

static int probe(struct load_run *run, struct load_stats *stats, struct load_stats *sum, const struct scenario *base,
                 const struct load_args *a, uint32_t number, struct load_probe *p) {
  struct scenario sc = *base;
  char label[64], text[2048];
  sc.mode = LOAD_RATE;
  sc.rate = p->rate;
  sc.num_pieces = 0;
  sc.seed = base->seed + number;
  sc.drain_s = fmin(base->drain_s, base->seconds);
  snprintf(label, sizeof label, "probe %u, %.0f/s: ", number + 1, p->rate);
  int status = run_rate(run, stats, sum, &sc, a, label);
  struct writer w = wr_of(text, sizeof text);
  sc.verify_share = 0; // that some were compared is asked of all probes together
  p->p99_us = (double)hist_percentile(&sum->latency, 99);
  p->passed = stats_verdict(sum, &sc, &w);
  w = wr_of(text, sizeof text);
  p->late = !stats_valid(sum, &sc, &w);
  p->passed &= !p->late;
  return status;
}

// When requests that were due after the spike were in time again, and stayed so: a window is in time when 99 % of its requests
// met the level. Negative: never.
static double recovery(const struct load_stats *s, const struct scenario *sc, double spike_end_s) {
  // the first window that is all behind the spike; 0.7 / 0.1 is a little less than 7
  uint32_t first = (uint32_t)ceil(spike_end_s / LOAD_WINDOW_S - 1e-6), end = (uint32_t)(sc->seconds / LOAD_WINDOW_S), last = first;
  for (uint32_t i = first; i < end && i < LOAD_MAX_WINDOWS; i++)
    if (s->window[i].late * 100 > s->window[i].requests)
      last = i + 1;
  return last == end || s->interrupted ? -1 : (double)(last - first) * LOAD_WINDOW_S;
}

static int spike(struct load_run *run, struct load_stats *stats, struct load_stats *sum, const struct scenario *base,
                 const struct load_args *a, struct load_capacity *out) {
  struct scenario sc = *base;
  out->base_rate = 0.7 * out->low;
  out->spike_rate = base->search.spike * out->rate;
  out->spike_at_s = base->seconds;
  out->spike_s = base->search.spike_s;
  double after_s = fmax(base->seconds, 4 * base->search.spike * base->search.spike_s);
  sc.mode = LOAD_RATE;
  sc.pieces[0] = (struct rate_piece){out->spike_at_s, out->base_rate, out->base_rate};
  sc.pieces[1] = (struct rate_piece){out->spike_s, out->spike_rate, out->spike_rate};
  sc.pieces[2] = (struct rate_piece){after_s, out->base_rate, out->base_rate};
  sc.num_pieces = 3;
  sc.seconds = out->spike_at_s + out->spike_s + after_s;
  int status = run_rate(run, stats, sum, &sc, a, "spike: ");
  out->recovery_s = recovery(sum, &sc, out->spike_at_s + out->spike_s);
  return status;
}

int load_search(struct load_run *run, struct load_stats *stats, struct load_stats *sum, struct scenario *sc,
                const struct load_args *a, struct load_capacity *out) {
  static struct capacity model;
  uint32_t passed = 0, beyond = 0;
  int status = EXIT_DONE;
  capacity_init(&model, sc->search.from, sc->search.to);
  while (out->num_probes < sc->search.probes) {
    struct load_probe *p = &out->probes[out->num_probes];
    if ((sum->interrupted = atomic_load(&load_stop)))
      break;
    p->rate = capacity_estimate(&model).rate;
    status = probe(run, stats, sum, sc, a, out->num_probes, p);
    if (status || sum->wrong || sum->interrupted)
      break; // half a probe says nothing, and a rate at which wrong bytes come is no limit
    out->num_probes++;
    capacity_observe(&model, p->rate, p->passed);
    passed += p->passed;
    beyond += !p->passed && !p->late;
    nanosleep(&(struct timespec){.tv_nsec = (long)(fmin(0.3, sc->seconds / 10) * 1e9)}, NULL); // what the last probe left behind must not count in the next
  }
  struct capacity_estimate e = capacity_estimate(&model);
  out->rate = e.rate;
  out->low = e.low;
  out->high = e.high;
  out->found = !status && !sum->wrong && passed && beyond;
  if (out->found && sc->search.spike > 0 && !sum->interrupted && !(sum->interrupted = atomic_load(&load_stop)))
    status = spike(run, stats, sum, sc, a, out);
  return status;
}
