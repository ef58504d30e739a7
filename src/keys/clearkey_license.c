#include "keys/clearkey_license.h"

#include "base/text.h"
#include "keys/wiping.h"

#include <jansson.h>

static enum err parse_kids(struct clearkey_request *out, const json_t *kids, struct diag *diag) {
  if (!json_is_array(kids) || !json_array_size(kids))
    return diag_say(diag, ERR_SYNTAX, "the licence request has no list \"kids\"");
  if (json_array_size(kids) > CLEARKEY_MAX_KIDS)
    return diag_say(diag, ERR_LIMIT, "the licence request asks for more than %d keys", CLEARKEY_MAX_KIDS);
  for (size_t i = 0; i < json_array_size(kids); i++) {
    const json_t *kid = json_array_get(kids, i);
    uint8_t *to = out->kids[out->num_kids++];
    size_t n = 16;
    if (!json_is_string(kid) || base64_read(to, &n, bytes_of(json_string_value(kid), json_string_length(kid))) ||
        n != 16)
      return diag_say(diag, ERR_SYNTAX, "kids[%zu] of the licence request is not 16 bytes in base64url", i);
  }
  return ERR_OK;
}

enum err clearkey_parse(struct clearkey_request *out, struct bytes body, struct diag *diag) {
  if (body.n > CLEARKEY_MAX_REQUEST)
    return diag_say(diag, ERR_LIMIT, "a licence request has at most %d bytes", CLEARKEY_MAX_REQUEST);
  json_error_t why;
  wiping_json();
  json_t *doc = json_loadb((const char *)body.p, body.n, JSON_REJECT_DUPLICATES, &why);
  if (!doc)
    return diag_set(diag, ERR_SYNTAX, why.position > 0 ? (uint64_t)why.position : 0,
                    "the licence request is not JSON: %.80s", why.text);
  struct clearkey_request req = {0};
  enum err e = parse_kids(&req, json_object_get(doc, "kids"), diag);
  const char *type = json_string_value(json_object_get(doc, "type"));
  req.persistent = type && strcmp(type, "persistent-license") == 0;
  if (!e)
    *out = req;
  json_decref(doc);
  return e;
}

uint32_t clearkey_answer(struct writer *w, const struct clearkey_request *req, const struct key_record *keys,
                         uint32_t num_keys) {
  uint32_t num = 0;
  wr_str(w, "{\"keys\":[");
  for (uint32_t i = 0; i < num_keys; i++) {
    bool asked = false, before = false;
    for (uint32_t k = 0; k < req->num_kids; k++)
      asked = asked || memcmp(req->kids[k], keys[i].kid, 16) == 0;
    for (uint32_t k = 0; k < i; k++)
      before = before || memcmp(keys[k].kid, keys[i].kid, 16) == 0;
    if (!asked || before)
      continue;
    wr_str(w, num++ ? ",{\"kty\":\"oct\",\"k\":\"" : "{\"kty\":\"oct\",\"k\":\"");
    base64url_write(w, bytes_of(keys[i].key, 16));
    wr_str(w, "\",\"kid\":\"");
    base64url_write(w, bytes_of(keys[i].kid, 16));
    wr_str(w, "\"}");
  }
  wr_str(w, req->persistent ? "],\"type\":\"persistent-license\"}" : "],\"type\":\"temporary\"}");
  return num;
}
