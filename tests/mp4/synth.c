#include "synth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// A buffer that grows, with boxes that are closed when their length is known.
struct buf {
  uint8_t *p;
  size_t n, cap;
};

static void *or_die(void *p) {
  if (!p)
    abort();
  return p;
}

static void put(struct buf *b, const void *p, size_t n) {
  if (b->n + n > b->cap) {
    b->cap = (b->n + n) * 2;
    b->p = or_die(realloc(b->p, b->cap));
  }
  if (p)
    memcpy(b->p + b->n, p, n);
  else
    memset(b->p + b->n, 0, n);
  b->n += n;
}

static void set32(struct buf *b, size_t at, uint32_t v) {
  for (int i = 0; i < 4; i++)
    b->p[at + (size_t)i] = (uint8_t)(v >> (24 - 8 * i));
}

static void u16(struct buf *b, unsigned v) { put(b, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2); }

static void u32(struct buf *b, uint32_t v) {
  put(b, NULL, 4);
  set32(b, b->n - 4, v);
}

static void u64(struct buf *b, uint64_t v) {
  u32(b, (uint32_t)(v >> 32));
  u32(b, (uint32_t)v);
}

static void text(struct buf *b, const char *s) { put(b, s, strlen(s)); }

static size_t box(struct buf *b, const char *type, bool wide) {
  size_t at = b->n;
  u32(b, wide ? 1 : 0);
  text(b, type);
  if (wide)
    u64(b, 0);
  return at;
}

static void end(struct buf *b, size_t at) {
  if (b->p[at + 3] == 1)
    set32(b, at + 12, (uint32_t)(b->n - at));
  else
    set32(b, at, (uint32_t)(b->n - at));
}

struct maker {
  const struct synth_options *o;
  struct synth *s;
  struct buf b;
  uint32_t sample, rng;
  uint64_t time, file_start; // of the part
  size_t sidx_at;            // where the one sidx's references stand
  uint32_t frag;
};

static uint32_t or1(uint32_t v) { return v ? v : 1; }

static uint32_t size_of(struct maker *m, uint32_t n) {
  const struct synth_options *o = m->o;
  uint32_t span = o->max_size - o->min_size + 1;
  if (o->sizes != SYNTH_SIZES_TRUN)
    return o->min_size;
  if (!o->random_sizes)
    return o->min_size + n % span;
  uint32_t x = n * 2654435761u;
  x ^= x >> 15;
  x *= 2246822519u;
  x ^= x >> 13;
  return o->min_size + x % span;
}

void synth_sample_bytes(uint8_t *out, uint32_t n, uint32_t len) {
  uint64_t x = (n + 1ull) * 0x9e3779b97f4a7c15ull;
  for (uint32_t i = 0; i < len; i++) {
    if (i % 8 == 0) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
    }
    out[i] = (uint8_t)(x >> (i % 8 * 8));
  }
}

static void full_box(struct buf *b, unsigned version, unsigned flags) { u32(b, version << 24 | flags); }

static void put_stsd(struct maker *m) {
  struct buf *b = &m->b;
  bool wide = m->o->wide;
  size_t stsd = box(b, "stsd", wide);
  full_box(b, 0, 0);
  u32(b, 1);
  size_t entry = box(b, "mp4a", wide);
  put(b, NULL, 6);
  u16(b, 1);
  put(b, NULL, 8);
  u16(b, 2);
  u16(b, 16);
  u32(b, 0);
  u32(b, 48000u << 16);
  size_t esds = box(b, "esds", false);
  full_box(b, 0, 0);
  static const uint8_t es[] = {3, 25, 0, 1, 0, 4, 17, 0x40, 0x15, 0, 0, 0, 0, 1, 0xf4, 0, 0, 1, 0xf4, 0, 5, 2, 0x11, 0x90, 6, 1, 2};
  put(b, es, sizeof es);
  end(b, esds);
  if (m->o->terminator)
    u32(b, 0);
  end(b, entry);
  end(b, stsd);
}

static void put_stbl(struct maker *m) {
  struct buf *b = &m->b;
  size_t stbl = box(b, "stbl", m->o->wide);
  put_stsd(m);
  static const char *const empty[] = {"stts", "stsc", "stco"};
  for (size_t i = 0; i < 3; i++) {
    size_t at = box(b, empty[i], false);
    put(b, NULL, 8);
    end(b, at);
  }
  size_t stsz = box(b, "stsz", false);
  put(b, NULL, 12);
  end(b, stsz);
  end(b, stbl);
}

static void put_trak(struct maker *m) {
  struct buf *b = &m->b;
  bool wide = m->o->wide;
  size_t trak = box(b, "trak", wide), at = box(b, "tkhd", false);
  full_box(b, 0, 7);
  put(b, NULL, 8);
  u32(b, 1);
  put(b, NULL, 68);
  end(b, at);
  size_t mdia = box(b, "mdia", wide);
  at = box(b, "mdhd", false);
  full_box(b, 0, 0);
  put(b, NULL, 8);
  u32(b, m->o->timescale ? m->o->timescale : 48000);
  u32(b, 0);
  u16(b, 0x15c7); // eng
  u16(b, 0);
  end(b, at);
  at = box(b, "hdlr", false);
  full_box(b, 0, 0);
  u32(b, 0);
  text(b, "soun");
  put(b, NULL, 13);
  end(b, at);
  size_t minf = box(b, "minf", wide);
  at = box(b, "smhd", false);
  put(b, NULL, 8);
  end(b, at);
  size_t dinf = box(b, "dinf", false), dref = box(b, "dref", false);
  full_box(b, 0, 0);
  u32(b, 1);
  at = box(b, "url ", false);
  full_box(b, 0, 1);
  end(b, at);
  end(b, dref);
  end(b, dinf);
  put_stbl(m);
  end(b, minf);
  end(b, mdia);
  end(b, trak);
}

static void put_init(struct maker *m) {
  struct buf *b = &m->b;
  size_t at = box(b, "ftyp", false);
  text(b, "iso6");
  u32(b, 0);
  text(b, "iso6cmfcdash");
  end(b, at);
  size_t moov = box(b, "moov", m->o->wide);
  at = box(b, "mvhd", false);
  full_box(b, 0, 0);
  put(b, NULL, 8);
  u32(b, 1000);
  put(b, NULL, 76);
  u32(b, 2);
  put(b, NULL, 4);
  end(b, at);
  put_trak(m);
  size_t mvex = box(b, "mvex", false);
  at = box(b, "trex", false);
  full_box(b, 0, 0);
  u32(b, 1);
  u32(b, 1);
  u32(b, m->o->frame_ticks ? m->o->frame_ticks : 1024);
  u32(b, m->o->sizes == SYNTH_SIZES_TREX ? m->o->min_size : 0);
  u32(b, 0);
  end(b, at);
  end(b, mvex);
  end(b, moov);
  m->s->init_len = b->n;
}

static uint32_t samples_per_frag(const struct synth_options *o) {
  return or1(o->samples_per_trun) * or1(o->truns_per_traf) * or1(o->trafs_per_frag);
}

static uint32_t frame_ticks(const struct synth_options *o) { return o->frame_ticks ? o->frame_ticks : 1024; }

// References with their sizes left open; set_sidx fills them in.
static size_t put_sidx(struct maker *m, uint32_t num) {
  struct buf *b = &m->b;
  size_t at = box(b, "sidx", false);
  full_box(b, 1, 0);
  u32(b, 1);
  u32(b, m->o->timescale ? m->o->timescale : 48000);
  u64(b, m->time);
  u64(b, 0);
  u16(b, 0);
  u16(b, num);
  size_t refs = b->n;
  for (uint32_t i = 0; i < num; i++) {
    u32(b, 0);
    u32(b, samples_per_frag(m->o) * frame_ticks(m->o));
    u32(b, 0x90000000);
  }
  end(b, at);
  return refs;
}

enum { SYNC = 0x02000000 }; // a sample's flags: it depends on no other

struct offset { // a data offset that is filled in when positions are known
  size_t at;    // 0: the trun has none
  size_t moof, base;
  uint32_t first, num; // samples of the trun
};

static void put_trun(struct maker *m, struct offset *off, uint32_t num, bool with_offset) {
  const struct synth_options *o = m->o;
  struct buf *b = &m->b;
  size_t at = box(b, "trun", o->wide);
  bool sizes = o->sizes == SYNTH_SIZES_TRUN;
  full_box(b, o->trun_v0 ? 0 : 1, (with_offset ? 1u : 0) | (o->fields ? 4u : 0) | (o->each ? 0x500u : 0) |
                                        (sizes ? 0x200u : 0) | (o->offsets ? 0x800u : 0));
  u32(b, num);
  *off = (struct offset){.at = with_offset ? b->n : 0, .first = m->sample, .num = num};
  if (with_offset)
    u32(b, num ? 0 : 0x7fffffff); // an offset to nothing may say anything
  if (o->fields)
    u32(b, SYNC);
  for (uint32_t i = 0; i < num; i++, m->sample++) {
    if (o->each)
      u32(b, frame_ticks(o));
    if (sizes)
      u32(b, size_of(m, m->sample));
    if (o->each)
      u32(b, SYNC);
    if (o->offsets)
      u32(b, o->trun_v0 ? i % 3 * frame_ticks(o) : (uint32_t)(-(int32_t)(i % 3)));
  }
  end(b, at);
}

static void put_groups(struct maker *m) {
  struct buf *b = &m->b;
  size_t at = box(b, "sgpd", false);
  full_box(b, 1, 0);
  text(b, "roll");
  u32(b, 2);
  u32(b, 1);
  u16(b, 0xffff);
  end(b, at);
  at = box(b, "sbgp", false);
  full_box(b, 0, 0);
  text(b, "roll");
  u32(b, 1);
  u32(b, or1(m->o->samples_per_trun));
  u32(b, 0x10001);
  end(b, at);
}

static void put_tfhd(struct maker *m, size_t *base) {
  const struct synth_options *o = m->o;
  struct buf *b = &m->b;
  size_t at = box(b, "tfhd", o->wide);
  bool absolute = o->base == SYNTH_BASE_ABSOLUTE;
  full_box(b, 0, (absolute ? 1u : 0) | (o->base == SYNTH_BASE_MOOF ? 0x020000u : 0) |
                     (o->sizes == SYNTH_SIZES_TFHD ? 0x10u : 0) | (o->fields ? 0x2au : 0));
  u32(b, 1);
  *base = absolute ? b->n : 0;
  if (absolute)
    u64(b, 0);
  if (o->fields) {
    u32(b, 1);
    u32(b, frame_ticks(o));
  }
  if (o->sizes == SYNTH_SIZES_TFHD)
    u32(b, o->min_size);
  if (o->fields)
    u32(b, SYNC);
  end(b, at);
}

static void put_tfdt(struct maker *m) {
  const struct synth_options *o = m->o;
  if (o->no_tfdt)
    return;
  size_t at = box(&m->b, "tfdt", false);
  full_box(&m->b, o->tfdt_v0 ? 0 : 1, 0);
  if (o->tfdt_v0)
    u32(&m->b, (uint32_t)m->time);
  else
    u64(&m->b, m->time);
  end(&m->b, at);
}

static void put_aux(struct maker *m) {
  struct buf *b = &m->b;
  size_t at = box(b, "saiz", false);
  full_box(b, 0, 1);
  text(b, "abcd");
  u32(b, 0);
  put(b, "\4", 1);
  u32(b, or1(m->o->samples_per_trun) * or1(m->o->truns_per_traf));
  end(b, at);
  at = box(b, "saio", false);
  full_box(b, 0, 1);
  text(b, "abcd");
  u32(b, 0);
  u32(b, 1);
  u32(b, 8);
  end(b, at);
}

// A moof; *offs gets its truns that have samples.
static uint32_t put_moof(struct maker *m, struct offset *offs) {
  const struct synth_options *o = m->o;
  struct buf *b = &m->b;
  uint32_t num = 0, trafs = or1(o->trafs_per_frag), truns = or1(o->truns_per_traf);
  size_t moof = box(b, "moof", o->wide), at = box(b, "mfhd", false), base;
  struct offset none;
  full_box(b, 0, 0);
  u32(b, m->frag + 1);
  end(b, at);
  for (uint32_t t = o->empty_traf ? 0 : 1; t <= trafs; t++) {
    size_t traf = box(b, "traf", o->wide);
    put_tfhd(m, &base);
    put_tfdt(m);
    if (o->aux)
      put_aux(m);
    for (uint32_t r = 0; t && r < truns; r++) {
      bool with = !o->implied_offsets || (r == 0 && o->base != SYNTH_BASE_ABSOLUTE && (o->base == SYNTH_BASE_MOOF || t == 1));
      if (o->empty_truns || o->empty_places)
        put_trun(m, &none, 0, with);
      put_trun(m, &offs[num], or1(o->samples_per_trun), with && !o->empty_places);
      if (o->empty_places)
        offs[num].at = none.at;
      m->time += (uint64_t)or1(o->samples_per_trun) * frame_ticks(o);
      offs[num].moof = moof;
      offs[num++].base = base;
      if (o->empty_truns)
        put_trun(m, &none, 0, false);
    }
    if (o->groups)
      put_groups(m);
    end(b, traf);
    if (!t && base)
      set32(b, base + 4, (uint32_t)(moof - m->file_start));
  }
  end(b, moof);
  return num;
}

// The samples of the truns, and where each trun's data begins.
static void put_mdat(struct maker *m, const struct offset *offs, uint32_t num, uint64_t *starts) {
  const struct synth_options *o = m->o;
  struct buf *b = &m->b;
  size_t at = box(b, "mdat", o->wide);
  for (uint32_t k = 0; k < num; k++) {
    uint32_t i = o->reversed ? num - 1 - k : k;
    if (o->gap && k)
      put(b, NULL, o->gap);
    starts[i] = b->n;
    for (uint32_t n = offs[i].first; n < offs[i].first + offs[i].num; n++) {
      uint32_t len = size_of(m, n);
      m->s->samples[n] = (struct synth_sample){b->n, len};
      put(b, NULL, len);
      synth_sample_bytes(b->p + b->n - len, n, len);
    }
  }
  if (o->to_end && (o->folder || m->frag + 1 == or1(o->num_frags)))
    return; // its size stays 0
  end(b, at);
}

static void set_offsets(struct maker *m, const struct offset *offs, uint32_t num, const uint64_t *starts, size_t moof) {
  const struct synth_options *o = m->o;
  uint64_t implied = moof; // base of a traf that names none
  size_t traf_base = 0;
  for (uint32_t i = 0; i < num; i++) {
    bool first = i % or1(o->truns_per_traf) == 0;
    uint64_t base = moof;
    if (o->base == SYNTH_BASE_ABSOLUTE) {
      if (first)
        traf_base = starts[i];
      base = traf_base;
      set32(&m->b, offs[i].base + 4, (uint32_t)(traf_base - m->file_start));
    } else if (o->base == SYNTH_BASE_IMPLIED) {
      if (first && i) {
        const struct synth_sample *last = &m->s->samples[offs[i].first - 1];
        implied = last->pos + last->len;
      }
      base = implied;
    }
    if (offs[i].at)
      set32(&m->b, offs[i].at, (uint32_t)(starts[i] - base));
  }
}

static void put_before(struct maker *m) {
  const struct synth_options *o = m->o;
  struct buf *b = &m->b;
  size_t at;
  if (o->styp) {
    at = box(b, "styp", false);
    text(b, "msdh");
    u32(b, 0);
    text(b, "msdhmsix");
    end(b, at);
  }
  if (o->prft) {
    at = box(b, "prft", false);
    full_box(b, 1, 0);
    u32(b, 1);
    u64(b, 0x1234567887654321);
    u64(b, m->time);
    end(b, at);
  }
  if (o->emsg) {
    at = box(b, "emsg", false);
    full_box(b, 1, 0);
    u32(b, 48000);
    u64(b, m->time);
    u32(b, 0);
    u32(b, m->frag);
    put(b, "urn:x\0\0data", 11);
    end(b, at);
  }
}

static void put_frag(struct maker *m) {
  const struct synth_options *o = m->o;
  struct buf *b = &m->b;
  uint32_t max = or1(o->truns_per_traf) * or1(o->trafs_per_frag), num = max;
  struct offset *offs = or_die(calloc(max, sizeof *offs));
  uint64_t *starts = or_die(calloc(max, sizeof *starts));
  size_t refs = 0, start = b->n;
  put_before(m);
  if (o->sidx_each) {
    refs = put_sidx(m, 1);
    start = b->n;
  }
  if (o->ssix) {
    size_t at = box(b, "ssix", false);
    put(b, NULL, 8);
    end(b, at);
  }
  if (o->mdat_first) { // truns are known before they are written
    for (uint32_t i = 0; i < num; i++)
      offs[i] = (struct offset){.first = m->sample + i * or1(o->samples_per_trun), .num = or1(o->samples_per_trun)};
    put_mdat(m, offs, num, starts);
  }
  size_t moof = b->n;
  num = put_moof(m, offs);
  if (!o->mdat_first)
    put_mdat(m, offs, num, starts);
  set_offsets(m, offs, num, starts, moof);
  if (o->free_boxes) {
    size_t at = box(b, "free", false);
    put(b, "between fragments", 17);
    end(b, at);
  }
  if (refs)
    set32(b, refs, (uint32_t)(b->n - start));
  if (m->sidx_at)
    set32(b, m->sidx_at + 12 * (size_t)m->frag, (uint32_t)(b->n - m->s->frag_starts[m->frag]));
  free(offs);
  free(starts);
}

static void put_mfra(struct maker *m) {
  struct buf *b = &m->b;
  size_t mfra = box(b, "mfra", false), at = box(b, "tfra", false);
  full_box(b, 1, 0);
  u32(b, 1);
  u32(b, 0);
  u32(b, 0);
  end(b, at);
  at = box(b, "mfro", false);
  full_box(b, 0, 0);
  u32(b, (uint32_t)(b->n + 4 - mfra));
  end(b, at);
  end(b, mfra);
}

void synth_make(struct synth *s, const struct synth_options *o) {
  uint32_t frags = or1(o->num_frags);
  struct maker m = {.o = o, .s = s};
  *s = (struct synth){.num_frags = frags, .num_samples = frags * samples_per_frag(o)};
  s->samples = or_die(calloc(s->num_samples, sizeof *s->samples));
  s->frag_starts = or_die(calloc(frags, sizeof *s->frag_starts));
  s->part_ends = or_die(calloc(frags + 1, sizeof *s->part_ends));
  put_init(&m);
  s->part_ends[s->num_parts++] = m.b.n;
  if (o->sidx)
    m.sidx_at = put_sidx(&m, frags);
  for (m.frag = 0; m.frag < frags; m.frag++) {
    s->frag_starts[m.frag] = m.b.n;
    m.file_start = o->folder ? m.b.n : 0;
    put_frag(&m);
    if (o->folder)
      s->part_ends[s->num_parts++] = m.b.n;
  }
  if (o->mfra)
    put_mfra(&m);
  if (!o->folder)
    s->part_ends[0] = m.b.n;
  s->file = m.b.p;
  s->len = m.b.n;
}

void synth_free(struct synth *s) {
  free(s->file);
  free(s->samples);
  free(s->part_ends);
  free(s->frag_starts);
  *s = (struct synth){0};
}

static int write_file(const char *path, const uint8_t *p, size_t n) {
  FILE *f = fopen(path, "wb");
  if (!f)
    return -1;
  bool bad = fwrite(p, 1, n, f) != n;
  return fclose(f) || bad ? -1 : 0;
}

int synth_write(const struct synth *s, const char *path, bool folder) {
  if (!folder)
    return write_file(path, s->file, s->len);
  if (mkdir(path, 0777) && errno != EEXIST)
    return -1;
  for (uint32_t i = 0; i < s->num_parts; i++) {
    char name[4096];
    uint64_t start = i ? s->part_ends[i - 1] : 0;
    if (i)
      snprintf(name, sizeof name, "%s/%u.m4s", path, i);
    else
      snprintf(name, sizeof name, "%s/init.mp4", path);
    if (write_file(name, s->file + start, (size_t)(s->part_ends[i] - start)))
      return -1;
  }
  return 0;
}
