#include "drm/drm.h"

#include "base/reader.h"
#include "base/text.h"
#include "drm/markup.h"
#include "drm/systems.h"

// In the order of enum drm_system, which is the order in playlists and MPDs.
const struct drm_ops *const drm_systems[DRM_SYSTEM_COUNT] = {
    [DRM_WIDEVINE] = &drm_widevine, [DRM_PLAYREADY] = &drm_playready, [DRM_FAIRPLAY] = &drm_fairplay,
    [DRM_CLEARKEY] = &drm_clearkey, [DRM_COMMON] = &drm_common,
};

void key_record_wipe(struct key_record *k) {
  explicit_bzero(k->key, sizeof k->key);
  explicit_bzero(k->iv, sizeof k->iv);
}

void key_record_protection(struct protection *p, const struct key_record *k, const struct aes_ops *ops,
                           const uint8_t digest[32], uint32_t track_id) {
  *p = (struct protection){.scheme = k->scheme};
  if (k->scheme == SCHEME_CLEAR)
    return;
  memcpy(p->kid, k->kid, 16);
  ops->key_init(&p->key, k->key);
  if (k->scheme == SCHEME_CENC)
    cenc_iv_base(p->iv, k->key, digest, track_id);
  else if (k->has_iv)
    memcpy(p->iv, k->iv, 16);
  else
    cbcs_iv(p->iv, k->key);
}

enum err drm_parse(enum drm_system *out, struct bytes name) {
  for (unsigned s = 0; s < DRM_SYSTEM_COUNT; s++) {
    if (bytes_eq(name, bytes_str(drm_systems[s]->name))) {
      *out = (enum drm_system)s;
      return ERR_OK;
    }
  }
  return ERR_SYNTAX;
}

enum err drm_parse_list(uint32_t *mask, struct bytes list) {
  uint32_t m = 0;
  if (bytes_eq(list, BYTES_LIT("all")) || bytes_eq(list, BYTES_LIT("none"))) {
    *mask = list.p[0] == 'a' ? (1u << DRM_SYSTEM_COUNT) - 1 : 0;
    return ERR_OK;
  }
  while (list.n) {
    const uint8_t *comma = memchr(list.p, ',', list.n);
    size_t n = comma ? (size_t)(comma - list.p) : list.n;
    enum drm_system s;
    if (drm_parse(&s, bytes_of(list.p, n)) || (comma && n + 1 == list.n))
      return ERR_SYNTAX;
    m |= drm_bit(s);
    n += comma ? 1 : 0;
    list = bytes_of(list.p + n, list.n - n);
  }
  *mask = m;
  return ERR_OK;
}

enum drm_system drm_by_id(const uint8_t system_id[16]) {
  unsigned s = 0;
  while (s < DRM_SYSTEM_COUNT && memcmp(drm_systems[s]->system_id, system_id, 16) != 0)
    s++;
  return (enum drm_system)s;
}

struct bytes drm_label(const struct drm_settings *set, uint32_t format) {
  bool lossless = format == FOURCC('f', 'L', 'a', 'C') || format == FOURCC('a', 'l', 'a', 'c');
  return set->per_tier && lossless ? BYTES_LIT("lossless") : (struct bytes){0};
}

static const struct drm_given *given_of(const struct drm_input *in, enum drm_system s) {
  static const struct drm_given nothing;
  return in->key->given ? &in->key->given[s] : &nothing;
}

static bool applies(const struct drm_input *in, enum drm_system s, uint32_t mask) {
  return in->key->scheme != SCHEME_CLEAR && (mask & drm_bit(s)) &&
         (in->key->scheme == SCHEME_CBCS || !drm_systems[s]->cbcs_only);
}

struct bytes drm_given_pssh(const struct drm_input *in, enum drm_system s) { return given_of(in, s)->pssh; }

struct bytes drm_pssh_data(struct bytes box) {
  struct reader r = rd_of(box);
  uint32_t size = rd_u32(&r), type = rd_u32(&r), version = rd_u32(&r) >> 24;
  rd_skip(&r, 16);
  if (version)
    rd_skip(&r, 16 * (size_t)rd_u32(&r));
  struct bytes data = rd_bytes(&r, rd_u32(&r));
  bool ok = !r.err && size == box.n && type == FOURCC('p', 's', 's', 'h') && rd_left(&r) == 0;
  return ok ? data : (struct bytes){0};
}

// The system's box: the delivered one, else a generated one.
static void pssh_one(struct writer *w, enum drm_system s, const struct drm_input *in) {
  struct bytes given = drm_given_pssh(in, s);
  if (given.n)
    wr_bytes(w, given);
  else if (drm_systems[s]->pssh)
    drm_systems[s]->pssh(w, in);
}

void drm_pssh(struct writer *w, const struct drm_input *in) {
  for (unsigned s = 0; s < DRM_SYSTEM_COUNT; s++)
    if (applies(in, (enum drm_system)s, in->set->in_band))
      pssh_one(w, (enum drm_system)s, in);
}

static void pssh_base64(struct writer *w, enum drm_system s, const struct drm_input *in) {
  uint8_t box[DRM_MAX_DATA];
  struct writer b = wr_of(box, sizeof box);
  pssh_one(&b, s, in);
  if (wr_ok(&b))
    base64_write(w, bytes_of(box, b.n));
}

void drm_hls_pssh(struct writer *w, enum drm_system s, const struct drm_input *in) {
  wr_str(w, "URI=\"data:text/plain;base64,");
  pssh_base64(w, s, in);
  wr_str(w, "\"");
}

void drm_hls_iv(struct writer *w, const struct drm_input *in) {
  uint8_t iv[16];
  if (in->key->scheme != SCHEME_CBCS)
    return;
  if (in->key->has_iv)
    memcpy(iv, in->key->iv, 16);
  else
    cbcs_iv(iv, in->key->key);
  wr_str(w, ",IV=0x");
  hex_write_upper(w, bytes_of(iv, 16));
}

static void hls_open(struct writer *w, const char *tag, const struct drm_input *in) {
  wr_str(w, "#");
  wr_str(w, tag);
  wr_str(w, in->key->scheme == SCHEME_CBCS ? ":METHOD=SAMPLE-AES," : ":METHOD=SAMPLE-AES-CTR,");
}

// The key server's lines for one kind of playlist. Where it gave them for the other kind only, they are these with the other
// tag: both have the same attributes, and where they share a URI they must agree. Each line begins with its tag
// (keys/given.h). Source: RFC 8216bis §4.4.6.5. False: it gave none.
static bool given_hls_lines(struct writer *w, const struct drm_given *g, const char *tag) {
  bool session = strcmp(tag, "EXT-X-SESSION-KEY") == 0;
  struct bytes lines = session ? g->hls_master : g->hls_media, other = session ? g->hls_media : g->hls_master;
  wr_bytes(w, lines);
  while (!lines.n && other.n) {
    const uint8_t *nl = memchr(other.p, '\n', other.n), *colon = memchr(other.p, ':', other.n);
    size_t n = nl ? (size_t)(nl - other.p) + 1 : other.n, head = colon ? (size_t)(colon - other.p) : n;
    if (head < n) {
      wr_str(w, "#");
      wr_str(w, tag);
      wr_raw(w, other.p + head, n - head);
    }
    other = bytes_of(other.p + n, other.n - n);
  }
  return g->hls_media.n || g->hls_master.n;
}

// What sluice itself would say of the system is not longer than the system allows.
static bool fits(const struct drm_input *in, enum drm_system s) { return !drm_systems[s]->fits || drm_systems[s]->fits(in); }

static void hls_system(struct writer *w, const char *tag, const struct drm_input *in, enum drm_system s) {
  if (!given_hls_lines(w, given_of(in, s), tag) && drm_systems[s]->hls && fits(in, s)) {
    hls_open(w, tag, in);
    drm_systems[s]->hls(w, in);
    wr_str(w, "\n");
  }
}

// Whether an earlier key has the same lines: an skd template without {kid}, or what a key server gave for all keys at once.
static bool said_before(const char *tag, const struct drm_input *in, enum drm_system s) {
  enum { LINES_MAX = 2 * DRM_MAX_DATA };
  uint8_t now[LINES_MAX], before[LINES_MAX];
  struct writer a = wr_of(now, sizeof now);
  if (in->num_earlier)
    hls_system(&a, tag, in, s);
  for (unsigned i = 0; i < in->num_earlier && wr_ok(&a); i++) {
    struct writer b = wr_of(before, sizeof before);
    hls_system(&b, tag, &(struct drm_input){.key = in->earlier[i], .set = in->set}, s);
    if (wr_ok(&b) && bytes_eq(bytes_of(now, a.n), bytes_of(before, b.n)))
      return true;
  }
  return false;
}

void drm_hls(struct writer *w, const char *tag, const struct drm_input *in) {
  if (in->key->scheme == SCHEME_CLEAR)
    return;
  if (in->set->identity && !in->set->clearkey.no_identity && in->identity_uri.n) {
    hls_open(w, tag, in);
    wr_str(w, "URI=\"");
    hls_quoted_write(w, in->identity_uri);
    wr_str(w, "\"");
    drm_hls_iv(w, in);
    wr_str(w, ",KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"identity\"\n");
  }
  for (unsigned i = 0; i < DRM_SYSTEM_COUNT; i++) {
    enum drm_system s = (enum drm_system)i;
    if (applies(in, s, in->set->systems) && !said_before(tag, in, s))
      hls_system(w, tag, in, s);
  }
}

void drm_mpd_pssh(struct writer *w, enum drm_system s, const struct drm_input *in) {
  wr_str(w, "<cenc:pssh>");
  pssh_base64(w, s, in);
  wr_str(w, "</cenc:pssh>");
}

void drm_mpd_laurl(struct writer *w, struct bytes tmpl, const struct drm_input *in) {
  uint8_t buf[TEMPLATE_MAX];
  struct bytes url = template_expand(buf, tmpl, in->key);
  if (!url.n)
    return;
  wr_str(w, "<dashif:Laurl>");
  xml_write(w, url);
  wr_str(w, "</dashif:Laurl>");
}

void drm_mpd_inside(struct writer *w, enum drm_system s, const struct drm_input *in) {
  struct bytes given = given_of(in, s)->mpd;
  if (given.n)
    wr_bytes(w, given);
  else if (drm_systems[s]->mpd && fits(in, s))
    drm_systems[s]->mpd(w, in);
}

void drm_mpd(struct writer *w, const struct drm_input *in) {
  if (in->key->scheme == SCHEME_CLEAR)
    return;
  wr_str(w, "<ContentProtection schemeIdUri=\"urn:mpeg:dash:mp4protection:2011\" value=\"");
  wr_str(w, scheme_name(in->key->scheme));
  wr_str(w, "\" cenc:default_KID=\"");
  uuid_write(w, in->key->kid);
  wr_str(w, "\"/>\n");
  for (unsigned i = 0; i < DRM_SYSTEM_COUNT; i++) {
    enum drm_system s = (enum drm_system)i;
    struct bytes given = given_of(in, s)->mpd;
    if (!applies(in, s, in->set->systems) || !(given.n || (drm_systems[s]->mpd && fits(in, s))))
      continue;
    wr_str(w, "<ContentProtection schemeIdUri=\"urn:uuid:");
    uuid_write(w, drm_systems[s]->system_id);
    if (drm_systems[s]->mpd_value) {
      wr_str(w, "\" value=\"");
      wr_str(w, drm_systems[s]->mpd_value);
    }
    wr_str(w, "\">");
    drm_mpd_inside(w, s, in);
    wr_str(w, "</ContentProtection>\n");
  }
}
