#include "rewrite.h"

#include <stdio.h>
#include <stdlib.h>

enum { SINF_LEN = 80, PSSH_LEN = 52, TRAF_LEN = 57, SAMPLE_LEN = 8, MEMORY = 1 << 30 };

static enum err memory_read(void *ctx, uint64_t off, void *buf, size_t n) {
  const struct bytes *b = ctx;
  if (off > b->n || n > b->n - off)
    return ERR_TRUNCATED;
  if (n)
    memcpy(buf, b->p + off, n);
  return ERR_OK;
}

struct mp4_source memory_source(struct bytes *b, const uint64_t *part_ends, uint32_t num_parts) {
  return (struct mp4_source){.ctx = b, .read = memory_read, .size = b->n, .part_ends = part_ends, .num_parts = num_parts};
}

struct out {
  uint8_t *p;
  size_t n, cap;
};

static void put(struct out *o, const void *p, size_t n) {
  if (o->n + n > o->cap) {
    o->cap = (o->n + n) * 2;
    o->p = realloc(o->p, o->cap);
    if (!o->p)
      abort();
  }
  if (n)
    memcpy(o->p + o->n, p, n);
  o->n += n;
}

static void put_free(struct out *o, uint32_t len) {
  uint8_t head[8] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, 'f', 'r', 'e', 'e'};
  static const uint8_t zeros[256];
  put(o, head, 8);
  for (uint32_t left = len - 8; left;) {
    uint32_t n = left < sizeof zeros ? left : (uint32_t)sizeof zeros;
    put(o, zeros, n);
    left -= n;
  }
}

static uint32_t traf_growth(const struct ix_traf *t) { return TRAF_LEN + SAMPLE_LEN * t->num_samples; }

static uint64_t growth(const struct track_index *ix, const struct ix_frag *f, const struct ix_edit *e) {
  uint64_t sum = 0;
  switch ((enum ix_scope)e->scope) {
  case IX_SCOPE_TRAF: return traf_growth(&ix->trafs[f->first_traf + e->arg]);
  case IX_SCOPE_MOOF:
    for (uint32_t i = f->first_traf; i < f[1].first_traf; i++)
      sum += traf_growth(&ix->trafs[i]);
    return sum;
  case IX_SCOPE_SINF: return (uint64_t)e->arg * SINF_LEN;
  case IX_SCOPE_MOOV: return (uint64_t)e->arg * SINF_LEN + PSSH_LEN;
  case IX_SCOPE_NONE:
  case IX_SCOPE_COUNT: break;
  }
  return 0;
}

static void emit(struct out *o, const struct track_index *ix, const struct ix_frag *f, const struct ix_edit *e,
                 const uint8_t *src) {
  uint8_t b[8];
  uint64_t grown = e->value + growth(ix, f, e);
  switch ((enum ix_edit_kind)e->kind) {
  case IX_WORD: store_be32(b, e->value); put(o, b, 4); break;
  case IX_SIZE32: store_be32(b, (uint32_t)grown); put(o, b, 4); break;
  case IX_SIZE64: store_be64(b, grown); put(o, b, 8); break;
  case IX_PROTECT: put_free(o, traf_growth(&ix->trafs[f->first_traf + e->arg])); break;
  case IX_SINF: put_free(o, SINF_LEN); break;
  case IX_PSSH: put_free(o, PSSH_LEN); break;
  case IX_ENTRY: put(o, src + e->pos, 4); break;
  case IX_DELETE:
  case IX_KIND_COUNT: break;
  }
}

static void run_script(struct out *o, const struct track_index *ix, const struct ix_frag *f, const struct ix_edit *edits,
                       uint32_t num, struct bytes src) {
  size_t pos = 0;
  for (uint32_t i = 0; i < num; i++) {
    put(o, src.p + pos, edits[i].pos - pos);
    emit(o, ix, f, &edits[i], src.p);
    pos = (size_t)edits[i].pos + edits[i].del;
  }
  put(o, src.p + pos, src.n - pos);
}

struct bytes rewrite(const struct track_index *ix, struct bytes src, uint64_t *part_ends) {
  struct out o = {0};
  uint32_t part = 0;
  run_script(&o, ix, NULL, ix->init_edits, ix->h->num_init_edits, ix->init);
  for (uint32_t i = 0; i < ix->h->num_frags; i++) {
    const struct ix_frag *f = &ix->frags[i];
    for (; part_ends && part + 1 < ix->h->num_parts && ix->part_ends[part] <= f->src_off; part++)
      part_ends[part] = o.n;
    run_script(&o, ix, f, ix->edits + f->first_edit, f[1].first_edit - f->first_edit,
               bytes_of(src.p + f->src_off, (size_t)f->src_len));
  }
  for (; part_ends && part < ix->h->num_parts; part++)
    part_ends[part] = o.n;
  return bytes_of(o.p, o.n);
}

uint64_t *sample_positions(const struct track_index *ix) {
  uint64_t *pos = malloc((ix->h->num_samples + 1) * sizeof *pos);
  if (!pos)
    abort();
  for (uint64_t i = 0; i < ix->h->num_samples; i++)
    pos[i] = UINT64_MAX;
  for (uint32_t i = 0; i < ix->h->num_frags; i++) {
    const struct ix_frag *f = &ix->frags[i];
    for (uint32_t r = f->first_run; r < f[1].first_run; r++) {
      const struct ix_run *run = &ix->runs[r];
      uint64_t at = f->src_off + run->pos;
      for (uint64_t n = f->first_sample + run->first_sample, end = n + run->num_samples; n < end; n++) {
        uint32_t len = ix_sample_size(ix, n);
        if (len)
          pos[n] = at;
        at += len;
      }
    }
  }
  return pos;
}

static const char *compare(const struct track_index *a, struct bytes a_src, const struct track_index *b, struct bytes b_src) {
  const struct ix_header *x = a->h, *y = b->h;
  if (x->num_samples != y->num_samples || x->num_frags != y->num_frags || x->num_trafs != y->num_trafs)
    return "counts differ";
  if (x->duration_ticks != y->duration_ticks || x->start_ticks != y->start_ticks || strcmp(x->codecs, y->codecs))
    return "headers differ";
  for (uint32_t i = 0; i < x->num_frags; i++)
    if (a->frags[i].time_ticks != b->frags[i].time_ticks || a->frags[i].first_sample != b->frags[i].first_sample)
      return "fragments differ";
  uint64_t *pa = sample_positions(a), *pb = sample_positions(b);
  const char *bad = NULL;
  for (uint64_t n = 0; n < x->num_samples && !bad; n++) {
    uint32_t len = ix_sample_size(a, n);
    if (len != ix_sample_size(b, n))
      bad = "sizes differ";
    else if (len && memcmp(a_src.p + pa[n], b_src.p + pb[n], len))
      bad = "a sample differs";
  }
  free(pa);
  free(pb);
  return bad;
}

const char *rewrite_check(const struct track_index *ix, struct bytes src) {
  static char text[400];
  uint64_t *ends = calloc(ix->h->num_parts, sizeof *ends), out_off = 0;
  if (!ends)
    abort();
  struct bytes out = rewrite(ix, src, ends), blob;
  struct mp4_source s = memory_source(&out, ends, ix->h->flags & IX_FOLDER ? ix->h->num_parts : 1);
  struct alloc_heap heap;
  struct diag diag = {0};
  struct track_index again;
  alloc_heap_init(&heap, MEMORY);
  enum err e = ix_build(&heap.base, &blob, &s, &(struct ix_identity){.size = out.n}, &diag);
  e = e ? e : ix_open(&again, blob, &diag);
  const char *bad = NULL;
  if (e) {
    diag_format(&diag, text, sizeof text);
    bad = text;
  } else {
    bad = compare(ix, src, &again, out);
  }
  // What was normalised stays as it is.
  for (uint32_t i = 0; !bad && i < again.h->num_frags; i++) {
    if (again.frags[i].src_len != again.frags[i].out_len || again.frags[i].out_off != out_off)
      bad = "a second pass changes lengths";
    out_off += again.frags[i].out_len;
  }
  alloc_heap_free(&heap);
  free((void *)(uintptr_t)out.p);
  free(ends);
  return bad;
}
