#include "keys/given.h"

#include "base/reader.h"
#include "drm/markup.h"
#include "keys/xml.h"

enum err given_pssh(struct bytes box, enum drm_system s, const uint8_t kid[16], struct diag *diag) {
  const char *name = drm_systems[s]->title;
  struct reader r = rd_of(box);
  uint32_t size = rd_u32(&r), type = rd_u32(&r), version = rd_u32(&r) >> 24;
  const uint8_t *id = rd_take(&r, 16);
  if (r.err || box.n > GIVEN_MAX_PSSH || size != box.n || type != FOURCC('p', 's', 's', 'h') || version > 1)
    return diag_say(diag, ERR_MALFORMED, "the key server's PSSH for %s is not one pssh box", name);
  if (memcmp(id, drm_systems[s]->system_id, 16) != 0)
    return diag_say(diag, ERR_MALFORMED, "the key server's PSSH for %s is another system's", name);
  bool listed = !version;
  uint32_t num = version ? rd_u32(&r) : 0;
  for (uint32_t i = 0; i < num && !r.err; i++) {
    const uint8_t *k = rd_take(&r, 16);
    listed = listed || (k && memcmp(k, kid, 16) == 0);
  }
  rd_skip(&r, rd_u32(&r));
  if (r.err || rd_left(&r))
    return diag_say(diag, ERR_MALFORMED, "the key server's PSSH for %s contradicts its own length", name);
  return listed ? ERR_OK : diag_say(diag, ERR_MALFORMED, "the key server's PSSH for %s is for another KID", name);
}

enum err given_mpd(struct bytes xml, struct diag *diag) {
  static const char open[] = "<r xmlns=\"urn:mpeg:dash:schema:mpd:2011\" xmlns:cenc=\"urn:mpeg:cenc:2013\""
                             " xmlns:mspr=\"urn:microsoft:playready\" xmlns:dashif=\"https://dashif.org/CPS\""
                             " xmlns:ck=\"http://dashif.org/guidelines/clearKey\">";
  if (xml.n > GIVEN_MAX_TEXT)
    return diag_say(diag, ERR_LIMIT, "the key server's ContentProtectionData is too long");
  return xml_is_fragment(xml, open, "</r>") ? ERR_OK : diag_say(diag, ERR_MALFORMED, "the key server's ContentProtectionData is not an XML fragment");
}

static bool starts(struct bytes b, const char *with) {
  size_t n = strlen(with);
  return b.n >= n && memcmp(b.p, with, n) == 0;
}

// Reads up to the next attribute's '=' and value; quotes may hold commas.
static bool method_is(struct bytes attributes, const char *want) {
  struct bytes a = attributes;
  while (a.n) {
    size_t n = 0;
    for (bool quoted = false; n < a.n && (quoted || a.p[n] != ','); n++)
      quoted ^= a.p[n] == '"';
    if (starts(a, "METHOD="))
      return bytes_eq(bytes_of(a.p + 7, n - 7), bytes_str(want));
    n += n < a.n;
    a = bytes_of(a.p + n, a.n - n);
  }
  return false;
}

enum err given_hls(uint8_t *text, size_t *len, bool master, enum scheme scheme, struct diag *diag) {
  const char *tag = master ? "#EXT-X-SESSION-KEY:" : "#EXT-X-KEY:";
  const char *method = scheme == SCHEME_CBCS ? "SAMPLE-AES" : "SAMPLE-AES-CTR";
  size_t n = 0;
  if (*len > GIVEN_MAX_TEXT)
    return diag_say(diag, ERR_LIMIT, "the key server's HLSSignalingData is too long");
  for (size_t at = 0; at < *len;) {
    const uint8_t *nl = memchr(text + at, '\n', *len - at);
    size_t end = nl ? (size_t)(nl - text) : *len, stop = end;
    while (stop > at && (text[stop - 1] == '\r' || text[stop - 1] == ' '))
      stop--;
    struct bytes line = bytes_of(text + at, stop - at);
    at = end + 1;
    if (!line.n)
      continue;
    for (size_t i = 0; i < line.n; i++)
      if (line.p[i] < 0x20 || line.p[i] == 0x7f)
        return diag_say(diag, ERR_MALFORMED, "the key server's HLSSignalingData has control characters");
    if (!starts(line, tag) || !method_is(bytes_of(line.p + strlen(tag), line.n - strlen(tag)), method))
      return diag_say(diag, ERR_MALFORMED, "a line of the key server's HLSSignalingData is not %sMETHOD=%s,…", tag,
                      method);
    memmove(text + n, line.p, line.n);
    n += line.n;
    text[n++] = '\n';
  }
  *len = n;
  return ERR_OK;
}
