// The catalogue without a network: the test's thread plays the worker. Storage is what it is told to be (--wrap of media_open).
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "server/catalog.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "synth.h"

// Made anew for each case of the suite `catalog`: a folder with media and state in it, two tracks of album/song.
extern char dir[64], media[80], state[80];
extern struct obs_worker metrics[2]; // the worker's, the helpers'
extern struct config *_Atomic published;
extern struct catalog *cat;

extern _Atomic bool no_memlock;         // mlock fails
extern _Atomic unsigned unlocked_lines; // lines that say so

// The worker between two requests.
void quiet_point(unsigned worker);

struct waiting {
  struct cat_wait w; // first
  bool woken;        // under `lock`
};
extern pthread_mutex_t lock;

void wake(struct cat_wait *w);
void await(struct waiting *w);

void write_track(const char *name, const struct synth_options *o);
void put_file(const char *path, const char *text);
void start(const char *yaml);
struct config *reload(const char *yaml);

// Looks a path up as a worker does; the result has a hold. Returns the status.
int track(struct protected_track **out, const char *path);
int text(struct text_doc **out, const char *path);

// Renders a range piece by piece into `buf`; the status of the first piece that fails.
int render(struct protected_track *t, struct plan_range want, uint8_t *buf);
uint8_t *whole(struct protected_track *t);

// The same file by the shortest way: one read of the source, one call of plan_render.
uint8_t *direct(struct protected_track *t);

// Storage under the catalogue: as it is, failing at every look, or not answering at all (STORAGE_HANGS_UNKNOWN: about names below
// unknown/) until it is let go. Files are not read while `reading_hangs`.
extern struct storage {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  enum { STORAGE_WORKS, STORAGE_FAILS, STORAGE_HANGS, STORAGE_HANGS_UNKNOWN, STORAGE_ROTATES } state; // the last: another asset is rotated at every look
  unsigned hung, looks, readers;
  bool reading_hangs;
} storage;
extern int storage_errno; // of a folder while storage fails

void set_storage(int to);
void set_reading_hangs(bool yes);
unsigned storage_count(const unsigned *what);
