// What the admin listener says, without its sockets.
#include "server/admin.h"
#include "cache/quiet.h"
#include "server/server.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

// As many workers as there can be, each of which has counted as far as it goes.
Test(admin, metrics_fit_into_their_buffer) {
  enum { NUM = QUIET_MAX_WORKERS };
  static struct server s;
  size_t num;
  s = (struct server){.num_workers = NUM, .io = "io_uring", .ops = aes_ops_all(&num)[0]};
  s.metrics = aligned_alloc(128, (NUM + 1) * sizeof *s.metrics);
  cr_assert(s.metrics);
  memset((void *)s.metrics, 0, (NUM + 1) * sizeof *s.metrics);
  for (_Atomic uint64_t *v = (void *)s.metrics; v < (_Atomic uint64_t *)(void *)(s.metrics + NUM + 1); v++)
    *v = 1ull << 63; // 19 digits, as a gauge 20 bytes
  for (unsigned i = 0; i <= NUM; i++) {
#define X(field, name, help)                                                                                             \
  for (unsigned b = 1; b < METRIC_BUCKETS; b++)                                                                          \
    s.metrics[i].field.buckets[b] = 0; // they are added up
    METRIC_HISTOGRAMS(X)
#undef X
  }
  pthread_mutex_init(&s.served.lock, NULL);
  size_t max = admin_body_max(NUM);
  struct admin_response out = {.body = wr_of(malloc(max), max)};
  cr_assert(out.body.p);
  admin_handle(&s, &out, &(struct admin_request){.method = BYTES_LIT("GET"), .path = BYTES_LIT("/metrics")});
  cr_expect_eq(out.status, 200);
  cr_expect(wr_ok(&out.body), "%zu of %zu bytes", out.body.n, max);
  cr_expect_leq(admin_body_max(8), 4u << 20, "and no more than is needed");
  free(out.body.p);
  free(s.metrics);
}
