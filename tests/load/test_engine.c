// What the engine makes of the answers: playlists that are shared, bodies that come compressed.
#include "load/session.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

Test(engine, keeps_as_many_playlists_as_there_are) {
  enum { LISTS = 20000 };
  static const char master[] = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=97000\n1/a/media.m3u8\n";
  struct scenario sc = {.scheme = "cbcs"};
  struct load_run run = {.sc = &sc, .origin = "http://h"};
  struct engine e = {.run = &run, .num_slots = 16, .lists = calloc(16, sizeof *e.lists)};
  struct body text = {.p = (uint8_t *)(uintptr_t)master, .n = sizeof master - 1};
  struct session s = {.e = &e, .body = &text, .l.sc = &sc, .next.step = STEP_MASTER};
  struct diag d = {0};
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
  engine_lists_free(&e);
}

// Manifests that differ from answer to answer: what listeners hold stays, also where one waits for what its multivariant playlist
// leads to; what nobody holds goes.
Test(engine, keeps_what_is_held_of_manifests_that_differ) {
  enum { SEGMENTS = 500, TIMES = 400, HOLDERS = 3, NAME = 400 }; // long names: much memory for little reading
  static char text[SEGMENTS * (NAME + 40) + 256];
  struct scenario sc = {.scheme = "cbcs"};
  struct load_run run = {.sc = &sc, .origin = "http://h"};
  struct session sessions[HOLDERS + 1] = {0};
  struct engine e = {.run = &run, .num_slots = 16, .lists = calloc(16, sizeof *e.lists), .sessions = sessions, .num_used = HOLDERS + 1};
  struct listener_got held[HOLDERS] = {0};
  struct diag d = {0};
  size_t most = 0;
  for (uint32_t n = 0; n < TIMES; n++) {
    uint32_t who = n < HOLDERS ? n : HOLDERS;
    bool master = n == 0;
    struct session *s = &sessions[who];
    size_t used = (size_t)snprintf(text, sizeof text, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=%u\nmedia-%u.m3u8\n", n + 1, n);
    if (!master) {
      used = (size_t)snprintf(text, sizeof text, "#EXTM3U\n# for listener %u\n#EXT-X-MAP:URI=\"i\"\n", n);
      for (uint32_t i = 0; i < SEGMENTS; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "#EXTINF:1,\n%u-%0*u.m4s\n", n, NAME, i);
      used += (size_t)snprintf(text + used, sizeof text - used, "#EXT-X-ENDLIST\n");
    }
    cr_assert_lt(used, sizeof text);
    struct body body = {.p = (uint8_t *)text, .n = used};
    struct listener_got got = {0};
    *s = (struct session){.e = &e, .in_use = true, .body = &body, .l.sc = &sc, .next = {.step = master ? STEP_MASTER : STEP_MEDIA, .path = "/a/m.m3u8"}};
    cr_assert_eq(engine_parse(&e, s, &got, &d), ERR_OK, "%u: %s", n, d.what);
    s->l.list = master ? NULL : got.list;
    s->body = NULL;
    if (n == 2) // it seeks the next track: what it plays is no more what it has read last
      s->list = NULL;
    if (n < HOLDERS)
      held[n] = got;
    most = e.lists_used > most ? e.lists_used : most;
  }
  cr_expect_lt(most, (size_t)2 * ENGINE_LISTS_KEPT, "%zu bytes", most);
  cr_expect_str_eq(held[0].renditions[0], "/a/media-0.m3u8");
  for (uint32_t n = 1; n < HOLDERS; n++) {
    char want[NAME + 64];
    snprintf(want, sizeof want, "/a/%u-%0*u.m4s", n, NAME, SEGMENTS - 1);
    cr_expect_str_eq(held[n].list->uris + held[n].list->uri_off[SEGMENTS - 1], want);
  }
  engine_lists_free(&e);
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
  cr_assert_eq(engine_parse(&e, &s, &got, &d), ERR_OK, "%s", d.what);
  s.next = (struct listener_next){.step = STEP_MEDIA, .path = got.renditions[0]};
  cr_expect_eq(engine_parse(&e, &s, &got, &d), ERR_SYNTAX);
  cr_expect(strstr(d.what, "without #EXTINF"), "%s", d.what);
  engine_lists_free(&e);
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
    size_t used = 0;
    for (int n = 0; n < 100; n++) {
      struct diag d = {0};
      cr_assert_eq(engine_parse(&e, &s, &got, &d), ERR_SYNTAX, "case %zu, time %d: %s", i, n, d.what);
      used = n ? used : e.lists_used;
    }
    cr_expect_eq(e.lists_used, used, "case %zu: %zu bytes after the first time, %zu after 100", i, used, e.lists_used);
    text = (struct body){.p = (uint8_t *)(uintptr_t)vod, .n = sizeof vod - 1};
    s.next.step = STEP_MEDIA;
    s.l.dash = false;
    struct diag d = {0};
    cr_expect_eq(engine_parse(&e, &s, &got, &d), ERR_OK, "case %zu: what can be read is read afterwards: %s", i, d.what);
    engine_lists_free(&e);
  }
}

// ---- bodies that come compressed

// Packs as gzip; `n` bytes of `text`, or of zeros where that is NULL.
static struct body packed(const char *text, size_t n) {
  static uint8_t zeros[1 << 20];
  struct body b = {.cap = n / 100 + 1000};
  z_stream z = {.next_out = b.p = malloc(b.cap), .avail_out = (uInt)b.cap};
  cr_assert(b.p && deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  for (size_t left = n; left; left -= z.total_in - (n - left)) {
    z.next_in = text ? (uint8_t *)(uintptr_t)text + n - left : zeros;
    z.avail_in = (uInt)(text || left < sizeof zeros ? left : sizeof zeros);
    cr_assert_eq(deflate(&z, Z_NO_FLUSH), Z_OK);
  }
  cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
  b.n = z.total_out;
  deflateEnd(&z);
  return b;
}

static struct body twice(struct body b) {
  struct body out = {.p = malloc(2 * b.n), .n = 2 * b.n, .cap = 2 * b.n};
  memcpy(out.p, b.p, b.n);
  memcpy(out.p + b.n, b.p, b.n);
  free(b.p);
  return out;
}

#define TEXT "#EXTM3U\n#EXT-X-TARGETDURATION:2\n"

Test(unpack, gives_what_was_packed) {
  static const char *const names[] = {"gzip", "x-gzip", "GZip"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    struct body b = packed(TEXT, sizeof TEXT - 1);
    struct diag d = {0};
    cr_assert_eq(body_unpack(&b, names[i], &d), ERR_OK, "%s: %s", names[i], d.what);
    cr_expect(b.n == sizeof TEXT - 1 && !memcmp(b.p, TEXT, b.n));
    cr_expect_eq(body_unpack(&b, "", &d), ERR_OK);
    cr_expect_eq(body_unpack(&b, "identity", &d), ERR_OK);
    cr_expect(b.n == sizeof TEXT - 1 && !memcmp(b.p, TEXT, b.n), "and leaves alone what is not");
    free(b.p);
  }
  struct body unsaid = packed(TEXT, sizeof TEXT - 1);
  struct diag why = {0};
  cr_expect(body_unpack(&unsaid, "", &why) == ERR_SYNTAX && strstr(why.what, "no Content-Encoding says so"), "%s", why.what);
  free(unsaid.p);
  struct body b = twice(packed(TEXT, sizeof TEXT - 1)), big = packed(NULL, 1000000);
  struct diag d = {0};
  cr_assert_eq(body_unpack(&b, "gzip", &d), ERR_OK, "several members: %s", d.what);
  cr_expect(b.n == 2 * (sizeof TEXT - 1) && !memcmp(b.p, TEXT TEXT, b.n));
  cr_assert_eq(body_unpack(&big, "gzip", &d), ERR_OK, "many pieces: %s", d.what);
  cr_expect_eq(big.n, 1000000);
  free(b.p);
  free(big.p);
}

Test(unpack, refuses_what_is_none) {
  struct body b = packed(TEXT, sizeof TEXT - 1);
  size_t n = b.n;
  for (b.n = 0; b.n < n; b.n++) {
    struct diag d = {0};
    cr_expect(body_unpack(&b, "gzip", &d) == ERR_SYNTAX && strstr(d.what, "cut off"), "%zu of %zu bytes: %s", b.n, n, d.what);
  }
  for (size_t i = 0; i < n; i++) {
    struct diag d = {0};
    if ((i >= 4 && i < 10) || i == n - 9) // time, flags of the compressor, system; what fills up the last byte: nobody's business
      continue;
    b.p[i] ^= 0x80;
    cr_assert(body_unpack(&b, "gzip", &d) == ERR_SYNTAX && d.what[0], "byte %zu of %zu: %s", i, n, d.what);
    b.p[i] ^= 0x80;
  }
  static const char *const other[] = {"br", "deflate", "gzip,gzip", "zstd"};
  for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
    struct diag d = {0};
    cr_expect(body_unpack(&b, other[i], &d) == ERR_UNSUPPORTED && strstr(d.what, other[i]), "%s: %s", other[i], d.what);
  }
  b.n = n;
  struct diag d = {0};
  cr_expect_eq(body_unpack(&b, "gzip", &d), ERR_OK, "after all that it is as it was: %s", d.what);
  free(b.p);
}

Test(unpack, has_a_limit) {
  struct body most = packed(NULL, BODY_MAX), bomb = packed(NULL, (size_t)BODY_MAX + 1);
  struct diag d = {0};
  cr_expect_eq(body_unpack(&most, "gzip", &d), ERR_OK, "%s", d.what);
  cr_expect_eq(most.n, BODY_MAX);
  cr_expect(body_unpack(&bomb, "gzip", &d) == ERR_LIMIT && strstr(d.what, "more than 64 MB"), "%s", d.what);
  free(most.p);
  free(bomb.p);
}
