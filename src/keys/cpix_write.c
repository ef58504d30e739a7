#include "keys/cpix_write.h"

#include "base/text.h"
#include "drm/markup.h"

enum { EXPORT_MAX = 64 << 10 }; // bytes of one system's data before base64

void cpix_open(struct writer *w, struct bytes content_id, const char *version) {
  wr_str(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<cpix:CPIX xmlns:cpix=\"urn:dashif:org:cpix\""
            " xmlns:pskc=\"urn:ietf:params:xml:ns:keyprov:pskc\" contentId=\"");
  xml_write(w, content_id);
  wr_str(w, "\" version=\"");
  wr_str(w, version);
  wr_str(w, "\">\n");
}

void cpix_close(struct writer *w) { wr_str(w, "</cpix:CPIX>\n"); }

void cpix_key_open(struct writer *w, const uint8_t kid[16], enum scheme scheme) {
  wr_str(w, "<cpix:ContentKey kid=\"");
  uuid_write(w, kid);
  wr_str(w, "\" commonEncryptionScheme=\"");
  wr_str(w, scheme_name(scheme));
  wr_str(w, "\"");
}

void cpix_system_open(struct writer *w, const uint8_t kid[16], enum drm_system s) {
  wr_str(w, "<cpix:DRMSystem kid=\"");
  uuid_write(w, kid);
  wr_str(w, "\" systemId=\"");
  uuid_write(w, drm_systems[s]->system_id);
  wr_str(w, "\">\n");
}

void cpix_rule(struct writer *w, const uint8_t kid[16], struct bytes label) {
  wr_str(w, "<cpix:ContentKeyUsageRule kid=\"");
  uuid_write(w, kid);
  wr_str(w, "\" intendedTrackType=\"AUDIO");
  if (label.n) { // no two rules of a document may name one track type (SPEKE, encryption contract)
    wr_u8(w, '_');
    xml_write(w, label);
  }
  wr_str(w, "\"><cpix:AudioFilter/>");
  if (label.n) {
    wr_str(w, "<cpix:LabelFilter label=\"");
    xml_write(w, label);
    wr_str(w, "\"/>");
  }
  wr_str(w, "</cpix:ContentKeyUsageRule>\n");
}

// ContentProtectionData stands alone, so that each element declares the prefix that the MPD's root does for it.
static void declare_prefixes(struct writer *w, struct bytes xml) {
  static const struct {
    const char *tag, *declaration;
  } known[] = {{"<cenc:pssh", " xmlns:cenc=\"urn:mpeg:cenc:2013\""},
               {"<mspr:pro", " xmlns:mspr=\"urn:microsoft:playready\""},
               {"<dashif:Laurl", " xmlns:dashif=\"https://dashif.org/CPS\""},
               {"<ck:Laurl", " xmlns:ck=\"http://dashif.org/guidelines/clearKey\""}};
  for (size_t i = 0; i < xml.n; i++) {
    wr_u8(w, xml.p[i]);
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
      size_t n = strlen(known[k].tag);
      if (i + 1 >= n && memcmp(xml.p + i + 1 - n, known[k].tag, n) == 0)
        wr_str(w, known[k].declaration);
    }
  }
}

static void data_element(struct writer *w, const char *open, const char *close, const struct writer *data) {
  if (!data->n || !wr_ok(data))
    return;
  wr_str(w, open);
  base64_write(w, bytes_of(data->p, data->n));
  wr_str(w, close);
}

static void export_system(struct writer *w, const struct key_record *key, enum drm_system s,
                          const struct drm_settings *set, bool v24) {
  uint8_t buf[EXPORT_MAX], xml[EXPORT_MAX];
  struct drm_settings one = *set;
  one.systems = one.in_band = drm_bit(s);
  struct drm_input in = {.key = key, .set = &one};
  cpix_system_open(w, key->kid, s);
  struct writer d = wr_of(buf, sizeof buf);
  drm_pssh(&d, &in);
  data_element(w, "<cpix:PSSH>", "</cpix:PSSH>\n", &d);
  struct writer x = wr_of(xml, sizeof xml);
  drm_mpd_inside(&x, s, &in);
  d = wr_of(buf, sizeof buf);
  if (wr_ok(&x) && key->given && key->given[s].mpd.n)
    wr_raw(&d, xml, x.n); // a key server's fragment is as it came
  else if (wr_ok(&x))
    declare_prefixes(&d, bytes_of(xml, x.n));
  data_element(w, "<cpix:ContentProtectionData>", "</cpix:ContentProtectionData>\n", &d);
  d = wr_of(buf, sizeof buf);
  drm_hls(&d, "EXT-X-KEY", &in);
  data_element(w, "<cpix:HLSSignalingData playlist=\"media\">", "</cpix:HLSSignalingData>\n", &d);
  d = wr_of(buf, sizeof buf);
  drm_hls(&d, "EXT-X-SESSION-KEY", &in);
  data_element(w, v24 ? "<cpix:HLSSignalingData playlist=\"multiVariant\">" : "<cpix:HLSSignalingData playlist=\"master\">",
               "</cpix:HLSSignalingData>\n", &d);
  wr_str(w, "</cpix:DRMSystem>\n");
}

static void export_key(struct writer *w, const struct key_record *k) {
  cpix_key_open(w, k->kid, k->scheme);
  if (k->has_iv) {
    wr_str(w, " explicitIV=\"");
    base64_write(w, bytes_of(k->iv, 16));
    wr_str(w, "\"");
  }
  wr_str(w, "><cpix:Data><pskc:Secret><pskc:PlainValue>");
  base64_write(w, bytes_of(k->key, 16));
  wr_str(w, "</pskc:PlainValue></pskc:Secret></cpix:Data></cpix:ContentKey>\n");
}

void cpix_export(struct writer *w, const struct key_record *keys, uint32_t num, const struct drm_settings *set,
                 bool v24) {
  cpix_open(w, num ? keys[0].asset : (struct bytes){0}, v24 ? "2.4" : "2.3");
  wr_str(w, "<cpix:ContentKeyList>\n");
  for (uint32_t i = 0; i < num; i++)
    export_key(w, &keys[i]);
  wr_str(w, "</cpix:ContentKeyList>\n<cpix:DRMSystemList>\n");
  for (uint32_t i = 0; i < num; i++)
    for (unsigned s = 0; s < DRM_SYSTEM_COUNT; s++)
      if (set->systems & drm_bit((enum drm_system)s))
        export_system(w, &keys[i], (enum drm_system)s, set, v24);
  wr_str(w, "</cpix:DRMSystemList>\n<cpix:ContentKeyUsageRuleList>\n");
  for (uint32_t i = 0; i < num; i++)
    cpix_rule(w, keys[i].kid, keys[i].label);
  wr_str(w, "</cpix:ContentKeyUsageRuleList>\n");
  cpix_close(w);
}
