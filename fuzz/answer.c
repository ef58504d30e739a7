// What a server under load answers on a connection of the load generator: in which pieces it comes makes no difference; the
// reader of key servers' answers finds the same in it; fields that count come from the head of the answer proper, each as it
// stands there; and redirections lead to a path of the same server, or say why not. Receiving is internal to src/load/client.c,
// which is part of this file, over a connection that takes everything. Source: RFC 9112 §4, §6, §7; RFC 9110 §10.2.2, §15.4;
// RFC 3986 §5.2.
// The first byte of the input chooses: bit 0 the answer to a HEAD, bit 1 a body that is given up behind 16 bytes, then the
// pieces.
#include "load/client.c" // NOLINT(bugprone-suspicious-include)

#include "base/writer.h"
#include "load/session.h"
#include "net/http_response.h"
#include "fuzz.h"

enum { ROOM = 1 << 15, STOP_BEHIND = 16, FD = 99 };

// What one of the two readers was told.
struct seen {
  struct writer body, etag, location, encoding, range;
  uint8_t text[5][ROOM];
  struct client_response r;
  unsigned done;
  bool stops;
};

static void begin(struct seen *s, uint8_t how) {
  struct writer *w[] = {&s->body, &s->etag, &s->location, &s->encoding, &s->range};
  for (size_t i = 0; i < 5; i++)
    *w[i] = wr_of(s->text[i], ROOM);
  s->done = 0;
  s->stops = how & 2;
}

// Blanks behind a value are no part of it. Source: RFC 9110 §5.5.
static struct bytes told(const struct writer *w) {
  size_t n = w->n;
  while (n && (w->p[n - 1] == ' ' || w->p[n - 1] == '\t'))
    n--;
  return bytes_of(w->p, n);
}

// Whether the load generator was told what the other was, blanks aside, which the other does not keep.
static bool same(const struct writer *a, const struct writer *b) {
  size_t i = 0, k = 0;
  for (;; i++, k++) {
    while (i < a->n && (a->p[i] == ' ' || a->p[i] == '\t'))
      i++;
    if (i == a->n || k == b->n || a->p[i] != b->p[k])
      return i == a->n && k == b->n;
  }
}

static struct bytes body(const struct seen *s) { return bytes_of(s->body.p, s->body.n); }

// ---- the load generator's

static ssize_t take_all(struct io *io, int fd, const void *p, size_t n, bool more) {
  return (void)io, (void)p, fd == FD && !more ? (ssize_t)n : -EBADF;
}
static void arm(struct io *io, struct io_op *op, int fd) { (void)io, (void)op, (void)fd; }
static void give_back(struct io *io, uint16_t buf) { (void)io, (void)buf; }
static void cancel(struct io *io, struct io_op *op) { (void)io, (void)op; }
static int shut(struct io *io, int fd, int how) { return (void)io, (void)fd, (void)how, 0; }
static void end_fd(struct io *io, int fd) { (void)io, (void)fd; }

static void on_etag(struct client *c, struct bytes b) { wr_bytes(&((struct seen *)c->owner)->etag, b); }
static void on_location(struct client *c, struct bytes b) { wr_bytes(&((struct seen *)c->owner)->location, b); }

static void on_piece(struct client *c, struct bytes b) {
  struct seen *s = c->owner;
  wr_bytes(&s->body, b);
  c->stop = s->stops && s->body.n > STOP_BEHIND;
}

static void on_done(struct client *c, const struct client_response *r) {
  struct seen *s = c->owner;
  s->done++;
  s->r = *r;
}

// Returns the bytes that came unasked.
static uint64_t receive(struct seen *s, struct bytes in, uint8_t how, size_t piece) {
  static const struct io_ops ops = {
      .recv = arm, .recv_done = give_back, .send = take_all, .shutdown = shut, .close = end_fd, .cancel = cancel};
  struct io io = {&ops};
  struct client_world w = {.io = &io, .done = on_done, .body = on_piece, .etag = on_etag, .location = on_location};
  struct client c;
  begin(s, how);
  client_init(&c, &w, s);
  c.fd = FD;
  c.connected = true;
  client_send(&c, BYTES_LIT("GET / HTTP/1.1\r\n\r\n"), how & 1);
  MUST(c.recv_armed && !s->done);
  while (in.n && !c.closing) {
    size_t n = in.n < piece ? in.n : piece;
    uint8_t *copy = malloc(n); // its own size, so that reading past it is seen
    MUST(copy);
    memcpy(copy, in.p, n);
    c.recv_op.done(&io, &c.recv_op, &(struct io_event){.res = (int32_t)n, .more = true, .data = bytes_of(copy, n)});
    in = bytes_of(in.p + n, in.n - n);
    free(copy);
  }
  c.recv_op.done(&io, &c.recv_op, &(struct io_event){.res = 0});
  MUST(s->done == 1 && c.fd < 0 && !c.closing && !c.busy && client_idle(&c));
  return w.unasked_bytes;
}

static void check_same(const struct seen *a, const struct seen *b) {
  MUST(a->r.status == b->r.status && a->r.whole == b->r.whole && a->r.begun == b->r.begun && a->r.stale == b->r.stale);
  MUST(!a->r.malformed == !b->r.malformed);
  MUST(bytes_eq(body(a), body(b)) || a->stops);
  if (a->r.malformed) // pieces of a field may have been told before what is wrong came
    return;
  MUST(a->r.content_length == b->r.content_length && (a->r.body_len == b->r.body_len || a->stops));
  MUST(bytes_eq(told(&a->etag), told(&b->etag)) && bytes_eq(told(&a->location), told(&b->location)));
  MUST(!strcmp(a->r.encoding, b->r.encoding) && !strcmp(a->r.range, b->r.range));
}

// ---- the other

static void add(struct writer *w, struct bytes b) {
  for (size_t i = 0; i < b.n; i++)
    if (b.p[i] != ' ' && b.p[i] != '\t')
      wr_raw(w, b.p + i, 1);
}

static void on_their_header(struct http_response *r, struct bytes name, struct bytes value) {
  struct seen *s = r->owner;
  char text[48];
  snprintf(text, sizeof text, "%.*s", (int)name.n, (const char *)name.p);
  if (!strcasecmp(text, "etag"))
    add(&s->etag, value);
  if (!strcasecmp(text, "location") && is_moved((unsigned)r->ll.status_code))
    add(&s->location, value);
  struct writer *list = !strcasecmp(text, "content-encoding") ? &s->encoding
                        : !strcasecmp(text, "content-range")  ? &s->range
                                                              : NULL;
  if (list && list->n)
    wr_str(list, ",");
  if (list)
    add(list, value);
}

static bool on_their_body(struct http_response *r, struct bytes b) {
  struct seen *s = r->owner;
  wr_bytes(&s->body, b);
  return !s->stops || s->body.n <= STOP_BEHIND;
}

// Of lines that are folded as one.
static size_t longest_line(struct bytes in) {
  size_t longest = 0;
  for (size_t i = 0, n = 0; i < in.n; i++) {
    bool ends = in.p[i] == '\n' && (i + 1 == in.n || (in.p[i + 1] != ' ' && in.p[i + 1] != '\t'));
    n = ends ? 0 : n + 1;
    longest = n > longest ? n : longest;
  }
  return longest;
}

// Whether a text is the beginning of what was told, blanks aside: there is room for so much.
static bool begins(const struct writer *all, const char *text) {
  size_t n = 0;
  for (; *text; text++)
    if (*text != ' ' && *text != '\t' && (n == all->n || (char)all->p[n++] != *text))
      return false;
  return true;
}

static void check_other(const struct seen *s, struct bytes in, uint8_t how, uint64_t unasked) {
  static struct seen t;
  struct http_response r = {.owner = &t, .header = on_their_header, .body = on_their_body};
  size_t used = 0;
  begin(&t, how);
  http_response_begin(&r, how & 1);
  enum http_response_state state = http_response_feed(&r, &used, in);
  if (state == HTTP_RESPONSE_MORE)
    state = http_response_ended(&r);
  // The load generator counts a 101 as what it is, and waits behind any number of interim answers.
  if (state == HTTP_RESPONSE_BAD && s->r.status != 101 && r.interim <= 8)
    MUST(!s->r.whole);
  if (state != HTTP_RESPONSE_WHOLE)
    return;
  MUST(s->r.whole && s->r.status == r.status && s->r.content_length == r.content_length && s->r.body_len == r.body_len);
  MUST(bytes_eq(body(s), body(&t)) && unasked == in.n - used);
  if (longest_line(in) > sizeof r.value) // which the other leaves out
    return;
  MUST(same(&s->etag, &t.etag) && same(&s->location, &t.location));
  MUST(begins(&t.encoding, s->r.encoding) && begins(&t.range, s->r.range));
}

// ---- redirections

static void check_moved(const struct seen *s) {
  static struct moved m;
  char path[PLAYLIST_MAX_URI] = "/a/cbcs/1/t/media.m3u8", again[PLAYLIST_MAX_URI];
  struct bytes location = bytes_of(s->location.p, s->location.n);
  struct diag d = {0};
  m = (struct moved){0};
  for (uint32_t hops = 0; hops < SESSION_MAX_HOPS + 2; hops++) {
    size_t half = location.n / 2;
    moved_add(&m, bytes_of(location.p, half));
    moved_add(&m, bytes_of(location.p + half, location.n - half));
    if (!moved_on(&m, "http://h:8080", path, &d)) {
      MUST(d.err && (d.what[0] || d.err == ERR_NO_MEMORY));
      return;
    }
    MUST(hops < SESSION_MAX_HOPS && m.path[0] == '/' && strnlen(m.path, sizeof m.path) < sizeof m.path && m.n == 0);
    char url[PLAYLIST_MAX_URL];
    snprintf(url, sizeof url, "http://h:8080%s", path);
    MUST(!uri_resolve(again, url, told(&s->location)) && !strcmp(again, m.path));
    for (const char *p = m.path; *p; p++)
      MUST(*p > ' ' && *p < 0x7f);
    if (m.path[1] != '/') // two slashes begin a host
      MUST(!uri_resolve(again, "http://h:8080/", bytes_str(m.path)) && !strcmp(again, m.path));
    memcpy(path, m.path, sizeof path);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct seen whole, pieces;
  if (size < 2)
    return 0;
  struct bytes in = bytes_of(data + 1, size - 1);
  uint64_t unasked = receive(&whole, in, data[0], SIZE_MAX);
  (void)receive(&pieces, in, data[0], 1 + (data[0] >> 2));
  check_same(&whole, &pieces);
  if (size < HTTP_RESPONSE_HEAD_MAX && !(whole.stops && whole.body.n > STOP_BEHIND))
    check_other(&whole, in, data[0], unasked);
  check_moved(&whole);
  return 0;
}
