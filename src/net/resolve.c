#include "net/resolve.h"
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct resolver {
  struct io *io; // until stop
  pthread_mutex_t lock;
  pthread_cond_t asked_one;
  struct resolve *asked, *answered;
  bool stop;
  unsigned refs; // the owner's and the thread's
};

static void release(struct resolver *r) {
  pthread_mutex_lock(&r->lock);
  bool last = --r->refs == 0;
  pthread_mutex_unlock(&r->lock);
  if (!last)
    return;
  pthread_cond_destroy(&r->asked_one);
  pthread_mutex_destroy(&r->lock);
  free(r);
}

static void look_up(struct resolve *q, const char *host, int flags) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags}, *found = NULL;
  char port[8];
  snprintf(port, sizeof port, "%u", q->port);
  q->error = getaddrinfo(host, port, &hints, &found);
  q->num = 0;
  for (const struct addrinfo *a = found; !q->error && a && q->num < RESOLVE_MAX; a = a->ai_next) {
    if (a->ai_addrlen > sizeof q->addr[0].u)
      continue;
    memcpy(&q->addr[q->num].u, a->ai_addr, a->ai_addrlen);
    q->addr[q->num++].len = a->ai_addrlen;
  }
  if (found)
    freeaddrinfo(found);
  if (!q->error && !q->num)
    q->error = EAI_NONAME;
}

bool resolve_numeric(struct resolve *q) {
  look_up(q, q->host, AI_NUMERICHOST);
  return !q->error;
}

// What the system says goes into a copy: the question may be gone when it has said it.
static void *work(void *arg) {
  struct resolver *r = arg;
  pthread_mutex_lock(&r->lock);
  while (!r->stop) {
    struct resolve *q = r->asked;
    if (!q) {
      pthread_cond_wait(&r->asked_one, &r->lock);
      continue;
    }
    r->asked = q->next;
    struct resolve copy = *q;
    pthread_mutex_unlock(&r->lock);
    look_up(&copy, copy.name, 0);
    pthread_mutex_lock(&r->lock);
    if (r->stop)
      break;
    q->error = copy.error;
    q->num = copy.num;
    memcpy(q->addr, copy.addr, sizeof q->addr);
    q->next = r->answered;
    r->answered = q;
    r->io->v->wake(r->io);
  }
  pthread_mutex_unlock(&r->lock);
  release(r);
  return NULL;
}

// Answers are taken at each turn, whatever ended the wait: a poll for them could fail, and nobody would be told of any again.
void resolver_run(struct resolver *r) {
  pthread_mutex_lock(&r->lock);
  struct resolve *q = r->answered;
  r->answered = NULL;
  pthread_mutex_unlock(&r->lock);
  while (q) {
    struct resolve *next = q->next;
    q->done(q);
    q = next;
  }
}

struct resolver *resolver_new(struct io *io) {
  struct resolver *r = calloc(1, sizeof *r);
  pthread_t thread;
  if (!r)
    return NULL;
  r->io = io;
  r->refs = 2;
  pthread_mutex_init(&r->lock, NULL);
  pthread_cond_init(&r->asked_one, NULL);
  if (pthread_create(&thread, NULL, work, r)) {
    r->refs = 1;
    release(r);
    return NULL;
  }
  pthread_detach(thread);
  return r;
}

void resolver_ask(struct resolver *r, struct resolve *q) {
  snprintf(q->name, sizeof q->name, "%s", q->host);
  pthread_mutex_lock(&r->lock);
  struct resolve **at = &r->asked;
  while (*at)
    at = &(*at)->next;
  q->next = NULL;
  *at = q;
  pthread_cond_signal(&r->asked_one);
  pthread_mutex_unlock(&r->lock);
}

void resolver_free(struct resolver *r) {
  if (!r)
    return;
  pthread_mutex_lock(&r->lock);
  r->stop = true;
  pthread_cond_signal(&r->asked_one);
  pthread_mutex_unlock(&r->lock);
  release(r);
}
