// A media file or folder, the sidecar beside it, and what happens to the two: whether the sidecar is used then. The one that
// was written for this state of the file is. One that is damaged, or another file's, or a link, or of a file that has changed
// is not: the index is what it is without a sidecar. One forged for this very state is believed, and leads to nothing outside
// of the file. No other name is left in the folder. Choosing is internal to src/storage/sidecar.c, which is part of this file.
// Source: storage/sidecar.h.
// The last 8 bytes of the input choose: 0 what happens, 1 bit 0 a folder of parts, 2 and 3 where, 4 how, 5 to 7 where and how
// else.
#include <dirent.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// Times are waited for where they matter, in touch(); and no power cut is to come.
static int nothing(void) { return 0; }
#define nanosleep(t, rest) nothing()
#define fsync(fd) nothing()
#include "storage/sidecar.c" // NOLINT(bugprone-suspicious-include)
#undef nanosleep
#undef fsync

#include "fuzz.h"
#include "rewrite.h"

enum { TAIL = 8 };
const struct fuzz_boxes fuzz_boxes = {0, TAIL};

enum { NOTHING, BYTE, CUT, LONGER, LINK, FOLDER, OTHERS, CHANGED, REPLACED, FORGED, OTHERS_FORGED, GIVEN, NUM_HAPPENINGS };

static char dir[] = "/tmp/sluice-beside-XXXXXX";
static int dir_fd = -1;

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
  (void)st, (void)kind;
  return at->level && remove(path);
}

static void empty_dir(void) { MUST(!nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS)); }

static void remove_dir(void) {
  empty_dir();
  rmdir(dir);
}

static void put(const char *name, struct bytes b) {
  int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  MUST(fd >= 0 && !write_all(fd, b));
  close(fd);
}

static struct bytes get(const char *name) {
  struct stat st;
  int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
  MUST(fd >= 0 && !fstat(fd, &st));
  uint8_t *p = malloc((size_t)st.st_size + 1);
  MUST(p && read(fd, p, (size_t)st.st_size) == st.st_size);
  close(fd);
  return bytes_of(p, (size_t)st.st_size);
}

static void put_media(const char *name, struct bytes file, bool folder) {
  uint64_t ends[FOLDER_PARTS] = {file.n}, from = 0;
  uint32_t num = folder ? folder_parts(ends, file) : 1;
  if (folder)
    MUST(!mkdirat(dir_fd, name, 0700));
  for (uint32_t i = 0; i < num; from = ends[i++]) {
    char part[64];
    snprintf(part, sizeof part, !folder ? "%s" : i ? "%s/%u.m4s" : "%s/init.mp4", name, i);
    put(part, bytes_of(file.p + from, ends[i] - from));
  }
}

struct loaded {
  struct media_source m;
  struct index_file f;
  enum err err;
};

static void load(struct loaded *l, const char *name, bool rebuild) {
  struct index_options o = {.cache_fd = -1, .write = !rebuild, .rebuild = rebuild, .memory_limit = 64 << 20};
  struct diag d = {0};
  MUST(!media_open(&l->m, (struct media_path){dir_fd, name}, &d));
  l->err = index_load(&l->f, &l->m, &o, &d);
}

static void drop(struct loaded *l) {
  index_free(&l->f);
  media_close(&l->m);
}

static struct bytes blob_of(const struct loaded *l) { return bytes_of(l->f.ix.h, (size_t)l->f.ix.h->blob_len); }

static void repair(struct bytes blob, const struct ix_identity *id) {
  struct ix_header *h = (struct ix_header *)(uintptr_t)blob.p;
  if (blob.n < sizeof *h)
    return;
  memcpy(h->magic, "sluice\0\1", 8);
  h->version = IX_VERSION;
  h->blob_len = blob.n;
  if (id)
    h->identity = *id;
  h->checksum = ix_checksum(blob);
}

// A file gets a state of its own though its mtime is as before: time goes by.
static void touch(const char *name, const struct stat *was) {
  struct stat now;
  do
    MUST(!utimensat(dir_fd, name, (struct timespec[2]){was->st_atim, was->st_mtim}, 0) &&
         !fstatat(dir_fd, name, &now, 0));
  while (!memcmp(&now.st_ctim, &was->st_ctim, sizeof now.st_ctim));
}

// The sidecar of a file that differs in one byte, with another's identity where one is given; none where that file has none.
static void take_others(struct bytes file, size_t at, uint8_t how, const struct ix_identity *forged) {
  uint8_t *copy = malloc(file.n);
  struct bytes sidecar = {0};
  struct loaded l;
  MUST(copy);
  memcpy(copy, file.p, file.n);
  copy[at] ^= how;
  put_media("b", bytes_of(copy, file.n), false);
  load(&l, "b", false);
  if (l.f.written) {
    sidecar = get("b.slx");
    if (forged)
      repair(sidecar, forged);
    put("a.slx", sidecar);
  } else {
    MUST(!unlinkat(dir_fd, "a.slx", 0));
  }
  drop(&l);
  free(copy);
  free((void *)(uintptr_t)sidecar.p);
}

// Does it. True: the sidecar is still whole and for this state of the file, as far as anybody could tell.
static bool happen(struct bytes file, const struct ix_identity *id, const uint8_t tail[TAIL], const char *part) {
  struct bytes blob = get("a.slx"), other = {0};
  uint8_t *p = (uint8_t *)(uintptr_t)blob.p, how = tail[4] ? tail[4] : 1;
  size_t at = load_be16(tail + 2) % blob.n, in_file = load_be16(tail + 2) % file.n;
  struct stat st;
  bool good = false;
  MUST(!fstatat(dir_fd, part, &st, 0));
  switch (tail[0] % NUM_HAPPENINGS) {
  case NOTHING:
    good = true;
    break;
  case BYTE:
    p[at] ^= how;
    put("a.slx", blob);
    break;
  case CUT:
    put("a.slx", bytes_of(blob.p, at));
    break;
  case LONGER:
    p[blob.n++] = how; // get() has room for it
    put("a.slx", blob);
    break;
  case LINK:
    MUST(!renameat(dir_fd, "a.slx", dir_fd, "c") && !symlinkat("c", dir_fd, "a.slx"));
    break;
  case FOLDER:
    MUST(!unlinkat(dir_fd, "a.slx", 0) && !mkdirat(dir_fd, "a.slx", 0700));
    break;
  case OTHERS:
    take_others(file, in_file, how, NULL);
    break;
  case OTHERS_FORGED:
    take_others(file, in_file, how, id);
    good = true;
    break;
  case CHANGED: {
    int fd = openat(dir_fd, part, O_WRONLY | O_CLOEXEC);
    off_t pos = load_be16(tail + 2) % st.st_size; // init.mp4 has the file's beginning
    uint8_t byte = file.p[pos] ^ how;
    MUST(fd >= 0 && pwrite(fd, &byte, 1, pos) == 1);
    close(fd);
    touch(part, &st);
    break;
  }
  case REPLACED:
    other = get(part);
    put("c", other);
    MUST(!utimensat(dir_fd, "c", (struct timespec[2]){st.st_atim, st.st_mtim}, 0));
    MUST(!renameat(dir_fd, "c", dir_fd, part));
    break;
  case FORGED:
    p[at] ^= how;
    p[load_be16(tail + 5) % blob.n] ^= tail[7];
    repair(blob, NULL);
    put("a.slx", blob);
    good = true;
    break;
  default: // GIVEN: the end of the file's own bytes
    other = bytes_of(malloc(file.n), file.n - in_file);
    MUST(other.p);
    memcpy((void *)(uintptr_t)other.p, file.p + in_file, other.n);
    repair(other, how & 1 ? id : NULL);
    put("a.slx", other);
    good = how & 1;
  }
  free(p);
  free((void *)(uintptr_t)other.p);
  return good;
}

static void check_names(void) {
  DIR *d = opendir(dir);
  MUST(d);
  for (const struct dirent *e; (e = readdir(d));) {
    const char *name = e->d_name;
    bool ours = strchr("abc", name[0]) && (!name[1] || !strcmp(name + 1, ".slx"));
    MUST(ours || !strcmp(name, ".") || !strcmp(name, ".."));
  }
  closedir(d);
}

static void check_used(const struct loaded *l, struct bytes file) {
  const struct track_index *ix = &l->f.ix;
  MUST(ix_identity_is(ix, &l->m.id) && ix->init.n <= file.n && !memcmp(ix->init.p, file.p, ix->init.n));
  free((void *)(uintptr_t)rewrite(ix, file, NULL).p);
}

static void check(struct bytes file, const uint8_t tail[TAIL]) {
  struct loaded first, then, without;
  bool folder = tail[1] & 1, plain = tail[0] % NUM_HAPPENINGS == NOTHING;
  put_media("a", file, folder);
  load(&first, "a", false);
  if (!first.m.tells_changes || !first.f.written) {
    MUST(first.err || !first.m.tells_changes);
    drop(&first);
    return;
  }
  MUST(!first.err && first.f.origin == INDEX_BUILT && first.f.sidecar_err == ERR_NOT_FOUND);
  bool good = happen(file, &first.f.ix.h->identity, tail, folder ? "a/init.mp4" : "a");
  load(&without, "a", true);
  load(&then, "a", false);
  if (!then.err && then.f.origin == INDEX_SIDECAR) {
    MUST(good);
    check_used(&then, file);
  } else {
    MUST(then.err == without.err && !plain);
    MUST(then.err || bytes_eq(blob_of(&then), blob_of(&without)));
  }
  MUST(!plain || bytes_eq(blob_of(&then), blob_of(&first)));
  check_names();
  drop(&first);
  drop(&then);
  drop(&without);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size <= TAIL)
    return 0;
  if (dir_fd < 0) {
    MUST(mkdtemp(dir) && (dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    atexit(remove_dir);
  }
  check(bytes_of(data, size - TAIL), data + size - TAIL);
  empty_dir();
  return 0;
}
