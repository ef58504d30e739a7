// The names in an asset's folder, and which of them are tracks, without opening any.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/catalog_build.h"

enum err is_track_itself(struct catalog *c, struct bytes asset, struct bytes track) {
  char path[PATH_BYTES];
  if (!bytes_eq(track, BYTES_LIT("init")))
    return ERR_NOT_FOUND;
  int n = snprintf(path, sizeof path, "%.*s", (int)asset.n, (const char *)asset.p);
  return n < 0 || (size_t)n >= sizeof path ? ERR_NOT_FOUND : media_has_parts((struct media_path){c->root_fd, path});
}

enum { MAX_FOLDER = 1 << 16 };

static bool keep_name(struct names *l, const char *name) {
  if (l->num == l->cap) {
    size_t cap = l->cap ? l->cap * 2 : 64;
    char **more = realloc(l->at, cap * sizeof *l->at);
    if (!more)
      return false;
    l->at = more;
    l->cap = cap;
  }
  l->at[l->num] = strdup(name);
  return l->at[l->num] && ++l->num;
}

size_t track_name_len(const char *name) {
  return media_is_track_name(name) ? (size_t)(strrchr(name, '.') - name) : strlen(name);
}

static enum err unlisted(struct diag *diag, enum err e, int why) { return diag_say(diag, e, "the folder cannot be listed: %s", strerror(why)); }

// The names in a folder, which it closes, that may be tracks and that a URL can have.
static enum err list_names(struct names *l, int fd, struct diag *diag) {
  DIR *d = fdopendir(fd);
  if (!d) {
    int why = errno;
    close(fd);
    return unlisted(diag, ERR_IO, why);
  }
  enum err e = ERR_OK;
  errno = 0;
  for (struct dirent *ent; !e && l->num < MAX_FOLDER && (ent = readdir(d)); errno = 0)
    if (route_names(bytes_of(ent->d_name, track_name_len(ent->d_name))) && (media_is_track_name(ent->d_name) || ent->d_type != DT_REG) &&
        !keep_name(l, ent->d_name))
      e = ERR_NO_MEMORY;
  if (!e && errno) // a listing that broke off is not the end of the folder
    e = unlisted(diag, ERR_IO, errno);
  closedir(d);
  return e;
}

void free_names(struct names *l) {
  for (size_t i = 0; i < l->num; i++)
    free(l->at[i]);
  free(l->at);
}

enum err list_asset(struct names *l, struct catalog *c, struct bytes asset, struct diag *diag) {
  char path[PATH_BYTES];
  int n = snprintf(path, sizeof path, "%.*s", (int)asset.n, (const char *)asset.p);
  if (n < 0 || (size_t)n >= sizeof path)
    return ERR_NOT_FOUND;
  int fd = media_open_at((struct media_path){c->root_fd, path}, O_RDONLY | O_DIRECTORY);
  if (fd >= 0)
    return list_names(l, fd, diag);
  if (errno == ENOENT || errno == ENOTDIR || errno == EXDEV || errno == ELOOP || errno == ENAMETOOLONG)
    return ERR_NOT_FOUND;
  return unlisted(diag, errno == EACCES || errno == EPERM ? ERR_DENIED : ERR_IO, errno);
}

// Whether a name in an asset's folder is there, as a file or a folder that open_track would take.
static enum err name_is_track(struct catalog *c, struct bytes asset, const char *name) {
  char path[PATH_BYTES];
  struct stat st;
  enum err itself = is_track_itself(c, asset, bytes_of(name, track_name_len(name)));
  if (itself != ERR_NOT_FOUND)
    return itself == ERR_OK ? ERR_NOT_FOUND : itself;
  int n = snprintf(path, sizeof path, "%.*s/%s", (int)asset.n, (const char *)asset.p, name);
  if (n < 0 || (size_t)n >= sizeof path)
    return ERR_NOT_FOUND;
  struct media_path at = {c->root_fd, path};
  int fd = media_is_track_name(name) ? media_open_at(at, O_PATH) : -1;
  bool file = fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode);
  if (fd >= 0)
    close(fd);
  enum err e = file ? ERR_OK : media_track_folder(at);
  return e == ERR_MISSING ? ERR_NOT_FOUND : e;
}

enum err catalog_find_asset(struct catalog *c, struct bytes asset) {
  char path[ROUTE_PATH_MAX + 32];
  struct names names = {0};
  struct route r;
  int n = snprintf(path, sizeof path, "/%.*s/cbcs/master.m3u8", (int)asset.n, (const char *)asset.p);
  route_parse(&r, bytes_of(path, n > 0 && (size_t)n < sizeof path ? (size_t)n : 0));
  if (r.kind != ROUTE_MASTER || !bytes_eq(r.asset, asset)) // no URL could name it
    return ERR_NOT_FOUND;
  enum err e = list_asset(&names, c, asset, NULL);
  bool found = false;
  for (size_t i = 0; i < names.num && !e && !found; i++) {
    e = name_is_track(c, asset, names.at[i]);
    found = e == ERR_OK;
    e = e == ERR_NOT_FOUND ? ERR_OK : e;
  }
  free_names(&names);
  return e ? e : found ? ERR_OK : ERR_NOT_FOUND;
}

enum err catalog_find_below(struct catalog *c, struct bytes prefix) {
  struct names names = {0};
  struct bytes folder = bytes_of(prefix.p, prefix.n - 1);
  enum err e = list_asset(&names, c, folder, NULL);
  bool found = false;
  for (size_t i = 0; i < names.num && !e && !found; i++) {
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof path, "%.*s/%s", (int)folder.n, (const char *)folder.p, names.at[i]);
    struct media_path at = {c->root_fd, path};
    int fd = n > 0 && (size_t)n < sizeof path ? media_open_at(at, O_PATH | O_DIRECTORY) : -1;
    enum err e_at = fd >= 0 ? media_track_folder(at) : ERR_IO;
    found = e_at == ERR_NOT_FOUND || e_at == ERR_MISSING;
    if (fd >= 0)
      close(fd);
  }
  free_names(&names);
  return e ? e : found ? ERR_OK : ERR_NOT_FOUND;
}

enum err catalog_find(struct catalog *c, struct bytes scope) {
  struct search *s = &c->search;
  uint64_t end = clock_mono_ms() + FIND_MS;
  struct timespec until = {(time_t)(end / 1000), (long)(end % 1000 * 1000000)};
  pthread_mutex_lock(&s->lock);
  bool mine = !s->under_way && scope.n <= sizeof s->scope;
  if (mine) {
    memcpy(s->scope, scope.p, scope.n);
    s->scope_len = scope.n;
    s->under_way = catalog_push(c, JOB_FIND, NULL, (struct bytes){0}, &(struct job){0});
    mine = s->under_way;
  }
  while (mine && s->under_way && !pthread_cond_timedwait(&s->done, &s->lock, &until))
    continue;
  enum err e = mine && !s->under_way ? s->result : ERR_IO;
  pthread_mutex_unlock(&s->lock);
  return e;
}

void do_find(struct catalog *c) {
  struct search *s = &c->search;
  pthread_mutex_lock(&s->lock); // what is set before the job
  struct bytes scope = bytes_of(s->scope, s->scope_len);
  pthread_mutex_unlock(&s->lock);
  enum err e = scope.p[scope.n - 1] == '/' ? catalog_find_below(c, scope) : catalog_find_asset(c, scope);
  pthread_mutex_lock(&s->lock);
  s->result = e;
  s->under_way = false;
  pthread_cond_signal(&s->done);
  pthread_mutex_unlock(&s->lock);
}
