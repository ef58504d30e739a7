// The catalogue over storage that fails or does not answer.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "catalog_world.h"

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

// Standard error goes into the file until its end is told.
static int listen_to(FILE *log) {
  int before = dup(STDERR_FILENO);
  dup2(fileno(log), STDERR_FILENO);
  return before;
}

// Ends that: how many lines there were, and in how many of them `text` is, NULL for none.
static unsigned heard(FILE *log, int before, const char *text, unsigned *lines) {
  unsigned said = 0;
  dup2(before, STDERR_FILENO);
  close(before);
  rewind(log);
  *lines = 0;
  for (char line[1024]; fgets(line, sizeof line, log); ++*lines)
    said += text && strstr(line, text);
  fclose(log);
  return said;
}

// A folder's parts are one address space, which no tool shows: the log names the part, and the offset in it.
Test(catalog, a_fault_in_a_folder_is_said_by_its_part) {
  char parts[150], a[170], b[170];
  unsigned lines;
  struct protected_track *t;
  start("");
  write_track("album/song/parts", &(struct synth_options){.num_frags = 9, .samples_per_trun = 20, .min_size = 10, .max_size = 300, .folder = true});
  snprintf(parts, sizeof parts, "%s/album/song/parts", media);
  snprintf(a, sizeof a, "%s/4.m4s", parts);
  snprintf(b, sizeof b, "%s/40.m4s", parts); // behind all
  cr_assert_eq(rename(a, b), 0);
  FILE *log = tmpfile();
  int before = listen_to(log);
  cr_expect_eq(track(&t, "/album/song/cbcs/1/parts/1.m4s"), CAT_NOT_FOUND);
  unsigned said = heard(log, before, "album/song/parts: 40.m4s: decode times run backwards (at byte 0, box moof)", &lines);
  cr_expect(said == 1 && lines == 1, "%u lines, %u say it", lines, said);
}

// The end of init.mp4 is where the first segment begins: what it lacks is said by its name.
Test(catalog, an_init_segment_that_lacks_everything_is_named) {
  static const struct {
    const char *track, *said;
    size_t len;
  } v[] = {{"empty", "album/song/empty: init.mp4 is empty", 0}, {"free", "album/song/free: init.mp4 has no moov", 8}};
  start("");
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    unsigned lines;
    struct protected_track *t;
    char name[40], path[170];
    snprintf(name, sizeof name, "album/song/%s", v[i].track);
    write_track(name, &(struct synth_options){.num_frags = 3, .samples_per_trun = 20, .min_size = 10, .max_size = 300, .folder = true});
    snprintf(path, sizeof path, "%s/%s/init.mp4", media, name);
    FILE *f = fopen(path, "w");
    cr_assert(f && fwrite("\0\0\0\x08" "free", 1, v[i].len, f) == v[i].len && !fclose(f));
    FILE *log = tmpfile();
    int before = listen_to(log);
    snprintf(path, sizeof path, "/album/song/cbcs/1/%s/1.m4s", v[i].track);
    cr_expect_eq(track(&t, path), CAT_NOT_FOUND);
    unsigned said = heard(log, before, v[i].said, &lines);
    cr_expect(said == 1 && lines == 1, "%s: %u lines, %u say it", v[i].said, lines, said);
  }
}

// What ffmpeg calls its init segment by itself ("init-stream0.m4s") is not looked for: asset and track are 404, and the log says why.
Test(catalog, segments_without_their_init_segment_are_said) {
  static const char *const paths[] = {"/album/song/cbcs/1/parts/1.m4s", "/album/song/cbcs/master.m3u8", "/album/song/cbcs/1/none/1.m4s"};
  char a[170], b[170];
  start("");
  write_track("album/song/parts", &(struct synth_options){.num_frags = 3, .samples_per_trun = 20, .min_size = 10, .max_size = 300, .folder = true});
  snprintf(a, sizeof a, "%s/album/song/parts/init.mp4", media);
  snprintf(b, sizeof b, "%s/album/song/parts/init-stream0.m4s", media);
  cr_assert_eq(rename(a, b), 0);
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    unsigned lines;
    struct protected_track *t;
    struct text_doc *d;
    FILE *log = tmpfile();
    int before = listen_to(log);
    int status = i == 1 ? text(&d, paths[i]) : track(&t, paths[i]);
    if (i == 1 && status == CAT_OK)
      text_drop(cat, d);
    unsigned said = heard(log, before, "album/song/parts: there are segments (*.m4s) in the folder, but no init.mp4", &lines);
    cr_expect_eq(status, i == 1 ? CAT_OK : CAT_NOT_FOUND, "%s: %d", paths[i], status);
    cr_expect(said == (i < 2) && lines == said, "%s: %u lines, %u say it", paths[i], lines, said);
  }
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
    int before = listen_to(log);
    storage_errno = cases[i].why;
    set_storage(STORAGE_FAILS);
    int status = text(&d, cases[i].path);
    set_storage(STORAGE_WORKS);
    unsigned lines, said = heard(log, before, cases[i].said, &lines);
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

// Asks for names that nobody knows, until the queue is full or `most` wait in it: how many those are.
static unsigned ask_unknown(struct waiting *w, unsigned most) {
  unsigned num = 0;
  for (int status = CAT_WAIT; status == CAT_WAIT && num < most; num += status == CAT_WAIT) {
    char path[64];
    struct route r;
    struct protected_track *out;
    snprintf(path, sizeof path, "/unknown/%u/cbcs/1/t.mp4", num);
    route_parse(&r, bytes_str(path));
    w[num] = (struct waiting){.w.wake = wake};
    status = catalog_track(cat, &out, &r, clock_mono_ms(), &metrics[0], &w[num].w);
    cr_assert(status == CAT_WAIT || status == CAT_UNAVAILABLE);
  }
  return num;
}

static void wait_for(const unsigned *what, unsigned num) {
  for (int i = 0; i < 1000 && storage_count(what) < num; i++)
    usleep(5000);
  cr_assert_eq(storage_count(what), num);
}

// The queue is full of names that nobody knows.
Test(catalog, what_is_in_memory_is_served_beside_a_full_queue) {
  static struct waiting w[QUEUE_JOBS];
  struct protected_track *t, *out;
  struct route r;
  start("write_sidecars: false\n");
  cr_assert_eq(track(&t, low), CAT_OK);
  hang();
  unsigned num = ask_unknown(w, QUEUE_JOBS);
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

// One name's making waits for the opening that another's does. The queue being full when that is over is nothing to it.
Test(catalog, what_waited_for_an_opening_needs_no_room_in_the_queue) {
  enum { MOST = QUEUE_JOBS + 2 };
  static struct waiting strangers_too[MOST];
  static struct waiting opens, waits;
  struct protected_track *out;
  struct route r;
  start("write_sidecars: false\n");
  set_reading_hangs(true);
  opens = waits = (struct waiting){.w.wake = wake};
  route_parse(&r, bytes_str(low));
  cr_assert_eq(catalog_track(cat, &out, &r, clock_mono_ms(), &metrics[0], &opens.w), CAT_WAIT);
  wait_for(&storage.readers, 1);
  set_storage(STORAGE_HANGS_UNKNOWN);
  route_parse(&r, bytes_str("/album/song/cenc/1/low.mp4"));
  cr_assert_eq(catalog_track(cat, &out, &r, clock_mono_ms(), &metrics[0], &waits.w), CAT_WAIT);
  unsigned num = ask_unknown(strangers_too, 2);
  wait_for(&storage.hung, 2); // both other helpers: nobody is left at what was asked before
  num = ask_unknown(strangers_too + num, MOST - num) + num;
  cr_assert_eq(num, MOST);
  set_reading_hangs(false);
  await(&opens);
  await(&waits);
  cr_expect_eq(opens.w.status, CAT_OK);
  cr_assert_eq(waits.w.status, CAT_OK);
  track_drop(cat, opens.w.track);
  track_drop(cat, waits.w.track);
  set_storage(STORAGE_WORKS);
  for (unsigned i = 0; i < num; i++)
    await(&strangers_too[i]);
}
