// The W3C common system: a version 1 pssh box that carries nothing but the KID, for players that ask any licence
// server by KID (ClearKey among them). It has no HLS form. Source: W3C "cenc" Initialization Data Format §4.
#include "drm/markup.h"
#include "drm/systems.h"

static void common_pssh(struct writer *w, const struct drm_input *in) {
  pssh_write(w, drm_common.system_id, &in->key->kid, 1, (struct bytes){0});
}

static void common_mpd(struct writer *w, const struct drm_input *in) { drm_mpd_pssh(w, DRM_COMMON, in); }

const struct drm_ops drm_common = {
    .name = "common",
    .title = "W3C common",
    .system_id = {0x10, 0x77, 0xef, 0xec, 0xc0, 0xb2, 0x4d, 0x02, 0xac, 0xe3, 0x3c, 0x1e, 0x52, 0xe2, 0xfb, 0x4b},
    .pssh = common_pssh,
    .mpd = common_mpd,
};
