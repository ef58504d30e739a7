#include "manifest/manifest.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

// An index by hand: one fragment a segment, sizes and times as asked. Only what manifests read is filled.
struct asset {
  struct ix_header h[4];
  struct track_index ix[4];
  struct ix_frag *frags[4];
  struct ix_segments segs[4];
  uint32_t *first[4];
  struct protection prot[4];
  struct plan plan[4];
  struct key_record key[4];
  struct man_track tracks[4];
  struct drm_settings set;
  struct man_asset a;
};

static void add(struct asset *s, const char *name, const char *codecs, uint32_t timescale, uint32_t num,
                const uint32_t *ticks, const uint32_t *bytes, uint64_t start) {
  uint32_t t = s->a.num_tracks++;
  s->frags[t] = calloc(num + 1, sizeof(struct ix_frag));
  s->first[t] = calloc(num + 1, sizeof(uint32_t));
  uint64_t at = start, off = 0;
  for (uint32_t i = 0; i <= num; i++) {
    s->first[t][i] = i;
    s->frags[t][i] = (struct ix_frag){.out_off = off, .time_ticks = i < num ? at : 0, .first_sample = i};
    if (i == num)
      break;
    s->frags[t][i].out_len = bytes[i % 8];
    s->frags[t][i].duration_ticks = ticks[i % 8];
    off += bytes[i % 8];
    at += ticks[i % 8];
  }
  s->h[t] = (struct ix_header){.timescale = timescale, .format = FOURCC('m', 'p', '4', 'a'), .sample_rate = timescale,
                               .channels = 2, .num_frags = num, .avg_bitrate = bytes[0], .language = "und"};
  snprintf(s->h[t].codecs, sizeof s->h[t].codecs, "%s", codecs);
  s->ix[t] = (struct track_index){.h = &s->h[t], .frags = s->frags[t]};
  s->segs[t] = (struct ix_segments){num, s->first[t]};
  s->plan[t] = (struct plan){.ix = &s->ix[t], .segs = &s->segs[t], .prot = &s->prot[t], .init_len = 700, .sidx_len = 44};
  s->tracks[t] = (struct man_track){bytes_str(name), &s->ix[t], &s->segs[t], &s->plan[t], NULL};
  s->a.tracks = s->tracks;
  s->a.epoch = 1;
  s->a.drm = &s->set;
}

static void drop(struct asset *s) {
  for (uint32_t t = 0; t < s->a.num_tracks; t++) {
    free(s->frags[t]);
    free(s->first[t]);
  }
}

static char out[1 << 16];

static const char *hls(const struct asset *s, uint32_t track, enum man_form form) {
  struct writer w = wr_of(out, sizeof out - 1);
  man_hls_media(&w, &s->a, track, form);
  out[w.n] = 0;
  return out;
}

static const char *mpd(const struct asset *s, enum man_form form) {
  struct writer w = wr_of(out, sizeof out - 1);
  man_dash(&w, &s->a, form);
  out[w.n] = 0;
  return out;
}

static const uint32_t even[8] = {96000, 96000, 96000, 96000, 96000, 96000, 96000, 96000};
static const uint32_t sizes[8] = {1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000};

static bool has(const char *text, const char *part) { return strstr(text, part) != NULL; }

Test(hls, media_playlist_as_it_stands) {
  struct asset s = {0};
  static const uint32_t ticks[8] = {88200, 88201, 44100};
  add(&s, "t", "mp4a.40.2", 44100, 3, ticks, sizes, 0);
  cr_assert_str_eq(hls(&s, 0, MAN_SEGMENTS),
                   "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:3\n#EXT-X-PLAYLIST-TYPE:VOD\n"
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

Test(hls, gaps_between_fragments_belong_to_the_segment_before) {
  struct asset s = {0};
  add(&s, "t", "mp4a.40.2", 48000, 3, even, sizes, 0);
  s.frags[0][1].time_ticks += 480;
  s.frags[0][2].time_ticks += 480;
  cr_assert(has(hls(&s, 0, MAN_SEGMENTS), "#EXTINF:2.010000,\n1.m4s\n#EXTINF:2.000000,\n2.m4s\n#EXTINF:2.000000,\n3"));
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

Test(dash, timeline_runs_and_priming) {
  struct asset s = {0};
  add(&s, "t", "mp4a.40.2", 48000, 5, even, sizes, 0);
  s.h[0].edit_media_time = 1024;
  const char *x = mpd(&s, MAN_SEGMENTS);
  // What the edit list skips is taken off the first segment.
  cr_assert(has(x, "<S t=\"0\" d=\"94976\"/>\n<S d=\"96000\" r=\"3\"/>\n</SegmentTimeline>"), "%s", x);
  cr_assert(has(x, "mediaPresentationDuration=\"PT9.978666S\""), "%s", x);
  cr_assert_not(has(x, "presentationTimeOffset"));
  s.h[0].edit_media_time = 96000; // a whole segment: it stays in the timeline
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "<S t=\"0\" d=\"96000\" r=\"4\"/>"));
  drop(&s);
}

Test(dash, a_late_start_is_an_offset_not_a_gap) {
  struct asset s = {0};
  add(&s, "t", "mp4a.40.2", 48000, 2, even, sizes, 4800000);
  s.h[0].edit_media_time = 1024;
  const char *x = mpd(&s, MAN_SEGMENTS);
  cr_assert(has(x, "presentationTimeOffset=\"4798976\""), "%s", x);
  cr_assert(has(x, "<S t=\"4798976\" d=\"96000\" r=\"1\"/>"), "%s", x);
  cr_assert(has(x, "mediaPresentationDuration=\"PT4.000000S\""), "%s", x);
  cr_assert(has(mpd(&s, MAN_RANGES), "<SegmentBase timescale=\"48000\" presentationTimeOffset=\"4798976\" indexRange=\"700-743\">"));
  drop(&s);
}

Test(dash, a_set_shares_one_timeline_or_none) {
  struct asset s = {0};
  add(&s, "a", "mp4a.40.2", 48000, 4, even, sizes, 0);
  add(&s, "b", "mp4a.40.2", 48000, 4, even, sizes, 0);
  const char *x = mpd(&s, MAN_SEGMENTS);
  cr_assert(has(x, "media=\"1/$RepresentationID$/$Number$.m4s\""));
  cr_assert_not(has(x, "media=\"1/a/"));
  s.frags[1][1].time_ticks++;
  x = mpd(&s, MAN_SEGMENTS);
  cr_assert(has(x, "media=\"1/a/$Number$.m4s\"") && has(x, "media=\"1/b/$Number$.m4s\""));
  cr_assert_not(has(x, "$RepresentationID$"));
  drop(&s);
}

Test(dash, channels_of_more_than_six) {
  struct asset s = {0};
  add(&s, "a", "opus", 48000, 2, even, sizes, 0);
  s.h[0].format = FOURCC('O', 'p', 'u', 's');
  s.h[0].channels = 8;
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "\"urn:mpeg:mpegB:cicp:ChannelConfiguration\" value=\"12\""));
  s.h[0].format = FOURCC('e', 'c', '-', '3');
  s.h[0].channel_mask = 0xfa01;
  s.h[0].joc_complexity = 16;
  const char *x = mpd(&s, MAN_SEGMENTS);
  cr_assert(has(x, "\"tag:dolby.com,2014:dash:audio_channel_configuration:2011\" value=\"FA01\""));
  cr_assert(has(x, "EC3_ExtensionComplexityIndex:2018\" value=\"16\""));
  struct writer w = wr_of(out, sizeof out - 1);
  man_hls_master(&w, &s.a, MAN_SEGMENTS);
  out[w.n] = 0;
  cr_assert(has(out, "CHANNELS=\"16/JOC\""));
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
