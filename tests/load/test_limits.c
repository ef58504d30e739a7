// What is read of manifests and URIs up to its limits: the most that is taken, and the first that is refused.
#include "load/session.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT = 8 << 20 };

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
  alloc_heap_init(mem, (size_t)256 << 20);
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

Test(uri, names_and_what_follows_have_511_bytes) {
  char *out = malloc(PLAYLIST_MAX_URI), rest[PLAYLIST_MAX_URI];
  for (size_t n = 508; n <= 509; n++) { // behind "/a/"
    memset(rest, 'x', n);
    rest[n] = 0;
    cr_expect_eq(uri_of_asset(out, "a", rest), n == 508 ? ERR_OK : ERR_LIMIT, "%zu", n);
    cr_expect(n > 508 || strlen(out) == 511, "%zu", n);
  }
  free(out);
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
  for (unsigned n = 128; n <= 129; n++) { // variants of a long playlist, which is gone through for each
    enum { LONG = 4 << 20 };
    size_t at = put(0, "#EXTM3U\n");
    for (unsigned i = 0; i < n; i++)
      at = put(at, "#EXT-X-STREAM-INF:BANDWIDTH=%u\nx.m3u8\n", i);
    memset(text + at, '#', LONG - at);
    text[LONG] = 0;
    d = (struct diag){0};
    cr_expect_eq(hls_read_multivariant(&r, bytes_str(text), "/a", &d), n == 128 ? ERR_OK : ERR_LIMIT, "%u: %s", n, d.what);
    cr_expect(n == 128 || d.at == 258, "line %lu", d.at);
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

Test(hls, segments_and_maps_have_an_end) {
  struct diag d;
  for (int maps = 0; maps < 2; maps++)
    for (unsigned n = PLAYLIST_MAX_SEGMENTS; n <= PLAYLIST_MAX_SEGMENTS + 1; n++) {
      size_t at = put(0, "#EXTM3U\n");
      for (unsigned i = (unsigned)maps; i < n; i++) // the part before the first #EXT-X-MAP is one as well
        at = put(at, maps ? "#EXT-X-MAP:URI=\"i\"\n" : "#EXTINF:1,\nx\n");
      put(at, "#EXTINF:1,\nx\n#EXT-X-ENDLIST\n" + (maps ? 0 : 13));
      cr_expect_eq(media_err(&d), n == PLAYLIST_MAX_SEGMENTS ? ERR_OK : ERR_LIMIT, "%u, %d: %s", n, maps, d.what);
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
static struct bytes sidx(uint8_t version, uint32_t timescale, uint64_t first, uint32_t size, uint32_t ticks, uint16_t num) {
  static uint8_t made[128];
  struct writer w = wr_of(made, sizeof made);
  wr_u32(&w, 12), wr_u32(&w, 0x66726565), wr_u32(&w, 0);
  wr_u32(&w, version ? 64 : 56), wr_u32(&w, 0x73696478), wr_u32(&w, (uint32_t)version << 24), wr_u32(&w, 1), wr_u32(&w, timescale);
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
    uint32_t timescale;
    uint64_t first;
    uint32_t size, ticks;
    uint16_t num;
    size_t cut;
    enum err e;
    const char *says;
  } v[] = {{0, 10, 0, 50, 20, 2, 0, ERR_OK, ""}, {0, 10, 9, 50, 20, 2, 0, ERR_OK, ""}, {1, 10, UINT64_C(1) << 40, 50, 20, 2, 0, ERR_OK, ""},
           {0, 10, 0, 50, 20, 3, 0, ERR_SYNTAX, "cut"}, {0, 10, 0, 50, 20, 0, 0, ERR_SYNTAX, "names no segment"}, {0, 10, 0, 50, 20, 2, 1, ERR_SYNTAX, "no whole sidx lies in bytes 1000-1099"},
           {0, 10, 0, 0, 20, 2, 0, ERR_SYNTAX, "segment 1 of the sidx has no bytes"}, {0, 10, 0, 1u << 31 | 50, 20, 2, 0, ERR_SYNTAX, "further sidx boxes"},
           {1, 10, (UINT64_C(1) << 62) + 1, 50, 20, 2, 0, ERR_LIMIT, "2^62"},
           {0, 0, 0, 50, 20, 2, 0, ERR_SYNTAX, "cut"}, {0, 1, 0, 50, 1000000000, 2, 0, ERR_LIMIT, "lasts more than 1000000000 seconds"}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    struct alloc_heap mem;
    struct media_list l;
    struct diag d = {0};
    struct bytes b = sidx(v[i].version, v[i].timescale, v[i].first, v[i].size, v[i].ticks, v[i].num);
    uint8_t *exact = malloc(b.n - v[i].cut); // that nothing behind it is read
    memcpy(exact, b.p, b.n - v[i].cut);
    alloc_heap_init(&mem, 1 << 20);
    cr_expect_eq(sidx_read(&l, &mem.base, bytes_of(exact, b.n - v[i].cut), &mpd, &d), v[i].e, "case %zu: %s", i, d.what);
    cr_expect(strstr(d.what, v[i].says), "case %zu: %s", i, d.what);
    if (!v[i].e) {
      cr_expect(l.num == 2 && l.ranges[0].from == 1000 + b.n + v[i].first && l.ranges[0].len == 50, "case %zu: %lu", i, l.ranges[0].from);
      cr_expect(l.ranges[1].from == l.ranges[0].from + 50 && l.ranges[1].len == 50, "case %zu: %lu", i, l.ranges[1].from);
      cr_expect(l.start_s[1] == 2 && l.start_s[2] == 4 && !strcmp(l.uris + l.uri_off[1], "/f.mp4"), "case %zu", i);
    }
    alloc_heap_free(&mem);
    free(exact);
  }
}

// ---- MPD

static enum err read_mpd(struct media_list *l, struct alloc_heap *mem, struct diag *d) {
  static struct renditions r;
  *d = (struct diag){0};
  alloc_heap_init(mem, (size_t)256 << 20);
  return mpd_read(&r, l, 0, &mem->base, bytes_str(text), "/a/b", d);
}

static enum err mpd_err(struct diag *d) {
  struct alloc_heap mem;
  struct media_list l;
  enum err e = read_mpd(&l, &mem, d);
  alloc_heap_free(&mem);
  return e;
}

#define MPD "<MPD mediaPresentationDuration=\"PT5S\"><Period><AdaptationSet mimeType=\"audio/mp4\">"
#define END "</AdaptationSet></Period></MPD>"

Test(mpd, takes_as_many_as_its_limits_say) {
  struct diag d;
  for (int n = 32; n <= 33; n++) { // Representations
    size_t at = put(0, MPD "<SegmentTemplate duration=\"1\" media=\"$Number$\"/>");
    for (int i = 0; i < n; i++)
      at = put(at, "<Representation/>");
    put(at, END);
    cr_expect_eq(mpd_err(&d), n == 32 ? ERR_OK : ERR_LIMIT, "%d: %s", n, d.what);
  }
  for (int n = PLAYLIST_MAX_SEGMENTS; n <= PLAYLIST_MAX_SEGMENTS + 1; n++) { // segments, of one S and of as many
    put(0, MPD "<SegmentTemplate media=\"$Number$\"><SegmentTimeline><S d=\"1\" r=\"%d\"/></SegmentTimeline></SegmentTemplate><Representation/>" END, n - 1);
    cr_expect_eq(mpd_err(&d), n == PLAYLIST_MAX_SEGMENTS ? ERR_OK : ERR_LIMIT, "%d: %s", n, d.what);
    size_t at = put(0, MPD "<SegmentTemplate media=\"$Number$\"><SegmentTimeline>");
    for (int i = 0; i < n; i++)
      at = put(at, "<S d=\"1\"/>");
    put(at, "</SegmentTimeline></SegmentTemplate><Representation/>" END);
    cr_expect_eq(mpd_err(&d), n == PLAYLIST_MAX_SEGMENTS ? ERR_OK : ERR_LIMIT, "%d: %s", n, d.what);
  }
  for (int n = 511; n <= 512; n++) { // bytes of a BaseURL, and of a template's path
    put(0, MPD "<Representation><BaseURL>/%0*d</BaseURL></Representation>" END, n - 1, 0);
    cr_expect_eq(mpd_err(&d), n == 511 ? ERR_OK : ERR_LIMIT, "%d: %s", n, d.what);
    put(0, MPD "<SegmentTemplate duration=\"9\" media=\"%0*d/$Number%%099d$\"/><Representation/>" END, n - 100, 0); // one byte too long before it is resolved
    cr_expect_eq(mpd_err(&d), n == 511 ? ERR_LIMIT : ERR_SYNTAX, "%d: %s", n, d.what);
  }
  for (int width = 99; width <= 100; width++) {
    put(0, MPD "<SegmentTemplate duration=\"9\" media=\"$Number%%0%dd$\"/><Representation/>" END, width);
    cr_expect_eq(mpd_err(&d), width == 99 ? ERR_OK : ERR_SYNTAX, "%d: %s", width, d.what);
  }
}

Test(mpd, timelines_say_how_many_segments_there_are) {
  static const struct {
    const char *inside; // of the AdaptationSet
    uint32_t num; // 0: refused
    const char *says;
    double end_s;
  } v[] = {{"<SegmentTemplate media=\"$Time$\"><SegmentTimeline><S d=\"2\" r=\"-1\"/></SegmentTimeline></SegmentTemplate><Representation/>", 3, "", 6},
           {"<SegmentTemplate media=\"$Time$\"><SegmentTimeline><S t=\"4\" d=\"2\" r=\"-1\"/><S t=\"8\" d=\"1\"/></SegmentTimeline></SegmentTemplate><Representation/>", 3, "", 5},
           {"<SegmentTemplate media=\"$Time$\"><SegmentTimeline><S t=\"4\" d=\"2\"/><S t=\"3\" d=\"2\"/></SegmentTimeline></SegmentTemplate><Representation/>", 0, "runs backwards", 0},
           {"<SegmentTemplate media=\"$Number$\" endNumber=\"2\"><SegmentTimeline><S d=\"2\" r=\"8\"/></SegmentTimeline></SegmentTemplate><Representation/>", 2, "", 4},
           {"<SegmentTemplate media=\"$Number$\" duration=\"2\"/><Representation/>", 3, "", 5},
           {"<SegmentTemplate media=\"$Number$\" duration=\"2\" timescale=\"0\"/><Representation/>", 0, "@timescale is 0", 0},
           {"<SegmentList><SegmentTimeline><S d=\"2\" r=\"1\"/></SegmentTimeline><SegmentURL media=\"1\"/><SegmentURL media=\"2\"/></SegmentList><Representation/>", 2, "", 4},
           {"<SegmentList><SegmentTimeline><S d=\"2\"/></SegmentTimeline><SegmentURL media=\"1\"/><SegmentURL media=\"2\"/></SegmentList><Representation/>", 0, "more SegmentURLs than", 0},
           {"<SegmentTemplate media=\"$Number$\" duration=\"2\"/><Representation><BaseURL>http://x/</BaseURL></Representation>", 0, "leads to http://x/", 0},
           {"<BaseURL>http://x/</BaseURL><SegmentTemplate media=\"$Number$\" duration=\"2\"/><Representation><BaseURL>y/</BaseURL></Representation>", 0, "leads to http://x/", 0}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    struct alloc_heap mem;
    struct media_list l;
    struct diag d;
    put(0, "%s%s%s", MPD, v[i].inside, END);
    enum err e = read_mpd(&l, &mem, &d);
    cr_expect(v[i].num ? !e && l.num == v[i].num && fabs(l.start_s[l.num] - v[i].end_s) < 1e-9 : e && strstr(d.what, v[i].says), "case %zu: %u segments, %s", i, e ? 0 : l.num, d.what);
    alloc_heap_free(&mem);
  }
}

Test(mpd, durations_are_what_the_standard_says) {
  static const struct {
    const char *text;
    double seconds; // negative: none
  } v[] = {{"PT5S", 5}, {"PT1.5S", 1.5}, {"PT1M1S", 61}, {"PT1H", 3600}, {"P1DT1H", 90000}, {"P1D", 86400}, {"PT", -1}, {"P", -1}, {"5", -1}, {"PT5", -1}, {"PT5S1M", -1}, {"P5S", -1},
           {"PT1D", -1}, {"PT-5S", -1}, {"PT0x10S", -1}, {"PT1e2S", -1}, {"PT1.2.3S", -1}, {"PTinfS", -1}, {"P1Y", -1}, {"PT1TS", -1}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    struct alloc_heap mem;
    struct media_list l;
    struct diag d;
    put(0, "<MPD mediaPresentationDuration=\"%s\"><Period><AdaptationSet mimeType=\"audio/mp4\"><Representation><BaseURL>f</BaseURL></Representation>" END, v[i].text);
    enum err e = read_mpd(&l, &mem, &d);
    cr_expect(v[i].seconds < 0 ? e == ERR_SYNTAX && strstr(d.what, "is to be a duration") : !e && l.start_s[1] == v[i].seconds, "%s: %s", v[i].text, d.what);
    alloc_heap_free(&mem);
  }
}

// Of a later Period that with the id of the chosen one, else that in its place, else the last there is.
Test(mpd, later_periods_play_what_fits_best) {
  static const struct {
    const char *reps, *want;
  } v[] = {{"<Representation id=\"x\"/><Representation id=\"y\"/>", "/1-y"}, {"<Representation id=\"x\"/><Representation id=\"y\"/><Representation id=\"z\"/><Representation id=\"w\"/>", "/1-z"},
           {"<Representation id=\"c\"/><Representation id=\"x\"/><Representation id=\"y\"/>", "/1-c"}};
  static const char set[] = "<AdaptationSet mimeType=\"audio/mp4\"><SegmentTemplate media=\"$Number$-$RepresentationID$\" duration=\"2\" endNumber=\"1\"/>";
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    static struct renditions r;
    struct alloc_heap mem;
    struct media_list l;
    struct diag d = {0};
    alloc_heap_init(&mem, 1 << 20);
    put(0, "<MPD><Period>%s<Representation id=\"a\"/><Representation id=\"b\"/><Representation id=\"c\"/></AdaptationSet></Period><Period>%s%s</AdaptationSet></Period></MPD>", set, set, v[i].reps);
    cr_assert_eq(mpd_read(&r, &l, 2, &mem.base, bytes_str(text), "/m", &d), ERR_OK, "%s", d.what);
    cr_expect(l.num == 2 && !strcmp(l.uris + l.uri_off[0], "/1-c") && !strcmp(l.uris + l.uri_off[1], v[i].want), "case %zu: %s", i, l.uris + l.uri_off[1]);
    alloc_heap_free(&mem);
  }
}
