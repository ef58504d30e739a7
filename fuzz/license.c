// ClearKey licence requests, from any player. What is accepted asks for at least one key and reads the same when it is
// written again; its answer, read by another JSON reader, holds each key that was asked for once and no other.
// Source: W3C Encrypted Media Extensions §9.1.3, §9.1.4.
#include <jansson.h>

#include "base/text.h"
#include "keys/clearkey_license.h"
#include "fuzz.h"

enum { NUM_KEYS = CLEARKEY_MAX_KIDS + 1 };

// One key for each KID that was asked for, in the same order, and one that was not.
static void make_keys(struct key_record keys[NUM_KEYS], const struct clearkey_request *req) {
  for (uint32_t i = 0; i <= req->num_kids; i++) {
    keys[i] = (struct key_record){.scheme = SCHEME_CBCS};
    memcpy(keys[i].kid, req->kids[i < req->num_kids ? i : 0], 16);
    memset(keys[i].key, (int)i + 1, 16);
  }
  bool asked = true;
  for (uint8_t *other = keys[req->num_kids].kid; asked; ++*other) {
    asked = false;
    for (uint32_t i = 0; i < req->num_kids; i++)
      asked |= !memcmp(req->kids[i], other, 16);
    if (!asked)
      return;
  }
}

static uint32_t count_distinct(const struct clearkey_request *req) {
  uint32_t num = 0;
  for (uint32_t i = 0; i < req->num_kids; i++) {
    uint32_t k = 0;
    while (memcmp(req->kids[k], req->kids[i], 16) != 0)
      k++;
    num += k == i;
  }
  return num;
}

static void read_16(uint8_t out[16], const json_t *text) {
  size_t n = 16;
  MUST(text && !base64_read(out, &n, bytes_str(json_string_value(text))) && n == 16);
}

static void check_answer(const struct clearkey_request *req) {
  static struct key_record keys[NUM_KEYS];
  uint8_t text[8192], kid[16], key[16];
  make_keys(keys, req);
  struct writer w = wr_of(text, sizeof text), measured = wr_of(NULL, 0);
  uint32_t num = clearkey_answer(&w, req, keys, req->num_kids + 1);
  MUST(num == count_distinct(req) && wr_ok(&w));
  MUST(clearkey_answer(&measured, req, keys, req->num_kids + 1) == num && measured.n == w.n);
  json_t *doc = json_loadb((const char *)text, w.n, JSON_REJECT_DUPLICATES, NULL);
  const json_t *list = json_object_get(doc, "keys");
  MUST(json_array_size(list) == num);
  for (uint32_t i = 0; i < num; i++) {
    const json_t *item = json_array_get(list, i);
    uint32_t k = 0;
    read_16(kid, json_object_get(item, "kid"));
    read_16(key, json_object_get(item, "k"));
    while (k < req->num_kids && memcmp(keys[k].kid, kid, 16) != 0)
      k++;
    MUST(k < req->num_kids && !memcmp(keys[k].key, key, 16));
  }
  json_decref(doc);
}

static void check_again(const struct clearkey_request *req) {
  static struct clearkey_request again;
  uint8_t text[4096];
  struct diag d = {0};
  struct writer w = wr_of(text, sizeof text);
  wr_str(&w, req->persistent ? "{\"type\":\"persistent-license\",\"kids\":[" : "{\"kids\":[");
  for (uint32_t i = 0; i < req->num_kids; i++) {
    wr_str(&w, i ? ",\"" : "\"");
    base64url_write(&w, bytes_of(req->kids[i], 16));
    wr_str(&w, "\"");
  }
  wr_str(&w, "]}");
  MUST(wr_ok(&w) && !clearkey_parse(&again, bytes_of(text, w.n), &d));
  MUST(again.num_kids == req->num_kids && again.persistent == req->persistent);
  MUST(!memcmp(again.kids, req->kids, req->num_kids * sizeof *req->kids));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct clearkey_request req, before;
  struct diag d = {0};
  memset(&req, 0xa5, sizeof req);
  before = req;
  enum err e = clearkey_parse(&req, bytes_of(data, size), &d);
  if (e) {
    MUST((e == ERR_SYNTAX || e == ERR_LIMIT) && d.err == e && d.at <= size);
    MUST(!memcmp(&req, &before, sizeof req));
    return 0;
  }
  MUST(req.num_kids >= 1 && req.num_kids <= CLEARKEY_MAX_KIDS);
  check_answer(&req);
  check_again(&req);
  return 0;
}
