#include "mp4/samples.h"

static struct samples_track *find_track(struct samples_file *f, uint32_t id) {
  uint32_t i = 0;
  while (i < f->num_tracks && f->tracks[i].track_id != id)
    i++;
  return &f->tracks[i];
}

// 8.3.2.
static void take_tkhd(struct samples_file *f, struct bytes body) {
  struct reader r = rd_of(body);
  rd_skip(&r, rd_u32(&r) >> 24 == 1 ? 16 : 8);
  uint32_t id = rd_u32(&r);
  if (!r.err && f->num_tracks < MAX_TRACKS)
    f->tracks[f->num_tracks++].track_id = id;
}

// 8.8.3: its track is one of moov's. One that names another says nothing of any.
static void take_trex(struct samples_file *f, struct bytes body) {
  struct reader r = rd_of(body);
  rd_skip(&r, 4);
  struct samples_track *t = find_track(f, rd_u32(&r));
  rd_skip(&r, 4);
  uint32_t duration = rd_u32(&r), size = rd_u32(&r);
  if (r.err || t == &f->tracks[f->num_tracks])
    return;
  t->duration = duration;
  t->size = size;
  t->has_trex = true;
}

// Calls `take` for each box of type `inner` in a child of type `outer`.
static void take_each(struct samples_file *f, struct bytes moov, uint32_t outer, uint32_t inner,
                      void (*take)(struct samples_file *f, struct bytes body)) {
  struct reader r = rd_of(moov);
  struct box b, c, x;
  if (box_next(&b, &r) || !b.len)
    return;
  for (struct reader in = box_reader(&r, &b); !box_next(&c, &in) && c.len;)
    if (c.type == outer)
      for (struct reader deep = box_reader(&in, &c); !box_next(&x, &deep) && x.len;)
        if (x.type == inner)
          take(f, x.body);
}

void samples_tracks(struct samples_file *out, struct bytes moov) {
  out->num_tracks = 0;
  memset(out->tracks, 0, sizeof out->tracks);
  take_each(out, moov, FOURCC('t', 'r', 'a', 'k'), FOURCC('t', 'k', 'h', 'd'), take_tkhd);
  take_each(out, moov, FOURCC('m', 'v', 'e', 'x'), FOURCC('t', 'r', 'e', 'x'), take_trex); // mvex may stand first
}

struct run_state {
  const struct samples_visitor *v;
  struct samples_file *file;
  struct samples_track *track; // of the open traf
  struct sample_info s; // of the next sample: defaults, place and time
  uint64_t base, moof, file_start;
  uint32_t default_size, default_duration;
  bool has_tfdt;
};

// Where data offsets count from: a base of its own, the moof, or where the data of the traf before ended (at first the moof, too).
// ISO/IEC 14496-12 8.8.7.
static enum err tfhd(struct run_state *k, struct bytes body, uint64_t last_data, const char **what) {
  struct reader r = rd_of(body);
  uint32_t flags = rd_u32(&r);
  k->s.track_id = rd_u32(&r);
  k->track = find_track(k->file, k->s.track_id);
  if (!r.err && k->track < &k->file->tracks[k->file->num_tracks] && !k->track->has_trex) {
    *what = "no trex for the track";
    return ERR_MISSING;
  }
  k->default_size = k->track->size;
  k->default_duration = k->track->duration;
  if (!k->has_tfdt)
    k->s.time = k->track->end_ticks;
  k->base = flags & 1 ? rd_u64(&r) + k->file_start : flags & 0x020000 ? k->moof : last_data;
  if (flags & 2)
    rd_skip(&r, 4);
  if (flags & 8)
    k->default_duration = rd_u32(&r);
  if (flags & 0x10)
    k->default_size = rd_u32(&r);
  k->s.offset = k->base;
  return r.err;
}

// Whether samples that have no fields in their trun may be: bytes of the source bear them out, each only once, or they
// are few. *what says why not.
static enum err check_counted(struct run_state *k, uint32_t num, const char **what) {
  struct samples_file *f = k->file;
  uint64_t len = (uint64_t)num * k->default_size;
  *what = "more samples without bytes than this program looks at";
  if (!k->default_size)
    return (f->num_free += num) > LIMIT_FREE_SAMPLES ? ERR_LIMIT : ERR_OK;
  *what = "sample data ends behind the end of the source";
  if (k->s.offset > f->source_len || len > f->source_len - k->s.offset)
    return ERR_TRUNCATED;
  *what = "there are more sample bytes than bytes";
  return (f->default_len += len) > f->source_len ? ERR_MALFORMED : ERR_OK;
}

// ISO/IEC 14496-12 8.8.8.
static enum err trun(struct run_state *k, struct bytes body, const char **what) {
  struct reader r = rd_of(body);
  uint32_t flags = rd_u32(&r), num = rd_u32(&r);
  if (flags & 1)
    k->s.offset = k->base + (uint64_t)(int64_t)(int32_t)rd_u32(&r);
  if (flags & 4)
    rd_skip(&r, 4);
  enum err e = r.err || flags & 0xf00 || !num ? r.err : check_counted(k, num, what); // of none, the offset points at nothing
  if (e)
    return e;
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
  return ERR_OK;
}

// ISO/IEC 14496-12 8.8.6; tfdt: 8.8.12.
static enum err traf(struct run_state *k, const struct box_trail *t, struct reader r) {
  uint64_t last_data = k->s.offset;
  bool has_tfhd = false;
  k->has_tfdt = false;
  while (rd_left(&r)) {
    struct box b;
    const char *what = NULL;
    enum err e = trail_next(t, &b, &r);
    struct reader f = rd_of(b.body);
    if (!e && b.type == FOURCC('t', 'f', 'h', 'd') && has_tfhd) {
      what = "a second tfhd";
      e = ERR_MALFORMED;
    } else if (!e && b.type == FOURCC('t', 'f', 'h', 'd')) {
      e = tfhd(k, b.body, last_data, &what);
      has_tfhd = true;
    } else if (!e && b.type == FOURCC('t', 'f', 'd', 't')) {
      k->s.time = rd_u32(&f) >> 24 ? rd_u64(&f) : rd_u32(&f);
      k->has_tfdt = true;
    } else if (!e && b.type == FOURCC('t', 'r', 'u', 'n')) {
      e = trun(k, b.body, &what);
    }
    if (e)
      return trail_fail(t, e, b.pos, what ? "%s" : NULL, what);
  }
  k->track->end_ticks = k->s.time;
  return ERR_OK;
}

enum err samples_of_moof(const struct samples_visitor *v, struct samples_file *f, struct bytes moof, uint64_t pos,
                         uint64_t file_start, struct diag *diag) {
  struct box_trail t = {.diag = diag, .base = pos};
  struct run_state k = {.v = v, .file = f, .track = &f->tracks[f->num_tracks], .moof = pos, .file_start = file_start,
                        .s.offset = pos};
  struct reader r = rd_of(moof);
  struct box b, c;
  enum err e = trail_next(&t, &b, &r);
  if (e || !b.len)
    return e ? e : trail_fail(&t, ERR_TRUNCATED, 0, NULL);
  trail_in(&t, b.type);
  for (struct reader in = box_reader(&r, &b); !e && rd_left(&in);) {
    e = trail_next(&t, &c, &in);
    if (e || c.type != FOURCC('t', 'r', 'a', 'f'))
      continue;
    trail_in(&t, c.type);
    e = traf(&k, &t, box_reader(&in, &c));
    if (!e)
      trail_out(&t);
  }
  return e;
}
