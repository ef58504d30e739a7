#include "simd/aes.h"
#include "base/writer.h"
#include "simd/ops.h"

// Fastest last.
static const struct aes_ops *const all[] = {
    &aes_ops_ref,
#if defined(__x86_64__)
    &aes_ops_aesni,
    &aes_ops_aesni_vex,
    &aes_ops_vaes256,
    &aes_ops_vaes512,
    &aes_ops_vaes512_x2,
#elif defined(__aarch64__)
    &aes_ops_armv8,
#endif
};

const struct aes_ops *const *aes_ops_all(size_t *num) {
  *num = sizeof all / sizeof *all;
  return all;
}

const struct aes_ops *aes_ops_best(const char *name, const char **why) {
  for (size_t i = sizeof all / sizeof *all; i-- > 0;) {
    if (name && strcmp(name, all[i]->name) != 0)
      continue;
    if (all[i]->usable() && (name || !all[i]->fits || all[i]->fits()))
      return all[i];
    if (name) {
      *why = "this kernel is built in, but this machine lacks its instructions";
      return NULL;
    }
  }
  *why = "there is no kernel of this name";
  return NULL;
}

void aes_key_wipe(struct aes_key *k) {
  explicit_bzero(k, sizeof *k);
}

static void swap(struct aes_lane *a, struct aes_lane *b) {
  struct aes_lane t = *a;
  *a = *b;
  *b = t;
}

// Does `a` come after `b`?
static bool after(struct aes_lane a, struct aes_lane b) {
  return a.len / 16 != b.len / 16 ? a.len / 16 < b.len / 16 : a.off > b.off;
}

static void sift_down(struct aes_lane *v, size_t i, size_t num) {
  for (size_t child; (child = 2 * i + 1) < num; i = child) {
    if (child + 1 < num && after(v[child + 1], v[child]))
      child++;
    if (!after(v[child], v[i]))
      return;
    swap(&v[i], &v[child]);
  }
}

// In place and O(n log n) for whatever sizes a file claims: run at build time only, so a counting sort's speed
// is not worth its table.
void aes_lane_order(struct aes_lane *lanes, size_t num) {
  for (size_t i = num / 2; i-- > 0;)
    sift_down(lanes, i, num);
  for (size_t n = num; n > 1; n--) {
    swap(&lanes[0], &lanes[n - 1]);
    sift_down(lanes, 0, n - 1);
  }
}

void aes_cpu_names(struct writer *w) {
#if defined(__x86_64__)
  wr_str(w, aes_ops_aesni.usable() ? " aes" : "");
  wr_str(w, aes_ops_aesni_vex.usable() ? " avx" : "");
  wr_str(w, aes_ops_vaes256.usable() ? " vaes" : "");
  wr_str(w, aes_ops_vaes512.usable() ? " avx512" : "");
#elif defined(__aarch64__)
  wr_str(w, aes_ops_armv8.usable() ? " aes" : "");
#endif
}
