// Replays a corpus without libFuzzer: replay_TARGET DIR. Each input is copied to an allocation of exactly its length, so
// that the sanitizers see every byte read too many. Also replays every input cut short at a few places.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(const uint8_t *p, size_t n) {
  uint8_t *exact = malloc(n ? n : 1);
  if (!exact)
    abort();
  memcpy(exact, p, n);
  (void)LLVMFuzzerTestOneInput(exact, n);
  free(exact);
}

static size_t replay(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f)
    return 0;
  size_t cap = 1 << 16, n = 0, got;
  uint8_t *p = malloc(cap);
  while (p && (got = fread(p + n, 1, cap - n, f)) > 0) {
    n += got;
    if (n == cap)
      p = realloc(p, cap *= 2);
  }
  fclose(f);
  if (!p)
    abort();
  run(p, n);
  for (size_t i = 1; i < 8 && n >= 8; i++)
    run(p, n * i / 8);
  free(p);
  return 1;
}

int main(int argc, char **argv) {
  size_t num = 0;
  printf("1..1\n");
  fflush(stdout);
  for (int i = 1; i < argc; i++) {
    DIR *d = opendir(argv[i]);
    for (struct dirent *e; d && (e = readdir(d));) {
      char path[4096];
      if (e->d_name[0] == '.')
        continue;
      snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
      num += replay(path);
    }
    if (d)
      closedir(d);
  }
  printf("%s 1 - %zu inputs\n", num ? "ok" : "not ok", num);
  return num ? 0 : 1;
}
