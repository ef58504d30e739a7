#include "load/verify.h"

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "load/verify_parts.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

// The bytes that a path has been found to hold.
struct seen {
  uint64_t name, digest[2];
};

struct verifier {
  struct verify_world world;
  const struct aes_ops *ops;
  struct iv_table *ivs;
  pthread_mutex_t lock;
  struct seen *seen; // open addressing by name
  uint32_t num_seen, max_seen;
  struct verify_init *inits; // few: one a track and epoch
  _Atomic uint64_t compared, same;
};

struct verifier *verifier_new(const struct verify_world *world, const struct aes_ops *ops, uint32_t max_segments) {
  struct verifier *v = calloc(1, sizeof *v);
  if (!v)
    return NULL;
  v->max_seen = 2 * max_segments;
  v->seen = calloc(v->max_seen, sizeof *v->seen);
  v->ivs = iv_table_new(max_segments);
  if (!v->seen || !v->ivs || pthread_mutex_init(&v->lock, NULL)) {
    iv_table_free(v->ivs);
    free(v->seen);
    free(v);
    return NULL;
  }
  v->world = *world;
  v->ops = ops;
  return v;
}

void verifier_free(struct verifier *v) {
  if (!v)
    return;
  while (v->inits) {
    struct verify_init *next = v->inits->next;
    explicit_bzero(v->inits, sizeof *v->inits);
    free(v->inits);
    v->inits = next;
  }
  pthread_mutex_destroy(&v->lock);
  iv_table_free(v->ivs);
  free(v->seen);
  free(v);
}

void verify_counts(const struct verifier *v, uint64_t *compared, uint64_t *same) {
  *compared = v->compared;
  *same = v->same;
}

const struct verify_world *verify_world_of(const struct verifier *v) { return &v->world; }

bool verify_ivs_left_out(const struct verifier *v) { return iv_table_full(v->ivs); }

bool wrong(struct check *c, const char *fmt, ...) {
  int n = snprintf(c->what, c->cap, "%s: ", c->r->path);
  va_list ap;
  va_start(ap, fmt);
  if (n > 0 && (size_t)n < c->cap)
    vsnprintf(c->what + n, c->cap - (size_t)n, fmt, ap);
  va_end(ap);
  return false;
}

// ---- where a path points

// Takes the path's next component; empty when there is none.
static struct bytes component(struct bytes *path) {
  const uint8_t *slash = path->n ? memchr(path->p, '/', path->n) : NULL;
  size_t n = slash ? (size_t)(slash - path->p) : path->n, step = n + (slash != NULL);
  struct bytes out = bytes_of(path->p, n);
  *path = bytes_of(path->p + step, path->n - step);
  return out;
}

static bool copy_component(char *out, size_t cap, struct bytes c) {
  if (!c.n || c.n >= cap)
    return false;
  memcpy(out, c.p, c.n);
  out[c.n] = 0;
  return true;
}

// The path as names have it: percent-decoded, without a query.
static bool decode(char out[PLAYLIST_MAX_URI], const char *path) {
  size_t n = 0;
  for (size_t i = 0, end = strcspn(path, "?"); i < end && n < PLAYLIST_MAX_URI - 1; n++) {
    uint8_t c = (uint8_t)path[i];
    bool coded = c == '%';
    if (coded && (end - i < 3 || hex_read(&c, 1, bytes_of(path + i + 1, 2)) || !c || c == '/'))
      return false;
    out[n] = (char)c;
    i += coded ? 3 : 1;
  }
  out[n] = 0;
  return true;
}

bool verify_place_read(struct verify_place *out, const char *asset, const char *uri) {
  char path[PLAYLIST_MAX_URI];
  size_t n = strlen(asset);
  if (!decode(path, uri))
    return false;
  if (path[0] != '/' || strncmp(path + 1, asset, n) != 0 || path[1 + n] != '/')
    return false;
  struct bytes rest = bytes_str(path + n + 2);
  uint64_t epoch, segment = 0;
  bool ok = copy_component(out->scheme, sizeof out->scheme, component(&rest)) && parse_u64(&epoch, component(&rest)) == ERR_OK &&
            epoch <= UINT32_MAX && copy_component(out->track, sizeof out->track, component(&rest));
  if (!ok)
    return false;
  out->epoch = (uint32_t)epoch;
  if (!bytes_eq(rest, BYTES_LIT("init.mp4")) &&
      (rest.n < 5 || memcmp(rest.p + rest.n - 4, ".m4s", 4) != 0 || parse_u64(&segment, bytes_of(rest.p, rest.n - 4)) ||
       segment == 0 || segment > UINT32_MAX))
    return false;
  out->segment = (uint32_t)segment;
  return true;
}

// ---- bytes seen before

static struct seen digest_of(const struct verify_response *r) {
  XXH128_hash_t h = XXH3_128bits(r->body.p, r->body.n);
  return (struct seen){XXH3_64bits(r->path, strcspn(r->path, "?")) | 1, {h.low64, h.high64}};
}

static struct seen *seen_at(struct verifier *v, uint64_t name) {
  uint64_t i = name % v->max_seen;
  while (v->seen[i].name && v->seen[i].name != name)
    i = (i + 1) % v->max_seen;
  return &v->seen[i];
}

// -1: this path is new, 0: it held other bytes, 1: it held the same.
static int seen_before(struct verifier *v, const struct seen *now) {
  pthread_mutex_lock(&v->lock);
  const struct seen *at = seen_at(v, now->name);
  int r = !at->name ? -1 : at->digest[0] == now->digest[0] && at->digest[1] == now->digest[1];
  pthread_mutex_unlock(&v->lock);
  return r;
}

static void remember(struct verifier *v, const struct seen *now) {
  pthread_mutex_lock(&v->lock);
  struct seen *at = seen_at(v, now->name);
  if (!at->name && v->num_seen < v->max_seen / 2) {
    *at = *now;
    v->num_seen++;
  }
  pthread_mutex_unlock(&v->lock);
}

// ---- init segments

// A decode time as an MPD has it: less what the edit list skips, and not below 0.
static double presented(uint64_t ticks, double skip) { return fmax(0, (double)ticks - skip); }

// What the edit list skips, in ticks: nothing where that were all of the first segment. How long it is only the MPD knows, by whose
// length one can tell.
static double skipped(const struct media_list *list, const struct track_index *ix) {
  const struct ix_frag *first = ix->frags, *last = first + ix->h->num_frags - 1;
  double skip = fmax(0, (double)ix->h->edit_media_time), said = list->start_s[list->num] * ix->h->timescale;
  uint64_t end = last->time_ticks + last->duration_ticks;
  double whole = (double)(end - first->time_ticks), rest = presented(end, skip) - presented(first->time_ticks, skip);
  return fabs(said - rest) <= fabs(said - whole) ? skip : 0;
}

// The middle of a fragment of the source, in seconds of the playlist: that rounds, and a middle is on the right side all the same.
// `played_ticks` is what the fragments before it last, and takes this one's duration.
static double middle_s(const struct check *c, const struct track_index *ix, uint32_t frag, uint64_t *played_ticks) {
  const struct ix_frag *f = &ix->frags[frag];
  double at = (double)*played_ticks + (double)f->duration_ticks / 2;
  *played_ticks += f->duration_ticks;
  if (c->r->list->has_gaps) {
    double skip = skipped(c->r->list, ix);
    at = (presented(f->time_ticks, skip) + presented(f->time_ticks + f->duration_ticks, skip)) / 2 - presented(ix->frags[0].time_ticks, skip);
  }
  return at / ix->h->timescale;
}

// The size of samples of which fragments say none: trex's. ISO/IEC 14496-12 8.8.3.
static uint32_t default_size_of(struct bytes init) {
  const uint8_t *at = init.n ? memmem(init.p, init.n, "trex", 4) : NULL;
  struct reader r = at ? rd_of(bytes_of(at + 4, init.n - (size_t)(at + 4 - init.p))) : rd_of((struct bytes){0});
  rd_skip(&r, 16);
  uint32_t size = rd_u32(&r);
  return r.err ? 0 : size;
}

static size_t kid_at(struct bytes init) { return (size_t)((const uint8_t *)memmem(init.p, init.n, "tenc", 4) - init.p) + 12; }

// What the playlist says of the track, each time: another playlist may lead to an init segment that was found right before.
static bool check_list(struct check *c, const struct verify_init *init) {
  const struct track_index *ix = init->track->ix;
  const struct media_list *list = c->r->list;
  for (uint32_t i = 0; i < list->kids.num && !init->clear; i++)
    if (memcmp(list->kids.kid[i], init->tenc.kid, 16) != 0)
      return wrong(c, "byte %zu: its KID is not the playlist's", kid_at(c->r->body));
  uint64_t played = 0;
  double last_s = -1;
  for (uint32_t i = 0; i < ix->h->num_frags; i++)
    last_s = middle_s(c, ix, i, &played);
  if (last_s >= list->start_s[list->num])
    return wrong(c, "its playlist ends after %.3f s, and its source goes on", list->start_s[list->num]);
  return true;
}

static bool check_key(struct check *c, struct verify_init *init) {
  struct verifier *v = c->v;
  uint8_t key[16];
  if (!vtenc_read(&init->tenc, c->r->body))
    return wrong(c, "its track encryption box (tenc) cannot be used");
  if (!v->world.key(v->world.ctx, c->r->asset, c->place.scheme, c->place.epoch, init->tenc.kid, key))
    return wrong(c, "byte %zu: its KID does not belong to epoch %u: a stale epoch, or another's key", kid_at(c->r->body), c->place.epoch);
  v->ops->key_init(&init->key, key);
  explicit_bzero(key, sizeof key);
  return true;
}

static bool check_init(struct check *c, struct verify_init *init) {
  struct verifier *v = c->v;
  if (!verify_place_read(&c->place, c->r->asset, c->r->path) || c->place.segment)
    return wrong(c, "is not an init segment's path");
  if (strcmp(c->place.scheme, c->r->scheme) != 0) // above all: clear, where it is to be protected
    return wrong(c, "the manifest of %s leads to %s", c->r->scheme, c->place.scheme);
  c->track = v->world.track(v->world.ctx, c->r->asset, c->place.track);
  if (!c->track)
    return wrong(c, "has no clear source to compare with");
  init->clear = strcmp(c->place.scheme, "clear") == 0;
  init->track = c->track;
  init->place = c->place;
  init->default_size = default_size_of(c->r->body);
  if ((!init->clear && !check_key(c, init)) || !check_list(c, init))
    return false;
  c->init = init;
  return check_init_boxes(c, c->track->ix->init) && (init->clear || check_pssh(c));
}

const struct verify_init *verify_init(struct verifier *v, const struct verify_response *r, char *what, size_t cap) {
  struct check c = {.v = v, .r = r, .ops = v->ops, .what = what, .cap = cap};
  struct seen now = digest_of(r);
  pthread_mutex_lock(&v->lock);
  struct verify_init *known = v->inits;
  while (known && known->name != now.name)
    known = known->next;
  pthread_mutex_unlock(&v->lock);
  if (known && known->digest[0] == now.digest[0] && known->digest[1] == now.digest[1])
    return check_list(&c, known) ? known : NULL;
  struct verify_init *init = calloc(1, sizeof *init);
  if (!init || !check_init(&c, init) || (known && !wrong(&c, "is not what it was when it was first asked for"))) {
    if (!init)
      (void)wrong(&c, "no memory to compare it");
    free(init);
    return NULL;
  }
  init->name = now.name;
  memcpy(init->digest, now.digest, sizeof now.digest);
  pthread_mutex_lock(&v->lock);
  init->next = v->inits;
  v->inits = init;
  pthread_mutex_unlock(&v->lock);
  return init;
}

// ---- segments

bool verify_range(const char *path, struct bytes part, struct bytes whole, uint64_t from, char *what, size_t cap) {
  for (size_t i = 0; i < part.n; i++)
    if (from + i >= whole.n || part.p[i] != whole.p[from + i]) {
      snprintf(what, cap, "%s: byte %lu of a range differs from the whole segment's", path, from + i);
      return false;
    }
  return true;
}

// Segments are whole fragments; the playlist says when each starts, and a fragment starts in exactly one of them.
static bool find_fragments(struct check *c, uint32_t *first, uint32_t *end) {
  const struct track_index *ix = c->track->ix;
  const struct media_list *list = c->r->list;
  double from = list->start_s[c->place.segment - 1], to = list->start_s[c->place.segment];
  uint64_t played = 0;
  *first = *end = UINT32_MAX;
  for (uint32_t i = 0; i < ix->h->num_frags; i++) {
    double mid = middle_s(c, ix, i, &played);
    if (mid < from || mid >= to)
      continue;
    *first = *first == UINT32_MAX ? i : *first;
    *end = i + 1;
  }
  return *first != UINT32_MAX || wrong(c, "no fragment of the source lies in its time");
}

static bool check_ivs(struct check *c) {
  char other[160];
  if (!c->num_iv || iv_table_add(c->v->ivs, c->init->tenc.kid, c->first_iv, c->num_iv, c->r->path, &c->told_iv, other))
    return true;
  // Each fragment has its IVs in a box of its own: where this one stands is what the samples say, once more.
  c->sample = c->first_sample;
  c->num_iv = 0;
  return check_samples(c) && wrong(c, "byte %zu (sample %lu): the IV %016lx was used under the same KID in %s", c->told_iv_at,
                                   c->first_sample + c->told_iv, c->first_iv + c->told_iv, other);
}

static bool check_segment(struct check *c) {
  uint32_t first, end;
  if (!verify_place_read(&c->place, c->r->asset, c->r->path) || !c->place.segment)
    return wrong(c, "is not a segment's path");
  c->track = c->v->world.track(c->v->world.ctx, c->r->asset, c->place.track);
  if (!c->track)
    return wrong(c, "has no clear source to compare with");
  if (strcmp(c->place.track, c->init->place.track) != 0 || c->place.epoch != c->init->place.epoch || strcmp(c->place.scheme, c->init->place.scheme) != 0)
    return wrong(c, "belongs to another init segment than its playlist's");
  const struct media_list *list = c->r->list;
  if (c->place.segment > list->num)
    return wrong(c, "its playlist has %u segments only", list->num);
  if (strcmp(list->uris + list->uri_off[c->place.segment - 1], c->r->path) != 0)
    return wrong(c, "is not segment %u of its playlist", c->place.segment);
  if (!find_fragments(c, &first, &end))
    return false;
  c->sample = c->first_sample = c->track->ix->frags[first].first_sample;
  c->end_sample = c->track->ix->frags[end].first_sample;
  c->is_sample = calloc(1, c->r->body.n ? c->r->body.n : 1);
  bool ok = c->is_sample ? check_samples(c) && check_boxes(c, first, end) && check_ivs(c) : wrong(c, "no memory to compare it");
  free(c->is_sample);
  return ok;
}

bool verify_segment(struct verifier *v, const struct verify_response *r, char *what, size_t cap) {
  struct check c = {.v = v, .r = r, .ops = v->ops, .init = r->init, .what = what, .cap = cap};
  struct seen now = digest_of(r);
  int before = seen_before(v, &now);
  if (before == 1) {
    v->same++;
    return true;
  }
  v->compared++;
  if (!check_segment(&c))
    return false;
  if (before == 0)
    return wrong(&c, "is right, and yet not what it was when it was first asked for");
  remember(v, &now);
  return true;
}
