#include "manifest/track.h"

#include "drm/markup.h"
#include "mp4/codec.h"

enum { MAX_WINDOW = 64 }; // runs of segments that are tried from each segment for the peak rate

static uint64_t frag_ticks(const struct ix_frag *frags, uint32_t first, uint32_t end) {
  uint64_t sum = 0;
  for (uint32_t f = first; f < end; f++)
    sum += frags[f].duration_ticks;
  return sum;
}

uint64_t man_gap_ticks(const struct man_track *t, uint32_t seg) {
  uint32_t first = t->segs->first_frag[seg], end = t->segs->first_frag[seg + 1];
  if (end >= t->ix->h->num_frags)
    return 0;
  const struct ix_frag *last = &t->ix->frags[end - 1];
  while (last > t->ix->frags + first && last[1].first_sample == last->first_sample) // no samples, and the next one's time
    last--;
  uint64_t last_end = last->time_ticks + last->duration_ticks, next = t->ix->frags[end].time_ticks;
  uint64_t gap = next > last_end ? next - last_end : 0;
  return gap >= t->ix->h->frame_samples ? gap : 0;
}

uint64_t man_seg_ticks(const struct man_track *t, uint32_t seg) {
  const struct ix_frag *frags = t->ix->frags;
  uint32_t first = t->segs->first_frag[seg], end = t->segs->first_frag[seg + 1];
  if (frags[end].time_ticks > frags[first].time_ticks) // behind the last fragment: its end
    return frags[end].time_ticks - frags[first].time_ticks - man_gap_ticks(t, seg);
  return frag_ticks(frags, first, end);
}

static uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c, bool up) {
  if (!c)
    return 0;
  unsigned __int128 v = (unsigned __int128)a * b + (up ? c - 1 : 0);
  v /= c;
  return v > UINT64_MAX ? UINT64_MAX : (uint64_t)v;
}

uint64_t man_us(uint64_t ticks, uint32_t timescale) { return mul_div(ticks, 1000000, timescale, false); }

void man_write_seconds(struct writer *w, uint64_t us) {
  char frac[7] = ".000000";
  uint64_t v = us % 1000000;
  for (int i = 6; i > 0; i--, v /= 10)
    frac[i] = (char)('0' + v % 10);
  wr_dec(w, us / 1000000);
  wr_raw(w, frac, 7);
}

// A run of segments: what it lasts and holds.
struct window {
  uint32_t end; // behind its last segment
  uint64_t ticks, bytes;
};

static void window_grow(struct window *w, const struct man_track *t) {
  w->ticks += man_seg_ticks(t, w->end);
  w->bytes += plan_segment_range(t->plan, w->end).len;
  w->end++;
}

static uint64_t rate_of(const struct window *w, uint32_t timescale) {
  return mul_div(w->bytes * 8, timescale, w->ticks, true);
}

// The largest rate of contiguous segments that together last half to one and a half times `target` ticks. The
// shortest such run from each segment slides along; from there at most MAX_WINDOW longer ones are looked at.
static uint64_t peak_rate(const struct man_track *t, uint64_t target) {
  struct window low = {0};
  uint64_t peak = 0;
  for (uint32_t i = 0; i < t->segs->num; i++) {
    while (low.end < t->segs->num && 2 * low.ticks < target)
      window_grow(&low, t);
    struct window w = low;
    for (uint32_t n = 0; n < MAX_WINDOW && 2 * w.ticks >= target && 2 * w.ticks <= 3 * target; n++) {
      uint64_t rate = rate_of(&w, t->ix->h->timescale);
      peak = rate > peak ? rate : peak;
      if (w.end == t->segs->num)
        break;
      window_grow(&w, t);
    }
    low.ticks -= man_seg_ticks(t, i);
    low.bytes -= plan_segment_range(t->plan, i).len;
  }
  return peak;
}

uint64_t man_longest_us(const struct man_track *t) {
  uint64_t longest = 0;
  for (uint32_t i = 0; i < t->segs->num; i++) {
    uint64_t d = man_seg_ticks(t, i);
    longest = d > longest ? d : longest;
  }
  return mul_div(longest, 1000000, t->ix->h->timescale, true);
}

// Rounded to the nearest second, as EXTINF is when it is compared with it (RFC 8216bis §4.4.3.1), not up: frames that do not
// divide a second make segments of 2.005 s in one codec and of 2 s in another, and all renditions must have one target duration
// (§6.2.4), although none knows the others here.
uint64_t man_target_s(const struct man_track *t) {
  uint64_t us = man_longest_us(t);
  return us < 1000000 ? 1 : us / 1000000 + (us % 1000000 >= 500000);
}

struct man_rate man_rate(const struct man_track *t) {
  uint32_t timescale = t->ix->h->timescale;
  struct window all = {0};
  while (all.end < t->segs->num)
    window_grow(&all, t);
  struct man_rate r = {.average = rate_of(&all, timescale), .peak = peak_rate(t, man_target_s(t) * timescale)};
  if (r.peak < r.average)
    r.peak = r.average;
  return r;
}

static bool is_lossless(const struct ix_header *h) {
  return h->format == FOURCC('f', 'L', 'a', 'C') || h->format == FOURCC('a', 'l', 'a', 'c');
}

struct bytes man_text(const char *s, size_t cap) { return bytes_of(s, strnlen(s, cap)); }

// Decoders that everything has come first.
static uint32_t format_rank(uint32_t format) {
  static const uint32_t order[] = {FOURCC('m', 'p', '4', 'a'), FOURCC('O', 'p', 'u', 's'), FOURCC('a', 'c', '-', '3'),
                                   FOURCC('e', 'c', '-', '3')};
  uint32_t i = 0;
  while (i < sizeof order / sizeof order[0] && order[i] != format)
    i++;
  return i;
}

uint32_t man_layout(const struct track_index *ix) {
  static const uint8_t usual[] = {0, 1, 2, 3, 4, 5, 6, 11, 12};
  if (ix->layout)
    return ix->layout == CODEC_LAYOUT_NONE ? 0 : ix->layout;
  return ix->h->channels < sizeof usual ? usual[ix->h->channels] : 0;
}

// By codec and channel layout. Atmos is a layout of its own: the set says whether its Representations have it.
static int kind_cmp(const struct track_index *a, const struct track_index *b) {
  const struct ix_header *x = a->h, *y = b->h;
  int c = (int)is_lossless(x) - (int)is_lossless(y);
  if (!c)
    c = (int)format_rank(x->format) - (int)format_rank(y->format);
  if (!c)
    c = (x->format > y->format) - (x->format < y->format);
  if (!c)
    c = strncmp(x->codecs, y->codecs, sizeof x->codecs);
  if (!c)
    c = (x->channels > y->channels) - (x->channels < y->channels);
  if (!c)
    c = (int)man_layout(a) - (int)man_layout(b);
  if (!c)
    c = (x->channel_mask > y->channel_mask) - (x->channel_mask < y->channel_mask);
  if (!c)
    c = (x->joc_complexity != 0) - (y->joc_complexity != 0);
  return c;
}

bool man_same_kind(const struct man_track *a, const struct man_track *b) { return kind_cmp(a->ix, b->ix) == 0; }

// The order of switching sets: 0 when two tracks share one. They do when codec, channel layout, language and key are
// the same. The language of `speaker` goes before others.
static int set_cmp(const struct man_track *a, const struct man_track *b, const struct man_track *speaker) {
  const struct ix_header *x = a->ix->h, *y = b->ix->h;
  int c = kind_cmp(a->ix, b->ix);
  if (!c && speaker)
    c = (int)man_same_language(b, speaker) - (int)man_same_language(a, speaker);
  if (!c)
    c = strncmp(x->language, y->language, sizeof x->language);
  if (!c && a->key && b->key)
    c = memcmp(a->key->kid, b->key->kid, 16);
  return c;
}

static int name_cmp(struct bytes a, struct bytes b) {
  size_t n = a.n < b.n ? a.n : b.n;
  int c = n ? memcmp(a.p, b.p, n) : 0;
  return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int track_cmp(const struct man_track *a, const struct man_track *b, const struct man_track *speaker) {
  int c = set_cmp(a, b, speaker);
  if (!c)
    c = (a->ix->h->avg_bitrate > b->ix->h->avg_bitrate) - (a->ix->h->avg_bitrate < b->ix->h->avg_bitrate);
  return c ? c : name_cmp(a->name, b->name);
}

void man_order(struct man_order *o, const struct man_asset *a) {
  *o = (struct man_order){.num = 0};
  uint8_t first = man_default_language(a);
  o->speaker = first == MAN_NO_TRACK ? NULL : &a->tracks[first];
  for (uint32_t t = 0; t < a->num_tracks && t < MAN_MAX_TRACKS; t++) {
    uint32_t i = o->num++;
    for (; i && track_cmp(&a->tracks[t], &a->tracks[o->at[i - 1]], o->speaker) < 0; i--)
      o->at[i] = o->at[i - 1];
    o->at[i] = (uint8_t)t;
  }
  for (uint32_t i = 1; i < o->num; i++)
    o->set[i] = (uint8_t)(o->set[i - 1] + (set_cmp(&a->tracks[o->at[i - 1]], &a->tracks[o->at[i]], o->speaker) != 0));
}

void man_uri_track(struct writer *w, const struct man_asset *a, const struct man_track *t) {
  wr_dec(w, a->epoch);
  wr_u8(w, '/');
  percent_write(w, t->name, false);
}

bool man_starts_sync(const struct man_track *t) {
  for (uint32_t i = 0; i < t->segs->num; i++)
    if (!ix_starts_sync(t->ix, t->segs->first_frag[i], t->segs->first_frag[i + 1]))
      return false;
  return true;
}
