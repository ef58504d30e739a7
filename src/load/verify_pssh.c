// What the init segment tells each DRM system's player, beside what the key set says of the key.
#include <stdlib.h>

#include "base/text.h"
#include "load/verify_parts.h"

enum { MAX_BOX = 65536 }; // above what any system's box may have

static struct bytes whole_of(struct bytes all, const struct vbox *b) {
  return bytes_of(all.p + b->at, b->head_len + rd_left(&b->body));
}

// The system of a whole box, empty when it has none. ISO/IEC 23001-7 8.1.1.
static struct bytes system_of(struct bytes box) {
  return box.n >= 28 ? bytes_of(box.p + 12, 16) : (struct bytes){0};
}

static bool wrong_box(struct check *c, size_t at, struct bytes box, const char *what) {
  char name[37];
  struct writer w = wr_of(name, sizeof name - 1);
  if (system_of(box).n)
    uuid_write(&w, system_of(box).p);
  else
    wr_str(&w, "no system");
  name[w.n] = 0;
  return wrong(c, "byte %zu: its pssh of %s %s", at, name, what);
}

static bool same_pssh(struct check *c, size_t at, struct bytes mine, struct bytes want) {
  size_t n = mine.n < want.n ? mine.n : want.n, i = 0;
  while (i < n && mine.p[i] == want.p[i])
    i++;
  return (i == n && mine.n == want.n) || wrong_box(c, at + i, mine, "is not what the key set says of this key");
}

// Takes the next pssh of the moov; false behind the last.
static bool next_pssh(struct reader *moov, struct vbox *b) {
  while (vbox_next(moov, b))
    if (b->type == FOURCC('p', 's', 's', 'h'))
      return true;
  return false;
}

// The boxes stand in the order in which the key set gives them: one that comes twice, or of a system that it does not name, is left over.
static bool all_pssh(struct check *c, struct reader moov, uint8_t *space) {
  const struct verify_world *world = verify_world_of(c->v);
  struct bytes all = c->r->body;
  struct vbox b;
  bool have = next_pssh(&moov, &b), needed;
  struct writer w = wr_of(space, MAX_BOX);
  for (unsigned n = 0; world->pssh(world->ctx, c->r->asset, c->place.scheme, c->place.epoch, c->init->tenc.kid, n, &w, &needed); n++) {
    struct bytes want = bytes_of(space, wr_ok(&w) ? w.n : 0), mine = have ? whole_of(all, &b) : (struct bytes){0};
    w = wr_of(space, MAX_BOX);
    if (!want.n)
      continue;
    if (have && bytes_eq(system_of(mine), system_of(want))) {
      if (!same_pssh(c, b.at, mine, want))
        return false;
      have = next_pssh(&moov, &b);
    } else if (needed) {
      return wrong_box(c, have ? b.at : rd_pos(&moov), want, "is missing");
    }
  }
  return !have || wrong_box(c, b.at, whole_of(all, &b), "is none of those that the key set names, or not in its place among them");
}

bool check_pssh(struct check *c) {
  struct reader r = rd_of(c->r->body);
  struct vbox moov;
  uint8_t *space = malloc(MAX_BOX);
  if (!space)
    return wrong(c, "no memory to compare it");
  bool ok = true;
  while (ok && vbox_next(&r, &moov))
    if (moov.type == FOURCC('m', 'o', 'o', 'v'))
      ok = all_pssh(c, moov.body, space);
  free(space);
  return ok;
}
