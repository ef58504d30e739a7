// Bodies of manifests as they come to the load generator, with a Content-Encoding: unpacked they are what another call of
// zlib, given one byte at a time, makes of them; packed again they unpack to the same; what is refused is as it was.
// Also Content-Range: only the form that names what was asked for is found right. Source: RFC 1952, RFC 9110 §8.4.1, §14.4.
// The first byte of the input chooses the encoding.
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "load/playlist.h"
#include "load/session.h"
#include "fuzz.h"

enum { GZIP = 15 + 16, MOST = 1 << 22 };

static struct body body_of(struct bytes in) {
  struct body b = {.p = malloc(in.n ? in.n : 1), .n = in.n, .cap = in.n};
  MUST(b.p);
  memcpy(b.p, in.p, in.n);
  return b;
}

// All members, one byte at a time; false where they are not whole.
static bool inflate_slowly(uint8_t *out, size_t *n, struct bytes in) {
  z_stream z = {.next_out = out, .avail_out = MOST};
  MUST(inflateInit2(&z, GZIP) == Z_OK);
  int r = Z_OK;
  for (size_t i = 0; i < in.n && (r == Z_OK || r == Z_BUF_ERROR || r == Z_STREAM_END); i++) {
    if (r == Z_STREAM_END)
      inflateReset(&z);
    z.next_in = (Bytef *)(uintptr_t)(in.p + i);
    z.avail_in = 1;
    r = inflate(&z, Z_NO_FLUSH);
  }
  *n = MOST - z.avail_out;
  inflateEnd(&z);
  return r == Z_STREAM_END;
}

static void check_again(struct bytes text) {
  struct diag d = {0};
  struct body b = {.cap = compressBound(text.n) + 64};
  MUST((b.p = malloc(b.cap)) != NULL);
  z_stream z = {.next_in = (Bytef *)(uintptr_t)text.p, .avail_in = (uInt)text.n};
  z.next_out = b.p;
  z.avail_out = (uInt)b.cap;
  MUST(deflateInit2(&z, 1, Z_DEFLATED, GZIP, 8, Z_DEFAULT_STRATEGY) == Z_OK && deflate(&z, Z_FINISH) == Z_STREAM_END);
  b.n = b.cap - z.avail_out;
  deflateEnd(&z);
  MUST(!body_unpack(&b, "GZIP", &d) && bytes_eq(bytes_of(b.p, b.n), text));
  free(b.p);
}

static void check_gzip(struct bytes in) {
  static uint8_t slowly[MOST];
  struct body b = body_of(in);
  struct diag d = {0};
  const uint8_t *was = b.p;
  size_t n = 0;
  enum err e = body_unpack(&b, "gzip", &d);
  bool whole = inflate_slowly(slowly, &n, in);
  if (e) {
    MUST((e == ERR_SYNTAX || e == ERR_LIMIT) && d.err == e && b.p == was && bytes_eq(bytes_of(b.p, b.n), in));
    MUST(!whole);
  } else if (b.n < MOST) {
    MUST(whole && bytes_eq(bytes_of(b.p, b.n), bytes_of(slowly, n)));
    check_again(bytes_of(b.p, b.n));
  }
  free(b.p);
}

static void check_other(struct bytes in, const char *encoding) {
  struct body b = body_of(in);
  struct diag d = {0};
  bool gzip = in.n >= 2 && in.p[0] == 0x1f && in.p[1] == 0x8b;
  enum err e = body_unpack(&b, encoding, &d);
  MUST(e == (strcmp(encoding, "br") != 0 ? gzip ? ERR_SYNTAX : ERR_OK : ERR_UNSUPPORTED) && d.err == e);
  MUST(bytes_eq(bytes_of(b.p, b.n), in));
  free(b.p);
}

static void check_content_range(const char *text, uint64_t from, uint64_t to, uint64_t of) {
  char why[CONTENT_RANGE_WHY], want[96];
  memset(why, 'x', sizeof why);
  content_range_wrong(why, text, from, to, of);
  MUST(memchr(why, 0, sizeof why));
  if (why[0])
    return;
  // Numbers may have zeros in front, and "bytes" any case: without them it is the text.
  const char *p = text;
  char plain[96];
  size_t n = 0;
  for (; *p && n + 1 < sizeof plain; p++)
    if (*p != '0' || (n && strchr("0123456789", plain[n - 1])) || p[1] < '0' || p[1] > '9')
      plain[n++] = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
  plain[n] = 0;
  int len = snprintf(want, sizeof want, "bytes %lu-%lu/", from, to);
  MUST(!strncmp(plain, want, (size_t)len) && plain[len]);
  MUST(!of || plain[len] == '*' || strtoull(plain + len, NULL, 10) == of);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const others[] = {"", "identity", "br"};
  if (!size)
    return 0;
  struct bytes in = bytes_of(data + 1, size - 1);
  char *text = malloc(size);
  MUST(text);
  memcpy(text, in.p, in.n);
  text[in.n] = 0;
  check_gzip(in);
  check_other(in, others[data[0] % 3]);
  check_content_range(text, 100, 199, data[0] & 4 ? 1000 : 0);
  free(text);
  return 0;
}
