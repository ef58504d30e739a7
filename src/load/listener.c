#include "load/listener.h"

#include <stdio.h>

// How long a track is listened to, as measured over a large streaming service: 24 % leave within 5 s, 35 % within 30 s,
// 49 % before the end. Between those points the leaving time is uniform. `scale` 0 … 2 scales the shares.
static double leave_time(struct rng *r, double scale, double duration_s) {
  static const struct {
    double share, until_s;
  } shape[] = {{0.24, 5}, {0.35, 30}, {0.49, 1e9}};
  double u = rng_unit(r), within = rng_unit(r), from_s = 0;
  for (size_t i = 0; i < 3; i++) {
    double until = shape[i].until_s < duration_s ? shape[i].until_s : duration_s;
    if (u < shape[i].share * scale)
      return from_s + (until - from_s) * within;
    from_s = until;
  }
  return duration_s;
}

static bool chance(struct listener *l, double p) { return rng_unit(&l->rng) < p; }

static bool reads_mpd(struct listener *l) {
  if (l->sc->catalogue.manifests)
    return scenario_is_mpd(l->sc, l->asset);
  return l->sc->protocol == LOAD_DASH || (l->sc->protocol == LOAD_MIX && chance(l, 0.5));
}

// The request for `path`, due at `at_s`; the token is the one that the listener's own clock stands at.
static void ask(const struct listener *l, struct listener_next *next, const char *path, double at_s) {
  *next = (struct listener_next){.at_s = at_s, .path = path, .act = ACT_REQUEST, .step = l->step};
  if (l->sc->token_ttl_s > 0)
    next->token = (uint32_t)(l->clock_s / l->sc->token_ttl_s);
}

void listener_place(char out[PLAYLIST_MAX_URI], const struct listener *l, const struct listener_next *next) {
  char rest[64];
  const char *path = next->path ? next->path : l->sc->catalogue.manifests ? l->sc->catalogue.manifests[l->asset] : NULL;
  snprintf(rest, sizeof rest, "%s/%s", l->sc->scheme, l->dash ? "manifest.mpd" : "master.m3u8");
  if (path)
    snprintf(out, PLAYLIST_MAX_URI, "%s", path);
  else if (uri_of_asset(out, l->sc->catalogue.names[l->asset], rest))
    out[0] = 0; // scenario_parse has seen to it that it fits
}

void listener_path(struct writer *w, const struct listener *l, const struct listener_next *next) {
  char place[PLAYLIST_MAX_URI];
  listener_place(place, l, next);
  wr_str(w, place);
  if (l->sc->token_ttl_s > 0)
    wr_fmt(w, "%ctoken=%lu.%u", strchr(place, '?') ? '&' : '?', l->id, next->token);
}

static void ask_master(struct listener *l, double at_s, struct listener_next *next) {
  l->step = STEP_MASTER;
  ask(l, next, NULL, at_s);
}

// The person stays until the music stops, but not beyond the end of the scenario.
static void end_session(struct listener *l, struct listener_next *next, double at_s) {
  l->step = STEP_DONE;
  next->act = ACT_END;
  next->at_s = fmin(at_s, l->sc->end_s);
}

static void begin_track(struct listener *l, const struct popularity *pop, double at_s, struct listener_next *next) {
  const struct scenario *sc = l->sc;
  l->asset = popularity_draw(pop, &l->rng);
  l->dash = reads_mpd(l);
  l->list = l->index = NULL;
  l->resuming = false;
  l->switching = false;
  l->playing = false;
  l->begun_s = at_s;
  l->seg = l->fetched_after_start = l->tries = 0;
  l->rendition = UINT32_MAX;
  if (l->clock_s >= sc->end_s) { // the scenario is over for this listener
    end_session(l, next, at_s);
    return;
  }
  ask_master(l, at_s, next);
}

// Who arrives in a piece of the shape that polls waits for the end of the last such piece in a row.
static double poll_until(const struct scenario *sc, double at_s) {
  double start = 0, until = 0;
  for (uint32_t i = 0; i < sc->num_pieces; i++) {
    double end = start + sc->pieces[i].seconds;
    if (sc->poll_s[i] <= 0) {
      if (at_s < end)
        return until > at_s ? until : 0;
      until = 0;
    } else {
      until = end;
    }
    start = end;
  }
  return until > at_s ? until : 0;
}

static double poll_every(const struct scenario *sc, double at_s) {
  double end = 0;
  for (uint32_t i = 0; i < sc->num_pieces; i++) {
    end += sc->pieces[i].seconds;
    if (at_s < end)
      return sc->poll_s[i];
  }
  return 0;
}

// The next look at the release's manifest, or its first track when it is out. The clock stands at the poll just made.
static void poll_or_play(struct listener *l, const struct popularity *pop, struct listener_next *next) {
  double every = poll_every(l->sc, l->clock_s);
  l->clock_s += every > 0 ? every : l->sc->end_s;
  if (l->clock_s < l->drop_s) {
    ask(l, next, NULL, l->clock_s);
    next->if_none_match = l->conditional;
    return;
  }
  l->clock_s = l->drop_s;
  begin_track(l, pop, l->drop_s, next);
}

void listener_begin(struct listener *l, const struct scenario *sc, const struct popularity *pop, uint64_t id, double at_s,
                    struct listener_next *next) {
  *next = (struct listener_next){0};
  *l = (struct listener){.id = id, .rng = rng_of(sc->seed, id), .sc = sc, .startup_s = -1, .clock_s = at_s};
  l->slow = chance(l, sc->slow_reader);
  l->aborts = chance(l, sc->abort_body);
  l->half_close = chance(l, sc->half_close);
  l->ranged = chance(l, sc->range);
  l->conditional = chance(l, sc->conditional);
  l->heads = chance(l, sc->head);
  l->reconnects = chance(l, sc->reconnect);
  l->verified = chance(l, sc->verify_share);
  l->drop_s = poll_until(sc, at_s);
  if (l->drop_s > 0) {
    l->step = STEP_POLL;
    l->dash = sc->catalogue.manifests ? scenario_is_mpd(sc, 0) : sc->protocol == LOAD_DASH;
    ask(l, next, NULL, at_s);
    return;
  }
  begin_track(l, pop, at_s, next);
}

uint32_t listener_pick(struct listener *l, uint32_t num) {
  if (l->rendition == UINT32_MAX)
    l->rendition = (uint32_t)rng_below(&l->rng, num ? num : 1);
  return l->rendition;
}

static void end_track(struct listener *l, const struct popularity *pop, double at_s, struct listener_next *next) {
  l->track++;
  l->playing = false;
  if (l->track < l->sc->tracks)
    begin_track(l, pop, at_s, next);
  else
    end_session(l, next, at_s);
}

// The person leaves when the playhead gets there, not when the last segment arrives.
static void leave_track(struct listener *l, const struct popularity *pop, double now_s, struct listener_next *next) {
  double starts = l->list->start_s[l->seg], media = l->leave_s < starts ? l->leave_s : starts;
  double at = l->origin_s + media;
  l->played_s += fmax(0, fmin(media, l->sc->end_s - l->origin_s) - l->first_media_s);
  l->clock_s = fmax(l->clock_s, l->clock_origin_s + media);
  end_track(l, pop, at > now_s ? at : now_s, next);
}

void listener_cut(struct listener *l, double now_s) {
  if (l->playing && l->list) { // up to the playhead, which cannot be beyond what has arrived; since then there was silence
    double played = now_s - l->origin_s, arrived = l->list->start_s[l->seg];
    l->played_s += fmax(0, fmin(played, arrived) - l->first_media_s);
    l->rebuffer_s += fmax(0, played - arrived);
  }
  l->playing = false;
}

// When segment `seg` is due: at once until `ahead` segments are in, then when the playhead enters the segment that lies
// `ahead` before it.
static double due(struct listener *l, double now_s) {
  if (!l->playing || l->fetched_after_start < l->sc->ahead)
    return now_s;
  uint32_t back = l->seg >= l->sc->ahead ? l->seg - l->sc->ahead : 0;
  l->clock_s = fmax(l->clock_s, l->clock_origin_s + l->list->start_s[back]);
  return l->origin_s + l->list->start_s[back];
}

static void pause_for(struct listener *l, double pause_s) {
  l->origin_s += pause_s;
  l->clock_origin_s += pause_s;
}

static void seek(struct listener *l, double now_s, double pause_s) {
  listener_cut(l, now_s);
  l->seg = (uint32_t)rng_below(&l->rng, l->list->num);
  l->fetched_after_start = 0;
  l->begun_s = now_s + pause_s;
  l->clock_s += pause_s;
}

// The segment that is to come, and before it its init segment, where the listener has another one. Whole ones have no range.
static void ask_for_segment(struct listener *l, struct listener_next *next, double at_s) {
  const struct media_list *list = l->list;
  const struct media_part *part = media_part_of(list, l->seg);
  uint32_t number = (uint32_t)(part - list->parts) + 1;
  if (number != l->part && part->init[0]) {
    l->step = STEP_INIT;
    l->resuming = true;
    ask(l, next, part->init, at_s);
    next->part = part->range;
  } else {
    l->step = STEP_SEGMENT;
    ask(l, next, list->uris + list->uri_off[l->seg], at_s);
    if (list->ranges)
      next->part = list->ranges[l->seg];
  }
  l->part = number;
}

static void next_segment(struct listener *l, const struct popularity *pop, double now_s, struct listener_next *next) {
  double pause = 0;
  bool sought = false;
  if (l->seg < l->list->num && l->playing) {
    if (chance(l, l->sc->pause))
      pause = rng_exp(&l->rng) * l->sc->pause_s;
    if ((sought = chance(l, l->sc->seek)))
      seek(l, now_s, pause);
  }
  if (l->playing && l->seg + 1 < l->list->num && chance(l, l->sc->switch_rendition)) {
    l->rendition = UINT32_MAX; // drawn anew from a fresh look at the manifest; the position stays
    l->switching = true;
    ask_master(l, now_s, next);
    return;
  }
  if (l->seg >= l->list->num || (l->playing && l->list->start_s[l->seg] >= l->leave_s)) {
    leave_track(l, pop, now_s, next);
    return;
  }
  if (!sought)
    pause_for(l, pause);
  double at = sought ? now_s + pause : due(l, now_s);
  if (l->clock_s >= l->sc->end_s) {
    end_session(l, next, at);
    return;
  }
  ask_for_segment(l, next, at);
  next->head = l->step == STEP_SEGMENT && l->heads && chance(l, 0.1);
}

// A segment has arrived: start playing, or see whether it came in time.
static void segment_arrived(struct listener *l, double now_s) {
  double starts = l->list->start_s[l->seg];
  l->segments++;
  if (!l->playing) {
    l->playing = true;
    l->startup_s = now_s - l->begun_s;
    l->origin_s = now_s - starts;
    l->clock_origin_s = l->clock_s - starts;
    l->first_media_s = starts;
  } else if (now_s > l->origin_s + starts) {
    double late = now_s - (l->origin_s + starts);
    l->misses++;
    l->rebuffer_s += late;
    l->origin_s += late;
  }
  l->seg++;
  l->fetched_after_start++;
}

static void retry_or_leave(struct listener *l, const struct popularity *pop, double now_s, struct listener_next *next) {
  l->errors++;
  if (l->step == STEP_POLL) { // the next poll is the retry
    poll_or_play(l, pop, next);
    return;
  }
  if (l->tries >= l->sc->retries) {
    listener_cut(l, now_s);
    end_track(l, pop, now_s, next);
    return;
  }
  double wait = l->sc->retry_s * (double)((uint64_t)1 << (l->tries < 10 ? l->tries : 10));
  l->tries++;
  next->act = ACT_REQUEST; // the same again, still in `next`
  next->at_s = now_s + wait * (0.5 + rng_unit(&l->rng));
}

// A second look at the segment that has just arrived: a part of it, or whether it is still the same. False: none.
static bool look_again(struct listener *l, const struct listener_got *got, struct listener_next *next) {
  const char *path = l->list->uris + l->list->uri_off[l->seg - 1];
  struct byte_range part = next->part;
  if (l->ranged && got->body_len > 2 && chance(l, 0.25)) {
    ask(l, next, path, got->now_s);
    next->part = part;
    next->range = (uint8_t)(RANGE_CLOSED + rng_below(&l->rng, 3));
    next->range_from = rng_below(&l->rng, got->body_len);
    next->range_to = got->body_len - 1;
    next->range_of = got->body_len;
    if (next->range == RANGE_CLOSED)
      next->range_to = next->range_from + rng_below(&l->rng, got->body_len - next->range_from);
    return true;
  }
  if (l->conditional && chance(l, 0.25)) {
    ask(l, next, path, got->now_s);
    next->part = part;
    next->if_none_match = true;
    return true;
  }
  return false;
}

static void on_segment(struct listener *l, const struct popularity *pop, const struct listener_got *got, struct listener_next *next) {
  if (next->head) { // now the real one
    ask_for_segment(l, next, got->now_s);
    return;
  }
  bool again = next->range || next->if_none_match;
  if (!again) {
    segment_arrived(l, got->now_s);
    if (look_again(l, got, next))
      return;
  }
  next_segment(l, pop, got->now_s, next);
}

void listener_on_response(struct listener *l, const struct popularity *pop, const struct listener_got *got,
                          struct listener_next *next) {
  l->requests++;
  if (!got->ok) {
    retry_or_leave(l, pop, got->now_s, next);
    return;
  }
  l->tries = 0;
  switch ((enum listener_step)l->step) {
  case STEP_POLL:
    poll_or_play(l, pop, next);
    return;
  case STEP_MASTER:
    if (!l->dash && got->num_renditions) {
      l->step = STEP_MEDIA;
      ask(l, next, got->renditions[listener_pick(l, got->num_renditions)], got->now_s);
      return;
    }
    if (got->list->index) {
      l->index = got->list;
      l->step = STEP_INDEX;
      ask(l, next, l->index->index, got->now_s);
      next->part = l->index->index_range;
      return;
    }
    __attribute__((fallthrough)); // an MPD holds the list as well
  case STEP_INDEX:
  case STEP_MEDIA:
    l->list = got->list;
    l->part = 0;
    if (!l->switching)
      l->leave_s = leave_time(&l->rng, l->sc->skip_scale, l->list->start_s[l->list->num]);
    else if (l->seg >= l->list->num)
      l->seg = l->list->num - 1; // renditions need not have equally many segments
    l->switching = false;
    l->step = STEP_INIT;
    l->part = (uint32_t)(media_part_of(l->list, l->seg) - l->list->parts) + 1;
    if (l->list->parts[l->part - 1].init[0]) {
      ask(l, next, l->list->parts[l->part - 1].init, got->now_s);
      next->part = l->list->parts[l->part - 1].range;
      return;
    }
    __attribute__((fallthrough)); // there is none
  case STEP_INIT:
    if (l->resuming) {
      l->resuming = false;
      ask_for_segment(l, next, got->now_s);
    } else {
      next_segment(l, pop, got->now_s, next);
    }
    return;
  case STEP_SEGMENT:
    on_segment(l, pop, got, next);
    return;
  case STEP_DONE:
    break;
  }
  next->act = ACT_END;
  next->at_s = got->now_s;
}
