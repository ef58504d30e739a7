#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/load_world.h"
#include "load/engine.h"
#include "load/report.h"
#include "load/verify.h"

static const char options_text[] =
    "  --target URL        http://HOST:PORT of the server under load\n"
    "  --threads N         threads of one process (1)\n"
    "  --processes N       processes, for more connections than one may open (1)\n"
    "  --seed N            instead of the scenario's\n"
    "  --rate R            instead of the scenario's (mode rate)\n"
    "  --seconds S         instead of the scenario's (modes rate, saturate, idle)\n"
    "  --connections N     instead of the scenario's\n"
    "  --mode M            listeners, rate, saturate, idle: instead of the scenario's\n"
    "  --paths FILE        ask for these paths, one a line, instead of reading manifests (not with listeners)\n"
    "  --io NAME           auto, io_uring or epoll\n"
    "  --json FILE         write what was measured\n"
    "  --hdr FILE          write an HdrHistogram interval log\n"
    "  --html FILE         write a report page\n"
    "  --request-log FILE  every request, one a line: session, number, method, path, range\n"
    "  --report OUT A.json [B.json ...]   no load: one page that compares earlier runs\n\n"
    "Exit status: 0 service levels met; 1 one missed, or a wrong byte; 3 invalid, the generator was late.\n";

enum { EXIT_INVALID = 3, MAX_WORKERS = 256, MAX_REPORTS = 16 };

struct args {
  const char *scenario, *target, *json, *hdr, *html, *log, *paths, *io, *mode, *report;
  unsigned threads, processes;
  double rate, seconds;
  uint64_t seed, connections;
  bool has_seed;
};

struct job {
  struct load_run run;
  struct diag diag;
  enum err err;
  pthread_t thread;
};

static _Atomic bool stop;

static void on_signal(int sig) {
  (void)sig;
  atomic_store(&stop, true);
}

static void *run_job(void *p) {
  struct job *j = p;
  j->err = engine_run(&j->run, &j->diag);
  return NULL;
}

static char *read_file(const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  struct stat st;
  char *p = NULL;
  if (f && fstat(fileno(f), &st) == 0 && (p = malloc((size_t)st.st_size + 1)) != NULL) {
    *n = fread(p, 1, (size_t)st.st_size, f);
    p[*n] = 0;
    if (ferror(f)) {
      free(p);
      p = NULL;
    }
  }
  if (f)
    fclose(f);
  if (!p)
    cli_error(path, "%s", strerror(errno ? errno : ENOMEM));
  return p;
}

// http://HOST[:PORT][/]: fills address and Host header.
static bool read_target(struct load_run *run, const char *url) {
  char host[256], port[8] = "80";
  if (strncmp(url, "http://", 7) != 0) {
    cli_error(url, "the target is to be http://HOST:PORT");
    return false;
  }
  const char *p = url + 7;
  size_t n = strcspn(p, "/");
  if (!n || n >= sizeof host || (p[n] && p[n + 1])) {
    cli_error(url, "the target is to be http://HOST:PORT, without a path");
    return false;
  }
  memcpy(run->host, p, n);
  memcpy(host, p, n);
  host[n] = 0;
  char *colon = strrchr(host, ':');
  if (colon && !strchr(colon, ']')) {
    *colon = 0;
    snprintf(port, sizeof port, "%.7s", colon + 1);
  }
  char *name = host[0] == '[' ? host + 1 : host;
  if (host[0] == '[' && strchr(host, ']'))
    *strchr(host, ']') = 0;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  int e = getaddrinfo(name, port, &hints, &found);
  if (e) {
    cli_error(url, "%s", gai_strerror(e));
    return false;
  }
  memcpy(&run->addr, found->ai_addr, found->ai_addrlen);
  run->addr_len = found->ai_addrlen;
  freeaddrinfo(found);
  return true;
}

static bool read_paths(struct load_run *run, const char *file) {
  size_t n, num = 0;
  char *text = read_file(file, &n);
  if (!text)
    return false;
  for (size_t i = 0; i < n; i++)
    num += text[i] == '\n';
  const char **paths = calloc(num + 1, sizeof *paths);
  if (!paths) {
    free(text);
    return cli_error(file, "out of memory") != EXIT_FAILED;
  }
  num = 0;
  for (char *line = text; *line;) {
    size_t len = strcspn(line, "\r\n");
    bool last = !line[len];
    line[len] = 0;
    if (*line == '/' && len < PLAYLIST_MAX_URI)
      paths[num++] = line;
    line += len + !last;
  }
  run->paths = paths;
  run->num_paths = (uint32_t)num;
  return num ? true : cli_error(file, "holds no path that starts with '/'") != EXIT_FAILED;
}

static int usage_number(const char *option, const char *text) {
  return cli_usage("load", "%s takes a number, not '%s'", option, text);
}

static int parse_args(struct args *a, int argc, char **argv) {
  enum { O_TARGET = 256, O_THREADS, O_PROCESSES, O_SEED, O_RATE, O_SECONDS, O_CONNECTIONS, O_MODE, O_PATHS, O_IO, O_JSON, O_HDR, O_HTML, O_LOG, O_REPORT };
  static const struct option longs[] = {
      {"target", 1, 0, O_TARGET}, {"threads", 1, 0, O_THREADS}, {"processes", 1, 0, O_PROCESSES}, {"seed", 1, 0, O_SEED},
      {"rate", 1, 0, O_RATE}, {"seconds", 1, 0, O_SECONDS}, {"connections", 1, 0, O_CONNECTIONS}, {"mode", 1, 0, O_MODE},
      {"paths", 1, 0, O_PATHS}, {"io", 1, 0, O_IO}, {"json", 1, 0, O_JSON}, {"hdr", 1, 0, O_HDR}, {"html", 1, 0, O_HTML},
      {"request-log", 1, 0, O_LOG}, {"report", 1, 0, O_REPORT}, {"help", 0, 0, 'h'}, {0}};
  *a = (struct args){.threads = 1, .processes = 1, .io = "auto"};
  int o;
  opterr = 0;
  while ((o = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
    uint64_t v = 0;
    char *end = NULL;
    const char **text = o == O_TARGET ? &a->target : o == O_JSON ? &a->json : o == O_HDR ? &a->hdr : o == O_HTML ? &a->html
                        : o == O_LOG ? &a->log : o == O_PATHS ? &a->paths : o == O_IO ? &a->io : o == O_MODE ? &a->mode
                        : o == O_REPORT ? &a->report : NULL;
    if (o == 'h')
      return cli_help("load", options_text), -1;
    if (o == '?')
      return cli_usage("load", "unknown option or missing value: '%s'", argv[optind - 1]);
    if (text) {
      *text = optarg;
    } else if (o == O_RATE || o == O_SECONDS) {
      *(o == O_RATE ? &a->rate : &a->seconds) = strtod(optarg, &end);
      if (*end || end == optarg)
        return usage_number(longs[o - O_TARGET].name, optarg);
    } else {
      if (parse_u64(&v, bytes_str(optarg)))
        return usage_number(longs[o - O_TARGET].name, optarg);
      if ((o == O_THREADS || o == O_PROCESSES) && (v < 1 || v > MAX_WORKERS))
        return cli_usage("load", "--%s takes 1 to %d", longs[o - O_TARGET].name, MAX_WORKERS);
      if (o == O_THREADS)
        a->threads = (unsigned)v;
      else if (o == O_PROCESSES)
        a->processes = (unsigned)v;
      else if (o == O_SEED)
        a->seed = v, a->has_seed = true;
      else
        a->connections = v;
    }
  }
  return 0;
}

static bool load_scenario(struct scenario *sc, struct alloc *mem, const struct args *a) {
  size_t n;
  char *text = read_file(a->scenario, &n);
  struct diag d = {0};
  if (!text)
    return false;
  enum err e = scenario_parse(sc, mem, bytes_of(text, n), &d);
  free(text);
  if (e) {
    cli_error(a->scenario, "line %lu: %s", d.at, d.what[0] ? d.what : err_text(e));
    return false;
  }
  if (a->has_seed)
    sc->seed = a->seed;
  sc->rate = a->rate > 0 ? a->rate : sc->rate;
  sc->seconds = a->seconds > 0 ? a->seconds : sc->seconds;
  sc->connections = a->connections ? (uint32_t)a->connections : sc->connections;
  static const char *const modes[] = {"listeners", "rate", "saturate", "idle"};
  for (uint32_t i = 0; a->mode && i < 4; i++)
    if (strcmp(a->mode, modes[i]) == 0)
      sc->mode = (enum load_mode)i;
  if ((sc->mode == LOAD_RATE && !(sc->rate > 0)) || (sc->mode != LOAD_LISTENERS && !(sc->seconds > 0))) {
    cli_error(a->scenario, "this mode needs a rate and seconds");
    return false;
  }
  return true;
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// The live view: one line, rewritten twice a second on a terminal.
static void show_live(struct load_stats *all, unsigned num, double seconds, uint64_t start_ns) {
  static uint64_t last_requests, last_ns;
  struct {
    uint64_t requests, bytes, errors, active, misses;
  } s = {0};
  uint64_t lag = 0, p99 = 0;
  if (!isatty(STDERR_FILENO))
    return;
  for (unsigned i = 0; i < num; i++) {
    s.requests += atomic_load_explicit(&all[i].requests, memory_order_relaxed);
    s.bytes += atomic_load_explicit(&all[i].bytes, memory_order_relaxed);
    s.errors += atomic_load_explicit(&all[i].errors, memory_order_relaxed);
    s.active += atomic_load_explicit(&all[i].active, memory_order_relaxed);
    s.misses += atomic_load_explicit(&all[i].misses, memory_order_relaxed);
    uint64_t l = hist_percentile(&all[i].lag, 99), p = hist_percentile(&all[i].latency, 99);
    lag = l > lag ? l : lag;
    p99 = p > p99 ? p : p99;
  }
  uint64_t now = now_ns();
  double at = ((double)now - (double)start_ns) * 1e-9;
  double rate = last_ns ? (double)(s.requests - last_requests) / ((double)(now - last_ns) * 1e-9) : 0;
  fprintf(stderr, "\r\033[K%5.1f/%.0f s  %8.0f req/s  p99 %.1f ms  %lu active  %lu late  %lu failed  lag p99 %.1f ms  %.2f GB", at > 0 ? at : 0,
          seconds, rate, (double)p99 / 1e3, s.active, s.misses, s.errors, (double)lag / 1e3, (double)s.bytes / 1e9);
  last_requests = s.requests;
  last_ns = now;
}

static uint64_t resident(void) {
  unsigned long size = 0, pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f && fscanf(f, "%lu %lu", &size, &pages) != 2)
    pages = 0;
  if (f)
    fclose(f);
  return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

// One process: its threads, to their end. `first` is the number of its first thread of all.
static int run_process(const struct load_run *proto, struct load_stats *stats, unsigned first, unsigned threads) {
  struct job *jobs = calloc(threads, sizeof *jobs);
  int status = EXIT_DONE;
  unsigned started = 0;
  if (!jobs)
    return cli_error("load", "out of memory");
  for (; started < threads; started++) {
    struct job *j = &jobs[started];
    j->run = *proto;
    j->run.thread = first + started;
    j->run.stats = &stats[first + started];
    if (pthread_create(&j->thread, NULL, run_job, j)) {
      status = cli_error("load", "a thread cannot be started");
      atomic_store(&stop, true);
      break;
    }
  }
  for (unsigned i = 0; i < started; i++) {
    pthread_join(jobs[i].thread, NULL);
    if (jobs[i].err)
      status = cli_error_diag("load", &jobs[i].diag);
  }
  free(jobs);
  return status;
}

struct outcome {
  int status;
  double bytes_per_listener;
};

static double shape_seconds(const struct scenario *sc) {
  double s = sc->mode == LOAD_LISTENERS ? sc->drain_s : sc->seconds;
  for (uint32_t i = 0; sc->mode == LOAD_LISTENERS && i < sc->num_pieces; i++)
    s += sc->pieces[i].seconds;
  return s;
}

// Forks the processes (or runs in this one), shows progress, waits. Children inherit the shared statistics.
static struct outcome run_all(struct load_run *proto, struct load_stats *stats, const struct args *a) {
  unsigned num = a->threads * a->processes;
  struct outcome out = {EXIT_DONE, 0};
  pid_t child[MAX_WORKERS];
  uint64_t before = resident();
  proto->num_threads = num;
  proto->start_ns = now_ns() + 50000000u;
  fflush(NULL);
  for (unsigned p = 0; p < a->processes; p++) {
    child[p] = fork();
    if (child[p] == 0) {
      int st = run_process(proto, stats, p * a->threads, a->threads);
      struct rusage u;
      uint64_t peak = getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss * 1024 : before;
      stats[p * a->threads].grown_bytes = peak > before ? peak - before : 0;
      fflush(NULL);
      _exit(st);
    }
    if (child[p] < 0) {
      out.status = cli_error("load", "fork: %s", strerror(errno));
      atomic_store(&stop, true);
    }
  }
  unsigned left = a->processes;
  while (left) {
    int st;
    pid_t done = waitpid(-1, &st, WNOHANG);
    if (done > 0) {
      left--;
      if (!WIFEXITED(st) || WEXITSTATUS(st))
        out.status = EXIT_FAILED;
      continue;
    }
    if (done < 0 && errno == ECHILD)
      break;
    if (atomic_load(&stop))
      for (unsigned p = 0; p < a->processes; p++)
        if (child[p] > 0)
          kill(child[p], SIGTERM);
    show_live(stats, num, shape_seconds(proto->sc), proto->start_ns);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
  }
  if (isatty(STDERR_FILENO))
    fprintf(stderr, "\r\033[K");
  uint64_t grown = 0, peak_active = 0;
  for (unsigned i = 0; i < num; i++)
    grown += stats[i].grown_bytes;
  for (uint32_t t = 0; t < LOAD_MAX_SECONDS; t++) {
    uint64_t at_once = 0;
    for (unsigned i = 0; i < num; i++)
      at_once += stats[i].second[t].active;
    peak_active = at_once > peak_active ? at_once : peak_active;
  }
  out.bytes_per_listener = peak_active ? (double)grown / (double)peak_active : 0;
  return out;
}

static bool write_with(const char *path, bool (*write)(FILE *, const struct load_stats *, const struct report_context *),
                       const struct load_stats *s, const struct report_context *c) {
  FILE *f = path ? fopen(path, "w") : NULL;
  if (!path)
    return true;
  bool ok = f && write(f, s, c);
  if (f && fclose(f) != 0)
    ok = false;
  if (!ok)
    cli_error(path, "%s", strerror(errno));
  return ok;
}

static bool write_page(const char *path, const struct bytes *runs, size_t num) {
  FILE *f = fopen(path, "w");
  bool ok = f && report_html(f, runs, num);
  if (f && fclose(f) != 0)
    ok = false;
  if (!ok)
    cli_error(path, "%s", strerror(errno));
  return ok;
}

static bool write_html(const char *path, const struct load_stats *s, const struct report_context *c) {
  char *text = NULL;
  size_t n = 0;
  FILE *f = path ? open_memstream(&text, &n) : NULL;
  if (!path)
    return true;
  bool ok = f && report_json(f, s, c);
  if (f && fclose(f) != 0)
    ok = false;
  struct bytes run = bytes_of(text, n);
  ok = ok && write_page(path, &run, 1);
  free(text);
  return ok;
}

static int compare_runs(const char *out, int num, char **files) {
  struct bytes runs[MAX_REPORTS];
  char *texts[MAX_REPORTS] = {0};
  int n = 0;
  if (num < 1 || num > MAX_REPORTS)
    return cli_usage("load", "--report takes 1 to %d JSON files", MAX_REPORTS);
  for (; n < num; n++) {
    size_t len = 0;
    texts[n] = read_file(files[n], &len);
    if (!texts[n])
      break;
    runs[n] = bytes_of(texts[n], len);
    if (!memmem(texts[n], len, "\"format\": 1", 11)) {
      cli_error(files[n], "is not a result of sluice load (format 1)");
      free(texts[n]);
      break;
    }
  }
  bool ok = n == num && write_page(out, runs, (size_t)n);
  while (n-- > 0)
    free(texts[n]);
  return ok ? EXIT_DONE : EXIT_FAILED;
}

static void summary(const struct load_stats *s, const struct report_context *c, const char *verdict) {
  printf("%s: %lu requests in %.1f s (%.0f a second), %.3f GB, %lu failed\n", c->sc->name, s->requests, s->elapsed_s,
         (double)s->requests / (s->elapsed_s > 0 ? s->elapsed_s : 1), (double)s->bytes / 1e9, s->errors);
  printf("latency p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, max %.3f ms; service p99 %.3f ms; generator lag p99 %.3f ms, CPU %.2f us a request\n",
         (double)hist_percentile(&s->latency, 50) / 1e3, (double)hist_percentile(&s->latency, 99) / 1e3,
         (double)hist_percentile(&s->latency, 99.9) / 1e3, (double)s->latency.max / 1e3, (double)hist_percentile(&s->service, 99) / 1e3,
         (double)hist_percentile(&s->lag, 99) / 1e3, s->requests ? s->cpu_s * 1e6 / (double)s->requests : 0);
  if (s->sessions)
    printf("%lu sessions, startup p50 %.3f ms, p99 %.3f ms; %lu of %lu segments late; %.1f s waited in %.1f s played; %.0f bytes a listener\n",
           s->sessions, (double)hist_percentile(&s->startup, 50) / 1e3, (double)hist_percentile(&s->startup, 99) / 1e3, s->misses,
           s->segments, s->rebuffer_s, s->played_s, c->bytes_per_listener);
  if (s->verified)
    printf("%lu segments decrypted and compared with the clear source, %lu wrong\n", s->verified, s->wrong);
  fputs(verdict, stdout);
}

static int conclude(struct load_stats *stats, const struct scenario *sc, const struct args *a, double wall_s, struct outcome done) {
  unsigned num = a->threads * a->processes;
  struct load_stats *sum = calloc(1, sizeof *sum);
  char verdict[2048];
  if (!sum)
    return cli_error("load", "out of memory");
  for (unsigned i = 0; i < num; i++)
    stats_add(sum, &stats[i]);
  struct writer w = wr_of(verdict, sizeof verdict - 1);
  struct report_context c = {.sc = sc, .target = a->target, .version = SLUICE_VERSION, .threads = a->threads, .processes = a->processes,
                             .wall_start_s = wall_s, .bytes_per_listener = done.bytes_per_listener};
  c.levels_met = stats_verdict(sum, sc, &w);
  c.valid = stats_valid(sum, sc, &w);
  verdict[w.n < sizeof verdict - 1 ? w.n : sizeof verdict - 1] = 0;
  summary(sum, &c, verdict);
  bool json = write_with(a->json, report_json, sum, &c), hdr = write_with(a->hdr, report_hdr, sum, &c);
  bool written = write_html(a->html, sum, &c) && json && hdr;
  free(sum);
  if (done.status || !written)
    return EXIT_FAILED;
  return !c.valid ? EXIT_INVALID : c.levels_met ? EXIT_DONE : EXIT_FAILED;
}

static int run_scenario(const struct args *a, struct alloc *mem) {
  struct scenario *sc = mem->get(mem, sizeof *sc);
  struct popularity pop;
  struct diag d = {0};
  if (!sc || !load_scenario(sc, mem, a))
    return EXIT_FAILED;
  if (popularity_init(&pop, mem, sc->catalogue.kind, sc->catalogue.num, sc->catalogue.shape, sc->catalogue.release_share))
    return cli_error(a->scenario, "catalogue.shape is out of range");
  struct load_run run = {.sc = sc, .pop = &pop, .io = a->io, .log_fd = -1, .num_threads = 1, .stop = &stop};
  if (!read_target(&run, a->target))
    return EXIT_FAILED;
  struct load_world *world = NULL;
  if (sc->verify_share > 0 && !(world = load_world_new(a->scenario, sc, &run.verifier)))
    return EXIT_FAILED;
  size_t shared = sizeof(struct load_stats) * a->threads * a->processes;
  struct load_stats *stats = mmap(NULL, shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int status = EXIT_DONE;
  if (stats == MAP_FAILED)
    status = cli_error("load", "out of memory");
  if (!status && a->log && (run.log_fd = open(a->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644)) < 0)
    status = cli_error(a->log, "%s", strerror(errno));
  if (!status && a->paths && !read_paths(&run, a->paths))
    status = EXIT_FAILED;
  if (!status && sc->mode != LOAD_LISTENERS && !run.paths && engine_paths(&run, mem, &run.paths, &run.num_paths, &d))
    status = cli_error(a->target, "%s", d.what);
  if (!status) {
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    struct outcome done = run_all(&run, stats, a);
    status = conclude(stats, sc, a, (double)wall.tv_sec + (double)wall.tv_nsec * 1e-9, done);
  }
  if (run.log_fd >= 0 && close(run.log_fd) != 0)
    status = cli_error(a->log, "%s", strerror(errno));
  if (stats != MAP_FAILED)
    munmap(stats, shared);
  load_world_free(world);
  return status;
}

int cmd_load(int argc, char **argv) {
  struct args a;
  int e = parse_args(&a, argc, argv);
  if (e)
    return e < 0 ? EXIT_DONE : e;
  if (a.report)
    return compare_runs(a.report, argc - optind, argv + optind);
  if (optind + 1 != argc)
    return cli_usage("load", "takes one SCENARIO");
  if (!a.target)
    return cli_usage("load", "--target URL is missing");
  a.scenario = argv[optind];
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  struct alloc_heap mem;
  alloc_heap_init(&mem, (size_t)4 << 30);
  int status = run_scenario(&a, &mem.base);
  alloc_heap_free(&mem);
  return status;
}
