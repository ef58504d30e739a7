// Response heads. What is the same for a second (date, CORS) is built once and copied; the rest is a few stores.
#include "server/conn.h"

// head_common gives the lines that every response has, made anew when the second or the configuration changes.
static struct bytes head_common(struct worker *w) {
  struct head_cache *h = &w->head;
  uint64_t second = w->wall_s;
  const struct config *cfg = server_config(w->s);
  if (h->second == second && h->config == cfg && h->common_len)
    return bytes_of(h->common, h->common_len);
  struct writer out = wr_of(h->common, sizeof h->common);
  char date[29];
  http_date(date, second);
  wr_str(&out, "Server: sluice\r\nDate: ");
  wr_raw(&out, date, sizeof date);
  wr_str(&out, "\r\n");
  size_t without_cors = out.n;
  if (cfg->cors_origin && cfg->cors_origin[0]) {
    wr_str(&out, "Access-Control-Allow-Origin: ");
    wr_str(&out, cfg->cors_origin);
    wr_str(&out, "\r\nAccess-Control-Expose-Headers: Content-Length, Content-Range, Accept-Ranges, ETag, Date\r\n");
  }
  h->second = second;
  h->config = cfg;
  h->common_len = (uint32_t)(wr_ok(&out) ? out.n : without_cors);
  return bytes_of(h->common, h->common_len);
}

static struct writer head_begin(struct request *rq, unsigned status) {
  struct writer out = wr_of(rq->lit, sizeof rq->lit);
  rq->status = (uint16_t)status;
  rq->body = BODY_NONE;
  rq->range = rq->num_ranges = 0;
  if (status == 200)
    wr_raw(&out, "HTTP/1.1 200 OK\r\n", 17);
  else {
    wr_raw(&out, "HTTP/1.1 ", 9);
    wr_dec(&out, status);
    wr_u8(&out, ' ');
    wr_str(&out, http_reason(status));
    wr_raw(&out, "\r\n", 2);
  }
  wr_bytes(&out, head_common(rq->w));
  return out;
}

static void head_end(struct request *rq, struct writer *out) {
  if (!rq->keep_alive)
    wr_str(out, "Connection: close\r\n");
  else if (rq->parser.http10)
    wr_str(out, "Connection: keep-alive\r\n");
  wr_raw(out, "\r\n", 2);
  rq->lit_at = 0;
  rq->lit_len = (uint32_t)out->n;
  rq->head_len = (uint32_t)out->n;
}

static void head_length(struct writer *out, uint64_t n) {
  wr_raw(out, "Content-Length: ", 16);
  wr_dec(out, n);
  wr_raw(out, "\r\n", 2);
}

// A body that follows the head in rq->lit.
static void short_body(struct request *rq, struct writer *out, struct bytes body) {
  if (!rq->head_only)
    wr_bytes(out, body);
  rq->lit_len = (uint32_t)out->n;
}

// An error by its reason, where one is known, else by its status.
void respond_count(struct request *rq, unsigned status) {
  static const struct {
    uint16_t status;
    uint8_t error;
  } table[] = {{400, OBS_err_bad_request}, {411, OBS_err_bad_request}, {413, OBS_err_bad_request}, {414, OBS_err_bad_request},
               {431, OBS_err_bad_request}, {501, OBS_err_bad_request}, {505, OBS_err_bad_request}, {403, OBS_err_forbidden},
               {404, OBS_err_not_found},   {405, OBS_err_method},      {410, OBS_err_gone},        {416, OBS_err_range},
               {500, OBS_err_internal},    {503, OBS_err_overload}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (table[i].status == status)
      obs_error(rq->w->m, (enum obs_error)(rq->why ? rq->why : table[i].error));
}

// Whether a path is what proxies make of it that merge slashes, resolve dots, turn backslashes or decode. Where they name an answer
// by what they made and ask for what was written, an error for the one would be kept for the other.
static bool plainly_spelled(struct bytes path) {
  if (path.n == 0) // an encoded slash, or longer than any
    return false;
  for (size_t i = 0, start = 0; i <= path.n; i++) {
    if (i < path.n && path.p[i] != '/') {
      if (path.p[i] == '\\' || path.p[i] == '?')
        return false;
      continue;
    }
    struct bytes s = bytes_of(path.p + start, i - start);
    if ((s.n == 0 && i && i < path.n) || bytes_eq(s, BYTES_LIT(".")) || bytes_eq(s, BYTES_LIT("..")))
      return false;
    start = i + 1;
  }
  return true;
}

// How long caches may keep an error. Without a word they would choose (RFC 9110 §15.1: 404, 405, 410, 414 and 501 are
// heuristically cacheable), minutes for what may be there in a second: a node that has not rotated yet, an upload.
static void error_age(struct request *rq, struct writer *out, unsigned status) {
  const struct config *cfg = server_config(rq->w->s);
  bool absent = (status == 403 || status == 404) && plainly_spelled(bytes_of(rq->path, rq->path_len));
  if (rq->method > HTTP_M_HEAD || (!absent && status != 410)) {
    wr_str(out, "Cache-Control: no-store\r\n");
    return;
  }
  wr_str(out, "Cache-Control: public, max-age=");
  wr_dec(out, absent ? (cfg->negative_ttl + 999) / 1000 : cfg->manifest_max_age / 1000);
  wr_raw(out, "\r\n", 2);
}

static void status_extra(struct request *rq, struct writer *out, unsigned status) {
  if (status == 405)
    wr_str(out, rq->route.kind == ROUTE_LICENCE ? "Allow: POST, OPTIONS\r\n" : "Allow: GET, HEAD, OPTIONS\r\n");
  if (status == 503) { // whole seconds, not before it makes sense
    wr_str(out, "Retry-After: ");
    wr_dec(out, rq->retry_ms > 1000 ? (rq->retry_ms + 999) / 1000 : 1);
    wr_str(out, "\r\n");
  }
  error_age(rq, out, status);
}

void respond_status(struct request *rq, unsigned status) {
  char text[64];
  struct writer body = wr_of(text, sizeof text);
  wr_dec(&body, status);
  wr_u8(&body, ' ');
  wr_str(&body, http_reason(status));
  wr_u8(&body, '\n');
  struct writer out = head_begin(rq, status);
  respond_count(rq, status);
  status_extra(rq, &out, status);
  wr_str(&out, "Content-Type: text/plain\r\n");
  head_length(&out, body.n);
  head_end(rq, &out);
  short_body(rq, &out, bytes_of(text, body.n));
}

size_t respond_no_tls(struct worker *w, char out[RESPOND_SHORT]) {
  static const char text[] = "400 Bad Request: TLS is spoken here, use https\n";
  struct writer to = wr_of(out, RESPOND_SHORT);
  wr_str(&to, "HTTP/1.1 400 Bad Request\r\n");
  wr_bytes(&to, head_common(w));
  wr_str(&to, "Cache-Control: no-store\r\nContent-Type: text/plain\r\nContent-Length: ");
  wr_dec(&to, sizeof text - 1);
  wr_str(&to, "\r\nConnection: close\r\n\r\n");
  wr_str(&to, text);
  return to.n;
}

size_t respond_busy(struct worker *w, char out[RESPOND_SHORT]) {
  struct writer to = wr_of(out, RESPOND_SHORT);
  wr_str(&to, "HTTP/1.1 503 Service Unavailable\r\n");
  wr_bytes(&to, head_common(w));
  wr_str(&to, "Retry-After: 1\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  return to.n;
}

void respond_bytes(struct request *rq, const char *content_type, struct bytes body) {
  struct writer out = head_begin(rq, 200);
  wr_str(&out, "Cache-Control: no-store\r\nContent-Type: ");
  wr_str(&out, content_type);
  wr_raw(&out, "\r\n", 2);
  head_length(&out, body.n);
  head_end(rq, &out);
  short_body(rq, &out, body);
}

// Preflight. Source: Fetch standard, CORS-preflight request.
void respond_options(struct request *rq) {
  struct writer out = head_begin(rq, 204);
  wr_str(&out, rq->route.kind == ROUTE_LICENCE ? "Allow: POST, OPTIONS\r\n" : "Allow: GET, HEAD, OPTIONS\r\n");
  if (server_config(rq->w->s)->cors_origin[0])
    wr_str(&out, "Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\n"
                 "Access-Control-Allow-Headers: Range, If-Range, If-None-Match, Accept-Encoding, Content-Type, " // as Cast receivers want it
                 "CMCD-Request, CMCD-Object, CMCD-Status, CMCD-Session\r\n" // CTA-5004: players that report by headers
                 "Access-Control-Max-Age: 86400\r\n");
  head_end(rq, &out);
}

// What an entity's responses have in common.
struct entity {
  const char *content_type;
  struct plan_range whole; // its bytes, in offsets of what carries it
  bool immutable, no_store;
};

static void entity_lines(struct request *rq, struct writer *out, const struct entity *e) {
  wr_raw(out, "ETag: ", 6);
  wr_str(out, rq->etag);
  if (e->no_store) {
    wr_str(out, "\r\nCache-Control: no-store\r\n");
    return;
  }
  if (e->immutable) {
    wr_str(out, "\r\nCache-Control: public, max-age=31536000, immutable\r\n");
    return;
  }
  wr_str(out, "\r\nCache-Control: public, max-age=");
  wr_dec(out, server_config(rq->w->s)->manifest_max_age / 1000);
  wr_raw(out, "\r\n", 2);
}

static struct bytes header(const struct request *rq, enum http_header h) { return http_text(rq->base, rq->parser.header[h]); }

// preconditions gives 304, 412, or 0: go on. Source: RFC 9110 §13.2.2; there are no dates to compare.
static unsigned preconditions(const struct request *rq) {
  const struct http_parser *p = &rq->parser;
  enum { EITHER = 1u << HTTP_H_IF_MATCH | 1u << HTTP_H_IF_NONE_MATCH };
  if (!(p->seen & EITHER))
    return 0;
  struct bytes tag = bytes_str(rq->etag);
  if (p->seen & 1u << HTTP_H_IF_MATCH && !http_etag_given(p, rq->base, HTTP_H_IF_MATCH, tag, false))
    return 412;
  if (p->seen & 1u << HTTP_H_IF_NONE_MATCH && http_etag_given(p, rq->base, HTTP_H_IF_NONE_MATCH, tag, true))
    return 304;
  return 0;
}

static enum http_range wanted(const struct request *rq, struct http_span64 spans[HTTP_RANGES_MAX], uint32_t *num, uint64_t size) {
  struct bytes range = header(rq, HTTP_H_RANGE), if_range = header(rq, HTTP_H_IF_RANGE);
  bool conditional = rq->parser.seen & 1u << HTTP_H_IF_RANGE; // an empty one, or two, match nothing
  // With HEAD too, as nginx answers it: the head of the GET. RFC 9110 §14.2 defines ranges for GET alone.
  if (range.n == 0 || (conditional && !bytes_eq(if_range, bytes_str(rq->etag))))
    return HTTP_RANGE_NONE;
  return http_ranges(spans, num, range, size);
}

static void write_part_head(struct request *rq, struct writer *out, struct plan_range r) {
  wr_str(out, "\r\n--sluice-part\r\nContent-Type: ");
  wr_str(out, rq->body == BODY_TEXT ? rq->text->content_type : "audio/mp4");
  wr_str(out, "\r\nContent-Range: bytes ");
  wr_dec(out, r.off - rq->resource.off);
  wr_u8(out, '-');
  wr_dec(out, r.off - rq->resource.off + r.len - 1);
  wr_u8(out, '/');
  wr_dec(out, rq->resource.len);
  wr_str(out, "\r\n\r\n");
}

static const char part_end[] = "\r\n--sluice-part--\r\n";

void respond_part(struct request *rq) {
  struct writer out = wr_of(rq->lit, sizeof rq->lit);
  if (rq->range < rq->num_ranges)
    write_part_head(rq, &out, rq->ranges[rq->range]);
  else
    wr_str(&out, part_end);
  rq->lit_at = 0;
  rq->lit_len = (uint32_t)out.n;
}

static void respond_multipart(struct request *rq, const struct entity *e) {
  uint64_t length = sizeof part_end - 1;
  for (uint32_t i = 0; i < rq->num_ranges; i++) {
    struct writer count = wr_of(NULL, 0);
    write_part_head(rq, &count, rq->ranges[i]);
    length += count.n + rq->ranges[i].len;
  }
  struct plan_range first = rq->ranges[0];
  uint32_t num = rq->num_ranges;
  uint8_t body = rq->body;
  struct writer out = head_begin(rq, 206);
  entity_lines(rq, &out, e);
  wr_str(&out, "Content-Type: multipart/byteranges; boundary=sluice-part\r\n");
  head_length(&out, length);
  head_end(rq, &out);
  if (rq->head_only)
    return;
  rq->body = body;
  rq->num_ranges = num;
  rq->multipart = true;
  write_part_head(rq, &out, first);
  rq->lit_len = (uint32_t)out.n;
}

static void respond_single(struct request *rq, const struct entity *e, unsigned status, struct plan_range r) {
  uint8_t body = rq->body;
  struct writer out = head_begin(rq, status);
  wr_raw(&out, "Content-Type: ", 14);
  wr_str(&out, e->content_type);
  wr_raw(&out, "\r\nAccept-Ranges: bytes\r\n", 24);
  entity_lines(rq, &out, e);
  if (status == 206) {
    wr_str(&out, "Content-Range: bytes ");
    wr_dec(&out, r.off - e->whole.off);
    wr_u8(&out, '-');
    wr_dec(&out, r.off - e->whole.off + r.len - 1);
    wr_u8(&out, '/');
    wr_dec(&out, e->whole.len);
    wr_raw(&out, "\r\n", 2);
  }
  head_length(&out, r.len);
  head_end(rq, &out);
  if (rq->head_only || r.len == 0)
    return;
  rq->body = body;
  rq->ranges[0] = r;
  rq->num_ranges = 1;
}

static void respond_unsatisfiable(struct request *rq, const struct entity *e) {
  struct writer out = head_begin(rq, 416);
  respond_count(rq, 416);
  error_age(rq, &out, 416);
  wr_str(&out, "Content-Range: bytes */");
  wr_dec(&out, e->whole.len);
  wr_raw(&out, "\r\n", 2);
  head_length(&out, 0);
  head_end(rq, &out);
}

static void respond_entity(struct request *rq, const struct entity *e) {
  struct http_span64 spans[HTTP_RANGES_MAX];
  uint32_t num = 0;
  rq->resource = e->whole;
  unsigned status = preconditions(rq);
  if (status == 304) {
    struct writer out = head_begin(rq, 304);
    entity_lines(rq, &out, e);
    head_end(rq, &out);
    return;
  }
  if (status) {
    respond_status(rq, status);
    return;
  }
  switch (wanted(rq, spans, &num, e->whole.len)) {
  case HTTP_RANGE_UNSATISFIABLE:
    respond_unsatisfiable(rq, e);
    return;
  case HTTP_RANGE_OK:
    for (uint32_t i = 0; i < num; i++)
      rq->ranges[i] = (struct plan_range){e->whole.off + spans[i].off, spans[i].len};
    rq->num_ranges = num;
    if (num > 1)
      respond_multipart(rq, e);
    else
      respond_single(rq, e, 206, rq->ranges[0]);
    return;
  case HTTP_RANGE_NONE:
  default:
    respond_single(rq, e, 200, e->whole);
  }
}

static void set_etag(struct request *rq, const char *tag, const struct route *r) {
  struct writer out = wr_of(rq->etag, sizeof rq->etag - 1);
  wr_u8(&out, '"');
  wr_raw(&out, tag, 16);
  if (r && r->kind == ROUTE_SEGMENT) {
    wr_u8(&out, '-');
    wr_dec(&out, r->segment);
  } else if (r) {
    wr_raw(&out, r->kind == ROUTE_INIT ? "-i" : "-f", 2);
  }
  wr_u8(&out, '"');
  rq->etag[out.n] = 0;
}

void respond_text(struct request *rq, struct text_doc *d) {
  rq->text = d;
  rq->body = BODY_TEXT;
  set_etag(rq, d->etag, NULL);
  respond_entity(rq, &(struct entity){.content_type = d->content_type,
                                      .whole = {0, d->body.n},
                                      .immutable = d->immutable,
                                      .no_store = d->no_store});
}

void respond_track(struct request *rq, struct protected_track *t, struct plan_range resource) {
  rq->track = t;
  rq->body = BODY_TRACK;
  set_etag(rq, t->etag, &rq->route);
  respond_entity(rq, &(struct entity){.content_type = "audio/mp4", .whole = resource, .immutable = true});
}
