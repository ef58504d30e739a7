// One listener as a pure state machine: given what it received and when, it says what it asks for next and when. It opens no
// socket, reads no clock and keeps no reference to what it is given, but for paths, which must stay until it has ended.
//
// What it asks for depends on the seed and on the bytes it received, never on how long they took: the same seed against
// the same catalogue gives the same requests. Timing decides only when they are due, and what the listener suffers.
// Where time itself decides (tokens that expire, the end of the scenario) it is the listener's own clock, which runs as if
// every answer came at once.
#pragma once
#include "load/playlist.h"
#include "base/writer.h"
#include "load/scenario.h"

enum listener_step {
  STEP_POLL,    // multivariant playlist or MPD again and again, until the release is out
  STEP_MASTER,  // multivariant playlist or MPD
  STEP_MEDIA,   // HLS media playlist
  STEP_INDEX,   // the sidx that an MPD leaves its segments to
  STEP_INIT,
  STEP_SEGMENT,
  STEP_DONE,
};

struct listener {
  uint64_t id;
  struct rng rng;
  const struct scenario *sc;
  const struct media_list *list;
  const struct media_list *index; // STEP_INDEX: the MPD's, without segments
  // its own clock, seconds of the run
  double clock_s;        // where it stands
  double clock_origin_s; // when media time 0 would have played by it
  double drop_s;         // polling: when the release is out
  double leave_s;        // media time at which this track is left (skip), or its end
  // playing, in the time of the run
  double origin_s;       // when media time 0 would have played: playhead = now - origin
  double first_media_s;  // media time at which playing started (after a seek it is not 0)
  double begun_s;        // when the track (or the seek) was asked for
  // outcome so far
  double startup_s;      // of the last start; negative until it has played
  double rebuffer_s, played_s;
  uint32_t misses, segments, errors, requests;
  uint32_t asset, track; // rank in the catalogue; how many tracks were begun before this one
  uint32_t rendition, seg, tries;
  uint32_t part;                // whose init segment it has: 1 + its number in the list; 0: none
  uint32_t fetched_after_start; // segments since playing was asked for
  uint8_t step;                 // enum listener_step
  bool dash, playing, switching;
  bool resuming;                // the init segment is for a segment that is due
  // per-session character
  bool slow, aborts, half_close, ranged, conditional, heads, reconnects, verified;
};

enum listener_act {
  ACT_REQUEST, // send it, intended at `at_s`
  ACT_END,     // the session is over at `at_s`: until then somebody listens to what has arrived
};

enum range_form { RANGE_NONE, RANGE_CLOSED, RANGE_OPEN, RANGE_SUFFIX }; // bytes=a-b, bytes=a-, bytes=-n

struct listener_next {
  double at_s;        // when the request is due; may lie in the past
  const char *path;   // without the token; NULL: the manifest's, see listener_path
  uint64_t range_from, range_to; // of what was just received, whatever the form
  uint64_t range_of;             // how long that was
  struct byte_range part;        // what is asked for is this part of the resource, and the range above one of the part
  uint32_t token;     // which of the listener's tokens
  uint8_t act, step, range; // enum listener_act, listener_step, range_form
  bool head;          // HEAD instead of GET
  bool if_none_match; // with the ETag of what was just received
};

// What a response brought. `list` is set when the step was STEP_MEDIA or STEP_INDEX (or STEP_MASTER with DASH, or of a media playlist alone) and it parsed.
struct listener_got {
  double now_s;
  bool ok;                     // 2xx, whole, and parsed where it is a playlist
  uint64_t body_len;
  const char *const *renditions; // STEP_MASTER with HLS: paths of media playlists; none where it was one itself
  uint32_t num_renditions;
  const struct media_list *list;
};

// listener_begin: `at_s` is when the session arrives.
void listener_begin(struct listener *l, const struct scenario *sc, const struct popularity *pop, uint64_t id, double at_s,
                    struct listener_next *next);

// listener_on_response advances by one response. `pop` draws the next track of the session.
void listener_on_response(struct listener *l, const struct popularity *pop, const struct listener_got *got,
                          struct listener_next *next);

// listener_cut ends a session from outside at `now_s`: what it has played so far counts.
void listener_cut(struct listener *l, double now_s);

// listener_path writes the path to ask for, token included; listener_place writes it without, NUL-terminated.
void listener_path(struct writer *w, const struct listener *l, const struct listener_next *next);
void listener_place(char out[PLAYLIST_MAX_URI], const struct listener *l, const struct listener_next *next);

// listener_pick chooses the rendition of `num` for this track: drawn once per track.
uint32_t listener_pick(struct listener *l, uint32_t num);
