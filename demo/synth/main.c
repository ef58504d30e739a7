// demo-synth SONG [SECONDS] > FILE.wav: the song, or only its first seconds; without an argument it lists the songs.
#include "synth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int render(const struct song *song, double length_s) {
  struct mix mix = {.num_frames = (size_t)(length_s * RATE)};
  for (int ch = 0; ch < 2; ch++) {
    mix.dry[ch] = calloc(mix.num_frames, sizeof(float));
    mix.wet[ch] = calloc(mix.num_frames, sizeof(float));
    if (mix.dry[ch] == NULL || mix.wet[ch] == NULL) {
      fprintf(stderr, "demo-synth: out of memory\n");
      return 1;
    }
  }
  song->score(&mix);
  effects(&mix, song->echo_s, song->reverb_level);
  int failed = wav_out(&mix);
  for (int ch = 0; ch < 2; ch++) {
    free(mix.dry[ch]);
    free(mix.wet[ch]);
  }
  if (failed)
    perror("demo-synth: standard output");
  return failed ? 1 : 0;
}

int main(int argc, char **argv) {
  if (argc == 1) {
    for (size_t i = 0; i < num_songs; i++)
      printf("%s %.0f\n", songs[i].name, songs[i].length_s);
    return 0;
  }
  for (size_t i = 0; i < num_songs; i++) {
    double length_s = argc > 2 ? strtod(argv[2], NULL) : songs[i].length_s;
    if (argc <= 3 && strcmp(argv[1], songs[i].name) == 0 && length_s >= 1 && length_s <= songs[i].length_s)
      return render(&songs[i], length_s);
  }
  fprintf(stderr, "usage: demo-synth [SONG [SECONDS]] > FILE.wav\n");
  return 2;
}
