#include "cenc/sidx.h"

#include <inttypes.h>

#include "base/writer.h"

enum { MAX_REFS = 65535, HEAD_V0 = 32, HEAD_V1 = 40 };

// earliest is when the first subsegment is presented: by media that an edit list does not omit (8.16.3.3), empty edits before it
// not counted.
static uint64_t earliest(const struct plan *p) {
  return p->ix->h->num_frags ? ix_presented(p->ix->frags[0].time_ticks, ix_skipped(p->ix, p->segs)) : 0;
}

static bool is_wide(const struct plan *p) { return earliest(p) + p->ix->delay > UINT32_MAX; }

static uint32_t num_refs(const struct plan *p) {
  return p->segs->num ? (p->segs->num - 1) / p->sidx_group + 1 : 0;
}

void sidx_layout(struct plan *p) {
  p->sidx_group = p->segs->num <= MAX_REFS ? 1 : (p->segs->num - 1) / MAX_REFS + 1;
  p->sidx_len = (is_wide(p) ? HEAD_V1 : HEAD_V0) + SIDX_REF_LEN * num_refs(p);
}

struct span {
  uint32_t first, end; // fragments
};

static struct span ref_span(const struct plan *p, uint32_t ref) {
  uint32_t s = ref * p->sidx_group;
  uint32_t end = p->segs->num - s < p->sidx_group ? p->segs->num : s + p->sidx_group;
  return (struct span){p->segs->first_frag[s], p->segs->first_frag[end]};
}

static uint64_t span_bytes(const struct plan *p, struct span s) {
  return plan_frag_range(p, s.end).off - plan_frag_range(p, s.first).off;
}

// Decode times say how long a reference lasts, gaps included (behind the last fragment: its end); where they do not ascend the sum
// of durations does. The first is shorter by what is omitted of it, as in an MPD's timeline.
static uint64_t span_ticks(const struct plan *p, struct span s) {
  const struct ix_frag *frags = p->ix->frags;
  uint64_t start = frags[s.first].time_ticks, ticks = 0;
  if (frags[s.end].time_ticks > start)
    ticks = frags[s.end].time_ticks - start;
  else
    for (uint32_t f = s.first; f < s.end; f++)
      ticks += frags[f].duration_ticks;
  return s.first ? ticks : ix_presented(start + ticks, ix_skipped(p->ix, p->segs)) - earliest(p);
}

enum err sidx_check(const struct plan *p, struct diag *diag) {
  for (uint32_t r = 0; r < num_refs(p); r++) {
    struct span s = ref_span(p, r);
    if (span_bytes(p, s) > INT32_MAX)
      return diag_set(diag, ERR_LIMIT, p->ix->frags[s.first].src_off, "segment %" PRIu32 " is 2 GiB or longer", r + 1);
    if (span_ticks(p, s) > UINT32_MAX)
      return diag_set(diag, ERR_LIMIT, p->ix->frags[s.first].src_off, "segment %" PRIu32 " lasts too long for sidx",
                      r + 1);
  }
  return ERR_OK;
}

uint32_t sidx_head_write(uint8_t out[SIDX_HEAD_MAX], const struct plan *p) {
  uint64_t time = earliest(p) + p->ix->delay;
  struct writer w = wr_of(out, SIDX_HEAD_MAX);
  wr_u32(&w, p->sidx_len);
  wr_u32(&w, FOURCC('s', 'i', 'd', 'x'));
  wr_u32(&w, is_wide(p) ? 0x01000000 : 0);
  wr_u32(&w, p->ix->h->track_id);
  wr_u32(&w, p->ix->h->timescale);
  if (is_wide(p)) {
    wr_u64(&w, time);
    wr_u64(&w, 0); // first_offset: the first reference follows at once
  } else {
    wr_u32(&w, (uint32_t)time);
    wr_u32(&w, 0);
  }
  wr_u16(&w, 0);
  wr_u16(&w, (uint16_t)num_refs(p));
  return (uint32_t)w.n;
}

void sidx_ref_write(uint8_t out[SIDX_REF_LEN], const struct plan *p, uint32_t ref) {
  struct span s = ref_span(p, ref);
  store_be32(out, (uint32_t)span_bytes(p, s)); // reference_type 0: media
  store_be32(out + 4, (uint32_t)span_ticks(p, s));
  store_be32(out + 8, ix_starts_sync(p->ix, s.first, s.end) ? 0x90000000 : 0); // starts with SAP, type 1, delta 0
}
