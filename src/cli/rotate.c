// sluice rotate: orders a new key epoch through the admin listener.
#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/text.h"
#include "base/writer.h"
#include "cli/cli.h"
#include "drm/markup.h"
#include "keys/epochs.h"
#include "server/options.h"
#include "server/secret_file.h"

enum { ANSWER_MAX = 1 << 16, TIMEOUT_S = 30 };

static const char options[] =
    "  ASSET            rotate one asset: album/track\n"
    "  PREFIX/          rotate everything below a prefix: album/\n"
    "  --all            rotate everything\n"
    "  --grace TIME     how long the old epoch still answers (24h, 30m, 0; default: rotation_grace of the server)\n"
    "  --revoke         old epochs stop answering at once: not with a --grace\n"
    "  --token-file FILE  the token that the server demands (default: admin_token_file of the configuration)\n"
    "  --admin ADDR:PORT  the admin listener (default 127.0.0.1:9090)\n"
    "  -c, --config FILE  take the admin address from the server's configuration\n";

static int dial(const struct config_addr *a) {
  char port[8];
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *i;
  snprintf(port, sizeof port, "%u", a->port);
  const char *host = !strcmp(a->host, "0.0.0.0") ? "127.0.0.1" : !strcmp(a->host, "::") ? "::1" : a->host;
  int e = getaddrinfo(host, port, &hints, &list);
  if (e) {
    errno = e == EAI_MEMORY ? ENOMEM : EHOSTUNREACH;
    return -1;
  }
  int fd = -1;
  for (i = list; i && fd < 0; i = i->ai_next) {
    fd = socket(i->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, i->ai_addr, i->ai_addrlen)) {
      int why = errno;
      close(fd);
      errno = why;
      fd = -1;
    }
  }
  freeaddrinfo(list);
  struct timeval t = {.tv_sec = TIMEOUT_S};
  if (fd >= 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
  }
  return fd;
}

// Sends the order and gives the answer's status; the body is left in `answer`. -1: errno tells.
static int order(const struct config_addr *a, struct bytes head, char answer[ANSWER_MAX], const char **body) {
  int fd = dial(a);
  if (fd < 0)
    return -1;
  size_t n = 0;
  ssize_t got = send(fd, head.p, head.n, MSG_NOSIGNAL);
  while (got > 0 && n < ANSWER_MAX - 1 && (got = recv(fd, answer + n, ANSWER_MAX - 1 - n, 0)) > 0)
    n += (size_t)got;
  int why = errno;
  close(fd);
  answer[n] = 0;
  *body = strstr(answer, "\r\n\r\n");
  uint64_t status;
  if (got == 0 && *body && n > 12 && !memcmp(answer, "HTTP/1.", 7) && !parse_u64(&status, bytes_of(answer + 9, 3))) {
    *body += 4;
    return (int)status;
  }
  errno = got < 0 ? why : EPROTO;
  return -1;
}

struct wish {
  const char *scope, *grace, *file, *token;
  bool all, revoke;
};

static bool add_token(struct writer *w, const char *path) {
  struct secret_alloc mem;
  struct bytes token;
  secret_alloc_init(&mem, 1 << 16);
  bool ok = secret_read(&mem, &token, path, 1024);
  if (!ok)
    cli_error(path, "cannot read the token: %s", secret_why(errno));
  while (ok && token.n && (token.p[token.n - 1] == '\n' || token.p[token.n - 1] == '\r'))
    token.n--;
  if (ok && !token.n) {
    cli_error(path, "there is no token in the file");
    ok = false;
  }
  for (size_t i = 0; ok && i < token.n; i++)
    if (token.p[i] <= ' ' || token.p[i] >= 0x7f) {
      cli_error(path, "a token is printable characters without blanks");
      ok = false;
    }
  if (ok) {
    wr_str(w, "Authorization: Bearer ");
    wr_bytes(w, token);
    wr_str(w, "\r\n");
  }
  secret_alloc_free(&mem);
  return ok;
}

// The sentence of {"error": …}, or the body's first line.
static int refused(const char *admin, int status, const char *body) {
  json_t *doc = json_loads(body, 0, NULL);
  const char *why = json_string_value(json_object_get(doc, "error"));
  if (why)
    cli_error(admin, "refused (%d): %s", status, why);
  else
    cli_error(admin, "refused (%d): %.*s", status, (int)strcspn(body, "\r\n"), body);
  json_decref(doc);
  return EXIT_FAILED;
}

// Something else than an admin listener may have a 200 for everything: what says of which scope is sluice's.
static bool is_rotation(const char *body) {
  const char *at = strchr(body, '{');
  json_t *doc = at ? json_loads(at, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
  bool is = json_is_string(json_object_get(doc, "scope"));
  json_decref(doc);
  return is;
}

static int run(const struct wish *wish, const struct config *c) {
  char answer[ANSWER_MAX];
  uint8_t head[8192];
  const char *body = "";
  const struct config_addr *a = &c->admin.a[0];
  struct writer w = wr_of(head, sizeof head);
  wr_str(&w, "POST /rotate?scope=");
  percent_write(&w, bytes_str(wish->all ? "" : wish->scope), true);
  if (wish->grace)
    wr_fmt(&w, "&grace_ms=%llu", (unsigned long long)c->rotation_grace);
  wr_fmt(&w, "%s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n", wish->revoke ? "&revoke=1" : "", a->text);
  if (*c->admin_token_file && !add_token(&w, c->admin_token_file))
    return EXIT_FAILED;
  wr_str(&w, "\r\n");
  if (!wr_ok(&w))
    return cli_error("rotate", "the name is too long");
  int status = order(a, bytes_of(head, w.n), answer, &body);
  explicit_bzero(head, sizeof head);
  if (status < 0)
    return cli_error(a->text, "cannot reach the admin listener: %s (--admin names another, -c a configuration that does)", strerror(errno));
  if (status != 200)
    return refused(a->text, status, body);
  for (char *line = answer + (body - answer); *line;) { // it is another program's: a terminal takes no orders from it
    size_t n = strcspn(line, "\n");
    text_tame(line, n);
    line += n + (line[n] != 0);
  }
  if (!is_rotation(body))
    return cli_error(a->text, "answers, and not as sluice's admin listener: nobody said that keys were rotated (--admin names another, -c a configuration that does)");
  printf("%s", body);
  if (strstr(body, "\"on_storage\":false")) // quotes in names are escaped: only the field itself looks like this
    cli_line("rotate: note: there is no asset of this name, or below this prefix, on this server (a prefix ends in /, an asset does not)");
  return EXIT_DONE;
}

int cmd_rotate(int argc, char **argv) {
  enum { ALL, REVOKE, GRACE, TOKEN_FILE, ADMIN, CONFIG };
  static const struct cli_option longs[] = {{"all", 0, false},       {"revoke", 0, false}, {"grace", 0, true}, {"token-file", 0, true},
                                            {"admin", 0, true}, {"config", 'c', true}, {NULL, 0, false}};
  struct cli_args args = {.command = "rotate", .argc = argc, .argv = argv, .options = longs, .at = 1};
  struct wish wish = {0};
  struct config_flags flags = {0};
  struct config_error error;
  const char *admin = NULL;
  for (int o; (o = cli_arg(&args)) != ARG_END;) {
    const char **to = o == GRACE ? &wish.grace : o == TOKEN_FILE ? &wish.token : o == CONFIG ? &wish.file : o == ADMIN ? &admin : NULL;
    if (o == ARG_HELP)
      return cli_help("rotate", options);
    if (o == ARG_WRONG)
      return EXIT_USAGE;
    if (o == ARG_OPERAND && wish.scope)
      return cli_usage("rotate", "unexpected argument '%s'", args.value);
    wish.all |= o == ALL;
    wish.revoke |= o == REVOKE;
    if (o == ARG_OPERAND)
      wish.scope = args.value;
    if (to)
      *to = args.value;
  }
  if (wish.all == (wish.scope != NULL) || (wish.scope && !*wish.scope))
    return cli_usage("rotate", "give one of ASSET, PREFIX/ and --all");
  if (wish.scope && strlen(wish.scope) > EPOCH_MAX_SCOPE)
    return cli_error("rotate", "the name has %zu bytes, more than %d: no asset that is served has it", strlen(wish.scope), EPOCH_MAX_SCOPE);
  struct diag diag = {0};
  if (wish.scope && epochs_scope_ok(bytes_str(wish.scope), &diag)) // as the server does
    return cli_error_diag(wish.scope, &diag);
  char why[CONFIG_WHY];
  config_flag_add(&flags, OPTION_media, "."); // not used here, but a configuration has one
  config_flag_add(&flags, OPTION_admin, admin);
  config_flag_add(&flags, OPTION_admin_token_file, wish.token);
  struct config *c = config_load(wish.file, &flags, &error);
  if (!c)
    return cli_error_config(&error);
  int status;
  if (wish.grace && !config_set(c, &config_options[OPTION_rotation_grace], wish.grace, false, why))
    status = cli_usage("rotate", "--grace: %s", why);
  else if (wish.grace && wish.revoke && c->rotation_grace)
    status = cli_usage("rotate", "--revoke ends the old epochs at once, --grace %s would let the last one answer: give one of them", wish.grace);
  else if (!c->admin.num)
    status = cli_usage("rotate", "the configuration has no admin listener (--admin ADDR:PORT names one)");
  else
    status = run(&wish, c);
  config_free(c);
  return status;
}
