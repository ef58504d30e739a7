// The YAML form of the option table. Errors name file, line, option, what is wrong and what is allowed.
#include <yaml.h>

#include "base/text.h"
#include "server/options.h"

struct reading {
  struct config *c;
  yaml_document_t *doc;
  const char *name; // of the file
  struct config_error *error;
};

static unsigned line_of(const yaml_node_t *n) { return (unsigned)n->start_mark.line + 1; }

static bool fault(struct reading *r, const yaml_node_t *at, const char *option, const char *what) {
  return config_fail(r->error, "%s:%u: %s: %s", r->name, line_of(at), option, what);
}

static const char *scalar(const yaml_node_t *n) {
  return n->type == YAML_SCALAR_NODE && strlen((const char *)n->data.scalar.value) == n->data.scalar.length
             ? (const char *)n->data.scalar.value
             : NULL;
}

// YAML's word for no value. In quotes it is a text.
static bool is_null(const yaml_node_t *n) {
  const char *text = n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? scalar(n) : NULL;
  return text && is_yaml_null(bytes_str(text));
}

static const struct option *find_option(struct reading *r, const yaml_node_t *key) {
  const char *name = scalar(key);
  for (unsigned i = 0; name && i < NUM_OPTIONS; i++)
    if (!strcmp(name, config_options[i].name))
      return &config_options[i];
  static const char *const of_keys[] = {"derive", "epochs", "providers", "drm"};
  for (unsigned i = 0; name && i < sizeof of_keys / sizeof of_keys[0]; i++)
    if (!strcmp(name, of_keys[i])) {
      config_fail(r->error, "%s:%u: '%s' belongs in the keys file, which `keys: FILE` names", r->name, line_of(key), name);
      return NULL;
    }
  const struct option *near = name ? config_nearest(name) : NULL;
  if (near)
    config_fail(r->error, "%s:%u: unknown option '%s'; did you mean '%s'?", r->name, line_of(key), name, near->name);
  else
    config_fail(r->error, "%s:%u: unknown option '%.60s'; `sluice serve --help` lists them", r->name, line_of(key),
                name ? name : "(not a word)");
  return NULL;
}

// The value of `name` in a mapping, or NULL. A list of words is joined with blanks into `buf`.
static const char *member(struct reading *r, const yaml_node_t *map, const char *name, char *buf, size_t cap) {
  for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
    const yaml_node_t *k = yaml_document_get_node(r->doc, p->key), *v = yaml_document_get_node(r->doc, p->value);
    const char *key = scalar(k);
    if (!key || strcmp(key, name) != 0)
      continue;
    if (v->type != YAML_SEQUENCE_NODE)
      return scalar(v);
    buf[0] = 0;
    for (const yaml_node_item_t *i = v->data.sequence.items.start; i < v->data.sequence.items.top; i++) {
      const char *word = scalar(yaml_document_get_node(r->doc, *i));
      size_t n = strlen(buf);
      if (!word || n + strlen(word) + 2 > cap)
        return NULL;
      snprintf(buf + n, cap - n, "%s%s", n ? " " : "", word);
    }
    return buf;
  }
  return NULL;
}

// Each member is known, and there once.
static bool only_members(struct reading *r, const struct option *o, const yaml_node_t *map, const char *const *allowed) {
  unsigned seen = 0;
  for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
    const yaml_node_t *k = yaml_document_get_node(r->doc, p->key);
    const char *key = scalar(k);
    unsigned i = 0;
    while (key && allowed[i] && strcmp(key, allowed[i]))
      i++;
    if (!key || !allowed[i])
      return config_fail(r->error, "%s:%u: %s: unknown member '%.60s'; known: %s, %s%s%s", r->name, line_of(k), o->name,
                         key ? key : "?", allowed[0], allowed[1], allowed[2] ? ", " : "", allowed[2] ? allowed[2] : "");
    if (seen >> i & 1)
      return config_fail(r->error, "%s:%u: %s: '%s' is given twice", r->name, line_of(k), o->name, key);
    seen |= 1u << i;
  }
  return true;
}

static bool read_map(struct reading *r, const struct option *o, const yaml_node_t *map) {
  static const char *const of_cert[] = {"cert", "key", "ocsp", NULL}, *const of_rule[] = {"prefix", "schemes", NULL};
  char a[256], b[256], c[256], why[CONFIG_WHY];
  if (o->type == OPT_CERTS) {
    const size_t num = (size_t)(map->data.mapping.pairs.top - map->data.mapping.pairs.start);
    const char *cert = member(r, map, "cert", a, sizeof a), *key = member(r, map, "key", b, sizeof b);
    const char *ocsp = member(r, map, "ocsp", c, sizeof c);
    if (!only_members(r, o, map, of_cert))
      return false;
    if (!cert || !key || num != 2u + (ocsp != NULL)) // an ocsp that is no text must not be passed over
      return fault(r, map, o->name, "needs {cert: FILE, key: FILE}, and may have ocsp: FILE");
    return config_add_cert(r->c, o, cert, key, ocsp) || fault(r, map, o->name, "out of memory");
  }
  if (o->type == OPT_RULES) {
    const char *prefix = member(r, map, "prefix", a, sizeof a), *schemes = member(r, map, "schemes", b, sizeof b);
    unsigned bits;
    if (!only_members(r, o, map, of_rule))
      return false;
    if (!prefix || !schemes)
      return fault(r, map, o->name, "needs {prefix: NAME, schemes: [clear, cenc, cbcs]}");
    if (!config_scheme_bits(&bits, schemes, why))
      return fault(r, map, o->name, why);
    return config_add_rule(r->c, o, prefix, bits, why) || fault(r, map, o->name, why);
  }
  return fault(r, map, o->name, "takes a value, not a mapping");
}

static bool takes_list(const struct option *o) {
  return o->type == OPT_ADDRS || o->type == OPT_CERTS || o->type == OPT_RULES || o->type == OPT_SCHEMES ||
         o == &config_options[OPTION_cpu_affinity] || o == &config_options[OPTION_admin_hosts];
}

static bool read_option(struct reading *r, const struct option *o, const yaml_node_t *v) {
  char why[CONFIG_WHY];
  if (v->type == YAML_SCALAR_NODE) {
    const char *text = scalar(v);
    if (!text)
      return fault(r, v, o->name, "the text contains a NUL");
    return config_set(r->c, o, is_null(v) ? "" : text, false, why) || fault(r, v, o->name, why);
  }
  if (v->type != YAML_SEQUENCE_NODE)
    return fault(r, v, o->name, "takes a value, not a mapping");
  if (!takes_list(o))
    return fault(r, v, o->name, "takes one value, not a list");
  if (o->type == OPT_SCHEMES && v->data.sequence.items.start == v->data.sequence.items.top)
    return fault(r, v, o->name, "the list is empty");
  config_clear(r->c, o);
  if ((o->type == OPT_TEXT) && !config_set(r->c, o, "", false, why))
    return fault(r, v, o->name, why);
  for (const yaml_node_item_t *i = v->data.sequence.items.start; i < v->data.sequence.items.top; i++) {
    const yaml_node_t *item = yaml_document_get_node(r->doc, *i);
    const char *text = scalar(item);
    if (item->type == YAML_MAPPING_NODE) {
      if (!read_map(r, o, item))
        return false;
    } else if (!text) {
      return fault(r, item, o->name, "a list in a list");
    } else if (!config_set(r->c, o, text, true, why)) {
      return fault(r, item, o->name, why);
    }
  }
  return true;
}

// Read as no value they would be the default of what somebody meant to set, or an empty file.
static bool no_lone_anchors(struct reading *r) {
  for (const yaml_node_t *n = r->doc->nodes.start; n < r->doc->nodes.top; n++)
    if (n->type == YAML_SCALAR_NODE && YAML_IS_LONE(n->data.scalar, n->start_mark, n->end_mark))
      return config_fail(r->error, "%s:%u: " YAML_LONE, r->name, line_of(n));
  return true;
}

static bool read_document(struct reading *r) {
  const yaml_node_t *root = yaml_document_get_root_node(r->doc);
  bool seen[NUM_OPTIONS] = {false};
  if (!no_lone_anchors(r))
    return false;
  if (!root || (root->type == YAML_SCALAR_NODE && (root->data.scalar.length == 0 || is_null(root))))
    return true; // an empty file
  if (root->type != YAML_MAPPING_NODE)
    return config_fail(r->error, "%s:%u: expected lines of the form `option: value`", r->name, line_of(root));
  for (const yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++) {
    const yaml_node_t *key = yaml_document_get_node(r->doc, p->key);
    const struct option *o = find_option(r, key);
    if (!o)
      return false;
    if (seen[o - config_options])
      return fault(r, key, o->name, "given twice");
    seen[o - config_options] = true;
    if (!read_option(r, o, yaml_document_get_node(r->doc, p->value)))
      return false;
  }
  return true;
}

// libyaml gives a line to faults of syntax, and only an offset to bytes that are no text.
static bool not_yaml(const yaml_parser_t *p, const char *name, const char *text, size_t len, struct config_error *error) {
  if (p->error == YAML_MEMORY_ERROR)
    return config_fail(error, "%s: out of memory", name);
  unsigned line = (unsigned)p->problem_mark.line + 1;
  if (p->error == YAML_READER_ERROR) {
    line = 1;
    for (size_t i = 0; i < p->problem_offset && i < len; i++)
      line += text[i] == '\n';
  }
  return config_fail(error, "%s:%u: not valid YAML: %s", name, line, yaml_fault(p->problem));
}

bool config_read_yaml(struct config *c, const char *name, const char *text, size_t len, struct config_error *error) {
  yaml_parser_t parser;
  yaml_document_t doc, rest;
  if (!yaml_parser_initialize(&parser))
    return config_fail(error, "out of memory");
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
  bool ok = yaml_parser_load(&parser, &doc) || not_yaml(&parser, name, text, len, error);
  if (ok) {
    struct reading r = {c, &doc, name, error};
    ok = read_document(&r);
    yaml_document_delete(&doc);
  }
  // What stands behind `---` must not be passed over: its author believes that it holds.
  if (ok && (ok = yaml_parser_load(&parser, &rest) || not_yaml(&parser, name, text, len, error))) {
    const yaml_node_t *more = yaml_document_get_root_node(&rest);
    if (more)
      ok = config_fail(error, "%s:%u: one document is expected, not several: put all options into the first", name,
                       (unsigned)rest.start_mark.line + 1);
    yaml_document_delete(&rest);
  }
  yaml_parser_delete(&parser);
  return ok;
}
