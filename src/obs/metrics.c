#include "obs/metrics.h"

#include <stdio.h>
#include <string.h>

void histogram_add_shared(struct histogram *h, uint64_t ns) {
  metric_add_shared(&h->buckets[histogram_bucket(ns)], 1);
  metric_add_shared(&h->sum_ns, ns);
}

void obs_error(struct obs_worker *m, enum obs_error e) {
  switch (e) {
#define X(name)                                                                                                          \
  case OBS_##name:                                                                                                       \
    metric_inc(&m->name);                                                                                                \
    break;
    OBS_ERRORS(X)
#undef X
  }
}

static uint64_t get(const _Atomic uint64_t *m) { return atomic_load_explicit(m, memory_order_relaxed); }

static void head(struct writer *w, const char *name, const char *help, const char *type) {
  if (!*help)
    return; // a further label of the metric above
  wr_fmt(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

// One sample line; `more` are further labels.
static void sample(struct writer *w, const char *name, const char *suffix, const char *set, const char *more) {
  wr_fmt(w, "%s%s{worker=\"%s\"%s%s} ", name, suffix, set, *more ? "," : "", more);
}

static void write_histogram(struct writer *w, const char *name, const char *set, const struct histogram *h) {
  uint64_t total = 0;
  for (unsigned i = 0; i < METRIC_BUCKETS; i++) {
    char le[48];
    total += get(&h->buckets[i]);
    if (i + 1 < METRIC_BUCKETS)
      snprintf(le, sizeof le, "le=\"%.9g\"", (double)(8192ULL << i) / 1e9);
    else
      snprintf(le, sizeof le, "le=\"+Inf\"");
    sample(w, name, "_bucket", set, le);
    wr_dec(w, total);
    wr_str(w, "\n");
  }
  sample(w, name, "_sum", set, "");
  wr_fmt(w, "%.9f\n", (double)get(&h->sum_ns) / 1e9);
  sample(w, name, "_count", set, "");
  wr_dec(w, total);
  wr_str(w, "\n");
}

void metrics_write(struct writer *w, const struct obs_worker *const *sets, const char *const *names, unsigned num) {
#define X(field, name, labels, help)                                                                                     \
  head(w, name, help, "counter");                                                                                        \
  for (unsigned i = 0; i < num; i++) {                                                                                   \
    sample(w, name, "", names[i], labels);                                                                               \
    wr_dec(w, get(&sets[i]->field));                                                                                     \
    wr_str(w, "\n");                                                                                                     \
  }
  METRIC_COUNTERS(X)
#undef X
#define X(field, name, labels, help)                                                                                     \
  head(w, name, help, "gauge");                                                                                          \
  for (unsigned i = 0; i < num; i++) {                                                                                   \
    sample(w, name, "", names[i], labels);                                                                               \
    wr_fmt(w, "%lld\n", (long long)atomic_load_explicit(&sets[i]->field, memory_order_relaxed));                         \
  }
  METRIC_GAUGES(X)
#undef X
#define X(field, name, help)                                                                                             \
  head(w, name, help, "histogram");                                                                                      \
  for (unsigned i = 0; i < num; i++)                                                                                     \
    write_histogram(w, name, names[i], &sets[i]->field);
  METRIC_HISTOGRAMS(X)
#undef X
}

size_t metrics_room(unsigned num) {
  static struct obs_worker most; // every value as long as it gets; the same each time
#define X(field, name, labels, help) atomic_store_explicit(&most.field, UINT64_MAX, memory_order_relaxed);
  METRIC_COUNTERS(X)
#undef X
#define X(field, name, labels, help) atomic_store_explicit(&most.field, INT64_MIN, memory_order_relaxed);
  METRIC_GAUGES(X)
#undef X
#define X(field, name, help)                                                                                             \
  atomic_store_explicit(&most.field.buckets[0], UINT64_MAX, memory_order_relaxed);                                       \
  atomic_store_explicit(&most.field.sum_ns, UINT64_MAX, memory_order_relaxed);
  METRIC_HISTOGRAMS(X)
#undef X
  size_t n[2];
  for (unsigned sets = 1; sets <= 2; sets++) {
    struct writer w = wr_of(NULL, 0);
    metrics_write(&w, (const struct obs_worker *const[]){&most, &most}, (const char *const[]){"shared", "shared"}, sets);
    n[sets - 1] = w.n;
  }
  return num ? n[0] + (num - 1) * (n[1] - n[0]) : 0; // help lines once, all else for each
}

static void sum_histogram(struct histogram *out, const struct histogram *h) {
  for (unsigned b = 0; b < METRIC_BUCKETS; b++)
    out->buckets[b] += get(&h->buckets[b]);
  out->sum_ns += get(&h->sum_ns);
}

void metrics_sum(struct obs_worker *out, const struct obs_worker *const *sets, unsigned num) {
  memset((void *)out, 0, sizeof *out);
  for (unsigned i = 0; i < num; i++) {
#define X(field, name, labels, help) out->field += get(&sets[i]->field);
    METRIC_COUNTERS(X)
#undef X
#define X(field, name, labels, help) out->field += atomic_load_explicit(&sets[i]->field, memory_order_relaxed);
    METRIC_GAUGES(X)
#undef X
#define X(field, name, help) sum_histogram(&out->field, &sets[i]->field);
    METRIC_HISTOGRAMS(X)
#undef X
  }
}
