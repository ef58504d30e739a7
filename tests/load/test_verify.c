// One wrong bit, wherever it is, without a right answer to compare with: each bit of each box, of samples, of what protection adds.
#include "answers.h"

#include <criterion/criterion.h>

// Whether `body` is found right as answer `which` (0: the init segment), else `what` says why not. Of an init segment some is proven by
// the segments behind it. `v` may have found others wrong, but none right: that would be the same, or not.
static bool found_right(struct verifier *v, struct world *w, uint32_t which, struct bytes body, char what[300]) {
  struct verify_response r = {.asset = "a", .scheme = scheme_name(w->prot.scheme), .path = w->list.init, .body = which ? part_of(w, 0) : body, .list = &w->list};
  r.init = verify_init(v, &r, what, 300);
  bool right = r.init != NULL;
  for (uint32_t i = which ? which : 1; right && i <= (which ? which : w->segs.num); i++) {
    r.path = w->list.uris + w->list.uri_off[i - 1];
    r.body = which ? body : part_of(w, i);
    right = verify_segment(v, &r, what, 300);
  }
  return right;
}

// What makes no difference: where the data of a run without samples lie, and a constant IV where no sample has a whole block.
static bool is_idle(const struct world *w, struct bytes b, size_t at) {
  for (size_t t = at < 15 ? 0 : at - 15; t + 12 <= at; t++)
    if (!memcmp(b.p + t, "trun", 4) && load_be32(b.p + t + 8) == 0)
      return true;
  uint32_t longest = 0;
  for (uint32_t i = 0; i < w->s.num_samples; i++)
    longest = w->s.samples[i].len > longest ? w->s.samples[i].len : longest;
  const uint8_t *tenc = memmem(b.p, b.n, "tenc", 4);
  size_t iv = tenc ? (size_t)(tenc - b.p) + 29 : b.n;
  return longest < 16 && at >= iv && at < iv + 16;
}

static void flip_each(unsigned track, enum scheme scheme) {
  struct world *w = world_of(track, scheme);
  struct verify_world of = {.ctx = w, .track = track_of, .key = key_of, .pssh = pssh_of};
  char what[300];
  for (uint32_t which = 0; which <= w->segs.num; which++) {
    struct bytes right = part_of(w, which);
    uint8_t *p = malloc(right.n);
    cr_assert(p);
    memcpy(p, right.p, right.n);
    struct verifier *v = verifier_new(&of, ops(), 16);
    cr_assert(v && found_right(v, w, which, bytes_of(p, right.n), what), "%s: %s", options[track].name, what);
    verifier_free(v);
    v = verifier_new(&of, ops(), 16);
    for (size_t at = 0; at < right.n; at++)
      for (unsigned bit = 0; bit < 8 && !is_idle(w, right, at); bit++) {
        if (!which) {
          verifier_free(v);
          v = verifier_new(&of, ops(), 16);
        }
        p[at] ^= (uint8_t)(1 << bit);
        cr_expect_not(found_right(v, w, which, bytes_of(p, right.n), what), "track '%s', %s, answer %u: byte %zu, bit %u", options[track].name,
                      scheme_name(scheme), which, at, bit);
        p[at] = right.p[at];
      }
    verifier_free(v);
    free(p);
  }
}

Test(verify, reads_where_a_path_points) {
  static const struct {
    const char *asset, *path;
    int64_t segment; // -1: nowhere
  } v[] = {{"a", "/a/cenc/7/t/12.m4s", 12}, {"a", "/a/cenc/7/t/init.mp4", 0}, {"a", "/a/cenc/7/t/12.m4s?x=/y", 12}, {"a/b", "/a/b/cenc/7/t/1.m4s", 1}, {"\xc3\xa9", "/%C3%a9/cenc/7/t/1.m4s", 1},
           {"a", "/a/cenc/7/t/4294967295.m4s", UINT32_MAX}, {"a", "/a/cenc/7/t/4294967296.m4s", -1}, {"a", "/a/cenc/4294967296/t/1.m4s", -1}, {"a", "/a/cenc/7/t/0.m4s", -1},
           {"a", "/a/cenc/7/t/.m4s", -1}, {"a", "/a/cenc/7/t/1.mp4", -1}, {"a", "/a/cenc/7//1.m4s", -1}, {"a", "/a/cenc/x/t/1.m4s", -1}, {"a", "/ab/cenc/7/t/1.m4s", -1}, {"a", "a/cenc/7/t/1.m4s", -1},
           {"a/b", "/a%2fb/cenc/7/t/1.m4s", -1}, {"a", "/%61/cenc/7/t/1.m4s", 1}, {"a", "/a/cenc/7/t/1.m4s%00", -1}, {"a", "/a/cenc/7/%zz/1.m4s", -1}, {"a", "/a/cenc/7/t/1.m4s%4", -1},
           {"a", "/a/cenc/7/t/x/1.m4s", -1}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
    struct verify_place place = {0};
    bool good = verify_place_read(&place, v[i].asset, v[i].path);
    cr_expect_eq(good, v[i].segment >= 0, "%s", v[i].path);
    bool same = place.segment == v[i].segment && place.epoch == 7 && !strcmp(place.scheme, "cenc") && !strcmp(place.track, "t");
    cr_expect(!good || same, "%s: %u", v[i].path, place.segment);
  }
}

// Each box there may be left out, twice, or in another's place.
Test(verify, finds_pssh_that_are_missing_or_too_many) {
  struct world *w = world_of(0, SCHEME_CENC);
  struct verify_world of = {.ctx = w, .track = track_of, .key = key_of, .pssh = pssh_of};
  static const struct {
    int order[4]; // -1: no more
    const char *says;
  } cases[] = {{{0, 1, -1}, NULL},
               {{1, -1}, "its pssh of 01020304-0506-0708-090a-0b0c0d0e0f10 is missing"},
               {{0, -1}, "its pssh of 09090909-0506-0708-090a-0b0c0d0e0f10 is missing"},
               {{-1}, "is missing"},
               {{0, 1, 1, -1}, "its pssh of 09090909-0506-0708-090a-0b0c0d0e0f10 is none of those"},
               {{1, 0, -1}, "its pssh of 01020304-0506-0708-090a-0b0c0d0e0f10 is missing"}};
  struct bytes init = part_of(w, 0);
  const uint8_t *at = memmem(init.p, init.n, "pssh", 4);
  cr_assert(at);
  size_t before = (size_t)(at - 4 - init.p), both = pssh_box(0).n + pssh_box(1).n;
  const uint8_t *moov = memmem(init.p, init.n, "moov", 4);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint8_t made[4096];
    char what[300] = "";
    struct writer out = wr_of(made, sizeof made);
    wr_raw(&out, init.p, before);
    for (const int *n = cases[i].order; *n >= 0; n++)
      wr_bytes(&out, pssh_box((unsigned)*n));
    wr_raw(&out, init.p + before + both, init.n - before - both);
    cr_assert(wr_ok(&out));
    size_t size_at = (size_t)(moov - 4 - init.p);
    store_be32(made + size_at, (uint32_t)(load_be32(made + size_at) + out.n - init.n));
    struct verifier *v = verifier_new(&of, ops(), 16);
    bool right = found_right(v, w, 0, bytes_of(made, out.n), what);
    cr_expect(right == !cases[i].says && (right || strstr(what, cases[i].says)), "case %zu: %s", i, what);
    verifier_free(v);
  }
}

// Under the same key, but seven IVs before those of asset a: the first that both have is that of the second sample of the second traf.
Test(verify, names_where_a_repeated_iv_stands) {
  struct world *a = world_of(1, SCHEME_CENC);
  static struct world b;
  b = *a;
  store_be64(b.prot.iv, load_be64(a->prot.iv) - 7);
  answer_as(&b, "b");
  struct verify_world of = {.ctx = a, .track = track_of, .key = key_of, .pssh = pssh_of};
  struct verifier *v = verifier_new(&of, ops(), 16);
  char what[300] = "", says[300];
  cr_assert(v && found_right(v, a, 1, part_of(a, 1), what), "%s", what);
  struct verify_response r = {.asset = "b", .scheme = "cenc", .path = b.list.init, .body = part_of(&b, 0), .list = &b.list};
  r.init = verify_init(v, &r, what, sizeof what);
  cr_assert(r.init, "%s", what);
  r.path = b.uris;
  r.body = part_of(&b, 1);
  const uint8_t *first = memmem(r.body.p, r.body.n, "senc", 4);
  const uint8_t *second = first ? memmem(first + 4, r.body.n - (size_t)(first + 4 - r.body.p), "senc", 4) : NULL;
  cr_assert(second && load_be32(second + 8) == 6, "the fragment has two boxes of six IVs");
  cr_expect_not(verify_segment(v, &r, what, sizeof what));
  snprintf(says, sizeof says, "/b/cenc/7/t/1.m4s: byte %zu (sample 7): the IV %016lx was used under the same KID in /a/cenc/7/t/1.m4s",
           (size_t)(second + 12 + 8 - r.body.p), load_be64(a->prot.iv));
  cr_expect_str_eq(what, says);
  verifier_free(v);
}

// All tracks but the last, whose samples have no bytes to be wrong.
Test(verify, finds_each_wrong_bit_in_cenc) {
  for (unsigned i = 0; i < NUM_TRACKS - 1; i++)
    flip_each(i, SCHEME_CENC);
}

Test(verify, finds_each_wrong_bit_in_cbcs) {
  for (unsigned i = 0; i < NUM_TRACKS - 1; i++)
    flip_each(i, SCHEME_CBCS);
}

Test(verify, finds_each_wrong_bit_in_the_clear) {
  for (unsigned i = 0; i < NUM_TRACKS - 1; i++)
    flip_each(i, SCHEME_CLEAR);
}
