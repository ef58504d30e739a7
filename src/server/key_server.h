// One key server as configured: address, what it is believed by, what we prove ourselves with, bounds. Made from the keys
// file and the files that it names; immutable but for what the exchange keeps in `run`.
#pragma once
#include "net/http_client.h"
#include "server/key_cache.h"
#include "server/keyring.h"

struct key_server {
  _Atomic uint32_t refs;
  const struct key_provider *provider;
  uint64_t id;           // of kind and URL: a reload that changes nothing else keeps the keys
  char *host, *path, *name; // path with query; name: "https://host:port/path" without query, for the log
  uint16_t port;
  bool host_is_v6;
  struct tls_set *tls;   // NULL: http
  struct secret_alloc mem;
  struct bytes authorization; // "Authorization: …\r\n", or empty; in `mem`
  struct http_client_times times;
  struct key_times keys;
  uint64_t retry_ms, retry_max_ms, negative_ms;
  uint32_t attempts, connections;
  struct upstream *run;  // the exchange's, under its lock
};

// key_server_new reads the files that `r` names, relative to `folder`. `file` is called with each path, for the sandbox.
// NULL and the error.
struct key_server *key_server_new(const struct key_remote *r, const char *folder, void (*file)(void *ctx, const char *path),
                                  void *ctx, struct config_error *error);
// key_file_path joins a name of the keys file with that file's folder ("" or ending in a slash). False: too long.
enum { KEY_PATH_MAX = 4096 };
bool key_file_path(char out[KEY_PATH_MAX], const char *folder, struct bytes name);

struct key_server *key_server_hold(struct key_server *s);
void key_server_drop(struct key_server *s); // NULL is a no-op
