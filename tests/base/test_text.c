#include "base/alloc.h"
#include "base/reader.h"
#include "base/text.h"

#include <criterion/criterion.h>

static const char *hex_of(const void *p, size_t n) {
  static char out[256];
  struct writer w = wr_of(out, sizeof out - 1);
  hex_write(&w, bytes_of(p, n));
  out[w.n] = 0;
  return out;
}

Test(hex, reads_what_it_writes_and_refuses_the_rest) {
  uint8_t b[4];
  cr_assert_eq(hex_read(b, 4, bytes_str("00fFA07b")), ERR_OK);
  cr_assert_str_eq(hex_of(b, 4), "00ffa07b");
  cr_assert_eq(hex_read(b, 4, bytes_str("00ff-a07b")), ERR_OK);
  cr_assert_eq(hex_read(b, 4, bytes_str("00ffa07")), ERR_SYNTAX);
  cr_assert_eq(hex_read(b, 4, bytes_str("00ffa07b0")), ERR_SYNTAX);
  cr_assert_eq(hex_read(b, 4, bytes_str("00ffa07g")), ERR_SYNTAX);
  cr_assert_eq(hex_read(b, 4, bytes_str("-0ffa07b0")), ERR_SYNTAX);
  cr_assert_eq(hex_read(b, 4, bytes_str("00ffa07b-")), ERR_SYNTAX);
}

// RFC 4648 §10.
Test(base64, rfc4648_vectors_in_both_directions) {
  static const struct {
    const char *plain, *b64;
  } v[] = {{"", ""},           {"f", "Zg=="},         {"fo", "Zm8="},        {"foo", "Zm9v"},
           {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
    char text[32];
    struct writer w = wr_of(text, sizeof text);
    base64_write(&w, bytes_str(v[i].plain));
    cr_assert(bytes_eq(bytes_of(text, w.n), bytes_str(v[i].b64)), "%s", v[i].plain);
    uint8_t out[16];
    size_t n = sizeof out;
    cr_assert_eq(base64_read(out, &n, bytes_str(v[i].b64)), ERR_OK, "%s", v[i].b64);
    cr_assert(bytes_eq(bytes_of(out, n), bytes_str(v[i].plain)));
  }
}

Test(base64, url_alphabet_padding_and_bad_input) {
  uint8_t out[16];
  size_t n = sizeof out;
  cr_assert_eq(base64_read(out, &n, bytes_str("-_-_")), ERR_OK);
  cr_assert_str_eq(hex_of(out, n), "fbffbf");
  for (const char *const *bad = (const char *const[]){"A", "A===", "====", "Zg=", "Zg==Zg==", "Z g=", "Zg=\n", NULL}; *bad; bad++) {
    n = sizeof out;
    cr_assert_eq(base64_read(out, &n, bytes_str(*bad)), ERR_SYNTAX, "%s", *bad);
  }
  n = 2;
  cr_assert_eq(base64_read(out, &n, bytes_str("Zm9v")), ERR_NO_SPACE);
}

Test(uuid, has_its_dashes) {
  char text[40] = {0};
  uint8_t id[16];
  cr_assert_eq(hex_read(id, 16, bytes_str("edef8ba979d64acea3c827dcd51d21ed")), ERR_OK);
  struct writer w = wr_of(text, sizeof text);
  uuid_write(&w, id);
  cr_assert_str_eq(text, "edef8ba9-79d6-4ace-a3c8-27dcd51d21ed");
}

Test(number, whole_and_in_range) {
  uint64_t v = 7;
  cr_assert_eq(parse_u64(&v, bytes_str("18446744073709551615")), ERR_OK);
  cr_assert_eq(v, UINT64_MAX);
  cr_assert_eq(parse_u64(&v, bytes_str("18446744073709551616")), ERR_OVERFLOW);
  cr_assert_eq(parse_u64(&v, bytes_str("")), ERR_SYNTAX);
  cr_assert_eq(parse_u64(&v, bytes_str("-1")), ERR_SYNTAX);
  cr_assert_eq(parse_u64(&v, bytes_str("1 ")), ERR_SYNTAX);
}

Test(reader, the_error_sticks_and_nothing_is_read_past_the_end) {
  struct reader r = rd_of(BYTES_LIT("\x01\x02\x03\x04\x05"));
  cr_assert_eq(rd_u16(&r), 0x0102);
  cr_assert(bytes_eq(rd_bytes(&r, 3), BYTES_LIT("\x03\x04\x05")));
  cr_assert_eq(r.err, ERR_OK);
  cr_assert_eq(rd_u8(&r), 0);
  cr_assert_eq(r.err, ERR_TRUNCATED);
  r = rd_of(BYTES_LIT("\x01\x02"));
  cr_assert_eq(rd_u32(&r), 0);
  cr_assert_eq(rd_u8(&r), 0, "what follows a failed read is not read either");
  cr_assert_eq(r.err, ERR_TRUNCATED);
}

Test(reader, a_child_is_bounded_and_counts_from_the_same_start) {
  struct reader r = rd_of(BYTES_LIT("abcdef"));
  rd_skip(&r, 1);
  struct reader child = rd_sub(&r, 3);
  cr_assert_eq(rd_pos(&child), 1);
  cr_assert_eq(rd_left(&child), 3);
  cr_assert_eq(rd_u32(&child), 0);
  cr_assert_eq(child.err, ERR_TRUNCATED);
  cr_assert_eq(r.err, ERR_OK);
  cr_assert_eq(rd_u16(&r), 0x6566);
  struct reader none = rd_sub(&r, 1);
  cr_assert_eq(none.err, ERR_TRUNCATED);
}

Test(writer, measures_first_and_never_writes_past_cap) {
  struct writer w = wr_of(NULL, 0);
  wr_str(&w, "abc");
  wr_dec(&w, 1200);
  cr_assert_eq(w.n, 7);
  cr_assert_not(wr_ok(&w));
  char buf[8];
  memset(buf, '#', sizeof buf);
  w = wr_of(buf, 5);
  wr_str(&w, "abc");
  wr_dec(&w, 1200);
  wr_u8(&w, 'x');
  cr_assert_eq(w.n, 8);
  cr_assert_not(wr_ok(&w));
  cr_assert(memcmp(buf, "abc#####", 8) == 0);
}

Test(alloc, keeps_to_its_limit) {
  struct alloc_heap h;
  alloc_heap_init(&h, 100);
  uint8_t *p = h.base.get(&h.base, 60);
  cr_assert_not_null(p);
  cr_assert_eq((uintptr_t)p % 64, 0);
  cr_assert_eq(p[59], 0);
  cr_assert_null(h.base.get(&h.base, 41));
  cr_assert_null(h.base.get(&h.base, SIZE_MAX));
  cr_assert_not_null(h.base.get(&h.base, 40));
  alloc_heap_free(&h);
  alloc_heap_free(&h);
}

Test(alloc, rewinds_to_where_it_was) {
  struct alloc_heap h, empty, one;
  alloc_heap_init(&h, 100);
  empty = h;
  uint8_t *p = h.base.get(&h.base, 60);
  cr_assert_not_null(p);
  memset(p, 7, 60);
  one = h;
  for (int round = 0; round < 3; round++) {
    cr_assert_not_null(h.base.get(&h.base, 20), "round %d", round);
    cr_assert_not_null(h.base.get(&h.base, 20), "round %d", round);
    alloc_heap_rewind(&h, &one);
    cr_assert(h.used == 60 && p[0] == 7 && p[59] == 7);
  }
  alloc_heap_rewind(&h, &empty);
  cr_assert(!h.used && !h.blocks);
}

Test(diag, the_first_fault_wins_and_reads_as_agreed) {
  struct diag d = {.num_path = 2, .path = {FOURCC('m', 'o', 'o', 'f'), FOURCC('t', 'r', 'u', 'n')}};
  cr_assert_eq(diag_set(&d, ERR_MALFORMED, 77, "%u samples do not fit", 5u), ERR_MALFORMED);
  cr_assert_eq(diag_set(&d, ERR_IO, 1, "later"), ERR_IO);
  char text[128];
  diag_format(&d, text, sizeof text);
  cr_assert_str_eq(text, "5 samples do not fit (at byte 77, box moof/trun)");
  struct diag start = {0}, none = {0}, memory = {0};
  (void)diag_set(&start, ERR_TRUNCATED, 0, NULL);
  diag_format(&start, text, sizeof text);
  cr_assert_str_eq(text, "the data ends before the structure does (at byte 0)", "byte 0 is a position");
  cr_assert_eq(diag_say(&none, ERR_NOT_FOUND, "no %s", "such file"), ERR_NOT_FOUND);
  cr_assert_eq(diag_say(&none, ERR_IO, "later"), ERR_IO, "the first one wins");
  diag_format(&none, text, sizeof text);
  cr_assert_str_eq(text, "no such file");
  (void)diag_set(&memory, ERR_NO_MEMORY, 5, NULL);
  diag_format(&memory, text, sizeof text);
  cr_assert_str_eq(text, "out of memory");
}

Test(text, the_folder_of_a_path) {
  static const char *const cases[][2] = {{"a/b", "a"}, {"/a/b/c", "/a/b"}, {"/b", "/"}, {"b", "."}, {"", "."}, {"a/", "a"}, {"//b", "/"}, {"a//b", "a/"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes got = path_folder(bytes_str(cases[i][0])), want = bytes_str(cases[i][1]);
    cr_assert(got.n == want.n && !memcmp(got.p, want.p, want.n), "%s: %.*s", cases[i][0], (int)got.n, (const char *)got.p);
  }
}
