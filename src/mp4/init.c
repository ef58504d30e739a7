// Each parser cites its clause of ISO/IEC 14496-12; what a sample entry holds is codec.c's.
#include "mp4/init.h"

enum { MAX_TRACKS_SEEN = 64, MAX_PARENTS = 8 };

// One trak as far as it matters. Slices point into the moov.
struct trak {
  uint32_t track_id, handler, timescale, num_entries, stsd_version;
  uint16_t language;
  struct bytes extended_language;
  int64_t edit_media_time;
  uint64_t elst_pos;
  struct box entries[IX_MAX_SINF];
  uint32_t children_len[IX_MAX_SINF]; // of each entry's payload, up to the end of the last child
  bool has_samples, has_stsd;
  // moov, trak, mdia, minf, stbl, stsd: what grows when an entry grows
  struct box parents[MAX_PARENTS];
  uint32_t num_parents;
};

struct init_parser {
  struct box_trail t;
  struct alloc *mem;
  struct list *edits;
  struct init_info info;
  struct trak trak; // the first one
  struct reader children; // of moov
  uint32_t num_traks;
  bool protected, has_mvex, has_trex, has_samples;
};

// Reads a child's version and flags; `r` is over its payload.
static uint32_t full_head(struct reader *r) { return rd_u32(r); }

// 8.6.6: the media time of the first edit that has media; -1 stands for an empty edit.
static enum err parse_elst(struct trak *k, struct reader r) {
  unsigned version = full_head(&r) >> 24;
  uint32_t num = rd_u32(&r);
  size_t each = version == 1 ? 20 : 12;
  if (r.err || version > 1 || num > rd_left(&r) / each)
    return r.err ? r.err : ERR_MALFORMED;
  for (uint32_t i = 0; i < num; i++) {
    rd_skip(&r, version == 1 ? 8 : 4);
    int64_t time = version == 1 ? (int64_t)rd_u64(&r) : (int32_t)rd_u32(&r);
    rd_skip(&r, 4);
    if (time >= 0) {
      k->edit_media_time = time;
      break;
    }
  }
  return r.err;
}

// 8.4.2.
static enum err parse_mdhd(struct trak *k, struct reader r) {
  unsigned version = full_head(&r) >> 24;
  rd_skip(&r, version == 1 ? 16 : 8);
  k->timescale = rd_u32(&r);
  rd_skip(&r, version == 1 ? 8 : 4);
  k->language = rd_u16(&r);
  if (r.err || version > 1 || !k->timescale)
    return r.err ? r.err : ERR_MALFORMED;
  return ERR_OK;
}

// 8.3.2. Track 0 is none (8.3.2.3).
static enum err parse_tkhd(struct trak *k, struct reader r) {
  unsigned version = full_head(&r) >> 24;
  rd_skip(&r, version == 1 ? 16 : 8);
  k->track_id = rd_u32(&r);
  return r.err || version > 1 || !k->track_id ? (r.err ? r.err : ERR_MALFORMED) : ERR_OK;
}

// A count of stsz, stz2 (8.7.3), stts (8.6.1.2), stsc (8.7.4), stco or co64 (8.7.5) that is not zero means samples in moov.
static enum err parse_sample_table(struct init_parser *p, struct reader r, uint32_t type) {
  rd_skip(&r, type == FOURCC('s', 't', 's', 'z') || type == FOURCC('s', 't', 'z', '2') ? 8 : 4);
  if (rd_u32(&r))
    p->has_samples = true;
  return r.err;
}

// 8.12: what sample entries are called whose own type stands in a sinf.
static bool is_protected_type(uint32_t type) {
  return type == FOURCC('e', 'n', 'c', 'a') || type == FOURCC('e', 'n', 'c', 'v') || type == FOURCC('e', 'n', 'c', 't') ||
         type == FOURCC('e', 'n', 'c', 's') || type == FOURCC('e', 'n', 'c', 'm');
}

// 8.9.3. A seig description that goes for every sample (ISO/IEC 23001-7 6) is left over from a protection that was taken off: players
// would believe it more than what is added. One that nothing refers to does no harm.
static enum err parse_sgpd(struct bytes body) {
  struct reader r = rd_of(body);
  unsigned version = full_head(&r) >> 24;
  uint32_t grouping = rd_u32(&r);
  rd_skip(&r, 4);
  return grouping == FOURCC('s', 'e', 'i', 'g') && version >= 2 && rd_u32(&r) ? ERR_PROTECTED : ERR_OK;
}

// 8.5.2.
static enum err parse_stsd(struct init_parser *p, struct trak *k, struct reader r) {
  size_t at = rd_pos(&r);
  if (k->has_stsd)
    return trail_fail(&p->t, ERR_MALFORMED, at, "a second stsd");
  k->has_stsd = true;
  k->stsd_version = full_head(&r) >> 24;
  uint32_t num = rd_u32(&r);
  if (r.err || !num)
    return trail_fail(&p->t, r.err ? r.err : ERR_MISSING, at, "no sample entries");
  for (k->num_entries = 0; rd_left(&r); k->num_entries++) {
    struct box b;
    enum err e = trail_next(&p->t, &b, &r);
    if (e)
      return e;
    if (is_protected_type(b.type))
      p->protected = true;
    if (k->num_entries == IX_MAX_SINF)
      return trail_fail(&p->t, ERR_LIMIT, (uint64_t)b.pos, "more than %d sample entries", IX_MAX_SINF);
    k->entries[k->num_entries] = b;
  }
  if (k->num_entries != num)
    return trail_fail(&p->t, ERR_MALFORMED, at, "%u sample entries are announced, %u are there", num, k->num_entries);
  return ERR_OK;
}

// Where in a trak parsing is: whose children are read.
enum level { IN_TRAK, IN_MDIA, IN_MINF, IN_STBL, IN_EDTS };

// Boxes count at their own place only: QuickTime has a second hdlr in minf.
static enum level level_of(uint32_t type) {
  switch (type) {
  case FOURCC('t', 'k', 'h', 'd'): return IN_TRAK;
  case FOURCC('e', 'l', 's', 't'): return IN_EDTS;
  case FOURCC('m', 'd', 'h', 'd'):
  case FOURCC('e', 'l', 'n', 'g'):
  case FOURCC('h', 'd', 'l', 'r'): return IN_MDIA;
  default: return IN_STBL;
  }
}

// elng: 8.4.6; hdlr: 8.4.3.
static enum err parse_leaf(struct init_parser *p, struct trak *k, const struct box *b, struct reader r,
                           enum level level) {
  enum err e = ERR_OK;
  if (level_of(b->type) != level)
    return ERR_OK;
  switch (b->type) {
  case FOURCC('t', 'k', 'h', 'd'): e = parse_tkhd(k, r); break;
  case FOURCC('e', 'l', 's', 't'):
    k->elst_pos = p->t.base + b->pos;
    e = parse_elst(k, r);
    break;
  case FOURCC('m', 'd', 'h', 'd'): e = parse_mdhd(k, r); break;
  case FOURCC('e', 'l', 'n', 'g'):
    rd_skip(&r, 4);
    k->extended_language = rd_bytes(&r, rd_left(&r));
    break;
  case FOURCC('h', 'd', 'l', 'r'):
    rd_skip(&r, 8);
    k->handler = rd_u32(&r);
    e = r.err;
    break;
  case FOURCC('s', 't', 's', 'd'): return parse_stsd(p, k, r);
  case FOURCC('s', 'g', 'p', 'd'):
    e = parse_sgpd(b->body);
    return e ? trail_fail(&p->t, e, b->pos, "a sample group says how all samples are protected, the track is not encrypted") : e;
  case FOURCC('s', 't', 's', 'z'):
  case FOURCC('s', 't', 'z', '2'):
  case FOURCC('s', 't', 't', 's'):
  case FOURCC('s', 't', 's', 'c'):
  case FOURCC('s', 't', 'c', 'o'):
  case FOURCC('c', 'o', '6', '4'): e = parse_sample_table(p, r, b->type); break;
  default: break;
  }
  return e ? trail_fail(&p->t, e, b->pos, NULL) : ERR_OK;
}

// Children of trak (8.3.1) and of the parents in it that lead to the sample entries: mdia (8.4.1), minf (8.4.4), stbl (8.5.1);
// and of edts (8.6.5). Recursion is as deep as `down` is long.
static enum err parse_trak(struct init_parser *p, struct trak *k, struct reader r, enum level level) {
  static const uint32_t down[] = {[IN_TRAK] = FOURCC('m', 'd', 'i', 'a'), [IN_MDIA] = FOURCC('m', 'i', 'n', 'f'),
                                  [IN_MINF] = FOURCC('s', 't', 'b', 'l'), [IN_STBL] = FOURCC('s', 't', 's', 'd'),
                                  [IN_EDTS] = 0};
  bool seen = false;
  while (rd_left(&r)) {
    struct box b;
    enum err e = trail_next(&p->t, &b, &r);
    if (e)
      return e;
    struct reader child = box_reader(&r, &b);
    trail_in(&p->t, b.type);
    if (b.type == down[level] && level != IN_EDTS) {
      if (seen)
        return trail_fail(&p->t, ERR_MALFORMED, b.pos, "the box stands twice");
      seen = true;
      k->parents[k->num_parents++] = b;
    }
    if (b.type == down[level] && level < IN_STBL)
      e = parse_trak(p, k, child, level + 1);
    else if (b.type == FOURCC('e', 'd', 't', 's') && level == IN_TRAK)
      e = parse_trak(p, k, child, IN_EDTS);
    else
      e = parse_leaf(p, k, &b, child, level);
    if (e)
      return e;
    trail_out(&p->t);
  }
  return ERR_OK;
}

// 8.8.1, and trex: 8.8.3.
static enum err parse_mvex(struct init_parser *p, struct reader r) {
  while (rd_left(&r)) {
    struct box b;
    enum err e = trail_next(&p->t, &b, &r);
    if (e)
      return e;
    if (b.type != FOURCC('t', 'r', 'e', 'x'))
      continue;
    struct reader x = box_reader(&r, &b);
    rd_skip(&x, 4);
    uint32_t track = rd_u32(&x);
    uint32_t index = rd_u32(&x), duration = rd_u32(&x), size = rd_u32(&x), flags = rd_u32(&x);
    if (x.err)
      return trail_fail(&p->t, x.err, b.pos, "trex");
    if (track == p->trak.track_id) {
      p->info.description_index = index;
      p->info.sample_duration = duration;
      p->info.sample_size = size;
      p->info.sample_flags = flags;
      p->has_trex = true;
    }
  }
  return ERR_OK;
}

// 8.2.1.
static enum err parse_moov(struct init_parser *p, struct reader r, const struct box *moov) {
  struct reader mvex = {0};
  while (rd_left(&r)) {
    struct box b;
    enum err e = trail_next(&p->t, &b, &r);
    if (e)
      return e;
    struct reader child = box_reader(&r, &b);
    trail_in(&p->t, b.type);
    if (b.type == FOURCC('t', 'r', 'a', 'k')) {
      if (p->num_traks == MAX_TRACKS_SEEN)
        return trail_fail(&p->t, ERR_LIMIT, b.pos, "too many tracks");
      struct trak other = {0}, *k = p->num_traks ? &other : &p->trak;
      k->parents[k->num_parents++] = *moov;
      k->parents[k->num_parents++] = b;
      p->num_traks++;
      e = parse_trak(p, k, child, IN_TRAK);
    } else if (b.type == FOURCC('m', 'v', 'e', 'x')) {
      if (p->has_mvex) // readers differ in which of them they read
        return trail_fail(&p->t, ERR_MALFORMED, b.pos, "the box stands twice");
      p->has_mvex = true;
      mvex = child;
    }
    if (e)
      return e;
    trail_out(&p->t);
  }
  trail_in(&p->t, FOURCC('m', 'v', 'e', 'x'));
  enum err e = parse_mvex(p, mvex); // its trex boxes name tracks, and it may stand before them
  if (!e)
    trail_out(&p->t);
  return e;
}

static const char *handler_text(uint32_t handler) {
  switch (handler) {
  case FOURCC('v', 'i', 'd', 'e'): return "the track is not audio but video";
  case FOURCC('t', 'e', 'x', 't'):
  case FOURCC('s', 'u', 'b', 't'): return "the track is not audio but text";
  default: return "the track is not audio";
  }
}

// What kind of file this is: everything that is out of scope gets its own error, the most telling one first.
static enum err check_kind(struct init_parser *p) {
  if (p->protected)
    return trail_fail(&p->t, ERR_PROTECTED, 0, NULL);
  if (!p->num_traks)
    return trail_fail(&p->t, ERR_MISSING, 0, "no track");
  if (p->num_traks > 1)
    return trail_fail(&p->t, ERR_UNSUPPORTED, 0, "%u tracks in one file; one audio track is expected (ffmpeg's -map 0:a:0 -map_chapters -1 takes the first alone)", p->num_traks);
  if (p->trak.handler != FOURCC('s', 'o', 'u', 'n'))
    return trail_fail(&p->t, p->trak.handler ? ERR_NOT_AUDIO : ERR_MISSING, 0, "%s",
                      p->trak.handler ? handler_text(p->trak.handler) : "no hdlr");
  if (p->has_samples || !p->has_mvex)
    return trail_fail(&p->t, ERR_PROGRESSIVE, 0, NULL);
  if (!p->trak.track_id || !p->trak.timescale || !p->trak.has_stsd)
    return trail_fail(&p->t, ERR_MISSING, 0, "the track has no %s",
                      !p->trak.track_id ? "tkhd" : !p->trak.timescale ? "mdhd" : "stsd");
  if (!p->has_trex)
    return trail_fail(&p->t, ERR_MISSING, 0, "no trex for the track");
  return ERR_OK;
}

static enum err add_edit(struct init_parser *p, struct ix_edit edit) {
  struct ix_edit *e = list_add(p->edits, p->mem, sizeof *e);
  if (!e)
    return trail_fail(&p->t, ERR_NO_MEMORY, 0, NULL);
  *e = edit;
  return ERR_OK;
}

static enum err add_size(struct init_parser *p, const struct box *b, enum ix_scope scope, uint32_t num) {
  bool wide = b->head_len == 16;
  uint64_t pos = p->t.base + b->pos + (wide ? 8 : 0);
  struct ix_edit e = {.pos = (uint32_t)pos, .del = wide ? 8 : 4, .value = (uint32_t)b->len, .arg = num,
                      .kind = wide ? IX_SIZE64 : IX_SIZE32, .scope = (uint8_t)scope};
  return add_edit(p, e);
}

// pssh boxes of a moov whose samples are clear are left over from a protection that was taken off: players would ask for keys of it.
// Adds edits that delete those in [from, to), and their lengths to *len. ISO/IEC 23001-7 8.1.
static enum err drop_pssh(struct init_parser *p, uint64_t from, uint64_t to, uint32_t *len) {
  struct reader r = p->children;
  struct box b;
  enum err e = ERR_OK;
  while (!e && rd_left(&r)) {
    e = trail_next(&p->t, &b, &r);
    if (e || b.type != FOURCC('p', 's', 's', 'h') || b.pos < from || b.pos >= to)
      continue;
    *len += (uint32_t)b.len;
    e = add_edit(p, (struct ix_edit){.pos = (uint32_t)(p->t.base + b.pos), .del = (uint32_t)b.len, .kind = IX_DELETE});
  }
  return e;
}

// Sizes of what stands around the entries, the entries' new types, and where sinf (8.12.1) and pssh (ISO/IEC 23001-7 8.1) go.
static enum err add_edits(struct init_parser *p) {
  struct trak *k = &p->trak;
  enum err e = ERR_OK;
  uint32_t moov = p->edits->num, dropped = 0;
  for (uint32_t i = 0; !e && i < k->num_parents; i++) {
    if (i == 1)
      e = drop_pssh(p, 0, k->parents[1].pos, &dropped);
    e = e ? e : add_size(p, &k->parents[i], i ? IX_SCOPE_SINF : IX_SCOPE_MOOV, k->num_entries);
  }
  for (uint32_t i = 0; !e && i < k->num_entries; i++) {
    const struct box *b = &k->entries[i];
    uint32_t pos = (uint32_t)(p->t.base + b->pos);
    struct ix_edit type = {.pos = pos + 4, .del = 4, .value = FOURCC('e', 'n', 'c', 'a'), .kind = IX_ENTRY};
    struct ix_edit sinf = {.pos = pos + b->head_len + k->children_len[i], .value = b->type, .kind = IX_SINF};
    if (b->head_len == 16) { // the size stands behind the type
      e = add_edit(p, type);
      e = e ? e : add_size(p, b, IX_SCOPE_SINF, 1);
    } else {
      e = add_size(p, b, IX_SCOPE_SINF, 1);
      e = e ? e : add_edit(p, type);
    }
    e = e ? e : add_edit(p, sinf);
  }
  e = e ? e : drop_pssh(p, k->parents[1].pos, k->parents[0].len, &dropped);
  e = e ? e : add_edit(p, (struct ix_edit){.pos = (uint32_t)(p->t.base + k->parents[0].len), .kind = IX_PSSH});
  if (!e)
    ((struct ix_edit *)p->edits->p)[moov].value -= dropped;
  return e;
}

// RFC 5646 by elng where there is one (8.4.6), else the three letters of mdhd (8.4.2).
static void set_language(struct init_info *info, const struct trak *k) {
  codec_language(info->language, k->language);
  struct bytes x = k->extended_language;
  while (x.n && !x.p[x.n - 1])
    x.n--;
  if (x.n < 2 || x.n >= sizeof info->language)
    return;
  // It goes into manifests, and MPDs are invalid with anything but xs:language: subtags of one to eight, the first of letters.
  size_t len = 0;
  bool first = true;
  for (size_t i = 0; i < x.n; i++) {
    uint8_t c = x.p[i];
    bool letter = (c | 32) >= 'a' && (c | 32) <= 'z';
    if (c == '-' ? !len : !letter && (first || c < '0' || c > '9'))
      return;
    first &= c != '-';
    len = c == '-' ? 0 : len + 1;
    if (len > 8)
      return;
  }
  if (!len)
    return;
  memcpy(info->language, x.p, x.n);
  info->language[x.n] = 0;
}

enum err init_parse(struct init_info *out, struct list *edits, struct alloc *mem, struct bytes moov, uint64_t pos,
                    struct diag *diag) {
  struct init_parser p = {.t = {.diag = diag, .base = pos}, .mem = mem, .edits = edits};
  struct reader r = rd_of(moov);
  struct box b;
  if (pos + moov.n > IX_MAX_INIT)
    return trail_fail(&p.t, ERR_LIMIT, 0, "the init segment is longer than %d bytes", IX_MAX_INIT);
  enum err e = trail_next(&p.t, &b, &r);
  if (e || !b.len)
    return e ? e : trail_fail(&p.t, ERR_TRUNCATED, 0, NULL);
  trail_in(&p.t, b.type);
  p.children = box_reader(&r, &b);
  e = parse_moov(&p, p.children, &b);
  if (e)
    return e;
  e = check_kind(&p);
  struct trak *k = &p.trak;
  uint32_t depth = p.t.depth;
  for (uint32_t i = 1; !e && i < k->num_parents; i++)
    trail_in(&p.t, k->parents[i].type);
  for (uint32_t i = 0; !e && i < k->num_entries; i++) {
    struct codec_info c = {0};
    trail_in(&p.t, k->entries[i].type);
    e = codec_parse(&c, &p.t, &k->entries[i], k->stsd_version);
    if (!e && i == 0)
      p.info.codec = c;
    k->children_len[i] = e ? 0 : c.children_len;
    if (!e)
      trail_out(&p.t);
  }
  if (!e)
    p.t.depth = depth;
  e = e ? e : add_edits(&p);
  if (e)
    return e;
  if (!p.info.codec.sample_rate) // IAMF has none; audio tracks count their time in it
    p.info.codec.sample_rate = k->timescale;
  p.info.track_id = k->track_id;
  p.info.timescale = k->timescale;
  p.info.format = k->entries[0].type;
  p.info.num_sinf = k->num_entries;
  p.info.edit_media_time = k->edit_media_time;
  p.info.delay = init_delay(moov, k->timescale);
  p.info.elst_pos = k->elst_pos;
  set_language(&p.info, k);
  *out = p.info;
  return ERR_OK;
}

// Opens the first box at a path below `r`: its payload. False: there is none.
static bool descend(struct reader *r, const uint32_t *path, size_t num) {
  struct box b;
  for (size_t i = 0; i < num; i++) {
    do {
      if (box_next(&b, r) || !b.len)
        return false;
    } while (b.type != path[i]);
    *r = box_reader(r, &b);
  }
  return true;
}

// Source: ISO/IEC 14496-12 8.5.2, and the boxes around stsd.
uint32_t init_layout(struct bytes init) {
  static const uint32_t path[] = {FOURCC('m', 'o', 'o', 'v'), FOURCC('t', 'r', 'a', 'k'), FOURCC('m', 'd', 'i', 'a'),
                                  FOURCC('m', 'i', 'n', 'f'), FOURCC('s', 't', 'b', 'l'), FOURCC('s', 't', 's', 'd')};
  struct reader r = rd_of(init);
  struct box b;
  if (!descend(&r, path, sizeof path / sizeof *path))
    return 0;
  unsigned version = full_head(&r) >> 24;
  rd_skip(&r, 4);
  struct diag diag = {0};
  struct box_trail t = {.diag = &diag};
  struct codec_info c;
  return r.err || box_next(&b, &r) || !b.len || codec_parse(&c, &t, &b, version) ? 0 : c.layout;
}

// Source: ISO/IEC 14496-12 8.2.2 (the timescale of an edit's duration), 8.6.6.
uint64_t init_delay(struct bytes init, uint32_t timescale) {
  static const uint32_t to_mvhd[] = {FOURCC('m', 'o', 'o', 'v'), FOURCC('m', 'v', 'h', 'd')},
                        to_elst[] = {FOURCC('m', 'o', 'o', 'v'), FOURCC('t', 'r', 'a', 'k'), FOURCC('e', 'd', 't', 's'), FOURCC('e', 'l', 's', 't')};
  struct reader mvhd = rd_of(init), elst = rd_of(init);
  if (!descend(&mvhd, to_mvhd, 2) || !descend(&elst, to_elst, 4))
    return 0;
  rd_skip(&mvhd, full_head(&mvhd) >> 24 == 1 ? 16 : 8);
  uint32_t movie = rd_u32(&mvhd), num;
  bool wide = full_head(&elst) >> 24 == 1;
  unsigned __int128 empty = 0; // fewer than 2^20 edits fit in an init segment: the product with a timescale has less than 2^116
  for (num = rd_u32(&elst); num && !elst.err && movie && !mvhd.err; num--) {
    uint64_t duration = wide ? rd_u64(&elst) : rd_u32(&elst);
    int64_t time = wide ? (int64_t)rd_u64(&elst) : (int32_t)rd_u32(&elst);
    rd_skip(&elst, 4);
    if (time < 0) {
      empty += duration;
      continue;
    }
    empty = (empty * timescale + movie / 2) / movie;
    return elst.err ? 0 : empty > UINT64_MAX ? UINT64_MAX : (uint64_t)empty;
  }
  return 0; // nothing but empty edits: nothing is presented
}
