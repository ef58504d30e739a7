#include "net/http.h"

#include <ctype.h>
#include <strings.h>

#include "base/text.h"
#include "base/url.h"

enum { ST_LINE, ST_HEADERS, ST_BODY, ST_DONE };

static const struct {
  const char *name;
  size_t len;
} header_names[HTTP_H_COUNT] = {
#define X(id, text) [id] = {text, sizeof(text) - 1},
    HTTP_HEADERS(X)
#undef X
};

static struct http_parser *self(llhttp_t *ll) { return (struct http_parser *)(void *)ll; }

static int refuse(struct http_parser *p, unsigned status) {
  if (!p->fail)
    p->fail = (uint16_t)status;
  return -1;
}

// extend grows a span by a piece that must follow it directly; a gap means a folded line (RFC 9112 §5.2: refuse).
static bool extend(struct http_parser *p, struct http_span *s, const char *at, size_t n) {
  uint32_t off = (uint32_t)(at - p->base);
  if (s->len == 0)
    s->off = off;
  else if (s->off + s->len != off)
    return false;
  s->len += (uint32_t)n;
  return true;
}

static int on_url(llhttp_t *ll, const char *at, size_t n) {
  struct http_parser *p = self(ll);
  if (!extend(p, &p->url, at, n))
    return refuse(p, 400);
  return p->url.len > HTTP_URL_MAX ? refuse(p, 414) : 0;
}

// A target has no fragment (RFC 9112 §3.2): proxies that take it for a part of the path would be led around their rules.
static int on_url_complete(llhttp_t *ll) {
  struct http_parser *p = self(ll);
  p->state = ST_HEADERS;
  return memchr(p->base + p->url.off, '#', p->url.len) ? refuse(p, 400) : 0;
}

// A higher minor version than ours is taken for ours. Source: RFC 9110 §2.5.
static int on_version_complete(llhttp_t *ll) { return ll->http_major == 1 ? 0 : refuse(self(ll), 505); }

static int on_field(llhttp_t *ll, const char *at, size_t n) {
  struct http_parser *p = self(ll);
  if (p->state >= ST_BODY) { // trailers: only whether there is a name
    p->field.len += (uint32_t)n;
    return 0;
  }
  return extend(p, &p->field, at, n) ? 0 : refuse(p, 400);
}

// Whether a value begins on the line of its name: a first line that is empty and folded leaves no gap within it.
static bool on_its_line(const struct http_parser *p, const char *at) {
  while (at > p->base && (at[-1] == ' ' || at[-1] == '\t'))
    at--;
  return at > p->base && at[-1] == ':';
}

static int on_value(llhttp_t *ll, const char *at, size_t n) {
  struct http_parser *p = self(ll);
  if (p->state >= ST_BODY)
    return 0;
  if (n && p->value.len == 0 && !on_its_line(p, at))
    return refuse(p, 400);
  return extend(p, &p->value, at, n) ? 0 : refuse(p, 400);
}

static int find_header(struct bytes name) {
  for (int i = 0; i < HTTP_H_COUNT; i++)
    if (header_names[i].len == name.n && strncasecmp(header_names[i].name, (const char *)name.p, name.n) == 0)
      return i;
  return HTTP_H_COUNT;
}

// "v" 1*HEXDIG "." 1*, of what may stand between brackets. Source: RFC 3986 §3.2.2.
static bool is_future_ip(struct bytes v) {
  size_t at = 1;
  while (at < v.n && isxdigit(v.p[at]))
    at++;
  return v.n && (v.p[0] | 0x20) == 'v' && at > 1 && at + 1 < v.n && v.p[at] == '.';
}

// What stands between brackets. A zone is taken, which media players send: "fe80::1%eth0", "fe80::1%25eth0". Source: RFC 3986 §3.2.2,
// RFC 4007 §11.2.
static bool literal_ok(struct bytes v) {
  const uint8_t *zone = memchr(v.p, '%', v.n);
  size_t n = zone ? (size_t)(zone - v.p) : v.n;
  return url_is_v6(bytes_of(v.p, n)) ? !zone || n + 1 < v.n : !zone && is_future_ip(v);
}

// uri-host [":" port], or nothing where the target has no authority. Source: RFC 9112 §3.2, RFC 3986 §3.2.2.
static bool host_ok(struct bytes v) {
  static const uint64_t good[4] = {0x2bff7fd200000000, 0x47fffffe87fffffe}; // a bit for each of unreserved and sub-delims
  bool literal = v.n && v.p[0] == '[';
  size_t at = literal;
  for (uint8_t byte; at < v.n; at++)
    if (v.p[at] == '%' && !literal && v.n - at > 2 && !hex_read(&byte, 1, bytes_of(v.p + at + 1, 2)))
      at += 2;
    else if (!(good[v.p[at] >> 6] >> (v.p[at] & 63) & 1) && !(literal && (v.p[at] == ':' || v.p[at] == '%')))
      break;
  if (literal && (at == v.n || v.p[at] != ']' || !literal_ok(bytes_of(v.p + 1, at++ - 1))))
    return false;
  if (at < v.n && v.p[at++] != ':')
    return false;
  while (at < v.n && v.p[at] >= '0' && v.p[at] <= '9')
    at++;
  return at == v.n;
}

// The authority of a target in absolute form, which goes before Host, is one of the same form, with a host; users in it are for
// nobody here. Source: RFC 9112 §3.2.2, RFC 9110 §4.2.1, §4.2.4.
static bool target_ok(struct bytes target) {
  const uint8_t *end = target.p + target.n, *at = target.p[0] == '/' ? NULL : memmem(target.p, target.n, "://", 3);
  if (!at)
    return true;
  at += 3;
  size_t n = 0;
  while (at + n < end && at[n] != '/' && at[n] != '?')
    n++;
  return n && *at != ':' && host_ok(bytes_of(at, n));
}

// llhttp takes Proxy-Connection for Connection. It is no field of the standard, so proxies pass it on: a client of theirs could end
// their connections. Source: RFC 9112 §C.2.2.
static void only_connection(struct http_parser *p, struct bytes name) {
  static const struct bytes other = BYTES_LIT("proxy-connection");
  enum { SAID = F_CONNECTION_KEEP_ALIVE | F_CONNECTION_CLOSE | F_CONNECTION_UPGRADE };
  if (name.n == other.n && strncasecmp((const char *)name.p, (const char *)other.p, name.n) == 0)
    p->ll.flags = (uint16_t)((p->ll.flags & ~SAID) | p->connection);
  else
    p->connection = p->ll.flags & SAID;
}

static int on_value_complete(llhttp_t *ll) {
  struct http_parser *p = self(ll);
  if (p->field.len == 0) // a name is a token. Source: RFC 9110 §5.1
    return refuse(p, 400);
  if (p->state >= ST_BODY) {
    p->field.len = 0;
    return 0;
  }
  if (++p->num_headers > HTTP_HEADERS_MAX)
    return refuse(p, 431);
  struct http_span value = p->value;
  struct bytes name = bytes_of(p->base + p->field.off, p->field.len);
  int h = find_header(name);
  only_connection(p, name);
  p->field = p->value = (struct http_span){0, 0};
  if (h == HTTP_H_COUNT)
    return 0;
  while (value.len && (p->base[value.off + value.len - 1] == ' ' || p->base[value.off + value.len - 1] == '\t'))
    value.len--;
  if (h == HTTP_H_HOST && !host_ok(bytes_of(p->base + value.off, value.len)))
    return refuse(p, 400);
  if (p->seen & 1u << h) {
    p->repeated |= 1u << h;
    if (h == HTTP_H_HOST)
      return refuse(p, 400);
    if (h == HTTP_H_RANGE || h == HTTP_H_IF_RANGE) // two of them mean nothing: ignore both
      p->header[h] = (struct http_span){0, 0};
    return 0;
  }
  p->seen |= 1u << h;
  p->header[h] = value;
  return 0;
}

static uint8_t method_of(const llhttp_t *ll) {
  switch (ll->method) {
  case HTTP_GET: return HTTP_M_GET;
  case HTTP_HEAD: return HTTP_M_HEAD;
  case HTTP_POST: return HTTP_M_POST;
  case HTTP_OPTIONS: return HTTP_M_OPTIONS;
  default: return HTTP_M_KNOWN;
  }
}

// llhttp takes a line feed alone behind the version, and protocols other than HTTP. Its version is one digit, a dot, one digit.
static bool line_ok(const struct http_parser *p) {
  static const char http[] = "HTTP/1.1\r\n";
  enum { MAJOR = 5, MINOR = 7 };
  const char *at = p->base + p->url.off + p->url.len;
  while (*at == ' ')
    at++;
  for (size_t i = 0; i < sizeof http - 1; i++) // no further than the first byte that is wrong: the line has ended by then
    if (at[i] != http[i] && i != MAJOR && i != MINOR)
      return false;
  return true;
}

// One coding, and no other before it: where a proxy knows less of them, the body would end elsewhere for it.
static bool coding_ok(const struct http_parser *p) {
  static const struct bytes chunked = BYTES_LIT("chunked");
  struct bytes v = http_text((const uint8_t *)p->base, p->header[HTTP_H_TRANSFER_ENCODING]);
  return !(p->repeated & 1u << HTTP_H_TRANSFER_ENCODING) && v.n == chunked.n &&
         strncasecmp((const char *)v.p, (const char *)chunked.p, v.n) == 0;
}

static int on_headers_complete(llhttp_t *ll) {
  struct http_parser *p = self(ll);
  if (p->state >= ST_BODY)
    return 0;
  p->state = ST_BODY;
  p->keep_alive = llhttp_should_keep_alive(ll) && !(ll->flags & F_CONNECTION_CLOSE); // close goes before keep-alive: RFC 9112 §9.3
  p->http10 = ll->http_major == 1 && ll->http_minor == 0;
  p->chunked = (ll->flags & F_CHUNKED) != 0;
  p->body_len = ll->flags & F_CONTENT_LENGTH ? ll->content_length : 0;
  if (!line_ok(p) || !target_ok(http_text((const uint8_t *)p->base, p->url)))
    return refuse(p, 400);
  if (!p->http10 && !(p->seen & 1u << HTTP_H_HOST))
    return refuse(p, 400);
  bool coded = p->seen & 1u << HTTP_H_TRANSFER_ENCODING;
  if (coded && p->http10) // framing that is faulty, RFC 9112 §6.1
    return refuse(p, 400);
  if (coded && !coding_ok(p))
    return refuse(p, 501);
  if (ll->upgrade && (p->chunked || p->body_len)) // where its body would end is not defined here
    return refuse(p, 400);
  p->method = method_of(ll);
  return HPE_PAUSED;
}

static int on_body(llhttp_t *ll, const char *at, size_t n) {
  (void)at;
  struct http_parser *p = self(ll);
  if (p->chunked)
    p->body_len += n;
  return 0;
}

static int on_complete(llhttp_t *ll) {
  self(ll)->state = ST_DONE;
  return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_url_complete = on_url_complete,
    .on_version_complete = on_version_complete,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

void http_begin(struct http_parser *p) {
  memset(p, 0, sizeof *p);
  llhttp_init(&p->ll, HTTP_REQUEST, &settings);
  p->ll.lenient_flags = LENIENT_VERSION; // any digit for each half of it
}

// What a parse error of llhttp means to the client. An unknown method that looks like one is 501 (RFC 9110 §9.1).
static unsigned status_of(const struct http_parser *p, llhttp_errno_t e, const char *pos) {
  if (e == HPE_INVALID_VERSION) // from llhttp 9 on also of a line feed alone behind it
    return pos && pos[-1] == '\n' ? 400 : 505;
  if (e == HPE_INVALID_TRANSFER_ENCODING) // from llhttp 9 on also of one beside a length
    return p->ll.flags & F_CONTENT_LENGTH ? 400 : 501;
  if (e != HPE_INVALID_METHOD || !pos)
    return 400;
  for (const char *c = p->base; c <= pos; c++)
    if ((*c < 'A' || *c > 'Z') && *c != '-')
      return 400;
  return 501;
}

// The target of a first line that was refused, as far as it is here: llhttp does not pass on what it refuses, and logs should have it.
// Nothing, where what stands before it cannot be a method.
static struct http_span target_refused(const char *base, size_t n) {
  size_t at = 0, method;
  while (at < n && (base[at] == '\r' || base[at] == '\n'))
    at++;
  for (method = at; at < n && ((base[at] >= 'A' && base[at] <= 'Z') || base[at] == '-'); at++)
    continue;
  if (at == method || at == n || base[at] != ' ')
    return (struct http_span){0, 0};
  while (at < n && base[at] == ' ')
    at++;
  size_t end = at;
  while (end < n && base[end] != ' ' && base[end] != '\r' && base[end] != '\n')
    end++;
  return (struct http_span){(uint32_t)at, (uint32_t)(end - at)};
}

// The method is known before the head is: the answer to HEAD has no body, a refusal's neither.
static enum http_parse bad(struct http_parser *p, unsigned status, size_t n) {
  (void)refuse(p, status);
  p->method = method_of(&p->ll);
  if (p->state == ST_LINE)
    p->url = target_refused(p->base, n);
  return HTTP_PARSE_BAD;
}

// execute runs llhttp over [from, n) of base and says where it stopped, by state and position.
static enum http_parse execute(struct http_parser *p, const char *base, size_t from, size_t n, size_t *stopped) {
  uint8_t before = p->state;
  llhttp_errno_t e = llhttp_execute(&p->ll, base + from, n - from);
  *stopped = n;
  if (e == HPE_OK)
    return HTTP_PARSE_MORE;
  const char *pos = llhttp_get_error_pos(&p->ll);
  if (e != HPE_PAUSED || p->fail)
    return bad(p, status_of(p, e, pos), n);
  *stopped = (size_t)(pos - base);
  llhttp_resume(&p->ll);
  return p->state == ST_DONE ? HTTP_PARSE_COMPLETE : before < ST_BODY ? HTTP_PARSE_HEAD : HTTP_PARSE_MORE;
}

enum http_parse http_feed(struct http_parser *p, const uint8_t *base, size_t n, size_t *used) {
  size_t at = p->fed;
  p->base = (const char *)base;
  enum http_parse r = HTTP_PARSE_MORE;
  // At most three turns: to the head's end, over an empty body, or to the end.
  while (r == HTTP_PARSE_MORE && (at < n || p->state == ST_BODY)) {
    bool in_head = p->state < ST_BODY;
    r = execute(p, p->base, at, n, &at);
    p->fed = (uint32_t)at;
    *used = at;
    if (in_head && r != HTTP_PARSE_BAD && at > HTTP_HEAD_MAX)
      return bad(p, p->state == ST_LINE ? 414 : 431, n);
    // llhttp takes a line feed alone for the empty line, which RFC 9112 §2.2 leaves to the recipient. It is refused here as
    // everywhere else, so that a proxy in front cannot see another end of the head or of the trailers.
    bool ended = r == HTTP_PARSE_HEAD || (r == HTTP_PARSE_COMPLETE && p->chunked);
    if (ended && (at < 2 || base[at - 1] != '\n' || base[at - 2] != '\r'))
      return bad(p, 400, n);
    if (r == HTTP_PARSE_HEAD) {
      p->body_off = (uint32_t)at;
      if (!p->chunked && p->body_len == 0)
        r = HTTP_PARSE_MORE; // let llhttp pass on to the end, which takes no more bytes
    } else if (r == HTTP_PARSE_MORE && at == n) {
      break;
    }
  }
  *used = at;
  return r;
}
