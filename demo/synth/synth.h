// A small synthesiser for the demo's music: notes go into a mix, effects follow, a WAV file comes out.
// Everything is deterministic: the same song gives the same samples.
#ifndef DEMO_SYNTH_H
#define DEMO_SYNTH_H

#include <stddef.h>
#include <stdint.h>

#define RATE 48000

// Two channels, each in a dry bus and a bus that feeds echo and reverb.
struct mix {
  size_t num_frames;
  float *dry[2];
  float *wet[2];
};

enum instrument {
  PAD,   // two detuned saws each side, slowly opening filter
  KEYS,  // electric piano, frequency modulation
  PLUCK, // plucked string (Karplus-Strong)
  BELL,  // glassy, inharmonic partials
  FLUTE, // a breath of noise and vibrato
  LEAD,  // filtered square
  BASS,
  KICK,
  CLAP,
  HAT,
  SHAKER,
};

struct note {
  enum instrument instrument;
  double start_s, length_s;
  double pitch; // MIDI number, 69 = 440 Hz; percussion ignores it
  double level; // 1 = as loud as the instrument is meant to be
  double pan;   // -1 left … 1 right
};

void play(struct mix *mix, const struct note *note);

// Ping-pong echo of `echo_s` seconds, reverb, a gentle limiter and a fade-out over the last seconds.
void effects(struct mix *mix, double echo_s, double reverb_level);

// Writes 16-bit stereo WAV to standard output. Returns 0, or -1 when writing failed.
int wav_out(const struct mix *mix);

struct song {
  const char *name;
  double length_s;
  double echo_s;
  double reverb_level;
  void (*score)(struct mix *mix);
};

extern const struct song songs[];
extern const size_t num_songs;

#endif
