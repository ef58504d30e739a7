// HLS. Multivariant: one EXT-X-STREAM-INF for each audio group (groups.c): with one language, for each track. The group
// says channels, language, bit depth; its default rendition has the variant's URI. Players that do not know groups play that.
// Media playlists: fMP4, VOD. Source: RFC 8216bis §4.4.
#include "base/text.h"
#include "drm/markup.h"
#include "manifest/track.h"

static const char *const playlist_of[] = {[MAN_SEGMENTS] = "/media.m3u8", [MAN_RANGES] = "/byterange.m3u8"};

// Sample entry names as Apple's players want them; RFC 6381 §3.3 agrees, other players take both.
static void write_codecs(struct writer *w, const struct ix_header *h) {
  struct bytes codecs = man_text(h->codecs, sizeof h->codecs);
  if (bytes_eq(codecs, BYTES_LIT("flac")))
    wr_str(w, "fLaC");
  else if (bytes_eq(codecs, BYTES_LIT("opus")))
    wr_str(w, "Opus");
  else
    hls_quoted_write(w, codecs);
}

// §4.4.6.1. `lead`: what the group is named after; `spoken`: whose language it is, because corresponding members of groups have the same
// name and language (RFC 8216 §4.3.4.1.1), also where only some tracks of an asset say it.
static void write_media(struct writer *w, const struct man_asset *a, const struct man_track *lead, const struct man_track *t,
                        const struct ix_header *spoken, bool is_default, enum man_form form) {
  const struct ix_header *h = t->ix->h;
  wr_str(w, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"");
  percent_write(w, lead->name, false);
  wr_str(w, "\",NAME=\"");
  if (man_has_language(spoken)) {
    struct bytes language = man_text(spoken->language, sizeof spoken->language);
    hls_quoted_write(w, language);
    wr_str(w, "\",LANGUAGE=\"");
    hls_quoted_write(w, language);
  } else {
    wr_str(w, "Audio");
  }
  wr_str(w, "\"");
  wr_str(w, is_default ? ",DEFAULT=YES,AUTOSELECT=YES" : ",DEFAULT=NO,AUTOSELECT=YES");
  if (h->joc_complexity) {
    wr_str(w, ",CHANNELS=\"");
    wr_dec(w, h->joc_complexity);
    wr_str(w, "/JOC\"");
  } else if (h->channels) {
    wr_str(w, ",CHANNELS=\"");
    wr_dec(w, h->channels);
    wr_str(w, "\"");
  }
  if (h->bit_depth) {
    wr_str(w, ",BIT-DEPTH=");
    wr_dec(w, h->bit_depth);
  }
  if (h->sample_rate) {
    wr_str(w, ",SAMPLE-RATE=");
    wr_dec(w, h->sample_rate);
  }
  wr_str(w, ",URI=\"");
  man_uri_track(w, a, t);
  wr_str(w, playlist_of[form]);
  wr_str(w, "\"\n");
}

// A group: its renditions, the default first.
struct group {
  uint32_t num;
  const struct man_track *lead, *at[MAN_MAX_TRACKS];
  struct man_rate rate; // of whichever is highest
};

static void group_get(struct group *out, const struct man_asset *a, const struct man_groups *g, const struct man_rate *rates,
                      uint32_t i) {
  *out = (struct group){.lead = &a->tracks[g->lead[i]]};
  for (uint32_t l = 0; l < g->num_langs; l++) {
    uint8_t t = g->member[i][l];
    if (t == MAN_NO_TRACK)
      continue;
    out->at[out->num++] = &a->tracks[t];
    out->rate.peak = rates[t].peak > out->rate.peak ? rates[t].peak : out->rate.peak;
    out->rate.average = rates[t].average > out->rate.average ? rates[t].average : out->rate.average;
  }
}

// Each codec of the group once.
static void write_group_codecs(struct writer *w, const struct group *g) {
  for (uint32_t i = 0; i < g->num; i++) {
    const struct ix_header *h = g->at[i]->ix->h;
    bool before = false;
    for (uint32_t k = 0; k < i && !before; k++)
      before = strncmp(g->at[k]->ix->h->codecs, h->codecs, sizeof h->codecs) == 0;
    if (before)
      continue;
    if (i)
      wr_u8(w, ',');
    write_codecs(w, h);
  }
}

// §4.4.6.2.
static void write_variant(struct writer *w, const struct man_asset *a, const struct group *g, enum man_form form) {
  wr_str(w, "#EXT-X-STREAM-INF:BANDWIDTH=");
  wr_dec(w, g->rate.peak);
  wr_str(w, ",AVERAGE-BANDWIDTH=");
  wr_dec(w, g->rate.average);
  wr_str(w, ",CODECS=\"");
  write_group_codecs(w, g);
  wr_str(w, "\",AUDIO=\"");
  percent_write(w, g->lead->name, false);
  wr_str(w, "\"\n");
  man_uri_track(w, a, g->at[0]);
  wr_str(w, playlist_of[form]);
  wr_str(w, "\n");
}

// §4.4.6.5: EXT-X-SESSION-KEY mirrors the keys of the media playlists, each once. Left out where `identity` is signalled: that
// line names no KID, so that a player which starts from session keys would start with the other systems only.
static void write_session_keys(struct writer *w, const struct man_asset *a, const struct man_order *o) {
  const struct key_record *keys[MAN_MAX_TRACKS];
  unsigned num = 0;
  if (a->drm->identity && !a->drm->clearkey.no_identity)
    return;
  for (uint32_t i = 0; i < o->num; i++) {
    const struct key_record *key = a->tracks[o->at[i]].key;
    bool before = !key;
    for (unsigned k = 0; k < num && !before; k++)
      before = memcmp(keys[k]->kid, key->kid, 16) == 0;
    if (before)
      continue;
    drm_hls(w, "EXT-X-SESSION-KEY", &(struct drm_input){.key = key, .set = a->drm, .earlier = keys, .num_earlier = num});
    keys[num++] = key;
  }
}

// Version 6 (§4.4.1.2; RFC 8216 §7): EXT-X-MAP in playlists that are not of I-frames only; KEYFORMAT and BYTERANGE need less. §4.4.2.1:
// segments can be decoded alone where each starts with a sync sample.
void man_hls_master(struct writer *w, const struct man_asset *a, enum man_form form) {
  struct man_order o;
  man_order(&o, a);
  bool sync = true;
  for (uint32_t i = 0; i < o.num; i++)
    sync = sync && man_starts_sync(&a->tracks[o.at[i]]);
  wr_str(w, "#EXTM3U\n#EXT-X-VERSION:6\n");
  if (sync)
    wr_str(w, "#EXT-X-INDEPENDENT-SEGMENTS\n");
  if (a->scheme != SCHEME_CLEAR)
    write_session_keys(w, a, &o);
  struct man_groups groups;
  struct man_rate rates[MAN_MAX_TRACKS];
  struct group g;
  man_groups(&groups, a, &o);
  for (uint32_t i = 0; i < o.num; i++)
    rates[o.at[i]] = man_rate(&a->tracks[o.at[i]]);
  for (uint32_t i = 0; i < groups.num; i++) {
    group_get(&g, a, &groups, rates, i);
    for (uint32_t k = 0; k < g.num; k++)
      write_media(w, a, g.lead, g.at[k], a->tracks[groups.speaker != MAN_NO_TRACK ? groups.speaker : g.at[k] - a->tracks].ix->h, k == 0, form);
  }
  for (uint32_t i = 0; i < groups.num; i++) {
    group_get(&g, a, &groups, rates, i);
    write_variant(w, a, &g, form);
  }
}

// §4.4.4.2, §4.4.4.5: length and offset.
static void write_range(struct writer *w, struct plan_range r) {
  wr_dec(w, r.len);
  wr_u8(w, '@');
  wr_dec(w, r.off);
}

static void write_file(struct writer *w, struct bytes name) {
  wr_str(w, "../");
  percent_write(w, name, false);
  wr_str(w, ".mp4");
}

// §4.4.4.5.
static void write_map(struct writer *w, const struct man_track *t, enum man_form form) {
  wr_str(w, "#EXT-X-MAP:URI=\"");
  if (form == MAN_SEGMENTS) {
    wr_str(w, "init.mp4\"\n");
    return;
  }
  write_file(w, t->name);
  wr_str(w, "\",BYTERANGE=\"");
  write_range(w, plan_init_range(t->plan));
  wr_str(w, "\"\n");
}

// §4.4.3 (what stands once), §4.4.4 (what stands before each segment). EXT-X-MAP comes before EXT-X-KEY: the init segment is clear.
void man_hls_media(struct writer *w, const struct man_asset *a, uint32_t track, enum man_form form) {
  const struct man_track *t = &a->tracks[track];
  wr_str(w, "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:");
  wr_dec(w, man_target_s(t));
  wr_str(w, "\n#EXT-X-PLAYLIST-TYPE:VOD\n");
  if (man_starts_sync(t))
    wr_str(w, "#EXT-X-INDEPENDENT-SEGMENTS\n");
  write_map(w, t, form);
  if (t->key)
    drm_hls(w, "EXT-X-KEY", &(struct drm_input){.key = t->key, .set = a->drm, .identity_uri = BYTES_LIT("key")});
  uint64_t ticks = 0, from = 0;
  for (uint32_t i = 0; i < t->segs->num; i++) {
    if (i && man_gap_ticks(t, i - 1)) // §4.4.4.3: timestamps do not go on, and EXTINF is what the samples last
      wr_str(w, "#EXT-X-DISCONTINUITY\n");
    ticks += man_seg_ticks(t, i);
    uint64_t to = man_us(ticks, t->ix->h->timescale);
    wr_str(w, "#EXTINF:");
    man_write_seconds(w, to - from);
    from = to;
    if (form == MAN_SEGMENTS) {
      wr_str(w, ",\n");
      wr_dec(w, (uint64_t)i + 1);
      wr_str(w, ".m4s\n");
    } else {
      wr_str(w, ",\n#EXT-X-BYTERANGE:");
      write_range(w, plan_segment_range(t->plan, i));
      wr_u8(w, '\n');
      write_file(w, t->name);
      wr_u8(w, '\n');
    }
  }
  wr_str(w, "#EXT-X-ENDLIST\n");
}
