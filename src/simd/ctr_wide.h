// CTR in 512-bit registers for cores that start two rounds of them a cycle (Zen 5), included by vaes512.c.
//
// Two of the ten rounds are done once for all samples. The first round works on columns: the counter block's last byte meets
// bytes 0, 5 and 10 of it there, which 65,536 samples in a row have in common, and makes the first column. In the second
// round each byte has a share of its own, and shares are xored. So its result is what it is for a last byte of zero,
// which depends on the sample (and on 256 blocks of it), xored with what the last byte adds by way of the first column:
// a table of the key and these two bytes of the IV. What it is indexed by is public.
//
// The other eight rounds of a register take four cycles. In these the core has sixteen slots for loads and stores, of which
// 512 bits take two, and again two where they cross a cache line, as samples' data nearly always does. So little else
// may be loaded: keys stay in registers, and of what two rounds make of a sample's first counter, 16 bytes are loaded and
// broadcast. And a wrong prediction, which sizes cause, costs as much as four registers. So samples are cut into pieces of
// 64 bytes, those of a hundred samples stand in one list, and four at a time are encrypted, whatever sample they are of.
//
// A sample's last piece is written in whole, too: what is behind it is the next sample's, whose pieces are written later.
// Pieces that reach beyond the end of what is listed go one by one, under a mask, and so do all where a sample in place is
// so short that the one behind it could be written over before it is read. Samples of more than CTR_PART bytes are
// encrypted alone, by groups of eight registers, the last of which has masks instead of as many registers as it needs.

enum {
  BATCH = 128,    // samples of a list, at most
  LISTED = 1280,  // pieces after which no other sample is listed
  LONG_GROUP = 8, // registers of a group of a long sample
  FLAT_AHEAD = SRC_AHEAD + 2048, // bytes between a piece and the source line asked for; listing asks for the first of them
};

_Static_assert(16 * BATCH <= 1 << 16 && CTR_PART <= 1 << 16 && BATCH * CTR_PART < UINT32_MAX, "a piece is 64 bits");

struct flat {
  _Alignas(64) uint8_t base[BATCH][16]; // of a sample: what two rounds make of its first counter
  uint8_t second[CTR_PART / 64][64];    // what a last byte adds to that, a register a piece
  uint64_t piece[LISTED + CTR_PART / 64 + 8]; // offset from src | in `second` << 32 | in `base` << 48
  unsigned num_base, num_second;        // how many are made
  unsigned most_second;                 // and were, for other IVs
  uint64_t iv;                          // for which `second` is
};

INLINE __m512i two_rounds(const struct keys *k, __m512i counter) {
  return _mm512_aesenc_epi128(_mm512_aesenc_epi128(_mm512_xor_si512(counter, k->k[0]), k->k[1]), k->k[2]);
}

// Every load of a key in a loop with stores would take slots.
INLINE struct keys keep_keys(const struct keys *keys) {
  struct keys k = *keys;
  UNROLL for (int r = 3; r < 11; r++)
    PIN(k.k[r]);
  return k;
}

__attribute__((noinline)) static void second_extend(struct flat *f, const struct keys *k, unsigned num) {
  const __m512i iv = _mm512_set1_epi64((long long)__builtin_bswap64(f->iv));
  const __m512i high = _mm512_mask_mov_epi64(_mm512_setzero_si512(), 0x55, iv);
  const __m512i zero = two_rounds(k, high);
  for (; f->num_second < num; f->num_second++) {
    __m512i low = _mm512_add_epi64(_mm512_set_epi64(3, 0, 2, 0, 1, 0, 0, 0), _mm512_set1_epi64(4 * f->num_second));
    __m512i x = _mm512_xor_si512(high, _mm512_maskz_slli_epi64(0xaa, low, 56));
    _mm512_store_si512(f->second[f->num_second], _mm512_xor_si512(two_rounds(k, x), zero));
  }
  f->most_second = num > f->most_second ? num : f->most_second;
}

// ---- Pieces

INLINE size_t piece_off(uint64_t piece) {
  return (uint32_t)piece;
}

INLINE __mmask64 piece_mask(const uint64_t *piece) {
  return _bzhi_u64(~UINT64_C(0), (unsigned)(piece[1] - piece[0]));
}

INLINE __m512i piece_start(const struct flat *f, uint64_t piece) {
  __m512i base = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)((const uint8_t *)f->base + (piece >> 48))));
  return _mm512_xor_si512(base, _mm512_load_si512((const uint8_t *)f->second + _bextr_u64(piece, 32, 16)));
}

INLINE void pieces_load(__m512i data[GROUP], const struct keys *k, const uint64_t *p, const uint8_t *src) {
  UNROLL for (int i = 0; i < GROUP; i++) {
    __builtin_prefetch(src + piece_off(p[i]) + FLAT_AHEAD);
    data[i] = _mm512_xor_si512(_mm512_loadu_si512(src + piece_off(p[i])), k->k[10]);
  }
}

// From p to end, at least one and a multiple of GROUP, in whole. In place, each is read before the one in front of it is
// written, which may write over its start; and no load waits for a store to the same bytes.
INLINE void pieces_whole(const struct keys *keys, const struct flat *f, const uint64_t *p, const uint64_t *end, uint8_t *dst,
                         const uint8_t *src, const bool in_place) {
  const struct keys k = keep_keys(keys);
  __m512i x[GROUP], data[GROUP];
  if (in_place)
    pieces_load(data, &k, p, src);
  for (const uint64_t *next; p < end; p = next) {
    size_t off[GROUP];
    next = p + GROUP;
    if (!in_place)
      pieces_load(data, &k, p, src);
    UNROLL for (int i = 0; i < GROUP; i++) {
      off[i] = piece_off(p[i]);
      x[i] = piece_start(f, p[i]);
    }
    UNROLL for (int r = 3; r < 10; r++)
      UNROLL for (int i = 0; i < GROUP; i++)
        x[i] = _mm512_aesenc_epi128(x[i], k.k[r]);
    UNROLL for (int i = 0; i < GROUP; i++)
      x[i] = _mm512_aesenclast_epi128(x[i], data[i]);
    if (in_place)
      pieces_load(data, &k, next < end ? next : p, src);
    UNROLL for (int i = 0; i < GROUP; i++)
      _mm512_storeu_si512(dst + off[i], x[i]);
  }
}

__attribute__((noinline)) static void pieces_apart(const struct keys *k, const struct flat *f, const uint64_t *p,
                                                   const uint64_t *end, uint8_t *dst, const uint8_t *src) {
  pieces_whole(k, f, p, end, dst, src, false);
}

__attribute__((noinline)) static void pieces_in_place(const struct keys *k, const struct flat *f, const uint64_t *p,
                                                      const uint64_t *end, uint8_t *dst) {
  pieces_whole(k, f, p, end, dst, dst, true);
}

// One by one, and nothing beyond their ends.
__attribute__((noinline)) static void pieces_masked(const struct keys *k, const struct flat *f, const uint64_t *p,
                                                    const uint64_t *end, uint8_t *dst, const uint8_t *src) {
  for (; p < end; p++) {
    __mmask64 mask = piece_mask(p);
    __m512i x = piece_start(f, *p), data = _mm512_maskz_loadu_epi8(mask, src + piece_off(*p));
    UNROLL for (int r = 3; r < 10; r++)
      x = _mm512_aesenc_epi128(x, k->k[r]);
    _mm512_mask_storeu_epi8(dst + piece_off(*p), mask, _mm512_aesenclast_epi128(x, _mm512_xor_si512(data, k->k[10])));
  }
}

// Lists the pieces of a sample, and up to eight that count for nothing. Returns how many it has.
INLINE unsigned list_sample(uint64_t *piece, uint32_t off, unsigned base, uint32_t len) {
  const long long next = 64LL << 32 | 64;
  const __m512i steps = _mm512_set_epi64(7 * next, 6 * next, 5 * next, 4 * next, 3 * next, 2 * next, next, 0);
  unsigned num = (len + 63) / 64;
  __m512i x = _mm512_add_epi64(_mm512_set1_epi64((long long)(off | (uint64_t)base << (48 + 4))), steps);
  _mm512_storeu_si512(piece, x);
  for (unsigned i = 8; i < num; i += 8)
    _mm512_storeu_si512(piece + i, x = _mm512_add_epi64(x, _mm512_set1_epi64(8 * next)));
  return num;
}

// Lists samples from `from` on and encrypts them. Returns how many, and in *bytes how long they are.
INLINE unsigned list_run(const struct keys *k, struct flat *f, const struct aes_ctr_seg *given, size_t from, size_t to,
                         uint8_t *dst, const uint8_t *src, size_t *bytes, const bool in_place) {
  const __m512i to_high = _mm512_broadcast_i32x4(_mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, -1, -1, -1, -1, -1, -1, -1, -1));
  const struct aes_ctr_seg seg = *given; // no store can change it
  const unsigned most = to - from < BATCH ? (unsigned)(to - from) : BATCH;
  unsigned num = 0, samples = 0, longest = 0;
  uint32_t off = 0, len = UINT32_MAX, least = UINT32_MAX; // but for the last sample
  for (; samples < most && num < LISTED; samples++) {
    uint32_t before = len;
    len = aes_ctr_size(&seg, from + samples);
    if (__builtin_expect(len > CTR_PART, 0))
      break;
    least = before < least ? before : least;
    __builtin_prefetch(src + SRC_AHEAD + 64 * samples); // memory must not idle meanwhile
    unsigned pieces = list_sample(f->piece + num, off, samples, len);
    longest = pieces > longest ? pieces : longest;
    num += pieces;
    off += len;
  }
  for (size_t at = SRC_AHEAD + 64 * samples; at < FLAT_AHEAD && at < off; at += 64)
    __builtin_prefetch(src + at);
  f->piece[num] = off;
  *bytes = off;
  if (longest > f->num_second)
    second_extend(f, k, (longest + 3) & ~3u);
  for (unsigned i = 0; i < samples; i += 4) {
    __m512i x = _mm512_set1_epi64((long long)(seg.iv + from + i));
    x = _mm512_shuffle_epi8(_mm512_add_epi64(x, _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0)), to_high);
    _mm512_store_si512(f->base[i], two_rounds(k, x));
  }
  f->num_base = samples > f->num_base ? samples : f->num_base;
  unsigned whole = num;
  while (whole && piece_off(f->piece[whole - 1]) + 64 > off)
    whole--;
  whole &= ~(GROUP - 1u);
  if (in_place) {
    // Pieces one by one are read after all of these are written.
    while (whole && piece_off(f->piece[whole - 1]) + 64 > piece_off(f->piece[whole]))
      whole -= GROUP;
    // A last piece writes over the start of the next one, but not of one behind that.
    whole = least < 64 ? 0 : whole;
  }
  if (whole && in_place)
    pieces_in_place(k, f, f->piece, f->piece + whole, dst);
  else if (whole)
    pieces_apart(k, f, f->piece, f->piece + whole, dst, src);
  pieces_masked(k, f, f->piece + whole, f->piece + num, dst, src);
  return samples;
}

// ---- Long samples

INLINE void long_group(const struct keys *k, __m512i base, const uint8_t (*second)[64], uint8_t *dst, const uint8_t *src,
                       size_t len, const bool whole) {
  __m512i x[LONG_GROUP];
  size_t off[LONG_GROUP];
  __mmask64 mask[LONG_GROUP];
  UNROLL for (size_t i = 0; i < LONG_GROUP; i++) {
    size_t left = len > 64 * i ? len - 64 * i : 0;
    off[i] = whole || left ? 64 * i : 0;
    mask[i] = _bzhi_u64(~UINT64_C(0), left < 64 ? (unsigned)left : 64);
    __builtin_prefetch(src + off[i] + SRC_AHEAD);
    x[i] = _mm512_xor_si512(base, _mm512_load_si512(second[i]));
  }
  UNROLL for (int r = 3; r < 10; r++)
    UNROLL for (int i = 0; i < LONG_GROUP; i++)
      x[i] = _mm512_aesenc_epi128(x[i], k->k[r]);
  UNROLL for (int i = 0; i < LONG_GROUP; i++) {
    __m512i data = whole ? _mm512_loadu_si512(src + off[i]) : _mm512_maskz_loadu_epi8(mask[i], src + off[i]);
    x[i] = _mm512_aesenclast_epi128(x[i], _mm512_xor_si512(data, k->k[10]));
  }
  UNROLL for (int i = 0; i < LONG_GROUP; i++)
    if (whole)
      _mm512_storeu_si512(dst + off[i], x[i]);
    else
      _mm512_mask_storeu_epi8(dst + off[i], mask[i], x[i]);
}

// A sample of more than CTR_PART bytes.
__attribute__((noinline)) static void long_sample(const struct keys *keys, struct flat *f, uint64_t iv, uint8_t *dst,
                                                  const uint8_t *src, size_t len) {
  enum { BYTES = 64 * LONG_GROUP };
  const struct keys k = keep_keys(keys);
  if (f->num_second < CTR_PART / 64)
    second_extend(f, keys, CTR_PART / 64);
  for (uint64_t counter = 0; len; counter += CTR_PART / 16) {
    size_t part = len < CTR_PART ? len : CTR_PART;
    const uint8_t(*second)[64] = f->second;
    __m128i first = _mm_set_epi64x((long long)__builtin_bswap64(counter), (long long)__builtin_bswap64(iv));
    __m512i base = two_rounds(keys, _mm512_broadcast_i32x4(first));
    len -= part;
    for (; part >= BYTES; part -= BYTES, src += BYTES, dst += BYTES, second += LONG_GROUP)
      long_group(&k, base, second, dst, src, part, true);
    if (part)
      long_group(&k, base, second, dst, src, part, false);
    src += part;
    dst += part;
  }
}

// ---- Bursts

__attribute__((noinline)) static unsigned list_apart(const struct keys *k, struct flat *f, const struct aes_ctr_seg *seg,
                                                     size_t from, size_t to, uint8_t *dst, const uint8_t *src,
                                                     size_t *bytes) {
  return list_run(k, f, seg, from, to, dst, src, bytes, false);
}

__attribute__((noinline)) static unsigned list_in_place(const struct keys *k, struct flat *f, const struct aes_ctr_seg *seg,
                                                        size_t from, size_t to, uint8_t *dst, size_t *bytes) {
  return list_run(k, f, seg, from, to, dst, dst, bytes, true);
}

static void ctr_segment(const struct keys *k, struct flat *f, const struct aes_ctr_seg *seg) {
  const uint8_t *src = seg->src;
  uint8_t *dst = seg->dst;
  for (size_t i = 0, to; i < seg->num;) {
    uint64_t iv = seg->iv + i;
    if ((iv ^ f->iv) & UINT64_C(0xff00000000ff0000)) // its bytes 0 and 5
      f->num_second = 0;
    f->iv = iv;
    to = i + 0x10000 - (iv & 0xffff);
    to = to < seg->num ? to : seg->num;
    while (i < to) {
      size_t bytes, len = aes_ctr_size(seg, i);
      if (len > CTR_PART) {
        long_sample(k, f, seg->iv + i, dst, src, len);
        bytes = len;
        i++;
      } else {
        i += src == dst ? list_in_place(k, f, seg, i, to, dst, &bytes) : list_apart(k, f, seg, i, to, dst, src, &bytes);
      }
      src += bytes;
      dst += bytes;
    }
  }
}

static void ctr_two_wide(const struct aes_key *key, const struct aes_ctr_seg *segs, size_t num, struct aes_ahead *ahead) {
  struct keys k;
  load_keys(&k, key->enc);
  struct flat f;
  f.num_base = f.num_second = f.most_second = 0;
  f.iv = 0;
  for (size_t s = 0, n; s < num; s += n) {
    for (n = 0; s + n < num && segs[s + n].ivs;)
      n++;
    if (n) { // whose counters may start anywhere
      ctr(key, segs + s, n, NULL);
    } else {
      ctr_segment(&k, &f, &segs[s]);
      n = 1;
    }
  }
  ask_ahead(ahead);
  wipe(f.base, (f.num_base + 3) / 4);
  wipe(f.second, f.most_second);
  wipe_keys(&k);
}
