#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/cli.h"

enum { SPOOL_CHUNK = 1 << 18, NAME_TRIES = 100 };

// folder_of cuts a path to its folder: "a/b" → "a", "b" → ".", "/b" → "/".
static void folder_of(char out[PATH_MAX], const char *path) {
  const char *slash = strrchr(path, '/');
  size_t n = slash ? (size_t)(slash - path) : 0;
  if (slash == path)
    n = 1;
  memcpy(out, slash ? path : ".", slash ? n : 1);
  out[slash ? n : 1] = 0;
}

static bool is_same(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool fail(const char *path, const char *what) {
  cli_error(path, "%s: %s", what, strerrordesc_np(errno));
  return false;
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
  o->fd = mkostemp(o->temp, O_CLOEXEC);
  if (o->fd < 0) {
    o->temp[0] = 0;
    return fail(o->path, "cannot create the file");
  }
  mode_t mask = umask(0);
  umask(mask);
  return fchmod(o->fd, 0666 & ~mask) == 0 || fail(o->path, "cannot set the mode");
}

bool output_open(struct output *o, const char *path, const struct stat *in) {
  struct stat st, dir;
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
  if (stat(path, &st) == 0) {
    if (S_ISDIR(st.st_mode)) {
      errno = EISDIR;
      return fail(path, "cannot create the file");
    }
    if (in && is_same(&st, in)) {
      cli_error(path, "input and output are the same file");
      return false;
    }
    if (!S_ISREG(st.st_mode)) {
      o->direct = true;
      o->fd = open(path, O_WRONLY | O_CLOEXEC);
      return o->fd >= 0 || fail(path, "cannot open");
    }
  }
  folder_of(folder, path);
  if (in && S_ISDIR(in->st_mode) && stat(folder, &dir) == 0 && is_same(&dir, in)) {
    cli_error(path, "the output would lie in the input folder");
    return false;
  }
  return open_temp(o, folder);
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
  folder_of(folder, o->path);
  for (int i = 0; i < NAME_TRIES; i++) {
    int n = snprintf(o->temp, sizeof o->temp, "%s/.sluice-%d-%d", folder, (int)getpid(), i);
    if (n < 0 || (size_t)n >= sizeof o->temp) {
      errno = ENAMETOOLONG;
      break;
    }
    if (linkat(AT_FDCWD, fd_path, AT_FDCWD, o->temp, AT_SYMLINK_FOLLOW) == 0)
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
  bool ok = (o->temp[0] || give_name(o)) && rename(o->temp, o->path) == 0;
  if (ok) {
    o->temp[0] = 0;
    ok = close(o->fd) == 0;
    o->fd = -1;
  }
  if (!ok)
    fail(o->path, "cannot create the file");
  output_drop(o);
  return ok;
}

void output_drop(struct output *o) {
  if (o->temp[0])
    unlink(o->temp);
  o->temp[0] = 0;
  if (o->fd >= 0 && o->fd != STDOUT_FILENO)
    close(o->fd);
  o->fd = -1;
}

int input_spool(void) {
  const char *folder = getenv("TMPDIR");
  int fd = open(folder && *folder ? folder : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0)
    fd = memfd_create("sluice-input", MFD_CLOEXEC);
  char *buf = (char *)malloc(SPOOL_CHUNK);
  struct output to = {.fd = fd, .direct = true, .path = "copy of standard input"};
  bool ok = fd >= 0 && buf;
  for (ssize_t n = 1; ok && n > 0;) {
    n = read(STDIN_FILENO, buf, SPOOL_CHUNK);
    if (n < 0 && errno == EINTR)
      n = 1;
    else if (n < 0)
      ok = fail("standard input", "reading failed");
    else
      ok = output_write(&to, buf, (size_t)n);
  }
  free(buf);
  if (ok)
    return fd;
  if (fd >= 0)
    close(fd);
  return -1;
}
