// Making and ending the catalogue and what it hands out.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "obs/log.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"

enum { TRACK_MEMORY = 1 << 30 };

uint64_t clock_mono_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

uint64_t clock_unix_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

struct settings *settings_get(struct catalog *c) {
  pthread_mutex_lock(&c->lock);
  struct settings *st = c->settings;
  atomic_fetch_add_explicit(&st->refs, 1, memory_order_relaxed);
  pthread_mutex_unlock(&c->lock);
  return st;
}

void settings_put(struct settings *st) {
  if (atomic_fetch_sub_explicit(&st->refs, 1, memory_order_acq_rel) != 1)
    return;
  if (!st->lent)
    config_free(st->config);
  keyring_put(st->keyring);
  free(st);
}

struct rotation_rules settings_rotation(struct catalog *c, const struct settings *st) {
  return (struct rotation_rules){.epochs = c->epochs, .keys = st->keyring->set, .info = &st->keyring->info,
                                 .grace_ms = st->config->rotation_grace};
}

static void settings_quiet(struct quiet_item *item) { settings_put((struct settings *)item); }

static struct settings *settings_new(struct config *config, struct keyring *keyring) {
  struct settings *st = calloc(1, sizeof *st);
  if (!st)
    return NULL;
  st->config = config;
  st->keyring = keyring;
  atomic_store(&st->refs, 1);
  return st;
}

void catalog_changed(struct catalog *c) { atomic_fetch_add(&c->generation, 1); }

static void take_along(struct entry *e, uint64_t now, struct bytes scope) {
  bool has = atomic_load_explicit(&e->generation, memory_order_relaxed) == now - 1, making = e->making && e->making_generation == now - 1;
  if ((!has && !making) || epochs_covers(scope, e->route.asset))
    return;
  if (has)
    atomic_store_explicit(&e->generation, now, memory_order_release);
  if (making)
    e->making_generation = now;
}

// Everything is of the generation before for a moment. Then what was, or is being made, and is not of the scope, is taken into the
// new one. What another change finds here stays behind and is made anew: that is never wrong.
void catalog_rotated(struct catalog *c, struct bytes scope) {
  uint64_t now = atomic_fetch_add(&c->generation, 1) + 1;
  for (unsigned first = 0; scope.n && first < ENTRY_BUCKETS; first += BUCKETS_AT_ONCE) {
    pthread_mutex_lock(&c->lock);
    for (unsigned i = first; i < first + BUCKETS_AT_ONCE; i++)
      for (struct entry *e = atomic_load_explicit(&c->buckets[i], memory_order_relaxed); e; e = atomic_load_explicit(&e->next, memory_order_relaxed))
        take_along(e, now, scope);
    pthread_mutex_unlock(&c->lock);
  }
}

// The exchange begins with the first configuration that names a key server.
static bool start_exchange(struct catalog *c, const struct config *config, const struct keyring *keyring, struct config_error *error) {
  if (atomic_load(&c->exchange) || !keyring_remote(keyring))
    return true;
  static const char *const backends[] = {[IO_AUTO] = "auto", [IO_URING] = "io_uring", [IO_EPOLL] = "epoll"};
  struct exchange_options o = {.io = backends[config->io], .max_keys = (uint32_t)config->max_keys, .metrics = c->metrics};
  struct exchange *x = exchange_new(&o, error);
  atomic_store(&c->exchange, x);
  return x != NULL;
}

struct settings *catalog_prepare(struct catalog *c, struct config *config, struct keyring *keyring, struct config_error *error) {
  if (!start_exchange(c, config, keyring, error))
    return NULL;
  struct settings *st = settings_new(config, keyring);
  if (!st)
    snprintf(error->text, sizeof error->text, "not enough memory");
  return st;
}

void catalog_reload(struct catalog *c, struct settings *fresh) {
  pthread_mutex_lock(&c->lock);
  struct settings *old = c->settings;
  c->settings = fresh;
  pthread_mutex_unlock(&c->lock);
  atomic_store(&c->revalidate_ms, fresh->config->revalidate);
  atomic_store(&c->stale_ms, fresh->config->stale_if_error);
  atomic_store(c->published, fresh->config);
  // A renewed certificate is no reason to look at everything anew, least of all while storage fails.
  if (!config_same(old->config, fresh->config) || !keyring_same(old->keyring, fresh->keyring))
    catalog_changed(c);
  quiet_retire(c->quiet, &old->item, settings_quiet);
}

void catalog_set_own_url(struct catalog *c, const char *url) {
  snprintf(c->own_url_text, sizeof c->own_url_text, "%s", url);
  atomic_store(&c->own_url, c->own_url_text);
  catalog_changed(c); // what was made without it is made anew
}

struct epoch_store *catalog_epochs(struct catalog *c) { return c->epochs; }

#define OUTER(ptr, type) ((struct type *)(void *)((char *)(ptr) - offsetof(struct type, pub)))

// Under the lock: whether it is to be said, once, that keys may be swapped out.
static bool is_news_unlocked(struct catalog *c) {
  bool news = c->track_memory.unlocked && !c->warned_unlocked;
  c->warned_unlocked |= news;
  return news;
}

struct full_track *track_alloc(struct catalog *c) {
  pthread_mutex_lock(&c->lock);
  struct full_track *f = c->free_tracks;
  if (f)
    c->free_tracks = f->next_free;
  else
    f = c->track_memory.base.get(&c->track_memory.base, sizeof *f);
  if (f) {
    memset((void *)f, 0, sizeof *f);
    c->entry_bytes += sizeof *f;
    f->catalog = c;
    f->pub.generation = ++c->next_generation;
    atomic_store(&f->pub.holds, 1);
  }
  bool unlocked = is_news_unlocked(c);
  pthread_mutex_unlock(&c->lock);
  if (unlocked)
    log_line(LOG_WARN, "content keys cannot be locked in memory (RLIMIT_MEMLOCK): they may be swapped out");
  return f;
}

void track_retire_now(struct full_track *f) {
  struct catalog *c = f->catalog;
  hot_flush(c, &f->pub);
  if (f->pub.source)
    source_put(c->sources, f->pub.source);
  free(f->pssh);
  explicit_bzero(f, sizeof *f);
  pthread_mutex_lock(&c->lock);
  c->entry_bytes -= sizeof *f;
  f->next_free = c->free_tracks;
  c->free_tracks = f;
  pthread_mutex_unlock(&c->lock);
}

static void track_quiet(struct quiet_item *item) { track_retire_now((struct full_track *)item); }

void track_drop(struct catalog *c, struct protected_track *t) {
  if (atomic_fetch_sub_explicit(&t->holds, 1, memory_order_acq_rel) == 1)
    quiet_retire(c->quiet, &OUTER(t, full_track)->item, track_quiet);
}

static void text_free(struct full_text *t) {
  for (unsigned i = 0; i < t->num_sources; i++)
    source_put(t->catalog->sources, t->sources[i]);
  pthread_mutex_lock(&t->catalog->lock);
  t->catalog->text_bytes -= t->bytes;
  pthread_mutex_unlock(&t->catalog->lock);
  if (t->pub.no_store) // a key
    explicit_bzero((void *)(uintptr_t)t->pub.body.p, t->pub.body.n);
  free(t);
}

static void text_quiet(struct quiet_item *item) { text_free((struct full_text *)item); }

void text_drop(struct catalog *c, struct text_doc *d) {
  if (atomic_fetch_sub_explicit(&d->holds, 1, memory_order_acq_rel) == 1)
    quiet_retire(c->quiet, &OUTER(d, full_text)->item, text_quiet);
}

static void entry_value_drop(struct catalog *c, enum route_kind kind, void *value) {
  if (value && kind == ROUTE_INIT)
    track_drop(c, value);
  else if (value)
    text_drop(c, value);
}

// An entry's hold on a value that was replaced: workers may have picked the pointer up without one of their own.
struct late_drop {
  struct quiet_item item;
  struct catalog *catalog;
  enum route_kind kind;
  void *value;
};

static void late_drop_quiet(struct quiet_item *item) {
  struct late_drop *d = (struct late_drop *)item;
  entry_value_drop(d->catalog, d->kind, d->value);
  free(d);
}

void entry_value_drop_later(struct catalog *c, enum route_kind kind, void *value) {
  struct late_drop *d = value ? calloc(1, sizeof *d) : NULL;
  if (!d)
    return; // out of memory: the value stays for good, which is safe
  *d = (struct late_drop){.catalog = c, .kind = kind, .value = value};
  quiet_retire(c->quiet, &d->item, late_drop_quiet);
}

static bool open_folders(struct catalog *c, const struct config *config, struct config_error *error) {
  c->root_fd = open(config->media, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (c->root_fd < 0)
    return config_fail(error, "%s: cannot open the media folder: %s", config->media, strerror(errno));
  if (faccessat(c->root_fd, ".", R_OK | X_OK, AT_EACCESS))
    return config_fail(error, "%s: the media folder is not readable: %s", config->media, strerror(errno));
  if (!*config->cache_dir)
    return true;
  c->cache_fd = open(config->cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return c->cache_fd >= 0 || config_fail(error, "%s: cannot open the cache folder: %s", config->cache_dir, strerror(errno));
}

static bool start_threads(struct catalog *c, const struct catalog_options *o, struct config_error *error) {
  const struct config *config = o->config;
  if (config->io != IO_EPOLL)
    catalog_start_reader(c, o->num_files);
  for (unsigned i = 0; i < config->helper_threads; i++) {
    int e = pthread_create(&c->helpers[i], NULL, catalog_help, c);
    if (e)
      return config_fail(error, "cannot start helper threads: %s", strerror(e));
    c->num_helpers++;
  }
  int e = pthread_create(&c->keeper, NULL, catalog_keep, c);
  if (e)
    return config_fail(error, "cannot start helper threads: %s", strerror(e));
  c->keeper_runs = true;
  return true;
}

static void *reserve(size_t n) {
  void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

struct catalog *catalog_new(const struct catalog_options *o, struct config_error *error) {
  struct catalog *c = calloc(1, sizeof *c);
  if (!c) {
    config_fail(error, "out of memory");
    return NULL;
  }
  pthread_condattr_t mono;
  pthread_condattr_init(&mono);
  pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
  pthread_mutex_init(&c->lock, NULL);
  pthread_mutex_init(&c->queue_lock, NULL);
  pthread_mutex_init(&c->keeper_lock, NULL);
  pthread_cond_init(&c->queue_wake, NULL);
  pthread_cond_init(&c->keeper_wake, &mono);
  pthread_mutex_init(&c->search.lock, NULL);
  pthread_cond_init(&c->search.done, &mono);
  pthread_condattr_destroy(&mono);
  c->root_fd = c->cache_fd = -1;
  atomic_store(&c->own_url, "");
  c->quiet = o->quiet;
  c->ops = o->ops;
  c->metrics = o->metrics;
  c->index_most = o->config->index_size;
  c->published = o->published;
  secret_alloc_init(&c->track_memory, TRACK_MEMORY);
  atomic_store(&c->generation, 1);
  atomic_store(&c->revalidate_ms, o->config->revalidate);
  atomic_store(&c->stale_ms, o->config->stale_if_error);
  bool ok = open_folders(c, o->config, error);
  if (ok) {
    c->budget.limit = o->config->cache_size;
    c->cache = cache_open(&(struct cache_options){.size = o->config->cache_clear, .budget = &c->budget, .quiet = o->quiet,
                                                  .huge_pages = o->config->huge_pages});
    c->buckets = reserve(ENTRY_BUCKETS * sizeof *c->buckets);
    if (getrandom(&c->hash_seed, sizeof c->hash_seed, 0) != sizeof c->hash_seed)
      ok = config_fail(error, "no randomness: %s", strerror(errno));
    c->queue = reserve(QUEUE_JOBS * sizeof *c->queue);
    c->sources = sources_new(c->root_fd);
    c->settings = settings_new(o->config, o->keyring);
    if (o->config->cache_encrypted) {
      errno = 0;
      c->hot = cache_open(&(struct cache_options){.size = o->config->cache_encrypted, .budget = &c->budget, .quiet = o->quiet,
                                                  .file = true, .huge_pages = o->config->huge_pages});
      bool limited = !c->hot && errno == EFBIG; // it is a memory file
      c->heat = calloc(HEAT_SLOTS, sizeof *c->heat);
      if (!c->hot || !c->heat)
        ok = config_fail(error, "cache_encrypted: %s", limited ? "the limit of file sizes (ulimit -f) is below it" : "out of memory, or too little in cache_size");
    }
    ok = ok && ((c->cache && c->buckets && c->queue && c->sources && c->settings) || config_fail(error, "out of memory"));
  }
  ok = ok && start_exchange(c, o->config, o->keyring, error) && start_threads(c, o, error);
  if (ok) {
    c->epochs = o->epochs;
    c->first = o->config;
    c->settings->lent = true;
    atomic_store(c->published, o->config);
    return c;
  }
  if (c->settings) { // given back to the caller
    free(c->settings);
    c->settings = NULL;
  }
  catalog_free(c);
  return NULL;
}

void catalog_stop(struct catalog *c) {
  if (!c || c->stop)
    return;
  exchange_stop(atomic_load(&c->exchange)); // wakes what waits for keys; helpers finish it
  pthread_mutex_lock(&c->queue_lock);
  c->stop = true;
  pthread_cond_broadcast(&c->queue_wake);
  pthread_mutex_unlock(&c->queue_lock);
  for (unsigned i = 0; i < c->num_helpers; i++)
    pthread_join(c->helpers[i], NULL);
  reader_stop(c->reader); // after the helpers: what they opened for it is read
  if (!c->keeper_runs)
    return;
  pthread_mutex_lock(&c->keeper_lock);
  c->keeper_stop = true;
  pthread_cond_signal(&c->keeper_wake);
  pthread_mutex_unlock(&c->keeper_lock);
  pthread_join(c->keeper, NULL);
}

void catalog_free(struct catalog *c) {
  if (!c)
    return;
  catalog_stop(c);
  for (size_t i = 0; c->buckets && i < ENTRY_BUCKETS; i++)
    for (struct entry *e = atomic_load(&c->buckets[i]), *next; e; e = next) {
      next = atomic_load(&e->next);
      entry_value_drop(c, e->route.kind, atomic_load(&e->value));
      free(e);
    }
  while (c->sources && quiet_reclaim(c->quiet)) {
  }
  if (c->settings)
    settings_put(c->settings);
  config_free(c->first);
  exchange_free(atomic_load(&c->exchange));
  reader_free(c->reader);
  c->reader = NULL;
  free(c->fills);
  sources_free(c->sources);
  cache_free(c->cache);
  cache_free(c->hot);
  free((void *)(uintptr_t)c->heat);
  epoch_store_close(c->epochs);
  secret_alloc_free(&c->track_memory);
  if (c->buckets)
    munmap((void *)(uintptr_t)c->buckets, ENTRY_BUCKETS * sizeof *c->buckets);
  if (c->queue)
    munmap(c->queue, QUEUE_JOBS * sizeof *c->queue);
  if (c->root_fd >= 0)
    close(c->root_fd);
  if (c->cache_fd >= 0)
    close(c->cache_fd);
  pthread_cond_destroy(&c->queue_wake);
  pthread_cond_destroy(&c->keeper_wake);
  pthread_cond_destroy(&c->search.done);
  pthread_mutex_destroy(&c->search.lock);
  pthread_mutex_destroy(&c->lock);
  pthread_mutex_destroy(&c->queue_lock);
  pthread_mutex_destroy(&c->keeper_lock);
  free(c);
}

