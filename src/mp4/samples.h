// The samples of any moof, of any track, encrypted or not: for inspection. Nothing is checked beyond the moof itself.
#pragma once
#include "mp4/box.h"

enum { MAX_TREX = 32 };

struct trex_defaults {
  uint32_t track_id, duration, size;
};

struct sample_info {
  uint32_t track_id, size, duration;
  uint64_t offset; // source address of its data
  uint64_t time;   // decode time in the track's timescale
};

struct samples_visitor {
  void *ctx;
  void (*sample)(void *ctx, const struct sample_info *s);
};

// samples_trex collects the trex boxes of a whole moov box (head included); returns how many, at most MAX_TREX.
uint32_t samples_trex(struct trex_defaults out[MAX_TREX], struct bytes moov);

// samples_of_moof visits the samples of a whole moof box that stands at `pos`, in a file (or part) that starts at
// `file_start`: absolute offsets count from there.
// Errors: ERR_TRUNCATED, ERR_MALFORMED. Source: ISO/IEC 14496-12 8.8.7, 8.8.8, 8.8.12.
MUST_USE enum err samples_of_moof(const struct samples_visitor *v, struct bytes moof, uint64_t pos, uint64_t file_start,
                                  const struct trex_defaults *trex, uint32_t num_trex, struct diag *diag);
