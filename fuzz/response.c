// What a key server, or a server under load, answers on a connection. Fed in pieces it must say what it says fed whole; a
// whole body is as long as was announced and allowed. Source: RFC 9112 §4, §6, §7.
// The first byte of the input chooses: bit 0 the answer to a HEAD, bit 1 a body of at most 64 bytes, else bit 2 an owner
// that stops behind 100 of them.
#include "base/writer.h"
#include "net/http_response.h"
#include "fuzz.h"

enum { MAX_BODY = 64, STOP_BEHIND = 100 };

// What the owner of a response saw: header lines and body, as text.
struct seen {
  struct http_response r;
  struct writer head, body;
  enum http_response_state last;
  size_t used;
  bool stops;
};

static void on_header(struct http_response *r, struct bytes name, struct bytes value) {
  struct seen *s = r->owner;
  MUST(name.n && name.n <= sizeof r->name && value.n <= sizeof r->value);
  MUST(!memchr(name.p, ':', name.n) && !memchr(value.p, '\n', value.n) && (!value.n || value.p[value.n - 1] != ' '));
  wr_bytes(&s->head, name);
  wr_u8(&s->head, ':');
  wr_bytes(&s->head, value);
  wr_u8(&s->head, '\n');
}

static bool on_body(struct http_response *r, struct bytes piece) {
  struct seen *s = r->owner;
  MUST(piece.n);
  wr_bytes(&s->body, piece);
  MUST(s->body.n == r->body_len);
  return !s->stops || s->body.n <= STOP_BEHIND;
}

static void begin(struct seen *s, uint8_t choice, size_t size) {
  *s = (struct seen){.r = {.owner = s, .header = on_header, .body = on_body}};
  s->stops = (choice & 6) == 4;
  s->r.max_body = choice & 2 ? MAX_BODY : 0;
  // A line of the head is written with as many bytes as it had, or fewer.
  s->head = wr_of(malloc(size + 1), size + 1);
  s->body = wr_of(malloc(size + 1), size + 1);
  MUST(s->head.p && s->body.p);
  http_response_begin(&s->r, choice & 1);
  s->last = HTTP_RESPONSE_MORE;
}

static void feed(struct seen *s, struct bytes in) {
  uint8_t *copy = malloc(in.n ? in.n : 1);
  size_t used;
  MUST(copy);
  memcpy(copy, in.p, in.n);
  s->last = http_response_feed(&s->r, &used, bytes_of(copy, in.n));
  MUST(used <= in.n && s->last == s->r.state);
  s->used += used;
  free(copy);
}

static void feed_pieces(struct seen *s, struct bytes in, uint32_t seed) {
  size_t most = seed & 1 ? in.n : seed & 2 ? 64 : 2;
  for (size_t at = 0, n; s->last == HTTP_RESPONSE_MORE && at < in.n; at += n) {
    seed = seed * 1664525 + 1013904223;
    n = 1 + (seed >> 8) % most;
    n = n < in.n - at ? n : in.n - at;
    feed(s, bytes_of(in.p + at, n));
  }
}

static void check_whole(const struct seen *s) {
  const struct http_response *r = &s->r;
  MUST(r->status >= 200 && r->status <= 999 && r->num_headers <= HTTP_RESPONSE_HEADERS_MAX);
  MUST(s->body.n == r->body_len && (!r->max_body || r->body_len <= r->max_body));
  MUST(!r->no_body || !r->body_len);
  bool bodyless = r->no_body || r->status == 204 || r->status == 304;
  MUST(bodyless || r->content_length == UINT64_MAX || r->body_len == r->content_length);
}

static void check_same(const struct seen *a, const struct seen *b) {
  MUST(a->last == b->last);
  if (a->last != HTTP_RESPONSE_MORE && a->last != HTTP_RESPONSE_WHOLE)
    return;
  MUST(a->used == b->used && a->r.status == b->r.status && a->r.content_length == b->r.content_length);
  MUST(a->r.body_len == b->r.body_len && a->r.keep_alive == b->r.keep_alive && a->r.head_done == b->r.head_done);
  MUST(bytes_eq(bytes_of(a->head.p, a->head.n), bytes_of(b->head.p, b->head.n)));
  MUST(bytes_eq(bytes_of(a->body.p, a->body.n), bytes_of(b->body.p, b->body.n)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct seen whole, pieces;
  uint32_t seed = (uint32_t)size;
  if (size < 2)
    return 0;
  for (size_t i = 0; i < size; i++)
    seed = seed * 31 + data[i];
  struct bytes in = bytes_of(data + 1, size - 1);
  begin(&whole, data[0], size);
  begin(&pieces, data[0], size);
  feed(&whole, in);
  feed_pieces(&pieces, in, seed);
  // The bound of the head is looked at between pieces.
  if (in.n <= HTTP_RESPONSE_HEAD_MAX)
    check_same(&whole, &pieces);
  if (whole.last == HTTP_RESPONSE_WHOLE)
    check_whole(&whole);
  whole.last = http_response_ended(&whole.r);
  pieces.last = http_response_ended(&pieces.r);
  MUST(whole.last == HTTP_RESPONSE_WHOLE || whole.last == HTTP_RESPONSE_BAD);
  if (in.n <= HTTP_RESPONSE_HEAD_MAX)
    check_same(&whole, &pieces);
  if (whole.last == HTTP_RESPONSE_WHOLE)
    check_whole(&whole);
  free(whole.head.p), free(whole.body.p);
  free(pieces.head.p), free(pieces.body.p);
  return 0;
}
