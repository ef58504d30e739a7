// The init segment: moov of a fragmented audio file.
#pragma once
#include "mp4/codec.h"
#include "mp4/index.h"

struct init_info {
  struct codec_info codec;
  uint32_t track_id, timescale, format, num_sinf;
  char language[16];
  int64_t edit_media_time;
  uint64_t delay, elst_pos; // init_delay; where elst stands in the source
  // trex: what a traf's header does not say. ISO/IEC 14496-12 8.8.3.
  uint32_t description_index, sample_duration, sample_size, sample_flags;
};

// init_parse reads a whole moov box (head included) that stands at `pos` of the source and appends the edits that
// protection needs to `edits` (struct ix_edit, ascending, positions as `pos`).
// Errors: ERR_PROGRESSIVE, ERR_PROTECTED, ERR_NOT_AUDIO, ERR_UNSUPPORTED (several tracks, AC-4 …), ERR_MISSING,
// ERR_MALFORMED, ERR_TRUNCATED, ERR_OVERFLOW, ERR_LIMIT, ERR_NO_MEMORY.
MUST_USE enum err init_parse(struct init_info *out, struct list *edits, struct alloc *mem, struct bytes moov,
                             uint64_t pos, struct diag *diag);

// init_layout gives codec_info.layout of the first sample entry in an init segment that init_parse has accepted once; 0 as well
// where something is not as it was then.
uint32_t init_layout(struct bytes init);

// init_delay gives for how long the edit list presents nothing before it presents media, in ticks of `timescale`; as many as there
// are where it is more.
uint64_t init_delay(struct bytes init, uint32_t timescale);
