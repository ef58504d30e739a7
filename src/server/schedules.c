#include "server/schedules.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "server/crash.h"

enum { LOOK_MS = 1000 }; // the wall clock may be set meanwhile

struct schedules {
  struct server *s;
  pthread_t thread;
  bool started;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool again, stop; // under the lock
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

// Under the lock.
static void sleep_for(struct schedules *h, uint64_t ms) {
  struct timespec until;
  if (ms == UINT64_MAX) {
    pthread_cond_wait(&h->wake, &h->lock);
    return;
  }
  uint64_t at = clock_mono_ms() + ms;
  until = (struct timespec){(time_t)(at / 1000), (long)(at % 1000 * 1000000)};
  pthread_cond_timedwait(&h->wake, &h->lock, &until);
}

static void *schedules_main(void *arg) {
  struct schedules *h = arg;
  crash_thread();
  pthread_setname_np(pthread_self(), "schedules");
  pthread_mutex_lock(&h->lock);
  while (!h->stop) {
    if (h->again)
      memset(h->retry_ms, 0, sizeof h->retry_ms);
    h->again = false;
    pthread_mutex_unlock(&h->lock);
    uint64_t ms = keep(h);
    pthread_mutex_lock(&h->lock);
    if (ms && !h->again && !h->stop)
      sleep_for(h, ms);
  }
  pthread_mutex_unlock(&h->lock);
  return NULL;
}

static void say(struct server *s, bool stop) {
  struct schedules *h = s->schedules;
  if (!h)
    return;
  pthread_mutex_lock(&h->lock);
  h->again = true;
  h->stop |= stop;
  pthread_cond_signal(&h->wake);
  pthread_mutex_unlock(&h->lock);
}

void schedules_wake(struct server *s) { say(s, false); }

void schedules_stop(struct server *s) { say(s, true); }

bool schedules_start(struct server *s, struct config_error *e) {
  struct schedules *h = calloc(1, sizeof *h);
  s->schedules = h;
  if (!h)
    return config_fail(e, "out of memory");
  pthread_condattr_t mono;
  pthread_condattr_init(&mono);
  pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
  pthread_mutex_init(&h->lock, NULL);
  pthread_cond_init(&h->wake, &mono);
  pthread_condattr_destroy(&mono);
  h->s = s;
  int r = pthread_create(&h->thread, NULL, schedules_main, h);
  h->started = r == 0;
  return h->started || config_fail(e, "cannot start the thread of schedules: %s", strerror(r));
}

void schedules_end(struct server *s) {
  struct schedules *h = s->schedules;
  schedules_stop(s);
  if (!h)
    return;
  if (h->started)
    pthread_join(h->thread, NULL);
  pthread_mutex_destroy(&h->lock);
  pthread_cond_destroy(&h->wake);
  free(h);
  s->schedules = NULL;
}
