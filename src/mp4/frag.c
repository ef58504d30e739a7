#include "mp4/frag.h"

enum {
  TFHD_BASE_DATA_OFFSET = 1,
  TFHD_DESCRIPTION_INDEX = 2,
  TFHD_DURATION = 8,
  TFHD_SIZE = 0x10,
  TFHD_FLAGS = 0x20,
  TFHD_BASE_IS_MOOF = 0x020000,

  TRUN_DATA_OFFSET = 1,
  TRUN_FIRST_FLAGS = 4,
  TRUN_DURATION = 0x100,
  TRUN_SIZE = 0x200,
  TRUN_FLAGS = 0x400,
  TRUN_OFFSET = 0x800,

  NOT_SYNC = 0x10000, // of a sample's flags: 8.8.3.1

  TFDT_LEN = 20, // version 1
};

struct frag_parser {
  struct box_trail t;
  struct alloc *mem;
  const struct frag_defaults *defaults;
  struct frag_place place;
  struct frag_moof *out;
  struct frag_samples *samples;
  uint64_t moof_len;
  uint64_t last_data; // end of the data of the traf before, at first the moof's start: base of a traf that names none
};

// One traf while its children are read.
struct traf {
  struct box box, tfhd;
  bool has_tfhd, has_tfdt;
  uint64_t base, next; // where data offsets count from; where a trun without one starts
  uint32_t duration, size, flags; // of samples whose trun does not say
  uint64_t first_sample, num_samples;
  uint64_t time_ticks, duration_ticks;
  int64_t delta;
};

static enum err add_edit(struct frag_parser *p, struct ix_edit edit) {
  struct ix_edit *e = list_add(&p->out->edits, p->mem, sizeof *e);
  if (!e)
    return trail_fail(&p->t, ERR_NO_MEMORY, edit.pos, NULL);
  *e = edit;
  return ERR_OK;
}

static enum err add_word(struct frag_parser *p, uint64_t pos, uint32_t del, uint32_t value) {
  return add_edit(p, (struct ix_edit){.pos = (uint32_t)pos, .del = del, .value = value, .kind = IX_WORD});
}

// The size field of a box whose new length is known only later: set_size fills the edit in.
static enum err add_size(struct frag_parser *p, const struct box *b, uint32_t *edit) {
  bool wide = b->head_len == 16;
  *edit = p->out->edits.num;
  return add_edit(p, (struct ix_edit){.pos = (uint32_t)b->pos + (wide ? 8 : 0), .del = wide ? 8 : 4,
                                      .value = (uint32_t)b->len, .kind = wide ? IX_SIZE64 : IX_SIZE32});
}

static void set_size(struct frag_parser *p, uint32_t edit, int64_t delta, enum ix_scope scope, uint32_t arg) {
  struct ix_edit *e = (struct ix_edit *)p->out->edits.p + edit;
  e->value = (uint32_t)((int64_t)e->value + delta);
  e->scope = (uint8_t)scope;
  e->arg = arg;
}

// tfhd: fields, and the edits that make the base the moof. ISO/IEC 14496-12 8.8.7.
static enum err parse_tfhd(struct frag_parser *p, struct traf *k) {
  const struct box *b = &k->tfhd;
  struct reader r = rd_of(b->body);
  uint32_t flags = rd_u32(&r) & 0xffffff, track = rd_u32(&r);
  bool absolute = (flags & TFHD_BASE_DATA_OFFSET) != 0, by_moof = (flags & TFHD_BASE_IS_MOOF) != 0;
  k->base = absolute ? rd_u64(&r) : by_moof ? p->place.pos : p->last_data;
  if (absolute && __builtin_add_overflow(k->base, p->place.file_start, &k->base))
    return trail_fail(&p->t, ERR_OVERFLOW, b->pos, "base_data_offset");
  uint32_t index = flags & TFHD_DESCRIPTION_INDEX ? rd_u32(&r) : p->defaults->description_index;
  k->duration = flags & TFHD_DURATION ? rd_u32(&r) : p->defaults->sample_duration;
  k->size = flags & TFHD_SIZE ? rd_u32(&r) : p->defaults->sample_size;
  k->flags = flags & TFHD_FLAGS ? rd_u32(&r) : p->defaults->sample_flags;
  if (r.err || rd_left(&r))
    return trail_fail(&p->t, r.err ? r.err : ERR_MALFORMED, b->pos, "tfhd's fields do not fill it");
  if (track != p->defaults->track_id)
    return trail_fail(&p->t, ERR_UNSUPPORTED, b->pos, "a fragment of track %u, which is not in moov", track);
  if (!index || index > p->defaults->num_entries)
    return trail_fail(&p->t, ERR_MALFORMED, b->pos, "sample description %u is not there", index);
  k->next = k->base;
  if (by_moof && !absolute)
    return ERR_OK;
  uint32_t head = load_be32(b->body.p); // version and flags
  uint64_t at = b->pos + b->head_len;
  uint32_t edit;
  enum err e = ERR_OK;
  if (absolute) {
    e = add_size(p, b, &edit);
    if (e)
      return e;
    set_size(p, edit, -8, IX_SCOPE_NONE, 0);
    k->delta -= 8;
  }
  e = add_word(p, at, 4, (head & ~(uint32_t)TFHD_BASE_DATA_OFFSET) | TFHD_BASE_IS_MOOF);
  if (!e && absolute)
    e = add_edit(p, (struct ix_edit){.pos = (uint32_t)at + 8, .del = 8, .kind = IX_DELETE});
  return e;
}

// ISO/IEC 14496-12 8.8.12.
static enum err parse_tfdt(struct frag_parser *p, struct traf *k, const struct box *b) {
  struct reader r = rd_of(b->body);
  unsigned version = rd_u32(&r) >> 24;
  k->time_ticks = version == 1 ? rd_u64(&r) : rd_u32(&r);
  if (r.err || version > 1)
    return trail_fail(&p->t, r.err ? r.err : ERR_UNSUPPORTED, b->pos, "tfdt");
  return ERR_OK;
}

// A traf without tfdt gets one: browsers refuse it otherwise, and CMAF requires it. It begins where the traf before ended.
static enum err insert_tfdt(struct frag_parser *p, struct traf *k) {
  uint64_t at = k->tfhd.pos + k->tfhd.len, time = p->out->end_ticks;
  k->time_ticks = time;
  const uint32_t words[] = {TFDT_LEN, FOURCC('t', 'f', 'd', 't'), 0x01000000, (uint32_t)(time >> 32), (uint32_t)time};
  enum err e = ERR_OK;
  for (size_t i = 0; !e && i < sizeof words / sizeof *words; i++)
    e = add_word(p, at, 0, words[i]);
  k->delta += TFDT_LEN;
  return e;
}

// A trun's fields, as far as its samples go.
struct trun {
  uint32_t flags, num, first_flags;
  int32_t data_offset;
  const uint8_t *entries;
  size_t entry_len;
};

static enum err read_trun(struct frag_parser *p, struct trun *u, const struct box *b) {
  struct reader r = rd_of(b->body);
  uint32_t head = rd_u32(&r);
  u->flags = head & 0xffffff;
  u->num = rd_u32(&r);
  u->data_offset = u->flags & TRUN_DATA_OFFSET ? (int32_t)rd_u32(&r) : 0;
  u->first_flags = u->flags & TRUN_FIRST_FLAGS ? rd_u32(&r) : 0;
  u->entry_len = 4u * (unsigned)__builtin_popcount(u->flags & (TRUN_DURATION | TRUN_SIZE | TRUN_FLAGS | TRUN_OFFSET));
  u->entries = r.p;
  if (r.err || head >> 24 > 1)
    return trail_fail(&p->t, r.err ? r.err : ERR_UNSUPPORTED, b->pos, "trun");
  if ((uint64_t)u->num * u->entry_len != rd_left(&r))
    return trail_fail(&p->t, (uint64_t)u->num * u->entry_len > rd_left(&r) ? ERR_TRUNCATED : ERR_MALFORMED, b->pos,
                      "%u samples do not fill the trun", u->num);
  return ERR_OK;
}

// The flags of a trun's first sample; it has one.
static uint32_t first_flags(const struct traf *k, const struct trun *u) {
  if (u->flags & TRUN_FIRST_FLAGS)
    return u->first_flags;
  size_t at = (u->flags & TRUN_DURATION ? 4 : 0) + (u->flags & TRUN_SIZE ? 4 : 0);
  return u->flags & TRUN_FLAGS ? load_be32(u->entries + at) : k->flags;
}

static void vote_duration(struct frag_samples *s, uint32_t duration, uint64_t weight) {
  if (s->duration == duration)
    s->duration_weight += weight;
  else if (s->duration_weight >= weight)
    s->duration_weight -= weight;
  else {
    s->duration = duration;
    s->duration_weight = weight - s->duration_weight;
  }
}

static void store_size(struct frag_samples *s, uint64_t n, uint32_t size) {
  if (s->sizes16)
    s->sizes16[n] = (uint16_t)size;
  else if (s->sizes32)
    s->sizes32[n] = size;
}

// Sizes and durations of a trun's samples; *len and *ticks get their sums.
static enum err read_samples(struct frag_parser *p, const struct traf *k, const struct trun *u, uint64_t pos,
                             uint64_t *len, uint64_t *ticks) {
  struct frag_samples *s = p->samples;
  bool store = s->sizes16 || s->sizes32;
  if (store && u->num > s->cap - s->num)
    return trail_fail(&p->t, ERR_STALE, pos, "the source changed while it was read");
  uint64_t first = s->num, sum = 0, time = 0;
  uint32_t max = 0;
  const uint8_t *sizes = u->flags & TRUN_SIZE ? u->entries + (u->flags & TRUN_DURATION ? 4 : 0) : NULL;
  if (sizes) {
    for (uint32_t i = 0; i < u->num; i++) {
      uint32_t size = load_be32(sizes + (size_t)i * u->entry_len);
      sum += size;
      max = size > max ? size : max;
      if (s->sizes16 && size > UINT16_MAX)
        return trail_fail(&p->t, ERR_STALE, pos, "the source changed while it was read");
      store_size(s, first + i, size);
    }
  } else {
    if (s->sizes16 && u->num && k->size > UINT16_MAX)
      return trail_fail(&p->t, ERR_STALE, pos, "the source changed while it was read");
    sum = (uint64_t)u->num * k->size;
    max = u->num ? k->size : 0;
    if (!k->size && !u->entry_len && (s->num_free += u->num) > LIMIT_FREE_SAMPLES)
      return trail_fail(&p->t, ERR_LIMIT, pos, "more than %d samples without bytes", LIMIT_FREE_SAMPLES);
  }
  if (u->flags & TRUN_DURATION) {
    for (uint32_t i = 0; i < u->num; i++) {
      uint32_t d = load_be32(u->entries + (size_t)i * u->entry_len);
      time += d;
      vote_duration(s, d, 1);
    }
  } else {
    time = (uint64_t)u->num * k->duration;
    vote_duration(s, k->duration, u->num);
  }
  if (max > IX_MAX_SAMPLE)
    return trail_fail(&p->t, ERR_LIMIT, pos, "a sample of %u bytes", max);
  s->max_size = max > s->max_size ? max : s->max_size;
  *len = sum;
  *ticks = time;
  return ERR_OK;
}

// Samples of default size are stored only when their data is known to be there.
static void store_default_sizes(struct frag_samples *s, uint64_t first, uint32_t num, uint32_t size) {
  if (s->sizes16 || s->sizes32)
    for (uint32_t i = 0; i < num; i++)
      store_size(s, first + i, size);
}

// The data offset's edits: rewritten where it stands, else inserted. Readers disagree about truns without one.
static enum err edit_trun(struct frag_parser *p, struct traf *k, const struct trun *u, const struct box *b) {
  uint64_t at = b->pos + b->head_len;
  uint32_t edit;
  enum err e = ERR_OK;
  bool insert = !(u->flags & TRUN_DATA_OFFSET);
  if (insert) {
    e = add_size(p, b, &edit);
    if (e)
      return e;
    set_size(p, edit, 4, IX_SCOPE_NONE, 0);
    k->delta += 4;
    e = add_word(p, at, 4, load_be32(b->body.p) | TRUN_DATA_OFFSET);
    if (e)
      return e;
  }
  struct frag_fix *fix = list_add(&p->out->fixes, p->mem, sizeof *fix);
  if (!fix)
    return trail_fail(&p->t, ERR_NO_MEMORY, b->pos, NULL);
  *fix = (struct frag_fix){.edit = p->out->edits.num, .pos = k->next};
  return add_edit(p, (struct ix_edit){.pos = (uint32_t)at + 8, .del = insert ? 0 : 4, .kind = IX_SIZE32});
}

static enum err add_span(struct frag_parser *p, struct traf *k, uint64_t len, uint32_t num, uint64_t pos) {
  struct frag_moof *o = p->out;
  uint64_t end;
  if (__builtin_add_overflow(k->next, len, &end) || end > p->place.source_len)
    return trail_fail(&p->t, ERR_TRUNCATED, pos, "sample data ends behind the end of the source");
  if (k->next < p->place.pos + p->moof_len && end > p->place.pos)
    return trail_fail(&p->t, ERR_MALFORMED, pos, "sample data overlaps its moof");
  struct frag_span *s = list_add(&o->spans, p->mem, sizeof *s);
  if (!s)
    return trail_fail(&p->t, ERR_NO_MEMORY, pos, NULL);
  *s = (struct frag_span){k->next, len, (uint32_t)o->num_samples, num};
  if (o->spans.num == 1)
    o->data_end = end;
  o->data_end = end > o->data_end ? end : o->data_end;
  k->next = end;
  return ERR_OK;
}

// ISO/IEC 14496-12 8.8.8.
static enum err parse_trun(struct frag_parser *p, struct traf *k, const struct box *b) {
  struct trun u = {0};
  uint64_t len = 0, ticks = 0;
  struct frag_moof *o = p->out;
  enum err e = read_trun(p, &u, b);
  if (e)
    return e;
  if (u.flags & TRUN_DATA_OFFSET && __builtin_add_overflow((int64_t)k->base, (int64_t)u.data_offset, (int64_t *)&k->next))
    return trail_fail(&p->t, ERR_OVERFLOW, b->pos, "data offset");
  if (!u.num) // its offset points at nothing and stays as it is
    return ERR_OK;
  if (u.num > IX_MAX_FRAG_SAMPLES - o->num_samples)
    return trail_fail(&p->t, ERR_LIMIT, b->pos, "more than %d samples in one fragment", IX_MAX_FRAG_SAMPLES);
  e = read_samples(p, k, &u, b->pos, &len, &ticks);
  if (!e && len)
    e = edit_trun(p, k, &u, b);
  if (!e && len)
    e = add_span(p, k, len, u.num, b->pos);
  if (e)
    return e;
  if (!o->num_samples)
    o->not_sync = (first_flags(k, &u) & NOT_SYNC) != 0;
  if (!(u.flags & TRUN_SIZE))
    store_default_sizes(p->samples, p->samples->num, u.num, k->size);
  p->samples->num += u.num;
  o->num_samples += u.num;
  k->num_samples += u.num;
  k->duration_ticks += ticks;
  o->duration_ticks += ticks; // of so many samples, of 32 bits each: they fit
  return ERR_OK;
}

// Leftovers of encryption would contradict what is added.
static bool is_protection(const struct box *b) {
  switch (b->type) {
  case FOURCC('s', 'e', 'n', 'c'): return true;
  case FOURCC('s', 'a', 'i', 'z'):
  case FOURCC('s', 'a', 'i', 'o'): return box_is_cenc_aux(b->body);
  case FOURCC('u', 'u', 'i', 'd'): return box_is_piff_senc(b);
  case FOURCC('s', 'g', 'p', 'd'):
  case FOURCC('s', 'b', 'g', 'p'): return b->body.n >= 8 && load_be32(b->body.p + 4) == FOURCC('s', 'e', 'i', 'g');
  default: return false;
  }
}

// First look at a traf: its tfhd, which comes first, and whether there is a tfdt.
static enum err scan_traf(struct frag_parser *p, struct traf *k, struct reader r) {
  while (rd_left(&r)) {
    struct box b;
    enum err e = trail_next(&p->t, &b, &r);
    if (e)
      return e;
    if (is_protection(&b))
      return trail_fail(&p->t, ERR_PROTECTED, b.pos, "the fragment carries encryption boxes, the track is not encrypted");
    if (b.type == FOURCC('t', 'f', 'h', 'd')) {
      if (k->has_tfhd)
        return trail_fail(&p->t, ERR_MALFORMED, b.pos, "a second tfhd");
      k->has_tfhd = true;
      k->tfhd = b;
    } else if (b.type == FOURCC('t', 'f', 'd', 't')) {
      if (k->has_tfdt)
        return trail_fail(&p->t, ERR_MALFORMED, b.pos, "a second tfdt");
      k->has_tfdt = true;
    } else if (b.type == FOURCC('t', 'r', 'u', 'n') && !k->has_tfhd) {
      return trail_fail(&p->t, ERR_MALFORMED, b.pos, "a trun before tfhd");
    }
  }
  if (!k->has_tfhd)
    return trail_fail(&p->t, ERR_MISSING, k->box.pos, "no tfhd");
  return ERR_OK;
}

// Auxiliary information of another kind: what saio's offsets point at may lie anywhere, and players look at one pair.
static bool is_foreign_aux(const struct box *b) {
  return (b->type == FOURCC('s', 'a', 'i', 'z') || b->type == FOURCC('s', 'a', 'i', 'o')) && !box_is_cenc_aux(b->body);
}

static enum err traf_children(struct frag_parser *p, struct traf *k, struct reader r) {
  while (rd_left(&r)) {
    struct box b;
    enum err e = trail_next(&p->t, &b, &r);
    if (e)
      return e;
    trail_in(&p->t, b.type);
    if (b.type == FOURCC('t', 'f', 'h', 'd')) {
      e = parse_tfhd(p, k);
      if (!e && !k->has_tfdt)
        e = insert_tfdt(p, k);
    } else if (b.type == FOURCC('t', 'f', 'd', 't')) {
      e = parse_tfdt(p, k, &b);
    } else if (b.type == FOURCC('t', 'r', 'u', 'n')) {
      e = parse_trun(p, k, &b);
    } else if (is_foreign_aux(&b)) {
      e = add_edit(p, (struct ix_edit){.pos = (uint32_t)b.pos, .del = (uint32_t)b.len, .kind = IX_DELETE});
      k->delta -= (int64_t)b.len;
    }
    if (e)
      return e;
    trail_out(&p->t);
  }
  return ERR_OK;
}

static enum err parse_traf(struct frag_parser *p, const struct box *b, struct reader r) {
  struct frag_moof *o = p->out;
  struct traf k = {.box = *b, .first_sample = o->num_samples};
  enum err e = scan_traf(p, &k, r);
  uint32_t edit;
  e = e ? e : add_size(p, b, &edit);
  e = e ? e : traf_children(p, &k, r);
  if (e)
    return e;
  if (__builtin_add_overflow(k.time_ticks, k.duration_ticks, &o->end_ticks))
    return trail_fail(&p->t, ERR_OVERFLOW, b->pos, "decode times");
  if (k.num_samples && !o->has_time) {
    o->time_ticks = k.time_ticks;
    o->has_time = true;
  }
  o->delta += k.delta;
  p->last_data = k.next;
  if (!k.num_samples) {
    set_size(p, edit, k.delta, IX_SCOPE_NONE, 0);
    return ERR_OK;
  }
  if (o->trafs.num == IX_MAX_FRAG_TRAFS)
    return trail_fail(&p->t, ERR_LIMIT, b->pos, "more than %d trafs in one fragment", IX_MAX_FRAG_TRAFS);
  struct ix_traf *traf = list_add(&o->trafs, p->mem, sizeof *traf);
  if (!traf)
    return trail_fail(&p->t, ERR_NO_MEMORY, b->pos, NULL);
  *traf = (struct ix_traf){(uint32_t)k.num_samples, (uint32_t)k.first_sample};
  uint32_t number = o->trafs.num - 1;
  set_size(p, edit, k.delta, IX_SCOPE_TRAF, number);
  return add_edit(p, (struct ix_edit){.pos = (uint32_t)(b->pos + b->len), .arg = number, .kind = IX_PROTECT});
}

static void reset(struct frag_moof *o, uint64_t end) {
  o->edits.num = o->spans.num = o->fixes.num = o->trafs.num = 0;
  o->num_samples = o->duration_ticks = o->time_ticks = 0;
  o->data_end = end;
  o->delta = 0;
  o->has_time = o->not_sync = false;
}

enum err frag_parse(struct frag_moof *out, struct frag_samples *samples, struct alloc *mem,
                    const struct frag_defaults *defaults, struct bytes moof, struct frag_place place,
                    struct diag *diag) {
  struct frag_parser p = {.t = {.diag = diag, .base = place.pos}, .mem = mem, .defaults = defaults, .place = place,
                          .out = out, .samples = samples, .moof_len = moof.n, .last_data = place.pos};
  reset(out, place.pos + moof.n);
  out->end_ticks = place.next_time;
  struct reader r = rd_of(moof);
  struct box b;
  uint32_t edit;
  enum err e = trail_next(&p.t, &b, &r);
  if (e || !b.len)
    return e ? e : trail_fail(&p.t, ERR_TRUNCATED, 0, NULL);
  trail_in(&p.t, b.type);
  e = add_size(&p, &b, &edit);
  struct reader children = box_reader(&r, &b);
  while (!e && rd_left(&children)) {
    struct box c;
    e = trail_next(&p.t, &c, &children);
    if (!e && c.type == FOURCC('p', 's', 's', 'h')) { // as in moov: left over
      e = add_edit(&p, (struct ix_edit){.pos = (uint32_t)c.pos, .del = (uint32_t)c.len, .kind = IX_DELETE});
      out->delta -= (int64_t)c.len;
    }
    if (e || c.type != FOURCC('t', 'r', 'a', 'f'))
      continue;
    trail_in(&p.t, c.type);
    e = parse_traf(&p, &c, box_reader(&children, &c));
    if (!e)
      trail_out(&p.t);
  }
  if (e)
    return e;
  if (!out->has_time)
    out->time_ticks = out->end_ticks;
  set_size(&p, edit, out->delta, out->trafs.num ? IX_SCOPE_MOOF : IX_SCOPE_NONE, 0);
  uint64_t end_ticks;
  if (__builtin_add_overflow(out->time_ticks, out->duration_ticks, &end_ticks))
    return trail_fail(&p.t, ERR_OVERFLOW, 0, "decode times");
  if (out->end_ticks < end_ticks) // trafs that run backwards
    out->end_ticks = end_ticks;
  return ERR_OK;
}
