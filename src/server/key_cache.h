// Keys that key servers delivered, while they may be used. One place for each question (server, asset, epoch, scheme);
// whoever asks first is told to fetch, everybody else waits for the same answer. Time is the caller's: milliseconds of one
// monotonic clock. Thread-safe; never blocks on anything but its own short lock. Key bytes lie in memory for secrets only.
#pragma once
#include "keys/keys.h"

struct key_cache;
struct key_slot; // a question's place
struct obs_worker;

enum { KEY_LABELS_MAX = 2 };

// What is asked. `server` names the key server; `systems` are those whose data is wanted; labels in order.
struct key_question {
  uint64_t server;
  struct bytes asset;
  uint32_t epoch, systems, num_labels;
  enum scheme scheme;
};

// An answer: shared by reference, immutable. records[i] is of label i; its slices live as long.
struct issued {
  _Atomic uint32_t refs;
  uint32_t num;
  struct key_record *records; // in memory for secrets
  struct key_cache *cache;
  struct drm_given given[KEY_LABELS_MAX][DRM_SYSTEM_COUNT];
  uint8_t text[]; // what the slices of given, and the asset's name, point into
};

// How long an answer is good. Bounds in ms.
struct key_times {
  uint64_t lifetime, refresh, stale; // good for `lifetime`; asked anew `refresh` before its end; used `stale` beyond it
};

// Embedded in whoever waits. `ready` runs on the thread that ended the fetch: it hands on, no more.
struct key_wait {
  void (*ready)(struct key_wait *w);
  struct key_wait *next;
};

enum key_got {
  KEY_HIT,     // `issued` is held for the caller
  KEY_STALE,   // the same, past its lifetime: the key server could not be asked since
  KEY_FLYING,  // being fetched: `slot` is pinned; key_cache_park or key_cache_unpin it
  KEY_REFUSED, // nothing, and it is too early to ask again
  KEY_FULL,    // no place
};

struct key_ask {
  enum key_got got;
  bool fetch; // the caller must fetch: `slot` is pinned once more for that, until key_cache_landed
  struct issued *issued;
  struct key_slot *slot;
  uint64_t retry_ms; // with REFUSED: how long until asking makes sense, where that is known
};

// key_cache_new: at most max_slots questions, the least lately used leave. NULL: no memory.
struct key_cache *key_cache_new(uint32_t max_slots);
void key_cache_free(struct key_cache *c); // nothing may be held

// key_cache_ask looks a question up. `may_fetch`: false while its server is known to be away; then what there is is
// answered and nothing is begun.
struct key_ask key_cache_ask(struct key_cache *c, const struct key_question *q, uint64_t now_ms, bool may_fetch);

// key_cache_park waits for a slot that was FLYING. False: the fetch has ended meanwhile, ask again. Either way it is no
// longer pinned by the caller.
bool key_cache_park(struct key_cache *c, struct key_slot *s, struct key_wait *w);
void key_cache_unpin(struct key_cache *c, struct key_slot *s);

// key_cache_landed ends a fetch with an answer (taken over), or NULL: then nothing is asked for `retry_ms` times the number in a row,
// nor before `told_ms`, which the key server named. `spread` in [0, 255] moves the times of renewal apart, so that what came together
// does not go together. Waiters are woken.
void key_cache_landed(struct key_cache *c, struct key_slot *s, struct issued *fresh, const struct key_times *t, uint64_t retry_ms,
                      uint64_t told_ms, uint64_t now_ms, uint8_t spread);

// key_cache_agrees says whether an answer for a slot has, for each label, the key that is there already: in this slot, or in one whose
// question differs in systems and number of labels alone.
bool key_cache_agrees(struct key_cache *c, struct key_slot *s, const struct key_record *fresh, uint32_t num);
struct bytes key_slot_asset(const struct key_slot *s);

// issued_new copies records, which are wiped, with what their slices point at. NULL: no memory.
struct issued *issued_new(struct key_cache *c, struct key_record *records, uint32_t num);
void issued_drop(struct issued *i); // NULL is a no-op

// key_cache_count says how many questions have a place, and how many of these an answer.
void key_cache_count(struct key_cache *c, uint32_t *places, uint32_t *answers);
