#include "derived.h"
#include "document.h"
#include "keys/cpix.h"
#include "keys/given.h"

#include <stdio.h>
#include <stdlib.h>

TestSuite(cpix, .init = setup, .fini = teardown);
TestSuite(speke, .init = setup, .fini = teardown);

static const struct drm_settings all_systems = {.systems = 31};

static unsigned count(const char *in, const char *what) {
  unsigned n = 0;
  for (const char *p = in; (p = strstr(p, what)); p++)
    n++;
  return n;
}

// The elements and attributes that SPEKE 2 calls mandatory, in a request for one key and for two tiers.
Test(speke, requests_have_what_the_specification_demands) {
  struct key_query both[2] = {query, lossless};
  struct key_doc doc = {both, 1, &all_systems};
  const struct key_provider *p = key_provider_find(BYTES_LIT("speke2.0"));
  cr_assert_str_eq(p->headers, "X-Speke-Version: 2.0\r\n");
  cr_assert_str_eq(p->content_type, "application/xml");
  const char *t = written(p->request, &doc);
  cr_assert(strstr(t, "<cpix:CPIX xmlns:cpix=\"urn:dashif:org:cpix\" xmlns:pskc=\"urn:ietf:params:xml:ns:keyprov:pskc\" "
                      "contentId=\"al&lt;b&gt;um/x&quot;y\" version=\"2.3\">"));
  cr_assert_eq(count(t, "<cpix:ContentKey kid="), 1);
  cr_assert_eq(count(t, "commonEncryptionScheme=\"cbcs\""), 1);
  cr_assert_eq(count(t, "<cpix:DRMSystem kid="), 3); // ClearKey and common need no key server
  cr_assert_eq(count(t, "<cpix:PSSH/>"), 2);
  cr_assert_eq(count(t, "<cpix:ContentProtectionData/>"), 2);
  cr_assert_eq(count(t, "<cpix:HLSSignalingData playlist=\"media\"/>"), 3);
  cr_assert_eq(count(t, "<cpix:HLSSignalingData playlist=\"master\"/>"), 3);
  cr_assert_eq(count(t, "intendedTrackType=\"AUDIO\"><cpix:AudioFilter/></cpix:ContentKeyUsageRule>"), 1);
  doc.num_queries = 2;
  p = key_provider_find(BYTES_LIT("speke2.1"));
  cr_assert_str_eq(p->headers, "X-Speke-Version: 2.1\r\n");
  t = written(p->request, &doc);
  cr_assert(strstr(t, "version=\"2.4\""));
  cr_assert_eq(count(t, "<cpix:ContentKey kid="), 2);
  cr_assert_eq(count(t, "<cpix:HLSSignalingData playlist=\"multiVariant\"/>"), 6);
  cr_assert_eq(count(t, "<cpix:LabelFilter label=\"lossless\"/>"), 1);
  both[0].scheme = both[1].scheme = SCHEME_CENC; // no FairPlay there
  cr_assert_eq(count(written(p->request, &doc), "<cpix:DRMSystem kid="), 4);
}

// An answer for `query`, part by part, so that tests can spoil each.
struct answer {
  const char *kid, *scheme, *iv, *value, *after_keys, *systems;
  const char *rule; // what follows a usage rule's kid
};

static struct bytes answer_text(const struct answer *a) {
  static char doc[65536];
  char kid[37] = {0};
  uint8_t id[16];
  struct writer w = wr_of(kid, 36);
  keys_kid(id, &query);
  uuid_write(&w, id);
  int n = snprintf(doc, sizeof doc,
                   "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                   "<cpix:CPIX contentId=\"x\" version=\"2.3\" xmlns:cpix=\"urn:dashif:org:cpix\" "
                   "xmlns:pskc=\"urn:ietf:params:xml:ns:keyprov:pskc\">\n<cpix:ContentKeyList>\n"
                   "<cpix:ContentKey kid=\"%s\" commonEncryptionScheme=\"%s\" explicitIV=\"%s\">"
                   "<cpix:Data><pskc:Secret>%s</pskc:Secret></cpix:Data></cpix:ContentKey>%s\n"
                   "</cpix:ContentKeyList><cpix:DRMSystemList>%s</cpix:DRMSystemList>%s%s%s</cpix:CPIX>",
                   a->kid ? a->kid : kid, a->scheme ? a->scheme : "cbcs", a->iv ? a->iv : "AQIDBAUGBwgJCgsMDQ4PEA==",
                   a->value ? a->value : "<pskc:PlainValue>MDEyMzQ1Njc4OTo7PD0+Pw==</pskc:PlainValue>",
                   a->after_keys ? a->after_keys : "", a->systems ? a->systems : "",
                   a->rule ? "<cpix:ContentKeyUsageRuleList><cpix:ContentKeyUsageRule kid=\"" : "", a->rule ? kid : "",
                   a->rule ? a->rule : "");
  return bytes_of(doc, (size_t)n);
}

static enum err read_answer(struct key_record *out, struct bytes body) {
  struct key_doc doc = {&query, 1, &all_systems};
  diag = (struct diag){0};
  heap.used = 0;
  alloc_heap_free(&heap);
  alloc_heap_init(&heap, 1 << 30);
  enum err e = key_provider_find(BYTES_LIT("speke2.0"))->answer(&heap.base, out, &doc, body, &diag);
  diag_format(&diag, shown, sizeof shown);
  return e;
}

static void refused(const struct answer *a, enum err want, const char *part) {
  struct key_record r = {0};
  enum err e = read_answer(&r, answer_text(a));
  cr_assert_eq(e, want, "%s: %s", part, shown);
  cr_assert(strstr(shown, part), "\"%s\" should say \"%s\"", shown, part);
  static const uint8_t zero[16];
  cr_assert_arr_eq(r.key, zero, 16, "%s: a key was left behind", part);
}

Test(speke, a_good_answer) {
  struct key_record r;
  // A Widevine box, an XML fragment, and lines for both playlists; what another system has is passed over.
  struct answer a = {.systems =
      "<cpix:DRMSystem kid=\"KID\" systemId=\"edef8ba9-79d6-4ace-a3c8-27dcd51d21ed\">"
      "<cpix:PSSH>AAAAJHBzc2gAAAAA7e+L\nqXnWSs6jyCfc1R0h7QAAAARkYXRh</cpix:PSSH>"
      "<cpix:ContentProtectionData>PGNlbmM6cHNzaD5BQUE8L2NlbmM6cHNzaD4=</cpix:ContentProtectionData>"
      "<cpix:HLSSignalingData playlist=\"media\">I0VYVC1YLUtFWTpVUkk9ImEsYiIsTUVUSE9EPVNBTVBMRS1BRVMNCg==</cpix:HLSSignalingData>"
      "<cpix:HLSSignalingData playlist=\"multiVariant\">I0VYVC1YLVNFU1NJT04tS0VZOk1FVEhPRD1TQU1QTEUtQUVT</cpix:HLSSignalingData>"
      "</cpix:DRMSystem><cpix:DRMSystem kid=\"KID\" systemId=\"00000000-79d6-4ace-a3c8-27dcd51d21ed\"><cpix:PSSH>!</cpix:PSSH></cpix:DRMSystem>"};
  static char systems[8192];
  char kid[37] = {0};
  uint8_t id[16];
  struct writer w = wr_of(kid, 36);
  keys_kid(id, &query);
  uuid_write(&w, id);
  struct writer out = wr_of(systems, sizeof systems - 1);
  for (const char *p = a.systems; *p; p++) {
    if (strncmp(p, "KID", 3) == 0)
      wr_raw(&out, kid, 36), p += 2;
    else
      wr_raw(&out, p, 1);
  }
  cr_assert(wr_ok(&out));
  a.systems = systems;
  cr_assert_eq(read_answer(&r, answer_text(&a)), ERR_OK, "%s", shown);
  cr_assert_arr_eq(r.key, "0123456789:;<=>?", 16);
  cr_assert_arr_eq(r.kid, id, 16);
  cr_assert(r.has_iv && r.iv[0] == 1 && r.iv[15] == 16);
  cr_assert_eq(r.epoch, 3);
  const struct drm_given *g = &r.given[DRM_WIDEVINE];
  cr_assert_eq(g->pssh.n, 36);
  cr_assert(bytes_eq(g->mpd, BYTES_LIT("<cenc:pssh>AAA</cenc:pssh>")));
  cr_assert(bytes_eq(g->hls_media, BYTES_LIT("#EXT-X-KEY:URI=\"a,b\",METHOD=SAMPLE-AES\n")));
  cr_assert(bytes_eq(g->hls_master, BYTES_LIT("#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES\n")));
}

Test(speke, answers_that_are_refused) {
  refused(&(struct answer){.kid = "00000000-0000-0000-0000-000000000001"}, ERR_NO_KEY, "no key for the KID");
  refused(&(struct answer){.kid = "xyz"}, ERR_MALFORMED, "kid is missing or not a UUID");
  refused(&(struct answer){.scheme = "cenc"}, ERR_MALFORMED, "key is cenc, cbcs was asked for");
  refused(&(struct answer){.scheme = ""}, ERR_MALFORMED, "key is of no scheme");
  refused(&(struct answer){.scheme = "cens"}, ERR_MALFORMED, "neither cenc nor cbcs");
  refused(&(struct answer){.scheme = "clear"}, ERR_MALFORMED, "neither cenc nor cbcs");
  refused(&(struct answer){.iv = "AQIDBAUGBwg="}, ERR_MALFORMED, "explicitIV is not 16 bytes");
  refused(&(struct answer){.iv = "AQIDBAUGBwgJCgsMDQ4PEBE="}, ERR_MALFORMED, "explicitIV is not 16 bytes");
  refused(&(struct answer){.value = "<pskc:PlainValue>MDEyMzQ1Njc=</pskc:PlainValue>"}, ERR_MALFORMED, "not 16 bytes");
  refused(&(struct answer){.value = "<pskc:PlainValue>MDEyMzQ1Njc4OTo7PD0+Pz8=</pskc:PlainValue>"}, ERR_MALFORMED, "not 16 bytes");
  refused(&(struct answer){.value = ""}, ERR_NO_KEY, "no key for the KID");
  refused(&(struct answer){.value = "<pskc:PlainValue>MDEyMzQ1Njc4OTo7PD0+Pw==</pskc:PlainValue>"
                                    "<pskc:PlainValue>MDEyMzQ1Njc4OTo7PD0+Pw==</pskc:PlainValue>"},
          ERR_MALFORMED, "two values");
  refused(&(struct answer){.value = "<pskc:EncryptedValue/>"}, ERR_UNSUPPORTED, "encrypted");
  refused(&(struct answer){.after_keys = "<cpix:ContentKey kid=\"00000000-0000-0000-0000-000000000001\"/>"}, ERR_MALFORMED,
          "2 keys, 1 were asked for");
  refused(&(struct answer){.systems = "<cpix:DRMSystem kid=\"00000000-0000-0000-0000-000000000001\" "
                                      "systemId=\"edef8ba9-79d6-4ace-a3c8-27dcd51d21ed\"/>"},
          ERR_MALFORMED, "kid that has no content key");
  refused(&(struct answer){.systems = "<cpix:DRMSystem kid=\"x\"/>"}, ERR_MALFORMED, "kid is missing");
}

// Of two keys the second is not there: the first one is not kept either.
Test(speke, no_key_is_left_where_another_is_missing) {
  static const uint8_t zero[16];
  struct key_query both[2] = {query, lossless};
  struct key_doc doc = {both, 2, &all_systems};
  struct key_record r[2] = {0};
  struct bytes body = answer_text(&(struct answer){0});
  cr_assert_eq(key_provider_find(BYTES_LIT("speke2.0"))->answer(&heap.base, r, &doc, body, &diag), ERR_NO_KEY);
  cr_expect_arr_eq(r[0].key, zero, 16);
}

// An answer repeats the rules that were asked with; one that gives the key to video is not believed.
Test(speke, usage_rules_of_an_answer) {
#define END "</cpix:ContentKeyUsageRule></cpix:ContentKeyUsageRuleList>"
  static const char *const good[] = {"\" intendedTrackType=\"AUDIO\"><cpix:AudioFilter/>" END, "\" intendedTrackType=\"ALL\"><cpix:VideoFilter/><cpix:AudioFilter/>" END,
                                     "\">" END};
  struct key_record r;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++)
    cr_assert_eq(read_answer(&r, answer_text(&(struct answer){.rule = good[i]})), ERR_OK, "%s: %s", good[i], shown);
  refused(&(struct answer){.rule = "\" intendedTrackType=\"VIDEO\"><cpix:VideoFilter/>" END}, ERR_MALFORMED, "other tracks than audio");
  refused(&(struct answer){.rule = "\" intendedTrackType=\"HD\">" END}, ERR_MALFORMED, "other tracks than audio");
}

Test(speke, duplicate_keys) {
  uint8_t id[16];
  char kid[37] = {0}, dup[128];
  struct writer w = wr_of(kid, 36);
  keys_kid(id, &query);
  uuid_write(&w, id);
  snprintf(dup, sizeof dup, "<cpix:ContentKey kid=\"%s\"/>", kid);
  refused(&(struct answer){.after_keys = dup}, ERR_MALFORMED, "two content keys have the same kid");
}

static enum err parse(const char *doc) {
  struct cpix c;
  diag = (struct diag){0};
  enum err e = cpix_parse(&heap.base, &c, bytes_str(doc), &diag);
  diag_format(&diag, shown, sizeof shown);
  return e;
}

Test(cpix, entity_bombs_and_strangers) {
  cr_assert_eq(parse("<!DOCTYPE a [<!ENTITY x \"xx\"><!ENTITY y \"&x;&x;&x;&x;\">]>"
                     "<cpix:CPIX xmlns:cpix=\"urn:dashif:org:cpix\">&y;</cpix:CPIX>"), ERR_SYNTAX);
  cr_assert(strstr(shown, "DTD"), "%s", shown);
  cr_assert_eq(parse("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>"), ERR_SYNTAX);
  cr_assert_eq(parse("<CPIX/>"), ERR_SYNTAX);
  cr_assert(strstr(shown, "not a CPIX document"));
  cr_assert_eq(parse("<CPIX xmlns=\"urn:dashif:org:cpix\"/>"), ERR_OK); // no prefix is as good as one
  cr_assert_eq(parse("<CPIX xmlns=\"urn:dashif:org:cpix\">&x;</CPIX>"), ERR_SYNTAX);
  cr_assert_eq(parse(""), ERR_SYNTAX);
  cr_assert_eq(parse("\xff\xfe"), ERR_SYNTAX);
  static char deep[CPIX_MAX_TEXT + 300];
  struct writer w = wr_of(deep, sizeof deep - 1);
  wr_str(&w, "<CPIX xmlns=\"urn:dashif:org:cpix\">");
  for (int i = 0; i < 100; i++)
    wr_str(&w, "<a>");
  cr_assert_eq(parse(deep), ERR_LIMIT);
  cr_assert(strstr(shown, "too deeply"));
  for (int over = 0; over < 2; over++) {
    snprintf(deep, sizeof deep, "<CPIX xmlns=\"urn:dashif:org:cpix\"><DRMSystemList><DRMSystem kid=\"%032x\" systemId=\"%032x\"><PSSH>%0*d</PSSH></DRMSystem></DRMSystemList></CPIX>",
             1, 2, CPIX_MAX_TEXT + over, 0);
    cr_assert_eq(parse(deep), over ? ERR_LIMIT : ERR_OK, "%s", shown);
  }
}

// A namespace of many bytes, and many attributes of it, in all of one document: expat writes it out for each.
static const char *long_namespace(char *out, size_t n, const char *head, const char *tail) {
  struct writer w = wr_of(out, n - 1);
  wr_str(&w, head);
  wr_str(&w, "<x xmlns:a=\"");
  while (w.n < n / 3)
    wr_u8(&w, 'u');
  wr_str(&w, "\"");
  for (unsigned i = 0; w.n < n - 100; i++)
    wr_fmt(&w, " a:b%u=\"\"", i);
  wr_str(&w, "/>");
  wr_str(&w, tail);
  cr_assert(wr_ok(&w));
  out[w.n] = 0;
  return out;
}

Test(cpix, namespaces_that_are_written_out_again_and_again) {
  static char doc[1 << 16];
  static const char head[] = "<CPIX xmlns=\"urn:dashif:org:cpix\">";
  cr_assert_eq(parse(long_namespace(doc, 4096, head, "</CPIX>")), ERR_OK, "%s", shown);
  cr_assert_eq(parse(long_namespace(doc, sizeof doc, head, "</CPIX>")), ERR_LIMIT, "%s", shown);
  cr_assert(strstr(shown, "too much memory"), "%s", shown);
  cr_assert_eq(parse("<CPIX xmlns=\"urn:dashif:org:cpix\"/>"), ERR_OK, "%s", shown); // the next one has its own
  diag = (struct diag){0};
  cr_assert_eq(given_mpd(bytes_str(long_namespace(doc, 4096, "", "")), &diag), ERR_OK);
  cr_assert_eq(given_mpd(bytes_str(long_namespace(doc, 40000, "", "")), &diag), ERR_MALFORMED);
}

Test(cpix, every_truncation_fails) {
  struct key_record r;
  struct bytes whole = answer_text(&(struct answer){0});
  cr_assert_eq(read_answer(&r, whole), ERR_OK, "%s", shown);
  for (size_t n = 0; n < whole.n; n++)
    cr_assert_neq(read_answer(&r, bytes_of(whole.p, n)), ERR_OK, "%zu", n);
}

Test(cpix, what_is_exported_is_imported) {
  struct key_record keys[2], back[2];
  struct drm_settings set = {.systems = 31, .fairplay = {.skd = BYTES_LIT("skd://{kid}")},
                             .clearkey = {.la_url = BYTES_LIT("https://l/?a&b")},
                             .playready = {.la_url = BYTES_LIT("https://p/?a&b")}};
  for (int v = 0; v < 4; v++) {
    query.scheme = lossless.scheme = v & 1 ? SCHEME_CBCS : SCHEME_CENC;
    cr_assert_eq(derived(&keys[0], BYTES_LIT("0123456789abcdef"), &query), ERR_OK);
    cr_assert_eq(derived(&keys[1], BYTES_LIT("0123456789abcdef"), &lossless), ERR_OK);
    struct writer w = wr_of(text, sizeof text - 1);
    cpix_export(&w, keys, 2, &set, v & 2);
    cr_assert(wr_ok(&w));
    text[w.n] = 0;
    cr_assert_eq(count(text, v & 2 ? "\"multiVariant\"" : "\"master\""), query.scheme == SCHEME_CBCS ? 8 : 6, "%s", text);
    uint32_t num = 2;
    diag = (struct diag){0};
    cr_assert_eq(cpix_import(&heap.base, back, &num, bytes_of(text, w.n), 3, SCHEME_CLEAR, &diag), ERR_OK, "%s", diag.what);
    cr_assert_eq(num, 2);
    for (int i = 0; i < 2; i++) {
      cr_assert_arr_eq(back[i].kid, keys[i].kid, 16);
      cr_assert_arr_eq(back[i].key, keys[i].key, 16);
      cr_assert_arr_eq(back[i].iv, keys[i].iv, 16);
      cr_assert(back[i].has_iv == keys[i].has_iv && back[i].scheme == keys[i].scheme && back[i].epoch == 3);
      cr_assert(bytes_eq(back[i].asset, query.asset) && bytes_eq(back[i].label, keys[i].label));
      // Signalling from the imported data is what was signalled before.
      static char a[32768], b[32768];
      struct writer wa = wr_of(a, sizeof a), wb = wr_of(b, sizeof b);
      drm_hls(&wa, "EXT-X-KEY", &(struct drm_input){.key = &keys[i], .set = &set});
      drm_hls(&wb, "EXT-X-KEY", &(struct drm_input){.key = &back[i], .set = &set});
      cr_assert(bytes_eq(bytes_of(a, wa.n), bytes_of(b, wb.n)));
      cr_assert(back[i].given[DRM_PLAYREADY].mpd.n && back[i].given[DRM_WIDEVINE].pssh.n);
    }
    num = 1;
    diag = (struct diag){0};
    cr_assert_eq(cpix_import(&heap.base, back, &num, bytes_of(text, w.n), 3, SCHEME_CLEAR, &diag), ERR_NO_SPACE);
  }
}

// Labels are texts of others: in attributes of the document they mean what they say.
Test(cpix, labels_may_hold_markup) {
  struct key_record key, back;
  uint32_t num = 1;
  lossless.label = BYTES_LIT("a<b>&\"c\"");
  cr_assert_eq(derived(&key, BYTES_LIT("0123456789abcdef"), &lossless), ERR_OK);
  struct writer w = wr_of(text, sizeof text - 1);
  cpix_export(&w, &key, 1, &all_systems, false);
  text[w.n] = 0;
  cr_assert_eq(cpix_import(&heap.base, &back, &num, bytes_of(text, w.n), 3, SCHEME_CLEAR, &diag), ERR_OK, "%s", diag.what);
  cr_expect(bytes_eq(back.label, lossless.label));
  cr_expect(strstr(text, "intendedTrackType=\"AUDIO_a&lt;b&gt;&amp;&quot;c&quot;\""), "%s", text);
}

// A document of keys 01, 02, … with attributes of CPIX and of the keys, and usage rules or DRM systems behind the keys.
static enum err import_doc(struct key_record *out, uint32_t *num, const char *root, const char *const *keys, const char *behind) {
  struct writer w = wr_of(text, sizeof text - 1);
  wr_str(&w, "<CPIX xmlns=\"urn:dashif:org:cpix\" xmlns:p=\"urn:ietf:params:xml:ns:keyprov:pskc\" ");
  wr_str(&w, root);
  wr_str(&w, "><ContentKeyList>");
  for (unsigned i = 0; keys[i]; i++) {
    wr_fmt(&w, "<ContentKey kid=\"00000000-0000-0000-0000-0000000000%02x\" %s", i + 1, strstr(keys[i], "Scheme=") ? "" : "commonEncryptionScheme=\"cbcs\" ");
    wr_str(&w, keys[i]);
    wr_str(&w, "><Data><p:Secret><p:PlainValue>");
    base64_write(&w, bytes_of((const uint8_t[16]){(uint8_t)(i + 1)}, 16));
    wr_str(&w, "</p:PlainValue></p:Secret></Data></ContentKey>");
  }
  wr_str(&w, "</ContentKeyList>");
  wr_str(&w, behind);
  wr_str(&w, "</CPIX>");
  cr_assert(wr_ok(&w));
  diag = (struct diag){0};
  enum err e = cpix_import(&heap.base, out, num, bytes_of(text, w.n), 1, SCHEME_CLEAR, &diag);
  diag_format(&diag, shown, sizeof shown);
  return e;
}

Test(cpix, an_iv_is_taken_for_cbcs_alone) {
  struct key_record r[2];
  uint32_t num = 2;
  const char *iv = "explicitIV=\"AQIDBAUGBwgJCgsMDQ4PEA==\"", *cenc = "commonEncryptionScheme=\"cenc\" explicitIV=\"AQIDBAUGBwgJCgsMDQ4PEA==\"";
  cr_assert_eq(import_doc(r, &num, "contentId=\"a\"", (const char *const[]){iv, cenc, NULL}, ""), ERR_OK, "%s", shown);
  cr_expect(num == 2 && r[0].has_iv && !r[1].has_iv);
}

#define RULES(x) "<ContentKeyUsageRuleList>" x "</ContentKeyUsageRuleList>"
#define RULE(n, attributes, filters) \
  "<ContentKeyUsageRule kid=\"00000000-0000-0000-0000-0000000000" n "\" " attributes ">" filters "</ContentKeyUsageRule>"
#define VIDEO "<VideoFilter minPixels=\"1\"/>"
#define AUDIO "<AudioFilter/>"

// Keys 01 and 02, the latter always with a rule for audio: which of them audio may have.
Test(cpix, usage_rules_choose_the_keys_for_audio) {
  static const struct {
    const char *rules;
    bool first;
    const char *label;
  } v[] = {
      {"", true, ""},
      {RULE("01", "intendedTrackType=\"VIDEO\"", VIDEO), false, ""},
      {RULE("01", "", VIDEO), false, ""},
      {RULE("01", "intendedTrackType=\"AUDIO\"", VIDEO), false, ""},
      {RULE("01", "intendedTrackType=\"VIDEO\"", ""), false, ""},
      {RULE("01", "intendedTrackType=\"SD+HD\"", ""), false, ""},
      {RULE("01", "intendedTrackType=\"UHD1\"", "<LabelFilter label=\"x\"/>"), false, ""},
      {RULE("01", "", ""), true, ""},
      {RULE("01", "intendedTrackType=\"ALL\"", ""), true, ""},
      {RULE("01", "intendedTrackType=\"ALL\"", AUDIO VIDEO), true, ""},
      {RULE("01", "intendedTrackType=\"Main\"", AUDIO), true, ""},
      {RULE("01", "intendedTrackType=\"STEREO_AUDIO\"", ""), true, ""},
      {RULE("01", "intendedTrackType=\"Audio\"", ""), true, ""},
      {RULE("01", "intendedTrackType=\"MULTICHANNEL_AUDIO_3_6+STEREO_AUDIO\"", AUDIO AUDIO), true, ""},
      {RULE("01", "", "<BitrateFilter minBitrate=\"1\"/>"), true, ""},
      {RULE("01", "", "<LabelFilter label=\"x\"/>"), true, "x"},
      {RULE("01", "intendedTrackType=\"HD\"", VIDEO "<LabelFilter label=\"film\"/>") RULE("01", "", AUDIO "<LabelFilter label=\"x\"/>"), true, "x"},
      {RULE("01", "", AUDIO) RULE("01", "", VIDEO), true, ""},
  };
  static const char *const two[] = {"", "", NULL};
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
    struct key_record r[2];
    uint32_t num = 2, first = v[i].first ? 1 : 2;
    char behind[1024];
    snprintf(behind, sizeof behind, RULES("%s" RULE("02", "intendedTrackType=\"AUDIO\"", AUDIO "<LabelFilter label=\"y\"/>")), v[i].rules);
    cr_assert_eq(import_doc(r, &num, "contentId=\"a\"", two, behind), ERR_OK, "%s: %s", behind, shown);
    cr_assert(num == 3 - first && r[0].key[0] == first && r[0].kid[15] == first, "%s: %u keys, the first is %u", behind, num, r[0].key[0]);
    cr_assert(bytes_eq(r[0].label, v[i].first ? bytes_str(v[i].label) : BYTES_LIT("y")), "%s", behind);
    cr_assert(num == 1 || r[1].key[0] == 2);
  }
}

Test(cpix, a_document_without_a_key_for_audio_is_refused) {
  static const char *const one[] = {"", NULL}, *const none[] = {NULL};
  struct key_record r = {0};
  uint32_t num = 1;
  cr_assert_eq(import_doc(&r, &num, "contentId=\"a\"", one, RULES(RULE("01", "intendedTrackType=\"VIDEO\"", VIDEO))), ERR_NO_KEY);
  cr_assert(strstr(shown, "no content key is for audio") && num == 1 && !r.key[0], "%s", shown);
  cr_assert_eq(import_doc(&r, &num, "contentId=\"a\"", none, ""), ERR_NO_KEY);
  cr_assert(strstr(shown, "no content key"), "%s", shown);
}

Test(cpix, no_key_is_left_where_a_later_one_is_refused) {
  static const char *const keys[] = {"", "commonEncryptionScheme=\"\"", NULL};
  static const uint8_t zero[16];
  struct key_record r[2] = {0};
  uint32_t num = 2;
  cr_assert_eq(import_doc(r, &num, "contentId=\"a\"", keys, ""), ERR_MISSING, "%s", shown);
  cr_expect_arr_eq(r[0].key, zero, 16);
}

Test(cpix, documents_up_to_their_limits) {
  static const char *const one[] = {"", NULL};
  static char rules[65536];
  struct key_record r;
  for (int over = 0; over < 2; over++) {
    struct writer w = wr_of(rules, sizeof rules - 1);
    uint32_t num = 1;
    wr_str(&w, "<ContentKeyUsageRuleList>");
    for (int i = 0; i < CPIX_MAX_RULES + over; i++)
      wr_str(&w, "<ContentKeyUsageRule kid=\"00000000-0000-0000-0000-000000000001\"/>");
    wr_str(&w, "</ContentKeyUsageRuleList>");
    rules[w.n] = 0;
    cr_expect_eq(import_doc(&r, &num, "contentId=\"a\"", one, rules), over ? ERR_LIMIT : ERR_OK, "%s", shown);
  }
  static char doc_text[1 << 19];
  for (int i = 0; i < 4; i++) { // keys, and DRM systems of them
    int keys = CPIX_MAX_KEYS + (i == 1), systems = i < 2 ? 0 : CPIX_MAX_SYSTEMS + (i == 3);
    struct writer w = wr_of(doc_text, sizeof doc_text - 1);
    wr_str(&w, "<CPIX xmlns=\"urn:dashif:org:cpix\"><ContentKeyList>");
    for (int k = 0; k < keys; k++)
      wr_fmt(&w, "<ContentKey kid=\"%032x\"/>", k);
    wr_str(&w, "</ContentKeyList><DRMSystemList>");
    for (int k = 0; k < systems; k++) { // each of the known systems for one key, then for the next
      wr_fmt(&w, "<DRMSystem kid=\"%032x\" systemId=\"", k / DRM_SYSTEM_COUNT);
      uuid_write(&w, drm_systems[k % DRM_SYSTEM_COUNT]->system_id);
      wr_str(&w, "\"/>");
    }
    wr_str(&w, "</DRMSystemList></CPIX>");
    doc_text[w.n] = 0;
    cr_expect_eq(parse(doc_text), i % 2 ? ERR_LIMIT : i ? ERR_MALFORMED : ERR_OK, "%d: %s", i, shown); // systems of so many keys
  }
  uint32_t num = 1;
  cr_assert_eq(import_doc(&r, &num, "contentId=\"a\"", one, ""), ERR_OK, "%s", shown);
  size_t n = (size_t)(strstr(text, "</CPIX>") - text) + strlen("</CPIX>");
  uint8_t *doc = (uint8_t *)malloc(CPIX_MAX_DOC + 1);
  memset(doc, ' ', CPIX_MAX_DOC + 1);
  memcpy(doc, text, n);
  for (int over = 0; over < 2; over++)
    cr_expect_eq(cpix_import(&heap.base, &r, &num, bytes_of(doc, CPIX_MAX_DOC + (size_t)over), 1, SCHEME_CLEAR, &diag), over ? ERR_LIMIT : ERR_OK);
  free(doc);
}

static enum err import_hls(struct key_record *out, const char *attributes, const char *more) {
  static const char *const one[] = {"", NULL};
  uint32_t num = 1;
  char behind[1024];
  snprintf(behind, sizeof behind,
           "<DRMSystemList><DRMSystem kid=\"00000000-0000-0000-0000-000000000001\" systemId=\"94ce86fb-07ff-4f43-adb8-93d2fa968ca2\">"
           "<HLSSignalingData%s>I0VYVC1YLUtFWTpNRVRIT0Q9U0FNUExFLUFFUw==</HLSSignalingData>%s</DRMSystem></DRMSystemList>",
           attributes, more);
  return import_doc(out, &num, "contentId=\"a\"", one, behind);
}

// HLSSignalingData@playlist is optional (CPIX 2.4): without it the data is for media playlists.
Test(cpix, hls_data_without_a_playlist_is_for_media_playlists) {
  struct key_record r;
  cr_assert_eq(import_hls(&r, "", ""), ERR_OK, "%s", shown);
  cr_assert(bytes_eq(r.given[DRM_FAIRPLAY].hls_media, BYTES_LIT("#EXT-X-KEY:METHOD=SAMPLE-AES\n")));
  cr_assert_eq(r.given[DRM_FAIRPLAY].hls_master.n, 0);
  cr_assert_eq(import_hls(&r, "", "<HLSSignalingData playlist=\"media\">I0VYVC1YLUtFWTpNRVRIT0Q9U0FNUExFLUFFUw==</HLSSignalingData>"), ERR_MALFORMED);
  cr_assert(strstr(shown, "given twice"), "%s", shown);
  cr_assert_eq(import_hls(&r, "", "</DRMSystem><DRMSystem kid=\"00000000-0000-0000-0000-000000000001\" systemId=\"94ce86fb-07ff-4f43-adb8-93d2fa968ca2\">"),
               ERR_MALFORMED);
  cr_assert(strstr(shown, "given twice for one kid"), "%s", shown);
  cr_assert_eq(import_hls(&r, " playlist=\"\"", ""), ERR_MALFORMED);
  cr_assert_eq(import_hls(&r, " playlist=\"both\"", ""), ERR_MALFORMED);
  cr_assert(strstr(shown, "HLSSignalingData@playlist"), "%s", shown);
}

// CPIX 2.4: ContentKey@contentId, in documents about several contents, instead of CPIX@contentId.
Test(cpix, a_key_may_name_its_content) {
  static const char *const keys[] = {"contentId=\"b/1\"", "contentId=\"b/2\"", "", NULL};
  struct key_record r[3];
  uint32_t num = 3;
  cr_assert_eq(import_doc(r, &num, "contentId=\"a\"", keys, ""), ERR_OK, "%s", shown);
  cr_assert_eq(num, 3);
  cr_assert(bytes_eq(r[0].asset, BYTES_LIT("b/1")) && bytes_eq(r[1].asset, BYTES_LIT("b/2")) && bytes_eq(r[2].asset, BYTES_LIT("a")));
  cr_assert_eq(import_doc(r, &num, "", keys, ""), ERR_OK, "%s", shown);
  cr_assert(bytes_eq(r[0].asset, BYTES_LIT("b/1")) && !r[2].asset.n);
}

static const uint8_t wv_box[36] = {0,    0,    0,    36,   'p',  's',  's',  'h',  0,    0,    0,    0,
                                   0xed, 0xef, 0x8b, 0xa9, 0x79, 0xd6, 0x4a, 0xce, 0xa3, 0xc8, 0x27, 0xdc,
                                   0xd5, 0x1d, 0x21, 0xed, 0,    0,    0,    4,    1,    2,    3,    4};

Test(cpix, given_boxes) {
  uint8_t b[60], kid[16] = {7};
  memcpy(b, wv_box, 36);
  cr_assert_eq(given_pssh(bytes_of(b, 36), DRM_WIDEVINE, kid, &diag), ERR_OK);
  cr_assert_eq(given_pssh(bytes_of(b, 36), DRM_PLAYREADY, kid, &diag), ERR_MALFORMED);
  cr_assert_eq(given_pssh(bytes_of(b, 35), DRM_WIDEVINE, kid, &diag), ERR_MALFORMED);
  b[31] = 5;
  cr_assert_eq(given_pssh(bytes_of(b, 36), DRM_WIDEVINE, kid, &diag), ERR_MALFORMED);
  b[31] = 3;
  cr_assert_eq(given_pssh(bytes_of(b, 36), DRM_WIDEVINE, kid, &diag), ERR_MALFORMED);
  b[31] = 4, b[8] = 2;
  cr_assert_eq(given_pssh(bytes_of(b, 36), DRM_WIDEVINE, kid, &diag), ERR_MALFORMED);
  struct writer w = wr_of(b, sizeof b); // version 1 with another KID, then with ours
  wr_u32(&w, 52);
  wr_raw(&w, wv_box + 4, 4);
  wr_u32(&w, 1u << 24);
  wr_raw(&w, wv_box + 12, 16);
  wr_u32(&w, 1);
  wr_raw(&w, "8888888888888888", 16);
  wr_u32(&w, 0);
  cr_assert_eq(given_pssh(bytes_of(b, 52), DRM_WIDEVINE, kid, &diag), ERR_MALFORMED);
  cr_assert_eq(given_pssh(bytes_of(b, 52), DRM_WIDEVINE, (const uint8_t *)"8888888888888888", &diag), ERR_OK);
  b[8] = 2;
  cr_assert_eq(given_pssh(bytes_of(b, 52), DRM_WIDEVINE, (const uint8_t *)"8888888888888888", &diag), ERR_MALFORMED);
  static uint8_t large[GIVEN_MAX_PSSH + 1];
  for (uint32_t over = 0; over < 2; over++) {
    memcpy(large, wv_box, 28);
    store_be32(large, GIVEN_MAX_PSSH + over);
    store_be32(large + 28, GIVEN_MAX_PSSH + over - 32);
    cr_assert_eq(given_pssh(bytes_of(large, GIVEN_MAX_PSSH + over), DRM_WIDEVINE, kid, &diag), over ? ERR_MALFORMED : ERR_OK);
  }
}

Test(cpix, given_xml_cannot_leave_its_place) {
  static const struct {
    const char *xml;
    enum err err;
  } v[] = {{"<cenc:pssh>AA</cenc:pssh><mspr:pro>BB</mspr:pro>", ERR_OK},
           {"<x:y xmlns:x=\"u\"/>", ERR_OK},
           {"", ERR_OK},
           {"text", ERR_OK},
           {"</r><r>", ERR_MALFORMED},
           {"</ContentProtection>", ERR_MALFORMED},
           {"<a>", ERR_MALFORMED},
           {"<x:y/>", ERR_MALFORMED},
           {"<?xml version=\"1.0\"?><a/>", ERR_MALFORMED},
           {"<!DOCTYPE a><a/>", ERR_MALFORMED},
           {"&e;", ERR_MALFORMED},
           {"<!--", ERR_MALFORMED},
           {"<![CDATA[", ERR_MALFORMED}};
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
    diag = (struct diag){0};
    cr_assert_eq(given_mpd(bytes_str(v[i].xml), &diag), v[i].err, "%s", v[i].xml);
  }
}

Test(cpix, given_lines_are_key_lines_of_the_scheme) {
  static const struct {
    const char *in, *out;
    bool master;
    enum scheme scheme;
  } v[] = {
      {"#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"x\"", "#EXT-X-KEY:METHOD=SAMPLE-AES,URI=\"x\"\n", false, SCHEME_CBCS},
      {"\r\n#EXT-X-KEY:METHOD=SAMPLE-AES \r\n\n#EXT-X-KEY:METHOD=SAMPLE-AES", "#EXT-X-KEY:METHOD=SAMPLE-AES\n#EXT-X-KEY:METHOD=SAMPLE-AES\n", false, SCHEME_CBCS},
      {"#EXT-X-KEY:METHOD=SAMPLE-AES-CTR", "#EXT-X-KEY:METHOD=SAMPLE-AES-CTR\n", false, SCHEME_CENC},
      {"", "", false, SCHEME_CENC},
      {"#EXT-X-KEY:METHOD=SAMPLE-AES-CTR", NULL, false, SCHEME_CBCS},
      {"#EXT-X-KEY:METHOD=NONE", NULL, false, SCHEME_CBCS},
      {"#EXT-X-KEY:METHOD=SAMPLE-AES", NULL, true, SCHEME_CBCS},
      {"#EXT-X-SESSION-KEY:METHOD=SAMPLE-AES", NULL, false, SCHEME_CBCS},
      {"#EXT-X-KEY:URI=\"METHOD=SAMPLE-AES\"", NULL, false, SCHEME_CBCS},
      {"#EXT-X-KEY:URI=\"a,METHOD=SAMPLE-AES\",METHOD=NONE", NULL, false, SCHEME_CBCS},
      {"#EXT-X-KEY:URI=\"a,METHOD=NONE,\",METHOD=SAMPLE-AES", "#EXT-X-KEY:URI=\"a,METHOD=NONE,\",METHOD=SAMPLE-AES\n", false, SCHEME_CBCS},
      {"#EXT-X-KEY:METHOD=SAMPLE-AES\n#EXT-X-ENDLIST", NULL, false, SCHEME_CBCS},
      {"#EXT-X-KEY:METHOD=SAMPLE-AES\nhttp://evil/1.m4s", NULL, false, SCHEME_CBCS},
      {"#EXT-X-KEY:METHOD=SAMPLE-AES,A=\"\x01\"", NULL, false, SCHEME_CBCS},
      {"#EXT-X-KEY:METHOD=SAMPLE-AES,A=\"\x7f\"", NULL, false, SCHEME_CBCS},
  };
  for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
    uint8_t buf[256];
    size_t n = strlen(v[i].in);
    memcpy(buf, v[i].in, n);
    diag = (struct diag){0};
    enum err e = given_hls(buf, &n, v[i].master, v[i].scheme, &diag);
    cr_assert_eq(e, v[i].out ? ERR_OK : ERR_MALFORMED, "%s: %s", v[i].in, err_name(e));
    if (v[i].out)
      cr_assert(bytes_eq(bytes_of(buf, n), bytes_str(v[i].out)), "%s", v[i].in);
  }
}
