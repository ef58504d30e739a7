// The rotation journal: lines of keys/epochs.h in one append-only file. A rotation counts when its line is synced; a torn last
// line is cut off at start. Compaction writes a new file beside it and renames it over. The folder is locked from the start.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "obs/log.h"
#include "obs/told.h"
#include "server/keyring.h"
#include "server/secret_file.h"

enum { JOURNAL_MAX = 256 << 20, COMPACT_LINES = 1024, RULES_MEMORY = 1 << 30 };

struct epoch_store {
  pthread_mutex_t journal; // held by who changes the file, and the rules: over every wait for the disk
  pthread_rwlock_t lock;   // of the rules, within it: never held over one, since workers read them
  struct alloc_heap mem;
  struct epochs *rules;
  uint32_t base;
  char *path, *dir;
  int fd;            // -1: no rotation yet, nothing written
  int dir_fd;        // the folder, locked
  uint64_t len;      // bytes that are whole
  uint64_t lines;    // since the last compaction
  bool broken;       // an append failed in a way that leaves the file's end unknown
};

// One server for each state folder: two journals in one file would undo each other's rotations. The lock is on the folder
// itself, so it leaves no file behind and ends with the process, however that ends. A folder that is not there is made:
// later, the sandbox may not let it be, and two servers that wait for a first rotation could not tell of each other.
static bool take_dir(struct epoch_store *s, struct config_error *error) {
  if (!folder_make(s->dir))
    return config_fail(error, "%s: cannot make the state folder: %s (state_dir names another)", TOLD(s->dir), strerror(errno));
  int fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return config_fail(error, "%s: cannot open the state folder: %s (state_dir names another)", TOLD(s->dir), strerror(errno));
  if (flock(fd, LOCK_EX | LOCK_NB)) {
    if (errno == EWOULDBLOCK) {
      close(fd);
      return config_fail(error, "%s: another server uses this state folder: stop it, or give each a state_dir of its own", s->dir);
    }
    log_line(LOG_WARN, "%s: the state folder cannot be locked (%s): see to it that one server alone uses it", s->dir, strerror(errno));
  }
  s->dir_fd = fd;
  return true;
}

// Whether the last line, whose checksum does not fit, is a write that a crash cut short: from some point to the end its bytes are not
// there, or, where the file had grown already, are zeros, so that no line feed ends it; or, of one that lies in several of the disk's
// sectors, all that is in one of them is zeros, some bytes at the least. Any other counts as acknowledged, and something has changed it, be
// it to zeros. More than a line may have (ERR_LIMIT) is no single write's: rotations that counted may lie under the zeros.
static bool is_torn(struct bytes text, size_t at) {
  enum { SECTOR = 512, SOME = 8 };
  bool torn = text.p[text.n - 1] != '\n';
  for (size_t end; at < text.n && !torn; at = end) {
    end = (at / SECTOR + 1) * SECTOR;
    end = end < text.n ? end : text.n;
    torn = end - at >= SOME && text.p[at] == 0 && !memcmp(text.p + at, text.p + at + 1, end - at - 1);
  }
  return torn;
}

// Applies the lines of a journal. *whole is where the last good line ends, which may lack its line feed. Only the very last line
// may be torn.
static enum err replay(struct epoch_store *s, struct bytes text, uint64_t *whole, unsigned *line, struct diag *diag) {
  *whole = 0;
  *line = 0;
  for (size_t at = 0; at < text.n;) {
    const uint8_t *end = memchr(text.p + at, '\n', text.n - at);
    size_t n = end ? (size_t)(end - (text.p + at)) + 1 : text.n - at;
    ++*line;
    struct diag d = {0};
    enum err e = epochs_read_line(s->rules, bytes_of(text.p + at, n), &d);
    if (e == ERR_CHECKSUM && at + n == text.n && is_torn(text, at))
      return ERR_OK; // was never acknowledged
    if (e) {
      *diag = d;
      return e;
    }
    s->lines++;
    at += n;
    *whole = at;
  }
  return ERR_OK;
}

static bool write_all(int fd, struct bytes b, uint64_t at) {
  for (ssize_t n; b.n; b.p += n, b.n -= (size_t)n, at += (uint64_t)n)
    if ((n = pwrite(fd, b.p, b.n, (off_t)at)) <= 0)
      return false;
  return true;
}

// Reads the journal behind `fd` into the rules. *unended: its last line lacks the line feed; *torn: bytes of a line behind it.
static bool read_journal(struct epoch_store *s, int fd, bool *unended, size_t *torn, struct config_error *error) {
  struct stat st;
  struct diag diag = {0};
  unsigned line = 0;
  bool known = !fstat(fd, &st);
  if (known && !S_ISREG(st.st_mode))
    return config_fail(error, "%s: not a rotation journal (no regular file)", s->path);
  if (!known || st.st_size > JOURNAL_MAX)
    return config_fail(error, "%s: not a rotation journal (too large or unreadable)", s->path);
  size_t n = 0, size = (size_t)st.st_size;
  uint8_t *text = malloc(size + 1);
  if (!text)
    return config_fail(error, "out of memory");
  ssize_t got = 1;
  while (n < size && (got = pread(fd, text + n, size - n, (off_t)n)) > 0)
    n += (size_t)got;
  if (got < 0) { // what is behind is no torn line
    int why = errno;
    free(text);
    return config_fail(error, "%s: cannot be read: %s", s->path, strerror(why));
  }
  enum err e = replay(s, bytes_of(text, n), &s->len, &line, &diag);
  *unended = !e && s->len && text[s->len - 1] != '\n';
  *torn = n - s->len;
  free(text);
  if (!e)
    return true;
  char why[256];
  diag_format(&diag, why, sizeof why);
  return config_fail(error, "%s:%u: the rotation journal is damaged: %s; restore it or move it away", s->path, line, why);
}

static bool load(struct epoch_store *s, struct config_error *error) {
  bool unended;
  size_t torn;
  int fd = open(s->path, O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return errno == ENOENT || config_fail(error, "%s: %s", s->path, strerror(errno));
  s->fd = fd;
  if (!read_journal(s, fd, &unended, &torn, error))
    return false;
  if (torn)
    log_line(LOG_WARN, "%s: cut off a torn last line (%zu bytes)", s->path, torn);
  // Who wrote it may have been killed before it was synced, line or name: what is in force from now on must outlive a power cut.
  if ((torn && ftruncate(fd, (off_t)s->len)) || (unended && !write_all(fd, BYTES_LIT("\n"), s->len)) || fsync(fd) || !folder_sync(s->dir))
    return config_fail(error, "%s: %s", s->path, strerror(errno));
  s->len += unended;
  return true;
}

static struct epoch_store *new_store(const char *state_dir, uint32_t base, struct config_error *error) {
  struct epoch_store *s = calloc(1, sizeof *s);
  if (!s) {
    config_fail(error, "out of memory");
    return NULL;
  }
  s->fd = s->dir_fd = -1;
  pthread_mutex_init(&s->journal, NULL);
  pthread_rwlock_init(&s->lock, NULL);
  alloc_heap_init(&s->mem, RULES_MEMORY);
  s->rules = epochs_new(&s->mem.base, base);
  s->base = base;
  s->dir = strdup(state_dir);
  if (s->rules && s->dir && asprintf(&s->path, "%s/" STATE_JOURNAL, state_dir) >= 0)
    return s;
  config_fail(error, "out of memory");
  epoch_store_close(s);
  return NULL;
}

struct epoch_store *epoch_store_open(const char *state_dir, uint32_t base, struct config_error *error) {
  struct epoch_store *s = new_store(state_dir, base, error);
  if (s && take_dir(s, error) && load(s, error))
    return s;
  epoch_store_close(s);
  return NULL;
}

// A running server may write meanwhile: a line that is not there whole yet passes for a torn one.
bool epoch_store_check(const char *state_dir, uint32_t base, struct config_error *error) {
  bool unended;
  size_t torn;
  struct epoch_store *s = new_store(state_dir, base, error);
  if (!s)
    return false;
  s->fd = open(s->path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  bool ok = s->fd >= 0 ? read_journal(s, s->fd, &unended, &torn, error) : errno == ENOENT || config_fail(error, "%s: %s", s->path, strerror(errno));
  epoch_store_close(s);
  return ok;
}

void epoch_store_close(struct epoch_store *s) {
  if (!s)
    return;
  if (s->fd >= 0)
    close(s->fd);
  if (s->dir_fd >= 0)
    close(s->dir_fd);
  pthread_rwlock_destroy(&s->lock);
  pthread_mutex_destroy(&s->journal);
  alloc_heap_free(&s->mem);
  free(s->path);
  free(s->dir);
  free(s);
}

uint32_t epoch_store_base(const struct epoch_store *s) { return s->base; }

uint32_t epoch_store_current(struct epoch_store *s, struct bytes asset) {
  pthread_rwlock_rdlock(&s->lock);
  uint32_t epoch = epochs_current(s->rules, asset);
  pthread_rwlock_unlock(&s->lock);
  return epoch;
}

enum epoch_status epoch_store_status(struct epoch_store *s, struct bytes asset, uint32_t epoch, uint64_t now_ms,
                                     uint64_t *until_ms) {
  pthread_rwlock_rdlock(&s->lock);
  enum epoch_status status = epochs_status(s->rules, asset, epoch, now_ms, until_ms);
  pthread_rwlock_unlock(&s->lock);
  return status;
}

void epoch_store_walk(struct epoch_store *s, void (*each)(void *ctx, struct bytes scope, uint64_t rotations), void *ctx) {
  pthread_rwlock_rdlock(&s->lock);
  epochs_walk(s->rules, each, ctx);
  pthread_rwlock_unlock(&s->lock);
}

// An empty journal.
static enum err begin_journal(struct epoch_store *s, struct diag *diag) {
  int fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || !folder_sync(s->dir)) {
    enum err e = diag_say(diag, ERR_IO, "%s: %s", s->path, strerror(errno));
    if (fd >= 0)
      close(fd);
    return e;
  }
  s->fd = fd;
  return ERR_OK;
}

// Takes back what was appended behind `len`: it has not been.
static void cut_back(struct epoch_store *s, uint64_t len) {
  s->len = len;
  s->broken = ftruncate(s->fd, (off_t)len) || fsync(s->fd);
}

static enum err append(struct epoch_store *s, struct bytes line, struct diag *diag) {
  if (s->broken) { // the disk may be there again
    cut_back(s, s->len);
    s->broken = s->broken || !folder_sync(s->dir);
  }
  if (s->broken)
    return diag_say(diag, ERR_IO, STATE_JOURNAL " could not be written before: %s; what was begun then may be in force after a restart", strerror(errno));
  enum err begun = s->fd < 0 ? begin_journal(s, diag) : ERR_OK;
  if (begun)
    return begun;
  if (!write_all(s->fd, line, s->len) || fdatasync(s->fd)) {
    int why = errno;
    cut_back(s, s->len);
    return s->broken ? diag_say(diag, ERR_IO, STATE_JOURNAL ": %s; it cannot be taken back now, and may be in force after a restart", strerror(why))
                     : diag_say(diag, ERR_IO, "%s: %s", s->path, strerror(why));
  }
  s->len += line.n;
  s->lines++;
  return ERR_OK;
}

// The last line, of `n` bytes, which could not be applied.
static enum err take_back(struct epoch_store *s, size_t n, enum err why, struct diag *diag) {
  cut_back(s, s->len - n);
  return s->broken ? diag_say(diag, why, STATE_JOURNAL ": %s; it cannot be taken back now, and may be in force after a restart", err_text(why)) : why;
}

// Failing to compact costs space, nothing else: the old file stays.
static void compact(struct epoch_store *s, uint64_t now_ms) {
  char *fresh = NULL;
  struct alloc_heap tmp;
  struct writer w = wr_of(NULL, 0);
  alloc_heap_init(&tmp, RULES_MEMORY);
  enum err e = epochs_write_all(&w, s->rules, now_ms, &tmp.base);
  size_t n = w.n;
  uint8_t *text = e ? NULL : malloc(n + 1);
  int fd = -1;
  s->lines = 0;
  errno = ENOMEM;
  if (text && asprintf(&fresh, "%s.new", s->path) >= 0) {
    w = wr_of(text, n);
    e = epochs_write_all(&w, s->rules, now_ms, &tmp.base);
    fd = e ? -1 : open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  }
  if (fd >= 0 && w.n == n && write_all(fd, bytes_of(text, n), 0) && !fsync(fd) && !rename(fresh, s->path)) {
    s->broken = !folder_sync(s->dir); // else a power cut may bring the old file back, without what is appended to the new one
    close(s->fd);
    s->fd = fd;
    s->len = n;
    fd = -1;
  } else {
    log_line(LOG_WARN, "%s: compacting failed: %s", s->path, strerror(errno));
    if (fd >= 0)
      (void)unlink(fresh);
  }
  if (fd >= 0)
    close(fd);
  free(text);
  free(fresh);
  alloc_heap_free(&tmp);
}

static enum err rotate(struct epoch_store *s, struct epoch_event ev, struct diag *diag) {
  uint8_t line[EPOCH_MAX_LINE];
  pthread_mutex_lock(&s->journal);
  ev.seq = epochs_next_seq(s->rules);
  enum err e = epochs_check(s->rules, &ev, diag);
  struct writer w = wr_of(line, sizeof line);
  if (!e) {
    epochs_write_event(&w, &ev);
    e = wr_ok(&w) ? append(s, bytes_of(line, w.n), diag) : diag_say(diag, ERR_LIMIT, "the scope is too long");
  }
  if (!e) {
    pthread_rwlock_wrlock(&s->lock);
    e = epochs_apply(s->rules, &ev, diag);
    pthread_rwlock_unlock(&s->lock);
    if (e) // only for want of memory; its number is the next one's
      e = take_back(s, w.n, e, diag);
  }
  if (!e && s->lines >= COMPACT_LINES)
    compact(s, ev.time_ms);
  pthread_mutex_unlock(&s->journal);
  return e;
}

enum err epoch_store_rotate(struct epoch_store *s, struct bytes scope, uint64_t grace_ms, bool revoke, uint64_t now_ms,
                            struct diag *diag) {
  return rotate(s, (struct epoch_event){.time_ms = now_ms, .grace_ms = grace_ms, .scope = scope, .revoke = revoke}, diag);
}

enum err epoch_store_rotate_slot(struct epoch_store *s, struct bytes scope, uint64_t grace_ms, uint64_t slot_ms,
                                 uint64_t now_ms, struct diag *diag) {
  return rotate(s, (struct epoch_event){.time_ms = now_ms, .grace_ms = grace_ms, .scope = scope, .slot_ms = slot_ms}, diag);
}

enum err epoch_store_set_slot(struct epoch_store *s, struct bytes scope, uint64_t slot_ms, struct diag *diag) {
  uint8_t line[EPOCH_MAX_LINE];
  struct writer w = wr_of(line, sizeof line);
  epochs_write_slot(&w, scope, slot_ms);
  if (!wr_ok(&w))
    return diag_say(diag, ERR_LIMIT, "the scope is too long");
  pthread_mutex_lock(&s->journal);
  enum err e = append(s, bytes_of(line, w.n), diag);
  if (!e) {
    pthread_rwlock_wrlock(&s->lock);
    e = epochs_set_slot(s->rules, scope, slot_ms, diag);
    pthread_rwlock_unlock(&s->lock);
    if (e)
      e = take_back(s, w.n, e, diag);
  }
  pthread_mutex_unlock(&s->journal);
  return e;
}

uint64_t epoch_store_slot(struct epoch_store *s, struct bytes scope) {
  pthread_rwlock_rdlock(&s->lock);
  uint64_t slot = epochs_slot(s->rules, scope);
  pthread_rwlock_unlock(&s->lock);
  return slot;
}
