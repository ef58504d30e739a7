// Standard input, whose boxes are looked at as they come, before a copy of them is kept: in which pieces they come makes no
// difference to what is kept of them and to what is said, and no more is kept than a copy may take. Looking is internal to
// src/cli/output.c, which is part of this file. Source: ISO/IEC 14496-12 §4.2.
// The first byte of the input chooses how much a copy may take, and the length of the pieces.
#include "cli/output.c" // NOLINT(bugprone-suspicious-include)

#include "fuzz.h"

const struct fuzz_boxes fuzz_boxes = {1, 0};

// Of main.c, which knows the other commands; not asked for here.
int cli_help(const char *command, const char *text) {
  (void)command, (void)text;
  return 0;
}

struct looked {
  bool ok, done;
  uint64_t kept;
  char *said;
  size_t len;
};

static struct looked look(struct bytes in, uint64_t most, size_t piece) {
  struct looked l = {.ok = true};
  struct boxes_ahead a = {.unsized = UINT64_MAX, .most = most, .folder = "/tmp"};
  FILE *was = stderr;
  stderr = open_memstream(&l.said, &l.len);
  MUST(stderr);
  while (in.n && l.ok && !l.done) {
    size_t n = in.n < piece ? in.n : piece, wanted = n;
    uint8_t *copy = malloc(n); // its own size, so that reading past it is seen
    MUST(copy);
    memcpy(copy, in.p, n);
    l.ok = look_ahead(&a, copy, &wanted, &l.done);
    MUST(wanted <= n && (l.done || wanted == n));
    l.kept += l.ok ? wanted : 0;
    in = bytes_of(in.p + n, in.n - n);
    free(copy);
  }
  fclose(stderr);
  stderr = was;
  MUST(l.ok == !l.len && l.kept <= most && (l.ok || l.said[l.len - 1] == '\n'));
  return l;
}

static void check_same(const struct looked *a, const struct looked *b) {
  MUST(a->ok == b->ok && a->done == b->done && (!a->ok || a->kept == b->kept));
  MUST(a->len == b->len && !memcmp(a->said, b->said, a->len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size)
    return 0;
  struct bytes in = bytes_of(data + 1, size - 1);
  uint64_t most = data[0] & 32 ? 64 : UINT64_MAX / 2;
  struct looked whole = look(in, most, SIZE_MAX), pieces = look(in, most, (data[0] & 31) + 1), bytewise = look(in, most, 1);
  if (in.n <= most) { // a piece is refused for its length before its boxes are looked at
    check_same(&whole, &bytewise);
    check_same(&pieces, &bytewise);
  }
  free(whole.said), free(pieces.said), free(bytewise.said);
  return 0;
}
