// A blob from anywhere: the checksum is repaired, so that the checks behind it are reached. What ix_open accepts, an
// edit script and all samples can be walked without leaving the blob, and what a plan makes of it, in every scheme, is as long
// as the plan says, whole and in halves.
#include <stdlib.h>

#include "cenc/plan.h"
#include "fuzz.h"
#include "rewrite.h"

static uint64_t walk(const struct track_index *ix) {
  uint64_t sum = ix->h->num_samples;
  for (uint32_t i = 0; i < ix->h->num_frags; i++) {
    const struct ix_frag *f = &ix->frags[i];
    for (uint32_t k = f->first_edit; k < f[1].first_edit; k++)
      sum += ix->edits[k].pos;
    for (uint32_t k = f->first_run; k < f[1].first_run; k++)
      for (uint32_t n = 0; n < ix->runs[k].num_samples; n++) {
        const struct aes_lane *l = &ix->lanes[f->first_sample + ix->runs[k].first_sample + n];
        if (l->off > ix->runs[k].len || l->len > ix->runs[k].len - l->off)
          abort();
        sum += l->off;
      }
  }
  return sum;
}

static void check_plan(const struct track_index *ix, struct bytes src, enum scheme scheme) {
  const char *why;
  const struct aes_ops *ops = aes_ops_best(NULL, &why);
  struct ix_segments segs = {.num = ix_segment_count(ix, ix->h->timescale)};
  uint32_t *first_frag = malloc(((size_t)segs.num + 1) * 4);
  struct protection prot = {.scheme = scheme, .kid = {1, 2, 3}, .iv = {0xff, 0xff}};
  struct plan p;
  MUST(first_frag && segs.num);
  ix_segment_fill(ix, ix->h->timescale, first_frag);
  segs.first_frag = first_frag;
  ops->key_init(&prot.key, (const uint8_t *)"sixteen byte key");
  if (!plan_init(&p, ix, &segs, &prot, NULL) && p.total_len < 1 << 20) {
    uint64_t half = p.total_len / 2;
    uint8_t *whole = malloc(p.total_len), *first = malloc(half ? half : 1), *rest = malloc(p.total_len - half);
    MUST(whole && first && rest);
    plan_render(&p, ops, (struct plan_range){0, p.total_len}, src, 0, whole);
    plan_render(&p, ops, (struct plan_range){0, half}, src, 0, first);
    plan_render(&p, ops, (struct plan_range){half, p.total_len - half}, src, 0, rest);
    MUST(!memcmp(whole, first, half) && !memcmp(whole + half, rest, p.total_len - half));
    free(whole), free(first), free(rest);
  }
  free(first_frag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *blob = NULL;
  if (posix_memalign((void **)&blob, 64, size ? size : 1))
    abort();
  memcpy(blob, data, size);
  if (size >= sizeof(struct ix_header)) {
    struct ix_header *h = (struct ix_header *)(void *)blob;
    memcpy(h->magic, "sluice\0\1", 8);
    h->version = IX_VERSION;
    h->blob_len = size;
    h->checksum = ix_checksum(bytes_of(blob, size));
  }
  struct track_index ix;
  struct diag diag = {0};
  enum err e = ix_open(&ix, bytes_of(blob, size), &diag);
  if (!e) {
    (void)walk(&ix);
    struct bytes src = bytes_of(calloc(1, ix.h->identity.size < 1 << 20 ? ix.h->identity.size + 1 : 1), 0);
    if (ix.h->identity.size < 1 << 20) { // the source is not looked at: zeros do
      src.n = ix.h->identity.size;
      struct bytes out = rewrite(&ix, src, NULL);
      free((void *)(uintptr_t)out.p);
      for (int scheme = 0; scheme < SCHEME_COUNT; scheme++)
        check_plan(&ix, src, (enum scheme)scheme);
    }
    free((void *)(uintptr_t)src.p);
  }
  free(blob);
  return 0;
}
