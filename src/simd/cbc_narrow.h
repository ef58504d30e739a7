// CBC encryption for 128- and 256-bit registers: twelve registers, each with the chains of one or two samples.
// Included by the kernels after rounds_narrow.h and after they have defined
//   WIDTH        blocks of a register, 1 or 2
//   v_and        of registers; v_mask, blocks of ones where a bit is set
//   v_all        a block, which `load` gives, in every place
//   v_pin        keeps the compiler from moving the computation of a register across other such points
//   v_gather     blocks from addresses[i] + t + (odd ? 16 : 0)
//   v_scatter    to there; of an even step it may keep in `even` what it writes with the odd one. A constant tells which
//   v_blocks     blocks to addresses[i]
//   v_ended      a bit for each of the first LANES bytes of an array of 32 that is `x`
//
// Eight chains would fill two AES units of latency 3 or 4 if an instruction always went to the unit that is free.
// It goes to the one that had less to do when it was decoded, so twelve are needed; and what is not AES must be
// decoded between AES instructions, or it is sent to the AES units as often as to the others. Hence two groups of
// six registers, half a step apart: while one group is in rounds 6 to 10, the other closes its step with the next
// input and is in rounds 1 to 5. The order of instructions is the one written here (v_pin, FENCE): compilers hoist
// the loads of inputs and round keys out of the rounds and then have no registers left.
//
// Steps come in pairs, so that ends are looked at half as often and a kernel may write two blocks of a chain at once.
// The last block of a sample with an odd number of them waits apart: it needs nothing but the ciphertext before it, and
// many such blocks are encrypted beside each other.
//
// Lane addresses are relative to the running position t, so that a step has no pointers to advance. When a lane is done is
// known as a byte, in pairs modulo TURN: one compare of all of them a pair finds the lanes that are. A job that reaches
// into the next turn is looked at when that begins.
//
// While lanes get new jobs, stores queue behind ciphertext that is not there yet, and the queue is short: each store saved
// for a job counted (docs/internals/kernels.md). A sample's trailing bytes are copied when a lane takes it, as whole blocks,
// before there is ciphertext to spoil. Lanes that have no more work walk along on a scratch buffer. Once six registers can
// hold what is left, the lanes are moved together and one group goes on alone.
//
// What the caller reads next (struct aes_ahead) is asked for into L2 between the rounds, in a step no less than the step
// itself reads.
#define FENCE() __asm__ volatile("" ::: "memory")

enum {
  REGS = 6,             // of a group
  GROUP = REGS * WIDTH, // lanes of a group
  LANES = 2 * GROUP,
  ALL = (1 << LANES) - 1,
  PAIR = 32,            // bytes of a lane in two steps
  TURN = 128,           // pairs
  NEVER = 255,          // no pair of a turn
  SCRATCH = TURN * PAIR, // bytes that an idle lane walks before it starts over
  APART = 64,           // last blocks that are worth encrypting together
  ASKED = WIDTH + 1,    // lines of what comes next, asked for in half a step
};

// Where the next lines to ask for are, and where to stay.
struct asking {
  uint64_t at, last;
};

// Blocks that are encrypted apart: addresses.
struct apart {
  uint64_t src[APART + LANES + 4 * WIDTH], dst[APART + LANES + 4 * WIDTH];
  unsigned num;
};

// The lanes of the segments, one after the other.
struct feed {
  const struct aes_lane *at, *end; // of the open segment
  const uint8_t *src;
  uint8_t *dst;
  struct aes_jobs it;
};

struct lanes {
  uint64_t src[LANES], dst[LANES]; // addresses minus t
  uint64_t old[GROUP];             // destinations of the second group, half a step longer
  _Alignas(32) uint8_t looks[32];  // the pair of a turn before which a lane is looked at: its job is done, or the turn begins
  uint32_t ends[LANES];            // pairs since t was 0 when the lane's job is done
  uint32_t real;                   // lanes at work on samples rather than on scratch
  uint32_t odd;                    // lanes whose job has a last block apart
  struct asking ask;
  uint64_t t;
  vec x[2 * REGS];                 // last ciphertext blocks
  vec even[2 * REGS];              // for v_scatter
  vec keep[1 << WIDTH], fresh[1 << WIDTH]; // by mask of ended lanes of a register: what stays of it, the IV
  struct feed feed;
  struct apart apart, small;       // last blocks; samples of less than two blocks
  const uint8_t (*rk)[16], *iv;
  uint8_t *scratch;
};

// Closes a step of the group `a` and does its rounds 1 to 5, beside rounds 6 to 10 of a step of the group `b`, which goes to
// `dst`. Either may be NULL. Lanes of `a` and `b` start at `a_at` and `b_at`; at and bt are t of their pairs.
INLINE void half(struct lanes *s, const uint8_t rk[11][16], struct asking *ask, vec *a, unsigned a_at, uint64_t at, const bool a_odd,
                 vec *b, unsigned b_at, const uint64_t *dst, uint64_t bt, const bool b_odd) {
  vec key = v_key(rk[0]), later = v_round_key(rk, 6);
  UNROLL for (unsigned i = 0; i < REGS; i++) {
    if (a) {
      a[i] = v_close(a[i], v_gather(s->src + a_at + WIDTH * i, at, a_odd), key);
      v_pin(a[i]);
    }
    if (b) {
      b[i] = v_round(b[i], later);
      v_pin(b[i]);
    }
  }
  FENCE();
  UNROLL for (int r = 1; r < 5; r++) {
    key = v_round_key(rk, r);
    later = v_round_key(rk, 6 + r);
    const vec end = v_key(rk[10]);
    UNROLL for (int i = 0; i < REGS; i++) {
      if (a) {
        a[i] = v_round(a[i], key);
        v_pin(a[i]);
      }
      if (b) {
        b[i] = r < 4 ? v_round(b[i], later) : v_last(b[i], later, end);
        v_pin(b[i]);
      }
      if (r == 2 && i < ASKED)
        __builtin_prefetch((const void *)(ask->at + 64 * (unsigned)i), 0, 2);
    }
    FENCE();
  }
  key = v_round_key(rk, 5);
  UNROLL for (unsigned i = 0; i < REGS; i++) {
    if (a) {
      a[i] = v_round(a[i], key);
      v_pin(a[i]);
    }
    if (b)
      v_scatter(dst + WIDTH * i, bt, b[i], &s->even[b_at / WIDTH + i], b_odd);
  }
  ask->at = ask->at + 64 * ASKED < ask->last ? ask->at + 64 * ASKED : ask->last;
  FENCE();
}

// ---- Blocks apart

// `iv` is what is xored in, or NULL: the block in front of the destination.
INLINE void apart_group(const struct apart *l, unsigned at, const uint8_t rk[11][16], const uint8_t *iv, const int n) {
  const uint64_t before = -(uint64_t)16;
  vec x[8], key = v_key(rk[0]);
  UNROLL for (int i = 0; i < n; i++) {
    vec chain = iv ? v_all(load(iv)) : v_gather(l->dst + at + WIDTH * i, before, false);
    x[i] = v_close(chain, v_gather(l->src + at + WIDTH * i, 0, false), key);
  }
  rounds(rk, x, n);
  UNROLL for (int i = 0; i < n; i++)
    v_blocks(l->dst + at + WIDTH * i, x[i]);
}

__attribute__((noinline)) static void apart_finish(struct apart *l, const uint8_t rk[11][16], const uint8_t *iv) {
  uint8_t scratch[32]; // its content does not matter
  unsigned at = 0;
  for (unsigned i = l->num; i < l->num + 4 * WIDTH; i++)
    l->src[i] = l->dst[i] = (uint64_t)scratch + 16;
  for (; at + 4 * WIDTH < l->num; at += 8 * WIDTH)
    apart_group(l, at, rk, iv, 8);
  if (at < l->num)
    apart_group(l, at, rk, iv, 4);
  l->num = 0;
}

// ---- Jobs

// Opens the next segment; false when there is none.
static bool feed_open(struct feed *f) {
  if (!aes_jobs_seg(&f->it))
    return false;
  const struct aes_cbc_seg *seg = f->it.seg;
  f->at = seg->lanes;
  f->end = seg->lanes + seg->num_lanes;
  f->src = seg->src;
  f->dst = seg->dst;
  f->it.at = seg->num_lanes;
  return true;
}

// A sample of less than two blocks.
static void take_small(struct lanes *s, struct aes_lane lane) {
  struct apart *l = &s->small;
  const uint8_t *src = s->feed.src + lane.off;
  uint8_t *dst = s->feed.dst + lane.off;
  if (src != dst)
    aes_lane_tail(dst, src, lane.len);
  l->src[l->num] = (uint64_t)src;
  l->dst[l->num] = (uint64_t)dst;
  l->num += lane.len >= 16;
  if (l->num == APART)
    apart_finish(l, s->rk, s->iv);
}

// The next sample of two blocks or more where it is not simply the next of the segment; an empty one when there is none.
__attribute__((noinline)) static struct aes_lane feed_search(struct lanes *s) {
  struct feed *f = &s->feed;
  while (f->at != f->end || feed_open(f)) {
    struct aes_lane lane = *f->at++;
    if (lane.len >= PAIR)
      return lane;
    take_small(s, lane);
  }
  return (struct aes_lane){0, 0};
}

// The lanes of `ended` are done at t: notes their last blocks, to be encrypted when the ciphertext before them is written, and
// gives them the next jobs.
INLINE void take(struct lanes *s, uint32_t ended, uint64_t t) {
  const uint32_t now = (uint32_t)(t / PAIR), left = TURN - now % TURN;
  uint32_t odd = s->odd & ~ended;
  unsigned n = s->apart.num;
  for (uint32_t m = s->odd & ended; m; m &= m - 1, n++) {
    unsigned lane = (unsigned)__builtin_ctz(m);
    s->apart.src[n] = s->src[lane] + t;
    s->apart.dst[n] = s->dst[lane] + t;
  }
  s->apart.num = n;
  const struct aes_lane *at = s->feed.at, *end = s->feed.end;
  uint64_t src0 = (uint64_t)s->feed.src - t, dst0 = (uint64_t)s->feed.dst - t;
  for (; ended; ended &= ended - 1) {
    const unsigned lane = (unsigned)__builtin_ctz(ended);
    struct aes_lane job = {0, 0};
    if (__builtin_expect(at != end && at->len >= PAIR, 1)) {
      job = *at++;
    } else if (s->real == ALL) {
      s->feed.at = at;
      job = feed_search(s);
      at = s->feed.at;
      end = s->feed.end;
      src0 = (uint64_t)s->feed.src - t;
      dst0 = (uint64_t)s->feed.dst - t;
    }
    if (__builtin_expect(!job.len, 0)) {
      s->src[lane] = s->dst[lane] = (uint64_t)s->scratch - t;
      s->looks[lane] = 0;
      s->real &= ~(1u << lane);
      continue;
    }
    uint64_t src = src0 + job.off, dst = dst0 + job.off;
    uint32_t pairs = job.len / PAIR;
    if (src != dst)
      memcpy((uint8_t *)(dst + t + job.len - 16), (const uint8_t *)(src + t + job.len - 16), 16);
    s->src[lane] = src;
    s->dst[lane] = dst;
    odd |= (job.len / 16 & 1) << lane;
    if (__builtin_expect(pairs >= left, 0)) {
      s->ends[lane] = now + pairs;
      pairs = left;
    }
    s->looks[lane] = (uint8_t)((now + pairs) % TURN);
  }
  s->feed.at = at;
  s->odd = odd;
}

// A turn begins: which of the lanes looked at are done.
__attribute__((noinline)) static uint32_t turn(struct lanes *s, uint32_t lanes, uint64_t t) {
  const uint32_t now = (uint32_t)(t / PAIR);
  uint32_t ended = 0;
  for (; lanes; lanes &= lanes - 1) {
    unsigned lane = (unsigned)__builtin_ctz(lanes);
    uint32_t left = s->ends[lane] - now;
    if (!(s->real >> lane & 1))
      s->src[lane] = s->dst[lane] = (uint64_t)s->scratch - t;
    else if (!left)
      ended |= 1u << lane;
    else
      s->looks[lane] = left < TURN ? (uint8_t)left : 0;
  }
  return ended;
}

// Gives new jobs to those of the lanes looked at that are done at t, and returns these. The second group has not yet
// written its last step; it does so to `old`.
__attribute__((noinline)) static uint32_t refill(struct lanes *s, uint32_t lanes, uint64_t t) {
  memcpy(s->old, s->dst + GROUP, sizeof s->old);
  if (__builtin_expect(s->apart.num >= APART, 0))
    apart_finish(&s->apart, s->rk, NULL);
  if (__builtin_expect(t / PAIR % TURN == 0, 0))
    lanes = turn(s, lanes, t);
  take(s, lanes, t);
  return lanes;
}

// The lanes to look at before the pair at t.
INLINE uint32_t looked_at(const struct lanes *s, uint64_t t) {
  return v_ended(s->looks, (uint8_t)(t / PAIR % TURN));
}

// ---- Rounds

// Gives the lanes of `ended` the IV.
INLINE void restart(vec *x, const struct lanes *s, uint32_t ended) {
  UNROLL for (int i = 0; i < REGS; i++) {
    unsigned m = ended >> WIDTH * i & ((1 << WIDTH) - 1);
    x[i] = v_xor(v_and(x[i], s->keep[m]), s->fresh[m]);
  }
}

INLINE void load_group(vec *x, const struct lanes *s, unsigned group) {
  UNROLL for (int i = 0; i < REGS; i++)
    x[i] = s->x[group * REGS + (unsigned)i];
}

INLINE void store_group(struct lanes *s, unsigned group, const vec *x) {
  UNROLL for (int i = 0; i < REGS; i++)
    s->x[group * REGS + (unsigned)i] = x[i];
}

// Both groups, until one suffices for what is left.
__attribute__((noinline)) static void run_both(struct lanes *s, const uint8_t rk[11][16]) {
  uint64_t t = s->t, *const second = s->dst + GROUP;
  struct asking ask = s->ask;
  vec a[REGS], b[REGS];
  load_group(a, s, 0);
  half(s, rk, &ask, a, 0, t, false, NULL, 0, NULL, 0, false);
  load_group(b, s, 1);
  for (;;) {
    uint32_t ended;
    for (;; t += PAIR) {
      half(s, rk, &ask, b, GROUP, t, false, a, 0, s->dst, t, false);
      half(s, rk, &ask, a, 0, t, true, b, GROUP, second, t, false);
      half(s, rk, &ask, b, GROUP, t, true, a, 0, s->dst, t, true);
      ended = looked_at(s, t + PAIR);
      if (ended)
        break;
      half(s, rk, &ask, a, 0, t + PAIR, false, b, GROUP, second, t, true);
    }
    // in memory: the rounds' loop keeps its registers to itself
    store_group(s, 0, a);
    store_group(s, 1, b);
    FENCE();
    ended = refill(s, ended, t + PAIR);
    FENCE();
    load_group(a, s, 0);
    load_group(b, s, 1);
    restart(a, s, ended);
    if (__builtin_popcount(s->real) <= GROUP) {
      half(s, rk, &ask, NULL, 0, 0, false, b, GROUP, s->old, t, true);
      restart(b, s, ended >> GROUP);
      break;
    }
    half(s, rk, &ask, a, 0, t + PAIR, false, b, GROUP, s->old, t, true);
    restart(b, s, ended >> GROUP);
    t += PAIR;
  }
  store_group(s, 0, a);
  store_group(s, 1, b);
  s->ask = ask;
  s->t = t + PAIR;
}

// Moves what is at work in the second group to where nothing is in the first.
static void move_together(struct lanes *s) {
  for (uint32_t m = s->real >> GROUP << GROUP, to = 0; m; m &= m - 1, to++) {
    unsigned from = (unsigned)__builtin_ctz(m);
    while (s->real >> to & 1)
      to++;
    s->src[to] = s->src[from];
    s->dst[to] = s->dst[from];
    s->looks[to] = s->looks[from];
    s->ends[to] = s->ends[from];
    s->odd |= (s->odd >> from & 1) << to;
    memcpy((uint8_t *)s->x + 16 * to, (uint8_t *)s->x + 16 * from, 16);
    s->real |= 1u << to;
  }
  s->real &= (1u << GROUP) - 1;
  memset(s->looks + GROUP, NEVER, sizeof s->looks - GROUP);
}

// The first group alone.
__attribute__((noinline)) static void run_one(struct lanes *s, const uint8_t rk[11][16]) {
  uint64_t t = s->t;
  struct asking ask = s->ask;
  vec a[REGS];
  uint32_t ended = 0;
  while (s->real) {
    load_group(a, s, 0);
    restart(a, s, ended);
    do {
      half(s, rk, &ask, a, 0, t, false, NULL, 0, NULL, 0, false);
      half(s, rk, &ask, NULL, 0, 0, false, a, 0, s->dst, t, false);
      half(s, rk, &ask, a, 0, t, true, NULL, 0, NULL, 0, false);
      half(s, rk, &ask, NULL, 0, 0, false, a, 0, s->dst, t, true);
      t += PAIR;
      ended = looked_at(s, t);
    } while (!ended);
    store_group(s, 0, a);
    ended = refill(s, ended, t);
  }
  s->ask = ask;
}

static void cbc_encrypt(const struct aes_key *k, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num,
                        struct aes_ahead *ahead) {
  _Alignas(64) uint8_t scratch[SCRATCH]; // its content does not matter
  struct lanes s;
  const vec start = v_all(load(iv));
  for (unsigned m = 0; m < 1 << WIDTH; m++) {
    s.fresh[m] = v_and(start, v_mask(m));
    s.keep[m] = v_mask(~m);
  }
  for (int i = 0; i < 2 * REGS; i++)
    s.x[i] = start;
  bool any = ahead && ahead->n > 64 * ASKED;
  s.ask.at = any ? (uint64_t)ahead->p : (uint64_t)scratch;
  s.ask.last = any ? (uint64_t)ahead->p + ahead->n - 64 * ASKED : (uint64_t)scratch;
  s.rk = k->enc;
  s.iv = iv;
  s.scratch = scratch;
  s.t = 0;
  s.real = ALL;
  s.odd = 0;
  s.apart.num = s.small.num = 0;
  memset(s.looks + LANES, NEVER, sizeof s.looks - LANES);
  aes_jobs_init(&s.feed.it, segs, num);
  if (!feed_open(&s.feed))
    return;
  const struct aes_lane *first = s.feed.at, *last = s.feed.end - 1;
  unsigned stagger = aes_stagger(first->len & ~15u, last->len & ~15u, s.feed.it.seg->num_lanes, LANES);
  for (unsigned i = stagger ? 4 : LANES; i < LANES; i++) { // four start at a time
    s.src[i] = s.dst[i] = (uint64_t)scratch;
    s.looks[i] = (uint8_t)(i / 4 * stagger / PAIR);
  }
  take(&s, stagger ? 15 : ALL, 0);
  if (__builtin_popcount(s.real) > GROUP)
    run_both(&s, k->enc);
  if (s.real) {
    move_together(&s);
    run_one(&s, k->enc);
  }
  apart_finish(&s.apart, k->enc, NULL);
  apart_finish(&s.small, k->enc, iv);
  if (any) {
    ahead->n -= s.ask.at - (uint64_t)ahead->p;
    ahead->p = (const uint8_t *)s.ask.at;
  }
}
