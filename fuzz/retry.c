// Header fields of a key server's answer that the exchange reads itself, in heads as they come: Retry-After and
// X-Speke-Version. A number of seconds counts, however long, up to the bound; a date as we write it is read back; of two fields
// the last counts. Both are internal to src/server/exchange_link.c, which is part of this file, with a clock of the target's.
// Source: RFC 9110 §10.2.3, §5.6.7; SPEKE 2.1 (X-Speke-Version).
// Input: 4 bytes of the time since 1970, 4 of another, then lines of a head.
#include <time.h>

static time_t world_time(time_t *out);
#define time world_time
#include "server/exchange_link.c" // NOLINT(bugprone-suspicious-include)
#undef time

#include "net/http.h"
#include "fuzz.h"

static uint32_t now_s;

static time_t world_time(time_t *out) {
  MUST(!out);
  return now_s;
}

static uint32_t bounded(uint64_t s) { return s < MAX_RETRY_AFTER_S ? (uint32_t)s : MAX_RETRY_AFTER_S; }

static void check_date(uint32_t then_s) {
  char date[29];
  http_date(date, then_s);
  MUST(seconds_until(bytes_of(date, sizeof date)) == bounded(then_s > now_s ? then_s - now_s : 0));
}

static uint32_t check_value(struct bytes value) {
  uint64_t n = 0;
  size_t digits = 0;
  uint32_t got = seconds_until(value);
  for (; digits < value.n && value.p[digits] >= '0' && value.p[digits] <= '9'; digits++)
    n = bounded(n * 10 + (value.p[digits] - (uint64_t)'0'));
  if (digits && digits == value.n)
    MUST(got == n);
  else
    MUST(!got || (got <= MAX_RETRY_AFTER_S && value.n == 29 && !memcmp(value.p + 26, "GMT", 3)));
  return got;
}

// What a link knows of the fields so far, by the same rules.
static struct {
  uint32_t seconds;
  bool other_version;
} want;

static void on_field(struct http_response *r, struct bytes name, struct bytes value) {
  if (name.n == 11 && !strncasecmp((const char *)name.p, "retry-after", 11))
    want.seconds = check_value(value);
  if (name.n == 15 && !strncasecmp((const char *)name.p, "x-speke-version", 15))
    want.other_version = !bytes_eq(value, BYTES_LIT("2.1"));
  on_header(r, name, value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct key_provider speke = {.headers = "X-Speke-Version: 2.1\r\n"};
  struct key_server server = {.provider = &speke};
  struct upstream up = {.server = &server};
  struct link l = {.up = &up};
  struct http_response r = {.owner = &l, .header = on_field};
  size_t used;
  if (size < 8)
    return 0;
  now_s = load_be32(data);
  want.seconds = 0;
  want.other_version = false;
  check_date(load_be32(data + 4));
  check_date(now_s + data[4]);
  (void)check_value(bytes_of(data + 8, size - 8));
  http_response_begin(&r, false);
  if (http_response_feed(&r, &used, BYTES_LIT("HTTP/1.1 503 No\r\n")) == HTTP_RESPONSE_MORE)
    (void)http_response_feed(&r, &used, bytes_of(data + 8, size - 8));
  MUST(l.retry_after_s == want.seconds && l.wrong_version == want.other_version);
  return 0;
}
