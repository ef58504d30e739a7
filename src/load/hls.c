#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "load/playlist.h"

// MAX_SEARCHED: of a multivariant playlist, which is gone through for the audio of each variant; less than a second.
enum { MAX_VARIABLES = 32, MAX_LINE = 4096, MAX_VARIANTS = 1024, MAX_SEARCHED = 512 << 20 };

// EXT-X-DEFINE: both point into the text, or into the playlist's own URL.
struct variable {
  struct bytes name, value;
};

struct lines {
  struct bytes left;
  uint64_t line;
  const char *base;
  struct diag *diag;
  uint32_t num_vars;
  struct variable vars[MAX_VARIABLES];
  uint8_t with_values[MAX_LINE]; // the line, where it names variables
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

// ---- variables (§4.4.2.3)

// The value of a parameter of the playlist's own URL; its p is NULL without one.
static struct bytes parameter(const char *url, struct bytes name) {
  const char *p = strchr(url, '?');
  while (p && *p) {
    p++;
    size_t n = strcspn(p, "&"), eq = strcspn(p, "=&");
    if (p[eq] == '=' && bytes_eq(bytes_of(p, eq), name))
      return bytes_of(p + eq + 1, n - eq - 1);
    p += n;
  }
  return (struct bytes){0};
}

static enum err define(struct lines *l, struct bytes attrs) {
  struct bytes name = attribute(attrs, "NAME"), query = attribute(attrs, "QUERYPARAM"), import = attribute(attrs, "IMPORT");
  struct variable v = {name, attribute(attrs, "VALUE")};
  if (import.n)
    return diag_set(l->diag, ERR_SYNTAX, l->line, "#EXT-X-DEFINE with IMPORT is not read: give NAME and VALUE in this playlist");
  if (query.n)
    v = (struct variable){query, parameter(l->base, query)};
  if (!v.name.n)
    return diag_set(l->diag, ERR_SYNTAX, l->line, "#EXT-X-DEFINE has neither NAME nor QUERYPARAM");
  if (query.n && !v.value.p)
    return diag_set(l->diag, ERR_SYNTAX, l->line, "#EXT-X-DEFINE: the playlist's own URL has no parameter %.*s", query.n < 60 ? (int)query.n : 60, query.p);
  if (l->num_vars == MAX_VARIABLES)
    return diag_set(l->diag, ERR_LIMIT, l->line, "more than %d variables", MAX_VARIABLES);
  l->vars[l->num_vars++] = v;
  return ERR_OK;
}

// Where variables may stand: in URIs, and in what a tag says. Comments and the names of tags are left as they are.
static size_t values_from(struct bytes line) {
  struct bytes rest;
  if (line.p[0] != '#')
    return 0;
  const uint8_t *colon = after(line, "#EXT", &rest) ? memchr(line.p, ':', line.n) : NULL;
  return colon ? (size_t)(colon - line.p) + 1 : line.n;
}

// Puts values in the place of {$NAME}.
static enum err put_values(struct lines *l, struct bytes *line) {
  size_t n = 0, head = values_from(*line);
  bool is_uri = !head;
  if (!l->num_vars || !memmem(line->p + head, line->n - head, "{$", 2))
    return ERR_OK;
  for (size_t i = 0; i < line->n;) {
    struct bytes piece = bytes_of(line->p + i, 1);
    const uint8_t *end = i >= head && line->n - i > 2 && !memcmp(line->p + i, "{$", 2) ? memchr(line->p + i, '}', line->n - i) : NULL;
    if (end) {
      struct bytes name = bytes_of(line->p + i + 2, (size_t)(end - line->p) - i - 2);
      uint32_t k = 0;
      while (k < l->num_vars && !bytes_eq(l->vars[k].name, name))
        k++;
      if (k == l->num_vars)
        return diag_set(l->diag, ERR_SYNTAX, l->line, "the variable %.*s is not defined", name.n < 60 ? (int)name.n : 60, name.p);
      piece = l->vars[k].value;
      i += name.n + 3;
    } else {
      i++;
    }
    if (piece.n > MAX_LINE - n)
      return diag_set(l->diag, ERR_LIMIT, l->line, "with its variables the line has more than %d bytes", MAX_LINE);
    if (piece.n)
      memcpy(l->with_values + n, piece.p, piece.n);
    n += piece.n;
  }
  if (is_uri && (!n || l->with_values[0] == '#')) // counted as a URI when room was made
    return diag_set(l->diag, ERR_SYNTAX, l->line, "with its variables the line is no URI: it is empty, or begins with #");
  *line = bytes_of(l->with_values, n);
  return ERR_OK;
}

// The next line that says something, its variables replaced; EXT-X-DEFINE is dealt with. `*more` false: there is none.
static enum err next_said(struct lines *l, struct bytes *line, bool *more) {
  struct bytes rest;
  while ((*more = next_line(l, line))) {
    if (!line->n)
      continue;
    if (!after(*line, "#EXT-X-DEFINE:", &rest))
      return put_values(l, line);
    enum err e = define(l, rest);
    if (e)
      return e;
  }
  return ERR_OK;
}

static enum err begin(struct lines *l, struct bytes text, const char *base, struct diag *diag) {
  struct bytes line;
  l->left = text;
  l->line = 0;
  l->base = base;
  l->diag = diag;
  l->num_vars = 0;
  if (!next_line(l, &line) || !bytes_eq(line, BYTES_LIT("#EXTM3U")))
    return diag_set(diag, ERR_SYNTAX, 1, "the first line is not #EXTM3U");
  return ERR_OK;
}

// ---- multivariant playlists

static enum err add_rendition(struct renditions *out, struct lines *l, struct bytes uri) {
  char path[PLAYLIST_MAX_URI];
  enum err e = uri_resolve(path, l->base, uri);
  if (e)
    return uri_refused(l->diag, e, l->line, uri);
  for (uint32_t i = 0; i < out->num; i++)
    if (!strcmp(out->uri[i], path)) // as of variants that differ in their pictures
      return ERR_OK;
  if (out->num == PLAYLIST_MAX_RENDITIONS)
    return diag_set(l->diag, ERR_LIMIT, l->line, "more than %d renditions", PLAYLIST_MAX_RENDITIONS);
  memcpy(out->uri[out->num++], path, strlen(path) + 1);
  return ERR_OK;
}

// Adds the audio of a group that has playlists of its own. `*found` tells whether there is some.
static enum err add_group(struct renditions *out, struct bytes text, const char *base, struct bytes group, bool *found, struct diag *diag) {
  struct lines l;
  struct bytes line, attrs;
  bool more;
  enum err e = begin(&l, text, base, diag);
  *found = false;
  while (!e && !(e = next_said(&l, &line, &more)) && more) {
    if (!after(line, "#EXT-X-MEDIA:", &attrs) || !bytes_eq(attribute(attrs, "TYPE"), BYTES_LIT("AUDIO")) ||
        !bytes_eq(attribute(attrs, "GROUP-ID"), group) || !attribute(attrs, "URI").n)
      continue;
    *found = true;
    e = add_rendition(out, &l, attribute(attrs, "URI"));
  }
  return e;
}

// Whether a variant has pictures: its size says so, or a codec that is none of sound.
static bool has_pictures(struct bytes attrs) {
  static const char *const video[] = {"avc", "hvc1", "hev1", "dvh", "dvav", "av01", "vp08", "vp09", "vvc1", "vvi1", "mp4v"};
  struct bytes codecs = attribute(attrs, "CODECS");
  bool found = attribute(attrs, "RESOLUTION").n > 0;
  for (size_t i = 0; codecs.n && i < sizeof video / sizeof *video; i++)
    found |= memmem(codecs.p, codecs.n, video[i], strlen(video[i])) != NULL;
  return found;
}

// Listeners hear: of a variant with pictures whose sound has playlists of its own, only these.
static enum err add_variant(struct renditions *out, struct lines *l, struct bytes text, struct bytes attrs, struct bytes uri) {
  struct bytes group = attribute(attrs, "AUDIO");
  bool found = false;
  if (!has_pictures(attrs)) {
    enum err e = add_rendition(out, l, uri);
    return e || !group.n ? e : add_group(out, text, l->base, group, &found, l->diag);
  }
  enum err e = group.n ? add_group(out, text, l->base, group, &found, l->diag) : ERR_OK;
  return e || found ? e : add_rendition(out, l, uri);
}

enum err hls_read_multivariant(struct renditions *out, struct bytes text, const char *base, struct diag *diag) {
  struct lines l;
  struct bytes line, rest;
  uint8_t attrs[MAX_LINE];
  size_t num_attrs = 0;
  uint32_t variants = 0;
  bool pending = false, more;
  out->num = 0;
  enum err e = begin(&l, text, base, diag);
  while (!e && !(e = next_said(&l, &line, &more)) && more) {
    if (after(line, "#EXT-X-STREAM-INF:", &rest)) {
      if (rest.n > sizeof attrs || ++variants > MAX_VARIANTS)
        return diag_set(diag, ERR_LIMIT, l.line, "more than %d bytes in #EXT-X-STREAM-INF, or more than %d of them", MAX_LINE, MAX_VARIANTS);
      if (text.n > MAX_SEARCHED / variants)
        return diag_set(diag, ERR_LIMIT, l.line, "%u variants in a playlist of %zu bytes: together more than is gone through", variants, text.n);
      memcpy(attrs, rest.p, num_attrs = rest.n); // the next line may need the place where variables are replaced
      pending = true;
    } else if (line.p[0] != '#') {
      if (!pending)
        return diag_set(diag, ERR_SYNTAX, l.line, "a URI without #EXT-X-STREAM-INF");
      e = add_variant(out, &l, text, bytes_of(attrs, num_attrs), line);
      pending = false;
    }
  }
  return e || out->num ? e : diag_set(diag, ERR_SYNTAX, l.line, "no rendition in the multivariant playlist");
}

// ---- media playlists

bool hls_is_media(struct bytes text) {
  struct lines l = {.left = text};
  struct bytes line, rest;
  while (next_line(&l, &line))
    if (after(line, "#EXTINF:", &rest) || after(line, "#EXT-X-TARGETDURATION:", &rest))
      return true;
  return false;
}

// What there is to make room for.
struct counts {
  uint32_t segments, parts;
  size_t uri_bytes;
  bool ranges;
};

static struct counts count_lines(struct bytes text, size_t base_len) {
  struct lines l = {.left = text};
  struct bytes line, rest;
  struct counts c = {.parts = 1};
  bool variables = false;
  while (next_line(&l, &line)) {
    bool map = after(line, "#EXT-X-MAP:", &rest), segment = line.n && line.p[0] != '#';
    c.ranges |= after(line, "#EXT-X-BYTERANGE:", &rest);
    variables |= after(line, "#EXT-X-DEFINE:", &rest);
    c.segments += segment;
    c.parts += map;
    size_t most = base_len + 3 * line.n + 2; // every byte may have to be encoded
    if (map || segment)
      c.uri_bytes += variables || most > PLAYLIST_MAX_URI ? PLAYLIST_MAX_URI : most;
  }
  return c;
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

// LENGTH[@FROM]; `*from` tells whether it is there.
static bool read_range(struct byte_range *out, struct bytes text, bool *from) {
  const uint8_t *at = text.n ? memchr(text.p, '@', text.n) : NULL;
  *from = at != NULL;
  out->from = 0;
  size_t n = at ? (size_t)(at - text.p) : text.n;
  return !parse_u64(&out->len, bytes_of(text.p, n)) && out->len && (!at || !parse_u64(&out->from, bytes_of(at + 1, text.n - n - 1))) &&
         out->len <= (UINT64_C(1) << 62) && out->from <= (UINT64_C(1) << 62);
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

// A media playlist as it is being read.
struct reading {
  struct lines l;
  struct media_list *out;
  size_t used;          // of out->uris
  uint32_t last;        // where the last segment's path stands
  struct byte_range range, last_range;
  double at_s, duration_s; // negative: no EXTINF yet
  bool ranged, has_from, ended;
};

static const char *put_uri(struct reading *r, const char *uri) {
  char *at = r->out->uris + r->used;
  memcpy(at, uri, strlen(uri) + 1);
  r->used += strlen(uri) + 1;
  return at;
}

static enum err read_map(struct reading *r, struct bytes attrs) {
  struct lines *l = &r->l;
  struct media_list *out = r->out;
  struct bytes uri = attribute(attrs, "URI"), text = attribute(attrs, "BYTERANGE");
  struct byte_range range = {0};
  char path[PLAYLIST_MAX_URI];
  bool from;
  if (!uri.n)
    return diag_set(l->diag, ERR_SYNTAX, l->line, "#EXT-X-MAP has no URI");
  enum err e = uri_resolve(path, l->base, uri);
  if (e)
    return uri_refused(l->diag, e, l->line, uri);
  if (text.n && !read_range(&range, text, &from))
    return diag_set(l->diag, ERR_SYNTAX, l->line, "BYTERANGE of #EXT-X-MAP is not LENGTH@FROM");
  struct media_part *p = &out->parts[out->num_parts - 1];
  if (!strcmp(p->init, path) && p->range.from == range.from && p->range.len == range.len)
    return ERR_OK; // as behind a discontinuity: it is there already
  if (out->num != p->first)
    p = &out->parts[out->num_parts++];
  *p = (struct media_part){out->num, put_uri(r, path), range};
  return ERR_OK;
}

static enum err read_segment(struct reading *r, struct bytes line) {
  struct lines *l = &r->l;
  struct media_list *out = r->out;
  char path[PLAYLIST_MAX_URI];
  if (r->duration_s < 0)
    return diag_set(l->diag, ERR_SYNTAX, l->line, "a segment without #EXTINF");
  enum err e = uri_resolve(path, l->base, line);
  if (e)
    return uri_refused(l->diag, e, l->line, line);
  bool same = out->num && !strcmp(out->uris + r->last, path);
  if (r->ranged && !r->has_from) {
    if (!same || !r->last_range.len)
      return diag_set(l->diag, ERR_SYNTAX, l->line, "#EXT-X-BYTERANGE says no offset, and no range of the same URI precedes it");
    r->range.from = r->last_range.from + r->last_range.len;
  }
  if (!same)
    r->last = (uint32_t)(put_uri(r, path) - out->uris);
  r->last_range = r->ranged ? r->range : (struct byte_range){0};
  if (out->ranges)
    out->ranges[out->num] = r->last_range;
  out->start_s[out->num] = r->at_s;
  out->uri_off[out->num++] = r->last;
  r->at_s += r->duration_s;
  if (r->at_s > PLAYLIST_MAX_SECONDS)
    return diag_set(l->diag, ERR_LIMIT, l->line, "the playlist lasts more than %d seconds", PLAYLIST_MAX_SECONDS);
  r->duration_s = -1;
  r->ranged = false;
  return ERR_OK;
}

static enum err read_media_line(struct reading *r, struct bytes line) {
  struct lines *l = &r->l;
  struct bytes rest;
  if (after(line, "#EXTINF:", &rest))
    return read_extinf(rest, &r->duration_s) ? ERR_OK : diag_set(l->diag, ERR_SYNTAX, l->line, "#EXTINF has no duration");
  if (after(line, "#EXT-X-MAP:", &rest))
    return read_map(r, rest);
  if (after(line, "#EXT-X-BYTERANGE:", &rest)) {
    r->ranged = true;
    return read_range(&r->range, rest, &r->has_from) ? ERR_OK : diag_set(l->diag, ERR_SYNTAX, l->line, "#EXT-X-BYTERANGE is not LENGTH[@FROM]");
  }
  if (after(line, "#EXT-X-KEY:", &rest))
    return read_key(r->out, rest, l->line, l->diag);
  if (after(line, "#EXT-X-GAP", &rest))
    return diag_set(l->diag, ERR_SYNTAX, l->line, "#EXT-X-GAP is not read: only segments that are there are asked for");
  r->ended |= after(line, "#EXT-X-ENDLIST", &rest);
  return line.p[0] == '#' ? ERR_OK : read_segment(r, line);
}

enum err hls_read_media(struct media_list *out, struct alloc *mem, struct bytes text, const char *base, struct diag *diag) {
  struct counts c = count_lines(text, strlen(base));
  struct bytes line;
  bool more;
  *out = (struct media_list){.num_parts = 1, .init = ""};
  if (c.segments > PLAYLIST_MAX_SEGMENTS || c.parts > PLAYLIST_MAX_SEGMENTS)
    return diag_set(diag, ERR_LIMIT, 1, "more than %d segments, or #EXT-X-MAP", PLAYLIST_MAX_SEGMENTS);
  out->start_s = mem->get(mem, (c.segments + 1) * sizeof *out->start_s);
  out->uri_off = mem->get(mem, (c.segments + 1) * sizeof *out->uri_off);
  out->uris = mem->get(mem, c.uri_bytes + 1);
  out->parts = mem->get(mem, c.parts * sizeof *out->parts);
  out->ranges = c.ranges ? mem->get(mem, (c.segments + 1) * sizeof *out->ranges) : NULL;
  if (!out->start_s || !out->uri_off || !out->uris || !out->parts || (c.ranges && !out->ranges))
    return diag_set(diag, ERR_NO_MEMORY, 1, NULL);
  out->parts[0].init = "";
  struct reading r = {.out = out, .duration_s = -1};
  enum err e = begin(&r.l, text, base, diag);
  while (!e && !(e = next_said(&r.l, &line, &more)) && more)
    e = read_media_line(&r, line);
  if (e)
    return e;
  out->start_s[out->num] = r.at_s;
  out->init = out->parts[0].init;
  if (!out->num)
    return diag_set(diag, ERR_SYNTAX, r.l.line, "the media playlist lacks segments");
  if (!r.ended)
    return diag_set(diag, ERR_SYNTAX, r.l.line, "the media playlist lacks #EXT-X-ENDLIST: it is live, and only what is complete is played");
  return ERR_OK;
}

const struct media_part *media_part_of(const struct media_list *l, uint32_t seg) {
  uint32_t low = 0, high = l->num_parts;
  while (high - low > 1) {
    uint32_t mid = low + (high - low) / 2;
    if (l->parts[mid].first <= seg)
      low = mid;
    else
      high = mid;
  }
  return &l->parts[low];
}
