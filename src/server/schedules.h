// The schedules of the keys file, on a thread of their own: a rotation waits for the disk of the state folder, and whoever
// waits for signals must not.
#pragma once
#include "server/server.h"

bool schedules_start(struct server *s, struct config_error *e);
void schedules_wake(struct server *s); // the keys file is another

// schedules_stop has no more rotations begin. schedules_end waits for one that is under way, but not for long: nobody has been told
// of it, and the next start makes it where its line is not on disk. False: it still is; what it uses must stay. Both NULL-safe.
void schedules_stop(struct server *s);
bool schedules_end(struct server *s);
