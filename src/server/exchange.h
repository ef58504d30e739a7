// The exchange with key servers: one thread with its own ring asks them, everybody else asks the cache in front of it and
// is woken. Workers and helpers never wait for a network. docs/keys.md, "When a key server fails", says what is served when.
#pragma once
#include "obs/metrics.h"
#include "server/key_server.h"

struct exchange;

struct exchange_options {
  const char *io;      // as in the configuration
  uint32_t max_keys;   // answers kept
  struct obs_worker *metrics; // written with shared adds
};

// exchange_new starts the thread. NULL with the reason.
struct exchange *exchange_new(const struct exchange_options *o, struct config_error *error);

// exchange_stop ends the thread; whoever waits is woken, and what is asked from now on is refused. Twice is fine, NULL too.
void exchange_stop(struct exchange *x);
void exchange_free(struct exchange *x); // nothing may be held; NULL is a no-op

// exchange_ask asks for the keys of one asset, epoch and scheme: key_cache.h says what comes back. With FLYING the caller
// parks or unpins. `k` is whose provider `r` is, with its settings for the asset in `set`.
struct key_ask exchange_ask(struct exchange *x, struct keyring *k, const struct key_remote *r, const struct key_query *q,
                            const struct drm_settings *set);
bool exchange_park(struct exchange *x, struct key_slot *s, struct key_wait *w);
void exchange_unpin(struct exchange *x, struct key_slot *s);

// exchange_label picks the record of a label: a copy in `out`, whose slices are the answer's and q's.
// Errors: ERR_NO_KEY.
MUST_USE enum err exchange_label(struct key_record *out, const struct issued *i, const struct key_query *q);
