// A reload for which memory runs out is refused and leaves everything as it was: the configuration and the keys are loaded with
// the first, the second, … n-th allocation failing, until none does. Linked with --wrap for every call that allocates.
#include "server/keyring.h"
#include "server/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned allocations, fail_at; // 0: never

static bool fails(void) { return ++allocations == fail_at; }

void *__real_malloc(size_t n);
void *__real_calloc(size_t num, size_t n);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t num, size_t n);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t n) { return fails() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t num, size_t n) { return fails() ? NULL : __real_calloc(num, n); }
void *__wrap_realloc(void *p, size_t n) { return fails() ? NULL : __real_realloc(p, n); }
char *__wrap_strdup(const char *s) { return fails() ? NULL : __real_strdup(s); }
char *__wrap_strndup(const char *s, size_t n) { return fails() ? NULL : __real_strndup(s, n); }

static const char options[] = "media: /\nstate_dir: .\nkeys: keys.yaml\npublic_url: http://origin.example/\nlisten: [127.0.0.1:1, '[::1]:2']\n"
                              "tls_listen: 127.0.0.1:3\ntls_certificates:\n  - { cert: a, key: b, ocsp: c }\n  - { cert: d, key: e }\n"
                              "cpu_affinity: [0, 2]\nassets:\n  - { prefix: free/, schemes: [clear] }\n";
static const char keys[] = "keys:\n  - { asset: a, epoch: 1, scheme: cbcs, kid: 00112233445566778899aabbccddeeff, key: 0123456789abcdef0123456789abcdef,\n"
                           "      iv: 00112233445566778899aabbccddeeff }\n"
                           "providers:\n  - { match: s/, type: json, url: 'http://127.0.0.1:9/keys' }\n";

static bool put(const char *name, const char *text) {
  FILE *f = fopen(name, "w");
  return f && fputs(text, f) >= 0 && !fclose(f);
}

// Whether both could be loaded. Else the error says something.
static bool load(const struct config *running, bool *said) {
  static const struct config_flags flags = {.num = 2, .a = {{OPTION_admin, "127.0.0.1:4"}, {OPTION_assets, "paid/=cbcs"}}};
  struct config_error error = {.text = "?"};
  struct config *c = config_load("sluice.yaml", &flags, &error);
  struct keyring *k = c ? keyring_load(c, LACKING_IGNORED, &error) : NULL;
  if (k)
    (void)config_restart_needed(running ? running : c, c);
  *said = k || (error.text[0] && error.text[0] != '?');
  if (!k && !fail_at)
    printf("# %s\n", error.text);
  keyring_put(k);
  config_free(c);
  return k != NULL;
}

int main(void) {
  char dir[] = "/tmp/sluice-memory-XXXXXX";
  struct config_error error = {.text = ""};
  bool said, all_said = true, ended = false;
  umask(077); // keys that others may read would be said each time
  if (!mkdtemp(dir) || chdir(dir) || !put("sluice.yaml", options) || !put("keys.yaml", keys))
    return 1;
  struct config *running = config_load("sluice.yaml", NULL, &error);
  printf("1..3\n%sok 1 - the configuration is good %s\n", running && load(running, &said) ? "" : "not ", error.text);
  unsigned failed = 0, last = 0;
  for (unsigned n = 1; n < 2000 && !ended; n++) {
    allocations = 0;
    fail_at = n;
    bool ok = load(running, &said);
    ended = ok && allocations < n;
    fail_at = 0;
    failed += !ok;
    last = n;
    if (!said)
      printf("# allocation %u: no word of it\n", n);
    all_said &= said;
  }
  printf("%sok 2 - %u of %u loads were refused for want of memory, none ended otherwise\n", ended && failed > 20 ? "" : "not ", failed, last);
  printf("%sok 3 - and each with a word\n", all_said ? "" : "not ");
  config_free(running);
  return unlink("sluice.yaml") || unlink("keys.yaml") || chdir("/") || rmdir(dir);
}
