#include "server/certificates.h"

#include "drm/markup.h"
#include "net/tls.h"
#include "server/server.h"

void certificates_serve(struct server *s, struct tls_set *set, bool said) {
  if (set)
    (void)tls_say_ends(tls_set_hold(set), said);
  pthread_mutex_lock(&s->served.lock);
  struct tls_set *old = s->served.set;
  s->served.set = set;
  pthread_mutex_unlock(&s->served.lock);
  tls_set_free(old);
}

uint64_t certificates_say(struct server *s) { return tls_say_ends(s->served.set, false) * (uint64_t)1000; }

// Bytes that are no UTF-8 are written as the code points of their values.
static void write_label(struct writer *w, struct bytes s) {
  while (s.n) {
    struct bytes rest = s;
    (void)utf8_next(&rest);
    size_t n = s.n - rest.n;
    if (n == 1 && *s.p >= 0x80) {
      wr_u8(w, (uint8_t)(0xc0 | *s.p >> 6));
      wr_u8(w, (uint8_t)(0x80 | (*s.p & 0x3f)));
    } else if (*s.p == '"' || *s.p == '\\' || *s.p == '\n') {
      wr_u8(w, '\\');
      wr_u8(w, *s.p == '\n' ? 'n' : *s.p);
    } else {
      wr_raw(w, s.p, n);
    }
    s = rest;
  }
}

static void write_kind(struct writer *w, const struct tls_set *set, enum tls_end_kind kind, const char *name, const char *help) {
  unsigned num;
  const struct tls_end *end = tls_ends(set, &num);
  bool any = false;
  for (; num; num--, end++) {
    if (end->kind != kind)
      continue;
    if (!any)
      wr_fmt(w, "# HELP %s %s, Unix time\n# TYPE %s gauge\n", name, help, name);
    any = true;
    wr_fmt(w, "%s{file=\"", name);
    write_label(w, bytes_str(end->file));
    wr_fmt(w, "\"} %lld\n", (long long)end->until);
  }
}

void certificates_write(struct server *s, struct writer *w) {
  pthread_mutex_lock(&s->served.lock);
  const struct tls_set *set = s->served.set;
  if (set) {
    write_kind(w, set, TLS_END_CERTIFICATE, "sluice_tls_certificate_expiry_seconds", "End of the certificate that is served, or of one of its chain where that is earlier");
    write_kind(w, set, TLS_END_AUTHORITY, "sluice_tls_client_ca_expiry_seconds", "End of the first authority of clients to end");
    write_kind(w, set, TLS_END_STAPLE, "sluice_tls_ocsp_expiry_seconds", "End of the OCSP response that is stapled, and no longer after it");
  }
  pthread_mutex_unlock(&s->served.lock);
}
