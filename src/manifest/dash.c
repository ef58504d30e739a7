// DASH. One AdaptationSet for each switching set (codec, channels, language, key), one Representation for each track.
// Two forms: SegmentTemplate with $Number$ and a SegmentTimeline, and on-demand, one file with its sidx.
// Source: ISO/IEC 23009-1 §5.3, §5.8.4.1 (ContentProtection), §5.8.5.4 (AudioChannelConfiguration), §8.3 (on-demand profile),
// §8.4 (live profile).
#include "base/text.h"
#include "drm/markup.h"
#include "manifest/track.h"

static void attr_num(struct writer *w, const char *name, uint64_t v) {
  wr_u8(w, ' ');
  wr_str(w, name);
  wr_str(w, "=\"");
  wr_dec(w, v);
  wr_u8(w, '"');
}

static void attr_text(struct writer *w, const char *name, struct bytes text) {
  wr_u8(w, ' ');
  wr_str(w, name);
  wr_str(w, "=\"");
  xml_write(w, text);
  wr_u8(w, '"');
}

static void attr_duration(struct writer *w, const char *name, uint64_t us) {
  wr_u8(w, ' ');
  wr_str(w, name);
  wr_str(w, "=\"PT");
  man_write_seconds(w, us);
  wr_str(w, "S\"");
}

// Timelines are in presentation time, decode time less what the edit list skips. A decoder presents the first sample at
// start - skip, which a timeline of unsigned numbers can only say for starts that are late enough: clipped at 0. Empty edits delay all
// of it: the Period starts where the track would without them. Source: ISO/IEC 14496-12 8.6.6.
struct media_time {
  uint64_t start, skip; // decode time of the first sample; what is taken off
  uint64_t origin;      // what the Period starts at
  uint64_t delay;       // from there to the first sample
};

static struct media_time media_time(const struct man_track *t) {
  struct media_time m = {t->ix->h->num_frags ? t->ix->frags[0].time_ticks : 0, ix_skipped(t->ix, t->segs), 0, t->ix->delay};
  m.origin = ix_presented(m.start, m.skip);
  return m;
}

// What the presentation of a track lasts, in microseconds.
static uint64_t presented_us(const struct man_track *t) {
  uint64_t ticks = 0;
  for (uint32_t i = 0; i < t->segs->num; i++)
    ticks += man_seg_ticks(t, i) + man_gap_ticks(t, i);
  struct media_time m = media_time(t);
  return man_us(ix_presented(m.start + ticks, m.skip) - m.origin + m.delay, t->ix->h->timescale);
}

// One S element for each run of equal durations. The first and those behind gaps say when they begin.
// Source: ISO/IEC 23009-1 §5.3.9.6.
static void write_timeline(struct writer *w, const struct man_track *t) {
  struct media_time m = media_time(t);
  uint64_t at = m.start, run_at = m.origin, run_d = 0, run = 0, gap = 0;
  bool say_at = true;
  wr_str(w, "<SegmentTimeline>\n");
  for (uint32_t i = 0; i <= t->segs->num; i++) {
    uint64_t next = i < t->segs->num ? at + man_seg_ticks(t, i) : at;
    uint64_t d = ix_presented(next, m.skip) - ix_presented(at, m.skip);
    if (run && (i == t->segs->num || d != run_d || gap)) {
      wr_str(w, "<S");
      if (say_at)
        attr_num(w, "t", run_at + m.delay);
      attr_num(w, "d", run_d);
      if (run > 1)
        attr_num(w, "r", run - 1);
      wr_str(w, "/>\n");
      run = 0;
      say_at = gap != 0;
      run_at = ix_presented(at, m.skip);
    }
    run_d = d;
    run++;
    gap = i < t->segs->num ? man_gap_ticks(t, i) : 0;
    at = next + gap;
  }
  wr_str(w, "</SegmentTimeline>\n");
}

static bool same_timeline(const struct man_track *a, const struct man_track *b) {
  struct media_time ma = media_time(a), mb = media_time(b);
  if (a->segs->num != b->segs->num || a->ix->h->timescale != b->ix->h->timescale || ma.skip != mb.skip || ma.origin != mb.origin ||
      ma.delay != mb.delay)
    return false;
  for (uint32_t i = 0; i < a->segs->num; i++)
    if (man_seg_ticks(a, i) != man_seg_ticks(b, i) || man_gap_ticks(a, i) != man_gap_ticks(b, i))
      return false;
  return true;
}

// Whether segment n of one track begins where segment n of the other does, for all n, in presentation time: no segment of
// one overlaps two of the other. What is presented longer at the end does not matter. Source: ISO/IEC 23009-1 §5.3.3.2.
static bool aligned(const struct man_track *a, const struct man_track *b) {
  if (a->segs->num != b->segs->num)
    return false;
  struct media_time ma = media_time(a), mb = media_time(b);
  uint64_t ta = ma.start, tb = mb.start;
  for (uint32_t i = 0; i < a->segs->num; i++) {
    uint64_t pa = ix_presented(ta, ma.skip) - ma.origin + ma.delay, pb = ix_presented(tb, mb.skip) - mb.origin + mb.delay;
    if ((unsigned __int128)pa * b->ix->h->timescale != (unsigned __int128)pb * a->ix->h->timescale)
      return false;
    ta += man_seg_ticks(a, i) + man_gap_ticks(a, i);
    tb += man_seg_ticks(b, i) + man_gap_ticks(b, i);
  }
  return true;
}

// `t` NULL: for the whole set, by $RepresentationID$. Source: ISO/IEC 23009-1 §5.3.9.4.
static void write_template(struct writer *w, const struct man_asset *a, const struct man_track *t,
                           const struct man_track *timing) {
  static const char *const file[] = {"init.mp4", "$Number$.m4s"}, *const name[] = {"initialization", "media"};
  struct media_time m = media_time(timing);
  wr_str(w, "<SegmentTemplate");
  attr_num(w, "timescale", timing->ix->h->timescale);
  if (m.origin)
    attr_num(w, "presentationTimeOffset", m.origin);
  attr_num(w, "startNumber", 1);
  for (int i = 0; i < 2; i++) {
    wr_u8(w, ' ');
    wr_str(w, name[i]);
    wr_str(w, "=\"");
    wr_dec(w, a->epoch);
    wr_u8(w, '/');
    if (t)
      percent_write(w, t->name, false);
    else
      wr_str(w, "$RepresentationID$");
    wr_u8(w, '/');
    wr_str(w, file[i]);
    wr_u8(w, '"');
  }
  wr_str(w, ">\n");
  write_timeline(w, timing);
  wr_str(w, "</SegmentTemplate>\n");
}

static void write_range(struct writer *w, const char *name, struct plan_range r) {
  wr_u8(w, ' ');
  wr_str(w, name);
  wr_str(w, "=\"");
  wr_dec(w, r.off);
  wr_u8(w, '-');
  wr_dec(w, r.off + r.len - 1);
  wr_u8(w, '"');
}

// Source: ISO/IEC 23009-1 §5.3.9.2, §5.6 (BaseURL).
static void write_base(struct writer *w, const struct man_asset *a, const struct man_track *t) {
  struct media_time m = media_time(t);
  wr_str(w, "<BaseURL>");
  man_uri_track(w, a, t);
  wr_str(w, ".mp4</BaseURL>\n<SegmentBase");
  attr_num(w, "timescale", t->ix->h->timescale);
  if (m.origin)
    attr_num(w, "presentationTimeOffset", m.origin);
  write_range(w, "indexRange", plan_sidx_range(t->plan));
  wr_str(w, ">\n<Initialization");
  write_range(w, "range", plan_init_range(t->plan));
  wr_str(w, "/>\n</SegmentBase>\n");
}

static void channel_configuration(struct writer *w, const char *scheme, const char *value) {
  wr_str(w, "<AudioChannelConfiguration schemeIdUri=\"");
  wr_str(w, scheme);
  wr_str(w, "\" value=\"");
  wr_str(w, value);
  wr_str(w, "\"/>\n");
}

// AC-3 and E-AC-3: Dolby's mask of speakers. Others: ChannelConfiguration of ISO/IEC 23003-3 (= 23091-3) up to 5.1, where it
// is the number of channels; above that the same table by its newer name, because players take the value of the older one
// for a count.
static void write_channels(struct writer *w, const struct track_index *ix) {
  char value[8] = {0};
  struct writer v = wr_of(value, sizeof value - 1);
  uint32_t layout = man_layout(ix);
  if (ix->h->channel_mask) {
    uint8_t mask[2];
    store_be16(mask, (uint16_t)ix->h->channel_mask);
    hex_write_upper(&v, bytes_of(mask, 2));
    channel_configuration(w, "tag:dolby.com,2014:dash:audio_channel_configuration:2011", value);
  } else if (layout) {
    wr_dec(&v, layout);
    channel_configuration(w, layout <= 6 ? "urn:mpeg:dash:23003:3:audio_channel_configuration:2011" : "urn:mpeg:mpegB:cicp:ChannelConfiguration",
                          value);
  }
}

// Dolby Atmos in E-AC-3. Source: ETSI TS 103 420 §C. The complexity is said of what has it: of the set where it is the same in
// all of it, else of each Representation.
static void write_joc_complexity(struct writer *w, const struct ix_header *h) {
  wr_str(w, "<SupplementalProperty schemeIdUri=\"tag:dolby.com,2018:dash:EC3_ExtensionComplexityIndex:2018\" value=\"");
  wr_dec(w, h->joc_complexity);
  wr_str(w, "\"/>\n");
}

static void write_joc(struct writer *w, const struct ix_header *h, bool complexity) {
  if (!h->joc_complexity)
    return;
  wr_str(w, "<SupplementalProperty schemeIdUri=\"tag:dolby.com,2018:dash:EC3_ExtensionType:2018\" value=\"JOC\"/>\n");
  if (complexity)
    write_joc_complexity(w, h);
}

// What all Representations of a set have in common.
struct set_has {
  bool timeline, boundaries, complexity, sync;
};

// Source: ISO/IEC 23009-1 §5.3.5.
static void write_representation(struct writer *w, const struct man_asset *a, const struct man_track *t,
                                 enum man_form form, const struct set_has *has) {
  wr_str(w, "<Representation id=\"");
  percent_write(w, t->name, false);
  wr_str(w, "\"");
  uint64_t rate = man_rate(t).peak;
  attr_num(w, "bandwidth", rate < UINT32_MAX ? rate : UINT32_MAX); // an xs:unsignedInt
  if (t->ix->h->sample_rate)
    attr_num(w, "audioSamplingRate", t->ix->h->sample_rate);
  wr_str(w, ">\n");
  if (!has->complexity)
    write_joc_complexity(w, t->ix->h);
  if (form == MAN_RANGES)
    write_base(w, a, t);
  else if (!has->timeline)
    write_template(w, a, t, t);
  wr_str(w, "</Representation>\n");
}

// Sets of one language and channel count that differ in their key are tied, so that players may switch between them.
static bool tied(const struct man_track *a, const struct man_track *b) {
  return a->key && b->key && memcmp(a->key->kid, b->key->kid, 16) != 0 && a->ix->h->channels == b->ix->h->channels &&
         strncmp(a->ix->h->language, b->ix->h->language, sizeof a->ix->h->language) == 0;
}

static void write_switching(struct writer *w, const struct man_asset *a, const struct man_order *o, uint32_t first) {
  bool any = false;
  for (uint32_t i = 0; i < o->num; i++) {
    bool leads = !i || o->set[i] != o->set[i - 1];
    if (!leads || o->set[i] == o->set[first] || !tied(&a->tracks[o->at[first]], &a->tracks[o->at[i]]))
      continue;
    wr_str(w, any ? "," : "<SupplementalProperty schemeIdUri=\"urn:mpeg:dash:adaptation-set-switching:2016\" value=\"");
    wr_dec(w, o->set[i] + 1u);
    any = true;
  }
  if (any)
    wr_str(w, "\"/>\n");
}

// What is presented if nobody chooses is `main`: one language, the same as in HLS; the others are `alternate` to it. Source: ISO/IEC
// 23009-1 §5.8.5.5.
static void write_role(struct writer *w, const struct man_order *o, const struct man_track *t) {
  wr_str(w, "<Role schemeIdUri=\"urn:mpeg:dash:role:2011\" value=\"");
  wr_str(w, !o->speaker || man_same_language(t, o->speaker) ? "main\"/>\n" : "alternate\"/>\n");
}

// The set whose tracks are o->at[first] up to, not including, o->at[end]. Source: ISO/IEC 23009-1 §5.3.3.
static void write_set(struct writer *w, const struct man_asset *a, const struct man_order *o, uint32_t first,
                      uint32_t end, enum man_form form) {
  const struct man_track *lead = &a->tracks[o->at[first]];
  const struct ix_header *h = lead->ix->h;
  struct bytes lang = man_text(h->language, sizeof h->language);
  struct set_has has = {.timeline = form == MAN_SEGMENTS, .boundaries = true, .complexity = true, .sync = man_starts_sync(lead)};
  for (uint32_t i = first + 1; i < end; i++) {
    const struct man_track *t = &a->tracks[o->at[i]];
    has.timeline = has.timeline && same_timeline(lead, t);
    has.boundaries = has.boundaries && aligned(lead, t);
    has.sync = has.sync && man_starts_sync(t);
    has.complexity = has.complexity && t->ix->h->joc_complexity == h->joc_complexity;
  }
  wr_str(w, "<AdaptationSet");
  attr_num(w, "id", o->set[first] + 1u);
  wr_str(w, " contentType=\"audio\" mimeType=\"audio/mp4\"");
  attr_text(w, "codecs", man_text(h->codecs, sizeof h->codecs));
  if (lang.n && !bytes_eq(lang, BYTES_LIT("und")))
    attr_text(w, "lang", lang);
  if (has.boundaries)
    wr_str(w, form == MAN_SEGMENTS ? " segmentAlignment=\"true\"" : " subsegmentAlignment=\"true\"");
  if (has.sync)
    wr_str(w, form == MAN_SEGMENTS ? " startWithSAP=\"1\"" : " subsegmentStartsWithSAP=\"1\"");
  wr_str(w, ">\n");
  // The order of the schema: RepresentationBase first (channels, protection, properties), then Role, then segments.
  write_channels(w, lead->ix);
  if (lead->key)
    drm_mpd(w, &(struct drm_input){.key = lead->key, .set = a->drm});
  write_joc(w, h, has.complexity);
  write_switching(w, a, o, first);
  write_role(w, o, lead);
  if (has.timeline)
    write_template(w, a, NULL, lead);
  for (uint32_t i = first; i < end; i++)
    write_representation(w, a, &a->tracks[o->at[i]], form, &has);
  wr_str(w, "</AdaptationSet>\n");
}

// Source: ISO/IEC 23009-1 §5.3.1 (MPD), §5.3.2 (Period).
void man_dash(struct writer *w, const struct man_asset *a, enum man_form form) {
  struct man_order o;
  man_order(&o, a);
  uint64_t total = 0, longest = 0;
  for (uint32_t i = 0; i < o.num; i++) {
    uint64_t us = presented_us(&a->tracks[o.at[i]]), segment = man_longest_us(&a->tracks[o.at[i]]);
    total = us > total ? us : total;
    longest = segment > longest ? segment : longest;
  }
  wr_str(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" xmlns:cenc=\"urn:mpeg:cenc:2013\""
            " xmlns:mspr=\"urn:microsoft:playready\" xmlns:dashif=\"https://dashif.org/CPS\""
            " xmlns:ck=\"http://dashif.org/guidelines/clearKey\" profiles=\"");
  wr_str(w, form == MAN_SEGMENTS ? "urn:mpeg:dash:profile:isoff-live:2011"
                                 : "urn:mpeg:dash:profile:isoff-on-demand:2011");
  wr_str(w, "\" type=\"static\"");
  attr_duration(w, "mediaPresentationDuration", total);
  attr_duration(w, "minBufferTime", longest < 1000000 ? 1000000 : longest);
  wr_str(w, ">\n<Period id=\"0\" start=\"PT0S\">\n");
  for (uint32_t i = 0, end; i < o.num; i = end) {
    for (end = i + 1; end < o.num && o.set[end] == o.set[i];)
      end++;
    write_set(w, a, &o, i, end, form);
  }
  wr_str(w, "</Period>\n</MPD>\n");
}
