// Reloads, on a thread of their own: files of keys and certificates may lie on storage that does not answer, or be pipes, and
// whoever waits for signals must not wait for them. The thread also says when certificates end.
#pragma once
#include "server/server.h"

// reloads_start begins with what `config_load` was given at the start; both stay.
bool reloads_start(struct server *s, const char *file, const struct config_flags *flags, struct config_error *e);

// reloads_ask has everything read anew; once more where a reload is under way.
void reloads_ask(struct server *s);

// reloads_stop: none comes into force from now on, not even one that is under way. reloads_end waits for that one. Both NULL-safe.
void reloads_stop(struct server *s);
void reloads_end(struct server *s);
