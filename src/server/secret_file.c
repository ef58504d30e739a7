#include "server/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "server/sandbox.h"

enum { ROOM_MORE = 4096 };

// Reads to the end, into `room` bytes and as many more as it takes: a pipe does not say its size.
static bool read_all(struct secret_alloc *mem, struct bytes *out, int fd, size_t room, size_t cap) {
  uint8_t *buf = mem->base.get(&mem->base, room + 1);
  size_t n = 0;
  for (ssize_t got; buf && (got = read(fd, buf + n, room + 1 - n)) != 0; n += (size_t)got) {
    if (got < 0)
      return false;
    if (n + (size_t)got <= room)
      continue;
    if (room == cap) {
      errno = EFBIG;
      return false;
    }
    room = cap / 2 > room + ROOM_MORE ? 2 * (room + ROOM_MORE) : cap;
    uint8_t *more = mem->base.get(&mem->base, room + 1);
    if (more)
      memcpy(more, buf, n + (size_t)got);
    explicit_bzero(buf, n + (size_t)got);
    buf = more;
  }
  *out = bytes_of(buf, n);
  errno = ENOMEM;
  return buf != NULL;
}

bool secret_read(struct secret_alloc *mem, struct bytes *out, const char *path, size_t cap) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0)
    return false;
  bool ok = false;
  *out = (struct bytes){0};
  bool known = !fstat(fd, &st); // else errno says why not
  if (known && !(S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode))) {
    errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
  } else if (known && (uint64_t)st.st_size > cap) {
    errno = EFBIG;
  } else if (known) {
    ok = read_all(mem, out, fd, (size_t)st.st_size, cap);
    if (ok && !out->n && S_ISFIFO(st.st_mode)) { // else an empty keys file: every key another one
      ok = false;
      errno = ENODATA;
    }
  }
  int why = errno;
  close(fd);
  errno = why;
  return ok;
}

static bool write_all(int fd, struct bytes b) {
  for (ssize_t n; b.n; b.p += n, b.n -= (size_t)n)
    if ((n = write(fd, b.p, b.n)) <= 0)
      return false;
  return true;
}

bool folder_sync(const char *dir) {
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool ok = fd >= 0 && !fsync(fd);
  int why = errno;
  if (fd >= 0)
    close(fd);
  errno = why;
  return ok;
}

bool folder_make(const char *dir) {
  char *up = NULL;
  bool there = mkdir(dir, 0700) != 0;
  if (there && errno != EEXIST)
    return false;
  // Who made it may have been killed before this; where what is above cannot be opened, it was somebody else.
  bool ok = asprintf(&up, "%s/..", dir) >= 0 && folder_sync(up);
  free(up);
  return ok || there;
}

static int open_folder_of(const char *path) {
  char *folder = path_folder_text(bytes_str(path));
  int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  int why = errno;
  free(folder);
  errno = why;
  return fd;
}

static enum secret_written replace(const char *path, struct bytes text, bool fresh, char **left) {
  char *temp = NULL;
  struct stat st;
  bool there = !stat(path, &st);
  if (there && (fresh || !S_ISREG(st.st_mode))) {
    errno = S_ISDIR(st.st_mode) ? EISDIR : fresh ? EEXIST : EINVAL;
    return SECRET_FAILED;
  }
  if (asprintf(&temp, "%s.XXXXXX", path) < 0)
    return SECRET_FAILED;
  int folder = open_folder_of(path); // first: once the file is replaced, all that can fail is the disk
  int fd = folder >= 0 ? mkostemp(temp, O_CLOEXEC) : -1; // mode 0600
  bool ok = fd >= 0 && write_all(fd, text) && !fsync(fd);
  if (ok && there) { // the owner where we may, the mode without what others than the group could do
    int ignored = fchown(fd, st.st_uid, st.st_gid);
    (void)ignored;
    ok = !fchmod(fd, st.st_mode & 0640);
  }
  ok = ok && (fresh ? !link(temp, path) : !rename(temp, path));
  enum secret_written done = !ok ? SECRET_FAILED : fsync(folder) ? SECRET_UNSYNCED : SECRET_WRITTEN;
  int why = errno;
  if (fd >= 0) {
    close(fd);
    if (unlink(temp) && errno != ENOENT && left) { // its second name, or what failed
      *left = temp;
      temp = NULL;
    }
  }
  if (folder >= 0)
    close(folder);
  free(temp);
  errno = why;
  return done;
}

static enum secret_written replace_target(const char *path, struct bytes text, bool fresh, char **left) {
  struct stat st;
  if (lstat(path, &st) || !S_ISLNK(st.st_mode))
    return replace(path, text, fresh, left);
  // The link stays. stat first: it holds to the kernel's rules for other users' links, which realpath goes around.
  char *target = !stat(path, &st) ? realpath(path, NULL) : NULL;
  enum secret_written done = target ? replace(target, text, fresh, left) : SECRET_FAILED;
  int why = errno;
  free(target);
  errno = why;
  return done;
}

// Signals wait for this: what one that ends the process left under the passing name would be secrets that nobody looks for. Those of
// faults cannot be held back.
enum secret_written secret_write(const char *path, struct bytes text, bool fresh, char **left) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
  sigset_t set, old;
  sigfillset(&set);
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
    sigdelset(&set, faults[i]);
  pthread_sigmask(SIG_BLOCK, &set, &old);
  if (left)
    *left = NULL;
  enum secret_written done = replace_target(path, text, fresh, left);
  int why = errno;
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  errno = why;
  return done;
}

const char *secret_why(int error) {
  if (error == EACCES && sandbox_confined())
    return "not reachable: it lies in none of the folders that were named when the server started, and the sandbox opens "
           "nothing else. Put it into one of those, or restart";
  if (error == EFBIG)
    return "it is longer than any such file that is read";
  if (error == EINVAL)
    return "neither a regular file nor a pipe";
  return error == ENODATA ? config_empty_pipe : strerror(error);
}
