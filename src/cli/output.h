// A file that is being written and appears under its name only when it is whole.
#pragma once
#include <limits.h>
#include <sys/stat.h>

#include "storage/sidecar.h"

// A regular file is written without a name in its folder (or, where the file system cannot, under a temporary
// one) and takes its name in output_commit, with the mode of what had the name before. A symbolic link stays one: what
// it leads to is replaced. "-" is standard output; a device or pipe that is there already is written as it is, and so is
// a file that this process was started with (/dev/stdout, /dev/fd/3).
struct output {
  int fd;
  bool direct;           // written as it is: nothing to name, nothing to take back
  char path[PATH_MAX];   // as the user gave it, for messages
  char target[PATH_MAX]; // what takes the name: `path`, or the file that a link leads to
  char temp[PATH_MAX];   // a name to remove on failure, "" when it has none
  uint64_t written;
};

// output_open prints one line and returns false when `path` cannot be written, or is the file `in` (its stat; may be NULL)
// or lies in the folder `in`.
bool output_open(struct output *o, const char *path, const struct stat *in);

// output_write writes all of it, or prints one line and returns false.
bool output_write(struct output *o, const void *p, size_t n);

// output_commit gives the file its name, replacing what had it; output_drop leaves nothing behind. Both close.
bool output_commit(struct output *o);
void output_drop(struct output *o);

// What is read: a file, a folder with init.mp4 and *.m4s, or "-", standard input, of which a nameless copy is made first: while
// what comes are boxes, of at most half of what is free, there or in memory. What a box of size 0 has is to the end: media data may be
// as long as that, another kind (zeros behind a file are one) 16 MiB.
struct input {
  const char *subject; // its name for messages
  struct media_source media;
  int spool;     // the copy, or -1
  bool has_stat; // `stat` is the file's or folder's
  struct stat stat;
};

// input_open prints one line and returns false when it cannot be read. input_close is for both outcomes.
bool input_open(struct input *in, const char *path);
void input_close(struct input *in);

// input_error prints one line about a fault in a clear input, with the part of a folder that it lies in.
void input_error(const struct input *in, struct diag *d);
