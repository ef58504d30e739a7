#include "server/source.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "obs/log.h"

enum { BUCKETS = 1 << 14 };

struct sources {
  int root_fd;
  pthread_mutex_t lock;
  struct source *openings; // those being opened
  uint64_t next_id, num, bytes;
  uint64_t hash_seed; // random: who delivers media chooses names, and must not know which of them share a bucket
  struct source *buckets[BUCKETS];
};

struct sources *sources_new(int root_fd) {
  struct sources *ss = calloc(1, sizeof *ss);
  if (!ss || getrandom(&ss->hash_seed, sizeof ss->hash_seed, 0) != sizeof ss->hash_seed) {
    free(ss);
    return NULL;
  }
  ss->root_fd = root_fd;
  pthread_mutex_init(&ss->lock, NULL);
  return ss;
}

void sources_free(struct sources *ss) {
  if (!ss)
    return;
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
  pthread_mutex_destroy(&s->proving);
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
    atomic_store_explicit(&s->parts[i].mark, m->part_marks[i], memory_order_relaxed);
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

// Whether another folder would help.
static bool of_the_folder(int why) {
  return why == EACCES || why == EPERM || why == EROFS || why == ENAMETOOLONG || why == EISDIR || why == ENOTDIR;
}

// Every opening of such a track reads all of it; the operator may not know. Each reason is said once, however reasons take turns.
static void say_cost(const struct source *s) {
  enum { NO_MARKS, STALE, UNWRITTEN, REASONS = UNWRITTEN + 256 };
  static atomic_bool said[REASONS]; // UNWRITTEN and errno
  const struct index_file *f = &s->index;
  if (f->origin == INDEX_SIDECAR || f->written || !(s->write_sidecar || f->sidecar_err == ERR_STALE))
    return;
  unsigned reason = f->sidecar_err == ERR_UNSUPPORTED ? NO_MARKS : s->write_sidecar ? UNWRITTEN + ((unsigned)f->write_errno & 255) : STALE;
  if (atomic_exchange(&said[reason], true))
    return;
  log_line(LOG_WARN, "%s: %s%s%s. All of it was read for its digest; while that is so, every such track is read whole each time it is opened",
           s->path,
           reason == NO_MARKS ? "its file system does not tell when files change, so no sidecar of it is used"
           : reason == STALE  ? "its sidecar is of another state of the file, and none may be written"
                              : "its sidecar cannot be written: ",
           reason > UNWRITTEN ? strerror(f->write_errno) : "",
           reason > UNWRITTEN && of_the_folder(f->write_errno) ? " (cache_dir may name a folder for sidecars)" : "");
}

static enum err open_source(struct source *s, struct media_source *m, const struct source_options *o, struct diag *diag) {
  struct index_options io = {.cache_fd = o->cache_fd, .write = o->write_sidecar};
  s->cache_fd = o->cache_fd;
  s->write_sidecar = o->write_sidecar;
  enum err e = index_load(&s->index, m, &io, diag);
  if (!e)
    say_cost(s);
  if (!e && (s->index.ix.h->flags & IX_NO_DIGEST))
    e = diag_say(diag, ERR_STALE, "the index has no digest of the source");
  atomic_store_explicit(&s->stamp, m->id.stamp, memory_order_relaxed);
  if (!e)
    e = copy_parts(s, m);
  if (!e)
    e = cut_segments(s, o->segment_target_ms);
  return e;
}

// Offsets of a folder's faults count through its parts: they are said by the part, which can be looked at.
static void name_part(struct diag *d, const struct media_source *m) {
  char what[sizeof d->what];
  const char *part = media_fault_part(m, d);
  if (!part)
    return;
  snprintf(what, sizeof what, "%.40s: %.117s", part, d->what[0] ? d->what : err_text(d->err));
  memcpy(d->what, what, sizeof what);
}

static struct source *find(struct sources *ss, uint64_t hash, const char *path) {
  for (struct source *s = ss->buckets[hash % BUCKETS]; s; s = s->next)
    if (s->hash == hash && !strcmp(s->path, path))
      return s;
  return NULL;
}

// Under the lock. Who asks for the source meanwhile is told to wait, or to come back.
static void begin_opening(struct sources *ss, struct source *s) {
  s->opening = true;
  s->next_opening = ss->openings;
  ss->openings = s;
}

// Under the lock: the source is open, or cannot be opened. Returns who waits for that.
static struct source_wait *end_opening(struct sources *ss, struct source *s) {
  struct source **at = &ss->openings;
  while (*at != s)
    at = &(*at)->next_opening;
  *at = s->next_opening;
  s->opening = false;
  struct source_wait *waits = s->waits;
  s->waits = NULL;
  return waits;
}

static void tell(struct source_wait *waits) {
  while (waits) {
    struct source_wait *next = waits->next; // `ready` may use it again at once
    waits->ready(waits);
    waits = next;
  }
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
  pthread_mutex_init(&s->proving, NULL);
  s->hash = hash;
  s->listed = true;
  s->next = ss->buckets[hash % BUCKETS];
  ss->buckets[hash % BUCKETS] = s;
  begin_opening(ss, s);
  atomic_store(&s->refs, 1);
  return s;
}

static bool same_but_for_marks(const struct source *s, const struct media_source *m) {
  bool same = s->num_parts == m->num_parts;
  for (uint32_t i = 0; same && i < s->num_parts; i++) {
    const char *name = m->dir_fd >= 0 ? s->parts[i].path + strlen(s->path) + 1 : s->path;
    same = s->part_ends[i] == m->part_ends[i] && s->parts[i].mtime_ns == m->part_mtimes_ns[i] &&
           !strcmp(name, m->dir_fd >= 0 ? m->names[i] : s->path);
  }
  return same;
}

// Proves that what is on storage has the bytes that were indexed, and then takes its marks over. Under s->proving. index_load
// reads all of the source unless a sidecar of this very state says its digest, and leaves one for the next start.
static bool prove(struct source *s) {
  struct media_source m = {0};
  struct index_file f = {0};
  struct diag diag = {0};
  struct index_options io = {.cache_fd = s->cache_fd, .write = s->write_sidecar};
  bool same = !media_open(&m, (struct media_path){s->root_fd, s->path}, &diag) && same_but_for_marks(s, &m) &&
              !index_load(&f, &m, &io, &diag) && !(f.ix.h->flags & IX_NO_DIGEST) &&
              !memcmp(f.ix.h->identity.digest, s->index.ix.h->identity.digest, sizeof f.ix.h->identity.digest);
  for (uint32_t i = 0; same && i < s->num_parts; i++)
    atomic_store_explicit(&s->parts[i].mark, m.part_marks[i], memory_order_release);
  if (same)
    atomic_store_explicit(&s->stamp, m.id.stamp, memory_order_release);
  index_free(&f);
  media_close(&m);
  return same;
}

// Under the lock, which is let go meanwhile: whether the open source `s` is what `m` is, which may take reading all of it. The caller
// holds nothing of it.
static bool still_is(struct sources *ss, struct source *s, const struct media_source *m, uint64_t target_ms) {
  if (s->target_ms != target_ms || atomic_load(&s->changed))
    return false;
  if (atomic_load(&s->stamp) == m->id.stamp)
    return true;
  if (!same_but_for_marks(s, m))
    return false;
  begin_opening(ss, s);
  pthread_mutex_unlock(&ss->lock);
  pthread_mutex_lock(&s->proving);
  bool is = atomic_load(&s->stamp) == m->id.stamp || prove(s);
  pthread_mutex_unlock(&s->proving);
  pthread_mutex_lock(&ss->lock);
  struct source_wait *waits = end_opening(ss, s);
  pthread_mutex_unlock(&ss->lock);
  tell(waits);
  pthread_mutex_lock(&ss->lock);
  return is;
}

// Under the lock: the open source of the path, with a reference, when it is what `m` is. One that is not leaves the table:
// its users keep it, nobody new gets it. NULL with *opening: it is being opened.
static struct source *get_open(struct sources *ss, uint64_t hash, const struct media_source *m, const char *path,
                               uint64_t target_ms, uint64_t *opening) {
  struct source *s;
  while ((s = find(ss, hash, path)) != NULL) {
    if (s->opening) {
      *opening = s->id;
      return NULL;
    }
    source_ref(s);
    if (still_is(ss, s, m, target_ms))
      return s;
    unlist(ss, s);
    pthread_mutex_unlock(&ss->lock);
    source_put(ss, s);
    pthread_mutex_lock(&ss->lock);
  }
  return NULL;
}

enum { TRIES = 3 }; // of an opening or a read while the file changes under it

static enum err get_once(struct sources *ss, struct source **out, enum source_from *from, const char *path,
                         const struct source_options *o, uint64_t *opening, struct diag *diag) {
  struct media_source m = {0};
  enum err e = media_open(&m, (struct media_path){ss->root_fd, path}, diag);
  if (e) {
    media_close(&m);
    return e;
  }
  uint64_t hash = XXH3_64bits_withSeed(path, strlen(path), ss->hash_seed);
  pthread_mutex_lock(&ss->lock);
  *opening = 0;
  struct source *s = get_open(ss, hash, &m, path, o->segment_target_ms, opening);
  if (s || *opening) {
    pthread_mutex_unlock(&ss->lock);
    media_close(&m);
    *out = s;
    *from = SOURCE_OPEN;
    return s ? ERR_OK : ERR_BUSY;
  }
  s = begin(ss, hash, path);
  pthread_mutex_unlock(&ss->lock);
  if (!s) {
    media_close(&m);
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  }
  e = open_source(s, &m, o, diag);
  if (e)
    name_part(diag, &m);
  media_close(&m);
  pthread_mutex_lock(&ss->lock);
  struct source_wait *waits = end_opening(ss, s);
  if (e) {
    unlist(ss, s);
  } else {
    ss->num++;
    ss->bytes += s->bytes;
  }
  pthread_mutex_unlock(&ss->lock);
  tell(waits);
  if (e) {
    destroy(s);
    return e;
  }
  *from = s->index.origin == INDEX_SIDECAR ? SOURCE_SIDECAR : SOURCE_BUILT;
  *out = s;
  return ERR_OK;
}

enum err sources_get(struct sources *ss, struct source **out, enum source_from *from, const char *path,
                     const struct source_options *o, uint64_t *opening, struct diag *diag) {
  enum err e = ERR_STALE;
  for (int i = 0; i < TRIES && e == ERR_STALE; i++) {
    *diag = (struct diag){0};
    e = get_once(ss, out, from, path, o, opening, diag);
  }
  return e;
}

bool sources_park(struct sources *ss, uint64_t opening, struct source_wait *w) {
  pthread_mutex_lock(&ss->lock);
  struct source *s = ss->openings;
  while (s && s->id != opening)
    s = s->next_opening;
  if (s) {
    w->next = s->waits;
    s->waits = w;
  }
  pthread_mutex_unlock(&ss->lock);
  return s != NULL;
}

uint32_t source_part_of(const struct source *s, uint64_t off) { return media_part_at(s->part_ends, s->num_parts, off); }

int source_part_open(const struct source *s, uint32_t part) {
  return media_open_at((struct media_path){s->root_fd, s->parts[part].path}, O_RDONLY | O_NONBLOCK);
}

// Size and mtime, which suffice to say no; *mark is for who wants a yes.
static bool may_be_same(const struct source_part *p, int fd, uint64_t *mark) {
  struct stat st;
  if (fstat(fd, &st))
    return false;
  *mark = media_mark(&st);
  return S_ISREG(st.st_mode) && (uint64_t)st.st_size == p->size &&
         (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec == p->mtime_ns;
}

bool source_part_same(const struct source *s, uint32_t part, int fd) {
  uint64_t mark;
  return may_be_same(&s->parts[part], fd, &mark) && mark == atomic_load_explicit(&s->parts[part].mark, memory_order_acquire);
}

bool source_part_prove(struct source *s, uint32_t part, int fd) {
  uint64_t mark;
  bool same = source_part_same(s, part, fd);
  if (!same && may_be_same(&s->parts[part], fd, &mark)) {
    pthread_mutex_lock(&s->proving);
    if (!atomic_load(&s->changed))
      same = source_part_same(s, part, fd) || (prove(s) && source_part_same(s, part, fd));
    if (!same)
      atomic_store(&s->changed, true); // before the next one asks
    pthread_mutex_unlock(&s->proving);
  } else if (!same) {
    atomic_store(&s->changed, true);
  }
  return same;
}

void source_part_span(const struct source *s, uint32_t part, uint64_t off, uint64_t n, uint64_t *file_off, uint64_t *len) {
  uint64_t left = s->part_ends[part] - off;
  *file_off = off - (part ? s->part_ends[part - 1] : 0);
  *len = n < left ? n : left;
}

static enum err read_once(struct source *s, uint32_t part, uint64_t off, uint8_t *out, size_t n, bool *again) {
  int fd = source_part_open(s, part);
  if (fd < 0)
    return errno == ENOENT || errno == ENOTDIR ? ERR_STALE : ERR_IO;
  enum err e = source_part_prove(s, part, fd) ? ERR_OK : ERR_STALE;
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
  *again = !e && !source_part_same(s, part, fd); // what was read may be of either state
  close(fd);
  return e;
}

static enum err read_part(struct source *s, uint32_t part, uint64_t off, uint8_t *out, size_t n) {
  bool again = true;
  enum err e = ERR_OK;
  for (int i = 0; i < TRIES && again && !e; i++) {
    again = false;
    e = read_once(s, part, off, out, n, &again);
  }
  return e ? e : again ? ERR_STALE : ERR_OK;
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
