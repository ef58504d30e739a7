// Which IVs have been used where. A segment's IVs are one interval; it is noted in every block of 256 IVs that it touches, and
// compared with the others noted there. Fixed memory, open to all threads and processes of a run.
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

#include "load/verify_parts.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { BLOCK_BITS = 8, PLACE = 160 };

struct note {
  uint8_t kid[16];
  uint64_t first, num;
  uint32_t place; // of whom, + 1; 0: this note is free
};

// Whose IVs they are: known by the hash of the whole path, named by the end of it.
struct user {
  uint64_t hash; // 0: this place is free
  char name[PLACE];
};

struct iv_table {
  pthread_mutex_t lock;
  bool full; // something was not noted
  size_t len;
  uint32_t max_notes, num_notes, max_places, num_places;
  struct user *places;
  struct note notes[];
};

struct iv_table *iv_table_new(uint32_t max_segments) {
  size_t notes = (size_t)max_segments * 4, len = sizeof(struct iv_table) + notes * sizeof(struct note) + 2 * (size_t)max_segments * sizeof(struct user);
  struct iv_table *t = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  pthread_mutexattr_t shared;
  if (t == MAP_FAILED)
    return NULL;
  t->len = len;
  t->max_notes = (uint32_t)notes;
  t->max_places = 2 * max_segments;
  t->places = (struct user *)(void *)(t->notes + notes);
  if (pthread_mutexattr_init(&shared) || pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED) ||
      pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST) ||
      pthread_mutex_init(&t->lock, &shared)) {
    munmap(t, len);
    return NULL;
  }
  pthread_mutexattr_destroy(&shared);
  return t;
}

void iv_table_free(struct iv_table *t) {
  if (t)
    munmap(t, t->len);
}

static uint32_t slot_of(const struct iv_table *t, const uint8_t kid[16], uint64_t block) {
  return (uint32_t)(XXH3_64bits_withSeed(kid, 16, block) % t->max_notes);
}

// The first IV that both have, counted from a's first; `num` of a when there is none. Intervals may wrap around.
static uint64_t common(const struct note *a, const struct note *b) {
  uint64_t into_b = a->first - b->first, into_a = b->first - a->first;
  if (into_b < b->num)
    return 0;
  return into_a < a->num ? into_a : a->num;
}

// Compares `new` with what is noted for one block. Returns whether it is noted there already.
static bool compare(const struct iv_table *t, const struct note *new, uint64_t block, uint32_t *clash, uint64_t *at) {
  bool known = false;
  uint32_t slot = slot_of(t, new->kid, block);
  for (uint32_t i = 0; i < t->max_notes; i++) {
    const struct note *n = &t->notes[(slot + i) % t->max_notes];
    if (!n->place)
      break;
    if (memcmp(n->kid, new->kid, 16) != 0)
      continue;
    uint64_t where = common(new, n);
    if (where == new->num)
      continue;
    if (n->place == new->place) {
      known |= n->first == new->first && n->num == new->num;
    } else {
      *clash = n->place;
      *at = where;
    }
  }
  return known;
}

static void add(struct iv_table *t, const struct note *new, uint64_t block) {
  uint32_t slot = slot_of(t, new->kid, block);
  if (t->num_notes >= t->max_notes / 2) {
    t->full = true;
    return;
  }
  while (t->notes[slot].place)
    slot = (slot + 1) % t->max_notes;
  t->notes[slot] = *new;
  t->num_notes++;
}

static uint32_t place_of(struct iv_table *t, const char *name) {
  size_t n = strlen(name);
  uint64_t hash = XXH3_64bits(name, n) | 1;
  uint32_t slot = (uint32_t)((hash >> 1) % t->max_places);
  for (; t->places[slot].hash; slot = (slot + 1) % t->max_places)
    if (t->places[slot].hash == hash)
      return slot + 1;
  if (t->num_places >= t->max_places / 2) {
    t->full = true;
    return 0;
  }
  t->num_places++;
  t->places[slot].hash = hash;
  snprintf(t->places[slot].name, PLACE, "%s", n < PLACE ? name : name + n - (PLACE - 1));
  return slot + 1;
}

static uint64_t block_of(uint64_t first, uint64_t i) { return ((first >> BLOCK_BITS) + i) & (UINT64_MAX >> BLOCK_BITS); }

static void lock(struct iv_table *t) {
  if (pthread_mutex_lock(&t->lock) == EOWNERDEAD) // a process that was killed here: at worst one of its notes is missing
    pthread_mutex_consistent(&t->lock);
}

bool iv_table_add(struct iv_table *t, const uint8_t kid[16], uint64_t first, uint64_t num, const char *name, uint64_t *at,
                  char other[160]) {
  struct note new = {.first = first, .num = num};
  uint32_t clash = 0;
  memcpy(new.kid, kid, 16);
  lock(t);
  new.place = place_of(t, name);
  uint64_t blocks = ((first & ((1u << BLOCK_BITS) - 1)) + num + (1u << BLOCK_BITS) - 1) >> BLOCK_BITS;
  bool known = false;
  for (uint64_t i = 0; new.place && i < blocks && !clash; i++)
    known |= compare(t, &new, block_of(first, i), &clash, at);
  for (uint64_t i = 0; new.place && i < blocks && !clash && !known; i++)
    add(t, &new, block_of(first, i));
  if (clash)
    memcpy(other, t->places[clash - 1].name, PLACE);
  pthread_mutex_unlock(&t->lock);
  return !clash;
}

bool iv_table_full(struct iv_table *t) {
  lock(t);
  bool full = t->full;
  pthread_mutex_unlock(&t->lock);
  return full;
}
