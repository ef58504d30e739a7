// DASH MPDs: the SegmentTimeline form with $Number$ or $Time$, as origins write it. Elements are handled by a small
// stack; entities cannot expand (expat's default handler never sees a declared one: a DOCTYPE is refused).
#include <expat.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "load/playlist.h"

enum { MAX_TIMELINE = 200000 };

struct template {
  char media[PLAYLIST_MAX_URI], init[PLAYLIST_MAX_URI];
  uint64_t timescale, start_number;
  uint32_t first_s, num_s; // in `timeline`
};

struct s_element {
  uint64_t t, d, r;
  bool has_t;
};

struct mpd {
  XML_Parser xml;
  struct renditions *out;
  struct template period, set, rep; // each begins as the one around it
  bool in_set, in_rep, failed;
  uint32_t choose;
  struct template chosen;
  char chosen_id[PLAYLIST_MAX_URI];
  bool has_chosen;
  struct playlist_kids set_kids, kids, chosen_kids; // of the AdaptationSet; with the Representation's own
  char codecs[32];
  struct s_element *timeline;
  uint32_t num_timeline;
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

static void copy_attr(struct mpd *m, char *out, size_t cap, const char **atts, const char *name) {
  const char *v = attr(atts, name);
  if (!v)
    return;
  if (strlen(v) >= cap)
    fail(m, ERR_LIMIT, "@%s has more than %zu bytes", name, cap - 1);
  else
    memcpy(out, v, strlen(v) + 1);
}

static const struct template none = {.timescale = 1, .start_number = 1};

static void XMLCALL on_start(void *ctx, const char *name, const char **atts) {
  struct mpd *m = ctx;
  struct template *t = m->in_rep ? &m->rep : m->in_set ? &m->set : &m->period;
  if (strcmp(name, "Period") == 0) {
    m->period = none;
  } else if (strcmp(name, "AdaptationSet") == 0) {
    m->in_set = true;
    m->set = m->period;
    m->set_kids = (struct playlist_kids){0};
    m->codecs[0] = 0;
    copy_attr(m, m->codecs, sizeof m->codecs, atts, "codecs");
  } else if (strcmp(name, "ContentProtection") == 0) {
    const char *text = attr(atts, "cenc:default_KID");
    uint8_t kid[16];
    if (text && hex_read(kid, 16, bytes_str(text)))
      fail(m, ERR_SYNTAX, "cenc:default_KID is not a UUID");
    else if (text)
      playlist_kids_add(m->in_rep ? &m->kids : &m->set_kids, kid);
  } else if (strcmp(name, "Representation") == 0) {
    m->in_rep = true;
    m->rep = m->set;
    m->kids = m->set_kids;
    m->rep_id[0] = 0;
    copy_attr(m, m->rep_id, sizeof m->rep_id, atts, "id");
    copy_attr(m, m->codecs, sizeof m->codecs, atts, "codecs");
    m->rep_bandwidth = (uint32_t)number(m, atts, "bandwidth", 0);
  } else if (strcmp(name, "SegmentTemplate") == 0) {
    copy_attr(m, t->media, sizeof t->media, atts, "media");
    copy_attr(m, t->init, sizeof t->init, atts, "initialization");
    t->timescale = number(m, atts, "timescale", t->timescale);
    t->start_number = number(m, atts, "startNumber", t->start_number);
  } else if (strcmp(name, "SegmentTimeline") == 0) {
    t->first_s = m->num_timeline;
    t->num_s = 0;
  } else if (strcmp(name, "S") == 0) {
    if (m->num_timeline == MAX_TIMELINE) {
      fail(m, ERR_LIMIT, "the SegmentTimeline is too long");
      return;
    }
    const char *r = attr(atts, "r");
    if (r && *r == '-') {
      fail(m, ERR_SYNTAX, "S@r is negative (up to the next S, or the end of the Period): only counts are read");
      return;
    }
    m->timeline[m->num_timeline++] = (struct s_element){number(m, atts, "t", 0), number(m, atts, "d", 0),
                                                        number(m, atts, "r", 0), attr(atts, "t") != NULL};
    t->num_s++;
  }
}

// Replaces $RepresentationID$, $Bandwidth$, $Number$, $Number%0Nd$ and $Time$.
static bool expand(char out[PLAYLIST_MAX_URI], const char *template, const char *id, uint32_t bandwidth, uint64_t num, uint64_t time) {
  size_t n = 0;
  for (const char *p = template; *p;) {
    char piece[PLAYLIST_MAX_URI];
    const char *end = *p == '$' ? strchr(p + 1, '$') : NULL;
    if (!end) {
      piece[0] = *p++;
      piece[1] = 0;
    } else {
      size_t len = (size_t)(end - p - 1);
      if (len == 0)
        snprintf(piece, sizeof piece, "$");
      else if (len == 16 && !memcmp(p + 1, "RepresentationID", 16))
        snprintf(piece, sizeof piece, "%s", id);
      else if (len == 9 && !memcmp(p + 1, "Bandwidth", 9))
        snprintf(piece, sizeof piece, "%u", bandwidth);
      else if (len == 4 && !memcmp(p + 1, "Time", 4))
        snprintf(piece, sizeof piece, "%lu", time);
      else if (len == 6 && !memcmp(p + 1, "Number", 6))
        snprintf(piece, sizeof piece, "%lu", num);
      else if (len == 10 && !memcmp(p + 1, "Number%0", 8) && p[9] > '0' && p[9] <= '9' && p[10] == 'd')
        snprintf(piece, sizeof piece, "%0*lu", p[9] - '0', num);
      else
        return false;
      p = end + 1;
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

static void XMLCALL on_end(void *ctx, const char *name) {
  struct mpd *m = ctx;
  if (strcmp(name, "AdaptationSet") == 0)
    m->in_set = false;
  if (strcmp(name, "Representation") != 0)
    return;
  m->in_rep = false;
  if (!m->rep.media[0] || !m->rep.num_s)
    return; // another form than SegmentTimeline: not a rendition that this player plays
  if (m->out->num == PLAYLIST_MAX_RENDITIONS) {
    fail(m, ERR_LIMIT, "too many Representations");
    return;
  }
  if (m->out->num == m->choose) {
    m->chosen = m->rep;
    memcpy(m->chosen_id, m->rep_id, sizeof m->rep_id);
    m->chosen_kids = m->kids;
    m->has_chosen = true;
  }
  struct rendition *r = &m->out->r[m->out->num++];
  *r = (struct rendition){.bandwidth = m->rep_bandwidth};
  memcpy(r->codecs, m->codecs, sizeof r->codecs);
}

static void XMLCALL on_doctype(void *ctx, const char *name, const char *sys, const char *pub, int internal) {
  (void)name, (void)sys, (void)pub, (void)internal;
  fail(ctx, ERR_SYNTAX, "an MPD has no DOCTYPE");
}

static enum err expand_list(struct mpd *m, struct media_list *list, struct alloc *mem, const char *base, uint32_t bandwidth) {
  const struct template *t = &m->chosen;
  uint64_t num = 0;
  for (uint32_t i = 0; i < t->num_s; i++) {
    uint64_t r = m->timeline[t->first_s + i].r;
    if (r >= PLAYLIST_MAX_SEGMENTS - num)
      return diag_say(m->diag, ERR_LIMIT, "more than %d segments", PLAYLIST_MAX_SEGMENTS);
    num += r + 1;
  }
  *list = (struct media_list){.kids = m->chosen_kids, .has_gaps = true};
  list->start_s = mem->get(mem, (num + 1) * sizeof *list->start_s);
  list->uri_off = mem->get(mem, (num + 1) * sizeof *list->uri_off);
  size_t cap = num * (strlen(base) + 3 * (strlen(t->media) + strlen(m->chosen_id)) + 40) + 1, used = 0; // every byte may have to be encoded
  list->uris = mem->get(mem, cap);
  if (!list->start_s || !list->uri_off || !list->uris)
    return diag_say(m->diag, ERR_NO_MEMORY, NULL);
  char rel[PLAYLIST_MAX_URI], uri[PLAYLIST_MAX_URI];
  if (!t->timescale || !expand(rel, t->init, m->chosen_id, bandwidth, 0, 0) || uri_resolve(list->init, base, bytes_str(rel)))
    return diag_say(m->diag, ERR_SYNTAX, "SegmentTemplate@initialization cannot be expanded");
  uint64_t time = 0, first = 0;
  for (uint32_t i = 0; i < t->num_s; i++) {
    const struct s_element *s = &m->timeline[t->first_s + i];
    if (i && s->has_t && s->t < time)
      return diag_say(m->diag, ERR_SYNTAX, "the SegmentTimeline runs backwards");
    time = s->has_t ? s->t : time;
    first = i == 0 ? time : first;
    for (uint64_t k = 0; k <= s->r; k++) {
      if (!expand(rel, t->media, m->chosen_id, bandwidth, t->start_number + list->num, time) ||
          uri_resolve(uri, base, bytes_str(rel)) || used + strlen(uri) + 1 > cap)
        return diag_say(m->diag, ERR_SYNTAX, "SegmentTemplate@media cannot be expanded");
      list->start_s[list->num] = (double)(time - first) / (double)t->timescale;
      list->uri_off[list->num++] = (uint32_t)used;
      memcpy(list->uris + used, uri, strlen(uri) + 1);
      used += strlen(uri) + 1;
      if (__builtin_add_overflow(time, s->d, &time) || (double)(time - first) > PLAYLIST_MAX_SECONDS * (double)t->timescale)
        return diag_say(m->diag, ERR_LIMIT, "the SegmentTimeline lasts more than %d seconds", PLAYLIST_MAX_SECONDS);
    }
  }
  list->start_s[list->num] = (double)(time - first) / (double)t->timescale;
  return ERR_OK;
}

enum err mpd_read(struct renditions *out, struct media_list *media, uint32_t choose, struct alloc *mem, struct bytes text,
                  const char *base, struct diag *diag) {
  struct mpd m = {.out = out, .choose = choose, .diag = diag, .period = none, .set = none};
  out->num = 0;
  m.timeline = mem->get(mem, (text.n / 4 < MAX_TIMELINE ? text.n / 4 + 1 : MAX_TIMELINE) * sizeof *m.timeline);
  m.xml = XML_ParserCreate("UTF-8");
  if (!m.timeline || !m.xml) {
    if (m.xml)
      XML_ParserFree(m.xml);
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  }
  XML_SetUserData(m.xml, &m);
  XML_SetElementHandler(m.xml, on_start, on_end);
  XML_SetStartDoctypeDeclHandler(m.xml, on_doctype);
  enum XML_Status st = text.n <= INT32_MAX ? XML_Parse(m.xml, (const char *)text.p, (int)text.n, 1) : XML_STATUS_ERROR;
  enum err e = m.failed ? diag->err : ERR_OK;
  if (st != XML_STATUS_OK && !m.failed)
    e = diag_set(diag, ERR_SYNTAX, XML_GetCurrentLineNumber(m.xml), "%s", XML_ErrorString(XML_GetErrorCode(m.xml)));
  XML_ParserFree(m.xml);
  if (!e && !out->num)
    e = diag_say(diag, ERR_SYNTAX, "the MPD has no Representation with a SegmentTimeline");
  if (!e && media)
    e = m.has_chosen ? expand_list(&m, media, mem, base, out->r[choose].bandwidth)
                     : diag_say(diag, ERR_ARGUMENT, "the MPD has no Representation number %u", choose);
  return e;
}
