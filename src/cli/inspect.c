// sluice inspect FILE [--json] [--all] [--check]: what is in a file, with exact offsets.
#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/json_lost.h"
#include "cli/json_write.h"
#include "cli/output.h"
#include "base/text.h"
#include "drm/markup.h"
#include "mp4/describe.h"
#include "mp4/samples.h"
#include "mp4/tree.h"

enum { MAX_PAYLOAD = 1 << 26, TEXT_ENTRIES = 4, TEXT_HEX = 32, DEPTH = LIMIT_DEPTH + 1, NESTING = 4 };

struct inspector {
  struct window *win;
  const struct media_source *media;
  bool json, all;
  struct samples_file samples;
  uint32_t num_frags, num_in_frag;
  uint64_t num_samples;
  uint8_t iv_size;
  json_t *protection;
  int nesting;                // of lists and items in the fields of the current box
  uint64_t item[NESTING + 1]; // text: number of the current item by nesting
  bool is_list[NESTING + 1], any[NESTING + 1]; // JSON: the same, and whether something stands in it
  bool children[DEPTH + 1];   // JSON: of the open box by depth, whether one has been written
  uint32_t open;              // JSON: boxes that have begun and not ended
  uint64_t num_boxes;         // that the first walk has come to
  uint32_t scheme;
  bool has_moov, has_senc, has_saiz;
  struct diag diag;
};

static void type_text(char out[5], uint32_t type) {
  for (int i = 0; i < 4; i++) {
    uint8_t c = (uint8_t)(type >> (24 - 8 * i));
    out[i] = c == 0xa9 ? '@' : isprint(c) ? (char)c : '?';
  }
  out[4] = 0;
}

static json_t *text_json(struct bytes b) {
  char text[256];
  size_t n = 0;
  for (; n < b.n && n < sizeof text - 1; n++)
    text[n] = b.p[n] >= 0x20 && b.p[n] < 0x7f ? (char)b.p[n] : '?';
  return json_stringn(text, n);
}

// A name of the file system is arbitrary bytes, JSON is UTF-8 (RFC 8259 section 8.1): what is malformed becomes '?'.
static json_t *name_json(const char *name) {
  size_t n = strlen(name);
  char *text = malloc(n + 1);
  if (!text) {
    json_lost_note();
    return NULL;
  }
  for (struct bytes rest = bytes_str(name); rest.n;) {
    const uint8_t *p = rest.p;
    bool bad = utf8_next(&rest) == 0xfffd && rest.p == p + 1;
    for (; p < rest.p; p++)
      text[(size_t)(p - (const uint8_t *)name)] = bad ? '?' : (char)*p;
  }
  json_t *j = json_stringn(text, n);
  free(text);
  return j;
}

static json_t *hex_json(struct bytes b) {
  char *text = malloc(2 * b.n + 1);
  if (!text) {
    json_lost_note();
    return NULL;
  }
  struct writer w = wr_of(text, 2 * b.n + 1);
  hex_write(&w, b);
  json_t *j = json_stringn(text, w.n);
  free(text);
  return j;
}

// JSON numbers of this library end at 2^63.
static json_t *uint_json(uint64_t v) {
  char text[24];
  snprintf(text, sizeof text, "%" PRIu64, v);
  return v <= INT64_MAX ? json_integer((json_int_t)v) : json_string(text);
}

static json_t *value_json(const struct field *f) {
  switch (f->kind) {
  case FIELD_INT: return json_integer(f->i);
  case FIELD_TEXT: return text_json(f->raw);
  case FIELD_HEX: return hex_json(f->raw);
  case FIELD_UINT:
  case FIELD_FLAGS: return uint_json(f->u);
  case FIELD_LIST:
  case FIELD_ITEM:
  case FIELD_ITEM_END:
  case FIELD_LIST_END:
  case FIELD_KIND_COUNT: break;
  }
  return json_null();
}

// What stands within a box, list or item is told apart by commas.
static void write_comma(struct inspector *in) {
  if (in->any[in->nesting])
    fputs(", ", stdout);
  in->any[in->nesting] = true;
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
  char text[2 * 4096 + 1];
  struct writer w = wr_of(text, sizeof text);
  max = max < 4096 ? max : 4096;
  hex_write(&w, bytes_of(b.p, b.n < max ? b.n : max));
  printf("%.*s", (int)w.n, text);
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

static bool named(const struct field *f, const char *name) {
  return f->name_len == strlen(name) && !memcmp(f->name, name, f->name_len);
}

// What tenc and schm say is kept for the summary.
static void note_protection(struct inspector *in, uint32_t type, const struct field *f) {
  if (type == FOURCC('s', 'c', 'h', 'm') && named(f, "scheme") && f->raw.n == 4)
    in->scheme = load_be32(f->raw.p);
  if (type != FOURCC('t', 'e', 'n', 'c'))
    return;
  if (named(f, "version")) {
    char scheme[5];
    json_t *p = json_object();
    type_text(scheme, in->scheme);
    json_object_set_new(p, "scheme", json_string(scheme));
    json_array_append_new(in->protection, p);
  }
  json_t *p = json_array_get(in->protection, json_array_size(in->protection) - 1);
  char name[64];
  snprintf(name, sizeof name, "%.*s", (int)f->name_len, f->name);
  if (!named(f, "version") && !named(f, "flags"))
    json_object_set_new(p, name, value_json(f));
}

// For reading senc.
static void note_iv_size(struct inspector *in, uint32_t type, const struct field *f) {
  if (type == FOURCC('t', 'e', 'n', 'c') && named(f, "per_sample_iv_size"))
    in->iv_size = (uint8_t)f->u;
}

struct field_context {
  struct inspector *in;
  uint32_t type;
};

static void on_field(void *ctx, const struct field *f) {
  struct field_context *c = ctx;
  note_protection(c->in, c->type, f);
  note_iv_size(c->in, c->type, f);
  if (!c->in->json)
    field_text(c->in, f);
}

static void on_field_again(void *ctx, const struct field *f) {
  struct field_context *c = ctx;
  note_iv_size(c->in, c->type, f);
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
  samples_trex(&in->samples, bytes_of(p, (size_t)b->len));
  return ERR_OK;
}

static enum err visit_moof(struct inspector *in, const struct box *b, void (*sample)(void *ctx, const struct sample_info *s)) {
  const uint8_t *p;
  uint32_t part = media_part_at(in->media->part_ends, in->media->num_parts, b->pos);
  uint64_t part_start = part ? in->media->part_ends[part - 1] : 0;
  struct samples_visitor v = {in, sample};
  enum err e = b->len > MAX_PAYLOAD ? ERR_LIMIT : window_get(in->win, &p, b->pos, (size_t)b->len);
  if (e)
    return diag_set(&in->diag, e, b->pos, NULL);
  return samples_of_moof(&v, &in->samples, bytes_of(p, (size_t)b->len), b->pos, part_start, &in->diag);
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
    return diag_set(&in->diag, ERR_STALE, b->pos, NULL);
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

// Prints the document; `head` is all but boxes and fragments. What the first walk met was told; these end there too, and tell what only
// they met.
static enum err write_json(struct inspector *in, const json_t *head) {
  struct tree_visitor boxes = {in, box_enter, box_leave}, fragments = {in, fragment_enter, on_leave};
  char *text = json_dumps(head, JSON_INDENT(1) | JSON_PRESERVE_ORDER); // all of it before the first byte: memory may end in the middle
  if (!text || json_lost()) {
    free(text);
    return ERR_NO_MEMORY;
  }
  fwrite(text, 1, strlen(text) - strlen("\n}"), stdout);
  fputs(",\n \"boxes\": [", stdout);
  free(text);
  enum err told = in->diag.err;
  in->iv_size = 0;
  enum err e = tree_walk(in->win, &boxes, &in->diag);
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

// The track as the index sees it, or why there is none.
static json_t *track_json(struct media_source *m, struct diag *diag) {
  struct index_file f;
  char text[512];
  enum err e = index_load(&f, m, &(struct index_options){.cache_fd = -1, .no_digest = true, .rebuild = true}, diag);
  if (e == ERR_NO_MEMORY)
    json_lost_note();
  if (e) {
    diag_format(diag, text, sizeof text);
    return json_pack("{s:b, s:s, s:o}", "usable", 0, "error", err_name(e), "why", name_json(text));
  }
  const struct ix_header *h = f.ix.h;
  char format[5];
  type_text(format, h->format);
  json_t *j = json_pack("{s:b, s:s, s:s, s:I, s:I, s:I, s:s, s:I, s:I, s:o, s:o, s:I, s:I, s:I}", "usable", 1, "codecs", h->codecs,
                        "format", format, "sample_rate", (json_int_t)h->sample_rate, "channels", (json_int_t)h->channels,
                        "timescale", (json_int_t)h->timescale, "language", h->language, "fragments", (json_int_t)h->num_frags,
                        "samples", (json_int_t)h->num_samples, "start", uint_json(h->start_ticks), "duration",
                        uint_json(h->duration_ticks), "avg_bitrate", (json_int_t)h->avg_bitrate, "max_bitrate",
                        (json_int_t)h->max_bitrate, "segments_of_2s",
                        (json_int_t)ix_segment_count(&f.ix, 2 * (uint64_t)h->timescale));
  index_free(&f);
  return j;
}

static void print_summary(const struct inspector *in, json_t *track) {
  printf("\n");
  if (json_is_true(json_object_get(track, "usable"))) {
    double scale = (double)json_integer_value(json_object_get(track, "timescale"));
    char channels[40] = "channels by the renderer";
    if (json_integer_value(json_object_get(track, "channels")))
      snprintf(channels, sizeof channels, "%" JSON_INTEGER_FORMAT " channels", json_integer_value(json_object_get(track, "channels")));
    printf("track: %s, %" JSON_INTEGER_FORMAT " Hz, %s, language %s, %.3f s, %" JSON_INTEGER_FORMAT
           " b/s (at most %" JSON_INTEGER_FORMAT ")\n",
           json_string_value(json_object_get(track, "codecs")), json_integer_value(json_object_get(track, "sample_rate")),
           channels, json_string_value(json_object_get(track, "language")),
           (double)json_integer_value(json_object_get(track, "duration")) / scale,
           json_integer_value(json_object_get(track, "avg_bitrate")), json_integer_value(json_object_get(track, "max_bitrate")));
  } else {
    char why[512];
    snprintf(why, sizeof why, "%s", json_string_value(json_object_get(track, "why")));
    text_tame(why, strlen(why)); // it may name a part of a folder
    printf("not to be served: %s\n", why);
  }
  printf("fragments: %u with %" PRIu64 " samples\n", in->num_frags, in->num_samples);
  size_t i;
  json_t *p;
  json_array_foreach(in->protection, i, p) {
    const char *iv = json_string_value(json_object_get(p, "constant_iv"));
    printf("protection: %s, KID %s, IV size %" JSON_INTEGER_FORMAT "%s%s, pattern %" JSON_INTEGER_FORMAT ":%" JSON_INTEGER_FORMAT "\n",
           json_string_value(json_object_get(p, "scheme")), json_string_value(json_object_get(p, "kid")),
           json_integer_value(json_object_get(p, "per_sample_iv_size")), iv ? ", constant IV " : "", iv ? iv : "",
           json_integer_value(json_object_get(p, "crypt_byte_block")), json_integer_value(json_object_get(p, "skip_byte_block")));
  }
  if (json_array_size(in->protection))
    return;
  // A media segment alone does not say everything: schm and tenc stand in moov.
  if (in->has_senc || in->has_saiz)
    printf("protection: yes (%s); scheme and KID stand in the initialization segment\n",
           !in->has_saiz ? "senc" : !in->has_senc ? "saiz" : "senc, saiz");
  else
    printf("protection: %s\n", in->num_frags && !in->has_moov ? "not told here: the initialization segment says" : "none");
}

// What the fragments say of protection, also without the moov.
static json_t *marks_json(const struct inspector *in) {
  json_t *marks = json_array();
  if (in->has_senc)
    json_array_append_new(marks, json_string("senc"));
  if (in->has_saiz)
    json_array_append_new(marks, json_string("saiz"));
  return marks;
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
  int status = EXIT_DONE;
  if (!input_open(&input, path)) {
    input_close(&input);
    return EXIT_FAILED;
  }
  struct media_source *m = &input.media;
  path = input.subject;
  json_lost_watch();
  in.protection = json_array();
  alloc_heap_init(&heap, (size_t)1 << 30);
  struct window win = {.src = &m->src, .mem = &heap.base};
  in.win = &win;
  in.media = m;
  in.samples.source_len = m->src.size;
  enum err e = m->src.size ? tree_walk(&win, &v, &in.diag) : diag_say(&in.diag, ERR_MISSING, "the file is empty");
  struct diag why = {0};
  json_t *track = track_json(m, &why), *out = NULL;
  if (!e && (why.err == ERR_IO || why.err == ERR_STALE)) { // not what the file is like
    e = why.err;
    in.diag = why;
  }
  bool short_of_memory = json_lost() || e == ERR_NO_MEMORY;
  if (json && !short_of_memory) {
    out = json_pack("{s:o, s:I, s:O, s:O, s:o}", "file", name_json(path), "size", (json_int_t)m->id.size, "track", track,
                    "protection", in.protection, "protected_by", marks_json(&in));
    enum err written = write_json(&in, out);
    short_of_memory = written == ERR_NO_MEMORY;
    e = e ? e : written;
  } else if (!short_of_memory) {
    print_summary(&in, track);
  }
  if (short_of_memory || e) {
    fflush(stdout);
    status = short_of_memory ? cli_error(path, "out of memory") : cli_error_diag(path, &in.diag);
  } else if (check && why.err) {
    fflush(stdout);
    status = not_served(path, m, &why);
  }
  json_decref(out);
  json_decref(track);
  json_decref(in.protection);
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
