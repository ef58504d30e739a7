// Sidecars on disk: used when whole and of this source, rebuilt otherwise, never trusted. And sources in parts.
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "storage/sidecar.h"
#include "synth.h"

static char dir[] = "/tmp/sluice-sidecar-XXXXXX";

static void setup(void) { cr_assert_not_null(mkdtemp(dir)); }

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
  (void)st;
  (void)kind;
  (void)at;
  return remove(path);
}

static void teardown(void) {
  cr_expect_eq(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

TestSuite(sidecar, .init = setup, .fini = teardown, .timeout = 60);

static const char *path_of(const char *name) {
  static char path[4][400];
  static unsigned turn;
  char *p = path[turn++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", dir, name);
  return p;
}

static void make(const char *preset, const char *name) {
  for (const struct synth_options *o = synth_presets; o->name; o++) {
    struct synth s;
    if (strcmp(o->name, preset))
      continue;
    synth_make(&s, o);
    cr_assert_eq(synth_write(&s, path_of(name), o->folder), 0);
    synth_free(&s);
  }
}

struct loaded {
  enum err err;
  struct media_source m;
  struct index_file f;
  struct diag diag;
};

static struct loaded *load_at(struct media_path at, struct index_options o) {
  struct loaded *l = calloc(1, sizeof *l);
  cr_assert_not_null(l);
  l->err = media_open(&l->m, at, &l->diag);
  l->err = l->err ? l->err : index_load(&l->f, &l->m, &o, &l->diag);
  return l;
}

static struct loaded *load(const char *name) {
  return load_at((struct media_path){AT_FDCWD, path_of(name)}, (struct index_options){.cache_fd = -1, .write = true});
}

static void drop(struct loaded *l) {
  index_free(&l->f);
  media_close(&l->m);
  free(l);
}

// Loads and says how: 'b' built and written, 's' from the sidecar, 'm' built in memory, 'e' failed.
static char how(const char *name, enum err *sidecar_err) {
  struct loaded *l = load(name);
  char c = l->err ? 'e' : l->f.origin == INDEX_SIDECAR ? 's' : l->f.written ? 'b' : 'm';
  if (sidecar_err)
    *sidecar_err = l->f.sidecar_err;
  drop(l);
  return c;
}

static void patch(const char *name, long at, const void *p, size_t n) {
  FILE *f = fopen(path_of(name), "r+b");
  cr_assert_not_null(f);
  cr_assert_eq(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
  cr_assert_eq(fwrite(p, 1, n, f), n);
  cr_assert_eq(fclose(f), 0);
}

static void set_mtime(const char *name, struct timespec t) {
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, t};
  cr_assert_eq(utimensat(AT_FDCWD, path_of(name), times, 0), 0);
}

static struct timespec mtime(const char *name) {
  struct stat st;
  cr_assert_eq(stat(path_of(name), &st), 0);
  return st.st_mtim;
}

Test(sidecar, is_written_once_and_then_used) {
  enum err e;
  make("plain", "a.mp4");
  cr_expect_eq(how("a.mp4", &e), 'b');
  cr_expect_eq(e, ERR_NOT_FOUND);
  cr_expect_eq(how("a.mp4", &e), 's');
  cr_expect_eq(how("a.mp4", &e), 's');
}

Test(sidecar, built_and_mapped_are_the_same_bytes) {
  make("several-trafs", "a.mp4");
  struct loaded *built = load("a.mp4"), *mapped = load("a.mp4");
  cr_assert(!built->err && !mapped->err);
  cr_expect_eq(built->f.ix.h->blob_len, mapped->f.ix.h->blob_len);
  cr_expect_eq(memcmp(built->f.ix.h, mapped->f.ix.h, (size_t)built->f.ix.h->blob_len), 0);
  cr_expect_eq(memcmp(built->m.id.digest, mapped->m.id.digest, 32), 0);
  drop(built);
  drop(mapped);
}

Test(sidecar, digest_is_sha256_of_the_source) {
  static uint8_t all[1 << 20];
  uint8_t want[32];
  for (int folder = 0; folder < 2; folder++) {
    make(folder ? "folder" : "plain", "a");
    struct loaded *l = load("a");
    cr_assert_lt(l->m.id.size, sizeof all);
    cr_assert_eq(media_read(&l->m, 0, all, (size_t)l->m.id.size), ERR_OK);
    SHA256(all, (size_t)l->m.id.size, want);
    cr_expect_eq(memcmp(l->m.id.digest, want, 32), 0);
    cr_expect_eq(memcmp(l->f.ix.h->identity.digest, want, 32), 0);
    drop(l);
    cr_assert_eq(remove(path_of("a.slx")), 0);
    if (!folder)
      cr_assert_eq(remove(path_of("a")), 0);
  }
}

Test(sidecar, stale_torn_and_damaged_ones_are_rebuilt) {
  enum err e;
  make("plain", "a.mp4");
  cr_expect_eq(how("a.mp4", NULL), 'b');

  struct timespec t = mtime("a.mp4");
  t.tv_nsec = (t.tv_nsec + 1) % 1000000000;
  set_mtime("a.mp4", t);
  cr_expect_eq(how("a.mp4", &e), 'b'); // one nanosecond
  cr_expect_eq(e, ERR_STALE);

  cr_assert_eq(truncate(path_of("a.mp4.slx"), 2000), 0);
  cr_expect_eq(how("a.mp4", &e), 'b');
  cr_expect_eq(e, ERR_TRUNCATED);

  cr_assert_eq(truncate(path_of("a.mp4.slx"), 0), 0);
  cr_expect_eq(how("a.mp4", &e), 'b');

  for (long at = 0; at < 2400; at += 97) { // a byte anywhere
    patch("a.mp4.slx", at, "\x5a\xa5", 2);
    cr_expect_eq(how("a.mp4", &e), 'b', "byte %ld", at);
    cr_expect_neq(e, ERR_OK);
  }
  patch("a.mp4.slx", 8, "\7", 1);
  cr_expect_eq(how("a.mp4", &e), 'b');
  cr_expect_eq(e, ERR_UNSUPPORTED); // another version
  cr_expect_eq(how("a.mp4", &e), 's');
}

Test(sidecar, changed_media_is_noticed) {
  enum err e;
  make("plain", "a.mp4");
  cr_expect_eq(how("a.mp4", NULL), 'b');
  struct timespec t = mtime("a.mp4");
  patch("a.mp4", -1, "x", 1); // same size, new time
  t.tv_sec++;
  set_mtime("a.mp4", t);
  struct loaded *old = load("a.mp4");
  cr_expect_eq(old->f.sidecar_err, ERR_STALE);
  uint8_t digest[32];
  memcpy(digest, old->m.id.digest, 32);
  drop(old);
  patch("a.mp4", -1, "y", 1);
  t.tv_sec++;
  set_mtime("a.mp4", t);
  struct loaded *new = load("a.mp4");
  cr_expect_neq(memcmp(digest, new->m.id.digest, 32), 0);
  drop(new);
  (void)e;
}

// The last byte of a file becomes `to` and its time what it was: by writing in place, or as a new file of that name.
static void replace(const char *name, char to, bool by_rename) {
  struct timespec t = mtime(name);
  if (by_rename) {
    static uint8_t all[1 << 20];
    FILE *f = fopen(path_of(name), "rb");
    size_t n = fread(all, 1, sizeof all, f);
    fclose(f);
    f = fopen(path_of("new"), "wb");
    cr_assert_eq(fwrite(all, 1, n, f), n);
    fclose(f);
    patch("new", -1, &to, 1);
    set_mtime("new", t);
    cr_assert_eq(rename(path_of("new"), path_of(name)), 0);
  } else {
    patch(name, -1, &to, 1);
    set_mtime(name, t);
  }
}

static void digest_now(uint8_t out[32], const char *name) {
  struct loaded *l = load(name);
  cr_assert_eq(l->err, ERR_OK);
  memcpy(out, l->f.ix.h->identity.digest, 32);
  drop(l);
}

// Size, time, layout and sample sizes stay. The sidecar's own times, whatever a clock or a tool made of them, prove nothing.
Test(sidecar, the_same_size_and_time_are_not_the_same_file) {
  static const char *const tracks[] = {"a.mp4", "f"}, *const files[] = {"a.mp4", "f/2.m4s"};
  make("plain", "a.mp4");
  make("folder", "f");
  for (int i = 0; i < 2; i++) {
    uint8_t before[32], after[32];
    char slx[32];
    enum err e;
    snprintf(slx, sizeof slx, "%s.slx", tracks[i]);
    cr_expect_eq(how(tracks[i], NULL), 'b');
    for (int k = 0; k < 4; k++) {
      cr_expect_eq(how(tracks[i], NULL), 's');
      digest_now(before, tracks[i]);
      set_mtime(slx, (struct timespec){.tv_sec = k < 2 ? 1000000000 : 4000000000});
      cr_expect_eq(how(tracks[i], NULL), 's');
      replace(files[i], (char)('p' + k), k % 2);
      cr_expect_eq(how(tracks[i], &e), 'b', "%s, way %d", files[i], k);
      cr_expect_eq(e, ERR_STALE);
      digest_now(after, tracks[i]);
      cr_expect_neq(memcmp(before, after, 32), 0);
    }
  }
}

// Twice within a tick of the file system's clock, the index made in between. Can go wrong on kernels before 6.13 only: later ones
// give an inode a finer time when somebody has looked at the one it had.
Test(sidecar, a_file_written_again_at_once_is_noticed) {
  make("plain", "a.mp4");
  for (int i = 0; i < 50; i++) {
    uint8_t before[32], after[32];
    replace("a.mp4", (char)(i * 2), false);
    digest_now(before, "a.mp4");
    replace("a.mp4", (char)(i * 2 + 1), false);
    digest_now(after, "a.mp4");
    cr_expect_neq(memcmp(before, after, 32), 0, "round %d", i);
  }
}

// chmod, a link, a move there and back: the bytes are read once more, with the same result.
Test(sidecar, what_only_looks_changed_costs_one_reading) {
  uint8_t want[32], got[32];
  make("plain", "a.mp4");
  digest_now(want, "a.mp4");
  for (int i = 0; i < 3; i++) {
    cr_expect_eq(how("a.mp4", NULL), 's');
    if (i == 0)
      cr_assert_eq(chmod(path_of("a.mp4"), 0600), 0);
    else if (i == 1)
      cr_assert_eq(link(path_of("a.mp4"), path_of("b.mp4")), 0);
    else
      cr_assert(!rename(path_of("a.mp4"), path_of("c.mp4")) && !rename(path_of("c.mp4"), path_of("a.mp4")));
    cr_expect_eq(how("a.mp4", NULL), 'b', "way %d", i);
    digest_now(got, "a.mp4");
    cr_expect_eq(memcmp(want, got, 32), 0);
  }
}

// Where none may be written, a stale one is still not believed: the digest is read each time.
Test(sidecar, a_stale_one_that_cannot_be_replaced_is_not_used) {
  uint8_t before[32];
  make("plain", "a.mp4");
  digest_now(before, "a.mp4");
  replace("a.mp4", 'z', true);
  for (int i = 0; i < 2; i++) {
    struct loaded *l = load_at((struct media_path){AT_FDCWD, path_of("a.mp4")}, (struct index_options){.cache_fd = -1});
    cr_expect(!l->err && l->f.origin == INDEX_BUILT && !l->f.written && l->f.sidecar_err == ERR_STALE);
    cr_expect_neq(memcmp(before, l->f.ix.h->identity.digest, 32), 0);
    drop(l);
  }
}

Test(sidecar, one_of_another_file_is_not_believed) {
  enum err e;
  struct timespec t = {.tv_sec = 1700000000};
  make("plain", "a.mp4");
  make("version-1-offsets", "b.mp4");
  // The same size and time, so that only the contents tell.
  struct stat a, b;
  cr_assert_eq(stat(path_of("a.mp4"), &a), 0);
  cr_assert_eq(stat(path_of("b.mp4"), &b), 0);
  cr_assert_lt(a.st_size, b.st_size);
  FILE *f = fopen(path_of("a.mp4"), "ab");
  cr_assert_not_null(f);
  uint8_t pad[8] = {0, 0, 0, 0, 'f', 'r', 'e', 'e'};
  store_be32(pad, (uint32_t)(b.st_size - a.st_size));
  cr_assert_eq(fwrite(pad, 1, 8, f), 8u);
  cr_assert_eq(fclose(f), 0);
  cr_assert_eq(truncate(path_of("a.mp4"), b.st_size), 0);
  set_mtime("a.mp4", t);
  set_mtime("b.mp4", t);
  cr_expect_eq(how("a.mp4", NULL), 'b');
  cr_assert_eq(rename(path_of("a.mp4.slx"), path_of("b.mp4.slx")), 0);
  cr_expect_eq(how("b.mp4", &e), 'b');
  cr_expect_eq(e, ERR_STALE);
}

Test(sidecar, folders) {
  enum err e;
  make("folder", "f");
  cr_expect_eq(how("f", NULL), 'b');
  cr_expect_eq(access(path_of("f.slx"), F_OK), 0);
  cr_expect_eq(how("f", NULL), 's');
  // A part that is replaced by one of the same size and an older time is a change too.
  set_mtime("f/2.m4s", (struct timespec){.tv_sec = 1000000000});
  cr_expect_eq(how("f", &e), 'b');
  cr_expect_eq(e, ERR_STALE);
  cr_assert_eq(unlink(path_of("f/3.m4s")), 0);
  struct loaded *l = load("f");
  cr_expect_eq(l->err, ERR_OK);
  cr_expect_eq(l->f.sidecar_err, ERR_STALE);
  cr_expect_eq(l->f.ix.h->num_parts, 3u);
  cr_expect_eq(l->f.ix.h->num_frags, 2u);
  drop(l);
  cr_assert_eq(unlink(path_of("f/init.mp4")), 0);
  l = load("f");
  cr_expect_eq(l->err, ERR_MISSING);
  drop(l);
}

static int num_open(void) {
  int num = 0;
  for (int fd = 0; fd < 64; fd++)
    num += fcntl(fd, F_GETFD) >= 0;
  return num;
}

Test(sidecar, parts_are_in_natural_order) {
  static const char *const names[] = {"s10.m4s", "s9.m4s", "s100.m4s", "s1.m4s", "s02.m4s", ".s3.m4s" /* being written */};
  static const char *const want[] = {"init.mp4", "s1.m4s", "s02.m4s", "s9.m4s", "s10.m4s", "s100.m4s"};
  struct media_source m;
  struct diag d = {0};
  cr_assert_eq(mkdir(path_of("f"), 0777), 0);
  make("plain", "f/init.mp4");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char name[64];
    snprintf(name, sizeof name, "f/%s", names[i]);
    FILE *f = fopen(path_of(name), "wb");
    cr_assert_not_null(f);
    cr_assert_eq(fputs(names[i], f) < 0, 0);
    fclose(f);
  }
  int before = num_open();
  cr_assert_eq(media_open(&m, (struct media_path){AT_FDCWD, path_of("f")}, &d), ERR_OK, "%s", d.what);
  cr_assert_eq(m.num_parts, 6u);
  for (size_t i = 0; i < 6; i++)
    cr_expect_str_eq(m.names[i], want[i]);
  // Reads across parts.
  char text[21] = "";
  uint64_t first = m.part_ends[0];
  cr_expect_eq(media_read(&m, first, text, 20), ERR_OK);
  cr_expect_str_eq(text, "s1.m4ss02.m4ss9.m4ss");
  cr_expect_eq(media_read(&m, m.id.size - 1, text, 2), ERR_TRUNCATED);
  media_close(&m);
  cr_expect_eq(num_open(), before, "a part is still open");
}

// Names that differ in leading zeros only: the same order whatever the file system lists first.
Test(sidecar, the_order_of_parts_is_total) {
  static const char *const names[] = {"01.m4s", "0001.m4s", "1.m4s", "00001.m4s", "001.m4s", "0.m4s", "000.m4s", "00.m4s", "a1b02.m4s", "a01b2.m4s"};
  static const char *const want[] = {"init.mp4",  "0.m4s",  "00.m4s", "000.m4s",   "00001.m4s", "0001.m4s",
                                     "001.m4s",   "01.m4s", "1.m4s",  "a01b2.m4s", "a1b02.m4s"};
  enum { NUM = sizeof want / sizeof *want };
  struct media_source m;
  struct diag d = {0};
  cr_assert_eq(mkdir(path_of("f"), 0777), 0);
  make("plain", "f/init.mp4");
  for (size_t i = 0; i < NUM - 1; i++) {
    char name[64];
    snprintf(name, sizeof name, "f/%s", names[i]);
    FILE *f = fopen(path_of(name), "wb");
    cr_assert_not_null(f);
    fclose(f);
  }
  cr_assert_eq(media_open(&m, (struct media_path){AT_FDCWD, path_of("f")}, &d), ERR_OK, "%s", d.what);
  cr_assert_eq(m.num_parts, NUM);
  for (size_t i = 0; i < NUM; i++)
    cr_expect_str_eq(m.names[i], want[i]);
  media_close(&m);
}

Test(sidecar, a_read_only_folder_uses_the_cache_or_memory) {
  make("plain", "a.mp4");
  cr_assert_eq(mkdir(path_of("cache"), 0777), 0);
  cr_assert_eq(mkdir(path_of("a.mp4.slx"), 0777), 0); // nothing can be written there, not even by root
  int cache = open(path_of("cache"), O_RDONLY | O_DIRECTORY);
  struct index_options o = {.cache_fd = -1, .write = true};
  struct media_path at = {AT_FDCWD, path_of("a.mp4")};
  struct loaded *l = load_at(at, o);
  cr_expect(!l->err && l->f.origin == INDEX_BUILT && !l->f.written && l->f.sidecar_err == ERR_IO);
  drop(l);
  DIR *d = opendir(dir);
  cr_assert_not_null(d);
  for (const struct dirent *ent; (ent = readdir(d));)
    cr_expect(!strstr(ent->d_name, ".tmp"), "%s is left", ent->d_name);
  closedir(d);
  o.cache_fd = cache;
  l = load_at(at, o);
  cr_expect(!l->err && l->f.written);
  drop(l);
  l = load_at(at, o);
  cr_expect(!l->err && l->f.origin == INDEX_SIDECAR);
  drop(l);
  replace("a.mp4", 'c', true);
  at.path = path_of("a.mp4");
  l = load_at(at, o);
  cr_expect(!l->err && l->f.origin == INDEX_BUILT && l->f.written);
  drop(l);
  close(cache);
}

Test(sidecar, no_digest_means_no_sidecar) {
  make("plain", "a.mp4");
  struct media_path at = {AT_FDCWD, path_of("a.mp4")};
  struct loaded *l = load_at(at, (struct index_options){.cache_fd = -1, .write = true, .no_digest = true});
  cr_expect(!l->err && !l->f.written && l->f.ix.h->flags & IX_NO_DIGEST);
  drop(l);
  cr_expect_neq(access(path_of("a.mp4.slx"), F_OK), 0);
}

// One that says it is of this file, which its checksums do not contradict: a few looks at the file tell.
Test(sidecar, what_one_says_of_itself_is_compared_with_the_file) {
  make("plain", "a.mp4");
  struct loaded *a = load("a.mp4");
  cr_assert(!a->err && a->f.ix.h->num_frags > 2);
  const struct ix_frag *middle = &a->f.ix.frags[a->f.ix.h->num_frags / 2], *last = &a->f.ix.frags[a->f.ix.h->num_frags - 1];
  const uint64_t at[] = {a->f.ix.init.n - 1, 4 + a->f.ix.frags[0].src_off + a->f.ix.frags[0].moof_pos, 4 + middle->src_off + middle->moof_pos,
                         4 + last->src_off + last->moof_pos, 0};
  for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
    bool same = !at[i]; // byte 0 stays as it is: such a one is believed, so that the others are refused for the byte alone
    struct alloc_heap heap;
    struct media_source b;
    struct bytes blob;
    struct diag d = {0};
    make("plain", "b.mp4");
    patch("b.mp4", (long)at[i], same ? "" : "X", 1);
    cr_assert_eq(media_open(&b, (struct media_path){AT_FDCWD, path_of("b.mp4")}, &d), ERR_OK);
    alloc_heap_init(&heap, 1 << 26);
    cr_assert_eq(ix_build(&heap.base, &blob, &a->m.src, &b.id, &d), ERR_OK, "%s", d.what);
    ix_set_digest(blob, a->m.id.digest);
    FILE *f = fopen(path_of("b.mp4.slx"), "w");
    cr_assert(f && fwrite(blob.p, 1, blob.n, f) == blob.n && !fclose(f));
    struct loaded *l = load_at((struct media_path){AT_FDCWD, path_of("b.mp4")}, (struct index_options){.cache_fd = -1});
    cr_expect_eq(l->f.sidecar_err, same ? ERR_OK : ERR_STALE, "byte %llu: %s", (unsigned long long)at[i], err_name(l->f.sidecar_err));
    drop(l);
    media_close(&b);
    alloc_heap_free(&heap);
  }
  drop(a);
}

// A link to one is not followed; the new one takes its place.
Test(sidecar, links_are_not_followed) {
  enum err e;
  make("plain", "a.mp4");
  cr_expect_eq(how("a.mp4", NULL), 'b');
  cr_assert_eq(rename(path_of("a.mp4.slx"), path_of("real")), 0);
  cr_assert_eq(symlink("real", path_of("a.mp4.slx")), 0);
  cr_expect_eq(how("a.mp4", &e), 'b');
  cr_expect_eq(e, ERR_IO);
  cr_expect_eq(how("a.mp4", NULL), 's');
  make("folder", "f");
  cr_assert_eq(rename(path_of("f/2.m4s"), path_of("f/real")), 0);
  cr_assert_eq(symlink("real", path_of("f/2.m4s")), 0);
  struct loaded *l = load("f");
  cr_expect(l->err == ERR_UNSUPPORTED && strstr(l->diag.what, "2.m4s is not a regular file"), "%s", l->diag.what);
  drop(l);
}

// While its digest is made: written to, and its time set back.
static void write_meanwhile(void *ctx, uint64_t done, uint64_t total) {
  (void)done, (void)total;
  replace("a.mp4", *(const char *)ctx, false);
}

Test(sidecar, a_file_that_changes_while_it_is_read_is_refused) {
  char to = 'x';
  make("plain", "a.mp4");
  struct index_options o = {.cache_fd = -1, .write = true, .progress = {write_meanwhile, &to}};
  struct loaded *l = load_at((struct media_path){AT_FDCWD, path_of("a.mp4")}, o);
  cr_expect(l->err == ERR_STALE && strstr(l->diag.what, "changed while it was read"), "%s %s", err_name(l->err), l->diag.what);
  drop(l);
  cr_expect_neq(access(path_of("a.mp4.slx"), F_OK), 0);
}

// One that has none, from wherever it is: its IVs would not be this file's.
Test(sidecar, one_without_a_digest_is_not_used_where_that_is_needed) {
  make("plain", "a.mp4");
  struct loaded *l = load_at((struct media_path){AT_FDCWD, path_of("a.mp4")}, (struct index_options){.cache_fd = -1, .no_digest = true});
  FILE *f = fopen(path_of("a.mp4.slx"), "w");
  cr_assert(!l->err && f && fwrite(l->f.ix.h, 1, (size_t)l->f.ix.h->blob_len, f) == l->f.ix.h->blob_len);
  cr_assert_eq(fclose(f), 0);
  drop(l);
  l = load_at((struct media_path){AT_FDCWD, path_of("a.mp4")}, (struct index_options){.cache_fd = -1, .no_digest = true});
  cr_expect_eq(l->f.origin, INDEX_SIDECAR, "%s", err_name(l->f.sidecar_err));
  drop(l);
  enum err e;
  cr_expect_eq(how("a.mp4", &e), 'b');
  cr_expect_eq(e, ERR_STALE);
}

Test(sidecar, nothing_outside_of_the_root_is_opened) {
  struct media_source m;
  cr_assert_eq(mkdir(path_of("root"), 0777), 0);
  make("plain", "secret.mp4");
  make("plain", "root/a.mp4");
  make("folder", "outside");
  cr_assert_eq(symlink("../secret.mp4", path_of("root/link.mp4")), 0);
  cr_assert_eq(symlink(path_of("secret.mp4"), path_of("root/absolute.mp4")), 0);
  cr_assert_eq(symlink("../outside", path_of("root/folder")), 0);
  int root = open(path_of("root"), O_RDONLY | O_DIRECTORY);
  static const char *const refused[] = {"../secret.mp4", "link.mp4", "absolute.mp4", "folder", "folder/init.mp4", "/etc/passwd",
                                        "a.mp4/../../secret.mp4", "", "none.mp4"};
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    struct diag d = {0};
    cr_expect_neq(media_open(&m, (struct media_path){root, refused[i]}, &d), ERR_OK, "%s", refused[i]);
    media_close(&m);
  }
  struct loaded *l = load_at((struct media_path){root, "a.mp4"}, (struct index_options){.cache_fd = -1, .write = true});
  cr_expect_eq(l->err, ERR_OK);
  cr_expect(l->f.written);
  drop(l);
  close(root);
}

Test(sidecar, kinds_of_paths) {
  struct media_source m;
  struct diag d = {0};
  cr_assert_eq(mkfifo(path_of("pipe.mp4"), 0666), 0);
  cr_expect_eq(media_open(&m, (struct media_path){AT_FDCWD, path_of("pipe.mp4")}, &d), ERR_UNSUPPORTED);
  media_close(&m);
  d = (struct diag){0};
  cr_expect_eq(media_open(&m, (struct media_path){AT_FDCWD, path_of("none.mp4")}, &d), ERR_NOT_FOUND);
  media_close(&m);
  media_close(&m);
  FILE *f = fopen(path_of("empty.mp4"), "wb");
  cr_assert_not_null(f);
  fclose(f);
  cr_expect_eq(how("empty.mp4", NULL), 'e');
  cr_expect_neq(access(path_of("empty.mp4.slx"), F_OK), 0);
}
