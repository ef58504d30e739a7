// HLS: which tracks are the renditions of which variant.
#include "asset.h"

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

// Another layout of the same codec lends a language as well; codecs other than AAC do not.
Test(groups, another_layout_of_the_codec_lends) {
  struct asset s = {0};
  add_spoken(&s, "e6", "ec-3", "eng", 384);
  add_spoken(&s, "e2", "ec-3", "eng", 192);
  add_spoken(&s, "f2", "ec-3", "fra", 192);
  s.h[0].channels = 6;
  cr_assert_str_eq(group(master(&s), "e6"), "*eng=e6 fra=f2 | 384000 ec-3 e6", "%s", out);
  s.h[2].format = FOURCC('O', 'p', 'u', 's');
  snprintf(s.h[2].codecs, sizeof s.h[2].codecs, "opus");
  cr_assert_str_eq(group(master(&s), "e6"), "*eng=e6 | 384000 ec-3 e6", "%s", out);
  drop(&s);
}

// What a rendition says of its samples, and the average of the group's highest member.
Test(groups, attributes_of_renditions) {
  struct asset s = {0};
  add_spoken(&s, "e", "flac", "eng", 900);
  add_spoken(&s, "f", "flac", "fra", 800);
  s.h[0].bit_depth = 24;
  const char *m = master(&s);
  cr_assert(has(m, "CHANNELS=\"2\",BIT-DEPTH=24,SAMPLE-RATE=48000,URI=\"1/e/"), "%s", m);
  cr_assert_eq(count(m, "BIT-DEPTH"), 1);
  cr_assert(has(m, "#EXT-X-STREAM-INF:BANDWIDTH=900000,AVERAGE-BANDWIDTH=900000,CODECS=\"fLaC\""), "%s", m);
  drop(&s);
}
