// Making tracks and manifests: the slow half of the catalogue, on helper threads.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "manifest/manifest.h"
#include "obs/log.h"
#include "server/catalog_int.h"

static const char *const track_suffixes[] = {".mp4", ".m4a", ".cmfa", ""}; // "": a folder
enum { NUM_SUFFIXES = 4, PATH_BYTES = ROUTE_PATH_MAX + 16, KEY_LOG_MS = 10000 };

static void log_source(const char *path, enum err e, struct diag *diag) {
  char why[300];
  (void)diag_say(diag, e, NULL); // where nobody said more
  diag_format(diag, why, sizeof why);
  log_line(LOG_ERROR, "%s: %s", path, why);
}

static void count_source(struct catalog *c, enum source_from from, uint64_t started_ms) {
  if (from == SOURCE_OPEN)
    return;
  metric_add_shared(from == SOURCE_SIDECAR ? &c->metrics->index_sidecar : &c->metrics->index_built, 1);
  histogram_add_shared(&c->metrics->open_time, (clock_mono_ms() - started_ms) * 1000000u);
}

// Whether what failed is the file's fault, which stays until somebody replaces it. Everything else may pass, or is said of
// this server, not of the media.
static bool file_fault(enum err e) {
  switch ((int)e) {
  case ERR_NO_KEY:
  case ERR_IO:
  case ERR_NO_MEMORY:
  case ERR_STALE: return false;
  default: return true;
  }
}

// Whether "init" would be the init segment of a track that is a folder: what holds segments is no asset. Errors: as
// media_has_parts.
static enum err is_track_itself(struct catalog *c, struct bytes asset, struct bytes track) {
  char path[PATH_BYTES];
  if (!bytes_eq(track, BYTES_LIT("init")))
    return ERR_NOT_FOUND;
  int n = snprintf(path, sizeof path, "%.*s", (int)asset.n, (const char *)asset.p);
  return n < 0 || (size_t)n >= sizeof path ? ERR_NOT_FOUND : media_has_parts((struct media_path){c->root_fd, path});
}

// Opens asset/track whatever form it has on storage.
static enum err open_track(struct catalog *c, struct source **out, const struct settings *st, struct bytes asset,
                           struct bytes track) {
  struct source_options o = {.segment_target_ms = st->config->segment_target, .cache_fd = c->cache_fd,
                             .write_sidecar = st->config->write_sidecars};
  uint64_t started = clock_mono_ms();
  char path[PATH_BYTES];
  enum err itself = is_track_itself(c, asset, track);
  if (itself != ERR_NOT_FOUND)
    return itself == ERR_OK ? ERR_NOT_FOUND : itself;
  for (unsigned i = 0; i < NUM_SUFFIXES; i++) {
    struct diag diag = {0};
    enum source_from from;
    int n = snprintf(path, sizeof path, "%.*s/%.*s%s", (int)asset.n, (const char *)asset.p, (int)track.n,
                     (const char *)track.p, track_suffixes[i]);
    if (n < 0 || (size_t)n >= sizeof path)
      return ERR_NOT_FOUND;
    enum err e = *track_suffixes[i] ? ERR_OK : media_track_folder((struct media_path){c->root_fd, path});
    if (e)
      (void)diag_say(&diag, e, "cannot look into the folder");
    else
      e = sources_get(c->sources, out, &from, path, &o, &diag);
    if (e == ERR_NOT_FOUND)
      continue;
    if (e) {
      metric_add_shared(&c->metrics->index_failed, 1);
      log_source(path, e, &diag);
    } else {
      count_source(c, from, started);
    }
    return e;
  }
  return ERR_NOT_FOUND;
}

// The keys of one build: all of its tracks are of one asset, epoch and scheme.
struct key_use {
  struct issued *issued; // held
  struct key_slot *slot; // pinned: being fetched
  uint64_t retry_ms;     // then: how long until asking makes sense, where that is known
  bool no_key;           // the same for what the answer is counted as
};

struct protect_in {
  const struct settings *st;
  struct key_use *use;
  struct bytes asset;
  enum scheme scheme;
  uint32_t epoch;
  struct source *source;
};

// The key for a query, from wherever the configuration says.
static enum err find_key(struct catalog *c, struct key_record *out, const struct protect_in *in, const struct key_query *q,
                         const struct drm_settings *set) {
  const struct key_remote *r = keys_remote(in->st->keyring->set, q->asset);
  struct exchange *x = atomic_load(&c->exchange);
  struct key_use *use = in->use;
  if (!r)
    return keys_lookup(out, in->st->keyring->set, q);
  if (!use->issued && x) {
    struct key_ask a = exchange_ask(x, in->st->keyring, r, q, set);
    use->issued = a.issued;
    use->slot = a.got == KEY_FLYING ? a.slot : NULL;
    use->retry_ms = a.retry_ms;
  }
  return use->issued ? exchange_label(out, use->issued, q) : ERR_NO_KEY;
}

// Says that a key is not there, where nobody else does (the exchange tells of key servers): at most once in KEY_LOG_MS,
// because players ask for one asset again and again. sluice_keys_total counts them all.
static void log_no_key(struct catalog *c, const struct protect_in *in, struct bytes label) {
  uint64_t now = clock_mono_ms(), due = atomic_load(&c->key_log_due_ms);
  bool remote = keys_remote(in->st->keyring->set, in->asset) != NULL;
  if ((remote && !in->use->issued) || now < due || !atomic_compare_exchange_strong(&c->key_log_due_ms, &due, now + KEY_LOG_MS))
    return;
  log_line(LOG_WARN, "%.*s: no key for %s, epoch %u%s%.*s: the answer is 503", (int)in->asset.n, (const char *)in->asset.p,
           scheme_name(in->scheme), in->epoch, label.n ? ", label " : "", (int)label.n, (const char *)label.p);
}

// Looks the key up and makes protection and plan. `key` is filled for encrypting schemes; its slices point into `in`.
static enum err protect(struct catalog *c, struct full_track *f, struct key_record *key, const struct protect_in *in) {
  struct protected_track *t = &f->pub;
  const struct track_index *ix = &in->source->index.ix;
  struct diag diag = {0};
  enum err e = ERR_OK;
  t->prot.scheme = in->scheme;
  if (in->scheme != SCHEME_CLEAR) {
    char la_url[KEYRING_URL_MAX];
    struct drm_settings set;
    keyring_drm(&set, la_url, in->st->keyring, atomic_load(&c->own_url), in->asset);
    struct key_query q = {.asset = in->asset, .epoch = in->epoch, .scheme = in->scheme, .label = drm_label(&set, ix->h->format)};
    e = find_key(c, key, in, &q, &set);
    if (e == ERR_NO_KEY)
      log_no_key(c, in, q.label);
    if (!in->use->slot) // else it is being fetched, and asked for again then
      metric_add_shared(e ? &c->metrics->keys_missing : &c->metrics->keys_derived, 1);
    in->use->no_key |= e == ERR_NO_KEY;
    if (e)
      return e;
    key_record_protection(&t->prot, key, c->ops, ix->h->identity.digest, ix->h->track_id);
    struct drm_input input = {.key = key, .set = &set};
    struct writer w = wr_of(NULL, 0);
    drm_pssh(&w, &input);
    if (w.n) {
      f->pssh = malloc(w.n);
      if (!f->pssh)
        return ERR_NO_MEMORY;
      w = wr_of(f->pssh, w.n);
      drm_pssh(&w, &input);
      t->prot.pssh = bytes_of(f->pssh, w.n);
    }
    t->prot.no_senc = in->scheme == SCHEME_CBCS && !in->st->config->cbcs_senc;
  }
  e = plan_init(&t->plan, ix, &in->source->segs, &t->prot, &diag);
  if (e) {
    log_source(in->source->path, e, &diag);
    return e;
  }
  uint8_t tag[16];
  plan_tag(&t->plan, tag);
  struct writer w = wr_of(t->etag, 16);
  for (int i = 0; i < 8; i++)
    wr_fmt(&w, "%02x", tag[i]);
  t->source = in->source;
  t->source_id = in->source->id;
  t->epoch = in->epoch;
  return ERR_OK;
}

static int status_of(enum err e) {
  switch ((int)e) {
  case ERR_OK: return CAT_OK;
  case ERR_NOT_FOUND: return CAT_NOT_FOUND;
  case ERR_NO_KEY:
  case ERR_IO:
  case ERR_NO_MEMORY:
  case ERR_STALE: return CAT_UNAVAILABLE; // the next look may succeed
  default: return CAT_NOT_FOUND; // manifests leave such a track out, so from outside it is not there; the log says what it is
  }
}

// What an error is counted as, where it is the media's fault; 0: the status says it.
static uint8_t fault_of(enum err e) {
  switch ((int)e) {
  case ERR_IO: return OBS_err_source_io;
  case ERR_STALE: return OBS_err_source_changed;
  case ERR_OK:
  case ERR_NOT_FOUND:
  case ERR_NO_KEY:
  case ERR_NO_MEMORY: return 0;
  default: return OBS_err_source_invalid;
  }
}

static void use_end(struct made *out, struct key_use *use) {
  issued_drop(use->issued);
  out->retry_ms = use->retry_ms;
  out->no_key = use->no_key;
  if (!use->slot)
    return;
  out->status = CAT_WAIT;
  out->keys = use->slot;
}

static void build_track(struct catalog *c, struct made *out, const struct settings *st, const struct route *r,
                        struct protected_track *old, struct key_use *use) {
  struct source *source;
  struct key_record key = {0};
  enum err e = open_track(c, &source, st, r->asset, r->track);
  if (e) {
    out->status = status_of(e);
    out->why = fault_of(e);
    return;
  }
  struct full_track *f = track_alloc(c);
  struct protect_in in = {st, use, r->asset, r->scheme, r->epoch, source};
  if (!f) {
    source_put(c->sources, source);
    out->status = CAT_UNAVAILABLE;
    return;
  }
  e = protect(c, f, &key, &in);
  key_record_wipe(&key);
  f->pub.source = source;
  out->status = status_of(e);
  out->why = fault_of(e);
  if (!e && old && old->source == source && !strcmp(old->etag, f->pub.etag)) {
    track_hold(old);
    out->value = old;
  } else if (!e) {
    out->value = &f->pub;
    return;
  }
  track_retire_now(f);
}

// The tracks of a manifest under construction.
struct work {
  struct catalog *c;
  const struct settings *st;
  const struct route *r;
  uint32_t epoch;
  unsigned num, invalid, too_many; // too_many: names behind the last that has room
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
  if (k->broke != CAT_OK)
    return;
  for (unsigned i = 0; i < k->num; i++)
    if (strlen(k->names[i]) == name_len && !memcmp(k->names[i], name, name_len))
      return; // two forms of one track: the same rule as in open_track picks one
  if (k->num == MAN_MAX_TRACKS) {
    k->too_many++;
    return;
  }
  struct bytes track = bytes_of(name, name_len);
  enum err e = open_track(k->c, &source, k->st, k->r->asset, track);
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

enum { MAX_FOLDER = 1 << 16 };

struct names {
  char **at;
  size_t num, cap;
};

static bool keep_name(struct names *l, const char *name) {
  if (l->num == l->cap) {
    size_t cap = l->cap ? l->cap * 2 : 64;
    char **more = realloc(l->at, cap * sizeof *l->at);
    if (!more)
      return false;
    l->at = more;
    l->cap = cap;
  }
  l->at[l->num] = strdup(name);
  return l->at[l->num] && ++l->num;
}

// What a track is called in URLs: files without their extension.
static size_t track_name_len(const char *name) {
  return media_is_track_name(name) ? (size_t)(strrchr(name, '.') - name) : strlen(name);
}

// The names in a folder, which it closes, that may be tracks and that a URL can have.
static enum err list_names(struct names *l, int fd) {
  DIR *d = fdopendir(fd);
  if (!d) {
    close(fd);
    return ERR_IO;
  }
  enum err e = ERR_OK;
  errno = 0;
  for (struct dirent *ent; !e && l->num < MAX_FOLDER && (ent = readdir(d)); errno = 0)
    if (route_names(bytes_of(ent->d_name, track_name_len(ent->d_name))) && (media_is_track_name(ent->d_name) || ent->d_type != DT_REG) &&
        !keep_name(l, ent->d_name))
      e = ERR_NO_MEMORY;
  if (!e && errno) // a listing that broke off is not the end of the folder
    e = ERR_IO;
  closedir(d);
  return e;
}

static void free_names(struct names *l) {
  for (size_t i = 0; i < l->num; i++)
    free(l->at[i]);
  free(l->at);
}

// The names in an asset's folder that may be tracks.
static enum err list_asset(struct names *l, struct catalog *c, struct bytes asset) {
  char path[PATH_BYTES];
  int n = snprintf(path, sizeof path, "%.*s", (int)asset.n, (const char *)asset.p);
  if (n < 0 || (size_t)n >= sizeof path)
    return ERR_NOT_FOUND;
  int fd = media_open_at((struct media_path){c->root_fd, path}, O_RDONLY | O_DIRECTORY);
  if (fd >= 0)
    return list_names(l, fd);
  return errno == ENOENT || errno == ENOTDIR || errno == EXDEV || errno == ELOOP || errno == ENAMETOOLONG ? ERR_NOT_FOUND
         : errno == EACCES || errno == EPERM                                                             ? ERR_DENIED
                                                                                                         : ERR_IO;
}

// What is not opened any more, because there are MAN_MAX_TRACKS, is counted where it would have been.
static bool looks_like_track(const struct work *k, const char *name) {
  char path[PATH_BYTES];
  int n = snprintf(path, sizeof path, "%.*s/%s", (int)k->r->asset.n, (const char *)k->r->asset.p, name);
  return media_is_track_name(name) ||
         (n > 0 && (size_t)n < sizeof path && media_is_track_folder((struct media_path){k->c->root_fd, path}));
}

// Adds every track of the asset's folder, in order of names, so that every node writes the same text.
static enum err add_all(struct work *k) {
  struct names names = {0};
  enum err e = list_asset(&names, k->c, k->r->asset);
  if (!e && names.num)
    qsort(names.at, names.num, sizeof *names.at, by_name);
  for (size_t i = 0; i < names.num && !e; i++)
    if (k->num < MAN_MAX_TRACKS || looks_like_track(k, names.at[i]))
      add_track(k, names.at[i], track_name_len(names.at[i]));
  free_names(&names);
  return e;
}

// Whether a name in an asset's folder is there, as a file or a folder that open_track would take.
static enum err name_is_track(struct catalog *c, struct bytes asset, const char *name) {
  char path[PATH_BYTES];
  struct stat st;
  enum err itself = is_track_itself(c, asset, bytes_of(name, track_name_len(name)));
  if (itself != ERR_NOT_FOUND)
    return itself == ERR_OK ? ERR_NOT_FOUND : itself;
  int n = snprintf(path, sizeof path, "%.*s/%s", (int)asset.n, (const char *)asset.p, name);
  if (n < 0 || (size_t)n >= sizeof path)
    return ERR_NOT_FOUND;
  struct media_path at = {c->root_fd, path};
  int fd = media_is_track_name(name) ? media_open_at(at, O_PATH) : -1;
  bool file = fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode);
  if (fd >= 0)
    close(fd);
  return file ? ERR_OK : media_track_folder(at);
}

enum err catalog_find_asset(struct catalog *c, struct bytes asset) {
  char path[ROUTE_PATH_MAX + 32];
  struct names names = {0};
  struct route r;
  int n = snprintf(path, sizeof path, "/%.*s/cbcs/master.m3u8", (int)asset.n, (const char *)asset.p);
  route_parse(&r, bytes_of(path, n > 0 && (size_t)n < sizeof path ? (size_t)n : 0));
  if (r.kind != ROUTE_MASTER || !bytes_eq(r.asset, asset)) // no URL could name it
    return ERR_NOT_FOUND;
  enum err e = list_asset(&names, c, asset);
  bool found = false;
  for (size_t i = 0; i < names.num && !e && !found; i++) {
    e = name_is_track(c, asset, names.at[i]);
    found = e == ERR_OK;
    e = e == ERR_NOT_FOUND ? ERR_OK : e;
  }
  free_names(&names);
  return e ? e : found ? ERR_OK : ERR_NOT_FOUND;
}

enum err catalog_find_below(struct catalog *c, struct bytes prefix) {
  struct names names = {0};
  struct bytes folder = bytes_of(prefix.p, prefix.n - 1);
  enum err e = list_asset(&names, c, folder);
  bool found = false;
  for (size_t i = 0; i < names.num && !e && !found; i++) {
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%.*s/%s", (int)folder.n, (const char *)folder.p, names.at[i]);
    struct media_path at = {c->root_fd, path};
    int fd = n > 0 && (size_t)n < sizeof path ? media_open_at(at, O_PATH | O_DIRECTORY) : -1;
    found = fd >= 0 && media_track_folder(at) == ERR_NOT_FOUND;
    if (fd >= 0)
      close(fd);
  }
  free_names(&names);
  return e ? e : found ? ERR_OK : ERR_NOT_FOUND;
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

static void build_text(struct catalog *c, struct made *out, const struct settings *st, const struct route *r, uint32_t epoch,
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
    } else if (t && k->too_many) { // once for each text, not for each look at storage
      log_line(LOG_WARN, "%.*s: more than %d tracks: its manifests leave out the last %u by name", (int)r->asset.n,
               (const char *)r->asset.p, MAN_MAX_TRACKS, k->too_many);
    }
  }
  for (unsigned i = 0; k && i < k->num; i++) {
    track_retire_now(k->full[i]);
    free(k->names[i]);
  }
  free(k);
  secret_alloc_free(&mem);
}

// Both the configuration and the keys file may narrow the schemes; only the configuration opens `clear`.
static bool scheme_allowed(const struct settings *st, const struct route *r) {
  unsigned bits = config_schemes(st->config, r->asset);
  if (r->scheme != SCHEME_CLEAR)
    bits &= keys_drm(st->keyring->set, r->asset)->schemes;
  return bits & 1u << r->scheme;
}

void build_entry(struct catalog *c, struct made *out, const struct settings *st, const struct route *r, void *old) {
  uint64_t until_unix = UINT64_MAX, now_unix = clock_unix_ms(), now = clock_mono_ms();
  uint32_t epoch = r->epoch;
  *out = (struct made){.until_ms = UINT64_MAX};
  if (!scheme_allowed(st, r)) {
    out->status = CAT_FORBIDDEN;
    return;
  }
  if (r->kind == ROUTE_KEY && (!st->keyring->insecure || r->scheme == SCHEME_CLEAR)) {
    out->status = CAT_FORBIDDEN;
    return;
  }
  if (epoch == 0) {
    epoch = epoch_store_current(c->epochs, r->asset);
  } else {
    switch (epoch_store_status(c->epochs, r->asset, epoch, now_unix, &until_unix)) {
    case EPOCH_CURRENT:
    case EPOCH_GRACE: break;
    case EPOCH_EXPIRED:
    case EPOCH_REVOKED: out->status = CAT_GONE; return;
    case EPOCH_UNKNOWN: out->status = CAT_NOT_FOUND; return;
    }
  }
  if (until_unix != UINT64_MAX)
    out->until_ms = now + (until_unix > now_unix ? until_unix - now_unix : 0);
  struct key_use use = {0};
  if (r->kind == ROUTE_INIT)
    build_track(c, out, st, r, old, &use);
  else
    build_text(c, out, st, r, epoch, old, &use);
  use_end(out, &use);
}
