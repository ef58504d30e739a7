// DASH MPDs.
#include "asset.h"

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

// The sets as "LANGUAGE=ROLE ", in their order.
static const char *roles(const char *x) {
  static char made[400];
  made[0] = 0;
  for (const char *set = x; (set = strstr(set, "<AdaptationSet ")); set++) {
    char lang[20] = "", role[20] = "";
    const char *head_end = strchr(set, '>'), *at = strstr(set, " lang=\"");
    if (at && at < head_end)
      sscanf(at, " lang=\"%19[^\"]", lang);
    at = strstr(set, "role:2011\" value=\"");
    if (at)
      sscanf(at, "role:2011\" value=\"%19[^\"]", role);
    snprintf(made + strlen(made), sizeof made - strlen(made), "%s=%s ", lang, role);
  }
  return made;
}

// Players begin with what is main, or with the first set: the default language of HLS, in each codec.
Test(dash, one_language_is_main) {
  struct asset s = {0};
  add_spoken(&s, "d", "mp4a.40.2", "de", 96);
  add_spoken(&s, "e1", "mp4a.40.2", "en", 96);
  cr_assert_str_eq(roles(mpd(&s, MAN_SEGMENTS)), "de=main en=alternate ", "as many of each: by name: %s", out);
  add_spoken(&s, "e2", "mp4a.40.2", "en", 160);
  add_spoken(&s, "f", "flac", "de", 900);
  add_spoken(&s, "e3", "flac", "en", 900);
  add_spoken(&s, "n", "mp4a.40.2", "und", 64);
  for (enum man_form form = MAN_SEGMENTS; form <= MAN_RANGES; form++)
    cr_assert_str_eq(roles(mpd(&s, form)), "en=main de=alternate =alternate en=main de=alternate ", "%s", out);
  for (int i = 0; i < 5; i++)
    snprintf(s.h[i].language, sizeof s.h[i].language, "fr");
  cr_assert_str_eq(roles(mpd(&s, MAN_SEGMENTS)), "fr=main =main fr=main ", "one language, and a track that names none: %s", out);
  drop(&s);
}

// Sets are tied where nothing differs but the key: players may go from one to the other then.
Test(dash, sets_that_differ_in_their_key_are_tied) {
  struct asset s = {0};
  add_spoken(&s, "a", "mp4a.40.2", "eng", 64);
  add_spoken(&s, "b", "flac", "eng", 900);
  s.tracks[0].key = &s.key[0];
  s.tracks[1].key = &s.key[1];
  s.key[1].kid[0] = 1;
  const char *x = mpd(&s, MAN_SEGMENTS);
  cr_assert(has(x, "adaptation-set-switching:2016\" value=\"2\"") && has(x, "adaptation-set-switching:2016\" value=\"1\""), "%s", x);
  snprintf(s.h[1].language, sizeof s.h[1].language, "fra");
  cr_assert(!has(mpd(&s, MAN_SEGMENTS), "switching"), "another language: %s", out);
  snprintf(s.h[1].language, sizeof s.h[1].language, "eng");
  s.h[1].channels = 6;
  cr_assert(!has(mpd(&s, MAN_SEGMENTS), "switching"), "other speakers: %s", out);
  s.h[1].channels = 2;
  s.tracks[1].key = &s.key[0];
  cr_assert(!has(mpd(&s, MAN_SEGMENTS), "switching"), "one key: %s", out);
  drop(&s);
}

// An xs:unsignedInt, whatever the rate.
Test(dash, a_bandwidth_of_32_bits) {
  static const uint32_t large[8] = {1u << 31, 1u << 31, 1u << 31, 1u << 31, 1u << 31, 1u << 31, 1u << 31, 1u << 31};
  struct asset s = {0};
  add(&s, "a", "mp4a.40.2", 48000, 2, even, large, 0);
  cr_assert(has(mpd(&s, MAN_SEGMENTS), " bandwidth=\"4294967295\""), "%s", out);
  drop(&s);
}

// Within a set by rate, then by name, in whatever order tracks are given; other codecs= are other sets.
Test(dash, the_order_of_tracks) {
  struct asset s = {0};
  add_spoken(&s, "c", "mp4a.40.2", "und", 64);
  add_spoken(&s, "bb", "mp4a.40.2", "und", 64);
  add_spoken(&s, "b", "mp4a.40.2", "und", 64);
  add_spoken(&s, "z", "mp4a.40.2", "und", 32);
  const char *x = mpd(&s, MAN_SEGMENTS), *z = strstr(x, "id=\"z\""), *b = strstr(x, "id=\"b\""), *bb = strstr(x, "id=\"bb\""), *c = strstr(x, "id=\"c\"");
  cr_assert(z && z < b && b < bb && bb < c && sets(x) == 1, "%s", x);
  snprintf(s.h[3].codecs, sizeof s.h[3].codecs, "mp4a.40.5");
  x = mpd(&s, MAN_SEGMENTS);
  cr_assert(sets(x) == 2 && has(x, "codecs=\"mp4a.40.5\""), "%s", x);
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
