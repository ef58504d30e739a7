// Checks of what a key server delivers for a DRM system before it is used as it is (struct drm_given). The texts go
// into init segments, playlists and MPDs: what passes cannot break out of its place there.
#pragma once
#include "base/err.h"
#include "drm/drm.h"

enum { GIVEN_MAX_PSSH = 16 << 10, GIVEN_MAX_TEXT = 64 << 10 };

// given_pssh: exactly one pssh box of this system; a version 1 box must list the KID.
MUST_USE enum err given_pssh(struct bytes box, enum drm_system s, const uint8_t kid[16], struct diag *diag);

// given_mpd: a well-formed, balanced XML fragment without DTD, whose prefixes it declares itself or the MPD does.
MUST_USE enum err given_mpd(struct bytes xml, struct diag *diag);

// given_hls: only lines of the one tag ("#EXT-X-KEY:" for media, "#EXT-X-SESSION-KEY:" for master), each with the
// METHOD of the scheme. Line ends are made LF in place; *text ends in one on return. `text` has room for one more byte.
MUST_USE enum err given_hls(uint8_t *text, size_t *len, bool master, enum scheme scheme, struct diag *diag);
