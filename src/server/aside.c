#include "server/aside.h"

#include <string.h>
#include <time.h>

#include "server/catalog_int.h"

bool aside_start(struct aside *a, const char *what, void *(*run)(void *), void *arg, struct config_error *error) {
  pthread_condattr_t mono;
  pthread_condattr_init(&mono);
  pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
  pthread_mutex_init(&a->lock, NULL);
  pthread_cond_init(&a->wake, &mono);
  pthread_condattr_destroy(&mono);
  int r = pthread_create(&a->thread, NULL, run, arg);
  a->started = r == 0;
  return a->started || config_fail(error, "cannot start the thread of %s: %s", what, strerror(r));
}

static void say(struct aside *a, bool stop) {
  pthread_mutex_lock(&a->lock);
  a->again = true;
  a->stop |= stop;
  pthread_cond_signal(&a->wake);
  pthread_mutex_unlock(&a->lock);
}

void aside_wake(struct aside *a) { say(a, false); }

void aside_stop(struct aside *a) { say(a, true); }

void aside_sleep(struct aside *a, uint64_t ms) {
  if (ms == UINT64_MAX) {
    pthread_cond_wait(&a->wake, &a->lock);
    return;
  }
  uint64_t at = clock_mono_ms() + ms;
  pthread_cond_timedwait(&a->wake, &a->lock, &(struct timespec){(time_t)(at / 1000), (long)(at % 1000 * 1000000)});
}

void aside_end(struct aside *a) {
  aside_stop(a);
  if (a->started)
    pthread_join(a->thread, NULL);
  pthread_mutex_destroy(&a->lock);
  pthread_cond_destroy(&a->wake);
}
