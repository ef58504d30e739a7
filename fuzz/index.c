// A whole file: what ix_build accepts, ix_open accepts, rewriting keeps every sample, and memory is bounded by the file.
// The last byte of the input cuts the file in a folder's parts when it is odd.
#include "mp4/limits.h"
#include "fuzz.h"
#include "rewrite.h"

const struct fuzz_boxes fuzz_boxes = {0, 1};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct bytes file = bytes_of(data, size ? size - 1 : 0), blob;
  uint64_t ends[FOLDER_PARTS];
  bool folder = size && data[size - 1] & 1;
  struct mp4_source src = memory_source(&file, ends, folder ? folder_parts(ends, file) : 1);
  struct alloc_heap heap;
  struct track_index ix;
  struct diag diag = {0};
  // A sample costs at most 12 bytes of index and at least one of data, or it is one of a few free ones.
  size_t limit = size * 128 + LIMIT_FREE_SAMPLES * 16 + (1 << 16);
  alloc_heap_init(&heap, limit);
  enum err e = ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &diag);
  MUST(e ? diag.err == e && e != ERR_NO_MEMORY : diag.err == ERR_OK);
  if (!e) {
    MUST(!ix_open(&ix, blob, &diag));
    const char *bad = rewrite_check(&ix, file);
    require(!bad, bad);
  }
  alloc_heap_free(&heap);
  return 0;
}
