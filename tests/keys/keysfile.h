// What each file of tests/keys/test_keysfile*.c needs: memory, a fault as it is shown, and files that are refused. A header, so that each
// has its own.
#pragma once

#include "base/text.h"
#include "keys/keys.h"

#include <criterion/criterion.h>
#include <string.h>

static struct alloc_heap heap;
static struct diag diag;
static char shown[512];

static inline void setup(void) {
  alloc_heap_init(&heap, 64 << 20);
  diag = (struct diag){0};
}

static inline void teardown(void) { alloc_heap_free(&heap); }

static inline enum err load(struct keyset **ks, struct keys_info *info, const char *text) {
  enum err e = keys_parse(&heap.base, ks, info, bytes_str(text), &diag);
  diag_format(&diag, shown, sizeof shown);
  return e;
}

static inline void refused(enum err want, const char *text, const char *part) {
  struct keyset *ks = NULL;
  struct keys_info info;
  diag = (struct diag){0};
  enum err e = load(&ks, &info, text);
  cr_assert_eq(e, want, "%s: %s", text, err_name(e));
  cr_assert(strstr(shown, part), "\"%s\" should say \"%s\"", shown, part);
  cr_assert_null(ks);
}

#define KID1 "kid: 00112233445566778899aabbccddee01"
#define KID2 "kid: 00112233445566778899aabbccddee02"
#define KEY1 "key: 0123456789abcdef0123456789abcd01"
#define KEY2 "key: 0123456789abcdef0123456789abcd02"
#define IV1 "iv: f0000000000000000000000000000001"
