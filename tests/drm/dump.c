// Prints what the drm layer makes of one key, for judges that are scripts:
//   dump SCHEME KID KEY IV SYSTEMS LA_URL SKD      ("-" for none)
// Lines: "pssh BASE64", then the HLS lines, then the MPD descriptors.
#include "base/text.h"
#include "drm/drm.h"

#include <stdio.h>

static struct bytes arg(const char *s) { return strcmp(s, "-") == 0 ? (struct bytes){0} : bytes_str(s); }

int main(int argc, char **argv) {
  static uint8_t buf[1 << 20];
  struct key_record k = {.epoch = 1, .has_iv = true};
  struct drm_settings set = {0};
  if (argc != 8 || scheme_parse(&k.scheme, arg(argv[1])) || hex_read(k.kid, 16, arg(argv[2])) ||
      hex_read(k.key, 16, arg(argv[3])) || hex_read(k.iv, 16, arg(argv[4])) ||
      drm_parse_list(&set.systems, arg(argv[5])))
    return 2;
  set.playready.la_url = arg(argv[6]);
  set.fairplay.skd = arg(argv[7]);
  struct writer w = wr_of(buf, sizeof buf);
  for (unsigned s = 0; s < DRM_SYSTEM_COUNT; s++) {
    uint8_t box[32768];
    struct writer b = wr_of(box, sizeof box);
    set.in_band = set.systems & drm_bit((enum drm_system)s);
    drm_pssh(&b, &(struct drm_input){.key = &k, .set = &set});
    if (b.n) {
      wr_str(&w, "pssh ");
      base64_write(&w, bytes_of(box, b.n));
      wr_str(&w, "\n");
    }
  }
  drm_hls(&w, "EXT-X-KEY", &(struct drm_input){.key = &k, .set = &set});
  drm_mpd(&w, &(struct drm_input){.key = &k, .set = &set});
  return wr_ok(&w) && fwrite(buf, 1, w.n, stdout) == w.n ? 0 : 1;
}
