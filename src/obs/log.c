#include "obs/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Atomic int current_level = LOG_INFO;

void log_set_level(enum log_level level) { atomic_store_explicit(&current_level, (int)level, memory_order_relaxed); }

bool log_enabled(enum log_level level) {
  return (int)level <= atomic_load_explicit(&current_level, memory_order_relaxed);
}

void log_line(enum log_level level, const char *fmt, ...) {
  static const char *const names[LOG_LEVEL_COUNT] = {"error", "warn", "info", "debug"};
  if (!log_enabled(level))
    return;
  char line[4096]; // a path has at most 1024 bytes and a reason behind it; PIPE_BUF: no other line gets in between
  struct tm tm;
  time_t now = time(NULL);
  gmtime_r(&now, &tm);
  size_t head = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%SZ ", &tm);
  head += (size_t)snprintf(line + head, sizeof line - head, "%s ", names[level]);
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(line + head, sizeof line - head, fmt, ap);
  va_end(ap);
  size_t len = head + (n < 0 ? 0 : (size_t)n);
  if (len > sizeof line - 1)
    len = sizeof line - 1;
  for (size_t i = head; i < len; i++)
    if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
      line[i] = '?';
  line[len++] = '\n';
  while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR) {
  }
}
