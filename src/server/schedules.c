#include "server/schedules.h"

#include <stdlib.h>
#include <string.h>

#include "server/aside.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "server/crash.h"

enum { LOOK_MS = 1000 }; // the wall clock may be set meanwhile

struct schedules {
  struct server *s;
  struct aside a;
  uint64_t retry_ms[KEYS_MAX_SCHEDULES]; // of rotation_schedule
};

static void rotated(void *ctx, struct bytes scope) {
  struct server *s = ctx;
  catalog_rotated(s->catalog, scope);
  metric_add_shared(&s->metrics[s->num_workers].rotations, 1);
}

// Rotates what is due. Returns how long to sleep: not past the next moment of a schedule, and not for long. UINT64_MAX: no schedule.
static uint64_t keep(struct schedules *h) {
  struct server *s = h->s;
  struct settings *st = settings_get(s->catalog); // this thread has no quiet points: a reference instead
  struct rotation_rules rules = settings_rotation(s->catalog, st);
  uint64_t next = rotation_schedule(&rules, h->retry_ms, clock_unix_ms(), rotated, s), now = clock_unix_ms();
  settings_put(st);
  return next == UINT64_MAX ? next : next <= now ? 0 : next - now < LOOK_MS ? next - now : LOOK_MS;
}

static void *schedules_main(void *arg) {
  struct schedules *h = arg;
  crash_thread();
  pthread_setname_np(pthread_self(), "schedules");
  pthread_mutex_lock(&h->a.lock);
  while (!h->a.stop) {
    if (h->a.again)
      memset(h->retry_ms, 0, sizeof h->retry_ms);
    h->a.again = false;
    pthread_mutex_unlock(&h->a.lock);
    uint64_t ms = keep(h);
    pthread_mutex_lock(&h->a.lock);
    if (ms && !h->a.again && !h->a.stop)
      aside_sleep(&h->a, ms);
  }
  pthread_mutex_unlock(&h->a.lock);
  return NULL;
}

void schedules_wake(struct server *s) {
  if (s->schedules)
    aside_wake(&s->schedules->a);
}

void schedules_stop(struct server *s) {
  if (s->schedules)
    aside_stop(&s->schedules->a);
}

bool schedules_start(struct server *s, struct config_error *e) {
  struct schedules *h = calloc(1, sizeof *h);
  s->schedules = h;
  if (!h)
    return config_fail(e, "out of memory");
  h->s = s;
  return aside_start(&h->a, "schedules", schedules_main, h, e);
}

void schedules_end(struct server *s) {
  if (!s->schedules)
    return;
  aside_end(&s->schedules->a);
  free(s->schedules);
  s->schedules = NULL;
}
