// The catalogue without a network: this thread plays the worker.
#include "server/catalog.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "obs/log.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "simd/aes.h"
#include "synth.h"

static char dir[64], media[80], state[80];
static struct quiet quiet;

static void quiet_point(unsigned worker) {
  quiet_leave(&quiet, worker);
  quiet_enter(&quiet, worker);
}
static struct obs_worker metrics[2];
static struct config *_Atomic published;
static struct catalog *cat;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

struct waiting {
  struct cat_wait w; // first
  bool woken;
};

static void wake(struct cat_wait *w) {
  pthread_mutex_lock(&lock);
  ((struct waiting *)(void *)w)->woken = true;
  pthread_cond_broadcast(&cond);
  pthread_mutex_unlock(&lock);
}

static void await(struct waiting *w) {
  quiet_leave(&quiet, 0);
  pthread_mutex_lock(&lock);
  while (!w->woken)
    pthread_cond_wait(&cond, &lock);
  w->woken = false;
  pthread_mutex_unlock(&lock);
  quiet_enter(&quiet, 0);
}

// Every line of the log: whoever does not read it holds up who writes it, but nobody who wants the catalogue's lock.
static _Atomic bool line_under_lock, no_memlock;
static _Atomic unsigned unlocked_lines;

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

static void write_track(const char *name, const struct synth_options *o) {
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

static void start(const char *yaml) {
  struct config_error error;
  struct config *c = configure(yaml);
  struct keyring *k = keyring_load(c, true, &error);
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

// Looks a path up as a worker does; the result has a hold. Returns the status.
static int track(struct protected_track **out, const char *path) {
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

static int text(struct text_doc **out, const char *path) {
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

// Renders a range piece by piece into `buf`; the status of the first piece that fails.
static int render(struct protected_track *t, struct plan_range want, uint8_t *buf) {
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

static uint8_t *whole(struct protected_track *t) {
  uint8_t *b = malloc(t->plan.total_len);
  int status = render(t, (struct plan_range){0, t->plan.total_len}, b);
  cr_assert_eq(status, CAT_OK, "%d", status);
  return b;
}

// The same file by the shortest way: one read of the source, one call of plan_render.
static uint8_t *direct(struct protected_track *t) {
  const char *why;
  uint64_t size = t->plan.ix->h->identity.size;
  uint8_t *src = malloc(size), *out = malloc(t->plan.total_len);
  cr_assert_eq(source_read(t->source, 0, src, size), ERR_OK);
  plan_render(&t->plan, aes_ops_best(NULL, &why), (struct plan_range){0, t->plan.total_len}, bytes_of(src, size), 0, out);
  free(src);
  return out;
}

Test(catalog, pieces_through_the_cache_are_the_virtual_file) {
  start("");
  for (int scheme = 0; scheme < 2; scheme++) {
    struct protected_track *t;
    cr_assert_eq(track(&t, scheme ? "/album/song/cbcs/1/high.mp4" : "/album/song/cenc/1/low.mp4"), CAT_OK);
    uint8_t *a = whole(t), *b = direct(t), *again = whole(t);
    cr_assert_eq(memcmp(a, b, t->plan.total_len), 0);
    cr_assert_eq(memcmp(a, again, t->plan.total_len), 0);
    free(a);
    free(b);
    free(again);
    track_drop(cat, t);
  }
  cr_assert_gt(metrics[0].cache_hits, 0u);
}

Test(catalog, init_and_segments_tile_the_file_behind_its_sidx) {
  start("");
  struct protected_track *t;
  struct route r;
  struct plan_range range;
  cr_assert_eq(track(&t, "/album/song/cbcs/1/low/init.mp4"), CAT_OK);
  route_parse(&r, bytes_str("/album/song/cbcs/1/low/init.mp4"));
  cr_assert(track_resource(t, &r, &range));
  cr_assert_eq(range.off, 0);
  uint64_t at = range.len + plan_sidx_range(&t->plan).len;
  for (r.kind = ROUTE_SEGMENT, r.segment = 1; track_resource(t, &r, &range); r.segment++) {
    cr_assert_eq(range.off, at);
    at += range.len;
  }
  cr_assert_eq(at, t->plan.total_len);
  cr_assert_eq(r.segment, t->plan.segs->num + 1);
  r.segment = 0;
  cr_assert_not(track_resource(t, &r, &range));
  track_drop(cat, t);
}

Test(catalog, that_keys_are_not_locked_in_memory_is_said_once) {
  struct protected_track *a, *b;
  no_memlock = true;
  start("");
  cr_assert_eq(track(&a, "/album/song/cbcs/1/low.mp4"), CAT_OK);
  cr_assert_eq(track(&b, "/album/song/cenc/1/low.mp4"), CAT_OK);
  cr_expect_eq(unlocked_lines, 1u);
  track_drop(cat, a);
  track_drop(cat, b);
}

Test(catalog, statuses) {
  start("schemes: [cbcs]\nassets:\n  - {prefix: free/, schemes: [clear]}\n");
  write_track("free/song/t.cmfa", &(struct synth_options){.num_frags = 3, .samples_per_trun = 10, .min_size = 10, .max_size = 20});
  struct protected_track *t;
  struct text_doc *d;
  cr_assert_eq(track(&t, "/album/song/cbcs/1/low.mp4"), CAT_OK);
  track_drop(cat, t);
  cr_assert_eq(track(&t, "/free/song/clear/1/t.mp4"), CAT_OK);
  track_drop(cat, t);
  cr_assert_eq(track(&t, "/album/song/cenc/1/low.mp4"), CAT_FORBIDDEN);
  cr_assert_eq(track(&t, "/album/song/clear/1/low.mp4"), CAT_FORBIDDEN);
  cr_assert_eq(track(&t, "/free/song/cbcs/1/t.mp4"), CAT_FORBIDDEN);
  cr_assert_eq(track(&t, "/album/song/cbcs/1/none.mp4"), CAT_NOT_FOUND);
  cr_assert_eq(track(&t, "/album/none/cbcs/1/low.mp4"), CAT_NOT_FOUND);
  cr_assert_eq(track(&t, "/album/song/cbcs/2/low.mp4"), CAT_NOT_FOUND, "an epoch that is not yet");
  cr_assert_eq(text(&d, "/none/cbcs/master.m3u8"), CAT_NOT_FOUND);
  cr_assert_eq(text(&d, "/album/cbcs/master.m3u8"), CAT_NOT_FOUND, "a folder without tracks");
  cr_assert_eq(text(&d, "/album/song/cbcs/1/low/key"), CAT_FORBIDDEN);
}

Test(catalog, licences_cost_no_lock_where_none_are_given, .timeout = 10) {
  uint8_t answer[256];
  struct route r;
  start("");
  struct writer out = wr_of(answer, sizeof answer);
  route_parse(&r, BYTES_LIT("/album/song/cbcs/1/license"));
  cr_assert_eq(r.kind, ROUTE_LICENCE);
  pthread_mutex_lock(&cat->lock); // whoever wants it now waits for ever
  int status = catalog_licence(cat, &out, &r, BYTES_LIT("{}"), &metrics[0]);
  pthread_mutex_unlock(&cat->lock);
  cr_assert_eq(status, CAT_FORBIDDEN);
}

static unsigned bucket_len(unsigned bucket) {
  unsigned n = 0;
  for (struct entry *e = atomic_load(&cat->buckets[bucket]); e; e = atomic_load(&e->next))
    n++;
  return n;
}

// Who chooses names knows the table's hash, but not its seed: long chains would make every lookup on every worker slow.
Test(catalog, names_cannot_be_chosen_to_share_a_bucket) {
  enum { NAMES = 40 };
  char path[80];
  start("");
  unsigned longest = 0;
  for (unsigned i = 0, found = 0; found < NAMES; i++) {
    int n = snprintf(path, sizeof path, "/x%u/cbcs", i) - 1;
    if (XXH3_64bits_withSeed(path + 1, (size_t)n, ROUTE_MASTER) % ENTRY_BUCKETS)
      continue;
    struct text_doc *d;
    strcat(path, "/master.m3u8");
    cr_assert_eq(text(&d, path), CAT_NOT_FOUND);
    found++;
  }
  for (unsigned b = 0; b < ENTRY_BUCKETS; b++)
    longest = bucket_len(b) > longest ? bucket_len(b) : longest;
  cr_assert(longest > 0 && longest < NAMES / 4, "%u of %u names share a bucket", longest, NAMES);
}

static enum err find_asset(const char *name) { return catalog_find_asset(cat, bytes_str(name)); }

Test(catalog, an_asset_is_found_where_its_manifest_would_be) {
  char path[200];
  start("");
  write_track("album/song/parts", &(struct synth_options){.num_frags = 3, .samples_per_trun = 5, .min_size = 5, .max_size = 9, .folder = true});
  write_track(".hidden/t.mp4", &(struct synth_options){.num_frags = 2, .samples_per_trun = 5, .min_size = 5, .max_size = 9});
  write_track("only/sub/t.mp4", &(struct synth_options){.num_frags = 2, .samples_per_trun = 5, .min_size = 5, .max_size = 9});
  snprintf(path, sizeof path, "%s/links", media);
  cr_assert_eq(mkdir(path, 0755), 0);
  snprintf(path, sizeof path, "%s/links/gone.mp4", media);
  cr_assert_eq(symlink("nowhere.mp4", path), 0);
  write_track("album/song/no\nurl.mp4", &(struct synth_options){.num_frags = 2, .samples_per_trun = 5, .min_size = 5, .max_size = 9});
  write_track("odd/no\x7furl.mp4", &(struct synth_options){.num_frags = 2, .samples_per_trun = 5, .min_size = 5, .max_size = 9});
  for (const char *const *name = (const char *const[]){"album/song", "only/sub", NULL}; *name; name++)
    cr_assert_eq(find_asset(*name), ERR_OK, "%s", *name);
  struct text_doc *song;
  cr_assert_eq(text(&song, "/album/song/cbcs/master.m3u8"), CAT_OK);
  cr_expect(memmem(song->body.p, song->body.n, "1/low/", 6) && !memmem(song->body.p, song->body.n, "url/", 4), "a manifest lists what URLs can name: %.*s",
            (int)song->body.n, song->body.p);
  text_drop(cat, song);
  for (const char *const *name = (const char *const[]){"album/song/parts", "album", ".hidden", "odd", "links", "none", "only", "album/song/low.mp4", NULL};
       *name; name++) {
    struct text_doc *d = NULL;
    snprintf(path, sizeof path, "/%s/cbcs/master.m3u8", *name);
    struct route r;
    route_parse(&r, bytes_str(path));
    cr_assert(r.kind == ROUTE_NONE || text(&d, path) == CAT_NOT_FOUND, "%s has a manifest", *name);
    cr_assert_eq(find_asset(*name), ERR_NOT_FOUND, "%s", *name);
  }
}

Test(catalog, nothing_outside_the_media_folder) {
  char a[256], b[256];
  start("");
  write_track("../outside.mp4", &(struct synth_options){.num_frags = 2, .samples_per_trun = 5, .min_size = 5, .max_size = 9});
  struct protected_track *t;
  struct text_doc *d;
  snprintf(a, sizeof a, "%s/outside.mp4", dir);
  snprintf(b, sizeof b, "%s/album/song/link.mp4", media);
  cr_assert_eq(symlink(a, b), 0);
  cr_assert_neq(track(&t, "/album/song/cbcs/1/link.mp4"), CAT_OK);
  snprintf(b, sizeof b, "%s/away", media);
  cr_assert_eq(symlink(dir, b), 0);
  cr_assert_neq(text(&d, "/away/cbcs/master.m3u8"), CAT_OK);
  cr_assert_neq(track(&t, "/away/cbcs/1/outside.mp4"), CAT_OK);
}

Test(catalog, a_replaced_file_gets_new_tags_and_ivs_and_never_mixes) {
  start("");
  struct protected_track *was, *now;
  cr_assert_eq(track(&was, "/album/song/cenc/1/low.mp4"), CAT_OK);
  struct plan_range first = plan_segment_range(&was->plan, 0);
  uint8_t *seg = malloc(first.len);
  cr_assert_eq(render(was, first, seg), CAT_OK); // segment 0 is in RAM, the others are not
  usleep(20000);
  write_track("album/song/low.mp4", &(struct synth_options){.num_frags = 21, .samples_per_trun = 30, .min_size = 2, .max_size = 400});
  uint8_t *again = malloc(first.len), *other = malloc(plan_segment_range(&was->plan, 3).len);
  int status = render(was, first, again);
  cr_assert(status == CAT_UNAVAILABLE || (status == CAT_OK && !memcmp(seg, again, first.len)), "old bytes or none");
  cr_assert_eq(render(was, plan_segment_range(&was->plan, 3), other), CAT_UNAVAILABLE, "bytes of the new file under the old plan");
  cr_assert_eq(track(&now, "/album/song/cenc/1/low.mp4"), CAT_OK);
  cr_assert_str_neq(now->etag, was->etag);
  cr_assert_neq(now->source_id, was->source_id);
  cr_assert_neq(memcmp(now->prot.iv, was->prot.iv, 8), 0, "the IVs follow the file");
  cr_assert_eq(now->plan.ix->h->num_frags, 21);
  uint8_t *a = whole(now), *b = direct(now);
  cr_assert_eq(memcmp(a, b, now->plan.total_len), 0);
  free(a);
  free(b);
  free(seg);
  free(again);
  free(other);
  track_drop(cat, was);
  track_drop(cat, now);
}

Test(catalog, a_file_changed_in_place_is_noticed_without_a_fill) {
  start("");
  struct protected_track *was, *now;
  cr_assert_eq(track(&was, "/album/song/cbcs/1/low.mp4"), CAT_OK);
  free(whole(was)); // all of it is in RAM now
  write_track("album/song/low.mp4", &(struct synth_options){.num_frags = 20, .samples_per_trun = 30, .min_size = 3, .max_size = 400});
  uint64_t deadline = clock_mono_ms() + 5000;
  bool noticed = false;
  while (!noticed && clock_mono_ms() < deadline) {
    usleep(20000);
    cr_assert_eq(track(&now, "/album/song/cbcs/1/low.mp4"), CAT_OK);
    noticed = strcmp(now->etag, was->etag) != 0;
    track_drop(cat, now);
    quiet_point(0);
  }
  cr_assert(noticed);
  track_drop(cat, was);
}

Test(catalog, an_unchanged_file_keeps_its_track) {
  start("");
  struct protected_track *a, *b;
  cr_assert_eq(track(&a, "/album/song/cbcs/1/low.mp4"), CAT_OK);
  usleep(600000); // longer than what may be served unseen
  cr_assert_eq(track(&b, "/album/song/cbcs/1/low.mp4"), CAT_OK);
  cr_assert_eq(a, b);
  track_drop(cat, a);
  track_drop(cat, b);
}

Test(catalog, rotation_takes_effect_at_once_and_old_urls_answer) {
  start("");
  struct protected_track *one, *two, *t;
  struct diag diag = {0};
  struct text_doc *d;
  cr_assert_eq(track(&one, "/album/song/cenc/1/low.mp4"), CAT_OK);
  cr_assert_eq(text(&d, "/album/song/cenc/master.m3u8"), CAT_OK);
  cr_assert(memmem(d->body.p, d->body.n, "1/low/media.m3u8", 16));
  text_drop(cat, d);
  cr_assert_eq(epoch_store_rotate(catalog_epochs(cat), bytes_str("album/"), 3600000, false, clock_unix_ms(), &diag), ERR_OK);
  catalog_rotated(cat, bytes_str("album/"));
  cr_assert_eq(text(&d, "/album/song/cenc/master.m3u8"), CAT_OK);
  cr_assert(memmem(d->body.p, d->body.n, "2/low/media.m3u8", 16), "%.*s", (int)d->body.n, d->body.p);
  text_drop(cat, d);
  cr_assert_eq(track(&two, "/album/song/cenc/2/low.mp4"), CAT_OK);
  cr_assert_neq(memcmp(one->prot.kid, two->prot.kid, 16), 0);
  cr_assert_neq(memcmp(one->prot.key.enc, two->prot.key.enc, 16), 0);
  cr_assert_neq(memcmp(one->prot.iv, two->prot.iv, 8), 0);
  cr_assert_str_neq(one->etag, two->etag);
  cr_assert_eq(one->source, two->source, "one index for both");
  cr_assert_eq(track(&t, "/album/song/cenc/1/low.mp4"), CAT_OK);
  cr_assert_str_eq(t->etag, one->etag, "the old epoch's bytes are what they were");
  track_drop(cat, t);
  cr_assert_eq(epoch_store_rotate(catalog_epochs(cat), bytes_str(""), 0, true, clock_unix_ms(), &diag), ERR_OK);
  catalog_rotated(cat, bytes_str(""));
  cr_assert_eq(track(&t, "/album/song/cenc/1/low.mp4"), CAT_GONE);
  cr_assert_eq(track(&t, "/album/song/cenc/2/low.mp4"), CAT_GONE);
  cr_assert_eq(track(&t, "/album/song/cenc/3/low.mp4"), CAT_OK);
  track_drop(cat, t);
  track_drop(cat, one);
  track_drop(cat, two);
}

// Who rotates one asset does not make everybody else's wait for a look at storage.
Test(catalog, a_rotation_is_of_its_scope_alone) {
  static const struct {
    const char *scope, *again; // the asset's path that is made anew; others are not
  } cases[] = {{"album/song", "/album/song/"}, {"album/", "/album/"}, {"x/", "/x/"}, {"album/son", ""}, {"x/y", "/x/y/"}, {"x", ""}, {"", "/"}};
  static const char *const paths[] = {"/album/song/cbcs/1/low.mp4", "/album/other/cbcs/1/t.mp4", "/x/y/cenc/1/t.mp4", "/album/song/cbcs/master.m3u8"};
  const struct synth_options small = {.num_frags = 2, .samples_per_trun = 5, .min_size = 9, .max_size = 90};
  write_track("album/other/t.mp4", &small);
  write_track("x/y/t.mp4", &small);
  start("revalidate: 1m\n");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct diag diag = {0};
    struct protected_track *t;
    struct text_doc *d;
    for (int k = 0; k < 3; k++) {
      cr_assert_eq(track(&t, paths[k]), CAT_OK);
      track_drop(cat, t);
    }
    cr_assert_eq(text(&d, paths[3]), CAT_OK);
    text_drop(cat, d);
    cr_assert_eq(epoch_store_rotate(cat->epochs, bytes_str(cases[i].scope), 60000, false, clock_unix_ms(), &diag), ERR_OK);
    catalog_rotated(cat, bytes_str(cases[i].scope));
    for (int k = 0; k < 4; k++) {
      struct route r;
      struct waiting w = {.w.wake = wake};
      void *out;
      route_parse(&r, bytes_str(paths[k]));
      int status = k < 3 ? catalog_track(cat, (struct protected_track **)&out, &r, clock_mono_ms(), &metrics[0], &w.w)
                         : catalog_text(cat, (struct text_doc **)&out, &r, clock_mono_ms(), &metrics[0], &w.w);
      bool again = *cases[i].again && !strncmp(paths[k], cases[i].again, strlen(cases[i].again));
      cr_expect_eq(status, again ? CAT_WAIT : CAT_OK, "%s after a rotation of \"%s\": %d", paths[k], cases[i].scope, status);
      if (status != CAT_WAIT)
        continue;
      await(&w);
      cr_expect_eq(w.w.status, CAT_OK);
      if (k < 3)
        track_drop(cat, w.w.track);
      else
        text_drop(cat, w.w.text);
    }
  }
}

static struct config *reload(const char *yaml) {
  struct config_error error;
  struct config *c = configure(yaml);
  struct keyring *k = keyring_load(c, true, &error);
  cr_assert(k, "%s", error.text);
  struct settings *fresh = catalog_prepare(cat, c, k, &error);
  cr_assert(fresh, "%s", error.text);
  catalog_reload(cat, fresh);
  return c;
}

static void put_file(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  fputs(text, f);
  fclose(f);
}

Test(catalog, reload_swaps_keys_and_rules) {
  start("");
  struct protected_track *t, *other;
  char path[200];
  cr_assert_eq(track(&t, "/album/song/cbcs/1/low.mp4"), CAT_OK);
  snprintf(path, sizeof path, "%s/keys.yaml", dir);
  put_file(path, "keys:\n  - {asset: album/song, epoch: 1, scheme: cbcs, kid: 000102030405060708090a0b0c0d0e0f, "
                 "key: 101112131415161718191a1b1c1d1e1f}\n");
  char yaml[300];
  snprintf(yaml, sizeof yaml, "keys: %s\nschemes: [cbcs]\n", path);
  struct config *c = reload(yaml);
  cr_assert_eq(atomic_load(&published), c);
  cr_assert_eq(track(&other, "/album/song/cbcs/1/low.mp4"), CAT_OK);
  cr_assert_str_neq(t->etag, other->etag);
  cr_assert_eq(other->prot.kid[15], 0x0f);
  track_drop(cat, t);
  track_drop(cat, other);
  cr_assert_eq(track(&t, "/album/song/cenc/1/low.mp4"), CAT_FORBIDDEN);
}

Test(catalog, folders_of_segments) {
  start("");
  write_track("album/song/parts", &(struct synth_options){.num_frags = 9, .samples_per_trun = 20, .min_size = 10, .max_size = 300,
                                                           .folder = true, .styp = true});
  struct protected_track *t;
  cr_assert_eq(track(&t, "/album/song/cbcs/1/parts/9.m4s"), CAT_OK);
  cr_assert_eq(t->plan.segs->num, 9, "a part is a segment: %u", t->plan.segs->num);
  uint8_t *a = whole(t), *b = direct(t);
  cr_assert_eq(memcmp(a, b, t->plan.total_len), 0);
  free(a);
  free(b);
  // The folder is a track, not an asset with a track called "init".
  struct text_doc *d;
  cr_assert_eq(text(&d, "/album/song/parts/cbcs/master.m3u8"), CAT_NOT_FOUND);
  cr_assert_eq(text(&d, "/album/song/parts/cbcs/1/init/media.m3u8"), CAT_NOT_FOUND);
  cr_assert_eq(track(&(struct protected_track *){NULL}, "/album/song/parts/cbcs/1/init.mp4"), CAT_NOT_FOUND);
  write_track("plain/init.mp4", &(struct synth_options){.num_frags = 3, .samples_per_trun = 10, .min_size = 10, .max_size = 20});
  cr_assert_eq(text(&d, "/plain/cbcs/master.m3u8"), CAT_OK, "a track of that name is fine elsewhere");
  text_drop(cat, d);
  char path[200];
  snprintf(path, sizeof path, "%s/album/song/parts/5.m4s", media);
  cr_assert_eq(truncate(path, 100), 0);
  usleep(600000);
  struct protected_track *now;
  cr_assert_neq(track(&now, "/album/song/cbcs/1/parts/9.m4s"), CAT_OK, "a cut part is an error, not other bytes");
  track_drop(cat, t);
}

// A mode, a link and the same bytes under the same name leave an open source what it is; other bytes do not, whatever the time.
Test(catalog, an_open_source_is_its_bytes) {
  start("");
  char path[200], fresh[200];
  static uint8_t want[1 << 20], got[1 << 20], all[1 << 20];
  struct protected_track *t, *now;
  struct stat st;
  snprintf(path, sizeof path, "%s/album/song/low.mp4", media);
  snprintf(fresh, sizeof fresh, "%s/.new", media);
  cr_assert_eq(track(&t, "/album/song/cenc/1/low.mp4"), CAT_OK);
  size_t size = (size_t)t->plan.ix->h->identity.size;
  cr_assert_lt(size, sizeof want);
  cr_assert_eq(source_read(t->source, 0, want, size), ERR_OK);
  for (int i = 0; i < 4; i++) {
    cr_assert_eq(stat(path, &st), 0);
    struct timespec times[2] = {st.st_atim, st.st_mtim};
    if (i == 0) {
      cr_assert_eq(chmod(path, 0600), 0);
    } else if (i == 1) {
      cr_assert_eq(link(path, fresh), 0);
    } else {
      memcpy(all, want, size);
      all[size - 1] ^= i == 3;
      (void)unlink(fresh);
      int fd = open(fresh, O_WRONLY | O_CREAT, 0644);
      cr_assert(fd >= 0 && write(fd, all, size) == (ssize_t)size && !futimens(fd, times) && !close(fd));
      cr_assert_eq(rename(fresh, path), 0);
    }
    enum err e = source_read(t->source, 0, got, size);
    cr_assert_eq(e, i == 3 ? ERR_STALE : ERR_OK, "way %d", i);
    cr_assert(i == 3 || !memcmp(got, want, size));
    cr_assert_eq(atomic_load(&t->source->changed), i == 3);
    usleep(600000); // beyond `revalidate`: the next look is at storage
    cr_assert_eq(track(&now, "/album/song/cenc/1/low.mp4"), CAT_OK);
    cr_assert_eq(now->source == t->source, i != 3, "way %d", i);
    cr_assert_eq(!strcmp(now->etag, t->etag), i != 3);
    cr_assert_eq(!memcmp(now->prot.iv, t->prot.iv, 8), i != 3);
    track_drop(cat, now);
    quiet_point(0);
  }
  track_drop(cat, t);
}

static unsigned variants(const struct text_doc *d) {
  static const char tag[] = "#EXT-X-STREAM-INF:";
  unsigned num = 0;
  const uint8_t *end = d->body.p + d->body.n;
  for (const uint8_t *p = d->body.p; (p = memmem(p, (size_t)(end - p), tag, sizeof tag - 1)); p++)
    num++;
  return num;
}

// A manifest lacks a track only when that track's file is at fault; when this server is, there is none.
Test(catalog, a_manifest_is_whole_or_is_not_there) {
  start("write_sidecars: false\n");
  write_track("album/song/parts", &(struct synth_options){.num_frags = 3, .samples_per_trun = 20, .min_size = 10, .max_size = 300,
                                                           .folder = true, .styp = true});
  char path[200];
  snprintf(path, sizeof path, "%s/album/song/damaged.mp4", media);
  FILE *f = fopen(path, "w");
  fputs("no boxes", f);
  fclose(f);
  // One descriptor is free: enough for a file, not for the listing of a folder that is open.
  int next = dup(0);
  close(next);
  struct rlimit was, now;
  getrlimit(RLIMIT_NOFILE, &was);
  now = (struct rlimit){(rlim_t)next + 1, was.rlim_max};
  cr_assert_eq(setrlimit(RLIMIT_NOFILE, &now), 0);
  struct text_doc *d;
  int status = text(&d, "/album/song/cbcs/master.m3u8"), mpd = text(&d, "/album/song/cenc/manifest.mpd");
  struct protected_track *t, *none;
  int low = track(&t, "/album/song/cbcs/1/low.mp4"), parts = track(&none, "/album/song/cbcs/1/parts.mp4");
  setrlimit(RLIMIT_NOFILE, &was);
  cr_assert_eq(low, CAT_OK, "one descriptor is enough for a file");
  track_drop(cat, t);
  cr_assert_eq(parts, CAT_UNAVAILABLE);
  cr_assert_eq(status, CAT_UNAVAILABLE);
  cr_assert_eq(mpd, CAT_UNAVAILABLE);
  cr_assert_eq(text(&d, "/album/song/cbcs/master.m3u8"), CAT_OK);
  cr_assert_eq(variants(d), 3);
  text_drop(cat, d);
}

Test(catalog, many_names_stay_within_the_budget) {
  start("index_size: 1M\n");
  char path[200], url[200];
  for (int i = 0; i < 60; i++) {
    snprintf(path, sizeof path, "many/%d/t.mp4", i);
    write_track(path, &(struct synth_options){.num_frags = 60, .samples_per_trun = 60, .min_size = 1, .max_size = 9});
  }
  struct catalog_usage u;
  uint64_t most = 0;
  for (int i = 0; i < 600; i++) {
    struct protected_track *t;
    snprintf(url, sizeof url, "/many/%d/cenc/1/t.mp4", i % 60);
    cr_assert_eq(track(&t, url), CAT_OK);
    track_drop(cat, t);
    quiet_point(0);
    catalog_usage(cat, &u);
    most = u.index_bytes > most ? u.index_bytes : most;
    if (u.index_bytes > 1 << 20)
      usleep(4000);
  }
  cr_assert_gt(most, 1u << 20, "the test did not reach the limit: %llu", (unsigned long long)most);
  cr_assert_lt(most, 3u << 20, "%llu", (unsigned long long)most);
  for (int i = 0; i < 100 && u.index_bytes > 1 << 20; i++, usleep(10000)) {
    quiet_point(0);
    catalog_usage(cat, &u);
  }
  cr_assert_leq(u.index_bytes, 1u << 20);
}

// A flood on a cold name opens it once.
Test(catalog, many_askers_one_opening) {
  enum { ASKERS = 300 };
  start("");
  static struct waiting w[ASKERS];
  struct route r;
  struct protected_track *t;
  route_parse(&r, bytes_str("/album/song/cbcs/1/high/1.m4s"));
  unsigned waits = 0;
  for (int i = 0; i < ASKERS; i++) {
    w[i].w.wake = wake;
    waits += catalog_track(cat, &t, &r, clock_mono_ms(), &metrics[0], &w[i].w) == CAT_WAIT;
  }
  for (unsigned i = 0; i < waits; i++) {
    await(&w[i]);
    cr_assert_eq(w[i].w.status, CAT_OK);
    cr_assert_eq(w[i].w.track, w[0].w.track);
    track_drop(cat, w[i].w.track);
  }
  cr_assert_gt(waits, 0u);
  cr_assert_eq(metrics[1].keys_derived, 1, "%llu", (unsigned long long)metrics[1].keys_derived);
  cr_assert_eq(metrics[1].index_built + metrics[1].index_sidecar, 1);
}

// Storage under the catalogue: as it is, failing at every look, or not answering at all until it is let go.
static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  enum { STORAGE_WORKS, STORAGE_FAILS, STORAGE_HANGS, STORAGE_ROTATES } state; // the last: another asset is rotated at every look
  unsigned hung, looks;
} storage = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, STORAGE_WORKS, 0, 0};

static bool storage_fails(void) {
  pthread_mutex_lock(&storage.lock);
  storage.looks++;
  storage.hung++;
  while (storage.state == STORAGE_HANGS)
    pthread_cond_wait(&storage.changed, &storage.lock);
  storage.hung--;
  bool fails = storage.state == STORAGE_FAILS, rotates = storage.state == STORAGE_ROTATES;
  pthread_mutex_unlock(&storage.lock);
  if (rotates)
    catalog_rotated(cat, bytes_str("album/other"));
  return fails;
}

static void set_storage(int to) {
  pthread_mutex_lock(&storage.lock);
  storage.state = to;
  pthread_cond_broadcast(&storage.changed);
  pthread_mutex_unlock(&storage.lock);
}

static unsigned storage_count(const unsigned *what) {
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
  if (!storage_fails())
    return __real_media_open(m, at, diag);
  *m = (struct media_source){.dir_fd = -1, .fd = -1};
  return diag_say(diag, ERR_IO, "the test's disk fails");
}

static int storage_errno = EIO;

int __wrap_media_open_at(struct media_path at, int flags) {
  errno = storage_errno;
  return storage_fails() ? -1 : __real_media_open_at(at, flags);
}

static const char low[] = "/album/song/cbcs/1/low.mp4", master[] = "/album/song/cbcs/master.m3u8";

// A track and a manifest, asked for again and again for `ms`: both must be what they were.
static void asked_for(uint64_t ms, const struct protected_track *t, const struct text_doc *d) {
  for (uint64_t end = clock_mono_ms() + ms; clock_mono_ms() < end; usleep(20000)) {
    struct protected_track *t2;
    struct text_doc *d2;
    cr_assert_eq(track(&t2, low), CAT_OK);
    cr_assert_eq(t2, t);
    cr_assert_eq(text(&d2, master), CAT_OK);
    cr_assert_eq(d2, d);
    track_drop(cat, t2);
    text_drop(cat, d2);
    quiet_point(0);
  }
}

Test(catalog, what_is_in_memory_outlives_storage_that_fails) {
  struct protected_track *t, *other;
  struct text_doc *d, *none;
  FILE *log = tmpfile();
  int before = dup(STDERR_FILENO);
  start("stale_if_error: 3s\n"); // and revalidate 50 ms: unseen for at most 400 ms
  cr_assert_eq(track(&t, low), CAT_OK);
  free(whole(t)); // and its segments are in RAM
  cr_assert_eq(text(&d, master), CAT_OK);
  dup2(fileno(log), STDERR_FILENO);
  set_storage(STORAGE_FAILS);
  uint64_t since = clock_mono_ms();
  unsigned looks = storage_count(&storage.looks);
  asked_for(1200, t, d);
  free(whole(t));
  cr_expect_leq(storage_count(&storage.looks) - looks, 120, "two entries are looked at about every 50 ms: %u", storage.looks - looks);
  usleep(700000); // nobody asks meanwhile
  cr_assert_lt(clock_mono_ms() - since, 3000u, "the machine is too slow for this test");
  asked_for(100, t, d);
  cr_expect_eq(track(&other, "/album/song/cbcs/1/high.mp4"), CAT_UNAVAILABLE, "what is not in memory cannot be had");
  cr_expect_gt(metrics[1].looks_failed, 2u);
  while (clock_mono_ms() - since < 3600)
    usleep(10000);
  cr_expect_eq(track(&other, low), CAT_UNAVAILABLE, "not for ever");
  cr_expect_eq(text(&none, master), CAT_UNAVAILABLE);
  text_drop(cat, d);
  dup2(before, STDERR_FILENO);
  unsigned said = 0, more = 0, served = 0;
  rewind(log);
  for (char line[1024]; fgets(line, sizeof line, log);) {
    said += strstr(line, "the test's disk fails") || strstr(line, "the folder cannot be listed");
    more += strstr(line, "more looks at storage that failed)") != NULL;
    served += strstr(line, "storage fails: what is in memory is served as it was, for at most 3 s") != NULL;
  }
  cr_expect(said >= 2 && said <= 6 && more >= 1 && served == 1, "lines: %u of the disk, %u with a number, %u of what is served", said, more, served);
  fclose(log);
  close(before);
  set_storage(STORAGE_WORKS);
  cr_assert_eq(track(&other, low), CAT_OK);
  track_drop(cat, other);
  track_drop(cat, t);
}

// Players ask for a manifest first, and of one that is not there they ask for nothing else: it must say itself why.
Test(catalog, a_folder_that_cannot_be_listed_is_said) {
  static const struct {
    int why, status;
    const char *path, *said;
  } cases[] = {{EACCES, CAT_NOT_FOUND, "/album/song/cbcs/master.m3u8", "album/song: the folder cannot be listed: Permission denied"},
               {EIO, CAT_UNAVAILABLE, "/album/song/cenc/master.m3u8", "album/song: the folder cannot be listed: Input/output error"},
               {ENOENT, CAT_NOT_FOUND, "/album/none/cenc/master.m3u8", NULL}};
  start("");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct text_doc *d;
    FILE *log = tmpfile();
    int before = dup(STDERR_FILENO);
    dup2(fileno(log), STDERR_FILENO);
    storage_errno = cases[i].why;
    set_storage(STORAGE_FAILS);
    int status = text(&d, cases[i].path);
    set_storage(STORAGE_WORKS);
    dup2(before, STDERR_FILENO);
    close(before);
    unsigned lines = 0, said = 0;
    rewind(log);
    for (char line[1024]; fgets(line, sizeof line, log); lines++)
      said += cases[i].said && strstr(line, cases[i].said);
    fclose(log);
    cr_expect_eq(status, cases[i].status, "%s: %d", cases[i].path, status);
    cr_expect(said == (cases[i].said != NULL) && lines == said, "%s: %u lines, %u say it", cases[i].path, lines, said);
  }
}

Test(catalog, a_change_during_an_outage_is_seen_after_it) {
  struct protected_track *t, *now;
  start("");
  cr_assert_eq(track(&t, low), CAT_OK);
  set_storage(STORAGE_FAILS);
  write_track("album/song/low.mp4", &(struct synth_options){.num_frags = 20, .samples_per_trun = 30, .min_size = 3, .max_size = 400});
  usleep(600000);
  cr_assert_eq(track(&now, low), CAT_OK);
  cr_assert_eq(now, t);
  track_drop(cat, now);
  set_storage(STORAGE_WORKS);
  bool noticed = false;
  for (uint64_t end = clock_mono_ms() + 5000; !noticed && clock_mono_ms() < end; usleep(10000)) {
    cr_assert_eq(track(&now, low), CAT_OK);
    noticed = strcmp(now->etag, t->etag) != 0;
    track_drop(cat, now);
    quiet_point(0);
  }
  cr_assert(noticed);
  track_drop(cat, t);
}

static struct waiting strangers[3];

// As many names that nobody had asked for as there are helpers: all of these hang.
static void hang(void) {
  struct protected_track *t;
  struct route r;
  set_storage(STORAGE_HANGS);
  for (int i = 0; i < 3; i++) {
    char path[64];
    snprintf(path, sizeof path, "/nobody/%d/cbcs/1/t.mp4", i);
    route_parse(&r, bytes_str(path));
    strangers[i] = (struct waiting){.w.wake = wake};
    cr_assert_eq(catalog_track(cat, &t, &r, clock_mono_ms(), &metrics[0], &strangers[i].w), CAT_WAIT);
  }
  for (int i = 0; i < 1000 && storage_count(&storage.hung) < 3; i++)
    usleep(5000);
  cr_assert_eq(storage_count(&storage.hung), 3);
}

static void let_go(void) {
  set_storage(STORAGE_WORKS);
  for (int i = 0; i < 3; i++) {
    await(&strangers[i]);
    cr_expect_eq(strangers[i].w.status, CAT_NOT_FOUND);
  }
}

Test(catalog, what_is_in_memory_outlives_storage_that_does_not_answer) {
  struct protected_track *t, *again;
  struct text_doc *d;
  start("stale_if_error: 30s\n");
  cr_assert_eq(track(&t, low), CAT_OK);
  free(whole(t));
  cr_assert_eq(text(&d, master), CAT_OK);
  set_storage(STORAGE_HANGS);
  asked_for(1500, t, d); // the looks themselves hang
  set_storage(STORAGE_WORKS);
  asked_for(200, t, d);
  hang();
  asked_for(1500, t, d); // looks wait behind others
  usleep(600000);
  asked_for(100, t, d);
  free(whole(t));
  cr_expect_gt(metrics[1].looks_silent, 1u);
  cr_expect_lt(metrics[1].looks_silent, 20u, "counted once each");
  let_go();
  usleep(600000);
  cr_assert_eq(track(&again, low), CAT_OK);
  cr_assert_eq(again, t);
  track_drop(cat, again);
  track_drop(cat, t);
  text_drop(cat, d);
}

// However many wait behind looks that hang, each is given what is in memory, and soon.
Test(catalog, all_who_wait_for_storage_get_what_is_in_memory) {
  enum { NAMES = 300 };
  static struct waiting w[NAMES];
  static struct protected_track *t[NAMES];
  char path[64];
  struct route r;
  for (int i = 0; i < NAMES; i++) {
    snprintf(path, sizeof path, "many/%d/t.mp4", i);
    write_track(path, &(struct synth_options){.num_frags = 1, .samples_per_trun = 2, .min_size = 1, .max_size = 9});
  }
  start("write_sidecars: false\n");
  for (int i = 0; i < NAMES; i++) {
    snprintf(path, sizeof path, "/many/%d/cbcs/1/t.mp4", i);
    cr_assert_eq(track(&t[i], path), CAT_OK);
  }
  usleep(600000); // all of them have to be looked at
  hang();
  for (int i = 0; i < NAMES; i++) {
    struct protected_track *out;
    snprintf(path, sizeof path, "/many/%d/cbcs/1/t.mp4", i);
    route_parse(&r, bytes_str(path));
    w[i] = (struct waiting){.w.wake = wake};
    cr_assert_eq(catalog_track(cat, &out, &r, clock_mono_ms(), &metrics[0], &w[i].w), CAT_WAIT);
  }
  for (int i = 0; i < NAMES; i++) {
    await(&w[i]);
    cr_assert_eq(w[i].w.status, CAT_OK);
    cr_assert_eq(w[i].w.track, t[i]);
    track_drop(cat, w[i].w.track);
    track_drop(cat, t[i]);
  }
  let_go();
}

// The queue is full of names that nobody knows.
Test(catalog, what_is_in_memory_is_served_beside_a_full_queue) {
  static struct waiting w[QUEUE_JOBS];
  struct protected_track *t, *out;
  struct route r;
  start("write_sidecars: false\n");
  cr_assert_eq(track(&t, low), CAT_OK);
  hang();
  unsigned num = 0;
  for (int status = CAT_WAIT; status == CAT_WAIT && num < QUEUE_JOBS; num += status == CAT_WAIT) {
    char path[64];
    snprintf(path, sizeof path, "/unknown/%u/cbcs/1/t.mp4", num);
    route_parse(&r, bytes_str(path));
    w[num] = (struct waiting){.w.wake = wake};
    status = catalog_track(cat, &out, &r, clock_mono_ms(), &metrics[0], &w[num].w);
    cr_assert(status == CAT_WAIT || (status == CAT_UNAVAILABLE && num == QUEUE_JOBS));
  }
  usleep(600000);
  struct waiting mine = {.w.wake = wake};
  route_parse(&r, bytes_str(low));
  cr_expect_eq(catalog_track(cat, &out, &r, clock_mono_ms(), &metrics[0], &mine.w), CAT_OK);
  cr_expect_eq(out, t);
  struct diag diag = {0};
  cr_assert_eq(epoch_store_rotate(cat->epochs, bytes_str("album/song"), 0, true, clock_unix_ms(), &diag), ERR_OK);
  catalog_rotated(cat, bytes_str("album/song"));
  cr_expect_eq(catalog_track(cat, &out, &r, clock_mono_ms(), &metrics[0], &mine.w), CAT_UNAVAILABLE, "but not what was revoked");
  let_go();
  for (unsigned i = 0; i < num; i++)
    await(&w[i]);
  track_drop(cat, t);
}

// A reload for a certificate's sake, which is in neither: what is in memory stays, and outlives storage. Any byte that keys or
// rules come from makes everything anew.
Test(catalog, a_reload_of_the_same_changes_nothing) {
  char keys[100], yaml[200], more[300], secret[100];
  struct protected_track *t, *other;
  snprintf(keys, sizeof keys, "%s/keys.yaml", dir);
  snprintf(secret, sizeof secret, "%s/master.key", dir);
  snprintf(yaml, sizeof yaml, "keys: %s\nrevalidate: 1m\n", keys);
  snprintf(more, sizeof more, "%scors_origin: https://example.com\n", yaml);
  put_file(keys, "derive: { secret_file: master.key }\n");
  put_file(secret, "0123456789abcdef0123456789abcdef");
  for (int change = 0; change < 4; change++) {
    if (!change)
      start(yaml);
    cr_assert_eq(track(&t, low), CAT_OK);
    set_storage(STORAGE_FAILS);
    reload(change == 2 ? more : yaml); // the third differs from what was loaded before, and so does the fourth
    if (change == 0)
      reload(yaml);
    cr_expect_eq(track(&other, low), change == 0 ? CAT_OK : CAT_UNAVAILABLE, "change %d", change);
    if (change == 0) {
      cr_expect_eq(other, t);
      track_drop(cat, other);
    }
    set_storage(STORAGE_WORKS);
    track_drop(cat, t);
    if (change == 0)
      put_file(secret, "0123456789abcdef0123456789abcdeF");
  }
}

// Rules come before storage: nobody gets a track of an epoch that was revoked because storage does not answer.
Test(catalog, storage_that_does_not_answer_keeps_nothing_revoked) {
  struct protected_track *t, *old, *other;
  struct diag diag = {0};
  struct route r;
  write_track("album/other/t.mp4", &(struct synth_options){.num_frags = 2, .samples_per_trun = 5, .min_size = 9, .max_size = 90});
  start("stale_if_error: 30s\n");
  cr_assert_eq(track(&t, low), CAT_OK);
  cr_assert_eq(track(&other, "/album/other/cbcs/1/t.mp4"), CAT_OK);
  hang();
  cr_assert_eq(epoch_store_rotate(cat->epochs, bytes_str("album/song"), 0, true, clock_unix_ms(), &diag), ERR_OK);
  catalog_rotated(cat, bytes_str("album/song"));
  struct waiting w = {.w.wake = wake};
  route_parse(&r, bytes_str(low));
  cr_assert_eq(catalog_track(cat, &old, &r, clock_mono_ms(), &metrics[0], &w.w), CAT_WAIT);
  usleep(1500000);
  pthread_mutex_lock(&lock);
  cr_expect_not(w.woken);
  pthread_mutex_unlock(&lock);
  track_drop(cat, other);
  cr_expect_eq(track(&other, "/album/other/cbcs/1/t.mp4"), CAT_OK, "whose keys were not touched");
  track_drop(cat, other);
  let_go();
  await(&w);
  cr_expect_eq(w.w.status, CAT_GONE);
  track_drop(cat, t);
}

// Who asks while a look is under way that began before a revocation is told what holds now.
Test(catalog, nobody_shares_a_look_from_before_a_revocation) {
  struct protected_track *t;
  struct diag diag = {0};
  struct route r;
  start("stale_if_error: 0\n");
  route_parse(&r, bytes_str(low));
  set_storage(STORAGE_HANGS);
  struct waiting before = {.w.wake = wake}, after = {.w.wake = wake};
  cr_assert_eq(catalog_track(cat, &t, &r, clock_mono_ms(), &metrics[0], &before.w), CAT_WAIT);
  while (!storage_count(&storage.hung))
    usleep(5000);
  cr_assert_eq(epoch_store_rotate(cat->epochs, bytes_str("album/song"), 0, true, clock_unix_ms(), &diag), ERR_OK);
  catalog_rotated(cat, bytes_str("album/song"));
  cr_assert_eq(catalog_track(cat, &t, &r, clock_mono_ms(), &metrics[0], &after.w), CAT_WAIT);
  usleep(100000);
  set_storage(STORAGE_WORKS);
  await(&after);
  cr_expect_eq(after.w.status, CAT_GONE);
  await(&before);
  if (before.w.status == CAT_OK)
    track_drop(cat, before.w.track);
}

// However often others are rotated: a look at storage that takes longer than the time between two rotations is as good.
Test(catalog, rotations_of_others_make_no_look_be_done_again) {
  struct protected_track *t;
  struct text_doc *d;
  start("revalidate: 1m\n");
  set_storage(STORAGE_ROTATES);
  unsigned looks = storage_count(&storage.looks);
  cr_expect_eq(track(&t, low), CAT_OK);
  cr_expect_leq(storage_count(&storage.looks) - looks, 4u, "%u looks", storage.looks - looks);
  cr_expect_eq(text(&d, master), CAT_OK);
  set_storage(STORAGE_WORKS);
  looks = storage_count(&storage.looks);
  if (t)
    track_drop(cat, t);
  cr_expect_eq(track(&t, low), CAT_OK);
  cr_expect_eq(storage_count(&storage.looks), looks, "and holds after them");
  if (t)
    track_drop(cat, t);
  if (d)
    text_drop(cat, d);
}

// Where a track is made: between the look at its file and the end of it.
static void (*making)(struct plan *p);

enum err __real_plan_init(struct plan *p, const struct track_index *ix, const struct ix_segments *segs, const struct protection *prot, struct diag *diag);
enum err __wrap_plan_init(struct plan *p, const struct track_index *ix, const struct ix_segments *segs, const struct protection *prot, struct diag *diag);

enum err __wrap_plan_init(struct plan *p, const struct track_index *ix, const struct ix_segments *segs, const struct protection *prot, struct diag *diag) {
  enum err e = __real_plan_init(p, ix, segs, prot, diag);
  if (making)
    making(p);
  return e;
}

static struct protected_track *in_memory;
static struct waiting asked;
static int asked_status;

// A read finds the file changed, and somebody asks.
static void change_and_ask(struct plan *p) {
  struct protected_track *t;
  struct route r;
  (void)p;
  making = NULL;
  atomic_store(&in_memory->source->changed, true);
  route_parse(&r, bytes_str(low));
  asked = (struct waiting){.w.wake = wake};
  asked_status = catalog_track(cat, &t, &r, clock_mono_ms(), &metrics[0], &asked.w);
  usleep(100000); // another helper lets it wait for this one
}

Test(catalog, nobody_shares_a_look_from_before_a_change) {
  struct protected_track *t;
  start("revalidate: 1m\n");
  cr_assert_eq(track(&in_memory, low), CAT_OK);
  catalog_changed(cat);
  making = change_and_ask;
  int status = track(&t, low);
  cr_assert_eq(asked_status, CAT_WAIT);
  await(&asked);
  cr_expect_eq(asked.w.status, CAT_OK);
  cr_expect(asked.w.track && !atomic_load(&asked.w.track->source->changed), "a track whose bytes cannot be had");
  if (status == CAT_OK)
    track_drop(cat, t);
  if (asked.w.track)
    track_drop(cat, asked.w.track);
  track_drop(cat, in_memory);
}

// A piece that is being put into the cache of encrypted segments while its epoch is revoked leaves it soon after.
Test(catalog, what_was_being_encrypted_when_it_was_revoked_leaves_the_cache) {
  struct protected_track *t;
  struct hot h;
  struct diag diag = {0};
  struct catalog_usage u = {0};
  start("revalidate: 1m\ncache_encrypted: 2M\n");
  cr_assert_eq(track(&t, low), CAT_OK);
  struct plan_range piece = plan_segment_range(&t->plan, 0);
  enum hot_got got = HOT_NONE;
  for (int i = 0; i < 100 && got == HOT_NONE; i++)
    got = catalog_hot(cat, &h, t, piece, true, &metrics[0]);
  cr_assert_eq(got, HOT_FILL);
  cr_assert_eq(epoch_store_rotate(cat->epochs, bytes_str("album/song"), 0, true, clock_unix_ms(), &diag), ERR_OK);
  catalog_rotated(cat, bytes_str("album/song"));
  usleep(1000000); // the keeper flushes what is there
  catalog_hot_done(cat, &h, true);
  catalog_usage(cat, &u);
  cr_assert_eq(u.hot.blocks, 1);
  for (int i = 0; i < 120 && u.hot.blocks; i++) {
    usleep(100000);
    catalog_usage(cat, &u);
  }
  cr_expect_eq(u.hot.blocks, 0);
  track_drop(cat, t);
}
