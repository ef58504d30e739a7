// Writes every document of an asset, and its virtual files, for judges that are scripts:
//   dump OUTDIR SCHEME SYSTEMS [-tier] [-identity] [-target SECONDS] NAME=FILE …
// Keys are derived from a fixed secret. Files: master.m3u8 byterange.m3u8 manifest.mpd ondemand.mpd, and for track
// number I (from 0): I.media.m3u8 I.byterange.m3u8 I.mp4.
#include "../keys/derived.h"
#include "manifest/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct alloc_heap heap;
static const char *out_dir;

struct file {
  uint8_t *p;
  size_t n;
};

static enum err file_read(void *ctx, uint64_t off, void *buf, size_t n) {
  const struct file *f = ctx;
  if (off > f->n || n > f->n - off)
    return ERR_IO;
  memcpy(buf, f->p + off, n);
  return ERR_OK;
}

static struct file load(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f || fseek(f, 0, SEEK_END))
    exit(2);
  struct file out = {.n = (size_t)ftell(f)};
  rewind(f);
  out.p = malloc(out.n + 1);
  if (!out.p || fread(out.p, 1, out.n, f) != out.n)
    exit(2);
  fclose(f);
  return out;
}

static void save(const char *name, const void *p, size_t n) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", out_dir, name);
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(p, 1, n, f) != n || fclose(f))
    exit(2);
}

struct track {
  struct file file;
  struct track_index ix;
  struct ix_segments segs;
  struct protection prot;
  struct plan plan;
  struct key_record key;
};

static void die(const char *what, const struct diag *d) {
  char text[512];
  diag_format(d, text, sizeof text);
  fprintf(stderr, "%s: %s\n", what, text);
  exit(1);
}

static void open_track(struct track *t, const char *path, const struct drm_settings *set, enum scheme scheme,
                       uint64_t target_s) {
  static const uint8_t secret[32] = {1, 2, 3};
  struct diag d = {0};
  t->file = load(path);
  struct mp4_source src = {.ctx = &t->file, .read = file_read, .size = t->file.n};
  struct ix_identity id = {.size = t->file.n};
  struct bytes blob;
  if (ix_build(&heap.base, &blob, &src, &id, &d) || ix_open(&t->ix, blob, &d))
    die(path, &d);
  t->segs.num = ix_segment_count(&t->ix, target_s * t->ix.h->timescale);
  uint32_t *first = heap.base.get(&heap.base, (t->segs.num + 1) * sizeof *first);
  ix_segment_fill(&t->ix, target_s * t->ix.h->timescale, first);
  t->segs.first_frag = first;
  struct key_query q = {BYTES_LIT("an asset"), 3, scheme, drm_label(set, t->ix.h->format)};
  size_t num;
  t->prot.scheme = scheme;
  if (scheme != SCHEME_CLEAR) {
    if (derived(&t->key, bytes_of(secret, sizeof secret), &q))
      exit(2);
    key_record_protection(&t->prot, &t->key, aes_ops_all(&num)[0], id.digest, t->ix.h->track_id);
  }
  if (plan_init(&t->plan, &t->ix, &t->segs, &t->prot, &d))
    die(path, &d);
}

static void document(const char *name, const struct man_asset *a, uint32_t track, enum man_form form,
                     void (*write)(struct writer *, const struct man_asset *, uint32_t, enum man_form)) {
  struct writer w = wr_of(NULL, 0);
  write(&w, a, track, form);
  struct writer full = wr_of(malloc(w.n + 1), w.n);
  struct timespec t0, t1;
  clock_gettime(CLOCK_MONOTONIC, &t0);
  write(&full, a, track, form);
  clock_gettime(CLOCK_MONOTONIC, &t1);
  if (full.n != w.n || !wr_ok(&full))
    exit(3); // measuring and writing must agree
  save(name, full.p, full.n);
  printf("%s %zu bytes %.3f ms\n", name, full.n,
         (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6);
  free(full.p);
}

static void master(struct writer *w, const struct man_asset *a, uint32_t track, enum man_form form) {
  (void)track;
  man_hls_master(w, a, form);
}

static void dash(struct writer *w, const struct man_asset *a, uint32_t track, enum man_form form) {
  (void)track;
  man_dash(w, a, form);
}

static void whole_file(const char *name, const struct track *t) {
  size_t num;
  struct plan_range all = {0, t->plan.total_len};
  struct plan_range need = plan_source(&t->plan, all);
  uint8_t *out = malloc(t->plan.total_len);
  if (!out)
    exit(2);
  plan_render(&t->plan, aes_ops_all(&num)[0], all, bytes_of(t->file.p + need.off, need.len), need.off, out);
  save(name, out, t->plan.total_len);
  free(out);
}

int main(int argc, char **argv) {
  static struct track tracks[MAN_MAX_TRACKS];
  static struct man_track views[MAN_MAX_TRACKS];
  struct drm_settings set = {.clearkey = {.la_url = BYTES_LIT("https://lic.example/{asset}/{epoch}?a=1&b=2")},
                             .playready = {.la_url = BYTES_LIT("https://pr.example/?a=1&b=2")}};
  struct man_asset a = {.name = BYTES_LIT("an asset"), .epoch = 3, .tracks = views, .drm = &set};
  uint64_t target_s = 2;
  alloc_heap_init(&heap, (size_t)4 << 30);
  if (argc < 4 || scheme_parse(&a.scheme, bytes_str(argv[2])) || drm_parse_list(&set.systems, bytes_str(argv[3])))
    return 2;
  out_dir = argv[1];
  for (int i = 4; i < argc; i++) {
    char *eq = strchr(argv[i], '=');
    if (strcmp(argv[i], "-tier") == 0) {
      set.per_tier = true;
    } else if (strcmp(argv[i], "-identity") == 0) {
      set.identity = true;
    } else if (strcmp(argv[i], "-target") == 0 && i + 1 < argc) {
      target_s = strtoull(argv[++i], NULL, 10);
    } else if (eq && a.num_tracks < MAN_MAX_TRACKS) {
      struct track *t = &tracks[a.num_tracks];
      open_track(t, eq + 1, &set, a.scheme, target_s);
      views[a.num_tracks++] = (struct man_track){bytes_of(argv[i], (size_t)(eq - argv[i])), &t->ix, &t->segs, &t->plan,
                                                 a.scheme == SCHEME_CLEAR ? NULL : &t->key};
    } else {
      return 2;
    }
  }
  document("master.m3u8", &a, 0, MAN_SEGMENTS, master);
  document("byterange.m3u8", &a, 0, MAN_RANGES, master);
  document("manifest.mpd", &a, 0, MAN_SEGMENTS, dash);
  document("ondemand.mpd", &a, 0, MAN_RANGES, dash);
  for (uint32_t i = 0; i < a.num_tracks; i++) {
    char name[64];
    snprintf(name, sizeof name, "%u.media.m3u8", i);
    document(name, &a, i, MAN_SEGMENTS, man_hls_media);
    snprintf(name, sizeof name, "%u.byterange.m3u8", i);
    document(name, &a, i, MAN_RANGES, man_hls_media);
    snprintf(name, sizeof name, "%u.mp4", i);
    whole_file(name, &tracks[i]);
  }
  alloc_heap_free(&heap);
  return 0;
}
