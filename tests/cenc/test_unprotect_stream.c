// Decryption with one fragment in memory at a time. That it gives what decryption in memory gives, every test of tests/cenc/encrypted.h's
// `decrypt` sees.
#include "encrypted.h"

struct world {
  uint8_t *enc, *clear;
  size_t len, clear_len;
  struct content_key k;
  struct alloc_heap heap;
  struct unprotect_input in;
};

static void begin(struct world *w, enum scheme scheme) {
  struct made m;
  make(&m, &small, 0);
  w->enc = render(&m, scheme, &w->len);
  unmake(&m);
  w->clear = (uint8_t *)malloc(w->len);
  w->k = (struct content_key){.kid = {1, 2, 3}};
  ops()->key_init(&w->k.key, key);
  alloc_heap_init(&w->heap, MEMORY);
  w->in = (struct unprotect_input){.file = bytes_of(w->enc, w->len), .keys = &w->k, .num_keys = 1, .ops = ops(), .mem = &w->heap.base};
  cr_assert_eq(unprotect(w->clear, &w->clear_len, &w->in, NULL), ERR_OK);
}

static void end(struct world *w) {
  free(w->enc), free(w->clear);
  alloc_heap_free(&w->heap);
}

Test(unprotect_stream, a_fragment_at_a_time) {
  for (enum scheme scheme = SCHEME_CENC; scheme < SCHEME_COUNT; scheme++) {
    struct world w;
    struct streamed s = {0};
    begin(&w, scheme);
    cr_assert_eq(streamed_run(&s, &w.in, NULL), ERR_OK);
    cr_expect(s.out.n == w.clear_len && memcmp(s.out.p, w.clear, s.out.n) == 0);
    cr_expect_lt(s.longest, w.len / 2, "%lu of %zu bytes were loaded at once", (unsigned long)s.longest, w.len);
    free(s.out.p);
    end(&w);
  }
}

// Samples before their moof: all of the file is loaded.
Test(unprotect_stream, samples_before_their_moof) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX), data[HAND_SAMPLES * HAND_SIZE];
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  for (uint8_t i = 0; i < HAND_SAMPLES; i++)
    memset(data + i * HAND_SIZE, i, HAND_SIZE);
  put_box(&b, "mdat", data, sizeof data);
  size_t samples = b.n - sizeof data, moof = b.n;
  put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
  uint8_t *trun = (uint8_t *)memmem(b.p + moof, b.n - moof, "trun", 4);
  store_be32(trun + 12, (uint32_t)(samples - moof));
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s", d.what);
  const uint8_t *got = memmem(out, len, "mdat", 4);
  cr_assert_not_null(got);
  check_hand_data(got + 4, "before their moof");
  free(b.p), free(out);
}

// A big box that is no fragment's goes through in pieces.
Test(unprotect_stream, a_long_box_in_pieces) {
  enum { LONG = 5 << 20, PIECE_MOST = 1 << 20 };
  struct world w;
  struct streamed s = {0};
  struct made_box b = {.p = (uint8_t *)malloc(LONG + HAND_MAX)};
  begin(&w, SCHEME_CENC);
  size_t ftyp = load_be32(w.enc);
  put(&b, w.enc, ftyp);
  size_t free_box = open_box(&b, "free");
  for (uint32_t i = 0; i < LONG / 4; i++)
    put32(&b, i);
  close_box(&b, free_box);
  b.p = (uint8_t *)realloc(b.p, b.n + w.len);
  put(&b, w.enc + ftyp, w.len - ftyp);
  w.in.file = bytes_of(b.p, b.n);
  cr_assert_eq(streamed_run(&s, &w.in, NULL), ERR_OK);
  cr_expect(s.out.n == w.clear_len + LONG + 8 && memcmp(s.out.p + ftyp, b.p + ftyp, LONG + 8) == 0);
  cr_expect_leq(s.longest, PIECE_MOST);
  free(s.out.p), free(b.p);
  end(&w);
}

// Whichever load fails, it ends with that; and a file that is written over meanwhile never leads out of the room.
Test(unprotect_stream, loads_that_fail) {
  struct world w;
  begin(&w, SCHEME_CBCS);
  for (int shrinks = 0; shrinks < 2; shrinks++) {
    enum err e = ERR_TRUNCATED;
    int num = 0;
    while (num < 1000) {
      struct streamed s = {.fails = ++num, .shrinks = shrinks != 0};
      struct diag d = {0};
      e = streamed_run(&s, &w.in, &d);
      free(s.out.p);
      if (s.fails)
        break; // there were fewer
      if (!shrinks)
        cr_expect_eq(e, ERR_TRUNCATED, "load %d: %s", num, err_name(e));
    }
    cr_expect_eq(e, ERR_OK);
    cr_expect_gt(num, 20);
  }
  end(&w);
}

// A file that becomes another one of the same boxes' places: what comes out is one of the two, or it is told.
Test(unprotect_stream, a_file_that_changes) {
  static const char *const types[] = {"moof", "saiz"}; // the first of these becomes a box that stays
  struct world w;
  begin(&w, SCHEME_CENC);
  uint8_t *other = (uint8_t *)malloc(w.len), *other_clear = (uint8_t *)malloc(w.len);
  for (int i = 0; i < 2; i++) {
    struct unprotect_input in = w.in;
    size_t other_len = 0;
    int told = 0, num = 0;
    memcpy(other, w.enc, w.len);
    memcpy(memmem(other, w.len, types[i], 4), "free", 4);
    in.file.p = other;
    cr_assert_eq(unprotect(other_clear, &other_len, &in, NULL), ERR_OK);
    for (bool more = true; more && num < 1000;) {
      struct streamed s = {.fails = ++num, .other = other};
      struct diag d = {0};
      enum err e = streamed_run(&s, &w.in, &d);
      bool same = s.out.n == w.clear_len && memcmp(s.out.p, w.clear, s.out.n) == 0;
      same |= s.out.n == other_len && memcmp(s.out.p, other_clear, s.out.n) == 0;
      cr_expect(e ? e == ERR_IO && strstr(d.what, "changed") : same, "%s, load %d: %s %s", types[i], num, err_name(e), d.what);
      told += e != ERR_OK;
      more = s.fails == 0;
      free(s.out.p);
    }
    cr_expect_gt(told, 5, "%s", types[i]);
  }
  free(other), free(other_clear);
  end(&w);
}
