// Keys of the running server: the parsed keys file with its secret in locked memory, and the key epochs with their
// journal. Blocks (files, locks): helper threads, admin and start only, but for keyring_* after it was made.
#pragma once
#include <stdatomic.h>

#include "keys/epochs.h"
#include "keys/keys.h"
#include "server/options.h"

// What state_dir holds.
#define STATE_SECRET "derive.secret"
#define STATE_JOURNAL "rotations.journal"

// Memory for secrets: locked where the limit allows it, left out of core dumps and of children, wiped when freed.
struct secret_alloc {
  struct alloc base;
  struct secret_block *blocks;
  size_t used, limit;
  bool unlocked; // some of it could not be locked
};
void secret_alloc_init(struct secret_alloc *a, size_t limit);
void secret_alloc_free(struct secret_alloc *a); // safe on a zeroed struct and twice

// A keys file as loaded. Immutable; shared by reference.
struct keyring {
  struct secret_alloc mem;
  struct keyset *set;
  struct keys_info info;
  bool insecure;    // --insecure-clearkey
  char *public_url; // for ClearKey licence URLs, without slash at the end; NULL: not configured
  bool inband_pssh;
  char *secret_path; // of the derivation secret; NULL: none is used
  struct bytes token; // that the admin listener demands for rotations; empty: none
  struct key_server **servers; // beside keys_remotes; NULL for those that are files
  uint32_t num_servers;
  char **files; // that providers name, for the sandbox
  unsigned num_files;
  uint8_t digest[32]; // of all files that were read, by keys_digest_more
  bool given; // the keys file has more than white space
  bool asks_names; // a key server is named, not an address: the system's resolver is needed
  _Atomic uint32_t refs;
};

// keyring_load reads config->keys (or nothing: derivation) and the secret. Errors in one line; NULL then. A missing secret in state_dir:
enum keyring_lacking {
  LACKING_IGNORED, // it would be made
  LACKING_MADE,    // mode 0600, and said in the log
  LACKING_REFUSED, // keys of it are in force
};
struct keyring *keyring_load(const struct config *c, enum keyring_lacking lacking, struct config_error *error);
// The same for a reload: a keys file that is empty, where the one of `before` was not, is what a full disk leaves of it, and refused.
struct keyring *keyring_reload(const struct config *c, const struct keyring *before, enum keyring_lacking lacking, struct config_error *error);
bool keyring_own_secret(const struct keyring *k); // it derives from the secret in state_dir
// keyring_same says whether two keyrings of one configuration give the same keys to everybody. Of key servers that is not known.
bool keyring_same(const struct keyring *a, const struct keyring *b);
struct key_server;
bool keyring_remote(const struct keyring *k); // some key server is configured
struct key_server *keyring_server(const struct keyring *k, const struct key_remote *r);
struct keyring *keyring_ref(struct keyring *k);
void keyring_put(struct keyring *k); // NULL is a no-op

// keyring_drm gives the settings for an asset with what this server adds (ClearKey, identity, in-band pssh). `la_url` is
// space for the licence URL template; slices of the result point into it and into the keyring. `own_url` is where this
// server can be reached when the configuration does not say.
enum { KEYRING_URL_MAX = 512 };
void keyring_drm(struct drm_settings *out, char la_url[KEYRING_URL_MAX], const struct keyring *k, const char *own_url,
                 struct bytes asset);

// Epochs with their journal, STATE_JOURNAL: replayed at start, a line appended and synced for each
// rotation before it takes effect, compacted when it has grown. state_dir is locked: NULL while another server has it.
// A folder that is not there yet is made. Thread-safe; who only reads never waits for the disk that a rotation waits for.
struct epoch_store;
struct epoch_store *epoch_store_open(const char *state_dir, uint32_t base, struct config_error *error);
void epoch_store_close(struct epoch_store *s);
// epoch_store_check reads the journal, if there is one, as opening would, and changes and locks nothing.
bool epoch_store_check(const char *state_dir, uint32_t base, struct config_error *error);
uint32_t epoch_store_base(const struct epoch_store *s); // the epoch before any rotation, as given at open
uint32_t epoch_store_current(struct epoch_store *s, struct bytes asset);
enum epoch_status epoch_store_status(struct epoch_store *s, struct bytes asset, uint32_t epoch, uint64_t now_ms,
                                     uint64_t *until_ms);
// epoch_store_rotate makes a new epoch for a scope.
MUST_USE enum err epoch_store_rotate(struct epoch_store *s, struct bytes scope, uint64_t grace_ms, bool revoke,
                                     uint64_t now_ms, struct diag *diag);
// The same for a slot of the scope's schedule, which is kept with it; and the slot alone, where a schedule begins.
MUST_USE enum err epoch_store_rotate_slot(struct epoch_store *s, struct bytes scope, uint64_t grace_ms, uint64_t slot_ms,
                                          uint64_t now_ms, struct diag *diag);
MUST_USE enum err epoch_store_set_slot(struct epoch_store *s, struct bytes scope, uint64_t slot_ms, struct diag *diag);
uint64_t epoch_store_slot(struct epoch_store *s, struct bytes scope);
void epoch_store_walk(struct epoch_store *s, void (*each)(void *ctx, struct bytes scope, uint64_t rotations), void *ctx);
