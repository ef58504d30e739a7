// Making and ending a cache.
#include "cache/cache_int.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void *reserve(size_t n) {
  void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

static uint32_t power_of_two(uint64_t n) {
  uint32_t p = 1024;
  while (p < n && p < 1u << 30)
    p *= 2;
  return p;
}

// Address space of n bytes over a memory file, where huge pages can be mapped.
static void *reserve_file(size_t n, int *fd) {
  *fd = memfd_create("sluice-segments", MFD_CLOEXEC);
  if (*fd < 0 || ftruncate(*fd, (off_t)n))
    return NULL;
  uint8_t *around = reserve(n + HUGE_PAGE);
  if (!around)
    return NULL;
  size_t before = -(uintptr_t)around & (HUGE_PAGE - 1);
  void *p = mmap(around + before, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, *fd, 0);
  if (before)
    munmap(around, before);
  munmap(around + before + n, HUGE_PAGE - before);
  return p == MAP_FAILED ? NULL : p;
}

static size_t region_len(uint64_t size, bool huge_pages) {
  size_t least = size / REGIONS_LEAST & ~(size_t)(REGION_STEP - 1), len = size / REGIONS_WANTED & ~(size_t)(REGION_STEP - 1);
  least = least > REGION_MIN ? REGION_MIN : least < REGION_STEP ? REGION_STEP : least;
  len = len < least ? least : len > REGION_MAX ? REGION_MAX : len;
  return huge_pages && len >= HUGE_PAGE ? len & ~(size_t)(HUGE_PAGE - 1) : len;
}

// Memory of a cache; its start is where a huge page may start.
static bool map_memory(struct cache *c, bool file) {
  c->map_len = file ? (c->memory_len + PAGE - 1) & ~(size_t)(PAGE - 1) : c->memory_len + HUGE_PAGE;
  c->map = file ? reserve_file(c->map_len, &c->fd) : reserve(c->map_len);
  if (!c->map)
    return false;
  c->memory = c->map + (-(uintptr_t)c->map & (HUGE_PAGE - 1)); // of a file: none
  madvise(c->map, c->map_len, c->huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  madvise(c->map, c->map_len, MADV_DONTDUMP);
  return true;
}

struct cache *cache_open(const struct cache_options *o) {
  struct cache_budget *b = o->budget;
  uint64_t size = b && b->limit < o->size ? b->limit : o->size;
  struct cache *c = calloc(1, sizeof *c);
  if (!c)
    return NULL;
  size_t len = region_len(size, o->huge_pages);
  uint32_t region_nodes = (uint32_t)(len / BYTES_A_NODE), buckets = power_of_two(size / len * region_nodes / 2);
  uint64_t tables = sizeof *c + buckets * (sizeof *c->buckets + sizeof *c->ghosts) + size / len * sizeof *c->regions;
  uint64_t num = size < tables ? 0 : (size - tables) / (len + region_nodes * sizeof *c->nodes);
  *c = (struct cache){.quiet = o->quiet, .own.limit = size, .table_bytes = tables, .memory_len = len * (size_t)num,
                      .region_len = len, .region_nodes = region_nodes, .num_regions = (int)num, .open = {NONE, NONE},
                      .bucket_mask = buckets - 1, .ghost_mask = buckets - 1, .fd = -1, .huge_pages = o->huge_pages,
                      .starved = o->file}; // to be tended at once: regions are prepared ahead
  // sendfile moves 16 pages at a time: a block that begins on a page takes the fewest turns, and so the fewest pushes
  // onto the wire, each of which a pacing congestion control may answer with a timer.
  c->align = o->file ? PAGE : 64;
  pthread_mutex_init(&c->lock, NULL);
  c->budget = b ? b : &c->own;
  bool room = num >= KEPT && c->budget->num_members < CACHE_BUDGET_MAX && budget_take(c->budget, tables);
  if (!room)
    c->table_bytes = 0;
  c->nodes = reserve(num * region_nodes * sizeof *c->nodes);
  c->regions = calloc((size_t)num + 1, sizeof *c->regions);
  c->buckets = reserve(buckets * sizeof *c->buckets);
  c->ghosts = reserve(buckets * sizeof *c->ghosts);
  if (!room || !map_memory(c, o->file) || !c->nodes || !c->regions || !c->buckets || !c->ghosts) {
    cache_free(c);
    return NULL;
  }
  for (int i = 0; i < c->num_regions; i++)
    c->regions[i] = (struct region){.cache = c, .base = c->memory + len * (size_t)i,
                                    .nodes = c->nodes + (size_t)region_nodes * (size_t)i, .next = NONE};
  for (int i = 0; i < KEPT; i++)
    if (!cache_grant(c)) {
      cache_free(c);
      return NULL;
    }
  c->budget->member[c->budget->num_members++] = c;
  return c;
}

static void leave_budget(struct cache *c) {
  struct cache_budget *b = c->budget;
  budget_give(b, c->table_bytes + (uint64_t)c->num_granted * cache_region_cost(c));
  for (unsigned m = 0; m < b->num_members; m++)
    if (b->member[m] == c) {
      b->member[m] = b->member[--b->num_members];
      return;
    }
}

void cache_free(struct cache *c) {
  if (!c)
    return;
  uint64_t buckets = (uint64_t)c->bucket_mask + 1;
  leave_budget(c);
  if (c->map)
    munmap(c->map, c->map_len);
  if (c->nodes)
    munmap(c->nodes, (size_t)c->num_regions * c->region_nodes * sizeof *c->nodes);
  if (c->buckets)
    munmap(c->buckets, buckets * sizeof *c->buckets);
  if (c->ghosts)
    munmap(c->ghosts, buckets * sizeof *c->ghosts);
  if (c->fd >= 0)
    close(c->fd);
  free(c->regions);
  pthread_mutex_destroy(&c->lock);
  free(c);
}
