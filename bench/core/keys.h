// Rows for looking keys up.
#pragma once
#include "cases.h"

size_t bench_keys(struct bench_case *rows); // fills rows, at least 3, and says how many
