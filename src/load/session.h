// What the engine's parts share: one thread's state and one session's.
#pragma once
#include "load/client.h"
#include "load/engine.h"
#include "load/listener.h"

struct engine;
struct plain; // rate.c
struct verify_init;
struct verify_response;

// A body that is being kept: playlists, and what is compared. Taken when its first byte comes.
struct body {
  uint8_t *p;
  size_t n, cap;
  struct body *next; // in the pool
};

enum { SESSION_ETAG = 80, SESSION_MAX_HOPS = 5, BODY_MAX = 64 << 20 };

// Where redirections have led a request to.
struct moved {
  char location[PLAYLIST_MAX_URL]; // as it came
  size_t n;                        // beyond the array: it was too long
  char path[PLAYLIST_MAX_URI];     // "": no redirection yet
  uint32_t hops;
};

// moved_add takes a piece of a Location. moved_on resolves it against `path` on `origin` once it is whole; false: it cannot be followed,
// and diag says why.
void moved_add(struct moved *m, struct bytes piece);
bool moved_on(struct moved *m, const char *origin, const char *path, struct diag *diag);

struct session {
  struct client c;
  struct engine *e;
  union {
    struct { // in runs without listeners
      struct plain *plain;
      const struct load_path *what; // that is asked for
    };
    const struct verify_init *init; // verified sessions: of the track
  };
  struct session *next_free;
  struct listener l;
  struct listener_next next;
  double sent_s, free_s; // free_s: when its connection could take the next request
  bool in_use, waiting, keep, aborting, half_closed, no_memory, etag_new;
  uint64_t abort_after, head_len; // head_len: what HEAD announced; UINT64_MAX: nothing to compare with
  struct body *body;  // being received; NULL: nothing yet, or only counted
  struct body *whole; // verified sessions: the segment that a range is asked of
  uint32_t ordinal;   // of the request within the session
  char *etag;         // conditional sessions: of the last response
  struct moved *moved; // NULL: no redirection of this request so far
  struct shared_list *list; // what it has read last: paths that it asks for lie there
};

struct due {
  double at_s;
  uint32_t session;
};

// A playlist as parsed, shared by all sessions that received the same text at the same path.
struct shared_list {
  struct alloc_heap mem; // of all that it points to
  struct shared_list *of; // a sidx's: the MPD's, whose init segments it has
  bool held;              // while those are looked for that no session holds
  uint64_t hash[2];
  struct media_list list;
  uint32_t num_renditions;
  const char *const *renditions; // a multivariant playlist's
};

struct engine {
  const struct load_run *run;
  struct client_world clients;
  struct load_stats *st;
  struct session *sessions;
  uint32_t num_sessions, num_active, num_used; // num_used: places that were ever taken
  struct session *free;
  struct due *heap; // earliest first
  uint32_t num_due;
  struct body *pool;
  struct shared_list **lists;      // open addressing
  uint32_t num_lists, num_slots;
  size_t lists_used, lists_kept;   // bytes of them all; of those that were held when that was looked at last
  struct renditions renditions;    // of the playlist being handled
  double slow_tick_s, sweep_s;
  uint32_t swept;
  bool stormed;
  char *log;                       // request lines that are not written yet
  size_t log_len;
  int log_errno;                   // why they could not be written; 0: they could
  struct load_second beyond;       // takes what came after LOAD_MAX_SECONDS, for nobody
};

// Places for playlists: to begin with; bytes that they may take before those are dropped that nobody holds; and at most.
enum { ENGINE_LISTS = 16384, ENGINE_LISTS_KEPT = 32 << 20, ENGINE_LISTS_MAX = 1 << 30, ENGINE_LOG = 65536 };

double engine_now(const struct engine *e);
bool engine_wait(struct engine *e, int64_t timeout_ns); // false: the backend failed; engine_failed says why
enum err engine_failed(const struct engine *e, struct diag *diag);
struct load_second *engine_second(struct engine *e, double now_s);

struct body *body_take(struct engine *e);
void body_give(struct engine *e, struct body *b); // NULL is a no-op
// session_keep takes a piece of what a session receives; false as body_add.
bool session_keep(struct session *s, struct bytes piece);
struct bytes session_body(const struct session *s);

// body_add appends; false when memory is out, or it were more than BODY_MAX.
bool body_add(struct body *b, struct bytes piece);
// body_unpack undoes a Content-Encoding ("": there is none). Errors: ERR_SYNTAX (also of gzip that is not said to be), ERR_LIMIT (more than BODY_MAX), ERR_UNSUPPORTED (not
// gzip), ERR_NO_MEMORY; the body is as it was then.
MUST_USE enum err body_unpack(struct body *b, const char *encoding, struct diag *diag);

// engine_log writes one line of the request log: who, which of its requests, and the request's bytes with escaped line ends.
void engine_log(struct engine *e, uint64_t who, uint64_t ordinal, struct bytes request);
void engine_log_flush(struct engine *e);

// engine_parse reads the playlist that a session has received and fills `got`; ERR_SYNTAX and the like when it cannot.
enum err engine_parse(struct engine *e, struct session *s, struct listener_got *got, struct diag *diag);

void engine_lists_free(struct engine *e);

// session_place gives the path that was asked for last, redirections followed, without token.
void session_place(char out[PLAYLIST_MAX_URI], const struct session *s);

// engine_plain makes '?' of all but printable ASCII: text that quotes a server goes to reports, which are UTF-8, and to terminals, which
// obey control characters.
void engine_plain(char *text);

// engine_wrong counts a wrong answer; the statistics name the first.
void engine_wrong(struct engine *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// engine_compare compares a segment with the clear source and counts that.
void engine_compare(struct engine *e, const struct verify_response *v);

// engine_right_part: what a part says of itself, by its Content-Range, is what was asked for: players place it by that. Else it is
// counted as wrong. `of`: as content_range_wrong takes it.
bool engine_right_part(struct engine *e, const char *path, const char *content_range, uint64_t from, uint64_t to, uint64_t of);

// engine_right_epoch: a media playlist or MPD points to verify.epoch, where there is one, by its init segment's path. False: `what` says
// where it leads.
bool engine_right_epoch(char *what, size_t cap, const struct scenario *sc, const char *asset, const struct media_list *list);

// The two ways to run: sessions (listeners.c) and single requests (rate.c).
enum err engine_run_listeners(struct engine *e, struct diag *diag);
enum err engine_run_plain(struct engine *e, struct diag *diag);

// engine_failure says what is wrong with a response that is not the one that was to come.
enum load_error engine_failure(const struct client_response *r);

// engine_count notes one response, or LOAD_ERR_TIMEOUT for one that never came: time from `due_s`, from `sent_s`, and what it was.
void engine_count(struct engine *e, uint64_t body_len, enum load_error failed, double due_s, double sent_s, double now_s);

// engine_sweep calls `late` for sessions that have waited for longer than a request may take, slow readers aside. It looks at a
// part of the first `num` each time, at all of them within about half a second.
void engine_sweep(struct engine *e, uint32_t num, void (*late)(struct session *s, double now_s), double now_s);

// engine_unanswered counts a request that is still open when the run ends: it is at least this late.
void engine_unanswered(struct engine *e, double due_s, double sent_s, double now_s);
