// What encrypted files say of their samples: groups, auxiliary information, senc and sample entries, in every form.
#include "encrypted.h"

Test(unprotect, auxiliary_information_of_other_kinds) {
  const struct {
    const char *name;
    enum scheme scheme;
    struct bytes boxes;
    size_t saio, saio_at;
  } rows[] = {
      {"none, constant IV", SCHEME_CBCS, {0}, 0, 0},
      {"foreign only, constant IV", SCHEME_CBCS, BYTES_LIT(PAIR_FOREIGN), 0, 0},
      {"foreign, then cenc", SCHEME_CENC, BYTES_LIT(PAIR_FOREIGN PAIR_CENC IVS), FOREIGN_LEN + 49, FOREIGN_LEN + CENC_LEN + 8},
      {"cenc, then foreign", SCHEME_CENC, BYTES_LIT(PAIR_CENC PAIR_FOREIGN IVS), 49, FOREIGN_LEN + CENC_LEN + 8},
      {"a uuid that begins like PIFF's", SCHEME_CENC,
       BYTES_LIT(PAIR_CENC IVS "\0\0\0\x20uuid\xa2\x39\x4f\x52\1\2\3\4\5\6\7\1\2\3\4\5" "\0\0\0\0\0\0\0\4"), 49, CENC_LEN + 8},
      {"unnamed, then foreign", SCHEME_CENC, BYTES_LIT(PAIR_PLAIN PAIR_FOREIGN IVS), 33, FOREIGN_LEN + PLAIN_LEN + 8},
  };
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX), first[HAND_SAMPLES * HAND_SIZE];
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, rows[i].scheme);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = rows[i].boxes, .saio = rows[i].saio, .saio_at = rows[i].saio_at});
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s: %s", rows[i].name, d.what);
    cr_assert(!memmem(out, len, "saio", 4) && !memmem(out, len, "saiz", 4), "%s: offsets that did not follow", rows[i].name);
    const uint8_t *data = (const uint8_t *)memmem(out, len, "mdat", 4) + 4;
    if (rows[i].scheme == SCHEME_CENC)
      check_hand_data(data, rows[i].name);
    else if (i == 0)
      memcpy(first, data, sizeof first);
    else
      cr_assert_arr_eq(data, first, sizeof first, "%s", rows[i].name);
  }
  free(in), free(out);
}

// Auxiliary information may name each of the schemes. ISO/IEC 23001-7 7.1.
Test(unprotect, auxiliary_information_of_each_scheme) {
  static const char *const names[] = {"cenc", "cens", "cbc1", "cbcs"};
  static uint8_t boxes[] = PAIR_CENC IVS;
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    memcpy(boxes + 12, names[i], 4);
    memcpy(boxes + 25 + 12, names[i], 4);
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = bytes_of(boxes, sizeof boxes - 1), .saio = 49, .saio_at = CENC_LEN + 8});
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s: %s", names[i], d.what);
    check_hand_data((const uint8_t *)memmem(out, len, "mdat", 4) + 4, names[i]);
  }
  free(in), free(out);
}

// seig descriptions of 20 bytes: clear, and protected with the IVs of senc (which there is none of here).
#define SEIG_CLEAR "\0\0\0\0\1\2\3\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define SEIG_CLEAR_8 "\0\0\0\x8\1\2\3\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define SEIG_SENC "\0\0\1\x8\1\2\3\0\0\0\0\0\0\0\0\0\0\0\0\0"

// Which of the four samples of a cbcs track are clear, by the groups of a traf.
Test(unprotect, groups_of_every_version) {
  static const struct {
    const char *name, *clear;
    struct bytes boxes;
  } rows[] = {
      {"version 0", "1100",
       BYTES_LIT("\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" SEIG_CLEAR "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\2\0\1\0\1")},
      {"version 1, one length", "0110",
       BYTES_LIT("\0\0\0\x40sgpd\1\0\0\0seig\0\0\0\x14\0\0\0\2" SEIG_SENC SEIG_CLEAR
                 "\0\0\0\x24sbgp\0\0\0\0seig\0\0\0\2\0\0\0\1\0\0\0\0\0\0\0\2\0\1\0\2")},
      {"version 1, each its length", "1000",
       BYTES_LIT("\0\0\0\x48sgpd\1\0\0\0seig\0\0\0\0\0\0\0\2\0\0\0\x14" SEIG_SENC "\0\0\0\x14" SEIG_CLEAR
                 "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\1\0\1\0\2")},
      {"version 0, sbgp version 1", "1110",
       BYTES_LIT("\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" SEIG_CLEAR "\0\0\0\x20sbgp\1\0\0\0seig\0\0\0\0\0\0\0\1\0\0\0\3\0\1\0\1")},
      {"version 2, no sbgp, no default", "0000",
       BYTES_LIT("\0\0\0\x30sgpd\2\0\0\0seig\0\0\0\x14\0\0\0\0\0\0\0\1" SEIG_CLEAR)},
      {"version 2, a default", "1111",
       BYTES_LIT("\0\0\0\x30sgpd\2\0\0\0seig\0\0\0\x14\0\0\0\1\0\0\0\1" SEIG_CLEAR)},
      {"version 2, a default behind sbgp", "0011",
       BYTES_LIT("\0\0\0\x30sgpd\2\0\0\0seig\0\0\0\x14\0\0\0\1\0\0\0\1" SEIG_CLEAR
                 "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\2\0\0\0\0")},
      {"an IV size, and no IVs", "1100",
       BYTES_LIT("\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" SEIG_CLEAR_8 "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\2\0\1\0\1")},
      {"version 2, each its length", "0100",
       BYTES_LIT("\0\0\0\x4csgpd\2\0\0\0seig\0\0\0\0\0\0\0\0\0\0\0\2\0\0\0\x14" SEIG_SENC "\0\0\0\x14" SEIG_CLEAR
                 "\0\0\0\x24sbgp\0\0\0\0seig\0\0\0\2\0\0\0\1\0\0\0\0\0\0\0\1\0\1\0\2")},
  };
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CBCS);
    put_hand_frag(&b, &(struct hand_frag){.before_trun = rows[i].boxes});
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s: %s", rows[i].name, d.what);
    const uint8_t *data = (const uint8_t *)memmem(out, len, "mdat", 4) + 4;
    for (uint8_t n = 0; n < HAND_SAMPLES; n++)
      cr_expect_eq(data[n * HAND_SIZE] == n, rows[i].clear[n] == '1', "%s: sample %u", rows[i].name, n);
  }
  free(in), free(out);
}

enum { MOST_DESCRIPTIONS = 4096 };

static void put_descriptions(struct made_box *b, uint32_t num) {
  size_t at = open_box(b, "sgpd");
  put(b, "\0\0\0\0seig", 8);
  put32(b, num);
  for (uint32_t i = 0; i < num; i++)
    put(b, SEIG_CLEAR, 20);
  close_box(b, at);
}

Test(unprotect, groups_up_to_their_limit) {
  uint8_t *in = (uint8_t *)malloc(HAND_MANY_MAX), *out = (uint8_t *)malloc(HAND_MANY_MAX), *boxes = (uint8_t *)malloc(HAND_MANY_MAX);
  for (uint32_t i = 0; i < 2; i++) {
    struct made_box b = {.p = in}, groups = {.p = boxes};
    size_t len = 0;
    struct diag d = {0};
    put_descriptions(&groups, MOST_DESCRIPTIONS + 1);
    put(&groups, "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\4", 24);
    put32(&groups, 0x10000 + MOST_DESCRIPTIONS + i);
    put_init(&b, SCHEME_CBCS);
    put_hand_frag(&b, &(struct hand_frag){.before_trun = bytes_of(groups.p, groups.n)});
    enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), want = i ? ERR_LIMIT : ERR_OK;
    cr_expect_eq(e, want, "%u: %s %s", i, err_name(e), d.what);
  }
  free(in), free(out), free(boxes);
}

// Descriptions without lengths that samples name in turn, the last ones: found once, not once for each sample.
Test(unprotect, groups_that_alternate, .timeout = 20) {
  enum { SAMPLES = 100000 };
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MANY_MAX)}, groups = {.p = (uint8_t *)malloc(HAND_MANY_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MANY_MAX);
  struct diag d = {0};
  put_descriptions(&groups, MOST_DESCRIPTIONS);
  size_t len = 0, at = open_box(&groups, "sbgp");
  put(&groups, "\0\0\0\0seig", 8);
  put32(&groups, SAMPLES);
  for (uint32_t i = 0; i < SAMPLES; i++) {
    put32(&groups, 1);
    put32(&groups, 0x10000 + MOST_DESCRIPTIONS - i % 2);
  }
  close_box(&groups, at);
  put_init(&b, SCHEME_CBCS);
  put_hand_frag(&b, &(struct hand_frag){.many = SAMPLES, .before_trun = bytes_of(groups.p, groups.n)});
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s", d.what);
  free(b.p), free(groups.p), free(out);
}

// A second KID, of which there is no key.
#define SEIG_OTHER "\0\0\1\x8\x9\2\3\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define FOUR_IVS "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\2" "\0\0\0\0\0\0\0\3"
#define PIFF "\xa2\x39\x4f\x52\x5a\x9b\x4f\x14\xa2\x44\x6c\x42\x7c\x64\x8d\xf4"

Test(unprotect, protection_data_of_every_form) {
  static const struct {
    const char *name;
    struct bytes boxes;
    size_t saio, saio_at;
    enum err want;
    struct bytes before;
  } rows[] = {
      {"none", {0}, 0, 0, ERR_MISSING, {0}},
      {"senc", BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" FOUR_IVS), 0, 0, ERR_OK, {0}},
      {"senc of three", BYTES_LIT("\0\0\0\x28senc\0\0\0\0\0\0\0\3" "\0\0\0\0\0\0\0\0" "\0\0\0\0\0\0\0\1" "\0\0\0\0\0\0\0\2"), 0, 0, ERR_MISSING, {0}},
      {"PIFF", BYTES_LIT("\0\0\0\x40uuid" PIFF "\0\0\0\0\0\0\0\4" FOUR_IVS), 0, 0, ERR_OK, {0}},
      {"PIFF with its own parameters", BYTES_LIT("\0\0\0\x54uuid" PIFF "\0\0\0\1\0\0\1\x8" "kkkkkkkkkkkkkkkk" "\0\0\0\4" FOUR_IVS), 0, 0, ERR_OK, {0}},
      {"one size each", BYTES_LIT("\0\0\0\x15saiz\0\0\0\0\0\0\0\0\4\x8\x8\x8\x8" "\0\0\0\x14saio\0\0\0\0\0\0\0\1\0\0\0\0" IVS), 37, 49, ERR_OK, {0}},
      {"an offset of 64 bits",
       BYTES_LIT("\0\0\0\x15saiz\0\0\0\0\0\0\0\0\4\x8\x8\x8\x8" "\0\0\0\x18saio\1\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0" IVS), 41, 53, ERR_OK, {0}},
      {"an offset more than there are truns",
       BYTES_LIT("\0\0\0\x11saiz\0\0\0\0\x8\0\0\0\4" "\0\0\0\x18saio\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0" IVS), 33, 49, ERR_MALFORMED, {0}},
      {"behind the end", BYTES_LIT(PAIR_PLAIN IVS), 33, 1 << 20, ERR_TRUNCATED, {0}},
      {"up to the end and a byte more", BYTES_LIT(PAIR_PLAIN), 33, PLAIN_LEN + 8 + HAND_SAMPLES * HAND_SIZE - 31, ERR_TRUNCATED, {0}},
      // As many entries as samples would end a byte, or an entry, behind the file.
      {"three for four samples, an offset for each trun",
       BYTES_LIT("\0\0\0\x11saiz\0\0\0\0\x8\0\0\0\3" "\0\0\0\x18saio\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0"), 37, 41 + 8 + HAND_SAMPLES * HAND_SIZE - 24,
       ERR_MISSING, BYTES_LIT("\0\0\0\x10trun\0\0\0\0\0\0\0\0")},
      {"a group that is not there",
       BYTES_LIT("\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" SEIG_CLEAR "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\2\0\1\0\2"), 0, 0, ERR_MALFORMED, {0}},
      {"a group with another key",
       BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" FOUR_IVS "\0\0\0\x3csgpd\0\0\0\0seig\0\0\0\2" SEIG_SENC SEIG_OTHER
                 "\0\0\0\x24sbgp\0\0\0\0seig\0\0\0\2\0\0\0\1\0\1\0\1\0\0\0\1\0\1\0\2"), 0, 0, ERR_NO_KEY, {0}},
      {"groups of the same key, sbgp version 1",
       BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" FOUR_IVS "\0\0\0\x3csgpd\0\0\0\0seig\0\0\0\2" SEIG_OTHER SEIG_SENC
                 "\0\0\0\x20sbgp\1\0\0\0seig\0\0\0\0\0\0\0\1\0\0\0\4\0\1\0\2"), 0, 0, ERR_OK, {0}},
  };
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.before_trun = rows[i].before, .after_trun = rows[i].boxes, .saio = rows[i].saio, .saio_at = rows[i].saio_at});
    enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d);
    cr_expect_eq(e, rows[i].want, "%s: %s %s", rows[i].name, err_name(e), d.what);
    if (e)
      continue;
    check_hand_data((const uint8_t *)memmem(out, len, "mdat", 4) + 4, rows[i].name);
    cr_expect(!memmem(out, len, "senc", 4) && !memmem(out, len, PIFF, 16), "%s: it is still there", rows[i].name);
  }
  free(in), free(out);
}

// Subsamples say the same in senc and in auxiliary information; groups of one fragment are not those of the next.
Test(unprotect, subsamples_in_both_places) {
#define SUB "\0\1\0\x10\0\0\0\x20"
  static const struct bytes boxes[] = {
      BYTES_LIT("\0\0\0\x50senc\0\0\0\2\0\0\0\4" "\0\0\0\0\0\0\0\0" SUB "\0\0\0\0\0\0\0\1" SUB "\0\0\0\0\0\0\0\2" SUB "\0\0\0\0\0\0\0\3" SUB),
      BYTES_LIT(PAIR_PLAIN "\0\0\0\x48uuid" "\0\0\0\0\0\0\0\0" SUB "\0\0\0\0\0\0\0\1" SUB "\0\0\0\0\0\0\0\2" SUB "\0\0\0\0\0\0\0\3" SUB)};
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX), first[HAND_SAMPLES * HAND_SIZE];
  for (size_t i = 0; i < 2; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = boxes[i], .saio = i ? 33 : 0, .saio_at = PLAIN_LEN + 8});
    uint8_t *saiz = (uint8_t *)memmem(in, b.n, "saiz", 4);
    if (saiz)
      saiz[8] = 16;
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%zu: %s", i, d.what);
    const uint8_t *data = (const uint8_t *)memmem(out, len, "mdat", 4) + 4;
    for (uint8_t n = 0; n < HAND_SAMPLES; n++)
      cr_expect(data[n * HAND_SIZE] == n && data[n * HAND_SIZE + 15] == n && (data[n * HAND_SIZE + 16] != n || data[n * HAND_SIZE + 17] != n));
    if (i)
      cr_expect_arr_eq(data, first, sizeof first);
    memcpy(first, data, sizeof first);
  }
  free(in), free(out);
}

Test(unprotect, groups_of_two_fragments) {
  static const struct bytes boxes[] = {
      BYTES_LIT("\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" SEIG_CLEAR "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\4\0\1\0\1"),
      BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" FOUR_IVS "\0\0\0\x2csgpd\1\0\0\0seig\0\0\0\x14\0\0\0\1" SEIG_SENC "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\4\0\1\0\1")};
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  for (int i = 0; i < 2; i++)
    put_hand_frag(&b, &(struct hand_frag){.after_trun = boxes[i]});
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s", d.what);
  const uint8_t *data = (const uint8_t *)memmem(out, len, "mdat", 4) + 4;
  for (uint8_t n = 0; n < HAND_SAMPLES; n++)
    cr_expect_eq(data[n * HAND_SIZE], n);
  check_hand_data((const uint8_t *)memmem(data, len - (size_t)(data - out), "mdat", 4) + 4, "the second");
  free(b.p), free(out);
}

// System data of a fragment go with its protection.
Test(unprotect, system_data_in_a_moof) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
  put_in(&b, find_box(&b, "traf"), BYTES_LIT("\0\0\0\x20pssh\0\0\0\0ssssssssssssssss\0\0\0\0"), "moof");
  uint8_t *offset = b.p + find_box(&b, "trun") + 16;
  store_be32(offset, load_be32(offset) + 32);
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s", d.what);
  struct made_box o = {.p = out, .n = len};
  cr_expect(!memmem(out, len, "pssh", 4));
  check_hand_data(out + find_box(&o, "moof") + load_be32(out + find_box(&o, "trun") + 16), "pssh");
  free(b.p), free(out);
}

// IVs that stand behind the next fragment: in pieces, they are not there when they are needed, and all of the file is loaded.
Test(unprotect, protection_data_behind_the_next_moof) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  size_t moof = b.n;
  put_hand_frag(&b, &(struct hand_frag){.after_trun = BYTES_LIT(PAIR_PLAIN)});
  put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
  store_be32(b.p + find_box(&b, "saio") + 16, (uint32_t)(b.n + 8 - moof));
  put(&b, IVS, sizeof IVS - 1);
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s", d.what);
  check_hand_data((const uint8_t *)memmem(out, len, "mdat", 4) + 4, "the first");
  free(b.p), free(out);
}

// Fragments that all point at the same auxiliary information, more of it than they have samples: it would be read for each of them.
Test(unprotect, more_auxiliary_information_than_bytes) {
  enum { SHARED = 1024 };
  static const uint8_t shared[SHARED];
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (int num = 1; num <= 4; num += 3) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    for (int i = 0; i < num; i++)
      put_hand_frag(&b, &(struct hand_frag){.after_trun = BYTES_LIT(PAIR_PLAIN)});
    size_t end = b.n;
    put_box(&b, "free", shared, SHARED);
    for (uint8_t *moof = in; (moof = (uint8_t *)memmem(moof + 4, end - (size_t)(moof + 4 - in), "moof", 4));) {
      uint8_t *saiz = (uint8_t *)memmem(moof, end - (size_t)(moof - in), "saiz", 4), *saio = (uint8_t *)memmem(moof, end - (size_t)(moof - in), "saio", 4);
      store_be32(saiz + 9, SHARED / 8);
      store_be32(saio + 12, (uint32_t)(end + 8 - (size_t)(moof - 4 - in)));
    }
    cr_assert(b.n > SHARED && b.n < 4 * SHARED);
    cr_expect_eq(decrypt(out, &len, bytes_of(in, b.n), 1, &d), num == 1 ? ERR_OK : ERR_MALFORMED, "%d: %s", num, d.what);
    cr_expect(num == 1 || strstr(d.what, "more auxiliary information than bytes"), "%s", d.what);
  }
  free(in), free(out);
}

// Subsamples that stand in the bytes that they protect say something else once the first is decrypted.
Test(unprotect, subsamples_within_their_sample) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  put_hand_frag(&b, &(struct hand_frag){.after_trun = BYTES_LIT(PAIR_PLAIN)});
  size_t moof = find_box(&b, "moof"), data = find_box(&b, "mdat") + 8;
  b.p[find_box(&b, "saiz") + 12] = 22;
  store_be32(b.p + find_box(&b, "saiz") + 13, 1);
  store_be32(b.p + find_box(&b, "saio") + 16, (uint32_t)(data - moof));
  memcpy(b.p + data + 8, "\0\2" "\0\0\0\0\0\x20" "\0\0\0\0\0\x10", 14);
  uint8_t *exact = (uint8_t *)malloc(b.n);
  memcpy(exact, b.p, b.n);
  cr_expect_eq(decrypt(exact, &len, bytes_of(exact, b.n), 1, &d), ERR_MALFORMED, "%s", d.what);
  free(b.p), free(exact);
}

// ISO/IEC 14496-12 8.8.7: exactly one. Which of several counts readers do not agree on.
Test(unprotect, a_second_tfhd) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  put_hand_frag(&b, &(struct hand_frag){.after_trun = BYTES_LIT("\0\0\0\x10tfhd\0\2\0\0\0\0\0\1")});
  cr_expect_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_MALFORMED);
  cr_expect_str_eq(d.what, "a second tfhd");
  free(b.p), free(out);
}

// Sample entries by trex; places that are no media data.
Test(unprotect, entries_and_places_that_are_not_there) {
  static const struct {
    const char *box; // the first one of this type
    size_t at;
    struct bytes put; // empty: one more than there; one byte: as many more, signed
    const char *what;
  } rows[] = {{"trex", 16, BYTES_LIT("\0\0\0\2"), "no such sample entry"},
              {"trex", 16, BYTES_LIT("\0\0\0\0"), "no such sample entry"},
              {"trun", 16, BYTES_LIT("\0\0\0\x10"), "outside the media data"}, // in the moof
              {"trun", 16, BYTES_LIT("\xff\xff\xff\0"), "outside the media data"},
              {"trun", 16, {0}, "outside the media data"}, // a byte of the next box
              {"trun", 16, BYTES_LIT("\xff"), "outside the media data"}, // and one of mdat's head
              {"tfhd", 16, BYTES_LIT("\0\0\0\x31"), "outside the media data"}}; // four of them
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
    put_box(&b, "free", "\0\0\0\0", 4);
    uint8_t *p = (uint8_t *)memmem(in, b.n, rows[i].box, 4);
    int more = rows[i].put.n ? (int8_t)*rows[i].put.p : 1;
    if (rows[i].put.n == 4)
      memcpy(p - 4 + rows[i].at, rows[i].put.p, 4);
    else
      store_be32(p - 4 + rows[i].at, load_be32(p - 4 + rows[i].at) + (uint32_t)more);
    cr_expect_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_MALFORMED, "row %zu", i);
    cr_expect_not_null(strstr(d.what, rows[i].what), "row %zu: %s", i, d.what);
  }
  free(in), free(out);
}

// Samples that are clear have an IV in senc where their description says how long it is. In auxiliary information they may have anything.
Test(unprotect, clear_samples_with_protection_data) {
#define TWO_CLEAR(seig) "\0\0\0\x28sgpd\0\0\0\0seig\0\0\0\1" seig "\0\0\0\x1csbgp\0\0\0\0seig\0\0\0\1\0\0\0\2\0\1\0\1"
#define ODD_IVS "\x12\x34\x56\x78\x9a\xbc\xde\xf0" "\xff\xff\0\0\0\0\0\0" "\0\0\0\0\0\0\0\2" "\0\0\0\0\0\0\0\3"
  static const struct bytes boxes[] = {BYTES_LIT("\0\0\0\x30senc\0\0\0\0\0\0\0\4" ODD_IVS TWO_CLEAR(SEIG_CLEAR_8)),
                                       BYTES_LIT(PAIR_PLAIN "\0\0\0\x28uuid" ODD_IVS TWO_CLEAR(SEIG_CLEAR))};
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (int i = 0; i < 2; i++) {
    uint8_t first[2][HAND_SIZE];
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = boxes[i], .saio = i ? 33 : 0, .saio_at = PLAIN_LEN + 8});
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%d: %s", i, d.what);
    uint8_t *data = (uint8_t *)memmem(out, len, "mdat", 4) + 4;
    for (uint8_t n = 0; n < 2; n++)
      memset(first[n], n, HAND_SIZE);
    cr_expect_arr_eq(data, first, sizeof first, "%d: the clear ones", i);
    check_hand_data_from(2, data, i ? "saiz" : "senc");
  }
  free(in), free(out);
}
