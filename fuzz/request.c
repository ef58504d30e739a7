// What a client sends on a connection: requests, one behind the other. Fed in pieces they must say what they say fed whole.
// Range and entity tag values and paths are judged by what may come out of them: those of the heads, and the input itself as
// one. Source: RFC 9112 (framing), RFC 9110 §14.1.2 (ranges), §8.8.3 and §13.1 (entity tags); server/route.h (paths).
#include "base/text.h"
#include "net/http.h"
#include "server/route.h"
#include "fuzz.h"

enum { MAX_PIPELINE = 8 };

// What one request came to.
struct outcome {
  struct http_parser p;
  enum http_parse last;
  size_t used;
  bool head;
};

static uint32_t next_random(uint32_t *seed) { return (*seed = *seed * 1664525 + 1013904223) >> 8; }

static enum http_parse feed(struct outcome *o, const uint8_t *base, size_t n) {
  do {
    o->last = http_feed(&o->p, base, n, &o->used);
    MUST(o->used <= n && o->p.fed <= n);
    MUST(o->last != HTTP_PARSE_HEAD || !o->head); // comes once
    o->head |= o->last == HTTP_PARSE_HEAD || o->last == HTTP_PARSE_COMPLETE;
  } while (o->last == HTTP_PARSE_HEAD);
  return o->last;
}

// In pieces, each time from another place that ends where the bytes do.
static void feed_pieces(struct outcome *o, struct bytes in, uint32_t seed) {
  size_t most = seed & 1 ? in.n : seed & 2 || in.n > 1024 ? 64 : 3;
  enum http_parse r = HTTP_PARSE_MORE;
  for (size_t n = 0; r == HTTP_PARSE_MORE && n < in.n;) {
    n += 1 + next_random(&seed) % most;
    n = n < in.n ? n : in.n;
    uint8_t *copy = malloc(n);
    MUST(copy);
    memcpy(copy, in.p, n);
    r = feed(o, copy, n);
    free(copy);
  }
}

static bool same_span(struct http_span a, struct http_span b) { return a.len == b.len && (!a.len || a.off == b.off); }

static void check_same(const struct outcome *a, const struct outcome *b, size_t n) {
  if (a->last == HTTP_PARSE_BAD || b->last == HTTP_PARSE_BAD) {
    MUST(a->last == b->last);
    // Of a head that is too long and wrong, the one or the other is seen first.
    MUST(n > HTTP_HEAD_MAX || a->p.fail == b->p.fail);
    return;
  }
  MUST(a->last == b->last && a->head == b->head && a->used == b->used);
  if (!a->head)
    return;
  MUST(same_span(a->p.url, b->p.url) && a->p.seen == b->p.seen && a->p.repeated == b->p.repeated);
  for (int h = 0; h < HTTP_H_COUNT; h++)
    MUST(same_span(a->p.header[h], b->p.header[h]));
  MUST(a->p.method == b->p.method && a->p.num_headers == b->p.num_headers && a->p.keep_alive == b->p.keep_alive);
  MUST(a->p.http10 == b->p.http10 && a->p.chunked == b->p.chunked);
  MUST(a->p.body_off == b->p.body_off && a->p.body_len == b->p.body_len);
}

// What is asked for lies inside of the entity, is together no more than it, and reads the same when it is written again.
static void check_ranges(struct bytes value, uint64_t size) {
  struct http_span64 got[HTTP_RANGES_MAX], again[HTTP_RANGES_MAX];
  uint32_t num = 99, num_again = 0;
  uint8_t text[HTTP_RANGES_MAX * 42 + 8];
  if (http_ranges(got, &num, value, size) != HTTP_RANGE_OK) {
    MUST(num == 0);
    return;
  }
  MUST(num >= 1 && num <= HTTP_RANGES_MAX);
  struct writer w = wr_of(text, sizeof text);
  wr_str(&w, "bytes=");
  uint64_t left = size;
  for (uint32_t i = 0; i < num; i++) {
    MUST(got[i].len && got[i].off < size && got[i].len <= size - got[i].off);
    MUST(got[i].len <= left);
    left -= got[i].len;
    wr_str(&w, i ? ", " : "");
    wr_dec(&w, got[i].off);
    wr_str(&w, "-");
    wr_dec(&w, got[i].off + got[i].len - 1);
  }
  MUST(wr_ok(&w) && http_ranges(again, &num_again, bytes_of(text, w.n), size) == HTTP_RANGE_OK);
  MUST(num == num_again && !memcmp(got, again, num * sizeof *got));
}

static void check_tags(struct bytes value, struct bytes etag) {
  bool strong = http_etag_listed(value, etag, false), weak = http_etag_listed(value, etag, true);
  MUST(!strong || weak);
  MUST(!weak || memmem(value.p, value.n, etag.p, etag.n) || memchr(value.p, '*', value.n));
}

// The first thing in quotes of a value, for a tag that may be listed.
static struct bytes quoted(struct bytes value) {
  const uint8_t *from = value.n ? memchr(value.p, '"', value.n) : NULL;
  size_t left = from ? value.n - (size_t)(from - value.p) - 1 : 0;
  const uint8_t *to = left ? memchr(from + 1, '"', left) : NULL;
  return to ? bytes_of(from, (size_t)(to - from) + 1) : BYTES_LIT("\"0f-1\"");
}

// A path that means something is the only one that means it: put together again from what was read it is the same.
static void check_route(struct bytes path) {
  static const char *const leaf[] = {[ROUTE_MASTER] = "master.m3u8", [ROUTE_MASTER_RANGES] = "byterange.m3u8",
                                     [ROUTE_MPD] = "manifest.mpd", [ROUTE_MPD_RANGES] = "ondemand.mpd",
                                     [ROUTE_MEDIA] = "media.m3u8", [ROUTE_MEDIA_RANGES] = "byterange.m3u8",
                                     [ROUTE_INIT] = "init.mp4", [ROUTE_KEY] = "key", [ROUTE_LICENCE] = "license"};
  struct route r;
  uint8_t text[ROUTE_PATH_MAX];
  struct writer w = wr_of(text, sizeof text);
  route_parse(&r, path);
  if (r.kind == ROUTE_NONE) {
    MUST(!r.asset.n && !r.track.n && !r.epoch && !r.segment);
    return;
  }
  wr_str(&w, "/");
  wr_bytes(&w, r.asset);
  wr_str(&w, "/");
  wr_str(&w, scheme_name(r.scheme));
  wr_str(&w, "/");
  if (r.kind >= ROUTE_MEDIA) {
    MUST(r.epoch);
    wr_dec(&w, r.epoch);
    wr_str(&w, "/");
    wr_bytes(&w, r.track);
    wr_str(&w, r.kind == ROUTE_FILE ? ".mp4" : r.kind == ROUTE_LICENCE ? "" : "/");
  }
  if (r.kind == ROUTE_SEGMENT) {
    MUST(r.segment);
    wr_dec(&w, r.segment);
    wr_str(&w, ".m4s");
  } else if (r.kind != ROUTE_FILE) {
    wr_str(&w, leaf[r.kind]);
  }
  MUST(wr_ok(&w) && bytes_eq(bytes_of(text, w.n), path));
  MUST(r.asset.n && !memmem(path.p, path.n, "//", 2) && !memmem(path.p, path.n, "/.", 2) && !memchr(path.p, 0, path.n));
}

static void check_head(const struct outcome *o, const uint8_t *base) {
  const struct http_parser *p = &o->p;
  MUST(p->body_off <= o->used && p->body_off <= HTTP_HEAD_MAX && p->num_headers <= HTTP_HEADERS_MAX);
  MUST(p->url.len && p->url.len <= HTTP_URL_MAX && p->url.off + p->url.len <= p->body_off);
  for (int h = 0; h < HTTP_H_COUNT; h++) {
    struct bytes v = http_text(base, p->header[h]);
    MUST(p->header[h].off <= p->body_off && p->header[h].len <= p->body_off - p->header[h].off);
    MUST(!v.n || (p->seen & 1u << h && !memchr(v.p, '\n', v.n) && !memchr(v.p, 0, v.n) && v.p[v.n - 1] != ' '));
  }
  struct bytes url = http_text(base, p->url);
  const uint8_t *query = memchr(url.p, '?', url.n);
  check_route(bytes_of(url.p, query ? (size_t)(query - url.p) : url.n));
  static const uint64_t sizes[] = {0, 1, 1000, 1 << 20, UINT64_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    check_ranges(http_text(base, p->header[HTTP_H_RANGE]), sizes[i]);
  static const enum http_header lists[] = {HTTP_H_IF_NONE_MATCH, HTTP_H_IF_MATCH};
  for (size_t i = 0; i < 2; i++)
    for (int weak = 0; weak < 2; weak++) {
      struct bytes v = http_text(base, p->header[lists[i]]), etag = quoted(v);
      check_tags(v, etag);
      bool first = http_etag_listed(v, etag, weak), all = http_etag_given(p, base, lists[i], etag, weak);
      MUST(p->repeated & 1u << lists[i] ? !first || all : first == all);
    }
}

// Returns how many bytes the request took; 0: none follows.
static size_t check_request(struct bytes in, uint32_t seed) {
  static struct outcome whole, pieces;
  memset(&whole, 0, sizeof whole);
  memset(&pieces, 0, sizeof pieces);
  http_begin(&whole.p);
  http_begin(&pieces.p);
  feed(&whole, in.p, in.n);
  feed_pieces(&pieces, in, seed);
  check_same(&whole, &pieces, in.n);
  if (whole.last == HTTP_PARSE_BAD) {
    unsigned s = whole.p.fail;
    MUST(s == 400 || s == 414 || s == 431 || s == 501 || s == 505);
    return 0;
  }
  if (whole.head)
    check_head(&whole, in.p);
  if (whole.last != HTTP_PARSE_COMPLETE)
    return 0;
  MUST(whole.p.chunked || whole.used == whole.p.body_off + whole.p.body_len);
  return whole.used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct bytes in = bytes_of(data, size);
  uint32_t seed = (uint32_t)size;
  for (size_t i = 0; i < size; i++)
    seed = seed * 31 + data[i];
  check_ranges(in, 1000);
  check_tags(in, quoted(in));
  check_route(in);
  for (int i = 0; i < MAX_PIPELINE && in.n; i++) {
    size_t used = check_request(in, seed + (uint32_t)i);
    if (!used)
      break;
    in = bytes_of(in.p + used, in.n - used);
  }
  return 0;
}
