// A system without memory: allocations fail from one on, one of them or all that follow; and a disk of which one read fails. To be loaded
// in front of the C library. The file NO_MEMORY holds which allocation is the first (0: none), how many fail, how many there were; which
// read fails (0: none), and how many there were. No dlsym here: it allocates.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t num, size_t n);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
// A sanitizer's, where there is one.
__attribute__((weak)) void *__interceptor_malloc(size_t n);
__attribute__((weak)) void *__interceptor_calloc(size_t num, size_t n);
__attribute__((weak)) void *__interceptor_realloc(void *p, size_t n);
__attribute__((weak)) void *__interceptor_memalign(size_t align, size_t n);

static struct {
  _Atomic uint32_t from, num, count, read, reads;
} nothing, *faults = &nothing;

static bool fails(void) {
  uint32_t n = atomic_fetch_add(&faults->count, 1) + 1, from = faults->from;
  if (!from || n < from || n - from >= faults->num)
    return false;
  errno = ENOMEM;
  return true;
}

void *malloc(size_t n) { return fails() ? NULL : (__interceptor_malloc ? __interceptor_malloc : __libc_malloc)(n); }
void *calloc(size_t num, size_t n) { return fails() ? NULL : (__interceptor_calloc ? __interceptor_calloc : __libc_calloc)(num, n); }
void *realloc(void *p, size_t n) { return fails() ? NULL : (__interceptor_realloc ? __interceptor_realloc : __libc_realloc)(p, n); }
void *aligned_alloc(size_t align, size_t n) { return fails() ? NULL : (__interceptor_memalign ? __interceptor_memalign : __libc_memalign)(align, n); }

int posix_memalign(void **p, size_t align, size_t n) {
  void *got = aligned_alloc(align, n);
  if (!got)
    return ENOMEM;
  *p = got;
  return 0;
}

void *mmap64(void *at, size_t n, int prot, int flags, int fd, off64_t off) {
  return flags & MAP_ANONYMOUS && fails() ? MAP_FAILED : (void *)syscall(SYS_mmap, at, n, prot, flags, fd, off);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t off) { return mmap64(at, n, prot, flags, fd, off); }

ssize_t pread64(int fd, void *p, size_t n, off64_t off) {
  if (atomic_fetch_add(&faults->reads, 1) + 1 != faults->read)
    return syscall(SYS_pread64, fd, p, n, off);
  errno = EIO;
  return -1;
}

__attribute__((constructor)) static void begin(void) {
  const char *file = getenv("NO_MEMORY");
  int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
  void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0)
    close(fd);
  if (map != MAP_FAILED)
    faults = map;
}
