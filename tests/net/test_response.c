// Responses in pieces, bounded, and what is not one.
#include "net/http_response.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

struct seen {
  char body[256], headers[512];
  size_t len;
  bool stop;
};

static void on_header(struct http_response *r, struct bytes name, struct bytes value) {
  struct seen *s = r->owner;
  size_t n = strlen(s->headers);
  snprintf(s->headers + n, sizeof s->headers - n, "%.*s=%.*s;", (int)name.n, (const char *)name.p, (int)value.n,
           (const char *)value.p);
}

static bool on_body(struct http_response *r, struct bytes piece) {
  struct seen *s = r->owner;
  cr_assert_leq(s->len + piece.n, sizeof s->body);
  memcpy(s->body + s->len, piece.p, piece.n);
  s->len += piece.n;
  return !s->stop;
}

static enum http_response_state run(struct http_response *r, struct seen *s, const char *text, size_t piece, bool head) {
  struct bytes all = bytes_str(text);
  enum http_response_state state = HTTP_RESPONSE_MORE;
  *r = (struct http_response){.owner = s, .header = on_header, .body = on_body, .max_body = 64};
  http_response_begin(r, head);
  for (size_t at = 0; at < all.n && state == HTTP_RESPONSE_MORE; at += piece) {
    size_t n = all.n - at < piece ? all.n - at : piece, used;
    uint8_t *copy = malloc(n); // its own size, so that reading past it is seen
    memcpy(copy, all.p + at, n);
    state = http_response_feed(r, &used, bytes_of(copy, n));
    free(copy);
  }
  return state;
}

Test(response, any_pieces_give_the_same) {
  static const struct {
    const char *text, *body, *headers;
    unsigned status;
  } cases[] = {
      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A:  b c \r\n\r\nhello", "hello", "Content-Length=5;X-A=b c;", 200},
      {"HTTP/1.1 422 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nT: x\r\n\r\n", "hello",
       "Transfer-Encoding=chunked;", 422},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", "Content-Length=1;", 200},
      {"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\nLocation: /x\r\n\r\nHTTP/1.1 429 No\r\nContent-Length: 1\r\nRetry-After: 2\r\n\r\nx", "x",
       "Content-Length=1;Retry-After=2;", 429},
      {"HTTP/1.1 204 No Content\r\n\r\n", "", "", 204},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    for (size_t piece = 1; piece < 120; piece++) {
      struct http_response r;
      struct seen s = {0};
      cr_assert_eq(run(&r, &s, cases[i].text, piece, false), HTTP_RESPONSE_WHOLE, "case %zu by %zu", i, piece);
      cr_assert_eq(r.status, cases[i].status);
      cr_assert(bytes_eq(bytes_of(s.body, s.len), bytes_str(cases[i].body)), "case %zu by %zu", i, piece);
      cr_assert_str_eq(s.headers, cases[i].headers, "case %zu by %zu", i, piece);
      cr_assert(r.keep_alive);
    }
}

Test(response, the_end_of_the_connection_ends_a_body_without_length) {
  struct http_response r;
  struct seen s = {0};
  cr_assert_eq(run(&r, &s, "HTTP/1.1 200 OK\r\n\r\nhello", 7, false), HTTP_RESPONSE_MORE);
  cr_assert_eq(http_response_ended(&r), HTTP_RESPONSE_WHOLE);
  cr_assert(!r.keep_alive);
  cr_assert_eq(run(&r, &(struct seen){0}, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 7, false), HTTP_RESPONSE_MORE);
  cr_assert_eq(http_response_ended(&r), HTTP_RESPONSE_BAD, "cut");
  cr_assert_eq(run(&r, &(struct seen){0}, "HTTP/1.1 200 O", 7, false), HTTP_RESPONSE_MORE);
  cr_assert_eq(http_response_ended(&r), HTTP_RESPONSE_BAD, "no head");
}

Test(response, limits) {
  struct http_response r;
  char *text = malloc(64 << 10);
  size_t n = (size_t)sprintf(text, "HTTP/1.1 200 OK\r\nX: ");
  memset(text + n, 'a', 40000);
  text[n + 40000] = 0;
  cr_assert_eq(run(&r, &(struct seen){0}, text, 1000, false), HTTP_RESPONSE_LIMIT, "a head without end");
  n = (size_t)sprintf(text, "HTTP/1.1 200 OK\r\n");
  for (int i = 0; i < 200; i++)
    n += (size_t)sprintf(text + n, "X: y\r\n");
  cr_assert_eq(run(&r, &(struct seen){0}, text, 4000, false), HTTP_RESPONSE_LIMIT, "too many headers");
  for (int num = 8; num <= 9; num++) {
    n = 0;
    for (int i = 0; i < num; i++)
      n += (size_t)sprintf(text + n, "HTTP/1.1 102 Processing\r\n\r\n");
    sprintf(text + n, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    cr_assert_eq(run(&r, &(struct seen){0}, text, 50, false), num > 8 ? HTTP_RESPONSE_BAD : HTTP_RESPONSE_WHOLE, "%d before the answer", num);
  }
  free(text);
  cr_assert_eq(run(&r, &(struct seen){0}, "HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n", 9, false), HTTP_RESPONSE_LIMIT);
  struct seen s = {0};
  cr_assert_eq(run(&r, &s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n1\r\nx\r\n", 11, false),
               HTTP_RESPONSE_LIMIT, "more than max_body in chunks");
  s = (struct seen){.stop = true};
  cr_assert_eq(run(&r, &s, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 100, false), HTTP_RESPONSE_STOPPED);
}

Test(response, what_is_not_one) {
  static const char *const bad[] = {"SSH-2.0-x\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 abc\r\n\r\n",
                                    "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
                                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    cr_assert_eq(run(&(struct http_response){0}, &(struct seen){0}, bad[i], 3, false), HTTP_RESPONSE_BAD, "case %zu", i);
}

Test(response, versions) { // RFC 9110 §2.5
  static const struct {
    const char *text;
    enum http_response_state is;
  } cases[] = {{"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", HTTP_RESPONSE_WHOLE}, {"HTTP/1.9 200 OK\r\nContent-Length: 0\r\n\r\n", HTTP_RESPONSE_WHOLE},
               {"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", HTTP_RESPONSE_BAD}, {"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n", HTTP_RESPONSE_BAD}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct http_response r;
    cr_assert_eq(run(&r, &(struct seen){0}, cases[i].text, 5, false), cases[i].is, "case %zu", i);
    cr_assert(cases[i].is == HTTP_RESPONSE_BAD || r.keep_alive, "case %zu", i);
  }
}

Test(response, more_than_one_and_head) {
  struct http_response r = {.max_body = 10};
  size_t used;
  static const char two[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200";
  http_response_begin(&r, false);
  cr_assert_eq(http_response_feed(&r, &used, bytes_str(two)), HTTP_RESPONSE_WHOLE);
  cr_assert_eq(used, sizeof two - 1 - 12);
  static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n";
  http_response_begin(&r, true);
  cr_assert_eq(http_response_feed(&r, &used, bytes_str(head)), HTTP_RESPONSE_WHOLE);
  cr_assert_eq(r.content_length, 99999u);
}
