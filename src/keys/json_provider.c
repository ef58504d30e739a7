// The JSON provider, for in-house licence managers (docs/keys.md): POST of a small question, an answer with the keys.
//   {"asset":"a/b","epoch":1,"scheme":"cbcs","labels":["","lossless"],"systems":["widevine"]}
//   {"keys":[{"label":"","scheme":"cbcs","kid":"<32 hex>","key":"<32 hex>","iv":"<32 hex>",
//             "systems":{"widevine":{"pssh":"<base64>","mpd":"<xml>","hls_media":"…","hls_master":"…"}}}]}
// Names are percent-encoded as in URLs: they need not be UTF-8.
#include "base/text.h"
#include "drm/markup.h"
#include "keys/given.h"
#include "keys/remote.h"
#include "keys/wiping.h"

#include <jansson.h>

static void quoted(struct writer *w, struct bytes name, bool keep_slash) {
  wr_u8(w, '"');
  percent_write(w, name, keep_slash);
  wr_u8(w, '"');
}

static void json_request(struct writer *w, const struct key_doc *doc) {
  wr_str(w, "{\"asset\":");
  quoted(w, doc->queries[0].asset, true);
  wr_str(w, ",\"epoch\":");
  wr_dec(w, doc->queries[0].epoch);
  wr_str(w, ",\"scheme\":\"");
  wr_str(w, scheme_name(doc->queries[0].scheme));
  wr_str(w, "\",\"labels\":[");
  for (uint32_t i = 0; i < doc->num_queries; i++) {
    wr_str(w, i ? "," : "");
    quoted(w, doc->queries[i].label, false);
  }
  wr_str(w, "],\"systems\":[");
  const char *comma = "";
  for (unsigned s = 0; s < DRM_SYSTEM_COUNT; s++) {
    if (!(doc->drm->systems & drm_bit((enum drm_system)s)))
      continue;
    wr_str(w, comma);
    quoted(w, bytes_str(drm_systems[s]->name), false);
    comma = ",";
  }
  wr_str(w, "]}\n");
}

static struct bytes text_of(const json_t *object, const char *name) {
  const json_t *v = json_object_get(object, name);
  return json_is_string(v) ? bytes_of(json_string_value(v), json_string_length(v)) : (struct bytes){0};
}

// What is there and of another type would be passed over, and its sender believe that it holds. `names` ends with NULL.
static enum err check_texts(const json_t *object, const char *const *names, struct diag *diag) {
  for (; *names; names++) {
    const json_t *v = json_object_get(object, *names);
    if (v && !json_is_string(v) && !json_is_null(v))
      return diag_say(diag, ERR_MALFORMED, "the answer's %s is no text", *names);
  }
  return ERR_OK;
}

// An empty list is what some languages make of an empty object.
static enum err check_object(const json_t *v, const char *name, struct diag *diag) {
  return !v || json_is_object(v) || json_is_null(v) || (json_is_array(v) && !json_array_size(v)) ? ERR_OK : diag_say(diag, ERR_MALFORMED, "the answer's %s is no object", name);
}

static enum err copy(struct alloc *mem, uint8_t **out, struct bytes text, struct diag *diag) {
  *out = mem->get(mem, text.n + 1);
  if (!*out)
    return diag_say(diag, ERR_NO_MEMORY, "out of memory");
  if (text.n)
    memcpy(*out, text.p, text.n);
  return ERR_OK;
}

static enum err read_hls(struct alloc *mem, struct bytes *out, struct bytes text, bool master, enum scheme scheme,
                         struct diag *diag) {
  uint8_t *p;
  size_t n = text.n;
  enum err e = text.n ? copy(mem, &p, text, diag) : ERR_OK;
  if (!e && text.n && !(e = given_hls(p, &n, master, scheme, diag)))
    *out = bytes_of(p, n);
  return e;
}

static enum err read_system(struct alloc *mem, struct drm_given *g, enum drm_system s, const json_t *data,
                            const struct key_record *k, struct diag *diag) {
  static const char *const texts[] = {"pssh", "mpd", "hls_media", "hls_master", NULL};
  struct bytes pssh = text_of(data, "pssh"), mpd = text_of(data, "mpd");
  uint8_t *p;
  enum err e = check_object(data, drm_systems[s]->name, diag);
  e = e ? e : check_texts(data, texts, diag);
  if (!e && pssh.n) {
    size_t n = pssh.n;
    if ((e = copy(mem, &p, pssh, diag)))
      return e;
    if (base64_read(p, &n, pssh))
      return diag_say(diag, ERR_MALFORMED, "the answer's pssh for %s is not base64", drm_systems[s]->name);
    g->pssh = bytes_of(p, n);
    e = given_pssh(g->pssh, s, k->kid, diag);
  }
  if (!e && mpd.n && !(e = copy(mem, &p, mpd, diag))) {
    g->mpd = bytes_of(p, mpd.n);
    e = given_mpd(g->mpd, diag);
  }
  if (!e)
    e = read_hls(mem, &g->hls_media, text_of(data, "hls_media"), false, k->scheme, diag);
  return e ? e : read_hls(mem, &g->hls_master, text_of(data, "hls_master"), true, k->scheme, diag);
}

static enum err read_key(struct alloc *mem, struct key_record *out, const json_t *key, const struct key_query *q,
                         struct diag *diag) {
  struct bytes scheme = text_of(key, "scheme"), iv = text_of(key, "iv");
  char name[64];
  *out = (struct key_record){.scheme = q->scheme, .epoch = q->epoch, .asset = q->asset, .label = q->label};
  if (!bytes_eq(scheme, bytes_str(scheme_name(q->scheme))))
    return diag_say(diag, ERR_MALFORMED, "asset \"%s\": the answer's key is not %s", key_name(name, q->asset),
                    scheme_name(q->scheme));
  if (hex_read(out->kid, 16, text_of(key, "kid")) || hex_read(out->key, 16, text_of(key, "key")))
    return diag_say(diag, ERR_MALFORMED, "asset \"%s\": kid or key of the answer is not 32 hex digits",
                    key_name(name, q->asset));
  if (iv.n && (q->scheme != SCHEME_CBCS || hex_read(out->iv, 16, iv)))
    return diag_say(diag, ERR_MALFORMED, "asset \"%s\": the answer's iv must be 32 hex digits, and for cbcs only",
                    key_name(name, q->asset));
  out->has_iv = iv.n != 0;
  struct drm_given *given = mem->get(mem, DRM_SYSTEM_COUNT * sizeof *given);
  if (!given)
    return diag_say(diag, ERR_NO_MEMORY, "out of memory");
  out->given = given;
  const json_t *systems = json_object_get(key, "systems");
  enum err e = check_object(systems, "systems", diag);
  for (unsigned s = 0; s < DRM_SYSTEM_COUNT && !e; s++) {
    const json_t *data = json_object_get(systems, drm_systems[s]->name);
    e = data ? read_system(mem, &given[s], (enum drm_system)s, data, out, diag) : ERR_OK;
  }
  return e;
}

static enum err match(struct alloc *mem, struct key_record *out, const struct key_doc *doc, const json_t *keys,
                      struct diag *diag) {
  char name[64];
  if (json_array_size(keys) != doc->num_queries)
    return diag_set(diag, json_array_size(keys) < doc->num_queries ? ERR_NO_KEY : ERR_MALFORMED, 0,
                    "asset \"%s\": the answer has %zu keys, %u were asked for", key_name(name, doc->queries[0].asset),
                    json_array_size(keys), doc->num_queries);
  static const char *const texts[] = {"label", "iv", NULL}; // a key needs the others
  for (size_t k = 0; k < json_array_size(keys); k++)
    if (check_texts(json_array_get(keys, k), texts, diag))
      return ERR_MALFORMED;
  for (uint32_t i = 0; i < doc->num_queries; i++) {
    uint8_t buf[3 * KEYS_MAX_LABEL];
    struct writer label = wr_of(buf, sizeof buf);
    percent_write(&label, doc->queries[i].label, false);
    const json_t *found = NULL;
    for (size_t k = 0; k < json_array_size(keys) && !found; k++)
      if (bytes_eq(text_of(json_array_get(keys, k), "label"), bytes_of(buf, label.n)))
        found = json_array_get(keys, k);
    if (!found)
      return diag_say(diag, ERR_NO_KEY, "asset \"%s\": the answer has no key for one of the labels",
                      key_name(name, doc->queries[i].asset));
    enum err e = read_key(mem, &out[i], found, &doc->queries[i], diag);
    if (e)
      return e;
    for (uint32_t k = 0; k < i; k++)
      if (memcmp(out[k].kid, out[i].kid, 16) == 0)
        return diag_say(diag, ERR_MALFORMED, "asset \"%s\": the answer gives two labels one kid",
                        key_name(name, doc->queries[i].asset));
  }
  return ERR_OK;
}

static enum err json_answer(struct alloc *mem, struct key_record *out, const struct key_doc *doc, struct bytes body,
                            struct diag *diag) {
  json_error_t why;
  if (body.n > KEY_DOC_MAX_ANSWER)
    return diag_say(diag, ERR_LIMIT, "the answer is too long");
  wiping_json(); // the texts of keys are overwritten when they are freed
  json_t *root = json_loadb((const char *)body.p, body.n, JSON_REJECT_DUPLICATES, &why);
  json_t *keys = json_object_get(root, "keys");
  enum err e;
  if (!root) // the reason may quote the text, which holds keys
    e = diag_set(diag, ERR_SYNTAX, why.position > 0 ? (uint64_t)why.position : 0, "the answer is not JSON");
  else if (!json_is_array(keys))
    e = diag_say(diag, ERR_SYNTAX, "the answer has no list \"keys\"");
  else
    e = match(mem, out, doc, keys, diag);
  json_decref(root);
  return remote_finish(out, doc, e);
}

const struct key_provider json_provider = {
    .name = "json", .content_type = "application/json", .headers = "", .request = json_request, .answer = json_answer};
