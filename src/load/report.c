#include "load/report.h"

#include <jansson.h>
#include <stdlib.h>

extern const char load_report_page[]; // made from report.html at build time

static json_t *quantiles(const struct hist *h) {
  static const double at[] = {0, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 99.999, 100};
  json_t *o = json_object(), *list = json_array();
  for (size_t i = 0; i < sizeof at / sizeof at[0]; i++)
    json_array_append_new(list, json_pack("[f,I]", at[i], (json_int_t)hist_percentile(h, at[i])));
  json_object_set_new(o, "count", json_integer((json_int_t)h->total));
  json_object_set_new(o, "mean_us", json_real(hist_mean(h)));
  json_object_set_new(o, "percentiles_us", list);
  return o;
}

static json_t *seconds(const struct load_stats *s) {
  json_t *list = json_array();
  for (uint32_t i = 0; i < s->num_seconds; i++) {
    const struct load_second *x = &s->second[i];
    json_t *heat = json_array();
    uint32_t end = LOAD_HEAT_ROWS;
    while (end && !x->heat[end - 1])
      end--;
    for (uint32_t r = 0; r < end; r++)
      json_array_append_new(heat, json_integer(x->heat[r]));
    json_array_append_new(list, json_pack("{s:i,s:i,s:i,s:i,s:o}", "requests", x->requests, "errors", x->errors, "misses",
                                          x->misses, "active", x->active, "heat", heat));
  }
  return list;
}

static json_t *totals(const struct load_stats *s, const struct report_context *c) {
  const struct {
    const char *name;
    uint64_t value;
  } counts[] = {
      {"requests", s->requests}, {"bytes", s->bytes}, {"errors", s->errors}, {"unanswered", s->unanswered}, {"sessions", s->sessions},
      {"sessions_lost", s->sessions_lost}, {"sessions_unheard", s->sessions_unheard}, {"segments", s->segments},
      {"misses", s->misses}, {"aborted", s->aborted}, {"not_modified", s->not_modified}, {"ranges", s->ranges}, {"heads", s->heads},
      {"polls", s->polls}, {"redirects", s->redirects}, {"resent", s->resent}, {"connects", s->connects}, {"tls_failures", s->tls_failures}, {"storms", s->storms},
      {"ended_at_rest", s->ended_at_rest}, {"unasked_bytes", s->unasked_bytes}, {"unopened", s->unopened}, {"queued", s->queued},
      {"verified", s->verified}, {"decrypted", s->decrypted}, {"wrong", s->wrong}, {"peak_active", s->peak_active},
      {"grown_bytes", s->grown_bytes},
  };
  static const char *const errors[] = {"connect", "cut", "4xx", "5xx", "parse", "timeout", "status", "protocol", "large"};
  _Static_assert(sizeof errors / sizeof *errors == LOAD_ERR_COUNT, "each kind has a name");
  json_t *n = json_pack("{s:f,s:f,s:f,s:f,s:f,s:f,s:s,s:s}", "elapsed_s", s->elapsed_s, "cpu_s", s->cpu_s, "cpu_wait_s", s->cpu_wait_s, "played_s", s->played_s, "rebuffer_s",
                        s->rebuffer_s, "bytes_per_listener", c->bytes_per_listener, "first_wrong", s->first_wrong,
                        "first_refused", s->first_refused);
  json_t *by = json_object();
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
    json_object_set_new(n, counts[i].name, json_integer((json_int_t)counts[i].value));
  for (int i = 0; i < LOAD_ERR_COUNT; i++)
    json_object_set_new(by, errors[i], json_integer((json_int_t)s->by_error[i]));
  json_object_set_new(n, "errors_by_kind", by);
  return n;
}

static json_t *capacity(const struct load_capacity *c) {
  json_t *list = json_array();
  for (uint32_t i = 0; i < c->num_probes; i++)
    json_array_append_new(list, json_pack("{s:f,s:f,s:b,s:b}", "rate", c->probes[i].rate, "p99_us", c->probes[i].p99_us, "passed",
                                          c->probes[i].passed, "generator_late", c->probes[i].late));
  return json_pack("{s:b,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:o}", "found", c->found, "rate", c->rate, "low", c->low, "high", c->high,
                   "recovery_s", c->recovery_s, "base_rate", c->base_rate, "spike_rate", c->spike_rate, "spike_at_s", c->spike_at_s,
                   "spike_s", c->spike_s, "probes", list);
}

bool report_json(FILE *to, const struct load_stats *s, const struct report_context *c) {
  json_t *o = json_pack("{s:i,s:s,s:s,s:s,s:s,s:I,s:i,s:i,s:f,s:b,s:b}", "format", 1, "version", c->version, "scenario", c->sc->name,
                        "mode", load_modes[c->sc->mode], "target", c->target, "seed", (json_int_t)c->sc->seed, "threads", (int)c->threads,
                        "processes", (int)c->processes, "start", c->wall_start_s, "valid", c->valid, "levels_met", c->levels_met);
  json_object_set_new(o, "totals", totals(s, c));
  json_object_set_new(o, "latency", quantiles(&s->latency));
  json_object_set_new(o, "service", quantiles(&s->service));
  json_object_set_new(o, "lag", quantiles(&s->lag));
  json_object_set_new(o, "startup", quantiles(&s->startup));
  if (c->capacity)
    json_object_set_new(o, "capacity", capacity(c->capacity));
  json_object_set_new(o, "seconds", seconds(s));
  json_object_set_new(o, "heat_base_us", json_real(stats_heat_us(0)));
  // Not with json_dumpf, which passes over a key that could not be written.
  json_free_t give;
  json_get_alloc_funcs(NULL, &give);
  char *text = json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
  bool ok = text && fputs(text, to) >= 0 && fputc('\n', to) != EOF;
  give(text);
  json_decref(o);
  return ok;
}

static bool hdr_line(FILE *to, const char *tag, const struct hist *h, double elapsed_s, uint8_t *scratch) {
  struct writer w = wr_of(NULL, 0);
  if (hist_encode(&w, h, scratch))
    return false;
  char *text = malloc(w.n);
  if (!text)
    return false;
  w = wr_of(text, w.n);
  bool ok = hist_encode(&w, h, scratch) == ERR_OK &&
            fprintf(to, "Tag=%s,0.000,%.3f,%.3f,%.*s\n", tag, elapsed_s, (double)h->max / 1e3, (int)w.n, text) > 0;
  free(text);
  return ok;
}

bool report_hdr(FILE *to, const struct load_stats *s, const struct report_context *c) {
  uint8_t *scratch = malloc(HIST_SCRATCH);
  bool ok = scratch &&
            fprintf(to, "#[Histogram log format version 1.3]\n#[StartTime: %.3f (seconds since epoch)]\n"
                        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n", c->wall_start_s) > 0 &&
            hdr_line(to, "latency", &s->latency, s->elapsed_s, scratch) && hdr_line(to, "service", &s->service, s->elapsed_s, scratch) &&
            hdr_line(to, "lag", &s->lag, s->elapsed_s, scratch) && hdr_line(to, "startup", &s->startup, s->elapsed_s, scratch);
  free(scratch);
  return ok;
}

// The page holds a mark where the runs go. In JSON a '<' stands in strings only, where it may be escaped: nothing in them ends the
// script or begins a comment.
bool report_html(FILE *to, const struct bytes *runs, size_t num) {
  const char *mark = strstr(load_report_page, "/*RUNS*/");
  if (!mark || fwrite(load_report_page, 1, (size_t)(mark - load_report_page), to) != (size_t)(mark - load_report_page))
    return false;
  for (size_t i = 0; i < num; i++) {
    if (i && fputc(',', to) == EOF)
      return false;
    for (size_t k = 0; k < runs[i].n; k++) {
      if (runs[i].p[k] == '<' ? fputs("\\u003c", to) == EOF : fputc(runs[i].p[k], to) == EOF)
        return false;
    }
  }
  return fputs(mark + strlen("/*RUNS*/"), to) != EOF;
}
