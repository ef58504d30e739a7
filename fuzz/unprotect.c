// Decryption of anything: no crash, no write outside, output never longer than the input. KIDs come from the input, so
// that mutated ones still find a key.
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
  free(out);
  alloc_heap_free(&heap);
  return 0;
}
