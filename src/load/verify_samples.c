// The samples of a segment: found by its own boxes, decrypted, compared with the clear source byte by byte.
#include <stdlib.h>

#include "load/verify_parts.h"

struct fragment {
  uint32_t default_size;
  struct vbox senc, saiz, saio;
  size_t moof_at;
};

// False: there is another one, and players may take either.
static bool take(struct vbox *to, const struct vbox *b) {
  bool first = !to->body.p;
  *to = *b;
  return first;
}

static bool read_traf(struct fragment *f, struct reader traf) {
  struct vbox b;
  while (vbox_next(&traf, &b)) {
    if (b.type == FOURCC('t', 'f', 'h', 'd')) {
      struct reader r = b.body;
      uint32_t flags = rd_u32(&r) & 0xffffff;
      rd_skip(&r, 4 + (flags & 1 ? 8u : 0) + (flags & 2 ? 4u : 0) + (flags & 8 ? 4u : 0));
      f->default_size = flags & 16 ? rd_u32(&r) : f->default_size;
      if (r.err)
        return false;
    } else if ((b.type == FOURCC('s', 'e', 'n', 'c') && !take(&f->senc, &b)) || (b.type == FOURCC('s', 'a', 'i', 'z') && !take(&f->saiz, &b)) ||
               (b.type == FOURCC('s', 'a', 'i', 'o') && !take(&f->saio, &b))) {
      return false;
    }
  }
  return rd_left(&traf) == 0;
}

// Source address of a sample of the clear track: the run that holds it, and the sizes before it in that run.
static bool clear_sample(const struct track_index *ix, uint64_t sample, uint64_t *off, uint32_t *size) {
  uint32_t lo = 0, hi = ix->h->num_frags;
  while (hi - lo > 1) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (ix->frags[mid].first_sample <= sample)
      lo = mid;
    else
      hi = mid;
  }
  const struct ix_frag *f = &ix->frags[lo];
  uint64_t in_frag = sample - f->first_sample;
  *size = ix_sample_size(ix, sample);
  for (uint32_t i = f->first_run; i < f[1].first_run; i++) {
    const struct ix_run *run = &ix->runs[i];
    if (in_frag < run->first_sample || in_frag >= (uint64_t)run->first_sample + run->num_samples)
      continue;
    *off = f->src_off + run->pos;
    for (uint64_t s = f->first_sample + run->first_sample; s < sample; s++)
      *off += ix_sample_size(ix, s);
    return true;
  }
  return *size == 0;
}

static bool compare_sample(struct check *c, struct bytes cipher, const uint8_t (*iv)[16]) {
  static _Thread_local uint8_t *plain, *source;
  static _Thread_local size_t cap;
  uint64_t off = 0;
  uint32_t size;
  size_t at = (size_t)(cipher.p - c->r->body.p);
  if (c->sample >= c->end_sample)
    return wrong(c, "byte %zu: it holds more samples than its segment has (sample %lu)", at, c->sample);
  if (!clear_sample(c->track->ix, c->sample, &off, &size) || size != cipher.n)
    return wrong(c, "byte %zu: sample %lu has %zu bytes, the source's has %u", at, c->sample, cipher.n, size);
  if (size > cap) {
    free(plain);
    free(source);
    cap = size * 2u;
    plain = malloc(cap);
    source = malloc(cap);
    if (!plain || !source)
      abort();
  }
  if (!size)
    return true;
  struct aes_lane lane = {0, size};
  const struct verify_init *init = c->init;
  if (init->clear)
    memcpy(plain, cipher.p, size);
  else if (init->tenc.iv_size)
    c->ops->ctr(&init->key, &(struct aes_ctr_seg){.src = cipher.p, .dst = plain, .sizes32 = &size, .num = 1, .ivs = iv}, 1, NULL);
  else
    c->ops->cbc_decrypt(&init->key, *iv, &(struct aes_cbc_seg){cipher.p, plain, &lane, 1}, 1);
  if (c->track->read(c->track->ctx, off, source, size))
    return wrong(c, "the clear source cannot be read at byte %lu", off);
  for (uint32_t i = 0; i < size; i++)
    if (plain[i] != source[i])
      return wrong(c, "byte %zu (sample %lu, byte %u of it) decrypts to %02x, the source has %02x", at + i, c->sample, i, plain[i], source[i]);
  memset(c->is_sample + at, 1, size);
  return true;
}

static bool next_iv(struct check *c, const struct fragment *f, struct reader *senc, uint8_t iv[16]) {
  const struct vtenc *tenc = &c->init->tenc;
  memset(iv, 0, 16);
  if (c->init->clear)
    return true;
  if (!tenc->iv_size) {
    memcpy(iv, tenc->const_iv, 16);
    return true;
  }
  // Players find IVs by senc, or by saiz and saio; all three are to be there. ISO/IEC 23001-7 7.1, 7.2.
  const char *missing = !f->senc.body.p ? "senc" : !f->saiz.body.p ? "saiz" : !f->saio.body.p ? "saio" : NULL;
  if (missing)
    return wrong(c, "byte %zu: its fragment lacks %s, by which players find the IVs of its samples", f->moof_at, missing);
  struct bytes b = rd_bytes(senc, tenc->iv_size);
  if (senc->err)
    return wrong(c, "senc ends before sample %lu", c->sample);
  memcpy(iv, b.p, b.n);
  uint64_t n = load_be64(iv);
  size_t at = (size_t)(b.p - c->r->body.p);
  if (!c->num_iv)
    c->first_iv = n;
  else if (n != c->first_iv + c->num_iv)
    return wrong(c, "byte %zu: the IV of sample %lu does not follow the one before", at, c->sample);
  if (c->num_iv++ == c->told_iv)
    c->told_iv_at = at;
  return true;
}

static bool check_run(struct check *c, const struct fragment *f, const struct vbox *box, struct reader *senc, size_t *data_at) {
  struct reader trun = box->body;
  uint32_t flags = rd_u32(&trun) & 0xffffff, num = rd_u32(&trun);
  if (flags & 1)
    *data_at = f->moof_at + (size_t)(int32_t)rd_u32(&trun); // it may point back; what is before the response is beyond its end
  rd_skip(&trun, flags & 4 ? 4 : 0);
  for (uint32_t i = 0; i < num; i++, c->sample++) {
    uint8_t iv[16];
    rd_skip(&trun, flags & 0x100 ? 4 : 0);
    uint32_t size = flags & 0x200 ? rd_u32(&trun) : f->default_size;
    rd_skip(&trun, (flags & 0x400 ? 4u : 0) + (flags & 0x800 ? 4u : 0));
    size_t at = *data_at < c->r->body.n ? *data_at : c->r->body.n, left = c->r->body.n - at;
    if (trun.err || size > left) // one without bytes is nowhere
      return wrong(c, "byte %zu: sample %lu lies outside of the response", *data_at, c->sample);
    if (!next_iv(c, f, senc, iv) || !compare_sample(c, bytes_of(c->r->body.p + at, size), (const uint8_t(*)[16])&iv))
      return false;
    *data_at += size;
  }
  return !trun.err || wrong(c, "byte %zu: a trun that cannot be read", box->at);
}

// The head of saiz or saio, `version` of which is taken off; where it says of what kind the information is, that is the scheme.
static bool right_aux_head(struct reader *r, const char *scheme, uint32_t *version) {
  uint32_t head = rd_u32(r);
  *version = head >> 24;
  return (head & 0xffffff) == 0 || ((head & 0xffffff) == 1 && rd_u32(r) == FOURCC(scheme[0], scheme[1], scheme[2], scheme[3]) && !rd_u32(r));
}

// saiz and saio say the same as senc: one size, as many samples, and where the first IV stands. ISO/IEC 14496-12 8.7.8, 8.7.9.
static bool check_aux(struct check *c, const struct fragment *f, uint64_t samples) {
  struct reader saiz = f->saiz.body, saio = f->saio.body, senc = f->senc.body;
  uint8_t iv_size = c->init->tenc.iv_size;
  const char *scheme = c->place.scheme;
  uint32_t version, senc_flags = rd_u32(&senc), senc_num = rd_u32(&senc);
  if (f->senc.body.p && (senc_flags || senc_num != samples || rd_left(&senc) != samples * iv_size))
    return wrong(c, "byte %zu: senc is not that of its %lu samples", f->senc.at, samples);
  if (c->init->clear && (f->senc.body.p || f->saiz.body.p || f->saio.body.p))
    return wrong(c, "byte %zu: a fragment with the protection boxes of another scheme", f->moof_at);
  if (f->saiz.body.p) {
    bool ok = right_aux_head(&saiz, scheme, &version) && !version;
    uint8_t size = rd_u8(&saiz);
    uint32_t num = rd_u32(&saiz);
    if (!ok || saiz.err || rd_left(&saiz) || size != iv_size || num != samples)
      return wrong(c, "byte %zu: saiz is not that of its %lu samples", f->saiz.at, samples);
  }
  if (f->saio.body.p) {
    bool ok = right_aux_head(&saio, scheme, &version) && version <= 1;
    uint32_t num = rd_u32(&saio);
    uint64_t off = version ? rd_u64(&saio) : rd_u32(&saio);
    if (!ok || saio.err || rd_left(&saio) || num != 1 || f->moof_at + off != f->senc.at + f->senc.head_len + 8)
      return wrong(c, "byte %zu: saio does not point to senc's first IV", f->saio.at);
  }
  return true;
}

static bool check_moof(struct check *c, const struct vbox *moof) {
  struct reader r = moof->body;
  struct vbox b;
  while (vbox_next(&r, &b)) {
    struct fragment f = {.moof_at = moof->at, .default_size = c->init->default_size};
    uint64_t before = c->sample;
    if (b.type != FOURCC('t', 'r', 'a', 'f'))
      continue;
    if (!read_traf(&f, b.body))
      return wrong(c, "byte %zu: a traf that cannot be read", b.at);
    struct reader senc = f.senc.body;
    if (f.senc.body.p)
      rd_skip(&senc, 8);
    size_t data_at = moof->at;
    for (struct vbox run; vbox_next(&b.body, &run);)
      if (run.type == FOURCC('t', 'r', 'u', 'n') && !check_run(c, &f, &run, &senc, &data_at))
        return false;
    if (!check_aux(c, &f, c->sample - before))
      return false;
  }
  return rd_left(&r) == 0 || wrong(c, "byte %zu: a moof that cannot be read", moof->at);
}

bool check_samples(struct check *c) {
  struct reader at = rd_of(c->r->body);
  struct vbox b;
  while (vbox_next(&at, &b))
    if (b.type == FOURCC('m', 'o', 'o', 'f') && !check_moof(c, &b))
      return false;
  if (rd_left(&at))
    return wrong(c, "byte %zu: it ends inside a box", rd_pos(&at));
  if (c->sample != c->end_sample)
    return wrong(c, "%lu samples are missing at its end", c->end_sample - c->sample);
  return true;
}
