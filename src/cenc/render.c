// Rendering: the sample path of every request.
//
// One walker runs a piece (the init segment, or one fragment) in output order: source bytes up to the next edit or
// run, then that edit's bytes or that run's samples. It is compiled three times, by its constant `mode`:
//
//   FULL     the whole piece goes to `out`; nothing is compared, runs are only collected into a burst
//   CLIP     the output bytes [skip, skip + left) of the piece go to `out`
//   MEASURE  nothing is written: which source bytes would CLIP read?
//
// Runs that are wanted whole wait in a burst, so that the samples of several fragments share the lanes of one
// kernel call; their ciphertext is the only thing written late. Samples that a range cuts are done at once, in
// small pieces on the stack: a hostile sample size costs time, never memory.
#include <assert.h>

#include "cenc/boxes.h"
#include "cenc/plan.h"
#include "cenc/sidx.h"

#define WALKER static inline __attribute__((always_inline))

enum mode { FULL, CLIP, MEASURE };

enum {
  BURST_RUNS = 64,
  BURST_BYTES = 256 << 10, // ciphertext and source of a burst stay in L2 together
  EDGE_BLOCKS = 32,        // blocks of a cut sample done at a time
  PART_LANES = 128,        // samples of a cut run given to a kernel at a time
};

struct burst {
  size_t num, bytes;
  union {
    struct aes_cbc_seg cbc[BURST_RUNS];
    struct aes_ctr_seg ctr[BURST_RUNS];
  };
};

struct walk {
  const struct plan *p;
  const struct aes_ops *ops;
  struct burst *burst;
  struct aes_ahead *ahead;
  const struct ix_frag *frag; // NULL: the init segment
  const uint8_t *src;         // the byte at position src_pos of the piece
  uint64_t src_pos;
  uint64_t out_pos;           // position in the piece's output
  uint8_t *out;
  uint64_t skip, left;        // CLIP, MEASURE
  uint64_t read_lo, read_hi;  // MEASURE: positions in the piece
};

static void burst_flush(struct walk *w) {
  struct burst *b = w->burst;
  const struct protection *prot = w->p->prot;
  if (!b->num)
    return;
  if (prot->scheme == SCHEME_CBCS)
    w->ops->cbc_encrypt(&prot->key, prot->iv, b->cbc, b->num, w->ahead);
  else
    w->ops->ctr(&prot->key, b->ctr, b->num, w->ahead);
  b->num = b->bytes = 0;
}

// A sample that a range cuts may begin before what there is of the source: an address to add to, which is not read.
static inline const uint8_t *src_at(const struct walk *w, uint64_t pos) {
  return (const uint8_t *)((uintptr_t)w->src + (uintptr_t)(pos - w->src_pos));
}

static inline uint64_t first_iv(const struct walk *w) { return load_be64(w->p->prot->iv) + w->frag->first_sample; }

static void burst_add(struct walk *w, const struct ix_run *r) {
  struct burst *b = w->burst;
  const struct track_index *ix = w->p->ix;
  uint64_t first = w->frag->first_sample + r->first_sample;
  const uint8_t *src = src_at(w, r->pos);
  if (w->p->prot->scheme == SCHEME_CLEAR) {
    memcpy(w->out, src, r->len);
    return;
  }
  if (w->p->prot->scheme == SCHEME_CBCS)
    b->cbc[b->num] = (struct aes_cbc_seg){
        .src = src, .dst = w->out, .lanes = ix->lanes + first, .num_lanes = r->num_samples};
  else
    b->ctr[b->num] = (struct aes_ctr_seg){.src = src,
                                          .dst = w->out,
                                          .sizes16 = ix->sizes16 ? ix->sizes16 + first : NULL,
                                          .sizes32 = ix->sizes16 ? NULL : ix->sizes32 + first,
                                          .num = r->num_samples,
                                          .iv = first_iv(w) + r->first_sample};
  b->bytes += r->len;
  if (++b->num == BURST_RUNS || b->bytes >= BURST_BYTES)
    burst_flush(w);
}

// Parts of samples and runs: CLIP only.

// A range [a, b) of one sample of `len` bytes whose first byte is at src.
struct cut {
  const uint8_t *src;
  uint64_t len, a, b;
};

// cut_cbc runs the chain from the sample's start and keeps what is asked for; the tail of 0-15 bytes is clear.
static void cut_cbc(const struct walk *w, uint8_t *out, struct cut c) {
  const struct protection *prot = w->p->prot;
  uint64_t whole = c.len & ~(uint64_t)15, end = c.b < whole ? c.b : whole;
  uint8_t iv[16], buf[EDGE_BLOCKS * 16];
  memcpy(iv, prot->iv, 16);
  for (uint64_t at = 0; at < end && c.a < end;) {
    size_t blocks = (size_t)((end - at + 15) / 16);
    if (blocks > EDGE_BLOCKS)
      blocks = EDGE_BLOCKS;
    w->ops->cbc_chain(&prot->key, true, iv, buf, c.src + at, blocks);
    uint64_t stop = at + 16 * blocks, from = c.a > at ? c.a : at, to = end < stop ? end : stop;
    if (from < to) {
      memcpy(out, buf + (from - at), (size_t)(to - from));
      out += to - from;
    }
    at = stop;
  }
  if (c.b > whole) {
    uint64_t from = c.a > whole ? c.a : whole;
    memcpy(out, c.src + from, (size_t)(c.b - from));
  }
}

static void cut_ctr(const struct walk *w, uint8_t *out, struct cut c, uint64_t iv) {
  uint8_t stream[EDGE_BLOCKS * 16];
  for (uint64_t at = c.a & ~(uint64_t)15; at < c.b; at += sizeof stream) {
    for (uint64_t i = 0; i < EDGE_BLOCKS; i++) {
      store_be64(stream + 16 * i, iv);
      store_be64(stream + 16 * i + 8, at / 16 + i);
    }
    w->ops->ecb_encrypt(&w->p->prot->key, stream, stream, EDGE_BLOCKS);
    uint64_t from = c.a > at ? c.a : at, to = c.b < at + sizeof stream ? c.b : at + sizeof stream;
    for (uint64_t i = from; i < to; i++)
      *out++ = c.src[i] ^ stream[i - at];
  }
}

// A place in a run: sample `n` of the index begins `off` bytes behind the run's first byte.
struct place {
  uint64_t n, off;
};

// skip_samples moves past the samples that end at or before `off`, but not past `end`. Sums 64 at a time, because
// a file may be one fragment of millions of samples.
static struct place skip_samples(const struct track_index *ix, struct place at, uint64_t end, uint64_t off) {
  while (end - at.n >= 64) {
    uint64_t sum = 0;
    if (ix->sizes16)
      for (int i = 0; i < 64; i++)
        sum += ix->sizes16[at.n + (unsigned)i];
    else
      for (int i = 0; i < 64; i++)
        sum += ix->sizes32[at.n + (unsigned)i];
    if (at.off + sum > off)
      break;
    at = (struct place){at.n + 64, at.off + sum};
  }
  while (at.n < end && at.off + ix_sample_size(ix, at.n) <= off)
    at = (struct place){at.n + 1, at.off + ix_sample_size(ix, at.n)};
  return at;
}

static void whole_cbc(const struct walk *w, const uint8_t *src, uint8_t *out, uint64_t n, uint64_t end) {
  const struct track_index *ix = w->p->ix;
  struct aes_lane lanes[PART_LANES];
  while (n < end) {
    struct aes_cbc_seg seg = {.src = src, .dst = out, .lanes = lanes};
    uint32_t off = 0;
    for (; seg.num_lanes < PART_LANES && n < end; n++) {
      uint32_t len = ix_sample_size(ix, n);
      lanes[seg.num_lanes++] = (struct aes_lane){off, len};
      off += len;
    }
    w->ops->cbc_encrypt(&w->p->prot->key, w->p->prot->iv, &seg, 1, w->ahead);
    src += off;
    out += off;
  }
}

// run_part does bytes [a, b) of a run: a cut sample, whole ones, a cut sample; each of them may be missing.
static void run_part(const struct walk *w, const struct ix_run *r, uint64_t a, uint64_t b) {
  const struct track_index *ix = w->p->ix;
  const struct protection *prot = w->p->prot;
  bool cbc = prot->scheme == SCHEME_CBCS;
  uint8_t *out = w->out;
  if (prot->scheme == SCHEME_CLEAR) {
    memcpy(out, src_at(w, r->pos + a), (size_t)(b - a));
    return;
  }
  uint64_t first = w->frag->first_sample + r->first_sample, end = first + r->num_samples;
  uint64_t iv = load_be64(prot->iv);
  struct place at = skip_samples(ix, (struct place){first, 0}, end, a);
  while (a < b) {
    if (at.off == a) { // as many whole samples as there are
      struct place stop = skip_samples(ix, at, end, b);
      size_t n = (size_t)(stop.n - at.n);
      if (cbc)
        whole_cbc(w, src_at(w, r->pos + a), out, at.n, stop.n);
      else
        w->ops->ctr(&prot->key,
                    &(struct aes_ctr_seg){.src = src_at(w, r->pos + a),
                                          .dst = out,
                                          .sizes16 = ix->sizes16 ? ix->sizes16 + at.n : NULL,
                                          .sizes32 = ix->sizes16 ? NULL : ix->sizes32 + at.n,
                                          .num = n,
                                          .iv = iv + at.n},
                    1, w->ahead);
      out += stop.off - a;
      a = stop.off;
      at = stop;
      if (a == b)
        break;
    }
    assert(at.n < end);
    struct cut c = {.src = src_at(w, r->pos + at.off), .len = ix_sample_size(ix, at.n), .a = a - at.off};
    c.b = b - at.off < c.len ? b - at.off : c.len;
    if (cbc)
      cut_cbc(w, out, c);
    else
      cut_ctr(w, out, c, iv + at.n);
    out += c.b - c.a;
    a += c.b - c.a;
    at = (struct place){at.n + 1, at.off + c.len};
  }
}

// run_reads says which bytes of a run rendering [a, b) of it reads: all of what CBC chains through.
static void run_reads(struct walk *w, const struct ix_run *r, uint64_t a, uint64_t b) {
  const struct track_index *ix = w->p->ix;
  uint64_t lo = a, hi = b;
  if (w->p->prot->scheme == SCHEME_CBCS) {
    uint64_t first = w->frag->first_sample + r->first_sample, end = first + r->num_samples;
    struct place at = skip_samples(ix, (struct place){first, 0}, end, a);
    lo = at.off;
    at = skip_samples(ix, at, end, b);
    if (at.off < b) { // b cuts this sample: up to the end of the block
      uint64_t whole = ix_sample_size(ix, at.n) & ~(uint32_t)15, in = b - at.off;
      uint64_t up = (in + 15) & ~(uint64_t)15;
      hi = at.off + (in > whole ? in : up);
    }
  }
  if (w->read_hi == 0)
    w->read_lo = r->pos + lo;
  w->read_hi = r->pos + hi;
}

// The walker.

// clip cuts [0, n) to what is wanted and says where it begins. Returns its length.
static inline uint64_t clip(struct walk *w, uint64_t *from, uint64_t n) {
  *from = n < w->skip ? n : w->skip;
  w->skip -= *from;
  n -= *from;
  if (n > w->left)
    n = w->left;
  w->left -= n;
  return n;
}

WALKER void put(struct walk *w, enum mode mode, const void *p, uint64_t n) {
  uint64_t from = 0;
  w->out_pos += n;
  if (mode != FULL)
    n = clip(w, &from, n);
  if (mode == MEASURE)
    return;
  memcpy(w->out, (const uint8_t *)p + from, (size_t)n);
  w->out += n;
}

WALKER void put_source(struct walk *w, enum mode mode, uint64_t pos, uint64_t n) {
  uint64_t from = 0;
  w->out_pos += n;
  if (mode != FULL)
    n = clip(w, &from, n);
  if (n == 0)
    return;
  if (mode == MEASURE) {
    if (w->read_hi == 0)
      w->read_lo = pos + from;
    w->read_hi = pos + from + n;
    return;
  }
  memcpy(w->out, src_at(w, pos + from), (size_t)n);
  w->out += n;
}

WALKER void put_run(struct walk *w, enum mode mode, const struct ix_run *r) {
  uint64_t from = 0, n = r->len;
  w->out_pos += n;
  if (mode != FULL)
    n = clip(w, &from, n);
  if (n == 0)
    return;
  if (mode == MEASURE) {
    run_reads(w, r, from, from + n);
    return;
  }
  if (mode == FULL || n == r->len)
    burst_add(w, r);
  else
    run_part(w, r, from, from + n);
  w->out += n;
}

WALKER void put_be32(struct walk *w, enum mode mode, uint32_t v) {
  uint8_t b[4];
  store_be32(b, v);
  put(w, mode, b, 4);
}

// put_ivs writes IV(n) = base + n for the samples of one traf, with zeros behind it where IVs are wide.
WALKER void put_ivs(struct walk *w, enum mode mode, uint64_t iv, uint32_t num) {
  uint32_t len = w->p->sample_growth;
  if (mode == FULL) {
    if (len == CENC_IV_LEN)
      for (uint32_t i = 0; i < num; i++)
        store_be64(w->out + (size_t)i * CENC_IV_LEN, iv + i);
    else
      for (uint32_t i = 0; i < num; i++) {
        store_be64(w->out + (size_t)i * CENC_WIDE_IV_LEN, iv + i);
        store_be64(w->out + (size_t)i * CENC_WIDE_IV_LEN + 8, 0);
      }
    w->out += (size_t)num * len;
    w->out_pos += (uint64_t)num * len;
    return;
  }
  uint64_t end = w->out_pos + (uint64_t)num * len, i = w->skip / len < num ? w->skip / len : num;
  w->skip -= i * len;
  for (; i < num && w->left; i++) {
    uint8_t b[CENC_WIDE_IV_LEN] = {0};
    store_be64(b, iv + i);
    put(w, mode, b, len);
  }
  w->out_pos = end;
}

WALKER void put_protect(struct walk *w, enum mode mode, uint32_t traf) {
  const struct plan *p = w->p;
  const struct ix_traf *t = &p->ix->trafs[w->frag->first_traf + traf];
  uint8_t b[SAIZ_LEN + SAIO_LEN + SENC_HEAD_LEN];
  if (p->traf_growth == 0)
    return;
  if (p->sample_growth == 0) {
    senc_head_write(b, t->num_samples, 0);
    put(w, mode, b, SENC_HEAD_LEN);
    return;
  }
  saiz_write(b, t->num_samples, p->sample_growth);
  saio_write(b + SAIZ_LEN, (uint32_t)(w->out_pos + sizeof b - w->frag->moof_out_pos));
  senc_head_write(b + SAIZ_LEN + SAIO_LEN, t->num_samples, p->sample_growth);
  put(w, mode, b, sizeof b);
  put_ivs(w, mode, first_iv(w) + t->first_sample, t->num_samples);
}

static inline uint32_t growth(const struct walk *w, const struct ix_edit *e) {
  const struct plan *p = w->p;
  switch ((enum ix_scope)e->scope) {
  case IX_SCOPE_TRAF:
    return p->traf_growth + p->sample_growth * p->ix->trafs[w->frag->first_traf + e->arg].num_samples;
  case IX_SCOPE_MOOF:
    return p->traf_growth * (w->frag[1].first_traf - w->frag->first_traf) +
           p->sample_growth * (uint32_t)(w->frag[1].first_sample - w->frag->first_sample);
  case IX_SCOPE_SINF:
    return e->arg * p->sinf_len;
  case IX_SCOPE_MOOV:
    return e->arg * p->sinf_len + (uint32_t)p->prot->pssh.n;
  case IX_SCOPE_NONE:
  case IX_SCOPE_COUNT:
    break;
  }
  return 0;
}

WALKER void put_edit(struct walk *w, enum mode mode, const struct ix_edit *e) {
  const struct protection *prot = w->p->prot;
  uint8_t b[SINF_LEN_MAX];
  switch ((enum ix_edit_kind)e->kind) {
  case IX_WORD:
    put_be32(w, mode, e->value);
    break;
  case IX_SIZE32:
    put_be32(w, mode, e->value + growth(w, e));
    break;
  case IX_SIZE64:
    store_be64(b, (uint64_t)e->value + growth(w, e));
    put(w, mode, b, 8);
    break;
  case IX_PROTECT:
    put_protect(w, mode, e->arg);
    break;
  case IX_SINF:
    put(w, mode, b, sinf_write(b, prot, e->value));
    break;
  case IX_PSSH:
    put(w, mode, prot->pssh.p ? prot->pssh.p : b, prot->pssh.n);
    break;
  case IX_ENTRY:
    if (prot->scheme == SCHEME_CLEAR)
      put_source(w, mode, e->pos, 4);
    else
      put_be32(w, mode, e->value);
    break;
  case IX_DELETE:
  case IX_KIND_COUNT:
    break;
  }
}

// Behind a fragment's last edit nothing moves any more: a range that begins there, as nearly all pieces of a long fragment do, is found
// by halving, or each of them would walk over all before it. Returns the position in the piece to go on from; 0: from its start, as ever.
static uint64_t tail_start(struct walk *w, const struct ix_edit **edit, const struct ix_edit *e_end, const struct ix_run **run,
                           const struct ix_run *r_end) {
  const struct ix_frag *f = w->frag;
  uint64_t tail = *edit < e_end ? (uint64_t)e_end[-1].pos + e_end[-1].del : 0;
  uint64_t tail_out = plan_frag_range(w->p, (uint32_t)(f - w->p->ix->frags)).len - (f->src_len - tail);
  if (w->skip <= tail_out)
    return 0;
  uint64_t want = tail + (w->skip - tail_out), pos = tail;
  const struct ix_run *lo = *run, *hi = r_end; // runs before lo end at or before what is wanted, those from hi on behind it
  while (lo < hi) {
    const struct ix_run *mid = lo + (hi - lo) / 2;
    if ((uint64_t)mid->pos + mid->len <= want)
      lo = mid + 1;
    else
      hi = mid;
  }
  if (lo > *run && (uint64_t)lo[-1].pos + lo[-1].len > pos)
    pos = (uint64_t)lo[-1].pos + lo[-1].len;
  *edit = e_end;
  *run = lo;
  w->out_pos = tail_out + (pos - tail);
  w->skip -= w->out_pos;
  return pos;
}

WALKER void walk(struct walk *w, enum mode mode) {
  const struct track_index *ix = w->p->ix;
  const struct ix_frag *f = w->frag;
  const struct ix_edit *e, *e_end;
  const struct ix_run *r = NULL, *r_end = NULL;
  uint64_t pos = 0, end;
  w->out_pos = 0;
  if (f) {
    e = ix->edits + f->first_edit;
    e_end = ix->edits + f[1].first_edit;
    r = ix->runs + f->first_run;
    r_end = ix->runs + f[1].first_run;
    end = f->src_len;
    if (mode != FULL && w->skip)
      pos = tail_start(w, &e, e_end, &r, r_end);
  } else {
    e = ix->init_edits;
    e_end = e + ix->h->num_init_edits;
    end = ix->init.n;
  }
  while (mode == FULL || w->left) {
    uint64_t edit_pos = e < e_end ? e->pos : end;
    if (r < r_end && r->pos < edit_pos) {
      put_source(w, mode, pos, r->pos - pos);
      put_run(w, mode, r);
      pos = (uint64_t)r->pos + r->len;
      r++;
    } else if (e < e_end) {
      put_source(w, mode, pos, edit_pos - pos);
      put_edit(w, mode, e);
      pos = edit_pos + e->del;
      e++;
    } else {
      put_source(w, mode, pos, end - pos);
      break;
    }
  }
}

static void walk_full(struct walk *w) { walk(w, FULL); }
static void walk_clip(struct walk *w) { walk(w, CLIP); }
static void walk_measure(struct walk *w) { walk(w, MEASURE); }

static void render_sidx(struct walk *w) {
  const struct plan *p = w->p;
  uint8_t b[SIDX_HEAD_MAX];
  uint32_t head = sidx_head_write(b, p);
  put(w, CLIP, b, head);
  uint64_t ref = w->skip / SIDX_REF_LEN;
  w->skip -= ref * SIDX_REF_LEN;
  for (; w->left; ref++) {
    sidx_ref_write(b, p, (uint32_t)ref);
    put(w, CLIP, b, SIDX_REF_LEN);
  }
}

// overlap cuts r to a part of the output: sets what to skip of it and how much to take.
static bool overlap(struct walk *w, struct plan_range part, struct plan_range r) {
  uint64_t a = r.off > part.off ? r.off : part.off;
  uint64_t part_end = part.off + part.len, r_end = r.off + r.len, b = r_end < part_end ? r_end : part_end;
  if (a >= b)
    return false;
  w->skip = a - part.off;
  w->left = b - a;
  return true;
}

static void check_range(const struct plan *p, struct plan_range r) {
  assert(r.off <= p->total_len && r.len <= p->total_len - r.off);
  (void)p, (void)r;
}

static uint64_t media_start(const struct plan *p) { return (uint64_t)p->init_len + p->sidx_len; }

static void render_frags(struct walk *w, struct plan_range r, struct bytes src, uint64_t src_off) {
  const struct plan *p = w->p;
  uint64_t end = r.off + r.len;
  uint32_t f = plan_frag_at(p, r.off > media_start(p) ? r.off : media_start(p));
  for (struct plan_range part = plan_frag_range(p, f); part.off < end; part = plan_frag_range(p, ++f)) {
    w->frag = &p->ix->frags[f];
    bool late = src_off > w->frag->src_off;
    w->src = late ? src.p : src.p + (w->frag->src_off - src_off);
    w->src_pos = late ? src_off - w->frag->src_off : 0;
    if (part.off >= r.off && part.off + part.len <= end)
      walk_full(w);
    else if (overlap(w, part, r))
      walk_clip(w);
    if (f + 1 == p->ix->h->num_frags)
      break;
  }
}

void plan_render(const struct plan *p, const struct aes_ops *ops, struct plan_range r, struct bytes src,
                 uint64_t src_off, uint8_t *out) {
  plan_render_ahead(p, ops, r, src, src_off, out, NULL);
}

void plan_render_ahead(const struct plan *p, const struct aes_ops *ops, struct plan_range r, struct bytes src,
                       uint64_t src_off, uint8_t *out, struct aes_ahead *ahead) {
  struct burst burst;
  burst.num = burst.bytes = 0;
  check_range(p, r);
  struct walk w = {.p = p, .ops = ops, .burst = &burst, .ahead = ahead, .out = out};
  if (r.off < p->init_len && overlap(&w, plan_init_range(p), r)) {
    w.src = p->ix->init.p;
    walk_clip(&w);
  }
  if (r.off < media_start(p) && overlap(&w, plan_sidx_range(p), r))
    render_sidx(&w);
  if (r.len && r.off + r.len > media_start(p))
    render_frags(&w, r, src, src_off);
  burst_flush(&w);
  assert((uint64_t)(w.out - out) == r.len);
}

// reads_of gives the source addresses that bytes `r` of fragment `f` come from.
static struct plan_range reads_of(const struct plan *p, uint32_t f, struct plan_range r) {
  const struct ix_frag *frag = &p->ix->frags[f];
  struct walk w = {.p = p, .frag = frag};
  if (!overlap(&w, plan_frag_range(p, f), r))
    return (struct plan_range){0};
  walk_measure(&w);
  return (struct plan_range){frag->src_off + w.read_lo, w.read_hi - w.read_lo};
}

struct plan_range plan_source(const struct plan *p, struct plan_range r) {
  check_range(p, r);
  uint64_t end = r.off + r.len, start = media_start(p);
  if (r.len == 0 || end <= start)
    return (struct plan_range){0};
  uint32_t first = plan_frag_at(p, r.off > start ? r.off : start), last = plan_frag_at(p, end - 1);
  // Generated bytes at either side may read nothing: then the next fragment's begin, or the previous one's end.
  struct plan_range lo = {0}, hi = {0};
  for (uint32_t f = first; f <= last && lo.len == 0; f++)
    lo = reads_of(p, f, r);
  for (uint32_t f = last; f >= first && hi.len == 0; f--) {
    hi = reads_of(p, f, r);
    if (f == 0)
      break;
  }
  if (lo.len == 0)
    return (struct plan_range){0};
  return (struct plan_range){lo.off, hi.off + hi.len - lo.off};
}

static size_t ask(const void *from, const void *to, size_t room) {
  const uint8_t *p = (const uint8_t *)((uintptr_t)from & ~(uintptr_t)63);
  for (; room && p < (const uint8_t *)to; p += 64, room--)
    __builtin_prefetch(p, 0, 2);
  return room;
}

void plan_ask(const struct plan *p, uint32_t seg) {
  const struct track_index *ix = p->ix;
  const struct ix_frag *f = &ix->frags[p->segs->first_frag[seg]], *end = &ix->frags[p->segs->first_frag[seg + 1]];
  size_t room = PLAN_ASK;
  room = ask(&ix->edits[f->first_edit], &ix->edits[end->first_edit], room);
  room = ask(&ix->runs[f->first_run], &ix->runs[end->first_run], room);
  if (p->prot->scheme == SCHEME_CBCS)
    ask(&ix->lanes[f->first_sample], &ix->lanes[end->first_sample], room);
  else if (ix->sizes16)
    ask(&ix->sizes16[f->first_sample], &ix->sizes16[end->first_sample], room);
  else
    ask(&ix->sizes32[f->first_sample], &ix->sizes32[end->first_sample], room);
}

void plan_touch(struct bytes src) {
  // Two streams, the halves: where the prefetcher of one stops at the end of a page, the other's goes on.
  const uint8_t *half = src.p + (src.n / 2 & ~(size_t)63);
  size_t first = (size_t)(half - src.p), second = src.n - first;
  uint64_t sum = 0, v;
  for (size_t i = 0; i + 8 <= second; i += 64) {
    memcpy(&v, half + i, 8);
    sum ^= v;
    if (i < first) {
      memcpy(&v, src.p + i, 8);
      sum ^= v;
    }
  }
  __asm__ volatile("" : : "r"(sum)); // the loads are the point
}
