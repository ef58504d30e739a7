// A system where one call fails, which FAILS names, or which has 4 MiB of room (FAILS=room), on every file whose path ends with FAILS_AT: to be loaded in front of the
// C library.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static bool fails(const char *call, const char *path) {
  const char *name = getenv("FAILS"), *at = getenv("FAILS_AT");
  if (!name || !at || strcmp(name, call) != 0 || strlen(path) < strlen(at) || strcmp(path + strlen(path) - strlen(at), at) != 0)
    return false;
  errno = EIO;
  return true;
}

static bool fails_on(const char *call, int fd) {
  char link[64], path[4096];
  int why = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = getenv("FAILS") ? readlink(link, path, sizeof path - 1) : -1;
  errno = why;
  path[n > 0 ? n : 0] = 0;
  return n > 0 && fails(call, path);
}

// The next of a function: a sanitizer's, which has to see all of them, or the C library's.
#define REAL(name, ...) \
  __VA_ARGS__;          \
  *(void **)&real = dlsym(RTLD_NEXT, name)

int close(int fd) {
  REAL("close", int (*real)(int));
  bool failed = fails_on("close", fd);
  int r = real(fd); // it is closed all the same
  errno = failed ? EIO : errno;
  return failed ? -1 : r;
}

int fsync(int fd) {
  REAL("fsync", int (*real)(int));
  return fails_on("fsync", fd) ? -1 : real(fd);
}

int lstat64(const char *path, struct stat64 *st) {
  REAL("lstat64", int (*real)(const char *, struct stat64 *));
  return fails("lstat", path) ? -1 : real(path, st);
}

int open64(const char *path, int flags, ...) {
  REAL("open64", int (*real)(const char *, int, ...));
  va_list ap;
  va_start(ap, flags);
  unsigned mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, unsigned) : 0;
  va_end(ap);
  return flags & O_PATH && fails("open", path) ? -1 : real(path, flags, mode);
}

// A file system with little room.
int fstatvfs64(int fd, struct statvfs64 *fs) {
  REAL("fstatvfs64", int (*real)(int, struct statvfs64 *));
  int r = real(fd, fs);
  if (!r && getenv("FAILS") && !strcmp(getenv("FAILS"), "room"))
    fs->f_bavail = (4 << 20) / fs->f_frsize;
  return r;
}

int unlink(const char *path) {
  REAL("unlink", int (*real)(const char *));
  const char *end = strrchr(path, '.'); // of a passing name
  char stem[4096];
  snprintf(stem, sizeof stem, "%.*s", (int)(end ? end - path : 0), path);
  return fails("unlink", stem) ? -1 : real(path);
}

struct dirent64 *readdir64(DIR *d) {
  REAL("readdir64", struct dirent64 *(*real)(DIR *));
  return fails_on("readdir", dirfd(d)) ? NULL : real(d);
}
