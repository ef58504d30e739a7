#include "cenc/plan.h"

#include <assert.h>
#include <inttypes.h>

#include "cenc/sidx.h"

static const char *const names[SCHEME_COUNT] = {"clear", "cenc", "cbcs"};

const char *scheme_name(enum scheme s) { return (unsigned)s < SCHEME_COUNT ? names[s] : "?"; }

enum err scheme_parse(enum scheme *out, struct bytes text) {
  for (int i = 0; i < SCHEME_COUNT; i++)
    if (bytes_eq(text, bytes_str(names[i]))) {
      *out = (enum scheme)i;
      return ERR_OK;
    }
  return ERR_SYNTAX;
}

// init_len_of sums the init script and proves that its sizes still fit their fields.
static enum err init_len_of(uint32_t *out, const struct plan *p, struct diag *diag) {
  const struct track_index *ix = p->ix;
  uint64_t len = ix->init.n, pssh_len = p->prot->pssh.n;
  for (uint32_t i = 0; i < ix->h->num_init_edits; i++) {
    const struct ix_edit *e = &ix->init_edits[i];
    uint64_t grown = e->value;
    if (e->scope == IX_SCOPE_SINF || e->scope == IX_SCOPE_MOOV)
      grown += (uint64_t)e->arg * p->sinf_len;
    if (e->scope == IX_SCOPE_MOOV)
      grown += pssh_len;
    if (e->kind == IX_SIZE32 && grown > UINT32_MAX)
      return diag_set(diag, ERR_OVERFLOW, e->pos, "a box of the init segment would pass 4 GiB");
    len -= e->del;
    switch ((enum ix_edit_kind)e->kind) {
    case IX_WORD:
    case IX_SIZE32:
    case IX_ENTRY:
      len += 4;
      break;
    case IX_SIZE64:
      len += 8;
      break;
    case IX_SINF:
      len += p->sinf_len;
      break;
    case IX_PSSH:
      len += pssh_len;
      break;
    case IX_DELETE:
    case IX_PROTECT:
    case IX_KIND_COUNT:
      break;
    }
  }
  if (len > INT32_MAX)
    return diag_say(diag, ERR_OVERFLOW, "the init segment would pass 2 GiB");
  *out = (uint32_t)len;
  return ERR_OK;
}

// check_frags proves that fragments can hold their data offsets, which are signed 32-bit.
static enum err check_frags(const struct plan *p, struct diag *diag) {
  for (uint32_t f = 0; f < p->ix->h->num_frags; f++)
    if (plan_frag_range(p, f).len > INT32_MAX)
      return diag_set(diag, ERR_LIMIT, p->ix->frags[f].src_off, "fragment %" PRIu32 " is 2 GiB or longer", f);
  return ERR_OK;
}

enum err plan_init(struct plan *out, const struct track_index *ix, const struct ix_segments *segs,
                   const struct protection *prot, struct diag *diag) {
  static const struct {
    uint32_t sinf, traf;
  } growths[SCHEME_COUNT] = {
      [SCHEME_CENC] = {SINF_LEN_CENC, SAIZ_LEN + SAIO_LEN + SENC_HEAD_LEN},
      [SCHEME_CBCS] = {SINF_LEN_CBCS, SENC_HEAD_LEN},
  };
  assert((unsigned)prot->scheme < SCHEME_COUNT);
  struct plan p = {.ix = ix, .segs = segs, .prot = prot};
  p.sinf_len = growths[prot->scheme].sinf;
  p.traf_growth = prot->scheme == SCHEME_CBCS && prot->no_senc ? 0 : growths[prot->scheme].traf;
  p.sample_growth = prot->scheme == SCHEME_CENC ? cenc_iv_len(prot) : 0;
  sidx_layout(&p);

  enum err e = init_len_of(&p.init_len, &p, diag);
  if (e)
    return e;
  const struct ix_frag *end = &ix->frags[ix->h->num_frags];
  uint64_t total, samples;
  if (__builtin_mul_overflow(end->first_sample, (uint64_t)p.sample_growth, &samples) ||
      __builtin_add_overflow(end->out_off, samples, &total) ||
      __builtin_add_overflow(total, (uint64_t)end->first_traf * p.traf_growth + p.init_len + p.sidx_len, &total) ||
      total > INT64_MAX)
    return diag_say(diag, ERR_OVERFLOW, "the output would pass 2^63 bytes");
  p.total_len = total;
  if ((e = check_frags(&p, diag)) != ERR_OK || (e = sidx_check(&p, diag)) != ERR_OK)
    return e;
  *out = p;
  return ERR_OK;
}

static uint64_t frag_off(const struct plan *p, uint32_t frag) {
  const struct ix_frag *f = &p->ix->frags[frag];
  return (uint64_t)p->init_len + p->sidx_len + f->out_off + (uint64_t)f->first_traf * p->traf_growth +
         f->first_sample * p->sample_growth;
}

struct plan_range plan_init_range(const struct plan *p) { return (struct plan_range){0, p->init_len}; }

struct plan_range plan_sidx_range(const struct plan *p) { return (struct plan_range){p->init_len, p->sidx_len}; }

struct plan_range plan_frag_range(const struct plan *p, uint32_t frag) {
  assert(frag <= p->ix->h->num_frags);
  uint64_t off = frag_off(p, frag);
  return (struct plan_range){off, frag < p->ix->h->num_frags ? frag_off(p, frag + 1) - off : 0};
}

struct plan_range plan_segment_range(const struct plan *p, uint32_t seg) {
  assert(seg < p->segs->num);
  uint64_t off = frag_off(p, p->segs->first_frag[seg]);
  return (struct plan_range){off, frag_off(p, p->segs->first_frag[seg + 1]) - off};
}

static uint64_t segment_off(const struct plan *p, uint32_t seg) { return frag_off(p, p->segs->first_frag[seg]); }

// The last of [lo, hi) that begins at or before `off`; lo does. Inlined, so that `begin` is no call through a pointer.
static inline __attribute__((always_inline)) uint32_t last_begun(const struct plan *p, uint64_t (*begin)(const struct plan *, uint32_t),
                                                                 uint32_t lo, uint32_t hi, uint64_t off) {
  while (hi - lo > 1) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (begin(p, mid) <= off)
      lo = mid;
    else
      hi = mid;
  }
  return lo;
}

// Segments are about equally long: look where it would be if they were, then further and further away. Each look may be a
// miss of the cache.
uint32_t plan_segment_at(const struct plan *p, uint64_t off) {
  uint64_t start = (uint64_t)p->init_len + p->sidx_len;
  assert(off >= start && off < p->total_len);
  uint32_t num = p->segs->num, lo, hi, step = 1; // the last segment that begins at or before `off` lies in [lo, hi)
  uint32_t guess = (uint32_t)((unsigned __int128)(off - start) * num / (p->total_len - start));
  if (segment_off(p, guess) <= off) {
    for (lo = guess, hi = lo + 1; hi < num && segment_off(p, hi) <= off; step *= 2) {
      lo = hi;
      hi = num - lo > step ? lo + step : num;
    }
  } else {
    for (hi = guess, lo = hi - 1; lo > 0 && segment_off(p, lo) > off; step *= 2) {
      hi = lo;
      lo = hi > step ? hi - step : 0;
    }
  }
  return last_begun(p, segment_off, lo, hi, off);
}

uint32_t plan_frag_at(const struct plan *p, uint64_t off) {
  uint32_t seg = plan_segment_at(p, off);
  return last_begun(p, frag_off, p->segs->first_frag[seg], p->segs->first_frag[seg + 1], off);
}
