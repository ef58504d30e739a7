// What the engine makes of the answers: playlists that are shared.
#include "load/session.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

Test(engine, keeps_as_many_playlists_as_there_are) {
  enum { LISTS = 20000 };
  static const char master[] = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=97000\n1/a/media.m3u8\n";
  struct scenario sc = {.scheme = "cbcs"};
  struct load_run run = {.sc = &sc, .origin = "http://h"};
  struct engine e = {.run = &run, .num_slots = 16, .lists = calloc(16, sizeof *e.lists)};
  struct body text = {.p = (uint8_t *)(uintptr_t)master, .n = sizeof master - 1};
  struct session s = {.e = &e, .body = &text, .l.sc = &sc, .next.step = STEP_MASTER};
  struct diag d = {0};
  alloc_heap_init(&e.mem, (size_t)1 << 30);
  for (int round = 0; round < 2; round++)
    for (uint32_t i = 0; i < LISTS; i++) {
      struct listener_got got = {0};
      char path[64], want[64];
      snprintf(path, sizeof path, "/%u/cbcs/master.m3u8", i);
      snprintf(want, sizeof want, "/%u/cbcs/1/a/media.m3u8", i);
      s.next.path = path;
      cr_assert_eq(engine_parse(&e, &s, &got, &d), ERR_OK, "%u: %s", i, d.what);
      cr_assert_str_eq(got.renditions[0], want);
    }
  cr_assert_eq(e.num_lists, LISTS);
  free(e.lists);
  alloc_heap_free(&e.mem);
}

// A multivariant playlist that leads to itself has no segments, however often it was read.
Test(engine, a_multivariant_playlist_is_no_media_playlist) {
  static const char self[] = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nself.m3u8\n";
  struct scenario sc = {.scheme = "cbcs"};
  struct load_run run = {.sc = &sc, .origin = "http://h"};
  struct engine e = {.run = &run, .num_slots = 16, .lists = calloc(16, sizeof *e.lists)};
  struct body text = {.p = (uint8_t *)(uintptr_t)self, .n = sizeof self - 1};
  struct session s = {.e = &e, .body = &text, .l.sc = &sc, .next = {.step = STEP_MASTER, .path = "/self.m3u8"}};
  struct listener_got got = {0};
  struct diag d = {0};
  alloc_heap_init(&e.mem, (size_t)1 << 30);
  cr_assert_eq(engine_parse(&e, &s, &got, &d), ERR_OK, "%s", d.what);
  s.next = (struct listener_next){.step = STEP_MEDIA, .path = got.renditions[0]};
  cr_expect_eq(engine_parse(&e, &s, &got, &d), ERR_SYNTAX);
  cr_expect(strstr(d.what, "without #EXTINF"), "%s", d.what);
  free(e.lists);
  alloc_heap_free(&e.mem);
}

// What fails is read again with each retry, and leaves nothing behind.
Test(engine, what_cannot_be_read_takes_no_memory) {
  static const char live[] = "#EXTM3U\n#EXT-X-MAP:URI=\"i\"\n#EXTINF:1,\n1.m4s\n", vod[] = "#EXTM3U\n#EXT-X-MAP:URI=\"i\"\n#EXTINF:1,\n1.m4s\n#EXT-X-ENDLIST\n";
  static const char no_init[] = "<MPD mediaPresentationDuration=\"PT2S\"><Period><AdaptationSet><SegmentTemplate duration=\"1\" media=\"$Number$\"/>"
                                "<Representation/></AdaptationSet></Period></MPD>";
  static const char empty_segment[] = "\0\0\0\x2csidx\0\0\0\0\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0";
  struct media_list mpd = {.index = "/f.mp4", .index_range = {0, 44}};
  const struct {
    uint8_t step;
    bool dash;
    struct bytes text;
  } cases[] = {{STEP_MEDIA, false, BYTES_LIT(live)}, {STEP_MASTER, true, BYTES_LIT(no_init)}, {STEP_INDEX, true, BYTES_LIT(empty_segment)}};
  struct scenario sc = {.scheme = "cbcs"};
  struct load_run run = {.sc = &sc, .origin = "http://h"};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct engine e = {.run = &run, .num_slots = 16, .lists = calloc(16, sizeof *e.lists)};
    struct body text = {.p = (uint8_t *)(uintptr_t)cases[i].text.p, .n = cases[i].text.n};
    struct session s = {.e = &e, .body = &text, .l = {.sc = &sc, .dash = cases[i].dash, .index = &mpd}, .next = {.step = cases[i].step, .path = "/a"}};
    struct listener_got got = {0};
    alloc_heap_init(&e.mem, (size_t)1 << 30);
    size_t used = 0;
    for (int n = 0; n < 100; n++) {
      struct diag d = {0};
      cr_assert_eq(engine_parse(&e, &s, &got, &d), ERR_SYNTAX, "case %zu, time %d: %s", i, n, d.what);
      used = n ? used : e.mem.used;
    }
    cr_expect_eq(e.mem.used, used, "case %zu: %zu bytes after the first time, %zu after 100", i, used, e.mem.used);
    text = (struct body){.p = (uint8_t *)(uintptr_t)vod, .n = sizeof vod - 1};
    s.next.step = STEP_MEDIA;
    s.l.dash = false;
    struct diag d = {0};
    cr_expect_eq(engine_parse(&e, &s, &got, &d), ERR_OK, "case %zu: what can be read is read afterwards: %s", i, d.what);
    free(e.lists);
    alloc_heap_free(&e.mem);
  }
}
