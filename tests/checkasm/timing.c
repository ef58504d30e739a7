// Timing safety: keys, IVs' results and data are marked undefined for valgrind, which then reports every branch and
// every address that depends on them, through the whole of every operation. Usage: timing KERNEL|leak
//
// `leak` looks a byte of the key up in a table: the check must report that one, or it proves nothing.
#include <stdio.h>
#include <stdlib.h>
#include <valgrind/memcheck.h>

#include "simd/aes.h"

enum { SAMPLES = 40, SIZE = 700 };

static uint8_t src[SAMPLES * SIZE], dst[SAMPLES * SIZE];

static void leak(const uint8_t key[16]) {
  static const uint8_t table[256] = {1, 2, 3};
  volatile uint8_t out = table[key[3]];
  (void)out;
}

static void run(const struct aes_ops *ops, const uint8_t secret[16]) {
  struct aes_key k;
  struct aes_lane lanes[SAMPLES];
  uint16_t sizes[SAMPLES];
  uint8_t iv[16] = {0}, ivs[SAMPLES][16] = {{0}};
  uint32_t off = 0;
  for (uint32_t i = 0; i < SAMPLES; i++) {
    sizes[i] = (uint16_t)(i * 37 % SIZE);
    lanes[i] = (struct aes_lane){off, sizes[i]};
    off += sizes[i];
  }
  aes_lane_order(lanes, SAMPLES);
  ops->key_init(&k, secret);
  struct aes_cbc_seg seg = {src, dst, lanes, SAMPLES}, two[2] = {seg, {dst, dst, lanes, 5}};
  struct aes_ctr_seg ctr = {.src = src, .dst = dst, .sizes16 = sizes, .num = SAMPLES, .iv = 7};
  struct aes_pattern pattern = {1, 9};
  ops->cbc_encrypt(&k, iv, &seg, 1, NULL);
  ops->cbc_encrypt(&k, iv, two, 2, NULL);
  ops->cbc_decrypt(&k, iv, &seg, 1);
  ops->ctr(&k, &ctr, 1, NULL);
  ctr.ivs = (const uint8_t(*)[16])ivs;
  ops->ctr(&k, &ctr, 1, NULL);
  aes_cbc_pattern(ops, &k, true, pattern, iv, &seg);
  aes_cbc_pattern(ops, &k, false, pattern, iv, &seg);
  aes_ctr_pattern(ops, &k, pattern, (const uint8_t(*)[16])ivs, &seg);
  ops->cbc_chain(&k, true, iv, dst, src, 20);
  ops->cbc_chain(&k, false, iv, dst, src, 20);
  ops->ecb_encrypt(&k, dst, src, 21);
  aes_key_wipe(&k);
}

int main(int argc, char **argv) {
  uint8_t secret[16] = {1, 2, 3};
  const char *why = NULL;
  if (argc != 2)
    return 2;
  bool leaks = strcmp(argv[1], "leak") == 0;
  const struct aes_ops *ops = leaks ? NULL : aes_ops_best(argv[1], &why);
  if (!leaks && !ops) {
    printf("%s\n", why);
    return 3;
  }
  VALGRIND_MAKE_MEM_UNDEFINED(secret, sizeof secret);
  VALGRIND_MAKE_MEM_UNDEFINED(src, sizeof src);
  if (leaks)
    leak(secret);
  else
    run(ops, secret);
  return 0;
}
