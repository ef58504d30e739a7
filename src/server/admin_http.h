// The admin listener's transport: HTTP for a few clients at once, on a thread of its own.
#pragma once
#include "server/server.h"

bool admin_listen(struct server *s, struct config_error *e); // binds every address of `admin`
bool admin_start(struct server *s, struct config_error *e);  // then the thread
uint16_t admin_port(const struct server *s, unsigned n);
void admin_stop(struct server *s);                          // NULL-safe: s->admin may never have started
