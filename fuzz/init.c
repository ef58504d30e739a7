// A moov box, from bytes: init_parse, and what its edits promise.
#include <stdlib.h>

#include "mp4/init.h"
#include "fuzz.h"

const struct fuzz_boxes fuzz_boxes = {0, 0};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct alloc_heap heap;
  struct init_info info;
  struct list edits = {0};
  struct diag diag = {0};
  alloc_heap_init(&heap, size * 16 + 4096);
  enum err e = init_parse(&info, &edits, &heap.base, bytes_of(data, size), 24, &diag);
  if (e ? diag.err != e : diag.err != ERR_OK)
    abort(); // an error tells what and where, a success does not
  const struct ix_edit *edit = edits.p;
  uint64_t end = 24;
  for (uint32_t i = 0; !e && i < edits.num; i++) {
    if (edit[i].pos < end || edit[i].pos + edit[i].del > 24 + size)
      abort();
    end = edit[i].pos + edit[i].del;
  }
  if (!e && init_delay(bytes_of(data, size), info.timescale) != info.delay)
    abort();
  if (!e && (!info.timescale || !info.num_sinf || !memchr(info.codec.codecs, 0, sizeof info.codec.codecs)))
    abort();
  alloc_heap_free(&heap);
  return 0;
}
