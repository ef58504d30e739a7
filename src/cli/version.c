#include <expat.h>
#include <jansson.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <xxhash.h>
#include <yaml.h>
#include <zlib.h>

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
  struct cli_args args = {.command = "version", .argc = argc, .argv = argv, .options = (struct cli_option[]){{NULL, 0, false}}, .at = 1};
  switch (cli_arg(&args)) {
  case ARG_END: break;
  case ARG_HELP: return cli_help("version", NULL);
  case ARG_OPERAND: return cli_usage("version", "takes no argument, got '%s'", args.value);
  default: return EXIT_USAGE;
  }
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
  XML_Expat_Version expat = XML_ExpatVersionInfo();
  printf("libraries: liburing %s, libcrypto %s, llhttp %d.%d.%d, libyaml %s, jansson %s, expat %d.%d.%d, xxHash %d.%d.%d, zlib %s\n", LIBURING_VERSION,
         OpenSSL_version(OPENSSL_VERSION), LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH, yaml_get_version_string(),
         jansson_version_str(), expat.major, expat.minor, expat.micro, XXH_VERSION_MAJOR, XXH_VERSION_MINOR, XXH_VERSION_RELEASE, zlibVersion());
  return EXIT_DONE;
}
