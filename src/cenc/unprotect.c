#include "cenc/unprotect.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "cenc/unprotect_parts.h"

#define CC(a, b, c, d) FOURCC(a, b, c, d)

// children_at says how many payload bytes stand before the children of a box; false when it has none that are known.
static bool children_at(size_t *out, const struct box *b, unsigned stsd_version) {
  const struct box_info *info = box_info_of(b->type);
  if (info && info->kind == BOX_AUDIO)
    return !box_entry_head(out, b->body, stsd_version);
  *out = info ? info->skip : 0;
  return info && info->kind == BOX_PARENT;
}

// Lists the boxes around input position `pos`, down to the one of `type` whose payload begins there (0: to the innermost
// that can be read, and at the top level the one that cannot).
static void path_to(struct diag *d, struct bytes file, uint64_t pos, uint32_t type) {
  const uint32_t depth = sizeof d->path / sizeof d->path[0];
  struct bytes in = file;
  unsigned stsd_version = 0;
  for (d->num_path = 0; d->num_path < depth && in.n >= 8;) {
    struct box b = {.pos = (uint64_t)(in.p - file.p)};
    bool top = d->num_path == 0;
    if (box_head(&b, bytes_of(in.p, in.n < 16 ? in.n : 16), in.n, top)) {
      if (top)
        d->path[d->num_path++] = load_be32(in.p + 4);
      return;
    }
    if (pos - b.pos >= b.len) { // a sibling before it
      in = bytes_of(in.p + b.len, in.n - (size_t)b.len);
      continue;
    }
    b.body = bytes_of(in.p + b.head_len, (size_t)b.len - b.head_len);
    d->path[d->num_path++] = b.type;
    size_t skip;
    bool here = b.type == type && pos == b.pos + b.head_len;
    if (here || !children_at(&skip, &b, stsd_version) || skip > b.body.n || pos < b.pos + b.head_len + skip)
      return;
    stsd_version = b.type == CC('s', 't', 's', 'd') ? b.body.p[0] : 0;
    in = bytes_of(b.body.p + skip, b.body.n - skip);
  }
}

enum err unp_fail(const struct unp *u, enum err e, const uint8_t *at, uint32_t type, const char *what) {
  struct diag *d = u->diag;
  if (!d || d->err)
    return e;
  if (!at)
    return diag_say(d, e, what ? "%s" : NULL, what);
  uint64_t pos = (uint64_t)(at - u->in->file.p);
  path_to(d, u->in->file, pos, type);
  return diag_set(d, e, pos, what ? "%s" : NULL, what);
}

bool unp_next(const struct unp *u, struct box *b, struct reader *r, enum err *e) {
  const uint8_t *at = r->p;
  *e = box_next(b, r);
  if (*e)
    (void)unp_fail(u, *e, at, 0, box_fault(*e, false));
  return !*e && b->len;
}

static size_t part_of(const struct unp *u, uint64_t pos) {
  size_t lo = 0, hi = u->num_parts + 1; // the sentinel begins at the end of the file
  while (hi - lo > 1) {
    size_t mid = lo + (hi - lo) / 2;
    if (u->parts[mid].in_off <= pos)
      lo = mid;
    else
      hi = mid;
  }
  return lo;
}

uint64_t unp_map(const struct unp *u, uint64_t pos) {
  size_t i = part_of(u, pos);
  const struct part *p = &u->parts[i];
  uint64_t in = pos - p->in_off;
  if (i == u->num_parts) // the end
    return p->out_off;
  uint64_t out_len = p[1].out_off - p->out_off;
  return p->out_off + (in < out_len ? in : out_len);
}

// file_of numbers the file of a folder that `pos` lies in.
static uint32_t file_of(const struct unp *u, uint64_t pos) {
  uint32_t lo = 0, hi = u->in->num_parts; // files before lo end at or before pos, those from hi on behind it
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (u->in->part_ends[mid] <= pos)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

uint64_t unp_part_start(const struct unp *u, uint64_t pos) {
  uint32_t i = file_of(u, pos);
  return i ? u->in->part_ends[i - 1] : 0;
}

static uint64_t file_end(const struct unp *u, uint64_t pos) {
  uint32_t i = file_of(u, pos);
  return i < u->in->num_parts ? u->in->part_ends[i] : u->in->file.n;
}

bool unp_in_data(const struct unp *u, uint64_t pos, uint64_t len) {
  size_t i = part_of(u, pos);
  const struct part *p = &u->parts[i];
  return i < u->num_parts && p->verbatim && pos - p->in_off >= p->head_len && len <= p[1].in_off - pos;
}

// Whether a top-level box (or the end of the file) is at `pos`.
static bool is_edge(const struct unp *u, uint64_t pos) { return u->parts[part_of(u, pos)].in_off == pos; }

size_t unp_open(struct writer *w, const struct unp *u, const struct box *b, size_t skip) {
  size_t at = w->n;
  wr_raw(w, u->in->file.p + b->pos, b->head_len + skip);
  return at;
}

void unp_close(struct writer *w, const struct box *b, size_t at) {
  if (!wr_ok(w))
    return;
  uint64_t len = w->n - at;
  if (b->head_len >= 16)
    store_be64(w->p + at + 8, len);
  else
    store_be32(w->p + at, (uint32_t)len);
}

void unp_copy(struct writer *w, const struct unp *u, const struct box *b) {
  wr_raw(w, u->in->file.p + b->pos, (size_t)b->len);
}

bool unp_is_seig(struct bytes body) { return body.n >= 8 && load_be32(body.p + 4) == CC('s', 'e', 'i', 'g'); }

// sidx (ISO/IEC 14496-12 §8.16.3): a reference is rewritten when it begins and ends where top-level boxes do. One that does not makes the
// whole index useless, and it is dropped.
struct sidx {
  struct bytes body;
  bool wide;
  uint32_t num;
  const uint8_t *first_offset, *refs;
  uint64_t anchor; // input offset of what is referenced first
};

static bool sidx_open(struct sidx *s, const struct unp *u, const struct box *b) {
  struct reader r = unp_reader(u, b->body);
  s->body = b->body;
  s->wide = rd_u32(&r) >> 24 != 0;
  rd_skip(&r, 8);
  rd_skip(&r, s->wide ? 8 : 4);
  s->first_offset = rd_take(&r, s->wide ? 8 : 4);
  rd_skip(&r, 2);
  s->num = rd_u16(&r);
  s->refs = rd_take(&r, (size_t)s->num * 12);
  if (r.err)
    return false;
  uint64_t first = s->wide ? load_be64(s->first_offset) : load_be32(s->first_offset);
  if (first > u->in->file.n)
    return false;
  s->anchor = b->pos + b->len + first;
  uint64_t at = s->anchor;
  bool ok = is_edge(u, at);
  for (uint32_t i = 0; i < s->num && ok; i++) {
    at += load_be32(s->refs + 12 * (size_t)i) & INT32_MAX;
    ok = is_edge(u, at);
  }
  return ok;
}

static void sidx_copy(struct writer *w, const struct unp *u, const struct box *b) {
  struct sidx s;
  if (!sidx_open(&s, u, b))
    return;
  size_t at = w->n;
  unp_copy(w, u, b);
  if (!wr_ok(w))
    return;
  const uint8_t *in = u->in->file.p + b->pos;
  uint8_t *out = w->p + at;
  uint64_t out_pos = unp_map(u, s.anchor), own_end = unp_map(u, b->pos + b->len);
  if (s.wide)
    store_be64(out + (s.first_offset - in), out_pos - own_end);
  else
    store_be32(out + (s.first_offset - in), (uint32_t)(out_pos - own_end));
  uint64_t pos = s.anchor;
  for (uint32_t i = 0; i < s.num; i++) {
    const uint8_t *ref = s.refs + 12 * (size_t)i;
    pos += load_be32(ref) & INT32_MAX;
    uint64_t end = unp_map(u, pos);
    store_be32(out + (ref - in), (load_be32(ref) & ~(uint32_t)INT32_MAX) | (uint32_t)(end - out_pos));
    out_pos = end;
  }
}

static enum err part_copy(struct writer *w, struct unp *u, const struct box *b) {
  switch (b->type) {
  case CC('m', 'o', 'o', 'v'):
    return moov_copy(w, u, b);
  case CC('m', 'o', 'o', 'f'):
    return moof_copy(w, u, b);
  case CC('s', 'i', 'd', 'x'):
    sidx_copy(w, u, b);
    return ERR_OK;
  case CC('m', 'f', 'r', 'a'):
  case CC('p', 's', 's', 'h'):
    return ERR_OK;
  default:
    unp_copy(w, u, b);
    return ERR_OK;
  }
}

static bool is_verbatim(uint32_t type) {
  return type != CC('m', 'o', 'o', 'v') && type != CC('m', 'o', 'o', 'f') && type != CC('s', 'i', 'd', 'x') &&
         type != CC('m', 'f', 'r', 'a') && type != CC('p', 's', 's', 'h');
}

// top_next takes the next top-level box; only here may a size of 0 say "to the end", of its part of a folder.
static bool top_next(const struct unp *u, struct box *b, uint64_t *pos, enum err *e) {
  struct bytes file = u->in->file;
  if (*pos == file.n)
    return false;
  uint64_t left = file_end(u, *pos) - *pos;
  struct bytes head = bytes_of(file.p + *pos, left < 16 ? (size_t)left : 16);
  *e = box_head(b, head, left, true);
  if (*pos == 0 && box_is_foreign(*e, head)) {
    *e = ERR_UNSUPPORTED;
    if (u->diag && !u->diag->err)
      (void)diag_set(u->diag, *e, 0, "this is not an MP4 file");
    return false;
  }
  if (*e) {
    (void)unp_fail(u, *e, file.p + *pos, 0, box_fault(*e, true));
    return false;
  }
  b->pos = *pos;
  b->body = bytes_of(file.p + *pos + b->head_len, (size_t)(b->len - b->head_len));
  *pos += b->len;
  return true;
}

// find_parts lists the top-level boxes, reads the first moov, and counts.
static enum err find_parts(struct unp *u) {
  struct box b;
  uint64_t pos = 0;
  enum err e = ERR_OK;
  bool moof = false, moov = false;
  size_t n = 0;
  while (top_next(u, &b, &pos, &e))
    n++;
  if (e)
    return e;
  u->parts = (struct part *)u->in->mem->get(u->in->mem, (n + 1) * sizeof *u->parts);
  u->tracks = (struct track *)u->in->mem->get(u->in->mem, UNP_MAX_TRACKS * sizeof *u->tracks);
  if (!u->parts || !u->tracks)
    return unp_fail(u, ERR_NO_MEMORY, NULL, 0, NULL);
  u->num_parts = n;
  pos = 0;
  for (size_t i = 0; i < n && top_next(u, &b, &pos, &e); i++) {
    u->parts[i] = (struct part){.in_off = b.pos, .head_len = b.head_len, .verbatim = is_verbatim(b.type)};
    moof |= b.type == CC('m', 'o', 'o', 'f');
    moov |= b.type == CC('m', 'o', 'o', 'v');
    if (b.type == CC('m', 'o', 'o', 'v') && (e = moov_read(u, &b)) != ERR_OK)
      return e;
  }
  u->parts[n] = (struct part){.in_off = u->in->file.n};
  if (!moov)
    return unp_fail(u, ERR_MISSING, NULL, 0, n ? "there is no moov" : "the file is empty");
  if (!u->any_protected)
    return unp_fail(u, ERR_NOT_PROTECTED, NULL, 0, NULL);
  if (!moof)
    return unp_fail(u, ERR_PROGRESSIVE, NULL, 0, "there is no moof: only fragmented files can be decrypted");
  return ERR_OK;
}

// measure finds where each box goes and how long the longest rewritten one is: offsets may point forward.
static enum err measure(struct unp *u, size_t *longest) {
  struct writer count = wr_of(NULL, 0);
  struct box b;
  enum err e = ERR_OK;
  uint64_t pos = 0;
  *longest = 0;
  for (size_t i = 0; top_next(u, &b, &pos, &e); i++) {
    u->parts[i].out_off = count.n;
    if ((e = part_copy(&count, u, &b)) != ERR_OK)
      return e;
    size_t len = count.n - u->parts[i].out_off;
    *longest = !u->parts[i].verbatim && len > *longest ? len : *longest;
    if (count.n > pos) // it is to find its place in what lies behind us
      return unp_fail(u, ERR_OVERFLOW, NULL, 0, NULL);
  }
  u->parts[u->num_parts].out_off = count.n;
  return ERR_OK;
}

// put_parts moves every box to its place in the output, over the input, the rewritten ones by way of `spare`. With `check` nothing
// moves: it only says whether the boxes can be rewritten.
static enum err put_parts(struct unp *u, uint8_t *spare, size_t longest, bool check) {
  struct box b;
  enum err e = ERR_OK;
  uint64_t pos = 0;
  u->num_tracks = 0;
  for (const struct part *p = u->parts; top_next(u, &b, &pos, &e); p++) {
    struct writer w = wr_of(spare, longest);
    bool moov = b.type == CC('m', 'o', 'o', 'v');
    if ((moov && (e = moov_read(u, &b)) != ERR_OK) || (!p->verbatim && (e = part_copy(&w, u, &b)) != ERR_OK))
      return e;
    assert(p->verbatim || w.n == p[1].out_off - p->out_off);
    if (!check)
      memmove(u->data + p->out_off, p->verbatim ? u->data + p->in_off : spare, (size_t)(p[1].out_off - p->out_off));
    if (b.to_end && p->verbatim && b.len > UINT32_MAX && pos < u->in->file.n)
      return unp_fail(u, ERR_LIMIT, u->data + b.pos, 0, "a box of 4 GiB or more without a size, and files behind it");
    if (!check && b.to_end && p->verbatim && b.len <= UINT32_MAX)
      store_be32(u->data + p->out_off, (uint32_t)b.len); // in the output more may follow
  }
  return ERR_OK;
}

static enum err decrypt_parts(struct unp *u) {
  struct box b;
  enum err e = ERR_OK;
  u->num_tracks = 0;
  for (uint64_t pos = 0; top_next(u, &b, &pos, &e);) {
    if (b.type == CC('m', 'o', 'o', 'v'))
      e = moov_read(u, &b);
    else if (b.type == CC('m', 'o', 'o', 'f'))
      e = moof_decrypt(u, &b);
    if (e)
      return e;
    if (u->in->step)
      u->in->step(u->in->step_ctx, pos);
  }
  return ERR_OK;
}

enum err unprotect(uint8_t *out, size_t *out_len, const struct unprotect_input *in, struct diag *diag) {
  struct unprotect_input own = *in;
  struct unp u = {.in = &own, .diag = diag, .data = out};
  if (out != in->file.p && in->file.n)
    memcpy(out, in->file.p, in->file.n);
  own.file.p = out;
  size_t longest;
  enum err e = find_parts(&u);
  if (e || (e = measure(&u, &longest)) != ERR_OK)
    return e;
  uint8_t *spare = (uint8_t *)in->mem->get(in->mem, longest);
  if (!spare)
    return unp_fail(&u, ERR_NO_MEMORY, NULL, 0, NULL);
  // Boxes stay where they are until nothing can fail any more: faults are told by them.
  if ((e = put_parts(&u, spare, longest, true)) != ERR_OK || (e = decrypt_parts(&u)) != ERR_OK ||
      (e = put_parts(&u, spare, longest, false)) != ERR_OK)
    return e;
  *out_len = u.parts[u.num_parts].out_off;
  return ERR_OK;
}
