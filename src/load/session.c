// Bodies that are kept, playlists that sessions share once parsed, the log of requests.
#include "load/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

struct body *body_take(struct engine *e) {
  struct body *b = e->pool;
  if (!b)
    return calloc(1, sizeof *b);
  e->pool = b->next;
  b->n = 0;
  return b;
}

void body_give(struct engine *e, struct body *b) {
  if (!b)
    return;
  b->next = e->pool;
  e->pool = b;
}

bool body_add(struct body *b, struct bytes piece) {
  if (!piece.n)
    return true;
  if (piece.n > b->cap - b->n) {
    size_t cap = b->cap ? b->cap : 16384;
    while (cap - b->n < piece.n)
      cap *= 2;
    uint8_t *p = cap <= BODY_MAX ? realloc(b->p, cap) : NULL;
    if (!p)
      return false;
    b->p = p;
    b->cap = cap;
  }
  memcpy(b->p + b->n, piece.p, piece.n);
  b->n += piece.n;
  return true;
}

bool session_keep(struct session *s, struct bytes piece) {
  if (!s->body)
    s->body = body_take(s->e);
  return s->body && body_add(s->body, piece);
}

struct bytes session_body(const struct session *s) { return s->body ? bytes_of(s->body->p, s->body->n) : (struct bytes){0}; }

// ---- the log

void engine_log_flush(struct engine *e) {
  size_t at = 0;
  while (at < e->log_len) { // whole lines in one call: the file is opened for appending, by several processes
    ssize_t n = write(e->run->log_fd, e->log + at, e->log_len - at);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0) {
      e->log_errno = n < 0 ? errno : ENOSPC; // fails the run in the end: no log is short unnoticed
      break;
    }
    at += (size_t)n;
  }
  e->log_len = 0;
}

void engine_log(struct engine *e, uint64_t who, uint64_t ordinal, struct bytes request) {
  if (e->run->log_fd < 0 || !e->log)
    return;
  if (ENGINE_LOG - e->log_len < 2 * request.n + 64)
    engine_log_flush(e);
  struct writer w = wr_of(e->log + e->log_len, ENGINE_LOG - e->log_len);
  wr_dec(&w, who);
  wr_str(&w, " ");
  wr_dec(&w, ordinal);
  wr_str(&w, " ");
  for (size_t i = 0; i < request.n; i++)
    if (request.p[i] == '\r' || request.p[i] == '\n')
      wr_str(&w, request.p[i] == '\r' ? "\\r" : "\\n");
    else
      wr_u8(&w, request.p[i]);
  wr_str(&w, "\n");
  if (wr_ok(&w))
    e->log_len += w.n;
}

// ---- playlists

static struct shared_list **slot_of(struct engine *e, const uint64_t hash[2]) {
  for (uint32_t i = 0;; i++) {
    struct shared_list **at = &e->lists[(hash[0] + i) % e->num_slots];
    if (!*at || ((*at)->hash[0] == hash[0] && (*at)->hash[1] == hash[1]))
      return at;
  }
}

// Half of the places stay free. False without memory.
static bool make_room(struct engine *e) {
  if (e->num_lists < e->num_slots / 2)
    return true;
  struct shared_list **old = e->lists, **more = calloc(2 * (size_t)e->num_slots, sizeof *more);
  if (!more)
    return false;
  uint32_t num = e->num_slots;
  e->lists = more;
  e->num_slots = 2 * num;
  for (uint32_t i = 0; i < num; i++)
    if (old[i])
      *slot_of(e, old[i]->hash) = old[i];
  free(old);
  return true;
}

// Finds what was parsed from exactly this text at this path, or the place for it; NULL without memory. Valid until the next call.
static struct shared_list **entry_of(struct engine *e, const char *path, uint32_t choose, struct bytes text, uint64_t hash[2]) {
  XXH128_hash_t h = XXH3_128bits_withSeed(text.p, text.n, XXH3_64bits_withSeed(path, strlen(path), choose));
  hash[0] = h.low64;
  hash[1] = h.high64;
  return make_room(e) ? slot_of(e, hash) : NULL;
}

static struct shared_list *list_new(const struct engine *e) {
  struct shared_list *l = calloc(1, sizeof *l);
  if (l)
    alloc_heap_init(&l->mem, e->lists_used < ENGINE_LISTS_MAX ? ENGINE_LISTS_MAX - e->lists_used : 0);
  return l;
}

static void list_free(struct shared_list *l) {
  alloc_heap_free(&l->mem);
  free(l);
}

static size_t size_of(const struct shared_list *l) { return sizeof *l + l->mem.used; }

static void put_list(struct engine *e, struct shared_list **at, struct shared_list *l) {
  l->held = false;
  *at = l;
  e->num_lists++;
  e->lists_used += size_of(l);
}

void engine_lists_free(struct engine *e) {
  for (uint32_t i = 0; e->lists && i < e->num_slots; i++)
    if (e->lists[i])
      list_free(e->lists[i]);
  free(e->lists);
}

static struct shared_list *list_around(const struct media_list *l) {
  return l ? (struct shared_list *)(uintptr_t)((const char *)l - offsetof(struct shared_list, list)) : NULL;
}

static void hold(struct shared_list *l) {
  for (; l; l = l->of)
    l->held = true;
}

// An origin whose manifests differ from one answer to the next would fill all memory: those go that no session holds, each time that
// they have doubled.
static void drop_lists(struct engine *e) {
  if (e->lists_used < 2 * e->lists_kept + ENGINE_LISTS_KEPT)
    return;
  struct shared_list **old = e->lists, **kept = calloc(e->num_slots, sizeof *kept);
  if (!kept)
    return;
  for (uint32_t i = 0; i < e->num_used; i++) {
    const struct session *s = &e->sessions[i];
    if (!s->in_use)
      continue;
    hold(list_around(s->l.list));
    hold(list_around(s->l.index));
    hold(s->list);
  }
  e->lists = kept;
  e->num_lists = 0;
  e->lists_used = 0;
  for (uint32_t i = 0; i < e->num_slots; i++) {
    struct shared_list *l = old[i];
    if (l && l->held)
      put_list(e, slot_of(e, l->hash), l);
    else if (l)
      list_free(l);
  }
  e->lists_kept = e->lists_used;
  free(old);
}

// Keeps the paths of the media playlists in e->renditions.
static enum err keep_renditions(struct engine *e, struct shared_list *out) {
  struct alloc *mem = &out->mem.base;
  const char **uris = mem->get(mem, e->renditions.num * sizeof *uris);
  if (!uris)
    return ERR_NO_MEMORY;
  for (uint32_t i = 0; i < e->renditions.num; i++) {
    size_t n = strlen(e->renditions.uri[i]) + 1;
    char *copy = mem->get(mem, n);
    if (!copy)
      return ERR_NO_MEMORY;
    memcpy(copy, e->renditions.uri[i], n);
    uris[i] = copy;
  }
  out->num_renditions = e->renditions.num;
  out->renditions = uris;
  return ERR_OK;
}

static enum err parse(struct engine *e, const struct session *s, struct shared_list *out, uint32_t choose, struct bytes text,
                      const char *url, struct diag *diag) {
  struct alloc *mem = &out->mem.base;
  bool manifest = s->next.step == STEP_MASTER || s->next.step == STEP_POLL;
  enum err err;
  if (s->next.step == STEP_INDEX)
    return sidx_read(&out->list, mem, text, s->l.index, diag);
  if (s->l.dash)
    err = mpd_read(&e->renditions, &out->list, choose, mem, text, url, diag);
  else if (!manifest || (e->run->sc->catalogue.manifests && hls_is_media(text)))
    err = hls_read_media(&out->list, mem, text, url, diag);
  else
    return (err = hls_read_multivariant(&e->renditions, text, url, diag)) ? err : keep_renditions(e, out);
  if (!err && !e->run->sc->catalogue.manifests && !out->list.init[0]) // every track of a sluice has one
    return diag_say(diag, ERR_SYNTAX, "it names no init segment");
  return err;
}

// Which representation of an MPD the listener plays: their number must be known first.
static enum err choose_of(struct engine *e, struct session *s, struct bytes text, const char *path, uint32_t *choose, struct diag *diag) {
  *choose = 0;
  if (!s->l.dash || s->next.step == STEP_POLL || s->next.step == STEP_INDEX)
    return ERR_OK;
  uint64_t hash[2];
  struct shared_list **at = entry_of(e, path, UINT32_MAX, text, hash), *known = at ? *at : NULL;
  uint32_t num = known ? known->num_renditions : 0;
  if (!known) {
    struct alloc_heap scratch;
    alloc_heap_init(&scratch, (size_t)64 << 20);
    enum err err = mpd_read(&e->renditions, NULL, 0, &scratch.base, text, path, diag);
    alloc_heap_free(&scratch);
    if (err)
      return err;
    num = e->renditions.num;
    struct shared_list *new = at ? list_new(e) : NULL;
    if (new) {
      new->num_renditions = num;
      memcpy(new->hash, hash, sizeof new->hash);
      put_list(e, at, new);
    }
  }
  *choose = listener_pick(&s->l, num) % num;
  return ERR_OK;
}

void session_place(char out[PLAYLIST_MAX_URI], const struct session *s) {
  if (s->moved && s->moved->path[0])
    memcpy(out, s->moved->path, sizeof s->moved->path);
  else
    listener_place(out, &s->l, &s->next);
}

void moved_add(struct moved *m, struct bytes piece) {
  if (m->n < sizeof m->location && piece.n <= sizeof m->location - m->n)
    memcpy(m->location + m->n, piece.p, piece.n);
  m->n += piece.n;
}

bool moved_on(struct moved *m, const char *origin, const char *path, struct diag *diag) {
  char url[PLAYLIST_MAX_URL];
  while (m->n && m->n <= sizeof m->location && (m->location[m->n - 1] == ' ' || m->location[m->n - 1] == '\t'))
    m->n--; // blanks behind a value are no part of it. Source: RFC 9110 §5.5
  struct bytes to = bytes_of(m->location, m->n);
  if (!m->n || m->n > sizeof m->location)
    return diag_say(diag, ERR_SYNTAX, m->n ? "it redirects to more than %zu bytes" : "it redirects without a Location", sizeof m->location) == ERR_OK;
  m->n = 0;
  if (m->hops++ == SESSION_MAX_HOPS)
    return diag_say(diag, ERR_LIMIT, "more than %d redirections", SESSION_MAX_HOPS) == ERR_OK;
  snprintf(url, sizeof url, "%s%s", origin, path);
  enum err e = uri_resolve(m->path, url, to);
  return (e ? uri_refused(diag, e, 0, to) : ERR_OK) == ERR_OK;
}

enum err engine_parse(struct engine *e, struct session *s, struct listener_got *got, struct diag *diag) {
  struct bytes text = session_body(s);
  char path[PLAYLIST_MAX_URI], url[PLAYLIST_MAX_URL];
  uint32_t choose;
  uint64_t hash[2];
  drop_lists(e);
  session_place(path, s);
  snprintf(url, sizeof url, "%s%s", e->run->origin, path);
  enum err err = choose_of(e, s, text, url, &choose, diag);
  if (err)
    return err;
  if (s->next.step == STEP_INDEX) // what the MPD says of it counts as well
    choose = (uint32_t)XXH3_64bits(&s->l.index, sizeof s->l.index);
  else if (s->next.step == STEP_MEDIA) // what was read as a multivariant playlist has no segments
    choose = 1;
  struct shared_list **at = entry_of(e, url, choose, text, hash);
  if (!at)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  if (!*at) {
    struct shared_list *new = list_new(e);
    if (!new)
      return diag_say(diag, ERR_NO_MEMORY, NULL);
    err = parse(e, s, new, choose, text, url, diag);
    if (err) { // it will be asked for again, and read again
      list_free(new);
      return err == ERR_NO_MEMORY ? diag_say(diag, err, "the manifests that listeners hold at once take more than %d MB: fewer of them, or more --threads", ENGINE_LISTS_MAX >> 20) : err;
    }
    memcpy(new->hash, hash, sizeof hash);
    new->of = s->next.step == STEP_INDEX ? list_around(s->l.index) : NULL;
    put_list(e, at, new);
  }
  s->list = *at;
  got->list = &(*at)->list;
  got->renditions = (*at)->renditions;
  got->num_renditions = (*at)->num_renditions;
  return ERR_OK;
}
