#include "mp4/layout.h"

#include "mp4/heap.h"

bool top_is_dropped(uint32_t type) {
  return type == FOURCC('s', 'i', 'd', 'x') || type == FOURCC('s', 's', 'i', 'x') || type == FOURCC('m', 'f', 'r', 'a');
}

static enum err fail(const struct layout *l, enum err e, uint64_t at, const char *text) {
  struct box_trail t = {.diag = l->diag, .depth = 1, .path = {FOURCC('m', 'o', 'o', 'f')}};
  return trail_fail(&t, e, at, "%s", text);
}

// The top-level box that holds source address `pos`.
static const struct top *top_at(const struct layout_frag *f, uint64_t pos) {
  uint32_t lo = 0, hi = f->num_tops;
  while (lo + 1 < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (f->tops[mid].pos <= pos)
      lo = mid;
    else
      hi = mid;
  }
  return &f->tops[lo];
}

static bool span_before(const void *ctx, size_t a, size_t b) {
  const struct frag_span *s = (const struct frag_span *)ctx;
  return s[a].pos < s[b].pos;
}

static void span_swap(void *ctx, size_t a, size_t b) {
  struct frag_span *s = (struct frag_span *)ctx, moved = s[a];
  s[a] = s[b];
  s[b] = moved;
}

// Truns mostly come in the order of their data. Others are put in it, as long as they are few enough for whoever reads the index.
static enum err sort_spans(const struct layout *l, struct list *spans, uint64_t at) {
  const struct frag_span *s = spans->p;
  uint32_t i = 1;
  while (i < spans->num && s[i - 1].pos <= s[i].pos)
    i++;
  if (i >= spans->num)
    return ERR_OK;
  if (spans->num > LIMIT_UNORDERED_RUNS)
    return fail(l, ERR_LIMIT, at, "too many truns whose data is not in their order");
  heap_sort(&(struct heap_sort){spans->p, span_before, span_swap}, spans->num);
  return ERR_OK;
}

static enum err check_spans(const struct layout *l, const struct list *spans, const struct layout_frag *f) {
  const struct frag_span *s = spans->p;
  for (uint32_t i = 0; i < spans->num; i++) {
    if (s[i].pos < f->start)
      return fail(l, ERR_UNSUPPORTED, f->moof_pos, "sample data lies in another fragment");
    if (i && s[i].pos - s[i - 1].pos < s[i - 1].len)
      return fail(l, ERR_MALFORMED, f->moof_pos, "two truns share sample data");
    const struct top *t = top_at(f, s[i].pos);
    if (t->type != FOURCC('m', 'd', 'a', 't') || s[i].pos < t->pos + t->head_len ||
        s[i].len > t->pos + t->len - s[i].pos)
      return fail(l, ERR_MALFORMED, f->moof_pos, "sample data lies outside of mdat");
  }
  return ERR_OK;
}

enum { BUCKETS = 1024 }; // block counts that are sorted by counting: samples up to 16 KiB

static uint32_t size_at(const struct layout *l, uint64_t n) {
  return l->samples.sizes16 ? l->samples.sizes16[n] : l->samples.sizes32[n];
}

// A run's lanes: offsets in its bytes, in aes_lane_order. Written in their places at once by counting where samples are
// short (nearly always): sorting would take most of the time of building.
static void fill_lanes(struct layout *l, const struct ix_frag *frag, const struct ix_run *run) {
  uint64_t first = frag->first_sample + run->first_sample;
  struct aes_lane *lanes = l->lanes + first;
  uint32_t place[BUCKETS], off = 0, max = 0;
  for (uint32_t i = 0; i < run->num_samples; i++) {
    uint32_t blocks = size_at(l, first + i) / 16;
    max = blocks > max ? blocks : max;
  }
  bool counted = max < BUCKETS;
  if (counted) {
    memset(place, 0, (max + 1) * sizeof *place);
    for (uint32_t i = 0; i < run->num_samples; i++)
      place[size_at(l, first + i) / 16]++;
    uint32_t before = 0;
    for (uint32_t k = max + 1; k-- > 0;) { // most blocks first
      uint32_t num = place[k];
      place[k] = before;
      before += num;
    }
  }
  for (uint32_t i = 0; i < run->num_samples; i++) {
    uint32_t len = size_at(l, first + i);
    lanes[counted ? place[len / 16]++ : i] = (struct aes_lane){off, len};
    off += len;
  }
  if (!counted)
    aes_lane_order(lanes, run->num_samples);
}

static enum err put_run(struct layout *l, const struct ix_frag *frag, const struct ix_run *run) {
  if (l->filling) {
    if (l->num.runs == l->cap.runs)
      return fail(l, ERR_STALE, 0, "the source changed while it was read");
    l->runs[l->num.runs] = *run;
    fill_lanes(l, frag, run);
  }
  l->num.runs++;
  return ERR_OK;
}

// Spans that touch, in samples and in bytes, are one run: kernels like long ones.
static enum err put_runs(struct layout *l, const struct list *spans, const struct ix_frag *frag) {
  const struct frag_span *s = spans->p;
  struct ix_run run = {0};
  for (uint32_t i = 0; i < spans->num; i++) {
    uint32_t pos = (uint32_t)(s[i].pos - frag->src_off), len = (uint32_t)s[i].len;
    if (run.len && run.pos + run.len == pos && run.first_sample + run.num_samples == s[i].first_sample) {
      run.len += len;
      run.num_samples += s[i].num_samples;
      continue;
    }
    if (run.len) {
      enum err e = put_run(l, frag, &run);
      if (e)
        return e;
    }
    run = (struct ix_run){pos, len, s[i].first_sample, s[i].num_samples};
  }
  return run.len ? put_run(l, frag, &run) : ERR_OK;
}

// Data offsets count from the moof's start in the output: dropped boxes in between and what the moof gains by
// normalisation move them; what protection adds is the edit's scope.
static enum err resolve_offsets(const struct layout *l, struct frag_moof *m, const struct layout_frag *f) {
  const struct frag_fix *fix = m->fixes.p;
  struct ix_edit *edits = m->edits.p;
  int64_t growth = (int64_t)m->trafs.num * IX_MAX_TRAF_GROWTH + (int64_t)m->num_samples * IX_MAX_SAMPLE_GROWTH;
  int64_t moof = (int64_t)(f->moof_pos - top_at(f, f->moof_pos)->dropped);
  for (uint32_t i = 0; i < m->fixes.num; i++) {
    bool behind = fix[i].pos > f->moof_pos;
    int64_t off = (int64_t)(fix[i].pos - top_at(f, fix[i].pos)->dropped) - moof + (behind ? m->delta : 0);
    if (off < INT32_MIN || off > INT32_MAX - growth)
      return fail(l, ERR_LIMIT, f->moof_pos, "sample data lies too far from its moof");
    struct ix_edit *e = &edits[fix[i].edit];
    e->value = (uint32_t)(int32_t)off;
    e->kind = behind ? IX_SIZE32 : IX_WORD;
    e->scope = behind ? IX_SCOPE_MOOF : IX_SCOPE_NONE;
  }
  return ERR_OK;
}

static enum err put_edit(struct layout *l, struct ix_edit edit) {
  if (l->filling) {
    if (l->num.edits == l->cap.edits)
      return fail(l, ERR_STALE, 0, "the source changed while it was read");
    l->edits[l->num.edits] = edit;
  }
  if (l->num.edits == UINT32_MAX)
    return fail(l, ERR_LIMIT, 0, "too many edits");
  l->num.edits++;
  return ERR_OK;
}

// The fragment's edits: boxes that go, sizes of those that had none, because more may follow in the output than in their file (the
// next part of a folder) and browsers take no box without one; and the moof's own. *dropped gets the bytes of what goes.
static enum err put_edits(struct layout *l, const struct frag_moof *m, const struct layout_frag *f, uint64_t *dropped) {
  const struct ix_edit *edits = m->edits.p;
  enum err e = ERR_OK;
  *dropped = 0;
  for (uint32_t i = 0; !e && i < f->num_tops; i++) {
    const struct top *t = &f->tops[i];
    if (t->pos == f->moof_pos) {
      for (uint32_t k = 0; !e && k < m->edits.num; k++) {
        struct ix_edit moved = edits[k];
        moved.pos += (uint32_t)(f->moof_pos - f->start);
        e = put_edit(l, moved);
      }
    } else if (top_is_dropped(t->type)) {
      *dropped += t->len;
      e = put_edit(l, (struct ix_edit){.pos = (uint32_t)(t->pos - f->start), .del = (uint32_t)t->len, .kind = IX_DELETE});
    } else if (t->to_end) {
      e = put_edit(l, (struct ix_edit){.pos = (uint32_t)(t->pos - f->start), .del = 4, .value = (uint32_t)t->len, .kind = IX_SIZE32});
    }
  }
  return e;
}

static enum err put_frag(struct layout *l, const struct frag_moof *m, const struct ix_frag *frag) {
  if (l->filling) {
    if (l->num.frags == l->cap.frags || m->trafs.num > l->cap.trafs - l->num.trafs)
      return fail(l, ERR_STALE, frag->src_off, "the source changed while it was read");
    l->frags[l->num.frags] = *frag;
    if (m->trafs.num)
      memcpy(l->trafs + l->num.trafs, m->trafs.p, m->trafs.num * sizeof *l->trafs);
  }
  l->num.frags++;
  l->num.trafs += m->trafs.num;
  l->out_off += frag->out_len;
  l->last_time = frag->time_ticks;
  return ERR_OK;
}

enum err layout_add(struct layout *l, struct frag_moof *m, const struct layout_frag *f) {
  const struct top *moof = top_at(f, f->moof_pos);
  uint64_t dropped;
  if (f->end - f->start > UINT32_MAX - (uint64_t)m->trafs.num * IX_MAX_TRAF_GROWTH - m->num_samples * IX_MAX_SAMPLE_GROWTH)
    return fail(l, ERR_LIMIT, f->moof_pos, "the fragment is longer than 4 GiB");
  if (l->num.frags == IX_MAX_FRAGS)
    return fail(l, ERR_LIMIT, f->moof_pos, "too many fragments");
  if (l->num.frags && m->time_ticks < l->last_time)
    return fail(l, ERR_UNSUPPORTED, f->moof_pos, "decode times run backwards");
  struct ix_frag frag = {.src_off = f->start, .src_len = f->end - f->start, .out_off = l->out_off,
                         .first_sample = l->samples.num - m->num_samples, .time_ticks = m->time_ticks,
                         .duration_ticks = m->duration_ticks, .moof_pos = (uint32_t)(f->moof_pos - f->start),
                         .moof_out_pos = (uint32_t)(f->moof_pos - moof->dropped - (f->start - f->tops[0].dropped)),
                         .first_edit = l->num.edits, .first_run = l->num.runs, .first_traf = l->num.trafs,
                         .flags = f->flags | (m->not_sync ? IX_FRAG_NOT_SYNC : 0)};
  enum err e = sort_spans(l, &m->spans, f->moof_pos);
  e = e ? e : check_spans(l, &m->spans, f);
  e = e ? e : put_runs(l, &m->spans, &frag);
  e = e ? e : resolve_offsets(l, m, f);
  e = e ? e : put_edits(l, m, f, &dropped);
  if (e)
    return e;
  frag.out_len = (uint64_t)((int64_t)(frag.src_len - dropped) + m->delta);
  return put_frag(l, m, &frag);
}
