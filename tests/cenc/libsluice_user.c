// A program that knows only sluice.h: protects a file, in pieces, and takes the protection off again. It brings symbols of
// its own that the library also has inside, which must not meet. TAP.
#include <sluice.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "synth.h"

int AES_set_encrypt_key(void);
int AES_set_encrypt_key(void) { return 42; } // BoringSSL's is another one
int plan_init(void);
int plan_init(void) { return 43; }

static int cases, failures;

static void ok(int good, const char *what) {
  printf("%sok %d - %s\n", good ? "" : "not ", ++cases, what);
  failures += !good;
}

enum { MAX_BLOCKS = 256 };
static void *blocks[MAX_BLOCKS];
static int num_blocks;

static void *get(void *ctx, size_t n) {
  void *p;
  (void)ctx;
  if (num_blocks == MAX_BLOCKS || posix_memalign(&p, 64, n ? n : 1))
    return NULL;
  blocks[num_blocks++] = p;
  return memset(p, 0, n);
}

static void *get_nothing(void *ctx, size_t n) {
  (void)ctx, (void)n;
  return NULL;
}

static int read_at(void *ctx, uint64_t off, void *buf, size_t n) {
  const struct synth *s = (const struct synth *)ctx;
  if (off > s->len || n > s->len - off)
    return -1;
  memcpy(buf, s->file + off, n);
  return 0;
}

static const struct sluice_memory memory = {get, NULL};

// segment by segment, as a server would.
static uint8_t *render(const sluice_plan *p, const struct synth *s) {
  uint64_t len = sluice_plan_len(p);
  uint8_t *out = (uint8_t *)malloc(len);
  struct sluice_range init = sluice_plan_init(p), sidx = sluice_plan_sidx(p);
  int e = sluice_plan_render(out, p, (struct sluice_range){0, init.len + sidx.len}, NULL, 0, 0);
  for (uint32_t i = 0; i < sluice_plan_segments(p); i++) {
    struct sluice_range r = sluice_plan_segment(p, i), need;
    e = e ? e : sluice_plan_source(&need, p, r);
    e = e ? e : sluice_plan_render(out + r.off, p, r, s->file + need.off, need.off, need.len);
  }
  ok(!e, "every segment renders");
  return out;
}

static void round_trip(const sluice_track *t, const struct synth *s, enum sluice_scheme scheme, int wide_iv, const uint8_t *clear, size_t clear_len) {
  struct sluice_protection prot = {.scheme = scheme, .kid = {1}, .key = {2}, .wide_iv = wide_iv};
  struct sluice_error error = {0};
  sluice_plan *p;
  int e = sluice_plan_new(&p, t, &prot, 2000, memory, &error);
  ok(!e, "plan");
  uint8_t *enc = render(p, s), *dec = (uint8_t *)malloc(sluice_plan_len(p));
  size_t len = 0;
  e = sluice_decrypt(dec, &len, enc, sluice_plan_len(p), &(struct sluice_key){.kid = {1}, .key = {2}}, 1, memory, &error);
  ok(!e && len == clear_len && memcmp(dec, clear, len) == 0, "decrypts to the clear plan's bytes");
  e = sluice_decrypt(dec, &len, enc, sluice_plan_len(p), NULL, 0, memory, &error);
  ok(strcmp(sluice_error_name(e), "ERR_NO_KEY") == 0 && strstr(error.text, "no key"), "no key, no success");
  ok(sluice_plan_render(enc, p, (struct sluice_range){0, sluice_plan_len(p)}, s->file, 0, s->len - 1) != 0,
     "a source that does not cover the range is refused");
  ok(sluice_plan_render(enc, p, (struct sluice_range){1, UINT64_MAX}, s->file, 0, s->len) != 0, "so is a range outside");
  ok(sluice_plan_render(enc, p, (struct sluice_range){sluice_plan_len(p) + 1, 1}, s->file, 0, s->len) != 0, "and one behind the end");
  struct sluice_range last = sluice_plan_segment(p, sluice_plan_segments(p) - 1), need = {0};
  ok(!sluice_plan_source(&need, p, last) && need.off > 8 &&
         sluice_plan_render(enc, p, last, s->file + need.off + 1, need.off + 1, s->len - need.off - 1) != 0,
     "so is a source that begins too late");
  ok(sluice_plan_render(enc, p, last, s->file, 0, need.off - 8) != 0, "so is one that ends before it begins");
  ok(sluice_plan_segment(p, sluice_plan_segments(p)).len == 0, "there is no segment behind the last");
  sluice_plan_wipe(p);
  static struct sluice_key many[65];
  many[63] = (struct sluice_key){.kid = {1}, .key = {2}};
  e = sluice_decrypt(dec, &len, enc, sluice_plan_len(p), many, 64, memory, &error);
  ok(!e && len == clear_len && memcmp(dec, clear, len) == 0, "the last of 64 keys is found");
  e = sluice_decrypt(dec, &len, enc, sluice_plan_len(p), many, 65, memory, &error);
  ok(strcmp(sluice_error_name(e), "ERR_LIMIT") == 0, "more keys than it takes are refused");
  free(enc), free(dec);
}

// An IV of cenc has 8 bytes; what stands behind them counts for nothing.
static void given_ivs(const sluice_track *t) {
  struct sluice_protection prot = {.scheme = SLUICE_CENC, .kid = {1}, .key = {2}, .iv = {3}, .has_iv = 1};
  uint8_t tags[3][16];
  for (int i = 0; i < 3; i++) {
    sluice_plan *p;
    prot.iv[i == 2 ? 7 : 8] = (uint8_t)i;
    ok(sluice_plan_new(&p, t, &prot, 2000, memory, NULL) == 0, "a plan with an IV");
    sluice_plan_tag(p, tags[i]);
  }
  ok(!memcmp(tags[0], tags[1], 16) && memcmp(tags[0], tags[2], 16), "eight bytes of it count");
  sluice_plan *p, *wide;
  ok(sluice_plan_new(&p, t, &prot, 2000, memory, NULL) == 0, "a plan with 8-byte IVs");
  prot.wide_iv = 1;
  ok(sluice_plan_new(&wide, t, &prot, 2000, memory, NULL) == 0, "and with 16-byte ones");
  sluice_plan_tag(wide, tags[0]);
  ok(sluice_plan_len(wide) == sluice_plan_len(p) + 8 * sluice_track_samples(t) && memcmp(tags[0], tags[2], 16), "8 bytes more a sample, another tag");
  prot.scheme = (enum sluice_scheme)3;
  ok(sluice_plan_new(&p, t, &prot, 2000, memory, NULL) != 0, "a scheme that there is not is refused");
}

// System data stand in init, and the tag follows them.
static void given_pssh(const sluice_track *t) {
  static const char box[] = "\0\0\0\x20pssh\0\0\0\0" "sixteen bytes id" "\0\0\0\0";
  enum { LEN = sizeof box - 1 };
  struct sluice_protection prot = {.scheme = SLUICE_CBCS, .kid = {1}, .key = {2}};
  sluice_plan *with, *without;
  ok(sluice_plan_new(&without, t, &prot, 2000, memory, NULL) == 0, "a plan without pssh");
  prot.pssh = box;
  prot.pssh_len = LEN;
  ok(sluice_plan_new(&with, t, &prot, 2000, memory, NULL) == 0, "a plan with pssh");
  struct sluice_range init = sluice_plan_init(with);
  uint8_t *out = (uint8_t *)malloc(init.len);
  ok(init.len == sluice_plan_init(without).len + LEN && !sluice_plan_render(out, with, init, NULL, 0, 0) &&
         !memcmp(out + init.len - LEN, box, LEN), "it ends init");
  free(out);
}

int main(void) {
  struct synth s;
  const void *blob;
  size_t blob_len;
  struct sluice_error error = {0};
  sluice_track *t;
  sluice_plan *clear;
  uint8_t digest[32] = {7};
  synth_make(&s, &(struct synth_options){.num_frags = 5, .samples_per_trun = 94, .min_size = 1, .max_size = 700});
  struct sluice_source src = {read_at, &s, s.len};
  ok(sluice_index_build(&blob, &blob_len, &src, digest, memory, &error) == 0, "index");
  ok(sluice_track_open(&t, blob, blob_len, memory, &error) == 0, "open");
  ok(sluice_track_samples(t) == s.num_samples && sluice_track_seconds(t) > 10, "the track is known");
  ok(!strcmp(sluice_track_codecs(t), "mp4a.40.2"), "and its codecs");
  ok(!strcmp(sluice_version(), SLUICE_VERSION), "the version is the project's");
  ok(sluice_plan_new(&clear, t, &(struct sluice_protection){.scheme = SLUICE_CLEAR}, 2000, memory, &error) == 0, "clear plan");
  uint8_t *odd = malloc(blob_len + 1);
  memcpy(odd + 1, blob, blob_len);
  error.text[0] = 0;
  ok(sluice_track_open(&t, odd + 1, blob_len, memory, &error) != 0 && strstr(error.text, "aligned to 8 bytes"), "a blob at an odd address is refused");
  free(odd);
  uint8_t *want = render(clear, &s);
  round_trip(t, &s, SLUICE_CENC, 0, want, sluice_plan_len(clear));
  round_trip(t, &s, SLUICE_CENC, 1, want, sluice_plan_len(clear));
  round_trip(t, &s, SLUICE_CBCS, 0, want, sluice_plan_len(clear));
  given_ivs(t);
  given_pssh(t);
  sluice_plan *one;
  ok(sluice_plan_new(&one, t, &(struct sluice_protection){.scheme = SLUICE_CLEAR}, 90000, memory, &error) == 0 && sluice_plan_segments(one) == 1,
     "segments may be longer than the file");

  struct sluice_source shorter = {read_at, &s, s.init_len / 2};
  ok(sluice_index_build(&blob, &blob_len, &shorter, digest, memory, &error) != 0 && error.text[0], "a torn file is refused");
  struct sluice_memory none = {get_nothing, NULL};
  ok(sluice_index_build(&blob, &blob_len, &src, digest, none, &error) != 0, "no memory is an error");
  ok(sluice_index_build(&blob, &blob_len, &src, NULL, memory, &error) == 0, "index without digest");
  ok(sluice_track_open(&t, blob, blob_len, memory, &error) == 0, "open without digest");
  sluice_plan *p;
  ok(sluice_plan_new(&p, t, &(struct sluice_protection){.scheme = SLUICE_CENC}, 0, memory, &error) != 0 && strstr(error.text, "digest"),
     "without a digest no cenc IV is derived");
  ok(AES_set_encrypt_key() == 42 && plan_init() == 43, "the program keeps its own symbols");
  while (num_blocks)
    free(blocks[--num_blocks]);
  free(want);
  synth_free(&s);
  printf("1..%d\n", cases);
  return failures != 0;
}
