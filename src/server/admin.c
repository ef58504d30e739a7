// Content of the admin listener.
#include "server/admin.h"

#include <fcntl.h>
#include <strings.h>
#include <time.h>

#include "base/text.h"
#include "drm/markup.h"
#include "obs/log.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "server/certificates.h"
#include "server/server.h"

static struct bytes of(const char *s) { return bytes_str(s); }

static void answer(struct admin_response *out, int status, const char *type) {
  out->status = status;
  out->content_type = type;
}

static void plain(struct admin_response *out, int status, const char *text) {
  answer(out, status, "text/plain; charset=utf-8");
  wr_str(&out->body, text);
}

// Names are UTF-8 and stay so, but for control characters (C1 too: a terminal obeys them); bytes that are not are written as the code
// points of their values.
static void json_text(struct writer *w, struct bytes s) {
  wr_str(w, "\"");
  while (s.n) {
    struct bytes rest = s;
    uint32_t c = utf8_next(&rest);
    size_t n = s.n - rest.n;
    if (n == 1)
      c = *s.p;
    if (c < 0x20 || c == '"' || c == '\\' || (c >= 0x7f && (n == 1 || c < 0xa0)))
      wr_fmt(w, "\\u%04x", c);
    else
      wr_raw(w, s.p, n);
    s = rest;
  }
  wr_str(w, "\"");
}

enum { MAX_SETS = QUIET_MAX_WORKERS + 1 };

static unsigned metric_sets(struct server *s, const struct obs_worker **sets, const char **names, char (*text)[12]) {
  unsigned n = s->num_workers;
  if (s->access) {
    uint64_t written, dropped;
    access_counts(s->access, &written, &dropped);
    atomic_store_explicit(&s->metrics[n].access_lines, written, memory_order_relaxed);
    atomic_store_explicit(&s->metrics[n].access_dropped, dropped, memory_order_relaxed);
  }
  atomic_store_explicit(&s->metrics[n].log_lost, log_lost(), memory_order_relaxed);
  for (unsigned i = 0; i <= n; i++) {
    sets[i] = &s->metrics[i];
    snprintf(text[i], sizeof text[i], i < n ? "%u" : "shared", i);
    names[i] = text[i];
  }
  return n + 1;
}

size_t admin_body_max(unsigned workers) {
  enum { LEAST = 4 << 20, LINES = 2 * CONFIG_MAX_CERTIFICATES + 1, LINE = 2 * 4096 + 128, OTHERS = 4096 }; // of certificates: a path, escaped
  size_t metrics = metrics_room(workers + 1) + LINES * LINE + OTHERS;
  return metrics > LEAST ? metrics : LEAST;
}

static double uptime(const struct server *s) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec - s->started_ns) / 1e9;
}

static const char *state_name(const struct server *s) {
  static const char *const names[] = {"starting", "ready", "draining"};
  return names[atomic_load(&s->state)];
}

static void metrics(struct server *s, struct admin_response *out) {
  const struct obs_worker *sets[MAX_SETS];
  const char *names[MAX_SETS];
  char text[MAX_SETS][12];
  unsigned n = metric_sets(s, sets, names, text);
  answer(out, 200, "text/plain; version=0.0.4; charset=utf-8");
  wr_fmt(&out->body, "# HELP sluice_uptime_seconds Time since start\n# TYPE sluice_uptime_seconds gauge\nsluice_uptime_seconds %.3f\n",
         uptime(s));
  wr_fmt(&out->body, "# HELP sluice_info What runs\n# TYPE sluice_info gauge\nsluice_info{version=\"" SLUICE_VERSION "\",kernel=\"%s\",io=\"%s\"} 1\n",
         s->ops->name, s->io);
  metrics_write(&out->body, sets, names, n);
  certificates_write(s, &out->body);
}

struct epochs_list {
  struct writer *w;
  bool any;
  uint64_t left_out; // for want of room
};

static void count_rule(void *ctx, struct bytes scope, uint64_t rotations) {
  enum { ROOM = 128 }; // for what stands around the scope, and what follows the list
  struct epochs_list *l = ctx;
  struct writer *w = l->w;
  if (!wr_ok(w) || w->cap - w->n < ROOM + 6 * scope.n) { // \u00XX at most for each byte
    l->left_out++;
    return;
  }
  wr_str(w, l->any ? ",{\"scope\":" : "{\"scope\":");
  l->any = true;
  json_text(w, scope);
  wr_fmt(w, ",\"rotations\":%llu}", (unsigned long long)rotations);
}

static void status(struct server *s, struct admin_response *out) {
  const struct obs_worker *sets[MAX_SETS];
  const char *names[MAX_SETS];
  char text[MAX_SETS][12];
  struct catalog_usage u = {0};
  struct writer *w = &out->body;
  struct obs_worker sum;
  metrics_sum(&sum, sets, metric_sets(s, sets, names, text));
  catalog_usage(s->catalog, &u);
  answer(out, 200, "application/json");
  wr_fmt(w, "{\"version\":\"" SLUICE_VERSION "\",\"state\":\"%s\",\"uptime\":%.3f,\"workers\":%u,\"io\":\"%s\",\"kernel\":\"%s\"", state_name(s), uptime(s),
         s->num_workers, s->io, s->ops->name);
#define N(x) ((unsigned long long)(x))
  wr_fmt(w, ",\"requests\":%llu,\"responses\":{\"2xx\":%llu,\"3xx\":%llu,\"4xx\":%llu,\"5xx\":%llu},\"sent_bytes\":%llu",
         N(sum.requests_get + sum.requests_head + sum.requests_other), N(sum.status_2xx), N(sum.status_3xx), N(sum.status_4xx),
         N(sum.status_5xx), N(sum.bytes_sent));
  wr_fmt(w, ",\"connections\":%lld", (long long)sum.connections);
  wr_fmt(w, ",\"cache\":{\"bytes\":%llu,\"segments\":%llu,\"hits\":%llu,\"misses\":%llu,\"fills\":%llu,\"evicted\":%llu,"
            "\"bypassed\":%llu,\"memory\":%llu}",
         N(u.cache.bytes), N(u.cache.blocks), N(sum.cache_hits), N(sum.cache_misses), N(u.cache.fills), N(u.cache.evicted),
         N(u.cache.bypassed), N(u.cache.granted + u.hot.granted));
  wr_fmt(w, ",\"encrypted_cache\":{\"bytes\":%llu,\"segments\":%llu,\"hits\":%llu,\"fills\":%llu,\"evicted\":%llu}", N(u.hot.bytes),
         N(u.hot.blocks), N(sum.hot_hits), N(u.hot.fills), N(u.hot.evicted));
  wr_fmt(w, ",\"catalogue\":{\"entries\":%llu,\"tracks\":%llu,\"index_bytes\":%llu,\"manifest_bytes\":%llu}", N(u.entries),
         N(u.tracks), N(u.index_bytes), N(u.text_bytes));
#undef N
  struct epochs_list list = {.w = w};
  wr_str(w, ",\"epochs\":[");
  epoch_store_walk(catalog_epochs(s->catalog), count_rule, &list);
  wr_fmt(w, "],\"epochs_left_out\":%llu}\n", (unsigned long long)list.left_out);
}

// Percent-decodes a query parameter's value into `buf`. False: malformed, or too long.
static bool decode(struct bytes *out, char *buf, size_t cap, struct bytes in) {
  size_t len = 0;
  for (size_t i = 0; i < in.n; i++) {
    uint8_t byte = in.p[i] == '+' ? ' ' : in.p[i];
    if (byte == '%' && (in.n - i < 3 || hex_read(&byte, 1, bytes_of(in.p + i + 1, 2))))
      return false;
    i += in.p[i] == '%' ? 2 : 0;
    if (len == cap)
      return false;
    buf[len++] = (char)byte;
  }
  *out = bytes_of(buf, len);
  return true;
}

static void rotate_fail(struct admin_response *out, int http, const char *why) {
  answer(out, http, "application/json");
  wr_str(&out->body, "{\"error\":");
  json_text(&out->body, of(why));
  wr_str(&out->body, "}\n");
}

// What an order says. False: answered with what is wrong. Nothing is passed over: who writes revoke=true wants keys revoked.
static bool read_order(struct rotation_order *o, struct admin_response *out, struct bytes query, char scope[EPOCH_MAX_SCOPE]) {
  static const struct bytes names[] = {BYTES_LIT("scope"), BYTES_LIT("grace_ms"), BYTES_LIT("revoke")};
  enum { SCOPE, GRACE, REVOKE, NUM };
  char text[NUM][32];
  struct bytes value[NUM] = {0};
  bool given[NUM] = {false}, bad = false;
  for (size_t at = 0; at < query.n && !bad;) {
    const uint8_t *p = query.p + at, *amp = memchr(p, '&', query.n - at);
    size_t n = amp ? (size_t)(amp - p) : query.n - at;
    const uint8_t *equals = n ? memchr(p, '=', n) : NULL;
    size_t name = equals ? (size_t)(equals - p) : n, k = 0;
    while (k < NUM && !bytes_eq(names[k], bytes_of(p, name)))
      k++;
    bad = k == NUM || given[k] || !equals ||
          !decode(&value[k], k == SCOPE ? scope : text[k], k == SCOPE ? EPOCH_MAX_SCOPE : sizeof text[k], bytes_of(equals + 1, n - name - 1));
    if (!bad)
      given[k] = true;
    at += n + 1;
  }
  *o = (struct rotation_order){.scope = value[SCOPE], .has_grace = given[GRACE], .revoke = bytes_eq(value[REVOKE], of("1"))};
  const char *why = bad ? "a parameter is unknown, given twice or malformed: there are scope, grace_ms and revoke"
                    : !given[SCOPE] ? "scope is missing: an asset, a prefix that ends in /, or empty for everything"
                    : given[GRACE] && parse_u64(&o->grace_ms, value[GRACE]) ? "grace_ms is not a number"
                    : o->grace_ms > config_options[OPTION_rotation_grace].max ? "grace_ms is more than a rotation_grace may be, 365 days"
                    : given[REVOKE] && !o->revoke && !bytes_eq(value[REVOKE], of("0")) ? "revoke is 1 or 0"
                    : o->revoke && o->grace_ms ? "a revocation has no grace: give one of revoke=1 and grace_ms"
                                               : NULL;
  if (why)
    rotate_fail(out, 400, why);
  return !why;
}

// Whether a request carries the token. The digests are compared, so that not even a length can be told by timing.
static bool authorized(const struct settings *st, struct bytes authorization) {
  static const char scheme[] = "Bearer ";
  enum { SCHEME = sizeof scheme - 1 };
  struct bytes want = st->keyring->token;
  if (!want.n)
    return true;
  bool bearer = authorization.n > SCHEME && !strncasecmp((const char *)authorization.p, scheme, SCHEME);
  return bearer && keys_equal_text(want, bytes_of(authorization.p + SCHEME, authorization.n - SCHEME));
}

// Who guesses tokens would fill the log: a line at most every ten seconds. On the thread for orders alone, and at the end behind it.
static struct {
  uint64_t next_ms, untold;
} refusals;

uint64_t admin_say_refused(bool end) {
  enum { EVERY_MS = 10000 };
  uint64_t now = clock_mono_ms();
  if (refusals.untold && (end || now >= refusals.next_ms)) {
    log_line(LOG_WARN, "admin: rotations without the right token were refused: %llu", (unsigned long long)refusals.untold);
    refusals.next_ms = now + EVERY_MS;
    refusals.untold = 0;
  }
  return refusals.untold ? refusals.next_ms : 0;
}

static void log_rotation(const struct rotation_order *o, bool absent) {
  char name[EPOCH_MAX_SCOPE + 1] = "everything";
  if (o->scope.n)
    snprintf(name, sizeof name, "%.*s", (int)o->scope.n, (const char *)o->scope.p);
  log_line(LOG_INFO, "rotated %s%s%s", name, o->revoke ? ", old epochs revoked" : "", absent ? "; no asset of this name, or below it, is here" : "");
}

// POST /rotate?scope=album/track|prefix/|&grace_ms=N&revoke=1: everything when the scope is empty, which must be said.
static void rotate(struct server *s, struct admin_response *out, const struct admin_request *in) {
  char scope[EPOCH_MAX_SCOPE], why[400];
  struct rotation_order o;
  struct diag diag = {0};
  struct settings *st = settings_get(s->catalog); // this thread has no quiet points: a reference instead
  bool may = authorized(st, in->authorization);
  if (!may) {
    refusals.untold++; // told by the thread that this is
    rotate_fail(out, 401, "a token is demanded: sluice rotate --token-file FILE");
  }
  if (!may || !read_order(&o, out, in->query, scope)) {
    settings_put(st);
    return;
  }
  struct rotation_rules rules = settings_rotation(s->catalog, st);
  uint64_t grace_ms = rotation_grace(&rules, &o);
  enum err e = rotation_order(&rules, &o, clock_unix_ms(), &diag);
  settings_put(st);
  if (e) {
    diag_format(&diag, why, sizeof why);
    return rotate_fail(out, e == ERR_IO || e == ERR_NO_MEMORY ? 500 : e == ERR_NO_KEY ? 409 : 400, why);
  }
  catalog_rotated(s->catalog, o.scope);
  metric_add_shared(&s->metrics[s->num_workers].rotations, 1);
  // Scopes are independent of media, for fleets whose nodes hold different ones: an unknown name is done, and said.
  bool asset = o.scope.n && o.scope.p[o.scope.n - 1] != '/';
  // Too many open files, or a disk that fails or does not answer, say nothing about the asset.
  enum err here = o.scope.n ? catalog_find(s->catalog, o.scope) : ERR_IO;
  log_rotation(&o, here == ERR_NOT_FOUND);
  answer(out, 200, "application/json");
  wr_str(&out->body, "{\"scope\":");
  json_text(&out->body, o.scope);
  if (asset)
    wr_fmt(&out->body, ",\"epoch\":%u", epoch_store_current(catalog_epochs(s->catalog), o.scope));
  wr_fmt(&out->body, ",\"grace_ms\":%llu,\"revoked\":%s", (unsigned long long)grace_ms, o.revoke ? "true" : "false");
  if (here == ERR_OK || here == ERR_NOT_FOUND)
    wr_fmt(&out->body, ",\"on_storage\":%s", here == ERR_OK ? "true" : "false");
  wr_str(&out->body, "}\n");
}

extern const char dashboard_page[]; // dashboard.html, as the build embeds it

static bool is_rotate(const struct admin_request *in) { return bytes_eq(in->path, of("/rotate")); }

bool admin_is_order(const struct admin_request *in) { return is_rotate(in) && bytes_eq(in->method, of("POST")); }

void admin_handle(struct server *s, struct admin_response *out, const struct admin_request *in) {
  bool get = bytes_eq(in->method, of("GET")), order = is_rotate(in);
  bool ready = atomic_load(&s->state) == SERVER_READY;
  out->allow = order ? "POST" : "GET, HEAD";
  if (order) {
    if (admin_is_order(in))
      rotate(s, out, in);
    else
      plain(out, 405, "POST only\n");
  } else if (!get) {
    plain(out, 405, "GET only\n");
  } else if (bytes_eq(in->path, of("/live"))) {
    plain(out, 200, "live\n");
  } else if (bytes_eq(in->path, of("/ready"))) {
    plain(out, ready ? 200 : 503, ready ? "ready\n" : atomic_load(&s->state) == SERVER_STARTING ? "starting\n" : "draining\n");
  } else if (bytes_eq(in->path, of("/metrics"))) {
    metrics(s, out);
  } else if (in->stranger) { // probes and scrapers, which ask by any name, need no more than the above
    plain(out, 403, "Host is a name that this server does not know: ask by an address or as localhost, or add the name to admin_hosts\n");
  } else if (bytes_eq(in->path, of("/status"))) {
    status(s, out);
  } else if (bytes_eq(in->path, of("/"))) {
    answer(out, 200, "text/html; charset=utf-8");
    wr_str(&out->body, dashboard_page);
  } else {
    plain(out, 404, "not found\n");
  }
}
