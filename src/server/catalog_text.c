// Making manifests, playlists and keys.
#include <stdio.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "manifest/manifest.h"
#include "obs/log.h"
#include "server/catalog_build.h"

// A folder of folders is no asset, and anybody may ask for it as for one: it must not keep a helper at looking into all of them.
enum { OTHERS_MAX = 1024 };

// The tracks of a manifest under construction.
struct work {
  struct catalog *c;
  const struct settings *st;
  const struct route *r;
  uint32_t epoch;
  unsigned num, invalid;
  // Left out: names behind the last that has room; other forms of a track that is there; names with which URLs are too long.
  unsigned too_many, twice, too_long;
  unsigned others[2]; // folders, and files, that turned out to be no tracks: at most OTHERS_MAX of each
  bool gave_up;       // there may be more of them
  int broke; // CAT_OK, or why there is no document: nothing half made
  uint8_t why; // of that, as in `made`
  struct key_use *use;
  struct drm_settings drm;
  char la_url[KEYRING_URL_MAX];
  struct full_track *full[MAN_MAX_TRACKS];
  struct key_record *keys; // MAN_MAX_TRACKS, in memory for secrets
  struct man_track tracks[MAN_MAX_TRACKS];
  char *names[MAN_MAX_TRACKS];
};

// Whether what failed is the file's fault, which stays until somebody replaces it. Everything else may pass, or is said of
// this server, not of the media.
static bool file_fault(enum err e) {
  switch ((int)e) {
  case ERR_NO_KEY:
  case ERR_IO:
  case ERR_NO_MEMORY:
  case ERR_BUSY:
  case ERR_STALE: return false;
  default: return true;
  }
}

// Leaves a track out, or gives the document up: one that lacks tracks for a passing reason would be kept by players and CDNs.
static void without_track(struct work *k, enum err e) {
  if (!file_fault(e)) {
    k->broke = status_of(e);
    k->why = fault_of(e);
  } else {
    k->invalid += e != ERR_NOT_FOUND;
  }
}

static void add_track(struct work *k, const char *name, size_t name_len) {
  struct source *source;
  for (unsigned i = 0; i < k->num; i++)
    if (strlen(k->names[i]) == name_len && !memcmp(k->names[i], name, name_len)) {
      k->twice++; // the same rule as in open_track picks one
      return;
    }
  if (k->num == MAN_MAX_TRACKS) {
    k->too_many++;
    return;
  }
  struct bytes track = bytes_of(name, name_len);
  enum err e = open_track(k->c, &source, k->st, k->r->asset, track, k->use);
  if (e) {
    without_track(k, e);
    return;
  }
  struct full_track *f = track_alloc(k->c);
  if (!f) {
    source_put(k->c->sources, source);
    without_track(k, ERR_NO_MEMORY);
    return;
  }
  struct protect_in in = {k->st, k->use, k->r->asset, k->r->scheme, k->epoch, source};
  struct key_record *key = &k->keys[k->num];
  f->pub.source = source;
  char *copy = strndup(name, name_len);
  e = copy ? protect(k->c, f, key, &in) : ERR_NO_MEMORY;
  if (e) {
    free(copy);
    track_retire_now(f);
    without_track(k, e);
    return;
  }
  k->names[k->num] = copy;
  k->full[k->num] = f;
  k->tracks[k->num] = (struct man_track){.name = bytes_of(copy, name_len), .ix = &source->index.ix, .segs = &source->segs,
                                         .plan = &f->pub.plan, .key = k->r->scheme == SCHEME_CLEAR ? NULL : key};
  k->num++;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// Whether a name is a track's, by its looks: a file by its extension, else a folder by what it holds.
static enum err look_at(const struct work *k, const char *name) {
  char path[PATH_BYTES];
  int n = snprintf(path, sizeof path, "%.*s/%s", (int)k->r->asset.n, (const char *)k->r->asset.p, name);
  if (media_is_track_name(name))
    return ERR_OK;
  return n > 0 && (size_t)n < sizeof path ? media_track_folder((struct media_path){k->c->root_fd, path}) : ERR_NOT_FOUND;
}

static void add_name(struct work *k, const char *name) {
  size_t n = track_name_len(name);
  unsigned before = k->num + k->twice + k->too_many + k->too_long, *others = &k->others[media_is_track_name(name)];
  if (*others == OTHERS_MAX) {
    k->gave_up = true;
    return;
  }
  enum err e = look_at(k, name);
  if (!route_fits(k->r->asset, bytes_of(name, n)))
    k->too_long += e == ERR_OK;
  else if (e == ERR_OK || (e != ERR_NOT_FOUND && k->num < MAN_MAX_TRACKS)) // what is odd about it is said where it is opened
    add_track(k, name, n);
  *others += k->num + k->twice + k->too_many + k->too_long == before;
}

// Adds every track of the asset's folder, in order of names, so that every node writes the same text.
static enum err add_all(struct work *k) {
  struct names names = {0};
  struct diag diag = {0};
  enum err e = list_asset(&names, k->c, k->r->asset, &diag);
  if (e && e != ERR_NOT_FOUND)
    log_source(k->c, k->r->asset, e, &diag);
  if (!e && names.num)
    qsort(names.at, names.num, sizeof *names.at, by_name);
  for (size_t i = 0; i < names.num && !e && k->broke == CAT_OK; i++)
    add_name(k, names.at[i]);
  free_names(&names);
  return e;
}

static void write_text(struct writer *w, const struct work *k) {
  if (k->r->kind == ROUTE_KEY) {
    wr_raw(w, k->keys[0].key, sizeof k->keys[0].key);
    return;
  }
  struct man_asset a = {.name = k->r->asset, .scheme = k->r->scheme, .epoch = k->epoch, .tracks = k->tracks,
                        .num_tracks = k->num, .drm = &k->drm};
  switch ((int)k->r->kind) {
  case ROUTE_MASTER: man_hls_master(w, &a, MAN_SEGMENTS); break;
  case ROUTE_MASTER_RANGES: man_hls_master(w, &a, MAN_RANGES); break;
  case ROUTE_MPD: man_dash(w, &a, MAN_SEGMENTS); break;
  case ROUTE_MPD_RANGES: man_dash(w, &a, MAN_RANGES); break;
  case ROUTE_MEDIA: man_hls_media(w, &a, 0, MAN_SEGMENTS); break;
  default: man_hls_media(w, &a, 0, MAN_RANGES); break;
  }
}

static void text_finish(struct full_text *t, const struct work *k) {
  bool mpd = k->r->kind == ROUTE_MPD || k->r->kind == ROUTE_MPD_RANGES;
  t->pub.no_store = k->r->kind == ROUTE_KEY;
  t->pub.content_type = t->pub.no_store ? "application/octet-stream" : mpd ? "application/dash+xml" : "application/vnd.apple.mpegurl";
  t->pub.immutable = k->r->epoch != 0 && !t->pub.no_store;
  XXH128_hash_t h = XXH3_128bits(t->pub.body.p, t->pub.body.n);
  snprintf(t->pub.etag, sizeof t->pub.etag, "%016llx", (unsigned long long)(h.low64 ^ h.high64));
}

static struct full_text *make_text(const struct work *k) {
  struct writer w = wr_of(NULL, 0);
  write_text(&w, k);
  size_t n = w.n, sources = k->num * sizeof(struct source *);
  struct full_text *t = calloc(1, sizeof *t + sources + n);
  if (!t)
    return NULL;
  t->catalog = k->c;
  t->sources = (struct source **)(void *)(t + 1);
  t->num_sources = k->num;
  t->bytes = sizeof *t + sources + n;
  uint8_t *text = (uint8_t *)(t + 1) + sources;
  w = wr_of(text, n);
  write_text(&w, k);
  t->pub.body = bytes_of(text, n);
  atomic_store(&t->pub.holds, 1);
  for (unsigned i = 0; i < k->num; i++) {
    t->sources[i] = k->full[i]->pub.source;
    source_ref(t->sources[i]);
  }
  text_finish(t, k);
  pthread_mutex_lock(&k->c->lock);
  k->c->text_bytes += t->bytes;
  pthread_mutex_unlock(&k->c->lock);
  return t;
}

static bool same_text(const struct text_doc *old, const struct full_text *fresh) {
  const struct full_text *was = (const struct full_text *)(const void *)((const char *)old - offsetof(struct full_text, pub));
  bool same = bytes_eq(old->body, fresh->pub.body) && was->num_sources == fresh->num_sources;
  for (unsigned i = 0; same && i < fresh->num_sources; i++)
    same = was->sources[i] == fresh->sources[i];
  return same;
}

static void say_left_out(const struct work *k) {
  int n = (int)k->r->asset.n;
  const char *name = (const char *)k->r->asset.p;
  if (k->too_many)
    log_line(LOG_WARN, "%.*s: more than %d tracks: its manifests leave out the last %u by name", n, name, MAN_MAX_TRACKS, k->too_many);
  if (k->too_long)
    log_line(LOG_WARN, "%.*s: %u %s too long for URLs, whose paths have at most %d bytes: its manifests leave %s out", n, name, k->too_long,
             k->too_long == 1 ? "track's name is" : "tracks' names are", ROUTE_PATH_MAX, k->too_long == 1 ? "it" : "them");
  if (k->gave_up)
    log_line(LOG_WARN, "%.*s: %d folders, or files, in it are no tracks: those behind them by name are not looked into for its manifests", n, name, OTHERS_MAX);
  if (k->twice)
    log_line(LOG_WARN, "%.*s: %u %s the name of another track but for the extension, and no URL: of .mp4, .m4a, .cmfa and a folder the first is served",
             n, name, k->twice, k->twice == 1 ? "file or folder has" : "files or folders have");
}

void build_text(struct catalog *c, struct made *out, const struct settings *st, const struct route *r, uint32_t epoch,
                struct text_doc *old, struct key_use *use) {
  struct secret_alloc mem;
  secret_alloc_init(&mem, 1 << 20);
  struct work *k = calloc(1, sizeof *k);
  out->status = CAT_UNAVAILABLE;
  if (k && (k->keys = mem.base.get(&mem.base, MAN_MAX_TRACKS * sizeof *k->keys))) {
    k->c = c;
    k->st = st;
    k->r = r;
    k->epoch = epoch;
    k->use = use;
    k->broke = CAT_OK;
    keyring_drm(&k->drm, k->la_url, st->keyring, atomic_load(&c->own_url), r->asset);
    bool one = r->track.n != 0;
    enum err e = ERR_OK;
    if (one)
      add_track(k, (const char *)r->track.p, r->track.n);
    else
      e = add_all(k);
    out->status = e ? status_of(e) : k->broke;
    out->why = e ? fault_of(e) : k->why;
    if (out->status == CAT_OK && k->num == 0) {
      out->status = CAT_NOT_FOUND;
      out->why = k->invalid ? OBS_err_source_invalid : 0;
    }
  }
  if (out->status == CAT_OK) {
    struct full_text *t = make_text(k);
    out->status = t ? CAT_OK : CAT_UNAVAILABLE;
    out->value = t ? &t->pub : NULL;
    if (t && old && same_text(old, t)) {
      text_hold(old);
      out->value = old;
      text_drop(c, &t->pub);
    } else if (t) {
      say_left_out(k); // once for each text, not for each look at storage
    }
  }
  for (unsigned i = 0; k && i < k->num; i++) {
    track_retire_now(k->full[i]);
    free(k->names[i]);
  }
  free(k);
  secret_alloc_free(&mem);
}
