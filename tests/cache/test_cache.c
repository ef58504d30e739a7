#include "cache/cache.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct quiet quiet;

static void quiet_point(unsigned worker) {
  quiet_leave(&quiet, worker);
  quiet_enter(&quiet, worker);
}

static struct cache *plain_cache(uint64_t size) { return cache_open(&(struct cache_options){.size = size, .quiet = &quiet, .huge_pages = true}); }

static struct cache *file_cache(uint64_t size) {
  return cache_open(&(struct cache_options){.size = size, .quiet = &quiet, .file = true, .huge_pages = true});
}

static void pattern(uint8_t *p, uint64_t source, uint32_t seg, uint32_t len) {
  for (uint32_t i = 0; i < len; i++)
    p[i] = (uint8_t)(source * 131 + seg * 31 + i * 7 + i / 251);
}

static bool holds_pattern(const uint8_t *p, uint64_t source, uint32_t seg, uint32_t len) {
  for (uint32_t i = 0; i < len; i += 61)
    if (p[i] != (uint8_t)(source * 131 + seg * 31 + i * 7 + i / 251))
      return false;
  return true;
}

static void settle(struct cache *c) {
  for (int i = 0; i < 50 && (cache_tend(c) | quiet_reclaim(&quiet)); i++) {
  }
}

// Asks and fills when told to; says whether the block is held afterwards.
static enum cache_got put(struct cache *c, uint64_t source, uint32_t seg, uint32_t len) {
  struct cache_waiter w = {0};
  struct cache_ref ref;
  enum cache_got got = cache_get(c, &ref, source, seg, len, &w);
  if (got == CACHE_FILL) {
    pattern(ref.data, source, seg, len);
    cache_fill_done(c, &ref, true);
  } else if (got == CACHE_HIT) {
    cr_assert(holds_pattern(ref.data, source, seg, len), "bytes of %u/%u", (unsigned)source, seg);
  }
  return got;
}

Test(cache, miss_fill_hit_and_keys_are_told_apart) {
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(16 << 20);
  cr_assert_eq(put(c, 1, 1, 1000), CACHE_FILL);
  cr_assert_eq(put(c, 1, 1, 1000), CACHE_HIT);
  cr_assert_eq(put(c, 1, 2, 1000), CACHE_FILL);
  cr_assert_eq(put(c, 2, 1, 1000), CACHE_FILL);
  cr_assert_eq(put(c, 1, 1, 999), CACHE_FILL, "a block of another length is another block");
  struct cache_counts counts;
  cache_stats(c, &counts);
  cr_assert_eq(counts.fills, 4);
  cr_assert_eq(counts.bytes, 3999);
  cache_free(c);
}

static int woken;
static void wake(struct cache_waiter *w) {
  (void)w;
  woken++;
}

Test(cache, one_fills_the_others_wait_and_a_failed_fill_leaves_nothing) {
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(16 << 20);
  struct cache_waiter w[3] = {{.ready = wake}, {.ready = wake}, {.ready = wake}};
  struct cache_ref ref, other;
  cr_assert_eq(cache_get(c, &ref, 7, 0, 5000, &w[0]), CACHE_FILL);
  cr_assert_eq(cache_get(c, &other, 7, 0, 5000, &w[1]), CACHE_WAIT);
  cr_assert_eq(cache_get(c, &other, 7, 0, 5000, &w[2]), CACHE_WAIT);
  cr_assert_eq(woken, 0);
  cache_fill_done(c, &ref, false);
  cr_assert_eq(woken, 2);
  cr_assert_eq(cache_get(c, &ref, 7, 0, 5000, &w[0]), CACHE_FILL, "after a failure the next asker fills");
  pattern(ref.data, 7, 0, 5000);
  cache_fill_done(c, &ref, true);
  cr_assert_eq(put(c, 7, 0, 5000), CACHE_HIT);
  cache_free(c);
}

Test(cache, stays_within_its_size_and_keeps_what_is_asked_for_again) {
  enum { LEN = 30000, HOT = 20, COLD = 4000 };
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(16 << 20);
  unsigned hot_hits = 0, hot_asks = 0;
  for (uint32_t i = 0; i < COLD; i++) {
    put(c, 1, 1000 + i, LEN); // a scan: each once
    if (i % 4 == 0) {
      hot_hits += put(c, 2, i / 4 % HOT, LEN) == CACHE_HIT;
      hot_asks++;
    }
    settle(c);
  }
  struct cache_counts counts;
  cache_stats(c, &counts);
  cr_assert_leq(counts.bytes, 16 << 20);
  cr_assert_gt(counts.evicted, 1000u);
  cr_assert_gt(hot_hits, hot_asks * 9 / 10, "%u of %u: the scan pushed the hot blocks out", hot_hits, hot_asks);
  cache_free(c);
}

// What was asked for again and again makes room once it is asked for no more, however often it was.
Test(cache, fame_ends) {
  enum { LEN = 30000, HOT = 300, ROUNDS = 20 };
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(16 << 20);
  unsigned hits = 0;
  for (uint64_t source = 1; source <= 2; source++)
    for (uint32_t i = 0; i < ROUNDS * HOT; i++) {
      bool hit = put(c, source, i % HOT, LEN) == CACHE_HIT;
      hits += hit && source == 2 && i >= (ROUNDS - 1) * HOT;
      put(c, 3, (uint32_t)source * ROUNDS * HOT + i, LEN); // so that regions are emptied all the time
      settle(c);
    }
  cr_expect_gt(hits, HOT / 2u, "%u of %d: no room for those that are asked for now", hits, HOT);
  struct cache_ref ref;
  unsigned old = 0;
  for (uint32_t i = 0; i < HOT; i++)
    old += cache_look(c, &ref, 1, i, LEN);
  cr_expect_lt(old, HOT / 2u, "%u of the first ones are still there", old); // there is room for some
  cache_free(c);
}

// Main regions are gone through again and again: `turns` blocks that are asked for twice.
static void turn(struct cache *c, uint32_t *next, uint32_t turns) {
  for (uint32_t i = 0; i < turns; i++, ++*next) {
    put(c, 8, *next, 30000);
    put(c, 8, *next, 30000);
    settle(c);
  }
}

Test(cache, how_often_does_not_count_beyond_a_few_times) {
  enum { LEN = 30000, LAP = (16 << 20) / LEN };
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(16 << 20);
  struct cache_ref ref;
  uint32_t next = 0;
  for (int i = 0; i < 5; i++) // before it earns its place there, where it counts from the beginning
    put(c, 1, 1, LEN);
  put(c, 1, 2, LEN);
  put(c, 1, 2, LEN);
  struct cache_counts counts = {0};
  for (; counts.promoted < 100 && next < 2 * LAP; cache_stats(c, &counts)) // of the eldest, which they are
    turn(c, &next, 1);
  cr_assert(cache_look(c, &ref, 1, 1, LEN) && cache_look(c, &ref, 1, 2, LEN), "both are in the main part");
  for (int i = 0; i < 100; i++)
    put(c, 1, 2, LEN);
  turn(c, &next, LAP);
  cr_expect_not(cache_look(c, &ref, 1, 1, LEN), "not asked for since");
  cr_expect(cache_look(c, &ref, 1, 2, LEN));
  turn(c, &next, 6 * LAP);
  cr_expect_not(cache_look(c, &ref, 1, 2, LEN), "what was asked for a hundred times stays for ever");
  cache_free(c);
}

// Regions that are free are not all for what is asked for once: what has earned its place can move.
Test(cache, what_is_asked_for_again_is_kept_where_there_was_no_time_to_make_room) {
  enum { LEN = 30000 };
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(4 << 20);
  struct cache_ref ref;
  uint32_t num = 0, kept = 0;
  while (put(c, 1, num, LEN) == CACHE_FILL)
    put(c, 1, num++, LEN);
  settle(c);
  for (uint32_t i = 0; i < num; i++)
    kept += cache_look(c, &ref, 1, i, LEN);
  cr_expect_gt(kept, num * 9 / 10, "%u of %u", kept, num);
  cache_free(c);
}

Test(cache, fills_that_fail_take_no_room) {
  enum { LEN = 30000 };
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(4 << 20);
  struct cache_waiter w = {0};
  struct cache_ref ref;
  for (uint32_t i = 0; i < 1000; i++) {
    cr_assert_eq(cache_get(c, &ref, 1, i, LEN, &w), CACHE_FILL, "%u", i);
    cache_fill_done(c, &ref, false);
    settle(c);
  }
  struct cache_counts counts;
  cache_stats(c, &counts);
  cr_expect(counts.fills == 0 && counts.blocks == 0 && counts.bytes == 0);
  cache_free(c);
}

// A region that is being read into is not emptied, however long that takes.
Test(cache, what_is_being_filled_stays_in_its_place) {
  enum { LEN = 30000 };
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(4 << 20);
  struct cache_waiter w = {0};
  struct cache_ref ref;
  cr_assert_eq(cache_get(c, &ref, 7, 7, LEN, &w), CACHE_FILL);
  pattern(ref.data, 7, 7, LEN);
  for (uint32_t i = 0; i < 1000; i++) { // the log goes round many times
    put(c, 1, i, LEN);
    settle(c);
  }
  cr_expect(holds_pattern(ref.data, 7, 7, LEN), "others were written over it");
  cache_fill_done(c, &ref, true);
  cr_expect_eq(put(c, 7, 7, LEN), CACHE_HIT);
  cache_free(c);
}

Test(cache, too_large_blocks_pass_by) {
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(1 << 20);
  cr_assert_eq(put(c, 1, 1, 1 << 20), CACHE_BYPASS);
  cr_assert_eq(put(c, 1, 2, 0), CACHE_BYPASS);
  struct cache_waiter w = {0};
  struct cache_ref ref;
  uint8_t *base;
  size_t len;
  cr_assert_eq(cache_get(c, &ref, 1, 3, 100, &w), CACHE_FILL);
  cache_fill_done(c, &ref, true);
  (void)cache_region(c, &ref, &base, &len);
  cr_assert_eq(put(c, 1, 4, (uint32_t)len / 2 + 1), CACHE_BYPASS, "more than half a region would waste the other half");
  cr_assert_eq(put(c, 1, 4, (uint32_t)len / 2), CACHE_FILL);
  struct cache_counts counts;
  cache_stats(c, &counts);
  cr_expect_eq(counts.bypassed, 3);
  cache_free(c);
}

// A region has room for more small blocks than it can keep account of.
Test(cache, small_blocks_fill_a_region_by_their_number) {
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(1 << 20);
  for (uint32_t i = 0; i < 5000; i++) {
    cr_assert_eq(put(c, 1, i, 100), CACHE_FILL, "%u", i);
    cr_assert_eq(put(c, 1, i, 100), CACHE_HIT, "%u", i);
    settle(c);
  }
  struct cache_counts counts;
  cache_stats(c, &counts);
  cr_assert_leq(counts.blocks, (1 << 20) / 4096, "one for 4,096 bytes");
  cache_free(c);
}

Test(cache, memory_is_not_reused_before_the_reader_is_quiet) {
  enum { LEN = 60000 };
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(2 << 20);
  struct cache_waiter w = {0};
  struct cache_ref ref;
  put(c, 9, 9, LEN);
  quiet_enter(&quiet, 0);
  cr_assert_eq(cache_get(c, &ref, 9, 9, LEN, &w), CACHE_HIT);
  for (uint32_t i = 0; i < 500; i++) { // no quiet point of worker 0 in between
    put(c, 1, i, LEN);
    settle(c);
  }
  cr_assert(holds_pattern(ref.data, 9, 9, LEN));
  cr_expect_not(cache_wants_tending(c));
  cr_assert_eq(put(c, 1, 1000, LEN), CACHE_BYPASS, "all regions wait for the reader");
  cr_expect(cache_wants_tending(c), "who found no room says so");
  quiet_leave(&quiet, 0);
  settle(c);
  cr_assert_eq(put(c, 1, 1001, LEN), CACHE_FILL);
  cache_free(c);
}

Test(cache, over_a_file_blocks_stand_where_they_say_and_emptied_regions_take_no_room) {
  enum { LEN = 50000 };
  static uint8_t back[LEN];
  struct stat st;
  quiet_init(&quiet, 1);
  struct cache *c = file_cache(2 << 20);
  struct cache_ref ref;
  for (uint32_t i = 0; i < 400; i++) {
    put(c, 3, i, LEN);
    if (cache_peek(c, &ref, 3, i, LEN)) {
      cr_assert_eq(pread(cache_fd(c), back, LEN, (off_t)cache_offset(c, &ref)), LEN);
      cr_assert(holds_pattern(back, 3, i, LEN));
    }
    settle(c);
    cr_assert_eq(fstat(cache_fd(c), &st), 0);
    cr_assert_leq(st.st_blocks * 512, 2 << 20);
  }
  cr_assert_lt(st.st_blocks * 512, (2 << 20) - (200 << 10), "regions that were emptied still hold pages");
  cr_assert_not(cache_peek(c, &ref, 3, 0, LEN));
  struct cache_waiter w = {.ready = wake};
  cr_assert_eq(cache_get(c, &ref, 4, 0, LEN, &w), CACHE_FILL);
  struct cache_ref other;
  cr_assert_eq(cache_get(c, &other, 4, 0, LEN, NULL), CACHE_BYPASS, "who does not want to wait does not");
  cr_assert_not(cache_peek(c, &other, 4, 0, LEN));
  cache_fill_done(c, &ref, false);
  cr_assert_eq(woken, 0);
  cache_free(c);
}

// Several readers, one keeper; every hit must show its own bytes.
enum { THREADS = 3, TURNS = 30000 };
struct reader_args {
  struct cache *c;
  unsigned worker;
  unsigned wrong, hits;
};

static void wake_kept(struct cache_waiter *w) { free(w); }

static void *read_much(void *arg) {
  struct reader_args *a = arg;
  uint32_t rng = 12345 + a->worker;
  for (int i = 0; i < TURNS; i++) {
    quiet_enter(&quiet, a->worker);
    rng = rng * 1664525 + 1013904223;
    uint32_t seg = (rng >> 8) % (rng >> 31 ? 40 : 2000), len = 2000 + seg % 7 * 3000;
    struct cache_waiter *kept = malloc(sizeof *kept); // may be woken after this turn
    *kept = (struct cache_waiter){.ready = wake_kept};
    struct cache_ref ref;
    enum cache_got got = cache_get(a->c, &ref, 5, seg, len, kept);
    if (got == CACHE_FILL) {
      pattern(ref.data, 5, seg, len);
      cache_fill_done(a->c, &ref, seg % 50 != 49);
    } else if (got == CACHE_HIT) {
      a->hits++;
      a->wrong += !holds_pattern(ref.data, 5, seg, len);
    }
    if (got != CACHE_WAIT)
      free(kept);
    quiet_leave(&quiet, a->worker);
    if (got == CACHE_BYPASS)
      sched_yield(); // the keeper has work
  }
  return NULL;
}

static atomic_bool stop_keeping;
static void *keep(void *arg) {
  while (!stop_keeping) {
    cache_tend(arg);
    quiet_reclaim(&quiet);
  }
  return NULL;
}

Test(cache, readers_and_keeper_at_once_never_see_foreign_bytes) {
  quiet_init(&quiet, THREADS);
  struct cache *c = plain_cache(4 << 20);
  pthread_t t[THREADS], keeper;
  struct reader_args a[THREADS];
  pthread_create(&keeper, NULL, keep, c);
  for (unsigned i = 0; i < THREADS; i++) {
    a[i] = (struct reader_args){c, i, 0, 0};
    pthread_create(&t[i], NULL, read_much, &a[i]);
  }
  unsigned hits = 0;
  for (unsigned i = 0; i < THREADS; i++) {
    pthread_join(t[i], NULL);
    cr_assert_eq(a[i].wrong, 0);
    hits += a[i].hits;
  }
  stop_keeping = true;
  pthread_join(keeper, NULL);
  struct cache_counts counts;
  cache_stats(c, &counts);
  cr_assert_gt(hits, TURNS / 2);
  cr_assert_gt(counts.evicted, 100u);
  cache_free(c);
}

// Quiet points alone.
struct thing {
  struct quiet_item item;
  int *freed;
};
static void free_thing(struct quiet_item *i) { ++*((struct thing *)i)->freed; }

Test(quiet, frees_after_every_worker_announced_and_not_before) {
  int freed = 0;
  struct thing a = {.freed = &freed}, b = {.freed = &freed};
  quiet_init(&quiet, 2);
  quiet_enter(&quiet, 0);
  quiet_enter(&quiet, 1);
  quiet_retire(&quiet, &a.item, free_thing);
  cr_assert(quiet_reclaim(&quiet));
  cr_assert_eq(freed, 0);
  quiet_point(0);
  cr_assert(quiet_reclaim(&quiet));
  cr_assert_eq(freed, 0);
  quiet_point(1);
  cr_assert_not(quiet_reclaim(&quiet));
  cr_assert_eq(freed, 1);
  quiet_retire(&quiet, &b.item, free_thing);
  quiet_leave(&quiet, 0);
  quiet_leave(&quiet, 1);
  cr_assert_not(quiet_reclaim(&quiet), "workers that are away hold nothing");
  cr_assert_eq(freed, 2);
}

// Two caches under one budget.
static uint64_t granted(struct cache *a, struct cache *b) {
  struct cache_counts x, y;
  cache_stats(a, &x);
  cache_stats(b, &y);
  return x.granted + y.granted;
}

static unsigned given_up[1024];
static void count_given_up(void *c, unsigned region) {
  cr_assert(region < 1024 && region < cache_num_regions(c));
  given_up[region]++;
}

Test(budget, two_caches_share_it_and_whoever_has_use_for_memory_gets_it) {
  enum { LEN = 30000, LIMIT = 16 << 20, HOT = 60 };
  struct cache_budget budget = {.limit = LIMIT};
  struct cache_counts a_counts, b_counts, least;
  quiet_init(&quiet, 1);
  struct cache *a = cache_open(&(struct cache_options){.size = LIMIT, .budget = &budget, .quiet = &quiet});
  struct cache *b = cache_open(&(struct cache_options){.size = LIMIT, .budget = &budget, .quiet = &quiet, .file = true});
  cr_assert(a && b);
  cache_on_give_up(a, count_given_up, a);
  cache_stats(b, &least);
  for (uint32_t i = 0; i < 1000; i++) { // a alone takes what there is
    put(a, 1, i, LEN);
    settle(a);
    cr_assert_leq(granted(a, b), LIMIT);
  }
  cache_stats(a, &a_counts);
  cr_assert_gt(a_counts.granted, LIMIT / 4 * 3u);
  unsigned hits = 0;
  for (uint32_t i = 0; i < 6000; i++) { // then a scan goes on there while b is asked for the same again and again
    put(a, 1, 1000 + i, LEN);
    hits += put(b, 2, i % HOT, LEN) == CACHE_HIT && i >= 3000;
    settle(a);
    settle(b);
    cr_assert_leq(granted(a, b), LIMIT);
    cr_assert_eq(granted(a, b), budget.used);
  }
  cache_stats(b, &b_counts);
  unsigned regions = 0;
  for (unsigned i = 0; i < 1024; i++)
    regions += given_up[i] > 0;
  cr_expect_gt(regions, 2u, "%u regions: who maps them is told before their pages go", regions);
  cr_assert_gt(hits, 2700u, "%u of 3000: what nobody asks for again kept the memory", hits);
  for (uint32_t i = 0; i < 20000; i++) { // and when nobody asks b any more, what it held ages away
    put(a, 3, i % 400, LEN);
    put(a, 4, i, LEN);
    settle(a);
    settle(b);
    cr_assert_leq(granted(a, b), LIMIT);
  }
  uint64_t before = b_counts.granted;
  cache_stats(b, &b_counts);
  cr_assert_lt(b_counts.granted, before);
  cr_assert_eq(b_counts.granted, least.granted, "down to the regions that it never gives");
  cr_assert_null(cache_open(&(struct cache_options){.size = LIMIT, .budget = &(struct cache_budget){.limit = 200 << 10}, .quiet = &quiet}),
                 "no cache without the regions it needs");
  cache_free(a); // which is no member any more
  a = cache_open(&(struct cache_options){.size = LIMIT, .budget = &budget, .quiet = &quiet});
  cr_assert_not_null(a);
  for (uint32_t i = 0; i < 1000; i++) {
    put(b, 5, i, LEN);
    put(a, 6, i, LEN);
    settle(b);
    settle(a);
  }
  cr_assert_leq(granted(a, b), LIMIT);
  cache_free(a);
  cache_free(b);
  cr_assert_eq(budget.used, 0);
}

Test(cache, what_is_forgotten_is_filled_anew) {
  quiet_init(&quiet, 1);
  struct cache *c = plain_cache(16 << 20);
  struct cache_waiter w = {0};
  struct cache_ref ref;
  cr_assert_eq(put(c, 1, 1, 1000), CACHE_FILL);
  cache_forget(c, 1, 1, 1000);
  cache_forget(c, 1, 2, 1000);
  cr_assert_not(cache_peek(c, &ref, 1, 1, 1000));
  cr_assert_eq(cache_get(c, &ref, 1, 1, 1000, &w), CACHE_FILL);
  cache_forget(c, 1, 1, 1000); // being filled
  pattern(ref.data, 1, 1, 1000);
  cache_fill_done(c, &ref, true);
  cr_assert_eq(put(c, 1, 1, 1000), CACHE_HIT);
  struct cache_counts counts;
  cache_stats(c, &counts);
  cr_assert_eq(counts.blocks, 1);
  cr_assert_eq(counts.bytes, 1000);
  cache_free(c);
}

// A region that was emptied while the network stack still held its pages: what it holds must stay what it was.
Test(cache, punched_pages_in_flight_stay_what_they_were) {
  enum { LEN = 100000, SIZE = 4 << 20 };
  static uint8_t got[LEN];
  int s[2], big = LEN * 2;
  struct stat st;
  quiet_init(&quiet, 1);
  struct cache *c = file_cache(SIZE);
  struct cache_ref ref;
  cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
  setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
  put(c, 9, 9, LEN);
  cr_assert(cache_peek(c, &ref, 9, 9, LEN));
  off_t off = (off_t)cache_offset(c, &ref);
  cr_assert_eq(sendfile(s[0], cache_fd(c), &off, LEN), LEN);
  for (uint32_t i = 0; i < 500; i++) { // the log goes round many times
    put(c, 1, i, LEN);
    put(c, 1, i, LEN); // the second time earns it the main part, which then goes round too
    settle(c);
    cr_assert_eq(fstat(cache_fd(c), &st), 0);
    cr_assert_leq(st.st_blocks * 512, SIZE);
  }
  cr_assert_not(cache_peek(c, &ref, 9, 9, LEN));
  cr_assert_eq(recv(s[1], got, LEN, MSG_WAITALL), LEN);
  cr_assert(holds_pattern(got, 9, 9, LEN));
  close(s[0]);
  close(s[1]);
  cache_free(c);
}
