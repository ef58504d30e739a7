// Memory for secrets: mapped pages, locked, excluded from dumps and forks, wiped before they go back.
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "server/keyring.h"

struct secret_block {
  struct secret_block *next;
  size_t len, used; // header included
};

enum { PAGE = 4096, BLOCK = 64 << 10, HEAD = 64 };
_Static_assert(sizeof(struct secret_block) <= HEAD, "the header fits its line");

static struct secret_block *map_block(struct secret_alloc *a, size_t n) {
  size_t len = (n + HEAD + PAGE - 1) & ~(size_t)(PAGE - 1);
  len = len < BLOCK ? BLOCK : len;
  void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    return NULL;
  if (mlock(p, len))
    a->unlocked = true;
  madvise(p, len, MADV_DONTDUMP);
  madvise(p, len, MADV_WIPEONFORK);
  struct secret_block *b = p;
  *b = (struct secret_block){.next = a->blocks, .len = len, .used = HEAD};
  a->blocks = b;
  return b;
}

static void *secret_get(struct alloc *self, size_t n) {
  struct secret_alloc *a = (struct secret_alloc *)self;
  if (n > a->limit || a->used > a->limit - n)
    return NULL;
  size_t want = (n + 63) & ~(size_t)63;
  struct secret_block *b = a->blocks;
  if (!b || b->len - b->used < want)
    b = map_block(a, want);
  if (!b)
    return NULL;
  void *p = (char *)b + b->used;
  b->used += want;
  a->used += n;
  return p;
}

void secret_alloc_init(struct secret_alloc *a, size_t limit) {
  *a = (struct secret_alloc){.base.get = secret_get, .limit = limit};
}

void secret_alloc_free(struct secret_alloc *a) {
  while (a->blocks) {
    struct secret_block *b = a->blocks;
    size_t len = b->len;
    a->blocks = b->next;
    explicit_bzero(b, len);
    munmap(b, len);
  }
  a->used = 0;
}
