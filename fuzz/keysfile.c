// Keys files and journal lines. What loads answers for every record and never one key for two schemes; what is refused says why.
// Loaded again nothing has changed, and a record that is added to the text is all that is new. Journal text, read line by line,
// survives being written whole and read again.
#include "base/writer.h"
#include "keys/epochs.h"
#include "keys/keys.h"
#include "keys/keysfile_add.h"
#include "fuzz.h"

static void check_again(struct alloc *mem, const struct keyset *was, struct bytes text) {
  struct keyset *again = NULL;
  struct keys_info info;
  struct diag d = {0};
  char changed[KEYS_CHANGED_MAX];
  MUST(!keys_parse(mem, &again, &info, text, &d));
  MUST(!*keys_changed(changed, was, again));
  keyset_wipe(again);
}

static void check_added(struct alloc *mem, const struct keyset *was, uint32_t num, struct bytes text) {
  static uint8_t out[1 << 16];
  struct key_record got, added = {.scheme = SCHEME_CBCS, .epoch = 3, .kid = "kid of the added", .key = "key of the added",
                                  .asset = BYTES_LIT("zz/added")};
  struct writer w = wr_of(out, sizeof out);
  struct keyset *now = NULL;
  struct keys_info info;
  struct diag d = {0};
  char changed[KEYS_CHANGED_MAX];
  enum err e = keysfile_add(&w, text, &added, 1, &d);
  if (e || !wr_ok(&w) || memmem(text.p, text.n, "added", 5)) {
    MUST(!e || e == ERR_SYNTAX || e == ERR_UNSUPPORTED);
    return;
  }
  // Not every form of YAML can be added to: `sluice keys import` refuses what does not load, or has not one record more.
  if (keys_parse(mem, &now, &info, bytes_of(out, w.n), &d))
    return;
  if (info.num_records != num + 1) {
    keyset_wipe(now);
    return;
  }
  MUST(!*keys_changed(changed, was, now));
  struct key_query q = {added.asset, added.epoch, added.scheme, {0}};
  MUST(!keys_lookup(&got, now, &q) && !memcmp(got.key, added.key, 16) && !memcmp(got.kid, added.kid, 16));
  keyset_wipe(now);
}

static void keys_file(struct alloc *mem, struct bytes text) {
  struct keyset *ks = NULL;
  struct keys_info info;
  struct diag d = {0};
  if (keys_parse(mem, &ks, &info, text, &d)) {
    MUST(!ks && d.err);
    return;
  }
  check_again(mem, ks, text);
  check_added(mem, ks, info.num_records, text);
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
