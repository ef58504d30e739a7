// Inside of the exchange: what exchange.c (queues, thread, ends) and exchange_link.c (one request at a time) share.
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "net/resolve.h"
#include "server/exchange.h"

// One fetch under way, from the first ask to its end.
struct flight {
  struct flight *next;
  struct key_slot *slot; // pinned
  struct keyring *keyring;
  struct upstream *up;
  uint32_t epoch, systems, num_labels;
  enum scheme scheme;
};

enum { LINK_HEAD = 12 << 10, LINK_BODY = 24 << 10, LINK_ANSWER = 64 << 10 };

// A connection to a key server and what it is doing.
struct link {
  struct http_client client;
  struct upstream *up;
  struct flight *flight; // NULL: idle
  struct timer timer;    // between attempts, and while the address is looked up
  uint32_t tries;
  unsigned addr_at; // the upstream's at the last attempt
  bool waits_address, wrong_version;
  uint32_t retry_after_s;
  uint64_t began_ns;
  uint8_t *head, *body, *answer; // in memory for secrets
  size_t answer_len, answer_cap;
  struct secret_alloc long_answer; // for one that LINK_ANSWER does not hold
};

// A key server in use.
struct upstream {
  struct exchange *x;
  struct upstream *next;
  struct key_server *server; // held
  // under the exchange's lock
  struct flight *queue, **tail;
  uint32_t queued;
  uint32_t failures; // in a row; > 0: it is away
  bool probing;      // one request finds out whether it is back
  uint64_t away_until_ms;
  // the thread's own
  struct resolve question;
  struct resolve_addr addr[RESOLVE_MAX];
  unsigned num_addr, addr_at;
  bool resolving;
  uint64_t resolved_ms;
  struct http_client_target target;
  struct secret_alloc mem;
  unsigned num_links;
  struct link links[];
};

struct exchange {
  pthread_mutex_t lock; // upstreams, their queues and state; taken before the cache's
  struct upstream *upstreams;
  struct key_cache *cache;
  struct obs_worker *metrics;
  bool stopping;
  pthread_t thread;
  bool runs;
  // the thread's own
  struct io *io;
  struct resolver *resolver;
  struct timers timers;
  struct http_client_net net;
  struct secret_alloc mem;
  struct key_guard *guard, *guard_before; // keys seen: this generation and the one before
  struct secret_alloc guard_mem, guard_before_mem;
  uint64_t tidied_ms, seed;
};

// How a fetch ended, for who keeps score.
enum flight_end {
  FLIGHT_OK,
  FLIGHT_REFUSED, // the server answered that it will not
  FLIGHT_INVALID, // it answered something that is not to be used
  FLIGHT_AWAY,    // no answer could be had
};

// link_begin starts on a flight; exchange_ended is called once when it is over, with `why` for the log.
void link_begin(struct link *l, struct flight *f);
void link_stop(struct link *l); // gives up without exchange_ended
bool link_init(struct link *l, struct upstream *up);
bool link_idle(const struct link *l); // no flight and no connection
void exchange_ended(struct link *l, enum flight_end end, struct issued *issued, const char *why);

// exchange_away says whether a key server is known to be away.
bool exchange_away(struct upstream *up);
uint64_t exchange_now_ms(struct exchange *x);
uint8_t exchange_spread(struct exchange *x); // random, for spreading times

// exchange_guard checks that an answer's keys serve no other scheme and their KIDs no other keys, and remembers them all, or none.
// Errors: ERR_KEY_REUSE, ERR_NO_MEMORY.
MUST_USE enum err exchange_guard(struct exchange *x, const struct keyring *k, const struct key_record *r, uint32_t num, struct diag *diag);
