// CPIX documents, SPEKE and JSON answers: anything may come from a key server. What is accepted must be whole: a key for
// each query, DRM data that its checks accept again, and an export that imports to the same keys.
#include "base/text.h"
#include "keys/cpix.h"
#include "keys/given.h"
#include "fuzz.h"

static void check_given(const struct key_record *k) {
  struct diag d = {0};
  for (unsigned s = 0; k->given && s < DRM_SYSTEM_COUNT; s++) {
    const struct drm_given *g = &k->given[s];
    MUST(!g->pssh.n || !given_pssh(g->pssh, (enum drm_system)s, k->kid, &d));
    MUST(!g->mpd.n || !given_mpd(g->mpd, &d));
    MUST(!g->hls_media.n || g->hls_media.p[g->hls_media.n - 1] == '\n');
    MUST(!g->hls_master.n || g->hls_master.p[g->hls_master.n - 1] == '\n');
  }
}

static void check_import(struct alloc *mem, struct bytes doc) {
  static struct key_record keys[CPIX_MAX_KEYS], back[CPIX_MAX_KEYS];
  static uint8_t text[8 << 20];
  uint32_t num = CPIX_MAX_KEYS, num_back = CPIX_MAX_KEYS;
  struct diag d = {0};
  if (cpix_import(mem, keys, &num, doc, 1, SCHEME_CBCS, &d))
    return;
  for (uint32_t i = 0; i < num; i++)
    check_given(&keys[i]);
  struct writer w = wr_of(text, sizeof text);
  cpix_export(&w, keys, num, &(struct drm_settings){.systems = 31}, true);
  if (!wr_ok(&w) || w.n > CPIX_MAX_DOC)
    return;
  MUST(!cpix_import(mem, back, &num_back, bytes_of(text, w.n), 1, SCHEME_CLEAR, &d));
  MUST(num == num_back);
  for (uint32_t i = 0; i < num; i++)
    MUST(memcmp(keys[i].key, back[i].key, 16) == 0 && memcmp(keys[i].kid, back[i].kid, 16) == 0 &&
         keys[i].scheme == back[i].scheme && keys[i].has_iv == back[i].has_iv);
}

static void check_answer(struct alloc *mem, const char *provider, struct bytes body) {
  static const struct drm_settings set = {.systems = 31};
  struct key_query q[2] = {{BYTES_LIT("a/b"), 1, SCHEME_CBCS, BYTES_LIT("")},
                           {BYTES_LIT("a/b"), 1, SCHEME_CBCS, BYTES_LIT("lossless")}};
  for (uint32_t num = 1; num <= 2; num++) {
    struct key_doc doc = {q, num, &set};
    struct key_record keys[2] = {0};
    struct diag d = {0};
    static const uint8_t zero[16];
    bool ok = !key_provider_find(bytes_str(provider))->answer(mem, keys, &doc, body, &d);
    for (uint32_t i = 0; i < num; i++) {
      MUST(ok ? keys[i].scheme == SCHEME_CBCS : memcmp(keys[i].key, zero, 16) == 0);
      if (ok)
        check_given(&keys[i]);
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct alloc_heap heap;
  alloc_heap_init(&heap, 64 << 20);
  struct bytes doc = bytes_of(data, size);
  check_import(&heap.base, doc);
  check_answer(&heap.base, "speke2.0", doc);
  check_answer(&heap.base, "speke2.1", doc);
  check_answer(&heap.base, "json", doc);
  alloc_heap_free(&heap);
  return 0;
}
