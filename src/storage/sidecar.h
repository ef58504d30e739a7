// Clear media on disk and its index: open a file or a folder as one source address space, and get its index from
// the sidecar when that is valid and belongs to it, else by parsing it.
//
// A track is a file (`<track>.mp4`, sidecar `<track>.mp4.slx`) or a folder with `init.mp4` and `*.m4s`
// (sidecar `<folder>.slx` beside the folder). Parts of a folder are in natural order of their names: runs of
// digits compare as numbers.
#pragma once
#include "mp4/index.h"

// Where a path is looked up. `root_fd` AT_FDCWD: a path as the user of the command line gave it, not confined.
// Else an open folder: nothing outside it is ever opened, symbolic links included (openat2 RESOLVE_BENEATH).
struct media_path {
  int root_fd;
  const char *path; // relative to root_fd
};

// An open source. `src` reads through one cached file descriptor: one thread at a time.
// The struct must not move between media_open and media_close.
struct media_source {
  struct mp4_source src;
  struct ix_identity id;    // digest is zero until media_digest or media_index filled it
  struct media_path at;     // path is a copy
  uint32_t num_parts;       // 1 for a file
  uint64_t *part_ends;      // as in IX_SEC_PARTS
  uint64_t *part_mtimes_ns; // what each part's mtime was when the source was opened
  uint64_t *part_marks;     // and its media_mark
  uint64_t newest_ctime_ns; // of the parts
  bool tells_changes;       // the file system gives ctimes that change with the bytes, finely enough
  char **names;             // of the parts: "init.mp4", "1.m4s" …; for a file its path
  int dir_fd;               // of a folder, else -1
  int fd;                   // of part `fd_part`, kept for the next read; a file's only descriptor
  uint32_t fd_part;
};

// media_open opens and measures; no media byte is read. On failure `*m` is safe to close and `diag` says why.
// Errors: ERR_NOT_FOUND, ERR_MISSING (a folder without init.mp4), ERR_DENIED, ERR_IO, ERR_NO_MEMORY, ERR_UNSUPPORTED
// (neither a regular file nor a folder).
MUST_USE enum err media_open(struct media_source *m, struct media_path at, struct diag *diag);
void media_close(struct media_source *m); // safe on a zeroed struct and twice

// media_open_at opens a path as media_open does (flags as of open, O_CLOEXEC added): a descriptor, or -1 and errno.
int media_open_at(struct media_path at, int flags);

// media_track_folder says whether the path is a folder that holds an init.mp4. Errors: ERR_NOT_FOUND (it is none, or not for us to read),
// ERR_MISSING (its segments are there, *.m4s, and no init.mp4), ERR_IO.
MUST_USE enum err media_track_folder(struct media_path at);
extern const char media_lacks_init[]; // says ERR_MISSING

// media_has_parts says whether the path is a folder with segments in it (*.m4s). Errors: ERR_NOT_FOUND (it has none), ERR_IO.
MUST_USE enum err media_has_parts(struct media_path at);

// media_is_track_name says whether a file's name has an extension of tracks: .mp4, .m4a, .cmfa.
bool media_is_track_name(const char *name);

// media_part_at says which of `num_parts` parts, one at least, holds source address `off`; what lies behind the end is the last's.
uint32_t media_part_at(const uint64_t *part_ends, uint32_t num_parts, uint64_t off);

// media_fault_part gives the name of the part that a fault of a folder lies in, from whose start diag->at counts then. NULL: a file, or a
// fault without a place.
const char *media_fault_part(const struct media_source *m, struct diag *diag);

// media_read fills n bytes from source address `off`. Errors: ERR_IO, ERR_TRUNCATED (the source became shorter).
MUST_USE enum err media_read(struct media_source *m, uint64_t off, void *buf, size_t n);

// media_mark is what tells two states of a file apart that agree in size and mtime: a hash of ctime, inode and device.
// It differs for another file of that name, after every write, and also after chmod, rename or a new link, which leave the
// bytes as they are. Nobody can set it back. Of this process only: devices are numbered anew at every boot.
struct stat;
uint64_t media_mark(const struct stat *st);

// media_unchanged says whether every part still has the size, mtime and mark it had at media_open.
bool media_unchanged(const struct media_source *m);

struct media_progress {
  void (*step)(void *ctx, uint64_t done, uint64_t total); // bytes of the source; NULL: nobody looks
  void *ctx;
};

// media_digest computes SHA-256 over the source address space into m->id.digest.
MUST_USE enum err media_digest(struct media_source *m, struct media_progress progress, struct diag *diag);

struct index_options {
  int cache_fd;        // folder for sidecars where the media's own folder cannot be written; -1: none
  bool write;          // keep what was built as a sidecar; failing to is not an error (see `index.written`)
  bool rebuild;        // do not look at an existing sidecar
  bool no_digest;      // a missing digest is fine (cbcs, or an explicit IV): saves reading all of the source.
                       // Such an index is never written.
  size_t memory_limit; // bytes that building may take; 0: 1 GiB
  struct media_progress progress;
};

enum index_origin { INDEX_SIDECAR, INDEX_BUILT };

// An index with the memory behind it: a read-only copy of the sidecar or the heap.
struct index_file {
  struct track_index ix;
  enum index_origin origin;
  bool written;         // a sidecar was written by this call
  enum err sidecar_err; // why an existing sidecar was not used (ERR_STALE, ERR_CHECKSUM, …), or could not be
                        // written (ERR_IO); ERR_NOT_FOUND: there was none; ERR_UNSUPPORTED: none can be believed
                        // or is written, because the file system does not tell changes
  int write_errno;      // why it could not be written, in the place that was tried last; 0: it was, or was not to be
  void *map;
  size_t map_len;
  struct alloc_heap heap;
};

// index_load reads the sidecar of `m` when it is whole and made from exactly this state of the source, ctimes and inodes
// included; else parses the source and reads all of it for its digest. m->id.digest is filled from either. The index does not
// depend on `m` afterwards. Waits some milliseconds where a part was changed only just now.
// Errors: those of ix_build, ERR_STALE when the source changes meanwhile.
MUST_USE enum err index_load(struct index_file *out, struct media_source *m, const struct index_options *o,
                             struct diag *diag);
void index_free(struct index_file *f); // safe on a zeroed struct and twice
