// The catalogue while media change, keys rotate and configurations are loaded.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "catalog_world.h"

static const char low[] = "/album/song/cbcs/1/low.mp4", master[] = "/album/song/cbcs/master.m3u8";

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

static const char *to_change; // in place, once something has been read
ssize_t __real_pread64(int fd, void *p, size_t n, off64_t at);
ssize_t __wrap_pread64(int fd, void *p, size_t n, off64_t at);

ssize_t __wrap_pread64(int fd, void *p, size_t n, off64_t at) {
  ssize_t r = __real_pread64(fd, p, n, at);
  const char *path = to_change;
  to_change = NULL;
  if (path) {
    int other = open(path, O_WRONLY);
    cr_expect(other >= 0 && pwrite(other, "other", 5, at + 5) == 5 && !close(other));
  }
  return r;
}

// What was read before somebody wrote into the file may be of either state.
Test(catalog, a_file_that_changes_while_it_is_read_is_not_handed_out) {
  char path[200];
  uint8_t some[5000];
  struct protected_track *t;
  start("");
  snprintf(path, sizeof path, "%s/album/song/low.mp4", media);
  cr_assert_eq(track(&t, low), CAT_OK);
  cr_expect_eq(source_read(t->source, 3000, some, sizeof some), ERR_OK);
  to_change = path;
  cr_expect_eq(source_read(t->source, 3000, some, sizeof some), ERR_STALE);
  cr_expect(atomic_load(&t->source->changed));
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
