// DASH MPDs: SegmentTemplate (timeline or duration), SegmentList, SegmentBase, and a file alone, with BaseURL at every level
// and several Periods. Elements are handled by a small stack; entities cannot expand (expat's default handler never sees a
// declared one: a DOCTYPE is refused).
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "load/mpd_parts.h"

enum { MAX_TIMELINE = 200000, MAX_PERIODS = 1000, MAX_SCRATCH = 64 << 20 };

static uint64_t line_of(XML_Parser p) {
#if XML_MAJOR_VERSION > 2 || XML_MINOR_VERSION >= 9 // which deprecates the other
  return XML_GetCurrentLineNumber64(p);
#else
  return XML_GetCurrentLineNumber(p);
#endif
}

static void fail(struct mpd *m, enum err e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void fail(struct mpd *m, enum err e, const char *fmt, ...) {
  char what[sizeof m->diag->what];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(what, sizeof what, fmt, ap);
  va_end(ap);
  if (!m->failed)
    diag_set(m->diag, e, line_of(m->xml), "%s", what);
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
  if (ok)
    p++;
  while (ok && *p) {
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
  static const char *const names[LEVELS] = {"MPD", "Period", "AdaptationSet", "Representation"};
  struct level *l = &m->at[level];
  if (m->deepest != level - 1) // of the one around it there is nothing to begin from
    fail(m, ERR_SYNTAX, "%s stands outside of %s", names[level], names[level - 1]);
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
  p->line = line_of(m->xml);
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
  m->set_silent = is_silent(atts, false);
}

static void open_rep(struct mpd *m, const char **atts) {
  open_level(m, L_REP);
  m->kids = m->set_kids;
  m->rep_id[0] = 0;
  m->silent = is_silent(atts, m->set_silent);
  copy_attr(m, m->rep_id, sizeof m->rep_id, atts, "id");
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
  enum err e = mpd_resolve(m, path, around ? around->base : m->at[L_MPD].base, ref);
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
  p->line = line_of(m->xml);
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
  m->out->num++;
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
  enum XML_Status st = text.n <= INT32_MAX ? XML_Parse(m->xml, (const char *)text.p, (int)text.n, 1) : XML_STATUS_ERROR;
  if (m->failed)
    return m->diag->err;
  if (st != XML_STATUS_OK)
    return diag_set(m->diag, ERR_SYNTAX, line_of(m->xml), "%s", XML_ErrorString(XML_GetErrorCode(m->xml)));
  if (!m->out->num)
    return diag_set(m->diag, ERR_SYNTAX, line_of(m->xml), "the MPD has no Representation %s segments",
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
    e = m->renditions_of->match ? mpd_expand(m, media, mem) : diag_say(diag, ERR_ARGUMENT, "the MPD has no Representation number %u", choose);
  if (m->xml)
    XML_ParserFree(m->xml);
  alloc_heap_free(&m->scratch);
  free(m);
  return e;
}
