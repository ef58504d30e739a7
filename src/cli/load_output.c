#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/json_lost.h"
#include "cli/load_run.h"

char *load_file(const char *path, size_t *n) {
  enum { MOST = 256 << 20 }; // before memory ends: a disk's image, or a device, may have been named
  FILE *f = fopen(path, "rb");
  char *p = NULL, *more;
  size_t cap = 65536;
  *n = 0;
  while (f && !feof(f) && !ferror(f) && *n < MOST && (more = realloc(p, cap)) != NULL) { // a pipe has no size
    p = more;
    *n += fread(p + *n, 1, cap - 1 - *n, f);
    cap = cap < MOST ? cap * 2 : MOST + 1;
  }
  if (!f || ferror(f) || !feof(f)) {
    if (*n >= MOST && !ferror(f))
      cli_error(path, "longer than 256 MB: no scenario, list of paths or result is");
    else
      cli_error(path, "%s", strerror(errno ? errno : ENOMEM));
    free(p);
    p = NULL;
  }
  if (f)
    fclose(f);
  if (p)
    p[*n] = 0;
  return p;
}

// A result is made in memory, and written in one piece.
struct page {
  FILE *f;
  char *text;
  size_t n;
};

static FILE *page_begin(struct page *p) {
  p->text = NULL;
  return p->f = open_memstream(&p->text, &p->n);
}

// page_end says whether there is a page, `ok` when all of it was made. Its text is to be freed.
static bool page_end(struct page *p, bool ok) { return p->f && fclose(p->f) == 0 && p->text && ok; }

// page_put ends a page and writes it.
static bool page_put(struct page *p, bool ok, struct output *o) {
  ok = page_end(p, ok);
  if (!ok)
    cli_error(o->path, "out of memory");
  ok = ok && output_write(o, p->text, p->n);
  free(p->text);
  if (ok)
    return output_commit(o);
  output_drop(o);
  return false;
}

bool load_takes_stdout(const struct load_args *a) {
  const char *const files[] = {a->json, a->hdr, a->html};
  bool taken = false;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    taken |= files[i] && (!strcmp(files[i], "-") || !strcmp(files[i], "/dev/stdout"));
  return taken;
}

bool load_results_open(struct load_results *r, const struct load_args *a) {
  r->json.fd = r->hdr.fd = r->html.fd = -1;
  r->json.temp[0] = r->hdr.temp[0] = r->html.temp[0] = 0;
  if ((!a->json || output_open(&r->json, a->json, NULL)) && (!a->hdr || output_open(&r->hdr, a->hdr, NULL)) &&
      (!a->html || output_open(&r->html, a->html, NULL)))
    return true;
  load_results_drop(r);
  return false;
}

void load_results_drop(struct load_results *r) {
  output_drop(&r->json);
  output_drop(&r->hdr);
  output_drop(&r->html);
}

static bool put_json(struct page *p, const struct load_stats *s, const struct report_context *c) {
  json_lost_watch();
  return page_begin(p) && report_json(p->f, s, c) && !json_lost();
}

// The page has the run as JSON in it.
static bool put_html(struct output *o, const struct load_stats *s, const struct report_context *c) {
  struct page run, page;
  bool ok = page_end(&run, put_json(&run, s, c));
  struct bytes text = bytes_of(run.text, ok ? run.n : 0);
  ok = page_put(&page, page_begin(&page) && ok && report_html(page.f, &text, 1), o);
  free(run.text);
  return ok;
}

bool load_results_write(struct load_results *r, const struct load_args *a, const struct load_stats *s, const struct report_context *c) {
  struct page p;
  bool ok = !a->json || page_put(&p, put_json(&p, s, c), &r->json);
  ok &= !a->hdr || page_put(&p, page_begin(&p) && report_hdr(p.f, s, c), &r->hdr);
  return (!a->html || put_html(&r->html, s, c)) && ok;
}

// Whether it is what report_json writes, as far as the page relies on it.
static bool is_result(const char *text, size_t n) {
  json_t *run = json_loadb(text, n, 0, NULL);
  bool ok = json_integer_value(json_object_get(run, "format")) == 1 && json_is_object(json_object_get(run, "totals")) &&
            json_is_array(json_object_get(run, "seconds")) && json_is_number(json_object_get(run, "start"));
  static const char *const times[] = {"latency", "service", "lag", "startup"};
  for (size_t i = 0; i < sizeof times / sizeof *times; i++)
    ok = ok && json_is_array(json_object_get(json_object_get(run, times[i]), "percentiles_us"));
  json_decref(run);
  return ok;
}

int load_compare(const char *out, int num, char **files) {
  struct bytes runs[LOAD_MAX_REPORTS];
  char *texts[LOAD_MAX_REPORTS] = {0};
  int n = 0;
  if (num < 1 || num > LOAD_MAX_REPORTS)
    return cli_usage("load", "--report takes 1 to %d JSON files", LOAD_MAX_REPORTS);
  for (; n < num; n++) {
    size_t len = 0;
    texts[n] = load_file(files[n], &len);
    if (!texts[n])
      break;
    runs[n] = bytes_of(texts[n], len);
    if (!is_result(texts[n], len)) {
      cli_error(files[n], "is not a result of sluice load (format 1)");
      free(texts[n]);
      break;
    }
  }
  struct output o;
  struct page page;
  bool ok = n == num && output_open(&o, out, NULL) && page_put(&page, page_begin(&page) && report_html(page.f, runs, (size_t)n), &o);
  while (n-- > 0)
    free(texts[n]);
  return ok ? EXIT_DONE : EXIT_FAILED;
}

static void summary_of_search(FILE *to, const struct load_capacity *c, bool wrong) {
  uint32_t passed = 0, late = 0;
  for (uint32_t i = 0; i < c->num_probes; i++) {
    passed += c->probes[i].passed;
    late += c->probes[i].late;
  }
  if (!c->found) {
    fprintf(to, "no limit between the rates of the search: %s%s\n",
           wrong                                  ? "wrong bytes came in a probe, which ended it"
           : late && passed + late == c->num_probes ? "where a probe did not pass, the generator itself was late"
           : passed && passed == c->num_probes    ? "every probe passed"
           : passed                               ? "it was ended before there was one"
                                                  : "no probe passed",
           late && !passed ? ", and the generator itself was late" : "");
    return;
  }
  fprintf(to, "highest rate within the service level: %.0f requests a second (95 %% interval %.0f to %.0f, %u probes)%s\n", c->rate, c->low, c->high,
         c->num_probes, late ? "; the generator itself was late in some" : "");
  if (c->spike_rate > 0 && c->recovery_s >= 0)
    fprintf(to, "after %.1f s at %.0f a second, requests were in time again %.1f s later (at %.0f a second)\n", c->spike_s, c->spike_rate, c->recovery_s,
           c->base_rate);
  else if (c->spike_rate > 0)
    fprintf(to, "after %.1f s at %.0f a second, requests were not in time again before the run ended\n", c->spike_s, c->spike_rate);
}

static void print_errors(FILE *to, const struct load_stats *s, const struct report_context *c) {
  static const char *const kinds[] = {"without a response", "cut off", "4xx", "5xx", "malformed playlists", "timed out", "with another status", "not HTTP", "too large to keep"};
  _Static_assert(sizeof kinds / sizeof *kinds == LOAD_ERR_COUNT, "each kind has a name");
  const char *between = "failed:";
  for (int i = 0; i < LOAD_ERR_COUNT; i++)
    if (s->by_error[i]) {
      fprintf(to, "%s %lu %s", between, s->by_error[i], kinds[i]);
      between = ",";
    }
  fprintf(to, "\n");
  if (s->by_error[LOAD_ERR_LARGE])
    fprintf(to, "too large to keep: of a manifest, and of what is compared, at most 64 MB, if there is memory: compare none so large (--share, --verify)\n");
  if (s->by_error[LOAD_ERR_CONNECT] == s->requests)
    fprintf(to, "nothing was answered: does the server listen at --target?\n");
  else if (s->by_error[LOAD_ERR_PROTOCOL] == s->requests)
    fprintf(to, "nothing that came was HTTP/1.1: what listens at --target, and does it want %s?\n", strncmp(c->target, "https://", 8) ? "https://" : "http://");
  else if (s->by_error[LOAD_ERR_4XX] == s->requests)
    fprintf(to, "nothing was found, or nothing for everybody: does the server have the scenario's catalogue.%s?\n",
            c->sc->catalogue.manifests ? "manifests" : "assets, under this scheme");
}

void load_summary(FILE *to, const struct load_stats *s, const struct report_context *c, const char *verdict) {
  char name[sizeof c->sc->name];
  memcpy(name, c->sc->name, sizeof name);
  text_tame(name, strlen(name));
  fprintf(to, "%s: %lu requests in %.1f s (%.0f a second), %.3f GB, %lu failed, %lu unanswered\n", name[0] ? name : "run", s->requests, s->elapsed_s,
         (double)s->requests / (s->elapsed_s > 0 ? s->elapsed_s : 1), (double)s->bytes / 1e9, s->errors, s->unanswered);
  if (s->errors)
    print_errors(to, s, c);
  fprintf(to, "latency p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, max %.3f ms; service p99 %.3f ms; generator lag p99 %.3f ms, CPU %.2f us a request\n",
         (double)hist_percentile(&s->latency, 50) / 1e3, (double)hist_percentile(&s->latency, 99) / 1e3,
         (double)hist_percentile(&s->latency, 99.9) / 1e3, (double)s->latency.max / 1e3, (double)hist_percentile(&s->service, 99) / 1e3,
         (double)hist_percentile(&s->lag, 99) / 1e3, s->requests ? s->cpu_s * 1e6 / (double)s->requests : 0);
  if (s->sessions && !s->startup.total)
    fprintf(to, "%lu sessions, none of which heard anything; %.0f bytes a listener\n", s->sessions, c->bytes_per_listener);
  else if (s->sessions)
    fprintf(to, "%lu sessions, startup p50 %.3f ms, p99 %.3f ms; %lu of %lu segments late; %.1f s waited in %.1f s played; %.0f bytes a listener\n",
           s->sessions, (double)hist_percentile(&s->startup, 50) / 1e3, (double)hist_percentile(&s->startup, 99) / 1e3, s->misses,
           s->segments, s->rebuffer_s, s->played_s, c->bytes_per_listener);
  if (s->verified)
    fprintf(to, "%lu segments compared with the clear source (%lu decrypted, the others the same bytes as one of these), %lu wrong\n", s->verified,
           s->decrypted, s->wrong);
  if (c->capacity)
    summary_of_search(to, c->capacity, s->wrong > 0);
  fputs(verdict, to);
}
