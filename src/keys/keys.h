// Content keys: the keys file, derivation, and the table of key providers. Documents only, no I/O: the caller reads
// files and holds sockets. Everything secret lives in the allocator that the caller gives (locked, excluded from
// dumps) and is wiped by keyset_wipe. docs/keys.md describes file and derivation, with test vectors.
#pragma once
#include "base/alloc.h"
#include "base/err.h"
#include "base/writer.h"
#include "drm/drm.h"

enum { KEYS_MIN_SECRET = 16, KEYS_MAX_SECRET = 1024, KEYS_MAX_FILE = 64 << 20, KEYS_MAX_ASSET = 1024, KEYS_MAX_LABEL = 64, KEYS_MAX_SCHEDULES = 4096 };

// What a key is for. `label` is drm_label's.
struct key_query {
  struct bytes asset;
  uint32_t epoch;
  enum scheme scheme; // cenc or cbcs
  struct bytes label;
};

struct keyset; // immutable once loaded; shared by threads
struct key_guard;
struct key_provider;

// One entry of `providers`: where the keys of some assets come from, as the file says it. Slices are the keyset's.
struct key_remote {
  struct bytes match;                  // an asset, or a prefix ending in '/'; empty: everything
  const struct key_provider *provider; // NULL: a CPIX file, read when the keys file is
  struct bytes type, url, file, ca_file, bearer_file, basic_file, client_cert, client_key;
  uint64_t connect_ms, tls_ms, answer_ms, total_ms; // bounds of one exchange: connection, TLS, first byte, all of it
  uint64_t retry_ms, retry_max_ms;                  // between attempts: the first pause, doubled each time, and its bound
  uint64_t lifetime_ms, refresh_ms, stale_ms, negative_ms; // of keys in memory: docs/keys.md
  uint32_t connections, attempts;
  uint32_t epoch;     // CPIX: the epoch that the document's keys are for
  enum scheme scheme; // CPIX: of keys whose scheme it does not say; clear: refuse them
  size_t line;        // of the keys file, where the entry begins
};

// Rotates a scope (keys/epochs.h) again and again.
struct key_schedule {
  struct bytes scope;
  uint64_t every_ms;
  uint64_t grace_ms; // valid where has_grace
  bool has_grace;
};

// What the keys file says beside keys, for the caller to act on. Slices and lists point into the keyset.
struct keys_info {
  struct bytes secret_file;   // derive.secret_file; empty: no derivation asked for
  struct bytes kek_file;      // derive.kek_file: the secret is wrapped (keys/wrap.h); empty: it is not
  bool derive;                // the file has a derive section (or is empty): a secret is needed
  uint32_t default_epoch;     // epochs.default, 1 without it
  uint64_t grace_ms;          // epochs.grace; 0 without it
  bool has_grace;             // the file has epochs.grace: it goes before the configuration's
  uint64_t every_ms;          // epochs.every: rotate everything on this schedule; 0: never
  const struct key_schedule *schedules; // epochs.schedule, and epochs.every as the one of everything
  uint32_t num_schedules;
  uint32_t num_records;
};

// keys_remotes gives the list of providers. keys_remote is the one for an asset: the longest match; NULL when the asset
// has records, or none fits.
const struct key_remote *keys_remotes(const struct keyset *ks, uint32_t *num);
const struct key_remote *keys_remote(const struct keyset *ks, struct bytes asset);

// keys_add_cpix adds a CPIX document's keys to the records, with all the checks that these have. Before the keyset is
// shared. Errors: those of keys_parse and cpix_import.
MUST_USE enum err keys_add_cpix(struct keyset *ks, struct alloc *mem, struct bytes doc, uint32_t epoch, enum scheme scheme,
                                struct diag *diag);

// keys_agree says whether a key from elsewhere can live beside the records: none of them has it for another scheme, or its KID for
// another key or IV. Errors: ERR_KEY_REUSE with both assets named.
MUST_USE enum err keys_agree(const struct keyset *ks, const struct key_record *k, struct diag *diag);

// keys_parse reads a keys file. An empty or absent document means `derive` with defaults. All memory, key bytes
// included, comes from `mem`. Refused, with line, asset and what to do in `diag`: unknown or repeated options, bad
// hex, a key that serves both schemes (ERR_KEY_REUSE), a KID with two keys, two records for one (asset, epoch,
// scheme, label). Key bytes never appear in `diag`.
// Errors: ERR_SYNTAX, ERR_KEY_REUSE, ERR_LIMIT, ERR_NO_MEMORY.
MUST_USE enum err keys_parse(struct alloc *mem, struct keyset **out, struct keys_info *info, struct bytes text,
                             struct diag *diag);

// keys_set_secret gives the master secret for derivation (the bytes of secret_file as they are, 16 to 1024).
// Errors: ERR_ARGUMENT.
MUST_USE enum err keys_set_secret(struct keyset *ks, struct bytes secret, struct diag *diag);

void keyset_wipe(struct keyset *ks); // overwrites every key and the secret; NULL is a no-op

// keys_lookup gives the key for `q`: the record of the file, else the derived one. An asset that has any record is
// never derived. out->asset and out->label are q's; out->given is NULL or points into the keyset.
// Errors: ERR_NO_KEY, ERR_ARGUMENT (scheme clear, label over 64 bytes).
MUST_USE enum err keys_lookup(struct key_record *out, const struct keyset *ks, const struct key_query *q);

// keys_missing finds an asset with records, inside the scope (see keys/epochs.h), that lacks one of its next epoch: for a
// scheme and label of its current epoch (*what is that of the next), or any at all (then scheme is SCHEME_CLEAR). Asked before
// a rotation; `current` gives an asset's epoch. False when none is missing.
bool keys_missing(struct key_query *what, const struct keyset *ks, struct bytes scope,
                  uint32_t (*current)(void *ctx, struct bytes asset), void *ctx);

// keys_repeated finds one whose record of the next epoch has the KID or the key of the current one: such a rotation would
// change nothing that leaked. As above.
bool keys_repeated(struct bytes *asset, const struct keyset *ks, struct bytes scope,
                   uint32_t (*current)(void *ctx, struct bytes asset), void *ctx);

// keys_drm gives the settings for an asset: the longest rule of the drm section that fits, else its top level.
const struct drm_settings *keys_drm(const struct keyset *ks, struct bytes asset);

// keys_signal says whether any asset may be asked for in a scheme with a system signalled for it, in band or not.
bool keys_signal(const struct keyset *ks, enum scheme scheme, enum drm_system s);

// keys_changed says what a keyset that takes another's place changes for epochs that have begun: the names of the sections,
// for a log line; "" where old URLs give what they gave. Records that are new, or gone, are no change of this kind,
// but for an asset whose last record is gone while keys are derived, or a key server has them.
enum { KEYS_CHANGED_MAX = 32 };
const char *keys_changed(char out[KEYS_CHANGED_MAX], const struct keyset *was, const struct keyset *now);

// keys_kid gives the KID that is asked of a remote key server for `q` when no secret is shared with it:
// a version 8 UUID from SHA-256 of the query.
void keys_kid(uint8_t out[16], const struct key_query *q);

// keys_equal compares secrets in constant time.
bool keys_equal(const void *a, const void *b, size_t n);
bool keys_equal_text(struct bytes a, struct bytes b); // of any lengths, which take no time either: digests are compared

// keys_digest_more makes a digest (zeros at first) that of one text more: SHA-256 of what it was, a length, and the text.
void keys_digest_more(uint8_t digest[32], struct bytes more);

// A provider that answers over a transport: a row builds the request and reads the answer. The exchange itself
// (HTTPS, authentication, retries, caching) belongs to the server.
struct key_doc {
  const struct key_query *queries; // one document may ask for several labels of one asset, epoch and scheme
  uint32_t num_queries;            // 1 at least
  const struct drm_settings *drm;  // which systems' data to ask for
};

enum { KEY_DOC_MAX_ANSWER = 1 << 20 };

struct key_provider {
  const char *name;         // "speke2.0", "speke2.1", "json": as in the configuration
  const char *content_type; // of the request
  const char *headers;      // further request header lines, each ending in CR LF; "" for none
  // Appends the request's body. The same question gives the same bytes.
  void (*request)(struct writer *w, const struct key_doc *doc);
  // Reads an answer with status 200 into out[num_queries]. Slices (given) come from `mem`. Nothing is believed that
  // was not asked for: KIDs, scheme, key and IV lengths, duplicates and every system's data are checked.
  // Errors: ERR_SYNTAX, ERR_LIMIT, ERR_NO_KEY, ERR_KEY_REUSE, ERR_MALFORMED, ERR_NO_MEMORY.
  enum err (*answer)(struct alloc *mem, struct key_record *out, const struct key_doc *doc, struct bytes body,
                     struct diag *diag);
};

extern const struct key_provider *const key_providers[];
extern const size_t num_key_providers;

// key_provider_find gives the row with this name, NULL when unknown.
const struct key_provider *key_provider_find(struct bytes name);

// A guard over keys from wherever they come: one key never serves both schemes, and a KID names one key and IV, also when providers
// give them one at a time. Keeps digests and asset names, no keys. NULL when there is no memory for `max_keys`.
struct key_guard *key_guard_new(struct alloc *mem, uint32_t max_keys);

// key_guard_check only looks. Errors: ERR_KEY_REUSE with the asset named, or both.
MUST_USE enum err key_guard_check(const struct key_guard *g, const struct key_record *k, struct diag *diag);

// key_guard_add records a key. Errors: ERR_KEY_REUSE with the asset named, or both, ERR_NO_MEMORY (more than max_keys).
MUST_USE enum err key_guard_add(struct key_guard *g, const struct key_record *k, struct diag *diag);
