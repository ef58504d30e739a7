// Making, reloading and ending the catalogue: by one thread at a time.
#pragma once
#include "server/catalog.h"
#include "server/keyring.h"

struct catalog_options {
  struct config *config;            // taken over
  struct keyring *keyring;          // taken over
  struct epoch_store *epochs;       // taken over
  struct config *_Atomic *published; // set to `config`, and to each later one
  struct quiet *quiet;
  const struct aes_ops *ops;
  struct obs_worker *metrics;       // written with shared adds
  unsigned num_files;               // media files that may be kept open
};

// catalog_new opens the media folder and starts helper threads. NULL and the error on failure; nothing is taken then.
struct catalog *catalog_new(const struct catalog_options *o, struct config_error *error);

// catalog_set_own_url says where this server can be reached, for licence URLs. Once; requests may be under way.
void catalog_set_own_url(struct catalog *c, const char *url);

// A reload in two halves. catalog_prepare does all that can fail: it takes `config` and `keyring` over, or takes nothing and says
// why; settings_put (catalog_int.h) gives up what is not to be in force after all. catalog_reload swaps it in and takes it over.
struct settings *catalog_prepare(struct catalog *c, struct config *config, struct keyring *keyring, struct config_error *error);
void catalog_reload(struct catalog *c, struct settings *fresh);

// catalog_changed makes every name be looked at anew; catalog_rotated, after a rotation, those of its scope.
void catalog_changed(struct catalog *c);
void catalog_rotated(struct catalog *c, struct bytes scope);
struct epoch_store *catalog_epochs(struct catalog *c);

// catalog_usage says what is held now.
struct catalog_usage {
  uint64_t entries, tracks, index_bytes, entry_bytes, text_bytes;
  struct cache_counts cache, hot; // clear, encrypted
};
void catalog_usage(struct catalog *c, struct catalog_usage *out);

// catalog_free: no worker may be running. NULL is a no-op.
void catalog_free(struct catalog *c);
