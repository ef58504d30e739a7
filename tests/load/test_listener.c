// When a listener asks, what it has heard and for how long it stays, against a track of ten segments of 2 s that come at once.
#include "load/session.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

enum { SEGMENTS = 10 };
#define BEGIN 0.5
#define NEAR(a, b) (fabs((a) - (b)) < 1e-9)

static struct alloc_heap mem;
static struct scenario sc;
static struct popularity pop;
static struct listener l;
static struct listener_next next;
static double starts[SEGMENTS + 1];
static uint32_t offs[SEGMENTS];
static char uris[SEGMENTS * 8];
static struct media_part parts[2] = {{.init = "/i"}, {.init = "/i2"}};
static struct media_list track = {.init = "/i", .parts = parts, .num_parts = 1, .num = SEGMENTS, .start_s = starts, .uri_off = offs, .uris = uris};

static void scenario(const char *player, double drain_s) {
  char text[512];
  struct diag d = {0};
  snprintf(text, sizeof text, "arrivals: [{ for: 1s, rate: 1 }]\ndrain: %gs\ncatalogue: { assets: [a] }\nplayer: { skip: 0, %s }\n", drain_s, player);
  alloc_heap_init(&mem, 1 << 20);
  cr_assert(!scenario_parse(&sc, &mem.base, bytes_str(text), &d) && !scenario_check(&sc, &d), "%s", d.what);
  cr_assert_eq(popularity_init(&pop, &mem.base, POPULARITY_ZIPF, 1, 1, 0), ERR_OK);
  for (uint32_t i = 0; i <= SEGMENTS; i++)
    starts[i] = 2.0 * i;
  for (uint32_t i = 0, used = 0; i < SEGMENTS; i++) {
    offs[i] = used;
    used += (uint32_t)snprintf(uris + used, sizeof uris - used, "/%u", i) + 1;
  }
}

static void answer(double now_s, bool ok, const struct media_list *list) {
  static const char *const renditions[] = {"/m"};
  struct listener_got got = {.now_s = now_s, .ok = ok, .body_len = 3, .renditions = renditions, .num_renditions = 1, .list = list};
  listener_on_response(&l, &pop, &got, &next);
}

// Up to the request for the first segment.
static void arrive(uint64_t id) {
  listener_begin(&l, &sc, &pop, id, BEGIN, &next);
  while (next.act == ACT_REQUEST && next.step != STEP_SEGMENT)
    answer(next.at_s, true, &track);
  cr_assert(next.step == STEP_SEGMENT && NEAR(next.at_s, BEGIN));
}

Test(listener, keeps_as_much_ahead_as_it_is_to) {
  scenario("ahead: 2, tracks: 1", 60);
  arrive(1);
  for (uint32_t i = 0; i < SEGMENTS; i++) {
    cr_assert(next.act == ACT_REQUEST && NEAR(next.at_s, BEGIN + (i < 2 ? 0 : starts[i - 2])), "segment %u at %g", i, next.at_s);
    cr_expect_str_eq(next.path, uris + offs[i]);
    answer(next.at_s, true, &track);
  }
  cr_expect(next.act == ACT_END && NEAR(next.at_s, BEGIN + 20), "it stays until the music ends: %g", next.at_s);
  cr_expect(NEAR(l.played_s, 20) && !l.misses && l.rebuffer_s == 0 && l.segments == SEGMENTS, "%g s", l.played_s);
  alloc_heap_free(&mem);
}

// What fills up is due when the one before has come, not when it could have been played.
Test(listener, fills_up_one_after_the_other) {
  scenario("ahead: 3, tracks: 1", 60);
  arrive(1);
  for (uint32_t i = 0; i < 3; i++) {
    cr_expect(NEAR(next.at_s, BEGIN + 0.1 * i), "segment %u at %g", i, next.at_s);
    answer(BEGIN + 0.1 * (i + 1), true, &track);
  }
  cr_expect(NEAR(next.at_s, BEGIN + 0.1), "then by the playhead: %g", next.at_s);
  alloc_heap_free(&mem);
}

Test(listener, the_next_track_begins_when_this_one_has_been_played) {
  scenario("ahead: 64, tracks: 2", 60);
  arrive(1);
  for (uint32_t i = 0; i < SEGMENTS; i++)
    answer(BEGIN, true, &track);
  cr_expect(next.act == ACT_REQUEST && next.step == STEP_MASTER && NEAR(next.at_s, BEGIN + 20), "step %u at %g", next.step, next.at_s);
  alloc_heap_free(&mem);
}

Test(listener, nothing_is_heard_or_asked_for_after_the_end) {
  scenario("ahead: 64, tracks: 2", 9); // which is 10 s in
  arrive(1);
  for (uint32_t i = 0; i < SEGMENTS; i++)
    answer(BEGIN, true, &track);
  cr_expect(next.act == ACT_END && NEAR(next.at_s, 10), "act %u at %g", next.act, next.at_s);
  cr_expect(NEAR(l.played_s, 10 - BEGIN), "%g", l.played_s);
  alloc_heap_free(&mem);
}

Test(listener, who_leaves_in_the_middle_asks_for_no_more) {
  scenario("ahead: 1, tracks: 1", 60);
  arrive(1);
  l.leave_s = 5;
  for (uint32_t i = 0; i < 3; i++)
    answer(next.at_s, true, &track);
  cr_expect(next.act == ACT_END && NEAR(next.at_s, BEGIN + 5) && l.segments == 3 && NEAR(l.played_s, 5), "act %u at %g, %u segments, %g s", next.act, next.at_s, l.segments, l.played_s);
  alloc_heap_free(&mem);
}

Test(listener, a_session_that_is_cut_has_heard_what_had_arrived) {
  scenario("ahead: 1, tracks: 1", 60);
  arrive(1);
  answer(BEGIN, true, &track);
  listener_cut(&l, BEGIN + 5);
  cr_expect(NEAR(l.played_s, 2) && NEAR(l.rebuffer_s, 3), "%g s heard, %g s waited", l.played_s, l.rebuffer_s);
  listener_cut(&l, BEGIN + 9);
  cr_expect(NEAR(l.played_s, 2) && NEAR(l.rebuffer_s, 3), "once");
  alloc_heap_free(&mem);
}

// By the listener's own clock as well: tokens go by it.
Test(listener, pauses_move_what_follows) {
  scenario("ahead: 1, tracks: 1, pause: 100%, pause_for: 10s", 600);
  arrive(1);
  for (uint32_t i = 0; i < SEGMENTS - 1; i++) {
    double origin = l.origin_s, clock = l.clock_origin_s, now = next.at_s;
    bool first = !l.playing;
    answer(now, true, &track);
    cr_expect(first || (l.origin_s > origin && NEAR(l.origin_s - origin, l.clock_origin_s - clock)), "segment %u: %g, %g", i, l.origin_s - origin, l.clock_origin_s - clock);
    cr_expect(NEAR(next.at_s, l.origin_s + starts[i]), "segment %u at %g", i + 1, next.at_s);
  }
  alloc_heap_free(&mem);
}

Test(listener, seeks_begin_anew) {
  scenario("ahead: 2, tracks: 1, seek: 100%, pause: 100%, pause_for: 10s", 3600);
  arrive(1);
  for (uint32_t i = 0; i < 50; i++) {
    double now = next.at_s, clock = l.clock_s;
    answer(now, true, &track);
    if (next.act == ACT_END) // the last segment came
      break;
    cr_assert(next.step == STEP_SEGMENT && !l.playing && !l.fetched_after_start && next.at_s > now, "%u", i);
    cr_expect(NEAR(l.clock_s - clock, next.at_s - now) && NEAR(l.begun_s, next.at_s), "%u: the clock moved by %g, the next is due in %g", i, l.clock_s - clock, next.at_s - now);
    cr_expect_str_eq(next.path, uris + offs[l.seg]);
  }
  alloc_heap_free(&mem);
}

Test(listener, each_part_has_its_init_segment) {
  struct media_list two = track;
  scenario("ahead: 1, tracks: 1", 60);
  two.num_parts = 2;
  parts[1].first = 1;
  arrive(1);
  l.list = &two;
  answer(BEGIN, true, &two);
  cr_assert(next.step == STEP_INIT && !strcmp(next.path, "/i2") && NEAR(next.at_s, BEGIN), "%s at %g", next.path, next.at_s);
  answer(BEGIN, true, &two);
  cr_assert(next.step == STEP_SEGMENT && !strcmp(next.path, "/1"), "%s", next.path);
  answer(BEGIN, true, &two);
  cr_expect(next.step == STEP_SEGMENT && !strcmp(next.path, "/2"), "%s", next.path);
  alloc_heap_free(&mem);
}

Test(listener, another_rendition_goes_on_where_it_was) {
  struct media_list two = track, shorter = track;
  scenario("ahead: 1, tracks: 1, switch_rendition: 100%", 60);
  two.num_parts = 2;
  parts[1].first = 1;
  shorter.num = 1;
  for (int i = 0; i < 2; i++) {
    const struct media_list *other = i ? &shorter : &two;
    arrive(1);
    answer(BEGIN, true, &track);
    cr_assert_eq(next.step, STEP_MASTER);
    answer(BEGIN, true, other);
    cr_assert_eq(next.step, STEP_MEDIA);
    answer(BEGIN, true, other);
    cr_expect(next.step == STEP_INIT && !strcmp(next.path, i ? "/i" : "/i2"), "%s", next.path);
    sc.switch_rendition = 0;
    answer(BEGIN, true, other);
    cr_expect(next.step == STEP_SEGMENT && !strcmp(next.path, i ? "/0" : "/1"), "%s", next.path);
    sc.switch_rendition = 1;
  }
  alloc_heap_free(&mem);
}

Test(listener, retries_wait_for_twice_as_long_each_time) {
  double first[2];
  scenario("ahead: 1, tracks: 1, retries: 13, retry_after: 1s", 60);
  for (uint64_t id = 0; id < 2; id++) {
    arrive(id);
    for (uint32_t k = 0; k < 13; k++) {
      double base = k < 10 ? 1 << k : 1 << 10, wait;
      answer(7, false, NULL);
      wait = next.at_s - 7;
      cr_expect(next.act == ACT_REQUEST && wait >= 0.5 * base && wait < 1.5 * base, "try %u: %g s", k, wait);
      first[id] = k ? first[id] : wait;
    }
    answer(7, false, NULL);
    cr_expect_eq(next.act, ACT_END);
  }
  cr_expect(first[0] != first[1], "two listeners do not come at once");
  alloc_heap_free(&mem);
}

Test(listener, what_comes_in_the_end_was_no_failure) {
  scenario("ahead: 64, tracks: 1, retries: 1", 60);
  arrive(1);
  for (uint32_t i = 0; i < 2 * SEGMENTS; i++)
    answer(BEGIN, i % 2, &track);
  cr_expect(l.segments == SEGMENTS && l.errors == SEGMENTS && next.act == ACT_END, "%u segments, %u errors", l.segments, l.errors);
  alloc_heap_free(&mem);
}

Test(listener, some_ask_for_a_tenth_of_the_heads_first) {
  scenario("ahead: 64, tracks: 1", 60);
  uint32_t heads = 0, segments = 0;
  sc.head = 1;
  for (uint64_t id = 0; id < 500; id++) {
    arrive(id);
    while (next.act == ACT_REQUEST) {
      heads += next.head;
      answer(BEGIN, true, &track);
    }
    segments += l.segments;
  }
  cr_expect(segments == 500 * SEGMENTS && heads > 400 && heads < 600, "%u of %u", heads, segments);
  alloc_heap_free(&mem);
}

Test(listener, ranges_lie_in_what_was_received) {
  scenario("ahead: 64, tracks: 1", 60);
  uint32_t seen[4] = {0};
  sc.range = 1;
  for (uint64_t id = 0; id < 200; id++) {
    arrive(id);
    for (uint32_t i = 0; i < 3 * SEGMENTS && next.act == ACT_REQUEST; i++) {
      seen[next.range]++;
      if (next.range)
        cr_expect(next.range_from <= next.range_to && next.range_to < 3 && next.range_of == 3 && (next.range == RANGE_CLOSED || next.range_to == 2), "%lu-%lu",
                  next.range_from, next.range_to);
      answer(BEGIN, true, &track);
    }
  }
  cr_expect(seen[RANGE_CLOSED] > 50 && seen[RANGE_OPEN] > 50 && seen[RANGE_SUFFIX] > 50);
  alloc_heap_free(&mem);
}
