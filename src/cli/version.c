#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/utsname.h>

#include "base/writer.h"
#include "cli/cli.h"
#include "simd/aes.h"

static void print_cpu(void) {
  char text[128];
  struct writer w = wr_of(text, sizeof text);
  aes_cpu_names(&w);
  printf("cpu:%.*s\n", (int)w.n, text);
}

int cmd_version(int argc, char **argv) {
  if (argc > 1 && cli_wants_help(argv[1]))
    return cli_help("version", NULL);
  if (argc > 1)
    return cli_usage("version", "takes no argument, got '%s'", argv[1]);
  const struct aes_ops *ops = cli_kernel();
  if (!ops)
    return EXIT_FAILED;
  printf("sluice %s\n", SLUICE_VERSION);
  printf("kernel: %s (usable:", ops->name);
  size_t num;
  const struct aes_ops *const *all = aes_ops_all(&num);
  for (size_t i = 0; i < num; i++)
    if (all[i]->usable())
      printf(" %s", all[i]->name);
  printf(")\n");
  print_cpu();
  struct utsname u;
  if (uname(&u) == 0)
    printf("system: %s %s %s\n", u.sysname, u.release, u.machine);
  printf("liburing %s, libcrypto %s\n", LIBURING_VERSION, OpenSSL_version(OPENSSL_VERSION));
  return EXIT_DONE;
}
