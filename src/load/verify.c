#include "load/verify.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/reader.h"
#include "base/text.h"

// IVs seen: one interval per segment, open addressing by (KID, first IV), and an ordered list per overlap check.
struct iv_range {
  uint8_t kid[16];
  uint64_t first, num;
  uint64_t place; // hash of asset, track and segment: whose samples these are
};

struct verifier {
  struct verify_world world;
  const struct aes_ops *ops;
  pthread_mutex_t lock;
  struct iv_range *ranges; // ordered by (kid, first)
  uint32_t num, max;
};

struct verifier *verifier_new(const struct verify_world *world, const struct aes_ops *ops, uint32_t max_segments) {
  struct verifier *v = calloc(1, sizeof *v);
  if (!v)
    return NULL;
  v->ranges = calloc(max_segments, sizeof *v->ranges);
  if (!v->ranges || pthread_mutex_init(&v->lock, NULL)) {
    free(v->ranges);
    free(v);
    return NULL;
  }
  v->world = *world;
  v->ops = ops;
  v->max = max_segments;
  return v;
}

void verifier_free(struct verifier *v) {
  if (!v)
    return;
  pthread_mutex_destroy(&v->lock);
  free(v->ranges);
  free(v);
}

// ---- where a path points

struct place {
  char scheme[16], track[256];
  uint32_t epoch, segment; // segment from 1
};

// Takes the path's next component; empty when there is none.
static struct bytes component(struct bytes *path) {
  const uint8_t *slash = path->n ? memchr(path->p, '/', path->n) : NULL;
  size_t n = slash ? (size_t)(slash - path->p) : path->n, step = n + (slash != NULL);
  struct bytes out = bytes_of(path->p, n);
  *path = bytes_of(path->p + step, path->n - step);
  return out;
}

static bool copy_component(char *out, size_t cap, struct bytes c) {
  if (!c.n || c.n >= cap)
    return false;
  memcpy(out, c.p, c.n);
  out[c.n] = 0;
  return true;
}

static bool read_place(struct place *out, const char *asset, const char *path) {
  size_t n = strlen(asset);
  if (path[0] != '/' || strncmp(path + 1, asset, n) != 0 || path[1 + n] != '/')
    return false;
  struct bytes rest = bytes_of(path + n + 2, strcspn(path + n + 2, "?"));
  uint64_t epoch, segment;
  bool ok = copy_component(out->scheme, sizeof out->scheme, component(&rest)) && parse_u64(&epoch, component(&rest)) == ERR_OK &&
            epoch <= UINT32_MAX && copy_component(out->track, sizeof out->track, component(&rest));
  if (!ok || rest.n < 5 || memcmp(rest.p + rest.n - 4, ".m4s", 4) != 0 ||
      parse_u64(&segment, bytes_of(rest.p, rest.n - 4)) || segment == 0 || segment > UINT32_MAX)
    return false;
  out->epoch = (uint32_t)epoch;
  out->segment = (uint32_t)segment;
  return true;
}

// ---- the response's own boxes

struct box {
  uint32_t type;
  struct reader body;
};

static bool next_box(struct reader *r, struct box *b) {
  if (r->err || rd_left(r) < 8)
    return false;
  uint64_t size = rd_u32(r);
  b->type = rd_u32(r);
  uint64_t head = 8;
  if (size == 1) {
    size = rd_u64(r);
    head = 16;
  } else if (size == 0) {
    size = rd_left(r) + head;
  }
  if (r->err || size < head || size - head > rd_left(r))
    return false;
  b->body = rd_sub(r, (size_t)(size - head));
  return true;
}

struct tenc {
  uint8_t kid[16], const_iv[16];
  uint8_t iv_size;
};

// moov/trak/mdia/minf/stbl/stsd/enca/sinf/schi/tenc: found by its name in the init segment's stsd, which is what a player
// walks; a scan is enough here because the fields are checked afterwards.
static bool read_tenc(struct tenc *out, struct bytes init) {
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
  if (r.err || !is_protected || (!out->iv_size && len != 16))
    return false;
  memcpy(out->kid, kid.p, 16);
  if (iv.n)
    memcpy(out->const_iv, iv.p, 16);
  return true;
}

struct fragment {
  uint32_t default_size;
  struct reader truns[64];
  uint32_t num_truns;
  struct reader senc;
  size_t moof_at;
};

static bool read_traf(struct fragment *f, struct reader traf) {
  struct box b;
  while (next_box(&traf, &b)) {
    if (b.type == FOURCC('t', 'f', 'h', 'd')) {
      uint32_t flags = rd_u32(&b.body) & 0xffffff;
      rd_skip(&b.body, 4 + (flags & 1 ? 8u : 0) + (flags & 2 ? 4u : 0) + (flags & 8 ? 4u : 0));
      f->default_size = flags & 16 ? rd_u32(&b.body) : 0;
      if (b.body.err)
        return false;
    } else if (b.type == FOURCC('t', 'r', 'u', 'n')) {
      if (f->num_truns == 64)
        return false;
      f->truns[f->num_truns++] = b.body;
    } else if (b.type == FOURCC('s', 'e', 'n', 'c')) {
      f->senc = b.body;
    }
  }
  return true;
}

struct check {
  struct verifier *v;
  const struct verify_response *r;
  const struct verify_track *track;
  struct place place;
  struct tenc tenc;
  struct aes_key key;
  bool clear;
  uint64_t sample, first_iv, num_iv; // sample: number within the clear track
  uint64_t end_sample;               // of the segment
  char *what;
  size_t cap;
};

static bool wrong(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool wrong(struct check *c, const char *fmt, ...) {
  int n = snprintf(c->what, c->cap, "%s: ", c->r->path);
  va_list ap;
  va_start(ap, fmt);
  if (n > 0 && (size_t)n < c->cap)
    vsnprintf(c->what + n, c->cap - (size_t)n, fmt, ap);
  va_end(ap);
  return false;
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
  if (c->sample >= c->end_sample)
    return wrong(c, "holds more samples than its segment has (sample %lu)", c->sample);
  if (!clear_sample(c->track->ix, c->sample, &off, &size) || size != cipher.n)
    return wrong(c, "sample %lu has %zu bytes, the source's has %u", c->sample, cipher.n, size);
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
  if (c->clear)
    memcpy(plain, cipher.p, size);
  else if (c->tenc.iv_size)
    c->v->ops->ctr(&c->key, &(struct aes_ctr_seg){.src = cipher.p, .dst = plain, .sizes32 = &size, .num = 1, .ivs = iv}, 1);
  else
    c->v->ops->cbc_decrypt(&c->key, *iv, &(struct aes_cbc_seg){cipher.p, plain, &lane, 1}, 1);
  if (c->track->read(c->track->ctx, off, source, size))
    return wrong(c, "the clear source cannot be read at byte %lu", off);
  for (uint32_t i = 0; i < size; i++)
    if (plain[i] != source[i])
      return wrong(c, "byte %zu (sample %lu, byte %u of it) decrypts to %02x, the source has %02x",
                   (size_t)(cipher.p - c->r->body.p) + i, c->sample, i, plain[i], source[i]);
  return true;
}

static bool next_iv(struct check *c, struct reader *senc, uint8_t iv[16]) {
  memset(iv, 0, 16);
  if (c->clear)
    return true;
  if (!c->tenc.iv_size) {
    memcpy(iv, c->tenc.const_iv, 16);
    return true;
  }
  struct bytes b = rd_bytes(senc, c->tenc.iv_size);
  if (senc->err || c->tenc.iv_size > 16)
    return wrong(c, "senc ends before sample %lu", c->sample);
  memcpy(iv, b.p, b.n);
  uint64_t n = load_be64(iv);
  if (!c->num_iv)
    c->first_iv = n;
  else if (n != c->first_iv + c->num_iv)
    return wrong(c, "the IV of sample %lu does not follow the one before", c->sample);
  c->num_iv++;
  return true;
}

static bool check_run(struct check *c, struct fragment *f, struct reader trun, struct reader *senc, size_t *data_at) {
  uint32_t flags = rd_u32(&trun) & 0xffffff, num = rd_u32(&trun);
  if (flags & 1)
    *data_at = f->moof_at + rd_u32(&trun);
  rd_skip(&trun, flags & 4 ? 4 : 0);
  for (uint32_t i = 0; i < num; i++, c->sample++) {
    uint8_t iv[16];
    rd_skip(&trun, flags & 0x100 ? 4 : 0);
    uint32_t size = flags & 0x200 ? rd_u32(&trun) : f->default_size;
    rd_skip(&trun, (flags & 0x400 ? 4u : 0) + (flags & 0x800 ? 4u : 0));
    if (trun.err || *data_at > c->r->body.n || size > c->r->body.n - *data_at)
      return wrong(c, "sample %lu lies outside of the response (byte %zu)", c->sample, *data_at);
    if (!next_iv(c, senc, iv) || !compare_sample(c, bytes_of(c->r->body.p + *data_at, size), (const uint8_t(*)[16])&iv))
      return false;
    *data_at += size;
  }
  return true;
}

static bool check_moof(struct check *c, struct reader moof, size_t moof_at) {
  struct box b;
  while (next_box(&moof, &b)) {
    struct fragment f = {.moof_at = moof_at};
    if (b.type != FOURCC('t', 'r', 'a', 'f'))
      continue;
    if (!read_traf(&f, b.body))
      return wrong(c, "a traf cannot be read");
    struct reader senc = f.senc;
    rd_skip(&senc, 8);
    senc.err = f.senc.p ? senc.err : ERR_MISSING;
    size_t data_at = moof_at;
    for (uint32_t i = 0; i < f.num_truns; i++)
      if (!check_run(c, &f, f.truns[i], &senc, &data_at))
        return false;
  }
  return true;
}

// ---- IVs

static int range_order(const struct iv_range *a, const struct iv_range *b) {
  int k = memcmp(a->kid, b->kid, 16);
  return k ? k : a->first < b->first ? -1 : a->first > b->first;
}

static bool overlap(const struct iv_range *a, const struct iv_range *b) {
  return memcmp(a->kid, b->kid, 16) == 0 && b->first - a->first < a->num && a->place != b->place;
}

static bool check_ivs(struct check *c) {
  struct verifier *v = c->v;
  struct iv_range new = {.first = c->first_iv, .num = c->num_iv};
  uint64_t h = 1469598103934665603u; // FNV-1a: a name for the place, nothing more
  for (const char *p = c->r->path; *p && *p != '?'; p++)
    h = (h ^ (uint8_t)*p) * 1099511628211u;
  memcpy(new.kid, c->tenc.kid, 16);
  new.place = h;
  bool ok = true;
  pthread_mutex_lock(&v->lock);
  uint32_t lo = 0, hi = v->num;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (range_order(&v->ranges[mid], &new) < 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  bool known = lo < v->num && range_order(&v->ranges[lo], &new) == 0 && v->ranges[lo].place == new.place;
  if ((lo < v->num && overlap(&new, &v->ranges[lo])) || (lo > 0 && overlap(&v->ranges[lo - 1], &new)))
    ok = false;
  if (ok && !known && v->num < v->max) {
    memmove(v->ranges + lo + 1, v->ranges + lo, (v->num - lo) * sizeof *v->ranges);
    v->ranges[lo] = new;
    v->num++;
  }
  pthread_mutex_unlock(&v->lock);
  return ok ? true : wrong(c, "its IVs (from %016lx) were seen at another place under the same KID", c->first_iv);
}

// ---- the whole

static bool check_ranged(struct check *c) {
  const struct verify_response *r = c->r;
  if (!r->whole.n)
    return true;
  for (size_t i = 0; i < r->body.n; i++)
    if (r->range_from + i >= r->whole.n || r->body.p[i] != r->whole.p[r->range_from + i])
      return wrong(c, "byte %lu of a range differs from the whole segment's", r->range_from + i);
  return true;
}

static uint64_t segment_samples(const struct track_index *ix, const struct media_list *list, const struct place *p, uint64_t *end) {
  // Segments are whole fragments; the playlist says when each starts, and a fragment starts in exactly one of them.
  double from = list->start_s[p->segment - 1], to = list->start_s[p->segment];
  uint64_t first = UINT64_MAX;
  uint64_t base = ix->h->num_frags ? ix->frags[0].time_ticks : 0;
  *end = 0;
  for (uint32_t i = 0; i < ix->h->num_frags; i++) {
    double mid = ((double)(ix->frags[i].time_ticks - base) + (double)ix->frags[i].duration_ticks / 2) / ix->h->timescale;
    if (mid < from || mid >= to)
      continue;
    first = first == UINT64_MAX ? ix->frags[i].first_sample : first;
    *end = ix->frags[i + 1].first_sample;
  }
  return first;
}

bool verify_response(struct verifier *v, const struct verify_response *r, char *what, size_t cap) {
  struct check c = {.v = v, .r = r, .what = what, .cap = cap};
  if (r->ranged)
    return check_ranged(&c);
  if (!read_place(&c.place, r->asset, r->path))
    return wrong(&c, "is not a segment's path");
  c.track = v->world.track(v->world.ctx, r->asset, c.place.track);
  if (!c.track)
    return wrong(&c, "has no clear source to compare with");
  c.clear = strcmp(c.place.scheme, "clear") == 0;
  if (!c.clear) {
    uint8_t key[16];
    if (!read_tenc(&c.tenc, r->init))
      return wrong(&c, "its init segment has no usable tenc");
    if (r->list->has_kid && memcmp(r->list->kid, c.tenc.kid, 16) != 0)
      return wrong(&c, "the KID of its init segment is not the playlist's");
    if (!v->world.key(v->world.ctx, r->asset, c.place.scheme, c.place.epoch, c.tenc.kid, key))
      return wrong(&c, "the KID of its init segment does not belong to epoch %u", c.place.epoch);
    v->ops->key_init(&c.key, key);
  }
  if (c.place.segment > r->list->num)
    return wrong(&c, "its playlist has %u segments only", r->list->num);
  c.sample = segment_samples(c.track->ix, r->list, &c.place, &c.end_sample);
  if (c.sample == UINT64_MAX)
    return wrong(&c, "no fragment of the source lies in its time");
  struct reader at = rd_of(r->body);
  struct box b;
  for (size_t box_at = 0; next_box(&at, &b); box_at = rd_pos(&at))
    if (b.type == FOURCC('m', 'o', 'o', 'f') && !check_moof(&c, b.body, box_at))
      return false;
  if (rd_left(&at))
    return wrong(&c, "ends inside a box");
  if (c.sample != c.end_sample)
    return wrong(&c, "%lu samples are missing at its end", c.end_sample - c.sample);
  return c.num_iv ? check_ivs(&c) : true;
}
