#include "drm/markup.h"

#include "base/text.h"

static bool xml_can_hold(uint32_t cp) {
  return cp >= 0x20 ? cp != 0xfffe && cp != 0xffff && cp != 0x7f : cp == '\t' || cp == '\n' || cp == '\r';
}

void xml_write(struct writer *w, struct bytes text) {
  while (text.n) {
    const uint8_t *start = text.p;
    uint32_t cp = utf8_next(&text);
    if (cp == '&')
      wr_str(w, "&amp;");
    else if (cp == '<')
      wr_str(w, "&lt;");
    else if (cp == '>')
      wr_str(w, "&gt;");
    else if (cp == '"')
      wr_str(w, "&quot;");
    else if (cp == '\'')
      wr_str(w, "&#39;");
    else if (cp == '\t' || cp == '\n' || cp == '\r')
      wr_fmt(w, "&#%u;", cp);
    else if (!xml_can_hold(cp) || (cp == 0xfffd && text.p - start == 1))
      wr_str(w, "\xef\xbf\xbd");
    else
      wr_raw(w, start, (size_t)(text.p - start));
  }
}

static bool unreserved(uint8_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

void percent_write(struct writer *w, struct bytes text, bool keep_slash) {
  for (size_t i = 0; i < text.n; i++) {
    uint8_t c = text.p[i];
    if (unreserved(c) || (c == '/' && keep_slash)) {
      wr_u8(w, c);
    } else {
      wr_u8(w, '%');
      hex_write_upper(w, bytes_of(&c, 1));
    }
  }
}

void hls_quoted_write(struct writer *w, struct bytes text) {
  for (size_t i = 0; i < text.n; i++) {
    uint8_t c = text.p[i];
    if (c == '"' || c < 0x20 || c == 0x7f) {
      wr_u8(w, '%');
      hex_write_upper(w, bytes_of(&c, 1));
    } else {
      wr_u8(w, c);
    }
  }
}

// Writes what a {name} stands for; false when the name is unknown and stays as it is.
static bool template_value(struct writer *w, struct bytes name, const struct key_record *key) {
  if (bytes_eq(name, BYTES_LIT("kid")))
    hex_write(w, bytes_of(key->kid, 16));
  else if (bytes_eq(name, BYTES_LIT("KID")))
    uuid_write(w, key->kid);
  else if (bytes_eq(name, BYTES_LIT("asset")))
    percent_write(w, key->asset, true);
  else if (bytes_eq(name, BYTES_LIT("epoch")))
    wr_dec(w, key->epoch);
  else if (bytes_eq(name, BYTES_LIT("scheme")))
    wr_str(w, scheme_name(key->scheme));
  else if (bytes_eq(name, BYTES_LIT("label")))
    percent_write(w, key->label, false);
  else
    return false;
  return true;
}

struct bytes template_expand(uint8_t out[TEMPLATE_MAX], struct bytes tmpl, const struct key_record *key) {
  struct writer w = wr_of(out, TEMPLATE_MAX);
  for (size_t i = 0; i < tmpl.n; i++) {
    const uint8_t *close = tmpl.p[i] == '{' ? memchr(tmpl.p + i, '}', tmpl.n - i) : NULL;
    size_t n = close ? (size_t)(close - (tmpl.p + i)) : 0;
    if (n && template_value(&w, bytes_of(tmpl.p + i + 1, n - 1), key))
      i += n;
    else
      wr_u8(&w, tmpl.p[i]);
  }
  return wr_ok(&w) ? bytes_of(out, w.n) : (struct bytes){0};
}

struct bytes template_unknown(struct bytes tmpl) {
  static const struct key_record any;
  for (size_t i = 0; i < tmpl.n; i++) {
    struct writer nowhere = wr_of(NULL, 0);
    const uint8_t *close = tmpl.p[i] == '{' ? memchr(tmpl.p + i, '}', tmpl.n - i) : NULL;
    size_t n = close ? (size_t)(close - (tmpl.p + i)) - 1 : 0, named = 0;
    while (named < n && tmpl.p[i + 1 + named] != '~' && (unreserved(tmpl.p[i + 1 + named]) || tmpl.p[i + 1 + named] == ' '))
      named++;
    if (close && named == n && !template_value(&nowhere, bytes_of(tmpl.p + i + 1, n), &any))
      return bytes_of(tmpl.p + i, n + 2);
  }
  return (struct bytes){0};
}

void pssh_write(struct writer *w, const uint8_t system_id[16], const uint8_t (*kids)[16], uint32_t num_kids,
                struct bytes data) {
  size_t kids_len = num_kids ? 4 + 16 * (size_t)num_kids : 0;
  wr_u32(w, (uint32_t)(32 + kids_len + data.n));
  wr_u32(w, FOURCC('p', 's', 's', 'h'));
  wr_u32(w, num_kids ? 1u << 24 : 0);
  wr_raw(w, system_id, 16);
  if (num_kids) {
    wr_u32(w, num_kids);
    wr_raw(w, kids, 16 * (size_t)num_kids);
  }
  wr_u32(w, (uint32_t)data.n);
  wr_bytes(w, data);
}
