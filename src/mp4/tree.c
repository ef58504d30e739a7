#include "mp4/tree.h"

struct level {
  struct box box;
  uint64_t start, end;   // of its children
  unsigned stsd_version; // of an stsd
};

struct walker {
  struct window *w;
  const struct tree_visitor *v;
  struct box_trail t;
  struct level stack[LIMIT_DEPTH];
  uint32_t depth;
  uint32_t part; // of a folder
};

static enum err read_head(struct walker *k, struct box *b, uint64_t pos, uint64_t end) {
  const uint8_t *p;
  uint64_t left = end - pos;
  size_t n = left < 16 ? (size_t)left : 16;
  *b = (struct box){.pos = pos};
  enum err e = window_get(k->w, &p, pos, n);
  if (e)
    return trail_fail(&k->t, e, pos, NULL);
  e = box_head(b, bytes_of(p, n), left, k->depth == 0);
  if (pos == 0 && box_is_foreign(e, bytes_of(p, n)))
    return trail_fail(&k->t, ERR_UNSUPPORTED, 0, "this is not an MP4 file");
  return e ? trail_fail(&k->t, e, pos, "%s", box_fault(e, k->depth == 0)) : ERR_OK;
}

// The end of the file that a top-level box at `pos` stands in.
static uint64_t part_end(struct walker *k, uint64_t pos) {
  const struct mp4_source *src = k->w->src;
  if (src->num_parts <= 1)
    return src->size;
  while (k->part + 1 < src->num_parts && src->part_ends[k->part] <= pos)
    k->part++;
  return src->part_ends[k->part];
}

// Where the children of `b` start; 0 when it has none.
static enum err children_start(struct walker *k, const struct box *b, uint64_t *start) {
  const struct box_info *info = box_info_of(b->type);
  const struct level *up = k->depth ? &k->stack[k->depth - 1] : NULL;
  bool in_stsd = up && up->box.type == FOURCC('s', 't', 's', 'd');
  uint64_t payload = b->pos + b->head_len, len = b->len - b->head_len, skip = info ? info->skip : 0;
  *start = 0;
  if (!info || k->depth == LIMIT_DEPTH || (info->kind != BOX_PARENT && !(info->kind == BOX_AUDIO && in_stsd)))
    return ERR_OK;
  if (info->kind == BOX_AUDIO) {
    const uint8_t *p;
    size_t n = len < 28 + 36 ? (size_t)len : 28 + 36, head;
    enum err e = window_get(k->w, &p, payload, n);
    if (e)
      return e;
    if (box_entry_head(&head, bytes_of(p, n), up->stsd_version))
      return ERR_OK; // shown as a leaf
    skip = head;
  }
  if (skip <= len)
    *start = payload + skip;
  return ERR_OK;
}

static enum err enter(struct walker *k, const struct box *b) {
  uint64_t start;
  uint32_t parent = k->depth ? k->stack[k->depth - 1].box.type : 0;
  enum err e = k->v->enter(k->v->ctx, b, k->depth, parent);
  e = e ? e : children_start(k, b, &start);
  if (e)
    return e;
  if (!start) {
    k->v->leave(k->v->ctx, b, k->depth);
    return ERR_OK;
  }
  struct level *l = &k->stack[k->depth++];
  *l = (struct level){.box = *b, .start = start, .end = b->pos + b->len};
  trail_in(&k->t, b->type);
  if (b->type == FOURCC('s', 't', 's', 'd')) {
    const uint8_t *p;
    e = window_get(k->w, &p, b->pos + b->head_len, 1);
    l->stsd_version = e ? 0 : p[0];
  }
  return e;
}

enum err tree_walk(struct window *w, const struct tree_visitor *v, struct diag *diag) {
  struct walker k = {.w = w, .v = v, .t = {.diag = diag}};
  uint64_t pos = 0; // of the next box
  for (;;) {
    uint64_t end = k.depth ? k.stack[k.depth - 1].end : part_end(&k, pos);
    uint64_t slack = k.depth ? 8 : 1;
    if (end - pos < slack) {
      if (!k.depth)
        return ERR_OK;
      struct level *l = &k.stack[--k.depth];
      trail_out(&k.t);
      v->leave(v->ctx, &l->box, k.depth);
      pos = l->end;
      continue;
    }
    struct box b;
    enum err e = read_head(&k, &b, pos, end);
    uint32_t depth = k.depth;
    e = e ? e : enter(&k, &b);
    if (e)
      return e;
    pos = k.depth > depth ? k.stack[depth].start : b.pos + b.len;
  }
}
