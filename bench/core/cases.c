#include "cases.h"
#include "keys.h"

#include <stdio.h>
#include <stdlib.h>

#include "cenc/plan.h"
#include "rewrite.h"
#include "synth.h"

// Two tracks of 30 minutes in 2 s fragments: 128 and 256 kb/s. A segment is one fragment of the first (32 KB) or three
// of the second (189 KB), the workloads of the data plane's measurements.
enum { TRACKS = 2, HOT_SEGMENTS = 4, MAX_CASES = 64, MEMORY = 256 << 20 };

static const uint8_t key[16] = "sixteen byte key";

struct track_bench {
  struct synth synth;
  struct bytes file, blob;
  struct track_index ix;
  struct ix_segments segs;
  struct protection prot[SCHEME_COUNT];
  struct plan plan[SCHEME_COUNT];
  uint8_t *out;
  uint32_t next; // segment
};

static struct track_bench tracks[TRACKS];
static struct bench_case table[MAX_CASES];
static size_t num_cases;
static const struct aes_ops *ops;
static struct alloc_heap scratch;

static void die(const char *what) {
  fprintf(stderr, "core: %s\n", what);
  exit(1);
}

static void build(const struct track_bench *t, struct alloc *mem, struct bytes *blob) {
  struct bytes file = t->file;
  struct mp4_source src = memory_source(&file, NULL, 0);
  struct diag diag = {0};
  if (ix_build(mem, blob, &src, &(struct ix_identity){.size = file.n, .digest = {1}}, &diag))
    die("ix_build failed");
}

static void run_build(const struct bench_case *c) {
  struct bytes blob;
  alloc_heap_init(&scratch, MEMORY);
  build(&tracks[c->arg[0]], &scratch.base, &blob);
  alloc_heap_free(&scratch);
}

static void run_open(const struct bench_case *c) {
  struct track_index ix;
  struct diag diag = {0};
  if (ix_open(&ix, tracks[c->arg[0]].blob, &diag))
    die("ix_open failed");
}

static void run_plan(const struct bench_case *c) {
  struct track_bench *t = &tracks[c->arg[0]];
  struct plan p;
  if (plan_init(&p, &t->ix, &t->segs, &t->prot[c->arg[1]], NULL))
    die("plan_init failed");
}

static void run_tag(const struct bench_case *c) {
  uint8_t tag[16];
  plan_tag(&tracks[c->arg[0]].plan[c->arg[1]], tag);
}

enum { HOT, COLD, TOUCHED, AHEAD, HEATS };

// One segment. HOT: the same few again, in cache. COLD: all of the track in turn. TOUCHED: the same, read linearly first. AHEAD:
// the same, but asked for from memory while the one before was encrypted, as far as the kernel does so.
static void run_render(const struct bench_case *c) {
  struct track_bench *t = &tracks[c->arg[0]];
  const struct plan *p = &t->plan[c->arg[1]];
  t->next = (t->next + 1) % (c->arg[2] == HOT ? HOT_SEGMENTS : t->segs.num);
  struct plan_range r = plan_segment_range(p, t->next), need = plan_source(p, r);
  struct bytes src = bytes_of(t->file.p + need.off, need.len);
  if (c->arg[2] == TOUCHED)
    plan_touch(src);
  if (c->arg[2] != AHEAD) {
    plan_render(p, ops, r, src, need.off, t->out);
    return;
  }
  static struct aes_ahead ahead; // of the last call
  if (c->arg[1] == SCHEME_CBCS)
    plan_touch(ahead.p >= src.p && ahead.p <= src.p + src.n ? bytes_of(ahead.p, ahead.n) : src);
  struct plan_range next = plan_source(p, plan_segment_range(p, (t->next + 1) % t->segs.num));
  ahead = (struct aes_ahead){t->file.p + next.off, next.len};
  plan_render_ahead(p, ops, r, src, need.off, t->out, &ahead);
}

// A range of 1000 bytes somewhere in the middle of a segment.
static void run_range(const struct bench_case *c) {
  struct track_bench *t = &tracks[c->arg[0]];
  const struct plan *p = &t->plan[c->arg[1]];
  t->next = (t->next + 1) % HOT_SEGMENTS;
  struct plan_range r = plan_segment_range(p, t->next);
  r = (struct plan_range){r.off + r.len / 2, 1000};
  struct plan_range need = plan_source(p, r);
  plan_render(p, ops, r, bytes_of(t->file.p + need.off, need.len), need.off, t->out);
}

static void run_memcpy(const struct bench_case *c) {
  struct track_bench *t = &tracks[c->arg[0]];
  t->next = (t->next + 1) % (c->arg[2] == HOT ? HOT_SEGMENTS : t->segs.num);
  struct plan_range need = plan_source(&t->plan[SCHEME_CLEAR], plan_segment_range(&t->plan[SCHEME_CLEAR], t->next));
  memcpy(t->out, t->file.p + need.off, need.len);
}

static void make_track(struct track_bench *t, uint32_t min_size, uint32_t max_size, uint64_t target_sec) {
  struct diag diag = {0};
  static struct alloc_heap heap[TRACKS];
  synth_make(&t->synth, &(struct synth_options){.num_frags = 900,
                                                .samples_per_trun = 94,
                                                .min_size = min_size,
                                                .max_size = max_size,
                                                .random_sizes = true,
                                                .name = "bench"});
  t->file = bytes_of(t->synth.file, t->synth.len);
  struct alloc_heap *h = &heap[t - tracks];
  alloc_heap_init(h, MEMORY);
  build(t, &h->base, &t->blob);
  if (ix_open(&t->ix, t->blob, &diag))
    die("ix_open failed");
  uint64_t target = target_sec * t->ix.h->timescale;
  uint32_t *first = (uint32_t *)malloc(((size_t)ix_segment_count(&t->ix, target) + 1) * sizeof *first);
  if (!first)
    die("out of memory");
  ix_segment_fill(&t->ix, target, first);
  t->segs = (struct ix_segments){ix_segment_count(&t->ix, target), first};
  for (int s = 0; s < SCHEME_COUNT; s++) {
    t->prot[s] = (struct protection){.scheme = (enum scheme)s, .kid = {1}, .iv = {2, 3}};
    ops->key_init(&t->prot[s].key, key);
    if (plan_init(&t->plan[s], &t->ix, &t->segs, &t->prot[s], NULL))
      die("plan_init failed");
  }
  t->out = (uint8_t *)malloc(1 << 20);
  if (!t->out)
    die("out of memory");
}

static struct bench_case *add(const char *name, void (*run)(const struct bench_case *), int a, int b, int c) {
  struct bench_case *row = &table[num_cases++];
  *row = (struct bench_case){.name = name, .run = run, .arg = {a, b, c}};
  return row;
}

static void add_track(int a, const char *const names[]) {
  struct track_bench *t = &tracks[a];
  struct bench_case *c = add(names[0], run_build, a, 0, 0);
  c->bytes = t->file.n;
  c->items = t->ix.h->num_samples;
  c->counter = "index_bytes_per_sample";
  c->value = (double)t->blob.n / (double)t->ix.h->num_samples;
  c = add(names[1], run_open, a, 0, 0);
  c->bytes = t->blob.n;
  c->items = t->ix.h->num_samples;
  add(names[2], run_plan, a, SCHEME_CENC, 0)->items = t->ix.h->num_frags;
  add(names[3], run_tag, a, SCHEME_CENC, 0);
}

const struct bench_case *cases_init(size_t *num) {
  static const char *const track_names[TRACKS][4] = {
      {"index_build/128k_30min", "index_open/128k_30min", "plan_init/128k_30min", "plan_tag/128k_30min"},
      {"index_build/256k_30min", "index_open/256k_30min", "plan_init/256k_30min", "plan_tag/256k_30min"}};
  static const char *const render_names[TRACKS][SCHEME_COUNT][HEATS] = {
      {{"render/clear/32K/hot", "render/clear/32K/cold", "render/clear/32K/touched", "render/clear/32K/ahead"},
       {"render/cenc/32K/hot", "render/cenc/32K/cold", "render/cenc/32K/touched", "render/cenc/32K/ahead"},
       {"render/cbcs/32K/hot", "render/cbcs/32K/cold", "render/cbcs/32K/touched", "render/cbcs/32K/ahead"}},
      {{"render/clear/189K/hot", "render/clear/189K/cold", "render/clear/189K/touched", "render/clear/189K/ahead"},
       {"render/cenc/189K/hot", "render/cenc/189K/cold", "render/cenc/189K/touched", "render/cenc/189K/ahead"},
       {"render/cbcs/189K/hot", "render/cbcs/189K/cold", "render/cbcs/189K/touched", "render/cbcs/189K/ahead"}}};
  static const char *const copy_names[TRACKS][2] = {{"memcpy/32K/hot", "memcpy/32K/cold"}, {"memcpy/189K/hot", "memcpy/189K/cold"}};
  static const char *const range_names[SCHEME_COUNT] = {"range/clear/1000", "range/cenc/1000", "range/cbcs/1000"};
  const char *why = "";
  ops = aes_ops_best(getenv("SLUICE_KERNEL"), &why);
  if (!ops)
    die(why);
  make_track(&tracks[0], 242, 440, 2);
  make_track(&tracks[1], 530, 810, 6);
  for (int a = 0; a < TRACKS; a++) {
    struct track_bench *t = &tracks[a];
    uint64_t segment = t->ix.h->media_len / t->segs.num;
    add_track(a, track_names[a]);
    for (int heat = HOT; heat <= COLD; heat++)
      add(copy_names[a][heat], run_memcpy, a, 0, heat)->bytes = segment;
    for (int s = 0; s < SCHEME_COUNT; s++)
      for (int heat = HOT; heat < HEATS; heat++)
        add(render_names[a][s][heat], run_render, a, s, heat)->bytes = segment;
  }
  for (int s = 0; s < SCHEME_COUNT; s++)
    add(range_names[s], run_range, 1, s, 0)->bytes = 1000;
  num_cases += bench_keys(&table[num_cases]);
  *num = num_cases;
  return table;
}
