#include "cli/json_lost.h"

#include <jansson.h>

static bool lost;
static json_malloc_t before; // keys are read into memory that is wiped (keys/wiping.h): it stays so

static void *get(size_t n) {
  void *p = before(n);
  lost |= !p;
  return p;
}

void json_lost_watch(void) {
  json_malloc_t take;
  json_free_t give;
  json_get_alloc_funcs(&take, &give);
  if (take != get) {
    before = take;
    json_set_alloc_funcs(get, give);
  }
  lost = false;
}

bool json_lost(void) { return lost; }
