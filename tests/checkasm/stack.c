// What operations leave on the stack: nothing of what kernels wipe there, which is tables of counters, key stream and round keys, of
// the portable kernel sliced ones. What these hold is computed here, round by round as FIPS 197 tells it; then all 16 bytes in a row
// of the stack below an operation are looked up among them.
#include <stdio.h>
#include <stdlib.h>

#include "checkasm/checkasm.h"

enum {
  DEPTH = 192 << 10, // bytes of stack that are looked at; operations use less
  PAD = 1024,        // between the caller's frame and an operation's
  FILL = 0xa7,
  SLOTS = 1 << 16,   // a power of two, more than twice as many as there are secrets
  SAMPLES = 40,
  SEGS = 4,
};

// ---- Secrets

static struct secret {
  uint8_t v[16];
  const char *name; // NULL: none
} secrets[SLOTS];
static unsigned num_secrets;

static struct secret *look_up(const uint8_t v[16]) {
  uint64_t x, y;
  memcpy(&x, v, 8);
  memcpy(&y, v + 8, 8);
  for (uint64_t i = (x * 31 + y) * UINT64_C(0x9e3779b97f4a7c15) >> 40;; i++)
    if (!secrets[i % SLOTS].name || memcmp(secrets[i % SLOTS].v, v, 16) == 0)
      return &secrets[i % SLOTS];
}

static void forget_secrets(void) {
  memset(secrets, 0, sizeof secrets);
  num_secrets = 0;
}

static void add_secret(const char *name, const uint8_t v[16]) {
  static const uint8_t zero[16]; // such as what a table of differences begins with
  struct secret *s = look_up(v);
  if (s->name || memcmp(v, zero, 16) == 0)
    return;
  if (++num_secrets > SLOTS / 2)
    abort();
  memcpy(s->v, v, 16);
  s->name = name;
}

static void add_difference(const char *name, const uint8_t a[16], const uint8_t b[16]) {
  uint8_t v[16];
  for (int i = 0; i < 16; i++)
    v[i] = a[i] ^ b[i];
  add_secret(name, v);
}

static uint8_t twice(uint8_t x) {
  return (uint8_t)(x << 1 ^ (x >> 7) * 0x1b);
}

// FIPS 197 §5.1.1, with the powers of 3 and of its inverse.
static const uint8_t *sbox(void) {
  static uint8_t box[256];
  for (uint8_t p = 1, q = 1; !box[0] || p != 1;) {
    p ^= twice(p);
    q ^= (uint8_t)(q << 1);
    q ^= (uint8_t)(q << 2);
    q ^= (uint8_t)(q << 4);
    q ^= q & 0x80 ? 0x09 : 0;
    uint8_t s = q;
    for (int i = 1; i < 5; i++)
      s ^= (uint8_t)(q << i | q >> (8 - i));
    box[p] = s ^ 0x63;
    box[0] = 0x63;
  }
  return box;
}

static void aes_round(const uint8_t box[256], uint8_t out[16], const uint8_t in[16], const uint8_t key[16], bool last) {
  uint8_t x[16];
  for (int i = 0; i < 16; i++)
    x[i] = box[in[(i + i % 4 * 4) % 16]];
  for (int i = 0; i < 16; i++) {
    int col = i & ~3;
    uint8_t a = x[i], b = x[col + (i + 1) % 4], c = x[col + (i + 2) % 4], d = x[col + (i + 3) % 4];
    out[i] = key[i] ^ (last ? a : twice(a) ^ twice(b) ^ b ^ c ^ d);
  }
}

// state[r]: after round r, 0 with the first round key alone.
static void aes_states(struct check *c, uint8_t state[11][16], uint64_t high, uint64_t low) {
  static const uint8_t *box;
  box = box ? box : sbox();
  store_be64(state[0], high);
  store_be64(state[0] + 8, low);
  for (int i = 0; i < 16; i++)
    state[0][i] ^= c->ref_key.enc[0][i];
  for (int r = 1; r <= 10; r++)
    aes_round(box, state[r], state[r - 1], c->ref_key.enc[r], r == 10);
}

// Whether the compiler leaves nothing that was in registers only: clang spills such, so may what a sanitizer adds, and so do
// emulated instructions. Entries of tables of differences stand in no register.
#if defined(__clang__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(EMULATED)
enum { SPILLS = 1 };
#else
enum { SPILLS = 0 };
#endif

// What rounds 1 and 2 make of a counter, what its last byte adds to that, and its key stream.
static void add_counter(struct check *c, uint64_t high, uint64_t low) {
  uint8_t zero[11][16], x[11][16];
  aes_states(c, zero, high, low & ~UINT64_C(255));
  aes_states(c, x, high, low);
  for (int r = 1; r <= 2; r++) {
    add_difference("what a counter's last byte adds", x[r], zero[r]);
    if (!SPILLS) {
      add_secret("a counter after two rounds", zero[r]);
      add_secret("a counter after two rounds", x[r]);
    }
  }
  if (!SPILLS)
    add_secret("key stream", x[10]);
}

// Bit-sliced round keys of ref.c: bit k of byte i is bit i of plane k's every 16 bits.
static void add_sliced(const uint8_t keys[11][16]) {
  for (int r = 0; r < 11; r++) {
    uint64_t planes[8] = {0};
    for (int k = 0; k < 8; k++)
      for (int i = 0; i < 16; i++)
        planes[k] |= (uint64_t)(keys[r][i] >> k & 1) * UINT64_C(0x0001000100010001) << i;
    for (int k = 0; k < 7; k++)
      add_secret("a sliced round key", (const uint8_t *)&planes[k]);
  }
}

// ---- The stack

static uint8_t left[DEPTH];

// AddressSanitizer may move locals off the stack (detect_stack_use_after_return): not these. Of kernels that are built with it nothing
// is found here then; the build without it is what searches theirs.
#define ON_THE_STACK __attribute__((noinline, no_sanitize("address")))

// Fills the stack below its caller, or copies what lies there.
ON_THE_STACK static void below(bool fill) {
  uint8_t under[DEPTH], *p = under;
  __asm__ volatile("" : "+r"(p)::"memory"); // its bytes are what they are
  if (fill)
    memset(p, FILL, DEPTH);
  else
    memcpy(left, p, DEPTH);
  __asm__ volatile("" ::"r"(p) : "memory");
}

struct work {
  struct aes_ctr_seg segs[SEGS];
  struct aes_cbc_seg lanes;
  size_t num;
  const uint8_t (*ivs)[16];
};

typedef void work_fn(struct check *c, const struct work *w);

// Its frame is above all that `below` cannot reach.
ON_THE_STACK static void run_deeper(work_fn *run, struct check *c, const struct work *w) {
  uint8_t pad[PAD], *p = pad;
  __asm__ volatile("" ::"r"(p) : "memory");
  run(c, w);
  __asm__ volatile("" ::"r"(p) : "memory");
}

// The secret that `run` has left, or NULL.
static const char *find_left(work_fn *run, struct check *c, const struct work *w) {
  below(true);
  run_deeper(run, c, w);
  below(false);
  size_t at = 0;
  while (at < DEPTH && left[at] == FILL)
    at++;
  if (at < DEPTH / 8)
    return "more than is looked at";
  for (; at <= DEPTH - 16; at++) {
    const char *name = look_up(left + at)->name;
    if (name)
      return name;
  }
  return NULL;
}

static void check_left(struct check *c, work_fn *run, const struct work *w) {
  const char *found = find_left(run, c, w);
  if (!found)
    return;
  if (c->failures++ < 5)
    printf("# %s %s: %s: %s is left\n", c->ops->name, c->section, c->what, found);
}

static void run_ctr(struct check *c, const struct work *w) {
  c->ops->ctr(&c->key, w->segs, w->num, NULL);
}

static void run_ctr_pattern(struct check *c, const struct work *w) {
  aes_ctr_pattern(c->ops, &c->key, (struct aes_pattern){5, 5}, w->ivs, &w->lanes);
}

static void run_blocks(struct check *c, const struct work *w) {
  c->ops->ecb_encrypt(&c->key, w->segs[0].dst, w->segs[0].src, 37);
}

static void run_chain_encrypt(struct check *c, const struct work *w) {
  uint8_t iv[16] = {0};
  c->ops->cbc_chain(&c->key, true, iv, w->segs[0].dst, w->segs[0].src, 37);
}

static void run_chain_decrypt(struct check *c, const struct work *w) {
  uint8_t iv[16] = {0};
  c->ops->cbc_chain(&c->key, false, iv, w->segs[0].dst, w->segs[0].src, 37);
}

static void run_cbc_encrypt(struct check *c, const struct work *w) {
  c->ops->cbc_encrypt(&c->key, c->iv, &w->lanes, 1, NULL);
}

static void run_cbc_decrypt(struct check *c, const struct work *w) {
  c->ops->cbc_decrypt(&c->key, c->iv, &w->lanes, 1);
}

static void run_key_init(struct check *c, const struct work *w) {
  (void)w;
  c->ops->key_init(&c->key, c->ref_key.enc[0]);
}

// One that wipes nothing, so that it is known that such a one is found.
ON_THE_STACK static void run_leaving(struct check *c, const struct work *w) {
  (void)w;
  uint8_t zero[11][16], state[11][16], *p = state[0];
  aes_states(c, zero, 3, 0);
  aes_states(c, state, 3, 4);
  for (int i = 0; i < 16; i++)
    state[1][i] ^= zero[1][i];
  __asm__ volatile("" ::"r"(p) : "memory");
}

// ---- Bursts of counters

static void ctr_burst(struct check *c, struct work *w, uint32_t i) {
  static uint32_t sizes[SEGS][SAMPLES];
  static uint8_t ivs[SAMPLES][16];
  size_t at = 0;
  check_fill(c, ivs[0], sizeof ivs);
  w->num = 1 + check_below(c, SEGS);
  forget_secrets();
  for (size_t s = 0; s < w->num; s++) {
    struct aes_ctr_seg *seg = &w->segs[s];
    bool in_place = check_below(c, 2), full = check_below(c, 2);
    *seg = (struct aes_ctr_seg){.src = in_place ? c->dst.p + at : c->src.p + at,
                                .dst = c->dst.p + at,
                                .sizes32 = sizes[s],
                                .num = 1 + check_below(c, SAMPLES),
                                .iv = check_random(c),
                                .ivs = full ? (const uint8_t(*)[16])ivs : NULL};
    for (size_t n = 0; n < seg->num; n++) {
      uint64_t high = full ? load_be64(ivs[n]) : seg->iv + n, low = full ? load_be64(ivs[n] + 8) : 0;
      sizes[s][n] = i % 4 == 0 && n < 2 ? check_below(c, 6000) : check_below(c, i % 4 == 1 ? 40 : 400);
      for (size_t done = 0; done < sizes[s][n] + 48; done += 16, high += ++low == 0) // whole registers are made
        add_counter(c, high, low);
      at += sizes[s][n];
    }
  }
}

// Of a pattern, counters count over the low half.
static void pattern_burst(struct check *c, struct work *w) {
  static struct aes_lane lanes[SAMPLES];
  static uint8_t ivs[SAMPLES][16];
  uint32_t off = 0;
  check_fill(c, ivs[0], sizeof ivs);
  forget_secrets();
  w->ivs = (const uint8_t(*)[16])ivs;
  w->lanes = (struct aes_cbc_seg){c->src.p, c->dst.p, lanes, SAMPLES};
  for (size_t n = 0; n < SAMPLES; n++) {
    lanes[n] = (struct aes_lane){off, check_below(c, 900)};
    off += lanes[n].len;
    for (uint64_t b = 0; b <= lanes[n].len / 32 + 5; b++)
      add_counter(c, load_be64(ivs[n]), load_be64(ivs[n] + 8) + b);
  }
}

void check_stack(struct check *c) {
  static struct work w;
  uint8_t state[11][16], block[16] = {0};
  check_src_writable(c, true);
  check_fill(c, c->src.p, ARENA);

  aes_states(c, state, 0, 0);
  aes_ops_ref.ecb_encrypt(&c->ref_key, block, block, 1);
  c->failures += memcmp(state[10], block, 16) != 0;
  check_describe(c, "an operation that wipes nothing");
  forget_secrets();
  add_counter(c, 3, 4);
  const char *found = find_left(run_leaving, c, &w);
  if (!found) {
    printf("# %s %s: %s is not found\n", c->ops->name, c->section, c->what);
    c->failures++;
  }

  for (uint32_t i = 0; i < 24 && c->failures == 0; i++) {
    ctr_burst(c, &w, i);
    check_describe(c, "ctr burst %u: %zu segments, first of %zu samples", i, w.num, w.segs[0].num);
    check_left(c, run_ctr, &w);
  }
  if (c->failures)
    return;
  pattern_burst(c, &w);
  check_describe(c, "ctr pattern");
  check_left(c, run_ctr_pattern, &w);
  static const struct {
    const char *name;
    work_fn *run;
  } ops[] = {
      {"key schedule", run_key_init},     {"cbc encrypt", run_cbc_encrypt},     {"cbc decrypt", run_cbc_decrypt},
      {"ctr", run_ctr},                   {"chain encrypt", run_chain_encrypt}, {"chain decrypt", run_chain_decrypt},
      {"blocks", run_blocks},
  };
  forget_secrets();
  add_sliced(c->ref_key.enc);
  add_sliced(c->ref_key.dec);
  for (int r = 0; !SPILLS && r < 11; r++) {
    add_secret("a round key", c->ref_key.enc[r]);
    add_secret("a round key", c->ref_key.dec[r]);
  }
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    check_describe(c, "%s", ops[i].name);
    check_left(c, ops[i].run, &w);
  }
}
