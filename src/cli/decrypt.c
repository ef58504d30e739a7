// sluice decrypt: a clear file with the same samples, from ours or from other packagers' files.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/text.h"
#include "cenc/unprotect.h"
#include "cli/cli.h"
#include "cli/output.h"
#include "storage/sidecar.h"

enum { MAX_KEYS = 64, PAGE = 4096, LOADED_MAX = 8 << 20, WRITE_MIN = 64 << 10 };

static const char help[] =
    "  IN             an encrypted fragmented file, a folder with init.mp4 and *.m4s, or - for standard input\n"
    "  OUT            the clear file, or - for standard output\n"
    "  --key KID:KEY  a content key and its id, 32 hex digits each; repeat it for files with several keys\n"
    "  --key-file FILE  the same from a file\n\n"
    "Samples, times and fragments are as they were before encryption. Boxes of protection are gone, and mfra; the sidx that\n"
    "encrypt and serve write stays, its sizes corrected: OUT is not byte for byte what went into encrypt.\n\n"
    "One fragment of IN is in memory at a time, or all of IN where its samples lie elsewhere than behind their moof. Nothing is\n"
    "written before all of IN is right.\n\n"
    "A wrong key is not noticed: neither scheme has a checksum, and what comes out is noise.\n";

struct keys {
  struct content_key key[MAX_KEYS];
  uint8_t raw[MAX_KEYS][16]; // to tell a pair that is given again from a second key
  size_t num;
};

// `file`: that the text comes from, NULL for an argument.
static int bad_key(const char *file) {
  static const char what[] = "KID:KEY, 32 hex digits each";
  return file ? cli_error(file, "a key file holds one line: %s", what) : cli_usage("decrypt", "--key needs %s", what);
}

static int parse_key(struct keys *keys, const char *text, const char *file, const struct aes_ops *ops) {
  const char *colon = strchr(text, ':');
  uint8_t key[16];
  if (keys->num == MAX_KEYS)
    return cli_usage("decrypt", "more than %d keys", MAX_KEYS);
  struct content_key *k = &keys->key[keys->num];
  if (!colon || hex_read(k->kid, 16, bytes_of(text, (size_t)(colon - text))) != ERR_OK ||
      hex_read(key, 16, bytes_str(colon + 1)) != ERR_OK)
    return bad_key(file);
  // A KID has one key, as in keys files. The same pair again is harmless.
  for (size_t i = 0; i < keys->num; i++)
    if (memcmp(keys->key[i].kid, k->kid, 16) == 0) {
      bool same = memcmp(keys->raw[i], key, 16) == 0;
      explicit_bzero(key, sizeof key);
      return same ? EXIT_DONE : cli_usage("decrypt", "KID %.32s has two keys", text);
    }
  ops->key_init(&k->key, key);
  memcpy(keys->raw[keys->num++], key, 16);
  explicit_bzero(key, sizeof key);
  return EXIT_DONE;
}

struct job {
  const char *in, *out;
  const struct aes_ops *ops;
  struct input input;
  uint8_t *file; // an anonymous mapping of media.src.size bytes, of which what is needed has pages
  uint64_t gone_from, gone_to; // what was forgotten, and has pages yet
  uint64_t loaded;             // since pages were given back
  uint64_t room;               // memory_size
  bool told;                   // why it failed
  struct output output;
  struct progress progress;
  // Heads of boxes are read, and short boxes written, several at once.
  uint64_t near, near_len;
  size_t num_pending;
  uint8_t near_bytes[PAGE], pending[WRITE_MIN];
};

static uint8_t *get_pages(size_t n) {
  void *p = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? NULL : (uint8_t *)p;
}

// Bytes of memory and swap, 0: not known.
static uint64_t memory_size(void) {
  struct sysinfo s;
  return sysinfo(&s) ? 0 : ((uint64_t)s.totalram + s.totalswap) * s.mem_unit;
}

static enum err on_load(void *ctx, uint64_t pos, uint64_t len) {
  struct job *j = (struct job *)ctx;
  j->loaded += len + PAGE;
  if (len <= 16) {
    if (pos < j->near || pos + len > j->near + j->near_len) {
      uint64_t left = j->input.media.src.size - pos;
      j->near = pos;
      j->near_len = left < PAGE ? left : PAGE;
      enum err e = media_read(&j->input.media, pos, j->near_bytes, (size_t)j->near_len);
      if (e)
        return e;
    }
    memcpy(j->file + pos, j->near_bytes + (pos - j->near), (size_t)len);
    return ERR_OK;
  }
  // The kernel would give the pages, and end this process or another one when it has no more.
  if (!j->room || len <= j->room)
    return media_read(&j->input.media, pos, j->file + pos, (size_t)len);
  cli_error(j->input.subject, "%" PRIu64 " of its bytes belong together, which is more than this machine's memory (%" PRIu64 "): decrypt holds a fragment "
            "in it, and all of a file whose samples do not lie behind their moof; take a larger machine, or shorter fragments", len, j->room);
  j->told = true;
  return ERR_LIMIT;
}

// A page that two pieces share goes with the second one.
static void give_back(struct job *j) {
  uint64_t from = (j->gone_from + PAGE - 1) / PAGE * PAGE, to = j->gone_to / PAGE * PAGE;
  if (from < to) {
    madvise(j->file + from, (size_t)(to - from), MADV_DONTNEED);
    j->gone_from = to;
  }
  j->loaded = 0;
}

static void on_forget(void *ctx, uint64_t pos, uint64_t len) {
  struct job *j = (struct job *)ctx;
  if (pos != j->gone_to) {
    give_back(j);
    j->gone_from = pos;
  }
  j->gone_to = pos + len;
  if (j->loaded >= LOADED_MAX)
    give_back(j);
}

static enum err put_out(struct job *j, const uint8_t *p, size_t n) {
  const struct input *from = &j->input;
  if ((j->output.fd >= 0 || output_open(&j->output, j->out, from->has_stat ? &from->stat : NULL)) && output_write(&j->output, p, n))
    return ERR_OK;
  j->told = true;
  return ERR_IO;
}

static enum err put_pending(struct job *j) {
  size_t n = j->num_pending;
  j->num_pending = 0;
  return n ? put_out(j, j->pending, n) : ERR_OK;
}

static enum err on_write(void *ctx, const uint8_t *p, size_t n) {
  struct job *j = (struct job *)ctx;
  enum err e = n > sizeof j->pending - j->num_pending ? put_pending(j) : ERR_OK;
  if (e || n > sizeof j->pending)
    return e ? e : put_out(j, p, n);
  memcpy(j->pending + j->num_pending, p, n);
  j->num_pending += n;
  return ERR_OK;
}

static void on_step(void *ctx, uint64_t done) { progress_set(&((struct job *)ctx)->progress, done); }

static bool run(struct job *j, const struct keys *keys) {
  struct input *from = &j->input;
  if (!input_open(from, j->in))
    return false;
  size_t n = (size_t)from->media.src.size;
  if (!(j->file = get_pages(n)))
    return cli_error(from->subject, "out of memory") == EXIT_DONE;
  j->room = memory_size();
  struct diag d = {0};
  struct alloc_heap heap;
  alloc_heap_init(&heap, n * 4 + (1 << 20));
  struct unprotect_input in = {.file = bytes_of(j->file, n),
                               .part_ends = from->media.src.part_ends,
                               .num_parts = from->media.src.num_parts,
                               .keys = keys->key,
                               .num_keys = keys->num,
                               .ops = j->ops,
                               .mem = &heap.base,
                               .step = on_step,
                               .step_ctx = j};
  struct unprotect_stream stream = {j, on_load, on_forget, on_write};
  progress_start(&j->progress, "decrypting", n);
  enum err e = unprotect_stream(j->file, &stream, &in, &d);
  e = e ? e : put_pending(j);
  progress_end(&j->progress);
  alloc_heap_free(&heap);
  bool changed = !j->told && !media_unchanged(&from->media);
  if (changed) {
    cli_error(from->subject, "the file changed while it was being read");
  } else if (e && !j->told) {
    char file[CLI_FAULT_FILE];
    cli_fault_file(file, from->subject, &from->media, &d);
    cli_error_diag(file, &d);
  }
  if (!e && !changed)
    return output_commit(&j->output);
  output_drop(&j->output);
  return false;
}

static int parse_args(struct job *j, struct keys *keys, int argc, char **argv, bool *done) {
  enum { KEY, KEY_FILE };
  static const struct cli_option longs[] = {{"key", 0, true}, {"key-file", 0, true}, {NULL, 0, false}};
  struct cli_args args = {.command = "decrypt", .argc = argc, .argv = argv, .options = longs, .at = 1};
  int num = 0;
  for (int o; (o = cli_arg(&args)) != ARG_END;) {
    if (o == ARG_HELP) {
      *done = true;
      return cli_help("decrypt", help);
    }
    if (o == ARG_WRONG)
      return EXIT_USAGE;
    if (o == ARG_OPERAND) {
      *(num++ ? &j->out : &j->in) = args.value;
      continue;
    }
    char line[CLI_SECRET];
    if (o == KEY_FILE && !cli_secret_line(line, args.value))
      return EXIT_FAILED;
    int status = parse_key(keys, o == KEY_FILE ? line : args.value, o == KEY_FILE ? args.value : NULL, j->ops);
    explicit_bzero(line, sizeof line);
    if (status != EXIT_DONE)
      return status;
  }
  if (num != 2)
    return cli_usage("decrypt", "give one input and one output");
  if (!keys->num)
    return cli_usage("decrypt", "--key or --key-file is needed");
  return cli_out_spares(args, KEY_FILE, j->out) ? EXIT_DONE : EXIT_FAILED;
}

int cmd_decrypt(int argc, char **argv) {
  static struct keys keys;
  static struct job j = {.output.fd = -1};
  bool done = false;
  if (!(j.ops = cli_kernel()))
    return EXIT_FAILED;
  int status = parse_args(&j, &keys, argc, argv, &done);
  if (status == EXIT_DONE && !done) {
    status = run(&j, &keys) ? EXIT_DONE : EXIT_FAILED;
    size_t n = (size_t)j.input.media.src.size;
    if (j.file)
      munmap(j.file, n ? n : 1);
    input_close(&j.input);
  }
  for (size_t i = 0; i < keys.num; i++)
    aes_key_wipe(&keys.key[i].key);
  explicit_bzero(keys.raw, sizeof keys.raw);
  return status;
}
