#include "cenc/unprotect.h"

#include <inttypes.h>
#include <stdio.h>

#include "cenc/unprotect_parts.h"

#define CC(a, b, c, d) FOURCC(a, b, c, d)

enum { PIECE = 1 << 20 };

// What is copied as it is: what samples may lie in.
static bool is_verbatim(uint32_t type) {
  return type != CC('m', 'o', 'o', 'v') && type != CC('m', 'o', 'o', 'f') && type != CC('s', 'i', 'd', 'x') &&
         type != CC('m', 'f', 'r', 'a') && type != CC('p', 's', 's', 'h');
}

static bool is_moov(uint32_t type) { return type == CC('m', 'o', 'o', 'v'); }

// children_at says how many payload bytes stand before the children of a box; false when it has none that are known.
static bool children_at(size_t *out, const struct box *b, unsigned stsd_version) {
  const struct box_info *info = box_info_of(b->type);
  if (info && info->kind == BOX_AUDIO)
    return !box_entry_head(out, b->body, stsd_version);
  *out = info ? info->skip : 0;
  return info && info->kind == BOX_PARENT;
}

// Lists the boxes around input position `pos` from the top-level one at `top_pos` on, down to the one of `type` whose payload begins there
// (0: to the innermost that can be read, and at the top level the one that cannot).
static void path_to(struct diag *d, struct bytes file, uint64_t top_pos, uint64_t pos, uint32_t type) {
  const uint32_t depth = sizeof d->path / sizeof d->path[0];
  struct bytes in = bytes_of(file.p + top_pos, file.n - (size_t)top_pos);
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
  path_to(d, u->in->file, u->top, pos, type);
  return diag_set(d, e, pos, what ? "%s" : NULL, what);
}

bool unp_next(const struct unp *u, struct box *b, struct reader *r, enum err *e) {
  const uint8_t *at = r->p;
  *e = box_next(b, r);
  if (*e)
    (void)unp_fail(u, *e, at, 0, box_fault(*e, false));
  return !*e && b->len;
}

static enum err changed(const struct unp *u) {
  return unp_fail(u, ERR_IO, NULL, 0, "the file changed while it was being read");
}

enum err unp_load(const struct unp *u, uint64_t pos, uint64_t len) {
  enum err e = u->stream && !u->loaded && len ? u->stream->load(u->stream->ctx, pos, len) : ERR_OK;
  return e ? unp_fail(u, e, NULL, 0, NULL) : ERR_OK;
}

void unp_belongs(struct unp *u, uint64_t pos, uint64_t len) {
  u->scattered |= len && (pos < u->group || pos + len > u->group_end);
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
  return i < u->num_parts && is_verbatim(p->type) && pos - p->in_off >= p->head_len && len <= p[1].in_off - pos;
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

// top_next takes the next top-level box, with the body of one that is rewritten where `body` says so; only here may a size of 0 say
// "to the end", of its part of a folder.
static bool top_next(struct unp *u, struct box *b, uint64_t *pos, bool body, enum err *e) {
  struct bytes file = u->in->file;
  u->top = *pos;
  if (*pos == file.n)
    return false;
  uint64_t left = file_end(u, *pos) - *pos;
  struct bytes head = bytes_of(file.p + *pos, left < 16 ? (size_t)left : 16);
  if ((*e = unp_load(u, *pos, head.n)) != ERR_OK)
    return false;
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
  if (((body && !is_verbatim(b->type)) || is_moov(b->type)) && (*e = unp_load(u, b->pos, b->len)) != ERR_OK)
    return false;
  *pos += b->len;
  return true;
}

// part_next takes part i again. What is no more where it was has been changed by someone else.
static bool part_next(struct unp *u, struct box *b, size_t i, bool body, enum err *e) {
  if (i == u->num_parts)
    return false;
  uint64_t pos = u->parts[i].in_off;
  if (!top_next(u, b, &pos, body, e))
    return false;
  if (pos == u->parts[i + 1].in_off && b->type == u->parts[i].type && b->head_len == u->parts[i].head_len)
    return true;
  *e = changed(u);
  return false;
}

// done_with forgets a part. Of moov there is more to read as long as there are samples.
static void done_with(const struct unp *u, const struct box *b) {
  if (u->stream && !is_moov(b->type))
    u->stream->forget(u->stream->ctx, b->pos, b->len);
}

// moov_again is moov_read in a later pass.
static enum err moov_again(struct unp *u, const struct box *b) {
  if (!is_moov(b->type))
    return ERR_OK;
  groups_forget(u);
  return moov_read(u, b);
}

// find_parts lists the top-level boxes, reads the first moov, and counts.
static enum err find_parts(struct unp *u) {
  struct box b;
  uint64_t pos = 0;
  enum err e = ERR_OK;
  bool moof = false, moov = false;
  size_t n = 0;
  for (; top_next(u, &b, &pos, false, &e); n++)
    done_with(u, &b);
  if (e)
    return e;
  u->parts = (struct part *)u->in->mem->get(u->in->mem, (n + 1) * sizeof *u->parts);
  u->tracks = (struct track *)u->in->mem->get(u->in->mem, UNP_MAX_TRACKS * sizeof *u->tracks);
  if (!u->parts || !u->tracks)
    return unp_fail(u, ERR_NO_MEMORY, NULL, 0, NULL);
  u->num_parts = n;
  pos = 0;
  for (size_t i = 0; i < n && top_next(u, &b, &pos, false, &e); i++) {
    u->parts[i] = (struct part){.in_off = b.pos, .head_len = b.head_len, .type = b.type};
    moof |= b.type == CC('m', 'o', 'o', 'f');
    moov |= is_moov(b.type);
    if (is_moov(b.type) && (e = moov_read(u, &b)) != ERR_OK)
      return e;
    done_with(u, &b);
  }
  if (e || pos != u->in->file.n)
    return e ? e : changed(u);
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
  *longest = 0;
  for (size_t i = 0; part_next(u, &b, i, true, &e); i++) {
    u->parts[i].out_off = count.n;
    if ((e = part_copy(&count, u, &b)) != ERR_OK)
      return e;
    size_t len = count.n - u->parts[i].out_off;
    *longest = !is_verbatim(b.type) && len > *longest ? len : *longest;
    if (count.n > u->parts[i + 1].in_off) // it is to find its place in what lies behind us
      return unp_fail(u, ERR_OVERFLOW, NULL, 0, NULL);
    done_with(u, &b);
  }
  u->parts[u->num_parts].out_off = count.n;
  return e;
}

// rewrite makes the output's form of a part in `w`, which is empty.
static enum err rewrite(struct writer *w, struct unp *u, size_t i, const struct box *b) {
  enum err e = moov_again(u, b);
  if (e || (e = part_copy(w, u, b)) != ERR_OK)
    return e;
  return w->n == u->parts[i + 1].out_off - u->parts[i].out_off ? ERR_OK : changed(u);
}

// check_parts says whether all boxes can be rewritten.
static enum err check_parts(struct unp *u, uint8_t *spare, size_t longest) {
  struct box b;
  enum err e = ERR_OK;
  u->num_tracks = 0;
  for (size_t i = 0; part_next(u, &b, i, true, &e); i++) {
    struct writer w = wr_of(spare, longest);
    if (!is_verbatim(b.type) && (e = rewrite(&w, u, i, &b)) != ERR_OK)
      return e;
    if (b.to_end && is_verbatim(b.type) && b.len > UINT32_MAX && b.pos + b.len < u->in->file.n)
      return unp_fail(u, ERR_LIMIT, u->data + b.pos, 0, "a box of 4 GiB or more without a size, and files behind it");
    done_with(u, &b);
  }
  return e;
}

// group_end gives the part behind the group of part i.
static size_t group_end(const struct unp *u, size_t i) {
  if (u->scattered)
    return u->num_parts;
  do
    i++;
  while (i < u->num_parts && u->parts[i].type != CC('m', 'o', 'o', 'f') && !is_moov(u->parts[i].type));
  return i;
}

// decrypt_parts decrypts what the moofs of parts [i, end) speak of.
static enum err decrypt_parts(struct unp *u, size_t i, size_t end) {
  struct box b;
  enum err e = ERR_OK;
  u->num_tracks = i ? u->num_tracks : 0;
  for (; i < end && part_next(u, &b, i, u->dry, &e); i++) {
    if (b.type == CC('m', 'o', 'o', 'f')) {
      u->group = b.pos;
      u->group_end = u->parts[group_end(u, i)].in_off;
      e = moof_decrypt(u, &b);
    } else {
      e = moov_again(u, &b);
    }
    if (e)
      return e;
    if (u->dry)
      done_with(u, &b);
    else if (u->in->step)
      u->in->step(u->in->step_ctx, b.pos + b.len);
  }
  return e;
}

static enum err emit(const struct unp *u, uint64_t out_off, const uint8_t *p, size_t n) {
  if (u->stream)
    return u->stream->write(u->stream->ctx, p, n);
  if (n)
    memmove(u->data + out_off, p, n);
  return ERR_OK;
}

// emit_verbatim writes a box as it is, in pieces where it is not in memory.
static enum err emit_verbatim(const struct unp *u, const struct part *p, const struct box *b) {
  for (uint64_t at = 0; at < b->len;) {
    uint64_t left = b->len - at, n = u->loaded || left < PIECE ? left : PIECE;
    enum err e = unp_load(u, b->pos + at, n);
    if (!e && !at && b->to_end && b->len <= UINT32_MAX)
      store_be32(u->data + b->pos, (uint32_t)b->len); // in the output more may follow
    if (e || (e = emit(u, p->out_off + at, u->data + b->pos + at, (size_t)n)) != ERR_OK)
      return e;
    if (!u->loaded)
      u->stream->forget(u->stream->ctx, b->pos + at, n);
    at += n;
  }
  return ERR_OK;
}

// put_parts writes parts [i, end) to their places in the output.
static enum err put_parts(struct unp *u, size_t i, size_t end, uint8_t *spare, size_t longest) {
  struct box b;
  enum err e = ERR_OK;
  u->num_tracks = i ? u->num_tracks : 0;
  for (; i < end && part_next(u, &b, i, true, &e); i++) {
    const struct part *p = &u->parts[i];
    struct writer w = wr_of(spare, longest);
    if (is_verbatim(b.type))
      e = emit_verbatim(u, p, &b);
    else if ((e = rewrite(&w, u, i, &b)) == ERR_OK)
      e = emit(u, p->out_off, spare, w.n);
    if (e)
      return e;
    if (!u->loaded && !is_verbatim(b.type))
      done_with(u, &b);
  }
  return e;
}

static enum err put_group(struct unp *u, size_t i, size_t end, uint8_t *spare, size_t longest) {
  uint64_t pos = u->parts[i].in_off, len = u->parts[end].in_off - pos;
  bool whole = u->scattered || u->parts[i].type == CC('m', 'o', 'o', 'f');
  enum err e = whole ? unp_load(u, pos, len) : ERR_OK;
  u->loaded = whole;
  if (e || (whole && (e = decrypt_parts(u, i, end)) != ERR_OK) || (e = put_parts(u, i, end, spare, longest)) != ERR_OK)
    return e;
  if (u->stream && whole)
    u->stream->forget(u->stream->ctx, pos, len);
  u->loaded = false;
  return ERR_OK;
}

static enum err run(struct unp *u) {
  size_t longest;
  enum err e = find_parts(u);
  if (e || (e = measure(u, &longest)) != ERR_OK)
    return e;
  uint8_t *spare = (uint8_t *)u->in->mem->get(u->in->mem, longest);
  if (!spare)
    return unp_fail(u, ERR_NO_MEMORY, NULL, 0, NULL);
  // Nothing is written until nothing can fail any more: in memory faults are told by the boxes, and what reads a stream is not to
  // have a part of it.
  if ((e = check_parts(u, spare, longest)) != ERR_OK)
    return e;
  u->dry = u->stream != NULL;
  if (u->dry && (e = decrypt_parts(u, 0, u->num_parts)) != ERR_OK)
    return e;
  u->dry = false;
  u->samples = u->sample_bytes = u->aux_bytes = 0;
  for (size_t i = 0, end; i < u->num_parts; i = end) {
    end = group_end(u, i);
    if ((e = put_group(u, i, end, spare, longest)) != ERR_OK)
      return e;
  }
  return ERR_OK;
}

enum err unprotect_stream(uint8_t *room, const struct unprotect_stream *s, const struct unprotect_input *in, struct diag *diag) {
  struct unp u = {.in = in, .diag = diag, .data = room, .stream = s};
  return run(&u);
}

enum err unprotect(uint8_t *out, size_t *out_len, const struct unprotect_input *in, struct diag *diag) {
  struct unprotect_input own = *in;
  // As one group, because boxes come to lie over moov.
  struct unp u = {.in = &own, .diag = diag, .data = out, .scattered = true};
  if (out != in->file.p && in->file.n)
    memcpy(out, in->file.p, in->file.n);
  own.file.p = out;
  enum err e = run(&u);
  if (!e)
    *out_len = u.parts[u.num_parts].out_off;
  return e;
}
