// What the verifier's parts share: one response under comparison.
#pragma once
#include "base/reader.h"
#include "load/verify.h"

struct iv_table;

struct vtenc {
  uint8_t kid[16], const_iv[16];
  uint8_t iv_size; // 0: the constant IV
};

struct verify_init {
  struct vtenc tenc;
  struct verify_place place;
  const struct verify_track *track;
  struct aes_key key;
  bool clear;
  uint32_t default_size;
  uint64_t name, digest[2]; // hash of the path; of the bytes
  struct verify_init *next;
};

struct check {
  struct verifier *v;
  const struct verify_response *r;
  const struct verify_track *track;
  const struct aes_ops *ops;
  const struct verify_init *init;
  struct verify_place place;
  uint64_t sample, first_sample, end_sample; // numbers within the clear track: next, first and end of the segment
  uint64_t first_iv, num_iv;
  uint64_t told_iv;   // of them, which one's place is noted, and
  size_t told_iv_at;  // its offset in the response
  uint32_t frag, traf; // of the source, whose boxes are being compared; how many trafs of it have been
  uint8_t *is_sample; // of each byte of a segment, 1: it has been compared as a sample's
  char *what;
  size_t cap;
};

// wrong writes "PATH: text" and returns false.
bool wrong(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct vbox {
  uint32_t type;
  uint32_t head_len;
  size_t at;          // of its header, in the whole
  struct reader body;
};

// vbox_next takes the next box of `r`; false at the end, or when it cannot be read (then something is left).
bool vbox_next(struct reader *r, struct vbox *b);

// check_samples decrypts every sample of a segment and compares it with the source's.
bool check_samples(struct check *c);

// check_boxes compares all that is not sample data with the source: the boxes of the segment's fragments, in order.
bool check_boxes(struct check *c, uint32_t first_frag, uint32_t end_frag);

// check_init_boxes compares an init segment with the source's, read from `source`.
bool check_init_boxes(struct check *c, struct bytes source);

// check_pssh compares the pssh boxes of an init segment whose boxes can be read with those of the key set.
bool check_pssh(struct check *c);

// verify_world_of gives what is outside the layer.
const struct verify_world *verify_world_of(const struct verifier *v);

// vtenc_read finds the track encryption box of an init segment. A scan is enough: its fields are checked by what they do.
bool vtenc_read(struct vtenc *out, struct bytes init);

// iv_table_new takes room for the IVs of `max_segments` segments, shared with processes forked later.
struct iv_table *iv_table_new(uint32_t max_segments);
void iv_table_free(struct iv_table *t);

// iv_table_add notes the IVs [first, first + num) under `kid` for the place `name`. False: one of them was seen elsewhere;
// *at is how far into them, *other the end of the place's path.
bool iv_table_add(struct iv_table *t, const uint8_t kid[16], uint64_t first, uint64_t num, const char *name, uint64_t *at,
                  char other[160]);

// iv_table_full says whether there was no room to note some.
bool iv_table_full(struct iv_table *t);
