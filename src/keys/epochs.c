#include "keys/epochs.h"

#include "base/text.h"
#include "keys/epochs_state.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { FIRST_SLOTS = 16, MAX_SEQ = INT32_MAX };

struct epochs *epochs_new(struct alloc *mem, uint32_t base) {
  struct epochs *e = mem->get(mem, sizeof *e);
  struct epoch_rule **slots = e ? mem->get(mem, FIRST_SLOTS * sizeof(struct epoch_rule *)) : NULL;
  if (!slots)
    return NULL;
  *e = (struct epochs){.mem = mem, .base = base, .next_seq = 1, .slots = slots, .num_slots = FIRST_SLOTS};
  return e;
}

uint64_t epochs_next_seq(const struct epochs *e) { return e->next_seq; }

static void put(struct epoch_rule **slots, uint32_t num, struct epoch_rule *r) {
  uint32_t i = (uint32_t)r->hash & (num - 1);
  while (slots[i])
    i = (i + 1) & (num - 1);
  slots[i] = r;
}

static bool grow_slots(struct epochs *e) {
  uint32_t num = e->num_slots * 2;
  struct epoch_rule **slots = e->mem->get(e->mem, num * sizeof(struct epoch_rule *));
  if (!slots)
    return false;
  for (uint32_t i = 0; i < e->num_slots; i++)
    if (e->slots[i])
      put(slots, num, e->slots[i]);
  e->slots = slots;
  e->num_slots = num;
  return true;
}

static struct epoch_rule *find(const struct epochs *e, struct bytes scope, uint64_t hash) {
  for (uint32_t i = (uint32_t)hash & (e->num_slots - 1); e->slots[i]; i = (i + 1) & (e->num_slots - 1))
    if (e->slots[i]->hash == hash && bytes_eq(e->slots[i]->scope, scope))
      return e->slots[i];
  return NULL;
}

struct epoch_rule *epochs_rule(struct epochs *e, struct bytes scope, bool make) {
  uint64_t hash = XXH3_64bits(scope.p, scope.n);
  struct epoch_rule *r = find(e, scope, hash);
  if (r || !make || (2 * (e->num_rules + 1) > e->num_slots && !grow_slots(e)))
    return r;
  r = e->mem->get(e->mem, sizeof *r + scope.n);
  if (!r)
    return NULL;
  uint8_t *copy = (uint8_t *)(r + 1);
  if (scope.n)
    memcpy(copy, scope.p, scope.n);
  *r = (struct epoch_rule){.scope = bytes_of(copy, scope.n), .hash = hash};
  put(e->slots, e->num_slots, r);
  e->num_rules++;
  return r;
}

// Everything, then each prefix that ends in '/', then the asset itself: the rules that cover it.
struct covering {
  const struct epoch_rule *rules[EPOCH_MAX_DEPTH + 2];
  unsigned num;
};

static struct covering cover(const struct epochs *e, struct bytes asset) {
  struct covering c = {.num = 0};
  unsigned depth = 0;
  for (size_t n = 0; e->num_rules && n <= asset.n && depth < EPOCH_MAX_DEPTH + 1; n++) {
    if (n && n < asset.n && asset.p[n - 1] != '/')
      continue;
    struct bytes scope = bytes_of(asset.p, n);
    const struct epoch_rule *r = find(e, scope, XXH3_64bits(scope.p, scope.n));
    if (r)
      c.rules[c.num++] = r;
    depth += n && n < asset.n;
  }
  return c;
}

static uint64_t total(const struct covering *c) {
  uint64_t n = 0;
  for (unsigned i = 0; i < c->num; i++)
    n += epochs_rule_num(c->rules[i]);
  return n;
}

// How many of a rule's listed rotations have a seq of at most `seq`.
static uint32_t listed_up_to(const struct epoch_rule *r, uint64_t seq) {
  uint32_t lo = 0, hi = r->num;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (r->past[mid].seq <= seq)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

static uint64_t rank(const struct covering *c, uint64_t seq) {
  uint64_t n = 0;
  for (unsigned i = 0; i < c->num; i++)
    n += c->rules[i]->folded + listed_up_to(c->rules[i], seq);
  return n;
}

uint32_t epochs_current(const struct epochs *e, struct bytes asset) {
  struct covering c = cover(e, asset);
  return e->base + (uint32_t)total(&c);
}

static const struct epoch_past *past_at(const struct covering *c, uint64_t seq) {
  for (unsigned i = 0; i < c->num; i++) {
    uint32_t n = listed_up_to(c->rules[i], seq);
    if (n && c->rules[i]->past[n - 1].seq == seq)
      return &c->rules[i]->past[n - 1];
  }
  return NULL;
}

static uint64_t last_revoke(const struct covering *c) {
  uint64_t seq = 0;
  for (unsigned i = 0; i < c->num; i++)
    seq = c->rules[i]->revoke_seq > seq ? c->rules[i]->revoke_seq : seq;
  return seq;
}

static uint64_t add_sat(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

enum epoch_status epochs_status(const struct epochs *e, struct bytes asset, uint32_t epoch, uint64_t now_ms,
                                uint64_t *until_ms) {
  struct covering c = cover(e, asset);
  uint64_t unused;
  until_ms = until_ms ? until_ms : &unused;
  *until_ms = UINT64_MAX;
  if (epoch < e->base || epoch - e->base > total(&c))
    return EPOCH_UNKNOWN;
  if (epoch - e->base == total(&c))
    return EPOCH_CURRENT;
  // The epoch was ended by covering rotation number k: the smallest seq whose rank reaches k.
  uint64_t k = (uint64_t)(epoch - e->base) + 1, lo = e->fold_seq, hi = e->next_seq - 1;
  if (rank(&c, lo) >= k)
    return EPOCH_EXPIRED;
  while (lo + 1 < hi) {
    uint64_t mid = lo + (hi - lo) / 2;
    if (rank(&c, mid) >= k)
      hi = mid;
    else
      lo = mid;
  }
  const struct epoch_past *end = past_at(&c, hi);
  if (!end)
    return EPOCH_EXPIRED;
  if (last_revoke(&c) >= end->seq)
    return EPOCH_REVOKED;
  if (now_ms >= add_sat(end->time_ms, end->grace_ms))
    return EPOCH_EXPIRED;
  *until_ms = add_sat(end->time_ms, end->grace_ms);
  return EPOCH_GRACE;
}

enum err epochs_scope_ok(struct bytes scope, struct diag *diag) {
  unsigned depth = 0;
  if (scope.n > EPOCH_MAX_SCOPE)
    return diag_say(diag, ERR_LIMIT, "an asset's name or prefix has at most %d bytes", EPOCH_MAX_SCOPE);
  for (size_t i = 0, start = 0; i <= scope.n && scope.n; i++) {
    if (i < scope.n && scope.p[i] != '/') {
      if (!scope.p[i])
        return diag_say(diag, ERR_ARGUMENT, "a name holds no zero byte");
      continue;
    }
    struct bytes seg = bytes_of(scope.p + start, i - start);
    bool end = i == scope.n && start == scope.n; // behind the '/' of a prefix
    if (!end && (!seg.n || bytes_eq(seg, BYTES_LIT(".")) || bytes_eq(seg, BYTES_LIT(".."))))
      return diag_say(diag, ERR_ARGUMENT, "a name has no empty, \".\" or \"..\" segment");
    start = i + 1;
    depth += i < scope.n;
  }
  if (depth > EPOCH_MAX_DEPTH)
    return diag_say(diag, ERR_LIMIT, "a name has at most %d segments", EPOCH_MAX_DEPTH + 1);
  return ERR_OK;
}

enum err epochs_scope_served(struct bytes scope, struct diag *diag) {
  enum err e = epochs_scope_ok(scope, diag);
  for (size_t at = 0, i = 0; !e && i <= scope.n; i++) {
    if (i < scope.n && scope.p[i] != '/')
      continue;
    const char *why = i > at ? url_name_fault(bytes_of(scope.p + at, i - at)) : NULL; // empty: behind the '/' of a prefix
    if (why)
      return diag_say(diag, ERR_ARGUMENT, "no URL can have one of its segments: %s", why);
    at = i + 1;
  }
  return e;
}

bool epochs_covers(struct bytes scope, struct bytes asset) {
  bool prefix = !scope.n || scope.p[scope.n - 1] == '/';
  return prefix ? asset.n > scope.n && bytes_eq(bytes_of(asset.p, scope.n), scope) : bytes_eq(asset, scope);
}

enum err epochs_check(const struct epochs *e, const struct epoch_event *ev, struct diag *diag) {
  if (ev->seq < e->next_seq || ev->seq > MAX_SEQ)
    return diag_say(diag, ERR_ARGUMENT, "rotation number %llu is out of order: %llu is next",
                    (unsigned long long)ev->seq, (unsigned long long)e->next_seq);
  return epochs_scope_ok(ev->scope, diag);
}

enum err epochs_apply(struct epochs *e, const struct epoch_event *ev, struct diag *diag) {
  enum err err = epochs_check(e, ev, diag);
  if (err)
    return err;
  struct epoch_rule *r = epochs_rule(e, ev->scope, true);
  if (!r)
    return diag_say(diag, ERR_NO_MEMORY, "out of memory");
  if (r->num == r->cap) {
    uint32_t cap = r->cap ? r->cap * 2 : 2;
    struct epoch_past *past = e->mem->get(e->mem, cap * sizeof *past);
    if (!past)
      return diag_say(diag, ERR_NO_MEMORY, "out of memory");
    if (r->num)
      memcpy(past, r->past, r->num * sizeof *past);
    r->past = past;
    r->cap = cap;
  }
  r->past[r->num++] = (struct epoch_past){ev->seq, ev->time_ms, ev->grace_ms};
  if (ev->revoke)
    r->revoke_seq = ev->seq;
  if (ev->slot_ms)
    r->slot_ms = ev->slot_ms;
  e->next_seq = ev->seq + 1;
  return ERR_OK;
}

uint64_t epochs_slot(const struct epochs *e, struct bytes scope) {
  const struct epoch_rule *r = find(e, scope, XXH3_64bits(scope.p, scope.n));
  return r ? r->slot_ms : 0;
}

enum err epochs_set_slot(struct epochs *e, struct bytes scope, uint64_t slot_ms, struct diag *diag) {
  enum err err = epochs_scope_ok(scope, diag);
  if (err)
    return err;
  struct epoch_rule *r = epochs_rule(e, scope, true);
  if (!r)
    return diag_say(diag, ERR_NO_MEMORY, "out of memory");
  r->slot_ms = slot_ms;
  return ERR_OK;
}

void epochs_walk(const struct epochs *e, void (*each)(void *ctx, struct bytes scope, uint64_t rotations), void *ctx) {
  for (uint32_t i = 0; i < e->num_slots; i++)
    if (e->slots[i] && epochs_rule_num(e->slots[i]))
      each(ctx, e->slots[i]->scope, epochs_rule_num(e->slots[i]));
}
