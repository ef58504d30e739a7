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
  struct keyring *k = server_check(c, &error) && workers_check(c, &error) ? keyring_load(c, LACKING_IGNORED, &error) : NULL;
  if (!k || !epoch_store_check(c->state_dir, k->info.default_epoch, &error)) {
    cli_line("%s", error.text);
    keyring_put(k);
    return EXIT_FAILED;
  }
  keyring_put(k);
  server_warn_machine(c);
  printf("configuration is valid\n");
  return EXIT_DONE;
}

// Names of the configuration's options as they are given.
static const char *flag(unsigned i) {
  static char names[NUM_OPTIONS][64];
  if (i >= NUM_OPTIONS)
    return NULL;
  snprintf(names[i], sizeof names[i], "%s", config_options[i].name);
  for (char *p = names[i]; *p; p++)
    *p = *p == '_' ? '-' : *p;
  return names[i];
}

static int show_help(void) {
  cli_help("serve", NULL);
  printf("\n");
  config_help(stdout);
  return EXIT_DONE;
}

int cmd_serve(int argc, char **argv) {
  enum { CHECK, CONFIG };
  static const struct cli_option longs[] = {{"check", 0, false}, {"config", 'c', true}, {NULL, 0, false}};
  struct cli_args args = {.command = "serve", .argc = argc, .argv = argv, .options = longs, .at = 1, .more = flag};
  struct config_flags flags = {0};
  struct config_error error;
  const char *file = NULL;
  bool only_check = false;
  for (int o, taken; args.at < argc;) {
    if ((taken = args.only_operands ? 0 : config_flag(&flags, argc, argv, &args.at, &error)) < 0)
      return cli_usage("serve", "%s", error.text);
    if (taken)
      continue;
    if ((o = cli_arg(&args)) == ARG_HELP)
      return show_help();
    if (o == ARG_WRONG)
      return EXIT_USAGE;
    if (o == ARG_OPERAND)
      return cli_usage("serve", "takes no argument but options, got '%s'", args.value);
    only_check |= o == CHECK;
    file = o == CONFIG ? args.value : file;
  }
  const struct aes_ops *ops = cli_kernel();
  if (!ops)
    return EXIT_FAILED;
  if (!only_check)
    server_hold_signals();
  struct config *c = config_load(file, &flags, &error);
  if (!c)
    return cli_error_config(&error);
  if (!server_addresses(c, &error)) {
    config_free(c);
    return cli_error_config(&error);
  }
  if (!only_check)
    return server_run(c, file, &flags, ops);
  int status = check(c);
  config_free(c);
  return status;
}
