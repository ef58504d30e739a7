// Lines of the access log, of what clients send: of any bytes a line is one line of printable ASCII; JSON is read by another reader and
// gives the bytes back, each as the code point of its value; of the combined form a quote ends only what one began.
// Lines are made inside of src/obs/access.c, so that file is part of this one. Source: RFC 8259 §7.
// The input: method and flags, status, 16 bytes of address, then a length byte before each text.
#include "obs/access.c" // NOLINT(bugprone-suspicious-include)

#include <jansson.h>

#include "fuzz.h"

enum { HEAD = 20 };

static void check_line(const struct writer *w) {
  MUST(wr_ok(w) && w->n > 1 && w->p[w->n - 1] == '\n');
  for (size_t i = 0; i + 1 < w->n; i++)
    MUST(w->p[i] >= 0x20 && w->p[i] < 0x7f);
}

static void check_quotes(const struct writer *w) {
  unsigned quotes = 0;
  for (size_t i = 0; i < w->n; i++)
    if (w->p[i] == '\\')
      i++;
    else
      quotes += w->p[i] == '"';
  MUST(quotes == 6); // request, referer, agent
}

static void check_json(const struct writer *w, const struct access_record *r, const char *const text[]) {
  static const char *const names[ACCESS_TEXTS] = {"path", "range", "referer", "agent", "forwarded_for"};
  json_error_t e;
  json_t *doc = json_loadb((const char *)w->p, w->n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
  require(doc != NULL, e.text);
  for (int i = 0; i < ACCESS_TEXTS; i++) {
    const json_t *v = json_object_get(doc, names[i]);
    MUST(json_is_string(v));
    const uint8_t *p = (const uint8_t *)json_string_value(v);
    size_t n = json_string_length(v), at = 0;
    for (unsigned k = 0; k < r->len[i]; k++) {
      MUST(at < n);
      unsigned c = p[at++];
      if (c >= 0x80) { // two bytes of UTF-8
        MUST(at < n);
        c = (c & 31) << 6 | (p[at++] & 63);
      }
      MUST(c == (uint8_t)text[i][k]);
    }
    MUST(at == n);
  }
  MUST(json_integer_value(json_object_get(doc, "status")) == r->status);
  json_decref(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct access_log log;
  static struct access_record r;
  uint8_t line[LINE_MAX_BYTES];
  const char *text[ACCESS_TEXTS];
  if (size < HEAD)
    return 0;
  r = (struct access_record){.method = data[0], .tls = data[1] & 1, .http10 = data[1] >> 1 & 1, .status = load_be16(data + 2),
                             .wall_ns = load_be64(data + 4) >> (data[1] >> 2), .bytes = load_be64(data + 8) >> 1, // what jansson reads
                             .duration_us = load_be64(data + 12)};
  memcpy(r.ip, data + 4, 16);
  struct bytes rest = bytes_of(data + HEAD, size - HEAD);
  size_t used = 0;
  for (int i = 0; i < ACCESS_TEXTS; i++) {
    size_t n = rest.n ? (size_t)rest.p[0] * (i ? 1 : 4) : 0, left = rest.n ? rest.n - 1 : 0;
    n = n < left ? n : left;
    text[i] = r.text + used;
    access_add(&r, (enum access_text)i, bytes_of(rest.p + (rest.n != 0), n));
    used += r.len[i];
    rest = bytes_of(rest.p + (rest.n != 0) + n, left - n);
  }
  for (int format = ACCESS_COMBINED; format <= ACCESS_JSON; format++) {
    struct writer w = wr_of(line, sizeof line);
    log.format = (enum access_format)format;
    log.when[0] = 0; // another second, whose form is another
    if (format == ACCESS_JSON)
      put_json(&log, &w, &r, text);
    else
      put_combined(&log, &w, &r, text);
    check_line(&w);
    if (format == ACCESS_JSON)
      check_json(&w, &r, text);
    else
      check_quotes(&w);
  }
  return 0;
}
