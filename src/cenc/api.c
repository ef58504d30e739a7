// The public face of the core: include/sluice.h over plan.h, index.h and unprotect.h.
#include <sluice.h>

#include <stdalign.h>

#include "cenc/plan.h"
#include "cenc/unprotect.h"

struct sluice_track {
  struct track_index ix;
};

struct sluice_plan {
  struct plan plan;
  struct ix_segments segs;
  struct protection prot;
  const struct aes_ops *ops;
};

// The caller's allocator behind the core's.
struct memory {
  struct alloc base;
  struct sluice_memory caller;
};

enum { MAX_KEYS = 64 };

static void *memory_get(struct alloc *self, size_t n) {
  const struct memory *m = (const struct memory *)self;
  return m->caller.get(m->caller.ctx, n);
}

static struct memory memory_of(struct sluice_memory caller) {
  return (struct memory){.base.get = memory_get, .caller = caller};
}

static int report(enum err e, const struct diag *d, struct sluice_error *error) {
  if (e && error) {
    if (d && d->err) {
      diag_format(d, error->text, sizeof error->text);
    } else {
      const char *text = err_text(e);
      memcpy(error->text, text, strlen(text) + 1);
    }
  }
  return (int)e;
}

static const struct aes_ops *best_ops(void) {
  const char *why;
  return aes_ops_best(NULL, &why);
}

const char *sluice_version(void) { return SLUICE_VERSION; }

const char *sluice_error_name(int error) { return err_name((enum err)error); }

static enum err source_read(void *ctx, uint64_t off, void *buf, size_t n) {
  const struct sluice_source *s = (const struct sluice_source *)ctx;
  return s->read(s->ctx, off, buf, n) ? ERR_IO : ERR_OK;
}

int sluice_index_build(const void **blob, size_t *blob_len, const struct sluice_source *source, const uint8_t *digest,
                       struct sluice_memory memory, struct sluice_error *error) {
  struct memory m = memory_of(memory);
  struct sluice_source s = *source;
  struct mp4_source src = {.ctx = &s, .read = source_read, .size = s.size};
  struct ix_identity id = {.size = s.size};
  struct diag d = {0};
  struct bytes out;
  if (digest)
    memcpy(id.digest, digest, sizeof id.digest);
  enum err e = ix_build(&m.base, &out, &src, &id, &d);
  if (!e) {
    *blob = out.p;
    *blob_len = out.n;
  }
  return report(e, &d, error);
}

int sluice_track_open(sluice_track **track, const void *blob, size_t blob_len, struct sluice_memory memory,
                      struct sluice_error *error) {
  struct diag d = {0};
  struct track_index ix;
  enum err e = (uintptr_t)blob % alignof(struct ix_header)
                   ? diag_say(&d, ERR_ARGUMENT, "the blob is not aligned to %zu bytes", alignof(struct ix_header))
                   : ix_open(&ix, bytes_of(blob, blob_len), &d);
  sluice_track *t = e ? NULL : (sluice_track *)memory.get(memory.ctx, sizeof *t);
  if (!e && !t)
    e = ERR_NO_MEMORY;
  if (!e) {
    t->ix = ix;
    *track = t;
  }
  return report(e, &d, error);
}

const char *sluice_track_codecs(const sluice_track *track) { return track->ix.h->codecs; }
uint64_t sluice_track_samples(const sluice_track *track) { return track->ix.h->num_samples; }

double sluice_track_seconds(const sluice_track *track) {
  return (double)track->ix.h->duration_ticks / (double)track->ix.h->timescale;
}

// An IV may be derived from a digest only when there is one: zeros would give every file the same.
static enum err protection_fill(struct protection *out, const struct sluice_protection *in, const struct ix_header *h,
                                const struct aes_ops *ops, struct diag *d) {
  if ((unsigned)in->scheme >= SCHEME_COUNT)
    return diag_say(d, ERR_ARGUMENT, "there is no such scheme");
  *out = (struct protection){.scheme = (enum scheme)in->scheme, .no_senc = in->no_senc != 0, .wide_iv = in->wide_iv != 0};
  if (out->scheme == SCHEME_CLEAR)
    return ERR_OK;
  if (in->pssh)
    out->pssh = bytes_of(in->pssh, in->pssh_len);
  memcpy(out->kid, in->kid, 16);
  ops->key_init(&out->key, in->key);
  if (in->has_iv)
    memcpy(out->iv, in->iv, out->scheme == SCHEME_CENC ? 8 : 16);
  else if (out->scheme == SCHEME_CBCS)
    cbcs_iv(out->iv, in->key);
  else if (h->flags & IX_NO_DIGEST)
    return diag_say(d, ERR_ARGUMENT, "cenc needs an IV (has_iv), or an index that was built with the file's digest");
  else
    cenc_iv_base(out->iv, in->key, h->identity.digest, h->track_id);
  return ERR_OK;
}

int sluice_plan_new(sluice_plan **plan, const sluice_track *track, const struct sluice_protection *protection,
                    uint32_t segment_ms, struct sluice_memory memory, struct sluice_error *error) {
  struct diag d = {0};
  const struct ix_header *h = track->ix.h;
  uint64_t target = (uint64_t)segment_ms * h->timescale / 1000;
  uint32_t num = ix_segment_count(&track->ix, target);
  sluice_plan *p = (sluice_plan *)memory.get(memory.ctx, sizeof *p);
  uint32_t *first = (uint32_t *)memory.get(memory.ctx, ((size_t)num + 1) * sizeof *first);
  if (!p || !first)
    return report(ERR_NO_MEMORY, NULL, error);
  p->ops = best_ops();
  ix_segment_fill(&track->ix, target, first);
  p->segs = (struct ix_segments){num, first};
  enum err e = protection_fill(&p->prot, protection, h, p->ops, &d);
  if (!e)
    e = plan_init(&p->plan, &track->ix, &p->segs, &p->prot, &d);
  if (!e)
    *plan = p;
  else
    sluice_plan_wipe(p);
  return report(e, &d, error);
}

static struct sluice_range range_out(struct plan_range r) { return (struct sluice_range){r.off, r.len}; }

uint64_t sluice_plan_len(const sluice_plan *plan) { return plan->plan.total_len; }
uint32_t sluice_plan_segments(const sluice_plan *plan) { return plan->segs.num; }
struct sluice_range sluice_plan_init(const sluice_plan *plan) { return range_out(plan_init_range(&plan->plan)); }
struct sluice_range sluice_plan_sidx(const sluice_plan *plan) { return range_out(plan_sidx_range(&plan->plan)); }

struct sluice_range sluice_plan_segment(const sluice_plan *plan, uint32_t segment) {
  if (segment >= plan->segs.num)
    return (struct sluice_range){0};
  return range_out(plan_segment_range(&plan->plan, segment));
}

void sluice_plan_tag(const sluice_plan *plan, uint8_t tag[16]) { plan_tag(&plan->plan, tag); }

static bool inside(const sluice_plan *plan, struct sluice_range r) {
  return r.off <= plan->plan.total_len && r.len <= plan->plan.total_len - r.off;
}

int sluice_plan_source(struct sluice_range *need, const sluice_plan *plan, struct sluice_range range) {
  if (!inside(plan, range))
    return ERR_ARGUMENT;
  *need = range_out(plan_source(&plan->plan, (struct plan_range){range.off, range.len}));
  return ERR_OK;
}

int sluice_plan_render(void *out, const sluice_plan *plan, struct sluice_range range, const void *src, uint64_t src_off,
                       size_t src_len) {
  struct sluice_range need;
  int e = sluice_plan_source(&need, plan, range);
  if (e)
    return e;
  if (need.len && (need.off < src_off || need.off - src_off > src_len || need.len > src_len - (need.off - src_off)))
    return ERR_ARGUMENT;
  plan_render(&plan->plan, plan->ops, (struct plan_range){range.off, range.len}, bytes_of(src, src_len), src_off,
              (uint8_t *)out);
  return ERR_OK;
}

void sluice_plan_wipe(sluice_plan *plan) { aes_key_wipe(&plan->prot.key); }

int sluice_decrypt(void *out, size_t *out_len, const void *file, size_t len, const struct sluice_key *keys, size_t num_keys,
                   struct sluice_memory memory, struct sluice_error *error) {
  struct memory m = memory_of(memory);
  struct diag d = {0};
  struct content_key expanded[MAX_KEYS];
  if (num_keys > MAX_KEYS)
    return report(ERR_LIMIT, NULL, error);
  const struct aes_ops *ops = best_ops();
  for (size_t i = 0; i < num_keys; i++) {
    memcpy(expanded[i].kid, keys[i].kid, 16);
    ops->key_init(&expanded[i].key, keys[i].key);
  }
  struct unprotect_input in = {
      .file = bytes_of(file, len), .keys = expanded, .num_keys = num_keys, .ops = ops, .mem = &m.base};
  enum err e = unprotect((uint8_t *)out, out_len, &in, &d);
  for (size_t i = 0; i < num_keys; i++)
    aes_key_wipe(&expanded[i].key);
  return report(e, &d, error);
}
