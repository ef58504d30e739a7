// Inside the slow half of the catalogue: what catalog_build.c (tracks and their keys), catalog_text.c (manifests) and
// catalog_names.c (the names in an asset's folder) share. All of it runs on helper threads.
#pragma once
#include "server/catalog_int.h"

enum { PATH_BYTES = ROUTE_PATH_MAX + 16 };

// The names in an asset's folder that may be tracks and that a URL can have, in the order of the folder. list_asset fills one that
// is zeroed; free_names frees it after errors too. Errors: ERR_NOT_FOUND, ERR_DENIED, ERR_IO, ERR_NO_MEMORY.
struct names {
  char **at;
  size_t num, cap;
};
enum err list_asset(struct names *l, struct catalog *c, struct bytes asset, struct diag *diag); // diag NULL: nobody wants to know why
void free_names(struct names *l);

// Says what is wrong with a source; where storage fails, and so with all of them again and again, once a second.
void log_source(struct catalog *c, struct bytes path, enum err e, struct diag *diag);

// How much of a file's or folder's name is the track's name in URLs: files without their extension.
size_t track_name_len(const char *name);

// Whether "init" would be the init segment of a track that is a folder: what holds segments is no asset. Errors: as
// media_has_parts.
enum err is_track_itself(struct catalog *c, struct bytes asset, struct bytes track);

// What one build takes from others: keys, since all of its tracks are of one asset, epoch and scheme, and sources.
struct key_use {
  uint64_t opening;      // of a source that another thread opens; 0: none
  struct issued *issued; // held
  struct key_slot *slot; // pinned: being fetched
  uint64_t retry_ms;     // then: how long until asking makes sense, where that is known
  bool no_key;           // the same for what the answer is counted as
  struct kept opened;    // as many as there is room for
};

// Opens asset/track whatever form it has on storage; source_put gives it back. ERR_BUSY: use->opening is to be waited for.
enum err open_track(struct catalog *c, struct source **out, const struct settings *st, struct bytes asset, struct bytes track,
                    struct key_use *use);

struct protect_in {
  const struct settings *st;
  struct key_use *use;
  struct bytes asset;
  enum scheme scheme;
  uint32_t epoch;
  struct source *source;
};

// Looks the key up and makes protection and plan. `key` is filled for encrypting schemes; its slices point into `in`.
enum err protect(struct catalog *c, struct full_track *f, struct key_record *key, const struct protect_in *in);

// What the answer to an error is (CAT_OK with none), and what it is counted as where it is the media's fault (0: the status says it).
int status_of(enum err e);
uint8_t fault_of(enum err e);

// Makes the text of a manifest, playlist or key. `epoch` is the route's, or the current one.
void build_text(struct catalog *c, struct made *out, const struct settings *st, const struct route *r, uint32_t epoch,
                struct text_doc *old, struct key_use *use);
