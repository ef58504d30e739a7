// CPIX documents, SPEKE and JSON answers: anything may come from a key server. What is accepted must be whole: a key for
// each query, DRM data that its checks accept again, and an export that imports to the same keys. Questions about an asset
// of any name are well-formed, and the same when they are only measured; SPEKE's are documents themselves, whose keys lack values.
#include <jansson.h>

#include "base/text.h"
#include "keys/cpix.h"
#include "keys/given.h"
#include "fuzz.h"

enum { ASSET_MAX = 200 };

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

// An asset's name is any bytes; the first ones of the input.
static void check_question(struct alloc *mem, const char *provider, struct bytes name) {
  static uint8_t text[64 << 10];
  struct drm_settings set = {.systems = name.n ? name.p[0] & 31 : 31};
  struct key_query q[2] = {{name, 7, SCHEME_CBCS, BYTES_LIT("")}, {name, 7, SCHEME_CBCS, BYTES_LIT("lossless")}};
  const struct key_provider *p = key_provider_find(bytes_str(provider));
  for (uint32_t num = 1; num <= 2; num++) {
    struct key_doc doc = {q, num, &set};
    struct writer w = wr_of(text, sizeof text), measured = wr_of(NULL, 0);
    struct cpix c;
    struct diag d = {0};
    p->request(&w, &doc);
    p->request(&measured, &doc);
    MUST(wr_ok(&w) && w.n == measured.n);
    if (!strcmp(provider, "json")) {
      json_t *j = json_loadb((const char *)text, w.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
      MUST(json_is_object(j));
      json_decref(j);
      continue;
    }
    MUST(!cpix_parse(mem, &c, bytes_of(text, w.n), &d));
    MUST(c.num_keys == num && !c.keys[0].has_key && c.keys[0].scheme == SCHEME_CBCS);
    MUST(cpix_is_for_audio(&c, c.keys[0].kid));
    cpix_wipe(&c);
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
  struct bytes name = bytes_of(data, size < ASSET_MAX ? size : ASSET_MAX);
  check_question(&heap.base, "speke2.0", name);
  check_question(&heap.base, "speke2.1", name);
  check_question(&heap.base, "json", name);
  alloc_heap_free(&heap);
  return 0;
}
