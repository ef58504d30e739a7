// Walking all boxes of a source, whatever is in it, for inspection. Payloads are not read.
#pragma once
#include "mp4/box.h"
#include "mp4/window.h"

struct tree_visitor {
  void *ctx;
  // One call for each box, parents first; `parent` is 0 at top level. An error ends the walk.
  enum err (*enter)(void *ctx, const struct box *b, uint32_t depth, uint32_t parent);
  void (*leave)(void *ctx, const struct box *b, uint32_t depth);
};

// tree_walk visits boxes in file order. Children of types that the box table calls parents are visited down to
// LIMIT_DEPTH. Fewer than 8 bytes after the last child are ignored: QuickTime ends some lists with zeros.
// Errors: ERR_TRUNCATED, ERR_MALFORMED, those of the source's read and of the visitor.
MUST_USE enum err tree_walk(struct window *w, const struct tree_visitor *v, struct diag *diag);
