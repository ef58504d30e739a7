// What is asked: method, target, route; then the catalogue's answer becomes a response.
#include "server/conn.h"
#include <stdlib.h>

// On a helper thread: push, and wake the worker that owns it.
static void on_wake(struct cat_wait *wait) {
  struct request *rq = OWNER(struct request, wait, wait);
  struct worker *w = rq->w;
  struct request *head = atomic_load_explicit(&w->woken, memory_order_relaxed);
  do
    rq->next = head;
  while (!atomic_compare_exchange_weak_explicit(&w->woken, &head, rq, memory_order_release, memory_order_relaxed));
  if (!head)
    w->io->v->wake(w->io);
}

void request_hold(struct request *rq) {
  if (rq->held)
    return;
  if (rq->track)
    track_hold(rq->track);
  if (rq->text)
    text_hold(rq->text);
  rq->held = rq->track || rq->text;
}

void request_release(struct request *rq) {
  struct server *s = rq->w->s;
  pump_abandon(rq);
  if (rq->held && rq->track)
    track_drop(s->catalog, rq->track);
  if (rq->held && rq->text)
    text_drop(s->catalog, rq->text);
  if (rq->block)
    block_free(rq->block);
  rq->track = NULL;
  rq->text = NULL;
  rq->block = NULL;
  rq->held = false;
  rq->body = BODY_NONE;
  rq->range = rq->num_ranges = 0;
  rq->lit_at = rq->lit_len = 0;
}

void request_count(struct request *rq) {
  struct obs_worker *m = rq->w->m;
  const struct http_parser *p = &rq->parser;
  metric_inc(p->fail                     ? &m->requests_other
             : p->method == HTTP_M_GET  ? &m->requests_get
             : p->method == HTTP_M_HEAD ? &m->requests_head
                                        : &m->requests_other);
}

// begin sets everything that a response starts from; buffers and text areas keep what they held.
static void begin(struct request *rq) {
  struct worker *w = rq->w;
  const struct http_parser *p = &rq->parser;
  uint64_t limit = server_config(w->s)->keepalive_requests;
  rq->start_ns = w->io->v->now_ns(w->io);
  rq->first_ns = rq->sent = 0;
  rq->method = p->method;
  rq->head_only = p->method == HTTP_M_HEAD;
  rq->head_sent = rq->multipart = rq->ask_again = rq->robbed = false;
  rq->source_status = 0;
  rq->why = 0;
  rq->retry_ms = 0;
  rq->keep_alive = p->keep_alive && !w->draining && (limit == 0 || rq->conn->num_requests + 1 < limit);
  rq->conn->num_requests++;
  request_count(rq);
}

static int hex_digit(uint8_t c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// decode_path undoes percent-encoding into `out`. Returns the length, or -1: malformed. An encoded slash is none
// that separates (RFC 3986 §2.2), and no name has one: the path of no resource, which is empty. Else a proxy in front, which
// compares paths as they are written, could be led around its rules. Nor is there a resource with a longer path than fits.
static int decode_path(char out[ROUTE_PATH_MAX], struct bytes in) {
  int n = 0;
  bool slash = false; // one that was encoded
  if (in.n <= ROUTE_PATH_MAX && (in.n == 0 || !memchr(in.p, '%', in.n))) {
    memcpy(out, in.p, in.n);
    return (int)in.n;
  }
  for (size_t i = 0; i < in.n; i++) {
    int c = in.p[i];
    if (c == '%') {
      int hi = in.n - i > 2 ? hex_digit(in.p[i + 1]) : -1, lo = in.n - i > 2 ? hex_digit(in.p[i + 2]) : -1;
      if (hi < 0 || lo < 0)
        return -1;
      c = hi << 4 | lo;
      i += 2;
    }
    if (n == ROUTE_PATH_MAX)
      return 0;
    slash |= in.p[i] != '/' && c == '/';
    out[n++] = (char)c;
  }
  return slash ? 0 : n;
}

static enum req_result wait_for_lookup(struct request *rq) {
  rq->waiting = WAIT_LOOKUP;
  rq->w->num_waiting++;
  return REQ_WAIT;
}

static enum req_result answer_track(struct request *rq, struct protected_track *t) {
  struct plan_range range;
  if (track_resource(t, &rq->route, &range))
    respond_track(rq, t, range);
  else
    respond_status(rq, 404);
  return REQ_READY;
}

static enum req_result look_up(struct request *rq) {
  struct worker *w = rq->w;
  struct protected_track *track = NULL;
  struct text_doc *text = NULL;
  bool is_track = rq->route.kind == ROUTE_INIT || rq->route.kind == ROUTE_SEGMENT || rq->route.kind == ROUTE_FILE;
  memset(&rq->wait, 0, sizeof rq->wait);
  rq->wait.wake = on_wake;
  int status = is_track ? catalog_track(w->s->catalog, &track, &rq->route, w->now_ms, w->m, &rq->wait)
                        : catalog_text(w->s->catalog, &text, &rq->route, w->now_ms, w->m, &rq->wait);
  if (status == CAT_WAIT)
    return wait_for_lookup(rq);
  if (status != CAT_OK) {
    rq->why = rq->wait.why;
    rq->retry_ms = rq->wait.retry_ms;
    respond_status(rq, (unsigned)status);
    return REQ_READY;
  }
  if (is_track)
    return answer_track(rq, track);
  respond_text(rq, text);
  return REQ_READY;
}

enum req_result request_resolved(struct request *rq) {
  if (rq->wait.status != CAT_OK) {
    rq->why = rq->wait.why;
    rq->retry_ms = rq->wait.retry_ms;
    respond_status(rq, (unsigned)rq->wait.status);
    return REQ_READY;
  }
  rq->held = true;
  if (rq->wait.track) {
    rq->track = rq->wait.track;
    return answer_track(rq, rq->wait.track);
  }
  rq->text = rq->wait.text;
  respond_text(rq, rq->wait.text);
  return REQ_READY;
}

static enum req_result answer_licence(struct request *rq) {
  uint8_t text[512]; // two keys
  struct writer out = wr_of(text, sizeof text);
  struct bytes body = bytes_of(rq->base + rq->parser.body_off, (size_t)rq->parser.body_len);
  if (rq->parser.chunked) {
    respond_status(rq, 411);
    return REQ_READY;
  }
  int status = catalog_licence(rq->w->s->catalog, &out, &rq->route, body, rq->w->m);
  rq->why = status == CAT_UNAVAILABLE ? OBS_err_upstream : 0;
  if (status == CAT_OK && wr_ok(&out))
    respond_bytes(rq, "application/json", bytes_of(text, out.n));
  else
    respond_status(rq, status == CAT_OK ? 413u : (unsigned)status);
  explicit_bzero(text, sizeof text);
  return REQ_READY;
}

enum req_result request_start(struct request *rq) {
  begin(rq);
  struct bytes target = http_text(rq->base, rq->parser.url);
  int n = decode_path(rq->path, http_target_path(target));
  rq->path_len = (uint16_t)(n < 0 ? 0 : n);
  if (rq->method == HTTP_M_OPTIONS) { // of "*" and of paths that are nothing, too
    route_parse(&rq->route, bytes_of(rq->path, n < 0 ? 0 : (size_t)n));
    respond_options(rq);
    return REQ_READY;
  }
  if (n < 0) {
    respond_status(rq, 400);
    return REQ_READY;
  }
  route_parse(&rq->route, bytes_of(rq->path, (size_t)n));
  bool is_post = rq->method == HTTP_M_POST, takes_post = rq->route.kind == ROUTE_LICENCE;
  if (rq->method >= HTTP_M_OPTIONS || is_post != takes_post) {
    respond_status(rq, 405);
    return REQ_READY;
  }
  switch (rq->route.kind) {
  case ROUTE_NONE:
    respond_status(rq, 404);
    return REQ_READY;
  case ROUTE_LICENCE:
    return answer_licence(rq);
  case ROUTE_MASTER:
  case ROUTE_MASTER_RANGES:
  case ROUTE_MPD:
  case ROUTE_MPD_RANGES:
  case ROUTE_MEDIA:
  case ROUTE_MEDIA_RANGES:
  case ROUTE_KEY:
  case ROUTE_INIT:
  case ROUTE_SEGMENT:
  case ROUTE_FILE:
  default:
    return look_up(rq);
  }
}

static struct bytes last_of(struct bytes b, size_t n) { return b.n > n ? bytes_of(b.p + (b.n - n), n) : b; }

// Who asked, by X-Forwarded-For. Each proxy adds to the end, some of them a line; the beginning may be the client's own invention. So all
// lines are one list, of which the end is kept.
static struct bytes forwarded_for(const struct request *rq, char list[ACCESS_FORWARDED_MAX + 2]) {
  const struct http_parser *p = &rq->parser;
  struct bytes line;
  size_t len = 0;
  unsigned lines = 0;
  if (!(p->repeated & 1u << HTTP_H_FORWARDED_FOR) || !p->body_off) // a head that was refused is not gone through
    return last_of(http_text(rq->base, p->header[HTTP_H_FORWARDED_FOR]), ACCESS_FORWARDED_MAX);
  for (size_t at = 0; http_next_line(&line, &at, p, rq->base, HTTP_H_FORWARDED_FOR);) {
    if (lines++) {
      memcpy(list + len, ", ", 2);
      len += 2;
    }
    line = last_of(line, ACCESS_FORWARDED_MAX);
    size_t kept = len + line.n > ACCESS_FORWARDED_MAX ? ACCESS_FORWARDED_MAX - line.n : len;
    memmove(list, list + len - kept, kept);
    memcpy(list + kept, line.p, line.n);
    len = kept + line.n;
  }
  return bytes_of(list, len);
}

static void log_access(struct request *rq, uint64_t now_ns) {
  struct access_record *r = access_slot(rq->w->access);
  if (!r)
    return;
  const struct http_parser *p = &rq->parser;
  char list[ACCESS_FORWARDED_MAX + 2]; // with what stands between two lines
  static const char methods[] = {[HTTP_M_GET] = 'G', [HTTP_M_HEAD] = 'H', [HTTP_M_POST] = 'P', [HTTP_M_OPTIONS] = 'O'};
  r->wall_ns = rq->w->io->v->wall_ns(rq->w->io);
  r->bytes = rq->sent > rq->head_len ? rq->sent - rq->head_len : 0;
  r->duration_us = (now_ns - rq->start_ns) / 1000;
  r->ttfb_us = (rq->first_ns - rq->start_ns) / 1000;
  memcpy(r->ip, rq->conn->ip, sizeof r->ip);
  r->status = rq->status;
  r->method = (uint8_t)(rq->method < sizeof methods && p->url.len ? methods[rq->method] : '-');
  r->http10 = p->http10;
  r->tls = rq->conn->tls != NULL;
  access_add(r, ACCESS_PATH, http_text(rq->base, p->url));
  access_add(r, ACCESS_RANGE, http_text(rq->base, p->header[HTTP_H_RANGE]));
  access_add(r, ACCESS_REFERER, http_text(rq->base, p->header[HTTP_H_REFERER]));
  access_add(r, ACCESS_AGENT, http_text(rq->base, p->header[HTTP_H_USER_AGENT]));
  access_add(r, ACCESS_FORWARDED, forwarded_for(rq, list));
  access_push(rq->w->access);
}

void request_done(struct request *rq) {
  struct worker *w = rq->w;
  uint64_t now = w->io->v->now_ns(w->io);
  if (!rq->first_ns)
    rq->first_ns = now;
  obs_request(w->m, rq->status, rq->sent, rq->first_ns - rq->start_ns, now - rq->start_ns);
  if (w->access)
    log_access(rq, now);
  rq->head_sent = false; // it is accounted for
}
