// Names of assets in a keys file: which there can be, and records that are added under them.
#include "keys/keysfile_add.h"
#include "keys/keyset.h"
#include "keysfile.h"

#include <stdio.h>

TestSuite(keysfile, .init = setup, .fini = teardown);

#define NAME_OF_85 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define NAME_OF_255 NAME_OF_85 NAME_OF_85 NAME_OF_85

Test(keysfile, names_that_no_asset_can_have_are_refused) {
  static const char *const names[][2] = {{"../a", "no empty"}, {"/a", "no empty"}, {"a//b", "no empty"}, {"a/./b", "no empty"}, {"a/", "leave the /"},
                                          {".a", "it begins with a dot"}, {"a/..b/c", "it begins with a dot"}, {"a\\tb", "a control character"}, {"a/b\\x7f", "a control character"},
                                          {NAME_OF_255 "a", "longer than 255 bytes"}, {"b/" NAME_OF_255 "a/c", "longer than 255 bytes"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char text[500];
    snprintf(text, sizeof text, "keys:\n  - { asset: \"%s\", scheme: cbcs, " KID1 ", " KEY1 " }\n", names[i][0]);
    refused(ERR_SYNTAX, text, names[i][1]);
    cr_assert(strstr(shown, "line 2: asset \""), "%s", shown);
  }
}

Test(keysfile, nor_are_rules_that_match_none) {
  refused(ERR_SYNTAX, "epochs:\n  schedule:\n    - { match: .a/, every: 1h }\n", "line 3: epochs.schedule: match: no URL can have one of its segments: it begins with a dot");
  refused(ERR_SYNTAX, "drm:\n  rules:\n    - { match: \"b/\\t\" }\n", "line 3: drm.rules: match: no URL can have");
  refused(ERR_SYNTAX, "providers:\n  - { type: cpix, file: f, match: a/.b }\n", "line 2: providers: match: no URL can have");
}

Test(keysfile, names_that_are_long_or_have_dots_within) {
  static const char *const names[] = {NAME_OF_255, NAME_OF_255 "/" NAME_OF_255, "a.b./c..", "\xc3\xa9/\xe2\x82\xac"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char text[700];
    snprintf(text, sizeof text, "keys:\n  - { asset: \"%s\", scheme: cbcs, " KID1 ", " KEY1 " }\n", names[i]);
    cr_assert_eq(load(&(struct keyset *){NULL}, &(struct keys_info){0}, text), ERR_OK, "%s", shown);
  }
}

// As deep as the router goes.
Test(keysfile, names_of_60_segments_at_most) {
  enum { MOST = 60 };
  for (int num = MOST; num <= MOST + 1; num++) {
    char text[400], name[2 * (MOST + 1) + 1] = "a";
    for (int i = 1; i < num; i++)
      strcat(name, "/a");
    snprintf(text, sizeof text, "keys:\n  - { asset: \"%s\", scheme: cbcs, " KID1 ", " KEY1 " }\n", name);
    if (num > MOST)
      refused(ERR_SYNTAX, text, "a name has at most 60 segments");
    else
      cr_assert_eq(load(&(struct keyset *){NULL}, &(struct keys_info){0}, text), ERR_OK, "%s", shown);
  }
}

// In a keys file as in a CPIX document. What is over the limit is not taken short.
Test(keysfile, names_and_labels_up_to_their_limits) {
  static const char record[] = "keys:\n  - { asset: \"%s\", label: \"%s\", scheme: cbcs, " KID1 ", " KEY1 " }\n";
  static const char doc[] = "<CPIX xmlns=\"urn:dashif:org:cpix\" xmlns:p=\"urn:ietf:params:xml:ns:keyprov:pskc\" contentId=\"%s\"><ContentKeyList>"
                            "<ContentKey kid=\"00112233-4455-6677-8899-aabbccddee02\" commonEncryptionScheme=\"cbcs\"><Data><p:Secret>"
                            "<p:PlainValue>ASNFZ4mrze8BI0VniavNAQ==</p:PlainValue></p:Secret></Data></ContentKey></ContentKeyList>"
                            "<ContentKeyUsageRuleList><ContentKeyUsageRule kid=\"00112233-4455-6677-8899-aabbccddee02\"><AudioFilter/>"
                            "<LabelFilter label=\"%s\"/></ContentKeyUsageRule></ContentKeyUsageRuleList></CPIX>";
  static const size_t sizes[][2] = {{KEYS_MAX_ASSET, KEYS_MAX_LABEL}, {KEYS_MAX_ASSET + 1, KEYS_MAX_LABEL}, {KEYS_MAX_ASSET, KEYS_MAX_LABEL + 1}};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    char asset[KEYS_MAX_ASSET + 2] = "", label[KEYS_MAX_LABEL + 2] = "", text[2500];
    struct keyset *ks;
    struct keys_info info;
    struct key_record r;
    memset(asset, 'a', sizes[i][0]);
    for (size_t k = 200; k < sizes[i][0]; k += 200) // no segment is longer than a file's name may be
      asset[k] = '/';
    memset(label, 'l', sizes[i][1]);
    struct key_query q = {bytes_str(asset), 1, SCHEME_CBCS, bytes_str(label)};
    snprintf(text, sizeof text, record, asset, label);
    if (i == 0) {
      cr_assert_eq(load(&ks, &info, text), ERR_OK, "%s", shown);
      cr_expect_eq(keys_lookup(&r, ks, &q), ERR_OK);
    } else {
      refused(i == 1 ? ERR_LIMIT : ERR_SYNTAX, text, i == 1 ? "line 2: keys.asset: at most 1024 bytes" : "a label of at most 64 bytes");
    }
    cr_assert_eq(load(&ks, &info, ""), ERR_OK);
    snprintf(text, sizeof text, doc, asset, label);
    diag = (struct diag){0};
    cr_expect_eq(keys_add_cpix(ks, &heap.base, bytes_str(text), 1, SCHEME_CLEAR, &diag), i == 0 ? ERR_OK : ERR_MALFORMED, "sizes %zu: %s", i, diag.what);
    if (i == 0)
      cr_expect_eq(keys_lookup(&r, ks, &q), ERR_OK);
    else
      cr_expect(strstr(diag.what, "too long"), "%s", diag.what);
  }
}

// A message has 60 bytes of a name, and says that there are more.
Test(keysfile, messages_shorten_long_names) {
  enum { SHOWN = 60 };
  char name[SHOWN + 2] = "", out[64];
  memset(name, 'a', SHOWN);
  cr_expect_str_eq(key_name(out, bytes_of((const uint8_t *)name, SHOWN)), name);
  name[SHOWN] = 'b';
  cr_expect(!strncmp(key_name(out, bytes_of((const uint8_t *)name, SHOWN + 1)), name, SHOWN) && !strcmp(out + SHOWN, "..."), "%s", out);
}

// What is added is read as it was, whatever its name and label: YAML takes more characters for line breaks than \n, and some for none at all.
Test(keysfile, records_that_are_added_keep_their_names) {
  static const struct bytes names[] = {
      BYTES_LIT("a/b"),           BYTES_LIT("a\"\\b: #c"),      BYTES_LIT("a\tb\nc\x7f\x01"), // the usual ones
      BYTES_LIT("a\xc2\x85 b"),   BYTES_LIT("a \xe2\x80\xa8" "b"), BYTES_LIT("a \xe2\x80\xa9 b"), // NEL, LS, PS: line breaks
      BYTES_LIT("a\xc2\x80\xc2\x9fz"),                                                          // C1 controls
      BYTES_LIT("\xef\xbb\xbf" "a"), BYTES_LIT("a\xef\xbf\xbe\xef\xbf\xbf"),                      // a byte order mark, no characters
      BYTES_LIT("\xc2\xa0\xc3\xa9\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd\xf0\x90\x80\x80"),
  };
  enum { USUAL = 2 };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    struct bytes asset = i == USUAL ? BYTES_LIT("a") : names[i]; // no URL can have the usual ones, so no asset
    struct key_record r = {.scheme = SCHEME_CENC, .epoch = 1, .asset = asset, .label = names[i], .kid = "kid", .key = "key"}, got;
    char text[512];
    struct writer w = wr_of(text, sizeof text - 1);
    cr_assert_eq(keysfile_add(&w, (struct bytes){0}, &r, 1, &diag), ERR_OK, "name %zu", i);
    text[w.n] = 0;
    struct keyset *ks;
    struct keys_info info;
    cr_expect(load(&ks, &info, text) == ERR_OK && keys_lookup(&got, ks, &(struct key_query){asset, 1, SCHEME_CENC, names[i]}) == ERR_OK,
              "name %zu, as %s: %s", i, text, shown);
    diag = (struct diag){0};
  }
}

// Files whose form leaves no line for a record are refused, and say so; nothing is guessed.
Test(keysfile, records_that_cannot_be_added_are_not) {
  static const struct {
    const char *file, *why;
  } v[] = {{"{ drm: {} }\n", "line 1: records can be added to a file of lines only"},
           {"drm: {}\nkeys:\n", "line 2: keys: a list is expected; take the empty option out"},
           {"drm: {}\nkeys: [\n", "line 3: this is not YAML"}};
  struct key_record r = {.scheme = SCHEME_CENC, .epoch = 1, .asset = BYTES_LIT("new"), .kid = "kid", .key = "key"};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    struct writer w = wr_of(NULL, 0);
    diag = (struct diag){0};
    cr_expect(keysfile_add(&w, bytes_str(v[i].file), &r, 1, &diag) == ERR_SYNTAX && strstr(diag.what, v[i].why) && !w.n, "file %zu: %s, %zu bytes", i, diag.what, w.n);
  }
  r.asset = BYTES_LIT("no\xff");
  struct writer w = wr_of(NULL, 0);
  cr_expect(keysfile_add(&w, (struct bytes){0}, &r, 1, &diag) == ERR_UNSUPPORTED);
}

// Where the list begins is found in any file that libyaml reads: it counts characters, not bytes, and has more line breaks.
Test(keysfile, records_are_added_to_files_of_all_kinds) {
  static const char *const files[] = {
      "\xef\xbb\xbfkeys: [{ asset: own, scheme: cbcs, " KID1 ", " KEY1 " }]\n",
      "\xef\xbb\xbfkeys:\n  - { asset: own, scheme: cbcs, " KID1 ", " KEY1 " }\n",
      "drm: { widevine: { policy: \"\xc3\xa9\xe2\x80\xa8z\" } } # \xc3\xa9\nkeys:\n  - { asset: own, scheme: cbcs, " KID1 ", " KEY1 " }\n",
      "drm: {}\r\nkeys:\r\n  - { asset: own, scheme: cbcs, " KID1 ", " KEY1 " }\r\n",
      "drm: {}\rkeys:\r  - { asset: own, scheme: cbcs, " KID1 ", " KEY1 " }\r",
  };
  static const char *const without[] = {"", "# only this", "---\n", "drm: {}\n...\n", "---\ndrm: {}\n... # end", "\n  drm: {}\n", "  drm:\n    {}\n  epochs: {}\n...\n"};
  enum { WITH = sizeof files / sizeof *files, ALL = WITH + sizeof without / sizeof *without };
  struct key_record r = {.scheme = SCHEME_CENC, .epoch = 1, .asset = BYTES_LIT("new"), .kid = "kid", .key = "key"}, got;
  for (size_t i = 0; i < ALL; i++) {
    const char *file = i < WITH ? files[i] : without[i - WITH];
    char text[1024];
    struct writer w = wr_of(text, sizeof text - 1);
    struct keyset *ks;
    struct keys_info info;
    cr_assert_eq(load(&ks, &info, file), ERR_OK, "file %zu: %s", i, shown);
    cr_assert_eq(keysfile_add(&w, bytes_str(file), &r, 1, &diag), ERR_OK, "file %zu", i);
    text[w.n] = 0;
    cr_expect(load(&ks, &info, text) == ERR_OK && info.num_records == 1 + (i < WITH) &&
                  keys_lookup(&got, ks, &(struct key_query){r.asset, 1, SCHEME_CENC, {0}}) == ERR_OK,
              "file %zu, as %s: %s", i, text, shown);
    diag = (struct diag){0};
  }
}
