// Schedules over the real journal, with a clock that the test drives: across restarts, outages and changed keys files.
#include "server/rotation.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define HOUR 3600000ull

static char dir[64];
static struct alloc_heap heap;
static struct rotation_rules rules;
static struct keys_info info;
static struct keyset *keys;
static uint64_t retry_ms[KEYS_MAX_SCHEDULES];

static void setup(void) {
  snprintf(dir, sizeof dir, "/tmp/sluice-rotation-XXXXXX");
  cr_assert(mkdtemp(dir));
  alloc_heap_init(&heap, 16 << 20);
}

static void teardown(void) {
  char path[128];
  epoch_store_close(rules.epochs);
  snprintf(path, sizeof path, "%s/rotations.journal", dir);
  unlink(path);
  rmdir(dir);
  alloc_heap_free(&heap);
}

TestSuite(rotation, .init = setup, .fini = teardown);

static void start(const char *keys_file) {
  struct config_error error;
  struct diag diag = {0};
  memset(retry_ms, 0, sizeof retry_ms);
  epoch_store_close(rules.epochs);
  cr_assert_eq(keys_parse(&heap.base, &keys, &info, bytes_str(keys_file), &diag), ERR_OK, "%s", diag.what);
  rules = (struct rotation_rules){.epochs = epoch_store_open(dir, 1, &error), .keys = keys, .info = &info, .grace_ms = 5000};
  cr_assert(rules.epochs, "%s", error.text);
}

static void count(void *n, struct bytes scope) {
  (void)scope;
  ++*(unsigned *)n;
}

static void at(uint64_t now, unsigned rotations, uint64_t next) {
  unsigned n = 0;
  uint64_t when = rotation_schedule(&rules, retry_ms, now, count, &n);
  cr_assert_eq(n, rotations, "at %.2f h: %u rotations", (double)now / HOUR, n);
  cr_assert_eq(when, next, "at %.2f h: next at %.2f h", (double)now / HOUR, (double)when / HOUR);
}

static uint32_t epoch(const char *asset) { return epoch_store_current(rules.epochs, bytes_str(asset)); }

static const char three[] = "epochs:\n  every: 24h\n  schedule:\n    - { match: live/, every: 1h, grace: 10m }\n"
                            "    - { match: album/track, every: 6h }\n";

Test(rotation, without_a_schedule_nothing_is_written) {
  start("derive: {}");
  at(100 * HOUR, 0, UINT64_MAX);
  epoch_store_close(rules.epochs);
  rules.epochs = NULL;
  cr_assert_eq(rmdir(dir), 0);
}

Test(rotation, everything_a_prefix_and_an_asset_have_their_own_pace) {
  start(three);
  at(1000 * HOUR + 5, 0, 1001 * HOUR);
  for (uint64_t h = 1001; h <= 1032; h++)
    for (int again = 0; again < 2; again++) {
      unsigned n = again ? 0 : 1u + (unsigned)(h % 6 == 0) + (unsigned)(h % 24 == 0);
      at(h * HOUR + (unsigned)again, n, (h + 1) * HOUR);
    }
  cr_assert_eq(epoch("x"), 1 + 2); // 1008 h and 1032 h are midnights
  cr_assert_eq(epoch("live/x"), 1 + 2 + 32);
  cr_assert_eq(epoch("album/track"), 1 + 2 + 6);
}

Test(rotation, a_restart_at_any_moment_neither_repeats_nor_forgets) {
  start(three);
  at(1000 * HOUR + 5, 0, 1001 * HOUR);
  start(three); // it stands in the journal where the schedule began
  at(1001 * HOUR, 1, 1002 * HOUR);
  start(three);
  at(1001 * HOUR + 1, 0, 1002 * HOUR);
  cr_assert_eq(epoch("live/a"), 2);
  start(three);
  at(1100 * HOUR + 30, 3, 1101 * HOUR); // away for four days: each is caught up once
  cr_assert_eq(epoch("live/a"), 4);
  cr_assert_eq(epoch("album/track"), 3);
  cr_assert_eq(epoch("x"), 2);
  uint64_t until;
  cr_assert_eq(epoch_store_status(rules.epochs, bytes_str("x"), 1, 1100 * HOUR + 40, &until), EPOCH_GRACE);
  cr_assert_eq(until, 1100 * HOUR + 30 + 5000, "the configuration's grace, counted from when it happened");
}

Test(rotation, grace_of_the_entry_then_of_the_keys_file) {
  start("epochs: { grace: 2h, schedule: [ { match: a/, every: 1h, grace: 10m }, { match: b/, every: 1h } ] }");
  at(50 * HOUR, 0, 51 * HOUR);
  at(51 * HOUR, 2, 52 * HOUR);
  uint64_t until;
  cr_assert_eq(epoch_store_status(rules.epochs, bytes_str("a/x"), 1, 51 * HOUR + 1, &until), EPOCH_GRACE);
  cr_assert_eq(until, 51 * HOUR + 600000);
  cr_assert_eq(epoch_store_status(rules.epochs, bytes_str("b/x"), 1, 51 * HOUR + 1, &until), EPOCH_GRACE);
  cr_assert_eq(until, 53 * HOUR);
}

static const char records[] = "epochs: { every: 1h }\nkeys:\n"
                              "  - { asset: a, epoch: 1, scheme: cbcs, kid: 00112233445566778899aabbccddee01, "
                              "key: 0123456789abcdef0123456789abcd01 }\n";
static const char more[] = "  - { asset: a, epoch: 2, scheme: cbcs, kid: 00112233445566778899aabbccddee02, "
                           "key: 0123456789abcdef0123456789abcd02 }\n";

Test(rotation, without_the_next_record_it_waits_and_says_so) {
  char both[1024];
  start(records);
  at(10 * HOUR, 0, 11 * HOUR);
  at(20 * HOUR, 0, 20 * HOUR + 60000);
  at(11 * HOUR, 0, 11 * HOUR + 60000); // the clock was set back: not nine hours later
  cr_assert_eq(epoch("a"), 1);
  snprintf(both, sizeof both, "%s%s", records, more);
  start(both);
  at(11 * HOUR + 60000, 1, 12 * HOUR);
  cr_assert_eq(epoch("a"), 2);
}

// A refusal names the record that is to be written.
Test(rotation, what_is_missing_is_named) {
  static const struct {
    const char *more, *said;
  } cases[] = {{"", "no key of the next epoch (2, cbcs) for a"},
               {"  - { asset: a, epoch: 1, scheme: cbcs, label: lossless, kid: 00112233445566778899aabbccddee03, "
                "key: 0123456789abcdef0123456789abcd03 }\n"
                "  - { asset: a, epoch: 2, scheme: cbcs, kid: 00112233445566778899aabbccddee02, key: 0123456789abcdef0123456789abcd02 }\n",
                "no key of the next epoch (2, cbcs, label lossless) for a"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[1024];
    struct diag diag = {0};
    struct rotation_order o = {.scope = BYTES_LIT("a")};
    snprintf(text, sizeof text, "%s%s", records, cases[i].more);
    start(text);
    cr_assert_eq(rotation_order(&rules, &o, HOUR, &diag), ERR_NO_KEY);
    cr_expect(strstr(diag.what, cases[i].said), "%s", diag.what);
  }
}

Test(rotation, orders_do_not_move_a_schedule) {
  struct diag diag = {0};
  start("epochs: { every: 6h }");
  at(1 * HOUR, 0, 6 * HOUR);
  struct rotation_order o = {.revoke = true, .has_grace = true, .grace_ms = 77};
  cr_assert_eq(rotation_grace(&rules, &o), 0);
  cr_assert_eq(rotation_order(&rules, &o, 5 * HOUR, &diag), ERR_OK);
  at(5 * HOUR + 1, 0, 6 * HOUR);
  at(6 * HOUR, 1, 12 * HOUR);
  cr_assert_eq(epoch("x"), 3);
}

Test(rotation, a_clock_that_was_years_ahead) {
  start("epochs: { every: 24h }");
  at(24 * HOUR, 0, 48 * HOUR);
  at(90000 * HOUR, 1, 90000 * HOUR + 24 * HOUR - 90000 * HOUR % (24 * HOUR));
  at(49 * HOUR, 0, 72 * HOUR); // set right again: begins anew
  at(72 * HOUR, 1, 96 * HOUR);
}

Test(rotation, what_leaked_does_not_go_on_under_a_new_number) {
  struct diag diag = {0};
  struct rotation_order o = {.scope = BYTES_LIT("a"), .revoke = true};
  start("keys:\n  - { asset: a, epoch: 1, scheme: cbcs, kid: 00112233445566778899aabbccddee01, key: 0123456789abcdef0123456789abcd01 }\n"
        "  - { asset: a, epoch: 2, scheme: cbcs, kid: 00112233445566778899aabbccddee01, key: 0123456789abcdef0123456789abcd01 }\n");
  cr_assert_eq(rotation_order(&rules, &o, HOUR, &diag), ERR_NO_KEY);
  cr_assert(strstr(diag.what, "for a: what leaked would go on"), "%s", diag.what);
  cr_assert_eq(epoch("a"), 1);
  o.revoke = false; // a file that was replaced
  cr_assert_eq(rotation_order(&rules, &o, HOUR, &diag), ERR_OK, "%s", diag.what);
  cr_assert_eq(epoch("a"), 2);
}

// A disk that stands still until it is let go, where it is told to.
static bool slow;
static sem_t at_disk, go_on;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd) {
  if (slow) {
    sem_post(&at_disk);
    sem_wait(&go_on);
  }
  return __real_fdatasync(fd);
}

static void *order_apart(void *done) {
  struct diag diag = {0};
  struct rotation_order o = {.scope = BYTES_LIT("a")};
  *(enum err *)done = rotation_order(&rules, &o, HOUR, &diag);
  return NULL;
}

// An order that waits for the disk, and a schedule or another order meanwhile: the second is judged by what the first has made of it.
Test(rotation, two_at_once_do_not_run_past_the_last_record, .timeout = 30) {
  char both[1024];
  pthread_t thread[2];
  enum err done[2];
  sem_init(&at_disk, 0, 0);
  sem_init(&go_on, 0, 0);
  snprintf(both, sizeof both, "%s%s", records, more);
  start(both);
  slow = true;
  pthread_create(&thread[0], NULL, order_apart, &done[0]);
  sem_wait(&at_disk);
  pthread_create(&thread[1], NULL, order_apart, &done[1]);
  usleep(200000);
  slow = false;
  sem_post(&go_on);
  for (int i = 0; i < 2; i++)
    pthread_join(thread[i], NULL);
  cr_expect_eq(done[0], ERR_OK);
  cr_expect_eq(done[1], ERR_NO_KEY);
  cr_expect_eq(epoch("a"), 2, "there is no record of epoch %u", epoch("a"));
}
