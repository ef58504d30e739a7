// CBC encryption for 128- and 256-bit registers: eight registers, each with the chains of one or two samples.
// Included by the kernels after they have defined
//   WIDTH        blocks of a register, 1 or 2
//   vec          its type, and v_and, v_xor, v_load, v_store, v_key, v_round, v_last on it
//   v_gather, v_scatter   a register's blocks from and to addresses[i] + t
//   v_equal      a bit per lane: which of eight or sixteen 32-bit numbers (two registers) are `x`
//
// A round trip of the loop is one step of all lanes: close step t with its input, find the lanes that end with it,
// give them their next source, gather the input of the next step, then the rounds of step t. So the loads of a
// fresh lane have the whole time of the rounds to arrive, and a wrongly predicted branch is found out while rounds
// of the step before are still queued: it depends on sizes only. Lane addresses are relative to the running
// position t, so that a step has no pointers to advance. Behind the list stand jobs on a scratch buffer for lanes
// that have no more work.
#define INLINE __attribute__((always_inline)) static inline

enum {
  REGS = 8,
  LANES = REGS * WIDTH,
  SCRATCH = 512, // bytes an idle lane may walk before it starts over
};

struct lanes {
  uint64_t src[LANES], dst[LANES]; // addresses minus t
  vec ends[2];                     // 32-bit: the value of t at which each lane's job is done
  vec keep[1 << WIDTH], fresh[1 << WIDTH]; // by mask of ended lanes of a register: what stays of it, the IV
  unsigned next, real;             // of the list; lanes at work on samples rather than on scratch
};

// Sources and ends for the lanes of `ended`.
INLINE void take_src(struct lanes *s, const struct aes_list *list, unsigned ended, uint64_t t) {
  unsigned next = s->next;
  for (; ended; ended &= ended - 1, next++) {
    unsigned lane = (unsigned)__builtin_ctz(ended);
    s->src[lane] = list->src[next] - t;
    v_set(s->ends, lane, (uint32_t)t + list->len[next]);
    unsigned bit = 1u << lane;
    s->real = next < list->num ? s->real | bit : s->real & ~bit;
  }
  s->next = next < list->num ? next : list->num;
}

INLINE void take_dst(struct lanes *s, const struct aes_list *list, unsigned from, unsigned ended, uint64_t t) {
  for (unsigned m = ended; m; m &= m - 1, from++)
    s->dst[__builtin_ctz(m)] = list->dst[from] - t;
}

__attribute__((noinline)) static void run_list(struct aes_list *list, const struct aes_key *k, vec iv) {
  _Alignas(64) uint8_t scratch[SCRATCH]; // its content does not matter
  struct lanes s;
  unsigned num = list->num;
  for (unsigned i = 0; i < LANES; i++) {
    list->src[num + i] = list->dst[num + i] = (uint64_t)scratch;
    list->len[num + i] = SCRATCH;
  }
  s.ends[0] = s.ends[1] = v_mask(0);
  s.real = 0;
  s.next = 0;
  take_src(&s, list, (1u << LANES) - 1, 0);
  take_dst(&s, list, 0, (1u << LANES) - 1, 0);
  for (unsigned m = 0; m < 1 << WIDTH; m++) {
    s.fresh[m] = v_and(iv, v_mask(m));
    s.keep[m] = v_mask(~m);
  }
  vec x[REGS], in[REGS];
  UNROLL for (int i = 0; i < REGS; i++) {
    x[i] = iv;
    in[i] = v_gather(s.src + WIDTH * i, 0);
  }
  for (uint64_t t = 16; s.real; t += 16) {
    vec key = v_key(k->enc[0]);
    UNROLL for (int i = 0; i < REGS; i++)
      x[i] = v_xor(x[i], v_xor(in[i], key));
    unsigned from = s.next, ended = v_equal(s.ends, (uint32_t)t);
    if (ended)
      take_src(&s, list, ended, t);
    UNROLL for (int i = 0; i < REGS; i++)
      in[i] = v_gather(s.src + WIDTH * i, t);
    for (int r = 1; r < 10; r++) {
      key = v_key(k->enc[r]);
      UNROLL for (int i = 0; i < REGS; i++)
        x[i] = v_round(x[i], key);
    }
    key = v_key(k->enc[10]);
    UNROLL for (int i = 0; i < REGS; i++) {
      x[i] = v_last(x[i], key);
      v_scatter(s.dst + WIDTH * i, t - 16, x[i]);
    }
    if (ended) {
      take_dst(&s, list, from, ended, t);
      UNROLL for (int i = 0; i < REGS; i++) {
        unsigned m = ended >> WIDTH * i & ((1 << WIDTH) - 1);
        x[i] = v_xor(v_and(x[i], s.keep[m]), s.fresh[m]);
      }
    }
  }
}

static void cbc_encrypt(const struct aes_key *k, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num) {
  struct aes_jobs it;
  struct aes_list list;
  aes_jobs_init(&it, segs, num);
  while (aes_list_next(&it, &list))
    run_list(&list, k, v_key(iv));
}
