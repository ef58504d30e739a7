#include "keys/keysfile_add.h"

#include "base/text.h"
#include "drm/markup.h"
#include "keys/keysfile_fields.h"

enum { MAX_INDENT = 64 };

// Where records go: before the first item of a block list, behind the bracket of a flow list, or in a list of their own at the end.
struct place {
  enum { AT_END, IN_BLOCK, IN_FLOW } form;
  yaml_mark_t mark; // of the list; else of the options, as far as they are indented
  size_t end;       // of the document, in bytes
};

static enum err bad(struct diag *diag, struct yaml_place at, const char *why) {
  return diag_set(diag, ERR_SYNTAX, at.byte, "line %zu: %s", at.line, why);
}

// Looks at one event of the top-level mapping; `depth` is the number of open collections, `key` whether a name comes next.
static enum err look(struct place *at, struct bytes old, const yaml_event_t *ev, unsigned depth, bool *key, bool *wanted, struct diag *diag) {
  if (depth == 0 && ev->type == YAML_MAPPING_START_EVENT)
    at->mark = ev->start_mark;
  if (ev->type == YAML_DOCUMENT_END_EVENT && !ev->data.document_end.implicit)
    at->end = yaml_place_of(old, ev->start_mark).byte;
  if (depth == 0 && ev->type == YAML_MAPPING_START_EVENT && ev->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE)
    return bad(diag, yaml_place_of(old, ev->start_mark), "records can be added to a file of lines only, not to one mapping in braces");
  if (depth != 1 || ev->type == YAML_MAPPING_END_EVENT)
    return ERR_OK;
  bool name = *key;
  *key = !*key;
  if (name) {
    *wanted = ev->type == YAML_SCALAR_EVENT &&
              bytes_eq(bytes_of(ev->data.scalar.value, ev->data.scalar.length), BYTES_LIT("keys"));
    return ERR_OK;
  }
  if (!*wanted)
    return ERR_OK;
  if (ev->type != YAML_SEQUENCE_START_EVENT)
    return bad(diag, yaml_place_of(old, ev->start_mark), "keys: a list is expected; take the empty option out");
  bool flow = ev->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE;
  at->form = flow ? IN_FLOW : IN_BLOCK;
  at->mark = ev->start_mark;
  return ERR_OK;
}

static enum err find(struct place *at, struct bytes old, struct diag *diag) {
  yaml_parser_t y;
  unsigned depth = 0;
  bool key = true, wanted = false, end = false;
  enum err e = ERR_OK;
  *at = (struct place){.form = AT_END, .end = old.n};
  if (!yaml_parser_initialize(&y))
    return diag_say(diag, ERR_NO_MEMORY, "out of memory");
  yaml_parser_set_input_string(&y, old.p ? old.p : (const uint8_t *)"", old.n);
  while (!e && !end) {
    yaml_event_t ev;
    if (!yaml_parser_parse(&y, &ev)) {
      struct yaml_place fault = yaml_problem_of(old, &y);
      e = diag_set(diag, ERR_SYNTAX, fault.byte, "line %zu: this is not YAML: %s", fault.line, yaml_fault(y.problem));
      break;
    }
    e = look(at, old, &ev, depth, &key, &wanted, diag);
    depth += ev.type == YAML_MAPPING_START_EVENT || ev.type == YAML_SEQUENCE_START_EVENT;
    depth -= ev.type == YAML_MAPPING_END_EVENT || ev.type == YAML_SEQUENCE_END_EVENT;
    end = ev.type == YAML_STREAM_END_EVENT;
    if (ev.type == YAML_SCALAR_EVENT)
      explicit_bzero(ev.data.scalar.value, ev.data.scalar.length);
    yaml_event_delete(&ev);
  }
  if (y.raw_buffer.start)
    explicit_bzero(y.raw_buffer.start, (size_t)(y.raw_buffer.end - y.raw_buffer.start));
  if (y.buffer.start)
    explicit_bzero(y.buffer.start, (size_t)(y.buffer.end - y.buffer.start));
  yaml_parser_delete(&y);
  return e;
}

// What may not stand raw in a quoted scalar and be read as it was: characters that are not printable, the byte order mark, and what
// YAML 1.1, which libyaml reads, takes for line breaks and folds. YAML 1.1 §4.1.1 (c-printable), §4.1.4.
static bool is_escaped(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffe || c == 0xffff;
}

static enum err quoted(struct writer *w, struct bytes s, struct diag *diag) {
  wr_u8(w, '"');
  for (struct bytes rest = s; rest.n;) {
    const uint8_t *p = rest.p;
    uint32_t c = utf8_next(&rest);
    size_t n = (size_t)(rest.p - p);
    if (c == 0xfffd && n == 1)
      return diag_say(diag, ERR_UNSUPPORTED, "a name that is not UTF-8 cannot stand in a keys file");
    if (c == '"' || c == '\\')
      wr_u8(w, '\\');
    if (is_escaped(c))
      wr_fmt(w, "\\u%04x", c);
    else
      wr_raw(w, p, n);
  }
  wr_u8(w, '"');
  return ERR_OK;
}

static enum err write_record(struct writer *w, const struct key_record *r, struct diag *diag) {
  wr_str(w, "{ asset: ");
  enum err e = quoted(w, r->asset, diag);
  wr_fmt(w, ", epoch: %u, scheme: %s", r->epoch, scheme_name(r->scheme));
  if (!e && r->label.n) {
    wr_str(w, ", label: ");
    e = quoted(w, r->label, diag);
  }
  wr_str(w, ", kid: \"");
  hex_write(w, bytes_of(r->kid, 16));
  wr_str(w, "\", key: \"");
  hex_write(w, bytes_of(r->key, 16));
  wr_str(w, "\"");
  if (r->has_iv) {
    wr_str(w, ", iv: \"");
    hex_write(w, bytes_of(r->iv, 16));
    wr_str(w, "\"");
  }
  wr_str(w, " }");
  return e;
}

static void indent(struct writer *w, size_t columns) {
  while (columns--)
    wr_u8(w, ' ');
}

enum err keysfile_add(struct writer *w, struct bytes old, const struct key_record *records, uint32_t num, struct diag *diag) {
  struct place at;
  enum err e = find(&at, old, diag);
  if (e || !num) {
    if (!e)
      wr_bytes(w, old);
    return e;
  }
  size_t columns = at.form == IN_FLOW ? 0 : at.mark.column;
  if (columns > MAX_INDENT)
    return bad(diag, yaml_place_of(old, at.mark), "it is indented too far");
  size_t split = at.form == AT_END ? at.end : yaml_place_of(old, at.mark).byte + (at.form == IN_FLOW);
  wr_raw(w, old.p, split);
  if (at.form == AT_END) {
    wr_str(w, split && old.p[split - 1] != '\n' ? "\n" : "");
    indent(w, columns);
    wr_str(w, "keys:\n");
  }
  for (uint32_t i = 0; !e && i < num; i++) {
    indent(w, at.form == AT_END ? columns + 2 : 0);
    wr_str(w, at.form == IN_FLOW ? " " : "- ");
    e = write_record(w, &records[i], diag);
    wr_str(w, at.form == IN_FLOW ? "," : "\n");
    indent(w, at.form == IN_BLOCK ? columns : 0);
  }
  wr_raw(w, old.p + split, old.n - split);
  return e;
}
