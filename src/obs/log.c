#include "obs/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "obs/nowait.h"

enum {
  STALL_MS = 1000, // that lines wait for a reader, once; then they are lost until there is one again
  LINE_BYTES = 4096, // a path has at most 1024 bytes and a reason behind it; PIPE_BUF: no other line gets in between
};

static _Atomic int current_level = LOG_INFO;
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool stalled;
static _Atomic uint64_t lost; // since the start
static uint64_t told_lost;     // under the lock: as many as a note has said
static int refused;            // under the lock: what writing failed with since that note; 0: nobody read
static char rest[LINE_BYTES]; // under the lock: of a line, what a socket or a full disk has not taken. It goes before all else
static size_t rest_len;

void log_set_level(enum log_level level) { atomic_store_explicit(&current_level, (int)level, memory_order_relaxed); }

uint64_t log_lost(void) { return atomic_load_explicit(&lost, memory_order_relaxed); }

bool log_enabled(enum log_level level) {
  return (int)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

static bool takes_more(int wait_ms) {
  struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
  int r;
  while ((r = poll(&p, 1, wait_ms)) < 0 && errno == EINTR)
    continue;
  return r != 0; // an error is the write's to find
}

static ssize_t push(const char *p, size_t n) {
  struct stat st;
  bool file = !fstat(STDERR_FILENO, &st) && S_ISREG(st.st_mode); // which waits for its disk, and loses nothing
  ssize_t r;
  do
    r = file ? write(STDERR_FILENO, p, n) : write_nowait(STDERR_FILENO, p, n);
  while (r < 0 && errno == EINTR);
  if (r < 0 && errno != EAGAIN)
    refused = errno;
  return r;
}

static bool put_rest(void) {
  while (rest_len) {
    ssize_t r = push(rest, rest_len);
    if (r < 0)
      return false;
    rest_len -= (size_t)r;
    memmove(rest, rest + r, rest_len);
  }
  return true;
}

static long long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// False: nothing of it is out, for another process has filled the pipe since it was looked at, the disk is full, or the line before is
// not out. A pipe takes a line whole; of a socket's the rest is waited for, and kept for the next line where that takes too long.
static bool put(const char *line, size_t len) {
  if (!put_rest())
    return false;
  ssize_t r = push(line, len);
  if (r < 0)
    return false;
  rest_len = len - (size_t)r;
  memcpy(rest, line + r, rest_len);
  long long end_ms = rest_len ? now_ms() + STALL_MS : 0;
  while (!put_rest()) {
    long long left = end_ms - now_ms();
    if (errno != EAGAIN || left <= 0 || !takes_more((int)left)) {
      atomic_store(&stalled, true);
      break;
    }
  }
  return true;
}

static size_t stamp(char *line, size_t cap, enum log_level level) {
  static const char *const names[LOG_LEVEL_COUNT] = {"error", "warn", "info", "debug"};
  struct tm tm;
  time_t now = time(NULL);
  gmtime_r(&now, &tm);
  size_t n = strftime(line, cap, "%Y-%m-%dT%H:%M:%SZ ", &tm);
  return n + (size_t)snprintf(line + n, cap - n, "%s ", names[level]);
}

// Under the lock: how many lines are lost, where some are and more are taken again.
static void put_note(void) {
  char note[192];
  if (!atomic_exchange(&stalled, false)) // who counts a line right after that has it told the next time
    return;
  uint64_t n = log_lost();
  if (n == told_lost)
    return;
  size_t at = stamp(note, sizeof note, LOG_WARN);
  const char *why = refused ? strerrordesc_np(refused) : NULL;
  at += (size_t)snprintf(note + at, sizeof note - at, "standard error was not %s%s: %" PRIu64 " lines before this one are lost\n",
                         refused ? "written: " : "read", why ? why : "", n - told_lost);
  if (!put(note, at)) {
    atomic_store(&stalled, true); // the line behind it may be taken all the same
    return;
  }
  told_lost = n;
  refused = 0;
}

// A pipe that says it takes more takes a page: a line does not wait then, unless another process fills it in between and the kernel
// cannot write without waiting (obs/nowait.h).
static void write_line(const char *line, size_t len) {
  if (atomic_load(&stalled) && !takes_more(0)) {
    atomic_fetch_add(&lost, 1);
    return;
  }
  pthread_mutex_lock(&writing);
  bool was = atomic_load(&stalled), takes = takes_more(was ? 0 : STALL_MS);
  if (takes)
    put_note();
  // The note may have taken the page.
  if (!takes || (was && !takes_more(0)) || !put(line, len)) {
    atomic_store(&stalled, true);
    atomic_fetch_add(&lost, 1);
  }
  pthread_mutex_unlock(&writing);
}

void log_line(enum log_level level, const char *fmt, ...) {
  if (!log_enabled(level))
    return;
  char line[LINE_BYTES];
  size_t head = stamp(line, sizeof line, level);
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(line + head, sizeof line - head, fmt, ap);
  va_end(ap);
  size_t len = head + (n < 0 ? 0 : (size_t)n);
  if (len > sizeof line - 1)
    len = sizeof line - 1;
  text_tame(line + head, len - head); // names are others'
  line[len++] = '\n';
  write_line(line, len);
}
