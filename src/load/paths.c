// Before a run without listeners: lists every segment of every asset by reading its manifests, and finds what they, or paths that are
// given, are compared with.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "load/session.h"
#include "load/verify.h"

struct fetch {
  struct client c;
  struct body body;
  bool done;
  struct client_response response;
  struct moved moved;
  char url[PLAYLIST_MAX_URL]; // of what was fetched last, redirections followed
};

enum { ANSWER_S = 10 }; // that long a manifest may take

static void on_body(struct client *c, struct bytes piece) {
  struct fetch *f = c->owner;
  c->stop = !body_add(&f->body, piece);
}

static void on_location(struct client *c, struct bytes piece) {
  struct fetch *f = c->owner;
  moved_add(&f->moved, piece);
}

static void on_done(struct client *c, const struct client_response *r) {
  struct fetch *f = c->owner;
  f->done = true;
  f->response = *r;
}

// What failed, for the one who started the run.
struct why {
  char *p;
  size_t cap;
};

static bool say(struct why *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool say(struct why *why, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why->p, why->cap, fmt, ap);
  va_end(ap);
  return false;
}

// What is wrong with an answer, with its path before it.
static bool malformed(struct why *why, const char *path, const struct diag *what) {
  char text[sizeof what->what];
  snprintf(text, sizeof text, "%s", what->what[0] ? what->what : err_text(what->err));
  engine_plain(text);
  return what->at ? say(why, "%s: line %lu: %s", path, what->at, text) : say(why, "%s: %s", path, text);
}

static bool ask(struct engine *e, struct fetch *f, const char *path, struct byte_range part, struct why *why) {
  char out[CLIENT_REQUEST_MAX];
  struct diag diag = {0};
  struct writer w = wr_of(out, sizeof out);
  wr_fmt(&w, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sluice-load\r\n", path, e->run->host);
  if (part.len)
    wr_fmt(&w, "Range: bytes=%lu-%lu\r\n", part.from, part.from + part.len - 1);
  wr_str(&w, "\r\n");
  if (!wr_ok(&w))
    return say(why, "the path %.80s… is too long", path);
  double end_s = engine_now(e) + ANSWER_S;
  do { // again where the connection had ended while it was at rest
    f->body.n = 0;
    f->done = false;
    client_send(&f->c, bytes_of(out, w.n), false);
    while (!f->done && engine_now(e) < end_s && !*e->run->stop)
      if (!engine_wait(e, 10000000))
        return engine_failed(e, &diag) == ERR_OK || say(why, "%s", diag.what);
  } while (f->done && f->response.stale);
  return true;
}

static bool get(struct engine *e, struct fetch *f, const char *path, struct byte_range part, struct why *why) {
  struct diag diag = {0};
  char at[PLAYLIST_MAX_URI];
  f->moved = (struct moved){0};
  snprintf(at, sizeof at, "%s", path);
  if (!ask(e, f, at, part, why))
    return false;
  while (f->done && f->moved.n) {
    if (!moved_on(&f->moved, e->run->origin, at, &diag))
      return malformed(why, at, &diag);
    memcpy(at, f->moved.path, sizeof at);
    if (!ask(e, f, at, part, why))
      return false;
  }
  snprintf(f->url, sizeof f->url, "%s%s", e->run->origin, at);
  unsigned want = part.len ? 206 : 200;
  if (f->done && f->response.malformed)
    return say(why, "the target's answer for %s is not HTTP/1.1: %s", at, f->response.malformed);
  if (!f->done || !f->response.begun)
    return say(why, "the target does not answer for %s", at);
  if (!f->response.status)
    return say(why, "the target's answer for %s ends within its head", at);
  if (f->response.status != want)
    return say(why, "the target answers %u for %s%s", f->response.status, at, part.len ? ", of which a range was asked" : "");
  if (f->c.stop)
    return say(why, "the target's answer for %s has more than %d MB, or there is no memory for it", at, BODY_MAX >> 20);
  if (!f->response.whole)
    return say(why, "the target's answer for %s is not whole", at);
  return !body_unpack(&f->body, f->response.encoding, &diag) || malformed(why, at, &diag);
}

static bool read_mpd(struct engine *e, struct fetch *f, struct media_list *list, struct alloc *mem, const char *path, struct why *why) {
  struct media_list by_index;
  struct diag what = {0};
  if (mpd_read(&e->renditions, list, 0, mem, bytes_of(f->body.p, f->body.n), f->url, &what))
    return malformed(why, path, &what);
  if (!list->index)
    return true;
  if (!get(e, f, list->index, list->index_range, why))
    return false;
  if (sidx_read(&by_index, mem, bytes_of(f->body.p, f->body.n), list, &what))
    return malformed(why, list->index, &what);
  *list = by_index;
  return true;
}

static bool segments_of(struct engine *e, struct fetch *f, struct media_list *list, struct alloc *mem, uint32_t asset, struct why *why) {
  char path[PLAYLIST_MAX_URI], rest[64];
  const struct scenario *sc = e->run->sc;
  bool dash = sc->catalogue.manifests ? scenario_is_mpd(sc, asset) : sc->protocol == LOAD_DASH;
  snprintf(rest, sizeof rest, "%s/%s", sc->scheme, dash ? "manifest.mpd" : "master.m3u8");
  if (sc->catalogue.manifests)
    snprintf(path, sizeof path, "%s", sc->catalogue.manifests[asset]);
  else if (uri_of_asset(path, sc->catalogue.names[asset], rest))
    return say(why, "the path of %.80s… is too long", sc->catalogue.names[asset]);
  if (!get(e, f, path, (struct byte_range){0}, why))
    return false;
  struct bytes text = bytes_of(f->body.p, f->body.n);
  struct diag what = {0};
  if (dash)
    return read_mpd(e, f, list, mem, path, why);
  if (!sc->catalogue.manifests || !hls_is_media(text)) {
    if (hls_read_multivariant(&e->renditions, text, f->url, &what))
      return malformed(why, path, &what);
    memcpy(path, e->renditions.uri[0], sizeof path);
    if (!get(e, f, path, (struct byte_range){0}, why))
      return false;
  }
  return !hls_read_media(list, mem, bytes_of(f->body.p, f->body.n), f->url, &what) || malformed(why, path, &what);
}

// What segments of a track are compared by: its init segment, which is compared itself.
static bool open_track(struct engine *e, struct fetch *f, struct load_track *t, const char *asset, struct why *why) {
  const struct load_run *run = e->run;
  const struct media_list *list = &t->list;
  char what[512];
  t->asset = asset;
  if (!engine_right_epoch(what, sizeof what, run->sc, asset, list))
    return say(why, "%s", what);
  if (!run->verifier)
    return true;
  if (!list->num || !list->init[0] || list->num_parts != 1)
    return say(why, "%s: its playlist is to name segments and one init segment, to compare them by", asset);
  if (!get(e, f, list->init, list->parts[0].range, why))
    return false;
  struct verify_response v = {.asset = asset, .scheme = run->sc->scheme, .path = list->init, .body = bytes_of(f->body.p, f->body.n), .list = list};
  t->init = verify_init(run->verifier, &v, what, sizeof what);
  if (t->init)
    return true;
  engine_plain(what);
  return say(why, "%s", what);
}

// All segments of all assets, interleaved, so that neighbouring requests ask different assets.
static bool list_paths(struct engine *e, struct fetch *f, struct alloc *mem, struct load_path **paths, uint32_t *num_paths, struct why *why) {
  const struct scenario *sc = e->run->sc;
  uint32_t num = 0, longest = 0, n = 0;
  struct load_track *tracks = mem->get(mem, sc->catalogue.num * sizeof *tracks);
  for (uint32_t i = 0; tracks && i < sc->catalogue.num; i++) {
    struct media_list *list = &tracks[i].list;
    if (!segments_of(e, f, list, mem, i, why) || !open_track(e, f, &tracks[i], sc->catalogue.names[i], why))
      return false;
    num += list->num;
    longest = list->num > longest ? list->num : longest;
  }
  struct load_path *out = tracks ? mem->get(mem, num * sizeof *out) : NULL;
  if (!out)
    return say(why, "out of memory");
  for (uint32_t k = 0; k < longest; k++)
    for (uint32_t i = 0; i < sc->catalogue.num; i++) {
      const struct media_list *list = &tracks[i].list;
      if (k < list->num)
        out[n++] = (struct load_path){list->uris + list->uri_off[k], list->ranges ? list->ranges[k] : (struct byte_range){0}, &tracks[i], k};
    }
  *paths = out;
  *num_paths = n;
  return true;
}

// ---- paths that are given

// A track that some of them belong to: these begin alike, up to their last slash.
struct folder {
  struct load_track track;
  const char *path;
  size_t n;
  struct folder *next;
};

static bool no_segment(const struct engine *e, const char *path, struct why *why) {
  return say(why, "%s: of --paths only segments of the scenario's assets can be compared, /ASSET/%s/EPOCH/TRACK/NUMBER.m4s: leave it out, or --verify", path,
             e->run->sc->scheme);
}

static bool open_folder(struct engine *e, struct fetch *f, struct alloc *mem, struct folder *at, struct why *why) {
  const struct scenario *sc = e->run->sc;
  struct verify_place place;
  struct diag what = {0};
  char list[PLAYLIST_MAX_URI];
  uint32_t i = 0;
  while (i < sc->catalogue.num && (!verify_place_read(&place, sc->catalogue.names[i], at->path) || strcmp(place.scheme, sc->scheme) != 0))
    i++;
  if (i == sc->catalogue.num)
    return no_segment(e, at->path, why);
  if (snprintf(list, sizeof list, "%.*smedia.m3u8", (int)at->n, at->path) >= (int)sizeof list)
    return say(why, "the path %.80s… is too long", at->path);
  if (!get(e, f, list, (struct byte_range){0}, why))
    return false;
  if (hls_read_media(&at->track.list, mem, bytes_of(f->body.p, f->body.n), f->url, &what))
    return malformed(why, list, &what);
  return open_track(e, f, &at->track, sc->catalogue.names[i], why);
}

static bool find_path(struct engine *e, struct fetch *f, struct alloc *mem, struct folder **all, struct load_path *p, struct why *why) {
  struct verify_place place;
  size_t end = strcspn(p->path, "?"), n = end;
  while (n && p->path[n - 1] != '/')
    n--;
  struct folder *at = *all;
  while (at && (at->n != n || memcmp(at->path, p->path, n) != 0))
    at = at->next;
  if (!at) {
    at = mem->get(mem, sizeof *at);
    if (!at)
      return say(why, "out of memory");
    *at = (struct folder){.path = p->path, .n = n, .next = *all};
    if (!open_folder(e, f, mem, at, why))
      return false;
    *all = at;
  }
  const struct media_list *list = &at->track.list;
  if (!verify_place_read(&place, at->track.asset, p->path) || !place.segment)
    return no_segment(e, p->path, why);
  if (place.segment > list->num)
    return say(why, "%s: its playlist has %u segments only", p->path, list->num);
  p->of = &at->track;
  p->segment = place.segment - 1;
  const char *uri = list->uris + list->uri_off[p->segment];
  return (strncmp(uri, p->path, end) == 0 && (!uri[end] || uri[end] == '?')) || say(why, "%s: its playlist has %s in its place", p->path, uri);
}

enum err engine_paths(const struct load_run *run, struct alloc *mem, struct load_path **paths, uint32_t *num_paths, char *text, size_t cap) {
  struct why why = {text, cap};
  struct engine e = {.run = run};
  bool given = *paths != NULL;
  if (given && !run->verifier && !run->sc->verify_epoch)
    return ERR_OK;
  struct fetch *f = calloc(1, sizeof *f);
  struct folder *folders = NULL;
  char io_why[160] = "";
  e.clients = (struct client_world){.io = io_new(run->io, &(struct io_options){0}, io_why, sizeof io_why),
                                    .addr = (const struct sockaddr *)&run->addr, .addr_len = run->addr_len,
                                    .tls = run->tls, .tls_host = run->tls_host, .done = on_done, .body = on_body, .location = on_location};
  bool ok = !e.clients.io ? say(&why, "%s", io_why) : (f && client_world_ready(&e.clients)) || say(&why, "out of memory");
  if (ok)
    client_init(&f->c, &e.clients, f);
  if (ok && !given)
    ok = list_paths(&e, f, mem, paths, num_paths, &why);
  for (uint32_t i = 0; ok && given && i < *num_paths; i++)
    ok = find_path(&e, f, mem, &folders, &(*paths)[i], &why);
  if (e.clients.io && f && f->c.w) {
    client_close(&f->c);
    for (int i = 0; i < 10 && !client_idle(&f->c); i++)
      engine_wait(&e, 1000000);
  }
  io_free(e.clients.io);
  client_world_free(&e.clients);
  if (f)
    free(f->body.p);
  free(f);
  return ok ? ERR_OK : ERR_IO;
}
