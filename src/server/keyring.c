#include "server/keyring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "keys/cpix.h"
#include "keys/wrap.h"
#include "obs/log.h"
#include "obs/told.h"
#include "server/key_server.h"
#include "server/secret_file.h"

enum { KEYS_MEMORY = 512 << 20, SECRET_BYTES = 32, TOKEN_MIN = 16, TOKEN_MAX = 512 };

// Reads a file into the keyring, and its bytes into the digest of all that were read.
static bool read_in(struct keyring *k, struct bytes *out, const char *path, size_t cap) {
  if (!secret_read(&k->mem, out, path, cap))
    return false;
  keys_digest_more(k->digest, *out);
  return true;
}

// As ssh says of its keys. Groups may be meant.
static void warn_readable(const char *path) {
  struct stat st;
  if (!stat(path, &st) && S_ISREG(st.st_mode) && st.st_mode & (S_IROTH | S_IWOTH))
    log_line(LOG_WARN, "%s: everybody on this machine can %s it (mode %04o): chmod 600", path, st.st_mode & S_IROTH ? "read" : "write",
             (unsigned)st.st_mode & 07777);
  // Who may put another file there chooses what it says: a secret that somebody else knows.
  if (!stat(path, &st) && S_ISREG(st.st_mode) && st.st_uid != 0 && st.st_uid != geteuid())
    log_line(LOG_WARN, "%s: it belongs to another user (%u), who may change what it says", path, (unsigned)st.st_uid);
  char *folder = path_folder_text(bytes_str(path));
  if (folder && !stat(folder, &st) && st.st_mode & S_IWOTH && !(st.st_mode & S_ISVTX))
    log_line(LOG_WARN, "%s: everybody on this machine can put files there, such as another %s (mode %04o): chmod o-w", folder, path,
             (unsigned)st.st_mode & 07777);
  free(folder);
}

// Two servers that start at once end with one secret.
static bool create_secret(const char *dir, const char *path, struct config_error *error) {
  uint8_t secret[SECRET_BYTES];
  char *left = NULL;
  if (!folder_make(dir))
    return config_fail(error, "%s: cannot make the state folder: %s", TOLD(dir), strerror(errno));
  bool made = getrandom(secret, sizeof secret, 0) == (ssize_t)sizeof secret &&
              secret_write(path, bytes_of(secret, sizeof secret), true, &left) != SECRET_FAILED; // synced by the caller
  int why = errno;
  explicit_bzero(secret, sizeof secret);
  if (left)
    log_line(LOG_WARN, "%s: a copy of the secret, or a part of it, stays in this file and cannot be removed: remove it", left);
  free(left);
  if (!made)
    return why == EEXIST || config_fail(error, "%s: cannot write the secret: %s", TOLD(path), strerror(why));
  log_line(LOG_WARN, "created a new derivation secret: %s (mode 0600). All content keys come from it: back it up; "
                     "without it nothing that was protected can be played", path);
  return true;
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

// The folder of the keys file, "" or with a slash at its end: names in the file start there.
static void folder_of_keys(char out[KEY_PATH_MAX], const struct config *c) {
  const char *slash = strrchr(c->keys, '/');
  snprintf(out, KEY_PATH_MAX, "%.*s", slash ? (int)(slash + 1 - c->keys) : 0, c->keys);
}

static bool beside_keys(char out[KEY_PATH_MAX], const struct config *c, struct bytes name) {
  char folder[KEY_PATH_MAX];
  folder_of_keys(folder, c);
  return key_file_path(out, folder, name);
}

// A wrapped secret is unwrapped with the KEK, into memory for secrets.
static bool unwrap(struct keyring *k, const struct config *c, const char *path, struct bytes *secret, struct config_error *error) {
  char kek_path[KEY_PATH_MAX], why[256];
  struct bytes text, name = k->info.kek_file;
  struct diag diag = {0};
  uint8_t *kek = k->mem.base.get(&k->mem.base, KEK_BYTES), *out = k->mem.base.get(&k->mem.base, KEYS_MAX_SECRET);
  size_t n = 0;
  if (secret_is_wrapped(*secret) && !name.n)
    return config_fail(error, "%s: the master secret is wrapped: derive.kek_file must name the key encryption key", path);
  if (!name.n)
    return true;
  if (!secret_is_wrapped(*secret))
    return config_fail(error, "%s: the master secret is not wrapped, but derive.kek_file is given: `sluice keys rewrap` wraps it", path);
  if (!kek || !out || !beside_keys(kek_path, c, name))
    return config_fail(error, "derive.kek_file: the path is too long");
  note_file(k, kek_path);
  if (!read_in(k, &text, kek_path, KEK_MAX_FILE))
    return config_fail(error, "%s: cannot read the key encryption key: %s", TOLD(kek_path), secret_why(errno));
  warn_readable(kek_path);
  enum err e = kek_read(kek, text, &diag);
  if (e) {
    diag_format(&diag, why, sizeof why);
    return config_fail(error, "%s: %s", kek_path, why);
  }
  e = secret_unwrap(out, &n, *secret, kek, &diag);
  explicit_bzero(kek, KEK_BYTES);
  explicit_bzero((void *)(uintptr_t)text.p, text.n);
  diag_format(&diag, why, sizeof why);
  *secret = bytes_of(out, n);
  return !e || config_fail(error, "%s: %s", path, why);
}

static bool give_secret(struct keyring *k, const struct config *c, enum keyring_lacking lacking, struct config_error *error) {
  char path[KEY_PATH_MAX];
  struct bytes secret;
  struct diag diag = {0};
  bool own = keyring_own_secret(k);
  if (own)
    snprintf(path, sizeof path, "%s/" STATE_SECRET, c->state_dir);
  else if (!beside_keys(path, c, k->info.secret_file))
    return config_fail(error, "derive.secret_file: the path is too long");
  k->secret_path = strdup(path);
  bool ok = read_in(k, &secret, path, WRAPPED_MAX_FILE);
  if (!ok && own && errno == ENOENT) {
    if (lacking == LACKING_IGNORED)
      return true;
    if (lacking == LACKING_REFUSED) // as where the disk is not mounted for a while
      return config_fail(error, "%s: the secret that keys in force come from is not there: put it back, for every key of a new one is another", TOLD(path));
    if (k->info.kek_file.n)
      return config_fail(error, "%s: there is no secret yet, and derive.kek_file wants a wrapped one: start once without it, or "
                                "make one with `sluice keys rewrap`", path);
    if (!create_secret(c->state_dir, path, error))
      return false;
    ok = read_in(k, &secret, path, WRAPPED_MAX_FILE);
  }
  if (!ok)
    return config_fail(error, "%s: cannot read the derivation secret: %s", TOLD(path), secret_why(errno));
  // Who made it may have been killed before this. What is read-only, or knows no such thing, has nothing to sync.
  if (own && lacking == LACKING_MADE && !folder_sync(c->state_dir) && errno != EINVAL && errno != EROFS)
    return config_fail(error, "%s: cannot sync the state folder: %s", TOLD(c->state_dir), strerror(errno));
  if (!secret_is_wrapped(secret))
    warn_readable(path);
  if (!unwrap(k, c, path, &secret, error))
    return false;
  enum err e = keys_set_secret(k->set, secret, &diag);
  explicit_bzero((void *)(uintptr_t)secret.p, secret.n); // the set keeps what it extracted
  if (e) {
    char why[256];
    diag_format(&diag, why, sizeof why);
    return config_fail(error, "%s: %s", path, why);
  }
  return true;
}

// Who reaches the admin listener may rotate and revoke, and without a token that is everybody.
static void warn_open_admin(const struct config *c) {
  for (unsigned i = 0; i < c->admin.num; i++) {
    const char *host = c->admin.a[i].host; // numeric, or the start is refused
    if (strncmp(host, "127.", 4) != 0 && strcmp(host, "::1") != 0)
      log_line(LOG_WARN, "admin: %s can be reached from other machines, and without admin_token_file whoever reaches it may rotate and revoke keys",
               c->admin.a[i].text);
  }
}

// What a client reads depends on its own version, not on the header's: docs/drm/playready.md.
static void warn_wide_iv(const struct keyring *k, const struct config *c) {
  unsigned schemes = c->schemes;
  for (unsigned i = 0; i < c->assets.num; i++)
    schemes |= c->assets.a[i].schemes;
  if (c->cenc_iv_size == CENC_IV_16 && (schemes & 1u << SCHEME_CENC) && keys_signal(k->set, SCHEME_CENC, DRM_PLAYREADY))
    log_line(LOG_WARN, "cenc_iv_size: 16: PlayReady is signalled for cenc, and its clients before version 4.0 cannot play this: leave it at 8 "
                       "where there may be any");
}

// The admin listener's token: printable text of 16 bytes at least, without the line end.
static bool give_token(struct keyring *k, const struct config *c, struct config_error *error) {
  if (!*c->admin_token_file) {
    warn_open_admin(c);
    return true;
  }
  note_file(k, c->admin_token_file);
  if (!read_in(k, &k->token, c->admin_token_file, TOKEN_MAX + 2))
    return config_fail(error, "admin_token_file: %s: %s", TOLD(c->admin_token_file), secret_why(errno));
  warn_readable(c->admin_token_file);
  while (k->token.n && (k->token.p[k->token.n - 1] == '\n' || k->token.p[k->token.n - 1] == '\r'))
    k->token.n--;
  bool ok = k->token.n >= TOKEN_MIN && k->token.n <= TOKEN_MAX;
  for (size_t i = 0; i < k->token.n; i++)
    ok = ok && k->token.p[i] > ' ' && k->token.p[i] < 0x7f;
  return ok || config_fail(error, "admin_token_file: %s: a token is %d to %d printable characters without blanks",
                           c->admin_token_file, TOKEN_MIN, TOKEN_MAX);
}

static bool copy_public_url(struct keyring *k, const char *url) {
  size_t n = strlen(url);
  if (n == 0)
    return true;
  k->public_url = strndup(url, n - (url[n - 1] == '/'));
  return k->public_url != NULL;
}

static bool import_cpix(struct keyring *k, const struct key_remote *r, const char *folder, struct config_error *error) {
  char path[KEY_PATH_MAX], why[256];
  struct bytes doc;
  struct diag diag = {0};
  if (!key_file_path(path, folder, r->file))
    return config_fail(error, "providers: a file's path is too long");
  note_file(k, path);
  if (!read_in(k, &doc, path, CPIX_MAX_DOC))
    return config_fail(error, "providers: %s: %s", TOLD(path), secret_why(errno));
  enum err e = keys_add_cpix(k->set, &k->mem.base, doc, r->epoch, r->scheme, &diag);
  explicit_bzero((void *)(uintptr_t)doc.p, doc.n);
  diag_format(&diag, why, sizeof why);
  if (!e)
    warn_readable(path);
  return !e || config_fail(error, "providers: %s: %s", path, why);
}

static bool is_address(const char *host) {
  struct in6_addr a;
  return inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1;
}

// Where in which keys file the entry is that cannot be used.
static bool blame(struct config_error *error, const struct config *c, const struct key_remote *r) {
  struct config_error what = *error;
  return config_fail(error, "%s: line %zu: %s", c->keys, r->line, what.text);
}

static bool load_providers(struct keyring *k, const struct config *c, struct config_error *error) {
  const struct key_remote *r = keys_remotes(k->set, &k->num_servers);
  char folder[KEY_PATH_MAX];
  folder_of_keys(folder, c);
  k->servers = calloc(k->num_servers + 1, sizeof(struct key_server *));
  if (!k->servers)
    return config_fail(error, "out of memory");
  for (uint32_t i = 0; i < k->num_servers; i++) {
    if (!r[i].provider && !import_cpix(k, &r[i], folder, error))
      return blame(error, c, &r[i]);
    if (r[i].provider && !(k->servers[i] = key_server_new(&r[i], folder, note_file, k, error)))
      return blame(error, c, &r[i]);
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

bool keyring_same(const struct keyring *a, const struct keyring *b) {
  return !keyring_remote(a) && !keyring_remote(b) && !memcmp(a->digest, b->digest, sizeof a->digest);
}

struct key_server *keyring_server(const struct keyring *k, const struct key_remote *r) {
  uint32_t num;
  return k->servers[r - keys_remotes(k->set, &num)];
}

bool keyring_own_secret(const struct keyring *k) { return k->info.derive && !k->info.secret_file.n; }

struct keyring *keyring_reload(const struct config *c, const struct keyring *before, enum keyring_lacking lacking, struct config_error *error) {
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
  if (ok && *c->keys && !read_in(k, &text, c->keys, KEYS_MAX_FILE))
    ok = config_fail(error, "%s: %s", TOLD(c->keys), secret_why(errno));
  k->given = !text_blank(text);
  if (ok && *c->keys && !k->given && before && before->given)
    ok = config_fail(error, "%s: the file is empty now, and every key would be another: put it back, or write `derive: {}` into it", TOLD(c->keys));
  if (ok && keys_parse(&k->mem.base, &k->set, &k->info, text, &diag)) {
    char why[256];
    diag_format(&diag, why, sizeof why);
    ok = config_fail(error, "%s: %s", *c->keys ? c->keys : "keys", why);
  }
  if (ok && k->info.num_records)
    warn_readable(c->keys);
  ok = ok && load_providers(k, c, error);
  if (ok && k->info.derive)
    ok = give_secret(k, c, lacking, error);
  ok = ok && give_token(k, c, error);
  if (ok)
    warn_wide_iv(k, c);
  if (ok && k->mem.unlocked)
    log_line(LOG_WARN, "key memory could not be locked (RLIMIT_MEMLOCK); it may be swapped out");
  if (ok)
    return k;
  keyring_put(k);
  return NULL;
}

struct keyring *keyring_load(const struct config *c, enum keyring_lacking lacking, struct config_error *error) {
  return keyring_reload(c, NULL, lacking, error);
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
