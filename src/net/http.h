// HTTP/1.1 requests from bytes that arrive in any pieces, over llhttp. A request is a view: offsets into one
// contiguous stretch that starts at its first byte. Nothing is allocated or copied here.
// Source: RFC 9110, RFC 9112.
#pragma once
#include "base/bytes.h"
#include <llhttp.h>

enum http_method { HTTP_M_GET, HTTP_M_HEAD, HTTP_M_POST, HTTP_M_OPTIONS, HTTP_M_KNOWN };

// Headers that sluice reads; others are skipped.
#define HTTP_HEADERS(X)                                                                                          \
  X(HTTP_H_HOST, "host")                                                                                         \
  X(HTTP_H_TRANSFER_ENCODING, "transfer-encoding")                                                               \
  X(HTTP_H_RANGE, "range")                                                                                       \
  X(HTTP_H_IF_RANGE, "if-range")                                                                                 \
  X(HTTP_H_IF_NONE_MATCH, "if-none-match")                                                                       \
  X(HTTP_H_IF_MATCH, "if-match")                                                                                 \
  X(HTTP_H_ORIGIN, "origin")                                                                                     \
  X(HTTP_H_EXPECT, "expect")                                                                                     \
  X(HTTP_H_REFERER, "referer")                                                                                   \
  X(HTTP_H_USER_AGENT, "user-agent")                                                                             \
  X(HTTP_H_AUTHORIZATION, "authorization")                                                                       \
  X(HTTP_H_FORWARDED_FOR, "x-forwarded-for")

enum http_header {
#define X(name, text) name,
  HTTP_HEADERS(X)
#undef X
      HTTP_H_COUNT
};

struct http_span {
  uint32_t off, len; // from the request's first byte; {0, 0}: absent
};

// A target as long as RFC 9112 §3 recommends (8000 bytes), and cookies of a shared domain besides.
enum { HTTP_HEAD_MAX = 16384, HTTP_URL_MAX = 8192, HTTP_HEADERS_MAX = 100 };

struct http_parser {
  llhttp_t ll;
  const char *base;       // where the request starts, in this call
  struct http_span field, value; // being read
  struct http_span url;
  struct http_span header[HTTP_H_COUNT];
  uint32_t fed;           // bytes seen since the request's first
  uint32_t body_off;      // where the body starts; body bytes follow contiguously unless `chunked`
  uint64_t body_len;      // announced (chunked: seen so far)
  uint32_t seen, repeated; // bit per enum http_header: came, came more than once
  uint16_t num_headers;
  uint16_t fail;          // status to refuse with, 0: none
  uint16_t connection;    // private: what Connection has said so far, of llhttp's flags
  uint8_t method;         // enum http_method
  uint8_t state;          // private
  bool keep_alive, http10, chunked;
};

enum http_parse {
  HTTP_PARSE_MORE,     // needs more bytes
  HTTP_PARSE_HEAD,     // the head is complete and a body follows: the owner decides, then feeds on
  HTTP_PARSE_COMPLETE, // the request is complete; `used` says where the next one starts
  HTTP_PARSE_BAD,      // refuse with p->fail (400, 414, 431, 501, 505) and close; p->url has what of the target is known
};

// http_begin readies the parser for a request.
void http_begin(struct http_parser *p);

// http_feed continues with the bytes [p->fed, n) of `base`, which holds the request from its first byte on (it may have
// moved since the last call, with the same content). `*used` counts bytes of the request so far.
// After HTTP_PARSE_HEAD call again to go on with the body.
enum http_parse http_feed(struct http_parser *p, const uint8_t *base, size_t n, size_t *used);

static inline struct bytes http_text(const uint8_t *base, struct http_span s) { return bytes_of(base + s.off, s.len); }

// http_target_path gives the path of a request target without query: origin form, or absolute form whose scheme and authority
// are cut off. One of a request that was parsed has no fragment. Source: RFC 9112 §3.2.
struct bytes http_target_path(struct bytes target);

// One byte range of a representation of `size` bytes. Source: RFC 9110 §14.
enum http_range { HTTP_RANGE_NONE, HTTP_RANGE_OK, HTTP_RANGE_UNSATISFIABLE };

struct http_span64 {
  uint64_t off, len;
};

enum { HTTP_RANGES_MAX = 16 };

// http_ranges reads a Range value into at most HTTP_RANGES_MAX ranges, clipped to `size`, in the order asked.
// NONE: the header is to be ignored (malformed, another unit, too many, overlapping beyond use).
enum http_range http_ranges(struct http_span64 out[HTTP_RANGES_MAX], uint32_t *num, struct bytes value, uint64_t size);

// http_next_line gives the value of the next line of `h` in a complete head, whose lines end in CRLF and are not folded, or it
// would have been refused; `at` is 0 at first. False: there is none.
bool http_next_line(struct bytes *value, size_t *at, const struct http_parser *p, const uint8_t *base, enum http_header h);

// http_etag_listed says whether If-None-Match or If-Match lists `etag` (quoted, strong) or is "*". `weak`: W/ forms
// compare equal too.
bool http_etag_listed(struct bytes value, struct bytes etag, bool weak);

// http_etag_given does the same for all lines of If-None-Match or If-Match of a complete head, which are one list (RFC 9110 §5.3).
bool http_etag_given(const struct http_parser *p, const uint8_t *base, enum http_header h, struct bytes etag, bool weak);

// http_date writes the 29 bytes "Sun, 06 Nov 1994 08:49:37 GMT".
void http_date(char out[29], uint64_t unix_s);

// http_reason gives the reason phrase of a status code, "Unknown" for others.
const char *http_reason(unsigned status);
