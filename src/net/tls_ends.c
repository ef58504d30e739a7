// What of a set of certificates is over some day: said in the log ahead of it, and for the metrics.
#include "net/tls_set.h"
#include "obs/log.h"
#include <openssl/mem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HOUR = 3600, DAY = 24 * HOUR, SOON = 14 * DAY, LOOK = HOUR /* the wall clock may be set meanwhile */ };

// Takes the earlier end.
static void look_at(struct tls_end *end, const X509 *cert, const char *what) {
  int64_t from, until;
  if (!ASN1_TIME_to_posix(X509_get0_notBefore(cert), &from) || !ASN1_TIME_to_posix(X509_get0_notAfter(cert), &until) || until >= end->until)
    return;
  end->from = from;
  end->until = until;
  snprintf(end->what, sizeof end->what, "%s", what);
}

// A file counts once, however often it is named. False: no memory.
static bool add(struct tls_set *s, const struct tls_end *fresh, const char *file) {
  for (unsigned i = 0; i < s->num_ends; i++)
    if (s->ends[i].kind == fresh->kind && !strcmp(s->ends[i].file, file))
      return true;
  if (fresh->until == INT64_MAX)
    return true;
  struct tls_end *end = &s->ends[s->num_ends];
  *end = *fresh;
  end->file = strdup(file);
  s->num_ends += end->file != NULL;
  return end->file != NULL;
}

static bool add_certificate(struct tls_set *s, const SSL_CTX *ctx, const char *file) {
  struct tls_end end = {.kind = TLS_END_CERTIFICATE, .until = INT64_MAX};
  STACK_OF(X509) *chain = NULL;
  look_at(&end, SSL_CTX_get0_certificate(ctx), "number 1 in it");
  for (size_t i = 0; SSL_CTX_get0_chain_certs(ctx, &chain) && i < sk_X509_num(chain); i++) {
    char what[32];
    snprintf(what, sizeof what, "number %zu in it", i + 2);
    look_at(&end, sk_X509_value(chain, i), what);
  }
  return add(s, &end, file);
}

static bool add_authorities(struct tls_set *s, SSL_CTX *ctx, const char *file) {
  struct tls_end end = {.kind = TLS_END_AUTHORITY, .until = INT64_MAX};
  STACK_OF(X509_OBJECT) *all = X509_STORE_get1_objects(SSL_CTX_get_cert_store(ctx));
  for (size_t i = 0; i < sk_X509_OBJECT_num(all); i++) {
    const X509 *cert = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i));
    char name[sizeof end.what];
    if (cert && X509_NAME_oneline(X509_get_subject_name(cert), name, sizeof name))
      look_at(&end, cert, name);
  }
  sk_X509_OBJECT_pop_free(all, X509_OBJECT_free);
  return all && add(s, &end, file);
}

// That it is over already is said where it is read (`told`).
static bool add_staple(struct tls_set *s, struct tls_staple *staple) {
  struct tls_end end = {.kind = TLS_END_STAPLE, .from = staple->status.from, .until = staple->status.until, .staple = staple};
  return !staple->file || staple->status.verdict != OCSP_GOOD || add(s, &end, staple->file);
}

bool tls_ends_read(struct tls_set *s, unsigned n, const char *cert, const char *client_ca) {
  return add_certificate(s, s->ctx[n], cert) && (!client_ca || !client_ca[0] || add_authorities(s, s->ctx[n], client_ca)) && add_staple(s, &s->staple[n]);
}

const struct tls_end *tls_ends(const struct tls_set *s, unsigned *num) {
  *num = s->num_ends;
  return s->ends;
}

// How long before its end it is said: what lives shorter is renewed later. Responses are renewed every few days.
static int64_t ahead(const struct tls_end *e) {
  int64_t third = (e->until - e->from) / 3;
  return e->kind == TLS_END_STAPLE || third < 0 ? 0 : third < SOON ? third : SOON;
}

static void say(struct tls_end *e, int64_t now) {
  char at[32], when[96];
  struct tm tm;
  time_t until = e->until;
  int64_t left = e->until - now;
  if (!gmtime_r(&until, &tm) || !strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &tm))
    return;
  int64_t unit = left >= 2 * DAY ? DAY : left >= 2 * HOUR ? HOUR : 60;
  if (left <= 0)
    snprintf(when, sizeof when, "has expired, at %s", at);
  else
    snprintf(when, sizeof when, "ends at %s, in %lld %s", at, (long long)(left / unit), unit == DAY ? "days" : unit == HOUR ? "hours" : "minutes");
  if (e->kind == TLS_END_CERTIFICATE)
    log_line(LOG_WARN, "certificate %s: %s %s: %s: renew it, then reload (SIGHUP)", e->file, e->what, when, left <= 0 ? "clients refuse it" : "clients will refuse it");
  else if (e->kind == TLS_END_AUTHORITY)
    log_line(LOG_WARN, "client authorities %s: %s %s: clients with its certificates %s refused: put its successor into the file, then reload (SIGHUP)", e->file,
             e->what, when, left <= 0 ? "are" : "will be");
  else if (!atomic_exchange(&e->staple->told, true) || e->said >= e->until)
    log_line(LOG_WARN, "OCSP response %s: expired at %s: it is not stapled: put the next one there, then reload (SIGHUP)", e->file, at);
  e->said = now;
}

// Once a day, and once more when its time is over.
static int64_t due(const struct tls_end *e, int64_t now) {
  int64_t soon = e->until - ahead(e), again = e->said > now ? now : e->said + DAY; // else the clock was set back
  if (e->said < soon)
    return soon;
  return e->said < e->until && e->until < again ? e->until : again;
}

unsigned tls_say_ends(struct tls_set *s, bool said) {
  int64_t now = time(NULL), next = now + LOOK;
  for (unsigned i = 0; s && i < s->num_ends; i++) {
    struct tls_end *e = &s->ends[i];
    if (said)
      e->said = now;
    else if (due(e, now) <= now)
      say(e, now);
    int64_t at = due(e, now);
    next = at < next ? at : next;
  }
  return next > now ? (unsigned)(next - now) : 1;
}

void tls_ends_free(struct tls_set *s) {
  for (unsigned i = 0; i < s->num_ends; i++)
    free(s->ends[i].file);
}
