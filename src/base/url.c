#include "base/url.h"

#include <arpa/inet.h>

#include "base/text.h"

static size_t find(struct bytes b, const char *any) {
  size_t n = 0;
  while (n < b.n && !strchr(any, b.p[n]))
    n++;
  return n;
}

static struct bytes behind(struct bytes b, size_t n) { return bytes_of(b.p + n, b.n - n); }

static bool begins(struct bytes b, struct bytes with) { return b.n >= with.n && bytes_eq(bytes_of(b.p, with.n), with); }

static bool bytes_ok(struct bytes b) {
  for (size_t i = 0; i < b.n; i++)
    if (b.p[i] <= 0x20 || b.p[i] >= 0x7f || strchr("#\"\\", b.p[i]))
      return false;
  return true;
}

// Of what RFC 3986 §3.2.2 allows in a name what a name in DNS can have.
static bool name_ok(struct bytes b) {
  for (size_t i = 0; i < b.n; i++) {
    uint8_t c = b.p[i];
    if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '.' || c == '_'))
      return false;
  }
  return b.n > 0;
}

bool url_is_v6(struct bytes b) {
  char text[INET6_ADDRSTRLEN];
  struct in6_addr addr;
  if (b.n >= sizeof text)
    return false;
  memcpy(text, b.p, b.n);
  text[b.n] = 0;
  return inet_pton(AF_INET6, text, &addr) == 1;
}

// HOST[:PORT]
static bool read_authority(struct url *out, struct bytes a) {
  uint64_t port = out->https ? 443 : 80;
  out->v6 = a.n && a.p[0] == '[';
  out->host = out->v6 ? bytes_of(a.p + 1, find(behind(a, 1), "]")) : bytes_of(a.p, find(a, ":"));
  size_t n = out->host.n + (out->v6 ? 2 : 0);
  if (n > a.n || !(out->v6 ? url_is_v6(out->host) : name_ok(out->host)))
    return false;
  a = behind(a, n);
  if (a.n && (a.p[0] != ':' || parse_u64(&port, behind(a, 1)) || !port || port > UINT16_MAX))
    return false;
  out->port = (uint16_t)port;
  return true;
}

static enum url_fault take_apart(struct url *out, struct bytes text) {
  static const struct bytes https = BYTES_LIT("https://"), http = BYTES_LIT("http://");
  if (text.n > URL_MAX)
    return URL_LONG;
  if (!text.n)
    return URL_SCHEME;
  size_t scheme = 0;
  while (scheme < text.n && !begins(behind(text, scheme), bytes_of("://", 3)))
    scheme++;
  struct bytes rest = behind(text, scheme < text.n ? scheme + 3 : 0), authority = bytes_of(rest.p, find(rest, "/?#"));
  if (authority.n && memchr(authority.p, '@', authority.n))
    return URL_USER;
  if (!bytes_ok(text))
    return URL_BYTES;
  out->https = begins(text, https);
  if (!out->https && !begins(text, http))
    return URL_SCHEME;
  out->path = behind(rest, authority.n);
  return read_authority(out, authority) ? URL_GOOD : URL_HOST;
}

enum url_fault url_read(struct url *out, struct bytes text) {
  enum url_fault fault = take_apart(out, text);
  if (fault == URL_GOOD || fault == URL_LONG || !text.n || !memchr(text.p, '@', text.n))
    return fault;
  return URL_USER; // of `user:pass#word@host` the host would be `user`
}
