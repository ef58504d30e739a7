// A client connection over net/io.h: TCP, TLS over it where asked for, HTTP/1.1 with keep-alive, one request at a time.
// One thread; nothing blocks; every failure comes through `done`, never from inside a call. Memory is the owner's but for
// what TLS takes and a rare unsent rest.
#pragma once
#include "net/http_response.h"
#include "net/io.h"
#include "net/timer.h"
#include "net/tls.h"

// What the clients of one thread share.
struct http_client_net {
  struct io *io;
  struct timers *timers;
  uint8_t *plain;  // TLS_RECORD bytes; needed with TLS only, as is:
  uint8_t *sealed; // TLS_FLIGHT bytes
  bool wipe;       // what comes in is secret: buffers are overwritten after use
};

// Times are bounds, 0: none. `first_byte_ms` runs from the request's last byte, `total_ms` from http_client_send.
struct http_client_times {
  uint32_t connect_ms, tls_ms, first_byte_ms, total_ms;
};

// Where to. Shared by connections; must outlive their next http_client_send.
struct http_client_target {
  const struct sockaddr *addr;
  socklen_t addr_len;
  struct tls_set *tls; // of tls_set_client; NULL: plain
  const char *host;    // to name and to check in TLS
  struct http_client_times times;
};

enum http_client_end {
  HTTP_CLIENT_OK,      // a whole response, whatever its status
  HTTP_CLIENT_CONNECT, // refused, unreachable
  HTTP_CLIENT_TLS,     // no TLS: certificate, name, protocol, their refusal of ours
  HTTP_CLIENT_TIMEOUT,
  HTTP_CLIENT_CUT,     // the connection ended before the response did
  HTTP_CLIENT_BAD,     // not HTTP
  HTTP_CLIENT_LIMIT,   // head or body too long
  HTTP_CLIENT_STOPPED, // the owner's `body` said so
};

struct http_client_result {
  enum http_client_end end;
  unsigned status; // 0 without a head
  bool reused;     // on a connection that had served before: CUT with first_byte_ns 0 deserves another try
  uint64_t connected_ns, sent_ns, first_byte_ns; // io's clock, 0: never
  const char *why; // one clause; valid during `done`
};

struct http_client;
typedef void http_client_done(struct http_client *c, const struct http_client_result *r);

struct http_client {
  // The owner's, set after http_client_init and before a send.
  const struct http_client_net *net;
  http_client_done *done; // once per request, from io's run or timers_run; may send the next one
  void *owner;
  struct http_response response; // set header, body, max_body, owner; read content_length and body_len in `done`
  int recv_buffer, send_buffer;  // SO_RCVBUF, SO_SNDBUF; 0: the system's
  // private
  const struct http_client_target *target;
  struct tls_conn *tls;
  struct io_op recv_op, poll_op;
  struct timer timer;
  struct bytes head, body;
  uint8_t *rest; // sealed and not yet taken by the socket: [rest_off, rest_len)
  size_t sent, rest_off, rest_len;
  uint64_t phase_until_ms, total_until_ms;
  uint64_t connected_ns, sent_ns, first_byte_ns;
  int fd;
  uint32_t served, conn; // responses on this connection; which connection it is
  uint8_t state, failed;
  bool busy, no_body;
  char why[160];
};

// http_client_init zeroes and readies a client.
void http_client_init(struct http_client *c, const struct http_client_net *net, http_client_done *done, void *owner);

// http_client_send starts a request: `head` with its empty line, then `body`; both stay in place until `done`. Connects
// when not connected, or connected elsewhere than to `target`. `no_body`: the request is HEAD.
void http_client_send(struct http_client *c, const struct http_client_target *target, struct bytes head, struct bytes body,
                      bool no_body);

// http_client_close drops the connection; a request under way ends without `done`. Memory may go when http_client_idle.
void http_client_close(struct http_client *c);
bool http_client_idle(const struct http_client *c);
