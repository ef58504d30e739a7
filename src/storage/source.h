// One clear track on storage: the files whose concatenation is its source address space, with the identity they had when
// the index was made. Immutable.
#pragma once
#include <stdint.h>

struct media_file {
  const char *path; // beneath the media root, NUL-terminated
  uint64_t size, mtime_ns, ino;
};

struct track_files {
  int root_fd; // of the media folder
  uint32_t num_files;
  const struct media_file *files;
  const uint64_t *ends; // ascending: where each file ends in the source address space
};
