#include "server/reader.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "obs/log.h"

enum {
  DEPTH = 256, // reads under way
  MAX_FILES = 512, // kept open
  WAYS = 8,    // places that one file may have among them
  IDLE_S = 5,  // a file that was not read for so long is closed
  MAX_REGIONS = 1 << 14, // of the kernel
  REOPENINGS = 3, // of one read
};

struct file {
  uint64_t source_id;
  uint32_t part, users;
  int fd; // -1: free
  bool used; // since the last tidying
};

struct queue {
  struct read_op *first, **last;
};

struct reader {
  struct io_uring ring;
  pthread_t thread;
  pthread_mutex_t lock;
  struct queue fresh, opened;    // under the lock; opened: those that come back with their file
  bool stop;                     // under the lock
  int wake_fd;
  uint64_t wake_value;
  struct reader_options o;
  unsigned under_way; // reads that the ring has
  unsigned pending;   // taken and not done
  bool no_files, no_regions;
  time_t tidied_s;
  bool *registered; // regions
  unsigned num_files; // sets of WAYS
  struct file files[MAX_FILES];
};

static void push(struct reader *r, struct read_op *op) {
  uint64_t one = 1;
  op->next = NULL;
  struct queue *q = op->fd == -1 ? &r->fresh : &r->opened;
  pthread_mutex_lock(&r->lock);
  bool first = !q->first;
  *q->last = op;
  q->last = &op->next;
  pthread_mutex_unlock(&r->lock);
  ssize_t n = first ? write(r->wake_fd, &one, sizeof one) : 0;
  (void)n;
}

void reader_read(struct reader *r, struct read_op *op) {
  op->part = source_part_of(op->source, op->off);
  op->fd = op->slot = -1;
  op->reopened = 0;
  push(r, op);
}

void reader_opened(struct reader *r, struct read_op *op, int fd) {
  op->fd = fd >= 0 ? fd : -errno - 1; // below -1: could not be opened
  push(r, op);
}

static struct file *file_set(struct reader *r, const struct read_op *op) {
  uint64_t h = (op->source->id * 0x9e3779b97f4a7c15u ^ op->part) * 0xbf58476d1ce4e5b9u;
  return &r->files[(h >> 32) % (r->num_files / WAYS) * WAYS];
}

static int find_file(struct reader *r, const struct read_op *op) {
  struct file *set = file_set(r, op);
  for (int i = 0; i < WAYS; i++)
    if (set[i].fd >= 0 && set[i].source_id == op->source->id && set[i].part == op->part)
      return (int)(&set[i] - r->files);
  return -1;
}

static void close_file(struct reader *r, struct file *f) {
  int none = -1;
  if (!r->no_files)
    (void)io_uring_register_files_update(&r->ring, (unsigned)(f - r->files), &none, 1);
  close(f->fd);
  f->fd = -1;
}

// Keeps the file that was opened for `op`, in place of one that nobody reads. Without a place the read keeps it to itself.
static void keep_file(struct reader *r, struct read_op *op) {
  struct file *set = file_set(r, op), *best = NULL;
  for (int i = 0; i < WAYS; i++)
    if (!set[i].users && (!best || set[i].fd < 0 || (best->fd >= 0 && best->used && !set[i].used)))
      best = &set[i];
  if (!best)
    return;
  if (best->fd >= 0)
    close_file(r, best);
  *best = (struct file){.source_id = op->source->id, .part = op->part, .users = 1, .fd = op->fd, .used = true};
  op->slot = (int)(best - r->files);
  if (!r->no_files && io_uring_register_files_update(&r->ring, (unsigned)op->slot, &op->fd, 1) < 0)
    r->no_files = true;
}

static void release_file(struct reader *r, struct read_op *op) {
  if (op->slot >= 0)
    r->files[op->slot].users--;
  else if (op->fd >= 0)
    close(op->fd);
  op->fd = op->slot = -1;
}

static void finish(struct reader *r, struct read_op *op, enum err e) {
  release_file(r, op);
  if (e == ERR_STALE)
    atomic_store_explicit(&op->source->changed, true, memory_order_relaxed);
  r->pending--;
  op->done(op, e);
}

// Memory is registered when the first read goes there, as a whole region.
static bool region_ready(struct reader *r, const struct read_op *op) {
  if (op->region < 0 || op->region >= MAX_REGIONS || r->no_regions)
    return false;
  if (r->registered[op->region])
    return true;
  struct iovec iov = {op->region_base, op->region_len};
  __u64 tag = 0;
  int n = io_uring_register_buffers_update_tag(&r->ring, (unsigned)op->region, &iov, &tag, 1);
  if (n < 0) {
    r->no_regions = true;
    log_line(LOG_INFO, "the cache's memory cannot be registered (%s): reads go there without", strerror(-n));
    return false;
  }
  r->registered[op->region] = true;
  return true;
}

void reader_forget_region(struct reader *r, unsigned region) {
  struct iovec none = {0};
  __u64 tag = 0;
  if (region >= MAX_REGIONS || !r->registered[region])
    return;
  (void)io_uring_register_buffers_update_tag(&r->ring, region, &none, &tag, 1);
  r->registered[region] = false;
}

static void start_read(struct reader *r, struct read_op *op) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring); // there is one: DEPTH
  enum { MOST = 1 << 30 };
  unsigned n = op->part_left < MOST ? (unsigned)op->part_left : MOST;
  bool fixed = op->slot >= 0 && !r->no_files;
  int fd = fixed ? op->slot : op->fd;
  if (region_ready(r, op))
    io_uring_prep_read_fixed(sqe, fd, op->to, n, op->part_off, op->region);
  else
    io_uring_prep_read(sqe, fd, op->to, n, op->part_off);
  if (fixed)
    sqe->flags |= IOSQE_FIXED_FILE;
  io_uring_sqe_set_data(sqe, op);
  r->under_way++;
}

// The file at hand is in another state: nobody uses it again. Who opens it anew looks whether its bytes are still the same.
static void reopen(struct reader *r, struct read_op *op) {
  if (atomic_load_explicit(&op->source->changed, memory_order_relaxed) || op->reopened++ == REOPENINGS) {
    finish(r, op, ERR_STALE);
    return;
  }
  if (op->slot >= 0)
    r->files[op->slot].source_id = 0; // no source has it; closed when it is idle
  release_file(r, op);
  if (!r->o.open(r->o.ctx, op))
    finish(r, op, ERR_NO_MEMORY);
}

// One part of a read: its file has to be at hand, and in the state that was indexed.
static void begin(struct reader *r, struct read_op *op) {
  struct source *s = op->source;
  if (op->fd < -1) {
    errno = -(op->fd + 1);
    op->fd = -1;
    finish(r, op, errno == ENOENT || errno == ENOTDIR ? ERR_STALE : ERR_IO);
    return;
  }
  if (op->fd < 0) {
    op->slot = find_file(r, op);
    if (op->slot < 0) {
      if (!r->o.open(r->o.ctx, op))
        finish(r, op, ERR_NO_MEMORY);
      return;
    }
    op->fd = r->files[op->slot].fd;
    r->files[op->slot].users++;
    r->files[op->slot].used = true;
  } else if (op->slot < 0) {
    keep_file(r, op);
  }
  if (atomic_load_explicit(&s->changed, memory_order_relaxed) || !source_part_same(s, op->part, op->fd)) {
    reopen(r, op);
    return;
  }
  source_part_span(s, op->part, op->off, op->len, &op->part_off, &op->part_left);
  op->part_len = op->part_left;
  start_read(r, op);
}

static void part_done(struct reader *r, struct read_op *op) {
  struct source *s = op->source;
  if (!source_part_same(s, op->part, op->fd)) { // what was read may be of either state: all of it again
    op->to -= op->part_len;
    op->off -= op->part_len;
    op->len += op->part_len;
    reopen(r, op);
    return;
  }
  if (op->len == 0 || ++op->part == s->num_parts) {
    finish(r, op, op->len ? ERR_STALE : ERR_OK);
    return;
  }
  release_file(r, op);
  begin(r, op);
}

static void on_read(struct reader *r, struct read_op *op, int res) {
  r->under_way--;
  if (res == -EINTR || res == -EAGAIN) {
    start_read(r, op);
  } else if (res <= 0) {
    finish(r, op, res == 0 ? ERR_STALE : ERR_IO);
  } else {
    op->to += res;
    op->off += (uint64_t)res;
    op->part_off += (uint64_t)res;
    op->part_left -= (uint64_t)res;
    op->len -= (uint64_t)res;
    if (op->part_left)
      start_read(r, op);
    else
      part_done(r, op);
  }
}

static void tidy_files(struct reader *r) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  if (now.tv_sec - r->tidied_s < IDLE_S)
    return;
  r->tidied_s = now.tv_sec;
  for (unsigned i = 0; i < r->num_files; i++) {
    struct file *f = &r->files[i];
    if (f->fd >= 0 && !f->users && !f->used)
      close_file(r, f);
    f->used = false;
  }
}

static void listen_for_wakes(struct reader *r) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);
  io_uring_prep_read(sqe, r->wake_fd, &r->wake_value, sizeof r->wake_value, 0);
  io_uring_sqe_set_data(sqe, NULL);
}

// Takes what was pushed, as much as may be under way. Each read may have a file of its own open: half as many are begun at a time as
// files are kept.
static bool take(struct reader *r) {
  while (r->under_way < DEPTH) {
    pthread_mutex_lock(&r->lock);
    struct queue *q = r->opened.first || r->pending >= r->num_files / 2 ? &r->opened : &r->fresh;
    struct read_op *op = q->first;
    if (op) {
      q->first = op->next;
      if (!q->first)
        q->last = &q->first;
    }
    bool stop = r->stop;
    pthread_mutex_unlock(&r->lock);
    if (!op)
      return stop;
    if (op->fd == -1)
      r->pending++; // the others come back from being opened
    begin(r, op);
  }
  return false;
}

static void *run(void *arg) {
  struct reader *r = arg;
  struct __kernel_timespec idle = {.tv_sec = IDLE_S};
  pthread_setname_np(pthread_self(), "reader");
  listen_for_wakes(r);
  while (!take(r) || r->pending) {
    struct io_uring_cqe *cqe = NULL;
    (void)io_uring_submit_and_wait_timeout(&r->ring, &cqe, 1, &idle, NULL);
    tidy_files(r);
    while (!io_uring_peek_cqe(&r->ring, &cqe) && cqe) {
      struct read_op *op = io_uring_cqe_get_data(cqe);
      int res = cqe->res;
      io_uring_cqe_seen(&r->ring, cqe);
      if (op)
        on_read(r, op, res);
      else
        listen_for_wakes(r);
    }
  }
  return NULL;
}

struct reader *reader_new(const struct reader_options *o) {
  struct reader *r = calloc(1, sizeof *r);
  struct io_uring_params p = {.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CLAMP};
  if (!r)
    return NULL;
  int e = io_uring_queue_init_params(2 * DEPTH, &r->ring, &p);
  r->wake_fd = eventfd(0, EFD_CLOEXEC);
  int why = e < 0 ? -e : r->wake_fd < 0 ? errno : ENOMEM;
  unsigned regions = o->num_regions < MAX_REGIONS ? o->num_regions : MAX_REGIONS;
  r->registered = calloc(regions + 1, sizeof *r->registered);
  if (e < 0 || r->wake_fd < 0 || !r->registered) {
    if (e >= 0)
      io_uring_queue_exit(&r->ring);
    if (r->wake_fd >= 0)
      close(r->wake_fd);
    free(r->registered);
    free(r);
    errno = why;
    return NULL;
  }
  r->o = *o;
  r->fresh.last = &r->fresh.first;
  r->opened.last = &r->opened.first;
  r->num_files = (o->num_files < WAYS ? WAYS : o->num_files < MAX_FILES ? o->num_files : MAX_FILES) / WAYS * WAYS;
  for (unsigned i = 0; i < r->num_files; i++)
    r->files[i].fd = -1;
  r->no_files = io_uring_register_files_sparse(&r->ring, r->num_files) < 0;
  r->no_regions = io_uring_register_buffers_sparse(&r->ring, regions) < 0;
  pthread_mutex_init(&r->lock, NULL);
  e = pthread_create(&r->thread, NULL, run, r);
  if (!e)
    return r;
  r->stop = true;
  reader_free(r);
  errno = e;
  return NULL;
}

void reader_stop(struct reader *r) {
  uint64_t one = 1;
  if (!r || r->stop)
    return;
  pthread_mutex_lock(&r->lock);
  r->stop = true;
  pthread_mutex_unlock(&r->lock);
  ssize_t n = write(r->wake_fd, &one, sizeof one);
  (void)n;
  pthread_join(r->thread, NULL);
}

void reader_free(struct reader *r) {
  if (!r)
    return;
  for (unsigned i = 0; i < r->num_files; i++)
    if (r->files[i].fd >= 0)
      close(r->files[i].fd);
  io_uring_queue_exit(&r->ring);
  close(r->wake_fd);
  pthread_mutex_destroy(&r->lock);
  free(r->registered);
  free(r);
}
