// The samples of any moof, of any track, encrypted or not: for inspection. Nothing is checked beyond the moof itself.
#pragma once
#include "mp4/box.h"

enum { MAX_TRACKS = 32 };

// A track of moov, its defaults, and the decode time behind its newest sample.
struct samples_track {
  uint32_t track_id, duration, size;
  uint64_t end_ticks;
  bool has_trex;
};

// What the moofs of one file share and leave to each other. Zeroed but for source_len before the first box.
struct samples_file {
  uint64_t source_len;
  struct samples_track tracks[MAX_TRACKS + 1]; // behind num_tracks: stands for any that moov does not have
  uint32_t num_tracks;
  uint64_t num_free, default_len; // samples, and bytes of samples, that cost no bytes in a trun
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

// samples_tracks takes the tracks of a whole moov box (head included), at most MAX_TRACKS of them, and their trex boxes. A trex that
// names no track is passed over, as players do.
void samples_tracks(struct samples_file *f, struct bytes moov);

// samples_of_moof visits the samples of a whole moof box that stands at `pos`, in a file (or part) that starts at
// `file_start`: absolute offsets count from there. Over all moofs, the samples that truns only count are no more than the
// source has bytes, and LIMIT_FREE_SAMPLES without any.
// Errors: ERR_TRUNCATED, ERR_MALFORMED, ERR_LIMIT, ERR_MISSING (a track of moov without trex). Source: ISO/IEC 14496-12 8.8.7, 8.8.8, 8.8.12.
MUST_USE enum err samples_of_moof(const struct samples_visitor *v, struct samples_file *f, struct bytes moof, uint64_t pos,
                                  uint64_t file_start, struct diag *diag);
