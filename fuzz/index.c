// A whole file: what ix_build accepts, ix_open accepts, rewriting keeps every sample, and memory is bounded by the file.
// The last byte of the input cuts the file in a folder's parts when it is odd.
#include <stdlib.h>
#include <stdio.h>

#include "mp4/limits.h"
#include "rewrite.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The parts of a folder: after moov, and before each styp or moof that follows an mdat.
static uint32_t cut(struct bytes file, uint64_t ends[16]) {
  uint32_t num = 0;
  for (size_t at = 0; file.n - at >= 8 && num < 15;) {
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct bytes file = bytes_of(data, size ? size - 1 : 0), blob;
  uint64_t ends[16];
  bool folder = size && data[size - 1] & 1;
  struct mp4_source src = memory_source(&file, ends, folder ? cut(file, ends) : 1);
  struct alloc_heap heap;
  struct track_index ix;
  struct diag diag = {0};
  // A sample costs at most 12 bytes of index and at least one of data, or it is one of a few free ones.
  size_t limit = size * 128 + LIMIT_FREE_SAMPLES * 16 + (1 << 16);
  alloc_heap_init(&heap, limit);
  enum err e = ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &diag);
  if (e ? diag.err != e || e == ERR_NO_MEMORY : diag.err != ERR_OK)
    abort();
  if (!e) {
    if (ix_open(&ix, blob, &diag))
      abort();
    const char *bad = rewrite_check(&ix, file);
    if (bad) {
      fprintf(stderr, "%s\n", bad);
      abort();
    }
  }
  alloc_heap_free(&heap);
  return 0;
}
