#include "cenc/boxes.h"

#include "base/writer.h"

static void box_head(struct writer *w, uint32_t len, uint32_t type) {
  wr_u32(w, len);
  wr_u32(w, type);
}

// Source: ISO/IEC 23001-7 §8.2. Audio has no pattern: §10.4 (cbcs).
static void tenc_write(struct writer *w, const struct protection *prot) {
  bool cbcs = prot->scheme == SCHEME_CBCS;
  box_head(w, cbcs ? 49 : 32, FOURCC('t', 'e', 'n', 'c'));
  wr_u32(w, cbcs ? 0x01000000 : 0); // version, flags
  wr_u8(w, 0);
  wr_u8(w, 0); // pattern 0:0, full-sample encryption
  wr_u8(w, 1); // protected
  wr_u8(w, cbcs ? 0 : (uint8_t)cenc_iv_len(prot));
  wr_raw(w, prot->kid, 16);
  if (cbcs) {
    wr_u8(w, 16);
    wr_raw(w, prot->iv, 16);
  }
}

uint32_t sinf_write(uint8_t out[SINF_LEN_MAX], const struct protection *prot, uint32_t format) {
  if (prot->scheme == SCHEME_CLEAR)
    return 0;
  bool cbcs = prot->scheme == SCHEME_CBCS;
  uint32_t len = cbcs ? SINF_LEN_CBCS : SINF_LEN_CENC;
  struct writer w = wr_of(out, SINF_LEN_MAX);
  box_head(&w, len, FOURCC('s', 'i', 'n', 'f'));
  box_head(&w, 12, FOURCC('f', 'r', 'm', 'a'));
  wr_u32(&w, format);
  box_head(&w, 20, FOURCC('s', 'c', 'h', 'm'));
  wr_u32(&w, 0);
  wr_u32(&w, cbcs ? FOURCC('c', 'b', 'c', 's') : FOURCC('c', 'e', 'n', 'c'));
  wr_u32(&w, 0x00010000);
  box_head(&w, len - 8 - 12 - 20, FOURCC('s', 'c', 'h', 'i'));
  tenc_write(&w, prot);
  return (uint32_t)w.n;
}

void saiz_write(uint8_t out[SAIZ_LEN], uint32_t num_samples, uint32_t iv_len) {
  struct writer w = wr_of(out, SAIZ_LEN);
  box_head(&w, SAIZ_LEN, FOURCC('s', 'a', 'i', 'z'));
  wr_u32(&w, 0);
  wr_u8(&w, (uint8_t)iv_len);
  wr_u32(&w, num_samples);
}

void saio_write(uint8_t out[SAIO_LEN], uint32_t iv_off) {
  struct writer w = wr_of(out, SAIO_LEN);
  box_head(&w, SAIO_LEN, FOURCC('s', 'a', 'i', 'o'));
  wr_u32(&w, 0);
  wr_u32(&w, 1);
  wr_u32(&w, iv_off);
}

void senc_head_write(uint8_t out[SENC_HEAD_LEN], uint32_t num_samples, uint32_t iv_len) {
  struct writer w = wr_of(out, SENC_HEAD_LEN);
  box_head(&w, SENC_HEAD_LEN + num_samples * iv_len, FOURCC('s', 'e', 'n', 'c'));
  wr_u32(&w, 0);
  wr_u32(&w, num_samples);
}
