#include "handmade.h"

#include <assert.h>
#include <openssl/aes.h>
#include <stdlib.h>

// A growing array of bytes.
struct buf {
  uint8_t *p;
  size_t n, cap;
};

static void *buf_add(struct buf *b, const void *p, size_t n) {
  if (b->n + n > b->cap) {
    b->cap = (b->n + n) * 2 + 64;
    b->p = (uint8_t *)realloc(b->p, b->cap);
    assert(b->p);
  }
  if (p)
    memcpy(b->p + b->n, p, n);
  b->n += n;
  return b->p + b->n - n;
}

uint64_t rng_next(uint64_t *s) {
  *s += 0x9e3779b97f4a7c15;
  uint64_t z = *s;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

struct maker {
  struct handmade *m;
  struct buf src, want, init, init_edits, frags, edits, runs, trafs, sizes, lanes, segs;
  uint64_t num_samples;
  uint32_t traf_growth, sample_growth, sinf_len;
};

static void add_be32(struct buf *b, uint32_t v) {
  uint8_t p[4];
  store_be32(p, v);
  buf_add(b, p, 4);
}

static void add_random(struct maker *k, struct buf *b, size_t n) {
  uint8_t *p = (uint8_t *)buf_add(b, NULL, n);
  for (size_t i = 0; i < n; i++)
    p[i] = (uint8_t)rng_next(&k->m->rng);
}

static void want_sinf(struct maker *k, uint32_t format) {
  const struct protection *prot = &k->m->prot;
  bool cbcs = prot->scheme == SCHEME_CBCS;
  struct buf *w = &k->want;
  if (prot->scheme == SCHEME_CLEAR)
    return;
  add_be32(w, cbcs ? 97 : 80);
  buf_add(w, "sinf\0\0\0\14frma", 12);
  add_be32(w, format);
  buf_add(w, "\0\0\0\24schm\0\0\0\0", 12);
  buf_add(w, cbcs ? "cbcs" : "cenc", 4);
  buf_add(w, "\0\1\0\0", 4);
  add_be32(w, cbcs ? 57 : 40);
  buf_add(w, "schi", 4);
  add_be32(w, cbcs ? 49 : 32);
  buf_add(w, "tenc", 4);
  buf_add(w, cbcs ? "\1\0\0\0\0\0\1\0" : prot->wide_iv ? "\0\0\0\0\0\0\1\20" : "\0\0\0\0\0\0\1\10", 8);
  buf_add(w, prot->kid, 16);
  if (cbcs) {
    buf_add(w, "\20", 1);
    buf_add(w, prot->iv, 16);
  }
}

static void want_sample(struct maker *k, const uint8_t *src, uint32_t len, uint64_t n) {
  const struct protection *prot = &k->m->prot;
  AES_KEY key;
  AES_set_encrypt_key(prot->key.enc[0], 128, &key);
  uint8_t *out = (uint8_t *)buf_add(&k->want, src, len);
  uint8_t chain[16], block[16];
  memcpy(chain, prot->iv, 16);
  if (prot->scheme == SCHEME_CBCS)
    for (uint32_t i = 0; i + 16 <= len; i += 16) {
      for (int j = 0; j < 16; j++)
        block[j] = src[i + (uint32_t)j] ^ chain[j];
      AES_encrypt(block, chain, &key);
      memcpy(out + i, chain, 16);
    }
  if (prot->scheme == SCHEME_CENC)
    for (uint32_t i = 0; i < len; i++) {
      if (i % 16 == 0) {
        store_be64(chain, load_be64(prot->iv) + n);
        store_be64(chain + 8, i / 16);
        AES_encrypt(chain, block, &key);
      }
      out[i] ^= block[i % 16];
    }
}

static void want_protect(struct maker *k, uint32_t samples, uint64_t first, size_t moof_at) {
  enum scheme scheme = k->m->prot.scheme;
  struct buf *w = &k->want;
  if (scheme == SCHEME_CLEAR || (scheme == SCHEME_CBCS && k->m->prot.no_senc))
    return;
  if (scheme == SCHEME_CENC) {
    buf_add(w, k->m->prot.wide_iv ? "\0\0\0\21saiz\0\0\0\0\20" : "\0\0\0\21saiz\0\0\0\0\10", 13);
    add_be32(w, samples);
    buf_add(w, "\0\0\0\24saio\0\0\0\0\0\0\0\1", 16);
    add_be32(w, (uint32_t)(w->n - moof_at + 4 + 16));
  }
  add_be32(w, 16 + k->sample_growth * samples);
  buf_add(w, "senc\0\0\0\0", 8);
  add_be32(w, samples);
  for (uint32_t i = 0; scheme == SCHEME_CENC && i < samples; i++) {
    uint8_t iv[16] = {0};
    store_be64(iv, load_be64(k->m->prot.iv) + first + i);
    buf_add(w, iv, k->sample_growth);
  }
}

static void clear_chunk(struct maker *k, struct buf *src, uint32_t max) {
  size_t n = rng_below(&k->m->rng, max + 1);
  add_random(k, src, n);
  buf_add(&k->want, src->p + src->n - n, n);
}

// add_edit appends an edit at the end of what there is of the source and drops some bytes behind it.
static void add_edit(struct maker *k, struct buf *edits, struct buf *src, size_t start, struct ix_edit e, uint32_t drop) {
  e.pos = (uint32_t)(src->n - start);
  e.del = drop;
  add_random(k, src, drop);
  buf_add(edits, &e, sizeof e);
}

static uint32_t sample_size(struct maker *k) {
  uint64_t *rng = &k->m->rng;
  switch (rng_below(rng, 8)) {
  case 0:
    return rng_below(rng, 34);
  case 1:
    return 16 * rng_below(rng, 9);
  case 2:
    return rng_below(rng, k->m->max_sample + 1);
  default:
    return rng_below(rng, 700);
  }
}

static void add_run(struct maker *k, struct ix_frag *f, uint32_t first, uint32_t num, size_t start) {
  size_t at = k->src.n;
  uint64_t n = f->first_sample + first;
  struct aes_lane *lanes = (struct aes_lane *)calloc(num + 1, sizeof *lanes);
  uint32_t off = 0;
  for (uint32_t i = 0; i < num; i++) {
    uint32_t len = sample_size(k);
    if (i == 0 && len == 0)
      len = 1; // runs are never empty
    lanes[i] = (struct aes_lane){off, len};
    add_random(k, &k->src, len);
    buf_add(&k->sizes, &len, 4);
    want_sample(k, k->src.p + at + off, len, n + i);
    off += len;
  }
  aes_lane_order(lanes, num);
  buf_add(&k->lanes, lanes, num * sizeof *lanes);
  free(lanes);
  struct ix_run r = {.pos = (uint32_t)(at - start), .len = off, .first_sample = first, .num_samples = num};
  buf_add(&k->runs, &r, sizeof r);
}

static void add_moof(struct maker *k, struct ix_frag *f, const uint32_t *traf_samples, uint32_t num_trafs,
                     uint32_t frag_samples) {
  struct handmade *m = k->m;
  struct buf *src = &k->src;
  size_t start = (size_t)f->src_off;
  uint32_t moof_growth = k->traf_growth * num_trafs + k->sample_growth * frag_samples;
  clear_chunk(k, src, 30); // styp, prft …
  if (rng_below(&m->rng, 3) == 0)
    add_edit(k, &k->edits, src, start, (struct ix_edit){.kind = IX_DELETE}, 1 + rng_below(&m->rng, 50));
  size_t moof_at = k->want.n;
  f->moof_pos = (uint32_t)(src->n - start);
  f->moof_out_pos = (uint32_t)(moof_at - m->want_len);
  uint32_t value = (uint32_t)rng_next(&m->rng), first = 0;
  add_edit(k, &k->edits, src, start, (struct ix_edit){.kind = IX_SIZE32, .scope = IX_SCOPE_MOOF, .value = value}, 4);
  add_be32(&k->want, value + moof_growth);
  for (uint32_t t = 0; t < num_trafs; t++) {
    uint32_t own = k->traf_growth + k->sample_growth * traf_samples[t];
    clear_chunk(k, src, 12);
    value = rng_below(&m->rng, 1000);
    if (rng_below(&m->rng, 2)) {
      add_edit(k, &k->edits, src, start, (struct ix_edit){.kind = IX_SIZE64, .scope = IX_SCOPE_TRAF, .value = value, .arg = t}, 8);
      add_be32(&k->want, 0);
    } else {
      add_edit(k, &k->edits, src, start, (struct ix_edit){.kind = IX_SIZE32, .scope = IX_SCOPE_TRAF, .value = value, .arg = t}, 4);
    }
    add_be32(&k->want, value + own);
    clear_chunk(k, src, 60);
    add_edit(k, &k->edits, src, start, (struct ix_edit){.kind = IX_WORD, .value = value}, rng_below(&m->rng, 2) * 8);
    add_be32(&k->want, value);
    add_edit(k, &k->edits, src, start, (struct ix_edit){.kind = IX_PROTECT, .arg = t}, 0);
    want_protect(k, traf_samples[t], f->first_sample + first, moof_at);
    first += traf_samples[t];
  }
}

static void add_frag(struct maker *k) {
  struct handmade *m = k->m;
  uint64_t *rng = &m->rng;
  struct ix_frag f = {.src_off = k->src.n,
                      .first_sample = k->num_samples,
                      .time_ticks = k->num_samples * 1024,
                      .first_edit = (uint32_t)(k->edits.n / sizeof(struct ix_edit)),
                      .first_run = (uint32_t)(k->runs.n / sizeof(struct ix_run)),
                      .first_traf = (uint32_t)(k->trafs.n / sizeof(struct ix_traf))};
  size_t start = k->src.n, want_start = k->want.n;
  m->want_len = want_start;
  uint32_t num_trafs = 1 + rng_below(rng, 2) * rng_below(rng, 3), traf_samples[4], total = 0;
  for (uint32_t t = 0; t < num_trafs; t++) {
    traf_samples[t] = 1 + rng_below(rng, rng_below(rng, 4) ? 20 : 300);
    buf_add(&k->trafs, &(struct ix_traf){.num_samples = traf_samples[t], .first_sample = total}, sizeof(struct ix_traf));
    total += traf_samples[t];
  }
  // Data before the moof in some: runs ascend by position whatever the order of their samples.
  uint32_t before = rng_below(rng, 5) == 0 ? total / 2 : 0;
  // A run's samples need their sizes in place: first the samples of the run that comes first in decode order.
  if (before) {
    clear_chunk(k, &k->src, 9);
    add_run(k, &f, 0, before, start);
  }
  add_moof(k, &f, traf_samples, num_trafs, total);
  for (uint32_t n = before; n < total;) {
    uint32_t num = 1 + rng_below(rng, total - n);
    clear_chunk(k, &k->src, rng_below(rng, 2) * 20);
    add_run(k, &f, n, num, start);
    n += num;
  }
  clear_chunk(k, &k->src, 10);
  k->num_samples += total;
  f.duration_ticks = (uint64_t)total * 1024;
  f.src_len = k->src.n - start;
  f.out_len = k->want.n - want_start - num_trafs * k->traf_growth - total * k->sample_growth;
  size_t num = k->frags.n / sizeof f;
  f.out_off = num ? ((struct ix_frag *)k->frags.p)[num - 1].out_off + ((struct ix_frag *)k->frags.p)[num - 1].out_len : 0;
  buf_add(&k->frags, &f, sizeof f);
}

static void make_init(struct maker *k) {
  struct handmade *m = k->m;
  struct buf *w = &k->want;
  clear_chunk(k, &k->init, 40);
  add_edit(k, &k->init_edits, &k->init, 0, (struct ix_edit){.kind = IX_SIZE32, .scope = IX_SCOPE_MOOV, .arg = 2, .value = 900}, 4);
  add_be32(w, (uint32_t)(900 + 2 * k->sinf_len + m->prot.pssh.n));
  clear_chunk(k, &k->init, 90);
  for (uint32_t i = 0; i < 2; i++) {
    add_edit(k, &k->init_edits, &k->init, 0, (struct ix_edit){.kind = IX_SIZE32, .scope = IX_SCOPE_SINF, .arg = 1, .value = 70}, 4);
    add_be32(w, 70 + k->sinf_len);
    add_edit(k, &k->init_edits, &k->init, 0, (struct ix_edit){.kind = IX_ENTRY, .value = FOURCC('e', 'n', 'c', 'a')}, 4);
    buf_add(w, m->prot.scheme == SCHEME_CLEAR ? k->init.p + k->init.n - 4 : (const uint8_t *)"enca", 4);
    clear_chunk(k, &k->init, 70);
    add_edit(k, &k->init_edits, &k->init, 0, (struct ix_edit){.kind = IX_SINF, .value = FOURCC('f', 'L', 'a', 'C')}, 0);
    want_sinf(k, FOURCC('f', 'L', 'a', 'C'));
  }
  clear_chunk(k, &k->init, 20);
  add_edit(k, &k->init_edits, &k->init, 0, (struct ix_edit){.kind = IX_PSSH}, 0);
  buf_add(w, m->prot.pssh.p, m->prot.pssh.n);
  clear_chunk(k, &k->init, 20);
}

static void make_prot(struct maker *k, enum scheme scheme, const struct aes_ops *ops) {
  static const uint8_t pssh[] = "\0\0\0\24pssh............";
  struct protection *prot = &k->m->prot;
  uint8_t key[16];
  prot->scheme = scheme;
  for (int i = 0; i < 16; i++) {
    key[i] = (uint8_t)rng_next(&k->m->rng);
    prot->kid[i] = (uint8_t)rng_next(&k->m->rng);
    prot->iv[i] = scheme == SCHEME_CBCS || i < 8 ? (uint8_t)rng_next(&k->m->rng) : 0;
  }
  if (rng_below(&k->m->rng, 2))
    memset(prot->iv, 255, scheme == SCHEME_CENC ? 8 : 16); // IVs wrap
  ops->key_init(&prot->key, key);
  prot->no_senc = rng_below(&k->m->rng, 3) == 0;
  prot->wide_iv = scheme == SCHEME_CENC && rng_below(&k->m->rng, 2);
  if (rng_below(&k->m->rng, 2))
    prot->pssh = bytes_of(pssh, 20);
  k->sinf_len = scheme == SCHEME_CLEAR ? 0 : scheme == SCHEME_CENC ? 80 : 97;
  k->traf_growth = scheme == SCHEME_CLEAR ? 0 : scheme == SCHEME_CENC ? 53 : prot->no_senc ? 0 : 16;
  k->sample_growth = scheme != SCHEME_CENC ? 0 : prot->wide_iv ? 16 : 8;
}

void handmade_init(struct handmade *m, uint64_t seed, enum scheme scheme, bool wide, const struct aes_ops *ops) {
  *m = (struct handmade){.rng = seed, .max_sample = wide ? 70000 : 5000};
  struct maker k = {.m = m};
  make_prot(&k, scheme, ops);
  make_init(&k);
  m->init_len = k.want.n;
  uint32_t num = 1 + rng_below(&m->rng, 5);
  for (uint32_t f = 0; f < num; f++)
    if (f == 0 || rng_below(&m->rng, 3))
      buf_add(&k.segs, &f, 4);
  m->segs.num = (uint32_t)(k.segs.n / 4);
  buf_add(&k.segs, &num, 4);
  m->sidx_len = 32 + 12 * m->segs.num;
  memset(buf_add(&k.want, NULL, m->sidx_len), 0, m->sidx_len);
  for (uint32_t f = 0; f < num; f++)
    add_frag(&k);
  const struct ix_frag *last = (struct ix_frag *)k.frags.p + num - 1;
  struct ix_frag end = {.src_off = k.src.n,
                        .out_off = last->out_off + last->out_len,
                        .first_sample = k.num_samples,
                        .first_edit = (uint32_t)(k.edits.n / sizeof(struct ix_edit)),
                        .first_run = (uint32_t)(k.runs.n / sizeof(struct ix_run)),
                        .first_traf = (uint32_t)(k.trafs.n / sizeof(struct ix_traf))};
  buf_add(&k.frags, &end, sizeof end);
  m->h = (struct ix_header){.track_id = 7, .timescale = 48000, .num_frags = num, .num_samples = k.num_samples, .num_sinf = 2};
  m->h.num_init_edits = (uint32_t)(k.init_edits.n / sizeof(struct ix_edit));
  uint32_t *sizes32 = (uint32_t *)k.sizes.p;
  uint16_t *sizes16 = NULL;
  if (!wide) {
    sizes16 = (uint16_t *)calloc(k.num_samples + 1, 2);
    for (uint64_t i = 0; i < k.num_samples; i++)
      sizes16[i] = (uint16_t)sizes32[i];
    free(sizes32);
    sizes32 = NULL;
  }
  m->ix = (struct track_index){.h = &m->h,
                               .init = bytes_of(k.init.p, k.init.n),
                               .init_edits = (struct ix_edit *)k.init_edits.p,
                               .edits = (struct ix_edit *)k.edits.p,
                               .frags = (struct ix_frag *)k.frags.p,
                               .runs = (struct ix_run *)k.runs.p,
                               .trafs = (struct ix_traf *)k.trafs.p,
                               .sizes16 = sizes16,
                               .sizes32 = sizes32,
                               .lanes = (struct aes_lane *)k.lanes.p};
  m->segs.first_frag = (uint32_t *)k.segs.p;
  m->src = k.src.p;
  m->src_len = k.src.n;
  m->want = k.want.p;
  m->want_len = k.want.n;
}

static void drop(const void *p) {
  void *q;
  memcpy(&q, &p, sizeof q);
  free(q);
}

void handmade_free(struct handmade *m) {
  drop(m->ix.init.p), drop(m->ix.init_edits), drop(m->ix.edits), drop(m->ix.frags), drop(m->ix.runs), drop(m->ix.trafs);
  drop(m->ix.sizes16), drop(m->ix.sizes32), drop(m->ix.lanes), drop(m->segs.first_frag);
  free(m->src), free(m->want);
  *m = (struct handmade){0};
}
