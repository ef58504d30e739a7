// sluice index PATH...: sidecars for files, track folders and whole trees, in parallel.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"
#include "server/options.h"
#include "storage/sidecar.h"

enum { MAX_THREADS = 256, MAX_TREE_DEPTH = 64, POLL_NS = 50000000 };

enum outcome { OUT_FAILED, OUT_FRESH, OUT_WRITTEN };

struct item {
  char *path;
  enum outcome outcome;
  struct diag diag;
  int unwritten; // errno of a sidecar that could not be written, else 0
  bool unbelievable; // none was written: it could not be believed
};

struct job {
  struct item *items;
  size_t num, cap;
  size_t failed; // what could not be looked at: no item of it
  bool rebuild;
  // As the server has them, where they were named: sidecars in the cache folder go by a track's path below the media folder.
  int media_fd, cache_fd;
  char *media; // its real path
  _Atomic size_t next, finished;
  _Atomic uint64_t bytes; // read for digests
  uint64_t total;
};

static bool add(struct job *j, const char *path) {
  if (j->num == j->cap) {
    size_t cap = j->cap ? j->cap * 2 : 64;
    struct item *more = realloc(j->items, cap * sizeof *more);
    if (!more)
      return false;
    j->items = more;
    j->cap = cap;
  }
  char *copy = strdup(path);
  if (!copy)
    return false;
  j->items[j->num++] = (struct item){.path = copy};
  return true;
}

static int no_memory(void) { return cli_error("index", "out of memory"); }

static int fail_path(struct job *j, const char *path, const char *why) {
  j->failed++;
  return cli_error(path, "%s", why);
}

// Adds the tracks below a folder. Links are not followed: a tree may not reach outside of itself.
static int walk(struct job *j, const char *dir, int depth) {
  if (depth > MAX_TREE_DEPTH)
    return fail_path(j, dir, "folders are nested too deep");
  enum err folder = media_track_folder((struct media_path){AT_FDCWD, dir});
  if (folder == ERR_OK)
    return add(j, dir) ? EXIT_DONE : no_memory();
  if (folder == ERR_IO) // no folder of tracks: its parts are none
    return fail_path(j, dir, strerror(errno));
  struct dirent **entries;
  size_t had = j->num;
  int num = scandir(dir, &entries, NULL, alphasort), status = EXIT_DONE;
  if (num < 0)
    return fail_path(j, dir, strerror(errno));
  for (int i = 0; i < num; i++) {
    char *path;
    struct stat st;
    if (entries[i]->d_name[0] == '.') {
      // not a track
    } else if (asprintf(&path, "%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", entries[i]->d_name) < 0) {
      status |= no_memory();
    } else {
      if (lstat(path, &st))
        status |= errno == ENOENT ? EXIT_DONE : fail_path(j, path, strerror(errno)); // removed since it was listed
      else if (S_ISDIR(st.st_mode))
        status |= walk(j, path, depth + 1);
      else if (S_ISREG(st.st_mode) && media_is_track_name(path) && !add(j, path))
        status |= no_memory();
      free(path);
    }
    free(entries[i]);
  }
  free(entries);
  enum err parts = j->num == had ? media_has_parts((struct media_path){AT_FDCWD, dir}) : ERR_NOT_FOUND;
  if (parts != ERR_NOT_FOUND)
    status |= fail_path(j, dir, parts == ERR_OK ? media_lacks_init : "cannot be listed");
  return status;
}

static int add_argument(struct job *j, const char *path) {
  struct stat st;
  if (stat(path, &st))
    return fail_path(j, path, strerror(errno));
  if (S_ISDIR(st.st_mode))
    return walk(j, path, 0);
  return add(j, path) ? EXIT_DONE : no_memory();
}

struct step {
  struct job *job;
  uint64_t done;
};

static void on_step(void *ctx, uint64_t done, uint64_t total) {
  (void)total;
  struct step *s = ctx;
  atomic_fetch_add(&s->job->bytes, done - s->done);
  s->done = done;
}

// open_item opens a track, by its path below the media folder where that is known.
static enum err open_item(const struct job *j, struct media_source *m, struct item *it) {
  *m = (struct media_source){.dir_fd = -1, .fd = -1};
  if (j->media_fd < 0)
    return media_open(m, (struct media_path){AT_FDCWD, it->path}, &it->diag);
  char *real = realpath(it->path, NULL);
  size_t n = strlen(j->media);
  enum err e;
  if (!real)
    e = diag_say(&it->diag, ERR_IO, "%s", strerror(errno));
  else if (strncmp(real, j->media, n) != 0 || real[n] != '/')
    e = diag_say(&it->diag, ERR_ARGUMENT, "lies outside of the media folder %s", j->media);
  else
    e = media_open(m, (struct media_path){j->media_fd, real + n + 1}, &it->diag);
  free(real);
  return e;
}

static void index_one(struct job *j, struct item *it) {
  struct media_source m;
  struct index_file f = {0};
  struct step step = {.job = j};
  struct index_options o = {.cache_fd = j->cache_fd, .write = true, .rebuild = j->rebuild, .progress = {on_step, &step}};
  enum err e = open_item(j, &m, it);
  if (!e)
    e = index_load(&f, &m, &o, &it->diag);
  if (e && !it->diag.err)
    (void)diag_say(&it->diag, e, NULL);
  if (!e)
    it->outcome = f.origin == INDEX_SIDECAR ? OUT_FRESH : OUT_WRITTEN;
  if (!e && f.origin == INDEX_BUILT && !f.written) {
    it->outcome = OUT_FAILED;
    it->unbelievable = f.sidecar_err == ERR_UNSUPPORTED;
    it->unwritten = f.write_errno ? f.write_errno : EIO;
  }
  atomic_fetch_add(&j->bytes, m.id.size - step.done);
  if (e && m.num_parts > 1) {
    char file[CLI_FAULT_FILE], *copy;
    struct diag there = it->diag;
    cli_fault_file(file, it->path, &m, &there);
    if ((copy = strdup(file))) { // else the folder's name has to do
      free(it->path);
      it->path = copy;
      it->diag = there;
    }
  }
  index_free(&f);
  media_close(&m);
}

// Interrupted in the middle of a sidecar the process would leave a part of it under a temporary name. So those under way are
// finished; a second signal ends it at once. Under `ulimit -f` a sidecar that would grow too large is an error like a full disk.
static atomic_int stopped;

static void on_stop(int sig) { stopped = sig; }

static void stop_between_files(void) {
  static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction old, now = {.sa_handler = on_stop, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
  for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
    if (!sigaction(ends[i], NULL, &old) && old.sa_handler == SIG_DFL)
      sigaction(ends[i], &now, NULL);
  signal(SIGXFSZ, SIG_IGN);
}

static void *work(void *arg) {
  struct job *j = arg;
  for (size_t i; !stopped && (i = atomic_fetch_add(&j->next, 1)) < j->num; atomic_fetch_add(&j->finished, 1))
    index_one(j, &j->items[i]);
  return NULL;
}

static uint64_t size_of_all(const struct job *j) {
  uint64_t sum = 0;
  for (size_t i = 0; i < j->num; i++) {
    struct media_source m;
    struct diag d = {0};
    if (!media_open(&m, (struct media_path){AT_FDCWD, j->items[i].path}, &d))
      sum += m.id.size;
    media_close(&m);
  }
  return sum;
}

static void run(struct job *j, long num_threads) {
  pthread_t threads[MAX_THREADS];
  long started = 0;
  struct progress bar;
  stop_between_files();
  if (num_threads > (long)j->num)
    num_threads = (long)j->num;
  progress_start(&bar, "indexing", isatty(STDERR_FILENO) ? size_of_all(j) : 0);
  while (started < num_threads && started < MAX_THREADS && !pthread_create(&threads[started], NULL, work, j))
    started++;
  if (!started)
    (void)work(j);
  while (bar.on && !stopped && atomic_load(&j->finished) < j->num) {
    progress_set(&bar, atomic_load(&j->bytes));
    nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
  }
  for (long i = 0; i < started; i++)
    pthread_join(threads[i], NULL);
  progress_end(&bar);
}

static int report(const struct job *j) {
  size_t count[OUT_WRITTEN + 1] = {0};
  for (size_t i = 0; i < j->num; i++) {
    const struct item *it = &j->items[i];
    count[it->outcome]++;
    if (it->unbelievable)
      cli_error(it->path, "its file system does not tell when files change: no sidecar of it could be believed");
    else if (it->unwritten)
      cli_error(it->path, "the sidecar cannot be written: %s%s", strerrordesc_np(it->unwritten),
                j->cache_fd < 0 ? " (--media DIR --cache-dir DIR, or -c FILE, name another folder for it)" : "");
    else if (it->outcome == OUT_FAILED)
      cli_error_source(it->path, &it->diag);
  }
  if (!j->num)
    cli_line("index: note: no track is there (*.mp4, *.m4a, *.cmfa, or a folder with init.mp4 and *.m4s)");
  printf("%zu indexed, %zu up to date, %zu failed\n", count[OUT_WRITTEN], count[OUT_FRESH], count[OUT_FAILED] + j->failed);
  return count[OUT_FAILED] ? EXIT_FAILED : EXIT_DONE;
}

static const char options[] =
    "PATH is a track file, a folder with init.mp4 and *.m4s, or a tree of them.\n"
    "A sidecar is <file>.slx, or <folder>.slx beside the folder. One that fits its source is left alone.\n\n"
    "  --rebuild        make every sidecar again\n"
    "  --threads N      at most N at a time (default: one per processor)\n"
    "  --cache-dir DIR  for media that are read-only: where the server's cache_dir is; it needs --media as well\n"
    "  --media DIR      the server's media folder; without PATH all of it is indexed\n"
    "  -c, --config FILE  take both from the server's configuration\n";

struct wish {
  long threads;
  bool help;
  const char *config;
  struct config_flags flags;
  const char **paths;
  size_t num_paths;
};

static int parse(struct wish *w, struct job *j, int argc, char **argv) {
  enum { REBUILD, THREADS, CONFIG, MEDIA, CACHE_DIR };
  static const struct cli_option longs[] = {{"rebuild", 0, false}, {"threads", 0, true},   {"config", 'c', true},
                                            {"media", 0, true},    {"cache-dir", 0, true}, {NULL, 0, false}};
  struct cli_args args = {.command = "index", .argc = argc, .argv = argv, .options = longs, .at = 1};
  const char *media = NULL, *cache_dir = NULL;
  for (int o; (o = cli_arg(&args)) != ARG_END;) {
    const char **to = o == ARG_OPERAND ? &w->paths[w->num_paths++] : o == CONFIG ? &w->config : o == MEDIA ? &media : o == CACHE_DIR ? &cache_dir : NULL;
    uint64_t n;
    if (o == ARG_WRONG)
      return EXIT_USAGE;
    if (o == ARG_HELP) {
      w->help = true;
      return EXIT_DONE;
    }
    j->rebuild |= o == REBUILD;
    if (to)
      *to = args.value;
    if (o != THREADS)
      continue;
    if (parse_u64(&n, bytes_str(args.value)) || !n || n > MAX_THREADS)
      return cli_usage("index", "--threads needs a number from 1 to %d", MAX_THREADS);
    w->threads = (long)n;
  }
  config_flag_add(&w->flags, OPTION_media, media);
  config_flag_add(&w->flags, OPTION_cache_dir, cache_dir);
  return EXIT_DONE;
}

// name_folders opens what the configuration, or the flags, call the media folder and the cache folder.
static int name_folders(struct job *j, struct wish *w) {
  struct config_error error;
  if (!w->config && !w->flags.num)
    return w->num_paths ? EXIT_DONE : cli_usage("index", "needs a path");
  bool has_media = w->config != NULL;
  for (unsigned i = 0; i < w->flags.num; i++)
    has_media |= w->flags.a[i].option == OPTION_media;
  if (!has_media)
    return cli_usage("index", "--cache-dir needs --media: sidecars there go by a track's path below that folder");
  struct config *c = config_load(w->config, &w->flags, &error);
  if (!c)
    return cli_error_config(&error);
  int status = EXIT_DONE;
  j->media = realpath(c->media, NULL);
  j->media_fd = j->media ? open(j->media, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (j->media_fd < 0)
    status = cli_error(c->media, "cannot open the media folder: %s", strerror(errno));
  else if (*c->cache_dir && (j->cache_fd = open(c->cache_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
    status = cli_error(c->cache_dir, "cannot open the cache folder: %s", strerror(errno));
  if (!w->num_paths)
    w->paths[w->num_paths++] = j->media; // lives as long as the job
  config_free(c);
  return status;
}

static void job_free(struct job *j) {
  for (size_t i = 0; i < j->num; i++)
    free(j->items[i].path);
  free(j->items);
  free(j->media);
  if (j->media_fd >= 0)
    close(j->media_fd);
  if (j->cache_fd >= 0)
    close(j->cache_fd);
}

int cmd_index(int argc, char **argv) {
  struct job j = {.media_fd = -1, .cache_fd = -1};
  struct wish w = {.threads = sysconf(_SC_NPROCESSORS_ONLN), .paths = calloc((size_t)argc + 1, sizeof *w.paths)};
  int status = w.paths ? parse(&w, &j, argc, argv) : no_memory();
  if (w.help)
    status = cli_help("index", options);
  else if (status == EXIT_DONE && (status = name_folders(&j, &w)) == EXIT_DONE) {
    for (size_t i = 0; i < w.num_paths; i++)
      status |= add_argument(&j, w.paths[i]);
    if (j.num)
      run(&j, w.threads);
    if (stopped) {
      cli_error("index", "interrupted: %zu of %zu are done", atomic_load(&j.finished), j.num);
      raise(stopped);
    }
    if (j.num || status == EXIT_DONE)
      status |= report(&j);
  }
  job_free(&j);
  free(w.paths);
  return status;
}
