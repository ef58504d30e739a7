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

static void set_path(const struct listener *l, struct listener_next *next, const char *path, double at_s) {
  size_t n = strlen(path);
  memcpy(next->path, path, n + 1);
  if (l->sc->token_ttl_s > 0 && n + 32 < sizeof next->path)
    snprintf(next->path + n, sizeof next->path - n, "?token=%lu.%lu", l->id, (uint64_t)((at_s > 0 ? at_s : 0) / l->sc->token_ttl_s));
  next->at_s = at_s;
  next->step = l->step;
  next->act = ACT_REQUEST;
}

static void ask_master(struct listener *l, double now_s, struct listener_next *next) {
  char path[PLAYLIST_MAX_URI];
  l->step = STEP_MASTER;
  snprintf(path, sizeof path, "/%s/%s/%s", l->sc->catalogue.names[l->asset], l->sc->scheme, l->dash ? "manifest.mpd" : "master.m3u8");
  set_path(l, next, path, now_s);
}

static void begin_track(struct listener *l, const struct popularity *pop, double now_s, struct listener_next *next) {
  const struct scenario *sc = l->sc;
  l->asset = popularity_draw(pop, &l->rng);
  l->dash = sc->protocol == LOAD_DASH || (sc->protocol == LOAD_MIX && chance(l, 0.5));
  l->list = NULL;
  l->switching = false;
  l->playing = false;
  l->begun_s = now_s;
  l->seg = l->fetched_after_start = l->tries = 0;
  l->rendition = UINT32_MAX;
  ask_master(l, now_s, next);
}

void listener_begin(struct listener *l, const struct scenario *sc, const struct popularity *pop, uint64_t id, double now_s,
                    struct listener_next *next) {
  *next = (struct listener_next){0};
  *l = (struct listener){.id = id, .rng = rng_of(sc->seed, id), .sc = sc, .startup_s = -1};
  l->slow = chance(l, sc->slow_reader);
  l->aborts = chance(l, sc->abort_body);
  l->half_close = chance(l, sc->half_close);
  l->ranged = chance(l, sc->range);
  l->conditional = chance(l, sc->conditional);
  l->heads = chance(l, sc->head);
  l->verified = chance(l, sc->verify_share);
  begin_track(l, pop, now_s, next);
}

uint32_t listener_pick(struct listener *l, uint32_t num) {
  if (l->rendition == UINT32_MAX)
    l->rendition = (uint32_t)rng_below(&l->rng, num ? num : 1);
  return l->rendition;
}

static void end_track(struct listener *l, const struct popularity *pop, double now_s, struct listener_next *next) {
  l->track++;
  if (l->track < l->sc->tracks) {
    begin_track(l, pop, now_s, next);
  } else {
    l->step = STEP_DONE;
    next->act = ACT_END;
  }
}

// When segment `seg` is due: at once until `ahead` segments are in, then when the playhead enters the segment that lies
// `ahead` before it.
static double due(const struct listener *l, double now_s) {
  if (!l->playing || l->fetched_after_start < l->sc->ahead)
    return now_s;
  uint32_t back = l->seg >= l->sc->ahead ? l->seg - l->sc->ahead : 0;
  return l->origin_s + l->list->start_s[back];
}

static void next_segment(struct listener *l, const struct popularity *pop, double now_s, struct listener_next *next) {
  double pause = 0;
  if (l->seg < l->list->num && l->playing) {
    if (chance(l, l->sc->pause))
      pause = rng_exp(&l->rng) * l->sc->pause_s;
    if (chance(l, l->sc->seek)) {
      l->seg = (uint32_t)rng_below(&l->rng, l->list->num);
      l->playing = false;
      l->fetched_after_start = 0;
      l->begun_s = now_s + pause;
    }
  }
  if (l->playing && l->seg + 1 < l->list->num && chance(l, l->sc->switch_rendition)) {
    l->rendition = UINT32_MAX; // drawn anew from a fresh look at the manifest; the position stays
    l->switching = true;
    ask_master(l, now_s, next);
    return;
  }
  bool left = l->seg >= l->list->num || (l->playing && l->list->start_s[l->seg] >= l->leave_s);
  if (left) {
    // The person leaves when the playhead gets there, not when the last segment arrives.
    double at = l->playing ? l->origin_s + (l->leave_s < l->list->start_s[l->seg] ? l->leave_s : l->list->start_s[l->seg]) : now_s;
    l->played_s += l->playing && at > l->begun_s ? at - l->begun_s : 0;
    end_track(l, pop, at > now_s ? at : now_s, next);
    return;
  }
  l->origin_s += pause;
  l->step = STEP_SEGMENT;
  set_path(l, next, l->list->uris + l->list->uri_off[l->seg], due(l, now_s) + (l->playing ? 0 : pause));
  next->head = l->heads && chance(l, 0.1);
}

// A segment has arrived: start playing, or see whether it came in time.
static void segment_arrived(struct listener *l, double now_s) {
  double starts = l->list->start_s[l->seg];
  l->segments++;
  if (!l->playing) {
    l->playing = true;
    l->startup_s = now_s - l->begun_s;
    l->origin_s = now_s - starts;
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
  if (l->tries >= l->sc->retries) {
    end_track(l, pop, now_s, next);
    return;
  }
  double wait = l->sc->retry_s * (double)((uint64_t)1 << (l->tries < 10 ? l->tries : 10));
  l->tries++;
  next->act = ACT_REQUEST; // the same path again, still in `next`
  next->at_s = now_s + wait * (0.5 + rng_unit(&l->rng));
}

void listener_on_response(struct listener *l, const struct popularity *pop, const struct listener_got *got,
                          struct listener_next *next) {
  l->requests++;
  bool was_range = next->ranged, was_head = next->head;
  next->ranged = next->head = false;
  if (!got->ok) {
    retry_or_leave(l, pop, got->now_s, next);
    return;
  }
  l->tries = 0;
  switch (l->step) {
  case STEP_MASTER:
    if (!l->dash) {
      l->step = STEP_MEDIA;
      set_path(l, next, got->renditions->r[listener_pick(l, got->renditions->num)].uri, got->now_s);
      return;
    }
    __attribute__((fallthrough)); // an MPD holds the list as well
  case STEP_MEDIA:
    l->list = got->list;
    if (!l->switching)
      l->leave_s = leave_time(&l->rng, l->sc->skip_scale, l->list->start_s[l->list->num]);
    l->switching = false;
    l->step = STEP_INIT;
    set_path(l, next, l->list->init, got->now_s);
    return;
  case STEP_INIT:
    next_segment(l, pop, got->now_s, next);
    return;
  case STEP_SEGMENT:
    if (was_head || was_range) { // an extra look at the segment: now the real one, or on
      if (was_head) {
        set_path(l, next, l->list->uris + l->list->uri_off[l->seg], got->now_s);
        return;
      }
    } else {
      segment_arrived(l, got->now_s);
      if (l->ranged && got->body_len > 2 && chance(l, 0.25)) {
        next->ranged = true;
        next->range_from = rng_below(&l->rng, got->body_len);
        next->range_to = next->range_from + rng_below(&l->rng, got->body_len - next->range_from);
        next->at_s = got->now_s;
        return; // the same path again, a part of it
      }
    }
    next_segment(l, pop, got->now_s, next);
    return;
  case STEP_DONE:
    break;
  }
  next->act = ACT_END;
}
