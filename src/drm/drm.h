// DRM signalling: what each system's players want to see of one key, as a pssh box, an HLS key line and a
// DASH descriptor. One file and one row of drm_systems for each system; nothing here keeps state.
// Sources: ISO/IEC 23001-7 §8.1 (pssh), §11.2 (DASH); RFC 8216bis §4.4.4.4 (EXT-X-KEY); DASH-IF IOP part 6; and for
// each system the page docs/drm/<system>.md.
#pragma once
#include "base/writer.h"
#include "cenc/plan.h"

enum drm_system { DRM_WIDEVINE, DRM_PLAYREADY, DRM_FAIRPLAY, DRM_CLEARKEY, DRM_COMMON, DRM_SYSTEM_COUNT };

// drm_bit(s) is the system's place in the masks below.
static inline uint32_t drm_bit(enum drm_system s) { return 1u << s; }

// What a key server delivered for one system: used as it is, after validation by keys/. Empty slices where it
// delivered nothing, which is then generated.
struct drm_given {
  struct bytes pssh;       // one whole pssh box
  struct bytes mpd;        // the inside of the ContentProtection element, well-formed XML
  struct bytes hls_media;  // whole EXT-X-KEY lines, each ending in a line feed
  struct bytes hls_master; // whole EXT-X-SESSION-KEY lines, likewise; where one of the two is empty, the other's serve with its tag
};

// One content key and what belongs to it. Holds a secret: place it in locked memory, wipe it with key_record_wipe.
struct key_record {
  enum scheme scheme;
  uint32_t epoch;
  uint8_t kid[16];
  uint8_t key[16];
  uint8_t iv[16]; // cbcs only: the constant IV dictated with the key; valid where has_iv
  bool has_iv;
  struct bytes asset, label;     // what it was asked for; label "" or "lossless" (drm_label)
  const struct drm_given *given; // NULL, or DRM_SYSTEM_COUNT entries
};

void key_record_wipe(struct key_record *k);

// key_record_protection fills `p` for a track: scheme, KID, expanded key, and the IV (the record's own, else
// cbcs_iv of the key; for cenc cenc_iv_base of key, digest and track id). p->pssh is left empty.
void key_record_protection(struct protection *p, const struct key_record *k, const struct aes_ops *ops,
                           const uint8_t digest[32], uint32_t track_id);

// What is signalled, for everything or by the rule that fits an asset (keys/keys.h). Slices point into the
// caller's memory. A zeroed struct signals nothing but mp4protection.
struct drm_settings {
  uint32_t systems; // mask: signalled in playlists and MPDs
  uint32_t in_band; // mask: pssh in the init segment's moov
  uint32_t schemes; // mask of 1 << enum scheme: what may be asked for
  bool per_tier;    // lossless tracks have a key of their own (label "lossless")
  struct {
    struct bytes provider, content_id, policy; // content_id: template, see below; "" leaves the field out
  } widevine;
  struct {
    struct bytes la_url, lui_url, ds_id, custom; // custom: XML inside CUSTOMATTRIBUTES
  } playready;
  struct {
    struct bytes skd;    // template of the URI
  } fairplay;
  struct {
    struct bytes la_url; // template; ClearKey licence server
    bool no_identity;    // leaves the `identity` line out all the same: hls.js prefers it, and cannot use it for cbcs
  } clearkey;
  bool identity; // HLS line KEYFORMAT="identity" with `identity_uri`: only ever under --insecure-clearkey
};
// Templates: {kid} is the KID in lower-case hex, {KID} in UUID form, {asset} the asset's name percent-encoded,
// {epoch}, {scheme} and {label} what they say. Anything else stays; the keys file accepts no other name in braces.

// A key and how it is to be signalled: the one argument of everything below.
struct drm_input {
  const struct key_record *key;
  const struct drm_settings *set;
  struct bytes identity_uri; // of the 16 raw key bytes, as the playlist at hand must name it; used with set->identity
  const struct key_record *const *earlier; // drm_hls: keys whose lines stand above, num_earlier of them
  unsigned num_earlier;
};

// A row for each system. The functions append and cannot fail but by the writer's space; NULL where the system has no
// such form. What a key server delivered (drm_given) takes their place.
struct drm_ops {
  const char *name;      // "widevine": as in --drm and the configuration
  const char *title;     // "Widevine"
  uint8_t system_id[16]; // of the pssh box and the HLS/MPD uuid
  const char *mpd_value; // ContentProtection@value; NULL for none
  bool cbcs_only;
  bool (*fits)(const struct drm_input *in); // NULL: always. False: what would be generated is too long, the system is left out
  void (*pssh)(struct writer *w, const struct drm_input *in); // one box
  void (*hls)(struct writer *w, const struct drm_input *in);  // the attributes behind METHOD of an EXT-X-KEY
  void (*mpd)(struct writer *w, const struct drm_input *in);  // the inside of the ContentProtection element
};

extern const struct drm_ops *const drm_systems[DRM_SYSTEM_COUNT];

// drm_parse reads one system's name. Errors: ERR_SYNTAX.
MUST_USE enum err drm_parse(enum drm_system *out, struct bytes name);
// drm_parse_list reads "widevine,playready", "all" or "none" into a mask. Errors: ERR_SYNTAX.
MUST_USE enum err drm_parse_list(uint32_t *mask, struct bytes list);
// drm_by_id finds a system by its UUID; DRM_SYSTEM_COUNT when unknown.
enum drm_system drm_by_id(const uint8_t system_id[16]);

// drm_label is the key label of a track: "lossless" for FLAC and ALAC sample entries when set->per_tier, else "".
struct bytes drm_label(const struct drm_settings *set, uint32_t format);

// drm_pssh appends the pssh boxes that the init segment carries (set->in_band), in table order.
void drm_pssh(struct writer *w, const struct drm_input *in);

// drm_hls appends one line for each signalled system: `tag` is "EXT-X-KEY" or "EXT-X-SESSION-KEY". What an earlier key has
// already said is not said again (RFC 8216bis §4.4.6.5: no two session keys with the same attributes). Nothing for SCHEME_CLEAR.
void drm_hls(struct writer *w, const char *tag, const struct drm_input *in);

// drm_mpd appends the mp4protection descriptor with cenc:default_KID, then one for each signalled system.
// The MPD element declares the prefixes cenc, mspr, dashif and ck. Nothing for SCHEME_CLEAR.
void drm_mpd(struct writer *w, const struct drm_input *in);

// drm_mpd_inside appends what stands inside one system's ContentProtection element; nothing where it has none.
void drm_mpd_inside(struct writer *w, enum drm_system s, const struct drm_input *in);
