// Errors of the core: one table gives name and text. Input faults are errors, never asserts.
#pragma once
#include "base/bytes.h"

#define ERR_TABLE(X)                                                                                             \
  X(ERR_OK, "no error")                                                                                          \
  X(ERR_TRUNCATED, "the data ends before the structure does")                                                    \
  X(ERR_MALFORMED, "the structure contradicts itself")                                                           \
  X(ERR_OVERFLOW, "a number is out of range")                                                                    \
  X(ERR_LIMIT, "a limit of this program is exceeded")                                                            \
  X(ERR_UNSUPPORTED, "this kind of input is not supported")                                                      \
  X(ERR_PROTECTED, "the input is already encrypted")                                                             \
  X(ERR_NOT_PROTECTED, "the input is not encrypted")                                                             \
  X(ERR_PROGRESSIVE, "the input is not fragmented (its samples are in moov)")                                    \
  X(ERR_NOT_AUDIO, "the track is not audio")                                                                     \
  X(ERR_MISSING, "a required structure is missing")                                                              \
  X(ERR_STALE, "the sidecar belongs to another state of the source")                                             \
  X(ERR_CHECKSUM, "the checksum does not match")                                                                 \
  X(ERR_NO_MEMORY, "out of memory")                                                                              \
  X(ERR_NO_SPACE, "the buffer is too small")                                                                     \
  X(ERR_IO, "reading or writing failed")                                                                         \
  X(ERR_DENIED, "its permissions do not allow it")                                                               \
  X(ERR_NO_KEY, "no key for this KID")                                                                           \
  X(ERR_KEY_REUSE, "one key would serve two schemes")                                                            \
  X(ERR_NOT_FOUND, "not found")                                                                                  \
  X(ERR_SYNTAX, "the text cannot be parsed")                                                                     \
  X(ERR_ARGUMENT, "an argument is out of its domain")                                                            \
  X(ERR_BUSY, "somebody else is at it")

enum err {
#define X(name, text) name,
  ERR_TABLE(X)
#undef X
      ERR_COUNT
};

// err_name returns "ERR_…", err_text the sentence of the table; both for any value.
const char *err_name(enum err e);
const char *err_text(enum err e);

#define MUST_USE __attribute__((warn_unused_result))

// Where and what: filled by whoever finds the fault, shown by whoever owns the terminal or log.
// `path` lists box types from the outermost, `num_path` of them; `at` is a byte offset in the source. `nowhere`: the fault
// has no position (a file that cannot be opened, a name that is wrong), and `at` is 0.
struct diag {
  enum err err;
  uint32_t num_path;
  uint32_t path[12];
  uint64_t at;
  bool nowhere;
  char what[160]; // one sentence without a full stop, may be empty: then err_text(err)
};

// diag_set records a fault once (the first one wins) and returns `e`, so that `return diag_set(…)` reads well.
enum err diag_set(struct diag *d, enum err e, uint64_t at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

// diag_say records a fault that has no position, otherwise as diag_set.
enum err diag_say(struct diag *d, enum err e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// diag_format writes "what is wrong (at byte N, box moof/traf/trun)" NUL-terminated into `out`, without the brackets where
// there is no position.
void diag_format(const struct diag *d, char *out, size_t cap);
