#include "server/cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cache/quiet.h"

// What a file of a control group says, as its first line; false when it is not there or empty.
static bool said(const char *root, const char *hierarchy, const char *group, const char *file, char *line, int room) {
  char path[PATH_MAX];
  int n = snprintf(path, sizeof path, "%s/sys/fs/cgroup%s%s/%s", root, hierarchy, group, file);
  FILE *f = n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
  if (!f)
    return false;
  bool got = fgets(line, room, f) != NULL;
  fclose(f);
  return got;
}

// The number of microseconds that a word is; 0: none ("max", -1, nonsense).
static double microseconds(const char *word, size_t n) {
  uint64_t us;
  return parse_u64(&us, bytes_of((const uint8_t *)word, n)) ? 0 : (double)us;
}

static double share(double quota, double period) {
  if (quota <= 0 || period <= 0)
    return 0;
  return quota / period < 0.01 ? 0.01 : quota / period;
}

// "max 100000" or "150000 100000".
static double quota_v2(const char *root, const char *group) {
  char line[128];
  if (!said(root, "", group, "cpu.max", line, sizeof line))
    return 0;
  size_t n = strcspn(line, " \n");
  const char *period = line + n + (line[n] == ' ');
  return share(microseconds(line, n), microseconds(period, strcspn(period, "\n")));
}

static double quota_v1(const char *root, const char *group) {
  char quota[128], period[128];
  if (!said(root, "/cpu", group, "cpu.cfs_quota_us", quota, sizeof quota) ||
      !said(root, "/cpu", group, "cpu.cfs_period_us", period, sizeof period))
    return 0;
  return share(microseconds(quota, strcspn(quota, "\n")), microseconds(period, strcspn(period, "\n")));
}

static double lesser(double a, double b) { return a > 0 && (b <= 0 || a < b) ? a : b; } // 0: no quota

// The least that `group` and those above it allow. Inside of a container the hierarchy often begins at its own group while
// /proc tells the host's path: then only the root is there.
static double least(const char *root, char *group, double (*of)(const char *, const char *)) {
  double q = of(root, group);
  for (char *slash; (slash = strrchr(group, '/')); q = lesser(q, of(root, group)))
    *slash = 0;
  return q;
}

static bool has_cpu(const char *controllers) {
  for (const char *p = controllers; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ','))
    if (strcspn(p, ",") == 3 && !memcmp(p, "cpu", 3))
      return true;
  return false;
}

double cpus_quota(const char *root) {
  char path[PATH_MAX], *line = NULL;
  size_t room = 0;
  double quota = 0;
  snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
  FILE *f = fopen(path, "re");
  if (!f) // a container without /proc: its own groups are the roots
    return lesser(quota_v1(root, ""), quota_v2(root, ""));
  while (getline(&line, &room, f) > 0) { // of any length: the rest of a long one is no line. "hierarchy:controllers:/group"
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
      continue;
    *controllers++ = *group++ = 0;
    group[strcspn(group, "\n")] = 0;
    if (strstr(group, "/..")) // of a namespace that does not have it
      *group = 0;
    if (!*controllers)
      quota = lesser(quota, least(root, group, quota_v2));
    else if (has_cpu(controllers))
      quota = lesser(quota, least(root, group, quota_v1));
  }
  free(line);
  fclose(f);
  return quota;
}

unsigned cpus_for(unsigned cpus, double quota, bool *limited) {
  *limited = quota > 0 && quota < cpus;
  unsigned n = *limited ? (unsigned)quota + (quota > (unsigned)quota) : cpus;
  return n < 1 ? 1 : n > QUIET_MAX_WORKERS ? QUIET_MAX_WORKERS : n;
}

unsigned cpus_usable(unsigned *cpus, double *quota, bool *limited) {
  cpu_set_t set;
  *cpus = sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0 ? (unsigned)CPU_COUNT(&set) : 1;
  *quota = cpus_quota("");
  return cpus_for(*cpus, *quota, limited);
}
