// Lines that standard error refuses: a full disk, a reader that has gone.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "obs/log.h"

static int before;

static void swap(int fd) {
  cr_assert_geq(fd, 0, "%s", strerror(errno));
  if (!before)
    before = dup(STDERR_FILENO);
  dup2(fd, STDERR_FILENO);
}

static void back(void) { dup2(before, STDERR_FILENO); }

static const char *text_of(int fd) {
  static char text[1 << 16];
  ssize_t n = pread(fd, text, sizeof text - 1, 0);
  cr_assert_geq(n, 0);
  text[n] = 0;
  return text;
}

static int temporary(void) {
  char path[] = "/tmp/sluice-log-XXXXXX";
  int fd = mkostemp(path, O_APPEND);
  cr_assert_eq(unlink(path), 0);
  return fd;
}

Test(log_full, lines_that_a_full_disk_refuses_are_counted_and_said) {
  int fd = temporary();
  uint64_t lost = log_lost();
  swap(open("/dev/full", O_WRONLY));
  for (int i = 0; i < 3; i++)
    log_line(LOG_INFO, "this is number %d", i);
  swap(fd);
  for (int i = 3; i < 5; i++)
    log_line(LOG_INFO, "this is number %d", i);
  back();
  const char *text = text_of(fd);
  cr_expect_eq(log_lost() - lost, 3);
  cr_expect(strstr(text, "Z warn standard error was not written: No space left on device: 3 lines before this one are lost\n"), "%s", text);
  cr_expect(strstr(text, "number 3\n") && strstr(text, "number 4\n"), "%s", text);
  const char *said = strstr(text, "are lost");
  cr_expect(said && !strstr(said + 1, "are lost"), "said once: %s", text);
}

// Why lines are lost is said of those, not of others before them.
Test(log_full, each_note_has_its_own_reason) {
  static const char page[4096];
  int p[2], fd = temporary();
  swap(open("/dev/full", O_WRONLY));
  log_line(LOG_INFO, "refused");
  swap(fd);
  log_line(LOG_INFO, "there");
  cr_assert_eq(pipe(p), 0);
  cr_assert_gt(fcntl(p[1], F_SETPIPE_SZ, (int)sizeof page), 0);
  cr_assert_eq(write(p[1], page, sizeof page), (ssize_t)sizeof page);
  swap(p[1]);
  log_line(LOG_INFO, "unread");
  swap(fd);
  log_line(LOG_INFO, "there");
  back();
  const char *text = text_of(fd), *first = strstr(text, "not written: No space left on device: 1 lines");
  cr_expect(first && strstr(first, "standard error was not read: 1 lines"), "%s", text);
}

// A disk that becomes full within a line: its rest goes before all else, so that lines stay whole.
Test(log_full, a_line_that_was_cut_off_is_ended_when_there_is_room) {
  struct rlimit all, few;
  int fd = temporary();
  uint64_t lost = log_lost();
  signal(SIGXFSZ, SIG_IGN);
  cr_assert_eq(getrlimit(RLIMIT_FSIZE, &all), 0);
  few = (struct rlimit){40, all.rlim_max};
  swap(fd);
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &few), 0);
  log_line(LOG_INFO, "this one is longer than forty bytes, and whole in the end");
  log_line(LOG_INFO, "lost");
  log_line(LOG_INFO, "lost");
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &all), 0);
  log_line(LOG_INFO, "room again");
  back();
  const char *text = text_of(fd), *rest = strchr(text, '\n');
  cr_expect_eq(log_lost() - lost, 2);
  cr_expect(strstr(text, "and whole in the end\n") == rest - 20, "%s", text);
  cr_expect(rest && strstr(rest, "Z warn standard error was not written: File too large: 2 lines before this one are lost\n"), "%s", text);
  cr_expect(strstr(text, "Z info room again\n"), "%s", text);
}

Test(log_full, lines_without_a_reader_are_counted) {
  int p[2], fd = temporary();
  uint64_t lost = log_lost();
  signal(SIGPIPE, SIG_IGN);
  cr_assert_eq(pipe(p), 0);
  swap(p[1]);
  close(p[0]);
  log_line(LOG_INFO, "lost");
  swap(fd);
  log_line(LOG_INFO, "there");
  back();
  cr_expect_eq(log_lost() - lost, 1);
  cr_expect(strstr(text_of(fd), "not written: Broken pipe: 1 lines before"), "%s", text_of(fd));
}
