// Files that sluice protects, files that are encrypted by hand, and their decryption. A header, so that each file of
// tests/cenc/test_unprotect*.c has its own.
#pragma once

#include <criterion/criterion.h>
#include <openssl/sha.h>
#include <stdlib.h>

#include "cenc/plan.h"
#include "cenc/unprotect.h"
#include "mp4/box.h"
#include "rewrite.h"
#include "synth.h"

enum { MEMORY = 256 << 20, BIG = 16 << 20 };

static const uint8_t key[16] = "sixteen byte key";

static inline const struct aes_ops *ops(void) {
  const char *why;
  return aes_ops_best(NULL, &why);
}

// A synthesised file with its index and what a plan needs. Lives until the test's process ends.
struct made {
  struct synth s;
  struct alloc_heap heap;
  struct track_index ix;
  struct ix_segments segs;
};

static inline void make(struct made *m, const struct synth_options *o, uint8_t flip) {
  struct bytes blob;
  struct diag d = {0};
  struct ix_identity id = {0};
  synth_make(&m->s, o);
  if (flip)
    m->s.file[m->s.samples[0].pos] ^= flip;
  id.size = m->s.len;
  SHA256(m->s.file, m->s.len, id.digest);
  struct bytes file = bytes_of(m->s.file, m->s.len);
  struct mp4_source src = memory_source(&file, m->s.part_ends, m->s.num_parts);
  alloc_heap_init(&m->heap, MEMORY);
  cr_assert_eq(ix_build(&m->heap.base, &blob, &src, &id, &d), ERR_OK, "%s: %s", o->name, d.what);
  cr_assert_eq(ix_open(&m->ix, blob, &d), ERR_OK);
  uint32_t num = ix_segment_count(&m->ix, m->ix.h->timescale);
  uint32_t *first = (uint32_t *)m->heap.base.get(&m->heap.base, ((size_t)num + 1) * sizeof *first);
  ix_segment_fill(&m->ix, m->ix.h->timescale, first);
  m->segs = (struct ix_segments){num, first};
}

static inline void unmake(struct made *m) {
  synth_free(&m->s);
  alloc_heap_free(&m->heap);
}

static inline uint8_t *render_with(struct made *m, enum scheme scheme, bool wide_iv, uint64_t *len) {
  struct plan p;
  struct protection prot = {.scheme = scheme, .kid = {1, 2, 3}, .wide_iv = wide_iv};
  ops()->key_init(&prot.key, key);
  if (scheme == SCHEME_CENC)
    cenc_iv_base(prot.iv, key, m->ix.h->identity.digest, m->ix.h->track_id);
  else
    cbcs_iv(prot.iv, key);
  cr_assert_eq(plan_init(&p, &m->ix, &m->segs, &prot, NULL), ERR_OK);
  uint8_t *out = (uint8_t *)malloc(p.total_len);
  plan_render(&p, ops(), (struct plan_range){0, p.total_len}, bytes_of(m->s.file, m->s.len), 0, out);
  *len = p.total_len;
  return out;
}

static inline uint8_t *render(struct made *m, enum scheme scheme, uint64_t *len) { return render_with(m, scheme, false, len); }

// Encrypted files made by hand: what sluice itself does not write.
struct made_box {
  uint8_t *p;
  size_t n;
};

static inline size_t put(struct made_box *b, const void *p, size_t n) {
  if (n)
    memcpy(b->p + b->n, p, n);
  return (b->n += n) - n;
}

#include "streamed.h"

// The file is a folder's where part_ends is not NULL. In memory and in pieces.
static inline enum err decrypt_parts(uint8_t *out, size_t *len, struct bytes file, const uint64_t *part_ends, uint32_t num_parts,
                              uint8_t first_of_kid, struct diag *d) {
  struct content_key k = {.kid = {first_of_kid, 2, 3}};
  struct alloc_heap heap;
  ops()->key_init(&k.key, key);
  alloc_heap_init(&heap, MEMORY);
  struct unprotect_input in = {.file = file, .part_ends = part_ends, .num_parts = num_parts, .keys = &k, .num_keys = 1, .ops = ops(),
                               .mem = &heap.base};
  struct diag none = {0};
  enum err e = unprotect(out, len, &in, d ? d : (d = &none));
  if (out != file.p) // else the file is gone
    same_streamed(&in, e, bytes_of(out, *len), d);
  alloc_heap_free(&heap);
  return e;
}

static inline enum err decrypt(uint8_t *out, size_t *len, struct bytes file, uint8_t first_of_kid, struct diag *d) {
  return decrypt_parts(out, len, file, NULL, 0, first_of_kid, d);
}

static const struct synth_options small = {.num_frags = 4, .samples_per_trun = 30, .min_size = 1, .max_size = 200, .name = "small"};

static inline size_t put32(struct made_box *b, uint32_t v) {
  uint8_t be[4];
  store_be32(be, v);
  return put(b, be, 4);
}

static inline size_t open_box(struct made_box *b, const char *type) {
  size_t at = put32(b, 0);
  put(b, type, 4);
  return at;
}

static inline void close_box(struct made_box *b, size_t at) { store_be32(b->p + at, (uint32_t)(b->n - at)); }

static inline void put_box(struct made_box *b, const char *type, const void *p, size_t n) {
  size_t at = open_box(b, type);
  put(b, p, n);
  close_box(b, at);
}

enum { HAND_SAMPLES = 4, HAND_SIZE = 48, HAND_MAX = 1 << 14, HAND_MANY_MAX = 1 << 21 };

// The init segment of a rendered file, which has one sample entry.
static inline void put_init(struct made_box *b, enum scheme scheme) {
  struct made m;
  uint64_t len;
  make(&m, &small, 0);
  uint8_t *enc = render(&m, scheme, &len), *moov_end = enc + load_be32(enc) + load_be32(enc + load_be32(enc));
  put(b, enc, (size_t)(moov_end - enc));
  free(enc);
  unmake(&m);
}

struct hand_frag {
  uint32_t many;              // so many samples of one byte; 0: HAND_SAMPLES of HAND_SIZE
  bool absolute;              // base_data_offset, which counts from `start`
  size_t start;
  struct bytes before_trun, after_trun; // boxes of the traf
  size_t saio, saio_at;       // where saio's offset stands in after_trun and what part of it it points at (0: none)
};

// A moof with one trun and its mdat, whose samples hold their number.
static inline void put_hand_frag(struct made_box *b, const struct hand_frag *f) {
  size_t moof = open_box(b, "moof"), traf = open_box(b, "traf"), tfhd = open_box(b, "tfhd");
  put32(b, f->absolute ? 0x11 : 0x20010);
  put32(b, 1);
  size_t base = f->absolute ? put32(b, 0) + 4 : 0;
  if (f->absolute)
    put32(b, 0);
  put32(b, f->many ? 1 : HAND_SIZE);
  close_box(b, tfhd);
  put_box(b, "tfdt", "\1\0\0\0\0\0\0\0\0\0\0", 12);
  put(b, f->before_trun.p, f->before_trun.n);
  size_t trun = open_box(b, "trun");
  put32(b, 1);
  put32(b, f->many ? f->many : HAND_SAMPLES);
  size_t offset = put32(b, 0);
  close_box(b, trun);
  size_t after = put(b, f->after_trun.p, f->after_trun.n);
  if (f->saio)
    store_be32(b->p + after + f->saio, (uint32_t)(after + f->saio_at - moof));
  close_box(b, traf);
  close_box(b, moof);
  size_t mdat = open_box(b, "mdat");
  if (f->absolute)
    store_be32(b->p + base, (uint32_t)(b->n - f->start));
  else
    store_be32(b->p + offset, (uint32_t)(b->n - moof));
  memset(b->p + b->n, 0, f->many);
  b->n += f->many;
  for (uint8_t i = 0; i < HAND_SAMPLES && !f->many; i++)
    memset(b->p + (b->n += HAND_SIZE) - HAND_SIZE, i, HAND_SIZE);
  close_box(b, mdat);
}

// What the samples say after decryption under constant IVs of 0 to 3, one a sample.
static inline void check_hand_data_from(uint8_t first, const uint8_t *data, const char *name) {
  struct content_key k = {.kid = {1, 2, 3}};
  ops()->key_init(&k.key, key);
  for (uint8_t i = first; i < HAND_SAMPLES; i++) {
    uint8_t stream[HAND_SIZE] = {0};
    for (uint8_t n = 0; n < HAND_SIZE / 16; n++) {
      stream[16 * n + 7] = i;
      stream[16 * n + 15] = n;
    }
    ops()->ecb_encrypt(&k.key, stream, stream, HAND_SIZE / 16);
    for (uint32_t n = 0; n < HAND_SIZE; n++)
      cr_assert_eq(data[i * HAND_SIZE + n], stream[n] ^ i, "%s: sample %u, byte %u", name, i, n);
  }
}

static inline void check_hand_data(const uint8_t *data, const char *name) { check_hand_data_from(0, data, name); }

// senc with the 8-byte IVs 0, 1, 2, 3.
#define SENC_OF_FOUR \
  "\0\0\0\x30senc\0\0\0\0\0\0\0\4" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\2" "\0\0\0\0\0\0\0\3"
#define HAND_SENC BYTES_LIT(SENC_OF_FOUR)

// A pair of another type than encryption's, one that names cenc, and one that names nothing; IVs in a box behind them.
#define PAIR_FOREIGN \
  "\0\0\0\x19saiz\0\0\0\1abcd\0\0\0\0\7\0\0\0\4" "\0\0\0\x1csaio\0\0\0\1abcd\0\0\0\0\0\0\0\1\0\0\0\5"
#define PAIR_CENC \
  "\0\0\0\x19saiz\0\0\0\1" "cenc\0\0\0\0\x8\0\0\0\4" "\0\0\0\x1csaio\0\0\0\1" "cenc\0\0\0\0\0\0\0\1\0\0\0\0"
#define PAIR_PLAIN "\0\0\0\x11saiz\0\0\0\0\x8\0\0\0\4" "\0\0\0\x14saio\0\0\0\0\0\0\0\1\0\0\0\0"
#define IVS \
  "\0\0\0\x28uuid" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\2" "\0\0\0\0\0\0\0\3"

enum { FOREIGN_LEN = 53, CENC_LEN = 53, PLAIN_LEN = 37 };

static inline size_t find_box(const struct made_box *b, const char *type) { return (size_t)((uint8_t *)memmem(b->p, b->n, type, 4) - b->p) - 4; }

// Puts bytes in; the boxes around them, the first ones of the types that `up` lists, get their new sizes.
static inline void put_in(struct made_box *b, size_t at, struct bytes put, const char *up) {
  for (; *up; up += up[4] ? 5 : 4) {
    size_t box = find_box(b, (char[5]){up[0], up[1], up[2], up[3]});
    store_be32(b->p + box, load_be32(b->p + box) + (uint32_t)put.n);
  }
  memmove(b->p + at + put.n, b->p + at, b->n - at);
  memcpy(b->p + at, put.p, put.n);
  b->n += put.n;
}
