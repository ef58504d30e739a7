#include "obs/access.h"
#include "obs/nowait.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char path[64];

static char *read_back(void) {
  static char text[1 << 25];
  FILE *f = fopen(path, "r");
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  text[n] = 0;
  return text;
}

static void fill(struct access_record *r, const char *what) {
  *r = (struct access_record){.wall_ns = 1790000000ull * 1000000000u, .bytes = 42, .duration_us = 1500, .ttfb_us = 250,
                              .ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 7}, .status = 200, .method = 'G'};
  access_add(r, ACCESS_PATH, bytes_of(what, strlen(what)));
}

static struct access_log *open_log(enum access_format format, unsigned rings) {
  struct access_log *log;
  snprintf(path, sizeof path, "/tmp/sluice-access-XXXXXX");
  close(mkstemp(path));
  cr_assert_eq(access_open(&log, path, format, rings), ERR_OK);
  return log;
}

Test(access, combined_lines_escape_what_clients_send) {
  struct access_log *log = open_log(ACCESS_COMBINED, 1);
  struct access_record *r = access_slot(access_ring(log, 0));
  fill(r, "/a\"\n\\\xff\x7f");
  access_add(r, ACCESS_AGENT, bytes_of("cu\trl", 4));
  access_push(access_ring(log, 0));
  r = access_slot(access_ring(log, 0));
  fill(r, "/");
  r->http10 = true;
  access_push(access_ring(log, 0));
  r = access_slot(access_ring(log, 0));
  fill(r, ""); // bytes that are no request
  r->method = '-';
  r->status = 400;
  access_push(access_ring(log, 0));
  access_close(log);
  cr_assert_str_eq(read_back(), "192.0.2.7 - - [21/Sep/2026:14:13:20 +0000] \"GET /a\\x22\\x0a\\x5c\\xff\\x7f HTTP/1.1\" 200 42 \"-\" \"cu\\x09r\"\n"
                                "192.0.2.7 - - [21/Sep/2026:14:13:20 +0000] \"GET / HTTP/1.0\" 200 42 \"-\" \"-\"\n"
                                "192.0.2.7 - - [21/Sep/2026:14:13:20 +0000] \"-\" 400 42 \"-\" \"-\"\n");
  unlink(path);
}

Test(access, json_lines) {
  struct access_log *log = open_log(ACCESS_JSON, 1);
  struct access_record *r = access_slot(access_ring(log, 0));
  fill(r, "/x\"y");
  access_add(r, ACCESS_AGENT, bytes_of("curl", 4));
  access_add(r, ACCESS_FORWARDED, bytes_of("198.51.100.7, \"\x01", 16));
  access_push(access_ring(log, 0));
  access_close(log);
  cr_assert_str_eq(read_back(), "{\"time\":\"2026-09-21T14:13:20.000Z\",\"ip\":\"192.0.2.7\",\"method\":\"GET\",\"path\":\"/x\\u0022y\",\"status\":200,"
                                "\"bytes\":42,\"duration\":0.001500,\"ttfb\":0.000250,\"tls\":false,\"range\":\"\",\"referer\":\"\",\"agent\":\"curl\","
                                "\"forwarded_for\":\"198.51.100.7, \\u0022\\u0001\"}\n");
  unlink(path);
}

// The second and the client of a line are kept for the next one: each of these differs from the one before it in one of them.
Test(access, each_line_has_its_own_time_and_client) {
  static const struct {
    unsigned ms;
    uint8_t last; // of the address; 0: ::1
    const char *time, *ip;
  } lines[] = {{0, 7, "14:13:20.000", "192.0.2.7"},   {999, 7, "14:13:20.999", "192.0.2.7"}, {1000, 7, "14:13:21.000", "192.0.2.7"},
               {1000, 123, "14:13:21.000", "192.0.2.123"}, {1000, 9, "14:13:21.000", "192.0.2.9"}, {1000, 0, "14:13:21.000", "::1"},
               {0, 0, "14:13:20.000", "::1"}};
  enum { NUM = sizeof lines / sizeof *lines };
  struct access_log *log = open_log(ACCESS_JSON, 1);
  for (size_t i = 0; i < NUM; i++) {
    struct access_record *r = access_slot(access_ring(log, 0));
    fill(r, "/");
    r->wall_ns += lines[i].ms * 1000000u;
    r->ip[15] = lines[i].last;
    if (!lines[i].last)
      memcpy(r->ip, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16);
    access_push(access_ring(log, 0));
  }
  access_close(log);
  const char *at = read_back();
  for (size_t i = 0; i < NUM; i++, at = strchr(at, '\n') + 1) {
    char want[120];
    snprintf(want, sizeof want, "{\"time\":\"2026-09-21T%sZ\",\"ip\":\"%s\",", lines[i].time, lines[i].ip);
    cr_assert_eq(strncmp(at, want, strlen(want)), 0, "line %zu: %.100s", i, at);
  }
  unlink(path);
}

// A track that is read slowly takes hours: more microseconds than 32 bits hold.
Test(access, hours_are_told_as_they_were) {
  struct access_log *log = open_log(ACCESS_JSON, 1);
  struct access_record *r = access_slot(access_ring(log, 0));
  fill(r, "/");
  r->duration_us = UINT64_C(7200000001);
  r->ttfb_us = UINT64_C(5000000000);
  access_push(access_ring(log, 0));
  access_close(log);
  const char *text = read_back();
  cr_assert(strstr(text, "\"duration\":7200.000001,\"ttfb\":5000.000000,"), "%s", text);
  unlink(path);
}

// Records of all lengths, several times around the ring.
Test(access, lines_come_out_whole_and_in_order) {
  struct access_log *log = open_log(ACCESS_COMBINED, 1);
  char text[700], name[16];
  memset(text, 'x', sizeof text);
  const int num = 30000;
  for (int i = 0; i < num;) {
    struct access_record *r = access_slot(access_ring(log, 0));
    if (!r) {
      usleep(1000);
      continue;
    }
    fill(r, "");
    snprintf(name, sizeof name, "/%06d", i);
    memcpy(text, name, 7);
    access_add(r, ACCESS_PATH, bytes_of(text, 7 + (size_t)i * 7 % 690));
    access_add(r, ACCESS_RANGE, bytes_of("bytes=0-", (size_t)i % 9));
    access_add(r, ACCESS_REFERER, bytes_of(text + 7, (size_t)i % 200));
    access_add(r, ACCESS_AGENT, bytes_of("a/1", 3));
    access_push(access_ring(log, 0));
    i++;
  }
  access_close(log);
  FILE *f = fopen(path, "r");
  static char line[4096];
  for (int i = 0; i < num; i++) {
    cr_assert_not_null(fgets(line, sizeof line, f));
    size_t path_len = 7 + (size_t)i * 7 % 690, referer_len = (size_t)i % 200;
    path_len = path_len < 512 ? path_len : 512;
    referer_len = referer_len < 128 ? referer_len : 128;
    snprintf(name, sizeof name, "/%06d", i);
    const char *at = strstr(line, "GET "), *end = at ? strchr(at + 4, ' ') : NULL;
    cr_assert(at && !memcmp(at + 4, name, 7) && end == at + 4 + path_len, "line %d: %s", i, line);
    size_t tail = strlen(line) - (size_t)(end - line);
    cr_assert_eq(tail, sizeof " HTTP/1.1\" 200 42 \"\" \"a/1\"\n" - 1 + (referer_len ? referer_len : 1), "line %d: %s", i, line);
  }
  cr_assert_null(fgets(line, sizeof line, f));
  fclose(f);
  unlink(path);
}

// All texts as long as they get, of bytes that take the most room.
Test(access, the_longest_lines_are_whole) {
  enum { NUM = 300, SIX = 6, TEXTS = ACCESS_TEXT_MAX * SIX };
  struct access_log *log = open_log(ACCESS_JSON, 1);
  char most[ACCESS_PATH_MAX + 1];
  memset(most, 1, sizeof most);
  for (int i = 0; i < NUM; i++) {
    struct access_record *r = access_slot(access_ring(log, 0));
    cr_assert(r);
    fill(r, "");
    for (int text = 0; text < ACCESS_TEXTS; text++)
      access_add(r, (enum access_text)text, bytes_of(most, sizeof most));
    access_push(access_ring(log, 0));
  }
  access_close(log);
  const char *at = read_back();
  size_t first = strcspn(at, "\n");
  cr_expect(first > TEXTS && first < TEXTS + 300, "%zu", first);
  for (int i = 0; i < NUM; i++, at += first + 1)
    cr_assert(strcspn(at, "\n") == first && !strncmp(at, "{\"time\":\"2026-09-21T14:13:20.000Z\"", 34) && at[first - 1] == '}', "line %d: %.80s", i, at);
  cr_expect_eq(*at, 0);
  unlink(path);
}

Test(access, a_full_ring_drops_and_counts_and_never_waits) {
  struct access_log *log = open_log(ACCESS_COMBINED, 2);
  uint64_t pushed = 0, lost = 0, written = 0, dropped = 0;
  for (int i = 0; i < 200000; i++) {
    struct access_record *r = access_slot(access_ring(log, (unsigned)i % 2));
    if (r) {
      fill(r, "/p");
      access_push(access_ring(log, (unsigned)i % 2));
      pushed++;
    } else {
      lost++;
    }
  }
  for (int i = 0; i < 500 && written < pushed; i++) {
    usleep(10000);
    access_counts(log, &written, &dropped);
  }
  cr_assert_eq(dropped, lost);
  cr_assert_gt(lost, 0u, "the writer kept up with 200,000 lines at once?");
  cr_assert_eq(written, pushed);
  access_close(log);
  uint64_t lines = 0;
  for (const char *p = read_back(); (p = strchr(p, '\n')); p++)
    lines++;
  cr_assert_eq(lines, written);
  unlink(path);
}

// Pushes `num` records as they find room.
static void push_all(struct access_log *log, int num) {
  for (int i = 0; i < num;) {
    struct access_record *r = access_slot(access_ring(log, 0));
    if (!r) {
      usleep(1000);
      continue;
    }
    char name[16];
    snprintf(name, sizeof name, "/%06d", i++);
    fill(r, name);
    access_push(access_ring(log, 0));
  }
}

static uint64_t counted(const struct access_log *log) {
  uint64_t written, dropped;
  access_counts(log, &written, &dropped);
  return written + dropped;
}

// Two lines, the second one behind what was asked of the log before: each time it goes around, it looks at that before it takes lines.
static void push_two(struct access_log *log) {
  for (int i = 0; i < 2; i++) {
    uint64_t before = counted(log);
    push_all(log, 1);
    for (int k = 0; k < 1000 && counted(log) == before; k++)
      usleep(5000);
  }
}

static bool is_open(const char *file) {
  struct stat want, st;
  cr_assert_eq(stat(file, &want), 0);
  for (int fd = 3; fd < 64; fd++)
    if (!fstat(fd, &st) && st.st_dev == want.st_dev && st.st_ino == want.st_ino)
      return true;
  return false;
}

// Until the log has `path` open; nobody else has.
static void await_open(void) {
  for (int i = 0; i < 1000 && !is_open(path); i++)
    usleep(5000);
  cr_assert(is_open(path), "%s was not opened", path);
}

// Until the pipe takes no more: the log has written what goes into it, and waits for its reader.
static void await_full_pipe(void) {
  struct pollfd p = {.fd = open(path, O_WRONLY | O_NONBLOCK), .events = POLLOUT};
  cr_assert_geq(p.fd, 0);
  for (int i = 0; i < 1000 && poll(&p, 1, 0) > 0; i++)
    usleep(5000);
  close(p.fd);
}

static int open_fifo(struct access_log **log) {
  snprintf(path, sizeof path, "/tmp/sluice-access-%d", (int)getpid());
  (void)unlink(path); // of a process that had this number before
  cr_assert_eq(mkfifo(path, 0600), 0);
  int fd = open(path, O_RDONLY | O_NONBLOCK);
  cr_assert_eq(access_open(log, path, ACCESS_COMBINED, 1), ERR_OK);
  return fd;
}

Test(access, a_reader_that_stopped_does_not_hold_the_end, .timeout = 20) {
  struct access_log *log;
  struct timespec a, b;
  int fd = open_fifo(&log);
  push_all(log, 14000); // more than the pipe takes: the ring is nearly full
  clock_gettime(CLOCK_MONOTONIC, &a);
  access_close(log);
  clock_gettime(CLOCK_MONOTONIC, &b);
  cr_assert_lt(b.tv_sec - a.tv_sec, 6);
  close(fd);
  unlink(path);
}

struct late {
  int fd;
  const struct access_log *log;
};

// Reads once the ring was full.
static void *read_late(void *arg) {
  static char text[1 << 23];
  const struct late *late = arg;
  size_t n = 0;
  uint64_t written, dropped = 0;
  for (int i = 0; i < 2000 && !dropped; i++) {
    usleep(5000);
    access_counts(late->log, &written, &dropped);
  }
  fcntl(late->fd, F_SETFL, 0);
  for (ssize_t r; (r = read(late->fd, text + n, sizeof text - 1 - n)) > 0;)
    n += (size_t)r;
  return text;
}

Test(access, a_reader_that_comes_late_gets_every_line_whole, .timeout = 20) {
  struct access_log *log;
  pthread_t thread;
  uint64_t written, dropped;
  void *text;
  struct late late = {.fd = open_fifo(&log)};
  late.log = log;
  pthread_create(&thread, NULL, read_late, &late);
  push_all(log, 30000);
  access_counts(log, &written, &dropped);
  cr_assert_gt(dropped, 0u, "the ring was never full?");
  access_close(log);
  pthread_join(thread, &text);
  char *p = text;
  for (int i = 0; i < 30000; i++) {
    char want[40];
    snprintf(want, sizeof want, "\"GET /%06d HTTP/1.1\"", i);
    char *end = strchr(p, '\n');
    cr_assert(end, "%d lines", i);
    *end = 0;
    cr_assert(strstr(p, want), "%s in %s", want, p);
    p = end + 1;
  }
  cr_assert_eq(*p, 0);
  close(late.fd);
  unlink(path);
}

// A file that takes no more within a line, as a disk does that is full: the next line is one of its own, and both are counted.
Test(access, a_line_that_was_cut_off_does_not_run_into_the_next, .timeout = 20) {
  struct access_log *log = open_log(ACCESS_JSON, 1);
  uint64_t written, dropped = 0;
  struct rlimit all, few;
  signal(SIGXFSZ, SIG_IGN);
  cr_assert_eq(getrlimit(RLIMIT_FSIZE, &all), 0);
  few = (struct rlimit){100, all.rlim_max};
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &few), 0);
  fill(access_slot(access_ring(log, 0)), "/cut-off");
  access_push(access_ring(log, 0));
  for (int i = 0; i < 500 && !dropped; i++) {
    usleep(10000);
    access_counts(log, &written, &dropped);
  }
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &all), 0);
  for (int i = 0; i < 2; i++) {
    fill(access_slot(access_ring(log, 0)), "/whole");
    access_push(access_ring(log, 0));
    for (int k = 0; k < 500 && written <= (uint64_t)i; k++) {
      usleep(10000);
      access_counts(log, &written, &dropped);
    }
  }
  cr_expect(written == 2 && dropped == 1, "%llu written, %llu dropped", (unsigned long long)written, (unsigned long long)dropped);
  access_close(log);
  const char *text = read_back(), *second = strchr(text, '\n');
  cr_assert(second, "%s", text);
  cr_expect_eq(second - text, 100);
  for (int i = 0; i < 2; i++) {
    cr_expect_eq(strncmp(second + 1, "{\"time\":", 8), 0, "%s", text);
    second = strchr(second + 1, '\n');
    cr_assert(second, "%s", text);
  }
  cr_expect_eq(second[1], 0);
  unlink(path);
}

// Who frees a full disk starts the server again, or has it reopen the file, which then ends within a line: here another one, so that it
// can be seen when that is done.
Test(access, a_line_that_was_cut_off_before_the_file_was_opened_is_ended, .timeout = 20) {
  struct access_log *log;
  uint64_t written = 0, dropped = 0;
  char text[1000];
  const char *line = "192.0.2.7 - - [21/Sep/2026:14:13:20 +0000] \"GET /000000 HTTP/1.1\" 200 42 \"-\" \"-\"\n";
  snprintf(path, sizeof path, "/tmp/sluice-access-XXXXXX");
  int fd = mkstemp(path);
  cr_assert_eq(write(fd, "cut", 3), 3);
  close(fd);
  cr_assert_eq(access_open(&log, path, ACCESS_COMBINED, 1), ERR_OK);
  push_all(log, 1);
  for (int i = 0; i < 500 && !written; i++) {
    usleep(10000);
    access_counts(log, &written, &dropped);
  }
  cr_expect(written == 1 && !dropped, "%llu written, %llu dropped", (unsigned long long)written, (unsigned long long)dropped);
  snprintf(text, sizeof text, "cut\n%s", line);
  cr_expect_str_eq(read_back(), text);
  unlink(path);
  fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  cr_assert_eq(write(fd, "again", 5), 5);
  close(fd);
  access_reopen(log);
  await_open();
  push_all(log, 1);
  access_close(log);
  log = NULL;
  cr_assert_eq(access_open(&log, path, ACCESS_COMBINED, 1), ERR_OK); // and a line that is whole is left alone
  push_all(log, 1);
  access_close(log);
  snprintf(text, sizeof text, "again\n%s%s", line, line);
  cr_expect_str_eq(read_back(), text);
  unlink(path);
}

Test(access, a_pipe_that_nobody_reads_yet_does_not_hold_the_start, .timeout = 20) {
  struct access_log *log;
  char text[1000] = "";
  snprintf(path, sizeof path, "/tmp/sluice-access-%d", (int)getpid());
  (void)unlink(path);
  cr_assert_eq(mkfifo(path, 0600), 0);
  cr_assert_eq(access_open(&log, path, ACCESS_COMBINED, 1), ERR_OK);
  push_all(log, 1);
  int fd = open(path, O_RDONLY | O_NONBLOCK);
  access_close(log);
  cr_expect_gt(read(fd, text, sizeof text - 1), 0);
  cr_expect(strstr(text, "GET /000000 "), "who comes later has the line: %s", text);
  close(fd);
  unlink(path);
}

// A pipe that is full and that nobody reads: who puts a file in its place has the next lines in it, and those that are lost counted.
Test(access, a_reader_that_stopped_does_not_hold_a_reopening, .timeout = 20) {
  struct access_log *log;
  struct stat st = {0};
  int fd = open_fifo(&log), pushed = 12000, num = 0;
  push_all(log, pushed);
  await_full_pipe();
  cr_expect_lt(counted(log), (uint64_t)pushed, "the pipe took all?");
  cr_assert_eq(unlink(path), 0);
  access_reopen(log);
  for (int i = 0; i < 300 && (stat(path, &st) || !st.st_size); i++)
    usleep(10000);
  cr_expect_gt(st.st_size, 0, "the file has nothing after three seconds");
  access_close(log);
  close(fd);
  for (const char *p = read_back(); *p; p = strchr(p, '\n') + 1, num++)
    cr_assert(strncmp(p, "192.0.2.7 - - [", 15) == 0 && strchr(p, '\n'), "line %d is not whole: %.60s", num, p);
  cr_expect_gt(num, 1000, "what was in the ring is in the file");
  unlink(path);
}

Test(access, what_is_lost_over_a_reopening_is_counted, .timeout = 20) {
  struct access_log *log;
  int fd = open_fifo(&log), pushed = 12000;
  push_all(log, pushed);
  await_full_pipe();
  cr_assert_eq(unlink(path), 0);
  access_reopen(log);
  for (int i = 0; i < 500 && counted(log) < (uint64_t)pushed; i++)
    usleep(10000);
  uint64_t written, dropped;
  access_counts(log, &written, &dropped);
  cr_expect(written + dropped == (uint64_t)pushed && dropped && dropped < 2000, "%llu written, %llu dropped", (unsigned long long)written,
            (unsigned long long)dropped);
  access_close(log);
  close(fd);
  unlink(path);
}

Test(access, a_pipe_that_nobody_reads_yet_keeps_its_lines_over_a_reopening, .timeout = 20) {
  struct access_log *log;
  char text[1000] = "";
  snprintf(path, sizeof path, "/tmp/sluice-access-%d", (int)getpid());
  (void)unlink(path);
  signal(SIGPIPE, SIG_IGN);
  cr_assert_eq(mkfifo(path, 0600), 0);
  cr_assert_eq(access_open(&log, path, ACCESS_COMBINED, 1), ERR_OK);
  for (int i = 0; i < 3; i++) {
    push_two(log);
    access_reopen(log);
  }
  push_two(log);
  int fd = open(path, O_RDONLY | O_NONBLOCK), num = 0;
  access_close(log);
  cr_expect_gt(read(fd, text, sizeof text - 1), 0);
  for (const char *at = text; (at = strstr(at, "GET /000000 ")); at++)
    num++;
  cr_expect_eq(num, 8, "%d lines of 8: %s", num, text);
  close(fd);
  unlink(path);
}

// Standard output and standard error may be one pipe: between a look at it and the write another fills it.
Test(access, a_write_to_a_pipe_that_is_full_after_all_does_not_wait, .timeout = 20) {
  static const char page[4096];
  struct iovec one = {(void *)(uintptr_t)page, 1};
  int p[2];
  cr_assert_eq(pipe(p), 0);
  if (pwritev2(p[1], &one, 1, -1, RWF_NOWAIT) < 0) {
    cr_skip_test("this kernel cannot write into a pipe without waiting: %s", strerror(errno));
    return;
  }
  ssize_t r = 0;
  for (int i = 0; i < 1000 && r >= 0; i++)
    r = write_nowait(p[1], page, sizeof page);
  cr_expect(r < 0 && errno == EAGAIN, "%zd: %s", r, strerror(errno));
  close(p[0]);
  close(p[1]);
}

Test(access, reopen_follows_a_renamed_file) {
  struct access_log *log = open_log(ACCESS_COMBINED, 1);
  char moved[80];
  snprintf(moved, sizeof moved, "%s.1", path);
  cr_assert_eq(rename(path, moved), 0);
  access_reopen(log);
  for (int i = 0; i < 100 && access(path, F_OK); i++)
    usleep(10000);
  fill(access_slot(access_ring(log, 0)), "/new");
  access_push(access_ring(log, 0));
  access_close(log);
  cr_assert(strstr(read_back(), "/new"));
  cr_expect_not(is_open(moved), "the old file takes its place on the disk for ever");
  unlink(path);
  unlink(moved);
}
