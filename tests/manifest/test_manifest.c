#include "manifest/manifest.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mp4/codec.h"

// An index by hand: one fragment a segment, sizes and times as asked. Only what manifests read is filled.
struct asset {
  struct ix_header h[12];
  struct track_index ix[12];
  struct ix_frag *frags[12];
  struct ix_segments segs[12];
  uint32_t *first[12];
  struct protection prot[12];
  struct plan plan[12];
  struct key_record key[12];
  struct man_track tracks[12];
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

static const char *master(const struct asset *s) {
  struct writer w = wr_of(out, sizeof out - 1);
  man_hls_master(&w, &s->a, MAN_SEGMENTS);
  out[w.n] = 0;
  return out;
}

static const uint32_t even[8] = {96000, 96000, 96000, 96000, 96000, 96000, 96000, 96000};
static const uint32_t sizes[8] = {1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000};

static bool has(const char *text, const char *part) { return strstr(text, part) != NULL; }

static unsigned count(const char *text, const char *part) {
  unsigned n = 0;
  for (; (text = strstr(text, part)); text++)
    n++;
  return n;
}

static unsigned sets(const char *x) { return count(x, "<AdaptationSet "); }

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

// An hour without samples behind the first of three segments. RFC 8216bis 4.4.4.1: EXTINF is what the segment lasts.
static void add_with_gap(struct asset *s) {
  uint32_t t = s->a.num_tracks;
  add(s, t ? "b" : "a", "mp4a.40.2", 48000, 3, even, sizes, 0);
  s->h[t].frame_samples = 1024;
  s->frags[t][1].time_ticks += 3600ull * 48000;
  s->frags[t][2].time_ticks += 3600ull * 48000;
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

Test(dash, a_gap_is_between_two_times) {
  struct asset s = {0};
  add_with_gap(&s);
  const char *x = mpd(&s, MAN_SEGMENTS);
  cr_assert(has(x, "<S t=\"0\" d=\"96000\"/>\n<S t=\"172896000\" d=\"96000\" r=\"1\"/>\n</SegmentTimeline>"), "%s", x);
  cr_assert(has(x, "mediaPresentationDuration=\"PT3606.000000S\""), "%s", x);
  s.h[0].edit_media_time = 1024; // priming: as everywhere, off the first segment
  x = mpd(&s, MAN_SEGMENTS);
  cr_assert(has(x, "<S t=\"0\" d=\"94976\"/>\n<S t=\"172894976\" d=\"96000\" r=\"1\"/>"), "%s", x);
  s.h[0].edit_media_time = 0;
  add_with_gap(&s); // the same gap: one timeline; else two
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "media=\"1/$RepresentationID$/$Number$.m4s\""));
  s.frags[1][1].time_ticks -= 96000;
  s.frags[1][2].time_ticks -= 96000;
  cr_assert_not(has(mpd(&s, MAN_SEGMENTS), "$RepresentationID$"));
  drop(&s);
}

Test(dash, a_gap_in_one_track_is_no_alignment) {
  struct asset s = {0};
  add_with_gap(&s);
  add(&s, "b", "mp4a.40.2", 48000, 3, even, sizes, 0);
  cr_assert_eq(sets(mpd(&s, MAN_SEGMENTS)), 1, "%s", out);
  cr_assert_not(has(out, "segmentAlignment"), "%s", out);
  drop(&s);
}

// A track of 2 s segments at so many kilobits a second.
static void add_spoken(struct asset *s, const char *name, const char *codecs, const char *language, uint32_t kbits) {
  uint32_t bytes[8], t = s->a.num_tracks;
  for (int i = 0; i < 8; i++)
    bytes[i] = kbits * 250;
  add(s, name, codecs, 48000, 4, even, bytes, 0);
  s->h[t].avg_bitrate = kbits * 1000;
  snprintf(s->h[t].language, sizeof s->h[t].language, "%s", language);
  s->h[t].format = !strcmp(codecs, "flac") ? FOURCC('f', 'L', 'a', 'C') : !strcmp(codecs, "ec-3") ? FOURCC('e', 'c', '-', '3')
                                                                                             : FOURCC('m', 'p', '4', 'a');
}

// The members of a group as "NAME=track/ …", the default one with a star, then "| variant's BANDWIDTH CODECS track".
static const char *group(const char *text, const char *id) {
  static char made[2000];
  char media[60], variant[60], name[50], uri[50], codecs[80];
  unsigned long rate;
  snprintf(media, sizeof media, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"%s\",", id);
  snprintf(variant, sizeof variant, ",AUDIO=\"%s\"", id);
  made[0] = 0;
  for (const char *p = text; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
    const char *end = strchr(p, '\n'), *at;
    char line[400] = {0};
    if (!end || (size_t)(end - p) >= sizeof line)
      continue;
    memcpy(line, p, (size_t)(end - p));
    if (!strncmp(line, media, strlen(media)) && sscanf(line + strlen(media), "NAME=\"%49[^\"]", name) == 1 &&
        (at = strstr(line, "URI=\"1/")) && sscanf(at, "URI=\"1/%49[^/]", uri) == 1)
      snprintf(made + strlen(made), sizeof made - strlen(made), "%s%s=%s ", strstr(line, "DEFAULT=YES") ? "*" : "", name, uri);
    if (strstr(line, variant) && sscanf(line, "#EXT-X-STREAM-INF:BANDWIDTH=%lu,AVERAGE-BANDWIDTH=%*u,CODECS=\"%79[^\"]", &rate, codecs) == 2 &&
        sscanf(end + 1, "1/%49[^/]", uri) == 1)
      snprintf(made + strlen(made), sizeof made - strlen(made), "| %lu %s %s", rate, codecs, uri);
  }
  return made;
}

Test(groups, one_language_is_a_group_for_each_track) {
  struct asset s = {0};
  add_spoken(&s, "b", "mp4a.40.2", "eng", 128);
  add_spoken(&s, "a", "mp4a.40.2", "und", 64);
  const char *m = master(&s);
  cr_assert_str_eq(m,
                   "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n"
                   "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"b\",NAME=\"eng\",LANGUAGE=\"eng\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\","
                   "SAMPLE-RATE=48000,URI=\"1/b/media.m3u8\"\n"
                   "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"eng\",LANGUAGE=\"eng\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\","
                   "SAMPLE-RATE=48000,URI=\"1/a/media.m3u8\"\n"
                   "#EXT-X-STREAM-INF:BANDWIDTH=128000,AVERAGE-BANDWIDTH=128000,CODECS=\"mp4a.40.2\",AUDIO=\"b\"\n1/b/media.m3u8\n"
                   "#EXT-X-STREAM-INF:BANDWIDTH=64000,AVERAGE-BANDWIDTH=64000,CODECS=\"mp4a.40.2\",AUDIO=\"a\"\n1/a/media.m3u8\n");
  drop(&s);
}

// The one language goes before "und" also where most tracks do not name it.
Test(groups, one_track_speaks_for_all) {
  struct asset s = {0};
  add_spoken(&s, "a", "mp4a.40.2", "und", 64);
  add_spoken(&s, "b", "mp4a.40.2", "eng", 128);
  add_spoken(&s, "c", "mp4a.40.2", "und", 256);
  const char *m = master(&s);
  cr_assert_eq(count(m, "NAME=\"eng\",LANGUAGE=\"eng\""), 3, "%s", m);
  drop(&s);
}

Test(groups, languages_are_renditions_of_each_rung) {
  struct asset s = {0};
  add_spoken(&s, "f128", "mp4a.40.2", "fra", 132);
  add_spoken(&s, "e64", "mp4a.40.2", "eng", 64);
  add_spoken(&s, "f64", "mp4a.40.2", "fra", 60);
  add_spoken(&s, "e128", "mp4a.40.2", "eng", 128);
  const char *m = master(&s);
  cr_assert_str_eq(group(m, "e64"), "*eng=e64 fra=f64 | 64000 mp4a.40.2 e64", "%s", m);
  cr_assert_str_eq(group(m, "e128"), "*eng=e128 fra=f128 | 132000 mp4a.40.2 e128", "the rate of the highest member: %s", m);
  cr_assert_eq(count(m, "#EXT-X-STREAM-INF"), 2);
  cr_assert_eq(count(m, "#EXT-X-MEDIA"), 4);
  cr_assert_eq(count(m, "DEFAULT=NO,AUTOSELECT=YES"), 2);
  drop(&s);
}

// Fewer rungs in one language: the nearer is taken twice, and none is lost. The language with most tracks is the default.
Test(groups, the_nearest_rung_where_there_are_fewer) {
  struct asset s = {0};
  add_spoken(&s, "a300", "mp4a.40.2", "ara", 300);
  add_spoken(&s, "a128", "mp4a.40.2", "ara", 128);
  add_spoken(&s, "e64", "mp4a.40.2", "eng", 64);
  add_spoken(&s, "e128", "mp4a.40.2", "eng", 128);
  add_spoken(&s, "e256", "mp4a.40.2", "eng", 256);
  add_spoken(&s, "z", "mp4a.40.2", "und", 90);
  const char *m = master(&s);
  cr_assert_str_eq(group(m, "e64"), "*eng=e64 ara=a128 Audio=z | 128000 mp4a.40.2 e64", "%s", m);
  cr_assert_str_eq(group(m, "e128"), "*eng=e128 ara=a128 Audio=z | 128000 mp4a.40.2 e128", "%s", m);
  cr_assert_str_eq(group(m, "e256"), "*eng=e256 ara=a300 Audio=z | 300000 mp4a.40.2 e256", "%s", m);
  drop(&s);
}

// Of two that are as near, the lower.
Test(groups, the_lower_rung_of_two_as_near) {
  struct asset s = {0};
  add_spoken(&s, "e64", "mp4a.40.2", "eng", 64);
  add_spoken(&s, "e128", "mp4a.40.2", "eng", 128);
  add_spoken(&s, "e256", "mp4a.40.2", "eng", 256);
  add_spoken(&s, "f64", "mp4a.40.2", "fra", 64);
  add_spoken(&s, "f192", "mp4a.40.2", "fra", 192);
  cr_assert_str_eq(group(master(&s), "e128"), "*eng=e128 fra=f64 | 128000 mp4a.40.2 e128", "%s", out);
  drop(&s);
}

// As many rungs as groups: each is in one, however near.
Test(groups, no_rung_is_left_out) {
  struct asset s = {0};
  add_spoken(&s, "e64", "mp4a.40.2", "eng", 64);
  add_spoken(&s, "e128", "mp4a.40.2", "eng", 128);
  add_spoken(&s, "e256", "mp4a.40.2", "eng", 256);
  add_spoken(&s, "f200", "mp4a.40.2", "fra", 200);
  add_spoken(&s, "f300", "mp4a.40.2", "fra", 300);
  add_spoken(&s, "f400", "mp4a.40.2", "fra", 400);
  const char *m = master(&s);
  cr_assert_str_eq(group(m, "e64"), "*eng=e64 fra=f200 | 200000 mp4a.40.2 e64", "%s", m);
  cr_assert_str_eq(group(m, "e128"), "*eng=e128 fra=f300 | 300000 mp4a.40.2 e128", "%s", m);
  cr_assert_str_eq(group(m, "e256"), "*eng=e256 fra=f400 | 400000 mp4a.40.2 e256", "%s", m);
  drop(&s);
}

// A codec that lacks a language borrows it from AAC, which everybody plays; AAC borrows from none.
Test(groups, a_codec_without_a_language_borrows_it) {
  struct asset s = {0};
  add_spoken(&s, "e", "mp4a.40.2", "eng", 128);
  add_spoken(&s, "e-flac", "flac", "eng", 900);
  add_spoken(&s, "f64", "mp4a.40.2", "fra", 64);
  add_spoken(&s, "f256", "mp4a.40.2", "fra", 256);
  add_spoken(&s, "d-dolby", "ec-3", "deu", 384);
  add_spoken(&s, "e-dolby", "ec-3", "eng", 384);
  const char *m = master(&s);
  cr_assert_str_eq(group(m, "e-flac"), "*eng=e-flac fra=f256 | 900000 fLaC,mp4a.40.2 e-flac", "%s", m);
  cr_assert_str_eq(group(m, "e-dolby"), "*eng=e-dolby fra=f256 deu=d-dolby | 384000 ec-3,mp4a.40.2 e-dolby", "%s", m);
  cr_assert_str_eq(group(m, "f64"), "*eng=e fra=f64 | 128000 mp4a.40.2 e", "no player without Dolby loses AAC: %s", m);
  cr_assert_str_eq(group(m, "f256"), "*eng=e fra=f256 | 256000 mp4a.40.2 e", "%s", m);
  drop(&s);
}

// The same number of channels before a rate that is nearer.
Test(groups, a_layout_that_fits_is_borrowed_first) {
  struct asset s = {0};
  add_spoken(&s, "e", "flac", "eng", 900);
  add_spoken(&s, "f2", "mp4a.40.2", "fra", 800);
  add_spoken(&s, "f6", "mp4a.40.2", "fra", 300);
  s.h[0].channels = s.h[2].channels = 6;
  cr_assert_str_eq(group(master(&s), "e"), "*fra=f6 eng=e | 900000 mp4a.40.2,fLaC f6", "%s", out);
  s.h[0].channels = 2;
  cr_assert_str_eq(group(master(&s), "e"), "*fra=f2 eng=e | 900000 mp4a.40.2,fLaC f2", "%s", out);
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

// ISO/IEC 14496-12 8.6.6: an empty edit presents nothing for so long, whatever the tracks beside do meanwhile.
Test(dash, an_empty_edit_delays_its_track) {
  struct asset s = {0};
  add(&s, "t", "mp4a.40.2", 48000, 2, even, sizes, 4800000);
  add(&s, "u", "mp4a.40.2", 48000, 2, even, sizes, 4800000);
  s.h[0].edit_media_time = s.h[1].edit_media_time = 1024;
  s.ix[0].delay = 12000;
  const char *x = mpd(&s, MAN_SEGMENTS);
  cr_assert_eq(count(x, "presentationTimeOffset=\"4798976\""), 2, "%s", x);
  cr_assert(has(x, "<S t=\"4810976\" d=\"96000\" r=\"1\"/>") && has(x, "<S t=\"4798976\" d=\"96000\" r=\"1\"/>"), "%s", x);
  cr_assert(has(x, "mediaPresentationDuration=\"PT4.250000S\"") && !has(x, "segmentAlignment"), "%s", x);
  cr_assert(has(mpd(&s, MAN_RANGES), "presentationTimeOffset=\"4798976\"") && has(out, "PT4.250000S"), "%s", out);
  s.ix[1].delay = 12000;
  x = mpd(&s, MAN_SEGMENTS);
  cr_assert(count(x, "<S ") == 1 && has(x, "segmentAlignment"), "one timeline: %s", x);
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

// Priming that is skipped, and where the Period starts, are of the timeline.
Test(dash, one_timeline_skips_and_starts_the_same) {
  struct asset s = {0};
  add(&s, "a", "mp4a.40.2", 48000, 2, even, sizes, 0);
  add(&s, "b", "mp4a.40.2", 48000, 2, even, sizes, 0);
  s.h[1].edit_media_time = 1024;
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "<S t=\"0\" d=\"96000\" r=\"1\"/>") && has(out, "<S t=\"0\" d=\"94976\"/>"), "%s", out);
  s.h[1].edit_media_time = 0;
  s.frags[1][0].time_ticks += 4800;
  s.frags[1][1].time_ticks += 4800;
  cr_assert(has(mpd(&s, MAN_SEGMENTS), "<S t=\"0\" d=\"96000\" r=\"1\"/>") && has(out, "<S t=\"4800\" d=\"96000\" r=\"1\"/>"), "%s", out);
  drop(&s);
}

// ISO/IEC 23009-1 5.3.1.2: a player begins with the longest segment, and a second at least.
Test(dash, a_buffer_holds_a_segment) {
  struct asset s = {0};
  static const uint32_t half[8] = {24000, 24000};
  add(&s, "a", "mp4a.40.2", 48000, 2, half, sizes, 0);
  cr_assert(has(mpd(&s, MAN_SEGMENTS), " minBufferTime=\"PT1.000000S\""), "%s", out);
  add(&s, "b", "mp4a.40.2", 48000, 2, even, sizes, 0);
  cr_assert(has(mpd(&s, MAN_SEGMENTS), " minBufferTime=\"PT2.000000S\""), "%s", out);
  drop(&s);
}

// What the file says of its channels; without that the usual layout of so many.
Test(dash, channel_configuration_is_that_of_the_file) {
  static const struct {
    uint32_t channels, layout;
    const char *scheme;
    unsigned value;
  } v[] = {{2, 2, "urn:mpeg:dash:23003:3:audio_channel_configuration:2011", 2},
           {2, 0, "urn:mpeg:dash:23003:3:audio_channel_configuration:2011", 2},
           {4, 4, "urn:mpeg:dash:23003:3:audio_channel_configuration:2011", 4},
           {4, 10, "urn:mpeg:mpegB:cicp:ChannelConfiguration", 10},
           {7, 11, "urn:mpeg:mpegB:cicp:ChannelConfiguration", 11},
           {8, 7, "urn:mpeg:mpegB:cicp:ChannelConfiguration", 7},
           {8, 12, "urn:mpeg:mpegB:cicp:ChannelConfiguration", 12},
           {8, 14, "urn:mpeg:mpegB:cicp:ChannelConfiguration", 14},
           {8, 0, "urn:mpeg:mpegB:cicp:ChannelConfiguration", 12},
           {24, 13, "urn:mpeg:mpegB:cicp:ChannelConfiguration", 13},
           {4, CODEC_LAYOUT_NONE, NULL, 0}}; // a sound field: nothing is claimed
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
    struct asset s = {0};
    char want[160];
    add(&s, "a", "mp4a.40.2", 48000, 2, even, sizes, 0);
    s.h[0].channels = v[i].channels;
    s.ix[0].layout = v[i].layout;
    snprintf(want, sizeof want, "<AudioChannelConfiguration schemeIdUri=\"%s\" value=\"%u\"/>", v[i].scheme, v[i].value);
    cr_expect(v[i].scheme ? has(mpd(&s, MAN_SEGMENTS), want) : !has(mpd(&s, MAN_SEGMENTS), "AudioChannelConfiguration"),
              "%u channels, layout %u: %s", v[i].channels, v[i].layout, out);
    drop(&s);
  }
}

// Eight channels in two layouts are two switching sets; one that is not known is taken for the usual one.
Test(dash, layouts_are_sets_of_their_own) {
  struct asset s = {0};
  for (uint32_t i = 0; i < 3; i++) {
    add(&s, (const char *[]){"a", "b", "c"}[i], "mp4a.40.2", 48000, 2, even, sizes, 0);
    s.h[i].channels = 8;
  }
  s.ix[0].layout = 12;
  s.ix[1].layout = 7;
  cr_assert_eq(sets(mpd(&s, MAN_SEGMENTS)), 2, "%s", out);
  s.ix[1].layout = 12;
  cr_assert_eq(sets(mpd(&s, MAN_SEGMENTS)), 1, "%s", out);
  drop(&s);
}

Test(dash, speakers_and_keys_are_sets_of_their_own) {
  struct asset s = {0};
  add_spoken(&s, "a", "ec-3", "und", 384);
  add_spoken(&s, "b", "ec-3", "und", 384);
  s.h[0].channel_mask = s.h[1].channel_mask = 0xf801;
  s.tracks[0].key = s.tracks[1].key = &s.key[0];
  cr_assert_eq(sets(mpd(&s, MAN_SEGMENTS)), 1, "%s", out);
  s.h[1].channel_mask = 0xfa01;
  cr_assert_eq(sets(mpd(&s, MAN_SEGMENTS)), 2, "%s", out);
  s.h[1].channel_mask = 0xf801;
  s.tracks[1].key = &s.key[1];
  s.key[1].kid[15] = 1;
  cr_assert_eq(sets(mpd(&s, MAN_SEGMENTS)), 2, "%s", out);
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

Test(dash, alignment_is_claimed_where_it_holds) {
  struct asset s = {0};
  static const uint32_t halves[8] = {48000, 48000, 48000, 48000, 48000, 48000, 48000, 48000};
  static const uint32_t three[8] = {144000, 48000, 96000, 96000};
  add(&s, "a", "mp4a.40.2", 48000, 4, even, sizes, 0);
  cr_assert(has(mpd(&s, MAN_SEGMENTS), " segmentAlignment=\"true\" startWithSAP=\"1\">"), "one track is");
  add(&s, "b", "mp4a.40.2", 24000, 4, halves, sizes, 240000);
  const char *x = mpd(&s, MAN_SEGMENTS);
  cr_assert(has(x, "media=\"1/b/$Number$.m4s\"") && has(x, "segmentAlignment=\"true\""), "another timescale, a late start: %s", x);
  cr_assert(has(mpd(&s, MAN_RANGES), " subsegmentAlignment=\"true\" subsegmentStartsWithSAP=\"1\">"));
  add(&s, "c", "mp4a.40.2", 48000, 4, three, sizes, 0);
  x = mpd(&s, MAN_SEGMENTS);
  cr_assert_eq(count(x, "<AdaptationSet "), 1);
  cr_assert(has(x, " startWithSAP=\"1\">") && !has(x, "Alignment"), "%s", x);
  cr_assert_not(has(mpd(&s, MAN_RANGES), "Alignment"));
  drop(&s);
}

Test(dash, atmos_is_a_set_of_its_own) {
  struct asset s = {0};
  add_spoken(&s, "plain", "ec-3", "und", 384);
  add_spoken(&s, "joc", "ec-3", "und", 448);
  add_spoken(&s, "joc2", "ec-3", "und", 768);
  s.h[1].joc_complexity = s.h[2].joc_complexity = 16;
  const char *x = mpd(&s, MAN_SEGMENTS), *second = strstr(x, "<AdaptationSet id=\"2\"");
  cr_assert_eq(count(x, "<AdaptationSet "), 2, "%s", x);
  cr_assert(second && strstr(x, "id=\"plain\"") < second && strstr(x, "EC3_ExtensionType") > second && has(second, "id=\"joc2\""));
  cr_assert_eq(count(x, "EC3_ExtensionComplexityIndex"), 1);
  s.h[1].joc_complexity = 12; // then each says its own
  x = mpd(&s, MAN_SEGMENTS);
  cr_assert_eq(count(x, "<AdaptationSet "), 2, "%s", x);
  cr_assert_eq(count(x, "value=\"JOC\""), 1);
  const char *one = strstr(x, "<Representation id=\"joc\""), *two = strstr(x, "<Representation id=\"joc2\"");
  cr_assert(one && two && strstr(x, "ComplexityIndex:2018\" value=\"12\"") > one && strstr(x, "ComplexityIndex:2018\" value=\"16\"") > two, "%s", x);
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
