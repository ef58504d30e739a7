// Reading CPIX. The parser follows a small table of elements; text is collected for those that have some, bounded,
// and understood when the element ends.
#include "base/text.h"
#include "keys/cpix.h"
#include "keys/given.h"
#include "keys/keyset.h"
#include "keys/xml.h"

#include <strings.h>

#define CPIX_NS "urn:dashif:org:cpix|"
#define PSKC_NS "urn:ietf:params:xml:ns:keyprov:pskc|"

enum element {
  E_OTHER, // anything not listed: passed over with what is in it
  E_CPIX,
  E_KEY_LIST,
  E_KEY,
  E_DATA,
  E_SECRET,
  E_PLAIN,
  E_ENCRYPTED,
  E_SYSTEM_LIST,
  E_SYSTEM,
  E_PSSH,
  E_PROTECTION,
  E_HLS,
  E_RULE_LIST,
  E_RULE,
  E_LABEL,
  E_VIDEO,
  E_AUDIO,
  E_COUNT
};

static const struct {
  const char *name;
  enum element parent;
  bool text; // its characters matter
} elements[E_COUNT] = {
    [E_CPIX] = {CPIX_NS "CPIX", E_OTHER, false},
    [E_KEY_LIST] = {CPIX_NS "ContentKeyList", E_CPIX, false},
    [E_KEY] = {CPIX_NS "ContentKey", E_KEY_LIST, false},
    [E_DATA] = {CPIX_NS "Data", E_KEY, false},
    [E_SECRET] = {PSKC_NS "Secret", E_DATA, false},
    [E_PLAIN] = {PSKC_NS "PlainValue", E_SECRET, true},
    [E_ENCRYPTED] = {PSKC_NS "EncryptedValue", E_SECRET, false},
    [E_SYSTEM_LIST] = {CPIX_NS "DRMSystemList", E_CPIX, false},
    [E_SYSTEM] = {CPIX_NS "DRMSystem", E_SYSTEM_LIST, false},
    [E_PSSH] = {CPIX_NS "PSSH", E_SYSTEM, true},
    [E_PROTECTION] = {CPIX_NS "ContentProtectionData", E_SYSTEM, true},
    [E_HLS] = {CPIX_NS "HLSSignalingData", E_SYSTEM, true},
    [E_RULE_LIST] = {CPIX_NS "ContentKeyUsageRuleList", E_CPIX, false},
    [E_RULE] = {CPIX_NS "ContentKeyUsageRule", E_RULE_LIST, false},
    [E_LABEL] = {CPIX_NS "LabelFilter", E_RULE, false},
    [E_VIDEO] = {CPIX_NS "VideoFilter", E_RULE, false},
    [E_AUDIO] = {CPIX_NS "AudioFilter", E_RULE, false},
};

struct state {
  XML_Parser xml;
  struct alloc *mem;
  struct diag *diag;
  struct cpix *doc;
  enum element stack[CPIX_MAX_DEPTH];
  uint32_t depth, other; // other: how deep inside an element that is passed over
  uint8_t *text;         // CPIX_MAX_TEXT bytes
  size_t text_len;
  struct cpix_system system; // the one at hand; kept when it ends, if its system is known
  bool master;               // the HLSSignalingData at hand
  bool failed;               // expat may call once more after it was stopped
};

static void fail(struct state *s, enum err e, const char *what) {
  (void)diag_set(s->diag, e, xml_at(s->xml), "%s", what);
  s->failed = true;
  XML_StopParser(s->xml, XML_FALSE);
}

static struct bytes attribute(const XML_Char **atts, const char *name) {
  for (size_t i = 0; atts[i]; i += 2)
    if (strcmp(atts[i], name) == 0)
      return bytes_str(atts[i + 1]);
  return (struct bytes){0};
}

static struct bytes keep(struct state *s, struct bytes b) {
  uint8_t *p = b.n ? s->mem->get(s->mem, b.n) : NULL;
  if (b.n && !p)
    fail(s, ERR_NO_MEMORY, "out of memory");
  if (p)
    memcpy(p, b.p, b.n);
  return bytes_of(p, p ? b.n : 0);
}

static bool read_kid(struct state *s, uint8_t kid[16], const XML_Char **atts) {
  if (!hex_read(kid, 16, attribute(atts, "kid")))
    return true;
  fail(s, ERR_MALFORMED, "a kid is missing or not a UUID");
  return false;
}

static struct cpix_key *find_key(const struct cpix *c, const uint8_t kid[16]) {
  for (uint32_t i = 0; i < c->num_keys; i++)
    if (memcmp(c->keys[i].kid, kid, 16) == 0)
      return &c->keys[i];
  return NULL;
}

static void start_key(struct state *s, const XML_Char **atts) {
  struct cpix_key k = {.scheme = SCHEME_CLEAR};
  struct bytes scheme = attribute(atts, "commonEncryptionScheme"), iv = attribute(atts, "explicitIV");
  if (!read_kid(s, k.kid, atts))
    return;
  if (find_key(s->doc, k.kid)) {
    fail(s, ERR_MALFORMED, "two content keys have the same kid");
    return;
  }
  if (scheme.n && (scheme_parse(&k.scheme, scheme) || k.scheme == SCHEME_CLEAR)) {
    fail(s, ERR_MALFORMED, "commonEncryptionScheme is neither cenc nor cbcs");
    return;
  }
  size_t n = 16;
  if (iv.n && (base64_read(k.iv, &n, iv) || n != 16)) {
    fail(s, ERR_MALFORMED, "explicitIV is not 16 bytes in base64");
    return;
  }
  k.has_iv = iv.n != 0;
  k.content_id = keep(s, attribute(atts, "contentId"));
  if (s->failed)
    return;
  if (s->doc->num_keys == CPIX_MAX_KEYS)
    fail(s, ERR_LIMIT, "the document has too many content keys");
  else
    s->doc->keys[s->doc->num_keys++] = k;
}

static void start_system(struct state *s, const XML_Char **atts) {
  uint8_t id[16];
  s->system = (struct cpix_system){.system = DRM_SYSTEM_COUNT};
  if (!read_kid(s, s->system.kid, atts))
    return;
  if (hex_read(id, 16, attribute(atts, "systemId"))) {
    fail(s, ERR_MALFORMED, "a systemId is missing or not a UUID");
    return;
  }
  s->system.system = drm_by_id(id);
}

static void start_rule(struct state *s, const XML_Char **atts) {
  if (s->doc->num_rules == CPIX_MAX_RULES) {
    fail(s, ERR_LIMIT, "the document has too many usage rules");
    return;
  }
  struct cpix_rule *r = &s->doc->rules[s->doc->num_rules++];
  *r = (struct cpix_rule){.track_type = keep(s, attribute(atts, "intendedTrackType"))};
  (void)read_kid(s, r->kid, atts);
}

static void start_element(struct state *s, enum element e, const XML_Char **atts) {
  if (e == E_CPIX) {
    s->doc->content_id = keep(s, attribute(atts, "contentId"));
    s->doc->version = keep(s, attribute(atts, "version"));
  } else if (e == E_KEY) {
    start_key(s, atts);
  } else if (e == E_SYSTEM) {
    start_system(s, atts);
  } else if (e == E_RULE) {
    start_rule(s, atts);
  } else if (e == E_LABEL) {
    s->doc->rules[s->doc->num_rules - 1].label = keep(s, attribute(atts, "label"));
  } else if (e == E_VIDEO) {
    s->doc->rules[s->doc->num_rules - 1].video = true;
  } else if (e == E_AUDIO) {
    s->doc->rules[s->doc->num_rules - 1].audio = true;
  } else if (e == E_ENCRYPTED) {
    fail(s, ERR_UNSUPPORTED, "the content keys are encrypted: ask for plain values over TLS");
  } else if (e == E_HLS) {
    // 2.3 says master, 2.4 multiVariant; the attribute is optional, and without it the data is for media playlists.
    struct bytes list = attribute(atts, "playlist");
    s->master = bytes_eq(list, BYTES_LIT("master")) || bytes_eq(list, BYTES_LIT("multiVariant"));
    if (list.p && !s->master && !bytes_eq(list, BYTES_LIT("media")))
      fail(s, ERR_MALFORMED, "HLSSignalingData@playlist is none of media, master and multiVariant");
  }
}

static void on_start(void *arg, const XML_Char *name, const XML_Char **atts) {
  struct state *s = XML_GetUserData(arg);
  if (s->failed)
    return;
  enum element parent = s->depth ? s->stack[s->depth - 1] : E_OTHER, e = E_OTHER;
  for (unsigned i = 1; i < E_COUNT && !s->other && (parent != E_OTHER || !s->depth); i++)
    if (elements[i].parent == parent && strcmp(elements[i].name, name) == 0)
      e = (enum element)i;
  if (!s->depth && e != E_CPIX) {
    fail(s, ERR_SYNTAX, "this is not a CPIX document");
    return;
  }
  if (s->depth + s->other == CPIX_MAX_DEPTH) {
    fail(s, ERR_LIMIT, "the document nests too deeply");
    return;
  }
  if (e == E_OTHER) {
    s->other++;
    return;
  }
  s->stack[s->depth++] = e;
  s->text_len = 0;
  start_element(s, e, atts);
}

static void on_text(void *arg, const XML_Char *text, int len) {
  struct state *s = XML_GetUserData(arg);
  if (s->failed || s->other || !s->depth || !elements[s->stack[s->depth - 1]].text)
    return;
  for (int i = 0; i < len; i++) {
    if (text[i] == ' ' || text[i] == '\n' || text[i] == '\r' || text[i] == '\t')
      continue;
    if (s->text_len == CPIX_MAX_TEXT) {
      fail(s, ERR_LIMIT, "an element's text is too long");
      return;
    }
    s->text[s->text_len++] = (uint8_t)text[i];
  }
}

static void end_plain(struct state *s) {
  struct cpix_key *k = &s->doc->keys[s->doc->num_keys - 1];
  size_t n = 16;
  if (k->has_key)
    fail(s, ERR_MALFORMED, "a content key has two values");
  else if (base64_read(k->key, &n, bytes_of(s->text, s->text_len)) || n != 16)
    fail(s, ERR_MALFORMED, "a content key is not 16 bytes in base64");
  else
    k->has_key = true;
}

// Decodes the text of PSSH and the like; checked when the whole document is known.
static void end_data(struct state *s, struct bytes *to) {
  if (!s->text_len || s->system.system == DRM_SYSTEM_COUNT)
    return; // an empty element asks for data: it holds none; an unknown system's is nothing to us
  size_t n = s->text_len / 4 * 3 + 3;
  uint8_t *p = s->mem->get(s->mem, n + 1);
  if (!p)
    fail(s, ERR_NO_MEMORY, "out of memory");
  else if (to->n)
    fail(s, ERR_MALFORMED, "DRM data of one kind is given twice");
  else if (base64_read(p, &n, bytes_of(s->text, s->text_len)))
    fail(s, ERR_MALFORMED, "DRM data is not base64");
  else
    *to = bytes_of(p, n);
}

static void end_system(struct state *s) {
  struct cpix *c = s->doc;
  if (s->system.system == DRM_SYSTEM_COUNT)
    return;
  for (uint32_t i = 0; i < c->num_systems; i++)
    if (c->systems[i].system == s->system.system && memcmp(c->systems[i].kid, s->system.kid, 16) == 0) {
      fail(s, ERR_MALFORMED, "one DRM system is given twice for one kid");
      return;
    }
  if (c->num_systems == CPIX_MAX_SYSTEMS)
    fail(s, ERR_LIMIT, "the document has too many DRM systems");
  else
    c->systems[c->num_systems++] = s->system;
}

static void on_end(void *arg, const XML_Char *name) {
  struct state *s = XML_GetUserData(arg);
  (void)name;
  if (s->failed)
    return;
  if (s->other) {
    s->other--;
    return;
  }
  enum element e = s->stack[--s->depth];
  if (e == E_PLAIN)
    end_plain(s);
  else if (e == E_PSSH)
    end_data(s, &s->system.given.pssh);
  else if (e == E_PROTECTION)
    end_data(s, &s->system.given.mpd);
  else if (e == E_HLS)
    end_data(s, s->master ? &s->system.given.hls_master : &s->system.given.hls_media);
  else if (e == E_SYSTEM)
    end_system(s);
}

static enum err check_hls(struct bytes *text, bool master, enum scheme scheme, struct diag *diag) {
  if (!text->n)
    return ERR_OK;
  uint8_t *p;
  memcpy(&p, &text->p, sizeof p); // ours, from end_data, with a byte to spare
  return given_hls(p, &text->n, master, scheme, diag);
}

// What needs all of the document: DRM data belongs to a key of it, and is in order.
static enum err check_systems(struct cpix *c, struct diag *diag) {
  for (uint32_t i = 0; i < c->num_systems; i++) {
    struct cpix_system *s = &c->systems[i];
    const struct cpix_key *k = find_key(c, s->kid);
    if (!k)
      return diag_say(diag, ERR_MALFORMED, "DRM data is for a kid that has no content key");
    enum err e = s->given.pssh.n ? given_pssh(s->given.pssh, s->system, s->kid, diag) : ERR_OK;
    if (!e && s->given.mpd.n)
      e = given_mpd(s->given.mpd, diag);
    if (!e && k->scheme != SCHEME_CLEAR)
      e = check_hls(&s->given.hls_media, false, k->scheme, diag);
    if (!e && k->scheme != SCHEME_CLEAR)
      e = check_hls(&s->given.hls_master, true, k->scheme, diag);
    if (e)
      return e;
    if (k->scheme == SCHEME_CLEAR)
      s->given.hls_media = s->given.hls_master = (struct bytes){0}; // cannot be checked without a scheme
  }
  return ERR_OK;
}

void cpix_wipe(struct cpix *c) {
  for (uint32_t i = 0; c && i < c->num_keys; i++)
    explicit_bzero(&c->keys[i], sizeof c->keys[i]);
}

enum err cpix_parse(struct alloc *mem, struct cpix *out, struct bytes doc, struct diag *diag) {
  if (doc.n > CPIX_MAX_DOC)
    return diag_say(diag, ERR_LIMIT, "a CPIX document has at most %d bytes", CPIX_MAX_DOC);
  struct cpix c = {.keys = mem->get(mem, CPIX_MAX_KEYS * sizeof *c.keys),
                   .systems = mem->get(mem, CPIX_MAX_SYSTEMS * sizeof *c.systems),
                   .rules = mem->get(mem, CPIX_MAX_RULES * sizeof *c.rules)};
  struct state s = {.mem = mem, .diag = diag, .doc = &c, .text = mem->get(mem, CPIX_MAX_TEXT), .xml = xml_parser(doc.n)};
  if (!c.keys || !c.systems || !c.rules || !s.text || !s.xml) {
    XML_ParserFree(s.xml);
    return diag_say(diag, ERR_NO_MEMORY, "out of memory");
  }
  XML_SetUserData(s.xml, &s);
  XML_UseParserAsHandlerArg(s.xml);
  XML_SetElementHandler(s.xml, on_start, on_end);
  XML_SetCharacterDataHandler(s.xml, on_text);
  enum err e = xml_run(s.xml, doc, diag);
  XML_ParserFree(s.xml);
  explicit_bzero(s.text, CPIX_MAX_TEXT);
  if (!e)
    e = check_systems(&c, diag);
  if (e)
    cpix_wipe(&c);
  else
    *out = c;
  return e;
}

// Filters decide: a rule holds for what all its kinds of filters let through, but SPEKE's rule for everything ("ALL") has one of
// each kind. intendedTrackType is free text; SPEKE's names of audio are AUDIO, STEREO_AUDIO, MULTICHANNEL_AUDIO… and, for
// what goes under one key, several with '+'. Sources: CPIX, ContentKeyUsageRule; SPEKE API v2, encryption contract.
static bool rule_is_for_audio(const struct cpix_rule *r) {
  const char *type = (const char *)r->track_type.p;
  size_t n = r->track_type.n, len = strlen("AUDIO");
  bool named = !n || (n == 3 && strncasecmp(type, "ALL", n) == 0);
  for (size_t i = 0; i + len <= n && !named; i++)
    named = strncasecmp(type + i, "AUDIO", len) == 0;
  return r->audio || (!r->video && named);
}

bool cpix_is_for_audio(const struct cpix *c, const uint8_t kid[16]) {
  bool ruled = false;
  for (uint32_t i = 0; i < c->num_rules; i++) {
    if (memcmp(c->rules[i].kid, kid, 16) != 0)
      continue;
    if (rule_is_for_audio(&c->rules[i]))
      return true;
    ruled = true;
  }
  return !ruled;
}

static struct bytes label_of(const struct cpix *c, const uint8_t kid[16]) {
  for (uint32_t i = 0; i < c->num_rules; i++)
    if (memcmp(c->rules[i].kid, kid, 16) == 0 && c->rules[i].label.n && rule_is_for_audio(&c->rules[i]))
      return c->rules[i].label;
  return (struct bytes){0};
}

static enum err import_key(struct alloc *mem, struct key_record *out, const struct cpix *c, const struct cpix_key *k,
                           struct diag *diag) {
  if (!k->has_key)
    return diag_say(diag, ERR_MISSING, "a content key has no value");
  enum scheme scheme = k->scheme != SCHEME_CLEAR ? k->scheme : out->scheme;
  if (scheme == SCHEME_CLEAR)
    return diag_say(diag, ERR_MISSING, "a content key has no commonEncryptionScheme");
  struct drm_given *given = mem->get(mem, DRM_SYSTEM_COUNT * sizeof *given);
  if (!given)
    return diag_say(diag, ERR_NO_MEMORY, "out of memory");
  for (uint32_t i = 0; i < c->num_systems; i++)
    if (memcmp(c->systems[i].kid, k->kid, 16) == 0)
      given[c->systems[i].system] = c->systems[i].given;
  *out = (struct key_record){.scheme = scheme, .epoch = out->epoch, .label = label_of(c, k->kid), .given = given,
                             .asset = k->content_id.n ? k->content_id : c->content_id};
  memcpy(out->kid, k->kid, 16);
  memcpy(out->key, k->key, 16);
  // A cenc key's IV is never taken from outside: the IV rule keeps counter blocks apart.
  out->has_iv = k->has_iv && scheme == SCHEME_CBCS;
  if (out->has_iv)
    memcpy(out->iv, k->iv, 16);
  return ERR_OK;
}

enum err cpix_import(struct alloc *mem, struct key_record *out, uint32_t *num, struct bytes doc, uint32_t epoch,
                     enum scheme scheme, struct diag *diag) {
  struct cpix c;
  enum err e = cpix_parse(mem, &c, doc, diag);
  if (e)
    return e;
  uint32_t n = 0;
  for (uint32_t i = 0; !e && i < c.num_keys; i++) {
    if (!cpix_is_for_audio(&c, c.keys[i].kid))
      continue;
    if (n == *num) {
      e = diag_say(diag, ERR_NO_SPACE, "the document has more than %u content keys for audio", n);
      break;
    }
    out[n] = (struct key_record){.epoch = epoch, .scheme = scheme};
    e = import_key(mem, &out[n++], &c, &c.keys[i], diag);
  }
  if (!e && !n)
    e = diag_say(diag, ERR_NO_KEY, "%s",
                 c.num_keys ? "no content key is for audio: each has usage rules of other tracks (VideoFilter, or intendedTrackType without AUDIO)"
                            : "the document has no content key");
  for (uint32_t i = 0; e && i < n; i++)
    key_record_wipe(&out[i]);
  cpix_wipe(&c);
  if (!e)
    *num = n;
  return e;
}
