#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/load_run.h"
#include "cli/load_world.h"
#include "net/tls.h"

static const char options_text[] =
    "  --target URL        http://HOST:PORT or https://HOST:PORT of the server under load\n"
    "  --ca FILE           believe certificates of these authorities instead of the system's\n"
    "  --insecure          believe every certificate\n"
    "  --threads N         threads of one process (1)\n"
    "  --processes N       processes, for more connections than one may open (1)\n"
    "  --seed N            instead of the scenario's\n"
    "  --rate R            instead of the scenario's (mode rate)\n"
    "  --seconds S         instead of the scenario's (not with listeners: --shorten is for their times)\n"
    "  --connections N     instead of the scenario's (not with listeners)\n"
    "  --mode M            listeners, rate, saturate, idle, capacity: instead of the scenario's\n"
    "  --shorten F         the scenario's arrivals, drain, seconds, storm and spike times F (0 to 1), for a first look\n"
    "  --verify MEDIA      compare what comes with the clear tracks in this folder (not with idle)\n"
    "  --keys FILE         the keys file that the server uses, to compare with\n"
    "  --share P           of the sessions, or without listeners of the requests, that is compared, 0.1 or 10% (100%)\n"
    "  --paths FILE        ask for these paths, one a line, instead of reading manifests (not with listeners)\n"
    "  --io NAME           auto, io_uring or epoll\n"
    "  --json FILE         write what was measured\n"
    "  --hdr FILE          write an HdrHistogram interval log\n"
    "  --html FILE         write a report page\n"
    "  --request-log FILE  every request, one a line: session, number, its bytes\n"
    "  --report OUT A.json [B.json ...]   no load: one page that compares earlier runs\n\n"
    "Exit status: 0 service levels met; 1 one missed, or a wrong byte; 2 wrong usage;\n"
    "3 invalid: the generator was late, or the run was interrupted.\n";

enum { EXIT_INVALID = 3 };

static bool read_paths(struct load_path **out, uint32_t *num_out, struct alloc *mem, const char *file) {
  size_t n, num = 0;
  char uri[PLAYLIST_MAX_URI], *read = load_file(file, &n);
  if (!read)
    return false;
  if (strlen(read) < n) { // of UTF-16, or cut by a crash: what is behind it would not be asked for
    cli_error(file, "has a zero byte at %zu: a list of paths is text, one path a line", strlen(read));
    free(read);
    return false;
  }
  for (size_t i = 0; i < n; i++)
    num += read[i] == '\n' || read[i] == '\r'; // either ends a path below
  char *text = mem->get(mem, 3 * n + 1); // every byte may have to be encoded
  struct load_path *paths = mem->get(mem, (num + 1) * sizeof *paths);
  num = 0;
  bool ok = text && paths ? true : cli_error(file, "out of memory") != EXIT_FAILED;
  for (char *line = read; ok && *line;) {
    size_t len = strcspn(line, "\r\n");
    bool is_path = *line == '/';
    if (is_path && uri_resolve(uri, "/", bytes_of(line, len)))
      ok = cli_error(file, "'%.*s' is no path of the target of at most %d bytes, percent-encoded", len < 60 ? (int)len : 60, line, PLAYLIST_MAX_URI - 1) != EXIT_FAILED;
    else if (is_path) {
      paths[num++] = (struct load_path){.path = memcpy(text, uri, strlen(uri) + 1)};
      text += strlen(uri) + 1;
    }
    line += len + (line[len] != 0);
  }
  free(read);
  if (!ok)
    return false;
  *out = paths;
  *num_out = (uint32_t)num;
  return num ? true : cli_error(file, "holds no path that starts with '/'") != EXIT_FAILED;
}

// The number of a mode by its name, -1 for others.
static int mode_of(const char *name) {
  for (int i = 0; i < LOAD_MODES; i++)
    if (strcmp(name, load_modes[i]) == 0)
      return i;
  return -1;
}

// A share as scenarios write it: 0.1 or 10%.
static bool share_of(double *out, const char *text) {
  char *end;
  *out = strtod(text, &end);
  bool percent = strcmp(end, "%") == 0;
  if (percent)
    *out /= 100;
  return end != text && (percent || !*end) && *out > 0 && *out <= 1;
}

// In the order of the options below.
enum { O_TARGET, O_JSON, O_HDR, O_HTML, O_LOG, O_PATHS, O_IO, O_MODE, O_REPORT, O_CA, O_VERIFY, O_KEYS, O_TEXTS, O_INSECURE = O_TEXTS, O_SHORTEN, O_SHARE, O_RATE, O_SECONDS, O_THREADS, O_PROCESSES, O_SEED, O_CONNECTIONS };

static const struct cli_option options[] = {
    {"target", 0, true}, {"json", 0, true}, {"hdr", 0, true}, {"html", 0, true}, {"request-log", 0, true}, {"paths", 0, true},
    {"io", 0, true}, {"mode", 0, true}, {"report", 0, true}, {"ca", 0, true}, {"verify", 0, true}, {"keys", 0, true},
    {"insecure", 0, false}, {"shorten", 0, true}, {"share", 0, true}, {"rate", 0, true}, {"seconds", 0, true}, {"threads", 0, true},
    {"processes", 0, true}, {"seed", 0, true}, {"connections", 0, true}, {0}};

static const char **text_of(struct load_args *a, int o) {
  const char **const texts[O_TEXTS] = {&a->target, &a->json, &a->hdr, &a->html, &a->log, &a->paths, &a->io, &a->mode, &a->report, &a->ca,
                                       &a->verify, &a->keys};
  return texts[o];
}

// A number above 0 with a fraction.
static int real_option(struct load_args *a, int o, const char *text) {
  char *end;
  double number = strtod(text, &end);
  bool right = !*end && end != text && number > 0 && number <= (o == O_SHORTEN ? 1 : 1e7);
  if (!right)
    return cli_usage("load", "--%s takes a number above 0%s, not '%s'", options[o].name, o == O_SHORTEN ? " and at most 1" : "", text);
  *(o == O_SHORTEN ? &a->shorten : o == O_RATE ? &a->rate : &a->seconds) = number;
  return EXIT_DONE;
}

static int whole_option(struct load_args *a, int o, const char *text) {
  uint64_t v;
  if (parse_u64(&v, bytes_str(text)))
    return cli_usage("load", "--%s takes a number, not '%s'", options[o].name, text);
  if ((o == O_THREADS || o == O_PROCESSES) && (v < 1 || v > LOAD_MAX_WORKERS))
    return cli_usage("load", "--%s takes 1 to %d", options[o].name, LOAD_MAX_WORKERS);
  if (o == O_SEED && v > SCENARIO_MAX_SEED)
    return cli_usage("load", "--seed takes 0 to %llu", (unsigned long long)SCENARIO_MAX_SEED);
  if (o == O_CONNECTIONS && (v < 1 || v > 1000000))
    return cli_usage("load", "--connections takes 1 to 1000000");
  if (o == O_SEED)
    a->seed = v, a->has_seed = true;
  else if (o == O_CONNECTIONS)
    a->connections = v;
  else
    *(o == O_THREADS ? &a->threads : &a->processes) = (unsigned)v;
  return EXIT_DONE;
}

static int take_option(struct load_args *a, int o, const char *value) {
  if (o < O_TEXTS) {
    *text_of(a, o) = value;
    return EXIT_DONE;
  }
  if (o == O_INSECURE) {
    a->insecure = true;
    return EXIT_DONE;
  }
  if (o == O_SHARE)
    return share_of(&a->share, value) ? EXIT_DONE : cli_usage("load", "--share takes a number above 0 and at most 1, or a percentage, not '%s'", value);
  return o <= O_SECONDS ? real_option(a, o, value) : whole_option(a, o, value);
}

// An exit status, -1 after --help. Operands go to the front of argv, as they are read from behind themselves.
static int parse_args(struct load_args *a, int argc, char **argv, int *num_operands) {
  struct cli_args args = {.command = "load", .argc = argc, .argv = argv, .options = options, .at = 1};
  *a = (struct load_args){.threads = 1, .processes = 1, .io = "auto", .shorten = 1};
  *num_operands = 0;
  for (int o; (o = cli_arg(&args)) != ARG_END;) {
    int status = EXIT_DONE;
    if (o == ARG_WRONG)
      return EXIT_USAGE;
    if (o == ARG_HELP)
      return cli_help("load", options_text), -1;
    if (o == ARG_OPERAND)
      argv[(*num_operands)++] = argv[args.at - 1];
    else if ((status = take_option(a, o, args.value)) != EXIT_DONE)
      return status;
    a->of_a_load |= o != ARG_OPERAND && o != O_REPORT;
  }
  if (a->mode && mode_of(a->mode) < 0)
    return cli_usage("load", "--mode takes listeners, rate, saturate, idle or capacity, not '%s'", a->mode);
  if (strcmp(a->io, "auto") != 0 && strcmp(a->io, "io_uring") != 0 && strcmp(a->io, "epoll") != 0)
    return cli_usage("load", "--io takes auto, io_uring or epoll, not '%s'", a->io);
  return EXIT_DONE;
}

// A path of the command line is relative to the working folder, one of a scenario to the scenario's.
static bool set_path(char out[SCENARIO_MAX_PATH], const char *path) {
  char here[SCENARIO_MAX_PATH] = "";
  if (path[0] != '/' && !getcwd(here, sizeof here))
    return cli_error(path, "the working folder: %s", strerror(errno)) != EXIT_FAILED;
  int n = snprintf(out, SCENARIO_MAX_PATH, "%s%s%s", here, *here ? "/" : "", path);
  return n > 0 && n < SCENARIO_MAX_PATH ? true : cli_error(path, "the path is too long") != EXIT_FAILED;
}

// --verify, --keys and --share, over what the scenario says.
static bool set_comparison(struct scenario *sc, const struct load_args *a) {
  if (!a->verify && !a->keys && !(a->share > 0))
    return true;
  if ((a->verify && !set_path(sc->media, a->verify)) || (a->keys && !set_path(sc->keys, a->keys)))
    return false;
  if (!sc->media[0])
    return cli_error(a->scenario, "--keys and --share need --verify MEDIA: the scenario has nothing to compare with") != EXIT_FAILED;
  if (sc->mode == LOAD_IDLE)
    return cli_error(a->scenario, "mode idle compares nothing: leave --verify, --keys and --share out") != EXIT_FAILED;
  sc->verify_share = a->share > 0 ? a->share : 1;
  return true;
}

// What the mode would pass over is wrong usage: who gave it would believe that it holds.
static int check_mode(const struct scenario *sc, const struct load_args *a) {
  bool listeners = sc->mode == LOAD_LISTENERS;
  const char *mode = load_modes[sc->mode];
  if (a->rate > 0 && sc->mode != LOAD_RATE)
    return cli_usage("load", "--rate is for mode rate; the mode is %s%s", mode, listeners ? ", whose arrivals the scenario says" : "");
  if (a->seconds > 0 && listeners)
    return cli_usage("load", "--seconds is not for mode listeners: the scenario's arrivals say how long it takes, and --shorten F makes that less");
  if (a->connections && listeners)
    return cli_usage("load", "--connections is not for mode listeners: every listener has one (the scenario's max_listeners bounds them)");
  if (!listeners && sc->connections < a->threads * a->processes)
    return cli_usage("load", "%u connections are too few for %u threads in %u processes, each of which has its own", sc->connections, a->threads, a->processes);
  if (a->paths && listeners)
    return cli_usage("load", "--paths is not for mode listeners: they read manifests");
  return EXIT_DONE;
}

static int load_scenario(struct scenario *sc, struct alloc *mem, const struct load_args *a) {
  size_t n;
  char *text = load_file(a->scenario, &n);
  struct diag d = {0};
  if (!text)
    return EXIT_FAILED;
  enum err e = scenario_parse(sc, mem, bytes_of(text, n), &d);
  free(text);
  if (e)
    return cli_error(a->scenario, "line %lu: %s", d.at, d.what[0] ? d.what : err_text(e));
  for (uint32_t i = 0; i < sc->num_pieces; i++)
    sc->pieces[i].seconds *= a->shorten;
  sc->drain_s *= a->shorten;
  sc->seconds *= a->shorten;
  sc->storm_at_s *= a->shorten;
  sc->search.spike_s *= a->shorten;
  if (a->has_seed)
    sc->seed = a->seed;
  sc->rate = a->rate > 0 ? a->rate : sc->rate;
  sc->seconds = a->seconds > 0 ? a->seconds : sc->seconds;
  sc->connections = a->connections ? (uint32_t)a->connections : sc->connections;
  if (a->mode)
    sc->mode = (enum load_mode)mode_of(a->mode);
  int status = check_mode(sc, a);
  if (status)
    return status;
  if (!set_comparison(sc, a))
    return EXIT_FAILED;
  return scenario_check(sc, &d) ? cli_error(a->scenario, "%s", d.what) : EXIT_DONE;
}

static int conclude(struct load_stats *stats, struct load_stats *sum, const struct load_args *a, struct load_results *results,
                    struct report_context *c, int status) {
  char verdict[4096];
  if (!c->capacity)
    for (unsigned i = 0; i < a->threads * a->processes; i++)
      stats_add(sum, &stats[i]);
  struct writer w = wr_of(verdict, sizeof verdict - 1);
  // a search goes beyond the service level on purpose
  c->levels_met = c->capacity ? stats_compared(sum, c->sc, &w) && c->capacity->found : stats_verdict(sum, c->sc, &w);
  stats_crowded(sum, c->sc, a->threads * a->processes, &w);
  c->valid = stats_valid(sum, c->sc, &w) && !status;
  if (c->valid && sum->interrupted) { // a signal that came later has changed nothing
    wr_fmt(&w, "INVALID: interrupted: how the rest of the scenario would have gone nobody knows\n");
    c->valid = false;
  }
  verdict[w.n < sizeof verdict - 1 ? w.n : sizeof verdict - 1] = 0;
  load_summary(load_takes_stdout(a) ? stderr : stdout, sum, c, verdict);
  if (!load_results_write(results, a, sum, c) || status)
    return EXIT_FAILED;
  if (sum->wrong) // however late the generator was
    return EXIT_FAILED;
  return !c->valid ? EXIT_INVALID : c->levels_met ? EXIT_DONE : EXIT_FAILED;
}

// Runs with everything ready. `stats` is shared memory for every thread, `sum` for all of them together.
static int run_ready(struct load_run *run, struct scenario *sc, const struct load_args *a, struct load_results *results,
                     struct load_stats *stats, struct load_stats *sum) {
  struct timespec wall;
  struct load_capacity capacity = {0};
  struct load_outcome done = {0};
  clock_gettime(CLOCK_REALTIME, &wall);
  struct report_context c = {.sc = sc, .target = a->target, .version = SLUICE_VERSION, .threads = a->threads, .processes = a->processes,
                             .wall_start_s = (double)wall.tv_sec + (double)wall.tv_nsec * 1e-9};
  if (sc->mode == LOAD_CAPACITY) {
    c.capacity = &capacity;
    done.status = load_search(run, stats, sum, sc, a, &capacity);
  } else {
    done = load_run_all(run, stats, a, "");
  }
  c.bytes_per_listener = done.bytes_per_listener;
  return conclude(stats, sum, a, results, &c, done.status);
}

static int run_scenario(const struct load_args *a, struct alloc *mem) {
  struct scenario *sc = mem->get(mem, sizeof *sc);
  struct load_stats *sum = mem->get(mem, sizeof *sum);
  struct popularity pop;
  char why[PLAYLIST_MAX_URI + 256];
  int status = sc && sum ? load_scenario(sc, mem, a) : cli_error("load", "out of memory");
  if (status)
    return status;
  if (popularity_init(&pop, mem, sc->catalogue.kind, sc->catalogue.num, sc->catalogue.shape, sc->catalogue.release_share))
    return cli_error(a->scenario, "catalogue.shape is out of range");
  struct load_run run = {.sc = sc, .pop = &pop, .io = a->io, .log_fd = -1, .num_threads = 1, .stop = &load_stop};
  if ((status = load_target(&run, a)) != EXIT_DONE)
    return status;
  struct load_world *world = NULL;
  if (sc->verify_share > 0 && !(world = load_world_new(a->scenario, sc, &run.verifier)))
    return EXIT_FAILED;
  size_t shared = sizeof(struct load_stats) * a->threads * a->processes;
  struct load_stats *stats = mmap(NULL, shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (stats == MAP_FAILED)
    status = cli_error("load", "out of memory");
  if (!status && a->log && (run.log_fd = open(a->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644)) < 0)
    status = cli_error(a->log, "%s", strerror(errno));
  struct load_path *paths = NULL;
  if (!status && a->paths && !read_paths(&paths, &run.num_paths, mem, a->paths))
    status = EXIT_FAILED;
  if (!status && sc->mode != LOAD_LISTENERS && engine_paths(&run, mem, &paths, &run.num_paths, why, sizeof why))
    status = cli_error(a->target, "%s", why);
  run.paths = paths;
  struct load_results results;
  if (!status && !load_results_open(&results, a))
    status = EXIT_FAILED;
  else if (!status) {
    status = run_ready(&run, sc, a, &results, stats, sum);
    load_results_drop(&results);
  }
  if (run.verifier && verify_ivs_left_out(run.verifier))
    cli_line("load: more segments than IVs are kept of: those of some were not compared; ask for less in one run");
  if (run.log_fd >= 0 && close(run.log_fd) != 0)
    status = cli_error(a->log, "%s", strerror(errno));
  if (stats != MAP_FAILED)
    munmap(stats, shared);
  load_world_free(world);
  tls_set_free(run.tls);
  return status;
}

// As many connections as the system allows: the soft limit is for programs that select().
static void raise_limit(void) {
  struct rlimit l;
  if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
    l.rlim_cur = l.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &l);
  }
}

static void on_signal(int sig) {
  (void)sig;
  atomic_store(&load_stop, true);
}

int cmd_load(int argc, char **argv) {
  struct load_args a;
  int num, e = parse_args(&a, argc, argv, &num);
  if (e)
    return e < 0 ? EXIT_DONE : e;
  if (a.report && a.of_a_load)
    return cli_usage("load", "--report makes a page of earlier results: it goes with their JSON files and nothing else");
  if (a.report)
    return load_compare(a.report, num, argv);
  if (num != 1)
    return cli_usage("load", "takes one SCENARIO");
  if (!a.target)
    return cli_usage("load", "--target URL is missing");
  if ((a.ca || a.insecure) && strncmp(a.target, "https://", 8) != 0)
    return cli_usage("load", "%s is for https:// targets", a.ca ? "--ca" : "--insecure");
  if (a.ca && a.insecure)
    return cli_usage("load", "give --ca FILE or --insecure, not both: the second believes every certificate");
  a.scenario = argv[0];
  raise_limit();
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  struct alloc_heap mem;
  alloc_heap_init(&mem, (size_t)4 << 30);
  int status = run_scenario(&a, &mem.base);
  alloc_heap_free(&mem);
  return status;
}
