// What the engine's parts share: one thread's state and one session's.
#pragma once
#include "load/client.h"
#include "load/engine.h"
#include "load/listener.h"

enum { SESSION_OUT = 1024 };

struct engine;
struct plain; // rate.c

// A body that is being kept: playlists, init segments, and segments of verified sessions.
struct body {
  uint8_t *p;
  size_t n, cap;
  struct body *next; // in the pool
};

struct session {
  struct client c;
  struct engine *e;
  struct plain *plain; // in runs without listeners
  struct session *next_free;
  struct listener l;
  struct listener_next next;
  double sent_s;
  bool in_use, aborting, half_closed, no_memory;
  uint64_t abort_after;
  struct body *body;  // NULL: only counted
  struct body *init;  // verified sessions: the init segment of the track
  struct body *whole; // verified sessions: the segment that a range is asked of
  uint64_t last_len;
  uint32_t ordinal;   // of the request within the session
  char etag[80];      // of the last segment
  char out[SESSION_OUT];
};

struct due {
  double at_s;
  uint32_t session;
};

struct list_entry {
  uint64_t hash[2];
  struct media_list list;
  bool used;
};

struct engine {
  const struct load_run *run;
  struct io *io;
  struct load_stats *st;
  struct session *sessions;
  uint32_t num_sessions, num_active;
  struct session *free;
  struct due *heap; // earliest first
  uint32_t num_due;
  struct body *pool;
  struct alloc_heap mem;         // parsed playlists
  struct list_entry *lists;      // open addressing
  uint32_t num_lists;
  struct renditions renditions;  // of the playlist being handled
  double slow_tick_s;
};

enum { ENGINE_LISTS = 16384 };

double engine_now(const struct engine *e);
bool engine_wait(struct engine *e, int64_t timeout_ns); // false: the backend failed
struct load_second *engine_second(struct engine *e, double now_s);

// engine_write_request puts the request for s->next into s->out; returns its length.
uint32_t engine_write_request(struct session *s);

struct body *body_take(struct engine *e);
void body_give(struct engine *e, struct body *b);
// body_add appends; false when memory is out.
bool body_add(struct body *b, struct bytes piece);

// engine_parse reads the playlist that a session has received and fills `got`; ERR_SYNTAX and the like when it cannot.
enum err engine_parse(struct engine *e, struct session *s, struct listener_got *got, struct diag *diag);

// The modes without listeners, in rate.c.
enum err engine_run_plain(struct engine *e, struct diag *diag);

// stats of one response: time from `due_s`, from `sent_s`, and what it was.
void engine_count(struct engine *e, const struct client_response *r, bool ok, double due_s, double sent_s, double now_s);
