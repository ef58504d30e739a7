// The section `epochs` of the keys file.
#include "drm/markup.h"
#include "keys/keysfile_fields.h"
#include "keys/keyset.h"

#define INFO(f) offsetof(struct keys_info, f)
const struct field kf_epochs_fields[] = {{"default", K_U32, INFO(default_epoch), NULL},
                                          {"grace", K_GRACE, INFO(grace_ms), NULL},
                                          {"every", K_PERIOD, INFO(every_ms), NULL},
                                          {"schedule", K_SCHEDULES, 0, NULL},
                                          {0}};
enum { E_GRACE = 1 }; // its place there

static enum err add_schedule(struct input *in, const struct key_schedule *s) {
  struct keyset *ks = in->ks;
  char name[64];
  for (uint32_t i = 0; i < ks->num_schedules; i++)
    if (bytes_eq(ks->schedules[i].scope, s->scope))
      return kf_fail(in, ERR_SYNTAX, "epochs.schedule: two entries for %s", s->scope.n ? key_name(name, s->scope) : "everything");
  struct key_schedule *list = kf_grow(in, ks->schedules, ks->num_schedules, &ks->cap_schedules, sizeof *list);
  if (!list || ks->num_schedules == KEYS_MAX_SCHEDULES)
    return kf_fail(in, list ? ERR_LIMIT : ERR_NO_MEMORY, "epochs.schedule: too many entries");
  ks->schedules = list;
  list[ks->num_schedules++] = *s;
  return ERR_OK;
}

enum { S_MATCH, S_EVERY, S_GRACE };
static const struct field schedule_fields[] = {
    [S_MATCH] = {"match", K_TEXT, offsetof(struct key_schedule, scope), NULL},
    [S_EVERY] = {"every", K_PERIOD, offsetof(struct key_schedule, every_ms), NULL},
    [S_GRACE] = {"grace", K_GRACE, offsetof(struct key_schedule, grace_ms), NULL},
    {0}};

enum err kf_read_schedules(struct input *in) {
  enum err e;
  while (!(e = kf_next(in)) && in->ev.type != YAML_SEQUENCE_END_EVENT) {
    struct key_schedule s = {0};
    uint64_t seen = 0;
    yaml_mark_t at = in->ev.start_mark;
    if (in->ev.type != YAML_MAPPING_START_EVENT)
      return kf_fail(in, ERR_SYNTAX, "epochs.schedule: each entry is a mapping with match, every and grace");
    if ((e = kf_read_map(in, schedule_fields, &s, &seen)))
      return e;
    if (!s.scope.n || !(seen >> S_EVERY & 1))
      return kf_fail_at(in, ERR_SYNTAX, at, "epochs.schedule: an entry needs every, and match: an asset, or a prefix ending in /");
    if ((e = kf_check_match(in, s.scope, at, "epochs.schedule")))
      return e;
    s.has_grace = seen >> S_GRACE & 1;
    if ((e = add_schedule(in, &s)))
      return e;
  }
  return e;
}

enum err kf_settle_epochs(struct input *in) {
  struct keyset *ks = in->ks;
  enum err e = ks->info.every_ms ? add_schedule(in, &(struct key_schedule){.every_ms = ks->info.every_ms}) : ERR_OK;
  ks->info.schedules = ks->schedules;
  ks->info.num_schedules = ks->num_schedules;
  ks->info.has_grace = in->epochs_seen >> E_GRACE & 1;
  return e;
}
