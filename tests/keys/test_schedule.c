#include "keys/epochs.h"
#include "keys/schedule.h"

#include <criterion/criterion.h>

#define HOUR 3600000ull

static void is(struct schedule_step got, enum schedule_act act, uint64_t slot, uint64_t next) {
  cr_assert(got.act == act && got.slot_ms == slot && got.next_ms == next, "%d %llu %llu", (int)got.act,
            (unsigned long long)got.slot_ms, (unsigned long long)got.next_ms);
}

Test(schedule, begins_without_rotating) { is(schedule_step(0, HOUR, 10 * HOUR + 5), SCHEDULE_BEGIN, 10 * HOUR, 11 * HOUR); }

Test(schedule, rotates_at_the_next_multiple_and_once) {
  is(schedule_step(10 * HOUR, HOUR, 11 * HOUR - 1), SCHEDULE_WAIT, 10 * HOUR, 11 * HOUR);
  is(schedule_step(10 * HOUR, HOUR, 11 * HOUR), SCHEDULE_ROTATE, 11 * HOUR, 12 * HOUR);
  is(schedule_step(11 * HOUR, HOUR, 11 * HOUR), SCHEDULE_WAIT, 11 * HOUR, 12 * HOUR);
}

Test(schedule, what_was_missed_is_caught_up_with_one_rotation) {
  is(schedule_step(10 * HOUR, HOUR, 100 * HOUR + 7), SCHEDULE_ROTATE, 100 * HOUR, 101 * HOUR);
}

Test(schedule, another_interval_goes_on_from_where_the_old_one_was) {
  is(schedule_step(18 * HOUR, 24 * HOUR, 23 * HOUR), SCHEDULE_WAIT, 18 * HOUR, 24 * HOUR);
  is(schedule_step(18 * HOUR, 24 * HOUR, 24 * HOUR), SCHEDULE_ROTATE, 24 * HOUR, 48 * HOUR);
  is(schedule_step(24 * HOUR, 6 * HOUR, 29 * HOUR), SCHEDULE_WAIT, 24 * HOUR, 30 * HOUR);
}

// A clock that is set back a little waits; one that was years ahead when it rotated must not stop rotation for years.
Test(schedule, a_clock_that_was_wrong) {
  is(schedule_step(11 * HOUR, HOUR, 10 * HOUR + 1), SCHEDULE_WAIT, 11 * HOUR, 12 * HOUR);
  is(schedule_step(11 * HOUR, HOUR, 10 * HOUR), SCHEDULE_WAIT, 11 * HOUR, 12 * HOUR);
  is(schedule_step(9000 * HOUR, HOUR, 10 * HOUR + 1), SCHEDULE_BEGIN, 10 * HOUR, 11 * HOUR);
}

Test(schedule, the_year_1970) {
  is(schedule_step(0, HOUR, 5), SCHEDULE_BEGIN, 1, HOUR);
  is(schedule_step(1, HOUR, 5), SCHEDULE_WAIT, 1, HOUR);
  is(schedule_step(1, HOUR, HOUR), SCHEDULE_ROTATE, HOUR, 2 * HOUR);
}

static struct alloc_heap heap;

static struct epochs *replay(struct bytes text) {
  struct epochs *e = epochs_new(&heap.base, 1);
  while (text.n) {
    size_t n = (size_t)((const uint8_t *)memchr(text.p, '\n', text.n) - text.p) + 1;
    struct diag diag = {0};
    cr_assert_eq(epochs_read_line(e, bytes_of(text.p, n), &diag), ERR_OK, "%s", diag.what);
    text = bytes_of(text.p + n, text.n - n);
  }
  return e;
}

// A scheduled rotation is one line, and its slot outlives both a restart and compaction, with rotations folded or not.
Test(schedule, the_slot_is_kept) {
  alloc_heap_init(&heap, 1 << 20);
  uint8_t buf[4096], all[4096];
  struct diag diag = {0};
  struct writer w = wr_of(buf, sizeof buf);
  epochs_write_slot(&w, BYTES_LIT("idle/"), 7 * HOUR);
  epochs_write_event(&w, &(struct epoch_event){.seq = 1, .time_ms = 10 * HOUR + 3, .grace_ms = 1000, .scope = BYTES_LIT("live/"),
                                               .slot_ms = 10 * HOUR});
  epochs_write_event(&w, &(struct epoch_event){.seq = 2, .time_ms = 10 * HOUR + 4, .grace_ms = HOUR, .scope = BYTES_LIT("live/")});
  for (uint64_t now = 10 * HOUR; now < 13 * HOUR; now += HOUR) {
    struct epochs *e = replay(bytes_of(buf, w.n));
    struct writer c = wr_of(all, sizeof all);
    cr_assert_eq(epochs_write_all(&c, e, now, &heap.base), ERR_OK);
    e = replay(bytes_of(all, c.n));
    cr_assert_eq(epochs_slot(e, BYTES_LIT("live/")), 10 * HOUR);
    cr_assert_eq(epochs_slot(e, BYTES_LIT("idle/")), 7 * HOUR);
    cr_assert_eq(epochs_slot(e, BYTES_LIT("")), 0);
    cr_assert_eq(epochs_current(e, BYTES_LIT("live/x")), 3);
    cr_assert_eq(epochs_current(e, BYTES_LIT("idle/x")), 1);
  }
  cr_assert_eq(epochs_read_line(replay((struct bytes){0}), BYTES_LIT("sluice1 slot 1 a 0123456789abcdef\n"), &diag), ERR_CHECKSUM);
  alloc_heap_free(&heap);
}
