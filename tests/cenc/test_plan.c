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
  for (uint32_t seg = 0; seg < p->segs->num; seg++)
    plan_ask(p, seg); // nothing comes of it
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

// A day of 1-second fragments and one more: more segments than sidx can reference one by one, and the last group is not full.
Test(plan, sidx_groups_references) {
  enum { FRAGS = 86401, GROUP = 2, REFS = (FRAGS + 1) / GROUP };
  struct ix_frag *frags = (struct ix_frag *)calloc(FRAGS + 1, sizeof *frags);
  uint32_t *first = (uint32_t *)calloc(FRAGS + 1, sizeof *first);
  for (uint32_t f = 0; f <= FRAGS; f++) {
    frags[f] = (struct ix_frag){.src_off = f * 100ull, .src_len = 100, .out_len = 100, .out_off = f * 100ull};
    frags[f].time_ticks = 0x100000000ull + f * 48000ull;
    frags[f].duration_ticks = 48000;
    first[f] = f;
  }
  frags[FRAGS].time_ticks += 7; // where the last one ends
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
  cr_assert_eq(load_be16(s + 38), REFS);
  cr_assert_eq(p.sidx_len, 40 + 12 * REFS);
  for (uint32_t i = 0; i < REFS; i++) {
    cr_assert_eq(load_be32(s + 40 + 12 * i), i + 1 < REFS ? 200 : 100);
    cr_assert_eq(load_be32(s + 44 + 12 * i), i + 1 < REFS ? 96000 : 48007);
  }
  free(s), free(frags), free(first);
}

// As many segments as sidx can reference one by one, one more, and as many as it can by twos. A reference that begins with no sync sample is no access point.
Test(plan, sidx_references_one_by_one_and_access_points) {
  enum { MOST = 65535, FRAGS = 2 * MOST };
  static const uint32_t nums[] = {MOST, MOST + 1, FRAGS};
  struct ix_frag *frags = (struct ix_frag *)calloc(FRAGS + 1, sizeof *frags);
  uint32_t *first = (uint32_t *)calloc(FRAGS + 1, sizeof *first);
  for (uint32_t f = 0; f <= FRAGS; f++) {
    frags[f] = (struct ix_frag){.src_off = f * 100ull, .src_len = 100, .out_len = 100, .out_off = f * 100ull, .first_sample = f};
    frags[f].time_ticks = f * 1000ull;
    frags[f].duration_ticks = 1000;
    frags[f].flags = f % 3 == 1 ? IX_FRAG_NOT_SYNC : 0;
    first[f] = f;
  }
  for (size_t k = 0; k < sizeof nums / sizeof *nums; k++) {
    uint32_t num = nums[k];
    struct ix_header h = {.track_id = 1, .timescale = 1000, .num_frags = num};
    struct track_index ix = {.h = &h, .frags = frags};
    struct ix_segments segs = {num, first};
    struct protection prot = {.scheme = SCHEME_CLEAR};
    struct plan p;
    uint32_t group = num > MOST ? 2 : 1, refs = num / group;
    cr_assert_eq(plan_init(&p, &ix, &segs, &prot, NULL), ERR_OK);
    cr_assert_eq(p.sidx_group, group, "%u segments: groups of %u", num, p.sidx_group);
    cr_assert_eq(p.sidx_len, 32 + 12 * refs);
    uint8_t *s = (uint8_t *)malloc(p.sidx_len);
    plan_render(&p, ops(), plan_sidx_range(&p), bytes_of(NULL, 0), 0, s);
    cr_assert_eq(load_be16(s + 30), refs);
    for (uint32_t i = 0; i < refs; i++)
      cr_assert_eq(load_be32(s + 40 + 12 * i), i * group % 3 == 1 ? 0 : 0x90000000, "reference %u of %u", i, refs);
    free(s);
  }
  free(frags), free(first);
}

// Two segments of one fragment each: when the first is presented, and how long they last. ISO/IEC 14496-12 8.16.3.
Test(plan, sidx_times) {
  static const struct {
    uint64_t times[3], earliest;
    int64_t edit;
    uint32_t ticks[2];
    enum err want;
    uint64_t delay;
  } rows[] = {
      {{0, 1000, 2000}, 0, 0, {1000, 1000}, ERR_OK, 0},
      {{0, 1500, 2500}, 0, 0, {1500, 1000}, ERR_OK, 0},         // a gap
      {{70, 70, 1070}, 70, 0, {1000, 1000}, ERR_OK, 0},         // times that do not ascend
      {{0, 1000, 2000}, 0, 300, {700, 1000}, ERR_OK, 0},        // priming
      {{200, 1200, 2200}, 0, 300, {900, 1000}, ERR_OK, 0},
      {{5000, 6000, 7000}, 4700, 300, {1000, 1000}, ERR_OK, 0},
      {{0, UINT32_MAX, 0}, 0, 0, {UINT32_MAX, 1000}, ERR_OK, 0},
      {{0, 1ull << 32, 0}, 0, 0, {0, 0}, ERR_LIMIT, 0},
      {{UINT32_MAX, UINT32_MAX + 1000ull, 0}, UINT32_MAX, 0, {1000, 1000}, ERR_OK, 0},
      {{0, 1000, 2000}, UINT32_MAX, 0, {1000, 1000}, ERR_OK, UINT32_MAX}, // empty edits
      {{0, 1000, 2000}, 1ull << 32, 0, {1000, 1000}, ERR_OK, 1ull << 32},
      {{1, 1001, 2001}, 1ull << 32, 0, {1000, 1000}, ERR_OK, UINT32_MAX},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct ix_frag frags[3];
    for (uint32_t f = 0; f < 3; f++)
      frags[f] = (struct ix_frag){.src_off = f * 10, .src_len = 10, .out_len = 10, .out_off = f * 10, .time_ticks = rows[i].times[f], .duration_ticks = 1000};
    struct ix_header h = {.track_id = 1, .timescale = 1000, .num_frags = 2, .edit_media_time = rows[i].edit};
    struct track_index ix = {.h = &h, .frags = frags, .delay = rows[i].delay};
    uint32_t first[] = {0, 1, 2};
    struct ix_segments segs = {2, first};
    struct protection prot = {.scheme = SCHEME_CLEAR};
    struct plan p;
    uint8_t b[64];
    cr_assert_eq(plan_init(&p, &ix, &segs, &prot, NULL), rows[i].want, "row %zu", i);
    if (rows[i].want)
      continue;
    bool wide = rows[i].earliest > UINT32_MAX; // version 1, whose times have 64 bits
    cr_assert_eq(p.sidx_len, wide ? 64 : 56, "row %zu", i);
    plan_render(&p, ops(), plan_sidx_range(&p), bytes_of(NULL, 0), 0, b);
    cr_expect_eq(b[8], wide, "row %zu", i);
    cr_expect_eq(wide ? load_be64(b + 20) : load_be32(b + 20), rows[i].earliest, "row %zu", i);
    const uint8_t *refs = b + (wide ? 40 : 32);
    cr_expect(load_be32(refs + 4) == rows[i].ticks[0] && load_be32(refs + 16) == rows[i].ticks[1], "row %zu: %u %u", i, load_be32(refs + 4), load_be32(refs + 16));
  }
}

// Fields of 32 bits hold what is written there, or the plan is refused and says of what.
Test(plan, sizes_up_to_their_limits) {
  static const uint8_t pssh[20];
  for (uint32_t more = 0; more < 2; more++)
    for (int with = 0; with < 2; with++) {
      struct handmade m;
      struct plan p;
      struct diag d = {0};
      handmade_init(&m, 3, SCHEME_CENC, false, ops());
      m.prot.pssh = bytes_of(pssh, with ? sizeof pssh : 0);
      struct ix_edit *moov = (struct ix_edit *)(uintptr_t)m.ix.init_edits;
      cr_assert(moov->kind == IX_SIZE32 && moov->scope == IX_SCOPE_MOOV);
      moov->value = UINT32_MAX - 2 * SINF_LEN_CENC - (uint32_t)m.prot.pssh.n + more;
      cr_expect_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, &d), more ? ERR_OVERFLOW : ERR_OK, "%s", d.what);
      moov->value = 900;
      m.prot.pssh.n = INT32_MAX; // nothing of it is read
      d = (struct diag){0};
      cr_expect_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, &d), ERR_OVERFLOW);
      cr_expect_not_null(strstr(d.what, "init segment"), "%s", d.what);
      handmade_free(&m);
    }
  static const struct {
    uint64_t ends[2];
    enum err want;
    const char *what;
  } rows[] = {
      {{INT32_MAX, INT32_MAX}, ERR_OK, ""},
      {{INT32_MAX + 1ull, INT32_MAX + 1ull}, ERR_LIMIT, "fragment 0"},
      {{100, INT32_MAX + 101ull}, ERR_LIMIT, "fragment 1"},
      {{INT32_MAX, INT32_MAX + 1ull}, ERR_LIMIT, "segment 1"},
      {{100, 1ull << 63}, ERR_OVERFLOW, "2^63"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct ix_frag frags[3] = {{.duration_ticks = 1}, {.out_off = rows[i].ends[0], .duration_ticks = 1}, {.out_off = rows[i].ends[1]}};
    struct ix_header h = {.track_id = 1, .timescale = 1000, .num_frags = 2};
    struct track_index ix = {.h = &h, .frags = frags};
    uint32_t first[] = {0, 2};
    struct ix_segments segs = {1, first};
    struct protection prot = {.scheme = SCHEME_CLEAR};
    struct plan p;
    struct diag d = {0};
    cr_expect_eq(plan_init(&p, &ix, &segs, &prot, &d), rows[i].want, "row %zu: %s", i, d.what);
    cr_expect_not_null(strstr(d.what, rows[i].what), "row %zu: %s", i, d.what);
  }
}

// A byte of a CBC sample needs its sample from the start to the end of the byte's block, and nothing else.
Test(plan, no_more_of_the_source_than_is_needed) {
  struct ix_frag frags[2] = {{.src_len = 300, .out_len = 300}, {.src_off = 300, .out_off = 300, .first_sample = 3, .first_run = 1}};
  struct ix_run run = {0, 300, 0, 3};
  static const uint16_t sizes[] = {100, 100, 100};
  struct ix_header h = {.track_id = 1, .timescale = 1000, .num_frags = 1, .num_samples = 3};
  struct track_index ix = {.h = &h, .frags = frags, .runs = &run, .sizes16 = sizes};
  uint32_t first[] = {0, 1};
  struct ix_segments segs = {1, first};
  struct protection prot = {.scheme = SCHEME_CBCS};
  struct plan p;
  cr_assert_eq(plan_init(&p, &ix, &segs, &prot, NULL), ERR_OK);
  uint64_t at = plan_frag_range(&p, 0).off;
  for (uint64_t i = 0; i < 300; i++) {
    uint64_t start = i / 100 * 100, in = i - start;
    struct plan_range got = plan_source(&p, (struct plan_range){at + i, 1});
    cr_expect_eq(got.off, start, "byte %zu: from %zu", (size_t)i, (size_t)got.off);
    cr_expect_eq(got.off + got.len, start + (in < 96 ? in / 16 * 16 + 16 : in + 1), "byte %zu: to %zu", (size_t)i, (size_t)(got.off + got.len));
  }
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
  const struct ix_frag *made = m.ix.frags;
  m.ix.frags = frags;
  cr_assert_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, &d), ERR_LIMIT);
  cr_assert_null(p.ix);
  frags[m.h.num_frags].out_off = UINT64_MAX - 4;
  cr_assert_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, &d), ERR_OVERFLOW);
  m.ix.frags = made;
  free(frags);
  handmade_free(&m);
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

// 16-byte IVs are the 8-byte ones and zeros, where an 8-byte IV wraps as well: nothing of them is counted into the low 64 bits.
Test(plan, wide_ivs) {
  static const uint8_t want[3][8] = {{255, 255, 255, 255, 255, 255, 255, 255}, {0}, {0, 0, 0, 0, 0, 0, 0, 1}};
  struct ix_header h = {.track_id = 1, .timescale = 48000, .num_frags = 1, .num_samples = 3};
  struct ix_edit edit = {.kind = IX_PROTECT};
  struct ix_run run = {.num_samples = 3, .len = 3 * 33};
  struct ix_traf traf = {.num_samples = 3};
  const uint16_t sizes[3] = {33, 33, 33}; // three blocks each: a counter that ran on would be at 9
  const uint32_t first_frag[] = {0, 1};
  struct ix_frag frags[2] = {{.src_len = 3 * 33}, {.src_off = 3 * 33, .out_off = 3 * 33, .first_sample = 3, .first_edit = 1, .first_run = 1,
                                                   .first_traf = 1}};
  struct track_index ix = {.h = &h, .edits = &edit, .frags = frags, .runs = &run, .trafs = &traf, .sizes16 = sizes};
  struct ix_segments segs = {1, first_frag};
  struct protection prot = {.scheme = SCHEME_CENC, .iv = {255, 255, 255, 255, 255, 255, 255, 255}};
  uint8_t src[3 * 33] = {0}, out[2][1000];
  uint64_t len[2];
  ops()->key_init(&prot.key, (const uint8_t *)"0123456789abcdef");
  for (int wide = 0; wide < 2; wide++) {
    struct plan p;
    prot.wide_iv = wide;
    cr_assert_eq(plan_init(&p, &ix, &segs, &prot, NULL), ERR_OK);
    struct plan_range r = plan_frag_range(&p, 0);
    cr_assert_eq(r.len, 17 + 20 + 16 + 3 * (wide ? 16u : 8u) + sizeof src);
    plan_render(&p, ops(), r, bytes_of(src, sizeof src), 0, out[wide]);
    cr_assert_eq(out[wide][12], wide ? 16 : 8); // saiz
    cr_assert_eq(load_be32(out[wide] + 17 + 20), 16 + 3 * (wide ? 16u : 8u)); // senc
    len[wide] = r.len;
    for (uint64_t off = 0; off < r.len; off++) // also from within an IV and up to within one
      for (uint64_t n = 1; n <= r.len - off; n++) {
        uint8_t part[1000];
        plan_render(&p, ops(), (struct plan_range){r.off + off, n}, bytes_of(src, sizeof src), 0, part);
        cr_assert_arr_eq(part, out[wide] + off, n, "[%zu, +%zu)", (size_t)off, (size_t)n);
      }
  }
  for (size_t i = 0; i < 3; i++) {
    const uint8_t *iv = out[1] + 17 + 20 + 16 + 16 * i;
    cr_assert_arr_eq(iv, want[i], 8, "IV %zu", i);
    cr_assert_eq(load_be64(iv + 8), 0, "IV %zu", i);
    cr_assert_arr_eq(out[0] + 17 + 20 + 16 + 8 * i, want[i], 8, "IV %zu", i);
  }
  cr_assert_arr_eq(out[1] + len[1] - sizeof src, out[0] + len[0] - sizeof src, sizeof src, "the ciphertext is the same");
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
                      (uint8_t *)&m.prot.wide_iv, (uint8_t *)&m.h.track_id};
  for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
    *bytes[i] ^= 1;
    plan_tag(&p, tag);
    cr_assert_arr_neq(base, tag, 16, "%zu", i);
    *bytes[i] ^= 1;
  }
  m.prot.pssh = bytes_of("x", 1);
  plan_tag(&p, tag);
  cr_assert_arr_neq(base, tag, 16);
  m.prot.pssh.n = 0;
  p.total_len++;
  plan_tag(&p, tag);
  cr_assert_arr_neq(base, tag, 16);
  p.total_len--;
  m.prot.scheme = SCHEME_CENC;
  plan_tag(&p, tag);
  cr_assert_arr_neq(base, tag, 16);
  m.prot.scheme = SCHEME_CBCS;
  plan_tag(&p, tag);
  cr_assert_arr_eq(base, tag, 16);
  // Where segments begin, each of them; and system data that would read on into them.
  uint32_t bounds[] = {0, 2, 3, 5};
  struct ix_segments segs = {3, bounds}, rest = {2, bounds + 1};
  p.segs = &segs;
  plan_tag(&p, base);
  for (int i = 1; i < 3; i++) {
    bounds[i]--;
    plan_tag(&p, tag);
    cr_assert_arr_neq(base, tag, 16, "boundary %d", i);
    bounds[i]++;
  }
  m.prot.pssh = bytes_of(bounds, sizeof *bounds);
  p.segs = &rest;
  plan_tag(&p, tag);
  cr_assert_arr_neq(base, tag, 16);
  handmade_free(&m);
}

// Without a digest the file's own state stands for it.
Test(plan, tag_without_a_digest) {
  struct handmade m;
  struct plan p;
  uint8_t base[16], tag[16];
  handmade_init(&m, 9, SCHEME_CBCS, false, ops());
  cr_assert_eq(plan_init(&p, &m.ix, &m.segs, &m.prot, NULL), ERR_OK);
  m.h.flags |= IX_NO_DIGEST;
  plan_tag(&p, base);
  uint64_t *fields[] = {&m.h.identity.size, &m.h.identity.mtime_ns, &m.h.identity.stamp};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    *fields[i] ^= 1;
    plan_tag(&p, tag);
    cr_assert_arr_neq(base, tag, 16, "%zu", i);
    *fields[i] ^= 1;
  }
  handmade_free(&m);
}
