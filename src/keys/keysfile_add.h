// Adding records to a keys file that people write too: what stands there stays as it is, comments included.
#pragma once
#include "keys/keys.h"

// keysfile_add appends to `w` the text of a keys file, `old` (may be empty) with records more. Errors: ERR_SYNTAX (`old` is
// not YAML, or its `keys` is not a list, or it is one mapping in braces), ERR_UNSUPPORTED (a name that YAML cannot hold).
MUST_USE enum err keysfile_add(struct writer *w, struct bytes old, const struct key_record *records, uint32_t num,
                               struct diag *diag);
