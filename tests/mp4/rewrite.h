// Running the edit scripts of an index by the book, with stand-ins for the boxes of protection, and looking whether
// the result says the same: the property that every accepted input must have. Used by unit tests and fuzz targets.
#pragma once
#include "mp4/index.h"

// memory_source makes a source over n bytes, in parts where `part_ends` is not NULL. `*b` must outlive it.
struct mp4_source memory_source(struct bytes *b, const uint64_t *part_ends, uint32_t num_parts);

// folder_parts cuts a file where a folder's parts would end, for memory_source: after moov and after each mdat. At most
// FOLDER_PARTS of them; returns how many.
enum { FOLDER_PARTS = 16 };
static inline uint32_t folder_parts(uint64_t ends[FOLDER_PARTS], struct bytes file) {
  uint32_t num = 0;
  for (size_t at = 0; file.n - at >= 8 && num < FOLDER_PARTS - 1;) {
    uint32_t len = load_be32(file.p + at), type = load_be32(file.p + at + 4);
    if (len < 8 || len > file.n - at)
      break;
    at += len;
    if (type == FOURCC('m', 'o', 'o', 'v') || type == FOURCC('m', 'd', 'a', 't'))
      ends[num++] = at;
  }
  if (!num || ends[num - 1] != file.n)
    ends[num++] = file.n;
  return num;
}

// rewrite emits init' and all fragments' with `free` boxes of the right lengths in place of saiz/saio/senc, sinf and
// pssh; entries keep their types. The bytes are malloc'ed; `part_ends` (num_parts of them, or NULL) get the output's.
struct bytes rewrite(const struct track_index *ix, struct bytes src, uint64_t *part_ends);

// rewrite_check rewrites, parses the output and compares every sample's bytes, sizes and times. Returns NULL, or what
// is wrong.
const char *rewrite_check(const struct track_index *ix, struct bytes src);

// sample_spans gives every sample's source position (UINT64_MAX for empty ones), malloc'ed.
uint64_t *sample_positions(const struct track_index *ix);
