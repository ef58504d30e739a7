// Inside of keys/: memory for parsers that keep texts with keys in them. What is freed is overwritten.
#pragma once
#include <stddef.h>

void *wiping_malloc(size_t n);
void *wiping_realloc(void *p, size_t n);
void wiping_free(void *p);

// wiping_json makes jansson use it, for the whole process: to be called before each use of it here.
void wiping_json(void);
