// Calls that fail, and storage that is slow, as with a kernel that is out of something: to be loaded in front of the C library. The file
// FAULTS holds a number for each kind of `enum kind`, how many of a million calls fail now, and behind these how many have failed. Threads
// go by their names: what is for clients fails in workers, what is for media in helpers and the reader.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum kind { READ, SHORT, SLOW, OPEN, FOLDER, LOG, STORE, SYNC, SEND, PART, RECEIVE, WAIT, SLOW_MS /* no kind: how slow at most */, KINDS };

static struct {
  _Atomic uint32_t rate[KINDS], failed[KINDS];
} nothing, *faults = &nothing;
static atomic_uint threads;
static unsigned seed;

// Each thread has its own row of numbers.
static uint32_t roll(void) {
  static __thread uint64_t state;
  if (!state)
    state = (seed + 1ull) * 0x9e3779b97f4a7c15u ^ (atomic_fetch_add(&threads, 1) + 1ull) * 0xbf58476d1ce4e5b9u;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 32);
}

// Whether a call fails, in threads whose name begins so.
static bool fails(enum kind k, const char *thread) {
  char name[16];
  uint32_t rate = atomic_load_explicit(&faults->rate[k], memory_order_relaxed);
  if (!rate || roll() % 1000000 >= rate || prctl(PR_GET_NAME, name) || strncmp(name, thread, strlen(thread)))
    return false;
  atomic_fetch_add(&faults->failed[k], 1);
  return true;
}

static int error_of(int a, int b, int c) {
  int of[] = {a, b, c};
  return of[roll() % 3];
}

static int fail(int why) {
  errno = why;
  return -1;
}

static void wait_for_disk(const char *thread) {
  if (!fails(SLOW, thread))
    return;
  uint32_t ms = 1 + roll() % (1 + atomic_load(&faults->rate[SLOW_MS]));
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

// Of the next library, which may be a sanitizer's: it looks at what is read and written.
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
  const char *file = getenv("FAULTS"), *number = getenv("FAULTS_SEED");
  int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
  void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  seed = number ? (unsigned)strtoul(number, NULL, 10) : 0;
  if (map != MAP_FAILED)
    faults = map;
  if (fd >= 0)
    close(fd);
}

// ---- storage

static bool opening_fails(void) {
  wait_for_disk("helper");
  return fails(OPEN, "helper");
}

long syscall(long number, ...) { // openat2 has no function
  va_list more;
  long a[6];
  va_start(more, number);
  for (int i = 0; i < 6; i++)
    a[i] = va_arg(more, long);
  va_end(more);
  if (number == SYS_openat2 && opening_fails())
    return fail(error_of(EMFILE, ENFILE, EIO));
  return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int openat64(int fd, const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  return opening_fails() ? fail(error_of(EMFILE, ENFILE, EIO)) : REAL(openat64)(fd, path, flags, mode);
}

DIR *fdopendir(int fd) {
  wait_for_disk("helper");
  if (!fails(FOLDER, "helper"))
    return REAL(fdopendir)(fd);
  errno = ENOMEM;
  return NULL;
}

struct dirent64 *readdir64(DIR *d) {
  if (!fails(FOLDER, "helper"))
    return REAL(readdir64)(d);
  errno = EIO;
  return NULL;
}

static size_t some(size_t n) { return n > 1 ? 1 + roll() % (n - 1) : n; }

ssize_t pread64(int fd, void *p, size_t n, off64_t at) {
  wait_for_disk("helper");
  if (fails(READ, "helper"))
    return fail(error_of(EIO, EIO, EINTR));
  return REAL(pread64)(fd, p, fails(SHORT, "helper") ? some(n) : n, at);
}

// A full disk takes nothing, or what it has room for.
static bool is_full(enum kind k, const char *thread, int fd, size_t *n) {
  struct stat st;
  if (!fails(k, thread) || fstat(fd, &st) || !S_ISREG(st.st_mode))
    return false;
  *n = some(*n);
  errno = ENOSPC;
  return roll() % 2;
}

ssize_t write(int fd, const void *p, size_t n) {
  return is_full(LOG, "sluice", fd, &n) || is_full(STORE, "helper", fd, &n) ? -1 : REAL(write)(fd, p, n);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at) { return is_full(STORE, "", fd, &n) ? -1 : REAL(pwrite64)(fd, p, n, at); }
int fdatasync(int fd) { return fails(SYNC, "") ? fail(EIO) : REAL(fdatasync)(fd); }
int fsync(int fd) { return fails(SYNC, "helper") ? fail(EIO) : REAL(fsync)(fd); }

int renameat(int a, const char *from, int b, const char *to) {
  return fails(SYNC, "helper") ? fail(error_of(EIO, ENOSPC, EIO)) : REAL(renameat)(a, from, b, to);
}

// ---- connections

ssize_t send(int fd, const void *p, size_t n, int flags) {
  return fails(SEND, "worker") ? fail(error_of(EAGAIN, ECONNRESET, EPIPE)) : REAL(send)(fd, p, fails(PART, "worker") ? some(n) : n, flags);
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t n) {
  return fails(SEND, "worker") ? fail(error_of(EAGAIN, ECONNRESET, EPIPE)) : REAL(sendfile64)(out, in, at, fails(PART, "worker") ? some(n) : n);
}

ssize_t recv(int fd, void *p, size_t n, int flags) {
  return fails(RECEIVE, "worker") ? fail(error_of(EAGAIN, ECONNRESET, ETIMEDOUT)) : REAL(recv)(fd, p, fails(PART, "worker") ? some(n) : n, flags);
}

int accept4(int fd, struct sockaddr *a, socklen_t *len, int flags) {
  return fails(RECEIVE, "worker") ? fail(error_of(EMFILE, ENOMEM, ECONNABORTED)) : REAL(accept4)(fd, a, len, flags);
}

int epoll_ctl(int ep, int how, int fd, struct epoll_event *ev) {
  return how == EPOLL_CTL_ADD && fails(WAIT, "worker") ? fail(error_of(ENOMEM, ENOSPC, ENOMEM)) : REAL(epoll_ctl)(ep, how, fd, ev);
}

int epoll_wait(int ep, struct epoll_event *ev, int n, int ms) { return fails(WAIT, "worker") ? fail(EINTR) : REAL(epoll_wait)(ep, ev, n, ms); }

// ---- rings

int io_uring_submit(struct io_uring *ring) { return fails(WAIT, "") ? -error_of(EAGAIN, EBUSY, EINTR) : REAL(io_uring_submit)(ring); }

int io_uring_submit_and_wait(struct io_uring *ring, unsigned n) {
  return fails(WAIT, "") ? -error_of(EINTR, EAGAIN, EBUSY) : REAL(io_uring_submit_and_wait)(ring, n);
}

// What the reader has read is changed before it looks: a short read is the beginning of it.
int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned n, struct __kernel_timespec *ts, sigset_t *mask) {
  struct io_uring_cqe *c;
  unsigned head;
  if (fails(WAIT, ""))
    return -error_of(EINTR, EAGAIN, EBUSY);
  wait_for_disk("reader");
  int r = REAL(io_uring_submit_and_wait_timeout)(ring, cqe, n, ts, mask);
  io_uring_for_each_cqe(ring, head, c) {
    if (c->res <= 1 || !io_uring_cqe_get_data(c)) // that one is what wakes it
      continue;
    if (fails(READ, "reader"))
      c->res = -error_of(EIO, EIO, EAGAIN);
    else if (fails(SHORT, "reader"))
      c->res = (int)some((size_t)c->res);
  }
  return r;
}
