// Any bytes: the walk over all boxes stays inside of its parents, descriptions inside of their payloads.
#include <stdlib.h>

#include "mp4/describe.h"
#include "mp4/samples.h"
#include "mp4/tree.h"
#include "fuzz.h"
#include "rewrite.h"

struct state {
  struct bytes file;
  struct samples_file samples;
  uint64_t ends[LIMIT_DEPTH + 2]; // of the open boxes, by depth
  uint64_t last, sum;
  uint32_t depth, num;
  int lists;
};

static void on_field(void *ctx, const struct field *f) {
  struct state *s = ctx;
  s->sum += f->u + f->raw.n + (f->raw.n ? f->raw.p[f->raw.n - 1] : 0);
  s->lists += (f->kind == FIELD_LIST || f->kind == FIELD_ITEM) - (f->kind == FIELD_LIST_END || f->kind == FIELD_ITEM_END);
  if (s->lists < 0 || s->lists > 4)
    abort();
}

static void on_sample(void *ctx, const struct sample_info *s) { ((struct state *)ctx)->sum += s->offset + s->size; }

static enum err on_enter(void *ctx, const struct box *b, uint32_t depth, uint32_t parent) {
  struct state *s = ctx;
  struct describe d = {s, on_field, (uint8_t)(b->len & 16)};
  (void)parent;
  if (depth > LIMIT_DEPTH || b->pos < s->last || b->len > s->file.n - b->pos || b->len < b->head_len)
    abort();
  if (depth && b->pos + b->len > s->ends[depth - 1])
    abort();
  s->ends[depth] = b->pos + b->len;
  s->last = b->pos;
  struct bytes body = bytes_of(s->file.p + b->pos + b->head_len, (size_t)(b->len - b->head_len));
  s->lists = 0;
  (void)describe_box(&d, b->type, body);
  if (s->lists)
    abort();
  if (b->type == FOURCC('m', 'o', 'o', 'f')) {
    struct samples_visitor v = {s, on_sample};
    struct diag diag = {0};
    samples_tracks(&s->samples, bytes_of(s->file.p + b->pos, (size_t)b->len));
    enum err e = samples_of_moof(&v, &s->samples, bytes_of(s->file.p + b->pos, (size_t)b->len), b->pos, 0, &diag);
    if (e ? diag.err != e : diag.err != ERR_OK)
      abort();
  }
  return ++s->num > 100000 ? ERR_LIMIT : ERR_OK;
}

static void on_leave(void *ctx, const struct box *b, uint32_t depth) {
  struct state *s = ctx;
  if (s->ends[depth] != b->pos + b->len)
    abort(); // boxes close in the order in which they opened
}

const struct fuzz_boxes fuzz_boxes = {0, 0};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct state s = {.file = bytes_of(data, size), .samples.source_len = size};
  struct mp4_source src = memory_source(&s.file, NULL, 0);
  struct alloc_heap heap;
  struct tree_visitor v = {&s, on_enter, on_leave};
  struct diag diag = {0};
  alloc_heap_init(&heap, size * 4 + (1 << 14));
  struct window w = {.src = &src, .mem = &heap.base};
  enum err e = tree_walk(&w, &v, &diag);
  if (e == ERR_NO_MEMORY || (e && e != ERR_LIMIT && diag.err != e))
    abort();
  alloc_heap_free(&heap);
  return 0;
}
