// The library's face, include/sluice.h, over a whole file, with sources that fail and memory that ends: what a call that
// failed was to fill is as it was, and it says why. A blob with one byte changed does not open. Segments tile the output, any
// range is that slice of the whole and needs no byte more than sluice_plan_source names, a plan of another key has another
// tag, and decrypting in place gives what a clear plan renders.
// The last 8 bytes of the input choose: 0 scheme and forms, 1 the call of `get` that fails, 2 that of `read`, 3 the length of
// segments, 4 the byte of the blob that changes (16 bits), 6 how, 7 the ranges.
#include <sluice.h>

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "fuzz.h"

enum { TAIL = 8, MAX_BLOCKS = 4096, MAX_OUTPUT = 1 << 20 };

const struct fuzz_boxes fuzz_boxes = {0, TAIL};

enum { HAS_IV = 4, HAS_PSSH = 8, HAS_DIGEST = 16, NO_SENC = 32, WIDE_IV = 64 };

// Memory of the caller's, given back in the end; call number `fails` gets none.
struct memory {
  void *block[MAX_BLOCKS];
  size_t num, fails;
};

static void *get(void *ctx, size_t n) {
  struct memory *m = ctx;
  void *p = NULL;
  if (m->num + 1 == m->fails || m->num == MAX_BLOCKS)
    return NULL;
  MUST(!posix_memalign(&p, 64, n ? n : 1));
  memset(p, 0, n);
  m->block[m->num++] = p;
  return p;
}

static void forget(struct memory *m) {
  while (m->num)
    free(m->block[--m->num]);
}

struct input {
  struct bytes file;
  size_t reads, fails;
};

static int read_input(void *ctx, uint64_t off, void *buf, size_t n) {
  struct input *in = ctx;
  MUST(off <= in->file.n && n <= in->file.n - off);
  if (++in->reads == in->fails)
    return -1;
  if (n)
    memcpy(buf, in->file.p + off, n);
  return 0;
}

static void *room(size_t n) {
  void *p = malloc(n ? n : 1);
  MUST(p);
  return p;
}

// What is said of a failure: one line.
static void check_said(int e, const struct sluice_error *said) {
  MUST(e > 0 && sluice_error_name(e)[0] == 'E');
  const char *end = memchr(said->text, 0, sizeof said->text);
  MUST(end && end > said->text && !strchr(said->text, '\n'));
}

// Decrypting gives the clear file only where that holds no box that decryption takes away.
static int has_protection_boxes(struct bytes file) {
  static const char types[][5] = {"pssh", "senc", "saiz", "saio", "seig", "sinf", "uuid", "enca", "encv", "mfra"};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (memmem(file.p, file.n, types[i], 4))
      return 1;
  return 0;
}

static void check_changed_blob(struct bytes blob, struct sluice_memory mem, const uint8_t tail[TAIL]) {
  uint8_t *copy = NULL;
  sluice_track *track = NULL;
  struct sluice_error said = {.text = ""};
  MUST(!posix_memalign((void **)&copy, 64, blob.n + 1));
  memcpy(copy, blob.p, blob.n);
  copy[(size_t)(load_be16(tail + 4) * (uint64_t)blob.n >> 16)] ^= tail[6] ? tail[6] : 1;
  int e = sluice_track_open(&track, copy, blob.n, mem, &said);
  MUST(!track);
  check_said(e, &said);
  memcpy(copy, blob.p, blob.n); // cut short
  e = sluice_track_open(&track, copy, (size_t)(load_be16(tail + 4) * (uint64_t)blob.n >> 16), mem, &said);
  MUST(!track);
  check_said(e, &said);
  memmove(copy + 1, blob.p, blob.n); // not aligned
  e = sluice_track_open(&track, copy + 1, blob.n, mem, &said);
  MUST(!track);
  check_said(e, &said);
  free(copy);
}

static void check_layout(const sluice_plan *p) {
  struct sluice_range init = sluice_plan_init(p), sidx = sluice_plan_sidx(p), s;
  uint64_t at = init.len + sidx.len;
  MUST(init.off == 0 && init.len && sidx.off == init.len);
  for (uint32_t i = 0; i < sluice_plan_segments(p); i++, at += s.len) {
    s = sluice_plan_segment(p, i);
    MUST(s.off == at && s.len);
  }
  s = sluice_plan_segment(p, sluice_plan_segments(p));
  MUST(at == sluice_plan_len(p) && !s.off && !s.len);
}

// A range is that slice of `whole`, or is rendered there; its source lies in an allocation with up to `more` bytes around it.
static void check_range(const sluice_plan *p, struct bytes file, struct sluice_range r, size_t more, uint8_t *whole,
                        int is_whole) {
  struct sluice_range need = {77, 77};
  uint64_t len = sluice_plan_len(p);
  int e = sluice_plan_source(&need, p, r);
  if (r.off > len || r.len > len - r.off) {
    MUST(e && need.off == 77 && need.len == 77 && sluice_plan_render(NULL, p, r, file.p, 0, file.n));
    return;
  }
  MUST(!e && need.off <= file.n && need.len <= file.n - need.off);
  size_t before = more < need.off ? more : (size_t)need.off;
  size_t n = before + (size_t)need.len, after = more < file.n - need.off - need.len ? more : 0;
  uint8_t *src = room(n + after), *out = is_whole ? whole : room((size_t)r.len);
  memcpy(src, file.p + need.off - before, n + after);
  if (need.len) { // too short at either end
    MUST(sluice_plan_render(out, p, r, src, need.off - before, n - 1));
    MUST(sluice_plan_render(out, p, r, src, need.off + 1, n));
  }
  MUST(!sluice_plan_render(out, p, r, src, need.off - before, n + after));
  if (!is_whole) {
    MUST(!memcmp(out, whole + r.off, (size_t)r.len));
    free(out);
  }
  free(src);
}

// The whole, and ranges of it.
static uint8_t *render(const sluice_plan *p, struct bytes file, uint32_t seed) {
  uint64_t len = sluice_plan_len(p);
  uint8_t *whole = room((size_t)len);
  check_range(p, file, (struct sluice_range){0, len}, 0, whole, 1);
  for (int i = 0; i < 8; i++) {
    seed = seed * 1664525 + 1013904223;
    uint64_t off = (seed >> 4) % (len + 2);
    seed = seed * 1664525 + 1013904223;
    uint64_t n = seed & 1 << 30 ? (seed >> 4) % 64 : (seed >> 4) % (len - (off < len ? off : len) + 2);
    check_range(p, file, (struct sluice_range){off, n}, seed >> 28, whole, 0);
  }
  check_range(p, file, (struct sluice_range){1, UINT64_MAX}, 0, whole, 0);
  check_range(p, file, (struct sluice_range){UINT64_MAX, 1}, 0, whole, 0);
  return whole;
}

static void check_decrypts(struct bytes enc, struct bytes want, const struct sluice_protection *prot,
                           struct sluice_memory mem) {
  struct sluice_key keys[2] = {{.kid = {9}}};
  struct sluice_error said = {.text = ""};
  size_t n = 77;
  uint8_t *file = room(enc.n), *out = room(enc.n);
  memcpy(file, enc.p, enc.n);
  int e = sluice_decrypt(out, &n, file, enc.n, keys, 1, mem, &said); // the key is not there
  if (e) {
    MUST(n == 77);
    check_said(e, &said);
  } else { // no sample has bytes that would be decrypted
    MUST(n == want.n && !memcmp(out, want.p, n));
  }
  memcpy(keys[1].kid, prot->kid, 16);
  memcpy(keys[1].key, prot->key, 16);
  e = sluice_decrypt(file, &n, file, enc.n, keys, 2, mem, &said);
  require(!e, said.text);
  MUST(n == want.n && !memcmp(file, want.p, n));
  free(file), free(out);
}

static sluice_plan *plan_of(const sluice_track *track, const struct sluice_protection *prot, uint32_t segment_ms,
                            struct sluice_memory mem) {
  sluice_plan *p = NULL;
  struct sluice_error said = {.text = ""};
  int e = sluice_plan_new(&p, track, prot, segment_ms, mem, &said);
  MUST(!e == (p != NULL));
  if (e)
    check_said(e, &said);
  else
    check_layout(p);
  return p && sluice_plan_len(p) <= MAX_OUTPUT ? p : NULL;
}

static void check_plans(const sluice_track *track, struct bytes file, struct sluice_memory mem, const uint8_t tail[TAIL]) {
  static const uint8_t pssh[32] = {0, 0, 0, 32, 'p', 's', 's', 'h', 0, 0, 0, 0, 1, 2, 3};
  struct sluice_protection prot = {.scheme = tail[0] & 3, .kid = {1, 2, 3}, .key = "sixteen byte ke", .iv = {0xff, 0xff, 3}};
  prot.has_iv = (tail[0] & HAS_IV) != 0;
  prot.no_senc = (tail[0] & NO_SENC) != 0;
  prot.wide_iv = (tail[0] & WIDE_IV) != 0;
  struct sluice_protection clear = {.scheme = SLUICE_CLEAR};
  uint32_t segment_ms = tail[3] == 255 ? UINT32_MAX : tail[3] * 37u;
  uint8_t tag[3][16];
  if (tail[0] & HAS_PSSH) {
    prot.pssh = pssh;
    prot.pssh_len = sizeof pssh;
  }
  sluice_plan *p = plan_of(track, &prot, segment_ms, mem), *again = plan_of(track, &prot, segment_ms, mem);
  if (!p || !again)
    return;
  MUST(prot.scheme <= SLUICE_CBCS && (prot.scheme != SLUICE_CENC || prot.has_iv || tail[0] & HAS_DIGEST));
  uint8_t *whole = render(p, file, load_be32(tail + 4));
  sluice_plan_tag(p, tag[0]);
  sluice_plan_tag(again, tag[1]);
  MUST(!memcmp(tag[0], tag[1], 16));
  sluice_plan *without = plan_of(track, &clear, segment_ms, mem);
  if (prot.scheme != SLUICE_CLEAR && without) {
    struct sluice_protection other = prot;
    other.key[15] ^= 1;
    sluice_plan *q = plan_of(track, &other, segment_ms, mem);
    MUST(q);
    sluice_plan_tag(q, tag[2]);
    MUST(memcmp(tag[0], tag[2], 16) != 0);
    sluice_plan_wipe(q);
    uint8_t *want = render(without, file, 1);
    if (!has_protection_boxes(file))
      check_decrypts(bytes_of(whole, (size_t)sluice_plan_len(p)), bytes_of(want, (size_t)sluice_plan_len(without)), &prot, mem);
    free(want);
  }
  sluice_plan_wipe(p);
  sluice_plan_wipe(again);
  free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct memory taken;
  uint8_t tail[TAIL] = {0};
  size_t t = size < TAIL ? size : TAIL, n = 77;
  if (t)
    memcpy(tail, data + size - t, t);
  struct input in = {.file = bytes_of(data, size - t), .fails = tail[2]};
  struct sluice_source source = {read_input, &in, in.file.n};
  struct sluice_memory mem = {get, &taken};
  struct sluice_error said = {.text = ""};
  const void *blob = &n;
  sluice_track *track = NULL;
  taken.fails = tail[1];
  const uint8_t *digest = tail[0] & HAS_DIGEST ? (const uint8_t *)"a digest has thirty-two bytes.." : NULL;
  int e = sluice_index_build(&blob, &n, &source, digest, mem, &said);
  if (e) {
    check_said(e, &said);
    MUST(blob == &n && n == 77);
  } else {
    MUST(!in.fails || in.reads < in.fails);
    check_changed_blob(bytes_of(blob, n), mem, tail);
    e = sluice_track_open(&track, blob, n, mem, &said);
    MUST(!e == (track != NULL) && (!e || taken.fails));
    if (track) {
      MUST(isfinite(sluice_track_seconds(track)) && sluice_track_seconds(track) >= 0 && sluice_track_codecs(track)[0]);
      taken.fails = 0; // below, what fails is the input's doing
      check_plans(track, in.file, mem, tail);
    }
  }
  forget(&taken);
  return 0;
}
