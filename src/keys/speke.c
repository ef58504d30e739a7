// SPEKE 2.0 (CPIX 2.3) and 2.1 (CPIX 2.4): the body of a request, and the reading of an answer. KIDs are ours
// (keys_kid), keys and DRM data the key server's. Source: SPEKE API v2, "Standard payload components".
#include "base/text.h"
#include "keys/cpix.h"
#include "keys/cpix_write.h"
#include "keys/remote.h"

// What each system's entry asks for; systems that need nothing from a key server are signalled from here.
static const struct {
  enum drm_system system;
  bool pssh; // and ContentProtectionData
} asked[] = {{DRM_WIDEVINE, true}, {DRM_PLAYREADY, true}, {DRM_FAIRPLAY, false}};

static void ask_system(struct writer *w, const struct key_query *q, size_t i, bool v21) {
  uint8_t kid[16];
  keys_kid(kid, q);
  cpix_system_open(w, kid, asked[i].system);
  if (asked[i].pssh)
    wr_str(w, "<cpix:PSSH/>\n<cpix:ContentProtectionData/>\n");
  wr_str(w, "<cpix:HLSSignalingData playlist=\"media\"/>\n<cpix:HLSSignalingData playlist=\"");
  wr_str(w, v21 ? "multiVariant" : "master");
  wr_str(w, "\"/>\n</cpix:DRMSystem>\n");
}

static void speke_request(struct writer *w, const struct key_doc *doc, bool v21) {
  uint8_t kid[16];
  cpix_open(w, doc->queries[0].asset, v21 ? "2.4" : "2.3");
  wr_str(w, "<cpix:ContentKeyList>\n");
  for (uint32_t i = 0; i < doc->num_queries; i++) {
    keys_kid(kid, &doc->queries[i]);
    cpix_key_open(w, kid, doc->queries[i].scheme);
    wr_str(w, "/>\n");
  }
  wr_str(w, "</cpix:ContentKeyList>\n<cpix:DRMSystemList>\n");
  for (uint32_t i = 0; i < doc->num_queries; i++)
    for (size_t s = 0; s < sizeof asked / sizeof asked[0]; s++)
      if ((doc->drm->systems & drm_bit(asked[s].system)) &&
          (!drm_systems[asked[s].system]->cbcs_only || doc->queries[i].scheme == SCHEME_CBCS))
        ask_system(w, &doc->queries[i], s, v21);
  wr_str(w, "</cpix:DRMSystemList>\n<cpix:ContentKeyUsageRuleList>\n");
  for (uint32_t i = 0; i < doc->num_queries; i++) {
    keys_kid(kid, &doc->queries[i]);
    cpix_rule(w, kid, doc->queries[i].label);
  }
  wr_str(w, "</cpix:ContentKeyUsageRuleList>\n");
  cpix_close(w);
}

static void request_20(struct writer *w, const struct key_doc *doc) { speke_request(w, doc, false); }
static void request_21(struct writer *w, const struct key_doc *doc) { speke_request(w, doc, true); }

// The key that answers a query, checked against what was asked.
static enum err take_key(struct alloc *mem, struct key_record *out, const struct cpix *c, const struct key_query *q,
                         struct diag *diag) {
  const struct cpix_key *k = NULL;
  uint8_t kid[16];
  char name[64];
  keys_kid(kid, q);
  for (uint32_t i = 0; i < c->num_keys && !k; i++)
    k = memcmp(c->keys[i].kid, kid, 16) == 0 ? &c->keys[i] : NULL;
  if (!k || !k->has_key)
    return diag_say(diag, ERR_NO_KEY, "asset \"%s\": the answer has no key for the KID that was asked for",
                    key_name(name, q->asset));
  if (k->scheme != q->scheme)
    return diag_say(diag, ERR_MALFORMED, "asset \"%s\": the answer's key is %s, %s was asked for",
                    key_name(name, q->asset), k->scheme == SCHEME_CLEAR ? "of no scheme" : scheme_name(k->scheme),
                    scheme_name(q->scheme));
  if (!cpix_is_for_audio(c, kid))
    return diag_say(diag, ERR_MALFORMED, "asset \"%s\": the answer's usage rules give the key to other tracks than audio",
                    key_name(name, q->asset));
  struct drm_given *given = mem->get(mem, DRM_SYSTEM_COUNT * sizeof *given);
  if (!given)
    return diag_say(diag, ERR_NO_MEMORY, "out of memory");
  for (uint32_t i = 0; i < c->num_systems; i++)
    if (memcmp(c->systems[i].kid, kid, 16) == 0)
      given[c->systems[i].system] = c->systems[i].given;
  *out = (struct key_record){.scheme = q->scheme, .epoch = q->epoch, .asset = q->asset, .label = q->label,
                             .given = given};
  memcpy(out->kid, kid, 16);
  memcpy(out->key, k->key, 16);
  out->has_iv = k->has_iv && q->scheme == SCHEME_CBCS; // a cenc IV is never taken from outside
  if (out->has_iv)
    memcpy(out->iv, k->iv, 16);
  return ERR_OK;
}

static enum err speke_answer(struct alloc *mem, struct key_record *out, const struct key_doc *doc, struct bytes body,
                             struct diag *diag) {
  struct cpix c;
  enum err e = cpix_parse(mem, &c, body, diag);
  if (e)
    return e;
  if (c.num_keys > doc->num_queries)
    e = diag_say(diag, ERR_MALFORMED, "the answer has %u keys, %u were asked for", c.num_keys, doc->num_queries);
  for (uint32_t i = 0; !e && i < doc->num_queries; i++)
    e = take_key(mem, &out[i], &c, &doc->queries[i], diag);
  cpix_wipe(&c);
  return remote_finish(out, doc, e);
}

const struct key_provider speke20_provider = {.name = "speke2.0",
                                              .content_type = "application/xml",
                                              .headers = "X-Speke-Version: 2.0\r\n",
                                              .request = request_20,
                                              .answer = speke_answer};
const struct key_provider speke21_provider = {.name = "speke2.1",
                                              .content_type = "application/xml",
                                              .headers = "X-Speke-Version: 2.1\r\n",
                                              .request = request_21,
                                              .answer = speke_answer};
