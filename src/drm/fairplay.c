// FairPlay Streaming: HLS only, cbcs only. The skd URI is a template of the operator's: Apple leaves its meaning to
// key server and application. No IV and no KEYID attribute: the IV comes with the key. docs/drm/fairplay.md.
#include "drm/markup.h"
#include "drm/systems.h"

static void fairplay_hls(struct writer *w, const struct drm_input *in) {
  uint8_t buf[TEMPLATE_MAX];
  struct bytes skd = in->set->fairplay.skd.n ? in->set->fairplay.skd : BYTES_LIT("skd://{kid}");
  wr_str(w, "URI=\"");
  hls_quoted_write(w, template_expand(buf, skd, in->key));
  wr_str(w, "\",KEYFORMATVERSIONS=\"1\",KEYFORMAT=\"com.apple.streamingkeydelivery\"");
}

const struct drm_ops drm_fairplay = {
    .name = "fairplay",
    .title = "FairPlay",
    .system_id = {0x94, 0xce, 0x86, 0xfb, 0x07, 0xff, 0x4f, 0x43, 0xad, 0xb8, 0x93, 0xd2, 0xfa, 0x96, 0x8c, 0xa2},
    .cbcs_only = true,
    .hls = fairplay_hls,
};
