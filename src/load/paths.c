// Lists every segment of every asset by reading its manifests, before a run without listeners.
#include <stdlib.h>
#include <stdio.h>

#include "load/session.h"

struct fetch {
  struct client c;
  struct body body;
  bool done, ok;
  unsigned status;
};

enum { ANSWER_S = 10 }; // that long a manifest may take

static void on_body(struct client *c, struct bytes piece) {
  struct fetch *f = c->owner;
  c->stop = !body_add(&f->body, piece);
}

static void on_done(struct client *c, const struct client_response *r) {
  struct fetch *f = c->owner;
  f->done = true;
  f->status = r->status;
  f->ok = r->whole && r->status == 200;
}

static enum err get(struct engine *e, struct fetch *f, const char *path, struct diag *diag) {
  char out[CLIENT_REQUEST_MAX];
  int n = snprintf(out, sizeof out, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sluice-load\r\n\r\n", path, e->run->host);
  f->body.n = 0;
  f->done = false;
  if (n < 0 || (size_t)n >= sizeof out)
    return diag_say(diag, ERR_LIMIT, "the path %.80s… is too long", path);
  client_send(&f->c, bytes_of(out, (size_t)n), false);
  double end_s = engine_now(e) + ANSWER_S;
  while (!f->done && engine_now(e) < end_s && !*e->run->stop)
    if (!engine_wait(e, 10000000))
      return engine_failed(e, diag);
  if (f->done && f->status == 200 && !f->ok)
    return diag_say(diag, ERR_IO, "the target's answer for %.100s is not whole, or longer than 64 MB", path);
  if (!f->done || !f->status)
    return diag_say(diag, ERR_IO, "the target does not answer for %.300s", path);
  if (!f->ok)
    return diag_say(diag, ERR_IO, "the target answers %u for %.300s", f->status, path);
  return ERR_OK;
}

// What is wrong with the text of `path`, with the path before it.
static enum err malformed(struct diag *diag, enum err err, const char *path, const struct diag *what) {
  return err ? diag_say(diag, err, "%.90s: line %lu: %.60s", path, what->at, what->what[0] ? what->what : err_text(err)) : ERR_OK;
}

static enum err segments_of(struct engine *e, struct fetch *f, struct media_list *list, struct alloc *mem, const char *asset, struct diag *diag) {
  char path[PLAYLIST_MAX_URI], rest[64];
  const struct scenario *sc = e->run->sc;
  bool dash = sc->protocol == LOAD_DASH;
  snprintf(rest, sizeof rest, "%s/%s", sc->scheme, dash ? "manifest.mpd" : "master.m3u8");
  enum err err = uri_of_asset(path, asset, rest);
  err = err ? diag_say(diag, err, "the path of %.80s… is too long", asset) : get(e, f, path, diag);
  if (err)
    return err;
  struct bytes text = bytes_of(f->body.p, f->body.n);
  struct diag what = {0};
  if (dash)
    return malformed(diag, mpd_read(&e->renditions, list, 0, mem, text, path, &what), path, &what);
  const char *media = e->renditions.r[0].uri;
  err = malformed(diag, hls_read_multivariant(&e->renditions, text, path, &what), path, &what);
  if (!err)
    err = get(e, f, media, diag);
  return err ? err : malformed(diag, hls_read_media(list, mem, bytes_of(f->body.p, f->body.n), media, &what), media, &what);
}

enum err engine_paths(const struct load_run *run, struct alloc *mem, const char *const **paths, uint32_t *num_paths, struct diag *diag) {
  char why[160] = "";
  struct engine e = {.run = run};
  struct fetch *f = calloc(1, sizeof *f);
  const struct scenario *sc = run->sc;
  struct media_list *lists = mem->get(mem, sc->catalogue.num * sizeof *lists);
  e.clients = (struct client_world){.io = io_new(run->io, &(struct io_options){0}, why, sizeof why),
                                    .addr = (const struct sockaddr *)&run->addr, .addr_len = run->addr_len,
                                    .tls = run->tls, .tls_host = run->tls_host, .done = on_done, .body = on_body};
  enum err err = !e.clients.io ? diag_say(diag, ERR_IO, "%s", why) : f && lists && client_world_ready(&e.clients) ? ERR_OK : diag_say(diag, ERR_NO_MEMORY, NULL);
  if (!err)
    client_init(&f->c, &e.clients, f);
  uint32_t num = 0, longest = 0;
  for (uint32_t i = 0; !err && i < sc->catalogue.num; i++) {
    err = segments_of(&e, f, &lists[i], mem, sc->catalogue.names[i], diag);
    num += err ? 0 : lists[i].num;
    longest = !err && lists[i].num > longest ? lists[i].num : longest;
  }
  const char **out = err ? NULL : mem->get(mem, num * sizeof *out);
  if (!err && !out)
    err = diag_say(diag, ERR_NO_MEMORY, NULL);
  uint32_t n = 0; // interleaved, so that neighbouring requests ask different assets
  for (uint32_t k = 0; !err && k < longest; k++)
    for (uint32_t i = 0; i < sc->catalogue.num; i++)
      if (k < lists[i].num)
        out[n++] = lists[i].uris + lists[i].uri_off[k];
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
  *paths = out;
  *num_paths = n;
  return err;
}
