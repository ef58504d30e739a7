// HLS playlists.
#include "asset.h"

Test(hls, media_playlist_as_it_stands) {
  struct asset s = {0};
  static const uint32_t ticks[8] = {88200, 88201, 44100};
  add(&s, "t", "mp4a.40.2", 44100, 3, ticks, sizes, 0);
  cr_assert_str_eq(hls(&s, 0, MAN_SEGMENTS),
                   "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD\n"
                   "#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"init.mp4\"\n"
                   "#EXTINF:2.000000,\n1.m4s\n#EXTINF:2.000022,\n2.m4s\n#EXTINF:1.000000,\n3.m4s\n#EXT-X-ENDLIST\n");
  cr_assert(has(hls(&s, 0, MAN_RANGES), "#EXT-X-MAP:URI=\"../t.mp4\",BYTERANGE=\"700@0\"\n"
                                        "#EXTINF:2.000000,\n#EXT-X-BYTERANGE:1000@744\n../t.mp4\n"));
  drop(&s);
}

Test(hls, durations_never_drift) {
  struct asset s = {0};
  static const uint32_t third[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  add(&s, "t", "mp4a.40.2", 3, 300, third, sizes, 0);
  const char *p = hls(&s, 0, MAN_SEGMENTS);
  unsigned long long us = 0;
  while ((p = strstr(p, "#EXTINF:"))) {
    us += strtoull(p + 8, NULL, 10) * 1000000 + strtoull(strchr(p, '.') + 1, NULL, 10);
    p++;
  }
  cr_assert_eq(us, 100000000);
  drop(&s);
}

Test(hls, rounded_times_belong_to_the_segment_before) {
  struct asset s = {0};
  add(&s, "t", "mp4a.40.2", 48000, 3, even, sizes, 0);
  s.h[0].frame_samples = 1024;
  s.frags[0][1].time_ticks += 480;
  s.frags[0][2].time_ticks += 480;
  cr_assert(has(hls(&s, 0, MAN_SEGMENTS), "#EXTINF:2.010000,\n1.m4s\n#EXTINF:2.000000,\n2.m4s\n#EXTINF:2.000000,\n3"));
  s.h[0].frame_samples = 480; // a whole sample is missing
  cr_assert(has(hls(&s, 0, MAN_SEGMENTS), "#EXTINF:2.000000,\n1.m4s\n#EXT-X-DISCONTINUITY\n#EXTINF:2.000000,\n2.m4s\n#EXTINF:2.000000,\n3"));
  drop(&s);
}

Test(hls, times_that_do_not_ascend_are_not_believed) {
  struct asset s = {0};
  add(&s, "t", "mp4a.40.2", 48000, 3, even, sizes, 0);
  s.frags[0][1].time_ticks = 0;
  cr_assert(has(hls(&s, 0, MAN_SEGMENTS), "#EXTINF:2.000000,\n1.m4s\n"), "%s", out);
  drop(&s);
}

// RFC 8216bis 4.4.3.1: no EXTINF, rounded to the nearest integer, is more than the target; 6.2.4: one target for all renditions.
Test(hls, target_duration_is_rounded_as_durations_are) {
  static const struct {
    uint32_t ticks, target;
  } rows[] = {{96000, 2}, {96256, 2}, {98304, 2}, {119999, 2}, {120000, 3}, {144000, 3}, {23999, 1}, {480, 1}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct asset s = {0};
    char want[40];
    const uint32_t ticks[8] = {480, rows[i].ticks, rows[i].ticks, 480};
    add(&s, "t", "mp4a.40.2", 48000, 4, ticks, sizes, 0);
    snprintf(want, sizeof want, "#EXT-X-TARGETDURATION:%u\n", rows[i].target);
    const char *p = hls(&s, 0, MAN_SEGMENTS);
    cr_expect(has(p, want), "%u ticks: %s", rows[i].ticks, p);
    for (; (p = strstr(p, "#EXTINF:")); p++)
      cr_expect(strtod(p + 8, NULL) < rows[i].target + 0.5, "%u ticks: %.12s", rows[i].ticks, p);
    drop(&s);
  }
}

Test(hls, a_gap_is_a_discontinuity_and_belongs_to_no_segment) {
  struct asset s = {0};
  add_with_gap(&s);
  const char *p = hls(&s, 0, MAN_RANGES);
  cr_assert(has(p, "../a.mp4\n#EXT-X-DISCONTINUITY\n#EXTINF:2.000000,\n#EXT-X-BYTERANGE:"), "%s", p);
  p = hls(&s, 0, MAN_SEGMENTS);
  cr_assert(has(p, "#EXTINF:2.000000,\n1.m4s\n#EXT-X-DISCONTINUITY\n#EXTINF:2.000000,\n2.m4s\n#EXTINF:2.000000,\n3"), "%s", p);
  cr_assert(has(p, "#EXT-X-TARGETDURATION:2\n"), "%s", p);
  drop(&s);
}

// A player that starts from session keys would miss the `identity` line, which has none; without that line it misses nothing.
Test(hls, session_keys_where_no_identity_line_is) {
  struct asset s = {0};
  add(&s, "a", "mp4a.40.2", 48000, 2, even, sizes, 0);
  s.a.scheme = s.key[0].scheme = SCHEME_CBCS;
  s.tracks[0].key = &s.key[0];
  s.set.systems = drm_bit(DRM_FAIRPLAY);
  s.set.fairplay.skd = BYTES_LIT("skd://x");
  s.set.identity = true;
  cr_assert(!has(master(&s), "SESSION-KEY") && has(hls(&s, 0, MAN_SEGMENTS), "\"identity\""), "%s", out);
  s.set.clearkey.no_identity = true;
  cr_assert(has(master(&s), "#EXT-X-SESSION-KEY:") && !has(hls(&s, 0, MAN_SEGMENTS), "\"identity\""), "%s", out);
  drop(&s);
}
