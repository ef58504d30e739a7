// A histogram of times with a bounded relative error: the layout of HdrHistogram, so that its tools read our logs.
// Values are microseconds, 1 … HIST_MAX, three significant digits; larger ones are clamped and counted.
// Merging is addition. Encoding: HdrHistogram V2 (zig-zag LEB128 counts, zlib, base64), the line format of its
// interval log.
#pragma once
#include "base/err.h"
#include "base/writer.h"

enum {
  HIST_SUB_BITS = 11,                                    // 2048 sub-buckets: 3 significant digits
  HIST_BUCKETS = 22,                                     // up to 2048 * 2^21 us, over an hour
  HIST_COUNTS = (HIST_BUCKETS + 1) << (HIST_SUB_BITS - 1),
};
#define HIST_MAX 3600000000u // one hour in microseconds

struct hist {
  uint64_t total, clamped, min, max; // min and max as recorded, 0 when empty
  uint64_t counts[HIST_COUNTS];
};

void hist_record(struct hist *h, uint64_t us);
void hist_record_n(struct hist *h, uint64_t us, uint64_t n);
void hist_add(struct hist *into, const struct hist *from);

// hist_percentile gives a value that at least `p` percent (0 … 100) of all are not above: the highest equivalent to the one there, the
// maximum at most; 0 when empty.
uint64_t hist_percentile(const struct hist *h, double p);
double hist_mean(const struct hist *h);

// hist_index and hist_lowest are the bucket mapping: lowest value of a bucket, width by hist_width.
uint32_t hist_index(uint64_t us);
uint64_t hist_lowest(uint32_t index);
uint64_t hist_width(uint32_t index);

// hist_encode writes the base64 payload of an interval-log line. `scratch` must hold HIST_SCRATCH bytes.
// Errors: ERR_NO_SPACE (scratch), ERR_NO_MEMORY (zlib).
#define HIST_SCRATCH (HIST_COUNTS * 9u * 2u)
MUST_USE enum err hist_encode(struct writer *w, const struct hist *h, uint8_t *scratch);
