// The admin listener: HTTP for a few clients at once, on a thread of its own, which waits for none of them, nor for a disk:
// orders, which are written to one, have a thread for themselves.
#include "server/admin_http.h"
#include "net/http.h"
#include "net/socket.h"
#include "obs/log.h"
#include "server/admin.h"
#include "server/catalog_int.h"
#include "server/crash.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  ADMIN_IN = 96 << 10,
  ADMIN_BODY = 64 << 10,
  ADMIN_HEAD = 512, // of a response
  ADMIN_CLIENTS = 32,
  ADMIN_ORDERS = 8, // that may wait for one another
  ORDER_OUT = 64 << 10,
  FIRST_FDS = 2,      // of what is polled, before the listeners
  IDLE_MS = 60000,    // between two requests
  REQUEST_MS = 5000,  // for all of a request; for a response, without a byte taken
  LINGER_MS = 1000,   // for the client to read what it was told last
  UNTOUCHED_MS = 300, // before one of ADMIN_CLIENTS gives way to who waits to be accepted
  RETRY_MS = 100,     // after the system could not: accept, for want of descriptors, or poll
};

enum order { NO_ORDER, ORDER_WAITS, ORDER_UNDER_WAY }; // a client with one is left alone until it is answered

struct client {
  int fd; // -1: none
  enum order order;
  uint64_t turn; // its order's place among them
  uint64_t since_ms; // when what it is at began: being idle, its request, the response's last progress, its end
  bool last, ended;  // the response under way ends the connection; it has, and only the client's end is waited for
  bool more;         // the bytes at hand may be another request: its turn comes after the others'
  struct http_parser p;
  uint8_t *in;  // ADMIN_IN bytes, n of them there
  uint8_t *out; // what its socket has not taken yet; NULL: nothing
  size_t n, out_n, out_at;
  size_t used; // bytes of `in` that its order takes
};

enum orders_state { ORDERS_IDLE, ORDERS_GIVEN, ORDERS_DONE, ORDERS_END };

// The thread for orders takes one at a time.
struct orders {
  struct server *s;
  pthread_t thread;
  bool started;
  pthread_mutex_t lock;
  pthread_cond_t given;    // or at an end
  enum orders_state state; // under the lock
  int done_fd;             // an eventfd: ORDERS_DONE
  struct admin_request in;
  struct admin_response out;
  uint8_t body[ORDER_OUT];
};

struct admin {
  struct server *s;
  pthread_t thread;
  bool started;
  int stop_fd;
  bool ending; // nobody is accepted, and no order taken
  unsigned num;
  int fds[CONFIG_MAX_ADMIN];
  uint16_t ports[CONFIG_MAX_ADMIN];
  uint64_t retry_ms; // when to look at the listeners again; they stay readable while nobody can be accepted
  struct client clients[ADMIN_CLIENTS];
  uint64_t turns;
  struct orders orders;
  size_t body_max;
  uint8_t out[]; // ADMIN_HEAD and body_max bytes, of one response; its body comes first, the head in front of it
};

static struct writer body_of(struct admin *a) { return wr_of(a->out + ADMIN_HEAD, a->body_max); }

static bool same_name(struct bytes a, const char *b, size_t n) { return a.n == n && !strncasecmp((const char *)a.p, b, n); }

// A page can have a name of its own lead to this listener and then read what it asks for here: a browser sends that name as Host.
// It cannot send an address, or localhost. Without Host it is no browser.
static bool known_host(const struct config *cfg, struct bytes host) {
  char text[INET_ADDRSTRLEN] = "";
  struct in_addr v4;
  if (!host.n || host.p[0] == '[')
    return true;
  const uint8_t *colon = memchr(host.p, ':', host.n);
  if (colon)
    host.n = (size_t)(colon - host.p);
  if (host.n < sizeof text)
    memcpy(text, host.p, host.n);
  if (same_name(host, "localhost", 9) || inet_pton(AF_INET, text, &v4) == 1)
    return true;
  for (unsigned i = 0; i < cfg->admin.num; i++)
    if (same_name(host, cfg->admin.a[i].host, strlen(cfg->admin.a[i].host)))
      return true;
  const char *name = cfg->admin_hosts;
  for (size_t n; *name; name += n ? n : 1) {
    n = strcspn(name, " ,");
    if (n && same_name(host, name, n))
      return true;
  }
  return false;
}

static struct admin_request request_of(const struct admin *a, const struct client *c) {
  const struct http_parser *p = &c->p;
  static const char *const names[] = {[HTTP_M_GET] = "GET", [HTTP_M_HEAD] = "GET", [HTTP_M_POST] = "POST", [HTTP_M_OPTIONS] = "", [HTTP_M_KNOWN] = ""};
  struct bytes target = http_text(c->in, p->url), query = {0};
  const uint8_t *mark = memchr(target.p, '?', target.n);
  if (mark) {
    query = bytes_of(mark + 1, target.n - (size_t)(mark - target.p) - 1);
    target.n = (size_t)(mark - target.p);
  }
  return (struct admin_request){
      .method = bytes_str(names[p->method]),
      .path = http_target_path(target),
      .query = query,
      .authorization = http_text(c->in, p->header[HTTP_H_AUTHORIZATION]),
      .stranger = !known_host(a->s->first, http_text(c->in, p->header[HTTP_H_HOST])),
  };
}

static unsigned orders_waiting(const struct admin *a) {
  unsigned n = 0;
  for (const struct client *c = a->clients; c < a->clients + ADMIN_CLIENTS; c++)
    n += c->order != NO_ORDER;
  return n;
}

// Answers a whole request, or leaves it to the thread for orders (false).
static bool handle(struct admin *a, struct admin_response *r, struct client *c) {
  struct admin_request in = request_of(a, c);
  *r = (struct admin_response){.status = 403, .content_type = "text/plain", .body = body_of(a)};
  // Browsers name the page a POST comes from: no page may rotate keys with an operator's browser.
  if (c->p.method == HTTP_M_POST && c->p.seen & 1u << HTTP_H_ORIGIN) {
    wr_str(&r->body, "a request with Origin comes from a browser's page: no page may give orders\n");
    return true;
  }
  if (!admin_is_order(&in)) {
    admin_handle(a->s, r, &in);
    return true;
  }
  if (a->ending || orders_waiting(a) == ADMIN_ORDERS) {
    r->status = 503;
    wr_str(&r->body, a->ending ? "this server is ending\n" : "too many orders wait for the disk of state_dir\n");
    return true;
  }
  c->order = ORDER_WAITS;
  c->turn = a->turns++;
  return false;
}

static void drop(struct client *c) {
  close(c->fd);
  explicit_bzero(c->in, ADMIN_IN); // a token may stand there
  free(c->in);
  free(c->out);
  *c = (struct client){.fd = -1};
}

static void begin_request(struct client *c, uint64_t now) {
  http_begin(&c->p);
  c->since_ms = now;
}

// What was to be said is out. A connection that is to end is closed by the client, who would lose the answer otherwise.
static void said(struct client *c, uint64_t now) {
  free(c->out);
  c->out = NULL;
  c->since_ms = now;
  if (!c->last)
    return;
  (void)shutdown(c->fd, SHUT_WR);
  c->ended = true;
  c->n = 0;
}

// How many bytes the socket took; -1: the client is gone.
static ssize_t push(int fd, const uint8_t *p, size_t n) {
  ssize_t r = send(fd, p, n, MSG_NOSIGNAL);
  return r < 0 && (errno == EINTR || errno == EAGAIN) ? 0 : r;
}

static void go_on_sending(struct client *c, uint64_t now) {
  ssize_t took = push(c->fd, c->out + c->out_at, c->out_n - c->out_at);
  if (took < 0) {
    drop(c);
    return;
  }
  c->out_at += (size_t)took;
  if (took)
    c->since_ms = now;
  if (c->out_at == c->out_n)
    said(c, now);
}

// Sends what it can at once and keeps the rest. false: the client was dropped.
static bool respond(struct admin *a, struct client *c, const struct admin_response *r, uint64_t now) {
  char head[ADMIN_HEAD], date[29];
  struct writer w = wr_of(head, sizeof head);
  static const char too_long[] = "the answer is longer than its buffer: this is a fault of sluice\n";
  bool whole = wr_ok(&r->body);
  unsigned status = whole ? (unsigned)r->status : 500;
  size_t n = whole ? r->body.n : sizeof too_long - 1;
  if (!whole)
    memcpy(a->out + ADMIN_HEAD, too_long, n);
  c->last = !c->p.keep_alive || c->p.fail;
  http_date(date, (uint64_t)time(NULL));
  // The second line is for browsers: no other page may frame this one, load what it says as a script or an image, or have it taken for another type.
  wr_fmt(&w, "HTTP/1.1 %u %s\r\nServer: sluice\r\nDate: %.29s\r\nCache-Control: no-store\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
             "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: frame-ancestors 'none'\r\nCross-Origin-Resource-Policy: same-origin\r\n",
         status, http_reason(status), date, whole && r->content_type ? r->content_type : "text/plain", n);
  if (status == 405)
    wr_fmt(&w, "Allow: %s\r\n", r->allow);
  wr_fmt(&w, "%s%s\r\n", status == 503 ? "Retry-After: 1\r\n" : status == 401 ? "WWW-Authenticate: Bearer\r\n" : "", c->last ? "Connection: close\r\n" : "");
  uint8_t *from = a->out + ADMIN_HEAD - w.n;
  memcpy(from, head, w.n);
  n = w.n + (c->p.method == HTTP_M_HEAD ? 0 : n);
  ssize_t took = push(c->fd, from, n);
  if (took == (ssize_t)n) {
    said(c, now);
    return true;
  }
  c->out_n = n - (size_t)(took < 0 ? 0 : took);
  c->out_at = 0;
  c->out = took < 0 ? NULL : malloc(c->out_n);
  if (!c->out) {
    drop(c);
    return false;
  }
  memcpy(c->out, from + took, c->out_n);
  return true;
}

// Answers the request in the first `used` bytes and goes on to the next.
static void answer(struct admin *a, struct client *c, const struct admin_response *r, size_t used, uint64_t now) {
  if (!respond(a, c, r, now) || c->ended)
    return;
  explicit_bzero(c->in, used);
  memmove(c->in, c->in + used, c->n - used);
  c->n -= used;
  c->more = c->n > 0;
  begin_request(c, now);
}

// One request of the bytes at hand, where there is a whole one.
static void one_request(struct admin *a, struct client *c, uint64_t now) {
  enum http_parse what = HTTP_PARSE_MORE;
  size_t used = 0;
  struct admin_response r;
  c->more = false;
  for (;;) {
    if (c->n > c->p.fed)
      what = http_feed(&c->p, c->in, c->n, &used);
    if (what == HTTP_PARSE_HEAD)
      c->p.fail = c->p.chunked ? 411 : c->p.body_len > ADMIN_BODY ? 413 : 0;
    if (what == HTTP_PARSE_COMPLETE || c->p.fail)
      break;
    if (what != HTTP_PARSE_HEAD || c->n <= c->p.fed) // else some of the body came along
      return;
  }
  if (c->p.fail) {
    r = (struct admin_response){.status = c->p.fail, .body = body_of(a)};
    wr_fmt(&r.body, "%u %s\n", c->p.fail, http_reason(c->p.fail));
  } else if (!handle(a, &r, c)) {
    c->used = used;
    return;
  }
  answer(a, c, &r, used, now);
}

static void *orders_main(void *arg) {
  struct orders *o = arg;
  uint64_t due_ms = 0; // when refusals that are not told yet will be, 0: there are none
  crash_thread();
  pthread_mutex_lock(&o->lock);
  for (;;) {
    struct timespec t = {.tv_sec = (time_t)(due_ms / 1000), .tv_nsec = (long)(due_ms % 1000) * 1000000};
    bool due = false;
    while (!due && o->state != ORDERS_GIVEN && o->state != ORDERS_END)
      due = (due_ms ? pthread_cond_timedwait(&o->given, &o->lock, &t) : pthread_cond_wait(&o->given, &o->lock)) == ETIMEDOUT;
    bool given = o->state == ORDERS_GIVEN;
    if (o->state == ORDERS_END)
      break;
    pthread_mutex_unlock(&o->lock);
    if (given) {
      o->out = (struct admin_response){.status = 500, .content_type = "text/plain", .body = wr_of(o->body, sizeof o->body)};
      admin_handle(o->s, &o->out, &o->in);
    }
    due_ms = admin_say_refused(false);
    pthread_mutex_lock(&o->lock);
    if (given && o->state == ORDERS_GIVEN)
      o->state = ORDERS_DONE;
    if (given)
      socket_wake(o->done_fd);
  }
  pthread_mutex_unlock(&o->lock);
  return NULL;
}

static struct client *next_order(struct admin *a) {
  struct client *first = NULL;
  for (struct client *c = a->clients; c < a->clients + ADMIN_CLIENTS; c++)
    if (c->order == ORDER_WAITS && (!first || c->turn < first->turn))
      first = c;
  return first;
}

// Answers the order that is done, if one is, and gives the next.
static void turn_of_orders(struct admin *a, uint64_t now) {
  struct orders *o = &a->orders;
  pthread_mutex_lock(&o->lock);
  enum orders_state state = o->state;
  pthread_mutex_unlock(&o->lock);
  if (state == ORDERS_GIVEN)
    return;
  if (state == ORDERS_DONE) {
    struct client *c = a->clients;
    while (c->order != ORDER_UNDER_WAY)
      c++;
    c->order = NO_ORDER;
    struct admin_response r = o->out;
    if (wr_ok(&o->out.body)) { // else it is answered as what is too long
      r.body = body_of(a);
      wr_raw(&r.body, o->body, o->out.body.n);
    }
    answer(a, c, &r, c->used, now);
  }
  struct client *next = next_order(a);
  if (next) {
    next->order = ORDER_UNDER_WAY;
    o->in = request_of(a, next);
  }
  pthread_mutex_lock(&o->lock);
  o->state = next ? ORDERS_GIVEN : ORDERS_IDLE;
  pthread_cond_signal(&o->given);
  pthread_mutex_unlock(&o->lock);
}

static int orders_start(struct admin *a) {
  struct orders *o = &a->orders;
  o->s = a->s;
  int r = pthread_create(&o->thread, NULL, orders_main, o);
  o->started = r == 0;
  return r;
}

// One that is under way is waited for.
static void orders_stop(struct orders *o) {
  if (!o->started)
    return;
  pthread_mutex_lock(&o->lock);
  o->state = ORDERS_END;
  pthread_cond_signal(&o->given);
  pthread_mutex_unlock(&o->lock);
  pthread_join(o->thread, NULL);
  admin_say_refused(true);
}

static void receive(struct admin *a, struct client *c, uint64_t now) {
  ssize_t got = recv(c->fd, c->in + c->n, ADMIN_IN - c->n, 0); // none of it free: as if the client had ended
  if (got < 0 && (errno == EINTR || errno == EAGAIN))
    return;
  if (got <= 0) {
    drop(c);
    return;
  }
  if (c->ended)
    return;
  if (!c->n)
    c->since_ms = now;
  c->n += (size_t)got;
  one_request(a, c, now);
}

static uint64_t deadline(const struct client *c) { return c->since_ms + (c->ended ? LINGER_MS : c->n || c->out ? REQUEST_MS : IDLE_MS); }

// A place for one more: a free one, or that of the client which has been at the same thing for the longest, when that is long.
static struct client *place(struct admin *a, uint64_t now) {
  struct client *oldest = NULL;
  for (struct client *c = a->clients; c < a->clients + ADMIN_CLIENTS; c++) {
    if (c->fd < 0)
      return c;
    if (c->order == NO_ORDER && now - c->since_ms >= UNTOUCHED_MS && (!oldest || c->since_ms < oldest->since_ms))
      oldest = c;
  }
  return oldest;
}

static void take(struct admin *a, int listener, uint64_t now) {
  struct client *c = place(a, now);
  if (!c)
    return;
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  uint8_t *in = fd >= 0 ? malloc(ADMIN_IN) : NULL;
  if (!in) {
    a->retry_ms = now + RETRY_MS;
    if (fd >= 0)
      close(fd);
    return;
  }
  if (c->fd >= 0)
    drop(c);
  *c = (struct client){.fd = fd, .in = in};
  begin_request(c, now);
}

// poll's entries: the end, the order that is done, the listeners (as long as there is a place for who comes), the clients. Returns how long to wait.
static int watch(struct admin *a, struct pollfd *fds, uint64_t now) {
  bool room = place(a, now) != NULL, rest = now < a->retry_ms;
  uint64_t until = rest ? a->retry_ms : now + IDLE_MS;
  fds[0] = (struct pollfd){.fd = a->ending ? -1 : a->stop_fd, .events = POLLIN};
  fds[1] = (struct pollfd){.fd = a->orders.done_fd, .events = POLLIN};
  for (unsigned i = 0; i < a->num; i++)
    fds[FIRST_FDS + i] = (struct pollfd){.fd = room && !rest && !a->ending ? a->fds[i] : -1, .events = POLLIN};
  for (unsigned i = 0; i < ADMIN_CLIENTS; i++) {
    const struct client *c = &a->clients[i];
    fds[FIRST_FDS + a->num + i] = (struct pollfd){.fd = c->order ? -1 : c->fd, .events = c->out ? POLLOUT : POLLIN};
    uint64_t due = c->fd < 0 || c->order ? until : room ? deadline(c) : c->since_ms + UNTOUCHED_MS;
    until = c->more && !c->out ? now : due < until ? due : until;
  }
  return until > now ? (int)(until - now) : 0;
}

static void *admin_main(void *arg) {
  struct admin *a = arg;
  struct pollfd fds[FIRST_FDS + CONFIG_MAX_ADMIN + ADMIN_CLIENTS];
  crash_thread();
  while (!a->ending || orders_waiting(a)) { // who gave an order is told before the end
    int wait = watch(a, fds, clock_mono_ms()), r = poll(fds, FIRST_FDS + a->num + ADMIN_CLIENTS, wait);
    if (r < 0 && errno != EINTR) // no memory, or a limit of descriptors below what is polled: that may pass
      r = poll(fds, 1, RETRY_MS);
    if (r > 0 && fds[0].revents)
      a->ending = true;
    uint64_t now = clock_mono_ms();
    for (unsigned i = 0; i < ADMIN_CLIENTS; i++) {
      struct client *c = &a->clients[i];
      bool ready = r > 0 && fds[FIRST_FDS + a->num + i].revents;
      if (ready && c->out)
        go_on_sending(c, now);
      else if (c->more && !c->out)
        one_request(a, c, now);
      else if (ready)
        receive(a, c, now);
      else if (c->fd >= 0 && !c->order && now >= deadline(c))
        drop(c);
    }
    uint64_t done;
    if (r > 0 && fds[1].revents && read(a->orders.done_fd, &done, sizeof done) < 0)
      continue;
    turn_of_orders(a, now);
    for (unsigned i = 0; r > 0 && i < a->num; i++)
      if (fds[FIRST_FDS + i].revents)
        take(a, a->fds[i], now);
  }
  return NULL;
}

static bool fail(struct config_error *e, const char *name, const char *why) {
  snprintf(e->text, sizeof e->text, "cannot listen on %s: %s", name, why);
  return false;
}

static bool bind_one(struct admin *a, const struct config_addr *addr, struct config_error *e) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
  char port[8], bound[8] = "0";
  snprintf(port, sizeof port, "%u", addr->port);
  int r = getaddrinfo(addr->host && addr->host[0] ? addr->host : NULL, port, &hints, &found);
  if (r)
    return fail(e, addr->text, gai_strerror(r));
  int fd = socket_listen(NULL, &(struct io_listen){.addr = found->ai_addr, .addr_len = found->ai_addrlen, .backlog = 64,
                                                   .v6_only = config_v6_only(a->s->first, addr)});
  freeaddrinfo(found);
  if (fd < 0)
    return fail(e, addr->text, strerror(-fd));
  a->fds[a->num++] = fd;
  struct sockaddr_storage sa;
  socklen_t len = sizeof sa;
  if (!getsockname(fd, (struct sockaddr *)&sa, &len))
    (void)getnameinfo((struct sockaddr *)&sa, len, NULL, 0, bound, sizeof bound, NI_NUMERICSERV);
  a->ports[a->num - 1] = (uint16_t)strtoul(bound, NULL, 10);
  return true;
}

bool admin_listen(struct server *s, struct config_error *e) {
  const struct config_addrs *addrs = &s->first->admin;
  size_t body_max = admin_body_max(s->num_workers);
  struct admin *a = calloc(1, sizeof *a + ADMIN_HEAD + body_max);
  s->admin = a;
  if (!a)
    return fail(e, "admin", strerror(ENOMEM));
  a->body_max = body_max;
  a->s = s;
  for (unsigned i = 0; i < ADMIN_CLIENTS; i++)
    a->clients[i].fd = -1;
  a->stop_fd = eventfd(0, EFD_CLOEXEC);
  a->orders.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  pthread_mutex_init(&a->orders.lock, NULL);
  pthread_condattr_t mono;
  pthread_condattr_init(&mono);
  pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
  pthread_cond_init(&a->orders.given, &mono);
  pthread_condattr_destroy(&mono);
  bool ok = (a->stop_fd >= 0 && a->orders.done_fd >= 0) || fail(e, "admin", strerror(errno));
  for (unsigned i = 0; ok && i < addrs->num; i++)
    ok = bind_one(a, &addrs->a[i], e);
  if (!ok)
    admin_stop(s);
  return ok;
}

bool admin_start(struct server *s, struct config_error *e) {
  struct admin *a = s->admin;
  int r = orders_start(a);
  if (!r)
    r = pthread_create(&a->thread, NULL, admin_main, a);
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
  orders_stop(&a->orders);
  for (struct client *c = a->clients; c < a->clients + ADMIN_CLIENTS; c++)
    if (c->fd >= 0)
      drop(c);
  for (unsigned i = 0; i < a->num; i++)
    close(a->fds[i]);
  if (a->stop_fd >= 0)
    close(a->stop_fd);
  if (a->orders.done_fd >= 0)
    close(a->orders.done_fd);
  pthread_mutex_destroy(&a->orders.lock);
  pthread_cond_destroy(&a->orders.given);
  free(a);
  s->admin = NULL;
}
