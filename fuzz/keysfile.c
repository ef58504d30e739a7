// Keys files and journal lines. What loads answers for every record and never one key for two schemes; what is refused
// says why. Journal text, read line by line, survives being written whole and read again.
#include "keys/epochs.h"
#include "keys/keys.h"
#include "fuzz.h"

static void keys_file(struct alloc *mem, struct bytes text) {
  struct keyset *ks = NULL;
  struct keys_info info;
  struct diag d = {0};
  if (keys_parse(mem, &ks, &info, text, &d)) {
    MUST(!ks && d.err);
    return;
  }
  struct key_query q = {BYTES_LIT("a/b"), 1, SCHEME_CENC, {0}};
  struct key_record cenc, cbcs;
  (void)keys_drm(ks, q.asset);
  MUST(!keys_set_secret(ks, BYTES_LIT("0123456789abcdef"), &d));
  enum err e = keys_lookup(&cenc, ks, &q);
  q.scheme = SCHEME_CBCS;
  if (!e && !keys_lookup(&cbcs, ks, &q))
    MUST(memcmp(cenc.key, cbcs.key, 16) != 0);
  keyset_wipe(ks);
}

static void replay(struct epochs *e, struct bytes text) {
  struct diag d;
  while (text.n) {
    const uint8_t *nl = memchr(text.p, '\n', text.n);
    size_t n = nl ? (size_t)(nl - text.p) + 1 : text.n;
    d = (struct diag){0};
    if (epochs_read_line(e, bytes_of(text.p, n), &d))
      return;
    text = bytes_of(text.p + n, text.n - n);
  }
}

static void journal(struct alloc *mem, struct bytes text) {
  struct epochs *e = epochs_new(mem, 1), *again = epochs_new(mem, 1);
  struct bytes asset = BYTES_LIT("a/b");
  MUST(e && again);
  replay(e, text);
  struct writer w = wr_of(NULL, 0);
  if (epochs_write_all(&w, e, 1000, mem))
    return;
  uint8_t *p = mem->get(mem, w.n + 1);
  MUST(p);
  struct writer out = wr_of(p, w.n);
  MUST(!epochs_write_all(&out, e, 1000, mem) && out.n == w.n);
  replay(again, bytes_of(p, w.n));
  MUST(epochs_current(e, asset) == epochs_current(again, asset));
  uint32_t now = epochs_current(e, asset);
  for (uint32_t k = now > 8 ? now - 8 : 1; k <= now; k++) {
    enum epoch_status a = epochs_status(e, asset, k, 1000, NULL), b = epochs_status(again, asset, k, 1000, NULL);
    MUST(a == b || (a == EPOCH_REVOKED && b == EPOCH_EXPIRED));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct alloc_heap heap;
  alloc_heap_init(&heap, 64 << 20);
  keys_file(&heap.base, bytes_of(data, size));
  journal(&heap.base, bytes_of(data, size));
  alloc_heap_free(&heap);
  return 0;
}
