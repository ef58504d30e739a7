// What a copy into memory costs when another core has just read that memory: a socket's on loopback, whose pages come back
// from the client. Prints, for rings of several sizes, the time of copying 32 KB from L2 into the next block of the ring, alone
// and with a reader on another core right behind. `rep movsb`, as the kernel copies. With `apart` only one number, how far the
// two cores are from each other: nanoseconds of a copy into 32 KB that the other one has just read (some 20 ms).
//
//   ninja -C build-release bench/serve/copy && build-release/bench/serve/copy [apart]
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BLOCK = 32768, MOST = 1024, COPIES = 20000, COPIES_APART = 1000, WARM = 2000, WRITER_CORE = 0, READER_CORE = 1 };

static uint8_t *ring;
static long num; // blocks of the ring in use
static atomic_long written, seen;
static atomic_bool over;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void copy(uint8_t *to, const uint8_t *from) {
#ifdef __x86_64__
  size_t n = BLOCK;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
#else
  memcpy(to, from, BLOCK);
#endif
}

static void *room(size_t n) {
  void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) {
    perror("copy: mmap");
    exit(1);
  }
  (void)madvise(p, n, MADV_HUGEPAGE);
  memset(p, 1, n);
  return p;
}

static void pin(size_t core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof set, &set)) {
    perror("copy: needs cores 0 and 1");
    exit(1);
  }
}

static uint8_t *block(long i) { return ring + (size_t)(i % num) * BLOCK; }

static void *reader(void *own) {
  pin(READER_CORE);
  for (long i = 0; !atomic_load(&over);) {
    if (atomic_load(&written) <= i)
      continue;
    copy(own, block(i));
    atomic_store(&seen, ++i);
  }
  return NULL;
}

// Nanoseconds of one copy, the mean of `copies` behind WARM. With `read`, at most half of the ring is ahead of the reader.
static double measure(const uint8_t *from, uint8_t *to, bool read, long copies) {
  pthread_t t;
  uint64_t sum = 0;
  atomic_store(&written, 0);
  atomic_store(&seen, 0);
  atomic_store(&over, false);
  if (read && pthread_create(&t, NULL, reader, to)) {
    perror("copy: a thread");
    exit(1);
  }
  for (long i = 0; i < WARM + copies; i++) {
    while (read && i - atomic_load(&seen) >= (num + 1) / 2)
      ;
    uint64_t begin = now_ns();
    copy(block(i), from);
    sum += i >= WARM ? now_ns() - begin : 0;
    atomic_store(&written, i + 1);
  }
  atomic_store(&over, true);
  if (read)
    pthread_join(t, NULL);
  return (double)sum / (double)copies;
}

int main(int argc, char **argv) {
  static const long sizes[] = {1, 4, 16, 32, 64, 256, MOST};
  bool apart = argc == 2 && !strcmp(argv[1], "apart");
  if (argc > 1 && !apart) {
    fprintf(stderr, "usage: copy [apart]\n");
    return 2;
  }
  pin(WRITER_CORE);
  ring = room((size_t)(apart ? 1 : MOST) * BLOCK);
  uint8_t *from = room(BLOCK), *to = room(BLOCK);
  if (apart) {
    num = 1;
    printf("%.0f\n", measure(from, to, true, COPIES_APART));
    return 0;
  }
  printf("%-12s %18s %28s\n", "ring", "alone", "read by another core");
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    num = sizes[i];
    double alone = measure(from, to, false, COPIES), read = measure(from, to, true, COPIES);
    printf("%9ld KB %6.0f ns %5.1f GB/s %16.0f ns %5.1f GB/s\n", num * BLOCK / 1024, alone, BLOCK / alone, read, BLOCK / read);
  }
  return 0;
}
