#include "server/keyring.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char dir[64];
static struct config_error error;

static struct epoch_store *open_store(void) {
  struct epoch_store *s = epoch_store_open(dir, 1, &error);
  cr_assert(s, "%s", error.text);
  return s;
}

static void setup(void) {
  snprintf(dir, sizeof dir, "/tmp/sluice-epochs-XXXXXX");
  cr_assert(mkdtemp(dir));
}

static void teardown(void) {
  char path[128];
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  unlink(path);
  rmdir(dir);
}

static void rotate(struct epoch_store *s, const char *scope, uint64_t now) {
  struct diag diag = {0};
  enum err e = epoch_store_rotate(s, bytes_str(scope), 1000, false, now, &diag);
  cr_assert_eq(e, ERR_OK, "%s", diag.what);
}

TestSuite(epoch_store, .init = setup, .fini = teardown);

Test(epoch_store, nothing_is_written_before_a_rotation) {
  struct epoch_store *s = open_store();
  cr_assert_eq(epoch_store_current(s, bytes_str("a/b")), 1);
  epoch_store_close(s);
  cr_assert_eq(rmdir(dir), 0, "the state folder is empty");
  cr_assert_eq(mkdir(dir, 0700), 0);
}

Test(epoch_store, one_server_for_each_folder) {
  struct epoch_store *s = open_store();
  error.text[0] = 0;
  cr_assert_null(epoch_store_open(dir, 1, &error), "the folder is in use");
  cr_assert(strstr(error.text, dir) && strstr(error.text, "state_dir of its own"), "%s", error.text);
  rotate(s, "a/", 2000);
  cr_assert_null(epoch_store_open(dir, 1, &error), "with a journal too");
  epoch_store_close(s);
  epoch_store_close(open_store());
}

Test(epoch_store, a_folder_that_was_not_there_is_made_and_taken) {
  struct stat st;
  cr_assert_eq(rmdir(dir), 0);
  struct epoch_store *s = open_store();
  cr_assert(!stat(dir, &st) && (st.st_mode & 0777) == 0700, "for its owner alone");
  cr_assert_null(epoch_store_open(dir, 1, &error), "before any rotation");
  rotate(s, "a/", 2000);
  epoch_store_close(s);
  s = open_store();
  cr_assert_eq(epoch_store_current(s, bytes_str("a/b")), 2);
  epoch_store_close(s);
}

Test(epoch_store, rotations_survive_a_restart) {
  struct epoch_store *s = open_store();
  rotate(s, "a/b", 2000);
  rotate(s, "a/", 3000);
  rotate(s, "", 4000);
  cr_assert_eq(epoch_store_current(s, bytes_str("a/b")), 4);
  cr_assert_eq(epoch_store_current(s, bytes_str("a/c")), 3);
  cr_assert_eq(epoch_store_current(s, bytes_str("x")), 2);
  epoch_store_close(s);
  s = open_store();
  cr_assert_eq(epoch_store_current(s, bytes_str("a/b")), 4);
  cr_assert_eq(epoch_store_current(s, bytes_str("a/c")), 3);
  cr_assert_eq(epoch_store_status(s, bytes_str("x"), 1, 4500, NULL), EPOCH_GRACE);
  cr_assert_eq(epoch_store_status(s, bytes_str("x"), 1, 5500, NULL), EPOCH_EXPIRED);
  cr_assert_eq(epoch_store_status(s, bytes_str("x"), 3, 5500, NULL), EPOCH_UNKNOWN);
  epoch_store_close(s);
}

// The journal cut after every byte of its last line: acknowledged rotations stay, the torn one is as if never made, unless it lacks
// its line feed alone, and the next rotation is readable again.
Test(epoch_store, a_line_torn_anywhere_is_cut_off) {
  char path[128], copy[4096];
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  epoch_store_close(s);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  struct stat st;
  cr_assert_eq(stat(path, &st), 0);
  off_t first = st.st_size;
  s = open_store();
  rotate(s, "a", 3000);
  epoch_store_close(s);
  int fd = open(path, O_RDONLY);
  ssize_t len = read(fd, copy, sizeof copy);
  close(fd);
  cr_assert_gt(len, first);
  for (off_t cut = first; cut <= len; cut++) {
    fd = open(path, O_WRONLY | O_TRUNC);
    cr_assert_eq(write(fd, copy, (size_t)cut), cut);
    close(fd);
    s = open_store();
    uint32_t want = cut >= len - 1 ? 3 : 2;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_size, want == 3 ? len : first, "cut at %ld", (long)cut);
    cr_assert_eq(epoch_store_current(s, bytes_str("a")), want, "cut at %ld", (long)cut);
    rotate(s, "a", 4000);
    epoch_store_close(s);
    s = open_store();
    cr_assert_eq(epoch_store_current(s, bytes_str("a")), want + 1, "cut at %ld", (long)cut);
    epoch_store_close(s);
  }
}

Test(epoch_store, damage_before_the_end_is_refused_not_guessed) {
  char path[128];
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  rotate(s, "b", 3000);
  epoch_store_close(s);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  int fd = open(path, O_WRONLY);
  cr_assert_eq(pwrite(fd, "X", 1, 12), 1);
  close(fd);
  cr_assert_null(epoch_store_open(dir, 1, &error));
  cr_assert(strstr(error.text, "rotations.journal:1: the rotation journal is damaged"), "%s", error.text);
}

// A whole last line was acknowledged, a revocation perhaps: altered, it is no torn one, and nothing of it is thrown away.
Test(epoch_store, a_whole_last_line_that_was_altered_is_refused) {
  char path[128], text[4096], after[4096];
  struct diag diag = {0};
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  cr_assert_eq(epoch_store_rotate(s, bytes_str("a"), 0, true, 2100, &diag), ERR_OK);
  epoch_store_close(s);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  int fd = open(path, O_RDWR);
  ssize_t n = read(fd, text, sizeof text - 1);
  cr_assert_gt(n, 0);
  off_t last = (char *)memrchr(text, '\n', (size_t)n - 1) + 1 - text;
  for (off_t k = 0; k < 2 * (n - 1 - last); k++) {
    off_t at = last + k / 2;
    char other = k % 2 ? 0 : text[at] == 'X' ? 'Y' : 'X';
    cr_assert_eq(pwrite(fd, &other, 1, at), 1);
    cr_assert_null(epoch_store_open(dir, 1, &error), "byte %ld to %d", (long)at, other);
    cr_assert(strstr(error.text, "rotations.journal:2: the rotation journal is damaged"), "%s", error.text);
    cr_assert_eq(pread(fd, after, sizeof after, 0), n, "nothing is cut off");
    cr_assert_eq(pwrite(fd, text + at, 1, at), 1);
  }
  // Zeros with a line feed behind them are not the end of what was written.
  cr_assert_eq(pwrite(fd, (char[4096]){0}, (size_t)(n - 1 - last), last), n - 1 - last);
  cr_assert_null(epoch_store_open(dir, 1, &error), "all but the line feed");
  cr_assert(strstr(error.text, "rotations.journal:2: the rotation journal is damaged"), "%s", error.text);
  // What was not written in a file that had grown is zeros, to its end.
  for (off_t at = last; at < n; at++) {
    cr_assert_eq(pwrite(fd, text, (size_t)n, 0), n);
    cr_assert_eq(pwrite(fd, (char[4096]){0}, (size_t)(n - at), at), n - at);
    s = open_store();
    cr_assert_eq(epoch_store_status(s, bytes_str("a"), 2, 2200, NULL), EPOCH_CURRENT, "byte %ld", (long)at);
    epoch_store_close(s);
    struct stat st;
    cr_assert_eq(fstat(fd, &st), 0);
    cr_assert_eq(st.st_size, last);
  }
  close(fd);
}

// No write is longer than a line: under more zeros than that, rotations may lie that were acknowledged.
Test(epoch_store, zeros_longer_than_a_line_are_not_cut_off) {
  char path[128];
  struct stat st;
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  epoch_store_close(s);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  cr_assert_eq(stat(path, &st), 0);
  const off_t whole = st.st_size;
  cr_assert_eq(truncate(path, whole + EPOCH_MAX_LINE), 0);
  s = open_store();
  cr_assert_eq(epoch_store_current(s, bytes_str("a")), 2);
  epoch_store_close(s);
  cr_assert(!stat(path, &st) && st.st_size == whole);
  cr_assert_eq(truncate(path, whole + EPOCH_MAX_LINE + 1), 0);
  cr_assert_null(epoch_store_open(dir, 1, &error));
  cr_assert(strstr(error.text, "rotations.journal:2: the rotation journal is damaged: a line of the journal has more than 4096 bytes"), "%s", error.text);
  cr_assert(!stat(path, &st) && st.st_size == whole + EPOCH_MAX_LINE + 1);
}

// A disk writes its sectors in any order: the end of a line may be there where its beginning is not.
Test(epoch_store, a_last_line_that_lacks_a_sector_is_torn) {
  char path[128], text[4096], scope[201] = {0};
  struct epoch_store *s = open_store();
  memset(scope, 'a', 200);
  for (unsigned i = 0; i < 3; i++) {
    scope[0] = (char)('a' + i);
    rotate(s, scope, 2000 + i);
  }
  epoch_store_close(s);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  int fd = open(path, O_RDWR);
  ssize_t n = read(fd, text, sizeof text - 1);
  off_t last = (char *)memrchr(text, '\n', (size_t)n - 1) + 1 - text;
  cr_assert(last < 511 && n > 520, "%ld to %ld", (long)last, (long)n);
  struct {
    off_t from, to;
    bool torn;
  } zeros[] = {{last, 512, true}, {512, n, true}, {last, n, true}, {last, 511, false}, {last + 1, 512, false}, {512, n - 1, false}};
  for (unsigned i = 0; i < sizeof zeros / sizeof *zeros; i++) {
    cr_assert_eq(pwrite(fd, text, (size_t)n, 0), n);
    cr_assert_eq(pwrite(fd, (char[4096]){0}, (size_t)(zeros[i].to - zeros[i].from), zeros[i].from), zeros[i].to - zeros[i].from);
    s = epoch_store_open(dir, 1, &error);
    cr_assert_eq(!!s, zeros[i].torn, "zeros %u", i);
    if (!s)
      continue;
    cr_assert_eq(epoch_store_status(s, bytes_str(scope), 1, 2100, NULL), EPOCH_CURRENT, "zeros %u", i);
    epoch_store_close(s);
    struct stat st;
    cr_assert_eq(fstat(fd, &st), 0);
    cr_assert_eq(st.st_size, last, "zeros %u", i);
  }
  close(fd);
}

// A line whose first byte alone lies in the sector before: that byte is not the sector.
Test(epoch_store, a_byte_before_a_sector_is_not_one) {
  char path[128], scope[512] = {0};
  struct stat st;
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  int fd = open(path, O_RDWR);
  cr_assert_eq(fstat(fd, &st), 0);
  memset(scope, 'b', 511 - 2 * (size_t)st.st_size + 1); // but for it the line is as long as that of a
  rotate(s, scope, 3000);
  cr_assert_eq(fstat(fd, &st), 0);
  cr_assert_eq(st.st_size, 511);
  rotate(s, "c", 4000);
  epoch_store_close(s);
  cr_assert_eq(pwrite(fd, "", 1, 511), 1);
  close(fd);
  cr_assert_null(epoch_store_open(dir, 1, &error));
  cr_assert(strstr(error.text, "rotations.journal:3: the rotation journal is damaged"), "%s", error.text);
}

// As when two servers' journals are put together.
Test(epoch_store, a_rotation_that_is_there_twice_is_refused) {
  char path[128], text[4096];
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  rotate(s, "b", 3000);
  epoch_store_close(s);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  int fd = open(path, O_RDWR);
  ssize_t n = read(fd, text, sizeof text);
  cr_assert(n > 0 && write(fd, text, (size_t)n) == n);
  close(fd);
  cr_assert_null(epoch_store_open(dir, 1, &error));
  cr_assert(strstr(error.text, "rotations.journal:3: the rotation journal is damaged: rotation number 1 is out of order: 3 is next"), "%s", error.text);
}

Test(epoch_store, a_revocation_survives_a_restart) {
  struct diag diag = {0};
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  cr_assert_eq(epoch_store_rotate(s, bytes_str("a"), 0, true, 2100, &diag), ERR_OK);
  for (int i = 0; i < 2; i++) {
    cr_expect_eq(epoch_store_status(s, bytes_str("a"), 1, 2200, NULL), EPOCH_REVOKED, "its grace had not ended");
    cr_expect_eq(epoch_store_status(s, bytes_str("a"), 2, 2200, NULL), EPOCH_REVOKED);
    cr_expect_eq(epoch_store_status(s, bytes_str("a"), 3, 2200, NULL), EPOCH_CURRENT);
    epoch_store_close(s);
    s = open_store();
  }
  epoch_store_close(s);
}

// A disk that gives so many bytes and then EIO. -1: it gives all.
static off_t readable = -1;

ssize_t __real_pread64(int fd, void *p, size_t n, off_t at);
ssize_t __wrap_pread64(int fd, void *p, size_t n, off_t at);
ssize_t __wrap_pread64(int fd, void *p, size_t n, off_t at) {
  if (readable < 0)
    return __real_pread64(fd, p, n, at);
  if (at >= readable) {
    errno = EIO;
    return -1;
  }
  size_t left = (size_t)(readable - at);
  return __real_pread64(fd, p, n < left ? n : left, at);
}

// What could not be read is no torn line: cut off, or written over, a rotation that was told to be durable would be undone.
Test(epoch_store, a_journal_that_cannot_be_read_is_left_alone) {
  char path[128];
  struct stat st, after;
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  rotate(s, "a", 3000);
  epoch_store_close(s);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  cr_assert_eq(stat(path, &st), 0);
  for (readable = 0; readable < st.st_size; readable++) {
    cr_assert_null(epoch_store_open(dir, 1, &error), "read to byte %ld", (long)readable);
    cr_expect(strstr(error.text, "rotations.journal: cannot be read: Input/output error"), "%s", error.text);
    cr_assert_eq(stat(path, &after), 0);
    cr_assert_eq(after.st_size, st.st_size, "read to byte %ld: %ld of %ld bytes are left", (long)readable, (long)after.st_size, (long)st.st_size);
  }
  readable = -1;
  s = open_store();
  cr_expect_eq(epoch_store_current(s, bytes_str("a")), 3);
  epoch_store_close(s);
}

// A disk with so much room, in bytes, whose writes are so long at most. -1: there is no end. An ftruncate may fail too.
static ssize_t room = -1, at_once = -1;
static bool stuck;

ssize_t __real_pwrite64(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at) {
  n = at_once >= 0 && n > (size_t)at_once ? (size_t)at_once : n;
  n = room >= 0 && n > (size_t)room ? (size_t)room : n;
  if (room >= 0 && !n) {
    errno = ENOSPC;
    return -1;
  }
  ssize_t r = __real_pwrite64(fd, p, n, at);
  room -= room >= 0 ? r : 0;
  return r;
}

int __real_ftruncate64(int fd, off_t n);
int __wrap_ftruncate64(int fd, off_t n);
int __wrap_ftruncate64(int fd, off_t n) {
  errno = EIO;
  return stuck ? -1 : __real_ftruncate64(fd, n);
}

Test(epoch_store, a_write_goes_on_where_the_disk_has_stopped) {
  struct epoch_store *s = open_store();
  at_once = 7;
  rotate(s, "a", 2000);
  rotate(s, "a", 3000);
  epoch_store_close(s);
  s = open_store();
  cr_expect_eq(epoch_store_current(s, bytes_str("a")), 3);
  epoch_store_close(s);
}

// Whatever room there was for the line: the rotation has not been, the file is as it was, and with room the next one is made.
Test(epoch_store, a_full_disk_takes_no_rotation_and_no_later_one_away) {
  char path[128];
  struct diag diag = {0};
  struct stat before, after;
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  cr_assert_eq(stat(path, &before), 0);
  for (ssize_t there = 0; there < 30; there++) {
    room = there;
    cr_assert_eq(epoch_store_rotate(s, bytes_str("a"), 1000, true, 3000, &diag), ERR_IO);
    cr_assert_eq(epoch_store_set_slot(s, bytes_str("a"), 7000, &diag), ERR_IO);
    cr_assert_eq(epoch_store_current(s, bytes_str("a")), 2);
    cr_assert_eq(epoch_store_slot(s, bytes_str("a")), 0);
    cr_assert_eq(stat(path, &after), 0);
    cr_assert_eq(after.st_size, before.st_size, "room for %zd bytes", there);
  }
  cr_expect(strstr(diag.what, "rotations.journal: No space left on device"), "%s", diag.what);
  room = -1;
  rotate(s, "a", 4000);
  epoch_store_close(s);
  s = open_store();
  cr_expect_eq(epoch_store_current(s, bytes_str("a")), 3);
  cr_expect_eq(epoch_store_status(s, bytes_str("a"), 1, 2500, NULL), EPOCH_GRACE, "nothing was revoked");
  epoch_store_close(s);
}

// What could not be taken back may be there after a restart: until it is, a second one of its number must not be written behind it.
Test(epoch_store, where_the_end_is_unknown_nothing_is_written_any_more) {
  struct diag diag = {0};
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  room = 20;
  stuck = true;
  cr_assert_eq(epoch_store_rotate(s, bytes_str("a"), 1000, false, 3000, &diag), ERR_IO);
  cr_expect(strstr(diag.what, "it cannot be taken back now, and may be in force after a restart"), "%s", diag.what);
  room = -1;
  diag = (struct diag){0};
  cr_assert_eq(epoch_store_rotate(s, bytes_str("a"), 1000, false, 3000, &diag), ERR_IO);
  cr_expect(strstr(diag.what, "could not be written before: Input/output error"), "%s", diag.what);
  cr_expect_eq(epoch_store_current(s, bytes_str("a")), 2);
  stuck = false;
  rotate(s, "a", 3000);
  cr_expect_eq(epoch_store_current(s, bytes_str("a")), 3, "the disk is there again");
  epoch_store_close(s);
  s = open_store();
  cr_expect_eq(epoch_store_current(s, bytes_str("a")), 3, "what was begun was taken back");
  rotate(s, "a", 4000);
  epoch_store_close(s);
}

Test(epoch_store, a_file_of_any_length_is_no_journal) {
  char path[128];
  struct stat st;
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  int fd = open(path, O_WRONLY | O_CREAT, 0600);
  cr_assert_eq(__real_ftruncate64(fd, (256 << 20) + 1), 0);
  close(fd);
  cr_assert_null(epoch_store_open(dir, 1, &error));
  cr_expect(strstr(error.text, "rotations.journal: not a rotation journal (too large"), "%s", error.text);
  cr_expect(!stat(path, &st) && st.st_size == (256 << 20) + 1, "it is left alone");
}

Test(epoch_store, a_long_history_is_compacted) {
  char path[128];
  struct stat st;
  ino_t once = 0;
  struct epoch_store *s = open_store();
  snprintf(path, sizeof path, "%s/rotations.journal.new", dir);
  int fd = open(path, O_WRONLY | O_CREAT, 0600); // left by one that was killed while it compacted, and longer
  for (int i = 0; i < 1000; i++)
    cr_assert_eq(write(fd, "something else\n", 15), 15);
  close(fd);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  for (unsigned i = 0; i < 1100; i++) {
    if (i == 600) { // what a start finds counts
      epoch_store_close(s);
      s = open_store();
    }
    rotate(s, "a", 2000 + i * 10);
    if (i == 1030) {
      cr_assert_eq(stat(path, &st), 0);
      once = st.st_ino;
    }
  }
  cr_assert_eq(epoch_store_current(s, bytes_str("a")), 1101);
  epoch_store_close(s);
  cr_assert_eq(stat(path, &st), 0);
  cr_expect_eq(st.st_ino, once, "not anew with every rotation from then on");
  cr_assert_lt(st.st_size, 1100 * 20, "%ld bytes", (long)st.st_size);
  s = open_store();
  cr_assert_eq(epoch_store_current(s, bytes_str("a")), 1101);
  epoch_store_close(s);
}

static bool no_memory;

enum err __real_epochs_apply(struct epochs *e, const struct epoch_event *ev, struct diag *diag);
enum err __wrap_epochs_apply(struct epochs *e, const struct epoch_event *ev, struct diag *diag);
enum err __wrap_epochs_apply(struct epochs *e, const struct epoch_event *ev, struct diag *diag) {
  return no_memory ? diag_say(diag, ERR_NO_MEMORY, "out of memory") : __real_epochs_apply(e, ev, diag);
}

enum err __real_epochs_set_slot(struct epochs *e, struct bytes scope, uint64_t slot_ms, struct diag *diag);
enum err __wrap_epochs_set_slot(struct epochs *e, struct bytes scope, uint64_t slot_ms, struct diag *diag);
enum err __wrap_epochs_set_slot(struct epochs *e, struct bytes scope, uint64_t slot_ms, struct diag *diag) {
  return no_memory ? diag_say(diag, ERR_NO_MEMORY, "out of memory") : __real_epochs_set_slot(e, scope, slot_ms, diag);
}

// What was refused is not in the journal: the next rotation has its number.
Test(epoch_store, a_rotation_without_memory_has_not_been) {
  struct diag diag = {0};
  struct epoch_store *s = open_store();
  rotate(s, "a", 2000);
  no_memory = true;
  cr_assert_eq(epoch_store_rotate(s, bytes_str("a"), 1000, false, 3000, &diag), ERR_NO_MEMORY);
  cr_assert_eq(epoch_store_set_slot(s, bytes_str("a"), 7000, &diag), ERR_NO_MEMORY);
  no_memory = false;
  cr_assert_eq(epoch_store_current(s, bytes_str("a")), 2);
  epoch_store_close(s);
  s = open_store();
  cr_expect_eq(epoch_store_current(s, bytes_str("a")), 2, "a restart does not bring it");
  cr_expect_eq(epoch_store_slot(s, bytes_str("a")), 0, "nor the slot");
  no_memory = true;
  cr_assert_eq(epoch_store_rotate(s, bytes_str("a"), 1000, false, 3000, &diag), ERR_NO_MEMORY);
  no_memory = false;
  rotate(s, "b", 4000);
  epoch_store_close(s);
  s = open_store();
  cr_expect_eq(epoch_store_current(s, bytes_str("b")), 2);
  epoch_store_close(s);
}

// A disk that takes its time: each sync tells that it was reached, and waits to be let go.
static bool slow;
static sem_t at_disk, go_on;

static void disk(void) {
  if (!slow)
    return;
  sem_post(&at_disk);
  sem_wait(&go_on);
}

// The folders that were synced, as their inodes.
static ino_t synced[16];
static unsigned num_synced;

static void note_folder(int fd) {
  struct stat st;
  if (!fstat(fd, &st) && S_ISDIR(st.st_mode) && num_synced < 16)
    synced[num_synced++] = st.st_ino;
}

static bool is_synced(const char *path) {
  struct stat st;
  cr_assert_eq(stat(path, &st), 0);
  for (unsigned i = 0; i < num_synced; i++)
    if (synced[i] == st.st_ino)
      return true;
  return false;
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

static bool stuck_folder, quick; // quick: the real disk is not waited for

int __wrap_fsync(int fd) {
  struct stat st;
  disk();
  note_folder(fd);
  errno = EIO;
  return stuck_folder && !fstat(fd, &st) && S_ISDIR(st.st_mode) ? -1 : quick ? 0 : __real_fsync(fd);
}

int __wrap_fdatasync(int fd) { return disk(), quick ? 0 : __real_fdatasync(fd); }

// The line is there, and no room for a second file.
Test(epoch_store, a_compaction_that_fails_costs_space_alone) {
  char path[128];
  struct stat before, after;
  quick = true;
  struct epoch_store *s = open_store();
  for (unsigned i = 0; i < 1023; i++)
    rotate(s, "a", 2000 + i * 10);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  cr_assert_eq(stat(path, &before), 0);
  room = before.st_size / 1000 + 4; // a line, and less than two
  rotate(s, "a", 20000);
  room = -1;
  cr_assert_eq(stat(path, &after), 0);
  cr_expect_gt(after.st_size, before.st_size, "it was not compacted");
  snprintf(path, sizeof path, "%s/rotations.journal.new", dir);
  cr_expect(stat(path, &after) && errno == ENOENT, "what was begun is left behind");
  rotate(s, "a", 30000);
  epoch_store_close(s);
  s = open_store();
  cr_expect_eq(epoch_store_current(s, bytes_str("a")), 1026);
  epoch_store_close(s);
}

// Until the folder has the new file, a power cut may bring the old one back, without what would be appended.
Test(epoch_store, a_folder_that_cannot_be_synced_is_tried_again) {
  struct diag diag = {0};
  quick = true;
  struct epoch_store *s = open_store();
  for (unsigned i = 0; i < 1023; i++)
    rotate(s, "a", 2000 + i * 10);
  stuck_folder = true;
  rotate(s, "a", 20000);
  cr_assert_eq(epoch_store_rotate(s, bytes_str("a"), 1000, false, 30000, &diag), ERR_IO);
  stuck_folder = false;
  rotate(s, "a", 40000);
  epoch_store_close(s);
  s = open_store();
  cr_expect_eq(epoch_store_current(s, bytes_str("a")), 1026);
  epoch_store_close(s);
}

static void *rotate_apart(void *s) {
  rotate(s, "a/", 5000);
  return NULL;
}

static void *set_slot_apart(void *s) {
  struct diag diag = {0};
  cr_assert_eq(epoch_store_set_slot(s, bytes_str("b/"), 7000, &diag), ERR_OK);
  return NULL;
}

struct reading {
  struct epoch_store *s;
  sem_t done;
  uint32_t a;
  uint64_t slot;
};

static void count(void *n, struct bytes scope, uint64_t rotations) {
  (void)scope;
  *(uint64_t *)n += rotations;
}

static void *read_apart(void *arg) {
  struct reading *r = arg;
  uint64_t n = 0, until;
  r->a = epoch_store_current(r->s, bytes_str("a/b"));
  (void)epoch_store_status(r->s, bytes_str("a/b"), 1, 5000, &until);
  r->slot = epoch_store_slot(r->s, bytes_str("b/"));
  epoch_store_walk(r->s, count, &n);
  sem_post(&r->done);
  return NULL;
}

// What a store says while a rotation waits for its disk, within ten seconds.
static struct reading read_meanwhile(struct epoch_store *s) {
  static struct reading r;
  struct timespec until;
  pthread_t reader;
  r = (struct reading){.s = s};
  sem_init(&r.done, 0, 0);
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 10;
  pthread_create(&reader, NULL, read_apart, &r);
  cr_assert_eq(sem_timedwait(&r.done, &until), 0, "readers wait for the disk of a rotation");
  pthread_join(reader, NULL);
  return r;
}

Test(epoch_store, nobody_waits_for_the_disk_of_a_rotation, .timeout = 60) {
  static void *(*const writes[])(void *) = {rotate_apart, set_slot_apart, rotate_apart};
  struct epoch_store *s = open_store();
  sem_init(&at_disk, 0, 0);
  sem_init(&go_on, 0, 0);
  for (unsigned k = 0; k < 3; k++) {
    for (unsigned i = 0; k == 2 && i < 1021; i++) // with two lines there, the next is the 1024th and compacts: three syncs
      rotate(s, "c/", 3000);
    pthread_t writer;
    slow = true;
    pthread_create(&writer, NULL, writes[k], s);
    unsigned syncs = k == 2 ? 3 : k == 0 ? 2 : 1; // at first the folder's as well
    for (unsigned i = 0; i < syncs; i++) {
      sem_wait(&at_disk);
      struct reading r = read_meanwhile(s);
      cr_expect_eq(r.a, k == 0 ? 1 : k == 1 ? 2 : i ? 3 : 2, "a rotation is in force once it is on disk: %u, sync %u: %u", k, i, r.a);
      cr_expect_eq(r.slot, k < 2 ? 0 : 7000);
      sem_post(&go_on);
    }
    pthread_join(writer, NULL);
    slow = false;
  }
  epoch_store_close(s);
}

// The first start: what is made here is what all that is ever protected is played with.
Test(epoch_store, a_secret_that_was_made_outlives_a_power_cut_and_what_was_left_of_one) {
  char path[128], left[160], media[] = "/tmp";
  struct stat st;
  struct config_flags flags = {0};
  config_flag_add(&flags, OPTION_media, media);
  config_flag_add(&flags, OPTION_state_dir, dir);
  struct config *c = config_load(NULL, &flags, &error);
  cr_assert(c, "%s", error.text);
  cr_assert_eq(rmdir(dir), 0);
  struct keyring *k = keyring_load(c, LACKING_MADE, &error);
  cr_assert(k, "%s", error.text);
  keyring_put(k);
  cr_expect(is_synced(dir), "the secret's name");
  cr_expect(is_synced("/tmp"), "the folder's name");
  // Who made them may have been killed before that, which the next start cannot know.
  num_synced = 0;
  k = keyring_load(c, LACKING_MADE, &error);
  cr_assert(k, "%s", error.text);
  keyring_put(k);
  cr_expect(is_synced(dir), "the secret's name, once more");
  num_synced = 0;
  epoch_store_close(open_store());
  cr_expect(is_synced("/tmp"), "the folder's name, once more");
  snprintf(path, sizeof path, "%s/derive.secret", dir);
  cr_expect(!stat(path, &st) && st.st_size == 32 && (st.st_mode & 07777) == 0600);
  // A process of the same number, as each is in a container, was killed while it made one.
  snprintf(left, sizeof left, "%s.%ld", path, (long)getpid());
  cr_assert_eq(rename(path, left), 0);
  k = keyring_load(c, LACKING_MADE, &error);
  cr_expect(k, "%s", error.text);
  cr_expect_eq(stat(path, &st), 0);
  keyring_put(k);
  unlink(left);
  unlink(path);
  config_free(c);
}
