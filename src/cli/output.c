#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"
#include "mp4/box.h"

enum { SPOOL_CHUNK = 1 << 18, MAX_STRANGE = 1 << 20, MAX_UNSIZED = 1 << 24, NAME_TRIES = 100, MAX_GIVEN = 64, MAX_PASSING = 4 };

static void folder_of(char out[PATH_MAX], const char *path) {
  struct bytes folder = path_folder(bytes_str(path));
  memcpy(out, folder.p, folder.n);
  out[folder.n] = 0;
}

static bool is_same(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool fail(const char *path, const char *what) {
  cli_error_write(path, what, errno);
  return false;
}

// Names that are to go with the process: where a file system has no nameless files (NFS, FUSE), an interrupt would leave a part
// of the output behind. What handles a signal itself (load), or is told to ignore it (nohup), is left alone.
static char *volatile passing[MAX_PASSING];

static void on_end(int sig) {
  for (int i = 0; i < MAX_PASSING; i++)
    if (passing[i])
      unlink(passing[i]);
  raise(sig); // as it would have ended
}

static void forget(const struct output *o) {
  for (int i = 0; i < MAX_PASSING; i++)
    if (passing[i] == o->temp)
      passing[i] = NULL;
}

static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGXFSZ, SIGQUIT, SIGALRM, SIGXCPU, SIGPIPE, SIGUSR1, SIGUSR2};
enum { NUM_ENDS = sizeof ends / sizeof ends[0] };

// Between the making of a name and its being remembered.
static void hold_signals(sigset_t *old) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < NUM_ENDS; i++)
    sigaddset(&set, ends[i]);
  pthread_sigmask(SIG_BLOCK, &set, old);
}

static void remember(struct output *o) {
  struct sigaction old, now = {.sa_handler = on_end, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
  int i = 0;
  while (i < MAX_PASSING - 1 && passing[i])
    i++;
  passing[i] = o->temp;
  for (int k = 0; k < NUM_ENDS; k++)
    if (!sigaction(ends[k], NULL, &old) && old.sa_handler == SIG_DFL)
      sigaction(ends[k], &now, NULL);
}

// A nameless file where the file system has them: nothing is left behind even by a kill.
static bool open_temp(struct output *o, const char *folder) {
  o->fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  if (o->fd >= 0)
    return true;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
    return fail(o->path, "cannot create the file");
  int n = snprintf(o->temp, sizeof o->temp, "%s/.sluice-XXXXXX", folder);
  if (n < 0 || (size_t)n >= sizeof o->temp) {
    o->temp[0] = 0;
    errno = ENAMETOOLONG;
    return fail(o->path, "cannot create the file");
  }
  sigset_t old;
  hold_signals(&old);
  o->fd = mkostemp(o->temp, O_CLOEXEC);
  if (o->fd >= 0)
    remember(o);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (o->fd < 0) {
    o->temp[0] = 0;
    return fail(o->path, "cannot create the file");
  }
  mode_t mask = umask(0);
  umask(mask);
  return fchmod(o->fd, 0666 & ~mask) == 0 || fail(o->path, "cannot set the mode");
}

// given finds what of the descriptors this process was started with is open on that file and can be written: what
// /dev/stdout and /dev/fd/3 stand for. -1: none.
static int given(const struct stat *st) {
  struct stat mine;
  for (int fd = STDOUT_FILENO; fd < MAX_GIVEN; fd++) {
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_PATH) && (flags & O_ACCMODE) != O_RDONLY && !fstat(fd, &mine) && is_same(&mine, st))
      return fd;
  }
  return -1;
}

// resolve puts the path of the file behind `fd` into o->target; false when it has none (any more).
static bool resolve(struct output *o, int fd, const struct stat *st) {
  char fd_path[64];
  struct stat there;
  snprintf(fd_path, sizeof fd_path, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(fd_path, o->target, sizeof o->target - 1);
  o->target[n > 0 ? n : 0] = 0;
  return n > 0 && o->target[0] == '/' && !lstat(o->target, &there) && is_same(&there, st);
}

// What has the name already: whose descriptor to write to, or that it is to be replaced. `is_link`: o->path is one.
static bool open_existing(struct output *o, int fd, const struct stat *st, bool is_link) {
  if (S_ISDIR(st->st_mode)) {
    errno = EISDIR;
    return fail(o->path, "cannot create the file");
  }
  o->fd = given(st);
  o->direct = o->fd >= 0;
  if (o->direct || (S_ISREG(st->st_mode) && (!is_link || resolve(o, fd, st))))
    return true;
  o->direct = true;
  o->fd = open(o->path, O_WRONLY | O_CLOEXEC | (S_ISREG(st->st_mode) ? O_TRUNC : 0));
  return o->fd >= 0 || fail(o->path, "cannot open");
}

// A file that takes another's place is as private as that one. Where its group cannot be had, no group reads it.
static bool take_mode(struct output *o, const struct stat *old) {
  mode_t mode = old->st_mode & 0777;
  if (fchown(o->fd, old->st_uid, old->st_gid) && fchown(o->fd, (uid_t)-1, old->st_gid))
    mode &= ~(mode_t)070;
  return fchmod(o->fd, mode) == 0 || fail(o->path, "cannot set the mode");
}

bool output_open(struct output *o, const char *path, const struct stat *in) {
  struct stat st, link, dir;
  char folder[PATH_MAX];
  *o = (struct output){.fd = -1};
  if (strcmp(path, "-") == 0) {
    o->direct = true;
    o->fd = STDOUT_FILENO;
    memcpy(o->path, "standard output", sizeof "standard output");
    return true;
  }
  if (strlen(path) >= sizeof o->path) {
    errno = ENAMETOOLONG;
    return fail(path, "cannot create the file");
  }
  memcpy(o->path, path, strlen(path) + 1);
  memcpy(o->target, path, strlen(path) + 1);
  // The kernel follows the links, so that its rules for other users' links hold (proc(5), protected_symlinks).
  int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0 && errno != ENOENT)
    return fail(path, "cannot create the file");
  bool there = fd >= 0 && !fstat(fd, &st), is_link = !lstat(path, &link) && S_ISLNK(link.st_mode), ok = true;
  if (!there && is_link) {
    ok = fail(path, "cannot create the file");
  } else if (there && in && is_same(&st, in)) {
    cli_error(path, "input and output are the same file");
    ok = false;
  } else if (there) {
    ok = open_existing(o, fd, &st, is_link);
  }
  if (fd >= 0)
    close(fd);
  if (!ok || o->direct)
    return ok;
  folder_of(folder, o->target);
  if (in && S_ISDIR(in->st_mode) && stat(folder, &dir) == 0 && is_same(&dir, in)) {
    cli_error(path, "the output would lie in the input folder");
    return false;
  }
  if (open_temp(o, folder) && (!there || take_mode(o, &st)))
    return true;
  output_drop(o);
  return false;
}

bool output_write(struct output *o, const void *p, size_t n) {
  const char *at = (const char *)p;
  while (n) {
    ssize_t k = write(o->fd, at, n);
    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      return fail(o->path, "writing failed");
    at += k;
    n -= (size_t)k;
    o->written += (size_t)k;
  }
  return true;
}

// give_name links a nameless file beside its place, so that the rename that follows replaces in one step.
static bool give_name(struct output *o) {
  char fd_path[64], folder[PATH_MAX];
  snprintf(fd_path, sizeof fd_path, "/proc/self/fd/%d", o->fd);
  folder_of(folder, o->target);
  for (int i = 0; i < NAME_TRIES; i++) {
    int n = snprintf(o->temp, sizeof o->temp, "%s/.sluice-%d-%d", folder, (int)getpid(), i);
    if (n < 0 || (size_t)n >= sizeof o->temp) {
      errno = ENAMETOOLONG;
      break;
    }
    sigset_t old;
    hold_signals(&old);
    bool linked = linkat(AT_FDCWD, fd_path, AT_FDCWD, o->temp, AT_SYMLINK_FOLLOW) == 0;
    if (linked)
      remember(o);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (linked)
      return true;
    if (errno != EEXIST)
      break;
  }
  o->temp[0] = 0;
  return false;
}

bool output_commit(struct output *o) {
  if (o->direct) {
    bool ok = o->fd == STDOUT_FILENO || close(o->fd) == 0;
    o->fd = -1;
    return ok || fail(o->path, "writing failed");
  }
  bool ok = o->temp[0] || give_name(o);
  if (ok) { // before it has its place: over NFS this is where a full disk is told
    ok = close(o->fd) == 0;
    o->fd = -1;
  }
  ok = ok && rename(o->temp, o->target) == 0;
  if (ok)
    o->temp[0] = 0;
  if (!ok)
    fail(o->path, "cannot create the file");
  output_drop(o);
  return ok;
}

void output_drop(struct output *o) {
  if (o->temp[0])
    unlink(o->temp);
  o->temp[0] = 0;
  forget(o);
  if (o->fd >= 0 && o->fd != STDOUT_FILENO)
    close(o->fd);
  o->fd = -1;
}

// The boxes of a stream, looked at as it comes: one that never ends would fill the disk before its first box is read.
struct boxes_ahead {
  uint64_t at, next; // bytes seen; where the next box begins, UINT64_MAX: nowhere
  uint64_t most;     // bytes that a copy may have
  uint64_t unsized;  // where a box begins that has the size 0, which is to the end, and is no mdat; UINT64_MAX: none
  uint8_t head[16];
  size_t have;       // bytes of the next box's head
  const char *folder; // of the copy
};

static bool too_long(const struct boxes_ahead *a, uint64_t n, const char *said) {
  cli_error("standard input", "%sit has %" PRIu64 " bytes or more: its copy in %.240s may take %" PRIu64
            ", half of what is free (TMPDIR names another folder)", said, n, a->folder, a->most);
  return false;
}

// A box of a kind that is not known, at the start of a stream, is taken for one where it looks like one and is short.
static bool is_strange(const struct box *b) {
  bool plain = true;
  for (int i = 0; i < 32; i += 8)
    plain &= ((b->type >> i & 255) >= ' ' && (b->type >> i & 255) < 0x7f) || (b->type >> i & 255) == 0xa9; // QuickTime's
  return !box_info_of(b->type) && (!plain || b->len > MAX_STRANGE);
}

// The head of a box is there. *done: what follows is no box, and whoever reads the copy will say so.
static bool look_at_box(struct boxes_ahead *a, bool *done) {
  struct bytes head = bytes_of(a->head, a->have);
  struct box b = {.pos = a->next};
  enum err e = box_head(&b, head, UINT64_MAX - a->next, true);
  a->have = 0;
  bool foreign = !b.pos && box_is_foreign(e, head);
  if (foreign || (!b.pos && !e && is_strange(&b))) {
    struct diag d = {0};
    (void)diag_set(&d, ERR_UNSUPPORTED, 0, foreign ? "this is not an MP4 file" : "this is not an MP4 file, or one that begins with a box of an unknown type: give it as a file then");
    cli_error_diag("standard input", &d);
    return false;
  }
  *done = e != ERR_OK;
  if (!e && !b.to_end && b.pos + b.len > a->most)
    return too_long(a, b.pos + b.len, "its boxes say that ");
  a->next = e || b.to_end ? UINT64_MAX : b.pos + b.len;
  if (!e && b.to_end && b.type != FOURCC('m', 'd', 'a', 't'))
    a->unsized = b.pos;
  return true;
}

// *n: bytes that have come, of which those behind the head that is none are not wanted.
static bool look_ahead(struct boxes_ahead *a, const uint8_t *p, size_t *n, bool *done) {
  if (a->at + *n > a->most)
    return too_long(a, a->at + *n, "");
  uint64_t end = a->at + *n;
  if (end > a->unsized && end - a->unsized > MAX_UNSIZED) {
    struct diag d = {0};
    (void)diag_set(&d, ERR_LIMIT, a->unsized, "a box of size 0, which is to the end, that is no mdat has more than %d MiB: give it as a file", MAX_UNSIZED >> 20);
    cli_error_diag("standard input", &d);
    return false;
  }
  while (!*done && a->next + a->have < end) {
    uint64_t pos = a->next + a->have;
    a->head[a->have] = p[pos - a->at];
    a->have++;
    bool whole = a->have == 16 || (a->have == 8 && load_be32(a->head) != 1);
    if (whole && !look_at_box(a, done))
      return false;
    if (*done)
      *n = (size_t)(pos + 1 - a->at);
  }
  a->at = end;
  return true;
}

// Half of what is free.
static uint64_t room_for_copy(int fd, bool memory) {
  struct statvfs fs;
  if (memory) {
    static const char digits[] = "0123456789";
    uint64_t kib = 0;
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && !kib && fgets(line, sizeof line, f)) {
      const char *n = line + strcspn(line, digits);
      if (!strncmp(line, "MemAvailable:", 13) && parse_u64(&kib, bytes_of((const uint8_t *)n, strspn(n, digits))))
        kib = 0;
    }
    if (f)
      fclose(f);
    return kib ? kib * 512 : (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 4;
  }
  return fstatvfs(fd, &fs) || !fs.f_blocks ? UINT64_MAX : fs.f_bavail * fs.f_frsize / 2;
}

static int copy_of_stdin(void) {
  const char *folder = getenv("TMPDIR");
  if (!folder || !*folder)
    folder = "/tmp";
  int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  bool memory = fd < 0;
  if (memory)
    fd = memfd_create("sluice-input", MFD_CLOEXEC);
  bool ok = fd >= 0 || fail("standard input", "no copy of it can be made");
  char *buf = (char *)malloc(SPOOL_CHUNK);
  struct output to = {.fd = fd, .direct = true};
  snprintf(to.path, sizeof to.path, "copy of standard input in %.240s (TMPDIR names another folder)", memory ? "memory" : folder);
  if (ok && !buf)
    ok = cli_error("standard input", "out of memory") == EXIT_DONE;
  struct boxes_ahead ahead = {.unsized = UINT64_MAX, .most = ok ? room_for_copy(fd, memory) : 0, .folder = memory ? "memory" : folder};
  bool done = false;
  for (ssize_t n = 1; ok && n > 0 && !done;) {
    n = read(STDIN_FILENO, buf, SPOOL_CHUNK);
    if (n < 0 && errno == EINTR)
      n = 1;
    else if (n < 0)
      ok = fail("standard input", "reading failed");
    else {
      size_t wanted = (size_t)n;
      ok = look_ahead(&ahead, (const uint8_t *)buf, &wanted, &done) && output_write(&to, buf, wanted);
    }
  }
  free(buf);
  if (ok)
    return fd;
  if (fd >= 0)
    close(fd);
  return -1;
}

bool input_open(struct input *in, const char *path) {
  struct diag d = {0};
  char copy[64];
  bool is_stdin = strcmp(path, "-") == 0;
  *in = (struct input){.subject = is_stdin ? "standard input" : path, .media = {.dir_fd = -1, .fd = -1}, .spool = -1};
  in->has_stat = !is_stdin && stat(path, &in->stat) == 0;
  if (in->has_stat && S_ISFIFO(in->stat.st_mode)) {
    cli_error(path, "is a pipe: give - and the pipe as standard input");
    return false;
  }
  if (is_stdin) {
    if ((in->spool = copy_of_stdin()) < 0)
      return false;
    snprintf(copy, sizeof copy, "/proc/self/fd/%d", in->spool);
    path = copy;
  }
  if (media_open(&in->media, (struct media_path){AT_FDCWD, path}, &d) == ERR_OK)
    return true;
  cli_error_diag(in->subject, &d);
  return false;
}

void input_error(const struct input *in, struct diag *d) {
  char file[CLI_FAULT_FILE];
  cli_fault_file(file, in->subject, &in->media, d);
  cli_error_source(file, d);
}

void input_close(struct input *in) {
  media_close(&in->media);
  if (in->spool >= 0)
    close(in->spool);
  in->spool = -1;
}
