#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "server/options.h"
#include "simd/aes.h"
#include "storage/sidecar.h"

enum { SUBJECT_MAX = 7000 }; // longer than any path

// Names of files, and what servers say, are others': a terminal takes control characters for orders, a log line feeds for lines. All
// in one piece and without an allocation, for memory may be what is missing.
void cli_line(const char *fmt, ...) {
  char line[SUBJECT_MAX + 1024] = "sluice: ";
  size_t head = strlen(line);
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(line + head, sizeof line - head, fmt, ap);
  va_end(ap);
  text_tame(line, strlen(line));
  fprintf(stderr, "%s\n", line);
}

int cli_error(const char *subject, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  cli_line("%.*s: %s", SUBJECT_MAX, *subject ? subject : "'' (an empty name)", text);
  return EXIT_FAILED;
}

int cli_error_diag(const char *subject, const struct diag *d) {
  char text[512];
  diag_format(d, text, sizeof text);
  return cli_error(subject, "%s", text);
}

int cli_error_write(const char *path, const char *what, int why) {
  char leads[256];
  ssize_t n = why == ENOENT && access(path, F_OK) ? readlink(path, leads, sizeof leads - 1) : -1;
  if (n < 0)
    return cli_error(path, "%s: %s", what, strerrordesc_np(why));
  leads[n] = 0;
  return cli_error(path, "%s: it is a symbolic link to '%s', where nothing is: make a file there, or remove the link", what, leads);
}

int cli_error_source(const char *subject, const struct diag *d) {
  char text[320];
  if (d->err != ERR_PROGRESSIVE)
    return cli_error_diag(subject, d);
  diag_format(d, text, sizeof text);
  return cli_error(subject, "%s; ffmpeg -i IN.mp4 -map 0:a:0 -map_chapters -1 -c copy -strict -2 -movflags +cmaf+delay_moov -frag_duration 2000000 OUT.mp4 fragments it", text);
}

void cli_fault_file(char out[CLI_FAULT_FILE], const char *path, const struct media_source *m, struct diag *d) {
  const char *part = media_fault_part(m, d);
  snprintf(out, CLI_FAULT_FILE, "%s%s%s", path, !part || path[strlen(path) - 1] == '/' ? "" : "/", part ? part : "");
}

bool cli_wants_help(const char *arg) { return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0; }

// Whether `arg` is that option; *value: what stands in the same word, else NULL.
static bool is_option(const struct cli_option *o, const char *arg, const char **value) {
  size_t n = strlen(o->name);
  *value = NULL;
  if (o->letter && arg[1] == o->letter && (o->has_value || !arg[2])) {
    *value = arg[2] ? arg + 2 : NULL;
    return true;
  }
  if (arg[1] != '-' || strncmp(arg + 2, o->name, n) != 0 || (arg[2 + n] && arg[2 + n] != '='))
    return false;
  *value = arg[2 + n] ? arg + 3 + n : NULL;
  return true;
}

// The option that looks most like `arg`, an unknown one; NULL: none is like it.
static const char *nearest(const struct cli_args *a, const char *arg) {
  char word[64];
  const char *found = NULL, *name;
  snprintf(word, sizeof word, "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
  for (char *c = word; *c; c++)
    *c = *c == '_' ? '-' : *c; // as the configuration's file has them
  unsigned best = word_bound(word), own = 0;
  while (a->options[own].name)
    own++;
  for (unsigned i = 0; (name = i < own ? a->options[i].name : a->more ? a->more(i - own) : NULL) != NULL; i++)
    found = word_nearer(word, name, &best) ? name : found;
  return found;
}

int cli_arg(struct cli_args *a) {
  if (a->at < a->argc && !a->only_operands && strcmp(a->argv[a->at], "--") == 0) {
    a->only_operands = true;
    a->at++;
  }
  if (a->at >= a->argc)
    return ARG_END;
  const char *arg = a->value = a->argv[a->at++];
  if (a->only_operands || arg[0] != '-' || !arg[1])
    return ARG_OPERAND;
  if (cli_wants_help(arg))
    return ARG_HELP;
  int i = 0;
  while (a->options[i].name && !is_option(&a->options[i], arg, &a->value))
    i++;
  const struct cli_option *o = &a->options[i];
  if (o->name && o->has_value && !a->value && a->at < a->argc)
    a->value = a->argv[a->at++];
  if (o->name && o->has_value == (a->value != NULL))
    return i;
  int name = (int)strcspn(arg, "="); // what stands behind it may be a key
  const char *near = !o->name && arg[1] == '-' ? nearest(a, arg) : NULL;
  if (near)
    cli_usage(a->command, "unknown option '%.*s' (did you mean --%s?)", name, arg, near);
  else
    cli_usage(a->command, !o->name ? "unknown option '%.*s'" : o->has_value ? "%.*s needs a value" : "'%.*s': this option takes no value", name, arg);
  return ARG_WRONG;
}

bool cli_same_file(const char *a, const char *b) {
  struct stat x, y;
  return !stat(a, &x) && !stat(b, &y) && S_ISREG(x.st_mode) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool cli_out_spares(struct cli_args a, int option, const char *out) {
  a.at = 1;
  a.only_operands = false;
  for (int o; strcmp(out, "-") != 0 && (o = cli_arg(&a)) != ARG_END;)
    if (o == option && cli_same_file(a.value, out)) {
      cli_error(out, "--%s is this file: OUT has to name another", a.options[option].name);
      return false;
    }
  return true;
}

int cli_usage(const char *name, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  cli_line("%s: %s; `sluice %s --help` shows the usage", name, text, name);
  return EXIT_USAGE;
}

int cli_error_config(const struct config_error *e) {
  cli_line("%s%s", *e->text == ':' ? "'' (an empty name)" : "", e->text);
  return e->in_file ? EXIT_FAILED : EXIT_USAGE;
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void progress_start(struct progress *p, const char *label, uint64_t total) {
  *p = (struct progress){.label = label, .total = total, .last_ns = now_ns(), .on = isatty(STDERR_FILENO) != 0};
}

void progress_set(struct progress *p, uint64_t done) {
  if (!p->on)
    return;
  uint64_t now = now_ns();
  if (now - p->last_ns < 100000000u)
    return;
  p->last_ns = now;
  p->drawn = true;
  double share = p->total ? (double)done / (double)p->total : 0;
  share = share > 1 ? 1 : share;
  int filled = (int)(share * 30);
  fprintf(stderr, "\r%s [%.*s%*s] %3d %%", p->label, filled, "##############################", 30 - filled, "",
          (int)(share * 100));
}

void progress_end(struct progress *p) {
  if (p->drawn)
    fprintf(stderr, "\r\033[K");
  p->drawn = false;
}

const struct aes_ops *cli_kernel(void) {
  const char *name = getenv("SLUICE_KERNEL");
  const char *why = "";
  if (name && !*name)
    name = NULL;
  const struct aes_ops *ops = aes_ops_best(name, &why);
  if (!ops)
    cli_error("SLUICE_KERNEL", "%s%s%s", name ? name : "", name ? ": " : "", why);
  return ops;
}

bool cli_secret_line(char out[CLI_SECRET], const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  size_t n = 0;
  ssize_t got = 0;
  while (fd >= 0 && n < CLI_SECRET && (got = read(fd, out + n, CLI_SECRET - n)) > 0)
    n += (size_t)got;
  int why = errno;
  if (fd >= 0)
    close(fd);
  if (fd < 0 || got < 0 || n == CLI_SECRET) {
    cli_error(path, "cannot read the key: %s", n == CLI_SECRET ? "too long for a key, a key file holds one line" : strerror(why));
    explicit_bzero(out, CLI_SECRET);
    return false;
  }
  while (n && (out[n - 1] == '\n' || out[n - 1] == '\r'))
    n--;
  out[n] = 0;
  return true;
}
