#include "simd/jobs.h"

static void open_more(struct aes_jobs *it) {
  while (it->num_open < AES_MERGE && it->num_segs) {
    if (it->segs->num_lanes) {
      it->open[it->num_open].seg = it->segs;
      it->open[it->num_open++].at = 0;
    }
    it->segs++;
    it->num_segs--;
  }
}

void aes_jobs_init(struct aes_jobs *it, const struct aes_cbc_seg *segs, size_t num) {
  it->segs = segs;
  it->num_segs = num;
  it->num_open = 0;
  open_more(it);
}

bool aes_jobs_next(struct aes_jobs *it, struct aes_job *out) {
  while (it->num_open) {
    size_t best = 0;
    uint32_t best_len = it->open[0].seg->lanes[it->open[0].at].len;
    for (size_t i = 1; i < it->num_open; i++) {
      uint32_t len = it->open[i].seg->lanes[it->open[i].at].len;
      if (len / 16 > best_len / 16) {
        best = i;
        best_len = len;
      }
    }
    const struct aes_cbc_seg *seg = it->open[best].seg;
    struct aes_lane lane = seg->lanes[it->open[best].at++];
    if (it->open[best].at == seg->num_lanes) {
      it->open[best] = it->open[--it->num_open];
      open_more(it);
    }
    const uint8_t *src = seg->src + lane.off;
    uint8_t *dst = seg->dst + lane.off;
    if (src != dst)
      aes_lane_tail(dst, src, lane.len);
    if (lane.len >= 16) {
      *out = (struct aes_job){src, dst, lane.len / 16};
      return true;
    }
  }
  return false;
}

// One segment is the usual burst: its lanes in a row, without choosing between segments.
static void list_one(struct aes_jobs *it, struct aes_list *out) {
  const struct aes_cbc_seg *seg = it->open[0].seg;
  size_t at = it->open[0].at;
  unsigned num = 0;
  bool copy = seg->src != seg->dst;
  for (; at < seg->num_lanes && num < AES_LIST; at++) {
    struct aes_lane lane = seg->lanes[at];
    if (copy)
      aes_lane_tail(seg->dst + lane.off, seg->src + lane.off, lane.len);
    out->src[num] = (uint64_t)(seg->src + lane.off);
    out->dst[num] = (uint64_t)(seg->dst + lane.off);
    out->len[num] = lane.len & ~15u;
    num += lane.len >= 16;
  }
  it->open[0].at = at;
  if (at == seg->num_lanes)
    it->num_open = 0;
  out->num = num;
}

bool aes_list_next(struct aes_jobs *it, struct aes_list *out) {
  out->num = 0;
  while (out->num == 0 && it->num_open == 1 && it->num_segs == 0)
    list_one(it, out);
  struct aes_job job;
  while (out->num < AES_LIST && it->num_open && (it->num_open > 1 || it->num_segs || out->num == 0)) {
    if (!aes_jobs_next(it, &job))
      break;
    out->src[out->num] = (uint64_t)job.src;
    out->dst[out->num] = (uint64_t)job.dst;
    out->len[out->num++] = (uint32_t)(16 * job.blocks);
  }
  return out->num != 0;
}

void aes_xor_parts(const struct aes_job *parts, const uint8_t *stream, size_t num) {
  for (size_t i = 0; i < num; i++)
    for (size_t j = 0; j < parts[i].blocks; j++)
      parts[i].dst[j] = parts[i].src[j] ^ stream[16 * i + j];
}
