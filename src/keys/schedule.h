// Rotation on a schedule: when is a scope due. Pure: the time is the caller's, the state is one number.
//
// The moments of a schedule are the multiples of `every` since 1970-01-01 00:00 UTC (its slots): every 24h is midnight
// UTC, and nodes that know nothing of each other rotate at the same moments. What was acted on is kept as the last slot
// (keys/epochs.h), in the same journal line as the rotation: it happens once for each slot, whatever is killed when.
#pragma once
#include "base/bytes.h"

enum schedule_act {
  SCHEDULE_WAIT,
  SCHEDULE_BEGIN,  // nothing was acted on yet, or at a time that has not come (the clock was wrong): take note of `slot_ms`
  SCHEDULE_ROTATE, // rotate, once, however many slots passed while nobody looked
};

struct schedule_step {
  enum schedule_act act;
  uint64_t slot_ms; // to be kept with BEGIN and ROTATE
  uint64_t next_ms; // when there is something to do next
};

// schedule_step says what is to be done at `now_ms` for a scope whose last slot was `slot_ms` (0: none).
struct schedule_step schedule_step(uint64_t slot_ms, uint64_t every_ms, uint64_t now_ms);
