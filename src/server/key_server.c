#include "server/key_server.h"

#include <errno.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/text.h"
#include "base/url.h"
#include "obs/log.h"
#include "obs/told.h"
#include "server/secret_file.h"

enum { CREDENTIAL_MAX = 4096 };

bool key_file_path(char out[KEY_PATH_MAX], const char *folder, struct bytes name) {
  struct writer w = wr_of(out, KEY_PATH_MAX - 1);
  if (!name.n || name.p[0] != '/')
    wr_str(&w, folder);
  wr_bytes(&w, name);
  out[wr_ok(&w) ? w.n : 0] = 0;
  return wr_ok(&w);
}

static bool url_fail(enum url_fault fault, struct bytes url, struct config_error *error) {
  int n = (int)(url.n < 80 ? url.n : 80);
  const char *text = (const char *)url.p;
  switch (fault) {
  case URL_LONG: return config_fail(error, "providers: url: more than %d bytes", URL_MAX);
  case URL_USER: return config_fail(error, "providers: url: it has a user or a password: these stand in a file that basic_file or bearer_file names");
  case URL_BYTES: return config_fail(error, "providers: url: '%.*s' is not a URL: write what is not ASCII as %%XX", n, text);
  case URL_SCHEME: return config_fail(error, "providers: url: '%.*s' is neither https:// nor http://", n, text);
  case URL_HOST:
  case URL_GOOD: break;
  }
  return config_fail(error, "providers: url: '%.*s' is not https://HOST[:PORT]/PATH", n, text);
}

static bool read_url(struct key_server *s, struct bytes text, bool *tls, struct config_error *error) {
  struct url u;
  enum url_fault fault = url_read(&u, text);
  if (fault)
    return url_fail(fault, text, error);
  *tls = u.https;
  s->port = u.port;
  s->host_is_v6 = u.v6;
  s->host = strndup((const char *)u.host.p, u.host.n);
  const char *slash = u.path.n && u.path.p[0] == '/' ? "" : "/";
  bool ok = s->host && asprintf(&s->path, "%s%.*s", slash, (int)u.path.n, (const char *)u.path.p) >= 0;
  ok = ok && asprintf(&s->name, "%s%s%s%s:%u%.*s", u.https ? "https://" : "http://", u.v6 ? "[" : "", s->host, u.v6 ? "]" : "", s->port,
                      (int)strcspn(s->path, "?"), s->path) >= 0;
  return ok || config_fail(error, "out of memory");
}

struct reading {
  const char *folder;
  void (*file)(void *ctx, const char *path);
  void *ctx;
};

static const char *resolve_path(char out[KEY_PATH_MAX], const struct reading *r, struct bytes name) {
  if (!name.n)
    return NULL;
  if (!key_file_path(out, r->folder, name))
    return "";
  r->file(r->ctx, out);
  return out;
}

// Reads a credential: one line, its end cut off.
static bool read_credential(struct bytes *out, struct secret_alloc *mem, const char *path, struct config_error *error) {
  struct bytes text = {0};
  bool read = secret_read(mem, &text, path, CREDENTIAL_MAX + 2);
  if (!read && errno != EFBIG)
    return config_fail(error, "providers: %s: %s", TOLD(path), secret_why(errno));
  const uint8_t *buf = text.p;
  size_t n = text.n;
  while (n && (buf[n - 1] == '\n' || buf[n - 1] == '\r'))
    n--;
  for (size_t i = 0; i < n; i++)
    if (buf[i] < 0x20 || buf[i] == 0x7f)
      return config_fail(error, "providers: %s: one line of printable characters is expected", path);
  if (!read || !n || n > CREDENTIAL_MAX)
    return config_fail(error, "providers: %s: 1 to %d bytes are expected", path, CREDENTIAL_MAX);
  *out = bytes_of(buf, n);
  return true;
}

static bool read_authorization(struct key_server *s, const struct key_remote *r, const struct reading *from, struct config_error *error) {
  char path[KEY_PATH_MAX];
  struct bytes secret;
  bool bearer = r->bearer_file.n != 0;
  if (!bearer && !r->basic_file.n)
    return true;
  if (!read_credential(&secret, &s->mem, resolve_path(path, from, bearer ? r->bearer_file : r->basic_file), error))
    return false;
  if (!bearer && !memchr(secret.p, ':', secret.n))
    return config_fail(error, "providers: %s: USER:PASSWORD is expected", path);
  size_t cap = 2 * CREDENTIAL_MAX;
  uint8_t *line = s->mem.base.get(&s->mem.base, cap);
  if (!line)
    return config_fail(error, "out of memory");
  struct writer w = wr_of(line, cap);
  wr_str(&w, bearer ? "Authorization: Bearer " : "Authorization: Basic ");
  if (bearer)
    wr_bytes(&w, secret);
  else
    base64_write(&w, secret);
  wr_str(&w, "\r\n");
  s->authorization = bytes_of(line, w.n);
  return wr_ok(&w) || config_fail(error, "out of memory");
}

static bool read_tls(struct key_server *s, const struct key_remote *r, bool tls, const struct reading *from, struct config_error *error) {
  char ca[KEY_PATH_MAX], cert[KEY_PATH_MAX], key[KEY_PATH_MAX], why[400];
  if (!tls && (r->ca_file.n || r->client_cert.n))
    return config_fail(error, "providers: %s: ca_file and client_cert are for https://", s->name);
  // SPEKE answers carry keys in the clear inside TLS; without TLS they would be in the clear.
  if (!tls && strcmp(s->provider->name, "json") != 0)
    return config_fail(error, "providers: %s: %s needs https://", s->name, s->provider->name);
  if (!tls) {
    log_line(LOG_WARN, "key server %s: keys travel in the clear: for a network that nobody else reaches", s->name);
    return true;
  }
  struct tls_client_files f = {.ca = resolve_path(ca, from, r->ca_file), .cert = resolve_path(cert, from, r->client_cert),
                               .key = resolve_path(key, from, r->client_key)};
  if (!f.ca && tls_system_ca())
    from->file(from->ctx, tls_system_ca());
  s->tls = tls_set_client(&f, why, sizeof why);
  return s->tls || config_fail(error, "providers: %s: %s", s->name, why);
}

struct key_server *key_server_new(const struct key_remote *r, const char *folder, void (*file)(void *ctx, const char *path),
                                  void *ctx, struct config_error *error) {
  struct key_server *s = calloc(1, sizeof *s);
  struct reading from = {folder, file, ctx};
  bool tls = false;
  if (!s) {
    config_fail(error, "out of memory");
    return NULL;
  }
  atomic_store(&s->refs, 1);
  secret_alloc_init(&s->mem, 64 << 10);
  s->provider = r->provider;
  s->times = (struct http_client_times){(uint32_t)r->connect_ms, (uint32_t)r->tls_ms, (uint32_t)r->answer_ms, (uint32_t)r->total_ms};
  s->keys = (struct key_times){.lifetime = r->lifetime_ms, .refresh = r->refresh_ms, .stale = r->stale_ms};
  s->retry_ms = r->retry_ms;
  s->retry_max_ms = r->retry_max_ms;
  s->negative_ms = r->negative_ms;
  s->attempts = r->attempts;
  s->connections = r->connections;
  s->id = XXH3_64bits_withSeed(r->url.p, r->url.n, XXH3_64bits(r->type.p, r->type.n));
  if (read_url(s, r->url, &tls, error) && read_tls(s, r, tls, &from, error) && read_authorization(s, r, &from, error))
    return s;
  key_server_drop(s);
  return NULL;
}

struct key_server *key_server_hold(struct key_server *s) {
  atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
  return s;
}

void key_server_drop(struct key_server *s) {
  if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
    return;
  tls_set_free(s->tls);
  secret_alloc_free(&s->mem);
  free(s->host);
  free(s->path);
  free(s->name);
  free(s);
}
