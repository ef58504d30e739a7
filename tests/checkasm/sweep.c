// Sweeps: every length × every alignment × in place and not.
//
// The reference works once per operation: all of these ciphers transform a prefix of a text into the prefix of its
// result, so the result for the longest text gives the expectation for each length.
#include "checkasm/checkasm.h"

// Lays `text`, n bytes, where the kernel will read it: in the source or, in place, in the destination.
static void place(struct check *c, bool in_place, size_t src_at, size_t dst_at, const uint8_t *text, size_t n) {
  check_canary(c, dst_at, n);
  if (in_place) {
    memcpy(c->dst.p + dst_at, text, n);
    return;
  }
  memcpy(c->src.p + src_at, text, n);
}

// Where a text of n bytes goes: `how` 0-63 is an alignment, 64 directly behind the page before, 65 directly before
// the page after.
enum { FRONT = 64, BACK = 65, NUM_PLACES = 66 };

static size_t position(unsigned how, size_t n) {
  return how == FRONT ? 0 : how == BACK ? ARENA - n : 4096 + how;
}

typedef void run_fn(struct check *c, uint8_t *dst, const uint8_t *src, size_t n);

// `full` is the expected result for the whole text; of the trailing n % unit bytes the text itself is expected.
static void sweep(struct check *c, run_fn *run, const uint8_t *full, unsigned unit, size_t step) {
  for (unsigned how = 0; how < NUM_PLACES; how += how < FRONT ? c->align_step : 1)
    for (unsigned in_place = 0; in_place < 2; in_place++)
      for (size_t n = 0; n <= LONGEST; n += step * (how < FRONT ? c->len_step : 1)) {
        // source and destination aligned differently, except at the guard pages
        size_t dst_at = position(how, n), src_at = how < FRONT ? position((how + (unsigned)n) % 64, n) : dst_at;
        check_describe(c, "%zu bytes, place %u, source at %zu%s", n, how, src_at, in_place ? ", in place" : "");
        place(c, in_place, src_at, dst_at, c->text, n);
        size_t whole = n - n % unit;
        memcpy(c->want.p + dst_at, full, whole);
        memcpy(c->want.p + dst_at + whole, c->text + whole, n - whole);
        run(c, c->dst.p + dst_at, in_place ? c->dst.p + dst_at : c->src.p + src_at, n);
        if (!check_same(c, dst_at, n))
          return;
        if (!in_place && memcmp(c->src.p + src_at, c->text, n) != 0) {
          c->failures++;
          return;
        }
      }
}

static void run_encrypt(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  struct aes_lane lane = {0, (uint32_t)n};
  struct aes_cbc_seg seg = {src, dst, &lane, 1};
  c->ops->cbc_encrypt(&c->key, c->iv, &seg, 1, NULL);
}

static void run_decrypt(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  struct aes_lane lane = {0, (uint32_t)n};
  struct aes_cbc_seg seg = {src, dst, &lane, 1};
  c->ops->cbc_decrypt(&c->key, c->iv, &seg, 1);
}

void check_cbc_encrypt(struct check *c) {
  uint8_t full[LONGEST], iv[16];
  memcpy(iv, c->iv, 16);
  aes_ops_ref.cbc_chain(&c->ref_key, true, iv, full, c->text, LONGEST / 16);
  sweep(c, run_encrypt, full, 16, 1);
}

void check_cbc_decrypt(struct check *c) {
  uint8_t full[LONGEST], iv[16];
  memcpy(iv, c->iv, 16);
  aes_ops_ref.cbc_chain(&c->ref_key, false, iv, full, c->text, LONGEST / 16);
  sweep(c, run_decrypt, full, 16, 1);
}

static const uint8_t counter[1][16] = {
    // the low half and, in 128-bit counting, the whole block roll over on the way
    {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80},
};

static void run_ctr(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  uint32_t size = (uint32_t)n;
  struct aes_ctr_seg seg = {.src = src, .dst = dst, .sizes32 = &size, .num = 1, .ivs = counter};
  c->ops->ctr(&c->key, &seg, 1, NULL);
}

static void run_ctr64(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  uint16_t size = (uint16_t)n;
  struct aes_ctr_seg seg = {.src = src, .dst = dst, .sizes16 = &size, .num = 1, .iv = UINT64_C(0x0102030405060708)};
  c->ops->ctr(&c->key, &seg, 1, NULL);
}

void check_ctr(struct check *c) {
  uint8_t full[LONGEST];
  uint32_t size = LONGEST;
  struct aes_ctr_seg seg = {.src = c->text, .dst = full, .sizes32 = &size, .num = 1, .ivs = counter};
  aes_ops_ref.ctr(&c->ref_key, &seg, 1, NULL);
  sweep(c, run_ctr, full, 1, 1);
  seg.ivs = NULL;
  seg.iv = UINT64_C(0x0102030405060708);
  aes_ops_ref.ctr(&c->ref_key, &seg, 1, NULL);
  sweep(c, run_ctr64, full, 1, 1);
}

static struct aes_pattern pattern;
static const struct aes_pattern patterns[] = {{1, 9}, {5, 5}, {1, 1}, {9, 1}, {0, 0}, {1, 0}, {10, 0}, {2, 13}};
enum { NUM_PATTERNS = sizeof patterns / sizeof *patterns };

static void run_pattern_encrypt(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  struct aes_lane lane = {0, (uint32_t)n};
  struct aes_cbc_seg seg = {src, dst, &lane, 1};
  aes_cbc_pattern(c->ops, &c->key, true, pattern, c->iv, &seg);
}

static void run_pattern_decrypt(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  struct aes_lane lane = {0, (uint32_t)n};
  struct aes_cbc_seg seg = {src, dst, &lane, 1};
  aes_cbc_pattern(c->ops, &c->key, false, pattern, c->iv, &seg);
}

static void run_pattern_ctr(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  struct aes_lane lane = {0, (uint32_t)n};
  struct aes_cbc_seg seg = {src, dst, &lane, 1};
  aes_ctr_pattern(c->ops, &c->key, pattern, counter, &seg);
}

// What a pattern does, block by block, as the standard tells it.
static void expect_pattern(struct check *c, uint8_t *full, struct aes_pattern p, int op) {
  uint8_t iv[16], count[16], zero[16] = {0};
  memcpy(iv, c->iv, 16);
  memcpy(count, counter[0], 16);
  unsigned cycle = p.skip ? p.crypt + p.skip : 1, crypt = p.skip ? p.crypt : 1;
  for (unsigned b = 0; b < LONGEST / 16; b++) {
    uint8_t *out = full + 16 * b;
    const uint8_t *in = c->text + 16 * b;
    if (b % cycle >= crypt) {
      memcpy(out, in, 16);
    } else if (op < 2) {
      aes_ops_ref.cbc_chain(&c->ref_key, op == 0, iv, out, in, 1);
    } else {
      uint8_t chain[16], key[16];
      memcpy(chain, count, 16);
      aes_ops_ref.cbc_chain(&c->ref_key, true, chain, key, zero, 1);
      for (int i = 0; i < 16; i++)
        out[i] = in[i] ^ key[i];
      store_be64(count + 8, load_be64(count + 8) + 1);
    }
  }
}

// Patterns are runs of chain and ctr in one C file: every length, at every seventh alignment.
static void sweep_pattern(struct check *c, run_fn *run, const uint8_t *full) {
  unsigned all = c->align_step;
  c->align_step = all < 7 ? 7 : all;
  sweep(c, run, full, 16, 1);
  c->align_step = all;
}

void check_cbc_pattern(struct check *c) {
  uint8_t full[LONGEST];
  for (size_t i = 0; i < NUM_PATTERNS; i++) {
    pattern = patterns[i];
    expect_pattern(c, full, pattern, 0);
    sweep_pattern(c, run_pattern_encrypt, full);
    expect_pattern(c, full, pattern, 1);
    sweep_pattern(c, run_pattern_decrypt, full);
  }
}

void check_ctr_pattern(struct check *c) {
  uint8_t full[LONGEST];
  for (size_t i = 0; i < NUM_PATTERNS; i++) {
    pattern = patterns[i];
    expect_pattern(c, full, pattern, 2);
    sweep_pattern(c, run_pattern_ctr, full);
  }
}

static uint8_t chain_iv[16];

static void run_chain_encrypt(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  memcpy(chain_iv, c->iv, 16);
  size_t half = n / 32;
  c->ops->cbc_chain(&c->key, true, chain_iv, dst, src, half);
  c->ops->cbc_chain(&c->key, true, chain_iv, dst + 16 * half, src + 16 * half, n / 16 - half);
}

static void run_chain_decrypt(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  memcpy(chain_iv, c->iv, 16);
  size_t half = n / 32;
  c->ops->cbc_chain(&c->key, false, chain_iv, dst, src, half);
  c->ops->cbc_chain(&c->key, false, chain_iv, dst + 16 * half, src + 16 * half, n / 16 - half);
}

static void run_blocks(struct check *c, uint8_t *dst, const uint8_t *src, size_t n) {
  c->ops->ecb_encrypt(&c->key, dst, src, n / 16);
}

void check_chain(struct check *c) {
  uint8_t full[LONGEST], iv[16];
  memcpy(iv, c->iv, 16);
  aes_ops_ref.cbc_chain(&c->ref_key, true, iv, full, c->text, LONGEST / 16);
  sweep(c, run_chain_encrypt, full, 16, 16);
  memcpy(iv, c->iv, 16);
  aes_ops_ref.cbc_chain(&c->ref_key, false, iv, full, c->text, LONGEST / 16);
  sweep(c, run_chain_decrypt, full, 16, 16);
  for (size_t b = 0; b < LONGEST / 16; b++) { // a block alone is a chain from zero
    memset(iv, 0, 16);
    aes_ops_ref.cbc_chain(&c->ref_key, true, iv, full + 16 * b, c->text + 16 * b, 1);
  }
  sweep(c, run_blocks, full, 16, 16);
}
