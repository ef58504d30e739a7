// DASH MPDs: SegmentTemplate (timeline or duration), SegmentList, SegmentBase, and a file alone, with BaseURL at every level
// and several Periods. Elements are handled by a small stack; entities cannot expand (expat's default handler never sees a
// declared one: a DOCTYPE is refused).
#include <expat.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/reader.h"
#include "base/text.h"
#include "load/playlist.h"

enum { MAX_TIMELINE = 200000, MAX_PERIODS = 1000, MAX_SCRATCH = 64 << 20 };

enum form { FORM_NONE, FORM_TEMPLATE, FORM_LIST, FORM_BASE };

// What SegmentTemplate, SegmentList or SegmentBase say; each level begins as the one around it.
struct segments {
  enum form form;
  char media[PLAYLIST_MAX_URI], init[PLAYLIST_MAX_URI]; // templates; `init` also Initialization@sourceURL
  bool has_init;
  struct byte_range init_range, index;
  uint64_t timescale, start_number, end_number, duration, offset; // end_number 0: none; offset: presentationTimeOffset
  uint32_t first_s, num_s;                                        // in `timeline`
  uint32_t first_url, num_urls;                                   // in `urls`
};

struct level {
  struct segments seg;
  char base[PLAYLIST_MAX_URI];
  char foreign[64]; // its BaseURL leads there, which is not the target
  bool own_base;    // it has a usable BaseURL of its own
};

enum { L_MPD, L_PERIOD, L_SET, L_REP, LEVELS };

struct s_element {
  uint64_t t, d, r;
  bool has_t, open; // open: r is -1, up to the next S or the end of the Period
};

struct segment_url {
  const char *media; // NULL: the BaseURL itself
  struct byte_range range;
};

// A Period, with the Representation that is played in it.
struct period {
  struct period *next;
  double start_s, duration_s; // negative: not said
  uint64_t line;
  int match;     // how well it fits what was chosen; 0: nothing in it is played
  uint32_t reps; // audio Representations so far
  struct level rep;
  char id[PLAYLIST_MAX_URI];
  uint32_t bandwidth;
};

struct mpd {
  XML_Parser xml;
  struct renditions *out;
  const char *document; // its URL
  struct level at[LEVELS];
  int deepest; // L_MPD …: the level that is open
  bool failed, other_kind, in_base, fresh_list;
  char text[PLAYLIST_MAX_URI]; // of a BaseURL
  size_t text_n;
  uint32_t choose;
  struct period *periods, *last, *renditions_of;
  uint32_t num_periods;
  struct playlist_kids set_kids, kids, chosen_kids; // of the AdaptationSet; with the Representation's own
  char codecs[32];
  bool set_silent, silent; // known to be no sound
  double duration_s;
  struct alloc_heap scratch;
  struct s_element *timeline;
  struct segment_url *urls;
  uint32_t num_timeline, num_urls, max_urls;
  char rep_id[PLAYLIST_MAX_URI];
  uint32_t rep_bandwidth;
  struct diag *diag;
};

static void fail(struct mpd *m, enum err e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void fail(struct mpd *m, enum err e, const char *fmt, ...) {
  char what[sizeof m->diag->what];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(what, sizeof what, fmt, ap);
  va_end(ap);
  if (!m->failed)
    diag_set(m->diag, e, XML_GetCurrentLineNumber(m->xml), "%s", what);
  m->failed = true;
  XML_StopParser(m->xml, XML_FALSE);
}

static const char *attr(const char **atts, const char *name) {
  for (size_t i = 0; atts[i]; i += 2)
    if (strcmp(atts[i], name) == 0)
      return atts[i + 1];
  return NULL;
}

static uint64_t number(struct mpd *m, const char **atts, const char *name, uint64_t fallback) {
  const char *v = attr(atts, name);
  uint64_t out = fallback;
  if (v && parse_u64(&out, bytes_str(v)))
    fail(m, ERR_SYNTAX, "@%s is to be a number and is not", name);
  return out;
}

static void range(struct mpd *m, struct byte_range *out, const char **atts, const char *name) {
  const char *v = attr(atts, name);
  if (v && !byte_range_read(out, bytes_str(v)))
    fail(m, ERR_SYNTAX, "@%s is to be a range of bytes, FROM-TO, and is not", name);
}

static void copy_attr(struct mpd *m, char *out, size_t cap, const char **atts, const char *name) {
  const char *v = attr(atts, name);
  if (!v)
    return;
  if (strlen(v) >= cap)
    fail(m, ERR_LIMIT, "@%s has more than %zu bytes", name, cap - 1);
  else
    memcpy(out, v, strlen(v) + 1);
}

// xs:duration without years and months, which have no length: PnDTnHnMnS. Negative: there is none.
static double duration(struct mpd *m, const char **atts, const char *name) {
  static const struct {
    char unit;
    bool time;
    double seconds;
  } units[] = {{'D', false, 86400}, {'H', true, 3600}, {'M', true, 60}, {'S', true, 1}};
  const char *v = attr(atts, name), *p = v;
  double sum = 0;
  size_t next = 0, read = 0;
  bool time = false, ok = v && *p == 'P';
  for (p += ok; ok && *p;) {
    if (*p == 'T' && !time) {
      time = true;
      p++;
      continue;
    }
    char *end;
    double n = strspn(p, "0123456789.") ? strtod(p, &end) : -1;
    ok = n >= 0 && n < 1e12 && end == p + strspn(p, "0123456789.");
    while (ok && next < 4 && (units[next].unit != *end || units[next].time != time))
      next++;
    ok = ok && next < 4;
    if (ok) {
      sum += n * units[next++].seconds;
      p = end + 1;
      read++;
    }
  }
  if (v && (!ok || !read))
    fail(m, ERR_SYNTAX, "@%s is to be a duration as PT1H2M3.4S and is not", name);
  return v && ok ? sum : -1;
}

static const struct segments none = {.timescale = 1, .start_number = 1};

// ---- levels

static void open_level(struct mpd *m, int level) {
  struct level *l = &m->at[level];
  *l = m->at[level - 1];
  l->own_base = false;
  m->deepest = level;
}

static void open_period(struct mpd *m, const char **atts) {
  struct period *p = m->num_periods < MAX_PERIODS ? m->scratch.base.get(&m->scratch.base, sizeof *p) : NULL;
  open_level(m, L_PERIOD);
  m->at[L_PERIOD].seg = none;
  if (!p) {
    fail(m, m->num_periods < MAX_PERIODS ? ERR_NO_MEMORY : ERR_LIMIT, "more than %d Periods, or no memory", MAX_PERIODS);
    return;
  }
  p->start_s = duration(m, atts, "start");
  p->duration_s = duration(m, atts, "duration");
  p->line = XML_GetCurrentLineNumber(m->xml);
  *(m->last ? &m->last->next : &m->periods) = p;
  m->last = p;
  m->num_periods++;
}

// What is known to be no sound is not played: contentType says it, or else the MIME type does.
static bool is_silent(const char **atts, bool around) {
  const char *content = attr(atts, "contentType"), *mime = attr(atts, "mimeType");
  if (content)
    return strcmp(content, "audio") != 0;
  return mime ? strncmp(mime, "audio/", 6) != 0 : around;
}

static void open_set(struct mpd *m, const char **atts) {
  open_level(m, L_SET);
  m->set_kids = (struct playlist_kids){0};
  m->codecs[0] = 0;
  m->set_silent = is_silent(atts, false);
  copy_attr(m, m->codecs, sizeof m->codecs, atts, "codecs");
}

static void open_rep(struct mpd *m, const char **atts) {
  open_level(m, L_REP);
  m->kids = m->set_kids;
  m->rep_id[0] = 0;
  m->silent = is_silent(atts, m->set_silent);
  copy_attr(m, m->rep_id, sizeof m->rep_id, atts, "id");
  copy_attr(m, m->codecs, sizeof m->codecs, atts, "codecs");
  m->rep_bandwidth = (uint32_t)number(m, atts, "bandwidth", 0);
}

static void open_mpd(struct mpd *m, const char **atts) {
  const char *type = attr(atts, "type");
  if (type && strcmp(type, "dynamic") == 0)
    fail(m, ERR_SYNTAX, "MPD@type is dynamic: it is live, and only what is complete is played");
  m->duration_s = duration(m, atts, "mediaPresentationDuration");
}

// ---- segments

static void open_segments(struct mpd *m, enum form form, const char **atts) {
  struct segments *s = &m->at[m->deepest].seg;
  s->form = form;
  m->fresh_list = form == FORM_LIST;
  s->timescale = number(m, atts, "timescale", s->timescale);
  s->offset = number(m, atts, "presentationTimeOffset", s->offset);
  range(m, &s->index, atts, "indexRange");
  if (form == FORM_BASE)
    return;
  if (attr(atts, "duration")) {
    s->duration = number(m, atts, "duration", 0);
    s->num_s = 0;
  }
  s->start_number = number(m, atts, "startNumber", s->start_number);
  s->end_number = number(m, atts, "endNumber", s->end_number);
  if (form == FORM_TEMPLATE) {
    copy_attr(m, s->media, sizeof s->media, atts, "media");
    copy_attr(m, s->init, sizeof s->init, atts, "initialization");
    s->has_init |= attr(atts, "initialization") != NULL;
  }
}

static void open_initialization(struct mpd *m, const char **atts) {
  struct segments *s = &m->at[m->deepest].seg;
  s->has_init = true;
  s->init[0] = 0;
  s->init_range = (struct byte_range){0};
  copy_attr(m, s->init, sizeof s->init, atts, "sourceURL");
  range(m, &s->init_range, atts, "range");
}

static void open_s(struct mpd *m, const char **atts) {
  struct segments *s = &m->at[m->deepest].seg;
  const char *r = attr(atts, "r");
  struct s_element e = {.t = number(m, atts, "t", 0), .d = number(m, atts, "d", 0), .has_t = attr(atts, "t") != NULL, .open = r && *r == '-'};
  if (attr(atts, "n") || number(m, atts, "k", 1) != 1) {
    fail(m, ERR_SYNTAX, "S@n and S@k are not read: write an S without them");
    return;
  }
  if (m->num_timeline == MAX_TIMELINE) {
    fail(m, ERR_LIMIT, "the SegmentTimeline is too long");
    return;
  }
  e.r = e.open ? 0 : number(m, atts, "r", 0);
  m->timeline[m->num_timeline++] = e;
  s->num_s++;
}

static void open_url(struct mpd *m, const char **atts) {
  struct segments *s = &m->at[m->deepest].seg;
  const char *media = attr(atts, "media");
  struct alloc *mem = &m->scratch.base;
  if (m->fresh_list) {
    s->first_url = m->num_urls;
    s->num_urls = 0;
    m->fresh_list = false;
  }
  if (!m->urls)
    m->urls = mem->get(mem, m->max_urls * sizeof *m->urls);
  char *copy = media ? mem->get(mem, strlen(media) + 1) : NULL;
  if (!m->urls || (media && !copy) || m->num_urls == m->max_urls) {
    fail(m, m->num_urls == m->max_urls ? ERR_LIMIT : ERR_NO_MEMORY, "more than %u SegmentURLs, or no memory", m->max_urls);
    return;
  }
  if (media)
    memcpy(copy, media, strlen(media) + 1);
  struct segment_url *u = &m->urls[m->num_urls++];
  *u = (struct segment_url){.media = copy};
  range(m, &u->range, atts, "mediaRange");
  s->num_urls++;
}

static void on_protection(struct mpd *m, const char **atts) {
  const char *text = attr(atts, "cenc:default_KID");
  uint8_t kid[16];
  if (text && hex_read(kid, 16, bytes_str(text)))
    fail(m, ERR_SYNTAX, "cenc:default_KID is not a UUID");
  else if (text)
    playlist_kids_add(m->deepest == L_REP ? &m->kids : &m->set_kids, kid);
}

static void XMLCALL on_start(void *ctx, const char *name, const char **atts) {
  struct mpd *m = ctx;
  if (attr(atts, "xlink:href"))
    fail(m, ERR_SYNTAX, "xlink:href is not followed: write the %.40s itself", name);
  else if (strcmp(name, "MPD") == 0)
    open_mpd(m, atts);
  else if (strcmp(name, "Period") == 0)
    open_period(m, atts);
  else if (strcmp(name, "AdaptationSet") == 0)
    open_set(m, atts);
  else if (strcmp(name, "Representation") == 0)
    open_rep(m, atts);
  else if (strcmp(name, "ContentProtection") == 0)
    on_protection(m, atts);
  else if (strcmp(name, "BaseURL") == 0)
    m->in_base = true, m->text_n = 0;
  else if (strcmp(name, "SegmentTemplate") == 0)
    open_segments(m, FORM_TEMPLATE, atts);
  else if (strcmp(name, "SegmentList") == 0)
    open_segments(m, FORM_LIST, atts);
  else if (strcmp(name, "SegmentBase") == 0)
    open_segments(m, FORM_BASE, atts);
  else if (strcmp(name, "Initialization") == 0)
    open_initialization(m, atts);
  else if (strcmp(name, "SegmentURL") == 0)
    open_url(m, atts);
  else if (strcmp(name, "SegmentTimeline") == 0)
    m->at[m->deepest].seg.first_s = m->num_timeline, m->at[m->deepest].seg.num_s = 0;
  else if (strcmp(name, "S") == 0)
    open_s(m, atts);
}

static void XMLCALL on_text(void *ctx, const char *s, int n) {
  struct mpd *m = ctx;
  if (!m->in_base || n <= 0)
    return;
  if ((size_t)n >= sizeof m->text - m->text_n)
    fail(m, ERR_LIMIT, "BaseURL has more than %d bytes", PLAYLIST_MAX_URI - 1);
  else
    memcpy(m->text + m->text_n, s, (size_t)n), m->text_n += (size_t)n;
}

// uri_resolve against a base that is an absolute path, on the document's origin.
static enum err resolve(const struct mpd *m, char out[PLAYLIST_MAX_URI], const char *base, struct bytes ref) {
  char url[PLAYLIST_MAX_URL + PLAYLIST_MAX_URI];
  const char *path = m->document[0] == '/' ? m->document : strchr(strstr(m->document, "//") + 2, '/');
  size_t origin = (size_t)(path - m->document);
  if (origin >= PLAYLIST_MAX_URL)
    return ERR_LIMIT;
  memcpy(url, m->document, origin);
  memcpy(url + origin, base, strlen(base) + 1);
  return uri_resolve(out, url, ref);
}

// Of several the first that leads to the target is taken: they are alternatives.
static void close_base(struct mpd *m) {
  struct level *l = &m->at[m->deepest];
  const struct level *around = m->deepest ? &m->at[m->deepest - 1] : NULL;
  struct bytes ref = bytes_of(m->text, m->text_n);
  m->in_base = false;
  while (ref.n && strchr(" \t\r\n", ref.p[0]))
    ref = bytes_of(ref.p + 1, ref.n - 1);
  while (ref.n && strchr(" \t\r\n", ref.p[ref.n - 1]))
    ref.n--;
  if (l->own_base || (around && around->foreign[0] && !uri_is_absolute(ref)))
    return;
  char path[PLAYLIST_MAX_URI];
  enum err e = resolve(m, path, around ? around->base : m->at[L_MPD].base, ref);
  if (e == ERR_UNSUPPORTED) {
    snprintf(l->foreign, sizeof l->foreign, "%.*s", ref.n < 63 ? (int)ref.n : 63, ref.p);
  } else if (e) {
    fail(m, e, "BaseURL has more than %d bytes with those around it", PLAYLIST_MAX_URI - 1);
  } else {
    memcpy(l->base, path, strlen(path) + 1);
    l->foreign[0] = 0;
    l->own_base = true;
  }
}

// What of a Period is played: the one that was chosen, in later ones that with its id, or in its place, or the last there is.
static void play(struct mpd *m, struct period *p) {
  const struct period *first = m->renditions_of;
  int match = p == first                                        ? (m->out->num == m->choose) * 3
              : !first->match                                   ? 0
              : *m->rep_id && strcmp(first->id, m->rep_id) == 0 ? 3
              : p->reps == m->choose                            ? 2
                                                                : 1;
  p->reps++;
  if (match <= p->match && (match != 1 || p->match != 1))
    return;
  p->match = match;
  p->rep = m->at[L_REP];
  memcpy(p->id, m->rep_id, sizeof p->id);
  p->bandwidth = m->rep_bandwidth;
  p->line = XML_GetCurrentLineNumber(m->xml);
  if (p == first)
    m->chosen_kids = m->kids;
}

static void close_rep(struct mpd *m) {
  const struct level *l = &m->at[L_REP];
  const struct segments *s = &l->seg;
  struct period *p = m->last;
  m->deepest = L_SET;
  if (m->silent || !p) {
    m->other_kind |= m->silent;
    return;
  }
  if (l->foreign[0])
    fail(m, ERR_UNSUPPORTED, "BaseURL leads to %.63s, which is not the target: give that as --target, or write relative URIs", l->foreign);
  else if (s->form == FORM_NONE && !l->own_base)
    return; // nothing to ask for
  else if (s->form == FORM_TEMPLATE && !s->media[0])
    fail(m, ERR_SYNTAX, "SegmentTemplate has no @media");
  else if (s->form == FORM_TEMPLATE && !s->num_s && !s->duration)
    fail(m, ERR_SYNTAX, "SegmentTemplate has neither a SegmentTimeline nor @duration");
  else if (s->form == FORM_LIST && !s->num_urls)
    fail(m, ERR_SYNTAX, "SegmentList has no SegmentURL");
  else if (s->form == FORM_BASE && !s->index.len)
    fail(m, ERR_SYNTAX, "SegmentBase has no @indexRange: where the sidx lies cannot be known");
  if (m->failed)
    return;
  if (!m->renditions_of)
    m->renditions_of = p;
  if (p != m->renditions_of) {
    play(m, p);
    return;
  }
  if (m->out->num == PLAYLIST_MAX_RENDITIONS) {
    fail(m, ERR_LIMIT, "more than %d Representations of audio", PLAYLIST_MAX_RENDITIONS);
    return;
  }
  play(m, p);
  struct rendition *r = &m->out->r[m->out->num++];
  *r = (struct rendition){.bandwidth = m->rep_bandwidth};
  memcpy(r->codecs, m->codecs, sizeof r->codecs);
}

static void XMLCALL on_end(void *ctx, const char *name) {
  struct mpd *m = ctx;
  if (strcmp(name, "BaseURL") == 0)
    close_base(m);
  else if (strcmp(name, "Representation") == 0)
    close_rep(m);
  else if (strcmp(name, "AdaptationSet") == 0)
    m->deepest = L_PERIOD;
  else if (strcmp(name, "Period") == 0)
    m->deepest = L_MPD;
}

static void XMLCALL on_doctype(void *ctx, const char *name, const char *sys, const char *pub, int internal) {
  (void)name, (void)sys, (void)pub, (void)internal;
  fail(ctx, ERR_SYNTAX, "an MPD has no DOCTYPE");
}

// ---- the list

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
  enum err e = resolve(b->m, out, b->p->rep.base, bytes_str(ref));
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
    most = s->end_number < s->start_number ? 0 : s->end_number - s->start_number < UINT32_MAX - 1 ? (uint32_t)(s->end_number - s->start_number) + 1 : UINT32_MAX;
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

static enum err expand_list(struct mpd *m, struct media_list *list, struct alloc *mem) {
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

static enum err read_text(struct mpd *m, struct bytes text) {
  struct alloc *mem = &m->scratch.base;
  size_t most = text.n / 4 + 1; // the shortest is <S/>
  m->timeline = mem->get(mem, (most < MAX_TIMELINE ? most : MAX_TIMELINE) * sizeof *m->timeline);
  m->max_urls = most < PLAYLIST_MAX_SEGMENTS ? (uint32_t)most : PLAYLIST_MAX_SEGMENTS;
  m->xml = XML_ParserCreate("UTF-8");
  if (!m->timeline || !m->xml)
    return diag_say(m->diag, ERR_NO_MEMORY, NULL);
  XML_SetUserData(m->xml, m);
  XML_SetElementHandler(m->xml, on_start, on_end);
  XML_SetCharacterDataHandler(m->xml, on_text);
  XML_SetStartDoctypeDeclHandler(m->xml, on_doctype);
  if (text.n >= 2 && text.p[0] == 0x1f && text.p[1] == 0x8b)
    return diag_set(m->diag, ERR_SYNTAX, 1, "it is gzip'ed, and no Accept-Encoding was sent: have it served as it is");
  enum XML_Status st = text.n <= INT32_MAX ? XML_Parse(m->xml, (const char *)text.p, (int)text.n, 1) : XML_STATUS_ERROR;
  if (m->failed)
    return m->diag->err;
  if (st != XML_STATUS_OK)
    return diag_set(m->diag, ERR_SYNTAX, XML_GetCurrentLineNumber(m->xml), "%s", XML_ErrorString(XML_GetErrorCode(m->xml)));
  if (!m->out->num)
    return diag_set(m->diag, ERR_SYNTAX, XML_GetCurrentLineNumber(m->xml), "the MPD has no Representation %s segments",
                    m->other_kind ? "of audio with" : "with");
  return ERR_OK;
}

enum err mpd_read(struct renditions *out, struct media_list *media, uint32_t choose, struct alloc *mem, struct bytes text,
                  const char *base, struct diag *diag) {
  struct mpd *m = calloc(1, sizeof *m);
  out->num = 0;
  if (!m)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  m->out = out;
  m->choose = choose;
  m->diag = diag;
  m->document = base;
  m->duration_s = -1;
  for (int i = 0; i < LEVELS; i++)
    m->at[i].seg = none;
  alloc_heap_init(&m->scratch, MAX_SCRATCH);
  enum err e = uri_resolve(m->at[L_MPD].base, base, (struct bytes){0});
  e = e ? diag_say(diag, e, "the MPD's own URL is too long") : read_text(m, text);
  if (!e && media)
    e = m->renditions_of->match ? expand_list(m, media, mem) : diag_say(diag, ERR_ARGUMENT, "the MPD has no Representation number %u", choose);
  if (m->xml)
    XML_ParserFree(m->xml);
  alloc_heap_free(&m->scratch);
  free(m);
  return e;
}

// ---- sidx

// The first sidx among whole boxes: its payload, and where what follows it lies in the bytes.
static bool find_sidx(struct bytes body, struct reader *out, uint64_t *behind) {
  struct reader r = rd_of(body);
  while (rd_left(&r) >= 8) {
    size_t at = rd_pos(&r);
    uint32_t size = rd_u32(&r), type = rd_u32(&r);
    if (size < 8 || size > body.n - at)
      return false;
    if (type == 0x73696478) {
      *out = rd_of(bytes_of(body.p + at + 8, size - 8));
      *behind = at + size;
      return true;
    }
    rd_skip(&r, size - 8);
  }
  return false;
}

enum err sidx_read(struct media_list *out, struct alloc *mem, struct bytes body, const struct media_list *mpd, struct diag *diag) {
  struct reader r = {0};
  uint64_t behind = 0, first, time = 0;
  *out = (struct media_list){.init = mpd->init, .parts = mpd->parts, .num_parts = mpd->num_parts, .kids = mpd->kids, .has_gaps = true};
  if (!find_sidx(body, &r, &behind))
    return diag_say(diag, ERR_SYNTAX, "no whole sidx lies in bytes %lu-%lu", mpd->index_range.from, mpd->index_range.from + mpd->index_range.len - 1);
  bool wide = rd_u32(&r) >> 24 != 0;
  rd_skip(&r, 4);
  uint32_t timescale = rd_u32(&r);
  rd_skip(&r, wide ? 8 : 4);
  first = wide ? rd_u64(&r) : rd_u32(&r);
  rd_skip(&r, 2);
  uint32_t num = rd_u16(&r);
  if (r.err || !timescale || !num || rd_left(&r) < (size_t)num * 12)
    return diag_say(diag, ERR_SYNTAX, "the sidx is cut, or names no segment");
  size_t n = strlen(mpd->index) + 1;
  out->start_s = mem->get(mem, (num + 1) * sizeof *out->start_s);
  out->uri_off = mem->get(mem, (num + 1) * sizeof *out->uri_off);
  out->ranges = mem->get(mem, num * sizeof *out->ranges);
  out->uris = mem->get(mem, n);
  if (!out->start_s || !out->uri_off || !out->ranges || !out->uris)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  memcpy(out->uris, mpd->index, n);
  uint64_t at;
  if (mpd->index_range.from > UINT64_C(1) << 62 || first > UINT64_C(1) << 62)
    return diag_say(diag, ERR_LIMIT, "the sidx leads beyond 2^62 bytes");
  at = mpd->index_range.from + behind + first;
  for (uint32_t i = 0; i < num; i++) {
    uint32_t size = rd_u32(&r), ticks = rd_u32(&r);
    rd_skip(&r, 4);
    if (size >> 31)
      return diag_say(diag, ERR_SYNTAX, "the sidx leads to further sidx boxes: only one level is read");
    if (!size)
      return diag_say(diag, ERR_SYNTAX, "segment %u of the sidx has no bytes", i + 1);
    out->ranges[i] = (struct byte_range){at, size};
    out->start_s[i] = (double)time / timescale;
    at += size;
    time += ticks;
  }
  out->num = num;
  out->start_s[num] = (double)time / timescale;
  return out->start_s[num] <= PLAYLIST_MAX_SECONDS ? ERR_OK : diag_say(diag, ERR_LIMIT, "the sidx lasts more than %d seconds", PLAYLIST_MAX_SECONDS);
}
