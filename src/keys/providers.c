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

// The guard: open addressing over digests of keys and of KIDs.
struct seen {
  uint8_t digest[16];
  enum scheme scheme; // of a key; of a KID any; SCHEME_CLEAR: an empty place
  union {
    struct bytes asset; // of a key
    uint8_t value[16];  // of a KID: a digest of its key and IV
  } is;
};

struct key_guard {
  struct alloc *mem;
  struct seen *slots;
  uint32_t num_slots, num;
};

struct key_guard *key_guard_new(struct alloc *mem, uint32_t max_keys) {
  uint32_t num = 16;
  while (num < max_keys && num < 1u << 29)
    num *= 2;
  struct key_guard *g = mem->get(mem, sizeof *g);
  struct seen *slots = g ? mem->get(mem, 4 * (size_t)num * sizeof *slots) : NULL;
  if (!slots)
    return NULL;
  *g = (struct key_guard){.mem = mem, .slots = slots, .num_slots = 4 * num};
  return g;
}

static struct seen *find(const struct key_guard *g, const uint8_t digest[16]) {
  uint32_t i = load_be32(digest) & (g->num_slots - 1);
  while (g->slots[i].scheme != SCHEME_CLEAR && memcmp(g->slots[i].digest, digest, 16) != 0)
    i = (i + 1) & (g->num_slots - 1);
  return &g->slots[i];
}

// A key's digest, its KID's, and that of what the KID stands for.
struct marks {
  uint8_t key[SHA256_DIGEST_LENGTH], kid[SHA256_DIGEST_LENGTH], value[SHA256_DIGEST_LENGTH];
};

static void mark(struct marks *m, const struct key_record *k) {
  static const char purpose[3] = "kid"; // not of a key's length
  uint8_t kid[sizeof purpose + 16], value[16 + 1 + 16] = {0};
  memcpy(kid, purpose, sizeof purpose);
  memcpy(kid + sizeof purpose, k->kid, 16);
  memcpy(value, k->key, 16);
  if (k->scheme == SCHEME_CBCS && k->has_iv) {
    value[16] = 1;
    memcpy(value + 17, k->iv, 16);
  }
  SHA256(k->key, 16, m->key);
  SHA256(kid, sizeof kid, m->kid);
  SHA256(value, sizeof value, m->value);
  explicit_bzero(value, sizeof value);
}

static enum err compare(const struct seen *key, const struct seen *kid, const struct marks *m, const struct key_record *k, struct diag *diag) {
  char a[64], b[64];
  if (key->scheme != SCHEME_CLEAR && key->scheme != k->scheme)
    return diag_say(diag, ERR_KEY_REUSE, "\"%s\" (%s) and \"%s\" (%s) share one key: give each scheme its own",
                    key_name(a, key->is.asset), scheme_name(key->scheme), key_name(b, k->asset), scheme_name(k->scheme));
  if (kid->scheme != SCHEME_CLEAR && memcmp(kid->is.value, m->value, 16) != 0)
    return diag_say(diag, ERR_KEY_REUSE, "\"%s\" (%s): its KID had another key or IV before: give each key its own KID", key_name(b, k->asset),
                    scheme_name(k->scheme));
  return ERR_OK;
}

enum err key_guard_check(const struct key_guard *g, const struct key_record *k, struct diag *diag) {
  struct marks m;
  mark(&m, k);
  return compare(find(g, m.key), find(g, m.kid), &m, k, diag);
}

enum err key_guard_add(struct key_guard *g, const struct key_record *k, struct diag *diag) {
  struct marks m;
  mark(&m, k);
  struct seen *key = find(g, m.key);
  enum err e = compare(key, find(g, m.kid), &m, k, diag);
  if (e)
    return e;
  if (2 * (g->num + 2) > g->num_slots)
    return diag_say(diag, ERR_NO_MEMORY, "more keys than were planned for");
  if (key->scheme == SCHEME_CLEAR) {
    uint8_t *name = k->asset.n ? g->mem->get(g->mem, k->asset.n) : NULL;
    if (k->asset.n && !name)
      return diag_say(diag, ERR_NO_MEMORY, "more keys than were planned for");
    if (name)
      memcpy(name, k->asset.p, k->asset.n);
    *key = (struct seen){.scheme = k->scheme, .is.asset = bytes_of(name, k->asset.n)};
    memcpy(key->digest, m.key, 16);
    g->num++;
  }
  struct seen *kid = find(g, m.kid); // where it is may have been taken by the key
  if (kid->scheme == SCHEME_CLEAR) {
    *kid = (struct seen){.scheme = k->scheme};
    memcpy(kid->digest, m.kid, 16);
    memcpy(kid->is.value, m.value, 16);
    g->num++;
  }
  return ERR_OK;
}
