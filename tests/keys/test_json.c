// Answers of the JSON provider, and the guard over keys from wherever they come.
#include "document.h"

#include <stdio.h>
#include <stdlib.h>

TestSuite(json, .init = setup, .fini = teardown);
TestSuite(guard, .init = setup, .fini = teardown);

static enum err json(struct key_record *out, const char *body, uint32_t num) {
  struct key_query both[2] = {query, lossless};
  struct key_doc doc = {both, num, &(struct drm_settings){.systems = 31}};
  diag = (struct diag){0};
  enum err e = key_provider_find(BYTES_LIT("json"))->answer(&heap.base, out, &doc, bytes_str(body), &diag);
  diag_format(&diag, shown, sizeof shown);
  return e;
}

#define KEY1 "\"kid\":\"00112233445566778899aabbccddee01\",\"key\":\"0123456789abcdef0123456789abcd01\""
#define KEY2 "\"kid\":\"00112233445566778899aabbccddee02\",\"key\":\"0123456789abcdef0123456789abcd02\""

Test(json, question_and_answer) {
  struct key_query both[2] = {query, lossless};
  struct key_doc doc = {both, 2, &(struct drm_settings){.systems = 3}};
  cr_assert_str_eq(written(key_provider_find(BYTES_LIT("json"))->request, &doc),
                   "{\"asset\":\"al%3Cb%3Eum/x%22y\",\"epoch\":3,\"scheme\":\"cbcs\",\"labels\":[\"\",\"lossless\"],"
                   "\"systems\":[\"widevine\",\"playready\"]}\n");
  struct key_record r[2];
  cr_assert_eq(json(r, "{\"keys\":[{\"label\":\"lossless\",\"scheme\":\"cbcs\"," KEY2 "},"
                       "{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 ",\"iv\":\"f0000000000000000000000000000001\","
                       "\"systems\":{\"widevine\":{\"pssh\":\"AAAAJHBzc2gAAAAA7e+LqXnWSs6jyCfc1R0h7QAAAARkYXRh\","
                       "\"hls_media\":\"#EXT-X-KEY:METHOD=SAMPLE-AES\"}}}]}", 2), ERR_OK, "%s", shown);
  struct key_record plain;
  cr_assert_eq(json(&plain, "{\"keys\":[{\"scheme\":\"cbcs\"," KEY1 ",\"iv\":null,\"systems\":{\"widevine\":null,\"common\":{\"mpd\":null},\"playready\":[]}}]}", 1), ERR_OK,
               "null is nothing: %s", shown);
  cr_assert(r[0].key[15] == 1 && r[0].kid[15] == 1 && r[0].has_iv && r[1].key[15] == 2 && !r[1].has_iv);
  cr_assert_eq(r[0].given[DRM_WIDEVINE].pssh.n, 36);
  cr_assert(bytes_eq(r[0].given[DRM_WIDEVINE].hls_media, BYTES_LIT("#EXT-X-KEY:METHOD=SAMPLE-AES\n")));
}

Test(json, answers_that_are_refused) {
  static const struct {
    const char *body, *part;
    enum err err;
  } bad[] = {
      {"", "not JSON", ERR_SYNTAX},
      {"{\"keys\":[", "not JSON", ERR_SYNTAX},
      {"[]", "no list", ERR_SYNTAX},
      {"{\"keys\":{}}", "no list", ERR_SYNTAX},
      {"{\"keys\":[]}", "has 0 keys", ERR_NO_KEY},
      {"{\"keys\":[{\"label\":\"x\",\"scheme\":\"cbcs\"," KEY1 "}]}", "no key for one of the labels", ERR_NO_KEY},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cenc\"," KEY1 "}]}", "not cbcs", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\"," KEY1 "}]}", "not cbcs", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\",\"kid\":\"00\",\"key\":\"00\"}]}", "not 32 hex", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 ",\"iv\":\"0011\"}]}", "iv must be", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 "},{\"label\":\"\",\"scheme\":\"cbcs\"," KEY2 "}]}", "has 2 keys", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 ",\"systems\":{\"widevine\":{\"pssh\":\"!\"}}}]}", "not base64", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 ",\"systems\":{\"widevine\":{\"mpd\":\"<a>\"}}}]}", "not an XML", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 ",\"iv\":[1,2]}]}", "iv is no text", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 "," KEY2 "}]}", "not JSON", ERR_SYNTAX}, // two keys for one name
      {"{\"keys\":[{\"label\":0,\"scheme\":\"cbcs\"," KEY1 "}]}", "label is no text", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 ",\"systems\":[1]}]}", "systems is no object", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 ",\"systems\":{\"widevine\":\"AAAA\"}}]}", "widevine is no object", ERR_MALFORMED},
      {"{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 ",\"systems\":{\"fairplay\":{\"hls_media\":true}}}]}", "hls_media is no text", ERR_MALFORMED},
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct key_record r[2] = {0};
    cr_assert_eq(json(r, bad[i].body, 1), bad[i].err, "%s: %s", bad[i].body, shown);
    cr_assert(strstr(shown, bad[i].part), "%s: %s", bad[i].body, shown);
    cr_assert_null(strstr(shown, "0123456789"));
    static const uint8_t zero[16];
    cr_assert_arr_eq(r[0].key, zero, 16);
  }
  struct key_record r[2] = {0};
  query.scheme = SCHEME_CENC;
  cr_expect_eq(json(r, "{\"keys\":[{\"scheme\":\"cenc\"," KEY1 ",\"iv\":\"f0000000000000000000000000000001\"}]}", 1), ERR_MALFORMED);
  cr_expect(strstr(shown, "for cbcs only"), "%s", shown);
  query.scheme = SCHEME_CBCS;
  cr_assert_eq(json(r, "{\"keys\":[{\"label\":\"\",\"scheme\":\"cbcs\"," KEY1 "},{\"label\":\"lossless\",\"scheme\":\"cbcs\"," KEY1 "}]}", 2), ERR_MALFORMED);
  cr_assert(strstr(shown, "two labels one kid"));
}

Test(json, answers_up_to_their_limit) {
  static const char good[] = "{\"keys\":[{\"scheme\":\"cbcs\"," KEY1 "}]}";
  struct key_record r;
  char *body = (char *)malloc(KEY_DOC_MAX_ANSWER + 2);
  memset(body, ' ', KEY_DOC_MAX_ANSWER + 1);
  memcpy(body, good, sizeof good - 1);
  body[KEY_DOC_MAX_ANSWER + 1] = 0;
  cr_expect_eq(json(&r, body, 1), ERR_LIMIT, "%s", shown);
  body[KEY_DOC_MAX_ANSWER] = 0;
  cr_expect_eq(json(&r, body, 1), ERR_OK, "%s", shown);
  free(body);
}

Test(guard, a_kid_names_one_key_whoever_gives_it) {
  struct key_guard *g = key_guard_new(&heap.base, 100);
  struct key_record a = {.scheme = SCHEME_CBCS, .kid = {9}, .key = {1}, .iv = {3}, .has_iv = true, .asset = BYTES_LIT("one")}, b = a;
  cr_assert_eq(key_guard_add(g, &a, &diag), ERR_OK);
  b.asset = BYTES_LIT("two");
  cr_assert_eq(key_guard_add(g, &b, &diag), ERR_OK, "the same for another asset");
  b.iv[0] = 4;
  cr_assert_eq(key_guard_check(g, &b, &diag), ERR_KEY_REUSE, "another IV");
  cr_assert(strstr(diag.what, "\"two\" (cbcs): its KID had another key or IV"), "%s", diag.what);
  b.has_iv = false;
  cr_assert_eq(key_guard_add(g, &b, &diag), ERR_KEY_REUSE, "none");
  b = a;
  b.key[0] = 2;
  cr_assert_eq(key_guard_add(g, &b, &diag), ERR_KEY_REUSE, "another key");
  b.scheme = SCHEME_CENC;
  cr_assert_eq(key_guard_add(g, &b, &diag), ERR_KEY_REUSE, "also for the other scheme");
  b.kid[0] = 8;
  cr_assert_eq(key_guard_add(g, &b, &diag), ERR_OK, "what was refused has left nothing behind");
  b.has_iv = false;
  cr_assert_eq(key_guard_add(g, &b, &diag), ERR_OK, "an IV is no matter of cenc");
}

Test(guard, one_key_one_scheme_whoever_gives_it) {
  struct key_guard *g = key_guard_new(&heap.base, 100);
  struct key_record a = {.scheme = SCHEME_CENC, .key = {1}, .asset = BYTES_LIT("one")};
  struct key_record b = {.scheme = SCHEME_CBCS, .key = {1}, .asset = BYTES_LIT("two")};
  cr_assert_eq(key_guard_add(g, &a, &diag), ERR_OK);
  cr_assert_eq(key_guard_add(g, &a, &diag), ERR_OK);
  cr_assert_eq(key_guard_add(g, &b, &diag), ERR_KEY_REUSE);
  cr_assert(strstr(diag.what, "\"one\" (cenc) and \"two\" (cbcs)"));
  for (unsigned i = 2; i < 101; i++) {
    b.key[0] = b.kid[0] = (uint8_t)i;
    diag = (struct diag){0};
    cr_assert_eq(key_guard_add(g, &b, &diag), ERR_OK, "%u", i);
  }
  a.key[0] = 55;
  a.kid[0] = 200;
  cr_assert_eq(key_guard_add(g, &a, &diag), ERR_KEY_REUSE);
  cr_assert_null(key_provider_find(BYTES_LIT("speke3")));
}

Test(guard, as_many_keys_as_were_planned_for) {
  struct key_guard *g = key_guard_new(&heap.base, 16);
  struct key_record k = {.scheme = SCHEME_CENC, .asset = BYTES_LIT("one")};
  for (uint8_t i = 0; i < 17; i++) {
    k.key[0] = k.kid[0] = i;
    cr_expect_eq(key_guard_add(g, &k, &diag), i < 16 ? ERR_OK : ERR_NO_MEMORY, "%u", i);
  }
}
