// The track index: everything about a clear fragmented audio track that does not depend on a key, in one flat,
// position-independent, little-endian blob. The blob is built once (mp4/build.c), kept in memory or written
// as the sidecar `.slx`, and validated by ix_open before a byte of it is believed.
//
// Addresses. The *source address space* is the file, or the concatenation of a folder's init.mp4 and its
// *.m4s files in order (`parts`). Fragment positions (`pos`) count from the fragment's first byte.
//
// Edits. Rewriting boxes is running a script: copy source bytes up to `pos`, drop `del` bytes, emit `kind`.
// Scripts are computed at build time and hold every oddity of the input (explicit base offsets, missing data
// offsets, 64-bit sizes, negative offsets, index boxes in the middle): what is emitted is always relocatable,
// with default-base-is-moof, and grows only by the protection's boxes.
//
// Order: fragments, and edits and runs within a fragment, ascend by position and never overlap. Several edits may
// stand at one position; all but the last of them drop nothing then, and they emit in their order.
#pragma once
#include "base/alloc.h"
#include "base/err.h"
#include "simd/aes.h"

enum { IX_VERSION = 5 }; // another one whenever what is stored means something else: sidecars are then made again

enum ix_edit_kind {
  IX_DELETE,   // emit nothing
  IX_WORD,     // emit be32(value)
  IX_SIZE32,   // emit be32(value + growth of `scope`, mod 2^32: data offsets are signed)
  IX_SIZE64,   // emit be64(value + growth of `scope`)
  IX_PROTECT,  // emit saiz, saio, senc of traf number `arg` (del is 0)
  IX_SINF,     // init only: emit a sinf whose frma is `value` (del is 0)
  IX_PSSH,     // init only: emit the protection's pssh boxes (del is 0)
  IX_ENTRY,    // init only: emit be32(value), 'enca', over the sample entry's type (del is 4); a clear plan keeps it
  IX_KIND_COUNT
};

// What a size grows by.
enum ix_scope {
  IX_SCOPE_NONE,
  IX_SCOPE_TRAF,  // the protection boxes of traf `arg` of this fragment
  IX_SCOPE_MOOF,  // those of all trafs of this fragment (also: data offsets to bytes behind the moof)
  IX_SCOPE_SINF,  // `arg` times one sinf
  IX_SCOPE_MOOV,  // `arg` times one sinf, plus the pssh boxes
  IX_SCOPE_COUNT
};

struct ix_edit {
  uint32_t pos; // from the fragment's (or the init's) first byte
  uint32_t del; // source bytes dropped
  uint32_t value;
  uint32_t arg; // see scope; traf numbers count from 0 within the fragment, as in IX_SEC_TRAFS
  uint8_t kind, scope;
  uint8_t zero[2];
};

// Sample data that lies back to back and in decode order. Never empty; samples that are in no run have size 0.
// Runs ascend by position, which need not be the order of their samples.
struct ix_run {
  uint32_t pos, len;           // bytes, from the fragment's first byte
  uint32_t first_sample, num_samples; // from the fragment's first sample
};

// One moof with its data and whatever precedes it (styp, prft, emsg …). 80 bytes; a sentinel follows the last
// one, so that every count is the next fragment's start minus this one's.
struct ix_frag {
  uint64_t src_off;      // first byte, source address
  uint64_t src_len;      // bytes of the source that belong to it (edits may drop some of them)
  uint64_t out_len;      // bytes it has in the output before protection grows it: src_len - dropped + emitted
  uint64_t out_off;      // sum of out_len before it
  uint64_t first_sample; // global sample number: the n of IV(n) = base + n
  uint64_t time_ticks;   // decode time of its first sample (tfdt), in the track's timescale; without one that of the next fragment, the
                         // sentinel's: where the media end
  uint64_t duration_ticks;
  uint32_t moof_pos;     // where its moof starts, from src_off; after edits: moof_out_pos
  uint32_t moof_out_pos;
  uint32_t first_edit, first_run, first_traf;
  uint32_t flags;        // IX_FRAG_*
};

enum {
  IX_FRAG_SUBSEGMENT = 1, // a subsegment of the source's sidx, or a part of a folder, starts here
  IX_FRAG_NOT_SYNC = 2,   // its first sample is not a sync sample: no decoder may begin here
};

// A traf with samples. Trafs without any are not listed, get no protection boxes and do not grow.
struct ix_traf {
  uint32_t num_samples; // > 0
  uint32_t first_sample; // from the fragment's first sample
};

// Fixed part of the blob. Every multi-byte field little-endian; sections follow at 8-byte alignment.
enum ix_section {
  IX_SEC_PARTS,   // u64 ends of parts in the source address space (one file: its size)
  IX_SEC_INIT,    // bytes of the init segment as in the source (ftyp, moov, what lies before moov); no sidx
  IX_SEC_INIT_EDITS,
  IX_SEC_FRAGS,   // num_frags + 1
  IX_SEC_EDITS,
  IX_SEC_RUNS,
  IX_SEC_TRAFS,
  IX_SEC_SIZES,   // u16 or u32 per sample (flag IX_WIDE_SIZES), in decode order
  IX_SEC_LANES,   // struct aes_lane per sample; a run's lanes stand at its samples' places, ordered, offsets from
                  // the run's first byte
  IX_SEC_COUNT
};

enum {
  IX_WIDE_SIZES = 1,   // some sample is longer than 65535 bytes
  IX_FOLDER = 2,       // parts are init.mp4 and *.m4s
  IX_HAD_SIDX = 4,     // subsegments come from the source's sidx
  IX_NO_DIGEST = 8,    // identity.digest was not computed and is zero: no IV may be derived from it
};

// Bounds that ix_build and ix_open enforce, so that sizes and data offsets never overflow when a protection is
// added: its boxes take at most IX_MAX_TRAF_GROWTH + IX_MAX_SAMPLE_GROWTH * num_samples bytes a traf.
enum {
  IX_MAX_TRAF_GROWTH = 256,
  IX_MAX_SAMPLE_GROWTH = 16,
  IX_MAX_INIT = 1 << 24,         // bytes of the init segment
  IX_MAX_SINF = 64,              // sample entries
  IX_MAX_FRAG_SAMPLES = 1 << 24, // samples of one fragment
  IX_MAX_SAMPLE = 1 << 24,       // bytes of one sample
  IX_MAX_FRAG_TRAFS = 1 << 12,   // trafs of one fragment
  IX_MAX_FRAGS = 1 << 24,
};

struct ix_identity {
  uint64_t size;       // of the source address space
  uint64_t mtime_ns;   // newest of its parts
  uint64_t stamp;      // of every part's name, size, mtime, ctime and inode; the maker of the source says how (storage/sidecar.h)
  uint8_t digest[32];  // SHA-256 of the source address space
};

struct ix_header {
  uint8_t magic[8];    // "sluice\0\1"
  uint32_t version;    // IX_VERSION
  uint32_t flags;
  uint64_t checksum;   // ix_checksum: of the flags and everything after this field
  uint64_t blob_len;
  struct ix_identity identity;
  // the track
  uint32_t track_id, timescale;       // timescale: ticks per second
  uint32_t format;                    // original sample entry type, e.g. FOURCC('m','p','4','a')
  uint32_t sample_rate, channels;     // as a decoder outputs them; channels are 0 for IAMF, whose renderer decides
  uint32_t channel_mask;              // AC-3 family: the value for the manifest's channel configuration; else 0
  uint32_t avg_bitrate, max_bitrate;  // bits per second of fragments as in the source, boxes included; max over
                                      // the shortest groups of whole fragments that last >= 1 s
  uint32_t num_parts, num_init_edits, num_frags, num_edits, num_runs, num_trafs;
  uint32_t num_sinf;                  // sample entries in stsd, each gets a sinf
  uint32_t frame_samples;             // sample duration of most samples, in ticks
  uint32_t joc_complexity;            // E-AC-3 with joint object coding (Atmos): complexity index, else 0
  uint32_t bit_depth;                 // lossless codecs: bits per sample of the PCM; else 0
  uint64_t num_samples, duration_ticks, start_ticks;
  uint64_t media_off, media_len;      // source range from the first fragment to the end of the last
  int64_t edit_media_time;            // first elst entry with media (AAC priming), ticks; 0 when there is none
  char codecs[64];                    // RFC 6381, NUL-terminated: "mp4a.40.2", "opus", "flac", "ec-3"
  char language[16];                  // RFC 5646 where it can be derived, "und" otherwise, NUL-terminated
  struct {
    uint64_t off, len;                // bytes from the blob's start
  } sec[IX_SEC_COUNT];
};

// A validated view of a blob. Nothing here owns memory; the blob must outlive it.
struct track_index {
  const struct ix_header *h;
  const uint64_t *part_ends;
  struct bytes init;
  const struct ix_edit *init_edits, *edits;
  const struct ix_frag *frags; // h->num_frags + 1
  const struct ix_run *runs;
  const struct ix_traf *trafs;
  const uint16_t *sizes16; // exactly one of these is not NULL
  const uint32_t *sizes32;
  const struct aes_lane *lanes;
  // Read from init, which the blob has anyway:
  uint32_t layout; // of the channels, codec_info.layout
  uint64_t delay;  // ticks: empty edits before the first that has media, by which everything is presented later
};

static inline uint32_t ix_sample_size(const struct track_index *ix, uint64_t n) {
  return ix->sizes16 ? ix->sizes16[n] : ix->sizes32[n];
}

// What is parsed: random access to the source address space. `read` fills all n bytes or fails.
struct mp4_source {
  void *ctx;
  enum err (*read)(void *ctx, uint64_t off, void *buf, size_t n);
  uint64_t size;
  const uint64_t *part_ends; // ascending, last == size; NULL for one file
  uint32_t num_parts;        // 0 or 1: one file. Else part 0 is the init segment, each other part a segment.
};

// ix_build parses a clear fragmented audio track. It reads headers, moov and moofs only, never sample data.
// `id` is stored as given (id->size must be src->size; a digest of zeros sets IX_NO_DIGEST). The blob and what
// building needs meanwhile come from `mem`: a small multiple of moov and moofs. On failure nothing is returned
// and `diag` says what, where and in which box.
// Errors: ERR_TRUNCATED, ERR_MALFORMED, ERR_OVERFLOW, ERR_LIMIT, ERR_UNSUPPORTED, ERR_PROTECTED, ERR_PROGRESSIVE,
// ERR_NOT_AUDIO, ERR_MISSING, ERR_NO_MEMORY, ERR_IO, and ERR_STALE when the source changes meanwhile.
// Source: ISO/IEC 14496-12 §8, 23000-19 §7; the parsers cite their clauses.
MUST_USE enum err ix_build(struct alloc *mem, struct bytes *blob, const struct mp4_source *src,
                           const struct ix_identity *id, struct diag *diag);

// ix_set_digest puts a digest into a blob that ix_build has just made with none (the memory is the caller's).
void ix_set_digest(struct bytes blob, const uint8_t digest[32]);

// ix_checksum gives what the header's checksum has to be: XXH3-64 of all behind that field, with the flags as its seed. `blob` has at
// least a header.
uint64_t ix_checksum(struct bytes blob);

// ix_open validates a blob from anywhere (checksum, version, every offset, count, order and sum on which
// planning and rendering rely) and gives a view of it. O(blob).
// Errors: ERR_TRUNCATED, ERR_CHECKSUM, ERR_MALFORMED, ERR_UNSUPPORTED (version).
MUST_USE enum err ix_open(struct track_index *out, struct bytes blob, struct diag *diag);

// ix_identity_is says whether the index was made from this state of the source, without the digest: size, mtime and stamp.
// The bytes are then the same as far as the stamp's maker can tell states apart.
bool ix_identity_is(const struct track_index *ix, const struct ix_identity *now);

// Segments: what a player requests. first_frag[i] is segment i's first fragment; first_frag[num] == num_frags.
struct ix_segments {
  uint32_t num;
  const uint32_t *first_frag;
};

// ix_segment_count and ix_segment_fill group whole fragments: by IX_FRAG_SUBSEGMENT where the source had them,
// else until a segment has reached `target_ticks` (0: every fragment is one), by its samples, or by a gap in decode times, which then
// lies between two segments. Fragments at the end that last no time belong to the segment before.
uint32_t ix_segment_count(const struct track_index *ix, uint64_t target_ticks);
void ix_segment_fill(const struct track_index *ix, uint64_t target_ticks, uint32_t *first_frag);

// ix_skipped gives what the edit list skips (encoder priming), 0 where that is all of the first segment: manifests and sidx have
// to name it. O(fragments of the first segment). Source: ISO/IEC 14496-12 8.6.6.
uint64_t ix_skipped(const struct track_index *ix, const struct ix_segments *segs);

// ix_starts_sync says whether the first sample of fragments [first, end) is a sync sample, as in nearly all audio. True without samples.
bool ix_starts_sync(const struct track_index *ix, uint32_t first, uint32_t end);

// ix_presented says when a sample of this decode time is presented; 0 where it is skipped.
static inline uint64_t ix_presented(uint64_t ticks, uint64_t skipped) { return ticks > skipped ? ticks - skipped : 0; }

_Static_assert(sizeof(struct ix_edit) == 20 && sizeof(struct ix_run) == 16 && sizeof(struct ix_traf) == 8, "blob");
_Static_assert(sizeof(struct ix_frag) == 80 && sizeof(struct ix_header) == 288 + 16 * IX_SEC_COUNT, "blob");
