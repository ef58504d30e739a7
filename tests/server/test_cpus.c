#include "server/cpus.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/quiet.h"

static char root[64];

static void make_root(void) {
  strcpy(root, "/tmp/sluice-cpus-XXXXXX");
  cr_assert(mkdtemp(root));
}

static void remove_root(void) {
  char line[128];
  snprintf(line, sizeof line, "rm -rf %s", root);
  cr_assert_eq(system(line), 0);
}

// Writes a file under the root, making its folders.
static void put(const char *path, const char *text) {
  char full[8192];
  int n = snprintf(full, sizeof full, "%s%s", root, path);
  cr_assert(n > 0 && (size_t)n < sizeof full);
  for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')); p++) {
    *p = 0;
    mkdir(full, 0700);
    *p = '/';
  }
  FILE *f = fopen(full, "w");
  cr_assert(f, "%s", full);
  fputs(text, f);
  fclose(f);
}

static void cgroup(const char *lines) { put("/proc/self/cgroup", lines); }

TestSuite(cpus, .init = make_root, .fini = remove_root);

Test(cpus, a_quota_of_version_2) {
  static const struct {
    const char *text;
    double quota;
  } said[] = {
      {"200000 100000\n", 2}, {"150000 100000\n", 1.5}, {"50000 100000", 0.5}, {"max 100000\n", 0}, {"max\n", 0}, {"", 0},
      {"\n", 0}, {"200000\n", 0}, {"200000 0\n", 0}, {"0 100000\n", 0}, {"-1 100000\n", 0}, {"200000 -1\n", 0}, {"2e5 100000\n", 0},
      {"200000x 100000\n", 0}, {"1 1000000\n", 0.01}, {"  200000 100000\n", 0}, {"18446744073709551615 1\n", 1.8446744073709552e19},
  };
  cgroup("0::/kube/pod/c\n");
  for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
    put("/sys/fs/cgroup/kube/pod/c/cpu.max", said[i].text);
    cr_expect_float_eq(cpus_quota(root), said[i].quota, 1e-9, "'%s': %g", said[i].text, cpus_quota(root));
  }
}

Test(cpus, the_least_of_all_groups_counts) {
  cgroup("0::/kube/pod/c\n");
  put("/sys/fs/cgroup/kube/pod/c/cpu.max", "300000 100000\n");
  cr_expect_float_eq(cpus_quota(root), 3, 1e-9);
  put("/sys/fs/cgroup/kube/cpu.max", "max 100000\n");
  cr_expect_float_eq(cpus_quota(root), 3, 1e-9);
  put("/sys/fs/cgroup/kube/pod/cpu.max", "250000 100000\n");
  cr_expect_float_eq(cpus_quota(root), 2.5, 1e-9);
  put("/sys/fs/cgroup/kube/cpu.max", "100000 100000\n");
  cr_expect_float_eq(cpus_quota(root), 1, 1e-9);
  put("/sys/fs/cgroup/cpu.max", "40000 100000\n"); // of a namespace's root
  cr_expect_float_eq(cpus_quota(root), 0.4, 1e-9);
}

Test(cpus, a_container_sees_its_own_group_as_the_root) {
  put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  static const char *const lines[] = {"0::/\n", "0::/\n\n", "0::", "0::/system.slice/docker-1234.scope\n", "0::/../../kube/other\n"};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    cgroup(lines[i]);
    cr_expect_float_eq(cpus_quota(root), 2, 1e-9, "'%s'", lines[i]);
  }
}

Test(cpus, a_quota_of_version_1) {
  cgroup("12:cpuset:/a\n5:cpu,cpuacct:/docker/1\n4:memory:/b\n0::/\n");
  put("/sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us", "100000\n");
  put("/sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "350000\n");
  cr_expect_float_eq(cpus_quota(root), 3.5, 1e-9);
  put("/sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "-1\n");
  cr_expect_float_eq(cpus_quota(root), 0, 1e-9);
  put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"); // as it is seen from within
  put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
  cr_expect_float_eq(cpus_quota(root), 2, 1e-9);
  cgroup("5:cpuset:/docker/1\n6:cpuacct:/docker/1\n7:name=cpu:/docker/1\n");
  cr_expect_float_eq(cpus_quota(root), 0, 1e-9, "of controllers, cpu alone has it");
}

Test(cpus, a_container_without_proc) {
  put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  cr_expect_float_eq(cpus_quota(root), 2, 1e-9);
  put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n");
  cr_expect_float_eq(cpus_quota(root), 1.5, 1e-9);
  put("/sys/fs/cgroup/cpu.max", "100000 100000\n");
  cr_expect_float_eq(cpus_quota(root), 1, 1e-9);
  put("/sys/fs/cgroup/cpu.max", "max 100000\n");
  cr_expect_float_eq(cpus_quota(root), 1.5, 1e-9);
}

Test(cpus, nothing_to_be_read_limits_nothing) {
  cr_expect_float_eq(cpus_quota(root), 0, 1e-9);
  static char longer[9000];
  memset(longer, 'x', sizeof longer - 2);
  memcpy(longer, "0::/", 4);
  longer[sizeof longer - 2] = '\n';
  static const char *const lines[] = {"", "\n", ":", "::", "0:", "0:cpu", "nonsense\n", "0::/none\n", longer};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    cgroup(lines[i]);
    cr_expect_float_eq(cpus_quota(root), 0, 1e-9, "%.20s", lines[i]);
  }
}

// What is behind the 4,095 bytes that a buffer would hold is no line of its own.
Test(cpus, a_long_name_is_no_other) {
  static char line[9000];
  char *end = stpcpy(line, "0::/");
  memset(end, 'x', 4090);
  strcpy(end + 4090, ":1:cpu:/y\n");
  cgroup(line);
  put("/sys/fs/cgroup/cpu/y/cpu.cfs_period_us", "100000\n");
  put("/sys/fs/cgroup/cpu/y/cpu.cfs_quota_us", "100000\n");
  cr_expect_float_eq(cpus_quota(root), 0, 1e-9, "%g", cpus_quota(root));
}

Test(cpus, workers_for_a_mask_and_a_quota) {
  static const struct {
    unsigned cpus;
    double quota;
    unsigned workers;
    bool limited;
  } cases[] = {
      {64, 0, 64, false}, {64, 2, 2, true},       {64, 2.01, 3, true},   {64, 0.01, 1, true}, {64, 0.5, 1, true}, {2, 2, 2, false},
      {2, 1.5, 2, true},  {2, 1000, 2, false},    {1, 0.2, 1, true},     {1, 0, 1, false},    {1024, 0, QUIET_MAX_WORKERS, false},
      {2, 1e19, 2, false}, {1024, 512.5, QUIET_MAX_WORKERS, true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bool limited = !cases[i].limited;
    cr_expect_eq(cpus_for(cases[i].cpus, cases[i].quota, &limited), cases[i].workers, "%zu", i);
    cr_expect_eq(limited, cases[i].limited, "%zu", i);
  }
}

Test(cpus, this_process) {
  unsigned cpus;
  double quota;
  bool limited;
  unsigned n = cpus_usable(&cpus, &quota, &limited);
  cr_expect(n >= 1 && n <= cpus && (n == cpus || limited || cpus > QUIET_MAX_WORKERS), "%u of %u, quota %g", n, cpus, quota);
}
