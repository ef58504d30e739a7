// moof: where samples lie, and the same box without its protection.
#include "cenc/unprotect_parts.h"

#define CC(a, b, c, d) FOURCC(a, b, c, d)

enum {
  TFHD_BASE = 1,
  TFHD_ENTRY = 2,
  TFHD_DURATION = 8,
  TFHD_SIZE = 0x10,
  TFHD_BASE_IS_MOOF = 0x20000,
  TRUN_OFFSET = 1,
  TRUN_FIRST_FLAGS = 4,
  TRUN_DURATION = 0x100,
  TRUN_SIZE = 0x200,
  TRUN_FLAGS = 0x400,
  TRUN_COMPOSITION = 0x800,
};

// Source: ISO/IEC 14496-12 §8.8.7.
static enum err tfhd_read(struct traf *t, const struct unp *u, const struct box *b, bool *has_size) {
  struct reader r = unp_reader(u, b->body);
  t->tfhd_flags = rd_u32(&r) & 0xffffff;
  t->track_id = rd_u32(&r);
  if (t->tfhd_flags & TFHD_BASE)
    t->base_field = rd_take(&r, 8);
  t->entry = t->tfhd_flags & TFHD_ENTRY ? rd_u32(&r) : 0;
  if (t->tfhd_flags & TFHD_DURATION)
    rd_skip(&r, 4);
  *has_size = (t->tfhd_flags & TFHD_SIZE) != 0;
  if (*has_size)
    t->default_size = rd_u32(&r);
  return r.err ? unp_fail(u, r.err, b->body.p, b->type, NULL) : ERR_OK;
}

enum err traf_open(struct traf *t, const struct unp *u, const struct box *moof, const struct box *b, uint64_t prev_end) {
  struct reader r = unp_reader(u, b->body);
  struct box c;
  enum err e;
  bool found = false, has_size = false;
  *t = (struct traf){.box = *b};
  while (unp_next(u, &c, &r, &e))
    if (c.type == CC('t', 'f', 'h', 'd')) {
      if (found)
        return unp_fail(u, ERR_MALFORMED, c.body.p, c.type, "a second tfhd");
      if ((e = tfhd_read(t, u, &c, &has_size)) != ERR_OK)
        return e;
      found = true;
    }
  if (e || !found)
    return e ? e : unp_fail(u, ERR_MISSING, b->body.p, b->type, "traf lacks tfhd");
  for (uint32_t i = 0; i < u->num_tracks; i++)
    if (u->tracks[i].id == t->track_id)
      t->track = &u->tracks[i];
  if (t->track && !t->track->has_trex)
    return unp_fail(u, ERR_MISSING, b->body.p, b->type, "no trex for the track");
  if (!has_size)
    t->default_size = t->track ? t->track->default_size : 0;
  if (!t->entry)
    t->entry = t->track ? t->track->default_entry : 1;
  t->base = moof->pos;
  if (t->base_field && __builtin_add_overflow(unp_part_start(u, moof->pos), load_be64(t->base_field), &t->base))
    return unp_fail(u, ERR_OVERFLOW, b->body.p, b->type, "the base data offset");
  if (!t->base_field && !(t->tfhd_flags & TFHD_BASE_IS_MOOF))
    t->base = prev_end;
  if (t->base > u->in->file.n)
    return unp_fail(u, ERR_MALFORMED, b->body.p, b->type, "the base data offset is outside the file");
  t->data_end = t->base;
  return ERR_OK;
}

// Source: ISO/IEC 14496-12 §8.8.8.
enum err trun_open(struct trun *out, struct traf *t, const struct unp *u, const struct box *b) {
  struct reader r = unp_reader(u, b->body);
  struct trun n = {.flags = rd_u32(&r) & 0xffffff};
  n.num = rd_u32(&r);
  int64_t pos = (int64_t)t->data_end;
  if (n.flags & TRUN_OFFSET) {
    n.offset_field = rd_take(&r, 4);
    pos = n.offset_field ? (int64_t)t->base + (int32_t)load_be32(n.offset_field) : 0;
  }
  if (n.flags & TRUN_FIRST_FLAGS)
    rd_skip(&r, 4);
  n.size_at = n.flags & TRUN_DURATION ? 4 : 0;
  n.stride = 4 * ((n.flags & TRUN_DURATION ? 1u : 0) + (n.flags & TRUN_SIZE ? 1u : 0) + (n.flags & TRUN_FLAGS ? 1u : 0) +
                  (n.flags & TRUN_COMPOSITION ? 1u : 0));
  uint64_t fields_len = (uint64_t)n.num * n.stride;
  n.fields = fields_len <= rd_left(&r) ? rd_take(&r, (size_t)fields_len) : NULL;
  if (r.err || !n.fields)
    return unp_fail(u, ERR_TRUNCATED, b->body.p, b->type, NULL);
  if (n.flags & TRUN_SIZE)
    for (uint32_t i = 0; i < n.num; i++)
      n.len += trun_size(&n, t, i);
  else
    n.len = (uint64_t)n.num * t->default_size;
  if (n.len && (pos < 0 || !unp_in_data(u, (uint64_t)pos, n.len)))
    return unp_fail(u, ERR_MALFORMED, b->body.p, b->type, "samples lie outside the media data");
  n.pos = pos < 0 ? 0 : (uint64_t)pos;
  if (n.len || n.offset_field)
    t->data_end = n.pos + n.len;
  *out = n;
  return ERR_OK;
}

// Auxiliary information of other kinds goes too: nobody knows what its offsets point at, so that they cannot follow.
static bool is_dropped(const struct box *b) {
  switch (b->type) {
  case CC('s', 'e', 'n', 'c'):
  case CC('s', 'a', 'i', 'z'):
  case CC('s', 'a', 'i', 'o'):
    return true;
  case CC('s', 'g', 'p', 'd'):
  case CC('s', 'b', 'g', 'p'):
    return unp_is_seig(b->body);
  default:
    return box_is_piff_senc(b);
  }
}

static enum err traf_copy(struct writer *w, const struct unp *u, const struct box *moof, const struct box *traf,
                          uint64_t *data_end) {
  struct traf t;
  enum err e = traf_open(&t, u, moof, traf, *data_end);
  if (e)
    return e;
  size_t open_at = unp_open(w, u, traf, 0);
  size_t offset_at = 0; // of the next data's offset, in the output: an empty run may have it, or one that points nowhere
  struct reader r = unp_reader(u, traf->body);
  struct box b;
  while (unp_next(u, &b, &r, &e)) {
    if (is_dropped(&b))
      continue;
    size_t at = w->n;
    unp_copy(w, u, &b);
    if (!wr_ok(w)) // only counting: places in the output are not known yet
      continue;
    if (b.type == CC('t', 'f', 'h', 'd') && t.base_field && t.base_field > b.body.p && t.base_field < b.body.p + b.body.n)
      store_be64(w->p + at + (size_t)(t.base_field - (u->in->file.p + b.pos)), unp_map(u, t.base));
    if (b.type == CC('t', 'r', 'u', 'n')) {
      struct trun n;
      if ((e = trun_open(&n, &t, u, &b)) != ERR_OK)
        return e;
      if (n.offset_field)
        offset_at = at + (size_t)(n.offset_field - (u->in->file.p + b.pos));
      if (n.len && offset_at) { // what fitted in 32 bits still does: nothing moves apart
        store_be32(w->p + offset_at, (uint32_t)(unp_map(u, n.pos) - unp_map(u, t.base)));
        offset_at = 0;
      }
    }
  }
  if (e)
    return e;
  unp_close(w, traf, open_at);
  *data_end = t.data_end;
  return ERR_OK;
}

enum err moof_copy(struct writer *w, const struct unp *u, const struct box *moof) {
  size_t at = unp_open(w, u, moof, 0);
  struct reader r = unp_reader(u, moof->body);
  struct box b;
  enum err e;
  uint64_t data_end = moof->pos;
  while (unp_next(u, &b, &r, &e)) {
    if (b.type == CC('t', 'r', 'a', 'f')) {
      if ((e = traf_copy(w, u, moof, &b, &data_end)) != ERR_OK)
        return e;
    } else if (b.type != CC('p', 's', 's', 'h')) {
      unp_copy(w, u, &b);
    }
  }
  if (!e)
    unp_close(w, moof, at);
  return e;
}
