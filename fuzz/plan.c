// A whole file to a plan, in every scheme: ranges tile the output, a render in random pieces (each with no source byte
// more than plan_source names) equals the render of the whole, every kernel gives the same bytes, and decrypting gives
// back what a clear plan over the same index renders.
// The last byte of the input seeds the pieces; when it is odd the file is cut into a folder's parts, with 8 in it one kernel does.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cenc/plan.h"
#include "cenc/unprotect.h"
#include "fuzz.h"
#include "rewrite.h"

enum { MEMORY = 64 << 20, MAX_OUTPUT = 4 << 20 };

static const uint8_t key_bytes[16] = "sixteen byte key";

// A clear file may hold boxes that decryption takes away: then only the samples could be compared.
static bool has_protection_boxes(struct bytes file) {
  static const char types[][5] = {"pssh", "senc", "saiz", "saio", "seig", "sinf", "uuid", "enca", "encv"};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (memmem(file.p, file.n, types[i], 4))
      return true;
  return false;
}

static uint8_t *get(size_t n) {
  uint8_t *p = (uint8_t *)malloc(n ? n : 1);
  if (!p)
    abort();
  return p;
}

static void check_tiling(const struct plan *p) {
  uint64_t at = plan_init_range(p).len + plan_sidx_range(p).len;
  require(plan_sidx_range(p).off == plan_init_range(p).len, "sidx does not follow init");
  for (uint32_t f = 0; f < p->ix->h->num_frags; f++) {
    require(plan_frag_range(p, f).off == at, "fragments do not tile");
    struct plan_range r = plan_frag_range(p, f);
    require(r.len && plan_frag_at(p, at) == f && plan_frag_at(p, at + r.len - 1) == f, "a byte is in another fragment");
    at += r.len;
  }
  require(at == p->total_len, "fragments do not end where the output does");
  at = plan_init_range(p).len + plan_sidx_range(p).len;
  for (uint32_t s = 0; s < p->segs->num; s++) {
    require(plan_segment_range(p, s).off == at, "segments do not tile");
    struct plan_range r = plan_segment_range(p, s);
    require(r.len && plan_segment_at(p, at) == s && plan_segment_at(p, at + r.len - 1) == s, "a byte is in another segment");
    plan_ask(p, s);
    at += r.len;
  }
  require(at == p->total_len, "segments do not end where the output does");
}

static void check_pieces(const struct plan *p, const struct aes_ops *ops, struct bytes file, const uint8_t *whole, uint32_t seed) {
  for (uint64_t at = 0; at < p->total_len;) {
    seed = seed * 1664525 + 1013904223;
    uint64_t len = seed >> 30 ? seed >> 16 & 0x3ff : (seed >> 8) % (p->total_len + 1);
    if (len > p->total_len - at)
      len = p->total_len - at;
    struct plan_range r = {at, len}, need = plan_source(p, r);
    require(need.off + need.len <= file.n, "plan_source passes the file");
    uint8_t *src = get(need.len), *out = get(len);
    if (need.len)
      memcpy(src, file.p + need.off, need.len);
    plan_render(p, ops, r, bytes_of(src, need.len), need.off, out);
    require(memcmp(out, whole + at, len) == 0, "a range differs from the whole");
    struct aes_ahead ahead = {file.p, file.n}; // bytes that it may ask memory for, whatever they are
    memset(out, 0, len);
    plan_render_ahead(p, ops, r, bytes_of(src, need.len), need.off, out, &ahead);
    require(memcmp(out, whole + at, len) == 0, "a range differs where the kernel asks ahead");
    require(ahead.p >= file.p && ahead.n <= file.n && ahead.p + ahead.n <= file.p + file.n + 64, "what was asked for ahead");
    free(src), free(out);
    at += len;
  }
}

static uint8_t *render(const struct plan *p, const struct aes_ops *ops, struct bytes file) {
  uint8_t *out = get(p->total_len);
  plan_render(p, ops, (struct plan_range){0, p->total_len}, file, 0, out);
  return out;
}

static void check_decrypts(const struct plan *p, const struct aes_ops *ops, const uint8_t *enc, const struct plan *clear,
                           const uint8_t *want) {
  struct alloc_heap heap;
  struct diag diag = {0};
  struct content_key key = {.key = p->prot->key};
  memcpy(key.kid, p->prot->kid, 16);
  alloc_heap_init(&heap, MEMORY);
  uint8_t *out = get(p->total_len);
  size_t len = 0;
  struct unprotect_input in = {
      .file = bytes_of(enc, p->total_len), .keys = &key, .num_keys = 1, .ops = ops, .mem = &heap.base};
  if (unprotect(out, &len, &in, &diag)) {
    char text[256];
    diag_format(&diag, text, sizeof text);
    fprintf(stderr, "our output does not decrypt: %s\n", text);
    abort();
  }
  require(len == clear->total_len && memcmp(out, want, len) == 0, "decrypting does not give the source back");
  free(out);
  alloc_heap_free(&heap);
}

static void check_plans(const struct track_index *ix, struct bytes file, uint32_t seed) {
  const char *why;
  size_t num_ops;
  const struct aes_ops *ops = aes_ops_best(NULL, &why), *const *all = aes_ops_all(&num_ops);
  uint64_t target = seed & 2 ? 0 : ix->h->timescale;
  struct ix_segments segs = {.num = ix_segment_count(ix, target)};
  uint32_t *first_frag = (uint32_t *)(void *)get(((size_t)segs.num + 1) * 4);
  ix_segment_fill(ix, target, first_frag);
  segs.first_frag = first_frag;
  struct plan clear, p;
  struct protection prot[SCHEME_COUNT];
  uint8_t *clear_out = NULL;
  for (int s = 0; s < SCHEME_COUNT; s++) {
    prot[s] = (struct protection){.scheme = (enum scheme)s, .kid = {1, 2, 3}, .no_senc = (seed & 4) != 0, .wide_iv = (seed & 8) != 0};
    memset(prot[s].iv, 0xff, s == SCHEME_CENC ? 8 : 16);
    ops->key_init(&prot[s].key, key_bytes);
    struct plan *out = s == SCHEME_CLEAR ? &clear : &p;
    if (plan_init(out, ix, &segs, &prot[s], NULL) || out->total_len > MAX_OUTPUT)
      break;
    check_tiling(out);
    uint8_t *whole = render(out, ops, file);
    check_pieces(out, ops, file, whole, seed + (uint32_t)s);
    for (size_t i = 0; i < num_ops && !(seed & 8); i++) // the reference takes most of the time
      if (all[i]->usable() && all[i] != ops) {
        uint8_t *other = render(out, all[i], file);
        require(memcmp(other, whole, out->total_len) == 0, all[i]->name);
        free(other);
      }
    if (s == SCHEME_CLEAR) {
      clear_out = whole;
      continue;
    }
    if (!has_protection_boxes(file))
      check_decrypts(&p, ops, whole, &clear, clear_out);
    free(whole);
  }
  free(clear_out);
  free(first_frag);
}

const struct fuzz_boxes fuzz_boxes = {0, 1};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct bytes file = bytes_of(data, size ? size - 1 : 0), blob;
  uint64_t ends[FOLDER_PARTS];
  uint32_t seed = size ? data[size - 1] : 0;
  struct mp4_source src = memory_source(&file, ends, seed & 1 ? folder_parts(ends, file) : 1);
  struct alloc_heap heap;
  struct track_index ix;
  struct diag diag = {0};
  alloc_heap_init(&heap, MEMORY);
  if (ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &diag) == ERR_OK) {
    require(ix_open(&ix, blob, &diag) == ERR_OK, "the index does not open");
    check_plans(&ix, file, seed);
  }
  alloc_heap_free(&heap);
  return 0;
}
