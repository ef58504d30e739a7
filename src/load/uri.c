// References of playlists and manifests. Source: RFC 3986 §3, §5.2.
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "load/playlist.h"

// How long a URL's "SCHEME:" is; 0: there is none. Only letters, digits, '+', '-' and '.' stand before the colon.
static size_t scheme_length(struct bytes ref) {
  for (size_t i = 0; i < ref.n && i < 16; i++) {
    uint8_t c = ref.p[i];
    if (c == ':')
      return i ? i + 1 : 0;
    if (!((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && !(i && c >= '0' && c <= '9') && !(i && (c == '+' || c == '-' || c == '.')))
      return 0;
  }
  return 0;
}

static bool has_authority(struct bytes after_scheme) { return after_scheme.n >= 2 && !memcmp(after_scheme.p, "//", 2); }

bool uri_is_absolute(struct bytes ref) { return scheme_length(ref) || has_authority(ref); }

static struct bytes from(struct bytes b, size_t at) { return bytes_of(b.p + at, b.n - at); }

// HOST:PORT, up to the path, query or fragment.
static struct bytes authority_of(struct bytes b) {
  size_t n = 0;
  while (n < b.n && b.p[n] != '/' && b.p[n] != '?' && b.p[n] != '#')
    n++;
  return bytes_of(b.p, n);
}

static bool same_text(struct bytes a, struct bytes b) { return a.n == b.n && (!a.n || !strncasecmp((const char *)a.p, (const char *)b.p, a.n)); }

struct origin {
  struct bytes scheme, host, port;
};

static struct origin origin_of(struct bytes scheme, struct bytes authority) {
  struct origin o = {.scheme = scheme, .host = authority, .port = same_text(scheme, BYTES_LIT("https:")) ? BYTES_LIT("443") : BYTES_LIT("80")};
  for (size_t i = authority.n; i-- > 0 && authority.p[i] != ']';) // of an address in brackets the colons are its own
    if (authority.p[i] == ':') {
      o.host.n = i;
      if (i + 1 < authority.n)
        o.port = from(authority, i + 1);
      break;
    }
  return o;
}

// Takes scheme and authority off `ref`, which has the latter; the document's scheme where it does not say one.
static struct origin take_origin(struct bytes *ref, struct bytes scheme) {
  size_t n = scheme_length(*ref);
  if (n)
    scheme = bytes_of(ref->p, n);
  struct bytes rest = from(*ref, n + 2), authority = authority_of(rest);
  *ref = from(rest, authority.n);
  return origin_of(scheme, authority);
}

// Appends `text`, percent-encoding the bytes in `but` and those that no URI may hold; false when that is more than `cap`.
static bool put_encoded(char *out, size_t cap, size_t *n, struct bytes text, const char *but) {
  for (size_t i = 0; i < text.n; i++) {
    uint8_t c = text.p[i];
    bool bare = c > 0x20 && c < 0x7f && !strchr(but, c) && !strchr("\"<>\\^`{|}", c);
    if (*n + (bare ? 1 : 3) >= cap)
      return false;
    if (bare)
      out[(*n)++] = (char)c;
    else
      *n += (size_t)snprintf(out + *n, cap - *n, "%%%02X", c);
  }
  out[*n] = 0;
  return true;
}

enum err uri_of_asset(char out[PLAYLIST_MAX_URI], const char *asset, const char *rest) {
  size_t n = 0;
  return put_encoded(out, PLAYLIST_MAX_URI, &n, BYTES_LIT("/"), "") && put_encoded(out, PLAYLIST_MAX_URI, &n, bytes_str(asset), "%?#[]") &&
                 put_encoded(out, PLAYLIST_MAX_URI, &n, BYTES_LIT("/"), "") && put_encoded(out, PLAYLIST_MAX_URI, &n, bytes_str(rest), "")
             ? ERR_OK
             : ERR_LIMIT;
}

// Dot segments: every "seg/../" takes its parent with it, "./" vanishes; also where the path ends with "..", or ".". What is
// behind a '?' is no path.
static enum err remove_dots(char out[PLAYLIST_MAX_URI], const char *path) {
  size_t n = 0, end = strcspn(path, "?");
  for (size_t at = 0; at < end;) {
    const char *p = path + at;
    size_t name = strcspn(p, "/?"), len = name + (p[name] == '/');
    if (name == 2 && p[0] == '.' && p[1] == '.') {
      n -= n > 1;
      while (n > 1 && out[n - 1] != '/')
        n--;
    } else if (name != 1 || p[0] != '.') {
      if (n + len >= PLAYLIST_MAX_URI)
        return ERR_LIMIT;
      memcpy(out + n, p, len);
      n += len;
    }
    at += len;
  }
  size_t query = strlen(path + end);
  if (n + query >= PLAYLIST_MAX_URI)
    return ERR_LIMIT;
  memcpy(out + n, path + end, query + 1);
  return ERR_OK;
}

enum err uri_resolve(char out[PLAYLIST_MAX_URI], const char *base, struct bytes ref) {
  char buf[2 * PLAYLIST_MAX_URI];
  const uint8_t *fragment = ref.n ? memchr(ref.p, '#', ref.n) : NULL;
  struct bytes document = bytes_str(base);
  struct origin own = {0};
  if (fragment)
    ref.n = (size_t)(fragment - ref.p);
  if (base[0] != '/')
    own = take_origin(&document, (struct bytes){0});
  bool whole = false;
  if (uri_is_absolute(ref)) {
    if (!has_authority(from(ref, scheme_length(ref)))) // as data:
      return ERR_UNSUPPORTED;
    struct origin o = take_origin(&ref, own.scheme);
    if (!own.host.n || !same_text(o.scheme, own.scheme) || !same_text(o.host, own.host) || !same_text(o.port, own.port))
      return ERR_UNSUPPORTED;
    whole = true;
  }
  const uint8_t *query = document.n ? memchr(document.p, '?', document.n) : NULL;
  size_t path = query ? (size_t)(query - document.p) : document.n, n = 0;
  struct bytes keep = {0}; // of the document's own path
  if (whole && (!ref.n || ref.p[0] != '/'))
    keep = BYTES_LIT("/");
  else if (!ref.n)
    keep = document;
  else if (ref.p[0] == '?')
    keep = bytes_of(document.p, path);
  else if (ref.p[0] != '/') {
    while (path && document.p[path - 1] != '/')
      path--;
    keep = bytes_of(document.p, path);
  }
  if (!put_encoded(buf, sizeof buf, &n, keep.n || (ref.n && ref.p[0] == '/') ? keep : BYTES_LIT("/"), "") || !put_encoded(buf, sizeof buf, &n, ref, ""))
    return ERR_LIMIT;
  return remove_dots(out, buf);
}

enum err uri_refused(struct diag *diag, enum err e, uint64_t line, struct bytes ref) {
  size_t n = scheme_length(ref);
  if (e != ERR_UNSUPPORTED)
    return diag_set(diag, e, line, "a URI has more than %d bytes: shorter paths are needed", PLAYLIST_MAX_URI - 1);
  struct bytes after = from(ref, n);
  n += has_authority(after) ? 2 + authority_of(from(after, 2)).n : 0;
  return diag_set(diag, e, line, "leads to %.*s, which is not the target: give that as --target, or write relative URIs", n < 60 ? (int)n : 60, ref.p);
}

bool byte_range_read(struct byte_range *out, struct bytes text) {
  const uint8_t *dash = text.n ? memchr(text.p, '-', text.n) : NULL;
  uint64_t first, last;
  if (!dash || parse_u64(&first, bytes_of(text.p, (size_t)(dash - text.p))) || parse_u64(&last, bytes_of(dash + 1, text.n - (size_t)(dash + 1 - text.p))) ||
      last < first || last == UINT64_MAX)
    return false;
  *out = (struct byte_range){first, last - first + 1};
  return true;
}

// "bytes FROM-TO/LENGTH", whose length may be "*".
static bool content_range_read(struct byte_range *out, uint64_t *of, bool *has_length, const char *text) {
  const char *slash = strchr(text, '/');
  if (!slash || strncasecmp(text, "bytes ", 6) != 0 || slash < text + 6)
    return false;
  *has_length = strcmp(slash + 1, "*") != 0;
  return byte_range_read(out, bytes_of(text + 6, (size_t)(slash - text) - 6)) && (!*has_length || parse_u64(of, bytes_str(slash + 1)) == ERR_OK);
}

void content_range_wrong(char why[CONTENT_RANGE_WHY], const char *text, uint64_t from, uint64_t to, uint64_t of) {
  struct byte_range got;
  uint64_t length = 0;
  bool has_length;
  why[0] = 0;
  if (!text[0])
    snprintf(why, CONTENT_RANGE_WHY, "it comes with 206 and without a Content-Range; bytes %lu to %lu were asked for", from, to);
  else if (!content_range_read(&got, &length, &has_length, text))
    snprintf(why, CONTENT_RANGE_WHY, "its Content-Range is not of the form \"bytes FROM-TO/LENGTH\"; bytes %lu to %lu were asked for", from, to);
  else if (got.from != from || got.from + got.len - 1 != to)
    snprintf(why, CONTENT_RANGE_WHY, "its Content-Range says bytes %lu to %lu; %lu to %lu were asked for", got.from, got.from + got.len - 1, from, to);
  else if (has_length && (of ? length != of : length <= to))
    snprintf(why, CONTENT_RANGE_WHY, of ? "its Content-Range says that the whole has %lu bytes; it came with %lu" : "its Content-Range says that the whole has %lu bytes; byte %lu was asked for",
             length, of ? of : to);
}
