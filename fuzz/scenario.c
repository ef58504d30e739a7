// Scenarios of the load generator (YAML, docs/load.md). What is accepted lies in the domains that the fields have and passes
// the check again; what is refused names a line and leaves the outcome alone.
#include <math.h>
#include <string.h>

#include "load/scenario.h"
#include "fuzz.h"

static bool share(double v) { return v >= 0 && v <= 1; }

static bool between(double v, double least, double most) { return v >= least && v <= most; }

static void check_arrivals(const struct scenario *s) {
  MUST(s->num_pieces <= SCENARIO_MAX_PIECES);
  double end = s->drain_s;
  for (uint32_t i = 0; i < s->num_pieces; i++) {
    const struct rate_piece *p = &s->pieces[i];
    MUST(between(p->seconds, 0, 86400) && between(p->from_per_s, 0, 1e7) && between(p->to_per_s, 0, 1e7));
    MUST(s->poll_s[i] == 0 || between(s->poll_s[i], 0.1, 3600));
    end += p->seconds;
  }
  MUST(s->mode != LOAD_LISTENERS || (s->num_pieces && s->end_s == end));
}

static void check_values(const struct scenario *s) {
  MUST(memchr(s->name, 0, sizeof s->name) && memchr(s->media, 0, sizeof s->media) && memchr(s->keys, 0, sizeof s->keys));
  MUST(!strcmp(s->scheme, "cenc") || !strcmp(s->scheme, "cbcs") || !strcmp(s->scheme, "clear"));
  MUST(s->mode <= LOAD_CAPACITY && s->protocol <= LOAD_MIX && s->catalogue.kind <= POPULARITY_STRETCHED);
  MUST(s->mode == LOAD_LISTENERS || between(s->seconds, 1e-9, 64 * 86400.0));
  MUST(between(s->rate, 0, 1e7) && s->connections >= 1 && s->max_listeners >= 1 && s->slow_bytes_per_s >= 1);
  MUST(s->ahead >= 1 && s->ahead <= 64 && s->tracks >= 1 && s->retries <= 100 && between(s->timeout_s, 0.1, 3600));
  MUST(share(s->seek) && share(s->pause) && share(s->switch_rendition) && share(s->slow_reader) && share(s->abort_body));
  MUST(share(s->half_close) && share(s->range) && share(s->conditional) && share(s->head) && share(s->reconnect));
  MUST(share(s->storm) && share(s->verify_share) && share(s->catalogue.release_share));
  MUST(s->catalogue.num >= 1 && s->catalogue.num <= SCENARIO_MAX_ASSETS);
  for (uint32_t i = 0; i < s->catalogue.num; i++) {
    size_t n = strnlen(s->catalogue.names[i], SCENARIO_MAX_NAME);
    MUST(n >= 1 && n < SCENARIO_MAX_NAME);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct scenario s, before;
  struct bytes text = bytes_of(data, size);
  struct alloc_heap mem;
  struct diag d = {0};
  alloc_heap_init(&mem, 4 << 20);
  memset(&s, 0x5a, sizeof s);
  before = s;
  enum err e = scenario_parse(&s, &mem.base, text, &d);
  if (e) {
    // libyaml ends lines at CR, LF, NEL, LS and PS: a line has at least one byte.
    MUST(d.err == e && d.at <= size + 1 && !memcmp(&s, &before, sizeof s));
    MUST(e == ERR_SYNTAX || e == ERR_ARGUMENT || e == ERR_LIMIT || e == ERR_NO_MEMORY);
  } else {
    MUST(!d.err);
    e = scenario_check(&s, &d);
    MUST(e == d.err && (!e || e == ERR_ARGUMENT));
    if (!e) {
      check_arrivals(&s);
      check_values(&s);
      MUST(!scenario_check(&s, &d));
    }
  }
  alloc_heap_free(&mem);
  return 0;
}
