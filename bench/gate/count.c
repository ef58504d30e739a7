// For callgrind: every case a fixed number of times, so that two builds do the same work and their instruction counts
// can be compared. Run by bench/gate/callgrind.py with --dump-after=count_pass: one dump per line of output.
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/cases.h"
#include "net/http.h"

static const char *const core_names[] = {"index_build/128k_30min", "index_open/128k_30min", "plan_init/128k_30min", "plan_tag/128k_30min",
                                         "render/clear/32K/hot", "render/cenc/32K/hot", "render/cbcs/32K/hot", "range/cbcs/1000"};

static const char request[] = "GET /coastline/first-light/cbcs/1/aac-160/17.m4s HTTP/1.1\r\n"
                              "Host: music.example\r\n"
                              "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
                              "Accept: */*\r\n"
                              "Accept-Language: en-GB,en;q=0.5\r\n"
                              "Accept-Encoding: identity\r\n"
                              "Referer: https://player.example/album\r\n"
                              "Origin: https://player.example\r\n"
                              "Range: bytes=0-32767\r\n"
                              "Connection: keep-alive\r\n\r\n";

static bool failed;

static void run_http(const struct bench_case *c) {
  struct http_parser p;
  size_t step = (size_t)c->arg[0], end = sizeof request - 1, used = 0;
  http_begin(&p);
  enum http_parse r = HTTP_PARSE_MORE;
  for (size_t n = step < end ? step : end; r == HTTP_PARSE_MORE; n = n + step < end ? n + step : end)
    r = http_feed(&p, (const uint8_t *)request, n, &used);
  if (r != HTTP_PARSE_COMPLETE)
    failed = true, fprintf(stderr, "count: the request is refused\n");
}

static void run_ranges(const struct bench_case *c) {
  struct http_span64 out[HTTP_RANGES_MAX];
  uint32_t num = 0;
  (void)c;
  if (http_ranges(out, &num, bytes_str("bytes=0-99,1000-1999,-500"), 100000) != HTTP_RANGE_OK)
    failed = true, fprintf(stderr, "count: the ranges are refused\n");
}

static const struct bench_case http_cases[] = {
    {.name = "http/request at once", .run = run_http, .arg = {4096}},
    {.name = "http/request in pieces of 16", .run = run_http, .arg = {16}},
    {.name = "http/ranges", .run = run_ranges},
};

// Where callgrind collects. Called through a volatile pointer, so that no compiler inlines or clones it.
static void count_pass(const struct bench_case *c, int times) {
  for (int i = 0; i < times; i++)
    c->run(c);
  __asm__ volatile("" ::: "memory");
}

static void (*const volatile pass)(const struct bench_case *, int) = count_pass;

int main(void) {
  size_t num;
  const struct bench_case *cases = cases_init(&num);
  for (size_t n = 0; n < sizeof core_names / sizeof *core_names; n++) {
    size_t i = 0;
    while (i < num && strcmp(cases[i].name, core_names[n]))
      i++;
    if (i == num) {
      fprintf(stderr, "count: bench/core has no case '%s'\n", core_names[n]);
      return 1;
    }
    pass(&cases[i], 8);
    printf("%s\n", cases[i].name);
  }
  for (size_t i = 0; i < sizeof http_cases / sizeof *http_cases; i++) {
    pass(&http_cases[i], 64);
    printf("%s\n", http_cases[i].name);
  }
  return failed;
}
