// Who joined a line first stands first in it; everybody can leave it from where they stand.
#pragma once
#include <stddef.h>

struct line_place { // embedded in who stands there
  struct line_place *next, **prev; // prev: what points here; NULL: in no line
};

struct line {
  struct line_place *first, **last; // last: where the next one joins
};

static inline void line_init(struct line *l) {
  l->first = NULL;
  l->last = &l->first;
}

static inline void line_join(struct line *l, struct line_place *p) {
  p->next = NULL;
  p->prev = l->last;
  *l->last = p;
  l->last = &p->next;
}

// line_leave is a no-op for who is in no line.
static inline void line_leave(struct line *l, struct line_place *p) {
  if (!p->prev)
    return;
  *p->prev = p->next;
  *(p->next ? &p->next->prev : &l->last) = p->prev;
  p->prev = NULL;
}
