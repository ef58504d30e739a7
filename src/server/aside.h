// A thread of the server's own that sleeps until it is woken, for what may wait: reloads, schedules.
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/options.h"

struct aside {
  pthread_t thread;
  bool started;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool again, stop; // under the lock: it was woken, which it takes back itself; it is to end
};

// aside_start runs `run(arg)` in the thread. False: it cannot, and `error` says why; aside_end is due all the same.
bool aside_start(struct aside *a, const char *what, void *(*run)(void *), void *arg, struct config_error *error);

void aside_wake(struct aside *a);
void aside_stop(struct aside *a);

// aside_sleep is the thread's, under the lock: until it is woken or stopped, at most for `ms` (UINT64_MAX: without an end).
void aside_sleep(struct aside *a, uint64_t ms);

// aside_end stops the thread and waits for its end.
void aside_end(struct aside *a);
