// How an error names a file that cannot be read or written: from the root, for who reads it may not know the working folder.
#pragma once
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

enum { TOLD_PATH = 4096 };

// told_path gives `path` itself where it begins at the root, or where no more is known. errno stays.
static inline const char *told_path(char out[TOLD_PATH], const char *path) {
  char folder[TOLD_PATH];
  int before = errno;
  bool known = path[0] && path[0] != '/' && getcwd(folder, sizeof folder);
  int n = known ? snprintf(out, TOLD_PATH, "%s/%s", folder, path) : -1;
  errno = before;
  return n > 0 && n < TOLD_PATH ? out : path;
}

// Good to the end of the block.
#define TOLD(path) told_path((char[TOLD_PATH]){0}, path)
