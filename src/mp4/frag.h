// One moof: its samples, where their data lies, and the edits that make it relocatable.
#pragma once
#include "mp4/box.h"
#include "mp4/index.h"

// What fragments of a file share.
struct frag_defaults {
  uint32_t track_id, num_entries;
  uint32_t description_index, sample_duration, sample_size, sample_flags; // trex
};

// Where samples go. While measuring (both arrays NULL) they are only counted; while filling they are stored.
struct frag_samples {
  uint16_t *sizes16;
  uint32_t *sizes32;
  uint64_t num, cap;        // samples so far; room in the arrays
  uint64_t num_free;        // samples that cost neither header nor data bytes
  uint32_t max_size;
  uint32_t duration;        // the most frequent one so far (majority vote)
  uint64_t duration_weight;
};

// Data of one trun: `pos` is a source address.
struct frag_span {
  uint64_t pos, len;
  uint32_t first_sample, num_samples;
};

// A data offset to be filled in when the fragment's layout is known: edits[edit] points at `pos`.
struct frag_fix {
  uint32_t edit;
  uint64_t pos;
};

// What one moof says. The lists keep their memory from moof to moof.
struct frag_moof {
  struct list edits;  // struct ix_edit, positions from the moof's first byte
  struct list spans;  // struct frag_span with data, in the order of their samples
  struct list fixes;  // struct frag_fix
  struct list trafs;  // struct ix_traf
  uint64_t num_samples, duration_ticks, time_ticks;
  uint64_t data_end; // of all spans; the moof's end when there are none
  int64_t delta;                 // bytes that normalisation adds to the moof
  uint64_t end_ticks;            // decode time behind the last traf, never before that of the samples
  bool not_sync;                 // the first sample is not a sync sample
  bool has_time;                 // time_ticks is known: that of the first traf with samples
};

struct frag_place {
  uint64_t pos;        // source address of the moof
  uint64_t file_start; // what absolute offsets count from: 0, or the start of the folder's part
  uint64_t source_len; // samples cannot lie behind this
  uint64_t next_time;  // decode time when there is no tfdt: the end of the fragment before
};

// frag_parse reads a whole moof box (head included) into `out` and appends its samples.
// A missing tfdt is inserted, absolute and implied base offsets become default-base-is-moof.
// Errors: ERR_TRUNCATED, ERR_MALFORMED, ERR_MISSING, ERR_UNSUPPORTED, ERR_PROTECTED, ERR_OVERFLOW, ERR_LIMIT,
// ERR_NO_MEMORY, ERR_STALE (more samples than were measured).
MUST_USE enum err frag_parse(struct frag_moof *out, struct frag_samples *samples, struct alloc *mem,
                             const struct frag_defaults *defaults, struct bytes moof, struct frag_place place,
                             struct diag *diag);
