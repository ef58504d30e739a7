// Values of request headers and of dates: the parts of net/http.h that need no parser state.
#include "net/http.h"
#include "base/text.h"
#include <strings.h>

static struct bytes trim(struct bytes b) {
  while (b.n && (b.p[0] == ' ' || b.p[0] == '\t')) {
    b.p++;
    b.n--;
  }
  while (b.n && (b.p[b.n - 1] == ' ' || b.p[b.n - 1] == '\t'))
    b.n--;
  return b;
}

struct bytes http_target_path(struct bytes t) {
  const uint8_t *query = memchr(t.p, '?', t.n);
  if (query)
    t.n = (size_t)(query - t.p);
  if (t.n == 0 || t.p[0] == '/')
    return t;
  for (size_t i = 0; i + 2 < t.n; i++) {
    if (t.p[i] != ':' || t.p[i + 1] != '/' || t.p[i + 2] != '/')
      continue;
    const uint8_t *slash = memchr(t.p + i + 3, '/', t.n - i - 3);
    return slash ? bytes_of(slash, t.n - (size_t)(slash - t.p)) : BYTES_LIT("/");
  }
  return t;
}

// next_item cuts the text before the next comma off `rest`; false at the end.
static bool next_item(struct bytes *item, struct bytes *rest) {
  if (!rest->p)
    return false;
  const uint8_t *comma = rest->n ? memchr(rest->p, ',', rest->n) : NULL;
  size_t n = comma ? (size_t)(comma - rest->p) : rest->n;
  *item = trim(bytes_of(rest->p, n));
  *rest = comma ? bytes_of(comma + 1, rest->n - n - 1) : (struct bytes){0};
  return true;
}

// A number of any length: more than 64 bits count as the largest, which clips like it.
static bool read_pos(uint64_t *out, struct bytes digits) {
  if (digits.n == 0)
    return false;
  for (size_t i = 0; i < digits.n; i++)
    if (digits.p[i] < '0' || digits.p[i] > '9')
      return false;
  if (parse_u64(out, digits))
    *out = UINT64_MAX;
  return true;
}

enum spec { SPEC_BAD, SPEC_OUTSIDE, SPEC_OK };

// One range-spec, in which there are no blanks. Source: RFC 9110 §14.1.1, §14.1.2.
static enum spec read_spec(struct http_span64 *out, struct bytes s, uint64_t size) {
  const uint8_t *dash = s.n ? memchr(s.p, '-', s.n) : NULL;
  if (!dash)
    return SPEC_BAD;
  struct bytes from = bytes_of(s.p, (size_t)(dash - s.p));
  struct bytes to = bytes_of(dash + 1, s.n - (size_t)(dash - s.p) - 1);
  uint64_t first, last = UINT64_MAX;
  if (to.n && !read_pos(&last, to))
    return SPEC_BAD;
  if (from.n == 0) { // the last bytes
    if (to.n == 0)
      return SPEC_BAD;
    uint64_t n = last < size ? last : size;
    *out = (struct http_span64){size - n, n};
    return n ? SPEC_OK : SPEC_OUTSIDE;
  }
  if (!read_pos(&first, from) || last < first)
    return SPEC_BAD;
  if (first >= size)
    return SPEC_OUTSIDE;
  if (last > size - 1)
    last = size - 1;
  *out = (struct http_span64){first, last - first + 1};
  return SPEC_OK;
}

enum http_range http_ranges(struct http_span64 out[HTTP_RANGES_MAX], uint32_t *num, struct bytes value, uint64_t size) {
  static const char unit[] = "bytes";
  enum { UNIT = sizeof unit - 1 };
  *num = 0;
  if (value.n <= UNIT)
    return HTTP_RANGE_NONE;
  for (size_t i = 0; i < UNIT; i++)
    if ((value.p[i] | 0x20) != unit[i])
      return HTTP_RANGE_NONE;
  struct bytes rest = bytes_of(value.p + UNIT + 1, value.n - UNIT - 1), item;
  struct bytes first = trim(rest);
  if (value.p[UNIT] != '=' || !first.n || (first.p > rest.p && first.p[0] != ',')) // blanks stand around commas. Source: RFC 9110 §5.6.1.2.
    return HTTP_RANGE_NONE;
  uint32_t asked = 0, got = 0;
  uint64_t sum = 0;
  while (next_item(&item, &rest)) {
    if (item.n == 0) // empty list members are allowed
      continue;
    if (++asked > HTTP_RANGES_MAX)
      return HTTP_RANGE_NONE;
    enum spec s = read_spec(&out[got], item, size);
    if (s == SPEC_BAD)
      return HTTP_RANGE_NONE;
    if (s == SPEC_OUTSIDE)
      continue;
    if (out[got].len > size - (sum < size ? sum : size)) // together more than the whole: send the whole
      return HTTP_RANGE_NONE;
    sum += out[got++].len;
  }
  if (asked == 0)
    return HTTP_RANGE_NONE;
  *num = got;
  return got ? HTTP_RANGE_OK : HTTP_RANGE_UNSATISFIABLE;
}

// Entity tags may hold commas, so the list is walked by quotes. Source: RFC 9110 §8.8.3.
bool http_etag_listed(struct bytes value, struct bytes etag, bool weak) {
  struct bytes v = trim(value);
  if (v.n == 1 && v.p[0] == '*')
    return true;
  size_t i = 0;
  while (i < v.n) {
    bool is_weak = v.n - i >= 2 && v.p[i] == 'W' && v.p[i + 1] == '/';
    if (is_weak)
      i += 2;
    if (i >= v.n)
      return false;
    if (v.p[i] != '"') {
      if (is_weak || (v.p[i] != ',' && v.p[i] != ' ' && v.p[i] != '\t'))
        return false;
      i++;
      continue;
    }
    const uint8_t *close = i + 1 < v.n ? memchr(v.p + i + 1, '"', v.n - i - 1) : NULL;
    if (!close)
      return false;
    struct bytes tag = bytes_of(v.p + i, (size_t)(close - (v.p + i)) + 1);
    if ((weak || !is_weak) && bytes_eq(tag, etag))
      return true;
    i += tag.n;
  }
  return false;
}

bool http_next_line(struct bytes *value, size_t *at, const struct http_parser *p, const uint8_t *base, enum http_header h) {
  static const struct bytes names[HTTP_H_COUNT] = {
#define X(id, text) [id] = BYTES_LIT(text),
      HTTP_HEADERS(X)
#undef X
  };
  struct bytes name = names[h];
  for (const uint8_t *lf; *at < p->body_off && (lf = memchr(base + *at, '\n', p->body_off - *at));) {
    const uint8_t *line = base + *at;
    size_t n = (size_t)(lf - line);
    *at += n + 1;
    if (n <= name.n + 1 || line[name.n] != ':' || strncasecmp((const char *)line, (const char *)name.p, name.n) != 0)
      continue;
    *value = trim(bytes_of(line + name.n + 1, n - name.n - 2));
    return true;
  }
  return false;
}

// Repeated lines are rare: only then the head is gone through again.
bool http_etag_given(const struct http_parser *p, const uint8_t *base, enum http_header h, struct bytes etag, bool weak) {
  struct bytes value;
  if (!(p->repeated & 1u << h))
    return http_etag_listed(http_text(base, p->header[h]), etag, weak);
  for (size_t at = 0; http_next_line(&value, &at, p, base, h);)
    if (http_etag_listed(value, etag, weak))
      return true;
  return false;
}

// Civil date from days since 1970, proleptic Gregorian, eras of 400 years from March 1st.
void http_date(char out[29], uint64_t unix_s) {
  static const char days[] = "ThuFriSatSunMonTueWed", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  uint64_t day = unix_s / 86400, sec = unix_s % 86400;
  uint64_t z = day + 719468, era = z / 146097, doe = z % 146097;
  uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
  uint64_t d = doy - (153 * mp + 2) / 5 + 1, m = mp < 10 ? mp + 2 : mp - 10; // m from 0
  uint64_t y = yoe + era * 400 + (m <= 1);
  memcpy(out, "Ddd, 00 Mmm 0000 00:00:00 GMT", 29);
  memcpy(out, days + day % 7 * 3, 3);
  memcpy(out + 8, months + m * 3, 3);
  const struct {
    int at, digits;
    uint64_t v;
  } fields[] = {{5, 2, d}, {12, 4, y % 10000}, {17, 2, sec / 3600}, {20, 2, sec / 60 % 60}, {23, 2, sec % 60}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    uint64_t v = fields[i].v;
    for (int k = fields[i].digits; k-- > 0; v /= 10)
      out[fields[i].at + k] = (char)('0' + v % 10);
  }
}

const char *http_reason(unsigned status) {
  static const struct {
    unsigned status;
    const char *text;
  } table[] = {
      {200, "OK"}, {204, "No Content"}, {206, "Partial Content"}, {304, "Not Modified"}, {400, "Bad Request"},
      {401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"}, {408, "Request Timeout"}, {410, "Gone"},
      {411, "Length Required"}, {412, "Precondition Failed"}, {413, "Content Too Large"}, {414, "URI Too Long"},
      {416, "Range Not Satisfiable"}, {417, "Expectation Failed"}, {431, "Request Header Fields Too Large"},
      {451, "Unavailable For Legal Reasons"}, {500, "Internal Server Error"}, {501, "Not Implemented"},
      {503, "Service Unavailable"}, {505, "HTTP Version Not Supported"},
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (table[i].status == status)
      return table[i].text;
  return "Unknown";
}
