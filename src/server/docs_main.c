// Writes the documentation of the options: sluice-docs man5|man8|markdown FILE. Run by the build, not installed.
#include "server/options.h"

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*write)(FILE *out);
  } forms[] = {{"man5", config_man5}, {"man8", config_man8}, {"markdown", config_markdown}, {"help", config_help}};
  for (size_t i = 0; argc == 3 && i < sizeof forms / sizeof forms[0]; i++) {
    if (strcmp(argv[1], forms[i].name) != 0)
      continue;
    FILE *out = fopen(argv[2], "w");
    if (!out) {
      perror(argv[2]);
      return 1;
    }
    forms[i].write(out);
    return fclose(out) != 0;
  }
  fprintf(stderr, "usage: sluice-docs man5|man8|markdown|help FILE\n");
  return 2;
}
