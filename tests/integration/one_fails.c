// A system where one call fails, which FAILS names, on every file whose path ends with FAILS_AT: to be loaded in front of the
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
#include <sys/syscall.h>
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

int close(int fd) {
  bool failed = fails_on("close", fd);
  int r = (int)syscall(SYS_close, fd); // it is closed all the same
  errno = failed ? EIO : errno;
  return failed ? -1 : r;
}

int fsync(int fd) { return fails_on("fsync", fd) ? -1 : (int)syscall(SYS_fsync, fd); }

int lstat64(const char *path, struct stat64 *st) {
  return fails("lstat", path) ? -1 : (int)syscall(SYS_newfstatat, AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

int open64(const char *path, int flags, ...) {
  va_list ap;
  va_start(ap, flags);
  unsigned mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, unsigned) : 0;
  va_end(ap);
  return flags & O_PATH && fails("open", path) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

struct dirent64 *readdir64(DIR *d) {
  if (fails_on("readdir", dirfd(d)))
    return NULL;
  struct dirent64 *(*real)(DIR *);
  *(void **)&real = dlsym(RTLD_NEXT, "readdir64");
  return real(d);
}
