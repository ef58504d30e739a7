#include "server/cpus.h"

#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/quiet.h"

enum { LONGEST = 4096 }; // of a line of /proc/self/cgroup

// What a file of a control group says, as its first line; false when it is not there or empty.
static bool said(const char *root, const char *base, const char *group, const char *file, char *line, int room) {
  char path[2 * LONGEST];
  int n = snprintf(path, sizeof path, "%s/sys/fs/cgroup%s%s/%s", root, base, group, file);
  FILE *f = n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
  if (!f)
    return false;
  bool got = fgets(line, room, f) != NULL;
  fclose(f);
  return got;
}

// A number of microseconds at *p, past which it moves; 0: none ("max", -1, nonsense).
static double microseconds(const char **p) {
  char *end;
  if (!isdigit((unsigned char)**p))
    return 0;
  unsigned long long us = strtoull(*p, &end, 10);
  if (*end && !isspace((unsigned char)*end))
    return 0;
  *p = end + strspn(end, " ");
  return (double)us;
}

static double share(double quota, double period) {
  if (quota <= 0 || period <= 0)
    return 0;
  return quota / period < 0.01 ? 0.01 : quota / period;
}

static double quota_v2(const char *root, const char *base, const char *group) {
  char line[128];
  if (!said(root, base, group, "cpu.max", line, sizeof line))
    return 0;
  const char *p = line;
  double quota = microseconds(&p);
  return share(quota, microseconds(&p)); // "max 100000" or "150000 100000"
}

static double quota_v1(const char *root, const char *base, const char *group) {
  char quota[128], period[128];
  if (!said(root, base, group, "cpu.cfs_quota_us", quota, sizeof quota) || !said(root, base, group, "cpu.cfs_period_us", period, sizeof period))
    return 0;
  const char *q = quota, *p = period;
  return share(microseconds(&q), microseconds(&p));
}

// The least that `group` and those above it allow. Inside of a container the hierarchy often begins at its own group while
// /proc tells the host's path: then only the root is there.
static double least(const char *root, const char *base, char *group, double (*of)(const char *, const char *, const char *)) {
  double most = 0;
  for (;;) {
    double q = of(root, base, group);
    if (q > 0 && (most == 0 || q < most))
      most = q;
    char *slash = strrchr(group, '/');
    if (!slash)
      return most;
    *slash = 0;
  }
}

static bool has_cpu(const char *controllers) {
  for (const char *p = controllers; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ','))
    if (strcspn(p, ",") == 3 && !memcmp(p, "cpu", 3))
      return true;
  return false;
}

double cpus_quota(const char *root) {
  char line[LONGEST];
  double most = 0;
  snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
  FILE *f = fopen(line, "re");
  if (!f) { // a container without /proc: its own groups are the roots
    *line = 0;
    double v2 = least(root, "", line, quota_v2), v1 = least(root, "/cpu", line, quota_v1);
    return v1 > 0 && (v2 == 0 || v1 < v2) ? v1 : v2;
  }
  while (fgets(line, sizeof line, f)) { // "hierarchy:controllers:/group"
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
      continue;
    *controllers++ = *group++ = 0;
    group[strcspn(group, "\n")] = 0;
    if (strstr(group, "/..")) // of a namespace that does not have it
      *group = 0;
    bool v2 = !*controllers;
    if (!v2 && !has_cpu(controllers))
      continue;
    double q = least(root, v2 ? "" : "/cpu", group, v2 ? quota_v2 : quota_v1);
    if (q > 0 && (most == 0 || q < most))
      most = q;
  }
  fclose(f);
  return most;
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
