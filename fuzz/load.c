// What `sluice load` reads from files but scenarios: lists of paths, and results of earlier runs for a page. The first byte of
// the input chooses. A path for each line that begins with a slash comes out, in their order, as it can stand in a request, and
// stays the same when it is resolved again. Of results a page is made whose script holds the same JSON and does not end before
// it does. Reading is internal to the command's files, which are part of this one. Source: docs/load.md; RFC 3986 §3.3, RFC
// 8259.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLUICE_VERSION "0"
#define options options_of_load
#include "cli/load.c" // NOLINT(bugprone-suspicious-include)
#undef options
#include "cli/load_output.c" // NOLINT(bugprone-suspicious-include)

#include "fuzz.h"
#include "net/http.h"

// Of main.c, which knows the other commands; not asked for here.
int cli_help(const char *command, const char *options) {
  (void)command, (void)options;
  return 0;
}

static void check_request(const char *path) {
  static uint8_t text[PLAYLIST_MAX_URI + 64];
  struct writer w = wr_of(text, sizeof text);
  struct http_parser p;
  char again[PLAYLIST_MAX_URI];
  size_t used = 0;
  wr_fmt(&w, "GET ");
  wr_str(&w, path);
  wr_str(&w, " HTTP/1.1\r\nHost: h\r\n\r\n");
  MUST(wr_ok(&w));
  http_begin(&p);
  MUST(http_feed(&p, text, w.n, &used) == HTTP_PARSE_COMPLETE && bytes_eq(http_text(text, p.url), bytes_str(path)));
  if (path[1] != '/') // two slashes begin a host
    MUST(!uri_resolve(again, "/", bytes_str(path)) && !strcmp(again, path));
}

static void check_paths(struct bytes in) {
  char file[64], *said = NULL;
  struct load_path *paths = NULL;
  struct alloc_heap mem;
  uint32_t num = 0, n = 0;
  size_t len = 0;
  FILE *was = stderr;
  int fd = memfd_create("paths", MFD_CLOEXEC);
  MUST(fd >= 0 && write(fd, in.p, in.n) == (ssize_t)in.n);
  snprintf(file, sizeof file, "/proc/self/fd/%d", fd);
  alloc_heap_init(&mem, 8 << 20);
  stderr = open_memstream(&said, &len);
  bool ok = read_paths(&paths, &num, &mem.base, file);
  fclose(stderr);
  stderr = was;
  MUST(ok == !len && (!ok || num));
  for (size_t i = 0; i < len; i++)
    MUST(said[i] == '\n' ? i + 1 == len : (unsigned char)said[i] >= 0x20 && said[i] != 0x7f);
  for (size_t at = 0; ok && at < in.n; at++)
    if (in.p[at] == '/' && (!at || in.p[at - 1] == '\n' || in.p[at - 1] == '\r')) {
      MUST(n < num);
      check_request(paths[n++].path);
    }
  MUST(!ok || n == num);
  alloc_heap_free(&mem);
  free(said);
  close(fd);
}

static void check_page(const char *page, size_t n, const json_t *want, int num) {
  static const char from[] = "const runs=[";
  const char *runs = page ? strstr(page, from) : NULL, *end = runs ? memmem(runs, (size_t)(page + n - runs), "</", 2) : NULL;
  MUST(runs && end);
  runs += sizeof from - 2;
  // The array ends where JSON does; after it the page goes on as it is without runs.
  json_error_t e;
  json_t *got = json_loadb(runs, (size_t)(end - runs), JSON_DISABLE_EOF_CHECK, &e);
  require(got != NULL, e.text);
  MUST(json_array_size(got) == (size_t)num);
  for (int i = 0; i < num; i++)
    MUST(json_equal(json_array_get(got, (size_t)i), want));
  MUST(!strncmp(runs + e.position, ";\n", 2) && !memmem(runs, (size_t)e.position, "<", 1));
  json_decref(got);
}

static void check_results(struct bytes in) {
  const struct bytes runs[] = {in, in};
  const char *text = (const char *)in.p;
  struct page page;
  json_t *doc = json_loadb(text, in.n, 0, NULL);
  if (is_result(text, in.n)) {
    MUST(doc && page_end(&page, page_begin(&page) && report_html(page.f, runs, 2)));
    check_page(page.text, page.n, doc, 2);
    free(page.text);
  }
  json_decref(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size && data[0] & 1)
    check_results(bytes_of(data + 1, size - 1));
  else if (size)
    check_paths(bytes_of(data + 1, size - 1));
  return 0;
}
