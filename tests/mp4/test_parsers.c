// Parsers on hand-made bytes: each rule of a clause, and each refusal.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "mp4/codec.h"
#include "mp4/describe.h"
#include "mp4/frag.h"
#include "mp4/init.h"
#include "preset.h"
#include "rewrite.h"

Test(box, sizes) {
  static const struct {
    struct bytes head;
    uint64_t left;
    bool top;
    enum err want;
    uint64_t len;
  } rows[] = {
      {BYTES_LIT("\0\0\0\x08moov"), 8, true, ERR_OK, 8},
      {BYTES_LIT("\0\0\0\x09moov"), 8, true, ERR_TRUNCATED, 0},
      {BYTES_LIT("\0\0\0\x07moov"), 8, true, ERR_MALFORMED, 0},
      {BYTES_LIT("\0\0\0\0mdat"), 100, true, ERR_OK, 100},
      {BYTES_LIT("\0\0\0\0mdat"), 100, false, ERR_MALFORMED, 0},
      {BYTES_LIT("\0\0\0\1mdat\0\0\0\0\0\0\0\x10"), 16, false, ERR_OK, 16},
      {BYTES_LIT("\0\0\0\1mdat\0\0\0\0\0\0\0\x0f"), 16, false, ERR_MALFORMED, 0},
      {BYTES_LIT("\0\0\0\1mdat\xff\xff\xff\xff\xff\xff\xff\xff"), 16, true, ERR_TRUNCATED, 0},
      {BYTES_LIT("\0\0\0\1mdat"), 8, true, ERR_TRUNCATED, 0},
      {BYTES_LIT("\0\0\0\x08moo"), 7, true, ERR_TRUNCATED, 0},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct box b = {0};
    cr_expect_eq(box_head(&b, rows[i].head, rows[i].left, rows[i].top), rows[i].want, "row %zu", i);
    cr_expect_eq(b.len, rows[i].len, "row %zu", i);
  }
}

Test(box, table_rows_are_found) {
#define X(name, kind, skip, clause, text)                                                                        \
  cr_expect_eq(box_info_of(load_be32((const uint8_t *)(name)))->type, load_be32((const uint8_t *)(name)), name);
  BOX_TABLE(X)
#undef X
  cr_expect_null(box_info_of(FOURCC('n', 'o', 'n', 'e')));
}

// AudioSpecificConfigs of encoders. ISO/IEC 14496-3 1.6.
Test(codec, audio_specific_config) {
  static const struct {
    struct bytes config;
    const char *codecs;
    uint32_t rate, channels;
  } rows[] = {
      {BYTES_LIT("\x11\x90"), "mp4a.40.2", 48000, 2},                         // LC
      {BYTES_LIT("\x12\x08"), "mp4a.40.2", 44100, 1},                         // LC mono
      {BYTES_LIT("\x11\xb0"), "mp4a.40.2", 48000, 6},                         // 5.1
      {BYTES_LIT("\x11\xb8"), "mp4a.40.2", 48000, 8},                         // 7.1: configuration 7
      {BYTES_LIT("\x2b\x92\x08\x00"), "mp4a.40.5", 44100, 2},                 // SBR, hierarchical
      {BYTES_LIT("\xeb\x8a\x08\x00"), "mp4a.40.29", 44100, 2},                // PS, hierarchical, core mono
      {BYTES_LIT("\x13\x90\x56\xe5\xa0"), "mp4a.40.5", 44100, 2},             // SBR, backward compatible
      {BYTES_LIT("\x13\x88\x56\xe5\xa5\x48\x80"), "mp4a.40.29", 44100, 2},    // PS, backward compatible
      {BYTES_LIT("\x13\x90\x56\xe5\x00"), "mp4a.40.2", 22050, 2},             // an extension that says no SBR
      {BYTES_LIT("\x17\x80\x77\xf0\x10\x00"), "mp4a.40.2", 61408, 2},         // escaped rate
      {BYTES_LIT("\xf9\x46\x40"), "mp4a.40.42", 48000, 2},                    // USAC: escaped object type
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct codec_info c = {.channels = 1, .sample_rate = 1};
    cr_expect_eq(codec_aac(&c, rows[i].config), ERR_OK, "row %zu", i);
    cr_expect_str_eq(c.codecs, rows[i].codecs, "row %zu: %s", i, c.codecs);
    cr_expect_eq(c.sample_rate, rows[i].rate, "row %zu: %u Hz", i, c.sample_rate);
    cr_expect_eq(c.channels, rows[i].channels, "row %zu: %u channels", i, c.channels);
  }
  struct codec_info c = {.channels = 7};
  cr_expect_eq(codec_aac(&c, bytes_of("\x11", 1)), ERR_TRUNCATED);
  cr_expect_eq(c.channels, 7);
}

// LC at 24 kHz without a channel configuration, whose place a program_config_element takes. ISO/IEC 14496-3 4.4.1.1.
Test(codec, program_config_element) {
  static const struct {
    const char *counts;   // front, side, back (4 bits each), lfe (2), data (3), coupling (4)
    const char *mixdown;  // three flags, each with its field
    const char *elements; // five bits each: is it a pair, tag; LFE and data four, coupling five
    uint32_t channels, layout;
  } rows[] = {
      {"0001" "0000" "0000" "00" "000" "0000", "000", "10000", 2, 2},
      {"0010" "0000" "0001" "01" "000" "0000", "000", "00000" "10000" "10001" "0000", 6, 6},
      {"0010" "0001" "0000" "01" "000" "0000", "000", "10000" "00000" "10001" "0000", 6, 6}, // at the sides, the pair first
      {"0001" "0000" "0001" "00" "000" "0000", "10000100000", "10000" "10001", 4, 10},       // two and two, with mixdowns
      {"0010" "0000" "0001" "00" "000" "0000", "000", "00000" "10000" "00001", 4, 4},
      {"0010" "0001" "0001" "00" "000" "0000", "000", "10000" "00000" "00001" "10001", 6, 6},            // ffmpeg's 5.1(side)
      {"0010" "0001" "0010" "00" "000" "0000", "000", "10000" "00000" "00001" "10001" "00010", 7, 11}, // and its 6.1
      {"0010" "0001" "0001" "01" "000" "0000", "0011" "01", "00000" "10000" "10001" "00001" "0000", 7, 11},
      {"0010" "0001" "0001" "01" "001" "0001", "000", "00000" "10000" "10001" "10010" "0000" "0001" "10010", 8, 12},
      {"0011" "0000" "0001" "01" "000" "0000", "000", "00000" "10000" "10001" "10010" "0000", 8, 7},
      {"0010" "0000" "0010" "00" "000" "0000", "000", "00000" "10000" "10001" "00001", 6, CODEC_LAYOUT_NONE}, // hexagonal: no LFE
  };
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    char bits[400];
    // object 2 (5), rate 6 (4), config 0 (4), frame length, core, extension (3); element: tag (4), profile (2), rate (4)
    int n = snprintf(bits, sizeof bits, "00010" "0110" "0000" "000" "0000" "01" "0110" "%s%s%s", rows[k].counts, rows[k].mixdown,
                     rows[k].elements);
    while (n % 8)
      bits[n++] = '0';
    // A comment of two bytes; what follows it is found: SBR to 48 kHz, signalled so that old decoders pass over it.
    n += snprintf(bits + n, sizeof bits - (size_t)n, "%s", "00000010" "11111111" "11111111" "01010110111" "00101" "1" "0011");
    uint8_t config[50] = {0};
    for (int i = 0; i < n; i++)
      config[i / 8] = (uint8_t)(config[i / 8] | (bits[i] - '0') << (7 - i % 8));
    struct codec_info c = {.channels = 2};
    cr_expect_eq(codec_aac(&c, bytes_of(config, ((size_t)n + 7) / 8)), ERR_OK);
    cr_expect(c.channels == rows[k].channels && c.layout == rows[k].layout, "row %zu: %u channels, layout %u", k, c.channels, c.layout);
    cr_expect(!strcmp(c.codecs, "mp4a.40.5") && c.sample_rate == 48000, "row %zu: %s, %u Hz", k, c.codecs, c.sample_rate);
  }
}

// A sample entry with one configuration box.
static enum err parse_entry(struct codec_info *out, const char *type, const char *box, struct bytes config, struct diag *diag) {
  static uint8_t entry[512];
  memset(entry, 0, sizeof entry);
  size_t n = 36;
  memcpy(entry + 4, type, 4);
  entry[15] = 1;
  entry[25] = 2;
  entry[27] = 16;
  store_be32(entry + 32, 44100u << 16);
  if (box) {
    store_be32(entry + n, (uint32_t)config.n + 8);
    memcpy(entry + n + 4, box, 4);
    memcpy(entry + n + 8, config.p, config.n);
    n += config.n + 8;
  }
  store_be32(entry, (uint32_t)n);
  struct reader r = rd_of(bytes_of(entry, n));
  struct box b;
  struct box_trail t = {.diag = diag};
  cr_assert_eq(box_next(&b, &r), ERR_OK);
  return codec_parse(out, &t, &b, 0);
}

// ISO/IEC 23091-3 ChannelConfiguration: AAC's own number, the order of channels that other formats fix, 0 where none is known.
Test(codec, channel_layouts) {
  static const struct {
    const char *type, *box;
    struct bytes config;
    uint32_t channels, layout;
  } rows[] = {
      {"mp4a", NULL, BYTES_LIT("\x11\x88"), 1, 1},
      {"mp4a", NULL, BYTES_LIT("\x11\xa0"), 4, 4},
      {"mp4a", NULL, BYTES_LIT("\x11\xb8"), 8, 7},   // a second pair in front
      {"mp4a", NULL, BYTES_LIT("\x11\xd8"), 7, 11},  // 6.1
      {"mp4a", NULL, BYTES_LIT("\x11\xe0"), 8, 12},  // 7.1, a second pair behind
      {"mp4a", NULL, BYTES_LIT("\x11\xe8"), 24, 13}, // 22.2
      {"mp4a", NULL, BYTES_LIT("\x11\xf0"), 8, 14},  // 7.1, a pair above
      {"mp4a", NULL, BYTES_LIT("\xeb\x8a\x08\x00"), 2, 2}, // parametric stereo, core mono
      {"Opus", "dOps", BYTES_LIT("\0\2\1\x38\0\0\xac\x44\0\0\0"), 2, 2},
      {"Opus", "dOps", BYTES_LIT("\0\4\1\x38\0\0\xac\x44\0\0\1\2\2\0\1\2\3"), 4, 10},
      {"Opus", "dOps", BYTES_LIT("\0\4\1\x38\0\0\xac\x44\0\0\2\4\0\0\1\2\3"), 4, CODEC_LAYOUT_NONE}, // a sound field
      {"Opus", "dOps", BYTES_LIT("\0\x08\1\x38\0\0\xac\x44\0\0\1\5\3\0\1\2\3\4\5\6\7"), 8, 12},
      {"Opus", "dOps", BYTES_LIT("\0\2\1\x38\0\0\xac\x44\0\0\xff\2\0\0\1"), 2, CODEC_LAYOUT_NONE}, // two of anything
      {"fLaC", "dfLa", BYTES_LIT("\0\0\0\0\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0\x17\x70\x07\x70\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), 4, 10},
      {"fLaC", "dfLa", BYTES_LIT("\0\0\0\0\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0\x17\x70\x0f\x70\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), 8, 12},
      {"alac", "alac", BYTES_LIT("\0\0\0\0\0\0\x10\0\0\x18\x28\x0a\x0e\4\0\xff\0\0\0\0\0\0\0\0\0\0\xbb\x80"), 4, 4},
      {"alac", "alac", BYTES_LIT("\0\0\0\0\0\0\x10\0\0\x18\x28\x0a\x0e\x08\0\xff\0\0\0\0\0\0\0\0\0\0\xbb\x80"), 8, 7},
      {"mhm1", "mhaC", BYTES_LIT("\1\x0d\x0a\0\0"), 4, 10},
      {"mhm1", "mhaC", BYTES_LIT("\1\x0d\x13\0\0"), 12, 19},
      {"mhm1", NULL, BYTES_LIT(""), 2, 0},
      {"ec-3", "dec3", BYTES_LIT("\x0c\0\x20\x0f\2\2"), 8, 0}, // the mask says it
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct codec_info c = {0};
    struct diag d = {0};
    bool aac = !strcmp(rows[i].type, "mp4a");
    enum err e = aac ? codec_aac(&c, rows[i].config) : parse_entry(&c, rows[i].type, rows[i].box, rows[i].config, &d);
    cr_expect_eq(e, ERR_OK, "row %zu: %s", i, d.what);
    cr_expect(c.channels == rows[i].channels && c.layout == rows[i].layout, "row %zu: %u channels, layout %u", i, c.channels, c.layout);
  }
}

Test(codec, languages) {
  static const struct {
    const char *code, *want;
  } rows[] = {{"eng", "en"}, {"deu", "de"}, {"und", "und"}, {"zxx", "zxx"}, {"aar", "aa"}, {"zul", "zu"}, {"mul", "mul"},
                {"ger", "de"}, {"fre", "fr"}, {"chi", "zh"}, {"alb", "sq"}, {"tib", "bo"}, {"slo", "sk"}, {"slv", "sl"}, {"may", "ms"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char out[4];
    const char *c = rows[i].code;
    codec_language(out, (uint16_t)((c[0] - 0x60) << 10 | (c[1] - 0x60) << 5 | (c[2] - 0x60)));
    cr_expect_str_eq(out, rows[i].want);
  }
  char out[4];
  codec_language(out, 0); // QuickTime's English
  cr_expect_str_eq(out, "und");
  codec_language(out, 0x8000 | ('e' - 0x60) << 10 | ('n' - 0x60) << 5 | ('g' - 0x60));
  cr_expect_str_eq(out, "und");
  codec_language(out, 0xffff);
  cr_expect_str_eq(out, "und");
}

#define ELEVEN "\0\0\0\0\0\0\0\0\0\0\0"
Test(codec, configurations) {
  static const struct {
    const char *type, *box;
    struct bytes config;
    const char *codecs;
    uint32_t rate, channels, mask, joc, depth;
  } rows[] = {
      {"Opus", "dOps", BYTES_LIT("\0\x06\x01\x38\0\0\xac\x44\0\0\1\4\2\0\4\1\2\3\5"), "opus", 48000, 6, 0, 0, 0},
      {"fLaC", "dfLa", BYTES_LIT("\0\0\0\0\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0\x17\x70\x03\x70\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
       "flac", 96000, 2, 0, 0, 24},
      {"alac", "alac", BYTES_LIT("\0\0\0\0\0\0\x10\0\0\x18\x28\x0a\x0e\x02\0\xff\0\0\0\0\0\0\0\0\0\0\xbb\x80"), "alac", 48000, 2,
       0, 0, 24},
      {"ac-3", "dac3", BYTES_LIT("\x10\x3d\xc0"), "ac-3", 48000, 6, 0xf801, 0, 0},
      {"ac-3", "dac3", BYTES_LIT("\x50\x11\x40"), "ac-3", 44100, 2, 0xa000, 0, 0},
      {"ec-3", "dec3", BYTES_LIT("\x0c\0\x20\x0f\0"), "ec-3", 48000, 6, 0xf801, 0, 0},
      {"ec-3", "dec3", BYTES_LIT("\x0c\0\x20\x0f\2\2"), "ec-3", 48000, 8, 0xfa01, 0, 0},     // 7.1: Lrs, Rrs
      {"ec-3", "dec3", BYTES_LIT("\x0c\0\x20\x0f\3\0"), "ec-3", 48000, 7, 0xf803, 0, 0},     // a second LFE
      {"ec-3", "dec3", BYTES_LIT("\x0c\0\x20\x0f\2\x40"), "ec-3", 48000, 8, 0xf811, 0, 0},   // Lvh, Rvh
      {"ec-3", "dec3", BYTES_LIT("\x0c\1\x20\x0f\0\x60\4\0"), "ec-3", 48000, 6, 0xf801, 0, 0}, // a second programme
      {"ec-3", "dec3", BYTES_LIT("\x18\0\x20\x0f\0\1\x10"), "ec-3", 48000, 6, 0xf801, 16, 0}, // Atmos
      {"ec-3", "dec3", BYTES_LIT("\x18\0\x20\x0f\0\0\x10"), "ec-3", 48000, 6, 0xf801, 0, 0},  // an extension that is none
      {"mp4a", "esds", BYTES_LIT("\0\0\0\0\3\x19\0\1\0\4\x11\x40\x15" ELEVEN "\5\2\x11\x90\6\1\2"), "mp4a.40.2", 48000, 2, 0, 0, 0},
      {"mp4a", "esds", BYTES_LIT("\0\0\0\0\3\x21\0\1\xe0\0\7\3url\0\x9\4\x11\x40\x15" ELEVEN "\5\2\x11\x88\6\1\2"), "mp4a.40.2", 48000, 1, 0, 0, 0},
      {"mp4a", "esds", BYTES_LIT("\0\0\0\0\3\x80\x80\x80\x16\0\1\0\4\x11\x68\x15" ELEVEN "\5\2\x11\x88"), "mp4a.68", 48000, 1, 0, 0, 0}, // MPEG-2
      {"mp4a", "esds", BYTES_LIT("\0\0\0\0\3\x12\0\1\0\4\x0d\x6b\x15" ELEVEN), "mp4a.6B", 44100, 2, 0, 0, 0},                  // MP3
      {"mhm1", "mhaC", BYTES_LIT("\1\x0d\6\0\0"), "mhm1.0x0D", 44100, 6, 0, 0, 0},
      {"mhm1", "mhaC", BYTES_LIT("\1\x0d\x08\0\0"), "mhm1.0x0D", 44100, 2, 0, 0, 0}, // a layout that the table has not
      {"mhm1", NULL, BYTES_LIT(""), "mhm1", 44100, 2, 0, 0, 0},
      {"dtse", "ddts", BYTES_LIT("\0\0\0\0"), "dtse", 44100, 2, 0, 0, 0},
      {"iamf", "iacb", BYTES_LIT("\1\x14\xf8\6iamf\1\1\0\5\0mp4a"), "iamf.001.001.mp4a.40.2", 44100, 0, 0, 0, 0},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct codec_info c = {0};
    struct diag d = {0};
    cr_expect_eq(parse_entry(&c, rows[i].type, rows[i].box, rows[i].config, &d), ERR_OK, "row %zu: %s", i, d.what);
    cr_expect_str_eq(c.codecs, rows[i].codecs, "row %zu: %s", i, c.codecs);
    cr_expect(c.sample_rate == rows[i].rate && c.channels == rows[i].channels, "row %zu: %u Hz, %u channels", i,
              c.sample_rate, c.channels);
    cr_expect(c.channel_mask == rows[i].mask && c.joc_complexity == rows[i].joc && c.bit_depth == rows[i].depth,
              "row %zu: mask %x, complexity %u, %u bits", i, c.channel_mask, c.joc_complexity, c.bit_depth);
    // Every configuration cut short is refused, or (those without a parser, E-AC-3's extension) still read.
    for (size_t n = 0; rows[i].box && n < rows[i].config.n; n++) {
      struct diag cut = {0};
      enum err e = parse_entry(&c, rows[i].type, rows[i].box, bytes_of(rows[i].config.p, n), &cut);
      cr_expect_eq(e, cut.err, "row %zu cut to %zu", i, n);
    }
  }
}

Test(codec, refusals) {
  static const struct {
    const char *type, *box;
    struct bytes config;
    enum err want;
  } rows[] = {
      {"ac-4", "dac4", BYTES_LIT("\0"), ERR_UNSUPPORTED},
      {"mp4a", NULL, BYTES_LIT(""), ERR_MISSING},
      {"Opus", "dOpz", BYTES_LIT("\0"), ERR_MISSING},
      {"Opus", "dOps", BYTES_LIT("\0\2"), ERR_TRUNCATED},
      {"mp4a", "sinf", BYTES_LIT(""), ERR_PROTECTED},
      {"a\"<>", NULL, BYTES_LIT(""), ERR_UNSUPPORTED},
      {"mp4a", "esds", BYTES_LIT("\0\0\0\0\4\0"), ERR_MALFORMED},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct codec_info c;
    struct diag d = {0};
    cr_expect_eq(parse_entry(&c, rows[i].type, rows[i].box, rows[i].config, &d), rows[i].want, "row %zu: %s", i, d.what);
  }
}

// Sound descriptions of QuickTime's version 1: 16 more bytes, and esds inside of wave.
Test(init, quicktime) {
  static const char *const names[] = {"ffmpeg-quicktime-aac", "ffmpeg-quicktime-alac"}, *const codecs[] = {"mp4a.40.2", "alac"};
  for (int i = 0; i < 2; i++) {
    char path[4096];
    uint8_t moov[4096];
    struct alloc_heap heap;
    struct list edits = {0};
    struct init_info info;
    struct diag d = {0};
    snprintf(path, sizeof path, "%s/../init/%s", getenv("MP4_CORPUS"), names[i]);
    FILE *f = fopen(path, "rb");
    cr_assert_not_null(f, "%s", path);
    size_t n = fread(moov, 1, sizeof moov, f);
    fclose(f);
    alloc_heap_init(&heap, 1 << 20);
    cr_expect_eq(init_parse(&info, &edits, &heap.base, bytes_of(moov, n), 20, &d), ERR_OK, "%s", d.what);
    cr_expect_str_eq(info.codec.codecs, codecs[i]);
    cr_expect_eq(info.codec.channels, 1u);
    cr_expect_eq(info.codec.sample_rate, 44100u);
    alloc_heap_free(&heap);
  }
}

// Those of version 2 tell rate and channels in fields of their own, the ones before them are always the same: QuickTime File Format,
// Sound Sample Description (Version 2).
Test(codec, quicktime_version_2) {
  uint8_t entry[72] = {[3] = 72, 'm', 'h', 'm', '1', [15] = 1, [17] = 2, [25] = 3, [27] = 16, [28] = 0xff, 0xfe, [33] = 1, [39] = 72, [51] = 6, 0x7f};
  double rate = 96000;
  uint64_t raw;
  memcpy(&raw, &rate, sizeof raw);
  store_be64(entry + 40, raw);
  struct codec_info c = {0};
  struct diag d = {0};
  struct box_trail t = {.diag = &d};
  struct reader r = rd_of(bytes_of(entry, sizeof entry));
  struct box b;
  cr_assert_eq(box_next(&b, &r), ERR_OK);
  cr_expect_eq(codec_parse(&c, &t, &b, 0), ERR_OK, "%s", d.what);
  cr_expect(c.sample_rate == 96000 && c.channels == 6, "%u Hz, %u channels", c.sample_rate, c.channels);
}

// What a change to a good file must be called.
struct change {
  const char *preset, *find; // the first box of this type at or behind `after`
  const char *after;
  size_t at; // from the box's first byte
  struct bytes put;
  enum err want;
};

static size_t find(struct bytes b, const char *type, size_t from) {
  for (size_t i = from + 4; i + 4 <= b.n; i++)
    if (!memcmp(b.p + i, type, 4))
      return i - 4;
  cr_assert_fail("no %s", type);
  return 0;
}

static enum err index_of(struct bytes file, struct diag *diag) {
  struct mp4_source src = memory_source(&file, NULL, 0);
  struct alloc_heap heap;
  struct bytes blob;
  alloc_heap_init(&heap, 1 << 26);
  enum err e = ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, diag);
  alloc_heap_free(&heap);
  return e;
}

Test(index, refusals) {
  static const struct change rows[] = {
      {"plain", "mp4a", "stsd", 4, BYTES_LIT("enca"), ERR_PROTECTED},
      {"plain", "mp4a", "stsd", 4, BYTES_LIT("encv"), ERR_PROTECTED},
      {"plain", "mp4a", "stsd", 4, BYTES_LIT("enct"), ERR_PROTECTED},
      {"plain", "mp4a", "stsd", 4, BYTES_LIT("encs"), ERR_PROTECTED},
      {"plain", "mp4a", "stsd", 4, BYTES_LIT("encm"), ERR_PROTECTED},
      {"plain", "hdlr", "moov", 16, BYTES_LIT("vide"), ERR_NOT_AUDIO},
      {"plain", "hdlr", "moov", 16, BYTES_LIT("text"), ERR_NOT_AUDIO},
      {"plain", "mdat", "moof", 4, BYTES_LIT("moov"), ERR_MALFORMED}, // a second one
      {"plain", "mvex", "moov", 4, BYTES_LIT("free"), ERR_PROGRESSIVE},
      {"plain", "stsz", "moov", 19, BYTES_LIT("\1"), ERR_PROGRESSIVE},
      {"plain", "stsd", "moov", 15, BYTES_LIT("\2"), ERR_MALFORMED},
      {"terminator", "stsd", "moov", 8, BYTES_LIT("\1"), ERR_MALFORMED}, // QuickTime has no such version
      {"plain", "trex", "moov", 15, BYTES_LIT("\2"), ERR_MISSING},
      {"plain", "trex", "moov", 19, BYTES_LIT("\2"), ERR_MALFORMED}, // a sample description that is not there
      {"plain", "mdhd", "moov", 20, BYTES_LIT("\0\0\0\0"), ERR_MALFORMED},
      {"plain", "moov", "ftyp", 4, BYTES_LIT("free"), ERR_MISSING},
      {"plain", "tfhd", "moof", 15, BYTES_LIT("\2"), ERR_UNSUPPORTED}, // another track
      {"plain", "tfhd", "moof", 4, BYTES_LIT("free"), ERR_MALFORMED},
      {"plain", "tfdt", "moof", 4, BYTES_LIT("tfhd"), ERR_MALFORMED},
      {"plain", "tfdt", "moof", 4, BYTES_LIT("senc"), ERR_PROTECTED},
      {"plain", "tfdt", "moof", 4, BYTES_LIT("saio"), ERR_PROTECTED},
      {"plain", "tfdt", "moof", 8, BYTES_LIT("\2"), ERR_UNSUPPORTED},
      {"plain", "tfdt", "moof", 12, BYTES_LIT("\xff\xff\xff\xff\xff\xff\xff\xff"), ERR_OVERFLOW},
      {"plain", "trun", "moof", 15, BYTES_LIT("\x15"), ERR_TRUNCATED}, // a sample more than sizes
      {"plain", "trun", "moof", 15, BYTES_LIT("\x13"), ERR_MALFORMED}, // one less
      {"plain", "trun", "moof", 12, BYTES_LIT("\xff\xff\xff\xff"), ERR_TRUNCATED},
      {"plain", "trun", "moof", 16, BYTES_LIT("\0\0\0\0"), ERR_MALFORMED},     // data in the moof
      {"plain", "trun", "moof", 16, BYTES_LIT("\x7f\0\0\0"), ERR_TRUNCATED},   // data behind the end
      {"plain", "trun", "moof", 16, BYTES_LIT("\xff\xff\xff\0"), ERR_MALFORMED}, // data in moov
      {"plain", "trun", "moof", 20, BYTES_LIT("\x02\0\0\0"), ERR_LIMIT},   // a sample of 32 MiB
      {"plain", "mdat", "moof", 4, BYTES_LIT("free"), ERR_MALFORMED},
      {"plain", "mdat", "moof", 0, BYTES_LIT("\x7f\0\0\0"), ERR_TRUNCATED},
      {"plain", "moof", "ftyp", 0, BYTES_LIT("\0\0\0\4"), ERR_MALFORMED},
      {"gaps", "trun", "trun", 16, BYTES_LIT("\0\0\2\0"), ERR_MALFORMED},
      {"sizes-in-trex", "trun", "moof", 12, BYTES_LIT("\0\xff\xff\xff"), ERR_TRUNCATED}, // 16 million default samples
      {"sizes-in-trex", "trun", "moof", 12, BYTES_LIT("\xff\xff\xff\xff"), ERR_LIMIT},
      {"plain", "ftyp", "ftyp", 0, BYTES_LIT("Hello, world"), ERR_UNSUPPORTED}, // no MP4 file at all
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct synth s;
    struct diag d = {0};
    const struct change *c = &rows[i];
    synth_make(&s, preset(c->preset));
    struct bytes file = bytes_of(s.file, s.len);
    size_t at = find(file, c->find, find(file, c->after, 0)) + c->at;
    memcpy(s.file + at, c->put.p, c->put.n);
    enum err e = index_of(file, &d);
    cr_expect_eq(e, c->want, "row %zu (%s %s): %s %s", i, c->preset, c->find, err_name(e), d.what);
    synth_free(&s);
  }
}

Test(index, truns_that_share_data_are_refused) {
  struct synth s;
  struct diag d = {0};
  synth_make(&s, preset("gaps"));
  struct bytes file = bytes_of(s.file, s.len);
  size_t one = find(file, "trun", find(file, "moof", 0)), two = find(file, "trun", one + 8);
  uint32_t off = load_be32(file.p + one + 16), len = load_be32(file.p + two + 16) - off - preset("gaps")->gap;
  const uint32_t shifts[] = {0, 1, 2, len - 1}; // all of it, all but a byte or two, one byte
  for (size_t i = 0; i < sizeof shifts / sizeof *shifts; i++) {
    d = (struct diag){0};
    store_be32(s.file + two + 16, off + shifts[i]);
    cr_expect_eq(index_of(file, &d), ERR_MALFORMED, "%u: %s", shifts[i], d.what);
    cr_expect_not_null(strstr(d.what, "share"), "%u: %s", shifts[i], d.what);
  }
  d = (struct diag){0};
  store_be32(s.file + two + 16, off + len);
  cr_expect_eq(index_of(file, &d), ERR_OK, "%s", d.what);
  synth_free(&s);
}

Test(index, samples_without_bytes_are_limited) {
  struct synth s;
  struct diag d = {0};
  synth_make(&s, &(struct synth_options){.num_frags = 1, .samples_per_trun = 3, .sizes = SYNTH_SIZES_TREX});
  struct bytes file = bytes_of(s.file, s.len);
  cr_expect_eq(index_of(file, &d), ERR_OK, "%s", d.what);
  size_t at = find(file, "trun", find(file, "moof", 0)) + 12;
  store_be32(s.file + at, 1 << 16);
  cr_expect_eq(index_of(file, &d), ERR_OK, "%s", d.what);
  store_be32(s.file + at, (1 << 16) + 1);
  cr_expect_eq(index_of(file, &d), ERR_LIMIT);
  synth_free(&s);
  // Samples that have fields in their trun cost bytes.
  synth_make(&s, &(struct synth_options){.num_frags = 1, .samples_per_trun = (1 << 16) + 1, .sizes = SYNTH_SIZES_TREX, .each = true});
  d = (struct diag){0};
  cr_expect_eq(index_of(bytes_of(s.file, s.len), &d), ERR_OK, "%s", d.what);
  synth_free(&s);
}

// As a crash leaves a file, or an upload under way.
Test(index, zeros_are_no_mp4_file) {
  static const uint8_t zeros[64];
  struct diag d = {0};
  cr_expect_eq(index_of(bytes_of(zeros, sizeof zeros), &d), ERR_UNSUPPORTED);
  cr_expect_str_eq(d.what, "this is not an MP4 file");
}

Test(index, an_error_names_byte_and_box) {
  struct synth s;
  struct diag d = {0};
  char text[400];
  synth_make(&s, preset("plain"));
  struct bytes file = bytes_of(s.file, s.len);
  size_t at = find(file, "trun", find(file, "moof", 0));
  s.file[at + 15]++;
  cr_expect_eq(index_of(file, &d), ERR_TRUNCATED);
  diag_format(&d, text, sizeof text);
  char want[100];
  snprintf(want, sizeof want, "(at byte %zu, box moof/traf/trun)", at);
  cr_expect_not_null(strstr(text, want), "%s", text);
  synth_free(&s);
}

Test(index, memory_that_runs_out_is_an_error) {
  struct synth s;
  synth_make(&s, preset("several-trafs"));
  struct bytes file = bytes_of(s.file, s.len), blob;
  struct mp4_source src = memory_source(&file, NULL, 0);
  enum err e = ERR_NO_MEMORY;
  for (size_t limit = 0; e && limit < 1 << 20; limit += 512) {
    struct alloc_heap heap;
    struct diag d = {0};
    alloc_heap_init(&heap, limit);
    e = ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &d);
    cr_expect(e == ERR_OK || e == ERR_NO_MEMORY, "%zu bytes: %s", limit, err_name(e));
    alloc_heap_free(&heap);
  }
  cr_expect_eq(e, ERR_OK);
  synth_free(&s);
}

// A moof of trafs with 4 samples of 10 ticks or none, some with a tfdt, and where it begins and ends when the one before
// ends at 1000. ISO/IEC 14496-12 8.8.12.
Test(frag, times_of_trafs_with_and_without_tfdt) {
  enum { NO = -1 };
  static const struct {
    struct {
      int time;
      uint8_t num;
    } trafs[3];
    uint64_t start, end;
    uint32_t inserted; // what the tfdt that is inserted last says
  } rows[] = {
      {{{NO, 4}, {NO, 4}}, 1000, 1080, 1040},
      {{{2000, 4}, {NO, 4}}, 2000, 2080, 2040},
      {{{NO, 4}, {3000, 4}}, 1000, 3040, 1000},
      {{{2000, 4}, {3000, 4}, {NO, 4}}, 2000, 3080, 3040}, // a gap within
      {{{NO, 0}, {2000, 4}}, 2000, 2040, 1000},            // nothing begins at 1000
      {{{2000, 0}, {NO, 4}}, 2000, 2040, 2000},
      {{{2000, 4}, {1500, 4}}, 2000, 2080, 0},             // backwards
  };
  struct frag_defaults defaults = {.track_id = 1, .num_entries = 1, .description_index = 1, .sample_duration = 10, .sample_size = 4};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    uint8_t moof[512] = {0};
    size_t n = 8, start = 0;
    for (size_t k = 0; k < 3 && (rows[i].trafs[k].num || rows[i].trafs[k].time); k++) {
      start = n;
      memcpy(moof + n + 4, "traf", 4);
      memcpy(moof + n + 8, "\0\0\0\x10tfhd\0\2\0\0\0\0\0\1", 16);
      n += 24;
      if (rows[i].trafs[k].time != NO) {
        memcpy(moof + n, "\0\0\0\x10tfdt", 8);
        store_be32(moof + n + 12, (uint32_t)rows[i].trafs[k].time);
        n += 16;
      }
      memcpy(moof + n, "\0\0\0\x14trun\0\0\0\1", 12);
      store_be32(moof + n + 12, rows[i].trafs[k].num);
      store_be32(moof + n + 16, (uint32_t)(600 + 16 * k));
      n += 20;
      store_be32(moof + start, (uint32_t)(n - start));
    }
    memcpy(moof + 4, "moof", 4);
    store_be32(moof, (uint32_t)n);
    struct alloc_heap heap;
    struct frag_moof m = {0};
    struct frag_samples samples = {0};
    struct diag d = {0};
    alloc_heap_init(&heap, 1 << 20);
    struct frag_place place = {.source_len = 1000, .next_time = 1000};
    cr_assert_eq(frag_parse(&m, &samples, &heap.base, &defaults, bytes_of(moof, n), place, &d), ERR_OK, "row %zu: %s", i, d.what);
    cr_expect_eq(m.time_ticks, rows[i].start, "row %zu starts at %llu", i, (unsigned long long)m.time_ticks);
    cr_expect_eq(m.end_ticks, rows[i].end, "row %zu ends at %llu", i, (unsigned long long)m.end_ticks);
    uint32_t inserted = 0;
    const struct ix_edit *e = m.edits.p;
    for (uint32_t k = 1; k < m.edits.num; k++) // five words: size, type, version, time
      if (e[k].kind == IX_WORD && e[k].value == FOURCC('t', 'f', 'd', 't'))
        inserted = e[k + 3].value;
    cr_expect_eq(inserted, rows[i].inserted, "row %zu: %u", i, inserted);
    alloc_heap_free(&heap);
  }
}

struct told {
  char text[512];
  size_t n;
};

static void tell(void *ctx, const struct field *f) {
  struct told *t = ctx;
  int n = f->kind == FIELD_LIST    ? snprintf(t->text + t->n, sizeof t->text - t->n, "[")
          : f->kind == FIELD_LIST_END ? snprintf(t->text + t->n, sizeof t->text - t->n, "]")
          : f->kind == FIELD_ITEM || f->kind == FIELD_ITEM_END
              ? 0
              : snprintf(t->text + t->n, sizeof t->text - t->n, "%.*s=%lld/%zu ", (int)f->name_len, f->name,
                         f->kind == FIELD_INT ? (long long)f->i : (long long)f->u, f->raw.n);
  t->n += (size_t)n;
}

Test(describe, fields, .timeout = 20) {
  static const struct {
    const char *type;
    struct bytes body;
    const char *want;
    enum err err;
  } rows[] = {
      {"tfdt", BYTES_LIT("\1\0\0\0\0\0\0\1\0\0\0\2"), "version=1/0 flags=0/0 base_media_decode_time=4294967298/0 ", ERR_OK},
      {"trun", BYTES_LIT("\0\0\2\1\0\0\0\1\xff\xff\xff\xff\0\0\0\7"), "version=0/0 flags=513/0 num=1/0 data_offset=-1/0 [size=7/0 ]",
       ERR_OK},
      {"tenc", BYTES_LIT("\1\0\0\0\0\x19\1\0kkkkkkkkkkkkkkkk\2ii"),
       "version=1/0 flags=0/0 crypt_byte_block=1/0 skip_byte_block=9/0 is_protected=1/0 per_sample_iv_size=0/0 kid=0/16 "
       "constant_iv=0/2 ",
       ERR_OK},
      {"senc", BYTES_LIT("\0\0\0\2\0\0\0\1iiiiiiii\0\1\0\3\0\0\0\4"), "version=0/0 flags=2/0 num=1/0 [iv=0/8 [clear=3/0 protected=4/0 ]]",
       ERR_OK},
      {"pssh", BYTES_LIT("\0\0\0\0ssssssssssssssss\0\0\0\1d"), "version=0/0 flags=0/0 system_id=0/16 []data_size=1/0 data=0/1 ", ERR_OK},
      {"tfdt", BYTES_LIT("\1\0\0\0\0\0\0\1"), "version=1/0 flags=0/0 ", ERR_TRUNCATED},
      {"trun", BYTES_LIT("\0\0\0\0\xff\xff\xff\xff\1"), "version=0/0 flags=0/0 num=4294967295/0 []", ERR_OK}, // of no fields
      {"senc", BYTES_LIT("\0\0\0\0\0\0\0\2iiiiiiiijjjjjjjj"), "version=0/0 flags=0/0 num=2/0 [iv=0/8 iv=0/8 ]", ERR_OK},
      {"tenc", BYTES_LIT("\0\0\0\0\0\0\1\x8kkkkkkkkkkkkkkkk"),
       "version=0/0 flags=0/0 crypt_byte_block=0/0 skip_byte_block=0/0 is_protected=1/0 per_sample_iv_size=8/0 kid=0/16 ", ERR_OK},
      {"emsg", BYTES_LIT("\0\0\0\0u\0v\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4d"),
       "version=0/0 flags=0/0 scheme=0/1 value=0/1 timescale=1/0 presentation_time_delta=2/0 event_duration=3/0 id=4/0 data=0/1 ", ERR_OK},
      {"emsg", BYTES_LIT("\1\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\3\0\0\0\4u\0v\0d"),
       "version=1/0 flags=0/0 timescale=1/0 presentation_time=2/0 event_duration=3/0 id=4/0 scheme=0/1 value=0/1 data=0/1 ", ERR_OK},
      {"sidx", BYTES_LIT("\0\0\0\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\1\x80\0\0\5\0\0\0\6\0\0\0\7behind it all"),
       "version=0/0 flags=0/0 reference_id=1/0 timescale=2/0 earliest_presentation_time=3/0 first_offset=4/0 num=1/0 "
       "[reference_type=1/0 referenced_size=5/0 duration=6/0 sap=7/0 ]", ERR_OK},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct told t = {0};
    struct describe d = {&t, tell, 8};
    cr_expect_eq(describe_box(&d, load_be32((const uint8_t *)rows[i].type), rows[i].body), rows[i].err, "row %zu", i);
    cr_expect_str_eq(t.text, rows[i].want, "row %zu: %s", i, t.text);
  }
}
