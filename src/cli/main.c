#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static const struct command commands[] = {
    {"serve", "[-c FILE] [--media DIR] [--listen ADDR:PORT] [--admin ADDR:PORT] [--keys FILE] [--check] …",
     "protect clear music while it is being requested", cmd_serve},
    {"index", "PATH... [--media DIR --cache-dir DIR | -c FILE]", "write or refresh sidecar indexes", cmd_index},
    {"inspect", "FILE [--json] [--all] [--check]", "show boxes, fragments, samples and protection", cmd_inspect},
    {"encrypt", "IN OUT --scheme cenc|cbcs --kid HEX --key HEX [--iv HEX] [--iv-size 8|16] [--drm LIST]",
     "write a protected file: the one that serve sends, given its keys and pssh", cmd_encrypt},
    {"decrypt", "IN OUT --key KID:KEY ...", "write a clear file with the same samples", cmd_decrypt},
    {"rotate", "[ASSET | PREFIX/ | --all] [--grace 24h] [--revoke]",
     "start a new key epoch through the admin listener", cmd_rotate},
    {"keys", "export ASSET --out FILE | import DOCUMENT --keys FILE | rewrap SECRET --new-kek FILE",
     "content keys as CPIX documents; wrap the master secret", cmd_keys},
    {"load", "SCENARIO --target URL", "release-day load generator", cmd_load},
    {"version", "", "show version, CPU features, kernel and libraries", cmd_version},
};

enum { NUM_COMMANDS = sizeof commands / sizeof commands[0] };

static const struct command *find(const char *name) {
  for (size_t i = 0; i < NUM_COMMANDS; i++)
    if (strcmp(commands[i].name, name) == 0)
      return &commands[i];
  return NULL;
}

int cli_help(const char *name, const char *options) {
  const struct command *c = find(name);
  printf("usage: sluice %s%s%s\n\n%s\n", c->name, *c->usage ? " " : "", c->usage, c->summary);
  if (options)
    printf("\n%s", options);
  return EXIT_DONE;
}

static void overview(FILE *to) {
  fprintf(to, "usage: sluice COMMAND …\n\nAn origin for protected music: clear CMAF audio in, encrypted HLS and DASH out.\n\n");
  for (size_t i = 0; i < NUM_COMMANDS; i++)
    fprintf(to, "  %-8s  %s\n", commands[i].name, commands[i].summary);
  fprintf(to, "\n`sluice COMMAND --help` tells the rest.\n");
}

// hold_standard_descriptors takes the places of standard descriptors that are closed. Whatever is opened first would stand
// there otherwise: a log line would go into a secret's file, a client's connection, or the memory of cached segments. What
// stands there now fails as a closed descriptor does (EBADF): it cannot be read where input, nor written where output is.
static bool hold_standard_descriptors(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
    if (fcntl(fd, F_GETFD) >= 0)
      continue;
    if (open("/dev/null", (fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_CLOEXEC) != fd)
      return false;
  }
  return true;
}

static int run(int argc, char **argv) {
  if (argc < 2) {
    overview(stderr);
    return EXIT_USAGE;
  }
  if (cli_wants_help(argv[1]) || strcmp(argv[1], "help") == 0) {
    const struct command *about = argc > 2 ? find(argv[2]) : NULL;
    if (about && !cli_wants_help(argv[1]))
      return about->run(2, (char *[]){argv[2], (char[]){"--help"}, NULL});
    overview(stdout);
    return EXIT_DONE;
  }
  const struct command *c = find(strcmp(argv[1], "--version") == 0 ? "version" : argv[1]);
  if (!c) {
    cli_line("unknown command '%.200s'; `sluice --help` lists them", argv[1]);
    return EXIT_USAGE;
  }
  return c->run(argc - 1, argv + 1);
}

int main(int argc, char **argv) {
  if (!hold_standard_descriptors())
    return EXIT_FAILED; // and nowhere to say so
  int status = run(argc, argv);
  errno = 0;
  if (fflush(stdout) != 0 || ferror(stdout))
    return cli_error("standard output", "writing failed%s%s", errno ? ": " : "", errno ? strerrordesc_np(errno) : "");
  return status;
}
