#include "server/source.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { BUCKETS = 1 << 14 };

struct sources {
  int root_fd;
  pthread_mutex_t lock;
  pthread_cond_t opened;
  uint64_t next_id, num, bytes;
  struct source *buckets[BUCKETS];
};

struct sources *sources_new(int root_fd) {
  struct sources *ss = calloc(1, sizeof *ss);
  if (!ss)
    return NULL;
  ss->root_fd = root_fd;
  pthread_mutex_init(&ss->lock, NULL);
  pthread_cond_init(&ss->opened, NULL);
  return ss;
}

void sources_free(struct sources *ss) {
  if (!ss)
    return;
  pthread_cond_destroy(&ss->opened);
  pthread_mutex_destroy(&ss->lock);
  free(ss);
}

static void destroy(struct source *s) {
  if (!s)
    return;
  for (uint32_t i = 0; i < s->num_parts; i++)
    free(s->parts[i].path);
  free(s->parts);
  free(s->part_ends);
  free((void *)(uintptr_t)s->segs.first_frag);
  index_free(&s->index);
  free(s->path);
  free(s);
}

// Under the lock. The table itself holds no reference: a source leaves when the last user does.
static void unlist(struct sources *ss, struct source *s) {
  if (!s->listed)
    return;
  struct source **at = &ss->buckets[s->hash % BUCKETS];
  while (*at != s)
    at = &(*at)->next;
  *at = s->next;
  s->listed = false;
}

void source_ref(struct source *s) { atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed); }

void source_put(struct sources *ss, struct source *s) {
  if (!s)
    return;
  pthread_mutex_lock(&ss->lock);
  bool last = atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1;
  if (last) {
    unlist(ss, s);
    ss->num--;
    ss->bytes -= s->bytes;
  }
  pthread_mutex_unlock(&ss->lock);
  if (last)
    destroy(s);
}

void sources_usage(struct sources *ss, uint64_t *num, uint64_t *bytes) {
  pthread_mutex_lock(&ss->lock);
  *num = ss->num;
  *bytes = ss->bytes;
  pthread_mutex_unlock(&ss->lock);
}

static enum err copy_parts(struct source *s, const struct media_source *m) {
  s->parts = calloc(m->num_parts, sizeof *s->parts);
  s->part_ends = calloc(m->num_parts, sizeof *s->part_ends);
  if (!s->parts || !s->part_ends)
    return ERR_NO_MEMORY;
  for (uint32_t i = 0; i < m->num_parts; i++) {
    int n = m->dir_fd >= 0 ? asprintf(&s->parts[i].path, "%s/%s", s->path, m->names[i])
                           : asprintf(&s->parts[i].path, "%s", s->path);
    if (n < 0) {
      s->parts[i].path = NULL;
      return ERR_NO_MEMORY;
    }
    s->num_parts = i + 1;
    s->bytes += sizeof *s->parts + 8 + (uint64_t)n;
    s->part_ends[i] = m->part_ends[i];
    s->parts[i].size = m->part_ends[i] - (i ? m->part_ends[i - 1] : 0);
    s->parts[i].mtime_ns = m->part_mtimes_ns[i];
  }
  return ERR_OK;
}

static enum err cut_segments(struct source *s, uint64_t target_ms) {
  const struct track_index *ix = &s->index.ix;
  uint64_t ticks = target_ms * ix->h->timescale / 1000; // 600,000 ms and 32 bits: no overflow
  uint32_t num = ix_segment_count(ix, ticks);
  uint32_t *first = calloc((size_t)num + 1, sizeof *first);
  if (!first)
    return ERR_NO_MEMORY;
  ix_segment_fill(ix, ticks, first);
  s->segs = (struct ix_segments){num, first};
  s->target_ms = target_ms;
  s->bytes += ((uint64_t)num + 1) * sizeof *first + ix->h->blob_len + sizeof *s;
  return ERR_OK;
}

static enum err open_source(struct source *s, struct media_source *m, const struct source_options *o, struct diag *diag) {
  struct index_options io = {.cache_fd = o->cache_fd, .write = o->write_sidecar};
  enum err e = index_load(&s->index, m, &io, diag);
  if (!e && (s->index.ix.h->flags & IX_NO_DIGEST))
    e = diag_say(diag, ERR_STALE, "the index has no digest of the source");
  s->stamp = m->id.stamp;
  if (!e)
    e = copy_parts(s, m);
  if (!e)
    e = cut_segments(s, o->segment_target_ms);
  return e;
}

static struct source *find(struct sources *ss, uint64_t hash, const char *path) {
  for (struct source *s = ss->buckets[hash % BUCKETS]; s; s = s->next)
    if (s->hash == hash && !strcmp(s->path, path))
      return s;
  return NULL;
}

// Lists an empty source that is being opened by the caller. Under the lock.
static struct source *begin(struct sources *ss, uint64_t hash, const char *path) {
  struct source *s = calloc(1, sizeof *s);
  char *copy = strdup(path);
  if (!s || !copy) {
    free(s);
    free(copy);
    return NULL;
  }
  s->path = copy;
  s->root_fd = ss->root_fd;
  s->id = ++ss->next_id;
  s->hash = hash;
  s->opening = s->listed = true;
  s->next = ss->buckets[hash % BUCKETS];
  ss->buckets[hash % BUCKETS] = s;
  atomic_store(&s->refs, 1);
  return s;
}

enum err sources_get(struct sources *ss, struct source **out, enum source_from *from, const char *path,
                     const struct source_options *o, struct diag *diag) {
  struct media_source m = {0};
  enum err e = media_open(&m, (struct media_path){ss->root_fd, path}, diag);
  if (e) {
    media_close(&m);
    return e;
  }
  uint64_t hash = XXH3_64bits(path, strlen(path));
  pthread_mutex_lock(&ss->lock);
  struct source *s;
  while ((s = find(ss, hash, path)) && s->opening)
    pthread_cond_wait(&ss->opened, &ss->lock);
  if (s && s->stamp == m.id.stamp && s->target_ms == o->segment_target_ms && !atomic_load(&s->changed)) {
    source_ref(s);
    pthread_mutex_unlock(&ss->lock);
    media_close(&m);
    *out = s;
    *from = SOURCE_OPEN;
    return ERR_OK;
  }
  if (s)
    unlist(ss, s); // its users keep it, nobody new gets it
  s = begin(ss, hash, path);
  pthread_mutex_unlock(&ss->lock);
  if (!s) {
    media_close(&m);
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  }
  e = open_source(s, &m, o, diag);
  media_close(&m);
  pthread_mutex_lock(&ss->lock);
  s->opening = false;
  if (e) {
    unlist(ss, s);
  } else {
    ss->num++;
    ss->bytes += s->bytes;
  }
  pthread_cond_broadcast(&ss->opened);
  pthread_mutex_unlock(&ss->lock);
  if (e) {
    destroy(s);
    return e;
  }
  *from = s->index.origin == INDEX_SIDECAR ? SOURCE_SIDECAR : SOURCE_BUILT;
  *out = s;
  return ERR_OK;
}

uint32_t source_part_of(const struct source *s, uint64_t off) {
  uint32_t lo = 0, hi = s->num_parts - 1;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (s->part_ends[mid] <= off)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

int source_part_open(const struct source *s, uint32_t part) {
  return media_open_at((struct media_path){s->root_fd, s->parts[part].path}, O_RDONLY | O_NONBLOCK);
}

bool source_part_same(const struct source *s, uint32_t part, int fd) {
  const struct source_part *p = &s->parts[part];
  struct stat st;
  return !fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == p->size &&
         (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec == p->mtime_ns;
}

void source_part_span(const struct source *s, uint32_t part, uint64_t off, uint64_t n, uint64_t *file_off, uint64_t *len) {
  uint64_t left = s->part_ends[part] - off;
  *file_off = off - (part ? s->part_ends[part - 1] : 0);
  *len = n < left ? n : left;
}

static enum err read_part(struct source *s, uint32_t part, uint64_t off, uint8_t *out, size_t n) {
  int fd = source_part_open(s, part);
  if (fd < 0)
    return errno == ENOENT || errno == ENOTDIR ? ERR_STALE : ERR_IO;
  enum err e = source_part_same(s, part, fd) ? ERR_OK : ERR_STALE;
  while (n && !e) {
    ssize_t got = pread(fd, out, n, (off_t)off);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0) {
      e = got == 0 ? ERR_STALE : ERR_IO;
      break;
    }
    out += got;
    off += (uint64_t)got;
    n -= (size_t)got;
  }
  if (!e && !source_part_same(s, part, fd))
    e = ERR_STALE;
  close(fd);
  return e;
}

enum err source_read(struct source *s, uint64_t off, void *buf, size_t n) {
  uint8_t *out = buf;
  enum err e = atomic_load_explicit(&s->changed, memory_order_relaxed) ? ERR_STALE : ERR_OK;
  for (uint32_t part = source_part_of(s, off); n && !e; part++) {
    uint64_t file_off, take;
    if (part == s->num_parts)
      return ERR_STALE;
    source_part_span(s, part, off, n, &file_off, &take);
    e = read_part(s, part, file_off, out, take);
    out += take;
    off += take;
    n -= take;
  }
  if (e == ERR_STALE)
    atomic_store_explicit(&s->changed, true, memory_order_relaxed);
  return e;
}
