#include "net/http_response.h"

enum { INTERIM_MAX = 8 };

static struct http_response *self(llhttp_t *ll) { return (struct http_response *)(void *)ll; }

static int stop(struct http_response *r, enum http_response_state why) {
  r->state = (uint8_t)why;
  return HPE_USER;
}

static int on_begin(llhttp_t *ll) {
  struct http_response *r = self(ll);
  r->status = 0;
  r->head_done = false;
  r->num_headers = r->name_len = r->value_len = 0;
  return 0;
}

static void collect(char *to, uint16_t *len, size_t cap, const char *at, size_t n) {
  size_t have = *len;
  if (n <= cap - have && have <= cap)
    memcpy(to + have, at, n);
  *len = (uint16_t)(n <= cap - have ? have + n : cap + 1); // one more than fits: too long
}

static int on_field(llhttp_t *ll, const char *at, size_t n) {
  struct http_response *r = self(ll);
  if (r->name_len <= sizeof r->name)
    collect(r->name, &r->name_len, sizeof r->name, at, n);
  return 0;
}

// Of the answer proper: what an interim one says, as a 103 its Link, is not about that. Source: RFC 9110 §15.2.
static bool wanted(const struct http_response *r) { return r->header && !r->head_done && r->ll.status_code >= 200; }

static int on_value(llhttp_t *ll, const char *at, size_t n) {
  struct http_response *r = self(ll);
  if (wanted(r) && r->value_len <= sizeof r->value)
    collect(r->value, &r->value_len, sizeof r->value, at, n);
  return 0;
}

static int on_value_complete(llhttp_t *ll) {
  struct http_response *r = self(ll);
  if (r->name_len == 0) // a name is a token. Source: RFC 9110 §5.1
    return stop(r, HTTP_RESPONSE_BAD);
  if (++r->num_headers > HTTP_RESPONSE_HEADERS_MAX)
    return stop(r, HTTP_RESPONSE_LIMIT);
  size_t n = r->value_len;
  while (n && n <= sizeof r->value && (r->value[n - 1] == ' ' || r->value[n - 1] == '\t'))
    n--;
  if (wanted(r) && r->name_len <= sizeof r->name && n <= sizeof r->value)
    r->header(r, bytes_of(r->name, r->name_len), bytes_of(r->value, n));
  r->name_len = r->value_len = 0;
  return 0;
}

static int on_headers_complete(llhttp_t *ll) {
  struct http_response *r = self(ll);
  r->head_done = true;
  r->status = (unsigned)ll->status_code;
  if (ll->http_major != 1 || r->status < 100 || r->status == 101)
    return stop(r, HTTP_RESPONSE_BAD);
  r->content_length = ll->flags & F_CONTENT_LENGTH ? ll->content_length : UINT64_MAX;
  if (r->max_body && !r->no_body && r->content_length != UINT64_MAX && r->content_length > r->max_body)
    return stop(r, HTTP_RESPONSE_LIMIT);
  return r->no_body ? 1 : 0; // 1: no body follows
}

static int on_body(llhttp_t *ll, const char *at, size_t n) {
  struct http_response *r = self(ll);
  r->body_len += n;
  if (r->max_body && r->body_len > r->max_body)
    return stop(r, HTTP_RESPONSE_LIMIT);
  return r->body && !r->body(r, bytes_of(at, n)) ? stop(r, HTTP_RESPONSE_STOPPED) : 0;
}

static int on_complete(llhttp_t *ll) {
  struct http_response *r = self(ll);
  if (r->status < 200) // 100 Continue and the like: the answer proper follows
    return ++r->interim > INTERIM_MAX ? stop(r, HTTP_RESPONSE_BAD) : 0;
  r->keep_alive = llhttp_should_keep_alive(ll) != 0;
  r->state = HTTP_RESPONSE_WHOLE;
  return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_message_begin = on_begin,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

void http_response_begin(struct http_response *r, bool no_body) {
  llhttp_init(&r->ll, HTTP_RESPONSE, &settings);
  r->ll.lenient_flags = LENIENT_VERSION; // as of a request: a higher minor version is taken for ours
  r->no_body = no_body;
  r->content_length = UINT64_MAX;
  r->body_len = 0;
  r->keep_alive = r->head_done = false;
  r->status = 0;
  r->state = HTTP_RESPONSE_MORE;
  r->interim = 0;
  r->num_headers = r->name_len = r->value_len = 0;
  r->head_len = 0;
}

enum http_response_state http_response_feed(struct http_response *r, size_t *used, struct bytes data) {
  *used = data.n;
  llhttp_errno_t e = llhttp_execute(&r->ll, (const char *)data.p, data.n);
  if (r->state == HTTP_RESPONSE_MORE && e != HPE_OK)
    r->state = HTTP_RESPONSE_BAD;
  if (r->state == HTTP_RESPONSE_WHOLE && e == HPE_PAUSED)
    *used = (size_t)(llhttp_get_error_pos(&r->ll) - (const char *)data.p);
  if (r->state == HTTP_RESPONSE_MORE && !r->head_done && (r->head_len += (uint32_t)data.n) > HTTP_RESPONSE_HEAD_MAX)
    r->state = HTTP_RESPONSE_LIMIT;
  return (enum http_response_state)r->state;
}

enum http_response_state http_response_ended(struct http_response *r) {
  if (r->state == HTTP_RESPONSE_MORE && r->head_done)
    (void)llhttp_finish(&r->ll); // calls on_complete where the end of the connection ends the body
  return r->state == HTTP_RESPONSE_WHOLE ? HTTP_RESPONSE_WHOLE : HTTP_RESPONSE_BAD;
}
