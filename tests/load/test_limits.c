// What is read of manifests and URIs up to its limits: the most that is taken, and the first that is refused.
#include "load/session.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT = 1 << 20 };

static char text[TEXT];

// Appends to the text, from its beginning where `at` is 0; returns its end.
static size_t put(size_t at, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static size_t put(size_t at, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(text + at, TEXT - at, fmt, ap);
  va_end(ap);
  cr_assert(n >= 0 && (size_t)n < TEXT - at);
  return at + (size_t)n;
}

static enum err read_media(struct media_list *l, struct alloc_heap *mem, struct diag *d) {
  *d = (struct diag){0};
  alloc_heap_init(mem, 16 << 20);
  return hls_read_media(l, &mem->base, bytes_str(text), "/a/b", d);
}

static enum err media_err(struct diag *d) {
  struct alloc_heap mem;
  struct media_list l;
  enum err e = read_media(&l, &mem, d);
  alloc_heap_free(&mem);
  return e;
}

// ---- URIs

Test(uri, has_room_for_511_bytes) {
  static const struct {
    const char *base, *before, *fill, *behind;
    size_t head; // what of the path is not filled
  } v[] = {{"/", "", "x", "", 1}, {"/a/b", "", "x", "", 3}, {"/a/b", "", "x", "?q", 5}, {"/a/b", "?", "x", "", 5}, {"/a/b", "../", "x", "", 1}, {"/a/b", "", "\xe9", "y", 4}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    char *out = malloc(PLAYLIST_MAX_URI); // that no byte behind it is written
    size_t each = v[i].fill[0] == 'x' ? 1 : 3, most = (PLAYLIST_MAX_URI - 1 - v[i].head) / each;
    for (size_t n = most; n <= most + 1; n++) {
      size_t at = put(0, "%s", v[i].before);
      memset(text + at, v[i].fill[0], n);
      put(at + n, "%s", v[i].behind);
      cr_expect_eq(uri_resolve(out, v[i].base, bytes_str(text)), n == most ? ERR_OK : ERR_LIMIT, "case %zu, %zu times", i, n);
      cr_expect(n > most || strlen(out) == v[i].head + each * n, "case %zu: %zu bytes", i, strlen(out));
    }
    free(out);
  }
}

Test(uri, ranges_end_within_64_bits) {
  static const struct {
    const char *text;
    bool good;
    uint64_t from, len;
  } v[] = {{"0-0", true, 0, 1}, {"5-9", true, 5, 5}, {"9-5", false, 0, 0}, {"0-18446744073709551614", true, 0, UINT64_MAX}, {"1-18446744073709551615", false, 0, 0},
           {"0-18446744073709551616", false, 0, 0}, {"-5", false, 0, 0}, {"5-", false, 0, 0}, {"5", false, 0, 0}, {"", false, 0, 0}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    struct byte_range r = {0};
    cr_expect_eq(byte_range_read(&r, bytes_str(v[i].text)), v[i].good, "%s", v[i].text);
    cr_expect(!v[i].good || (r.from == v[i].from && r.len == v[i].len), "%s: %lu, %lu", v[i].text, r.from, r.len);
  }
}

// RFC 9110 §14.4: bytes 10 to 19 were asked for, of a whole that is known to have 20, or is not known.
Test(uri, content_ranges_say_what_was_asked_for) {
  static const struct {
    const char *text, *known, *unknown; // what is wrong with it, in some words; NULL: nothing
  } v[] = {{"bytes 10-19/20", NULL, NULL}, {"BYTES 10-19/20", NULL, NULL}, {"bytes 10-19/*", NULL, NULL}, {"bytes 10-19/21", "came with 20", NULL},
           {"bytes 10-19/19", "came with 20", "byte 19 was asked for"}, {"bytes 10-18/20", "says bytes 10 to 18", "says bytes 10 to 18"},
           {"bytes 9-19/20", "says bytes 9 to 19", "says bytes 9 to 19"}, {"", "without a Content-Range", "without a Content-Range"},
           {"bytes */20", "not of the form", "not of the form"}, {"bytes 10-19", "not of the form", "not of the form"}, {"bytes 10-19/", "not of the form", "not of the form"},
           {"items 10-19/20", "not of the form", "not of the form"}, {"bytes 10-19/20,bytes 10-19/20", "not of the form", "not of the form"}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++)
    for (int known = 0; known < 2; known++) {
      char why[CONTENT_RANGE_WHY];
      const char *want = known ? v[i].known : v[i].unknown;
      content_range_wrong(why, v[i].text, 10, 19, known ? 20 : 0);
      cr_expect(want ? strstr(why, want) != NULL : !why[0], "'%s', the whole is %sknown: %s", v[i].text, known ? "" : "not ", why);
    }
}

// ---- HLS

Test(hls, takes_as_many_as_its_limits_say) {
  static struct renditions r;
  struct diag d;
  for (unsigned n = 32; n <= 33; n++) { // renditions
    size_t at = put(0, "#EXTM3U\n");
    for (unsigned i = 0; i < n; i++)
      at = put(at, "#EXT-X-STREAM-INF:BANDWIDTH=1\n%u.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n%u.m3u8\n", i, i); // one that comes twice is one
    d = (struct diag){0};
    cr_expect_eq(hls_read_multivariant(&r, bytes_str(text), "/a", &d), n == 32 ? ERR_OK : ERR_LIMIT, "%u: %s", n, d.what);
    cr_expect(r.num == 32 && (n == 32 || d.at == 131), "%u, line %lu", r.num, d.at);
  }
  for (unsigned n = 1024; n <= 1025; n++) { // variants
    size_t at = put(0, "#EXTM3U\n");
    for (unsigned i = 0; i < n; i++)
      at = put(at, "#EXT-X-STREAM-INF:BANDWIDTH=%u\nx.m3u8\n", i);
    d = (struct diag){0};
    cr_expect_eq(hls_read_multivariant(&r, bytes_str(text), "/a", &d), n == 1024 ? ERR_OK : ERR_LIMIT, "%u: %s", n, d.what);
  }
  for (unsigned n = 4096; n <= 4097; n++) { // bytes of a variant's attributes
    d = (struct diag){0};
    put(0, "#EXTM3U\n#EXT-X-STREAM-INF:X=%0*d\nx.m3u8\n", (int)n - 2, 0);
    cr_expect_eq(hls_read_multivariant(&r, bytes_str(text), "/a", &d), n == 4096 ? ERR_OK : ERR_LIMIT, "%u: %s", n, d.what);
  }
  for (unsigned n = 32; n <= 33; n++) { // variables
    size_t at = put(0, "#EXTM3U\n");
    for (unsigned i = 0; i < n; i++)
      at = put(at, "#EXT-X-DEFINE:NAME=\"v%u\",VALUE=\"%u\"\n", i, i);
    put(at, "#EXTINF:1,\n{$v31}.aac\n#EXT-X-ENDLIST\n");
    cr_expect_eq(media_err(&d), n == 32 ? ERR_OK : ERR_LIMIT, "%u: %s", n, d.what);
  }
  for (unsigned n = 4096; n <= 4097; n++) { // bytes of a line with its variables
    size_t at = put(0, "#EXTM3U\n#EXT-X-DEFINE:NAME=\"v\",VALUE=\"%01000d\"\n#EXTINF:1,{$v}{$v}{$v}{$v}", 0);
    put(at, "%0*d\nx.aac\n#EXT-X-ENDLIST\n", (int)n - 4010, 0);
    cr_expect_eq(media_err(&d), n == 4096 ? ERR_OK : ERR_LIMIT, "%u: %s", n, d.what);
  }
}

Test(hls, times_and_ranges_have_an_end) {
  static const struct {
    const char *lines;
    enum err e;
  } v[] = {{"#EXTINF:999999999,\n1\n#EXTINF:1,\n2\n", ERR_OK}, {"#EXTINF:999999999,\n1\n#EXTINF:1.5,\n2\n", ERR_LIMIT}, {"#EXTINF:-1,\n1\n", ERR_SYNTAX},
           {"#EXTINF:inf,\n1\n", ERR_SYNTAX}, {"#EXTINF:nan,\n1\n", ERR_SYNTAX}, {"#EXTINF:0,\n1\n", ERR_OK},
           {"#EXTINF:1,\n#EXT-X-BYTERANGE:4611686018427387904@4611686018427387904\n1\n", ERR_OK}, {"#EXTINF:1,\n#EXT-X-BYTERANGE:4611686018427387905@0\n1\n", ERR_SYNTAX},
           {"#EXTINF:1,\n#EXT-X-BYTERANGE:1@4611686018427387905\n1\n", ERR_SYNTAX}, {"#EXTINF:1,\n#EXT-X-BYTERANGE:5@0\n1\n#EXTINF:1,\n#EXT-X-BYTERANGE:5\n2\n", ERR_SYNTAX},
           {"#EXTINF:1,\n#EXT-X-BYTERANGE:5@0\n1\n#EXTINF:1,\n1\n#EXTINF:1,\n#EXT-X-BYTERANGE:5\n1\n", ERR_SYNTAX}};
  struct diag d;
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    put(0, "#EXTM3U\n%s#EXT-X-ENDLIST\n", v[i].lines);
    cr_expect_eq(media_err(&d), v[i].e, "%s: %s", v[i].lines, d.what);
  }
}

// A range is of the one segment that follows it; an init segment that differs in its range is another.
Test(hls, ranges_are_of_what_follows_them) {
  struct alloc_heap mem;
  struct media_list l;
  struct diag d;
  put(0, "#EXTM3U\n#EXT-X-MAP:URI=\"i\",BYTERANGE=\"5@0\"\n#EXTINF:1,\n#EXT-X-BYTERANGE:7@5\nf\n#EXT-X-MAP:URI=\"i\",BYTERANGE=\"6@0\"\n#EXTINF:1,\ng\n"
         "#EXT-X-MAP:URI=\"i\",BYTERANGE=\"6@0\"\n#EXTINF:1,\nh\n#EXT-X-MAP:URI=\"i\",BYTERANGE=\"6@1\"\n#EXTINF:1,\nk\n#EXT-X-ENDLIST\n");
  cr_assert_eq(read_media(&l, &mem, &d), ERR_OK, "%s", d.what);
  cr_assert(l.num == 4 && l.ranges && l.num_parts == 3);
  cr_expect(l.ranges[0].from == 5 && l.ranges[0].len == 7 && !l.ranges[1].len && !l.ranges[3].len);
  cr_expect(l.parts[0].range.len == 5 && l.parts[1].range.len == 6 && l.parts[2].range.from == 1);
  static const uint32_t part[] = {0, 1, 1, 2};
  for (uint32_t i = 0; i < 4; i++)
    cr_expect_eq(media_part_of(&l, i) - l.parts, part[i], "segment %u", i);
  alloc_heap_free(&mem);
}

// ---- sidx

// A sidx of version 1 (times and first offset of 64 bits) or 0 with two references, behind a box of 12 bytes.
static struct bytes sidx(uint8_t version, uint64_t first, uint32_t size, uint32_t ticks, uint16_t num) {
  static uint8_t made[128];
  struct writer w = wr_of(made, sizeof made);
  wr_u32(&w, 12), wr_u32(&w, 0x66726565), wr_u32(&w, 0);
  wr_u32(&w, version ? 64 : 56), wr_u32(&w, 0x73696478), wr_u32(&w, (uint32_t)version << 24), wr_u32(&w, 1), wr_u32(&w, 10);
  if (version)
    wr_u64(&w, 0), wr_u64(&w, first);
  else
    wr_u32(&w, 0), wr_u32(&w, (uint32_t)first);
  wr_u16(&w, 0), wr_u16(&w, num);
  for (int i = 0; i < 2; i++)
    wr_u32(&w, size), wr_u32(&w, ticks), wr_u32(&w, 0);
  cr_assert(wr_ok(&w));
  return bytes_of(made, w.n);
}

Test(sidx, says_where_segments_lie) {
  struct media_part part = {.init = "/i"};
  const struct media_list mpd = {.init = "/i", .parts = &part, .num_parts = 1, .index = "/f.mp4", .index_range = {1000, 100}};
  const struct {
    uint8_t version;
    uint64_t first;
    uint32_t size, ticks;
    uint16_t num;
    size_t cut;
    enum err e;
    const char *says;
  } v[] = {{0, 0, 50, 20, 2, 0, ERR_OK, ""}, {0, 9, 50, 20, 2, 0, ERR_OK, ""}, {1, UINT64_C(1) << 40, 50, 20, 2, 0, ERR_OK, ""},
           {0, 0, 50, 20, 3, 0, ERR_SYNTAX, "cut"}, {0, 0, 50, 20, 0, 0, ERR_SYNTAX, "names no segment"}, {0, 0, 50, 20, 2, 1, ERR_SYNTAX, "no whole sidx lies in bytes 1000-1099"},
           {0, 0, 0, 20, 2, 0, ERR_SYNTAX, "segment 1 of the sidx has no bytes"}, {0, 0, 1u << 31 | 50, 20, 2, 0, ERR_SYNTAX, "further sidx boxes"},
           {1, (UINT64_C(1) << 62) + 1, 50, 20, 2, 0, ERR_LIMIT, "2^62"}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    struct alloc_heap mem;
    struct media_list l;
    struct diag d = {0};
    struct bytes b = sidx(v[i].version, v[i].first, v[i].size, v[i].ticks, v[i].num);
    uint8_t *exact = malloc(b.n - v[i].cut); // that nothing behind it is read
    memcpy(exact, b.p, b.n - v[i].cut);
    alloc_heap_init(&mem, 1 << 20);
    cr_expect_eq(sidx_read(&l, &mem.base, bytes_of(exact, b.n - v[i].cut), &mpd, &d), v[i].e, "case %zu: %s", i, d.what);
    cr_expect(strstr(d.what, v[i].says), "case %zu: %s", i, d.what);
    if (!v[i].e) {
      cr_expect(l.num == 2 && l.ranges[0].from == 1000 + b.n + v[i].first && l.ranges[0].len == 50 && l.ranges[1].from == l.ranges[0].from + 50, "case %zu: %lu", i, l.ranges[0].from);
      cr_expect(l.start_s[1] == 2 && l.start_s[2] == 4 && !strcmp(l.uris + l.uri_off[1], "/f.mp4"), "case %zu", i);
    }
    alloc_heap_free(&mem);
    free(exact);
  }
}
