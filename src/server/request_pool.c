// The requests of a worker: taken and given back, and what was sent behind one, kept in others that nobody uses.
#include "server/conn.h"

static struct request *spare_request(struct worker *w) {
  struct request *rq = w->free_requests;
  if (rq)
    w->free_requests = rq->next;
  else if (w->requests_cut < w->num_requests)
    rq = &w->requests[w->requests_cut++];
  else
    return NULL;
  rq->w = w;
  rq->in_len = 0;
  return rq;
}

static void give_spare(struct worker *w, struct request *rq) {
  rq->next = w->free_requests;
  w->free_requests = rq;
}

struct request *request_take(struct conn *c) {
  struct request *rq = spare_request(c->w);
  if (!rq)
    return NULL;
  rq->conn = c;
  http_begin(&rq->parser);
  c->rq = rq;
  gauge_add(&c->w->m->connections_idle, -1);
  return rq;
}

static void drop_first_behind(struct request *rq) {
  struct request *first = rq->behind;
  rq->behind = first->next;
  rq->behind_at = 0;
  rq->w->num_behind--;
  give_spare(rq->w, first);
}

bool request_keep_ahead(struct request *rq, struct bytes data) {
  struct request *last = rq, **end = &rq->behind;
  for (; *end; end = &last->next)
    last = *end;
  for (;;) {
    size_t room = REQ_IN - last->in_len, n = data.n < room ? data.n : room;
    memcpy(last->in + last->in_len, data.p, n);
    last->in_len += (uint32_t)n;
    data = bytes_of(data.p + n, data.n - n);
    if (!data.n)
      return true;
    if (rq->w->num_behind == BEHIND_MAX || !(last = spare_request(rq->w)))
      return false;
    rq->w->num_behind++;
    last->next = NULL;
    *end = last;
    end = &last->next;
  }
}

size_t request_catch_up(struct request *rq, size_t n) {
  while (rq->behind && n < REQ_IN) {
    size_t left = rq->behind->in_len - rq->behind_at, k = left < REQ_IN - n ? left : REQ_IN - n;
    memcpy(rq->in + n, rq->behind->in + rq->behind_at, k);
    rq->behind_at += (uint32_t)k;
    n += k;
    if (k == left)
      drop_first_behind(rq);
  }
  rq->in_len = (uint32_t)n;
  return n;
}

void request_give(struct worker *w, struct request *rq) {
  if (rq->ready)
    w->ready[rq->ready - 1] = NULL;
  if (w->now.of == rq)
    w->now.of = NULL;
  if (w->next.of == rq)
    w->next.of = NULL;
  rq->ready = 0;
  request_release(rq);
  if (rq->conn) // it is still there
    gauge_add(&w->m->connections_idle, 1);
  rq->conn = NULL;
  while (rq->behind)
    drop_first_behind(rq);
  give_spare(w, rq);
}
