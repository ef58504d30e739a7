// What a service manager is told of a reload that begins just as the server ends.
#include "server/reloads.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/notify.h"
#include "server/server.h"

static atomic_bool about_to_say;

ssize_t __real_sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len);
ssize_t __wrap_sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len);

// Whoever would get ahead of RELOADING=1 has time to.
ssize_t __wrap_sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len) {
  if (!strncmp(p, "RELOADING", 9)) {
    atomic_store(&about_to_say, true);
    usleep(300000);
  }
  return __real_sendto(fd, p, n, flags, to, len);
}

static int manager(void) {
  static char path[64];
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  snprintf(path, sizeof path, "/tmp/sluice-reloads-%d", (int)getpid());
  memcpy(a.sun_path, path, sizeof path);
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  cr_assert_eq(bind(fd, (const struct sockaddr *)&a, sizeof a), 0);
  setenv("NOTIFY_SOCKET", path, 1);
  return fd;
}

Test(reloads, nothing_is_said_after_stopping, .timeout = 30) {
  static struct obs_worker metrics[2];
  static struct server s = {.num_workers = 1, .metrics = metrics};
  static const struct config_flags flags;
  struct config_error error;
  char text[256];
  int fd = manager(), last_reloading = 0, stopping = 0;
  pthread_mutex_init(&s.served.lock, NULL);
  cr_assert(reloads_start(&s, "/nowhere/sluice.yaml", &flags, &error), "%s", error.text);
  reloads_ask(&s);
  while (!atomic_load(&about_to_say))
    usleep(1000);
  reloads_stop(&s);
  notify_manager("STOPPING=1");
  reloads_end(&s);
  for (int i = 1;; i++) {
    ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    if (n < 0)
      break;
    text[n] = 0;
    last_reloading = strncmp(text, "RELOADING=1\n", 12) ? last_reloading : i;
    stopping = strcmp(text, "STOPPING=1") ? stopping : i;
  }
  cr_expect(last_reloading && stopping && last_reloading < stopping, "RELOADING=1 is message %d, STOPPING=1 %d", last_reloading, stopping);
  cr_expect_eq(atomic_load(&metrics[1].reloads_failed), 1, "a file that is not there is a failure");
  unlink(getenv("NOTIFY_SOCKET"));
  close(fd);
}
