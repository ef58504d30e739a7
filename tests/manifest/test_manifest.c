// What both forms of manifest say, their rates, and their bounds.
#include <time.h>

#include "asset.h"

Test(manifest, says_no_channels_where_a_renderer_decides) {
  struct asset s = {0};
  add(&s, "a", "iamf.001.001.Opus", 48000, 3, even, sizes, 0);
  s.h[0].format = FOURCC('i', 'a', 'm', 'f');
  s.h[0].channels = 0;
  cr_assert(has(master(&s), "CODECS=\"iamf.001.001.Opus\"") && !has(out, "CHANNELS"), "%s", out);
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "codecs=\"iamf.001.001.Opus\"") && !has(out, "AudioChannelConfiguration"), "%s", out);
  drop(&s);
}

// One segment of one track starts with a sample that is no sync sample.
Test(manifest, says_nothing_of_access_points_that_are_none) {
  struct asset s = {0};
  add(&s, "a", "mp4a.40.42", 48000, 3, even, sizes, 0);
  add(&s, "b", "mp4a.40.42", 48000, 3, even, sizes, 0);
  s.h[1].channels = 1; // a set of its own
  cr_assert(has(master(&s), "INDEPENDENT") && has(hls(&s, 0, MAN_SEGMENTS), "INDEPENDENT"));
  s.frags[1][1].flags = IX_FRAG_NOT_SYNC;
  cr_assert(!has(master(&s), "INDEPENDENT") && has(hls(&s, 0, MAN_SEGMENTS), "INDEPENDENT") && !has(hls(&s, 1, MAN_SEGMENTS), "INDEPENDENT"));
  const char *sap = strstr(mpd(&s, MAN_SEGMENTS), " startWithSAP=\"1\">");
  cr_assert(sap && !has(strchr(sap, '>'), "startWithSAP"), "of one set only: %s", out);
  sap = strstr(mpd(&s, MAN_RANGES), " subsegmentStartsWithSAP=\"1\">");
  cr_assert(sap && !has(strchr(sap, '>'), "StartsWithSAP"), "of one set only: %s", out);
  s.h[1].channels = 2;
  cr_assert(!has(mpd(&s, MAN_SEGMENTS), "WithSAP"), "one of the set: %s", out);
  // A fragment without samples before it says nothing.
  s.frags[1][1].flags = 0;
  s.frags[1][0].flags = IX_FRAG_NOT_SYNC;
  cr_assert(!has(mpd(&s, MAN_SEGMENTS), "WithSAP"));
  s.frags[1][1].first_sample = 0;
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "WithSAP"));
  drop(&s);
}

// A second without samples between the two fragments of the last segment belongs to it, as it would to any other.
Test(manifest, a_gap_within_the_last_segment_is_of_it) {
  struct asset s = {0};
  add(&s, "a", "mp4a.40.2", 48000, 3, even, sizes, 0);
  s.frags[0][2].time_ticks += 48000;
  s.frags[0][3].time_ticks = s.frags[0][2].time_ticks + 96000; // the sentinel
  s.first[0][2] = 3;
  s.segs[0].num = 2;
  cr_assert(has(hls(&s, 0, MAN_SEGMENTS), "#EXTINF:2.000000,\n1.m4s\n#EXTINF:5.000000,\n2.m4s\n#EXT-X-ENDLIST"), "%s", out);
  cr_assert(has(out, "#EXT-X-TARGETDURATION:5\n"), "%s", out);
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "<S t=\"0\" d=\"96000\"/>\n<S d=\"240000\"/>"), "%s", out);
  drop(&s);
}

// A fragment without samples has the next one's time: a gap begins where the samples before it end.
Test(manifest, an_empty_fragment_is_no_end) {
  struct asset s = {0};
  add(&s, "a", "mp4a.40.2", 48000, 4, even, sizes, 0);
  s.h[0].frame_samples = 1024;
  s.frags[0][1].duration_ticks = 0; // the second of the first segment
  s.frags[0][1].time_ticks = s.frags[0][2].time_ticks;
  s.frags[0][2].first_sample = 1;
  s.first[0][1] = 2;
  s.first[0][2] = 4;
  s.segs[0].num = 2;
  cr_assert(has(hls(&s, 0, MAN_SEGMENTS), "#EXTINF:2.000000,\n1.m4s\n#EXT-X-DISCONTINUITY\n#EXTINF:4.000000,\n2.m4s\n"), "%s", out);
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "<S t=\"0\" d=\"96000\"/>\n<S t=\"192000\" d=\"192000\"/>"), "%s", out);
  drop(&s);
}

Test(rates, peak_is_over_windows_not_over_a_short_last_segment) {
  struct asset s = {0};
  static const uint32_t ticks[8] = {96000, 96000, 96000, 4800}, bytes[8] = {1000, 3000, 1000, 900};
  add(&s, "t", "mp4a.40.2", 48000, 4, ticks, bytes, 0);
  struct writer w = wr_of(out, sizeof out - 1);
  man_hls_master(&w, &s.a, MAN_SEGMENTS);
  out[w.n] = 0;
  // 3000 bytes in 2 s; the last, 900 bytes in 0.1 s, counts with the one before it only: 1900 in 2.1 s.
  cr_assert(has(out, "BANDWIDTH=12000,AVERAGE-BANDWIDTH=7738,"), "%s", out);
  drop(&s);
}

// Half to one and a half times the target of 2 s: a burst of 0.6 s counts with 2.4 s behind it, with 2.41 s in the average only,
// which the peak is never below.
Test(rates, peak_is_over_one_and_a_half_targets_at_most) {
  static const uint32_t ticks[2][8] = {{28800, 115200, 115200}, {28800, 115680, 115680}}, bytes[8] = {6000, 1000, 1000};
  static const char *const want[] = {"BANDWIDTH=18667,AVERAGE-BANDWIDTH=11852,", "BANDWIDTH=11809,AVERAGE-BANDWIDTH=11809,"};
  for (int i = 0; i < 2; i++) {
    struct asset s = {0};
    add(&s, "t", "mp4a.40.2", 48000, 3, ticks[i], bytes, 0);
    cr_expect(has(master(&s), want[i]), "%s", out);
    drop(&s);
  }
}

// Hundreds of tiny segments in one window: the burst in the middle is found, and nothing is above it.
Test(rates, peak_of_tiny_segments) {
  struct asset s = {0};
  static const uint32_t tiny[8] = {48, 48, 48, 48, 48, 48, 48, 48}; // 1 ms
  static const uint32_t ten[8] = {10, 10, 10, 10, 10, 10, 10, 10};
  add(&s, "t", "mp4a.40.2", 48000, 4000, tiny, ten, 0);
  for (uint32_t i = 2001; i <= 4000; i++)
    s.frags[0][i].out_off += 990ull * (i - 2000 < 500 ? i - 2000 : 500); // 500 segments of 1000 bytes
  struct writer w = wr_of(out, sizeof out - 1);
  man_hls_master(&w, &s.a, MAN_SEGMENTS);
  out[w.n] = 0;
  cr_assert(has(out, "BANDWIDTH=8000000,AVERAGE-BANDWIDTH=1070000,"), "%s", out);
  drop(&s);
}

Test(empty, no_tracks_and_no_segments) {
  struct asset s = {0};
  s.a.drm = &s.set;
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "mediaPresentationDuration=\"PT0.000000S\""));
  add(&s, "a", "mp4a.40.2", 48000, 0, even, sizes, 0);
  cr_assert(has(hls(&s, 0, MAN_SEGMENTS), "#EXT-X-TARGETDURATION:1\n"));
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "<SegmentTimeline>\n</SegmentTimeline>"));
  drop(&s);
}

// 24 hours of 2 s segments: the text is written once around a measuring pass, in less time than a few requests.
Test(long_track, a_day_of_segments) {
  struct asset s = {0};
  static const uint32_t aac[8] = {96256, 96256, 95232, 96256, 96256, 95232, 96256, 96256};
  add(&s, "t", "mp4a.40.2", 48000, 43200, aac, sizes, 0);
  struct writer measure = wr_of(NULL, 0);
  man_hls_media(&measure, &s.a, 0, MAN_SEGMENTS);
  char *buf = malloc(measure.n);
  struct timespec t0, t1;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
  struct writer w = wr_of(buf, measure.n);
  man_hls_media(&w, &s.a, 0, MAN_SEGMENTS);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t1);
  cr_assert_eq(w.n, measure.n);
  cr_assert(wr_ok(&w));
  cr_assert(memmem(buf, w.n, "\n43200.m4s\n#EXT-X-ENDLIST\n", 26));
  double ms = (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6;
  cr_assert_lt(ms, 500, "%.1f ms", ms); // about 3 ms; sanitizers and busy machines need room
  struct writer one_short = wr_of(buf, measure.n - 1);
  man_hls_media(&one_short, &s.a, 0, MAN_SEGMENTS);
  cr_assert_not(wr_ok(&one_short));
  free(buf);
  drop(&s);
}
