// ClearKey (W3C EME). DASH: descriptor e2719d58-…, value ClearKey1.0, with the licence server in dashif:Laurl
// (DASH-IF IOP part 6 v5) and in the older ck:Laurl; no pssh there: players make what they need of default_KID, and
// dash.js takes what it finds for a list of key ids.
// HLS: org.w3.clearkey with the KID in a data URI, as hls.js reads it. docs/drm/clearkey.md.
#include "base/text.h"
#include "drm/markup.h"
#include "drm/systems.h"

static void clearkey_hls(struct writer *w, const struct drm_input *in) {
  wr_str(w, "URI=\"data:text/plain;base64,");
  base64_write(w, bytes_of(in->key->kid, 16));
  wr_str(w, "\",KEYID=0x");
  hex_write_upper(w, bytes_of(in->key->kid, 16));
  drm_hls_iv(w, in);
  wr_str(w, ",KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"org.w3.clearkey\"");
}

static void clearkey_mpd(struct writer *w, const struct drm_input *in) {
  drm_mpd_laurl(w, in->set->clearkey.la_url, in);
  uint8_t buf[TEMPLATE_MAX];
  struct bytes url = template_expand(buf, in->set->clearkey.la_url, in->key);
  if (!url.n)
    return;
  wr_str(w, "<ck:Laurl Lic_type=\"EME-1.0\">");
  xml_write(w, url);
  wr_str(w, "</ck:Laurl>");
}

const struct drm_ops drm_clearkey = {
    .name = "clearkey",
    .title = "ClearKey",
    .system_id = {0xe2, 0x71, 0x9d, 0x58, 0xa9, 0x85, 0xb3, 0xc9, 0x78, 0x1a, 0xb0, 0x30, 0xaf, 0x78, 0xd3, 0x0e},
    .mpd_value = "ClearKey1.0",
    .hls = clearkey_hls,
    .mpd = clearkey_mpd,
};
