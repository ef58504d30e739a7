// Protect and take the protection off again, over every structure that the synthesiser knows; counter blocks; where data and
// segments are after it.
#include "encrypted.h"

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
  uint32_t ftyp = load_be32(enc);
  cr_assert_eq(decrypt(out, &out_len, bytes_of(enc, ftyp + load_be32(enc + ftyp)), 1, NULL), ERR_PROGRESSIVE); // no moof
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

// Runs may not make more of a file than it has: of the same bytes again and again, or of more samples without any than an index takes.
Test(unprotect, more_samples_than_bytes) {
#define RUN "\0\0\0\x14trun\0\0\0\1\0\0\0\4\0\0\0\0"
  static const struct bytes runs[] = {BYTES_LIT(RUN), BYTES_LIT(RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN RUN), {0}, {0}};
  static const enum err want[] = {ERR_OK, ERR_MALFORMED, ERR_OK, ERR_MALFORMED};
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (int i = 0; i < 4; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CBCS);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = runs[i]});
    uint8_t *trun = in + find_box(&b, "trun");
    for (size_t at = 0; at < runs[i].n; at += 20)
      memcpy(trun + 20 + at + 16, trun + 16, 4);
    if (i >= 2) {
      store_be32(trun + 12, LIMIT_FREE_SAMPLES + (i == 3 ? HAND_MAX : 0));
      store_be32(in + find_box(&b, "tfhd") + 16, 0);
    }
    enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d);
    cr_expect_eq(e, want[i], "%d: %s %s", i, err_name(e), d.what);
  }
  free(in), free(out);
}
