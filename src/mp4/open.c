// Believing a blob: everything on which planning and rendering rely is checked here, once, so that they need not.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>

#include "mp4/heap.h"
#include "mp4/index.h"
#include "mp4/init.h"
#include "mp4/limits.h"

struct opener {
  struct track_index ix;
  struct bytes blob;
  struct diag *diag;
};

static enum err bad(const struct opener *o, const void *at, const char *what) {
  uint64_t pos = at ? (uint64_t)((const uint8_t *)at - o->blob.p) : 0;
  return diag_set(o->diag, ERR_MALFORMED, pos, "index: %s", what);
}

uint64_t ix_checksum(struct bytes blob) {
  const struct ix_header *h = (const struct ix_header *)blob.p;
  const size_t from = offsetof(struct ix_header, checksum) + sizeof h->checksum;
  return XXH3_64bits_withSeed(blob.p + from, blob.n - from, h->flags);
}

static enum err check_head(const struct opener *o) {
  const struct ix_header *h = o->ix.h;
  if (memcmp(h->magic, "sluice\0\1", 8))
    return bad(o, NULL, "this is no index");
  if (h->version != IX_VERSION)
    return diag_say(o->diag, ERR_UNSUPPORTED, "index: version %u", h->version);
  if (h->blob_len != o->blob.n)
    return diag_say(o->diag, ERR_TRUNCATED, "index: %llu bytes, %zu are there", (unsigned long long)h->blob_len,
                    o->blob.n);
  if (ix_checksum(o->blob) != h->checksum)
    return diag_say(o->diag, ERR_CHECKSUM, NULL);
  if (h->flags & ~(unsigned)(IX_WIDE_SIZES | IX_FOLDER | IX_HAD_SIDX | IX_NO_DIGEST))
    return bad(o, &h->flags, "unknown flags");
  if (memchr(h->codecs, 0, sizeof h->codecs) == NULL || memchr(h->language, 0, sizeof h->language) == NULL)
    return bad(o, h->codecs, "text without an end");
  bool rendered = h->format == FOURCC('i', 'a', 'm', 'f');
  if (!h->timescale || !h->track_id || !h->channels != rendered || !h->sample_rate || !h->codecs[0])
    return bad(o, &h->track_id, "the track");
  if (!h->num_sinf || h->num_sinf > IX_MAX_SINF || !h->num_frags || h->num_frags > IX_MAX_FRAGS || !h->num_parts)
    return bad(o, &h->num_parts, "counts");
  if (h->num_samples > (uint64_t)h->num_frags * IX_MAX_FRAG_SAMPLES)
    return bad(o, &h->num_samples, "counts");
  return ERR_OK;
}

static enum err check_sections(const struct opener *o) {
  const struct ix_header *h = o->ix.h;
  uint64_t n = h->num_samples, end = sizeof *h;
  const uint64_t want[IX_SEC_COUNT] = {
      [IX_SEC_PARTS] = (uint64_t)h->num_parts * sizeof(uint64_t),
      [IX_SEC_INIT] = h->sec[IX_SEC_INIT].len,
      [IX_SEC_INIT_EDITS] = (uint64_t)h->num_init_edits * sizeof(struct ix_edit),
      [IX_SEC_FRAGS] = ((uint64_t)h->num_frags + 1) * sizeof(struct ix_frag),
      [IX_SEC_EDITS] = (uint64_t)h->num_edits * sizeof(struct ix_edit),
      [IX_SEC_RUNS] = (uint64_t)h->num_runs * sizeof(struct ix_run),
      [IX_SEC_TRAFS] = (uint64_t)h->num_trafs * sizeof(struct ix_traf),
      [IX_SEC_SIZES] = n * (h->flags & IX_WIDE_SIZES ? sizeof(uint32_t) : sizeof(uint16_t)),
      [IX_SEC_LANES] = n * sizeof(struct aes_lane),
  };
  for (int i = 0; i < IX_SEC_COUNT; i++) {
    uint64_t off = h->sec[i].off, len = h->sec[i].len;
    if (off % 8 || off < end || off > h->blob_len || len > h->blob_len - off || len != want[i])
      return bad(o, &h->sec[i], "a section does not fit");
    end = off + len;
  }
  return h->sec[IX_SEC_INIT].len > IX_MAX_INIT ? bad(o, &h->sec[IX_SEC_INIT], "the init segment is too long") : ERR_OK;
}

static void point(struct track_index *ix, const uint8_t *p) {
  const struct ix_header *h = ix->h;
  ix->part_ends = (const uint64_t *)(p + h->sec[IX_SEC_PARTS].off);
  ix->init = bytes_of(p + h->sec[IX_SEC_INIT].off, (size_t)h->sec[IX_SEC_INIT].len);
  ix->init_edits = (const struct ix_edit *)(p + h->sec[IX_SEC_INIT_EDITS].off);
  ix->frags = (const struct ix_frag *)(p + h->sec[IX_SEC_FRAGS].off);
  ix->edits = (const struct ix_edit *)(p + h->sec[IX_SEC_EDITS].off);
  ix->runs = (const struct ix_run *)(p + h->sec[IX_SEC_RUNS].off);
  ix->trafs = (const struct ix_traf *)(p + h->sec[IX_SEC_TRAFS].off);
  const uint8_t *sizes = p + h->sec[IX_SEC_SIZES].off;
  if (h->flags & IX_WIDE_SIZES)
    ix->sizes32 = (const uint32_t *)sizes;
  else
    ix->sizes16 = (const uint16_t *)sizes;
  ix->lanes = (const struct aes_lane *)(p + h->sec[IX_SEC_LANES].off);
}

static enum err check_parts(const struct opener *o) {
  const struct ix_header *h = o->ix.h;
  uint64_t last = 0;
  for (uint32_t i = 0; i < h->num_parts; i++) {
    if (o->ix.part_ends[i] < last)
      return bad(o, &o->ix.part_ends[i], "parts out of order");
    last = o->ix.part_ends[i];
  }
  return last != h->identity.size ? bad(o, o->ix.part_ends, "the parts are not the source") : ERR_OK;
}

// Bytes that an edit emits, protection's growth left out.
static uint32_t emitted(const struct ix_edit *e) {
  return e->kind == IX_WORD || e->kind == IX_SIZE32 || e->kind == IX_ENTRY ? 4 : e->kind == IX_SIZE64 ? 8 : 0;
}

// Order and bounds of one edit in `len` bytes; *end is where the one before ended.
static bool edit_fits(const struct ix_edit *e, uint64_t len, uint64_t *end) {
  if (e->kind >= IX_KIND_COUNT || e->scope >= IX_SCOPE_COUNT || e->zero[0] || e->zero[1])
    return false;
  if (e->pos < *end || e->pos > len || e->del > len - e->pos)
    return false;
  if ((e->kind == IX_PROTECT || e->kind == IX_SINF || e->kind == IX_PSSH) && e->del)
    return false;
  *end = (uint64_t)e->pos + e->del;
  return true;
}

static enum err check_init(const struct opener *o) {
  const struct ix_header *h = o->ix.h;
  uint64_t end = 0;
  uint32_t num_sinf = 0, num_pssh = 0, num_entry = 0;
  for (uint32_t i = 0; i < h->num_init_edits; i++) {
    const struct ix_edit *e = &o->ix.init_edits[i];
    bool scope = e->scope == IX_SCOPE_NONE || e->scope == IX_SCOPE_SINF || e->scope == IX_SCOPE_MOOV;
    if (!edit_fits(e, o->ix.init.n, &end) || !scope || e->kind == IX_PROTECT)
      return bad(o, e, "an edit of the init segment");
    if (e->scope != IX_SCOPE_NONE && e->arg > h->num_sinf)
      return bad(o, e, "an edit of the init segment");
    num_sinf += e->kind == IX_SINF;
    num_pssh += e->kind == IX_PSSH;
    num_entry += e->kind == IX_ENTRY && e->del == 4;
  }
  if (num_sinf != h->num_sinf || num_entry != num_sinf || num_pssh != 1)
    return bad(o, o->ix.init_edits, "edits of the init segment");
  return ERR_OK;
}

// What the frag's neighbours and the header must agree on.
static enum err check_frag_head(const struct opener *o, uint32_t i) {
  const struct ix_frag *f = &o->ix.frags[i], *n = f + 1;
  uint64_t end_ticks;
  if (f->src_len > UINT32_MAX || n->src_off < f->src_off || n->src_off - f->src_off != f->src_len ||
      f->moof_pos >= f->src_len)
    return bad(o, f, "fragments do not tile the source");
  if (n->out_off < f->out_off || n->out_off - f->out_off != f->out_len)
    return bad(o, f, "fragments do not tile the output");
  if (n->first_sample < f->first_sample || n->first_sample - f->first_sample > IX_MAX_FRAG_SAMPLES ||
      n->first_traf < f->first_traf || n->first_traf - f->first_traf > IX_MAX_FRAG_TRAFS || n->first_edit < f->first_edit ||
      n->first_run < f->first_run)
    return bad(o, f, "counts of a fragment");
  uint64_t growth = (uint64_t)(n->first_traf - f->first_traf) * IX_MAX_TRAF_GROWTH +
                    (n->first_sample - f->first_sample) * IX_MAX_SAMPLE_GROWTH;
  if (f->src_len > UINT32_MAX - growth || f->out_len > UINT32_MAX - growth)
    return bad(o, f, "a fragment is too long");
  if (n->time_ticks < f->time_ticks || __builtin_add_overflow(f->time_ticks, f->duration_ticks, &end_ticks))
    return bad(o, f, "times of a fragment");
  return f->flags & ~(unsigned)(IX_FRAG_SUBSEGMENT | IX_FRAG_NOT_SYNC) ? bad(o, f, "flags of a fragment") : ERR_OK;
}

static enum err check_trafs(const struct opener *o, const struct ix_frag *f) {
  uint64_t num = 0;
  for (uint32_t i = f->first_traf; i < f[1].first_traf; i++) {
    const struct ix_traf *t = &o->ix.trafs[i];
    if (!t->num_samples || t->first_sample != num)
      return bad(o, t, "samples of a traf");
    num += t->num_samples;
  }
  return num != f[1].first_sample - f->first_sample ? bad(o, f, "samples outside of trafs") : ERR_OK;
}

static enum err check_edits(const struct opener *o, const struct ix_frag *f) {
  uint64_t end = 0;
  int64_t delta = 0, before_moof = 0;
  uint32_t num_protect = 0, num_trafs = f[1].first_traf - f->first_traf;
  const struct ix_run *run = o->ix.runs + f->first_run, *runs_end = o->ix.runs + f[1].first_run;
  for (uint32_t i = f->first_edit; i < f[1].first_edit; i++) {
    const struct ix_edit *e = &o->ix.edits[i];
    if (!edit_fits(e, f->src_len, &end) || e->kind == IX_SINF || e->kind == IX_PSSH ||
        e->kind == IX_ENTRY || e->scope == IX_SCOPE_SINF ||
        e->scope == IX_SCOPE_MOOV)
      return bad(o, e, "an edit of a fragment");
    if ((e->scope == IX_SCOPE_TRAF && e->arg >= num_trafs) || (e->kind == IX_PROTECT && e->arg != num_protect++))
      return bad(o, e, "an edit names a traf that is not there");
    if (e->kind == IX_PROTECT && e->pos <= f->moof_pos)
      return bad(o, e, "protection outside of the moof");
    delta += (int64_t)emitted(e) - e->del;
    if (e->pos < f->moof_pos) {
      if (e->pos + e->del > f->moof_pos)
        return bad(o, e, "an edit of a fragment");
      before_moof += (int64_t)emitted(e) - e->del;
    }
    while (run < runs_end && (uint64_t)run->pos + run->len <= e->pos)
      run++;
    if (run < runs_end && (uint64_t)e->pos + e->del > run->pos)
      return bad(o, e, "an edit in sample data");
  }
  if (num_protect != num_trafs)
    return bad(o, f, "protection of a fragment");
  if ((int64_t)f->src_len + delta != (int64_t)f->out_len || f->moof_pos + before_moof != f->moof_out_pos)
    return bad(o, f, "lengths of a fragment");
  return ERR_OK;
}

static uint64_t mix(uint32_t off, uint32_t len) {
  uint64_t x = ((uint64_t)off << 32 | len) * 0x9e3779b97f4a7c15u;
  return (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
}

// Sizes add up to the run, lanes are the same samples in the kernels' order.
static enum err check_lanes(const struct opener *o, const struct ix_run *r, uint64_t first) {
  uint64_t sum = 0, samples = 0, lanes = 0;
  for (uint32_t i = 0; i < r->num_samples; i++) {
    uint32_t len = ix_sample_size(&o->ix, first + i);
    const struct aes_lane *l = &o->ix.lanes[first + i];
    if (len > IX_MAX_SAMPLE)
      return bad(o, r, "a sample is too long");
    samples += mix((uint32_t)sum, len);
    lanes += mix(l->off, l->len);
    sum += len;
    if (l->off > r->len || l->len > r->len - l->off)
      return bad(o, l, "a lane outside of its run");
    if (i && (l[-1].len / 16 < l->len / 16 || (l[-1].len / 16 == l->len / 16 && l[-1].off > l->off)))
      return bad(o, l, "lanes out of order");
  }
  if (sum != r->len || samples != lanes)
    return bad(o, r, "sizes of a run");
  return ERR_OK;
}

// Runs by the order of their samples: numbers of runs, so that they fit on the stack.
struct run_order {
  const struct ix_run *runs;
  uint16_t at[LIMIT_UNORDERED_RUNS];
};

static bool order_before(const void *ctx, size_t a, size_t b) {
  const struct run_order *o = (const struct run_order *)ctx;
  return o->runs[o->at[a]].first_sample < o->runs[o->at[b]].first_sample;
}

static void order_swap(void *ctx, size_t a, size_t b) {
  struct run_order *o = (struct run_order *)ctx;
  uint16_t moved = o->at[a];
  o->at[a] = o->at[b];
  o->at[b] = moved;
}

static uint32_t samples_end(const struct ix_run *r) { return r->first_sample + r->num_samples; }

// No sample is in two runs: its IV would cover two plaintexts.
static enum err check_disjoint(const struct opener *o, const struct ix_run *runs, uint32_t num) {
  struct run_order order;
  uint32_t i = 1;
  while (i < num && runs[i].first_sample >= samples_end(&runs[i - 1]))
    i++;
  if (i >= num)
    return ERR_OK;
  if (num > LIMIT_UNORDERED_RUNS)
    return bad(o, runs, "too many runs out of order");
  order.runs = runs;
  for (i = 0; i < num; i++)
    order.at[i] = (uint16_t)i;
  heap_sort(&(struct heap_sort){&order, order_before, order_swap}, num);
  for (i = 1; i < num; i++) {
    const struct ix_run *a = &runs[order.at[i - 1]], *b = &runs[order.at[i]];
    if (b->first_sample < samples_end(a))
      return bad(o, a > b ? a : b, "a sample in two runs");
  }
  return ERR_OK;
}

// Where the runs of a fragment are, in it and among its samples.
static enum err check_places(const struct opener *o, const struct ix_frag *f) {
  uint64_t end = 0, num = f[1].first_sample - f->first_sample;
  for (uint32_t i = f->first_run; i < f[1].first_run; i++) {
    const struct ix_run *r = &o->ix.runs[i];
    if (!r->len || !r->num_samples || r->pos < end || r->pos > f->src_len || r->len > f->src_len - r->pos)
      return bad(o, r, "a run does not fit");
    if (r->first_sample > num || r->num_samples > num - r->first_sample)
      return bad(o, r, "samples of a run");
    end = (uint64_t)r->pos + r->len;
  }
  return check_disjoint(o, o->ix.runs + f->first_run, f[1].first_run - f->first_run);
}

// Places come first: of runs that share no sample, each sample is looked at once.
static enum err check_runs(const struct opener *o, const struct ix_frag *f) {
  uint64_t in_runs = 0, all = 0;
  enum err e = check_places(o, f);
  for (uint32_t i = f->first_run; !e && i < f[1].first_run; i++) {
    const struct ix_run *r = &o->ix.runs[i];
    e = check_lanes(o, r, f->first_sample + r->first_sample);
    in_runs += r->len;
  }
  if (e)
    return e;
  for (uint64_t i = f->first_sample; i < f[1].first_sample; i++)
    all += ix_sample_size(&o->ix, i);
  return all != in_runs ? bad(o, f, "samples outside of runs") : ERR_OK;
}

static enum err check_frags(const struct opener *o) {
  const struct ix_header *h = o->ix.h;
  const struct ix_frag *f = o->ix.frags, *last = f + h->num_frags;
  if (f->src_off != h->media_off || h->media_off < o->ix.init.n || h->media_off > h->identity.size ||
      h->media_len != h->identity.size - h->media_off || f->out_off || f->first_sample || f->first_edit || f->first_run ||
      f->first_traf)
    return bad(o, f, "the first fragment");
  if (last->src_off != h->identity.size || last->first_sample != h->num_samples || last->first_edit != h->num_edits ||
      last->first_run != h->num_runs || last->first_traf != h->num_trafs || last->src_len || last->out_len)
    return bad(o, last, "the end of the fragments");
  if (f->time_ticks != h->start_ticks || last->time_ticks - f->time_ticks != h->duration_ticks)
    return bad(o, last, "the duration");
  for (uint32_t i = 0; i < h->num_frags; i++) { // counts of all first: the rest indexes by them
    enum err e = check_frag_head(o, i);
    if (e)
      return e;
  }
  uint32_t part = 0;
  for (; f < last; f++) {
    enum err e = check_trafs(o, f);
    e = e ? e : check_runs(o, f);
    e = e ? e : check_edits(o, f);
    if (e)
      return e;
    while (o->ix.part_ends[part] <= f->src_off && part + 1 < h->num_parts)
      part++;
    if (f->src_off + f->src_len > o->ix.part_ends[part])
      return bad(o, f, "a fragment across two parts");
  }
  return ERR_OK;
}

enum err ix_open(struct track_index *out, struct bytes blob, struct diag *diag) {
  struct opener o = {.blob = blob, .diag = diag};
  if (blob.n < sizeof(struct ix_header) || (uintptr_t)blob.p % 8)
    return diag_say(diag, ERR_TRUNCATED, "index: shorter than its head");
  o.ix.h = (const struct ix_header *)blob.p;
  enum err e = check_head(&o);
  e = e ? e : check_sections(&o);
  if (e)
    return e;
  point(&o.ix, blob.p);
  e = check_parts(&o);
  e = e ? e : check_init(&o);
  e = e ? e : check_frags(&o);
  if (e)
    return e;
  o.ix.layout = init_layout(o.ix.init);
  o.ix.delay = init_delay(o.ix.init, o.ix.h->timescale);
  const struct ix_frag *last = &o.ix.frags[o.ix.h->num_frags - 1];
  uint64_t end;
  if (__builtin_add_overflow(last->time_ticks + last->duration_ticks, o.ix.delay, &end) ||
      __builtin_add_overflow(o.ix.h->start_ticks + o.ix.h->duration_ticks, o.ix.delay, &end))
    return bad(&o, last, "empty edits that end behind all time");
  *out = o.ix;
  return ERR_OK;
}

bool ix_identity_is(const struct track_index *ix, const struct ix_identity *now) {
  const struct ix_identity *id = &ix->h->identity;
  return id->size == now->size && id->mtime_ns == now->mtime_ns && id->stamp == now->stamp;
}
