// Source: sd_notify(3), whose protocol is stable: one datagram of lines to the socket that the environment names.
#include "server/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "obs/log.h"

void notify_manager(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (!path || (path[0] != '/' && path[0] != '@'))
    return;
  size_t n = strlen(path);
  if (n >= sizeof to.sun_path) {
    log_line(LOG_WARN, "NOTIFY_SOCKET is too long: the service manager is not told");
    return;
  }
  memcpy(to.sun_path, path, n);
  if (path[0] == '@') // an abstract name begins with NUL
    to.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
    log_line(LOG_WARN, "NOTIFY_SOCKET: the service manager cannot be told: %s", strerror(errno));
  if (fd >= 0)
    close(fd);
}

void notify_reloading(void) {
  char state[64];
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000);
  notify_manager(state);
}
