#include "mp4/codec.h"

#include <stdio.h>

struct bits {
  struct bytes b;
  size_t pos; // in bits
  bool bad;   // read past the end: sticky, gives 0
};

static uint32_t take(struct bits *r, unsigned n) {
  uint32_t v = 0;
  if (n > r->b.n * 8 - r->pos) {
    r->bad = true;
    r->pos = r->b.n * 8;
    return 0;
  }
  for (unsigned i = 0; i < n; i++, r->pos++)
    v = v << 1 | ((uint32_t)r->b.p[r->pos / 8] >> (7 - r->pos % 8) & 1u);
  return v;
}

static size_t bits_left(const struct bits *r) { return r->b.n * 8 - r->pos; }

static uint32_t aac_object_type(struct bits *r) {
  uint32_t t = take(r, 5);
  return t == 31 ? 32 + take(r, 6) : t;
}

static uint32_t aac_rate(struct bits *r) {
  static const uint32_t rates[] = {96000, 88200, 64000, 48000, 44100, 32000, 24000,
                                   22050, 16000, 12000, 11025, 8000,  7350};
  uint32_t i = take(r, 4);
  if (i == 15)
    return take(r, 24);
  return i < sizeof rates / sizeof *rates ? rates[i] : 0;
}

// Front, and side and back together: single channels and pairs, then LFE; as ISO/IEC 23091-3 numbers such a layout. The order of
// elements within a place differs from encoder to encoder.
static const struct {
  uint8_t has[5], layout;
} pce_layouts[] = {
    {{1, 0, 0, 0, 0}, 1}, {{0, 1, 0, 0, 0}, 2}, {{1, 1, 0, 0, 0}, 3}, {{1, 1, 1, 0, 0}, 4},  {{1, 1, 0, 1, 0}, 5},  {{1, 1, 0, 1, 1}, 6},
    {{1, 2, 0, 1, 1}, 7}, {{0, 1, 1, 0, 0}, 9}, {{0, 1, 0, 1, 0}, 10}, {{1, 1, 1, 1, 1}, 11}, {{1, 1, 0, 2, 1}, 12},
};

// ISO/IEC 14496-3 4.4.1.1 program_config_element: how many channels its elements carry, and which. One single channel at the sides is no
// place of a loudspeaker: so ffmpeg's encoder writes the LFE of 5.1(side) and 6.1.
static uint32_t aac_pce(struct bits *r, uint32_t *layout) {
  (void)take(r, 4 + 2 + 4);
  uint32_t front = take(r, 4), side = take(r, 4), all = front + side + take(r, 4);
  uint32_t lfe = take(r, 2), data = take(r, 3), coupling = take(r, 4);
  for (unsigned i = 0; i < 3; i++) // mono, stereo, matrix mixdown
    if (take(r, 1))
      (void)take(r, i < 2 ? 4 : 3);
  uint8_t has[5] = {[4] = (uint8_t)lfe};
  for (uint32_t i = 0; i < all; i++) {
    bool pair = take(r, 1), lone = side == 1 && i == front && !pair;
    has[lone ? 4 : (i < front ? 0 : 2) + pair]++;
    (void)take(r, 4);
  }
  for (uint32_t i = 0; i < lfe + data; i++)
    (void)take(r, 4);
  for (uint32_t i = 0; i < coupling; i++)
    (void)take(r, 5);
  (void)take(r, (unsigned)(-r->pos % 8));
  for (uint32_t comment = take(r, 8); comment; comment--)
    (void)take(r, 8);
  *layout = CODEC_LAYOUT_NONE;
  for (size_t i = 0; i < sizeof pce_layouts / sizeof *pce_layouts; i++)
    if (!memcmp(has, pce_layouts[i].has, sizeof has))
      *layout = pce_layouts[i].layout;
  return has[0] + 2u * has[1] + has[2] + 2u * has[3] + has[4];
}

static bool is_ga(uint32_t type) { return (type >= 1 && type <= 7 && type != 5) || (type >= 17 && type <= 23 && type != 18); }

// ISO/IEC 14496-3 4.4.1 GASpecificConfig; returns the channels of its program_config_element, 0 without one.
static uint32_t aac_ga_config(struct bits *r, uint32_t type, uint32_t channel_config, uint32_t *layout) {
  uint32_t channels = 0;
  (void)take(r, 1);
  if (take(r, 1))
    (void)take(r, 14);
  uint32_t extension = take(r, 1);
  if (!channel_config)
    channels = aac_pce(r, layout);
  if (type == 6 || type == 20)
    (void)take(r, 3);
  if (extension) {
    if (type == 22)
      (void)take(r, 5 + 11);
    if (type == 17 || type == 19 || type == 20 || type == 23)
      (void)take(r, 3);
    (void)take(r, 1);
  }
  return channels;
}

enum err codec_aac(struct codec_info *io, struct bytes config) {
  static const uint8_t config_channels[16] = {0, 1, 2, 3, 4, 5, 6, 8, 0, 0, 0, 7, 8, 24, 8, 0};
  struct bits r = {.b = config};
  uint32_t type = aac_object_type(&r), rate = aac_rate(&r), cc = take(&r, 4);
  bool sbr = type == 5 || type == 29, ps = type == 29;
  uint32_t core = type;
  if (sbr) {
    rate = aac_rate(&r);
    core = aac_object_type(&r);
    if (core == 22)
      (void)take(&r, 4);
  }
  uint32_t channels = config_channels[cc], layout = cc; // 14496-3 table 1.19 and 23091-3 number them alike
  if (is_ga(core)) {
    uint32_t pce = aac_ga_config(&r, core, cc, &layout);
    if (!cc)
      channels = pce;
  }
  if (r.bad)
    return ERR_TRUNCATED;
  if (core >= 17 && core <= 27 && core != 18)
    (void)take(&r, 2); // epConfig; its further fields end the search for extensions below
  // Backward-compatible explicit signalling: trailing bits that old decoders ignore.
  if (!sbr && is_ga(core) && bits_left(&r) >= 16 && take(&r, 11) == 0x2b7 && aac_object_type(&r) == 5 && take(&r, 1)) {
    sbr = true;
    rate = aac_rate(&r);
    if (bits_left(&r) >= 12 && take(&r, 11) == 0x548)
      ps = take(&r, 1) != 0;
  }
  if (type == 0)
    return ERR_MALFORMED;
  if (channels) {
    io->channels = ps && channels == 1 ? 2 : channels;
    io->layout = ps && channels == 1 ? 2 : layout;
  }
  if (rate)
    io->sample_rate = rate;
  snprintf(io->codecs, sizeof io->codecs, "mp4a.40.%u", ps ? 29 : sbr ? 5 : type);
  return ERR_OK;
}

// ISO/IEC 14496-1 7.2.6: tag and a length of up to four 7-bit groups.
static struct reader descriptor(struct reader *r, uint8_t *tag) {
  *tag = rd_u8(r);
  size_t len = 0;
  for (int i = 0; i < 4; i++) {
    uint8_t b = rd_u8(r);
    len = len << 7 | (b & 0x7f);
    if (!(b & 0x80))
      break;
  }
  return rd_sub(r, len);
}

static enum err parse_esds(struct codec_info *io, struct bytes body) {
  struct reader r = rd_of(body);
  uint8_t tag;
  rd_skip(&r, 4);
  struct reader es = descriptor(&r, &tag);
  if (r.err || tag != 3)
    return r.err ? r.err : ERR_MALFORMED;
  rd_skip(&es, 2);
  uint8_t flags = rd_u8(&es);
  if (flags & 0x80)
    rd_skip(&es, 2);
  if (flags & 0x40)
    rd_skip(&es, rd_u8(&es));
  if (flags & 0x20)
    rd_skip(&es, 2);
  struct reader config = descriptor(&es, &tag);
  if (es.err || tag != 4)
    return es.err ? es.err : ERR_MALFORMED;
  uint8_t object = rd_u8(&config);
  rd_skip(&config, 12);
  if (config.err)
    return config.err;
  snprintf(io->codecs, sizeof io->codecs, "mp4a.%02X", object);
  bool aac = object == 0x40 || (object >= 0x66 && object <= 0x68);
  for (int i = 0; aac && i < LIMIT_DESCRIPTORS && rd_left(&config); i++) {
    struct reader d = descriptor(&config, &tag);
    if (config.err)
      return config.err;
    if (tag != 5)
      continue;
    struct codec_info c = *io;
    enum err e = codec_aac(&c, bytes_of(d.p, rd_left(&d)));
    if (e)
      return e;
    if (object != 0x40)
      memcpy(c.codecs, io->codecs, sizeof c.codecs);
    *io = c;
    return ERR_OK;
  }
  return object == 0x40 ? ERR_MISSING : ERR_OK;
}

// Layouts by the number of channels, where a codec has one for each. Four are left, right and two behind (10), not centre and
// one behind (4). Sources: RFC 9639 9.1.3; RFC 7845 5.1.1.2.
static const uint8_t rfc_layout[] = {0, 1, 2, 3, 10, 5, 6, 11, 12};
// Apple Lossless: centre and one behind (4), and eight with a second pair in front (7). Source: ALAC magic cookie, layout tags.
static const uint8_t alac_layout[] = {0, 1, 2, 3, 4, 5, 6, 11, 7};

static uint32_t layout_by_count(const uint8_t by_count[9], uint32_t channels) { return channels <= 8 ? by_count[channels] : 0; }

static enum err parse_dops(struct codec_info *io, struct bytes body) {
  struct reader r = rd_of(body);
  rd_skip(&r, 1);
  uint8_t channels = rd_u8(&r);
  rd_skip(&r, 2 + 4 + 2);
  uint8_t family = rd_u8(&r);
  if (r.err)
    return r.err;
  if (channels)
    io->channels = channels;
  io->layout = family <= 1 ? layout_by_count(rfc_layout, channels) : CODEC_LAYOUT_NONE; // RFC 8486: sound fields; 255: nothing said
  io->sample_rate = 48000;
  snprintf(io->codecs, sizeof io->codecs, "opus");
  return ERR_OK;
}

static enum err parse_dfla(struct codec_info *io, struct bytes body) {
  struct reader r = rd_of(body);
  rd_skip(&r, 4);
  uint32_t head = rd_u32(&r); // last flag, block type, length
  rd_skip(&r, 2 + 2 + 3 + 3);
  uint64_t v = rd_u64(&r);
  rd_skip(&r, 16);
  if (r.err)
    return r.err;
  if ((head >> 24 & 0x7f) != 0 || (head & 0xffffff) != 34 || !(v >> 44))
    return ERR_MALFORMED; // STREAMINFO comes first
  io->sample_rate = (uint32_t)(v >> 44);
  io->channels = (uint32_t)(v >> 41 & 7) + 1;
  io->layout = layout_by_count(rfc_layout, io->channels);
  io->bit_depth = (uint32_t)(v >> 36 & 31) + 1;
  snprintf(io->codecs, sizeof io->codecs, "flac");
  return ERR_OK;
}

static enum err parse_alac(struct codec_info *io, struct bytes body) {
  struct reader r = rd_of(body);
  rd_skip(&r, 4 + 4 + 1);
  uint8_t depth = rd_u8(&r);
  rd_skip(&r, 3);
  uint8_t channels = rd_u8(&r);
  rd_skip(&r, 2 + 4 + 4);
  uint32_t rate = rd_u32(&r);
  if (r.err)
    return r.err;
  if (channels)
    io->channels = channels;
  if (rate)
    io->sample_rate = rate;
  io->layout = layout_by_count(alac_layout, channels);
  io->bit_depth = depth;
  snprintf(io->codecs, sizeof io->codecs, "alac");
  return ERR_OK;
}

// ETSI TS 102 366 4.4.2.3 (acmod) in the order of E.1.3.1.8: L C R Ls Rs, five pairs and single channels, LFE last.
static const uint16_t acmod_mask[8] = {0xa000, 0x4000, 0xa000, 0xe000, 0xa100, 0xe100, 0xb800, 0xf800};

static uint32_t mask_channels(uint32_t mask) {
  const uint32_t pairs = 0x0400 | 0x0200 | 0x0040 | 0x0020 | 0x0010 | 0x0004;
  return (uint32_t)(__builtin_popcount(mask) + __builtin_popcount(mask & pairs));
}

static const uint32_t ac3_rates[4] = {48000, 44100, 32000, 0};

static enum err parse_dac3(struct codec_info *io, struct bytes body) {
  struct bits r = {.b = body};
  uint32_t rate = ac3_rates[take(&r, 2)];
  (void)take(&r, 5 + 3);
  uint32_t mask = acmod_mask[take(&r, 3)] | take(&r, 1);
  (void)take(&r, 5);
  if (r.bad)
    return ERR_TRUNCATED;
  if (rate)
    io->sample_rate = rate;
  io->channel_mask = mask;
  io->channels = mask_channels(mask);
  snprintf(io->codecs, sizeof io->codecs, "ac-3");
  return ERR_OK;
}

static enum err parse_dec3(struct codec_info *io, struct bytes body) {
  struct bits r = {.b = body};
  (void)take(&r, 13);
  uint32_t num = take(&r, 3) + 1, mask = 0, rate = 0, joc = 0;
  for (uint32_t i = 0; i < num; i++) { // independent substreams; the first is the programme
    uint32_t rate_i = ac3_rates[take(&r, 2)];
    (void)take(&r, 5 + 1 + 1 + 3);
    uint32_t mask_i = acmod_mask[take(&r, 3)] | take(&r, 1);
    (void)take(&r, 3);
    if (take(&r, 4)) {
      // chan_loc: bit 0 = Lc/Rc … bit 7 = Cvh, bit 8 = LFE2; the mask has them from bit 10 down, LFE2 at bit 1.
      uint32_t loc = take(&r, 9);
      for (uint32_t k = 0; k < 8; k++)
        mask_i |= (loc >> k & 1) << (10 - k);
      mask_i |= (loc >> 8) << 1;
    } else {
      (void)take(&r, 1);
    }
    if (i == 0) {
      mask = mask_i;
      rate = rate_i;
    }
  }
  if (r.bad)
    return ERR_TRUNCATED;
  if (bits_left(&r) >= 16) { // ETSI TS 103 420 C.3: flag_ec3_extension_type_a and complexity_index_type_a
    (void)take(&r, 7);
    if (take(&r, 1))
      joc = take(&r, 8);
  }
  if (rate)
    io->sample_rate = rate;
  io->channel_mask = mask;
  io->channels = mask_channels(mask);
  io->joc_complexity = joc;
  snprintf(io->codecs, sizeof io->codecs, "ec-3");
  return ERR_OK;
}

// ISO/IEC 23008-3 20.4; channels by ISO/IEC 23091-3 ChannelConfiguration.
static enum err parse_mhac(struct codec_info *io, struct bytes body, const char *format) {
  static const uint8_t channels[21] = {0, 1, 2, 3, 4, 5, 6, 8, 0, 3, 4, 7, 8, 24, 8, 12, 10, 12, 14, 12, 14};
  struct reader r = rd_of(body);
  rd_skip(&r, 1);
  uint8_t profile = rd_u8(&r), layout = rd_u8(&r);
  rd_skip(&r, 2);
  if (r.err)
    return r.err;
  if (layout < sizeof channels && channels[layout]) {
    io->channels = channels[layout];
    io->layout = layout;
  }
  snprintf(io->codecs, sizeof io->codecs, "%s.0x%02X", format, profile);
  return ERR_OK;
}

static uint64_t leb128(struct reader *r) {
  uint64_t v = 0;
  for (unsigned i = 0; i < 8; i++) {
    uint8_t b = rd_u8(r);
    v |= (uint64_t)(b & 0x7f) << (7 * i);
    if (!(b & 0x80))
      break;
  }
  return v;
}

// IAMF 3.5 (sequence header OBU), 3.6 (codec config OBU), 6.2.4 (codecs parameter).
static enum err parse_iacb(struct codec_info *io, struct bytes body) {
  struct reader r = rd_of(body);
  rd_skip(&r, 1);
  (void)leb128(&r);
  uint8_t profile[2] = {0};
  for (int i = 0; i < 2; i++) {
    uint8_t head = rd_u8(&r);
    uint64_t len = leb128(&r);
    if (r.err || len > rd_left(&r))
      return ERR_TRUNCATED;
    struct reader obu = rd_sub(&r, (size_t)len);
    if (i == 0) {
      uint32_t code = rd_u32(&obu);
      profile[0] = rd_u8(&obu);
      profile[1] = rd_u8(&obu);
      if (obu.err || head >> 3 != 31 || code != FOURCC('i', 'a', 'm', 'f'))
        return ERR_MALFORMED;
    } else {
      (void)leb128(&obu);
      const uint8_t *id = rd_take(&obu, 4);
      if (!id || head >> 3 != 0)
        return ERR_MALFORMED;
      bool aac = !memcmp(id, "mp4a", 4);
      if (!aac && memcmp(id, "Opus", 4) && memcmp(id, "fLaC", 4) && memcmp(id, "ipcm", 4))
        return ERR_UNSUPPORTED;
      snprintf(io->codecs, sizeof io->codecs, "iamf.%03u.%03u.%.4s%s", profile[0], profile[1], (const char *)id,
               aac ? ".40.2" : "");
      io->channels = 0; // as the entry is to say (IAMF 6.2.3): the renderer decides how many are heard
    }
  }
  return ERR_OK;
}

// The entry's own fields, which the codec's configuration overrides.
static void entry_fields(struct codec_info *io, struct bytes body, unsigned stsd_version) {
  struct reader r = rd_of(body);
  rd_skip(&r, 8);
  unsigned version = rd_u16(&r);
  rd_skip(&r, 6);
  io->channels = rd_u16(&r);
  rd_skip(&r, 6);
  io->sample_rate = rd_u32(&r) >> 16;
  if (stsd_version == 0 && version == 2) { // QuickTime: the rate as a double, the channels as 32 bits
    rd_skip(&r, 4);
    uint64_t raw = rd_u64(&r);
    uint32_t channels = rd_u32(&r);
    double rate;
    memcpy(&rate, &raw, sizeof rate);
    if (!r.err && rate >= 1 && rate < 1e7)
      io->sample_rate = (uint32_t)rate;
    if (!r.err && channels && channels < 256)
      io->channels = channels;
  }
}

// Finds a child, also inside QuickTime's `wave`. A QuickTime list may end in a 32-bit zero.
static bool find_child(struct box *out, struct reader r, uint32_t type) {
  struct reader wave = {0};
  for (struct box b; rd_left(&r) >= 8 && !box_next(&b, &r) && b.len;) {
    if (b.type == type) {
      *out = b;
      return true;
    }
    if (b.type == FOURCC('w', 'a', 'v', 'e'))
      wave = box_reader(&r, &b);
  }
  for (struct box b; rd_left(&wave) >= 8 && !box_next(&b, &wave) && b.len;)
    if (b.type == type) {
      *out = b;
      return true;
    }
  return false;
}

// Whole boxes fill the entry; only QuickTime's ending zeros may follow them. What is appended must be found again.
static enum err check_children(struct codec_info *io, struct reader r, unsigned stsd_version) {
  while (rd_left(&r) >= 8) {
    struct box b;
    enum err e = box_next(&b, &r);
    if (e)
      return e;
  }
  io->children_len = (uint32_t)rd_pos(&r);
  if (rd_left(&r) && !(stsd_version == 0 && rd_left(&r) == 4 && load_be32(r.p) == 0))
    return ERR_MALFORMED;
  return ERR_OK;
}

static enum err by_format(struct codec_info *io, uint32_t format, const char *name, struct bytes config) {
  switch (format) {
  case FOURCC('m', 'p', '4', 'a'): return parse_esds(io, config);
  case FOURCC('O', 'p', 'u', 's'): return parse_dops(io, config);
  case FOURCC('f', 'L', 'a', 'C'): return parse_dfla(io, config);
  case FOURCC('a', 'l', 'a', 'c'): return parse_alac(io, config);
  case FOURCC('a', 'c', '-', '3'): return parse_dac3(io, config);
  case FOURCC('e', 'c', '-', '3'): return parse_dec3(io, config);
  case FOURCC('m', 'h', 'a', '1'):
  case FOURCC('m', 'h', 'm', '1'): return parse_mhac(io, config, name);
  case FOURCC('i', 'a', 'm', 'f'): return parse_iacb(io, config);
  default: return ERR_OK;
  }
}

static const struct {
  uint32_t format, config;
  bool required;
} configs[] = {
    {FOURCC('m', 'p', '4', 'a'), FOURCC('e', 's', 'd', 's'), true},
    {FOURCC('O', 'p', 'u', 's'), FOURCC('d', 'O', 'p', 's'), true},
    {FOURCC('f', 'L', 'a', 'C'), FOURCC('d', 'f', 'L', 'a'), true},
    {FOURCC('a', 'l', 'a', 'c'), FOURCC('a', 'l', 'a', 'c'), true},
    {FOURCC('a', 'c', '-', '3'), FOURCC('d', 'a', 'c', '3'), true},
    {FOURCC('e', 'c', '-', '3'), FOURCC('d', 'e', 'c', '3'), true},
    {FOURCC('m', 'h', 'a', '1'), FOURCC('m', 'h', 'a', 'C'), true},
    {FOURCC('m', 'h', 'm', '1'), FOURCC('m', 'h', 'a', 'C'), false},
    {FOURCC('i', 'a', 'm', 'f'), FOURCC('i', 'a', 'c', 'b'), true},
};

enum err codec_parse(struct codec_info *out, struct box_trail *t, const struct box *entry, unsigned stsd_version) {
  struct codec_info c = {0};
  char name[5] = {(char)(entry->type >> 24), (char)(entry->type >> 16), (char)(entry->type >> 8), (char)entry->type};
  for (int i = 0; i < 4; i++) // it goes into manifests
    if (!((name[i] >= '0' && name[i] <= '9') || ((name[i] | 32) >= 'a' && (name[i] | 32) <= 'z') || name[i] == '-'))
      return trail_fail(t, ERR_UNSUPPORTED, entry->pos, "the sample entry's type is not a codec's name");
  if (entry->type == FOURCC('a', 'c', '-', '4'))
    return trail_fail(t, ERR_UNSUPPORTED, entry->pos, "AC-4 is not supported: its protection uses subsamples");
  size_t head;
  enum err e = box_entry_head(&head, entry->body, stsd_version);
  if (e)
    return trail_fail(t, e, entry->pos, "the sample entry's head");
  entry_fields(&c, entry->body, stsd_version);
  snprintf(c.codecs, sizeof c.codecs, "%s", name);
  struct reader children = rd_of(entry->body);
  rd_skip(&children, head);
  e = check_children(&c, children, stsd_version);
  if (e)
    return trail_fail(t, e, entry->pos, "the boxes in the sample entry do not fill it");
  struct box sinf;
  if (find_child(&sinf, children, FOURCC('s', 'i', 'n', 'f')))
    return trail_fail(t, ERR_PROTECTED, entry->pos, NULL);
  for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
    struct box b;
    if (configs[i].format != entry->type)
      continue;
    if (!find_child(&b, children, configs[i].config)) {
      if (configs[i].required)
        return trail_fail(t, ERR_MISSING, entry->pos, "the sample entry has no codec configuration");
      continue;
    }
    trail_in(t, b.type);
    e = by_format(&c, entry->type, name, b.body);
    if (e)
      return trail_fail(t, e, entry->pos + entry->head_len + b.pos, "the codec configuration cannot be read");
    trail_out(t);
  }
  if (!c.channels && entry->type != FOURCC('i', 'a', 'm', 'f'))
    return trail_fail(t, ERR_MALFORMED, entry->pos, "the sample entry has no channels");
  *out = c;
  return ERR_OK;
}

void codec_language(char out[4], uint16_t packed) {
  // ISO 639-2/T (three letters) with its ISO 639-1 form (two); behind them the twenty other codes of ISO 639-2/B, which Matroska
  // has and remuxers copy: RFC 5646 §2.2.1 knows none of them.
  static const char map[] =
      "aaraaabkabafrafakaakamhamaraararganasmasavaavaveaeaymayazeazbakbabambmbelbebenbnbisbibodbobosbsbrebr"
      "bulbgcatcacescschachchecechucuchvcvcorkwcoscocrecrcymcydandadeudedivdvdzodzellelengenepoeoesteteuseu"
      "eweeefaofofasfafijfjfinfifrafrfryfyfulffglagdglegaglgglglvgvgrngngujguhaththauhahbsshhebheherhzhinhi"
      "hmohohrvhrhunhuhyehyiboigidoioiiiiiikuiuileieinaiaindidipkikislisitaitjavjvjpnjakalklkanknkaskskatka"
      "kaukrkazkkkhmkmkikkikinrwkirkykomkvkonkgkorkokuakjkurkulaololatlalavlvlimlilinlnlitltltzlblubluluglg"
      "mahmhmalmlmarmrmkdmkmlgmgmltmtmonmnmrimimsamsmyamynaunanavnvnblnrndendndongnepnenldnlnnonnnobnbnorno"
      "nyanyociocojiojoriorormomossospanpaplipipolplporptpuspsquequrohrmronrorunrnrusrusagsgsansasinsislksk"
      "slvslsmesesmosmsnasnsndsdsomsosotstspaessqisqsrdscsrpsrsswsssunsuswaswswesvtahtytamtatatttteltetgktg"
      "tgltlthathtirtitontotsntntsotstuktkturtrtwitwuigugukrukurduruzbuzvenvevievivolvowlnwawolwoxhoxhyidyi"
      "yoryozhazazhozhzulzu"
      "albsqarmhybaqeuburmychizhczecsdutnlfrefrgeokagerdegreeliceismacmkmaomimaymsperfarumroslosktibbowelcy";
  char code[4] = {(char)((packed >> 10 & 31) + 0x60), (char)((packed >> 5 & 31) + 0x60), (char)((packed & 31) + 0x60)};
  memcpy(out, "und", 4);
  for (int i = 0; i < 3; i++)
    if (packed >> 15 || code[i] < 'a' || code[i] > 'z')
      return;
  memcpy(out, code, 4);
  for (size_t i = 0; i + 5 < sizeof map; i += 5)
    if (!memcmp(map + i, code, 3)) {
      memcpy(out, map + i + 3, 2);
      out[2] = 0;
      return;
    }
}
