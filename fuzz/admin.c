// What a client of the admin listener sends, and what is made of it: requests, targets, queries, tokens, orders. Two clients that send
// it in pieces, and take the answers in pieces, get what one gets that sends it whole; the answers are HTTP, their JSON is JSON; an order
// is done for a POST with the token and without Origin, and written from what it says it is the same order.
// The first byte of the input chooses: C_*. Sockets, time and what is behind the orders are the target's; the two files are part of it.
// Source: RFC 9112, RFC 6750 §2.1, docs of POST /rotate.
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "net/http_response.h"
#include "net/socket.h"
#include "server/admin.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "server/certificates.h"
#include "fuzz.h"

enum { C_TOKEN = 1, C_STARTING = 2, C_FAILS = 4, C_NO_KEY = 8, C_ABSENT = 16 };
enum { MAX_CLIENTS = 3, MAX_ORDERS = 128, OUT = 1 << 18, BODY_MAX = 4096, FIRST_FD = 100 };
static const struct bytes token = BYTES_LIT("0123456789abcdef");

static ssize_t world_recv(int fd, void *p, size_t cap);
static ssize_t world_send(int fd, const void *p, size_t n);
static int world_ended(int fd);
static struct settings *world_settings(void);
static struct rotation_rules world_rules(void);
static enum err world_rotate(const struct rotation_order *o, struct diag *diag);
static enum err world_find(void);
static void world_usage(struct catalog_usage *out);
static void world_walk(void (*each)(void *ctx, struct bytes scope, uint64_t rotations), void *ctx);
static void world_metrics(struct writer *w);
static void world_date(char out[29]);
extern const char world_page[];
#define recv(fd, p, cap, flags) world_recv(fd, p, cap)
#define send(fd, p, n, flags) world_send(fd, p, n)
#define close(fd) world_ended(fd)
#define shutdown(fd, how) 0
#define clock_gettime(id, t) ((void)(*(t) = (struct timespec){.tv_sec = 5}))
#define time(t) 0
#define http_date(out, t) world_date(out)
#define settings_get(c) world_settings()
#define settings_put(st) ((void)(st))
#define settings_rotation(c, st) world_rules()
#define rotation_order(rules, order, now, diag) world_rotate(order, diag)
#define catalog_rotated(c, scope) ((void)0)
#define catalog_find(c, scope) world_find()
#define catalog_epochs(c) NULL
#define catalog_usage(c, u) world_usage(u)
#define epoch_store_current(e, scope) 3u
#define epoch_store_walk(e, each, ctx) world_walk(each, ctx)
#define metrics_write(w, sets, names, n) ((void)(n), world_metrics(w))
#define dashboard_page world_page
#define answer content_answer
#define SLUICE_VERSION "0"
#include "server/admin.c" // NOLINT(bugprone-suspicious-include)
#undef answer
#include "server/admin_http.c" // NOLINT(bugprone-suspicious-include)
#undef recv
#undef send
#undef close
#undef shutdown
#undef time

// What an order said.
struct said {
  struct rotation_order o;
  char scope[EPOCH_MAX_SCOPE];
};

// One client: what it sends, what it got.
struct sender {
  struct bytes in;
  uint32_t seed; // of the lengths of pieces; 0: whole
  uint8_t *out;
  size_t at, out_n;
  unsigned num_heads, num_orders;
  bool head[MAX_ORDERS]; // per answer: it is one to HEAD
  struct said orders[MAX_ORDERS];
  bool open;
};

static struct sender senders[MAX_CLIENTS];
static unsigned current;        // whose request is looked at
static unsigned choice;
static struct admin *admin_of_test;

static uint32_t next_number(struct sender *s) { return s->seed = s->seed * 1664525 + 1013904223; }

static ssize_t world_recv(int fd, void *p, size_t cap) {
  struct sender *s = &senders[fd - FIRST_FD];
  MUST(s->open);
  size_t n = s->in.n - s->at;
  if (s->seed) {
    uint32_t r = next_number(s) >> 8;
    size_t most = 1 + r % 64;
    if (r % 5 == 0) {
      errno = EAGAIN;
      return -1;
    }
    n = n < most ? n : most;
  }
  n = n < cap ? n : cap;
  memcpy(p, s->in.p + s->at, n);
  s->at += n;
  return (ssize_t)n;
}

static ssize_t world_send(int fd, const void *p, size_t n) {
  struct sender *s = &senders[fd - FIRST_FD];
  MUST(s->open && n);
  if (s->seed) {
    size_t most = (next_number(s) >> 8) % 400;
    n = n < most ? n : most;
    if (!n) {
      errno = EAGAIN;
      return -1;
    }
  }
  MUST(n <= OUT - s->out_n);
  memcpy(s->out + s->out_n, p, n);
  s->out_n += n;
  return (ssize_t)n;
}

static int world_ended(int fd) {
  MUST(senders[fd - FIRST_FD].open);
  senders[fd - FIRST_FD].open = false;
  return 0;
}

static struct settings *world_settings(void) {
  static struct keyring keyring;
  static struct settings settings = {.keyring = &keyring};
  keyring.token = choice & C_TOKEN ? token : (struct bytes){0};
  return &settings;
}

static struct rotation_rules world_rules(void) {
  static const struct keys_info info;
  return (struct rotation_rules){.grace_ms = 60000, .info = &info};
}
static enum err world_find(void) { return choice & C_ABSENT ? ERR_NOT_FOUND : ERR_OK; }
static void world_usage(struct catalog_usage *out) { *out = (struct catalog_usage){0}; }
static void world_walk(void (*each)(void *ctx, struct bytes scope, uint64_t rotations), void *ctx) {
  each(ctx, BYTES_LIT("a/\"\xff\x01\xc3\xa9"), 7);
}
static void world_metrics(struct writer *w) { wr_str(w, "x 1\n"); }
const char world_page[] = "<!doctype html>";

// Once for each answer.
static void world_date(char out[29]) {
  struct sender *s = &senders[current];
  memcpy(out, "Sun, 06 Nov 1994 08:49:37 GMT", 29);
  MUST(s->num_heads < MAX_ORDERS);
  s->head[s->num_heads++] = admin_of_test->clients[current].p.method == HTTP_M_HEAD;
}

static enum err world_rotate(const struct rotation_order *o, struct diag *diag) {
  struct sender *s = &senders[current];
  const struct client *c = &admin_of_test->clients[current];
  MUST(c->p.method == HTTP_M_POST && !(c->p.seen & 1u << HTTP_H_ORIGIN) && o->scope.n <= EPOCH_MAX_SCOPE && s->num_orders < MAX_ORDERS);
  MUST(!(choice & C_TOKEN) || memmem(s->in.p, s->in.n, token.p, token.n));
  struct said *said = &s->orders[s->num_orders++];
  said->o = *o;
  said->o.grace_ms = o->has_grace ? o->grace_ms : 0;
  if (o->scope.n)
    memcpy(said->scope, o->scope.p, o->scope.n);
  said->o.scope = bytes_of(said->scope, o->scope.n);
  return choice & C_FAILS ? diag_say(diag, choice & C_NO_KEY ? ERR_NO_KEY : ERR_IO, "no") : ERR_OK;
}

// As orders_main does with one.
static void do_order(struct admin *a) {
  struct orders *o = &a->orders;
  if (o->state != ORDERS_GIVEN)
    return;
  for (current = 0; a->clients[current].order != ORDER_UNDER_WAY;)
    current++;
  o->out = (struct admin_response){.status = 500, .content_type = "text/plain", .body = wr_of(o->body, sizeof o->body)};
  admin_handle(o->s, &o->out, &o->in);
  o->state = ORDERS_DONE;
}

// As admin_main does, for clients that are always ready.
static void turn(struct admin *a, unsigned first, unsigned num) {
  for (current = first; current < first + num; current++) {
    struct client *c = &a->clients[current];
    if (c->fd < 0 || c->order)
      continue;
    if (c->out)
      go_on_sending(c, 0);
    else if (c->more)
      one_request(a, c, 0);
    else
      receive(a, c, 0);
    MUST(c->fd < 0 || c->ended || (c->n <= ADMIN_IN && c->p.fed <= c->n));
  }
  current = first;
  while (current + 1 < first + num && a->clients[current].order != ORDER_UNDER_WAY)
    current++;
  turn_of_orders(a, 0);
  do_order(a);
}

static void begin(struct admin *a, unsigned n, struct bytes in, uint32_t seed) {
  struct sender *s = &senders[n];
  if (!s->out)
    s->out = malloc(OUT);
  MUST(s->out);
  s->in = in;
  s->seed = seed;
  s->at = s->out_n = 0;
  s->num_heads = s->num_orders = 0;
  s->open = true;
  a->clients[n] = (struct client){.fd = FIRST_FD + (int)n, .in = malloc(ADMIN_IN)};
  MUST(a->clients[n].in);
  begin_request(&a->clients[n], 0);
}

static void run(struct admin *a, unsigned first, unsigned num) {
  bool open = true;
  a->orders.state = ORDERS_IDLE;
  for (unsigned i = 0; open; i++) {
    MUST(i < 1000000);
    turn(a, first, num);
    open = false;
    for (unsigned k = first; k < first + num; k++)
      open |= senders[k].open;
  }
  MUST(a->orders.state == ORDERS_IDLE && !orders_waiting(a));
}

static bool same_order(const struct said *a, const struct said *b) {
  return bytes_eq(a->o.scope, b->o.scope) && a->o.has_grace == b->o.has_grace && a->o.grace_ms == b->o.grace_ms && a->o.revoke == b->o.revoke;
}

static void check_same(const struct sender *a, const struct sender *b) {
  MUST(a->num_orders == b->num_orders && a->num_heads == b->num_heads && a->out_n == b->out_n && !memcmp(a->out, b->out, a->out_n));
  for (unsigned i = 0; i < a->num_orders; i++)
    MUST(same_order(&a->orders[i], &b->orders[i]));
}

// Answers, as a client reads them.

struct seen {
  struct writer body;
  bool json, bearer, allow, retry;
};

static bool is(struct bytes name, const char *want) { return name.n == strlen(want) && !strncasecmp((const char *)name.p, want, name.n); }

static void on_header(struct http_response *r, struct bytes name, struct bytes value) {
  struct seen *s = r->owner;
  s->json |= is(name, "content-type") && is(value, "application/json");
  s->bearer |= is(name, "www-authenticate");
  s->allow |= is(name, "allow");
  s->retry |= is(name, "retry-after");
}

static bool on_body(struct http_response *r, struct bytes piece) {
  struct seen *s = r->owner;
  wr_bytes(&s->body, piece);
  return true;
}

static void check_answer(const struct http_response *r, bool head) {
  const struct seen *s = r->owner;
  MUST(r->content_length != UINT64_MAX && r->content_length && wr_ok(&s->body) && s->body.n == (head ? 0 : r->content_length));
  MUST(s->bearer == (r->status == 401) && s->allow == (r->status == 405) && s->retry == (r->status == 503));
  MUST(r->status != 401 || choice & C_TOKEN);
  json_error_t e;
  json_t *json = s->json && !head ? json_loadb((const char *)s->body.p, s->body.n, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &e) : NULL;
  MUST(!s->json || head || json_is_object(json));
  json_decref(json);
}

static void check_answers(const struct sender *s) {
  static struct http_response r;
  static uint8_t body[1 << 16];
  bool keep = true;
  size_t at = 0;
  for (unsigned i = 0; i < s->num_heads; i++) {
    struct seen seen = {.body = wr_of(body, sizeof body)};
    size_t used = 0;
    r = (struct http_response){.owner = &seen, .header = on_header, .body = on_body};
    http_response_begin(&r, s->head[i]);
    MUST(keep && http_response_feed(&r, &used, bytes_of(s->out + at, s->out_n - at)) == HTTP_RESPONSE_WHOLE);
    check_answer(&r, s->head[i]);
    at += used;
    keep = r.keep_alive;
  }
  MUST(at == s->out_n);
}

// Written with every byte of its scope encoded, and its parameters the other way round.
static void check_order_again(struct admin *a, const struct said *said) {
  uint8_t text[8192];
  struct writer w = wr_of(text, sizeof text);
  wr_str(&w, said->o.revoke ? "POST /rotate?revoke=1&" : "POST /rotate?revoke=0&");
  if (said->o.has_grace)
    wr_fmt(&w, "grace_ms=%llu&", (unsigned long long)said->o.grace_ms);
  wr_str(&w, "scope=");
  for (size_t i = 0; i < said->o.scope.n; i++)
    wr_fmt(&w, "%%%02x", said->o.scope.p[i]);
  wr_str(&w, " HTTP/1.1\r\nHost: a\r\nAuthorization: bEARER ");
  wr_bytes(&w, token);
  wr_str(&w, "\r\n\r\n");
  MUST(wr_ok(&w));
  begin(a, 1, bytes_of(text, w.n), 0);
  run(a, 1, 1);
  MUST(senders[1].num_orders == 1 && same_order(&senders[1].orders[0], said));
}

static struct admin *make(void) {
  static struct obs_worker metrics_of_test[2];
  static const struct aes_ops aes = {.name = "x"};
  static const struct config config = {.admin_hosts = ""};
  static struct server server = {.first = &config, .num_workers = 1, .metrics = metrics_of_test, .ops = &aes, .io = "input",
                                 .served.lock = PTHREAD_MUTEX_INITIALIZER};
  if (!admin_of_test) {
    log_set_level(LOG_ERROR);
    struct admin *a = calloc(1, sizeof *a + ADMIN_HEAD + BODY_MAX);
    MUST(a);
    a->s = a->orders.s = &server;
    a->body_max = BODY_MAX;
    pthread_mutex_init(&a->orders.lock, NULL);
    pthread_cond_init(&a->orders.given, NULL);
    admin_of_test = a;
  }
  for (unsigned i = 0; i < ADMIN_CLIENTS; i++)
    admin_of_test->clients[i] = (struct client){.fd = -1};
  atomic_store(&server.state, choice & C_STARTING ? SERVER_STARTING : SERVER_READY);
  return admin_of_test;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint32_t seed = (uint32_t)size;
  if (!size)
    return 0;
  for (size_t i = 0; i < size; i++)
    seed = seed * 31 + data[i];
  choice = data[0];
  struct admin *a = make();
  struct bytes in = bytes_of(data + 1, size - 1);
  begin(a, 0, in, 0);
  run(a, 0, 1);
  check_answers(&senders[0]);
  begin(a, 1, in, seed | 1);
  begin(a, 2, in, (seed ^ 0x55555555) | 1);
  run(a, 1, 2);
  check_same(&senders[0], &senders[1]);
  check_same(&senders[0], &senders[2]);
  for (unsigned i = 0; i < senders[0].num_orders && i < 2; i++)
    check_order_again(a, &senders[0].orders[i]);
  return 0;
}
