// sluice keys: content keys and the master secret as files. Secrets come from files and go to files, never through
// arguments, the environment or a terminal.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"
#include "keys/cpix.h"
#include "keys/epochs.h"
#include "keys/keysfile_add.h"
#include "keys/wrap.h"
#include "server/secret_file.h"

enum { MEMORY = 512 << 20, WHY = 300 };

static const char options[] =
    "  export ASSET       write one asset's keys and DRM data as a CPIX document (keys in the clear, mode 0600)\n"
    "    --out FILE         the document, or - for standard output; a pipe or a device is written to (not a terminal)\n"
    "    --epoch N          of this epoch (1; after a rotation /status of the admin listener has how many there were)\n"
    "    --scheme NAME      cenc or cbcs only (both)\n"
    "    --cpix VERSION     2.3 or 2.4 (2.3)\n"
    "    -c, --keys, --state-dir   where the keys come from, as for serve\n"
    "  import DOCUMENT    add a CPIX document's keys to a keys file\n"
    "    --keys FILE        the keys file; made when it is not there\n"
    "    --asset NAME       the asset (the document's contentId)\n"
    "    --epoch N          for this epoch (1)\n"
    "    --scheme NAME      for keys whose scheme the document does not say\n"
    "  rewrap SECRET      wrap the master secret, or wrap it anew; derived keys stay the same\n"
    "    --kek FILE         the key that it is wrapped with now; none when it is not\n"
    "    --new-kek FILE     the key to wrap it with: 32 bytes, or 64 hex digits\n"
    "    --plain            take the wrapping off instead\n";

struct wish {
  const char *what, *file, *out, *keys, *asset, *kek, *new_kek;
  uint32_t epoch;
  enum scheme scheme;
  bool has_scheme, v24, plain, help;
  unsigned given; // options, by their place in the table
  const char *config;
  struct config_flags flags;
};

// The line of a byte of a document.
static unsigned line_of(struct bytes text, uint64_t at) {
  unsigned line = 1;
  for (uint64_t i = 0; i < at && i < text.n; i++)
    line += text.p[i] == '\n';
  return line;
}

// Both labels of both schemes, as far as there are keys.
static uint32_t collect(struct key_record *out, const struct keyring *k, const struct wish *w) {
  static const struct bytes labels[] = {{NULL, 0}, BYTES_LIT("lossless")};
  const struct drm_settings *set = keys_drm(k->set, bytes_str(w->file));
  uint32_t num = 0;
  for (enum scheme s = SCHEME_CENC; s <= SCHEME_CBCS; s++)
    for (int i = 0; i < (set->per_tier ? 2 : 1); i++) {
      struct key_query q = {.asset = bytes_str(w->file), .epoch = w->epoch, .scheme = s, .label = labels[i]};
      bool wanted = (!w->has_scheme || w->scheme == s) && set->schemes >> s & 1;
      num += wanted && !keys_lookup(&out[num], k->set, &q);
    }
  return num;
}

// Names that no asset can have are refused, as rotate does: their keys would never be asked for.
static int check_asset(const char *name) {
  struct diag diag = {0};
  size_t n = strlen(name);
  if (!n || name[n - 1] == '/')
    return cli_error(n ? name : "keys", "give one asset's name");
  return epochs_scope_served(bytes_str(name), &diag) ? cli_error_diag(name, &diag) : EXIT_DONE;
}

static bool write_to(int fd, struct bytes b) {
  for (ssize_t n; b.n; b.p += n, b.n -= (size_t)n)
    if ((n = write(fd, b.p, b.n)) < 0 && errno == EINTR)
      n = 0;
    else if (n <= 0)
      return false;
  return true;
}

// Who reads "cannot write" goes on with what was there, or throws away what the new file needs.
static bool written(const char *path, enum secret_written w) {
  if (w == SECRET_UNSYNCED)
    cli_error(path, "it is written and in place, but its folder cannot be synced: %s: after a power cut it may be what it was before", strerror(errno));
  else if (w == SECRET_FAILED)
    cli_error_write(path, "cannot write", errno);
  return w == SECRET_WRITTEN;
}

static bool replace(const char *path, struct bytes text, bool fresh) {
  char *left;
  enum secret_written how = secret_write(path, text, fresh, &left);
  bool ok = written(path, how);
  if (left)
    cli_error(left, "%s%s, or a part of it, stays in this file and cannot be removed: it holds secrets, remove it",
              ok ? "what was asked for is done, but a copy of " : "a copy of ", path);
  ok = ok && !left;
  free(left);
  return ok;
}

// Whether --out would take the place of what keys come from, or of a server's state, used here or not: of the master secret there may be
// no other copy.
static bool out_is_source(const struct wish *w, const struct config *c, const struct keyring *k) {
  char secret[PATH_MAX], journal[PATH_MAX];
  const char *const read[] = {k->secret_path, c->keys, w->config, secret, journal};
  bool is = false;
  if (!strcmp(w->out, "-"))
    return false;
  snprintf(secret, sizeof secret, "%s/" STATE_SECRET, c->state_dir);
  snprintf(journal, sizeof journal, "%s/" STATE_JOURNAL, c->state_dir);
  for (size_t i = 0; i < sizeof read / sizeof *read; i++)
    is |= read[i] && cli_same_file(w->out, read[i]);
  for (unsigned i = 0; i < k->num_files; i++)
    is |= cli_same_file(w->out, k->files[i]);
  return is;
}

static int write_export(const struct wish *w, struct bytes doc, uint32_t num) {
  struct stat st;
  bool dash = !strcmp(w->out, "-");
  // A pipe or a device is written to as it is: nothing can take its place.
  bool file = !dash && (stat(w->out, &st) || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)), ok = false;
  const char *name = dash ? "standard output" : w->out;
  int fd = dash ? STDOUT_FILENO : file ? -1 : open(w->out, O_WRONLY | O_CLOEXEC | O_NOCTTY);
  if (fd >= 0 && isatty(fd))
    cli_error(name, "keys are not written to a terminal");
  else
    ok = file ? replace(w->out, doc, false) : written(name, fd >= 0 && write_to(fd, doc) ? SECRET_WRITTEN : SECRET_FAILED);
  if (fd >= 0 && !dash)
    close(fd);
  if (!ok)
    return EXIT_FAILED;
  char mode[sizeof " (mode 0600)"] = "";
  if (file && !stat(w->out, &st)) // that of a file that was there is kept, without what others could do
    snprintf(mode, sizeof mode, " (mode %04o)", (unsigned)st.st_mode & 0777);
  cli_line("%s: %u content %s of epoch %u IN THE CLEAR%s: encrypt the file before it travels, delete it after", name, num,
          num == 1 ? "key" : "keys", w->epoch, mode);
  return EXIT_DONE;
}

// Elsewhere than the server's state folder there is no secret, and export makes none.
static int no_key(const struct wish *w, const struct config *c) {
  char secret[PATH_MAX];
  snprintf(secret, sizeof secret, "%s/" STATE_SECRET, c->state_dir);
  if (!access(secret, F_OK) || *c->keys)
    return cli_error(w->file, "there is no key of epoch %u", w->epoch);
  return cli_error(secret, "there is no secret to derive keys from: --state-dir, --keys or -c say where the server's are");
}

static int export_keys(struct wish *w) {
  if (check_asset(w->file) != EXIT_DONE)
    return EXIT_FAILED;
  if (!strcmp(w->out, "-") && isatty(STDOUT_FILENO))
    return cli_error("standard output", "keys are not written to a terminal");

  struct config_error error;
  struct secret_alloc mem;
  config_flag_add(&w->flags, OPTION_media, "."); // not used here, but a configuration has one
  struct config *c = config_load(w->config, &w->flags, &error);
  struct keyring *k = c ? keyring_load(c, LACKING_IGNORED, &error) : NULL;
  if (!k) {
    config_free(c);
    cli_line("%s", error.text);
    return EXIT_FAILED;
  }
  secret_alloc_init(&mem, MEMORY);
  struct key_record *records = mem.base.get(&mem.base, 4 * sizeof *records);
  uint32_t num = records ? collect(records, k, w) : 0;
  const struct drm_settings *set = keys_drm(k->set, bytes_str(w->file));
  struct writer doc = wr_of(NULL, 0);
  int status = EXIT_DONE;
  cpix_export(&doc, records, num, set, w->v24);
  uint8_t *text = num ? mem.base.get(&mem.base, doc.n) : NULL;
  if (out_is_source(w, c, k))
    status = cli_error(w->out, "keys come from this file, or it is of a server's state: --out has to name another");
  else if (records && !num)
    status = no_key(w, c);
  else if (!text)
    status = cli_error(w->file, "out of memory");
  if (status == EXIT_DONE) {
    doc = wr_of(text, doc.n);
    cpix_export(&doc, records, num, set, w->v24);
    status = write_export(w, bytes_of(text, doc.n), num);
  }
  secret_alloc_free(&mem);
  keyring_put(k);
  config_free(c);
  return status;
}

// The new text must read as the old one with the records more.
static int check_merged(struct secret_alloc *mem, const struct wish *w, struct bytes old, struct bytes text, uint32_t num) {
  struct keyset *before = NULL, *after = NULL;
  struct keys_info was = {0}, is = {0};
  struct diag diag = {0};
  if (keys_parse(&mem->base, &before, &was, old, &diag) || keys_parse(&mem->base, &after, &is, text, &diag))
    return cli_error_diag(w->keys, &diag);
  return is.num_records == was.num_records + num ? EXIT_DONE : cli_error(w->keys, "the records cannot be added to this file");
}

static int import_into(struct secret_alloc *mem, const struct wish *w, const struct key_record *records, uint32_t num) {
  struct bytes old = {0};
  struct diag diag = {0};
  bool there = secret_read(mem, &old, w->keys, KEYS_MAX_FILE);
  if (!there && errno != ENOENT)
    return cli_error(w->keys, "%s", secret_why(errno));
  struct writer text = wr_of(NULL, 0);
  if (keysfile_add(&text, old, records, num, &diag))
    return cli_error_diag(w->keys, &diag);
  uint8_t *p = mem->base.get(&mem->base, text.n);
  if (!p)
    return cli_error(w->keys, "out of memory");
  text = wr_of(p, text.n);
  if (keysfile_add(&text, old, records, num, &diag))
    return cli_error_diag(w->keys, &diag);
  int status = check_merged(mem, w, old, bytes_of(p, text.n), num);
  if (status == EXIT_DONE && !replace(w->keys, bytes_of(p, text.n), !there))
    status = EXIT_FAILED;
  if (status == EXIT_DONE)
    cli_line("%s: %u %s added for epoch %u; SIGHUP makes a running server read them", w->keys, num, num == 1 ? "record" : "records", w->epoch);
  return status;
}

// Whom a record of the document is for, where --asset does not say.
static int check_content(const struct wish *w, struct bytes content) {
  struct diag diag = {0};
  if (!content.n || content.p[content.n - 1] == '/')
    return cli_error(w->file, "%s: --asset NAME says whose keys they are", content.n ? "its contentId is no asset, but a prefix" : "it names no content");
  return epochs_scope_served(content, &diag) ? cli_error(w->file, "its contentId: %s: --asset NAME says whose keys they are", diag.what) : EXIT_DONE;
}

static int import_keys(struct wish *w) {
  if (w->asset && check_asset(w->asset) != EXIT_DONE)
    return EXIT_FAILED;
  struct secret_alloc mem;
  struct bytes doc;
  struct diag diag = {0};
  uint32_t num = CPIX_MAX_KEYS;
  secret_alloc_init(&mem, MEMORY);
  struct key_record *records = mem.base.get(&mem.base, num * sizeof *records);
  int status = EXIT_FAILED;
  if (!records) {
    cli_error(w->file, "out of memory");
  } else if (!secret_read(&mem, &doc, w->file, CPIX_MAX_DOC)) {
    cli_error(w->file, "%s", secret_why(errno));
  } else if (cpix_import(&mem.base, records, &num, doc, w->epoch, w->has_scheme ? w->scheme : SCHEME_CLEAR, &diag)) {
    char why[WHY];
    diag_format(&diag, why, sizeof why);
    if (diag.nowhere)
      cli_error(w->file, "%s", why);
    else
      cli_line("%s:%u: %s", w->file, line_of(doc, diag.at), why);
  } else {
    status = EXIT_DONE;
    for (uint32_t i = 0; i < num && status == EXIT_DONE; i++) {
      records[i].asset = w->asset ? bytes_str(w->asset) : records[i].asset;
      status = w->asset ? EXIT_DONE : check_content(w, records[i].asset);
    }
    status = status == EXIT_DONE ? import_into(&mem, w, records, num) : status;
  }
  secret_alloc_free(&mem);
  return status;
}

static bool read_kek(struct secret_alloc *mem, uint8_t **kek, const char *path) {
  struct bytes text;
  struct diag diag = {0};
  *kek = mem->base.get(&mem->base, KEK_BYTES);
  if (!*kek || !secret_read(mem, &text, path, KEK_MAX_FILE)) {
    cli_error(path, "cannot read the key encryption key: %s", secret_why(errno));
    return false;
  }
  if (!kek_read(*kek, text, &diag))
    return true;
  cli_error_diag(path, &diag);
  return false;
}

// The secret as it is, and the file with it; false: said why.
static bool read_plain(struct secret_alloc *mem, const struct wish *w, struct bytes *secret) {
  struct diag diag = {0};
  struct bytes file;
  uint8_t *kek, *out = mem->base.get(&mem->base, KEYS_MAX_SECRET);
  size_t n = 0;
  if (!out || !secret_read(mem, &file, w->file, WRAPPED_MAX_FILE)) {
    cli_error(w->file, "cannot read the secret: %s", secret_why(errno));
    return false;
  }
  *secret = file;
  if (secret_is_wrapped(file) != (w->kek != NULL)) {
    cli_error(w->file, w->kek ? "the secret is not wrapped: leave --kek out" : "the secret is wrapped: --kek FILE says with what");
    return false;
  }
  if (!w->kek && file.n >= KEYS_MIN_SECRET && file.n <= KEYS_MAX_SECRET)
    return true;
  if (!w->kek) {
    cli_error(w->file, "the master secret has %zu bytes: it must have %d to %d", file.n, KEYS_MIN_SECRET, KEYS_MAX_SECRET);
    return false;
  }
  if (!read_kek(mem, &kek, w->kek))
    return false;
  if (secret_unwrap(out, &n, file, kek, &diag)) {
    cli_error_diag(w->file, &diag);
    return false;
  }
  *secret = bytes_of(out, n);
  return true;
}

static int rewrap(struct wish *w) {
  struct secret_alloc mem;
  struct diag diag = {0};
  struct bytes secret, text;
  uint8_t *kek = NULL, *again = NULL, line[WRAPPED_MAX_FILE];
  size_t n = 0;
  struct writer out = wr_of(line, sizeof line);
  int status = EXIT_FAILED;
  if (w->new_kek && cli_same_file(w->file, w->new_kek)) // it is replaced: what is wrapped with it could never be opened
    return cli_error(w->new_kek, "the secret cannot be wrapped with its own file");
  secret_alloc_init(&mem, 1 << 20);
  bool ok = read_plain(&mem, w, &secret) && (w->plain || read_kek(&mem, &kek, w->new_kek));
  text = ok ? secret : (struct bytes){0};
  if (ok && !w->plain) {
    // Before anything is replaced, what is to be written is read back.
    again = mem.base.get(&mem.base, KEYS_MAX_SECRET);
    enum err e = again ? secret_wrap(&out, secret, kek, &diag) : diag_say(&diag, ERR_NO_MEMORY, "out of memory");
    if (!e)
      e = secret_unwrap(again, &n, bytes_of(line, out.n), kek, &diag);
    ok = !e && n == secret.n && keys_equal(again, secret.p, n);
    text = bytes_of(line, out.n);
    if (!ok)
      cli_error_diag(w->file, &diag);
  }
  if (ok && replace(w->file, text, false))
    status = EXIT_DONE;
  if (status == EXIT_DONE)
    cli_line("%s: %s", w->file, w->plain ? "the master secret is NOT WRAPPED now" : "the master secret is wrapped; derived keys are as before");
  secret_alloc_free(&mem);
  return status;
}

static int parse_number(uint32_t *out, const char *name, const char *text) {
  uint64_t v;
  if (parse_u64(&v, bytes_str(text)) || !v || v > INT32_MAX)
    return cli_usage("keys", "%s needs a number from 1 to %d", name, INT32_MAX);
  *out = (uint32_t)v;
  return EXIT_DONE;
}

enum { PLAIN, KEYS, STATE_DIR, OUT, ASSET, KEK, NEW_KEK, CONFIG, EPOCH, SCHEME, CPIX };
static const struct cli_option longs[] = {{"plain", 0, false}, {"keys", 0, true},    {"state-dir", 0, true}, {"out", 0, true},
                                          {"asset", 0, true},  {"kek", 0, true},     {"new-kek", 0, true},   {"config", 'c', true},
                                          {"epoch", 0, true},  {"scheme", 0, true},  {"cpix", 0, true},      {NULL, 0, false}};

// What would be passed over is wrong usage: who gave it would believe that it holds.
static int check_options(const struct wish *w) {
  static const struct {
    const char *what;
    unsigned takes;
  } rows[] = {{"export", 1u << KEYS | 1u << STATE_DIR | 1u << OUT | 1u << CONFIG | 1u << EPOCH | 1u << SCHEME | 1u << CPIX},
              {"import", 1u << KEYS | 1u << ASSET | 1u << EPOCH | 1u << SCHEME},
              {"rewrap", 1u << PLAIN | 1u << KEK | 1u << NEW_KEK}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    unsigned other = w->what && !strcmp(w->what, rows[i].what) ? w->given & ~rows[i].takes : 0;
    if (other)
      return cli_usage("keys", "--%s is not for %s", longs[__builtin_ctz(other)].name, w->what);
  }
  return EXIT_DONE;
}

static int parse(struct wish *w, int argc, char **argv) {
  struct cli_args args = {.command = "keys", .argc = argc, .argv = argv, .options = longs, .at = 1};
  const char *state_dir = NULL, **const texts[] = {[KEYS] = &w->keys,       [STATE_DIR] = &state_dir, [OUT] = &w->out,      [ASSET] = &w->asset,
                                                   [KEK] = &w->kek, [NEW_KEK] = &w->new_kek,  [CONFIG] = &w->config};
  for (int o; (o = cli_arg(&args)) != ARG_END;) {
    int status = o == ARG_WRONG ? EXIT_USAGE : EXIT_DONE;
    w->help |= o == ARG_HELP;
    w->plain |= o == PLAIN;
    w->given |= o >= 0 ? 1u << o : 0;
    if (o >= KEYS && o <= CONFIG)
      *texts[o] = args.value;
    if (o == EPOCH)
      status = parse_number(&w->epoch, "--epoch", args.value);
    if (o == SCHEME && !(w->has_scheme = !scheme_parse(&w->scheme, bytes_str(args.value)) && w->scheme != SCHEME_CLEAR))
      status = cli_usage("keys", "--scheme is cenc or cbcs");
    if (o == CPIX && !(w->v24 = !strcmp(args.value, "2.4")) && strcmp(args.value, "2.3") != 0)
      status = cli_usage("keys", "--cpix is 2.3 or 2.4");
    if (o == ARG_OPERAND && w->file)
      status = cli_usage("keys", "unexpected argument '%s'", args.value);
    if (o == ARG_OPERAND)
      *(w->what ? &w->file : &w->what) = args.value;
    if (status != EXIT_DONE || w->help)
      return status;
  }
  config_flag_add(&w->flags, OPTION_keys, w->keys);
  config_flag_add(&w->flags, OPTION_state_dir, state_dir);
  return check_options(w);
}

int cmd_keys(int argc, char **argv) {
  struct wish w = {.epoch = 1};
  int status = parse(&w, argc, argv);
  if (status != EXIT_DONE)
    return status;
  if (w.help)
    return cli_help("keys", options);
  prctl(PR_SET_DUMPABLE, 0); // no core image, and nobody of the same user looks in
  if (w.what && w.file && !strcmp(w.what, "export"))
    return w.out ? export_keys(&w) : cli_usage("keys", "export needs --out FILE");
  if (w.what && w.file && !strcmp(w.what, "import"))
    return w.keys ? import_keys(&w) : cli_usage("keys", "import needs --keys FILE");
  if (w.what && w.file && !strcmp(w.what, "rewrap"))
    return w.plain != (w.new_kek != NULL) ? rewrap(&w) : cli_usage("keys", "rewrap needs one of --new-kek FILE and --plain");
  return cli_usage("keys", "give one of export ASSET, import DOCUMENT, rewrap SECRET");
}
