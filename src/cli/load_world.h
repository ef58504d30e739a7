// What `sluice load` compares responses with: clear tracks from the media folder, keys from the keys file.
#pragma once
#include "load/scenario.h"
#include "load/verify.h"

struct load_world;

// load_world_new opens scenario.verify's media and keys (paths relative to the scenario's folder) and makes a verifier.
// NULL after one line on standard error.
struct load_world *load_world_new(const char *scenario_path, const struct scenario *sc, struct verifier **out);
void load_world_free(struct load_world *w);
