#include "simd/jobs.h"

static void open_more(struct aes_jobs *it) {
  for (; it->num_open < AES_WINDOW && it->num_segs; it->segs++, it->num_segs--)
    if (it->segs->num_lanes)
      it->open[it->num_open++] = it->segs;
}

// Opens the segment whose first lane is the longest: a long sample that comes last has no others beside it.
static void choose(struct aes_jobs *it) {
  size_t best = 0;
  for (size_t i = 1; i < it->num_open; i++)
    if (it->open[i]->lanes[0].len / 16 > it->open[best]->lanes[0].len / 16)
      best = i;
  it->seg = it->open[best];
  it->at = 0;
  it->num_open--;
  for (size_t i = best; i < it->num_open; i++)
    it->open[i] = it->open[i + 1];
  open_more(it);
}

void aes_jobs_init(struct aes_jobs *it, const struct aes_cbc_seg *segs, size_t num) {
  it->seg = NULL;
  it->at = 0;
  it->segs = segs;
  it->num_segs = num;
  it->num_open = 0;
  open_more(it);
}

bool aes_jobs_seg(struct aes_jobs *it) {
  if (it->seg && it->at < it->seg->num_lanes)
    return true;
  if (!it->num_open)
    return false;
  choose(it);
  return true;
}

bool aes_jobs_next(struct aes_jobs *it, struct aes_job *out) {
  while (aes_jobs_seg(it)) {
    struct aes_lane lane = it->seg->lanes[it->at++];
    const uint8_t *src = it->seg->src + lane.off;
    uint8_t *dst = it->seg->dst + lane.off;
    if (src != dst)
      aes_lane_tail(dst, src, lane.len);
    if (lane.len >= 16) {
      *out = (struct aes_job){src, dst, lane.len / 16};
      return true;
    }
  }
  return false;
}

void aes_xor_parts(const struct aes_job *parts, const uint8_t *stream, size_t num) {
  for (size_t i = 0; i < num; i++)
    for (size_t j = 0; j < parts[i].blocks; j++)
      parts[i].dst[j] = parts[i].src[j] ^ stream[16 * i + j];
}
