// Parsing a source twice: once to measure the index, once to fill it.
#include <stdlib.h>

#include "mp4/init.h"
#include "mp4/layout.h"
#include "mp4/window.h"

enum { MAX_SIDX = 1 << 20 }; // bytes: 65535 references of 12 bytes and a head fit

// A subsegment, as a sidx of the source gives it: source addresses.
struct leaf {
  uint64_t start, end;
};

struct builder {
  struct alloc *mem;
  struct diag *diag;
  const struct mp4_source *src;
  struct window win;
  struct layout layout;
  struct init_info init;
  struct list init_edits;
  uint64_t init_len;
  struct frag_defaults defaults;
  struct list leaves; // struct leaf, ascending once all of the source was seen
  uint32_t next_leaf;
  uint64_t leaf_end; // of the newest leaf that has begun
  bool leaves_match; // each fragment lies in a subsegment, and none starts or ends inside of a fragment
  // the open fragment
  struct list tops;
  struct frag_moof moof;
  bool has_moof;
  uint64_t moof_pos, moof_end;
  uint32_t boundary; // index in `tops` of the first box that belongs to the next fragment; UINT32_MAX: none yet
  uint64_t dropped, next_time;
  // the part
  uint32_t part;
  uint64_t part_start, part_end;
  uint64_t early_mdat; // where an mdat stood before moov, else UINT64_MAX
};

static enum err fail(struct builder *b, enum err e, uint64_t at, uint32_t type, const char *text) {
  struct box_trail t = {.diag = b->diag, .depth = type != 0, .path = {type}};
  return trail_fail(&t, e, at, "%s", text ? text : "");
}

static enum err read_box(struct builder *b, const struct box *box, struct bytes *out) {
  const uint8_t *p;
  if (box->to_end && box->type != FOURCC('s', 'i', 'd', 'x'))
    return fail(b, ERR_UNSUPPORTED, box->pos, box->type, "the box has no size of its own (0, to the end of the file)");
  enum err e = window_get(&b->win, &p, box->pos, (size_t)box->len);
  if (e)
    return fail(b, e, box->pos, box->type, e == ERR_IO ? "reading failed" : NULL);
  *out = bytes_of(p, (size_t)box->len);
  return ERR_OK;
}

// Remembers the subsegments that a sidx refers to itself. What it says of other sidx boxes (reference_type 1), these say
// again. A broken or odd one is no reason to refuse a file: it is dropped from the output anyway.
// ISO/IEC 14496-12 8.16.3.
static enum err parse_sidx(struct builder *b, const struct box *box) {
  struct bytes raw = {0};
  if (box->len > MAX_SIDX || b->leaves.num > LIMIT_SUBSEGMENTS)
    return ERR_OK;
  enum err e = read_box(b, box, &raw);
  if (e)
    return e;
  struct reader r = rd_of(raw);
  rd_skip(&r, box->head_len);
  unsigned version = rd_u32(&r) >> 24;
  rd_skip(&r, 8 + (version ? 8 : 4));
  uint64_t at = version ? rd_u64(&r) : rd_u32(&r);
  rd_skip(&r, 2);
  uint32_t num = rd_u16(&r);
  if (r.err || __builtin_add_overflow(at, box->pos + box->len, &at))
    return ERR_OK;
  for (uint32_t i = 0; i < num; i++) {
    uint32_t ref = rd_u32(&r), len = ref & INT32_MAX;
    rd_skip(&r, 8);
    if (r.err || at > b->src->size)
      return ERR_OK;
    if (!(ref >> 31) && len) {
      struct leaf *leaf = list_add(&b->leaves, b->mem, sizeof *leaf);
      if (!leaf)
        return fail(b, ERR_NO_MEMORY, box->pos, box->type, NULL);
      *leaf = (struct leaf){at, at + len};
    }
    at += len;
  }
  return ERR_OK;
}

static int by_start(const void *a, const void *b) {
  const struct leaf *x = a, *y = b;
  return (x->start > y->start) - (x->start < y->start);
}

// Whether a subsegment starts where this fragment does: at its first byte, at a box before its moof, or at one that ends
// the fragment before.
static bool starts_subsegment(struct builder *b) {
  const struct leaf *l = b->leaves.p;
  uint64_t data_end = b->moof.data_end > b->moof_end ? b->moof.data_end : b->moof_end;
  bool is = false;
  for (; b->next_leaf < b->leaves.num && l[b->next_leaf].start < data_end; b->next_leaf++) {
    is |= l[b->next_leaf].start <= b->moof_pos;
    b->leaves_match &= l[b->next_leaf].start <= b->moof_pos;
    b->leaf_end = l[b->next_leaf].end;
  }
  b->leaves_match &= b->leaf_end >= data_end; // in no subsegment, or not to its end
  return is;
}

// Ends the open fragment before box `num` of `tops`; what follows belongs to the next one.
static enum err finish(struct builder *b, uint32_t num, uint64_t end) {
  struct top *tops = b->tops.p;
  struct layout_frag f = {.start = tops[0].pos, .end = end, .moof_pos = b->moof_pos, .tops = tops, .num_tops = num};
  bool folder = b->src->num_parts > 1;
  if (folder ? f.start == b->part_start : starts_subsegment(b))
    f.flags = IX_FRAG_SUBSEGMENT;
  enum err e = layout_add(&b->layout, &b->moof, &f);
  if (e)
    return e;
  b->next_time = b->moof.end_ticks;
  memmove(tops, tops + num, (b->tops.num - num) * sizeof *tops);
  b->tops.num -= num;
  b->has_moof = false;
  b->boundary = UINT32_MAX;
  return ERR_OK;
}

static enum err handle_moof(struct builder *b, const struct box *box) {
  struct bytes raw;
  if (box->len > LIMIT_MOOF)
    return fail(b, ERR_LIMIT, box->pos, box->type, "the moof is too long");
  if (b->has_moof && box->pos < b->moof.data_end)
    return fail(b, ERR_UNSUPPORTED, box->pos, box->type, "the fragment before has data behind this moof");
  enum err e = ERR_OK;
  if (b->has_moof) {
    uint32_t num = b->boundary != UINT32_MAX ? b->boundary : b->tops.num - 1;
    e = finish(b, num, ((const struct top *)b->tops.p)[num].pos);
  }
  e = e ? e : read_box(b, box, &raw);
  if (e)
    return e;
  struct frag_place place = {.pos = box->pos, .file_start = b->part_start, .source_len = b->part_end,
                             .next_time = b->next_time};
  b->has_moof = true;
  b->moof_pos = box->pos;
  b->moof_end = box->pos + box->len;
  return frag_parse(&b->moof, &b->layout.samples, b->mem, &b->defaults, raw, place, b->diag);
}

// Boxes with which a fragment may begin. Others that stand between two fragments belong to the first.
static bool is_starter(const struct box *box) {
  switch (box->type) {
  case FOURCC('s', 't', 'y', 'p'):
  case FOURCC('p', 'r', 'f', 't'):
  case FOURCC('e', 'm', 's', 'g'):
  case FOURCC('s', 'i', 'd', 'x'):
  case FOURCC('s', 's', 'i', 'x'): return true;
  case FOURCC('m', 'd', 'a', 't'): return box->len > box->head_len;
  default: return false;
  }
}

static enum err handle_media(struct builder *b, const struct box *box) {
  struct top *t = list_add(&b->tops, b->mem, sizeof *t);
  if (!t)
    return fail(b, ERR_NO_MEMORY, box->pos, box->type, NULL);
  *t = (struct top){.pos = box->pos, .len = box->len, .dropped = b->dropped, .type = box->type, .head_len = box->head_len,
                    .to_end = box->to_end};
  if (top_is_dropped(box->type))
    b->dropped += box->len;
  if (b->has_moof && b->boundary == UINT32_MAX && box->pos >= b->moof.data_end && is_starter(box))
    b->boundary = b->tops.num - 1;
  switch (box->type) {
  case FOURCC('m', 'o', 'o', 'f'): return handle_moof(b, box);
  case FOURCC('m', 'o', 'o', 'v'): return fail(b, ERR_MALFORMED, box->pos, box->type, "a second moov");
  case FOURCC('s', 'i', 'd', 'x'): return b->layout.filling || b->src->num_parts > 1 ? ERR_OK : parse_sidx(b, box);
  default: return ERR_OK;
  }
}

// Boxes of the init segment: up to moov; in a folder, all of its first part.
static enum err handle_init(struct builder *b, const struct box *box) {
  struct bytes raw;
  enum err e = ERR_OK;
  bool is_moov = box->type == FOURCC('m', 'o', 'o', 'v');
  if (box->pos + box->len > IX_MAX_INIT && box->type != FOURCC('m', 'd', 'a', 't'))
    return fail(b, ERR_LIMIT, box->pos, box->type, "the init segment is too long");
  if (box->type == FOURCC('m', 'o', 'o', 'f'))
    return fail(b, b->init_len ? ERR_UNSUPPORTED : ERR_MISSING, box->pos, box->type,
                b->init_len ? "init.mp4 holds fragments" : "a moof before any moov");
  if (is_moov && b->init_len)
    return fail(b, ERR_MALFORMED, box->pos, box->type, "a second moov");
  if (box->type == FOURCC('m', 'd', 'a', 't') && b->early_mdat == UINT64_MAX)
    b->early_mdat = box->pos;
  if (b->layout.filling) {
    b->init_len = is_moov || b->init_len ? box->pos + box->len : 0;
    return ERR_OK;
  }
  if (top_is_dropped(box->type) || (box->to_end && !is_moov)) { // what follows is another file of the folder
    struct ix_edit *edit = list_add(&b->init_edits, b->mem, sizeof *edit);
    if (!edit)
      return fail(b, ERR_NO_MEMORY, box->pos, box->type, NULL);
    *edit = (struct ix_edit){.pos = (uint32_t)box->pos, .del = (uint32_t)box->len, .kind = IX_DELETE};
    if (!top_is_dropped(box->type))
      *edit = (struct ix_edit){.pos = edit->pos, .del = 4, .value = (uint32_t)box->len, .kind = IX_SIZE32};
  }
  if (is_moov) {
    e = read_box(b, box, &raw);
    e = e ? e : init_parse(&b->init, &b->init_edits, b->mem, raw, box->pos, b->diag);
    b->defaults = (struct frag_defaults){.track_id = b->init.track_id,
                                         .num_entries = b->init.num_sinf,
                                         .description_index = b->init.description_index,
                                         .sample_duration = b->init.sample_duration,
                                         .sample_size = b->init.sample_size,
                                         .sample_flags = b->init.sample_flags};
  }
  if (is_moov || b->init_len)
    b->init_len = box->pos + box->len;
  if (!e && b->init_len && b->early_mdat != UINT64_MAX)
    e = fail(b, ERR_UNSUPPORTED, b->early_mdat, FOURCC('m', 'd', 'a', 't'), "media data in the init segment");
  return e;
}

static enum err scan_part(struct builder *b) {
  for (uint64_t off = b->part_start; off < b->part_end;) {
    const uint8_t *p;
    uint64_t left = b->part_end - off;
    size_t n = left < 16 ? (size_t)left : 16;
    struct box box = {.pos = off};
    enum err e = window_get(&b->win, &p, off, n);
    if (e)
      return fail(b, e, off, 0, e == ERR_IO ? "reading failed" : NULL);
    e = box_head(&box, bytes_of(p, n), left, true);
    if (off == 0 && box_is_foreign(e, bytes_of(p, n)))
      return fail(b, ERR_UNSUPPORTED, 0, 0, "this is not an MP4 file");
    if (e)
      return fail(b, e, off, left >= 8 ? load_be32(p + 4) : 0, box_fault(e, true));
    bool init = b->src->num_parts > 1 ? b->part == 0 : !b->init_len;
    e = init ? handle_init(b, &box) : handle_media(b, &box);
    if (e)
      return e;
    off = box.pos + box.len;
  }
  if (b->has_moof)
    return finish(b, b->tops.num, b->part_end);
  if (b->part && b->part_end > b->part_start)
    return fail(b, ERR_MISSING, b->part_start, 0, "a segment without moof");
  return ERR_OK;
}

static enum err scan(struct builder *b) {
  bool folder = b->src->num_parts > 1;
  b->init_len = b->part_end = b->dropped = b->next_time = 0;
  b->next_leaf = 0;
  b->leaf_end = 0;
  b->leaves_match = true;
  b->has_moof = false;
  b->boundary = UINT32_MAX;
  b->tops.num = 0;
  b->early_mdat = UINT64_MAX;
  for (b->part = 0; b->part < (folder ? b->src->num_parts : 1); b->part++) {
    b->part_start = b->part_end;
    b->part_end = folder ? b->src->part_ends[b->part] : b->src->size;
    enum err e = scan_part(b);
    if (e)
      return e;
    if (b->part == 0 && !b->init_len)
      return folder ? diag_say(b->diag, ERR_MISSING, "init.mp4 %s", b->part_end ? "has no moov" : "is empty") // its end is the next part's beginning
                    : fail(b, ERR_MISSING, b->part_end, 0, b->part_end ? "no moov" : "the file is empty");
  }
  if (!b->layout.num.frags)
    return folder ? diag_say(b->diag, ERR_MISSING, "no fragments") : fail(b, ERR_MISSING, b->init_len, 0, "no fragments");
  uint64_t end;
  if (__builtin_add_overflow(b->next_time, b->init.delay, &end))
    return fail(b, ERR_OVERFLOW, b->init.elst_pos, FOURCC('e', 'l', 's', 't'), "empty edits that end behind all time");
  return ERR_OK;
}

// Lengths of the sections of a blob, from what was measured.
static void section_lengths(const struct builder *b, uint64_t len[IX_SEC_COUNT]) {
  const struct layout *l = &b->layout;
  bool wide = l->samples.max_size > UINT16_MAX;
  len[IX_SEC_PARTS] = (b->src->num_parts > 1 ? b->src->num_parts : 1) * sizeof(uint64_t);
  len[IX_SEC_INIT] = b->init_len;
  len[IX_SEC_INIT_EDITS] = b->init_edits.num * sizeof(struct ix_edit);
  len[IX_SEC_FRAGS] = ((uint64_t)l->num.frags + 1) * sizeof(struct ix_frag);
  len[IX_SEC_EDITS] = (uint64_t)l->num.edits * sizeof(struct ix_edit);
  len[IX_SEC_RUNS] = (uint64_t)l->num.runs * sizeof(struct ix_run);
  len[IX_SEC_TRAFS] = (uint64_t)l->num.trafs * sizeof(struct ix_traf);
  len[IX_SEC_SIZES] = l->samples.num * (wide ? sizeof(uint32_t) : sizeof(uint16_t));
  len[IX_SEC_LANES] = l->samples.num * sizeof(struct aes_lane);
}

// Takes the blob and points the sections into it.
static enum err make_blob(struct builder *b, uint8_t **blob) {
  uint64_t len[IX_SEC_COUNT], off = sizeof(struct ix_header), start[IX_SEC_COUNT];
  struct layout *l = &b->layout;
  section_lengths(b, len);
  for (int i = 0; i < IX_SEC_COUNT; i++) {
    off = (off + 7) & ~(uint64_t)7;
    start[i] = off;
    off += len[i]; // at most 2^40 each: counts are bounded
  }
  uint8_t *p = b->mem->get(b->mem, off);
  if (!p)
    return fail(b, ERR_NO_MEMORY, 0, 0, "the index does not fit in memory");
  struct ix_header *h = (struct ix_header *)p;
  h->blob_len = off;
  for (int i = 0; i < IX_SEC_COUNT; i++) {
    h->sec[i].off = start[i];
    h->sec[i].len = len[i];
  }
  l->frags = (struct ix_frag *)(p + start[IX_SEC_FRAGS]);
  l->edits = (struct ix_edit *)(p + start[IX_SEC_EDITS]);
  l->runs = (struct ix_run *)(p + start[IX_SEC_RUNS]);
  l->trafs = (struct ix_traf *)(p + start[IX_SEC_TRAFS]);
  l->lanes = (struct aes_lane *)(p + start[IX_SEC_LANES]);
  bool wide = l->samples.max_size > UINT16_MAX;
  h->flags = wide ? IX_WIDE_SIZES : 0;
  l->samples = (struct frag_samples){.cap = l->samples.num};
  if (wide)
    l->samples.sizes32 = (uint32_t *)(p + start[IX_SEC_SIZES]);
  else
    l->samples.sizes16 = (uint16_t *)(p + start[IX_SEC_SIZES]);
  l->cap = l->num;
  l->num = (struct totals){0};
  l->out_off = l->last_time = 0;
  l->filling = true;
  *blob = p;
  return ERR_OK;
}

static uint32_t bitrate(uint64_t len, uint64_t ticks, uint32_t timescale) {
  double bits = ticks ? (double)len * 8 * timescale / (double)ticks : 0;
  return bits < UINT32_MAX ? (uint32_t)bits : UINT32_MAX;
}

// Average over all fragments, and the most over the shortest groups of fragments that last a second.
static void fill_bitrates(struct ix_header *h, const struct ix_frag *frags) {
  uint64_t len = 0, ticks = 0, all_len = 0, all_ticks = 0;
  uint32_t first = 0;
  for (uint32_t i = 0; i < h->num_frags; i++) {
    len += frags[i].src_len;
    ticks += frags[i].duration_ticks;
    all_len += frags[i].src_len;
    all_ticks += frags[i].duration_ticks;
    for (; ticks - frags[first].duration_ticks >= h->timescale && first < i; first++) {
      len -= frags[first].src_len;
      ticks -= frags[first].duration_ticks;
    }
    if (ticks >= h->timescale) {
      uint32_t rate = bitrate(len, ticks, h->timescale);
      h->max_bitrate = rate > h->max_bitrate ? rate : h->max_bitrate;
    }
  }
  h->avg_bitrate = bitrate(all_len, all_ticks, h->timescale);
  if (h->max_bitrate < h->avg_bitrate)
    h->max_bitrate = h->avg_bitrate;
}

static void fill_track(struct ix_header *h, const struct init_info *in) {
  h->track_id = in->track_id;
  h->timescale = in->timescale;
  h->format = in->format;
  h->sample_rate = in->codec.sample_rate;
  h->channels = in->codec.channels;
  h->channel_mask = in->codec.channel_mask;
  h->joc_complexity = in->codec.joc_complexity;
  h->bit_depth = in->codec.bit_depth;
  h->num_sinf = in->num_sinf;
  h->edit_media_time = in->edit_media_time;
  memcpy(h->codecs, in->codec.codecs, sizeof h->codecs);
  memcpy(h->language, in->language, sizeof h->language);
}

static void seal(struct ix_header *h) { h->checksum = ix_checksum(bytes_of(h, (size_t)h->blob_len)); }

// A fragment without samples has the time of what follows, whatever its tfdt says, if it has one: a segment that begins with it is
// presented from its first sample on. `frags` has the sentinel.
static void time_empty(struct ix_frag *frags, uint32_t num) {
  for (uint32_t i = num; i--;)
    if (frags[i + 1].first_sample == frags[i].first_sample)
      frags[i].time_ticks = frags[i + 1].time_ticks;
}

static void fill_header(const struct builder *b, struct ix_header *h, const struct ix_identity *id) {
  static const uint8_t zeros[32];
  const struct layout *l = &b->layout;
  memcpy(h->magic, "sluice\0\1", 8);
  h->version = IX_VERSION;
  h->identity = *id;
  if (!memcmp(id->digest, zeros, sizeof zeros))
    h->flags |= IX_NO_DIGEST;
  if (b->src->num_parts > 1)
    h->flags |= IX_FOLDER;
  else if (b->leaves.num && b->leaves_match)
    h->flags |= IX_HAD_SIDX;
  fill_track(h, &b->init);
  h->num_parts = b->src->num_parts > 1 ? b->src->num_parts : 1;
  h->num_init_edits = b->init_edits.num;
  h->num_frags = l->num.frags;
  h->num_edits = l->num.edits;
  h->num_runs = l->num.runs;
  h->num_trafs = l->num.trafs;
  h->frame_samples = l->samples.duration;
  h->num_samples = l->samples.num;
  h->media_off = l->frags[0].src_off;
  h->media_len = b->src->size - h->media_off;
  // The sentinel: where a next fragment would start.
  struct ix_frag *last = &l->frags[h->num_frags];
  *last = (struct ix_frag){.src_off = b->src->size, .out_off = l->out_off, .first_sample = l->samples.num,
                           .time_ticks = b->next_time, .first_edit = l->num.edits, .first_run = l->num.runs,
                           .first_traf = l->num.trafs};
  time_empty(l->frags, h->num_frags);
  h->start_ticks = l->frags[0].time_ticks;
  h->duration_ticks = b->next_time - h->start_ticks;
  fill_bitrates(h, l->frags);
}

static enum err fill_blob(struct builder *b, uint8_t *blob, const struct ix_identity *id) {
  struct ix_header *h = (struct ix_header *)blob;
  struct layout *l = &b->layout;
  if (b->leaves.num) // a sidx may refer to others first, whose subsegments lie before its own
    qsort(b->leaves.p, b->leaves.num, sizeof(struct leaf), by_start);
  enum err e = scan(b);
  if (e)
    return e;
  if (memcmp(&l->num, &l->cap, sizeof l->num) || l->samples.num != l->samples.cap || b->init_len != h->sec[IX_SEC_INIT].len)
    return fail(b, ERR_STALE, 0, 0, "the source changed while it was read");
  e = b->src->read(b->src->ctx, 0, blob + h->sec[IX_SEC_INIT].off, (size_t)b->init_len);
  if (e)
    return fail(b, e, 0, 0, "reading failed");
  if (b->init_edits.num)
    memcpy(blob + h->sec[IX_SEC_INIT_EDITS].off, b->init_edits.p, b->init_edits.num * sizeof(struct ix_edit));
  uint8_t *parts = blob + h->sec[IX_SEC_PARTS].off;
  if (b->src->num_parts > 1)
    memcpy(parts, b->src->part_ends, b->src->num_parts * sizeof(uint64_t));
  else
    memcpy(parts, &b->src->size, sizeof(uint64_t));
  fill_header(b, h, id);
  seal(h);
  return ERR_OK;
}

void ix_set_digest(struct bytes blob, const uint8_t digest[32]) {
  struct ix_header *h = (struct ix_header *)(uintptr_t)blob.p;
  memcpy(h->identity.digest, digest, sizeof h->identity.digest);
  h->flags &= ~(uint32_t)IX_NO_DIGEST;
  seal(h);
}

enum err ix_build(struct alloc *mem, struct bytes *blob, const struct mp4_source *src, const struct ix_identity *id,
                  struct diag *diag) {
  struct builder b = {.mem = mem, .diag = diag, .src = src, .win = {.src = src, .mem = mem},
                      .layout = {.mem = mem, .diag = diag}};
  uint8_t *p = NULL;
  if (id->size != src->size)
    return fail(&b, ERR_STALE, 0, 0, "the source's size is not the identity's");
  enum err e = scan(&b);
  e = e ? e : make_blob(&b, &p);
  e = e ? e : fill_blob(&b, p, id);
  if (e)
    return e;
  *blob = bytes_of(p, (size_t)((struct ix_header *)p)->blob_len);
  return ERR_OK;
}
