// What a sample entry says about its codec, for manifests. Nothing here changes how samples are protected.
#pragma once
#include "mp4/box.h"

enum { CODEC_LAYOUT_NONE = 255 }; // a layout that ISO/IEC 23091-3 has no number for, or a sound field: not to be guessed

struct codec_info {
  uint32_t sample_rate, channels; // as a decoder outputs them; the rate is 0 where neither entry nor config says, channels for IAMF
  uint32_t layout;                // ChannelConfiguration of ISO/IEC 23091-3, 0 where the file does not say; AC-3 family: 0
  uint32_t channel_mask;          // AC-3 family: ETSI TS 102 366 E.1.3.1.8 order, bit 15 = left
  uint32_t joc_complexity;        // E-AC-3 with joint object coding, else 0
  uint32_t bit_depth;             // lossless codecs, else 0
  uint32_t children_len;          // bytes of the entry's payload up to the end of its last child: where a sinf goes
  char codecs[64];                // RFC 6381, NUL-terminated
};

// codec_parse reads the sample entry `entry` (children included) of an stsd of `stsd_version`.
// Formats without a parser of their own are named by their four characters and described by the entry's own fields.
// Errors: ERR_TRUNCATED, ERR_MALFORMED, ERR_MISSING (a format's configuration), ERR_UNSUPPORTED.
MUST_USE enum err codec_parse(struct codec_info *out, struct box_trail *t, const struct box *entry,
                              unsigned stsd_version);

// codec_aac fills codecs, rate, channels and layout from an AudioSpecificConfig, with explicit SBR and PS in both forms.
// `channels` and `sample_rate` of `io` hold what the sample entry says and stay where the config does not tell.
// Errors: ERR_TRUNCATED, ERR_MALFORMED. Source: ISO/IEC 14496-3 1.6.2.1, 1.6.5, 4.4.1.
MUST_USE enum err codec_aac(struct codec_info *io, struct bytes config);

// codec_language writes the RFC 5646 form of mdhd's packed ISO 639-2 code (/T as it ought to be, or /B): two letters where ISO 639-1 has them,
// "und" for what is no code. Source: ISO/IEC 14496-12 8.4.2.
void codec_language(char out[4], uint16_t packed);
