// CBC encryption in 512-bit registers, included by vaes512.c. A register carries the chains of four samples; up to six
// registers, 24 lanes, are in flight, or eight, 32 lanes. Measured limits: one VAESENC of 512 bits starts per cycle and takes
// 3 (Golden Cove, port 0) or 4 (Zen 4, two pipes of 256 bits), so four registers would do if nothing ever ended; six leave
// room for what happens between steps. Zen 5 starts two a cycle that take 4: six registers leave a quarter of its AES unit
// idle, eight would fill it if nothing else needed it. What is not AES must fit beside it, above all what moves blocks between
// the quarters of a register: on Golden Cove it has port 5, on Zen 4 and 5 one pipe that AES leaves alone and one that it needs.
// That decides the details:
//
//  - Steps come in pairs. Two blocks of a lane are read and written at once and transposed, 2 x 2: four shuffles for a
//    register and step instead of the six that insert and extract block by block. Half as many loads and stores as well,
//    and ends are looked at half as often.
//  - The last block of a sample with an odd number of them is set apart. It needs nothing but the ciphertext before it:
//    when the list is done, the last blocks of all its samples are encrypted beside each other (finish).
//  - Lane addresses are kept relative to the running position t, so a step advances one counter, not 48 pointers.
//  - The rounds of a pair's first step carry the scatter of the pair before, those of its second step the gather of
//    the next, instruction by instruction (run). Golden Cove binds an instruction to a port when it is decoded: shuffles
//    in a row would be bound to the AES port as often as to port 5, and loads would find older stores that alias them
//    still unfinished. Round keys come from memory, ready for use, which leaves registers for all this.
//  - The jobs are in order of length, so a free lane takes the next one in the list (longest first keeps the lanes'
//    ends close together). The soonest end is kept, and the lanes whose end it is; when it comes, refilling expands the next
//    entries of the job list into them and gives them the IV by a masked move. Its branch depends on sizes only.
//  - Behind the list stand jobs on scratch buffers: a lane without work runs along without a special case, and reads what
//    no other lane writes, lest it wait for that lane's ciphertext. The
//    list's order puts the longest samples in the lowest registers, so that at the end registers fall idle from
//    the top, and the loop continues with fewer of them, unless it is nearly done: to change over costs a hundred cycles.
//  - Eight registers, with two inputs and two outputs each, are more than there are: of more than six, the first
//    ciphertext block of a pair lies in memory until it goes out.
//  - Two dozen scattered destinations miss the L1 cache at every fourth step, and stores leave in order: the line
//    two ahead of a lane is asked for, half of the lanes in a round trip. Zen 5 is faster without.
//  - What the caller reads next (struct aes_ahead) is asked for into L2, as many lines in a step as the step itself
//    reads. A loop of loads over it before the next burst waits for memory, prefetches in a row are dropped when the
//    queue is full; six of them in sixty cycles of AES cost a tenth of that.
//  - Samples of one constant size that is a large power of two (times a small number) keep all lanes in the same
//    sets of the L1 cache for ever. They are started some cache lines apart, register by register.
//
// The inner functions are compiled once per number of registers from one always-inline body.

enum {
  REGS = 8, // at most
  NEAR = 6, // up to which all that a pair needs is in registers
  LANES = 4 * REGS,
  AHEAD = 128,    // bytes between a block written and the destination line asked for
  SCRATCH = 2048, // bytes an idle lane may walk before it starts over
  TAILS = 4,      // jobs whose trailing bytes are copied in a round trip
  NEARLY = 128,   // bytes for which it is not worth while to go on with fewer registers
};

// Jobs as arrays, in the order in which lanes take them.
enum {
  LIST = 256,      // jobs
  LIST_SPARE = 32, // room behind them for jobs of idle lanes, and for wide stores
};

struct list {
  uint64_t src[LIST + LIST_SPARE], dst[LIST + LIST_SPARE]; // addresses
  uint32_t len[LIST + LIST_SPARE];                         // pairs of blocks, in bytes; not 0
  uint32_t end[LIST + LIST_SPARE];                         // where the last 16 bytes start
  unsigned num;
  bool apart; // some job's source is not its destination
  bool cut;   // some jobs are the rest of a sample whose first part comes before: those in `rest`, a bit for each job
  uint8_t rest[(LIST + LIST_SPARE) / 8 + 8];
};

struct state {
  _Alignas(64) uint64_t src[LANES], dst[LANES]; // addresses minus t
  _Alignas(64) uint32_t ends[LANES];            // value of t (its low half) at which the lane's job is done
  __m512i x[REGS];                              // last ciphertext blocks, or the IV
  __m512i even[REGS], odd[REGS];                // the last two ciphertext blocks; while it runs, `even` beyond NEAR only
  uint64_t t;                                   // bytes
  unsigned next;                                // of the list
  unsigned tail;                                // job whose trailing bytes are copied next
  unsigned real;                                // lanes that work on a sample rather than on scratch
  unsigned moved, from;                         // lanes with a new source, but not yet its destination: first job
  uint64_t ahead, ahead_last;                   // the lines to ask for, and where to stay
  bool streams;                                 // there are such lines: sources come from far away, trailing bytes first
};

// Keeps the computation of a register where it is written.
#ifndef PIN // emulated registers (tests/checkasm/emulated.h) have no place
#define PIN(x) __asm__ volatile("" : "+v"(x))
#endif

enum { SWAP = 0x4e, FRONT = 0x33, BACK = 0xcc }; // for pairs of blocks: exchange them; where the first, the second is

INLINE __m512i load_pairs(uint64_t low, uint64_t high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)low)),
                            _mm256_loadu_si256((const __m256i *)high), 1);
}

// Two blocks of four lanes, in three parts: the pairs of lanes 0 and 2, of lanes 1 and 3, and the first blocks of all
// into `even`, the second into `odd`.
INLINE void gather_part(__m512i *even, __m512i *odd, const uint64_t *src, uint64_t t, const int part) {
  if (part == 0) {
    *even = load_pairs(src[0] + t, src[2] + t);
    PIN(*even);
  } else if (part == 1) {
    *odd = load_pairs(src[1] + t, src[3] + t);
    PIN(*odd);
  } else {
    __m512i pairs = *even;
    *even = _mm512_mask_permutex_epi64(pairs, BACK, *odd, SWAP);
    *odd = _mm512_mask_permutex_epi64(*odd, FRONT, pairs, SWAP);
    PIN(*even);
    PIN(*odd);
  }
}

// The reverse, in two parts: lanes 0 and 2, lanes 1 and 3.
INLINE void scatter_part(const uint64_t *dst, uint64_t t, __m512i even, __m512i odd, const int part) {
  __m512i pairs = part == 0 ? _mm512_mask_permutex_epi64(even, BACK, odd, SWAP)
                            : _mm512_mask_permutex_epi64(odd, FRONT, even, SWAP);
  PIN(pairs);
  _mm256_storeu_si256((__m256i *)(dst[part] + t), _mm512_castsi512_si256(pairs));
  _mm256_storeu_si256((__m256i *)(dst[2 + part] + t), _mm512_extracti64x4_epi64(pairs, 1));
}

INLINE void prefetch_write(uint64_t p) {
  __builtin_prefetch((const void *)p, 1);
}

// The next addresses of the list, relative to t, into the lanes of `ended`.
INLINE void take(uint64_t *lanes, const uint64_t *from, unsigned ended, uint64_t t, const int regs) {
  UNROLL for (int g = 0; g < (regs + 1) / 2; g++) {
    __mmask8 m = (__mmask8)(ended >> 8 * g);
    __m512i v = _mm512_mask_expandloadu_epi64(_mm512_load_si512(lanes + 8 * g), m, from);
    _mm512_store_si512(lanes + 8 * g, _mm512_mask_sub_epi64(v, m, v, _mm512_set1_epi64((long long)t)));
    from += __builtin_popcount(m);
  }
}

// New sources for the lanes that end at t.
INLINE void take_ended(struct state *s, const struct list *list, uint64_t t, unsigned ended, const int regs) {
  const __m512i now = _mm512_set1_epi32((int)t);
  unsigned next = s->next, left = list->num - next, num = (unsigned)__builtin_popcount(ended);
  const uint32_t *len = list->len + next;
  take(s->src, list->src + next, ended, t, regs);
  UNROLL for (int g = 0; g < (regs + 3) / 4; g++) {
    __mmask16 m = (__mmask16)(ended >> 16 * g);
    __m512i ends = _mm512_load_si512(s->ends + 16 * g);
    _mm512_store_si512(s->ends + 16 * g, _mm512_mask_add_epi32(ends, m, now, _mm512_maskz_expandloadu_epi32(m, len)));
    len += __builtin_popcount(m);
  }
  s->real = left >= num ? s->real : (s->real & ~ended) | _pdep_u32((1u << left) - 1, ended);
  s->next = next + (left >= num ? num : left);
}

// The soonest end after t, and the lanes whose end it is. Both are needed when it comes, then without waiting: what vectors
// compute queues behind the AES rounds.
INLINE uint32_t soonest(const struct state *s, uint64_t t, unsigned *due, const int regs) {
  const __m512i from = _mm512_set1_epi32((int)t + 1); // what lies behind is furthest away
  __m512i v[LANES / 16], least;
  UNROLL for (int g = 0; g < (regs + 3) / 4; g++) {
    v[g] = _mm512_sub_epi32(_mm512_load_si512(s->ends + 16 * g), from);
    least = g ? _mm512_min_epu32(least, v[g]) : v[g];
  }
  least = _mm512_min_epu32(least, _mm512_shuffle_i64x2(least, least, 0x4e));
  least = _mm512_min_epu32(least, _mm512_shuffle_i64x2(least, least, 0xb1));
  least = _mm512_min_epu32(least, _mm512_shuffle_epi32(least, 0x4e));
  least = _mm512_min_epu32(least, _mm512_shuffle_epi32(least, 0xb1));
  *due = 0;
  UNROLL for (int g = 0; g < (regs + 3) / 4; g++)
    *due |= (unsigned)_mm512_cmpeq_epi32_mask(v[g], least) << 16 * g;
  *due &= ~0u >> (32 - 4 * regs);
  return (uint32_t)_mm512_cvtsi512_si32(least) + (uint32_t)t + 1;
}

// Whether no job under way has more than `bytes` left.
INLINE bool nearly_done(const struct state *s, uint64_t t, uint32_t bytes) {
  for (unsigned m = s->real; m; m &= m - 1)
    if (s->ends[__builtin_ctz(m)] - (uint32_t)t > bytes)
      return false;
  return true;
}

// The last 16 bytes of job i, for those after its last whole block: to be called before that block is written.
INLINE void copy_tail(const struct list *l, unsigned i) {
  uint64_t at = l->end[i];
  _mm_storeu_si128((__m128i *)(l->dst[i] + at), _mm_loadu_si128((const __m128i *)(l->src[i] + at)));
}

INLINE void ask_tail(const struct list *l, unsigned i) {
  __builtin_prefetch((const void *)(l->src[i] + l->end[i]));
}

// Rounds 1 to 9 of the first step of a pair. Between them, the ciphertext of the pair before goes out.
INLINE void rounds_scattering(__m512i *x, const volatile __m512i *k, const struct state *s, uint64_t t, const __m512i *even,
                              const __m512i *odd, uint64_t ahead, const int regs) {
  const volatile __m512i *far = s->even;
  UNROLL for (int r = 1; r < 10; r++) {
    __m512i key = k[r];
    UNROLL for (int i = 0; i < regs; i++) {
      const int slot = (r - 1) * regs + i, g = slot / 9, at = slot % 9;
      x[i] = _mm512_aesenc_epi128(x[i], key);
      PIN(x[i]);
      if (at == 3 || at == 4)
        scatter_part(s->dst + 4 * g, t - 32, regs > NEAR ? far[g] : even[g], odd[g], at == 4);
      if (slot % 8 == 3 && slot / 8 < regs)
        prefetch_ahead(ahead + 64 * (unsigned)(slot / 8));
    }
  }
}

// Those of the second step. Between them, the input of the pair at t comes in, and destination lines are asked for.
INLINE void rounds_gathering(__m512i *x, const volatile __m512i *k, const struct state *s, uint64_t t, __m512i *even, __m512i *odd,
                             uint64_t ahead, const int regs, const bool ask) {
  UNROLL for (int r = 1; r < 10; r++) {
    __m512i key = k[r];
    UNROLL for (int i = 0; i < regs; i++) {
      const int slot = (r - 1) * regs + i, g = slot / 9, at = slot % 9;
      x[i] = _mm512_aesenc_epi128(x[i], key);
      PIN(x[i]);
      if (at == 2 || at == 4 || at == 8)
        gather_part(&even[g], &odd[g], s->src + 4 * g, t, at / 4);
      if (ask && slot % 4 == 1 && slot / 8 < regs)
        prefetch_write(s->dst[4 * (slot / 8) + slot / 4 % 2 + (int)(t >> 4 & 2)] + t - 32 + AHEAD);
      if (slot % 8 == 3 && slot / 8 < regs)
        prefetch_ahead(ahead + 64 * (unsigned)(slot / 8));
    }
  }
}

INLINE uint64_t asked(uint64_t ahead, uint64_t last, const int regs) {
  return ahead + 64 * (unsigned)regs < last ? ahead + 64 * (unsigned)regs : last;
}

// The last round with the next input and round key 0 in its key: `x` is what the next step begins with. Returns the ciphertext.
INLINE __m512i last_round_folding(__m512i *x, __m512i next, __m512i first_and_last, __m512i first) {
  *x = _mm512_aesenclast_epi128(*x, _mm512_xor_si512(next, first_and_last));
  PIN(*x);
  __m512i out = _mm512_ternarylogic_epi64(next, *x, first, 0x96);
  PIN(out);
  return out;
}

// Of the lanes `moved` to the jobs from `from` on, those whose job is the rest of a sample.
INLINE unsigned rests(const struct list *l, unsigned from, unsigned moved) {
  uint64_t bits;
  memcpy(&bits, l->rest + from / 8, sizeof bits);
  return _pdep_u32((uint32_t)(bits >> from % 8), moved);
}

// The ciphertext before such a lane's job.
INLINE __m128i before_rest(const struct list *l, unsigned from, unsigned moved, unsigned lane) {
  uint64_t dst = l->dst[from + (unsigned)__builtin_popcount(_bzhi_u32(moved, lane))];
  return _mm_loadu_si128((const __m128i *)(dst - 16));
}

// Where lanes of register i are, as 64-bit parts of it.
INLINE __mmask8 parts_of(unsigned lanes, const int i) {
  return (__mmask8)(_pdep_u32(lanes >> 4 * i, 0x55) * 3);
}

// Runs with `regs` registers until all lanes from `floor` upwards are out of work for good. A round trip of the loop is two
// steps. Between the rounds of the first, the ciphertext of the pair before goes out; between those of the second,
// the next input comes in. So nothing waits for memory. A lane's source is therefore changed one round trip before its
// destination. On entering, the last blocks are written once more. Trailing bytes are copied in front of the cipher, four jobs
// in a round trip: in a row they wait for lines that are not in L1. Where in the rounds things happen was found by trying 60
// arrangements, of which the best is 8 % faster than the worst.
//
// `two`: for cores that start two rounds a cycle. Where the next input is at hand when a step ends, it and round key 0 go into
// the last round's key: the next step begins without an exclusive or, one cycle of 41 sooner, and the ciphertext, which is in no
// hurry, needs one more.
INLINE void run(struct state *s, const struct list *list, const struct keys *keys, const __m512i *iv, const int regs,
                const int floor, const bool two) {
  const volatile __m512i *k = keys->k; // volatile: read where it says so, not kept in registers
  volatile __m512i *far = s->even;
  __m512i x[REGS], in_even[REGS], in_odd[REGS], even[REGS], odd[REGS], key;
  uint64_t t = s->t;
  UNROLL for (int i = 0; i < regs; i++) {
    x[i] = s->x[i];
    if (regs <= NEAR)
      even[i] = s->even[i];
    odd[i] = s->odd[i];
    UNROLL for (int part = 0; part < 3; part++)
      gather_part(&in_even[i], &in_odd[i], s->src + 4 * i, t, part);
  }
  unsigned due, moved = s->moved;
  uint32_t end = soonest(s, t, &due, regs);
  uint64_t ahead = s->ahead;
  const uint64_t ahead_last = s->ahead_last;
  unsigned tail = s->tail, until = (unsigned)floor;
  const __m512i first_and_last = two ? _mm512_xor_si512(k[0], k[10]) : _mm512_setzero_si512();
  if (two) {
    key = k[0];
    UNROLL for (int i = 0; i < regs; i++)
      x[i] = _mm512_ternarylogic_epi64(in_even[i], x[i], key, 0x96);
  }
  for (;;) {
    if (__builtin_expect(!(s->real >> until), 0)) {
      if (!s->real || !nearly_done(s, t, NEARLY))
        break;
      until = 0;
    }
    if (!two) {
      key = k[0];
      UNROLL for (int i = 0; i < regs; i++) {
        x[i] = _mm512_ternarylogic_epi64(in_even[i], x[i], key, 0x96);
        PIN(x[i]);
      }
    }
    rounds_scattering(x, k, s, t, even, odd, ahead, regs);
    key = k[two ? 0 : 10];
    ahead = asked(ahead, ahead_last, regs);
    if (__builtin_expect(moved, 0))
      take(s->dst, list->dst + s->from, moved, t, regs);
    UNROLL for (int i = 0; i < regs; i++) {
      even[i] = two ? last_round_folding(&x[i], in_odd[i], first_and_last, key) : _mm512_aesenclast_epi128(x[i], key);
      if (regs > NEAR)
        far[i] = even[i];
    }
    if (!two) {
      key = k[0];
      UNROLL for (int i = 0; i < regs; i++) {
        x[i] = _mm512_ternarylogic_epi64(in_odd[i], even[i], key, 0x96);
        PIN(x[i]);
      }
    }
    t += 32;
    unsigned from = s->next;
    moved = 0;
    if (__builtin_expect((uint32_t)t == end, 0)) {
      moved = due;
      if (list->apart) // what ends here is written in the next round trip
        for (; __builtin_expect(tail < from, 0); tail++)
          copy_tail(list, tail);
      take_ended(s, list, t, moved, regs);
      end = soonest(s, t, &due, regs);
    }
    if (tail < list->num) {
      UNROLL for (unsigned i = 0; i < TAILS; i++)
        copy_tail(list, tail + i);
      if (s->streams)
        UNROLL for (unsigned i = 2 * TAILS; i < 3 * TAILS; i++)
          ask_tail(list, tail + i);
      tail += TAILS;
    }
    rounds_gathering(x, k, s, t, in_even, in_odd, ahead, regs, !two);
    key = k[two ? 0 : 10];
    ahead = asked(ahead, ahead_last, regs);
    UNROLL for (int i = 0; i < regs; i++)
      if (two)
        odd[i] = last_round_folding(&x[i], in_even[i], first_and_last, key);
      else
        odd[i] = x[i] = _mm512_aesenclast_epi128(x[i], key);
    if (__builtin_expect(moved, 0)) {
      s->from = from;
      const __m512i start = *(const volatile __m512i *)iv;
      UNROLL for (int i = 0; i < regs; i++) // two: the ciphertext in x, below the next input, gives way to the IV
        x[i] = _mm512_mask_mov_epi64(x[i], parts_of(moved, i),
                                     two ? _mm512_ternarylogic_epi64(x[i], odd[i], start, 0x96) : start);
      if (two && list->cut)
        for (unsigned m = rests(list, from, moved); m; m &= m - 1) {
          unsigned lane = (unsigned)__builtin_ctz(m);
          __m512i other = _mm512_xor_si512(_mm512_broadcast_i32x4(before_rest(list, from, moved, lane)), start);
          UNROLL for (int i = 0; i < regs; i++)
            x[i] = _mm512_mask_mov_epi64(x[i], parts_of(1u << lane, i), _mm512_xor_si512(x[i], other));
        }
    }
  }
  UNROLL for (int i = 0; i < regs; i++) {
    UNROLL for (int part = 0; part < 2; part++)
      scatter_part(s->dst + 4 * i, t - 32, regs > NEAR ? far[i] : even[i], odd[i], part);
    s->x[i] = _mm512_mask_mov_epi64(odd[i], parts_of(moved, i), *iv);
    if (regs <= NEAR)
      s->even[i] = even[i];
    s->odd[i] = odd[i];
  }
  s->t = t;
  s->moved = moved;
  s->tail = tail;
  s->ahead = ahead;
}

typedef void runner(struct state *s, const struct list *list, const struct keys *k, const __m512i *iv);

// One function for each number of registers; 2 and 3 cost about the same as 1, they wait for the rounds' latency. Up to seven wait
// for it on cores that start two rounds a cycle (_x2), on others the AES unit is what they wait for.
#define RUN(name, regs, floor, two)                                                                              \
  __attribute__((noinline)) static void name(struct state *s, const struct list *list, const struct keys *k,     \
                                             const __m512i *iv) {                                                \
    run(s, list, k, iv, regs, floor, two);                                                                       \
  }
RUN(run6, 6, 20, false)
RUN(run5, 5, 16, false)
RUN(run4, 4, 12, false)
RUN(run3, 3, 4, false)
RUN(run1, 1, 0, false)
RUN(run8_x2, 8, 28, true)
RUN(run7_x2, 7, 24, true)
RUN(run6_x2, 6, 20, true)
RUN(run5_x2, 5, 16, true)
RUN(run4_x2, 4, 12, true)
RUN(run3_x2, 3, 4, true)
RUN(run1_x2, 1, 0, true)

// By the number of registers.
static runner *const runs[REGS + 1] = {NULL, run1, NULL, run3, run4, run5, run6};
static runner *const runs_x2[REGS + 1] = {NULL, run1_x2, NULL, run3_x2, run4_x2, run5_x2, run6_x2, run7_x2, run8_x2};

static uint32_t whole_blocks(const struct list *l, unsigned i) { return (l->end[i] + 16) & ~15u; }

// How many of 32 lanes to use: where 24 need as many rounds of jobs, their shorter steps are worth more.
INLINE unsigned lanes_for(unsigned num) {
  return (num + 23) / 24 == (num + 31) / 32 ? 24 : 32;
}

#include "simd/cbc_cut.h"

// With up to `regs` registers, 6 or 8, in flight.
INLINE void run_list(struct list *list, const struct keys *k, const __m512i *iv, struct aes_ahead *ahead, const unsigned regs) {
  _Alignas(64) uint8_t scratch[2][SCRATCH]; // what idle lanes read and write; the content does not matter
  struct state s;
  const unsigned most = 4 * regs;
  unsigned num = list->num, lanes = regs > NEAR ? lanes_for(num) : most;
  unsigned stagger = aes_stagger(whole_blocks(list, 0), whole_blocks(list, num - 1), num, lanes);
  unsigned start = stagger ? 4 : lanes;
  list->cut = false;
  if (regs > NEAR && !stagger) {
    unsigned to = cut_lanes(list, lanes);
    if (to) {
      cut(list, to);
      start = lanes = to;
      num = list->num;
    }
  }
  const __m512i idle_src = _mm512_set1_epi64((long long)scratch[0]), idle_dst = _mm512_set1_epi64((long long)scratch[1]);
  UNROLL for (unsigned i = 0; i < most; i += 8) {
    _mm512_storeu_si512(list->src + num + i, idle_src);
    _mm512_storeu_si512(list->dst + num + i, idle_dst);
    _mm256_storeu_si256((__m256i *)(list->len + num + i), _mm256_set1_epi32(SCRATCH));
    _mm256_storeu_si256((__m256i *)(list->end + num + i), _mm256_setzero_si256());
  }
  bool any = ahead && ahead->n > 64 * regs;
  s.streams = any;
  s.ahead = any ? (uint64_t)ahead->p : (uint64_t)scratch;
  s.ahead_last = any ? (uint64_t)ahead->p + ahead->n - 64 * regs : (uint64_t)scratch;
  s.t = 0;
  s.next = num < start ? num : start;
  s.real = _bzhi_u32(~0u, stagger ? lanes : s.next);
  s.moved = _bzhi_u32(~0u, start);
  s.from = 0;
  s.tail = list->apart ? 0 : num;
  UNROLL for (unsigned i = 0; i < most; i += 8) {
    _mm512_store_si512(s.src + i, _mm512_loadu_si512(list->src + i));
    // written once before the first step, at t - 32
    _mm512_store_si512(s.dst + i, _mm512_add_epi64(idle_dst, _mm512_set1_epi64(32)));
    _mm256_store_si256((__m256i *)(s.ends + i), _mm256_loadu_si256((const __m256i *)(list->len + i)));
  }
  for (unsigned i = lanes; i < LANES; i += 4)
    _mm_store_si128((__m128i *)(s.ends + i), _mm_setzero_si128()); // behind t: never the soonest
  for (unsigned i = start; i < lanes; i++) {
    s.src[i] = (uint64_t)scratch[0];
    s.ends[i] = i / 4 * stagger;
  }
  for (unsigned i = 0; i < regs; i++)
    s.x[i] = s.even[i] = s.odd[i] = *iv;
  runner *const *with = regs > NEAR ? runs_x2 : runs;
  for (unsigned i = lanes / 4; i; i--)
    if (with[i] && s.real >> (i == 3 ? 4 : 4 * (i - 1))) // 3 do for 2 as well
      with[i](&s, list, k, iv);
  if (any) {
    ahead->n -= s.ahead - (uint64_t)ahead->p;
    ahead->p = (const uint8_t *)s.ahead;
  }
}

// The last blocks of the samples that have an odd number of them.
struct last {
  uint64_t src[LIST + LIST_SPARE], dst[LIST + LIST_SPARE];
  uint64_t prev[LIST + LIST_SPARE]; // where the ciphertext before it is, or the IV
  unsigned num;
};

INLINE __m128i clear_and_before(const struct last *l, unsigned i) {
  return _mm_xor_si128(_mm_loadu_si128((const __m128i *)l->src[i]), _mm_loadu_si128((const __m128i *)l->prev[i]));
}

// Four of them, with what comes before xored in.
INLINE __m512i gather(const struct last *l, unsigned at) {
  __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(clear_and_before(l, at)), clear_and_before(l, at + 1), 1);
  __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(clear_and_before(l, at + 2)), clear_and_before(l, at + 3), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

INLINE void scatter(const uint64_t *p, __m512i x) {
  __m256i low = _mm512_castsi512_si256(x), high = _mm512_extracti64x4_epi64(x, 1);
  _mm_storeu_si128((__m128i *)p[0], _mm256_castsi256_si128(low));
  _mm_storeu_si128((__m128i *)p[1], _mm256_extracti128_si256(low, 1));
  _mm_storeu_si128((__m128i *)p[2], _mm256_castsi256_si128(high));
  _mm_storeu_si128((__m128i *)p[3], _mm256_extracti128_si256(high, 1));
}

INLINE void finish_group(const struct last *l, unsigned at, const struct keys *k, const unsigned n) {
  __m512i x[GROUP];
  UNROLL for (unsigned i = 0; i < n; i++)
    x[i] = _mm512_xor_si512(gather(l, at + 4 * i), k->k[0]);
  rounds(x, (int)n, k);
  UNROLL for (unsigned i = 0; i < n; i++)
    scatter(l->dst + at + 4 * i, _mm512_aesenclast_epi128(x[i], k->k[10]));
}

static void finish(struct last *l, const struct keys *k) {
  _Alignas(64) uint8_t scratch[16]; // its content does not matter
  unsigned at = 0;
  for (unsigned i = l->num; i < l->num + 4; i++)
    l->src[i] = l->dst[i] = l->prev[i] = (uint64_t)scratch;
  for (; at + 4 * GROUP <= l->num; at += 4 * GROUP)
    finish_group(l, at, k, GROUP);
  for (; at < l->num; at += 4)
    finish_group(l, at, k, 1);
}

// Eight lanes of the segment, the `valid` ones of them: their pairs of blocks into the list, last blocks apart. `all`
// when each of them has a pair, as nearly always; what has none is not in the list, its trailing bytes are copied here.
INLINE void fill(struct list *l, struct last *last, unsigned *num, unsigned *num_last, const struct aes_cbc_seg *seg,
                 __m512i lanes, __mmask8 valid, const uint8_t *iv, const bool all) {
  const __m512i block = _mm512_set1_epi64(16);
  __m512i off = _mm512_and_si512(lanes, _mm512_set1_epi64(0xffffffff)), len = _mm512_srli_epi64(lanes, 32);
  __m512i src = _mm512_add_epi64(_mm512_set1_epi64((long long)seg->src), off);
  __m512i dst = _mm512_add_epi64(_mm512_set1_epi64((long long)seg->dst), off);
  __mmask8 odd = _mm512_mask_test_epi64_mask(valid, len, block);
  const __m512i below = _mm512_set1_epi64(31);
  __m512i tail = _mm512_sub_epi64(len, block); // where there is a whole block
  len = _mm512_andnot_si512(below, len);
  __m512i end = _mm512_add_epi64(dst, len), prev = _mm512_sub_epi64(end, block);
  if (!all) {
    __mmask8 some = _mm512_test_epi64_mask(len, len);
    struct aes_lane short_lanes[8];
    _mm512_storeu_si512(short_lanes, lanes);
    for (unsigned m = valid & (unsigned)~some; m; m &= m - 1) {
      struct aes_lane lane = short_lanes[__builtin_ctz(m)];
      if (seg->src != seg->dst)
        aes_lane_tail(seg->dst + lane.off, seg->src + lane.off, lane.len);
    }
    prev = _mm512_mask_mov_epi64(_mm512_set1_epi64((long long)iv), some, prev);
    valid &= some;
  }
  _mm512_storeu_si512(last->src + *num_last, _mm512_maskz_compress_epi64(odd, _mm512_add_epi64(src, len)));
  _mm512_storeu_si512(last->dst + *num_last, _mm512_maskz_compress_epi64(odd, end));
  _mm512_storeu_si512(last->prev + *num_last, _mm512_maskz_compress_epi64(odd, prev));
  *num_last += (unsigned)__builtin_popcount(odd);
  if (!all) {
    src = _mm512_maskz_compress_epi64(valid, src);
    dst = _mm512_maskz_compress_epi64(valid, dst);
    len = _mm512_maskz_compress_epi64(valid, len);
    tail = _mm512_maskz_compress_epi64(valid, tail);
  }
  _mm512_storeu_si512(l->src + *num, src);
  _mm512_storeu_si512(l->dst + *num, dst);
  _mm256_storeu_si256((__m256i *)(l->len + *num), _mm512_cvtepi64_epi32(len));
  _mm256_storeu_si256((__m256i *)(l->end + *num), _mm512_cvtepi64_epi32(tail));
  *num += (unsigned)__builtin_popcount(valid);
}

// The lanes of the segment in a row, as far as the list holds them.
INLINE void list_fill(struct aes_jobs *it, struct list *l, struct last *last, const uint8_t *iv) {
  const struct aes_cbc_seg *seg = it->seg;
  unsigned num = l->num, num_last = last->num;
  l->apart |= seg->src != seg->dst;
  size_t room = LIST - (l->num > last->num ? l->num : last->num);
  size_t end = seg->num_lanes - it->at > room ? it->at + room : seg->num_lanes;
  for (size_t i = it->at; i < end; i += 8) {
    __mmask8 valid = (__mmask8)_bzhi_u32(0xff, end - i < 8 ? (unsigned)(end - i) : 8); // bzhi counts modulo 256
    __m512i lanes = _mm512_maskz_loadu_epi64(valid, seg->lanes + i);
    if (__builtin_expect(_mm512_mask_cmplt_epu64_mask(valid, lanes, _mm512_set1_epi64((long long)32 << 32)), 0))
      fill(l, last, &num, &num_last, seg, lanes, valid, iv, false);
    else
      fill(l, last, &num, &num_last, seg, lanes, valid, iv, true);
  }
  it->at = end;
  l->num = num;
  last->num = num_last;
}

INLINE void encrypt(const struct aes_key *key, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num,
                    struct aes_ahead *ahead, const unsigned regs) {
  struct aes_jobs it;
  struct list list;
  struct last last;
  struct keys k;
  load_keys(&k, key->enc);
  const __m512i start = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)iv));
  aes_jobs_init(&it, segs, num);
  while (aes_jobs_seg(&it)) {
    list.num = last.num = 0;
    list.apart = false;
    do
      list_fill(&it, &list, &last, iv);
    while (list.num < LIST && last.num < LIST && aes_jobs_seg(&it));
    if (list.num)
      run_list(&list, &k, &start, ahead, regs);
    finish(&last, &k);
  }
  wipe_keys(&k);
}

static void cbc_encrypt_6(const struct aes_key *key, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num,
                          struct aes_ahead *ahead) {
  encrypt(key, iv, segs, num, ahead, 6);
}

static void cbc_encrypt_8(const struct aes_key *key, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num,
                          struct aes_ahead *ahead) {
  encrypt(key, iv, segs, num, ahead, 8);
}
