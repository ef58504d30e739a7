#include "keys/schedule.h"

static uint64_t slot_at(uint64_t ms, uint64_t every) {
  uint64_t slot = ms - ms % every;
  return slot ? slot : 1; // 0 means none
}

struct schedule_step schedule_step(uint64_t slot_ms, uint64_t every_ms, uint64_t now_ms) {
  uint64_t now_slot = slot_at(now_ms, every_ms);
  if (!slot_ms || (slot_ms > now_ms && slot_ms - now_ms > every_ms))
    return (struct schedule_step){SCHEDULE_BEGIN, now_slot, now_ms - now_ms % every_ms + every_ms};
  uint64_t due = slot_ms - slot_ms % every_ms + every_ms;
  if (now_ms < due)
    return (struct schedule_step){SCHEDULE_WAIT, slot_ms, due};
  return (struct schedule_step){SCHEDULE_ROTATE, now_slot, now_ms - now_ms % every_ms + every_ms};
}
