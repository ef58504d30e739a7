// URLs of key servers, and public_url. Of what is accepted a request is made as the exchange makes it: our own reader of requests must
// find the same host and target in it; written from its parts the URL reads the same. A public_url is followed by the path of a
// licence and must then be a URL whose path ends in it. Both checks are internal to their files, which are part of this one.
// Source: RFC 3986 §3, RFC 9112 §3.2.
#include "server/key_server.c" // NOLINT(bugprone-suspicious-include)
#include "server/options_check.c" // NOLINT(bugprone-suspicious-include)

#include <arpa/inet.h>

#include "net/http.h"
#include "fuzz.h"

static void forget(struct key_server *s) { free(s->host), free(s->path), free(s->name); }

// An error is one sentence, which repeats nothing of a URL that has an @ in its authority: a password may stand there.
static void check_error(const struct config_error *e, const char *text, const char *option) {
  size_t n = strlen(option);
  const char *authority = strstr(text, "://");
  authority = authority ? authority + 3 : text;
  MUST(memchr(e->text, 0, sizeof e->text) && !strncmp(e->text, option, n) && e->text[n]);
  if (memchr(authority, '@', strcspn(authority, "/?#")) && strlen(text) <= URL_MAX)
    MUST(strstr(e->text, "a user or a password") && !strchr(e->text, '\''));
}

static void check_parts(const struct key_server *s, bool tls) {
  MUST(*s->host && s->port && s->path[0] == '/');
  MUST(!strpbrk(s->host, "/?#@ \"\\") && !strpbrk(s->path, "# \"\\"));
  MUST(s->host_is_v6 || !strchr(s->host, ':'));
  MUST(!strncmp(s->name, tls ? "https://" : "http://", tls ? 8 : 7) && !strchr(s->name, '?'));
  if (s->host_is_v6) {
    uint8_t addr[16];
    MUST(inet_pton(AF_INET6, s->host, addr) == 1);
  }
}

// The head of exchange_link.c, as far as the URL is in it.
static void check_request(const struct key_server *s) {
  static uint8_t text[4 * URL_MAX], want[2 * URL_MAX];
  struct writer w = wr_of(text, sizeof text), host = wr_of(want, sizeof want);
  struct http_parser p;
  size_t used = 0;
  wr_str(&host, s->host_is_v6 ? "[" : "");
  wr_str(&host, s->host);
  wr_fmt(&host, "%s:%u", s->host_is_v6 ? "]" : "", s->port);
  wr_str(&w, "POST ");
  wr_str(&w, s->path);
  wr_str(&w, " HTTP/1.1\r\nHost: ");
  wr_raw(&w, want, host.n);
  wr_str(&w, "\r\nContent-Length: 0\r\n\r\n");
  MUST(wr_ok(&w) && wr_ok(&host));
  http_begin(&p);
  MUST(http_feed(&p, text, w.n, &used) == HTTP_PARSE_COMPLETE && used == w.n);
  MUST(bytes_eq(http_text(text, p.url), bytes_str(s->path)));
  MUST(bytes_eq(http_text(text, p.header[HTTP_H_HOST]), bytes_of(want, host.n)));
}

// `name` with the query of the path is the URL with all that it leaves open.
static void check_again(const struct key_server *s, bool tls) {
  struct key_server t = {0};
  struct config_error e;
  char text[4 * URL_MAX];
  bool tls_too;
  int n = snprintf(text, sizeof text, "%s%s", s->name, s->path + strcspn(s->path, "?"));
  MUST(n > 0 && (size_t)n < sizeof text);
  if (n <= URL_MAX) {
    require(read_url(&t, bytes_of(text, (size_t)n), &tls_too, &e), text);
    MUST(tls_too == tls && t.port == s->port && t.host_is_v6 == s->host_is_v6);
    MUST(!strcmp(t.host, s->host) && !strcmp(t.path, s->path) && !strcmp(t.name, s->name));
  }
  forget(&t);
}

static void check_public(const char *text) {
  static const char rest[] = "/a/cenc/0/license";
  char url[URL_MAX + sizeof rest];
  struct key_server s = {0};
  struct config_error e;
  size_t n = strlen(text);
  bool tls;
  struct config_error why = {.text = ""};
  if (n > URL_MAX - sizeof rest)
    return;
  if (!check_public_url(text, "f", &why)) {
    check_error(&why, text, "f: public_url: ");
    return;
  }
  snprintf(url, sizeof url, "%.*s%s", (int)(n - (text[n - 1] == '/')), text, rest);
  require(read_url(&s, bytes_str(url), &tls, &e), url);
  size_t len = strlen(s.path);
  MUST(len >= sizeof rest - 1 && !strcmp(s.path + len - (sizeof rest - 1), rest) && !strchr(s.path, '?'));
  forget(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct key_server s = {0};
  struct config_error e = {.text = ""};
  bool tls = false;
  char *text = malloc(size + 1);
  MUST(text);
  memcpy(text, data, size);
  text[size] = 0;
  if (!read_url(&s, bytes_of(data, size), &tls, &e)) {
    if (strlen(text) == size)
      check_error(&e, text, "providers: url: ");
  } else {
    check_parts(&s, tls);
    check_request(&s);
    check_again(&s, tls);
  }
  forget(&s);
  check_public(text);
  free(text);
  return 0;
}
