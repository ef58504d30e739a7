#include "obs/access.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/writer.h"
#include "obs/log.h"
#include "obs/nowait.h"

enum {
  RING_BYTES = 1 << 20, // of records; some 8,000 of usual length
  LINE_MAX_BYTES = 8192,
  BATCH_BYTES = 1 << 16,
  TURN_MS = 10,         // between two looks; a ring holds what 500,000 requests a second leave in it
  LOOK_MS = 100,   // how often a write that has to wait looks whether it still should
  LAST_MS = 2000,  // and for how long one that is slow is waited for once the log is being closed
  REOPEN_MS = 1000, // or once it is to be opened again: the rest of its batch is lost then
  PIECE_BYTES = PIPE_BUF, // what a pipe that takes anything takes whole
};

// Records follow each other at multiples of 8 bytes. Positions count bytes and only grow; a record that begins in the ring may
// end behind it.
struct access_ring {
  _Atomic uint64_t head __attribute__((aligned(64))); // written by the worker
  _Atomic uint64_t dropped;
  uint64_t tail_seen; // the worker's last look at `tail`
  _Atomic uint64_t tail __attribute__((aligned(64))); // written by the log's thread
  uint8_t records[RING_BYTES + sizeof(struct access_record)] __attribute__((aligned(64)));
};

struct access_log {
  pthread_t thread;
  char *path;
  enum access_format format;
  int fd;
  bool told; // a failing write was reported
  bool torn; // what the file has ends within a line, which the next batch ends
  bool file; // writing does not wait for a reader
  uint64_t end_ms; // of waiting for its reader; 0: the log is not being closed, or nothing waited
  unsigned num_rings;
  struct access_ring *rings;
  _Atomic bool stop;
  _Atomic uint64_t reopen_ms; // when that was asked for; 0: it was not
  _Atomic uint64_t written, lost; // lost: dropped because the file could not be written
  uint8_t batch[BATCH_BYTES];
  size_t batch_len;
  uint64_t batch_lines;
  uint64_t second; // as `when` says it
  char when[32];
  uint8_t ip[16];  // as `ip_text` says it
  char ip_text[INET6_ADDRSTRLEN];
};

static const uint16_t text_max[ACCESS_TEXTS] = {
    [ACCESS_PATH] = ACCESS_PATH_MAX, [ACCESS_RANGE] = ACCESS_RANGE_MAX, [ACCESS_REFERER] = ACCESS_REFERER_MAX, [ACCESS_AGENT] = ACCESS_AGENT_MAX,
    [ACCESS_FORWARDED] = ACCESS_FORWARDED_MAX};

struct access_ring *access_ring(struct access_log *log, unsigned n) { return &log->rings[n]; }

static size_t texts_len(const struct access_record *r) {
  size_t n = 0;
  for (int i = 0; i < ACCESS_TEXTS; i++)
    n += r->len[i];
  return n;
}

static size_t record_size(const struct access_record *r) {
  return (offsetof(struct access_record, text) + texts_len(r) + 7) & ~(size_t)7;
}

struct access_record *access_slot(struct access_ring *r) {
  const uint64_t room = RING_BYTES - sizeof(struct access_record);
  uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
  if (head - r->tail_seen > room) {
    r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
    if (head - r->tail_seen > room) {
      atomic_store_explicit(&r->dropped, atomic_load_explicit(&r->dropped, memory_order_relaxed) + 1, memory_order_relaxed);
      return NULL;
    }
  }
  struct access_record *slot = (void *)(r->records + head % RING_BYTES);
  memset(slot->len, 0, sizeof slot->len);
  return slot;
}

void access_add(struct access_record *r, enum access_text which, struct bytes text) {
  size_t n = text.n < text_max[which] ? text.n : text_max[which];
  if (n)
    memcpy(r->text + texts_len(r), text.p, n);
  r->len[which] = (uint16_t)n;
}

void access_push(struct access_ring *r) {
  uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
  const struct access_record *slot = (const void *)(r->records + head % RING_BYTES);
  atomic_store_explicit(&r->head, head + record_size(slot), memory_order_release);
}

void access_counts(const struct access_log *log, uint64_t *written, uint64_t *dropped) {
  *written = atomic_load_explicit(&log->written, memory_order_relaxed);
  *dropped = atomic_load_explicit(&log->lost, memory_order_relaxed);
  for (unsigned i = 0; i < log->num_rings; i++)
    *dropped += atomic_load_explicit(&log->rings[i].dropped, memory_order_relaxed);
}

// Text from a client: control bytes, quotes, backslashes and bytes above ASCII as \xHH (combined) or \u00HH (JSON), so that
// a line is always one line and always parses.
static void put_text(struct writer *w, const char *s, size_t n, bool json) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0, plain = 0; i <= n; i++) {
    unsigned char c = i < n ? (unsigned char)s[i] : '"';
    if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\')
      continue;
    wr_raw(w, s + plain, i - plain);
    plain = i + 1;
    if (i == n)
      break;
    wr_str(w, json ? "\\u00" : "\\x");
    wr_u8(w, (uint8_t)digits[c >> 4]);
    wr_u8(w, (uint8_t)digits[c & 15]);
  }
}

void access_write_ip(struct writer *w, const uint8_t ip[16]) {
  static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  char text[INET6_ADDRSTRLEN];
  bool v4 = memcmp(ip, mapped, 12) == 0;
  wr_str(w, inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? ip + 12 : ip, text, sizeof text) ? text : "-");
}

static const char *method_name(uint8_t m) {
  switch (m) {
  case 'G': return "GET";
  case 'H': return "HEAD";
  case 'P': return "POST";
  case 'O': return "OPTIONS";
  default: return "-";
  }
}

// The second and the client of a line are mostly those of the line before.
static void put_when(struct access_log *log, struct writer *w, const struct access_record *r) {
  uint64_t second = r->wall_ns / 1000000000u;
  if (second != log->second || !log->when[0]) {
    struct tm tm;
    time_t t = (time_t)second;
    gmtime_r(&t, &tm);
    strftime(log->when, sizeof log->when, log->format == ACCESS_JSON ? "%Y-%m-%dT%H:%M:%S" : "%d/%b/%Y:%H:%M:%S +0000", &tm);
    log->second = second;
  }
  wr_str(w, log->when);
}

static void put_ip(struct access_log *log, struct writer *w, const struct access_record *r) {
  if (memcmp(log->ip, r->ip, sizeof log->ip) || !log->ip_text[0]) {
    struct writer text = wr_of(log->ip_text, sizeof log->ip_text - 1);
    access_write_ip(&text, r->ip);
    log->ip_text[text.n] = 0;
    memcpy(log->ip, r->ip, sizeof log->ip);
  }
  wr_str(w, log->ip_text);
}

// The last digits of a number, so many, behind a point.
static void put_fraction(struct writer *w, uint64_t v, const int digits) {
  uint8_t text[8];
  for (int i = digits; i-- > 0; v /= 10)
    text[i] = (uint8_t)('0' + v % 10);
  wr_u8(w, '.');
  wr_raw(w, text, (size_t)digits);
}

static void put_seconds(struct writer *w, uint64_t us) {
  wr_dec(w, us / 1000000);
  put_fraction(w, us, 6);
}

static void put_quoted(struct writer *w, const char *s, size_t n) {
  wr_str(w, " \"");
  if (n)
    put_text(w, s, n, false);
  else
    wr_str(w, "-");
  wr_str(w, "\"");
}

static void put_combined(struct access_log *log, struct writer *w, const struct access_record *r, const char *const text[]) {
  put_ip(log, w, r);
  wr_str(w, " - - [");
  put_when(log, w, r);
  wr_str(w, "] \"");
  wr_str(w, method_name(r->method));
  if (r->len[ACCESS_PATH]) { // else it was no request line: "-" alone, which readers of logs know
    wr_u8(w, ' ');
    put_text(w, text[ACCESS_PATH], r->len[ACCESS_PATH], false);
    wr_str(w, r->http10 ? " HTTP/1.0" : " HTTP/1.1");
  }
  wr_str(w, "\" ");
  wr_dec(w, r->status);
  wr_u8(w, ' ');
  wr_dec(w, r->bytes);
  put_quoted(w, text[ACCESS_REFERER], r->len[ACCESS_REFERER]);
  put_quoted(w, text[ACCESS_AGENT], r->len[ACCESS_AGENT]);
  wr_u8(w, '\n');
}

static void put_json(struct access_log *log, struct writer *w, const struct access_record *r, const char *const text[]) {
  static const char *const names[ACCESS_TEXTS] = {NULL, ",\"range\":\"", "\",\"referer\":\"", "\",\"agent\":\"", "\",\"forwarded_for\":\""};
  wr_str(w, "{\"time\":\"");
  put_when(log, w, r);
  put_fraction(w, r->wall_ns / 1000000u, 3);
  wr_str(w, "Z\",\"ip\":\"");
  put_ip(log, w, r);
  wr_str(w, "\",\"method\":\"");
  wr_str(w, method_name(r->method));
  wr_str(w, "\",\"path\":\"");
  put_text(w, text[ACCESS_PATH], r->len[ACCESS_PATH], true);
  wr_str(w, "\",\"status\":");
  wr_dec(w, r->status);
  wr_str(w, ",\"bytes\":");
  wr_dec(w, r->bytes);
  wr_str(w, ",\"duration\":");
  put_seconds(w, r->duration_us);
  wr_str(w, ",\"ttfb\":");
  put_seconds(w, r->ttfb_us);
  wr_str(w, r->tls ? ",\"tls\":true" : ",\"tls\":false");
  for (int i = ACCESS_RANGE; i < ACCESS_TEXTS; i++) {
    wr_str(w, names[i]);
    put_text(w, text[i], r->len[i], true);
  }
  wr_str(w, "\"}\n");
}

// A pipe's reader is not waited for. One that nobody reads yet is held open at both ends, so that it takes what it has room for.
static int open_file(const char *path) {
  enum { FLAGS = O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK };
  if (!strcmp(path, "-"))
    return dup(STDOUT_FILENO);
  int fd = open(path, O_WRONLY | FLAGS, 0640);
  return fd < 0 && errno == ENXIO ? open(path, O_RDWR | FLAGS, 0640) : fd;
}

// Whether a file of that size ends within a line: its disk was full, and the server was started again or told to reopen it.
static bool ends_within_line(const char *path, off_t size) {
  char last = '\n';
  int fd = size && strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
  if (fd < 0)
    return false;
  ssize_t n = pread(fd, &last, 1, size - 1);
  close(fd);
  return n == 1 && last != '\n';
}

static void use_file(struct access_log *log, int fd) {
  struct stat st;
  log->fd = fd;
  log->file = !fstat(fd, &st) && S_ISREG(st.st_mode);
  log->torn = log->file && ends_within_line(log->path, st.st_size);
  log->told = false;
}

static uint64_t mono_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

// Whether a write should not wait any longer.
static bool is_over(struct access_log *log) {
  uint64_t now = mono_ms();
  uint64_t asked = atomic_load(&log->reopen_ms);
  bool stop = atomic_load(&log->stop);
  if (stop && !log->end_ms)
    log->end_ms = now + LAST_MS;
  return (stop && now >= log->end_ms) || (asked && now >= asked + REOPEN_MS);
}

// A pipe, a terminal or a socket is waited for as long as it takes, but once the log is being closed LAST_MS in all, and while it is to be
// opened again REOPEN_MS from then on. ETIMEDOUT: that is over, and it takes nothing now.
static ssize_t write_waiting(struct access_log *log, const uint8_t *p, size_t n) {
  struct pollfd fd = {.fd = log->fd, .events = POLLOUT};
  for (;;) {
    bool over = is_over(log), ready = poll(&fd, 1, over ? 0 : LOOK_MS) > 0;
    ssize_t r = ready ? write_nowait(log->fd, p, n) : -1;
    if (ready && (r >= 0 || (errno != EAGAIN && errno != EINTR)))
      return r;
    if (over) {
      errno = ETIMEDOUT;
      return -1;
    }
    if (ready) // somebody else who writes there was faster
      nanosleep(&(struct timespec){.tv_nsec = TURN_MS * 1000000L}, NULL);
  }
}

static ssize_t write_some(struct access_log *log, const uint8_t *p, size_t n) {
  return log->file ? write(log->fd, p, n) : write_waiting(log, p, n < PIECE_BYTES ? n : PIECE_BYTES);
}

static uint64_t lines_in(const uint8_t *p, size_t n) {
  uint64_t num = 0;
  for (size_t i = 0; i < n; i++)
    num += p[i] == '\n';
  return num;
}

// A pipe that this process holds open at both ends stays: with the last of them closed, what it holds would be gone.
static bool is_held(int old, int fresh) {
  struct stat a, b;
  return (fcntl(old, F_GETFL) & O_ACCMODE) == O_RDWR && !fstat(old, &a) && !fstat(fresh, &b) && S_ISFIFO(b.st_mode) && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

static void reopen_if_asked(struct access_log *log) {
  if (!atomic_exchange(&log->reopen_ms, 0))
    return;
  int fd = open_file(log->path);
  if (fd < 0) {
    log_line(LOG_ERROR, "access log %s: %s; going on with the old file", log->path, strerror(errno));
  } else if (is_held(log->fd, fd)) {
    close(fd);
  } else {
    close(log->fd);
    use_file(log, fd);
  }
}

static void flush(struct access_log *log) {
  size_t done = 0;
  ssize_t n = 0;
  while (done < log->batch_len && n >= 0) {
    n = write_some(log, log->batch + done, log->batch_len - done);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
      n = 0;
    done += n > 0 ? (size_t)n : 0;
  }
  if (n < 0 && !log->told)
    log_line(LOG_ERROR, "access log %s: %s; lines are being dropped", log->path, errno == ETIMEDOUT ? "its reader has stopped" : strerror(errno));
  log->told = n < 0;
  uint64_t whole = lines_in(log->batch, done) - (log->torn && done);
  atomic_fetch_add(&log->lost, log->batch_lines - whole);
  atomic_fetch_add(&log->written, whole);
  log->torn = done ? log->batch[done - 1] != '\n' : log->torn;
  log->batch_len = 0;
  log->batch_lines = 0;
  if (n < 0)
    reopen_if_asked(log);
}

static void put_line(struct access_log *log, const struct access_record *r) {
  const char *text[ACCESS_TEXTS], *p = r->text;
  for (int i = 0; i < ACCESS_TEXTS; p += r->len[i++])
    text[i] = p;
  struct writer w = wr_of(log->batch + log->batch_len, LINE_MAX_BYTES);
  (log->format == ACCESS_JSON ? put_json : put_combined)(log, &w, r, text);
  log->batch_len += w.n; // a record's texts are bounded: the longest line fits
  log->batch_lines++;
}

static void drain(struct access_log *log, struct access_ring *r) {
  uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
  uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire);
  while (tail != head) {
    if (BATCH_BYTES - log->batch_len < LINE_MAX_BYTES)
      flush(log);
    if (log->torn && !log->batch_len)
      log->batch[log->batch_len++] = '\n';
    const struct access_record *record = (const void *)(r->records + tail % RING_BYTES);
    put_line(log, record);
    tail += record_size(record);
    atomic_store_explicit(&r->tail, tail, memory_order_release);
  }
}

_Static_assert(ACCESS_TEXT_MAX * 6 + 512 < LINE_MAX_BYTES, "a line fits");
_Static_assert(sizeof(struct access_record) % 8 == 0, "records are aligned");

static void *run(void *arg) {
  struct access_log *log = arg;
  for (;;) {
    bool stop = atomic_load(&log->stop);
    reopen_if_asked(log);
    for (unsigned i = 0; i < log->num_rings; i++)
      drain(log, &log->rings[i]);
    if (log->batch_len)
      flush(log);
    if (stop)
      return NULL;
    nanosleep(&(struct timespec){.tv_nsec = TURN_MS * 1000000L}, NULL);
  }
}

enum err access_open(struct access_log **out, const char *path, enum access_format format, unsigned num_rings) {
  int fd = open_file(path);
  if (fd < 0)
    return ERR_IO;
  struct access_log *log = calloc(1, sizeof *log);
  struct access_ring *rings = aligned_alloc(64, num_rings * sizeof *rings);
  char *copy = strdup(path);
  if (!log || !rings || !copy)
    goto fail;
  memset((void *)rings, 0, num_rings * sizeof *rings);
  *log = (struct access_log){.path = copy, .format = format, .num_rings = num_rings, .rings = rings};
  use_file(log, fd);
  int e = pthread_create(&log->thread, NULL, run, log);
  if (!e) {
    *out = log;
    return ERR_OK;
  }
  errno = e;
fail:
  close(fd);
  free(log);
  free(rings);
  free(copy);
  return ERR_NO_MEMORY;
}

void access_reopen(struct access_log *log) { atomic_store(&log->reopen_ms, mono_ms()); }

void access_close(struct access_log *log) {
  if (!log)
    return;
  atomic_store(&log->stop, true);
  pthread_join(log->thread, NULL);
  close(log->fd);
  free(log->rings);
  free(log->path);
  free(log);
}
