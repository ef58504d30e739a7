// Truncations and byte flips of real files through the whole core: parse, index, plan, render, decrypt.
//
//   mutations TRUNCATIONS FLIPS FILE...
//
// Clear files go through parsing, planning and rendering, encrypted ones through decryption.
//
// A mutated file is either refused with a named error, or accepted and then everything must hold together: every
// sample lies in the file, the plan tiles its output, pieces equal the whole, a clear rewrite parses to the same
// samples and decrypting what was encrypted gives them back. A truncation is accepted only as a prefix of the
// original. No input may take much memory beyond a small multiple of its headers, or much time.
// Deterministic: the same arguments give the same mutations.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cenc/plan.h"
#include "cenc/unprotect.h"

enum {
  MEMORY_FACTOR = 16,        // bytes of memory allowed per byte of the original's headers,
  MEMORY_CLAIMED = 4,        // per byte of the file, since a flipped size may claim all of it as a header,
  MEMORY_BASE = 96 << 10,    // and beside them
  TIME_LIMIT_MS = 2000,      // CPU time of one mutation, sanitizers on
  MAX_FILE = 1 << 20,        // real files larger than this are cut out: they only cost time
  NOTED = 10                 // faults shown in full
};

struct work {
  const char *name;
  struct bytes original;
  uint64_t header_len;       // bytes that are not samples
  uint64_t num_samples;
  const uint32_t *sizes;     // of the original
  uint64_t rng;
  unsigned long accepted, refused, faults;
  size_t worst_memory;
  double worst_ms;
  bool encrypted;
  const struct aes_ops *ops;
};

// The key of shaka-packager's golden files.
static const uint8_t golden_kid[16] = "1234567890123456", golden_key[16] = "2345678901234567";

static uint64_t next_random(struct work *w) {
  w->rng ^= w->rng << 13;
  w->rng ^= w->rng >> 7;
  w->rng ^= w->rng << 17;
  return w->rng;
}

static void fault(struct work *w, const char *what, const char *mutation) {
  if (w->faults++ < NOTED)
    printf("# %s, %s: %s\n", w->name, mutation, what);
}

static enum err read_bytes(void *ctx, uint64_t off, void *buf, size_t n) {
  const struct bytes *b = ctx;
  if (off > b->n || n > b->n - off)
    return ERR_TRUNCATED;
  memcpy(buf, b->p + off, n);
  return ERR_OK;
}

static void *xmalloc(size_t n) {
  void *p = malloc(n ? n : 1);
  if (!p)
    abort();
  return p;
}

static double cpu_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

// An index of `file`, with the heap that holds it.
static enum err index_bytes(struct track_index *ix, struct alloc_heap *heap, struct bytes *file, struct diag *diag) {
  struct ix_identity id = {.size = file->n, .digest = {1}};
  struct mp4_source src = {.ctx = file, .read = read_bytes, .size = file->n};
  struct bytes blob;
  enum err e = ix_build(&heap->base, &blob, &src, &id, diag);
  return e ? e : ix_open(ix, blob, diag);
}

// Output of a plan, rendered whole, then compared with random pieces that see only the source they asked for.
static uint8_t *render(struct work *w, const struct plan *p, struct bytes file, const char *mutation) {
  struct plan_range all = {0, p->total_len};
  uint8_t *out = xmalloc(p->total_len);
  plan_render(p, w->ops, all, file, 0, out);
  for (int i = 0; i < 4 && p->total_len > 0; i++) {
    uint64_t off = next_random(w) % p->total_len, len = 1 + next_random(w) % 3000;
    struct plan_range r = {off, len < p->total_len - off ? len : p->total_len - off}, s = plan_source(p, r);
    if (s.off > file.n || s.len > file.n - s.off) {
      fault(w, "a range needs source bytes that are not there", mutation);
      continue;
    }
    uint8_t *src = xmalloc(s.len), *piece = xmalloc(r.len);
    memcpy(src, file.p + s.off, s.len);
    plan_render(p, w->ops, r, (struct bytes){src, s.len}, s.off, piece);
    if (memcmp(piece, out + off, r.len) != 0)
      fault(w, "a piece differs from the whole", mutation);
    free(src);
    free(piece);
  }
  return out;
}

static bool same_samples(const struct track_index *a, struct bytes fa, const struct track_index *b, struct bytes fb) {
  if (a->h->num_samples != b->h->num_samples)
    return false;
  // Runs may be cut differently on the two sides: compare sample by sample through two cursors.
  uint32_t ra = 0, rb = 0;
  uint64_t fa_i = 0, fb_i = 0, pa = 0, pb = 0, left_a = 0, left_b = 0;
  for (uint64_t n = 0; n < a->h->num_samples; n++) {
    uint32_t size = ix_sample_size(a, n);
    if (size != ix_sample_size(b, n))
      return false;
    if (size == 0)
      continue;
    if (left_a == 0) {
      while (ra >= a->frags[fa_i + 1].first_run)
        fa_i++;
      pa = a->frags[fa_i].src_off + a->runs[ra].pos, left_a = a->runs[ra].len, ra++;
    }
    if (left_b == 0) {
      while (rb >= b->frags[fb_i + 1].first_run)
        fb_i++;
      pb = b->frags[fb_i].src_off + b->runs[rb].pos, left_b = b->runs[rb].len, rb++;
    }
    if (size > left_a || size > left_b || pa + size > fa.n || pb + size > fb.n || memcmp(fa.p + pa, fb.p + pb, size) != 0)
      return false;
    pa += size, pb += size, left_a -= size, left_b -= size;
  }
  return true;
}

static void check_reparse(struct work *w, const struct track_index *ix, struct bytes file, struct bytes out, const char *what,
                          const char *mutation) {
  struct alloc_heap heap;
  alloc_heap_init(&heap, (size_t)1 << 30);
  struct track_index again;
  struct diag diag = {0};
  if (index_bytes(&again, &heap, &out, &diag) != ERR_OK) {
    char text[300];
    diag_format(&diag, text, sizeof text);
    char line[400];
    snprintf(line, sizeof line, "%s does not parse: %s", what, text);
    fault(w, line, mutation);
  } else if (!same_samples(ix, file, &again, out)) {
    fault(w, what, mutation);
  }
  alloc_heap_free(&heap);
}

static void check_scheme(struct work *w, const struct track_index *ix, const struct ix_segments *segs, struct bytes file,
                         enum scheme scheme, const char *mutation) {
  static const uint8_t key[16] = "0123456789abcdef";
  struct protection prot = {.scheme = scheme, .kid = {1, 2, 3}, .iv = {9, 8, 7, 6, 5, 4, 3, 0xFF}};
  w->ops->key_init(&prot.key, key);
  struct plan plan;
  struct diag diag = {0};
  if (plan_init(&plan, ix, segs, &prot, &diag) != ERR_OK)
    return; // a named error: sums that would overflow
  uint64_t bound = file.n * 4 + ix->h->num_samples * 8 + 65536;
  if (plan.total_len > bound) {
    fault(w, "the output is absurdly long", mutation);
    return;
  }
  uint8_t *out = render(w, &plan, file, mutation);
  if (scheme == SCHEME_CLEAR) {
    check_reparse(w, ix, file, (struct bytes){out, plan.total_len}, "the clear rewrite has other samples", mutation);
  } else {
    struct content_key ck = {.kid = {1, 2, 3}};
    w->ops->key_init(&ck.key, key);
    struct alloc_heap heap;
    alloc_heap_init(&heap, (size_t)1 << 30);
    uint8_t *back = xmalloc(plan.total_len);
    size_t back_len = 0;
    struct unprotect_input in = {.file = {out, plan.total_len}, .keys = &ck, .num_keys = 1, .ops = w->ops, .mem = &heap.base};
    enum err e = unprotect(back, &back_len, &in, &diag);
    if (e == ERR_OK)
      check_reparse(w, ix, file, (struct bytes){back, back_len}, "decrypting does not give the samples back", mutation);
    else if (ix->h->num_samples > 0) {
      char text[300], line[400];
      diag_format(&diag, text, sizeof text);
      snprintf(line, sizeof line, "what was encrypted cannot be decrypted: %s", text);
      fault(w, line, mutation);
    }
    free(back);
    alloc_heap_free(&heap);
  }
  free(out);
}

// Everything that must hold for an accepted file.
static void check_accepted(struct work *w, const struct track_index *ix, struct bytes file, bool truncated, const char *mutation) {
  for (uint32_t f = 0; f < ix->h->num_frags; f++)
    for (uint32_t r = ix->frags[f].first_run; r < ix->frags[f + 1].first_run; r++)
      if (ix->frags[f].src_off + ix->runs[r].pos + ix->runs[r].len > file.n) {
        fault(w, "a sample lies outside the file", mutation);
        return;
      }
  if (truncated) {
    if (ix->h->num_samples > w->num_samples)
      fault(w, "a truncation has more samples than the original", mutation);
    for (uint64_t n = 0; n < ix->h->num_samples && n < w->num_samples; n++)
      if (ix_sample_size(ix, n) != w->sizes[n]) {
        fault(w, "a truncation has other samples than the original", mutation);
        break;
      }
  }
  uint64_t target = 2 * (uint64_t)ix->h->timescale;
  uint32_t num = ix_segment_count(ix, target);
  uint32_t *first = xmalloc(((size_t)num + 1) * sizeof *first);
  ix_segment_fill(ix, target, first);
  struct ix_segments segs = {num, first};
  for (enum scheme s = SCHEME_CLEAR; s < SCHEME_COUNT; s++)
    check_scheme(w, ix, &segs, file, s, mutation);
  free(first);
}

// Decrypts and indexes the result; whether there is one is the caller's to judge.
static enum err decrypt_bytes(struct work *w, struct track_index *ix, struct alloc_heap *heap, struct bytes *out,
                              struct bytes file, struct diag *diag) {
  struct content_key ck;
  memcpy(ck.kid, golden_kid, 16);
  w->ops->key_init(&ck.key, golden_key);
  uint8_t *back = xmalloc(file.n);
  *out = (struct bytes){back, 0};
  struct unprotect_input in = {.file = file, .keys = &ck, .num_keys = 1, .ops = w->ops, .mem = &heap->base};
  enum err e = unprotect(back, &out->n, &in, diag);
  return e ? e : index_bytes(ix, heap, out, diag);
}

static void judge(struct work *w, const uint8_t *data, size_t n, bool truncated, const char *mutation) {
  uint8_t *exact = xmalloc(n); // of exactly this size, so that a read past it is seen
  memcpy(exact, data, n);
  struct bytes file = {exact, n};
  struct alloc_heap heap;
  alloc_heap_init(&heap, (size_t)1 << 30);
  struct track_index ix;
  struct diag diag = {0};
  double start = cpu_ms();
  struct bytes clear = {NULL, 0};
  enum err e = w->encrypted ? decrypt_bytes(w, &ix, &heap, &clear, file, &diag) : index_bytes(&ix, &heap, &file, &diag);
  double ms = cpu_ms() - start;
  if (heap.used > w->worst_memory)
    w->worst_memory = heap.used;
  if (ms > w->worst_ms)
    w->worst_ms = ms;
  if (heap.used > MEMORY_BASE + MEMORY_FACTOR * w->header_len + MEMORY_CLAIMED * n) {
    char line[100];
    snprintf(line, sizeof line, "%zu bytes of memory for %llu bytes of header", heap.used, (unsigned long long)w->header_len);
    fault(w, line, mutation);
  }
  if (ms > TIME_LIMIT_MS)
    fault(w, "it takes too long", mutation);
  if (e == ERR_OK) {
    w->accepted++;
    check_accepted(w, &ix, w->encrypted ? clear : file, truncated, mutation);
  } else {
    w->refused++;
    char text[300];
    diag_format(&diag, text, sizeof text);
    if (diag.err == ERR_OK || text[0] == 0)
      fault(w, "refused without a reason", mutation);
  }
  alloc_heap_free(&heap);
  free((void *)(uintptr_t)clear.p);
  free(exact);
}

static void truncations(struct work *w, unsigned long count) {
  for (unsigned long i = 0; i < count; i++) {
    // Half of the cuts among the first headers, half anywhere.
    size_t n = (size_t)(next_random(w) % (i % 2 ? w->original.n : (w->original.n < 3000 ? w->original.n : 3000)));
    char mutation[64];
    snprintf(mutation, sizeof mutation, "cut to %zu bytes", n);
    judge(w, w->original.p, n, true, mutation);
  }
}

// A byte of a header: flips among samples are only every tenth.
static size_t flip_place(struct work *w) {
  if (next_random(w) % 10 == 0)
    return (size_t)(next_random(w) % w->original.n);
  for (int tries = 0; tries < 200; tries++) {
    size_t at = (size_t)(next_random(w) % w->original.n);
    for (size_t back = 0; back < 400 && back + 4 <= at; back++) {
      const uint8_t *p = w->original.p + at - back;
      if (memcmp(p, "moof", 4) == 0 || memcmp(p, "traf", 4) == 0 || memcmp(p, "moov", 4) == 0 || memcmp(p, "stsd", 4) == 0)
        return at;
    }
  }
  return (size_t)(next_random(w) % (w->original.n < 1500 ? w->original.n : 1500));
}

static void flips(struct work *w, unsigned long count) {
  static const uint8_t values[] = {0, 1, 0x7F, 0x80, 0xFF};
  uint8_t *copy = xmalloc(w->original.n);
  for (unsigned long i = 0; i < count; i++) {
    memcpy(copy, w->original.p, w->original.n);
    unsigned num = 1 + (unsigned)(next_random(w) % 3);
    char mutation[128];
    int at = 0;
    for (unsigned k = 0; k < num; k++) {
      size_t place = flip_place(w);
      uint64_t r = next_random(w);
      if (r % 3)
        copy[place] ^= (uint8_t)(1u << (r >> 8) % 8);
      else
        copy[place] = values[(r >> 8) % sizeof values];
      at += snprintf(mutation + at, sizeof mutation - (size_t)at, "%sbyte %zu = %02x", k ? ", " : "", place, copy[place]);
    }
    judge(w, copy, w->original.n, false, mutation);
  }
  free(copy);
}

static bool load(struct work *w, const char *path) {
  const char *slash = strrchr(path, '/');
  w->name = slash ? slash + 1 : path;
  FILE *f = fopen(path, "rb");
  if (!f)
    return false;
  uint8_t *data = xmalloc(MAX_FILE);
  size_t n = fread(data, 1, MAX_FILE, f);
  fclose(f);
  w->original = (struct bytes){data, n};
  return true;
}

// The original must be accepted, or the mutations would say nothing.
static bool baseline(struct work *w) {
  struct alloc_heap heap;
  alloc_heap_init(&heap, (size_t)1 << 30);
  struct track_index ix;
  struct diag diag = {0};
  struct bytes clear = w->original;
  enum err e = index_bytes(&ix, &heap, &w->original, &diag);
  w->encrypted = e == ERR_PROTECTED;
  if (w->encrypted) {
    diag = (struct diag){0};
    e = decrypt_bytes(w, &ix, &heap, &clear, w->original, &diag);
  }
  bool good = e == ERR_OK;
  if (good) {
    w->num_samples = ix.h->num_samples;
    uint32_t *sizes = xmalloc(w->num_samples * sizeof *sizes);
    uint64_t payload = 0;
    for (uint64_t n = 0; n < w->num_samples; n++) {
      sizes[n] = ix_sample_size(&ix, n);
      payload += sizes[n];
    }
    w->sizes = sizes;
    w->header_len = w->original.n - payload;
    check_accepted(w, &ix, clear, true, "unchanged");
  }
  if (w->encrypted)
    free((void *)(uintptr_t)clear.p);
  alloc_heap_free(&heap);
  return good && w->faults == 0;
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: mutations TRUNCATIONS FLIPS FILE...\n");
    return 2;
  }
  unsigned long num_truncations = strtoul(argv[1], NULL, 10), num_flips = strtoul(argv[2], NULL, 10);
  unsigned long files = (unsigned long)argc - 3;
  const char *why;
  int number = 0;
  bool good = true;
  printf("1..%lu\n", 3 * files);
  for (unsigned long i = 0; i < files; i++) {
    struct work w = {.rng = 0x9E3779B97F4A7C15u + i, .ops = aes_ops_best(NULL, &why)};
    if (!load(&w, argv[3 + i])) {
      for (int k = 0; k < 3; k++)
        printf("ok %d - %s # SKIP %s is not there\n", ++number, w.name, argv[3 + i]);
      continue;
    }
    bool ok = baseline(&w);
    printf("%s %d - %s is accepted as it is\n", ok ? "ok" : "not ok", ++number, w.name);
    good &= ok;
    unsigned long share_t = (num_truncations + files - 1) / files, share_f = (num_flips + files - 1) / files;
    unsigned long before = w.faults;
    truncations(&w, share_t);
    printf("%s %d - %s: %lu truncations\n", w.faults == before ? "ok" : "not ok", ++number, w.name, share_t);
    before = w.faults;
    flips(&w, share_f);
    printf("%s %d - %s: %lu byte flips\n", w.faults == before ? "ok" : "not ok", ++number, w.name, share_f);
    printf("# %s: %lu accepted, %lu refused, at most %zu bytes of memory for %llu of header, %.1f ms at most\n", w.name, w.accepted,
           w.refused, w.worst_memory, (unsigned long long)w.header_len, w.worst_ms);
    fflush(stdout);
    good &= w.faults == 0;
    free((void *)(uintptr_t)w.original.p);
    free((void *)(uintptr_t)w.sizes);
  }
  return good ? 0 : 1;
}
