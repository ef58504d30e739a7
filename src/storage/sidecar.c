// Sidecars: `.slx` files beside the media or in the cache folder. Written to a temporary name, synced and renamed, so
// that a reader sees a whole one or none; checked in full before a byte is believed.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "storage/sidecar.h"

static const size_t default_memory = (size_t)1 << 30;

// The folder that holds `at` and the last component's name, which points into `buf`.
static int open_parent(struct media_path at, char *buf, size_t cap, const char **name) {
  size_t n = strlen(at.path);
  while (n > 1 && at.path[n - 1] == '/')
    n--;
  if (n == 0 || n + 3 > cap) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy(buf, at.path, n);
  buf[n] = 0;
  char *slash = strrchr(buf, '/');
  *name = slash ? slash + 1 : buf;
  const char *parent = ".";
  if (slash == buf) {
    parent = "/";
  } else if (slash) {
    *slash = 0;
    parent = buf;
  }
  if (!**name || !strcmp(*name, ".") || !strcmp(*name, "..")) {
    errno = EINVAL;
    return -1;
  }
  return media_open_at((struct media_path){at.root_fd, parent}, O_RDONLY | O_DIRECTORY);
}

// Clocks of file systems go in ticks, 10 ms at the most on what we rely on: a file that is written twice within one has one
// ctime for two contents. Who reads it only after the tick reads the later one; a write after that gets another ctime.
static void let_tick_pass(const struct media_source *m) {
  enum { TICK_NS = 20000000 };
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  uint64_t now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec, ctime = m->newest_ctime_ns;
  if (now - ctime < TICK_NS || ctime - now < TICK_NS)
    nanosleep(&(struct timespec){.tv_nsec = 2 * TICK_NS}, NULL);
}

// Where a sidecar may be: `dir_fd` is owned. Both places have the same rule: the state in the sidecar is the file's, exactly.
// No times are compared by order, so clocks that differ, or were wrong for a while, do no harm.
struct place {
  int dir_fd;
  char name[NAME_MAX + 1];
};

static bool place_beside(struct place *p, struct media_path at) {
  char buf[PATH_MAX];
  const char *name;
  p->dir_fd = open_parent(at, buf, sizeof buf, &name);
  if (p->dir_fd < 0)
    return false;
  int n = snprintf(p->name, sizeof p->name, "%s.slx", name);
  if (n > 0 && (size_t)n < sizeof p->name)
    return true;
  close(p->dir_fd);
  errno = ENAMETOOLONG;
  return false;
}

// Names in the cache folder are hashes of paths; what a sidecar belongs to is checked by its contents.
static bool place_in_cache(struct place *p, struct media_path at, int cache_fd) {
  p->dir_fd = cache_fd < 0 ? -1 : fcntl(cache_fd, F_DUPFD_CLOEXEC, 0);
  XXH128_hash_t h = XXH3_128bits(at.path, strlen(at.path));
  snprintf(p->name, sizeof p->name, "%016llx%016llx.slx", (unsigned long long)h.high64, (unsigned long long)h.low64);
  return p->dir_fd >= 0;
}

// A few looks at the source: another file's sidecar with the same size and time does not pass.
static enum err spot_check(struct media_source *m, const struct track_index *ix) {
  uint8_t buf[4096];
  for (size_t at = 0; at < ix->init.n; at += sizeof buf) {
    size_t n = ix->init.n - at < sizeof buf ? ix->init.n - at : sizeof buf;
    enum err e = media_read(m, at, buf, n);
    if (e || memcmp(buf, ix->init.p + at, n))
      return e ? e : ERR_STALE;
  }
  const uint32_t looks[] = {0, ix->h->num_frags / 2, ix->h->num_frags - 1};
  for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
    const struct ix_frag *f = &ix->frags[looks[i]];
    if (f->src_len - f->moof_pos < 8)
      return ERR_STALE;
    enum err e = media_read(m, f->src_off + f->moof_pos, buf, 8);
    if (e || load_be32(buf + 4) != FOURCC('m', 'o', 'o', 'f'))
      return e ? e : ERR_STALE;
  }
  return ERR_OK;
}

static bool same_parts(const struct media_source *m, const struct track_index *ix) {
  bool folder = m->dir_fd >= 0 && m->num_parts > 1;
  return ix->h->num_parts == m->num_parts && folder == ((ix->h->flags & IX_FOLDER) != 0) &&
         !memcmp(ix->part_ends, m->part_ends, m->num_parts * sizeof *m->part_ends);
}

// A copy, not a mapping of the file: who overwrites or truncates a sidecar in place must not change, or take away, what
// was checked.
static void *read_copy(int fd, size_t n) {
  void *map = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED)
    return MAP_FAILED;
  size_t at = 0;
  while (at < n) {
    ssize_t got = pread(fd, (char *)map + at, n - at, (off_t)at);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0)
      break;
    at += (size_t)got;
  }
  if (at == n && !mprotect(map, n, PROT_READ))
    return map;
  munmap(map, n);
  return MAP_FAILED;
}

static enum err map_place(struct index_file *out, struct media_source *m, const struct place *p, bool no_digest) {
  int fd = openat(p->dir_fd, p->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0)
    return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
  struct stat st;
  void *map = MAP_FAILED;
  if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size <= default_memory)
    map = read_copy(fd, (size_t)st.st_size);
  close(fd);
  if (map == MAP_FAILED)
    return ERR_IO;
  struct diag diag = {0}; // the caller hears the error's name; the source is parsed anyway
  struct track_index ix;
  enum err e = ix_open(&ix, bytes_of(map, (size_t)st.st_size), &diag);
  if (!e && (!ix_identity_is(&ix, &m->id) || !same_parts(m, &ix) || (!no_digest && ix.h->flags & IX_NO_DIGEST)))
    e = ERR_STALE;
  if (!e)
    e = spot_check(m, &ix);
  if (e) {
    munmap(map, (size_t)st.st_size);
    return e;
  }
  out->ix = ix;
  out->map = map;
  out->map_len = (size_t)st.st_size;
  out->origin = INDEX_SIDECAR;
  memcpy(m->id.digest, ix.h->identity.digest, sizeof m->id.digest);
  return ERR_OK;
}

static enum err write_all(int fd, struct bytes b) {
  while (b.n) {
    ssize_t n = write(fd, b.p, b.n);
    if (n < 0 && errno == EINTR)
      continue;
    if (n == 0)
      errno = ENOSPC;
    if (n <= 0)
      return ERR_IO;
    b.p += n;
    b.n -= (size_t)n;
  }
  return ERR_OK;
}

static enum err write_place(const struct place *p, struct bytes blob) {
  char tmp[64];
  uint64_t r;
  if (getrandom(&r, sizeof r, 0) != sizeof r)
    return ERR_IO;
  snprintf(tmp, sizeof tmp, ".%016llx.slx.tmp", (unsigned long long)r);
  int fd = openat(p->dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0)
    return ERR_IO;
  enum err e = write_all(fd, blob);
  if (!e && fsync(fd))
    e = ERR_IO;
  if (close(fd) && !e)
    e = ERR_IO;
  if (!e && renameat(p->dir_fd, tmp, p->dir_fd, p->name))
    e = ERR_IO;
  int why = errno;
  if (e)
    (void)unlinkat(p->dir_fd, tmp, 0);
  else
    (void)fsync(p->dir_fd); // the name's durability; the sidecar can be made again
  errno = why;
  return e;
}

// Tries both places in order; the first error that is not "there is none" is the one to report.
static enum err for_places(struct index_file *out, struct media_source *m, const struct index_options *o,
                           const struct bytes *blob) {
  enum err first = ERR_NOT_FOUND;
  for (int i = 0; i < 2; i++) {
    struct place p;
    if (!(i == 0 ? place_beside(&p, m->at) : place_in_cache(&p, m->at, o->cache_fd))) {
      if (blob && (i == 0 || o->cache_fd >= 0))
        out->write_errno = errno;
      continue;
    }
    enum err e = blob ? write_place(&p, *blob) : map_place(out, m, &p, o->no_digest);
    if (blob)
      out->write_errno = e ? errno : 0;
    close(p.dir_fd);
    if (!e)
      return ERR_OK;
    if (first == ERR_NOT_FOUND)
      first = e;
  }
  return first;
}

static enum err build(struct index_file *out, struct media_source *m, const struct index_options *o, struct diag *diag) {
  struct bytes blob;
  enum err e = ERR_OK;
  memset(m->id.digest, 0, sizeof m->id.digest);
  if (!o->no_digest)
    let_tick_pass(m);
  alloc_heap_init(&out->heap, o->memory_limit ? o->memory_limit : default_memory);
  e = ix_build(&out->heap.base, &blob, &m->src, &m->id, diag);
  if (!e && !o->no_digest) { // after parsing: what cannot be used is refused before all of it is read
    e = media_digest(m, o->progress, diag);
    if (!e)
      ix_set_digest(blob, m->id.digest);
  }
  if (!e && !media_unchanged(m))
    e = diag_say(diag, ERR_STALE, "the source changed while it was read");
  e = e ? e : ix_open(&out->ix, blob, diag);
  if (e) {
    alloc_heap_free(&out->heap);
    return e;
  }
  out->origin = INDEX_BUILT;
  if (o->write && !o->no_digest && m->tells_changes) {
    enum err w = for_places(out, m, o, &blob);
    out->written = w == ERR_OK;
    if (w)
      out->sidecar_err = ERR_IO;
  }
  return ERR_OK;
}

enum err index_load(struct index_file *out, struct media_source *m, const struct index_options *o, struct diag *diag) {
  *out = (struct index_file){.sidecar_err = ERR_NOT_FOUND};
  if (!m->tells_changes) {
    out->sidecar_err = ERR_UNSUPPORTED;
  } else if (!o->rebuild) {
    out->sidecar_err = for_places(out, m, o, NULL);
    if (out->sidecar_err == ERR_OK)
      return ERR_OK;
  }
  return build(out, m, o, diag);
}

void index_free(struct index_file *f) {
  if (!f)
    return;
  if (f->map)
    munmap(f->map, f->map_len);
  alloc_heap_free(&f->heap);
  *f = (struct index_file){0};
}
