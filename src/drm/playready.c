// PlayReady. A PlayReady Object holds one rights management header, UTF-16LE XML in canonical form:
//   4.0.0.0 for AESCTR: KEYLEN, ALGID, KID and CHECKSUM as elements; read by every client ever shipped;
//   4.3.0.0 for AESCBC: KIDS/KID with ALGID and VALUE attributes in alphabetical order, no CHECKSUM.
// KIDs are GUIDs in their little-endian form. Source: Microsoft, "PlayReady Header Specification" (15 KB limit in
// §PlayReady Object); docs/drm/playready.md.
#include "base/text.h"
#include "drm/markup.h"
#include "drm/systems.h"

enum { PRO_MAX = 15 * 1024, PRO_RECORD_HEADER = 1 };

static void guid_order(uint8_t out[16], const uint8_t kid[16]) {
  static const uint8_t from[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int i = 0; i < 16; i++)
    out[i] = kid[from[i]];
}

// CHECKSUM: the first 8 bytes of AES-ECB(content key, KID in GUID order).
static void checksum(uint8_t out[8], const struct key_record *k, const uint8_t guid[16]) {
  size_t num;
  const struct aes_ops *ref = aes_ops_all(&num)[0]; // the reference: one block, nothing to gain from a faster one
  struct aes_key key;
  uint8_t block[16];
  ref->key_init(&key, k->key);
  ref->ecb_encrypt(&key, block, guid, 1);
  aes_key_wipe(&key);
  memcpy(out, block, 8);
}

static void element(struct writer *w, const char *name, struct bytes text) {
  if (!text.n)
    return;
  wr_fmt(w, "<%s>", name);
  xml_write(w, text);
  wr_fmt(w, "</%s>", name);
}

// The header's XML in UTF-8.
static void header_xml(struct writer *w, const struct drm_input *in) {
  uint8_t guid[16], url[TEMPLATE_MAX];
  guid_order(guid, in->key->kid);
  bool cbc = in->key->scheme == SCHEME_CBCS;
  wr_fmt(w,
         "<WRMHEADER xmlns=\"http://schemas.microsoft.com/DRM/2007/03/PlayReadyHeader\" version=\"%s\">"
         "<DATA><PROTECTINFO>",
         cbc ? "4.3.0.0" : "4.0.0.0");
  if (cbc) {
    wr_str(w, "<KIDS><KID ALGID=\"AESCBC\" VALUE=\"");
    base64_write(w, bytes_of(guid, 16));
    wr_str(w, "\"></KID></KIDS></PROTECTINFO>");
  } else {
    uint8_t sum[8];
    checksum(sum, in->key, guid);
    wr_str(w, "<KEYLEN>16</KEYLEN><ALGID>AESCTR</ALGID></PROTECTINFO><KID>");
    base64_write(w, bytes_of(guid, 16));
    wr_str(w, "</KID><CHECKSUM>");
    base64_write(w, bytes_of(sum, 8));
    wr_str(w, "</CHECKSUM>");
  }
  element(w, "LA_URL", template_expand(url, in->set->playready.la_url, in->key));
  element(w, "LUI_URL", template_expand(url, in->set->playready.lui_url, in->key));
  element(w, "DS_ID", in->set->playready.ds_id);
  if (in->set->playready.custom.n) {
    wr_str(w, "<CUSTOMATTRIBUTES>");
    wr_bytes(w, in->set->playready.custom);
    wr_str(w, "</CUSTOMATTRIBUTES>");
  }
  wr_str(w, "</DATA></WRMHEADER>");
}

static void wr_le16(struct writer *w, uint32_t v) {
  wr_u8(w, (uint8_t)v);
  wr_u8(w, (uint8_t)(v >> 8));
}

static void utf16_write(struct writer *w, struct bytes text) {
  while (text.n) {
    uint32_t cp = utf8_next(&text);
    if (cp >= 0x10000) {
      wr_le16(w, 0xd800 + ((cp - 0x10000) >> 10));
      cp = 0xdc00 + ((cp - 0x10000) & 0x3ff);
    }
    wr_le16(w, cp);
  }
}

// The PlayReady Object; nothing when the header is longer than its limit.
static void playready_object(struct writer *w, const struct drm_input *in) {
  uint8_t xml[PRO_MAX];
  struct writer x = wr_of(xml, sizeof xml), len = wr_of(NULL, 0);
  header_xml(&x, in);
  if (!wr_ok(&x))
    return;
  utf16_write(&len, bytes_of(xml, x.n));
  if (len.n + 10 > PRO_MAX)
    return;
  wr_le16(w, (uint32_t)len.n + 10);
  wr_le16(w, 0);
  wr_le16(w, 1);
  wr_le16(w, PRO_RECORD_HEADER);
  wr_le16(w, (uint32_t)len.n);
  utf16_write(w, bytes_of(xml, x.n));
}

static void playready_pssh(struct writer *w, const struct drm_input *in) {
  uint8_t data[PRO_MAX];
  struct writer d = wr_of(data, sizeof data);
  playready_object(&d, in);
  if (d.n)
    pssh_write(w, drm_playready.system_id, NULL, 0, bytes_of(data, d.n));
}

// The object: the one inside the key server's pssh box where it gave one, else a generated one; empty when that is too long.
static struct bytes object_of(uint8_t pro[PRO_MAX], const struct drm_input *in) {
  struct writer p = wr_of(pro, PRO_MAX);
  struct bytes object = drm_pssh_data(drm_given_pssh(in, DRM_PLAYREADY));
  if (!object.n) {
    playready_object(&p, in);
    object = bytes_of(pro, p.n);
  }
  return object;
}

static bool playready_fits(const struct drm_input *in) {
  uint8_t pro[PRO_MAX];
  return object_of(pro, in).n != 0;
}

static void object_base64(struct writer *w, const struct drm_input *in) {
  uint8_t pro[PRO_MAX];
  base64_write(w, object_of(pro, in));
}

static void playready_hls(struct writer *w, const struct drm_input *in) {
  wr_str(w, "URI=\"data:text/plain;charset=UTF-16;base64,");
  object_base64(w, in);
  wr_str(w, "\"");
  drm_hls_iv(w, in);
  wr_str(w, ",KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"com.microsoft.playready\"");
}

static void playready_mpd(struct writer *w, const struct drm_input *in) {
  drm_mpd_pssh(w, DRM_PLAYREADY, in);
  wr_str(w, "<mspr:pro>");
  object_base64(w, in);
  wr_str(w, "</mspr:pro>");
  drm_mpd_laurl(w, in->set->playready.la_url, in);
}

const struct drm_ops drm_playready = {
    .name = "playready",
    .title = "PlayReady",
    .system_id = {0x9a, 0x04, 0xf0, 0x79, 0x98, 0x40, 0x42, 0x86, 0xab, 0x92, 0xe6, 0x5b, 0xe0, 0x88, 0x5f, 0x95},
    .mpd_value = "MSPR 2.0",
    .fits = playready_fits,
    .pssh = playready_pssh,
    .hls = playready_hls,
    .mpd = playready_mpd,
};
