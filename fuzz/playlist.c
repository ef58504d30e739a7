// What the load generator reads from the server it measures: HLS multivariant and media playlists, MPDs. Any text is given to
// all three readers. Paths that come out are absolute and without dot segments, and stay the same when they are resolved
// again; times do not run backwards; a fault names a line of the text. Half of the inputs are read as fetched from a host.
// Source: RFC 8216bis §4, ISO/IEC 23009-1 §5.3.9, ISO/IEC 14496-12 §8.16.3 (sidx), RFC 3986 §5.2.
// The first byte of the input chooses the representation of an MPD (bits 0 and 1) and the host (bit 2).
#include <string.h>

#include "load/playlist.h"
#include "fuzz.h"

enum { MEMORY = 8 << 20 };

static const char *base;

static void check_fault(enum err e, const struct diag *d, struct bytes text, enum err also) {
  uint64_t lines = 1;
  for (size_t i = 0; i < text.n; i++)
    lines += text.p[i] == '\n' || text.p[i] == '\r';
  MUST(d->err == e && d->at <= lines);
  MUST(e == ERR_SYNTAX || e == ERR_LIMIT || e == ERR_UNSUPPORTED || e == ERR_NO_MEMORY || e == also);
}

static void check_path(const char *path) {
  char again[PLAYLIST_MAX_URI];
  MUST(path[0] == '/' && strnlen(path, PLAYLIST_MAX_URI) < PLAYLIST_MAX_URI);
  const char *dots = strstr(path, "/../"), *dot = strstr(path, "/./"), *query = strchr(path, '?');
  MUST((!dots || (query && query < dots)) && (!dot || (query && query < dot)));
  // Two slashes at the beginning would be a host.
  MUST(path[1] == '/' || (!uri_resolve(again, base, bytes_str(path)) && !strcmp(again, path)));
}

static void check_renditions(const struct renditions *r, bool paths) {
  MUST(r->num >= 1 && r->num <= PLAYLIST_MAX_RENDITIONS);
  for (uint32_t i = 0; paths && i < r->num; i++)
    check_path(r->uri[i]);
}

static void check_list(const struct media_list *l) {
  MUST(l->num >= 1 && l->num <= PLAYLIST_MAX_SEGMENTS && l->start_s[0] == 0 && l->start_s[l->num] <= PLAYLIST_MAX_SECONDS);
  MUST(l->num_parts >= 1 && l->parts[0].first == 0 && l->init == l->parts[0].init && !l->index);
  for (uint32_t i = 0; i < l->num_parts; i++) {
    MUST(i == 0 || l->parts[i].first > l->parts[i - 1].first || !l->parts[i].init[0] || l->has_gaps);
    if (l->parts[i].init[0])
      check_path(l->parts[i].init);
  }
  for (uint32_t i = 0, off = 0; i < l->num; i++) {
    MUST(l->start_s[i] <= l->start_s[i + 1]);
    MUST(l->uri_off[i] >= off && (l->has_gaps || media_part_of(l, i)->first <= i));
    off = l->uri_off[i];
    if (i < 1000 || i + 1 == l->num)
      check_path(l->uris + off);
    if (l->ranges)
      MUST(l->ranges[i].from + l->ranges[i].len >= l->ranges[i].from);
  }
}

// The sidx that an MPD leaves its segments to is answered with whatever the input is.
static void check_index(const struct media_list *mpd, struct alloc *mem, struct bytes text) {
  struct media_list l;
  struct diag d = {0};
  check_path(mpd->index);
  MUST(mpd->num_parts == 1 && mpd->index_range.len && !mpd->num);
  enum err e = sidx_read(&l, mem, text, mpd, &d);
  MUST(!e || ((e == ERR_SYNTAX || e == ERR_LIMIT || e == ERR_NO_MEMORY) && d.err == e));
  if (!e)
    check_list(&l);
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
  else if (l.index)
    check_index(&l, &mem.base, text);
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
  base = data[0] & 4 ? "http://h:8080/a/b/cbcs/manifest?k=v" : "/a/b/cbcs/manifest";
  check_hls(text);
  check_mpd(text, data[0] % 4);
  struct media_part part = {.init = ""};
  struct media_list by_index = {.init = "", .parts = &part, .num_parts = 1, .index = "/a", .index_range = {100, 50}};
  struct alloc_heap mem;
  alloc_heap_init(&mem, MEMORY);
  check_index(&by_index, &mem.base, text);
  alloc_heap_free(&mem);
  if (!uri_resolve(path, base, text))
    check_path(path);
  return 0;
}
