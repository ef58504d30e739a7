#include "load/stats.h"

#include <errno.h>
#include <math.h>

#include "load/scenario.h"

uint32_t stats_heat_row(uint64_t us) {
  double row = us ? 2 * log2((double)us) : 0;
  return row < LOAD_HEAT_ROWS - 1 ? (uint32_t)row : LOAD_HEAT_ROWS - 1;
}

double stats_heat_us(uint32_t row) { return exp2((double)row / 2); }

static void add_seconds(struct load_stats *into, const struct load_stats *from) {
  for (uint32_t i = 0; i < from->num_seconds; i++) {
    struct load_second *a = &into->second[i];
    const struct load_second *b = &from->second[i];
    a->requests += b->requests;
    a->errors += b->errors;
    a->misses += b->misses;
    a->active += b->active;
    for (uint32_t r = 0; r < LOAD_HEAT_ROWS; r++)
      a->heat[r] += b->heat[r];
  }
  for (uint32_t i = 0; i < LOAD_MAX_WINDOWS; i++) {
    into->window[i].requests += from->window[i].requests;
    into->window[i].late += from->window[i].late;
  }
  into->num_seconds = into->num_seconds > from->num_seconds ? into->num_seconds : from->num_seconds;
}

void stats_add(struct load_stats *into, const struct load_stats *from) {
  hist_add(&into->latency, &from->latency);
  hist_add(&into->service, &from->service);
  hist_add(&into->lag, &from->lag);
  hist_add(&into->startup, &from->startup);
  into->requests += from->requests;
  into->bytes += from->bytes;
  into->errors += from->errors;
  into->active += from->active;
  into->misses += from->misses;
  for (int i = 0; i < LOAD_ERR_COUNT; i++)
    into->by_error[i] += from->by_error[i];
  into->sessions += from->sessions;
  into->sessions_lost += from->sessions_lost;
  into->sessions_unheard += from->sessions_unheard;
  into->segments += from->segments;
  into->aborted += from->aborted;
  into->not_modified += from->not_modified;
  into->ranges += from->ranges;
  into->heads += from->heads;
  into->polls += from->polls;
  into->resent += from->resent;
  into->unanswered += from->unanswered;
  into->connects += from->connects;
  into->tls_failures += from->tls_failures;
  into->storms += from->storms;
  into->ended_at_rest += from->ended_at_rest;
  into->unasked_bytes += from->unasked_bytes;
  into->unopened += from->unopened;
  into->unopened_errno = into->unopened_errno ? into->unopened_errno : from->unopened_errno;
  into->decrypted += from->decrypted;
  into->peak_active += from->peak_active;
  into->grown_bytes += from->grown_bytes;
  into->verified += from->verified;
  into->wrong += from->wrong;
  into->rebuffer_s += from->rebuffer_s;
  into->played_s += from->played_s;
  into->cpu_s += from->cpu_s;
  into->cpu_wait_s += from->cpu_wait_s;
  into->queued += from->queued;
  into->elapsed_s = into->elapsed_s > from->elapsed_s ? into->elapsed_s : from->elapsed_s;
  into->redirects += from->redirects;
  into->interrupted |= from->interrupted;
  if (!into->first_refused[0])
    memcpy(into->first_refused, from->first_refused, sizeof into->first_refused);
  if (!into->first_wrong[0])
    memcpy(into->first_wrong, from->first_wrong, sizeof into->first_wrong);
  add_seconds(into, from);
}

static bool level(struct writer *out, const char *name, double value, double bound, const char *unit) {
  if (bound < 0)
    return true;
  bool ok = value <= bound;
  wr_fmt(out, "%-7s %-28s %12.3f %s (at most %.3f)\n", ok ? "ok" : "MISSED", name, value, unit, bound);
  return ok;
}

static double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

bool stats_compared(const struct load_stats *s, const struct scenario *sc, struct writer *out) {
  bool ok = true;
  if (sc->verify_share > 0 && !s->verified && !s->wrong) { // a comparison of nothing finds nothing
    wr_fmt(out, "MISSED  segments compared: none: none came to the share of --share (verify.share)\n");
    ok = false;
  }
  if (s->verified || s->wrong)
    ok &= level(out, "segments with wrong bytes", (double)s->wrong, 0, "segments");
  if (s->wrong)
    wr_fmt(out, "first wrong byte: %s\n", s->first_wrong);
  return ok;
}

bool stats_verdict(const struct load_stats *s, const struct scenario *sc, struct writer *out) {
  bool ok = true;
  ok &= level(out, "startup p99", (double)hist_percentile(&s->startup, 99) / 1e3, sc->level.startup_p99_ms, "ms");
  ok &= level(out, "latency p99", (double)hist_percentile(&s->latency, 99) / 1e3, sc->level.latency_p99_ms, "ms");
  ok &= level(out, "segments late", share((double)s->misses, (double)s->segments), sc->level.deadline_miss_share, "of all");
  ok &= level(out, "time spent waiting", share(s->rebuffer_s, s->rebuffer_s + s->played_s), sc->level.rebuffer_share, "of all");
  ok &= level(out, "requests failed", share((double)s->errors, (double)(s->requests + s->unanswered)), sc->level.error_share, "of all");
  ok &= level(out, "sessions without sound", share((double)s->sessions_unheard, (double)s->sessions), sc->level.error_share, "of all");
  if (sc->mode == LOAD_IDLE)
    ok &= level(out, "connections that did not stay", share((double)s->ended_at_rest, (double)sc->connections), sc->level.error_share, "of all");
  if (s->unasked_bytes)
    ok &= level(out, "bytes behind a response's end", (double)s->unasked_bytes, 0, "bytes");
  ok &= stats_compared(s, sc, out);
  if (s->first_refused[0])
    wr_fmt(out, "first refused: %s\n", s->first_refused);
  return ok;
}

void stats_crowded(const struct load_stats *s, const struct scenario *sc, unsigned threads, struct writer *out) {
  double busy = share(s->cpu_s + s->cpu_wait_s, s->elapsed_s * threads);
  if (sc->mode == LOAD_RATE && s->queued && busy >= 0.9)
    wr_fmt(out, "%lu requests were due while all connections were taken, and the generator was busy for %.0f %% of the time: the limit may be its own: use more "
                "--threads, or another machine\n", s->queued, 100 * busy);
}

bool stats_valid(const struct load_stats *s, const struct scenario *sc, struct writer *why) {
  double lag_ms = (double)hist_percentile(&s->lag, 99) / 1e3;
  if (sc->level.lag_p99_ms >= 0 && lag_ms > sc->level.lag_p99_ms && sc->mode != LOAD_SATURATE) {
    wr_fmt(why, "INVALID: the generator was late: p99 of its own lag is %.3f ms (at most %.3f)\n", lag_ms, sc->level.lag_p99_ms);
    return false;
  }
  if (s->sessions_lost) {
    wr_fmt(why, "INVALID: %lu sessions found no free place: raise max_listeners\n", s->sessions_lost);
    return false;
  }
  if (!s->requests && !s->unanswered) {
    wr_fmt(why, "INVALID: nothing was asked\n");
    return false;
  }
  if (s->unopened) {
    wr_fmt(why, "INVALID: %lu connections could not be begun on this machine: %s%s\n", s->unopened, strerror(s->unopened_errno),
           s->unopened_errno == EMFILE ? ": more --processes, or a higher limit (ulimit -Hn)" : "");
    return false;
  }
  return true;
}
