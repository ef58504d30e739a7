// The boxes of a response beside the source's: everything that protection has no business with must be as it was.
#include <stdlib.h>

#include "load/verify_parts.h"

bool vbox_next(struct reader *r, struct vbox *b) {
  if (r->err || rd_left(r) < 8)
    return false;
  struct reader before = *r; // to which it goes back from a box that cannot be read: something is left, also where its head is all
  b->at = rd_pos(r); // children count from the same start
  uint64_t size = rd_u32(r);
  b->type = rd_u32(r);
  b->head_len = 8;
  if (size == 1) {
    size = rd_u64(r);
    b->head_len = 16;
  } else if (size == 0 && b->type == FOURCC('m', 'd', 'a', 't')) { // to the end of the file: no box within another says so
    size = rd_left(r) + b->head_len;
  }
  if (r->err || size < b->head_len || size - b->head_len > rd_left(r)) {
    *r = before;
    return false;
  }
  b->body = rd_sub(r, (size_t)(size - b->head_len));
  return true;
}

bool vtenc_read(struct vtenc *out, struct bytes init) {
  const uint8_t *at = init.n ? memmem(init.p, init.n, "tenc", 4) : NULL;
  if (!at)
    return false;
  struct reader r = rd_of(bytes_of(at + 4, init.n - (size_t)(at + 4 - init.p)));
  rd_skip(&r, 6); // version, flags, reserved, pattern
  uint8_t is_protected = rd_u8(&r);
  out->iv_size = rd_u8(&r);
  struct bytes kid = rd_bytes(&r, 16);
  uint8_t len = out->iv_size ? 0 : rd_u8(&r);
  struct bytes iv = len == 16 ? rd_bytes(&r, 16) : (struct bytes){0};
  if (r.err || is_protected != 1 || (!out->iv_size && len != 16) || out->iv_size > 16)
    return false;
  memcpy(out->kid, kid.p, 16);
  if (iv.n)
    memcpy(out->const_iv, iv.p, 16);
  return true;
}

// ---- the walk

struct pair {
  struct check *c;
  struct vbox mine, theirs;
};

static struct bytes left_of(struct reader r) { return bytes_of(r.p, rd_left(&r)); }

static bool differ(struct pair *p, size_t at, const char *why) {
  char type[5] = "";
  store_be32((uint8_t *)type, p->mine.type);
  for (int i = 0; i < 4; i++)
    type[i] = type[i] ? type[i] : '?'; // the sentence goes on behind it
  return wrong(p->c, "byte %zu: %s in its box %s, sample data aside", at, why, type);
}

static bool same_bytes(struct pair *p, struct bytes mine, struct bytes theirs) {
  size_t at = (size_t)(mine.p - p->mine.body.start);
  size_t n = mine.n < theirs.n ? mine.n : theirs.n;
  for (size_t i = 0; i < n; i++)
    if (mine.p[i] != theirs.p[i])
      return differ(p, at + i, "it differs from the source");
  return mine.n == theirs.n || differ(p, at + n, "its length is not the source's");
}

static bool same_word(struct pair *p, struct reader *mine, struct reader *theirs, bool is_there) {
  size_t at = rd_pos(mine);
  if (!is_there)
    return true;
  uint32_t a = rd_u32(mine), b = rd_u32(theirs);
  return (a == b && !mine->err && !theirs->err) || differ(p, at, "it differs from the source");
}

// tfhd: base_data_offset may give way to default-base-is-moof; the rest stays. ISO/IEC 14496-12 8.8.7.
static bool same_tfhd(struct pair *p) {
  struct reader a = p->mine.body, b = p->theirs.body;
  uint32_t mine = rd_u32(&a), theirs = rd_u32(&b);
  if (((mine ^ theirs) & ~0x020001u) || mine & 1 || !(mine & 0x020000))
    return differ(p, p->mine.at + p->mine.head_len, "its flags are not the source's");
  bool ok = same_word(p, &a, &b, true);
  rd_skip(&b, theirs & 1 ? 8 : 0);
  return ok && same_bytes(p, left_of(a), left_of(b));
}

// trun: the data offset is proven by the samples; the rest stays. 8.8.8.
static bool same_trun(struct pair *p) {
  struct reader a = p->mine.body, b = p->theirs.body;
  uint32_t mine = rd_u32(&a), theirs = rd_u32(&b);
  if ((mine ^ theirs) & ~1u)
    return differ(p, p->mine.at + p->mine.head_len, "its flags are not the source's");
  bool ok = same_word(p, &a, &b, true); // sample_count
  rd_skip(&a, mine & 1 ? 4 : 0);
  rd_skip(&b, theirs & 1 ? 4 : 0);
  return ok && same_bytes(p, left_of(a), left_of(b));
}

// Where protection adds boxes; what a sample entry gets is compared there. ISO/IEC 23001-7 7.2, 8.1.
static bool is_added(const struct check *c, uint32_t around, uint32_t type) {
  if (c->init->clear)
    return false;
  if (around == FOURCC('t', 'r', 'a', 'f'))
    return type == FOURCC('s', 'e', 'n', 'c') || type == FOURCC('s', 'a', 'i', 'z') || type == FOURCC('s', 'a', 'i', 'o');
  return around == FOURCC('m', 'o', 'o', 'v') && type == FOURCC('p', 's', 's', 'h');
}

// Indexes, pssh of a protection that the source has no more, and auxiliary information of other kinds.
static bool is_dropped(uint32_t type) {
  return type == FOURCC('p', 's', 's', 'h') || type == FOURCC('s', 'a', 'i', 'z') || type == FOURCC('s', 'a', 'i', 'o') ||
         type == FOURCC('s', 'i', 'd', 'x') || type == FOURCC('m', 'f', 'r', 'a') || type == FOURCC('s', 's', 'i', 'x');
}

static bool is_container(uint32_t type) {
  static const uint32_t types[] = {FOURCC('m', 'o', 'o', 'f'), FOURCC('t', 'r', 'a', 'f'), FOURCC('m', 'o', 'o', 'v'),
                                   FOURCC('t', 'r', 'a', 'k'), FOURCC('m', 'd', 'i', 'a'), FOURCC('m', 'i', 'n', 'f'),
                                   FOURCC('s', 't', 'b', 'l')};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
    if (types[i] == type)
      return true;
  return false;
}

static bool same_entries(struct pair *p);

static bool same_boxes(struct check *c, uint32_t around, struct reader mine, struct reader theirs);

// Samples have been compared; what belongs to none is as it was.
static bool same_mdat(struct pair *p) {
  struct bytes mine = left_of(p->mine.body), theirs = left_of(p->theirs.body);
  if (mine.n != theirs.n)
    return differ(p, p->mine.at, "its length is not the source's");
  size_t at = p->mine.at + p->mine.head_len;
  for (size_t i = 0; i < mine.n; i++)
    if (mine.p[i] != theirs.p[i] && !p->c->is_sample[at + i])
      return differ(p, at + i, "it differs from the source");
  return true;
}

static bool same_box(struct pair *p) {
  uint32_t type = p->mine.type;
  if (type == FOURCC('m', 'd', 'a', 't') && p->c->is_sample)
    return same_mdat(p);
  if (type == FOURCC('t', 'f', 'h', 'd'))
    return same_tfhd(p);
  if (type == FOURCC('t', 'r', 'u', 'n'))
    return same_trun(p);
  if (type == FOURCC('s', 't', 's', 'd'))
    return same_entries(p);
  if (type == FOURCC('m', 'o', 'o', 'f'))
    p->c->traf = 0;
  p->c->traf += type == FOURCC('t', 'r', 'a', 'f');
  if (is_container(type)) {
    bool ok = same_boxes(p->c, type, p->mine.body, p->theirs.body);
    p->c->frag += type == FOURCC('m', 'o', 'o', 'f');
    return ok;
  }
  return same_bytes(p, left_of(p->mine.body), left_of(p->theirs.body));
}

// A traf without a decode time gets one: where its fragment begins, or, behind others, where the one before has ended. 8.8.12.
static bool right_tfdt(struct pair *p) {
  const struct ix_frag *f = &p->c->track->ix->frags[p->c->frag];
  struct reader r = p->mine.body;
  uint32_t head = rd_u32(&r);
  uint64_t time = head ? rd_u64(&r) : rd_u32(&r);
  bool ok = !r.err && !rd_left(&r) && (head == 0 || head == 1u << 24) && time >= f->time_ticks &&
            time - f->time_ticks <= (p->c->traf == 1 ? 0 : f->duration_ticks);
  return ok || differ(p, p->mine.at + p->mine.head_len, "it is not when the source's fragment begins");
}

// Box by box; what protection adds is passed over, and so is what no packager would keep of the source.
static bool same_boxes(struct check *c, uint32_t around, struct reader mine, struct reader theirs) {
  struct pair p = {.c = c};
  for (;;) {
    bool have, want;
    while ((have = vbox_next(&mine, &p.mine)) && is_added(c, around, p.mine.type)) {
    }
    while ((want = vbox_next(&theirs, &p.theirs)) && is_dropped(p.theirs.type)) {
    }
    if (have && around == FOURCC('t', 'r', 'a', 'f') && p.mine.type == FOURCC('t', 'f', 'd', 't') && (!want || p.theirs.type != p.mine.type)) {
      if (!right_tfdt(&p))
        return false;
      while ((have = vbox_next(&mine, &p.mine)) && is_added(c, around, p.mine.type)) {
      }
    }
    if (!have && rd_left(&mine))
      return wrong(c, "byte %zu: a box that cannot be read", rd_pos(&mine));
    if (have != want)
      return wrong(c, "byte %zu: %s", have ? p.mine.at : rd_pos(&mine), have ? "a box that the source has not" : "a box of the source is missing");
    if (!have)
      return true;
    if (p.mine.type != p.theirs.type)
      return differ(&p, p.mine.at + 4, "its type is not the source's");
    if (!same_box(&p))
      return false;
  }
}

// What a player decrypts by: the source's format, the scheme, and no pattern, as samples are encrypted whole. tenc's other fields
// are proven by what they do. ISO/IEC 14496-12 8.12, 23001-7 8.2.
static bool right_sinf(const char *scheme, struct bytes after_entry, uint32_t format) {
  struct reader r = rd_of(after_entry);
  struct vbox sinf, frma, schm, schi, tenc;
  uint32_t type = FOURCC(scheme[0], scheme[1], scheme[2], scheme[3]);
  return vbox_next(&r, &sinf) && sinf.type == FOURCC('s', 'i', 'n', 'f') && !rd_left(&r) &&
         vbox_next(&sinf.body, &frma) && frma.type == FOURCC('f', 'r', 'm', 'a') && rd_u32(&frma.body) == format &&
         vbox_next(&sinf.body, &schm) && schm.type == FOURCC('s', 'c', 'h', 'm') && !rd_u32(&schm.body) && rd_u32(&schm.body) == type &&
         rd_u32(&schm.body) == 0x10000 && !rd_left(&schm.body) &&
         vbox_next(&sinf.body, &schi) && schi.type == FOURCC('s', 'c', 'h', 'i') && !rd_left(&sinf.body) &&
         vbox_next(&schi.body, &tenc) && tenc.type == FOURCC('t', 'e', 'n', 'c') && !rd_left(&schi.body) &&
         rd_u32(&tenc.body) == (type == FOURCC('c', 'b', 'c', 's') ? 1u << 24 : 0) && !rd_u8(&tenc.body) && !rd_u8(&tenc.body);
}

// A 32-bit 0 behind the boxes of a sample entry, as QuickTime's may have; the sinf stands before it. Returns its length.
static size_t terminator_len(struct bytes mine, struct bytes theirs) {
  bool theirs_has = theirs.n >= 4 && load_be32(theirs.p + theirs.n - 4) == 0;
  return theirs_has && mine.n > theirs.n && load_be32(mine.p + theirs.n - 4) != 0 && load_be32(mine.p + mine.n - 4) == 0 ? 4 : 0;
}

// Sample entries: the type gives way to enca, and a sinf that names the old one stands at the end. ISO/IEC 14496-12 8.12.
static bool same_entries(struct pair *p) {
  struct reader a = p->mine.body, b = p->theirs.body;
  bool ok = same_word(p, &a, &b, true) && same_word(p, &a, &b, true); // version and flags; count
  struct pair e = {.c = p->c};
  while (ok && vbox_next(&a, &e.mine)) {
    if (!vbox_next(&b, &e.theirs))
      return differ(p, e.mine.at, "it has more entries than the source's");
    uint32_t want = p->c->init->clear ? e.theirs.type : FOURCC('e', 'n', 'c', 'a');
    if (e.mine.type != want)
      return differ(&e, e.mine.at + 4, "its type is wrong");
    struct bytes mine = left_of(e.mine.body), theirs = left_of(e.theirs.body);
    if (mine.n < theirs.n)
      return differ(&e, e.mine.at, "it is shorter than the source's");
    size_t n = theirs.n - terminator_len(mine, theirs);
    ok = same_bytes(&e, bytes_of(mine.p, n), bytes_of(theirs.p, n));
    if (ok && p->c->init->clear && mine.n != theirs.n)
      return differ(&e, e.mine.at, "it is longer than the source's");
    if (ok && !p->c->init->clear && !right_sinf(p->c->place.scheme, bytes_of(mine.p + n, mine.n - theirs.n), e.theirs.type))
      return differ(&e, e.mine.at + e.mine.head_len + n, "its sinf is not that of the scheme and the source's format");
  }
  return ok && (!rd_left(&b) || differ(p, p->mine.at, "it has fewer entries than the source's"));
}

bool check_init_boxes(struct check *c, struct bytes source) {
  return same_boxes(c, 0, rd_of(c->r->body), rd_of(source));
}

bool check_boxes(struct check *c, uint32_t first_frag, uint32_t end_frag) {
  const struct track_index *ix = c->track->ix;
  uint64_t from = ix->frags[first_frag].src_off, len = 0;
  for (uint32_t i = first_frag; i < end_frag; i++)
    len += ix->frags[i].src_len;
  uint8_t *source = malloc(len ? len : 1);
  if (!source)
    return wrong(c, "no memory to compare it");
  bool ok = c->track->read(c->track->ctx, from, source, len) == ERR_OK || wrong(c, "the clear source cannot be read at byte %lu", from);
  c->frag = first_frag;
  ok = ok && same_boxes(c, 0, rd_of(c->r->body), rd_of(bytes_of(source, len)));
  free(source);
  return ok;
}
