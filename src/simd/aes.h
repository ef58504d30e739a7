// AES-128 over many samples at once: the only way sample bytes are ever encrypted or decrypted.
//
// A call is a stateless burst: same inputs, same outputs, nothing kept, nothing flushed later. Source and
// destination have the same layout; `dst == src` (in place) is allowed, any other overlap is not.
// No operation branches on or indexes by secret bytes.
#pragma once
#include "base/bytes.h"

// Round keys; wipe with aes_key_wipe when done. 16-byte aligned 11 round keys in encryption order and the
// equivalent inverse cipher's in decryption order (FIPS 197 §5.3.5).
struct aes_key {
  _Alignas(64) uint8_t enc[11][16];
  uint8_t dec[11][16];
};

// One sample of a burst: where it starts, relative to the segment's src and dst, and its bytes.
// Lanes of a CBC segment are in aes_lane_order: kept in the index, so that no call ever sorts.
struct aes_lane {
  uint32_t off, len;
};

// aes_lane_order sorts by whole blocks (len / 16) descending, then by offset ascending: the order in which the
// CBC kernels take samples. Depends on sizes only. `num` lanes in place.
void aes_lane_order(struct aes_lane *lanes, size_t num);

// A segment for CBC: whole 16-byte blocks of each lane are transformed, the chain starting from the burst's IV
// at each lane; the trailing 0-15 bytes are copied. Bytes between lanes are not written.
struct aes_cbc_seg {
  const uint8_t *src;
  uint8_t *dst;
  const struct aes_lane *lanes; // in aes_lane_order (any order is correct, this one is fast)
  size_t num_lanes;
};

// A segment for CTR: samples lie back to back from src. Sample i has counter block (iv + i) ‖ 0 where `ivs` is
// NULL (8-byte IVs, 64-bit block counter), else ivs[i] counted over all 128 bits.
struct aes_ctr_seg {
  const uint8_t *src;
  uint8_t *dst;
  const uint16_t *sizes16; // exactly one of sizes16, sizes32 is not NULL
  const uint32_t *sizes32;
  size_t num;
  uint64_t iv;
  const uint8_t (*ivs)[16];
};

// What the caller will read next, for kernels to ask memory for while they compute: a line now and then costs nothing,
// where reading it all at once waits for memory. A kernel moves `p` past the lines it has asked for, or does nothing; what
// is left is the caller's to read linearly. The bytes are never used. NULL: nothing is known of what comes.
struct aes_ahead {
  const uint8_t *p;
  size_t n;
};

// crypt:skip in blocks, repeated from each lane's start; 0:0 and 1:0 mean every block.
struct aes_pattern {
  uint8_t crypt, skip;
};

struct aes_ops {
  const char *name; // "ref", "aesni", "aesni-vex", "vaes256", "vaes512", "vaes512-x2", "armv8"
  bool (*usable)(void);
  bool (*fits)(void); // NULL, or whether it is faster here than the tables before it; asked where it is usable
  void (*key_init)(struct aes_key *out, const uint8_t key[16]);
  void (*cbc_encrypt)(const struct aes_key *k, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num,
                      struct aes_ahead *ahead);
  void (*cbc_decrypt)(const struct aes_key *k, const uint8_t iv[16], const struct aes_cbc_seg *segs, size_t num);
  // Encryption and decryption are the same operation.
  void (*ctr)(const struct aes_key *k, const struct aes_ctr_seg *segs, size_t num, struct aes_ahead *ahead);
  // Plain blocks, for key checks and CBC pieces of one chain: `iv` is read and left as the next call's IV.
  void (*cbc_chain)(const struct aes_key *k, bool encrypt, uint8_t iv[16], uint8_t *dst, const uint8_t *src,
                    size_t num_blocks);
  void (*ecb_encrypt)(const struct aes_key *k, uint8_t *dst, const uint8_t *src, size_t num_blocks);
};

// Pattern forms (cbcs video, cens, …), over the chain and the blocks of a table: one lane after the other, from `iv` for each or
// from ivs[lane]. CTR counts encrypted blocks only, over the low 64 bits; encryption and decryption are the same.
void aes_cbc_pattern(const struct aes_ops *ops, const struct aes_key *k, bool encrypt, struct aes_pattern pattern,
                     const uint8_t iv[16], const struct aes_cbc_seg *seg);
void aes_ctr_pattern(const struct aes_ops *ops, const struct aes_key *k, struct aes_pattern pattern, const uint8_t (*ivs)[16],
                     const struct aes_cbc_seg *seg);

void aes_key_wipe(struct aes_key *k);

// aes_ops_best returns the fastest usable table, narrowed by `name` when it is not NULL. NULL when the name is
// unknown or not usable here; `*why` then says which, as one sentence. The choice is made once, by the program,
// before threads start (the environment variable SLUICE_KERNEL is read by cli/, not here).
const struct aes_ops *aes_ops_best(const char *name, const char **why);

// aes_ops_all lists every table built in, usable or not, fastest last. For checkasm and `sluice version`.
const struct aes_ops *const *aes_ops_all(size_t *num);

// aes_cpu_names appends what of the processor the kernels can use, each name after a blank: " aes avx vaes …". For `sluice version`.
struct writer;
void aes_cpu_names(struct writer *w);
