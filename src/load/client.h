// HTTP/1.1 client connections over net/io.h: one request at a time, keep-alive, reconnecting when asked to, TLS or not.
// Responses are parsed by llhttp as they arrive; the body goes to the owner piece by piece or is only counted.
// What connections of a thread can share stands in one client_world; a connection at rest holds no buffer.
#pragma once
#include "net/io.h"
#include "net/tls.h"
#include <llhttp.h>

struct client;
struct client_out; // bytes waiting to be sent, pooled

struct client_response {
  uint16_t status;         // 0: no response (connection refused, reset, closed early)
  bool whole;              // head and body arrived as announced
  bool begun;              // some bytes came
  const char *malformed;   // why what came is not HTTP/1.1; NULL: as far as it came it is
  bool stale;              // no byte came over a connection that had served before: ask again, as RFC 9112 §9.3.1 allows
  uint64_t body_len;
  uint64_t content_length; // as announced; UINT64_MAX when it was not
  char encoding[24];       // Content-Encoding, as much as there is room for; "": none
  char range[72];          // Content-Range likewise: no right one is longer
};

// `done` is called once per request, from io_run; the client may be used for the next request from inside it.
typedef void client_done(struct client *c, const struct client_response *r);
typedef void client_piece(struct client *c, struct bytes piece);

enum { CLIENT_REQUEST_MAX = 2048 };

struct client_world {
  struct io *io;
  const struct sockaddr *addr;
  socklen_t addr_len;
  struct tls_set *tls;  // NULL: plain
  const char *tls_host; // whom the certificate is to name
  client_done *done;
  client_piece *body; // NULL: bodies are only counted
  client_piece *etag; // NULL: ignored; the value may come in pieces
  client_piece *location; // of a redirection; as etag
  uint64_t connects, tls_failures;
  uint64_t ended_at_rest; // connections that the other side ended while no request was under way
  uint64_t unasked_bytes; // that came behind a response's end, where nothing was to come
  uint64_t unopened;      // connections that this machine could not begin: no descriptor, no port
  int unopened_errno;
  // private
  struct client_out *free_outs;
  uint8_t *sealed, *opened; // TLS: one flight out, one record in
};

struct client {
  struct client_world *w;
  void *owner;
  // private
  struct io_op recv_op, poll_op;
  struct tls_conn *tls;
  struct client_out *out;
  int fd;
  uint32_t opened;     // how many connections this client has had
  uint32_t slow_bytes; // > 0: reads at most so many bytes when client_read_slowly is called, never by itself
  bool stop;           // set by `body`: the response is given up, `done` sees it as not whole
  bool recv_armed, poll_armed, closing, busy, was_head, half, connected, secured, served, broken, reopen, any;
  uint8_t header; // which header's value is being read
  uint8_t name_len;
  bool in_value;
  char name[17]; // of the header being read, as much as it takes to know it
  llhttp_t parser;
  struct client_response response;
};

// client_world_ready takes what TLS needs; false without memory. client_world_free gives everything back.
bool client_world_ready(struct client_world *w);
void client_world_free(struct client_world *w);

void client_init(struct client *c, struct client_world *w, void *owner);

// client_send starts a request (head and all, at most CLIENT_REQUEST_MAX bytes), connecting when not connected. A failure is
// reported through `done`, like everything else. `head`: the response has no body.
void client_send(struct client *c, struct bytes request, bool head);

// client_open connects without a request, as a player does that has just lost its connection.
void client_open(struct client *c);

// client_close drops the connection; a request in flight ends without `done`. Memory may be reused when client_idle.
void client_close(struct client *c);
bool client_idle(const struct client *c);

// client_read_slowly takes what a slow reader may take now.
void client_read_slowly(struct client *c);

// client_half_close ends our sending side once the request in flight is sent; the response still arrives. Not over TLS, where
// the end of one side is the end.
void client_half_close(struct client *c);
