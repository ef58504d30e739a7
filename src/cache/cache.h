// Clear segments in RAM, one copy for all workers, bounded. A hit takes no lock; a miss takes a short one. Memory is
// taken at start and cut into regions that are filled from front to back, first those of a small probation part;
// what is asked for again there is moved to the main part when its region is emptied, the rest is forgotten but for its
// name (S3-FIFO: Yang et al., SOSP 2023). Regions are emptied ahead of need by cache_tend, on another thread.
//
// A key is (source, segment) where `source` names one state of one file: bytes under a key never change.
#pragma once
#include "base/err.h"
#include "cache/quiet.h"

struct cache;
struct cache_node;

// One bound on the memory of several caches: regions with the tables that describe them are granted out of it, and go back
// when another cache has more use for them.
enum { CACHE_BUDGET_MAX = 4 };
struct cache_budget {
  uint64_t limit;
  _Atomic uint64_t used; // granted
  uint64_t returning;    // of that, on its way back; the tending thread's
  struct cache *member[CACHE_BUDGET_MAX];
  unsigned num_members, contests;
};

enum cache_got {
  CACHE_HIT,    // out->data is good until the worker's next quiet point
  CACHE_FILL,   // the caller reads `len` bytes to out->data and then calls cache_fill_done, whatever happened
  CACHE_WAIT,   // somebody else is filling: w->ready will be called
  CACHE_BYPASS, // no room now, or too large: the caller reads into memory of its own
};

struct cache_ref {
  uint8_t *data;
  struct cache_node *node;
};

struct cache_waiter {
  void (*ready)(struct cache_waiter *w); // on the filler's thread; then ask again (a failed fill: whoever asks first fills)
  struct cache_waiter *next;
};

struct cache_counts {
  uint64_t fills, evicted, promoted, bypassed;
  uint64_t bytes, blocks; // held now
  uint64_t granted;       // memory it may use: its regions with their tables, full or not
};

struct cache_options {
  uint64_t size;               // the most it may ever hold, its tables included
  struct cache_budget *budget; // shared with others, zeroed but for `limit` before the first; NULL: `size` is its own
  struct quiet *quiet;
  // Over a memory file, so that blocks can be sent with sendfile: at cache_offset of a reference. A region that is emptied is
  // punched out of the file: what the network stack still holds of it stays what it was.
  bool file;
  bool huge_pages;             // ask for them
};

// cache_open takes address space; pages are used as they fill. NULL: out of memory, or no room in the budget for tables and
// the few regions that it cannot do without. Caches of one budget are opened, tended and freed by one thread.
struct cache *cache_open(const struct cache_options *o);

int cache_fd(const struct cache *c); // -1: plain memory
uint64_t cache_offset(const struct cache *c, const struct cache_ref *ref);
void cache_free(struct cache *c); // no worker may be running. NULL is a no-op.

// cache_peek is the hit alone: false when the block is not there, or not yet.
bool cache_peek(struct cache *c, struct cache_ref *out, uint64_t source_id, uint32_t segment, uint32_t len);

// cache_look is cache_peek without counting as a use of the block: for a use that is still to come.
bool cache_look(struct cache *c, struct cache_ref *out, uint64_t source_id, uint32_t segment, uint32_t len);

// cache_get: `w` NULL: do not wait, CACHE_BYPASS when somebody else is filling.
enum cache_got cache_get(struct cache *c, struct cache_ref *out, uint64_t source_id, uint32_t segment, uint32_t len,
                         struct cache_waiter *w);

// cache_fill_done ends a CACHE_FILL: the bytes become visible (ok) or the place is given up. Wakes who waits.
// With ok, ref->data stays good until the caller's next quiet point.
void cache_fill_done(struct cache *c, struct cache_ref *ref, bool ok);

// cache_forget makes a block unreachable; whoever has it may go on reading until the next quiet point. One that is being
// filled stays. Its memory comes back with its region. By the tending thread.
void cache_forget(struct cache *c, uint64_t source_id, uint32_t segment, uint32_t len);

// cache_region gives the region that holds a reference: its number, and in `base` and `len` where it lies.
unsigned cache_region(const struct cache *c, const struct cache_ref *ref, uint8_t **base, size_t *len);
unsigned cache_num_regions(const struct cache *c);

// cache_on_give_up has `fn` called before a region's pages go back to the system, by the tending thread.
void cache_on_give_up(struct cache *c, void (*fn)(void *ctx, unsigned region), void *ctx);

// cache_ask asks memory for where the table's search for a segment begins. To be called some hundred nanoseconds before.
void cache_ask(const struct cache *c, uint64_t source_id, uint32_t segment);

// cache_tend empties regions, its own or those of a cache of the same budget that are worth less, until enough are free; returns
// true when it must be called again soon (regions wait for quiet points). Call it from one thread that also calls quiet_reclaim, a few hundred times a second while it says true,
// and whenever cache_wants_tending.
bool cache_tend(struct cache *c);
bool cache_wants_tending(const struct cache *c);

void cache_stats(struct cache *c, struct cache_counts *out);
