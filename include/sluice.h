/* libsluice: clear fragmented audio in, the bytes of the protected file out, any range of it.
 *
 * The library does no I/O, starts no thread, reads no clock, keeps no state and takes its memory from the caller.
 *
 *   build an index of the clear file once   sluice_index_build   (keep the blob: it is position-independent)
 *   open it                                 sluice_track_open
 *   plan a protection over it               sluice_plan_new      (microseconds)
 *   render any range, from any thread       sluice_plan_source, sluice_plan_render
 *
 * Errors. Functions that can fail return 0 or an error code, which sluice_error_name turns into its name, and fill `error` where
 * it is not NULL: a sentence with byte and box in it. Without a failure it is left alone, on failure the outputs are.
 *
 * Ownership. Nothing here frees: blobs and handles lie in memory from `memory`, and so does what a call that failed had taken
 * until then. Give it all back together, an arena for each call or each track. What sluice_track_open and sluice_plan_new are
 * given (blob, track, pssh) must outlive what they make; the protection, keys and sources need not.
 *
 * Threads. Handles are read-only once made: any number of threads may use one at the same time, until sluice_plan_wipe.
 *
 * Units. Sizes and offsets are bytes, segments count from 0 (URLs of `sluice serve` from 1). */
#ifndef SLUICE_H
#define SLUICE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLUICE_API __attribute__((visibility("default")))

/* Memory: `get` returns n zeroed bytes aligned to 64, or NULL to make the call fail. The library never frees. */
struct sluice_memory {
  void *(*get)(void *ctx, size_t n);
  void *ctx;
};

/* The clear file: `read` fills all n bytes from `off` and returns 0, or anything else to fail. */
struct sluice_source {
  int (*read)(void *ctx, uint64_t off, void *buf, size_t n);
  void *ctx;
  uint64_t size; /* of the file */
};

struct sluice_error {
  char text[256]; /* NUL-terminated */
};

enum sluice_scheme { SLUICE_CLEAR, SLUICE_CENC, SLUICE_CBCS };

struct sluice_protection {
  enum sluice_scheme scheme;
  uint8_t kid[16], key[16];
  /* cbcs: the constant IV. cenc: bytes 0-7 are the first sample's IV. Without has_iv it is derived: for cenc from key, digest
   * of the file and track, so that no key stream covers two plaintexts; for cbcs from the key. */
  uint8_t iv[16];
  int has_iv;
  const void *pssh; /* whole pssh boxes for moov, or NULL; must outlive the plan */
  size_t pssh_len;
  int no_senc; /* cbcs: leave out the count-only senc */
  int wide_iv; /* cenc: write IVs with 16 bytes, the last 8 of them 0; the ciphertext is that of 8 */
};

struct sluice_range {
  uint64_t off, len;
};

typedef struct sluice_track sluice_track;
typedef struct sluice_plan sluice_plan;

/* "0.1.0", and the name of an error code ("ERR_TRUNCATED"); both are static. */
SLUICE_API const char *sluice_version(void);
SLUICE_API const char *sluice_error_name(int error);

/* sluice_index_build parses headers and fragments (no sample is read). `digest` is the SHA-256 of the file, 32 bytes; it may be
 * NULL, then cenc needs an explicit IV. The blob is what `sluice index` writes into sidecars: store it, map it, send it. */
SLUICE_API int sluice_index_build(const void **blob, size_t *blob_len, const struct sluice_source *source,
                                  const uint8_t *digest, struct sluice_memory memory, struct sluice_error *error);

/* sluice_track_open validates a blob from anywhere before it believes a byte of it. It must be aligned to 8 bytes. */
SLUICE_API int sluice_track_open(sluice_track **track, const void *blob, size_t blob_len, struct sluice_memory memory,
                                 struct sluice_error *error);
SLUICE_API const char *sluice_track_codecs(const sluice_track *track); /* RFC 6381; lives as long as the blob */
SLUICE_API uint64_t sluice_track_samples(const sluice_track *track);
SLUICE_API double sluice_track_seconds(const sluice_track *track);

/* sluice_plan_new lays out the protected file. Segments are the file's own subsegments, or else whole fragments of at
 * least `segment_ms`. */
SLUICE_API int sluice_plan_new(sluice_plan **plan, const sluice_track *track, const struct sluice_protection *protection,
                               uint32_t segment_ms, struct sluice_memory memory, struct sluice_error *error);
SLUICE_API uint64_t sluice_plan_len(const sluice_plan *plan);
SLUICE_API uint32_t sluice_plan_segments(const sluice_plan *plan);
SLUICE_API struct sluice_range sluice_plan_init(const sluice_plan *plan);
SLUICE_API struct sluice_range sluice_plan_sidx(const sluice_plan *plan);
SLUICE_API struct sluice_range sluice_plan_segment(const sluice_plan *plan, uint32_t segment); /* {0, 0}: no such one */
/* Equal tags mean equal bytes, on every machine: an ETag. */
SLUICE_API void sluice_plan_tag(const sluice_plan *plan, uint8_t tag[16]);

/* sluice_plan_source: which contiguous range of the clear file rendering `range` reads. sluice_plan_render writes
 * range.len bytes; `src` holds the clear file's bytes from src_off and covers that range, and does not overlap `out`. Both fail
 * (ERR_ARGUMENT) for a range beyond sluice_plan_len, the latter also when `src` does not cover what is needed. */
SLUICE_API int sluice_plan_source(struct sluice_range *need, const sluice_plan *plan, struct sluice_range range);
SLUICE_API int sluice_plan_render(void *out, const sluice_plan *plan, struct sluice_range range, const void *src,
                                  uint64_t src_off, size_t src_len);

/* sluice_plan_wipe forgets the key: before its memory is given back. */
SLUICE_API void sluice_plan_wipe(sluice_plan *plan);

struct sluice_key {
  uint8_t kid[16], key[16];
};

/* sluice_decrypt: an encrypted fragmented file (cenc, cens, cbc1, cbcs) to the clear one. `out` has room for len bytes. It is `file`
 * or does not overlap it; after a failure it holds nothing of use. *out_len says how many it got. At most 64 keys. A wrong key is not
 * noticed: what comes out is noise. */
SLUICE_API int sluice_decrypt(void *out, size_t *out_len, const void *file, size_t len, const struct sluice_key *keys,
                              size_t num_keys, struct sluice_memory memory, struct sluice_error *error);

#ifdef __cplusplus
}
#endif
#endif
