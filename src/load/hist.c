#include "load/hist.h"

#include <math.h>
#include <zlib.h>

#include "base/text.h"

enum { HALF = 1 << (HIST_SUB_BITS - 1), FULL = 1 << HIST_SUB_BITS };

// Bucket 0 holds 0 … 2047 in steps of 1; bucket b > 0 holds 1024 * 2^b … 2048 * 2^b in steps of 2^b.
uint32_t hist_index(uint64_t us) {
  uint32_t bucket = (uint32_t)(64 - __builtin_clzll(us | (FULL - 1))) - HIST_SUB_BITS;
  uint32_t sub = (uint32_t)(us >> bucket);
  return ((bucket + 1) << (HIST_SUB_BITS - 1)) + sub - HALF;
}

static uint32_t bucket_of(uint32_t index) { return index < FULL ? 0 : (index >> (HIST_SUB_BITS - 1)) - 1; }

uint64_t hist_lowest(uint32_t index) {
  uint32_t b = bucket_of(index);
  uint64_t sub = index < FULL ? index : (index & (HALF - 1)) + HALF;
  return sub << b;
}

uint64_t hist_width(uint32_t index) { return (uint64_t)1 << bucket_of(index); }

void hist_record_n(struct hist *h, uint64_t us, uint64_t n) {
  if (us > HIST_MAX) {
    us = HIST_MAX;
    h->clamped += n;
  }
  h->min = h->total && h->min < us ? h->min : us;
  h->max = h->max > us ? h->max : us;
  h->total += n;
  h->counts[hist_index(us)] += n;
}

void hist_record(struct hist *h, uint64_t us) { hist_record_n(h, us, 1); }

void hist_add(struct hist *into, const struct hist *from) {
  if (!from->total)
    return;
  into->min = into->total && into->min < from->min ? into->min : from->min;
  into->max = into->max > from->max ? into->max : from->max;
  into->total += from->total;
  into->clamped += from->clamped;
  for (uint32_t i = 0; i < HIST_COUNTS; i++)
    into->counts[i] += from->counts[i];
}

uint64_t hist_percentile(const struct hist *h, double p) {
  if (!h->total)
    return 0;
  p = p < 0 ? 0 : p > 100 ? 100 : p;
  // Rounded up: of 60 values the 99th percentile is the last. A hair less than `p`, so that 99.9 % of 1000 is 999 in binary, too.
  uint64_t want = (uint64_t)ceil(nextafter(p, 0) * (double)h->total / 100);
  want = want ? want : 1;
  uint64_t seen = 0;
  for (uint32_t i = 0; i < HIST_COUNTS; i++) {
    seen += h->counts[i];
    uint64_t highest = hist_lowest(i) + hist_width(i) - 1;
    if (seen >= want)
      return highest < h->max ? highest : h->max;
  }
  return h->max;
}

double hist_mean(const struct hist *h) {
  double sum = 0;
  for (uint32_t i = 0; i < HIST_COUNTS; i++)
    if (h->counts[i])
      sum += (double)h->counts[i] * ((double)hist_lowest(i) + (double)hist_width(i) / 2);
  return h->total ? sum / (double)h->total : 0;
}

// ZigZag LEB128 as HdrHistogram V2 defines it: at most 9 bytes, the ninth takes all 8 bits.
static size_t put_zigzag(uint8_t *p, int64_t v) {
  uint64_t u = (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
  size_t n = 0;
  while (u >= 0x80 && n < 8) {
    p[n++] = (uint8_t)(u | 0x80);
    u >>= 7;
  }
  p[n++] = (uint8_t)u;
  return n;
}

// Counts, runs of zeros as one negative number; ends with the last count that is not zero.
static size_t put_counts(uint8_t *p, const struct hist *h) {
  uint32_t end = HIST_COUNTS;
  while (end && !h->counts[end - 1])
    end--;
  size_t n = 0;
  for (uint32_t i = 0; i < end;) {
    uint32_t zeros = 0;
    while (!h->counts[i + zeros])
      zeros++;
    if (zeros)
      n += put_zigzag(p + n, -(int64_t)zeros);
    i += zeros;
    n += put_zigzag(p + n, (int64_t)h->counts[i++]);
  }
  return n;
}

enum { V2_HEADER = 40, V2_COOKIE = 0x1c849303 | 0x10, V2_COMPRESSED_COOKIE = 0x1c849304 | 0x10 };

enum err hist_encode(struct writer *w, const struct hist *h, uint8_t *scratch) {
  uint8_t *plain = scratch, *packed = scratch + HIST_SCRATCH / 2;
  size_t counts_len = put_counts(plain + V2_HEADER, h);
  struct writer head = wr_of(plain, V2_HEADER);
  wr_u32(&head, V2_COOKIE);
  wr_u32(&head, (uint32_t)counts_len);
  wr_u32(&head, 0); // normalizing index offset
  wr_u32(&head, 3); // significant digits
  wr_u64(&head, 1); // lowest discernible value
  wr_u64(&head, HIST_MAX);
  double ratio = 1.0; // integer to double conversion ratio
  uint64_t bits;
  memcpy(&bits, &ratio, 8);
  wr_u64(&head, bits);
  uLongf packed_len = HIST_SCRATCH / 2 - 8;
  int z = compress2(packed + 8, &packed_len, plain, (uLong)(V2_HEADER + counts_len), Z_DEFAULT_COMPRESSION);
  if (z != Z_OK)
    return z == Z_MEM_ERROR ? ERR_NO_MEMORY : ERR_NO_SPACE;
  store_be32(packed, V2_COMPRESSED_COOKIE);
  store_be32(packed + 4, (uint32_t)packed_len);
  base64_write(w, bytes_of(packed, packed_len + 8));
  return ERR_OK;
}
