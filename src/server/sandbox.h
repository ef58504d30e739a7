// Giving up what serving does not need. Applied before the first thread starts, so that all threads have it.
#pragma once
#include "server/options.h"

// sandbox_enter confines the process: files to the media folder, the folders of the configuration and of its files
// (Landlock), and no system calls that start programs, trace, mount or load code (seccomp). `config_file` and `secret_file` may be
// NULL.
// What cannot be had is said in the log with the reason; serving goes on.
void sandbox_enter(const struct config *c, const char *config_file, const char *secret_file);
