// Decryption: an encrypted fragmented file in, the clear one out.
//
// Knows the four schemes of Common Encryption (cenc, cens, cbc1, cbcs): full samples, subsamples and patterns, IVs
// of 8 and 16 bytes and constant ones, senc, PIFF's uuid and saiz/saio, sample groups `seig` (key rotation, clear
// lead), several sample entries, several tracks with several keys. Boxes that are not understood are kept.
//
// The output lacks sinf, pssh, senc, saiz and saio (of any kind), seig groups and mfra; sample entries have their original type;
// sizes, data offsets and sidx follow. It is never longer than the input.
// Source: ISO/IEC 23001-7, 14496-12.
#pragma once
#include "base/alloc.h"
#include "base/err.h"
#include "simd/aes.h"

struct content_key {
  uint8_t kid[16];
  struct aes_key key;
};

struct unprotect_input {
  struct bytes file;              // all of it: one file, or an init segment with media segments behind it; `out` may be its memory
  const uint64_t *part_ends;      // where these end, ascending (num_parts of them; 0: one file): absolute offsets count from
                                  // the start of their own. The output is one file
  uint32_t num_parts;
  const struct content_key *keys;
  size_t num_keys;
  const struct aes_ops *ops;
  struct alloc *mem;              // for a table of the top-level boxes (24 bytes each) and two of 2 KiB a track, the longest
                                  // moov or moof, and where samples have groups, two of 16 KiB
  void (*step)(void *ctx, uint64_t done); // input bytes behind us, now and then; may be NULL
  void *step_ctx;
};

// Where not all of the file is to be in memory: `file.p` is room for it, and these bring parts of it there and take the output.
// What was loaded stays until it is forgotten. Their errors end it all.
struct unprotect_stream {
  void *ctx;
  enum err (*load)(void *ctx, uint64_t pos, uint64_t len);
  void (*forget)(void *ctx, uint64_t pos, uint64_t len); // in one pass after the other over the file, ascending in each
  enum err (*write)(void *ctx, const uint8_t *p, size_t n);
};

// unprotect writes the clear file to `out`, which holds in->file.n bytes, and its length to *out_len. `out` is in->file.p, so that
// the file is in memory once, or does not overlap it. Samples do not overlap; where they do, what comes out is noise.
// Samples that are marked as clear stay as they are. On failure the contents of `out` mean nothing.
// Errors: ERR_NOT_PROTECTED (no protected sample entry), ERR_NO_KEY (what: the KID), ERR_PROGRESSIVE,
// ERR_UNSUPPORTED (scheme), ERR_TRUNCATED, ERR_MALFORMED, ERR_OVERFLOW, ERR_LIMIT, ERR_MISSING, ERR_NO_MEMORY.
MUST_USE enum err unprotect(uint8_t *out, size_t *out_len, const struct unprotect_input *in, struct diag *diag);

// unprotect_stream does the same with one fragment in memory at a time: a moof and what follows up to the next one. Where samples
// or what protects them lie elsewhere, all of the file is loaded. `room` is in->file.p. The file is read several times; nothing is
// written before all of it is right. Errors: as above, ERR_IO (it is not what it was before), what the functions return.
MUST_USE enum err unprotect_stream(uint8_t *room, const struct unprotect_stream *s, const struct unprotect_input *in, struct diag *diag);
