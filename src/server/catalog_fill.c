// Source bytes for the caches: read on the reader's ring where there is one, else by helper threads.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "obs/log.h"
#include "server/catalog_int.h"

struct own_block {
  struct block pub;
  struct catalog *catalog;
};

// A fill or a read aside under way.
struct fill {
  struct read_op op;
  struct catalog *catalog;
  struct cat_wait *wait;
  struct protected_track *track;
  struct cache_ref ref;    // of a fill
  struct own_block *block; // of a read aside
  uint64_t start_ns, len;
  struct fill *next; // free
};

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void block_free(struct block *b) {
  if (!b)
    return;
  struct own_block *o = (struct own_block *)(void *)b;
  atomic_fetch_sub_explicit(&o->catalog->bypass_bytes, b->n, memory_order_relaxed);
  free(o);
}

bool blocks_are_scarce(const struct catalog *c) {
  return atomic_load_explicit(&c->bypass_bytes, memory_order_relaxed) > BYPASS_BYTES / 2;
}

static int read_status(struct cat_wait *w, const struct protected_track *t, enum err e) {
  if (!e)
    return CAT_OK;
  if (e == ERR_NO_MEMORY) // too much work queued, or an end
    return CAT_UNAVAILABLE;
  w->why = e == ERR_STALE ? OBS_err_source_changed : OBS_err_source_io;
  log_line(LOG_WARN, "%s: %s", t->source->path,
           e == ERR_STALE ? "changed while it was served; it will be opened anew" : "cannot be read");
  return CAT_UNAVAILABLE; // the next look may succeed
}

static void fill_end(const struct fill *f, enum err e) {
  struct catalog *c = f->catalog;
  struct cache_ref ref = f->ref;
  struct cat_wait *w = f->wait;
  w->status = read_status(w, f->track, e);
  w->block = NULL;
  if (f->block && !e) {
    w->block = &f->block->pub;
  } else if (f->block) {
    block_free(&f->block->pub);
  } else {
    cache_fill_done(c->cache, &ref, !e);
    if (!e) {
      metric_add_shared(&c->metrics->cache_fills, 1);
      metric_add_shared(&c->metrics->cache_fill_bytes, f->len);
      histogram_add_shared(&c->metrics->fill, now_ns() - f->start_ns);
    }
  }
  track_drop(c, f->track);
  w->wake(w);
  if (cache_wants_tending(c->cache))
    catalog_wake_keeper(c);
}

static void fill_give(struct catalog *c, struct fill *f) {
  pthread_mutex_lock(&c->queue_lock);
  f->next = c->free_fills;
  c->free_fills = f;
  pthread_mutex_unlock(&c->queue_lock);
}

static void read_done(struct read_op *op, enum err e) {
  struct fill *f = (struct fill *)(void *)op;
  fill_end(f, e);
  fill_give(f->catalog, f);
}

static struct fill *fill_take(struct catalog *c) {
  pthread_mutex_lock(&c->queue_lock);
  struct fill *f = c->stop ? NULL : c->free_fills;
  if (f)
    c->free_fills = f->next;
  pthread_mutex_unlock(&c->queue_lock);
  return f;
}

bool catalog_fill(struct catalog *c, const struct job *j) {
  struct fill *f = c->reader ? fill_take(c) : NULL;
  if (!c->reader)
    return catalog_push(c, JOB_FILL, NULL, (struct bytes){0}, j);
  if (!f)
    return false;
  *f = (struct fill){.op = {.source = j->track->source, .off = j->src_off, .to = j->ref.data, .len = j->src_len, .done = read_done},
                     .catalog = c, .wait = j->wait, .track = j->track, .ref = j->ref, .start_ns = now_ns(), .len = j->src_len};
  f->op.region = (int)cache_region(c->cache, &j->ref, &f->op.region_base, &f->op.region_len);
  reader_read(c->reader, &f->op);
  return true;
}

void do_fill(struct catalog *c, const struct job *j) {
  struct fill f = {.catalog = c, .wait = j->wait, .track = j->track, .ref = j->ref, .start_ns = now_ns(), .len = j->src_len};
  fill_end(&f, source_read(j->track->source, j->src_off, j->ref.data, j->src_len));
}

void do_bypass(struct catalog *c, const struct job *j) {
  struct own_block *o = malloc(sizeof *o + j->src_len);
  struct fill *f = o && c->reader ? fill_take(c) : NULL, here;
  if (!o) {
    atomic_fetch_sub_explicit(&c->bypass_bytes, j->src_len, memory_order_relaxed);
    j->wait->block = NULL;
    j->wait->status = CAT_UNAVAILABLE;
    track_drop(c, j->track);
    j->wait->wake(j->wait);
    return;
  }
  uint8_t *bytes = (uint8_t *)(o + 1);
  *o = (struct own_block){{bytes, j->src_len, j->src_off}, c};
  struct fill *to = f ? f : &here;
  *to = (struct fill){.op = {.source = j->track->source, .off = j->src_off, .to = bytes, .len = j->src_len, .region = -1, .done = read_done},
                      .catalog = c, .wait = j->wait, .track = j->track, .block = o, .len = j->src_len};
  if (f)
    reader_read(c->reader, &f->op);
  else
    fill_end(&here, source_read(j->track->source, j->src_off, bytes, j->src_len));
}

static bool open_aside(void *ctx, struct read_op *op) {
  return catalog_push(ctx, JOB_OPEN, NULL, (struct bytes){0}, &(struct job){.op = op});
}

void do_open(struct catalog *c, const struct job *j) {
  int fd = source_part_open(j->op->source, j->op->part);
  if (fd >= 0)
    (void)source_part_prove(j->op->source, j->op->part, fd); // else the source is marked changed, and the reader sees that
  reader_opened(c->reader, j->op, fd);
}

static void region_given_up(void *ctx, unsigned region) {
  struct catalog *c = ctx;
  if (c->reader)
    reader_forget_region(c->reader, region);
}

void catalog_start_reader(struct catalog *c, unsigned num_files) {
  struct reader_options o = {.num_regions = cache_num_regions(c->cache), .num_files = num_files, .open = open_aside, .ctx = c};
  c->fills = calloc(QUEUE_JOBS, sizeof *c->fills);
  if (!c->fills)
    return;
  for (unsigned i = 0; i < QUEUE_JOBS; i++) {
    c->fills[i].next = c->free_fills;
    c->free_fills = &c->fills[i];
  }
  c->reader = reader_new(&o);
  if (!c->reader)
    log_line(LOG_INFO, "io_uring cannot be used for reading (%s): helper threads read", strerror(errno));
  cache_on_give_up(c->cache, region_given_up, c);
}
