#include "mp4/index.h"

// Whether decode times leave out a sample or more before fragment f > 0: less is rounding.
static bool behind_gap(const struct track_index *ix, uint32_t f) {
  uint64_t end = ix->frags[f - 1].time_ticks + ix->frags[f - 1].duration_ticks;
  return ix->frags[f].time_ticks > end && ix->frags[f].time_ticks - end >= ix->h->frame_samples;
}

// Visits segments in order; `first_frag` may be NULL to count only.
static uint32_t group(const struct track_index *ix, uint64_t target_ticks, uint32_t *first_frag) {
  const struct ix_header *h = ix->h;
  bool marked = (h->flags & (IX_HAD_SIDX | IX_FOLDER)) != 0;
  uint32_t num = 0, lasting = h->num_frags; // behind the last fragment that lasts any time
  uint64_t ticks = 0, start = 0;            // of the open segment
  while (target_ticks && lasting && !ix->frags[lasting - 1].duration_ticks)
    lasting--;
  for (uint32_t f = 0; f < h->num_frags; f++) {
    bool starts = f == 0 || (marked && ix->frags[f].flags & IX_FRAG_SUBSEGMENT);
    if (!starts && !marked && f < lasting)
      starts = ticks >= target_ticks ||
               (ix->frags[f].time_ticks > start && ix->frags[f].time_ticks - start >= target_ticks && behind_gap(ix, f));
    if (starts) {
      if (first_frag)
        first_frag[num] = f;
      num++;
      ticks = 0;
      start = ix->frags[f].time_ticks;
    }
    ticks += ix->frags[f].duration_ticks;
  }
  if (first_frag)
    first_frag[num] = h->num_frags;
  return num;
}

uint32_t ix_segment_count(const struct track_index *ix, uint64_t target_ticks) {
  return group(ix, target_ticks, NULL);
}

void ix_segment_fill(const struct track_index *ix, uint64_t target_ticks, uint32_t *first_frag) {
  (void)group(ix, target_ticks, first_frag);
}

uint64_t ix_skipped(const struct track_index *ix, const struct ix_segments *segs) {
  uint64_t skip = ix->h->edit_media_time > 0 ? (uint64_t)ix->h->edit_media_time : 0, first = 0;
  for (uint32_t f = 0; segs->num && f < segs->first_frag[1]; f++)
    first += ix->frags[f].duration_ticks;
  return skip < first ? skip : 0;
}

bool ix_starts_sync(const struct track_index *ix, uint32_t first, uint32_t end) {
  const struct ix_frag *f = ix->frags + first, *stop = ix->frags + end;
  while (f < stop && f[1].first_sample == f->first_sample)
    f++;
  return f == stop || !(f->flags & IX_FRAG_NOT_SYNC);
}
