// One connection to a key server: a request, its attempts, the reading of the answer.
#include <netdb.h>
#include <stdlib.h>
#include <time.h>

#include "base/text.h"
#include "obs/log.h"
#include "server/exchange_int.h"

enum { ADDRESS_MS = 60000, PARSE_MEMORY = 16 << 20, MAX_RETRY_AFTER_S = 3600 };

static const struct bytes labels[KEY_LABELS_MAX] = {{NULL, 0}, BYTES_LIT("lossless")};

static void attempt(struct link *l);

static void make_queries(struct key_query q[KEY_LABELS_MAX], struct key_doc *doc, struct drm_settings *set, const struct flight *f) {
  for (uint32_t i = 0; i < f->num_labels; i++)
    q[i] = (struct key_query){.asset = key_slot_asset(f->slot), .epoch = f->epoch, .scheme = f->scheme, .label = labels[i]};
  *set = (struct drm_settings){.systems = f->systems};
  *doc = (struct key_doc){.queries = q, .num_queries = f->num_labels, .drm = set};
}

static void wipe_answer(struct link *l) {
  explicit_bzero(l->answer, l->answer_len);
  secret_alloc_free(&l->long_answer);
  l->answer_len = 0;
}

static void end(struct link *l, enum flight_end how, struct issued *issued, const char *why) {
  timer_clear(&l->up->x->timers, &l->timer);
  l->waits_address = false;
  exchange_ended(l, how, issued, why);
}

// No answer, or none that is final: again after a pause, unless it was the last attempt, the server said when (Retry-After), or
// others have found it away meanwhile. `how` is what it comes to then.
static void failed(struct link *l, enum flight_end how, const char *why) {
  struct upstream *up = l->up;
  const struct key_server *s = up->server;
  timer_clear(&up->x->timers, &l->timer);
  l->waits_address = false;
  if (++l->tries >= s->attempts || l->retry_after_s || exchange_away(up)) {
    end(l, how, NULL, why);
    return;
  }
  uint64_t pause = s->retry_ms << (l->tries - 1);
  pause = pause < s->retry_max_ms ? pause : s->retry_max_ms;
  pause -= pause / 2 * exchange_spread(up->x) / 255;
  metric_add_shared(&up->x->metrics->key_retries, 1);
  timer_set(&up->x->timers, &l->timer, exchange_now_ms(up->x), pause);
}

// Where the system's resolver is away the addresses of before are good for another while; after one that led nowhere the next is taken.
static bool keep_addresses(struct upstream *up) {
  up->resolved_ms = exchange_now_ms(up->x);
  return up->num_addr > 0;
}

static void on_timer(struct timer *t, void *ctx) {
  struct link *l = (struct link *)(void *)((char *)t - offsetof(struct link, timer));
  (void)ctx;
  if (l->waits_address && !keep_addresses(l->up)) {
    failed(l, FLIGHT_AWAY, "its address cannot be found in time");
    return;
  }
  l->waits_address = false;
  attempt(l);
}

static void send_request(struct link *l) {
  const struct key_server *s = l->up->server;
  struct key_query queries[KEY_LABELS_MAX];
  struct drm_settings set;
  struct key_doc doc;
  make_queries(queries, &doc, &set, l->flight);
  struct writer body = wr_of(l->body, LINK_BODY), head = wr_of(l->head, LINK_HEAD);
  s->provider->request(&body, &doc);
  wr_fmt(&head, "POST ");
  wr_str(&head, s->path);
  wr_str(&head, s->host_is_v6 ? " HTTP/1.1\r\nHost: [" : " HTTP/1.1\r\nHost: ");
  wr_str(&head, s->host);
  wr_fmt(&head, "%s:%u\r\nUser-Agent: sluice\r\nAccept: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s", s->host_is_v6 ? "]" : "", s->port,
         s->provider->content_type, s->provider->content_type, body.n, s->provider->headers);
  wr_bytes(&head, s->authorization);
  wr_str(&head, "\r\n");
  l->wrong_version = false;
  l->answer = l->body + LINK_BODY;
  l->answer_len = 0;
  l->answer_cap = LINK_ANSWER;
  if (!wr_ok(&body) || !wr_ok(&head)) {
    end(l, FLIGHT_INVALID, NULL, "the request would be too long");
    return;
  }
  http_client_send(&l->client, &l->up->target, bytes_of(l->head, head.n), bytes_of(l->body, body.n), false);
}

static void take_addresses(struct upstream *up) {
  memcpy(up->addr, up->question.addr, sizeof up->addr);
  up->num_addr = up->question.num;
  up->resolved_ms = exchange_now_ms(up->x);
}

static void on_resolved(struct resolve *q) {
  struct upstream *up = (struct upstream *)(void *)((char *)q - offsetof(struct upstream, question));
  up->resolving = false;
  if (!q->error)
    take_addresses(up);
  else if (q->error == EAI_NONAME) // there is none: no fault of the resolver's
    up->num_addr = 0;
  else
    (void)keep_addresses(up);
  for (unsigned i = 0; i < up->num_links; i++) {
    struct link *l = &up->links[i];
    if (!l->waits_address)
      continue;
    timer_clear(&up->x->timers, &l->timer);
    l->waits_address = false;
    if (q->error && !up->num_addr)
      failed(l, FLIGHT_AWAY, gai_strerror(q->error));
    else
      attempt(l);
  }
}

// False: the system's resolver has to be asked, or is being asked.
static bool has_addresses(struct upstream *up, uint64_t now) {
  if (up->num_addr && up->resolved_ms && now - up->resolved_ms < ADDRESS_MS)
    return true;
  if (up->resolving)
    return false;
  up->question = (struct resolve){.host = up->server->host, .port = up->server->port, .done = on_resolved};
  if (!resolve_numeric(&up->question)) // else it need not wait behind other servers' names
    return false;
  take_addresses(up);
  return true;
}

static void attempt(struct link *l) {
  struct upstream *up = l->up;
  struct exchange *x = up->x;
  uint64_t now = exchange_now_ms(x);
  if (has_addresses(up, now)) {
    l->addr_at = up->addr_at;
    up->target.addr = &up->addr[up->addr_at % up->num_addr].u.any;
    up->target.addr_len = up->addr[up->addr_at % up->num_addr].len;
    send_request(l);
    return;
  }
  l->waits_address = true;
  timer_set(&x->timers, &l->timer, now, up->server->times.connect_ms);
  if (up->resolving)
    return;
  up->resolving = true;
  resolver_ask(x->resolver, &up->question);
}

// Seconds from now, 0 for what cannot be read: a number, or a date in the one form that is still written. RFC 9110 §10.2.3, §5.6.7.
static uint32_t seconds_until(struct bytes value) {
  char text[30] = "";
  struct tm t = {0};
  uint64_t seconds = 0;
  size_t digits = 0;
  while (digits < value.n && value.p[digits] >= '0' && value.p[digits] <= '9')
    digits++;
  if (digits && digits == value.n) {
    if (parse_u64(&seconds, value)) // of more than 64 bits
      seconds = UINT64_MAX;
  } else if (value.n == sizeof text - 1) {
    memcpy(text, value.p, value.n);
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &t);
    time_t then = end && !*end ? timegm(&t) : 0, now = time(NULL);
    seconds = then > now ? (uint64_t)(then - now) : 0;
  }
  return (uint32_t)(seconds < MAX_RETRY_AFTER_S ? seconds : MAX_RETRY_AFTER_S);
}

static void on_header(struct http_response *r, struct bytes name, struct bytes value) {
  struct link *l = r->owner;
  const char *ours = l->up->server->provider->headers;
  static const char version[] = "X-Speke-Version: ", retry[] = "Retry-After";
  if (name.n == sizeof version - 3 && !strncasecmp((const char *)name.p, version, name.n) && !strncmp(ours, version, sizeof version - 1)) {
    const char *want = ours + sizeof version - 1;
    size_t n = strcspn(want, "\r");
    l->wrong_version = value.n != n || memcmp(value.p, want, n) != 0;
  }
  if (name.n == sizeof retry - 1 && !strncasecmp((const char *)name.p, retry, name.n))
    l->retry_after_s = seconds_until(value);
}

static bool on_body(struct http_response *r, struct bytes piece) {
  struct link *l = r->owner;
  if (r->status != 200)
    return true; // what it says is not shown: it may repeat what we sent
  if (piece.n > l->answer_cap - l->answer_len) {
    secret_alloc_init(&l->long_answer, KEY_DOC_MAX_ANSWER);
    uint8_t *more = l->answer_cap == LINK_ANSWER ? l->long_answer.base.get(&l->long_answer.base, KEY_DOC_MAX_ANSWER) : NULL;
    if (!more)
      return false;
    memcpy(more, l->answer, l->answer_len);
    explicit_bzero(l->answer, l->answer_len);
    l->answer = more;
    l->answer_cap = KEY_DOC_MAX_ANSWER;
  }
  memcpy(l->answer + l->answer_len, piece.p, piece.n);
  l->answer_len += piece.n;
  return true;
}

// Reads an answer. NULL with the reason in `diag`.
static struct issued *read_answer(struct link *l, struct diag *diag) {
  struct exchange *x = l->up->x;
  struct key_query queries[KEY_LABELS_MAX];
  struct drm_settings set;
  struct key_doc doc;
  struct secret_alloc mem;
  struct issued *issued = NULL;
  make_queries(queries, &doc, &set, l->flight);
  secret_alloc_init(&mem, PARSE_MEMORY);
  struct key_record *records = mem.base.get(&mem.base, KEY_LABELS_MAX * sizeof *records);
  enum err e = records ? l->up->server->provider->answer(&mem.base, records, &doc, bytes_of(l->answer, l->answer_len), diag)
                       : diag_say(diag, ERR_NO_MEMORY, "out of memory");
  // Within an epoch a key stays: its URLs are immutable, and caches hold what was encrypted with it.
  if (!e && !key_cache_agrees(x->cache, l->flight->slot, records, doc.num_queries))
    e = diag_say(diag, ERR_MALFORMED, "the answer has another key than before: a new key needs a new epoch");
  if (!e)
    e = exchange_guard(x, l->flight->keyring, records, doc.num_queries, diag);
  if (!e && !(issued = issued_new(x->cache, records, doc.num_queries)))
    (void)diag_say(diag, ERR_NO_MEMORY, "out of memory");
  secret_alloc_free(&mem);
  return issued;
}

static void answered(struct link *l, unsigned status) {
  char why[300];
  snprintf(why, sizeof why, "it answered %u", status);
  if (status == 429 || status >= 500) {
    failed(l, status == 429 || (status >= 502 && status <= 504) ? FLIGHT_AWAY : FLIGHT_REFUSED, why);
    return;
  }
  if (status != 200) {
    end(l, FLIGHT_REFUSED, NULL, why);
    return;
  }
  struct diag diag = {0};
  struct issued *issued = NULL;
  if (l->wrong_version)
    (void)diag_say(&diag, ERR_UNSUPPORTED, "the answer's X-Speke-Version is not the one asked for");
  else
    issued = read_answer(l, &diag);
  diag_format(&diag, why, sizeof why);
  end(l, issued ? FLIGHT_OK : FLIGHT_INVALID, issued, why);
}

static void on_done(struct http_client *c, const struct http_client_result *r) {
  struct link *l = c->owner;
  if (r->end != HTTP_CLIENT_OK)
    l->retry_after_s = 0; // half a head is no answer
  if (r->end == HTTP_CLIENT_OK) {
    answered(l, r->status);
  } else if (r->end == HTTP_CLIENT_CUT && r->reused && !r->first_byte_ns) {
    send_request(l); // the server had ended an idle connection: that is no failure
  } else if (r->end == HTTP_CLIENT_BAD || r->end == HTTP_CLIENT_LIMIT || r->end == HTTP_CLIENT_STOPPED) {
    end(l, FLIGHT_INVALID, NULL, r->end == HTTP_CLIENT_STOPPED ? "the answer is too long" : r->why);
  } else {
    if (r->end == HTTP_CLIENT_CONNECT || r->end == HTTP_CLIENT_TLS || r->end == HTTP_CLIENT_TIMEOUT) {
      l->up->addr_at += l->addr_at == l->up->addr_at; // once for those that failed together: two steps of two addresses lead back
      l->up->resolved_ms = 0; // to be asked for anew, and kept where that fails
    }
    failed(l, FLIGHT_AWAY, r->why);
  }
  wipe_answer(l);
}

void link_begin(struct link *l, struct flight *f) {
  l->flight = f;
  l->tries = 0;
  l->retry_after_s = 0;
  l->began_ns = l->up->x->io->v->now_ns(l->up->x->io);
  attempt(l);
}

void link_stop(struct link *l) {
  timer_clear(&l->up->x->timers, &l->timer);
  l->waits_address = false;
  http_client_close(&l->client);
  wipe_answer(l);
  l->flight = NULL;
}

bool link_idle(const struct link *l) { return !l->flight && http_client_idle(&l->client); }

bool link_init(struct link *l, struct upstream *up) {
  *l = (struct link){.up = up, .head = up->mem.base.get(&up->mem.base, LINK_HEAD + LINK_BODY + LINK_ANSWER), .timer.fire = on_timer};
  if (!l->head)
    return false;
  l->body = l->head + LINK_HEAD;
  l->answer = l->body + LINK_BODY;
  http_client_init(&l->client, &up->x->net, on_done, l);
  l->client.response.owner = l;
  l->client.response.header = on_header;
  l->client.response.body = on_body;
  l->client.response.max_body = KEY_DOC_MAX_ANSWER;
  return true;
}
