#include "keys/keys.h"

const struct key_provider key_providers[] = {{0}};
const size_t num_key_providers = 0;
