// Protect and take the protection off again, over every structure that the synthesiser knows; and counter blocks.
#include <criterion/criterion.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

#include "cenc/plan.h"
#include "cenc/unprotect.h"
#include "mp4/box.h"
#include "rewrite.h"
#include "synth.h"

enum { MEMORY = 256 << 20, BIG = 16 << 20 };

static const uint8_t key[16] = "sixteen byte key";

static const struct aes_ops *ops(void) {
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

static void make(struct made *m, const struct synth_options *o, uint8_t flip) {
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

static void unmake(struct made *m) {
  synth_free(&m->s);
  alloc_heap_free(&m->heap);
}

static uint8_t *render_with(struct made *m, enum scheme scheme, bool wide_iv, uint64_t *len) {
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

static uint8_t *render(struct made *m, enum scheme scheme, uint64_t *len) { return render_with(m, scheme, false, len); }

// The file is a folder's where part_ends is not NULL.
static enum err decrypt_parts(uint8_t *out, size_t *len, struct bytes file, const uint64_t *part_ends, uint32_t num_parts,
                              uint8_t first_of_kid, struct diag *d) {
  struct content_key k = {.kid = {first_of_kid, 2, 3}};
  struct alloc_heap heap;
  ops()->key_init(&k.key, key);
  alloc_heap_init(&heap, MEMORY);
  struct unprotect_input in = {.file = file, .part_ends = part_ends, .num_parts = num_parts, .keys = &k, .num_keys = 1, .ops = ops(),
                               .mem = &heap.base};
  enum err e = unprotect(out, len, &in, d);
  alloc_heap_free(&heap);
  return e;
}

static enum err decrypt(uint8_t *out, size_t *len, struct bytes file, uint8_t first_of_kid, struct diag *d) {
  return decrypt_parts(out, len, file, NULL, 0, first_of_kid, d);
}

Test(unprotect, every_structure_comes_back) {
  for (const struct synth_options *o = synth_presets; o->name; o++) {
    struct made m;
    uint64_t clear_len, len;
    make(&m, o, 0);
    if (m.s.len > BIG) {
      unmake(&m);
      continue;
    }
    uint8_t *clear = render(&m, SCHEME_CLEAR, &clear_len);
    for (int n = SCHEME_CENC; n <= SCHEME_COUNT; n++) { // the last is cenc with 16-byte IVs
      int s = n < SCHEME_COUNT ? n : SCHEME_CENC;
      uint8_t *enc = render_with(&m, (enum scheme)s, n == SCHEME_COUNT, &len), *out = (uint8_t *)malloc(len);
      size_t out_len = 0;
      struct diag d = {0};
      cr_assert_eq(decrypt(out, &out_len, bytes_of(enc, len), 1, &d), ERR_OK, "%s: %s", o->name, d.what);
      cr_assert_eq(out_len, clear_len, "%s", o->name);
      cr_assert_eq(memcmp(out, clear, out_len), 0, "%s %s", o->name, scheme_name((enum scheme)s));
      cr_assert(!memmem(enc, len, "abcd", 4), "%s: offsets that did not follow", o->name);
      out_len = 0;
      cr_assert_eq(decrypt(enc, &out_len, bytes_of(enc, len), 1, &d), ERR_OK, "%s: %s", o->name, d.what);
      cr_assert(out_len == clear_len && memcmp(enc, clear, out_len) == 0, "%s %s: over its input", o->name, scheme_name((enum scheme)s));
      free(enc), free(out);
    }
    free(clear);
    unmake(&m);
  }
}

static const struct synth_options small = {.num_frags = 4, .samples_per_trun = 30, .min_size = 1, .max_size = 200, .name = "small"};

Test(unprotect, refuses) {
  struct made m;
  uint64_t len;
  size_t out_len = 77;
  struct diag d = {0};
  make(&m, &small, 0);
  uint8_t *enc = render(&m, SCHEME_CENC, &len), *out = (uint8_t *)malloc(len);
  cr_assert_eq(decrypt(out, &out_len, bytes_of(enc, len), 9, &d), ERR_NO_KEY);
  cr_assert_str_eq(d.what, "no key for KID 01020300000000000000000000000000");
  cr_assert_eq(decrypt(out, &out_len, bytes_of(m.s.file, m.s.len), 1, NULL), ERR_NOT_PROTECTED);
  cr_assert_eq(decrypt(out, &out_len, bytes_of(enc, m.s.init_len / 2), 1, NULL), ERR_TRUNCATED);
  cr_assert_eq(decrypt(out, &out_len, bytes_of(enc, 0), 1, NULL), ERR_MISSING);
  cr_assert_eq(out_len, 77);
  // An unknown scheme.
  uint8_t *schm = (uint8_t *)memmem(enc, len, "schm", 4);
  memcpy(schm + 8, "sve1", 4);
  cr_assert_eq(decrypt(out, &out_len, bytes_of(enc, len), 1, NULL), ERR_UNSUPPORTED);
  free(enc), free(out);
  unmake(&m);
}

// Every truncation of a file: an error or a prefix, never more bytes than went in, never a crash.
Test(unprotect, truncations) {
  struct made m;
  uint64_t len;
  make(&m, &small, 0);
  uint8_t *enc = render(&m, SCHEME_CBCS, &len), *out = (uint8_t *)malloc(len);
  for (uint64_t n = 0; n < len; n += 1 + n / 200) {
    uint8_t *exact = (uint8_t *)malloc(n ? n : 1);
    size_t out_len = 0;
    memcpy(exact, enc, n);
    struct diag d = {0};
    enum err e = decrypt(out, &out_len, bytes_of(exact, n), 1, &d);
    cr_assert(e ? d.err == e && out_len == 0 : out_len <= n, "%zu", (size_t)n);
    free(exact);
  }
  free(enc), free(out);
  unmake(&m);
}

// Counter blocks: under one key, an IV belongs to one sample of one state of one file. Blocks within a sample count from 0
// and a sample is shorter than 2^64 blocks, so distinct IVs are distinct counter blocks.
struct ivs {
  uint64_t *iv;
  size_t num, cap;
};

static void collect(struct ivs *all, struct bytes body) {
  struct reader r = rd_of(body);
  struct box b;
  while (box_next(&b, &r) == ERR_OK && b.len) {
    if (b.type == FOURCC('m', 'o', 'o', 'f') || b.type == FOURCC('t', 'r', 'a', 'f')) {
      collect(all, b.body);
    } else if (b.type == FOURCC('s', 'e', 'n', 'c')) {
      uint32_t num = load_be32(b.body.p + 4);
      cr_assert_eq(b.body.n, 8 + 8 * (size_t)num);
      for (uint32_t i = 0; i < num; i++) {
        cr_assert_lt(all->num, all->cap);
        all->iv[all->num++] = load_be64(b.body.p + 8 + 8 * (size_t)i);
      }
    }
  }
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

Test(counters, no_iv_twice_under_one_key) {
  // Renditions of one asset share its key; each is replaced in place a few times, by one bit each time.
  enum { RENDITIONS = 4, VERSIONS = 8, CAP = 1 << 18 };
  struct ivs all = {.iv = (uint64_t *)malloc(CAP * sizeof(uint64_t)), .cap = CAP};
  size_t samples = 0;
  for (uint32_t r = 0; r < RENDITIONS; r++)
    for (uint8_t v = 0; v < VERSIONS; v++) {
      struct synth_options o = small;
      struct made m;
      uint64_t len;
      o.num_frags = 40;
      o.max_size = 100 * (r + 1);
      make(&m, &o, (uint8_t)(v ? 1 << v : 0));
      uint8_t *enc = render(&m, SCHEME_CENC, &len);
      collect(&all, bytes_of(enc, len));
      samples += m.ix.h->num_samples;
      free(enc);
      unmake(&m);
    }
  cr_assert_eq(all.num, samples);
  qsort(all.iv, all.num, sizeof *all.iv, by_value);
  for (size_t i = 1; i < all.num; i++)
    cr_assert_neq(all.iv[i - 1], all.iv[i], "one IV for two samples");
  free(all.iv);
}

Test(counters, iv_depends_on_key_digest_and_track) {
  uint8_t digest[32] = {1}, other_key[16] = {9}, a[8], b[8];
  cenc_iv_base(a, key, digest, 1);
  cenc_iv_base(b, key, digest, 2);
  cr_assert_arr_neq(a, b, 8);
  cenc_iv_base(b, other_key, digest, 1);
  cr_assert_arr_neq(a, b, 8);
  digest[31] ^= 1;
  cenc_iv_base(b, key, digest, 1);
  cr_assert_arr_neq(a, b, 8);
}

// Encrypted files made by hand: what sluice itself does not write.
struct made_box {
  uint8_t *p;
  size_t n;
};

static size_t put(struct made_box *b, const void *p, size_t n) {
  if (n)
    memcpy(b->p + b->n, p, n);
  return (b->n += n) - n;
}

static size_t put32(struct made_box *b, uint32_t v) {
  uint8_t be[4];
  store_be32(be, v);
  return put(b, be, 4);
}

static size_t open_box(struct made_box *b, const char *type) {
  size_t at = put32(b, 0);
  put(b, type, 4);
  return at;
}

static void close_box(struct made_box *b, size_t at) { store_be32(b->p + at, (uint32_t)(b->n - at)); }

static void put_box(struct made_box *b, const char *type, const void *p, size_t n) {
  size_t at = open_box(b, type);
  put(b, p, n);
  close_box(b, at);
}

enum { HAND_SAMPLES = 4, HAND_SIZE = 48, HAND_MAX = 1 << 14, HAND_MANY_MAX = 1 << 21 };

// The init segment of a rendered file, which has one sample entry.
static void put_init(struct made_box *b, enum scheme scheme) {
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
static void put_hand_frag(struct made_box *b, const struct hand_frag *f) {
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
static void check_hand_data_from(uint8_t first, const uint8_t *data, const char *name) {
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

static void check_hand_data(const uint8_t *data, const char *name) { check_hand_data_from(0, data, name); }

// senc with the 8-byte IVs 0, 1, 2, 3.
#define SENC_OF_FOUR \
  "\0\0\0\x30senc\0\0\0\0\0\0\0\4" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\2" "\0\0\0\0\0\0\0\3"
#define HAND_SENC BYTES_LIT(SENC_OF_FOUR)

Test(unprotect, absolute_offsets_count_from_their_file) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  uint64_t ends[3];
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  ends[0] = b.n;
  for (int i = 1; i < 3; i++) {
    put_hand_frag(&b, &(struct hand_frag){.absolute = true, .start = b.n, .after_trun = HAND_SENC});
    ends[i] = b.n;
  }
  cr_assert_eq(decrypt_parts(out, &len, bytes_of(b.p, b.n), ends, 3, 1, &d), ERR_OK, "%s", d.what);
  // One file comes out: there the offsets count from its start.
  const uint8_t *p = out;
  for (int i = 0; i < 2; i++) {
    p = (const uint8_t *)memmem(p, len - (size_t)(p - out), "tfhd", 4);
    cr_assert_not_null(p);
    check_hand_data(out + load_be64(p + 12), "folder");
    p += 4;
  }
  free(b.p), free(out);
}

// A pair of another type than encryption's, one that names cenc, and one that names nothing; IVs in a box behind them.
#define PAIR_FOREIGN \
  "\0\0\0\x19saiz\0\0\0\1abcd\0\0\0\0\7\0\0\0\4" "\0\0\0\x1csaio\0\0\0\1abcd\0\0\0\0\0\0\0\1\0\0\0\5"
#define PAIR_CENC \
  "\0\0\0\x19saiz\0\0\0\1" "cenc\0\0\0\0\x8\0\0\0\4" "\0\0\0\x1csaio\0\0\0\1" "cenc\0\0\0\0\0\0\0\1\0\0\0\0"
#define PAIR_PLAIN "\0\0\0\x11saiz\0\0\0\0\x8\0\0\0\4" "\0\0\0\x14saio\0\0\0\0\0\0\0\1\0\0\0\0"
#define IVS \
  "\0\0\0\x28uuid" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\2" "\0\0\0\0\0\0\0\3"

enum { FOREIGN_LEN = 53, CENC_LEN = 53, PLAIN_LEN = 37 };

Test(unprotect, auxiliary_information_of_other_kinds) {
  const struct {
    const char *name;
    enum scheme scheme;
    struct bytes boxes;
    size_t saio, saio_at;
  } rows[] = {
      {"none, constant IV", SCHEME_CBCS, {0}, 0, 0},
      {"foreign only, constant IV", SCHEME_CBCS, BYTES_LIT(PAIR_FOREIGN), 0, 0},
      {"foreign, then cenc", SCHEME_CENC, BYTES_LIT(PAIR_FOREIGN PAIR_CENC IVS), FOREIGN_LEN + 49, FOREIGN_LEN + CENC_LEN + 8},
      {"cenc, then foreign", SCHEME_CENC, BYTES_LIT(PAIR_CENC PAIR_FOREIGN IVS), 49, FOREIGN_LEN + CENC_LEN + 8},
      {"a uuid that begins like PIFF's", SCHEME_CENC,
       BYTES_LIT(PAIR_CENC IVS "\0\0\0\x20uuid\xa2\x39\x4f\x52\1\2\3\4\5\6\7\1\2\3\4\5" "\0\0\0\0\0\0\0\4"), 49, CENC_LEN + 8},
      {"unnamed, then foreign", SCHEME_CENC, BYTES_LIT(PAIR_PLAIN PAIR_FOREIGN IVS), 33, FOREIGN_LEN + PLAIN_LEN + 8},
  };
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX), first[HAND_SAMPLES * HAND_SIZE];
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, rows[i].scheme);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = rows[i].boxes, .saio = rows[i].saio, .saio_at = rows[i].saio_at});
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s: %s", rows[i].name, d.what);
    cr_assert(!memmem(out, len, "saio", 4) && !memmem(out, len, "saiz", 4), "%s: offsets that did not follow", rows[i].name);
    const uint8_t *data = (const uint8_t *)memmem(out, len, "mdat", 4) + 4;
    if (rows[i].scheme == SCHEME_CENC)
      check_hand_data(data, rows[i].name);
    else if (i == 0)
      memcpy(first, data, sizeof first);
    else
      cr_assert_arr_eq(data, first, sizeof first, "%s", rows[i].name);
  }
  free(in), free(out);
}

// seig descriptions of 20 bytes: clear, and protected with the IVs of senc (which there is none of here).
#define SEIG_CLEAR "\0\0\0\0\1\2\3\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define SEIG_SENC "\0\0\1\x8\1\2\3\0\0\0\0\0\0\0\0\0\0\0\0\0"

// Which of the four samples of a cbcs track are clear, by the groups of a traf.
Test(unprotect, groups_of_every_version) {
  static const struct {
    const char *name, *clear;
    struct bytes boxes;
  } rows[] = {
      {"version 0", "1100",
       BYTES_LIT("\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" SEIG_CLEAR "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\2\0\1\0\1")},
      {"version 1, one length", "0110",
       BYTES_LIT("\0\0\0\x40sgpd\1\0\0\0seig\0\0\0\x14\0\0\0\2" SEIG_SENC SEIG_CLEAR
                 "\0\0\0\x24sbgp\0\0\0\0seig\0\0\0\2\0\0\0\1\0\0\0\0\0\0\0\2\0\1\0\2")},
      {"version 1, each its length", "1000",
       BYTES_LIT("\0\0\0\x48sgpd\1\0\0\0seig\0\0\0\0\0\0\0\2\0\0\0\x14" SEIG_SENC "\0\0\0\x14" SEIG_CLEAR
                 "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\1\0\1\0\2")},
      {"version 0, sbgp version 1", "1110",
       BYTES_LIT("\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" SEIG_CLEAR "\0\0\0\x20sbgp\1\0\0\0seig\0\0\0\0\0\0\0\1\0\0\0\3\0\1\0\1")},
      {"version 2, no sbgp, no default", "0000",
       BYTES_LIT("\0\0\0\x30sgpd\2\0\0\0seig\0\0\0\x14\0\0\0\0\0\0\0\1" SEIG_CLEAR)},
      {"version 2, a default", "1111",
       BYTES_LIT("\0\0\0\x30sgpd\2\0\0\0seig\0\0\0\x14\0\0\0\1\0\0\0\1" SEIG_CLEAR)},
      {"version 2, a default behind sbgp", "0011",
       BYTES_LIT("\0\0\0\x30sgpd\2\0\0\0seig\0\0\0\x14\0\0\0\1\0\0\0\1" SEIG_CLEAR
                 "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\2\0\0\0\0")},
      {"version 2, each its length", "0100",
       BYTES_LIT("\0\0\0\x4csgpd\2\0\0\0seig\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0\x14" SEIG_SENC "\0\0\0\x14" SEIG_CLEAR
                 "\0\0\0\x24sbgp\0\0\0\0seig\0\0\0\2\0\0\0\1\0\0\0\0\0\0\0\1\0\1\0\2")},
  };
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CBCS);
    put_hand_frag(&b, &(struct hand_frag){.before_trun = rows[i].boxes});
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s: %s", rows[i].name, d.what);
    const uint8_t *data = (const uint8_t *)memmem(out, len, "mdat", 4) + 4;
    for (uint8_t n = 0; n < HAND_SAMPLES; n++)
      cr_expect_eq(data[n * HAND_SIZE] == n, rows[i].clear[n] == '1', "%s: sample %u", rows[i].name, n);
  }
  free(in), free(out);
}

enum { MOST_DESCRIPTIONS = 4096 };

static void put_descriptions(struct made_box *b, uint32_t num) {
  size_t at = open_box(b, "sgpd");
  put(b, "\0\0\0\0seig", 8);
  put32(b, num);
  for (uint32_t i = 0; i < num; i++)
    put(b, SEIG_CLEAR, 20);
  close_box(b, at);
}

Test(unprotect, groups_up_to_their_limit) {
  uint8_t *in = (uint8_t *)malloc(HAND_MANY_MAX), *out = (uint8_t *)malloc(HAND_MANY_MAX), *boxes = (uint8_t *)malloc(HAND_MANY_MAX);
  for (uint32_t i = 0; i < 2; i++) {
    struct made_box b = {.p = in}, groups = {.p = boxes};
    size_t len = 0;
    struct diag d = {0};
    put_descriptions(&groups, MOST_DESCRIPTIONS + 1);
    put(&groups, "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\4", 24);
    put32(&groups, 0x10000 + MOST_DESCRIPTIONS + i);
    put_init(&b, SCHEME_CBCS);
    put_hand_frag(&b, &(struct hand_frag){.before_trun = bytes_of(groups.p, groups.n)});
    enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), want = i ? ERR_LIMIT : ERR_OK;
    cr_expect_eq(e, want, "%u: %s %s", i, err_name(e), d.what);
  }
  free(in), free(out), free(boxes);
}

// Descriptions without lengths that samples name in turn, the last ones: found once, not once for each sample.
Test(unprotect, groups_that_alternate, .timeout = 20) {
  enum { SAMPLES = 100000 };
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MANY_MAX)}, groups = {.p = (uint8_t *)malloc(HAND_MANY_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MANY_MAX);
  struct diag d = {0};
  put_descriptions(&groups, MOST_DESCRIPTIONS);
  size_t len = 0, at = open_box(&groups, "sbgp");
  put(&groups, "\0\0\0\0seig", 8);
  put32(&groups, SAMPLES);
  for (uint32_t i = 0; i < SAMPLES; i++) {
    put32(&groups, 1);
    put32(&groups, 0x10000 + MOST_DESCRIPTIONS - i % 2);
  }
  close_box(&groups, at);
  put_init(&b, SCHEME_CBCS);
  put_hand_frag(&b, &(struct hand_frag){.many = SAMPLES, .before_trun = bytes_of(groups.p, groups.n)});
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s", d.what);
  free(b.p), free(groups.p), free(out);
}

// A subsegment index follows what is taken out between it and its segments, and is dropped where it is wrong.
Test(unprotect, index_before_its_segments) {
  static const struct {
    uint32_t first, type, second; // what is added to first_offset, and to the first references
    bool kept;
  } rows[] = {{0, 0, 0, true}, {4, 0, 0, false}, {4, -4u, 0, false}, {0, 1, 0, false}, {0, 1, -1u, false}, {0, 1u << 31, 0, true},
              {INT32_MAX, 0, 0, false}};
  struct made m;
  uint64_t len, clear_len;
  make(&m, &small, 0);
  uint8_t *enc = render(&m, SCHEME_CENC, &len), *clear = render(&m, SCHEME_CLEAR, &clear_len), *in = malloc(len + 100), *out = malloc(len + 100);
  const uint8_t *sidx = memmem(enc, len, "sidx", 4);
  size_t at = (size_t)(sidx - enc) - 4, end = at + load_be32(sidx - 4), clear_at = (size_t)((uint8_t *)memmem(clear, clear_len, "sidx", 4) - clear) - 4;
  for (int wide = 0; wide < 2; wide++)
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
      struct made_box b = {.p = in};
      size_t out_len = 0;
      struct diag d = {0};
      put(&b, enc, at);
      size_t box = open_box(&b, "sidx");
      put32(&b, wide ? 1 << 24 : 0);
      put(&b, enc + at + 12, 8);
      if (wide)
        put32(&b, 0);
      put(&b, enc + at + 20, 4);
      if (wide)
        put32(&b, 0);
      put32(&b, 32 + rows[i].first);
      size_t refs = put(&b, enc + at + 28, end - at - 28) + 4;
      close_box(&b, box);
      store_be32(in + refs, load_be32(in + refs) + rows[i].type);
      store_be32(in + refs + 12, load_be32(in + refs + 12) + rows[i].second);
      put(&b, "\0\0\0\x20pssh\0\0\0\0ssssssssssssssss\0\0\0", 32);
      put(&b, enc + end, len - end);
      cr_assert_eq(decrypt(out, &out_len, bytes_of(in, b.n), 1, &d), ERR_OK, "%s", d.what);
      const uint8_t *got = memmem(out, out_len, "sidx", 4);
      cr_expect_eq(got != NULL, rows[i].kept, "row %zu", i);
      if (got) { // as the clear plan has it, behind the times
        got += wide ? 32 : 24;
        cr_expect_eq(load_be32(got - 4) | (wide ? load_be32(got - 8) : 0), 0, "row %zu: first_offset", i);
        store_be32((uint8_t *)(uintptr_t)got + 4, load_be32(got + 4) - (rows[i].type & 1u << 31));
        cr_expect_eq(memcmp(got, clear + clear_at + 28, end - at - 28), 0, "row %zu", i);
      }
      cr_expect(!memmem(out, out_len, "pssh", 4));
    }
  free(enc), free(clear), free(in), free(out);
  unmake(&m);
}

// The second traf's data offsets count from where the first one's data ends. ISO/IEC 14496-12 8.8.7.
Test(unprotect, offsets_that_count_from_the_traf_before) {
  struct synth_options o = small;
  struct made m;
  uint8_t *files[2];
  uint64_t lens[2];
  o.trafs_per_frag = 2;
  make(&m, &o, 0);
  for (int i = 0; i < 2; i++) {
    files[i] = render(&m, i ? SCHEME_CBCS : SCHEME_CLEAR, &lens[i]);
    uint8_t *p = files[i], *end = p + lens[i];
    for (uint32_t f = 0; f < m.s.num_frags; f++) {
      p = (uint8_t *)memmem(p, (size_t)(end - p), "moof", 4);
      p = (uint8_t *)memmem(p, (size_t)(end - p), "tfhd", 4) + 4;
      p = (uint8_t *)memmem(p, (size_t)(end - p), "tfhd", 4);
      p[5] = 0; // default-base-is-moof
      p = (uint8_t *)memmem(p, (size_t)(end - p), "trun", 4);
      store_be32(p + 12, 0);
    }
  }
  uint8_t *out = (uint8_t *)malloc(lens[1]);
  size_t len = 0;
  struct diag d = {0};
  cr_assert_eq(decrypt(out, &len, bytes_of(files[1], lens[1]), 1, &d), ERR_OK, "%s", d.what);
  cr_assert_eq(len, lens[0]);
  cr_assert_eq(memcmp(out, files[0], len), 0);
  free(files[0]), free(files[1]), free(out);
  unmake(&m);
}

// A second KID, of which there is no key.
#define SEIG_OTHER "\0\0\1\x8\x9\2\3\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define FOUR_IVS "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\2" "\0\0\0\0\0\0\0\3"
#define PIFF "\xa2\x39\x4f\x52\x5a\x9b\x4f\x14\xa2\x44\x6c\x42\x7c\x64\x8d\xf4"

Test(unprotect, protection_data_of_every_form) {
  static const struct {
    const char *name;
    struct bytes boxes;
    size_t saio, saio_at;
    enum err want;
  } rows[] = {
      {"none", {0}, 0, 0, ERR_MISSING},
      {"senc", BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" FOUR_IVS), 0, 0, ERR_OK},
      {"senc of three", BYTES_LIT("\0\0\0\x28senc\0\0\0\0\0\0\0\3" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\2"), 0, 0, ERR_MISSING},
      {"PIFF", BYTES_LIT("\0\0\0\x40uuid" PIFF "\0\0\0\0\0\0\0\4" FOUR_IVS), 0, 0, ERR_OK},
      {"PIFF with its own parameters", BYTES_LIT("\0\0\0\x54uuid" PIFF "\0\0\0\1\0\0\1\x8" "kkkkkkkkkkkkkkkk" "\0\0\0\4" FOUR_IVS), 0, 0, ERR_OK},
      {"one size each", BYTES_LIT("\0\0\0\x15saiz\0\0\0\0\0\0\0\0\4\x8\x8\x8\x8" "\0\0\0\x14saio\0\0\0\0\0\0\0\1\0\0\0\0" IVS), 37, 49, ERR_OK},
      {"an offset more than there are truns", BYTES_LIT("\0\0\0\x11saiz\0\0\0\0\x8\0\0\0\4" "\0\0\0\x18saio\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0" IVS), 33, 49, ERR_MALFORMED},
      {"behind the end", BYTES_LIT(PAIR_PLAIN IVS), 33, 1 << 20, ERR_TRUNCATED},
      {"up to the end and a byte more", BYTES_LIT(PAIR_PLAIN), 33, PLAIN_LEN + 8 + HAND_SAMPLES * HAND_SIZE - 31, ERR_TRUNCATED},
      {"a group that is not there",
       BYTES_LIT("\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" SEIG_CLEAR "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\2\0\1\0\2"), 0, 0, ERR_MALFORMED},
      {"a group with another key",
       BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" FOUR_IVS "\0\0\0\x3csgpd\0\0\0\0seig\0\0\0\2" SEIG_SENC SEIG_OTHER
                 "\0\0\0\x24sbgp\0\0\0\0seig\0\0\0\2\0\0\0\1\0\1\0\1\0\0\0\1\0\1\0\2"), 0, 0, ERR_NO_KEY},
      {"groups of the same key, sbgp version 1",
       BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" FOUR_IVS "\0\0\0\x3csgpd\0\0\0\0seig\0\0\0\2" SEIG_OTHER SEIG_SENC
                 "\0\0\0\x20sbgp\1\0\0\0seig\0\0\0\0\0\0\0\1\0\0\0\4\0\1\0\2"), 0, 0, ERR_OK},
  };
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = rows[i].boxes, .saio = rows[i].saio, .saio_at = rows[i].saio_at});
    enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d);
    cr_expect_eq(e, rows[i].want, "%s: %s %s", rows[i].name, err_name(e), d.what);
    if (!e)
      check_hand_data((const uint8_t *)memmem(out, len, "mdat", 4) + 4, rows[i].name);
  }
  free(in), free(out);
}

// Subsamples say the same in senc and in auxiliary information; groups of one fragment are not those of the next.
Test(unprotect, subsamples_in_both_places) {
#define SUB "\0\1\0\x10\0\0\0\x20"
  static const struct bytes boxes[] = {
      BYTES_LIT("\0\0\0\x50senc\0\0\0\2\0\0\0\4" "\0\0\0\0\0\0\0\0" SUB "\0\0\0\0\0\0\0\1" SUB "\0\0\0\0\0\0\0\2" SUB "\0\0\0\0\0\0\0\3" SUB),
      BYTES_LIT(PAIR_PLAIN "\0\0\0\x48uuid" "\0\0\0\0\0\0\0\0" SUB "\0\0\0\0\0\0\0\1" SUB "\0\0\0\0\0\0\0\2" SUB "\0\0\0\0\0\0\0\3" SUB)};
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX), first[HAND_SAMPLES * HAND_SIZE];
  for (size_t i = 0; i < 2; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = boxes[i], .saio = i ? 33 : 0, .saio_at = PLAIN_LEN + 8});
    uint8_t *saiz = (uint8_t *)memmem(in, b.n, "saiz", 4);
    if (saiz)
      saiz[8] = 16;
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%zu: %s", i, d.what);
    const uint8_t *data = (const uint8_t *)memmem(out, len, "mdat", 4) + 4;
    for (uint8_t n = 0; n < HAND_SAMPLES; n++)
      cr_expect(data[n * HAND_SIZE] == n && data[n * HAND_SIZE + 15] == n && (data[n * HAND_SIZE + 16] != n || data[n * HAND_SIZE + 17] != n));
    if (i)
      cr_expect_arr_eq(data, first, sizeof first);
    memcpy(first, data, sizeof first);
  }
  free(in), free(out);
}

Test(unprotect, groups_of_two_fragments) {
  static const struct bytes boxes[] = {
      BYTES_LIT("\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" SEIG_CLEAR "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\4\0\1\0\1"),
      BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" FOUR_IVS "\0\0\0\x2csgpd\1\0\0\0seig\0\0\0\x14\0\0\0\1" SEIG_SENC "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\4\0\1\0\1")};
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  for (int i = 0; i < 2; i++)
    put_hand_frag(&b, &(struct hand_frag){.after_trun = boxes[i]});
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s", d.what);
  const uint8_t *data = (const uint8_t *)memmem(out, len, "mdat", 4) + 4;
  for (uint8_t n = 0; n < HAND_SAMPLES; n++)
    cr_expect_eq(data[n * HAND_SIZE], n);
  check_hand_data((const uint8_t *)memmem(data, len - (size_t)(data - out), "mdat", 4) + 4, "the second");
  free(b.p), free(out);
}

// Sample entries by trex; places that are no media data.
Test(unprotect, entries_and_places_that_are_not_there) {
  static const struct {
    const char *box; // the first one of this type
    size_t at;
    struct bytes put; // empty: one more than there
    const char *what;
  } rows[] = {{"trex", 16, BYTES_LIT("\0\0\0\2"), "no such sample entry"},
              {"trex", 16, BYTES_LIT("\0\0\0\0"), "no such sample entry"},
              {"trun", 16, BYTES_LIT("\0\0\0\x10"), "outside the media data"}, // in the moof
              {"trun", 16, BYTES_LIT("\xff\xff\xff\0"), "outside the media data"},
              {"trun", 16, {0}, "outside the media data"}, // a byte of the next box
              {"tfhd", 16, BYTES_LIT("\0\0\0\x31"), "outside the media data"}}; // four of them
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
    put_box(&b, "free", "\0\0\0\0", 4);
    uint8_t *p = (uint8_t *)memmem(in, b.n, rows[i].box, 4);
    if (rows[i].put.n)
      memcpy(p - 4 + rows[i].at, rows[i].put.p, 4);
    else
      store_be32(p - 4 + rows[i].at, load_be32(p - 4 + rows[i].at) + 1);
    cr_expect_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_MALFORMED, "row %zu", i);
    cr_expect_not_null(strstr(d.what, rows[i].what), "row %zu: %s", i, d.what);
  }
  free(in), free(out);
}

static size_t find_box(const struct made_box *b, const char *type) { return (size_t)((uint8_t *)memmem(b->p, b->n, type, 4) - b->p) - 4; }

// Puts bytes in; the boxes around them, the first ones of the types that `up` lists, get their new sizes.
static void put_in(struct made_box *b, size_t at, struct bytes put, const char *up) {
  for (; *up; up += up[4] ? 5 : 4) {
    size_t box = find_box(b, (char[5]){up[0], up[1], up[2], up[3]});
    store_be32(b->p + box, load_be32(b->p + box) + (uint32_t)put.n);
  }
  memmove(b->p + at + put.n, b->p + at, b->n - at);
  memcpy(b->p + at, put.p, put.n);
  b->n += put.n;
}

// A sinf of a scheme that nobody knows, of an entry that was wxyz.
#define SINF_OTHER "\0\0\0\x28sinf" "\0\0\0\x0c" "frmawxyz" "\0\0\0\x14schm\0\0\0\0sve1\0\0\0\0"
// One entry, which is not encrypted.
#define STSD_CLEAR "\0\0\0\x34stsd\0\0\0\0\0\0\0\1" "\0\0\0\x24mp4a\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\2\0\x10\0\0\0\0\xbb\x80\0\0"
#define UP_STBL "moov trak mdia minf stbl"

// An init segment with something in it that no preset has.
Test(unprotect, moov) {
  static const struct {
    const char *name, *box; // the first one of this type
    size_t at;              // of it, where bytes are put in; 0: its end
    struct bytes put;
    const char *up;
    uint8_t stsd_version;
    enum err want;
  } rows[] = {
      {"a terminator", "enca", 0, BYTES_LIT("\0\0\0\0"), UP_STBL " stsd enca", 0, ERR_OK},
      {"no terminator", "enca", 0, BYTES_LIT("\0\0\0\1"), UP_STBL " stsd enca", 0, ERR_TRUNCATED},
      {"a terminator where there is none", "enca", 0, BYTES_LIT("\0\0\0\0"), UP_STBL " stsd enca", 1, ERR_TRUNCATED},
      {"a second sinf", "enca", 0, BYTES_LIT(SINF_OTHER), UP_STBL " stsd enca", 0, ERR_OK},
      {"an unknown sinf first", "sinf", 1, BYTES_LIT(SINF_OTHER), UP_STBL " stsd enca", 0, ERR_UNSUPPORTED},
      {"tkhd of version 1", "tkhd", 12, BYTES_LIT("\0\0\0\0\0\0\0\0"), "moov trak tkhd", 0, ERR_OK},
      {"auxiliary information", "stsd", 1, BYTES_LIT(PAIR_PLAIN), UP_STBL, 0, ERR_OK},
      {"sample entries that belong to nothing", "minf", 1, BYTES_LIT(STSD_CLEAR), "moov trak mdia", 0, ERR_OK},
      {"a track header that belongs to nothing", "minf", 1, BYTES_LIT("\0\0\0\x18tkhd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09"), "moov trak mdia", 0, ERR_OK},
  };
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    in[find_box(&b, "stsd") + 8] = rows[i].stsd_version;
    in[find_box(&b, "tkhd") + 8] = strcmp(rows[i].box, "tkhd") == 0;
    size_t box = find_box(&b, rows[i].box);
    // 1 is the box itself: bytes before it
    put_in(&b, box + (rows[i].at == 0 ? load_be32(in + box) : rows[i].at == 1 ? 0 : rows[i].at), rows[i].put, rows[i].up);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
    enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d);
    cr_expect_eq(e, rows[i].want, "%s: %s %s", rows[i].name, err_name(e), d.what);
    if (e)
      continue;
    check_hand_data((const uint8_t *)memmem(out, len, "mdat", 4) + 4, rows[i].name);
    cr_expect(memmem(out, len, "mp4a", 4) && !memmem(out, len, "wxyz", 4) && !memmem(out, len, "saio", 4), "%s", rows[i].name);
  }
  free(in), free(out);
}

Test(unprotect, a_sinf_without_tenc) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  memcpy(b.p + find_box(&b, "tenc") + 4, "free", 4);
  put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_MISSING, "%s", d.what);
  cr_assert_not_null(strstr(d.what, "tenc"), "%s", d.what);
  free(b.p), free(out);
}

// 16 sample entries of a track and 32 tracks are read, and no more.
Test(unprotect, entries_and_tracks_up_to_their_limits) {
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX), entry[500];
  for (uint32_t more = 0; more < 2; more++)
    for (int tracks = 0; tracks < 2; tracks++) {
      struct made_box b = {.p = in};
      size_t len = 0;
      struct diag d = {0};
      put_init(&b, SCHEME_CENC);
      size_t enca = find_box(&b, "enca"), n = load_be32(in + enca);
      cr_assert_leq(n, sizeof entry);
      memcpy(entry, in + enca, n);
      for (uint32_t i = 1; i < (tracks ? 32 : 16) + more; i++) {
        if (tracks)
          put_in(&b, find_box(&b, "trak"), BYTES_LIT("\0\0\0\x08trak"), "moov");
        else
          put_in(&b, enca, bytes_of(entry, n), UP_STBL " stsd");
      }
      put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
      enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), want = more ? ERR_LIMIT : ERR_OK;
      cr_expect_eq(e, want, "%s: %s %s", tracks ? "tracks" : "entries", err_name(e), d.what);
    }
  free(in), free(out);
}

// Where data offsets count from may be anything up to the end of the file, also in what goes; then it moves to where that was.
Test(unprotect, bases_up_to_the_end) {
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (int i = -1; i < 2; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.absolute = true, .after_trun = HAND_SENC});
    put_box(&b, "mfra", "\0\0\0\x08" "free", 8);
    uint8_t *base = in + find_box(&b, "tfhd") + 16, *offset = in + find_box(&b, "trun") + 16;
    store_be32(offset, (uint32_t)(load_be64(base) - b.n - (uint64_t)(int64_t)i));
    store_be64(base, b.n + (uint64_t)(int64_t)i);
    enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), want = i > 0 ? ERR_MALFORMED : ERR_OK;
    cr_expect_eq(e, want, "%d: %s %s", i, err_name(e), d.what);
    if (e)
      continue;
    struct made_box o = {.p = out, .n = len};
    uint64_t from = load_be64(out + find_box(&o, "tfhd") + 16);
    cr_expect_eq(from, len, "%d: %zu", i, (size_t)from);
    check_hand_data(out + from + (int32_t)load_be32(out + find_box(&o, "trun") + 16), "base");
  }
  free(in), free(out);
}

// A run without samples that says where the next one's data is, which says nothing, as the one behind it does.
Test(unprotect, an_empty_run_that_names_a_place) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  put_hand_frag(&b, &(struct hand_frag){.before_trun = BYTES_LIT("\0\0\0\x14trun\0\0\0\1\0\0\0\0\0\0\0\0"),
                                        .after_trun = BYTES_LIT("\0\0\0\x10trun\0\0\0\0\0\0\0\3" SENC_OF_FOUR)});
  uint8_t *trun = b.p + find_box(&b, "trun");
  memcpy(trun + 16, trun + 20 + 16, 4);
  store_be32(trun + 20 + 8, 0);
  store_be32(trun + 20 + 12, 1);
  store_be32(trun + 20 + 16, 0);
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s", d.what);
  struct made_box o = {.p = out, .n = len};
  check_hand_data(out + find_box(&o, "moof") + load_be32(out + find_box(&o, "trun") + 16), "empty run");
  free(b.p), free(out);
}

// Runs may not make more of a file than it has: of the same bytes again and again, or of samples without any.
Test(unprotect, more_samples_than_bytes) {
#define RUN "\0\0\0\x14trun\0\0\0\1\0\0\0\4\0\0\0\0"
  static const struct bytes runs[] = {BYTES_LIT(RUN), BYTES_LIT(RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN), {0}};
  static const enum err want[] = {ERR_OK, ERR_MALFORMED, ERR_MALFORMED};
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (int i = 0; i < 3; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CBCS);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = runs[i]});
    uint8_t *trun = in + find_box(&b, "trun");
    for (size_t at = 0; at < runs[i].n; at += 20)
      memcpy(trun + 20 + at + 16, trun + 16, 4);
    if (i == 2) {
      store_be32(trun + 12, HAND_MAX);
      store_be32(in + find_box(&b, "tfhd") + 16, 0);
    }
    enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d);
    cr_expect_eq(e, want[i], "%d: %s %s", i, err_name(e), d.what);
  }
  free(in), free(out);
}

// Samples that are clear have an IV in senc where their description says how long it is. In auxiliary information they may have anything.
Test(unprotect, clear_samples_with_protection_data) {
#define SEIG_CLEAR_8 "\0\0\0\x8\1\2\3\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define TWO_CLEAR(seig) "\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" seig "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\2\0\1\0\1"
#define ODD_IVS "\x12\x34\x56\x78\x9a\xbc\xde\xf0" "\xff\xff\0\0\0\0\0\0" "\0\0\0\0\0\0\0\2" "\0\0\0\0\0\0\0\3"
  static const struct bytes boxes[] = {BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" ODD_IVS TWO_CLEAR(SEIG_CLEAR_8)),
                                       BYTES_LIT(PAIR_PLAIN "\0\0\0\x28uuid" ODD_IVS TWO_CLEAR(SEIG_CLEAR))};
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (int i = 0; i < 2; i++) {
    uint8_t first[2][HAND_SIZE];
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = boxes[i], .saio = i ? 33 : 0, .saio_at = PLAIN_LEN + 8});
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%d: %s", i, d.what);
    uint8_t *data = (uint8_t *)memmem(out, len, "mdat", 4) + 4;
    for (uint8_t n = 0; n < 2; n++)
      memset(first[n], n, HAND_SIZE);
    cr_expect_arr_eq(data, first, sizeof first, "%d: the clear ones", i);
    check_hand_data_from(2, data, i ? "saiz" : "senc");
  }
  free(in), free(out);
}
