// sluice encrypt: the plan that serve answers from, rendered from end to end.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "drm/drm.h"
#include "storage/sidecar.h"

// Source and output of a chunk stay in L2 together.
enum { CHUNK = 256 << 10, MAX_PSSH = 64 << 10 };

struct options {
  const char *in, *out;
  struct key_record key;
  uint8_t cenc_iv[CENC_WIDE_IV_LEN];
  bool has_scheme, has_kid, has_key, has_cenc_iv, has_iv_size, wide_iv;
  const char *iv_text;
  uint32_t drm;
  uint64_t segment_ms; // shortest segment, as `segment_target` of the server
};

static const char help[] =
    "  IN             a fragmented audio file, a folder with init.mp4 and *.m4s, or - for standard input\n"
    "  OUT            the protected file, or - for standard output\n"
    "  --scheme NAME  cenc (AES-CTR) or cbcs (AES-CBC)\n"
    "  --kid HEX      key id, 32 hex digits\n"
    "  --key HEX      content key, 32 hex digits; everyone on the machine sees arguments\n"
    "  --key-file FILE  the same from a file\n"
    "  --iv HEX       cbcs: the constant IV, 32 digits; cenc: the first sample's IV, 16 digits, then +1 per sample.\n"
    "                 Without it the IV is derived, which for cenc makes sure that no key stream is used twice\n"
    "  --iv-size N    cenc: bytes of an IV, 8 or 16 (8). With 16 the last 8 are 0, and --iv has 32 digits, the last 16 of them 0\n"
    "  --drm LIST     pssh boxes for the init segment: widevine,playready,fairplay,clearkey,common, all or none (none)\n"
    "  --segment SEC  shortest segment where the file has no sidx (2; 0 makes every fragment one)\n\n"
    "serve's bytes: KID and key as `sluice keys export` has them, for cbcs its IV as --iv, for cenc no --iv, --drm common\n"
    "(serve's default; else what in_band names), serve's segment_target as --segment and cenc_iv_size as --iv-size.\n"
    "docs/keys.md has the commands.\n";

static int parse_hex(uint8_t *out, size_t n, const char *name, const char *text) {
  if (hex_read(out, n, bytes_str(text)) != ERR_OK)
    return cli_usage("encrypt", "--%s needs %zu hex digits", name, 2 * n);
  return EXIT_DONE;
}

static int parse_segment(struct options *o, const char *text) {
  char *end;
  double sec = strtod(text, &end);
  if (*end || end == text || !(sec >= 0 && sec <= 3600))
    return cli_usage("encrypt", "--segment needs seconds, 0 to 3600");
  o->segment_ms = (uint64_t)(sec * 1000 + 0.5);
  return EXIT_DONE;
}

static int parse_iv_size(struct options *o, const char *text) {
  o->has_iv_size = true;
  o->wide_iv = strcmp(text, "16") == 0;
  return o->wide_iv || strcmp(text, "8") == 0 ? EXIT_DONE : cli_usage("encrypt", "--iv-size is 8 or 16, not '%s'", text);
}

// What --iv means depends on the scheme and --iv-size, which may stand behind it.
static int parse_iv(struct options *o) {
  if (o->key.scheme == SCHEME_CBCS) {
    if (o->has_iv_size)
      return cli_usage("encrypt", "--iv-size is for cenc: cbcs has one constant IV of 16 bytes and none for each sample");
    o->key.has_iv = o->iv_text != NULL;
    return o->iv_text ? parse_hex(o->key.iv, 16, "iv", o->iv_text) : EXIT_DONE;
  }
  if (!o->iv_text)
    return EXIT_DONE;
  size_t len = o->wide_iv ? CENC_WIDE_IV_LEN : CENC_IV_LEN;
  o->has_cenc_iv = true;
  if (hex_read(o->cenc_iv, len, bytes_str(o->iv_text)) != ERR_OK)
    return cli_usage("encrypt", "--iv needs %zu hex digits for cenc with --iv-size %zu", 2 * len, len);
  if (load_be64(o->cenc_iv + 8))
    return cli_usage("encrypt", "--iv: the last 16 of 32 digits are where blocks are counted from 0: they must be 0");
  return EXIT_DONE;
}

enum { SCHEME, KID, KEY, KEY_FILE, IV, IV_SIZE, DRM, SEGMENT };

static int parse_option(struct options *o, int which, const char *value) {
  switch (which) {
  case SCHEME:
    o->has_scheme = scheme_parse(&o->key.scheme, bytes_str(value)) == ERR_OK && o->key.scheme != SCHEME_CLEAR;
    return o->has_scheme ? EXIT_DONE : cli_usage("encrypt", "--scheme is cenc or cbcs");
  case KID:
    o->has_kid = true;
    return parse_hex(o->key.kid, 16, "kid", value);
  case KEY:
    o->has_key = true;
    return parse_hex(o->key.key, 16, "key", value);
  case KEY_FILE: {
    char line[CLI_SECRET];
    o->has_key = cli_secret_line(line, value);
    int status = o->has_key ? EXIT_DONE : EXIT_FAILED;
    if (o->has_key && hex_read(o->key.key, 16, bytes_str(line)) != ERR_OK)
      status = cli_error(value, "a key file holds one line: 32 hex digits");
    explicit_bzero(line, sizeof line);
    return status;
  }
  case IV:
    o->iv_text = value;
    return EXIT_DONE;
  case IV_SIZE:
    return parse_iv_size(o, value);
  case DRM:
    return drm_parse_list(&o->drm, bytes_str(value)) == ERR_OK
               ? EXIT_DONE
               : cli_usage("encrypt", "--drm: '%s' is not all, none or a list of widevine,playready,fairplay,clearkey,common", value);
  default:
    return parse_segment(o, value);
  }
}

// parse_args fills `o`; *status is set and false returned when there is nothing to do.
static bool parse_args(struct options *o, int argc, char **argv, int *status) {
  static const struct cli_option longs[] = {
      [SCHEME] = {"scheme", 0, true}, [KID] = {"kid", 0, true}, [KEY] = {"key", 0, true}, [KEY_FILE] = {"key-file", 0, true},
      [IV] = {"iv", 0, true}, [IV_SIZE] = {"iv-size", 0, true}, [DRM] = {"drm", 0, true}, [SEGMENT] = {"segment", 0, true},
      {NULL, 0, false},
  };
  struct cli_args args = {.command = "encrypt", .argc = argc, .argv = argv, .options = longs, .at = 1};
  int num = 0;
  *o = (struct options){.segment_ms = 2000};
  for (int c; (c = cli_arg(&args)) != ARG_END;) {
    *status = c == ARG_HELP ? cli_help("encrypt", help) : c == ARG_WRONG ? EXIT_USAGE : EXIT_DONE;
    if (c == ARG_HELP)
      return false;
    if (c == ARG_OPERAND)
      *(num++ ? &o->out : &o->in) = args.value;
    else if (c >= 0)
      *status = parse_option(o, c, args.value);
    if (*status)
      return false;
  }
  *status = EXIT_USAGE;
  if (num != 2)
    cli_usage("encrypt", "give one input and one output");
  else if (!o->has_scheme || !o->has_kid || !o->has_key)
    cli_usage("encrypt", "--scheme, --kid and --key (or --key-file) are needed");
  else if (!cli_out_spares(args, KEY_FILE, o->out))
    *status = EXIT_FAILED;
  else
    *status = parse_iv(o);
  return *status == EXIT_DONE;
}

struct job {
  const struct options *o;
  const struct aes_ops *ops;
  struct input input;
  struct index_file index;
  struct ix_segments segs;
  uint32_t *first_frag;
  struct protection prot;
  uint8_t pssh[MAX_PSSH];
  struct plan plan;
  struct output out;
  struct progress progress;
};

static void on_index(void *ctx, uint64_t done, uint64_t total) {
  struct job *j = (struct job *)ctx;
  if (j->progress.total != total)
    progress_start(&j->progress, "reading", total);
  progress_set(&j->progress, done);
}

static bool open_input(struct job *j) {
  struct diag d = {0};
  if (!input_open(&j->input, j->o->in))
    return false;
  // The digest is needed only where the IV comes from it; reading all of the file for it costs more than encrypting.
  struct index_options io = {.cache_fd = -1,
                             .no_digest = j->o->key.scheme == SCHEME_CBCS || j->o->has_cenc_iv,
                             .progress = {on_index, j}};
  enum err e = index_load(&j->index, &j->input.media, &io, &d);
  progress_end(&j->progress);
  if (e)
    input_error(&j->input, &d);
  return e == ERR_OK;
}

static bool make_plan(struct job *j) {
  struct diag d = {0};
  const struct ix_header *h = j->index.ix.h;
  uint64_t target = j->o->segment_ms * h->timescale / 1000;
  j->segs.num = ix_segment_count(&j->index.ix, target);
  j->first_frag = (uint32_t *)malloc(((size_t)j->segs.num + 1) * sizeof *j->first_frag);
  if (!j->first_frag) {
    cli_error(j->input.subject, "out of memory");
    return false;
  }
  ix_segment_fill(&j->index.ix, target, j->first_frag);
  j->segs.first_frag = j->first_frag;

  key_record_protection(&j->prot, &j->o->key, j->ops, h->identity.digest, h->track_id);
  if (j->o->has_cenc_iv)
    memcpy(j->prot.iv, j->o->cenc_iv, CENC_IV_LEN);
  j->prot.wide_iv = j->o->wide_iv;
  struct drm_settings set = {.systems = j->o->drm, .in_band = j->o->drm, .schemes = 1u << j->o->key.scheme};
  struct writer w = wr_of(j->pssh, sizeof j->pssh);
  drm_pssh(&w, &(struct drm_input){.key = &j->o->key, .set = &set});
  if (!wr_ok(&w)) {
    cli_error(j->input.subject, "the pssh boxes are too long");
    return false;
  }
  j->prot.pssh = bytes_of(j->pssh, w.n);
  if (plan_init(&j->plan, &j->index.ix, &j->segs, &j->prot, &d) != ERR_OK) {
    input_error(&j->input, &d);
    return false;
  }
  return true;
}

// next_chunk takes whole fragments up to CHUNK; a longer fragment is cut.
static uint64_t next_chunk(const struct plan *p, uint64_t at) {
  uint64_t media = (uint64_t)p->init_len + p->sidx_len, left = p->total_len - at;
  if (left <= CHUNK || at + CHUNK <= media)
    return left < CHUNK ? left : CHUNK;
  uint64_t stop = plan_frag_range(p, plan_frag_at(p, at + CHUNK)).off;
  return stop > at ? stop - at : CHUNK;
}

static bool render_all(struct job *j) {
  const struct plan *p = &j->plan;
  uint8_t *out = (uint8_t *)malloc(CHUNK), *src = NULL;
  size_t src_cap = 0;
  bool ok = out || cli_error(j->input.subject, "out of memory") == EXIT_DONE;
  progress_start(&j->progress, "encrypting", p->total_len);
  for (uint64_t at = 0; ok && at < p->total_len;) {
    struct plan_range r = {at, next_chunk(p, at)}, need = plan_source(p, r);
    if (need.len > src_cap) {
      free(src);
      src_cap = (size_t)need.len + CHUNK / 4;
      src = (uint8_t *)malloc(src_cap);
      if (!src) {
        cli_error(j->input.subject, "out of memory");
        ok = false;
        break;
      }
    }
    enum err e = need.len ? media_read(&j->input.media, need.off, src, (size_t)need.len) : ERR_OK;
    if (e) {
      cli_error(j->input.subject, "%s (at byte %" PRIu64 ")", err_text(e), need.off);
      ok = false;
      break;
    }
    plan_render(p, j->ops, r, bytes_of(src, (size_t)need.len), need.off, out);
    ok = output_write(&j->out, out, (size_t)r.len);
    at += r.len;
    progress_set(&j->progress, at);
  }
  progress_end(&j->progress);
  if (ok && !media_unchanged(&j->input.media)) {
    cli_error(j->input.subject, "the file changed while it was being read");
    ok = false;
  }
  free(out);
  free(src);
  return ok;
}

static bool run(struct job *j) {
  const struct input *in = &j->input;
  if (!open_input(j) || !make_plan(j) || !output_open(&j->out, j->o->out, in->has_stat ? &in->stat : NULL))
    return false;
  if (render_all(j))
    return output_commit(&j->out);
  output_drop(&j->out);
  return false;
}

int cmd_encrypt(int argc, char **argv) {
  struct options o;
  int status;
  if (!parse_args(&o, argc, argv, &status))
    return status;
  struct job *j = (struct job *)calloc(1, sizeof *j);
  if (!j)
    return cli_error("encrypt", "out of memory");
  j->o = &o;
  j->input.spool = j->input.media.fd = j->input.media.dir_fd = -1;
  j->out.fd = -1;
  bool ok = (j->ops = cli_kernel()) != NULL && run(j);
  index_free(&j->index);
  input_close(&j->input);
  free(j->first_frag);
  aes_key_wipe(&j->prot.key);
  key_record_wipe(&o.key);
  free(j);
  return ok ? EXIT_DONE : EXIT_FAILED;
}
