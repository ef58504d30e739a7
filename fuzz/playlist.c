// What the load generator reads from the server it measures: HLS multivariant and media playlists, MPDs. Any text is given to
// all three readers. Paths that come out are absolute and without dot segments, and stay the same when they are resolved
// again; times do not run backwards; a fault names a line of the text.
// Source: RFC 8216bis §4, ISO/IEC 23009-1 §5.3.9.6 (SegmentTimeline), RFC 3986 §5.2.
// The first byte of the input chooses the representation of an MPD.
#include <string.h>

#include "load/playlist.h"
#include "fuzz.h"

enum { MEMORY = 8 << 20 };

static const char base[] = "/a/b/cbcs/manifest";

static void check_fault(enum err e, const struct diag *d, struct bytes text, enum err also) {
  uint64_t lines = 1;
  for (size_t i = 0; i < text.n; i++)
    lines += text.p[i] == '\n' || text.p[i] == '\r';
  MUST(d->err == e && d->at <= lines);
  MUST(e == ERR_SYNTAX || e == ERR_LIMIT || e == ERR_NO_MEMORY || e == also);
}

static void check_path(const char *path) {
  char again[PLAYLIST_MAX_URI];
  MUST(path[0] == '/' && strnlen(path, PLAYLIST_MAX_URI) < PLAYLIST_MAX_URI);
  MUST(!strstr(path, "/../") && !strstr(path, "/./"));
  MUST(!uri_resolve(again, base, bytes_str(path)) && !strcmp(again, path));
}

static void check_renditions(const struct renditions *r, bool paths) {
  MUST(r->num >= 1 && r->num <= PLAYLIST_MAX_RENDITIONS);
  for (uint32_t i = 0; i < r->num; i++) {
    MUST(memchr(r->r[i].codecs, 0, sizeof r->r[i].codecs));
    if (paths)
      check_path(r->r[i].uri);
  }
}

static void check_list(const struct media_list *l) {
  MUST(l->num >= 1 && l->num <= PLAYLIST_MAX_SEGMENTS && l->start_s[0] == 0 && l->start_s[l->num] <= PLAYLIST_MAX_SECONDS);
  check_path(l->init);
  for (uint32_t i = 0, off = 0; i < l->num; i++) {
    MUST(l->start_s[i] <= l->start_s[i + 1]);
    MUST(l->uri_off[i] == off);
    if (i < 1000 || i + 1 == l->num)
      check_path(l->uris + off);
    off += (uint32_t)strlen(l->uris + off) + 1;
  }
}

static void check_hls(struct bytes text) {
  static struct renditions r;
  struct media_list l;
  struct alloc_heap mem;
  struct diag d = {0};
  enum err e = hls_read_multivariant(&r, text, base, &d);
  if (e)
    check_fault(e, &d, text, e);
  else
    check_renditions(&r, true);
  alloc_heap_init(&mem, MEMORY);
  d = (struct diag){0};
  e = hls_read_media(&l, &mem.base, text, base, &d);
  if (e)
    check_fault(e, &d, text, e);
  else
    check_list(&l);
  alloc_heap_free(&mem);
}

static void check_mpd(struct bytes text, uint32_t choose) {
  static struct renditions r, with_list;
  struct media_list l;
  struct alloc_heap mem;
  struct diag d = {0};
  alloc_heap_init(&mem, MEMORY);
  enum err e = mpd_read(&r, NULL, choose, &mem.base, text, base, &d);
  if (e)
    check_fault(e, &d, text, ERR_SYNTAX);
  else
    check_renditions(&r, false);
  d = (struct diag){0};
  enum err of_list = mpd_read(&with_list, &l, choose, &mem.base, text, base, &d);
  MUST(!e || of_list == e || of_list == ERR_NO_MEMORY);
  if (of_list)
    check_fault(of_list, &d, text, choose < r.num ? ERR_SYNTAX : ERR_ARGUMENT);
  else
    check_list(&l);
  MUST(of_list || choose < r.num);
  alloc_heap_free(&mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size)
    return 0;
  struct bytes text = bytes_of(data + 1, size - 1);
  char path[PLAYLIST_MAX_URI];
  check_hls(text);
  check_mpd(text, data[0] % 4);
  if (!uri_resolve(path, base, text))
    check_path(path);
  return 0;
}
