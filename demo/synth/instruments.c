// The instruments. Each is a function from time since the note's start to a sample, so that a note can
// be added anywhere in the mix in any order.
#include "synth.h"

#include <math.h>
#include <stdlib.h>

#define TAU 6.283185307179586

// Noise that is the same every time: xorshift seeded by the note's place.
struct noise {
  uint32_t state;
};

static double noise_next(struct noise *n) {
  n->state ^= n->state << 13;
  n->state ^= n->state >> 17;
  n->state ^= n->state << 5;
  return (double)n->state / 2147483648.0 - 1.0;
}

// State-variable filter, zero-delay form: stable for any cutoff below half the sample rate.
struct svf {
  double ic1, ic2;
};

static double svf_low(struct svf *f, double in, double cutoff_hz, double resonance) {
  double g = tan(TAU / 2 * fmin(cutoff_hz, RATE * 0.45) / RATE);
  double k = 2.0 - 2.0 * resonance;
  double a1 = 1.0 / (1.0 + g * (g + k));
  double v1 = a1 * (f->ic1 + g * (in - f->ic2));
  double v2 = f->ic2 + g * v1;
  f->ic1 = 2.0 * v1 - f->ic1;
  f->ic2 = 2.0 * v2 - f->ic2;
  return v2;
}

static double attack_release(double t, double length_s, double attack_s, double release_s) {
  double level = t < attack_s ? t / attack_s : 1.0;
  if (t > length_s)
    level *= fmax(0.0, 1.0 - (t - length_s) / release_s);
  return level;
}

// Saw with its step rounded (PolyBLEP), so that high notes do not alias.
static double saw(double phase, double step) {
  double v = 2.0 * phase - 1.0;
  if (phase < step) {
    double x = phase / step;
    v -= 2.0 * x - x * x - 1.0;
  } else if (phase > 1.0 - step) {
    double x = (phase - 1.0) / step;
    v -= x * x + 2.0 * x + 1.0;
  }
  return v;
}

struct voice {
  double hz, phase[4];
  struct svf filter[2];
  struct noise noise;
  double *string; // PLUCK: one period of the string
  size_t string_len, string_at;
};

static double turn(double *phase, double hz) {
  double now = *phase;
  *phase += hz / RATE;
  *phase -= floor(*phase);
  return now;
}

static void pad(struct voice *v, const struct note *n, double t, double out[2]) {
  static const double detune[4] = {0.9955, 1.0031, 0.9972, 1.0048};
  double env = attack_release(t, n->length_s, 0.7, 1.4);
  double cutoff = 420.0 + 900.0 * env + 260.0 * sin(TAU * 0.11 * (n->start_s + t));
  for (int ch = 0; ch < 2; ch++) {
    double sum = 0;
    for (int i = 0; i < 2; i++) {
      double hz = v->hz * detune[ch * 2 + i];
      sum += saw(turn(&v->phase[ch * 2 + i], hz), hz / RATE);
    }
    out[ch] = svf_low(&v->filter[ch], sum, cutoff, 0.1) * env * 0.052;
  }
}

static double keys(struct voice *v, const struct note *n, double t) {
  double body = exp(-t * (1.1 + v->hz / 700.0));
  double tine = exp(-t * 9.0);
  double phase = turn(&v->phase[0], v->hz) * TAU;
  double bell = turn(&v->phase[1], v->hz * 14.0) * TAU;
  double modulator = sin(turn(&v->phase[2], v->hz) * TAU) * (0.35 + 1.1 * body * n->level);
  double tone = sin(phase + modulator) * body + 0.12 * tine * sin(bell);
  return tone * attack_release(t, n->length_s, 0.003, 0.25) * 0.17;
}

static double pluck(struct voice *v, const struct note *n, double t) {
  size_t next = (v->string_at + 1) % v->string_len;
  double out = v->string[v->string_at];
  v->string[v->string_at] = (0.5 * out + 0.5 * v->string[next]) * 0.9975;
  v->string_at = next;
  return out * attack_release(t, n->length_s, 0.001, 0.3) * 0.30;
}

static double bell(struct voice *v, const struct note *n, double t) {
  static const double ratio[4] = {1.0, 2.76, 5.40, 8.93};
  static const double decay[4] = {1.3, 2.4, 4.5, 7.0};
  static const double level[4] = {1.0, 0.35, 0.16, 0.06};
  double sum = 0;
  for (int i = 0; i < 4; i++)
    if (v->hz * ratio[i] < RATE * 0.45)
      sum += level[i] * exp(-t * decay[i]) * sin(TAU * turn(&v->phase[i], v->hz * ratio[i]));
  return sum * attack_release(t, n->length_s + 1.5, 0.002, 1.0) * 0.15;
}

static double flute(struct voice *v, const struct note *n, double t) {
  double env = attack_release(t, n->length_s, 0.09, 0.18);
  double vibrato = 1.0 + 0.0045 * sin(TAU * 4.9 * t) * fmin(1.0, t / 0.5);
  double phase = TAU * turn(&v->phase[0], v->hz * vibrato);
  double breath = svf_low(&v->filter[0], noise_next(&v->noise), v->hz * 2.0, 0.5);
  double tone = sin(phase) + 0.22 * sin(2 * phase) + 0.09 * sin(3 * phase) + 0.10 * breath;
  return tone * env * 0.17;
}

static double lead(struct voice *v, const struct note *n, double t) {
  double env = attack_release(t, n->length_s, 0.012, 0.16);
  double hz = v->hz * (1.0 + 0.004 * sin(TAU * 5.3 * t) * fmin(1.0, t / 0.4));
  double first = turn(&v->phase[0], hz);
  double second = turn(&v->phase[1], hz * 1.004);
  double square = saw(first, hz / RATE) - saw(fmod(first + 0.5, 1.0), hz / RATE);
  double sum = 0.6 * square + 0.5 * saw(second, hz / RATE);
  return svf_low(&v->filter[0], sum, 900.0 + 2600.0 * exp(-t * 3.0), 0.25) * env * 0.12;
}

static double bass(struct voice *v, const struct note *n, double t) {
  double env = attack_release(t, n->length_s, 0.006, 0.07);
  double raw = saw(turn(&v->phase[0], v->hz), v->hz / RATE);
  double growl = svf_low(&v->filter[0], raw, 160.0 + 900.0 * exp(-t * 7.0), 0.3);
  return (0.5 * growl + 0.55 * sin(TAU * turn(&v->phase[1], v->hz))) * env * 0.30;
}

static double kick(struct voice *v, double t) {
  double hz = 46.0 + 130.0 * exp(-t * 34.0);
  double click = noise_next(&v->noise) * exp(-t * 400.0) * 0.15;
  return (sin(TAU * turn(&v->phase[0], hz)) * exp(-t * 8.5) + click) * 0.62;
}

static double clap(struct voice *v, double t) {
  double bursts = 0;
  for (int i = 0; i < 3; i++) {
    double since = t - 0.011 * i;
    if (since >= 0)
      bursts += exp(-since * (i == 2 ? 17.0 : 160.0));
  }
  double white = noise_next(&v->noise);
  double band = svf_low(&v->filter[0], white, 3400.0, 0.3) - svf_low(&v->filter[1], white, 850.0, 0.2);
  return band * bursts * 0.30;
}

static double hiss(struct voice *v, double t, double decay, double from_hz, double level) {
  double white = noise_next(&v->noise);
  return (white - svf_low(&v->filter[0], white, from_hz, 0.1)) * exp(-t * decay) * fmin(1.0, t * 400.0) * level;
}

static double mono(struct voice *v, const struct note *n, double t) {
  switch (n->instrument) {
  case KEYS: return keys(v, n, t);
  case PLUCK: return pluck(v, n, t);
  case BELL: return bell(v, n, t);
  case FLUTE: return flute(v, n, t);
  case LEAD: return lead(v, n, t);
  case BASS: return bass(v, n, t);
  case KICK: return kick(v, t);
  case CLAP: return clap(v, t);
  case HAT: return hiss(v, t, 1.0 / fmax(n->length_s, 0.01), 7500.0, 0.13);
  case SHAKER: return hiss(v, t, 26.0, 4800.0, 0.09);
  case PAD: break;
  }
  return 0.0;
}

struct character {
  double tail_s; // how long the sound goes on after the note's length
  double send;   // share that goes to the echo and reverb
};

static const struct character characters[] = {
  [PAD] = {1.5, 0.45}, [KEYS] = {0.3, 0.30}, [PLUCK] = {0.4, 0.34}, [BELL] = {2.6, 0.55},
  [FLUTE] = {0.2, 0.38}, [LEAD] = {0.2, 0.32}, [BASS] = {0.1, 0.0}, [KICK] = {0.5, 0.02},
  [CLAP] = {0.4, 0.22}, [HAT] = {0.25, 0.06}, [SHAKER] = {0.2, 0.08},
};

void play(struct mix *mix, const struct note *n) {
  struct voice v = {.hz = 440.0 * pow(2.0, (n->pitch - 69.0) / 12.0)};
  v.noise.state = 0x9E3779B9u ^ (uint32_t)(n->start_s * 1000.0) * 2654435761u ^ (uint32_t)n->instrument << 20;
  v.noise.state |= 1u;
  if (n->instrument == PLUCK) {
    v.string_len = (size_t)(RATE / v.hz - 0.5);
    v.string = calloc(v.string_len, sizeof *v.string);
    if (v.string == NULL)
      abort();
    for (size_t i = 0; i < v.string_len; i++)
      v.string[i] = svf_low(&v.filter[0], noise_next(&v.noise), 1800.0 + 3000.0 * n->level, 0.0);
  }
  const struct character *c = &characters[n->instrument];
  size_t from = (size_t)(n->start_s * RATE);
  size_t count = (size_t)((n->length_s + c->tail_s) * RATE);
  double gain[2] = {sqrt(0.5 - 0.5 * n->pan) * n->level, sqrt(0.5 + 0.5 * n->pan) * n->level};
  for (size_t i = 0; i < count && from + i < mix->num_frames; i++) {
    double out[2], t = (double)i / RATE;
    if (n->instrument == PAD)
      pad(&v, n, t, out);
    else
      out[0] = out[1] = mono(&v, n, t);
    for (int ch = 0; ch < 2; ch++) {
      mix->dry[ch][from + i] += (float)(out[ch] * gain[ch]);
      mix->wet[ch][from + i] += (float)(out[ch] * gain[ch] * c->send);
    }
  }
  free(v.string);
}
