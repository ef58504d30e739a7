// Playlists, scenarios and the listener's state machine.
#include "base/writer.h"
#include "load/session.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

Test(uri, resolves_like_a_player) {
  static const struct {
    const char *base, *ref, *want;
  } v[] = {{"/a/b/master.m3u8", "1/x.m3u8", "/a/b/1/x.m3u8"}, {"/a/b/c", "/d", "/d"},
           {"/a/b/c/d.mpd", "../x.mp4", "/a/b/x.mp4"},       {"/a/b", "../../../x", "/x"},
           {"/a/b", "./x/./y", "/a/x/y"},                    {"/a/b?q=/1/2", "x", "/a/x"},
           {"/a%20b/c", "t r%20x?q=\xc3\xa9/1.m4s", "/a%20b/t%20r%20x?q=%C3%A9/1.m4s"},
           {"http://h:80/a/b", "HTTP://H/z/1.m4s?t=1", "/z/1.m4s?t=1"},
           {"https://h/a/b", "//h:443/z", "/z"},             {"http://h/a/b", "http://h", "/"},
           {"http://h/a/b", "http://h?x", "/?x"},            {"http://[::1]/a", "http://[::1]:80/b", "/b"},
           {"/a/b?q", "", "/a/b?q"},                         {"/a/b?q", "?r=../x", "/a/b?r=../x"},
           {"/a/b", "x?y/../z", "/a/x?y/../z"},              {"/a/b/c", "..", "/a/"},
           {"/a/b/c", ".", "/a/b/"},                         {"/a/b", "x#y?z", "/a/x"},
           {"/a/b", "./c:d", "/a/c:d"},                      {"/a/b", "9:00.mp4", "/a/9:00.mp4"}};
  char out[PLAYLIST_MAX_URI];
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
    cr_assert_eq(uri_resolve(out, v[i].base, bytes_str(v[i].ref)), ERR_OK);
    cr_assert_str_eq(out, v[i].want);
  }
}

Test(uri, another_origin_is_none) {
  static const struct {
    const char *base, *ref;
  } v[] = {{"http://h/a", "https://h/a"}, {"http://h/a", "http://h:81/a"}, {"http://h/a", "http://i/a"}, {"http://h/a", "//i/a"}, {"https://h/a", "//h:80/a"},
           {"http://h/a", "http://me@h/a"}, {"/a", "http://h/a"}, {"/a", "//h/a"}, {"http://h/a", "data:,x"}, {"http://[::1]/a", "http://[::2]/a"}};
  char out[PLAYLIST_MAX_URI];
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++)
    cr_expect_eq(uri_resolve(out, v[i].base, bytes_str(v[i].ref)), ERR_UNSUPPORTED, "%s", v[i].ref);
}

Test(uri, names_are_arbitrary_bytes) {
  char out[PLAYLIST_MAX_URI], name[SCENARIO_MAX_NAME] = "";
  cr_assert_eq(uri_of_asset(out, "a b/x%y?\xc3\xa9#", "cbcs/1/"), ERR_OK);
  cr_assert_str_eq(out, "/a%20b/x%25y%3F%C3%A9%23/cbcs/1/");
  memset(name, ' ', sizeof name - 1);
  cr_assert_eq(uri_of_asset(out, name, "cbcs/1/"), ERR_LIMIT);
}

static const char master[] = "#EXTM3U\n#EXT-X-VERSION:6\r\n#EXT-X-STREAM-INF:BANDWIDTH=97000,CODECS=\"mp4a.40.2,x\",AUDIO=\"a\"\n1/a/media.m3u8\n"
                             "#EXT-X-STREAM-INF:AVERAGE-BANDWIDTH=1,BANDWIDTH=320000\n/x/b.m3u8\n";
static const char media[] = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MAP:URI=\"init.mp4\"\n"
                            "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"k\",KEYFORMAT=\"urn:uuid:x\",KEYID=0x000102030405060708090a0b0c0d0e0f\n"
                            "#EXTINF:2.005,\n1.m4s\n#EXTINF:1.995,title\n2.m4s\n#EXTINF:1,\n3.m4s\n#EXT-X-ENDLIST\n";

Test(hls, reads_what_players_read) {
  static struct renditions r;
  struct diag d = {0};
  cr_assert_eq(hls_read_multivariant(&r, bytes_str(master), "/t/cbcs/master.m3u8", &d), ERR_OK, "%s", d.what);
  cr_assert_eq(r.num, 2);
  cr_assert_str_eq(r.uri[0], "/t/cbcs/1/a/media.m3u8");
  cr_assert_str_eq(r.uri[1], "/x/b.m3u8");
  struct alloc_heap mem;
  alloc_heap_init(&mem, 1 << 20);
  struct media_list l;
  cr_assert_eq(hls_read_media(&l, &mem.base, bytes_str(media), r.uri[0], &d), ERR_OK, "%s", d.what);
  cr_assert_eq(l.num, 3);
  cr_assert_str_eq(l.init, "/t/cbcs/1/a/init.mp4");
  cr_assert_str_eq(l.uris + l.uri_off[2], "/t/cbcs/1/a/3.m4s");
  cr_assert(l.start_s[3] > 4.999 && l.start_s[3] < 5.001);
  cr_assert_eq(l.kids.num, 1);
  cr_assert_eq(l.kids.kid[0][15], 15);
  alloc_heap_free(&mem);
}

// One line for each DRM system: some without a KID, some in capitals, and the first of three that differs from the others.
Test(hls, reads_the_kid_of_every_key_line) {
#define KEY(kid) "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"k\",KEYFORMAT=\"x\"" kid "\n"
#define KID ",KEYID=0x000102030405060708090a0b0c0d0e0f"
  static const struct {
    const char *lines;
    uint32_t num;
    uint8_t first;
  } v[] = {{KEY(), 0, 0}, {KEY(KID) KEY() KEY(",KEYID=0X000102030405060708090A0B0C0D0E0F"), 1, 15},
           {KEY(",KEYID=0x000102030405060708090a0b0c0d0eff") KEY(KID) KEY(KID), 2, 0xff}, {KEY(KID) KEY(",KEYID=0x000102030405060708090a0b0c0d0eff") KEY(KID), 2, 15}};
  static const char *const bad[] = {KEY(KID "00"), KEY(",KEYID=000102030405060708090a0b0c0d0e0f00"), KEY(KID) KEY(",KEYID=0x0001")};
  char text[1024];
  struct alloc_heap mem;
  struct media_list l;
  struct diag d = {0};
  alloc_heap_init(&mem, 1 << 20);
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
    snprintf(text, sizeof text, "#EXTM3U\n#EXT-X-MAP:URI=\"i\"\n%s#EXTINF:2,\n1.m4s\n#EXT-X-ENDLIST\n", v[i].lines);
    cr_assert_eq(hls_read_media(&l, &mem.base, bytes_str(text), "/a/b", &d), ERR_OK, "%s", d.what);
    cr_assert(l.kids.num == v[i].num && (!l.kids.num || l.kids.kid[0][15] == v[i].first), "%zu: %u", i, l.kids.num);
  }
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    d = (struct diag){0};
    snprintf(text, sizeof text, "#EXTM3U\n#EXT-X-MAP:URI=\"i\"\n%s#EXTINF:2,\n1.m4s\n#EXT-X-ENDLIST\n", bad[i]);
    cr_assert_eq(hls_read_media(&l, &mem.base, bytes_str(text), "/a/b", &d), ERR_SYNTAX, "%s", bad[i]);
    cr_assert_eq(d.at, i == 2 ? 4 : 3);
  }
  alloc_heap_free(&mem);
}

Test(hls, has_room_for_uris_that_grow) {
  enum { SEGMENTS = 50, NAME = 160 };
  static char text[SEGMENTS * (NAME + 16) + 100], name[NAME + 1];
  struct alloc_heap mem;
  struct media_list l;
  struct diag d = {0};
  alloc_heap_init(&mem, 1 << 20);
  memset(name, 0xe9, NAME);
  int n = snprintf(text, sizeof text, "#EXTM3U\n#EXT-X-MAP:URI=\"i\"\n");
  for (int i = 0; i < SEGMENTS; i++)
    n += snprintf(text + n, sizeof text - (size_t)n, "#EXTINF:2,\n%s\n", name);
  snprintf(text + n, sizeof text - (size_t)n, "#EXT-X-ENDLIST\n");
  cr_assert_eq(hls_read_media(&l, &mem.base, bytes_str(text), "/a/b", &d), ERR_OK, "%s", d.what);
  cr_assert_eq(strlen(l.uris + l.uri_off[SEGMENTS - 1]), 3 + 3 * NAME);
  alloc_heap_free(&mem);
}

Test(hls, refuses_with_a_line) {
  static const char *const bad[] = {"", "#EXTM3U\n", "EXTM3U\n", "#EXTM3U\n1.m4s\n", "#EXTM3U\n#EXTINF:x,\n1.m4s\n",
                                    "#EXTM3U\n#EXT-X-MAP:URI=\"i\"\n#EXTINF:2,\n1.m4s\n", "#EXTM3U\n#EXT-X-MAP:X=\"i\"\n#EXTINF:2,\n1.m4s\n#EXT-X-ENDLIST\n",
                                    "#EXTM3U\n#EXTINF:2,\n#EXT-X-BYTERANGE:0@1\n1.m4s\n#EXT-X-ENDLIST\n"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct alloc_heap mem;
    struct media_list l;
    struct diag d = {0};
    alloc_heap_init(&mem, 1 << 20);
    cr_assert_neq(hls_read_media(&l, &mem.base, bytes_str(bad[i]), "/a/b", &d), ERR_OK, "%s", bad[i]);
    cr_assert(d.err);
    alloc_heap_free(&mem);
  }
}

// Room is made by the lines as they stand: no variable makes a tag, or nothing, of one. Source: RFC 8216bis §4.4.2.3.
Test(hls, variables_stand_in_uris_and_attributes) {
  static const struct {
    const char *defined, *lines[2], *refused; // the lines in turn, behind a segment each
    uint32_t parts;
  } v[] = {
      {"NAME=\"a\",VALUE=\"#EXT-X-MAP:URI=a\"\n#EXT-X-DEFINE:NAME=\"b\",VALUE=\"#EXT-X-MAP:URI=b\"", {"{$a}", "{$b}"}, "is no URI", 0},
      {"NAME=\"a\",VALUE=\"\"", {"{$a}", "{$a}"}, "is no URI", 0},
      {"NAME=\"a\",VALUE=\"MAP\"", {"#EXT-X-{$a}:URI=a", "#EXT-X-{$a}:URI=b"}, NULL, 1},
      {"NAME=\"a\",VALUE=\"x\"", {"# as in {$none}", "#{$none}"}, NULL, 1},
      {"NAME=\"a\",VALUE=\"x\"", {"#EXT-X-MAP:URI=\"{$a}1\"", "#EXT-X-MAP:URI=\"{$a}2\""}, NULL, 9},
  };
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    char text[1024];
    struct alloc_heap mem;
    struct media_list l;
    struct diag d = {0};
    alloc_heap_init(&mem, 1 << 20);
    int n = snprintf(text, sizeof text, "#EXTM3U\n#EXT-X-DEFINE:%s\n", v[i].defined);
    for (int k = 0; k < 8; k++)
      n += snprintf(text + n, sizeof text - (size_t)n, "#EXTINF:1,\ns%d\n%s\n", k, v[i].lines[k % 2]);
    snprintf(text + n, sizeof text - (size_t)n, "#EXTINF:1,\nend\n#EXT-X-ENDLIST\n");
    enum err e = hls_read_media(&l, &mem.base, bytes_str(text), "/a/b", &d);
    cr_expect_eq(e, v[i].refused ? ERR_SYNTAX : ERR_OK, "%zu: %s", i, d.what);
    cr_expect(!v[i].refused || strstr(d.what, v[i].refused), "%zu: %s", i, d.what);
    cr_expect(e || l.num_parts == v[i].parts, "%zu: %u parts", i, l.num_parts);
    alloc_heap_free(&mem);
  }
}

static const char mpd[] =
    "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\"><Period><AdaptationSet codecs=\"mp4a.40.2\">"
    "<ContentProtection schemeIdUri=\"urn:mpeg:dash:mp4protection:2011\" value=\"cbcs\" cenc:default_KID=\"00010203-0405-0607-0809-0a0b0c0d0e0f\"/>"
    "<SegmentTemplate timescale=\"48000\" startNumber=\"1\" initialization=\"1/$RepresentationID$/init.mp4\" media=\"1/$RepresentationID$/$Number$.m4s\">"
    "<SegmentTimeline><S t=\"1024\" d=\"96000\" r=\"2\"/><S d=\"48000\"/></SegmentTimeline></SegmentTemplate>"
    "<Representation id=\"lo\" bandwidth=\"96000\"/><Representation id=\"h&amp;i\" bandwidth=\"320000\"/></AdaptationSet></Period></MPD>";

Test(mpd, expands_the_timeline_of_the_chosen_representation) {
  static struct renditions r;
  struct alloc_heap mem;
  struct media_list l;
  struct diag d = {0};
  alloc_heap_init(&mem, 1 << 20);
  cr_assert_eq(mpd_read(&r, &l, 1, &mem.base, bytes_str(mpd), "/t/cbcs/manifest.mpd", &d), ERR_OK, "%s", d.what);
  cr_assert_eq(r.num, 2);
  cr_assert_eq(l.num, 4);
  cr_assert_str_eq(l.uris + l.uri_off[3], "/t/cbcs/1/h&i/4.m4s");
  cr_assert_str_eq(l.init, "/t/cbcs/1/h&i/init.mp4");
  cr_assert(l.start_s[0] == 0 && l.start_s[3] == 6 && l.start_s[4] == 7);
  cr_assert_eq(l.kids.num, 1);
  alloc_heap_free(&mem);
}

// Of the AdaptationSet or of one Representation; another one's are its own.
Test(mpd, reads_the_kid_of_every_descriptor) {
#define PROTECTION(last) "<ContentProtection cenc:default_KID=\"00010203-0405-0607-0809-0a0b0c0d0e" last "\"/><ContentProtection schemeIdUri=\"x\"/>"
#define REPRESENTATION(id, protection)                                                                                                \
  "<Representation id=\"" id "\">" protection "<SegmentTemplate initialization=\"i\" media=\"$Number$\"><SegmentTimeline><S d=\"1\"/></SegmentTimeline>" \
  "</SegmentTemplate></Representation>"
  static const char text[] = "<MPD><Period><AdaptationSet>" REPRESENTATION("a", PROTECTION("01")) REPRESENTATION("b", PROTECTION("02") PROTECTION("02"))
      REPRESENTATION("c", "") "</AdaptationSet><AdaptationSet>" PROTECTION("04") PROTECTION("05") PROTECTION("04") REPRESENTATION("d", "") "</AdaptationSet></Period></MPD>";
  static const struct {
    uint32_t num;
    uint8_t first;
  } want[] = {{1, 1}, {1, 2}, {0, 0}, {2, 4}};
  static struct renditions r;
  struct alloc_heap mem;
  struct diag d = {0};
  alloc_heap_init(&mem, 1 << 24);
  for (uint32_t i = 0; i < 4; i++) {
    struct media_list l;
    cr_assert_eq(mpd_read(&r, &l, i, &mem.base, bytes_str(text), "/a/b", &d), ERR_OK, "%s", d.what);
    cr_assert(l.kids.num == want[i].num && (!l.kids.num || l.kids.kid[0][15] == want[i].first), "%u: %u", i, l.kids.num);
  }
  alloc_heap_free(&mem);
}

// A SegmentTemplate says what differs from those around it, its timeline included. Source: ISO/IEC 23009-1 §5.3.9.1.
Test(mpd, templates_inherit_what_they_do_not_say) {
  static const char text[] =
      "<MPD><Period><SegmentTemplate timescale=\"1000\" startNumber=\"5\" initialization=\"$RepresentationID$/i\"/>"
      "<AdaptationSet><SegmentTemplate media=\"$RepresentationID$/$Number$\"><SegmentTimeline><S d=\"2000\" r=\"1\"/></SegmentTimeline></SegmentTemplate>"
      "<Representation id=\"a\"/><Representation id=\"b\"><SegmentTemplate media=\"b/$Number$.mp4\"/></Representation>"
      "<Representation id=\"c\"><SegmentTemplate timescale=\"500\"><SegmentTimeline><S d=\"2000\"/></SegmentTimeline></SegmentTemplate></Representation>"
      "<Representation id=\"d\"/></AdaptationSet></Period></MPD>";
  static const struct {
    const char *init, *last;
    uint32_t num;
    double seconds;
  } want[] = {{"/a/a/i", "/a/a/6", 2, 4}, {"/a/b/i", "/a/b/6.mp4", 2, 4}, {"/a/c/i", "/a/c/5", 1, 4}, {"/a/d/i", "/a/d/6", 2, 4}};
  static struct renditions r;
  struct alloc_heap mem;
  struct diag d = {0};
  alloc_heap_init(&mem, 1 << 24);
  for (uint32_t i = 0; i < sizeof want / sizeof *want; i++) {
    struct media_list l;
    cr_assert_eq(mpd_read(&r, &l, i, &mem.base, bytes_str(text), "/a/b", &d), ERR_OK, "%s", d.what);
    cr_expect_eq(l.num, want[i].num, "%u: %u segments", i, l.num);
    cr_expect(l.start_s[l.num] == want[i].seconds, "%u: %g s", i, l.start_s[l.num]);
    cr_expect_str_eq(l.uris + l.uri_off[l.num - 1], want[i].last);
    cr_expect(!*want[i].init || strcmp(l.init, want[i].init) == 0, "%u: %s", i, l.init);
  }
  alloc_heap_free(&mem);
}

// A Period plays after the one before it, with its own init segment; what goes before both is not waited for.
Test(mpd, periods_follow_each_other) {
  static const char text[] =
      "<MPD mediaPresentationDuration=\"PT20S\"><BaseURL>x/</BaseURL><Period start=\"PT5S\"><AdaptationSet><SegmentTemplate timescale=\"10\" initialization=\"i\" media=\"$Time$\">"
      "<SegmentTimeline><S t=\"100\" d=\"20\" r=\"1\"/></SegmentTimeline></SegmentTemplate><Representation id=\"a\"/></AdaptationSet></Period>"
      "<Period start=\"PT10S\"><AdaptationSet><Representation id=\"a\"><BaseURL>y/</BaseURL><SegmentTemplate duration=\"4\" initialization=\"i\" media=\"$Number$\"/></Representation>"
      "</AdaptationSet></Period></MPD>";
  static const double starts[] = {0, 2, 5, 9, 13, 15};
  static struct renditions r;
  struct alloc_heap mem;
  struct media_list l;
  struct diag d = {0};
  alloc_heap_init(&mem, 1 << 20);
  cr_assert_eq(mpd_read(&r, &l, 0, &mem.base, bytes_str(text), "/a/b", &d), ERR_OK, "%s", d.what);
  cr_assert(r.num == 1 && l.num == 5 && l.num_parts == 2);
  for (int i = 0; i < 6; i++)
    cr_expect(l.start_s[i] == starts[i], "%d: %g", i, l.start_s[i]);
  cr_expect_str_eq(l.uris + l.uri_off[1], "/a/x/120");
  cr_expect_str_eq(l.uris + l.uri_off[4], "/a/x/y/3");
  cr_expect_str_eq(l.init, "/a/x/i");
  cr_expect(media_part_of(&l, 1) == l.parts && media_part_of(&l, 2) == l.parts + 1 && l.parts[1].first == 2);
  cr_expect_str_eq(l.parts[1].init, "/a/x/y/i");
  alloc_heap_free(&mem);
}

Test(mpd, what_it_does_not_read_is_told) {
  static struct renditions r;
  struct alloc_heap mem;
  struct diag d = {0};
  alloc_heap_init(&mem, 1 << 20);
  static const char numbered[] = "<MPD><Period><AdaptationSet><SegmentTemplate media=\"$Number$\"><SegmentTimeline>\n<S d=\"3\" n=\"4\"/>";
  cr_assert_eq(mpd_read(&r, NULL, 0, &mem.base, bytes_str(numbered), "/a", &d), ERR_SYNTAX);
  cr_expect(d.at == 2 && strstr(d.what, "S@n"), "line %lu: %s", d.at, d.what);
  d = (struct diag){0};
  cr_assert_eq(mpd_read(&r, NULL, 0, &mem.base, BYTES_LIT("<MPD><Period><AdaptationSet>\n\n<Representation bandwidth=\"x\"/>"), "/a", &d), ERR_SYNTAX);
  cr_expect(d.at == 3 && strstr(d.what, "@bandwidth"), "line %lu: %s", d.at, d.what);
  alloc_heap_free(&mem);
}

Test(mpd, levels_stand_in_each_other) {
  static const struct {
    const char *text, *what;
  } v[] = {{"<MPD mediaPresentationDuration=\"PT4S\"><Period>\n<Representation><BaseURL>x</BaseURL></Representation></Period></MPD>", "Representation stands outside of AdaptationSet"},
           {"<MPD><Period/>\n<AdaptationSet/></MPD>", "AdaptationSet stands outside of Period"},
           {"<MPD><Period>\n<Period/></Period></MPD>", "Period stands outside of MPD"},
           {"<MPD><Period><AdaptationSet><Representation>\n<Representation/>", "Representation stands outside of AdaptationSet"}};
  static struct renditions r;
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    struct alloc_heap mem;
    struct media_list l;
    struct diag d = {0};
    alloc_heap_init(&mem, 1 << 20);
    cr_expect_eq(mpd_read(&r, &l, 0, &mem.base, bytes_str(v[i].text), "/a/b", &d), ERR_SYNTAX);
    cr_expect(d.at == 2 && !strcmp(d.what, v[i].what), "%zu: line %lu: %s", i, d.at, d.what);
    alloc_heap_free(&mem);
  }
}

Test(mpd, refuses_entities_and_broken_text) {
  static const char *const bad[] = {"", "<MPD/>", "<MPD><Period>", "<!DOCTYPE x [<!ENTITY a \"b\">]><MPD>&a;</MPD>"};
  static struct renditions r;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct alloc_heap mem;
    struct diag d = {0};
    alloc_heap_init(&mem, 1 << 20);
    cr_assert_neq(mpd_read(&r, NULL, 0, &mem.base, bytes_str(bad[i]), "/a", &d), ERR_OK, "%s", bad[i]);
    alloc_heap_free(&mem);
  }
}

static enum err parse(struct scenario *s, struct alloc_heap *mem, const char *yaml, struct diag *d) {
  alloc_heap_init(mem, 8 << 20);
  *d = (struct diag){0};
  enum err e = scenario_parse(s, &mem->base, bytes_str(yaml), d);
  return e ? e : scenario_check(s, d);
}

Test(scenario, reads_units_and_shapes) {
  static struct scenario s;
  struct alloc_heap mem;
  struct diag d;
  cr_assert_eq(parse(&s, &mem,
                     "name: x\nseed: 7\narrivals:\n  - { for: 2m, rate: 3 }\n  - { for: 500ms, rate: [3, 300] }\n"
                     "catalogue: { assets: [a/b, c], popularity: zipf, shape: 1.1, release_share: 60% }\nscheme: cenc\nprotocol: mix\n"
                     "player: { ahead: 4, skip: 0 }\nlevel: { startup_p99_ms: 200, errors: 0.1% }\n", &d), ERR_OK, "%lu: %s", d.at, d.what);
  cr_assert_eq(s.num_pieces, 2);
  cr_assert(s.pieces[0].seconds == 120 && s.pieces[1].seconds == 0.5 && s.pieces[1].to_per_s == 300);
  cr_assert_eq(s.catalogue.num, 2);
  cr_assert_str_eq(s.catalogue.names[0], "a/b");
  cr_assert(fabs(s.catalogue.release_share - 0.6) < 1e-12 && fabs(s.level.error_share - 0.001) < 1e-12);
  cr_assert_eq(s.ahead, 4);
  cr_assert_eq(s.protocol, LOAD_MIX);
  alloc_heap_free(&mem);
  cr_assert_eq(parse(&s, &mem, "mode: rate\nrate: 5\nseconds: 1\narrivals: [{ for: 9s, rate: 9 }]\ncatalogue: { assets: [a] }\n", &d), ERR_OK, "%s", d.what);
  cr_expect(s.num_pieces == 0 && s.rate == 5, "a rate stands in the place of a shape");
  alloc_heap_free(&mem);
}

Test(scenario, every_fault_names_its_line) {
  static const struct {
    const char *yaml;
    uint64_t line;
  } v[] = {{"a: [", 2},
           {"- a", 1},
           {"catalogue: { assets: [a] }\nbogus: 1\n", 2},
           {"catalogue: { assets: [a] }\nseconds: 5x\n", 2},
           {"catalogue: { assets: [a] }\n\nplayer: { ahead: 2.5 }\n", 3},
           {"catalogue: { assets: [a] }\nmode: fast\n", 2},
           {"catalogue: { assets: [a] }\narrivals: [{ for: 1s }]\n", 2},
           {"catalogue: { assets: [a] }\narrivals: [{ for: 1s, rate: [1] }]\n", 2},
           {"catalogue: { assets: [a], release_share: 130% }\n", 1},
           {"catalogue: { assets: [a] }\nseconds: nan\n", 2},
           {"catalogue: { assets: [a] }\nseed: 1\nseed: 2\n", 3},
           {"catalogue: { assets: [a] }\narrivals: [{ for: 1s, rate: 1, poll: 99ms }]\n", 2},
           {"catalogue: { assets: [a] }\narrivals: [{ for: 1s, rate: 1, poll: 3601s }]\n", 2},
           {"mode: capacity\nseconds: 1\nsearch: { from: 9, to: 9 }\nlevel: { latency_p99_ms: 1 }\ncatalogue: { assets: [a] }\n", 0},
           {"# \xc3\xa9\n\nname: \xff\n", 3}, // not text at all: libyaml has no mark for it
           {"name: a\n# \x02\n", 2},
           {"catalogue: { assets: [a] }\n---\n# \x02\n", 3}};
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
    static struct scenario s;
    struct alloc_heap mem;
    struct diag d;
    cr_assert_neq(parse(&s, &mem, v[i].yaml, &d), ERR_OK, "%s", v[i].yaml);
    cr_assert_eq(d.at, v[i].line, "%s: line %lu, %s", v[i].yaml, d.at, d.what);
    alloc_heap_free(&mem);
  }
}

// Plays one session against perfect answers that take `delay_s`, and writes down what was asked.
static size_t play(const struct scenario *sc, const struct popularity *pop, uint64_t id, double delay_s, char *log, size_t cap,
                   struct listener *l) {
  static struct renditions r;
  static const char *const uris[] = {r.uri[0], r.uri[1]};
  struct alloc_heap mem;
  struct diag d = {0};
  struct media_list list;
  struct listener_next next;
  struct writer w = wr_of(log, cap);
  alloc_heap_init(&mem, 1 << 20);
  cr_assert_eq(hls_read_multivariant(&r, bytes_str(master), "/t/cbcs/master.m3u8", &d), ERR_OK);
  cr_assert_eq(hls_read_media(&list, &mem.base, bytes_str(media), "/t/cbcs/1/a/media.m3u8", &d), ERR_OK);
  listener_begin(l, sc, pop, id, 0.5, &next);
  double now = 0.5;
  for (int i = 0; i < 10000 && next.act == ACT_REQUEST; i++) {
    wr_fmt(&w, "%s%d%d %lu-%lu ", next.head ? "HEAD " : "", next.range, next.if_none_match, next.range_from, next.range_to);
    listener_path(&w, l, &next);
    wr_str(&w, "\n");
    now = (next.at_s > now ? next.at_s : now) + delay_s;
    struct listener_got got = {.now_s = now, .ok = true, .body_len = 5000, .renditions = uris, .num_renditions = r.num, .list = &list};
    listener_on_response(l, pop, &got, &next);
  }
  cr_assert_eq(next.act, ACT_END);
  cr_assert(wr_ok(&w));
  alloc_heap_free(&mem);
  return w.n;
}

Test(listener, timing_never_changes_what_is_asked) {
  static struct scenario s;
  struct alloc_heap mem;
  struct diag d;
  struct popularity pop;
  cr_assert_eq(parse(&s, &mem, "seed: 5\narrivals: [{ for: 1s, rate: 1 }]\ncatalogue: { assets: [a, b, c] }\n"
                               "drain: 40s\nplayer: { tracks: 20, seek: 10%, switch_rendition: 5%, pause: 5%, token_ttl: 3s }\n"
                               "clients: { range: 50%, head: 30%, conditional: 30%, abort: 50% }\n", &d), ERR_OK);
  cr_assert_eq(popularity_init(&pop, &mem.base, POPULARITY_ZIPF, 3, 1, 0), ERR_OK);
  static char a[1 << 16], b[1 << 16], c[1 << 16];
  struct listener l;
  bool differ = false;
  for (uint64_t id = 0; id < 50; id++) {
    size_t n = play(&s, &pop, id, 0.001, a, sizeof a, &l);
    cr_assert_eq(play(&s, &pop, id, id % 2 ? 0.001 : 1.5, b, sizeof b, &l), n, "slow or not, session %lu", id);
    cr_assert(memcmp(a, b, n) == 0);
    cr_assert(memmem(a, n, "?token=", 7) != NULL);
    size_t m = play(&s, &pop, id + 1, 0.001, c, sizeof c, &l);
    differ |= m != n || memcmp(a, c, n) != 0;
  }
  cr_assert(differ);
  alloc_heap_free(&mem);
}

Test(listener, tokens_change_with_the_listeners_own_clock) {
  static struct scenario s;
  struct alloc_heap mem;
  struct diag d;
  struct popularity pop;
  static char log[1 << 16];
  struct listener l;
  cr_assert_eq(parse(&s, &mem, "arrivals: [{ for: 1s, rate: 1 }]\ncatalogue: { assets: [a] }\n"
                               "player: { tracks: 3, skip: 0, ahead: 1, token_ttl: 3s }\n", &d), ERR_OK);
  cr_assert_eq(popularity_init(&pop, &mem.base, POPULARITY_ZIPF, 1, 1, 0), ERR_OK);
  size_t n = play(&s, &pop, 7, 0.3, log, sizeof log, &l);
  // Three tracks of 5 s from 0.5 s on: tokens 0 … 3 at 0, 3, 6, 9 s and the last segment at 10.5 + 4 - 2 s.
  for (int k = 0; k <= 4; k++) {
    char token[16];
    int len = snprintf(token, sizeof token, "token=7.%d\n", k);
    cr_assert_eq(memmem(log, n, token, (size_t)len) != NULL, k < 5, "token %d", k);
  }
  alloc_heap_free(&mem);
}

Test(listener, polls_until_the_release_and_then_plays_at_once) {
  static struct scenario s;
  struct alloc_heap mem;
  struct diag d;
  struct popularity pop;
  struct listener l;
  struct listener_next next;
  cr_assert_eq(parse(&s, &mem, "arrivals: [{ for: 10s, rate: 1 }, { for: 5s, rate: 1, poll: 2s }, { for: 5s, rate: 2, poll: 1s }, { for: 1s, rate: 9 }]\n"
                               "catalogue: { assets: [a] }\nplayer: { tracks: 1 }\n", &d), ERR_OK, "%s", d.what);
  cr_assert_eq(popularity_init(&pop, &mem.base, POPULARITY_ZIPF, 1, 1, 0), ERR_OK);
  static const double want[] = {12, 14, 16, 17, 18, 19, 20};
  listener_begin(&l, &s, &pop, 3, 12, &next);
  for (size_t i = 0; i < 7; i++) {
    cr_assert_eq(next.step, i < 6 ? STEP_POLL : STEP_MASTER, "%zu", i);
    cr_assert(fabs(next.at_s - want[i]) < 1e-9, "%zu: %g", i, next.at_s);
    struct listener_got got = {.now_s = next.at_s + 0.1, .ok = i != 2}; // a poll that fails is not repeated: the next is due
    if (i < 6)
      listener_on_response(&l, &pop, &got, &next);
  }
  listener_begin(&l, &s, &pop, 4, 20.5, &next);
  cr_assert_eq(next.step, STEP_MASTER, "after the release nobody polls");
  listener_begin(&l, &s, &pop, 5, 9, &next);
  cr_assert_eq(next.step, STEP_MASTER, "nor before the countdown");
  alloc_heap_free(&mem);
}

Test(listener, asks_nothing_when_the_scenario_is_over) {
  static struct scenario s;
  struct alloc_heap mem;
  struct diag d;
  struct popularity pop;
  static char log[1 << 16], slow[1 << 16];
  struct listener l;
  cr_assert_eq(parse(&s, &mem, "arrivals: [{ for: 1s, rate: 1 }]\ndrain: 3s\ncatalogue: { assets: [a] }\nplayer: { tracks: 9, skip: 0, ahead: 1 }\n", &d), ERR_OK);
  cr_assert_eq(popularity_init(&pop, &mem.base, POPULARITY_ZIPF, 1, 1, 0), ERR_OK);
  size_t n = play(&s, &pop, 1, 0.001, log, sizeof log, &l);
  cr_assert_eq(l.segments, 3, "0.5 s + 2.005 s lies before the end at 4 s, a second track's start does not");
  cr_assert_eq(play(&s, &pop, 1, 2, slow, sizeof slow, &l), n);
  cr_assert(memcmp(log, slow, n) == 0);
  alloc_heap_free(&mem);
}

Test(listener, a_slow_answer_is_a_late_segment_and_waiting) {
  static struct scenario s;
  struct alloc_heap mem;
  struct diag d;
  struct popularity pop;
  static char log[1 << 16];
  struct listener l;
  cr_assert_eq(parse(&s, &mem, "arrivals: [{ for: 1s, rate: 1 }]\ncatalogue: { assets: [a] }\nplayer: { tracks: 1, skip: 0, ahead: 1 }\n", &d), ERR_OK);
  cr_assert_eq(popularity_init(&pop, &mem.base, POPULARITY_ZIPF, 1, 1, 0), ERR_OK);
  play(&s, &pop, 1, 0.01, log, sizeof log, &l);
  cr_assert_eq(l.misses, 0);
  cr_assert_eq(l.segments, 3);
  cr_assert(l.rebuffer_s == 0);
  cr_assert(fabs(l.startup_s - 0.04) < 1e-9, "master, media, init, segment: %g", l.startup_s);
  play(&s, &pop, 1, 3, log, sizeof log, &l);
  cr_assert_eq(l.misses, 2);
  cr_assert(fabs(l.rebuffer_s - 2.0) < 1e-6, "0.995 s for the second segment, 1.005 s for the third: %g", l.rebuffer_s);
  alloc_heap_free(&mem);
}

Test(listener, skips_have_the_measured_shape) {
  static struct scenario s;
  struct alloc_heap mem;
  struct diag d;
  struct popularity pop;
  cr_assert_eq(parse(&s, &mem, "arrivals: [{ for: 1s, rate: 1 }]\ncatalogue: { assets: [a] }\nplayer: { tracks: 1 }\n", &d), ERR_OK);
  cr_assert_eq(popularity_init(&pop, &mem.base, POPULARITY_ZIPF, 1, 1, 0), ERR_OK);
  double starts[201];
  uint32_t offs[200] = {0};
  char uri[] = "/s";
  for (int i = 0; i <= 200; i++)
    starts[i] = i;
  struct media_part part = {.init = "/i"};
  struct media_list list = {.init = part.init, .parts = &part, .num_parts = 1, .num = 200, .start_s = starts, .uri_off = offs, .uris = uri};
  enum { N = 20000 };
  double by5 = 0, by30 = 0, early = 0;
  for (uint64_t id = 0; id < N; id++) {
    struct listener l;
    struct listener_next next;
    static const char *const uris[] = {"/m"};
    listener_begin(&l, &s, &pop, id, 0, &next);
    struct listener_got got = {.now_s = 0, .ok = true, .renditions = uris, .num_renditions = 1, .list = &list};
    listener_on_response(&l, &pop, &got, &next);
    listener_on_response(&l, &pop, &got, &next);
    by5 += l.leave_s < 5;
    by30 += l.leave_s < 30;
    early += l.leave_s < 200;
  }
  cr_assert(fabs(by5 / N - 0.24) < 0.016, "%g", by5 / N);
  cr_assert(fabs(by30 / N - 0.35) < 0.018, "%g", by30 / N);
  cr_assert(fabs(early / N - 0.49) < 0.018, "%g", early / N);
  alloc_heap_free(&mem);
}

Test(listener, retries_back_off_and_then_give_the_track_up) {
  static struct scenario s;
  struct alloc_heap mem;
  struct diag d;
  struct popularity pop;
  cr_assert_eq(parse(&s, &mem, "arrivals: [{ for: 1s, rate: 1 }]\ncatalogue: { assets: [a] }\nplayer: { tracks: 1, retries: 3, retry_after: 1s }\n", &d), ERR_OK);
  cr_assert_eq(popularity_init(&pop, &mem.base, POPULARITY_ZIPF, 1, 1, 0), ERR_OK);
  struct listener l;
  struct listener_next next;
  listener_begin(&l, &s, &pop, 9, 0, &next);
  double now = 0, wait = 0;
  int asked = 1;
  for (;; asked++) {
    struct listener_got got = {.now_s = now};
    listener_on_response(&l, &pop, &got, &next);
    if (next.act == ACT_END)
      break;
    cr_assert(next.at_s - now > wait * 0.9, "each wait is longer than half of twice the last");
    wait = (next.at_s - now) / 1.5;
    now = next.at_s;
  }
  cr_assert_eq(asked, 4);
  cr_assert_eq(l.errors, 4);
  cr_assert(l.startup_s < 0);
  alloc_heap_free(&mem);
}
