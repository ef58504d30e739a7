#include "cli/json_write.h"

#include <inttypes.h>
#include <stdio.h>

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

void json_write_hex(struct bytes b) {
  putchar('"');
  for (size_t i = 0; i < b.n; i++) {
    putchar("0123456789abcdef"[b.p[i] >> 4]);
    putchar("0123456789abcdef"[b.p[i] & 15]);
  }
  putchar('"');
}
