#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "load/playlist.h"

// The "://" of a URL: only letters, digits, '+', '-' and '.' stand before it (RFC 3986 §3.1), else it is part of a path.
static const uint8_t *after_scheme(struct bytes ref) {
  const uint8_t *at = ref.n > 8 ? memmem(ref.p, ref.n < 16 ? ref.n : 16, "://", 3) : NULL;
  for (const uint8_t *c = ref.p; at && c < at; c++)
    if (!((*c | 0x20) >= 'a' && (*c | 0x20) <= 'z') && !(*c >= '0' && *c <= '9') && *c != '+' && *c != '-' && *c != '.')
      return NULL;
  return at;
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

enum err uri_resolve(char out[PLAYLIST_MAX_URI], const char *base, struct bytes ref) {
  char buf[2 * PLAYLIST_MAX_URI];
  const uint8_t *scheme = after_scheme(ref);
  if (scheme) {
    const uint8_t *path = memchr(scheme + 3, '/', ref.n - (size_t)(scheme + 3 - ref.p));
    ref = path ? bytes_of(path, ref.n - (size_t)(path - ref.p)) : BYTES_LIT("/");
  }
  size_t dir = 0;
  if (!ref.n || ref.p[0] != '/') {
    const char *query = strchr(base, '?');
    size_t len = query ? (size_t)(query - base) : strlen(base);
    while (len && base[len - 1] != '/')
      len--;
    dir = len;
  }
  if (dir >= sizeof buf)
    return ERR_LIMIT;
  memcpy(buf, base, dir);
  if (!put_encoded(buf, sizeof buf, &dir, ref, ""))
    return ERR_LIMIT;
  // dot segments: every "seg/../" takes its parent with it, "./" vanishes
  size_t n = 0;
  for (const char *p = buf; *p;) {
    size_t len = strcspn(p, "/") + (p[strcspn(p, "/")] == '/');
    if (len == 2 && memcmp(p, "./", 2) == 0) {
    } else if (len == 3 && memcmp(p, "../", 3) == 0) {
      n -= n > 1;
      while (n > 1 && out[n - 1] != '/')
        n--;
    } else {
      if (n + len >= PLAYLIST_MAX_URI)
        return ERR_LIMIT;
      memcpy(out + n, p, len);
      n += len;
    }
    p += len;
  }
  out[n] = 0;
  return ERR_OK;
}

struct lines {
  struct bytes left;
  uint64_t line;
};

static bool next_line(struct lines *l, struct bytes *out) {
  if (!l->left.n)
    return false;
  const uint8_t *end = memchr(l->left.p, '\n', l->left.n);
  size_t n = end ? (size_t)(end - l->left.p) : l->left.n;
  *out = bytes_of(l->left.p, n && l->left.p[n - 1] == '\r' ? n - 1 : n);
  l->left = bytes_of(l->left.p + n + (end != NULL), l->left.n - n - (end != NULL));
  l->line++;
  return true;
}

static bool after(struct bytes line, const char *tag, struct bytes *rest) {
  size_t n = strlen(tag);
  if (line.n < n || memcmp(line.p, tag, n) != 0)
    return false;
  *rest = bytes_of(line.p + n, line.n - n);
  return true;
}

// The value of one attribute in NAME=VALUE,NAME="VALUE",… without its quotes; empty when it is not there.
static struct bytes attribute(struct bytes list, const char *name) {
  size_t want = strlen(name);
  for (size_t i = 0; i < list.n;) {
    size_t eq = i;
    while (eq < list.n && list.p[eq] != '=')
      eq++;
    size_t v = eq + 1, end = v;
    bool quoted = v < list.n && list.p[v] == '"';
    if (quoted)
      for (end = ++v; end < list.n && list.p[end] != '"';)
        end++;
    else
      while (end < list.n && list.p[end] != ',')
        end++;
    if (eq - i == want && memcmp(list.p + i, name, want) == 0 && end <= list.n && v <= end)
      return bytes_of(list.p + v, end - v);
    i = end + quoted;
    while (i < list.n && (list.p[i] == ',' || list.p[i] == ' '))
      i++;
  }
  return (struct bytes){0};
}

static void copy_text(char *out, size_t cap, struct bytes t) {
  size_t n = t.n < cap - 1 ? t.n : cap - 1;
  if (n)
    memcpy(out, t.p, n);
  out[n] = 0;
}

static enum err add_rendition(struct renditions *out, const char *base, struct bytes uri, struct bytes attrs, uint64_t line,
                              struct diag *diag) {
  if (out->num == PLAYLIST_MAX_RENDITIONS)
    return diag_set(diag, ERR_LIMIT, line, "more than %d renditions", PLAYLIST_MAX_RENDITIONS);
  struct rendition *r = &out->r[out->num];
  uint64_t bandwidth = 0;
  if (attribute(attrs, "BANDWIDTH").n && parse_u64(&bandwidth, attribute(attrs, "BANDWIDTH")))
    return diag_set(diag, ERR_SYNTAX, line, "BANDWIDTH is not a number");
  r->bandwidth = bandwidth < UINT32_MAX ? (uint32_t)bandwidth : UINT32_MAX;
  copy_text(r->codecs, sizeof r->codecs, attribute(attrs, "CODECS"));
  if (uri_resolve(r->uri, base, uri))
    return diag_set(diag, ERR_LIMIT, line, "a URI is too long");
  out->num++;
  return ERR_OK;
}

enum err hls_read_multivariant(struct renditions *out, struct bytes text, const char *base, struct diag *diag) {
  struct lines l = {text, 0};
  struct bytes line, attrs = {0}, rest;
  bool pending = false;
  out->num = 0;
  if (!next_line(&l, &line) || !bytes_eq(line, BYTES_LIT("#EXTM3U")))
    return diag_set(diag, ERR_SYNTAX, 1, "the first line is not #EXTM3U");
  while (next_line(&l, &line)) {
    if (after(line, "#EXT-X-STREAM-INF:", &rest)) {
      attrs = rest;
      pending = true;
    } else if (line.n && line.p[0] != '#') {
      if (!pending)
        return diag_set(diag, ERR_SYNTAX, l.line, "a URI without #EXT-X-STREAM-INF");
      enum err e = add_rendition(out, base, line, attrs, l.line, diag);
      if (e)
        return e;
      pending = false;
    }
  }
  if (!out->num)
    return diag_set(diag, ERR_SYNTAX, l.line, "no rendition in the multivariant playlist");
  return ERR_OK;
}

static uint32_t count_segments(struct bytes text, size_t *uri_bytes, size_t base_len) {
  struct lines l = {text, 0};
  struct bytes line;
  uint32_t num = 0;
  *uri_bytes = 0;
  while (next_line(&l, &line))
    if (line.n && line.p[0] != '#') {
      num++;
      *uri_bytes += base_len + 3 * line.n + 1; // every byte may have to be encoded
    }
  return num;
}

static bool read_extinf(struct bytes rest, double *out) {
  char buf[32], *end;
  const uint8_t *comma = rest.n ? memchr(rest.p, ',', rest.n) : NULL;
  size_t n = comma ? (size_t)(comma - rest.p) : rest.n;
  if (!n || n >= sizeof buf)
    return false;
  memcpy(buf, rest.p, n);
  buf[n] = 0;
  *out = strtod(buf, &end);
  return !*end && isfinite(*out) && *out >= 0;
}

static enum err read_map(struct media_list *out, const char *base, struct bytes attrs, uint64_t line, struct diag *diag) {
  struct bytes uri = attribute(attrs, "URI");
  if (!uri.n || uri_resolve(out->init, base, uri))
    return diag_set(diag, ERR_SYNTAX, line, "#EXT-X-MAP has no usable URI");
  return ERR_OK;
}

// One line for each DRM system; not every one says the KID.
static enum err read_key(struct media_list *out, struct bytes attrs, uint64_t line, struct diag *diag) {
  struct bytes text = attribute(attrs, "KEYID");
  uint8_t kid[16];
  if (!text.n)
    return ERR_OK;
  if (text.n != 34 || text.p[0] != '0' || (text.p[1] | 0x20) != 'x' || hex_read(kid, 16, bytes_of(text.p + 2, 32)))
    return diag_set(diag, ERR_SYNTAX, line, "KEYID is not 0x and 32 hex digits");
  playlist_kids_add(&out->kids, kid);
  return ERR_OK;
}

enum err hls_read_media(struct media_list *out, struct alloc *mem, struct bytes text, const char *base, struct diag *diag) {
  size_t uri_bytes, used = 0;
  uint32_t num = count_segments(text, &uri_bytes, strlen(base));
  if (num > PLAYLIST_MAX_SEGMENTS)
    return diag_set(diag, ERR_LIMIT, 1, "more than %d segments", PLAYLIST_MAX_SEGMENTS);
  *out = (struct media_list){0};
  out->start_s = mem->get(mem, (num + 1) * sizeof *out->start_s);
  out->uri_off = mem->get(mem, (num + 1) * sizeof *out->uri_off);
  out->uris = mem->get(mem, uri_bytes + PLAYLIST_MAX_URI);
  if (!out->start_s || !out->uri_off || !out->uris)
    return diag_set(diag, ERR_NO_MEMORY, 1, NULL);
  struct lines l = {text, 0};
  struct bytes line, rest;
  double at = 0, duration = -1;
  bool ended = false;
  if (!next_line(&l, &line) || !bytes_eq(line, BYTES_LIT("#EXTM3U")))
    return diag_set(diag, ERR_SYNTAX, 1, "the first line is not #EXTM3U");
  while (next_line(&l, &line)) {
    enum err e = ERR_OK;
    if (after(line, "#EXTINF:", &rest)) {
      if (!read_extinf(rest, &duration))
        return diag_set(diag, ERR_SYNTAX, l.line, "#EXTINF has no duration");
    } else if (after(line, "#EXT-X-MAP:", &rest)) {
      e = read_map(out, base, rest, l.line, diag);
    } else if (after(line, "#EXT-X-KEY:", &rest)) {
      e = read_key(out, rest, l.line, diag);
    } else if (after(line, "#EXT-X-ENDLIST", &rest)) {
      ended = true;
    } else if (line.n && line.p[0] != '#') {
      char uri[PLAYLIST_MAX_URI];
      if (duration < 0)
        return diag_set(diag, ERR_SYNTAX, l.line, "a segment without #EXTINF");
      if (uri_resolve(uri, base, line))
        return diag_set(diag, ERR_LIMIT, l.line, "a URI is too long");
      out->start_s[out->num] = at;
      out->uri_off[out->num++] = (uint32_t)used;
      memcpy(out->uris + used, uri, strlen(uri) + 1);
      used += strlen(uri) + 1;
      at += duration;
      if (at > PLAYLIST_MAX_SECONDS)
        return diag_set(diag, ERR_LIMIT, l.line, "the playlist lasts more than %d seconds", PLAYLIST_MAX_SECONDS);
      duration = -1;
    }
    if (e)
      return e;
  }
  out->start_s[out->num] = at;
  if (!out->num || !out->init[0] || !ended)
    return diag_set(diag, ERR_SYNTAX, l.line, "the media playlist lacks %s",
                    !out->num ? "segments" : !out->init[0] ? "#EXT-X-MAP" : "#EXT-X-ENDLIST");
  return ERR_OK;
}
