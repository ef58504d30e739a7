// The section `drm` of a keys file.
#include "keysfile.h"

#include <stdio.h>

TestSuite(keysfile, .init = setup, .fini = teardown);

// What a template does not know would reach players as it stands.
Test(keysfile, templates_and_markup) {
  static const char known[] = "line 2: drm.clearkey.la_url: {Kid} is unknown; there are {kid} {KID} {asset} {epoch} {scheme} {label}";
  struct keyset *ks;
  struct keys_info info;
  refused(ERR_SYNTAX, "drm:\n  clearkey: { la_url: 'http://y/{kid}/{Kid}' }\n", known);
  refused(ERR_SYNTAX, "drm: { playready: { la_url: 'https://x/{foo}' } }", "line 1: drm.playready.la_url: {foo} is unknown");
  refused(ERR_SYNTAX, "drm: { playready: { lui_url: 'https://x/{ kid }' } }", "lui_url: { kid } is unknown");
  refused(ERR_SYNTAX, "drm: { fairplay: { skd: 'skd://{}' } }", "skd: {} is unknown");
  refused(ERR_SYNTAX, "drm: { rules: [ { match: a, widevine: { content_id: '{track}' } } ] }", "line 1: drm.rules.widevine.content_id: {track} is unknown");
  for (const char *const *p = (const char *const[]){"<a>", "</a>", "a & b", "</CUSTOMATTRIBUTES>", "</c><c>", "<x:a/>", "<a b=c/>", NULL}; *p; p++) {
    char text[256];
    snprintf(text, sizeof text, "drm:\n  playready:\n    custom: '%s'\n", *p);
    refused(ERR_SYNTAX, text, "line 3: drm.playready.custom: give well-formed XML");
  }
  cr_assert_eq(load(&ks, &info, "drm:\n  widevine: { content_id: '{\"asset\":\"{asset}\",\"n\":{\"epoch\":{epoch}}}' }\n"
                                "  playready: { la_url: 'https://x/{KID}?{label}', custom: '<a b=\"c\">d &amp; e</a><f/>g' }\n"), ERR_OK, "%s", shown);
}

Test(keysfile, drm_section_with_rules) {
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(load(&ks, &info,
                    "drm:\n"
                    "  widevine: { provider: example, content_id: 'c-{asset}' }\n"
                    "  playready: { la_url: 'https://pr/{KID}' }\n"
                    "  rules:\n"
                    "    - { match: label/, schemes: [cbcs], fairplay: { skd: 'skd://x/{kid}' }, systems: [fairplay] }\n"
                    "    - { match: label/album/track, clearkey: { la_url: x }, per_tier: true }\n"
                    "    - { match: label/album/, in_band: all }\n"),
               ERR_OK, "%s", shown);
  const struct drm_settings *d = keys_drm(ks, BYTES_LIT("other/track"));
  cr_assert_eq(d->systems, drm_bit(DRM_WIDEVINE) | drm_bit(DRM_PLAYREADY));
  cr_assert_eq(d->in_band, 0);
  cr_assert_eq(d->schemes, 1u << SCHEME_CENC | 1u << SCHEME_CBCS);
  cr_assert(bytes_eq(d->widevine.content_id, BYTES_LIT("c-{asset}")));
  d = keys_drm(ks, BYTES_LIT("label/x/y"));
  cr_assert_eq(d->systems, drm_bit(DRM_FAIRPLAY));
  cr_assert_eq(d->schemes, 1u << SCHEME_CBCS);
  cr_assert(bytes_eq(d->widevine.provider, BYTES_LIT("example"))); // what the top level says stays
  d = keys_drm(ks, BYTES_LIT("label/album/other"));
  cr_assert_eq(d->in_band, 31);
  d = keys_drm(ks, BYTES_LIT("label/album/track"));
  cr_assert_eq(d->systems, drm_bit(DRM_CLEARKEY));
  cr_assert_eq(d->in_band, drm_bit(DRM_COMMON));
  cr_assert(d->per_tier);
  cr_assert_not(keys_drm(ks, BYTES_LIT("label/album/track2"))->per_tier);
  cr_assert_eq(keys_drm(ks, BYTES_LIT("label")), keys_drm(ks, BYTES_LIT("")));
}

Test(keysfile, what_is_signalled_for_a_scheme) {
  static const struct {
    const char *text;
    bool cenc, cbcs;
  } is[] = {
      {"drm: { playready: { la_url: x } }", true, true},
      {"drm: { playready: { la_url: x }, schemes: [cbcs] }", false, true},
      {"drm: { systems: [widevine] }", false, false},
      {"drm: { systems: [widevine], in_band: [playready] }", true, true},
      {"drm: { systems: [widevine], rules: [ { match: a/, systems: [playready], schemes: [cenc] } ] }", true, false},
  };
  for (size_t i = 0; i < sizeof is / sizeof *is; i++) {
    struct keyset *ks;
    struct keys_info info;
    cr_assert_eq(load(&ks, &info, is[i].text), ERR_OK, "%s", shown);
    cr_assert_eq(keys_signal(ks, SCHEME_CENC, DRM_PLAYREADY), is[i].cenc, "%s", is[i].text);
    cr_assert_eq(keys_signal(ks, SCHEME_CBCS, DRM_PLAYREADY), is[i].cbcs, "%s", is[i].text);
  }
}

// A rule for one asset is for no other that begins with its name.
Test(keysfile, a_rule_without_slash_is_no_prefix) {
  struct keyset *ks;
  struct keys_info info;
  cr_assert_eq(load(&ks, &info, "drm: { rules: [ { match: a, per_tier: true }, { match: ab, per_tier: true } ] }"), ERR_OK, "%s", shown);
  cr_assert(keys_drm(ks, BYTES_LIT("a"))->per_tier && keys_drm(ks, BYTES_LIT("ab"))->per_tier);
  cr_assert_not(keys_drm(ks, BYTES_LIT("ac"))->per_tier);
  cr_assert_not(keys_drm(ks, BYTES_LIT("abc"))->per_tier);
  cr_assert_not(keys_drm(ks, BYTES_LIT("a/b"))->per_tier);
}
