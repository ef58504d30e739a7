#include "mp4/samples.h"

uint32_t samples_trex(struct trex_defaults out[MAX_TREX], struct bytes moov) {
  struct reader r = rd_of(moov);
  struct box b, c, x;
  uint32_t num = 0;
  if (box_next(&b, &r) || !b.len)
    return 0;
  for (struct reader in = box_reader(&r, &b); !box_next(&c, &in) && c.len;) {
    if (c.type != FOURCC('m', 'v', 'e', 'x'))
      continue;
    for (struct reader deep = box_reader(&in, &c); !box_next(&x, &deep) && x.len;) {
      struct reader f = rd_of(x.body);
      rd_skip(&f, 4);
      struct trex_defaults t = {.track_id = rd_u32(&f)};
      rd_skip(&f, 4);
      t.duration = rd_u32(&f);
      t.size = rd_u32(&f);
      if (x.type == FOURCC('t', 'r', 'e', 'x') && !f.err && num < MAX_TREX)
        out[num++] = t;
    }
  }
  return num;
}

struct run_state {
  const struct samples_visitor *v;
  struct sample_info s; // of the next sample: defaults, place and time
  uint64_t base, moof, file_start;
  uint32_t default_size, default_duration;
};

static enum err tfhd(struct run_state *k, struct bytes body, const struct trex_defaults *trex, uint32_t num_trex,
                     bool first, uint64_t last_data) {
  struct reader r = rd_of(body);
  uint32_t flags = rd_u32(&r);
  k->s.track_id = rd_u32(&r);
  k->default_size = k->default_duration = 0;
  for (uint32_t i = 0; i < num_trex; i++)
    if (trex[i].track_id == k->s.track_id) {
      k->default_size = trex[i].size;
      k->default_duration = trex[i].duration;
    }
  k->base = flags & 1 ? rd_u64(&r) + k->file_start : flags & 0x020000 || first ? k->moof : last_data;
  if (flags & 2)
    rd_skip(&r, 4);
  if (flags & 8)
    k->default_duration = rd_u32(&r);
  if (flags & 0x10)
    k->default_size = rd_u32(&r);
  k->s.offset = k->base;
  return r.err;
}

static enum err trun(struct run_state *k, struct bytes body) {
  struct reader r = rd_of(body);
  uint32_t flags = rd_u32(&r), num = rd_u32(&r);
  if (flags & 1)
    k->s.offset = k->base + (uint64_t)(int64_t)(int32_t)rd_u32(&r);
  if (flags & 4)
    rd_skip(&r, 4);
  if (!(flags & 0xf00) && num > LIMIT_FREE_SAMPLES)
    return ERR_LIMIT; // nothing in the box bears them out
  for (uint32_t i = 0; i < num; i++) {
    k->s.duration = flags & 0x100 ? rd_u32(&r) : k->default_duration;
    k->s.size = flags & 0x200 ? rd_u32(&r) : k->default_size;
    rd_skip(&r, (flags & 0x400 ? 4u : 0) + (flags & 0x800 ? 4u : 0));
    if (r.err)
      return r.err;
    k->v->sample(k->v->ctx, &k->s);
    k->s.offset += k->s.size;
    k->s.time += k->s.duration;
  }
  return r.err;
}

static enum err traf(struct run_state *k, const struct box_trail *t, struct reader r, const struct trex_defaults *trex,
                     uint32_t num_trex, bool first) {
  uint64_t last_data = k->s.offset;
  while (rd_left(&r)) {
    struct box b;
    enum err e = trail_next(t, &b, &r);
    struct reader f = rd_of(b.body);
    if (!e && b.type == FOURCC('t', 'f', 'h', 'd'))
      e = tfhd(k, b.body, trex, num_trex, first, last_data);
    else if (!e && b.type == FOURCC('t', 'f', 'd', 't'))
      k->s.time = rd_u32(&f) >> 24 ? rd_u64(&f) : rd_u32(&f);
    else if (!e && b.type == FOURCC('t', 'r', 'u', 'n'))
      e = trun(k, b.body);
    if (e)
      return trail_fail(t, e, b.pos, NULL);
  }
  return ERR_OK;
}

enum err samples_of_moof(const struct samples_visitor *v, struct bytes moof, uint64_t pos, uint64_t file_start,
                         const struct trex_defaults *trex, uint32_t num_trex, struct diag *diag) {
  struct box_trail t = {.diag = diag, .base = pos};
  struct run_state k = {.v = v, .moof = pos, .file_start = file_start, .s.offset = pos};
  struct reader r = rd_of(moof);
  struct box b, c;
  bool first = true;
  enum err e = trail_next(&t, &b, &r);
  if (e || !b.len)
    return e ? e : trail_fail(&t, ERR_TRUNCATED, 0, NULL);
  trail_in(&t, b.type);
  for (struct reader in = box_reader(&r, &b); !e && rd_left(&in);) {
    e = trail_next(&t, &c, &in);
    if (e || c.type != FOURCC('t', 'r', 'a', 'f'))
      continue;
    trail_in(&t, c.type);
    e = traf(&k, &t, box_reader(&in, &c), trex, num_trex, first);
    first = false;
    if (!e)
      trail_out(&t);
  }
  return e;
}
