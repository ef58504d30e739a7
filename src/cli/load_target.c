#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/load_run.h"
#include "net/tls.h"

static int bad(const char *url) {
  return cli_usage("load", "--target takes http://HOST:PORT or https://HOST:PORT (an IPv6 address in brackets), without a path, not '%s'", url);
}

static bool set_up_tls(struct load_run *run, const struct load_args *a) {
  char why[256];
  run->tls = tls_set_client(&(struct tls_client_files){.ca = a->ca, .no_verify = a->insecure}, why, sizeof why);
  if (!run->tls)
    cli_error("load", "%s", why); // names the file
  return run->tls != NULL;
}

// Of several addresses of a name (::1 and 127.0.0.1 of localhost) the first where somebody answers; the first where nobody does.
static const struct addrinfo *who_answers(const struct addrinfo *all) {
  for (const struct addrinfo *a = all; all->ai_next && a; a = a->ai_next) {
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err = 0;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    socklen_t len = sizeof err;
    bool ok = fd >= 0 && (connect(fd, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS) && poll(&p, 1, 1000) == 1 &&
              getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && !err;
    if (fd >= 0)
      close(fd);
    if (ok)
      return a;
  }
  return all;
}

int load_target(struct load_run *run, const struct load_args *a) {
  const char *url = a->target;
  bool tls = strncmp(url, "https://", 8) == 0;
  if (strchr(url, '@')) // not repeated: it may hold a password
    return cli_usage("load", "--target takes http://HOST:PORT or https://HOST:PORT, without a user or password");
  char host[256], port[8];
  if (!tls && strncmp(url, "http://", 7) != 0)
    return bad(url);
  const char *p = url + (tls ? 8 : 7);
  size_t n = strcspn(p, "/");
  if (!n || n >= sizeof host || (p[n] && p[n + 1]))
    return bad(url);
  memcpy(run->host, p, n);
  snprintf(run->origin, sizeof run->origin, "%s%s", tls ? "https://" : "http://", run->host);
  memcpy(host, p, n);
  host[n] = 0;
  snprintf(port, sizeof port, "%s", tls ? "443" : "80");
  // An address of version 6 stands in brackets: without them nobody knows where its port begins.
  char *name = host[0] == '[' ? host + 1 : host, *end = host[0] == '[' ? strchr(host, ']') : host + strcspn(host, ":");
  if (!end || end == name || (host[0] == '[' && end[1] && end[1] != ':'))
    return bad(url);
  const char *colon = host[0] == '[' ? end + 1 : end;
  if (*colon) {
    uint64_t number;
    if (parse_u64(&number, bytes_str(colon + 1)) || number < 1 || number > 65535)
      return bad(url);
    snprintf(port, sizeof port, "%u", (unsigned)number);
  }
  *end = 0;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  int e = getaddrinfo(name, port, &hints, &found);
  if (e)
    return cli_error(url, "%s", gai_strerror(e));
  const struct addrinfo *chosen = who_answers(found);
  memcpy(&run->addr, chosen->ai_addr, chosen->ai_addrlen);
  run->addr_len = chosen->ai_addrlen;
  freeaddrinfo(found);
  snprintf(run->tls_host, sizeof run->tls_host, "%s", name);
  return tls && !set_up_tls(run, a) ? EXIT_FAILED : EXIT_DONE;
}
