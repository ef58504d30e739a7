#include "load/popularity.h"

static double weight(enum popularity_kind kind, uint32_t rank, uint32_t num, double shape) {
  if (kind == POPULARITY_ZIPF)
    return pow((double)rank + 1, -shape);
  // The rank-th largest of `num` draws from exp(-x^c): x = (ln(num / (rank + 1/2)))^(1/c).
  double l = log((double)num / ((double)rank + 0.5));
  return l > 0 ? pow(l, 1 / shape) : 0;
}

enum err popularity_init(struct popularity *p, struct alloc *mem, enum popularity_kind kind, uint32_t num, double shape,
                         double release_share) {
  if (!num || !(shape >= 0) || (kind == POPULARITY_STRETCHED && !(shape > 0 && shape <= 1)) ||
      !(release_share >= 0 && release_share <= 1))
    return ERR_ARGUMENT;
  double *c = mem->get(mem, num * sizeof *c);
  if (!c)
    return ERR_NO_MEMORY;
  double sum = 0;
  for (uint32_t i = 0; i < num; i++)
    c[i] = sum += weight(kind, i, num, shape);
  for (uint32_t i = 0; i < num; i++)
    c[i] /= sum;
  c[num - 1] = 1;
  *p = (struct popularity){num, release_share, c};
  return ERR_OK;
}

uint32_t popularity_draw(const struct popularity *p, struct rng *r) {
  if (rng_unit(r) < p->release_share)
    return 0;
  double u = rng_unit(r);
  uint32_t lo = 0, hi = p->num - 1;
  while (lo < hi) {
    uint32_t mid = lo + (hi - lo) / 2;
    if (p->cumulative[mid] > u)
      hi = mid;
    else
      lo = mid + 1;
  }
  return lo;
}
