// The segment index of a file. Source: ISO/IEC 14496-12 §8.16.3.
#include "base/reader.h"
#include "load/playlist.h"

// The first sidx among whole boxes: its payload, and where what follows it lies in the bytes.
static bool find_sidx(struct bytes body, struct reader *out, uint64_t *behind) {
  struct reader r = rd_of(body);
  while (rd_left(&r) >= 8) {
    size_t at = rd_pos(&r);
    uint32_t size = rd_u32(&r), type = rd_u32(&r);
    if (size < 8 || size > body.n - at)
      return false;
    if (type == 0x73696478) {
      *out = rd_of(bytes_of(body.p + at + 8, size - 8));
      *behind = at + size;
      return true;
    }
    rd_skip(&r, size - 8);
  }
  return false;
}

enum err sidx_read(struct media_list *out, struct alloc *mem, struct bytes body, const struct media_list *mpd, struct diag *diag) {
  struct reader r = {0};
  uint64_t behind = 0, first, time = 0;
  *out = (struct media_list){.init = mpd->init, .parts = mpd->parts, .num_parts = mpd->num_parts, .kids = mpd->kids, .has_gaps = true};
  if (!find_sidx(body, &r, &behind))
    return diag_say(diag, ERR_SYNTAX, "no whole sidx lies in bytes %lu-%lu", mpd->index_range.from, mpd->index_range.from + mpd->index_range.len - 1);
  bool wide = rd_u32(&r) >> 24 != 0;
  rd_skip(&r, 4);
  uint32_t timescale = rd_u32(&r);
  rd_skip(&r, wide ? 8 : 4);
  first = wide ? rd_u64(&r) : rd_u32(&r);
  rd_skip(&r, 2);
  uint32_t num = rd_u16(&r);
  if (r.err || !timescale || !num || rd_left(&r) < (size_t)num * 12)
    return diag_say(diag, ERR_SYNTAX, "the sidx is cut, or names no segment");
  size_t n = strlen(mpd->index) + 1;
  out->start_s = mem->get(mem, (num + 1) * sizeof *out->start_s);
  out->uri_off = mem->get(mem, (num + 1) * sizeof *out->uri_off);
  out->ranges = mem->get(mem, num * sizeof *out->ranges);
  out->uris = mem->get(mem, n);
  if (!out->start_s || !out->uri_off || !out->ranges || !out->uris)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  memcpy(out->uris, mpd->index, n);
  uint64_t at;
  if (mpd->index_range.from > UINT64_C(1) << 62 || first > UINT64_C(1) << 62)
    return diag_say(diag, ERR_LIMIT, "the sidx leads beyond 2^62 bytes");
  at = mpd->index_range.from + behind + first;
  for (uint32_t i = 0; i < num; i++) {
    uint32_t size = rd_u32(&r), ticks = rd_u32(&r);
    rd_skip(&r, 4);
    if (size >> 31)
      return diag_say(diag, ERR_SYNTAX, "the sidx leads to further sidx boxes: only one level is read");
    if (!size)
      return diag_say(diag, ERR_SYNTAX, "segment %u of the sidx has no bytes", i + 1);
    out->ranges[i] = (struct byte_range){at, size};
    out->start_s[i] = (double)time / timescale;
    at += size;
    time += ticks;
  }
  out->num = num;
  out->start_s[num] = (double)time / timescale;
  return out->start_s[num] <= PLAYLIST_MAX_SECONDS ? ERR_OK : diag_say(diag, ERR_LIMIT, "the sidx lasts more than %d seconds", PLAYLIST_MAX_SECONDS);
}
