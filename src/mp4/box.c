#include "mp4/box.h"

#include <stdarg.h>
#include <stdio.h>

#define TYPE(s) FOURCC((s)[0], (s)[1], (s)[2], (s)[3])

static const struct box_info infos[] = {
#define X(name, kind, skip, clause, text) {TYPE(name), kind, skip, clause, text},
    BOX_TABLE(X)
#undef X
};

const struct box_info *box_info_of(uint32_t type) {
  for (size_t i = 0; i < sizeof infos / sizeof *infos; i++)
    if (infos[i].type == type)
      return &infos[i];
  return NULL;
}

enum err box_head(struct box *out, struct bytes head, uint64_t left, bool top) {
  if (left < 8 || head.n < 8)
    return ERR_TRUNCATED;
  struct box b = {.type = load_be32(head.p + 4), .head_len = 8, .len = load_be32(head.p), .pos = out->pos};
  if (b.len == 1) {
    if (left < 16 || head.n < 16)
      return ERR_TRUNCATED;
    b.len = load_be64(head.p + 8);
    b.head_len = 16;
  } else if (b.len == 0) {
    if (!top)
      return ERR_MALFORMED;
    b.len = left;
    b.to_end = true;
  }
  if (b.len < b.head_len)
    return ERR_MALFORMED;
  if (b.len > left)
    return ERR_TRUNCATED;
  *out = b;
  return ERR_OK;
}

const char *box_fault(enum err e, bool top) {
  if (e == ERR_TRUNCATED)
    return top ? "the file ends inside of a box" : "a box is longer than the box around it";
  return "not a box";
}

bool box_is_foreign(enum err e, struct bytes head) {
  if (head.n < 8)
    return true;
  return (e || !load_be32(head.p)) && !box_info_of(load_be32(head.p + 4));
}

enum err box_next(struct box *out, struct reader *r) {
  size_t left = rd_left(r);
  struct box b = {.pos = rd_pos(r)};
  if (left) {
    enum err e = box_head(&b, bytes_of(r->p, left < 16 ? left : 16), left, false);
    if (e)
      return e;
    const uint8_t *p = rd_take(r, (size_t)b.len);
    b.body = bytes_of(p + b.head_len, (size_t)(b.len - b.head_len));
  }
  *out = b;
  return ERR_OK;
}

enum err box_entry_head(size_t *out, struct bytes body, unsigned stsd_version) {
  struct reader r = rd_of(body);
  rd_skip(&r, 8); // reserved, data reference index
  unsigned version = rd_u16(&r);
  rd_skip(&r, 18);
  if (r.err)
    return r.err;
  size_t n = 28;
  if (stsd_version == 0 && version == 1)
    n += 16;
  else if (stsd_version == 0 && version == 2)
    n += 36;
  else if (version > 1 || stsd_version > 1)
    return ERR_UNSUPPORTED;
  if (n > body.n)
    return ERR_TRUNCATED;
  *out = n;
  return ERR_OK;
}

bool box_is_piff_senc(const struct box *b) {
  static const uint8_t type[16] = {0xa2, 0x39, 0x4f, 0x52, 0x5a, 0x9b, 0x4f, 0x14,
                                   0xa2, 0x44, 0x6c, 0x42, 0x7c, 0x64, 0x8d, 0xf4};
  return b->type == FOURCC('u', 'u', 'i', 'd') && b->body.n >= 16 && memcmp(b->body.p, type, 16) == 0;
}

bool box_is_cenc_aux(struct bytes body) {
  if (body.n < 8 || !(body.p[3] & 1))
    return true;
  uint32_t type = load_be32(body.p + 4);
  return type == FOURCC('c', 'e', 'n', 'c') || type == FOURCC('c', 'e', 'n', 's') || type == FOURCC('c', 'b', 'c', '1') ||
         type == FOURCC('c', 'b', 'c', 's');
}

enum err trail_fail(const struct box_trail *t, enum err e, uint64_t pos, const char *fmt, ...) {
  char text[sizeof t->diag->what] = "";
  if (fmt) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
  }
  struct diag *d = t->diag;
  if (d && !d->err) {
    d->num_path = t->depth < LIMIT_DEPTH ? t->depth : LIMIT_DEPTH;
    memcpy(d->path, t->path, sizeof d->path);
  }
  return diag_set(d, e, t->base + pos, "%s", text);
}

enum err trail_next(const struct box_trail *t, struct box *out, struct reader *r) {
  size_t pos = rd_pos(r);
  enum err e = box_next(out, r);
  if (!e)
    return ERR_OK;
  return trail_fail(t, e, pos, "%s", box_fault(e, false));
}

void *list_add(struct list *l, struct alloc *mem, size_t item_len) {
  if (l->num == l->cap) {
    uint32_t cap = l->cap ? l->cap * 2 : 16;
    void *p = l->cap < UINT32_MAX / 2 ? mem->get(mem, (size_t)cap * item_len) : NULL;
    if (!p)
      return NULL;
    if (l->num)
      memcpy(p, l->p, l->num * item_len);
    l->p = p;
    l->cap = cap;
  }
  return (uint8_t *)l->p + (size_t)l->num++ * item_len;
}

_Static_assert(LIMIT_DEPTH == sizeof((struct diag *)0)->path / sizeof(uint32_t), "a trail fits a diag");
