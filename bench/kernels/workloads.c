#include <stdlib.h>

#include "bench.h"

const uint8_t bench_key[16] = {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c};
const uint8_t bench_iv[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

struct workload workloads[] = {
    {.name = "A", .what = "2 s of AAC at 128 kb/s: 94 samples of about 371 bytes", .num = 94, .low = 211, .high = 531, .bell = true},
    {.name = "B", .what = "2 s of AAC at 256 kb/s: 94 samples of about 743 bytes", .num = 94, .low = 423, .high = 1063, .bell = true},
    {.name = "C", .what = "2 s of FLAC: 22 samples of 8 to 12 KB", .num = 22, .low = 8000, .high = 12000},
    // for the aliasing rule: constant sizes, and random ones of the same mean
    {.name = "const1024", .what = "64 samples of 1024 bytes", .num = 64, .constant = 1024},
    {.name = "const1536", .what = "64 samples of 1536 bytes", .num = 64, .constant = 1536},
    {.name = "const2048", .what = "64 samples of 2048 bytes", .num = 64, .constant = 2048},
    {.name = "const3072", .what = "64 samples of 3072 bytes", .num = 64, .constant = 3072},
    {.name = "const4096", .what = "64 samples of 4096 bytes", .num = 64, .constant = 4096},
    {.name = "rand1024", .what = "64 samples of about 1024 bytes", .num = 64, .low = 824, .high = 1224},
    {.name = "rand1536", .what = "64 samples of about 1536 bytes", .num = 64, .low = 1236, .high = 1836},
    {.name = "rand2048", .what = "64 samples of about 2048 bytes", .num = 64, .low = 1648, .high = 2448},
    {.name = "rand3072", .what = "64 samples of about 3072 bytes", .num = 64, .low = 2472, .high = 3672},
    {.name = "rand4096", .what = "64 samples of about 4096 bytes", .num = 64, .low = 3296, .high = 4896},
};
const size_t num_workloads = sizeof workloads / sizeof *workloads;

static uint64_t seed = 1;

static uint32_t below(uint32_t bound) {
  uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15); // splitmix64
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return (uint32_t)(((z ^ z >> 31) >> 32) * bound >> 32);
}

static uint32_t random_size(const struct workload *w) {
  uint32_t span = w->high - w->low;
  if (w->constant)
    return w->constant;
  if (!w->bell)
    return w->low + below(span + 1);
  uint32_t sum = 0;
  for (int i = 0; i < 4; i++)
    sum += below(span / 4 + 1);
  return w->low + sum;
}

static void list_init(struct list *l, const struct workload *w) {
  l->num = w->num;
  l->sizes = calloc(l->num, sizeof *l->sizes);
  l->offsets = calloc(l->num, sizeof *l->offsets);
  l->lanes = calloc(l->num, sizeof *l->lanes);
  for (uint32_t i = 0; i < l->num; i++) {
    uint32_t size = random_size(w);
    l->sizes[i] = (uint16_t)size;
    l->offsets[i] = l->total;
    l->lanes[i] = (struct aes_lane){l->total, size};
    l->total += size;
  }
  aes_lane_order(l->lanes, l->num);
}

void workloads_init(void) {
  for (size_t i = 0; i < num_workloads; i++) {
    struct workload *w = &workloads[i];
    size_t room = 0;
    for (int n = 0; n < NUM_LISTS; n++) {
      list_init(&w->lists[n], w);
      if (w->lists[n].total > room)
        room = w->lists[n].total;
    }
    room = (room + 4095) & ~(size_t)4095;
    // Segments follow each other in one allocation with odd distances, as a server's buffers do.
    w->src = aligned_alloc(4096, 2 * room + 4096);
    w->dst = aligned_alloc(4096, 2 * room + 4096);
    for (size_t n = 0; n < 2 * room + 4096; n++)
      w->src[n] = (uint8_t)(n * 131 >> 3);
    memset(w->dst, 0, 2 * room + 4096);
  }
}
