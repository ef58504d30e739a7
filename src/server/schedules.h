// The schedules of the keys file, on a thread of their own: a rotation waits for the disk of the state folder, and whoever
// waits for signals must not.
#pragma once
#include "server/server.h"

bool schedules_start(struct server *s, struct config_error *e);
void schedules_wake(struct server *s); // the keys file is another

// schedules_stop has no more rotations begin. schedules_end waits for one that is under way. Both NULL-safe.
void schedules_stop(struct server *s);
void schedules_end(struct server *s);
