// Decryption of anything: no crash, no write outside, output never longer than the input, and the same when the file comes in
// pieces. The output has the samples of the input, each in a box of the file, with as many bytes and at its time. All of it
// once more with the file cut where the parts of a folder would end. KIDs come from the input, so that mutated ones still find
// a key.
#include <stdlib.h>
#include <string.h>

#include "cenc/unprotect.h"
#include "mp4/samples.h"
#include "fuzz.h"
#include "rewrite.h"

enum { MAX_KEYS = 8 };

static size_t find_keys(struct content_key keys[MAX_KEYS], const struct aes_ops *ops, const uint8_t *data, size_t size) {
  static const uint8_t bytes[16] = "sixteen byte key";
  size_t num = 0;
  for (size_t i = 0; i + 40 < size && num < MAX_KEYS; i++) {
    bool tenc = memcmp(data + i, "tenc", 4) == 0, seig = memcmp(data + i, "seig", 4) == 0;
    if (!tenc && !seig)
      continue;
    // seig of version 1: default length and count stand between.
    memcpy(keys[num].kid, data + i + (tenc ? 12 : 16), 16);
    ops->key_init(&keys[num++].key, bytes);
  }
  return num;
}

struct pieces {
  const uint8_t *data;
  uint8_t *room, *out;
  size_t size, len;
};

static enum err load(void *ctx, uint64_t pos, uint64_t len) {
  struct pieces *p = (struct pieces *)ctx;
  if (!len || pos > p->size || len > p->size - pos)
    abort();
  memcpy(p->room + pos, p->data + pos, len);
  return ERR_OK;
}

static void forget(void *ctx, uint64_t pos, uint64_t len) {
  struct pieces *p = (struct pieces *)ctx;
  if (pos > p->size || len > p->size - pos)
    abort();
  memset(p->room + pos, 0xee, len);
}

static enum err take(void *ctx, const uint8_t *bytes, size_t n) {
  struct pieces *p = (struct pieces *)ctx;
  if (n > p->size - p->len)
    abort();
  if (n)
    memcpy(p->out + p->len, bytes, n);
  p->len += n;
  return ERR_OK;
}

// Where samples lie over what protects them, the trial before anything is written may fail alone; else both say the same.
static void in_pieces(struct unprotect_input in, enum err want, const uint8_t *out, size_t len) {
  struct alloc_heap heap;
  struct pieces p = {.data = in.file.p, .size = in.file.n, .room = (uint8_t *)malloc(in.file.n + 1), .out = (uint8_t *)malloc(in.file.n + 1)};
  if (!p.room || !p.out)
    abort();
  memset(p.room, 0xee, in.file.n);
  alloc_heap_init(&heap, in.file.n * 4 + (1 << 20));
  in.file.p = p.room;
  in.mem = &heap.base;
  struct unprotect_stream stream = {&p, load, forget, take};
  enum err e = unprotect_stream(p.room, &stream, &in, NULL);
  if (e == ERR_NO_MEMORY || (!e && (want || p.len != len || memcmp(p.out, out, len) != 0)))
    abort();
  free(p.room), free(p.out);
  alloc_heap_free(&heap);
}

// Samples in the order of the file: their sum tells other ones, or others of an order, apart. Of tracks that moov has; of
// others nobody knows the sizes.
struct samples {
  uint64_t sum, num, size;
  struct samples_file file;
};

static void on_sample(void *ctx, const struct sample_info *s) {
  struct samples *all = (struct samples *)ctx;
  uint32_t i = 0;
  while (i < all->file.num_tracks && all->file.tracks[i].track_id != s->track_id)
    i++;
  if (i == all->file.num_tracks)
    return;
  const uint64_t values[] = {s->track_id, s->size, s->duration, s->time};
  for (size_t v = 0; v < sizeof values / sizeof *values; v++)
    all->sum = (all->sum ^ values[v]) * UINT64_C(0x9e3779b97f4a7c15) + (all->sum >> 31);
  if (s->size && (s->offset >= all->size || s->size > all->size - s->offset))
    all->sum = 0; // it is outside of the file, which is told apart from any inside
  all->num++;
}

static enum err read_samples(struct samples *out, struct bytes file, const uint64_t *ends, uint32_t num) {
  struct samples_visitor v = {out, on_sample};
  struct diag d = {0};
  *out = (struct samples){.sum = 1, .size = file.n, .file.source_len = file.n};
  uint64_t start = 0;
  for (size_t at = 0; at < file.n;) {
    struct box b;
    while (num && at >= *ends) {
      start = *ends++;
      num--;
    }
    uint64_t left = (num ? *ends : file.n) - at;
    enum err e = box_head(&b, bytes_of(file.p + at, left < 16 ? (size_t)left : 16), left, true);
    struct bytes whole = bytes_of(file.p + at, e ? 0 : (size_t)b.len);
    if (!e && b.type == FOURCC('m', 'o', 'o', 'v') && !out->file.num_tracks)
      samples_tracks(&out->file, whole);
    if (!e && b.type == FOURCC('m', 'o', 'o', 'f'))
      e = samples_of_moof(&v, &out->file, whole, at, start, &d);
    if (e)
      return e;
    at += (size_t)b.len;
  }
  return ERR_OK;
}

// What the one reader takes the other need not.
static void check_samples(struct bytes in, const uint64_t *ends, uint32_t num, struct bytes out) {
  struct samples was, is;
  if (read_samples(&was, in, ends, num))
    return;
  MUST(!read_samples(&is, out, NULL, 0));
  MUST(was.num == is.num && was.sum == is.sum);
}

static void check(const uint8_t *data, size_t size, const uint64_t *ends, uint32_t num) {
  const char *why;
  const struct aes_ops *ops = aes_ops_best(NULL, &why);
  struct content_key keys[MAX_KEYS];
  struct alloc_heap heap;
  struct diag diag = {0};
  alloc_heap_init(&heap, size * 4 + (1 << 20));
  uint8_t *out = (uint8_t *)malloc(size ? size : 1);
  size_t len = 0;
  if (!out)
    abort();
  struct unprotect_input in = {.file = bytes_of(data, size), .part_ends = ends, .num_parts = num, .keys = keys,
                               .num_keys = find_keys(keys, ops, data, size), .ops = ops, .mem = &heap.base};
  enum err e = unprotect(out, &len, &in, &diag);
  if (e ? diag.err != e || e == ERR_NO_MEMORY : len > size)
    abort();
  if (!e)
    check_samples(in.file, ends, num, bytes_of(out, len));
  in_pieces(in, e, out, len);
  free(out);
  alloc_heap_free(&heap);
}

const struct fuzz_boxes fuzz_boxes = {0, 0};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t ends[FOLDER_PARTS];
  check(data, size, NULL, 0);
  uint32_t num = folder_parts(ends, bytes_of(data, size));
  if (num > 1)
    check(data, size, ends, num);
  return 0;
}
