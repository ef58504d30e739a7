#include "keys/clearkey_license.h"

#include <criterion/criterion.h>

static struct diag diag;

// The examples of W3C EME §9.1.3 and §9.1.4.
Test(clearkey, the_example_of_the_specification) {
  struct clearkey_request req;
  cr_assert_eq(clearkey_parse(&req, BYTES_LIT("{\"kids\":[\"LwVHf8JLtPrv2GUXFW2v_A\"],\"type\":\"temporary\"}"), &diag),
               ERR_OK);
  cr_assert_eq(req.num_kids, 1);
  cr_assert_not(req.persistent);
  struct key_record keys[3] = {{.kid = {1}, .key = {9}}};
  memcpy(keys[1].kid, req.kids[0], 16);
  memcpy(keys[1].key, "\xd7\x41\x62\x66\x0d\x6a\xdc\xf9\xb7\x54\xd9\x87\x6b\x9a\x21\x06", 16);
  keys[2] = keys[1];
  char out[512];
  struct writer w = wr_of(out, sizeof out - 1);
  cr_assert_eq(clearkey_answer(&w, &req, keys, 3), 1);
  out[w.n] = 0;
  cr_assert_str_eq(out, "{\"keys\":[{\"kty\":\"oct\",\"k\":\"10FiZg1q3Pm3VNmHa5ohBg\",\"kid\":\"LwVHf8JLtPrv2GUXFW2v_A\"}],"
                        "\"type\":\"temporary\"}");
  w = wr_of(out, sizeof out - 1);
  cr_assert_eq(clearkey_answer(&w, &req, keys, 1), 0);
}

Test(clearkey, bad_requests) {
  static const struct {
    const char *body;
    enum err err;
  } bad[] = {{"", ERR_SYNTAX},
             {"{", ERR_SYNTAX},
             {"[]", ERR_SYNTAX},
             {"{}", ERR_SYNTAX},
             {"{\"kids\":[]}", ERR_SYNTAX},
             {"{\"kids\":\"x\"}", ERR_SYNTAX},
             {"{\"kids\":[7]}", ERR_SYNTAX},
             {"{\"kids\":[\"AAAA\"]}", ERR_SYNTAX},
             {"{\"kids\":[\"LwVHf8JLtPrv2GUXFW2v_AAA\"]}", ERR_SYNTAX},
             {"{\"kids\":[],\"kids\":[\"LwVHf8JLtPrv2GUXFW2v_A\"]}", ERR_SYNTAX}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct clearkey_request req;
    cr_assert_eq(clearkey_parse(&req, bytes_str(bad[i].body), &diag), bad[i].err, "%s", bad[i].body);
  }
  char many[2048];
  struct writer w = wr_of(many, sizeof many);
  wr_str(&w, "{\"kids\":[");
  for (int i = 0; i < 33; i++)
    wr_str(&w, i ? ",\"LwVHf8JLtPrv2GUXFW2v_A\"" : "\"LwVHf8JLtPrv2GUXFW2v_A\"");
  wr_str(&w, "]}");
  struct clearkey_request req;
  cr_assert_eq(clearkey_parse(&req, bytes_of(many, w.n), &diag), ERR_LIMIT);
  static const char good[] = "{\"kids\":[\"LwVHf8JLtPrv2GUXFW2v_A\"]}";
  static char large[CLEARKEY_MAX_REQUEST + 1];
  memset(large, ' ', sizeof large);
  memcpy(large, good, sizeof good - 1);
  for (size_t over = 0; over < 2; over++)
    cr_assert_eq(clearkey_parse(&req, bytes_of(large, CLEARKEY_MAX_REQUEST + over), &diag), over ? ERR_LIMIT : ERR_OK);
}
