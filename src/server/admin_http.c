#include "server/admin_http.h"
#include "net/http.h"
#include "obs/log.h"
#include "server/admin.h"
#include "server/crash.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { ADMIN_IN = 96 << 10, ADMIN_BODY = 64 << 10, ADMIN_OUT = 4 << 20, ADMIN_FDS = 16, ADMIN_TIMEOUT_S = 5, ADMIN_FIRST_MS = 300 };

struct admin {
  struct server *s;
  pthread_t thread;
  bool started;
  int stop_fd;
  unsigned num;
  struct pollfd fds[ADMIN_FDS + 1]; // the last one is stop_fd
  uint16_t ports[ADMIN_FDS];
  uint8_t in[ADMIN_IN];
  uint8_t out[ADMIN_OUT];
};

static time_t seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec;
}

static bool write_all(int fd, const void *p, size_t n, int flags) {
  const uint8_t *at = p;
  time_t end = seconds() + ADMIN_TIMEOUT_S;
  while (n && seconds() <= end) {
    ssize_t r = send(fd, at, n, MSG_NOSIGNAL | flags);
    if (r < 0 && errno == EINTR)
      continue;
    if (r <= 0)
      return false;
    at += r;
    n -= (size_t)r;
  }
  return n == 0;
}

static bool respond(int fd, const struct http_parser *p, const struct admin_response *r) {
  char head[512], date[29];
  struct writer w = wr_of(head, sizeof head);
  bool too_long = !wr_ok(&r->body);
  unsigned status = too_long ? 500 : (unsigned)r->status;
  size_t n = too_long ? 0 : r->body.n;
  http_date(date, (uint64_t)time(NULL));
  wr_fmt(&w, "HTTP/1.1 %u %s\r\nServer: sluice\r\nDate: %.29s\r\nCache-Control: no-store\r\nContent-Type: %s\r\nContent-Length: %zu\r\n",
         status, http_reason(status), date, r->content_type ? r->content_type : "text/plain", n);
  if (status == 405)
    wr_fmt(&w, "Allow: %s\r\n", r->allow);
  wr_fmt(&w, "%s%s\r\n", status == 503 ? "Retry-After: 1\r\n" : status == 401 ? "WWW-Authenticate: Bearer\r\n" : "", p->keep_alive && !p->fail ? "" : "Connection: close\r\n");
  // One packet: a body on its own would wait for the head's acknowledgement, which clients delay.
  bool body = n && p->method != HTTP_M_HEAD;
  return write_all(fd, head, w.n, body ? MSG_MORE : 0) && (!body || write_all(fd, r->body.p, n, 0));
}

static void handle(struct admin *a, struct admin_response *r, const struct http_parser *p) {
  static const char *const names[] = {[HTTP_M_GET] = "GET", [HTTP_M_HEAD] = "GET", [HTTP_M_POST] = "POST", [HTTP_M_OPTIONS] = "", [HTTP_M_KNOWN] = ""};
  struct bytes target = http_text(a->in, p->url), query = {0};
  const uint8_t *mark = memchr(target.p, '?', target.n);
  if (mark) {
    query = bytes_of(mark + 1, target.n - (size_t)(mark - target.p) - 1);
    target.n = (size_t)(mark - target.p);
  }
  *r = (struct admin_response){.status = 411, .content_type = "text/plain", .body = wr_of(a->out, sizeof a->out)};
  if (p->chunked)
    return;
  // Browsers name the page a POST comes from: no page may rotate keys with an operator's browser.
  if (p->method == HTTP_M_POST && p->seen & 1u << HTTP_H_ORIGIN) {
    r->status = 403;
    return;
  }
  admin_handle(a->s, r, &(struct admin_request){
                            .method = bytes_str(names[p->method]),
                            .path = http_target_path(target),
                            .query = query,
                            .body = bytes_of(a->in + p->body_off, (size_t)p->body_len),
                            .authorization = http_text(a->in, p->header[HTTP_H_AUTHORIZATION]),
                        });
}

// One request, read to its end. false: the connection is over. `*n` bytes stand in a->in, of which `*used` were one request.
static bool one_request(struct admin *a, int fd, size_t *n, size_t *used) {
  struct http_parser p;
  struct admin_response r;
  enum http_parse what = HTTP_PARSE_MORE;
  time_t end = seconds() + ADMIN_TIMEOUT_S; // of all of it: one that trickles must not keep others, or the end, waiting
  http_begin(&p);
  for (;;) {
    if (*n > p.fed)
      what = http_feed(&p, a->in, *n, used);
    if (what == HTTP_PARSE_HEAD && p.body_len > ADMIN_BODY)
      p.fail = 413;
    if (what == HTTP_PARSE_COMPLETE || p.fail)
      break;
    if (what == HTTP_PARSE_HEAD && *n > p.fed) // some of the body came along
      continue;
    ssize_t got = *n < sizeof a->in && seconds() <= end ? recv(fd, a->in + *n, sizeof a->in - *n, 0) : 0;
    if (got <= 0)
      return false;
    *n += (size_t)got;
  }
  if (p.fail) {
    r = (struct admin_response){.status = p.fail, .body = wr_of(a->out, sizeof a->out)};
    (void)respond(fd, &p, &r);
    return false;
  }
  handle(a, &r, &p);
  return respond(fd, &p, &r) && p.keep_alive;
}

// Waits for a request. One that has just connected has a moment for its first byte; after that who is quiet gives way to who
// waits to be accepted.
static bool readable(const struct admin *a, int fd, bool fresh) {
  struct pollfd fds[ADMIN_FDS + 2], *stop = &fds[a->num], *client = stop + 1;
  memcpy(fds, a->fds, (a->num + 1) * sizeof fds[0]);
  *client = (struct pollfd){.fd = fd, .events = POLLIN};
  int r = fresh ? poll(stop, 2, ADMIN_FIRST_MS) : 0;
  if (r == 0)
    r = poll(fds, a->num + 2, ADMIN_TIMEOUT_S * 1000);
  return r > 0 && !stop->revents && client->revents;
}

// Requests that came along in one read are answered in turn; an idle connection is closed as soon as another one waits.
static void serve(struct admin *a, int fd) {
  struct timeval t = {.tv_sec = ADMIN_TIMEOUT_S};
  size_t n = 0, used = 0;
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
  for (bool fresh = true; n || readable(a, fd, fresh); fresh = false) {
    if (!one_request(a, fd, &n, &used))
      return;
    memmove(a->in, a->in + used, n - used);
    n -= used;
    if (n == 0 && poll(a->fds, a->num + 1, 0) > 0)
      return;
  }
}

static void *admin_main(void *arg) {
  struct admin *a = arg;
  crash_thread();
  for (;;) {
    int r = poll(a->fds, a->num + 1, -1);
    if (r < 0 && errno != EINTR)
      return NULL;
    if (a->fds[a->num].revents)
      return NULL;
    for (unsigned i = 0; r > 0 && i < a->num; i++) {
      int fd = a->fds[i].revents ? accept4(a->fds[i].fd, NULL, NULL, SOCK_CLOEXEC) : -1;
      if (fd < 0)
        continue;
      serve(a, fd);
      (void)shutdown(fd, SHUT_WR);
      close(fd);
    }
  }
}

static bool fail(struct config_error *e, const char *name, const char *why) {
  snprintf(e->text, sizeof e->text, "cannot listen on %s: %s", name, why);
  return false;
}

static bool bind_one(struct admin *a, const struct config_addr *addr, struct config_error *e) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
  char port[8], bound[8] = "0";
  int on = 1, v6_only = config_v6_only(a->s->first, addr);
  snprintf(port, sizeof port, "%u", addr->port);
  int r = getaddrinfo(addr->host && addr->host[0] ? addr->host : NULL, port, &hints, &found);
  if (r)
    return fail(e, addr->text, gai_strerror(r));
  int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool ok = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) &&
            (!v6_only || !setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only)) &&
            !bind(fd, found->ai_addr, found->ai_addrlen) && !listen(fd, 64);
  int err = errno;
  freeaddrinfo(found);
  if (fd >= 0)
    a->fds[a->num] = (struct pollfd){.fd = fd, .events = POLLIN};
  a->num += fd >= 0;
  if (!ok)
    return fail(e, addr->text, strerror(err));
  struct sockaddr_storage sa;
  socklen_t len = sizeof sa;
  if (!getsockname(fd, (struct sockaddr *)&sa, &len))
    (void)getnameinfo((struct sockaddr *)&sa, len, NULL, 0, bound, sizeof bound, NI_NUMERICSERV);
  a->ports[a->num - 1] = (uint16_t)strtoul(bound, NULL, 10);
  return true;
}

bool admin_listen(struct server *s, struct config_error *e) {
  const struct config_addrs *addrs = &s->first->admin;
  struct admin *a = calloc(1, sizeof *a);
  s->admin = a;
  if (!a)
    return fail(e, "admin", strerror(ENOMEM));
  a->s = s;
  a->stop_fd = eventfd(0, EFD_CLOEXEC);
  bool ok = addrs->num <= ADMIN_FDS || fail(e, "admin", "too many addresses");
  for (unsigned i = 0; ok && i < addrs->num; i++)
    ok = bind_one(a, &addrs->a[i], e);
  a->fds[a->num] = (struct pollfd){.fd = a->stop_fd, .events = POLLIN};
  if (!ok)
    admin_stop(s);
  return ok;
}

bool admin_start(struct server *s, struct config_error *e) {
  struct admin *a = s->admin;
  int r = pthread_create(&a->thread, NULL, admin_main, a);
  a->started = r == 0;
  return a->started || fail(e, "admin", strerror(r));
}

uint16_t admin_port(const struct server *s, unsigned n) { return s->admin->ports[n]; }

void admin_stop(struct server *s) {
  struct admin *a = s->admin;
  if (!a)
    return;
  uint64_t one = 1;
  if (a->started && write(a->stop_fd, &one, sizeof one) == (ssize_t)sizeof one)
    pthread_join(a->thread, NULL);
  for (unsigned i = 0; i < a->num; i++)
    close(a->fds[i].fd);
  close(a->stop_fd);
  free(a);
  s->admin = NULL;
}
