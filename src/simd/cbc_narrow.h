// CBC encryption for 128- and 256-bit registers: twelve registers, each with the chains of one or two samples.
// Included by the kernels after they have defined
//   WIDTH        blocks of a register, 1 or 2
//   vec          its type, and v_and, v_xor, v_key, v_round, v_last on it
//   v_pin        keeps the compiler from moving the computation of a register across other such points
//   v_gather, v_scatter   a register's blocks from and to addresses[i] + t
//   v_set, v_equal, v_least   on 32-bit numbers, four to a block: set one, a bit for each that is `x`, the least
//                of them as seen from `x` upwards
//
// Eight chains would fill two AES units of latency 3 or 4 if an instruction always went to the unit that is free.
// It goes to the one that had less to do when it was decoded, so twelve are needed; and what is not AES must be
// decoded between AES instructions, or it is sent to the AES units as often as to the others. Hence two groups of
// six registers, half a step apart: while one group is in rounds 6 to 10, the other closes its step with the next
// input and is in rounds 1 to 5. The order of instructions is the one written here (v_pin, FENCE): compilers hoist
// the loads of inputs and round keys out of the rounds and then have no registers left.
//
// Lane addresses are relative to the running position t, so that a step has no pointers to advance. Ends are looked
// at when the soonest of them has come; they are only ever stored and loaded by whole registers, since a load that
// spans several stores waits until these have left for the cache, behind ciphertext that is not there yet. A sample's
// trailing bytes are copied when a lane takes it, beside the rounds of the others. Behind the list stands a job on a
// scratch buffer for lanes that have no more work. Once six registers can hold what is left, the lanes are moved
// together and one group goes on alone.
//
// What the caller reads next (struct aes_ahead) is asked for into L2 between the rounds, a little more in a step than the
// step itself reads.
#define INLINE __attribute__((always_inline)) static inline
#define FENCE() __asm__ volatile("" ::: "memory")

enum {
  REGS = 6,              // of a group
  GROUP = REGS * WIDTH,  // lanes of a group
  LANES = 2 * GROUP,
  SCRATCH = 2048,        // bytes an idle lane may walk before it starts over
  ASKED = WIDTH + 1,     // lines of what comes next, asked for in half a step
};

// Where the next lines to ask for are, and where to stay.
struct asking {
  uint64_t at, last;
};

struct lanes {
  uint64_t src[LANES], dst[LANES]; // addresses minus t
  vec ends[3];                     // 32-bit: the value of t (its low half) at which the lane's job is done
  uint32_t soonest;                // of them
  unsigned next;                   // of the list
  unsigned real;                   // lanes at work on samples rather than on scratch
  struct asking ask;
  uint64_t t;
  vec x[2 * REGS];                 // last ciphertext blocks
  vec keep[1 << WIDTH], fresh[1 << WIDTH]; // by mask of ended lanes of a register: what stays of it, the IV
};

INLINE vec v_close(vec x, vec in, vec key) {
  return v_xor(x, v_xor(in, key));
}

// Closes step `t` of the group `a` and does its rounds 1 to 5, beside rounds 6 to 10 of step `bt` of the group `b`.
// Either may be NULL. Lanes of `b` start at `b_at`.
INLINE void half(const struct lanes *s, const uint8_t rk[11][16], struct asking *ask, vec *a, unsigned a_at, uint64_t at,
                 vec *b, unsigned b_at, uint64_t bt) {
  vec key = v_key(rk[0]), later = v_key(rk[6]);
  UNROLL for (unsigned i = 0; i < REGS; i++) {
    if (a) {
      a[i] = v_close(a[i], v_gather(s->src + a_at + WIDTH * i, at), key);
      v_pin(a[i]);
    }
    if (b) {
      b[i] = v_round(b[i], later);
      v_pin(b[i]);
    }
  }
  FENCE();
  UNROLL for (int r = 1; r < 5; r++) {
    key = v_key(rk[r]);
    later = v_key(rk[6 + r]);
    UNROLL for (int i = 0; i < REGS; i++) {
      if (a) {
        a[i] = v_round(a[i], key);
        v_pin(a[i]);
      }
      if (b) {
        b[i] = r < 4 ? v_round(b[i], later) : v_last(b[i], later);
        v_pin(b[i]);
      }
      if (r == 2 && i < ASKED)
        __builtin_prefetch((const void *)(ask->at + 64 * (unsigned)i), 0, 2);
    }
    FENCE();
  }
  key = v_key(rk[5]);
  UNROLL for (unsigned i = 0; i < REGS; i++) {
    if (a) {
      a[i] = v_round(a[i], key);
      v_pin(a[i]);
    }
    if (b)
      v_scatter(s->dst + b_at + WIDTH * i, bt, b[i]);
  }
  ask->at = ask->at + 64 * ASKED < ask->last ? ask->at + 64 * ASKED : ask->last;
  FENCE();
}

// The next jobs of the list for the lanes of `ended`.
INLINE void take(struct lanes *s, const struct aes_list *list, unsigned ended, uint64_t t) {
  unsigned next = s->next, real = s->real;
  for (; ended; ended &= ended - 1) {
    unsigned lane = (unsigned)__builtin_ctz(ended), left = next < list->num;
    aes_list_tail(list, next);
    s->src[lane] = list->src[next] - t;
    s->dst[lane] = list->dst[next] - t;
    v_set(s->ends, lane, (uint32_t)t + list->len[next]);
    next += left;
    real &= ~((1u - left) << lane);
  }
  s->next = next;
  s->real = real;
}

// Gives the lanes of `ended` the IV, in memory: the rounds' loop keeps its registers to itself.
INLINE void restart(struct lanes *s, unsigned group, unsigned ended) {
  vec *x = s->x + group * REGS;
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
__attribute__((noinline)) static void run_both(struct lanes *s, const struct aes_list *list, const uint8_t rk[11][16]) {
  const unsigned first = (1u << GROUP) - 1;
  uint64_t t = s->t;
  struct asking ask = s->ask;
  vec a[REGS], b[REGS];
  load_group(a, s, 0);
  half(s, rk, &ask, a, 0, t, NULL, 0, 0);
  store_group(s, 0, a);
  for (;;) {
    load_group(a, s, 0);
    load_group(b, s, 1);
    for (;; t += 16) {
      half(s, rk, &ask, b, GROUP, t, a, 0, t);
      if ((uint32_t)t + 16 == s->soonest)
        break;
      half(s, rk, &ask, a, 0, t + 16, b, GROUP, t);
    }
    store_group(s, 0, a);
    store_group(s, 1, b);
    FENCE();
    unsigned ended = v_equal(s->ends, s->soonest);
    take(s, list, ended & first, t + 16);
    restart(s, 0, ended);
    bool last = s->next == list->num && __builtin_popcount(s->real & ~(ended & ~first)) <= GROUP;
    FENCE();
    load_group(a, s, 0);
    load_group(b, s, 1);
    if (last)
      break;
    half(s, rk, &ask, a, 0, t + 16, b, GROUP, t);
    t += 16;
    store_group(s, 0, a);
    store_group(s, 1, b);
    FENCE();
    take(s, list, ended & ~first, t);
    restart(s, 1, ended >> GROUP);
    s->soonest = v_least(s->ends, (uint32_t)t);
    FENCE();
  }
  half(s, rk, &ask, NULL, 0, 0, b, GROUP, t);
  store_group(s, 1, b);
  s->ask = ask;
  s->t = t + 16;
  take(s, list, v_equal(s->ends, (uint32_t)s->t) & ~first, s->t);
}

// Moves what is at work in the second group to where nothing is in the first.
static void move_together(struct lanes *s) {
  for (unsigned m = s->real >> GROUP << GROUP, to = 0; m; m &= m - 1, to++) {
    unsigned from = (unsigned)__builtin_ctz(m);
    while (s->real >> to & 1)
      to++;
    s->src[to] = s->src[from];
    s->dst[to] = s->dst[from];
    v_set(s->ends, to, ((const uint32_t *)s->ends)[from]);
    memcpy((uint8_t *)s->x + 16 * to, (uint8_t *)s->x + 16 * from, 16);
    s->real |= 1u << to;
  }
  s->real &= (1u << GROUP) - 1;
}

__attribute__((noinline)) static void run_one(struct lanes *s, const struct aes_list *list, const uint8_t rk[11][16]) {
  uint64_t t = s->t;
  struct asking ask = s->ask;
  vec a[REGS];
  while (s->real) {
    s->soonest = v_least(s->ends, (uint32_t)t);
    load_group(a, s, 0);
    do {
      half(s, rk, &ask, a, 0, t, NULL, 0, 0);
      half(s, rk, &ask, NULL, 0, 0, a, 0, t);
      t += 16;
    } while ((uint32_t)t != s->soonest);
    store_group(s, 0, a);
    unsigned ended = v_equal(s->ends, (uint32_t)t) & ((1u << GROUP) - 1);
    take(s, list, ended, t);
    restart(s, 0, ended);
  }
  s->ask = ask;
}

static void run_list(struct aes_list *list, const struct aes_key *k, vec iv, struct aes_ahead *ahead) {
  _Alignas(64) uint8_t scratch[SCRATCH]; // its content does not matter
  struct lanes s;
  unsigned num = list->num;
  list->src[num] = list->dst[num] = (uint64_t)scratch;
  list->len[num] = SCRATCH;
  list->rest[num] = 0;
  for (unsigned m = 0; m < 1 << WIDTH; m++) {
    s.fresh[m] = v_and(iv, v_mask(m));
    s.keep[m] = v_mask(~m);
  }
  for (int i = 0; i < 2 * REGS; i++)
    s.x[i] = iv;
  for (int i = 0; i < 3; i++)
    s.ends[i] = v_mask(0);
  bool any = ahead && ahead->n > 64 * ASKED;
  s.ask.at = any ? (uint64_t)ahead->p : (uint64_t)scratch;
  s.ask.last = any ? (uint64_t)ahead->p + ahead->n - 64 * ASKED : (uint64_t)scratch;
  s.t = 0;
  s.next = 0;
  s.real = (1u << LANES) - 1;
  const unsigned stagger = aes_list_stagger(list, LANES);
  if (stagger) { // four at a time
    take(&s, list, 15, 0);
    for (unsigned i = 4; i < LANES; i++) {
      s.src[i] = s.dst[i] = (uint64_t)scratch;
      v_set(s.ends, i, i / 4 * stagger);
    }
  } else {
    take(&s, list, s.real, 0);
  }
  s.soonest = v_least(s.ends, 0);
  if (num > GROUP) {
    run_both(&s, list, k->enc);
    move_together(&s);
  }
  run_one(&s, list, k->enc);
  if (any) {
    ahead->n -= s.ask.at - (uint64_t)ahead->p;
    ahead->p = (const uint8_t *)s.ask.at;
  }
}

static void cbc_encrypt(const struct aes_key *k, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num,
                        struct aes_ahead *ahead) {
  struct aes_jobs it;
  struct aes_list list;
  aes_jobs_init(&it, segs, num);
  while (aes_list_next(&it, &list))
    run_list(&list, k, v_key(iv), ahead);
}
