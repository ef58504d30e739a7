// The list of segments that an MPD says, from what mpd.c has read.
#include "load/mpd_parts.h"

#include <math.h>
#include <stdio.h>

enum err mpd_resolve(const struct mpd *m, char out[PLAYLIST_MAX_URI], const char *base, struct bytes ref) {
  char url[PLAYLIST_MAX_URL + PLAYLIST_MAX_URI];
  const char *path = m->document[0] == '/' ? m->document : strchr(strstr(m->document, "//") + 2, '/');
  size_t origin = (size_t)(path - m->document);
  if (origin >= PLAYLIST_MAX_URL)
    return ERR_LIMIT;
  memcpy(url, m->document, origin);
  memcpy(url + origin, base, strlen(base) + 1);
  return uri_resolve(out, url, ref);
}

// $NAME$ or $NAME%0Nd$; false: another identifier, or a width beyond any path.
static bool expand_one(char piece[PLAYLIST_MAX_URI], const char *p, size_t len, const char *name, uint64_t value) {
  size_t n = strlen(name), width = 1;
  if (len < n || memcmp(p, name, n) != 0)
    return false;
  if (len > n) {
    if (len < n + 4 || p[n] != '%' || p[n + 1] != '0' || p[len - 1] != 'd')
      return false;
    width = 0;
    for (const char *c = p + n + 2; c < p + len - 1; c++)
      if (*c < '0' || *c > '9' || (width = width * 10 + (size_t)(*c - '0')) >= 100)
        return false;
  }
  snprintf(piece, PLAYLIST_MAX_URI, "%0*lu", (int)width, value);
  return true;
}

// Replaces $RepresentationID$, $Bandwidth$, $Number$ and $Time$, the last three with a width or without.
static bool expand(char out[PLAYLIST_MAX_URI], const char *template, const struct period *p, uint64_t num, uint64_t time) {
  size_t n = 0;
  for (const char *at = template; *at;) {
    char piece[PLAYLIST_MAX_URI];
    const char *end = *at == '$' ? strchr(at + 1, '$') : NULL;
    if (!end) {
      piece[0] = *at++;
      piece[1] = 0;
    } else {
      size_t len = (size_t)(end - at - 1);
      if (len == 0)
        snprintf(piece, sizeof piece, "$");
      else if (len == 16 && !memcmp(at + 1, "RepresentationID", 16))
        snprintf(piece, sizeof piece, "%s", p->id);
      else if (!expand_one(piece, at + 1, len, "Bandwidth", p->bandwidth) && !expand_one(piece, at + 1, len, "Time", time) &&
               !expand_one(piece, at + 1, len, "Number", num))
        return false;
      at = end + 1;
    }
    size_t len = strlen(piece);
    if (n + len >= PLAYLIST_MAX_URI)
      return false;
    memcpy(out + n, piece, len);
    n += len;
  }
  out[n] = 0;
  return true;
}

// Made twice: first to count, then with room for it.
struct build {
  struct mpd *m;
  const struct period *p;
  struct media_list *out;
  bool store, ranges;
  uint32_t num, num_parts;
  size_t uris;
  uint32_t last_off;
  char last[PLAYLIST_MAX_URI];
  double start_s, end_s; // of the Period, in the list's time
};

static enum err refuse(const struct build *b, enum err e, const char *what) { return diag_set(b->m->diag, e, b->p->line, "%s", what); }

static enum err resolve_for(struct build *b, char out[PLAYLIST_MAX_URI], const char *ref) {
  enum err e = mpd_resolve(b->m, out, b->p->rep.base, bytes_str(ref));
  return e ? uri_refused(b->m->diag, e, b->p->line, bytes_str(ref)) : ERR_OK;
}

// The path goes where the list has it; one that comes again next stands there once.
static uint32_t put_uri(struct build *b, const char *uri) {
  size_t n = strlen(uri) + 1;
  if (b->uris && strcmp(b->last, uri) == 0)
    return b->last_off;
  if (b->store)
    memcpy(b->out->uris + b->uris, uri, n);
  memcpy(b->last, uri, n);
  b->last_off = (uint32_t)b->uris;
  b->uris += n;
  return b->last_off;
}

static enum err add_segment(struct build *b, const char *uri, struct byte_range range, double at_s) {
  if (b->num == PLAYLIST_MAX_SEGMENTS)
    return diag_set(b->m->diag, ERR_LIMIT, b->p->line, "more than %d segments", PLAYLIST_MAX_SEGMENTS);
  if (!(at_s <= PLAYLIST_MAX_SECONDS))
    return diag_set(b->m->diag, ERR_LIMIT, b->p->line, "the MPD lasts more than %d seconds", PLAYLIST_MAX_SECONDS);
  uint32_t off = put_uri(b, uri);
  b->ranges |= range.len != 0;
  if (b->store) {
    b->out->start_s[b->num] = at_s;
    b->out->uri_off[b->num] = off;
    if (b->out->ranges)
      b->out->ranges[b->num] = range;
  }
  b->num++;
  return ERR_OK;
}

static enum err add_part(struct build *b) {
  const struct segments *s = &b->p->rep.seg;
  char rel[PLAYLIST_MAX_URI], uri[PLAYLIST_MAX_URI] = "";
  struct byte_range range = s->init_range;
  if (s->form == FORM_BASE && !s->has_init)
    range = (struct byte_range){0, s->index.from};
  if (s->form == FORM_TEMPLATE && s->has_init && s->init[0] && !expand(rel, s->init, b->p, 0, 0))
    return refuse(b, ERR_SYNTAX, "SegmentTemplate@initialization cannot be expanded: it names another $identifier$, or is too long");
  enum err e = ERR_OK;
  if (s->form == FORM_TEMPLATE && s->has_init && s->init[0])
    e = resolve_for(b, uri, rel);
  else if (s->has_init && s->init[0])
    e = resolve_for(b, uri, s->init);
  else if ((s->has_init || s->form == FORM_BASE) && range.len)
    memcpy(uri, b->p->rep.base, sizeof uri);
  if (e)
    return e;
  if (!uri[0])
    range = (struct byte_range){0};
  if (b->num_parts && b->store) {
    const struct media_part *before = &b->out->parts[b->num_parts - 1];
    if (!strcmp(before->init, uri) && before->range.from == range.from && before->range.len == range.len)
      return ERR_OK;
  }
  uint32_t off = put_uri(b, uri);
  if (b->store)
    b->out->parts[b->num_parts] = (struct media_part){b->num, b->out->uris + off, range};
  b->num_parts++;
  return ERR_OK;
}

// Segment `i` of the Period, which begins at `time` of its timeline.
static enum err add_one(struct build *b, uint32_t i, uint64_t time, double at_s) {
  const struct segments *s = &b->p->rep.seg;
  char rel[PLAYLIST_MAX_URI], uri[PLAYLIST_MAX_URI];
  const char *ref = rel;
  struct byte_range range = {0};
  if (s->form == FORM_LIST) {
    const struct segment_url *u = &b->m->urls[s->first_url + i];
    range = u->range;
    ref = u->media;
  } else if (!expand(rel, s->media, b->p, s->start_number + i, time)) {
    return refuse(b, ERR_SYNTAX, "SegmentTemplate@media cannot be expanded: it names another $identifier$, or is too long");
  }
  enum err e = ref ? resolve_for(b, uri, ref) : ERR_OK;
  if (!ref)
    memcpy(uri, b->p->rep.base, sizeof uri);
  return e ? e : add_segment(b, uri, range, at_s);
}

// How many segments of `s` follow the first: as many as it says, or up to the next, or up to the Period's end.
static enum err repeats(const struct build *b, uint32_t i, uint64_t time, uint64_t *out) {
  const struct segments *s = &b->p->rep.seg;
  const struct s_element *e = &b->m->timeline[s->first_s + i];
  double end = b->p->duration_s < 0 ? -1 : b->p->duration_s * (double)s->timescale + (double)s->offset;
  *out = e->r;
  if (!e->open)
    return ERR_OK;
  if (i + 1 < s->num_s && e[1].has_t)
    end = (double)e[1].t;
  if (end < 0 || !e->d)
    return refuse(b, ERR_SYNTAX, "S@r is negative, and neither another S@t nor the Period's duration says how long");
  double n = ceil((end - (double)time) / (double)e->d - 1e-6);
  *out = n < 1 ? 0 : n > PLAYLIST_MAX_SEGMENTS ? PLAYLIST_MAX_SEGMENTS : (uint64_t)n - 1;
  return ERR_OK;
}

static enum err add_timeline(struct build *b, uint32_t most) {
  const struct segments *s = &b->p->rep.seg;
  uint64_t time = 0, first = 0, more;
  uint32_t n = 0;
  for (uint32_t i = 0; i < s->num_s; i++) {
    const struct s_element *el = &b->m->timeline[s->first_s + i];
    if (i && el->has_t && el->t < time)
      return refuse(b, ERR_SYNTAX, "the SegmentTimeline runs backwards");
    time = el->has_t ? el->t : time;
    first = i == 0 ? time : first;
    enum err e = repeats(b, i, time, &more);
    for (uint64_t k = 0; !e && k <= more && n < most; k++) {
      e = add_one(b, n++, time, b->start_s + (double)(time - first) / (double)s->timescale);
      if (!e && __builtin_add_overflow(time, el->d, &time))
        e = refuse(b, ERR_LIMIT, "the SegmentTimeline's times are beyond 64 bits");
    }
    if (e)
      return e;
  }
  if (s->form == FORM_LIST && n < s->num_urls)
    return refuse(b, ERR_SYNTAX, "SegmentList has more SegmentURLs than its SegmentTimeline has segments");
  b->end_s = b->start_s + (double)(time - first) / (double)s->timescale;
  return ERR_OK;
}

static enum err add_even(struct build *b, uint32_t most) {
  const struct segments *s = &b->p->rep.seg;
  double each = (double)s->duration / (double)s->timescale, whole = b->p->duration_s;
  if (whole < 0 && most == UINT32_MAX)
    return refuse(b, ERR_SYNTAX, "how many segments SegmentTemplate@duration makes needs MPD@mediaPresentationDuration or Period@duration");
  if (whole >= 0) {
    double n = ceil(whole / each - 1e-6);
    most = n < most ? (uint32_t)n : most;
  }
  for (uint32_t i = 0; i < most; i++) {
    enum err e = add_one(b, i, s->offset + i * s->duration, b->start_s + i * each);
    if (e)
      return e;
  }
  b->end_s = b->start_s + (whole >= 0 && whole < most * each ? whole : most * each);
  return ERR_OK;
}

static enum err add_period(struct build *b) {
  const struct segments *s = &b->p->rep.seg;
  uint32_t most = UINT32_MAX;
  enum err e = add_part(b);
  if (e)
    return e;
  if (!s->timescale)
    return refuse(b, ERR_SYNTAX, "@timescale is 0");
  if (s->form == FORM_LIST)
    most = s->num_urls;
  else if (s->end_number)
    most = s->end_number < s->start_number ? 0 : (uint32_t)fmin((double)(s->end_number - s->start_number) + 1, UINT32_MAX);
  if (s->form == FORM_NONE || (most == 1 && s->form == FORM_LIST && !s->num_s && !s->duration)) { // one file, or one URL, for the whole Period
    if (b->p->duration_s < 0)
      return refuse(b, ERR_SYNTAX, "one file for all of a Period needs MPD@mediaPresentationDuration or Period@duration");
    b->end_s = b->start_s + b->p->duration_s;
    return s->form == FORM_NONE ? add_segment(b, b->p->rep.base, (struct byte_range){0}, b->start_s) : add_one(b, 0, 0, b->start_s);
  }
  if (s->form == FORM_LIST && !s->num_s && !s->duration)
    return refuse(b, ERR_SYNTAX, "SegmentList has several SegmentURLs, and neither @duration nor a SegmentTimeline");
  return s->num_s ? add_timeline(b, most) : add_even(b, most);
}

// Where each Period lies, as far as the MPD says: its own words, then those of its neighbours, then the whole's.
static void place_periods(struct mpd *m) {
  double at = 0;
  for (struct period *p = m->periods; p; p = p->next) {
    if (p->start_s < 0)
      p->start_s = at;
    if (p->duration_s < 0 && p->next && p->next->start_s >= p->start_s)
      p->duration_s = p->next->start_s - p->start_s;
    if (p->duration_s < 0 && !p->next && m->duration_s >= p->start_s)
      p->duration_s = m->duration_s - p->start_s;
    at = p->start_s + fmax(p->duration_s, 0);
  }
}

static enum err add_all(struct build *b) {
  double first_s = -1;
  b->num = b->num_parts = 0;
  b->uris = 0;
  b->end_s = 0;
  for (const struct period *p = b->m->periods; p; p = p->next) {
    if (!p->match)
      continue;
    first_s = first_s < 0 ? p->start_s : first_s;
    b->p = p;
    b->start_s = fmax(b->end_s, p->start_s - first_s);
    enum err e = add_period(b);
    if (e)
      return e;
    if (!(b->end_s <= PLAYLIST_MAX_SECONDS))
      return diag_set(b->m->diag, ERR_LIMIT, p->line, "the MPD lasts more than %d seconds", PLAYLIST_MAX_SECONDS);
  }
  return b->num ? ERR_OK : refuse(b, ERR_SYNTAX, "the MPD has no segment");
}

// SegmentBase: where the sidx lies is all that the MPD knows.
static enum err leave_to_index(struct build *b, struct alloc *mem) {
  const struct period *p = b->m->renditions_of;
  for (const struct period *other = b->m->periods; other; other = other->next)
    if (other != p && other->match)
      return diag_set(b->m->diag, ERR_SYNTAX, other->line, "several Periods with SegmentBase are not read: use a SegmentTemplate or SegmentList");
  b->p = p;
  b->out->uris = mem->get(mem, 2 * PLAYLIST_MAX_URI);
  b->out->parts = mem->get(mem, sizeof *b->out->parts);
  if (!b->out->uris || !b->out->parts)
    return diag_say(b->m->diag, ERR_NO_MEMORY, NULL);
  b->store = true;
  enum err e = add_part(b);
  b->out->num_parts = b->num_parts;
  b->out->index = b->out->uris + put_uri(b, p->rep.base);
  b->out->index_range = p->rep.seg.index;
  return e;
}

enum err mpd_expand(struct mpd *m, struct media_list *list, struct alloc *mem) {
  struct build b = {.m = m, .out = list};
  *list = (struct media_list){.kids = m->chosen_kids, .has_gaps = true};
  place_periods(m);
  for (const struct period *p = m->periods; p; p = p->next)
    if (p->match && p->rep.seg.form == FORM_BASE) {
      enum err e = leave_to_index(&b, mem);
      list->init = e ? "" : list->parts[0].init;
      return e;
    }
  enum err e = add_all(&b);
  if (e)
    return e;
  list->start_s = mem->get(mem, (b.num + 1) * sizeof *list->start_s);
  list->uri_off = mem->get(mem, (b.num + 1) * sizeof *list->uri_off);
  list->uris = mem->get(mem, b.uris + 1);
  list->parts = mem->get(mem, b.num_parts * sizeof *list->parts);
  list->ranges = b.ranges ? mem->get(mem, b.num * sizeof *list->ranges) : NULL;
  if (!list->start_s || !list->uri_off || !list->uris || !list->parts || (b.ranges && !list->ranges))
    return diag_say(m->diag, ERR_NO_MEMORY, NULL);
  b.store = true;
  e = add_all(&b);
  list->num = b.num;
  list->num_parts = b.num_parts;
  list->start_s[b.num] = b.end_s;
  list->init = list->parts[0].init;
  return e;
}
