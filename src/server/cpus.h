// The CPUs that the process may use: how many workers pay, and whether they may be pinned.
#pragma once
#include <stdbool.h>

// cpus_quota returns how many CPUs' time the control groups of the process allow it, at least 0.01; 0: any number.
// Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and Documentation/scheduler/sched-bwc.rst (v1). The least
// of its group's and of those above it counts. `root` stands in front of /proc/self/cgroup and /sys/fs/cgroup: "" but for
// tests. What cannot be read limits nothing.
double cpus_quota(const char *root);

// cpus_for says how many workers fit `cpus` CPUs of the affinity mask and a quota as above: one a CPU, no more than the
// quota lets run, rounded up; between 1 and QUIET_MAX_WORKERS. *limited: the quota allows less than the mask does. Other
// processes then have the same CPUs to choose from, and if all pinned their workers, they would meet on the first ones.
unsigned cpus_for(unsigned cpus, double quota, bool *limited);

// cpus_usable is cpus_for of this process: *cpus by its affinity mask, *quota as above.
unsigned cpus_usable(unsigned *cpus, double *quota, bool *limited);
