// Files that hold secrets: read into memory for secrets, replaced as a whole.
#pragma once
#include "server/keyring.h"

// secret_read reads a file or a descriptor's pipe (/dev/fd/N) of at most `cap` bytes. False with errno set.
bool secret_read(struct secret_alloc *mem, struct bytes *out, const char *path, size_t cap);

// secret_write replaces `path`, or makes it with mode 0600: written beside it, synced, renamed, the folder synced. A file
// that was there gives owner and mode; a link stays one, what it leads to is replaced. `fresh`: refuses (EEXIST) to
// replace. Else errno is set; nothing is left where it failed, nor where a signal that can be held back comes in the middle.
// Unsynced: it has its place, but not the folder's word that a power cut leaves it there.
// `left` (may be NULL) is a file beside it that could not be removed, with a copy or a part of the secrets, for the caller to tell
// of and to free; NULL: none.
enum secret_written { SECRET_FAILED, SECRET_UNSYNCED, SECRET_WRITTEN };
enum secret_written secret_write(const char *path, struct bytes text, bool fresh, char **left);

// folder_sync has the names in a folder outlive a power cut. folder_make makes a folder that is not there, for its owner alone, and has
// that outlive one. False with errno set.
bool folder_sync(const char *dir);
bool folder_make(const char *dir);

// secret_why tells what an errno of reading means, and what to do where the sandbox is why.
const char *secret_why(int error);
