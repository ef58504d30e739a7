// Fetches paths one after another over one client: fetch BACKEND HOST PORT CA PATH…
// CA: a file, "system", "none" (believe anybody), "plain" (no TLS); then, each optional, cert=FILE key=FILE, and bounds
// connect=, tls=, first=, total= in ms, max= bytes, body=BYTES to post. One line a path: end status body_len reused why.
#include "net/http_client.h"
#include "net/resolve.h"
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const ends[] = {"ok", "connect", "tls", "timeout", "cut", "bad", "limit", "stopped"};

struct fetch {
  struct resolve q;
  struct http_client c;
  struct http_client_target target;
  struct timers timers;
  char head[512];
  uint8_t *post;
  size_t post_len;
  char **paths;
  int num, at;
  uint64_t hash;
};

static void next(struct fetch *f) {
  if (f->at == f->num)
    return;
  int n = snprintf(f->head, sizeof f->head, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\n\r\n", f->post_len ? "POST" : "GET",
                   f->paths[f->at], f->q.host, f->post_len);
  f->hash = 5381;
  http_client_send(&f->c, &f->target, bytes_of(f->head, (size_t)n), bytes_of(f->post, f->post_len), false);
}

static bool on_body(struct http_response *r, struct bytes piece) {
  struct fetch *f = r->owner;
  for (size_t i = 0; i < piece.n; i++)
    f->hash = f->hash * 33 + piece.p[i];
  return true;
}

static void on_done(struct http_client *c, const struct http_client_result *r) {
  struct fetch *f = c->owner;
  printf("%s %u %llu %d %016llx %s\n", ends[r->end], r->status, (unsigned long long)c->response.body_len, r->reused,
         (unsigned long long)f->hash, r->why);
  f->at++;
  next(f);
}

static void on_resolved(struct resolve *q) {
  struct fetch *f = (struct fetch *)(void *)q;
  if (q->error) {
    printf("resolve 0 0 0 0 %s\n", gai_strerror(q->error));
    f->at = f->num;
    return;
  }
  f->target.addr = &q->addr[0].u.any;
  f->target.addr_len = q->addr[0].len;
  next(f);
}

static bool option(char *arg, const char *name, char **value) {
  size_t n = strlen(name);
  if (strncmp(arg, name, n) != 0)
    return false;
  *value = arg + n;
  return true;
}

int main(int argc, char **argv) {
  static struct fetch f;
  static uint8_t plain[TLS_RECORD], sealed[TLS_FLIGHT];
  char why[256] = "";
  if (argc < 6)
    return 2;
  struct io *io = io_new(argv[1], &(struct io_options){0}, why, sizeof why);
  struct tls_client_files files = {.ca = !strcmp(argv[4], "system") ? NULL : argv[4], .no_verify = !strcmp(argv[4], "none")};
  int i = 5;
  char *v;
  f.c.response.max_body = 0;
  uint64_t max = 0;
  for (; i < argc && argv[i][0] != '/'; i++) {
    if (option(argv[i], "cert=", &v))
      files.cert = v;
    else if (option(argv[i], "key=", &v))
      files.key = v;
    else if (option(argv[i], "connect=", &v))
      f.target.times.connect_ms = (uint32_t)strtoul(v, NULL, 10);
    else if (option(argv[i], "tls=", &v))
      f.target.times.tls_ms = (uint32_t)strtoul(v, NULL, 10);
    else if (option(argv[i], "first=", &v))
      f.target.times.first_byte_ms = (uint32_t)strtoul(v, NULL, 10);
    else if (option(argv[i], "total=", &v))
      f.target.times.total_ms = (uint32_t)strtoul(v, NULL, 10);
    else if (option(argv[i], "max=", &v))
      max = strtoul(v, NULL, 10);
    else if (option(argv[i], "body=", &v))
      f.post_len = strtoul(v, NULL, 10);
  }
  f.post = calloc(1, f.post_len + 1);
  if (io && strcmp(argv[4], "plain") != 0 && !(f.target.tls = tls_set_client(&files, why, sizeof why)))
    io_free(io), io = NULL;
  if (!io) {
    printf("setup 0 0 0 0 %s\n", why);
    free(f.post);
    return 1;
  }
  f.target.host = argv[2];
  f.paths = argv + i;
  f.num = argc - i;
  timers_init(&f.timers, io->v->now_ns(io) / 1000000);
  struct http_client_net net = {.io = io, .timers = &f.timers, .plain = plain, .sealed = sealed, .wipe = true};
  http_client_init(&f.c, &net, on_done, &f);
  f.c.response.owner = &f;
  f.c.response.body = on_body;
  f.c.response.max_body = max;
  f.q = (struct resolve){.host = argv[2], .port = (uint16_t)strtoul(argv[3], NULL, 10), .done = on_resolved};
  struct resolver *resolver = resolver_new(io);
  resolver_ask(resolver, &f.q);
  while (f.at < f.num && io->v->wait(io, 20000000) && io->v->run(io)) {
    resolver_run(resolver);
    timers_run(&f.timers, io->v->now_ns(io) / 1000000, NULL);
  }
  http_client_close(&f.c);
  for (int turns = 0; turns < 100 && !http_client_idle(&f.c); turns++)
    (void)(io->v->wait(io, 10000000) && io->v->run(io));
  printf("idle %d\n", http_client_idle(&f.c));
  tls_set_free(f.target.tls);
  resolver_free(resolver);
  io_free(io);
  free(f.post);
  return 0;
}
