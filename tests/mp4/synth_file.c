// Writes a synthesised file or folder: synth_file PRESET OUT, or --list for the names of the presets, one a line
// with "folder" behind those that are folders.
#include <stdio.h>
#include <string.h>

#include "synth.h"

int main(int argc, char **argv) {
  if (argc == 2 && !strcmp(argv[1], "--list")) {
    for (const struct synth_options *o = synth_presets; o->name; o++)
      printf("%s%s\n", o->name, o->folder ? " folder" : "");
    return 0;
  }
  for (const struct synth_options *o = synth_presets; argc == 3 && o->name; o++) {
    if (strcmp(o->name, argv[1]))
      continue;
    struct synth s;
    synth_make(&s, o);
    int bad = synth_write(&s, argv[2], o->folder);
    synth_free(&s);
    if (bad)
      perror(argv[2]);
    return bad ? 1 : 0;
  }
  fprintf(stderr, "usage: synth_file PRESET OUT | --list\n");
  return 2;
}
