// Bodies on their way to the socket: render as much as a buffer holds behind its head, send it in one call, keep the
// buffer only when the socket is full and buffers are plenty.
#include "server/conn.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

bool out_pool_init(struct out_pool *p, uint32_t num) {
  size_t len = (size_t)num * OUT_SIZE;
  void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  *p = (struct out_pool){.num = num, .num_free = num, .keep = num / 4 < 2 ? 2 : num / 4};
  if (mem == MAP_FAILED)
    return false;
  p->mem = mem;
  line_init(&p->held);
  p->free = calloc(num, sizeof *p->free);
  if (!p->free)
    return false;
  for (uint32_t i = 0; i < num; i++)
    p->free[i] = p->mem + (size_t)i * OUT_SIZE;
  return true;
}

void out_pool_free(struct out_pool *p) {
  if (p->mem)
    munmap(p->mem, (size_t)p->num * OUT_SIZE);
  free(p->free);
  *p = (struct out_pool){0};
}

static void pool_give(struct worker *w, uint8_t *buffer) {
  w->out.free[w->out.num_free++] = buffer;
  gauge_add(&w->m->buffers_used, -1);
}

static uint8_t *pool_take(struct worker *w) {
  gauge_add(&w->m->buffers_used, 1);
  return w->out.free[--w->out.num_free];
}

static void hold(struct request *rq) {
  struct line *held = &rq->w->out.held;
  line_leave(held, &rq->hold); // who took something holds anew
  line_join(held, &rq->hold);
}

static void buffer_give(struct request *rq) {
  line_leave(&rq->w->out.held, &rq->hold);
  pool_give(rq->w, rq->out);
  rq->out = NULL;
}

void pump_release_buffer(struct request *rq) {
  if (rq->out_at < rq->out_body) { // part of a head: it would not come out the same again
    uint32_t n = rq->out_body - rq->out_at;
    memcpy(rq->lit, rq->out + rq->out_at, n);
    rq->lit_at = 0;
    rq->lit_len = n;
    rq->out_at = rq->out_body;
  }
  struct plan_range *r = &rq->ranges[rq->range];
  r->off -= rq->out_end - rq->out_at;
  r->len += rq->out_end - rq->out_at;
  buffer_give(rq);
}

static void sealed_give(struct request *rq) {
  if (rq->sealed && rq->sealed != rq->record)
    pool_give(rq->w, rq->sealed);
  rq->sealed = NULL;
  rq->sealed_at = rq->sealed_end = 0;
}

void pump_abandon(struct request *rq) {
  if (rq->out)
    buffer_give(rq);
  sealed_give(rq);
}

// source_of gets the source bytes of the piece that holds output offset `off`.
static int source_of(struct request *rq, struct plan_range piece, struct bytes *src, uint64_t *src_off) {
  if (rq->block && rq->block_piece == piece.off) {
    *src = bytes_of(rq->block->p, rq->block->n);
    *src_off = rq->block->src_off;
    return CAT_OK;
  }
  if (rq->block) {
    block_free(rq->block);
    rq->block = NULL;
  }
  struct worker *w = rq->w;
  struct cat_wait *wait = &rq->wait;
  if (!rq->ask_again) { // a repeated lookup keeps its wait
    void (*wake)(struct cat_wait *) = wait->wake;
    memset(wait, 0, sizeof *wait);
    wait->wake = wake;
  }
  rq->ask_again = false;
  int status = track_source(w->s->catalog, rq->track, src, src_off, piece.off, w->m, wait);
  rq->block_piece = piece.off;
  if (status == CAT_WAIT) {
    rq->waiting = WAIT_SOURCE;
    w->num_waiting++;
  }
  return status;
}

void pump_next(struct worker *w, struct request *next) {
  w->now = w->next;
  w->next.of = next;
  if (!next)
    return;
  struct plan_range r = next->ranges[next->range];
  struct bytes src = {0};
  if (r.off == track_piece(next->track, r.off).off)
    src = track_ahead(w->s->catalog, next->track, r.off);
  w->next.left = (struct aes_ahead){src.p, src.n < OUT_BODY ? src.n : OUT_BODY};
}

// Two dozen CBC lanes defeat the hardware prefetcher: bring the source in linearly first, as far as the rendering before has
// not done so.
static void touch_source(struct request *rq, struct plan_range piece, struct plan_range r, struct bytes src, uint64_t src_off) {
  struct ahead *now = &rq->w->now;
  if (now->of == rq && now->left.p >= src.p && now->left.p <= src.p + src.n) {
    now->of = NULL;
    plan_touch(bytes_of(now->left.p, now->left.n));
    return;
  }
  if (r.len < piece.len) {
    struct plan_range need = plan_source(&rq->track->plan, r);
    src = need.len ? bytes_of(src.p + (need.off - src_off), need.len) : (struct bytes){0};
  }
  plan_touch(src);
}

// render_some writes bytes of the current range to `out`, at most `cap`, over as many pieces as have their source at hand.
static int render_some(struct request *rq, uint8_t *out, size_t cap, size_t *written) {
  struct worker *w = rq->w;
  struct plan_range *r = &rq->ranges[rq->range];
  const struct protected_track *t = rq->track;
  *written = 0;
  while (r->len && *written < cap) {
    struct plan_range piece = track_piece(t, r->off);
    struct bytes src = {0};
    uint64_t src_off = 0, n = piece.off + piece.len - r->off;
    int status = source_of(rq, piece, &src, &src_off);
    if (status != CAT_OK)
      return status;
    n = n < r->len ? n : r->len;
    n = n < cap - *written ? n : cap - *written;
    if (t->prot.scheme == SCHEME_CBCS)
      touch_source(rq, piece, (struct plan_range){r->off, n}, src, src_off);
    plan_render_ahead(&t->plan, w->s->ops, (struct plan_range){r->off, n}, src, src_off, out + *written,
                      w->next.of && w->next.of != rq ? &w->next.left : NULL);
    *written += n;
    r->off += n;
    r->len -= n;
  }
  return CAT_OK;
}

static void count_rendered(struct request *rq, size_t n) {
  struct obs_worker *m = rq->w->m;
  if (rq->body != BODY_TRACK)
    return;
  enum scheme s = rq->track->prot.scheme;
  metric_add(s == SCHEME_CENC ? &m->bytes_cenc : s == SCHEME_CBCS ? &m->bytes_cbcs : &m->bytes_clear, n);
}

// `n` bytes of body are in the buffer: what is literal goes in front of them.
static void filled(struct request *rq, size_t n) {
  uint32_t lit = rq->lit_len - rq->lit_at;
  memcpy(rq->out + OUT_HEAD - lit, rq->lit + rq->lit_at, lit);
  rq->lit_at = rq->lit_len = 0;
  rq->out_at = OUT_HEAD - lit;
  rq->out_body = OUT_HEAD;
  rq->out_end = OUT_HEAD + (uint32_t)n;
}

enum fill { FILL_OK, FILL_WAIT, FILL_FAILED };

static enum fill fill(struct request *rq) {
  struct plan_range *r = &rq->ranges[rq->range];
  if (rq->waiting)
    return FILL_WAIT;
  if (rq->source_status)
    return FILL_FAILED;
  size_t n = 0;
  int status = CAT_OK;
  // What a slow reader will not take is not worth rendering.
  size_t cap = rq->robbed ? OUT_BODY / 4 : OUT_BODY;
  if (conn_seals(rq->conn))
    cap -= OUT_TLS;
  // Rendering ends within the callback, and whoever holds a buffer beyond it leaves `keep` free, or takes another's: there is one.
  rq->out = pool_take(rq->w);
  if (rq->body == BODY_TEXT) {
    n = r->len < cap ? (size_t)r->len : cap;
    memcpy(rq->out + OUT_HEAD, rq->text->body.p + r->off, n);
    r->off += n;
    r->len -= n;
  } else {
    status = render_some(rq, rq->out + OUT_HEAD, cap, &n);
  }
  if (status != CAT_OK && status != CAT_WAIT) {
    rq->source_status = (uint16_t)status;
    buffer_give(rq);
    return FILL_FAILED;
  }
  if (n == 0) {
    buffer_give(rq);
    return FILL_WAIT;
  }
  count_rendered(rq, n);
  filled(rq, n);
  return FILL_OK;
}

// Who has held a buffer longest without taking a byte gives it up, so that slow readers cost each other and nobody else.
static void rob(struct request *rq) {
  rq->robbed = true;
  pump_release_buffer(rq);
}

static enum pump_result blocked(struct request *rq) {
  enum { SCARCE_STALL_MS = 250 };
  struct conn *c = rq->conn;
  struct worker *w = rq->w;
  if (rq->out && rq->out_at == rq->out_end)
    pump_release_buffer(rq);
  else if (rq->out)
    hold(rq);
  if (w->out.num_free < w->out.keep && w->out.held.first)
    rob(OWNER(struct request, hold, w->out.held.first));
  if (!io_armed(&c->poll))
    w->io->v->poll(w->io, &c->poll, c->fd, IO_POLL_OUT);
  rq->stalled = false;
  // Readers who stop would keep everybody else from storage. Who goes on soon keeps its block: all of it would be read again for each
  // full socket, and the response cut where there is no memory for that.
  rq->stall_ms = server_config(w->s)->stall_timeout;
  if (rq->block && rq->stall_ms > SCARCE_STALL_MS && blocks_are_scarce(w->s->catalog))
    rq->stall_ms = SCARCE_STALL_MS;
  conn_deadline(c, rq->stall_ms);
  return PUMP_BLOCKED;
}

static enum pump_result send_failed(struct request *rq, ssize_t e) {
  if (e == -EAGAIN)
    return blocked(rq);
  obs_error(rq->w->m, OBS_err_reset);
  return PUMP_FAILED;
}

static void note_sent(struct request *rq, size_t n) {
  rq->sent += n;
  if (rq->head_sent)
    return;
  rq->head_sent = true;
  rq->first_ns = rq->w->io->v->now_ns(rq->w->io);
}

// send_sealed sends the records that are ready. PUMP_DONE: all of them are out.
static enum pump_result send_sealed(struct request *rq) {
  struct worker *w = rq->w;
  ssize_t n = w->io->v->send(w->io, rq->conn->fd, rq->sealed + rq->sealed_at, rq->sealed_end - rq->sealed_at, false);
  if (n < 0)
    return send_failed(rq, n);
  rq->sealed_at += (uint32_t)n;
  if (rq->sealed_at < rq->sealed_end)
    return blocked(rq);
  sealed_give(rq);
  return PUMP_DONE;
}

// seal makes records of [*at, end): all of them while buffers are plenty, while the bytes are in cache; the first one of a
// response is short, so that the client can begin.
static enum pump_result seal(struct request *rq, const uint8_t *p, uint32_t *at, uint32_t end) {
  enum { FIRST_RECORD = 4096 };
  struct worker *w = rq->w;
  bool plenty = w->out.num_free > w->out.keep;
  rq->sealed = plenty ? pool_take(w) : rq->record;
  struct tls_io io = {.out = rq->sealed, .out_cap = plenty ? OUT_SIZE : sizeof rq->record};
  do {
    uint32_t n = end - *at, limit = rq->head_sent ? TLS_RECORD : FIRST_RECORD;
    size_t taken = tls_write(rq->conn->tls, &io, p + *at, n < limit ? n : limit);
    if (taken == 0)
      return send_failed(rq, -ECONNRESET);
    *at += (uint32_t)taken;
    note_sent(rq, taken);
  } while (*at < end && io.out_cap - io.out_len >= TLS_ROOM);
  rq->sealed_at = 0;
  rq->sealed_end = (uint32_t)io.out_len;
  return send_sealed(rq);
}

// send_out sends [*at, end), or over TLS seals and sends some of it; PUMP_DONE: go on.
static enum pump_result send_out(struct request *rq, const uint8_t *p, uint32_t *at, uint32_t end) {
  struct worker *w = rq->w;
  if (conn_seals(rq->conn))
    return seal(rq, p, at, end);
  ssize_t n = w->io->v->send(w->io, rq->conn->fd, p + *at, end - *at, rq->followed);
  if (n < 0)
    return send_failed(rq, n);
  rq->conn->held_back = rq->followed;
  note_sent(rq, (size_t)n);
  *at += (uint32_t)n;
  return *at == end ? PUMP_DONE : blocked(rq);
}

// While nothing of the response has left it can still become an error.
static enum pump_result fail(struct request *rq) {
  unsigned status = rq->source_status;
  rq->why = rq->wait.why;
  if (rq->head_sent) {
    respond_count(rq, status);
    return PUMP_FAILED;
  }
  request_release(rq);
  rq->source_status = 0;
  respond_status(rq, status);
  return PUMP_DONE;
}

// Rendered afresh into its place in the cache of encrypted segments.
static bool hot_fill(struct request *rq, struct hot *h, struct plan_range piece) {
  struct bytes src = {0};
  uint64_t src_off = 0;
  bool ok = source_of(rq, piece, &src, &src_off) == CAT_OK;
  if (ok)
    plan_render(&rq->track->plan, rq->w->s->ops, piece, src, src_off, h->ref.data);
  catalog_hot_done(rq->w->s->catalog, h, ok);
  if (ok)
    count_rendered(rq, (size_t)piece.len);
  return ok;
}

enum { HOT_COPIED = 8192 }; // bytes: where less is asked for, it is copied behind the head; a sendfile of its own costs more

// Sends from the cache of encrypted segments what is there. PUMP_DONE with *used false: nothing is, or it could not be taken now.
static enum pump_result hot_send(struct request *rq, bool *used) {
  struct worker *w = rq->w;
  struct plan_range *r = &rq->ranges[rq->range];
  struct hot h;
  *used = false;
  if (!w->s->first->cache_encrypted || rq->body != BODY_TRACK || conn_seals(rq->conn) || rq->waiting || rq->source_status || rq->ask_again)
    return PUMP_DONE;
  struct plan_range piece = track_piece(rq->track, r->off);
  bool whole = r->off == piece.off && r->len >= piece.len;
  enum hot_got got = catalog_hot(w->s->catalog, &h, rq->track, piece, whole, w->m);
  if (got == HOT_NONE || (got == HOT_FILL && !hot_fill(rq, &h, piece)))
    return PUMP_DONE;
  *used = true;
  uint64_t skip = r->off - piece.off, left = piece.len - skip;
  left = left < r->len ? left : r->len;
  if (left < HOT_COPIED) {
    rq->out = pool_take(w);
    memcpy(rq->out + OUT_HEAD, h.ref.data + skip, (size_t)left);
    r->off += left;
    r->len -= left;
    filled(rq, (size_t)left);
    return PUMP_DONE;
  }
  uint32_t lit = rq->lit_len - rq->lit_at;
  if (lit) {
    ssize_t n = w->io->v->send(w->io, rq->conn->fd, rq->lit + rq->lit_at, lit, true);
    if (n < 0)
      return send_failed(rq, n);
    rq->conn->held_back = true;
    note_sent(rq, (size_t)n);
    rq->lit_at += (uint32_t)n;
    if ((uint32_t)n < lit)
      return blocked(rq);
    rq->lit_at = rq->lit_len = 0;
  }
  ssize_t n = w->io->v->sendfile(w->io, rq->conn->fd, h.fd, h.off + skip, (size_t)left);
  if (n < 0)
    return send_failed(rq, n);
  rq->conn->held_back = (uint64_t)n < left;
  note_sent(rq, (size_t)n);
  r->off += (uint64_t)n;
  r->len -= (uint64_t)n;
  return (uint64_t)n == left ? PUMP_DONE : blocked(rq);
}

enum pump_result pump(struct request *rq) {
  for (;;) {
    enum pump_result sent = PUMP_DONE;
    if (rq->sealed_at < rq->sealed_end) {
      sent = send_sealed(rq);
    } else if (rq->out) {
      if (rq->out_at < rq->out_end)
        sent = send_out(rq, rq->out, &rq->out_at, rq->out_end);
      if (sent == PUMP_DONE && rq->out_at == rq->out_end)
        buffer_give(rq);
    } else if (rq->range < rq->num_ranges && rq->ranges[rq->range].len == 0) {
      rq->range++;
      if (rq->multipart)
        respond_part(rq);
    } else if (rq->range < rq->num_ranges) {
      bool used;
      sent = hot_send(rq, &used);
      enum fill f = used || sent != PUMP_DONE ? FILL_OK : fill(rq);
      if (f == FILL_WAIT)
        return PUMP_BLOCKED;
      if (f == FILL_FAILED)
        sent = fail(rq);
    } else if (rq->lit_at < rq->lit_len) {
      sent = send_out(rq, (const uint8_t *)rq->lit, &rq->lit_at, rq->lit_len);
    } else {
      return PUMP_DONE;
    }
    if (sent != PUMP_DONE)
      return sent;
  }
}
