// Cutting long samples in two, so that all lanes end at the same time; included by cbc_wide.h, whose list it changes.
//
// Long samples in few rounds of jobs leave lanes idle at the end: of 44 on 24 lanes, four have one and twenty have two. All
// end at the same time where samples may be cut (McNaughton's rule for machines that may interrupt jobs): lanes are filled one
// after the other, up to the same length; what of a sample no longer fits is the beginning of the next lane, and the beginning
// of the sample. The end of the lane before is its rest, which begins later when no sample is longer than that length. The
// chain goes on from the ciphertext in memory.
//
// Until they end all lanes work, so that the loop changes to fewer registers only then (NEARLY), and never between a rest and
// what comes before it.

enum {
  CUT_MOST = 96,  // samples of a list in which some are cut in two
  CUT_LONG = 64,  // pairs of blocks such samples should have, on the average
  CUT_COST = 64,  // cycles for a lane, at the least to be gained
  CUT_LATER = 2,  // pairs of blocks between the end of a sample's first part and the start of its rest
};

_Static_assert(NEARLY >= 32, "lanes differ by a pair of blocks");

// In how many lanes, or 0 where it does not pay: by cycles for a pair of steps, against what the list should take without.
// Some lane has as many jobs as there are rounds of them, the shortest of those that fill the rounds before and of one more;
// the last round goes with fewer registers where it is not full.
INLINE unsigned cut_lanes(const struct list *l, unsigned lanes) {
  static const uint8_t cycles[REGS + 1] = {0, 80, 80, 81, 81, 84, 86, 92, 104};
  const unsigned num = l->num, before = (num - 1) / lanes * lanes, last = num - before;
  unsigned best = 0;
  uint64_t sum = 0, longest = 0, rows = 0;
  if (num <= 16 || num > CUT_MOST)
    return 0;
  for (unsigned i = 0; i < num; i++) {
    sum += l->len[i] / 32;
    longest = l->len[i] / 32 > longest ? l->len[i] / 32 : longest;
  }
  if (sum < (uint64_t)CUT_LONG * num || sum > UINT32_MAX / 32)
    return 0;
  for (unsigned i = 0; i <= before / lanes; i++)
    rows += l->len[before - i] / 32;
  rows = rows > longest ? rows : longest;
  const uint64_t mean = sum / num, rest = rows - mean;
  uint64_t least = before ? rest * cycles[lanes / 4] + mean * cycles[(last + 3) / 4]
                          : mean * cycles[(last + 3) / 4] + rest * cycles[(last + 7) / 8];
  for (unsigned r = 4; r <= REGS && sum / (4 * r) >= longest + CUT_LATER; r++) {
    uint64_t cost = sum / (4 * r) * cycles[r] + (uint64_t)4 * r * CUT_COST;
    cost += cost / 16; // for what is not foreseen
    if (cost < least) {
      least = cost;
      best = 4 * r;
    }
  }
  return best;
}

// Cuts the samples of the list for so many lanes. Jobs are in the order in which lanes take them: by time, then by lane.
__attribute__((noinline)) static void cut(struct list *l, unsigned lanes) {
  struct part {
    uint64_t src, dst;
    uint32_t len, end;
    bool rest;
  } parts[CUT_MOST];
  _Alignas(64) uint32_t order[CUT_MOST + 16]; // of those that are not a lane's first: when they start, and the lane
  struct {
    uint64_t src[LANES + 1], dst[LANES + 1];
    uint32_t len[LANES + 1], end[LANES + 1];
  } firsts; // of each lane
  uint64_t sum = 0;
  for (unsigned i = 0; i < l->num; i++)
    sum += l->len[i] / 32;
  const uint64_t each = sum / lanes * 32; // bytes; the first lanes have another 32
  const unsigned longer = (unsigned)(sum % lanes);
  unsigned n = 0, lane = 0;
  uint64_t at = 0;
  for (unsigned i = 0; i < l->num; i++) {
    uint64_t room = each + (lane < longer ? 32 : 0) - at;
    uint32_t len = l->len[i], first = len > room ? len - (uint32_t)room : 0;
    firsts.src[lane + 1] = l->src[i]; // for nothing where it is not cut
    firsts.dst[lane + 1] = l->dst[i];
    firsts.len[lane + 1] = first;
    firsts.end[lane + 1] = first - 16;
    if (__builtin_expect(at == 0, 0)) {
      firsts.src[lane] = l->src[i];
      firsts.dst[lane] = l->dst[i];
      firsts.len[lane] = len;
      firsts.end[lane] = l->end[i];
    } else {
      parts[n] = (struct part){l->src[i] + first, l->dst[i] + first, len - first, l->end[i] - first, first != 0};
      order[n++] = (uint32_t)at | lane;
    }
    at = len < room ? at + len : first;
    lane += len >= room;
  }
  _mm512_storeu_si512(order + n, _mm512_set1_epi32(-1));
  UNROLL for (unsigned i = 0; i < LANES; i += 8) {
    _mm512_storeu_si512(l->src + i, _mm512_loadu_si512(firsts.src + i));
    _mm512_storeu_si512(l->dst + i, _mm512_loadu_si512(firsts.dst + i));
    _mm256_storeu_si256((__m256i *)(l->len + i), _mm256_loadu_si256((const __m256i *)(firsts.len + i)));
    _mm256_storeu_si256((__m256i *)(l->end + i), _mm256_loadu_si256((const __m256i *)(firsts.end + i)));
  }
  uint64_t rest[2] = {0, 0};
  for (unsigned i = 0; i < n; i++) {
    const __m512i own = _mm512_set1_epi32((int)order[i]);
    unsigned pos = lanes;
    for (unsigned j = 0; j < n; j += 16)
      pos += (unsigned)__builtin_popcount(_mm512_cmplt_epu32_mask(_mm512_load_si512(order + j), own));
    l->src[pos] = parts[i].src;
    l->dst[pos] = parts[i].dst;
    l->len[pos] = parts[i].len;
    l->end[pos] = parts[i].end;
    uint64_t bit = (uint64_t)parts[i].rest << pos % 64;
    rest[0] |= pos < 64 ? bit : 0;
    rest[1] |= pos < 64 ? 0 : bit;
  }
  n += lanes;
  memset(l->rest, 0, sizeof l->rest);
  memcpy(l->rest, rest, sizeof rest);
  l->num = n;
  l->cut = true;
}
