// intel-ipsec-mb through its cipher burst without checks, its fastest interface for this: jobs in order of length,
// everything that does not change from call to call set before.
#include <intel-ipsec-mb.h>
#include <stdlib.h>

#include "bench.h"

enum { NUM_JOBS = IMB_MAX_BURST_SIZE };

static IMB_MGR *mgr;
static uint32_t enc_keys[44] __attribute__((aligned(16))), dec_keys[44] __attribute__((aligned(16)));
static IMB_JOB cbc_jobs[NUM_JOBS], ctr_jobs[NUM_JOBS];
static uint8_t ivs[NUM_JOBS][16];

static uint8_t iv0[16];

static bool init(const uint8_t key[16], const uint8_t iv[16]) {
  memcpy(iv0, iv, 16);
  mgr = alloc_mb_mgr(0);
  if (!mgr)
    return false;
  init_mb_mgr_auto(mgr, NULL);
  IMB_AES_KEYEXP_128(mgr, key, enc_keys, dec_keys);
  for (unsigned i = 0; i < NUM_JOBS; i++) {
    store_be64(ivs[i], 1000 + i);
    IMB_JOB job = {
        .enc_keys = enc_keys,
        .dec_keys = dec_keys,
        .key_len_in_bytes = IMB_KEY_128_BYTES,
        .iv = iv0,
        .iv_len_in_bytes = 16,
        .cipher_mode = IMB_CIPHER_CBC,
        .cipher_direction = IMB_DIR_ENCRYPT,
        .chain_order = IMB_ORDER_CIPHER_HASH,
        .hash_alg = IMB_AUTH_NULL,
    };
    cbc_jobs[i] = job;
    job.cipher_mode = IMB_CIPHER_CNTR;
    job.iv = ivs[i];
    ctr_jobs[i] = job;
  }
  return true;
}

static void burst(const struct workload *w, IMB_JOB *jobs, const struct list *l, IMB_CIPHER_MODE mode) {
  uint32_t done = IMB_SUBMIT_CIPHER_BURST_NOCHECK(mgr, jobs, l->num, mode, IMB_DIR_ENCRYPT, IMB_KEY_128_BYTES);
  if (done != l->num || jobs[0].status != IMB_STATUS_COMPLETED)
    abort();
  (void)w;
}

static void cbc(const struct workload *w, const struct list *l, const struct list *second) {
  (void)second;
  for (uint32_t i = 0; i < l->num; i++) {
    uint32_t off = l->lanes[i].off, len = l->lanes[i].len;
    cbc_jobs[i].src = w->src + off;
    cbc_jobs[i].dst = w->dst + off;
    cbc_jobs[i].msg_len_to_cipher_in_bytes = len & ~15u;
    if (len >= 16) // the trailing bytes, as our own kernels copy them
      memcpy(w->dst + off + len - 16, w->src + off + len - 16, 16);
  }
  burst(w, cbc_jobs, l, IMB_CIPHER_CBC);
}

static void ctr(const struct workload *w, const struct list *l, const struct list *second) {
  (void)second;
  for (uint32_t i = 0; i < l->num; i++) {
    ctr_jobs[i].src = w->src + l->offsets[i];
    ctr_jobs[i].dst = w->dst + l->offsets[i];
    ctr_jobs[i].msg_len_to_cipher_in_bytes = l->sizes[i];
  }
  burst(w, ctr_jobs, l, IMB_CIPHER_CNTR);
}

const struct peer peer_ipsec = {"ipsec-mb", init, cbc, ctr};
