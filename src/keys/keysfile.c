// The keys file: YAML read as a stream of events against a table of options (docs/keys.md has the list). Nothing is
// kept of the text but names; every scalar is overwritten before libyaml frees it, and so are libyaml's buffers.
#include "base/text.h"
#include "drm/markup.h"
#include "keys/epochs.h"
#include "keys/keysfile_fields.h"
#include "keys/keyset.h"
#include "keys/xml.h"

#include <stdarg.h>
#include <stdio.h>

enum { MAX_RECORDS = 4 << 20, MAX_RULES = 1 << 16, MAX_TEMPLATE = 1024, MAX_REMOTES = 64, MIN_EVERY_MS = 1000 };

struct yaml_place yaml_place_of(struct bytes text, yaml_mark_t m) {
  struct bytes rest = text;
  if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0) // libyaml does not count it
    rest = bytes_of(text.p + 3, text.n - 3);
  for (size_t i = 0; i < m.index && rest.n; i++)
    (void)utf8_next(&rest);
  return (struct yaml_place){m.line + 1, text.n - rest.n};
}

struct yaml_place yaml_problem_of(struct bytes text, const yaml_parser_t *y) {
  if (y->error != YAML_READER_ERROR)
    return yaml_place_of(text, y->problem_mark);
  size_t byte = y->problem_offset < text.n ? y->problem_offset : text.n, line = 1;
  for (size_t i = 0; i < byte; i++)
    line += text.p[i] == '\n';
  return (struct yaml_place){line, byte};
}

__attribute__((format(printf, 4, 0))) static void tell(struct input *in, enum err e, struct yaml_place at, const char *fmt, va_list ap) {
  char what[sizeof in->diag->what];
  vsnprintf(what, sizeof what, fmt, ap);
  (void)diag_set(in->diag, e, at.byte, "line %zu: %s", at.line, what);
}

enum err kf_fail(struct input *in, enum err e, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  tell(in, e, in->ev.type == YAML_NO_EVENT ? yaml_problem_of(in->text, &in->yaml) : yaml_place_of(in->text, in->ev.start_mark), fmt, ap);
  va_end(ap);
  return e;
}

enum err kf_fail_at(struct input *in, enum err e, yaml_mark_t at, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  tell(in, e, yaml_place_of(in->text, at), fmt, ap);
  va_end(ap);
  return e;
}

static void drop(struct input *in) {
  if (in->ev.type == YAML_SCALAR_EVENT)
    explicit_bzero(in->ev.data.scalar.value, in->ev.data.scalar.length);
  yaml_event_delete(&in->ev);
  in->ev.type = YAML_NO_EVENT;
}

enum err kf_next(struct input *in) {
  drop(in);
  if (!yaml_parser_parse(&in->yaml, &in->ev)) {
    in->ev.type = YAML_NO_EVENT;
    if (in->yaml.error == YAML_MEMORY_ERROR)
      return kf_fail(in, ERR_NO_MEMORY, "out of memory");
    return kf_fail(in, ERR_SYNTAX, "this is not YAML: %s", yaml_fault(in->yaml.problem));
  }
  if (in->ev.type == YAML_ALIAS_EVENT)
    return kf_fail(in, ERR_SYNTAX, "aliases (*name) are not read here: write the value out");
  if (in->ev.type == YAML_SCALAR_EVENT && YAML_IS_LONE(in->ev.data.scalar, in->ev.start_mark, in->ev.end_mark))
    return kf_fail(in, ERR_SYNTAX, YAML_LONE);
  return ERR_OK;
}

static struct bytes scalar(const struct input *in) {
  return bytes_of(in->ev.data.scalar.value, in->ev.data.scalar.length);
}

static enum err keep(struct input *in, struct bytes *out, struct bytes text) {
  uint8_t *p = text.n ? in->mem->get(in->mem, text.n) : NULL;
  if (text.n && !p)
    return kf_fail(in, ERR_NO_MEMORY, "out of memory");
  if (text.n)
    memcpy(p, text.p, text.n);
  *out = bytes_of(p, text.n);
  return ERR_OK;
}

static enum err read_time(struct input *in, uint64_t *ms, const struct field *f, struct bytes text) {
  static const struct {
    const char *unit;
    uint64_t ms;
  } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
  unsigned days = f->kind == K_GRACE ? EPOCH_MAX_GRACE_DAYS : 100 * 366;
  uint64_t v;
  size_t n = 0;
  while (n < text.n && text.p[n] >= '0' && text.p[n] <= '9')
    n++;
  if (bytes_eq(text, BYTES_LIT("0"))) { // as in the configuration
    *ms = 0;
    return ERR_OK;
  }
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
    if (bytes_eq(bytes_of(text.p + n, text.n - n), bytes_str(units[i].unit)) && !parse_u64(&v, bytes_of(text.p, n)) &&
        v <= days * 86400000ull / units[i].ms) {
      *ms = v * units[i].ms;
      return ERR_OK;
    }
  }
  return kf_fail(in, ERR_SYNTAX, "%s: give a time such as 24h, 90s or 7d, of at most %u days", f->name, days);
}

static enum err read_mask_name(struct input *in, const struct field *f, uint32_t *mask, struct bytes text) {
  if (f->kind == K_SYSTEMS) {
    enum drm_system s;
    if (drm_parse(&s, text))
      return kf_fail(in, ERR_SYNTAX, "%s: unknown system; known: widevine playready fairplay clearkey common", f->name);
    *mask |= drm_bit(s);
    return ERR_OK;
  }
  enum scheme s;
  if (scheme_parse(&s, text))
    return kf_fail(in, ERR_SYNTAX, "%s: unknown scheme; known: cenc cbcs clear", f->name);
  *mask |= 1u << s;
  return ERR_OK;
}

// No value: nothing, or YAML's word for it.
static bool is_null(const struct input *in) {
  if (in->ev.type != YAML_SCALAR_EVENT)
    return false;
  return in->ev.data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? is_yaml_null(scalar(in)) : !scalar(in).n;
}

// A list of names, or one scalar: a scheme's name; systems' names with commas, "all" or "none".
static enum err read_mask(struct input *in, const struct field *f, uint32_t *out) {
  uint32_t mask = 0;
  enum err e = ERR_OK;
  if (in->ev.type == YAML_SCALAR_EVENT) {
    if (f->kind == K_SYSTEMS && drm_parse_list(&mask, scalar(in)))
      return kf_fail(in, ERR_SYNTAX, "%s: unknown system; known: widevine playready fairplay clearkey common", f->name);
    if (f->kind == K_SCHEMES)
      e = read_mask_name(in, f, &mask, scalar(in));
    *out = mask;
    return e;
  }
  if (in->ev.type != YAML_SEQUENCE_START_EVENT)
    return kf_fail(in, ERR_SYNTAX, "%s: give a list of names", f->name);
  while (!e && !(e = kf_next(in)) && in->ev.type != YAML_SEQUENCE_END_EVENT)
    e = in->ev.type == YAML_SCALAR_EVENT ? read_mask_name(in, f, &mask, scalar(in))
                                         : kf_fail(in, ERR_SYNTAX, "%s: give a list of names", f->name);
  *out = mask;
  return e;
}

static size_t count(struct bytes text, struct bytes what) {
  size_t num = 0;
  for (size_t i = 0; i + what.n <= text.n; i++)
    num += memcmp(text.p + i, what.p, what.n) == 0;
  return num;
}

static enum err read_template(struct input *in, const struct field *f, struct bytes *out, struct bytes text) {
  struct bytes unknown = template_unknown(text);
  char name[64];
  if (text.n > MAX_TEMPLATE || count(text, BYTES_LIT("{asset}")) > 2)
    return kf_fail(in, ERR_LIMIT, "%s: at most %d bytes, and {asset} at most twice", f->name, MAX_TEMPLATE);
  if (unknown.n)
    return kf_fail(in, ERR_SYNTAX, "%s: %.24s is unknown; there are " TEMPLATE_NAMES, f->name, key_name(name, unknown));
  return keep(in, out, text);
}

static enum err read_custom(struct input *in, const struct field *f, struct bytes *out, struct bytes text) {
  static const char open[] = "<c xmlns=\"http://schemas.microsoft.com/DRM/2007/03/PlayReadyHeader\">";
  if (!xml_is_fragment(text, open, "</c>"))
    return kf_fail(in, ERR_SYNTAX, "%s: give well-formed XML whose elements all end: <a>text</a>", f->name);
  return keep(in, out, text);
}

// As YAML spells it (1.2 section 10.3.2).
static bool read_truth(bool *out, struct bytes text) {
  static const char *const words[] = {"true", "True", "TRUE", "false", "False", "FALSE"};
  for (size_t i = 0; i < 6; i++)
    if (bytes_eq(text, bytes_str(words[i]))) {
      *out = i < 3;
      return true;
    }
  return false;
}

static enum err read_scalar(struct input *in, const struct field *f, void *base) {
  void *at = (uint8_t *)base + f->off;
  struct bytes text = scalar(in);
  uint64_t v;
  switch (f->kind) {
  case K_TEMPLATE:
    return read_template(in, f, at, text);
  case K_CUSTOM:
  case K_TEXT:
    if (text.n > KEYS_MAX_ASSET)
      return kf_fail(in, ERR_LIMIT, "%s: at most %d bytes", f->name, KEYS_MAX_ASSET);
    return f->kind == K_CUSTOM ? read_custom(in, f, at, text) : keep(in, at, text);
  case K_HEX16:
    return hex_read(at, 16, text) ? kf_fail(in, ERR_SYNTAX, "%s: give exactly 32 hex digits", f->name) : ERR_OK;
  case K_U32:
    if (parse_u64(&v, text) || !v || v > INT32_MAX)
      return kf_fail(in, ERR_SYNTAX, "%s: give a number from 1 to %d", f->name, INT32_MAX);
    *(uint32_t *)at = (uint32_t)v;
    return ERR_OK;
  case K_TIME:
  case K_GRACE:
  case K_PERIOD: {
    enum err e = read_time(in, at, f, text);
    bool often = !e && f->kind == K_PERIOD && *(uint64_t *)at < MIN_EVERY_MS;
    return often ? kf_fail(in, ERR_SYNTAX, "%s must be at least %ds", f->name, MIN_EVERY_MS / 1000) : e;
  }
  case K_BOOL:
    return read_truth(at, text) ? ERR_OK : kf_fail(in, ERR_SYNTAX, "%s: give true or false", f->name);
  case K_SCHEME:
    if (scheme_parse(at, text) || *(enum scheme *)at == SCHEME_CLEAR)
      return kf_fail(in, ERR_SYNTAX, "%s: give cenc or cbcs", f->name);
    return ERR_OK;
  case K_SYSTEMS:
  case K_SCHEMES:
  case K_MAP:
  case K_RECORDS:
  case K_RULES:
  case K_REMOTES:
  case K_SCHEDULES:
    break;
  }
  return kf_fail(in, ERR_SYNTAX, "%s: a list or mapping is expected", f->name);
}

static enum err read_records(struct input *in);
static enum err read_rules(struct input *in);
static enum err read_remotes(struct input *in);
static const struct field *const drm_section;
enum { D_SYSTEMS = DRM_SYSTEM_COUNT, D_IN_BAND, D_SCHEMES, D_PER_TIER, D_MORE };

// Mappings nest as deep as the tables do, which is three.
static enum err read_value(struct input *in, const struct field *f, void *base) {
  uint64_t seen = 0;
  // An option that is there without a value is as if it were not.
  if (f->kind >= K_MAP && is_null(in))
    return ERR_OK;
  if (f->kind == K_MAP) {
    enum err e = in->ev.type == YAML_MAPPING_START_EVENT ? kf_read_map(in, f->sub, (uint8_t *)base + f->off, &seen)
                                                         : kf_fail(in, ERR_SYNTAX, "%s: options are expected", f->name);
    in->epochs_seen = f->sub == kf_epochs_fields ? seen : in->epochs_seen;
    return e;
  }
  if (f->kind == K_SYSTEMS || f->kind == K_SCHEMES)
    return read_mask(in, f, (uint32_t *)(void *)((uint8_t *)base + f->off));
  if (f->kind >= K_RECORDS) {
    if (in->ev.type != YAML_SEQUENCE_START_EVENT)
      return kf_fail(in, ERR_SYNTAX, "%s: a list is expected", f->name);
    return f->kind == K_RECORDS ? read_records(in)
           : f->kind == K_RULES ? read_rules(in)
           : f->kind == K_REMOTES ? read_remotes(in) : kf_read_schedules(in);
  }
  if (in->ev.type != YAML_SCALAR_EVENT)
    return kf_fail(in, ERR_SYNTAX, "%s: one value is expected", f->name);
  return read_scalar(in, f, base);
}

// Faults name the option as docs/keys.md does, with the sections that it is in.
static enum err read_option(struct input *in, const struct field *f, void *base) {
  const char *section = in->section;
  char path[64];
  struct field named = *f;
  snprintf(path, sizeof path, "%s%s%s", section, *section ? "." : "", f->name);
  in->section = named.name = path;
  enum err e = read_value(in, &named, base);
  in->section = section;
  return e;
}

enum err kf_read_map(struct input *in, const struct field *fields, void *base, uint64_t *seen) {
  enum err e;
  while (!(e = kf_next(in)) && in->ev.type != YAML_MAPPING_END_EVENT) {
    if (in->ev.type != YAML_SCALAR_EVENT)
      return kf_fail(in, ERR_SYNTAX, "the name of an option is expected");
    unsigned i = 0;
    while (fields[i].name && !bytes_eq(scalar(in), bytes_str(fields[i].name)))
      i++;
    char name[64];
    if (!fields[i].name)
      return kf_fail(in, ERR_SYNTAX, "unknown option \"%s%s%s\": see docs/keys.md for those known", in->section, *in->section ? "." : "",
                     key_name(name, scalar(in)));
    if (*seen >> i & 1)
      return kf_fail(in, ERR_SYNTAX, "option \"%s%s%s\" is given twice", in->section, *in->section ? "." : "", fields[i].name);
    *seen |= (uint64_t)1 << i;
    if (fields == drm_section) {
      if (in->drm_seen >> D_MORE & 1)
        return kf_fail(in, ERR_SYNTAX, "drm: rules must come last, for each starts from the options before it");
      in->drm_seen = *seen;
    }
    if ((e = kf_next(in)) || (e = read_option(in, &fields[i], base)))
      return e;
  }
  return e;
}

enum { R_ASSET, R_EPOCH, R_SCHEME, R_LABEL, R_KID, R_KEY, R_IV };
static const struct field record_fields[] = {
    [R_ASSET] = {"asset", K_TEXT, offsetof(struct key_record, asset), NULL},
    [R_EPOCH] = {"epoch", K_U32, offsetof(struct key_record, epoch), NULL},
    [R_SCHEME] = {"scheme", K_SCHEME, offsetof(struct key_record, scheme), NULL},
    [R_LABEL] = {"label", K_TEXT, offsetof(struct key_record, label), NULL},
    [R_KID] = {"kid", K_HEX16, offsetof(struct key_record, kid), NULL},
    [R_KEY] = {"key", K_HEX16, offsetof(struct key_record, key), NULL},
    [R_IV] = {"iv", K_HEX16, offsetof(struct key_record, iv), NULL},
    {0},
};

void *kf_grow(struct input *in, void *list, uint32_t num, uint32_t *cap, size_t size) {
  if (num < *cap)
    return list;
  uint32_t more = *cap ? *cap * 2 : 16;
  void *p = in->mem->get(in->mem, more * size);
  if (!p)
    return NULL;
  if (num) {
    memcpy(p, list, num * size);
    explicit_bzero(list, num * size);
  }
  *cap = more;
  return p;
}

// A record for a name that no URL can have would wait for ever, and the asset that was meant be derived or 503.
static enum err check_name(struct input *in, const struct key_record *r, yaml_mark_t at) {
  struct diag why = {0};
  char name[64];
  bool prefix = r->asset.p[r->asset.n - 1] == '/';
  if (!prefix && !epochs_scope_served(r->asset, &why))
    return ERR_OK;
  return kf_fail_at(in, ERR_SYNTAX, at, "asset \"%s\": %s", key_name(name, r->asset),
                    prefix ? "a record is for one asset, not for a prefix: leave the / at the end out" : why.what);
}

static enum err read_record(struct input *in, struct key_record *r) {
  uint64_t seen = 0;
  char name[64];
  *r = (struct key_record){.epoch = 1};
  yaml_mark_t at = in->ev.start_mark;
  enum err e = kf_read_map(in, record_fields, r, &seen);
  if (e)
    return e;
  static const unsigned must[] = {R_ASSET, R_SCHEME, R_KID, R_KEY};
  for (unsigned i = 0; i < sizeof must / sizeof must[0]; i++)
    if (!(seen >> must[i] & 1))
      return kf_fail_at(in, ERR_SYNTAX, at, "asset \"%s\": the record has no %s", key_name(name, r->asset), record_fields[must[i]].name);
  r->has_iv = seen >> R_IV & 1;
  if (!r->asset.n || r->label.n > KEYS_MAX_LABEL)
    return kf_fail_at(in, ERR_SYNTAX, at, "a record needs an asset, and a label of at most %d bytes", KEYS_MAX_LABEL);
  if ((e = check_name(in, r, at)) != ERR_OK)
    return e;
  if (r->has_iv && r->scheme != SCHEME_CBCS)
    return kf_fail_at(in, ERR_SYNTAX, at, "asset \"%s\": iv is for cbcs; cenc IVs are derived: drop it", key_name(name, r->asset));
  return ERR_OK;
}

static enum err read_records(struct input *in) {
  enum err e;
  struct keyset *ks = in->ks;
  while (!(e = kf_next(in)) && in->ev.type != YAML_SEQUENCE_END_EVENT) {
    if (in->ev.type != YAML_MAPPING_START_EVENT)
      return kf_fail(in, ERR_SYNTAX, "keys: each entry is a mapping with asset, scheme, kid, key");
    struct key_record *list = kf_grow(in, ks->records, ks->num_records, &ks->cap_records, sizeof *ks->records);
    if (!list || ks->num_records == MAX_RECORDS)
      return kf_fail(in, list ? ERR_LIMIT : ERR_NO_MEMORY, "too many keys for this process");
    ks->records = list;
    // Counted before it is read, so that a half-read record is wiped too.
    if ((e = read_record(in, &list[ks->num_records++])))
      return e;
  }
  return e;
}

#define SET(f) offsetof(struct drm_settings, f)
static const struct field widevine_fields[] = {{"provider", K_TEXT, SET(widevine.provider), NULL},
                                               {"content_id", K_TEMPLATE, SET(widevine.content_id), NULL},
                                               {"policy", K_TEXT, SET(widevine.policy), NULL},
                                               {0}};
static const struct field playready_fields[] = {{"la_url", K_TEMPLATE, SET(playready.la_url), NULL},
                                                {"lui_url", K_TEMPLATE, SET(playready.lui_url), NULL},
                                                {"ds_id", K_TEXT, SET(playready.ds_id), NULL},
                                                {"custom", K_CUSTOM, SET(playready.custom), NULL},
                                                {0}};
static const struct field fairplay_fields[] = {{"skd", K_TEMPLATE, SET(fairplay.skd), NULL}, {0}};
static const struct field clearkey_fields[] = {{"la_url", K_TEMPLATE, SET(clearkey.la_url), NULL},
                                               {"no_identity", K_BOOL, SET(clearkey.no_identity), NULL},
                                               {0}};
static const struct field common_fields[] = {{0}};

// Sections in the order of enum drm_system first: their presence alone signals the system.
#define DRM_FIELDS                                                                                               \
  [DRM_WIDEVINE] = {"widevine", K_MAP, 0, widevine_fields}, [DRM_PLAYREADY] = {"playready", K_MAP, 0, playready_fields}, \
  [DRM_FAIRPLAY] = {"fairplay", K_MAP, 0, fairplay_fields}, [DRM_CLEARKEY] = {"clearkey", K_MAP, 0, clearkey_fields},   \
  [DRM_COMMON] = {"common", K_MAP, 0, common_fields}, [D_SYSTEMS] = {"systems", K_SYSTEMS, SET(systems), NULL},    \
  [D_IN_BAND] = {"in_band", K_SYSTEMS, SET(in_band), NULL}, [D_SCHEMES] = {"schemes", K_SCHEMES, SET(schemes), NULL}, \
  [D_PER_TIER] = {"per_tier", K_BOOL, SET(per_tier), NULL}

static const struct field drm_fields[] = {DRM_FIELDS, [D_MORE] = {"rules", K_RULES, 0, NULL}, {0}};
static const struct field *const drm_section = drm_fields;
// A rule is its match and the same options: drm_settings stands first in struct drm_rule.
_Static_assert(offsetof(struct drm_rule, set) == 0, "rule_fields counts on it");
static const struct field rule_fields[] = {
    DRM_FIELDS, [D_MORE] = {"match", K_TEXT, offsetof(struct drm_rule, match), NULL}, {0}};

// Without `systems`, those with a section of their own are signalled. Without `in_band`, the common box goes into the
// init segment where ClearKey is signalled: players start ClearKey from it.
static void settle(struct drm_settings *set, uint64_t seen) {
  uint32_t sections = (uint32_t)seen & ((1u << DRM_SYSTEM_COUNT) - 1);
  if (!(seen >> D_SYSTEMS & 1) && sections)
    set->systems = sections;
  if (!(seen >> D_IN_BAND & 1) && (sections || seen >> D_SYSTEMS & 1))
    set->in_band = set->systems & drm_bit(DRM_CLEARKEY) ? drm_bit(DRM_COMMON) : 0;
}

enum err kf_check_match(struct input *in, struct bytes match, yaml_mark_t at, const char *section) {
  struct diag why = {0};
  return epochs_scope_served(match, &why) ? kf_fail_at(in, ERR_SYNTAX, at, "%s: match: %s", section, why.what) : ERR_OK;
}

static enum err read_rule(struct input *in, struct drm_rule *r) {
  uint64_t seen = 0;
  yaml_mark_t at = in->ev.start_mark;
  *r = (struct drm_rule){.set = in->ks->drm};
  enum err e = kf_read_map(in, rule_fields, r, &seen);
  if (!e && !r->match.n)
    e = kf_fail_at(in, ERR_SYNTAX, at, "drm.rules: a rule needs match: an asset, or a prefix ending in /");
  e = e ? e : kf_check_match(in, r->match, at, "drm.rules");
  if (!e)
    settle(&r->set, seen);
  return e;
}

static enum err read_rules(struct input *in) {
  enum err e;
  struct keyset *ks = in->ks;
  settle(&ks->drm, in->drm_seen);
  while (!(e = kf_next(in)) && in->ev.type != YAML_SEQUENCE_END_EVENT) {
    if (in->ev.type != YAML_MAPPING_START_EVENT)
      return kf_fail(in, ERR_SYNTAX, "drm.rules: each entry is a mapping with match and options of drm");
    struct drm_rule *list = kf_grow(in, ks->rules, ks->num_rules, &ks->cap_rules, sizeof *ks->rules);
    if (!list || ks->num_rules == MAX_RULES)
      return kf_fail(in, list ? ERR_LIMIT : ERR_NO_MEMORY, "drm.rules: too many rules");
    ks->rules = list;
    if ((e = read_rule(in, &list[ks->num_rules])))
      return e;
    ks->num_rules++;
  }
  return e;
}

static enum err read_remote(struct input *in, struct key_remote *r) {
  uint64_t seen = 0;
  yaml_mark_t at = in->ev.start_mark;
  *r = remote_defaults;
  r->line = at.line + 1;
  enum err e = kf_read_map(in, remote_fields, r, &seen);
  e = e ? e : kf_check_match(in, r->match, at, "providers");
  if (e)
    return e;
  const char *fault = remote_settle(r, seen);
  return fault ? kf_fail_at(in, ERR_SYNTAX, at, "providers: %s", fault) : ERR_OK;
}

static enum err read_remotes(struct input *in) {
  enum err e;
  struct keyset *ks = in->ks;
  while (!(e = kf_next(in)) && in->ev.type != YAML_SEQUENCE_END_EVENT) {
    if (in->ev.type != YAML_MAPPING_START_EVENT)
      return kf_fail(in, ERR_SYNTAX, "providers: each entry is a mapping with type and url");
    struct key_remote *list = kf_grow(in, ks->remotes, ks->num_remotes, &ks->cap_remotes, sizeof *ks->remotes);
    if (!list || ks->num_remotes == MAX_REMOTES)
      return kf_fail(in, list ? ERR_LIMIT : ERR_NO_MEMORY, "providers: at most %d", MAX_REMOTES);
    ks->remotes = list;
    if ((e = read_remote(in, &list[ks->num_remotes])))
      return e;
    ks->num_remotes++;
  }
  return e;
}

#define INFO(f) offsetof(struct keys_info, f)
static const struct field derive_fields[] = {{"secret_file", K_TEXT, INFO(secret_file), NULL},
                                             {"kek_file", K_TEXT, INFO(kek_file), NULL},
                                             {0}};
enum { T_DERIVE, T_EPOCHS, T_KEYS, T_DRM, T_PROVIDERS };
static const struct field top_fields[] = {
    [T_DERIVE] = {"derive", K_MAP, offsetof(struct keyset, info), derive_fields},
    [T_EPOCHS] = {"epochs", K_MAP, offsetof(struct keyset, info), kf_epochs_fields},
    [T_KEYS] = {"keys", K_RECORDS, 0, NULL},
    [T_DRM] = {"drm", K_MAP, offsetof(struct keyset, drm), drm_fields},
    [T_PROVIDERS] = {"providers", K_REMOTES, 0, NULL},
    {0}};

static enum err read_stream(struct input *in, uint64_t *seen) {
  enum err e = kf_next(in); // stream start
  if (!e)
    e = kf_next(in);
  if (e || in->ev.type == YAML_STREAM_END_EVENT)
    return e;
  e = kf_next(in); // document start has been seen
  if (e || is_null(in))
    return e;
  if (in->ev.type != YAML_MAPPING_START_EVENT)
    return kf_fail(in, ERR_SYNTAX, "options are expected: derive, epochs, keys, drm, providers");
  if ((e = kf_read_map(in, top_fields, in->ks, seen)) || (e = kf_next(in)) || (e = kf_next(in)))
    return e;
  return in->ev.type == YAML_STREAM_END_EVENT ? ERR_OK : kf_fail(in, ERR_SYNTAX, "one document is expected, not several");
}

static void wipe_parser(yaml_parser_t *y) {
  if (y->raw_buffer.start)
    explicit_bzero(y->raw_buffer.start, (size_t)(y->raw_buffer.end - y->raw_buffer.start));
  if (y->buffer.start)
    explicit_bzero(y->buffer.start, (size_t)(y->buffer.end - y->buffer.start));
  yaml_parser_delete(y);
}

enum err keys_parse(struct alloc *mem, struct keyset **out, struct keys_info *info, struct bytes text,
                    struct diag *diag) {
  if (text.n > KEYS_MAX_FILE)
    return diag_say(diag, ERR_LIMIT, "a keys file has at most %d bytes", KEYS_MAX_FILE);
  struct input in = {.text = text, .mem = mem, .diag = diag, .section = "", .ks = mem->get(mem, sizeof *in.ks)};
  if (!in.ks || !yaml_parser_initialize(&in.yaml))
    return diag_say(diag, ERR_NO_MEMORY, "%s", "");
  *in.ks = (struct keyset){
      .info = {.default_epoch = 1},
      .drm = {.systems = drm_bit(DRM_CLEARKEY), .in_band = drm_bit(DRM_COMMON),
              .schemes = 1u << SCHEME_CENC | 1u << SCHEME_CBCS}};
  yaml_parser_set_input_string(&in.yaml, text.p ? text.p : (const uint8_t *)"", text.n);
  uint64_t seen = 0;
  enum err e = read_stream(&in, &seen);
  drop(&in);
  wipe_parser(&in.yaml);
  if (!e && !(in.drm_seen >> D_MORE & 1))
    settle(&in.ks->drm, in.drm_seen);
  if (!e)
    e = kf_settle_epochs(&in);
  in.ks->info.num_records = in.ks->num_records;
  in.ks->info.derive = (seen >> T_DERIVE & 1) || (!in.ks->num_records && !in.ks->num_remotes);
  if (!e)
    e = keyset_seal(in.ks, mem, diag);
  if (e) {
    keyset_wipe(in.ks);
    return e;
  }
  *out = in.ks;
  *info = in.ks->info;
  return ERR_OK;
}
