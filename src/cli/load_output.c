#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/load_run.h"

char *load_file(const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  struct stat st;
  char *p = NULL;
  if (f && fstat(fileno(f), &st) == 0 && (p = malloc((size_t)st.st_size + 1)) != NULL) {
    *n = fread(p, 1, (size_t)st.st_size, f);
    p[*n] = 0;
    if (ferror(f)) {
      free(p);
      p = NULL;
    }
  }
  if (f)
    fclose(f);
  if (!p)
    cli_error(path, "%s", strerror(errno ? errno : ENOMEM));
  return p;
}

static bool write_with(const char *path, bool (*write)(FILE *, const struct load_stats *, const struct report_context *),
                       const struct load_stats *s, const struct report_context *c) {
  FILE *f = path ? fopen(path, "w") : NULL;
  if (!path)
    return true;
  bool ok = f && write(f, s, c);
  if (f && fclose(f) != 0)
    ok = false;
  if (!ok)
    cli_error(path, "%s", strerror(errno));
  return ok;
}

static bool write_page(const char *path, const struct bytes *runs, size_t num) {
  FILE *f = fopen(path, "w");
  bool ok = f && report_html(f, runs, num);
  if (f && fclose(f) != 0)
    ok = false;
  if (!ok)
    cli_error(path, "%s", strerror(errno));
  return ok;
}

static bool write_html(const char *path, const struct load_stats *s, const struct report_context *c) {
  char *text = NULL;
  size_t n = 0;
  FILE *f = path ? open_memstream(&text, &n) : NULL;
  if (!path)
    return true;
  bool ok = f && report_json(f, s, c);
  if (f && fclose(f) != 0)
    ok = false;
  struct bytes run = bytes_of(text, n);
  ok = ok && write_page(path, &run, 1);
  free(text);
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
    if (!memmem(texts[n], len, "\"format\": 1", 11)) {
      cli_error(files[n], "is not a result of sluice load (format 1)");
      free(texts[n]);
      break;
    }
  }
  bool ok = n == num && write_page(out, runs, (size_t)n);
  while (n-- > 0)
    free(texts[n]);
  return ok ? EXIT_DONE : EXIT_FAILED;
}

static void summary_of_search(const struct load_capacity *c) {
  bool late = false;
  for (uint32_t i = 0; i < c->num_probes; i++)
    late |= c->probes[i].late;
  if (!c->found) {
    printf("no limit between the rates of the search: %s\n", c->num_probes && c->probes[0].passed ? "every probe passed" : "no probe passed");
    return;
  }
  printf("highest rate within the service level: %.0f requests a second (95 %% interval %.0f to %.0f, %u probes)%s\n", c->rate, c->low, c->high,
         c->num_probes, late ? "; the generator itself was late in some" : "");
  if (c->spike_rate > 0 && c->recovery_s >= 0)
    printf("after %.1f s at %.0f a second, requests were in time again %.1f s later (at %.0f a second)\n", c->spike_s, c->spike_rate, c->recovery_s,
           c->base_rate);
  else if (c->spike_rate > 0)
    printf("after %.1f s at %.0f a second, requests were not in time again before the run ended\n", c->spike_s, c->spike_rate);
}

void load_summary(const struct load_stats *s, const struct report_context *c, const char *verdict) {
  printf("%s: %lu requests in %.1f s (%.0f a second), %.3f GB, %lu failed, %lu unanswered\n", c->sc->name, s->requests, s->elapsed_s,
         (double)s->requests / (s->elapsed_s > 0 ? s->elapsed_s : 1), (double)s->bytes / 1e9, s->errors, s->unanswered);
  printf("latency p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, max %.3f ms; service p99 %.3f ms; generator lag p99 %.3f ms, CPU %.2f us a request\n",
         (double)hist_percentile(&s->latency, 50) / 1e3, (double)hist_percentile(&s->latency, 99) / 1e3,
         (double)hist_percentile(&s->latency, 99.9) / 1e3, (double)s->latency.max / 1e3, (double)hist_percentile(&s->service, 99) / 1e3,
         (double)hist_percentile(&s->lag, 99) / 1e3, s->requests ? s->cpu_s * 1e6 / (double)s->requests : 0);
  if (s->sessions)
    printf("%lu sessions, startup p50 %.3f ms, p99 %.3f ms; %lu of %lu segments late; %.1f s waited in %.1f s played; %.0f bytes a listener\n",
           s->sessions, (double)hist_percentile(&s->startup, 50) / 1e3, (double)hist_percentile(&s->startup, 99) / 1e3, s->misses,
           s->segments, s->rebuffer_s, s->played_s, c->bytes_per_listener);
  if (s->verified)
    printf("%lu segments compared with the clear source (%lu decrypted, the others the same bytes as one of these), %lu wrong\n", s->verified,
           s->decrypted, s->wrong);
  if (c->capacity)
    summary_of_search(c->capacity);
  fputs(verdict, stdout);
}

bool load_write(const struct load_args *a, const struct load_stats *s, const struct report_context *c) {
  bool json = write_with(a->json, report_json, s, c), hdr = write_with(a->hdr, report_hdr, s, c);
  return write_html(a->html, s, c) && json && hdr;
}
