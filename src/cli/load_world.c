#include "cli/load_world.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "keys/cpix.h"
#include "keys/wrap.h"
#include "server/secret_file.h"
#include "storage/sidecar.h"

enum { MAX_VERIFIED_SEGMENTS = 1 << 20, SECRETS = 512 << 20 };

struct open_track {
  struct verify_track v;
  struct media_source source;
  struct index_file index;
  pthread_mutex_t lock; // a source reads for one thread at a time
  char name[600];       // asset/track
  struct open_track *next;
};

struct load_world {
  char media[1024];
  struct alloc_heap mem;
  struct keyset *keys;
  pthread_mutex_t lock;
  struct open_track *tracks; // few: what the scenario's catalogue holds
  struct verifier *verifier;
};

static enum err read_track(void *ctx, uint64_t off, void *buf, size_t n) {
  struct open_track *t = ctx;
  pthread_mutex_lock(&t->lock);
  enum err e = media_read(&t->source, off, buf, n);
  pthread_mutex_unlock(&t->lock);
  return e;
}

static bool open_one(struct open_track *t, const char *path) {
  struct diag d = {0};
  struct index_options o = {.cache_fd = -1, .no_digest = true};
  if (media_open(&t->source, (struct media_path){AT_FDCWD, path}, &d) || index_load(&t->index, &t->source, &o, &d)) {
    index_free(&t->index);
    media_close(&t->source);
    return false;
  }
  t->v = (struct verify_track){.ix = &t->index.ix, .read = read_track, .ctx = t};
  return true;
}

// A track is a file with one of the known endings or a folder, as the server finds it.
static struct open_track *open_track(struct load_world *w, const char *asset, const char *track) {
  static const char *const endings[] = {".mp4", ".m4a", ".cmfa", ""};
  struct open_track *t = calloc(1, sizeof *t);
  if (!t || pthread_mutex_init(&t->lock, NULL)) {
    free(t);
    return NULL;
  }
  for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
    char path[2048];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s/%s%s", w->media, asset, track, endings[i]);
    if (stat(path, &st) == 0 && open_one(t, path))
      return t;
  }
  pthread_mutex_destroy(&t->lock);
  free(t);
  return NULL;
}

static const struct verify_track *find_track(void *ctx, const char *asset, const char *track) {
  struct load_world *w = ctx;
  char name[600];
  snprintf(name, sizeof name, "%s/%s", asset, track);
  pthread_mutex_lock(&w->lock);
  struct open_track *t = w->tracks;
  while (t && strcmp(t->name, name) != 0)
    t = t->next;
  if (!t && (t = open_track(w, asset, track)) != NULL) {
    memcpy(t->name, name, sizeof name);
    t->next = w->tracks;
    w->tracks = t;
  }
  pthread_mutex_unlock(&w->lock);
  return t ? &t->v : NULL;
}

// The record that has this KID; to be wiped. False: there is none.
static bool find_record(struct key_record *out, const struct load_world *w, const char *asset, const char *scheme, uint32_t epoch,
                        const uint8_t kid[16]) {
  static const char *const labels[] = {"", "lossless"};
  struct key_query q = {.asset = bytes_str(asset), .epoch = epoch};
  if (scheme_parse(&q.scheme, bytes_str(scheme)))
    return false;
  for (size_t i = 0; i < 2; i++) {
    *out = (struct key_record){0};
    q.label = bytes_str(labels[i]);
    if (keys_lookup(out, w->keys, &q) == ERR_OK && memcmp(out->kid, kid, 16) == 0)
      return true;
    key_record_wipe(out);
  }
  return false;
}

static bool find_key(void *ctx, const char *asset, const char *scheme, uint32_t epoch, const uint8_t kid[16], uint8_t key[16]) {
  struct key_record r;
  if (!find_record(&r, ctx, asset, scheme, epoch, kid))
    return false;
  memcpy(key, r.key, 16);
  key_record_wipe(&r);
  return true;
}

// What the keys file leaves out of init segments the server's `inband_pssh` may put there, which is not known here.
static bool find_pssh(void *ctx, const char *asset, const char *scheme, uint32_t epoch, const uint8_t kid[16], unsigned n, struct writer *out,
                      bool *needed) {
  const struct load_world *w = ctx;
  struct drm_settings set = *keys_drm(w->keys, bytes_str(asset));
  struct key_record r;
  *needed = n < DRM_SYSTEM_COUNT && set.in_band & drm_bit((enum drm_system)n);
  if (n >= DRM_SYSTEM_COUNT || !find_record(&r, w, asset, scheme, epoch, kid))
    return false;
  set.in_band = (set.in_band | set.systems) & drm_bit((enum drm_system)n);
  drm_pssh(out, &(struct drm_input){.key = &r, .set = &set});
  key_record_wipe(&r);
  return true;
}

static bool read_secret(struct secret_alloc *mem, const char *path, size_t cap, struct bytes *out) {
  return secret_read(mem, out, path, cap) || cli_error(path, "%s", secret_why(errno)) != EXIT_FAILED;
}

static bool relative_to(char *out, size_t cap, const char *file, const char *path) {
  const char *slash = strrchr(file, '/');
  int folder = path[0] == '/' || !slash ? 0 : (int)(slash - file) + 1;
  int n = snprintf(out, cap, "%.*s%s", folder, file, path);
  return n >= 0 && (size_t)n < cap ? true : cli_error(path, "the path is too long") != EXIT_FAILED;
}

// A file that the keys file names, relative to its folder.
static bool read_beside(struct secret_alloc *mem, const char *keys, struct bytes name, size_t cap, char file[1024], struct bytes *out) {
  char text[KEYS_MAX_ASSET + 1];
  memcpy(text, name.p, name.n); // as keys_parse bounds it
  text[name.n] = 0;
  return relative_to(file, 1024, keys, text) && read_secret(mem, file, cap, out);
}

// A secret that lies wrapped, unwrapped with the keys file's KEK.
static bool unwrap(struct secret_alloc *mem, const char *keys, struct bytes kek_name, const char *secret_path, struct bytes *secret) {
  struct bytes text;
  struct diag d = {0};
  uint8_t *kek = mem->base.get(&mem->base, KEK_BYTES), *out = mem->base.get(&mem->base, KEYS_MAX_SECRET);
  char file[1024];
  size_t n = 0;
  if (!kek_name.n)
    return cli_error(secret_path, "the secret is wrapped: derive.kek_file of the keys file is to say with what") != EXIT_FAILED;
  if (!kek || !out)
    return cli_error(secret_path, "out of memory") != EXIT_FAILED;
  if (!read_beside(mem, keys, kek_name, KEK_MAX_FILE, file, &text))
    return false;
  if (kek_read(kek, text, &d))
    return cli_error_diag(file, &d) != EXIT_FAILED;
  if (secret_unwrap(out, &n, *secret, kek, &d))
    return cli_error_diag(secret_path, &d) != EXIT_FAILED;
  *secret = bytes_of(out, n);
  return true;
}

// The keys of documents that the keys file names.
static bool add_documents(struct load_world *w, struct secret_alloc *mem, const char *keys) {
  uint32_t num;
  const struct key_remote *r = keys_remotes(w->keys, &num);
  for (uint32_t i = 0; i < num; i++) {
    struct bytes doc;
    struct diag d = {0};
    char file[1024];
    if (r[i].provider)
      continue;
    if (!read_beside(mem, keys, r[i].file, CPIX_MAX_DOC, file, &doc))
      return false;
    if (keys_add_cpix(w->keys, &w->mem.base, doc, r[i].epoch, r[i].scheme, &d))
      return cli_error_diag(file, &d) != EXIT_FAILED;
  }
  return true;
}

// Key servers are not asked: what they say would be as if it were wrong.
static bool are_here(const struct load_world *w, const struct scenario *sc, const char *keys) {
  for (uint32_t i = 0; i < sc->catalogue.num; i++) {
    const struct key_remote *r = keys_remote(w->keys, bytes_str(sc->catalogue.names[i]));
    if (r)
      return cli_error(keys, "%s: its keys come from the key server of line %zu: nothing can be compared", sc->catalogue.names[i], r->line) != EXIT_FAILED;
  }
  return true;
}

// `mem`: for what holds secrets and is not needed once the keys are known.
static bool read_keys(struct load_world *w, struct secret_alloc *mem, const char *path) {
  struct bytes text, secret;
  struct keys_info info;
  struct diag d = {0};
  char file[1024];
  if (!read_secret(mem, path, KEYS_MAX_FILE, &text))
    return false;
  if (keys_parse(&w->mem.base, &w->keys, &info, text, &d)) {
    cli_error_diag(path, &d);
    return false;
  }
  if (!add_documents(w, mem, path))
    return false;
  if (!info.secret_file.n) // the server has made one: nothing that is compared without it would be right
    return info.derive ? cli_error(path, "derive.secret_file is missing: name the derive.secret in the server's state folder") != EXIT_FAILED : true;
  if (!read_beside(mem, path, info.secret_file, WRAPPED_MAX_FILE, file, &secret) ||
      (secret_is_wrapped(secret) && !unwrap(mem, path, info.kek_file, file, &secret)))
    return false;
  if (keys_set_secret(w->keys, secret, &d)) {
    cli_error_diag(file, &d);
    return false;
  }
  return true;
}

static bool load_keys(struct load_world *w, const struct scenario *sc, const char *path) {
  struct secret_alloc mem;
  secret_alloc_init(&mem, SECRETS);
  bool ok = read_keys(w, &mem, path) && are_here(w, sc, path);
  secret_alloc_free(&mem);
  return ok;
}

// Else every segment were said to be wrong, after the whole run.
static bool media_there(const char *path) {
  struct stat st;
  bool found = !stat(path, &st), folder = found && S_ISDIR(st.st_mode);
  if (!folder)
    cli_error(path, "cannot compare with this media folder: %s", strerror(found ? ENOTDIR : errno));
  return folder;
}

struct load_world *load_world_new(const char *scenario_path, const struct scenario *sc, struct verifier **out) {
  struct load_world *w = calloc(1, sizeof *w);
  const struct aes_ops *ops = cli_kernel();
  char keys[1024];
  if (!w || !ops || pthread_mutex_init(&w->lock, NULL)) {
    free(w);
    return NULL;
  }
  alloc_heap_init(&w->mem, (size_t)1 << 30);
  struct verify_world world = {.ctx = w, .track = find_track, .key = find_key, .pssh = find_pssh};
  bool placed = relative_to(w->media, sizeof w->media, scenario_path, sc->media) && relative_to(keys, sizeof keys, scenario_path, sc->keys);
  bool ok = placed && media_there(w->media) && (strcmp(sc->scheme, "clear") == 0 || load_keys(w, sc, keys));
  w->verifier = ok ? verifier_new(&world, ops, MAX_VERIFIED_SEGMENTS) : NULL;
  if (!w->verifier) {
    if (ok)
      cli_error("load", "out of memory");
    load_world_free(w);
    return NULL;
  }
  *out = w->verifier;
  return w;
}

void load_world_free(struct load_world *w) {
  if (!w)
    return;
  verifier_free(w->verifier);
  while (w->tracks) {
    struct open_track *next = w->tracks->next;
    index_free(&w->tracks->index);
    media_close(&w->tracks->source);
    pthread_mutex_destroy(&w->tracks->lock);
    free(w->tracks);
    w->tracks = next;
  }
  keyset_wipe(w->keys);
  pthread_mutex_destroy(&w->lock);
  alloc_heap_free(&w->mem);
  free(w);
}
