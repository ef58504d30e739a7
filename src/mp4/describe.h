// The fields of boxes, by name: one table of descriptions, for inspection only.
#pragma once
#include "mp4/box.h"

enum field_kind {
  FIELD_UINT, // u
  FIELD_INT,  // i
  FIELD_FLAGS, // u, best shown in hexadecimal
  FIELD_TEXT, // raw, printable or not
  FIELD_HEX,  // raw
  FIELD_LIST, // a list called `name` begins; FIELD_ITEM and FIELD_ITEM_END around each of its items
  FIELD_ITEM,
  FIELD_ITEM_END,
  FIELD_LIST_END,
  FIELD_KIND_COUNT
};

struct field {
  const char *name;
  size_t name_len;
  enum field_kind kind;
  uint64_t u;
  int64_t i;
  struct bytes raw;
};

struct describe {
  void *ctx;
  void (*field)(void *ctx, const struct field *f);
  uint8_t iv_size; // of senc entries, from the track's tenc
};

// describe_knows says whether there is a description for boxes of this type; of audio sample entries it covers the
// head.
bool describe_knows(uint32_t type);

// describe_box calls `field` for each field of a payload (children left out). Fields that are cut off end it.
// Errors: ERR_TRUNCATED.
enum err describe_box(const struct describe *d, uint32_t type, struct bytes payload);
