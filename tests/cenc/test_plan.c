// The plan against outputs that were made another way: whole, in ranges, with exactly the source it asks for.
#include <criterion/criterion.h>
#include <stdlib.h>

#include "handmade.h"

enum { SEEDS = 60, RANGES = 120 };

static const struct aes_ops *ops(void) {
  const char *why;
  return aes_ops_best(NULL, &why);
}

// render gives the plan no byte more than plan_source promises to need.
static uint8_t *render(const struct handmade *m, const struct plan *p, struct plan_range r) {
  struct plan_range need = plan_source(p, r);
  uint8_t *src = (uint8_t *)malloc(need.len + 1), *out = (uint8_t *)malloc(r.len + 1);
  cr_assert_leq(need.off + need.len, m->src_len);
  memcpy(src, m->src + need.off, need.len);
  src = (uint8_t *)realloc(src, need.len ? need.len : 1);
  out[r.len] = 0xa5;
  plan_render(p, ops(), r, bytes_of(src, need.len), need.off, out);
  cr_assert_eq(out[r.len], 0xa5);
  free(src);
  return out;
}

static void check_range(const struct handmade *m, const struct plan *p, struct plan_range r) {
  uint8_t *out = render(m, p, r);
  for (uint64_t i = 0; i < r.len; i++)
    if (out[i] != m->want[r.off + i])
      cr_assert(0, "byte %zu of [%zu, +%zu) is %02x, not %02x", (size_t)(r.off + i), (size_t)r.off, (size_t)r.len, out[i],
               m->want[r.off + i]);
  free(out);
}

static void check_ranges(struct handmade *m, const struct plan *p) {
  for (int i = 0; i < RANGES; i++) {
    uint32_t off = rng_below(&m->rng, (uint32_t)p->total_len + 1), left = (uint32_t)p->total_len - off;
    uint32_t len = rng_below(&m->rng, rng_below(&m->rng, 2) ? left + 1 : (left < 100 ? left : 100) + 1);
    check_range(m, p, (struct plan_range){off, len});
  }
}

static void check_tiling(const struct handmade *m, const struct plan *p) {
  struct plan_range init = plan_init_range(p), sidx = plan_sidx_range(p);
  cr_assert_eq(init.off, 0);
  cr_assert_eq(init.len, m->init_len);
  cr_assert_eq(sidx.off, init.len);
  cr_assert_eq(sidx.len, m->sidx_len);
  uint64_t at = sidx.off + sidx.len;
  for (uint32_t f = 0; f < m->h.num_frags; f++) {
    struct plan_range r = plan_frag_range(p, f);
    cr_assert_eq(r.off, at);
    cr_assert_eq(plan_frag_at(p, r.off), f);
    cr_assert_eq(plan_frag_at(p, r.off + r.len - 1), f);
    at += r.len;
  }
  cr_assert_eq(at, p->total_len);
  at = sidx.off + sidx.len;
  for (uint32_t s = 0; s < m->segs.num; s++) {
    struct plan_range r = plan_segment_range(p, s);
    cr_assert_eq(r.off, at);
    at += r.len;
  }
  cr_assert_eq(at, p->total_len);
}

// take_sidx renders sidx' by itself, checks its fields, and puts it where the ranges expect it.
static void take_sidx(struct handmade *m, const struct plan *p) {
  struct plan_range r = plan_sidx_range(p);
  uint8_t *s = render(m, p, r);
  cr_assert_eq(load_be32(s), r.len);
  cr_assert_eq(load_be32(s + 4), FOURCC('s', 'i', 'd', 'x'));
  cr_assert_eq(load_be32(s + 8), 0);
  cr_assert_eq(load_be32(s + 12), 7);
  cr_assert_eq(load_be32(s + 16), 48000);
  cr_assert_eq(load_be32(s + 24), 0);
  cr_assert_eq(load_be16(s + 30), m->segs.num);
  uint64_t ticks = 0;
  for (uint32_t i = 0; i < m->segs.num; i++) {
    cr_assert_eq(load_be32(s + 32 + 12 * i), plan_segment_range(p, i).len);
    cr_assert_eq(load_be32(s + 40 + 12 * i), 0x90000000);
    ticks += load_be32(s + 36 + 12 * i);
  }
  cr_assert_eq(ticks, m->h.num_samples * 1024);
  memcpy(m->want + r.off, s, r.len);
  free(s);
}

static void check_scheme(enum scheme scheme) {
  for (uint64_t seed = 1; seed <= SEEDS; seed++) {
    struct handmade m;
    struct plan p;
    struct diag d = {0};
    handmade_init(&m, seed * 3 + (uint64_t)scheme, scheme, seed % 4 == 0, ops());
    cr_assert_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, &d), ERR_OK);
    cr_assert_eq(p.total_len, m.want_len);
    check_tiling(&m, &p);
    take_sidx(&m, &p);
    check_range(&m, &p, (struct plan_range){0, p.total_len});
    check_ranges(&m, &p);
    handmade_free(&m);
  }
}

Test(plan, clear) { check_scheme(SCHEME_CLEAR); }
Test(plan, cenc) { check_scheme(SCHEME_CENC); }
Test(plan, cbcs) { check_scheme(SCHEME_CBCS); }

// Every byte and every pair of neighbours of a small output, alone.
Test(plan, single_bytes) {
  for (int s = 0; s < SCHEME_COUNT; s++) {
    struct handmade m;
    struct plan p;
    handmade_init(&m, 11, (enum scheme)s, false, ops());
    cr_assert_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, NULL), ERR_OK);
    take_sidx(&m, &p);
    uint64_t end = p.total_len < 20000 ? p.total_len : 20000;
    for (uint64_t i = 0; i < end; i++)
      check_range(&m, &p, (struct plan_range){i, i + 1 < end ? 1 + i % 2 : 1});
    handmade_free(&m);
  }
}

Test(plan, every_kernel_renders_the_same) {
  size_t num;
  const struct aes_ops *const *all = aes_ops_all(&num);
  for (int s = SCHEME_CENC; s < SCHEME_COUNT; s++) {
    struct handmade m;
    struct plan p;
    handmade_init(&m, 5, (enum scheme)s, false, ops());
    cr_assert_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, NULL), ERR_OK);
    take_sidx(&m, &p);
    uint8_t *out = (uint8_t *)malloc(p.total_len);
    for (size_t i = 0; i < num; i++) {
      if (!all[i]->usable())
        continue;
      plan_render(&p, all[i], (struct plan_range){0, p.total_len}, bytes_of(m.src, m.src_len), 0, out);
      cr_assert_eq(memcmp(out, m.want, p.total_len), 0, "%s", all[i]->name);
    }
    free(out);
    handmade_free(&m);
  }
}

// A day of 1-second fragments: more segments than sidx can reference one by one.
Test(plan, sidx_groups_references) {
  enum { FRAGS = 86400, GROUP = 2 };
  struct ix_frag *frags = (struct ix_frag *)calloc(FRAGS + 1, sizeof *frags);
  uint32_t *first = (uint32_t *)calloc(FRAGS + 1, sizeof *first);
  for (uint32_t f = 0; f <= FRAGS; f++) {
    frags[f] = (struct ix_frag){.src_off = f * 100ull, .src_len = 100, .out_len = 100, .out_off = f * 100ull};
    frags[f].time_ticks = 0x100000000ull + f * 48000ull;
    frags[f].duration_ticks = 48000;
    first[f] = f;
  }
  struct ix_header h = {.track_id = 1, .timescale = 48000, .num_frags = FRAGS};
  struct track_index ix = {.h = &h, .frags = frags};
  struct ix_segments segs = {FRAGS, first};
  struct protection prot = {.scheme = SCHEME_CLEAR};
  struct plan p;
  cr_assert_eq(plan_init(&p, &ix, &segs, &prot, NULL), ERR_OK);
  cr_assert_eq(p.sidx_group, GROUP);
  uint8_t *s = (uint8_t *)malloc(p.sidx_len);
  plan_render(&p, ops(), plan_sidx_range(&p), bytes_of(NULL, 0), 0, s);
  cr_assert_eq(load_be32(s + 8), 0x01000000);
  cr_assert_eq(load_be64(s + 20), 0x100000000ull);
  cr_assert_eq(load_be16(s + 38), FRAGS / GROUP);
  cr_assert_eq(p.sidx_len, 40 + 12 * FRAGS / GROUP);
  for (uint32_t i = 0; i < FRAGS / GROUP; i++) {
    cr_assert_eq(load_be32(s + 40 + 12 * i), 200);
    cr_assert_eq(load_be32(s + 44 + 12 * i), 96000);
  }
  free(s), free(frags), free(first);
}

Test(plan, refuses_what_does_not_fit) {
  struct handmade m;
  struct plan p = {0};
  struct diag d = {0};
  handmade_init(&m, 3, SCHEME_CENC, false, ops());
  struct ix_frag *frags = (struct ix_frag *)calloc(m.h.num_frags + 1, sizeof *frags);
  memcpy(frags, m.ix.frags, sizeof *frags * (m.h.num_frags + 1));
  for (uint32_t f = 1; f <= m.h.num_frags; f++)
    frags[f].out_off += INT32_MAX;
  m.ix.frags = frags;
  cr_assert_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, &d), ERR_LIMIT);
  cr_assert_null(p.ix);
  frags[m.h.num_frags].out_off = UINT64_MAX - 4;
  cr_assert_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, &d), ERR_OVERFLOW);
}

Test(plan, touch_changes_nothing) {
  uint8_t b[200];
  memset(b, 7, sizeof b);
  plan_touch(bytes_of(b, sizeof b));
  plan_touch(bytes_of(NULL, 0));
  plan_touch(bytes_of(b, 3));
  for (size_t i = 0; i < sizeof b; i++)
    cr_assert_eq(b[i], 7);
}

Test(plan, schemes_have_names) {
  for (int i = 0; i < SCHEME_COUNT; i++) {
    enum scheme s = SCHEME_COUNT;
    cr_assert_eq(scheme_parse(&s, bytes_str(scheme_name((enum scheme)i))), ERR_OK);
    cr_assert_eq(s, (enum scheme)i);
  }
  enum scheme s = SCHEME_CENC;
  cr_assert_eq(scheme_parse(&s, bytes_str("cbc1")), ERR_SYNTAX);
  cr_assert_eq(scheme_parse(&s, bytes_str("")), ERR_SYNTAX);
  cr_assert_eq(s, SCHEME_CENC);
}

// The validator follows everything that the bytes depend on.
Test(plan, tag_follows_the_bytes) {
  struct handmade m;
  struct plan p;
  uint8_t base[16], tag[16];
  handmade_init(&m, 9, SCHEME_CBCS, false, ops());
  cr_assert_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, NULL), ERR_OK);
  plan_tag(&p, base);
  plan_tag(&p, tag);
  cr_assert_arr_eq(base, tag, 16);
  m.h.identity.mtime_ns ^= 1; // another node's copy
  plan_tag(&p, tag);
  cr_assert_arr_eq(base, tag, 16);
  uint8_t *bytes[] = {m.prot.kid, m.prot.iv + 15, m.prot.key.enc[0] + 3, m.h.identity.digest + 31, (uint8_t *)&m.prot.no_senc,
                      (uint8_t *)&m.h.track_id};
  for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
    *bytes[i] ^= 1;
    plan_tag(&p, tag);
    cr_assert_arr_neq(base, tag, 16, "%zu", i);
    *bytes[i] ^= 1;
  }
  m.prot.pssh = bytes_of("x", 1);
  plan_tag(&p, tag);
  cr_assert_arr_neq(base, tag, 16);
}
