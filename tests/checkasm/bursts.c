// Bursts: random lists of samples in random segments. What is expected comes from the reference's chains and blocks, sample by
// sample: its own bursts take their samples from the same lists of jobs as all kernels (simd/jobs.h).
#include <stdio.h>
#include <stdlib.h>

#include "checkasm/checkasm.h"

enum {
  MAX_SAMPLES = 130, // of a segment
  MAX_SEGS = 20,     // more than the kernels merge at a time
  SEG_ROOM = 160 << 10,
  MIXED_BURSTS = 60, // of segments of all sizes, in place and not
};

struct layout {
  size_t num_segs;
  size_t num[MAX_SEGS], src_at[MAX_SEGS], dst_at[MAX_SEGS], len[MAX_SEGS];
  bool in_place[MAX_SEGS];
  struct aes_lane lanes[MAX_SEGS][MAX_SAMPLES];
  uint32_t sizes[MAX_SEGS][MAX_SAMPLES];
  uint16_t sizes16[MAX_SEGS][MAX_SAMPLES];
};

enum place { APART, IN_PLACE, EITHER }; // of the segments of a burst

enum kind { DUST, TINY, AAC, WIDE, LONG, LONGER, CONSTANT, MIXED, NUM_KINDS };

// What kernels find on the stack where they have written nothing.
__attribute__((noinline)) static void dirty_stack(uint32_t word) {
  volatile uint32_t under[16384];
  for (size_t i = 0; i < sizeof under / sizeof *under; i++)
    under[i] = word;
}

static uint32_t size_of(struct check *c, enum kind kind, uint32_t constant) {
  switch (kind) {
  case DUST: return check_below(c, 16) ? check_below(c, 3) : check_below(c, 200);
  case TINY: return check_below(c, 70);
  case AAC: return 280 + check_below(c, 180);
  case WIDE: return check_below(c, 1200);
  case LONG: return 200 + check_below(c, 2600);
  case LONGER: return 2000 + check_below(c, check_below(c, 8) ? 3000 : 9000); // of which kernels may cut some in two
  case CONSTANT: return constant;
  case MIXED:
  case NUM_KINDS:
  default: return check_below(c, 8) ? check_below(c, 400) : check_below(c, 9000);
  }
}

static const uint32_t constants[] = {1024, 1536, 2048, 3072, 4096, 512, 16, 15, 17, 63, 64, 65, 1000, 0};

// Segments of random samples at random alignments, as far as they fit in the room of one segment: all of one kind, or `mixed`.
static void make_layout(struct check *c, struct layout *l, size_t num_segs, uint32_t samples, bool gaps, bool mixed) {
  l->num_segs = num_segs;
  enum kind kind = (enum kind)check_below(c, NUM_KINDS);
  uint32_t constant = constants[check_below(c, sizeof constants / sizeof *constants)];
  for (size_t s = 0; s < num_segs; s++) {
    if (mixed && s)
      kind = (enum kind)check_below(c, NUM_KINDS);
    size_t off = 0, n = 0;
    uint32_t want = s ? 1 + check_below(c, samples) : samples;
    if (num_segs > 1 && !check_below(c, 5))
      want = 0; // as a segment without samples
    for (; n < want; n++) {
      uint32_t size = size_of(c, kind, constant);
      if (off + size > SEG_ROOM)
        break;
      l->lanes[s][n] = (struct aes_lane){(uint32_t)off, size};
      l->sizes[s][n] = size;
      l->sizes16[s][n] = (uint16_t)size;
      off += size + (gaps ? check_below(c, 40) : 0);
    }
    l->num[s] = n;
    l->len[s] = off;
    l->src_at[s] = s * (SEG_ROOM + 256) + check_below(c, 64) + CANARY;
    l->dst_at[s] = s * (SEG_ROOM + 256) + check_below(c, 64) + CANARY;
    if (s + 1 == num_segs && check_below(c, 2)) { // the last one ends where the next page is out of bounds
      size_t end = n ? l->lanes[s][n - 1].off + l->lanes[s][n - 1].len : 0;
      l->len[s] = end;
      l->src_at[s] = l->dst_at[s] = ARENA - end;
    }
    if (check_below(c, 8))
      aes_lane_order(l->lanes[s], n);
  }
}

// Chooses which segments are in place. What lies in them before: canaries and, in place, the source.
static void prepare(struct check *c, struct layout *l, enum place place) {
  for (size_t s = 0; s < l->num_segs; s++) {
    l->in_place[s] = place == EITHER ? check_below(c, 2) : place == IN_PLACE;
    check_canary(c, l->dst_at[s], l->len[s]);
    if (l->in_place[s]) {
      memcpy(c->dst.p + l->dst_at[s], c->src.p + l->src_at[s], l->len[s]);
      memcpy(c->want.p + l->dst_at[s], c->src.p + l->src_at[s], l->len[s]);
    }
  }
}

static void compare(struct check *c, const struct layout *l) {
  for (size_t s = 0; s < l->num_segs; s++)
    if (!check_same(c, l->dst_at[s], l->len[s]))
      return;
}

// What comes next: nothing, or bytes that may not even be readable (the page behind the arena); a kernel only asks for them.
static struct aes_ahead some_ahead(struct check *c) {
  size_t n = check_below(c, 3) ? check_below(c, 1 << 17) : check_below(c, 1024);
  return (struct aes_ahead){c->src.p + ARENA - check_below(c, 8192), n};
}

static void check_ahead(struct check *c, struct aes_ahead before, struct aes_ahead after) {
  if (after.p >= before.p && after.n <= before.n && after.p + after.n == before.p + before.n)
    return;
  c->failures++;
  printf("# %s %s: %s: `ahead` of %zu bytes became %zu, or its end moved\n", c->ops->name, c->section, c->what, before.n, after.n);
}

static void expect_cbc(struct check *c, const struct aes_cbc_seg *seg, bool encrypt) {
  for (size_t i = 0; i < seg->num_lanes; i++) {
    struct aes_lane lane = seg->lanes[i];
    uint8_t iv[16], *dst = seg->dst + lane.off;
    const uint8_t *src = seg->src + lane.off;
    size_t whole = lane.len - lane.len % 16;
    memcpy(iv, c->iv, 16);
    aes_ops_ref.cbc_chain(&c->ref_key, encrypt, iv, dst, src, whole / 16);
    memcpy(dst + whole, src + whole, lane.len % 16);
  }
}

static void cbc_burst(struct check *c, struct layout *l, enum place place, bool encrypt) {
  struct aes_cbc_seg got[MAX_SEGS], want[MAX_SEGS];
  prepare(c, l, place);
  for (size_t s = 0; s < l->num_segs; s++) {
    want[s] = (struct aes_cbc_seg){c->src.p + l->src_at[s], c->want.p + l->dst_at[s], l->num[s] ? l->lanes[s] : NULL, l->num[s]};
    got[s] = want[s];
    got[s].dst = c->dst.p + l->dst_at[s];
    if (l->in_place[s])
      got[s].src = got[s].dst;
  }
  check_src_writable(c, false);
  for (size_t s = 0; s < l->num_segs; s++)
    expect_cbc(c, &want[s], encrypt);
  if (encrypt) {
    struct aes_ahead before = some_ahead(c), ahead = before;
    dirty_stack(33); // no multiple of 16, behind which no sample of a burst may take it for an end
    c->ops->cbc_encrypt(&c->key, c->iv, got, l->num_segs, check_below(c, 4) ? &ahead : NULL);
    check_ahead(c, before, ahead);
  } else {
    c->ops->cbc_decrypt(&c->key, c->iv, got, l->num_segs);
  }
  compare(c, l);
}

void check_cbc_bursts(struct check *c) {
  static struct layout l;
  check_src_writable(c, true);
  check_fill(c, c->src.p, ARENA);
  for (uint32_t i = 0; i < 3 * MAX_SAMPLES && c->failures == 0; i += c->len_step) {
    size_t num_segs = i % 5 ? 1 : i % 50 ? 1 + check_below(c, 5) : MAX_SEGS;
    make_layout(c, &l, num_segs, i % MAX_SAMPLES + 1, i % 3 == 0, false);
    for (int how = 0; how < 4; how++) {
      check_describe(c, "burst %u: %zu segments, first of %zu samples%s%s", i, num_segs, l.num[0],
                     how & 1 ? ", in place" : "", how & 2 ? ", decrypt" : "");
      cbc_burst(c, &l, how & 1 ? IN_PLACE : APART, !(how & 2));
    }
  }
  for (uint32_t i = 0; i < MIXED_BURSTS && c->failures == 0; i++) {
    size_t num_segs = 1 + check_below(c, MAX_SEGS);
    make_layout(c, &l, num_segs, 1 + check_below(c, 20), i % 3 == 0, true);
    check_describe(c, "mixed burst %u: %zu segments, some in place%s", i, num_segs, i % 4 == 3 ? ", decrypt" : "");
    cbc_burst(c, &l, EITHER, i % 4 != 3);
  }
}

static void expect_ctr(struct check *c, const struct aes_ctr_seg *seg) {
  enum { MOST = 64 };
  uint8_t stream[MOST][16];
  const uint8_t *src = seg->src;
  uint8_t *dst = seg->dst;
  for (size_t i = 0; i < seg->num; i++) {
    uint64_t high = seg->ivs ? load_be64(seg->ivs[i]) : seg->iv + i, low = seg->ivs ? load_be64(seg->ivs[i] + 8) : 0;
    for (size_t left = seg->sizes16 ? seg->sizes16[i] : seg->sizes32[i], n; left; left -= n) {
      n = left < sizeof stream ? left : sizeof stream;
      for (size_t b = 0; b < (n + 15) / 16; b++, high += ++low == 0) {
        store_be64(stream[b], high);
        store_be64(stream[b] + 8, low);
      }
      aes_ops_ref.ecb_encrypt(&c->ref_key, stream[0], stream[0], (n + 15) / 16);
      for (size_t j = 0; j < n; j++)
        *dst++ = *src++ ^ stream[j / 16][j % 16];
    }
  }
}

static void ctr_burst(struct check *c, struct layout *l, enum place place, uint64_t iv, const uint8_t (*ivs)[16]) {
  struct aes_ctr_seg got[MAX_SEGS], want[MAX_SEGS];
  prepare(c, l, place);
  for (size_t s = 0; s < l->num_segs; s++) {
    bool narrow = check_below(c, 2), full = place == EITHER ? check_below(c, 2) : s % 4 != 2;
    want[s] = (struct aes_ctr_seg){.src = c->src.p + l->src_at[s],
                                   .dst = c->want.p + l->dst_at[s],
                                   .sizes16 = narrow ? l->sizes16[s] : NULL,
                                   .sizes32 = narrow ? NULL : l->sizes[s],
                                   .num = l->num[s],
                                   .iv = iv + s % 3 * 0x10001,
                                   .ivs = full ? ivs : NULL};
    got[s] = want[s];
    got[s].dst = c->dst.p + l->dst_at[s];
    if (l->in_place[s])
      got[s].src = got[s].dst;
  }
  check_src_writable(c, false);
  for (size_t s = 0; s < l->num_segs; s++)
    expect_ctr(c, &want[s]);
  struct aes_ahead before = some_ahead(c), ahead = before;
  c->ops->ctr(&c->key, got, l->num_segs, check_below(c, 4) ? &ahead : NULL);
  check_ahead(c, before, ahead);
  compare(c, l);
}

void check_ctr_bursts(struct check *c) {
  static struct layout l;
  uint8_t ivs[MAX_SAMPLES][16];
  check_src_writable(c, true);
  check_fill(c, c->src.p, ARENA);
  for (uint32_t i = 0; i < 3 * MAX_SAMPLES && c->failures == 0; i += c->len_step) {
    size_t num_segs = i % 5 ? 1 : i % 50 ? 1 + check_below(c, 5) : MAX_SEGS;
    make_layout(c, &l, num_segs, i % MAX_SAMPLES + 1, false, false);
    check_fill(c, ivs[0], sizeof ivs);
    for (size_t s = 0; s < MAX_SAMPLES; s += 3) // close to the end of the low half, of the whole counter
      memset(ivs[s] + (s % 2 ? 8 : 0), 0xff, s % 2 ? 7 : 15);
    uint64_t iv = i % 4 ? check_random(c) : UINT64_MAX - 3;
    if (i % 4 == 1) // close to where a byte turns over that all others have in common
      iv |= 0xfff0;
    for (int how = 0; how < 4; how++) {
      check_describe(c, "burst %u: %zu segments, first of %zu samples%s%s", i, num_segs, l.num[0],
                     how & 1 ? ", in place" : "", how & 2 ? ", full IVs" : "");
      ctr_burst(c, &l, how & 1 ? IN_PLACE : APART, iv, how & 2 ? (const uint8_t(*)[16])ivs : NULL);
    }
  }
  for (uint32_t i = 0; i < MIXED_BURSTS && c->failures == 0; i++) {
    size_t num_segs = 1 + check_below(c, MAX_SEGS);
    make_layout(c, &l, num_segs, 1 + check_below(c, 20), false, true);
    check_fill(c, ivs[0], sizeof ivs);
    memset(ivs[0] + 8, 0xff, 7);
    check_describe(c, "mixed burst %u: %zu segments, some in place, some with full IVs", i, num_segs);
    ctr_burst(c, &l, EITHER, i % 4 ? check_random(c) : UINT64_MAX - 3, (const uint8_t(*)[16])ivs);
  }
}

// Of several lanes, each is a pattern of its own from its own start: as if it were the only one, which the sweeps look at.
static void pattern_burst(struct check *c, struct layout *l, bool in_place, int op, struct aes_pattern p, const uint8_t (*ivs)[16]) {
  prepare(c, l, in_place ? IN_PLACE : APART);
  check_src_writable(c, false);
  for (size_t s = 0; s < l->num_segs; s++) {
    struct aes_cbc_seg got = {in_place ? c->dst.p + l->dst_at[s] : c->src.p + l->src_at[s], c->dst.p + l->dst_at[s], l->lanes[s], l->num[s]};
    for (size_t i = 0; i < l->num[s]; i++) {
      struct aes_lane lane = l->lanes[s][i], alone = {0, lane.len};
      struct aes_cbc_seg want = {c->src.p + l->src_at[s] + lane.off, c->want.p + l->dst_at[s] + lane.off, &alone, 1};
      if (op < 2)
        aes_cbc_pattern(&aes_ops_ref, &c->ref_key, op == 0, p, c->iv, &want);
      else
        aes_ctr_pattern(&aes_ops_ref, &c->ref_key, p, &ivs[i], &want);
    }
    if (op < 2)
      aes_cbc_pattern(c->ops, &c->key, op == 0, p, c->iv, &got);
    else
      aes_ctr_pattern(c->ops, &c->key, p, ivs, &got);
  }
  compare(c, l);
}

void check_pattern_bursts(struct check *c) {
  static struct layout l;
  static const struct aes_pattern patterns[] = {{1, 9}, {5, 5}, {2, 3}, {0, 0}};
  uint8_t ivs[MAX_SAMPLES][16];
  check_src_writable(c, true);
  check_fill(c, c->src.p, ARENA);
  check_fill(c, ivs[0], sizeof ivs);
  for (uint32_t i = 0; i < 24 && c->failures == 0; i++) {
    make_layout(c, &l, 2, i % 12 + 1, i % 3 == 0, false);
    for (int how = 0; how < 6; how++) {
      check_describe(c, "burst %u: first of %zu samples%s, operation %d", i, l.num[0], how & 1 ? ", in place" : "", how / 2);
      pattern_burst(c, &l, how & 1, how / 2, patterns[i % 4], (const uint8_t(*)[16])ivs);
    }
    check_src_writable(c, true);
  }
}

// Lanes around the counts at which a kernel's own counters are full, beside short ones.
void check_large(struct check *c) {
  static struct layout l;
  static const uint32_t sizes[][6] = {
      {0x80000, 0x80010, 0x7fff0, 100, 16, 1},
      {0x100000, 0xffff0, 0x100013, 33, 47, 5000},
      {2000003, 1500000, 3, 160, 320, 480},
      {65535, 65536, 65537, 65552, 131072, 262159},
  };
  check_src_writable(c, true);
  check_fill(c, c->src.p, ARENA);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    l.num_segs = 1;
    l.num[0] = 6;
    l.src_at[0] = 77;
    l.dst_at[0] = 99;
    uint32_t off = 0;
    for (size_t n = 0; n < 6; n++) {
      l.lanes[0][n] = (struct aes_lane){off, sizes[i][n]};
      l.sizes[0][n] = sizes[i][n];
      off += sizes[i][n];
    }
    l.len[0] = off;
    aes_lane_order(l.lanes[0], 6);
    for (int how = 0; how < 4; how++) {
      check_describe(c, "list %zu%s%s", i, how & 1 ? ", in place" : "", how & 2 ? ", decrypt" : "");
      cbc_burst(c, &l, how & 1 ? IN_PLACE : APART, !(how & 2));
    }
    for (int in_place = 0; in_place < 2; in_place++) {
      struct aes_ctr_seg seg = {.src = c->src.p + 77, .dst = c->want.p + 99, .sizes32 = l.sizes[0], .num = 6, .iv = 9};
      check_describe(c, "list %zu, ctr%s", i, in_place ? " in place" : "");
      prepare(c, &l, in_place ? IN_PLACE : APART);
      check_src_writable(c, false);
      aes_ops_ref.ctr(&c->ref_key, &seg, 1, NULL);
      seg.dst = c->dst.p + 99;
      seg.src = in_place ? seg.dst : seg.src;
      c->ops->ctr(&c->key, &seg, 1, NULL);
      check_same(c, 99, off);
    }
    check_src_writable(c, true);
  }
}

// More samples than a kernel's list of jobs holds, and counts around the powers of two at which a counter or a mask
// could run over: a segment of six seconds has some 280.
// Sizes are random, or such that lanes always end together and as many last blocks wait apart as ever can: with 12 lanes or 24,
// 3 or 15 of the first round are odd and all that follow, so 63 wait, one less than are encrypted together, when all lanes end.
void check_many(struct check *c) {
  enum { MOST = 1025 };
  static struct aes_lane lanes[MOST];
  static uint32_t sizes[MOST];
  static const size_t counts[] = {127, 128, 129, 255, 256, 257, 264, 281, 511, 512, 513, 520, 1024, MOST};
  check_src_writable(c, true);
  check_fill(c, c->src.p, ARENA);
  for (size_t i = 0; i < 2 * (sizeof counts / sizeof *counts) && c->failures == 0; i++) {
    size_t at = 77, len = 0, num = counts[i / 2];
    for (size_t n = 0; n < num; n++) {
      sizes[n] = i % 2 ? n < 9 ? 32 : 48 : (uint32_t)check_below(c, 120);
      lanes[n] = (struct aes_lane){(uint32_t)len, sizes[n]};
      len += sizes[n];
    }
    if (i % 2 == 0)
      aes_lane_order(lanes, num);
    struct aes_cbc_seg want = {c->src.p + at, c->want.p + at, lanes, num}, got = {c->src.p + at, c->dst.p + at, lanes, num};
    for (int how = 0; how < 2; how++) {
      check_describe(c, "%zu samples in one segment%s", num, how ? ", decrypt" : "");
      check_canary(c, at, len);
      check_src_writable(c, false);
      if (how) {
        aes_ops_ref.cbc_decrypt(&c->ref_key, c->iv, &want, 1);
        c->ops->cbc_decrypt(&c->key, c->iv, &got, 1);
      } else {
        aes_ops_ref.cbc_encrypt(&c->ref_key, c->iv, &want, 1, NULL);
        c->ops->cbc_encrypt(&c->key, c->iv, &got, 1, NULL);
      }
      check_same(c, at, len);
    }
    struct aes_ctr_seg ref = {.src = c->src.p + at, .dst = c->want.p + at, .sizes32 = sizes, .num = num, .iv = 5}, ours = ref;
    ours.dst = c->dst.p + at;
    for (int in_place = 0; in_place < 2; in_place++) {
      check_describe(c, "%zu samples in one segment, ctr%s", num, in_place ? " in place" : "");
      check_canary(c, at, len);
      if (in_place) {
        memcpy(ours.dst, ours.src, len);
        ours.src = ours.dst;
      }
      aes_ops_ref.ctr(&c->ref_key, &ref, 1, NULL);
      c->ops->ctr(&c->key, &ours, 1, NULL);
      check_same(c, at, len);
    }
    check_src_writable(c, true);
  }
}
