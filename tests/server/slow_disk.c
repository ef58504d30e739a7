// A disk that stands still as long as the file SLOW_DISK is there, media that do with SLOW_MEDIA (with SLOW_TRACK: that file of them alone),
// folders with SLOW_FOLDERS: to be loaded in front of the C library.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void stand_still(const char *name) {
  const char *still = getenv(name);
  struct stat st;
  while (still && !stat(still, &st))
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

int fdatasync(int fd) {
  stand_still("SLOW_DISK");
  return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pread64(int fd, void *p, size_t n, off64_t at) {
  const char *track = getenv("SLOW_TRACK");
  struct stat all, one;
  if (!track || (!fstat(fd, &all) && !stat(track, &one) && all.st_ino == one.st_ino))
    stand_still("SLOW_MEDIA");
  return syscall(SYS_pread64, fd, p, n, at);
}

DIR *fdopendir(int fd) {
  stand_still("SLOW_FOLDERS");
  DIR *(*real)(int);
  *(void **)&real = dlsym(RTLD_NEXT, "fdopendir");
  return real(fd);
}
