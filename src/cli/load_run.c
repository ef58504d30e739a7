#include "cli/load_run.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "load/verify.h"

_Atomic bool load_stop;

struct job {
  struct load_run run;
  struct diag diag;
  enum err err;
  pthread_t thread;
};

static void *run_job(void *p) {
  struct job *j = p;
  j->err = engine_run(&j->run, &j->diag);
  return NULL;
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// What the live view showed last, of this run.
struct shown {
  uint64_t requests, ns;
};

// The live view: one line, rewritten a few times a second on a terminal.
static void show_live(struct shown *last, struct load_stats *all, unsigned num, double seconds, uint64_t start_ns, const char *label) {
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
  // a thread that begins clears what the run before has left
  double rate = last->ns && s.requests > last->requests ? (double)(s.requests - last->requests) / ((double)(now - last->ns) * 1e-9) : 0;
  fprintf(stderr, "\r\033[K%s%5.1f/%.0f s  %8.0f req/s  p99 %.1f ms  %lu active  %lu late  %lu failed  lag p99 %.1f ms  %.2f GB", label, at > 0 ? at : 0,
          seconds, rate, (double)p99 / 1e3, s.active, s.misses, s.errors, (double)lag / 1e3, (double)s.bytes / 1e9);
  *last = (struct shown){s.requests, now};
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
      atomic_store(&load_stop, true);
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

static double shape_seconds(const struct scenario *sc) {
  double s = sc->mode == LOAD_LISTENERS ? sc->drain_s : sc->seconds;
  for (uint32_t i = 0; sc->mode == LOAD_LISTENERS && i < sc->num_pieces; i++)
    s += sc->pieces[i].seconds;
  return s;
}

// What only the whole process knows: how far it grew, and what its verifier did.
static void note_process(const struct load_run *run, struct load_stats *stats, unsigned threads) {
  struct rusage u;
  uint64_t base = 0, same;
  for (unsigned i = 0; i < threads; i++)
    base = stats[i].base_bytes > base ? stats[i].base_bytes : base;
  if (getrusage(RUSAGE_SELF, &u) == 0 && (uint64_t)u.ru_maxrss * 1024 > base)
    stats->grown_bytes = (uint64_t)u.ru_maxrss * 1024 - base;
  if (run->verifier)
    verify_counts(run->verifier, &stats->decrypted, &same);
}

// Whether a process that has ended is one of these: who executed us may have left us children of its own, such as a shell's <(cat).
// Its place is free then: nobody else's process is to be ended by its number.
static bool is_ours(pid_t child[], unsigned num, pid_t pid) {
  for (unsigned p = 0; p < num; p++)
    if (child[p] == pid) {
      child[p] = 0;
      return true;
    }
  return false;
}

static int ended(int status) {
  if (WIFSIGNALED(status))
    return cli_error("load", "a process of the generator was ended by signal %d: its numbers are lost", WTERMSIG(status));
  return WEXITSTATUS(status) ? EXIT_FAILED : EXIT_DONE; // which has said why
}

// Forks the processes, shows progress, waits. Children inherit the shared statistics.
struct load_outcome load_run_all(struct load_run *proto, struct load_stats *stats, const struct load_args *a, const char *label) {
  unsigned num = a->threads * a->processes;
  struct load_outcome out = {EXIT_DONE, 0};
  pid_t child[LOAD_MAX_WORKERS];
  proto->num_threads = num;
  proto->start_ns = now_ns() + 50000000u;
  fflush(NULL);
  for (unsigned p = 0; p < a->processes; p++) {
    child[p] = fork();
    if (child[p] == 0) {
      int st = run_process(proto, stats, p * a->threads, a->threads);
      note_process(proto, &stats[p * a->threads], a->threads);
      fflush(NULL);
      _exit(st);
    }
    if (child[p] < 0) {
      out.status = cli_error("load", "fork: %s", strerror(errno));
      atomic_store(&load_stop, true);
    }
  }
  unsigned left = a->processes;
  struct shown shown = {0};
  while (left) {
    int st;
    pid_t done = waitpid(-1, &st, WNOHANG);
    if (done > 0) {
      bool ours = is_ours(child, a->processes, done);
      left -= ours;
      if (ours && ended(st))
        out.status = EXIT_FAILED;
      for (unsigned i = 0; i < num; i++)
        if (stats[i].interrupted) // by a signal to that process alone: without its part the run is none
          atomic_store(&load_stop, true);
      continue;
    }
    if (done < 0 && errno == ECHILD)
      break;
    if (atomic_load(&load_stop))
      for (unsigned p = 0; p < a->processes; p++)
        if (child[p] > 0)
          kill(child[p], SIGTERM);
    show_live(&shown, stats, num, shape_seconds(proto->sc), proto->start_ns, label);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
  }
  if (isatty(STDERR_FILENO))
    fprintf(stderr, "\r\033[K");
  uint64_t grown = 0, peak_active = 0;
  for (unsigned i = 0; i < num; i++) {
    grown += stats[i].grown_bytes;
    peak_active += stats[i].peak_active;
  }
  out.bytes_per_listener = peak_active ? (double)grown / (double)peak_active : 0;
  return out;
}

