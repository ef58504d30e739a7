#include "base/text.h"

#include <ctype.h>

static void hex_with(struct writer *w, struct bytes b, const char *digits) {
  for (size_t i = 0; i < b.n; i++) {
    char c[2] = {digits[b.p[i] >> 4], digits[b.p[i] & 15]};
    wr_raw(w, c, 2);
  }
}

void hex_write(struct writer *w, struct bytes b) { hex_with(w, b, "0123456789abcdef"); }

void hex_write_upper(struct writer *w, struct bytes b) { hex_with(w, b, "0123456789ABCDEF"); }

static int hex_digit(uint8_t c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum err hex_read(uint8_t *out, size_t out_len, struct bytes text) {
  uint8_t tmp[64];
  size_t num = 0; // digits seen
  if (out_len > sizeof tmp)
    return ERR_ARGUMENT;
  for (size_t i = 0; i < text.n; i++) {
    if (text.p[i] == '-' && num && num < 2 * out_len)
      continue;
    int d = hex_digit(text.p[i]);
    if (d < 0 || num == 2 * out_len)
      return ERR_SYNTAX;
    tmp[num / 2] = (uint8_t)(num % 2 ? tmp[num / 2] << 4 | d : d);
    num++;
  }
  if (num != 2 * out_len)
    return ERR_SYNTAX;
  memcpy(out, tmp, out_len);
  return ERR_OK;
}

static void base64_with(struct writer *w, struct bytes b, const char *alphabet, bool pad) {
  for (size_t i = 0; i < b.n; i += 3) {
    size_t left = b.n - i;
    uint32_t v = (uint32_t)b.p[i] << 16 | (left > 1 ? (uint32_t)b.p[i + 1] << 8 : 0) | (left > 2 ? b.p[i + 2] : 0);
    char c[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63], alphabet[v >> 6 & 63], alphabet[v & 63]};
    size_t n = left > 2 ? 4 : left + 1;
    wr_raw(w, c, n);
    if (pad)
      wr_raw(w, "==", 4 - n);
  }
}

void base64_write(struct writer *w, struct bytes b) {
  base64_with(w, b, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", true);
}

void base64url_write(struct writer *w, struct bytes b) {
  base64_with(w, b, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", false);
}

static int base64_digit(uint8_t c) {
  if (c >= 'A' && c <= 'Z')
    return c - 'A';
  if (c >= 'a' && c <= 'z')
    return c - 'a' + 26;
  if (c >= '0' && c <= '9')
    return c - '0' + 52;
  return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

enum err base64_read(uint8_t *out, size_t *out_len, struct bytes text) {
  bool padded = text.n % 4 == 0;
  for (int i = 0; i < 2 && padded && text.n && text.p[text.n - 1] == '='; i++)
    text.n--;
  size_t need = text.n / 4 * 3 + (text.n % 4 ? text.n % 4 - 1 : 0);
  if (text.n % 4 == 1)
    return ERR_SYNTAX;
  for (size_t i = 0; i < text.n; i++)
    if (base64_digit(text.p[i]) < 0)
      return ERR_SYNTAX;
  if (need > *out_len)
    return ERR_NO_SPACE;
  uint32_t acc = 0;
  unsigned bits = 0;
  size_t n = 0;
  for (size_t i = 0; i < text.n; i++) {
    acc = acc << 6 | (uint32_t)base64_digit(text.p[i]);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out[n++] = (uint8_t)(acc >> bits);
    }
  }
  *out_len = n;
  return ERR_OK;
}

void uuid_write(struct writer *w, const uint8_t uuid[16]) {
  static const uint8_t group[] = {4, 2, 2, 2, 6};
  size_t at = 0;
  for (size_t g = 0; g < sizeof group; g++) {
    if (g)
      wr_u8(w, '-');
    hex_write(w, bytes_of(uuid + at, group[g]));
    at += group[g];
  }
}

enum err parse_u64(uint64_t *out, struct bytes text) {
  uint64_t v = 0;
  if (!text.n)
    return ERR_SYNTAX;
  for (size_t i = 0; i < text.n; i++) {
    if (text.p[i] < '0' || text.p[i] > '9')
      return ERR_SYNTAX;
    if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(text.p[i] - '0'), &v))
      return ERR_OVERFLOW;
  }
  *out = v;
  return ERR_OK;
}

// Length and smallest code point of the sequence that a lead byte starts; 0 for bytes that start none.
static uint32_t utf8_len(uint8_t lead, uint32_t *min) {
  if (lead < 0x80) {
    *min = 0;
    return 1;
  }
  if (lead >= 0xc2 && lead < 0xe0) {
    *min = 0x80;
    return 2;
  }
  if (lead >= 0xe0 && lead < 0xf0) {
    *min = 0x800;
    return 3;
  }
  if (lead >= 0xf0 && lead < 0xf5) {
    *min = 0x10000;
    return 4;
  }
  return 0;
}

uint32_t utf8_next(struct bytes *text) {
  const uint8_t *p = text->p;
  uint32_t min = 0, n = utf8_len(p[0], &min);
  bool ok = n != 0 && n <= text->n;
  uint32_t cp = n == 1 ? p[0] : n ? p[0] & (0x7fu >> n) : 0;
  for (uint32_t i = 1; ok && i < n; i++) {
    ok = (p[i] & 0xc0) == 0x80;
    cp = cp << 6 | (p[i] & 0x3fu);
  }
  ok = ok && cp >= min && cp <= 0x10ffff && (cp < 0xd800 || cp > 0xdfff);
  *text = bytes_of(p + (ok ? n : 1), text->n - (ok ? n : 1));
  return ok ? cp : 0xfffd;
}

void text_tame(char *text, size_t n) {
  struct bytes rest = bytes_of(text, n);
  while (rest.n) {
    const uint8_t *p = rest.p;
    uint32_t c = utf8_next(&rest);
    size_t len = (size_t)(rest.p - p);
    if (c < 0x20 || (c >= 0x7f && c < 0xa0) || (c == 0xfffd && len == 1))
      memset(text + (n - rest.n - len), '?', len);
  }
}

// How many single-character changes lie between a and b; 99 where one of them is longer than any option.
static unsigned distance(const char *a, const char *b) {
  unsigned row[65];
  size_t nb = strlen(b);
  if (strlen(a) > 64 || nb > 64)
    return 99;
  for (unsigned j = 0; j <= nb; j++)
    row[j] = j;
  for (unsigned i = 1; *a; a++, i++) {
    unsigned diagonal = row[0];
    row[0] = i;
    for (unsigned j = 1; j <= nb; j++) {
      unsigned change = diagonal + (*a != b[j - 1]), drop = row[j] + 1, add = row[j - 1] + 1;
      diagonal = row[j];
      row[j] = change < drop ? change : drop;
      row[j] = row[j] < add ? row[j] : add;
    }
  }
  return row[nb];
}

unsigned word_bound(const char *word) {
  size_t n = strlen(word);
  return n < 6 ? (unsigned)n / 2 + 1 : 4; // of a short word nothing would be left
}

bool word_nearer(const char *word, const char *name, unsigned *best) {
  unsigned d = distance(word, name);
  if (d >= *best)
    return false;
  *best = d;
  return true;
}

bool is_yaml_null(struct bytes text) {
  static const char *const words[] = {"", "~", "null", "Null", "NULL"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
    if (bytes_eq(text, bytes_str(words[i])))
      return true;
  return false;
}

const char *yaml_fault(const char *problem) {
  if (problem && !strcmp(problem, "found character that cannot start any token"))
    return "found character that cannot start any token: indent with spaces, not tabs; quote values that begin with @, ` or %";
  return problem ? problem : "unreadable";
}

struct bytes path_folder(struct bytes path) {
  size_t n = path.n;
  while (n && path.p[n - 1] != '/')
    n--;
  if (!n)
    return bytes_str(".");
  return bytes_of(path.p, n == 1 ? 1 : n - 1);
}

char *path_folder_text(struct bytes path) {
  struct bytes folder = path_folder(path);
  return strndup((const char *)folder.p, folder.n);
}

bool text_blank(struct bytes text) {
  while (text.n && (!text.p[text.n - 1] || isspace(text.p[text.n - 1])))
    text.n--;
  return !text.n;
}
