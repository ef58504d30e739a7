// Real files, cut short and with bytes flipped: an error with a name, or an index that is true to the damaged file.
// MP4_CORPUS names corpus/index; SLUICE_VECTORS the vectors of others, where they are.
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "rewrite.h"

enum { MAX_FILES = 64, TRUNCATIONS = 1000, FLIPS = 10000 };

struct file {
  char name[256];
  struct bytes b;
};

static struct file files[MAX_FILES];
static size_t num_files;

static const char *const vectors[] = {
    "androidx-media/mp4/sample_opus_fragmented.mp4",   "androidx-media/mp4/sample_fragmented_iamf.mp4",
    "androidx-media/mp4/sample_eac3joc_fragmented.mp4", "androidx-media/mp4/sample_mhm1_bl_configchange_fragmented.mp4",
    "shaka-packager/inputs/bear-mpeg2-aac-only_frag.mp4", "shaka-packager/encryption-cbcs/decrypted-bear-640x360-audio-0.mp4",
    "shaka-packager/acc-he/bear-640x360-aac_he-silent_right-audio.mp4",
    "shaka-packager/encryption-cbcs/bear-640x360-audio.mp4"};

static void load(const char *dir, const char *name, size_t cut) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "rb");
  if (!f || num_files == MAX_FILES)
    return;
  uint8_t *p = malloc(1 << 20);
  cr_assert_not_null(p);
  size_t n = fread(p, 1, 1 << 20, f);
  fclose(f);
  snprintf(files[num_files].name, sizeof files[0].name, "%s", name);
  files[num_files++].b = bytes_of(p, n > cut ? n - cut : n);
}

static void load_all(void) {
  const char *corpus = getenv("MP4_CORPUS"), *shared = getenv("SLUICE_VECTORS");
  cr_assert_not_null(corpus);
  DIR *d = opendir(corpus);
  cr_assert_not_null(d);
  for (struct dirent *e; (e = readdir(d));)
    if (!strncmp(e->d_name, "androidx", 8) || !strncmp(e->d_name, "shaka", 5) || !strncmp(e->d_name, "synth", 5))
      load(corpus, e->d_name, 1); // the last byte of a seed is the target's
  closedir(d);
  for (size_t i = 0; shared && i < sizeof vectors / sizeof *vectors; i++)
    load(shared, vectors[i], 0);
  cr_assert_geq(num_files, 20u);
}

static uint64_t rng = 88172645463325252u;

static uint32_t below(uint64_t n) {
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return n ? (uint32_t)(rng % n) : 0;
}

// Bytes outside of mdat payloads, at least.
static size_t header_bytes(struct bytes b) {
  size_t sum = 0;
  for (size_t at = 0; b.n - at >= 8;) {
    uint32_t len = load_be32(b.p + at);
    if (len < 8 || len > b.n - at)
      return sum + b.n - at;
    sum += load_be32(b.p + at + 4) == FOURCC('m', 'd', 'a', 't') ? 8 : len;
    at += len;
  }
  return sum;
}

struct outcome {
  enum err err;
  uint64_t num_samples, end; // samples; source bytes up to the last one's end
};

static struct outcome attempt(struct bytes file, const char *name) {
  struct mp4_source src = memory_source(&file, NULL, 0);
  struct alloc_heap heap;
  struct bytes blob;
  struct track_index ix;
  struct diag diag = {0};
  struct outcome o = {0};
  alloc_heap_init(&heap, (size_t)1 << 30);
  o.err = ix_build(&heap.base, &blob, &src, &(struct ix_identity){.size = src.size}, &diag);
  cr_assert_eq(o.err, diag.err, "%s: the error is not told", name);
  // Samples whose sizes are defaults cost 10 bytes of index and are in the data; all others are in the header.
  cr_assert_leq(heap.used, 64 * header_bytes(file) + 12 * file.n + (1 << 17), "%s: memory", name);
  if (!o.err) {
    cr_assert_eq(ix_open(&ix, blob, &diag), ERR_OK, "%s: not valid", name);
    const char *bad = rewrite_check(&ix, file);
    cr_assert_null(bad, "%s: %s", name, bad);
    o.num_samples = ix.h->num_samples;
    const struct ix_frag *last = &ix.frags[ix.h->num_frags - 1];
    o.end = last->src_off + last->src_len;
  }
  alloc_heap_free(&heap);
  return o;
}

Test(damage, truncations, .timeout = 120) {
  uint32_t accepted = 0;
  load_all();
  for (int i = 0; i < TRUNCATIONS; i++) {
    const struct file *f = &files[(size_t)i % num_files];
    size_t n = below(f->b.n);
    uint8_t *cut = malloc(n ? n : 1); // exactly as long, so that the sanitizers see what lies behind
    cr_assert_not_null(cut);
    memcpy(cut, f->b.p, n);
    struct outcome whole = attempt(f->b, f->name), o = attempt(bytes_of(cut, n), f->name);
    free(cut);
    if (o.err)
      continue;
    // What is left is whole boxes, and fewer samples unless nothing but index boxes was lost.
    accepted++;
    cr_expect(!whole.err && o.num_samples <= whole.num_samples, "%s cut to %zu", f->name, n);
    cr_expect_eq(o.end, n, "%s cut to %zu: samples end before", f->name, n);
  }
  cr_expect_lt(accepted, (uint32_t)TRUNCATIONS / 10); // only cuts between fragments may pass
}

Test(damage, flips, .timeout = 200) {
  uint32_t refused = 0;
  load_all();
  for (int i = 0; i < FLIPS; i++) {
    const struct file *f = &files[(size_t)i % num_files];
    uint8_t *copy = malloc(f->b.n);
    cr_assert_not_null(copy);
    memcpy(copy, f->b.p, f->b.n);
    size_t at = below(i % 4 ? (f->b.n < 1400 ? f->b.n : 1400) : f->b.n); // mostly where the structure is
    copy[at] ^= (uint8_t)(1u << below(8));
    if (i % 8 == 0)
      copy[at] = (uint8_t)below(256);
    refused += attempt(bytes_of(copy, f->b.n), f->name).err != ERR_OK;
    free(copy);
  }
  cr_expect_gt(refused, (uint32_t)FLIPS / 10);
  cr_expect_lt(refused, (uint32_t)FLIPS);
}
