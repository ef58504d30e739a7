// A moof box, from bytes, behind a fixed place in a source: the first 8 bytes of the input choose track, defaults and
// base. What comes out must be ordered and inside of the source.
#include <stdlib.h>

#include "mp4/frag.h"
#include "fuzz.h"

static void check(const struct frag_moof *m, const struct frag_samples *s, size_t moof_len, uint64_t source_len) {
  const struct ix_edit *edit = m->edits.p;
  const struct frag_span *span = m->spans.p;
  uint64_t end = 0, in_trafs = 0;
  for (uint32_t i = 0; i < m->edits.num; i++) {
    if (edit[i].pos < end || edit[i].pos + edit[i].del > moof_len)
      abort();
    end = edit[i].pos + edit[i].del;
  }
  for (uint32_t i = 0; i < m->spans.num; i++)
    if (!span[i].len || span[i].pos > source_len || span[i].len > source_len - span[i].pos)
      abort();
  for (uint32_t i = 0; i < m->trafs.num; i++)
    in_trafs += ((const struct ix_traf *)m->trafs.p)[i].num_samples;
  if (in_trafs != m->num_samples || s->num != m->num_samples)
    abort();
}

const struct fuzz_boxes fuzz_boxes = {8, 0};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 8)
    return 0;
  struct frag_defaults defaults = {.track_id = 1, .num_entries = 1u + data[0] % 2, .description_index = 1,
                                   .sample_duration = load_be16(data + 1),
                                   .sample_size = data[3],
                                   .sample_flags = (uint32_t)data[0] << 15};
  struct bytes moof = bytes_of(data + 8, size - 8);
  struct frag_place place = {.pos = data[4] * 16u, .file_start = data[5], .next_time = load_be16(data + 6)};
  struct alloc_heap heap;
  struct frag_moof m = {0};
  struct frag_samples measured = {0};
  struct diag diag = {0};
  place.source_len = place.pos + moof.n + (1 << 20);
  alloc_heap_init(&heap, size * 64 + (1 << 16));
  enum err e = frag_parse(&m, &measured, &heap.base, &defaults, moof, place, &diag);
  if (e ? diag.err != e : diag.err != ERR_OK)
    abort();
  if (!e)
    check(&m, &measured, moof.n, place.source_len);
  if (!e && measured.num < 1 << 16) { // the filling pass agrees with the measuring one
    struct frag_samples filled = {.cap = measured.num, .sizes32 = calloc(measured.num + 1, sizeof(uint32_t))};
    uint64_t sum = 0, want = 0;
    if (!filled.sizes32 || frag_parse(&m, &filled, &heap.base, &defaults, moof, place, &diag))
      abort();
    for (uint64_t i = 0; i < filled.num; i++)
      sum += filled.sizes32[i];
    for (uint32_t i = 0; i < m.spans.num; i++)
      want += ((const struct frag_span *)m.spans.p)[i].len;
    if (sum != want || filled.num != measured.num || filled.max_size != measured.max_size)
      abort();
    free(filled.sizes32);
  }
  alloc_heap_free(&heap);
  return 0;
}
