// CPIX documents (DASH-IF CPIX 2.3 and 2.4): content keys and DRM data of one content, as XML. The same documents
// carry SPEKE's questions and answers. No I/O; DTDs and entities are refused; every count is bounded.
#pragma once
#include "base/alloc.h"
#include "base/err.h"
#include "base/writer.h"
#include "keys/keys.h"

enum {
  CPIX_MAX_DOC = 1 << 20,
  CPIX_MAX_DEPTH = 16,
  CPIX_MAX_KEYS = 256,
  CPIX_MAX_SYSTEMS = 2048,
  CPIX_MAX_RULES = 512,
  CPIX_MAX_TEXT = 128 << 10, // characters of one element
};

struct cpix_key {
  uint8_t kid[16], key[16], iv[16];
  bool has_key, has_iv;
  enum scheme scheme;      // SCHEME_CLEAR: the document does not say
  struct bytes content_id; // the key's own, where the document names several contents (CPIX 2.4); else ""
};

// What a document holds for one system and key: decoded, checked (keys/given.h), in `mem`.
struct cpix_system {
  uint8_t kid[16];
  enum drm_system system; // systems that are not known here are left out
  struct drm_given given;
};

struct cpix_rule {
  uint8_t kid[16];
  struct bytes track_type; // intendedTrackType; "AUDIO", "ALL", …
  struct bytes label;      // of a LabelFilter; "" without
  bool video, audio;       // has a VideoFilter, an AudioFilter
};

struct cpix {
  struct bytes content_id, version;
  struct cpix_key *keys;
  struct cpix_system *systems;
  struct cpix_rule *rules;
  uint32_t num_keys, num_systems, num_rules;
};

// cpix_parse reads a document. Keys and texts come from `mem`; wipe with cpix_wipe. Refused: what is not well-formed,
// another namespace's root, a DTD, encrypted key values, KIDs, keys or IVs of a wrong size, two keys for one KID, two
// entries for one system and KID, DRM data for a KID without a key, DRM data that does not pass keys/given.h.
// Errors: ERR_SYNTAX, ERR_LIMIT, ERR_MALFORMED, ERR_UNSUPPORTED, ERR_NO_MEMORY; diag->at is the byte.
MUST_USE enum err cpix_parse(struct alloc *mem, struct cpix *out, struct bytes doc, struct diag *diag);
void cpix_wipe(struct cpix *c);

// cpix_is_for_audio says whether audio may have a key: a usage rule of it holds for audio, or it has none.
bool cpix_is_for_audio(const struct cpix *c, const uint8_t kid[16]);

// cpix_import makes key records of a document's keys for audio; others are passed over. Asset = contentId of the key,
// else of the document; label of the key's rule; the given epoch. `scheme` is for keys whose scheme the document does not say (SCHEME_CLEAR: refuse them). `num` is
// out's capacity on entry.
// Errors: those of cpix_parse, ERR_NO_KEY (none is for audio), ERR_NO_SPACE, ERR_MISSING (a key has no value, or no scheme).
MUST_USE enum err cpix_import(struct alloc *mem, struct key_record *out, uint32_t *num, struct bytes doc, uint32_t epoch,
                              enum scheme scheme, struct diag *diag);

// cpix_export appends a document (version 2.3 or 2.4) with the keys of one asset in the clear, their DRM data as
// `set` signals it, and a usage rule for each. Records are all of one asset.
void cpix_export(struct writer *w, const struct key_record *keys, uint32_t num, const struct drm_settings *set,
                 bool v24);
