#include "obs/log.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// Standard error is a pipe that nobody reads: lines are lost instead of everything waiting, and that is said afterwards.
Test(log, a_log_that_nobody_reads_holds_up_nobody, .timeout = 30) {
  enum { LINES = 500 };
  int p[2], before = dup(STDERR_FILENO);
  static char text[1 << 17];
  size_t n = 0;
  unsigned long long lost = 0, there = 0;
  cr_assert_eq(pipe(p), 0);
  cr_assert_gt(fcntl(p[1], F_SETPIPE_SZ, 16384), 0);
  dup2(p[1], STDERR_FILENO);
  for (int i = 0; i < LINES; i++)
    log_line(LOG_INFO, "a line of a hundred bytes or so, of which a pipe of four pages holds a hundred: this is number %d", i);
  fcntl(p[0], F_SETFL, O_NONBLOCK);
  for (ssize_t r; (r = read(p[0], text + n, sizeof text - 1 - n)) > 0;)
    n += (size_t)r;
  log_line(LOG_INFO, "there is a reader again");
  log_line(LOG_INFO, "and it goes on");
  for (ssize_t r; (r = read(p[0], text + n, sizeof text - 1 - n)) > 0;)
    n += (size_t)r;
  dup2(before, STDERR_FILENO);
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
    const char *said = strstr(line, "not read: ");
    there += strstr(line, "this is number") != NULL;
    if (said) {
      cr_expect_eq(lost, 0, "said twice: %s", line);
      cr_expect(strstr(line, "Z warn standard error was not read: "), "%s", line);
      lost = strtoull(said + 10, NULL, 10);
    }
  }
  cr_expect_geq(there, 10);
  cr_expect_eq(there + lost, LINES, "%llu lines are there, %llu are said to be lost", there, lost);
  cr_expect(memmem(text, n, "a reader again", 14) && memmem(text, n, "it goes on", 10));
  close(p[0]);
  close(p[1]);
  close(before);
}

// A line is one line, of at most 4,096 bytes with its end: a pipe takes so many at once.
Test(log, lines_are_whole_and_have_no_control_bytes) {
  char text[3 * 4096] = "";
  int before = dup(STDERR_FILENO);
  FILE *f = tmpfile();
  cr_assert(f && dup2(fileno(f), STDERR_FILENO) >= 0);
  log_line(LOG_INFO, "a\n\x1f\x7f z, \xc2\x9b""31m \xff Käse 日本");
  log_line(LOG_INFO, "%05000d", 1);
  log_line(LOG_INFO, "the next one");
  dup2(before, STDERR_FILENO);
  rewind(f);
  size_t n = fread(text, 1, sizeof text - 1, f);
  char *second = strchr(text, '\n') + 1, *third = strchr(second, '\n') + 1;
  cr_expect_not_null(strstr(text, " info a??? z, ??31m ? Käse 日本\n"), "%.100s", text);
  cr_expect_eq(third - second, 4096);
  cr_expect(strstr(third, " info the next one\n") && third + strlen(third) == text + n, "%.100s", third);
  fclose(f);
  close(before);
}

static int log_pipe[2];
static atomic_bool line_is_out;

static void *write_a_long_line(void *arg) {
  (void)arg;
  log_line(LOG_INFO, "%04000d", 1);
  atomic_store(&line_is_out, true);
  return NULL;
}

// What says how many lines were lost may take the room that the pipe had: the line behind it waits for nobody either.
Test(log, a_reader_that_stops_again_holds_up_nobody, .timeout = 30) {
  static char page[4096];
  int before = dup(STDERR_FILENO);
  pthread_t writer;
  cr_assert_eq(pipe(log_pipe), 0);
  cr_assert_gt(fcntl(log_pipe[1], F_SETPIPE_SZ, 16384), 0);
  for (int i = 0; i < 4; i++) // full, by pages
    cr_assert_eq(write(log_pipe[1], page, sizeof page), (ssize_t)sizeof page);
  dup2(log_pipe[1], STDERR_FILENO);
  log_line(LOG_INFO, "waits for a second, and is lost");
  cr_assert_eq(read(log_pipe[0], page, sizeof page), (ssize_t)sizeof page);
  pthread_create(&writer, NULL, write_a_long_line, NULL);
  for (int i = 0; i < 100 && !atomic_load(&line_is_out); i++)
    usleep(50000);
  dup2(before, STDERR_FILENO);
  cr_expect(atomic_load(&line_is_out), "a line waits although nobody reads");
  close(log_pipe[0]);
  close(log_pipe[1]);
  close(before);
}

struct reading {
  int fd;
  char text[1 << 20];
  size_t n;
};

static void *read_slowly(void *arg) {
  struct reading *to = arg;
  for (ssize_t r; (r = read(to->fd, to->text + to->n, 300)) > 0; usleep(200))
    to->n += (size_t)r;
  return NULL;
}

// Sockets with as little room as they can be given, so that a line may be taken in parts.
static void tcp_pair(int s[2]) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t len = sizeof a;
  int listener = socket(AF_INET, SOCK_STREAM, 0), little = 1;
  s[1] = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
  cr_assert(!bind(listener, (struct sockaddr *)&a, len) && !listen(listener, 1) && !getsockname(listener, (struct sockaddr *)&a, &len));
  cr_assert_eq(connect(s[1], (struct sockaddr *)&a, len), 0);
  s[0] = accept(listener, NULL, NULL);
  cr_assert_geq(s[0], 0);
  close(listener);
}

// Standard error is a socket: lines are lost whole, or there whole.
Test(log, lines_to_a_socket_are_whole, .timeout = 60) {
  enum { LINES = 300, UNREAD = 30 };
  static struct reading to[2];
  for (int tcp = 0; tcp < 2; tcp++) {
    int s[2], before = dup(STDERR_FILENO), little = 1, torn = 0;
    unsigned long long lost = 0, there = 0;
    pthread_t reader;
    if (tcp)
      tcp_pair(s);
    else
      cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    setsockopt(s[1], SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
    to[tcp].fd = s[0];
    dup2(s[1], STDERR_FILENO);
    close(s[1]);
    for (int i = 0; i < LINES; i++) {
      if (i == UNREAD)
        cr_assert_eq(pthread_create(&reader, NULL, read_slowly, &to[tcp]), 0);
      if (i > UNREAD)
        usleep(2000); // who reads is often too slow, not always
      int len = i * 137 % 3900;
      log_line(LOG_INFO, "%d of %0*d.", len, len + 1, 0);
    }
    usleep(300000); // until there is room again
    log_line(LOG_INFO, "the last");
    dup2(before, STDERR_FILENO); // the socket ends
    pthread_join(reader, NULL);
    for (char *line = strtok(to[tcp].text, "\n"); line; line = strtok(NULL, "\n")) {
      const char *said = strstr(line, "not read: ");
      int len = -1, at = 0;
      if (said)
        lost += strtoull(said + 10, NULL, 10);
      else if (strlen(line) > 26 && sscanf(line + 26, "%d of %n", &len, &at) == 1 && at && strlen(line + 26 + at) == (size_t)len + 2 && line[strlen(line) - 1] == '.')
        there++;
      else if (strcmp(line + 26, "the last") != 0)
        torn++;
    }
    cr_expect_eq(torn, 0, "%s: %d lines are torn", tcp ? "TCP" : "Unix", torn);
    cr_expect_eq(there + lost, LINES, "%s: %llu lines are there, %llu are said to be lost", tcp ? "TCP" : "Unix", there, lost);
    cr_expect_geq(there, 10, "%s: %llu lines are there", tcp ? "TCP" : "Unix", there);
    cr_expect_geq(lost, 1);
    close(s[0]);
    close(before);
  }
}
