// What every fuzz target needs: its entry, and a check that says what failed before it ends the process.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// require ends the process with `what` unless it is `ok`.
static inline void require(int ok, const char *what) {
  if (ok)
    return;
  fprintf(stderr, "%s\n", what);
  abort();
}

// MUST(x) is require with the condition as its own text.
#define MUST(x) require(!!(x), #x)

// Where the boxes of an input are: behind `head` bytes, before `tail` ones. Of targets that have the mutator boxes_mutator.c.
struct fuzz_boxes {
  size_t head, tail;
};
extern const struct fuzz_boxes fuzz_boxes;
