// The table of used IVs against a plain list, and across processes.
#include "load/rng.h"
#include "load/verify_parts.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint8_t kid[16] = {1}, other_kid[16] = {2};

Test(ivs, finds_every_overlap_and_no_other) {
  enum { N = 3000 };
  static struct {
    uint64_t first, num;
    uint32_t who;
  } seen[N];
  struct iv_table *t = iv_table_new(4 * N);
  struct rng r = rng_of(4, 4);
  uint32_t num = 0, clashes = 0;
  cr_assert(t);
  for (uint32_t i = 0; i < N; i++) {
    // Close together, and across the end of the 64 bits.
    uint64_t first = rng_below(&r, 2000000) - 1000000, len = 1 + rng_below(&r, 600), at = 0;
    char name[32], other[160] = "";
    bool want = true;
    uint64_t want_at = 0;
    for (uint32_t k = 0; k < num && want; k++) {
      want = first - seen[k].first >= seen[k].num && seen[k].first - first >= len;
      want_at = seen[k].first - first < len ? seen[k].first - first : 0;
    }
    snprintf(name, sizeof name, "/a/%u.m4s", i);
    bool got = iv_table_add(t, kid, first, len, name, &at, other);
    cr_assert_eq(got, want, "%u: %lx + %lu", i, first, len);
    if (!got) {
      clashes++;
      cr_assert_neq(other[0], 0);
      cr_assert(at < len && (at == want_at || clashes > 1));
      continue;
    }
    cr_assert(iv_table_add(t, kid, first, len, name, &at, other), "the same place again");
    cr_assert(iv_table_add(t, other_kid, first, len, name, &at, other), "another key");
    seen[num].first = first;
    seen[num++].num = len;
  }
  cr_assert(clashes > 100 && num > 500, "%u clashes, %u kept", clashes, num);
  iv_table_free(t);
}

Test(ivs, another_process_sees_them) {
  struct iv_table *t = iv_table_new(16);
  uint64_t at = 0;
  char other[160] = "";
  int status = -1;
  pid_t child = fork();
  if (child == 0)
    _exit(iv_table_add(t, kid, 1000, 94, "/a/1.m4s", &at, other) ? 0 : 1);
  cr_assert(child > 0 && waitpid(child, &status, 0) == child && status == 0);
  cr_assert_not(iv_table_add(t, kid, 990, 20, "/a/2.m4s", &at, other));
  cr_assert_str_eq(other, "/a/1.m4s");
  cr_assert_eq(at, 10);
  iv_table_free(t);
}

Test(ivs, a_full_table_says_so) {
  struct iv_table *t = iv_table_new(4);
  uint64_t at = 0;
  char other[160] = "", name[16];
  for (uint32_t i = 0; i < 20; i++) {
    snprintf(name, sizeof name, "/a/%u.m4s", i);
    cr_assert(iv_table_add(t, kid, 1000 * (uint64_t)i, 94, name, &at, other));
    cr_assert_eq(iv_table_full(t), i >= 4, "after %u", i + 1);
  }
  iv_table_free(t);
}

Test(ivs, long_paths_are_told_apart) {
  struct iv_table *t = iv_table_new(16);
  char one[400], two[400], other[160] = "";
  uint64_t at = 0;
  snprintf(one, sizeof one, "/%0200d/cenc/1/aac/1.m4s", 0);
  snprintf(two, sizeof two, "/%0200d/cenc/1/aac/2.m4s", 0);
  cr_assert(iv_table_add(t, kid, 1000, 94, one, &at, other));
  cr_assert_not(iv_table_add(t, kid, 1050, 94, two, &at, other), "paths that differ behind their 160th byte only");
  cr_assert_str_eq(other, one + strlen(one) - 159, "the end of a path says more than its start");
  cr_assert(iv_table_add(t, kid, 1000, 94, one, &at, other), "the same place again");
  iv_table_free(t);
}
