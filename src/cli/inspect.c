// sluice inspect FILE [--json] [--all] [--check]: what is in a file, with exact offsets.
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/json_write.h"
#include "cli/output.h"
#include "base/text.h"
#include "mp4/describe.h"
#include "mp4/samples.h"
#include "mp4/tree.h"

// Fields of tenc in the order of their description.
enum { TENC_CRYPT = 2, TENC_SKIP, TENC_PROTECTED, TENC_IV_SIZE, TENC_KID, TENC_CONSTANT_IV, TENC_FIELDS };

enum { MAX_PAYLOAD = 1 << 26, TEXT_ENTRIES = 4, TEXT_HEX = 32, DEPTH = LIMIT_DEPTH + 1, NESTING = 4 };

struct inspector {
  struct window *win;
  const struct media_source *media;
  bool json, all;
  struct samples_file samples;
  uint32_t num_frags, num_in_frag;
  uint64_t num_samples;
  uint8_t iv_size;
  uint64_t num_tenc, num_told; // tenc boxes that the first walk has come to; of them, told under protection
  struct field tenc[TENC_FIELDS]; // of the one that is told
  unsigned num_fields;
  int nesting;                // of lists and items in the fields of the current box
  uint64_t item[NESTING + 1]; // text: number of the current item by nesting
  bool is_list[NESTING + 1], any[NESTING + 1]; // JSON: the same, and whether something stands in it
  bool children[DEPTH + 1];   // JSON: of the open box by depth, whether one has been written
  uint32_t open;              // JSON: boxes that have begun and not ended
  uint64_t num_boxes;         // that the first walk has come to
  uint32_t scheme;
  bool has_moov, has_senc, has_saiz;
  struct diag diag, why; // why: there is no track to be served
};

static const char changed[] = "the source changed while it was read";

static void type_text(char out[5], uint32_t type) {
  for (int i = 0; i < 4; i++) {
    uint8_t c = (uint8_t)(type >> (24 - 8 * i));
    out[i] = c == 0xa9 ? '@' : isprint(c) ? (char)c : '?';
  }
  out[4] = 0;
}

// What stands within a box, list or item is told apart by commas.
static void write_comma(struct inspector *in) {
  if (in->any[in->nesting])
    fputs(", ", stdout);
  in->any[in->nesting] = true;
}

static void write_uint(struct inspector *in, const char *name, uint64_t v) {
  write_comma(in);
  json_write_uint(name, v);
}

static void write_string(struct inspector *in, const char *name, const char *text) {
  write_comma(in);
  printf("\"%s\": ", name);
  json_write_utf8(bytes_str(text));
}

static void end_nested(struct inspector *in) { putchar(in->is_list[in->nesting--] ? ']' : '}'); }

static void write_field(struct inspector *in, const struct field *f) {
  char name[64];
  snprintf(name, sizeof name, "%.*s", (int)f->name_len, f->name);
  if (f->kind == FIELD_ITEM_END || f->kind == FIELD_LIST_END)
    return end_nested(in);
  write_comma(in);
  if (f->kind == FIELD_UINT || f->kind == FIELD_FLAGS)
    return json_write_uint(name, f->u);
  if (f->kind != FIELD_ITEM)
    printf("\"%s\": ", name);
  if (f->kind == FIELD_INT) {
    printf("%" PRId64, f->i);
  } else if (f->kind == FIELD_TEXT) {
    json_write_text(f->raw);
  } else if (f->kind == FIELD_HEX) {
    json_write_hex(f->raw);
  } else {
    if (in->nesting == NESTING)
      abort(); // descriptions do not nest this deep
    in->is_list[++in->nesting] = f->kind == FIELD_LIST;
    in->any[in->nesting] = false;
    putchar(f->kind == FIELD_LIST ? '[' : '{');
  }
}

static void hex_print(struct bytes b, size_t max) {
  for (size_t i = 0; i < b.n && i < max; i++) {
    putchar("0123456789abcdef"[b.p[i] >> 4]);
    putchar("0123456789abcdef"[b.p[i] & 15]);
  }
  if (b.n > max)
    printf("… (%zu bytes)", b.n);
}

// Lists are cut after a few items unless all is asked for.
static void field_text(struct inspector *in, const struct field *f) {
  bool hidden = false;
  for (int i = 1; i <= in->nesting; i++)
    hidden |= !in->all && in->item[i] > TEXT_ENTRIES;
  switch (f->kind) {
  case FIELD_LIST: in->item[++in->nesting] = 0; break;
  case FIELD_LIST_END:
    if (!in->all && in->item[in->nesting] > TEXT_ENTRIES)
      printf(" … %" PRIu64 " more", in->item[in->nesting] - TEXT_ENTRIES);
    in->nesting--;
    break;
  case FIELD_ITEM:
    if (!hidden && (in->all || in->item[in->nesting] < TEXT_ENTRIES))
      printf(" {");
    in->item[in->nesting]++;
    break;
  case FIELD_ITEM_END:
    if (!hidden)
      printf(" }");
    break;
  case FIELD_UINT:
  case FIELD_INT:
  case FIELD_FLAGS:
  case FIELD_TEXT:
  case FIELD_HEX:
  case FIELD_KIND_COUNT:
    if (hidden)
      break;
    printf(" %.*s=", (int)f->name_len, f->name);
    if (f->kind == FIELD_INT)
      printf("%" PRId64, f->i);
    else if (f->kind == FIELD_FLAGS)
      printf("0x%" PRIx64, f->u);
    else if (f->kind == FIELD_HEX)
      hex_print(f->raw, in->all ? SIZE_MAX : TEXT_HEX);
    else if (f->kind == FIELD_TEXT)
      for (size_t i = 0; i < f->raw.n && (in->all || i < 256); i++)
        putchar(isprint(f->raw.p[i]) ? f->raw.p[i] : '?');
    else
      printf("%" PRIu64, f->u);
    break;
  }
}

static bool is_field(uint32_t type, const struct field *f, const char *box, const char *name) {
  return type == load_be32((const uint8_t *)box) && f->name_len == strlen(name) && !memcmp(f->name, name, f->name_len);
}

// What later boxes are read by: IVs of senc, and the scheme that a tenc is for.
static void note_field(struct inspector *in, uint32_t type, const struct field *f) {
  if (is_field(type, f, "tenc", "per_sample_iv_size"))
    in->iv_size = (uint8_t)f->u;
  if (is_field(type, f, "schm", "scheme") && f->raw.n == 4)
    in->scheme = load_be32(f->raw.p);
}

struct field_context {
  struct inspector *in;
  uint32_t type;
};

static void on_field(void *ctx, const struct field *f) {
  struct field_context *c = ctx;
  note_field(c->in, c->type, f);
  c->in->num_tenc += is_field(c->type, f, "tenc", "version");
  if (!c->in->json)
    field_text(c->in, f);
}

static void on_field_again(void *ctx, const struct field *f) {
  struct field_context *c = ctx;
  note_field(c->in, c->type, f);
  write_field(c->in, f);
}

static void on_sample(void *ctx, const struct sample_info *s) {
  struct inspector *in = ctx;
  in->num_samples++;
  if (!in->json && in->all)
    printf("%10" PRIu64 " %8u    sample track=%u time=%" PRIu64 " duration=%u\n", s->offset, s->size, s->track_id, s->time,
           s->duration);
}

static enum err take_moov(struct inspector *in, const struct box *b) {
  const uint8_t *p;
  if (b->len > MAX_PAYLOAD)
    return ERR_OK;
  enum err e = window_get(in->win, &p, b->pos, (size_t)b->len);
  if (e)
    return diag_set(&in->diag, e, b->pos, NULL);
  samples_tracks(&in->samples, bytes_of(p, (size_t)b->len));
  return ERR_OK;
}

// A fault of one fragment's samples is told, and what is behind them as well.
static enum err visit_moof(struct inspector *in, const struct box *b, void (*sample)(void *ctx, const struct sample_info *s)) {
  const uint8_t *p;
  uint32_t part = media_part_at(in->media->part_ends, in->media->num_parts, b->pos);
  uint64_t part_start = part ? in->media->part_ends[part - 1] : 0;
  struct samples_visitor v = {in, sample};
  enum err e = b->len > MAX_PAYLOAD ? ERR_LIMIT : window_get(in->win, &p, b->pos, (size_t)b->len);
  if (e)
    return diag_set(&in->diag, e, b->pos, NULL);
  e = samples_of_moof(&v, &in->samples, bytes_of(p, (size_t)b->len), b->pos, part_start, &in->diag);
  return e == ERR_MALFORMED || e == ERR_MISSING || e == ERR_TRUNCATED ? ERR_OK : e;
}

// Whether the fields of a box are told, and told as they come. *cut: it ends before they do.
static enum err describe(struct inspector *in, const struct box *b, uint32_t parent, void (*field)(void *ctx, const struct field *f), bool *cut) {
  const struct box_info *info = box_info_of(b->type);
  const uint8_t *p;
  uint64_t len = b->len - b->head_len;
  struct field_context fc = {in, b->type};
  struct describe d = {&fc, field, in->iv_size};
  bool entry = info && info->kind == BOX_AUDIO && parent != FOURCC('s', 't', 's', 'd');
  in->nesting = 0;
  *cut = false;
  if (!describe_knows(b->type) || entry || len > MAX_PAYLOAD)
    return ERR_OK;
  enum err e = window_get(in->win, &p, b->pos + b->head_len, (size_t)len);
  if (e)
    return diag_set(&in->diag, e, b->pos, NULL);
  *cut = describe_box(&d, b->type, bytes_of(p, (size_t)len));
  return ERR_OK;
}

// Boxes of a fragment that say it is protected, senc also in PIFF's form; not auxiliary information of another kind.
static enum err note_marks(struct inspector *in, const struct box *b) {
  uint64_t len = b->len - b->head_len;
  size_t n = len < 16 ? (size_t)len : 16;
  const uint8_t *p;
  if (b->type != FOURCC('s', 'e', 'n', 'c') && b->type != FOURCC('s', 'a', 'i', 'z') && b->type != FOURCC('u', 'u', 'i', 'd'))
    return ERR_OK;
  enum err e = window_get(in->win, &p, b->pos + b->head_len, n);
  if (e)
    return diag_set(&in->diag, e, b->pos, NULL);
  struct box with_body = {.type = b->type, .body = bytes_of(p, n)};
  in->has_senc |= b->type == FOURCC('s', 'e', 'n', 'c') || box_is_piff_senc(&with_body);
  in->has_saiz |= b->type == FOURCC('s', 'a', 'i', 'z') && box_is_cenc_aux(with_body.body);
  return ERR_OK;
}

static enum err on_enter(void *ctx, const struct box *b, uint32_t depth, uint32_t parent) {
  struct inspector *in = ctx;
  char type[5];
  bool cut;
  enum err e = note_marks(in, b);
  if (e)
    return e;
  in->num_boxes++;
  type_text(type, b->type);
  if (!in->json)
    printf("%10" PRIu64 " %8" PRIu64 "  %*s%s", b->pos, b->len, (int)depth * 2, "", type);
  in->has_moov |= b->type == FOURCC('m', 'o', 'o', 'v');
  if ((e = describe(in, b, parent, on_field, &cut)) != ERR_OK)
    return e;
  if (!in->json)
    printf("\n");
  if (b->type == FOURCC('m', 'o', 'o', 'v') && depth == 0)
    return take_moov(in, b);
  if (b->type != FOURCC('m', 'o', 'o', 'f') || depth)
    return ERR_OK;
  in->num_frags++;
  return visit_moof(in, b, on_sample);
}

static void on_leave(void *ctx, const struct box *b, uint32_t depth) { (void)ctx, (void)b, (void)depth; }

// Boxes and fragments as JSON: each written in a walk of its own, box by box and sample by sample, so that no list of them takes
// memory, however many there are. Nothing is allocated here: what has begun ends.

static void end_box(struct inspector *in) {
  in->open--;
  fputs(in->children[in->open + 1] ? "]}" : "}", stdout);
}

static enum err box_enter(void *ctx, const struct box *b, uint32_t depth, uint32_t parent) {
  struct inspector *in = ctx;
  const struct box_info *info = box_info_of(b->type);
  char type[5];
  bool cut;
  if (!in->num_boxes) // as far as the first walk came
    return diag_say(&in->diag, ERR_STALE, changed);
  in->num_boxes--;
  type_text(type, b->type);
  fputs(in->children[depth] ? ",\n" : depth ? ", \"boxes\": [\n" : "\n", stdout);
  printf("%*s{\"type\": ", (int)depth + 2, "");
  json_write_text(bytes_str(type));
  fputs(", ", stdout);
  json_write_uint("offset", b->pos);
  fputs(", ", stdout);
  json_write_uint("size", b->len);
  printf(", \"header\": %u, ", (unsigned)b->head_len);
  if (info) {
    fputs("\"about\": ", stdout);
    json_write_text(bytes_str(info->text));
    fputs(", ", stdout);
  }
  fputs("\"fields\": {", stdout);
  in->children[depth] = true;
  in->children[depth + 1] = in->any[0] = false;
  in->open = depth + 1;
  enum err e = describe(in, b, parent, on_field_again, &cut);
  while (in->nesting)
    end_nested(in);
  if (cut) {
    write_comma(in);
    fputs("\"truncated\": true", stdout);
  }
  putchar('}');
  return e;
}

static void box_leave(void *ctx, const struct box *b, uint32_t depth) {
  (void)b, (void)depth;
  end_box(ctx);
}

static void write_sample(void *ctx, const struct sample_info *s) {
  struct inspector *in = ctx;
  fputs(in->num_in_frag++ ? ",\n    {" : "\n    {", stdout);
  json_write_uint("offset", s->offset);
  printf(", \"size\": %u, \"duration\": %u, ", s->size, s->duration);
  json_write_uint("time", s->time);
  if (in->samples.num_tracks > 1)
    printf(", \"track\": %u", s->track_id);
  putchar('}');
}

static enum err fragment_enter(void *ctx, const struct box *b, uint32_t depth, uint32_t parent) {
  struct inspector *in = ctx;
  (void)parent;
  if (b->type == FOURCC('m', 'o', 'o', 'v') && depth == 0)
    return take_moov(in, b);
  if (b->type != FOURCC('m', 'o', 'o', 'f') || depth)
    return ERR_OK;
  in->num_in_frag = 0;
  printf("%s\n  {", in->num_frags++ ? "," : "");
  json_write_uint("moof_offset", b->pos);
  fputs(", \"samples\": [", stdout);
  enum err e = visit_moof(in, b, write_sample);
  fputs("]}", stdout);
  return e;
}

// What tenc boxes say, and the schm before each, in a walk of its own as well: as far as the first one saw one.

static void on_tenc(void *ctx, const struct field *f) {
  struct field_context *c = ctx;
  note_field(c->in, c->type, f);
  if (c->type == FOURCC('t', 'e', 'n', 'c') && c->in->num_fields < TENC_FIELDS)
    c->in->tenc[c->in->num_fields++] = *f;
}

static enum err protection_enter(void *ctx, const struct box *b, uint32_t depth, uint32_t parent) {
  struct inspector *in = ctx;
  const struct field *f = in->tenc;
  char scheme[5];
  bool cut;
  (void)depth;
  if (in->num_told == in->num_tenc)
    return ERR_STALE; // ends the walk
  if (b->type != FOURCC('s', 'c', 'h', 'm') && b->type != FOURCC('t', 'e', 'n', 'c'))
    return ERR_OK;
  memset(in->tenc, 0, sizeof in->tenc);
  in->num_fields = 0;
  enum err e = describe(in, b, parent, on_tenc, &cut);
  if (e || !in->num_fields)
    return e;
  type_text(scheme, in->scheme);
  if (in->json) {
    fputs(in->num_told ? ", {" : "{", stdout);
    in->any[0] = false;
    write_string(in, "scheme", scheme);
    for (unsigned i = TENC_CRYPT; i < in->num_fields; i++)
      write_field(in, &f[i]);
    putchar('}');
  } else {
    printf("protection: %s, KID ", scheme);
    hex_print(f[TENC_KID].raw, SIZE_MAX);
    if (cut) {
      printf("%scut off\n", f[TENC_KID].raw.n ? ", the rest " : "");
    } else {
      printf(", IV size %" PRIu64 "%s", f[TENC_IV_SIZE].u, f[TENC_CONSTANT_IV].raw.n ? ", constant IV " : "");
      hex_print(f[TENC_CONSTANT_IV].raw, SIZE_MAX);
      printf(", pattern %" PRIu64 ":%" PRIu64 "\n", f[TENC_CRYPT].u, f[TENC_SKIP].u);
    }
  }
  in->num_told++;
  return ERR_OK;
}

static enum err write_protection(struct inspector *in) {
  struct tree_visitor v = {in, protection_enter, on_leave};
  in->scheme = 0;
  enum err e = tree_walk(in->win, &v, &in->diag);
  return in->num_told == in->num_tenc ? ERR_OK : e ? e : diag_say(&in->diag, ERR_STALE, changed);
}

// The track as the index sees it, or why there is none.
static void write_track(struct inspector *in, const struct track_index *ix, const char *why) {
  const struct ix_header *h = ix->h;
  char format[5];
  in->any[0] = true;
  printf("\"usable\": %s", h ? "true" : "false");
  if (!h) {
    write_string(in, "error", err_name(in->why.err));
    return write_string(in, "why", why);
  }
  type_text(format, h->format);
  write_string(in, "codecs", h->codecs);
  write_string(in, "format", format);
  write_uint(in, "sample_rate", h->sample_rate);
  write_uint(in, "channels", h->channels);
  write_uint(in, "timescale", h->timescale);
  write_string(in, "language", h->language);
  write_uint(in, "fragments", h->num_frags);
  write_uint(in, "samples", h->num_samples);
  write_uint(in, "start", h->start_ticks);
  write_uint(in, "duration", h->duration_ticks);
  write_uint(in, "avg_bitrate", h->avg_bitrate);
  write_uint(in, "max_bitrate", h->max_bitrate);
  write_uint(in, "segments_of_2s", ix_segment_count(ix, 2 * (uint64_t)h->timescale));
}

// What the first walk met was told; the others end there too, and tell what only they met.
static enum err write_json(struct inspector *in, const char *path, const struct track_index *ix, const char *why) {
  struct tree_visitor boxes = {in, box_enter, box_leave}, fragments = {in, fragment_enter, on_leave};
  enum err told = in->diag.err;
  fputs("{\n \"file\": ", stdout);
  json_write_utf8(bytes_str(path));
  fputs(",\n ", stdout);
  json_write_uint("size", in->media->id.size);
  fputs(",\n \"track\": {", stdout);
  write_track(in, ix, why);
  fputs("},\n \"protection\": [", stdout);
  enum err e = write_protection(in);
  printf("],\n \"protected_by\": [%s%s%s],\n \"boxes\": [", in->has_senc ? "\"senc\"" : "", in->has_senc && in->has_saiz ? ", " : "",
         in->has_saiz ? "\"saiz\"" : "");
  in->iv_size = 0;
  if (!e)
    e = tree_walk(in->win, &boxes, &in->diag);
  while (in->open)
    end_box(in);
  fputs("\n ],\n \"fragments\": [", stdout);
  in->num_frags = 0;
  in->samples = (struct samples_file){.source_len = in->samples.source_len};
  if (told || !e)
    e = tree_walk(in->win, &fragments, &in->diag);
  fputs("\n ]\n}\n", stdout);
  return told ? ERR_OK : e;
}

static enum err print_summary(struct inspector *in, const struct ix_header *h, const char *why) {
  if (h) {
    char channels[40] = "channels by the renderer";
    if (h->channels)
      snprintf(channels, sizeof channels, "%u channels", h->channels);
    printf("\ntrack: %s, %u Hz, %s, language %s, %.3f s, %u b/s (at most %u)\n", h->codecs, h->sample_rate, channels, h->language,
           (double)h->duration_ticks / h->timescale, h->avg_bitrate, h->max_bitrate);
  } else {
    printf("\nnot to be served: %s\n", why);
  }
  printf("fragments: %u with %" PRIu64 " samples\n", in->num_frags, in->num_samples);
  if (in->num_tenc)
    return write_protection(in);
  // A media segment alone does not say everything: schm and tenc stand in moov.
  if (in->has_senc || in->has_saiz)
    printf("protection: yes (%s); scheme and KID stand in the initialization segment\n",
           !in->has_saiz ? "senc" : !in->has_senc ? "saiz" : "senc, saiz");
  else
    printf("protection: %s\n", in->num_frags && !in->has_moov ? "not told here: the initialization segment says" : "none");
  return ERR_OK;
}

static int not_served(const char *path, const struct media_source *m, struct diag *why) {
  char file[CLI_FAULT_FILE], text[512];
  cli_fault_file(file, path, m, why);
  diag_format(why, text, sizeof text);
  return cli_error(file, "cannot be served: %s", text);
}

static int inspect(const char *path, bool json, bool all, bool check) {
  struct input input;
  struct alloc_heap heap;
  struct inspector in = {.json = json, .all = all};
  struct tree_visitor v = {&in, on_enter, on_leave};
  struct index_file track;
  char text[512];
  int status = EXIT_DONE;
  if (!input_open(&input, path)) {
    input_close(&input);
    return EXIT_FAILED;
  }
  struct media_source *m = &input.media;
  path = input.subject;
  alloc_heap_init(&heap, (size_t)1 << 30);
  struct window win = {.src = &m->src, .mem = &heap.base};
  in.win = &win;
  in.media = m;
  in.samples.source_len = m->src.size;
  enum err e = m->src.size ? tree_walk(&win, &v, &in.diag) : diag_say(&in.diag, ERR_MISSING, "the file is empty");
  e = e ? e : in.diag.err;
  enum err unusable = index_load(&track, m, &(struct index_options){.cache_fd = -1, .no_digest = true, .rebuild = true}, &in.why);
  if (unusable == ERR_NO_MEMORY || (!e && (unusable == ERR_IO || unusable == ERR_STALE))) { // not what the file is like
    e = unusable;
    in.diag = in.why;
  }
  if (unusable)
    diag_say(&in.why, unusable, NULL);
  diag_format(&in.why, text, sizeof text);
  if (!json)
    text_tame(text, strlen(text)); // it may name a part of a folder
  if (e != ERR_NO_MEMORY) {
    enum err written = json ? write_json(&in, path, &track.ix, text) : print_summary(&in, track.ix.h, text);
    e = e ? e : written;
  }
  if (e || (check && unusable))
    fflush(stdout); // in front of the line that says so
  if (e) {
    diag_say(&in.diag, e, NULL);
    status = cli_error_diag(path, &in.diag);
  } else if (check && unusable) {
    status = not_served(path, m, &in.why);
  }
  index_free(&track);
  alloc_heap_free(&heap);
  input_close(&input);
  return status;
}

static const char options[] = "FILE is a file, a folder with init.mp4 and *.m4s (offsets count through its parts), or - for standard input.\n"
                              "Columns: offset, size, box and its fields. Offsets are exact bytes of the file.\n\n"
                              "  --json   everything as JSON: boxes, fragments with every sample (integers from 2^63 on are strings),\n"
                              "           protection (as moov has it), protected_by (which of senc, or PIFF's uuid, and saiz there are: all\n"
                              "           that a media segment tells), track (as it is served: usable, or why not)\n"
                              "  --all    text with every entry and every sample; JSON always has all\n"
                              "  --check  status 1 where serve and encrypt would refuse the file, after the line that says why. Without it\n"
                              "           status 0 means that the boxes and samples could be read, as of a protected file\n";

int cmd_inspect(int argc, char **argv) {
  enum { JSON, ALL, CHECK };
  static const struct cli_option longs[] = {{"json", 0, false}, {"all", 0, false}, {"check", 0, false}, {NULL, 0, false}};
  struct cli_args args = {.command = "inspect", .argc = argc, .argv = argv, .options = longs, .at = 1};
  const char *path = NULL;
  bool json = false, all = false, check = false;
  for (int o; (o = cli_arg(&args)) != ARG_END;) {
    if (o == ARG_HELP)
      return cli_help("inspect", options);
    if (o == ARG_WRONG)
      return EXIT_USAGE;
    if (o == ARG_OPERAND && path)
      return cli_usage("inspect", "takes one file");
    json |= o == JSON;
    all |= o == ALL;
    check |= o == CHECK;
    path = o == ARG_OPERAND ? args.value : path;
  }
  if (!path)
    return cli_usage("inspect", "needs a file");
  return inspect(path, json, all, check);
}
