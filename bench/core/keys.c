// Looking keys up: in the cache of what key servers delivered, among records, by derivation. One lookup an iteration, of
// another asset each time, in an order that a prefetcher cannot guess.
#include "keys.h"
#include "server/key_cache.h"

#include <stdio.h>
#include <stdlib.h>

enum { ASSETS = 20000, NAME = 32 };

static char names[ASSETS][NAME];
static struct key_cache *cache;
static struct keyset *records, *derived;
static struct alloc_heap heap;
static uint32_t at;

static struct bytes next_asset(void) {
  at = at * 1664525u + 1013904223u;
  return bytes_str(names[(at >> 8) % ASSETS]);
}

static void need(bool good, const char *what) {
  if (good)
    return;
  fprintf(stderr, "bench: keys: %s\n", what);
  exit(1);
}

static struct key_question question(struct bytes asset) {
  return (struct key_question){.server = 1, .asset = asset, .epoch = 1, .systems = 3, .num_labels = 1, .scheme = SCHEME_CBCS};
}

static void fill_cache(void) {
  static const struct key_times times = {.lifetime = 1u << 30, .refresh = 1};
  cache = key_cache_new(ASSETS);
  need(cache, "no memory");
  for (uint32_t i = 0; i < ASSETS; i++) {
    struct drm_given given[DRM_SYSTEM_COUNT] = {[DRM_WIDEVINE] = {.pssh = BYTES_LIT("a box"), .hls_media = BYTES_LIT("a line\n")}};
    struct key_question q = question(bytes_str(names[i]));
    struct key_record r = {.scheme = SCHEME_CBCS, .epoch = 1, .kid = {1}, .key = {(uint8_t)i}, .asset = q.asset, .given = given};
    struct key_ask a = key_cache_ask(cache, &q, 0, true);
    need(a.fetch, "a place is missing");
    key_cache_unpin(cache, a.slot);
    key_cache_landed(cache, a.slot, issued_new(cache, &r, 1), &times, 0, 0, 0, 0);
  }
}

static void run_cache(const struct bench_case *c) {
  (void)c;
  struct key_question q = question(next_asset());
  struct key_ask a = key_cache_ask(cache, &q, 1, true);
  struct key_record r = a.issued->records[0]; // as a track takes it
  need(a.got == KEY_HIT && r.kid[0] == 1, "not there");
  key_record_wipe(&r);
  issued_drop(a.issued);
}

static void look_up(const struct keyset *ks) {
  struct key_query q = {.asset = next_asset(), .epoch = 1, .scheme = SCHEME_CBCS};
  struct key_record r;
  need(!keys_lookup(&r, ks, &q), "not there");
  key_record_wipe(&r);
}

static void run_records(const struct bench_case *c) { (void)c, look_up(records); }
static void run_derived(const struct bench_case *c) { (void)c, look_up(derived); }

static void load(struct keyset **ks, struct bytes text) {
  struct keys_info info;
  struct diag diag = {0};
  need(!keys_parse(&heap.base, ks, &info, text, &diag), diag.what);
}

size_t bench_keys(struct bench_case *rows) {
  char *text = malloc(ASSETS * 160), *p = text;
  need(text, "no memory");
  alloc_heap_init(&heap, (size_t)256 << 20);
  p += snprintf(p, 16, "keys:\n");
  for (uint32_t i = 0; i < ASSETS; i++) {
    snprintf(names[i], NAME, "album-%u/track-%u", i / 12, i % 12);
    p += snprintf(p, 160, "- {asset: %s, scheme: cbcs, kid: %032x, key: %032x}\n", names[i], i + 1, i + 1);
  }
  load(&records, bytes_of(text, (size_t)(p - text)));
  free(text);
  struct diag diag = {0};
  load(&derived, (struct bytes){0});
  need(!keys_set_secret(derived, BYTES_LIT("0123456789abcdef"), &diag), diag.what);
  fill_cache();
  rows[0] = (struct bench_case){.name = "key_lookup/cache", .run = run_cache};
  rows[1] = (struct bench_case){.name = "key_lookup/records", .run = run_records};
  rows[2] = (struct bench_case){.name = "key_lookup/derived", .run = run_derived};
  return 3;
}
