#include "base/text.h"
#include "drm/drm.h"
#include "drm/markup.h"
#include "drm/systems.h"

#include <criterion/criterion.h>

// The key of the reference packager's golden files.
static const struct key_record golden = {
    .scheme = SCHEME_CENC,
    .epoch = 1,
    .kid = "1234567890123456",
    .key = "234567890!234567",
    .iv = "3456789034567890",
    .has_iv = true,
    .asset = {(const uint8_t *)"al bum/x\"y", 10},
};

static char out[40960];

static const char *text_of(const struct writer *w) {
  cr_assert(w->n < sizeof out);
  out[w->n] = 0;
  return out;
}

static const char *box_text(const struct key_record *k, const struct drm_settings *set) {
  uint8_t box[8192];
  struct writer b = wr_of(box, sizeof box), w = wr_of(out, sizeof out);
  drm_pssh(&b, &(struct drm_input){.key = k, .set = set});
  cr_assert(wr_ok(&b));
  base64_write(&w, bytes_of(box, b.n));
  return text_of(&w);
}

static const char *hls_text(const char *tag, const struct drm_input *in) {
  struct writer w = wr_of(out, sizeof out);
  drm_hls(&w, tag, in);
  return text_of(&w);
}

static const char *mpd_text(const struct drm_input *in) {
  struct writer w = wr_of(out, sizeof out);
  drm_mpd(&w, in);
  return text_of(&w);
}

// encryption-with-multi-drms/output.mpd of the reference packager.
Test(pssh, equals_the_golden_boxes) {
  struct drm_settings set = {.in_band = drm_bit(DRM_WIDEVINE)};
  cr_assert_str_eq(box_text(&golden, &set), "AAAAOHBzc2gAAAAA7e+LqXnWSs6jyCfc1R0h7QAAABgSEDEyMzQ1Njc4OTAxMjM0NTZI49yVmwY=");
  set.in_band = drm_bit(DRM_COMMON);
  cr_assert_str_eq(box_text(&golden, &set), "AAAANHBzc2gBAAAAEHfv7MCyTQKs4zweUuL7SwAAAAExMjM0NTY3ODkwMTIzNDU2AAAAAA==");
  set.in_band = drm_bit(DRM_PLAYREADY);
  cr_assert_str_eq(
      box_text(&golden, &set),
      "AAACJnBzc2gAAAAAmgTweZhAQoarkuZb4IhflQAAAgYGAgAAAQABAPwBPABXAFIATQBIAEUAQQBEAEUAUgAgAHgAbQBsAG4AcwA9ACIAaAB0AHQA"
      "cAA6AC8ALwBzAGMAaABlAG0AYQBzAC4AbQBpAGMAcgBvAHMAbwBmAHQALgBjAG8AbQAvAEQAUgBNAC8AMgAwADAANwAvADAAMwAvAFAAbABhAHkA"
      "UgBlAGEAZAB5AEgAZQBhAGQAZQByACIAIAB2AGUAcgBzAGkAbwBuAD0AIgA0AC4AMAAuADAALgAwACIAPgA8AEQAQQBUAEEAPgA8AFAAUgBPAFQA"
      "RQBDAFQASQBOAEYATwA+ADwASwBFAFkATABFAE4APgAxADYAPAAvAEsARQBZAEwARQBOAD4APABBAEwARwBJAEQAPgBBAEUAUwBDAFQAUgA8AC8A"
      "QQBMAEcASQBEAD4APAAvAFAAUgBPAFQARQBDAFQASQBOAEYATwA+ADwASwBJAEQAPgBOAEQATQB5AE0AVABZADEATwBEAGMANQBNAEQARQB5AE0A"
      "egBRADEATgBnAD0APQA8AC8ASwBJAEQAPgA8AEMASABFAEMASwBTAFUATQA+AGwANQBMAG8AVQBnAEsAOQBLAEMAZwA9ADwALwBDAEgARQBDAEsA"
      "UwBVAE0APgA8AC8ARABBAFQAQQA+ADwALwBXAFIATQBIAEUAQQBEAEUAUgA+AA==");
  set.in_band = 0;
  cr_assert_str_eq(box_text(&golden, &set), "");
}

Test(pssh, widevine_fields_in_order) {
  struct drm_settings set = {.in_band = drm_bit(DRM_WIDEVINE),
                             .widevine = {.provider = BYTES_LIT("prov"), .content_id = BYTES_LIT("{asset}#{epoch}"),
                                          .policy = BYTES_LIT("pol")}};
  uint8_t box[256];
  struct writer b = wr_of(box, sizeof box), w = wr_of(out, sizeof out);
  drm_pssh(&b, &(struct drm_input){.key = &golden, .set = &set});
  hex_write(&w, bytes_of(box + 32, b.n - 32));
  // 2: key id; 3 "prov"; 4 "al%20bum/x%22y#1"; 6 "pol"; 9 'cenc'
  cr_assert_str_eq(text_of(&w), "121031323334353637383930313233343536"
                                "1a0470726f76"
                                "2210616c25323062756d2f78253232792331"
                                "3203706f6c"
                                "48e3dc959b06");
}

// Lengths of protobuf take another byte from 128 on.
Test(pssh, widevine_lengths) {
  static uint8_t provider[128], box[512];
  for (size_t n = 127; n <= 128; n++) {
    struct drm_settings set = {.in_band = drm_bit(DRM_WIDEVINE), .widevine = {.provider = bytes_of(provider, n)}};
    struct writer w = wr_of(box, sizeof box);
    drm_pssh(&w, &(struct drm_input){.key = &golden, .set = &set});
    const uint8_t *field = box + 32 + 18; // behind the key id
    cr_expect(field[0] == 0x1a && (n < 128 ? field[1] == 127 : field[1] == 0x80 && field[2] == 1), "%zu: %x %x", n, field[1], field[2]);
    cr_expect_eq(w.n, 32 + 18 + 2 + n + (n == 128) + 6);
  }
}

Test(pssh, fairplay_and_clear_have_none) {
  struct drm_settings set = {.in_band = drm_bit(DRM_FAIRPLAY) | drm_bit(DRM_CLEARKEY)};
  cr_assert_str_eq(box_text(&golden, &set), "");
  struct key_record clear = {.scheme = SCHEME_CLEAR};
  set.in_band = ~0u;
  cr_assert_str_eq(box_text(&clear, &set), "");
  set.systems = ~0u;
  cr_assert_str_eq(hls_text("EXT-X-KEY", &(struct drm_input){.key = &clear, .set = &set}), "");
  cr_assert_str_eq(mpd_text(&(struct drm_input){.key = &clear, .set = &set}), "");
}

Test(hls, lines_of_each_system_and_scheme) {
  struct drm_settings set = {.systems = drm_bit(DRM_WIDEVINE) | drm_bit(DRM_FAIRPLAY) | drm_bit(DRM_CLEARKEY),
                             .fairplay = {.skd = BYTES_LIT("skd://k/{KID}?a={asset}&s={scheme}&l={label}{x}")}};
  struct drm_input in = {.key = &golden, .set = &set, .identity_uri = BYTES_LIT("key")};
  cr_assert_str_eq(
      hls_text("EXT-X-KEY", &in),
      "#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI=\"data:text/plain;base64,"
      "AAAAOHBzc2gAAAAA7e+LqXnWSs6jyCfc1R0h7QAAABgSEDEyMzQ1Njc4OTAxMjM0NTZI49yVmwY=\",KEYID="
      "0x31323334353637383930313233343536,KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"urn:uuid:edef8ba9-79d6-4ace-a3c8-"
      "27dcd51d21ed\"\n"
      "#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI=\"data:text/plain;base64,MTIzNDU2Nzg5MDEyMzQ1Ng==\",KEYID="
      "0x31323334353637383930313233343536,KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"org.w3.clearkey\"\n");
  struct key_record cbcs = golden;
  cbcs.scheme = SCHEME_CBCS;
  set.systems = drm_bit(DRM_FAIRPLAY);
  set.identity = true;
  in.key = &cbcs;
  cr_assert_str_eq(hls_text("EXT-X-SESSION-KEY", &in),
                   "#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES,URI=\"key\",IV=0x33343536373839303334353637383930,"
                   "KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"identity\"\n"
                   "#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES,URI=\"skd://k/31323334-3536-3738-3930-313233343536?a=al%20bum/"
                   "x%22y&s=cbcs&l={x}\",KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"com.apple.streamingkeydelivery\"\n");
  set.clearkey.no_identity = true;
  cr_assert_not(strstr(hls_text("EXT-X-KEY", &in), "identity"));
}

// RFC 8216bis section 4.4.6.5: no two session keys have the same METHOD, URI, KEYFORMAT and KEYFORMATVERSIONS.
Test(hls, what_an_earlier_key_has_said_is_not_said_again) {
  struct key_record first = golden, second = golden;
  first.scheme = second.scheme = SCHEME_CBCS;
  second.kid[0] ^= 1;
  const struct key_record *earlier[] = {&first};
  struct drm_settings set = {.systems = drm_bit(DRM_WIDEVINE) | drm_bit(DRM_FAIRPLAY), .fairplay = {.skd = BYTES_LIT("skd://one")}};
  struct drm_input in = {.key = &second, .set = &set, .earlier = earlier};
  cr_assert(strstr(hls_text("EXT-X-SESSION-KEY", &in), "URI=\"skd://one\""));
  in.num_earlier = 1;
  const char *lines = hls_text("EXT-X-SESSION-KEY", &in);
  cr_assert(strstr(lines, "KEYID=0x30") && !strstr(lines, "skd:"), "%s", lines);
  set.fairplay.skd = BYTES_LIT("skd://{kid}");
  cr_assert(strstr(hls_text("EXT-X-SESSION-KEY", &in), "skd://30323334"));
}

// RFC 8216bis section 4.2: a hexadecimal-sequence has the digits 0-9 and A-F.
Test(hls, hexadecimal_sequences_are_upper_case) {
  struct drm_settings set = {.systems = drm_bit(DRM_WIDEVINE) | drm_bit(DRM_CLEARKEY), .identity = true};
  struct key_record k = {.scheme = SCHEME_CBCS, .kid = "\xab\xcd\xef\x01", .iv = "\xfe\xdc\xba\x98", .has_iv = true};
  const char *lines = hls_text("EXT-X-KEY", &(struct drm_input){.key = &k, .set = &set, .identity_uri = BYTES_LIT("key")});
  unsigned kids = 0, ivs = 0;
  for (const char *p = lines; (p = strstr(p, ",KEYID=0xABCDEF01000000000000000000000000,")); p++)
    kids++;
  for (const char *p = lines; (p = strstr(p, ",IV=0xFEDCBA98000000000000000000000000,")); p++)
    ivs++;
  cr_assert(kids == 2 && ivs == 3, "%s", lines);
}

Test(mpd, clearkey_descriptor_and_escaping) {
  struct drm_settings set = {.systems = drm_bit(DRM_CLEARKEY) | drm_bit(DRM_FAIRPLAY),
                             .clearkey = {.la_url = BYTES_LIT("https://h/l?a=<{asset}>&e={epoch}")}};
  cr_assert_str_eq(
      mpd_text(&(struct drm_input){.key = &golden, .set = &set}),
      "<ContentProtection schemeIdUri=\"urn:mpeg:dash:mp4protection:2011\" value=\"cenc\" "
      "cenc:default_KID=\"31323334-3536-3738-3930-313233343536\"/>\n"
      "<ContentProtection schemeIdUri=\"urn:uuid:e2719d58-a985-b3c9-781a-b030af78d30e\" value=\"ClearKey1.0\">"
      "<dashif:Laurl>https://h/l?a=&lt;al%20bum/x%22y&gt;&amp;e=1</dashif:Laurl>"
      "<ck:Laurl Lic_type=\"EME-1.0\">https://h/l?a=&lt;al%20bum/x%22y&gt;&amp;e=1</ck:Laurl>"
      "</ContentProtection>\n");
}

Test(given, data_of_the_key_server_is_used_as_it_is) {
  static const uint8_t box[] = {0,    0,    0,    36,   'p',  's',  's',  'h',  0,    0,    0,    0,
                                0x9a, 0x04, 0xf0, 0x79, 0x98, 0x40, 0x42, 0x86, 0xab, 0x92, 0xe6, 0x5b,
                                0xe0, 0x88, 0x5f, 0x95, 0,    0,    0,    4,    'd',  'a',  't',  'a'};
  struct drm_given given[DRM_SYSTEM_COUNT] = {
      [DRM_PLAYREADY] = {.pssh = {box, sizeof box}},
      [DRM_WIDEVINE] = {.hls_media = BYTES_LIT("#EXT-X-KEY:given\n"),
                        .hls_master = BYTES_LIT("#EXT-X-SESSION-KEY:given\n"),
                        .mpd = BYTES_LIT("<x/>")}};
  struct key_record k = golden;
  k.given = given;
  struct drm_settings set = {.systems = drm_bit(DRM_PLAYREADY) | drm_bit(DRM_WIDEVINE),
                             .in_band = drm_bit(DRM_PLAYREADY)};
  struct drm_input in = {.key = &k, .set = &set};
  cr_assert_str_eq(hls_text("EXT-X-KEY", &in),
                   "#EXT-X-KEY:given\n"
                   "#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI=\"data:text/plain;charset=UTF-16;base64,ZGF0YQ==\","
                   "KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"com.microsoft.playready\"\n");
  cr_assert(strstr(hls_text("EXT-X-SESSION-KEY", &in), "#EXT-X-SESSION-KEY:given\n#EXT-X-SESSION-KEY:METHOD"));
  const char *mpd = mpd_text(&in);
  cr_assert(strstr(mpd, "\"urn:uuid:edef8ba9-79d6-4ace-a3c8-27dcd51d21ed\"><x/></ContentProtection>"));
  cr_assert(strstr(mpd, "<cenc:pssh>AAAAJHBzc2gAAAAAmgTweZhAQoarkuZb4IhflQAAAARkYXRh</cenc:pssh>"
                        "<mspr:pro>ZGF0YQ==</mspr:pro>"));
  cr_assert_str_eq(box_text(&k, &set), "AAAAJHBzc2gAAAAAmgTweZhAQoarkuZb4IhflQAAAARkYXRh");
}

// Key servers give boxes of up to 16 KiB (keys/given.h), some more than the 15 KB of an object of our own.
Test(given, a_long_playready_box_is_used_whole) {
  enum { DATA = 16 * 1024 - 32 };
  static uint8_t box[32 + DATA], base64[DATA / 3 * 4 + 5];
  struct writer b = wr_of(box, sizeof box), want = wr_of(base64, sizeof base64);
  pssh_write(&b, drm_playready.system_id, NULL, 0, bytes_of(box + 32, DATA));
  base64_write(&want, bytes_of(box + 32, DATA));
  struct drm_given given[DRM_SYSTEM_COUNT] = {[DRM_PLAYREADY] = {.pssh = {box, sizeof box}}};
  struct key_record k = golden;
  k.given = given;
  struct drm_settings set = {.systems = drm_bit(DRM_PLAYREADY)};
  struct drm_input in = {.key = &k, .set = &set};
  cr_assert(wr_ok(&b) && wr_ok(&want));
  static char mpd[1 << 16];
  struct writer w = wr_of(mpd, sizeof mpd);
  cr_expect_not_null(memmem(hls_text("EXT-X-KEY", &in), sizeof out, base64, want.n));
  drm_mpd(&w, &in);
  cr_assert(wr_ok(&w));
  const char *pro = memmem(mpd, w.n, "<mspr:pro>", 10);
  cr_assert(pro && (size_t)(mpd + w.n - pro) > 10 + want.n && memcmp(pro + 10, base64, want.n) == 0);
}

// EXT-X-SESSION-KEY mirrors EXT-X-KEY, also where the key server gave lines for one kind of playlist only.
Test(given, lines_for_one_playlist_serve_the_other) {
  struct drm_given given[DRM_SYSTEM_COUNT] = {
      [DRM_WIDEVINE] = {.hls_media = BYTES_LIT("#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI=\"u:1\"\n#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI=\"u:2\"\n")},
      [DRM_CLEARKEY] = {.hls_master = BYTES_LIT("#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES-CTR,URI=\"u:3\"\n")}};
  struct key_record k = golden;
  k.given = given;
  struct drm_settings set = {.systems = drm_bit(DRM_WIDEVINE) | drm_bit(DRM_CLEARKEY)};
  struct drm_input in = {.key = &k, .set = &set};
  cr_assert_str_eq(hls_text("EXT-X-KEY", &in), "#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI=\"u:1\"\n#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI=\"u:2\"\n"
                                               "#EXT-X-KEY:METHOD=SAMPLE-AES-CTR,URI=\"u:3\"\n");
  cr_assert_str_eq(hls_text("EXT-X-SESSION-KEY", &in),
                   "#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES-CTR,URI=\"u:1\"\n#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES-CTR,URI=\"u:2\"\n"
                   "#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES-CTR,URI=\"u:3\"\n");
}

Test(playready, a_header_over_its_limit_is_left_out_whole) {
  static char url[1 << 13];
  memset(url, 'u', sizeof url);
  struct drm_settings set = {.in_band = drm_bit(DRM_PLAYREADY), .playready = {.custom = bytes_of(url, sizeof url)}};
  struct drm_input in = {.key = &golden, .set = &set};
  set.systems = set.in_band;
  cr_assert_str_eq(box_text(&golden, &set), "");
  cr_expect_str_eq(hls_text("EXT-X-KEY", &in), "");
  cr_expect_null(strstr(mpd_text(&in), "9a04f079"), "%s", out);
  set.playready.custom.n = 1000;
  set.playready.lui_url = BYTES_LIT("https://l/");
  cr_assert_gt(strlen(box_text(&golden, &set)), 2000);
  cr_expect_not_null(strstr(hls_text("EXT-X-KEY", &in), "com.microsoft.playready"));
  cr_expect_not_null(strstr(mpd_text(&in), "9a04f079"));
  uint8_t box[1 << 13];
  struct writer w = wr_of(box, sizeof box);
  drm_pssh(&w, &in);
  cr_expect_not_null(memmem(box, w.n, "<\0L\0U\0I\0_\0U\0R\0L\0>\0h\0", 20));
}

Test(lists, systems_by_name) {
  uint32_t m = 77;
  cr_assert_eq(drm_parse_list(&m, BYTES_LIT("widevine,common")), ERR_OK);
  cr_assert_eq(m, drm_bit(DRM_WIDEVINE) | drm_bit(DRM_COMMON));
  cr_assert_eq(drm_parse_list(&m, BYTES_LIT("all")), ERR_OK);
  cr_assert_eq(m, 31);
  cr_assert_eq(drm_parse_list(&m, BYTES_LIT("widevine,")), ERR_SYNTAX);
  cr_assert_eq(drm_parse_list(&m, BYTES_LIT("Widevine")), ERR_SYNTAX);
  cr_assert_eq(drm_parse_list(&m, BYTES_LIT(",widevine")), ERR_SYNTAX);
  cr_assert_eq(drm_parse_list(&m, BYTES_LIT("widevine,none")), ERR_SYNTAX);
  cr_assert_eq(drm_parse_list(&m, BYTES_LIT("none,widevine")), ERR_SYNTAX);
  cr_assert_eq(m, 31);
  cr_assert_eq(drm_parse_list(&m, BYTES_LIT("none")), ERR_OK);
  cr_assert_eq(m, 0);
  for (unsigned s = 0; s < DRM_SYSTEM_COUNT; s++)
    cr_assert_eq(drm_by_id(drm_systems[s]->system_id), s);
  cr_assert_eq(drm_by_id(golden.kid), DRM_SYSTEM_COUNT);
}

Test(labels, lossless_apart_only_when_asked) {
  struct drm_settings set = {0};
  cr_assert_eq(drm_label(&set, FOURCC('f', 'L', 'a', 'C')).n, 0);
  set.per_tier = true;
  cr_assert(bytes_eq(drm_label(&set, FOURCC('f', 'L', 'a', 'C')), BYTES_LIT("lossless")));
  cr_assert(bytes_eq(drm_label(&set, FOURCC('a', 'l', 'a', 'c')), BYTES_LIT("lossless")));
  cr_assert_eq(drm_label(&set, FOURCC('m', 'p', '4', 'a')).n, 0);
}

Test(markup, xml_and_percent_take_any_byte) {
  struct writer w = wr_of(out, sizeof out);
  xml_write(&w, BYTES_LIT("a<&>\"'\n\x01\xff\xc3\xa9\xed\xa0\x80\xf0\x9f\x8e\xb5\xef\xbf\xbf\xc0\x80"));
  cr_assert_str_eq(text_of(&w), "a&lt;&amp;&gt;&quot;&#39;&#10;\xef\xbf\xbd\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd"
                                "\xef\xbf\xbd\xf0\x9f\x8e\xb5\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
  w = wr_of(out, sizeof out);
  percent_write(&w, BYTES_LIT("a/b c%$\x00\xff~"), true);
  cr_assert_str_eq(text_of(&w), "a/b%20c%25%24%00%FF~");
  w = wr_of(out, sizeof out);
  percent_write(&w, BYTES_LIT("a/b"), false);
  cr_assert_str_eq(text_of(&w), "a%2Fb");
  w = wr_of(out, sizeof out);
  xml_write(&w, BYTES_LIT("\x7f"));
  cr_assert_str_eq(text_of(&w), "\xef\xbf\xbd");
  w = wr_of(out, sizeof out);
  hls_quoted_write(&w, BYTES_LIT("a\"\n\x1f \x7f\xc3\xa9"));
  cr_assert_str_eq(text_of(&w), "a%22%0A%1F %7F\xc3\xa9");
}

// An asset's slashes are those of a path; a label is one segment of it.
Test(markup, templates_of_names_with_slashes) {
  struct key_record k = golden;
  uint8_t buf[TEMPLATE_MAX];
  k.asset = BYTES_LIT("a/b");
  k.label = BYTES_LIT("c/d");
  cr_assert(bytes_eq(template_expand(buf, BYTES_LIT("{asset} {label}"), &k), BYTES_LIT("a/b c%2Fd")));
}

Test(protection, ivs_by_scheme) {
  size_t n;
  const struct aes_ops *ops = aes_ops_all(&n)[0];
  uint8_t digest[32] = {1};
  struct protection p;
  key_record_protection(&p, &golden, ops, digest, 7);
  uint8_t iv[16] = {0};
  cenc_iv_base(iv, golden.key, digest, 7);
  cr_assert_arr_eq(p.iv, iv, 16); // a constant IV that came with the key never seeds CTR
  struct key_record k = golden;
  k.scheme = SCHEME_CBCS;
  key_record_protection(&p, &k, ops, digest, 7);
  cr_assert_arr_eq(p.iv, golden.iv, 16);
  k.has_iv = false;
  key_record_protection(&p, &k, ops, digest, 7);
  cbcs_iv(iv, k.key);
  cr_assert_arr_eq(p.iv, iv, 16);
  cr_assert_arr_eq(p.kid, k.kid, 16);
}

Test(protection, a_wiped_record_holds_neither_key_nor_iv) {
  static const uint8_t zeros[16];
  struct key_record k = golden;
  memset(k.key, 1, 16), memset(k.iv, 2, 16);
  key_record_wipe(&k);
  cr_assert_arr_eq(k.key, zeros, 16);
  cr_assert_arr_eq(k.iv, zeros, 16);
  cr_assert_arr_eq(k.kid, golden.kid, 16);
}

// Source: ISO/IEC 23001-7 8.1.
Test(pssh, data_of_whole_boxes_only) {
#define ID "ssssssssssssssss"
  static const struct {
    struct bytes box;
    const char *want;
  } rows[] = {
      {BYTES_LIT("\0\0\0\x24pssh\0\0\0\0" ID "\0\0\0\4data"), "data"},
      {BYTES_LIT("\0\0\0\x48pssh\1\0\0\0" ID "\0\0\0\2kkkkkkkkkkkkkkkkllllllllllllllll\0\0\0\4data"), "data"},
      {BYTES_LIT("\0\0\0\x25pssh\0\0\0\0" ID "\0\0\0\4data"), ""},      // its size is another one
      {BYTES_LIT("\0\0\0\x25pssh\0\0\0\0" ID "\0\0\0\4data!"), ""},     // a byte behind the data
      {BYTES_LIT("\0\0\0\x24pssh\0\0\0\0" ID "\0\0\0\5data"), ""},
      {BYTES_LIT("\0\0\0\x24psst\0\0\0\0" ID "\0\0\0\4data"), ""},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    cr_expect(bytes_eq(drm_pssh_data(rows[i].box), bytes_str(rows[i].want)), "row %zu", i);
}

// Sequences of UTF-8 at the bounds of each length, and what is none: RFC 3629 §3, §10.
Test(markup, utf8_at_its_bounds) {
  static const struct {
    struct bytes text;
    uint32_t want;
    size_t len;
  } rows[] = {
      {BYTES_LIT("\x7f"), 0x7f, 1},           {BYTES_LIT("\xc2\x80"), 0x80, 2},           {BYTES_LIT("\xdf\xbf"), 0x7ff, 2},
      {BYTES_LIT("\xe0\xa0\x80"), 0x800, 3},  {BYTES_LIT("\xed\x9f\xbf"), 0xd7ff, 3},     {BYTES_LIT("\xee\x80\x80"), 0xe000, 3},
      {BYTES_LIT("\xef\xbf\xbf"), 0xffff, 3}, {BYTES_LIT("\xf0\x90\x80\x80"), 0x10000, 4}, {BYTES_LIT("\xf4\x8f\xbf\xbf"), 0x10ffff, 4},
      {BYTES_LIT("\xc1\xbf"), 0xfffd, 1},     {BYTES_LIT("\xe0\x9f\xbf"), 0xfffd, 1},     {BYTES_LIT("\xf0\x8f\xbf\xbf"), 0xfffd, 1},
      {BYTES_LIT("\xed\xa0\x80"), 0xfffd, 1}, {BYTES_LIT("\xed\xbf\xbf"), 0xfffd, 1},     {BYTES_LIT("\xf4\x90\x80\x80"), 0xfffd, 1},
      {BYTES_LIT("\x80"), 0xfffd, 1},         {BYTES_LIT("\xe2\x82"), 0xfffd, 1},         {BYTES_LIT("\xe2\x82\x2e"), 0xfffd, 1},
      {BYTES_LIT("\xf5\x80\x80\x80"), 0xfffd, 1},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    uint8_t exact[4]; // what stands behind the text must not count
    memset(exact, 0x80, sizeof exact);
    memcpy(exact, rows[i].text.p, rows[i].text.n);
    struct bytes text = bytes_of(exact, rows[i].text.n);
    uint32_t got = utf8_next(&text);
    cr_expect(got == rows[i].want && rows[i].text.n - text.n == rows[i].len, "row %zu: U+%04X", i, got);
  }
}

// The limit is of the whole object, its head included; and the first code point that takes two units of UTF-16.
Test(playready, objects_up_to_their_limit) {
  enum { MAX = 15 * 1024, HEAD = 10 };
  static char custom[1 << 13];
  static uint8_t box[1 << 15];
  memset(custom, 'u', sizeof custom);
  struct drm_settings set = {.in_band = drm_bit(DRM_PLAYREADY), .playready = {.custom = bytes_of(custom, 1)}};
  struct drm_input in = {.key = &golden, .set = &set};
  struct writer w = wr_of(box, sizeof box);
  drm_pssh(&w, &in);
  size_t chars = (MAX - (w.n - 32)) / 2; // that more may stand there: the object has w.n - 32 bytes
  for (size_t more = 0; more < 2; more++) {
    set.playready.custom.n = 1 + chars + more;
    w = wr_of(box, sizeof box);
    drm_pssh(&w, &in);
    cr_expect_eq(w.n != 0, more == 0, "%zu bytes", w.n);
    cr_expect(more || w.n == 32 + MAX);
  }
  set.playready.custom = BYTES_LIT("\xf0\x90\x80\x80");
  w = wr_of(box, sizeof box);
  drm_pssh(&w, &in);
  cr_expect_not_null(memmem(box, w.n, "\x00\xd8\x00\xdc", 4));
}
