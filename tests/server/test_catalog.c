// What the catalogue finds, and what it costs.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "catalog_world.h"

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

// Asks for the first segment's piece at `at` as who has had no luck with the cache; what is read has the length `*n`.
static int aside(struct protected_track *t, uint64_t at, size_t *n) {
  struct waiting w = {.w.wake = wake, .w.tries = 3};
  struct bytes src;
  uint64_t src_off;
  int status = track_source(cat, t, &src, &src_off, plan_segment_range(&t->plan, 0).off + at, &metrics[0], &w.w);
  if (status != CAT_WAIT)
    return status;
  await(&w);
  cr_assert(w.w.status == CAT_OK && w.w.block);
  *n = w.w.block->n;
  cr_expect_geq(atomic_load(&cat->bypass_bytes), *n);
  block_free(w.w.block);
  return CAT_OK;
}

static void stopping(bool yes) {
  pthread_mutex_lock(&cat->queue_lock);
  cat->stop = yes;
  pthread_mutex_unlock(&cat->queue_lock);
}

// What is read past the cache is in nobody's budget but this one.
Test(catalog, what_is_read_aside_is_bounded) {
  struct protected_track *t;
  size_t n = 0;
  start("");
  cr_assert_eq(track(&t, "/album/song/cbcs/1/low.mp4"), CAT_OK);
  cr_assert_eq(aside(t, 0, &n), CAT_OK);
  cr_expect_eq(atomic_load(&cat->bypass_bytes), 0);
  for (uint64_t more = 0; more < 2; more++) { // as much as may be in use, and a byte more
    atomic_store(&cat->bypass_bytes, BYPASS_BYTES - n + more);
    cr_expect_eq(aside(t, 0, &n), more ? CAT_UNAVAILABLE : CAT_OK);
    cr_expect_eq(atomic_load(&cat->bypass_bytes), BYPASS_BYTES - n + more);
  }
  atomic_store(&cat->bypass_bytes, 0);
  stopping(true); // no job is taken any more
  cr_expect_eq(aside(t, 0, &n), CAT_UNAVAILABLE);
  stopping(false);
  cr_expect_eq(atomic_load(&cat->bypass_bytes), 0);
  cr_expect_eq(atomic_load(&t->holds), 2, "the table's hold, and this one's");
  track_drop(cat, t);
}

// Nobody waits for megabytes, nor keeps them, where one is enough.
Test(catalog, a_huge_segment_is_read_in_pieces) {
  struct protected_track *t;
  uint64_t at = 0;
  write_track("album/song/huge.mp4", &(struct synth_options){.num_frags = 1, .samples_per_trun = 500, .min_size = 8600, .max_size = 9000});
  start("");
  cr_assert_eq(track(&t, "/album/song/cenc/1/huge.mp4"), CAT_OK);
  struct plan_range seg = plan_segment_range(&t->plan, 0);
  cr_assert_gt(seg.len, TRACK_SEGMENT_MAX);
  for (size_t n = 0; at < seg.len; n = 0) {
    struct plan_range piece = track_piece(t, seg.off + at), last = track_piece(t, piece.off + piece.len - 1);
    cr_assert(piece.off == seg.off + at && piece.len && piece.len <= TRACK_PIECE_MAX && last.off == piece.off && last.len == piece.len);
    cr_expect(aside(t, at, &n) == CAT_OK && n && n < 2 * TRACK_PIECE_MAX, "%zu bytes for the piece at %llu", n, (unsigned long long)at);
    at += piece.len;
  }
  cr_expect_eq(at, seg.len);
  uint8_t *a = whole(t), *b = direct(t);
  cr_expect_eq(memcmp(a, b, t->plan.total_len), 0);
  free(a);
  free(b);
  track_drop(cat, t);
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
