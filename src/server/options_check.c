// What no single option can check.
#include <sched.h>

#include "base/text.h"
#include "base/url.h"
#include "server/options.h"

// The path of a licence follows it.
static bool check_public_url(const char *text, const char *in, struct config_error *error) {
  struct url u;
  enum url_fault fault = url_read(&u, bytes_str(text));
  if (fault == URL_USER) // not repeated: a password may stand there
    return config_fail(error, "%s: public_url: it has a user or a password, which every player would be told", in);
  if (fault)
    return config_fail(error, "%s: public_url: '%s' is not a URL (like https://origin.example)", in, text);
  if (u.path.n && memchr(u.path.p, '?', u.path.n))
    return config_fail(error, "%s: public_url: '%s' has a query: paths are appended to it", in, text);
  return true;
}

// The n-th address of all that is listened on, NULL behind the last.
static const struct config_addr *nth_addr(const struct config *c, unsigned n) {
  const struct config_addrs *lists[] = {&c->listen, &c->tls_listen, &c->admin};
  for (unsigned i = 0; i < 3; n -= lists[i++]->num)
    if (n < lists[i]->num)
      return &lists[i]->a[n];
  return NULL;
}

// An address that stands there twice: it can be listened on once. Port 0 is another one each time.
static const char *twice(const struct config *c) {
  const struct config_addr *a;
  for (unsigned n = 0; (a = nth_addr(c, n)); n++)
    for (unsigned m = 0; m < n; m++)
      if (a->port && a->port == nth_addr(c, m)->port && !strcmp(a->host, nth_addr(c, m)->host))
        return a->text;
  return NULL;
}

bool config_v6_only(const struct config *c, const struct config_addr *a) {
  const struct config_addr *b;
  for (unsigned n = 0; !strcmp(a->host, "::") && (b = nth_addr(c, n)); n++)
    if (b->port && b->port == a->port && !strcmp(b->host, "0.0.0.0"))
      return true;
  return false;
}

static bool check_counts(const struct config *c, const char *in, struct config_error *error) {
  const struct {
    const char *option, *what;
    unsigned num, most;
  } lists[] = {{"listen and tls_listen", "addresses", c->listen.num + c->tls_listen.num, CONFIG_MAX_LISTENERS},
               {"admin", "addresses", c->admin.num, CONFIG_MAX_ADMIN},
               {"tls_certificates", "certificates", c->tls_certificates.num, CONFIG_MAX_CERTIFICATES}};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    if (lists[i].num > lists[i].most)
      return config_fail(error, "%s: %s: %u %s are more than %u", in, lists[i].option, lists[i].num, lists[i].what, lists[i].most);
  return true;
}

// CPU numbers with blanks or commas between them.
static bool check_cpus(const char *list, const char *in, struct config_error *error) {
  for (const char *p = list; *p;) {
    size_t n = strspn(p, "0123456789");
    uint64_t cpu = 0;
    if (!n && *p != ' ' && *p != ',')
      return config_fail(error, "%s: cpu_affinity: '%s' is not a list of CPU numbers (like 0 2 4)", in, list);
    if (n && (parse_u64(&cpu, bytes_of(p, n)) || cpu >= CPU_SETSIZE))
      return config_fail(error, "%s: cpu_affinity: %.*s is no CPU (allowed: 0 to %d)", in, (int)(n < 40 ? n : 40), p, CPU_SETSIZE - 1);
    p += n ? n : 1;
  }
  return true;
}

// Host names with blanks or commas between them: letters, digits, - _ and dots.
static bool check_hosts(const char *list, const char *in, struct config_error *error) {
  for (const char *p = list; *p; p++)
    if (!strchr(" ,.-_", *p) && !((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z') && !(*p >= '0' && *p <= '9'))
      return config_fail(error, "%s: admin_hosts: '%s' is not a list of host names, without scheme and port (like origin1.example origin1)", in, list);
  return true;
}

bool config_check(struct config *c, struct config_error *error) {
  const char *in = c->file ? c->file : "configuration";
  if (!*c->media)
    return config_fail(error, "%s: media: not set; give --media DIR or a line `media: DIR` in the file", in);
  if (!*c->state_dir)
    return config_fail(error, "%s: state_dir: a folder is needed; without the option it is /var/lib/sluice", in);
  if (!*c->tls_certificate != !*c->tls_key)
    return config_fail(error, "%s: tls_certificate and tls_key go together; one of them is missing", in);
  if (c->tls_listen.num && !c->tls_certificates.num && !*c->tls_certificate)
    return config_fail(error, "%s: tls_listen: needs tls_certificates", in);
  if (*c->tls_client_ca && !c->tls_listen.num)
    return config_fail(error, "%s: tls_client_ca: needs tls_listen; clients of `listen` show no certificates", in);
  if (!c->listen.num && !c->tls_listen.num)
    return config_fail(error, "%s: listen: nothing to listen on", in);
  const char *again = twice(c);
  if (again)
    return config_fail(error, "%s: %s is given twice in listen, tls_listen and admin", in, again);
  if (*c->public_url && !check_public_url(c->public_url, in, error))
    return false;
  if (!check_cpus(c->cpu_affinity, in, error) || !check_hosts(c->admin_hosts, in, error))
    return false;
  if (*c->tls_certificate && !config_add_cert(c, &config_options[OPTION_tls_certificates], c->tls_certificate, c->tls_key, NULL))
    return config_fail(error, "out of memory");
  if (!check_counts(c, in, error))
    return false;
  if (!strcmp(c->access_log, "off"))
    c->access_log[0] = 0;
  if (c->clear)
    c->schemes |= 1u << SCHEME_CLEAR;
  return true;
}
