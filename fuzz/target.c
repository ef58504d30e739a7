// The target of a request line, from which a path is made: what is cut off, and what percent-encoding stands for. decode_path is
// internal to src/server/request.c, so that file is part of this one. Source: RFC 9112 §3.2 (forms), RFC 3986 §2.1, §2.2.
#include "server/request.c" // NOLINT(bugprone-suspicious-include)

#include "base/writer.h"
#include "drm/markup.h"
#include "fuzz.h"

static size_t count(const char *p, size_t n, char c) {
  size_t num = 0;
  for (size_t i = 0; i < n; i++)
    num += p[i] == c;
  return num;
}

// Percent-encoded again it is the same path, however it had been written.
static void check_again(const char path[ROUTE_PATH_MAX], size_t n) {
  uint8_t text[3 * ROUTE_PATH_MAX];
  char back[ROUTE_PATH_MAX];
  struct writer w = wr_of(text, sizeof text);
  percent_write(&w, bytes_of(path, n), true);
  MUST(wr_ok(&w) && decode_path(back, bytes_of(text, w.n)) == (int)n && !memcmp(back, path, n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct bytes in = bytes_of(data, size), path = http_target_path(in);
  bool whole = !path.n || (path.p >= data && path.p + path.n <= data + size); // else the "/" of an authority without a path
  MUST(whole || bytes_eq(path, BYTES_LIT("/")));
  MUST(!path.n || !memchr(path.p, '?', path.n));
  MUST(!size || data[0] != '/' || path.p == data); // origin form: nothing is cut off in front
  char *out = malloc(ROUTE_PATH_MAX);              // no byte more than the server has
  MUST(out);
  int n = decode_path(out, path);
  MUST(n >= -1 && n <= ROUTE_PATH_MAX);
  size_t percent = count((const char *)path.p, path.n, '%');
  if (!percent)
    MUST(path.n > ROUTE_PATH_MAX ? n == 0 : n == (int)path.n && !memcmp(out, path.p, path.n));
  else if (n > 0) {
    MUST((size_t)n + 2 * percent == path.n);
    MUST(count(out, (size_t)n, '/') == count((const char *)path.p, path.n, '/')); // none that was encoded
    check_again(out, (size_t)n);
  }
  struct route r;
  route_parse(&r, bytes_of(out, n < 0 ? 0 : (size_t)n));
  MUST(r.kind == ROUTE_NONE || (r.asset.n && !memchr(out, 0, (size_t)n)));
  free(out);
  return 0;
}
