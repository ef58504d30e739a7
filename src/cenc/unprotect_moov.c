// moov: which tracks are protected and how, and the same box without its protection.
#include "cenc/unprotect_parts.h"

#define CC(a, b, c, d) FOURCC(a, b, c, d)

// Sample entries: bytes of payload before the children. Source: ISO/IEC 14496-12 §12.1.3 (visual), §8.5.2 (stsd).
enum { VISUAL_HEAD = 78, STSD_HEAD = 8 };

// Source: ISO/IEC 23001-7 §8.2 (tenc), §6 (seig, which has no version and always a pattern).
enum err tenc_read(struct tenc *out, struct reader *r, bool seig) {
  struct tenc t = {0};
  unsigned version = 1;
  if (!seig)
    version = rd_u32(r) >> 24;
  rd_skip(r, 1);
  uint8_t pattern = rd_u8(r);
  if (version > 0)
    t.pattern = (struct aes_pattern){pattern >> 4, pattern & 15};
  uint8_t protected = rd_u8(r);
  t.protected = protected == 1;
  t.iv_len = rd_u8(r);
  struct bytes kid = rd_bytes(r, 16);
  if (t.protected && t.iv_len == 0) {
    t.const_iv_len = rd_u8(r);
    struct bytes iv = rd_bytes(r, t.const_iv_len <= 16 ? t.const_iv_len : 0);
    if (r->err)
      return r->err;
    memcpy(t.const_iv, iv.p, iv.n);
  }
  if (r->err)
    return r->err;
  memcpy(t.kid, kid.p, 16);
  bool iv_ok = t.iv_len == 0 || t.iv_len == 8 || t.iv_len == 16;
  bool const_ok = t.const_iv_len == 0 || t.const_iv_len == 8 || t.const_iv_len == 16;
  if (protected > 1 || !iv_ok || !const_ok || (t.protected && !t.iv_len && !t.const_iv_len))
    return ERR_MALFORMED;
  *out = t;
  return ERR_OK;
}

// What a sinf says.
struct sinf {
  uint32_t original, scheme;
  bool has_tenc;
  struct tenc tenc;
};

// Source: ISO/IEC 14496-12 §8.12.6.
static enum err schi_read(struct sinf *out, const struct unp *u, struct bytes body) {
  struct reader r = unp_reader(u, body);
  struct box b;
  enum err e;
  while (unp_next(u, &b, &r, &e))
    if (b.type == CC('t', 'e', 'n', 'c')) {
      struct reader f = unp_reader(u, b.body);
      if ((e = tenc_read(&out->tenc, &f, false)) != ERR_OK)
        return unp_fail(u, e, b.body.p, b.type, NULL);
      out->has_tenc = true;
    }
  return e;
}

// Source: ISO/IEC 14496-12 §8.12.1 (sinf), §8.12.2 (frma), §8.12.5 (schm).
static enum err sinf_read(struct sinf *out, const struct unp *u, const struct box *sinf) {
  struct reader r = unp_reader(u, sinf->body);
  struct box b;
  enum err e;
  *out = (struct sinf){0};
  while (unp_next(u, &b, &r, &e)) {
    if (b.type == CC('f', 'r', 'm', 'a') && b.body.n >= 4)
      out->original = load_be32(b.body.p);
    else if (b.type == CC('s', 'c', 'h', 'm') && b.body.n >= 8)
      out->scheme = load_be32(b.body.p + 4);
    else if (b.type == CC('s', 'c', 'h', 'i') && (e = schi_read(out, u, b.body)) != ERR_OK)
      return e;
  }
  if (!e && (!out->original || !out->scheme))
    return unp_fail(u, ERR_MALFORMED, sinf->body.p, sinf->type, "sinf lacks frma or schm");
  return e;
}

// Source: ISO/IEC 14496-12 §8.12.
static bool is_encrypted_entry(uint32_t type) { return type == CC('e', 'n', 'c', 'a') || type == CC('e', 'n', 'c', 'v'); }

static enum err entry_head(size_t *out, const struct unp *u, const struct box *entry, unsigned stsd_version) {
  if (entry->type == CC('e', 'n', 'c', 'v')) {
    *out = VISUAL_HEAD;
    return entry->body.n >= VISUAL_HEAD ? ERR_OK : unp_fail(u, ERR_TRUNCATED, entry->body.p, entry->type, NULL);
  }
  enum err e = box_entry_head(out, entry->body, stsd_version);
  return e ? unp_fail(u, e, entry->body.p, entry->type, NULL) : ERR_OK;
}

// QuickTime may end the boxes of a sound description with a 32-bit 0. Source: QuickTime File Format, sound media.
static bool at_terminator(const struct reader *r, unsigned stsd_version) {
  return stsd_version == 0 && rd_left(r) == 4 && load_be32(r->p) == 0;
}

// One sinf is looked at, the first: others would be of other schemes (ISO/IEC 14496-12 §8.12.1). Schemes: ISO/IEC 23001-7 §10.
static enum err entry_read(struct entry *out, const struct unp *u, const struct box *entry, unsigned stsd_version) {
  *out = (struct entry){0};
  if (!is_encrypted_entry(entry->type))
    return ERR_OK;
  size_t head;
  enum err e = entry_head(&head, u, entry, stsd_version);
  if (e)
    return e;
  struct reader r = unp_reader(u, bytes_of(entry->body.p + head, entry->body.n - head));
  struct box b;
  while (!at_terminator(&r, stsd_version) && unp_next(u, &b, &r, &e)) {
    struct sinf s;
    if (b.type != CC('s', 'i', 'n', 'f') || out->scheme)
      continue;
    if ((e = sinf_read(&s, u, &b)) != ERR_OK)
      return e;
    if (s.scheme != CC('c', 'e', 'n', 'c') && s.scheme != CC('c', 'e', 'n', 's') && s.scheme != CC('c', 'b', 'c', '1') &&
        s.scheme != CC('c', 'b', 'c', 's'))
      return unp_fail(u, ERR_UNSUPPORTED, b.body.p, b.type, "the protection scheme is none of cenc, cens, cbc1, cbcs");
    if (!s.has_tenc)
      return unp_fail(u, ERR_MISSING, b.body.p, b.type, "sinf lacks tenc");
    out->scheme = s.scheme;
    out->tenc = s.tenc;
  }
  if (!e && !out->scheme)
    return unp_fail(u, ERR_MISSING, entry->body.p, entry->type, "the encrypted sample entry lacks sinf");
  return e;
}

// Source: ISO/IEC 14496-12 §8.5.2.
static enum err stsd_read(struct track *t, const struct unp *u, const struct box *stsd) {
  struct reader r = unp_reader(u, stsd->body);
  unsigned version = rd_u32(&r) >> 24;
  rd_skip(&r, 4);
  if (r.err)
    return unp_fail(u, r.err, stsd->body.p, stsd->type, NULL);
  struct box b;
  enum err e;
  while (unp_next(u, &b, &r, &e)) {
    if (t->num_entries == UNP_MAX_ENTRIES)
      return unp_fail(u, ERR_LIMIT, stsd->body.p, stsd->type, "a track has too many sample entries");
    if ((e = entry_read(&t->entries[t->num_entries++], u, &b, version)) != ERR_OK)
      return e;
  }
  return e;
}

// A box means something only where it belongs: an index has it so too. 0: for boxes that are looked at nowhere.
// Source: ISO/IEC 14496-12 §8.3.1 (trak), §8.3.2 (tkhd), §8.4.1 (mdia), §8.4.4 (minf), §8.5.1 (stbl), §8.5.2 (stsd).
static uint32_t home_of(uint32_t type) {
  switch (type) {
  case CC('t', 'r', 'a', 'k'): return CC('m', 'o', 'o', 'v');
  case CC('t', 'k', 'h', 'd'):
  case CC('m', 'd', 'i', 'a'): return CC('t', 'r', 'a', 'k');
  case CC('m', 'i', 'n', 'f'): return CC('m', 'd', 'i', 'a');
  case CC('s', 't', 'b', 'l'): return CC('m', 'i', 'n', 'f');
  case CC('s', 't', 's', 'd'):
  case CC('s', 'g', 'p', 'd'): return CC('s', 't', 'b', 'l');
  default: return 0;
  }
}

// track_read goes down trak/mdia/minf/stbl. Source: as above, §8.9.3 (sgpd).
static enum err track_read(struct track *t, const struct unp *u, const struct box *parent) {
  struct reader r = unp_reader(u, parent->body);
  struct box b;
  enum err e;
  while (unp_next(u, &b, &r, &e)) {
    if (home_of(b.type) != parent->type)
      continue;
    switch (b.type) {
    case CC('t', 'k', 'h', 'd'): {
      struct reader f = unp_reader(u, b.body);
      unsigned version = rd_u32(&f) >> 24;
      rd_skip(&f, version == 1 ? 16 : 8);
      t->id = rd_u32(&f);
      e = f.err ? unp_fail(u, f.err, b.body.p, b.type, NULL) : ERR_OK;
      break;
    }
    case CC('m', 'd', 'i', 'a'):
    case CC('m', 'i', 'n', 'f'):
    case CC('s', 't', 'b', 'l'):
      e = track_read(t, u, &b);
      break;
    case CC('s', 't', 's', 'd'):
      e = stsd_read(t, u, &b);
      break;
    case CC('s', 'g', 'p', 'd'):
      if (unp_is_seig(b.body))
        t->seig = b.body;
      break;
    default:
      break;
    }
    if (e)
      return e;
  }
  return e;
}

// Source: ISO/IEC 14496-12 §8.8.3.
static enum err trex_read(struct unp *u, const struct box *trex) {
  struct reader r = unp_reader(u, trex->body);
  rd_skip(&r, 4);
  uint32_t id = rd_u32(&r), entry = rd_u32(&r);
  rd_skip(&r, 4);
  uint32_t size = rd_u32(&r);
  if (r.err)
    return unp_fail(u, r.err, trex->body.p, trex->type, NULL);
  for (uint32_t i = 0; i < u->num_tracks; i++)
    if (u->tracks[i].id == id) {
      u->tracks[i].default_entry = entry;
      u->tracks[i].default_size = size;
      u->tracks[i].has_trex = true;
    }
  return ERR_OK;
}

// Two passes over moov's children: mvex may stand before the tracks it speaks of.
enum err moov_read(struct unp *u, const struct box *moov) {
  struct box b, c;
  enum err e;
  u->num_tracks = 0;
  struct reader r = unp_reader(u, moov->body);
  while (unp_next(u, &b, &r, &e)) {
    if (b.type != CC('t', 'r', 'a', 'k'))
      continue;
    if (u->num_tracks == UNP_MAX_TRACKS)
      return unp_fail(u, ERR_LIMIT, b.body.p, b.type, "there are too many tracks");
    struct track *t = &u->tracks[u->num_tracks++];
    *t = (struct track){0};
    if ((e = track_read(t, u, &b)) != ERR_OK)
      return e;
    for (uint32_t i = 0; i < t->num_entries; i++)
      u->any_protected |= t->entries[i].scheme != 0;
  }
  if (e)
    return e;
  r = unp_reader(u, moov->body);
  while (unp_next(u, &b, &r, &e)) {
    if (b.type != CC('m', 'v', 'e', 'x'))
      continue;
    struct reader x = unp_reader(u, b.body);
    while (unp_next(u, &c, &x, &e))
      if (c.type == CC('t', 'r', 'e', 'x') && (e = trex_read(u, &c)) != ERR_OK)
        return e;
    if (e)
      return e;
  }
  return e;
}

// Rewriting.

// The entry has its original type again, which frma holds. Source: ISO/IEC 14496-12 §8.12.2.
static enum err entry_copy(struct writer *w, const struct unp *u, const struct box *entry, unsigned stsd_version) {
  if (!is_encrypted_entry(entry->type)) {
    unp_copy(w, u, entry);
    return ERR_OK;
  }
  size_t head;
  enum err e = entry_head(&head, u, entry, stsd_version);
  if (e)
    return e;
  size_t at = unp_open(w, u, entry, head);
  uint32_t original = 0;
  struct reader r = unp_reader(u, bytes_of(entry->body.p + head, entry->body.n - head));
  struct box b;
  while (!at_terminator(&r, stsd_version) && unp_next(u, &b, &r, &e)) {
    if (b.type != CC('s', 'i', 'n', 'f')) {
      unp_copy(w, u, &b);
      continue;
    }
    struct sinf s;
    if ((e = sinf_read(&s, u, &b)) != ERR_OK)
      return e;
    if (!original)
      original = s.original;
  }
  if (e)
    return e;
  wr_raw(w, r.p, rd_left(&r)); // the terminator, if there is one
  unp_close(w, entry, at);
  if (wr_ok(w))
    store_be32(w->p + at + 4, original);
  return ERR_OK;
}

static bool is_dropped(const struct box *b) {
  return b->type == CC('p', 's', 's', 'h') || b->type == CC('s', 'a', 'i', 'z') || b->type == CC('s', 'a', 'i', 'o') ||
         ((b->type == CC('s', 'g', 'p', 'd') || b->type == CC('s', 'b', 'g', 'p')) && unp_is_seig(b->body));
}

static enum err children_copy(struct writer *w, const struct unp *u, const struct box *parent, size_t skip) {
  if (skip > parent->body.n)
    return unp_fail(u, ERR_MALFORMED, parent->body.p, parent->type, NULL);
  unsigned stsd_version = skip ? parent->body.p[0] : 0;
  size_t at = unp_open(w, u, parent, skip);
  struct reader r = unp_reader(u, bytes_of(parent->body.p + skip, parent->body.n - skip));
  struct box b;
  enum err e;
  while (unp_next(u, &b, &r, &e)) {
    if (parent->type == CC('s', 't', 's', 'd')) {
      e = entry_copy(w, u, &b, stsd_version);
    } else if (is_dropped(&b)) {
      continue;
    } else if (home_of(b.type) != parent->type || b.type == CC('t', 'k', 'h', 'd') || b.type == CC('s', 'g', 'p', 'd')) {
      unp_copy(w, u, &b);
    } else {
      e = children_copy(w, u, &b, b.type == CC('s', 't', 's', 'd') ? STSD_HEAD : 0);
    }
    if (e)
      return e;
  }
  if (!e)
    unp_close(w, parent, at);
  return e;
}

enum err moov_copy(struct writer *w, const struct unp *u, const struct box *moov) {
  return children_copy(w, u, moov, 0);
}
