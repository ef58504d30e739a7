// unprotect_stream over a file in memory, as over one that is read in pieces: what is not loaded, or forgotten, is noise.
#pragma once
#include <criterion/criterion.h>
#include <stdlib.h>

#include "cenc/unprotect.h"

struct streamed {
  struct bytes file;
  uint8_t *room;
  struct made_box out;
  uint64_t longest; // that was loaded at once
  int fails;        // the load that is to fail, counted from 1; 0: none
  bool shrinks;     // that one gives zeros instead
  const uint8_t *other; // or from that one on, the file has these bytes
};

static inline enum err streamed_load(void *ctx, uint64_t pos, uint64_t len) {
  struct streamed *s = (struct streamed *)ctx;
  cr_assert(len && pos <= s->file.n && len <= s->file.n - pos);
  s->longest = len > s->longest ? len : s->longest;
  bool now = s->fails && --s->fails == 0;
  if (now && s->other) {
    s->file.p = s->other;
  } else if (now) {
    memset(s->room + pos, 0, len);
    return s->shrinks ? ERR_OK : ERR_TRUNCATED;
  }
  memcpy(s->room + pos, s->file.p + pos, len);
  return ERR_OK;
}

static inline void streamed_forget(void *ctx, uint64_t pos, uint64_t len) {
  struct streamed *s = (struct streamed *)ctx;
  cr_assert(pos <= s->file.n && len <= s->file.n - pos);
  memset(s->room + pos, 0xee, len);
}

static inline enum err streamed_write(void *ctx, const uint8_t *p, size_t n) {
  struct streamed *s = (struct streamed *)ctx;
  cr_assert(n <= s->file.n - s->out.n, "the output is longer than the input");
  put(&s->out, p, n);
  return ERR_OK;
}

// The caller frees s->out.p.
static inline enum err streamed_run(struct streamed *s, const struct unprotect_input *from, struct diag *d) {
  struct unprotect_input in = *from;
  struct unprotect_stream stream = {s, streamed_load, streamed_forget, streamed_write};
  s->file = in.file;
  s->room = (uint8_t *)malloc(in.file.n + 1);
  s->out = (struct made_box){.p = (uint8_t *)malloc(in.file.n + 1)};
  memset(s->room, 0xee, in.file.n);
  in.file.p = s->room;
  enum err e = unprotect_stream(s->room, &stream, &in, d);
  free(s->room);
  return e;
}

// It says what `unprotect` says.
static inline void same_streamed(const struct unprotect_input *in, enum err want, struct bytes out, const struct diag *want_d) {
  struct streamed s = {0};
  struct diag d = {0};
  enum err e = streamed_run(&s, in, &d);
  cr_expect_eq(e, want, "in pieces: %s (%s), not %s (%s)", err_name(e), d.what, err_name(want), want_d->what);
  if (e == ERR_OK && want == ERR_OK)
    cr_expect(s.out.n == out.n && memcmp(s.out.p, out.p, out.n) == 0, "in pieces: another output");
  cr_expect(e == ERR_OK || s.out.n == 0, "in pieces: %zu bytes were written before it failed", s.out.n);
  cr_expect(d.err == want_d->err && d.at == want_d->at && d.nowhere == want_d->nowhere && strcmp(d.what, want_d->what) == 0 &&
            d.num_path == want_d->num_path && memcmp(d.path, want_d->path, d.num_path * sizeof *d.path) == 0,
            "in pieces: told otherwise: %s at %lu, not %s at %lu", d.what, (unsigned long)d.at, want_d->what, (unsigned long)want_d->at);
  free(s.out.p);
}
