// Start, signals, reload, drain.
#include "server/server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "obs/log.h"
#include "obs/nowait.h"
#include "obs/told.h"
#include "server/admin_http.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "server/cpus.h"
#include "server/crash.h"
#include "server/notify.h"
#include "server/reloads.h"
#include "server/sandbox.h"
#include "server/schedules.h"
#include "server/worker.h"
#include "storage/sidecar.h"

struct startup {
  struct config *config;
  struct keyring *keyring;
  struct epoch_store *epochs;
};

static void decide_workers(struct server *s, const struct config *c) {
  unsigned cpus;
  double quota;
  unsigned usable = cpus_usable(&cpus, &quota, &s->cpus_limited);
  s->num_workers = c->workers ? (unsigned)c->workers : usable;
  if (s->cpus_limited)
    log_line(LOG_INFO, "a quota of %.2f of %u CPUs: %u workers%s", quota, cpus, s->num_workers,
             c->pin_workers && !c->cpu_affinity[0] ? ", not pinned" : "");
}

static bool open_access(struct server *s, const struct config *c, struct config_error *error) {
  if (!*c->access_log)
    return true;
  enum access_format f = c->access_format == 1 ? ACCESS_JSON : ACCESS_COMBINED;
  if (access_open(&s->access, c->access_log, f, s->num_workers))
    return config_fail(error, "access_log: %s: %s", TOLD(c->access_log), strerror(errno));
  return true;
}

// Whether something of this name can be made in its folder; errno says why not.
static bool can_be_made(const char *path) {
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/')
    n--;
  char *folder = path_folder_text(bytes_of(path, n));
  bool ok = folder && !access(folder, W_OK | X_OK);
  int why = errno;
  free(folder);
  errno = why;
  return ok;
}

// A log that is not there yet must have a folder to be made in.
static bool log_there(const char *path) {
  if (!*path || !strcmp(path, "-"))
    return true;
  int fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC);
  if (fd >= 0)
    close(fd);
  struct stat st;
  int why = errno;
  if (fd >= 0 || (why == ENXIO && !stat(path, &st) && S_ISFIFO(st.st_mode))) // a pipe that nobody reads yet
    return true;
  errno = why;
  return why == ENOENT && can_be_made(path);
}

static bool is_folder(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0)
    close(fd);
  return fd >= 0;
}

// Whether files in it can be opened the way that media are. Where not, each would be a 404 or 503, and the server ready.
static bool media_open_here(const struct config *c, struct config_error *error) {
  int root = open(c->media, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0)
    return config_fail(error, "%s: cannot open the media folder: %s", TOLD(c->media), strerror(errno));
  int fd = media_open_at((struct media_path){root, "."}, O_PATH | O_DIRECTORY), why = errno;
  close(root);
  if (fd >= 0)
    close(fd);
  return fd >= 0 || config_fail(error, "%s: openat2, with which media are opened, cannot be used: %s (Linux 5.6 or newer; a seccomp filter of a container may forbid it)",
                                c->media, strerror(why));
}

// Folders are looked at before anything is made: a wrong path leaves no secret behind.
static bool folders_there(const struct config *c, struct config_error *error) {
  if (!media_open_here(c, error))
    return false;
  if (*c->cache_dir && !is_folder(c->cache_dir))
    return config_fail(error, "%s: cannot open the cache folder: %s", TOLD(c->cache_dir), strerror(errno));
  if (is_folder(c->state_dir) ? !access(c->state_dir, W_OK | X_OK) : errno == ENOENT && can_be_made(c->state_dir))
    return true;
  return config_fail(error, "%s: cannot write into the state folder: %s (state_dir names another)", TOLD(c->state_dir), strerror(errno));
}

static bool resolve(struct addrinfo **found, const struct config *c, const char *option, const struct config_addr *a, struct config_error *error) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST};
  char port[8];
  snprintf(port, sizeof port, "%u", a->port);
  int e = getaddrinfo(a->host, port, &hints, found);
  return !e || config_fail(error, e == EAI_MEMORY ? "%s: %s: %s: out of memory" : "%s: %s: '%s' is not a numeric address (like 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80)",
                           c->file ? c->file : "configuration", option, a->text);
}

static bool numeric(const struct config *c, const char *option, const struct config_addrs *list, struct config_error *error) {
  for (unsigned i = 0; i < list->num; i++) {
    struct addrinfo *found;
    if (!resolve(&found, c, option, &list->a[i], error))
      return false;
    freeaddrinfo(found);
  }
  return true;
}

bool server_addresses(const struct config *c, struct config_error *error) {
  return numeric(c, "listen", &c->listen, error) && numeric(c, "tls_listen", &c->tls_listen, error) && numeric(c, "admin", &c->admin, error);
}

bool server_check(const struct config *c, struct config_error *error) {
  const char *control = c->congestion_control;
  if (!folders_there(c, error))
    return false;
  if (!log_there(c->access_log))
    return config_fail(error, "access_log: %s: %s", TOLD(c->access_log), errno == ENXIO ? "neither a file nor a pipe" : strerror(errno));
  if (!*control)
    return true;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool ok = fd >= 0 && !setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, control, (socklen_t)strlen(control));
  int why = errno;
  if (fd >= 0)
    close(fd);
  return ok || config_fail(error, "congestion_control: %s: %s (net.ipv4.tcp_available_congestion_control has what there is)", control,
                           strerror(why));
}

// Whether nobody listens there yet: asked before anything is made, and without SO_REUSEPORT, which our own sockets have, so
// that a second server by mistake is noticed too.
static bool ports_free(const struct config *c, const char *option, const struct config_addrs *list, struct config_error *error) {
  for (unsigned i = 0; i < list->num; i++) {
    const struct config_addr *a = &list->a[i];
    struct addrinfo *found;
    if (!resolve(&found, c, option, a, error))
      return false;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    bool ok = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (ok && found->ai_family == AF_INET6)
      (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    ok = ok && !bind(fd, found->ai_addr, found->ai_addrlen) && !listen(fd, 1);
    int why = errno;
    if (fd >= 0)
      close(fd);
    freeaddrinfo(found);
    if (!ok)
      return config_fail(error, "%s: cannot listen: %s (%s names another address)", a->text, strerror(why), option);
  }
  return true;
}

static void warn_media(const char *media) {
  enum { LOOK_AT = 1000 };
  DIR *d = opendir(media);
  const struct dirent *e = NULL;
  bool any = false;
  errno = d ? 0 : errno;
  for (unsigned n = 0; d && n < LOOK_AT && (e = readdir(d)); n++, errno = 0) {
    any |= e->d_name[0] != '.';
    if (e->d_type != DT_REG || !media_is_track_name(e->d_name))
      continue;
    log_line(LOG_WARN, "%s lies in the media folder itself and is not served: an asset is a folder below it, as in %s/ALBUM/%s", e->d_name,
             media, e->d_name);
    break;
  }
  int why = e ? 0 : errno;
  if (why)
    log_line(LOG_WARN, "%s: the media folder cannot be listed: %s", media, strerror(why));
  else if (!any)
    log_line(LOG_WARN, "%s is empty: nothing is served until there is a folder in it (is it mounted?)", media);
  if (d)
    closedir(d);
}

// What is reserved is not used at once: only much later would the system end the server.
static void warn_memory(const struct config *c) {
  const uint64_t mib = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) >> 20;
  const uint64_t allowed = (c->cache_size >> 20) + (c->index_size >> 20);
  if (allowed > mib)
    log_line(LOG_WARN, "cache_size and index_size are %" PRIu64 " MiB, and this machine has %" PRIu64 " MiB of memory: give less, or it runs out", allowed, mib);
}

void server_warn_machine(const struct config *c) {
  warn_media(c->media);
  warn_memory(c);
}

// Ports below 1024, and some congestion controls, are for who may: before that is given up.
static bool start_listening(struct server *s, struct config_error *error) {
  bool ok = workers_listen(s, error) && admin_listen(s, error);
  steer_turns_free(&s->turns); // the sockets have it
  return ok;
}

// By the signal's own action, which the first process of a container does not have.
static void end_start(int sig) {
  raise(sig);
  _exit(128 + sig);
}

// SIGTERM and SIGINT end a start at once: a file of keys may be a pipe that waits for somebody, and nothing is served yet.
// What asks for other things waits until there is who does them.
static sigset_t hold_signals(bool starting) {
  static const int all[] = {SIGHUP, SIGUSR1, SIGTERM, SIGINT};
  sigset_t held;
  sigemptyset(&held);
  for (unsigned i = 0; i < (starting ? 2 : 4); i++)
    sigaddset(&held, all[i]);
  for (unsigned i = 2; starting && i < 4; i++)
    sigaction(all[i], &(struct sigaction){.sa_handler = end_start, .sa_flags = (int)SA_RESETHAND | SA_NODEFER}, NULL);
  pthread_sigmask(SIG_BLOCK, &held, NULL); // inherited by every thread
  return held;
}

void server_hold_signals(void) { (void)hold_signals(true); }

static bool make_catalog(struct server *s, struct startup *up, struct config_error *error) {
  const struct config *c = up->config;
  if (!server_check(c, error) || !workers_check(c, error) || !ports_free(c, "listen", &c->listen, error) ||
      !ports_free(c, "tls_listen", &c->tls_listen, error) || !ports_free(c, "admin", &c->admin, error))
    return false;
  up->keyring = keyring_load(up->config, LACKING_MADE, error);
  if (!up->keyring)
    return false;
  s->had_secret = keyring_own_secret(up->keyring);
  up->epochs = epoch_store_open(up->config->state_dir, up->keyring->info.default_epoch, error);
  if (!up->epochs)
    return false;
  if (!start_listening(s, error))
    return false;
  server_warn_machine(c);
  (void)hold_signals(false);
  sandbox_enter(c, c->file, up->keyring); // before the first thread
  struct catalog_options o = {.config = up->config, .keyring = up->keyring, .epochs = up->epochs, .published = &s->config,
                              .quiet = &s->quiet, .ops = s->ops, .metrics = &s->metrics[s->num_workers],
                              .num_files = s->kept_fds / 2};
  s->catalog = catalog_new(&o, error);
  if (!s->catalog)
    return false;
  *up = (struct startup){0};
  return true;
}

void server_warn_insecure(const struct config *c) {
  if (c->insecure_clearkey)
    log_line(LOG_WARN, "--insecure-clearkey: CONTENT KEYS ARE HANDED OUT TO ANYONE WHO ASKS. For demos and tests only");
  if (c->schemes & 1u << SCHEME_CLEAR)
    log_line(LOG_WARN, "the scheme `clear` is allowed for every asset without a rule of its own");
}

static void log_address(const char *what, const char *host, unsigned port) {
  bool v6 = strchr(host, ':') != NULL; // in a URL it stands in brackets
  log_line(LOG_INFO, "%s%s%s%s:%u", what, v6 ? "[" : "", host, v6 ? "]" : "", port);
}

static void log_listening(const struct server *s) {
  const struct config *c = s->first;
  unsigned n = 0;
  for (unsigned i = 0; i < c->listen.num; i++)
    log_address("listening on http://", c->listen.a[i].host, workers_port(s, n++));
  for (unsigned i = 0; i < c->tls_listen.num; i++)
    log_address("listening on https://", c->tls_listen.a[i].host, workers_port(s, n++));
  for (unsigned i = 0; i < c->admin.num; i++)
    log_address("admin on http://", c->admin.a[i].host, admin_port(s, i));
  log_line(LOG_INFO, "ready: %u workers, %s, kernel %s, media %s", s->num_workers, workers_io(s), s->ops->name, c->media);
}

// Waits for nothing but signals.
static void serve(struct server *s) {
  sigset_t signals = hold_signals(false);
  for (int sig = 0; sig != SIGTERM && sig != SIGINT; sig = sigwaitinfo(&signals, NULL)) {
    if (sig == SIGHUP)
      reloads_ask(s);
    else if (sig == SIGUSR1 && s->access)
      access_reopen(s->access);
  }
  reloads_stop(s); // the configuration stays what it is
  notify_manager("STOPPING=1");
  schedules_stop(s);
  atomic_store(&s->state, SERVER_DRAINING);
  log_line(LOG_INFO, "draining");
  workers_drain(s, server_config(s)->drain_timeout, &signals);
}

// As others reach this server: the port may have been chosen by the system.
static void set_own_url(struct server *s) {
  const struct config *c = s->first;
  const struct config_addr *a = c->listen.num ? &c->listen.a[0] : &c->tls_listen.a[0];
  bool any = !strcmp(a->host, "0.0.0.0") || !strcmp(a->host, "::");
  bool six = strchr(a->host, ':') && !any;
  char url[300];
  snprintf(url, sizeof url, "%s://%s%s%s:%u", c->listen.num ? "http" : "https", six ? "[" : "", any ? "localhost" : a->host,
           six ? "]" : "", workers_port(s, 0));
  catalog_set_own_url(s->catalog, url);
}

static bool start_workers(struct server *s, struct config_error *error) {
  if (!workers_start(s, error))
    return false;
  s->io = workers_io(s);
  return true;
}

static bool start(struct server *s, struct startup *up, const char *file, const struct config_flags *flags, struct config_error *error) {
  const struct config *c = up->config;
  s->first = c;
  log_set_level((enum log_level)c->log_level);
  decide_workers(s, c);
  s->metrics = aligned_alloc(128, (s->num_workers + 1) * sizeof *s->metrics);
  if (!s->metrics)
    return config_fail(error, "out of memory");
  memset((void *)s->metrics, 0, (s->num_workers + 1) * sizeof *s->metrics);
  quiet_init(&s->quiet, s->num_workers);
  pthread_mutex_init(&s->served.lock, NULL);
  server_warn_insecure(c);
  s->turns = (struct steer_turns){-1, -1};
  if (s->num_workers > 1 && c->steering <= STEER_TURNS)
    s->turns = steer_turns_new(s->num_workers);
  return make_catalog(s, up, error) && open_access(s, c, error) && start_workers(s, error) && admin_start(s, error) &&
         schedules_start(s, error) && reloads_start(s, file, flags, error);
}

enum { END_S = 5 };

static const char *volatile not_waited_for; // as give_up says it
static volatile sig_atomic_t status;

static void give_up(int sig) {
  struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
  (void)sig;
  if (poll(&p, 1, 0) > 0)
    (void)!write_nowait(STDERR_FILENO, not_waited_for, strlen(not_waited_for));
  _exit(status);
}

// When all is drained only storage, or the reader of a pipe, can hold the end up: that has a few seconds in all.
static void end(struct server *s, bool ok) {
  status = ok ? 0 : 1;
  signal(SIGALRM, give_up);
  sigset_t on_time;
  sigemptyset(&on_time);
  sigaddset(&on_time, SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &on_time, NULL); // who started this process may have blocked it
#define WITHOUT(what) "sluice: stopped; " what " is not waited for\n"
  not_waited_for = WITHOUT("a reload whose files do not answer");
  alarm(END_S);
  reloads_end(s); // before what it could change is gone
  not_waited_for = WITHOUT("storage that does not answer");
  workers_end(s);
  not_waited_for = WITHOUT("an order to rotate that the disk of state_dir holds up");
  admin_stop(s);
  not_waited_for = WITHOUT("the access log, which takes nothing,");
  access_close(s->access);
  not_waited_for = WITHOUT("a rotation by schedule that the disk of state_dir holds up, and that the next start makes where it is not written,");
  schedules_end(s);
#undef WITHOUT
  alarm(0);
}

int server_run(struct config *config, const char *file, const struct config_flags *flags, const struct aes_ops *ops) {
  struct startup up = {.config = config};
  struct server *s = aligned_alloc(128, (sizeof *s + 127) & ~(size_t)127);
  struct config_error error;
  struct timespec t;
  if (!s) {
    fprintf(stderr, "sluice: out of memory\n");
    config_free(config);
    return 1;
  }
  memset((void *)s, 0, sizeof *s);
  crash_install();
  crash_thread();
  clock_gettime(CLOCK_MONOTONIC, &t);
  s->started_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
  s->ops = ops;
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN); // under `ulimit -f` what would grow too large is an error like a full disk
  bool ok = start(s, &up, file, flags, &error);
  if (ok) {
    set_own_url(s);
    log_listening(s);
    atomic_store(&s->state, SERVER_READY);
    notify_manager("READY=1");
    serve(s);
  } else {
    text_tame(error.text, strlen(error.text)); // it names files
    fprintf(stderr, "sluice: %s\n", error.text);
    if (s->workers)
      workers_drain(s, 0, NULL);
  }
  end(s, ok);
  catalog_free(s->catalog);
  epoch_store_close(up.epochs);
  keyring_put(up.keyring);
  config_free(up.config);
  free(s->metrics);
  free(s);
  if (ok)
    log_line(LOG_INFO, "stopped");
  return ok ? 0 : 1;
}
