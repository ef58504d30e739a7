#include "server/exchange_int.h"

#include <stdlib.h>

#include "obs/log.h"
#include "server/crash.h"

enum { QUEUE_MAX = 8192, GUARD_KEYS = 1 << 17, GUARD_MEMORY = 128 << 20, TIDY_MS = 1000, MAX_DOUBLINGS = 16 };

uint64_t exchange_now_ms(struct exchange *x) { return x->io->v->now_ns(x->io) / 1000000u; }

uint8_t exchange_spread(struct exchange *x) {
  x->seed ^= x->seed << 13;
  x->seed ^= x->seed >> 7;
  x->seed ^= x->seed << 17;
  return (uint8_t)(x->seed >> 32);
}

bool exchange_away(struct upstream *up) {
  pthread_mutex_lock(&up->x->lock);
  bool away = up->failures > 0;
  pthread_mutex_unlock(&up->x->lock);
  return away;
}

static enum err agrees(struct exchange *x, const struct keyring *k, const struct key_record *r, struct diag *diag) {
  enum err e = keys_agree(k->set, r, diag);
  if (!e && x->guard_before)
    e = key_guard_check(x->guard_before, r, diag);
  return !e && x->guard ? key_guard_check(x->guard, r, diag) : e;
}

static enum err remember(struct exchange *x, const struct key_record *r, struct diag *diag) {
  struct diag full = {0};
  enum err e = x->guard ? key_guard_add(x->guard, r, &full) : ERR_NO_MEMORY;
  if (e != ERR_NO_MEMORY) {
    if (e)
      *diag = full;
    return e;
  }
  // Full: a new generation begins, and the one before the last is forgotten.
  secret_alloc_free(&x->guard_before_mem);
  x->guard_before_mem = x->guard_mem;
  x->guard_before = x->guard;
  secret_alloc_init(&x->guard_mem, GUARD_MEMORY);
  x->guard = key_guard_new(&x->guard_mem.base, GUARD_KEYS);
  return x->guard ? key_guard_add(x->guard, r, diag) : diag_say(diag, ERR_NO_MEMORY, "out of memory");
}

enum err exchange_guard(struct exchange *x, const struct keyring *k, const struct key_record *r, uint32_t num, struct diag *diag) {
  enum err e = ERR_OK;
  for (uint32_t i = 0; i < num && !e; i++)
    e = agrees(x, k, &r[i], diag);
  for (uint32_t i = 0; i < num && !e; i++)
    e = remember(x, &r[i], diag);
  return e;
}

// Frees a flight. The cache is told first: nothing of ours may be locked then.
static void flight_free(struct flight *f) {
  keyring_put(f->keyring);
  free(f);
}

static void land(struct exchange *x, struct flight *f, struct issued *issued, uint64_t retry_ms, uint64_t told_ms) {
  key_cache_landed(x->cache, f->slot, issued, &f->up->server->keys, retry_ms, told_ms, exchange_now_ms(x), exchange_spread(x));
  flight_free(f);
}

// What is queued behind a server that is away ends now: its askers get 503 instead of a long wait.
static void flush_queue(struct upstream *up) {
  pthread_mutex_lock(&up->x->lock);
  struct flight *f = up->queue;
  up->queue = NULL;
  up->tail = &up->queue;
  up->queued = 0;
  up->probing = false; // it may have been among them
  pthread_mutex_unlock(&up->x->lock);
  while (f) {
    struct flight *next = f->next;
    land(up->x, f, NULL, up->server->retry_ms, 0);
    f = next;
  }
}

// Keeps score of a server. True when this changed whether it is away.
static bool score(struct upstream *up, bool away, uint64_t told_ms, uint64_t *pause_ms) {
  struct exchange *x = up->x;
  const struct key_server *s = up->server;
  uint64_t now = exchange_now_ms(x);
  pthread_mutex_lock(&x->lock);
  bool was = up->failures > 0;
  if (!away) {
    up->failures = 0;
  } else if (!was || now >= up->away_until_ms) { // not twice for requests that failed together
    uint64_t pause = s->retry_ms << (up->failures < MAX_DOUBLINGS ? up->failures : MAX_DOUBLINGS);
    pause = pause < s->retry_max_ms ? pause : s->retry_max_ms;
    up->away_until_ms = now + pause - pause / 4 * exchange_spread(x) / 255;
    up->failures++;
  }
  if (away && up->away_until_ms < now + told_ms)
    up->away_until_ms = now + told_ms;
  *pause_ms = up->away_until_ms > now ? up->away_until_ms - now : 0;
  up->probing = false;
  pthread_mutex_unlock(&x->lock);
  return was != away;
}

static void count_end(struct obs_worker *m, enum flight_end end, uint64_t took_ns) {
  metric_add_shared(end == FLIGHT_OK        ? &m->key_fetch_ok
                    : end == FLIGHT_REFUSED ? &m->key_fetch_refused
                    : end == FLIGHT_INVALID ? &m->key_fetch_invalid
                                            : &m->key_fetch_failed, 1);
  if (end == FLIGHT_OK)
    histogram_add_shared(&m->key_fetch, took_ns);
}

void exchange_ended(struct link *l, enum flight_end end, struct issued *issued, const char *why) {
  struct upstream *up = l->up;
  struct exchange *x = up->x;
  struct flight *f = l->flight;
  const struct key_server *s = up->server;
  uint64_t pause_ms, told_ms = (uint64_t)l->retry_after_s * 1000;
  told_ms = told_ms < s->retry_max_ms ? told_ms : s->retry_max_ms;
  l->flight = NULL;
  count_end(x->metrics, end, x->io->v->now_ns(x->io) - l->began_ns);
  bool changed = score(up, end == FLIGHT_AWAY, told_ms, &pause_ms);
  if (changed)
    gauge_add_shared(&x->metrics->key_servers_away, end == FLIGHT_AWAY ? 1 : -1);
  if (changed && end == FLIGHT_AWAY)
    log_line(LOG_WARN, "key server %s: %s. Keys at hand are used, others get 503; next attempt in %llu ms", s->name, why,
             (unsigned long long)pause_ms);
  else if (changed)
    log_line(LOG_INFO, "key server %s answers again", s->name);
  if (end == FLIGHT_REFUSED || end == FLIGHT_INVALID) {
    struct bytes asset = key_slot_asset(f->slot);
    log_line(LOG_ERROR, "key server %s: asset \"%.*s\", epoch %u, %s: %s", s->name, (int)(asset.n < 200 ? asset.n : 200),
             (const char *)asset.p, f->epoch, scheme_name(f->scheme), why);
  }
  land(x, f, issued, end == FLIGHT_AWAY ? s->retry_ms : s->negative_ms, told_ms);
  if (end == FLIGHT_AWAY)
    flush_queue(up);
}

static struct flight *next_flight(struct upstream *up) {
  pthread_mutex_lock(&up->x->lock);
  struct flight *f = up->queue;
  if (f) {
    up->queue = f->next;
    if (!up->queue)
      up->tail = &up->queue;
    up->queued--;
    f->next = NULL;
  }
  pthread_mutex_unlock(&up->x->lock);
  return f;
}

static void give_work(struct upstream *up) {
  for (unsigned i = 0; i < up->num_links; i++) {
    if (up->links[i].flight)
      continue;
    struct flight *f = next_flight(up);
    if (!f)
      return;
    link_begin(&up->links[i], f);
  }
}

static void upstream_free(struct upstream *up) {
  for (unsigned i = 0; i < up->num_links; i++)
    secret_alloc_free(&up->links[i].long_answer);
  if (up->failures)
    gauge_add_shared(&up->x->metrics->key_servers_away, -1);
  secret_alloc_free(&up->mem);
  key_server_drop(up->server);
  free(up);
}

// A server that no configuration names any more goes when nothing of it is under way.
static bool done_with(struct upstream *up) {
  bool idle = atomic_load(&up->server->refs) == 1 && !up->queued && !up->resolving;
  for (unsigned i = 0; i < up->num_links; i++)
    idle = idle && !up->links[i].flight;
  for (unsigned i = 0; idle && i < up->num_links; i++) {
    http_client_close(&up->links[i].client);
    idle = link_idle(&up->links[i]);
  }
  return idle;
}

static void tidy(struct exchange *x, uint64_t now_ms) {
  if (now_ms - x->tidied_ms < TIDY_MS)
    return;
  x->tidied_ms = now_ms;
  uint32_t places, answers;
  key_cache_count(x->cache, &places, &answers);
  atomic_store_explicit(&x->metrics->keys_cached, (int64_t)answers, memory_order_relaxed);
  pthread_mutex_lock(&x->lock);
  struct upstream *gone = NULL;
  for (struct upstream **at = &x->upstreams; *at;) {
    struct upstream *up = *at;
    if (!done_with(up)) {
      at = &up->next;
      continue;
    }
    *at = up->next;
    up->next = gone;
    gone = up;
  }
  pthread_mutex_unlock(&x->lock);
  while (gone) {
    struct upstream *next = gone->next;
    upstream_free(gone);
    gone = next;
  }
}

static struct upstream *upstreams_of(struct exchange *x, bool *stopping) {
  pthread_mutex_lock(&x->lock);
  struct upstream *up = x->upstreams; // new ones are put in front: what follows is stable for this thread
  *stopping = x->stopping;
  pthread_mutex_unlock(&x->lock);
  return up;
}

static void end_all(struct exchange *x) {
  for (struct upstream *up = x->upstreams; up; up = up->next) {
    for (unsigned i = 0; i < up->num_links; i++) {
      struct flight *f = up->links[i].flight;
      link_stop(&up->links[i]);
      if (f)
        land(x, f, NULL, up->server->retry_ms, 0);
    }
    flush_queue(up);
  }
  // Operations end before the memory that they lie in.
  enum { TURNS = 100 };
  bool idle = false;
  for (int turn = 0; !idle && turn < TURNS; turn++) {
    idle = true;
    for (struct upstream *up = x->upstreams; up; up = up->next)
      for (unsigned i = 0; i < up->num_links; i++)
        idle = idle && link_idle(&up->links[i]);
    if (!idle && !(x->io->v->wait(x->io, 10000000) && x->io->v->run(x->io)))
      return;
  }
}

static void *run(void *arg) {
  struct exchange *x = arg;
  crash_thread();
  tls_wipe_on_this_thread();
  for (bool stopping = false, well = true; well;) {
    for (struct upstream *up = upstreams_of(x, &stopping); up; up = up->next)
      give_work(up);
    if (stopping)
      break;
    uint64_t now = exchange_now_ms(x), wait_ms = timers_wait_ms(&x->timers, now);
    wait_ms = wait_ms < TIDY_MS ? wait_ms : TIDY_MS;
    well = x->io->v->wait(x->io, (int64_t)wait_ms * 1000000) && x->io->v->run(x->io);
    resolver_run(x->resolver);
    now = exchange_now_ms(x);
    timers_run(&x->timers, now, x);
    tidy(x, now);
  }
  pthread_mutex_lock(&x->lock);
  if (!x->stopping)
    log_line(LOG_ERROR, "key servers can no longer be asked: the ring failed");
  x->stopping = true;
  pthread_mutex_unlock(&x->lock);
  end_all(x);
  return NULL;
}

struct exchange *exchange_new(const struct exchange_options *o, struct config_error *error) {
  struct exchange *x = calloc(1, sizeof *x);
  char why[200] = "out of memory";
  if (!x) {
    config_fail(error, "%s", why);
    return NULL;
  }
  pthread_mutex_init(&x->lock, NULL);
  secret_alloc_init(&x->mem, 1 << 20);
  secret_alloc_init(&x->guard_mem, GUARD_MEMORY);
  x->metrics = o->metrics;
  x->cache = key_cache_new(o->max_keys);
  x->io = io_new(o->io, &(struct io_options){.entries = 256, .recv_buffers = 32, .recv_size = 8192}, why, sizeof why);
  x->resolver = x->io ? resolver_new(x->io) : NULL;
  x->net = (struct http_client_net){.io = x->io, .timers = &x->timers, .plain = x->mem.base.get(&x->mem.base, TLS_RECORD),
                                    .sealed = x->mem.base.get(&x->mem.base, TLS_FLIGHT), .wipe = true};
  x->guard = key_guard_new(&x->guard_mem.base, GUARD_KEYS);
  if (x->cache && x->resolver && x->net.plain && x->net.sealed && x->guard) {
    x->io->v->random(x->io, &x->seed, sizeof x->seed);
    x->seed |= 1;
    timers_init(&x->timers, exchange_now_ms(x));
    int e = pthread_create(&x->thread, NULL, run, x);
    x->runs = e == 0;
    if (e)
      snprintf(why, sizeof why, "%s", strerror(e));
  }
  if (x->runs)
    return x;
  config_fail(error, "key servers cannot be asked: %s", why);
  exchange_free(x);
  return NULL;
}

void exchange_stop(struct exchange *x) {
  if (!x || !x->runs)
    return;
  pthread_mutex_lock(&x->lock);
  x->stopping = true;
  pthread_mutex_unlock(&x->lock);
  x->io->v->wake(x->io);
  pthread_join(x->thread, NULL);
  x->runs = false;
}

void exchange_free(struct exchange *x) {
  if (!x)
    return;
  exchange_stop(x);
  resolver_free(x->resolver);
  for (struct upstream *up = x->upstreams; up;) {
    struct upstream *next = up->next;
    upstream_free(up);
    up = next;
  }
  io_free(x->io);
  key_cache_free(x->cache);
  secret_alloc_free(&x->mem);
  secret_alloc_free(&x->guard_mem);
  secret_alloc_free(&x->guard_before_mem);
  pthread_mutex_destroy(&x->lock);
  free(x);
}

// Under the lock: the upstream of a server, made at its first use.
static struct upstream *upstream_of(struct exchange *x, struct key_server *s) {
  if (s->run)
    return s->run;
  struct upstream *up = calloc(1, sizeof *up + s->connections * sizeof up->links[0]);
  if (!up)
    return NULL;
  up->x = x;
  up->server = key_server_hold(s);
  up->tail = &up->queue;
  secret_alloc_init(&up->mem, (size_t)16 << 20);
  up->target = (struct http_client_target){.tls = s->tls, .host = s->host, .times = s->times};
  for (up->num_links = 0; up->num_links < s->connections && link_init(&up->links[up->num_links], up); up->num_links++) {
  }
  if (!up->num_links) {
    upstream_free(up);
    return NULL;
  }
  up->next = x->upstreams;
  x->upstreams = up;
  s->run = up;
  return up;
}

static struct flight *flight_new(struct upstream *up, struct keyring *k, const struct key_question *q) {
  struct flight *f = calloc(1, sizeof *f);
  if (f)
    *f = (struct flight){.keyring = keyring_ref(k), .up = up, .epoch = q->epoch, .systems = q->systems, .num_labels = q->num_labels,
                         .scheme = q->scheme};
  return f;
}

static void count_ask(struct obs_worker *m, enum key_got got) {
  metric_add_shared(got == KEY_HIT      ? &m->key_hits
                    : got == KEY_STALE  ? &m->key_stale
                    : got == KEY_FLYING ? &m->key_misses
                                        : &m->key_refused, 1);
}

struct key_ask exchange_ask(struct exchange *x, struct keyring *k, const struct key_remote *r, const struct key_query *q,
                            const struct drm_settings *set) {
  struct key_server *s = keyring_server(k, r);
  struct key_question question = {.server = s->id, .asset = q->asset, .epoch = q->epoch, .scheme = q->scheme, .systems = set->systems,
                                  .num_labels = set->per_tier ? 2 : 1};
  uint64_t now = exchange_now_ms(x);
  pthread_mutex_lock(&x->lock);
  struct upstream *up = x->stopping ? NULL : upstream_of(x, s);
  bool away = up && up->failures > 0;
  bool may = up && up->queued < QUEUE_MAX && (!away || (now >= up->away_until_ms && !up->probing));
  struct flight *f = may ? flight_new(up, k, &question) : NULL;
  struct key_ask a = key_cache_ask(x->cache, &question, now, f != NULL);
  if (a.fetch) {
    f->slot = a.slot;
    *up->tail = f;
    up->tail = &f->next;
    up->queued++;
    up->probing = away;
    f = NULL;
  }
  if (f)
    flight_free(f);
  if (a.got == KEY_REFUSED && away && up->away_until_ms > now + a.retry_ms)
    a.retry_ms = up->away_until_ms - now;
  pthread_mutex_unlock(&x->lock);
  if (a.fetch)
    x->io->v->wake(x->io);
  count_ask(x->metrics, a.got);
  return a;
}

bool exchange_park(struct exchange *x, struct key_slot *s, struct key_wait *w) { return key_cache_park(x->cache, s, w); }
void exchange_unpin(struct exchange *x, struct key_slot *s) { key_cache_unpin(x->cache, s); }

enum err exchange_label(struct key_record *out, const struct issued *i, const struct key_query *q) {
  for (uint32_t n = 0; n < i->num; n++) {
    if (!bytes_eq(i->records[n].label, q->label))
      continue;
    *out = i->records[n];
    out->asset = q->asset;
    out->label = q->label;
    return ERR_OK;
  }
  return ERR_NO_KEY;
}
