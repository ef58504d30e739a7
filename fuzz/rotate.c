// What `sluice rotate` gets for an answer: the admin listener's, or that of whatever listens where it should. In which pieces
// it comes makes no difference; only a whole 200 whose JSON names a scope is a rotation; an error is one line, and what is
// printed orders nothing from a terminal. src/cli/rotate.c is part of this file, with a connection of the target's. Source: RFC
// 9112 §4, RFC 8259.
// The first byte of the input chooses the length of the pieces; with its top bit the connection breaks off.
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "fuzz.h"

static struct bytes to_come;
static size_t piece;
static int breaks;

static int world_lookup(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out) {
  static struct addrinfo one = {.ai_family = AF_INET};
  MUST(host && port && hints);
  *out = &one;
  return 0;
}

static int world_option(const void *value) { return value ? 0 : -1; }

static ssize_t world_recv(void *to, size_t room) {
  size_t n = to_come.n < piece ? to_come.n : piece;
  n = n < room ? n : room;
  if (!to_come.n && breaks) {
    errno = ECONNRESET;
    return -1;
  }
  if (n)
    memcpy(to, to_come.p, n);
  to_come = bytes_of(to_come.p + n, to_come.n - n);
  return (ssize_t)n;
}

#define getaddrinfo world_lookup
#define freeaddrinfo(list) ((void)(list))
#define socket(family, type, protocol) 99
#define connect(fd, addr, len) 0
#define setsockopt(fd, level, name, value, len) world_option(value)
#define send(fd, p, n, flags) ((ssize_t)(n))
#define recv(fd, to, room, flags) world_recv(to, room)
#define close(fd) ((void)(fd))
#include "cli/rotate.c" // NOLINT(bugprone-suspicious-include)
#undef close
#undef send
#undef recv

// Of main.c, which knows the other commands; not asked for here.
int cli_help(const char *command, const char *text) {
  (void)command, (void)text;
  return 0;
}

struct printed {
  char *p;
  size_t n;
};

static int order_once(struct printed *out, struct printed *err, struct bytes answer, size_t pieces) {
  static const struct wish wish = {.all = true};
  static struct config_addr admin = {.text = "127.0.0.1:9090", .host = "127.0.0.1", .port = 9090};
  static const struct config c = {.admin = {.a = &admin, .num = 1}, .admin_token_file = ""};
  FILE *was_out = stdout, *was_err = stderr;
  to_come = answer;
  piece = pieces;
  *out = *err = (struct printed){0};
  stdout = open_memstream(&out->p, &out->n);
  stderr = open_memstream(&err->p, &err->n);
  MUST(stdout && stderr);
  int status = run(&wish, &c);
  fclose(stdout);
  fclose(stderr);
  stdout = was_out;
  stderr = was_err;
  return status;
}

static unsigned lines_of(struct printed text) {
  unsigned num = 0;
  struct bytes rest = bytes_of(text.p, text.n);
  while (rest.n) {
    bool ends = rest.p[0] == '\n';
    uint32_t c = ends ? '\n' : utf8_next(&rest);
    MUST(ends || (c >= 0x20 && c != 0xfffd && !(c >= 0x7f && c < 0xa0)));
    rest = bytes_of(rest.p + ends, rest.n - ends);
    num += ends;
  }
  return num;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct printed out, err, out_again, err_again;
  if (!size)
    return 0;
  struct bytes answer = bytes_of(data + 1, size - 1);
  breaks = data[0] >> 7;
  int status = order_once(&out, &err, answer, SIZE_MAX);
  MUST(order_once(&out_again, &err_again, answer, (data[0] & 0x7f) + 1) == status);
  MUST(bytes_eq(bytes_of(out.p, out.n), bytes_of(out_again.p, out_again.n)));
  MUST(bytes_eq(bytes_of(err.p, err.n), bytes_of(err_again.p, err_again.n)));
  if (status == EXIT_DONE) {
    MUST(!breaks && answer.n > 12 && !memcmp(answer.p, "HTTP/1.", 7) && !memcmp(answer.p + 9, "200", 3));
    lines_of(out);
    lines_of(err);
  } else {
    MUST(status == EXIT_FAILED && !out.n && lines_of(err) == 1);
  }
  free(out.p), free(err.p), free(out_again.p), free(err_again.p);
  return 0;
}
