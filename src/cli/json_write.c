#include "cli/json_write.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/text.h"

void json_write_uint(const char *name, uint64_t v) {
  const char *quote = v <= INT64_MAX ? "" : "\"";
  printf("\"%s\": %s%" PRIu64 "%s", name, quote, v, quote);
}

void json_write_text(struct bytes b) {
  putchar('"');
  for (size_t i = 0; i < b.n; i++) {
    if (b.p[i] == '"' || b.p[i] == '\\')
      putchar('\\');
    putchar(b.p[i] >= 0x20 && b.p[i] < 0x7f ? b.p[i] : '?');
  }
  putchar('"');
}

void json_write_utf8(struct bytes b) {
  putchar('"');
  while (b.n) {
    const uint8_t *p = b.p;
    bool malformed = utf8_next(&b) == 0xfffd && b.p == p + 1;
    if (*p < 0x20)
      printf("\\u%04x", *p);
    else if (malformed)
      putchar('?');
    else
      printf("%s%.*s", *p == '"' || *p == '\\' ? "\\" : "", (int)(b.p - p), (const char *)p);
  }
  putchar('"');
}

void json_write_hex(struct bytes b) {
  putchar('"');
  for (size_t i = 0; i < b.n; i++) {
    putchar("0123456789abcdef"[b.p[i] >> 4]);
    putchar("0123456789abcdef"[b.p[i] & 15]);
  }
  putchar('"');
}
