// A client connection to a key server over a world that the input plays: what comes when and in which pieces, over TCP or TLS, what
// the socket takes, how long it lasts, what the owner does meanwhile. Whatever happens, each request ends once and never inside a call,
// as the bytes that came for it say when they are read at once and one by one; they are the server's, in order; the server got the request
// or its beginning; no descriptor, operation, timer or secret is left. Source: net/io.h, RFC 9112 §6.3, §9, RFC 8446 §6.1.
// Input: wishes (W_*), how many steps, the steps, then what the server says. A step is 3 bits of what, 5 bits of how (step()).
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/writer.h"
#include "net/http_response.h"
#include "fuzz.h"

// The system and the reader of responses, as http_client.c sees them.
static int world_socket(int family, int type, int protocol);
static int world_connect(int fd, const struct sockaddr *addr, socklen_t len);
static int world_option(int fd, int level, int name, void *value, socklen_t *len);
static enum http_response_state world_feed(struct http_response *r, size_t *used, struct bytes data);
#define socket world_socket
#define connect world_connect
#define getsockopt world_option
#define setsockopt(fd, level, name, value, len) ((void)(value), 0)
#define fcntl(...) 0
#define http_response_feed world_feed
#include "net/http_client.c" // NOLINT(bugprone-suspicious-include)
#undef socket
#undef connect
#undef getsockopt
#undef setsockopt
#undef fcntl
#undef http_response_feed

enum { W_HEAD = 1, W_SHORT = 2, W_STOPS = 4, W_TLS = 8, W_ONCE = 16, W_PHASES = 32, W_TOTAL = 64, W_WRONG_HOST = 128 };
enum { MAX_BODY = 64, STOP_BEHIND = 100, ROOM = 1 << 18, ALL = 31, PHASE_MS = 1000, TOTAL_MS = 3000, LATE_MS = 2 * TIMER_TICK_MS };
enum next { NEXT_NOTHING, NEXT_SEND, NEXT_CLOSE, NEXT_SEND_ELSEWHERE, NEXT_CLOSE_AND_SEND, NUM_NEXT };

static const char request_head[] = "POST /keys HTTP/1.1\r\nHost: keys.example\r\nContent-Length: 40\r\n\r\n";
static const char request_body[] = "0123456789abcdef0123456789abcdef01234567";
enum { HEAD_LEN = sizeof request_head - 1, BODY_LEN = sizeof request_body - 1 };

// The owner of a response: what it was told.
struct owner {
  struct http_response *r;
  struct writer head, body;
  bool stops;
};

static uint8_t text[6][ROOM];

static struct world {
  struct io io;
  struct http_client_net net;
  struct timers timers;
  struct http_client c;
  struct http_client_target target[2];
  struct owner owner;
  uint8_t wishes;
  uint64_t now_ns;
  struct bytes stream; // what the server has yet to say
  // The socket, one at a time.
  int fd;
  struct io_op *recv, *poll;
  bool recv_cancelled, poll_cancelled, connecting, shut, broken;
  unsigned how_to_connect, connected_to;
  size_t room, queue_at;
  struct writer queue, got; // for the client; from it, opened
  struct bytes said;        // of the stream, on this connection and not yet read by the client
  unsigned served;
  uint8_t *buffer; // of the event that is under way
  size_t buffer_len;
  // The server's side of TLS.
  struct tls_set *server;
  struct tls_conn *peer;
  struct writer sealed;
  size_t sealed_at;
  bool shaken, closed, tampered;
  // The request under way.
  bool under_way, ended;
  unsigned inside, sends, next, sent_to;
  uint64_t send_ms;
  size_t got_at;
  struct writer fed;
} w;

static uint64_t ms(void) { return w.now_ns / 1000000; }

// What the client asks of the system.

static int world_socket(int family, int type, int protocol) {
  static int next = 1000;
  (void)protocol;
  MUST(family == AF_INET && type == (SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC) && w.fd < 0 && !w.recv && !w.poll);
  if (w.how_to_connect == 3) {
    w.how_to_connect = 0;
    errno = EMFILE;
    return -1;
  }
  tls_free(w.peer);
  w.peer = NULL;
  w.recv_cancelled = w.poll_cancelled = w.shut = w.broken = w.shaken = w.closed = w.ended = w.tampered = false;
  w.served = 0;
  w.room = SIZE_MAX;
  w.queue_at = w.sealed_at = w.got_at = 0;
  w.queue.n = w.got.n = w.sealed.n = 0;
  w.said = bytes_of(w.stream.p, 0);
  return w.fd = next++;
}

static int world_connect(int fd, const struct sockaddr *addr, socklen_t len) {
  MUST(fd == w.fd && addr && len == sizeof(struct sockaddr_in));
  w.connecting = true;
  w.connected_to = ((const struct sockaddr_in *)(const void *)addr)->sin_port;
  errno = w.how_to_connect == 1 ? ECONNREFUSED : EINPROGRESS;
  if (w.how_to_connect == 1)
    w.how_to_connect = 0;
  return -1;
}

static int world_option(int fd, int level, int name, void *value, socklen_t *len) {
  MUST(fd == w.fd && w.connecting && level == SOL_SOCKET && name == SO_ERROR && *len == sizeof(int));
  w.connecting = false;
  *(int *)value = w.how_to_connect == 2 ? EHOSTUNREACH : 0;
  w.how_to_connect = 0;
  return 0;
}

static void op_recv(struct io *io, struct io_op *op, int fd) {
  MUST(io == &w.io && fd == w.fd && !w.recv && !op->armed && op->done && !w.connecting && !w.shut);
  op->armed = 1;
  w.recv = op;
}

static void op_poll(struct io *io, struct io_op *op, int fd, unsigned events) {
  MUST(io == &w.io && fd == w.fd && !w.poll && !op->armed && op->done && events == IO_POLL_OUT && !w.shut);
  op->armed = 1;
  w.poll = op;
}

static void op_cancel(struct io *io, struct io_op *op) {
  MUST(io == &w.io && op->armed && (op == w.recv || op == w.poll));
  w.recv_cancelled |= op == w.recv;
  w.poll_cancelled |= op == w.poll;
}

static void op_recv_done(struct io *io, uint16_t buf) {
  MUST(io == &w.io && buf == 7 && w.buffer);
  for (size_t i = 0; i < w.buffer_len && !w.peer; i++) // of TLS what came is sealed
    MUST(!w.buffer[i]);
  free(w.buffer);
  w.buffer = NULL;
}

static ssize_t op_send(struct io *io, int fd, const void *p, size_t n, bool more) {
  (void)more;
  MUST(io == &w.io && fd == w.fd && n && !w.connecting && !w.shut);
  if (w.broken)
    return -EPIPE;
  if (!w.room)
    return -EAGAIN;
  n = n < w.room ? n : w.room;
  w.room -= n;
  wr_raw(w.peer ? &w.sealed : &w.got, p, n);
  return (ssize_t)n;
}

static int op_shutdown(struct io *io, int fd, int how) {
  MUST(io == &w.io && fd == w.fd && how == SHUT_RDWR && !w.shut);
  w.shut = true;
  return 0;
}

static void op_close(struct io *io, int fd) {
  MUST(io == &w.io && fd == w.fd && !w.recv && !w.poll);
  w.fd = -1;
  w.connecting = false;
}

static uint64_t op_now_ns(struct io *io) { return io == &w.io ? w.now_ns : 0; }

static const struct io_ops ops = {.name = "input", .recv = op_recv, .recv_done = op_recv_done, .send = op_send, .poll = op_poll, .shutdown = op_shutdown,
                                  .close = op_close, .cancel = op_cancel, .now_ns = op_now_ns};

// Responses.

static void on_header(struct http_response *r, struct bytes name, struct bytes value) {
  struct owner *o = r->owner;
  wr_bytes(&o->head, name);
  wr_u8(&o->head, ':');
  wr_bytes(&o->head, value);
  wr_u8(&o->head, '\n');
}

static bool on_body(struct http_response *r, struct bytes piece) {
  struct owner *o = r->owner;
  wr_bytes(&o->body, piece);
  return !o->stops || o->body.n <= STOP_BEHIND;
}

static void set_owner(struct http_response *r, struct owner *o) {
  r->owner = o;
  r->header = on_header;
  r->body = on_body;
  r->max_body = w.wishes & W_SHORT ? MAX_BODY : 0;
  o->stops = (w.wishes & (W_STOPS | W_SHORT)) == W_STOPS;
}

// What is read is what the server said next.
static enum http_response_state world_feed(struct http_response *r, size_t *used, struct bytes data) {
  MUST(w.under_way && data.n && data.n <= w.said.n && !memcmp(data.p, w.said.p, data.n));
  w.said = bytes_of(w.said.p + data.n, w.said.n - data.n);
  wr_bytes(&w.fed, data);
  return http_response_feed(r, used, data);
}

// The bytes of this request, read anew in pieces of `most`, say the same.
static void check_response(const struct http_client_result *res, size_t most) {
  static uint8_t head[ROOM], body[ROOM];
  static struct http_response r;
  struct owner o = {.head = wr_of(head, sizeof head), .body = wr_of(body, sizeof body)};
  enum http_response_state state = HTTP_RESPONSE_MORE;
  size_t used = 0;
  r = (struct http_response){0};
  set_owner(&r, &o);
  http_response_begin(&r, w.wishes & W_HEAD);
  for (size_t at = 0, n; at < w.fed.n && state == HTTP_RESPONSE_MORE; at += n) {
    n = most < w.fed.n - at ? most : w.fed.n - at;
    state = http_response_feed(&r, &used, bytes_of(w.fed.p + at, n));
  }
  switch (res->end) {
  case HTTP_CLIENT_OK:
    if (state == HTTP_RESPONSE_MORE && w.ended)
      state = http_response_ended(&r);
    MUST(state == HTTP_RESPONSE_WHOLE);
    break;
  case HTTP_CLIENT_BAD: MUST(state == HTTP_RESPONSE_BAD); break;
  case HTTP_CLIENT_LIMIT: MUST(state == HTTP_RESPONSE_LIMIT); break;
  case HTTP_CLIENT_STOPPED: MUST(state == HTTP_RESPONSE_STOPPED); break;
  case HTTP_CLIENT_CONNECT:
  case HTTP_CLIENT_TLS: MUST(!w.fed.n); break;
  case HTTP_CLIENT_TIMEOUT:
  case HTTP_CLIENT_CUT: MUST(state == HTTP_RESPONSE_MORE); break;
  }
  if (res->end != HTTP_CLIENT_OK)
    return;
  MUST(w.connected_to == w.sent_to);
  if (w.fd >= 0 && !w.shut && most > 1) // it is kept
    MUST(r.keep_alive && used == w.fed.n && res->sent_ns);
  MUST(r.status == res->status && res->status >= 200 && r.body_len == w.c.response.body_len && r.content_length == w.c.response.content_length);
  MUST(bytes_eq(bytes_of(head, o.head.n), bytes_of(w.owner.head.p, w.owner.head.n)));
  MUST(bytes_eq(bytes_of(body, o.body.n), bytes_of(w.owner.body.p, w.owner.body.n)));
}

// The owner.

static void read_as_peer(void);

static void send_to(unsigned target) {
  MUST(!w.under_way);
  w.under_way = true;
  w.sent_to = target;
  w.sends++;
  w.send_ms = ms();
  read_as_peer();
  w.got_at = w.got.n;
  w.fed.n = w.owner.head.n = w.owner.body.n = 0;
  w.inside++;
  http_client_send(&w.c, &w.target[target], bytes_of(request_head, HEAD_LEN), bytes_of(request_body, BODY_LEN), w.wishes & W_HEAD);
  w.inside--;
}

static void close_client(void) {
  w.under_way = false;
  w.inside++;
  http_client_close(&w.c);
  w.inside--;
}

static void do_next(enum next next) {
  if (next == NEXT_CLOSE || next == NEXT_CLOSE_AND_SEND)
    close_client();
  if (next != NEXT_NOTHING && next != NEXT_CLOSE && !w.under_way)
    send_to(next == NEXT_SEND_ELSEWHERE);
}

// What arrived of the request is its beginning; all of it, when it was sent and nothing was tampered with.
static void check_request(const struct http_client_result *r) {
  uint8_t whole[HEAD_LEN + BODY_LEN];
  memcpy(whole, request_head, HEAD_LEN);
  memcpy(whole + HEAD_LEN, request_body, BODY_LEN);
  read_as_peer();
  size_t n = w.got.n - w.got_at;
  MUST(n <= sizeof whole && !memcmp(w.got.p + w.got_at, whole, n));
  if (r->sent_ns && !w.peer)
    MUST(n == sizeof whole);
}

static void check_times(const struct http_client_result *r) {
  uint64_t least = w.wishes & W_PHASES ? PHASE_MS : w.wishes & W_TOTAL ? TOTAL_MS : UINT64_MAX;
  MUST(r->sent_ns <= w.now_ns && r->first_byte_ns <= w.now_ns && r->connected_ns <= w.now_ns);
  MUST((!r->sent_ns && !r->first_byte_ns) || r->connected_ns);
  MUST(r->end != HTTP_CLIENT_TIMEOUT || (least != UINT64_MAX && ms() >= w.send_ms + least));
  MUST(!(w.wishes & W_TOTAL) || ms() <= w.send_ms + TOTAL_MS + LATE_MS + TIMER_TICK_MS * ALL);
}

static void on_done(struct http_client *c, const struct http_client_result *r) {
  MUST(c == &w.c && w.under_way && !w.inside && (r->end == HTTP_CLIENT_OK || *r->why));
  MUST(r->reused == (w.served > 0) || r->end != HTTP_CLIENT_OK);
  MUST(!r->first_byte_ns == !w.fed.n);
  check_times(r);
  check_response(r, w.fed.n);
  check_response(r, 1);
  if (w.fd >= 0 && !w.shut)
    check_request(r);
  w.served++;
  w.under_way = false;
  enum next next = (enum next)w.next;
  w.next = NEXT_NOTHING;
  do_next(next);
}

// The server.

static void read_as_peer(void) {
  static uint8_t out[TLS_FLIGHT], plain[TLS_RECORD];
  struct tls_io t = {.in = w.sealed.p + w.sealed_at, .in_len = w.sealed.n - w.sealed_at, .out = out, .out_cap = sizeof out};
  size_t n;
  if (!w.peer || w.closed)
    return;
  enum tls_result r = w.shaken ? TLS_OK : tls_handshake(w.peer, &t);
  wr_raw(&w.queue, out, t.out_len);
  w.shaken = r == TLS_OK;
  while (r == TLS_OK) {
    t.out_len = 0;
    r = tls_read(w.peer, &t, plain, sizeof plain, &n);
    if (r == TLS_OK)
      wr_raw(&w.got, plain, n);
    wr_raw(&w.queue, out, t.out_len);
  }
  w.sealed_at = w.sealed.n - t.in_len;
  w.closed = r == TLS_FAILED || r == TLS_ENDED;
  MUST(r != TLS_FAILED || w.tampered || w.wishes & W_WRONG_HOST); // what was not meddled with opens
}

static void say(size_t n) {
  static uint8_t out[TLS_FLIGHT];
  n = n < w.stream.n ? n : w.stream.n;
  if (w.target[0].tls) {
    read_as_peer();
    struct tls_io t = {.out = out, .out_cap = sizeof out};
    n = n && w.shaken && !w.closed && w.peer ? tls_write(w.peer, &t, w.stream.p, n) : 0;
    wr_raw(&w.queue, out, t.out_len);
  } else {
    wr_raw(&w.queue, w.stream.p, n);
  }
  w.said.n += n;
  w.stream = bytes_of(w.stream.p + n, w.stream.n - n);
}

static void close_as_peer(void) {
  static uint8_t out[TLS_FLIGHT];
  struct tls_io t = {.out = out, .out_cap = sizeof out};
  if (!w.peer || !w.shaken || w.closed)
    return;
  tls_close(w.peer, &t);
  wr_raw(&w.queue, out, t.out_len);
  w.closed = w.ended = true;
}

// Completions.

static void complete(struct io_op **op, int32_t res, struct bytes data, bool more) {
  struct io_op *o = *op;
  if (!more) {
    *op = NULL;
    o->armed = 0;
  }
  o->done(&w.io, o, &(struct io_event){.res = res, .more = more, .data = data, .buf = 7});
  MUST(!w.buffer);
  for (size_t i = 0; i < 4096; i++)
    MUST(!w.net.plain[i]);
}

static void complete_cancelled(void) {
  for (unsigned i = 0; i < 4 && ((w.recv && w.recv_cancelled) || (w.poll && w.poll_cancelled)); i++) {
    if (w.recv && w.recv_cancelled) {
      w.recv_cancelled = false;
      complete(&w.recv, -ECANCELED, bytes_of(NULL, 0), false);
    }
    if (w.poll && w.poll_cancelled) {
      w.poll_cancelled = false;
      complete(&w.poll, -ECANCELED, bytes_of(NULL, 0), false);
    }
  }
}

static void deliver(size_t n) {
  size_t there = w.queue.n - w.queue_at;
  n = n < there ? n : there;
  if (!w.recv || !n)
    return;
  w.buffer = malloc(n);
  MUST(w.buffer);
  w.buffer_len = n;
  memcpy(w.buffer, w.queue.p + w.queue_at, n);
  w.queue_at += n;
  complete(&w.recv, (int32_t)n, bytes_of(w.buffer, n), !(w.wishes & W_ONCE));
}

static void end_with(int32_t res) {
  if (!w.recv)
    return;
  w.ended |= !res && !w.target[0].tls;
  complete(&w.recv, res, bytes_of(NULL, 0), false);
}

static void let_send(size_t room) {
  w.room = room;
  if (w.poll && (room || w.connecting)) {
    bool begins = w.connecting && w.c.target->tls && w.how_to_connect != 2;
    if (begins)
      MUST((w.peer = tls_accept(w.server)) != NULL);
    complete(&w.poll, IO_POLL_OUT, bytes_of(NULL, 0), false);
  }
}

static void pass(uint64_t ticks) {
  for (; ticks; ticks--) {
    w.now_ns += TIMER_TICK_MS * (uint64_t)1000000;
    timers_run(&w.timers, ms(), NULL);
  }
  uint64_t until = w.c.total_until_ms < w.c.phase_until_ms ? w.c.total_until_ms : w.c.phase_until_ms;
  MUST(!w.under_way || w.c.failed || until == UINT64_MAX || ms() <= until + LATE_MS);
  MUST(!w.c.failed || timer_is_set(&w.c.timer));
}

static void tamper(unsigned how) {
  switch (how % 8) {
  case 0: end_with(0); break;
  case 1: w.broken = true, end_with(-ECONNRESET); break;
  case 2: end_with(-EAGAIN); break;
  case 3: end_with(-EINTR); break;
  case 4: close_as_peer(), deliver(SIZE_MAX), end_with(0); break;
  case 5: w.broken = true; break;
  case 6: end_with(-ENOBUFS); break;
  case 7:
    w.tampered = true;
    if (w.peer && w.queue.n > w.queue_at)
      w.queue.p[w.queue_at + (how / 8 * 37) % (w.queue.n - w.queue_at)] ^= 4;
    break;
  }
}

static void step(uint8_t b) {
  unsigned what = b & 7, how = b >> 3;
  if (what > 1)
    complete_cancelled();
  read_as_peer();
  switch (what) {
  case 0: say(how == ALL ? SIZE_MAX : how + 1), deliver(SIZE_MAX); break;
  case 1:
    if (w.queue_at == w.queue.n)
      say(16);
    deliver(how + 1);
    break;
  case 2: let_send(how == ALL ? SIZE_MAX : how * 8); break;
  case 3: pass(how + 1); break;
  case 4: tamper(how); break;
  case 5: do_next((enum next)(how % NUM_NEXT)); break;
  case 6: w.how_to_connect = how % 4; break;
  case 7: w.next = how % NUM_NEXT; break;
  }
}

// Certificate and key of the server, made once.

static const char *as_file(char path[32], EVP_PKEY *key, X509 *cert) {
  int fd = memfd_create("pem", MFD_CLOEXEC);
  FILE *f = fd < 0 ? NULL : fdopen(dup(fd), "w");
  MUST(f && (cert ? PEM_write_X509(f, cert) : PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL)) && !fclose(f));
  snprintf(path, 32, "/proc/self/fd/%d", fd);
  return path;
}

static void make_tls(struct tls_set *sets[2]) {
  static const uint8_t seed[32] = {1}, name[] = "keys.example";
  char cert_path[32], key_path[32], why[400] = "";
  EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
  X509 *cert = X509_new();
  GENERAL_NAMES *names = GENERAL_NAMES_new();
  GENERAL_NAME *one = GENERAL_NAME_new();
  ASN1_IA5STRING *dns = ASN1_IA5STRING_new();
  MUST(key && cert && names && one && dns && ASN1_STRING_set(dns, name, sizeof name - 1));
  GENERAL_NAME_set0_value(one, GEN_DNS, dns);
  MUST(sk_GENERAL_NAME_push(names, one) && X509_set_version(cert, X509_VERSION_3) && ASN1_INTEGER_set(X509_get_serialNumber(cert), 1));
  MUST(X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, name, -1, -1, 0) &&
       X509_set_issuer_name(cert, X509_get_subject_name(cert)) && ASN1_TIME_set_posix(X509_getm_notBefore(cert), 0) &&
       ASN1_TIME_set_posix(X509_getm_notAfter(cert), 253402300799) && X509_set_pubkey(cert, key) &&
       X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, 0) && X509_sign(cert, key, NULL));
  struct tls_files files = {.cert = as_file(cert_path, key, cert), .key = as_file(key_path, key, NULL)};
  struct tls_tickets *tickets = tls_tickets_new();
  sets[0] = tls_set_client(&(struct tls_client_files){.ca = files.cert}, why, sizeof why);
  require(sets[0] != NULL, why);
  sets[1] = tls_set_new(&files, 1, NULL, tickets, why, sizeof why);
  require(sets[1] != NULL, why);
  GENERAL_NAMES_free(names);
  X509_free(cert);
  EVP_PKEY_free(key);
}

static void begin(uint8_t wishes, struct bytes stream) {
  static struct tls_set *sets[2];
  static uint8_t plain[TLS_RECORD], sealed[TLS_FLIGHT];
  static const struct sockaddr_in addr[2] = {{.sin_family = AF_INET, .sin_port = 0}, {.sin_family = AF_INET, .sin_port = 1}};
  bool tls = wishes & W_TLS;
  if (tls && !sets[0])
    make_tls(sets);
  memset(&w, 0, sizeof w);
  w.io.v = &ops;
  w.net = (struct http_client_net){.io = &w.io, .timers = &w.timers, .plain = plain, .sealed = sealed, .wipe = true};
  w.wishes = wishes;
  w.server = sets[1];
  w.fd = -1;
  w.now_ns = 1000000000;
  w.stream = stream;
  w.said = bytes_of(stream.p, 0);
  struct writer *all[] = {&w.queue, &w.got, &w.sealed, &w.fed, &w.owner.head, &w.owner.body};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    *all[i] = wr_of(text[i], ROOM);
  uint32_t phase = wishes & W_PHASES ? PHASE_MS : 0;
  for (unsigned i = 0; i < 2; i++)
    w.target[i] = (struct http_client_target){.addr = (const struct sockaddr *)&addr[i], .addr_len = sizeof addr[i], .tls = tls ? sets[0] : NULL,
                                              .host = i && wishes & W_WRONG_HOST ? "other.example" : "keys.example",
                                              .times = {phase, phase, phase, wishes & W_TOTAL ? TOTAL_MS : 0}};
  timers_init(&w.timers, ms());
  http_client_init(&w.c, &w.net, on_done, &w);
  set_owner(&w.c.response, &w.owner);
}

// Whatever was played, a request ends once the server has said everything and ended.
static void finish_all(void) {
  w.how_to_connect = 0;
  w.next = NEXT_NOTHING;
  for (unsigned i = 0; i < 16 && w.under_way; i++) {
    complete_cancelled();
    let_send(SIZE_MAX);
    say(SIZE_MAX);
    deliver(SIZE_MAX);
    if (i > 4)
      end_with(0);
    pass(1);
  }
  MUST(!w.under_way);
  close_client();
  complete_cancelled();
  MUST(http_client_idle(&w.c) && w.fd < 0 && !w.recv && !w.poll && !w.timers.num && !w.c.rest && !w.c.tls);
  struct writer *all[] = {&w.queue, &w.got, &w.sealed, &w.fed, &w.owner.head, &w.owner.body};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    MUST(wr_ok(all[i]));
  tls_free(w.peer);
  w.peer = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2 || (size_t)data[1] > size - 2)
    return 0;
  size_t steps = data[1];
  begin(data[0], bytes_of(data + 2 + steps, size - 2 - steps));
  send_to(0);
  for (size_t i = 0; i < steps; i++)
    step(data[2 + i]);
  finish_all();
  return 0;
}
