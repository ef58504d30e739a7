#include "server/keyring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keys/cpix.h"
#include "obs/log.h"
#include "server/key_server.h"

enum { KEYS_MEMORY = 512 << 20, SECRET_BYTES = 32 };

// Reads a whole file of at most `cap` bytes into memory for secrets. False with errno set.
static bool read_secret(struct secret_alloc *mem, struct bytes *out, const char *path, size_t cap) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0)
    return false;
  uint8_t *buf = NULL;
  size_t n = 0;
  bool ok = false;
  if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
    errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
  } else if ((uint64_t)st.st_size > cap) {
    errno = EFBIG;
  } else if (!(buf = mem->base.get(&mem->base, (size_t)st.st_size + 1))) {
    errno = ENOMEM;
  } else {
    ssize_t got = 0;
    while (n < (size_t)st.st_size && (got = read(fd, buf + n, (size_t)st.st_size - n)) > 0)
      n += (size_t)got;
    ok = got >= 0;
  }
  int why = errno;
  close(fd);
  errno = why;
  *out = bytes_of(buf, n);
  return ok;
}

// The secret is written beside its name, synced and then linked to it: it is there whole or not at all, and two
// servers that start at once end with one secret.
static bool create_secret(const char *dir, const char *path, struct config_error *error) {
  uint8_t secret[SECRET_BYTES];
  char fresh[4096];
  if (mkdir(dir, 0700) && errno != EEXIST)
    return config_fail(error, "%s: cannot make the state folder: %s", dir, strerror(errno));
  if ((size_t)snprintf(fresh, sizeof fresh, "%s.%ld", path, (long)getpid()) >= sizeof fresh)
    return config_fail(error, "%s: the path is too long", dir);
  int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    return config_fail(error, "%s: cannot create the secret: %s", fresh, strerror(errno));
  bool ok = getrandom(secret, sizeof secret, 0) == (ssize_t)sizeof secret;
  ok = ok && write(fd, secret, sizeof secret) == (ssize_t)sizeof secret && !fsync(fd);
  explicit_bzero(secret, sizeof secret);
  close(fd);
  if (ok && link(fresh, path) && errno != EEXIST)
    ok = false;
  int why = errno;
  unlink(fresh);
  int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir_fd >= 0) {
    (void)fsync(dir_fd);
    close(dir_fd);
  }
  if (!ok)
    return config_fail(error, "%s: cannot write the secret: %s", path, strerror(why));
  log_line(LOG_WARN, "created a new derivation secret: %s (mode 0600). All content keys come from it: back it up; "
                     "without it nothing that was protected can be played", path);
  return true;
}

static bool give_secret(struct keyring *k, const struct config *c, bool create, struct config_error *error) {
  char path[4096];
  struct bytes name = k->info.secret_file, secret;
  struct diag diag = {0};
  bool own = name.n == 0;
  if (own) {
    snprintf(path, sizeof path, "%s/derive.secret", c->state_dir);
  } else if (name.p[0] == '/') {
    snprintf(path, sizeof path, "%.*s", (int)name.n, (const char *)name.p);
  } else { // relative to the keys file
    const char *slash = strrchr(c->keys, '/');
    snprintf(path, sizeof path, "%.*s%.*s", slash ? (int)(slash + 1 - c->keys) : 0, c->keys, (int)name.n, (const char *)name.p);
  }
  k->secret_path = strdup(path);
  bool ok = read_secret(&k->mem, &secret, path, KEYS_MAX_SECRET);
  if (!ok && own && errno == ENOENT) {
    if (!create)
      return true; // --check: it would be made
    if (!create_secret(c->state_dir, path, error))
      return false;
    ok = read_secret(&k->mem, &secret, path, KEYS_MAX_SECRET);
  }
  if (!ok)
    return config_fail(error, "%s: cannot read the derivation secret: %s", path, strerror(errno));
  if (keys_set_secret(k->set, secret, &diag)) {
    char why[256];
    diag_format(&diag, why, sizeof why);
    return config_fail(error, "%s: %s", path, why);
  }
  return true;
}

static bool copy_public_url(struct keyring *k, const char *url) {
  size_t n = strlen(url);
  if (n == 0)
    return true;
  k->public_url = strndup(url, n - (url[n - 1] == '/'));
  return k->public_url != NULL;
}

static void note_file(void *ctx, const char *path) {
  struct keyring *k = ctx;
  char **more = realloc(k->files, (k->num_files + 1) * sizeof *more);
  if (!more)
    return;
  k->files = more;
  k->files[k->num_files] = strdup(path);
  k->num_files += k->files[k->num_files] != NULL;
}

static bool import_cpix(struct keyring *k, const struct key_remote *r, const char *folder, struct config_error *error) {
  char path[KEY_PATH_MAX], why[256];
  struct bytes doc;
  struct diag diag = {0};
  if (!key_file_path(path, folder, r->file))
    return config_fail(error, "providers: a file's path is too long");
  note_file(k, path);
  if (!read_secret(&k->mem, &doc, path, CPIX_MAX_DOC))
    return config_fail(error, "providers: %s: %s", path, strerror(errno));
  enum err e = keys_add_cpix(k->set, &k->mem.base, doc, r->epoch, r->scheme, &diag);
  explicit_bzero((void *)(uintptr_t)doc.p, doc.n);
  diag_format(&diag, why, sizeof why);
  return !e || config_fail(error, "providers: %s: %s", path, why);
}

static bool is_address(const char *host) {
  struct in6_addr a;
  return inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1;
}

static bool load_providers(struct keyring *k, const struct config *c, struct config_error *error) {
  const struct key_remote *r = keys_remotes(k->set, &k->num_servers);
  const char *slash = strrchr(c->keys, '/');
  char folder[4096];
  snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash + 1 - c->keys) : 0, c->keys);
  k->servers = calloc(k->num_servers + 1, sizeof(struct key_server *));
  if (!k->servers)
    return config_fail(error, "out of memory");
  for (uint32_t i = 0; i < k->num_servers; i++) {
    if (!r[i].provider && !import_cpix(k, &r[i], folder, error))
      return false;
    if (r[i].provider && !(k->servers[i] = key_server_new(&r[i], folder, note_file, k, error)))
      return false;
    k->asks_names |= k->servers[i] && !is_address(k->servers[i]->host);
  }
  return true;
}

bool keyring_remote(const struct keyring *k) {
  for (uint32_t i = 0; i < k->num_servers; i++)
    if (k->servers[i])
      return true;
  return false;
}

struct key_server *keyring_server(const struct keyring *k, const struct key_remote *r) {
  uint32_t num;
  return k->servers[r - keys_remotes(k->set, &num)];
}

struct keyring *keyring_load(const struct config *c, bool create, struct config_error *error) {
  struct keyring *k = calloc(1, sizeof *k);
  struct bytes text = {0};
  struct diag diag = {0};
  if (!k) {
    config_fail(error, "out of memory");
    return NULL;
  }
  atomic_store(&k->refs, 1);
  secret_alloc_init(&k->mem, KEYS_MEMORY);
  k->insecure = c->insecure_clearkey;
  k->inband_pssh = c->inband_pssh;
  bool ok = copy_public_url(k, c->public_url) || config_fail(error, "out of memory");
  if (ok && *c->keys && !read_secret(&k->mem, &text, c->keys, KEYS_MAX_FILE))
    ok = config_fail(error, "%s: %s", c->keys, strerror(errno));
  if (ok && keys_parse(&k->mem.base, &k->set, &k->info, text, &diag)) {
    char why[256];
    diag_format(&diag, why, sizeof why);
    ok = config_fail(error, "%s: %s", *c->keys ? c->keys : "keys", why);
  }
  ok = ok && load_providers(k, c, error);
  if (ok && k->info.derive)
    ok = give_secret(k, c, create, error);
  if (ok && k->mem.unlocked)
    log_line(LOG_WARN, "key memory could not be locked (RLIMIT_MEMLOCK); it may be swapped out");
  if (ok)
    return k;
  keyring_put(k);
  return NULL;
}

struct keyring *keyring_ref(struct keyring *k) {
  atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
  return k;
}

void keyring_put(struct keyring *k) {
  if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
    return;
  for (uint32_t i = 0; k->servers && i < k->num_servers; i++)
    key_server_drop(k->servers[i]);
  for (unsigned i = 0; i < k->num_files; i++)
    free(k->files[i]);
  free(k->files);
  free(k->servers);
  keyset_wipe(k->set);
  secret_alloc_free(&k->mem);
  free(k->public_url);
  free(k->secret_path);
  free(k);
}

void keyring_drm(struct drm_settings *out, char la_url[KEYRING_URL_MAX], const struct keyring *k, const char *own_url,
                 struct bytes asset) {
  *out = *keys_drm(k->set, asset);
  out->identity = k->insecure;
  if (k->insecure) {
    int n = snprintf(la_url, KEYRING_URL_MAX, "%s/{asset}/{scheme}/{epoch}/license", k->public_url ? k->public_url : own_url);
    out->systems |= drm_bit(DRM_CLEARKEY);
    if (out->clearkey.la_url.n == 0 && n > 0 && n < KEYRING_URL_MAX)
      out->clearkey.la_url = bytes_of(la_url, (size_t)n);
  }
  if (k->inband_pssh)
    out->in_band |= out->systems;
}
