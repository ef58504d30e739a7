// Names of a folder's parts, as they lie on a disk: the order in which they are read is one order of all of them, whatever they
// are, and that of the numbers in them; init.mp4 comes first. Ordering is internal to src/storage/media.c, which is part of
// this file.
// Source: storage/sidecar.h. The input: names, each ended by a line feed.
#include "storage/media.c" // NOLINT(bugprone-suspicious-include)

#include "fuzz.h"

enum { MAX_NAMES = 24 };

static int sign(int v) { return (v > 0) - (v < 0); }

static void check_numbers(const char *name) {
  char a[NAME_MAX + 32], b[NAME_MAX + 32];
  snprintf(a, sizeof a, "%.200s9.m4s", name);
  snprintf(b, sizeof b, "%.200s10.m4s", name);
  MUST(natural(a, b) < 0 && natural(b, a) > 0);
  snprintf(a, sizeof a, "%.200s-009x", name);
  snprintf(b, sizeof b, "%.200s-9y", name);
  MUST(natural(a, b) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *name[MAX_NAMES], *text = strndup((const char *)data, size), *rest = text;
  unsigned n = 0;
  MUST(text);
  while (n < MAX_NAMES && (name[n] = strsep(&rest, "\n")))
    n++;
  for (unsigned i = 0; i < n; i++) {
    check_numbers(name[i]);
    MUST(!natural(name[i], name[i]) && (!strcmp(name[i], init_name) || natural(init_name, name[i]) < 0));
    for (unsigned k = 0; k < n; k++) {
      int ik = sign(natural(name[i], name[k]));
      MUST(ik == -sign(natural(name[k], name[i])) && !ik == !strcmp(name[i], name[k]));
      for (unsigned j = 0; ik < 0 && j < n; j++)
        MUST(natural(name[k], name[j]) >= 0 || natural(name[i], name[j]) < 0);
    }
  }
  free(text);
  return 0;
}
