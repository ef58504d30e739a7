#include "net/http.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

// What a stream of pipelined requests parses to, as text: one line a request.
struct result {
  char text[4096];
  size_t n;
};

static void add(struct result *r, const char *s, size_t n) {
  cr_assert(r->n + n < sizeof r->text);
  memcpy(r->text + r->n, s, n);
  r->n += n;
  r->text[r->n] = 0;
}

static void add_span(struct result *r, const char *name, const uint8_t *base, struct http_span s) {
  struct bytes b = http_text(base, s);
  add(r, name, strlen(name));
  add(r, "=", 1);
  add(r, (const char *)b.p, b.n);
}

static void describe(struct result *r, const struct http_parser *p, const uint8_t *base) {
  char line[128];
  int n = snprintf(line, sizeof line, "m%d ka%d 1.%d chunked%d body%llu ", p->method, p->keep_alive, !p->http10, p->chunked,
                   (unsigned long long)p->body_len);
  add(r, line, (size_t)n);
  add_span(r, "url", base, p->url);
  for (int h = 0; h < HTTP_H_COUNT; h++)
    if (p->header[h].len)
      add_span(r, " h", base, p->header[h]);
  if (p->body_len && !p->chunked)
    add_span(r, " body", base, (struct http_span){p->body_off, (uint32_t)p->body_len});
  add(r, "\n", 1);
}

// Feeds `text` in two pieces, cut at `cut`; each piece arrives at another address, exactly sized, as buffers do.
static void parse_split(struct result *r, const char *text, size_t len, size_t cut) {
  struct http_parser p;
  size_t start = 0, ends[2] = {cut, len};
  memset(r, 0, sizeof *r);
  http_begin(&p);
  for (int piece = 0; piece < 2; piece++) {
    for (;;) {
      size_t n = ends[piece] - start, used = 0;
      if (n <= p.fed)
        break;
      uint8_t *copy = malloc(n);
      memcpy(copy, text + start, n);
      enum http_parse what;
      do
        what = http_feed(&p, copy, n, &used);
      while (what == HTTP_PARSE_HEAD);
      if (what == HTTP_PARSE_BAD) {
        char line[32];
        add(r, line, (size_t)snprintf(line, sizeof line, "bad %u\n", p.fail));
        free(copy);
        return;
      }
      if (what == HTTP_PARSE_COMPLETE) {
        describe(r, &p, copy);
        start += used;
        http_begin(&p);
      }
      free(copy);
      if (what == HTTP_PARSE_MORE)
        break;
    }
  }
}

static void check_splits(const char *text, const char *expected) {
  size_t len = strlen(text);
  struct result r;
  for (size_t cut = 0; cut <= len; cut++) {
    parse_split(&r, text, len, cut);
    cr_assert_str_eq(r.text, expected, "cut at %zu:\n%s", cut, r.text);
  }
}

Test(http, one_request_split_at_every_byte) {
  check_splits("GET /a/cbcs/1/t/3.m4s?x=1 HTTP/1.1\r\nHost: h\r\nRange:  bytes=0-1 \t\r\nAccept: */*\r\n\r\n",
               "m0 ka1 1.1 chunked0 body0 url=/a/cbcs/1/t/3.m4s?x=1 h=h h=bytes=0-1\n");
}

Test(http, pipelined_requests_split_at_every_byte) {
  check_splits("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
               "HEAD /2 HTTP/1.1\r\nhOST: h\r\nIf-None-Match: \"x\"\r\nConnection: close\r\n\r\n"
               "POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
               "GET /4 HTTP/1.0\r\n\r\n"
               "POST /5 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nTrailer: t\r\n\r\n"
               "GET /6 HTTP/1.1\r\nHost: h\r\n\r\n",
               "m0 ka1 1.1 chunked0 body0 url=/1 h=h\n"
               "m1 ka0 1.1 chunked0 body0 url=/2 h=h h=\"x\"\n"
               "m2 ka1 1.1 chunked0 body5 url=/3 h=h body=hello\n"
               "m0 ka0 1.0 chunked0 body0 url=/4\n"
               "m2 ka1 1.1 chunked1 body3 url=/5 h=h h=chunked\n"
               "m0 ka1 1.1 chunked0 body0 url=/6 h=h\n");
}

Test(http, refusals_split_at_every_byte) {
  check_splits("GET / HTTP/1.1\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/3.7\r\nHost: a\r\n\r\n", "bad 505\n");
  check_splits("FROB / HTTP/1.1\r\nHost: a\r\n\r\n", "bad 501\n");
  check_splits("\x16\x03\x01 GET", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "bad 400\n");
  check_splits("POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "bad 400\n");
}

// Where a body ends in front of another protocol is not defined here. Without a body, the offer is passed over.
Test(http, bodies_before_another_protocol) {
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\nhello", "bad 400\n");
  check_splits("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
               "m0 ka1 1.1 chunked0 body0 url=/ h=a\nm0 ka1 1.1 chunked0 body0 url=/2 h=a\n");
}

Test(http, folded_lines) {
  check_splits("GET / HTTP/1.1\r\nHost: a\r\nRange:\r\n bytes=0-1\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost: a\r\nRange: \t\r\n\tbytes=0-1\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost: a\r\nX:\r\n \r\n y\r\n\r\n", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost:a\r\nRange: \t bytes=0-1 \r\nX:\r\nY: \t \r\n\r\n", "m0 ka1 1.1 chunked0 body0 url=/ h=a h=bytes=0-1\n");
}

Test(http, hosts) {
  check_splits("GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080 \r\n\r\n", "m0 ka1 1.1 chunked0 body0 url=/ h=[2001:db8::1]:8080\n");
  check_splits("GET / HTTP/1.1\r\nHost: a-b_c.example:80\r\n\r\n", "m0 ka1 1.1 chunked0 body0 url=/ h=a-b_c.example:80\n");
  check_splits("GET / HTTP/1.1\r\nHost:\r\n\r\n", "m0 ka1 1.1 chunked0 body0 url=/\n");
  for (int c = 1; c < 256; c++) {
    char text[64];
    struct result r;
    bool good = c < 0x80 && strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=", c);
    int n = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: a%cb\r\n\r\n", c);
    parse_split(&r, text, (size_t)n, 3);
    cr_assert_eq(strcmp(r.text, "bad 400\n") != 0, good, "character %d: %s", c, r.text);
  }
}

// Requests of which each has one of these as its target, or else as its Host: good ones are taken as they are, bad ones are a 400.
// NULL ends a list.
static void check_each(bool as_target, const char *const *good, const char *const *bad) {
  const char *const *lists[] = {good, bad};
  for (int k = 0; k < 2; k++)
    for (const char *const *v = lists[k]; *v; v++) {
      const char *target = as_target ? *v : "/", *host = as_target ? "a" : *v;
      char text[80], taken[80];
      snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, host);
      snprintf(taken, sizeof taken, "m0 ka1 1.1 chunked0 body0 url=%s h=%s\n", target, host);
      check_splits(text, k ? "bad 400\n" : taken);
    }
}

// RFC 9112 §3.2: a Host that is not uri-host [":" port] is a 400.
Test(http, hosts_are_well_formed) {
  static const char *const good[] = {"a", "a:", "a:80", "[::1]", "[::1]:", "[v1.a:b]:80", "1.2.3.4:8080", NULL};
  static const char *const bad[] = {"a:b", "a:80:80", "a:-1", "::1", "[::1", "[]", "[]:80", "[::1]a", "[::1]:a", "[[::1]]", "a[::1]", "a]", "]", NULL};
  check_each(false, good, bad);
}

// A percent sign has two hex digits behind it, brackets an IP address between them. Source: RFC 3986 §2.1, §3.2.2.
Test(http, hosts_are_encoded_and_addresses) {
  static const char *const good[] = {"%41", "a%2Fb:80", "%c3%a4.example", "[::]", "[1:2:3:4:5:6:7:8]", "[::ffff:192.0.2.1]:80", "[vF0.~]", "[V1.a:b]",
                                     "[fe80::1%eth0]:80", "[fe80::1%25eth0]", "[::1%1]"};
  static const char *const bad[] = {"%", "a%", "%4", "a%4", "%zz", "%4g", "%g4", "%%41", "%-1", "%4:80", "[a]", "[:]", "[1.2.3.4]", "[::g]", "[1:2]", "[::1::]",
                                    "[12345::]", "[1:2:3:4:5:6:7:8:9]", "[::1%]", "[%1]", "[v1.a%1]", "[%3a%3a1]", "[v1]", "[v1.]", "[v.a]", "[vg.a]", "[1.a:b]", "[::ffff:192.0.2.256]"};
  char text[80], expected[80];
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
    snprintf(expected, sizeof expected, "m0 ka1 1.1 chunked0 body0 url=/ h=%s\n", good[i]);
    check_splits(text, expected);
  }
  for (size_t i = 0; i < 2 * (sizeof bad / sizeof *bad); i++) {
    snprintf(text, sizeof text, i % 2 ? "GET http://%s/ HTTP/1.1\r\nHost: a\r\n\r\n" : "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i / 2]);
    check_splits(text, "bad 400\n");
  }
}

// The authority of a target in absolute form goes before Host, so it has to be as good. Source: RFC 9112 §3.2.2, RFC 9110 §4.2.
Test(http, targets_in_absolute_form) {
  static const char *const good[] = {"http://h", "http://h/", "HTTP://h:80/a", "https://[::1]:80/a?b", "http://h?a", "/a://b@c", "/?u=http://", NULL};
  static const char *const bad[] = {"http://", "http:///", "http:///a", "http://?a", "http://:80/a", "http://u@h/a", "http://u:p@h/a",
                                    "http://h:b/a", "http://[::1/a", "http://::1/a", NULL};
  check_each(true, good, bad);
}

Test(http, request_lines) {
  check_splits("GET / HTTP/1.1\nHost: a\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.0\n\r\n", "bad 400\n");
  check_splits("GET / RTSP/1.0\r\nHost: a\r\n\r\n", "bad 400\n");
  check_splits("\r\n\nGET  /  HTTP/1.0\r\n\r\n", "m0 ka0 1.0 chunked0 body0 url=/\n");
}

Test(http, targets_have_no_fragment) {
  check_each(true, (const char *const[]){"/a%23b", NULL}, (const char *const[]){"/a#b", "/a#", "/?q#f", "http://h/a#b", "http://h#/a", "*#", NULL});
}

// RFC 9110 §2.5: a higher minor version is taken for the highest that is known.
Test(http, versions) {
  static const char *const ours[] = {"1.1", "1.2", "1.9"}, *const others[] = {"0.9", "2.0", "2.1", "3.7", "1.10", "1.1 ", "11", "1,1", "1."};
  char text[120];
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
    snprintf(text, sizeof text, "GET / HTTP/%s\r\nHost: a\r\n\r\nPOST / HTTP/%s\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", ours[i], ours[i]);
    check_splits(text, "m0 ka1 1.1 chunked0 body0 url=/ h=a\nm2 ka1 1.1 chunked1 body1 url=/ h=a h=chunked\n");
    snprintf(text, sizeof text, "GET / HTTP/%s\r\n\r\n", ours[i]);
    check_splits(text, "bad 400\n");
  }
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    snprintf(text, sizeof text, "GET / HTTP/%s\r\nHost: a\r\n\r\n", others[i]);
    check_splits(text, "bad 505\n");
  }
}

Test(http, one_coding_alone) {
  static const char *const bad[] = {"gzip, chunked", ",chunked", "", "x\r\nTransfer-Encoding: chunked",
                                    "chunked\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer-Encoding:"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[160];
    snprintf(text, sizeof text, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %s\r\n\r\n0\r\n\r\n", bad[i]);
    check_splits(text, "bad 501\n");
  }
  check_splits("POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:\tChunked \r\n\r\n0\r\n\r\n",
               "m2 ka1 1.1 chunked1 body0 url=/ h=a h=Chunked\n");
  check_splits("POST / HTTP/1.0\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "bad 400\n");
}

Test(http, who_says_that_a_connection_ends) {
  static const struct {
    const char *lines;
    bool stays[2]; // with 1.1, with 1.0
  } cases[] = {
      {"", {true, false}},
      {"Connection: close\r\n", {false, false}},
      {"Connection: Keep-Alive\r\n", {true, true}},
      {"Connection: keep-alive, close\r\n", {false, false}},
      {"Connection: close\r\nConnection: keep-alive\r\n", {false, false}},
      {"Proxy-Connection: close\r\n", {true, false}},
      {"proxy-connection: keep-alive\r\n", {true, false}},
      {"Connection: keep-alive\r\nProxy-Connection: close\r\nX: y\r\n", {true, true}},
      {"Proxy-Connection: x, keep-alive\r\nConnection: close\r\n", {false, false}},
  };
  for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
    char text[200], expected[80];
    bool old = i % 2;
    snprintf(text, sizeof text, "GET / HTTP/1.%d\r\nHost: a\r\n%s\r\n", !old, cases[i / 2].lines);
    snprintf(expected, sizeof expected, "m0 ka%d 1.%d chunked0 body0 url=/ h=a\n", cases[i / 2].stays[old], !old);
    check_splits(text, expected);
  }
}

Test(http, names_are_not_empty) {
  check_splits("GET / HTTP/1.1\r\nHost: a\r\n: v\r\n\r\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost: a\r\n:\r\n\r\n", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n: v\r\n\r\n", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: b\r\n: v\r\n\r\n", "bad 400\n");
}

Test(http, a_line_feed_alone_ends_nothing) {
  check_splits("GET / HTTP/1.1\r\nHost: a\r\n\n", "bad 400\n");
  check_splits("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\nx", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "bad 400\n");
  check_splits("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: b\r\n\n", "bad 400\n");
}

static bool given(const char *lines, enum http_header h, bool weak) {
  struct http_parser p;
  char text[512];
  size_t n = (size_t)snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", lines), used;
  http_begin(&p);
  cr_assert_eq(http_feed(&p, (const uint8_t *)text, n, &used), HTTP_PARSE_COMPLETE);
  return http_etag_given(&p, (const uint8_t *)text, h, BYTES_LIT("\"t\""), weak);
}

Test(http, tags_of_all_lines_are_one_list) {
  enum http_header m = HTTP_H_IF_MATCH, n = HTTP_H_IF_NONE_MATCH;
  cr_assert(given("If-Match: \"x\"\r\nIf-Match: *\r\n", m, false));
  cr_assert(given("If-Match: \"x\"\r\nA: b\r\nif-match:\"y\", \"t\" \r\n", m, false));
  cr_assert(given("If-None-Match: \"x\"\r\nIf-None-Match: W/\"t\"\r\n", n, true));
  cr_assert_not(given("If-None-Match: \"x\"\r\nIf-None-Match: W/\"t\"\r\n", n, false));
  cr_assert_not(given("If-Match: \"x\"\r\nIf-Match: \"y\"\r\nIf-None-Match: \"t\"\r\nX-If-Match: \"t\"\r\n", m, false));
  cr_assert_not(given("If-Match: \"x\"\r\nIf-Match:\r\n", m, false));
  cr_assert_not(given("X: \"t\"\r\n", m, false));
}

Test(http, doubled_range_is_ignored) {
  check_splits("GET / HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\nRange: bytes=5-6\r\n\r\n",
               "m0 ka1 1.1 chunked0 body0 url=/ h=h\n");
}

static void check_long(const char *before, size_t fill, const char *after, const char *expected) {
  size_t n = strlen(before) + fill + strlen(after);
  char *text = malloc(n + 1);
  memcpy(text, before, strlen(before));
  memset(text + strlen(before), 'a', fill);
  memcpy(text + strlen(before) + fill, after, strlen(after) + 1);
  struct result r;
  for (size_t cut = 0; cut <= n; cut += 1 + cut / 7) {
    parse_split(&r, text, n, cut);
    cr_assert_str_eq(r.text, expected, "cut at %zu:\n%.60s", cut, r.text);
  }
  free(text);
}

Test(http, limits) {
  check_long("GET /", HTTP_URL_MAX, " HTTP/1.1\r\nHost: h\r\n\r\n", "bad 414\n");
  check_long("GET / HTTP/1.1\r\nHost: h\r\nX: ", HTTP_HEAD_MAX, "\r\n\r\n", "bad 431\n");
  check_long("GET / HTTP/1.1\r\nHost: h\r\nX: ", HTTP_HEAD_MAX - 60, "\r\n\r\n", "m0 ka1 1.1 chunked0 body0 url=/ h=h\n");
  cr_assert(HTTP_URL_MAX >= 8000, "a request line that RFC 9112 §3 recommends to take");
  for (int num = HTTP_HEADERS_MAX; num <= HTTP_HEADERS_MAX + 1; num++) {
    char many[4096] = "GET / HTTP/1.1\r\nHost: h\r\n";
    for (int i = 1; i < num; i++)
      strcat(many, "A: b\r\n");
    strcat(many, "\r\n");
    check_splits(many, num > HTTP_HEADERS_MAX ? "bad 431\n" : "m0 ka1 1.1 chunked0 body0 url=/ h=h\n");
  }
}

// One byte more, and it is refused.
Test(http, what_a_limit_says_is_taken) {
  static char text[HTTP_HEAD_MAX + 100];
  const size_t url = sizeof "GET  HTTP/1.1\r\nHost: h\r\n\r\n" - 1, head = sizeof "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n" - 1;
  for (size_t more = 0; more < 2; more++) {
    for (int is_head = 0; is_head < 2; is_head++) {
      struct http_parser p;
      size_t used, fill = is_head ? HTTP_HEAD_MAX - head + more : HTTP_URL_MAX - 1 + more;
      char *at = stpcpy(text, is_head ? "GET / HTTP/1.1\r\nHost: h\r\nX: " : "GET /");
      memset(at, 'a', fill);
      size_t n = (size_t)(stpcpy(at + fill, is_head ? "\r\n\r\n" : " HTTP/1.1\r\nHost: h\r\n\r\n") - text);
      cr_assert_eq(n, is_head ? HTTP_HEAD_MAX + more : url + HTTP_URL_MAX + more);
      http_begin(&p);
      enum http_parse what = http_feed(&p, (const uint8_t *)text, n, &used);
      cr_expect_eq(what, more ? HTTP_PARSE_BAD : HTTP_PARSE_COMPLETE, "%s, %zu more", is_head ? "head" : "target", more);
      cr_expect_eq(p.fail, more ? (is_head ? 431 : 414) : 0);
    }
  }
}

// Logs have the target of what is refused, up to where the bytes end that were here when that was seen.
Test(http, targets_of_refused_lines) {
  static const struct {
    const char *text, *url;
    int method;
  } cases[] = {
      {"GET /\xc3\xa4/x?y HTTP/1.1\r\nHost: h\r\n\r\n", "/\xc3\xa4/x?y", HTTP_M_GET},
      {"\r\nHEAD  /a\x01z HTTP/1.1\r\nHost: h\r\n\r\n", "/a\x01z", HTTP_M_HEAD},
      {"FOO /a HTTP/1.1\r\nHost: h\r\n\r\n", "/a", HTTP_M_KNOWN},
      {"GET \xff\r\n", "\xff", HTTP_M_GET},
      {"get /a HTTP/1.1\r\n\r\n", "", HTTP_M_KNOWN},
      {"\x16\x03\x01 /a", "", HTTP_M_KNOWN},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t len = strlen(cases[i].text);
    for (size_t cut = 0; cut < len; cut++) {
      struct http_parser p;
      enum http_parse what = HTTP_PARSE_MORE;
      size_t used;
      http_begin(&p);
      for (size_t n = cut; what == HTTP_PARSE_MORE && n <= len; n += n == cut ? len - cut : 1) {
        uint8_t *copy = malloc(n ? n : 1);
        memcpy(copy, cases[i].text, n);
        what = http_feed(&p, copy, n, &used);
        struct bytes url = http_text(copy, p.url);
        if (what == HTTP_PARSE_BAD) {
          cr_expect(n < len ? url.n <= strlen(cases[i].url) : url.n == strlen(cases[i].url), "case %zu, cut at %zu: %zu bytes", i, cut, url.n);
          cr_expect_eq(memcmp(url.p, cases[i].url, url.n), 0, "case %zu, cut at %zu: %.*s", i, cut, (int)url.n, (const char *)url.p);
          cr_expect_eq(p.method, cases[i].method, "case %zu, cut at %zu", i, cut);
        }
        free(copy);
      }
      cr_expect_eq(what, HTTP_PARSE_BAD, "case %zu, cut at %zu", i, cut);
    }
  }
}

static void ranges_are(const char *value, uint64_t size, enum http_range expected, uint32_t num, const uint64_t *pairs) {
  struct http_span64 out[HTTP_RANGES_MAX];
  uint32_t got;
  cr_assert_eq(http_ranges(out, &got, bytes_str(value), size), expected, "%s", value);
  if (expected != HTTP_RANGE_OK)
    return;
  cr_assert_eq(got, num, "%s", value);
  for (uint32_t i = 0; i < num; i++) {
    cr_assert_eq(out[i].off, pairs[2 * i], "%s", value);
    cr_assert_eq(out[i].len, pairs[2 * i + 1], "%s", value);
  }
}

Test(http, ranges) {
  ranges_are("bytes=0-0", 10, HTTP_RANGE_OK, 1, (uint64_t[]){0, 1});
  ranges_are("BYTES=2-", 10, HTTP_RANGE_OK, 1, (uint64_t[]){2, 8});
  ranges_are("bytes=-3", 10, HTTP_RANGE_OK, 1, (uint64_t[]){7, 3});
  ranges_are("bytes=-30", 10, HTTP_RANGE_OK, 1, (uint64_t[]){0, 10});
  ranges_are("bytes=9-99999999999999999999999", 10, HTTP_RANGE_OK, 1, (uint64_t[]){9, 1});
  ranges_are("bytes=0-1, 5-6,-1", 10, HTTP_RANGE_OK, 3, (uint64_t[]){0, 2, 5, 2, 9, 1});
  ranges_are("bytes=0-1,", 10, HTTP_RANGE_OK, 1, (uint64_t[]){0, 2});
  ranges_are("bytes= \t, ,0-1 \t,\t , 5-6,,", 10, HTTP_RANGE_OK, 2, (uint64_t[]){0, 2, 5, 2});
  ranges_are("bytes=20-30,1-2", 10, HTTP_RANGE_OK, 1, (uint64_t[]){1, 2});
  ranges_are("bytes=5-9,0-4", 10, HTTP_RANGE_OK, 2, (uint64_t[]){5, 5, 0, 5});
  ranges_are("bytes=0-0,1-1,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", 100, HTTP_RANGE_OK, 16, (uint64_t[32]){0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1});
  ranges_are("bytes=10-", 10, HTTP_RANGE_UNSATISFIABLE, 0, NULL);
  ranges_are("bytes=-0", 10, HTTP_RANGE_UNSATISFIABLE, 0, NULL);
  ranges_are("bytes=0-", 0, HTTP_RANGE_UNSATISFIABLE, 0, NULL);
  ranges_are("bytes=2-1", 10, HTTP_RANGE_NONE, 0, NULL);
  ranges_are("bytes=", 10, HTTP_RANGE_NONE, 0, NULL);
  for (const char *const *v = (const char *const[]){"bytes =0-1", "bytes= 0-1", "bytes=\t0-1", "bytes=0 -1", "bytes=0- 1", "bytes=- 1", "bytes=2 -", "bytes = 0 - 1",
                                                     "bytes=0-1,2 -3", "bytes=0-1,- 1", "bytes0-1", "bytes", "bytes= ", "bytes=,", "bytes= , ,", "bytes=--1", "bytes=0-1-2",
                                                     "bytes=+0-1", "bytes=0-+1", "bytes=-", "bytes=0x0-1", "bytes=0-1;2-3", "bytes==0-1", NULL}; *v; v++)
    ranges_are(*v, 10, HTTP_RANGE_NONE, 0, NULL);
  ranges_are("bytes=a-b", 10, HTTP_RANGE_NONE, 0, NULL);
  ranges_are("bytes=1", 10, HTTP_RANGE_NONE, 0, NULL);
  ranges_are("items=0-1", 10, HTTP_RANGE_NONE, 0, NULL);
  ranges_are("bytes=0-9,0-9", 10, HTTP_RANGE_NONE, 0, NULL);
  ranges_are("bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", 100, HTTP_RANGE_NONE, 0, NULL);
}

Test(http, etags) {
  struct bytes tag = BYTES_LIT("\"a,b\"");
  cr_assert(http_etag_listed(BYTES_LIT("*"), tag, false));
  cr_assert(http_etag_listed(BYTES_LIT("\"x\", \"a,b\""), tag, false));
  cr_assert(http_etag_listed(BYTES_LIT("W/\"a,b\""), tag, true));
  cr_assert_not(http_etag_listed(BYTES_LIT("W/\"a,b\""), tag, false));
  cr_assert_not(http_etag_listed(BYTES_LIT("\"a\",b\""), tag, true));
  cr_assert_not(http_etag_listed(BYTES_LIT("a,b"), tag, true));
  cr_assert_not(http_etag_listed(BYTES_LIT("x\"a,b\""), tag, true));
  cr_assert_not(http_etag_listed(BYTES_LIT("W/ \"a,b\""), tag, true));
  cr_assert_not(http_etag_listed(BYTES_LIT(""), tag, true));
  cr_assert_not(http_etag_listed(BYTES_LIT("W/"), tag, true));
  cr_assert_not(http_etag_listed(BYTES_LIT("\""), tag, true));
}

Test(http, lines_of_one_name) {
  static const char head[] = "GET / HTTP/1.1\r\nHost: h\r\nx-forwarded-for:  a, b \r\nX-Forwarded-For-Not: n\r\nX-Forwarded-For:\r\nX-FORWARDED-FOR:c\r\n\r\nX-Forwarded-For: d\r\n";
  static const char *const expected[] = {"a, b", "", "c"};
  struct http_parser p;
  struct bytes value;
  size_t used, at = 0, n = 0;
  http_begin(&p);
  cr_assert_eq(http_feed(&p, (const uint8_t *)head, sizeof head - 1, &used), HTTP_PARSE_COMPLETE);
  for (; http_next_line(&value, &at, &p, (const uint8_t *)head, HTTP_H_FORWARDED_FOR); n++)
    cr_assert(n < 3 && bytes_eq(value, bytes_str(expected[n])), "line %zu: %.*s", n, (int)value.n, (const char *)value.p);
  cr_expect_eq(n, 3);
}

Test(http, dates) {
  static const struct {
    uint64_t s;
    const char *text;
  } cases[] = {{0, "Thu, 01 Jan 1970 00:00:00 GMT"},          {784111777, "Sun, 06 Nov 1994 08:49:37 GMT"},
               {951782399, "Mon, 28 Feb 2000 23:59:59 GMT"},  {951782400, "Tue, 29 Feb 2000 00:00:00 GMT"},
               {4102444799, "Thu, 31 Dec 2099 23:59:59 GMT"}, {1767225600, "Thu, 01 Jan 2026 00:00:00 GMT"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char out[30] = {0};
    http_date(out, cases[i].s);
    cr_assert_str_eq(out, cases[i].text);
  }
}
