#include "keys/epochs.h"
#include "server/route.h"

#include <criterion/criterion.h>
#include <stdio.h>

static const struct {
  const char *path;
  enum route_kind kind;
  const char *asset, *track;
  enum scheme scheme;
  uint32_t epoch, segment;
} good[] = {
    {"/a/cenc/master.m3u8", ROUTE_MASTER, "a", "", SCHEME_CENC, 0, 0},
    {"/artist/album/song/cbcs/manifest.mpd", ROUTE_MPD, "artist/album/song", "", SCHEME_CBCS, 0, 0},
    {"/a/cbcs/ondemand.mpd", ROUTE_MPD_RANGES, "a", "", SCHEME_CBCS, 0, 0},
    {"/a/clear/byterange.m3u8", ROUTE_MASTER_RANGES, "a", "", SCHEME_CLEAR, 0, 0},
    {"/a/b/cbcs/7/aac-96/media.m3u8", ROUTE_MEDIA, "a/b", "aac-96", SCHEME_CBCS, 7, 0},
    {"/a/cenc/1/t/byterange.m3u8", ROUTE_MEDIA_RANGES, "a", "t", SCHEME_CENC, 1, 0},
    {"/a/cenc/1/t/init.mp4", ROUTE_INIT, "a", "t", SCHEME_CENC, 1, 0},
    {"/a/cenc/4294967295/t/4294967295.m4s", ROUTE_SEGMENT, "a", "t", SCHEME_CENC, 4294967295u, 4294967295u},
    {"/a/cenc/1/t.mp4", ROUTE_FILE, "a", "t", SCHEME_CENC, 1, 0},
    {"/a/cenc/1/init.mp4", ROUTE_FILE, "a", "init", SCHEME_CENC, 1, 0},
    {"/a/cenc/1/t/key", ROUTE_KEY, "a", "t", SCHEME_CENC, 1, 0},
    {"/a/cenc/1/license", ROUTE_LICENCE, "a", "", SCHEME_CENC, 1, 0},
    {"/cenc/cenc/cenc/1/1/1.m4s", ROUTE_SEGMENT, "cenc/cenc", "1", SCHEME_CENC, 1, 1},
    {"/a/cbcs/1/cbcs/2/init.mp4", ROUTE_FILE, "a/cbcs/1", "init", SCHEME_CBCS, 2, 0},
    {"/a/clear/7/cbcs/master.m3u8", ROUTE_MASTER, "a/clear/7", "", SCHEME_CBCS, 0, 0},
    {"/a/cenc/1/cenc/ondemand.mpd", ROUTE_MPD_RANGES, "a/cenc/1", "", SCHEME_CENC, 0, 0},
    {"/a/clear/7/cbcs/byterange.m3u8", ROUTE_MEDIA_RANGES, "a", "cbcs", SCHEME_CLEAR, 7, 0},
    {"/a b/\xc3\xa9/cbcs/1/t x.mp4", ROUTE_FILE, "a b/\xc3\xa9", "t x", SCHEME_CBCS, 1, 0},
};

Test(route, every_form_of_the_interface) {
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    struct route r;
    route_parse(&r, bytes_str(good[i].path));
    cr_expect_eq(r.kind, good[i].kind, "%s", good[i].path);
    cr_expect(bytes_eq(r.asset, bytes_str(good[i].asset)), "%s", good[i].path);
    cr_expect(bytes_eq(r.track, bytes_str(good[i].track)), "%s", good[i].path);
    cr_expect_eq(r.scheme, good[i].scheme, "%s", good[i].path);
    cr_expect_eq(r.epoch, good[i].epoch, "%s", good[i].path);
    cr_expect_eq(r.segment, good[i].segment, "%s", good[i].path);
  }
}

Test(route, everything_else_is_not_found) {
  static const char *const bad[] = {
      "",  "/", "a", "//", "/a", "/a/cenc", "/cenc/master.m3u8", "/a/cenc/", "/a//cenc/master.m3u8", "/a/cenc//master.m3u8",
      "/a/../cenc/master.m3u8", "/./cenc/master.m3u8", "/.hidden/cenc/master.m3u8", "/a/cens/master.m3u8",
      "/a/CENC/master.m3u8", "/a/cenc/master.m3u", "/a/cenc/0/t/init.mp4", "/a/cenc/01/t/init.mp4", "/a/cenc/-1/t/init.mp4",
      "/a/cenc/1/t/0.m4s", "/a/cenc/1/t/01.m4s", "/a/cenc/1/t/4294967296.m4s", "/a/cenc/1/t/99999999999999999999.m4s",
      "/a/cenc/1/t/.m4s", "/a/cenc/1/t/x.m4s", "/a/cenc/1/.mp4", "/a/cenc/4294967296/t.mp4", "/a/cenc/1/t/../t.mp4",
      "/a/cenc/1/t\n.mp4", "/a/cenc/1/t/init.mp4/", "a/cenc/1/t.mp4", "/a/cenc/1/t/media.m3u8x", "/a/cenc/1/master.m3u8",
      "/a/cenc/t/init.mp4", "/a/1/t/init.mp4",
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct route r;
    route_parse(&r, bytes_str(bad[i]));
    cr_expect_eq(r.kind, ROUTE_NONE, "'%s' is a route", bad[i]);
  }
  struct route r;
  route_parse(&r, BYTES_LIT("/a\0b/cenc/master.m3u8"));
  cr_expect_eq(r.kind, ROUTE_NONE);
  char longest[2 * ROUTE_PATH_MAX];
  memset(longest, 'a', sizeof longest);
  longest[0] = '/';
  memcpy(longest + sizeof longest - 17, "/cenc/master.m3u8", 17);
  route_parse(&r, bytes_of(longest, sizeof longest));
  cr_expect_eq(r.kind, ROUTE_NONE);
}

Test(route, what_has_a_manifest_can_be_played_and_rotated) {
  for (unsigned depth = EPOCH_MAX_DEPTH; depth < EPOCH_MAX_DEPTH + 4; depth++) {
    char asset[2 * EPOCH_MAX_DEPTH + 10] = "a", path[sizeof asset + 40];
    for (unsigned i = 1; i < depth; i++)
      memcpy(asset + 2 * i - 1, "/a", 3);
    bool good_name = epochs_scope_ok(bytes_str(asset), &(struct diag){0}) == ERR_OK;
    cr_expect_eq(good_name, depth <= EPOCH_MAX_DEPTH + 1, "%u segments", depth);
    static const char *const forms[] = {"cenc/master.m3u8", "cenc/1/t.mp4", "cenc/1/license", "cenc/1/t/init.mp4", "cenc/1/t/1.m4s", "cenc/manifest.mpd"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
      struct route r;
      snprintf(path, sizeof path, "/%s/%s", asset, forms[i]);
      route_parse(&r, bytes_str(path));
      cr_expect_eq(r.kind != ROUTE_NONE, good_name, "%u segments, %s", depth, forms[i]);
    }
  }
  char path[ROUTE_PATH_MAX + 64], track[200];
  memset(track, 't', sizeof track);
  for (size_t n = 780; n < 810; n++) {
    memset(path, 'a', sizeof path);
    path[0] = path[250] = path[500] = path[750] = '/';
    int more = snprintf(path + 1 + n, sizeof path - 1 - n, "/cbcs/4294967295/%.*s/4294967295.m4s", (int)sizeof track, track);
    struct route r;
    route_parse(&r, bytes_of(path, 1 + n + (size_t)more));
    cr_expect_eq(r.kind == ROUTE_SEGMENT, route_fits(bytes_of(path + 1, n), bytes_of(track, sizeof track)), "%zu", n);
  }
}
