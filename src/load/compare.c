// What answers are held against, with listeners and without: the clear music, what was asked for, the epoch that manifests lead to.
#include <stdarg.h>
#include <stdio.h>

#include "load/session.h"
#include "load/verify.h"

void engine_plain(char *text) {
  for (; *text; text++)
    *text = *text >= 0x20 && *text < 0x7f ? *text : '?';
}

void engine_wrong(struct engine *e, const char *fmt, ...) {
  struct load_stats *st = e->st;
  va_list ap;
  st->wrong++;
  if (st->first_wrong[0])
    return;
  va_start(ap, fmt);
  vsnprintf(st->first_wrong, sizeof st->first_wrong, fmt, ap);
  va_end(ap);
  engine_plain(st->first_wrong);
}

void engine_compare(struct engine *e, const struct verify_response *v) {
  char what[sizeof e->st->first_wrong];
  e->st->verified++;
  if (!verify_segment(e->run->verifier, v, what, sizeof what))
    engine_wrong(e, "%s", what);
}

bool engine_right_part(struct engine *e, const char *path, const char *content_range, uint64_t from, uint64_t to, uint64_t of) {
  char why[CONTENT_RANGE_WHY];
  content_range_wrong(why, content_range, from, to, of);
  if (why[0])
    engine_wrong(e, "%.260s: %s", path, why);
  return !why[0];
}

bool engine_right_epoch(char *what, size_t cap, const struct scenario *sc, const char *asset, const struct media_list *list) {
  char expected[PLAYLIST_MAX_URI], rest[64];
  if (!sc->verify_epoch || !list || !list->num)
    return true;
  snprintf(rest, sizeof rest, "%s/%u/", sc->scheme, sc->verify_epoch);
  if (!uri_of_asset(expected, asset, rest) && strncmp(list->init, expected, strlen(expected)) == 0)
    return true;
  snprintf(what, cap, "%.200s: a stale epoch: the manifest leads there, it is to lead below %.200s", list->init, expected);
  return false;
}
