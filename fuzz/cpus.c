// The files of control groups, as the kernel or a container's runtime shows them: which are opened, and what quota they come
// to. It is the least of those that were opened, read again by the book; these are files of the groups named, and of those
// above them, few for what is named. src/server/cpus.c is part of this file, with files of the target's.
// Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max), Documentation/scheduler/sched-bwc.rst.
// The input: what the files hold, in the order in which they are opened, each ended by 0x1e; one that holds nothing is not
// there.
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "fuzz.h"

static FILE *open_next(const char *path, const char *mode);
#define fopen open_next
#include "server/cpus.c" // NOLINT(bugprone-suspicious-include)
#undef fopen

static struct world {
  struct bytes rest, groups, quota; // files to come; /proc/self/cgroup; of version 1, whose period comes next
  unsigned opened;
  double least; // 0: no quota so far
} w;

static struct bytes next_file(void) {
  const uint8_t *end = w.rest.n ? memchr(w.rest.p, 0x1e, w.rest.n) : NULL;
  struct bytes file = bytes_of(w.rest.p, end ? (size_t)(end - w.rest.p) : w.rest.n);
  size_t used = file.n + (end != NULL);
  w.rest = bytes_of(w.rest.p + used, w.rest.n - used);
  return file;
}

static void first_line(char line[128], struct bytes file) {
  size_t n = file.n < 127 ? file.n : 127;
  if (n)
    memcpy(line, file.p, n);
  line[n] = 0;
  line[strcspn(line, "\n")] = 0;
}

// The number that a text is; 0 for another text.
static double number(const char *text) {
  char *end;
  errno = 0;
  unsigned long long v = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
  return v && !errno && !*end ? (double)v : 0;
}

static void count(const char *quota, const char *period) {
  double q = number(quota), p = number(period), share = q > 0 && p > 0 ? fmax(q / p, 0.01) : 0;
  if (share > 0 && (w.least <= 0 || share < w.least))
    w.least = share;
}

// A group's name, from its first slash on, is one of those that were named, or the beginning of one.
static bool is_named(const char *name, size_t n) {
  char *text = strndup((const char *)w.groups.p, w.groups.n);
  bool named = !n;
  MUST(text);
  for (char *line = text, *lf; line && !named; line = lf) {
    if ((lf = strchr(line, '\n')) != NULL)
      *lf++ = 0;
    const char *group = strchr(line, ':');
    group = group ? strchr(group + 1, ':') : NULL;
    named = group && !strncmp(group + 1, name, n) && (!group[1 + n] || group[1 + n] == '/');
  }
  free(text);
  return named;
}

static FILE *open_next(const char *path, const char *mode) {
  static const char root[] = "/sys/fs/cgroup", v1[] = "/cpu";
  char line[128], before[128], *blank;
  struct bytes file = next_file();
  FILE *f = file.n ? fmemopen((void *)(uintptr_t)file.p, file.n, "r") : NULL;
  MUST(!strcmp(mode, "re") && (f || !file.n));
  if (!w.opened++) {
    MUST(!strcmp(path, "/proc/self/cgroup"));
    w.groups = file;
    return f;
  }
  const char *slash = strrchr(path, '/'), *name = path + sizeof root - 1;
  MUST(!strncmp(path, root, sizeof root - 1) && slash && !strstr(path, "/.."));
  first_line(line, file);
  if (!strcmp(slash, "/cpu.max")) {
    if ((blank = strchr(line, ' ')) != NULL) {
      *blank = 0;
      count(line, blank + 1);
    }
  } else {
    MUST(!strncmp(name, v1, sizeof v1 - 1));
    name += sizeof v1 - 1;
    MUST(!strcmp(slash, w.quota.n ? "/cpu.cfs_period_us" : "/cpu.cfs_quota_us"));
    first_line(before, w.quota);
    count(before, line);
    w.quota = w.quota.n ? bytes_of(NULL, 0) : file;
  }
  MUST(name <= slash && (!w.groups.n || is_named(name, (size_t)(slash - name))));
  return f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size && memchr(data, 0, size)) // no name has one, no number either
    return 0;
  w = (struct world){.rest = bytes_of(data, size)};
  double quota = cpus_quota("");
  MUST(w.opened && w.opened <= 2 * size + 4 && fabs(quota - w.least) <= 1e-9 * w.least);
  for (unsigned cpus = 1; cpus <= 1024; cpus *= 4) {
    bool limited;
    unsigned n = cpus_for(cpus, quota, &limited);
    MUST(n >= 1 && n <= cpus && n <= QUIET_MAX_WORKERS && limited == (quota > 0 && quota < cpus));
    MUST(!limited || (n < quota + 1 && (n >= quota || n == QUIET_MAX_WORKERS)));
  }
  return 0;
}
