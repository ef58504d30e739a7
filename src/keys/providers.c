#include "keys/remote.h"

#include <openssl/sha.h>

const struct key_provider *const key_providers[] = {&speke20_provider, &speke21_provider, &json_provider};
const size_t num_key_providers = sizeof key_providers / sizeof key_providers[0];

const struct key_provider *key_provider_find(struct bytes name) {
  for (size_t i = 0; i < num_key_providers; i++)
    if (bytes_eq(name, bytes_str(key_providers[i]->name)))
      return key_providers[i];
  return NULL;
}

enum err remote_finish(struct key_record *out, const struct key_doc *doc, enum err e) {
  for (uint32_t i = 0; e && i < doc->num_queries; i++)
    key_record_wipe(&out[i]);
  return e;
}

// The guard: open addressing over digests of keys.
struct seen_key {
  uint8_t digest[16];
  enum scheme scheme; // SCHEME_CLEAR: an empty place
  struct bytes asset;
};

struct key_guard {
  struct alloc *mem;
  struct seen_key *slots;
  uint32_t num_slots, num;
};

struct key_guard *key_guard_new(struct alloc *mem, uint32_t max_keys) {
  uint32_t num = 16;
  while (num < max_keys && num < 1u << 30)
    num *= 2;
  struct key_guard *g = mem->get(mem, sizeof *g);
  struct seen_key *slots = g ? mem->get(mem, 2 * (size_t)num * sizeof *slots) : NULL;
  if (!slots)
    return NULL;
  *g = (struct key_guard){.mem = mem, .slots = slots, .num_slots = 2 * num};
  return g;
}

static struct seen_key *find(const struct key_guard *g, const uint8_t digest[16]) {
  uint32_t i = load_be32(digest) & (g->num_slots - 1);
  while (g->slots[i].scheme != SCHEME_CLEAR && memcmp(g->slots[i].digest, digest, 16) != 0)
    i = (i + 1) & (g->num_slots - 1);
  return &g->slots[i];
}

static enum err same_scheme(const struct seen_key *s, const struct key_record *k, struct diag *diag) {
  char a[64], b[64];
  if (s->scheme == SCHEME_CLEAR || s->scheme == k->scheme)
    return ERR_OK;
  return diag_say(diag, ERR_KEY_REUSE, "\"%s\" (%s) and \"%s\" (%s) share one key: give each scheme its own",
                  key_name(a, s->asset), scheme_name(s->scheme), key_name(b, k->asset), scheme_name(k->scheme));
}

enum err key_guard_check(const struct key_guard *g, const struct key_record *k, struct diag *diag) {
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256(k->key, 16, digest);
  return same_scheme(find(g, digest), k, diag);
}

enum err key_guard_add(struct key_guard *g, const struct key_record *k, struct diag *diag) {
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256(k->key, 16, digest);
  struct seen_key *s = find(g, digest);
  if (s->scheme != SCHEME_CLEAR)
    return same_scheme(s, k, diag);
  uint8_t *name = k->asset.n ? g->mem->get(g->mem, k->asset.n) : NULL;
  if (2 * (g->num + 1) > g->num_slots || (k->asset.n && !name))
    return diag_say(diag, ERR_NO_MEMORY, "more keys than were planned for");
  if (name)
    memcpy(name, k->asset.p, k->asset.n);
  *s = (struct seen_key){.scheme = k->scheme, .asset = bytes_of(name, k->asset.n)};
  memcpy(s->digest, digest, 16);
  g->num++;
  return ERR_OK;
}
