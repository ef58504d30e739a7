// Encrypted init segments that no preset of synth.c has.
#include "encrypted.h"

// A sinf of a scheme that nobody knows, of an entry that was wxyz.
#define SINF_OTHER "\0\0\0\x28sinf" "\0\0\0\x0c" "frmawxyz" "\0\0\0\x14schm\0\0\0\0sve1\0\0\0\0"
// One entry, which is not encrypted.
#define STSD_CLEAR "\0\0\0\x34stsd\0\0\0\0\0\0\0\1" "\0\0\0\x24mp4a\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\2\0\x10\0\0\0\0\xbb\x80\0\0"
#define UP_STBL "moov trak mdia minf stbl"

// An init segment with something in it that no preset has.
Test(unprotect, moov) {
  static const struct {
    const char *name, *box; // the first one of this type
    size_t at;              // of it, where bytes are put in; 0: its end
    struct bytes put;
    const char *up;
    uint8_t stsd_version;
    enum err want;
  } rows[] = {
      {"a terminator", "enca", 0, BYTES_LIT("\0\0\0\0"), UP_STBL " stsd enca", 0, ERR_OK},
      {"no terminator", "enca", 0, BYTES_LIT("\0\0\0\1"), UP_STBL " stsd enca", 0, ERR_TRUNCATED},
      {"a terminator where there is none", "enca", 0, BYTES_LIT("\0\0\0\0"), UP_STBL " stsd enca", 1, ERR_TRUNCATED},
      {"a second sinf", "enca", 0, BYTES_LIT(SINF_OTHER), UP_STBL " stsd enca", 0, ERR_OK},
      {"an unknown sinf first", "sinf", 1, BYTES_LIT(SINF_OTHER), UP_STBL " stsd enca", 0, ERR_UNSUPPORTED},
      {"tkhd of version 1", "tkhd", 12, BYTES_LIT("\0\0\0\0\0\0\0\0"), "moov trak tkhd", 0, ERR_OK},
      {"auxiliary information", "stsd", 1, BYTES_LIT(PAIR_PLAIN), UP_STBL, 0, ERR_OK},
      {"sample entries that belong to nothing", "minf", 1, BYTES_LIT(STSD_CLEAR), "moov trak mdia", 0, ERR_OK},
      {"a track header that belongs to nothing", "minf", 1, BYTES_LIT("\0\0\0\x18tkhd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09"), "moov trak mdia", 0, ERR_OK},
  };
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    in[find_box(&b, "stsd") + 8] = rows[i].stsd_version;
    in[find_box(&b, "tkhd") + 8] = strcmp(rows[i].box, "tkhd") == 0;
    size_t box = find_box(&b, rows[i].box);
    // 1 is the box itself: bytes before it
    put_in(&b, box + (rows[i].at == 0 ? load_be32(in + box) : rows[i].at == 1 ? 0 : rows[i].at), rows[i].put, rows[i].up);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
    enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d);
    cr_expect_eq(e, rows[i].want, "%s: %s %s", rows[i].name, err_name(e), d.what);
    if (e)
      continue;
    check_hand_data((const uint8_t *)memmem(out, len, "mdat", 4) + 4, rows[i].name);
    cr_expect(memmem(out, len, "mp4a", 4) && !memmem(out, len, "wxyz", 4) && !memmem(out, len, "saio", 4), "%s", rows[i].name);
  }
  free(in), free(out);
}

Test(unprotect, a_sinf_without_tenc) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  memcpy(b.p + find_box(&b, "tenc") + 4, "free", 4);
  put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
  cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_MISSING, "%s", d.what);
  cr_assert_not_null(strstr(d.what, "tenc"), "%s", d.what);
  free(b.p), free(out);
}

// ISO/IEC 14496-12 8.8.3: each track has one. Players do not play fragments of a track without.
Test(unprotect, a_track_without_trex) {
  struct made_box b = {.p = (uint8_t *)malloc(HAND_MAX)};
  uint8_t *out = (uint8_t *)malloc(HAND_MAX);
  size_t len = 0;
  struct diag d = {0};
  put_init(&b, SCHEME_CENC);
  memcpy(b.p + find_box(&b, "trex") + 4, "free", 4);
  put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
  cr_expect_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_MISSING);
  cr_expect_str_eq(d.what, "no trex for the track");
  free(b.p), free(out);
}

// Each scheme by its name. Of whole blocks and without a pattern, cens does what cenc does, and cbc1 what cbcs does.
// ISO/IEC 23001-7 10.
Test(unprotect, schemes) {
  static const char *const names[] = {"cenc", "cens", "cbc1", "cbcs"};
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX);
  struct content_key k = {.kid = {1, 2, 3}};
  ops()->key_init(&k.key, key);
  for (int i = 0; i < 4; i++) {
    struct made_box b = {.p = in};
    size_t len = 0;
    struct diag d = {0};
    put_init(&b, SCHEME_CENC);
    memcpy(in + find_box(&b, "schm") + 12, names[i], 4);
    put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
    cr_assert_eq(decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), ERR_OK, "%s: %s", names[i], d.what);
    const uint8_t *data = (const uint8_t *)memmem(out, len, "mdat", 4) + 4;
    if (i < 2)
      check_hand_data(data, names[i]);
    for (uint8_t n = 0; i >= 2 && n < HAND_SAMPLES; n++) {
      uint8_t want[HAND_SIZE], iv[16] = {[7] = n};
      memset(want, n, HAND_SIZE);
      ops()->cbc_chain(&k.key, false, iv, want, want, HAND_SIZE / 16);
      cr_expect_arr_eq(data + n * HAND_SIZE, want, HAND_SIZE, "%s: sample %u", names[i], n);
    }
  }
  free(in), free(out);
}

// 16 sample entries of a track and 32 tracks are read, and no more.
Test(unprotect, entries_and_tracks_up_to_their_limits) {
  uint8_t *in = (uint8_t *)malloc(HAND_MAX), *out = (uint8_t *)malloc(HAND_MAX), entry[500];
  for (uint32_t more = 0; more < 2; more++)
    for (int tracks = 0; tracks < 2; tracks++) {
      struct made_box b = {.p = in};
      size_t len = 0;
      struct diag d = {0};
      put_init(&b, SCHEME_CENC);
      size_t enca = find_box(&b, "enca"), n = load_be32(in + enca);
      cr_assert_leq(n, sizeof entry);
      memcpy(entry, in + enca, n);
      for (uint32_t i = 1; i < (tracks ? 32 : 16) + more; i++) {
        if (tracks)
          put_in(&b, find_box(&b, "trak"), BYTES_LIT("\0\0\0\x08trak"), "moov");
        else
          put_in(&b, enca, bytes_of(entry, n), UP_STBL " stsd");
      }
      put_hand_frag(&b, &(struct hand_frag){.after_trun = HAND_SENC});
      enum err e = decrypt(out, &len, bytes_of(b.p, b.n), 1, &d), want = more ? ERR_LIMIT : ERR_OK;
      cr_expect_eq(e, want, "%s: %s %s", tracks ? "tracks" : "entries", err_name(e), d.what);
    }
  free(in), free(out);
}
