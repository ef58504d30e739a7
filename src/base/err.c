#include "base/err.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static const struct {
  const char *name, *text;
} errors[ERR_COUNT] = {
#define X(name, text) {#name, text},
    ERR_TABLE(X)
#undef X
};

const char *err_name(enum err e) { return (unsigned)e < ERR_COUNT ? errors[e].name : "ERR_?"; }

const char *err_text(enum err e) { return (unsigned)e < ERR_COUNT ? errors[e].text : "unknown error"; }

__attribute__((format(printf, 3, 0))) static void record(struct diag *d, enum err e, const char *fmt, va_list ap) {
  d->err = e;
  if (fmt)
    vsnprintf(d->what, sizeof d->what, fmt, ap);
}

enum err diag_set(struct diag *d, enum err e, uint64_t at, const char *fmt, ...) {
  if (!d || d->err)
    return e;
  va_list ap;
  va_start(ap, fmt);
  record(d, e, fmt, ap);
  va_end(ap);
  d->at = at;
  return e;
}

enum err diag_say(struct diag *d, enum err e, const char *fmt, ...) {
  if (!d || d->err)
    return e;
  va_list ap;
  va_start(ap, fmt);
  record(d, e, fmt, ap);
  va_end(ap);
  d->nowhere = true;
  return e;
}

void diag_format(const struct diag *d, char *out, size_t cap) {
  const char *what = d->what[0] ? d->what : err_text(d->err);
  if (d->nowhere || d->err == ERR_NO_MEMORY) {
    snprintf(out, cap, "%s", what);
    return;
  }
  int n = snprintf(out, cap, "%s (at byte %" PRIu64, what, d->at);
  size_t len = n < 0 ? 0 : (size_t)n;
  uint32_t num = d->num_path <= 12 ? d->num_path : 12;
  for (uint32_t i = 0; i < num && len < cap; i++) {
    char cc[5] = {0};
    for (int k = 0; k < 4; k++) {
      uint8_t c = (uint8_t)(d->path[i] >> (24 - 8 * k));
      cc[k] = isprint(c) ? (char)c : '?';
    }
    n = snprintf(out + len, cap - len, "%s%s", i ? "/" : ", box ", cc);
    len += n < 0 ? 0 : (size_t)n;
  }
  if (len < cap)
    snprintf(out + len, cap - len, ")");
}
