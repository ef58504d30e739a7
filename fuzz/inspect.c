// Any file to `sluice inspect`, as text and as JSON: each line is printable, JSON is read by another reader, its boxes lie inside of
// each other, and its samples are as many as the index has where the file is usable. Source: src/cli/inspect.c, RFC 8259.
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/cli.h"
#include "fuzz.h"

const struct fuzz_boxes fuzz_boxes = {0, 0};

// Of main.c, which knows the other commands; not asked for here.
int cli_help(const char *command, const char *options) {
  (void)command, (void)options;
  return 0;
}

struct text {
  char *p;
  size_t n;
};

// What the command writes to standard output and to standard error.
static int run(struct text *out, struct text *err, const char *path, char *option) {
  FILE *was_out = stdout, *was_err = stderr;
  char *argv[] = {(char[]){"inspect"}, (char *)(uintptr_t)path, option, NULL};
  *out = *err = (struct text){0};
  stdout = open_memstream(&out->p, &out->n);
  stderr = open_memstream(&err->p, &err->n);
  if (!stdout || !stderr)
    abort();
  int status = cmd_inspect(option ? 3 : 2, argv);
  fclose(stdout);
  fclose(stderr);
  stdout = was_out;
  stderr = was_err;
  return status;
}

static void check_lines(struct text t) {
  MUST(!t.n || t.p[t.n - 1] == '\n');
  for (size_t i = 0; i < t.n; i++)
    MUST(t.p[i] == '\n' || ((unsigned char)t.p[i] >= 0x20 && t.p[i] != 0x7f));
}

static void check_boxes(const json_t *boxes, json_int_t from, json_int_t end) {
  size_t i;
  const json_t *b;
  json_array_foreach(boxes, i, b) {
    json_int_t at = json_integer_value(json_object_get(b, "offset")), n = json_integer_value(json_object_get(b, "size"));
    MUST(at >= from && n >= 8 && at <= end && n <= end - at && json_integer_value(json_object_get(b, "header")) <= n);
    MUST(json_is_string(json_object_get(b, "type")));
    check_boxes(json_object_get(b, "boxes"), at, at + n);
    from = at + n;
  }
}

static void check_json(struct text t, size_t size, int status) {
  json_error_t e;
  json_t *doc = json_loadb(t.p, t.n, 0, &e);
  require(doc != NULL, e.text);
  const json_t *track = json_object_get(doc, "track"), *f;
  MUST(json_integer_value(json_object_get(doc, "size")) == (json_int_t)size);
  check_boxes(json_object_get(doc, "boxes"), 0, (json_int_t)size);
  json_int_t samples = 0;
  size_t i;
  json_array_foreach(json_object_get(doc, "fragments"), i, f)
    samples += (json_int_t)json_array_size(json_object_get(f, "samples"));
  if (json_is_true(json_object_get(track, "usable")) && status == 0)
    MUST(samples == json_integer_value(json_object_get(track, "samples")));
  json_decref(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static char all[] = "--all", json[] = "--json";
  char path[64];
  struct text out, err;
  int fd = memfd_create("input", MFD_CLOEXEC);
  MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int first = run(&out, &err, path, NULL);
  check_lines(out);
  check_lines(err);
  MUST((first == 0) == (err.n == 0));
  free(out.p), free(err.p);
  MUST(run(&out, &err, path, all) == first);
  check_lines(out);
  free(out.p), free(err.p);
  MUST(run(&out, &err, path, json) == first);
  check_json(out, size, first);
  free(out.p), free(err.p);
  close(fd);
  return 0;
}
