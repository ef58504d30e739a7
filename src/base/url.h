// URLs that operators write: of key servers, and of this one.
#pragma once
#include "base/bytes.h"

enum { URL_MAX = 1024 };

struct url {
  bool https, v6;     // else http; the host is a literal of IPv6, without its brackets
  uint16_t port;      // 443 or 80 where none is written
  struct bytes host;  // a DNS name or an address: what getaddrinfo can look up
  struct bytes path;  // with its query, as it is written: empty, or it begins with '/' or '?'
};

enum url_fault {
  URL_GOOD,
  URL_LONG,    // more than URL_MAX bytes
  URL_USER,    // a user, and perhaps a password: not to be repeated; anything with an '@' that is no URL
  URL_BYTES,   // bytes that no URL has, or a fragment
  URL_SCHEME,  // neither https:// nor http://
  URL_HOST,    // not HOST[:PORT]
};

// url_is_v6 says whether this is an address of IPv6, without brackets.
bool url_is_v6(struct bytes b);

// url_read takes a URL apart: scheme://host[:port][/path][?query]. Source: RFC 3986 §3.
enum url_fault url_read(struct url *out, struct bytes text);
