// intel-ipsec-mb through its cipher burst without checks, its fastest interface for this: jobs in order of length. As
// "ipsec-mb" everything that does not change from call to call is set before; as "ipsec-mb-anew" each call makes its jobs.
#include <intel-ipsec-mb.h>
#include <stdlib.h>

#include "bench.h"

#define INLINE __attribute__((always_inline)) static inline

enum { NUM_JOBS = IMB_MAX_BURST_SIZE };

static IMB_MGR *mgr;
static uint32_t enc_keys[44] __attribute__((aligned(16))), dec_keys[44] __attribute__((aligned(16)));
static IMB_JOB cbc_jobs[NUM_JOBS], ctr_jobs[NUM_JOBS];
static uint8_t ivs[NUM_JOBS][16];

static uint8_t iv0[16];

INLINE IMB_JOB job(IMB_CIPHER_MODE mode, const uint8_t *iv) {
  return (IMB_JOB){
      .enc_keys = enc_keys,
      .dec_keys = dec_keys,
      .key_len_in_bytes = IMB_KEY_128_BYTES,
      .iv = iv,
      .iv_len_in_bytes = 16,
      .cipher_mode = mode,
      .cipher_direction = IMB_DIR_ENCRYPT,
      .chain_order = IMB_ORDER_CIPHER_HASH,
      .hash_alg = IMB_AUTH_NULL,
  };
}

static bool init(const uint8_t key[16], const uint8_t iv[16]) {
  if (mgr)
    return true;
  memcpy(iv0, iv, 16);
  mgr = alloc_mb_mgr(0);
  if (!mgr)
    return false;
  init_mb_mgr_auto(mgr, NULL);
  IMB_AES_KEYEXP_128(mgr, key, enc_keys, dec_keys);
  for (unsigned i = 0; i < NUM_JOBS; i++) {
    store_be64(ivs[i], 1000 + i);
    cbc_jobs[i] = job(IMB_CIPHER_CBC, iv0);
    ctr_jobs[i] = job(IMB_CIPHER_CNTR, ivs[i]);
  }
  return true;
}

static void burst(IMB_JOB *jobs, const struct list *l, IMB_CIPHER_MODE mode) {
  uint32_t done = IMB_SUBMIT_CIPHER_BURST_NOCHECK(mgr, jobs, l->num, mode, IMB_DIR_ENCRYPT, IMB_KEY_128_BYTES);
  if (done != l->num || jobs[0].status != IMB_STATUS_COMPLETED)
    abort();
}

INLINE void cbc_burst(const struct workload *w, const struct list *l, const bool anew) {
  for (uint32_t i = 0; i < l->num; i++) {
    uint32_t off = l->lanes[i].off, len = l->lanes[i].len;
    if (anew)
      cbc_jobs[i] = job(IMB_CIPHER_CBC, iv0);
    cbc_jobs[i].src = w->src + off;
    cbc_jobs[i].dst = w->dst + off;
    cbc_jobs[i].msg_len_to_cipher_in_bytes = len & ~15u;
    if (len >= 16) // the trailing bytes, as our own kernels copy them
      memcpy(w->dst + off + len - 16, w->src + off + len - 16, 16);
  }
  burst(cbc_jobs, l, IMB_CIPHER_CBC);
}

INLINE void ctr_burst(const struct workload *w, const struct list *l, const bool anew) {
  for (uint32_t i = 0; i < l->num; i++) {
    if (anew)
      ctr_jobs[i] = job(IMB_CIPHER_CNTR, ivs[i]);
    ctr_jobs[i].src = w->src + l->offsets[i];
    ctr_jobs[i].dst = w->dst + l->offsets[i];
    ctr_jobs[i].msg_len_to_cipher_in_bytes = l->sizes[i];
  }
  burst(ctr_jobs, l, IMB_CIPHER_CNTR);
}

static void cbc(const struct workload *w, const struct list *l) { cbc_burst(w, l, false); }

static void ctr(const struct workload *w, const struct list *l) { ctr_burst(w, l, false); }

static void cbc_anew(const struct workload *w, const struct list *l) { cbc_burst(w, l, true); }

static void ctr_anew(const struct workload *w, const struct list *l) { ctr_burst(w, l, true); }

const struct peer peer_ipsec = {"ipsec-mb", init, cbc, ctr};
const struct peer peer_ipsec_anew = {"ipsec-mb-anew", init, cbc_anew, ctr_anew};
