// The server's configuration as YAML (docs/configuration.md). What is accepted lies within the limits of the option table and
// reads the same when it is written from its values; what is refused names a line and frees everything.
#include <string.h>

#include "base/writer.h"
#include "server/options.h"
#include "fuzz.h"

enum { MAX_TEXT = 1 << 20 };

// The values of an option, by its type; others are not looked at.
struct value {
  const struct option *o;
  const void *at;
};

static struct value value_of(const struct config *c, unsigned i) {
  return (struct value){&config_options[i], (const char *)c + config_options[i].offset};
}

static uint64_t number(struct value v) { return *(const uint64_t *)v.at; }
static const char *text(struct value v) { return *(char *const *)v.at; }

static void check_value(struct value v) {
  unsigned most = 0;
  switch (v.o->type) {
  case OPT_COUNT:
  case OPT_SIZE:
  case OPT_DURATION: MUST(number(v) >= v.o->min && number(v) <= v.o->max); break;
  case OPT_TEXT:
  case OPT_PATH:
    MUST(text(v) && (v.o->type == OPT_PATH || !v.o->max || strlen(text(v)) <= v.o->max));
    for (const char *p = text(v); *p; p++)
      MUST((unsigned char)*p >= 0x20);
    break;
  case OPT_ENUM:
    while (config_allowed(v.o)[most])
      most++;
    MUST(*(const unsigned *)v.at < most);
    break;
  case OPT_SCHEMES: MUST(*(const unsigned *)v.at && *(const unsigned *)v.at < 1u << SCHEME_COUNT); break;
  case OPT_ADDRS:
    for (unsigned i = 0; i < ((const struct config_addrs *)v.at)->num; i++)
      MUST(!strpbrk(((const struct config_addrs *)v.at)->a[i].text, " ,"));
    break;
  case OPT_CERTS:
    for (unsigned i = 0; i < ((const struct config_certs *)v.at)->num; i++)
      MUST(((const struct config_certs *)v.at)->a[i].cert && ((const struct config_certs *)v.at)->a[i].key);
    break;
  case OPT_RULES:
    for (unsigned i = 0; i < ((const struct config_rules *)v.at)->num; i++)
      MUST(((const struct config_rules *)v.at)->a[i].schemes);
    break;
  case OPT_BOOL: break;
  }
}

// Text in double quotes, where all of it is printable ASCII: others would need to be written as code points.
static bool write_text(struct writer *w, const char *s) {
  wr_str(w, "\"");
  for (; *s; s++) {
    if (*s < 0x20 || *s > 0x7e)
      return false;
    if (*s == '"' || *s == '\\')
      wr_str(w, "\\");
    wr_u8(w, (uint8_t)*s);
  }
  wr_str(w, "\"");
  return true;
}

static void write_schemes(struct writer *w, unsigned bits) {
  const char *before = "[";
  for (unsigned s = 0; s < SCHEME_COUNT; s++)
    if (bits & 1u << s) {
      wr_str(w, before);
      wr_str(w, scheme_name((enum scheme)s));
      before = ", ";
    }
  wr_str(w, "]");
}

static bool write_list(struct writer *w, struct value v) {
  bool ok = true;
  wr_str(w, "[");
  if (v.o->type == OPT_ADDRS) {
    const struct config_addrs *l = v.at;
    for (unsigned i = 0; ok && i < l->num; i++, wr_str(w, ", "))
      ok = write_text(w, l->a[i].text);
  } else if (v.o->type == OPT_CERTS) {
    const struct config_certs *l = v.at;
    for (unsigned i = 0; ok && i < l->num; i++) {
      wr_str(w, "{cert: ");
      ok = write_text(w, l->a[i].cert);
      wr_str(w, ", key: ");
      ok = ok && write_text(w, l->a[i].key);
      wr_str(w, l->a[i].ocsp ? ", ocsp: " : "");
      ok = ok && (!l->a[i].ocsp || write_text(w, l->a[i].ocsp));
      wr_str(w, "}, ");
    }
  } else {
    const struct config_rules *l = v.at;
    for (unsigned i = 0; ok && i < l->num; i++) {
      wr_str(w, "{prefix: ");
      ok = write_text(w, l->a[i].prefix);
      wr_str(w, ", schemes: ");
      write_schemes(w, l->a[i].schemes);
      wr_str(w, "}, ");
    }
  }
  wr_str(w, "]");
  return ok;
}

static bool write_value(struct writer *w, struct value v) {
  switch (v.o->type) {
  case OPT_BOOL: wr_str(w, *(const bool *)v.at ? "true" : "false"); return true;
  case OPT_COUNT:
  case OPT_SIZE:
  case OPT_DURATION:
    wr_dec(w, number(v));
    wr_str(w, v.o->type == OPT_DURATION ? "ms" : "");
    return true;
  case OPT_TEXT:
  case OPT_PATH: return write_text(w, text(v));
  case OPT_ENUM: wr_str(w, config_allowed(v.o)[*(const unsigned *)v.at]); return true;
  case OPT_SCHEMES: write_schemes(w, *(const unsigned *)v.at); return true;
  case OPT_ADDRS:
  case OPT_CERTS:
  case OPT_RULES: return write_list(w, v);
  }
  return false;
}

static bool write_config(struct writer *w, const struct config *c) {
  bool ok = true;
  for (unsigned i = 0; ok && i < NUM_OPTIONS; i++) {
    wr_str(w, config_options[i].name);
    wr_str(w, ": ");
    ok = write_value(w, value_of(c, i));
    wr_str(w, "\n");
  }
  return ok && wr_ok(w);
}

static struct config *defaults(void) {
  struct config_flags flags = {.num = 1, .a = {{OPTION_media, "m"}}};
  struct config_error e;
  struct config *c = config_load(NULL, &flags, &e);
  MUST(c);
  return c;
}

// "f:12: …", of a line that the text has. Lines end at CR, LF, NEL, LS and PS: one has at least one byte.
static void check_error(const struct config_error *e, size_t size) {
  char *end;
  MUST(memchr(e->text, 0, sizeof e->text) && !strncmp(e->text, "f:", 2));
  unsigned long line = strtoul(e->text + 2, &end, 10);
  MUST(line >= 1 && line <= size + 1 && end[0] == ':' && end[1] == ' ' && end[2]);
}

// Written from its values the configuration is the same, and so is its text.
static void check_again(const struct config *c) {
  static uint8_t first[MAX_TEXT], second[MAX_TEXT];
  struct writer w = wr_of(first, sizeof first), v = wr_of(second, sizeof second);
  struct config_error e = {.text = ""};
  struct config *again = defaults();
  if (write_config(&w, c)) {
    require(config_read_yaml(again, "f", (const char *)first, w.n, &e), e.text);
    MUST(write_config(&v, again) && v.n == w.n && !memcmp(first, second, w.n));
    MUST(!config_restart_needed(c, again));
  }
  config_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct config_error e = {.text = ""};
  struct config *c = defaults();
  if (!config_read_yaml(c, "f", (const char *)data, size, &e)) {
    check_error(&e, size);
  } else {
    for (unsigned i = 0; i < NUM_OPTIONS; i++)
      check_value(value_of(c, i));
    check_again(c);
  }
  config_free(c);
  return 0;
}
