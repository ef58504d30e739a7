// The virtual file: the encrypted file that a packager would have written, described and never stored.
//
//   output = init' ‖ sidx' ‖ fragment'0 ‖ fragment'1 ‖ …
//
// init' is the source's init with enca/sinf (and pssh); sidx' is generated, one reference per segment; each
// fragment' is the source's with its edit script run and its samples encrypted. The source's own sidx and mfra
// boxes are dropped. Every length and offset is arithmetic over the index: a plan holds no per-fragment memory.
// Source: ISO/IEC 23001-7 (Common Encryption), ISO/IEC 14496-12 §8.16.3 (sidx).
#pragma once
#include "mp4/index.h"

enum scheme { SCHEME_CLEAR, SCHEME_CENC, SCHEME_CBCS, SCHEME_COUNT };

// scheme_name gives "clear", "cenc", "cbcs"; scheme_parse the inverse. Errors: ERR_SYNTAX.
const char *scheme_name(enum scheme s);
MUST_USE enum err scheme_parse(enum scheme *out, struct bytes text);

struct protection {
  enum scheme scheme;
  uint8_t kid[16];
  uint8_t iv[16];        // cbcs: the constant IV. cenc: bytes 0-7 are the IV of sample 0 (cenc_iv_base), rest 0.
  struct aes_key key;    // expanded content key; unused for SCHEME_CLEAR
  struct bytes pssh;     // pssh boxes for moov, back to back; may be empty
  bool no_senc;          // cbcs: leave out the count-only senc
  bool wide_iv;          // cenc: IVs are written with 16 bytes, the last 8 of them 0 (cenc_iv_base says why)
};

// cenc_iv_base derives the 8-byte IV of sample 0: the first 8 bytes of
// HMAC-SHA256(content key, "sluice cenc iv v1" ‖ source digest ‖ be32(track id)). IV(n) = base + n, mod 2^64.
//
// Where IVs are 16 bytes, they are IV(n) ‖ 0: the counter block that the 8-byte IV stands for (ISO/IEC 23001-7 §9.3). Both forms
// of a file have the same ciphertext, so that no label of its own is needed: a counter block that both use covers the same
// plaintext. The block counter starts at 0 in every sample and cannot leave the low 64 bits, where some carry and others wrap.
void cenc_iv_base(uint8_t out[8], const uint8_t key[16], const uint8_t digest[32], uint32_t track_id);

// cbcs_iv derives the constant IV for a key record that carries none:
// the first 16 bytes of HMAC-SHA256(content key, "sluice cbcs iv v1"). It is bound to the key, not to the file,
// because licence servers deliver it with the key.
void cbcs_iv(uint8_t out[16], const uint8_t key[16]);

// Bytes of the protection's boxes, headers included.
enum {
  SENC_HEAD_LEN = 16, // senc up to its first IV; all of a count-only one
  SAIZ_LEN = 17,      // default size only
  SAIO_LEN = 20,      // one 32-bit offset
  CENC_IV_LEN = 8,
  CENC_WIDE_IV_LEN = 16,
  SINF_LEN_CENC = 80,
  SINF_LEN_CBCS = 97,
  SINF_LEN_MAX = SINF_LEN_CBCS,
};

struct plan {
  const struct track_index *ix;
  const struct ix_segments *segs;
  const struct protection *prot;
  uint32_t init_len, sidx_len, sinf_len; // bytes
  uint32_t traf_growth;                   // bytes that each traf grows by, whatever its samples
  uint32_t sample_growth;                 // and for each sample: the length of its IV as written
  uint32_t sidx_group;                    // segments per reference of sidx: 1 up to 65535 segments
  uint64_t total_len;
};

// cenc_iv_len gives the bytes of an IV as written, of SCHEME_CENC.
static inline uint32_t cenc_iv_len(const struct protection *prot) { return prot->wide_iv ? CENC_WIDE_IV_LEN : CENC_IV_LEN; }

// A byte range of the output (or, from plan_source, of the source).
struct plan_range {
  uint64_t off, len;
};

// plan_init computes the plan; `ix`, `segs` and `prot` must outlive it. O(fragments), a few ns each: it proves
// that every 32-bit field of the output holds what will be written there. `p` is untouched on failure.
// Errors: ERR_OVERFLOW (a box of init), ERR_LIMIT (a fragment or segment of 2 GiB or more).
MUST_USE enum err plan_init(struct plan *p, const struct track_index *ix, const struct ix_segments *segs,
                            const struct protection *prot, struct diag *diag);

struct plan_range plan_init_range(const struct plan *p);                  // init'
struct plan_range plan_sidx_range(const struct plan *p);                  // sidx'
struct plan_range plan_frag_range(const struct plan *p, uint32_t frag);   // frag <= num_frags
struct plan_range plan_segment_range(const struct plan *p, uint32_t seg); // seg < segs->num

// plan_segment_at and plan_frag_at give the segment and the fragment that hold output byte `off`, which lies behind sidx'.
// O(log) of their number, a few steps when segments are about equally long.
uint32_t plan_segment_at(const struct plan *p, uint64_t off);
uint32_t plan_frag_at(const struct plan *p, uint64_t off);

// plan_tag gives a validator for the plan's bytes: equal tags mean equal outputs, on every node. It covers the
// source digest, track, scheme, KID, IV and its size, system data, segment boundaries and the versions of index and plan, keyed
// (HMAC-SHA256, first 16 bytes) with the content key, so it follows a key that changes under one KID and says
// nothing about it. O(segments). An index without a digest (IX_NO_DIGEST) is told apart by size, mtime and stamp
// instead: its tags are as safe, but other nodes have others.
void plan_tag(const struct plan *p, uint8_t out[16]);

// plan_source gives the contiguous source range (source addresses) that rendering `r` reads; len 0 for ranges
// of generated bytes. It is widened to the start of a sample or the end of a cipher block where CBC needs it.
struct plan_range plan_source(const struct plan *p, struct plan_range r);

// plan_render writes output bytes [r.off, r.off + r.len) to `out`. `src` holds source bytes from source address
// `src_off` and covers plan_source(p, r). The only per-request work of the sample path: no allocation, no
// parsing, no failure for a range inside the plan (violations are asserts: they are our bugs).
// Whole fragments are the fast path. A range that cuts a CBC sample recomputes its chain from the sample's start.
void plan_render(const struct plan *p, const struct aes_ops *ops, struct plan_range r, struct bytes src,
                 uint64_t src_off, uint8_t *out);

// plan_render_ahead: the same, while the kernel asks for the source bytes of what is rendered next (simd/aes.h). What it did
// not get to is left in `ahead`, for plan_touch.
struct aes_ahead;
void plan_render_ahead(const struct plan *p, const struct aes_ops *ops, struct plan_range r, struct bytes src,
                       uint64_t src_off, uint8_t *out, struct aes_ahead *ahead);

// plan_ask asks memory for what rendering segment `seg` reads of the index: its runs and edits, and for cbcs the lanes, for cenc the
// sizes of its samples; as far as PLAN_ASK lines. To be called some hundred nanoseconds before.
enum { PLAN_ASK = 64 };
void plan_ask(const struct plan *p, uint32_t seg);

// plan_touch reads `src` linearly, one load per cache line, so that the hardware prefetcher brings it in before
// two dozen CBC lanes jump about in it. Worth it for cbcs when the bytes are not in cache already; a no-op in
// result. Chunks of more than half of L2 defeat it.
void plan_touch(struct bytes src);
