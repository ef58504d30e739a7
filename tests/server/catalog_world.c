#include "catalog_world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "obs/log.h"
#include "simd/aes.h"

char dir[64], media[80], state[80];
static struct quiet quiet;
struct obs_worker metrics[2];
struct config *_Atomic published;
struct catalog *cat;

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

void quiet_point(unsigned worker) {
  quiet_leave(&quiet, worker);
  quiet_enter(&quiet, worker);
}

void wake(struct cat_wait *w) {
  pthread_mutex_lock(&lock);
  ((struct waiting *)(void *)w)->woken = true;
  pthread_cond_broadcast(&cond);
  pthread_mutex_unlock(&lock);
}

void await(struct waiting *w) {
  quiet_leave(&quiet, 0);
  pthread_mutex_lock(&lock);
  while (!w->woken)
    pthread_cond_wait(&cond, &lock);
  w->woken = false;
  pthread_mutex_unlock(&lock);
  quiet_enter(&quiet, 0);
}

// Every line of the log: whoever does not read it holds up who writes it, but nobody who wants the catalogue's lock.
static _Atomic bool line_under_lock;
_Atomic bool no_memlock;
_Atomic unsigned unlocked_lines;

void __real_log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void __wrap_log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int __real_mlock(const void *p, size_t n);
int __wrap_mlock(const void *p, size_t n);

void __wrap_log_line(enum log_level level, const char *fmt, ...) {
  char text[2048];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  __real_log_line(level, "%s", text);
  unlocked_lines += strstr(text, "cannot be locked in memory") != NULL;
  struct catalog *c = cat;
  bool got = !c;
  for (int i = 0; i < 500 && !got; i++) { // others have it for a moment
    got = !pthread_mutex_trylock(&c->lock);
    if (!got)
      usleep(2000);
  }
  if (c && got)
    pthread_mutex_unlock(&c->lock);
  line_under_lock |= !got;
}

int __wrap_mlock(const void *p, size_t n) {
  errno = ENOMEM;
  return no_memlock ? -1 : __real_mlock(p, n);
}

void write_track(const char *name, const struct synth_options *o) {
  struct synth s;
  char path[200];
  snprintf(path, sizeof path, "%s/%s", media, name);
  for (char *p = path + strlen(media) + 1; (p = strchr(p, '/')); p++) {
    *p = 0;
    mkdir(path, 0755);
    *p = '/';
  }
  synth_make(&s, o);
  cr_assert_eq(synth_write(&s, path, o->folder), 0);
  synth_free(&s);
}

static struct config *configure(const char *more_yaml) {
  struct config_error error;
  char text[1024];
  snprintf(text, sizeof text, "%s/sluice.yaml", dir);
  FILE *f = fopen(text, "w");
  fprintf(f, "media: %s\nstate_dir: %s\nhelper_threads: 3\ncache_size: 4M\n%snegative_ttl: 0\n%s", media, state,
          strstr(more_yaml, "revalidate") ? "" : "revalidate: 50ms\n", more_yaml);
  fclose(f);
  struct config *c = config_load(text, NULL, &error);
  cr_assert(c, "%s", error.text);
  return c;
}

void start(const char *yaml) {
  struct config_error error;
  struct config *c = configure(yaml);
  struct keyring *k = keyring_load(c, LACKING_MADE, &error);
  cr_assert(k, "%s", error.text);
  struct epoch_store *e = epoch_store_open(state, 1, &error);
  cr_assert(e, "%s", error.text);
  const char *why;
  quiet_init(&quiet, 1);
  struct catalog_options o = {.config = c, .keyring = k, .epochs = e, .published = &published, .quiet = &quiet,
                              .ops = aes_ops_best(NULL, &why), .metrics = &metrics[1]};
  cat = catalog_new(&o, &error);
  cr_assert(cat, "%s", error.text);
  quiet_enter(&quiet, 0);
}

static void setup(void) {
  snprintf(dir, sizeof dir, "/tmp/sluice-catalog-XXXXXX");
  cr_assert(mkdtemp(dir));
  snprintf(media, sizeof media, "%s/media", dir);
  snprintf(state, sizeof state, "%s/state", dir);
  mkdir(media, 0755);
  write_track("album/song/low.mp4", &(struct synth_options){.num_frags = 20, .samples_per_trun = 30, .min_size = 1, .max_size = 400});
  write_track("album/song/high.m4a", &(struct synth_options){.num_frags = 20, .samples_per_trun = 30, .min_size = 300, .max_size = 900});
}

static int remove_one(const char *p, const struct stat *st, int type, struct FTW *f) {
  (void)st;
  (void)type;
  (void)f;
  return remove(p);
}

static void teardown(void) {
  quiet_leave(&quiet, 0);
  cr_expect_not(line_under_lock, "a line was written under the catalogue's lock");
  struct catalog *c = cat;
  cat = NULL;
  catalog_free(c);
  nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(catalog, .init = setup, .fini = teardown, .timeout = 60);

int track(struct protected_track **out, const char *path) {
  struct route r;
  struct waiting w = {.w.wake = wake};
  *out = NULL;
  route_parse(&r, bytes_str(path));
  cr_assert(r.kind != ROUTE_NONE, "%s", path);
  int status = catalog_track(cat, out, &r, clock_mono_ms(), &metrics[0], &w.w);
  if (status == CAT_WAIT) {
    await(&w);
    *out = w.w.track;
    return w.w.status;
  }
  if (status == CAT_OK)
    track_hold(*out);
  return status;
}

int text(struct text_doc **out, const char *path) {
  struct route r;
  struct waiting w = {.w.wake = wake};
  *out = NULL;
  route_parse(&r, bytes_str(path));
  int status = catalog_text(cat, out, &r, clock_mono_ms(), &metrics[0], &w.w);
  if (status == CAT_WAIT) {
    await(&w);
    *out = w.w.text;
    return w.w.status;
  }
  if (status == CAT_OK)
    text_hold(*out);
  return status;
}

int render(struct protected_track *t, struct plan_range want, uint8_t *buf) {
  const char *why;
  const struct aes_ops *ops = aes_ops_best(NULL, &why);
  for (uint64_t off = want.off, end = want.off + want.len; off < end;) {
    struct plan_range piece = track_piece(t, off);
    struct plan_range r = {off, piece.off + piece.len < end ? piece.off + piece.len - off : end - off};
    struct waiting w = {.w.wake = wake};
    struct bytes src;
    uint64_t src_off;
    int status;
    while ((status = track_source(cat, t, &src, &src_off, off, &metrics[0], &w.w)) == CAT_WAIT) {
      await(&w);
      if (w.w.status != CAT_OK)
        return w.w.status;
      if (w.w.block) {
        src = bytes_of(w.w.block->p, w.w.block->n);
        src_off = w.w.block->src_off;
        status = CAT_OK;
        break;
      }
    }
    if (status != CAT_OK)
      return status;
    plan_render(&t->plan, ops, r, src, src_off, buf + (off - want.off));
    block_free(w.w.block);
    off += r.len;
    quiet_point(0);
  }
  return CAT_OK;
}

uint8_t *whole(struct protected_track *t) {
  uint8_t *b = malloc(t->plan.total_len);
  int status = render(t, (struct plan_range){0, t->plan.total_len}, b);
  cr_assert_eq(status, CAT_OK, "%d", status);
  return b;
}

uint8_t *direct(struct protected_track *t) {
  const char *why;
  uint64_t size = t->plan.ix->h->identity.size;
  uint8_t *src = malloc(size), *out = malloc(t->plan.total_len);
  cr_assert_eq(source_read(t->source, 0, src, size), ERR_OK);
  plan_render(&t->plan, aes_ops_best(NULL, &why), (struct plan_range){0, t->plan.total_len}, bytes_of(src, size), 0, out);
  free(src);
  return out;
}

struct config *reload(const char *yaml) {
  struct config_error error;
  struct config *c = configure(yaml);
  struct keyring *k = keyring_load(c, LACKING_MADE, &error);
  cr_assert(k, "%s", error.text);
  struct settings *fresh = catalog_prepare(cat, c, k, &error);
  cr_assert(fresh, "%s", error.text);
  catalog_reload(cat, fresh);
  return c;
}

void put_file(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  fputs(text, f);
  fclose(f);
}

struct storage storage = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, STORAGE_WORKS, 0, 0, 0, false};

static bool storage_hangs(struct media_path at) {
  return storage.state == STORAGE_HANGS || (storage.state == STORAGE_HANGS_UNKNOWN && !strncmp(at.path, "unknown/", 8));
}

static bool storage_fails(struct media_path at) {
  pthread_mutex_lock(&storage.lock);
  storage.looks++;
  storage.hung++;
  while (storage_hangs(at))
    pthread_cond_wait(&storage.changed, &storage.lock);
  storage.hung--;
  bool fails = storage.state == STORAGE_FAILS, rotates = storage.state == STORAGE_ROTATES;
  pthread_mutex_unlock(&storage.lock);
  if (rotates)
    catalog_rotated(cat, bytes_str("album/other"));
  return fails;
}

void set_storage(int to) {
  pthread_mutex_lock(&storage.lock);
  storage.state = to;
  pthread_cond_broadcast(&storage.changed);
  pthread_mutex_unlock(&storage.lock);
}

void set_reading_hangs(bool yes) {
  pthread_mutex_lock(&storage.lock);
  storage.reading_hangs = yes;
  pthread_cond_broadcast(&storage.changed);
  pthread_mutex_unlock(&storage.lock);
}

enum err __real_index_load(struct index_file *f, struct media_source *m, const struct index_options *o, struct diag *diag);
enum err __wrap_index_load(struct index_file *f, struct media_source *m, const struct index_options *o, struct diag *diag);

enum err __wrap_index_load(struct index_file *f, struct media_source *m, const struct index_options *o, struct diag *diag) {
  pthread_mutex_lock(&storage.lock);
  storage.readers++;
  while (storage.reading_hangs)
    pthread_cond_wait(&storage.changed, &storage.lock);
  storage.readers--;
  pthread_mutex_unlock(&storage.lock);
  return __real_index_load(f, m, o, diag);
}

unsigned storage_count(const unsigned *what) {
  pthread_mutex_lock(&storage.lock);
  unsigned n = *what;
  pthread_mutex_unlock(&storage.lock);
  return n;
}

enum err __real_media_open(struct media_source *m, struct media_path at, struct diag *diag);
enum err __wrap_media_open(struct media_source *m, struct media_path at, struct diag *diag);
int __real_media_open_at(struct media_path at, int flags);
int __wrap_media_open_at(struct media_path at, int flags);

enum err __wrap_media_open(struct media_source *m, struct media_path at, struct diag *diag) {
  if (!storage_fails(at))
    return __real_media_open(m, at, diag);
  *m = (struct media_source){.dir_fd = -1, .fd = -1};
  return diag_say(diag, ERR_IO, "the test's disk fails");
}

int storage_errno = EIO;

int __wrap_media_open_at(struct media_path at, int flags) {
  errno = storage_errno;
  return storage_fails(at) ? -1 : __real_media_open_at(at, flags);
}
