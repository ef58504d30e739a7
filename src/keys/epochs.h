// Key epochs as rules: how often has this asset been rotated, by itself, by a folder above it, or with everything.
// There is never a row for a track: rotating a million assets is one event, and looking an asset up costs one hash
// probe for each of its path segments.
//
//   current epoch of an asset = base + number of rotations whose scope covers it
//
// An event is a rotation of a scope at a time. Event number k (from 1, over the merged history of the scopes that
// cover an asset) ends that asset's epoch base + k - 1: it stays in grace for the event's grace, then it is
// expired; with `revoke` it and everything before it stop at once.
//
// Pure data: times are the caller's (Unix, ms), events are applied in order of `seq`, and the same events give the same answers
// on every node. The journal that keeps them is the caller's too; here is its line format.
#pragma once
#include "base/alloc.h"
#include "base/err.h"
#include "base/writer.h"

enum { EPOCH_MAX_SCOPE = 1024, EPOCH_MAX_DEPTH = 59, EPOCH_MAX_LINE = 4096, EPOCH_MAX_GRACE_DAYS = 365 };

enum epoch_status {
  EPOCH_CURRENT,
  EPOCH_GRACE,   // answered, until `until_ms`
  EPOCH_EXPIRED, // 410
  EPOCH_REVOKED, // 410
  EPOCH_UNKNOWN, // 404: never was, or is not yet
};

// A scope is "" (everything), a prefix ending in '/', or one asset's name.
struct epoch_event {
  uint64_t seq;      // from 1, ascending
  uint64_t time_ms;
  uint64_t grace_ms;
  struct bytes scope;
  bool revoke;
  uint64_t slot_ms;  // the moment of the scope's schedule that this rotation is for; 0: it was ordered
};

struct epochs;

// epochs_new gives an empty set of rules whose assets are all in epoch `base`. Memory comes from `mem`, now and on
// every later apply. NULL when there is none.
struct epochs *epochs_new(struct alloc *mem, uint32_t base);

// epochs_next_seq is the number that the next event must carry.
uint64_t epochs_next_seq(const struct epochs *e);

// epochs_scope_ok checks a scope's form: length, depth, no empty or dot segments, no zero byte. Errors: ERR_ARGUMENT, ERR_LIMIT.
MUST_USE enum err epochs_scope_ok(struct bytes scope, struct diag *diag);

// epochs_scope_served is that, and that URLs can have its names. What comes from people is held to it, not what a journal has.
MUST_USE enum err epochs_scope_served(struct bytes scope, struct diag *diag);

// epochs_covers says whether a scope is of an asset.
bool epochs_covers(struct bytes scope, struct bytes asset);

// epochs_check says whether an event may be applied: its seq, its scope.
// Errors: ERR_ARGUMENT, ERR_LIMIT.
MUST_USE enum err epochs_check(const struct epochs *e, const struct epoch_event *ev, struct diag *diag);

// epochs_apply adds one event (its scope is copied). Unchanged on failure. Errors: those of epochs_check, ERR_NO_MEMORY.
MUST_USE enum err epochs_apply(struct epochs *e, const struct epoch_event *ev, struct diag *diag);

// epochs_current gives an asset's epoch.
uint32_t epochs_current(const struct epochs *e, struct bytes asset);

// epochs_status says what an epoch of an asset is at `now_ms`; *until_ms (may be NULL) is when that may change,
// UINT64_MAX when only a rotation can change it.
enum epoch_status epochs_status(const struct epochs *e, struct bytes asset, uint32_t epoch, uint64_t now_ms,
                                uint64_t *until_ms);

// epochs_slot is the last moment of a scope's schedule (keys/schedule.h) that was acted on; 0 when there was none.
// epochs_set_slot sets it without rotating: where a schedule begins. Errors: those of epochs_scope_ok, ERR_NO_MEMORY.
uint64_t epochs_slot(const struct epochs *e, struct bytes scope);
MUST_USE enum err epochs_set_slot(struct epochs *e, struct bytes scope, uint64_t slot_ms, struct diag *diag);

// Journal lines, each self-checked:
//   "sluice1 rotate SEQ TIME GRACE REVOKE SCOPE CHECKSUM\n"      ordered
//   "sluice1 scheduled SEQ TIME GRACE SLOT SCOPE CHECKSUM\n"     rotation and slot in one: never one without the other
//   "sluice1 slot SLOT SCOPE CHECKSUM\n"
// Scopes are percent-encoded, the checksum is XXH3-64 of everything before it, in hex.
void epochs_write_event(struct writer *w, const struct epoch_event *ev);
void epochs_write_slot(struct writer *w, struct bytes scope, uint64_t slot_ms);

// epochs_write_all writes the whole state at `now_ms` as lines, for a compacted journal: first what has expired as
// counts ("sluice1 base …"), then the events that still matter. `tmp` gives 16 bytes for each of these.
// Errors: ERR_NO_MEMORY.
MUST_USE enum err epochs_write_all(struct writer *w, const struct epochs *e, uint64_t now_ms, struct alloc *tmp);

// epochs_read_line applies one line (with or without its line feed) of a journal. A torn or altered line is
// ERR_CHECKSUM and changes nothing.
// Errors: ERR_CHECKSUM, ERR_SYNTAX, ERR_LIMIT, ERR_ARGUMENT (out of order), ERR_NO_MEMORY.
MUST_USE enum err epochs_read_line(struct epochs *e, struct bytes line, struct diag *diag);

// epochs_walk calls `each` for every rule that has events or counts: scope and how many rotations it has seen.
void epochs_walk(const struct epochs *e, void (*each)(void *ctx, struct bytes scope, uint64_t rotations), void *ctx);
