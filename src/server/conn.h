// A worker's inside: connections, requests and their responses. Shared by worker.c (thread, listeners), conn.c (receiving,
// timers, closing), request.c (what is asked), respond.c (heads) and pump.c (bodies on their way to the socket).
//
// A connection is small and knows its socket; a `struct request` is lent to it from a pool while a request is being read,
// waits for the catalogue or is being answered, and goes back when the connection is idle. A response takes an output
// buffer only while it renders; it keeps one over a full socket only while buffers are plenty, because any byte can be
// rendered again.
#pragma once
#include "net/http.h"
#include "net/io.h"
#include "net/ktls.h"
#include "net/timer.h"
#include "net/tls.h"
#include "simd/aes.h"
#include "server/line.h"
#include "server/server.h"
#include <pthread.h>

#define OWNER(type, field, p) ((type *)(void *)((char *)(p)-offsetof(type, field)))

enum {
  REQ_IN = 32768,        // bytes of a request with its body, and of what is pipelined behind a response in progress
  REQ_BODY_MAX = 16384,  // body of a licence request
  REQ_LIT = 1536,        // a response head or part head
  OUT_HEAD = 2048,       // room for it in front of a body
  OUT_BODY = 256 << 10,  // rendered at once
  OUT_TLS = 4096,        // less than that over TLS, so that its records fit a buffer too
  OUT_SIZE = OUT_HEAD + OUT_BODY,
  LEAVING_MAX = 1024,    // connections of a worker that have given way and wait for their last completions
  BEHIND_MAX = 1024,     // of a worker's requests, those whose `in` holds what was sent behind another: 32 MiB
  READY_MAX = 64,        // requests answered one after the other, each knowing the next
  RECV_BUFFERS = 256,
  RECV_SIZE = 4096,
  UNSENT_SOCKET = 262144, // TCP_NOTSENT_LOWAT: what the kernel holds for a client that does not read, besides what is under way
  RECV_SOCKET = 16384,   // SO_RCVBUF: bounds what the kernel holds for a client that is not being read
  LINGER_MS = 2000,
  MOMENT_MS = 1000,      // who waits for a request, the first or another, keeps its place so long
  DRAIN_HEAD_MS = 1000,  // for requests half read when draining begins, and the first of who has just connected
};

struct worker;

enum conn_state {
  CONN_FREE,
  CONN_IDLE,    // between requests
  CONN_READING, // part of a request is here
  CONN_BUSY,    // a response is in progress
  CONN_LINGER,  // answered and shut down: what still comes is dropped until the client closes
  CONN_CLOSING, // waiting for the last completions
};

struct conn {
  struct io_op recv, poll;
  struct timer timer;
  uint64_t deadline_ms;
  struct worker *w;
  struct request *rq;
  struct conn *next, **prev; // of the open ones; `next` alone: of the free ones
  struct line_place idle; // in the worker's line of those that wait for a request
  uint64_t idle_ms;     // since when
  struct tls_conn *tls; // NULL: plain
  int fd;
  uint32_t num_requests;
  uint8_t state;        // enum conn_state
  bool recv_stopped, peer_ended;
  bool greeted, handshaken; // TLS: the client has sent something; the handshake is done
  bool gap;             // of what was sent ahead not all could be kept: what comes behind is nothing
  bool offload, offloaded; // the kernel may seal what is sent; it does
  bool held_back;       // an answer's last bytes lie in the socket, so that the next answer's go with them
  uint8_t ip[16];
};

// Whether what is sent has to be sealed here.
static inline bool conn_seals(const struct conn *c) { return c->tls && !c->offloaded; }

enum body_kind { BODY_NONE, BODY_TEXT, BODY_TRACK };
enum wait_kind { WAIT_NONE, WAIT_LOOKUP, WAIT_SOURCE };

struct request {
  struct conn *conn;    // NULL: gone while the catalogue had the wait
  struct request *next; // free list, the worker's list of woken ones, or what is behind one
  struct worker *w;
  struct cat_wait wait;
  struct http_parser parser;
  const uint8_t *base;  // the request's bytes: in a receive buffer, or in `in` once it has to outlive that
  uint32_t used;        // bytes of the current request, once complete
  uint32_t in_len;      // bytes in `in`: the current request and what follows it
  uint32_t behind_at;   // of `behind->in`, what has been taken
  struct request *behind; // more that follows, in the `in` of requests that nobody else uses: a list by `next`
  struct route route;   // slices of `path`
  // The response.
  uint16_t status;
  uint8_t waiting;      // enum wait_kind: the catalogue has `wait`
  uint8_t method;       // enum http_method
  uint8_t body;         // enum body_kind
  uint8_t ready;        // its place in the worker's `ready`, from 1; 0: not there
  bool keep_alive, head_only, multipart;
  bool head_sent;       // of a response that is not done: some of it
  bool held;            // `track` or `text` with a hold
  bool followed;        // another request is here already: what is sent may be held back for its answer
  bool robbed;          // its buffer was taken back: its client is slow
  bool stalled;         // its client has taken nothing for stall_ms; write_timeout is running out
  uint64_t stall_ms;    // stall_timeout, or less
  bool ask_again;       // the catalogue has put the source bytes in its cache: ask for them with the same wait
  uint8_t why;          // of an error: enum obs_error, 0: its status says it
  uint64_t retry_ms;      // of a 503: how long until asking may help, 0: not known
  uint16_t path_len;      // of `path`; 0: that of no resource
  uint16_t source_status; // what the last wait for source bytes ended with, 0: well
  struct protected_track *track;
  struct text_doc *text;
  struct block *block;  // source bytes that the cache did not take, for the piece that starts at block_piece
  uint64_t block_piece;
  // What is left of the body: ranges[range] to ranges[num_ranges - 1], in output offsets of the plan or the text. The
  // current one shrinks as it is rendered.
  uint32_t range, num_ranges;
  struct plan_range ranges[HTTP_RANGES_MAX];
  struct plan_range resource; // the whole entity in the same offsets
  struct line_place hold;     // in out_pool's line
  uint8_t *out;               // output buffer, or NULL: bytes [out_at, out_end) are to be sent,
  uint32_t out_at, out_end;
  uint32_t out_body;          // of which those from out_body on are of the current range, the others of `lit`
  uint32_t lit_at, lit_len;   // what comes before the next body byte and is not in `out`
  uint32_t head_len;
  // TLS: records that are sealed and not sent. They cannot be made again, so few are made ahead: in an output buffer while
  // there are plenty, else one at a time in `record`.
  uint8_t *sealed;            // NULL: none
  uint32_t sealed_at, sealed_end;
  uint64_t start_ns, first_ns, sent;
  char etag[32];              // quoted, NUL-terminated
  char lit[REQ_LIT];
  char path[ROUTE_PATH_MAX];  // decoded
  uint8_t in[REQ_IN];
  uint8_t record[TLS_ROOM];
};

struct listener {
  struct io_op accept;
  struct timer retry;   // after an accept that failed for want of descriptors or memory
  struct worker *w;
  int fd;
  bool tls;
};

struct out_pool {
  uint8_t *mem;
  uint8_t **free; // a stack: the last one used is the next one given
  uint32_t num, num_free, keep; // when fewer than `keep` are free, the one that is held longest over a full socket is taken back
  struct line held;
};

// What of a request's source has not been asked for from memory. Good within the turn.
struct ahead {
  struct request *of; // NULL: of none
  struct aes_ahead left;
};

enum { HEAD_COMMON = 768, RESPOND_SHORT = HEAD_COMMON + 256 };

// Everything of a head that is the same for one second: built once, copied whole.
struct head_cache {
  uint64_t second;
  const struct config *config;
  uint32_t common_len; // Server, Date, CORS
  char common[HEAD_COMMON];
};

struct worker {
  struct server *s;
  struct obs_worker *m;
  struct access_ring *access; // NULL when off
  struct io *io;
  unsigned n;
  uint64_t now_ms, wall_s;        // at the start of this turn
  struct timers timers;
  struct listener *listeners;
  unsigned num_listeners;
  struct conn *conns, *free_conns, *open_conns;
  struct line idle;               // who has waited for a request the longest gives way to who connects
  uint32_t num_conns, num_open;   // open ones: at most, and now
  uint32_t num_places, conns_cut; // of `conns`: all, some more than may be open, and those that were ever used
  uint32_t num_used;              // open, or waiting for their last completions
  struct request *requests, *free_requests;
  uint32_t num_requests;          // one for each of `conns`, and BEHIND_MAX: touched when they are first used
  uint32_t requests_cut;          // of these, those that were ever used
  uint32_t num_behind;            // of them, at most BEHIND_MAX
  uint32_t num_waiting;           // requests that the catalogue has
  struct request *ready[READY_MAX]; // of this turn, with a track's bytes to send; NULL: gone meanwhile
  uint32_t num_ready;
  struct ahead now, next;         // of the request being answered from `ready`, and of the one after it
  struct out_pool out;
  struct head_cache head;
  struct tls_set *_Atomic *certificates; // the one in force, shared by all workers
  bool ktls;                      // the kernel can seal records
  uint8_t *flight;                // TLS_FLIGHT bytes: what handshakes and closings say
  uint8_t *opened;                // TLS_RECORD bytes: what a record held
  struct request *_Atomic woken;  // pushed by helper threads
  _Atomic bool drain;
  bool draining;
  uint64_t drain_ms, drain_deadline_ms;
  pthread_t thread;
  bool started;
  int cpu;                        // -1: any
};

// conn.c
void conn_accepted(struct worker *w, int fd, bool tls);
void conn_drain(struct worker *w);           // closes the idle ones, hurries those that are sending a request, or are to send their first
void conn_close_all(struct worker *w);
void conn_deadline(struct conn *c, uint64_t after_ms);
void conn_woken(struct request *rq);         // the catalogue is done with its wait
void conn_answer_ready(struct worker *w);    // before the turn's quiet point

// request_pool.c
// request_take gives a connection its request; NULL: all are in use. request_give takes one back, with what is behind it.
struct request *request_take(struct conn *c);
void request_give(struct worker *w, struct request *rq);
// request_keep_ahead keeps what a client sent while its answer is in progress. false: it has no place, or not all of it.
bool request_keep_ahead(struct request *rq, struct bytes data);
// request_catch_up adds what is behind to the `n` bytes in `in`, as far as it fits, and says how many these are now.
size_t request_catch_up(struct request *rq, size_t n);

// request.c
// request_start answers the complete request at rq->base: a response stands in `rq`, ready for pump. REQ_WAIT: the
// catalogue has it; request_resolved goes on after the wake.
enum req_result { REQ_READY, REQ_WAIT };
enum req_result request_start(struct request *rq);
enum req_result request_resolved(struct request *rq);
void request_count(struct request *rq);      // by its method; what is no HTTP as `other`
void request_hold(struct request *rq);       // the response outlives this callback
void request_release(struct request *rq);    // drops what the response holds
void request_done(struct request *rq);       // counts and logs, once: when all is sent or the connection ends before that

// respond.c: sets status, head (rq->lit) and ranges.
void respond_status(struct request *rq, unsigned status);
size_t respond_busy(struct worker *w, char out[RESPOND_SHORT]); // 503 where there is no request to answer; its length
size_t respond_no_tls(struct worker *w, char out[RESPOND_SHORT]); // 400 to who speaks plain HTTP where TLS is spoken
void respond_count(struct request *rq, unsigned status); // counts an error that no head says
void respond_text(struct request *rq, struct text_doc *d);
void respond_track(struct request *rq, struct protected_track *t, struct plan_range resource);
void respond_bytes(struct request *rq, const char *content_type, struct bytes body); // 200, never cached; at most 512 bytes
void respond_options(struct request *rq);
void respond_part(struct request *rq);       // multipart: what stands before range rq->range, or at the end

// pump.c sends what can be sent.
enum pump_result { PUMP_DONE, PUMP_BLOCKED, PUMP_FAILED };
enum pump_result pump(struct request *rq);
void pump_next(struct worker *w, struct request *next); // what is pumped after the next call of pump; NULL: not known
void pump_release_buffer(struct request *rq); // gives the output buffer back; its bytes will be rendered again
void pump_abandon(struct request *rq);        // gives everything back that stood to be sent
bool out_pool_init(struct out_pool *p, uint32_t num);
void out_pool_free(struct out_pool *p);
