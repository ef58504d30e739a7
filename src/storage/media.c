// A file, or a folder of parts, as one source address space.
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "storage/sidecar.h"

enum {
  MAX_PARTS = 1 << 20,
  DIGEST_CHUNK = 1 << 18, // stays in L2 between the read and the hash
};

static const char init_name[] = "init.mp4";
const char media_lacks_init[] = "there are segments (*.m4s) in the folder, but no init.mp4";

int media_open_at(struct media_path at, int flags) {
  if (at.root_fd == AT_FDCWD)
    return openat(at.root_fd, at.path, flags | O_CLOEXEC);
  struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC), .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
  // With `..` in a link, a rename or mount anywhere on the machine at that moment makes the kernel unsure and answer
  // EAGAIN: openat2(2) leaves it to the caller to try again.
  enum { TRIES = 100 };
  long fd = -1;
  for (int i = 0; i < TRIES; i++) {
    fd = syscall(SYS_openat2, at.root_fd, at.path, &how, sizeof how);
    if (fd >= 0 || errno != EAGAIN)
      break;
  }
  return (int)fd;
}

static uint64_t nanoseconds(struct timespec t) { return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec; }

static uint64_t mtime_of(const struct stat *st) { return nanoseconds(st->st_mtim); }

uint64_t media_mark(const struct stat *st) {
  const uint64_t of[] = {nanoseconds(st->st_ctim), st->st_ino, st->st_dev};
  return XXH3_64bits(of, sizeof of);
}

// Whether ctime is when the inode was changed. File systems of images, FAT and what is behind FUSE make it up from mtime, which
// anybody sets; most of them in whole seconds, which would also be too coarse: two states in one second would look alike. So
// neither these nor whole seconds (one in 10^9 by chance) are relied on, also where an overlay hides what is below.
static bool tells_changes(int fd) {
  static const uint32_t made_up[] = {0xe0f5e1e2 /* EROFS */, 0x65735546 /* FUSE */, 0x2011bab0 /* exFAT */, 0x5346414f, 0x6b414653 /* AFS */};
  struct statfs fs;
  bool tells = !fstatfs(fd, &fs);
  for (size_t i = 0; tells && i < sizeof made_up / sizeof *made_up; i++)
    tells = (uint32_t)fs.f_type != made_up[i];
  return tells;
}

// Runs of digits compare as numbers, everything else byte by byte. init.mp4 comes before all. Names that are equal by that
// ("1.m4s", "01.m4s") compare as bytes: the order in which a file system lists them is not that of other nodes.
static int natural(const char *a, const char *b) {
  const char *whole_a = a, *whole_b = b;
  bool ia = !strcmp(a, init_name), ib = !strcmp(b, init_name);
  if (ia || ib)
    return ib - ia;
  while (*a && *b) {
    if (*a >= '0' && *a <= '9' && *b >= '0' && *b <= '9') {
      size_t za = strspn(a, "0"), zb = strspn(b, "0");
      size_t na = strspn(a + za, "0123456789"), nb = strspn(b + zb, "0123456789");
      int c = na != nb ? (na < nb ? -1 : 1) : memcmp(a + za, b + zb, na);
      if (c)
        return c;
      a += za + na;
      b += zb + nb;
    } else if (*a != *b) {
      return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
    } else {
      a++;
      b++;
    }
  }
  return *a ? 1 : *b ? -1 : strcmp(whole_a, whole_b);
}

static int by_name(const void *a, const void *b) { return natural(*(char *const *)a, *(char *const *)b); }

static bool has_extension(const char *name, const char *ext) {
  size_t n = strlen(name), e = strlen(ext);
  return n > e && !strcmp(name + n - e, ext);
}

bool media_is_track_name(const char *name) {
  return has_extension(name, ".mp4") || has_extension(name, ".m4a") || has_extension(name, ".cmfa");
}

// EXDEV and ELOOP: a link leads out of the root, so nothing is there for us.
static bool not_there(int why) {
  return why == ENOENT || why == ENOTDIR || why == EXDEV || why == ELOOP || why == ENAMETOOLONG;
}

static bool denied(int why) { return why == EACCES || why == EPERM; }

// Whether the open folder, which it closes, has segments.
static enum err has_parts(int fd) {
  DIR *d = fdopendir(fd);
  if (!d) {
    close(fd);
    return ERR_IO;
  }
  bool has = false;
  errno = 0;
  for (struct dirent *ent; !has && (ent = readdir(d));)
    has = ent->d_name[0] != '.' && has_extension(ent->d_name, ".m4s");
  enum err e = has ? ERR_OK : errno ? ERR_IO : ERR_NOT_FOUND;
  closedir(d);
  return e;
}

enum err media_track_folder(struct media_path at) {
  int dir = media_open_at(at, O_RDONLY | O_DIRECTORY);
  if (dir < 0)
    return not_there(errno) || denied(errno) ? ERR_NOT_FOUND : ERR_IO;
  struct stat st;
  enum err e = ERR_OK;
  if (fstatat(dir, init_name, &st, AT_SYMLINK_NOFOLLOW)) {
    if (errno == ENOENT) {
      e = has_parts(dir);
      return e == ERR_OK ? ERR_MISSING : e;
    }
    e = not_there(errno) || denied(errno) ? ERR_NOT_FOUND : ERR_IO;
  } else if (!S_ISREG(st.st_mode)) {
    e = ERR_NOT_FOUND;
  }
  close(dir);
  return e;
}

enum err media_has_parts(struct media_path at) {
  int fd = media_open_at(at, O_RDONLY | O_DIRECTORY);
  if (fd < 0)
    return not_there(errno) || denied(errno) ? ERR_NOT_FOUND : ERR_IO;
  return has_parts(fd);
}

static enum err add_name(struct media_source *m, const char *name, size_t *cap) {
  if (m->num_parts == MAX_PARTS)
    return ERR_LIMIT;
  if (m->num_parts == *cap) {
    size_t want = *cap ? *cap * 2 : 64;
    char **more = realloc(m->names, want * sizeof *more);
    if (!more)
      return ERR_NO_MEMORY;
    m->names = more;
    *cap = want;
  }
  char *copy = strdup(name);
  if (!copy)
    return ERR_NO_MEMORY;
  m->names[m->num_parts++] = copy;
  return ERR_OK;
}

static enum err list_parts(struct media_source *m, struct diag *diag) {
  int fd = dup(m->dir_fd);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  if (!d) {
    if (fd >= 0)
      close(fd);
    return diag_say(diag, ERR_IO, "cannot list the folder: %s", strerror(errno));
  }
  enum err e = ERR_OK;
  size_t cap = 0;
  errno = 0;
  for (struct dirent *ent; !e && (ent = readdir(d)); errno = 0)
    if (ent->d_name[0] != '.' && (!strcmp(ent->d_name, init_name) || has_extension(ent->d_name, ".m4s")))
      e = add_name(m, ent->d_name, &cap);
  int why = e ? 0 : errno; // a listing that broke off is not the end of the folder
  closedir(d);
  if (why)
    return diag_say(diag, ERR_IO, "cannot list the folder: %s", strerror(why));
  if (e)
    return diag_say(diag, e, e == ERR_LIMIT ? "more than %d parts in one folder" : NULL, MAX_PARTS);
  if (m->num_parts)
    qsort(m->names, m->num_parts, sizeof *m->names, by_name);
  if (!m->num_parts || strcmp(m->names[0], init_name))
    return diag_say(diag, ERR_MISSING, "the folder has no init.mp4");
  return ERR_OK;
}

// Takes a part's state into m->id and the stamp's hash.
static void add_state(struct media_source *m, uint32_t part, const struct stat *st, XXH3_state_t *hash) {
  const uint64_t of[] = {(uint64_t)st->st_size, mtime_of(st), nanoseconds(st->st_ctim), st->st_ino};
  m->part_ends[part] = m->id.size;
  m->part_mtimes_ns[part] = of[1];
  m->part_marks[part] = media_mark(st);
  if (of[1] > m->id.mtime_ns)
    m->id.mtime_ns = of[1];
  if (of[2] > m->newest_ctime_ns)
    m->newest_ctime_ns = of[2];
  m->tells_changes = m->tells_changes && st->st_ctim.tv_nsec;
  if (m->dir_fd >= 0)
    (void)XXH3_64bits_update(hash, m->names[part], strlen(m->names[part]) + 1);
  (void)XXH3_64bits_update(hash, of, sizeof of);
}

// Sizes and times of all parts become m->id and m->part_ends. The stamp is XXH3-64 over (name, 0, size, mtime, ctime, inode)
// of each part of a folder, and without the name of a file, which may have another. It has no device: nodes that share a
// volume number it differently.
static enum err measure(struct media_source *m, struct diag *diag) {
  m->part_ends = calloc(m->num_parts, sizeof *m->part_ends);
  m->part_mtimes_ns = calloc(m->num_parts, sizeof *m->part_mtimes_ns);
  m->part_marks = calloc(m->num_parts, sizeof *m->part_marks);
  m->tells_changes = tells_changes(m->dir_fd >= 0 ? m->dir_fd : m->fd);
  XXH3_state_t *hash = XXH3_createState();
  bool room = m->part_ends && m->part_mtimes_ns && m->part_marks && hash;
  enum err e = room ? ERR_OK : diag_say(diag, ERR_NO_MEMORY, NULL);
  if (!e)
    (void)XXH3_64bits_reset(hash);
  for (uint32_t i = 0; !e && i < m->num_parts; i++) {
    struct stat st;
    int bad = m->dir_fd < 0 ? fstat(m->fd, &st) : fstatat(m->dir_fd, m->names[i], &st, AT_SYMLINK_NOFOLLOW);
    if (bad)
      e = diag_set(diag, ERR_IO, m->id.size, "%s: %s", m->names[i], strerror(errno));
    else if (!S_ISREG(st.st_mode))
      e = diag_set(diag, ERR_UNSUPPORTED, m->id.size, "%s is not a regular file", m->names[i]);
    else if (__builtin_add_overflow(m->id.size, (uint64_t)st.st_size, &m->id.size))
      e = diag_say(diag, ERR_OVERFLOW, NULL);
    if (!e)
      add_state(m, i, &st, hash);
  }
  if (!e)
    m->id.stamp = XXH3_64bits_digest(hash);
  XXH3_freeState(hash);
  return e;
}

static enum err source_read(void *ctx, uint64_t off, void *buf, size_t n) {
  return media_read((struct media_source *)ctx, off, buf, n);
}

static const char no_file[] = "neither a regular file nor a folder";

// What opening failed for. ENXIO: a socket.
static enum err open_err(int why) {
  if (denied(why) || why == EXDEV) // a link out of the root: told, where a name that is not there is not
    return ERR_DENIED;
  return not_there(why) ? ERR_NOT_FOUND : why == ENXIO ? ERR_UNSUPPORTED : ERR_IO;
}

enum err media_open(struct media_source *m, struct media_path at, struct diag *diag) {
  *m = (struct media_source){.dir_fd = -1, .fd = -1, .at.root_fd = at.root_fd};
  char *path = strdup(at.path);
  if (!path)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  m->at.path = path;
  int fd = media_open_at(at, O_RDONLY | O_NONBLOCK);
  if (fd < 0)
    return diag_say(diag, open_err(errno), "%s", errno == EXDEV ? "a symbolic link leads out of the media folder, or is absolute"
                    : errno == ENXIO ? no_file : strerror(errno));
  struct stat st;
  enum err e = ERR_OK;
  if (fstat(fd, &st)) {
    e = diag_say(diag, ERR_IO, "%s", strerror(errno));
  } else if (S_ISDIR(st.st_mode)) {
    m->dir_fd = fd;
    e = list_parts(m, diag);
  } else if (S_ISREG(st.st_mode)) {
    size_t cap = 0;
    m->fd = fd;
    e = add_name(m, at.path, &cap);
    if (e)
      (void)diag_say(diag, e, NULL);
  } else {
    e = diag_say(diag, ERR_UNSUPPORTED, "%s", no_file);
  }
  if (m->dir_fd != fd && m->fd != fd)
    close(fd);
  if (!e)
    e = measure(m, diag);
  m->src = (struct mp4_source){.ctx = m, .read = source_read, .size = m->id.size};
  if (m->dir_fd >= 0) {
    m->src.part_ends = m->part_ends;
    m->src.num_parts = m->num_parts;
  }
  return e;
}

void media_close(struct media_source *m) {
  if (!m || !m->at.path)
    return;
  for (uint32_t i = 0; i < m->num_parts; i++)
    free(m->names[i]);
  free(m->names);
  free(m->part_ends);
  free(m->part_mtimes_ns);
  free(m->part_marks);
  if (m->fd >= 0)
    close(m->fd);
  if (m->dir_fd >= 0)
    close(m->dir_fd);
  free((char *)(uintptr_t)m->at.path);
  *m = (struct media_source){.dir_fd = -1, .fd = -1};
}

uint32_t media_part_at(const uint64_t *part_ends, uint32_t num_parts, uint64_t off) {
  uint32_t lo = 0, hi = num_parts - 1;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (part_ends[mid] <= off)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

const char *media_fault_part(const struct media_source *m, struct diag *diag) {
  if (m->num_parts < 2 || !diag->err || diag->nowhere)
    return NULL;
  uint32_t part = media_part_at(m->part_ends, m->num_parts, diag->at);
  diag->at -= part ? m->part_ends[part - 1] : 0;
  return m->names[part];
}

static enum err use_part(struct media_source *m, uint32_t part) {
  if (m->fd >= 0 && m->fd_part == part)
    return ERR_OK;
  int fd = media_open_at((struct media_path){m->dir_fd, m->names[part]}, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0)
    return denied(errno) ? ERR_DENIED : ERR_IO;
  if (m->fd >= 0)
    close(m->fd);
  m->fd = fd;
  m->fd_part = part;
  return ERR_OK;
}

enum err media_read(struct media_source *m, uint64_t off, void *buf, size_t n) {
  uint8_t *out = buf;
  if (off > m->id.size || n > m->id.size - off)
    return ERR_TRUNCATED;
  while (n) {
    uint32_t part = media_part_at(m->part_ends, m->num_parts, off);
    uint64_t start = part ? m->part_ends[part - 1] : 0, left = m->part_ends[part] - off;
    size_t want = n < left ? n : (size_t)left;
    enum err e = use_part(m, part);
    if (e)
      return e;
    ssize_t got = pread(m->fd, out, want, (off_t)(off - start));
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return ERR_IO;
    if (got == 0)
      return ERR_TRUNCATED;
    out += got;
    off += (uint64_t)got;
    n -= (size_t)got;
  }
  return ERR_OK;
}

bool media_unchanged(const struct media_source *m) {
  for (uint32_t i = 0; i < m->num_parts; i++) {
    struct stat st;
    uint64_t size = m->part_ends[i] - (i ? m->part_ends[i - 1] : 0);
    if (m->dir_fd < 0 ? fstat(m->fd, &st) : fstatat(m->dir_fd, m->names[i], &st, AT_SYMLINK_NOFOLLOW))
      return false;
    if ((uint64_t)st.st_size != size || mtime_of(&st) != m->part_mtimes_ns[i] || media_mark(&st) != m->part_marks[i])
      return false;
  }
  return true;
}

enum err media_digest(struct media_source *m, struct media_progress progress, struct diag *diag) {
  uint8_t *buf = malloc(DIGEST_CHUNK);
  if (!buf)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  SHA256_CTX sha;
  SHA256_Init(&sha);
  enum err e = ERR_OK;
  for (uint64_t off = 0; off < m->id.size && !e;) {
    size_t n = m->id.size - off < DIGEST_CHUNK ? (size_t)(m->id.size - off) : DIGEST_CHUNK;
    e = media_read(m, off, buf, n);
    if (e) {
      (void)diag_set(diag, e, off, "reading the source failed: %s", e == ERR_IO ? strerror(errno) : err_text(e));
      break;
    }
    SHA256_Update(&sha, buf, n);
    off += n;
    if (progress.step)
      progress.step(progress.ctx, off, m->id.size);
  }
  free(buf);
  if (!e)
    SHA256_Final(m->id.digest, &sha);
  return e;
}
