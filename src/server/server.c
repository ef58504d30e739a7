// Start, signals, reload, drain.
#include "server/server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "obs/log.h"
#include "server/admin_http.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "server/certificates.h"
#include "server/crash.h"
#include "server/notify.h"
#include "server/sandbox.h"
#include "server/schedules.h"
#include "server/worker.h"
#include "storage/sidecar.h"

struct startup {
  struct config *config;
  struct keyring *keyring;
  struct epoch_store *epochs;
};

static unsigned cpus(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set))
    return 1;
  int n = CPU_COUNT(&set);
  return n < 1 ? 1 : n > QUIET_MAX_WORKERS ? QUIET_MAX_WORKERS : (unsigned)n;
}

static bool open_access(struct server *s, const struct config *c, struct config_error *error) {
  if (!*c->access_log)
    return true;
  enum access_format f = c->access_format == 1 ? ACCESS_JSON : ACCESS_COMBINED;
  if (access_open(&s->access, c->access_log, f, s->num_workers))
    return config_fail(error, "access_log: %s: %s", c->access_log, strerror(errno));
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
  if (fd >= 0 || errno == ENXIO) // a pipe that nobody reads yet
    return true;
  return errno == ENOENT && can_be_made(path);
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
    return config_fail(error, "%s: cannot open the media folder: %s", c->media, strerror(errno));
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
    return config_fail(error, "%s: cannot open the cache folder: %s", c->cache_dir, strerror(errno));
  if (is_folder(c->state_dir) ? !access(c->state_dir, W_OK | X_OK) : errno == ENOENT && can_be_made(c->state_dir))
    return true;
  return config_fail(error, "%s: cannot write into the state folder: %s (state_dir names another)", c->state_dir, strerror(errno));
}

static bool resolve(struct addrinfo **found, const struct config_addr *a, struct config_error *error) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST};
  char port[8];
  snprintf(port, sizeof port, "%u", a->port);
  return !getaddrinfo(a->host, port, &hints, found) ||
         config_fail(error, "%s: not a numeric address (like 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80)", a->text);
}

static bool numeric(const struct config_addrs *list, struct config_error *error) {
  for (unsigned i = 0; i < list->num; i++) {
    struct addrinfo *found;
    if (!resolve(&found, &list->a[i], error))
      return false;
    freeaddrinfo(found);
  }
  return true;
}

bool server_check(const struct config *c, struct config_error *error) {
  const char *control = c->congestion_control;
  if (!folders_there(c, error) || !numeric(&c->listen, error) || !numeric(&c->tls_listen, error) || !numeric(&c->admin, error))
    return false;
  if (!log_there(c->access_log))
    return config_fail(error, "access_log: %s: %s", c->access_log, strerror(errno));
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
static bool ports_free(const char *option, const struct config_addrs *list, struct config_error *error) {
  for (unsigned i = 0; i < list->num; i++) {
    const struct config_addr *a = &list->a[i];
    struct addrinfo *found;
    if (!resolve(&found, a, error))
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

// Tracks in the media folder itself are what a first try has, and every URL is a 404 then.
static void warn_flat_media(const char *media) {
  enum { LOOK_AT = 1000 };
  DIR *d = opendir(media);
  const struct dirent *e;
  for (unsigned n = 0; d && n < LOOK_AT && (e = readdir(d)); n++) {
    if (e->d_type != DT_REG || !media_is_track_name(e->d_name))
      continue;
    log_line(LOG_WARN, "%s lies in the media folder itself and is not served: an asset is a folder below it, as in %s/ALBUM/%s", e->d_name,
             media, e->d_name);
    break;
  }
  if (d)
    closedir(d);
}

// Ports below 1024, and some congestion controls, are for who may: before that is given up.
static bool start_listening(struct server *s, struct config_error *error) {
  bool ok = workers_listen(s, error) && admin_listen(s, error);
  steer_turns_free(&s->turns); // the sockets have it
  return ok;
}

static bool make_catalog(struct server *s, struct startup *up, struct config_error *error) {
  const struct config *c = up->config;
  if (!server_check(c, error) || !workers_check(c, error) || !ports_free("listen", &c->listen, error) || !ports_free("tls_listen", &c->tls_listen, error) ||
      !ports_free("admin", &c->admin, error))
    return false;
  up->keyring = keyring_load(up->config, true, error);
  if (!up->keyring)
    return false;
  up->epochs = epoch_store_open(up->config->state_dir, up->keyring->info.default_epoch, error);
  if (!up->epochs)
    return false;
  if (!start_listening(s, error))
    return false;
  warn_flat_media(c->media);
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

static void warn_insecure(const struct config *c) {
  if (c->insecure_clearkey)
    log_line(LOG_WARN, "--insecure-clearkey: CONTENT KEYS ARE HANDED OUT TO ANYONE WHO ASKS. For demos and tests only");
  if (c->schemes & 1u << SCHEME_CLEAR)
    log_line(LOG_WARN, "the scheme `clear` is allowed for every asset without a rule of its own");
}

// URLs below an epoch were handed out for a year. What changes their bytes all the same is taken over, for it may have to be,
// and said, with what makes it whole again.
static void warn_old_urls(const struct server *s, const struct config *fresh, const struct keyring *keyring) {
  char options[CONFIG_OLD_URLS_MAX], sections[KEYS_CHANGED_MAX];
  struct settings *st = settings_get(s->catalog);
  config_old_urls(options, st->config, fresh);
  keys_changed(sections, st->keyring->set, keyring->set);
  settings_put(st);
  if (*options || *sections)
    log_line(LOG_WARN, "reload: changed: %s%s%s%s: URLs of epochs that have begun give other bytes now, and caches keep the old ones "
                       "for a year: rotate (sluice rotate --all) and purge what CDNs have of the old epochs",
             options, *options && *sections ? ", " : "", *sections ? "of the keys file: " : "", sections);
}

// The whole new configuration is made and checked before anything of it is in force.
static void reload(struct server *s, const char *file, const struct config_flags *flags) {
  struct obs_worker *m = &s->metrics[s->num_workers];
  struct config_error error;
  struct config *fresh = config_load(file, flags, &error);
  struct keyring *keyring = fresh ? keyring_load(fresh, true, &error) : NULL;
  struct settings *st = keyring ? catalog_prepare(s->catalog, fresh, keyring, &error) : NULL;
  if (!st || !workers_reload(s, fresh, &error)) {
    log_line(LOG_ERROR, "reload refused, the old configuration stays in force: %s", error.text);
    metric_add_shared(&m->reloads_failed, 1);
    if (st) {
      settings_put(st);
    } else {
      keyring_put(keyring);
      config_free(fresh);
    }
    return;
  }
  const char *restart = config_restart_needed(s->first, fresh);
  if (restart)
    log_line(LOG_WARN, "reload: %s changed but needs a restart; the old value stays", restart);
  // It would renumber every epoch under way, those that were revoked too.
  uint32_t base = epoch_store_base(catalog_epochs(s->catalog));
  if (keyring->info.default_epoch != base)
    log_line(LOG_WARN, "reload: epochs.default changed from %u to %u but needs a restart; the old value stays", base, keyring->info.default_epoch);
  log_set_level((enum log_level)fresh->log_level);
  warn_insecure(fresh);
  warn_old_urls(s, fresh, keyring);
  catalog_reload(s->catalog, st);
  schedules_wake(s);
  if (s->access)
    access_reopen(s->access);
  metric_add_shared(&m->reloads_ok, 1);
  log_line(LOG_INFO, "reloaded %s", file ? file : "keys");
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

// Waits for a signal, with a look at certificates now and then.
static int next_signal(struct server *s, const sigset_t *signals) {
  for (;;) {
    uint64_t ms = certificates_say(s);
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000 * 1000000)};
    int sig = sigtimedwait(signals, NULL, &t);
    if (sig > 0)
      return sig;
  }
}

static void serve(struct server *s, const sigset_t *signals, const char *file, const struct config_flags *flags) {
  for (;;) {
    int sig = next_signal(s, signals);
    if (sig == SIGHUP) {
      notify_reloading();
      reload(s, file, flags);
      notify_manager("READY=1");
    } else if (sig == SIGUSR1 && s->access) {
      access_reopen(s->access);
    } else if (sig == SIGTERM || sig == SIGINT) {
      break;
    }
  }
  notify_manager("STOPPING=1");
  schedules_stop(s);
  atomic_store(&s->state, SERVER_DRAINING);
  log_line(LOG_INFO, "draining");
  workers_drain(s, server_config(s)->drain_timeout, signals);
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

static bool start(struct server *s, struct startup *up, struct config_error *error) {
  const struct config *c = up->config;
  s->first = c;
  s->num_workers = c->workers ? (unsigned)c->workers : cpus();
  s->metrics = aligned_alloc(128, (s->num_workers + 1) * sizeof *s->metrics);
  if (!s->metrics)
    return config_fail(error, "out of memory");
  memset((void *)s->metrics, 0, (s->num_workers + 1) * sizeof *s->metrics);
  quiet_init(&s->quiet, s->num_workers);
  pthread_mutex_init(&s->served.lock, NULL);
  log_set_level((enum log_level)c->log_level);
  warn_insecure(c);
  s->turns = (struct steer_turns){-1, -1};
  if (s->num_workers > 1 && c->steering <= STEER_TURNS)
    s->turns = steer_turns_new(s->num_workers);
  return make_catalog(s, up, error) && open_access(s, c, error) && start_workers(s, error) && admin_start(s, error) &&
         schedules_start(s, error);
}

enum { HURRY_S = 2 };

static void hurry(int sig) {
  static volatile sig_atomic_t asked;
  (void)sig;
  if (!asked)
    alarm(HURRY_S);
  asked = 1;
}

static void give_up(int sig) {
  static const char why[] = "sluice: asked to end again: storage that does not answer is not waited for\n";
  (void)sig;
  (void)!write(STDERR_FILENO, why, sizeof why - 1);
  _exit(1);
}

// When all is drained, only storage can hold the end up: who asks for it again gives it two seconds more.
static void hurry_when_asked(void) {
  static const int asks[] = {SIGTERM, SIGINT};
  sigset_t open;
  sigemptyset(&open);
  signal(SIGALRM, give_up);
  for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
    signal(asks[i], hurry);
    sigaddset(&open, asks[i]);
  }
  pthread_sigmask(SIG_UNBLOCK, &open, NULL);
}

int server_run(struct config *config, const char *file, const struct config_flags *flags, const struct aes_ops *ops) {
  struct startup up = {.config = config};
  struct server *s = aligned_alloc(128, (sizeof *s + 127) & ~(size_t)127);
  struct config_error error;
  struct timespec t;
  sigset_t signals;
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
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &signals, NULL); // inherited by every thread
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN); // under `ulimit -f` what would grow too large is an error like a full disk
  bool ok = start(s, &up, &error);
  if (ok) {
    set_own_url(s);
    log_listening(s);
    atomic_store(&s->state, SERVER_READY);
    notify_manager("READY=1");
    serve(s, &signals, file, flags);
    hurry_when_asked();
  } else {
    fprintf(stderr, "sluice: %s\n", error.text);
    if (s->workers)
      workers_drain(s, 0, NULL);
  }
  workers_end(s);
  admin_stop(s);
  access_close(s->access);
  if (!schedules_end(s)) { // the rest is memory, which the journal's thread still uses
    log_line(LOG_WARN, "stopped: a rotation by schedule that the disk of state_dir holds up is not waited for; where it is not written the next start makes it");
    _exit(ok ? 0 : 1);
  }
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
