// sample_decrypt against the four schemes written down plainly: every block by itself, with the reference's block function.
#include <criterion/criterion.h>
#include <stdlib.h>

#include "cenc/unprotect_parts.h"
#include "handmade.h"

enum { KEYS = 2, MAX_SUBS = 5, MAX_LEN = 3000, SAMPLES = 400, ROUNDS = 5 };

struct made_sample {
  struct sample_crypt c;
  struct tenc tenc;
  uint8_t subs[6 * MAX_SUBS];
  uint32_t len;
  size_t at;
};

static const struct aes_ops *ops(void) {
  const char *why;
  return aes_ops_best(NULL, &why);
}

static void block(const struct aes_key *key, uint8_t b[16]) { ops()->ecb_encrypt(key, b, b, 1); }

// What carries over from one protected range of a sample to the next.
struct state {
  uint64_t bytes, counter; // cenc: protected bytes so far; cens: blocks
  uint8_t chain[16];       // cbc1
  uint8_t stream[16];      // of the newest block
};

static void ctr_block(const struct sample_crypt *c, uint8_t b[16], uint64_t counter) {
  memcpy(b, c->iv, 8);
  store_be64(b + 8, load_be64(c->iv + 8) + counter);
  block(c->key, b);
}

static void cbc_block(const struct sample_crypt *c, uint8_t chain[16], uint8_t *p) {
  for (int k = 0; k < 16; k++)
    p[k] ^= chain[k];
  block(c->key, p);
  memcpy(chain, p, 16);
}

// Source: ISO/IEC 23001-7 §10.1 to §10.4, §9.6 (patterns).
static void encrypt_range(const struct sample_crypt *c, struct state *s, uint8_t *p, uint32_t len) {
  struct aes_pattern pattern = c->tenc->pattern;
  uint8_t chain[16];
  memcpy(chain, c->iv, 16);
  if (c->scheme == FOURCC('c', 'e', 'n', 'c')) {
    for (uint32_t i = 0; i < len; i++, s->bytes++) {
      if (s->bytes % 16 == 0)
        ctr_block(c, s->stream, s->bytes / 16);
      p[i] ^= s->stream[s->bytes % 16];
    }
    return;
  }
  for (uint32_t n = 0; n < len / 16; n++, p += 16) {
    bool crypt = !pattern.skip || n % ((uint32_t)pattern.crypt + pattern.skip) < pattern.crypt;
    if (c->scheme == FOURCC('c', 'b', 'c', '1')) {
      cbc_block(c, s->chain, p);
    } else if (crypt && c->scheme == FOURCC('c', 'b', 'c', 's')) {
      cbc_block(c, chain, p);
    } else if (crypt) {
      ctr_block(c, s->stream, s->counter++);
      for (uint32_t i = 0; i < 16; i++)
        p[i] ^= s->stream[i];
    }
  }
}

static void encrypt(const struct made_sample *m, uint8_t *p) {
  struct state s = {0};
  memcpy(s.chain, m->c.iv, 16);
  if (!m->c.num_subs)
    encrypt_range(&m->c, &s, p, m->len);
  for (uint32_t i = 0; i < m->c.num_subs; i++) {
    p += load_be16(m->subs + 6 * i);
    encrypt_range(&m->c, &s, p, load_be32(m->subs + 6 * i + 2));
    p += load_be32(m->subs + 6 * i + 2);
  }
}

static void make_sample(struct made_sample *m, uint64_t *rng, const struct aes_key *keys) {
  static const uint32_t schemes[] = {FOURCC('c', 'e', 'n', 'c'), FOURCC('c', 'e', 'n', 's'), FOURCC('c', 'b', 'c', '1'), FOURCC('c', 'b', 'c', 's')};
  *m = (struct made_sample){.c = {.scheme = schemes[rng_below(rng, 2) ? (rng_below(rng, 2) ? 3 : 0) : rng_below(rng, 4)]}};
  m->c.key = &keys[rng_below(rng, 8) == 0];
  bool pattern = m->c.scheme == schemes[1] || m->c.scheme == schemes[3];
  if (pattern && rng_below(rng, 4) == 0)
    m->tenc.pattern = (struct aes_pattern){(uint8_t)(1 + rng_below(rng, 3)), (uint8_t)(1 + rng_below(rng, 9))};
  if (rng_below(rng, 3) == 0)
    for (int i = 0; i < 16; i++)
      m->c.iv[i] = (uint8_t)rng_next(rng);
  if (rng_below(rng, 8) == 0)
    memset(m->c.iv + 8, 255, 8); // the counter wraps
  m->c.num_subs = rng_below(rng, 3) ? 0 : 1 + rng_below(rng, MAX_SUBS);
  if (!m->c.num_subs)
    m->len = rng_below(rng, rng_below(rng, 4) ? 200 : MAX_LEN);
  for (uint32_t i = 0; i < m->c.num_subs; i++) {
    uint32_t clear = rng_below(rng, 3) ? rng_below(rng, 50) : 0, covered = rng_below(rng, 4) ? rng_below(rng, 600) : 0;
    store_be16(m->subs + 6 * i, (uint16_t)clear);
    store_be32(m->subs + 6 * i + 2, covered);
    m->len += clear + covered;
  }
}

// Samples of all kinds one after the other, back to back or not: what waits in a batch must not meet what does not belong there.
Test(samples, every_scheme_by_the_book) {
  struct aes_key keys[KEYS];
  static struct made_sample samples[SAMPLES];
  static struct batch batch;
  uint8_t *clear = malloc(SAMPLES * (MAX_LEN + 4000)), *in = malloc(SAMPLES * (MAX_LEN + 4000)), *out = malloc(SAMPLES * (MAX_LEN + 4000));
  uint64_t rng = 5;
  ops()->key_init(&keys[0], (const uint8_t *)"sixteen byte key");
  ops()->key_init(&keys[1], (const uint8_t *)"another of those");
  for (int round = 0; round < ROUNDS; round++) {
    size_t at = 0;
    for (int i = 0; i < SAMPLES; i++) {
      struct made_sample *m = &samples[i];
      make_sample(m, &rng, keys);
      m->c.tenc = &m->tenc;
      m->c.subs = m->subs;
      at += rng_below(&rng, 6) ? 0 : rng_below(&rng, 40);
      m->at = at;
      at += m->len;
    }
    for (size_t i = 0; i < at; i++)
      in[i] = clear[i] = (uint8_t)rng_next(&rng);
    for (int i = 0; i < SAMPLES; i++)
      encrypt(&samples[i], in + samples[i].at);
    memcpy(out, in, at);
    for (int i = 0; i < SAMPLES; i++)
      cr_assert_eq(sample_decrypt(&batch, ops(), out + samples[i].at, samples[i].len, &samples[i].c), ERR_OK);
    batch_flush(&batch, ops());
    for (int i = 0; i < SAMPLES; i++)
      cr_assert(!memcmp(out + samples[i].at, clear + samples[i].at, samples[i].len), "round %d, sample %d", round, i);
  }
  free(clear), free(in), free(out);
}

Test(samples, subsamples_that_do_not_add_up) {
  static struct batch batch;
  struct aes_key key;
  struct tenc tenc = {0};
  uint8_t data[64] = {0};
  ops()->key_init(&key, (const uint8_t *)"sixteen byte key");
  for (uint32_t covered = 31; covered <= 33; covered++) {
    uint8_t subs[6] = {0, 16};
    store_be32(subs + 2, covered);
    struct sample_crypt c = {.scheme = FOURCC('c', 'e', 'n', 'c'), .tenc = &tenc, .key = &key, .num_subs = 1, .subs = subs};
    cr_expect_eq(sample_decrypt(&batch, ops(), data, 48, &c), covered == 32 ? ERR_OK : ERR_MALFORMED, "%u", covered);
  }
}

// tenc in its versions, and what it may not say. Source: ISO/IEC 23001-7 §8.2.
Test(samples, tenc) {
#define KID "kkkkkkkkkkkkkkkk"
#define IV "iiiiiiiiiiiiiiii"
  static const struct {
    struct bytes body;
    enum err want;
    uint8_t iv_len, const_iv_len, crypt, skip;
    bool protected;
  } rows[] = {
      {BYTES_LIT("\0\0\0\0\0\x19\1\x8" KID), ERR_OK, 8, 0, 0, 0, true}, // version 0 has no pattern
      {BYTES_LIT("\1\0\0\0\0\x19\1\x10" KID), ERR_OK, 16, 0, 1, 9, true},
      {BYTES_LIT("\1\0\0\0\0\0\1\0" KID "\x10" IV), ERR_OK, 0, 16, 0, 0, true},
      {BYTES_LIT("\1\0\0\0\0\0\1\0" KID "\x8iiiiiiii"), ERR_OK, 0, 8, 0, 0, true},
      {BYTES_LIT("\0\0\0\0\0\0\0\0" KID), ERR_OK, 0, 0, 0, 0, false},
      {BYTES_LIT("\0\0\0\0\0\0\2\x8" KID), ERR_MALFORMED, 0, 0, 0, 0, false},
      {BYTES_LIT("\0\0\0\0\0\0\1\x9" KID), ERR_MALFORMED, 0, 0, 0, 0, false},
      {BYTES_LIT("\1\0\0\0\0\0\1\0" KID "\0"), ERR_MALFORMED, 0, 0, 0, 0, false},
      {BYTES_LIT("\1\0\0\0\0\0\1\0" KID "\x9" IV), ERR_MALFORMED, 0, 0, 0, 0, false},
      {BYTES_LIT("\1\0\0\0\0\0\1\0" KID "\x18" IV IV), ERR_MALFORMED, 0, 0, 0, 0, false},
      {BYTES_LIT("\1\0\0\0\0\0\1\0" KID "\x10iii"), ERR_TRUNCATED, 0, 0, 0, 0, false},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct tenc t = {0};
    struct reader r = rd_of(rows[i].body);
    cr_expect_eq(tenc_read(&t, &r, false), rows[i].want, "row %zu", i);
    cr_expect(t.iv_len == rows[i].iv_len && t.const_iv_len == rows[i].const_iv_len && t.pattern.crypt == rows[i].crypt &&
                  t.pattern.skip == rows[i].skip && t.protected == rows[i].protected,
              "row %zu", i);
  }
}
