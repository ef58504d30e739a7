// Playlists and MPDs of a whole file, twice in one asset under names from the input, or with more tracks that differ from it
// in language, codec, channels and rate. Measuring and writing agree; an MPD is well-formed, a playlist holds tags and
// references alone; the load generator's readers find in both forms as many segments as there are, at the paths under which
// they are served, in the key, and the times of both agree.
// Source: RFC 8216bis §4.1, ISO/IEC 23009-1 §5.3, RFC 3986 §3.3.
// The last 32 bytes of the input choose: 0 folder (bit 0), scheme, DRM systems and forms of keys, segment target, from 4 on
// the names, 31 what the tracks differ in (0: in nothing).
#include <expat.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "load/playlist.h"
#include "manifest/manifest.h"
#include "fuzz.h"
#include "rewrite.h"

enum { TAIL = 32, NAME = 9, MOST_TRACKS = 6, MEMORY = 64 << 20, MAX_FILE = 1 << 16 };

const struct fuzz_boxes fuzz_boxes = {0, TAIL};

struct names {
  char asset[NAME + 1], track[MOST_TRACKS][NAME + MOST_TRACKS];
};

// A name of a file: not empty, no slash, no dot in front.
static void take_name(char *out, const uint8_t *from) {
  size_t n = 0;
  while (n < NAME && from[n]) {
    out[n] = (char)(from[n] == '/' || (!n && from[n] == '.') ? '_' : from[n]);
    n++;
  }
  if (!n)
    out[n++] = 'a';
  out[n] = 0;
}

static void name_track(struct names *names, uint32_t t, const uint8_t *from) {
  take_name(names->track[t], from);
  for (uint32_t i = 0; i < t; i++)
    if (!strcmp(names->track[i], names->track[t])) { // another byte, and those before it are looked at again
      memcpy(names->track[t] + strlen(names->track[t]), "2", 2);
      i = UINT32_MAX;
    }
}

// Another track of the asset, as far as manifests tell: all of what `how` says about it.
static void vary(struct track_index *ix, struct ix_header *h, uint32_t how) {
  static const char languages[][4] = {"en", "de", "und", "", "haw"};
  *h = *ix->h;
  ix->h = h;
  how = how * 1664525 + 1013904223;
  if (how >> 30)
    memcpy(h->language, languages[(how >> 8) % 5], 4);
  if (how >> 28 & 1)
    h->channels = 1 + (how >> 12) % 8;
  if (how >> 27 & 1) {
    h->format = FOURCC('e', 'c', '-', '3');
    memcpy(h->codecs, "ec-3", 5);
    h->channel_mask = how >> 14 & 1 ? 0xf801 : 0xa000;
    h->joc_complexity = how >> 15 & 1 ? 16 : 0;
  } else if (how >> 26 & 1) {
    h->format = FOURCC('m', 'p', '4', 'a');
    memcpy(h->codecs, "mp4a.40.2", 10);
  }
  if (how >> 25 & 1)
    h->avg_bitrate = h->max_bitrate = 1 + (how >> 16 & 7) * 32000;
}

static struct bytes write_document(const struct man_asset *a, int which) {
  enum man_form form = which & 1 ? MAN_RANGES : MAN_SEGMENTS;
  struct writer measured = wr_of(NULL, 0), w = measured;
  for (int pass = 0; pass < 2; pass++) {
    struct writer *to = pass ? &w : &measured;
    if (which < 2)
      man_hls_master(to, a, form);
    else if (which < 4)
      man_dash(to, a, form);
    else
      man_hls_media(to, a, (uint32_t)(which - 4) / 2, form);
    if (!pass) {
      w = wr_of(malloc(measured.n + 1), measured.n);
      MUST(w.p);
    }
  }
  MUST(wr_ok(&w) && w.n == measured.n);
  return bytes_of(w.p, w.n);
}

// Attributes that the schema has as xs:unsignedInt.
static void on_element(void *ctx, const XML_Char *name, const XML_Char **atts) {
  (void)ctx, (void)name;
  for (; *atts; atts += 2)
    if (!strcmp(atts[0], "bandwidth") || !strcmp(atts[0], "timescale") || !strcmp(atts[0], "audioSamplingRate"))
      MUST(strtoull(atts[1], NULL, 10) <= UINT32_MAX);
}

static void check_well_formed(struct bytes text) {
  XML_Parser xml = XML_ParserCreateNS("UTF-8", '|');
  MUST(xml);
  XML_SetStartElementHandler(xml, on_element);
  if (XML_Parse(xml, (const char *)text.p, (int)text.n, 1) == XML_STATUS_ERROR)
    require(0, XML_ErrorString(XML_GetErrorCode(xml)));
  XML_ParserFree(xml);
}

// Printable ASCII; tags begin with '#', and references hold no byte that a URI may not.
static void check_lines(struct bytes text) {
  MUST(text.n && text.p[text.n - 1] == '\n');
  for (size_t i = 0, start = 0; i < text.n; i++) {
    uint8_t c = text.p[i];
    if (c == '\n') {
      MUST(i > start);
      start = i + 1;
      continue;
    }
    MUST(c >= 0x20 && c < 0x7f);
    MUST(text.p[start] == '#' || !strchr(" \"<>\\^`{|}", c));
  }
}

static void check_segments(const struct media_list *l, const struct man_asset *a, uint32_t track, const char *base) {
  const struct man_track *t = &a->tracks[track];
  MUST(l->num == t->segs->num);
  MUST(l->kids.num <= (t->key != NULL) && (!l->kids.num || !memcmp(l->kids.kid[0], t->key->kid, 16)));
  // The path, as its parts have it: of the document's folder, /EPOCH/TRACK/N.m4s.
  uint8_t rest[4 * NAME + 64];
  char want[PLAYLIST_MAX_URI];
  for (uint32_t i = 0; i <= l->num; i++) {
    struct writer w = wr_of(rest, sizeof rest);
    wr_dec(&w, a->epoch);
    wr_str(&w, "/");
    for (size_t k = 0; k < t->name.n; k++)
      wr_fmt(&w, "%%%02X", t->name.p[k]);
    wr_str(&w, "/");
    if (i)
      wr_fmt(&w, "%u.m4s", i);
    else
      wr_str(&w, "init.mp4");
    MUST(wr_ok(&w) && !uri_resolve(want, base, bytes_of(rest, w.n)));
    const char *is = i ? l->uris + l->uri_off[i - 1] : l->init;
    // Some bytes may stand as they are.
    for (const char *p = want; *p; p++, is++) {
      uint8_t c;
      if (*p == *is)
        continue;
      MUST(*p == '%' && !hex_read(&c, 1, bytes_of(p + 1, 2)) && c == (uint8_t)*is);
      p += 2;
    }
    MUST(!*is);
  }
}

// A reader may give up for its own limits.
static bool read_of(enum err e, const struct diag *d) {
  char text[300];
  if (e == ERR_LIMIT || e == ERR_NO_MEMORY)
    return false;
  if (e) {
    diag_format(d, text, sizeof text);
    require(0, text);
  }
  return true;
}

static void check_documents(const struct man_asset *a, const char *asset) {
  static struct renditions r;
  static const char *const name[] = {"/master.m3u8", "/byterange.m3u8", "/manifest.mpd", "/ondemand.mpd"};
  char mpd_base[PLAYLIST_MAX_URI], rest[64];
  double mpd_end[MOST_TRACKS] = {-1, -1, -1, -1, -1, -1};
  snprintf(rest, sizeof rest, "%s/manifest.mpd", scheme_name(a->scheme));
  MUST(!uri_of_asset(mpd_base, asset, rest));
  for (int which = 0; which < 4 + 2 * (int)a->num_tracks; which++) {
    struct bytes text = write_document(a, which);
    struct media_list l;
    struct alloc_heap mem;
    struct diag d = {0};
    char base[PLAYLIST_MAX_URI];
    alloc_heap_init(&mem, MEMORY);
    if (which >= 2 && which < 4)
      check_well_formed(text);
    else
      check_lines(text);
    if (which < 2) {
      snprintf(rest, sizeof rest, "%s%s", scheme_name(a->scheme), name[which]);
      MUST(!uri_of_asset(base, asset, rest));
      if (read_of(hls_read_multivariant(&r, text, base, &d), &d))
        MUST(r.num == a->num_tracks);
    } else if (which == 2) {
      for (uint32_t choose = 0; choose < a->num_tracks; choose++) {
        if (!read_of(mpd_read(&r, &l, choose, &mem.base, text, mpd_base, &d), &d))
          continue;
        MUST(r.num == a->num_tracks && l.num == a->tracks[0].segs->num);
        mpd_end[choose] = l.start_s[l.num];
      }
    } else if (which >= 4 && !(which & 1)) {
      uint8_t path[4 * NAME + 64];
      struct writer w = wr_of(path, sizeof path - 1);
      const struct man_track *t = &a->tracks[(which - 4) / 2];
      wr_dec(&w, a->epoch);
      wr_str(&w, "/");
      for (size_t k = 0; k < t->name.n; k++)
        wr_fmt(&w, "%%%02X", t->name.p[k]);
      wr_str(&w, "/media.m3u8");
      MUST(wr_ok(&w) && !uri_resolve(base, mpd_base, bytes_of(path, w.n)));
      if (read_of(hls_read_media(&l, &mem.base, text, base, &d), &d)) {
        check_segments(&l, a, (uint32_t)(which - 4) / 2, mpd_base);
        // A playlist's time is an MPD's, but for what gaps and edit lists take from either.
        MUST(mpd_end[0] < 0 || mpd_end[1] < 0 || mpd_end[0] - mpd_end[1] < 1e-3);
      }
    }
    alloc_heap_free(&mem);
    free((void *)(uintptr_t)text.p);
  }
}

static void check_asset(const struct track_index *ix, const uint8_t tail[TAIL]) {
  struct names names;
  const char *why;
  uint64_t target = tail[3] & 1 ? 0 : (uint64_t)ix->h->timescale * (tail[3] >> 1) / 8;
  struct ix_segments segs = {.num = ix_segment_count(ix, target)};
  uint32_t *first_frag = malloc(((size_t)segs.num + 1) * 4);
  MUST(first_frag);
  ix_segment_fill(ix, target, first_frag);
  segs.first_frag = first_frag;
  take_name(names.asset, tail + 4);
  uint32_t num = tail[TAIL - 1] ? MOST_TRACKS : 2;
  for (uint32_t i = 0; i < num; i++)
    name_track(&names, i, tail + 4 + NAME * (1 + i % 2));
  struct drm_settings set = {.systems = tail[2] & 31, .per_tier = tail[2] >> 5 & 1, .identity = tail[2] >> 6 & 1,
                             .widevine = {.provider = BYTES_LIT("us"), .content_id = BYTES_LIT("{asset}/{label}")},
                             .playready = {.la_url = BYTES_LIT("https://p.example/?a=1&b=2"), .lui_url = BYTES_LIT("https://u.example/<")},
                             .fairplay = {.skd = BYTES_LIT("skd://{asset}/{epoch}/{kid}")},
                             .clearkey = {.la_url = BYTES_LIT("https://c.example/{asset}?e={epoch}&s={scheme}"), .no_identity = tail[2] >> 7}};
  struct key_record key = {.scheme = (enum scheme)(tail[1] % SCHEME_COUNT), .epoch = 7, .kid = {1, 2, 3}, .asset = bytes_str(names.asset)};
  struct protection prot = {.scheme = key.scheme, .kid = {1, 2, 3}, .no_senc = tail[1] >> 7};
  aes_ops_best(NULL, &why)->key_init(&prot.key, (const uint8_t *)"sixteen byte key");
  struct plan plan[MOST_TRACKS];
  struct track_index indexes[MOST_TRACKS];
  struct ix_header headers[MOST_TRACKS];
  struct man_track tracks[MOST_TRACKS];
  bool ok = true;
  for (uint32_t i = 0; i < num; i++) {
    indexes[i] = *ix;
    if (i && tail[TAIL - 1])
      vary(&indexes[i], &headers[i], tail[TAIL - 1] * MOST_TRACKS + i);
    ok = ok && !plan_init(&plan[i], &indexes[i], &segs, &prot, NULL);
    tracks[i] = (struct man_track){bytes_str(names.track[i]), &indexes[i], &segs, &plan[i], NULL};
    if (key.scheme != SCHEME_CLEAR)
      tracks[i].key = &key;
  }
  if (ok) {
    struct man_asset a = {.name = bytes_str(names.asset), .scheme = key.scheme, .epoch = 7, .drm = &set};
    a.tracks = tracks;
    a.num_tracks = num;
    check_documents(&a, names.asset);
  }
  free(first_frag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t tail[TAIL] = {0};
  size_t t = size < TAIL ? size : TAIL;
  if (t)
    memcpy(tail, data + size - t, t);
  struct bytes file = bytes_of(data, size - t), blob;
  uint64_t ends[FOLDER_PARTS] = {0};
  struct mp4_source src = memory_source(&file, ends, tail[0] & 1 ? folder_parts(ends, file) : 1);
  struct alloc_heap heap;
  struct track_index ix;
  struct diag diag = {0};
  if (size > MAX_FILE)
    return 0;
  alloc_heap_init(&heap, MEMORY);
  if (ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &diag) == ERR_OK) {
    MUST(ix_open(&ix, blob, &diag) == ERR_OK);
    check_asset(&ix, tail);
  }
  alloc_heap_free(&heap);
  return 0;
}
