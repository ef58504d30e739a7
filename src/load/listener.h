// A listener: a player and the person in front of it, as a pure state machine. It is told when things happen and answers
// with what to do next; it opens no socket, reads no clock and keeps no reference to what it is given.
//
// What it asks for depends on the seed and on the bytes it received, never on how long they took: the same seed against
// the same catalogue gives the same requests. Timing decides only when they are due, and what the listener suffers.
#pragma once
#include "load/playlist.h"
#include "load/scenario.h"

enum listener_step {
  STEP_MASTER,  // multivariant playlist or MPD
  STEP_MEDIA,   // HLS media playlist
  STEP_INIT,
  STEP_SEGMENT,
  STEP_DONE,
};

// Playlists that listeners share: parsed once per distinct text.
struct shared_list {
  struct media_list list;
  uint32_t refs;
};

struct listener {
  uint64_t id;
  struct rng rng;
  const struct scenario *sc;
  bool dash;
  enum listener_step step;
  uint32_t asset, track; // rank in the catalogue; how many tracks were begun before this one
  uint32_t rendition;
  const struct media_list *list;
  uint32_t seg, tries;
  double leave_s;       // media time at which this track is left (skip), or its end
  // playing
  bool playing, switching;
  double origin_s;      // when media time 0 would have played: playhead = now - origin
  double first_media_s; // media time at which playing started (after a seek it is not 0)
  double begun_s;       // when the track (or the seek) was asked for
  uint32_t fetched_after_start; // segments since playing was asked for
  // outcome so far
  double startup_s;     // of the last start; negative until it has played
  double rebuffer_s, played_s;
  uint32_t misses, segments, errors, requests;
  // per-session character
  bool slow, aborts, half_close, ranged, conditional, heads, verified;
};

enum listener_act {
  ACT_REQUEST, // send `path`, intended at `at_s`
  ACT_END,     // the session is over
};

struct listener_next {
  enum listener_act act;
  double at_s;             // when the request is due; may lie in the past
  enum listener_step step; // what it is for
  char path[PLAYLIST_MAX_URI];
  bool head;               // HEAD instead of GET
  bool ranged;             // Range: bytes=range_from-range_to of what was just received
  uint64_t range_from, range_to;
};

// What a response brought. `list` is set when the step was STEP_MEDIA (or STEP_MASTER with DASH) and it parsed.
struct listener_got {
  double now_s;
  bool ok;                     // 2xx, whole, and parsed where it is a playlist
  uint64_t body_len;
  const struct renditions *renditions; // STEP_MASTER with HLS
  const struct media_list *list;
};

void listener_begin(struct listener *l, const struct scenario *sc, const struct popularity *pop, uint64_t id, double now_s,
                    struct listener_next *next);

// listener_got advances by one response. `pop` draws the next track of the session.
void listener_on_response(struct listener *l, const struct popularity *pop, const struct listener_got *got,
                          struct listener_next *next);

// listener_pick chooses the rendition of `num` for this track: drawn once per track.
uint32_t listener_pick(struct listener *l, uint32_t num);
