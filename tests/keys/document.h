// What the tests of documents share that key servers send and are sent: memory, what went wrong, two questions, and a document's text.
#pragma once
#include "base/text.h"
#include "keys/keys.h"

#include <criterion/criterion.h>

static struct alloc_heap heap;
static struct diag diag;
static char shown[512];

static void setup(void) {
  alloc_heap_init(&heap, 1 << 30);
  diag = (struct diag){0};
}

static void teardown(void) { alloc_heap_free(&heap); }

static struct key_query query = {BYTES_LIT("al<b>um/x\"y"), 3, SCHEME_CBCS, BYTES_LIT("")};
static struct key_query lossless = {BYTES_LIT("al<b>um/x\"y"), 3, SCHEME_CBCS, BYTES_LIT("lossless")};

static char text[65536];

static const char *written(void (*write)(struct writer *, const struct key_doc *), const struct key_doc *doc) {
  struct writer w = wr_of(text, sizeof text - 1);
  write(&w, doc);
  cr_assert(wr_ok(&w));
  text[w.n] = 0;
  return text;
}
