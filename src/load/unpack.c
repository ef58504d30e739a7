// Manifests that come compressed although no Accept-Encoding was sent, which allows it: some CDNs do. Source: RFC 9110 §8.4.1, §12.5.3.
#include "load/session.h"

#include <stdlib.h>
#include <zlib.h>

enum { PIECE = 16384, GZIP = 15 + 16 }; // the largest window, and a gzip header before it

static enum err inflate_all(struct body *out, struct body *in, struct diag *diag) {
  z_stream z = {.next_in = in->p, .avail_in = (uInt)in->n};
  uint8_t piece[PIECE];
  bool room = true;
  if (inflateInit2(&z, GZIP) != Z_OK)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  int r = Z_OK;
  while (r == Z_OK && room) {
    z.next_out = piece;
    z.avail_out = sizeof piece;
    r = inflate(&z, Z_NO_FLUSH);
    room = body_add(out, bytes_of(piece, sizeof piece - z.avail_out));
    if (r == Z_STREAM_END && z.avail_in) // another member follows. RFC 1952 §2.2
      r = inflateReset(&z);
  }
  enum err e = !room                 ? diag_say(diag, ERR_LIMIT, "unpacked it has more than %d MB, or there is no memory", BODY_MAX >> 20)
               : r == Z_STREAM_END   ? ERR_OK
               : r == Z_MEM_ERROR    ? diag_say(diag, ERR_NO_MEMORY, NULL)
               : r == Z_BUF_ERROR    ? diag_say(diag, ERR_SYNTAX, "its gzip is cut off")
               : diag_say(diag, ERR_SYNTAX, "its gzip is damaged: %s", z.msg ? z.msg : "it cannot be unpacked");
  inflateEnd(&z);
  return e;
}

enum err body_unpack(struct body *b, const char *encoding, struct diag *diag) {
  struct body out = {0};
  if (!encoding[0] || !strcasecmp(encoding, "identity")) {
    bool is_gzip = b->n >= 2 && b->p[0] == 0x1f && b->p[1] == 0x8b; // no playlist, MPD or sidx begins so
    return is_gzip ? diag_set(diag, ERR_SYNTAX, 1, "it is gzip'ed, and no Content-Encoding says so: have it served with one, or as it is") : ERR_OK;
  }
  if (strcasecmp(encoding, "gzip") != 0 && strcasecmp(encoding, "x-gzip") != 0)
    return diag_say(diag, ERR_UNSUPPORTED, "it comes with Content-Encoding: %s, and no Accept-Encoding was sent: have it served as it is, or as gzip", encoding);
  enum err e = inflate_all(&out, b, diag);
  if (e) {
    free(out.p);
    return e;
  }
  free(b->p);
  b->p = out.p;
  b->n = out.n;
  b->cap = out.cap;
  return ERR_OK;
}
