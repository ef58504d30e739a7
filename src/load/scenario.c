#include "load/scenario.h"

#include <stdlib.h>
#include <yaml.h>

#include "base/text.h"
#include "load/playlist.h"

// A field is one row: where it lives, what it may be. Nested maps are written with dots.
enum field_type { F_TEXT, F_NUMBER, F_COUNT, F_SECONDS, F_SHARE, F_MODE, F_PROTOCOL, F_KIND };

static const struct field {
  const char *name;
  enum field_type type;
  size_t off, size; // size: of a text
  double min, max;
} fields[] = {
#define AT(member) offsetof(struct scenario, member), sizeof(((struct scenario *)0)->member)
    {"name", F_TEXT, AT(name), 0, 0},
    {"seed", F_COUNT, AT(seed), 0, (double)SCENARIO_MAX_SEED},
    {"mode", F_MODE, AT(mode), 0, 0},
    {"seconds", F_SECONDS, AT(seconds), 0.1, 86400},
    {"drain", F_SECONDS, AT(drain_s), 0, 3600},
    {"rate", F_NUMBER, AT(rate), 0.001, 1e7},
    {"search.from", F_NUMBER, AT(search.from), 1, 1e7},
    {"search.to", F_NUMBER, AT(search.to), 1, 1e7},
    {"search.probes", F_COUNT, AT(search.probes), 3, 1000},
    {"search.spike", F_NUMBER, AT(search.spike), 0, 100},
    {"search.spike_for", F_SECONDS, AT(search.spike_s), 0.1, 600},
    {"connections", F_COUNT, AT(connections), 1, 1e6},
    {"max_listeners", F_COUNT, AT(max_listeners), 1, 1e6},
    {"catalogue.popularity", F_KIND, AT(catalogue.kind), 0, 0},
    {"catalogue.shape", F_NUMBER, AT(catalogue.shape), 0, 10},
    {"catalogue.release_share", F_SHARE, AT(catalogue.release_share), 0, 1},
    {"scheme", F_TEXT, AT(scheme), 0, 0},
    {"protocol", F_PROTOCOL, AT(protocol), 0, 0},
    {"player.ahead", F_COUNT, AT(ahead), 1, 64},
    {"player.tracks", F_COUNT, AT(tracks), 1, 1000},
    {"player.skip", F_NUMBER, AT(skip_scale), 0, 2},
    {"player.seek", F_SHARE, AT(seek), 0, 1},
    {"player.pause", F_SHARE, AT(pause), 0, 1},
    {"player.pause_for", F_SECONDS, AT(pause_s), 0, 3600},
    {"player.switch_rendition", F_SHARE, AT(switch_rendition), 0, 1},
    {"player.retries", F_COUNT, AT(retries), 0, 100},
    {"player.retry_after", F_SECONDS, AT(retry_s), 0.001, 60},
    {"player.timeout", F_SECONDS, AT(timeout_s), 0.1, 3600},
    {"player.token_ttl", F_SECONDS, AT(token_ttl_s), 0, 86400},
    {"clients.slow_reader", F_SHARE, AT(slow_reader), 0, 1},
    {"clients.slow_bytes_per_s", F_COUNT, AT(slow_bytes_per_s), 1, 1e9},
    {"clients.abort", F_SHARE, AT(abort_body), 0, 1},
    {"clients.half_close", F_SHARE, AT(half_close), 0, 1},
    {"clients.range", F_SHARE, AT(range), 0, 1},
    {"clients.conditional", F_SHARE, AT(conditional), 0, 1},
    {"clients.head", F_SHARE, AT(head), 0, 1},
    {"clients.reconnect", F_SHARE, AT(reconnect), 0, 1},
    {"clients.storm_at", F_SECONDS, AT(storm_at_s), 0, 86400},
    {"clients.storm", F_SHARE, AT(storm), 0, 1},
    {"verify.share", F_SHARE, AT(verify_share), 0, 1},
    {"verify.epoch", F_COUNT, AT(verify_epoch), 0, 4e9},
    {"verify.media", F_TEXT, AT(media), 0, 0},
    {"verify.keys", F_TEXT, AT(keys), 0, 0},
    {"level.startup_p99_ms", F_NUMBER, AT(level.startup_p99_ms), 0, 1e7},
    {"level.latency_p99_ms", F_NUMBER, AT(level.latency_p99_ms), 0, 1e7},
    {"level.lag_p99_ms", F_NUMBER, AT(level.lag_p99_ms), 0, 1e7},
    {"level.deadline_miss", F_SHARE, AT(level.deadline_miss_share), 0, 1},
    {"level.rebuffer", F_SHARE, AT(level.rebuffer_share), 0, 1},
    {"level.errors", F_SHARE, AT(level.error_share), 0, 1},
#undef AT
};

struct parse {
  struct scenario *s;
  struct alloc *mem;
  yaml_document_t doc;
  struct diag *diag;
};

static uint64_t line_of(const yaml_node_t *n) { return (uint64_t)n->start_mark.line + 1; }

static struct bytes text_of(const yaml_node_t *n) { return bytes_of(n->data.scalar.value, n->data.scalar.length); }

// Text, which has no NUL: what stands behind one would be passed over.
static bool is_text(const yaml_node_t *n) {
  return n->type == YAML_SCALAR_NODE && strlen((const char *)n->data.scalar.value) == n->data.scalar.length;
}

static bool is_lone_anchor(const yaml_node_t *n) {
  return n->type == YAML_SCALAR_NODE && YAML_IS_LONE(n->data.scalar, n->start_mark, n->end_mark);
}

static bool is(const yaml_node_t *n, const char *text) { return bytes_eq(text_of(n), bytes_str(text)); }

// A number with an optional unit: seconds take s, ms, m, h; shares take %.
static bool number_of(const yaml_node_t *n, enum field_type type, double *out) {
  char buf[64], *end;
  struct bytes t = text_of(n);
  if (!t.n || t.n >= sizeof buf)
    return false;
  memcpy(buf, t.p, t.n);
  buf[t.n] = 0;
  double v = strtod(buf, &end);
  double scale = 1;
  if (*end && type == F_SECONDS)
    scale = !strcmp(end, "s") ? 1 : !strcmp(end, "ms") ? 1e-3 : !strcmp(end, "m") ? 60 : !strcmp(end, "h") ? 3600 : 0;
  else if (*end && type == F_SHARE)
    scale = !strcmp(end, "%") || !strcmp(end, " %") ? 0.01 : 0;
  else if (*end)
    scale = 0;
  *out = v * scale;
  return end != buf && scale > 0 && isfinite(v);
}

static bool choose(const yaml_node_t *n, const char *const *names, uint32_t num, uint32_t *out) {
  for (uint32_t i = 0; i < num; i++)
    if (is(n, names[i]))
      return *out = i, true;
  return false;
}

const char *const load_modes[LOAD_MODES] = {
    [LOAD_LISTENERS] = "listeners", [LOAD_RATE] = "rate", [LOAD_SATURATE] = "saturate", [LOAD_IDLE] = "idle", [LOAD_CAPACITY] = "capacity"};

static enum err set_choice(struct parse *p, const struct field *f, const yaml_node_t *n) {
  static const char *const protocols[] = {"hls", "dash", "mix"};
  static const char *const kinds[] = {"zipf", "stretched"};
  uint32_t v = 0;
  bool ok = f->type == F_MODE       ? choose(n, load_modes, LOAD_MODES, &v)
            : f->type == F_PROTOCOL ? choose(n, protocols, 3, &v)
                                    : choose(n, kinds, 2, &v);
  if (!ok)
    return diag_set(p->diag, ERR_ARGUMENT, line_of(n), "%s: '%.*s' is not one of %s", f->name,
                    (int)n->data.scalar.length, (const char *)n->data.scalar.value,
                    f->type == F_MODE       ? "listeners, rate, saturate, idle, capacity"
                    : f->type == F_PROTOCOL ? "hls, dash, mix"
                                            : "zipf, stretched");
  memcpy((char *)p->s + f->off, &v, sizeof v);
  return ERR_OK;
}

static enum err set_field(struct parse *p, const struct field *f, const yaml_node_t *n) {
  void *at = (char *)p->s + f->off;
  if (!is_text(n))
    return diag_set(p->diag, ERR_SYNTAX, line_of(n), "%s takes one value", f->name);
  if (f->type == F_MODE || f->type == F_PROTOCOL || f->type == F_KIND)
    return set_choice(p, f, n);
  if (f->type == F_TEXT) {
    if (n->data.scalar.length >= f->size)
      return diag_set(p->diag, ERR_LIMIT, line_of(n), "%s is longer than %zu bytes", f->name, f->size - 1);
    memcpy(at, n->data.scalar.value, n->data.scalar.length + 1);
    return ERR_OK;
  }
  double v;
  if (!number_of(n, f->type, &v) || v < f->min || v > f->max || (f->type == F_COUNT && v != floor(v)))
    return diag_set(p->diag, ERR_ARGUMENT, line_of(n), "%s: '%.*s' is not a %s from %g to %g", f->name,
                    (int)n->data.scalar.length, (const char *)n->data.scalar.value,
                    f->type == F_COUNT     ? "whole number"
                    : f->type == F_SECONDS ? "time (s, ms, m, h)"
                    : f->type == F_SHARE   ? "share, as 0.5 or 50%,"
                                           : "number",
                    f->min, f->max);
  if (f->type != F_COUNT) {
    memcpy(at, &v, sizeof v);
  } else if (f->size == sizeof(uint64_t)) {
    uint64_t u = (uint64_t)v;
    memcpy(at, &u, sizeof u);
  } else {
    uint32_t u = (uint32_t)v;
    memcpy(at, &u, sizeof u);
  }
  return ERR_OK;
}

// Of two of one name the author would believe that the other one holds.
static bool is_given_before(struct parse *p, const yaml_node_t *map, const yaml_node_pair_t *pair) {
  const yaml_node_t *k = yaml_document_get_node(&p->doc, pair->key);
  bool found = false;
  for (const yaml_node_pair_t *before = map->data.mapping.pairs.start; before < pair; before++) {
    const yaml_node_t *other = yaml_document_get_node(&p->doc, before->key);
    found |= other->type == YAML_SCALAR_NODE && k->type == YAML_SCALAR_NODE && bytes_eq(text_of(other), text_of(k));
  }
  return found;
}

// arrivals: a list of { for: TIME, rate: R } or { for: TIME, rate: [FROM, TO] }.
static enum err parse_piece(struct parse *p, const yaml_node_t *n, struct rate_piece *out, double *poll_s) {
  static const struct field time = {"arrivals.for", F_SECONDS, 0, 0, 0, 86400};
  double from = -1, to = -1, seconds = -1;
  if (n->type != YAML_MAPPING_NODE)
    return diag_set(p->diag, ERR_SYNTAX, line_of(n), "arrivals is a list of { for: TIME, rate: R or [FROM, TO], poll: TIME }, poll being optional");
  for (yaml_node_pair_t *pair = n->data.mapping.pairs.start; pair < n->data.mapping.pairs.top; pair++) {
    const yaml_node_t *k = yaml_document_get_node(&p->doc, pair->key), *v = yaml_document_get_node(&p->doc, pair->value);
    bool ok = k->type == YAML_SCALAR_NODE;
    if (is_given_before(p, n, pair))
      return diag_set(p->diag, ERR_SYNTAX, line_of(k), "%.*s is given twice in an entry of arrivals", (int)k->data.scalar.length, (const char *)k->data.scalar.value);
    if (ok && is(k, "for") && v->type == YAML_SCALAR_NODE) {
      ok = number_of(v, F_SECONDS, &seconds) && seconds >= time.min && seconds <= time.max;
    } else if (ok && is(k, "poll") && v->type == YAML_SCALAR_NODE) {
      ok = number_of(v, F_SECONDS, poll_s) && *poll_s >= 0.1 && *poll_s <= 3600;
    } else if (ok && is(k, "rate") && v->type == YAML_SCALAR_NODE) {
      ok = number_of(v, F_NUMBER, &from) && from >= 0 && from <= 1e7;
      to = from;
    } else if (ok && is(k, "rate") && v->type == YAML_SEQUENCE_NODE &&
               v->data.sequence.items.top - v->data.sequence.items.start == 2) {
      const yaml_node_t *a = yaml_document_get_node(&p->doc, v->data.sequence.items.start[0]);
      const yaml_node_t *b = yaml_document_get_node(&p->doc, v->data.sequence.items.start[1]);
      ok = a->type == YAML_SCALAR_NODE && b->type == YAML_SCALAR_NODE && number_of(a, F_NUMBER, &from) &&
           number_of(b, F_NUMBER, &to) && from >= 0 && to >= 0 && from <= 1e7 && to <= 1e7;
    } else {
      ok = false;
    }
    if (!ok)
      return diag_set(p->diag, ERR_ARGUMENT, line_of(k), "arrivals is a list of { for: TIME, rate: R or [FROM, TO], poll: TIME }, poll being optional");
  }
  if (seconds < 0 || from < 0)
    return diag_set(p->diag, ERR_ARGUMENT, line_of(n), "an entry of arrivals needs both `for` and `rate`");
  *out = (struct rate_piece){seconds, from, to};
  return ERR_OK;
}

static enum err parse_arrivals(struct parse *p, const yaml_node_t *n) {
  if (n->type != YAML_SEQUENCE_NODE)
    return diag_set(p->diag, ERR_SYNTAX, line_of(n), "arrivals is a list");
  for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
    if (p->s->num_pieces == SCENARIO_MAX_PIECES)
      return diag_set(p->diag, ERR_LIMIT, line_of(n), "arrivals has more than %d entries", SCENARIO_MAX_PIECES);
    enum err e = parse_piece(p, yaml_document_get_node(&p->doc, *i), &p->s->pieces[p->s->num_pieces],
                             &p->s->poll_s[p->s->num_pieces]);
    if (e)
      return e;
    p->s->num_pieces++;
  }
  return ERR_OK;
}

static enum err one_catalogue(const struct parse *p, const yaml_node_t *k) {
  return diag_set(p->diag, ERR_ARGUMENT, line_of(k), "catalogue.assets is of a sluice, catalogue.manifests of any origin: give one of them");
}

static enum err parse_assets(struct parse *p, const yaml_node_t *n) {
  if (n->type != YAML_SEQUENCE_NODE)
    return diag_set(p->diag, ERR_SYNTAX, line_of(n), "catalogue.assets is a list of asset names");
  size_t num = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
  if (num > SCENARIO_MAX_ASSETS)
    return diag_set(p->diag, ERR_LIMIT, line_of(n), "catalogue.assets has more than %d names", SCENARIO_MAX_ASSETS);
  p->s->catalogue.names = p->mem->get(p->mem, (num ? num : 1) * SCENARIO_MAX_NAME);
  if (!p->s->catalogue.names)
    return diag_set(p->diag, ERR_NO_MEMORY, line_of(n), NULL);
  for (size_t i = 0; i < num; i++) {
    const yaml_node_t *v = yaml_document_get_node(&p->doc, n->data.sequence.items.start[i]);
    if (!is_text(v) || !v->data.scalar.length || v->data.scalar.length >= SCENARIO_MAX_NAME)
      return diag_set(p->diag, ERR_ARGUMENT, line_of(v), "an asset name has 1 to %d bytes", SCENARIO_MAX_NAME - 1);
    char path[PLAYLIST_MAX_URI];
    memcpy(p->s->catalogue.names[i], v->data.scalar.value, v->data.scalar.length);
    if (uri_of_asset(path, p->s->catalogue.names[i], "cbcs/4294967295/manifest.mpd"))
      return diag_set(p->diag, ERR_LIMIT, line_of(v), "an asset name is to fit into a path, percent-encoded, of at most %d bytes", PLAYLIST_MAX_URI - 1);
  }
  p->s->catalogue.num = (uint32_t)num;
  return ERR_OK;
}

// Paths of manifests in place of names of assets.
static enum err parse_manifests(struct parse *p, const yaml_node_t *n) {
  if (n->type != YAML_SEQUENCE_NODE)
    return diag_set(p->diag, ERR_SYNTAX, line_of(n), "catalogue.manifests is a list of paths");
  size_t num = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
  if (num > SCENARIO_MAX_ASSETS)
    return diag_set(p->diag, ERR_LIMIT, line_of(n), "catalogue.manifests has more than %d paths", SCENARIO_MAX_ASSETS);
  const char **manifests = p->mem->get(p->mem, (num ? num : 1) * sizeof *manifests);
  p->s->catalogue.names = p->mem->get(p->mem, (num ? num : 1) * SCENARIO_MAX_NAME); // for messages
  if (!manifests || !p->s->catalogue.names)
    return diag_set(p->diag, ERR_NO_MEMORY, line_of(n), NULL);
  for (size_t i = 0; i < num; i++) {
    const yaml_node_t *v = yaml_document_get_node(&p->doc, n->data.sequence.items.start[i]);
    char path[PLAYLIST_MAX_URI];
    if (!is_text(v) || !v->data.scalar.length || v->data.scalar.value[0] != '/' || uri_resolve(path, "/", text_of(v)))
      return diag_set(p->diag, ERR_ARGUMENT, line_of(v), "a manifest is a path of the target that starts with '/', of at most %d bytes", PLAYLIST_MAX_URI - 1);
    char *copy = p->mem->get(p->mem, strlen(path) + 1);
    if (!copy)
      return diag_set(p->diag, ERR_NO_MEMORY, line_of(v), NULL);
    manifests[i] = memcpy(copy, path, strlen(path) + 1);
    snprintf(p->s->catalogue.names[i], SCENARIO_MAX_NAME, "%s", path);
  }
  p->s->catalogue.manifests = manifests;
  p->s->catalogue.num = (uint32_t)num;
  return ERR_OK;
}

bool scenario_is_mpd(const struct scenario *s, uint32_t asset) {
  const char *path = s->catalogue.manifests[asset];
  size_t n = strcspn(path, "?");
  if (n >= 4 && strncasecmp(path + n - 4, ".mpd", 4) == 0)
    return true;
  return s->protocol == LOAD_DASH && !(n >= 5 && strncasecmp(path + n - 5, ".m3u8", 5) == 0);
}

// Whether fields have names that begin with NAME and a dot.
static bool is_map_of_fields(const char *name) {
  size_t n = strlen(name);
  bool found = false;
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
    found |= strncmp(fields[i].name, name, n) == 0 && fields[i].name[n] == '.';
  return found;
}

// A map below the top gives its name to what is in it, once.
static enum err parse_map(struct parse *p, const yaml_node_t *map, const char *prefix) {
  for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top; pair++) {
    const yaml_node_t *k = yaml_document_get_node(&p->doc, pair->key), *v = yaml_document_get_node(&p->doc, pair->value);
    char name[128];
    if (!is_text(k) || !k->data.scalar.length || // an empty one below itself would never end
        (size_t)snprintf(name, sizeof name, "%s%s%s", prefix, *prefix ? "." : "", (const char *)k->data.scalar.value) >= sizeof name)
      return diag_set(p->diag, ERR_SYNTAX, line_of(k), "a field's name is a short text");
    if (is_given_before(p, map, pair))
      return diag_set(p->diag, ERR_SYNTAX, line_of(k), "%s is given twice", name);
    enum err e = ERR_OK;
    const struct field *f = fields, *end = fields + sizeof fields / sizeof fields[0];
    while (f < end && strcmp(f->name, name) != 0)
      f++;
    if (f < end)
      e = set_field(p, f, v);
    else if (strcmp(name, "arrivals") == 0)
      e = parse_arrivals(p, v);
    else if (strcmp(name, "catalogue.assets") == 0)
      e = p->s->catalogue.manifests ? one_catalogue(p, k) : parse_assets(p, v);
    else if (strcmp(name, "catalogue.manifests") == 0)
      e = p->s->catalogue.names ? one_catalogue(p, k) : parse_manifests(p, v);
    else if (!*prefix && v->type == YAML_MAPPING_NODE)
      e = parse_map(p, v, name);
    else if (is_map_of_fields(name))
      e = diag_set(p->diag, ERR_SYNTAX, line_of(k), "%s takes a map of fields", name);
    else
      e = diag_set(p->diag, ERR_SYNTAX, line_of(k), "unknown field '%s'", name);
    if (e)
      return e;
  }
  return ERR_OK;
}

enum err scenario_check(struct scenario *s, struct diag *diag) {
  if (!s->catalogue.num)
    return diag_set(diag, ERR_ARGUMENT, 0, "catalogue.assets names nothing to ask for, nor does catalogue.manifests");
  if (s->mode == LOAD_LISTENERS && !s->num_pieces)
    return diag_set(diag, ERR_ARGUMENT, 0, "mode listeners needs arrivals");
  s->end_s = s->drain_s;
  for (uint32_t i = 0; i < s->num_pieces; i++)
    s->end_s += s->pieces[i].seconds;
  if (s->mode != LOAD_LISTENERS && s->rate > 0)
    s->num_pieces = 0; // one rate instead of a shape
  if (s->mode == LOAD_RATE && !(s->rate > 0) && !s->num_pieces)
    return diag_set(diag, ERR_ARGUMENT, 0, "mode rate needs a rate, or arrivals as the shape that requests follow");
  if (s->mode == LOAD_RATE && s->num_pieces && !(s->seconds > 0))
    s->seconds = s->end_s - s->drain_s;
  if (s->mode == LOAD_CAPACITY && s->level.latency_p99_ms < 0)
    return diag_set(diag, ERR_ARGUMENT, 0, "mode capacity needs level.latency_p99_ms: the service level to meet");
  if (s->mode == LOAD_CAPACITY && !(s->search.from < s->search.to))
    return diag_set(diag, ERR_ARGUMENT, 0, "search.from is to be less than search.to");
  if (s->mode != LOAD_LISTENERS && !(s->seconds > 0))
    return diag_set(diag, ERR_ARGUMENT, 0, "seconds is missing: how long the run takes");
  if (strcmp(s->scheme, "cenc") != 0 && strcmp(s->scheme, "cbcs") != 0 && strcmp(s->scheme, "clear") != 0)
    return diag_set(diag, ERR_ARGUMENT, 0, "scheme: '%s' is not one of cenc, cbcs, clear", s->scheme);
  if ((s->verify_share > 0 || s->verify_epoch) && s->catalogue.manifests)
    return diag_set(diag, ERR_ARGUMENT, 0, "catalogue.manifests: only a sluice's answers can be compared, by catalogue.assets: leave verify.%s (--verify) out",
                    s->verify_share > 0 ? "share" : "epoch");
  if ((s->verify_share > 0 || s->verify_epoch) && s->mode == LOAD_IDLE)
    return diag_set(diag, ERR_ARGUMENT, 0, "verify.%s: mode idle compares nothing: leave it out", s->verify_share > 0 ? "share" : "epoch");
  if (s->verify_share > 0 && (!s->media[0] || (!s->keys[0] && strcmp(s->scheme, "clear") != 0)))
    return diag_set(diag, ERR_ARGUMENT, 0, "verify.share needs verify.media and verify.keys (or --verify and --keys) to compare with");
  return ERR_OK;
}

// libyaml gives a line to faults of syntax, and only an offset to bytes that are no text.
static enum err not_yaml(const yaml_parser_t *parser, struct bytes text, struct diag *diag) {
  if (parser->error == YAML_MEMORY_ERROR)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  uint64_t line = parser->problem_mark.line + 1;
  if (parser->error == YAML_READER_ERROR) {
    line = 1;
    for (size_t i = 0; i < parser->problem_offset && i < text.n; i++)
      line += text.p[i] == '\n';
  }
  return diag_set(diag, ERR_SYNTAX, line, "not valid YAML: %s", yaml_fault(parser->problem));
}

// What stands behind the first document would be passed over, and its author believe that it holds.
static enum err parse_end(yaml_parser_t *parser, struct bytes text, struct diag *diag) {
  yaml_document_t rest;
  if (!yaml_parser_load(parser, &rest))
    return not_yaml(parser, text, diag);
  bool more = yaml_document_get_root_node(&rest) != NULL;
  unsigned long line = rest.start_mark.line + 1;
  yaml_document_delete(&rest);
  return more ? diag_set(diag, ERR_SYNTAX, line, "one document is expected, not several") : ERR_OK;
}

enum err scenario_parse(struct scenario *out, struct alloc *mem, struct bytes yaml, struct diag *diag) {
  struct scenario s = {.seed = 1, .mode = LOAD_LISTENERS, .drain_s = 30, .connections = 64, .max_listeners = 15000,
                       .catalogue.shape = 0.9, .scheme = "cbcs", .ahead = 3, .tracks = 3, .skip_scale = 1, .pause_s = 20,
                       .retries = 3, .retry_s = 0.5, .slow_bytes_per_s = 4000, .timeout_s = 10, .storm_at_s = -1, .search = {100, 1e5, 14, 2, 2}, .storm = 1,
                       .level = {-1, -1, -1, -1, 0, 20}};
  struct parse p = {.s = &s, .mem = mem, .diag = diag};
  yaml_parser_t parser;
  if (!yaml_parser_initialize(&parser))
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  yaml_parser_set_input_string(&parser, yaml.p, yaml.n);
  enum err e;
  if (!yaml_parser_load(&parser, &p.doc)) {
    e = not_yaml(&parser, yaml, diag);
    yaml_parser_delete(&parser);
    return e;
  }
  const yaml_node_t *root = yaml_document_get_root_node(&p.doc), *lone = p.doc.nodes.start;
  while (lone < p.doc.nodes.top && !is_lone_anchor(lone))
    lone++;
  if (lone < p.doc.nodes.top)
    e = diag_set(diag, ERR_SYNTAX, line_of(lone), YAML_LONE);
  else if (!root || root->type != YAML_MAPPING_NODE)
    e = diag_set(diag, ERR_SYNTAX, 1, "a scenario is a map of fields");
  else
    e = parse_map(&p, root, "");
  e = e ? e : parse_end(&parser, yaml, diag);
  yaml_document_delete(&p.doc);
  yaml_parser_delete(&parser);
  if (!e)
    *out = s;
  return e;
}
