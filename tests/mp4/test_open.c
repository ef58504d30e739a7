// ix_open believes nothing: one number of a good index is changed and the checksum made right again. Each check has its case,
// and the fault names the place.
#include <criterion/criterion.h>
#include <stdlib.h>

#include "rewrite.h"
#include "synth.h"

// An index that can be written to.
struct blob {
  struct alloc_heap heap;
  struct bytes bytes;
  struct ix_header *h;
  uint64_t *parts;
  struct ix_edit *init_edits, *edits;
  struct ix_frag *frags;
  struct ix_run *runs;
  struct ix_traf *trafs;
  uint16_t *sizes16;
  uint32_t *sizes32;
  struct aes_lane *lanes;
};

static void seal(struct blob *b) { b->h->checksum = ix_checksum(b->bytes); }

static void *section(const struct blob *b, enum ix_section s) { return (uint8_t *)b->h + b->h->sec[s].off; }

static void take(struct blob *b, const struct synth_options *o) {
  struct synth s;
  struct diag d = {0};
  struct track_index ix;
  synth_make(&s, o);
  struct bytes file = bytes_of(s.file, s.len);
  struct mp4_source src = memory_source(&file, s.part_ends, s.num_parts);
  alloc_heap_init(&b->heap, 1 << 26);
  cr_assert_eq(ix_build(&b->heap.base, &b->bytes, &src, &(struct ix_identity){.size = src.size}, &d), ERR_OK, "%s", d.what);
  cr_assert_eq(ix_open(&ix, b->bytes, &d), ERR_OK, "%s", d.what);
  synth_free(&s);
  b->h = (struct ix_header *)(uintptr_t)b->bytes.p;
  b->parts = section(b, IX_SEC_PARTS);
  b->init_edits = section(b, IX_SEC_INIT_EDITS);
  b->frags = section(b, IX_SEC_FRAGS);
  b->edits = section(b, IX_SEC_EDITS);
  b->runs = section(b, IX_SEC_RUNS);
  b->trafs = section(b, IX_SEC_TRAFS);
  b->lanes = section(b, IX_SEC_LANES);
  b->sizes16 = section(b, IX_SEC_SIZES);
  b->sizes32 = section(b, IX_SEC_SIZES);
}

static void refused(struct blob *b, enum err want, const char *what, const void *at, const char *how) {
  struct diag d = {0};
  struct track_index ix;
  enum err e = ix_open(&ix, b->bytes, &d);
  cr_expect_eq(e, want, "%s: %s", how, err_name(e));
  if (want != ERR_OK)
    cr_expect_not_null(strstr(d.what, what), "%s: %s", how, d.what);
  uint64_t pos = at ? (uint64_t)((const uint8_t *)at - b->bytes.p) : 0;
  cr_expect_eq(d.at, pos, "%s: at %zu, not %zu", how, (size_t)d.at, (size_t)pos);
  alloc_heap_free(&b->heap);
}

// A change to the index of `options` is refused with this text, at this place of the blob.
#define BAD(options, what, at, ...)                          \
  do {                                                       \
    struct blob blob = {0}, *b = &blob;                      \
    take(b, options);                                        \
    struct ix_header *h = b->h;                              \
    struct ix_frag *f = b->frags;                            \
    (void)h, (void)f;                                        \
    __VA_ARGS__;                                             \
    seal(b);                                                 \
    refused(b, ERR_MALFORMED, what, at, #__VA_ARGS__);       \
  } while (0)

static const struct synth_options plain = {.num_frags = 3, .samples_per_trun = 20, .min_size = 40, .max_size = 300},
                                  folder = {.num_frags = 3, .samples_per_trun = 20, .min_size = 40, .max_size = 300, .folder = true},
                                  trafs = {.num_frags = 2, .samples_per_trun = 5, .trafs_per_frag = 2, .min_size = 40, .max_size = 300},
                                  // two runs of two samples, all of one size
                                  runs = {.num_frags = 2, .samples_per_trun = 2, .truns_per_traf = 2, .min_size = 64, .max_size = 64, .gap = 5},
                                  // one sample each, in an order that is not that of their data
                                  mixed = {.num_frags = 1, .samples_per_trun = 1, .truns_per_traf = 5, .min_size = 64, .max_size = 64,
                                           .gap = 5, .reversed = true},
                                  big = {.num_frags = 2, .samples_per_trun = 2, .min_size = 70000, .max_size = 70000};

Test(open, the_blob_itself) {
  struct blob blob = {0}, *b = &blob;
  struct diag d = {0};
  struct track_index ix;
  take(b, &plain);
  cr_expect_eq(ix_open(&ix, bytes_of(b->bytes.p, sizeof *b->h - 1), &d), ERR_TRUNCATED);
  uint8_t *odd = malloc(b->bytes.n + 8);
  memcpy(odd + 4, b->bytes.p, b->bytes.n);
  cr_expect_eq(ix_open(&ix, bytes_of(odd + 4, b->bytes.n), &d), ERR_TRUNCATED);
  free(odd);
  b->h->checksum ^= 1;
  refused(b, ERR_CHECKSUM, "", NULL, "checksum");
  for (uint32_t flag = IX_WIDE_SIZES; flag; flag <<= 1) {
    take(b, &plain);
    b->h->flags ^= flag;
    refused(b, ERR_CHECKSUM, "", NULL, "flags");
  }
  for (int64_t by = -8; by <= 8; by += 16) {
    take(b, &plain);
    b->h->blob_len += (uint64_t)by;
    seal(b);
    refused(b, ERR_TRUNCATED, "bytes, ", NULL, "length");
  }
  take(b, &plain);
  b->h->version++;
  seal(b);
  refused(b, ERR_UNSUPPORTED, "version", NULL, "version");
}

// Puts an edit list in the place of the init segment's tkhd, which nobody reads: an empty edit before one with media.
static void delay_by(struct blob *b, uint64_t movie_ticks) {
  static const uint8_t elst[] = "edts\0\0\0\x54" "elst\1\0\0\0" "\0\0\0\2" "\0\0\0\0\0\0\0\0" "\xff\xff\xff\xff\xff\xff\xff\xff";
  uint8_t *init = section(b, IX_SEC_INIT), *tkhd = memmem(init, b->h->sec[IX_SEC_INIT].len, "tkhd", 4);
  cr_assert_eq(load_be32(tkhd - 4), 92);
  memset(tkhd, 0, 88);
  memcpy(tkhd, elst, sizeof elst - 1);
  store_be64(tkhd + 20, movie_ticks);
}

Test(open, a_delay) {
  struct blob late = {0};
  struct track_index ix;
  struct diag d = {0};
  take(&late, &plain);
  delay_by(&late, 250);
  seal(&late);
  cr_assert_eq(ix_open(&ix, late.bytes, &d), ERR_OK, "%s", d.what);
  cr_expect_eq(ix.delay, 12000);
  alloc_heap_free(&late.heap);
  BAD(&plain, "behind all time", &f[2], delay_by(b, UINT64_MAX));
}

Test(open, fields_of_the_head) {
  BAD(&plain, "this is no index", NULL, h->magic[7]++);
  BAD(&plain, "unknown flags", &h->flags, h->flags |= 16);
  BAD(&plain, "text without an end", h->codecs, memset(h->codecs, 'x', sizeof h->codecs));
  BAD(&plain, "text without an end", h->codecs, memset(h->language, 'x', sizeof h->language));
  BAD(&plain, "the track", &h->track_id, h->timescale = 0);
  BAD(&plain, "the track", &h->track_id, h->track_id = 0);
  BAD(&plain, "the track", &h->track_id, h->channels = 0);
  BAD(&plain, "the track", &h->track_id, h->format = FOURCC('i', 'a', 'm', 'f')); // has none
  BAD(&plain, "the track", &h->track_id, h->sample_rate = 0);
  BAD(&plain, "the track", &h->track_id, h->codecs[0] = 0);
  BAD(&plain, "counts", &h->num_parts, h->num_sinf = 0);
  BAD(&plain, "counts", &h->num_parts, h->num_sinf = IX_MAX_SINF + 1);
  BAD(&plain, "counts", &h->num_parts, h->num_frags = 0);
  BAD(&plain, "counts", &h->num_parts, h->num_frags = IX_MAX_FRAGS + 1);
  BAD(&plain, "counts", &h->num_parts, h->num_parts = 0);
  BAD(&plain, "counts", &h->num_samples, h->num_samples = 3ull * IX_MAX_FRAG_SAMPLES + 1);
}

Test(open, sections) {
  BAD(&plain, "a section does not fit", &h->sec[IX_SEC_INIT], h->sec[IX_SEC_INIT].off++, h->sec[IX_SEC_INIT].len--);
  BAD(&plain, "a section does not fit", &h->sec[IX_SEC_INIT], h->sec[IX_SEC_INIT].off = h->sec[IX_SEC_PARTS].off);
  BAD(&plain, "a section does not fit", &h->sec[IX_SEC_PARTS], h->sec[IX_SEC_PARTS].off = 8);
  BAD(&plain, "a section does not fit", &h->sec[IX_SEC_LANES], h->sec[IX_SEC_LANES].off += 8);
  BAD(&plain, "a section does not fit", &h->sec[IX_SEC_LANES], h->sec[IX_SEC_LANES].off = 1ull << 40);
  BAD(&plain, "a section does not fit", &h->sec[IX_SEC_TRAFS], h->num_trafs++);
  BAD(&plain, "a section does not fit", &h->sec[IX_SEC_SIZES], h->flags |= IX_WIDE_SIZES);
  BAD(&folder, "parts out of order", &b->parts[1], b->parts[0] = b->parts[1] + 1);
  BAD(&folder, "the parts are not the source", b->parts, b->parts[3]++);
}

static struct ix_edit *of_kind(struct ix_edit *e, uint8_t kind) {
  while (e->kind != kind)
    e++;
  return e;
}

Test(open, edits_of_the_init_segment) {
  const char *const one = "an edit of the init segment", *const all = "edits of the init segment";
  BAD(&plain, one, b->init_edits, b->init_edits->kind = IX_KIND_COUNT);
  BAD(&plain, one, b->init_edits, b->init_edits->scope = IX_SCOPE_COUNT);
  BAD(&plain, one, b->init_edits, b->init_edits->scope = IX_SCOPE_TRAF);
  BAD(&plain, one, b->init_edits, b->init_edits->zero[0] = 1);
  BAD(&plain, one, b->init_edits, b->init_edits->zero[1] = 1);
  BAD(&plain, one, b->init_edits, b->init_edits->kind = IX_PROTECT, b->init_edits->del = 0);
  BAD(&plain, one, b->init_edits, b->init_edits->arg = h->num_sinf + 1);
  BAD(&plain, one, &b->init_edits[1], b->init_edits[1].pos = b->init_edits->pos + 3);
  struct ix_edit *e;
  BAD(&plain, one, e, e = of_kind(b->init_edits, IX_PSSH), e->pos = (uint32_t)h->sec[IX_SEC_INIT].len + 1);
  BAD(&plain, one, e, e = of_kind(b->init_edits, IX_SINF), e->del = 1);
  BAD(&plain, all, b->init_edits, of_kind(b->init_edits, IX_SINF)->kind = IX_DELETE);
  BAD(&plain, all, b->init_edits, h->num_sinf = 2);
  BAD(&plain, all, b->init_edits, of_kind(b->init_edits, IX_ENTRY)->del = 0);
  BAD(&plain, all, b->init_edits, of_kind(b->init_edits, IX_PSSH)->kind = IX_DELETE);
  BAD(&plain, all, b->init_edits, b->init_edits->kind = IX_PSSH, b->init_edits->del = 0);
}

// Bytes of a fragment of one traf with 20 samples: what a protection adds must have room in 32 bits.
#define MOST (UINT32_MAX - (uint64_t)(IX_MAX_TRAF_GROWTH + 20 * IX_MAX_SAMPLE_GROWTH))

// Makes the first fragment longer, in the source or in the output or in both, and moves what follows.
static void stretch(struct blob *b, uint64_t src, uint64_t out) {
  b->frags[0].src_len += src;
  b->frags[0].out_len += out;
  for (uint32_t i = 1; i <= b->h->num_frags; i++) {
    b->frags[i].src_off += src;
    b->frags[i].out_off += out;
  }
  b->parts[0] += src;
  b->h->identity.size += src;
  b->h->media_len += src;
}

Test(open, fragments) {
  const char *const first = "the first fragment", *const end = "the end of the fragments", *const tile = "fragments do not tile the";
  const char *const counts = "counts of a fragment", *const times = "times of a fragment", *const too_long = "a fragment is too long";
  BAD(&plain, first, f, f->src_off++);
  BAD(&plain, first, f, f->src_off = h->media_off = h->sec[IX_SEC_INIT].len - 1, h->media_len = h->identity.size - h->media_off);
  BAD(&plain, first, f, h->media_len--);
  BAD(&plain, first, f, f->out_off = 1);
  BAD(&plain, first, f, f->first_sample = 1);
  BAD(&plain, first, f, f->first_edit = 1);
  BAD(&plain, first, f, f->first_run = 1);
  BAD(&plain, first, f, f->first_traf = 1);
  BAD(&plain, end, &f[3], f[3].src_off--);
  BAD(&plain, end, &f[3], f[3].first_sample--);
  BAD(&plain, end, &f[3], f[3].first_edit--);
  BAD(&plain, end, &f[3], f[3].first_run--);
  BAD(&plain, end, &f[3], f[3].first_traf--);
  BAD(&plain, end, &f[3], f[3].src_len = 1);
  BAD(&plain, end, &f[3], f[3].out_len = 1);
  BAD(&plain, "the duration", &f[3], h->start_ticks++);
  BAD(&plain, "the duration", &f[3], h->duration_ticks++);
  BAD(&plain, tile, &f[1], f[1].src_len--);
  BAD(&plain, tile, &f[1], f[1].src_off++, f[0].src_len++);
  BAD(&plain, tile, &f[1], f[1].moof_pos = (uint32_t)f[1].src_len);
  BAD(&plain, tile, &f[1], f[1].out_len++);
  BAD(&plain, counts, &f[1], f[1].first_sample = f[2].first_sample + 1);
  BAD(&plain, counts, &f[1], f[1].first_traf = f[2].first_traf + 1);
  BAD(&plain, counts, &f[1], f[1].first_edit = f[2].first_edit + 1);
  BAD(&plain, counts, &f[1], f[1].first_run = f[2].first_run + 1);
  BAD(&plain, counts, f, f[1].first_sample = IX_MAX_FRAG_SAMPLES + 1);
  BAD(&plain, times, &f[1], f[1].time_ticks = f[2].time_ticks + 1);
  BAD(&plain, times, &f[1], f[1].duration_ticks = UINT64_MAX);
  BAD(&plain, "flags of a fragment", &f[1], f[1].flags = 4);
  BAD(&folder, "a fragment across two parts", f, b->parts[1]--);
  BAD(&plain, too_long, f, stretch(b, MOST - f->src_len + 1, MOST - f->src_len + 1));
  BAD(&plain, too_long, f, stretch(b, 0, MOST - f->out_len + 1));
}

Test(open, a_fragment_as_long_as_can_be) {
  struct blob b = {0};
  take(&b, &plain);
  stretch(&b, MOST - b.frags->src_len, MOST - b.frags->src_len);
  seal(&b);
  refused(&b, ERR_OK, "", NULL, "its length");
}

Test(open, samples) {
  const char *const fit = "a run does not fit", *const sizes = "sizes of a run", *const of_run = "samples of a run";
  const char *const of_traf = "samples of a traf", *const lane = "a lane outside of its run", *const order = "lanes out of order";
  struct ix_traf *t;
  BAD(&trafs, of_traf, t, t = b->trafs, t[1].first_sample = 0, t[1].num_samples += t->num_samples, t->num_samples = 0);
  BAD(&trafs, of_traf, &b->trafs[1], b->trafs[1].first_sample++);
  BAD(&trafs, "samples outside of trafs", f, b->trafs[1].num_samples++);
  BAD(&plain, fit, b->runs, b->runs->len = 0);
  BAD(&plain, fit, b->runs, b->runs->num_samples = 0);
  BAD(&plain, fit, b->runs, b->runs->pos = (uint32_t)f->src_len + 1);
  BAD(&plain, fit, b->runs, b->runs->len = (uint32_t)f->src_len - b->runs->pos + 1);
  BAD(&runs, fit, &b->runs[1], b->runs[1].pos = b->runs->pos + b->runs->len - 1);
  BAD(&plain, of_run, b->runs, b->runs->first_sample = 21);
  BAD(&plain, of_run, b->runs, b->runs->num_samples++);
  BAD(&runs, sizes, b->runs, b->runs->len++);
  BAD(&plain, sizes, b->runs, b->sizes16[19]++);
  BAD(&runs, sizes, b->runs, b->lanes[1].off--);
  BAD(&big, "a sample is too long", b->runs, b->sizes32[0] = IX_MAX_SAMPLE + 1);
  BAD(&runs, lane, &b->lanes[1], b->lanes[1].off = 129);
  BAD(&runs, lane, &b->lanes[1], b->lanes[1].off = 65);
  BAD(&runs, order, &b->lanes[1], b->lanes[0].off = 64, b->lanes[1].off = 0);
  BAD(&runs, order, &b->lanes[1], b->lanes[0].len = 63);
  BAD(&runs, "a sample in two runs", &b->runs[1], b->runs[1].first_sample = 0);
  BAD(&runs, "a sample in two runs", &b->runs[1], b->runs->len++, b->runs[1].first_sample = 0); // before samples are looked at once for each
  BAD(&mixed, "a sample in two runs", &b->runs[4], b->runs[4].first_sample = b->runs[2].first_sample);
  BAD(&mixed, "a sample in two runs", &b->runs[3], b->runs[1].first_sample = b->runs[3].first_sample);
  BAD(&runs, "samples outside of runs", f, b->runs[1].num_samples = 1, b->runs[1].len = 64);
}

Test(open, edits_of_fragments) {
  const char *const one = "an edit of a fragment", *const none = "an edit names a traf that is not there", *const data = "an edit in sample data";
  const char *const lengths = "lengths of a fragment";
  struct ix_edit *e;
  for (uint8_t kind = IX_SINF; kind <= IX_ENTRY; kind++)
    BAD(&plain, one, b->edits, b->edits->kind = kind, b->edits->del = 0);
  BAD(&plain, one, b->edits, b->edits->scope = IX_SCOPE_SINF);
  BAD(&plain, one, b->edits, b->edits->scope = IX_SCOPE_MOOV);
  BAD(&plain, one, &b->edits[1], b->edits[1].pos = b->edits->pos + 3);
  BAD(&plain, one, e, e = of_kind(b->edits, IX_PROTECT), e->kind = IX_DELETE, e->del = (uint32_t)f->src_len - e->pos + 1);
  BAD(&plain, one, e, e = of_kind(b->edits, IX_PROTECT), e->del = 1);
  BAD(&plain, none, e, e = &b->edits[1], e->scope = IX_SCOPE_TRAF, e->arg = 1);
  BAD(&plain, none, e, e = of_kind(b->edits, IX_PROTECT), e->arg = 1);
  BAD(&trafs, none, e, e = of_kind(of_kind(b->edits, IX_PROTECT) + 1, IX_PROTECT), e->arg = 0); // the first one again
  BAD(&plain, "protection outside of the moof", e, e = of_kind(b->edits, IX_PROTECT), f->moof_pos = e->pos);
  BAD(&plain, one, b->edits, f->moof_pos += 2, f->moof_out_pos += 2); // in the moof's size
  BAD(&plain, data, e, e = of_kind(b->edits, IX_PROTECT) - 1, b->runs->pos = e->pos + e->del - 1); // the trun's offset
  BAD(&plain, "protection of a fragment", f, of_kind(b->edits, IX_PROTECT)->kind = IX_DELETE);
  BAD(&plain, lengths, f, stretch(b, 0, 1));
  BAD(&plain, lengths, f, f->moof_out_pos++);
}
