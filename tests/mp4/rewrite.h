// Running the edit scripts of an index by the book, with stand-ins for the boxes of protection, and looking whether
// the result says the same: the property that every accepted input must have. Used by unit tests and fuzz targets.
#pragma once
#include "mp4/index.h"

// memory_source makes a source over n bytes, in parts where `part_ends` is not NULL. `*b` must outlive it.
struct mp4_source memory_source(struct bytes *b, const uint64_t *part_ends, uint32_t num_parts);

// rewrite emits init' and all fragments' with `free` boxes of the right lengths in place of saiz/saio/senc, sinf and
// pssh; entries keep their types. The bytes are malloc'ed; `part_ends` (num_parts of them, or NULL) get the output's.
struct bytes rewrite(const struct track_index *ix, struct bytes src, uint64_t *part_ends);

// rewrite_check rewrites, parses the output and compares every sample's bytes, sizes and times. Returns NULL, or what
// is wrong.
const char *rewrite_check(const struct track_index *ix, struct bytes src);

// sample_spans gives every sample's source position (UINT64_MAX for empty ones), malloc'ed.
uint64_t *sample_positions(const struct track_index *ix);
