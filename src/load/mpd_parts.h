// What the parts of the MPD reader share: what was read, before it becomes a list.
#pragma once
#include <expat.h>

#include "load/playlist.h"

enum form { FORM_NONE, FORM_TEMPLATE, FORM_LIST, FORM_BASE };

// What SegmentTemplate, SegmentList or SegmentBase say; each level begins as the one around it.
struct segments {
  enum form form;
  char media[PLAYLIST_MAX_URI], init[PLAYLIST_MAX_URI]; // templates; `init` also Initialization@sourceURL
  bool has_init;
  struct byte_range init_range, index;
  uint64_t timescale, start_number, end_number, duration, offset; // end_number 0: none; offset: presentationTimeOffset
  uint32_t first_s, num_s;                                        // in `timeline`
  uint32_t first_url, num_urls;                                   // in `urls`
};

struct level {
  struct segments seg;
  char base[PLAYLIST_MAX_URI];
  char foreign[64]; // its BaseURL leads there, which is not the target
  bool own_base;    // it has a usable BaseURL of its own
};

enum { L_MPD, L_PERIOD, L_SET, L_REP, LEVELS };

struct s_element {
  uint64_t t, d, r;
  bool has_t, open; // open: r is -1, up to the next S or the end of the Period
};

struct segment_url {
  const char *media; // NULL: the BaseURL itself
  struct byte_range range;
};

// A Period, with the Representation that is played in it.
struct period {
  struct period *next;
  double start_s, duration_s; // negative: not said
  uint64_t line;
  int match;     // how well it fits what was chosen; 0: nothing in it is played
  uint32_t reps; // audio Representations so far
  struct level rep;
  char id[PLAYLIST_MAX_URI];
  uint32_t bandwidth;
};

struct mpd {
  XML_Parser xml;
  struct renditions *out;
  const char *document; // its URL
  struct level at[LEVELS];
  int deepest; // L_MPD …: the level that is open
  bool failed, other_kind, in_base, fresh_list;
  char text[PLAYLIST_MAX_URI]; // of a BaseURL
  size_t text_n;
  uint32_t choose;
  struct period *periods, *last, *renditions_of;
  uint32_t num_periods;
  struct playlist_kids set_kids, kids, chosen_kids; // of the AdaptationSet; with the Representation's own
  bool set_silent, silent; // known to be no sound
  double duration_s;
  struct alloc_heap scratch;
  struct s_element *timeline;
  struct segment_url *urls;
  uint32_t num_timeline, num_urls, max_urls;
  char rep_id[PLAYLIST_MAX_URI];
  uint32_t rep_bandwidth;
  struct diag *diag;
};

// mpd_resolve is uri_resolve against a base that is an absolute path, on the document's origin.
enum err mpd_resolve(const struct mpd *m, char out[PLAYLIST_MAX_URI], const char *base, struct bytes ref);

// mpd_expand makes the list of what was chosen, through all Periods.
enum err mpd_expand(struct mpd *m, struct media_list *list, struct alloc *mem);
