// From moofs and the boxes around them to the fragments of the index.
#pragma once
#include "mp4/frag.h"

// A box between the end of moov and the end of the source.
struct top {
  uint64_t pos, len;
  uint64_t dropped; // bytes of dropped boxes before it, since the source's start
  uint32_t type, head_len;
  bool to_end; // of its file, without a size
};

// top_is_dropped: indexes whose offsets would be wrong in the output.
bool top_is_dropped(uint32_t type);

// Where the parts of the index go: counted first, then stored. `cap` is what was counted.
struct totals {
  uint32_t frags, edits, runs, trafs;
};

struct layout {
  struct alloc *mem;
  struct diag *diag;
  bool filling;
  struct totals num, cap;
  struct ix_frag *frags;
  struct ix_edit *edits;
  struct ix_run *runs;
  struct ix_traf *trafs;
  struct aes_lane *lanes;
  struct frag_samples samples;
  uint64_t out_off;
  uint64_t last_time; // of the fragment before
};

// One fragment before it is laid out: [start, end) of the source, its boxes, its moof.
struct layout_frag {
  uint64_t start, end, moof_pos;
  const struct top *tops;
  uint32_t num_tops;
  uint32_t flags; // IX_FRAG_*
};

// layout_add checks that the samples of `moof` lie in this fragment's mdat boxes and nowhere twice, resolves its
// data offsets and adds the fragment.
// Errors: ERR_MALFORMED, ERR_UNSUPPORTED, ERR_LIMIT, ERR_STALE, ERR_OVERFLOW.
MUST_USE enum err layout_add(struct layout *l, struct frag_moof *moof, const struct layout_frag *f);
