// HTTP/1.1 responses from bytes that arrive in any pieces, over llhttp. Head, headers and body are bounded; nothing is
// allocated. Source: RFC 9110, RFC 9112.
#pragma once
#include "base/bytes.h"
#include <llhttp.h>

enum { HTTP_RESPONSE_HEAD_MAX = 16384, HTTP_RESPONSE_HEADERS_MAX = 100 };

enum http_response_state {
  HTTP_RESPONSE_MORE,
  HTTP_RESPONSE_WHOLE, // head and body arrived as announced
  HTTP_RESPONSE_BAD,   // not HTTP/1.x, or contradicts itself
  HTTP_RESPONSE_LIMIT, // head or body longer than allowed
  HTTP_RESPONSE_STOPPED, // `body` said so
};

struct http_response {
  llhttp_t ll;
  // The owner's: set before begin.
  void *owner;
  void (*header)(struct http_response *r, struct bytes name, struct bytes value); // NULL: none wanted. Name as it came;
                                                                                // overlong ones are left out
  bool (*body)(struct http_response *r, struct bytes piece);                    // NULL: counted only; false: stop
  uint64_t max_body; // 0: no limit
  // What was found.
  unsigned status;
  uint64_t content_length; // UINT64_MAX: not announced
  uint64_t body_len;       // so far
  bool keep_alive;         // with WHOLE: the connection can be used again
  // private
  bool no_body, head_done;
  uint8_t state, interim;
  uint16_t num_headers, name_len, value_len;
  uint32_t head_len;
  char name[40], value[256];
};

// http_response_begin readies for the next response; `no_body`: it answers a HEAD.
void http_response_begin(struct http_response *r, bool no_body);

// http_response_feed takes the next bytes. *used < data.n with WHOLE: more came than the response.
enum http_response_state http_response_feed(struct http_response *r, size_t *used, struct bytes data);

// http_response_ended says what the connection's end makes of it: WHOLE when the body runs to the end, else BAD.
enum http_response_state http_response_ended(struct http_response *r);
