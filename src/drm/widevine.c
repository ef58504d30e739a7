// Widevine. The pssh data is a WidevinePsshData protobuf: 2 key_id, 3 provider, 4 content_id, 6 policy,
// 9 protection_scheme (4CC). Field 1 (algorithm) is deprecated and left out, as packagers do.
// HLS: the pssh box in a data URI and KEYID. docs/drm/widevine.md.
#include "base/text.h"
#include "drm/markup.h"
#include "drm/systems.h"

enum { FIELD_KEY_ID = 2, FIELD_PROVIDER = 3, FIELD_CONTENT_ID = 4, FIELD_POLICY = 6, FIELD_SCHEME = 9 };
enum { WIRE_VARINT = 0, WIRE_BYTES = 2 };

static void varint(struct writer *w, uint64_t v) {
  for (; v >= 0x80; v >>= 7)
    wr_u8(w, (uint8_t)(v | 0x80));
  wr_u8(w, (uint8_t)v);
}

static void field_bytes(struct writer *w, unsigned field, struct bytes b) {
  if (!b.n)
    return;
  varint(w, field << 3 | WIRE_BYTES);
  varint(w, b.n);
  wr_bytes(w, b);
}

static void widevine_pssh(struct writer *w, const struct drm_input *in) {
  uint8_t data[DRM_MAX_DATA], content_id[TEMPLATE_MAX];
  struct writer d = wr_of(data, sizeof data);
  field_bytes(&d, FIELD_KEY_ID, bytes_of(in->key->kid, 16));
  field_bytes(&d, FIELD_PROVIDER, in->set->widevine.provider);
  field_bytes(&d, FIELD_CONTENT_ID, template_expand(content_id, in->set->widevine.content_id, in->key));
  field_bytes(&d, FIELD_POLICY, in->set->widevine.policy);
  varint(&d, FIELD_SCHEME << 3 | WIRE_VARINT);
  varint(&d, in->key->scheme == SCHEME_CBCS ? FOURCC('c', 'b', 'c', 's') : FOURCC('c', 'e', 'n', 'c'));
  if (wr_ok(&d))
    pssh_write(w, drm_widevine.system_id, NULL, 0, bytes_of(data, d.n));
}

static void widevine_hls(struct writer *w, const struct drm_input *in) {
  drm_hls_pssh(w, DRM_WIDEVINE, in);
  wr_str(w, ",KEYID=0x");
  hex_write_upper(w, bytes_of(in->key->kid, 16));
  drm_hls_iv(w, in);
  wr_str(w, ",KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"urn:uuid:edef8ba9-79d6-4ace-a3c8-27dcd51d21ed\"");
}

static void widevine_mpd(struct writer *w, const struct drm_input *in) { drm_mpd_pssh(w, DRM_WIDEVINE, in); }

const struct drm_ops drm_widevine = {
    .name = "widevine",
    .title = "Widevine",
    .system_id = {0xed, 0xef, 0x8b, 0xa9, 0x79, 0xd6, 0x4a, 0xce, 0xa3, 0xc8, 0x27, 0xdc, 0xd5, 0x1d, 0x21, 0xed},
    .pssh = widevine_pssh,
    .hls = widevine_hls,
    .mpd = widevine_mpd,
};
