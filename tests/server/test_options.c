#include "server/options.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

static char path[] = "/tmp/sluice-options-XXXXXX";
static struct config_error error;

// Loads a file with this text; the path in errors is cut off.
static struct config *load(const char *yaml, const struct config_flags *flags) {
  snprintf(path, sizeof path, "/tmp/sluice-options-XXXXXX");
  int fd = mkstemp(path);
  cr_assert_eq(write(fd, yaml, strlen(yaml)), (ssize_t)strlen(yaml));
  close(fd);
  error.text[0] = 0;
  struct config *c = config_load(path, flags, &error);
  unlink(path);
  size_t n = strlen(path);
  if (!strncmp(error.text, path, n))
    memmove(error.text, error.text + n, strlen(error.text + n) + 1);
  return c;
}

Test(options, defaults_are_those_of_the_table) {
  struct config *c = load("media: /m\n", NULL);
  cr_assert(c, "%s", error.text);
  cr_assert_eq(c->segment_target, 2000);
  cr_assert_eq(c->cache_size, 512u << 20);
  cr_assert_eq(c->cache_clear, 1ull << 44);
  cr_assert_eq(c->cache_encrypted, 1ull << 44);
  cr_assert_eq(c->schemes, (1u << SCHEME_CENC | 1u << SCHEME_CBCS));
  cr_assert_eq(c->listen.num, 1);
  cr_assert_str_eq(c->listen.a[0].host, "0.0.0.0");
  cr_assert_eq(c->listen.a[0].port, 8080);
  cr_assert_eq(c->tls_listen.num, 0);
  cr_assert(c->pin_workers);
  config_free(c);
}

Test(options, every_default_is_within_its_own_limits) {
  struct config *c = load("media: /m\n", NULL);
  for (unsigned i = 0; i < NUM_OPTIONS; i++) {
    char why[CONFIG_WHY] = "";
    cr_assert(config_set(c, &config_options[i], config_options[i].def, false, why), "%s: %s", config_options[i].name, why);
    cr_assert(strlen(config_options[i].doc) > 20, "%s is not documented", config_options[i].name);
  }
  config_free(c);
}

Test(options, yaml_values_of_every_kind) {
  struct config *c = load("media: /srv/music\n"
                          "listen: [127.0.0.1:80, '[::1]:81']\n"
                          "workers: 3\ncache_clear: 2G\ncache_encrypted: on\nsegment_target: 250ms\nio: epoll\n"
                          "clear: true\ncpu_affinity: [0, 2]\naccess_log: off\n"
                          "tls_certificates:\n  - {cert: a.pem, key: a.key}\n  - {cert: b.pem, key: b.key, ocsp: b.der}\n"
                          "assets:\n  - {prefix: free/, schemes: [clear, cbcs]}\n  - {prefix: free/not, schemes: cenc}\n",
                          NULL);
  cr_assert(c, "%s", error.text);
  cr_assert_eq(c->listen.num, 2);
  cr_assert_str_eq(c->listen.a[1].host, "::1");
  cr_assert_eq(c->listen.a[1].port, 81);
  cr_assert_eq(c->workers, 3);
  cr_assert_eq(c->cache_clear, 2ull << 30);
  cr_assert_eq(c->cache_encrypted, 1ull << 44);
  cr_assert_eq(c->segment_target, 250);
  cr_assert_eq(c->io, IO_EPOLL);
  cr_assert_str_eq(c->cpu_affinity, "0 2");
  cr_assert_str_eq(c->access_log, "");
  cr_assert_eq(c->tls_certificates.num, 2);
  cr_assert_str_eq(c->tls_certificates.a[1].ocsp, "b.der");
  cr_assert_null(c->tls_certificates.a[0].ocsp);
  unsigned all = 1u << SCHEME_CENC | 1u << SCHEME_CBCS | 1u << SCHEME_CLEAR;
  cr_assert_eq(config_schemes(c, bytes_str("other")), all);
  cr_assert_eq(config_schemes(c, bytes_str("free/song")), 1u << SCHEME_CLEAR | 1u << SCHEME_CBCS);
  cr_assert_eq(config_schemes(c, bytes_str("free/not")), 1u << SCHEME_CENC, "the longest rule decides");
  cr_assert_eq(config_schemes(c, bytes_str("free/note")), 1u << SCHEME_CLEAR | 1u << SCHEME_CBCS, "a name is not a prefix");
  cr_assert_eq(config_schemes(c, bytes_str("free/")), all, "a folder is below itself only with a name");
  config_free(c);
}

Test(options, words_of_yaml_and_sizes_as_nginx_has_them) {
  struct config *c = load("media: /m\nclear: True\nktls: FALSE\nwrite_sidecars: Off\ncache_size: 16m\nindex_size: 2g\nkeys: !!null ~\ncache_dir: null\n"
                          "access_log: 'null'\nstate_dir: \"~\"\n",
                          NULL);
  cr_assert(c, "%s", error.text);
  cr_assert(c->clear && !c->ktls && !c->write_sidecars);
  cr_assert_eq(c->cache_size, 16u << 20);
  cr_assert_eq(c->index_size, 2ull << 30);
  cr_assert_str_eq(c->keys, "");
  cr_assert_str_eq(c->cache_dir, "");
  cr_assert_str_eq(c->access_log, "null", "in quotes it is a name");
  cr_assert_str_eq(c->state_dir, "~");
  config_free(c);
  c = load("null\n", NULL);
  cr_assert_null(c);
  cr_assert(strstr(error.text, "media: not set"), "%s", error.text);
}

static const struct {
  const char *yaml, *error;
} refused[] = {
    {"media: /m\nworkers: ~\n", ":2: workers: '' is not a whole number"},
    {"media: /m\nsegment_target: 5M\n", ":2: segment_target: '5M' is not a duration (like 250ms, 2s, 5m, 24h, 7d, 0)"},
    {"media: /m\nstate_dir: ~\n", ": state_dir: a folder is needed; without the option it is /var/lib/sluice"},
    {"listen: 127.0.0.1:80\n", ": media: not set; give --media DIR or a line `media: DIR` in the file"},
    {"media: /m\nworkers: 9999\n", ":2: workers: 9999 is more than 256 (allowed: 0 to 256)"},
    {"media: /m\nhelper_threads: 0\n", ":2: helper_threads: 0 is less than 1 (allowed: 1 to 64)"},
    {"media: /m\nheader_timeout: 99ms\n", ":2: header_timeout: 99ms is less than 100ms (allowed: 100ms to 1h)"},
    {"media: /m\nworkers: two\n", ":2: workers: 'two' is not a whole number"},
    {"media: /m\nworkers: -1\n", ":2: workers: '-1' is not a whole number"},
    {"media: /m\n\nwokers: 2\n", ":3: unknown option 'wokers'; did you mean 'workers'?"},
    {"media: /m\nworkers: 1\nworkers: 2\n", ":3: workers: given twice"},
    {"media: /m\nsegment_target: 5\n", ":2: segment_target: '5' is not a duration (like 250ms, 2s, 5m, 24h, 7d, 0)"},
    {"media: /m\nsegment_target: 11m\n", ":2: segment_target: 11m is more than 10m (allowed: 0 to 10m)"},
    {"media: /m\ncache_clear: 99999999999999999999G\n",
     ":2: cache_clear: '99999999999999999999G' is not a size (like 512, 64K, 16M, 2G, on)"},
    {"media: /m\ncache_clear: 18446744073709551615T\n",
     ":2: cache_clear: '18446744073709551615T' is not a size (like 512, 64K, 16M, 2G, on)"},
    {"media: /m\ncache_size: on\n", ":2: cache_size: 'on' is not a size (like 512, 64K, 16M, 2G)"},
    {"media: /m\nindex_size: off\n", ":2: index_size: 'off' is not a size (like 512, 64K, 16M, 2G)"},
    {"media: /m\ncache_encrypted: much\n", ":2: cache_encrypted: 'much' is not a size (like 512, 64K, 16M, 2G, on, off)"},
    {"media: /m\nio: kqueue\n", ":2: io: 'kqueue' is not one of auto, io_uring, epoll"},
    {"media: /m\nlisten: 8080\n", ":2: listen: '8080' is not ADDR:PORT (like 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80)"},
    {"media: /m\nlisten: ::1:8080\n", ":2: listen: '::1:8080' is not ADDR:PORT (like 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80)"},
    {"media: /m\nlisten: a:65536\n", ":2: listen: 'a:65536' is not ADDR:PORT (like 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80)"},
    {"media: /m\nlisten: ':80'\n", ":2: listen: ':80' is not ADDR:PORT (like 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80)"},
    {"media: /m\nlisten: '[::1:80'\n", ":2: listen: '[::1:80' is not ADDR:PORT (like 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80)"},
    {"media: /m\nlisten: []\n", ": listen: nothing to listen on"},
    {"media: \"/a\\tb\"\n", ":1: media: control characters are not allowed"},
    {"media: /m\ntls_certificates: [{cert: a, key: {b: c}}]\n", ":2: tls_certificates: needs {cert: FILE, key: FILE}, and may have ocsp: FILE"},
    {"media: /m\ntls_certificates: [{cert: a, key: b, ocsp: {c: d}}]\n", ":2: tls_certificates: needs {cert: FILE, key: FILE}, and may have ocsp: FILE"},
    {"media: [a, b]\n", ":1: media: takes one value, not a list"},
    {"media: {a: b}\n", ":1: media: takes a value, not a mapping"},
    {"media: /m\nschemes: [cbcs, cens]\n", ":2: schemes: 'cens' is not one of clear, cenc, cbcs"},
    {"media: /m\nschemes: []\n", ":2: schemes: the list is empty"},
    {"media: /m\nassets:\n  - {prefix: a/}\n", ":3: assets: needs {prefix: NAME, schemes: [clear, cenc, cbcs]}"},
    {"media: /m\nassets:\n  - {prefix: a/, schemes: cbcs, x: 1}\n", ":3: assets: unknown member 'x'; known: prefix, schemes"},
    {"media: /m\ntls_certificates:\n  - {cert: a, kee: b}\n", ":3: tls_certificates: unknown member 'kee'; known: cert, key, ocsp"},
    {"media: /m\ndrm: { widevine: {} }\n", ":2: 'drm' belongs in the keys file, which `keys: FILE` names"},
    {"media: /m\nassets:\n\t- {prefix: a/, schemes: cbcs}\n", ":3: not valid YAML: found character that cannot start any token: indent with spaces, not tabs; quote values that begin with @, ` or %"},
    {"media: /m\nassets:\n  - {prefix: a/, schemes: cbcs, prefix: b/}\n", ":3: assets: 'prefix' is given twice"},
    {"media: /m\nassets:\n  - {prefix: /a/, schemes: cbcs}\n", ":3: assets: the prefix '/a/': a name has no empty, \".\" or \"..\" segment"},
    {"media: /m\nassets:\n  - {prefix: a/.b/, schemes: cbcs}\n", ":3: assets: the prefix 'a/.b/': no URL can have one of its segments: it begins with a dot"},
    {"media: /m\nlisten: 127.0.0.1:80\nadmin: [127.0.0.1:81, 127.0.0.1:80]\n", ": 127.0.0.1:80 is given twice in listen, tls_listen and admin"},
    {"media: /m\ntls_client_ca: ca.pem\n", ": tls_client_ca: needs tls_listen; clients of `listen` show no certificates"},
    {"media: /m\ntls_listen: 0.0.0.0:443\n", ": tls_listen: needs tls_certificates"},
    {"media: /m\ntls_certificate: c\n", ": tls_certificate and tls_key go together; one of them is missing"},
    {"media: /m\ntls_key: k\n", ": tls_certificate and tls_key go together; one of them is missing"},
    {"media: /m\npin_workers: maybe\n", ":2: pin_workers: 'maybe' is neither true nor false"},
    {"media: /m\nadmin_hosts: http://a\n", ": admin_hosts: 'http://a' is not a list of host names, without scheme and port (like origin1.example origin1)"},
    {"media: /m\nadmin_hosts: [a, \"b:9090\"]\n", ": admin_hosts: 'a b:9090' is not a list of host names, without scheme and port (like origin1.example origin1)"},
    {"media: /m\ncpu_affinity: 0 1024\n", ": cpu_affinity: 1024 is no CPU (allowed: 0 to 1023)"},
    {"media: /m\ncpu_affinity: 99999999999999999999\n", ": cpu_affinity: 99999999999999999999 is no CPU (allowed: 0 to 1023)"},
    {"media: /m\ncpu_affinity: all\n", ": cpu_affinity: 'all' is not a list of CPU numbers (like 0 2 4)"},
    {"- media\n", ":1: expected lines of the form `option: value`"},
    {"media: \"/m\\0x\"\n", ":1: media: the text contains a NUL"},
    // Read as no value they would be an empty file, or an option that is not given.
    {"&a\n", ":1: an anchor (&name) or a tag (!name) stands before no value: write the value, or leave it out"},
    {"!!str\n", ":1: an anchor (&name) or a tag (!name) stands before no value: write the value, or leave it out"},
    {"media: /m\nkeys: !!null\n", ":2: an anchor (&name) or a tag (!name) stands before no value: write the value, or leave it out"},
    {"media: /m\nkeys: &a\n", ":2: an anchor (&name) or a tag (!name) stands before no value: write the value, or leave it out"},
    {"media: /m\nschemes: [cbcs, &a ]\n", ":2: an anchor (&name) or a tag (!name) stands before no value: write the value, or leave it out"},
};

Test(options, what_is_wrong_is_said_with_line_reason_and_what_is_allowed) {
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    struct config *c = load(refused[i].yaml, NULL);
    cr_expect_null(c, "accepted: %s", refused[i].yaml);
    cr_expect_str_eq(error.text, refused[i].error, "\n%s\n%s", error.text, refused[i].error);
    config_free(c);
  }
}

Test(options, addresses_that_only_look_like_one_given_twice) {
  struct config *c = load("media: /m\nlisten: [127.0.0.1:0, 127.0.0.1:0, 127.0.0.1:80, 127.0.0.2:80]\nadmin: 127.0.0.1:0\n", NULL);
  cr_assert(c, "%s", error.text);
  cr_assert_eq(c->listen.num, 4);
  config_free(c);
}

Test(options, lists_and_rules_in_any_order) {
  struct config *c = load("media: /m\nschemes: [clear, cbcs]\nassets:\n  - {prefix: free/not, schemes: cenc}\n  - {prefix: free/, schemes: [clear, cbcs]}\n"
                          "  - {prefix: '', schemes: [cenc, clear]}\n", NULL);
  cr_assert(c, "%s", error.text);
  cr_assert_eq(c->schemes, (1u << SCHEME_CLEAR | 1u << SCHEME_CBCS));
  cr_assert_eq(config_schemes(c, bytes_str("free/not")), 1u << SCHEME_CENC);
  cr_assert_eq(config_schemes(c, bytes_str("free/song")), 1u << SCHEME_CLEAR | 1u << SCHEME_CBCS);
  cr_assert_eq(config_schemes(c, bytes_str("other")), 1u << SCHEME_CENC | 1u << SCHEME_CLEAR, "no prefix at all is every asset's");
  config_free(c);
}

Test(options, a_file_is_not_longer_than_1_mib) {
  enum { MOST = 1 << 20 };
  char *text = malloc(MOST + 2);
  memset(text, '#', MOST + 1);
  memcpy(text, "media: /m\n", 10);
  text[MOST + 1] = 0;
  cr_assert_null(load(text, NULL));
  cr_assert_str_eq(error.text, ": longer than 1 MiB");
  text[MOST] = 0;
  struct config *c = load(text, NULL);
  cr_assert(c, "%s", error.text);
  config_free(c);
  free(text);
}

Test(options, a_header_value_has_room_in_every_head) {
  char origin[514], yaml[600];
  memset(origin, 'o', 513);
  origin[513] = 0;
  snprintf(yaml, sizeof yaml, "media: /m\ncors_origin: %s\n", origin);
  cr_assert_null(load(yaml, NULL));
  cr_assert_str_eq(error.text, ":2: cors_origin: 513 bytes are more than 512");
  origin[512] = 0;
  snprintf(yaml, sizeof yaml, "media: /m\ncors_origin: %s\n", origin);
  struct config *c = load(yaml, NULL);
  cr_assert(c, "%s", error.text);
  cr_assert_str_eq(c->cors_origin, origin);
  config_free(c);
}

Test(options, broken_yaml_names_the_line) {
  cr_assert_null(load("media: /m\nlisten: [a\n", NULL));
  cr_assert_eq(strncmp(error.text, ":3: not valid YAML: ", 20), 0, "%s", error.text);
  cr_assert_null(config_load("/nonexistent/sluice.yaml", NULL, &error));
  cr_assert_str_eq(error.text, "/nonexistent/sluice.yaml: No such file or directory");
}

// A number of addresses and certificates is that of tables made once: --check must know, not the start.
Test(options, lists_that_are_too_long) {
  static const struct {
    const char *option, *before, *behind;
    unsigned most;
    const char *what;
  } lists[] = {{"listen", "127.0.0.1:", "", CONFIG_MAX_LISTENERS, ": listen and tls_listen: 65 addresses are more than 64"},
               {"admin", "127.0.0.1:", "", CONFIG_MAX_ADMIN, ": admin: 17 addresses are more than 16"},
               {"tls_certificates", "{cert: c", ", key: k}", CONFIG_MAX_CERTIFICATES, ": tls_certificates: 65 certificates are more than 64"}};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    for (unsigned num = lists[i].most; num <= lists[i].most + 1; num++) {
      char text[4096];
      int n = snprintf(text, sizeof text, "media: /m\n%s:\n", lists[i].option);
      for (unsigned k = 0; k < num; k++)
        n += snprintf(text + n, sizeof text - (size_t)n, "  - %s%u%s\n", lists[i].before, 20000 + k, lists[i].behind);
      struct config *c = load(text, NULL);
      cr_expect_eq(c != NULL, num == lists[i].most, "%s: %u", lists[i].option, num);
      if (!c)
        cr_expect_str_eq(error.text, lists[i].what, "%s", error.text);
      config_free(c);
    }
}

static struct config *with_flags(int argc, const char **argv) {
  struct config_flags flags = {0};
  for (int i = 0; i < argc;) {
    char *args[8];
    memcpy((void *)args, (const void *)argv, (size_t)argc * sizeof *args);
    int taken = config_flag(&flags, argc, args, &i, &error);
    if (taken <= 0)
      return NULL;
  }
  return load("media: /m\nlisten: 1.2.3.4:5\nworkers: 2\npin_workers: true\n", &flags);
}

Test(options, flags_override_the_file) {
  struct config *c = with_flags(6, (const char *[]){"--workers=7", "--listen", "127.0.0.1:1", "--listen=127.0.0.1:2",
                                                     "--insecure-clearkey", "--pin-workers=off"});
  cr_assert(c, "%s", error.text);
  cr_assert_eq(c->workers, 7);
  cr_assert_eq(c->listen.num, 2);
  cr_assert_eq(c->listen.a[0].port, 1);
  cr_assert(c->insecure_clearkey);
  cr_assert_not(c->pin_workers);
  config_free(c);
  cr_assert_null(with_flags(2, (const char *[]){"--workers", "many"}));
  cr_assert_str_eq(error.text, "--workers: 'many' is not a whole number");
  cr_assert_null(with_flags(1, (const char *[]){"--segment-target"}));
  cr_assert_str_eq(error.text, "--segment-target needs a value");
  cr_assert_null(with_flags(1, (const char *[]){"--nonsense"}));
  c = with_flags(3, (const char *[]){"--tls-certificates=a.pem:a.key,b.pem:b.key", "--assets=a=clear", "--assets=b/=cbcs"});
  cr_assert(c, "%s", error.text);
  cr_assert(c->tls_certificates.num == 2 && c->assets.num == 2);
  cr_assert_str_eq(c->tls_certificates.a[1].cert, "b.pem");
  cr_assert_str_eq(c->tls_certificates.a[1].key, "b.key");
  config_free(c);
}

Test(options, flags_have_an_end) {
  struct config_flags flags = {0};
  enum { MOST = sizeof flags.a / sizeof *flags.a };
  for (unsigned n = 0; n <= MOST; n++) {
    int i = 0;
    cr_assert_eq(config_flag(&flags, 1, (char *[]){(char[]){"--workers=1"}}, &i, &error), n < MOST ? 1 : -1, "%u", n);
  }
  cr_assert_str_eq(error.text, "--workers=1: too many flags");
}

// The flag's rules take the place of the file's.
Test(options, rules_of_a_flag_replace_those_of_the_file) {
  struct config_flags flags = {0};
  config_flag_add(&flags, OPTION_assets, "b=cenc");
  struct config *c = load("media: /m\nassets: [{prefix: a, schemes: clear}]\n", &flags);
  cr_assert(c, "%s", error.text);
  cr_assert_eq(c->assets.num, 1);
  cr_assert_str_eq(c->assets.a[0].prefix, "b");
  config_free(c);
}

Test(options, what_needs_a_restart_is_named) {
  struct config *a = load("media: /m\nworkers: 2\nsegment_target: 2s\n", NULL);
  struct config *b = load("media: /m\nworkers: 2\nsegment_target: 4s\n", NULL);
  struct config *c = load("media: /m\nworkers: 3\n", NULL);
  struct config *d = load("media: /m\nworkers: 2\nlisten: 1.1.1.1:1\n", NULL);
  cr_assert_null(config_restart_needed(a, b));
  cr_assert_str_eq(config_restart_needed(a, c), "workers");
  cr_assert_str_eq(config_restart_needed(a, d), "listen");
  struct config *e = load("media: /m\ncbcs_senc: false\ncenc_iv_size: 16\ninband_pssh: true\ninsecure_clearkey: true\nsegment_target: 0\n", NULL);
  char names[CONFIG_OLD_URLS_MAX];
  cr_assert_str_eq(config_old_urls(names, a, b), "segment_target");
  cr_assert_str_eq(config_old_urls(names, a, c), "");
  cr_assert_str_eq(config_old_urls(names, a, e), "segment_target, inband_pssh, cbcs_senc, cenc_iv_size, insecure_clearkey");
  cr_assert_eq(a->cenc_iv_size, CENC_IV_8);
  cr_assert_eq(e->cenc_iv_size, CENC_IV_16);
  cr_assert_null(load("media: /m\ncenc_iv_size: 12\n", NULL));
  cr_assert(strstr(error.text, "cenc_iv_size") && strstr(error.text, "8, 16"), "%s", error.text);
  config_free(e);
  config_free(a);
  config_free(b);
  config_free(c);
  config_free(d);
}

// Some other value of an option.
static const char *another(const struct option *o) {
  static char text[32];
  switch (o->type) {
  case OPT_BOOL: return strcmp(o->def, "true") ? "true" : "false";
  case OPT_COUNT: return strcmp(o->def, "17") ? "17" : "18";
  case OPT_SIZE: return "32M";
  case OPT_DURATION: return "1500ms";
  case OPT_ENUM: return config_allowed(o)[1];
  case OPT_SCHEMES: return "clear";
  case OPT_ADDRS: snprintf(text, sizeof text, "%s%s1.1.1.1:1", o->def, *o->def ? "," : ""); return text; // one more
  case OPT_CERTS: return "a:b";
  case OPT_RULES: return "a=clear";
  case OPT_TEXT:
  case OPT_PATH: return "other";
  }
  return "";
}

Test(options, each_that_differs_is_seen_where_that_matters) {
  for (unsigned i = 0; i < NUM_OPTIONS; i++) {
    const struct option *o = &config_options[i];
    struct config *a = load("media: /m\n", NULL), *b = load("media: /m\n", NULL);
    char why[CONFIG_WHY] = "";
    cr_assert(config_set(b, o, another(o), false, why), "%s: %s", o->name, why);
    for (int turn = 0; turn < 2; turn++) {
      const char *name = turn ? config_restart_needed(b, a) : config_restart_needed(a, b);
      cr_expect(o->reload ? !name : name && !strcmp(name, o->name), "%s: %s", o->name, name);
    }
    bool in_segments = i == OPTION_segment_target || i == OPTION_inband_pssh || i == OPTION_cbcs_senc || i == OPTION_cenc_iv_size ||
                       i == OPTION_insecure_clearkey;
    char names[CONFIG_OLD_URLS_MAX];
    cr_expect_str_eq(config_old_urls(names, a, b), in_segments ? o->name : "");
    config_free(a);
    config_free(b);
  }
}

Test(options, what_stands_behind_the_first_document_is_not_passed_over) {
  cr_assert_null(load("media: /m\n---\nclear: true\n", NULL));
  cr_assert_str_eq(error.text, ":2: one document is expected, not several: put all options into the first");
  cr_assert_null(load("media: /m\n---\n[\n", NULL));
  cr_assert(strstr(error.text, "not valid YAML"), "%s", error.text);
  struct config *c = load("---\nmedia: /m\n...\n", NULL);
  cr_assert(c, "%s", error.text);
  config_free(c);
}

Test(options, two_rules_for_one_prefix_are_refused) {
  cr_assert_null(load("media: /m\nassets:\n  - {prefix: a/, schemes: clear}\n  - {prefix: a/, schemes: cbcs}\n", NULL));
  cr_assert_str_eq(error.text, ":4: assets: two rules for the prefix 'a/': keep one");
  cr_assert_null(with_flags(2, (const char *[]){"--assets=a=clear", "--assets=a=cbcs"}));
  cr_assert_str_eq(error.text, "--assets: two rules for the prefix 'a': keep one");
}

Test(options, public_url_is_a_url) {
  const char *const wrong[] = {"origin.example", "https://", "ftp://origin.example", "//origin.example", "https:///path", "https://a b/",
                               "https://origin.example/#a", "https://origin.example:0/", "https://origin.example:x", "https://a<b", "https://[::1]x/", "https://[a.b]/"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    char yaml[200];
    snprintf(yaml, sizeof yaml, "media: /m\npublic_url: '%s'\n", wrong[i]);
    cr_assert_null(load(yaml, NULL), "%s", wrong[i]);
    cr_assert(strstr(error.text, "is not a URL (like https://origin.example)"), "%s", error.text);
  }
  cr_assert_null(load("media: /m\npublic_url: https://origin.example/?a=b\n", NULL));
  cr_assert(strstr(error.text, "has a query"), "%s", error.text);
  static const char *const hidden[] = {"user:hidden@origin.example/", "user:hid#den@origin.example", "user:hid/den@origin.example"};
  for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
    char text[128];
    snprintf(text, sizeof text, "media: /m\npublic_url: 'https://%s'\n", hidden[i]);
    cr_assert_null(load(text, NULL), "%s", text);
    cr_assert(strstr(error.text, "a user or a password") && !strstr(error.text, "hid"), "%s", error.text);
  }
  struct config *c = load("media: /m\npublic_url: https://origin.example/music/\n", NULL);
  cr_assert(c, "%s", error.text);
  config_free(c);
}

// The licence's path has to have room behind it (KEYRING_URL_MAX).
Test(options, public_url_has_400_bytes_at_most) {
  enum { MOST = 400 };
  static const char begin[] = "https://origin.example/";
  for (size_t len = MOST - 1; len <= MOST + 1; len++) {
    char url[MOST + 2] = "", yaml[MOST + 64], flag[MOST + 64];
    memcpy(url, begin, sizeof begin - 1);
    memset(url + sizeof begin - 1, 'a', len - (sizeof begin - 1));
    snprintf(yaml, sizeof yaml, "media: /m\npublic_url: %s\n", url);
    snprintf(flag, sizeof flag, "--public-url=%s", url);
    for (int from = 0; from < 2; from++) {
      struct config *c = from ? with_flags(2, (const char *[]){"--media=/m", flag}) : load(yaml, NULL);
      cr_assert_eq(c != NULL, len <= MOST, "%zu bytes: %s", len, error.text);
      if (c)
        cr_expect_str_eq(c->public_url, url);
      else
        cr_expect_str_eq(error.text, from ? "--public-url: 401 bytes are more than 400" : ":2: public_url: 401 bytes are more than 400");
      config_free(c);
    }
  }
}

Test(options, bytes_that_are_no_text_are_told_with_their_line) {
  cr_assert_null(load("media: /m\n\nworkers: \xff\n", NULL));
  cr_assert_str_eq(error.text, ":3: not valid YAML: invalid leading UTF-8 octet");
}

Test(options, a_likely_name_is_offered) {
  cr_assert_str_eq(config_nearest("worker")->name, "workers");
  cr_assert_str_eq(config_nearest("mdia")->name, "media");
  cr_assert_null(config_nearest("x"), "nothing of it would be left");
  cr_assert_null(config_nearest(""));
  cr_assert_null(config_nearest("frobnicate_all"));
}

Test(options, a_truth_value_may_stand_behind_its_flag) {
  struct config *c = with_flags(5, (const char *[]){"--media", "/m", "--pin-workers", "false", "--insecure-clearkey"});
  cr_assert(c, "%s", error.text);
  cr_assert_not(c->pin_workers);
  cr_assert(c->insecure_clearkey);
  config_free(c);
}
