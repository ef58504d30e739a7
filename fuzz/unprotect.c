// Decryption of anything: no crash, no write outside, output never longer than the input, and the same when the file comes in pieces. KIDs
// come from the input, so that mutated ones still find a key.
#include <stdlib.h>
#include <string.h>

#include "cenc/unprotect.h"
#include "fuzz.h"

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

const struct fuzz_boxes fuzz_boxes = {0, 0};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
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
  struct unprotect_input in = {
      .file = bytes_of(data, size), .keys = keys, .num_keys = find_keys(keys, ops, data, size), .ops = ops, .mem = &heap.base};
  enum err e = unprotect(out, &len, &in, &diag);
  if (e ? diag.err != e || e == ERR_NO_MEMORY : len > size)
    abort();
  in_pieces(in, e, out, len);
  free(out);
  alloc_heap_free(&heap);
  return 0;
}
