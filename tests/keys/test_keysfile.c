#include "keysfile.h"

#include <stdlib.h>

#include <stdio.h>

TestSuite(keysfile, .init = setup, .fini = teardown);

static const char two[] = "keys:\n"
                          "  - { asset: album/track, epoch: 1, scheme: cbcs, " KID1 ", " KEY1 ", " IV1 " }\n"
                          "  - { asset: album/track, epoch: 2, scheme: cenc, label: lossless, " KID2 ", " KEY2 " }\n";

Test(keysfile, records_are_found_and_nothing_else) {
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(load(&ks, &info, two), ERR_OK, "%s", shown);
  cr_assert_eq(info.num_records, 2);
  cr_assert_not(info.derive);
  struct key_record r;
  struct key_query q = {.asset = BYTES_LIT("album/track"), .epoch = 1, .scheme = SCHEME_CBCS};
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_OK);
  cr_assert_eq(r.kid[15], 1);
  cr_assert_eq(r.key[15], 1);
  cr_assert(r.has_iv && r.iv[0] == 0xf0);
  q.scheme = SCHEME_CENC;
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_NO_KEY);
  q.epoch = 2;
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_NO_KEY);
  q.label = BYTES_LIT("lossless");
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_OK);
  cr_assert_eq(r.key[15], 2);
  cr_assert_not(r.has_iv);
  q.scheme = SCHEME_CLEAR;
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_ARGUMENT);
}

static uint32_t epoch_of(void *epoch, struct bytes asset) {
  (void)asset;
  return *(uint32_t *)epoch;
}

// A rotation that would leave a scheme or a tier without its key is as much in want of records as one without any.
Test(keysfile, every_key_of_an_epoch_needs_one_of_the_next) {
  static const char some[] = "keys:\n"
                             "  - { asset: a, epoch: 1, scheme: cbcs, " KID1 ", " KEY1 " }\n"
                             "  - { asset: a, epoch: 1, scheme: cenc, " KID2 ", " KEY2 " }\n"
                             "  - { asset: a, epoch: 2, scheme: cbcs, kid: 00112233445566778899aabbccddee03, "
                             "key: 0123456789abcdef0123456789abcd03 }\n";
  static const char rest[] = "  - { asset: a, epoch: 2, scheme: cenc, kid: 00112233445566778899aabbccddee04, "
                             "key: 0123456789abcdef0123456789abcd04 }\n";
  char all[1024];
  struct keyset *ks;
  struct keys_info info;
  struct key_query lack;
  struct bytes who;
  uint32_t epoch = 1;
  cr_assert_eq(load(&ks, &info, some), ERR_OK, "%s", shown);
  cr_assert(keys_missing(&lack, ks, (struct bytes){0}, epoch_of, &epoch));
  cr_assert(bytes_eq(lack.asset, BYTES_LIT("a")) && lack.epoch == 2 && lack.scheme == SCHEME_CENC && !lack.label.n);
  snprintf(all, sizeof all, "%s%s", some, rest);
  cr_assert_eq(load(&ks, &info, all), ERR_OK, "%s", shown);
  cr_assert_not(keys_missing(&lack, ks, (struct bytes){0}, epoch_of, &epoch));
  cr_assert_not(keys_repeated(&who, ks, (struct bytes){0}, epoch_of, &epoch));
  epoch = 0;
  cr_assert_not(keys_missing(&lack, ks, (struct bytes){0}, epoch_of, &epoch));
}

Test(keysfile, the_next_epoch_with_the_key_of_this_one_is_found) {
  static const char *const next[] = {KID1 ", " KEY1, "kid: 00112233445566778899aabbccddee03, " KEY1};
  for (int i = 0; i < 2; i++) {
    char text[512];
    struct keyset *ks;
    struct keys_info info;
    struct bytes who;
    uint32_t epoch = 1;
    snprintf(text, sizeof text, "keys:\n  - { asset: a, epoch: 1, scheme: cbcs, " KID1 ", " KEY1 " }\n"
                                "  - { asset: a, epoch: 2, scheme: cbcs, %s }\n", next[i]);
    cr_assert_eq(load(&ks, &info, text), ERR_OK, "%s", shown);
    cr_assert(keys_repeated(&who, ks, (struct bytes){0}, epoch_of, &epoch) && bytes_eq(who, BYTES_LIT("a")));
    cr_assert_not(keys_repeated(&who, ks, BYTES_LIT("b/"), epoch_of, &epoch));
    epoch = 2;
    cr_assert_not(keys_repeated(&who, ks, (struct bytes){0}, epoch_of, &epoch));
  }
}

Test(keysfile, schedules) {
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(load(&ks, &info, "epochs:\n  every: 24h\n  schedule:\n    - { match: live/, every: 1h, grace: 10m }\n"
                                "    - { match: album/track, every: 90s }\n"), ERR_OK, "%s", shown);
  cr_assert_eq(info.num_schedules, 3);
  cr_assert(bytes_eq(info.schedules[0].scope, BYTES_LIT("live/")));
  cr_assert(info.schedules[0].every_ms == 3600000 && info.schedules[0].has_grace && info.schedules[0].grace_ms == 600000);
  cr_assert(info.schedules[1].every_ms == 90000 && !info.schedules[1].has_grace);
  cr_assert(info.schedules[2].scope.n == 0 && info.schedules[2].every_ms == 86400000);
  refused(ERR_SYNTAX, "epochs: { schedule: [ { every: 1h } ] }", "line 1: epochs.schedule: an entry needs");
  refused(ERR_SYNTAX, "epochs: { schedule: [ { match: a } ] }", "needs every");
  refused(ERR_SYNTAX, "epochs:\n  schedule:\n    - { match: a/, every: 1h }\n    - { match: a/, every: 2h }\n",
          "line 4: epochs.schedule: two entries for a/");
  refused(ERR_SYNTAX, "epochs: { schedule: [ { match: a, every: 10ms } ] }", "at least 1s");
  refused(ERR_SYNTAX, "epochs:\n  every: 999ms\n", "line 2: epochs.every must be at least 1s");
  refused(ERR_SYNTAX, "epochs: { every: 0s }", "line 1: epochs.every must be at least 1s");
  refused(ERR_SYNTAX, "epochs: { schedule: [ { match: a, every: 0s } ] }", "at least 1s");
  refused(ERR_SYNTAX, "epochs: { schedule: [ { match: a//b, every: 1h } ] }", "empty");
  refused(ERR_SYNTAX, "epochs: { schedule: 24h }", "a list is expected");
  cr_assert_eq(load(&ks, &info, "epochs: { every: 1s }"), ERR_OK, "%s", shown);
  cr_assert(info.every_ms == 1000 && !info.has_grace);
  cr_assert_eq(load(&ks, &info, "epochs: { every: 1s, grace: 0 }"), ERR_OK, "%s", shown);
  cr_assert(info.has_grace && info.grace_ms == 0);
  refused(ERR_SYNTAX, "epochs: { every: 0 }", "at least 1s");
  refused(ERR_SYNTAX, "epochs: { grace: 1 }", "line 1: epochs.grace: give a time such as");
  // As much as rotate and the configuration take.
  cr_assert_eq(load(&ks, &info, "epochs: { grace: 365d, schedule: [ { match: a, every: 36600d, grace: 8760h } ] }"), ERR_OK, "%s", shown);
  cr_assert_eq(info.grace_ms, 31536000000u);
  refused(ERR_SYNTAX, "epochs: { grace: 366d }", "epochs.grace: give a time such as 24h, 90s or 7d, of at most 365 days");
  refused(ERR_SYNTAX, "epochs: { grace: 31536000001ms }", "epochs.grace: give a time such as 24h, 90s or 7d, of at most 365 days");
  refused(ERR_SYNTAX, "epochs: { schedule: [ { match: a, every: 1h, grace: 366d } ] }", "epochs.schedule.grace: give a time such as 24h, 90s or 7d, of at most 365 days");
  refused(ERR_SYNTAX, "epochs: { every: 36601d }", "epochs.every: give a time such as 24h, 90s or 7d, of at most 36600 days");
  refused(ERR_SYNTAX, "epochs: { every: 18446744073709551d }", "of at most 36600 days");
}

Test(keysfile, as_many_schedules_as_there_may_be) {
  static char text[1 << 18];
  for (int over = 0; over < 2; over++) {
    struct writer w = wr_of(text, sizeof text - 1);
    struct keyset *ks;
    struct keys_info info;
    wr_str(&w, "epochs:\n  schedule:\n");
    for (int i = 0; i < KEYS_MAX_SCHEDULES + over; i++)
      wr_fmt(&w, "    - { match: a%d, every: 1h }\n", i);
    text[w.n] = 0;
    cr_assert_eq(load(&ks, &info, text), over ? ERR_LIMIT : ERR_OK, "%s", shown);
  }
}

Test(keysfile, an_asset_with_records_is_never_derived) {
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(load(&ks, &info, two), ERR_OK);
  cr_assert_eq(keys_set_secret(ks, BYTES_LIT("0123456789abcdef"), &diag), ERR_OK);
  struct key_record r;
  struct key_query q = {.asset = BYTES_LIT("album/track"), .epoch = 9, .scheme = SCHEME_CBCS};
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_NO_KEY);
  q.epoch = 1, q.scheme = SCHEME_CENC;
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_NO_KEY, "also where all its records come after what is asked for");
  q.asset = BYTES_LIT("album/tracks");
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_OK);
  q.asset = BYTES_LIT("album/");
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_OK);
  struct key_query lack;
  uint32_t epoch = 2;
  cr_assert(keys_missing(&lack, ks, BYTES_LIT("album/"), epoch_of, &epoch));
  cr_assert(bytes_eq(lack.asset, BYTES_LIT("album/track")) && lack.epoch == 3 && lack.scheme == SCHEME_CENC && bytes_eq(lack.label, BYTES_LIT("lossless")));
  cr_assert_not(keys_missing(&lack, ks, BYTES_LIT("other/"), epoch_of, &epoch));
  epoch = 7;
  cr_assert(keys_missing(&lack, ks, BYTES_LIT("album/"), epoch_of, &epoch), "records of neither epoch");
  cr_assert(lack.epoch == 8 && lack.scheme == SCHEME_CLEAR);
  keyset_wipe(ks);
  q.asset = BYTES_LIT("album/tracks");
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_NO_KEY);
}

Test(keysfile, a_secret_up_to_its_limits) {
  static uint8_t most[KEYS_MAX_SECRET + 1];
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(load(&ks, &info, ""), ERR_OK);
  cr_assert_eq(keys_set_secret(ks, bytes_of(most, KEYS_MIN_SECRET - 1), &diag), ERR_ARGUMENT);
  cr_assert_eq(keys_set_secret(ks, bytes_of(most, KEYS_MAX_SECRET + 1), &diag), ERR_ARGUMENT);
  cr_assert_eq(keys_set_secret(ks, bytes_of(most, KEYS_MIN_SECRET), &diag), ERR_OK);
  cr_assert_eq(keys_set_secret(ks, bytes_of(most, KEYS_MAX_SECRET), &diag), ERR_OK);
}

Test(keysfile, empty_means_derivation) {
  struct keyset *ks;
  struct keys_info info;
  static const char *const texts[] = {"", "# nothing\n", "---\n", "derive:\n", "derive: {}\n", "drm: { clearkey: {} }"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    cr_assert_eq(load(&ks, &info, texts[i]), ERR_OK, "%s", texts[i]);
    cr_assert(info.derive && !info.secret_file.n && info.default_epoch == 1 && !info.has_grace && !info.num_schedules, "%s", texts[i]);
  }
  cr_assert_eq(load(&ks, &info, "derive: { secret_file: a b.key }\nepochs: { default: 7, grace: 90s, every: 7d }"), ERR_OK);
  cr_assert(bytes_eq(info.secret_file, BYTES_LIT("a b.key")));
  cr_assert(info.default_epoch == 7 && info.has_grace && info.grace_ms == 90000 && info.every_ms == 7 * 86400000ull);
}

Test(keysfile, words_of_yaml) {
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(load(&ks, &info, "derive: !!null ~\nepochs: null\nproviders: NULL\nkeys: Null\ndrm: { per_tier: True, clearkey: ~ }\n"), ERR_OK, "%s", shown);
  cr_assert(info.derive);
  cr_assert(keys_drm(ks, BYTES_LIT("a"))->per_tier);
  cr_assert_eq(load(&ks, &info, "~\n"), ERR_OK, "%s", shown);
  cr_assert(info.derive);
  ks = NULL;
  refused(ERR_SYNTAX, "keys: \"null\"\n", "keys: a list is expected");
  refused(ERR_SYNTAX, "drm: { per_tier: yes }\n", "per_tier: give true or false");
  refused(ERR_SYNTAX, "keys:\n  - { asset: a, scheme: cbcs, kid: ~, " KEY1 " }\n", "kid: give exactly 32 hex digits");
}

Test(keysfile, one_key_never_serves_two_schemes) {
  refused(ERR_KEY_REUSE,
          "keys:\n- { asset: a/one, scheme: cenc, " KID1 ", " KEY1 " }\n- { asset: b/two, scheme: cbcs, " KID2 ", " KEY1 " }",
          "\"a/one\" (cenc) and \"b/two\" (cbcs) share one key");
  refused(ERR_KEY_REUSE,
          "keys:\n- { asset: a, scheme: cenc, " KID1 ", " KEY1 " }\n- { asset: a, scheme: cbcs, " KID1 ", " KEY1 " }",
          "share one key");
}

Test(keysfile, a_kid_has_one_key_and_one_iv) {
  refused(ERR_SYNTAX,
          "keys:\n- { asset: a, scheme: cenc, " KID1 ", " KEY1 " }\n- { asset: b, scheme: cenc, " KID1 ", " KEY2 " }",
          "one KID two keys");
  refused(ERR_SYNTAX,
          "keys:\n- { asset: a, scheme: cbcs, " KID1 ", " KEY1 ", " IV1 " }\n- { asset: b, scheme: cbcs, " KID1 ", " KEY1 " }",
          "one KID two IVs");
  refused(ERR_SYNTAX,
          "keys:\n- { asset: a, scheme: cbcs, " KID1 ", " KEY1 ", iv: 00000000000000000000000000000000 }\n"
          "- { asset: b, scheme: cbcs, " KID1 ", " KEY1 " }",
          "one KID two IVs");
  refused(ERR_SYNTAX,
          "keys:\n- { asset: a, scheme: cenc, " KID1 ", " KEY1 " }\n- { asset: a, scheme: cenc, " KID2 ", " KEY2 " }",
          "has two records");
}

Test(keysfile, faults_are_named_with_their_line) {
  refused(ERR_SYNTAX, "keys:\n- { asset: a, scheme: cenc, " KID1 ", key: 00 }", "line 2: keys.key: give exactly 32 hex digits");
  refused(ERR_SYNTAX, "keys:\n- { asset: a, scheme: cenc, " KID1 " }", "line 2: asset \"a\": the record has no key");
  refused(ERR_SYNTAX, "keys:\n- { scheme: cenc, " KID1 ", " KEY1 " }", "the record has no asset");
  refused(ERR_SYNTAX, "keys:\n- { asset: a, scheme: cens, " KID1 ", " KEY1 " }", "scheme: give cenc or cbcs");
  refused(ERR_SYNTAX, "keys:\n- { asset: a, scheme: clear, " KID1 ", " KEY1 " }", "scheme: give cenc or cbcs");
  refused(ERR_SYNTAX, "keys:\n- { asset: a, scheme: cenc, " KID1 ", " KEY1 ", " IV1 " }", "iv is for cbcs");
  refused(ERR_SYNTAX, "keys:\n- { asset: a, epoch: 0, scheme: cenc, " KID1 ", " KEY1 " }", "epoch: give a number from 1");
  refused(ERR_SYNTAX, "\n\nkeyz: []", "line 3: unknown option \"keyz\"");
  refused(ERR_SYNTAX, "epochs: { default: 1, default: 2 }", "option \"epochs.default\" is given twice");
  refused(ERR_SYNTAX, "epochs: { foo: 1 }", "unknown option \"epochs.foo\"");
  refused(ERR_SYNTAX, "epochs: { grace: 24 }", "epochs.grace: give a time such as 24h");
  refused(ERR_SYNTAX, "epochs: { grace: 101 years }", "epochs.grace: give a time");
  refused(ERR_SYNTAX, "- a", "options are expected");
  refused(ERR_SYNTAX, "keys: { a: b }", "keys: a list is expected");
  refused(ERR_SYNTAX, "keys: [ [ ] ]", "keys: each entry is a mapping");
  refused(ERR_SYNTAX, "derive: [ ]", "derive: options are expected");
  refused(ERR_SYNTAX, "derive: { secret_file: { } }", "secret_file: one value is expected");
  refused(ERR_SYNTAX, "derive: { ", "this is not YAML: did not find");
  refused(ERR_SYNTAX, "\tkeys: x", "line 1: this is not YAML: found character that cannot start any token: indent with spaces, not tabs");
  refused(ERR_SYNTAX, "derive: &a { }\nepochs: *a", "aliases");
  // Read as no value they would be an empty file, or an option that is not given: who means that of !!null writes its value.
  for (unsigned i = 0; i < 3; i++) {
    char text[64];
    const char *lone = (const char *const[]){"&a", "!!str", "!!null"}[i];
    snprintf(text, sizeof text, "%s\n", lone);
    refused(ERR_SYNTAX, text, "line 1: an anchor (&name) or a tag (!name) stands before no value");
    snprintf(text, sizeof text, "epochs: { default: 2 }\nderive: %s\n", lone);
    refused(ERR_SYNTAX, text, "line 2: an anchor (&name) or a tag (!name) stands before no value");
    snprintf(text, sizeof text, "keys: [ %s ]\n", lone);
    refused(ERR_SYNTAX, text, "line 1: an anchor (&name) or a tag (!name) stands before no value");
  }
  refused(ERR_SYNTAX, "derive: {}\n---\nderive: {}", "one document is expected");
  refused(ERR_SYNTAX, "drm: { systems: [ widevine, fairpley ] }", "systems: unknown system");
  refused(ERR_SYNTAX, "drm: { schemes: [ cens ] }", "schemes: unknown scheme");
  refused(ERR_SYNTAX, "drm: { per_tier: yes }", "line 1: drm.per_tier: give true or false");
  refused(ERR_SYNTAX, "drm: { rules: [ { match: a } ], systems: all }", "rules must come last");
  refused(ERR_SYNTAX, "drm: { rules: [ { systems: all } ] }", "a rule needs match");
  refused(ERR_SYNTAX, "drm: { rules: [ { match: a/ }, { match: a/ } ] }", "\"a/\" has two rules");
  refused(ERR_LIMIT, "drm: { clearkey: { la_url: '{asset}{asset}{asset}' } }", "{asset} at most twice");
}

// Lines and bytes, whatever stands before: libyaml counts characters, leaves a byte order mark out, and has no mark for what it cannot decode.
Test(keysfile, faults_are_placed_by_their_byte) {
  refused(ERR_SYNTAX, "# \xc3\xa9\xe2\x82\xac\nfoo: 1\n", "line 2: unknown option \"foo\": see docs/keys.md for those known (at byte 8)");
  refused(ERR_SYNTAX, "\xef\xbb\xbf# \xc3\xa9\nkeys: { }\n", "line 2: keys: a list is expected (at byte 14)");
  refused(ERR_SYNTAX, "# \xc3\xa9\nkeys:\n  - { asset: a, scheme: cenc, " KID1 " }\n", "line 3: asset \"a\": the record has no key (at byte 15)");
  refused(ERR_SYNTAX, "# \xc3\xa9\nkeys:\n# \x02\n", "line 3: this is not YAML: control characters are not allowed (at byte 13)");
  refused(ERR_SYNTAX, "epochs:\n  schedule:\n    - { match: a//b, every: 1h }\n",
          "line 3: epochs.schedule: match: a name has no empty, \".\" or \"..\" segment (at byte 26)");
  refused(ERR_SYNTAX, "epochs:\n  schedule:\n    - { match: a }\n", "line 3: epochs.schedule: an entry needs every");
}

Test(keysfile, no_error_shows_key_bytes) {
  static const char *const texts[] = {
      "keys:\n- { asset: a, scheme: cenc, " KID1 ", key: 0123456789abcdef0123456789abcdexx }",
      "keys:\n- { asset: a, scheme: cenc, " KID1 ", " KEY1 ", 0123456789abcdef0123456789abcdef: 1 }",
      "keys:\n- { asset: a, scheme: cenc, " KID1 ", key: [0123456789abcdef0123456789abcdef] }",
  };
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct keyset *ks;
    struct keys_info info;
    diag = (struct diag){0};
    cr_assert_neq(load(&ks, &info, texts[i]), ERR_OK);
    if (i != 1) // there the digits stand where an option's name belongs
      cr_assert_null(strstr(shown, "0123456789"), "%s", shown);
  }
}

// Memory of which nothing is given back, so that what was written there can be looked for.
struct arena {
  struct alloc base;
  size_t n;
  _Alignas(64) uint8_t room[1 << 18];
};

static void *arena_get(struct alloc *self, size_t n) {
  struct arena *a = (struct arena *)(void *)self;
  size_t at = (a->n + 63) & ~(size_t)63;
  if (at + n > sizeof a->room)
    return NULL;
  a->n = at + n;
  return a->room + at;
}

// Lists of records are made anew as they grow; no copy of a key stays behind.
Test(keysfile, no_key_is_left_when_it_is_wiped) {
  enum { RECORDS = 100 };
  static struct arena a = {.base.get = arena_get};
  static char text[1 << 14];
  struct writer w = wr_of(text, sizeof text - 1);
  struct keyset *ks;
  struct keys_info info;
  wr_str(&w, "keys:\n");
  for (unsigned i = 0; i < RECORDS; i++)
    wr_fmt(&w, "- { asset: a%u, scheme: cbcs, kid: %032x, key: 5eac7e55e7%022x }\n", i, i, i);
  cr_assert_eq(keys_parse(&a.base, &ks, &info, bytes_of(text, w.n), &diag), ERR_OK, "%s", diag.what);
  cr_assert_eq(info.num_records, RECORDS);
  cr_assert_not_null(memmem(a.room, a.n, "\x5e\xac\x7e\x55\xe7", 5));
  keyset_wipe(ks);
  cr_assert_null(memmem(a.room, a.n, "\x5e\xac\x7e\x55\xe7", 5));
}

Test(keysfile, files_up_to_their_limit) {
  uint8_t *file = (uint8_t *)calloc(1, KEYS_MAX_FILE + 1);
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(keys_parse(&heap.base, &ks, &info, bytes_of(file, KEYS_MAX_FILE + 1), &diag), ERR_LIMIT);
  diag = (struct diag){0};
  cr_assert_eq(keys_parse(&heap.base, &ks, &info, bytes_of(file, KEYS_MAX_FILE), &diag), ERR_SYNTAX); // zeros
  free(file);
}

Test(keysfile, providers) {
  struct keyset *ks;
  struct keys_info info;
  uint32_t num;
  cr_assert_eq(load(&ks, &info,
                    "providers:\n"
                    "  - { type: speke2.1, url: 'https://k.test/v2', ca_file: ca.pem, bearer_file: token, lifetime: 2h, stale: 3d }\n"
                    "  - { type: json, url: 'http://in.house/', match: live/, connections: 9, attempts: 1, lifetime: 4s }\n"
                    "  - { type: json, url: 'http://in.house/one', match: live/one }\n"
                    "  - { type: cpix, file: keys.cpix, epoch: 3, scheme: cenc }\n"
                    "keys: [{ asset: live/own, scheme: cbcs, " KID1 ", " KEY1 " }]\n"),
               ERR_OK, "%s", shown);
  cr_assert_not(info.derive);
  const struct key_remote *r = keys_remotes(ks, &num);
  cr_assert_eq(num, 4);
  r = keys_remote(ks, BYTES_LIT("album"));
  cr_assert_str_eq(r->provider->name, "speke2.1");
  cr_assert(bytes_eq(r->ca_file, BYTES_LIT("ca.pem")) && bytes_eq(r->bearer_file, BYTES_LIT("token")));
  cr_assert_eq(r->lifetime_ms, 7200000u);
  cr_assert_eq(r->stale_ms, 3u * 86400000);
  r = keys_remote(ks, BYTES_LIT("live/two"));
  cr_assert_eq(r->connections, 9);
  cr_assert_eq(r->refresh_ms, 1000, "a quarter, when nothing is said and the default does not fit");
  cr_assert(bytes_eq(keys_remote(ks, BYTES_LIT("live/one"))->url, BYTES_LIT("http://in.house/one")), "the longest match");
  cr_assert_eq(keys_remote(ks, BYTES_LIT("live/one2"))->connections, 9, "not of another asset that begins so");
  cr_assert_null(keys_remote(ks, BYTES_LIT("live/own")), "an asset with records is not asked for");
  cr_assert_not_null(keys_remote(ks, BYTES_LIT("live/ow")));
  cr_assert_str_eq(keys_remote(ks, BYTES_LIT("live"))->provider->name, "speke2.1");
}

// What the options of an entry may be together, and how large.
Test(keysfile, providers_that_are_refused) {
#define JSON "providers: [ { type: json, url: 'http://a/', "
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(load(&ks, &info, JSON "client_cert: a, client_key: b, attempts: 10, connections: 64, retry: 10ms, retry_max: 10ms } ]"), ERR_OK, "%s", shown);
  refused(ERR_SYNTAX, JSON "client_cert: a } ]", "client_cert and client_key go together");
  refused(ERR_SYNTAX, JSON "client_key: a } ]", "client_cert and client_key go together");
  refused(ERR_SYNTAX, JSON "bearer_file: a, basic_file: b } ]", "not both");
  refused(ERR_SYNTAX, JSON "attempts: 11 } ]", "attempts: 1 to 10");
  refused(ERR_SYNTAX, JSON "connections: 65 } ]", "connections: 1 to 64");
  refused(ERR_SYNTAX, JSON "retry: 20ms, retry_max: 19ms } ]", "retry_max: at least as much");
  refused(ERR_SYNTAX, JSON "retry: 9ms } ]", "retry: at least 10ms");
}

// A CPIX file between two of them, whose match is empty too, hides nothing.
Test(keysfile, two_key_servers_for_everything_are_refused_wherever_they_stand) {
  static const char *const entries[] = {"  - { type: json, url: 'http://a/' }\n", "  - { type: cpix, file: k.cpix }\n", "  - { type: json, url: 'http://b/' }\n"};
  static const uint8_t orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}};
  for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
    char text[256];
    snprintf(text, sizeof text, "providers:\n%s%s%s", entries[orders[i][0]], entries[orders[i][1]], entries[orders[i][2]]);
    refused(ERR_SYNTAX, text, "everything has two");
  }
}

Test(keysfile, cpix_documents_join_the_records) {
  static const char doc[] = "<CPIX xmlns=\"urn:dashif:org:cpix\" xmlns:p=\"urn:ietf:params:xml:ns:keyprov:pskc\" contentId=\"b\"><ContentKeyList>"
                            "<ContentKey kid=\"00112233-4455-6677-8899-aabbccddee02\" commonEncryptionScheme=\"%s\"><Data><p:Secret>"
                            "<p:PlainValue>ASNFZ4mrze8BI0VniavNAQ==</p:PlainValue></p:Secret></Data></ContentKey></ContentKeyList></CPIX>";
  struct keyset *ks;
  struct keys_info info;
  char text[1024];
  cr_assert_eq(load(&ks, &info, "keys: [{ asset: a, scheme: cbcs, " KID1 ", " KEY1 " }]\n"), ERR_OK);
  snprintf(text, sizeof text, doc, "cbcs");
  cr_assert_eq(keys_add_cpix(ks, &heap.base, bytes_str(text), 4, SCHEME_CLEAR, &diag), ERR_OK, "the same key for the same scheme: %s", diag.what);
  struct key_record r;
  struct key_query q = {.asset = BYTES_LIT("b"), .epoch = 4, .scheme = SCHEME_CBCS};
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_OK);
  cr_assert_eq(r.kid[15], 2);
  q.asset = BYTES_LIT("a"), q.epoch = 1;
  cr_assert_eq(keys_lookup(&r, ks, &q), ERR_OK);
  r.scheme = SCHEME_CENC;
  r.asset = BYTES_LIT("else");
  cr_assert_eq(keys_agree(ks, &r, &diag), ERR_KEY_REUSE, "a key that records have for the other scheme");
  cr_assert(strstr(diag.what, "\"else\" (cenc)"), "%s", diag.what);
  r.key[0] ^= 1;
  diag = (struct diag){0};
  cr_assert_eq(keys_agree(ks, &r, &diag), ERR_KEY_REUSE, "another key for a KID that records have");
  cr_assert(strstr(diag.what, "\"a\" and \"else\" give one KID two keys or IVs"), "%s", diag.what);
  r.kid[0] ^= 1;
  diag = (struct diag){0};
  cr_assert_eq(keys_agree(ks, &r, &diag), ERR_OK);
  snprintf(text, sizeof text, doc, "cenc");
  cr_assert_eq(keys_add_cpix(ks, &heap.base, bytes_str(text), 5, SCHEME_CLEAR, &diag), ERR_KEY_REUSE);
}

Test(keysfile, cpix_documents_name_their_asset) {
  static const char doc[] = "<CPIX xmlns=\"urn:dashif:org:cpix\" xmlns:p=\"urn:ietf:params:xml:ns:keyprov:pskc\" contentId=\"\"><ContentKeyList>"
                            "<ContentKey kid=\"00112233-4455-6677-8899-aabbccddee02\" commonEncryptionScheme=\"cbcs\"><Data><p:Secret>"
                            "<p:PlainValue>ASNFZ4mrze8BI0VniavNAQ==</p:PlainValue></p:Secret></Data></ContentKey></ContentKeyList></CPIX>";
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(load(&ks, &info, ""), ERR_OK);
  cr_assert_eq(keys_add_cpix(ks, &heap.base, bytes_str(doc), 1, SCHEME_CLEAR, &diag), ERR_MALFORMED);
  cr_assert(strstr(diag.what, "contentId names no asset"), "%s", diag.what);
}

static void changed(const char *was, const char *now, const char *want) {
  struct keyset *a, *b;
  struct keys_info info;
  char out[KEYS_CHANGED_MAX];
  cr_assert_eq(load(&a, &info, was), ERR_OK, "%s", shown);
  cr_assert_eq(load(&b, &info, now), ERR_OK, "%s", shown);
  cr_assert_str_eq(keys_changed(out, a, b), want, "%s -> %s: %s", was, now, out);
}

Test(keysfile, what_changes_old_urls_is_named) {
#define RECORD(asset, epoch, kid, key) "  - { asset: " asset ", epoch: " epoch ", scheme: cbcs, " kid ", " key " }\n"
  static const char one[] = "keys:\n" RECORD("b", "1", KID1, KEY1);
  changed(two, two, "");
  changed("", "epochs: { every: 1h }\n", "");
  changed(one, "keys:\n" RECORD("a", "1", KID2, KEY2) RECORD("b", "1", KID1, KEY1), "");
  changed(one, "keys:\n" RECORD("b", "2", KID2, KEY2), "");
  changed(one, "keys:\n" RECORD("b", "1", KID2, KEY1), "keys");
  changed(one, "keys:\n" RECORD("b", "1", KID1, KEY2), "keys");
  changed("", "drm: { systems: [widevine] }\n", "drm");
  changed("", "drm: { per_tier: true }\n", "drm");
  changed("drm: { clearkey: { la_url: x } }\n", "drm: { clearkey: { la_url: x, no_identity: true } }\n", "drm");
  changed("keys:\n" RECORD("b", "1", KID1, KEY1 ", " IV1), one, "keys");
  changed(one, "keys:\n" RECORD("b", "1", KID1, KEY1 ", " IV1), "keys");
  changed("keys:\n" RECORD("b", "1", KID1, KEY1 ", " IV1),
          "keys:\n" RECORD("b", "1", KID1, KEY1 ", iv: f0000000000000000000000000000002"), "keys");
  changed("keys:\n" RECORD("b", "1", KID1, KEY1 ", " IV1), "keys:\n" RECORD("b", "1", KID1, KEY1 ", " IV1), "");
  changed("drm: { playready: { la_url: x } }\n", "drm: { playready: { la_url: y } }\n", "drm");
  changed("", "drm:\n  rules:\n    - { match: a/, in_band: all }\n", "drm");
  changed(one, "drm: { fairplay: { skd: x } }\nkeys:\n" RECORD("b", "1", KID1, KEY2), "drm, keys");
  struct keyset *a, *b;
  struct keys_info info;
  char out[KEYS_CHANGED_MAX];
  cr_assert_eq(load(&a, &info, ""), ERR_OK);
  cr_assert_eq(load(&b, &info, ""), ERR_OK);
  cr_assert_eq(keys_set_secret(a, BYTES_LIT("0123456789abcdef"), &diag), ERR_OK);
  cr_assert_eq(keys_set_secret(b, BYTES_LIT("0123456789abcdeg"), &diag), ERR_OK);
  cr_assert_str_eq(keys_changed(out, a, a), "");
  cr_assert_str_eq(keys_changed(out, a, b), "derive");
  static const struct {
    const char *now, *want;
  } gone[] = {{"", "keys"}, {"keys:\n" RECORD("b", "2", KID2, KEY2), ""}, {"keys:\n" RECORD("a", "1", KID2, KEY2), "keys"}};
  cr_assert_eq(load(&a, &info, one), ERR_OK);
  for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) {
    cr_assert_eq(load(&b, &info, gone[i].now), ERR_OK);
    cr_expect_str_eq(keys_changed(out, a, b), "", "gone: a 503");
    cr_assert_eq(keys_set_secret(b, BYTES_LIT("0123456789abcdef"), &diag), ERR_OK);
    cr_expect_str_eq(keys_changed(out, a, b), gone[i].want, "with derivation, %s", gone[i].now);
  }
}
