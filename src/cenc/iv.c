// What is derived from keys: IVs and the plan's tag. The only file of this layer that calls libcrypto.
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "base/writer.h"
#include "cenc/plan.h"

// Changes whenever the same index and protection render to other bytes.
enum { PLAN_VERSION = 3 };

static void hmac(uint8_t out[32], const uint8_t key[16], const void *data, size_t n) {
  unsigned len = 32;
  HMAC(EVP_sha256(), key, 16, data, n, out, &len);
}

void cenc_iv_base(uint8_t out[8], const uint8_t key[16], const uint8_t digest[32], uint32_t track_id) {
  static const char label[] = "sluice cenc iv v1";
  uint8_t text[sizeof label - 1 + 32 + 4], mac[32];
  struct writer w = wr_of(text, sizeof text);
  wr_raw(&w, label, sizeof label - 1);
  wr_raw(&w, digest, 32);
  wr_u32(&w, track_id);
  hmac(mac, key, text, w.n);
  memcpy(out, mac, 8);
}

void cbcs_iv(uint8_t out[16], const uint8_t key[16]) {
  static const char label[] = "sluice cbcs iv v1";
  uint8_t mac[32];
  hmac(mac, key, label, sizeof label - 1);
  memcpy(out, mac, 16);
}

void plan_tag(const struct plan *p, uint8_t out[16]) {
  const struct ix_header *h = p->ix->h;
  const struct protection *prot = p->prot;
  uint8_t head[192], mac[32], digest[32];
  bool clear = prot->scheme == SCHEME_CLEAR;

  // What has a length of its own is hashed first, behind its length.
  SHA256_CTX sha;
  SHA256_Init(&sha);
  uint64_t pssh_len = prot->pssh.n;
  SHA256_Update(&sha, &pssh_len, sizeof pssh_len);
  if (pssh_len)
    SHA256_Update(&sha, prot->pssh.p, prot->pssh.n);
  if (p->segs->num)
    SHA256_Update(&sha, p->segs->first_frag, sizeof *p->segs->first_frag * p->segs->num);
  SHA256_Final(digest, &sha);

  struct writer w = wr_of(head, sizeof head);
  wr_str(&w, "sluice plan tag v1");
  wr_u32(&w, PLAN_VERSION);
  wr_u32(&w, IX_VERSION);
  wr_raw(&w, h->identity.digest, 32);
  if (h->flags & IX_NO_DIGEST) { // this node's view of the file must do: never wrong, but not shared
    wr_u64(&w, h->identity.size);
    wr_u64(&w, h->identity.mtime_ns);
    wr_u64(&w, h->identity.stamp);
  }
  wr_u32(&w, h->track_id);
  wr_u64(&w, p->total_len);
  wr_u32(&w, (uint32_t)prot->scheme);
  wr_u8(&w, (uint8_t)(clear ? 0 : prot->no_senc | prot->wide_iv << 1));
  if (!clear) {
    wr_raw(&w, prot->kid, 16);
    wr_raw(&w, prot->iv, 16);
  }
  wr_raw(&w, digest, 32);
  // The first round key of AES-128 is the key.
  static const uint8_t no_key[16];
  hmac(mac, clear ? no_key : prot->key.enc[0], head, w.n);
  memcpy(out, mac, 16);
}
