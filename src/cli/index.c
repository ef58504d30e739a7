// sluice index PATH...: sidecars for files, track folders and whole trees, in parallel.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "cli/cli.h"
#include "storage/sidecar.h"

enum { MAX_THREADS = 256, MAX_TREE_DEPTH = 64, POLL_NS = 50000000 };

enum outcome { OUT_FAILED, OUT_FRESH, OUT_WRITTEN };

struct item {
  char *path;
  enum outcome outcome;
  struct diag diag;
  const char *unwritten; // why a sidecar could not be written, NULL otherwise
};

struct job {
  struct item *items;
  size_t num, cap;
  bool rebuild;
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

// Adds the tracks below a folder. Links are not followed: a tree may not reach outside of itself.
static int walk(struct job *j, const char *dir, int depth) {
  if (depth > MAX_TREE_DEPTH)
    return cli_error(dir, "folders are nested too deep");
  if (media_is_track_folder((struct media_path){AT_FDCWD, dir}))
    return add(j, dir) ? EXIT_DONE : no_memory();
  struct dirent **entries;
  int num = scandir(dir, &entries, NULL, alphasort), status = EXIT_DONE;
  if (num < 0)
    return cli_error(dir, "%s", strerror(errno));
  for (int i = 0; i < num; i++) {
    char *path;
    struct stat st;
    if (entries[i]->d_name[0] != '.' && status != EXIT_USAGE) {
      if (asprintf(&path, "%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", entries[i]->d_name) < 0)
        abort();
      if (!lstat(path, &st) && S_ISDIR(st.st_mode))
        status |= walk(j, path, depth + 1);
      else if (!lstat(path, &st) && S_ISREG(st.st_mode) && media_is_track_name(path) && !add(j, path))
        status |= no_memory();
      free(path);
    }
    free(entries[i]);
  }
  free(entries);
  return status;
}

static int add_argument(struct job *j, const char *path) {
  struct stat st;
  if (stat(path, &st))
    return cli_error(path, "%s", strerror(errno));
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

static void index_one(struct job *j, struct item *it) {
  struct media_source m;
  struct index_file f = {0};
  struct step step = {.job = j};
  struct index_options o = {.cache_fd = -1, .write = true, .rebuild = j->rebuild, .progress = {on_step, &step}};
  enum err e = media_open(&m, (struct media_path){AT_FDCWD, it->path}, &it->diag);
  if (!e)
    e = index_load(&f, &m, &o, &it->diag);
  if (e && !it->diag.err)
    (void)diag_set(&it->diag, e, 0, NULL);
  if (!e)
    it->outcome = f.origin == INDEX_SIDECAR ? OUT_FRESH : OUT_WRITTEN;
  if (!e && f.origin == INDEX_BUILT && !f.written) {
    it->outcome = OUT_FAILED;
    it->unwritten = f.sidecar_err == ERR_UNSUPPORTED ? "its file system does not tell when files change: no sidecar of it could be believed"
                                                     : "the sidecar cannot be written";
  }
  atomic_fetch_add(&j->bytes, m.id.size - step.done);
  index_free(&f);
  media_close(&m);
}

static void *work(void *arg) {
  struct job *j = arg;
  for (size_t i; (i = atomic_fetch_add(&j->next, 1)) < j->num; atomic_fetch_add(&j->finished, 1))
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
  if (num_threads > (long)j->num)
    num_threads = (long)j->num;
  progress_start(&bar, "indexing", isatty(STDERR_FILENO) ? size_of_all(j) : 0);
  while (started < num_threads && started < MAX_THREADS && !pthread_create(&threads[started], NULL, work, j))
    started++;
  if (!started)
    (void)work(j);
  while (bar.on && atomic_load(&j->finished) < j->num) {
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
    if (it->unwritten)
      cli_error(it->path, "%s", it->unwritten);
    else if (it->outcome == OUT_FAILED)
      cli_error_diag(it->path, &it->diag);
  }
  printf("%zu indexed, %zu up to date, %zu failed\n", count[OUT_WRITTEN], count[OUT_FRESH], count[OUT_FAILED]);
  return count[OUT_FAILED] ? EXIT_FAILED : EXIT_DONE;
}

static const char options[] =
    "PATH is a track file, a folder with init.mp4 and *.m4s, or a tree of them.\n"
    "A sidecar is <file>.slx, or <folder>.slx beside the folder. One that fits its source is left alone.\n\n"
    "  --rebuild      make every sidecar again\n"
    "  --threads N    at most N at a time (default: one per processor)\n";

int cmd_index(int argc, char **argv) {
  struct job j = {0};
  long threads = sysconf(_SC_NPROCESSORS_ONLN);
  int status = EXIT_DONE;
  bool any = false, only_paths = false;
  for (int i = 1; i < argc && status != EXIT_USAGE; i++) {
    uint64_t n;
    if (!only_paths && !strcmp(argv[i], "--help"))
      return cli_help("index", options);
    if (!only_paths && !strcmp(argv[i], "--")) {
      only_paths = true;
    } else if (!only_paths && !strcmp(argv[i], "--rebuild")) {
      j.rebuild = true;
    } else if (!only_paths && !strcmp(argv[i], "--threads")) {
      if (i + 1 == argc || parse_u64(&n, bytes_str(argv[i + 1])) || !n || n > MAX_THREADS)
        status = cli_usage("index", "--threads needs a number from 1 to %d", MAX_THREADS);
      else
        threads = (long)n;
      i++;
    } else if (!only_paths && argv[i][0] == '-' && argv[i][1]) {
      status = cli_usage("index", "unknown option '%s'", argv[i]);
    } else {
      any = true;
      status |= add_argument(&j, argv[i]);
    }
  }
  if (status != EXIT_USAGE && !any)
    status = cli_usage("index", "needs a path");
  if (status != EXIT_USAGE && j.num)
    run(&j, threads);
  if (status != EXIT_USAGE && (j.num || status == EXIT_DONE))
    status |= report(&j);
  for (size_t i = 0; i < j.num; i++)
    free(j.items[i].path);
  free(j.items);
  return status;
}
