// What the files of decryption share: the tracks of a moov, the map from input to output, trafs.
#pragma once
#include "base/writer.h"
#include "cenc/unprotect.h"
#include "mp4/box.h"

enum {
  UNP_MAX_TRACKS = 32,
  UNP_MAX_ENTRIES = 16,      // sample entries of a track
  UNP_MAX_GROUPS = 1 << 12,  // seig descriptions of one sgpd
};

// tenc, or one seig description. Source: ISO/IEC 23001-7 §8.2, §6.
struct tenc {
  bool protected;
  uint8_t iv_len, const_iv_len; // bytes
  struct aes_pattern pattern;
  uint8_t kid[16], const_iv[16];
};

struct entry {
  uint32_t scheme; // 0: not protected
  struct tenc tenc;
};

struct track {
  uint32_t id, num_entries;
  uint32_t default_entry, default_size; // trex
  bool has_trex;
  struct bytes seig;                    // body of stbl's sgpd of that type
  struct entry entries[UNP_MAX_ENTRIES];
};

// A top-level box and where it goes.
struct part {
  uint64_t in_off, out_off;
  uint32_t head_len, type;
};

struct unp {
  const struct unprotect_input *in; // its file is `data`
  struct diag *diag;
  uint8_t *data;
  struct part *parts; // num_parts + 1
  size_t num_parts;
  struct track *tracks;
  uint32_t num_tracks;
  struct sgpd *sgpds[2]; // of the track and of the traf that were looked into last; NULL before
  bool any_protected;
  uint64_t samples, sample_bytes, aux_bytes; // seen so far: bounded by the file's length
  const struct unprotect_stream *stream; // NULL: the file is in memory, and so is the output
  uint64_t top;                   // where the newest top-level box is
  uint64_t group, group_end;      // input that the current moof's samples should lie in: up to the next moof or moov
  bool loaded;                    // the current group is in memory, maybe decrypted: nothing of it is read again
  bool dry;                       // samples are looked at, not decrypted
  bool scattered;                 // some lie elsewhere, or what protects them does
};

// unp_fail records a fault at an input position (NULL: it has none), with the boxes around it. `type`: of the box whose
// payload begins there; 0 where a box would begin that cannot be read.
enum err unp_fail(const struct unp *u, enum err e, const uint8_t *at, uint32_t type, const char *what);

static inline struct reader unp_reader(const struct unp *u, struct bytes body) {
  return (struct reader){body.p, body.n ? body.p + body.n : body.p, u->in->file.p, ERR_OK};
}

// unp_next is box_next that records the fault; false at the end or on failure (*e says which).
bool unp_next(const struct unp *u, struct box *b, struct reader *r, enum err *e);

// unp_load gets input bytes [pos, pos + len) into memory, when they are not there.
MUST_USE enum err unp_load(const struct unp *u, uint64_t pos, uint64_t len);

// unp_belongs notes where input bytes [pos, pos + len) lie outside of the current moof's group.
void unp_belongs(struct unp *u, uint64_t pos, uint64_t len);

// unp_map gives the output offset of an input offset (clamped inside boxes that are rewritten).
uint64_t unp_map(const struct unp *u, uint64_t pos);

// unp_part_start gives where the file (of a folder) that holds input offset `pos` begins.
uint64_t unp_part_start(const struct unp *u, uint64_t pos);

// unp_in_data says whether input bytes [pos, pos + len) lie in one box that is copied as it is, behind its head.
bool unp_in_data(const struct unp *u, uint64_t pos, uint64_t len);

// Copying a box while its children change: unp_open copies head and `skip` bytes of payload, unp_close writes the
// size that came out.
size_t unp_open(struct writer *w, const struct unp *u, const struct box *b, size_t skip);
void unp_close(struct writer *w, const struct box *b, size_t at);
void unp_copy(struct writer *w, const struct unp *u, const struct box *b);

// unp_is_seig says whether an sgpd or sbgp body is of grouping type seig.
bool unp_is_seig(struct bytes body);

// A traf's data runs: where each trun's samples are. Both walks over a moof (rewriting, decrypting) go through it.
struct traf {
  struct box box;
  uint32_t tfhd_flags, track_id, entry, default_size; // entry counts from 1
  uint64_t base;       // input offset that data offsets count from
  uint64_t data_end;   // behind the newest trun's data
  const uint8_t *base_field; // tfhd's base_data_offset in the input, or NULL
  const struct track *track; // NULL: not in moov
};

struct trun {
  uint32_t flags, num, stride, size_at; // of one sample's fields; size_at: where its size is, if flags say so
  const uint8_t *fields;
  const uint8_t *offset_field; // data_offset in the input, or NULL
  uint64_t pos, len;           // input bytes of its samples
};

// traf_open reads tfhd. `prev_end`: where the data of the traf before ended, or the moof's start.
MUST_USE enum err traf_open(struct traf *t, const struct unp *u, const struct box *moof, const struct box *b,
                            uint64_t prev_end);
// trun_open reads one trun and moves t->data_end behind its data.
MUST_USE enum err trun_open(struct trun *out, struct traf *t, const struct unp *u, const struct box *b);

static inline uint32_t trun_size(const struct trun *r, const struct traf *t, uint32_t i) {
  return r->flags & 0x200 ? load_be32(r->fields + (size_t)i * r->stride + r->size_at) : t->default_size;
}

// moov_read fills u->tracks; moov_copy and moof_copy append the rewritten box (to a counting writer too).
MUST_USE enum err moov_read(struct unp *u, const struct box *moov);
MUST_USE enum err moov_copy(struct writer *w, const struct unp *u, const struct box *moov);
MUST_USE enum err moof_copy(struct writer *w, const struct unp *u, const struct box *moof);

// tenc_read parses a tenc (`seig` false) or a seig description (true).
MUST_USE enum err tenc_read(struct tenc *out, struct reader *r, bool seig);

// sample_crypt is how one sample is protected: its IV (zero-extended to 16 bytes) and clear/protected pairs.
struct sample_crypt {
  uint32_t scheme;
  const struct tenc *tenc;
  const struct aes_key *key;
  uint8_t iv[16];
  uint32_t num_subs;   // 0: the whole sample
  const uint8_t *subs; // 6 bytes each: be16 clear, be32 protected
};

// Whole samples of the same kind wait here, so that the kernels get many at once. Zeroed: empty.
enum { BATCH_SAMPLES = 256 };
struct batch {
  uint32_t num;
  bool cbc;
  const struct aes_key *key;
  uint8_t *at;        // the first sample
  size_t len;         // bytes from there to the end of the newest
  uint8_t cbc_iv[16];
  struct aes_lane lanes[BATCH_SAMPLES];
  uint32_t sizes[BATCH_SAMPLES];
  uint8_t ivs[BATCH_SAMPLES][16];
};

// sample_check says whether a sample's subsamples add up to len (else ERR_MALFORMED).
MUST_USE enum err sample_check(uint32_t len, const struct sample_crypt *c);
// sample_decrypt decrypts one sample or adds it to the batch, when it is right.
MUST_USE enum err sample_decrypt(struct batch *b, const struct aes_ops *ops, uint8_t *at, uint32_t len, const struct sample_crypt *c);
void batch_flush(struct batch *b, const struct aes_ops *ops);

// moof_decrypt decrypts the samples of a moof, where they stand in the input; with u->dry it finds what would fail.
MUST_USE enum err moof_decrypt(struct unp *u, const struct box *moof);
void groups_forget(struct unp *u); // what was found in sample groups, before moov is read again
