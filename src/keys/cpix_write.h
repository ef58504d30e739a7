// Inside of keys/: the pieces that CPIX exports and SPEKE requests share.
#pragma once
#include "keys/cpix.h"

// cpix_open appends the declaration and the root's start tag; cpix_close its end.
void cpix_open(struct writer *w, struct bytes content_id, const char *version);
void cpix_close(struct writer *w);

// cpix_key_open appends `<cpix:ContentKey …` up to, not including, its `>` or `/>`.
void cpix_key_open(struct writer *w, const uint8_t kid[16], enum scheme scheme);

// cpix_system_open appends `<cpix:DRMSystem kid= systemId=>`.
void cpix_system_open(struct writer *w, const uint8_t kid[16], enum drm_system s);

// cpix_rule appends a usage rule for audio, with a label filter where there is a label.
void cpix_rule(struct writer *w, const uint8_t kid[16], struct bytes label);
