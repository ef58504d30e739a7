// Pattern encryption (ISO/IEC 23001-7 §9.6): of each lane, `crypt` blocks are transformed and `skip` blocks
// pass in the clear, again and again from the lane's start. The last pattern may be cut short by the lane's
// end; a trailing partial block passes in the clear. Chain and counter run over the transformed blocks only.
//
// Transformed blocks are collected in a small buffer so that the kernels see runs of blocks: with 1:9 there
// would be one block at a time otherwise, and neither counters nor CBC decryption would run in parallel.
#include "simd/jobs.h"

enum { BATCH = 32 }; // blocks

struct walk {
  const uint8_t *src;
  uint8_t *dst;
  size_t left;           // whole blocks of the lane not yet visited
  uint32_t crypt, skip;  // the pattern
  uint32_t phase;        // blocks of the pattern already visited
  uint32_t num;          // of `at`
  size_t at[BATCH];      // byte positions of collected blocks
  size_t pos;
};

static void walk_init(struct walk *w, const struct aes_cbc_seg *seg, struct aes_lane lane, struct aes_pattern p) {
  w->src = seg->src + lane.off;
  w->dst = seg->dst + lane.off;
  w->left = lane.len / 16;
  bool all = p.skip == 0;
  w->crypt = all ? 1 : p.crypt;
  w->skip = p.skip;
  w->phase = 0;
  w->pos = 0;
  if (w->src != w->dst)
    aes_lane_tail(w->dst, w->src, lane.len);
}

// Collects the positions of up to BATCH blocks to transform and copies what lies between.
static uint32_t walk_collect(struct walk *w) {
  w->num = 0;
  for (; w->left && w->num < BATCH; w->left--, w->pos += 16) {
    if (w->phase < w->crypt)
      w->at[w->num++] = w->pos;
    else if (w->src != w->dst)
      memcpy(w->dst + w->pos, w->src + w->pos, 16);
    if (++w->phase == w->crypt + w->skip)
      w->phase = 0;
  }
  return w->num;
}

void aes_cbc_pattern(const struct aes_ops *ops, const struct aes_key *k, bool encrypt, struct aes_pattern pattern,
                     const uint8_t iv[16], const struct aes_cbc_seg *seg) {
  for (size_t l = 0; l < seg->num_lanes; l++) {
    struct walk w;
    uint8_t c[16], buf[BATCH][16];
    memcpy(c, iv, 16);
    walk_init(&w, seg, seg->lanes[l], pattern);
    while (w.left) {
      uint32_t n = walk_collect(&w);
      for (uint32_t i = 0; i < n; i++)
        memcpy(buf[i], w.src + w.at[i], 16);
      ops->cbc_chain(k, encrypt, c, buf[0], buf[0], n);
      for (uint32_t i = 0; i < n; i++)
        memcpy(w.dst + w.at[i], buf[i], 16);
    }
  }
}

void aes_ctr_pattern(const struct aes_ops *ops, const struct aes_key *k, struct aes_pattern pattern, const uint8_t (*ivs)[16],
                     const struct aes_cbc_seg *seg) {
  uint8_t stream[BATCH][16];
  for (size_t l = 0; l < seg->num_lanes; l++) {
    struct walk w;
    uint8_t c[16];
    memcpy(c, ivs[l], 16);
    walk_init(&w, seg, seg->lanes[l], pattern);
    while (w.left) {
      uint32_t n = walk_collect(&w);
      struct aes_job parts[BATCH];
      for (uint32_t i = 0; i < n; i++) {
        memcpy(stream[i], c, 16);
        aes_counter_add64(c, 1);
        parts[i] = (struct aes_job){w.src + w.at[i], w.dst + w.at[i], 16};
      }
      ops->ecb_encrypt(k, stream[0], stream[0], n);
      aes_xor_parts(parts, stream[0], n);
    }
  }
  explicit_bzero(stream, sizeof stream);
}
