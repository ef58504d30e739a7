// The rows of drm_systems, one file each. A new system is one such file, a line here, and a value of enum drm_system.
#pragma once
#include "drm/drm.h"

extern const struct drm_ops drm_widevine, drm_playready, drm_fairplay, drm_clearkey, drm_common;

// What the rows share (drm.c).
enum { DRM_MAX_DATA = 20480 }; // bytes of one pssh box

// drm_given_pssh is the box that the key server delivered for a system, empty when none; drm_pssh_data the data inside
// a whole box, empty when it is not one.
struct bytes drm_given_pssh(const struct drm_input *in, enum drm_system s);
struct bytes drm_pssh_data(struct bytes box);

// drm_hls_pssh appends `URI="data:text/plain;base64,…"` with the system's box: the delivered one, else a generated one.
void drm_hls_pssh(struct writer *w, enum drm_system s, const struct drm_input *in);

// drm_hls_iv appends `,IV=0x…` for cbcs: the constant IV. Nothing for cenc, whose IVs are per sample. Digits of HLS are
// upper case everywhere. Source: RFC 8216bis §4.2, hexadecimal-sequence.
void drm_hls_iv(struct writer *w, const struct drm_input *in);

// drm_mpd_pssh appends `<cenc:pssh>` with the system's box.
void drm_mpd_pssh(struct writer *w, enum drm_system s, const struct drm_input *in);

// drm_mpd_laurl appends `<dashif:Laurl>` with the expanded template; nothing when that is empty.
void drm_mpd_laurl(struct writer *w, struct bytes tmpl, const struct drm_input *in);
