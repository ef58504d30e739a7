// Keys files. What loads answers for every record and never one key for two schemes; what is refused says why.
// Loaded again nothing has changed, and a record that is added to the text is all that is new.
#include "base/writer.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct alloc_heap heap;
  alloc_heap_init(&heap, 64 << 20);
  keys_file(&heap.base, bytes_of(data, size));
  alloc_heap_free(&heap);
  return 0;
}
