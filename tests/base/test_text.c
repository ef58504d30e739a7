#include "base/alloc.h"
#include "base/reader.h"
#include "base/text.h"
#include "base/url.h"

#include <criterion/criterion.h>
#include <stdio.h>

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
  cr_assert_eq(hex_read(b, 4, bytes_str("11223g")), ERR_SYNTAX);
  cr_assert_str_eq(hex_of(b, 4), "00ffa07b", "what cannot be read leaves what was there");
  uint8_t much[65];
  char text[2 * sizeof much + 1], upper[2 * sizeof b] = "";
  memset(text, '5', sizeof text);
  cr_assert_eq(hex_read(much, 64, bytes_of(text, 128)), ERR_OK);
  cr_assert_eq(hex_read(much, 65, bytes_of(text, 130)), ERR_ARGUMENT);
  struct writer w = wr_of(upper, sizeof upper);
  hex_write_upper(&w, bytes_of(b, 4));
  cr_assert(bytes_eq(bytes_of(upper, w.n), BYTES_LIT("00FFA07B")));
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
  static const struct {
    const char *text;
    size_t len;
  } unpadded[] = {{"Zg", 1}, {"Zm8", 2}, {"Zm9v", 3}, {"Zm9vYg", 4}, {"Zm9vYmE", 5}};
  for (size_t i = 0; i < sizeof unpadded / sizeof *unpadded; i++) {
    n = unpadded[i].len - 1;
    cr_assert_eq(base64_read(out, &n, bytes_str(unpadded[i].text)), ERR_NO_SPACE, "%s", unpadded[i].text);
    n = unpadded[i].len;
    cr_assert_eq(base64_read(out, &n, bytes_str(unpadded[i].text)), ERR_OK, "%s", unpadded[i].text);
    cr_assert(bytes_eq(bytes_of(out, n), bytes_of("fooba", unpadded[i].len)));
    char text[8];
    struct writer w = wr_of(text, sizeof text);
    base64url_write(&w, bytes_of(out, n));
    cr_assert(bytes_eq(bytes_of(text, w.n), bytes_str(unpadded[i].text)), "no padding in URLs");
  }
  n = sizeof out;
  cr_assert_eq(base64_read(out, &n, bytes_str("Z===")), ERR_SYNTAX);
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
  cr_assert_eq(rd_left(&r), 0, "loops over what is left end");
  cr_assert_null(rd_take(&r, 0));
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
  w = wr_of(buf, 5);
  wr_str(&w, "abcde");
  cr_assert(wr_ok(&w) && memcmp(buf, "abcde###", 8) == 0, "to the last byte");
  w = wr_of(buf, 8);
  wr_dec(&w, 0);
  wr_dec(&w, 10);
  cr_assert(w.n == 3 && memcmp(buf, "010", 3) == 0);
  char cut[1100], text[1101];
  memset(text, 'x', 1100);
  text[1100] = 0;
  w = wr_of(cut, sizeof cut);
  wr_fmt(&w, "%s", text);
  cr_assert_eq(w.n, 1023, "as it is documented");
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

Test(diag, a_path_and_a_text_have_an_end) {
  struct diag d = {.err = ERR_MALFORMED, .num_path = 13, .what = "w", .at = 0x2020202020202020};
  for (int i = 0; i < 12; i++)
    d.path[i] = i == 11 ? FOURCC('l', 'a', 's', 't') : FOURCC('m', 'o', 1, 'f');
  char text[160], small[24];
  diag_format(&d, text, sizeof text);
  cr_assert_str_eq(text, "w (at byte 2314885530818453536, box mo?f/mo?f/mo?f/mo?f/mo?f/mo?f/mo?f/mo?f/mo?f/mo?f/mo?f/last)", "twelve have room");
  for (size_t cap = 1; cap <= sizeof small; cap++) {
    memset(small, '#', sizeof small);
    diag_format(&d, small, cap);
    cr_assert(strlen(small) == cap - 1 && !memcmp(small, text, cap - 1), "%zu", cap);
  }
}

Test(text, a_name_that_can_stand_in_a_url) {
  char name[256];
  memset(name, 'n', sizeof name);
  cr_assert_null(url_name_fault(bytes_of(name, 255)));
  cr_assert_not_null(url_name_fault(bytes_of(name, 256)));
  static const struct bytes wrong[] = {BYTES_LIT(""), BYTES_LIT("."), BYTES_LIT(".a"), BYTES_LIT("a\0"), BYTES_LIT("a\x1f"), BYTES_LIT("a\x7f" "b")};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    cr_assert_not_null(url_name_fault(wrong[i]), "%zu", i);
  static const char *const right[] = {"a", "a.", " ", "a b", "%", "\xc3\xa4", "\xff"};
  for (size_t i = 0; i < sizeof right / sizeof *right; i++)
    cr_assert_null(url_name_fault(bytes_str(right[i])), "%s", right[i]);
}

Test(url, is_taken_apart) {
  static const struct {
    const char *text;
    bool https, v6;
    uint16_t port;
    const char *host, *path;
  } right[] = {{"https://a.example", true, false, 443, "a.example", ""},        {"http://a_b-1", false, false, 80, "a_b-1", ""},
               {"https://a:65535/x?y", true, false, 65535, "a", "/x?y"},        {"http://127.0.0.1:1?q", false, false, 1, "127.0.0.1", "?q"},
               {"https://[::1]", true, true, 443, "::1", ""},                   {"http://[2001:db8::2]:8080/", false, true, 8080, "2001:db8::2", "/"}};
  struct url u;
  for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
    cr_assert_eq(url_read(&u, bytes_str(right[i].text)), URL_GOOD, "%s", right[i].text);
    cr_assert(u.https == right[i].https && u.v6 == right[i].v6 && u.port == right[i].port && bytes_eq(u.host, bytes_str(right[i].host)) &&
                  bytes_eq(u.path, bytes_str(right[i].path)), "%s", right[i].text);
  }
  static const struct {
    const char *text;
    enum url_fault fault;
  } wrong[] = {{"", URL_SCHEME}, {"a.example/", URL_SCHEME}, {"ftp://a", URL_SCHEME}, {"https://", URL_HOST}, {"https:///x", URL_HOST}, {"https://:1", URL_HOST},
               {"https://a:0", URL_HOST}, {"https://a:65536", URL_HOST}, {"https://a:", URL_HOST}, {"https://a:1x", URL_HOST}, {"https://a%20", URL_HOST}, {"https://[::1", URL_HOST},
               {"https://[::1]x", URL_HOST}, {"https://[a.b]", URL_HOST}, {"https://[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]", URL_HOST},
               {"https://a/ b", URL_BYTES}, {"https://a/#b", URL_BYTES}, {"https://a/\x7f", URL_BYTES}, {"https://a/\"", URL_BYTES}, {"https://u:p@a", URL_USER},
               {"https://u:p/x@a", URL_USER}, {"https://u:p#x@a", URL_USER}, {"u@a", URL_USER}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    cr_assert_eq(url_read(&u, bytes_str(wrong[i].text)), wrong[i].fault, "%s", wrong[i].text);
  char text[URL_MAX + 1] = "https://a/";
  memset(text + 10, 'x', sizeof text - 10);
  cr_assert_eq(url_read(&u, bytes_of(text, URL_MAX)), URL_GOOD);
  cr_assert_eq(url_read(&u, bytes_of(text, URL_MAX + 1)), URL_LONG);
}

Test(text, the_folder_of_a_path) {
  static const char *const cases[][2] = {{"a/b", "a"}, {"/a/b/c", "/a/b"}, {"/b", "/"}, {"b", "."}, {"", "."}, {"a/", "a"}, {"//b", "/"}, {"a//b", "a/"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bytes got = path_folder(bytes_str(cases[i][0])), want = bytes_str(cases[i][1]);
    cr_assert(got.n == want.n && !memcmp(got.p, want.p, want.n), "%s: %.*s", cases[i][0], (int)got.n, (const char *)got.p);
  }
}

static const char *tamed(const char *text) {
  static char out[64];
  snprintf(out, sizeof out, "%s", text);
  text_tame(out, strlen(out));
  return out;
}

Test(text, tame_leaves_text_and_no_control_characters) {
  cr_assert_str_eq(tamed("K\u00e4se, 日本, \U0001f3b5, \u00a0~"), "K\u00e4se, 日本, \U0001f3b5, \u00a0~");
  cr_assert_str_eq(tamed("\uffff\ufffd\ufffe"), "\uffff\ufffd\ufffe");
  cr_assert_str_eq(tamed("a\x01\x1b[31m\r\n\t\x7f"), "a??[31m????");
  cr_assert_str_eq(tamed("\xc2\x80\xc2\x9b\xc2\x9f|\xc2\xa0"), "??????|\xc2\xa0", "C1 in UTF-8");
  cr_assert_str_eq(tamed("\x9b\x85|\xff"), "??|?", "C1 as bytes");
  cr_assert_str_eq(tamed("\xc0\x9b|\xe0\x82\x9b|\xed\xa0\x80|\xf5"), "??|???|???|?", "longer than need be, surrogates");
  cr_assert_str_eq(tamed("\xe6\x97"), "??", "cut");
  text_tame(NULL, 0);
}

Test(text, the_nearest_word) {
  unsigned best = word_bound("rebuilt");
  cr_assert(word_nearer("rebuilt", "rebuild", &best) && best == 1);
  cr_assert(!word_nearer("rebuilt", "rebuilds", &best), "not nearer than that");
  cr_assert(word_nearer("rebuilt", "rebuilt", &best) && best == 0);
  best = word_bound("x");
  cr_assert(!word_nearer("x", "c", &best), "of a short word nothing would be left");
  best = word_bound("frobnicate");
  cr_assert(!word_nearer("frobnicate", "rebuild", &best) && best == word_bound("frobnicate"));
}
