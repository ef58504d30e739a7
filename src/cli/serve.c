// sluice serve
#include <stdio.h>

#include "cli/cli.h"
#include "server/keyring.h"
#include "server/options.h"
#include "server/server.h"
#include "server/worker.h"
#include "simd/aes.h"

// Everything that starting would look at, without making or taking anything.
static int check(const struct config *c) {
  struct config_error error;
  struct keyring *k = server_check(c, &error) && workers_check(c, &error) ? keyring_load(c, false, &error) : NULL;
  if (!k) {
    fprintf(stderr, "sluice: %s\n", error.text);
    keyring_put(k);
    return EXIT_FAILED;
  }
  keyring_put(k);
  printf("configuration is valid\n");
  return EXIT_DONE;
}

static int unknown(const char *arg) {
  char name[64] = "";
  if (arg[0] == '-' && arg[1] == '-')
    snprintf(name, sizeof name, "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
  for (char *p = name; *p; p++)
    *p = *p == '-' ? '_' : *p;
  const struct option *near = config_nearest(name);
  if (!near)
    return cli_usage("serve", "unknown argument '%s'", arg);
  snprintf(name, sizeof name, "--%s", near->name);
  for (char *p = name; *p; p++)
    *p = *p == '_' ? '-' : *p;
  return cli_usage("serve", "unknown argument '%s' (did you mean %s?)", arg, name);
}

int cmd_serve(int argc, char **argv) {
  struct config_flags flags = {0};
  struct config_error error;
  const char *file = NULL;
  bool only_check = false;
  for (int i = 1; i < argc;) {
    if (cli_wants_help(argv[i])) {
      cli_help("serve", NULL);
      printf("\n");
      config_help(stdout);
      return EXIT_DONE;
    }
    if (strcmp(argv[i], "--check") == 0) {
      only_check = true;
      i++;
      continue;
    }
    if (strcmp(argv[i], "-c") == 0 || strcmp(argv[i], "--config") == 0) {
      if (i + 1 == argc)
        return cli_usage("serve", "%s needs a file", argv[i]);
      file = argv[i + 1];
      i += 2;
      continue;
    }
    if (strncmp(argv[i], "--config=", 9) == 0 || (strncmp(argv[i], "-c", 2) == 0 && argv[i][2])) {
      file = argv[i][1] == 'c' ? argv[i] + 2 : argv[i] + 9;
      i++;
      continue;
    }
    int taken = config_flag(&flags, argc, argv, &i, &error);
    if (taken < 0)
      return cli_usage("serve", "%s", error.text);
    if (!taken)
      return unknown(argv[i]);
  }
  const struct aes_ops *ops = cli_kernel();
  if (!ops)
    return EXIT_FAILED;
  if (!only_check)
    server_hold_signals();
  struct config *c = config_load(file, &flags, &error);
  if (!c)
    return cli_error_config(&error);
  if (!only_check)
    return server_run(c, file, &flags, ops);
  int status = check(c);
  config_free(c);
  return status;
}
