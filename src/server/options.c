// Values of the option table: reading, limits, flags.
#include "server/options.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/text.h"
#include "keys/epochs.h"
#include "obs/told.h"

const struct option config_options[NUM_OPTIONS] = {
#define X(field, type, def, min, max, reload, doc) {#field, type, def, min, max, reload, doc, offsetof(struct config, field)},
    CONFIG_OPTIONS(X)
#undef X
};

const char *const *config_allowed(const struct option *o) {
  static const char *const io[] = {"auto", "io_uring", "epoll", NULL};
  static const char *const steering[] = {"auto", "turns", "cpu", "hash", NULL};
  static const char *const format[] = {"combined", "json", NULL};
  static const char *const level[] = {"error", "warn", "info", "debug", NULL};
  static const char *const iv_size[] = {"8", "16", NULL};
  static const char *const none[] = {NULL};
  switch (o - config_options) {
  case OPTION_io: return io;
  case OPTION_steering: return steering;
  case OPTION_access_format: return format;
  case OPTION_cenc_iv_size: return iv_size;
  case OPTION_log_level: return level;
  default: return none;
  }
}

const struct option *config_nearest(const char *name) {
  const struct option *nearest = NULL;
  unsigned best = word_bound(name);
  for (unsigned i = 0; i < NUM_OPTIONS; i++)
    if (word_nearer(name, config_options[i].name, &best))
      nearest = &config_options[i];
  return nearest;
}

bool config_fail(struct config_error *e, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(e->text, sizeof e->text, fmt, ap);
  va_end(ap);
  return false;
}

static bool no(char why[CONFIG_WHY], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool no(char why[CONFIG_WHY], const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, CONFIG_WHY, fmt, ap);
  va_end(ap);
  return false;
}

static void *field_of(struct config *c, const struct option *o) { return (char *)c + o->offset; }

struct unit {
  const char *suffix;
  uint64_t factor;
};

static const struct unit sizes[] = {{"", 1}, {"K", 1ULL << 10}, {"M", 1ULL << 20}, {"G", 1ULL << 30}, {"T", 1ULL << 40}};
static const struct unit durations[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};

static bool scaled(uint64_t *out, const char *text, const struct unit *units, size_t num_units) {
  size_t digits = strspn(text, "0123456789");
  uint64_t v;
  if (parse_u64(&v, bytes_of(text, digits)))
    return false;
  if (v == 0 && text[digits] == 0) {
    *out = 0;
    return true;
  }
  for (size_t i = 0; i < num_units; i++)
    // As in nginx a size may have small letters; of times `m` and `M` are different things there.
    if (!(units == sizes ? strcasecmp : strcmp)(text + digits, units[i].suffix))
      return !__builtin_mul_overflow(v, units[i].factor, out);
  return false;
}

static void print_limit(char *out, size_t cap, const struct option *o, uint64_t v) {
  const struct unit *units = o->type == OPT_SIZE ? sizes : durations;
  size_t best = 0;
  if (o->type == OPT_COUNT) {
    snprintf(out, cap, "%llu", (unsigned long long)v);
    return;
  }
  for (size_t i = 0; i < 5; i++)
    if (v % units[i].factor == 0)
      best = i;
  snprintf(out, cap, "%llu%s", (unsigned long long)(v / units[best].factor), v ? units[best].suffix : "");
}

bool config_takes_on(const struct option *o) { return o->type == OPT_SIZE && !strcmp(o->def, "on"); }
bool config_takes_off(const struct option *o) { return o->type == OPT_SIZE && o->min == 0; }

static bool set_number(struct config *c, const struct option *o, const char *text, char why[CONFIG_WHY]) {
  uint64_t v = 0;
  char lo[32], hi[32];
  bool ok;
  if (o->type == OPT_SIZE && !strcmp(text, "off") && config_takes_off(o))
    ok = true;
  else if (o->type == OPT_SIZE && !strcmp(text, "on") && config_takes_on(o))
    ok = (v = o->max, true);
  else if (o->type == OPT_SIZE)
    ok = scaled(&v, text, sizes, 5);
  else if (o->type == OPT_DURATION)
    ok = scaled(&v, text, durations, 5);
  else
    ok = !parse_u64(&v, bytes_str(text));
  if (!ok)
    return no(why, "'%s' is not %s%s%s%s", text,
              o->type == OPT_SIZE       ? "a size (like 512, 64K, 16M, 2G"
              : o->type == OPT_DURATION ? "a duration (like 250ms, 2s, 5m, 24h, 7d, 0)"
                                        : "a whole number",
              config_takes_on(o) ? ", on" : "", config_takes_off(o) ? ", off" : "", o->type == OPT_SIZE ? ")" : "");
  print_limit(lo, sizeof lo, o, o->min);
  print_limit(hi, sizeof hi, o, o->max);
  if (v < o->min || v > o->max)
    return no(why, "%s is %s than %s (allowed: %s to %s)", text, v < o->min ? "less" : "more", v < o->min ? lo : hi, lo, hi);
  *(uint64_t *)field_of(c, o) = v;
  return true;
}

// Which truth value a word stands for, in small letters or others (YAML has true, True and TRUE); -1: none.
static int truth_of(const char *text) {
  static const char *const words[2][4] = {{"false", "no", "off", "0"}, {"true", "yes", "on", "1"}};
  for (int v = 0; v < 2; v++)
    for (int i = 0; i < 4; i++)
      if (!strcasecmp(text, words[v][i]))
        return v;
  return -1;
}

static bool set_bool(struct config *c, const struct option *o, const char *text, char why[CONFIG_WHY]) {
  int truth = truth_of(text);
  if (truth < 0)
    return no(why, "'%s' is neither true nor false", text);
  *(bool *)field_of(c, o) = truth == 1;
  return true;
}

static bool set_enum(struct config *c, const struct option *o, const char *text, char why[CONFIG_WHY]) {
  const char *const *allowed = config_allowed(o);
  char list[120] = "";
  for (unsigned i = 0; allowed[i]; i++) {
    if (!strcmp(text, allowed[i])) {
      *(unsigned *)field_of(c, o) = i;
      return true;
    }
    size_t n = strlen(list);
    snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", allowed[i]);
  }
  return no(why, "'%s' is not one of %s", text, list);
}

bool config_scheme_bits(unsigned *out, const char *text, char why[CONFIG_WHY]) {
  unsigned bits = 0;
  for (const char *p = text; *p;) {
    size_t n = strcspn(p, " ,+");
    enum scheme s;
    if (n && scheme_parse(&s, bytes_of(p, n)))
      return no(why, "'%.*s' is not one of clear, cenc, cbcs", (int)(n < 40 ? n : 40), p);
    if (n)
      bits |= 1u << s;
    p += n + (p[n] != 0);
  }
  if (!bits)
    return no(why, "no scheme is given (allowed: clear, cenc, cbcs)");
  *out = bits;
  return true;
}

static bool grow(void *array, unsigned num, size_t size) {
  void *p, *more;
  memcpy(&p, array, sizeof p);
  more = realloc(p, (num + 1) * size);
  if (more)
    memcpy(array, &more, sizeof more);
  return more != NULL;
}

static bool add_addr(struct config *c, const struct option *o, struct bytes text, char why[CONFIG_WHY]) {
  struct config_addrs *a = field_of(c, o);
  const char *s = (const char *)text.p;
  const char *colon = memrchr(s, ':', text.n);
  uint64_t port;
  bool bracketed = text.n && s[0] == '[';
  if (!colon || parse_u64(&port, bytes_of(colon + 1, text.n - (size_t)(colon + 1 - s))) || port > 65535 || colon == s ||
      (bracketed && colon[-1] != ']') || (!bracketed && memchr(s, ':', (size_t)(colon - s))))
    return no(why, "'%.*s' is not ADDR:PORT (like 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80)", (int)(text.n < 80 ? text.n : 80), s);
  if (!grow(&a->a, a->num, sizeof *a->a))
    return no(why, "out of memory");
  size_t host = bracketed ? 1 : 0;
  struct config_addr *fresh = &a->a[a->num++];
  *fresh = (struct config_addr){strndup(s, text.n), strndup(s + host, (size_t)(colon - s) - 2 * host), (uint16_t)port};
  return (fresh->text && fresh->host) || no(why, "out of memory");
}

bool config_add_cert(struct config *c, const struct option *o, const char *cert, const char *key, const char *ocsp) {
  struct config_certs *a = field_of(c, o);
  if (!grow(&a->a, a->num, sizeof *a->a))
    return false;
  struct config_cert *fresh = &a->a[a->num++];
  *fresh = (struct config_cert){strdup(cert), strdup(key), ocsp ? strdup(ocsp) : NULL};
  return fresh->cert && fresh->key && (fresh->ocsp || !ocsp);
}

bool config_add_rule(struct config *c, const struct option *o, const char *prefix, unsigned schemes, char why[CONFIG_WHY]) {
  struct config_rules *a = field_of(c, o);
  struct diag diag = {0};
  if (epochs_scope_served(bytes_str(prefix), &diag)) // it would match nothing
    return no(why, "the prefix '%.80s': %s", prefix, diag.what);
  for (unsigned i = 0; i < a->num; i++)
    if (!strcmp(a->a[i].prefix, prefix))
      return no(why, "two rules for the prefix '%.80s': keep one", prefix);
  if (!grow(&a->a, a->num, sizeof *a->a))
    return no(why, "out of memory");
  struct config_rule *fresh = &a->a[a->num++];
  *fresh = (struct config_rule){strdup(prefix), schemes};
  return fresh->prefix || no(why, "out of memory");
}

// One element of a list, from a flag or a scalar: addresses and certificates may stand side by side, separated by blanks or
// commas.
static bool add_words(struct config *c, const struct option *o, const char *text, char why[CONFIG_WHY]) {
  for (const char *p = text; *p;) {
    size_t n = strcspn(p, " ,");
    if (n && o->type == OPT_ADDRS && !add_addr(c, o, bytes_of(p, n), why))
      return false;
    if (n && o->type == OPT_CERTS) {
      char *word = strndup(p, n), *colon = word ? strchr(word, ':') : NULL;
      if (!colon) {
        free(word);
        return no(why, "'%.*s' is not CERT:KEY, two PEM files", (int)(n < 80 ? n : 80), p);
      }
      *colon = 0;
      bool ok = config_add_cert(c, o, word, colon + 1, NULL);
      free(word);
      if (!ok)
        return no(why, "out of memory");
    }
    p += n + (p[n] != 0);
  }
  return true;
}

static bool add_rule_text(struct config *c, const struct option *o, const char *text, char why[CONFIG_WHY]) {
  const char *equals = strchr(text, '=');
  unsigned bits;
  if (!equals)
    return no(why, "'%s' is not PREFIX=SCHEMES (like free/=clear,cbcs)", text);
  if (!config_scheme_bits(&bits, equals + 1, why))
    return false;
  char *prefix = strndup(text, (size_t)(equals - text));
  bool ok = prefix ? config_add_rule(c, o, prefix, bits, why) : no(why, "out of memory");
  free(prefix);
  return ok;
}

static bool set_text(struct config *c, const struct option *o, const char *text, bool append, char why[CONFIG_WHY]) {
  char **field = field_of(c, o), *old = *field, *fresh = NULL;
  for (const char *p = text; *p; p++)
    if ((unsigned char)*p < 0x20)
      return no(why, "control characters are not allowed");
  if (o->type == OPT_TEXT && o->max && strlen(text) > o->max)
    return no(why, "%zu bytes are more than %llu", strlen(text), (unsigned long long)o->max);
  if (append && old && *old) {
    if (asprintf(&fresh, "%s %s", old, text) < 0)
      fresh = NULL;
  } else {
    fresh = strdup(text);
  }
  if (!fresh)
    return no(why, "out of memory");
  free(old);
  *field = fresh;
  return true;
}

bool config_set(struct config *c, const struct option *o, const char *text, bool append, char why[CONFIG_WHY]) {
  switch (o->type) {
  case OPT_BOOL: return set_bool(c, o, text, why);
  case OPT_COUNT:
  case OPT_SIZE:
  case OPT_DURATION: return set_number(c, o, text, why);
  case OPT_ENUM: return set_enum(c, o, text, why);
  case OPT_TEXT:
  case OPT_PATH: return set_text(c, o, text, append, why);
  case OPT_SCHEMES: {
    unsigned bits, *field = field_of(c, o);
    if (!config_scheme_bits(&bits, text, why))
      return false;
    *field = append ? *field | bits : bits;
    return true;
  }
  case OPT_ADDRS:
  case OPT_CERTS:
    if (!append)
      config_clear(c, o);
    return add_words(c, o, text, why);
  case OPT_RULES:
    if (!append)
      config_clear(c, o);
    return *text == 0 || add_rule_text(c, o, text, why);
  }
  return false;
}

void config_clear(struct config *c, const struct option *o) {
  if (o->type == OPT_ADDRS) {
    struct config_addrs *a = field_of(c, o);
    for (unsigned i = 0; i < a->num; i++) {
      free(a->a[i].text);
      free(a->a[i].host);
    }
    free(a->a);
    *a = (struct config_addrs){0};
  } else if (o->type == OPT_CERTS) {
    struct config_certs *a = field_of(c, o);
    for (unsigned i = 0; i < a->num; i++) {
      free(a->a[i].cert);
      free(a->a[i].key);
      free(a->a[i].ocsp);
    }
    free(a->a);
    *a = (struct config_certs){0};
  } else if (o->type == OPT_RULES) {
    struct config_rules *a = field_of(c, o);
    for (unsigned i = 0; i < a->num; i++)
      free(a->a[i].prefix);
    free(a->a);
    *a = (struct config_rules){0};
  } else if (o->type == OPT_TEXT || o->type == OPT_PATH) {
    char **s = field_of(c, o);
    free(*s);
    *s = NULL;
  } else if (o->type == OPT_SCHEMES) {
    *(unsigned *)field_of(c, o) = 0;
  }
}

void config_free(struct config *c) {
  if (!c)
    return;
  for (unsigned i = 0; i < NUM_OPTIONS; i++)
    config_clear(c, &config_options[i]);
  free(c->file);
  free(c->text);
  free(c);
}

static bool flag_is(const struct option *o, const char *flag, size_t n) {
  if (strlen(o->name) != n)
    return false;
  for (size_t i = 0; i < n; i++)
    if ((o->name[i] == '_' ? '-' : o->name[i]) != flag[i])
      return false;
  return true;
}

int config_flag(struct config_flags *flags, int argc, char **argv, int *i, struct config_error *error) {
  const char *arg = argv[*i];
  if (arg[0] != '-' || arg[1] != '-')
    return 0;
  size_t n = strcspn(arg + 2, "=");
  for (unsigned k = 0; k < NUM_OPTIONS; k++) {
    const struct option *o = &config_options[k];
    if (!flag_is(o, arg + 2, n))
      continue;
    const char *value = arg[2 + n] == '=' ? arg + 2 + n + 1 : NULL;
    if (!value && o->type == OPT_BOOL)
      value = *i + 1 < argc && truth_of(argv[*i + 1]) >= 0 ? argv[++*i] : "true";
    if (!value && *i + 1 < argc)
      value = argv[++*i];
    if (!value || flags->num == sizeof flags->a / sizeof flags->a[0]) {
      config_fail(error, value ? "%s: too many flags" : "%s needs a value", arg);
      return -1;
    }
    config_flag_add(flags, k, value);
    ++*i;
    return 1;
  }
  return 0;
}

void config_flag_add(struct config_flags *flags, unsigned option, const char *value) {
  if (!value)
    return;
  assert(flags->num < sizeof flags->a / sizeof flags->a[0]);
  flags->a[flags->num].option = option;
  flags->a[flags->num++].value = value;
}

static bool apply_flags(struct config *c, const struct config_flags *flags, struct config_error *error) {
  bool seen[NUM_OPTIONS] = {false};
  for (unsigned i = 0; flags && i < flags->num; i++) {
    const struct option *o = &config_options[flags->a[i].option];
    bool list = o->type == OPT_ADDRS || o->type == OPT_CERTS || o->type == OPT_RULES;
    char why[CONFIG_WHY], name[64];
    snprintf(name, sizeof name, "--%s", o->name);
    for (char *p = name; *p; p++)
      *p = *p == '_' ? '-' : *p;
    if (!config_set(c, o, flags->a[i].value, list && seen[flags->a[i].option], why))
      return config_fail(error, "%s: %s", name, why);
    seen[flags->a[i].option] = true;
  }
  return true;
}

enum { MAX_FILE = 1 << 20 };

const char config_empty_pipe[] = "the pipe has nothing, or nothing any more: one is good for the start, not for a reload";

static bool read_file(struct config *c, const char *file, struct config_error *error) {
  FILE *f = fopen(file, "re");
  if (!f)
    return config_fail(error, "%s: %s", TOLD(file), strerror(errno));
  char *text = malloc(MAX_FILE + 1);
  size_t n = text ? fread(text, 1, MAX_FILE + 1, f) : 0;
  bool failed = !text || ferror(f);
  int why = errno;
  struct stat st;
  bool empty_pipe = !n && !fstat(fileno(f), &st) && S_ISFIFO(st.st_mode);
  fclose(f);
  bool ok = failed          ? config_fail(error, "%s: %s", TOLD(file), strerror(why))
            : empty_pipe    ? config_fail(error, "%s: %s", file, config_empty_pipe)
            : n > MAX_FILE ? config_fail(error, "%s: longer than 1 MiB", file)
                            : config_read_yaml(c, file, text, n, error);
  c->text = text;
  c->text_len = ok ? n : 0;
  return ok;
}

bool config_same(const struct config *a, const struct config *b) {
  return a->text_len == b->text_len && (!a->text_len || !memcmp(a->text, b->text, a->text_len));
}

struct config *config_load(const char *file, const struct config_flags *flags, struct config_error *error) {
  struct config *c = calloc(1, sizeof *c);
  char why[CONFIG_WHY];
  bool ok = c && (!file || (c->file = strdup(file)));
  for (unsigned i = 0; ok && i < NUM_OPTIONS; i++)
    ok = config_set(c, &config_options[i], config_options[i].def, false, why);
  if (!ok)
    config_fail(error, "out of memory");
  if (ok && file)
    ok = read_file(c, file, error);
  error->in_file = !ok;
  if (ok && apply_flags(c, flags, error) && config_check(c, error))
    return c;
  config_free(c);
  return NULL;
}

static bool same_addrs(const struct config_addrs *a, const struct config_addrs *b) {
  bool same = a->num == b->num;
  for (unsigned i = 0; same && i < a->num; i++)
    same = !strcmp(a->a[i].text, b->a[i].text);
  return same;
}

// Of the types whose options need a restart or are in config_old_urls.
static bool same_value(const struct option *o, const struct config *x, const struct config *y) {
  const char *a = (const char *)x + o->offset, *b = (const char *)y + o->offset;
  if (o->type == OPT_ADDRS)
    return same_addrs((const struct config_addrs *)(const void *)a, (const struct config_addrs *)(const void *)b);
  if (o->type == OPT_TEXT || o->type == OPT_PATH)
    return !strcmp(*(char *const *)(const void *)a, *(char *const *)(const void *)b);
  if (o->type == OPT_BOOL)
    return *(const bool *)a == *(const bool *)b;
  return memcmp(a, b, o->type == OPT_ENUM ? sizeof(unsigned) : sizeof(uint64_t)) == 0;
}

const char *config_restart_needed(const struct config *running, const struct config *fresh) {
  for (unsigned i = 0; i < NUM_OPTIONS; i++)
    if (!config_options[i].reload && !same_value(&config_options[i], running, fresh))
      return config_options[i].name;
  return NULL;
}

const char *config_old_urls(char out[CONFIG_OLD_URLS_MAX], const struct config *running, const struct config *fresh) {
  static const unsigned in_segments[] = {OPTION_segment_target, OPTION_inband_pssh, OPTION_cbcs_senc, OPTION_cenc_iv_size,
                                         OPTION_insecure_clearkey};
  struct writer w = wr_of(out, CONFIG_OLD_URLS_MAX - 1);
  for (size_t i = 0; i < sizeof in_segments / sizeof in_segments[0]; i++) {
    const struct option *o = &config_options[in_segments[i]];
    if (same_value(o, running, fresh))
      continue;
    wr_str(&w, w.n ? ", " : "");
    wr_str(&w, o->name);
  }
  out[w.n] = 0;
  return out;
}

unsigned config_schemes(const struct config *c, struct bytes asset) {
  unsigned bits = c->schemes;
  size_t best = 0;
  for (unsigned i = 0; i < c->assets.num; i++) {
    const struct config_rule *r = &c->assets.a[i];
    size_t n = strlen(r->prefix);
    bool folder = n && r->prefix[n - 1] == '/';
    bool fits = folder ? asset.n > n && !memcmp(asset.p, r->prefix, n) : asset.n == n && !memcmp(asset.p, r->prefix, n);
    if ((fits && n >= best) || (n == 0 && best == 0)) {
      bits = r->schemes;
      best = n;
    }
  }
  return bits;
}
