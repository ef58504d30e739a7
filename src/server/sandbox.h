// Giving up what serving does not need. Applied before the first thread starts, so that all threads have it.
#pragma once
#include "server/keyring.h"

// sandbox_enter confines the process: files to the media folder, the folders of the configuration and of its files, as named
// and as links lead now (Landlock), no system calls that start programs, trace, mount or load code (seccomp), and of the capabilities those that
// files and locked memory need at a reload or a rotation: what listening needs must be done. `config_file` may be NULL. The
// keyring says which files its keys come from, and whether names must be looked up.
// What cannot be had is said in the log with the reason; serving goes on.
void sandbox_enter(const struct config *c, const char *config_file, const struct keyring *keys);

// sandbox_confined says whether files are confined: opening others fails with EACCES.
bool sandbox_confined(void);
