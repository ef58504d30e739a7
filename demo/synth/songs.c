// The songs: chords as tables, melodies as text ("A4:1.5" = the A above middle C for one and a half
// beats, "-:2" = two beats of rest), and for each song who plays when.
#include "synth.h"

#include <stdlib.h>
#include <string.h>

struct chord {
  int bass;
  int tone[4];
};

struct band {
  struct mix *mix;
  double beat_s;
  double bar_beats;
};

static void at(const struct band *b, enum instrument who, double beat, double beats, double pitch, double level, double pan) {
  play(b->mix, &(struct note){who, beat * b->beat_s, beats * b->beat_s, pitch, level, pan});
}

// Steps of the scale above C for A … G.
static const int semitone[7] = {9, 11, 0, 2, 4, 5, 7};

static void melody(const struct band *b, enum instrument who, double beat, double level, double pan, const char *text) {
  while (*text != '\0') {
    int pitch = -1;
    char letter = *text++;
    if (letter != '-') {
      pitch = semitone[letter - 'A'];
      if (*text == '#') {
        pitch++;
        text++;
      }
      pitch += 12 * (*text++ - '0' + 1);
    }
    char *end;
    double beats = strtod(text + 1, &end);
    if (pitch >= 0)
      at(b, who, beat, beats * 0.94, pitch, level, pan);
    beat += beats;
    text = end + strspn(end, " ");
  }
}

static void pad_bar(const struct band *b, double beat, const struct chord *c, double level) {
  for (int i = 0; i < 4; i++)
    at(b, PAD, beat, b->bar_beats, c->tone[i], level, i % 2 ? 0.35 : -0.35);
}

// Chord tones up and down in steps of half a beat.
static void arpeggio_bar(const struct band *b, enum instrument who, double beat, const struct chord *c, double level, int up) {
  static const int order[8] = {0, 1, 2, 3, 2, 1, 2, 1};
  for (int i = 0; i < (int)(b->bar_beats * 2); i++) {
    double accent = i % 4 == 0 ? 1.0 : 0.72 + 0.06 * (i % 3);
    at(b, who, beat + i * 0.5, 0.9, c->tone[order[i % 8]] + up, level * accent, i % 2 ? 0.45 : -0.45);
  }
}

// --- Low Tide: slow, D minor, 72 beats a minute -------------------------------------------------------

static const struct chord tide_a[4] = {
  {38, {62, 65, 69, 76}}, {34, {62, 65, 70, 69}}, {41, {60, 65, 69, 67}}, {36, {60, 64, 67, 69}}};
static const struct chord tide_b[4] = {
  {43, {58, 62, 65, 69}}, {45, {60, 64, 67, 69}}, {34, {58, 62, 65, 69}}, {45, {61, 64, 67, 69}}};
static const char *const tide_theme[4] = {"F5:2 E5:1 A4:1 D5:3 -:1", "C5:2 A4:1 G4:1 A4:3 -:1",
                                          "A5:2 G5:1 E5:1 F5:2 D5:2", "E5:1 C5:1 A4:2 G4:4"};
static const char *const tide_answer[2] = {"D5:1 F5:1 A5:2 G5:1.5 E5:.5 C5:2", "D5:1 F5:1 D5:2 C#5:1 E5:1 A4:2"};

static void low_tide(struct mix *mix) {
  const struct band b = {mix, 60.0 / 72.0, 4};
  // One letter a group of four bars: i intro, a theme, b answer, o outro.
  const char *form = "iaabaabo";
  for (int group = 0; form[group] != '\0'; group++) {
    const struct chord *chords = form[group] == 'b' ? tide_b : tide_a;
    for (int bar = 0; bar < 4; bar++) {
      const struct chord *c = &chords[bar];
      double beat = (group * 4 + bar) * 4;
      pad_bar(&b, beat, c, 0.8);
      if (form[group] != 'o' || bar < 2)
        arpeggio_bar(&b, KEYS, beat, c, group == 0 ? 0.55 : 0.68, 0);
      if (group > 0) {
        at(&b, BASS, beat, 2.6, c->bass, 0.62, 0);
        at(&b, BASS, beat + 3, 0.9, c->bass + (bar == 1 ? 12 : 7), 0.40, 0);
      }
      if (group > 1 && form[group] != 'o') {
        for (int i = 0; i < 8; i++)
          at(&b, SHAKER, beat + i * 0.5, 0.2, 0, i % 2 ? 0.9 : 0.5, i % 2 ? 0.3 : -0.2);
        at(&b, KICK, beat, 0.4, 0, 0.5, 0);
        at(&b, KICK, beat + 2.5, 0.4, 0, 0.32, 0);
      }
      if (bar % 2 == 0 && form[group] == 'a')
        melody(&b, group > 3 ? FLUTE : BELL, beat, 0.75, 0.12, tide_theme[(group % 2 ? 0 : 2) + bar / 2]);
      if (bar % 2 == 0 && form[group] == 'b')
        melody(&b, FLUTE, beat, 0.7, -0.1, tide_answer[bar / 2]);
    }
  }
  at(&b, BELL, 32 * 4 - 6, 4, 74, 0.6, 0);
}

// --- First Light: C major, 116 beats a minute ---------------------------------------------------------

static const struct chord light_verse[4] = {
  {36, {60, 64, 67, 74}}, {35, {59, 62, 67, 74}}, {33, {60, 64, 69, 67}}, {41, {60, 65, 69, 64}}};
static const struct chord light_chorus[8] = {
  {41, {60, 65, 69, 72}}, {43, {59, 62, 67, 74}}, {40, {59, 64, 67, 71}}, {45, {60, 64, 69, 72}},
  {41, {60, 65, 69, 72}}, {43, {59, 62, 67, 74}}, {36, {60, 64, 67, 72}}, {36, {60, 64, 67, 74}}};
static const char *const light_tune[8] = {
  "A4:1 C5:1 E5:1.5 D5:.5", "D5:1 B4:1 G4:2", "G4:1 B4:1 D5:1.5 E5:.5", "E5:1 C5:1 A4:2",
  "A4:.5 C5:.5 F5:1 E5:1 C5:1", "D5:1.5 E5:.5 D5:1 B4:1", "C5:3 G4:1", "C5:2 -:2"};
static const char *const light_riff[4] = {"E5:1 G5:.5 E5:.5 D5:1 C5:1", "D5:1 B4:1 -:.5 G4:.5 B4:1",
                                          "C5:1 E5:.5 C5:.5 A4:1 G4:1", "A4:1.5 C5:.5 -:2"};

static void light_drums(const struct band *b, double beat, int full, int fill) {
  for (int i = 0; i < 4; i++) {
    if (!fill || i < 2)
      at(b, KICK, beat + i, 0.3, 0, 1.0, 0);
    at(b, HAT, beat + i + 0.5, full ? 0.07 : 0.03, 0, 0.9, 0.25);
    if (full) {
      at(b, HAT, beat + i, 0.02, 0, 0.5, 0.25);
      at(b, SHAKER, beat + i + 0.25, 0.1, 0, 0.6, -0.3);
      at(b, SHAKER, beat + i + 0.75, 0.1, 0, 0.8, -0.3);
    }
  }
  at(b, CLAP, beat + 1, 0.2, 0, full ? 0.9 : 0.45, 0.05);
  at(b, CLAP, beat + 3, 0.2, 0, full ? 0.9 : 0.45, 0.05);
  for (int i = 0; fill && i < 6; i++)
    at(b, CLAP, beat + 2.5 + i * 0.25, 0.1, 0, 0.3 + 0.1 * i, 0.3 - 0.1 * i);
}

static void first_light(struct mix *mix) {
  const struct band b = {mix, 60.0 / 116.0, 4};
  // One letter a group of four bars: i intro, v verse, c and d the chorus's halves, q quiet, o outro.
  const char *form = "ivvcdvvcdqcdo";
  for (int group = 0; form[group] != '\0'; group++) {
    char part = form[group];
    for (int bar = 0; bar < 4; bar++) {
      const struct chord *c = part == 'c' ? &light_chorus[bar] : part == 'd' ? &light_chorus[4 + bar] : &light_verse[bar];
      double beat = (group * 4 + bar) * 4;
      int chorus = part == 'c' || part == 'd';
      pad_bar(&b, beat, c, chorus ? 0.75 : 0.55);
      arpeggio_bar(&b, PLUCK, beat, c, chorus ? 0.5 : 0.72, 12);
      if (part == 'v' || chorus) {
        for (int i = 0; i < 8; i++)
          at(&b, BASS, beat + i * 0.5, 0.42, c->bass + (i == 5 || i == 7 ? 12 : 0), i % 2 ? 0.75 : 0.55, 0);
        light_drums(&b, beat, chorus, bar == 3 && form[group + 1] == 'c');
      }
      if (part == 'v' && group % 2 == 0)
        melody(&b, KEYS, beat, 0.95, -0.2, light_riff[bar]);
      if (chorus)
        melody(&b, LEAD, beat, 0.8, 0.08, light_tune[(part == 'd' ? 4 : 0) + bar]);
      if (part == 'q' || part == 'o')
        melody(&b, BELL, beat, 0.7, 0.2, light_riff[bar]);
    }
  }
  at(&b, PAD, 52 * 4, 6, 48, 0.8, 0);
  at(&b, BELL, 52 * 4, 4, 84, 0.6, 0);
}

// --- Paper Boats: a waltz in E minor, 126 beats a minute ----------------------------------------------

static const struct chord boats[16] = {
  {40, {64, 67, 71, 76}}, {36, {64, 67, 71, 72}}, {43, {62, 67, 71, 74}}, {42, {62, 66, 69, 74}},
  {40, {64, 67, 71, 76}}, {36, {64, 67, 71, 72}}, {43, {62, 67, 71, 74}}, {38, {62, 66, 69, 74}},
  {45, {60, 64, 67, 72}}, {47, {62, 66, 69, 71}}, {36, {60, 64, 67, 72}}, {38, {62, 66, 69, 74}},
  {45, {60, 64, 67, 72}}, {47, {62, 66, 69, 71}}, {36, {60, 64, 67, 71}}, {40, {64, 67, 71, 76}}};
static const char *const boats_tune[16] = {
  "B4:2 E5:1", "E5:2 G5:1", "D5:2 B4:1", "A4:3", "B4:2 E5:1", "G5:1 A5:1 G5:1", "F#5:1 D5:2", "F#5:3",
  "E5:2 C5:1", "D5:2 B4:1", "E5:1 G5:1 E5:1", "F#5:2 A5:1", "G5:1 E5:1 C5:1", "D5:2 F#5:1", "G5:1 F#5:1 D5:1", "E5:3"};

static void paper_boats(struct mix *mix) {
  const struct band b = {mix, 60.0 / 126.0, 3};
  for (int bar = 0; bar < 68; bar++) {
    int round = bar / 16, last = bar >= 64;
    const struct chord *c = last ? &boats[bar == 67 ? 15 : bar % 4] : &boats[bar % 16];
    double beat = bar * 3;
    at(&b, PLUCK, beat, 1.6, c->bass + 12, 0.95, 0);
    for (int i = 1; i < 3 && !last; i++)
      for (int tone = 0; tone < 3; tone++)
        at(&b, PLUCK, beat + i + 0.03 * tone, 0.8, c->tone[tone], 0.50, tone * 0.3 - 0.3);
    if (round == 0 || last)
      arpeggio_bar(&b, KEYS, beat, c, 0.5, 0);
    if (round > 0)
      pad_bar(&b, beat, c, 0.16 * (round > 3 ? 3 : round));
    if (round > 0 && !last)
      melody(&b, round == 2 ? BELL : FLUTE, beat, 0.85, 0.1, boats_tune[bar % 16]);
    if (round == 3)
      melody(&b, BELL, beat, 0.25, -0.5, boats_tune[bar % 16]);
    if (round > 1 && !last) {
      at(&b, BASS, beat, 1.5, c->bass, 0.5, 0);
      at(&b, SHAKER, beat + 1, 0.1, 0, 0.9, 0.3);
      at(&b, SHAKER, beat + 2, 0.1, 0, 0.7, -0.3);
    }
  }
  at(&b, BELL, 67 * 3, 3, 76, 0.8, 0);
}

const struct song songs[] = {
  {"low-tide", 112.0, 0.625, 0.060, low_tide},
  {"first-light", 114.0, 60.0 / 116.0 * 0.75, 0.035, first_light},
  {"paper-boats", 102.0, 60.0 / 126.0, 0.045, paper_boats},
};
const size_t num_songs = sizeof songs / sizeof songs[0];
