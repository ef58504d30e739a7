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

// The lanes of the segment in a row, as far as the list holds them. Loops without branches, for compilers to vectorize;
// lanes of less than a block, if any, are then taken out.
static void list_fill(struct aes_jobs *it, struct aes_list *restrict out) {
  const struct aes_cbc_seg *seg = it->seg;
  const struct aes_lane *restrict lanes = seg->lanes + it->at;
  size_t left = seg->num_lanes - it->at, room = AES_LIST - out->num, n = left < room ? left : room;
  const uint64_t src = (uint64_t)seg->src, dst = (uint64_t)seg->dst;
  uint64_t *restrict srcs = out->src + out->num, *restrict dsts = out->dst + out->num;
  uint32_t *restrict lens = out->len + out->num, *restrict rests = out->rest + out->num;
  uint32_t lacking = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t off = lanes[i].off, len = lanes[i].len & ~15u;
    srcs[i] = src + off;
    dsts[i] = dst + off;
    lens[i] = len;
    rests[i] = lanes[i].len & 15;
    lacking |= len == 0;
  }
  out->apart |= src != dst;
  it->at += n;
  if (lacking) {
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
      if (!lens[i] && src != dst)
        aes_lane_tail((uint8_t *)dsts[i], (const uint8_t *)srcs[i], rests[i]);
      srcs[to] = srcs[i];
      dsts[to] = dsts[i];
      lens[to] = lens[i];
      rests[to] = rests[i];
      to += lens[i] != 0;
    }
    n = to;
  }
  out->num += (unsigned)n;
}

bool aes_list_next(struct aes_jobs *it, struct aes_list *out) {
  out->num = 0;
  out->apart = false;
  while (out->num < AES_LIST && aes_jobs_seg(it))
    list_fill(it, out);
  return out->num != 0;
}

void aes_xor_parts(const struct aes_job *parts, const uint8_t *stream, size_t num) {
  for (size_t i = 0; i < num; i++)
    for (size_t j = 0; j < parts[i].blocks; j++)
      parts[i].dst[j] = parts[i].src[j] ^ stream[16 * i + j];
}
