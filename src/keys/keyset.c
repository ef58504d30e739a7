#include "keys/keyset.h"

#include "keys/cpix.h"
#include "keys/derive.h"
#include "keys/epochs.h"

#include <openssl/sha.h>
#include <stdlib.h>

static int bytes_cmp(struct bytes a, struct bytes b) {
  size_t n = a.n < b.n ? a.n : b.n;
  int c = n ? memcmp(a.p, b.p, n) : 0;
  return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int record_cmp(const void *x, const void *y) {
  const struct key_record *a = x, *b = y;
  int c = bytes_cmp(a->asset, b->asset);
  if (!c)
    c = (a->epoch > b->epoch) - (a->epoch < b->epoch);
  if (!c)
    c = (int)a->scheme - (int)b->scheme;
  return c ? c : bytes_cmp(a->label, b->label);
}

static int rule_cmp(const void *x, const void *y) {
  return bytes_cmp(((const struct drm_rule *)x)->match, ((const struct drm_rule *)y)->match);
}

const char *key_name(char out[64], struct bytes name) {
  size_t n = name.n < 60 ? name.n : 60;
  for (size_t i = 0; i < n; i++)
    out[i] = name.p[i] >= 0x20 && name.p[i] < 0x7f && name.p[i] != '"' ? (char)name.p[i] : '?';
  memcpy(out + n, name.n > 60 ? "..." : "", name.n > 60 ? 4 : 1);
  return out;
}

static int mark_cmp(const void *x, const void *y) { return memcmp(x, y, 16); }

// Runs of equal keys must agree on the scheme: one key with two would encrypt one sample under two modes.
static enum err check_schemes(const struct keyset *ks, struct mark *marks, struct diag *diag) {
  for (uint32_t i = 0; i < ks->num_records; i++) {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256(ks->records[i].key, 16, digest);
    memcpy(marks[i].id, digest, 16);
    marks[i].record = i;
  }
  qsort(marks, ks->num_records, sizeof *marks, mark_cmp);
  for (uint32_t i = 1; i < ks->num_records; i++) {
    const struct key_record *a = &ks->records[marks[i - 1].record], *b = &ks->records[marks[i].record];
    if (a->scheme != b->scheme && keys_equal(a->key, b->key, 16)) {
      char na[64], nb[64];
      return diag_say(diag, ERR_KEY_REUSE, "\"%s\" (%s) and \"%s\" (%s) share one key: give each scheme its own",
                      key_name(na, a->asset), scheme_name(a->scheme), key_name(nb, b->asset), scheme_name(b->scheme));
    }
  }
  return ERR_OK;
}

// A KID names one key, and a cbcs key one constant IV.
static enum err check_kids(const struct keyset *ks, struct mark *marks, struct diag *diag) {
  for (uint32_t i = 0; i < ks->num_records; i++) {
    memcpy(marks[i].id, ks->records[i].kid, 16);
    marks[i].record = i;
  }
  qsort(marks, ks->num_records, sizeof *marks, mark_cmp);
  for (uint32_t i = 1; i < ks->num_records; i++) {
    const struct key_record *a = &ks->records[marks[i - 1].record], *b = &ks->records[marks[i].record];
    if (memcmp(a->kid, b->kid, 16) != 0)
      continue;
    char na[64], nb[64];
    if (!keys_equal(a->key, b->key, 16))
      return diag_say(diag, ERR_SYNTAX, "\"%s\" and \"%s\" give one KID two keys: give each key its own KID",
                      key_name(na, a->asset), key_name(nb, b->asset));
    if (a->has_iv != b->has_iv || !keys_equal(a->iv, b->iv, 16))
      return diag_say(diag, ERR_SYNTAX, "\"%s\" and \"%s\" give one KID two IVs: the IV belongs to the key",
                      key_name(na, a->asset), key_name(nb, b->asset));
  }
  return ERR_OK;
}

// CPIX files, whose match is empty too, stand before the key servers: two of these are neighbours then.
static int remote_cmp(const void *x, const void *y) {
  const struct key_remote *a = x, *b = y;
  int c = bytes_cmp(a->match, b->match);
  return c ? c : (a->provider != NULL) - (b->provider != NULL);
}

static enum err check_remotes(struct keyset *ks, struct diag *diag) {
  char name[64];
  if (ks->num_remotes)
    qsort(ks->remotes, ks->num_remotes, sizeof *ks->remotes, remote_cmp);
  for (uint32_t i = 1; i < ks->num_remotes; i++) {
    const struct key_remote *a = &ks->remotes[i - 1], *b = &ks->remotes[i];
    if (remote_cmp(a, b) == 0 && a->provider)
      return diag_say(diag, ERR_SYNTAX, "line %zu: providers: %s%s has two (the other on line %zu): keep one", a->line > b->line ? a->line : b->line,
                      b->match.n ? "match: " : "everything", key_name(name, b->match), a->line > b->line ? b->line : a->line);
  }
  return ERR_OK;
}

enum err keyset_seal(struct keyset *ks, struct alloc *mem, struct diag *diag) {
  char name[64];
  enum err bad = check_remotes(ks, diag);
  if (bad)
    return bad;
  if (ks->num_rules)
    qsort(ks->rules, ks->num_rules, sizeof *ks->rules, rule_cmp);
  for (uint32_t i = 1; i < ks->num_rules; i++)
    if (rule_cmp(&ks->rules[i - 1], &ks->rules[i]) == 0)
      return diag_say(diag, ERR_SYNTAX, "drm.rules: \"%s\" has two rules: keep one",
                      key_name(name, ks->rules[i].match));
  if (!ks->num_records)
    return ERR_OK;
  qsort(ks->records, ks->num_records, sizeof *ks->records, record_cmp);
  for (uint32_t i = 1; i < ks->num_records; i++)
    if (record_cmp(&ks->records[i - 1], &ks->records[i]) == 0)
      return diag_say(diag, ERR_SYNTAX, "asset \"%s\", epoch %u, %s has two records: keep one",
                      key_name(name, ks->records[i].asset), ks->records[i].epoch, scheme_name(ks->records[i].scheme));
  ks->marks = mem->get(mem, ks->num_records * sizeof *ks->marks);
  ks->kids = mem->get(mem, ks->num_records * sizeof *ks->kids);
  if (!ks->marks || !ks->kids)
    return diag_say(diag, ERR_NO_MEMORY, "%s", "");
  enum err e = check_schemes(ks, ks->marks, diag);
  return e ? e : check_kids(ks, ks->kids, diag);
}

enum err keys_add_cpix(struct keyset *ks, struct alloc *mem, struct bytes doc, uint32_t epoch, enum scheme scheme,
                       struct diag *diag) {
  uint32_t num = CPIX_MAX_KEYS;
  struct key_record *list = mem->get(mem, ((size_t)ks->num_records + num) * sizeof *list);
  if (!list)
    return diag_say(diag, ERR_NO_MEMORY, "out of memory");
  enum err e = cpix_import(mem, list + ks->num_records, &num, doc, epoch, scheme, diag);
  if (e)
    return e;
  for (uint32_t i = ks->num_records; i < ks->num_records + num; i++)
    if (!list[i].asset.n || list[i].asset.n > KEYS_MAX_ASSET || list[i].label.n > KEYS_MAX_LABEL)
      e = diag_say(diag, ERR_MALFORMED, "contentId names no asset, or it or a label is too long");
  if (ks->num_records)
    memcpy(list, ks->records, ks->num_records * sizeof *list);
  for (uint32_t i = 0; i < ks->num_records; i++)
    key_record_wipe(&ks->records[i]);
  ks->records = list;
  ks->cap_records = ks->num_records += num;
  ks->info.num_records = ks->num_records;
  return e ? e : keyset_seal(ks, mem, diag);
}

enum err keys_agree(const struct keyset *ks, const struct key_record *k, struct diag *diag) {
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256(k->key, 16, digest);
  const struct mark *m = ks->num_records ? bsearch(digest, ks->marks, ks->num_records, sizeof *m, mark_cmp) : NULL;
  const struct key_record *r = m ? &ks->records[m->record] : NULL;
  const struct mark *i = ks->num_records ? bsearch(k->kid, ks->kids, ks->num_records, sizeof *i, mark_cmp) : NULL;
  const struct key_record *same = i ? &ks->records[i->record] : NULL;
  char na[64], nb[64];
  if (same && (!keys_equal(same->key, k->key, 16) || (k->scheme == SCHEME_CBCS && (same->has_iv != k->has_iv || memcmp(same->iv, k->iv, 16) != 0))))
    return diag_say(diag, ERR_KEY_REUSE, "\"%s\" and \"%s\" give one KID two keys or IVs: give each key its own KID", key_name(na, same->asset),
                    key_name(nb, k->asset));
  if (!r || r->scheme == k->scheme)
    return ERR_OK;
  return diag_say(diag, ERR_KEY_REUSE, "\"%s\" (%s) and \"%s\" (%s) share one key: give each scheme its own",
                  key_name(na, r->asset), scheme_name(r->scheme), key_name(nb, k->asset), scheme_name(k->scheme));
}

const struct key_remote *keys_remotes(const struct keyset *ks, uint32_t *num) {
  *num = ks->num_remotes;
  return ks->remotes;
}

void keyset_wipe(struct keyset *ks) {
  if (!ks)
    return;
  for (uint32_t i = 0; i < ks->num_records; i++)
    key_record_wipe(&ks->records[i]);
  explicit_bzero(ks->prk, sizeof ks->prk);
  ks->has_secret = false;
}

enum err keys_set_secret(struct keyset *ks, struct bytes secret, struct diag *diag) {
  if (secret.n < KEYS_MIN_SECRET || secret.n > KEYS_MAX_SECRET)
    return diag_say(diag, ERR_ARGUMENT, "the master secret has %zu bytes: it must have %d to %d", secret.n,
                    KEYS_MIN_SECRET, KEYS_MAX_SECRET);
  derive_prk(ks->prk, secret);
  ks->has_secret = true;
  return ERR_OK;
}

// The first record that is not before `key`, as an index.
static uint32_t lower_bound(const struct keyset *ks, const struct key_record *key) {
  uint32_t lo = 0, hi = ks->num_records;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (record_cmp(&ks->records[mid], key) < 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

static bool has_asset(const struct keyset *ks, uint32_t i, struct bytes asset) {
  return i < ks->num_records && bytes_eq(ks->records[i].asset, asset);
}

enum err keys_lookup(struct key_record *out, const struct keyset *ks, const struct key_query *q) {
  if (!key_query_ok(q))
    return ERR_ARGUMENT;
  struct key_record want = {.asset = q->asset, .epoch = q->epoch, .scheme = q->scheme, .label = q->label};
  uint32_t i = lower_bound(ks, &want);
  if (i < ks->num_records && record_cmp(&ks->records[i], &want) == 0) {
    *out = ks->records[i];
    out->asset = q->asset;
    out->label = q->label;
    return ERR_OK;
  }
  // An asset's records stand together: one neighbour tells whether it has any.
  if (has_asset(ks, i, q->asset) || (i && has_asset(ks, i - 1, q->asset)) || !ks->has_secret)
    return ERR_NO_KEY;
  derive_record(out, ks->prk, q);
  return ERR_OK;
}

const struct key_remote *keys_remote(const struct keyset *ks, struct bytes asset) {
  const struct key_remote *best = NULL;
  for (uint32_t i = 0; i < ks->num_remotes; i++) { // a handful
    const struct key_remote *r = &ks->remotes[i];
    if (r->provider && epochs_covers(r->match, asset) && (!best || r->match.n >= best->match.n))
      best = r;
  }
  if (!best || !ks->num_records)
    return best;
  struct key_record want = {.asset = asset};
  uint32_t i = lower_bound(ks, &want);
  return has_asset(ks, i, asset) ? NULL : best;
}

// The counterpart of record i in the next epoch, or NULL.
static const struct key_record *next_of(const struct keyset *ks, uint32_t i) {
  struct key_record want = ks->records[i];
  want.epoch++;
  uint32_t at = lower_bound(ks, &want);
  bool found = at < ks->num_records && record_cmp(&ks->records[at], &want) == 0;
  key_record_wipe(&want);
  return found ? &ks->records[at] : NULL;
}

bool keys_missing(struct key_query *what, const struct keyset *ks, struct bytes scope,
                  uint32_t (*current)(void *ctx, struct bytes asset), void *ctx) {
  for (uint32_t i = 0; i < ks->num_records;) {
    struct bytes a = ks->records[i].asset;
    bool in = epochs_covers(scope, a), any = false;
    uint32_t epoch = in ? current(ctx, a) : 0;
    for (; has_asset(ks, i, a); i++) {
      const struct key_record *r = &ks->records[i];
      any = any || r->epoch == epoch + 1;
      if (in && r->epoch == epoch && !next_of(ks, i)) {
        *what = (struct key_query){.asset = a, .epoch = epoch + 1, .scheme = r->scheme, .label = r->label};
        return true;
      }
    }
    if (in && !any) {
      *what = (struct key_query){.asset = a, .epoch = epoch + 1, .scheme = SCHEME_CLEAR};
      return true;
    }
  }
  return false;
}

bool keys_repeated(struct bytes *asset, const struct keyset *ks, struct bytes scope,
                   uint32_t (*current)(void *ctx, struct bytes asset), void *ctx) {
  for (uint32_t i = 0; i < ks->num_records;) {
    struct bytes a = ks->records[i].asset;
    bool in = epochs_covers(scope, a);
    uint32_t epoch = in ? current(ctx, a) : 0;
    for (; has_asset(ks, i, a); i++) {
      const struct key_record *now = &ks->records[i], *next = in && now->epoch == epoch ? next_of(ks, i) : NULL;
      if (next && keys_equal(now->key, next->key, sizeof now->key)) { // as is the key of a repeated KID: check_kids
        *asset = a;
        return true;
      }
    }
  }
  return false;
}

const struct drm_settings *keys_drm(const struct keyset *ks, struct bytes asset) {
  struct drm_rule want = {.match = asset};
  while (ks->num_rules && want.match.n) {
    const struct drm_rule *r = bsearch(&want, ks->rules, ks->num_rules, sizeof *ks->rules, rule_cmp);
    if (r)
      return &r->set;
    // The next shorter prefix: up to and with the last '/' but one at the end.
    size_t n = want.match.n - 1;
    while (n && asset.p[n - 1] != '/')
      n--;
    want.match.n = n;
  }
  return &ks->drm;
}

static bool signals(const struct drm_settings *set, enum scheme scheme, enum drm_system s) {
  return (set->schemes & 1u << scheme) && ((set->systems | set->in_band) & drm_bit(s));
}

bool keys_signal(const struct keyset *ks, enum scheme scheme, enum drm_system s) {
  bool any = signals(&ks->drm, scheme, s);
  for (uint32_t i = 0; i < ks->num_rules && !any; i++)
    any = signals(&ks->rules[i].set, scheme, s);
  return any;
}

static bool same_drm(const struct drm_settings *a, const struct drm_settings *b) {
  return a->systems == b->systems && a->in_band == b->in_band && a->per_tier == b->per_tier &&
         bytes_eq(a->widevine.provider, b->widevine.provider) && bytes_eq(a->widevine.content_id, b->widevine.content_id) &&
         bytes_eq(a->widevine.policy, b->widevine.policy) && bytes_eq(a->playready.la_url, b->playready.la_url) &&
         bytes_eq(a->playready.lui_url, b->playready.lui_url) && bytes_eq(a->playready.ds_id, b->playready.ds_id) &&
         bytes_eq(a->playready.custom, b->playready.custom) && bytes_eq(a->fairplay.skd, b->fairplay.skd) &&
         bytes_eq(a->clearkey.la_url, b->clearkey.la_url) && a->clearkey.no_identity == b->clearkey.no_identity;
}

static bool same_rules(const struct keyset *a, const struct keyset *b) {
  bool ok = same_drm(&a->drm, &b->drm) && a->num_rules == b->num_rules;
  for (uint32_t i = 0; ok && i < a->num_rules; i++)
    ok = bytes_eq(a->rules[i].match, b->rules[i].match) && same_drm(&a->rules[i].set, &b->rules[i].set);
  return ok;
}

// A record that is gone leaves a 503. When it was the asset's last one, keys come from elsewhere, if there is an elsewhere.
static bool same_record(const struct keyset *now, const struct key_record *a) {
  uint32_t i = lower_bound(now, a);
  const struct key_record *b = i < now->num_records && !record_cmp(&now->records[i], a) ? &now->records[i] : NULL;
  if (b)
    return !memcmp(a->kid, b->kid, 16) && keys_equal(a->key, b->key, 16) && a->has_iv == b->has_iv && (!a->has_iv || keys_equal(a->iv, b->iv, 16));
  return has_asset(now, i, a->asset) || (i && has_asset(now, i - 1, a->asset)) || !(now->has_secret || keys_remote(now, a->asset));
}

static bool same_records(const struct keyset *was, const struct keyset *now) {
  bool ok = true;
  for (uint32_t i = 0; ok && i < was->num_records; i++)
    ok = same_record(now, &was->records[i]);
  return ok;
}

const char *keys_changed(char out[KEYS_CHANGED_MAX], const struct keyset *was, const struct keyset *now) {
  bool secret = was->has_secret && now->has_secret && !keys_equal(was->prk, now->prk, sizeof was->prk);
  struct writer w = wr_of(out, KEYS_CHANGED_MAX - 1);
  if (!same_rules(was, now))
    wr_str(&w, "drm");
  if (!same_records(was, now))
    wr_str(&w, w.n ? ", keys" : "keys");
  if (secret)
    wr_str(&w, w.n ? ", derive" : "derive");
  out[w.n] = 0;
  return out;
}
