// An HTTP/1.1 client connection over net/io.h: one request at a time, keep-alive, reconnecting when asked to. Responses are
// parsed by llhttp as they arrive; the body goes to the owner piece by piece or is only counted.
#pragma once
#include "net/io.h"
#include <llhttp/llhttp.h>

struct client;

struct client_response {
  unsigned status;      // 0: no response (connection refused, reset, closed early)
  bool whole;           // head and body arrived as announced
  uint64_t body_len, first_byte_ns; // monotonic clock, when the first byte came
  uint64_t content_length; // as announced; UINT64_MAX when it was not
  char etag[80];        // empty when there was none
};

// `done` is called once per request, from io_run; the client may be used for the next request from inside it.
typedef void client_done(struct client *c, const struct client_response *r);
typedef void client_body(struct client *c, struct bytes piece);

struct client {
  struct io *io;
  const struct sockaddr *addr;
  socklen_t addr_len;
  client_done *done;
  client_body *body; // NULL: bodies are only counted
  void *owner;
  // private
  struct io_op recv_op, poll_op;
  int fd;
  bool stop; // set by `body`: the response is given up, `done` sees it as not whole
  bool recv_armed, poll_armed, closing, busy, was_head, half;
  uint8_t header; // which header's value is being read
  llhttp_t parser;
  char *out; // the request: out_cap bytes of the owner's
  uint32_t out_cap, out_len, out_sent;
  uint32_t slow_bytes; // > 0: reads at most so many bytes when client_read_slowly is called, never by itself
  struct client_response response;
};

// client_init readies a client; `out` is the buffer for request bytes and must outlive it.
void client_init(struct client *c, struct io *io, const struct sockaddr *addr, socklen_t addr_len, char *out, uint32_t out_cap);

// client_send starts a request whose bytes (head and all) stand in c->out[0 … len). Connects when not connected. A failure is
// reported through `done`, like everything else. `head`: the response has no body.
void client_send(struct client *c, uint32_t len, bool head);

// client_close drops the connection; a request in flight ends without `done`. Memory may be reused when client_idle.
void client_close(struct client *c);
bool client_idle(const struct client *c);

// client_read_slowly takes what a slow reader may take now.
void client_read_slowly(struct client *c);

// client_half_close ends our sending side once the request in flight is sent; the response still arrives.
void client_half_close(struct client *c);
