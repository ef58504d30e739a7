// What is TLS of a connection: its handshake, opening what comes, and what it says outside of responses.
#include "server/conn_int.h"

#include "obs/log.h"

// What a TLS connection says by itself is small and goes out at once: a socket that cannot take it is as good as gone.
static bool send_flight(struct conn *c, const struct tls_io *io) {
  struct worker *w = c->w;
  return io->out_len == 0 || w->io->v->send(w->io, c->fd, io->out, io->out_len, false) == (ssize_t)io->out_len;
}

static struct tls_io flight_io(struct worker *w, struct bytes in) {
  return (struct tls_io){.in = in.p, .in_len = in.n, .out = w->flight, .out_cap = TLS_FLIGHT};
}

bool conn_say(struct conn *c, const char *text, size_t n) {
  struct tls_io io = flight_io(c->w, (struct bytes){0});
  if (!conn_seals(c))
    return c->w->io->v->send(c->w->io, c->fd, text, n, false) == (ssize_t)n;
  return tls_write(c->tls, &io, (const uint8_t *)text, n) && send_flight(c, &io);
}

void conn_say_goodbye(struct conn *c) {
  struct tls_io io = flight_io(c->w, (struct bytes){0});
  if (!c->tls || !c->handshaken)
    return;
  if (c->offloaded) {
    ktls_close(c->fd);
    return;
  }
  tls_close(c->tls, &io);
  (void)send_flight(c, &io);
}

// For who wonders why a client cannot connect: at level debug only, or a scanner would fill the log. `why` NULL: TLS knows.
static void log_tls(struct conn *c, const char *why) {
  char ip[64] = "", text[128];
  struct writer w = wr_of(ip, sizeof ip - 1);
  if (!log_enabled(LOG_DEBUG))
    return;
  if (!why)
    tls_why(c->tls, text, sizeof text);
  conn_note_peer(c);
  access_write_ip(&w, c->ip);
  log_line(LOG_DEBUG, "TLS %s with %s failed: %s", c->handshaken ? "connection" : "handshake", ip, why ? why : text);
}

// The alert is out, and says what is wrong: closing on what the client has sent would reset the connection and could destroy it.
static void close_alerted(struct conn *c) {
  if (c->state == CONN_BUSY)
    conn_close(c);
  else
    conn_linger(c);
}

static void drop_tls(struct conn *c, const char *why) {
  obs_error(c->w->m, OBS_err_reset);
  log_tls(c, why);
  close_alerted(c);
}

// Who connects and says nothing, as those do who look whether a port is open, has not begun one.
void conn_handshake_ended(struct conn *c, const char *why) {
  if (!c->tls || c->handshaken || !c->greeted)
    return;
  metric_inc(&c->w->m->tls_failures);
  log_tls(c, why);
}

// false: no more to read now, or ever.
static bool shake_hands(struct conn *c, struct tls_io *io) {
  struct obs_worker *m = c->w->m;
  enum tls_result r = tls_handshake(c->tls, io);
  bool sent = send_flight(c, io);
  io->out_len = 0;
  if (r == TLS_WANT && sent)
    return false;
  if (r != TLS_OK || !sent) {
    conn_handshake_ended(c, r == TLS_FAILED ? NULL : "the client went away");
    if (r == TLS_FAILED && tls_is_http()) {
      char text[RESPOND_SHORT];
      (void)c->w->io->v->send(c->w->io, c->fd, text, respond_no_tls(c->w, text), false);
    }
    close_alerted(c);
    return false;
  }
  c->handshaken = true;
  c->offload = c->w->ktls;
  metric_inc(&m->tls_handshakes);
  if (tls_resumed(c->tls))
    metric_inc(&m->tls_resumed);
  return true;
}

void conn_tls_input(struct conn *c, struct bytes data) {
  struct worker *w = c->w;
  struct tls_io io = flight_io(w, data);
  size_t n = 0;
  c->greeted = true;
  if (c->state == CONN_LINGER || (!c->handshaken && !shake_hands(c, &io)))
    return;
  for (;;) {
    enum tls_result r = tls_read(c->tls, &io, w->opened, TLS_RECORD, &n);
    const char *why = NULL;
    if (c->offloaded ? io.out_len || ktls_stale(c->tls) : !send_flight(c, &io)) { // only the kernel could seal an answer now
      why = r == TLS_FAILED ? NULL : "the client takes nothing, or asks for new keys of the kernel's";
      r = TLS_FAILED;
    }
    io.out_len = 0;
    if (r == TLS_WANT)
      return;
    if (r == TLS_FAILED) {
      drop_tls(c, why);
      return;
    }
    if (r == TLS_ENDED) {
      if (c->state == CONN_BUSY) {
        c->peer_ended = true;
      } else {
        conn_say_goodbye(c);
        conn_close(c);
      }
      return;
    }
    conn_input(c, bytes_of(w->opened, n));
    if (c->state >= CONN_LINGER)
      return;
  }
}
