// Echo, reverb, limiter, and the WAV file.
#include "synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NUM_COMBS 8
#define FADE_S 4.0

struct delay {
  float *line;
  size_t len, at;
  double damped;
};

static struct delay delay_new(double seconds) {
  struct delay d = {.len = (size_t)(seconds * RATE) + 1};
  d.line = calloc(d.len, sizeof *d.line);
  if (d.line == NULL)
    abort();
  return d;
}

static double delay_read(const struct delay *d) { return (double)d->line[d->at]; }

static void delay_write(struct delay *d, double in) {
  d->line[d->at] = (float)in;
  d->at = (d->at + 1) % d->len;
}

static double comb(struct delay *d, double in) {
  double out = delay_read(d);
  d->damped = out * 0.62 + d->damped * 0.38;
  delay_write(d, in + d->damped * 0.86);
  return out;
}

static double allpass(struct delay *d, double in) {
  double stored = delay_read(d);
  delay_write(d, in + stored * 0.5);
  return stored - in;
}

// The classic Schroeder-Moorer room: parallel combs, then allpasses; the right side's lines are longer.
static void reverb(struct mix *mix, double level) {
  static const double comb_ms[NUM_COMBS] = {25.3, 26.9, 29.0, 30.7, 32.2, 33.8, 35.3, 36.7};
  static const double allpass_ms[4] = {12.6, 10.0, 7.7, 5.1};
  for (int ch = 0; ch < 2; ch++) {
    double spread = ch == 0 ? 0.0 : 0.52;
    struct delay combs[NUM_COMBS], passes[4];
    for (int i = 0; i < NUM_COMBS; i++)
      combs[i] = delay_new((comb_ms[i] + spread) / 1000.0);
    for (int i = 0; i < 4; i++)
      passes[i] = delay_new((allpass_ms[i] + spread) / 1000.0);
    for (size_t n = 0; n < mix->num_frames; n++) {
      double in = (double)mix->wet[ch][n] * 0.5 + (double)mix->wet[1 - ch][n] * 0.2, sum = 0;
      for (int i = 0; i < NUM_COMBS; i++)
        sum += comb(&combs[i], in);
      for (int i = 0; i < 4; i++)
        sum = allpass(&passes[i], sum);
      mix->dry[ch][n] += (float)(sum * level);
    }
    for (int i = 0; i < NUM_COMBS; i++)
      free(combs[i].line);
    for (int i = 0; i < 4; i++)
      free(passes[i].line);
  }
}

static void echo(struct mix *mix, double seconds) {
  struct delay side[2] = {delay_new(seconds), delay_new(seconds)};
  for (size_t n = 0; n < mix->num_frames; n++) {
    double left = delay_read(&side[0]), right = delay_read(&side[1]);
    delay_write(&side[0], (double)(mix->wet[0][n] + mix->wet[1][n]) * 0.45 + right * 0.42);
    delay_write(&side[1], left * 0.85);
    mix->dry[0][n] += (float)(left * 0.5);
    mix->dry[1][n] += (float)(right * 0.5);
    mix->wet[0][n] += (float)(left * 0.35);
    mix->wet[1][n] += (float)(right * 0.35);
  }
  free(side[0].line);
  free(side[1].line);
}

// Brings the loudest moment to just below full scale, then rounds what would still stand out.
static void master(struct mix *mix) {
  double peak = 1e-9;
  for (int ch = 0; ch < 2; ch++)
    for (size_t n = 0; n < mix->num_frames; n++)
      peak = fmax(peak, fabs((double)mix->dry[ch][n]));
  size_t fade = (size_t)(FADE_S * RATE);
  for (int ch = 0; ch < 2; ch++)
    for (size_t n = 0; n < mix->num_frames; n++) {
      double v = tanh((double)mix->dry[ch][n] * 1.1 / peak) * 0.98;
      size_t left = mix->num_frames - n;
      if (left < fade)
        v *= (double)left / (double)fade;
      mix->dry[ch][n] = (float)v;
    }
}

void effects(struct mix *mix, double echo_s, double reverb_level) {
  echo(mix, echo_s);
  reverb(mix, reverb_level);
  master(mix);
}

static void put32(uint8_t *p, uint32_t v) {
  for (int i = 0; i < 4; i++)
    p[i] = (uint8_t)(v >> (8 * i));
}

int wav_out(const struct mix *mix) {
  uint32_t data_len = (uint32_t)(mix->num_frames * 4);
  uint8_t head[44] = "RIFF\0\0\0\0WAVEfmt \20\0\0\0\1\0\2\0\0\0\0\0\0\0\0\0\4\0\20\0data";
  put32(head + 4, data_len + 36);
  put32(head + 24, RATE);
  put32(head + 28, RATE * 4);
  put32(head + 40, data_len);
  if (fwrite(head, sizeof head, 1, stdout) != 1)
    return -1;
  for (size_t n = 0; n < mix->num_frames; n++)
    for (int ch = 0; ch < 2; ch++) {
      uint16_t v = (uint16_t)(int16_t)lrint((double)mix->dry[ch][n] * 32767.0);
      uint8_t pair[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
      if (fwrite(pair, sizeof pair, 1, stdout) != 1)
        return -1;
    }
  return fflush(stdout) == 0 ? 0 : -1;
}
