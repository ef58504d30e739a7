// The rotation journal, stopped at every step of every write.
//
// This program is linked with --wrap for each call with which epoch_store.c changes a file. A child rotates and reports
// each rotation that it was told is durable through a pipe; it is killed (SIGKILL) before, in the middle of, or after
// its k-th step, for every k. Then the journal is opened again: whatever was reported must be there, at most the one
// under way more, and rotating goes on.
//
// With a power cut, what was not synced is lost as well: the child's last act is to cut its files back to what was
// synced, and to undo what was renamed or made in a folder that was not. A cut may also come after the next start: what a child
// that was killed has left, another one opens and says what is in force, or rotates once more, before its power is cut.
#include "server/keyring.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum when { BEFORE, WITHIN, AFTER, NUM_WHEN };

static const char *const when_names[] = {"before", "within", "after"};
static const char *const cuts[] = {"", ", power cut", ", power cut after the next start", ", power cut after the next start and a rotation"};

static struct {
  unsigned step, stop_at; // stop_at 0: never
  enum when when;
  enum { NO_CUT, CUT, CUT_AFTER_START, CUT_AFTER_MORE, NUM_POWER } power;
  char dir[64];
} trial;

// What of the files would survive a power cut: one journal, and one that is to replace it.
struct file {
  int fd;
  off_t synced;
  bool linked;  // its name is in a synced folder
  char path[160];
};
// Shared by the children of a trial.
static struct disk {
  struct file files[2]; // 0: the journal, 1: the fresh one
  char backup[160];     // the journal that an unsynced rename has replaced
} *disk;

int __real_rename(const char *from, const char *to);

static void power_cut(void) {
  for (int i = 0; i < 2; i++) {
    if (disk->files[i].fd > 0 && ftruncate(disk->files[i].fd, disk->files[i].synced))
      _exit(9);
    if (disk->files[i].fd > 0 && !disk->files[i].linked)
      unlink(disk->files[i].path);
  }
  if (*disk->backup && __real_rename(disk->backup, disk->files[0].path))
    _exit(9);
}

static void die(void) {
  if (trial.power == CUT) {
    trial.stop_at = 0;
    power_cut();
  }
  kill(getpid(), SIGKILL);
}

static bool at_step(enum when when) {
  if (when == BEFORE)
    trial.step++;
  return trial.stop_at && trial.step == trial.stop_at && trial.when == when;
}

#define STEP(when)       \
  do {                   \
    if (at_step(when))   \
      die();             \
  } while (0)

ssize_t __real_pwrite64(int fd, const void *p, size_t n, off_t at);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_ftruncate64(int fd, off_t n);
int __real_mkdir(const char *path, mode_t mode);
int __real_open64(const char *path, int flags, mode_t mode);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_ftruncate64(int fd, off_t n);
int __wrap_rename(const char *from, const char *to);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_open64(const char *path, int flags, ...);

ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at) {
  STEP(BEFORE);
  if (trial.stop_at && trial.step == trial.stop_at && trial.when == WITHIN) {
    __real_pwrite64(fd, p, n / 2, at);
    die();
  }
  ssize_t r = __real_pwrite64(fd, p, n, at);
  STEP(AFTER);
  return r;
}

static int synced(int fd, int (*sync)(int)) {
  STEP(BEFORE);
  struct stat st;
  int r = sync(fd);
  fstat(fd, &st);
  for (int i = 0; i < 2; i++) {
    if (fd == disk->files[i].fd)
      disk->files[i].synced = st.st_size;
    if (S_ISDIR(st.st_mode))
      disk->files[i].linked = true;
  }
  if (S_ISDIR(st.st_mode) && *disk->backup) {
    unlink(disk->backup);
    *disk->backup = 0;
  }
  STEP(AFTER);
  return r;
}

int __wrap_fsync(int fd) { return synced(fd, __real_fsync); }
int __wrap_fdatasync(int fd) { return synced(fd, __real_fdatasync); }

int __wrap_ftruncate64(int fd, off_t n) {
  STEP(BEFORE);
  int r = __real_ftruncate64(fd, n);
  STEP(AFTER);
  return r;
}

int __wrap_rename(const char *from, const char *to) {
  STEP(BEFORE);
  if (!*disk->backup) { // else the file before that one is what a cut brings back
    snprintf(disk->backup, sizeof disk->backup, "%s.backup", to);
    if (link(to, disk->backup))
      _exit(9);
  }
  int r = __real_rename(from, to);
  disk->files[0].fd = disk->files[1].fd;
  disk->files[0].synced = disk->files[1].synced;
  disk->files[1].fd = 0;
  STEP(AFTER);
  return r;
}

int __wrap_mkdir(const char *path, mode_t mode) {
  STEP(BEFORE);
  int r = __real_mkdir(path, mode);
  STEP(AFTER);
  return r;
}

int __wrap_open64(const char *path, int flags, ...) {
  if (!(flags & O_CREAT)) {
    struct stat st;
    int fd = __real_open64(path, flags, 0);
    if (fd < 0 || !strstr(path, "/rotations.journal") || fstat(fd, &st))
      return fd;
    if (!*disk->files[0].path) // no child before this one: what is there was acknowledged
      disk->files[0] = (struct file){.synced = st.st_size, .linked = true};
    disk->files[0].fd = fd;
    snprintf(disk->files[0].path, sizeof disk->files[0].path, "%s", path);
    return fd;
  }
  STEP(BEFORE);
  bool there = !access(path, F_OK), fresh = strstr(path, ".new") != NULL;
  int fd = __real_open64(path, flags, 0600);
  disk->files[fresh] = (struct file){.fd = fd, .linked = there};
  snprintf(disk->files[fresh].path, sizeof disk->files[fresh].path, "%s", path);
  STEP(AFTER);
  return fd;
}

enum { ROTATIONS = 1030 }; // past a compaction

static struct epoch_store *open_store(void) {
  struct config_error error;
  struct epoch_store *s = epoch_store_open(trial.dir, 1, &error);
  if (!s)
    printf("# %s\n", error.text);
  return s;
}

static void report_epoch(struct epoch_store *s, int report) {
  uint32_t now = epoch_store_current(s, bytes_str("a"));
  if (write(report, &now, sizeof now) != sizeof now)
    _exit(8);
}

static void rotate_once(struct epoch_store *s, int report) {
  struct diag diag = {0};
  uint32_t n = epoch_store_current(s, bytes_str("a"));
  if (n % 2 ? epoch_store_rotate(s, bytes_str("a"), 1, false, 2000 + n, &diag)
            : epoch_store_rotate_slot(s, bytes_str("a"), 1, 2000 + n, 2000 + n, &diag))
    _exit(8);
  report_epoch(s, report);
}

// Rotates up to epoch `target`, reporting each epoch that is durable.
static void rotate_to(unsigned target, int report) {
  struct epoch_store *s = open_store();
  while (s && epoch_store_current(s, bytes_str("a")) < target)
    rotate_once(s, report);
  _exit(s ? 0 : 7);
}

// A start, reporting the epoch that is in force from then on, and a power cut.
static void start_and_cut(int report) {
  struct epoch_store *s = open_store();
  if (!s)
    _exit(7);
  report_epoch(s, report);
  if (trial.power == CUT_AFTER_MORE)
    rotate_once(s, report);
  power_cut();
  _exit(0);
}

// One child with the trial's settings; without a target it only starts. Gives its wait status; *last is the last epoch that it reported.
static int child(unsigned target, uint32_t *last) {
  int ends[2];
  if (pipe(ends))
    exit(1);
  pid_t pid = fork();
  if (!pid) {
    close(ends[0]);
    trial.step = 0;
    disk->files[0].fd = disk->files[1].fd = 0; // those of another child
    if (target)
      rotate_to(target, ends[1]);
    start_and_cut(ends[1]);
  }
  close(ends[1]);
  for (uint32_t n; read(ends[0], &n, sizeof n) == sizeof n;)
    *last = n;
  close(ends[0]);
  int status;
  waitpid(pid, &status, 0);
  return status;
}

static unsigned failed;

static void fail(const char *what, unsigned epoch, uint32_t reported, uint32_t got) {
  printf("# %s, %s step %u after epoch %u%s: reported %u, found %u\n", what, when_names[trial.when], trial.stop_at, epoch,
         cuts[trial.power], reported, got);
  failed++;
}

// What the next start finds.
static void check(unsigned epoch, uint32_t reported) {
  struct epoch_store *s = open_store();
  uint32_t got = s ? epoch_store_current(s, bytes_str("a")) : 0;
  if (got < reported || got > reported + 1)
    fail("a rotation was lost or made up", epoch, reported, got);
  // Epoch n even was ended by a slot, of 2000 + n: with the rotation or not at all.
  uint64_t slot = s ? epoch_store_slot(s, bytes_str("a")) : 0, want = got > 2 ? 2000 + (got - 1) / 2 * 2 : 0;
  if (slot != want)
    fail("the slot is not the rotation's", epoch, (uint32_t)want, (uint32_t)slot);
  epoch_store_close(s);
  s = open_store();
  struct diag diag = {0};
  if (!s || epoch_store_rotate(s, bytes_str("a"), 1, false, 9000, &diag) || epoch_store_current(s, bytes_str("a")) != got + 1)
    fail("rotating does not go on", epoch, reported, got);
  epoch_store_close(s);
}

static void copy(const char *from, const char *to) {
  char buf[1 << 16];
  int in = __real_open64(from, O_RDONLY, 0), out = __real_open64(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  for (ssize_t n; (n = read(in, buf, sizeof buf)) > 0;)
    if (write(out, buf, (size_t)n) != n)
      exit(1);
  close(in);
  close(out);
}

static void clean(void) {
  static const char *const names[] = {"rotations.journal", "rotations.journal.new", "rotations.journal.backup"};
  char path[128];
  for (int i = 0; i < 3; i++) {
    snprintf(path, sizeof path, "%s/%s", trial.dir, names[i]);
    unlink(path);
  }
}

// Every step of three rotations after `epoch`, starting with the journal `from` (NULL: none, nor a folder).
static unsigned every_step(unsigned epoch, const char *from) {
  char path[128];
  unsigned done = 0;
  snprintf(path, sizeof path, "%s/rotations.journal", trial.dir);
  for (trial.power = NO_CUT; trial.power < NUM_POWER; trial.power++)
    for (trial.when = BEFORE; trial.when < NUM_WHEN; trial.when++)
      for (trial.stop_at = 1;; trial.stop_at++) {
        uint32_t last = epoch;
        clean();
        if (from)
          copy(from, path);
        else
          rmdir(trial.dir);
        *disk = (struct disk){0};
        int status = child(epoch + 3, &last);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
          break; // there are fewer steps; those without a middle are the same as without a stop
        if (!WIFSIGNALED(status))
          fail("the child failed", epoch, last, (uint32_t)WEXITSTATUS(status));
        unsigned stop = trial.stop_at;
        trial.stop_at = 0;
        if (trial.power >= CUT_AFTER_START && child(0, &last) != 0)
          fail("the next start failed", epoch, last, 0);
        check(epoch, last);
        trial.stop_at = stop;
        done++;
        if (trial.when == WITHIN && trial.stop_at > 64)
          break;
      }
  trial.stop_at = 0;
  trial.power = NO_CUT;
  return done;
}

int main(void) {
  char saved[96], path[128];
  uint32_t last = 1;
  disk = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  snprintf(trial.dir, sizeof trial.dir, "/tmp/sluice-journal-XXXXXX");
  if (disk == MAP_FAILED || !mkdtemp(trial.dir))
    return 1;
  unsigned first = every_step(1, NULL);
  printf("%s 1 - the first write, stopped at %u places\n", failed || first < 20 ? "not ok" : "ok", first);
  clean();
  mkdir(trial.dir, 0700);
  // The journal as it is one rotation before it is compacted.
  if (child(ROTATIONS, &last) != 0 || last != ROTATIONS)
    fail("rotating", 1, ROTATIONS, last);
  unsigned bad = failed;
  snprintf(path, sizeof path, "%s/rotations.journal", trial.dir);
  snprintf(saved, sizeof saved, "%s.saved", trial.dir);
  copy(path, saved);
  unsigned later = every_step(ROTATIONS, saved);
  printf("%s 2 - an append, stopped at %u places\n", failed > bad || later < 8 ? "not ok" : "ok", later);
  clean();
  bad = failed;
  last = 1;
  if (child(1024, &last) != 0 || last != 1024) // 1023 lines: the next one compacts
    fail("rotating", 1, 1024, last);
  copy(path, saved);
  unsigned compacting = every_step(1024, saved);
  printf("%s 3 - a compaction, stopped at %u places\n", failed > bad || compacting < 20 ? "not ok" : "ok", compacting);
  printf("1..3\n");
  clean();
  unlink(saved);
  rmdir(trial.dir);
  return failed != 0;
}
