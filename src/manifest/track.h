// Inside of manifest/: what HLS and DASH both need to know of tracks.
#pragma once
#include "manifest/manifest.h"

// How long a segment lasts, in ticks: up to the next one's decode time, or to the end of its samples where a gap follows;
// the sum of its fragments' durations where decode times do not ascend, and for the last.
uint64_t man_seg_ticks(const struct man_track *t, uint32_t seg);

// man_gap_ticks gives the time between a segment's last sample and the next segment: 0 when less than a sample lasts, which
// is how decode times are rounded and belongs to the segment.
uint64_t man_gap_ticks(const struct man_track *t, uint32_t seg);

// Bits per second of the protected media segments, init and index not counted. Source: RFC 8216bis §4.1.
struct man_rate {
  uint64_t peak, average; // average never above peak
};
struct man_rate man_rate(const struct man_track *t);

// man_longest_us gives the longest segment in microseconds, rounded up; man_target_s the target duration, in seconds and at least 1.
uint64_t man_longest_us(const struct man_track *t);
uint64_t man_target_s(const struct man_track *t);

// man_starts_sync says whether every segment starts with a sync sample, so that players may begin with any (SAP type 1).
bool man_starts_sync(const struct man_track *t);

// man_us gives the time of `ticks` in microseconds, rounded down; sums of differences never drift.
uint64_t man_us(uint64_t ticks, uint32_t timescale);

// man_write_seconds appends microseconds as "S.UUUUUU".
void man_write_seconds(struct writer *w, uint64_t us);

// man_default_language gives a track in the language that who has not chosen one begins with; MAN_NO_TRACK where at most one is named.
enum { MAN_NO_TRACK = 0xff };
uint8_t man_default_language(const struct man_asset *a);
bool man_same_language(const struct man_track *a, const struct man_track *b);

// The order of tracks in documents: switching sets in a fixed order (AAC first, lossless last; of a codec the default language
// first), within one by bit rate.
struct man_order {
  const struct man_track *speaker; // of the default language; NULL where at most one is named
  uint8_t at[MAN_MAX_TRACKS];  // track numbers
  uint8_t set[MAN_MAX_TRACKS]; // at[i] belongs to set number set[i], from 0, ascending
  uint32_t num;
};
void man_order(struct man_order *o, const struct man_asset *a);

// Audio groups of a multivariant playlist: one for each codec, channel layout and rung of rates, with a rendition in each
// language. An asset whose tracks name at most one language has one group for each track, in the order of `o`.
struct man_groups {
  uint32_t num, num_langs;
  uint8_t speaker; // one language: a track that names it, for those that name none; else MAN_NO_TRACK
  uint8_t lead[MAN_MAX_TRACKS];                   // the track a group is named after: no two groups have the same
  uint8_t member[MAN_MAX_TRACKS][MAN_MAX_TRACKS]; // [group][language]: track number, or MAN_NO_TRACK
};
void man_groups(struct man_groups *g, const struct man_asset *a, const struct man_order *o);

bool man_same_kind(const struct man_track *a, const struct man_track *b); // the same codec and channel layout
bool man_has_language(const struct ix_header *h); // one that is known: not "und"

// man_uri_epoch appends "<epoch>/<track>", percent-encoded: what the multivariant playlist and the MPD put before
// the file's name.
void man_uri_track(struct writer *w, const struct man_asset *a, const struct man_track *t);

// man_layout is the ChannelConfiguration (ISO/IEC 23091-3) of a track: what its file says, else the usual one for that many
// channels; 0 where there is none, or the file says that it is none.
uint32_t man_layout(const struct track_index *ix);

struct bytes man_text(const char *s, size_t cap); // up to the terminator
