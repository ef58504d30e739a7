// Inside the catalogue: shared by the files catalog*.c, and by who orders or reloads (admin.c, server.c).
#pragma once
#include <pthread.h>

#include "server/catalog.h"
#include "server/exchange.h"
#include "server/keyring.h"
#include "server/reader.h"
#include "server/rotation.h"
#include "server/source.h"

// Configuration and keys that belong together. Shared by reference; the current one is swapped by a reload.
struct settings {
  struct quiet_item item;
  struct config *config;
  bool lent; // the configuration is not ours to free
  struct keyring *keyring;
  _Atomic uint32_t refs;
};

struct settings *settings_get(struct catalog *c); // with a reference
void settings_put(struct settings *st);
struct rotation_rules settings_rotation(struct catalog *c, const struct settings *st);

struct full_track {
  struct quiet_item item;
  struct protected_track pub;
  struct catalog *catalog;
  uint8_t *pssh;
  struct full_track *next_free;
};

struct full_text {
  struct quiet_item item;
  struct text_doc pub;
  struct catalog *catalog;
  struct source **sources; // kept open as long as the manifest is wanted
  unsigned num_sources;
  size_t bytes;
};

// Sources that a making has opened and that stay open while it waits: to open one anew may mean to read all of it.
struct kept {
  unsigned num;
  struct source *at[64];
};

// One name of the table. `key` is the path from the asset to the track (or to the scheme, or the epoch), as in the URL.
struct entry {
  struct quiet_item item;
  struct entry *_Atomic next;
  uint64_t hash;
  struct route route;          // slices point into `key`; kind ROUTE_INIT stands for all of a track's resources
  void *_Atomic value;         // protected_track or text_doc, or NULL
  _Atomic int status;          // CAT_OK or an error; 0 before the first time
  _Atomic uint64_t generation; // of rules and configuration it was made under
  _Atomic uint64_t until_ms;   // monotonic: what must be looked at anew then
  _Atomic uint8_t why;         // with an error: enum obs_error, 0: the status says it
  _Atomic uint64_t retry_ms;   // monotonic: with CAT_UNAVAILABLE, when its key may be asked for again; 0: not known
  _Atomic uint64_t checked_ms; // when storage was looked at
  _Atomic uint64_t failed_ms;  // when a look failed, or had not been answered for a while; 0: not since checked_ms
  _Atomic bool used, refreshing;
  bool making;                 // under the lock
  uint64_t making_generation;  // under the lock: `generation` to be
  struct cat_wait *waiters;    // under the lock
  struct entry *look_next;     // under the lock, in the catalogue's `looks`
  uint64_t look_ms;            // under the lock: when the look at storage for it began; 0: none is under way
  struct key_wait keys;        // while `making` waits for keys, or for a source to be opened: the rest is its maker's
  struct source_wait source;
  struct kept *kept; // meanwhile, or NULL
  struct entry *again_next; // under queue_lock, in the catalogue's `again`
  struct catalog *catalog;
  unsigned key_waits;
  uint16_t key_len;
  char key[];
};

enum job_kind { JOB_ENTRY, JOB_FILL, JOB_BYPASS, JOB_OPEN, JOB_FIND };

struct job {
  enum job_kind kind;
  struct cat_wait *wait; // NULL: a refresh that nobody waits for
  uint64_t since_ms;     // when it was put into the queue
  struct protected_track *track;
  struct read_op *op; // JOB_OPEN
  struct cache_ref ref;
  uint64_t src_off;
  uint32_t src_len;
  struct route route; // slices point into `key`
  uint16_t key_len;
  char key[ROUTE_PATH_MAX];
};

enum { QUEUE_JOBS = 4096, MAX_HELPERS = 64, ENTRY_BUCKETS = 1 << 17, ENTRIES_MAX = 1 << 18, BYPASS_BYTES = 128 << 20,
       HEAT_SLOTS = 1 << 16, BUCKETS_AT_ONCE = 4096 /* under the lock */ };

struct catalog {
  pthread_mutex_t lock; // entries, settings, free tracks
  struct settings *settings;
  struct config *first; // of the start: server->first is there to the end, its keyring until a reload
  struct config *_Atomic *published; // server->config
  _Atomic uint64_t generation;
  _Atomic uint64_t revalidate_ms, stale_ms; // stale_if_error
  struct sources *sources;
  struct epoch_store *epochs;
  struct exchange *_Atomic exchange; // NULL until a key server is configured; then it stays
  struct cache_budget budget; // of both caches
  struct cache *cache, *hot;  // hot: encrypted segments, or NULL
  _Atomic uint8_t *heat;     // how often pieces were asked for lately, by hash; halved every second
  uint64_t cooled_ms, swept_ms, swept_generation; // the keeper's
  struct quiet *quiet;
  const struct aes_ops *ops;
  struct obs_worker *metrics; // shared adds
  int root_fd, cache_fd;
  char own_url_text[300];
  const char *_Atomic own_url; // "" until it is known
  struct entry *_Atomic *buckets;
  uint64_t hash_seed; // random: clients choose names, and must not know which of them share a bucket
  uint64_t num_entries, entry_bytes, text_bytes; // entry_bytes: of the entries themselves and of tracks
  uint64_t index_most; // index_size
  uint32_t hand; // of the eviction clock
  uint64_t next_generation;
  struct secret_alloc track_memory;
  bool warned_unlocked;
  _Atomic uint64_t key_log_due_ms; // when the next line about a key that is not there may be written
  _Atomic uint64_t storage_log_due_ms; // the same, about looks at storage that failed
  _Atomic unsigned storage_log_more;   // not told since
  _Atomic uint64_t old_log_due_ms; // the same, about storage that fails while what is in memory is served
  struct entry *looks; // at storage, under way; under the lock
  struct full_track *free_tracks;
  struct search { // of catalog_find
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool under_way; // whoever asked may have gone
    enum err result;
    size_t scope_len;
    uint8_t scope[EPOCH_MAX_SCOPE];
  } search;
  _Atomic uint64_t bypass_bytes;
  struct reader *reader; // NULL: helper threads read
  struct fill *fills, *free_fills; // free: under queue_lock
  // jobs
  pthread_mutex_t queue_lock;
  pthread_cond_t queue_wake;
  struct job *queue;
  unsigned queue_head, queue_len;
  struct entry *again, **again_end; // what their makings waited for has come, or will not: before the queue, and never without room
  bool stop;
  pthread_t helpers[MAX_HELPERS], keeper;
  unsigned num_helpers;
  bool keeper_runs;
  pthread_mutex_t keeper_lock;
  pthread_cond_t keeper_wake;
  bool keeper_stop;
};

// What making an entry gives.
struct made {
  int status;
  void *value;       // with CAT_OK; has one hold
  uint64_t until_ms; // monotonic; UINT64_MAX: never
  struct key_slot *keys; // with CAT_WAIT: pinned, being fetched
  uint64_t opening;      // with CAT_WAIT and without `keys`: another thread's, of a source
  struct kept *kept;     // with CAT_WAIT, or NULL
  bool no_key;       // with CAT_UNAVAILABLE: for want of a key
  uint8_t why;       // with an error for the media's sake: enum obs_error; make_entry knows about keys
  uint64_t retry_ms; // with CAT_UNAVAILABLE: how long until a key may be asked for again; 0: not known
};

// catalog_push puts a job into the queue; false when it is full.
bool catalog_push(struct catalog *c, enum job_kind kind, const struct route *r, struct bytes key, const struct job *rest);

// build_entry makes the value of an entry; blocks on storage, never on a network: CAT_WAIT when a key has to be fetched, or another
// thread opens a source. `old` is what it had (still held by the entry): returned itself, with one more hold, when nothing changed.
void build_entry(struct catalog *c, struct made *out, const struct settings *st, const struct route *r, void *old);
void kept_drop(struct catalog *c, struct kept *k); // NULL is a no-op

// catalog_find_asset says whether there is an asset of this name, with a track, by the rules of URLs and manifests; no track
// is opened. Errors: ERR_NOT_FOUND; others: cannot be known now.
enum err catalog_find_asset(struct catalog *c, struct bytes asset);

// catalog_find_below says whether assets can lie below a prefix (which ends in '/'): a folder is there that has one which is no
// track. Errors as above.
enum err catalog_find_below(struct catalog *c, struct bytes prefix);

// catalog_find says the same of a scope that is not "", but a helper looks: ERR_IO where storage has not answered within FIND_MS, or still
// owes the answer to an earlier call. One thread at a time.
enum { FIND_MS = 2000 };
enum err catalog_find(struct catalog *c, struct bytes scope);
void do_find(struct catalog *c); // a helper's job

struct full_track *track_alloc(struct catalog *c);   // zeroed but for holds 1; NULL: no memory
void track_retire_now(struct full_track *f);         // frees one that was never published

// The table. Finding takes no lock; what changes it does (c->lock).
enum freshness { STALE, AGING, FRESH };
uint64_t entry_hash(const struct catalog *c, struct bytes key, enum route_kind kind);
struct entry *entry_find(struct catalog *c, uint64_t hash, enum route_kind kind, struct bytes key);
uint64_t entry_retry(const struct entry *e, uint64_t now_ms); // ms from now, 0: not known
enum freshness entry_freshness(struct catalog *c, struct entry *e, uint64_t now_ms);
// entry_outlives: whether an entry may be handed out as it was although it cannot be looked at, because storage fails or does
// not answer. Never across a rotation, a reload or the end of an epoch. entry_failed_lately: a look has just failed; the next may wait.
bool entry_outlives(const struct catalog *c, const struct entry *e, uint64_t now_ms);
bool entry_failed_lately(const struct catalog *c, const struct entry *e, uint64_t now_ms);

// Drops an entry's hold on its value after every worker was quiet: it was reachable.
void entry_value_drop_later(struct catalog *c, enum route_kind kind, void *value);

// route_rebase copies a route with its names moved to a copy of its key.
void route_rebase(struct route *r, const struct route *from, const char *key);

// hot_flush takes what a track has in the cache of encrypted segments out of it; hot_keep cools, and flushes tracks of epochs
// that have ended. The keeper's.
void hot_flush(struct catalog *c, struct protected_track *t);
void hot_keep(struct catalog *c);

// catalog_fill reads a cache's block (track with a hold, ref, src_off, src_len) and wakes job->wait; false: too much queued.
// do_fill, do_bypass and do_open are helper threads' jobs. catalog_start_reader: where io_uring can be had.
bool catalog_fill(struct catalog *c, const struct job *j);
void do_fill(struct catalog *c, const struct job *j);
void do_bypass(struct catalog *c, const struct job *j);
void do_open(struct catalog *c, const struct job *j);
void catalog_start_reader(struct catalog *c, unsigned num_files);
void catalog_wake_keeper(struct catalog *c);

void *catalog_help(void *catalog); // a helper thread
void *catalog_keep(void *catalog); // the keeper

uint64_t clock_mono_ms(void);
uint64_t clock_unix_ms(void);
