#include "server/worker.h"
#include "obs/log.h"
#include "server/certificates.h"
#include "server/conn.h"
#include "server/crash.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum {
  ACCEPT_RETRY_MS = 100,
  TOGETHER_MS = 200, // within which two signals are one
  WORKER_FDS = 2,  // beside its listeners: the ring, or epoll, and what wakes it
  OWN_FDS = 32,    // media and state folders, logs, the admin listener and most of its clients
  KEPT_FDS = 1024, // not for clients: half of them for files that the reader keeps open, half for helpers, logs, key servers, threads
};

struct workers {
  unsigned num;
  struct tls_tickets *tickets;
  struct tls_set *_Atomic certificates;
  uint16_t ports[CONFIG_MAX_LISTENERS];
  _Atomic bool hurry; // draining has lasted long enough for who waits
  struct worker w[];
};

static void accept_again(struct timer *t, void *ctx) {
  struct listener *l = OWNER(struct listener, retry, t);
  (void)ctx;
  if (!l->w->draining)
    l->w->io->v->accept(l->w->io, &l->accept, l->fd);
}

// Who stands in the queue of a listener that closes would be reset: a busy turn, or one of many connections, leaves some there.
static void close_listener(struct listener *l) {
  struct worker *w = l->w;
  int fd;
  (void)fcntl(l->fd, F_SETFL, O_NONBLOCK); // a ring's waits by itself
  for (uint64_t n = w->s->first->backlog; n && (fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0; n--)
    conn_accepted(w, fd, l->tls);
  w->io->v->close(w->io, l->fd);
  l->fd = -1;
}

static void on_accept(struct io *io, struct io_op *op, const struct io_event *ev) {
  struct listener *l = OWNER(struct listener, accept, op);
  struct worker *w = l->w;
  (void)io;
  if (ev->res >= 0)
    conn_accepted(w, ev->res, l->tls);
  if (ev->more)
    return;
  if (w->draining) {
    close_listener(l);
    return;
  }
  obs_conn_refused(w->m); // no descriptors or memory now
  timer_set(&w->timers, &l->retry, w->now_ms, ACCEPT_RETRY_MS);
}

static void begin_drain(struct worker *w) {
  w->draining = true;
  w->drain_deadline_ms = w->now_ms + w->drain_ms;
  for (unsigned i = 0; i < w->num_listeners; i++) {
    struct listener *l = &w->listeners[i];
    timer_clear(&w->timers, &l->retry);
    if (io_armed(&l->accept))
      w->io->v->cancel(w->io, &l->accept);
    else
      close_listener(l);
  }
  conn_drain(w);
}

static bool drained(struct worker *w) {
  if (!w->draining)
    return false;
  if (atomic_load_explicit(&w->s->workers->hurry, memory_order_relaxed))
    w->drain_deadline_ms = 0;
  if (w->now_ms >= w->drain_deadline_ms)
    conn_close_all(w);
  for (unsigned i = 0; i < w->num_listeners; i++)
    if (w->listeners[i].fd >= 0)
      return false;
  // Past the deadline storage that does not answer is not waited for: what it wakes is freed after the helpers have ended.
  return w->num_used == 0 && (w->num_waiting == 0 || w->now_ms >= w->drain_deadline_ms);
}

static void run_woken(struct worker *w) {
  struct request *rq = atomic_exchange_explicit(&w->woken, NULL, memory_order_acquire);
  while (rq) {
    struct request *next = rq->next;
    conn_woken(rq);
    rq = next;
  }
}

static int64_t sleep_ns(const struct worker *w) {
  uint64_t ms = timers_wait_ms(&w->timers, w->now_ms);
  if (w->draining) {
    uint64_t left = w->drain_deadline_ms > w->now_ms ? w->drain_deadline_ms - w->now_ms : 20;
    ms = ms < left ? ms : left;
  }
  return ms == UINT64_MAX ? -1 : (int64_t)(ms * 1000000);
}

static void read_clocks(struct worker *w) {
  w->now_ms = w->io->v->now_ns(w->io) / 1000000;
  w->wall_s = w->io->v->wall_ns(w->io) / 1000000000;
}

static void pin(const struct worker *w) {
  cpu_set_t set;
  if (w->cpu < 0)
    return;
  CPU_ZERO(&set);
  CPU_SET((size_t)w->cpu, &set);
  if (pthread_setaffinity_np(pthread_self(), sizeof set, &set))
    log_line(LOG_WARN, "worker %u cannot be pinned to CPU %d", w->n, w->cpu);
}

// Where the kernel no longer drives the sockets, a process that goes on would answer nobody.
static _Noreturn void io_failed(const struct worker *w) {
  log_line(LOG_ERROR, "worker %u: %s failed: %s", w->n, w->io->v->name, strerror(errno));
  abort();
}

static void *worker_main(void *arg) {
  struct worker *w = arg;
  struct quiet *q = &w->s->quiet;
  crash_thread();
  char name[16];
  snprintf(name, sizeof name, "worker %u", w->n % 1000);
  pthread_setname_np(pthread_self(), name);
  pin(w);
  read_clocks(w);
  timers_init(&w->timers, w->now_ms);
  for (unsigned i = 0; i < w->num_listeners; i++)
    w->io->v->accept(w->io, &w->listeners[i].accept, w->listeners[i].fd);
  while (!drained(w)) {
    if (!w->io->v->wait(w->io, sleep_ns(w)))
      io_failed(w);
    quiet_enter(q, w->n);
    read_clocks(w);
    if (!w->io->v->run(w->io))
      io_failed(w);
    if (atomic_load_explicit(&w->woken, memory_order_relaxed))
      run_woken(w);
    conn_answer_ready(w);
    timers_run(&w->timers, w->now_ms, w);
    if (!w->draining && atomic_load_explicit(&w->drain, memory_order_acquire))
      begin_drain(w);
    quiet_leave(q, w->n);
  }
  return NULL;
}

static bool fail(struct config_error *e, const char *what, const char *name, int err) {
  snprintf(e->text, sizeof e->text, "%s %s: %s", what, name, strerror(err));
  return false;
}

struct binding {
  struct sockaddr_storage addr;
  socklen_t len;
  const char *name;
  bool v6_only;
};

static bool resolve(struct binding *b, const struct config_addr *a, struct config_error *e) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
  char port[8];
  snprintf(port, sizeof port, "%u", a->port);
  int r = getaddrinfo(a->host && a->host[0] ? a->host : NULL, port, &hints, &found);
  if (r) {
    snprintf(e->text, sizeof e->text, "cannot resolve %s: %s", a->text, gai_strerror(r));
    return false;
  }
  memcpy(&b->addr, found->ai_addr, found->ai_addrlen);
  b->len = found->ai_addrlen;
  b->name = a->text;
  freeaddrinfo(found);
  return true;
}

static uint16_t *port_of(struct sockaddr_storage *a) {
  return a->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)a)->sin6_port : &((struct sockaddr_in *)(void *)a)->sin_port;
}

static int listen_on(struct worker *w, const struct binding *b, bool reuseport) {
  const struct config *cfg = w->s->first;
  return w->io->v->listen(w->io, &(struct io_listen){
                                     .addr = (const struct sockaddr *)&b->addr,
                                     .addr_len = b->len,
                                     .backlog = (int)cfg->backlog,
                                     .congestion = cfg->congestion_control[0] ? cfg->congestion_control : NULL,
                                     .recv_buffer = RECV_SOCKET,
                                     .unsent = UNSENT_SOCKET,
                                     .reuseport = reuseport,
                                     .v6_only = b->v6_only,
                                 });
}

// The first socket of an address is bound alone before the others share it: another process that listens there with
// SO_REUSEPORT would otherwise share our clients without a word.
static bool bind_listener(struct workers *ws, unsigned i, struct binding *b, bool tls, struct config_error *e) {
  bool shared = ws->num > 1;
  if (shared) {
    int probe = listen_on(&ws->w[0], b, false);
    if (probe < 0)
      return fail(e, "cannot listen on", b->name, -probe);
    ws->w[0].io->v->close(ws->w[0].io, probe);
  }
  for (unsigned n = 0; n < ws->num; n++) {
    struct worker *w = &ws->w[n];
    struct listener *l = &w->listeners[i];
    int fd = listen_on(w, b, shared);
    if (fd == -ENOENT)
      return fail(e, "cannot use congestion control", w->s->first->congestion_control, ENOENT);
    if (fd < 0)
      return fail(e, "cannot listen on", b->name, -fd);
    *l = (struct listener){.accept.done = on_accept, .retry.fire = accept_again, .w = w, .fd = fd, .tls = tls};
    w->num_listeners = i + 1;
    socklen_t len = sizeof b->addr;
    if (getsockname(fd, (struct sockaddr *)&b->addr, &len))
      return fail(e, "cannot listen on", b->name, errno);
    ws->ports[i] = (uint16_t)(*port_of(&b->addr) >> 8 | *port_of(&b->addr) << 8);
  }
  return true;
}

// Decides once all sockets of all addresses listen and workers have their CPUs.
static void steer(struct workers *ws, const struct server *s) {
  enum config_steering want = (enum config_steering)s->first->steering;
  const char *by = "by the kernel's hash";
  int cpus[QUIET_MAX_WORKERS];
  if (ws->num < 2)
    return;
  for (unsigned n = 0; n < ws->num; n++)
    cpus[n] = ws->w[n].cpu;
  for (unsigned i = 0; i < ws->w[0].num_listeners; i++) {
    int fd = ws->w[0].listeners[i].fd;
    if (want <= STEER_TURNS && steer_by_turns(&s->turns, fd))
      by = "in turn";
    else if (want == STEER_CPU && steer_by_cpu(fd, cpus, ws->num))
      by = "by the CPU that they come in on";
    else if (want != STEER_AUTO && want != STEER_HASH)
      log_line(LOG_WARN, "steering cannot be had: %s", strerror(errno));
  }
  log_line(LOG_INFO, "connections go to workers %s", by);
}

static void *map(size_t n) {
  void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

static uint64_t raise_limit(void) {
  struct rlimit lim;
  if (getrlimit(RLIMIT_NOFILE, &lim))
    return UINT64_MAX;
  rlim_t now = lim.rlim_cur;
  lim.rlim_cur = lim.rlim_max;
  return now < lim.rlim_max && !setrlimit(RLIMIT_NOFILE, &lim) ? lim.rlim_max : now;
}

// limit_connections says how many clients a worker may have: clients alone must not take the descriptors that media need.
static bool limit_connections(struct workers *ws, struct server *s, unsigned num_listeners, struct config_error *e) {
  const struct config *cfg = s->first;
  uint64_t all = raise_limit(), own = OWN_FDS + (uint64_t)ws->num * (WORKER_FDS + num_listeners);
  if (all < own + 2 * ws->num)
    return config_fail(e, "%u workers need %llu descriptors and this process may open %llu (ulimit -n): fewer workers, or a higher limit", ws->num,
                       (unsigned long long)own + 2 * ws->num, (unsigned long long)all);
  uint64_t free = all - own, kept = free / 2 < KEPT_FDS ? free / 2 : KEPT_FDS, each = (free - kept) / ws->num;
  s->kept_fds = (unsigned)kept;
  // Those that have given way hold theirs until their last completions.
  uint64_t num = cfg->max_connections, leaving = num < LEAVING_MAX ? num : LEAVING_MAX, eighth = each > 1 ? each / 8 + 1 : 0;
  if (each < num + leaving) {
    leaving = eighth < leaving ? eighth : leaving;
    num = each - leaving < num ? each - leaving : num;
  }
  for (unsigned n = 0; n < ws->num; n++) {
    ws->w[n].num_conns = (uint32_t)num;
    ws->w[n].num_places = (uint32_t)(num + leaving);
  }
  return true;
}

static void say_limit(const struct workers *ws, const struct config *cfg) {
  struct rlimit lim;
  if (ws->w[0].num_conns < cfg->max_connections && !getrlimit(RLIMIT_NOFILE, &lim))
    log_line(LOG_WARN, "max_connections: %u for each of %u workers, not %llu: this process may open %llu descriptors (ulimit -n), and some are kept for media",
             ws->w[0].num_conns, ws->num, (unsigned long long)cfg->max_connections, (unsigned long long)lim.rlim_cur);
}

static bool worker_init(struct worker *w, struct server *s, unsigned n, unsigned num_listeners, struct config_error *e) {
  static const char *const io_names[] = {[IO_AUTO] = "auto", [IO_URING] = "io_uring", [IO_EPOLL] = "epoll"};
  const struct config *cfg = s->first;
  w->s = s;
  w->n = n;
  w->m = &s->metrics[n];
  w->cpu = -1;
  w->io = io_new(io_names[cfg->io], &(struct io_options){.recv_buffers = RECV_BUFFERS, .recv_size = RECV_SIZE}, e->text, sizeof e->text);
  if (!w->io)
    return false;
  if (n == 0 && cfg->io == IO_AUTO && strcmp(w->io->v->name, io_names[IO_EPOLL]) == 0) // the text says why not io_uring
    log_line(LOG_INFO, "%s: epoll drives the sockets", e->text);
  w->flight = malloc(TLS_FLIGHT);
  w->opened = malloc(TLS_RECORD);
  w->listeners = calloc(num_listeners, sizeof *w->listeners);
  atomic_store(&w->m->connections_limit, (int64_t)w->num_conns);
  w->conns = map(w->num_places * sizeof *w->conns);
  line_init(&w->idle);
  w->num_requests = w->num_conns + BEHIND_MAX;
  w->requests = map(w->num_requests * sizeof *w->requests);
  if (!w->flight || !w->opened || !w->listeners || !w->conns || !w->requests || !out_pool_init(&w->out, (uint32_t)cfg->output_buffers))
    return fail(e, "not enough memory for", "a worker", ENOMEM);
  return true;
}

static void workers_free(struct workers *ws) {
  for (unsigned n = 0; n < ws->num; n++) {
    struct worker *w = &ws->w[n];
    for (unsigned i = 0; i < w->num_listeners; i++)
      if (w->listeners[i].fd >= 0)
        w->io->v->close(w->io, w->listeners[i].fd);
    io_free(w->io);
    free(w->listeners);
    free(w->flight);
    free(w->opened);
    if (w->conns)
      munmap(w->conns, w->num_places * sizeof *w->conns);
    if (w->requests)
      munmap(w->requests, w->num_requests * sizeof *w->requests);
    out_pool_free(&w->out);
  }
  tls_set_free(atomic_load(&ws->certificates));
  tls_tickets_free(ws->tickets);
  free(ws);
}

// assign_cpus gives each worker one CPU of the list in `cpu_affinity`, or of those the process may use.
static void assign_cpus(struct workers *ws, const struct config *cfg) {
  int cpus[CPU_SETSIZE];
  unsigned num = 0;
  cpu_set_t set;
  const char *p = cfg->cpu_affinity;
  for (char *end; *p && num < CPU_SETSIZE; p = end) {
    long v = strtol(p, &end, 10); // below CPU_SETSIZE: config_load has looked
    if (end == p)
      end++;
    else
      cpus[num++] = (int)v;
  }
  if (num == 0 && sched_getaffinity(0, sizeof set, &set) == 0)
    for (int c = 0; c < CPU_SETSIZE; c++)
      if (CPU_ISSET((size_t)c, &set))
        cpus[num++] = c;
  // More workers than CPUs, or a quota of what others use as well: leave it to the scheduler.
  if (!cfg->pin_workers || num == 0 || (!cfg->cpu_affinity[0] && (ws->num > num || ws->w[0].s->cpus_limited)))
    return;
  for (unsigned n = 0; n < ws->num; n++)
    ws->w[n].cpu = cpus[n % num];
}

static bool start_threads(struct workers *ws, struct config_error *e) {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int r = 0;
  for (unsigned n = 0; n < ws->num && r == 0; n++) {
    struct server *s = ws->w[n].s;
    ws->w[n].access = s->access ? access_ring(s->access, n) : NULL;
    r = pthread_create(&ws->w[n].thread, NULL, worker_main, &ws->w[n]);
    ws->w[n].started = r == 0;
  }
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return r == 0 || fail(e, "cannot start", "a worker thread", r);
}

static struct tls_set *read_certificates(const struct config *c, struct tls_tickets *tickets, struct config_error *e) {
  struct tls_files files[CONFIG_MAX_CERTIFICATES];
  unsigned num = c->tls_certificates.num;
  for (unsigned i = 0; i < num; i++) {
    const struct config_cert *a = &c->tls_certificates.a[i];
    files[i] = (struct tls_files){.cert = a->cert, .key = a->key, .ocsp = a->ocsp};
  }
  struct tls_set *set = tls_set_new(files, num, c->tls_client_ca, tickets, e->text, sizeof e->text);
  if (!set || !c->ktls || !ktls_here() || ktls_prepare(set))
    return set;
  tls_set_free(set);
  (void)fail(e, "not enough memory for", "TLS", ENOMEM);
  return NULL;
}

static bool load_certificates(struct workers *ws, const struct config *c, struct config_error *e) {
  ws->tickets = tls_tickets_new();
  if (!ws->tickets)
    return fail(e, "not enough memory for", "TLS", ENOMEM);
  struct tls_set *set = read_certificates(c, ws->tickets, e);
  atomic_store(&ws->certificates, set);
  return set != NULL;
}

// Who seals TLS records: decided once, and said.
static bool use_ktls(const struct config *c) {
  bool here = c->ktls && ktls_here();
  if (here)
    log_line(LOG_INFO, "TLS 1.3 records are sealed by the kernel");
  else
    log_line(LOG_INFO, "TLS records are sealed by this process: %s",
             !c->ktls ? "`ktls` is off" : errno == ENOENT ? "the kernel's module `tls` is not loaded (modprobe tls)" : strerror(errno));
  return here;
}

static bool prepare(struct workers *ws, struct server *s, struct config_error *e) {
  const struct config *cfg = s->first;
  struct binding b;
  if (cfg->tls_listen.num && !load_certificates(ws, cfg, e))
    return false;
  certificates_serve(s, atomic_load(&ws->certificates), true); // by workers_check
  unsigned plain = cfg->listen.num, all = plain + cfg->tls_listen.num;
  if (!limit_connections(ws, s, all, e))
    return false;
  bool ktls = cfg->tls_listen.num && use_ktls(cfg);
  for (unsigned n = 0; n < ws->num; n++) {
    ws->w[n].certificates = &ws->certificates;
    ws->w[n].ktls = ktls;
    if (!worker_init(&ws->w[n], s, n, all, e))
      return false;
  }
  for (unsigned i = 0; i < all; i++) {
    const struct config_addr *a = i < plain ? &cfg->listen.a[i] : &cfg->tls_listen.a[i - plain];
    b.v6_only = config_v6_only(cfg, a);
    if (!resolve(&b, a, e) || !bind_listener(ws, i, &b, i >= plain, e))
      return false;
  }
  assign_cpus(ws, cfg);
  steer(ws, s);
  say_limit(ws, cfg);
  return true;
}

bool workers_listen(struct server *s, struct config_error *e) {
  struct workers *ws = calloc(1, sizeof *ws + s->num_workers * sizeof ws->w[0]);
  if (!ws)
    return fail(e, "not enough memory for", "workers", ENOMEM);
  ws->num = s->num_workers;
  s->workers = ws;
  if (prepare(ws, s, e))
    return true;
  workers_drain(s, 0, NULL);
  workers_end(s);
  return false;
}

bool workers_start(struct server *s, struct config_error *e) {
  if (start_threads(s->workers, e))
    return true;
  workers_drain(s, 0, NULL);
  workers_end(s);
  return false;
}

uint16_t workers_port(const struct server *s, unsigned n) { return s->workers->ports[n]; }

const char *workers_io(const struct server *s) { return s->workers->w[0].io->v->name; }

bool workers_check(const struct config *c, struct config_error *e) {
  if (c->tls_listen.num == 0 && c->tls_certificates.num == 0)
    return true;
  struct tls_tickets *tickets = tls_tickets_new();
  if (!tickets)
    return fail(e, "not enough memory for", "TLS", ENOMEM);
  struct tls_set *set = read_certificates(c, tickets, e);
  (void)tls_say_ends(set, false);
  tls_set_free(set);
  tls_tickets_free(tickets);
  return set != NULL;
}

// A set to be served; then the one that it replaced: workers that have just read the pointer may still start a connection with it.
struct next_certificates {
  struct quiet_item item;
  struct tls_set *set;
};

void workers_forget(struct next_certificates *next) {
  if (next)
    tls_set_free(next->set);
  free(next);
}

static void free_retired(struct quiet_item *item) { workers_forget(OWNER(struct next_certificates, item, item)); }

bool workers_prepare(struct server *s, const struct config *fresh, struct next_certificates **out, struct config_error *e) {
  *out = NULL;
  if (s->first->tls_listen.num == 0)
    return workers_check(fresh, e);
  struct next_certificates *next = calloc(1, sizeof *next);
  if (!next)
    return fail(e, "not enough memory for", "TLS", ENOMEM);
  next->set = read_certificates(fresh, s->workers->tickets, e);
  if (!next->set) {
    free(next);
    return false;
  }
  *out = next;
  return true;
}

void workers_take(struct server *s, struct next_certificates *next) {
  if (!next)
    return;
  certificates_serve(s, next->set, false);
  next->set = atomic_exchange(&s->workers->certificates, next->set);
  quiet_retire(&s->quiet, &next->item, free_retired);
}

static uint64_t now_ms(const struct workers *ws) { return ws->w[0].io->v->now_ns(ws->w[0].io) / 1000000; }

// Whether a second signal asks not to wait for clients any longer; takes 10 ms. One that comes with the first does not: timeout(1),
// and who ends a group of processes, may send it twice.
static bool hurried(const struct workers *ws, const sigset_t *signals, uint64_t since_ms) {
  int sig = sigtimedwait(signals, NULL, &(struct timespec){.tv_nsec = 10000000});
  return (sig == SIGTERM || sig == SIGINT) && now_ms(ws) - since_ms >= TOGETHER_MS;
}

static void join(struct workers *ws, pthread_t thread, const sigset_t *signals, uint64_t since_ms) {
  while (signals && !atomic_load(&ws->hurry)) {
    if (!pthread_tryjoin_np(thread, NULL))
      return;
    if (!hurried(ws, signals, since_ms))
      continue;
    log_line(LOG_INFO, "ending at once");
    atomic_store(&ws->hurry, true);
    for (unsigned n = 0; n < ws->num; n++)
      if (ws->w[n].started)
        ws->w[n].io->v->wake(ws->w[n].io);
  }
  pthread_join(thread, NULL);
}

void workers_drain(struct server *s, uint64_t timeout_ms, const sigset_t *signals) {
  struct workers *ws = s->workers;
  if (!ws)
    return;
  uint64_t since_ms = signals ? now_ms(ws) : 0;
  for (unsigned n = 0; n < ws->num; n++) {
    struct worker *w = &ws->w[n];
    if (!w->started)
      continue;
    w->drain_ms = timeout_ms;
    atomic_store_explicit(&w->drain, true, memory_order_release);
    w->io->v->wake(w->io);
  }
  for (unsigned n = 0; n < ws->num; n++)
    if (ws->w[n].started)
      join(ws, ws->w[n].thread, signals, since_ms);
}

void workers_end(struct server *s) {
  if (!s->workers)
    return;
  catalog_stop(s->catalog); // a helper may be in the middle of waking a worker
  for (unsigned n = 0; n < s->workers->num; n++)
    run_woken(&s->workers->w[n]); // what was not waited for has come: it holds tracks and blocks
  certificates_serve(s, NULL, true);
  workers_free(s->workers);
  s->workers = NULL;
}
