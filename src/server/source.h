// One clear track in one state: its index, its segments, and how to read its bytes as they were when the index was made.
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "storage/sidecar.h"

// Who waits until somebody else has opened a source, or failed to.
struct source_wait {
  struct source_wait *next;
  void (*ready)(struct source_wait *w); // once, on the thread that opened it
};

struct source_part {
  char *path; // beneath the media root
  uint64_t size, mtime_ns;
  _Atomic uint64_t mark; // media_mark of a state that is proved to hold the bytes that were indexed
};

struct source {
  char *path;            // of the file or folder, beneath the media root
  int root_fd;           // borrowed
  uint64_t id;           // unique in this process
  _Atomic uint64_t stamp; // of the state on storage (storage/sidecar.h)
  int cache_fd;          // borrowed; with write_sidecar as in source_options
  bool write_sidecar;
  pthread_mutex_t proving;
  struct index_file index;
  struct ix_segments segs;
  uint64_t target_ms;    // that segs were made for
  struct source_part *parts;
  uint32_t num_parts;
  uint64_t *part_ends;
  uint64_t bytes;        // memory held
  _Atomic bool changed;  // a read found another state: never served again
  _Atomic uint32_t refs;
  struct source *next, *next_opening; // the table's
  struct source_wait *waits; // while it is being opened
  bool opening, listed;
  uint64_t hash;
};

struct source_options {
  uint64_t segment_target_ms;
  int cache_fd; // -1: none
  bool write_sidecar;
};

// The table of open sources, each opened once however many ask; helper threads only, it blocks.
struct sources;
struct sources *sources_new(int root_fd);
void sources_free(struct sources *ss); // all sources must be given back. NULL is a no-op.

// sources_get opens the track at `path`, or gives the one that is open when storage still has that state.
// `*from` says what was done. Give it back with source_put. Errors: those of media_open and index_load; ERR_BUSY: another thread is
// opening it, which may take as long as reading all of it. `*opening` stands for that.
enum source_from { SOURCE_OPEN, SOURCE_SIDECAR, SOURCE_BUILT };
MUST_USE enum err sources_get(struct sources *ss, struct source **out, enum source_from *from, const char *path,
                              const struct source_options *o, uint64_t *opening, struct diag *diag);
// sources_park: `w` is told when that opening is over. False: it is already.
bool sources_park(struct sources *ss, uint64_t opening, struct source_wait *w);
void source_ref(struct source *s);
void source_put(struct sources *ss, struct source *s);

// source_read fills n bytes from source address `off`, and proves before and after that the parts read are still in the
// state that was indexed; if not, marks the source changed. Errors: ERR_STALE, ERR_IO.
MUST_USE enum err source_read(struct source *s, uint64_t off, void *buf, size_t n);

// The same by steps, for who reads by itself. source_part_of: the part that holds source address `off`. source_part_open: a
// descriptor, -1 and errno. source_part_same: whether the file is in the state that was indexed. source_part_prove: the same,
// but where size and mtime are still those and the mark is not, the whole source is read and its digest decides: who changes
// a mode or makes a link cuts no response, who changes bytes does. It blocks; a source that fails is marked changed.
// source_part_span: what of [off, off + n) lies in the part, as an offset in its file and a length.
uint32_t source_part_of(const struct source *s, uint64_t off);
int source_part_open(const struct source *s, uint32_t part);
bool source_part_same(const struct source *s, uint32_t part, int fd);
bool source_part_prove(struct source *s, uint32_t part, int fd);
void source_part_span(const struct source *s, uint32_t part, uint64_t off, uint64_t n, uint64_t *file_off, uint64_t *len);

// sources_usage gives how many sources are open and the bytes they hold.
void sources_usage(struct sources *ss, uint64_t *num, uint64_t *bytes);
