// Boxes: what is known about each type, bounded walking in memory, and where a fault is.
#pragma once
#include "base/alloc.h"
#include "base/reader.h"
#include "mp4/limits.h"

enum box_kind {
  BOX_LEAF,      // payload without a version
  BOX_FULL,      // version and flags, then fields
  BOX_PARENT,    // children after `skip` bytes of payload
  BOX_AUDIO,     // audio sample entry: children behind a head whose length depends on versions
  BOX_KIND_COUNT
};

// name, kind, payload bytes before the children, clause, text. Clauses are of ISO/IEC 14496-12 where no other
// document is named.
#define BOX_TABLE(X)                                                                                             \
  X("ftyp", BOX_LEAF, 0, "4.3", "file type")                                                                     \
  X("styp", BOX_LEAF, 0, "8.16.2", "segment type")                                                               \
  X("moov", BOX_PARENT, 0, "8.2.1", "movie")                                                                     \
  X("mvhd", BOX_FULL, 0, "8.2.2", "movie header")                                                                \
  X("trak", BOX_PARENT, 0, "8.3.1", "track")                                                                     \
  X("tkhd", BOX_FULL, 0, "8.3.2", "track header")                                                                \
  X("tref", BOX_PARENT, 0, "8.3.3", "track references")                                                          \
  X("edts", BOX_PARENT, 0, "8.6.5", "edits")                                                                     \
  X("elst", BOX_FULL, 0, "8.6.6", "edit list")                                                                   \
  X("mdia", BOX_PARENT, 0, "8.4.1", "media")                                                                     \
  X("mdhd", BOX_FULL, 0, "8.4.2", "media header")                                                                \
  X("elng", BOX_FULL, 0, "8.4.6", "extended language")                                                           \
  X("hdlr", BOX_FULL, 0, "8.4.3", "handler")                                                                     \
  X("minf", BOX_PARENT, 0, "8.4.4", "media information")                                                         \
  X("smhd", BOX_FULL, 0, "12.2.2", "sound media header")                                                         \
  X("vmhd", BOX_FULL, 0, "12.1.2", "video media header")                                                         \
  X("dinf", BOX_PARENT, 0, "8.7.1", "data information")                                                          \
  X("dref", BOX_PARENT, 8, "8.7.2", "data references")                                                           \
  X("stbl", BOX_PARENT, 0, "8.5.1", "sample table")                                                              \
  X("stsd", BOX_PARENT, 8, "8.5.2", "sample descriptions")                                                       \
  X("stts", BOX_FULL, 0, "8.6.1.2", "decode times")                                                              \
  X("ctts", BOX_FULL, 0, "8.6.1.3", "composition offsets")                                                       \
  X("stsc", BOX_FULL, 0, "8.7.4", "samples to chunks")                                                           \
  X("stsz", BOX_FULL, 0, "8.7.3.2", "sample sizes")                                                              \
  X("stz2", BOX_FULL, 0, "8.7.3.3", "compact sample sizes")                                                      \
  X("stco", BOX_FULL, 0, "8.7.5", "chunk offsets")                                                               \
  X("co64", BOX_FULL, 0, "8.7.5", "chunk offsets")                                                               \
  X("stss", BOX_FULL, 0, "8.6.2", "sync samples")                                                                \
  X("sgpd", BOX_FULL, 0, "8.9.3", "sample group descriptions")                                                   \
  X("sbgp", BOX_FULL, 0, "8.9.2", "sample to group")                                                             \
  X("subs", BOX_FULL, 0, "8.7.7", "subsamples")                                                                  \
  X("mvex", BOX_PARENT, 0, "8.8.1", "movie extends")                                                             \
  X("mehd", BOX_FULL, 0, "8.8.2", "movie extends header")                                                        \
  X("trex", BOX_FULL, 0, "8.8.3", "track extends")                                                               \
  X("moof", BOX_PARENT, 0, "8.8.4", "movie fragment")                                                            \
  X("mfhd", BOX_FULL, 0, "8.8.5", "movie fragment header")                                                       \
  X("traf", BOX_PARENT, 0, "8.8.6", "track fragment")                                                            \
  X("tfhd", BOX_FULL, 0, "8.8.7", "track fragment header")                                                       \
  X("trun", BOX_FULL, 0, "8.8.8", "track run")                                                                   \
  X("tfdt", BOX_FULL, 0, "8.8.12", "track fragment decode time")                                                 \
  X("mfra", BOX_PARENT, 0, "8.8.9", "movie fragment random access")                                              \
  X("tfra", BOX_FULL, 0, "8.8.10", "track fragment random access")                                               \
  X("mfro", BOX_FULL, 0, "8.8.11", "movie fragment random access offset")                                        \
  X("mdat", BOX_LEAF, 0, "8.1.1", "media data")                                                                  \
  X("free", BOX_LEAF, 0, "8.1.2", "free space")                                                                  \
  X("skip", BOX_LEAF, 0, "8.1.2", "free space")                                                                  \
  X("uuid", BOX_LEAF, 0, "4.2", "user type")                                                                     \
  X("udta", BOX_PARENT, 0, "8.10.1", "user data")                                                                \
  X("meta", BOX_FULL, 0, "8.11.1", "metadata")                                                                   \
  X("sidx", BOX_FULL, 0, "8.16.3", "segment index")                                                              \
  X("ssix", BOX_FULL, 0, "8.16.4", "subsegment index")                                                           \
  X("prft", BOX_FULL, 0, "8.16.5", "producer reference time")                                                    \
  X("emsg", BOX_FULL, 0, "ISO/IEC 23009-1 5.10.3.3", "event message")                                            \
  X("pssh", BOX_FULL, 0, "ISO/IEC 23001-7 8.1", "protection system header")                                      \
  X("sinf", BOX_PARENT, 0, "8.12.1", "protection scheme")                                                        \
  X("frma", BOX_LEAF, 0, "8.12.2", "original format")                                                            \
  X("schm", BOX_FULL, 0, "8.12.5", "scheme type")                                                                \
  X("schi", BOX_PARENT, 0, "8.12.6", "scheme information")                                                       \
  X("tenc", BOX_FULL, 0, "ISO/IEC 23001-7 8.2", "track encryption")                                              \
  X("senc", BOX_FULL, 0, "ISO/IEC 23001-7 7.2", "sample encryption")                                             \
  X("saiz", BOX_FULL, 0, "8.7.8", "auxiliary information sizes")                                                 \
  X("saio", BOX_FULL, 0, "8.7.9", "auxiliary information offsets")                                               \
  X("encv", BOX_PARENT, 78, "8.12", "encrypted video")                                                           \
  X("avc1", BOX_PARENT, 78, "ISO/IEC 14496-15 5.4.2", "AVC video")                                               \
  X("hvc1", BOX_PARENT, 78, "ISO/IEC 14496-15 8.4.1", "HEVC video")                                              \
  X("enca", BOX_AUDIO, 0, "8.12", "encrypted audio")                                                             \
  X("mp4a", BOX_AUDIO, 0, "ISO/IEC 14496-14 6.7", "MPEG-4 audio")                                                \
  X("Opus", BOX_AUDIO, 0, "Opus in ISOBMFF 4.3.1", "Opus audio")                                                 \
  X("fLaC", BOX_AUDIO, 0, "FLAC in ISOBMFF 3.3.1", "FLAC audio")                                                 \
  X("alac", BOX_AUDIO, 0, "Apple Lossless in MP4", "ALAC audio")                                                 \
  X("ac-3", BOX_AUDIO, 0, "ETSI TS 102 366 F.3", "AC-3 audio")                                                   \
  X("ec-3", BOX_AUDIO, 0, "ETSI TS 102 366 F.5", "E-AC-3 audio")                                                 \
  X("ac-4", BOX_AUDIO, 0, "ETSI TS 103 190-2 E.4", "AC-4 audio")                                                 \
  X("mha1", BOX_AUDIO, 0, "ISO/IEC 23008-3 20.5", "MPEG-H audio")                                                \
  X("mhm1", BOX_AUDIO, 0, "ISO/IEC 23008-3 20.6", "MPEG-H audio with transport")                                 \
  X("dtsc", BOX_AUDIO, 0, "ETSI TS 102 114 E", "DTS audio")                                                      \
  X("dtse", BOX_AUDIO, 0, "ETSI TS 102 114 E", "DTS Express audio")                                              \
  X("dtsh", BOX_AUDIO, 0, "ETSI TS 102 114 E", "DTS-HD audio")                                                   \
  X("dtsl", BOX_AUDIO, 0, "ETSI TS 102 114 E", "DTS lossless audio")                                             \
  X("dtsx", BOX_AUDIO, 0, "ETSI TS 103 491", "DTS-UHD audio")                                                    \
  X("iamf", BOX_AUDIO, 0, "IAMF 6.2", "immersive audio")                                                         \
  X("esds", BOX_FULL, 0, "ISO/IEC 14496-14 6.7.2", "elementary stream descriptor")                               \
  X("dOps", BOX_LEAF, 0, "Opus in ISOBMFF 4.3.2", "Opus configuration")                                          \
  X("dfLa", BOX_FULL, 0, "FLAC in ISOBMFF 3.3.2", "FLAC configuration")                                          \
  X("dac3", BOX_LEAF, 0, "ETSI TS 102 366 F.4", "AC-3 configuration")                                            \
  X("dec3", BOX_LEAF, 0, "ETSI TS 102 366 F.6", "E-AC-3 configuration")                                          \
  X("mhaC", BOX_LEAF, 0, "ISO/IEC 23008-3 20.4", "MPEG-H configuration")                                         \
  X("wave", BOX_PARENT, 0, "QuickTime", "sound description extension")                                           \
  X("btrt", BOX_LEAF, 0, "8.5.2.2", "bit rates")                                                                 \
  X("chnl", BOX_FULL, 0, "12.2.4", "channel layout")

struct box_info {
  uint32_t type;
  enum box_kind kind;
  uint32_t skip;
  const char *clause, *text;
};

// box_info_of returns the table's row, NULL for types that are not known.
const struct box_info *box_info_of(uint32_t type);

struct box {
  uint32_t type;
  uint32_t head_len; // 8, or 16 with a 64-bit size; a uuid's user type counts as payload
  uint64_t pos;      // of the first byte, in what the reader or the caller counts from
  uint64_t len;      // head included
  bool to_end;       // its head says 0: to the end of the file
  struct bytes body; // empty from box_head
};

// box_head parses a head from `head` (16 bytes, or all that is left of `left` bytes). A size of 0 means "to the
// end", which only the last box of a file may say.
// Errors: ERR_TRUNCATED (longer than what is left), ERR_MALFORMED. Source: ISO/IEC 14496-12 4.2.2.
MUST_USE enum err box_head(struct box *out, struct bytes head, uint64_t left, bool top);

// box_fault says what is wrong where box_head gave `e`: with a box of the file itself (`top`), or with one inside another.
const char *box_fault(enum err e, bool top);

// box_is_foreign says whether a source that begins like this, where box_head gave `e`, is something else than MP4: its first box is
// not whole, or has no size, and is none that is known. Zeros, which a crash or an upload under way may leave, are a box without a size.
bool box_is_foreign(enum err e, struct bytes head);

// box_next takes the next child. At the end of `r` it returns ERR_OK with out->len 0.
// Errors: as box_head.
MUST_USE enum err box_next(struct box *out, struct reader *r);

// box_reader is a reader over the payload of `b`, which box_next took from `parent`: positions count as there.
static inline struct reader box_reader(const struct reader *parent, const struct box *b) {
  if (!b->body.n)
    return (struct reader){parent->p, parent->p, parent->start, ERR_OK};
  return (struct reader){b->body.p, b->body.p + b->body.n, parent->start, ERR_OK};
}

// box_entry_head returns how many payload bytes stand before the children of an audio sample entry.
// `stsd_version` tells ISO version 1 entries from QuickTime's. Errors: ERR_TRUNCATED, ERR_UNSUPPORTED.
// Source: ISO/IEC 14496-12 12.2.3; QuickTime File Format, sound sample description versions 0 to 2.
MUST_USE enum err box_entry_head(size_t *out, struct bytes body, unsigned stsd_version);

// box_is_piff_senc says whether a box is the uuid form of senc. Source: PIFF 1.1 5.3.2.
bool box_is_piff_senc(const struct box *b);

// box_is_cenc_aux says whether the saiz or saio with this body is about Common Encryption: it names one of its schemes, or
// none, which means the track's. Source: ISO/IEC 14496-12 8.7.8.3 (aux_info_type), 23001-7 7.1.
bool box_is_cenc_aux(struct bytes body);

// Where parsing stands, for error messages: `base` turns positions into source addresses.
struct box_trail {
  struct diag *diag;
  uint64_t base;
  uint32_t depth;
  uint32_t path[LIMIT_DEPTH];
};

static inline void trail_in(struct box_trail *t, uint32_t type) {
  if (t->depth < LIMIT_DEPTH)
    t->path[t->depth] = type;
  t->depth++;
}

static inline void trail_out(struct box_trail *t) { t->depth--; }

// trail_fail records the fault with position, boxes and a sentence (NULL: the error's own) and returns `e`.
enum err trail_fail(const struct box_trail *t, enum err e, uint64_t pos, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

// trail_next is box_next that records the fault.
MUST_USE enum err trail_next(const struct box_trail *t, struct box *out, struct reader *r);

// A list that grows in memory of an `alloc`: doubling, nothing is given back.
struct list {
  void *p;
  uint32_t num, cap;
};

// list_add returns room for one more item of `item_len` bytes, NULL when memory is out.
void *list_add(struct list *l, struct alloc *mem, size_t item_len);
